//! What is under test: how the engine decides, folds and looks. Tests put broken machines in its place.

use engine_core::condition::Truth;
use engine_core::ownership::{Change, NodeMark};
use engine_core::run::{self, Event, IllegalEvent, Next, RunState};
use jiff::Timestamp;

/// The engine's decisions. The default of each is the real one.
pub trait Machine {
    /// What comes next.
    fn next(&self, state: &RunState, now: Timestamp) -> Next {
        run::next(state, now)
    }

    /// Folds one event.
    fn apply(&self, state: &mut RunState, event: &Event) -> Result<(), IllegalEvent> {
        state.apply(event)
    }

    /// Folds all events of a run, as a process does that takes it over.
    fn fold(&self, events: &[Event]) -> Result<RunState, IllegalEvent> {
        run::fold(events)
    }

    /// What changed about the node since the run last saw it.
    fn change(&self, state: &RunState, seen: &NodeMark) -> Option<Change> {
        state.last_seen.as_ref().and_then(|last| seen.change_since(last))
    }

    /// Whether a condition that came to this lets a step begin.
    fn permits(&self, truth: Truth) -> bool {
        truth == Truth::True
    }

    /// Whether an action's own guard is asked, beyond the look at the node.
    fn asks_the_action(&self, _state: &RunState) -> bool {
        true
    }

    /// Whether the preconditions are judged again before an effect that changes something.
    fn preconditions_are_due(&self, state: &RunState) -> bool {
        !state.has_mutated()
    }
}

/// The engine as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealMachine;

impl Machine for RealMachine {}
