//! XIDs of the NVIDIA driver: what each means, and what is done about it.

use serde::{Deserialize, Serialize};

/// Whether a code is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is.
    Active,
    /// On Ampere and newer it is not: seeing it is itself a surprise.
    Unused,
    /// Not on GPUs of data centres.
    NotDatacenter,
}

/// What a fault is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A program's own doing.
    Application,
    /// Driver, firmware and daemons.
    Driver,
    /// A part.
    Hardware,
    /// Memory of the GPU or the host.
    Memory,
    /// Heat and power.
    Thermal,
    /// Links between GPUs or nodes, and file systems.
    Fabric,
}

impl Class {
    /// Returns the stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Driver => "driver",
            Self::Hardware => "hardware",
            Self::Memory => "memory",
            Self::Thermal => "thermal",
            Self::Fabric => "fabric",
        }
    }
}

/// How far one event goes towards taking the node out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drains {
    /// A single event never drains.
    Never,
    /// Only when it repeats on one GPU over different jobs, and a person agrees.
    OnRepeat,
    /// Work goes on; the repair waits for an idle moment.
    AfterJob,
    /// New work stops; running jobs end by themselves.
    Now,
    /// The fields of the message decide.
    Decode,
    /// A person decides.
    Person,
    /// As the XID 48 of the same burst.
    #[serde(rename = "see_48")]
    See48,
    /// As the value in the message says.
    SeeValue,
}

impl Drains {
    /// Says it in words for people.
    pub fn says(self) -> &'static str {
        match self {
            Self::Never => "a single event never drains the node",
            Self::OnRepeat => {
                "never by itself; where it repeats on one GPU over three jobs in a day, a person decides"
            }
            Self::AfterJob => "running work goes on; the repair waits for an idle moment",
            Self::Now => "new work stops, running jobs end by themselves",
            Self::Decode => "the unit and the status in the message decide",
            Self::Person => "a person decides",
            Self::See48 => "as the XID 48 of the same burst",
            Self::SeeValue => "as the value in the message says",
        }
    }
}

/// One XID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Xid {
    /// Its number.
    pub code: u32,
    /// Its name in the driver.
    pub name: String,
    /// Whether it is in use.
    pub status: Status,
    /// What happened.
    pub means: String,
    /// What it is about.
    pub class: Class,
    /// How bad: info, warning, error, critical or depends.
    pub severity: String,
    /// The columns of NVIDIA's catalogue that list it; empty where none does.
    pub gpus: Vec<String>,
    /// NVIDIA's word for what is to be done at once.
    pub vendor: String,
    /// NVIDIA's word for what is to be looked into.
    pub vendor_then: String,
    /// The driver branch from which XID 154 follows with the wish of the driver; `any` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tells_154: Option<String>,
    /// Possible causes for GPUs older than Ampere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub legacy: Vec<String>,
    /// Which work is lost.
    pub job_loss: String,
    /// What becomes of the rest of the node.
    pub rest_of_node: String,
    /// How far one event goes towards taking the node out.
    pub drain: Drains,
    /// The playbook; `none` where nothing is to be done, `human` where a person decides.
    pub playbook: String,
    /// The fault it tells by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The fault it tells where the line says `Nonfatal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault_nonfatal: Option<String>,
    /// The code that it counts as on GPUs that do not contain memory errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_containment: Option<u32>,
    /// Whether it counts only with a second witness.
    #[serde(default, skip_serializing_if = "is_false")]
    pub needs_witness: bool,
    /// Whether it only follows another code of the same burst.
    #[serde(default, skip_serializing_if = "is_false")]
    pub follows_others: bool,
    /// What else to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// Where it comes from.
    pub sources: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference over")]
pub(super) fn is_false(value: &bool) -> bool {
    !*value
}

impl Xid {
    /// Says whether it is a program's own doing: its class says so, or its playbook only tells the job.
    pub fn is_application(&self) -> bool {
        self.class == Class::Application
    }
}

/// One word of NVIDIA's catalogue for what is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VendorAction {
    /// The word.
    pub word: String,
    /// Whether a machine may do it: may, guarded, partly or never.
    pub automatic: String,
    /// What it asks for.
    pub means: String,
}

/// What the driver says itself that it needs: XID 154, DCGM field 1523.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryWish {
    /// The number. Numbers are not ordered by severity.
    pub value: u32,
    /// Our word.
    pub word: String,
    /// The words in the message of XID 154.
    pub text: String,
    /// Its place by severity, the greatest is the worst.
    pub rank: u32,
    /// The playbook; `none` or `human` as with XIDs.
    pub playbook: String,
    /// What it asks for.
    pub means: String,
    /// Where it comes from.
    pub sources: Vec<String>,
}

/// A code on which known tables disagree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disagreement {
    /// The codes.
    pub codes: Vec<u32>,
    /// Who says what.
    pub says: String,
    /// What is done here.
    pub ours: String,
    /// Where it comes from.
    pub sources: Vec<String>,
}
