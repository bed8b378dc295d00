//! The fold: events in, state of the run out. An event that may not follow is a typed error.

use super::event::{Actor, ActorKind, Effect, End, Event, EventKind, Outcome, OutcomeKind, Resolution};
use super::load::Load;
use super::shadow::{self, Rehearsal};
use crate::action::{EffectClass, ServiceEffect, Undo};
use crate::digest::Digest;
use crate::model::{Reason, RunId};
use crate::ownership::NodeMark;
use crate::plan::{FixedPlan, MAX_ATTEMPTS, PlannedStep};
use crate::playbook::Ends;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Attempts to take the lock, to write why a node is held, and to give the lock back.
const MARK_ATTEMPTS: u32 = 4;

/// Why a node stays out of service after a disruptive step (rule 5).
pub(super) const UNPROVEN: &str = "no verification newer than the last disruptive step has passed";

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A plan exists.
    Proposed,
    /// People are asked.
    AwaitingApproval,
    /// Enough people said yes.
    Approved,
    /// Steps are carried out.
    Running,
    /// The verifying step is carried out.
    Verifying,
    /// The way back is carried out.
    RollingBack,
    /// Over.
    Ended(End),
}

impl Status {
    /// Says whether the run is over.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Ended(_))
    }

    /// Returns the stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Approved => "approved",
            Self::Running => "running",
            Self::Verifying => "verifying",
            Self::RollingBack => "rolling_back",
            Self::Ended(e) => e.as_str(),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An event that may not follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {seq} ({event}) of run {run} may not follow: {why}")]
pub struct IllegalEvent {
    /// The run.
    pub run: RunId,
    /// Place of the event.
    pub seq: u64,
    /// Its word.
    pub event: &'static str,
    /// Why not.
    pub why: String,
}

/// What is known of one effect.
#[derive(Debug, Clone, PartialEq)]
pub enum EffectState {
    /// An intent is on record and nothing else: after a crash this is ambiguous (rule 1).
    Open {
        /// Which attempt.
        attempt: u32,
    },
    /// Done.
    Applied,
    /// Not done; another attempt is due.
    Retry {
        /// Number of the attempt to come.
        attempt: u32,
        /// Not before.
        not_before: Timestamp,
    },
    /// Not done, and the engine has yet to say what follows.
    Failed {
        /// Which attempt.
        attempt: u32,
        /// Whether another attempt may help.
        transient: bool,
        /// Why.
        why: String,
    },
    /// Nobody knows: to be probed.
    Ambiguous {
        /// Which attempt.
        attempt: u32,
    },
    /// Probed, cannot be told, must not be repeated.
    Unclear {
        /// Why.
        why: String,
    },
    /// Somebody else changed the node.
    Foreign {
        /// What they changed.
        why: String,
        /// Whether the attempt had begun, so that what we did may stand.
        begun: bool,
    },
}

impl EffectState {
    /// Says whether nobody knows yet what came of it: it has to be probed before anything else is begun.
    fn is_unresolved(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::Ambiguous { .. })
    }

    /// Says whether it was done, or may have been.
    fn may_be_done(&self) -> bool {
        match self {
            Self::Applied | Self::Open { .. } | Self::Ambiguous { .. } | Self::Unclear { .. } => true,
            Self::Foreign { begun, .. } => *begun,
            Self::Failed { .. } | Self::Retry { .. } => false,
        }
    }
}

