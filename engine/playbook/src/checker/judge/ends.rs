//! What must hold when a run ends.

use super::{Judge, Verdict};
use crate::checker::rule::{Holds, Rule, hold};
use engine_core::plan::Plan;
use engine_core::playbook::Ends;
use engine_core::run::{Effect, End};

impl Judge {
    /// What the events must say for an end.
    pub(super) fn ends(&self, end: End, slipped: bool, plan: &Plan) -> Holds {
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
