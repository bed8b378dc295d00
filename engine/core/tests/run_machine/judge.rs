//! The judge: the rules that never break, on the events alone. It keeps its own books and shares no code with the
//! fold; only the catalogue of actions says what an action is.

use crate::plans::MARK_ATTEMPTS;
use engine_core::action::{EffectClass, ServiceEffect, Undo};
use engine_core::plan::{Plan, PlannedStep};
use engine_core::playbook::Ends;
use engine_core::run::{Effect, End, Event, EventKind, OutcomeKind, Resolution, RunState};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the events say about one effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// Intent on record, nothing else.
    Open,
    /// Came out ambiguous and waits for its probe.
    Pending,
    /// Done.
    Applied,
    /// Nobody can tell, or somebody stepped in after we began.
    Maybe,
    /// Not done; another attempt may help.
    Transient,
    /// Not done.
    Not,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Book {
    verdict: Verdict,
    /// Attempts that were begun or refused.
    attempts: u32,
    /// Attempts that were begun.
    intents: u32,
    /// A retry is on record that was not used yet.
    retry: bool,
}

/// The books of one run.
#[derive(Debug, Clone)]
pub(crate) struct Judge {
    plan: Arc<Plan>,
    books: BTreeMap<Effect, Book>,
    /// Whether the node may be out of service by this run.
    out: bool,
    /// A disruptive step was begun and no verification passed since.
    unproven: bool,
    foreign: bool,
    rolling_back: bool,
    started: bool,
    cancelled: bool,
    /// One event may still follow that was decided before the cancel.
    slips: bool,
    end: Option<End>,
    approvals: BTreeMap<String, Timestamp>,
    /// Approvals that were voided.
    pub(crate) voided: u32,
}

/// A rule broken, in words.
type Broken = Result<(), String>;

fn rule(holds: bool, text: &str) -> Broken {
    if holds { Ok(()) } else { Err(format!("rule broken: {text}")) }
}

