//! Reports that wait for the engine: one file each, bounded in number and size, whole or set aside.
//!
//! A file holds alerts, one on each line, as `slurmedic alert FILE` takes them. Its name holds its time, its kind, the
//! boot it belongs to and the digest of what is in it, so that a torn or altered file is known.

use crate::alert::{at_another_time, hex};
use sha2::{Digest as _, Sha256};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The largest report, in bytes.
const MAX_REPORT: u64 = 256 * 1024;
/// The most files that are looked at in one listing.
const MAX_LISTED: usize = 20_000;
/// The most files that are kept aside.
const MAX_ASIDE: usize = 64;

/// What a report holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Things that are so, or are over. A later report says it again.
    Condition,
    /// Things that happened. Nobody says them again.
    Event,
}

/// The spool of this host.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    aside: PathBuf,
    max_entries: usize,
    max_bytes: u64,
    max_age: Duration,
    boot: String,
}

/// One report that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    path: PathBuf,
    ms: u64,
    kind: Kind,
    boot: String,
    digest: String,
    bytes: u64,
}

impl Spool {
    /// Names the spool below the state directory.
    pub(crate) fn new(config: &crate::config::Config) -> Self {
        Self {
            dir: config.state_dir.join("spool"),
            aside: config.state_dir.join("set-aside"),
            max_entries: config.spool_entries,
            max_bytes: config.spool_bytes,
            max_age: config.spool_age,
            boot: boot(),
        }
    }

    /// Puts a report in. Returns how many older ones had to go for it.
    pub(crate) fn put(&self, kind: Kind, lines: &str, now_ms: u64, number: u32) -> Result<usize, String> {
        let shown = self.dir.display();
        let fail = |e: std::io::Error| format!("{shown}: {e}");
        make(&self.dir).map_err(fail)?;
        let (mut entries, _) = self.list()?;
        let mut dropped = 0;
        let mut bytes: u64 = entries.iter().map(|e| e.bytes).sum();
        while !entries.is_empty()
            && (entries.len() >= self.max_entries || bytes + lines.len() as u64 > self.max_bytes)
        {
            // What will be said again goes first.
            let at = entries.iter().position(|e| e.kind == Kind::Condition).unwrap_or(0);
            let old = entries.remove(at);
            bytes -= old.bytes;
            dropped += 1;
            let _ = std::fs::remove_file(&old.path);
        }
        let word = if kind == Kind::Event { "event" } else { "state" };
        let pid = std::process::id();
        let name = format!("{now_ms:013}-{pid}-{number}-{word}-{}-{}.json", self.boot, digest(lines));
        let new = self.dir.join(format!(".new-{pid}-{number}"));
        let write = || {
            let mut file = std::fs::File::create(&new)?;
            file.write_all(lines.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, self.dir.join(&name))
        };
        write().map(|()| dropped).map_err(|e| {
            let _ = std::fs::remove_file(&new);
            fail(e)
        })
    }

    /// Lists the reports, oldest first; and how many files were set aside because they are none.
    pub(crate) fn list(&self) -> Result<(Vec<Entry>, usize), String> {
        let dir = match std::fs::read_dir(&self.dir) {
            Ok(dir) => dir,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
            Err(e) => return Err(format!("{}: {e}", self.dir.display())),
        };
        let mut entries = Vec::new();
        let mut odd = 0;
        for entry in dir.flatten().take(MAX_LISTED) {
            let (path, Ok(meta)) = (entry.path(), entry.metadata()) else { continue };
            match parse(&path, meta.len()) {
                Some(found) if meta.is_file() && meta.len() <= MAX_REPORT => entries.push(found),
                // Another start may be writing it.
                _ if is_new(&path) && !is_old(&meta) => {}
                _ => {
                    odd += 1;
                    self.set_aside(&path);
                }
            }
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok((entries, odd))
    }

    /// Reads a report for delivery. Nothing where it is too old, or is damaged and was set aside.
    pub(crate) fn take(&self, entry: &Entry, now_ms: u64) -> Taken {
        if now_ms.saturating_sub(entry.ms) > self.max_age.as_millis() as u64 {
            Self::remove(entry);
            return Taken::TooOld;
        }
        let text = match std::fs::read_to_string(&entry.path) {
            Ok(text) if digest(&text) == entry.digest => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Taken::Gone,
            _ => {
                self.set_aside(&entry.path);
                return Taken::Damaged;
            }
        };
        // What happened since this boot is still to be looked at: told now, it is not refused as too old. What happened
        // before a reboot keeps its time.
        if entry.kind == Kind::Event && entry.boot == self.boot {
            let lines: Vec<String> = text.lines().map(|l| at_another_time(l, now_ms)).collect();
            return Taken::Report(lines.join("\n"));
        }
        Taken::Report(text)
    }

    /// Removes a report that was delivered.
    pub(crate) fn remove(entry: &Entry) {
        let _ = std::fs::remove_file(&entry.path);
    }

    /// Keeps a report that the engine refuses, for people.
    pub(crate) fn refused(&self, entry: &Entry) {
        self.set_aside(&entry.path);
    }

    fn set_aside(&self, path: &Path) {
        let _ = make(&self.aside);
        let mut kept: Vec<PathBuf> =
            std::fs::read_dir(&self.aside).into_iter().flatten().flatten().map(|e| e.path()).collect();
        kept.sort();
        let room = MAX_ASIDE - 1;
        for old in kept.iter().take(kept.len().saturating_sub(room)) {
            let _ = std::fs::remove_file(old);
        }
        let name = path.file_name().unwrap_or_default();
        if std::fs::rename(path, self.aside.join(name)).is_err() {
            // A damaged file must not be met again and again.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What became of a report that was taken out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Its lines.
    Report(String),
    /// It was too old and is gone.
    TooOld,
    /// It was damaged and lies aside.
    Damaged,
    /// Somebody else took it.
    Gone,
}

fn make(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn digest(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes())[..6])
}

/// The first digits of the boot's id; the same word where it cannot be read.
pub(crate) fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let id: String = id.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    if id.is_empty() { "unknown".to_owned() } else { id }
}

fn is_new(path: &Path) -> bool {
    path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(".new-"))
}

