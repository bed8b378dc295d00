//! A journal whose process may die in any write to it, by a chance that belongs to the run and its event, so that it
//! strikes at the same place whatever else goes on.

use super::rates::DIES_IN_WRITE;
use async_trait::async_trait;
use engine_core::digest::Digest;
use engine_core::model::{NodeName, RunId};
use engine_core::playbook::PlaybookRef;
use engine_core::run::{Event, EventKind, RunState};
use engine_runtime::journal::{
    Admit, ChainReport, HeldLease, Journal, JournalError, Lease, LockKey, MemoryJournal, NewRecord, Record,
    RunSummary, StreamName,
};
use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;

/// Hears of the death of a process.
pub(super) trait Mourner: Send + Sync {
    /// Says whether nobody has died in this write before: once is enough.
    fn is_first(&self, run: &RunId, after: u64) -> bool;
    /// These events are on record, and the engine that wrote them will not tell anybody.
    fn recorded(&self, events: &[Event], state: &RunState);
    /// The process of this engine died in a write of this run.
    fn died(&self, engine: usize, run: &RunId);
}

/// A journal of a process that may die in a write.
pub(super) struct MortalJournal {
    inner: MemoryJournal,
    engine: usize,
    seed: u64,
    mourner: Arc<dyn Mourner>,
}

impl fmt::Debug for MortalJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MortalJournal").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl MortalJournal {
    pub(super) fn new(inner: MemoryJournal, engine: usize, seed: u64, mourner: Arc<dyn Mourner>) -> Self {
        Self { inner, engine, seed, mourner }
    }

    /// Says whether the process dies in this write: `Some(true)` once it is on record.
    fn fate(&self, run: &RunId, after: u64) -> Option<bool> {
        let drawn = mix(self.seed, run.as_str(), after);
        let share = (drawn >> 11) as f64 / (1_u64 << 53) as f64;
        (share < DIES_IN_WRITE && self.mourner.is_first(run, after)).then_some(drawn & 1 == 1)
    }
}

/// Mixes a number out of a seed, a name and a number: the same on every machine and in every release (FNV-1a, then the
/// finish of SplitMix64).
pub(super) fn mix(seed: u64, name: &str, number: u64) -> u64 {
    let bytes = name.bytes().chain(number.to_le_bytes());
    let mut x =
        bytes.fold(seed ^ 0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[async_trait]
impl Journal for MortalJournal {
    async fn append(
        &self,
        run: &RunId,
        after: u64,
        at: Timestamp,
        kinds: Vec<EventKind>,
    ) -> Result<Vec<Event>, JournalError> {
        if self.inner.is_dead() {
            return self.inner.append(run, after, at, kinds).await;
        }
        match self.fate(run, after) {
            None => self.inner.append(run, after, at, kinds).await,
            Some(recorded) => {
                if recorded {
                    let events = self.inner.append(run, after, at, kinds.clone()).await?;
                    let state = self.inner.state(run).await?;
                    self.mourner.recorded(&events, &state);
                }
                self.inner.kill();
                self.mourner.died(self.engine, run);
                self.inner.append(run, after, at, kinds).await
            }
        }
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

    async fn append_records(
        &self,
        stream: &StreamName,
        after: Option<u64>,
        at: Timestamp,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Record>, JournalError> {
        self.inner.append_records(stream, after, at, records).await
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

    async fn orphans(&self) -> Result<Vec<RunId>, JournalError> {
        self.inner.orphans().await
    }

    async fn store_blob(&self, bytes: Vec<u8>, at: Timestamp) -> Result<Digest, JournalError> {
        if self.inner.is_dead() {
            return self.inner.store_blob(bytes, at).await;
        }
        // Kept nowhere: a month of evidence has no reader here.
        Ok(Digest::of(&bytes))
    }

    async fn load_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, JournalError> {
        self.inner.load_blob(digest).await
    }

    async fn verify(&self) -> Result<ChainReport, JournalError> {
        self.inner.verify().await
    }
}
