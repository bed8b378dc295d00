//! What comes next: a pure function of the run's state and the time.
//!
//! The executor does what this says and nothing else, so a restart after a crash decides exactly as the process
//! that died would have.

use super::event::{Effect, End, EventKind};
use super::fold::{EffectState, RunState, Status, UNPROVEN};
use jiff::{SignedDuration, Timestamp};

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Ask people.
    RequestApproval,
    /// People have been asked; nothing to do until they answer or the request expires.
    AwaitApproval,
    /// An approval has expired: ask again.
    VoidApproval(String),
    /// Begin to carry the plan out.
    Start,
    /// Check the guard of an effect, write the intent, do it, write the outcome.
    Begin {
        /// The effect.
        effect: Effect,
        /// Which attempt.
        attempt: u32,
    },
    /// Find out what became of an effect.
    Probe {
        /// The effect.
        effect: Effect,
        /// Which attempt.
        attempt: u32,
    },
    /// Write down that another attempt is due.
    ScheduleRetry {
        /// The effect.
        effect: Effect,
        /// Number of the attempt to come.
        attempt: u32,
        /// Not before.
        not_before: Timestamp,
        /// Why the last one failed.
        why: String,
    },
    /// Nothing before this time.
    WaitUntil(Timestamp),
    /// Begin the way back.
    StartRollback(String),
    /// Write the end.
    Finish {
        /// How.
        end: End,
        /// Why.
        why: String,
        /// What a person should do next.
        next_step: String,
    },
    /// The run is over.
    Over(End),
}

impl Next {
    /// Returns the event that this comes to, where it needs nothing but to be written: no look, no gate, nothing done.
    /// Such an event may share the commit of the one before it. People get `approval_wait` to answer.
    pub fn as_event(
        &self,
        state: &RunState,
        now: Timestamp,
        approval_wait: SignedDuration,
    ) -> Option<EventKind> {
        match self.clone() {
            Self::RequestApproval => {
                let expires_at = now.saturating_add(approval_wait).unwrap_or(Timestamp::MAX);
                Some(EventKind::ApprovalRequested { people: state.plan.people(), expires_at })
            }
            Self::VoidApproval(why) => Some(EventKind::ApprovalVoided { why }),
            Self::ScheduleRetry { effect, attempt, not_before, why } => {
                Some(EventKind::RetryScheduled { effect, attempt, not_before, why })
            }
            Self::StartRollback(why) => Some(EventKind::RollbackStarted { why }),
            Self::Finish { end, why, next_step } => Some(EventKind::Ended { end, why, next_step, by: None }),
            Self::AwaitApproval
            | Self::Start
            | Self::Begin { .. }
            | Self::Probe { .. }
            | Self::WaitUntil(_)
            | Self::Over(_) => None,
        }
    }
}

/// Says what comes next.
pub fn next(state: &RunState, now: Timestamp) -> Next {
    if let Status::Ended(end) = state.status {
        return Next::Over(end);
    }
    if state.plan.is_shadow() {
        return super::shadow::next(state);
    }
    if let Some((effect, attempt)) = unresolved(state) {
        return Next::Probe { effect, attempt };
    }
    match state.status {
        Status::Ended(end) => Next::Over(end),
        Status::Proposed if state.cancel.is_some() => finish(state, End::Cancelled),
        Status::Proposed if state.plan.people() == 0 => Next::Start,
        Status::Proposed => Next::RequestApproval,
        Status::AwaitingApproval if state.cancel.is_some() => finish(state, End::Cancelled),
        Status::AwaitingApproval => match state.approval_expires_at {
            Some(t) if t <= now => Next::Finish {
                end: End::Rejected,
                why: format!("nobody approved it before {t}"),
                next_step: "if it is still needed, start a new run: it is planned on fresh facts".to_owned(),
            },
            _ => Next::AwaitApproval,
        },
        Status::Approved if state.cancel.is_some() => finish(state, End::Cancelled),
        Status::Approved if state.valid_approvals(now) < state.plan.people() => {
            Next::VoidApproval("the approval has expired".to_owned())
        }
        Status::Approved => Next::Start,
        Status::Running | Status::Verifying => forward(state, now),
        Status::RollingBack => backward(state, now),
    }
}

fn unresolved(state: &RunState) -> Option<(Effect, u32)> {
    state.effects.iter().find_map(|(effect, s)| match s {
        EffectState::Open { attempt } | EffectState::Ambiguous { attempt } => Some((*effect, *attempt)),
        _ => None,
    })
}

fn forward(state: &RunState, now: Timestamp) -> Next {
    if let Some(why) = state.foreign() {
        return hand_over(state, now, why);
    }
    // Where nothing is left to stop, a cancel comes too late: the node is as the playbook promises.
    if let Some(why) = state.cancel.as_ref().filter(|_| !is_good(state)) {
        if state.has_mutated() {
            return Next::StartRollback(why.clone());
        }
        return unlock_then(state, now, || finish(state, End::Cancelled));
    }
    match state.effects.get(&Effect::Lock) {
        Some(EffectState::Applied) => {}
        other => {
            let rejected = |why: &str| Next::Finish {
                end: End::Rejected,
                why: format!("the lock on {} could not be taken: {why}", state.plan.target.node),
                next_step: "`slurmedic why NODE` tells who has the node".to_owned(),
            };
            return match attempt(state, Effect::Lock, other, now) {
                Ok(next) => next,
                Err(why) => unlock_then(state, now, || rejected(&why)),
            };
        }
    }
    for (i, step) in state.plan.steps.iter().enumerate() {
        let effect = Effect::Step(i);
        match state.effects.get(&effect) {
            Some(EffectState::Applied) => {}
            other => {
                return match attempt(state, effect, other, now) {
                    Ok(next) => next,
                    Err(why) if state.has_mutated() => Next::StartRollback(format!("{}: {why}", step.action)),
                    Err(why) => unlock_then(state, now, || Next::Finish {
                        end: End::Rejected,
                        why: format!("{}: {why}", step.action),
                        next_step: String::new(),
                    }),
                };
            }
        }
    }
    if !is_good(state) {
        return Next::StartRollback(UNPROVEN.to_owned());
    }
    unlock_then(state, now, || Next::Finish {
        end: End::Succeeded,
        why: "every step was done and read back".to_owned(),
        next_step: String::new(),
    })
}

