//! Actuators with a fault on purpose.

use super::Mutant;
use crate::ports::SimActuator;
use crate::time::SimClock;
use crate::world::SimWorld;
use async_trait::async_trait;
use engine_core::known::Known;
use engine_core::model::NodeName;
use engine_core::model::gpu::{Health, RecoveryAction};
use engine_runtime::ports::{ActuatorStatus, Clock as _, NodeActuator, Verb, WorkOrder, WorkResult};
use jiff::SignedDuration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Puts a fault before an honest actuator; one without a fault in it is returned as it is.
pub(crate) fn actuator(
    mutant: Option<Mutant>,
    honest: SimActuator,
    world: &SimWorld,
) -> Arc<dyn NodeActuator> {
    match mutant {
        Some(
            mutant @ (Mutant::RepeatsBlindly
            | Mutant::CallsEverythingWell
            | Mutant::NeverAnswers
            | Mutant::BlamesTheNode),
        ) => Arc::new(Faulty { mutant, inner: honest, world: world.clone(), blamed: Mutex::default() }),
        _ => Arc::new(honest),
    }
}

#[derive(Debug)]
struct Faulty {
    mutant: Mutant,
    inner: SimActuator,
    world: SimWorld,
    /// Nodes whose tools did not answer.
    blamed: Mutex<BTreeSet<NodeName>>,
}

impl Faulty {
    /// A reset of which nobody knows is ordered anew.
    async fn repeated(&self, order: &WorkOrder) -> WorkResult {
        let first = self.inner.perform(order).await;
        match (&order.verb, first) {
            (Verb::ResetGpu { .. }, WorkResult::Ambiguous(_)) => {
                let again = WorkOrder { id: format!("{}-again", order.id), ..order.clone() };
                self.inner.perform(&again).await
            }
            (_, first) => first,
        }
    }

    /// Every GPU is shown as one without a fault to whoever has to prove it.
    async fn well(&self, order: &WorkOrder) -> WorkResult {
        match self.inner.perform(order).await {
            WorkResult::Inspected(mut seen) if order.id.contains("verify") => {
                for g in &mut seen.gpus {
                    g.answers = Known::Known(true);
                    g.last_xid = Known::Known(0);
                    g.recent_xids = Known::Known(BTreeMap::new());
                    g.ecc_dbe_volatile = Known::Known(0);
                    g.row_remap_pending = Known::Known(false);
                    g.row_remap_failure = Known::Known(false);
                    g.recovery_action = Known::Known(RecoveryAction::None);
                }
                if let Known::Known(health) = &mut seen.health {
                    health.incidents.clear();
                    health.overall = Health::Pass;
                }
                WorkResult::Inspected(seen)
            }
            WorkResult::Diag(Known::Known(mut report)) => {
                report.incidents.clear();
                report.overall = Health::Pass;
                WorkResult::Diag(Known::Known(report))
            }
            other => other,
        }
    }

    /// Remembers for good that the tools of a node did not answer once.
    fn is_blamed(&self, node: &NodeName, silent: bool) -> bool {
        let mut blamed = self.blamed.lock().unwrap_or_else(PoisonError::into_inner);
        if silent {
            blamed.insert(node.clone());
        }
        blamed.contains(node)
    }

    /// A tool that does not answer is taken for GPUs that are broken.
    async fn blamed(&self, order: &WorkOrder) -> WorkResult {
        match self.inner.perform(order).await {
            WorkResult::Inspected(seen) if self.is_blamed(&order.node, seen.gpus.is_empty()) => {
                let Some(mut made_up) = self.world.gpus_behind_tools(&order.node) else {
                    return WorkResult::Inspected(seen);
                };
                for g in &mut made_up.gpus {
                    g.row_remap_pending = Known::Known(true);
                }
                WorkResult::Inspected(Box::new(made_up))
            }
            other => other,
        }
    }
}

#[async_trait]
impl NodeActuator for Faulty {
    async fn status(&self, node: &NodeName) -> ActuatorStatus {
        self.inner.status(node).await
    }

    async fn perform(&self, order: &WorkOrder) -> WorkResult {
        match self.mutant {
            Mutant::RepeatsBlindly => self.repeated(order).await,
            Mutant::CallsEverythingWell => self.well(order).await,
            Mutant::BlamesTheNode => self.blamed(order).await,
            Mutant::NeverAnswers if order.verb == Verb::CollectEvidence => {
                // For ever, as long as simulations go.
                SimClock::new(&self.world).sleep(SignedDuration::from_hours(24 * 365)).await;
                self.inner.perform(order).await
            }
            _ => self.inner.perform(order).await,
        }
    }
}
