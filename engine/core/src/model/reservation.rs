//! Reservations and partitions.

use super::names::NodeName;
use crate::known::Known;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A reservation as one read saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reservation {
    /// Its name.
    pub name: String,
    /// Start.
    pub start: Known<Timestamp>,
    /// End.
    pub end: Known<Timestamp>,
    /// Nodes, expanded.
    pub nodes: Known<Vec<NodeName>>,
    /// Flags such as MAINT and IGNORE_JOBS, as Slurm prints them, upper case.
    pub flags: Known<Vec<String>>,
    /// Users it is for.
    pub users: Known<Vec<String>>,
    /// Accounts it is for.
    pub accounts: Known<Vec<String>>,
}

impl Reservation {
    /// Says whether it is a maintenance reservation; unknown flags count as yes, since that is the careful reading.
    pub fn is_maintenance(&self) -> bool {
        match &self.flags {
            Known::Known(f) => f.iter().any(|w| w == "MAINT"),
            Known::Unknown(_) => true,
        }
    }

    /// Says whether it covers the node at this time; what is unknown counts as covered.
    pub fn covers(&self, node: &NodeName, now: Timestamp) -> bool {
        let there = self.nodes.known().is_none_or(|n| n.contains(node));
        let started = self.start.known().is_none_or(|s| *s <= now);
        let not_over = self.end.known().is_none_or(|e| *e > now);
        there && started && not_over
    }
}

/// A partition as one read saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Partition {
    /// Its name.
    pub name: String,
    /// Nodes, expanded.
    pub nodes: Known<Vec<NodeName>>,
    /// UP, DOWN, DRAIN or INACTIVE.
    pub state: Known<String>,
    /// Whether jobs go here by default.
    pub is_default: Known<bool>,
}
