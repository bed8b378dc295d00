//! Switches: what stands still, because a breaker tripped or a person said so.

use crate::model::NodeName;
use crate::run::Actor;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// How much stands still.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "scope", content = "name", rename_all = "snake_case")]
pub enum Scope {
    /// Everything.
    Fleet,
    /// One partition.
    Partition(String),
    /// One playbook, in every version.
    Playbook(String),
    /// One node.
    Node(NodeName),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fleet => f.write_str("the fleet"),
            Self::Partition(name) => write!(f, "partition {name}"),
            Self::Playbook(id) => write!(f, "playbook {id}"),
            Self::Node(node) => write!(f, "node {node}"),
        }
    }
}

/// Why a scope stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Since when.
    pub since: Timestamp,
    /// The person who stopped it; `None` for a breaker that tripped by itself.
    pub by: Option<Actor>,
    /// Why.
    pub why: String,
}

impl Stop {
    /// Says it in one sentence.
    pub fn sentence(&self, scope: &Scope) -> String {
        match &self.by {
            Some(by) => format!("{by} stopped {scope}: {}", self.why),
            None => format!("the breaker of {scope} is open: {}", self.why),
        }
    }
}

/// What a piece of work touches, to find the switches that concern it.
#[derive(Debug, Clone, Copy)]
pub struct Affected<'a> {
    /// The node.
    pub node: &'a NodeName,
    /// Partitions of the node; `None` where they are not known, and then a stop of any partition concerns it.
    pub partitions: Option<&'a [String]>,
    /// Id of the playbook.
    pub playbook: &'a str,
}

/// Everything that stands still now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Switches {
    stops: BTreeMap<Scope, Stop>,
}

impl Switches {
    /// Stops a scope; one that stands still already keeps its first reason.
    pub(super) fn stop(&mut self, scope: Scope, stop: Stop) {
        self.stops.entry(scope).or_insert(stop);
    }

    /// Lets a scope go on; says whether it stood still.
    pub(super) fn release(&mut self, scope: &Scope) -> bool {
        self.stops.remove(scope).is_some()
    }

    /// Finds why a scope stands still.
    pub fn find(&self, scope: &Scope) -> Option<&Stop> {
        self.stops.get(scope)
    }

    /// Lists what stands still.
    pub fn iter(&self) -> impl Iterator<Item = (&Scope, &Stop)> {
        self.stops.iter()
    }

    /// Finds what keeps a piece of work from changing anything: the widest scope first.
    pub fn against(&self, work: Affected<'_>) -> Option<String> {
        let concerns = |scope: &Scope| match scope {
            Scope::Fleet => true,
            Scope::Partition(p) => work.partitions.is_none_or(|all| all.contains(p)),
            Scope::Playbook(id) => id == work.playbook,
            Scope::Node(n) => n == work.node,
        };
        self.stops.iter().find(|(scope, _)| concerns(scope)).map(|(scope, stop)| stop.sentence(scope))
    }
}