fn is_old(meta: &std::fs::Metadata) -> bool {
    let age = meta.modified().ok().and_then(|m| SystemTime::now().duration_since(m).ok());
    age.is_some_and(|a| a > Duration::from_secs(600))
}

fn parse(path: &Path, bytes: u64) -> Option<Entry> {
    let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
    let mut parts = name.split('-');
    let ms = parts.next()?.parse().ok()?;
    let (_pid, _number) = (parts.next()?, parts.next()?);
    let kind = match parts.next()? {
        "event" => Kind::Event,
        "state" => Kind::Condition,
        _ => return None,
    };
    let (boot, digest) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    parts.next().is_none().then(|| Entry { path: path.to_path_buf(), ms, kind, boot, digest, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn spool(dir: &Path) -> Spool {
        let config = Config { state_dir: dir.to_path_buf(), spool_entries: 3, ..Config::default() };
        Spool::new(&config)
    }

    fn texts(spool: &Spool, now: u64) -> Vec<String> {
        let (entries, _) = spool.list().unwrap();
        entries
            .iter()
            .map(|e| match spool.take(e, now) {
                Taken::Report(text) => text,
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn reports_come_back_in_order_and_the_oldest_condition_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path());
        assert_eq!(spool.put(Kind::Event, "e1", 1_000, 0), Ok(0));
        assert_eq!(spool.put(Kind::Condition, "c1", 2_000, 0), Ok(0));
        assert_eq!(spool.put(Kind::Condition, "c2", 3_000, 0), Ok(0));
        assert_eq!(spool.put(Kind::Event, "e2", 4_000, 0), Ok(1));
        assert_eq!(texts(&spool, 5_000), ["e1", "c2", "e2"]);
        for i in 0..3 {
            spool.put(Kind::Event, "e3", 6_000, i).unwrap();
        }
        assert_eq!(texts(&spool, 7_000), ["e3", "e3", "e3"]);
    }

    #[test]
    fn what_is_damaged_or_strange_is_set_aside_once() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path());
        spool.put(Kind::Event, "{\"a\":1}", 1_000, 0).unwrap();
        let (entries, _) = spool.list().unwrap();
        std::fs::write(&entries[0].path, "{\"a\"").unwrap();
        std::fs::write(dir.path().join("spool/rubbish.json"), "x").unwrap();
        std::fs::create_dir(dir.path().join("spool/dir")).unwrap();
        let (entries, odd) = spool.list().unwrap();
        assert_eq!((entries.len(), odd), (1, 2));
        assert_eq!(spool.take(&entries[0], 2_000), Taken::Damaged);
        assert_eq!(spool.list().unwrap(), (vec![], 0));
        assert_eq!(std::fs::read_dir(dir.path().join("set-aside")).unwrap().count(), 3);
    }

    #[test]
    fn a_late_event_is_told_with_the_time_of_now_and_a_late_condition_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path());
        let finding = crate::finding::Finding::now("gpu-off-bus", "x", "y");
        let line = crate::alert::line("gpu003", &finding, true, 1_000);
        spool.put(Kind::Event, &line, 1_000, 0).unwrap();
        spool.put(Kind::Condition, &line, 1_000, 1).unwrap();
        let now = 3_600_000;
        assert_eq!(texts(&spool, now), [at_another_time(&line, now), line]);
        assert_eq!(texts(&spool, 1_000 + 25 * 3_600_000), ["TooOld", "TooOld"]);
        assert_eq!(spool.list().unwrap().0, []);
    }
}
