//! The scheduler port onto a simulated controller.

use super::in_flight::InFlight;
use crate::time::SimClock;
use crate::world::{Course, Flight, Inner, Op, SimWorld, Who};
use async_trait::async_trait;
use engine_core::known::{Cause, Known, Unknown};
use engine_core::model::{Job, Node, NodeName, Partition, Reservation};
use engine_runtime::ports::{Clock, Controller, LockReservation, Observed, Read, Scheduler, Write};

/// The simulated slurmctld, as a client sees it.
#[derive(Debug, Clone)]
pub struct SimScheduler {
    world: SimWorld,
    clock: SimClock,
    /// The node whose chance decides how calls go; `None` for that of the controller.
    home: Option<usize>,
}

impl SimScheduler {
    /// Builds a client of a world's controller.
    pub fn new(world: &SimWorld) -> Self {
        Self { world: world.clone(), clock: SimClock::new(world), home: None }
    }

    /// Builds a client for work on one node: how its calls go depends on nothing that happens elsewhere.
    pub fn for_node(world: &SimWorld, node: &NodeName) -> Self {
        let home = world.lock().find(node);
        Self { home, ..Self::new(world) }
    }

    /// Reads: what is seen is the world at the moment of the answer, and dated to the beginning of the read.
    async fn read<T>(&self, look: impl FnOnce(&Inner) -> Result<T, Unknown> + Send) -> Read<T> {
        let (at, course) = {
            let mut w = self.world.lock();
            (w.now, w.course_of_read(self.home))
        };
        match course {
            Course::Lost(after, unknown) => {
                self.clock.sleep(after).await;
                Err(unknown)
            }
            Course::Answered(after) => {
                self.clock.sleep(after).await;
                let value = look(&self.world.lock())?;
                Ok(Observed { value, at })
            }
        }
    }

    async fn write(&self, op: Op) -> Write {
        let (sent, course) = {
            let mut w = self.world.lock();
            (w.now, w.course_of_write(self.home, &op))
        };
        match course {
            Course::Lost(after, text) => {
                self.clock.sleep(after).await;
                Write::Ambiguous(text)
            }
            Course::Answered(after) => {
                let flight = InFlight::new(&self.world, Flight::Write(op.clone(), sent));
                self.clock.sleep(after).await;
                flight.landed();
                let mut w = self.world.lock();
                let done = w.apply(&Who::Engine, &op, sent);
                w.arrives_again(op, sent);
                w.place_jobs();
                done
            }
        }
    }
}

fn no_such_node(node: &NodeName) -> Unknown {
    Unknown::new(Cause::ReadFailed, format!("Node {node} not found"))
}

#[async_trait]
impl Scheduler for SimScheduler {
    async fn controller(&self) -> Read<Controller> {
        self.read(|w| {
            Ok(Controller {
                version: Known::Known(w.cfg.slurm_version.clone()),
                read_by: "simulated".to_owned(),
                written_by: "simulated".to_owned(),
                cluster: Known::Known("simulated".to_owned()),
            })
        })
        .await
    }

    async fn node(&self, node: &NodeName) -> Read<Node> {
        let read =
            self.read(|w| w.find(node).map(|n| w.view_node(n)).ok_or_else(|| no_such_node(node))).await?;
        let mut w = self.world.lock();
        if let Some(n) = w.find(node) {
            let page = &mut w.nodes[n].page;
            page.read_at = page.read_at.max(Some(read.at));
        }
        Ok(read)
    }

    async fn nodes(&self) -> Read<Vec<Node>> {
        self.read(|w| Ok((0..w.nodes.len()).map(|n| w.view_node(n)).collect())).await
    }

    async fn jobs_on(&self, node: &NodeName) -> Read<Vec<Job>> {
        self.read(|w| w.find(node).map(|n| w.view_jobs(Some(n))).ok_or_else(|| no_such_node(node))).await
    }

    async fn jobs(&self) -> Read<Vec<Job>> {
        self.read(|w| Ok(w.view_jobs(None))).await
    }

    async fn reservations(&self) -> Read<Vec<Reservation>> {
        self.read(|w| Ok(w.view_reservations())).await
    }

    async fn partitions(&self) -> Read<Vec<Partition>> {
        self.read(|w| Ok(w.view_partitions())).await
    }

    async fn drain(&self, node: &NodeName, reason: &str) -> Write {
        self.write(Op::Drain { node: node.clone(), reason: reason.to_owned() }).await
    }

    async fn resume(&self, node: &NodeName) -> Write {
        self.write(Op::Resume { node: node.clone() }).await
    }

    async fn create_lock(&self, lock: &LockReservation) -> Write {
        self.write(Op::CreateLock(lock.clone())).await
    }

    async fn delete_reservation(&self, name: &str) -> Write {
        self.write(Op::DeleteReservation { name: name.to_owned() }).await
    }
}
