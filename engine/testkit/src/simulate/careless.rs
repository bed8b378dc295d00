//! A scheduler with a fault on purpose: it shows a node as it was some minutes ago and calls that fresh, as a cache does
//! that nobody thought of. Simulations with it show that the rules find what comes of it.

use crate::ports::SimScheduler;
use async_trait::async_trait;
use engine_core::model::{Job, Node, NodeName, Partition, Reservation};
use engine_runtime::ports::{Controller, LockReservation, Observed, Read, Scheduler, Write};
use jiff::SignedDuration;
use std::sync::{Mutex, PoisonError};

/// How long a node is shown as it was.
const OLD: SignedDuration = SignedDuration::from_mins(3);

/// The scheduler.
#[derive(Debug)]
pub(super) struct Careless {
    inner: SimScheduler,
    shown: Mutex<Option<Observed<Node>>>,
}

impl Careless {
    pub(super) fn new(inner: SimScheduler) -> Self {
        Self { inner, shown: Mutex::default() }
    }
}

#[async_trait]
impl Scheduler for Careless {
    async fn node(&self, node: &NodeName) -> Read<Node> {
        let fresh = self.inner.node(node).await?;
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match &*shown {
            // Its own drains and resumes it shows at once, so that everything seems to work.
            Some(old) if fresh.at.duration_since(old.at) < OLD && old.value.flags == fresh.value.flags => {
                Ok(Observed { value: old.value.clone(), at: fresh.at })
            }
            _ => {
                *shown = Some(fresh.clone());
                Ok(fresh)
            }
        }
    }

    async fn controller(&self) -> Read<Controller> {
        self.inner.controller().await
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

    async fn reservations(&self) -> Read<Vec<Reservation>> {
        self.inner.reservations().await
    }

    async fn partitions(&self) -> Read<Vec<Partition>> {
        self.inner.partitions().await
    }

    async fn drain(&self, node: &NodeName, reason: &str) -> Write {
        self.inner.drain(node, reason).await
    }

    async fn resume(&self, node: &NodeName) -> Write {
        self.inner.resume(node).await
    }

    async fn create_lock(&self, lock: &LockReservation) -> Write {
        self.inner.create_lock(lock).await
    }

    async fn delete_reservation(&self, name: &str) -> Write {
        self.inner.delete_reservation(name).await
    }
}
