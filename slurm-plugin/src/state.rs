//! What the last looks found: verdicts with their times, and where each log was read to. A small text file.
//!
//! Losing it costs a repeated report, nothing else, so it is replaced whole and never waited for to reach the disk.

use crate::finding::Finding;
use crate::worker::{decode, encode};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// First line of the file.
const HEADER: &str = "slurmedic-hook state 1";
/// The largest file, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// The most verdicts.
const MAX_VERDICTS: usize = 512;

/// One thing that is wrong, over several looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The check that found it.
    pub(crate) check: String,
    /// What it is, as last seen.
    pub(crate) finding: Finding,
    /// When it was first found, in milliseconds since 1970.
    pub(crate) since_ms: u64,
    /// When it was last found.
    pub(crate) seen_ms: u64,
    /// When it was last reported; 0 for never.
    pub(crate) reported_ms: u64,
    /// Looks in a row that found it.
    pub(crate) looks: u32,
    /// Whether the hook drained the node for it. It does so once.
    pub(crate) drained: bool,
}

/// Everything that is kept between looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Verdicts by the key of their finding.
    pub(crate) verdicts: BTreeMap<String, Verdict>,
    /// By the name of a check, where its next look begins.
    pub(crate) cursors: BTreeMap<String, String>,
    /// By the name of a check, the process of an earlier look that hangs in it.
    pub(crate) stuck: BTreeMap<String, String>,
}

/// Where it lies.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("state")
}

impl State {
    /// Reads it. One that is not whole counts as none, and why is said.
    pub(crate) fn load(dir: &Path) -> (Self, Option<String>) {
        let path = path(dir);
        let text = match std::fs::metadata(&path) {
            Ok(m) if m.len() > MAX_BYTES => {
                return (Self::default(), Some(format!("{} is too large and begun anew", path.display())));
            }
            Ok(_) => std::fs::read_to_string(&path),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return (Self::default(), None),
            Err(e) => Err(e),
        };
        match text {
            Ok(text) => match Self::parse(&text) {
                Some(state) => (state, None),
                None => (Self::default(), Some(format!("{} is damaged and begun anew", path.display()))),
            },
            Err(e) => (Self::default(), Some(format!("{}: {e}; begun anew", path.display()))),
        }
    }

    /// Replaces it.
    pub(crate) fn store(&self, dir: &Path) -> Result<(), String> {
        let path = path(dir);
        let new = dir.join(format!("state.{}", std::process::id()));
        std::fs::write(&new, self.text()).and_then(|()| std::fs::rename(&new, &path)).map_err(|e| {
            let _ = std::fs::remove_file(&new);
            format!("{}: {e}", path.display())
        })
    }

    /// Adds a verdict unless there are too many.
    pub(crate) fn add(&mut self, verdict: Verdict) -> bool {
        let room = self.verdicts.len() < MAX_VERDICTS;
        if room {
            self.verdicts.insert(verdict.finding.key(), verdict);
        }
        room
    }

    fn text(&self) -> String {
        let mut out = format!("{HEADER}\n");
        for (check, cursor) in &self.cursors {
            out.push_str(&format!("C\t{check}\t{cursor}\n"));
        }
        for (check, process) in &self.stuck {
            out.push_str(&format!("S\t{check}\t{process}\n"));
        }
        for v in self.verdicts.values() {
            out.push_str(&format!(
                "V\t{}\t{}\t{}\t{}\t{}\t{}\t{}\n",
                v.check,
                v.since_ms,
                v.seen_ms,
                v.reported_ms,
                v.looks,
                u8::from(v.drained),
                encode(&v.finding)
            ));
        }
        out.push_str(&format!("end {}\n", self.entries()));
        out
    }

    fn entries(&self) -> usize {
        self.cursors.len() + self.stuck.len() + self.verdicts.len()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.lines();
        if lines.next() != Some(HEADER) {
            return None;
        }
        let end: usize = lines.next_back()?.strip_prefix("end ")?.parse().ok()?;
        let mut state = Self::default();
        for line in lines {
            match line.split_once('\t')? {
                ("C", rest) => {
                    let (check, cursor) = rest.split_once('\t')?;
                    state.cursors.insert(check.to_owned(), cursor.to_owned());
                }
                ("S", rest) => {
                    let (check, process) = rest.split_once('\t')?;
                    state.stuck.insert(check.to_owned(), process.to_owned());
                }
                ("V", rest) => {
                    let mut fields = rest.splitn(7, '\t');
                    let check = fields.next()?.to_owned();
                    let mut number = || fields.next()?.parse::<u64>().ok();
                    let (since_ms, seen_ms, reported_ms) = (number()?, number()?, number()?);
                    let looks = u32::try_from(number()?).ok()?;
                    let drained = number()? == 1;
                    let finding = decode(fields.next()?)?;
                    state.add(Verdict { check, finding, since_ms, seen_ms, reported_ms, looks, drained });
                }
                _ => return None,
            }
        }
        (end == state.entries()).then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let finding = Finding::now("mount-hang", "/scratch", "/scratch (nfs4) does not answer").on_gpu("3");
        let verdict = Verdict {
            check: "mount:/scratch".to_owned(),
            finding,
            since_ms: 1,
            seen_ms: 2,
            reported_ms: 3,
            looks: 4,
            drained: true,
        };
        let mut state = State::default();
        state.add(verdict);
        state.cursors.insert("xid:/dev/kmsg".to_owned(), "boot 12".to_owned());
        state.stuck.insert("mount:/scratch".to_owned(), "4711 99".to_owned());
        state
    }

    #[test]
    fn it_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(State::load(dir.path()), (State::default(), None));
        state().store(dir.path()).unwrap();
        assert_eq!(State::load(dir.path()), (state(), None));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn any_cut_or_rubbish_is_noticed() {
        let text = state().text();
        for at in 0..text.len() {
            if text.is_char_boundary(at) {
                assert_eq!(State::parse(&text[..at]), None, "cut at {at}");
            }
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(path(dir.path()), b"\xff\xfe\0").unwrap();
        let (state, why) = State::load(dir.path());
        assert!(state == State::default() && why.is_some());
    }

    proptest::proptest! {
        /// A file that anything happened to is one or none.
        #[test]
        fn any_text_is_a_state_or_none(text in "(slurmedic-hook state 1\n|C\t|V\t|a\tb\n|1\t|now\t|end [0-9]\n|\n|.){0,20}") {
            if let Some(state) = State::parse(&text) {
                proptest::prop_assert_eq!(State::parse(&state.text()), Some(state));
            }
        }
    }
}
