//! The shape of the fleet: which nodes there are, and what they share.

use crate::model::NodeName;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Where a node belongs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its partitions.
    pub partitions: Vec<String>,
    /// Its rack, where the site says.
    pub rack: Option<String>,
}

/// Which nodes there are, and what they share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape {
    nodes: BTreeMap<NodeName, Place>,
    partitions: BTreeMap<String, usize>,
}

impl Shape {
    /// Builds the shape from every node's place.
    pub fn new(nodes: impl IntoIterator<Item = (NodeName, Place)>) -> Self {
        let nodes: BTreeMap<NodeName, Place> = nodes.into_iter().collect();
        let mut partitions = BTreeMap::new();
        for place in nodes.values() {
            for p in place.partitions.iter().collect::<BTreeSet<_>>() {
                *partitions.entry(p.clone()).or_insert(0) += 1;
            }
        }
        Self { nodes, partitions }
    }

    /// Counts the nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Says whether no node is known.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Finds a node's place; `None` for a node that the cluster does not have.
    pub fn place(&self, node: &NodeName) -> Option<&Place> {
        self.nodes.get(node)
    }

    /// Counts the nodes of a partition.
    pub fn partition_size(&self, partition: &str) -> usize {
        self.partitions.get(partition).copied().unwrap_or(0)
    }

    /// Lists the nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.nodes.keys()
    }
}
