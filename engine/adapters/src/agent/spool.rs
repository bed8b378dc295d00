//! What waits on this node for the engine: reports of the hook, and of the agent's own look at the kernel log. The agent
//! carries them there.
//!
//! A file holds alerts, one on each line, and its name says when and in which boot it was written and whether it tells of
//! a state or of something that happened once.

use engine_core::digest::Digest;
use serde_json::Value;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The largest report, in bytes.
const MAX_REPORT: u64 = 256 << 10;
/// Reports that are carried in one go.
pub(super) const AT_ONCE: usize = 64;
/// Files that are looked at in one listing.
const MAX_LISTED: usize = 20_000;

/// Reports of the agent's own that wait, at most.
const MAX_WAITING: usize = 512;

/// What a report holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Something that is so, or is over, at its own time.
    State,
    /// Something that happened and is still to be looked at, however late it is told.
    Event,
}

/// Leaves a report, synced. Returns how many older ones had to go for it.
pub(super) fn put(
    dir: &Path,
    kind: Kind,
    boot: &str,
    lines: &str,
    now: jiff::Timestamp,
) -> std::io::Result<usize> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut there: Vec<PathBuf> = std::fs::read_dir(dir)?
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .collect();
    there.sort();
    let dropped = (there.len() + 1).saturating_sub(MAX_WAITING);
    for old in &there[..dropped.min(there.len())] {
        let _ = std::fs::remove_file(old);
    }
    let (word, pid) = (if kind == Kind::Event { "event" } else { "state" }, std::process::id());
    let digest: String = Digest::of(lines.as_bytes()).as_str().chars().take(12).collect();
    let ms = now.as_millisecond();
    let name = format!("{ms:013}-{pid}-0-{word}-{}-{digest}.json", short(boot));
    let new = dir.join(format!(".new-{pid}"));
    let mut file = File::create(&new)?;
    file.write_all(lines.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, dir.join(name))?;
    File::open(dir)?.sync_all()?;
    Ok(dropped)
}

/// A report that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) path: PathBuf,
    /// Its lines, as the engine takes them.
    pub(super) body: Vec<u8>,
}

/// Reads the reports that wait, oldest first. What cannot be read, or is no report, stays for the hook to set aside.
pub(super) fn waiting(dir: &Path, boot: &str, now: jiff::Timestamp) -> Vec<Report> {
    let Ok(list) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = list
        .flatten()
        .take(MAX_LISTED)
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .collect();
    paths.sort();
    paths.into_iter().filter_map(|path| read(path, boot, now)).take(AT_ONCE).collect()
}

fn read(path: PathBuf, boot: &str, now: jiff::Timestamp) -> Option<Report> {
    let mut text = String::new();
    File::open(&path).ok()?.take(MAX_REPORT + 1).read_to_string(&mut text).ok()?;
    if text.len() as u64 > MAX_REPORT {
        return None;
    }
    let name = path.file_stem()?.to_str()?;
    let parts: Vec<&str> = name.split('-').collect();
    // What happened since this boot is still to be looked at: told now, it is not refused as too old. What happened
    // before a reboot keeps its time.
    let fresh = matches!(parts.as_slice(), [_, _, _, "event", at, _] if *at == boot);
    let mut lines = Vec::new();
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        let mut alert: Value = serde_json::from_str(line).ok()?;
        let fields = alert.as_object_mut()?;
        if fresh && fields.contains_key("seen_at") {
            fields.insert("seen_at".to_owned(), now.to_string().into());
        }
        lines.push(alert.to_string());
    }
    Some(Report { path, body: lines.join("\n").into_bytes() })
}

/// Takes a delivered report away; one that the engine refused goes beside the spool, for people.
pub(super) fn done(report: &Report, refused: bool) {
    if refused {
        let aside = report.path.parent().and_then(Path::parent).map(|d| d.join("set-aside"));
        if let (Some(aside), Some(name)) = (aside, report.path.file_name())
            && std::fs::rename(&report.path, aside.join(name)).is_ok()
        {
            return;
        }
    }
    let _ = std::fs::remove_file(&report.path);
}

/// The id of this boot.
pub(super) fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The first digits of a boot's id, as the hook writes them into names.
pub(super) fn short(boot: &str) -> String {
    let id: String = boot.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    if id.is_empty() { "unknown".to_owned() } else { id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_come_in_order_and_events_of_this_boot_are_told_now() {
        let state = tempfile::tempdir().unwrap();
        let dir = state.path().join("spool");
        std::fs::create_dir(&dir).unwrap();
        std::fs::create_dir(state.path().join("set-aside")).unwrap();
        let put = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
        let alert = r#"{"fault":"x","node":"gpu001","seen_at":"2026-01-01T00:00:00Z"}"#;
        put("0000000000002-7-0-event-abcd1234-000000000000.json", alert);
        put("0000000000001-7-0-state-abcd1234-000000000000.json", alert);
        put("0000000000003-7-0-event-00000000-000000000000.json", alert);
        put("0000000000004-7-0-state-abcd1234-000000000000.json", "{ torn");
        put(".new-1-0", alert);
        let now = "2026-03-04T05:06:07Z".parse().unwrap();
        let found = waiting(&dir, "abcd1234", now);
        let times: Vec<bool> =
            found.iter().map(|r| String::from_utf8_lossy(&r.body).contains("2026-03-04")).collect();
        assert_eq!(times, [false, true, false]);
        done(&found[0], false);
        done(&found[1], true);
        assert_eq!(waiting(&dir, "abcd1234", now).len(), 1);
        assert_eq!(std::fs::read_dir(state.path().join("set-aside")).unwrap().count(), 1);
        assert_eq!(waiting(Path::new("/nonexistent"), "abcd1234", now), []);
    }
}
