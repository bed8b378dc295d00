//! The warden: hears of every event that an engine writes, and checks what only the journal can tell of the rules.
//!
//! It shares nothing with the fold and with `next`: what it finds is a second opinion. It also tells the world's rule
//! book which intents are open, so that a write without one is found at the moment in which it is sent.

use crate::world::{OpenIntent, SimWorld};
use engine_core::condition::Truth;
use engine_core::digest::Digest;
use engine_core::fact::Source;
use engine_core::model::{NodeName, RunId};
use engine_core::plan::{MAX_ATTEMPTS, Plan, PlannedStep};
use engine_core::run::{Effect, End, Event, EventKind, GuardReport, OutcomeKind, Resolution, RunState, fold};
use engine_runtime::engine::Observer;
use engine_runtime::journal::{Journal, JournalError};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Open runs that are looked at after the death of an engine.
const CATCH_UP_RUNS: usize = 100_000;

/// Checks what engines write against the rules. One warden serves every engine of a world.
#[derive(Debug)]
pub struct Warden {
    world: SimWorld,
    fact_max_age: SignedDuration,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    open: BTreeMap<RunId, Sheet>,
    /// Who has the lock on a node, by what is on record.
    holders: BTreeMap<NodeName, BTreeSet<RunId>>,
    ends: BTreeMap<&'static str, u64>,
    events: u64,
}

/// What is remembered of a run that is not over.
#[derive(Debug)]
struct Sheet {
    /// The last event that was heard.
    seq: u64,
    node: NodeName,
    digest: Digest,
    people: u8,
    approvals: BTreeMap<String, Timestamp>,
    intents: BTreeMap<Effect, &'static str>,
    began: BTreeSet<Effect>,
    deeds: BTreeSet<&'static str>,
    last_reset: Option<u64>,
    last_proof: Option<u64>,
    first: Timestamp,
}

/// Names what an effect does to the world; empty where it changes nothing.
fn deed(plan: &Plan, effect: Effect) -> &'static str {
    let step = match effect {
        Effect::Lock => return "lock",
        Effect::Unlock => return "unlock",
        Effect::Hold => return "drain",
        Effect::Step(i) => plan.steps.get(i),
        Effect::Undo(i) => plan.rollback.get(i),
    };
    match step.map(|s| s.action.as_str()) {
        Some("slurm.drain") => "drain",
        Some("slurm.resume") => "resume",
        Some("dcgm.reset_gpu") => "reset",
        _ => "",
    }
}

/// Names what an intent takes away: a node by its lock or its drain, a GPU by its reset. A reason on a node that is
/// drained already only tells people.
pub(crate) fn takes_away(event: &Event, state: &RunState) -> Option<&'static str> {
    let EventKind::Intent { effect, .. } = &event.kind else { return None };
    let deed = deed(&state.plan, *effect);
    (matches!(deed, "lock" | "drain" | "reset") && *effect != Effect::Hold).then_some(deed)
}

impl Warden {
    /// Builds the warden of a world; from now on a write of an engine without an open intent is a violation.
    pub fn new(world: &SimWorld, fact_max_age: SignedDuration) -> Self {
        world.lock().intents = Some(BTreeMap::new());
        Self { world: world.clone(), fact_max_age, book: Mutex::default() }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts runs by their end.
    pub fn ends(&self) -> BTreeMap<&'static str, u64> {
        self.book().ends.clone()
    }

    /// Counts the events heard.
    pub fn events(&self) -> u64 {
        self.book().events
    }

    /// Lists the runs that are not over, with the time of their first event.
    pub fn open_runs(&self) -> Vec<(RunId, NodeName, Timestamp)> {
        self.book().open.iter().map(|(run, s)| (run.clone(), s.node.clone(), s.first)).collect()
    }

    /// Finds a run that is not over by the beginning of its id.
    pub fn open_run(&self, prefix: &str) -> Option<RunId> {
        self.book().open.keys().find(|r| r.as_str().starts_with(prefix)).cloned()
    }

    /// Says whether a run is under way on a node.
    pub fn is_busy(&self, node: &NodeName) -> bool {
        self.book().open.values().any(|s| s.node == *node)
    }

    fn say(&self, rule: u8, node: &NodeName, what: impl Into<String>) {
        self.world.report(rule, Some(node), what);
    }

    fn leaves_shadow(&self, node: &NodeName) {
        let mut w = self.world.lock();
        let Some(n) = w.find(node) else { return };
        if let Some(count) = w.shadows.get_mut(&n) {
            *count -= 1;
            if *count == 0 {
                w.shadows.remove(&n);
            }
        }
    }

