//! Ports: what the engine needs of the world, in plain domain types.
//!
//! Each has a real implementation in the adapters and a simulated one in the test kit; the contract suite runs
//! against both. No method panics, blocks without a deadline, or turns "could not read" into a value.

use async_trait::async_trait;
use engine_core::known::{Known, Unknown};
use engine_core::model::gpu::{DiagReport, HealthReport};
use engine_core::model::{
    Job, Node, NodeGpus, NodeName, Partition, PendingJob, Reservation, ResetOutcome, RunId,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

/// A value with the time at which the read that gave it began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observed<T> {
    /// What was read.
    pub value: T,
    /// When the read began: the world may have changed since.
    pub at: Timestamp,
}

/// A read: the value, or why there is none. Never an empty value for a failed read.
pub type Read<T> = Result<Observed<T>, Unknown>;

/// What a write to the scheduler came to, before any read-back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// The controller said yes. Read back before believing it.
    Accepted,
    /// The controller said no, and what it said.
    Refused(Refusal),
    /// Nobody can say: time-out, killed client, unreadable answer. It may still be applied later.
    Ambiguous(String),
}

/// Why the controller said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of no.
    pub kind: RefusalKind,
    /// The controller's words: text from outside.
    pub text: String,
}

/// Kinds of no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// We may not do that.
    NotPermitted,
    /// No such node, job or reservation.
    NotFound,
    /// Not possible in the node's present state.
    InvalidState,
    /// A reservation of this name exists: the lock is held.
    AlreadyExists,
    /// Anything else.
    Other,
}

/// Release and form of the controller as far as they could be found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// Release, e.g. `24.05.3`.
    pub version: Known<String>,
    /// How it is read, for `doctor`: `scontrol text`, `scontrol --json=v0.0.42`, `slurmrestd v0.0.42 over …`.
    pub read_by: String,
    /// How it is written.
    pub written_by: String,
    /// Cluster name, where known.
    pub cluster: Known<String>,
}

/// A MAINT reservation that serves as lock and quarantine on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockReservation {
    /// `slurmedic-<node>`.
    pub name: String,
    /// The node.
    pub node: NodeName,
    /// Exact end, to the second: it is derived from the run, so that an ambiguous creation can be recognised.
    pub end: Timestamp,
}

/// The cluster's scheduler.
#[async_trait]
pub trait Scheduler: Send + Sync + Debug {
    /// Finds out release and access path. Fails where the controller does not answer.
    async fn controller(&self) -> Read<Controller>;
    /// Reads one node. A node that does not exist is an error, never an empty value.
    async fn node(&self, node: &NodeName) -> Read<Node>;
    /// Reads every node.
    async fn nodes(&self) -> Read<Vec<Node>>;
    /// Reads the jobs that have this node, in every state, finished ones included; an empty list is only ever the
    /// controller's own clean answer.
    async fn jobs_on(&self, node: &NodeName) -> Read<Vec<Job>>;
    /// Reads a node and the jobs on it: as the two reads would, with fewer calls where they share one.
    async fn node_with_jobs(&self, node: &NodeName) -> (Read<Node>, Read<Vec<Job>>) {
        tokio::join!(self.node(node), self.jobs_on(node))
    }
    /// Reads every job.
    async fn jobs(&self) -> Read<Vec<Job>>;
    /// Reads pending jobs with what they asked for. It only serves to say what a run costs the queue; a scheduler that
    /// cannot tell leaves it unknown.
    async fn pending(&self) -> Read<Vec<PendingJob>> {
        Err(Unknown::new(
            engine_core::Cause::Unsupported,
            "this scheduler does not tell what pending jobs asked for",
        ))
    }
    /// Reads every reservation.
    async fn reservations(&self) -> Read<Vec<Reservation>>;
    /// Reads every partition.
    async fn partitions(&self) -> Read<Vec<Partition>>;
    /// Sets DRAIN with this reason on one node.
    async fn drain(&self, node: &NodeName, reason: &str) -> Write;
    /// Clears DRAIN on one node.
    async fn resume(&self, node: &NodeName) -> Write;
    /// Creates the lock reservation, starting now; a second one of the same name is refused with `AlreadyExists`.
    async fn create_lock(&self, lock: &LockReservation) -> Write;
    /// Deletes a reservation by name; `NotFound` when it is gone.
    async fn delete_reservation(&self, name: &str) -> Write;
}

/// One order to a node: everything the node needs, and nothing that another node could use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkOrder {
    /// Unique: run, effect and attempt. An order is carried out at most once.
    pub id: String,
    /// The only node that may carry it out.
    pub node: NodeName,
    /// The run it belongs to; `None` for reads outside a run, as `plan` makes them.
    pub run: Option<RunId>,
    /// What to do.
    pub verb: Verb,
    /// Time limit of the work itself.
    pub limit: SignedDuration,
}

