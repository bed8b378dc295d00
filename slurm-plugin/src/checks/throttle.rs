//! Are GPUs held back by heat or by power brakes? From dcgm-exporter's text or from `nvidia-smi`, whichever is set.

use super::{MAX_FINDINGS, METRICS, Said, Scene};
use crate::command;
use crate::config::Params;
use crate::finding::Finding;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Bits of DCGM field 112 and of nvidia-smi's mask.
const HW_SLOWDOWN: u64 = 0x8;
const HW_THERMAL: u64 = 0x40;
const HW_POWER_BRAKE: u64 = 0x80;

#[derive(Debug, Clone)]
enum Source {
    Exporter(SocketAddr),
    NvidiaSmi { program: PathBuf, field: String },
}

/// Where the reasons are read.
#[derive(Debug, Clone)]
pub(crate) struct Throttle {
    source: Source,
}

impl Throttle {
    /// Reads the settings.
    pub(super) fn read(p: &mut Params) -> Result<Self, String> {
        let field = p.text("field").unwrap_or_else(|| "clocks_throttle_reasons.active".to_owned());
        if !field.bytes().all(|b| b.is_ascii_lowercase() || b"_.".contains(&b)) {
            return Err(format!("field={field} is no field of nvidia-smi"));
        }
        let source = match (p.address("exporter")?, p.path("nvidia_smi")?) {
            (Some(address), None) => Source::Exporter(address),
            (None, Some(program)) => Source::NvidiaSmi { program, field },
            _ => {
                return Err(
                    "check throttle needs either exporter=127.0.0.1:9400 or nvidia_smi=/usr/bin/nvidia-smi"
                        .to_owned(),
                );
            }
        };
        Ok(Self { source })
    }

    /// Looks.
    pub(super) fn look(&self, scene: &Scene) -> Said {
        let masks = match &self.source {
            Source::Exporter(address) => match scene.metrics(*address, METRICS) {
                Ok(text) => from_exporter(&text),
                Err(e) => Err(format!("dcgm-exporter at {address}: {e}")),
            },
            Source::NvidiaSmi { program, field } => {
                let query = format!("--query-gpu=pci.bus_id,{field}");
                match command::run(program, &[&query, "--format=csv,noheader"], &[], scene.end) {
                    Ok(text) => from_csv(&text),
                    Err(why) => Err(why),
                }
            }
        };
        match masks {
            Ok(masks) => judge(&masks),
            Err(why) => Said::trouble(why),
        }
    }
}

fn judge(masks: &BTreeMap<String, u64>) -> Said {
    let mut said = Said::fine(format!("{} GPUs at speed", masks.len()));
    for (gpu, mask) in masks.iter().take(MAX_FINDINGS) {
        let (brake, heat) = (mask & HW_POWER_BRAKE != 0, mask & HW_THERMAL != 0);
        let mut add = |fault, what: &str| {
            let text = format!("GPU {gpu} is slowed down by {what} (clock reasons {mask:#x})");
            said.findings.push(Finding::now(fault, "clocks", text).on_gpu(gpu));
        };
        if brake {
            add("gpu-power-brake", "the power brake");
        }
        if heat || (mask & HW_SLOWDOWN != 0 && !brake) {
            add("gpu-hw-thermal", "its hardware, mostly for heat");
        }
    }
    said
}

fn from_exporter(text: &str) -> Result<BTreeMap<String, u64>, String> {
    let mut masks = BTreeMap::new();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once('{') else { continue };
        if !matches!(
            name,
            "DCGM_FI_DEV_CLOCKS_EVENT_REASONS"
                | "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS"
                | "DCGM_FI_DEV_CLOCK_EVENT_REASONS"
        ) {
            continue;
        }
        let label = |key: &str| {
            let at = rest.find(&format!("{key}=\""))? + key.len() + 2;
            rest[at..].split('"').next().map(str::to_owned)
        };
        let gpu = label("pci_bus_id").or_else(|| label("gpu"));
        let mask = rest.rsplit_once('}').and_then(|(_, v)| v.split_whitespace().next()?.parse::<f64>().ok());
        let (Some(gpu), Some(mask)) = (gpu, mask) else {
            return Err(format!("dcgm-exporter: a line is not understood: {}", crate::talk::tame(line)));
        };
        masks.insert(gpu, mask as u64);
    }
    if masks.is_empty() {
        return Err(
            "dcgm-exporter has no clock reasons: add DCGM_FI_DEV_CLOCK_THROTTLE_REASONS to its counters"
                .to_owned(),
        );
    }
    Ok(masks)
}

fn from_csv(text: &str) -> Result<BTreeMap<String, u64>, String> {
    let mut masks = BTreeMap::new();
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        let read = line.split_once(',').and_then(|(gpu, mask)| {
            let mask = u64::from_str_radix(mask.trim().strip_prefix("0x")?, 16).ok()?;
            Some((gpu.trim().to_owned(), mask))
        });
        let (gpu, mask) =
            read.ok_or_else(|| format!("nvidia-smi: a line is not understood: {}", crate::talk::tame(line)))?;
        masks.insert(gpu, mask);
    }
    if masks.is_empty() { Err("nvidia-smi lists no GPU".to_owned()) } else { Ok(masks) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(masks: &[(&str, u64)]) -> Vec<String> {
        let masks = masks.iter().map(|(g, m)| ((*g).to_owned(), *m)).collect();
        judge(&masks).findings.into_iter().map(|f| f.fault).collect()
    }

    #[test]
    fn heat_and_brakes_are_told_apart_and_idle_is_fine() {
        assert_eq!(faults(&[("0", 0x1), ("1", 0x4), ("2", 0x0), ("3", 0x20)]), Vec::<String>::new());
        assert_eq!(faults(&[("0", 0x48)]), ["gpu-hw-thermal"]);
        assert_eq!(faults(&[("0", 0x8)]), ["gpu-hw-thermal"]);
        assert_eq!(faults(&[("0", 0x88)]), ["gpu-power-brake"]);
        assert_eq!(faults(&[("0", 0xC8)]), ["gpu-power-brake", "gpu-hw-thermal"]);
    }

    #[test]
    fn a_captured_scrape_and_a_captured_query_are_read() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/dcgm-exporter/4.8.2-plus");
        let text = std::fs::read_to_string(format!("{root}/metrics-recovery-remap-throttle.prom")).unwrap();
        let masks = from_exporter(&text).unwrap();
        assert_eq!(masks.len(), 8);
        assert_eq!(masks["00000000:52:00.0"], 96);
        assert_eq!(judge(&masks).findings[0].gpu.as_deref(), Some("00000000:52:00.0"));
        let csv = "00000000:1B:00.0, 0x0000000000000001\n00000000:43:00.0, 0x0000000000000048\n";
        assert_eq!(from_csv(csv).unwrap()["00000000:43:00.0"], 0x48);
    }

    #[test]
    fn what_is_not_understood_is_no_health() {
        for text in
            ["", "DCGM_FI_DEV_SM_CLOCK{gpu=\"0\"} 1", "DCGM_FI_DEV_CLOCKS_EVENT_REASONS{gpu=\"0\"} NaNa"]
        {
            assert!(from_exporter(text).is_err(), "{text:?}");
        }
        for text in
            ["", "No devices were found", "00000000:1B:00.0, [N/A]", "00000000:1B:00.0, [Unknown Error]"]
        {
            assert!(from_csv(text).is_err(), "{text:?}");
        }
    }
}
