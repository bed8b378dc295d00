//! A yes of the gate that grew old while the node was looked at: it is asked for once more.

use super::guard::Look;
use super::{Engine, Pass, takes_more};
use crate::actions::Prepared;
use engine_core::run::{Effect, RunState};
use jiff::{SignedDuration, Timestamp};

/// Age of the gate's yes up to which it is acted on. The budgets behind it are counted on a read of the whole cluster, and the
/// guard then reads the node up to four times more: with a slurmctld that needs most of a second for each answer, less
/// would never be reached. What was stopped is asked for apart, right before the intent.
const HOLDS: SignedDuration = SignedDuration::from_secs(6);
/// Times the gate is asked again about one attempt, because looking at the node took so long.
const ASKED: u32 = 4;

impl Engine {
    /// Asks the gate once more where the guard took long: a stop or a breaker that came meanwhile holds at once, and nodes
    /// that others took meanwhile count. `None` where the gate is closed by now.
    pub(super) async fn still_passes(
        &self,
        state: &RunState,
        effect: Effect,
        mut asked: Timestamp,
        look: &Look,
        mut prepared: Prepared,
    ) -> Option<Prepared> {
        let old = |asked: Timestamp| self.ports.clock.now().duration_since(asked) > HOLDS;
        if !takes_more(state, effect) {
            return Some(prepared);
        }
        for _ in 0..ASKED {
            if !prepared.report.passed {
                return Some(prepared);
            }
            if !old(asked) {
                let stands = self.gate.stands(state).await == Pass::Go;
                return stands.then_some(prepared);
            }
            asked = self.ports.clock.now();
            if self.gate.allows(state, effect).await != Pass::Go {
                return None;
            }
            prepared = self.still_so(state, look, prepared).await;
        }
        if prepared.report.passed && old(asked) {
            prepared.transient = true;
            let why = "slurmctld answers too slowly to know that the budgets still allow it";
            return Some(prepared.refuse(why));
        }
        let stands = !prepared.report.passed || self.gate.stands(state).await == Pass::Go;
        stands.then_some(prepared)
    }
}
