//! What can be made to happen in a simulated world, now, at a time, or in answer to the engine.

use super::gpu::Fault;
use engine_core::model::NodeName;
use jiff::SignedDuration;

/// Something that people do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PersonAction {
    /// `scontrol update nodename=… state=drain reason=…`.
    Drain {
        /// The node.
        node: NodeName,
        /// The reason.
        reason: String,
    },
    /// `scontrol update nodename=… state=resume`.
    Resume {
        /// The node.
        node: NodeName,
    },
    /// `scontrol update nodename=… reason=…`, the state as it is.
    SetReason {
        /// The node.
        node: NodeName,
        /// The reason.
        reason: String,
    },
    /// `scontrol update nodename=… state=down reason=…`: kills and requeues its jobs.
    Down {
        /// The node.
        node: NodeName,
        /// The reason.
        reason: String,
    },
    /// `scontrol reboot`.
    Reboot {
        /// The node.
        node: NodeName,
        /// ASAP: also drains.
        asap: bool,
        /// nextstate=RESUME: lifts every drain when the node is back.
        then_resume: bool,
    },
    /// A maintenance reservation from now on.
    Maintenance {
        /// Its name.
        name: String,
        /// The node.
        node: NodeName,
        /// How long.
        duration: SignedDuration,
    },
    /// Deletes a reservation, whoever made it.
    DeleteReservation {
        /// Its name.
        name: String,
    },
    /// `scontrol suspend JOB`.
    SuspendJob {
        /// The job.
        job: u64,
    },
    /// `scontrol resume JOB`.
    ResumeJob {
        /// The job.
        job: u64,
    },
    /// `scancel JOB`.
    CancelJob {
        /// The job.
        job: u64,
    },
    /// Ends the process that holds a GPU.
    StopHolder {
        /// The node.
        node: NodeName,
        /// GPU index.
        gpu: u32,
    },
}

/// A controller that misbehaves once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hiccup {
    /// The next write times out at the client and is applied this long after it was sent.
    WriteAppliedLater(SignedDuration),
    /// The next write times out at the client and is lost.
    WriteLost,
    /// The next read times out.
    ReadTimesOut,
    /// The next read gives an empty answer without an error.
    ReadEmpty,
    /// The next call takes this long.
    Slow(SignedDuration),
}

/// Anything that can be made to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// A person acts.
    Person {
        /// Login.
        login: String,
        /// What they do.
        action: PersonAction,
    },
    /// Hardware or node software breaks.
    Fault {
        /// The node.
        node: NodeName,
        /// GPU index; faults of the node's tools ignore it.
        gpu: u32,
        /// What breaks.
        fault: Fault,
    },
    /// The controller misbehaves once.
    Hiccup(Hiccup),
    /// The controller refuses connections for a while.
    ControllerDown(SignedDuration),
    /// The controller hangs (as under SIGSTOP): calls time out, writes are applied when it goes on.
    ControllerHang(SignedDuration),
    /// slurmd dies or comes back.
    Slurmd {
        /// The node.
        node: NodeName,
        /// Whether it lives from now on.
        alive: bool,
    },
    /// A job starts on this very node, if Slurm lets it.
    StartJob {
        /// The node.
        node: NodeName,
        /// GPU indexes it gets.
        gpus: Vec<u32>,
        /// Its run time.
        run: SignedDuration,
    },
    /// A job for this very node is put into the queue.
    SubmitJob {
        /// The node.
        node: NodeName,
        /// Number of GPUs.
        gpus: u32,
        /// Its run time.
        run: SignedDuration,
    },
    /// A job ends by itself, with success.
    FinishJob {
        /// The job.
        job: u64,
    },
}

/// What the engine does that a script may answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trigger {
    /// The engine's lock reservation on the node was created.
    EngineLocked,
    /// The engine's drain of the node took effect.
    EngineDrained,
    /// The engine's reset on the node was carried out.
    EngineReset,
    /// The engine's resume of the node took effect.
    EngineResumed,
}

/// A script that waits for the engine.
#[derive(Debug, Clone)]
pub(crate) struct Reaction {
    pub(crate) node: NodeName,
    pub(crate) trigger: Trigger,
    pub(crate) delay: SignedDuration,
    pub(crate) script: Script,
}
