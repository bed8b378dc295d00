//! The watch in this process: hands each look at the cluster, and each scrape of an exporter, to the rules of the core, with
//! what is on record.

use super::log::FleetLog;
use crate::ports::{Clock, GpuTelemetry};
use engine_core::incident::Alert;
use engine_core::known::{Cause, Unknown};
use engine_core::model::{Node, NodeGpus, NodeName};
use engine_core::watch::{
    Asked, GpuRules, GpuWatch, Reasons, SlurmRules, SlurmWatch, Tool, slurm, standing, standing_gpus,
};
use jiff::{SignedDuration, Timestamp};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;

/// The most exporters that are asked at a time.
pub const MAX_ASKED: usize = 64;
/// How long one exporter may take.
const SCRAPE_LIMIT: Duration = Duration::from_secs(10);
/// The most exporters of one round that are named; the others are counted.
const MAX_NAMED: usize = 100;

/// Watches a cluster by polling alone.
#[derive(Debug)]
pub struct Watch {
    log: Arc<FleetLog>,
    clock: Arc<dyn Clock>,
    reasons: Reasons,
    rules: SlurmRules,
    gpu_rules: GpuRules,
    /// Whether states and reasons of Slurm open incidents.
    tells_slurm: bool,
    slurm: Mutex<SlurmWatch>,
    gpus: Mutex<GpuWatch>,
}

/// What one round over the exporters came to.
#[derive(Debug, Clone, Default)]
pub struct GpuRound {
    /// For the intake.
    pub alerts: Vec<Alert>,
    /// Exporters that were asked.
    pub asked: usize,
    /// Exporters that answered.
    pub answered: usize,
    /// Exporters that do not answer for some rounds: the tool is ill, nothing is said of the node.
    pub silent: usize,
    /// Those that fell silent in this round, with why; some of them where there are many.
    pub fell_silent: Vec<(NodeName, String)>,
    /// Those that came back in this round; some of them where there are many.
    pub came_back: Vec<NodeName>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Builds a watch that remembers nothing yet. What an earlier one told is on record.
    pub fn new(
        log: Arc<FleetLog>,
        clock: Arc<dyn Clock>,
        reasons: Reasons,
        rules: SlurmRules,
        tells_slurm: bool,
    ) -> Self {
        let gpu_rules = GpuRules::default();
        let (slurm, gpus) = (Mutex::default(), Mutex::default());
        Self { log, clock, reasons, rules, gpu_rules, tells_slurm, slurm, gpus }
    }

    /// Compares a whole read of the cluster with what is known: alerts for the intake, of faults that are new and of
    /// faults that are over.
    pub async fn nodes(&self, nodes: &[Node], at: Timestamp) -> Vec<Alert> {
        let standing = self.log.read(|f| standing(f, slurm::SOURCE)).await;
        let alerts = lock(&self.slurm).look(nodes, &self.reasons, &self.rules, &standing, at);
        if self.tells_slurm { alerts } else { Vec::new() }
    }

    /// Asks the exporters of all nodes with GPUs that the last look at the cluster found, some at a time, spread over
    /// `over` so that they do not all answer at once.
    pub async fn exporters(&self, telemetry: &Arc<dyn GpuTelemetry>, over: SignedDuration) -> GpuRound {
        let asked = lock(&self.slurm).with_gpus();
        lock(&self.gpus).keep(&asked);
        let mut round = GpuRound { asked: asked.len(), ..GpuRound::default() };
        let step = over.unsigned_abs() / (asked.len().max(1) as u32);
        let mut running: JoinSet<(Asked, Result<NodeGpus, Unknown>)> = JoinSet::new();
        for one in asked {
            tokio::time::sleep(step).await;
            if running.len() >= MAX_ASKED
                && let Some(Ok((asked, read))) = running.join_next().await
            {
                self.take(&asked, read, &mut round).await;
            }
            let telemetry = Arc::clone(telemetry);
            running.spawn(async move {
                let read = match tokio::time::timeout(SCRAPE_LIMIT, telemetry.gpus(&one.node)).await {
                    Ok(read) => read.map(|o| o.value),
                    Err(_) => Err(Unknown::new(
                        Cause::TimedOut,
                        format!("the exporter did not answer within {} s", SCRAPE_LIMIT.as_secs()),
                    )),
                };
                (one, read)
            });
        }
        while let Some(done) = running.join_next().await {
            if let Ok((asked, read)) = done {
                self.take(&asked, read, &mut round).await;
            }
        }
        round.silent = lock(&self.gpus).silent(&self.gpu_rules);
        round
    }

    async fn take(&self, asked: &Asked, read: Result<NodeGpus, Unknown>, round: &mut GpuRound) {
        match read {
            Err(why) => {
                let tool = lock(&self.gpus).unread(&asked.node, &self.gpu_rules);
                if tool == Tool::Silent && round.fell_silent.len() < MAX_NAMED {
                    round.fell_silent.push((asked.node.clone(), why.to_string()));
                }
            }
            Ok(seen) => {
                round.answered += 1;
                let at = self.clock.now();
                let known = self.log.read(|f| standing_gpus(f, &asked.node)).await;
                let (alerts, tool) = lock(&self.gpus).read(asked, &seen, &self.gpu_rules, &known, at);
                round.alerts.extend(alerts);
                if tool == Tool::Back && round.came_back.len() < MAX_NAMED {
                    round.came_back.push(asked.node.clone());
                }
            }
        }
    }
}
