//! Which nodes share a rack or a fabric domain.

use super::hosts::Hosts;
use crate::known::{Known, Unknown};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The rack of nodes that are in none.
pub const UNKNOWN_RACK: &str = "unknown";

/// Where the racks come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RackSource {
    /// The leaf switches of Slurm's own topology.conf, where there is one.
    #[default]
    #[serde(rename = "topology.conf")]
    Topology,
    /// Nowhere: every node is in the rack `unknown`.
    #[serde(rename = "none")]
    Nowhere,
    /// The map in the policy.
    #[serde(rename = "map")]
    Map,
}

/// Groups of nodes by name: racks or fabric domains.
pub type Groups = BTreeMap<String, Hosts>;

/// Which nodes share a rack or a fabric domain, as the policy says it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Racks {
    /// Where the racks come from.
    pub from: RackSource,
    /// Racks with their nodes, for `map`.
    pub map: Groups,
    /// Fabric domains with their nodes, such as NVLink domains. The blocks of topology.conf count as well.
    pub fabrics: Groups,
}

/// What Slurm's topology says, in neutral words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Leaf switches with their nodes.
    pub racks: Groups,
    /// Blocks with their nodes.
    pub fabrics: Groups,
}

/// Racks and fabric domains in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// Racks with their nodes.
    pub racks: Groups,
    /// Fabric domains with their nodes.
    pub fabrics: Groups,
    /// Why the racks or domains could not be told, where they could not: nothing is permitted then.
    pub unknown: Option<Unknown>,
}

impl Layout {
    /// Puts the policy's map and Slurm's topology together.
    ///
    /// `topology` is only looked at where the policy asks for it. `Known(None)` says that the cluster has none, which is
    /// common; an unknown one makes the layout unknown.
    pub fn of(racks: &Racks, topology: &Known<Option<Topology>>) -> Self {
        let mut fabrics = racks.fabrics.clone();
        let (racks, unknown) = match (&racks.from, topology) {
            (RackSource::Map, _) => (racks.map.clone(), None),
            (RackSource::Nowhere, _) => (Groups::new(), None),
            (RackSource::Topology, Known::Known(Some(t))) => {
                for (name, nodes) in &t.fabrics {
                    // The policy's own word about a domain counts.
                    fabrics.entry(name.clone()).or_insert_with(|| nodes.clone());
                }
                (t.racks.clone(), None)
            }
            (RackSource::Topology, Known::Known(None)) => (Groups::new(), None),
            (RackSource::Topology, Known::Unknown(u)) => (Groups::new(), Some(u.clone())),
        };
        Self { racks, fabrics, unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known::Cause;

    #[test]
    fn the_policy_says_where_the_racks_come_from() {
        let groups = |name: &str, nodes: &[&str]| {
            Groups::from([(name.to_owned(), Hosts::new(nodes.iter().map(|n| (*n).to_owned()).collect()))])
        };
        let topology = Topology { racks: groups("leaf1", &["n1", "n2"]), fabrics: groups("b1", &["n1"]) };
        let known = Known::Known(Some(topology));
        let from = |from, fabrics: Groups| Racks { from, map: groups("r1", &["n1"]), fabrics };

        let l = Layout::of(&from(RackSource::Topology, Groups::new()), &known);
        assert_eq!((l.racks.len(), l.fabrics.len(), l.unknown), (1, 1, None));
        let l = Layout::of(&from(RackSource::Topology, groups("b1", &["n9"])), &known);
        assert_eq!(l.fabrics["b1"].names(), ["n9"], "the policy's own word counts");
        let l = Layout::of(&from(RackSource::Map, Groups::new()), &known);
        assert_eq!((l.racks, l.fabrics.len()), (groups("r1", &["n1"]), 0));
        let unread = Known::unknown(Cause::ReadFailed, "permission denied");
        assert!(Layout::of(&from(RackSource::Topology, Groups::new()), &unread).unknown.is_some());
        assert!(Layout::of(&from(RackSource::Nowhere, Groups::new()), &unread).unknown.is_none());
        assert_eq!(Layout::of(&Racks::default(), &Known::Known(None)), Layout::default());
    }
}