/// The state of a run, derived from its events and nothing else.
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    /// The run.
    pub run: RunId,
    /// Number of events folded.
    pub seq: u64,
    /// The plan.
    pub plan: FixedPlan,
    /// Its digest.
    pub digest: Digest,
    /// Where it stands.
    pub status: Status,
    /// People who said yes to this digest, with the time at which the yes is void.
    pub approvals: BTreeMap<String, Timestamp>,
    /// Tickets by which a yes was given; each counts once, also after its approval was voided.
    pub tickets: BTreeSet<String>,
    /// When the request for approval is void.
    pub approval_expires_at: Option<Timestamp>,
    /// What is known of each effect.
    pub effects: BTreeMap<Effect, EffectState>,
    /// Data that finished steps left, by effect.
    pub data: Arc<BTreeMap<Effect, Load>>,
    /// What the last intent of an effect left for a probe.
    pub contexts: Arc<BTreeMap<Effect, Load>>,
    /// The node as the run last saw it.
    pub last_seen: Option<NodeMark>,
    /// The reason we left and its user and time, as read back right after the drain.
    pub our_drain: Option<Reason>,
    /// Whether a disruptive step was begun.
    pub disrupted: bool,
    /// Whether a verification passed after the last disruptive step.
    pub verified: bool,
    /// When the last effect that changes something was begun: older facts are unknown.
    pub last_mutation_at: Option<Timestamp>,
    /// When the last disruptive step was begun, or came out: what the node's tools said before is unknown now.
    pub last_disruption_at: Option<Timestamp>,
    /// In shadow, what each step would have come to so far.
    pub rehearsed: BTreeMap<Effect, Rehearsal>,
    /// Who did not want it, where that is why it ended.
    pub refusal: Option<Refusal>,
    /// What it waits for before it may go on, and since when; gone as soon as something is begun.
    pub deferred: Option<Deferral>,
    /// Somebody asked to stop.
    pub cancel: Option<String>,
    /// Why the way back was begun.
    pub rollback_why: Option<String>,
    /// Last word about why the run stands where it stands.
    pub why: String,
    /// When it was proposed.
    pub proposed_at: Timestamp,
    /// When its last event was written.
    pub last_event_at: Timestamp,
}

/// Why a plan that nobody began is not wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody said no: a person, or an engine that took its own plan back.
    By(Actor),
    /// Nobody said yes in time.
    Nobody,
}

/// A run that may not go on yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Deferral {
    /// Since when, whatever the reasons were meanwhile.
    pub since: Timestamp,
    /// The last reason.
    pub why: String,
}

/// Folds all events of a run.
pub fn fold(events: &[Event]) -> Result<RunState, IllegalEvent> {
    let (first, rest) = events.split_first().ok_or_else(|| IllegalEvent {
        run: RunId::unknown(),
        seq: 0,
        event: "nothing",
        why: "a run has at least one event".to_owned(),
    })?;
    let mut state = RunState::begin(first)?;
    for e in rest {
        state.apply(e)?;
    }
    Ok(state)
}

impl RunState {
    /// Begins with the first event, which must be `proposed`.
    pub fn begin(event: &Event) -> Result<Self, IllegalEvent> {
        let illegal = |why: &str| IllegalEvent {
            run: event.run.clone(),
            seq: event.seq,
            event: event.kind.word(),
            why: why.to_owned(),
        };
        let EventKind::Proposed { plan, digest } = &event.kind else {
            return Err(illegal("a run begins with `proposed`"));
        };
        if event.seq != 1 {
            return Err(illegal("the first event has number 1"));
        }
        if plan.run != event.run {
            return Err(illegal("the plan names another run"));
        }
        if plan.digest().ok().as_ref() != Some(digest) {
            return Err(illegal("the digest is not the plan's"));
        }
        Ok(Self {
            run: event.run.clone(),
            seq: 1,
            plan: plan.clone(),
            digest: digest.clone(),
            status: Status::Proposed,
            approvals: BTreeMap::new(),
            tickets: BTreeSet::new(),
            approval_expires_at: None,
            effects: BTreeMap::new(),
            data: Arc::default(),
            contexts: Arc::default(),
            last_seen: plan.observed.clone(),
            our_drain: None,
            disrupted: false,
            verified: false,
            last_mutation_at: None,
            last_disruption_at: None,
            rehearsed: BTreeMap::new(),
            refusal: None,
            deferred: None,
            cancel: None,
            rollback_why: None,
            why: "a plan was made".to_owned(),
            proposed_at: event.at,
            last_event_at: event.at,
        })
    }

