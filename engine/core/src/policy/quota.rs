//! The budgets of one request, to be counted again inside the journal's transaction that takes the lock.
//!
//! A judgement is made on a look at the cluster; between it and the lock another run may be admitted. The quota carries
//! what the look gave, and counts the locks of that moment into it, so that no order of admissions exceeds a budget.

use super::document::Policy;
use super::fleet::{Fleet, Group, GroupKind};
use super::ledger::Held;
use super::share::Share;
use crate::model::{NodeName, RunId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A budget of one group.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The group's place in the fleet.
    group: usize,
    /// Most nodes of it that may be out of service.
    pub limit: usize,
    /// The limit as the policy writes it.
    pub written: Share,
}

/// How full a budget is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// The group, for people: `partition main`.
    pub group: String,
    /// Nodes out of service, those of locks included.
    pub out: usize,
    /// Nodes of the group that count.
    pub of: usize,
    /// Most that may be out of service.
    pub limit: usize,
    /// The limit as the policy writes it.
    pub written: String,
    /// Whether the request would take one node more than the limit out of service.
    pub exceeded: bool,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {} out of service, budget {}", self.group, self.out, self.of, self.limit)?;
        if self.written == self.limit.to_string() { Ok(()) } else { write!(f, " ({})", self.written) }
    }
}

/// Why a run is not admitted now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// A budget is full.
    #[error("{0}")]
    Budget(Level),
    /// As many runs go on as may.
    #[error("{running} runs go on, at most {limit} may")]
    Runs {
        /// Runs that hold a lock.
        running: usize,
        /// The limit.
        limit: u32,
    },
    /// Another run has the node.
    #[error("run {0} has this node")]
    Node(RunId),
}

/// The budgets of one request. `Send`, `Sync`, and cheap to clone.
#[derive(Debug, Clone)]
pub struct Quota {
    fleet: Fleet,
    node: NodeName,
    takes_out: bool,
    scopes: Vec<Scope>,
    concurrent_runs: u32,
}

impl Quota {
    /// Makes the quota of a request for one node. Groups in which the node is are its scopes.
    pub fn of(policy: &Policy, fleet: &Fleet, node: &NodeName, takes_out: bool) -> Self {
        let b = &policy.budgets;
        let scopes = fleet
            .groups_of(node)
            .map(|(place, group)| {
                let named =
                    |map: &BTreeMap<String, Share>, default| map.get(&group.name).copied().unwrap_or(default);
                let written = match group.kind {
                    GroupKind::Fleet => b.fleet,
                    GroupKind::Partition => named(&b.partitions, b.partition),
                    GroupKind::Rack => named(&b.racks, b.rack),
                    GroupKind::Fabric => named(&b.fabrics, b.fabric),
                };
                Scope { group: place, limit: written.of(group.counted), written }
            })
            .collect();
        Self {
            fleet: fleet.clone(),
            node: node.clone(),
            takes_out,
            scopes,
            concurrent_runs: policy.concurrent_runs,
        }
    }

    /// Returns the budgets.
    pub fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    /// Says how full each budget is with these locks held by others.
    ///
    /// A locked node counts once, also if it is out of service already; one that the look did not know counts in every
    /// group. A node that is out of service already is not taken out a second time, so its run exceeds nothing.
    pub fn levels<'a>(&self, held: impl IntoIterator<Item = &'a Held>) -> Vec<Level> {
        let others = held.into_iter().filter(|h| h.takes_out && h.node != self.node).map(|h| &h.node);
        let locked = self.fleet.not_yet_out(others);
        let own = self.fleet.node(&self.node).is_some_and(|m| m.service.is_out());
        let level = |s: &Scope| {
            let group: &Group = self.fleet.groups().get(s.group)?;
            let out = group.out + locked.iter().filter(|p| p.is_none_or(|p| group.has(p))).count();
            Some(Level {
                group: group.to_string(),
                out,
                of: group.counted,
                limit: s.limit,
                written: s.written.to_string(),
                exceeded: self.takes_out && !own && out >= s.limit,
            })
        };
        self.scopes.iter().filter_map(level).collect()
    }

    /// Decides, on the locks that the store holds at this very moment, whether the run may take its lock. To be called
    /// inside the transaction that writes the lock; it reads nothing else and takes microseconds.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn admit<'a, I>(&self, run: &RunId, held: I) -> Result<(), NotAdmitted>
    where
        I: IntoIterator<Item = &'a Held> + Clone,
    {
        let others = || held.clone().into_iter().filter(|h| h.run != *run);
        if let Some(h) = others().find(|h| h.node == self.node) {
            return Err(NotAdmitted::Node(h.run.clone()));
        }
        let running: BTreeSet<&RunId> = others().map(|h| &h.run).collect();
        if running.len() >= self.concurrent_runs as usize {
            return Err(NotAdmitted::Runs { running: running.len(), limit: self.concurrent_runs });
        }
        match self.levels(others()).into_iter().find(|l| l.exceeded) {
            Some(level) => Err(NotAdmitted::Budget(level)),
            None => Ok(()),
        }
    }
}
