//! Ports that count their calls, and of which one call goes wrong.

use super::twist::Way;
use crate::ports::{SimActuator, SimScheduler};
use crate::world::SimWorld;
use async_trait::async_trait;
use engine_core::known::{Cause, Known, Unknown};
use engine_core::model::{Job, Node, NodeGpus, NodeName, Partition, Reservation};
use engine_runtime::journal::MemoryJournal;
use engine_runtime::ports::{
    ActuatorStatus, Clock, Controller, LockReservation, NodeActuator, Read, Refusal, RefusalKind, Scheduler,
    WorkOrder, WorkResult, Write,
};
use jiff::SignedDuration;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What kind of call it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A read of slurmctld.
    Read,
    /// A write to slurmctld.
    Write,
    /// An order to a node.
    Order,
}

impl Kind {
    /// Returns the ways in which such a call goes wrong.
    pub fn ways(self) -> &'static [Way] {
        match self {
            Self::Read => &Way::READ,
            Self::Write => &Way::WRITE,
            Self::Order => &Way::ORDER,
        }
    }
}

/// A call that was made: what kind, and its name.
pub type Call = (Kind, &'static str);

/// The calls of all engines of a scene, and the one that goes wrong.
#[derive(Debug)]
pub(super) struct Calls {
    world: SimWorld,
    wrong: Option<(u64, Way)>,
    twice: bool,
    seen: Mutex<Vec<Call>>,
    /// The process that makes calls now.
    process: Mutex<Option<MemoryJournal>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Calls {
    pub(super) fn new(world: &SimWorld, wrong: Option<(u64, Way)>, twice: bool) -> Self {
        Self { world: world.clone(), wrong, twice, seen: Mutex::default(), process: Mutex::default() }
    }

    /// Says which process makes the calls from now on.
    pub(super) fn begin_process(&self, journal: &MemoryJournal) {
        *lock(&self.process) = Some(journal.clone());
    }

    /// Lists the calls so far.
    pub(super) fn seen(&self) -> Vec<Call> {
        lock(&self.seen).clone()
    }

    /// Counts a call; says how it goes wrong, if it does.
    fn count(&self, call: Call) -> Option<Way> {
        let mut seen = lock(&self.seen);
        seen.push(call);
        let number = seen.len() as u64;
        self.wrong.filter(|(n, _)| *n == number).map(|(_, way)| way)
    }

    fn hang(&self) {
        self.world.lock().controller_hang(SignedDuration::from_mins(1));
    }

    fn away(&self) {
        self.world.lock().controller_down(SignedDuration::from_mins(5));
    }

    /// Kills the process, and says what becomes of what is under way.
    fn die(&self, done: bool) {
        self.world.lock().cfg.outlives_engine = f64::from(u8::from(done));
        if let Some(journal) = &*lock(&self.process) {
            journal.kill();
        }
    }
}

/// A scheduler of which one call goes wrong.
#[derive(Debug)]
pub(super) struct OddScheduler {
    inner: SimScheduler,
    calls: Arc<Calls>,
}

impl OddScheduler {
    pub(super) fn new(world: &SimWorld, calls: &Arc<Calls>) -> Self {
        Self { inner: SimScheduler::new(world), calls: Arc::clone(calls) }
    }

    fn before_read(&self, name: &'static str) -> Result<(), Unknown> {
        match self.calls.count((Kind::Read, name)) {
            Some(Way::RefusedForNow) => Err(Unknown::new(Cause::ReadFailed, "slurmctld said no")),
            Some(Way::Empty) => Err(Unknown::new(Cause::EmptyAnswer, "the answer was empty")),
            Some(Way::Hangs) => {
                self.calls.hang();
                Ok(())
            }
            Some(Way::Away) => {
                self.calls.away();
                Ok(())
            }
            Some(Way::DiesDone | Way::DiesLost) => {
                self.calls.die(false);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn write<F>(&self, name: &'static str, call: impl Fn() -> F + Send) -> Write
    where
        F: Future<Output = Write> + Send,
    {
        let no = |kind, text: &str| Write::Refused(Refusal { kind, text: text.to_owned() });
        let nobody_knows = || Write::Ambiguous("Socket timed out on send/recv operation".to_owned());
        match self.calls.count((Kind::Write, name)) {
            Some(Way::RefusedForGood) => no(RefusalKind::NotPermitted, "Access/permission denied"),
            Some(Way::RefusedForNow) => no(RefusalKind::Other, "Slurm backup controller in standby mode"),
            Some(Way::AmbiguousDone) => {
                call().await;
                nobody_knows()
            }
            Some(Way::AmbiguousNotDone) => nobody_knows(),
            Some(Way::AmbiguousLate) => {
                let late = crate::world::Hiccup::WriteAppliedLater(SignedDuration::from_secs(14));
                self.calls.world.lock().controller.once.push_front(late);
                call().await
            }
            Some(Way::Hangs) => {
                self.calls.hang();
                call().await
            }
            Some(Way::Away) => {
                self.calls.away();
                call().await
            }
            Some(Way::DiesDone) => {
                self.calls.die(true);
                call().await
            }
            Some(Way::DiesLost) => {
                self.calls.die(false);
                call().await
            }
            _ => call().await,
        }
    }
}

#[async_trait]
impl Scheduler for OddScheduler {
    async fn controller(&self) -> Read<Controller> {
        self.before_read("controller")?;
        self.inner.controller().await
    }

    async fn node(&self, node: &NodeName) -> Read<Node> {
        self.before_read("node")?;
        self.inner.node(node).await
    }

    async fn nodes(&self) -> Read<Vec<Node>> {
        self.before_read("nodes")?;
        self.inner.nodes().await
    }

    async fn jobs_on(&self, node: &NodeName) -> Read<Vec<Job>> {
        self.before_read("jobs_on")?;
        self.inner.jobs_on(node).await
    }

    async fn jobs(&self) -> Read<Vec<Job>> {
        self.before_read("jobs")?;
        self.inner.jobs().await
    }

    async fn reservations(&self) -> Read<Vec<Reservation>> {
        self.before_read("reservations")?;
        self.inner.reservations().await
    }

    async fn partitions(&self) -> Read<Vec<Partition>> {
        self.before_read("partitions")?;
        self.inner.partitions().await
    }

    async fn drain(&self, node: &NodeName, reason: &str) -> Write {
        self.write("drain", || self.inner.drain(node, reason)).await
    }

    async fn resume(&self, node: &NodeName) -> Write {
        self.write("resume", || self.inner.resume(node)).await
    }

    async fn create_lock(&self, lock: &LockReservation) -> Write {
        self.write("create_lock", || self.inner.create_lock(lock)).await
    }

    async fn delete_reservation(&self, name: &str) -> Write {
        self.write("delete_reservation", || self.inner.delete_reservation(name)).await
    }
}

/// A node of which one order goes wrong.
#[derive(Debug)]
pub(super) struct OddActuator {
    inner: SimActuator,
    clock: crate::ports::SimClock,
    calls: Arc<Calls>,
}

impl OddActuator {
    pub(super) fn new(world: &SimWorld, calls: &Arc<Calls>) -> Self {
        Self {
            inner: SimActuator::new(world),
            clock: crate::ports::SimClock::new(world),
            calls: Arc::clone(calls),
        }
    }
}

#[async_trait]
impl NodeActuator for OddActuator {
    async fn status(&self, node: &NodeName) -> ActuatorStatus {
        self.inner.status(node).await
    }

    async fn perform(&self, order: &WorkOrder) -> WorkResult {
        match self.calls.count((Kind::Order, order.verb.word())) {
            Some(Way::RefusedForGood | Way::RefusedForNow) => {
                WorkResult::Refused("the node's own check says no".to_owned())
            }
            Some(Way::AmbiguousDone | Way::AmbiguousLate) => {
                self.inner.perform(order).await;
                WorkResult::Ambiguous("the connection broke".to_owned())
            }
            Some(Way::AmbiguousNotDone) => WorkResult::Ambiguous("the connection broke".to_owned()),
            Some(Way::Hangs | Way::Away) => {
                self.clock.sleep(order.limit).await;
                WorkResult::Ambiguous(format!("no answer within {:#}", order.limit))
            }
            Some(Way::Empty) => {
                let unseen = NodeGpus::unseen(Cause::EmptyAnswer, "the answer was empty");
                match &order.verb {
                    engine_runtime::ports::Verb::Inspect => WorkResult::Inspected(Box::new(unseen)),
                    engine_runtime::ports::Verb::Diag { .. } => {
                        WorkResult::Diag(Known::unknown(Cause::EmptyAnswer, "the answer was empty"))
                    }
                    _ => WorkResult::Evidence(Vec::new()),
                }
            }
            Some(Way::OtherAnswer) => {
                self.inner.perform(order).await;
                WorkResult::Restored(vec!["another order".to_owned()])
            }
            Some(Way::DiesDone) => {
                self.calls.die(true);
                self.inner.perform(order).await
            }
            Some(Way::DiesLost) => {
                self.calls.die(false);
                self.inner.perform(order).await
            }
            None if self.calls.twice => {
                let first = self.inner.perform(order).await;
                self.inner.perform(order).await;
                first
            }
            None => self.inner.perform(order).await,
        }
    }
}