    /// Returns the step behind a forward or backward effect.
    pub fn step_of(&self, effect: Effect) -> Option<&PlannedStep> {
        match effect {
            Effect::Step(i) => self.plan.steps.get(i),
            Effect::Undo(i) => self.plan.rollback.get(i),
            Effect::Lock | Effect::Hold | Effect::Unlock => None,
        }
    }

    /// Says whether anything outside the journal was changed, the lock excepted; what is not certain counts.
    pub fn has_mutated(&self) -> bool {
        let steps = self.plan.steps.iter().enumerate();
        steps.into_iter().any(|(i, step)| class_of(step).mutates() && self.may_be_done(Effect::Step(i)))
    }

    /// Says whether a step of the way back undoes something that stands, or may stand.
    pub fn undo_is_due(&self, undo: &PlannedStep) -> bool {
        let mut due = false;
        for (i, step) in self.plan.steps.iter().enumerate() {
            let undone_by_it =
                step.spec().is_some_and(|s| matches!(s.undo, Undo::Action(name) if name == undo.action));
            due |= undone_by_it && self.may_be_done(Effect::Step(i));
            // The forward way has taken it back itself.
            due &= step.action != undo.action || !self.is_applied(Effect::Step(i));
        }
        due
    }

    /// Says whether a step of the way back is due and no earlier one has done the same.
    pub(super) fn undo_is_left(&self, index: usize) -> bool {
        let rollback = &self.plan.rollback;
        rollback.get(index).is_some_and(|undo| {
            let again =
                |(j, r): (usize, &PlannedStep)| r.action == undo.action && self.is_applied(Effect::Undo(j));
            self.undo_is_due(undo) && !rollback.iter().enumerate().take(index).any(again)
        })
    }

    /// Says whether the node is, or may be, out of service by this run.
    pub fn may_be_out_of_service(&self) -> bool {
        let steps = (0..self.plan.steps.len()).map(Effect::Step);
        let undos = (0..self.plan.rollback.len()).map(Effect::Undo);
        let mut out = false;
        for effect in steps.chain(undos) {
            match self.service_of(effect) {
                ServiceEffect::TakesOut => out |= self.may_be_done(effect),
                ServiceEffect::GivesBack => out &= !self.is_applied(effect),
                ServiceEffect::None => {}
            }
        }
        out || self.may_be_done(Effect::Hold)
    }

    /// Says whether a disruptive step was begun and no verification passed since (rule 5).
    pub fn is_unproven(&self) -> bool {
        self.disrupted && !self.verified
    }

    /// Returns how many attempts an effect may take, the first included. A disruptive step is never repeated.
    pub fn attempts_of(&self, effect: Effect) -> u32 {
        match self.step_of(effect) {
            None => MARK_ATTEMPTS,
            Some(step) if class_of(step).needs_verification() => 1,
            Some(step) => step.attempts.clamp(1, MAX_ATTEMPTS),
        }
    }

