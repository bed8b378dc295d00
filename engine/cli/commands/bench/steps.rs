//! What a step costs beyond the tools: guard, intent and outcome, each synced, and the decisions between them.
//!
//! Measured twice. With tools that answer at once, nothing hides the journal. With tools that take as long as scontrol
//! does, reads and writes of the journal overlap as they do on a cluster; what counts is the time in which no tool was
//! at work.

use super::{Figure, add, remove_database};
use crate::exit::CliError;
use crate::simulated::{instant, one_run};
use async_trait::async_trait;
use engine_core::model::{Job, Node, NodeName, Partition, PendingJob, Reservation, RunId};
use engine_core::run::EventKind;
use engine_runtime::journal::{Journal, OpenMode, SqliteJournal};
use engine_runtime::ports::{
    ActuatorStatus, Controller, LockReservation, NodeActuator, Read, Scheduler, WorkOrder, WorkResult, Write,
};
use jiff::Timestamp;
use rusqlite::Connection;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// About what one call of scontrol takes on a small cluster.
const TOOL: Duration = Duration::from_millis(4);

/// Measures a synced event and the steps around it.
pub(super) fn measure(dir: &Path, rounds: usize, figures: &mut Vec<Figure>) -> Result<(), CliError> {
    let path = dir.join(format!(".slurmedic-bench-{}.db", std::process::id()));
    let peer = dir.join(format!(".slurmedic-bench-peer-{}.db", std::process::id()));
    let result = super::super::wait(run(&path, &peer, rounds, figures));
    remove_database(&path);
    remove_database(&peer);
    result
}

/// A plain database beside the journal, on the same disk.
struct Plain(Connection);

impl Plain {
    fn open(path: &Path) -> rusqlite::Result<Self> {
        let db = Connection::open(path)?;
        db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.execute_batch("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT")?;
        Ok(Self(db))
    }

    fn commit_one_row(&self) -> rusqlite::Result<f64> {
        let start = Instant::now();
        self.0.prepare_cached("INSERT INTO notes (text) VALUES (?1)")?.execute(["bench"])?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }
}

async fn run(path: &Path, peer: &Path, rounds: usize, figures: &mut Vec<Figure>) -> Result<(), CliError> {
    let journal: Arc<dyn Journal> = Arc::new(SqliteJournal::open(path, OpenMode::ReadWrite)?);
    let plain = Plain::open(peer).map_err(|e| CliError::caused("the plain database", e))?;
    let mut commits = Vec::new();
    let mut plain_commits = Vec::new();
    let (mut asked, mut at_once) = (Vec::new(), Vec::new());
    let mut beyond = Vec::new();
    let tools = Arc::new(Tools::default());
    let quick = instant(journal.clone())?;
    let mut paced = instant(journal.clone())?;
    let ports = &mut paced.1.engine.ports;
    ports.scheduler = Arc::new(Paced { inner: ports.scheduler.clone(), tools: tools.clone() });
    ports.actuator = Arc::new(PacedNode { inner: ports.actuator.clone(), tools: tools.clone() });
    for i in 0..rounds {
        let run = Box::pin(one_run(&quick, i, || {})).await?;
        let state = run.state;
        asked.push(run.asked.as_secs_f64() * 1e3);
        at_once.push(run.carried_out.as_secs_f64() * 1e3 / run.effects as f64);
        let before = std::cell::Cell::new(Duration::ZERO);
        let run = Box::pin(one_run(&paced, i, || before.set(tools.busy()))).await?;
        let own = run.carried_out.saturating_sub(tools.busy().saturating_sub(before.get()));
        beyond.push(own.as_secs_f64() * 1e3 / run.effects as f64);
        // A run that is open, as those are that an engine writes to.
        let mut plan = (*state.plan).clone();
        plan.run = RunId::new(&format!("bench{i}")).map_err(|e| CliError::caused("the run's id", e))?;
        let (run, digest) = (plan.run.clone(), plan.digest().map_err(|e| CliError::caused("the plan", e))?);
        let proposed = vec![EventKind::Proposed { plan: plan.into(), digest }];
        journal.append(&run, 0, Timestamp::now(), proposed).await?;
        let note = vec![EventKind::Noted { text: "bench".into() }];
        let start = Instant::now();
        journal.append(&run, 1, Timestamp::now(), note).await?;
        commits.push(start.elapsed().as_secs_f64() * 1e3);
        plain_commits.push(plain.commit_one_row().map_err(|e| CliError::caused("the plain database", e))?);
    }
    add(figures, "one synced event in the journal", "ms", commits);
    add(figures, "  peer: plain SQLite, one row in a synced commit", "ms", plain_commits);
    add(figures, "look, plan, record and yes, tools that answer at once", "ms", asked);
    add(figures, "engine per step beyond tools of 4 ms a call", "ms", beyond);
    add(figures, "engine per step, tools that answer at once", "ms", at_once);
    Ok(())
}

