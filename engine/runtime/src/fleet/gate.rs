//! The fleet's gate: breakers and people's stops, read anew before every effect that takes something away.

use super::log::FleetLog;
use super::Intake;
use crate::engine::{Gate, Pass};
use async_trait::async_trait;
use engine_core::incident::Affected;
use engine_core::run::{Effect, RunState};
use std::sync::Arc;

/// Lets pass what no breaker and no person stops.
#[derive(Debug, Clone)]
pub struct SwitchGate {
    log: Arc<FleetLog>,
    intake: Arc<Intake>,
}

impl SwitchGate {
    /// Builds the gate on the fleet's record; the intake knows which partitions a node is in.
    pub fn new(log: Arc<FleetLog>, intake: Arc<Intake>) -> Self {
        Self { log, intake }
    }

    /// Asks the record. Another process may have written the stop, so it is read first: a record that cannot be read
    /// stops everything (rule 3).
    pub async fn pass(&self, state: &RunState) -> Pass {
        if let Err(e) = self.log.sync().await {
            return Pass::Wait { why: format!("whether a breaker is open cannot be read: {e}"), until: None };
        }
        let target = &state.plan.target.node;
        let shape = self.intake.shape();
        let partitions = shape.place(target).map(|p| p.partitions.as_slice()).unwrap_or_default();
        let work = Affected { node: target, partitions, playbook: &state.plan.playbook.id };
        match self.log.read(|f| f.switches().against(work)).await {
            Some(why) => Pass::Wait { why, until: None },
            None => Pass::Go,
        }
    }
}

#[async_trait]
impl Gate for SwitchGate {
    async fn admit(&self, state: &RunState) -> Pass {
        self.pass(state).await
    }

    async fn allows(&self, state: &RunState, _effect: Effect) -> Pass {
        self.pass(state).await
    }
}
