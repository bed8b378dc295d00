//! A job that waits, with what it asked for: more than the scheduler says of running jobs.

use super::names::NodeName;
use crate::known::Known;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A pending job as one read saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingJob {
    /// The id as Slurm shows it, with array or component part.
    pub display_id: String,
    /// Owner.
    pub user: Known<String>,
    /// Partitions it may run in; it takes the first that has room.
    pub partitions: Known<Vec<String>>,
    /// Number of nodes it asked for, at least.
    pub nodes: Known<u32>,
    /// Nodes it asked for by name; empty for most jobs.
    pub named: Known<Vec<NodeName>>,
    /// Nodes on which backfill has planned it; empty where it has no plan.
    pub planned: Known<Vec<NodeName>>,
    /// When it is expected to start, where that is planned.
    pub start: Known<Option<Timestamp>>,
    /// Why it waits, Slurm's word.
    pub reason: Known<String>,
}