/// The time in which at least one tool was at work.
#[derive(Debug, Default)]
struct Tools(Mutex<AtWork>);

#[derive(Debug, Default)]
struct AtWork {
    calls: u32,
    since: Option<Instant>,
    busy: Duration,
}

impl Tools {
    fn busy(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).busy
    }

    async fn call<T>(&self, work: impl Future<Output = T>) -> T {
        {
            let mut at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            at.calls += 1;
            at.since.get_or_insert_with(Instant::now);
        }
        tokio::time::sleep(TOOL).await;
        let result = work.await;
        let mut at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        at.calls -= 1;
        if at.calls == 0
            && let Some(since) = at.since.take()
        {
            at.busy += since.elapsed();
        }
        result
    }
}

#[derive(Debug)]
struct Paced {
    inner: Arc<dyn Scheduler>,
    tools: Arc<Tools>,
}

#[async_trait]
impl Scheduler for Paced {
    async fn controller(&self) -> Read<Controller> {
        self.tools.call(self.inner.controller()).await
    }

    async fn node(&self, node: &NodeName) -> Read<Node> {
        self.tools.call(self.inner.node(node)).await
    }

    async fn nodes(&self) -> Read<Vec<Node>> {
        self.tools.call(self.inner.nodes()).await
    }

    async fn jobs_on(&self, node: &NodeName) -> Read<Vec<Job>> {
        self.tools.call(self.inner.jobs_on(node)).await
    }

    async fn jobs(&self) -> Read<Vec<Job>> {
        self.tools.call(self.inner.jobs()).await
    }

    async fn pending(&self) -> Read<Vec<PendingJob>> {
        self.tools.call(self.inner.pending()).await
    }

    async fn reservations(&self) -> Read<Vec<Reservation>> {
        self.tools.call(self.inner.reservations()).await
    }

    async fn partitions(&self) -> Read<Vec<Partition>> {
        self.tools.call(self.inner.partitions()).await
    }

    async fn drain(&self, node: &NodeName, reason: &str) -> Write {
        self.tools.call(self.inner.drain(node, reason)).await
    }

    async fn resume(&self, node: &NodeName) -> Write {
        self.tools.call(self.inner.resume(node)).await
    }

    async fn create_lock(&self, lock: &LockReservation) -> Write {
        self.tools.call(self.inner.create_lock(lock)).await
    }

    async fn delete_reservation(&self, name: &str) -> Write {
        self.tools.call(self.inner.delete_reservation(name)).await
    }
}

#[derive(Debug)]
struct PacedNode {
    inner: Arc<dyn NodeActuator>,
    tools: Arc<Tools>,
}

#[async_trait]
impl NodeActuator for PacedNode {
    async fn status(&self, node: &NodeName) -> ActuatorStatus {
        self.inner.status(node).await
    }

    async fn perform(&self, order: &WorkOrder) -> WorkResult {
        self.tools.call(self.inner.perform(order)).await
    }
}
