//! The journal in SQLite: one file on a local disk, several processes, one writing thread in each.
//!
//! WAL with full sync: an append returns when the kernel has told that its commit is on the disk. The file is made
//! with access for its owner alone; [`place`] says where it may lie. Deadlines run on tokio's clock, so a runtime
//! whose clock is paused must use the journal in memory.

mod backup;
mod check;
mod desk;
mod engines;
mod folded;
mod locks;
mod place;
mod read;
mod schema;
mod writer;

use super::lock::{Admit, HeldLease, Lease, LockKey, in_order};
use super::stored::store;
use super::stream::{NewRecord, Record, StreamName, bounded};
use super::{ChainReport, Journal, JournalError, MAX_BLOB, NewEvent, RunSummary};
use async_trait::async_trait;
use desk::Desk;
use engine_core::digest::Digest;
use engine_core::model::{NodeName, RunId};
use engine_core::playbook::PlaybookRef;
use engine_core::run::{Event, RunState};
use folded::Folded;
use jiff::Timestamp;
use place::Place;
use read::Readers;
use rusqlite::Connection;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use writer::Writer;

/// Time limit of a read.
const READ: Duration = Duration::from_secs(15);
/// Time limit of the check of the whole journal: some ten million events.
const VERIFY: Duration = Duration::from_secs(900);
/// About how many bytes an event takes, and a row beside its content: for the size of a commit.
const EVENT: usize = 4096;
const ROW: usize = 256;

/// Playbook versions that a process remembers to be on record.
const PINNED: usize = 1_024;

/// What a journal is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Reading and writing; makes the file where there is none.
    ReadWrite,
    /// Reading only; writes are refused.
    ReadOnly,
}

/// A journal in a SQLite file.
#[derive(Debug)]
pub struct SqliteJournal {
    place: Arc<Place>,
    engine: Arc<str>,
    readers: Readers,
    folded: Arc<Folded>,
    /// Playbooks that this process saw on record: what is there stays there.
    pinned: Mutex<BTreeSet<PlaybookRef>>,
    writer: Option<Writer>,
}

impl SqliteJournal {
    /// Opens a journal.
    ///
    /// The directory must be there. Refused are: a file system that is not known to be local, a file or directory
    /// that everybody may write, a file that is not a journal, and one of a newer release.
    pub fn open(path: &Path, mode: OpenMode) -> Result<Self, JournalError> {
        let place = Place::check(path)?;
        if !place.exists {
            match mode {
                OpenMode::ReadWrite => schema::create(&place)?,
                OpenMode::ReadOnly => {
                    return Err(place::bad_place(path, "there is no such file; `slurmedic init` makes one"));
                }
            }
        }
        let place = Arc::new(place);
        let db = schema::connect(&place, mode)?;
        let engine: Arc<str> = uuid::Uuid::now_v7().to_string().into();
        let (first, writer) = match mode {
            OpenMode::ReadWrite => (None, Some(Writer::start(db, Arc::clone(&place), Arc::clone(&engine))?)),
            OpenMode::ReadOnly => (Some(db), None),
        };
        let readers = Readers::new(Arc::clone(&place), first);
        Ok(Self { readers, folded: Arc::default(), pinned: Mutex::default(), place, engine, writer })
    }

