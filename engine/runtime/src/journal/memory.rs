//! The journal in memory: the same promises as the one in SQLite, for the simulator and for tests.
//!
//! A handle is one engine process: clones of it are the same process, [`MemoryJournal::reopen`] starts another on
//! the same store. A process can be made to die at any write.

use super::chain::Owner;
use super::lock::{self, Admit, HeldLease, Lease, LockKey};
use super::stored::{Phase, Prepared, StoredEvent, Summary, place_records, prepare, store};
use super::stream::{self, NewRecord, Record, StreamName};
use super::verify::{ChainBreak, ChainReport, ChainWalk, PlaybookCheck, RunCheck};
use super::{Journal, JournalError, MAX_BLOB, NewEvent, RunSummary, chain};
use async_trait::async_trait;
use engine_core::digest::Digest;
use engine_core::model::{NodeName, RunId};
use engine_core::playbook::PlaybookRef;
use engine_core::run::{Event, EventKind, Load, RunState, fold};
use jiff::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Runs that are over and that a journal for long simulations keeps.
const PASSING_KEEPS: usize = 128;

/// When an engine process dies, seen from the append that it dies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// The events are not on record.
    Before,
    /// The events are on record, and nobody is told.
    After,
}

#[derive(Debug, Default)]
struct Store {
    /// Events and records, in the one order of the chain.
    chain: Vec<StoredEvent>,
    runs: BTreeMap<RunId, Kept>,
    streams: BTreeMap<StreamName, Vec<Record>>,
    leases: BTreeMap<LockKey, HeldLease>,
    token: u64,
    claims: BTreeMap<RunId, Weak<Process>>,
    playbooks: BTreeMap<(String, String), Digest>,
    blobs: BTreeMap<Digest, Vec<u8>>,
    /// Runs that are over, oldest first, where only the last ones are kept; `None` for a journal that keeps all.
    passing: Option<VecDeque<RunId>>,
}

#[derive(Debug)]
struct Kept {
    state: RunState,
    events: Vec<Event>,
    places: Vec<usize>,
    /// Its place among all runs, by the time of its first event.
    age: u64,
}

#[derive(Debug, Default)]
struct Process {
    fate: Mutex<Fate>,
}

#[derive(Debug, Default)]
struct Fate {
    dead: bool,
    crash: Option<(u64, CrashPoint)>,
    appends: u64,
}

/// A journal in memory, seen from one engine process.
#[derive(Debug, Clone, Default)]
pub struct MemoryJournal {
    store: Arc<Mutex<Store>>,
    process: Arc<Process>,
}

/// Takes a lock; what a panicking test left is still whole, because changes are made only once nothing can fail.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryJournal {
    /// Makes an empty journal, and the first process on it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an empty journal for long simulations: every event is folded as ever, but nothing is encoded and chained. Of
    /// the runs that are over only the last 128 are kept, and events are given back without the facts and data they carry:
    /// the fold has those it needs.
    pub fn passing() -> Self {
        let store = Store { passing: Some(VecDeque::new()), ..Store::default() };
        Self { store: Arc::new(Mutex::new(store)), process: Arc::default() }
    }

    /// Starts another engine process on the same store.
    pub fn reopen(&self) -> Self {
        Self { store: Arc::clone(&self.store), process: Arc::default() }
    }

    /// Has this process die in its `n`-th append from now, to a run or to a stream, 1 for the next one: that call and every later one fail.
    pub fn crash_after(&self, n: u64, point: CrashPoint) {
        let mut fate = hold(&self.process.fate);
        fate.crash = Some((fate.appends + n.max(1), point));
    }

    /// Kills this process: every later call through this handle and its clones fails, and its claims are free.
    pub fn kill(&self) {
        hold(&self.process.fate).dead = true;
    }

    /// Says whether this process was killed.
    pub fn is_dead(&self) -> bool {
        hold(&self.process.fate).dead
    }

    /// Counts the appends this process has asked for, to runs and to streams.
    pub fn appends(&self) -> u64 {
        hold(&self.process.fate).appends
    }

    /// Appends, unless this process dies in it.
    fn append_or_die<T>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        // The store first, as everywhere: whoever asks whether another process lives has it already.
        let mut store = hold(&self.store);
        let mut fate = hold(&self.process.fate);
        if fate.dead {
            return Err(died());
        }
        fate.appends += 1;
        let crash = fate.crash.filter(|(n, _)| *n == fate.appends).map(|(_, point)| point);
        match crash {
            Some(CrashPoint::Before) => {
                fate.dead = true;
                Err(died())
            }
            Some(CrashPoint::After) => {
                fate.dead = true;
                work(&mut store)?;
                Err(died())
            }
            None => work(&mut store),
        }
    }

    fn alive(&self) -> Result<MutexGuard<'_, Store>, JournalError> {
        if self.is_dead() { Err(died()) } else { Ok(hold(&self.store)) }
    }
}

