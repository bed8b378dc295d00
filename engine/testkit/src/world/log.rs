//! The history of a simulated world: who did what, to which node, when.

use engine_core::model::NodeName;
use jiff::Timestamp;
use std::fmt;

/// Who acts in the world.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// The engine under test, through its ports.
    Engine,
    /// A person, by login.
    Person(String),
    /// slurmctld or slurmd themselves.
    Slurm,
    /// The owners of jobs.
    Users,
    /// The hardware.
    Hardware,
}

impl Who {
    /// Names a person.
    pub fn person(login: &str) -> Self {
        Self::Person(login.to_owned())
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine => f.write_str("engine"),
            Self::Person(login) => f.write_str(login),
            Self::Slurm => f.write_str("slurm"),
            Self::Users => f.write_str("users"),
            Self::Hardware => f.write_str("hardware"),
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// When, in virtual time.
    pub at: Timestamp,
    /// Who.
    pub who: Who,
    /// Which node, where it was about one.
    pub node: Option<NodeName>,
    /// What.
    pub what: String,
}

impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(n) => write!(f, "{} {} {n}: {}", self.at, self.who, self.what),
            None => write!(f, "{} {}: {}", self.at, self.who, self.what),
        }
    }
}
