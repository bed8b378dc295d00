//! Shadow: a run that is planned and judged like any other and changes nothing (rule 2). Its steps are looked at in their
//! order, what each would have sent is put on record, and it ends `shadowed`.
//!
//! ```text
//! proposed ─▶ rehearsed(step 1) ─▶ rehearsed(step 2) ─▶ ... ─▶ ended: shadowed
//! ```
//!
//! No approval is asked for, no lock is taken, no intent is written: the fold refuses all of them.

use super::event::{Effect, End, EventKind};
use super::fold::RunState;
use super::next::{Next, finish};
use crate::plan::PlannedStep;

/// What one step of a run in shadow would have come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rehearsal {
    /// Whether its guard passed on the node as it is.
    pub passed: bool,
    /// Why, or why not.
    pub why: String,
    /// What would have been sent.
    pub would: Vec<String>,
}

impl RunState {
    /// Says whether a step of a run in shadow comes after one that would have changed the node. Its guard is looked at on a
    /// node on which that change was not made, so a no of it stops nothing.
    pub fn is_past_first_change(&self, effect: Effect) -> bool {
        let Effect::Step(i) = effect else { return false };
        self.plan.steps.iter().take(i).any(mutates)
    }

    /// Finds the step at which a run in shadow would have stopped.
    fn stopped_at(&self) -> Option<(&PlannedStep, &Rehearsal)> {
        self.rehearsed.iter().find_map(|(effect, r)| {
            let stops = !r.passed && !self.is_past_first_change(*effect);
            stops.then(|| self.step_of(*effect).map(|s| (s, r))).flatten()
        })
    }

    /// Returns the step that is to be looked at next; `None` where all were, or where the run would have stopped.
    fn step_due(&self) -> Option<Effect> {
        if self.stopped_at().is_some() {
            return None;
        }
        (0..self.plan.steps.len()).map(Effect::Step).find(|e| !self.rehearsed.contains_key(e))
    }
}

fn mutates(step: &PlannedStep) -> bool {
    step.effect.mutates() || step.spec().is_none_or(|s| s.effect.mutates())
}

/// Refuses what may not follow because a run is in shadow, or because it is not.
pub(super) fn admits(state: &RunState, kind: &EventKind) -> Result<(), String> {
    let shadow = state.plan.is_shadow();
    match kind {
        EventKind::Rehearsed { .. } if !shadow => Err("only a run in shadow rehearses".to_owned()),
        EventKind::Rehearsed { effect, .. } if state.step_due() != Some(*effect) => {
            Err("another step is due to be looked at".to_owned())
        }
        EventKind::Ended { end: End::Shadowed, .. } if !shadow => {
            Err("only a run in shadow ends shadowed".to_owned())
        }
        EventKind::Ended { end: End::Shadowed, .. } if state.step_due().is_some() => {
            Err("not every step was looked at".to_owned())
        }
        EventKind::Ended { end: End::Shadowed | End::Rejected | End::Cancelled, .. }
        | EventKind::Proposed { .. }
        | EventKind::Rehearsed { .. }
        | EventKind::Recovered { .. }
        | EventKind::CancelRequested { .. }
        | EventKind::Noted { .. } => Ok(()),
        _ if shadow => Err("the run is in shadow and changes nothing (rule 2)".to_owned()),
        _ => Ok(()),
    }
}

/// Says what comes next in a run that is in shadow and not over.
pub(super) fn next(state: &RunState) -> Next {
    if state.cancel.is_some() {
        return finish(state, End::Cancelled);
    }
    if let Some(effect) = state.step_due() {
        return Next::Begin { effect, attempt: 1 };
    }
    let would: Vec<&str> =
        state.plan.steps.iter().filter(|s| mutates(s)).map(|s| s.action.as_str()).collect();
    let what = match state.stopped_at() {
        Some((step, r)) => format!("it would have stopped at {}: {}", step.action, r.why),
        None if would.is_empty() => "it has no step that would have".to_owned(),
        None => format!("it would have begun {}", would.join(", ")),
    };
    Next::Finish {
        end: End::Shadowed,
        why: format!("nothing was changed; {what}"),
        next_step: format!("a person decides about {}", state.plan.target.node),
    }
}
