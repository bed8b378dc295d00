//! The journal in memory: the same promises as the one in SQLite, for the simulator and for tests.
//!
//! A handle is one engine process: clones of it are the same process, [`MemoryJournal::reopen`] starts another on
//! the same store. A process can be made to die at any write.

use super::stored::{Phase, Prepared, StoredEvent, Summary, prepare, store};
use super::verify::{ChainReport, ChainWalk, PlaybookCheck, RunCheck};
use super::{Journal, JournalError, Lease, MAX_BLOB, RunSummary, chain};
use async_trait::async_trait;
use engine_core::digest::Digest;
use engine_core::model::{NodeName, RunId};
use engine_core::playbook::PlaybookRef;
use engine_core::run::{Event, EventKind, RunState};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

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
    events: Vec<StoredEvent>,
    runs: BTreeMap<RunId, Kept>,
    leases: BTreeMap<NodeName, (RunId, u64)>,
    token: u64,
    claims: BTreeMap<RunId, Weak<Process>>,
    playbooks: BTreeMap<(String, String), Digest>,
    blobs: BTreeMap<Digest, Vec<u8>>,
}

#[derive(Debug)]
struct Kept {
    state: RunState,
    events: Vec<Event>,
    places: Vec<usize>,
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
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryJournal {
    /// Makes an empty journal, and the first process on it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts another engine process on the same store.
    pub fn reopen(&self) -> Self {
        Self { store: Arc::clone(&self.store), process: Arc::default() }
    }

    /// Has this process die in its `n`-th append from now, 1 for the next one: that call and every later one fail.
    pub fn crash_after(&self, n: u64, point: CrashPoint) {
        let mut fate = lock(&self.process.fate);
        fate.crash = Some((fate.appends + n.max(1), point));
    }

    /// Kills this process: every later call through this handle and its clones fails, and its claims are free.
    pub fn kill(&self) {
        lock(&self.process.fate).dead = true;
    }

    /// Says whether this process was killed.
    pub fn is_dead(&self) -> bool {
        lock(&self.process.fate).dead
    }

    /// Counts the appends this process has asked for.
    pub fn appends(&self) -> u64 {
        lock(&self.process.fate).appends
    }

    fn alive(&self) -> Result<MutexGuard<'_, Store>, JournalError> {
        if self.is_dead() { Err(died()) } else { Ok(lock(&self.store)) }
    }
}

fn died() -> JournalError {
    store("used", "this engine process was killed")
}

fn lives(claim: &Weak<Process>) -> bool {
    claim.upgrade().is_some_and(|p| !lock(&p.fate).dead)
}

impl Store {
    fn phase(&self, run: &RunId) -> Result<Phase, JournalError> {
        let kept = self.runs.get(run).ok_or_else(|| JournalError::NoSuchRun(run.clone()))?;
        Ok(Phase::of(kept.state.status))
    }

    fn append(
        &mut self,
        run: &RunId,
        after: u64,
        at: Timestamp,
        kinds: Vec<EventKind>,
    ) -> Result<Vec<Event>, JournalError> {
        let state = self.runs.get(run).map(|k| k.state.clone());
        let found = state.as_ref().map_or(0, |s| s.seq);
        if found != after {
            if found == 0 {
                return Err(JournalError::NoSuchRun(run.clone()));
            }
            return Err(JournalError::Conflict { run: run.clone(), expected: after, found });
        }
        let head = self.events.last().map_or_else(|| (0, chain::genesis()), |e| (e.pos, e.hash.clone()));
        let Prepared { events, stored, state } = prepare(run, state, head, at, kinds)?;
        if state.status.is_terminal() {
            self.claims.remove(run);
        }
        let places = self.events.len()..self.events.len() + stored.len();
        self.events.extend(stored);
        match self.runs.get_mut(run) {
            Some(kept) => {
                kept.state = state;
                kept.events.extend(events.iter().cloned());
                kept.places.extend(places);
            }
            None => {
                let kept = Kept { state, events: events.clone(), places: places.collect() };
                self.runs.insert(run.clone(), kept);
            }
        }
        Ok(events)
    }