    /// Returns the file, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.place.file
    }

    /// Says whether the journal lies in memory and is gone after a reboot: to be told to people.
    pub fn volatile(&self) -> bool {
        self.place.volatile
    }

    /// Returns the identifier under which this process claims runs.
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// Copies the journal, as it is now, to a file that is not there yet, while engines go on writing. The copy is checked
    /// as [`Journal::verify`] does before it appears under its name; where it is broken, the answer says so and
    /// there is no file.
    pub async fn backup(&self, to: &Path) -> Result<ChainReport, JournalError> {
        let (place, to) = (Arc::clone(&self.place), to.to_path_buf());
        tokio::task::spawn_blocking(move || backup::backup(&place, &to, VERIFY))
            .await
            .map_err(|e| store("copied", e))?
    }

    fn seen<T>(&self, look: impl FnOnce(&mut BTreeSet<PlaybookRef>) -> T) -> T {
        look(&mut self.pinned.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn write<T, F>(&self, weight: usize, work: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Desk, &Connection) -> Result<T, JournalError> + Send + 'static,
    {
        match &self.writer {
            Some(writer) => writer.order(weight, work).await,
            None => Err(store("written", "it was opened for reading only")),
        }
    }
}

impl Drop for SqliteJournal {
    /// Closes the readers first: the last connection to go puts everything into the main file, and must be able to.
    fn drop(&mut self) {
        self.readers.close();
    }
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn append_events(
        &self,
        run: &RunId,
        after: u64,
        new: Vec<NewEvent>,
    ) -> Result<Vec<Event>, JournalError> {
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let run = run.clone();
        let weight = EVENT * new.len();
        self.write(weight, move |desk, tx| desk.append(tx, &run, after, new)).await
    }

    async fn load(&self, run: &RunId) -> Result<Vec<Event>, JournalError> {
        let run = run.clone();
        self.readers.read(READ, move |db| read::load(db, &run)).await
    }

    async fn state(&self, run: &RunId) -> Result<RunState, JournalError> {
        let (run, folded) = (run.clone(), Arc::clone(&self.folded));
        self.readers.read(READ, move |db| read::state(db, &run, &folded)).await
    }

    async fn stop_requested(&self, run: &RunId) -> Result<bool, JournalError> {
        let run = run.clone();
        self.readers.read(READ, move |db| read::stop_requested(db, &run)).await
    }

    async fn runs(
        &self,
        node: Option<&NodeName>,
        open_only: bool,
        limit: usize,
    ) -> Result<Vec<RunSummary>, JournalError> {
        let node = node.cloned();
        self.readers.read(READ, move |db| read::runs(db, node.as_ref(), open_only, limit)).await
    }

    async fn append_records(
        &self,
        stream: &StreamName,
        after: Option<u64>,
        at: Timestamp,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Record>, JournalError> {
        bounded(&records)?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let stream = stream.clone();
        let weight = records.iter().map(|r| r.body().len() + ROW).sum();
        self.write(weight, move |desk, tx| desk.append_records(tx, &stream, after, at, records)).await
    }

    async fn load_records(
        &self,
        stream: &StreamName,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, JournalError> {
        let stream = stream.clone();
        self.readers.read(READ, move |db| read::load_records(db, &stream, after, limit)).await
    }

    async fn stream_length(&self, stream: &StreamName) -> Result<u64, JournalError> {
        let stream = stream.clone();
        self.readers.read(READ, move |db| read::stream_length(db, &stream)).await
    }

    async fn take_leases(
        &self,
        keys: &[LockKey],
        run: &RunId,
        at: Timestamp,
        admit: Option<Admit>,
    ) -> Result<Lease, JournalError> {
        let (keys, run) = (in_order(keys)?, run.clone());
        self.write(ROW, move |_, tx| locks::take(tx, &keys, &run, at, admit.as_ref())).await
    }

    async fn drop_leases(&self, keys: &[LockKey], run: &RunId) -> Result<(), JournalError> {
        let (keys, run) = (keys.to_vec(), run.clone());
        self.write(ROW, move |_, tx| locks::give_back(tx, &keys, &run)).await
    }

    async fn drop_all_leases(&self, run: &RunId) -> Result<(), JournalError> {
        let run = run.clone();
        self.write(ROW, move |_, tx| locks::give_all_back(tx, &run)).await
    }

    async fn leases(&self) -> Result<Vec<HeldLease>, JournalError> {
        self.readers.read(READ, locks::held).await
    }

    async fn pin_playbook(&self, playbook: &PlaybookRef, at: Timestamp) -> Result<(), JournalError> {
        if self.seen(|pinned| pinned.contains(playbook)) {
            return Ok(());
        }
        let new = playbook.clone();
        self.write(ROW, move |_, tx| Desk::pin(tx, &new, at)).await?;
        self.seen(|pinned| {
            if pinned.len() >= PINNED {
                pinned.clear();
            }
            pinned.insert(playbook.clone());
        });
        Ok(())
    }

    async fn claim(&self, run: &RunId) -> Result<bool, JournalError> {
        let run = run.clone();
        self.write(ROW, move |desk, tx| desk.claim(tx, &run)).await
    }

    async fn free_abandoned(&self, run: &RunId) -> Result<bool, JournalError> {
        let run = run.clone();
        self.write(ROW, move |desk, tx| desk.free_abandoned(tx, &run)).await
    }

    async fn orphans(&self) -> Result<Vec<RunId>, JournalError> {
        let place = Arc::clone(&self.place);
        self.readers.read(READ, move |db| read::orphans(db, &place)).await
    }

    async fn store_blob(&self, bytes: Vec<u8>, at: Timestamp) -> Result<Digest, JournalError> {
        if bytes.len() > MAX_BLOB {
            return Err(JournalError::TooLarge { what: "the bundle", size: bytes.len(), limit: MAX_BLOB });
        }
        self.write(bytes.len(), move |_, tx| {
            let digest = Digest::of(&bytes);
            Desk::store_blob(tx, &digest, &bytes, at)?;
            Ok(digest)
        })
        .await
    }

    async fn load_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, JournalError> {
        let digest = digest.clone();
        self.readers.read(READ, move |db| read::blob(db, &digest)).await
    }

    async fn verify(&self) -> Result<ChainReport, JournalError> {
        self.readers.read_anew(VERIFY, check::verify).await
    }
}
