//! Names that may reach a command line: validated once, then carried by type.

use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

/// A text that cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing was given.
    #[error("the {what} is empty")]
    Empty {
        /// What was being named.
        what: &'static str,
    },
    /// Too long.
    #[error("the {what} has {len} bytes; at most {max} are allowed")]
    TooLong {
        /// What was being named.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A character that could make it more than one name.
    #[error(
        "the {what} {shown:?} contains {found:?}: name exactly one, with letters, digits, `-`, `_` and `.` only; no list, no range, no ALL"
    )]
    BadCharacter {
        /// What was being named.
        what: &'static str,
        /// The first characters of what was given.
        shown: String,
        /// The first offending character.
        found: char,
    },
    /// A word that Slurm reads as "every node".
    #[error("{shown:?} is a word of Slurm, not the name of one node")]
    Reserved {
        /// The word.
        shown: String,
    },
}

/// The longest node name accepted, in bytes.
pub const MAX_NODE_NAME: usize = 128;

/// The name of exactly one node: never a hostlist, never `ALL` (rule 15). Copies share the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// Accepts the name of one node.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let name = plain_name("node name", text, MAX_NODE_NAME)?;
        if ["ALL", "NONE", "LOCALHOST*"].iter().any(|w| name.eq_ignore_ascii_case(w)) {
            return Err(InvalidName::Reserved { shown: name });
        }
        Ok(Self(name.into()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for NodeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for NodeName {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// The identifier of a run: short, lower case, unique in its journal, safe in a reason and in a reservation name.
/// Copies share the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(Arc<str>);

impl RunId {
    /// Accepts an identifier.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        Ok(Self(plain_name("run id", text, 64)?.into()))
    }

    /// Stands for a run whose identifier could not be read; never the id of a run.
    pub fn unknown() -> Self {
        Self("unknown".into())
    }

    /// Returns the identifier.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for RunId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

fn plain_name(what: &'static str, text: &str, max: usize) -> Result<String, InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty { what });
    }
    if text.len() > max {
        return Err(InvalidName::TooLong { what, len: text.len(), max });
    }
    let first_ok = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let bad = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
    match bad.or_else(|| (!first_ok).then(|| text.chars().next()).flatten()) {
        None => Ok(text.to_owned()),
        Some(found) => Err(InvalidName::BadCharacter { what, shown: text.chars().take(48).collect(), found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_one_node_is_a_node_name() {
        for good in ["gpu001", "n1", "node-7.cluster_a"] {
            assert_eq!(NodeName::new(good).unwrap().as_str(), good);
        }
        let long = "x".repeat(10_240);
        for bad in [
            "",
            "gpu[001-999]",
            "ALL",
            "all",
            "gpu001,gpu002",
            "gpu001\n",
            "gpu 1",
            "-n",
            "--",
            "a;b",
            "\u{20ac}",
            &long,
        ] {
            assert!(NodeName::new(bad).is_err(), "{bad:?}");
        }
        assert!(NodeName::new(&long).unwrap_err().to_string().len() < 200);
    }
}