    /// Lists runs by age, oldest first.
    fn by_age(&self) -> Vec<(&RunId, &Kept)> {
        let mut runs: Vec<_> = self.runs.iter().collect();
        runs.sort_by_key(|(_, k)| k.places.first().copied());
        runs
    }

    fn verify(&self) -> ChainReport {
        let mut walk = ChainWalk::new();
        let mut runs = 0;
        let mut check = || {
            for e in &self.events {
                walk.step(&e.raw())?;
            }
            let last = self.events.last();
            let head = last.map_or_else(|| (0, chain::genesis()), |e| (e.pos, e.hash.clone()));
            walk.end(Some((head.0, head.1.as_str().as_bytes())))?;
            let mut playbooks = PlaybookCheck::default();
            for ((id, version), digest) in &self.playbooks {
                playbooks.pin(id.clone(), version.clone(), digest.as_str())?;
            }
            for (run, kept) in &self.runs {
                let mut fold = RunCheck::default();
                for place in &kept.places {
                    if let Some(e) = self.events.get(*place) {
                        fold.step(&e.raw(), &mut playbooks)?;
                    }
                }
                fold.end(run.as_str(), Some(Ok(Summary::of(&kept.state))))?;
                runs += 1;
            }
            Ok(())
        };
        let broken = check().err();
        let blobs = self.blobs.len() as u64;
        ChainReport { events: walk.events(), runs, blobs, head: walk.head().clone(), broken }
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn append(
        &self,
        run: &RunId,
        after: u64,
        at: Timestamp,
        kinds: Vec<EventKind>,
    ) -> Result<Vec<Event>, JournalError> {
        if kinds.is_empty() {
            return Ok(Vec::new());
        }
        let mut fate = lock(&self.process.fate);
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
                lock(&self.store).append(run, after, at, kinds)?;
                Err(died())
            }
            None => lock(&self.store).append(run, after, at, kinds),
        }
    }

    async fn load(&self, run: &RunId) -> Result<Vec<Event>, JournalError> {
        let store = self.alive()?;
        let kept = store.runs.get(run).ok_or_else(|| JournalError::NoSuchRun(run.clone()))?;
        Ok(kept.events.clone())
    }

    async fn runs(
        &self,
        node: Option<&NodeName>,
        open_only: bool,
        limit: usize,
    ) -> Result<Vec<RunSummary>, JournalError> {
        let store = self.alive()?;
        let lines = store.by_age().into_iter().rev().map(|(_, k)| Summary::of(&k.state));
        let wanted = lines
            .filter(|s| node.is_none_or(|n| s.line.node == *n) && !(open_only && s.phase == Phase::Over));
        Ok(wanted.take(limit).map(|s| s.line).collect())
    }

    async fn take_lease(&self, node: &NodeName, run: &RunId, _at: Timestamp) -> Result<Lease, JournalError> {
        let mut store = self.alive()?;
        if store.phase(run)? == Phase::Over {
            return Err(JournalError::RunOver(run.clone()));
        }
        if let Some((holder, _)) = store.leases.get(node).filter(|(holder, _)| holder != run)
            && store.phase(holder)? != Phase::Over
        {
            return Ok(Lease::HeldBy(holder.clone()));
        }
        store.token += 1;
        let token = store.token;
        store.leases.insert(node.clone(), (run.clone(), token));
        Ok(Lease::Taken { token })
    }

    async fn drop_lease(&self, node: &NodeName, run: &RunId) -> Result<(), JournalError> {
        let mut store = self.alive()?;
        if store.leases.get(node).is_some_and(|(holder, _)| holder == run) {
            store.leases.remove(node);
        }
        Ok(())
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
