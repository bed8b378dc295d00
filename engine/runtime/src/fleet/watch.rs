//! The watch in this process: hands each look at the cluster to the rules of the core, with what is on record.

use super::log::FleetLog;
use engine_core::incident::Alert;
use engine_core::model::Node;
use engine_core::watch::{Reasons, SlurmRules, SlurmWatch, slurm, standing};
use jiff::Timestamp;
use std::sync::{Arc, Mutex, PoisonError};

/// Watches a cluster by polling alone.
#[derive(Debug)]
pub struct Watch {
    log: Arc<FleetLog>,
    reasons: Reasons,
    rules: SlurmRules,
    slurm: Mutex<SlurmWatch>,
}

impl Watch {
    /// Builds a watch that remembers nothing yet. What an earlier one told is on record.
    pub fn new(log: Arc<FleetLog>, reasons: Reasons, rules: SlurmRules) -> Self {
        Self { log, reasons, rules, slurm: Mutex::default() }
    }

    /// Compares a whole read of the cluster with what is known: alerts for the intake, of faults that are new and of
    /// faults that are over.
    pub async fn nodes(&self, nodes: &[Node], at: Timestamp) -> Vec<Alert> {
        let standing = self.log.read(|f| standing(f, slurm::SOURCE)).await;
        let mut watch = self.slurm.lock().unwrap_or_else(PoisonError::into_inner);
        watch.look(nodes, &self.reasons, &self.rules, &standing, at)
    }
}
