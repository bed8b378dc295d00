//! Are all GPUs there? Device files and the driver's own list are counted; nothing is started and no GPU is touched.

use super::gres::{self, Expected};
use super::{Said, Scene};
use crate::config::Params;
use crate::finding::Finding;
use std::path::{Path, PathBuf};

/// How many there should be.
#[derive(Debug, Clone)]
pub(crate) struct Gpus {
    expect: Option<usize>,
    gres: Option<PathBuf>,
    dev: PathBuf,
    proc: PathBuf,
}

impl Gpus {
    /// Reads the settings.
    pub(super) fn read(p: &mut Params) -> Result<Self, String> {
        let expect = p.number("expect", 1024)?.map(|n| n as usize);
        let gres = p.path("gres")?;
        if expect.is_none() == gres.is_none() {
            return Err("check gpus needs either expect=N or gres=/etc/slurm/gres.conf".to_owned());
        }
        let dev = p.path("dev")?.unwrap_or_else(|| PathBuf::from("/dev"));
        Ok(Self { expect, gres, dev, proc: p.path("proc")?.unwrap_or_else(|| PathBuf::from("/proc")) })
    }

    /// Looks.
    pub(super) fn look(&self, scene: &Scene) -> Said {
        let expected = match (&self.gres, self.expect) {
            (Some(path), _) => match gres::read(path, &scene.node) {
                Ok(expected) => expected,
                Err(why) => return Said::trouble(why),
            },
            (None, count) => Expected { count: count.unwrap_or_default(), files: Vec::new() },
        };
        let count = expected.count;
        let missing: Vec<&Path> =
            expected.files.iter().map(PathBuf::as_path).filter(|f| !f.exists()).collect();
        if let Some(first) = missing.first() {
            let text =
                format!("{} of {count} device files are missing, first {}", missing.len(), first.display());
            return Said::found(Finding::now("gpu-count-mismatch", "gpus", text));
        }
        let numbered = |name: &str| name.strip_prefix("nvidia").is_some_and(|n| n.parse::<u32>().is_ok());
        let device = |name: &str| expected.files.is_empty() && numbered(name);
        let list = self.proc.join("driver/nvidia/gpus");
        let counts = match (entries(&self.dev, device), entries(&list, |_| true)) {
            (Err(e), _) if e.kind() != std::io::ErrorKind::NotFound => {
                return Said::trouble(format!("{}: {e}", self.dev.display()));
            }
            (_, Err(e)) if e.kind() != std::io::ErrorKind::NotFound => {
                return Said::trouble(format!("{}: {e}", list.display()));
            }
            (files, driver) => (files.unwrap_or_default(), driver.ok()),
        };
        let files = if expected.files.is_empty() { counts.0 } else { count };
        let driver = counts.1.unwrap_or(files);
        if files < count || driver < count {
            let text = format!(
                "{count} GPUs are configured; {files} have a device file, {driver} are with the driver"
            );
            return Said::found(Finding::now("gpu-count-mismatch", "gpus", text));
        }
        Said::fine(format!("{count} GPUs"))
    }
}

fn entries(dir: &Path, counts: impl Fn(&str) -> bool) -> std::io::Result<usize> {
    let mut n = 0;
    for entry in std::fs::read_dir(dir)? {
        n += usize::from(counts(&entry?.file_name().to_string_lossy()));
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mode::Mode;
    use std::cell::RefCell;
    use std::time::Instant;

    fn look(expect: usize, files: usize, driver: Option<usize>) -> Said {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..files {
            std::fs::write(dir.path().join(format!("nvidia{i}")), "").unwrap();
        }
        for other in ["nvidiactl", "nvidia-uvm", "nvidia-modeset", "null"] {
            std::fs::write(dir.path().join(other), "").unwrap();
        }
        for i in 0..driver.unwrap_or(0) {
            std::fs::create_dir_all(dir.path().join(format!("driver/nvidia/gpus/0000:{i:02x}:00.0")))
                .unwrap();
        }
        let path = dir.path().to_path_buf();
        let gpus = Gpus { expect: Some(expect), gres: None, dev: path.clone(), proc: path };
        gpus.look(&Scene {
            mode: Mode::Health,
            end: Instant::now(),
            cursor: None,
            node: "gpu001".to_owned(),
            scrape: &RefCell::new(None),
        })
    }

    #[test]
    fn fewer_than_configured_is_found_in_either_list() {
        assert_eq!(look(8, 8, Some(8)).findings, []);
        assert_eq!(look(8, 8, None).findings, []);
        for (files, driver) in [(7, Some(8)), (8, Some(7)), (0, None), (0, Some(0))] {
            let said = look(8, files, driver);
            assert_eq!(said.findings[0].fault, "gpu-count-mismatch", "{files} {driver:?}");
        }
    }
}
