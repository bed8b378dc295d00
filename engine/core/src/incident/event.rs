//! The events of the fleet. Stored as JSON in the journal: words are stable, fields are only ever added.

use super::alert::{Alert, Fingerprint};
use super::shape::Place;
use super::switch::Scope;
use crate::model::{NodeName, RunId};
use crate::run::Actor;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Names an incident: `i` and the place of its first event in the fleet's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IncidentId(pub u64);

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}", self.0)
    }
}

/// What becomes of work that waited while a breaker was open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueuedWork {
    /// Every waiting incident is closed; a fault that is still there is reported anew by its source.
    Drop,
    /// Every waiting incident is planned anew on fresh facts; a fault that is gone is closed.
    JudgeAnew,
}

/// How an incident was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closing {
    /// A run repaired it.
    Repaired,
    /// Its sources say that it is over.
    Over,
    /// Dropped by the person who released the breaker.
    Dropped,
    /// A person says that it is done.
    Done,
}

/// What went wrong with a run, as far as a breaker has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// Nobody can say what a step came to.
    Ambiguous,
    /// The run ended stuck.
    Stuck,
    /// It did what it should not have done: a person says so, or a job was lost to it.
    Wrongful,
}

/// What happened to the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum FleetEvent {
    /// An alert opened an incident on its node. The incident's id is the place of this event.
    Opened {
        /// The alert.
        alert: Alert,
        /// Where the node belongs.
        place: Place,
    },
    /// Another alert belongs to an open incident.
    Joined {
        /// The incident.
        incident: IncidentId,
        /// The alert.
        alert: Alert,
    },
    /// An alert of an open incident was seen again, so often, until then.
    Repeated {
        /// The incident.
        incident: IncidentId,
        /// Which alert.
        fingerprint: Fingerprint,
        /// How often since the last such event.
        times: u64,
        /// When it was seen last.
        last_seen: Timestamp,
    },
    /// A source says that an alert is over. It counts if it stays so; on record, so that a source that says it once only
    /// is heard by the next engine too.
    Eased {
        /// The incident.
        incident: IncidentId,
        /// Which alert.
        fingerprint: Fingerprint,
    },
    /// An alert stayed over.
    Resolved {
        /// The incident.
        incident: IncidentId,
        /// Which alert.
        fingerprint: Fingerprint,
    },
    /// A run was made for an incident.
    Planned {
        /// The incident.
        incident: IncidentId,
        /// The run.
        run: RunId,
    },
    /// Nothing is done for now, and why.
    Waiting {
        /// The incident.
        incident: IncidentId,
        /// One sentence for people.
        why: String,
    },
    /// A run ended without repairing it, or a rule asks for one: a person has it now.
    WithPerson {
        /// The incident.
        incident: IncidentId,
        /// One sentence for people.
        why: String,
    },
    /// Something went wrong with a run.
    Troubled {
        /// The run.
        run: RunId,
        /// Its playbook.
        playbook: String,
        /// What.
        trouble: Trouble,
        /// One sentence for people.
        why: String,
    },
    /// An incident is over.
    Closed {
        /// The incident.
        incident: IncidentId,
        /// How.
        closing: Closing,
        /// One sentence for people.
        why: String,
    },
    /// A breaker tripped by itself. The fleet incident it opens has the place of this event as its id.
    Tripped {
        /// What stands still.
        scope: Scope,
        /// One sentence for people, with the figures.
        why: String,
        /// The nodes behind it, at most [`MAX_LISTED`].
        nodes: Vec<NodeName>,
    },
    /// Several nodes of one rack have the same fault. The incident's id is the place of this event.
    RackStruck {
        /// The rack.
        rack: String,
        /// The fault word.
        fault: String,
        /// One sentence for people.
        why: String,
        /// The nodes behind it, at most [`MAX_LISTED`].
        nodes: Vec<NodeName>,
    },
    /// A tool that tells about nodes does not answer any more. The incident's id is the place of this event.
    ToolFailed {
        /// Which one, such as `exporter: gpu001`.
        tool: String,
        /// One sentence for people.
        why: String,
    },
    /// A person stopped everything in a scope.
    Stopped {
        /// What stands still.
        scope: Scope,
        /// Who.
        by: Actor,
        /// Why.
        why: String,
    },
    /// A person lets a scope go on.
    Released {
        /// What goes on.
        scope: Scope,
        /// Who.
        by: Actor,
        /// Why.
        why: String,
        /// What becomes of the work that waited.
        queued: QueuedWork,
    },
}

/// The most nodes that an event lists.
pub const MAX_LISTED: usize = 200;

impl FleetEvent {
    /// Returns the stable word of the event.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "opened",
            Self::Joined { .. } => "joined",
            Self::Repeated { .. } => "repeated",
            Self::Eased { .. } => "eased",
            Self::Resolved { .. } => "resolved",
            Self::Planned { .. } => "planned",
            Self::Waiting { .. } => "waiting",
            Self::WithPerson { .. } => "with_person",
            Self::Troubled { .. } => "troubled",
            Self::Closed { .. } => "closed",
            Self::Tripped { .. } => "tripped",
            Self::RackStruck { .. } => "rack_struck",
            Self::ToolFailed { .. } => "tool_failed",
            Self::Stopped { .. } => "stopped",
            Self::Released { .. } => "released",
        }
    }
}
