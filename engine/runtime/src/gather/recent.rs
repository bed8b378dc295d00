//! Looks of the last moments, so that deciding twice within milliseconds does not ask slurmctld twice.

use super::Situation;
use engine_core::model::NodeName;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The last readable look at each node. A look that began before the end of our last write to the node is never
/// given out again (rule 3), whoever began it.
#[derive(Debug, Default)]
pub(crate) struct RecentLooks {
    nodes: Mutex<BTreeMap<NodeName, Recent>>,
}

#[derive(Debug, Default)]
struct Recent {
    /// Counts beginnings and ends of writes.
    writes: u64,
    look: Option<Situation>,
}

/// Proof of when a look began, seen from our own writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Began(u64);

impl RecentLooks {
    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeName, Recent>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a look for begun.
    pub(crate) fn begin(&self, node: &NodeName) -> Began {
        Began(self.nodes().get(node).map_or(0, |r| r.writes))
    }

    /// Keeps a look, unless something was written to the node since it began.
    pub(crate) fn keep(&self, node: &NodeName, began: Began, look: &Situation) {
        let mut nodes = self.nodes();
        let recent = nodes.entry(node.clone()).or_default();
        if recent.writes == began.0 {
            recent.look = Some(look.slurm_side());
        }
    }

    /// Forgets a node: to be called before and after each write to it.
    pub(crate) fn forget(&self, node: &NodeName) {
        let mut nodes = self.nodes();
        let recent = nodes.entry(node.clone()).or_default();
        recent.writes += 1;
        recent.look = None;
    }

    /// Gives out a look not older than `limit`.
    pub(crate) fn reuse(&self, node: &NodeName, now: Timestamp, limit: SignedDuration) -> Option<Situation> {
        let mut nodes = self.nodes();
        let recent = nodes.get_mut(node)?;
        let look = recent.look.as_ref()?;
        let age = now.duration_since(look.at);
        if age <= limit && !age.is_negative() {
            return Some(look.clone());
        }
        recent.look = None;
        None
    }
}
