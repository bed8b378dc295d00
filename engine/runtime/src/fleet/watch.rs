//! The watch in this process: hands each look at the cluster, and each scrape of an exporter, to the rules of the core, with
//! what is on record.

use super::log::FleetLog;
use crate::gather::Eyes;
use crate::ports::{Clock, GpuTelemetry};
use engine_core::incident::{Alert, Tools};
use engine_core::known::{Cause, Unknown};
use engine_core::model::{Node, NodeGpus, NodeName};
use engine_core::watch::{
    Asked, GpuRules, GpuWatch, Reasons, SlurmRules, SlurmWatch, Tool, gpu, single_look, slurm, standing,
    standing_gpus,
};
use jiff::{SignedDuration, Timestamp};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;

/// The most exporters that are asked at a time.
pub const MAX_ASKED: usize = 64;
/// How long one exporter may take.
const SCRAPE_LIMIT: Duration = Duration::from_secs(10);
/// How long a single look at a node may take.
const LOOK_LIMIT: SignedDuration = SignedDuration::from_secs(60);
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
    /// How each of them is.
    pub exporters: Tools,
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

    /// Lists the nodes with GPUs as the last look at the cluster found them.
    pub fn with_gpus(&self) -> Vec<Asked> {
        lock(&self.slurm).with_gpus()
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
        {
            let gpus = lock(&self.gpus);
            round.silent = gpus.silent(&self.gpu_rules);
            round.exporters = gpus.exporters(&self.gpu_rules);
        }
        round
    }

    /// Looks at the GPUs of one node, by its own tools or its exporter: alerts for the intake. `None` for a node without
    /// GPUs; an error says nothing about the node.
    pub async fn single(&self, node: &NodeName, eyes: Eyes<'_>) -> Option<Result<Vec<Alert>, Unknown>> {
        let asked = lock(&self.slurm).asked(node)?;
        Some(match eyes.look_at_gpus(node, None, LOOK_LIMIT).await {
            Err(why) => Err(why),
            Ok((seen, _)) => {
                let known = self.log.read(|f| standing_gpus(f, node, gpu::LOOK)).await;
                Ok(single_look(&asked, &seen.value, &known, self.clock.now()))
            }
        })
    }

    async fn take(&self, asked: &Asked, read: Result<NodeGpus, Unknown>, round: &mut GpuRound) {
        match read {
            Err(why) => {
                let why = why.to_string();
                let tool = lock(&self.gpus).unread(&asked.node, &why, &self.gpu_rules);
                if tool == Tool::Silent && round.fell_silent.len() < MAX_NAMED {
                    round.fell_silent.push((asked.node.clone(), why));
                }
            }
            Ok(seen) => {
                round.answered += 1;
                let at = self.clock.now();
                let known = self.log.read(|f| standing_gpus(f, &asked.node, gpu::SOURCE)).await;
                let (alerts, tool) = lock(&self.gpus).read(asked, &seen, &self.gpu_rules, &known, at);
                round.alerts.extend(alerts);
                if tool == Tool::Back && round.came_back.len() < MAX_NAMED {
                    round.came_back.push(asked.node.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::MemoryJournal;
    use crate::ports::{Observed, Read};
    use crate::system::SystemClock;
    use async_trait::async_trait;
    use engine_core::incident::ToolHealth;
    use engine_core::known::Known;
    use engine_core::model::node_state::{classify, parse_state_text};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Exporters of which every tenth is down; counts how many are asked at a time.
    #[derive(Debug, Default)]
    struct Exporters {
        now: AtomicUsize,
        most: AtomicUsize,
    }

    #[async_trait]
    impl GpuTelemetry for Exporters {
        async fn gpus(&self, node: &NodeName) -> Read<NodeGpus> {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.now.fetch_sub(1, Ordering::SeqCst);
            if node.as_str().ends_with('0') {
                return Err(Unknown::new(Cause::ReadFailed, "connection refused"));
            }
            let value = NodeGpus::unseen(Cause::NotReported, "");
            Ok(Observed { value, at: Timestamp::UNIX_EPOCH })
        }
    }

    fn node(i: usize) -> Node {
        let (base, flags) = parse_state_text("IDLE");
        let unseen = Cause::NotObserved;
        Node {
            name: NodeName::new(&format!("gpu{i:03}")).unwrap(),
            state: classify(&base, &flags),
            base,
            flags,
            reason: Known::Known(None),
            partitions: Known::Known(vec![]),
            features: Known::Known(vec![]),
            gres: Known::Known("gpu:h100:8".to_owned()),
            gpus_configured: Known::Known(8),
            gpus_allocated: Known::Known(0),
            cpus: Known::Known(64),
            cpus_allocated: Known::Known(0),
            memory_mib: Known::Known(512_000),
            boot_time: Known::unknown(unseen, ""),
            slurmd_start_time: Known::unknown(unseen, ""),
            slurmd_version: Known::unknown(unseen, ""),
            comment: Known::Known(None),
            extra: Known::Known(None),
            reservation: Known::Known(None),
        }
    }

    #[tokio::test]
    async fn exporters_are_asked_some_at_a_time_and_silent_ones_are_named_once() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let log = FleetLog::open(Arc::new(MemoryJournal::new()), Arc::clone(&clock)).await.unwrap();
        let reasons = Reasons::new(vec![]).unwrap();
        let watch = Watch::new(Arc::new(log), clock, reasons, SlurmRules::default(), true);
        let nodes: Vec<Node> = (0..200).map(node).collect();
        assert!(watch.nodes(&nodes, Timestamp::now()).await.is_empty());
        let exporters = Arc::new(Exporters::default());
        let telemetry: Arc<dyn GpuTelemetry> = exporters.clone();
        let mut named = Vec::new();
        for round in 1..=4 {
            let r = watch.exporters(&telemetry, SignedDuration::ZERO).await;
            assert_eq!((r.asked, r.answered), (200, 180));
            assert_eq!(r.silent, if round < 3 { 0 } else { 20 });
            let ill = |h: &&ToolHealth| matches!(h, ToolHealth::Ill(why) if why.contains("refused"));
            assert_eq!((r.exporters.len(), r.exporters.values().filter(ill).count()), (200, r.silent));
            // What a node lacks it must lack twice.
            let missing = r.alerts.iter().filter(|a| a.fault == "gpu-count-mismatch").count();
            assert_eq!(missing, if round < 2 { 0 } else { 180 });
            named.push(r.fell_silent.len());
        }
        assert_eq!(named, [0, 0, 20, 0]);
        let most = exporters.most.load(Ordering::SeqCst);
        assert!((2..=MAX_ASKED).contains(&most), "{most} at a time");
    }
}
