//! A set of nodes as a policy names it: a hostlist.

use crate::hostlist::{HostlistError, expand, fold};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Names of nodes, sorted and each once. In JSON it is one folded hostlist: `gpu[001-016]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// Takes names in any order.
    pub fn new(mut names: Vec<String>) -> Self {
        names.sort_unstable();
        names.dedup();
        Self(names)
    }

    /// Expands a hostlist; an empty text is no node.
    pub fn parse(text: &str) -> Result<Self, HostlistError> {
        if text.is_empty() { Ok(Self::default()) } else { expand(text).map(Self::new) }
    }

    /// Returns the names.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Says whether a name is among them.
    pub fn contains(&self, name: &str) -> bool {
        self.0.binary_search_by(|n| n.as_str().cmp(name)).is_ok()
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&fold(&self.0))
    }
}

impl Serialize for Hosts {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hosts {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_nodes_are_the_same_set() {
        let a = Hosts::parse("gpu[003,001-002]").unwrap();
        let b = Hosts::parse("gpu001,gpu[002-003],gpu001").unwrap();
        assert_eq!(a, b);
        assert_eq!(a.to_string(), "gpu[001-003]");
        assert!(a.contains("gpu002") && !a.contains("gpu004"));
        let json = serde_json::to_string(&a).unwrap();
        assert_eq!(serde_json::from_str::<Hosts>(&json).unwrap(), a);
        assert_eq!(Hosts::parse("").unwrap().names(), [""; 0]);
        assert!(Hosts::parse("gpu[1-").is_err());
    }
}