/// The allow-listed verbs of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Verb {
    /// Reads GPUs, holders, health and the tools' own state.
    Inspect,
    /// Resets one GPU after the node's own check: same UUID and bus id, no process on it.
    ResetGpu {
        /// UUID the plan was made for.
        uuid: String,
        /// PCI address the plan was made for.
        bus_id: String,
    },
    /// Runs the DCGM diagnostic.
    Diag {
        /// Level, 1 to 3.
        level: u8,
    },
    /// Collects a read-only bundle of texts.
    CollectEvidence,
    /// Starts again what a reset takes apart (DCGM and its exporter), after an engine died in the middle of one. Waits
    /// for a reset that is still under way; resets nothing.
    RestoreTools,
    /// Sets one GPU's locked and application clocks back to their defaults.
    ResetClocks {
        /// UUID the plan was made for.
        uuid: String,
        /// PCI address the plan was made for.
        bus_id: String,
    },
    /// Restarts one service that the node's own configuration lists; any other is refused by the node.
    RestartService {
        /// Name of its unit, with or without `.service`.
        unit: String,
    },
    /// Lists processes, those that matter first; without their arguments.
    Processes,
    /// Ends one process of a user that belongs to no job: TERM, and KILL where that is not enough.
    KillProcess {
        /// Its id.
        pid: u32,
        /// When it started, in clock ticks since the boot: with the id it names one process for ever.
        start_time: u64,
    },
    /// Moves a leftover out of a scratch directory into the quarantine beside it. Deletes nothing.
    Quarantine {
        /// Absolute path below one of the scratch directories that the node's own configuration lists.
        path: String,
    },
}

impl Verb {
    /// Says whether doing it twice does no harm. Any other order is carried out at most once, whoever gives it again.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::Inspect
            | Self::Processes
            | Self::Diag { .. }
            | Self::CollectEvidence
            | Self::RestoreTools => true,
            Self::ResetGpu { .. }
            | Self::ResetClocks { .. }
            | Self::RestartService { .. }
            | Self::KillProcess { .. }
            | Self::Quarantine { .. } => false,
        }
    }

    /// Returns the stable word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Inspect => "inspect",
            Self::ResetGpu { .. } => "reset_gpu",
            Self::Diag { .. } => "diag",
            Self::CollectEvidence => "collect_evidence",
            Self::RestoreTools => "restore_tools",
            Self::ResetClocks { .. } => "reset_clocks",
            Self::RestartService { .. } => "restart_service",
            Self::Processes => "processes",
            Self::KillProcess { .. } => "kill_process",
            Self::Quarantine { .. } => "quarantine",
        }
    }
}

/// One file of an evidence bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceItem {
    /// Short name, e.g. `nvidia-smi-q.txt`.
    pub name: String,
    /// The text, bounded.
    pub text: String,
    /// Why it is missing or cut, empty where it is whole.
    pub note: String,
}

/// The most bytes that an evidence bundle has, encoded as JSON.
pub const MAX_EVIDENCE: usize = 20 << 20;

/// The clocks of one GPU as nvidia-smi tells them, in MHz. What was locked by hand cannot be read from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuClocks {
    /// Clock of the multiprocessors right now.
    pub sm: Known<u32>,
    /// The highest they can have.
    pub sm_max: Known<u32>,
    /// Application clock that is set; unknown where the GPU or driver has none.
    pub application: Known<u32>,
    /// Application clock by default.
    pub application_default: Known<u32>,
}

/// A service as the unit manager tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    /// `active`, `inactive`, `failed`, `activating`, ...
    pub active: String,
    /// The finer state: `running`, `dead`, `auto-restart`, ...
    pub sub: String,
    /// Main process; 0 for none.
    pub main_pid: u32,
}

/// One process of a node. Arguments and environment are left out: they may hold secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeProcess {
    /// Its id.
    pub pid: u32,
    /// When it started, in clock ticks since the boot.
    pub start_time: u64,
    /// Effective user id.
    pub uid: u32,
    /// Name of that user, where the node knows it in time.
    pub user: Option<String>,
    /// Short name of the program: text from outside.
    pub command: String,
    /// Its control group; unknown where it cannot be read.
    pub cgroup: Known<String>,
    /// The Slurm job whose control group it is in; an empty text for none.
    pub job: Known<String>,
    /// Whether it has a GPU's device open.
    pub holds_gpu: Known<bool>,
    /// The kernel's letter: R, S, D (waits and cannot be killed), Z (ended), ...
    pub state: char,
    /// Seconds since it started.
    pub age_s: u64,
}