impl Judge {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            plan: Arc::new(plan.clone()),
            books: BTreeMap::new(),
            out: false,
            unproven: false,
            foreign: false,
            rolling_back: false,
            started: false,
            cancelled: false,
            slips: false,
            end: None,
            approvals: BTreeMap::new(),
            voided: 0,
        }
    }

    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    pub(crate) fn is_open(&self, effect: Effect) -> bool {
        self.verdict(effect) == Some(Verdict::Open)
    }

    /// Counts how often an effect was begun.
    pub(crate) fn intents(&self, effect: Effect) -> u32 {
        self.books.get(&effect).map_or(0, |b| b.intents)
    }

    /// Says whether nothing that was attempted of this effect can be attempted again: then only matters what became
    /// of it.
    pub(crate) fn is_behind(&self, effect: Effect) -> bool {
        let closing = self.foreign || self.books.contains_key(&Effect::Unlock);
        effect != Effect::Unlock && (closing || self.rolling_back && matches!(effect, Effect::Step(_)))
    }

    /// Everything that decides what may follow, for telling one situation from another.
    pub(crate) fn key(&self) -> String {
        let flags = [
            self.out,
            self.unproven,
            self.foreign,
            self.rolling_back,
            self.started,
            self.cancelled,
            self.slips,
        ];
        let mut out: String = flags.iter().map(|f| if *f { '1' } else { '0' }).collect();
        for (effect, b) in &self.books {
            let word = match b.verdict {
                Verdict::Applied => "a".to_owned(),
                Verdict::Maybe => "m".to_owned(),
                Verdict::Transient | Verdict::Not if self.is_behind(*effect) => "n".to_owned(),
                v => format!("{v:?}{}{}", b.attempts, b.retry),
            };
            out.push_str(&format!(" {effect:?}{word}"));
        }
        out.push_str(&format!(" {:?}{}", self.end, self.voided));
        out
    }

    fn step_of(&self, effect: Effect) -> Option<&PlannedStep> {
        match effect {
            Effect::Step(i) => self.plan.steps.get(i),
            Effect::Undo(i) => self.plan.rollback.get(i),
            Effect::Lock | Effect::Hold | Effect::Unlock => None,
        }
    }

    /// Attempts allowed, the first included; a disruptive step is never repeated by itself.
    fn limit(&self, effect: Effect) -> u32 {
        match self.step_of(effect) {
            None => MARK_ATTEMPTS,
            Some(step) if class(step).needs_verification() => 1,
            Some(step) => step.attempts.clamp(1, 10),
        }
    }

    fn takes_out(&self, effect: Effect) -> bool {
        let service = self.step_of(effect).and_then(PlannedStep::spec).map(|s| s.service);
        effect == Effect::Hold || service == Some(ServiceEffect::TakesOut)
    }

    fn gives_back(&self, effect: Effect) -> bool {
        let service = self.step_of(effect).and_then(PlannedStep::spec).map(|s| s.service);
        service == Some(ServiceEffect::GivesBack)
    }

    fn verdict(&self, effect: Effect) -> Option<Verdict> {
        self.books.get(&effect).map(|b| b.verdict)
    }

    fn may_be_done(&self, effect: Effect) -> bool {
        matches!(
            self.verdict(effect),
            Some(Verdict::Applied | Verdict::Maybe | Verdict::Open | Verdict::Pending)
        )
    }

    /// Compares the fold's own flags with the books.
    pub(crate) fn agrees(&self, state: &RunState) -> Broken {
        rule((state.disrupted && !state.verified) == self.unproven, "the fold knows what is unproven")?;
        rule(state.cancel.is_some() == self.cancelled, "the fold knows of the cancel")?;
        let mutated = state
            .plan
            .steps
            .iter()
            .enumerate()
            .any(|(i, s)| class(s).mutates() && self.may_be_done(Effect::Step(i)));
        rule(state.has_mutated() == mutated, "the fold knows whether the node was, or may have been, changed")
    }

    /// Hears one event; `late` for a cancel that comes after the engine decided.
    pub(crate) fn hear(&mut self, event: &Event, late: bool) -> Broken {
        rule(self.end.is_none() || matches!(event.kind, EventKind::Noted { .. }), "nothing follows the end")?;
        let slipped = std::mem::take(&mut self.slips);
        match &event.kind {
            EventKind::CancelRequested { .. } => {
                self.cancelled = true;
                self.slips = late;
                Ok(())
            }
            EventKind::Approved { by, expires_at, .. } => {
                self.approvals.insert(by.name.clone(), *expires_at);
                Ok(())
            }
            EventKind::Started { .. } => {
                self.started = true;
                let yes = self.approvals.values().filter(|until| **until > event.at).count();
                rule(!self.cancelled || slipped, "nothing is started after a cancel")?;
                rule(yes >= usize::from(self.plan.people()), "(11) nobody's yes is taken for granted")
            }
            EventKind::ApprovalVoided { .. } => {
                self.voided += 1;
                self.approvals.clear();
                Ok(())
            }
            EventKind::RollbackStarted { .. } => {
                rule(!self.foreign, "after somebody else's change there is no way back, only handing over")?;
                self.rolling_back = true;
                Ok(())
            }
            EventKind::Intent { effect, attempt, .. } => self.begins(*effect, *attempt, slipped),
            EventKind::Refused { effect, foreign, transient, .. } => {
                self.one_at_a_time()?;
                self.counts(*effect, None)?;
                let verdict = if *transient { Verdict::Transient } else { Verdict::Not };
                self.set(*effect, verdict);
                self.foreign |= *foreign && *effect != Effect::Unlock;
                Ok(())
            }
            EventKind::Finished { effect, outcome, .. } => {
                rule(self.is_open(*effect), "(1) no outcome without its intent before it")?;
                match outcome.kind {
                    OutcomeKind::Succeeded => self.applied(*effect),
                    OutcomeKind::Transient => self.set(*effect, Verdict::Transient),
                    OutcomeKind::Permanent => self.set(*effect, Verdict::Not),
                    OutcomeKind::Ambiguous => self.set(*effect, Verdict::Pending),
                    OutcomeKind::Foreign => self.somebody(*effect),
                }
                Ok(())
            }
            EventKind::Resolved { effect, resolution, .. } => {
                let unknown = matches!(self.verdict(*effect), Some(Verdict::Open | Verdict::Pending));
                rule(unknown, "(1) only what is not known is probed")?;
                match resolution {
                    Resolution::Applied => self.applied(*effect),
                    Resolution::NotApplied => self.set(*effect, Verdict::Transient),
                    Resolution::Unclear => {
                        self.set(*effect, Verdict::Maybe);
                        self.out |= self.takes_out(*effect);
                    }
                    Resolution::Foreign => self.somebody(*effect),
                }
                Ok(())
            }
            EventKind::RetryScheduled { effect, attempt, not_before, .. } => {
                rule(
                    self.verdict(*effect) == Some(Verdict::Transient),
                    "(13) only what may help is tried again",
                )?;
                rule(*attempt <= self.limit(*effect), "(13) no attempt beyond the plan's number")?;
                rule(*not_before > event.at, "(13) a retry waits")?;
                if let Some(b) = self.books.get_mut(effect) {
                    b.retry = true;
                }
                Ok(())
            }
            EventKind::Ended { end, .. } => {
                self.end = Some(*end);
                self.ends(*end, slipped)
            }
            _ => Ok(()),
        }
    }

    fn one_at_a_time(&self) -> Broken {
        let unknown = self.books.values().any(|b| matches!(b.verdict, Verdict::Open | Verdict::Pending));
        rule(!unknown, "(1) an intent without outcome is probed before anything else is begun")
    }

    fn counts(&mut self, effect: Effect, attempt: Option<u32>) -> Broken {
        let limit = self.limit(effect);
        let b = self.books.entry(effect).or_insert(Book {
            verdict: Verdict::Not,
            attempts: 0,
            intents: 0,
            retry: true,
        });
        rule(b.retry, "(13) another attempt is on record before it is made")?;
        b.retry = false;
        b.attempts += 1;
        b.intents += u32::from(attempt.is_some());
        let b = *b;
        rule(attempt.is_none_or(|a| a == b.attempts), "attempts are counted without gaps")?;
        rule(b.attempts <= limit, "(13) no more attempts than the plan allows")
    }

    fn begins(&mut self, effect: Effect, attempt: u32, slipped: bool) -> Broken {
        self.one_at_a_time()?;
        rule(self.started, "nothing is begun before the run is started")?;
        self.counts(effect, Some(attempt))?;
        rule(
            !self.foreign || effect == Effect::Unlock,
            "(4) after somebody else's change only our lock is given back",
        )?;
        let unlocking = self.books.contains_key(&Effect::Unlock);
        if !matches!(effect, Effect::Lock | Effect::Unlock) {
            rule(
                self.verdict(Effect::Lock) == Some(Verdict::Applied),
                "(7) nothing is done to a node that is not locked",
            )?;
            rule(!unlocking, "(7) nothing is done to a node whose lock is being given back")?;
        }
        match effect {
            Effect::Lock => rule(!self.cancelled || slipped, "no lock is taken after a cancel")?,
            Effect::Unlock => rule(self.lock_may_be_ours(), "only a lock that may be ours is given back")?,
            Effect::Step(i) => {
                rule(!self.rolling_back, "no forward step on the way back")?;
                rule(!self.cancelled || slipped, "no forward step after a cancel")?;
                let before = (0..i).all(|j| self.verdict(Effect::Step(j)) == Some(Verdict::Applied));
                rule(before, "steps are done in order, each after the one before it succeeded")?;
            }
            Effect::Undo(i) => {
                rule(self.rolling_back, "the way back begins with its own event")?;
                rule(self.is_due(i), "only what was, or may have been, done is undone")?;
            }
            Effect::Hold => rule(self.rolling_back, "a node is held on the way back only")?,
        }
        if self.gives_back(effect) {
            rule(
                !self.unproven,
                "(5) no resume after a disruptive step unless a verification passed after it",
            )?;
        }
        if self.step_of(effect).is_some_and(|s| class(s).needs_verification()) {
            rule(self.intents(effect) == 1, "a disruptive step is begun once at most")?;
            self.unproven = true;
        }
        self.set(effect, Verdict::Open);
        Ok(())
    }

    /// Says whether a step of the way back takes back something that stands, or may stand.
    fn is_due(&self, undo: usize) -> bool {
        let (steps, rollback) = (&self.plan.steps, &self.plan.rollback);
        let name = &rollback[undo].action;
        let mut due = false;
        for (i, s) in steps.iter().enumerate() {
            let e = Effect::Step(i);
            if s.spec().is_some_and(|s| matches!(s.undo, Undo::Action(u) if u == name)) {
                due |= self.may_be_done(e);
            }
            if s.action == *name && self.verdict(e) == Some(Verdict::Applied) {
                due = false;
            }
        }
        let again = (0..undo)
            .any(|j| rollback[j].action == *name && self.verdict(Effect::Undo(j)) == Some(Verdict::Applied));
        due && !again
    }

    fn lock_may_be_ours(&self) -> bool {
        self.may_be_done(Effect::Lock)
    }

    fn set(&mut self, effect: Effect, verdict: Verdict) {
        if let Some(b) = self.books.get_mut(&effect) {
            b.verdict = verdict;
        }
    }

    fn applied(&mut self, effect: Effect) {
        self.set(effect, Verdict::Applied);
        if self.takes_out(effect) {
            self.out = true;
        }
        if self.gives_back(effect) {
            self.out = false;
        }
        if self.step_of(effect).and_then(PlannedStep::spec).is_some_and(|s| s.verifies) {
            self.unproven = false;
        }
    }

    /// Somebody stepped in after we began: what we did may stand.
    fn somebody(&mut self, effect: Effect) {
        self.set(effect, Verdict::Maybe);
        self.foreign |= effect != Effect::Unlock;
    }

    fn ends(&self, end: End, slipped: bool) -> Broken {
        self.one_at_a_time()?;
        let (steps, ends) = (&self.plan.steps, self.plan.ends);
        let all = (0..steps.len()).all(|i| self.verdict(Effect::Step(i)) == Some(Verdict::Applied));
        let mutated =
            steps.iter().enumerate().any(|(i, s)| class(s).mutates() && self.may_be_done(Effect::Step(i)));
        if self.lock_may_be_ours() {
            let tried = self.books.contains_key(&Effect::Unlock);
            rule(
                tried,
                "a lock that was, or may have been, taken is given back or the attempt is on record",
            )?;
        }
        if self.foreign {
            rule(end == End::HandedOver, "(4) somebody else's change hands the run over")?;
        }
        if self.cancelled && !slipped && !all && !self.foreign {
            let fits = if mutated || self.rolling_back {
                matches!(end, End::RolledBack | End::Held | End::Stuck)
            } else {
                // A run that had ended its forward way before the cancel may say why instead.
                matches!(end, End::Cancelled | End::Rejected)
            };
            rule(fits, "a cancel before any change ends cancelled, one after it goes back")?;
        }
        match end {
            End::Succeeded => {
                rule(self.started && all && !self.rolling_back, "succeeded: every step was done, in order")?;
                rule(
                    !self.unproven || ends == Ends::Drained && self.out,
                    "(5) succeeded: proven healthy, or drained on purpose",
                )
            }
            End::Rejected | End::Cancelled | End::Shadowed => {
                rule(end != End::Cancelled || self.cancelled, "only a person cancels")?;
                rule(
                    !mutated,
                    "a run that changed, or may have changed, the node cannot end as if it had not",
                )
            }
            End::RolledBack => {
                rule(self.rolling_back, "rolled back: the way back was begun")?;
                rule(!self.out, "(6) rolled back: no drain of ours is, or may be, left")?;
                rule(!self.unproven, "(5) rolled back: not after a disruptive step without proof")
            }
            End::Held => {
                let held = self.verdict(Effect::Hold) == Some(Verdict::Applied);
                rule(held && self.out, "(6) held: our reason is on the drained node")
            }
            End::HandedOver => rule(self.foreign, "handed over: somebody else's change is on record"),
            End::Stuck => {
                let tried = self.books.contains_key(&Effect::Hold);
                rule(
                    tried && self.verdict(Effect::Hold) != Some(Verdict::Applied),
                    "stuck: holding was tried in vain",
                )
            }
        }
    }
}

/// The class of a step: the catalogue decides, and a plan cannot make it milder.
fn class(step: &PlannedStep) -> EffectClass {
    step.spec().map_or(step.effect, |s| s.effect.max(step.effect))
}
