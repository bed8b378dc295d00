//! A yes of the gate that grew old while the node was looked at: it is asked for once more.

use super::guard::Look;
use super::{Engine, Pass, takes_more};
use crate::actions::Prepared;
use engine_core::run::{Effect, RunState};
use jiff::{SignedDuration, Timestamp};

/// Age of the gate's yes up to which it is acted on.
const HOLDS: SignedDuration = SignedDuration::from_millis(900);
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
            if !prepared.report.passed || !old(asked) {
                return Some(prepared);
            }
            asked = self.ports.clock.now();
            if self.gate.allows(state, effect).await != Pass::Go {
                return None;
            }
            prepared = self.still_so(state, look, prepared).await;
        }
        if prepared.report.passed && old(asked) {
            prepared.transient = true;
            let why = "slurmctld answers too slowly to know that nothing was stopped meanwhile";
            return Some(prepared.refuse(why));
        }
        Some(prepared)
    }
}
