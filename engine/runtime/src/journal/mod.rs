//! The journal: append-only, hash-chained events; the only truth about runs. Beside them, in the same chain, streams of
//! what concerns the fleet, and outside of it locks.
//!
//! Two stores keep the same promises: SQLite on a local disk, and memory for the simulator. Neither lets an event
//! in that the fold of `engine_core::run` does not allow, so what can be read is always a legal run.

mod chain;
mod lock;
mod memory;
mod sqlite;
mod stored;
mod stream;
mod verify;

pub use lock::{Admit, DomainName, HeldLease, InvalidKey, Lease, LockKey, MAX_DOMAIN_NAME, MAX_KEYS};
pub use memory::{CrashPoint, MemoryJournal};
pub use sqlite::{OpenMode, SqliteJournal};
pub use stream::{
    InvalidRecord, MAX_APPEND, MAX_RECORD, MAX_RECORDS, MAX_WORD, NewRecord, Record, StreamName,
};
pub use verify::{ChainBreak, ChainReport};

use async_trait::async_trait;
use engine_core::digest::Digest;
use engine_core::model::{NodeName, RunId};
use engine_core::playbook::PlaybookRef;
use engine_core::run::{Event, EventKind, IllegalEvent, RunState, Status, fold};
use jiff::Timestamp;
use std::fmt::Debug;

/// Why the journal could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Somebody else wrote to this run since it was read: read again and decide anew.
    #[error("run {run} has moved on: it is at event {found}, {expected} was expected")]
    Conflict {
        /// The run.
        run: RunId,
        /// Where the writer believed it to be.
        expected: u64,
        /// Where it is.
        found: u64,
    },
    /// Somebody else wrote to this stream since it was read: read again and decide anew.
    #[error("stream {stream} has moved on: it has {found} records, {expected} were expected")]
    StreamConflict {
        /// The stream.
        stream: StreamName,
        /// How many records the writer believed it to have.
        expected: u64,
        /// How many it has.
        found: u64,
    },
    /// Another engine process has taken the run over: this one may begin nothing more in it. Nothing was written.
    #[error("run {0} was taken over by another engine process: this one may begin nothing more in it")]
    TakenOver(RunId),
    /// The event may not follow what is on record; nothing was written.
    #[error(transparent)]
    Illegal(#[from] IllegalEvent),
    /// The run is over, and can take no lock.
    #[error("run {0} is over and can take no lock")]
    RunOver(RunId),
    /// Something is larger than the journal takes; nothing was written.
    #[error("{what} has {size} bytes; the journal takes at most {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// More at once than the journal takes; nothing was written.
    #[error("{count} are too many {what}; the journal takes at most {limit}")]
    TooMany {
        /// What.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// No such run.
    #[error("there is no run {0} in this journal: `slurmedic runs` lists them")]
    NoSuchRun(RunId),
    /// The same id@version was seen with another content.
    #[error(
        "{id}@{version} was recorded with digest {recorded}, and is now {found}: a released version never changes; give the new text a new version"
    )]
    PlaybookChanged {
        /// The playbook.
        id: String,
        /// Its version.
        version: String,
        /// Digest on record.
        recorded: Digest,
        /// Digest now.
        found: Digest,
    },
    /// The place is not fit for a journal.
    #[error("{path} cannot hold the journal: {why}")]
    BadPlace {
        /// The path.
        path: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// A stored record cannot be read.
    #[error("record {seq} of stream {stream} cannot be read: {why}; `slurmedic journal verify` tells more")]
    UnreadableRecord {
        /// The stream.
        stream: StreamName,
        /// Its place.
        seq: u64,
        /// What is wrong.
        why: String,
    },
    /// A stored event cannot be read.
    #[error("event {seq} of run {run} cannot be read: {why}; `slurmedic journal verify` tells more")]
    Unreadable {
        /// The run.
        run: String,
        /// Its place.
        seq: u64,
        /// What is wrong.
        why: String,
    },
    /// The store failed. After a failed append the events may be on record or not: read the run again.
    #[error("the journal could not be {doing}")]
    Store {
        /// `read`, `written`, ...
        doing: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// One line of `runs`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RunSummary {
    /// The run.
    pub run: RunId,
    /// Its playbook.
    pub playbook: PlaybookRef,
    /// The node.
    pub node: NodeName,
    /// Where it stands.
    pub status: Status,
    /// When it was proposed.
    pub proposed_at: Timestamp,
    /// Its last event.
    pub last_event_at: Timestamp,
    /// Who asked.
    pub initiator: String,
    /// Last word about why it stands there.
    pub why: String,
}

/// An event that is not on record yet.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// When it happened: what an effect came to may be written a moment later, together with what follows.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
}

/// The largest event, in bytes of JSON.
pub const MAX_EVENT: usize = 8 << 20;
/// The largest blob, in bytes.
pub const MAX_BLOB: usize = 32 << 20;

