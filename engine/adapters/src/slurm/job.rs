//! Looks at nodes without an agent by Slurm jobs: inspection, diagnostic and evidence run as one job in the reservation that
//! the run holds on the node. What changes anything is never done so.
//!
//! Slurm starts no job on a drained node, in a reservation or not: this serves before the drain, and where a node is only
//! reserved. Who needs more runs the agent.

use crate::process::{self, Finished, Program};
use async_trait::async_trait;
use engine_core::model::NodeName;
use engine_core::model::node_state::NodeFlag;
use engine_core::ownership::reservation_name;
use engine_runtime::ports::{ActuatorStatus, Clock, NodeActuator, Scheduler, Verb, WorkOrder, WorkResult};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What the command on the node prints, on one line.
pub const FORMAT: &str = "slurmedic/node-result/1";
/// The largest answer, in bytes: a bundle of evidence as text.
const MAX_ANSWER: usize = 33 << 20;
/// Time for srun to cancel its job when it is told to.
const GRACE: Duration = Duration::from_secs(5);
/// How long the job may take to be gone from the node after its end.
const GONE: Duration = Duration::from_secs(20);
/// Pause between two looks whether it is.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_millis(500);

/// How jobs are started. The section `[node.job]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobConfig {
    /// Absolute path of `srun`.
    pub srun: PathBuf,
    /// Absolute path of `scancel`.
    pub scancel: PathBuf,
    /// Command on the nodes, as words; the order is added as the last one.
    pub command: Vec<String>,
    /// Seconds after which a job that has not started is given up, 1 to 600.
    pub start_seconds: u64,
    /// Seconds beyond an order's own limit, for prolog and epilog of the site, 1 to 3600.
    pub spare_seconds: u64,
    /// Partition of the jobs; the default one where not set.
    pub partition: Option<String>,
}

impl Default for JobConfig {
    fn default() -> Self {
        Self {
            srun: PathBuf::from("/usr/bin/srun"),
            scancel: PathBuf::from("/usr/bin/scancel"),
            command: ["/usr/bin/slurmedic", "agent", "perform"].map(str::to_owned).to_vec(),
            start_seconds: 60,
            spare_seconds: 60,
            partition: None,
        }
    }
}

impl JobConfig {
    /// Lists everything that is wrong with it, each with what to do.
    pub fn problems(&self) -> Vec<String> {
        let mut out = Vec::new();
        let first = self.command.first().map(PathBuf::from).unwrap_or_default();
        for (key, path) in [("srun", &self.srun), ("scancel", &self.scancel), ("command", &first)] {
            if !path.is_absolute() {
                out.push(format!("{key}: give an absolute path"));
            }
        }
        if !(1..=600).contains(&self.start_seconds) {
            out.push("start_seconds: 1 to 600".to_owned());
        }
        if !(1..=3_600).contains(&self.spare_seconds) {
            out.push("spare_seconds: 1 to 3600".to_owned());
        }
        let plain = |p: &String| p.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        if self.partition.as_ref().is_some_and(|p| p.is_empty() || !plain(p)) {
            out.push("partition: give one name".to_owned());
        }
        out
    }
}

/// What the command on the node prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobAnswer {
    /// [`FORMAT`].
    pub format: String,
    /// The order that it answers.
    pub order: String,
    /// The node.
    pub node: NodeName,
    /// What came of it.
    pub result: WorkResult,
}

/// Says whether an order may be a Slurm job: it only looks.
pub fn may_be_a_job(verb: &Verb) -> bool {
    matches!(verb, Verb::Inspect | Verb::Diag { .. } | Verb::CollectEvidence)
}

/// Nodes with agents, and Slurm jobs for those without.
#[derive(Debug, Clone)]
pub struct SlurmJobs {
    config: JobConfig,
    slurm_conf: Option<PathBuf>,
    scheduler: Arc<dyn Scheduler>,
    clock: Arc<dyn Clock>,
    agents: Arc<dyn NodeActuator>,
}

/// A place for a job.
struct Room {
    reservation: String,
    gpus: u32,
}

