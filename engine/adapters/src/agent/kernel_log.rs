//! XIDs in the kernel's log, read by the agent itself: each line is told once, and a restart goes on where it stopped.
//!
//! Reads `/dev/kmsg` without waiting, a FIFO with the same records, or a plain file with lines of a kernel log. Where it
//! stopped is kept by boot and record number; numbers begin anew with each boot.

use super::spool::{self, Kind};
use engine_core::digest::Digest;
use engine_core::incident::alert::MAX_FINGERPRINT;
use engine_core::model::NodeName;
use engine_xid::{Line, Meaning, from_kernel};
use jiff::{SignedDuration, Timestamp};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Bytes of one read: a record of `/dev/kmsg` comes whole or not at all.
const CHUNK: usize = 16 << 10;
/// Bytes of one look; the next look goes on behind them.
const MAX_LOOK: usize = 8 << 20;
/// The longest line; a longer one is passed over.
const MAX_LINE: usize = 64 << 10;
/// Codes on devices that one report tells; further ones are counted.
const MAX_FOUND: usize = 64;
/// Characters of the driver's message that are told.
const MAX_MESSAGE: usize = 200;
/// Time between two reports.
const REPORT_EVERY: SignedDuration = SignedDuration::from_secs(5);
/// Time after which a log that cannot be read is told again.
const TELL_AGAIN: SignedDuration = SignedDuration::from_mins(30);
/// What is older at the first look of all keeps its time: it may be over long ago.
const RECENT: SignedDuration = SignedDuration::from_mins(10);
/// The file in the agent's directory that says where the last look ended.
const MARK: &str = "kernel-log.mark";
/// The fault of a log that cannot be read, or was overwritten: about the tool, never about a GPU.
const UNREAD: &str = "kernel-log-unread";
/// Who tells.
const SOURCE: &str = "slurmedic-agent";

/// Where a look ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    log: PathBuf,
    boot: String,
    /// Number of the last record; of a plain file how far it was read.
    at: u64,
    /// Of a plain file which one it was.
    inode: u64,
}

/// One code on one device.
#[derive(Debug)]
struct Found {
    line: Line,
    fault: &'static str,
    times: u64,
    /// When it was seen last; unknown in a plain file.
    at: Option<Timestamp>,
}

/// What was found and is not told yet. Where it was found is not marked before it is told.
#[derive(Debug, Default)]
struct Findings {
    found: BTreeMap<(String, &'static str, String), Found>,
    left_out: u64,
    /// Records that were overwritten before they were read.
    lost: u64,
}

impl Findings {
    fn is_empty(&self) -> bool {
        self.found.is_empty() && self.left_out == 0 && self.lost == 0
    }

    fn line(&mut self, text: &str, at: Option<Timestamp>) {
        let Some(line) = engine_xid::read(text) else { return };
        // The application's own doing is for its owner; what only informs is for nobody.
        let Meaning::Fault(fault) = line.meaning else { return };
        let key = (line.code.clone(), fault, line.device.clone());
        if let Some(seen) = self.found.get_mut(&key) {
            seen.times += 1;
            seen.at = at;
        } else if self.found.len() < MAX_FOUND {
            self.found.insert(key, Found { line, fault, times: 1, at });
        } else {
            self.left_out += 1;
        }
    }
}

/// The records that come out of a device or a FIFO.
#[derive(Debug)]
struct Records<R> {
    from: R,
    /// The beginning of a line that is not whole yet.
    partial: Vec<u8>,
    /// Whether the line is too long and is passed over.
    skipping: bool,
    /// Number of the last record that was read, or of the mark.
    last: Option<u64>,
    /// Whether a gap in the numbers is a loss: after a restart, and after the device said so.
    gap_counts: bool,
}

impl<R: Read> Records<R> {
    fn new(from: R, after: Option<u64>) -> Self {
        Self { from, partial: Vec::new(), skipping: false, last: after, gap_counts: after.is_some() }
    }

    /// Reads what is there.
    fn look(&mut self, began: Timestamp, findings: &mut Findings) -> std::io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        let mut read = 0;
        while read < MAX_LOOK {
            match self.from.read(&mut chunk) {
                // Nobody writes into the FIFO now.
                Ok(0) => break,
                Ok(n) => {
                    read += n;
                    self.take(&chunk[..n], began, findings);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // Overwritten before it was read: the next read is of the oldest record that is left.
                Err(e) if e.raw_os_error() == Some(rustix::io::Errno::PIPE.raw_os_error()) => {
                    self.gap_counts = true;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8], began: Timestamp, findings: &mut Findings) {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            if !self.skipping && self.partial.len() + part.len() <= MAX_LINE {
                self.partial.extend_from_slice(part);
            } else {
                self.skipping = true;
                self.partial.clear();
            }
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.partial);
                if !std::mem::take(&mut self.skipping) {
                    self.record(&String::from_utf8_lossy(&line), began, findings);
                }
            }
        }
    }

