//! A journal in memory with somebody at its door: who may die in a write, be faster than its writer, or listen.

use async_trait::async_trait;
use engine_core::digest::Digest;
use engine_core::model::{NodeName, RunId};
use engine_core::playbook::PlaybookRef;
use engine_core::run::{Event, RunState};
use engine_runtime::journal::{
    Admit, ChainReport, HeldLease, Journal, JournalError, Lease, LockKey, MemoryJournal, NewEvent, NewRecord,
    Record, RunSummary, StreamName,
};
use jiff::Timestamp;
use std::fmt::Debug;

/// Stands before the writes of a journal. What is not said otherwise passes.
#[async_trait]
pub trait Porter: Send + Sync + Debug {
    /// Lets events through to a run.
    async fn append_events(
        &self,
        inner: &MemoryJournal,
        run: &RunId,
        after: u64,
        new: Vec<NewEvent>,
    ) -> Result<Vec<Event>, JournalError> {
        inner.append_events(run, after, new).await
    }

    /// Lets records through to a stream.
    async fn append_records(
        &self,
        inner: &MemoryJournal,
        stream: &StreamName,
        after: Option<u64>,
        at: Timestamp,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Record>, JournalError> {
        inner.append_records(stream, after, at, records).await
    }

    /// Lets bytes through.
    async fn store_blob(
        &self,
        inner: &MemoryJournal,
        bytes: Vec<u8>,
        at: Timestamp,
    ) -> Result<Digest, JournalError> {
        inner.store_blob(bytes, at).await
    }
}

/// A journal with a porter.
#[derive(Debug)]
pub struct Guarded<P> {
    inner: MemoryJournal,
    /// Who stands there.
    pub porter: P,
}

impl<P: Porter> Guarded<P> {
    /// Puts a porter before a journal.
    pub fn new(inner: MemoryJournal, porter: P) -> Self {
        Self { inner, porter }
    }
}

#[async_trait]
impl<P: Porter> Journal for Guarded<P> {
    async fn append_events(
        &self,
        run: &RunId,
        after: u64,
        new: Vec<NewEvent>,
    ) -> Result<Vec<Event>, JournalError> {
        self.porter.append_events(&self.inner, run, after, new).await
    }

    async fn append_records(
        &self,
        stream: &StreamName,
        after: Option<u64>,
        at: Timestamp,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Record>, JournalError> {
        self.porter.append_records(&self.inner, stream, after, at, records).await
    }

    async fn store_blob(&self, bytes: Vec<u8>, at: Timestamp) -> Result<Digest, JournalError> {
        self.porter.store_blob(&self.inner, bytes, at).await
    }

    async fn load(&self, run: &RunId) -> Result<Vec<Event>, JournalError> {
        self.inner.load(run).await
    }

    async fn state(&self, run: &RunId) -> Result<RunState, JournalError> {
        self.inner.state(run).await
    }

    async fn stop_requested(&self, run: &RunId) -> Result<bool, JournalError> {
        self.inner.stop_requested(run).await
    }

    async fn runs(
        &self,
        node: Option<&NodeName>,
        open_only: bool,
        limit: usize,
    ) -> Result<Vec<RunSummary>, JournalError> {
        self.inner.runs(node, open_only, limit).await
    }

    async fn load_records(
        &self,
        stream: &StreamName,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, JournalError> {
        self.inner.load_records(stream, after, limit).await
    }

    async fn stream_length(&self, stream: &StreamName) -> Result<u64, JournalError> {
        self.inner.stream_length(stream).await
    }

    async fn take_leases(
        &self,
        keys: &[LockKey],
        run: &RunId,
        at: Timestamp,
        admit: Option<Admit>,
    ) -> Result<Lease, JournalError> {
        self.inner.take_leases(keys, run, at, admit).await
    }

    async fn drop_leases(&self, keys: &[LockKey], run: &RunId) -> Result<(), JournalError> {
        self.inner.drop_leases(keys, run).await
    }

    async fn drop_all_leases(&self, run: &RunId) -> Result<(), JournalError> {
        self.inner.drop_all_leases(run).await
    }

    async fn leases(&self) -> Result<Vec<HeldLease>, JournalError> {
        self.inner.leases().await
    }

    async fn pin_playbook(&self, playbook: &PlaybookRef, at: Timestamp) -> Result<(), JournalError> {
        self.inner.pin_playbook(playbook, at).await
    }

    async fn claim(&self, run: &RunId) -> Result<bool, JournalError> {
        self.inner.claim(run).await
    }

    async fn free_abandoned(&self, run: &RunId) -> Result<bool, JournalError> {
        self.inner.free_abandoned(run).await
    }

    async fn orphans(&self) -> Result<Vec<RunId>, JournalError> {
        self.inner.orphans().await
    }

    async fn load_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, JournalError> {
        self.inner.load_blob(digest).await
    }

    async fn verify(&self) -> Result<ChainReport, JournalError> {
        self.inner.verify().await
    }
}
