//! The judge: the rules on what happened alone. It keeps its own books and shares no code with the fold; only the
//! catalogue of actions says what an action is.

use super::effects::{class, effect_code, gives_back, limit, step_of, takes_out};
use super::node::{Looked, leaves, looks_right};
use super::rule::{Broken, Holds, Rule, hold};
use super::world::{Mark, World};
use engine_core::action::Undo;
use engine_core::digest::Digest;
use engine_core::plan::{Plan, PlannedStep};
use engine_core::playbook::Ends;
use engine_core::run::{Effect, End, Event, EventKind, OutcomeKind, Resolution, RunState};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// What happened about one effect.
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

#[derive(Debug, Clone, Copy)]
struct Book {
    verdict: Verdict,
    /// Attempts that were begun or refused.
    attempts: u32,
    /// Attempts that were begun.
    intents: u32,
    /// A retry is on record that was not used yet.
    retry: bool,
}

/// How far a run is: each later phase has more behind it that can no longer matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Not started.
    Asking,
    /// Steps, or the way back.
    Going,
    /// The node is to be held; then the lock is given back.
    Holding,
    /// Nothing is left but to give the lock back and to end.
    Closing,
}

/// The books of one run.
#[derive(Debug, Clone)]
pub(super) struct Judge {
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
    approvals: BTreeMap<String, (Digest, Timestamp)>,
    /// Approvals that were voided.
    pub(super) voided: u8,
}

