//! The typed catalogue of actions: what a step may do, what it costs, how it is undone.
//!
//! Declarations only; the runtime holds the code that performs them, and a test there checks that each
//! declared action has a performer and the other way round.

use crate::value::Type;
use serde::{Deserialize, Serialize};

/// How far-reaching an action is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectClass {
    /// Changes nothing.
    Read,
    /// Writes only for people: tickets, mail, comments.
    Annotate,
    /// Can be taken back: drain, resume.
    Reversible,
    /// Disturbs hardware: reset, reboot. Needs a verification behind it.
    Disruptive,
    /// Jobs or power are lost.
    Destructive,
}

impl EffectClass {
    /// Returns the stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Annotate => "annotate",
            Self::Reversible => "reversible",
            Self::Disruptive => "disruptive",
            Self::Destructive => "destructive",
        }
    }

    /// Says whether the action changes anything outside the journal.
    pub fn mutates(self) -> bool {
        self > Self::Read
    }

    /// Says whether hardware must be proven healthy afterwards.
    pub fn needs_verification(self) -> bool {
        self >= Self::Disruptive
    }
}

/// How an action is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undo {
    /// Nothing to take back: it changes nothing.
    Nothing,
    /// Cannot be taken back, and why.
    Impossible(&'static str),
    /// Taken back by this action.
    Action(&'static str),
}

/// What an action leaves in Slurm's view of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceEffect {
    /// None.
    None,
    /// Takes the node out of service.
    TakesOut,
    /// Gives the node back to service.
    GivesBack,
}

/// One declared argument.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ArgSpec {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub ty: Type,
    /// Whether a step must give it.
    pub required: bool,
    /// Value used when a step does not give it, as it would be written; empty for none.
    pub default: &'static str,
    /// Meaning, with the unit.
    pub doc: &'static str,
}

/// One declared action.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActionSpec {
    /// Dotted name, e.g. `slurm.drain`.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Effect class.
    pub effect: EffectClass,
    /// What it needs from the site.
    pub capability: &'static str,
    /// Arguments.
    pub args: &'static [ArgSpec],
    /// How it is taken back.
    pub undo: Undo,
    /// Whether a success proves the target healthy.
    pub verifies: bool,
    /// What it does to the node's service.
    pub service: ServiceEffect,
    /// Only for targets that are GPUs.
    pub needs_gpu: bool,
    /// What must hold right before it, beyond the step's own `when`. For people; the performer checks it.
    pub guard: &'static str,
    /// What is read back to call it a success.
    pub reads_back: &'static str,
    /// Outcomes after which it may be tried again.
    pub transient: &'static str,
    /// Outcomes that end the run's forward way.
    pub permanent: &'static str,
    /// Outcomes that need a probe first.
    pub ambiguous: &'static str,
    /// Time limit where the step gives none, in seconds.
    pub default_timeout_s: u32,
    /// Longest time limit a step may give, in seconds.
    pub max_timeout_s: u32,
    /// Attempts where the step gives no number, the first included.
    pub default_attempts: u32,
}

const TIMEOUT: ArgSpec = ArgSpec {
    name: "timeout",
    ty: Type::Duration,
    required: false,
    default: "",
    doc: "Time limit of the step.",
};

