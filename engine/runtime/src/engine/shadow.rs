//! The last metre in shadow: reads pass, and whatever would change something is put on record and goes no further
//! (rule 2).
//!
//! A run in shadow takes the way of every run: the same `next`, the same looks, the same guards, the same code behind
//! each action. Only the ports under that code are others.

use super::{Engine, EngineError, Ports};
use crate::actions::{Ctx, performer};
use crate::ports::{
    ActuatorStatus, Controller, LockReservation, NodeActuator, Read, Refusal, RefusalKind, Scheduler, Verb,
    WorkOrder, WorkResult, Write,
};
use async_trait::async_trait;
use engine_core::model::{Job, Node, NodeName, Partition, PendingJob, Reservation};
use engine_core::run::{Effect, EventKind, RunState};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

/// The most words about what one step would have sent, and the most characters of each.
const MAX_WOULD: usize = 16;
const MAX_WORDS: usize = 1_024;

/// What a step would have sent, in the order of sending.
#[derive(Debug, Clone, Default)]
pub struct WouldDo(Arc<Mutex<Vec<String>>>);

impl WouldDo {
    /// Puts one thing on record that would have been sent.
    pub fn note(&self, what: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MAX_WOULD {
            all.push(what.chars().take(MAX_WORDS).collect());
        }
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Gives a run in shadow the ports that its steps act on.
pub trait LastMetre: Send + Sync + Debug {
    /// Returns ports that read the same world; what they would change goes to `would`.
    fn replace(&self, real: &Ports, would: &WouldDo) -> Ports;
}

/// The last metre that every engine has: nothing behind it can change anything.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadsOnly;

impl LastMetre for ReadsOnly {
    fn replace(&self, real: &Ports, would: &WouldDo) -> Ports {
        let cluster = ClusterReads(Arc::clone(&real.scheduler));
        let node = NodeReads(Arc::clone(&real.actuator));
        Ports {
            scheduler: Arc::new(ShadowScheduler { cluster, would: would.clone() }),
            actuator: Arc::new(ShadowActuator { node, would: would.clone() }),
            ..real.clone()
        }
    }
}

impl Engine {
    /// Looks at a step of a run in shadow as if it were about to be done, and has it act on ports that change nothing.
    /// Waits, evidence and verifications are only looked at: they would wait for what was not done.
    pub(super) async fn rehearse(&self, state: &mut RunState, effect: Effect) -> Result<(), EngineError> {
        let would = WouldDo::default();
        let shaded = Self { ports: self.last_metre.replace(&self.ports, &would), ..self.clone() };
        let (look, prepared) = shaded.guarded(state, effect, 1).await;
        let step = state.step_of(effect);
        let mutates = step.is_some_and(|s| s.effect.mutates());
        if mutates && (prepared.report.passed || state.is_past_first_change(effect)) {
            let ctx = Ctx { engine: &shaded, state, effect, attempt: 1, look: &look };
            if let Some(p) = performer(state, effect) {
                // It is told no, and that is all it can tell.
                let _ = p.act(&ctx, &prepared.context).await;
            }
        }
        let action = step.map_or_else(String::new, |s| s.action.clone());
        let kind = EventKind::Rehearsed { effect, action, guard: prepared.report, would: would.all() };
        // Somebody wrote meanwhile, perhaps a request to stop: it is decided anew.
        self.record_if_unchanged(state, kind).await.map(drop)
    }
}

/// The scheduler without its writes: what has only this cannot change the cluster.
#[derive(Debug)]
struct ClusterReads(Arc<dyn Scheduler>);

impl ClusterReads {
    async fn controller(&self) -> Read<Controller> {
        self.0.controller().await
    }

    async fn node(&self, node: &NodeName) -> Read<Node> {
        self.0.node(node).await
    }

    async fn nodes(&self) -> Read<Vec<Node>> {
        self.0.nodes().await
    }

    async fn jobs_on(&self, node: &NodeName) -> Read<Vec<Job>> {
        self.0.jobs_on(node).await
    }

    async fn node_with_jobs(&self, node: &NodeName) -> (Read<Node>, Read<Vec<Job>>) {
        self.0.node_with_jobs(node).await
    }

    async fn jobs(&self) -> Read<Vec<Job>> {
        self.0.jobs().await
    }

    async fn pending(&self) -> Read<Vec<PendingJob>> {
        self.0.pending().await
    }

    async fn reservations(&self) -> Read<Vec<Reservation>> {
        self.0.reservations().await
    }

    async fn partitions(&self) -> Read<Vec<Partition>> {
        self.0.partitions().await
    }
}

#[derive(Debug)]
struct ShadowScheduler {
    cluster: ClusterReads,
    would: WouldDo,
}

impl ShadowScheduler {
    fn refuse(&self, what: &str) -> Write {
        self.would.note(what);
        let text = format!("in shadow: {what} was not sent");
        Write::Refused(Refusal { kind: RefusalKind::NotPermitted, text })
    }
}

#[async_trait]
impl Scheduler for ShadowScheduler {
    async fn controller(&self) -> Read<Controller> {
        self.cluster.controller().await
    }

    async fn node(&self, node: &NodeName) -> Read<Node> {
        self.cluster.node(node).await
    }

    async fn nodes(&self) -> Read<Vec<Node>> {
        self.cluster.nodes().await
    }

    async fn jobs_on(&self, node: &NodeName) -> Read<Vec<Job>> {
        self.cluster.jobs_on(node).await
    }

    async fn node_with_jobs(&self, node: &NodeName) -> (Read<Node>, Read<Vec<Job>>) {
        self.cluster.node_with_jobs(node).await
    }

    async fn jobs(&self) -> Read<Vec<Job>> {
        self.cluster.jobs().await
    }

    async fn pending(&self) -> Read<Vec<PendingJob>> {
        self.cluster.pending().await
    }

    async fn reservations(&self) -> Read<Vec<Reservation>> {
        self.cluster.reservations().await
    }

    async fn partitions(&self) -> Read<Vec<Partition>> {
        self.cluster.partitions().await
    }

    async fn drain(&self, node: &NodeName, reason: &str) -> Write {
        self.refuse(&format!("drain {node} with the reason {reason:?}"))
    }

    async fn resume(&self, node: &NodeName) -> Write {
        self.refuse(&format!("resume {node}"))
    }

    async fn create_lock(&self, lock: &LockReservation) -> Write {
        self.refuse(&format!("reserve {} until {} as {}", lock.node, lock.end, lock.name))
    }

    async fn delete_reservation(&self, name: &str) -> Write {
        self.refuse(&format!("delete the reservation {name}"))
    }
}

/// A node without orders: all that can be asked of it is a look.
#[derive(Debug)]
struct NodeReads(Arc<dyn NodeActuator>);

impl NodeReads {
    async fn status(&self, node: &NodeName) -> ActuatorStatus {
        self.0.status(node).await
    }

    /// Sends an inspection in the place of whatever the order says.
    async fn inspect(&self, order: &WorkOrder) -> WorkResult {
        self.0.perform(&WorkOrder { verb: Verb::Inspect, ..order.clone() }).await
    }
}

#[derive(Debug)]
struct ShadowActuator {
    node: NodeReads,
    would: WouldDo,
}

#[async_trait]
impl NodeActuator for ShadowActuator {
    async fn status(&self, node: &NodeName) -> ActuatorStatus {
        self.node.status(node).await
    }

    async fn perform(&self, order: &WorkOrder) -> WorkResult {
        let node = &order.node;
        let what = match &order.verb {
            Verb::Inspect => return self.node.inspect(order).await,
            Verb::ResetGpu { uuid, bus_id } => format!("reset GPU {uuid} at {bus_id} of {node}"),
            Verb::Diag { level } => format!("run the diagnostic of level {level} on {node}"),
            Verb::CollectEvidence => format!("collect evidence on {node}"),
            Verb::RestoreTools => format!("start the tools of {node} again"),
            Verb::ResetClocks { uuid, bus_id } => {
                format!("reset the clocks of GPU {uuid} at {bus_id} of {node}")
            }
            Verb::RestartService { unit } => format!("restart {unit} on {node}"),
            Verb::Processes => format!("list the processes of {node}"),
            Verb::KillProcess { pid, start_time } => {
                format!("end process {pid} (started at {start_time}) on {node}")
            }
            Verb::Quarantine { path } => format!("move {path} of {node} into quarantine"),
        };
        self.would.note(&what);
        WorkResult::Refused(format!("in shadow: {what} was not sent"))
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_WORDS, MAX_WOULD, WouldDo};

    #[test]
    fn what_is_on_record_is_bounded() {
        let would = WouldDo::default();
        for _ in 0..100 {
            would.note(&"ü".repeat(5_000));
        }
        assert_eq!(would.all().len(), MAX_WOULD);
        assert!(would.all().iter().all(|w| w.chars().count() == MAX_WORDS));
    }
}