fn died() -> JournalError {
    store("used", "this engine process was killed")
}

/// Copies an event without what it carries for people and for probes: the fold has taken what it needs.
fn without_load(event: &mut Event) -> Event {
    let take = std::mem::take::<Load>;
    match &mut event.kind {
        EventKind::Intent { guard, context, .. } => {
            let load =
                (std::mem::take(&mut guard.facts), std::mem::take(&mut guard.conditions), take(context));
            let slim = event.clone();
            if let EventKind::Intent { guard, context, .. } = &mut event.kind {
                (guard.facts, guard.conditions, *context) = load;
            }
            slim
        }
        EventKind::Refused { guard, .. } => {
            let load = (std::mem::take(&mut guard.facts), std::mem::take(&mut guard.conditions));
            let slim = event.clone();
            if let EventKind::Refused { guard, .. } = &mut event.kind {
                (guard.facts, guard.conditions) = load;
            }
            slim
        }
        EventKind::Finished { outcome, .. } => {
            let load = take(&mut outcome.data);
            let slim = event.clone();
            if let EventKind::Finished { outcome, .. } = &mut event.kind {
                outcome.data = load;
            }
            slim
        }
        EventKind::Resolved { data, .. } => {
            let load = take(data);
            let slim = event.clone();
            if let EventKind::Resolved { data, .. } = &mut event.kind {
                *data = load;
            }
            slim
        }
        _ => event.clone(),
    }
}

/// Folds what is kept of a run once more, and compares.
fn fold_again(run: &RunId, kept: &Kept) -> Result<(), ChainBreak> {
    match fold(&kept.events) {
        Ok(state) if (state.seq, state.status) == (kept.state.seq, kept.state.status) => Ok(()),
        Ok(_) => Err(ChainBreak::of_run(run.as_str(), "its events do not fold to its state")),
        Err(e) => Err(ChainBreak::of_run(run.as_str(), e.to_string())),
    }
}

fn lives(claim: &Weak<Process>) -> bool {
    claim.upgrade().is_some_and(|p| !hold(&p.fate).dead)
}

impl Store {
    fn phase(&self, run: &RunId) -> Result<Phase, JournalError> {
        let kept = self.runs.get(run).ok_or_else(|| JournalError::NoSuchRun(run.clone()))?;
        Ok(Phase::of(kept.state.status))
    }

    fn head(&self) -> (u64, Digest) {
        self.chain.last().map_or_else(|| (0, chain::genesis()), |e| (e.pos, e.hash.clone()))
    }