fn backward(state: &RunState, now: Timestamp) -> Next {
    if let Some(why) = state.foreign() {
        return hand_over(state, now, why);
    }
    let mut held = None;
    for (i, step) in state.plan.rollback.iter().enumerate() {
        let effect = Effect::Undo(i);
        match state.effects.get(&effect) {
            Some(EffectState::Applied) => {}
            _ if !state.undo_is_left(i) => {}
            other => match attempt(state, effect, other, now) {
                Ok(next) => return next,
                Err(why) => {
                    held = Some(format!("{}: {why}", step.action));
                    break;
                }
            },
        }
    }
    let cause = state.rollback_why.clone().unwrap_or_default();
    if held.is_none() && state.is_unproven() {
        held = Some(UNPROVEN.to_owned());
    }
    if held.is_none() && state.may_be_out_of_service() {
        held = Some("the playbook has no way back for the drain".to_owned());
    }
    match held {
        None => unlock_then(state, now, || Next::Finish {
            end: End::RolledBack,
            why: cause.clone(),
            next_step: "the fault may still be there: `slurmedic show RUN` tells what stopped the run"
                .to_owned(),
        }),
        Some(why) => match state.effects.get(&Effect::Hold) {
            Some(EffectState::Applied) => unlock_then(state, now, || held_end(state, &cause, &why)),
            other => match attempt(state, Effect::Hold, other, now) {
                Ok(next) => next,
                Err(hold_why) => unlock_then(state, now, || Next::Finish {
                    end: End::Stuck,
                    why: format!("{cause}; {why}; and the node's reason could not be written: {hold_why}"),
                    next_step: format!(
                        "look at {0} now: `scontrol show node {0}`; it may still be in service",
                        state.plan.target.node
                    ),
                }),
            },
        },
    }
}

fn held_end(state: &RunState, cause: &str, why: &str) -> Next {
    let node = &state.plan.target.node;
    Next::Finish {
        end: End::Held,
        why: if cause.is_empty() { why.to_owned() } else { format!("{cause}; not given back: {why}") },
        next_step: format!(
            "{node} stays drained; repair and check it, then give it back by hand: scontrol update nodename={node} state=resume"
        ),
    }
}

fn hand_over(state: &RunState, now: Timestamp, why: &str) -> Next {
    unlock_then(state, now, || Next::Finish {
        end: End::HandedOver,
        why: format!("somebody else changed {}: {why}", state.plan.target.node),
        next_step: "nothing of theirs was touched; whoever changed it goes on by hand".to_owned(),
    })
}

pub(super) fn finish(state: &RunState, end: End) -> Next {
    let why = state.cancel.clone().unwrap_or_else(|| state.why.clone());
    Next::Finish { end, why, next_step: String::new() }
}

/// Gives the lock back first, where it was or may have been taken. A lock that cannot be given back ends by
/// itself, so that does not keep a run from ending.
fn unlock_then(state: &RunState, now: Timestamp, then: impl Fn() -> Next) -> Next {
    if !state.may_be_done(Effect::Lock) {
        return then();
    }
    match state.effects.get(&Effect::Unlock) {
        Some(EffectState::Applied | EffectState::Foreign { .. }) => then(),
        other => attempt(state, Effect::Unlock, other, now).unwrap_or_else(|_| then()),
    }
}

/// Says whether the run may end well: every step done, and the node proven or left drained on purpose.
fn is_good(state: &RunState) -> bool {
    let locked = state.effects.get(&Effect::Lock) == Some(&EffectState::Applied);
    locked && state.all_done() && state.is_fit_to_end()
}

/// Says how to go on with one effect that is not applied; `Err` when no attempt is left, with the last cause.
fn attempt(
    run: &RunState,
    effect: Effect,
    state: Option<&EffectState>,
    now: Timestamp,
) -> Result<Next, String> {
    if let Some(why) = run.forbids_return(effect) {
        return Err(why.to_owned());
    }
    match state {
        None => Ok(Next::Begin { effect, attempt: 1 }),
        Some(EffectState::Retry { not_before, .. }) if *not_before > now => Ok(Next::WaitUntil(*not_before)),
        Some(EffectState::Retry { attempt, .. }) => Ok(Next::Begin { effect, attempt: *attempt }),
        Some(EffectState::Failed { attempt, transient: true, why }) if *attempt < run.attempts_of(effect) => {
            Ok(Next::ScheduleRetry {
                effect,
                attempt: attempt + 1,
                not_before: now.saturating_add(backoff(*attempt)).unwrap_or(now),
                why: why.clone(),
            })
        }
        Some(
            EffectState::Failed { why, .. } | EffectState::Unclear { why } | EffectState::Foreign { why, .. },
        ) => Err(why.clone()),
        Some(EffectState::Open { attempt } | EffectState::Ambiguous { attempt }) => {
            Ok(Next::Probe { effect, attempt: *attempt })
        }
        Some(EffectState::Applied) => Err("it is done".to_owned()),
    }
}

fn backoff(attempt: u32) -> SignedDuration {
    SignedDuration::from_secs(1 << attempt.min(5))
}
