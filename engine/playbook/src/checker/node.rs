//! What must be true of the node itself, whatever the journal says.

use super::effects::class;
use super::rule::{Holds, Rule, hold};
use super::world::World;
use engine_core::condition::Truth;
use engine_core::plan::{Plan, PlannedStep};
use engine_core::playbook::Ends;
use engine_core::run::{Effect, End};

/// What the look before an intent showed in truth, whatever the engine made of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked {
    /// The preconditions, at the look.
    pub(super) preconditions: Truth,
    /// The step's own condition, at the look.
    pub(super) when: Truth,
    /// A job is on the node when the step begins.
    pub(super) job: bool,
    /// The node itself went silent or down since the run last saw it.
    pub(super) node_changed: bool,
}

/// Judges the look before an intent.
pub(super) fn looks_right(
    effect: Effect,
    looked: Looked,
    first: bool,
    step: Option<&PlannedStep>,
    world: World,
) -> Holds {
    let mutates = effect == Effect::Lock || step.is_some_and(|s| class(s).mutates());
    if mutates || effect == Effect::Hold {
        let meddled = world.meddled.is_some();
        hold(Rule::Person, !meddled, "a person changed the node, and the run goes on as if they had not")?;
    }
    if mutates {
        let same = !looked.node_changed;
        hold(Rule::Guard, same, "the node went silent or down, and the run goes on as if it had not")?;
    }
    if first && mutates && !matches!(effect, Effect::Undo(_)) {
        let known = looked.preconditions != Truth::Unknown;
        hold(Rule::Unknown, known, "a precondition is unknown, and the run begins to change the node")?;
        let holds = looked.preconditions == Truth::True;
        hold(Rule::Guard, holds, "a precondition does not hold, and the run begins to change the node")?;
    }
    hold(Rule::Unknown, looked.when != Truth::Unknown, "its `when` is unknown, and it is begun")?;
    hold(Rule::Guard, looked.when == Truth::True, "its `when` does not hold, and it is begun")?;
    let disturbs = step.is_some_and(|s| class(s).needs_verification());
    hold(Rule::Job, !(disturbs && looked.job), "it disturbs the hardware while a job is on the node")
}

/// What must be true of the node at an end, if no person meddled.
pub(super) fn leaves(end: End, plan: &Plan, world: World) -> Holds {
    if world.meddled.is_some() {
        return Ok(());
    }
    let ours = world.is_drained_by_us();
    match (end, plan.ends) {
        (End::Succeeded, Ends::InService) => {
            hold(Rule::Promise, !ours, "the run ends well, and the node is still drained by it")
        }
        (End::Succeeded, Ends::Drained) => {
            hold(Rule::Promise, ours, "the run ends well, and the node is not drained")
        }
        (End::Succeeded, Ends::Untouched) | (End::Rejected | End::Cancelled | End::RolledBack, _) => {
            hold(Rule::WayBack, !ours, "the run says that the node is as it was, and its drain is on it")
        }
        (End::Held, _) => hold(Rule::WayBack, ours, "held, and the node is not drained by this run"),
        (End::HandedOver | End::Stuck | End::Shadowed, _) => Ok(()),
    }
}
