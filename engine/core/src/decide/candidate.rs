//! What one alert, or several of one kind, speak for.

use super::reason::ReasonCode;
use super::situation::Situation;
use crate::incident::fault::{Strength, strength};
use crate::knowledge::{HUMAN, Knowledge, NOTHING};

/// Where a candidate leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lead {
    /// To a playbook.
    Playbook(String),
    /// To nothing.
    Nothing(ReasonCode),
    /// To a person.
    Person(ReasonCode),
}

/// What an alert speaks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Where it leads.
    pub lead: Lead,
    /// How much it counts: the strength of its fault in tens.
    pub weight: u32,
    /// Said beside a playbook, where there is something to say.
    pub code: Option<ReasonCode>,
    /// Why, in one sentence.
    pub says: String,
    /// The fault, where it is one.
    pub fault: Option<String>,
    /// Which GPU, where it names one.
    pub gpu: Option<String>,
    /// The nodes that it is told of.
    pub nodes: Vec<String>,
    /// On how many nodes its source says that it is seen.
    pub spread: Option<f64>,
}

/// Weight of what asks for a person: above a program's mistake, below any fault that is proved.
pub const DOUBT: u32 = 15;

/// Returns the weight of a strength.
pub fn weight_of(s: Strength) -> u32 {
    match s {
        Strength::Unknown => 12,
        other => other as u32 * 10,
    }
}

impl Candidate {
    /// Builds one that leads to a playbook by the weight of a fault.
    pub fn playbook(id: &str, fault: &str, says: impl Into<String>) -> Self {
        Self {
            lead: Lead::Playbook(id.to_owned()),
            weight: weight_of(strength(fault)),
            code: None,
            says: says.into(),
            fault: (!fault.is_empty()).then(|| fault.to_owned()),
            gpu: None,
            nodes: Vec::new(),
            spread: None,
        }
    }

    /// Builds one that leads to nothing.
    pub fn nothing(code: ReasonCode, says: impl Into<String>) -> Self {
        let lead = Lead::Nothing(code);
        Self { lead, weight: 1, ..Self::playbook("", "", says) }
    }

    /// Builds one that leads to a person.
    pub fn person(code: ReasonCode, says: impl Into<String>) -> Self {
        let lead = Lead::Person(code);
        Self { lead, weight: DOUBT, ..Self::playbook("", "", says) }
    }

    /// Builds the one that the knowledge has for a fault.
    pub fn of_fault(known: &Knowledge, fault: &str, says: impl Into<String>) -> Self {
        let says = says.into();
        match known.faults.get(fault).map(|f| f.playbook.as_str()) {
            None => Self::person(ReasonCode::UnknownCode, format!("{says}: no fault of the knowledge")),
            Some(NOTHING) => {
                Self::nothing(ReasonCode::Informational, format!("{says}: nothing is to be done"))
            }
            Some(HUMAN) => {
                Self::person(ReasonCode::InsufficientEvidence, format!("{says}: a person decides"))
            }
            Some(id) => Self::playbook(id, fault, says),
        }
    }

    /// Says a reason code beside the playbook.
    #[must_use]
    pub fn with_code(self, code: ReasonCode) -> Self {
        Self { code: Some(code), ..self }
    }

    /// Says whether it takes part in counting a storm: what programs do, and what informs, does not.
    pub fn is_critical(&self) -> bool {
        let of_a_job = self.fault.as_deref() == Some("nccl-timeout");
        match &self.lead {
            Lead::Playbook(id) => !of_a_job && !NO_STORM.contains(&id.as_str()),
            Lead::Person(ReasonCode::UnknownCode | ReasonCode::UnknownNode) => false,
            Lead::Person(_) => self.fault.is_some(),
            Lead::Nothing(_) => false,
        }
    }
}

/// Playbooks for what is no storm, on however many nodes: what programs do, what waits, and what is counted elsewhere.
const NO_STORM: &[&str] = &[
    "xid-app-annotate",
    "gpu-ecc-watch",
    "gpu-idle-window-reset",
    "pcie-degraded-ticket",
    "gpu-straggler-diagnose",
    "node-disk-full",
    "node-return-to-service",
    "storage-hang-hold",
    "lustre-overuse-notify",
    "lustre-overuse-quarantine",
    "anomaly-investigate",
];

/// Says whether the text tells of a change of software or configuration, or of its roll-out.
pub fn tells_of_a_change(s: &Situation) -> bool {
    let told = s.told();
    let what = [
        "driver",
        "config",
        "slurm.conf",
        "gres.conf",
        "bios",
        "firmware",
        "image",
        "kernel",
        "prolog",
        "epilog",
    ];
    let how = [
        "rollout", "roll-out", "rolled", "upgrade", "update", "change", "push", "deploy", "edited",
        "replaced",
    ];
    let denies = ["no ", "not ", "unchanged", "without"];
    told.lines().any(|l| {
        let has = |words: &[&str]| words.iter().any(|w| l.contains(w));
        has(&what) && has(&how) && !has(&denies)
    })
}
