//! What sysfs says of GPUs on the PCI bus and of InfiniBand ports, as text for the evidence.

use crate::dcgm::text::one_line;
use engine_core::{Cause, Known};
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Most devices, ports and counters that are looked at.
const MAX_ENTRIES: usize = 1_024;
/// Most bytes of one attribute.
const MAX_FILE: u64 = 4_096;
/// Vendors whose PCI devices matter: NVIDIA (GPUs, switches), Mellanox (adapters).
const VENDORS: [&str; 2] = ["0x10de", "0x15b3"];
/// Attributes of a PCI device.
const PCI: [&str; 14] = [
    "vendor",
    "device",
    "class",
    "enable",
    "power_state",
    "numa_node",
    "current_link_speed",
    "max_link_speed",
    "current_link_width",
    "max_link_width",
    "aer_dev_correctable",
    "aer_dev_nonfatal",
    "aer_dev_fatal",
    "reset_method",
];
/// Attributes of an InfiniBand port.
const PORT: [&str; 5] = ["state", "phys_state", "rate", "link_layer", "lid"];

/// Reads an attribute as one line; what cannot be read says why.
fn attribute(path: &Path) -> String {
    let mut bytes = Vec::new();
    match fs::File::open(path).and_then(|f| f.take(MAX_FILE).read_to_end(&mut bytes)) {
        Ok(_) => one_line(&String::from_utf8_lossy(&bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => "(none)".to_owned(),
        Err(e) => format!("({e})"),
    }
}

/// Lists a directory in order; unknown where it is not there.
fn entries(dir: &Path) -> Known<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(list) => {
            let mut out: Vec<PathBuf> = list.flatten().map(|e| e.path()).take(MAX_ENTRIES).collect();
            out.sort();
            Known::Known(out)
        }
        Err(e) => Known::unknown(Cause::ReadFailed, format!("{}: {e}", dir.display())),
    }
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |n| one_line(&n.to_string_lossy()))
}

/// Describes the PCI devices of the vendors that matter.
pub(super) fn pci(sys_root: &Path) -> Known<String> {
    entries(&sys_root.join("bus/pci/devices")).and_then(|devices| {
        let mut out = String::new();
        for device in devices.iter().filter(|d| VENDORS.contains(&attribute(&d.join("vendor")).as_str())) {
            out.push_str(&format!("{}\n", name(device)));
            for a in PCI {
                out.push_str(&format!("  {a}: {}\n", attribute(&device.join(a))));
            }
        }
        if out.is_empty() {
            return Known::unknown(Cause::EmptyAnswer, "no device of NVIDIA or Mellanox is on the PCI bus");
        }
        Known::Known(out)
    })
}

/// Describes the ports of the InfiniBand adapters with their counters.
pub(super) fn infiniband(sys_root: &Path) -> Known<String> {
    entries(&sys_root.join("class/infiniband")).and_then(|adapters| {
        let mut out = String::new();
        for adapter in &adapters {
            let Known::Known(ports) = entries(&adapter.join("ports")) else {
                out.push_str(&format!("{}: no ports can be read\n", name(adapter)));
                continue;
            };
            for port in ports {
                out.push_str(&format!("{} port {}\n", name(adapter), name(&port)));
                for a in PORT {
                    out.push_str(&format!("  {a}: {}\n", attribute(&port.join(a))));
                }
                for counter in entries(&port.join("counters")).into_known().unwrap_or_default() {
                    out.push_str(&format!("  {}: {}\n", name(&counter), attribute(&counter)));
                }
            }
        }
        if out.is_empty() {
            return Known::unknown(Cause::EmptyAnswer, "there is no InfiniBand adapter");
        }
        Known::Known(out)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_and_ports_are_described_and_the_rest_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert!(!pci(root.path()).is_known() && !infiniband(root.path()).is_known());
        write("bus/pci/devices/0000:00:1f.0/vendor", "0x8086\n");
        assert!(!pci(root.path()).is_known(), "no GPU is not an empty text");
        write("bus/pci/devices/0000:52:00.0/vendor", "0x10de\n");
        write("bus/pci/devices/0000:52:00.0/current_link_speed", "2.5 GT/s PCIe\n");
        write("bus/pci/devices/0000:52:00.0/aer_dev_fatal", "Undefined 0\nDLP 1\nTOTAL_ERR_FATAL 1\n");
        let text = pci(root.path()).into_known().unwrap();
        assert!(text.contains("current_link_speed: 2.5 GT/s PCIe") && text.contains("DLP 1"), "{text}");
        assert!(text.contains("max_link_speed: (none)") && !text.contains("1f.0"), "{text}");
        write("class/infiniband/mlx5_0/ports/1/state", "4: ACTIVE\n");
        write("class/infiniband/mlx5_0/ports/1/counters/link_downed", "3\n");
        let text = infiniband(root.path()).into_known().unwrap();
        assert!(
            text.contains("mlx5_0 port 1\n  state: 4: ACTIVE") && text.contains("link_downed: 3"),
            "{text}"
        );
    }
}