    fn append(
        &mut self,
        process: &Arc<Process>,
        run: &RunId,
        after: u64,
        new: Vec<NewEvent>,
    ) -> Result<Vec<Event>, JournalError> {
        let found = self.runs.get(run).map_or(0, |k| k.state.seq);
        if found != after {
            if found == 0 {
                return Err(JournalError::NoSuchRun(run.clone()));
            }
            return Err(JournalError::Conflict { run: run.clone(), expected: after, found });
        }
        let begins = new.iter().any(|n| matches!(n.kind, EventKind::Intent { .. }));
        let other = self.claims.get(run).is_some_and(|c| !std::ptr::eq(c.as_ptr(), Arc::as_ptr(process)));
        if begins && other {
            return Err(JournalError::TakenOver(run.clone()));
        }
        if self.passing.is_some() {
            return self.append_passing(run, new);
        }
        let state = self.runs.get(run).map(|k| k.state.clone());
        let Prepared { events, stored, state } = prepare(run, state, self.head(), new)?;
        if state.status.is_terminal() {
            self.claims.remove(run);
            self.leases.retain(|_, lease| lease.run != *run);
        }
        let places = self.chain.len()..self.chain.len() + stored.len();
        self.chain.extend(stored);
        match self.runs.get_mut(run) {
            Some(kept) => {
                kept.state = state;
                kept.events.extend(events.iter().cloned());
                kept.places.extend(places);
            }
            None => {
                let age = places.start as u64;
                let kept = Kept { state, events: events.clone(), places: places.collect(), age };
                self.runs.insert(run.clone(), kept);
            }
        }
        Ok(events)
    }

    /// Folds events onto a run, without their stored form; of runs that are over, the oldest are forgotten.
    fn append_passing(&mut self, run: &RunId, new: Vec<NewEvent>) -> Result<Vec<Event>, JournalError> {
        let mut events = Vec::with_capacity(new.len());
        let known = self.runs.get(run).map_or(0, |k| k.events.len());
        for NewEvent { at, kind } in new {
            let seq = (known + events.len()) as u64 + 1;
            events.push(Event { run: run.clone(), seq, at, kind });
        }
        let is_over = if let Some(kept) = self.runs.get_mut(run) {
            let before = (events.len() > 1).then(|| kept.state.clone());
            for event in &events {
                if let Err(e) = kept.state.apply(event) {
                    // Several events at once are all or nothing.
                    kept.state = before.unwrap_or_else(|| kept.state.clone());
                    return Err(e.into());
                }
            }
            kept.events.extend(events.iter_mut().map(without_load));
            kept.state.status.is_terminal()
        } else {
            let state = fold(&events)?;
            let is_over = state.status.is_terminal();
            self.token += 1;
            let kept = events.iter_mut().map(without_load).collect();
            let kept = Kept { state, events: kept, places: Vec::new(), age: self.token };
            self.runs.insert(run.clone(), kept);
            is_over
        };
        if is_over {
            self.claims.remove(run);
            self.leases.retain(|_, lease| lease.run != *run);
            let over = self.passing.get_or_insert_default();
            over.push_back(run.clone());
            while over.len() > PASSING_KEEPS {
                if let Some(oldest) = over.pop_front() {
                    self.runs.remove(&oldest);
                }
            }
        }
        Ok(events)
    }