    fn record(&mut self, line: &str, began: Timestamp, findings: &mut Findings) {
        // Lines with a space before them belong to the record above.
        let Some(record) = engine_xid::record(line).filter(|_| !line.starts_with(' ')) else { return };
        if let Some(last) = self.last {
            // Seen before the restart.
            if record.number <= last {
                return;
            }
            if std::mem::take(&mut self.gap_counts) {
                findings.lost += record.number - last - 1;
            }
        }
        self.last = Some(record.number);
        if let Some(text) = record.text {
            let age = SignedDuration::from_micros(i64::try_from(record.age_us).unwrap_or(i64::MAX));
            findings.line(text, began.checked_add(age).ok());
        }
    }
}

/// An open log.
#[derive(Debug)]
enum Log {
    Records(Records<File>),
    /// A plain file is opened anew at each look: it may have been replaced.
    Lines,
}

/// Reads one log, look by look, and leaves what it finds in a spool.
#[derive(Debug)]
pub(super) struct KernelLog {
    path: PathBuf,
    state: PathBuf,
    node: NodeName,
    mark: Mark,
    /// The mark as it is on disk.
    kept: Option<Mark>,
    /// Whether this node looks into this log for the first time in this boot.
    first: bool,
    log: Option<Log>,
    findings: Findings,
    told_at: Option<Timestamp>,
    /// When it was told that the log cannot be read.
    unread: Option<Timestamp>,
}

impl KernelLog {
    /// Prepares it; `state` is the agent's own directory, `boot` the id of this boot.
    pub(super) fn new(path: PathBuf, state: PathBuf, node: NodeName, boot: String) -> Self {
        let kept = std::fs::read(state.join(MARK)).ok().and_then(|t| serde_json::from_slice::<Mark>(&t).ok());
        let kept = kept.filter(|m| m.log == path && m.boot == boot);
        let first = kept.is_none();
        let mark = kept.clone().unwrap_or_else(|| Mark { log: path.clone(), boot, at: 0, inode: 0 });
        let findings = Findings::default();
        Self { path, state, node, mark, kept, first, log: None, findings, told_at: None, unread: None }
    }

    /// The directory in which reports wait.
    pub(super) fn spool(state: &Path) -> PathBuf {
        state.join("spool")
    }

    /// Looks once; `began` is when the machine booted. Never waits for a record.
    pub(super) fn look(&mut self, now: Timestamp, began: Timestamp) {
        let read = self.read(began);
        match (&read, self.unread) {
            (Err(why), told) if told.is_none_or(|at| now.duration_since(at) >= TELL_AGAIN) => {
                tracing::warn!(event = "kernel_log_unread", log = %self.path.display(), %why);
                let text = format!("{} cannot be read, so XIDs are not seen: {why}", self.path.display());
                let line = self.alert(UNREAD, "unread", None, &text, true, now);
                if self.put(Kind::State, &[line], now) {
                    self.unread = Some(now);
                }
            }
            (Ok(()), Some(_)) => {
                let text = format!("{} is read again", self.path.display());
                let line = self.alert(UNREAD, "unread", None, &text, false, now);
                if self.put(Kind::State, &[line], now) {
                    self.unread = None;
                }
            }
            _ => {}
        }
        if read.is_err() {
            self.log = None;
        }
        if self.told_at.is_none_or(|at| now.duration_since(at) >= REPORT_EVERY) {
            self.tell(now);
        }
    }

    fn read(&mut self, began: Timestamp) -> std::io::Result<()> {
        let log = match &mut self.log {
            Some(log) => log,
            None => {
                let log = self.open()?;
                self.log.insert(log)
            }
        };
        match log {
            Log::Records(records) => records.look(began, &mut self.findings),
            Log::Lines => self.lines(),
        }
    }

