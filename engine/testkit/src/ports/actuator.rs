//! The node actuator port onto simulated nodes.

use super::in_flight::InFlight;
use crate::time::SimClock;
use crate::world::{Flight, Order, SimWorld};
use async_trait::async_trait;
use engine_core::known::{Cause, Known};
use engine_core::model::{NodeGpus, NodeName};
use engine_runtime::ports::{ActuatorStatus, Clock, EvidenceItem, NodeActuator, Verb, WorkOrder, WorkResult};
use jiff::SignedDuration;

/// The tools on the simulated nodes.
#[derive(Debug, Clone)]
pub struct SimActuator {
    world: SimWorld,
    clock: SimClock,
}

impl SimActuator {
    /// Builds the way to a world's nodes.
    pub fn new(world: &SimWorld) -> Self {
        Self { world: world.clone(), clock: SimClock::new(world) }
    }

    /// Waits for a tool; false when the order's limit came first.
    async fn within(&self, needs: SignedDuration, limit: SignedDuration) -> bool {
        self.clock.sleep(needs.min(limit)).await;
        needs <= limit
    }

    fn hangs(&self, node: &NodeName) -> Option<bool> {
        let w = self.world.lock();
        w.find(node).map(|n| w.nodes[n].tools.hang)
    }

    async fn inspect(&self, order: &WorkOrder) -> WorkResult {
        let needs = self.world.lock().cfg.timings.inspect;
        if self.hangs(&order.node) == Some(true) || !self.within(needs, order.limit).await {
            self.clock.sleep(order.limit).await;
            let unseen = NodeGpus::unseen(Cause::TimedOut, "the node's tools did not answer in time");
            return WorkResult::Inspected(Box::new(unseen));
        }
        let mut w = self.world.lock();
        match w.find(&order.node) {
            Some(n) => {
                w.seen_by_tools(n);
                WorkResult::Inspected(Box::new(w.view_gpus(n)))
            }
            None => no_node(&order.node),
        }
    }

    async fn reset(&self, order: &WorkOrder, uuid: &str, bus_id: &str) -> WorkResult {
        let run = order.run.as_ref().map(|r| r.as_str().to_owned());
        let begun = self.world.lock().begin_reset(&order.id, &order.node, run.as_deref(), uuid, bus_id);
        let finish = || self.world.lock().finish_reset(&order.id, &order.node, run.as_deref(), uuid);
        let flight = || Flight::Reset(order.id.clone(), order.node.clone(), run.clone(), uuid.to_owned());
        match begun {
            Order::Now(result) => {
                self.clock.sleep(SignedDuration::from_millis(300)).await;
                *result
            }
            Order::Hangs { applied } => {
                let flight = InFlight::new(&self.world, flight());
                self.clock.sleep(order.limit).await;
                flight.landed();
                if applied {
                    finish();
                }
                WorkResult::Ambiguous(format!("nvidia-smi was killed after {:#}", order.limit))
            }
            Order::Reset(needs) if needs <= order.limit => {
                let flight = InFlight::new(&self.world, flight());
                self.clock.sleep(needs).await;
                flight.landed();
                finish()
            }
            Order::Reset(_) => {
                self.clock.sleep(order.limit).await;
                WorkResult::Ambiguous(format!("nvidia-smi was killed after {:#}", order.limit))
            }
        }
    }

    async fn diag(&self, order: &WorkOrder, level: u8) -> WorkResult {
        let Some(n) = self.world.lock().find(&order.node) else { return no_node(&order.node) };
        let needs = {
            let mut w = self.world.lock();
            if w.nodes[n].tools.diag_running {
                return WorkResult::Diag(Known::unknown(
                    Cause::ReadFailed,
                    "a diagnostic runs already (exit code 222)",
                ));
            }
            w.nodes[n].tools.diag_running = true;
            if w.nodes[n].tools.hang { SignedDuration::MAX } else { w.diag_time(level) }
        };
        let done = self.within(needs, order.limit).await;
        let mut w = self.world.lock();
        w.nodes[n].tools.diag_running = false;
        if done {
            WorkResult::Diag(w.view_diag(n, level))
        } else {
            WorkResult::Diag(Known::unknown(Cause::TimedOut, "dcgmi diag was killed at its limit"))
        }
    }

    async fn evidence(&self, order: &WorkOrder) -> WorkResult {
        let Some(n) = self.world.lock().find(&order.node) else { return no_node(&order.node) };
        let needs = self.world.lock().cfg.timings.evidence;
        let hang = self.hangs(&order.node) == Some(true);
        if hang || !self.within(needs, order.limit).await {
            self.clock.sleep(order.limit).await;
            let note = "nvidia-smi did not answer in time".to_owned();
            return WorkResult::Evidence(vec![EvidenceItem {
                name: "gpus.json".to_owned(),
                text: String::new(),
                note,
            }]);
        }
        let seen = self.world.lock().view_gpus(n);
        let (text, note) = match serde_json::to_string_pretty(&seen) {
            Ok(text) => (text, String::new()),
            Err(e) => (String::new(), e.to_string()),
        };
        WorkResult::Evidence(vec![EvidenceItem { name: "gpus.json".to_owned(), text, note }])
    }
}

impl SimActuator {
    /// Carries out one of the lesser verbs, which take about a second; hung tools hold a read back to its limit.
    async fn lesser(&self, order: &WorkOrder) -> WorkResult {
        let needs = if self.hangs(&order.node) == Some(true) && order.verb == Verb::Processes {
            order.limit
        } else {
            SignedDuration::from_secs(1)
        };
        if !self.within(needs, order.limit).await {
            return WorkResult::Refused("no time was left for it".to_owned());
        }
        self.world.lock().lesser_verb(order)
    }

    /// Restarts DCGM and its exporter; a hung tool stays hung.
    async fn restore_tools(&self, order: &WorkOrder) -> WorkResult {
        let Some(n) = self.world.lock().find(&order.node) else { return no_node(&order.node) };
        self.clock.sleep(SignedDuration::from_secs(5).min(order.limit)).await;
        self.world.lock().restart_tools(n);
        WorkResult::Restored(vec!["nv-hostengine restarted".to_owned(), "exporter started".to_owned()])
    }
}

fn no_node(node: &NodeName) -> WorkResult {
    WorkResult::Refused(format!("there is no node {node}"))
}

#[async_trait]
impl NodeActuator for SimActuator {
    async fn status(&self, node: &NodeName) -> ActuatorStatus {
        let ready = match self.hangs(node) {
            Some(_) => Ok(()),
            None => Err(format!("there is no node {node}")),
        };
        ActuatorStatus { by: "simulated".to_owned(), ready }
    }

    async fn perform(&self, order: &WorkOrder) -> WorkResult {
        match &order.verb {
            Verb::Inspect => self.inspect(order).await,
            Verb::ResetGpu { uuid, bus_id } => self.reset(order, uuid, bus_id).await,
            Verb::Diag { level } => self.diag(order, *level).await,
            Verb::CollectEvidence => self.evidence(order).await,
            Verb::RestoreTools => self.restore_tools(order).await,
            Verb::ResetClocks { .. }
            | Verb::RestartService { .. }
            | Verb::Processes
            | Verb::KillProcess { .. }
            | Verb::Quarantine { .. } => self.lesser(order).await,
        }
    }
}