/// The processes of a node, bounded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProcessList {
    /// GPU holders first, then what cannot be killed, then users' processes, then the system's.
    pub processes: Vec<NodeProcess>,
    /// How many more there are.
    pub left_out: usize,
}

/// What became of a process that was to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum KillEnd {
    /// It had ended before a signal was sent.
    WasGone,
    /// It ended after this signal, `TERM` or `KILL`.
    Ended {
        /// Name of the signal.
        signal: String,
    },
    /// It got a signal and is still there: after KILL, as in an uninterruptible wait for a device or file system
    /// (state D); after TERM, when the second look forbade KILL. The steps say which.
    Remains {
        /// The kernel's letter for its state.
        state: char,
    },
}

/// What a node answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", content = "data", rename_all = "snake_case")]
pub enum WorkResult {
    /// Answer to `Inspect`.
    Inspected(Box<NodeGpus>),
    /// Answer to `ResetGpu`: the outcome by exit code, and the steps taken around it for `show`.
    Reset {
        /// The outcome.
        outcome: ResetOutcome,
        /// What was done around the reset: detach, restart of the engine, ..., with what came of each.
        steps: Vec<String>,
    },
    /// Answer to `Diag`.
    Diag(Known<DiagReport>),
    /// Answer to `CollectEvidence`.
    Evidence(Vec<EvidenceItem>),
    /// Answer to `RestoreTools`: what was done.
    Restored(Vec<String>),
    /// Answer to `ResetClocks`, after nvidia-smi took at least one of the two commands.
    ClocksReset {
        /// Read right before.
        before: GpuClocks,
        /// Read back.
        after: GpuClocks,
        /// The commands and what came of each.
        steps: Vec<String>,
    },
    /// Answer to `RestartService`: the unit manager did it; whether the service runs is in `after`.
    ServiceRestarted {
        /// Name of the unit.
        unit: String,
        /// Right before.
        before: ServiceState,
        /// Read back until it ran, failed or the time was over.
        after: ServiceState,
    },
    /// Answer to `Processes`.
    Processes(Known<ProcessList>),
    /// Answer to `KillProcess`.
    Killed {
        /// What became of it.
        end: KillEnd,
        /// What was done.
        steps: Vec<String>,
    },
    /// Answer to `Quarantine`: moved.
    Quarantined {
        /// Where it was.
        from: String,
        /// Where it is now.
        to: String,
    },
    /// Not done, and certain not to be: the order is refused by the node's own check or no tool is there.
    Refused(String),
    /// Nobody can say whether it was done: lost, timed out, killed.
    Ambiguous(String),
}

/// Health as the node's tools gave it; re-exported so that actuators need not name the core.
pub type Health = Known<HealthReport>;

/// What a node can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActuatorStatus {
    /// How orders reach the node: `this host`, `agent`, `simulated`.
    pub by: String,
    /// Whether orders for this node can be carried out now, or why not.
    pub ready: Result<(), String>,
}

/// Privileged work on nodes, without SSH: this host, an agent that pulls orders, or the simulator.
#[async_trait]
pub trait NodeActuator: Send + Sync + Debug {
    /// Says how a node is reached, without touching it.
    async fn status(&self, node: &NodeName) -> ActuatorStatus;
    /// Carries out one order and answers within its limit plus a bounded grace.
    async fn perform(&self, order: &WorkOrder) -> WorkResult;
}

/// GPU telemetry that does not need the node's own tools, such as a scrape of dcgm-exporter.
#[async_trait]
pub trait GpuTelemetry: Send + Sync + Debug {
    /// Reads the GPUs of one node.
    async fn gpus(&self, node: &NodeName) -> Read<NodeGpus>;
}

/// Time. The only source of `now` and the only way to wait.
#[async_trait]
pub trait Clock: Send + Sync + Debug {
    /// Returns the time.
    fn now(&self) -> Timestamp;
    /// Waits.
    async fn sleep(&self, duration: SignedDuration);
}

/// Identifiers.
pub trait Ids: Send + Sync + Debug {
    /// Returns a new run id: unique, sortable by time where possible.
    fn run_id(&self) -> RunId;
}

/// Starts work that goes on by itself: the runtime's own tasks, or participants of a simulation.
pub trait Spawn: Send + Sync + Debug {
    /// Starts it; `name` is for people.
    fn spawn(&self, name: String, task: Task);
}

/// Work that goes on by itself.
pub type Task = std::pin::Pin<Box<dyn std::future::Future<Output = ()> + Send>>;
