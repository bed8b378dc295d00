//! Run ids that are the same in every run of a seed.

use engine_core::model::RunId;
use engine_runtime::ports::Ids;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts runs: `sim7-0001`, `sim7-0002`, ... for seed 7.
#[derive(Debug)]
pub struct SeededIds {
    seed: u64,
    next: AtomicU64,
}

impl SeededIds {
    /// Builds the ids of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, next: AtomicU64::new(1) }
    }
}

impl Ids for SeededIds {
    fn run_id(&self) -> RunId {
        let n = self.next.fetch_add(1, Ordering::SeqCst);
        RunId::new(&format!("sim{}-{n:04}", self.seed)).unwrap_or_else(|_| RunId::unknown())
    }
}