    fn publish(&self, node: &NodeName, book: &Book) {
        let mut open = Vec::new();
        for (run, sheet) in book.open.iter().filter(|(_, s)| s.node == *node) {
            let deeds = sheet.intents.values().filter(|d| !d.is_empty());
            open.extend(deeds.map(|deed| OpenIntent { run: run.as_str().to_owned(), deed }));
        }
        let mut w = self.world.lock();
        let Some(n) = w.find(node) else { return };
        if let Some(intents) = &mut w.intents {
            if open.is_empty() {
                intents.remove(&n);
            } else {
                intents.insert(n, open);
            }
        }
    }

    /// Rule 3 and 8: what an intent rests on is true, and was seen lately.
    fn judge_guard(&self, node: &NodeName, guard: &GuardReport, at: Timestamp, first: bool, needs: usize) {
        if !guard.passed {
            self.say(3, node, "an intent rests on a guard that did not pass");
        }
        for c in guard.conditions.iter().filter(|c| c.truth != Truth::True) {
            self.say(3, node, format!("an intent rests on `{}`, which is {:?}", c.source, c.truth));
        }
        if !first {
            return;
        }
        if guard.conditions.len() < needs {
            let judged = guard.conditions.len();
            self.say(
                8,
                node,
                format!("{judged} of {needs} preconditions were judged before the first write"),
            );
        }
        let limit = self.fact_max_age + SignedDuration::from_secs(1);
        for (name, fact) in guard.facts.iter() {
            let outside = !matches!(fact.source, Source::Request | Source::Engine);
            if outside && fact.value.is_known() && at.duration_since(fact.observed_at) > limit {
                self.say(3, node, format!("an intent rests on {name} as it was at {}", fact.observed_at));
            }
        }
    }

    fn intent(&self, book: &mut Book, event: &Event, state: &RunState, effect: Effect, guard: &GuardReport) {
        let plan = &state.plan;
        let node = plan.target.node.clone();
        let deed = deed(plan, effect);
        let first = effect == Effect::Lock;
        self.judge_guard(&node, guard, event.at, first, plan.preconditions.len());
        let rivals: Vec<RunId> =
            book.holders.get(&node).into_iter().flatten().filter(|r| **r != event.run).cloned().collect();
        let Some(sheet) = book.open.get_mut(&event.run) else { return };
        if let Some(other) = sheet.intents.keys().next() {
            self.say(1, &node, format!("{effect:?} was begun while {other:?} had not come out"));
        }
        if deed == "reset" && !sheet.began.insert(effect) {
            self.say(1, &node, "a reset was begun a second time");
        }
        if deed == "reset" {
            sheet.last_reset = Some(event.seq);
        }
        if deed == "resume" && sheet.last_reset > sheet.last_proof {
            self.say(5, &node, "a resume was begun without a verification after the reset");
        }
        if !deed.is_empty() && !matches!(deed, "lock" | "unlock") {
            for other in rivals {
                self.say(7, &node, format!("run {} did a {deed} while run {other} has the node", event.run));
            }
            sheet.deeds.insert(deed);
        }
        sheet.intents.insert(effect, deed);
        if effect == Effect::Unlock {
            Self::unhold(book, &node, &event.run);
        }
    }

    fn unhold(book: &mut Book, node: &NodeName, run: &RunId) {
        if let Some(holders) = book.holders.get_mut(node) {
            holders.remove(run);
            if holders.is_empty() {
                book.holders.remove(node);
            }
        }
    }

    fn came_out(&self, book: &mut Book, event: &Event, state: &RunState, effect: Effect, done: bool) {
        let node = &state.plan.target.node;
        let verifies = state.step_of(effect).and_then(PlannedStep::spec).is_some_and(|s| s.verifies);
        if let Some(sheet) = book.open.get_mut(&event.run) {
            sheet.intents.remove(&effect);
            if done && verifies {
                sheet.last_proof = Some(event.seq);
            }
        }
        if done && effect == Effect::Lock {
            let holders = book.holders.entry(node.clone()).or_default();
            holders.insert(event.run.clone());
            if holders.len() > 1 {
                let list: Vec<&str> = holders.iter().map(RunId::as_str).collect();
                self.say(7, node, format!("{} runs have the lock: {}", list.len(), list.join(", ")));
            }
        }
    }

    fn ended(&self, book: &mut Book, event: &Event, state: &RunState, end: End) {
        let node = &state.plan.target.node;
        *book.ends.entry(end.as_str()).or_insert(0) += 1;
        if state.plan.is_shadow() {
            self.leaves_shadow(node);
        }
        Self::unhold(book, node, &event.run);
        let Some(sheet) = book.open.remove(&event.run) else {
            self.say(13, node, format!("run {} ended twice, or never began", event.run));
            return;
        };
        if end == End::Shadowed && !sheet.deeds.is_empty() {
            self.say(2, node, format!("a shadow run did {:?}", sheet.deeds));
        }
        if end == End::Rejected && !sheet.deeds.is_empty() && state.has_mutated() {
            self.say(6, node, format!("a rejected run did {:?}", sheet.deeds));
        }
        let touched = sheet.deeds.contains("drain");
        let ours = self.world.reason_run(node).is_some_and(|r| r == event.run);
        let drained =
            self.world.node_view(node).is_some_and(|n| n.flags.has(engine_core::model::NodeFlag::Drain));
        if matches!(end, End::RolledBack | End::Succeeded) && touched && ours && drained {
            self.say(6, node, format!("run {} ended {} and its drain stands", event.run, end.as_str()));
        }
    }
}

