//! What the agent has begun, on disk before it is begun: an order is carried out at most once, also across a crash.

use engine_core::digest::Digest;
use engine_runtime::ports::WorkResult;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The largest entry that is read, in bytes.
const MAX_ENTRY: u64 = 64 << 20;
/// How long an entry stays after its order has expired: an expired order is refused by its time alone.
const KEEP: SignedDuration = SignedDuration::from_hours(24);
/// Entries that are kept, at most.
const MAX_ENTRIES: usize = 10_000;

/// Why the ledger cannot be used. Then nothing is carried out.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Others may write there.
    #[error("{path} may be written by others: make it the agent's own with `chmod 700 {path}`")]
    Open {
        /// The directory.
        path: PathBuf,
    },
    /// It is full.
    #[error("{path} holds {MAX_ENTRIES} orders: something gives orders without end")]
    Full {
        /// The directory.
        path: PathBuf,
    },
    /// The disk failed.
    #[error("{path} could not be {doing}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        doing: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// One order as the ledger has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) order: String,
    pub(crate) verb: String,
    pub(crate) begun_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    /// What came of it; none while it is under way, and after a crash in the middle.
    pub(crate) result: Option<WorkResult>,
    /// Whether the engine has the result.
    pub(crate) delivered: bool,
}

/// What beginning an order came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// It is on disk; go on.
    Yes,
    /// It was begun before.
    Before,
}

/// The ledger.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    dir: PathBuf,
}

impl Ledger {
    /// Opens the directory, and makes it where there is none.
    pub(crate) fn open(dir: &Path) -> Result<Self, LedgerError> {
        let fail = |source| LedgerError::Disk { path: dir.to_owned(), doing: "opened", source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail)?;
        let meta = std::fs::metadata(dir).map_err(fail)?;
        if meta.mode() & 0o022 != 0 {
            return Err(LedgerError::Open { path: dir.to_owned() });
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// The name says nothing that came from outside.
    fn file(&self, order: &str) -> PathBuf {
        self.dir.join(format!("{}.json", Digest::of(order.as_bytes()).as_str().replace(':', "-")))
    }

    /// Writes down that an order is begun, unless it was before.
    pub(crate) fn begin(&self, entry: &Entry) -> Result<Begun, LedgerError> {
        let path = self.file(&entry.order);
        let fail = |source| LedgerError::Disk { path: path.clone(), doing: "written", source };
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = match made {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(Begun::Before),
            Err(e) => return Err(fail(e)),
        };
        let text = serde_json::to_vec(entry).map_err(|e| fail(e.into()))?;
        file.write_all(&text).and_then(|()| file.sync_all()).and_then(|()| self.sync()).map_err(fail)?;
        Ok(Begun::Yes)
    }

    /// Writes an entry anew: as a whole, or not at all.
    pub(crate) fn put(&self, entry: &Entry) -> Result<(), LedgerError> {
        let path = self.file(&entry.order);
        let fail = |source| LedgerError::Disk { path: path.clone(), doing: "written", source };
        let text = serde_json::to_vec(entry).map_err(|e| fail(e.into()))?;
        let new = path.with_extension("new");
        let written = File::create(&new).and_then(|mut f| {
            f.write_all(&text)?;
            f.sync_all()
        });
        written.and_then(|()| std::fs::rename(&new, &path)).and_then(|()| self.sync()).map_err(fail)
    }

    fn sync(&self) -> std::io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    /// Reads what the engine does not have yet, and forgets what is long over. An entry that cannot be read stays: its
    /// order is not carried out again.
    pub(crate) fn open_entries(&self, now: Timestamp) -> Result<Vec<Entry>, LedgerError> {
        let fail = |source| LedgerError::Disk { path: self.dir.clone(), doing: "read", source };
        let mut open = Vec::new();
        let mut count = 0;
        for item in std::fs::read_dir(&self.dir).map_err(fail)? {
            let path = item.map_err(fail)?.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            count += 1;
            let Ok(entry) = read(&path) else {
                tracing::warn!(path = %path.display(), "an entry of the ledger cannot be read; it stays");
                continue;
            };
            if now.duration_since(entry.expires_at) > KEEP {
                let _ = std::fs::remove_file(&path);
            } else if !entry.delivered {
                open.push(entry);
            }
        }
        if count >= MAX_ENTRIES {
            return Err(LedgerError::Full { path: self.dir.clone() });
        }
        open.sort_by_key(|e| e.begun_at);
        Ok(open)
    }
}

fn read(path: &Path) -> std::io::Result<Entry> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_ENTRY).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(order: &str) -> Entry {
        Entry {
            order: order.to_owned(),
            verb: "inspect".to_owned(),
            begun_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::UNIX_EPOCH + SignedDuration::from_mins(1),
            result: None,
            delivered: false,
        }
    }

    #[test]
    fn an_order_is_begun_once_also_by_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("ledger");
        let ledger = Ledger::open(&place).unwrap();
        assert_eq!(ledger.begin(&entry("../../etc/passwd")).unwrap(), Begun::Yes);
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 1, "its name stays in the directory");
        assert_eq!(Ledger::open(&place).unwrap().begin(&entry("../../etc/passwd")).unwrap(), Begun::Before);
        assert_eq!(ledger.begin(&entry("other")).unwrap(), Begun::Yes);
    }

    #[test]
    fn what_was_not_delivered_is_found_again_until_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        ledger.begin(&entry("a")).unwrap();
        ledger.begin(&entry("b")).unwrap();
        ledger.put(&Entry { delivered: true, ..entry("b") }).unwrap();
        std::fs::write(dir.path().join("broken.json"), "{").unwrap();
        let found = ledger.open_entries(Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(found, [entry("a")]);
        let later = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(48);
        assert_eq!(ledger.open_entries(later).unwrap(), []);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "what cannot be read stays");
        assert_eq!(ledger.begin(&entry("b")).unwrap(), Begun::Yes);
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Ledger::open(dir.path()), Err(LedgerError::Open { .. })));
    }
}