    fn append_records(
        &mut self,
        stream: &StreamName,
        after: Option<u64>,
        at: Timestamp,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Record>, JournalError> {
        let found = self.streams.get(stream).map_or(0, |r| r.len() as u64);
        if let Some(expected) = after.filter(|n| *n != found) {
            return Err(JournalError::StreamConflict { stream: stream.clone(), expected, found });
        }
        let text = at.to_string();
        let places = place_records(stream, found, self.head(), &text, &records);
        let mut written = Vec::with_capacity(records.len());
        for (place, record) in places.into_iter().zip(records) {
            let (kind, body) = record.into_parts();
            self.chain.push(StoredEvent {
                owner: Owner::Stream,
                pos: place.pos,
                name: stream.to_string(),
                seq: place.seq,
                at: text.clone(),
                kind: kind.clone().into(),
                body: body.clone(),
                bytes: Some(Box::new([place.prev.bytes(), place.hash.bytes()])),
                prev: place.prev,
                hash: place.hash,
            });
            written.push(Record { stream: stream.clone(), seq: place.seq, at, kind, body });
        }
        self.streams.entry(stream.clone()).or_default().extend(written.iter().cloned());
        Ok(written)
    }

    /// Lists the locks of runs that are not over.
    fn held(&self) -> Vec<HeldLease> {
        let over = |run: &RunId| self.runs.get(run).is_some_and(|k| k.state.status.is_terminal());
        self.leases.values().filter(|l| !over(&l.run)).cloned().collect()
    }

    /// Lists runs by age, oldest first.
    fn by_age(&self) -> Vec<(&RunId, &Kept)> {
        let mut runs: Vec<_> = self.runs.iter().collect();
        runs.sort_by_key(|(_, k)| k.age);
        runs
    }

    fn verify(&self) -> ChainReport {
        let mut walk = ChainWalk::new();
        let mut runs = 0;
        let mut check = || {
            for e in &self.chain {
                walk.step(&e.raw())?;
            }
            let head = self.head();
            walk.end(Some((head.0, head.1.as_str().as_bytes())))?;
            let mut playbooks = PlaybookCheck::default();
            for ((id, version), digest) in &self.playbooks {
                playbooks.pin(id.clone(), version.clone(), digest.as_str())?;
            }
            for (run, kept) in &self.runs {
                let mut fold = RunCheck::default();
                for place in &kept.places {
                    if let Some(e) = self.chain.get(*place) {
                        fold.step(&e.raw(), &mut playbooks)?;
                    }
                }
                if self.passing.is_some() {
                    fold_again(run, kept)?;
                } else {
                    fold.end(run.as_str(), Some(Ok(Summary::of(&kept.state))))?;
                }
                runs += 1;
            }
            Ok(())
        };
        let broken = check().err();
        let blobs = self.blobs.len() as u64;
        walk.report(runs, blobs, broken)
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn append_events(
        &self,
        run: &RunId,
        after: u64,
        new: Vec<NewEvent>,
    ) -> Result<Vec<Event>, JournalError> {
        if new.is_empty() {
            return Ok(Vec::new());
        }
        self.append_or_die(|store| store.append(&self.process, run, after, new))
    }

    async fn load(&self, run: &RunId) -> Result<Vec<Event>, JournalError> {
        let store = self.alive()?;
        let kept = store.runs.get(run).ok_or_else(|| JournalError::NoSuchRun(run.clone()))?;
        Ok(kept.events.clone())
    }

    async fn state(&self, run: &RunId) -> Result<RunState, JournalError> {
        let store = self.alive()?;
        let kept = store.runs.get(run).ok_or_else(|| JournalError::NoSuchRun(run.clone()))?;
        Ok(kept.state.clone())
    }

    async fn stop_requested(&self, run: &RunId) -> Result<bool, JournalError> {
        let store = self.alive()?;
        let kept = store.runs.get(run).ok_or_else(|| JournalError::NoSuchRun(run.clone()))?;
        Ok(kept.state.cancel.is_some())
    }

    async fn runs(
        &self,
        node: Option<&NodeName>,
        open_only: bool,
        limit: usize,
    ) -> Result<Vec<RunSummary>, JournalError> {
        let store = self.alive()?;
        let of_node = |k: &Kept| node.is_none_or(|n| k.state.plan.target.node == *n);
        let is_over = |k: &Kept| Phase::of(k.state.status) == Phase::Over;
        let mut wanted: Vec<&Kept> =
            store.runs.values().filter(|k| of_node(k) && !(open_only && is_over(k))).collect();
        wanted.sort_by_key(|k| std::cmp::Reverse(k.age));
        Ok(wanted.into_iter().take(limit).map(|k| Summary::of(&k.state).line).collect())
    }

    async fn append_records(
        &self,
        stream: &StreamName,
        after: Option<u64>,
        at: Timestamp,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Record>, JournalError> {
        stream::bounded(&records)?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        self.append_or_die(|store| store.append_records(stream, after, at, records))
    }

    async fn load_records(
        &self,
        stream: &StreamName,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, JournalError> {
        let store = self.alive()?;
        let records = store.streams.get(stream).into_iter().flatten();
        Ok(records.skip_while(|r| r.seq <= after).take(limit).cloned().collect())
    }

    async fn stream_length(&self, stream: &StreamName) -> Result<u64, JournalError> {
        Ok(self.alive()?.streams.get(stream).map_or(0, |r| r.len() as u64))
    }

    async fn take_leases(
        &self,
        keys: &[LockKey],
        run: &RunId,
        at: Timestamp,
        admit: Option<Admit>,
    ) -> Result<Lease, JournalError> {
        let keys = lock::in_order(keys)?;
        let mut store = self.alive()?;
        if store.phase(run)? == Phase::Over {
            return Err(JournalError::RunOver(run.clone()));
        }
        if let Some(refused) = lock::judge(&keys, run, &store.held(), admit.as_ref()) {
            return Ok(refused);
        }
        store.token += 1;
        let token = store.token;
        for key in keys {
            let lease = HeldLease { key: key.clone(), run: run.clone(), token, taken_at: at };
            store.leases.insert(key, lease);
        }
        Ok(Lease::Taken { token })
    }

    async fn drop_leases(&self, keys: &[LockKey], run: &RunId) -> Result<(), JournalError> {
        self.alive()?.leases.retain(|key, lease| lease.run != *run || !keys.contains(key));
        Ok(())
    }

    async fn drop_all_leases(&self, run: &RunId) -> Result<(), JournalError> {
        self.alive()?.leases.retain(|_, lease| lease.run != *run);
        Ok(())
    }

    async fn leases(&self) -> Result<Vec<HeldLease>, JournalError> {
        Ok(self.alive()?.held())
    }

    async fn pin_playbook(&self, playbook: &PlaybookRef, _at: Timestamp) -> Result<(), JournalError> {
        let mut store = self.alive()?;
        let key = (playbook.id.clone(), playbook.version.to_string());
        match store.playbooks.get(&key) {
            Some(recorded) if *recorded != playbook.digest => Err(JournalError::PlaybookChanged {
                id: key.0,
                version: key.1,
                recorded: recorded.clone(),
                found: playbook.digest.clone(),
            }),
            Some(_) => Ok(()),
            None => {
                store.playbooks.insert(key, playbook.digest.clone());
                Ok(())
            }
        }
    }

    async fn claim(&self, run: &RunId) -> Result<bool, JournalError> {
        let mut store = self.alive()?;
        let phase = store.phase(run)?;
        let other = store.claims.get(run).filter(|c| !std::ptr::eq(c.as_ptr(), Arc::as_ptr(&self.process)));
        let free = !other.is_some_and(lives);
        if free && phase != Phase::Over {
            store.claims.insert(run.clone(), Arc::downgrade(&self.process));
        }
        Ok(free)
    }

    async fn free_abandoned(&self, run: &RunId) -> Result<bool, JournalError> {
        let mut store = self.alive()?;
        if store.claims.get(run).is_some_and(lives) || store.phase(run)? != Phase::Waiting {
            return Ok(false);
        }
        store.leases.retain(|_, lease| lease.run != *run);
        store.claims.remove(run);
        Ok(true)
    }

    async fn orphans(&self) -> Result<Vec<RunId>, JournalError> {
        let store = self.alive()?;
        let orphan = |run: &RunId, phase: Phase| match (phase, store.claims.get(run)) {
            (Phase::Over, _) | (Phase::Waiting, None) => false,
            (Phase::Acting, None) => true,
            (Phase::Waiting | Phase::Acting, Some(claim)) => !lives(claim),
        };
        let open = store.by_age().into_iter().map(|(run, k)| (run, Phase::of(k.state.status)));
        Ok(open.filter(|(run, phase)| orphan(run, *phase)).map(|(run, _)| run.clone()).collect())
    }

    async fn store_blob(&self, bytes: Vec<u8>, _at: Timestamp) -> Result<Digest, JournalError> {
        if bytes.len() > MAX_BLOB {
            return Err(JournalError::TooLarge { what: "the bundle", size: bytes.len(), limit: MAX_BLOB });
        }
        let digest = Digest::of(&bytes);
        self.alive()?.blobs.insert(digest.clone(), bytes);
        Ok(digest)
    }

    async fn load_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, JournalError> {
        Ok(self.alive()?.blobs.get(digest).cloned())
    }

    async fn verify(&self) -> Result<ChainReport, JournalError> {
        Ok(self.alive()?.verify())
    }
}
