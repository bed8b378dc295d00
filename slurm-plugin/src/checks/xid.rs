//! XIDs in the kernel log since boot. Each line is told once: the cursor says where the last look ended.
//!
//! Reads `/dev/kmsg` without waiting, or a plain file that something else fills.

use super::{MAX_FINDINGS, Said, Scene};
use crate::config::Params;
use crate::finding::{Finding, Lasts};
use engine_xid::{Line, Meaning, from_kernel};
use nix::fcntl::OFlag;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::Instant;

/// The most bytes of a plain file in one look; the next look goes on from there.
const MAX_READ: u64 = 4 << 20;

/// The log.
#[derive(Debug, Clone)]
pub(crate) struct Xid {
    /// Character device with records, or a plain file with lines.
    pub(crate) log: PathBuf,
    /// Whether codes of the application class are told too.
    apps: bool,
}

impl Xid {
    /// Reads the settings.
    pub(super) fn read(p: &mut Params) -> Result<Self, String> {
        let apps = match p.text("apps").as_deref() {
            None | Some("no") => false,
            Some("yes") => true,
            Some(other) => return Err(format!("apps={other} is neither yes nor no")),
        };
        Ok(Self { log: p.path("log")?.unwrap_or_else(|| PathBuf::from("/dev/kmsg")), apps })
    }

    /// Looks.
    pub(super) fn look(&self, scene: &Scene) -> Said {
        let mut seen = Seen::default();
        let done = match std::fs::metadata(&self.log) {
            Ok(m) if m.file_type().is_char_device() => self.records(scene, &mut seen),
            Ok(m) if m.is_file() => self.lines(scene, &m, &mut seen),
            Ok(_) => Err("it is neither a device nor a plain file".to_owned()),
            Err(e) => Err(e.to_string()),
        };
        let mut said = seen.tell(self.apps);
        match done {
            Ok(cursor) => said.cursor = Some(cursor),
            Err(why) => said.trouble = Some(format!("{}: {why}", self.log.display())),
        }
        said
    }

    /// Reads the kernel's records, one for each read; a time of their own lets old ones be told as old.
    fn records(&self, scene: &Scene, seen: &mut Seen) -> Result<String, String> {
        let boot = boot_id()?;
        let after = scene.cursor.as_deref().and_then(|c| {
            let (at, number) = c.split_once(' ')?;
            number.parse::<u64>().ok().filter(|_| at == boot)
        });
        let began = crate::time::now_ms().saturating_sub(uptime_ms()?);
        let mut file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&self.log)
            .map_err(|e| e.to_string())?;
        let mut buffer = vec![0; 16 * 1024];
        let mut last = after;
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    let record = String::from_utf8_lossy(&buffer[..n]);
                    let Some(record) = engine_xid::record(&record) else { continue };
                    last = last.max(Some(record.number));
                    if after.is_none_or(|a| record.number > a)
                        && let Some(text) = record.text
                    {
                        seen.line(text, Some(began + record.age_us / 1000));
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                // Overwritten before it was read: the next read is of the oldest that is left.
                Err(e) if e.raw_os_error() == Some(nix::errno::Errno::EPIPE as i32) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.to_string()),
            }
            // The next look goes on behind what was read.
            if Instant::now() >= scene.end {
                break;
            }
        }
        Ok(format!("{boot} {}", last.unwrap_or(0)))
    }

    /// Reads whole lines from where the last look ended; from the beginning if the file is another or was cut.
    fn lines(&self, scene: &Scene, meta: &std::fs::Metadata, seen: &mut Seen) -> Result<String, String> {
        let from = scene.cursor.as_deref().and_then(|c| {
            let (inode, offset) = c.split_once(' ')?;
            let offset = offset.parse::<u64>().ok()?;
            (inode.parse() == Ok(meta.ino()) && offset <= meta.len()).then_some(offset)
        });
        let mut from = from.unwrap_or(0);
        let mut file = std::fs::File::open(&self.log).map_err(|e| e.to_string())?;
        file.seek(SeekFrom::Start(from)).map_err(|e| e.to_string())?;
        let mut bytes = Vec::new();
        file.take(MAX_READ).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        let whole = match bytes.iter().rposition(|b| *b == b'\n') {
            Some(at) => at + 1,
            // One line without an end that fills everything is passed over.
            None if bytes.len() as u64 == MAX_READ => bytes.len(),
            None => 0,
        };
        for line in String::from_utf8_lossy(&bytes[..whole]).lines() {
            if from_kernel(line) {
                seen.line(line, None);
            }
        }
        from += whole as u64;
        Ok(format!("{} {from}", meta.ino()))
    }
}

fn boot_id() -> Result<String, String> {
    let path = "/proc/sys/kernel/random/boot_id";
    std::fs::read_to_string(path).map(|t| t.trim().to_owned()).map_err(|e| format!("{path}: {e}"))
}

