//! Schedulers with a fault on purpose.

use super::Mutant;
use crate::ports::SimScheduler;
use crate::world::SimWorld;
use async_trait::async_trait;
use engine_core::known::Known;
use engine_core::model::{Job, Node, NodeName, Partition, Reservation};
use engine_runtime::ports::{Controller, LockReservation, Observed, Read, RefusalKind, Scheduler, Write};
use jiff::SignedDuration;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How long a node is shown as it was.
const OLD: SignedDuration = SignedDuration::from_mins(3);

/// Puts a fault before an honest scheduler; one without a fault in it is returned as it is.
pub(crate) fn scheduler(
    mutant: Option<Mutant>,
    honest: SimScheduler,
    world: &SimWorld,
) -> std::sync::Arc<dyn Scheduler> {
    match mutant {
        Some(
            mutant @ (Mutant::RemembersReads
            | Mutant::CachesReasons
            | Mutant::TakesAnyLock
            | Mutant::DownsForDrains
            | Mutant::SwallowsResumes
            | Mutant::PassesTextOn),
        ) => std::sync::Arc::new(Faulty {
            mutant,
            inner: honest,
            world: world.clone(),
            shown: Mutex::default(),
            wanted: Mutex::default(),
            swallowed: Mutex::default(),
        }),
        _ => std::sync::Arc::new(honest),
    }
}

#[derive(Debug)]
struct Faulty {
    mutant: Mutant,
    inner: SimScheduler,
    world: SimWorld,
    shown: Mutex<Option<Observed<Node>>>,
    /// The lock that was asked for, and is shown as if it were there.
    wanted: Mutex<Option<LockReservation>>,
    /// The node whose resume was not sent.
    swallowed: Mutex<Option<NodeName>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Faulty {
    /// Shows the node as it was some minutes ago and calls that fresh, as a cache does that nobody thought of. The
    /// engine's own drains and resumes it shows at once, so that everything seems to work.
    async fn cached(&self, node: &NodeName) -> Read<Node> {
        let fresh = self.inner.node(node).await?;
        let mut shown = lock(&self.shown);
        match &*shown {
            Some(old) if fresh.at.duration_since(old.at) < OLD && old.value.flags == fresh.value.flags => {
                Ok(Observed { value: old.value.clone(), at: fresh.at })
            }
            _ => {
                *shown = Some(fresh.clone());
                Ok(fresh)
            }
        }
    }

    /// Gives what it last read for what it cannot read, with the time of now.
    async fn remembered(&self, node: &NodeName) -> Read<Node> {
        match self.inner.node(node).await {
            Ok(read) => {
                *lock(&self.shown) = Some(read.clone());
                Ok(read)
            }
            Err(unknown) => {
                let last = lock(&self.shown).clone().filter(|o| o.value.name == *node);
                last.map(|o| Observed { value: o.value, at: self.world.now() }).ok_or(unknown)
            }
        }
    }

    /// Shows a node in service whose resume it kept to itself.
    async fn as_if_resumed(&self, node: &NodeName) -> Read<Node> {
        let mut read = self.inner.node(node).await?;
        if lock(&self.swallowed).as_ref() == Some(node) {
            read.value.flags.known.remove(&engine_core::model::NodeFlag::Drain);
            read.value.reason = Known::Known(None);
            read.value.state = engine_core::model::node_state::classify(&read.value.base, &read.value.flags);
        }
        Ok(read)
    }
}

#[async_trait]
impl Scheduler for Faulty {
    async fn node(&self, node: &NodeName) -> Read<Node> {
        match self.mutant {
            Mutant::CachesReasons => self.cached(node).await,
            Mutant::RemembersReads => self.remembered(node).await,
            Mutant::SwallowsResumes => self.as_if_resumed(node).await,
            _ => self.inner.node(node).await,
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
        let mut read = self.inner.reservations().await?;
        if let Some(wanted) = &*lock(&self.wanted) {
            // Whoever made it, it is shown as the one that was asked for.
            for r in read.value.iter_mut().filter(|r| r.name == wanted.name) {
                r.end = Known::Known(wanted.end);
            }
        }
        Ok(read)
    }

    async fn partitions(&self) -> Read<Vec<Partition>> {
        self.inner.partitions().await
    }

    async fn drain(&self, node: &NodeName, reason: &str) -> Write {
        match self.mutant {
            Mutant::DownsForDrains => {
                let done = self.inner.drain(node, reason).await;
                self.world.engine_sets_down(node, reason);
                done
            }
            Mutant::PassesTextOn => self.inner.drain(node, &format!("{reason} {}", super::HOSTILE)).await,
            _ => self.inner.drain(node, reason).await,
        }
    }

    async fn resume(&self, node: &NodeName) -> Write {
        if self.mutant == Mutant::SwallowsResumes {
            *lock(&self.swallowed) = Some(node.clone());
            return Write::Accepted;
        }
        self.inner.resume(node).await
    }

    async fn create_lock(&self, lock_wanted: &LockReservation) -> Write {
        let done = self.inner.create_lock(lock_wanted).await;
        match &done {
            Write::Refused(r)
                if self.mutant == Mutant::TakesAnyLock && r.kind == RefusalKind::AlreadyExists =>
            {
                *lock(&self.wanted) = Some(lock_wanted.clone());
                Write::Accepted
            }
            _ => done,
        }
    }

    async fn delete_reservation(&self, name: &str) -> Write {
        self.inner.delete_reservation(name).await
    }
}
