//! Whether a node is in service, as the budgets count it: every unavailable node, whoever took it (rule 10).
//!
//! This is not [`crate::model::NodeState`], which says what goes on at a node: here the question is whether the queue
//! can have it.

use crate::known::Known;
use crate::model::{BaseState, Node, NodeFlag, RunId};
use crate::ownership::run_of_reason;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the queue can have of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// Jobs run or may start, for some users at least.
    In,
    /// Power saving has it, on purpose. It is not unavailable, since a job wakes it; it is no spare either, since
    /// nobody knows whether it wakes. So it counts on neither side.
    Asleep,
    /// FUTURE or EXTERNAL: no part of the cluster. It counts on neither side.
    Apart,
    /// Not available.
    Out(Out),
}

impl Service {
    /// Says whether the node counts against the budgets.
    pub fn is_out(&self) -> bool {
        matches!(self, Self::Out(_))
    }

    /// Says whether the node is part of what percentages are of.
    pub fn counts(&self) -> bool {
        matches!(self, Self::In | Self::Out(_))
    }
}

/// Why a node is not available.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Out {
    /// Its state cannot be told.
    Unknown(String),
    /// DOWN.
    Down,
    /// Does not answer slurmctld.
    NotResponding,
    /// slurmd has less than slurm.conf says.
    InvalidReg,
    /// A reboot was asked for or is going on.
    Rebooting,
    /// DRAIN or FAIL.
    Drained {
        /// Who wrote the reason, where known.
        by: Option<String>,
        /// The run that the reason names. Only the journal knows whether there is such a run.
        run: Option<RunId>,
    },
    /// In a reservation for maintenance now.
    Maintenance {
        /// Its name, where known.
        reservation: Option<String>,
    },
}

impl fmt::Display for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(why) => write!(f, "state unknown ({why})"),
            Self::Down => f.write_str("down"),
            Self::NotResponding => f.write_str("not responding"),
            Self::InvalidReg => f.write_str("registered with less than configured"),
            Self::Rebooting => f.write_str("rebooting"),
            Self::Drained { run: Some(run), .. } => write!(f, "drained by run {run}"),
            Self::Drained { by: Some(user), .. } => write!(f, "drained by {user}"),
            Self::Drained { .. } => f.write_str("drained"),
            Self::Maintenance { reservation: Some(name) } => write!(f, "in maintenance reservation {name}"),
            Self::Maintenance { .. } => f.write_str("in maintenance"),
        }
    }
}

/// Flags of a node that power saving has, takes or gives.
const POWER: &[NodeFlag] = &[
    NodeFlag::PowerDown,
    NodeFlag::PoweringDown,
    NodeFlag::PoweredDown,
    NodeFlag::PowerUp,
    NodeFlag::PoweringUp,
    NodeFlag::PowerDownAsap,
    NodeFlag::PowerDownForce,
    NodeFlag::PowerDrain,
];

/// Classifies a node by base state and flags. `maintenance` is the MAINT reservation that covers it now, if one does.
///
/// The order is one of care, from what is worst to know. A node that power saving has and that is DOWN or drained as
/// well is out: no job wakes it. What Slurm alone blocks for a job (BLOCKED, RESERVED, PLANNED, COMPLETING) is in
/// service, as an allocated node is.
pub fn service(node: &Node, maintenance: Option<&str>) -> Service {
    let flags = &node.flags;
    let base = match &node.base {
        Known::Unknown(u) => return Service::Out(Out::Unknown(u.to_string())),
        Known::Known(b) => *b,
    };
    if let Some(word) = flags.unknown.first() {
        return Service::Out(Out::Unknown(format!("flag {word}")));
    }
    match base {
        BaseState::Unknown => {
            return Service::Out(Out::Unknown("slurmctld has not heard from it".to_owned()));
        }
        BaseState::Future => return Service::Apart,
        _ if flags.has(NodeFlag::External) => return Service::Apart,
        _ => {}
    }
    if flags.has_any(&[NodeFlag::RebootRequested, NodeFlag::RebootIssued]) {
        return Service::Out(Out::Rebooting);
    }
    if base == BaseState::Down {
        return Service::Out(Out::Down);
    }
    let asleep = flags.has_any(POWER);
    if flags.has(NodeFlag::NotResponding) && !asleep {
        return Service::Out(Out::NotResponding);
    }
    if flags.has(NodeFlag::InvalidReg) {
        return Service::Out(Out::InvalidReg);
    }
    if flags.has_any(&[NodeFlag::Drain, NodeFlag::Fail]) {
        let reason = node.reason.known().and_then(Option::as_ref);
        return Service::Out(Out::Drained {
            by: reason.and_then(|r| r.user.known().cloned()),
            run: reason.and_then(|r| run_of_reason(&r.text)),
        });
    }
    if maintenance.is_some() || flags.has(NodeFlag::Maintenance) {
        return Service::Out(Out::Maintenance { reservation: maintenance.map(str::to_owned) });
    }
    if asleep { Service::Asleep } else { Service::In }
}