impl SlurmJobs {
    /// Builds it; `agents` is asked first, for everything.
    pub fn new(
        config: JobConfig,
        slurm_conf: Option<PathBuf>,
        scheduler: Arc<dyn Scheduler>,
        clock: Arc<dyn Clock>,
        agents: Arc<dyn NodeActuator>,
    ) -> Self {
        Self { config, slurm_conf, scheduler, clock, agents }
    }

    /// Finds the reservation of the run on the node, and whether Slurm would start a job there.
    async fn room(&self, node: &NodeName) -> Result<Room, String> {
        let name = reservation_name(node);
        let all = self.scheduler.reservations().await.map_err(|e| format!("reservations: {e}"))?;
        let Some(ours) = all.value.iter().find(|r| r.name == name) else {
            return Err(format!(
                "there is no reservation {name}: a job looks at a node only inside the run's own"
            ));
        };
        let alone = ours.nodes.known().is_some_and(|n| n.as_slice() == std::slice::from_ref(node));
        if !alone || !ours.covers(node, self.clock.now()) {
            return Err(format!("reservation {name} is not one of this node alone, for now"));
        }
        let read = self.scheduler.node(node).await.map_err(|e| format!("node {node}: {e}"))?;
        let closed = [NodeFlag::Drain, NodeFlag::Fail, NodeFlag::NotResponding, NodeFlag::InvalidReg];
        if read.value.flags.has_any(&closed) {
            return Err(format!(
                "{node} is drained or does not answer, and Slurm starts no job there: run the agent"
            ));
        }
        Ok(Room { reservation: name, gpus: read.value.gpus_configured.known().copied().unwrap_or(0) })
    }

    fn program(&self, program: &std::path::Path, deadline: Duration) -> Program {
        let p = Program::new(program).deadline(deadline).grace(GRACE).max_output(MAX_ANSWER);
        match &self.slurm_conf {
            Some(conf) => p.env("SLURM_CONF", conf.display().to_string()),
            None => p,
        }
    }

    async fn by_job(&self, order: WorkOrder) -> WorkResult {
        let refused = WorkResult::Refused;
        if order.limit <= SignedDuration::ZERO {
            return refused("the order leaves no time".to_owned());
        }
        let limit = order.limit.unsigned_abs();
        let room = match self.room(&order.node).await {
            Ok(room) => room,
            Err(why) => return refused(format!("no Slurm job on {}: {why}", order.node)),
        };
        let Ok(text) = serde_json::to_string(&order) else {
            return refused("the order could not be written".to_owned());
        };
        // The name is that of this one job, so that it can be cancelled and waited for.
        let name = format!("slurmedic-{}-{}", order.verb.word(), uuid::Uuid::now_v7().simple());
        let limit = limit + Duration::from_secs(self.config.spare_seconds);
        let minutes = limit.as_secs().div_ceil(60);
        let mut job = self
            .program(&self.config.srun, Duration::from_secs(self.config.start_seconds) + limit)
            .args([format!("--job-name={name}"), format!("--reservation={}", room.reservation)])
            .args([format!("--nodelist={}", order.node), format!("--time={minutes}")])
            .args([format!("--immediate={}", self.config.start_seconds)])
            .args([
                "--nodes=1",
                "--ntasks=1",
                "--exclusive",
                "--mem=0",
                "--chdir=/",
                "--export=NONE",
                "--mpi=none",
            ])
            .args(["--input=none", "--quiet"]);
        // Where devices are fenced by cgroups a job sees only the GPUs that it has.
        if room.gpus > 0 {
            job = job.arg(format!("--gres=gpu:{}", room.gpus));
        }
        if let Some(partition) = &self.config.partition {
            job = job.arg(format!("--partition={partition}"));
        }
        let done = process::run(&job.args(&self.config.command).arg(text)).await;
        let result = match done {
            Err(e) if e.never_started() => refused(format!("srun: {e}")),
            Err(e) => WorkResult::Ambiguous(format!("the Slurm job {name} did not end in time: {e}")),
            Ok(done) => read(&order, &done),
        };
        self.clear(&order.node, &name).await;
        result
    }

