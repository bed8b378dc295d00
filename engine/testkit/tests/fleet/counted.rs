//! Ports that count every call that could change the cluster or a node.

use async_trait::async_trait;
use engine_core::model::{Job, Node, NodeName, Partition, PendingJob, Reservation};
use engine_runtime::ports::{
    ActuatorStatus, Controller, LockReservation, NodeActuator, Read, Scheduler, Verb, WorkOrder, WorkResult,
    Write,
};
use std::sync::{Arc, Mutex};

/// The calls so far, in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes(Arc<Mutex<Vec<String>>>);

impl Changes {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// A port with its count.
#[derive(Debug)]
pub(crate) struct Counted<T> {
    pub(crate) inner: T,
    pub(crate) changes: Changes,
}

#[async_trait]
impl<T: Scheduler> Scheduler for Counted<T> {
    async fn controller(&self) -> Read<Controller> {
        self.inner.controller().await
    }

    async fn node(&self, node: &NodeName) -> Read<Node> {
        self.inner.node(node).await
    }

    async fn nodes(&self) -> Read<Vec<Node>> {
        self.inner.nodes().await
    }

    async fn jobs_on(&self, node: &NodeName) -> Read<Vec<Job>> {
        self.inner.jobs_on(node).await
    }

    async fn jobs(&self) -> Read<Vec<Job>> {
        self.inner.jobs().await
    }

    async fn pending(&self) -> Read<Vec<PendingJob>> {
        self.inner.pending().await
    }

    async fn reservations(&self) -> Read<Vec<Reservation>> {
        self.inner.reservations().await
    }

    async fn partitions(&self) -> Read<Vec<Partition>> {
        self.inner.partitions().await
    }

    async fn drain(&self, node: &NodeName, reason: &str) -> Write {
        self.changes.note(format!("drain {node}"));
        self.inner.drain(node, reason).await
    }

    async fn resume(&self, node: &NodeName) -> Write {
        self.changes.note(format!("resume {node}"));
        self.inner.resume(node).await
    }

    async fn create_lock(&self, lock: &LockReservation) -> Write {
        self.changes.note(format!("reserve {}", lock.node));
        self.inner.create_lock(lock).await
    }

    async fn delete_reservation(&self, name: &str) -> Write {
        self.changes.note(format!("delete {name}"));
        self.inner.delete_reservation(name).await
    }
}

#[async_trait]
impl<T: NodeActuator> NodeActuator for Counted<T> {
    async fn status(&self, node: &NodeName) -> ActuatorStatus {
        self.inner.status(node).await
    }

    /// Only a look changes nothing: a diagnostic and a bundle of evidence take the node's time.
    async fn perform(&self, order: &WorkOrder) -> WorkResult {
        if order.verb != Verb::Inspect {
            self.changes.note(format!("{} on {}", order.verb.word(), order.node));
        }
        self.inner.perform(order).await
    }
}
