//! A compute node as slurmctld reports it.

use super::names::NodeName;
use super::node_state::{BaseState, NodeFlags, NodeState};
use crate::known::Known;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Why a node is in its administrative state: text that people and tools leave, last writer wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The text as stored by slurmctld.
    pub text: String,
    /// Who wrote it.
    pub user: Known<String>,
    /// When it was written.
    pub at: Known<Timestamp>,
}

/// A node as one read saw it. Missing or unreadable fields are unknown, never a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name in slurm.conf.
    pub name: NodeName,
    /// Base state.
    pub base: Known<BaseState>,
    /// Flags OR-ed onto the base state, unknown ones included.
    pub flags: NodeFlags,
    /// Our classification of base and flags.
    pub state: NodeState,
    /// The reason, if there is one. A reason says nothing about the state: some releases keep it after a resume.
    pub reason: Known<Option<Reason>>,
    /// Partitions the node is in.
    pub partitions: Known<Vec<String>>,
    /// Active features.
    pub features: Known<Vec<String>>,
    /// Configured generic resources as text, e.g. `gpu:h100:8`.
    pub gres: Known<String>,
    /// Number of GPUs configured.
    pub gpus_configured: Known<u32>,
    /// Number of GPUs allocated to jobs now. 0 is no proof that the epilog ended.
    pub gpus_allocated: Known<u32>,
    /// CPUs of the node.
    pub cpus: Known<u32>,
    /// CPUs allocated to jobs now.
    pub cpus_allocated: Known<u32>,
    /// Configured memory in MiB.
    pub memory_mib: Known<u64>,
    /// Boot time; jitters by a second, and is unknown for some seconds after each resume.
    pub boot_time: Known<Timestamp>,
    /// When slurmd started.
    pub slurmd_start_time: Known<Timestamp>,
    /// Version of slurmd on the node.
    pub slurmd_version: Known<String>,
    /// Free text of the administrators.
    pub comment: Known<Option<String>>,
    /// A second free text.
    pub extra: Known<Option<String>>,
    /// Name of the reservation the node is in now, where this release reports it.
    pub reservation: Known<Option<String>>,
}
