//! A playbook as the engine uses it: typed, checked, without source positions.
//!
//! The playbook crate builds it from YAML; only a document without errors becomes one.

use crate::condition::Condition;
use crate::digest::Digest;
use crate::value::{EnumType, Type, Value};
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What a playbook is run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// A whole node.
    Node,
    /// One GPU of a node.
    Gpu,
}

/// Who has to say yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalClass {
    /// Nobody: only for playbooks that mutate nothing but tickets, mail and comments.
    Auto,
    /// Nobody inside the canary scope, one person elsewhere.
    Canary,
    /// One person.
    Hitl,
    /// Two different people.
    Hitl2,
}

impl ApprovalClass {
    /// Returns the stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Canary => "canary",
            Self::Hitl => "hitl",
            Self::Hitl2 => "hitl2",
        }
    }

    /// Returns how many people are needed outside any canary scope.
    pub fn people(self) -> u8 {
        match self {
            Self::Auto => 0,
            Self::Canary | Self::Hitl => 1,
            Self::Hitl2 => 2,
        }
    }
}

/// How the good end leaves the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ends {
    /// In service, verified.
    InService,
    /// Drained, on purpose: `ends: drained`.
    Drained,
    /// As it was found: the playbook never takes the node out.
    Untouched,
}

/// Exactly one version of a playbook.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlaybookRef {
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: Version,
    /// SHA-256 of the document's bytes.
    pub digest: Digest,
}

impl fmt::Display for PlaybookRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.version)
    }
}

/// A parameter that the caller may set.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamDecl {
    /// Its type.
    pub ty: Type,
    /// Value used when the caller gives none; without one the caller must.
    pub default: Option<Value>,
    /// Least value allowed.
    pub min: Option<Value>,
    /// Greatest value allowed.
    pub max: Option<Value>,
    /// Meaning.
    pub doc: String,
}

/// What the site must offer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Requires {
    /// Releases of Slurm.
    pub slurm: Option<VersionReq>,
    /// Releases of DCGM.
    pub dcgm: Option<VersionReq>,
    /// Verbs of adapters, e.g. `gpu.reset`.
    pub capabilities: Vec<String>,
}

/// A condition that must hold before the first mutation.
#[derive(Debug, Clone, PartialEq)]
pub struct Precondition {
    /// The condition.
    pub condition: Condition,
    /// What to do instead when it does not hold, for people.
    pub otherwise: Option<String>,
}

/// An argument as the playbook gives it.
#[derive(Debug, Clone, PartialEq)]
pub enum ArgValue {
    /// A finished value.
    Literal(Value),
    /// A text with `{{ }}`, rendered when the plan is made and then read as the argument's type.
    Template(String),
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Declared action.
    pub action: &'static crate::action::ActionSpec,
    /// Arguments, without `timeout`.
    pub args: BTreeMap<String, ArgValue>,
    /// Guard: must be true right before the step, on fresh facts, else the run stops there and rolls back.
    pub when: Option<Condition>,
    /// Time limit: the step's `timeout`, or the argument of that name.
    pub timeout: Option<ArgValue>,
    /// Attempts for transient outcomes, the first included.
    pub attempts: Option<u32>,
}

/// A playbook that may be planned.
#[derive(Debug, Clone, PartialEq)]
pub struct Playbook {
    /// Id, version and digest.
    pub reference: PlaybookRef,
    /// One sentence for people.
    pub summary: String,
    /// Team that answers for it.
    pub owner: String,
    /// What it is run on.
    pub target: TargetKind,
    /// Faults it is for.
    pub fault: Vec<String>,
    /// What the site must offer.
    pub requires: Requires,
    /// Parameters.
    pub params: BTreeMap<String, ParamDecl>,
    /// Which GPU it is for, when the caller names none: true for exactly one.
    pub select: Option<Condition>,
    /// What must hold.
    pub preconditions: Vec<Precondition>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Steps of the way back, in order.
    pub rollback: Vec<Step>,
    /// Who has to say yes.
    pub approval: ApprovalClass,
    /// How the good end leaves the node.
    pub ends: Ends,
}

/// The words of a closed set that playbooks and `explain` share.
pub static APPROVAL: EnumType = EnumType {
    name: "approval",
    words: &[
        ("auto", "nobody is asked; only for playbooks that mutate nothing but tickets, mail and comments"),
        ("canary", "nobody inside the canary scope, one person elsewhere"),
        ("hitl", "one person"),
        ("hitl2", "two different people"),
    ],
};