impl Warden {
    /// Hears what is on record and what nobody told, because the engine that wrote it died in that moment.
    pub async fn catch_up(&self, journal: &dyn Journal) -> Result<(), JournalError> {
        let mut runs: BTreeSet<RunId> = self.book().open.keys().cloned().collect();
        runs.extend(journal.runs(None, true, CATCH_UP_RUNS).await?.into_iter().map(|r| r.run));
        for run in runs {
            let events = match journal.load(&run).await {
                Ok(events) => events,
                // A run of another journal.
                Err(JournalError::NoSuchRun(_)) => continue,
                Err(e) => return Err(e),
            };
            let Ok(state) = fold(&events) else { continue };
            for e in &events {
                self.hear(e, &state);
            }
        }
        Ok(())
    }

    fn hear(&self, event: &Event, state: &RunState) {
        let mut guard = self.book();
        let book = &mut *guard;
        match (book.open.get_mut(&event.run), &event.kind) {
            (Some(sheet), _) if event.seq <= sheet.seq => return,
            (Some(sheet), _) => sheet.seq = event.seq,
            (None, EventKind::Proposed { .. }) => {}
            // A run that is over, and was heard of.
            (None, _) => return,
        }
        book.events += 1;
        let node = state.plan.target.node.clone();
        match &event.kind {
            EventKind::Proposed { plan, digest } => {
                let sheet = Sheet {
                    seq: event.seq,
                    node: node.clone(),
                    digest: digest.clone(),
                    people: plan.people(),
                    approvals: BTreeMap::new(),
                    intents: BTreeMap::new(),
                    began: BTreeSet::new(),
                    deeds: BTreeSet::new(),
                    last_reset: None,
                    last_proof: None,
                    first: event.at,
                };
                book.open.insert(event.run.clone(), sheet);
                let mut w = self.world.lock();
                w.runs += 1;
                if let Some(n) = w.find(&node).filter(|_| plan.is_shadow()) {
                    *w.shadows.entry(n).or_insert(0) += 1;
                }
            }
            EventKind::Approved { by, digest, expires_at, .. } => {
                if let Some(sheet) = book.open.get_mut(&event.run) {
                    if *digest != sheet.digest {
                        self.say(11, &node, format!("{by} approved another plan than that of {}", event.run));
                    }
                    sheet.approvals.insert(by.name.clone(), *expires_at);
                }
            }
            EventKind::ApprovalVoided { .. } => {
                if let Some(sheet) = book.open.get_mut(&event.run) {
                    sheet.approvals.clear();
                }
            }
            EventKind::Started { .. } => {
                if let Some(sheet) = book.open.get(&event.run) {
                    let valid = sheet.approvals.values().filter(|e| **e > event.at).count();
                    if valid < usize::from(sheet.people) {
                        let needed = sheet.people;
                        self.say(11, &node, format!("a run began with {valid} of {needed} approvals"));
                    }
                }
            }
            EventKind::Recovered { .. } => {
                // What was open is ambiguous now: nothing may be done under it.
                if let Some(sheet) = book.open.get_mut(&event.run) {
                    sheet.intents.values_mut().for_each(|deed| *deed = "");
                }
            }
            EventKind::Intent { effect, guard, attempt, .. } => {
                if *attempt > MAX_ATTEMPTS {
                    self.say(13, &node, format!("attempt {attempt} of {effect:?}"));
                }
                self.intent(book, event, state, *effect, guard);
            }
            EventKind::Finished { effect, outcome, .. } => {
                if outcome.kind == OutcomeKind::Ambiguous {
                    if let Some(deed) = book.open.get_mut(&event.run).and_then(|s| s.intents.get_mut(effect))
                    {
                        *deed = "";
                    }
                } else {
                    let done = outcome.kind == OutcomeKind::Succeeded;
                    self.came_out(book, event, state, *effect, done);
                }
            }
            EventKind::Resolved { effect, resolution, .. } => {
                let done = *resolution == Resolution::Applied;
                self.came_out(book, event, state, *effect, done);
            }
            EventKind::Ended { end, .. } => self.ended(book, event, state, *end),
            _ => {}
        }
        self.publish(&node, book);
    }
}

impl Observer for Warden {
    fn on_event(&self, event: &Event, state: &RunState) {
        self.hear(event, state);
    }
}
