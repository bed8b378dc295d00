//! The fleet's stream of the journal, and its fold in this process.

use crate::journal::{InvalidRecord, Journal, JournalError, NewRecord, Record, StreamName};
use crate::ports::Clock;
use engine_core::incident::{FleetEvent, FleetState, IllegalFleetEvent};
use jiff::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::RwLock;

/// Records that are read at once.
const PAGE: usize = 4_096;
/// Events of one write: what the journal takes in one append.
const MAX_EVENTS: usize = crate::journal::MAX_RECORDS;
/// Times a write is decided anew because another engine wrote meanwhile.
const ATTEMPTS: u32 = 16;

/// Why the fleet's record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// An event cannot be put into its stored form.
    #[error(transparent)]
    Record(#[from] InvalidRecord),
    /// An event may not follow what is on record. Nothing was written.
    #[error(transparent)]
    Illegal(#[from] IllegalFleetEvent),
    /// What is on record is no event of the fleet.
    #[error("record {seq} of the fleet cannot be read: {why}; a newer release may have written it")]
    Unreadable {
        /// Its place.
        seq: u64,
        /// What is wrong.
        why: String,
    },
    /// Other engines write all the time.
    #[error("the record of the fleet changed {ATTEMPTS} times while one event was to be written: try again")]
    Busy,
}

/// The fleet's record.
#[derive(Debug)]
pub struct FleetLog {
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    stream: StreamName,
    state: RwLock<FleetState>,
    /// Set while the state may be ahead of the record: whoever was to write it may have been stopped in the middle.
    ahead: AtomicBool,
}

/// Events that are about to be written, already folded.
#[derive(Debug)]
pub struct Draft<'a> {
    /// The fleet as it will be.
    pub state: &'a mut FleetState,
    /// The time of all of them.
    pub now: Timestamp,
    events: Vec<FleetEvent>,
}

impl Draft<'_> {
    /// Adds an event; refused where it may not follow.
    pub fn push(&mut self, event: FleetEvent) -> Result<(), IllegalFleetEvent> {
        self.state.apply(self.state.seq() + 1, self.now, &event)?;
        self.events.push(event);
        Ok(())
    }

    /// Returns how many more events fit into this write.
    pub fn room(&self) -> usize {
        MAX_EVENTS.saturating_sub(self.events.len())
    }

    /// Says whether no more events fit into this write.
    pub fn is_full(&self) -> bool {
        self.events.len() >= MAX_EVENTS
    }
}

impl FleetLog {
    /// Reads the record from its beginning.
    pub async fn open(journal: Arc<dyn Journal>, clock: Arc<dyn Clock>) -> Result<Self, FleetError> {
        let stream = StreamName::new("fleet")?;
        let log = Self { journal, clock, stream, state: RwLock::default(), ahead: AtomicBool::new(false) };
        log.sync().await?;
        Ok(log)
    }

    /// Looks at the fleet as it was last known here.
    pub async fn read<T>(&self, look: impl FnOnce(&FleetState) -> T) -> T {
        look(&*self.state.read().await)
    }

    /// Takes in what other processes wrote.
    pub async fn sync(&self) -> Result<(), FleetError> {
        let known = self.state.read().await.seq();
        let ahead = self.ahead.load(Ordering::SeqCst);
        if !ahead && self.journal.stream_length(&self.stream).await? == known {
            return Ok(());
        }
        let mut state = self.state.write().await;
        self.forget_what_is_ahead(&mut state);
        self.catch_up(&mut state).await
    }

    /// What was folded ahead of the record, by a write that never came to its end, is folded anew from the record.
    fn forget_what_is_ahead(&self, state: &mut FleetState) {
        if self.ahead.swap(false, Ordering::SeqCst) {
            *state = FleetState::default();
        }
    }

    async fn catch_up(&self, state: &mut FleetState) -> Result<(), FleetError> {
        loop {
            let page = self.journal.load_records(&self.stream, state.seq(), PAGE).await?;
            for record in &page {
                state.apply(record.seq, record.at, &decode(record)?)?;
            }
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// Decides on the newest state and writes what was decided, all of it or nothing. `decide` is called again where
    /// another engine wrote meanwhile. What it returns is durable when this returns.
    pub async fn write<T>(
        &self,
        mut decide: impl FnMut(&mut Draft<'_>) -> Result<T, IllegalFleetEvent>,
    ) -> Result<T, FleetError> {
        let mut state = self.state.write().await;
        if self.ahead.load(Ordering::SeqCst) {
            self.forget_what_is_ahead(&mut state);
            self.catch_up(&mut state).await?;
        }
        for _ in 0..ATTEMPTS {
            self.ahead.store(true, Ordering::SeqCst);
            let before = state.seq();
            let now = self.clock.now();
            let mut draft = Draft { state: &mut state, now, events: Vec::new() };
            let decided = decide(&mut draft);
            let events = std::mem::take(&mut draft.events);
            let written = match &decided {
                Ok(_) if events.is_empty() => {
                    self.ahead.store(false, Ordering::SeqCst);
                    return Ok(decided?);
                }
                Ok(_) => self.append(before, now, &events).await,
                Err(e) => Err(FleetError::Illegal(e.clone())),
            };
            match written {
                Ok(()) => {
                    self.ahead.store(false, Ordering::SeqCst);
                    return Ok(decided?);
                }
                Err(e) => {
                    self.forget_what_is_ahead(&mut state);
                    self.catch_up(&mut state).await?;
                    if !matches!(e, FleetError::Journal(JournalError::StreamConflict { .. })) {
                        return Err(e);
                    }
                }
            }
        }
        Err(FleetError::Busy)
    }

    async fn append(&self, after: u64, now: Timestamp, events: &[FleetEvent]) -> Result<(), FleetError> {
        let records: Result<Vec<NewRecord>, InvalidRecord> =
            events.iter().map(|e| NewRecord::of(e.word(), e)).collect();
        self.journal.append_records(&self.stream, Some(after), now, records?).await?;
        Ok(())
    }

    /// Writes one event.
    pub async fn note(&self, event: FleetEvent) -> Result<(), FleetError> {
        self.write(|draft| draft.push(event.clone())).await
    }

    /// Reads every event of the fleet, for people: place, time, event; `limit` of the newest at most.
    pub async fn history(&self, limit: usize) -> Result<Vec<(u64, Timestamp, FleetEvent)>, FleetError> {
        let length = self.journal.stream_length(&self.stream).await?;
        let mut after = length.saturating_sub(limit as u64);
        let mut out = Vec::new();
        while after < length {
            let page = self.journal.load_records(&self.stream, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            for record in &page {
                out.push((record.seq, record.at, decode(record)?));
            }
        }
        Ok(out)
    }
}

fn decode(record: &Record) -> Result<FleetEvent, FleetError> {
    serde_json::from_str(&record.body)
        .map_err(|e| FleetError::Unreadable { seq: record.seq, why: e.to_string() })
}
