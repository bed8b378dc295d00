//! A journal whose process may die in any write to it, by a chance that belongs to the run and its event, so that it
//! strikes at the same place whatever else goes on.

use super::rates::DIES_IN_WRITE;
use crate::journal::Porter;
use async_trait::async_trait;
use engine_core::digest::Digest;
use engine_core::model::RunId;
use engine_core::run::{Event, RunState};
use engine_runtime::journal::{
    Journal as _, JournalError, MemoryJournal, NewEvent, NewRecord, Record, StreamName,
};
use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;

/// Hears of the death of a process, and of what nobody else will hear of.
pub(super) trait Mourner: Send + Sync {
    /// Says whether nobody has died in this write before: once is enough.
    fn is_first(&self, run: &RunId, after: u64) -> bool;
    /// These events are on record, and the engine that wrote them will not tell anybody.
    fn recorded(&self, events: &[Event], state: &RunState);
    /// These records are in a stream.
    fn streamed(&self, _records: &[Record]) {}
    /// The process of this engine died in a write of this run.
    fn died(&self, engine: usize, run: &RunId);
}

/// A process that may die in a write.
pub(super) struct Mortal {
    engine: usize,
    seed: u64,
    deathless: bool,
    mourner: Arc<dyn Mourner>,
}

impl fmt::Debug for Mortal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mortal").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl Mortal {
    pub(super) fn new(engine: usize, seed: u64, mourner: Arc<dyn Mourner>) -> Self {
        Self { engine, seed, deathless: false, mourner }
    }

    /// Makes it one that never dies, and is heard all the same.
    pub(super) fn deathless(self) -> Self {
        Self { deathless: true, ..self }
    }

    /// Says whether the process dies in this write: `Some(true)` once it is on record.
    fn fate(&self, run: &RunId, after: u64) -> Option<bool> {
        let drawn = mix(self.seed, run.as_str(), after);
        let share = (drawn >> 11) as f64 / (1_u64 << 53) as f64;
        (share < DIES_IN_WRITE && !self.deathless && self.mourner.is_first(run, after))
            .then_some(drawn & 1 == 1)
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
impl Porter for Mortal {
    async fn append_events(
        &self,
        inner: &MemoryJournal,
        run: &RunId,
        after: u64,
        new: Vec<NewEvent>,
    ) -> Result<Vec<Event>, JournalError> {
        if inner.is_dead() {
            return inner.append_events(run, after, new).await;
        }
        match self.fate(run, after) {
            None => inner.append_events(run, after, new).await,
            Some(recorded) => {
                if recorded {
                    let events = inner.append_events(run, after, new.clone()).await?;
                    let state = inner.state(run).await?;
                    self.mourner.recorded(&events, &state);
                }
                inner.kill();
                self.mourner.died(self.engine, run);
                inner.append_events(run, after, new).await
            }
        }
    }

    async fn append_records(
        &self,
        inner: &MemoryJournal,
        stream: &StreamName,
        after: Option<u64>,
        at: Timestamp,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Record>, JournalError> {
        let written = inner.append_records(stream, after, at, records).await?;
        self.mourner.streamed(&written);
        Ok(written)
    }

    async fn store_blob(
        &self,
        inner: &MemoryJournal,
        bytes: Vec<u8>,
        at: Timestamp,
    ) -> Result<Digest, JournalError> {
        if inner.is_dead() {
            return inner.store_blob(bytes, at).await;
        }
        // Kept nowhere: a month of evidence has no reader here.
        Ok(Digest::of(&bytes))
    }
}
