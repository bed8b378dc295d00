//! What can go wrong in one run, and where.

use crate::world::{PersonAction, Script};
use engine_core::model::NodeName;
use engine_runtime::journal::CrashPoint;
use jiff::SignedDuration;
use std::fmt;

/// One thing that goes wrong, at one point of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Twist {
    /// Nothing: the way everything should go.
    Nothing,
    /// The engine dies at an append, counted from its start; the next one may die as well.
    Crash {
        /// Number of the append, from 1, and on which side of it.
        first: (u64, CrashPoint),
        /// The same for the engine that takes over.
        second: Option<(u64, CrashPoint)>,
    },
    /// A call of a port goes wrong.
    Call {
        /// Its number, from 1, in the order in which calls are begun.
        number: u64,
        /// How.
        way: Way,
    },
    /// Somebody or something else changes the node right after an event of the run.
    Foreign {
        /// Number of the event, from 1.
        after: u64,
        /// How long after it.
        delay: SignedDuration,
        /// What changes.
        change: Foreign,
    },
    /// Every write reaches slurmctld twice, and every order reaches its node twice.
    Twice {
        /// How long after the first.
        after: SignedDuration,
    },
}

/// How a call of a port goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Refused for good: no permission.
    RefusedForGood,
    /// Refused for now.
    RefusedForNow,
    /// Nobody can say, and it was done.
    AmbiguousDone,
    /// Nobody can say, and it was not done.
    AmbiguousNotDone,
    /// Nobody can say, and it is done some time later.
    AmbiguousLate,
    /// The other side hangs for a minute, and then goes on with what reached it.
    Hangs,
    /// The other side is away for five minutes.
    Away,
    /// An answer without content.
    Empty,
    /// An answer to another question.
    OtherAnswer,
    /// The engine dies while the call is under way, and the work is done all the same.
    DiesDone,
    /// The engine dies while the call is under way, and the work is lost.
    DiesLost,
}

impl Way {
    /// Ways of a read of slurmctld.
    pub const READ: [Self; 5] = [Self::RefusedForNow, Self::Empty, Self::Hangs, Self::Away, Self::DiesLost];
    /// Ways of a write to slurmctld.
    pub const WRITE: [Self; 9] = [
        Self::RefusedForGood,
        Self::RefusedForNow,
        Self::AmbiguousDone,
        Self::AmbiguousNotDone,
        Self::AmbiguousLate,
        Self::Hangs,
        Self::Away,
        Self::DiesDone,
        Self::DiesLost,
    ];
    /// Ways of an order to a node.
    pub const ORDER: [Self; 8] = [
        Self::RefusedForGood,
        Self::AmbiguousDone,
        Self::AmbiguousNotDone,
        Self::Hangs,
        Self::Empty,
        Self::OtherAnswer,
        Self::DiesDone,
        Self::DiesLost,
    ];
}

/// A change that is not the engine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Foreign {
    /// A person drains the node with a reason of their own.
    Drain,
    /// A person resumes the node.
    Resume,
    /// A person writes another reason.
    Reason,
    /// A person sets the node down.
    Down,
    /// A person asks for a reboot as soon as possible, the node resumed after it.
    Reboot,
    /// A person asks for a reboot when the node is idle, its state kept.
    RebootLater,
    /// A person reserves the node for maintenance.
    Maintenance,
    /// A person deletes the engine's reservation.
    DeletesLock,
    /// A job for this node is put into the queue.
    Job,
    /// slurmd dies for good.
    SlurmdDies,
    /// slurmd dies and is back after a quarter of a minute.
    SlurmdRestarts,
    /// The node's tools hang from now on.
    ToolsHang,
    /// A process takes the GPU.
    Holder,
    /// The GPU breaks for good.
    BreaksForGood,
}

impl Foreign {
    /// Every change.
    pub const ALL: [Self; 14] = [
        Self::Drain,
        Self::Resume,
        Self::Reason,
        Self::Down,
        Self::Reboot,
        Self::RebootLater,
        Self::Maintenance,
        Self::DeletesLock,
        Self::Job,
        Self::SlurmdDies,
        Self::SlurmdRestarts,
        Self::ToolsHang,
        Self::Holder,
        Self::BreaksForGood,
    ];

    /// Returns what happens, each with the time after the first.
    pub fn scripts(self, node: &NodeName, gpu: u32) -> Vec<(SignedDuration, Script)> {
        let by = |action| Script::Person { login: PERSON.to_owned(), action };
        let fault = |fault| Script::Fault { node: node.clone(), gpu, fault };
        let node_ = || node.clone();
        let now = |script| vec![(SignedDuration::ZERO, script)];
        match self {
            Self::Drain => now(by(PersonAction::Drain { node: node_(), reason: REASON.to_owned() })),
            Self::Resume => now(by(PersonAction::Resume { node: node_() })),
            Self::Reason => now(by(PersonAction::SetReason { node: node_(), reason: REASON.to_owned() })),
            Self::Down => now(by(PersonAction::Down { node: node_(), reason: REASON.to_owned() })),
            Self::Reboot => now(by(PersonAction::Reboot { node: node_(), asap: true, then_resume: true })),
            Self::RebootLater => {
                now(by(PersonAction::Reboot { node: node_(), asap: false, then_resume: false }))
            }
            Self::Maintenance => now(by(PersonAction::Maintenance {
                name: RESERVATION.to_owned(),
                node: node_(),
                duration: SignedDuration::from_hours(12),
            })),
            Self::DeletesLock => {
                let name = engine_core::ownership::reservation_name(node);
                now(by(PersonAction::DeleteReservation { name }))
            }
            Self::Job => {
                now(Script::SubmitJob { node: node_(), gpus: 2, run: SignedDuration::from_secs(45) })
            }
            Self::SlurmdDies => now(Script::Slurmd { node: node_(), alive: false }),
            Self::SlurmdRestarts => vec![
                (SignedDuration::ZERO, Script::Slurmd { node: node_(), alive: false }),
                (SignedDuration::from_secs(15), Script::Slurmd { node: node_(), alive: true }),
            ],
            Self::ToolsHang => now(fault(crate::world::Fault::ToolsHang)),
            Self::Holder => {
                now(fault(crate::world::Fault::Holder { pid: 4_242, name: "python3; reboot".to_owned() }))
            }
            Self::BreaksForGood => now(fault(crate::world::Fault::RemapFailure)),
        }
    }
}

/// Login of the person who interferes.
pub const PERSON: &str = "admin1";
/// What that person writes: text from outside that looks like much else.
pub const REASON: &str = "mine now: {{ node.name }}; State=RESUME $(reboot)";
/// The reservation that person makes.
pub const RESERVATION: &str = "theirs";

impl fmt::Display for Twist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |point: &CrashPoint| if *point == CrashPoint::Before { "before" } else { "after" };
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Crash { first, second } => {
                write!(f, "crash {} append {}", side(&first.1), first.0)?;
                match second {
                    Some(second) => write!(f, ", then {} append {}", side(&second.1), second.0),
                    None => Ok(()),
                }
            }
            Self::Call { number, way } => write!(f, "call {number}: {way:?}"),
            Self::Foreign { after, delay, change } => {
                write!(f, "{change:?} {delay:#} after event {after}")
            }
            Self::Twice { after } => write!(f, "everything twice, {after:#} later"),
        }
    }
}
