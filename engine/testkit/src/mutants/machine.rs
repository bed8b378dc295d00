//! Engines that decide wrongly, for the checker: each is the real one but for a single decision.

use super::Mutant;
use engine_core::run::{End, Next, RunState, next};
use engine_playbook::checker::Machine;
use jiff::Timestamp;

/// The engine of a mutant.
pub(super) struct Wrong(pub(super) Mutant);

impl Machine for Wrong {
    fn next(&self, state: &RunState, now: Timestamp) -> Next {
        match next(state, now) {
            Next::Finish { end: End::Held, why, next_step } if self.0 == Mutant::CallsHeldRolledBack => {
                Next::Finish { end: End::RolledBack, why, next_step }
            }
            real => real,
        }
    }

    fn preconditions_are_due(&self, state: &RunState) -> bool {
        self.0 != Mutant::LooksOnce && !state.has_mutated()
    }
}
