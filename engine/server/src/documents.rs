//! The answers of the API: the same documents that the verbs print with `--format json`.

use engine_core::digest::Digest;
use engine_core::incident::{Incident, Scope, Stop};
use engine_core::model::RunId;
use engine_core::run::Event;
use engine_runtime::journal::RunSummary;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Which engine this is, and who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// `slurmedic/about/1`.
    pub format: String,
    /// Release.
    pub version: String,
    /// Name of the engine process.
    pub engine: String,
    /// Its journal; `None` for one in memory.
    pub journal: Option<String>,
    /// Whether the cluster is the simulated one.
    pub simulated: bool,
    /// Who asks, as the engine knows them.
    pub you: String,
    /// How it knows.
    pub known_by: String,
    /// What they may do.
    pub may: Vec<String>,
}

/// A list of runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Runs {
    /// `slurmedic/runs/1`.
    pub format: String,
    /// The runs, newest first.
    pub runs: Vec<RunSummary>,
    /// Those whose engine is gone.
    pub interrupted: Vec<RunId>,
}

/// One run, event by event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Show {
    /// `slurmedic/show/1`.
    pub format: String,
    /// The run.
    pub run: RunId,
    /// Where it stands.
    pub status: String,
    /// Its events, in order.
    pub events: Vec<Event>,
}

/// What became of a decision about a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// `slurmedic/approve/1`, `slurmedic/deny/1` or `slurmedic/cancel/1`.
    pub format: String,
    /// The run.
    pub run: RunId,
    /// Where it stands now.
    pub status: String,
    /// The last word about why.
    pub why: String,
    /// Who decided, as it is on record.
    pub by: String,
}

/// Open incidents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incidents {
    /// `slurmedic/incidents/1`.
    pub format: String,
    /// What stands still, each in one sentence.
    pub stops: Vec<String>,
    /// How many incidents are open.
    pub open: usize,
    /// The oldest of them.
    pub incidents: Vec<Incident>,
}

/// An incident that a person closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// `slurmedic/closed/1`.
    pub format: String,
    /// The incident.
    pub incident: String,
    /// Its node.
    pub node: String,
    /// Who closed it, as it is on record.
    pub by: String,
}

/// One thing that stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopNow {
    /// How much.
    pub scope: Scope,
    /// Since when, by whom, why.
    pub stop: Stop,
}

/// What stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopList {
    /// `slurmedic/breaker/1`.
    pub format: String,
    /// Each.
    pub stops: Vec<StopNow>,
}

/// A scope that was stopped or let go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// `slurmedic/breaker/1`.
    pub format: String,
    /// How much.
    pub scope: Scope,
    /// `stands still` or `goes on`.
    pub now: String,
}

/// Why a node is as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// `slurmedic/why/1`.
    pub format: String,
    /// The node as Slurm tells it, or why it is not known.
    pub node: serde_json::Value,
    /// Its state in one word; `None` where it could not be read.
    pub state: Option<String>,
    /// What Slurm says about it, or why that is not known.
    pub slurm: String,
    /// Whether its drain is of this journal and unchanged.
    pub drain_is_ours: bool,
    /// Whose drain it is, in one sentence; `None` where that cannot be told.
    pub drain: Option<String>,
    /// The last runs on it, newest first.
    pub runs: Vec<RunSummary>,
    /// What a person should do next after the last run.
    pub next: Option<String>,
}

/// What became of alerts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertsTaken {
    /// `slurmedic/alert/1`.
    pub format: String,
    /// Alerts that were taken.
    pub taken: usize,
    /// Alerts that opened or joined an incident.
    pub new: usize,
    /// Alerts that open nothing, or are no alerts.
    pub refused: usize,
    /// One sentence for each, in order; cut after [`crate::sources::MAX_ANSWERS`].
    pub answers: Vec<String>,
}

/// A ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketIssued {
    /// `slurmedic/ticket/1`.
    pub format: String,
    /// The run.
    pub run: RunId,
    /// The plan it is for.
    pub digest: Digest,
    /// The person whose yes it carries.
    pub person: String,
    /// When it is void.
    pub expires_at: Timestamp,
    /// The ticket itself: a secret.
    pub ticket: String,
}