fn uptime_ms() -> Result<u64, String> {
    let text = std::fs::read_to_string("/proc/uptime").map_err(|e| format!("/proc/uptime: {e}"))?;
    let seconds: f64 = text.split(' ').next().and_then(|s| s.parse().ok()).ok_or("/proc/uptime is odd")?;
    Ok((seconds * 1000.0) as u64)
}

/// What was seen, by code and device.
#[derive(Debug, Default)]
struct Seen {
    faults: BTreeMap<(String, String), (Line, u64, Option<u64>)>,
    applications: u64,
}

impl Seen {
    fn line(&mut self, text: &str, at_ms: Option<u64>) {
        let Some(line) = engine_xid::read(text) else { return };
        match line.meaning {
            Meaning::Quiet => return,
            Meaning::Application => self.applications += 1,
            Meaning::Fault(_) => {}
        }
        let key = (line.code.clone(), line.device.clone());
        let full = self.faults.len() >= MAX_FINDINGS;
        match self.faults.get_mut(&key) {
            Some((_, count, at)) => {
                *count += 1;
                *at = at_ms;
            }
            None if full => {}
            None => drop(self.faults.insert(key, (line, 1, at_ms))),
        }
    }

    fn tell(self, apps: bool) -> Said {
        let mut said = Said::fine(match self.applications {
            0 => "no new XID".to_owned(),
            n => format!("{n} XIDs of applications"),
        });
        for ((code, device), (line, count, at_ms)) in self.faults {
            let fault = match line.meaning {
                Meaning::Fault(word) => word,
                Meaning::Application if apps => "gpu-app-error",
                Meaning::Application | Meaning::Quiet => continue,
            };
            let mut message = crate::talk::tame(&line.message);
            crate::talk::cut(&mut message, 200);
            let times = if count > 1 { format!(" {count} times") } else { String::new() };
            let text =
                format!("{} of {device} in the kernel log{times}: {message}", code.replacen('-', " ", 1));
            let gpu = (!code.starts_with("sxid")).then_some(device);
            said.findings.push(Finding {
                fault: fault.to_owned(),
                subject: code,
                gpu,
                lasts: Lasts::Happened,
                at_ms,
                text,
            });
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mode::Mode;
    use std::cell::RefCell;
    use std::io::Write as _;

    fn look(log: &std::path::Path, cursor: Option<String>) -> Said {
        let end = Instant::now() + std::time::Duration::from_secs(5);
        Xid { log: log.to_path_buf(), apps: false }.look(&Scene {
            mode: Mode::Health,
            end,
            cursor,
            node: "gpu003".to_owned(),
            scrape: &RefCell::new(None),
        })
    }

    #[test]
    fn each_line_is_told_once_and_a_new_file_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("kern.log");
        let line = "[ 1.0] NVRM: Xid (PCI:0000:1b:00): 48, DBE\n";
        std::fs::write(&log, format!("[ 0.1] Linux\n{line}{line}[ 2.0] NVRM: Xid (PCI:0000:1b")).unwrap();
        let said = look(&log, None);
        assert_eq!(said.findings.len(), 1);
        assert!(said.findings[0].text.contains("xid 48 of 00000000:1B:00.0 in the kernel log 2 times: DBE"));
        assert_eq!(said.findings[0].gpu.as_deref(), Some("00000000:1B:00.0"));
        let again = look(&log, said.cursor.clone());
        assert_eq!((again.findings.len(), &again.cursor), (0, &said.cursor));
        // the rest of the torn line
        let mut file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
        file.write_all(b":00): 79, gone\n").unwrap();
        let said = look(&log, said.cursor);
        assert_eq!(said.findings[0].fault, "gpu-off-bus");
        std::fs::remove_file(&log).unwrap();
        std::fs::write(&log, line).unwrap();
        assert_eq!(look(&log, said.cursor).findings.len(), 1);
    }

    #[test]
    fn a_flood_is_bounded_and_applications_are_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("kern.log");
        let mut text = String::new();
        for i in 0..2_000 {
            text += &format!(
                "NVRM: Xid (PCI:{:04x}:1b:00): {}, x\n",
                i % 1_000,
                if i % 2 == 0 { 13 } else { 48 }
            );
        }
        std::fs::write(&log, text).unwrap();
        let said = look(&log, None);
        assert!(said.findings.len() <= MAX_FINDINGS && !said.findings.is_empty());
        assert!(said.findings.iter().all(|f| f.fault == "gpu-ecc-uncorrectable"));
    }

    #[test]
    fn a_log_that_is_not_there_is_trouble_not_health() {
        let said = look(std::path::Path::new("/no/such/log"), None);
        assert!(said.trouble.is_some() && said.findings.is_empty());
    }
}