/// Every action, in the order of documentation.
pub static ACTIONS: &[ActionSpec] = &[
    ActionSpec {
        name: "slurm.drain",
        summary: "Sets DRAIN on the node, so that no new job starts; running jobs go on.",
        effect: EffectClass::Reversible,
        capability: "slurm.drain",
        args: &[
            ArgSpec {
                name: "reason",
                ty: Type::Text,
                required: true,
                default: "",
                doc: "Text behind our token in the node's reason: one line, at most 200 characters.",
            },
            TIMEOUT,
        ],
        undo: Undo::Action("slurm.resume"),
        verifies: false,
        service: ServiceEffect::TakesOut,
        needs_gpu: false,
        guard: "The node is not drained, failed, down, rebooting or reserved by somebody else, and its state, reason, reason user and time are what the run last saw.",
        reads_back: "DRAIN is set and the reason is exactly ours; user and time are kept as proof of ownership.",
        transient: "slurmctld refused for the moment or could not be reached and the read-back shows no change.",
        permanent: "No permission; the node is unknown; somebody else changed it.",
        ambiguous: "Time-out, or an exit without a readable read-back: the update may still be applied later.",
        default_timeout_s: 60,
        max_timeout_s: 600,
        default_attempts: 3,
    },
    ActionSpec {
        name: "slurm.wait_idle",
        summary: "Waits until no job holds the node: none running, completing or suspended, and no COMPLETING flag.",
        effect: EffectClass::Read,
        capability: "slurm.read",
        args: &[TIMEOUT],
        undo: Undo::Nothing,
        verifies: false,
        service: ServiceEffect::None,
        needs_gpu: false,
        guard: "The drain is still ours; a change by somebody else ends the wait.",
        reads_back: "Two reads that agree: node without COMPLETING and an empty job list without errors.",
        transient: "A read failed: the wait goes on. The engine was killed: the wait is begun again.",
        permanent: "Jobs still hold the node at the time limit; they are named.",
        ambiguous: "Never: it changes nothing.",
        default_timeout_s: 4 * 3600,
        max_timeout_s: 7 * 86400,
        default_attempts: 3,
    },
    ActionSpec {
        name: "node.collect_evidence",
        summary: "Collects what a reset would wipe out: nvidia-smi, DCGM health, error counters, NVLink, kernel log.",
        effect: EffectClass::Read,
        capability: "node.collect",
        args: &[TIMEOUT],
        undo: Undo::Nothing,
        verifies: false,
        service: ServiceEffect::None,
        needs_gpu: false,
        guard: "None.",
        reads_back: "The digest of the stored bundle.",
        transient: "A tool did not answer: what is missing is named in the bundle.",
        permanent: "The bundle could not be stored.",
        ambiguous: "Never: it changes nothing.",
        default_timeout_s: 120,
        max_timeout_s: 900,
        default_attempts: 2,
    },
    ActionSpec {
        name: "dcgm.reset_gpu",
        summary: "Resets one GPU: DCGM lets go of it, nvidia-smi resets it, DCGM and its exporter are started anew.",
        effect: EffectClass::Disruptive,
        capability: "gpu.reset",
        args: &[
            ArgSpec {
                name: "bus_id",
                ty: Type::Text,
                required: true,
                default: "",
                doc: "PCI address of the GPU; must agree with the UUID the plan was made for.",
            },
            TIMEOUT,
        ],
        undo: Undo::Impossible(
            "a reset cannot be taken back: the node stays drained until it is proven healthy",
        ),
        verifies: false,
        service: ServiceEffect::None,
        needs_gpu: true,
        guard: "Node drained by this run and idle, no suspended job, no process on the GPU, same UUID and bus id, GPU answers, MIG off, the driver does not ask for a reboot, no XID 79.",
        reads_back: "nvidia-smi's exit code, then the GPU answers under the same UUID.",
        transient: "None: a reset is never repeated by itself.",
        permanent: "A process holds the GPU (it is named); reset not supported; GPU off the bus; no permission.",
        ambiguous: "Time-out, or the engine stopped between intent and outcome: the GPU is looked at, the reset is not repeated.",
        default_timeout_s: 300,
        max_timeout_s: 1800,
        default_attempts: 1,
    },
    ActionSpec {
        name: "health.verify_gpu",
        summary: "Proves the node's GPUs healthy by reads newer than the last disruptive step, or says what is missing.",
        effect: EffectClass::Read,
        capability: "gpu.diag",
        args: &[
            TIMEOUT,
            ArgSpec {
                name: "diag_level",
                ty: Type::Int,
                required: false,
                default: "1",
                doc: "Level of the DCGM diagnostic, 1 to 3; 0 for none.",
            },
        ],
        undo: Undo::Nothing,
        verifies: true,
        service: ServiceEffect::None,
        needs_gpu: true,
        guard: "None.",
        reads_back: "Every line of the after-list passes: same GPUs, no unreadable field, no uncorrectable error, no pending or failed remap, recovery action none, no new XID, NVLinks up, health Healthy, diagnostic Pass, exporter up.",
        transient: "A line does not pass yet: it is read again until the time limit. The engine was killed: all of it again.",
        permanent: "A line that cannot recover fails, or the time limit is reached; both name the lines.",
        ambiguous: "Never: it changes nothing.",
        default_timeout_s: 300,
        max_timeout_s: 7200,
        default_attempts: 3,
    },
    ActionSpec {
        name: "slurm.resume",
        summary: "Gives the node back to service, if the drain is ours and a verification newer than the last disruptive step passed.",
        effect: EffectClass::Reversible,
        capability: "slurm.resume",
        args: &[TIMEOUT],
        undo: Undo::Action("slurm.drain"),
        verifies: false,
        service: ServiceEffect::GivesBack,
        needs_gpu: false,
        guard: "The drain is ours and unchanged (text, user, time); a verification newer than the last disruptive step passed.",
        reads_back: "DRAIN, INVALID_REG and NOT_RESPONDING are gone.",
        transient: "slurmctld could not be reached and the read-back still shows our drain.",
        permanent: "Refused by slurmctld; the node never answers; it was drained again by somebody.",
        ambiguous: "Time-out, or an exit without a readable read-back.",
        default_timeout_s: 180,
        max_timeout_s: 3600,
        default_attempts: 3,
    },
];

/// Finds a declared action.
pub fn find(name: &str) -> Option<&'static ActionSpec> {
    ACTIONS.iter().find(|a| a.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_consistent() {
        for (i, a) in ACTIONS.iter().enumerate() {
            assert!(ACTIONS[i + 1..].iter().all(|b| b.name != a.name), "{} twice", a.name);
            assert!(a.default_timeout_s <= a.max_timeout_s, "{}", a.name);
            match a.undo {
                Undo::Action(u) => assert!(find(u).is_some(), "{} is undone by unknown {u}", a.name),
                Undo::Nothing => assert!(!a.effect.mutates(), "{} mutates and has no undo", a.name),
                Undo::Impossible(why) => assert!(!why.is_empty()),
            }
            if a.effect.needs_verification() {
                assert_eq!(a.default_attempts, 1, "{} must not repeat by itself", a.name);
            }
        }
    }
}