    /// Cancels the job where it is still there, and waits until it has left the node: it is no job of anybody.
    async fn clear(&self, node: &NodeName, name: &str) {
        let until = tokio::time::Instant::now() + GONE;
        let mut told = false;
        loop {
            if let Ok(jobs) = self.scheduler.jobs_on(node).await {
                let there = jobs.value.iter().any(|j| j.name.is_known_and(|n| n == name) && j.holds_node());
                if !there && told {
                    return;
                }
            }
            if !told {
                told = true;
                // One that has ended is not there any more, which is what is wanted.
                let cancel = self.program(&self.config.scancel, GRACE * 2).arg(format!("--name={name}"));
                if let Err(e) = process::run(&cancel).await {
                    tracing::warn!(event = "job_not_cancelled", name, "{e}");
                }
            } else if tokio::time::Instant::now() >= until {
                tracing::warn!(event = "job_remains", name, %node, "a diagnostic job is still on the node");
                return;
            } else {
                self.clock.sleep(LOOK_AGAIN).await;
            }
        }
    }
}

/// Reads what the job printed.
fn read(order: &WorkOrder, done: &Finished) -> WorkResult {
    let said: String =
        String::from_utf8_lossy(&done.stderr).chars().filter(|c| *c != '\r').take(600).collect();
    let said = said.trim().replace('\n', "; ");
    if done.truncated {
        return WorkResult::Ambiguous(format!("the job answers with more than {MAX_ANSWER} bytes"));
    }
    let text = String::from_utf8_lossy(&done.stdout);
    // A prolog of the site may print something before.
    let answer = text.lines().rev().find_map(|l| serde_json::from_str::<JobAnswer>(l).ok());
    match answer {
        Some(a) if a.format == FORMAT && a.order == order.id && a.node == order.node => a.result,
        Some(_) => WorkResult::Ambiguous("the job answered something else than was asked".to_owned()),
        None if said.contains("Unable to allocate resources") => {
            WorkResult::Refused(format!("Slurm gave no job on {}: {said}", order.node))
        }
        None => WorkResult::Ambiguous(format!("the job gave no answer: {}: {said}", done.exit)),
    }
}

#[async_trait]
impl NodeActuator for SlurmJobs {
    async fn status(&self, node: &NodeName) -> ActuatorStatus {
        let agent = self.agents.status(node).await;
        let Err(why) = &agent.ready else { return agent };
        match self.room(node).await {
            Ok(_) => ActuatorStatus { by: "slurm-job (looks only)".to_owned(), ready: Ok(()) },
            Err(no) => ActuatorStatus { by: "slurm-job".to_owned(), ready: Err(format!("{why}; {no}")) },
        }
    }

    async fn perform(&self, order: &WorkOrder) -> WorkResult {
        if self.agents.status(&order.node).await.ready.is_ok() {
            return self.agents.perform(order).await;
        }
        if !may_be_a_job(&order.verb) {
            return WorkResult::Refused(format!(
                "{} has no agent, and a Slurm job only looks: it does no {}",
                order.node,
                order.verb.word()
            ));
        }
        // In a task of its own: a caller who goes away leaves no job behind.
        let (me, order) = (self.clone(), order.clone());
        match tokio::spawn(async move { me.by_job(order).await }).await {
            Ok(result) => result,
            Err(e) => WorkResult::Ambiguous(format!("the job was lost: {e}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_looks_are_jobs_and_mistakes_are_named() {
        assert!(may_be_a_job(&Verb::Inspect) && may_be_a_job(&Verb::Diag { level: 2 }));
        for verb in [
            Verb::ResetGpu { uuid: "GPU-1".into(), bus_id: "00000000:1B:00.0".into() },
            Verb::RestoreTools,
            Verb::RestartService { unit: "x".into() },
            Verb::KillProcess { pid: 7, start_time: 7 },
        ] {
            assert!(!may_be_a_job(&verb), "{verb:?}");
        }
        assert_eq!(JobConfig::default().problems(), Vec::<String>::new());
        let bad = JobConfig {
            srun: "srun".into(),
            command: Vec::new(),
            start_seconds: 0,
            spare_seconds: 0,
            partition: Some("a b".to_owned()),
            ..JobConfig::default()
        };
        assert_eq!(bad.problems().len(), 5, "{:?}", bad.problems());
    }
}