    fn open(&self) -> std::io::Result<Log> {
        let kind = std::fs::metadata(&self.path)?.file_type();
        if kind.is_file() {
            return Ok(Log::Lines);
        }
        if !kind.is_char_device() && !kind.is_fifo() {
            return Err(std::io::Error::other("it is neither a device, a FIFO nor a plain file"));
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&self.path, flags, Mode::empty())?);
        Ok(Log::Records(Records::new(file, Some(self.mark.at).filter(|at| *at > 0))))
    }

    /// Reads whole lines from where the last look ended; from the beginning if the file is another one or was cut.
    fn lines(&mut self) -> std::io::Result<()> {
        let mut file = File::open(&self.path)?;
        let meta = file.metadata()?;
        if self.mark.inode != meta.ino() || self.mark.at > meta.len() {
            (self.mark.inode, self.mark.at) = (meta.ino(), 0);
        }
        file.seek(SeekFrom::Start(self.mark.at))?;
        let mut bytes = Vec::new();
        file.take(MAX_LOOK as u64).read_to_end(&mut bytes)?;
        let whole = match bytes.iter().rposition(|b| *b == b'\n') {
            Some(at) => at + 1,
            // One line without an end that fills everything is passed over.
            None if bytes.len() == MAX_LOOK => bytes.len(),
            None => 0,
        };
        for line in bytes[..whole].split(|b| *b == b'\n').filter(|l| l.len() <= MAX_LINE) {
            let line = String::from_utf8_lossy(line);
            if from_kernel(&line) {
                self.findings.line(&line, None);
            }
        }
        self.mark.at += whole as u64;
        Ok(())
    }

    /// Leaves what was found in the spool, then marks how far it was read. What could not be left is kept for the next time.
    fn tell(&mut self, now: Timestamp) {
        let at = match &self.log {
            Some(Log::Records(records)) => records.last.unwrap_or(self.mark.at),
            _ => self.mark.at,
        };
        if !self.findings.is_empty() {
            let (mut events, mut old) = (Vec::new(), Vec::new());
            for ((code, _, device), found) in &self.findings.found {
                let seen = found.at.map_or(now, |at| at.min(now));
                let line = self.describe(code, device, found, seen);
                if self.first && now.duration_since(seen) > RECENT {
                    old.push(line);
                } else {
                    events.push(line);
                }
            }
            let more = [
                (
                    self.findings.left_out,
                    "further XIDs were not told one by one: the driver writes very many",
                ),
                (self.findings.lost, "records of the kernel log were overwritten before they were read"),
            ];
            for (n, what) in more.into_iter().filter(|(n, _)| *n > 0) {
                events.push(self.alert(UNREAD, "lost", None, &format!("{n} {what}"), true, now));
            }
            if !(self.put(Kind::State, &old, now) && self.put(Kind::Event, &events, now)) {
                return;
            }
            self.findings = Findings::default();
            self.told_at = Some(now);
        }
        self.mark.at = at;
        if self.kept.as_ref() != Some(&self.mark) {
            match self.keep() {
                Ok(()) => self.kept = Some(self.mark.clone()),
                Err(e) => tracing::warn!(
                    event = "kernel_log_mark",
                    "where the kernel log was read is not kept: {e}"
                ),
            }
        }
        self.first = false;
    }

    fn keep(&self) -> std::io::Result<()> {
        let (path, new) = (self.state.join(MARK), self.state.join("kernel-log.new"));
        std::fs::write(&new, serde_json::to_vec(&self.mark)?)?;
        std::fs::rename(new, path)
    }

    fn describe(&self, code: &str, device: &str, found: &Found, seen: Timestamp) -> String {
        let mut message = found.line.message.replace(|c: char| c.is_control(), " ");
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
            message.truncate(end);
        }
        let times = if found.times > 1 { format!(" {} times", found.times) } else { String::new() };
        let text = format!("{} of {device} in the kernel log{times}: {message}", code.replacen('-', " ", 1));
        // The address of an NVSwitch is no GPU's.
        let gpu = (!code.starts_with("sxid")).then_some(device);
        self.alert(found.fault, &format!("{code}/{device}"), gpu, &text, true, seen)
    }

    fn alert(
        &self,
        fault: &str,
        subject: &str,
        gpu: Option<&str>,
        text: &str,
        firing: bool,
        at: Timestamp,
    ) -> String {
        let named = format!("kernel-log/{}/{fault}/{subject}", self.node);
        let fingerprint = if named.len() > MAX_FINGERPRINT {
            format!("kernel-log/{}", Digest::of(named.as_bytes()).as_str())
        } else {
            named
        };
        let mut alert = serde_json::json!({
            "source": SOURCE, "node": self.node.as_str(), "fault": fault, "fingerprint": fingerprint,
            "firing": firing, "seen_at": at.to_string(), "summary": text,
        });
        if let (Some(gpu), Some(fields)) = (gpu, alert.as_object_mut()) {
            fields.insert("gpu".to_owned(), gpu.into());
        }
        alert.to_string()
    }

    /// Leaves a report in the spool; says whether it is there.
    fn put(&self, kind: Kind, lines: &[String], now: Timestamp) -> bool {
        if lines.is_empty() {
            return true;
        }
        match spool::put(&Self::spool(&self.state), kind, &self.mark.boot, &lines.join("\n"), now) {
            Ok(0) => true,
            Ok(dropped) => {
                tracing::warn!(event = "spool_full", dropped, "older reports of the kernel log were dropped");
                true
            }
            Err(e) => {
                tracing::warn!(event = "spool", "a report of the kernel log waits: {e}");
                false
            }
        }
    }
}

/// When this machine booted, by its clock of now.
pub(super) fn booted(now: Timestamp) -> Timestamp {
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.checked_sub(SignedDuration::new(up.tv_sec, i32::try_from(up.tv_nsec).unwrap_or(0))).unwrap_or(now)
}

#[cfg(test)]
mod tests;
