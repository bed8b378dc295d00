//! The catalogue: what each playbook is for, and its rungs with their actions in order.

use crate::action::EffectClass;
use crate::playbook::ApprovalClass;
use serde::{Deserialize, Serialize};

/// How much one run may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blast {
    /// Nothing that serves.
    None,
    /// One job.
    Job,
    /// One node.
    Node,
    /// A rack, a leaf or an NVLink domain.
    Domain,
    /// Everything, and only to hold it back.
    Fleet,
}

/// Words for what a rung needs of the situation. What is not known holds none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// No job holds the node, and none is planned for the next fifteen minutes.
    Idle,
    /// A job holds the node, or one is planned for the next fifteen minutes.
    Busy,
    /// A process waits and cannot be ended.
    Stuck,
    /// A process of the job is left, and can be ended.
    ProcessesLeft,
    /// No process of the job is left and the GPUs hold no memory.
    Clean,
    /// It did not happen in the last seven days.
    FirstTime,
    /// The only reason for the low clock is a limit that somebody set.
    LockedClocks,
    /// The owner was told and it goes on, or the job's owner is not known.
    Persists,
    /// The epilog of the job still goes on.
    EpilogRuns,
    /// The links reach over more than one node.
    Domain,
}

impl Need {
    /// Every word.
    pub const WORDS: &'static [&'static str] = &[
        "idle",
        "busy",
        "stuck",
        "processes_left",
        "clean",
        "first_time",
        "locked_clocks",
        "persists",
        "epilog_runs",
        "domain",
    ];
}

/// One rung: the first whose needs all hold is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaybookRung {
    /// Its name within the playbook.
    pub id: String,
    /// What must hold of the situation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
    /// Who has to agree.
    pub approval: ApprovalClass,
    /// Its actions, in order.
    pub actions: Vec<String>,
}

/// One playbook of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CataloguePlaybook {
    /// Its id.
    pub id: String,
    /// What it does, in one sentence.
    pub summary: String,
    /// The faults it is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// How much one run may touch.
    pub blast: Blast,
    /// What must hold beyond what holds for every playbook, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Its rungs.
    pub rungs: Vec<PlaybookRung>,
    /// What must hold at the good end, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<String>,
    /// What the way back leaves, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<String>,
    /// What it never does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never: Vec<String>,
    /// What it needs of the site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Where it comes from.
    pub sources: Vec<String>,
}

impl CataloguePlaybook {
    /// Says whether any rung takes something away from the node or from a job.
    pub fn mutates(&self) -> bool {
        self.rungs.iter().any(PlaybookRung::mutates)
    }
}

/// Actions without code yet that only read, or write only for people and into our own journal.
const HARMLESS: &[&str] = &[
    "node.label",
    "node.probe",
    "slurm.job_comment",
    "slurm.wait_registration",
    "gpu.compare_peers",
    "bmc.read",
    "metrics.read",
    "ticket.write",
    "mail.send",
    "notice.page",
    "health.verify_node",
    "incident.hold",
    "breaker.freeze",
    "fault.route",
];

/// Says whether an action only reads or writes for people. One that is not known is not.
pub fn is_harmless(action: &str) -> bool {
    match crate::action::find(action) {
        Some(spec) => spec.effect <= EffectClass::Annotate,
        None => HARMLESS.contains(&action),
    }
}

impl PlaybookRung {
    /// Says whether it takes something away from the node or from a job.
    pub fn mutates(&self) -> bool {
        self.actions.iter().any(|a| !is_harmless(a))
    }
}
