//! The judge: the rules on what happened alone. It keeps its own books and shares no code with the fold; only the
//! catalogue of actions says what an action is.
//!
//! The tests of the core have a judge that is much like it, in `run_machine`. They are two on purpose. The core cannot
//! know this crate; its judge hears the events of any plan, also of those that no playbook makes, and knows no node. This
//! one knows the node and what a person did to it. A mistake in one of them shows in the other's tests.

mod begins;
mod ends;

use super::effects::{class, effect_code, gives_back, limit, step_of, takes_out};
use super::node::{Looked, leaves};
use super::rule::{Broken, Holds, Rule, hold};
use super::world::{Mark, World};
use engine_core::digest::Digest;
use engine_core::plan::{Plan, PlannedStep};
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
}
