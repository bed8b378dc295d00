//! Faults: how each shows, what proves it, what is done in which order and what never is.

use super::xid::Class;
use serde::{Deserialize, Serialize};

/// One way in which a fault shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signal {
    /// Where it shows: dcgm, kmsg, slurm, node_exporter, ib, bmc or job_log.
    pub kind: String,
    /// The number of a DCGM field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// The name of a metric, a counter or a sensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A regular expression on the text, for people and for exporters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<String>,
    /// A state of Slurm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// What the value must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What else to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// One rung of a ladder, the least destructive first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rung {
    /// What is done.
    #[serde(rename = "do")]
    pub does: String,
    /// Who has to agree: auto, canary, hitl or hitl2.
    pub approval: String,
    /// What must hold before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Its word.
    pub id: String,
    /// What it is about.
    pub class: Class,
    /// How strong it is as evidence.
    pub strength: String,
    /// The playbook; `none` where nothing is to be done, `human` where a person decides.
    pub playbook: String,
    /// How it shows.
    pub signals: Vec<Signal>,
    /// From when on it counts.
    pub threshold: String,
    /// What is read before anything is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confirm: Vec<String>,
    /// What is done, the least destructive first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ladder: Vec<Rung>,
    /// What must hold before the node serves again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verify: Vec<String>,
    /// What is never done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never: Vec<String>,
    /// What else to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How sure it is: high, medium or low.
    pub confidence: String,
    /// Where it comes from.
    pub sources: Vec<String>,
}

/// Which memory machinery a generation of GPUs has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// Its name.
    pub id: String,
    /// Its models.
    pub gpus: Vec<String>,
    /// Whether a memory error stays with the process that met it.
    pub containment: bool,
    /// Whether rows are remapped.
    pub row_remap: bool,
    /// What follows from it.
    pub effect: String,
    /// Where it comes from.
    pub sources: Vec<String>,
}

/// Which column of NVIDIA's catalogue a model follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuColumn {
    /// The column; `older` for GPUs before Ampere, to which the catalogue does not apply.
    pub column: String,
    /// PCIe replays in a minute that are too many, with all lanes at the model's generation.
    pub pcie_replays: u32,
    /// The models.
    pub gpus: Vec<String>,
    /// Where it comes from.
    pub sources: Vec<String>,
}

/// A line of the kernel log that tells a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelLine {
    /// Its name.
    pub id: String,
    /// Fragments that must all be in it, in lower case.
    pub has: Vec<String>,
    /// The fault.
    pub fault: String,
    /// Where it comes from.
    pub sources: Vec<String>,
}

/// A range of SXids whose numbers alone say how bad they are. The word in the line counts more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SxidRange {
    /// Its name.
    pub id: String,
    /// The first number.
    pub first: u32,
    /// The last number.
    pub last: u32,
    /// Whether they are fatal.
    pub fatal: bool,
    /// Where it comes from.
    pub sources: Vec<String>,
}

/// What one bit of the clock event reasons (DCGM field 112) is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockAlarm {
    /// Nothing: it is normal.
    Never,
    /// A fault.
    Fault,
    /// A fault where it lasts.
    Sustained,
    /// A slow GPU: somebody left a limit on it.
    Straggler,
    /// Another GPU of the group is to be looked at.
    Peers,
}

/// One bit of the clock event reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockReason {
    /// The bit as a mask.
    pub bit: u32,
    /// Its name.
    pub name: String,
    /// What it is worth.
    pub alarm: ClockAlarm,
    /// What else to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Where it comes from.
    pub sources: Vec<String>,
}

/// Something that goes wrong by itself or by a command, and that whoever acts on Slurm has to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hazard {
    /// Its name.
    pub id: String,
    /// What happens or is typed.
    pub what: String,
    /// What comes of it.
    pub effect: String,
    /// Where it comes from.
    pub sources: Vec<String>,
}