impl Judge {
    pub(super) fn new() -> Self {
        Self {
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

    /// How the run ended, if it has.
    pub(super) fn end(&self) -> Option<End> {
        self.end
    }

    /// How far the run is.
    pub(super) fn phase(&self) -> Phase {
        if self.foreign || self.books.contains_key(&Effect::Unlock) {
            Phase::Closing
        } else if self.books.contains_key(&Effect::Hold) {
            Phase::Holding
        } else if self.started {
            Phase::Going
        } else {
            Phase::Asking
        }
    }

    /// Says whether what was attempted of this effect can be attempted again; else only matters what became of it.
    pub(super) fn is_ahead(&self, effect: Effect, phase: Phase) -> bool {
        match phase {
            Phase::Closing => effect == Effect::Unlock,
            Phase::Holding => effect == Effect::Hold,
            Phase::Going => !(self.rolling_back && matches!(effect, Effect::Step(_))),
            Phase::Asking => true,
        }
    }

    /// Writes down everything that decides what may follow.
    pub(super) fn key(&self, plan: &Plan, phase: Phase, out: &mut Vec<u8>) {
        let flags = [self.out, self.unproven, self.foreign, self.rolling_back, self.started, self.cancelled];
        let bits = flags.iter().fold(0_u8, |bits, flag| bits << 1 | u8::from(*flag));
        out.extend([bits, u8::from(self.slips)]);
        match phase {
            Phase::Asking => out.push(self.voided),
            Phase::Going => {}
            // What was done before is behind the run: its sum decides how it may end.
            Phase::Holding | Phase::Closing => {
                let sums = [self.all_done(plan), self.mutated(plan), self.may_be_done(Effect::Lock)];
                let bits = sums.iter().fold(0_u8, |bits, flag| bits << 1 | u8::from(*flag));
                out.extend([bits, self.verdict(Effect::Hold).map_or(0xff, |v| v as u8)]);
            }
        }
        for (effect, b) in &self.books {
            let n = |n: u32| u8::try_from(n).unwrap_or(u8::MAX);
            let ahead = self.is_ahead(*effect, phase);
            let settled = !matches!(b.verdict, Verdict::Open | Verdict::Pending);
            if phase >= Phase::Holding && !ahead && settled {
                continue;
            }
            let (attempts, retry) = match b.verdict {
                Verdict::Applied | Verdict::Maybe => (0, 0),
                _ if !ahead => (0, 0),
                _ => (n(b.attempts), u8::from(b.retry)),
            };
            let verdict = if b.verdict == Verdict::Transient && !ahead { Verdict::Not } else { b.verdict };
            out.extend([effect_code(*effect), verdict as u8, attempts, retry]);
        }
    }

    fn all_done(&self, plan: &Plan) -> bool {
        (0..plan.steps.len()).all(|i| self.verdict(Effect::Step(i)) == Some(Verdict::Applied))
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

    fn mutated(&self, plan: &Plan) -> bool {
        let steps = plan.steps.iter().enumerate();
        steps.into_iter().any(|(i, s)| class(s).mutates() && self.may_be_done(Effect::Step(i)))
    }

    /// Compares the fold's own flags with the books.
    pub(super) fn agrees(&self, state: &RunState) -> Holds {
        hold(
            Rule::Unverified,
            (state.disrupted && !state.verified) == self.unproven,
            "the run's record of what is unproven differs from what happened",
        )?;
        hold(
            Rule::Promise,
            state.cancel.is_some() == self.cancelled,
            "the run's record of a cancel differs from what happened",
        )?;
        hold(
            Rule::WayBack,
            state.has_mutated() == self.mutated(&state.plan),
            "the run's record of whether the node was changed differs from what happened",
        )
    }

    /// Hears one event; `late` for a cancel that comes after the engine decided.
    pub(super) fn hear(
        &mut self,
        event: &Event,
        plan: &Plan,
        digest: &Digest,
        late: bool,
        looked: Option<Looked>,
        world: World,
    ) -> Holds {
        let noted = matches!(event.kind, EventKind::Noted { .. });
        hold(Rule::End, self.end.is_none() || noted, "something follows the end")?;
        let slipped = std::mem::take(&mut self.slips);
        match &event.kind {
            EventKind::CancelRequested { .. } => {
                self.cancelled = true;
                self.slips = late;
                Ok(())
            }
            EventKind::Approved { by, expires_at, digest, .. } => {
                self.approvals.insert(by.name.clone(), (digest.clone(), *expires_at));
                Ok(())
            }
            EventKind::Started { .. } => {
                self.started = true;
                let valid = |(of, until): &&(Digest, Timestamp)| of == digest && *until > event.at;
                let yes = self.approvals.values().filter(valid).count();
                hold(Rule::Promise, !self.cancelled || slipped, "the run is started after a cancel")?;
                hold(
                    Rule::Approval,
                    yes >= usize::from(plan.people()),
                    "the run is started without as many valid approvals as it needs",
                )
            }
            EventKind::ApprovalVoided { .. } => {
                self.voided = self.voided.saturating_add(1);
                self.approvals.clear();
                Ok(())
            }
            EventKind::RollbackStarted { .. } => {
                hold(
                    Rule::Person,
                    !self.foreign,
                    "somebody else changed the node, and the run goes back instead of handing over",
                )?;
                self.rolling_back = true;
                Ok(())
            }
            EventKind::Intent { effect, attempt, .. } => self
                .begins(*effect, *attempt, slipped, plan, looked, world)
                .map_err(|b| Broken { effect: Some(*effect), ..b }),
            EventKind::Refused { effect, foreign, transient, .. } => {
                self.one_at_a_time()?;
                self.may_be_looked_at(*effect)?;
                self.counts(*effect, None, plan)?;
                let verdict = if *transient { Verdict::Transient } else { Verdict::Not };
                self.set(*effect, verdict);
                self.foreign |= *foreign && *effect != Effect::Unlock;
                Ok(())
            }
            EventKind::Finished { effect, outcome, .. } => {
                let open = self.verdict(*effect) == Some(Verdict::Open);
                hold(Rule::Intent, open, "an outcome is on record without its intent before it")?;
                match outcome.kind {
                    OutcomeKind::Succeeded => self.applied(*effect, plan),
                    OutcomeKind::Transient => self.set(*effect, Verdict::Transient),
                    OutcomeKind::Permanent => self.set(*effect, Verdict::Not),
                    OutcomeKind::Ambiguous => self.set(*effect, Verdict::Pending),
                    OutcomeKind::Foreign => self.somebody(*effect),
                }
                Ok(())
            }
            EventKind::Resolved { effect, resolution, .. } => {
                let unknown = matches!(self.verdict(*effect), Some(Verdict::Open | Verdict::Pending));
                hold(Rule::Intent, unknown, "something is probed that is known")?;
                match resolution {
                    Resolution::Applied => self.applied(*effect, plan),
                    Resolution::NotApplied => self.set(*effect, Verdict::Transient),
                    Resolution::Unclear => {
                        self.set(*effect, Verdict::Maybe);
                        self.out |= takes_out(plan, *effect);
                    }
                    Resolution::Foreign => self.somebody(*effect),
                }
                Ok(())
            }
            EventKind::RetryScheduled { effect, attempt, not_before, .. } => {
                let may_help = self.verdict(*effect) == Some(Verdict::Transient);
                hold(Rule::End, may_help, "something is tried again that another attempt cannot help")?;
                let allowed = *attempt <= limit(plan, *effect);
                hold(Rule::End, allowed, "an attempt is planned beyond the number that is allowed")?;
                hold(Rule::End, *not_before > event.at, "a retry does not wait")?;
                if let Some(b) = self.books.get_mut(effect) {
                    b.retry = true;
                }
                Ok(())
            }
            EventKind::Ended { end, .. } => {
                self.end = Some(*end);
                self.ends(*end, slipped, plan)?;
                leaves(*end, plan, world)
            }
            _ => Ok(()),
        }
    }

    /// Hears that an effect took place in the world, whether anybody knows it or not.
    pub(super) fn acts(&self, effect: Effect, plan: &Plan, world: World) -> Holds {
        let theirs = world.meddled.is_some() || world.drained && world.reason == Mark::Before;
        let broken = |b: Broken| Broken { effect: Some(effect), ..b };
        if takes_out(plan, effect) {
            hold(Rule::Person, !theirs, "what a person left on the node is overwritten").map_err(broken)?;
        }
        if gives_back(plan, effect) {
            hold(
                Rule::Person,
                !theirs && world.is_drained_by_us(),
                "a drain is lifted that is not, or not only, this run's",
            )
            .map_err(broken)?;
            hold(Rule::Unverified, !self.unproven, "the node returns to service unverified")
                .map_err(broken)?;
        }
        Ok(())
    }

    fn one_at_a_time(&self) -> Holds {
        let unknown = self.books.values().any(|b| matches!(b.verdict, Verdict::Open | Verdict::Pending));
        hold(
            Rule::Intent,
            !unknown,
            "something else is begun while nobody knows what came of the last intent: it must be probed first",
        )
    }

    /// What must hold before an effect is even looked at.
    fn may_be_looked_at(&self, effect: Effect) -> Holds {
        if matches!(effect, Effect::Lock | Effect::Unlock) {
            return Ok(());
        }
        let locked = self.verdict(Effect::Lock) == Some(Verdict::Applied);
        hold(Rule::Lock, locked, "the node is not locked")?;
        let unlocking = self.books.contains_key(&Effect::Unlock);
        hold(Rule::Lock, !unlocking, "the lock is being given back already")?;
        let Effect::Step(i) = effect else { return Ok(()) };
        let before = (0..i).all(|j| self.verdict(Effect::Step(j)) == Some(Verdict::Applied));
        hold(Rule::Guard, before, "the step before it is not done")
    }

    fn counts(&mut self, effect: Effect, attempt: Option<u32>, plan: &Plan) -> Holds {
        let limit = limit(plan, effect);
        let b = self.books.entry(effect).or_insert(Book {
            verdict: Verdict::Not,
            attempts: 0,
            intents: 0,
            retry: true,
        });
        hold(Rule::End, b.retry, "it is attempted again without a retry on record")?;
        b.retry = false;
        b.attempts += 1;
        b.intents += u32::from(attempt.is_some());
        let b = *b;
        hold(Rule::End, attempt.is_none_or(|a| a == b.attempts), "attempts are counted with a gap")?;
        hold(Rule::End, b.attempts <= limit, "it is attempted more often than allowed")
    }

    fn begins(
        &mut self,
        effect: Effect,
        attempt: u32,
        slipped: bool,
        plan: &Plan,
        looked: Option<Looked>,
        world: World,
    ) -> Holds {
        self.one_at_a_time()?;
        hold(Rule::Approval, self.started, "something is begun before the run is started")?;
        let first = !self.mutated(plan);
        let step = step_of(plan, effect);
        let disruptive = step.is_some_and(|s| class(s).needs_verification());
        if disruptive {
            let intents = self.books.get(&effect).map_or(0, |b| b.intents);
            hold(Rule::End, intents == 0, "what disturbs the hardware is begun a second time")?;
        }
        self.counts(effect, Some(attempt), plan)?;
        let giving_back = effect == Effect::Unlock;
        hold(
            Rule::Person,
            !self.foreign || giving_back,
            "somebody else changed the node, and the run does more than give its lock back",
        )?;
        self.may_be_looked_at(effect)?;
        match effect {
            Effect::Lock => {
                hold(Rule::Promise, !self.cancelled || slipped, "a lock is taken after a cancel")?;
            }
            Effect::Unlock => {
                hold(Rule::Lock, self.may_be_done(Effect::Lock), "a lock is given back that is not ours")?;
            }
            Effect::Step(_) => {
                hold(Rule::WayBack, !self.rolling_back, "a forward step is begun on the way back")?;
                hold(Rule::Promise, !self.cancelled || slipped, "a forward step is begun after a cancel")?;
            }
            Effect::Undo(i) => {
                hold(Rule::WayBack, self.rolling_back, "something is undone and no way back was begun")?;
                hold(Rule::WayBack, self.is_due(i, plan), "something is undone that was never done")?;
            }
            Effect::Hold => {
                hold(Rule::WayBack, self.rolling_back, "the node is held and no way back was begun")?;
            }
        }
        if let Some(looked) = looked.filter(|_| !giving_back) {
            looks_right(effect, looked, first, step, world)?;
        }
        if gives_back(plan, effect) {
            hold(
                Rule::Unverified,
                !self.unproven,
                "the node is given back, and no verification passed after the last disruptive step",
            )?;
        }
        self.unproven |= disruptive;
        self.set(effect, Verdict::Open);
        Ok(())
    }

    /// Says whether a step of the way back takes back something that stands, or may stand.
    fn is_due(&self, undo: usize, plan: &Plan) -> bool {
        let Some(name) = plan.rollback.get(undo).map(|s| &s.action) else { return false };
        let mut due = false;
        for (i, s) in plan.steps.iter().enumerate() {
            let e = Effect::Step(i);
            if s.spec().is_some_and(|s| matches!(s.undo, Undo::Action(u) if u == name)) {
                due |= self.may_be_done(e);
            }
            if s.action == *name && self.verdict(e) == Some(Verdict::Applied) {
                due = false;
            }
        }
        let again = plan
            .rollback
            .iter()
            .take(undo)
            .enumerate()
            .any(|(j, r)| r.action == *name && self.verdict(Effect::Undo(j)) == Some(Verdict::Applied));
        due && !again
    }

    fn set(&mut self, effect: Effect, verdict: Verdict) {
        if let Some(b) = self.books.get_mut(&effect) {
            b.verdict = verdict;
        }
    }

    fn applied(&mut self, effect: Effect, plan: &Plan) {
        self.set(effect, Verdict::Applied);
        self.out |= takes_out(plan, effect);
        self.out &= !gives_back(plan, effect);
        if step_of(plan, effect).and_then(PlannedStep::spec).is_some_and(|s| s.verifies) {
            self.unproven = false;
        }
    }

    /// Somebody stepped in after we began: what we did may stand.
    fn somebody(&mut self, effect: Effect) {
        self.set(effect, Verdict::Maybe);
        self.foreign |= effect != Effect::Unlock;
    }

    /// What the events must say for an end.
    fn ends(&self, end: End, slipped: bool, plan: &Plan) -> Holds {
        self.one_at_a_time()?;
        let all = self.all_done(plan);
        let mutated = self.mutated(plan);
        if self.may_be_done(Effect::Lock) {
            let tried = self.books.contains_key(&Effect::Unlock);
            hold(Rule::Lock, tried, "the run ends and its lock stays on the node")?;
        }
        if self.foreign {
            let fits = end == End::HandedOver;
            hold(Rule::Person, fits, "somebody else changed the node, and the run is not handed over")?;
        }
        if self.cancelled && !slipped && !all && !self.foreign {
            let fits = if mutated || self.rolling_back {
                matches!(end, End::RolledBack | End::Held | End::Stuck)
            } else {
                // A run that had ended its forward way before the cancel may say why instead.
                matches!(end, End::Cancelled | End::Rejected)
            };
            hold(Rule::Promise, fits, "a cancelled run neither ends cancelled nor goes back")?;
        }
        match end {
            End::Succeeded => {
                let done = self.started && all && !self.rolling_back;
                hold(Rule::Promise, done, "the run ends well and not every step is done")?;
                let fit = !self.unproven || plan.ends == Ends::Drained && self.out;
                hold(Rule::Unverified, fit, "the run ends well and the node is not proven healthy")
            }
            End::Rejected | End::Cancelled | End::Shadowed => {
                hold(
                    Rule::Promise,
                    end != End::Cancelled || self.cancelled,
                    "the run ends cancelled, and nobody cancelled",
                )?;
                let why = "the run changed, or may have changed, the node and ends as if it had not";
                hold(Rule::WayBack, !mutated, why)
            }
            End::RolledBack => {
                hold(Rule::WayBack, self.rolling_back, "rolled back without a way back")?;
                hold(Rule::WayBack, !self.out, "rolled back, and our drain is, or may be, left")?;
                hold(Rule::Unverified, !self.unproven, "rolled back after a disruptive step without proof")
            }
            End::Held => {
                let held = self.verdict(Effect::Hold) == Some(Verdict::Applied) && self.out;
                hold(Rule::WayBack, held, "held, and our reason is not on the drained node")
            }
            End::HandedOver => hold(Rule::Person, self.foreign, "handed over, and nobody changed the node"),
            End::Stuck => {
                let tried = self.books.contains_key(&Effect::Hold)
                    && self.verdict(Effect::Hold) != Some(Verdict::Applied);
                hold(Rule::WayBack, tried, "stuck, and holding the node was not tried in vain")
            }
        }
    }
}