/// The store of events.
///
/// Guarantee: when `append_events` or `append_records` returns `Ok`, what was appended is durable (full sync) and chained; either
/// all of it or nothing.
///
/// Fencing: a run is carried out by the engine process that claimed it last. Where a run has a claim, only the process
/// that holds it can append an [`EventKind::Intent`] ([`JournalError::TakenOver`]), so that one that lost a run without
/// noticing begins nothing more. Other events, such as a person's request to stop, may come from any process.
#[async_trait]
pub trait Journal: Send + Sync + Debug {
    /// Appends events to a run that has `after` events now; 0 begins a run. When the run ends, its claim and its locks end with it.
    async fn append_events(
        &self,
        run: &RunId,
        after: u64,
        new: Vec<NewEvent>,
    ) -> Result<Vec<Event>, JournalError>;
    /// Appends events that all happen now.
    async fn append(
        &self,
        run: &RunId,
        after: u64,
        at: Timestamp,
        kinds: Vec<EventKind>,
    ) -> Result<Vec<Event>, JournalError> {
        let new = kinds.into_iter().map(|kind| NewEvent { at, kind }).collect();
        self.append_events(run, after, new).await
    }
    /// Reads all events of a run, in order.
    async fn load(&self, run: &RunId) -> Result<Vec<Event>, JournalError>;
    /// Reads a run as its events fold.
    async fn state(&self, run: &RunId) -> Result<RunState, JournalError> {
        Ok(fold(&self.load(run).await?)?)
    }
    /// Says whether somebody asked a run to stop.
    async fn stop_requested(&self, run: &RunId) -> Result<bool, JournalError> {
        let events = self.load(run).await?;
        Ok(events.iter().any(|e| matches!(e.kind, EventKind::CancelRequested { .. })))
    }
    /// Lists runs, newest first; `node` and `open_only` narrow it.
    async fn runs(
        &self,
        node: Option<&NodeName>,
        open_only: bool,
        limit: usize,
    ) -> Result<Vec<RunSummary>, JournalError>;
    /// Appends records to a stream, at its end. `after` is the length that the writer believes the stream to have, and
    /// a stream that has moved on is a [`JournalError::StreamConflict`]; `None` appends whatever its length is.
    async fn append_records(
        &self,
        stream: &StreamName,
        after: Option<u64>,
        at: Timestamp,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Record>, JournalError>;
    /// Reads the records behind number `after`, in order, `limit` of them at most. A stream that nobody wrote to is
    /// empty.
    async fn load_records(
        &self,
        stream: &StreamName,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, JournalError>;
    /// Returns how many records a stream has.
    async fn stream_length(&self, stream: &StreamName) -> Result<u64, JournalError>;
    /// Takes locks for a run (rule 7): all of `keys` or none. A run gets those that it holds again, with a new token; a
    /// lock whose run is over is free. `admit` judges the taking, unless the run holds all of them already.
    async fn take_leases(
        &self,
        keys: &[LockKey],
        run: &RunId,
        at: Timestamp,
        admit: Option<Admit>,
    ) -> Result<Lease, JournalError>;
    /// Takes the lock on one node, with no judge.
    async fn take_lease(&self, node: &NodeName, run: &RunId, at: Timestamp) -> Result<Lease, JournalError> {
        self.take_leases(&[LockKey::Node(node.clone())], run, at, None).await
    }
    /// Gives back those of `keys` that this run holds.
    async fn drop_leases(&self, keys: &[LockKey], run: &RunId) -> Result<(), JournalError>;
    /// Gives the lock on one node back, if this run holds it.
    async fn drop_lease(&self, node: &NodeName, run: &RunId) -> Result<(), JournalError> {
        self.drop_leases(&[LockKey::Node(node.clone())], run).await
    }
    /// Gives back every lock that this run holds.
    async fn drop_all_leases(&self, run: &RunId) -> Result<(), JournalError>;
    /// Lists all locks of runs that are not over, in the order of keys.
    async fn leases(&self) -> Result<Vec<HeldLease>, JournalError>;
    /// Records the digest of a playbook version, or finds that it changed.
    async fn pin_playbook(&self, playbook: &PlaybookRef, at: Timestamp) -> Result<(), JournalError>;
    /// Claims a run for this engine process; false when another living engine process has it. The claim ends with
    /// the run or with the process, however it dies.
    async fn claim(&self, run: &RunId) -> Result<bool, JournalError>;
    /// Frees the locks and the claim of a run that was not begun and that no living engine process has, in one step;
    /// false, and nothing freed, where one has it or where the run was begun.
    async fn free_abandoned(&self, run: &RunId) -> Result<bool, JournalError>;
    /// Lists open runs whose engine process is gone, oldest first, and runs that were begun and that nobody claims.
    async fn orphans(&self) -> Result<Vec<RunId>, JournalError>;
    /// Stores bytes by their digest, such as an evidence bundle.
    async fn store_blob(&self, bytes: Vec<u8>, at: Timestamp) -> Result<Digest, JournalError>;
    /// Reads bytes by their digest.
    async fn load_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, JournalError>;
    /// Checks the chain from the first entry to the last, every run's fold, and what is derived from them.
    ///
    /// Damage is an answer ([`ChainReport::broken`]), not an error. It cannot find a chain that somebody with the right
    /// to write the file rebuilt from its beginning, nor a tail that never reached the main file and was damaged
    /// while the engine was down: for both, keep a copy of the head's digest elsewhere.
    async fn verify(&self) -> Result<ChainReport, JournalError>;
}