    /// Says why an effect that gives the node back may not be begun: rule 5.
    pub(super) fn forbids_return(&self, effect: Effect) -> Option<&'static str> {
        (self.is_unproven() && self.service_of(effect) == ServiceEffect::GivesBack).then_some(UNPROVEN)
    }

    /// Says whether every step of the plan is done.
    pub(super) fn all_done(&self) -> bool {
        (0..self.plan.steps.len()).all(|i| self.is_applied(Effect::Step(i)))
    }

    /// Says whether the node is proven healthy as far as it must be, or left drained on purpose.
    pub(super) fn is_fit_to_end(&self) -> bool {
        !self.is_unproven() || (self.plan.ends == Ends::Drained && self.may_be_out_of_service())
    }

    fn is_applied(&self, effect: Effect) -> bool {
        self.effects.get(&effect) == Some(&EffectState::Applied)
    }

    pub(super) fn may_be_done(&self, effect: Effect) -> bool {
        self.effects.get(&effect).is_some_and(EffectState::may_be_done)
    }

    fn service_of(&self, effect: Effect) -> ServiceEffect {
        self.step_of(effect).and_then(PlannedStep::spec).map_or(ServiceEffect::None, |s| s.service)
    }

    /// Tells of somebody else's change that ends the run. A reservation of ours that somebody deleted does not: it
    /// is given back as wished.
    pub(super) fn foreign(&self) -> Option<&str> {
        self.effects.iter().find_map(|(effect, s)| match s {
            EffectState::Foreign { why, .. } if *effect != Effect::Unlock => Some(why.as_str()),
            _ => None,
        })
    }

    /// Counts the people whose yes holds at this time.
    pub fn valid_approvals(&self, now: Timestamp) -> u8 {
        u8::try_from(self.approvals.values().filter(|e| **e > now).count()).unwrap_or(u8::MAX)
    }

    /// Folds one more event.
    pub fn apply(&mut self, event: &Event) -> Result<(), IllegalEvent> {
        let illegal = |why: String| IllegalEvent {
            run: event.run.clone(),
            seq: event.seq,
            event: event.kind.word(),
            why,
        };
        if event.run != self.run {
            return Err(illegal(format!("it belongs to another run than {}", self.run)));
        }
        if event.seq != self.seq + 1 {
            return Err(illegal(format!("number {} was due", self.seq + 1)));
        }
        if self.status.is_terminal() && !matches!(event.kind, EventKind::Noted { .. }) {
            return Err(illegal(format!("the run is over: {}", self.status)));
        }
        self.apply_kind(&event.kind, event.at).map_err(illegal)?;
        self.seq = event.seq;
        self.last_event_at = event.at;
        Ok(())
    }

    fn apply_kind(&mut self, kind: &EventKind, at: Timestamp) -> Result<(), String> {
        shadow::admits(self, kind)?;
        match kind {
            EventKind::Proposed { .. } => return Err("the run has begun already".to_owned()),
            EventKind::ApprovalRequested { expires_at, .. } => {
                self.need(&[Status::Proposed])?;
                self.status = Status::AwaitingApproval;
                self.approval_expires_at = Some(*expires_at);
                self.why = "people are asked".to_owned();
            }
            EventKind::Approved { by, digest, expires_at, ticket } => {
                self.need(&[Status::AwaitingApproval])?;
                if by.kind != ActorKind::Person || by.name.trim().is_empty() {
                    return Err("only a person with a name can approve".to_owned());
                }
                if *digest != self.digest {
                    return Err("the approval names another plan".to_owned());
                }
                if self.approvals.get(&by.name).is_some_and(|until| *until > at) {
                    return Err(format!("{by} has said yes already: another person is needed"));
                }
                let initiator = &self.plan.initiator;
                if initiator.kind == ActorKind::Program
                    && initiator.on_behalf_of.as_deref() == Some(by.name.as_str())
                    && self.plan.people() > 1
                {
                    return Err(format!("{initiator} speaks for {by}: two other people are needed"));
                }
                if let Some(nonce) = ticket
                    && !self.tickets.insert(nonce.clone())
                {
                    return Err("its ticket was used before".to_owned());
                }
                self.approvals.insert(by.name.clone(), *expires_at);
                if self.valid_approvals(at) >= self.plan.people() {
                    self.status = Status::Approved;
                }
                self.why = format!("approved by {by}");
            }
            EventKind::ApprovalVoided { why } => {
                self.need(&[Status::AwaitingApproval, Status::Approved])?;
                self.approvals.clear();
                self.deferred = None;
                self.status = Status::AwaitingApproval;
                self.why.clone_from(why);
            }
            EventKind::Started { engine } => {
                let needs_people = self.plan.people() > 0;
                self.need(if needs_people {
                    &[Status::Approved]
                } else {
                    &[Status::Proposed, Status::Approved]
                })?;
                if self.valid_approvals(at) < self.plan.people() {
                    return Err("the approval has expired (rule 11)".to_owned());
                }
                self.status = Status::Running;
                self.deferred = None;
                self.why = format!("started by {engine}");
            }
            EventKind::Recovered { why, .. } => self.why.clone_from(why),
            EventKind::Deferred { why, .. } => {
                self.need(&[Status::Proposed, Status::Approved, Status::Running, Status::Verifying])?;
                self.settled()?;
                let since = self.deferred.as_ref().map_or(at, |d| d.since);
                self.deferred = Some(Deferral { since, why: why.clone() });
                self.why.clone_from(why);
            }
            EventKind::Rehearsed { effect, guard, would, .. } => {
                let (passed, why, would) = (guard.passed, guard.why.clone(), would.clone());
                self.why.clone_from(&why);
                self.rehearsed.insert(*effect, Rehearsal { passed, why, would });
            }
            EventKind::CancelRequested { by, why } => {
                self.cancel = Some(format!("cancelled by {by}: {why}"));
            }
            EventKind::Noted { text } => {
                if !self.status.is_terminal() {
                    self.why.clone_from(text);
                }
            }
            EventKind::RollbackStarted { why } => {
                if !matches!(self.status, Status::Running | Status::Verifying) {
                    return Err(format!("a run that is {} has no way back to begin", self.status));
                }
                self.settled()?;
                if self.foreign().is_some() {
                    return Err(
                        "somebody else changed the node: the run can only be handed over (rule 4)".to_owned()
                    );
                }
                self.status = Status::RollingBack;
                self.rollback_why = Some(why.clone());
                self.why.clone_from(why);
            }
            EventKind::Ended { end, why, by, .. } => {
                self.may_end(*end)?;
                let unanswered = self.status == Status::AwaitingApproval
                    && self.approval_expires_at.is_some_and(|t| t <= at)
                    && *end == End::Rejected;
                self.refusal = match by {
                    Some(actor) => Some(Refusal::By(actor.clone())),
                    None => unanswered.then_some(Refusal::Nobody),
                };
                self.status = Status::Ended(*end);
                self.why.clone_from(why);
            }
            EventKind::Intent { effect, attempt, guard, before, context, .. } => {
                if !guard.passed {
                    return Err("its guard did not pass".to_owned());
                }
                if self.may_attempt(*effect)? != *attempt {
                    return Err(format!("attempt {attempt} is not the next one"));
                }
                if let Some(why) = self.forbids_return(*effect) {
                    return Err(why.to_owned());
                }
                self.intend(*effect, *attempt, at);
                Arc::make_mut(&mut self.contexts).insert(*effect, context.clone());
                if before.is_some() {
                    self.last_seen.clone_from(before);
                }
            }
            EventKind::Refused { effect, guard, foreign, transient } => {
                if guard.passed {
                    return Err("the guard passed".to_owned());
                }
                let attempt = self.may_attempt(*effect)?;
                let state = if *foreign {
                    EffectState::Foreign { why: guard.why.clone(), begun: false }
                } else {
                    EffectState::Failed { attempt, transient: *transient, why: guard.why.clone() }
                };
                self.effects.insert(*effect, state);
                self.why.clone_from(&guard.why);
            }
            EventKind::Finished { effect, attempt, outcome } => {
                match self.effects.get(effect) {
                    Some(EffectState::Open { attempt: a }) if a == attempt => {}
                    _ => {
                        return Err(format!(
                            "attempt {attempt} of it was never begun, or has come out already"
                        ));
                    }
                }
                self.finish(*effect, *attempt, outcome);
                self.disturbed(*effect, at);
            }
            EventKind::Resolved { effect, attempt, resolution, why, after, data } => {
                match self.effects.get(effect) {
                    Some(EffectState::Open { attempt: a } | EffectState::Ambiguous { attempt: a })
                        if a == attempt => {}
                    _ => return Err(format!("attempt {attempt} of it is not ambiguous")),
                }
                let outcome = Outcome {
                    kind: OutcomeKind::Succeeded,
                    why: why.clone(),
                    after: after.clone(),
                    data: data.clone(),
                };
                match resolution {
                    Resolution::Applied => self.finish(*effect, *attempt, &outcome),
                    Resolution::NotApplied => {
                        let state =
                            EffectState::Failed { attempt: *attempt, transient: true, why: why.clone() };
                        self.effects.insert(*effect, state);
                    }
                    Resolution::Unclear => {
                        self.effects.insert(*effect, EffectState::Unclear { why: why.clone() });
                    }
                    Resolution::Foreign => {
                        self.effects.insert(*effect, EffectState::Foreign { why: why.clone(), begun: true });
                    }
                }
                self.disturbed(*effect, at);
                self.why.clone_from(why);
            }
            EventKind::RetryScheduled { effect, attempt, not_before, why } => {
                let Some(EffectState::Failed { attempt: a, transient: true, .. }) = self.effects.get(effect)
                else {
                    return Err("it has not failed in a way that another attempt may help".to_owned());
                };
                if a.checked_add(1) != Some(*attempt) {
                    return Err(format!("attempt {a} was the last one"));
                }
                if *attempt > self.attempts_of(*effect) {
                    return Err(format!("{} attempts are allowed (rule 13)", self.attempts_of(*effect)));
                }
                let state = EffectState::Retry { attempt: *attempt, not_before: *not_before };
                self.effects.insert(*effect, state);
                self.why.clone_from(why);
            }
        }
        Ok(())
    }

    fn need(&self, allowed: &[Status]) -> Result<(), String> {
        if allowed.contains(&self.status) { Ok(()) } else { Err(format!("the run is {}", self.status)) }
    }

    fn next_attempt(&self, effect: Effect) -> Result<u32, String> {
        match self.effects.get(&effect) {
            None => Ok(1),
            Some(EffectState::Retry { attempt, .. }) => Ok(*attempt),
            Some(_) => Err("it was begun already".to_owned()),
        }
    }

    /// Says whether everything that was begun has come out.
    fn settled(&self) -> Result<(), String> {
        if self.effects.values().any(EffectState::is_unresolved) {
            return Err("another effect has not come out yet (rule 1)".to_owned());
        }
        Ok(())
    }

    /// Says which attempt of an effect is due, if it may be attempted, or refused by its guard, now.
    fn may_attempt(&self, effect: Effect) -> Result<u32, String> {
        if !matches!(self.status, Status::Running | Status::Verifying | Status::RollingBack) {
            return Err(format!("nothing may be attempted while the run is {}", self.status));
        }
        self.settled()?;
        if effect != Effect::Unlock && self.foreign().is_some() {
            return Err(
                "somebody else changed the node: nothing but our lock may be given back (rule 4)".to_owned()
            );
        }
        let going_back = self.status == Status::RollingBack;
        match effect {
            Effect::Lock if going_back => return Err("the run is on its way back".to_owned()),
            Effect::Lock => {}
            Effect::Unlock if !self.may_be_done(Effect::Lock) => {
                return Err("there is no lock to give back".to_owned());
            }
            Effect::Unlock => {}
            Effect::Step(_) | Effect::Undo(_) | Effect::Hold => {
                if !self.is_applied(Effect::Lock) || self.effects.contains_key(&Effect::Unlock) {
                    return Err("the node is not locked".to_owned());
                }
                if going_back == matches!(effect, Effect::Step(_)) {
                    let way = if going_back { "is" } else { "is not" };
                    return Err(format!("the run {way} on its way back"));
                }
            }
        }
        match effect {
            Effect::Step(_) | Effect::Undo(_) if self.step_of(effect).is_none() => {
                return Err("the plan has no such step".to_owned());
            }
            Effect::Step(i) if !(0..i).all(|j| self.is_applied(Effect::Step(j))) => {
                return Err("the step before it is not done".to_owned());
            }
            Effect::Undo(i) if !self.undo_is_left(i) => {
                return Err("there is nothing that it would take back".to_owned());
            }
            _ => {}
        }
        self.next_attempt(effect)
    }

    fn intend(&mut self, effect: Effect, attempt: u32, at: Timestamp) {
        self.deferred = None;
        let step = self.step_of(effect);
        let verifies = step.and_then(PlannedStep::spec).is_some_and(|s| s.verifies);
        let mutates = step.is_none_or(|s| class_of(s).mutates());
        if step.is_some_and(|s| class_of(s).needs_verification()) {
            self.disrupted = true;
            self.verified = false;
            self.last_disruption_at = Some(at);
        }
        if self.status != Status::RollingBack {
            self.status = if verifies { Status::Verifying } else { Status::Running };
        }
        if mutates {
            self.last_mutation_at = Some(at);
        }
        self.effects.insert(effect, EffectState::Open { attempt });
    }

    /// A disruptive step came out: what was seen while it went on is as old as what was seen before.
    fn disturbed(&mut self, effect: Effect, at: Timestamp) {
        if self.step_of(effect).is_some_and(|s| class_of(s).needs_verification()) {
            self.last_disruption_at = Some(at);
        }
    }

    fn finish(&mut self, effect: Effect, attempt: u32, outcome: &Outcome) {
        let spec = self.step_of(effect).and_then(PlannedStep::spec);
        if outcome.after.is_some() {
            self.last_seen.clone_from(&outcome.after);
        }
        if !outcome.data.is_none() {
            Arc::make_mut(&mut self.data).insert(effect, outcome.data.clone());
        }
        let state = match outcome.kind {
            OutcomeKind::Succeeded => EffectState::Applied,
            OutcomeKind::Transient => {
                EffectState::Failed { attempt, transient: true, why: outcome.why.clone() }
            }
            OutcomeKind::Permanent => {
                EffectState::Failed { attempt, transient: false, why: outcome.why.clone() }
            }
            OutcomeKind::Ambiguous => EffectState::Ambiguous { attempt },
            OutcomeKind::Foreign => EffectState::Foreign { why: outcome.why.clone(), begun: true },
        };
        let done = state == EffectState::Applied;
        let service = spec.map(|s| s.service);
        if done && (service == Some(ServiceEffect::TakesOut) || effect == Effect::Hold) {
            self.our_drain = outcome.after.as_ref().and_then(|m| m.reason.clone());
        }
        if done && service == Some(ServiceEffect::GivesBack) {
            self.our_drain = None;
        }
        if done && spec.is_some_and(|s| s.verifies) {
            self.verified = true;
        }
        self.effects.insert(effect, state);
        self.why.clone_from(&outcome.why);
    }

    /// Checks that an end is true: the journal cannot say `succeeded` of a run that did not.
    fn may_end(&self, end: End) -> Result<(), String> {
        self.settled()?;
        if self.may_be_done(Effect::Lock) && !self.effects.contains_key(&Effect::Unlock) {
            return Err("the lock has not been given back".to_owned());
        }
        let forward = matches!(self.status, Status::Running | Status::Verifying);
        let no = |why: &str| Err(why.to_owned());
        match end {
            End::Succeeded if !forward => Err(format!("the run is {}", self.status)),
            End::Succeeded if !self.is_applied(Effect::Lock) => no("the node was never locked"),
            End::Succeeded if !self.all_done() => no("not every step is done"),
            End::Succeeded if !self.is_fit_to_end() => no(UNPROVEN),
            End::Rejected | End::Cancelled | End::Shadowed if self.has_mutated() => {
                no("the node was changed: the run must go back, be held or be handed over")
            }
            End::RolledBack if self.status != Status::RollingBack => no("the run is not on its way back"),
            End::RolledBack if self.may_be_out_of_service() => {
                no("our drain is, or may be, still on the node")
            }
            End::RolledBack if self.is_unproven() => no(UNPROVEN),
            End::Held if !self.is_applied(Effect::Hold) => {
                no("the reason on the node does not say that it is held")
            }
            End::HandedOver if self.foreign().is_none() => no("nobody else changed the node"),
            _ => Ok(()),
        }
    }
}

/// The class of a step: the catalogue decides, and a plan cannot make it milder.
fn class_of(step: &PlannedStep) -> EffectClass {
    step.spec().map_or(step.effect, |s| s.effect.max(step.effect))
}
