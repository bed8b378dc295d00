//! Slurm's node state, base and flags, and our classification of it.
//!
//! Decided on flags only; a flag or base nobody here has seen gives [`NodeState::Unknown`].
//! [`RULES`] is the one table; `docs/guide/node-states.md` shows it and a test holds the two together.

use crate::known::{Cause, Known};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// Slurm's base state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the words are Slurm's own")]
pub enum BaseState {
    Unknown,
    Down,
    Idle,
    Allocated,
    Mixed,
    Future,
}

/// A flag OR-ed onto the base state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the words are Slurm's own")]
pub enum NodeFlag {
    Completing,
    Drain,
    Fail,
    NotResponding,
    Maintenance,
    Reserved,
    RebootRequested,
    RebootIssued,
    InvalidReg,
    PowerDown,
    PoweringDown,
    PoweredDown,
    PowerUp,
    PoweringUp,
    Planned,
    External,
    Blocked,
    PowerDownAsap,
    PowerDownForce,
    PowerDrain,
    Cloud,
    DynamicNorm,
    DynamicFuture,
}

/// The flags of one node: those we know and the words we do not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFlags {
    /// Flags with a meaning here.
    pub known: BTreeSet<NodeFlag>,
    /// Words without one: they make the state unknown.
    pub unknown: Vec<String>,
}

/// The longest unknown word kept, in bytes; the rest is cut.
const MAX_WORD: usize = 64;
/// The most unknown words kept for one node.
const MAX_UNKNOWN_WORDS: usize = 32;

impl NodeFlags {
    /// Says whether the flag is set.
    pub fn has(&self, flag: NodeFlag) -> bool {
        self.known.contains(&flag)
    }

    /// Says whether one of the flags is set.
    pub fn has_any(&self, flags: &[NodeFlag]) -> bool {
        flags.iter().any(|f| self.has(*f))
    }

    /// Adds a word: as a flag if it is one, else to the words not understood.
    pub fn add_word(&mut self, word: &str) {
        match NodeFlag::from_word(word) {
            Some(f) => {
                self.known.insert(f);
            }
            None => self.add_unknown(word),
        }
    }

    /// Adds a word that has no meaning here; it makes the state unknown.
    pub fn add_unknown(&mut self, word: &str) {
        if self.unknown.len() < MAX_UNKNOWN_WORDS {
            let mut end = word.len().min(MAX_WORD);
            while !word.is_char_boundary(end) {
                end -= 1;
            }
            self.unknown.push(word[..end].to_owned());
        }
    }
}

macro_rules! words {
    ($ty:ident, $doc:literal, [$($variant:ident = $word:literal),* $(,)?]) => {
        impl $ty {
            #[doc = concat!("Every ", $doc, ".")]
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns Slurm's word for it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// Finds it by its whole word, in any case; suffixes such as `*` are not accepted.
            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)*
                    _ => Self::ALL.iter().copied().find(|v| v.as_str().eq_ignore_ascii_case(word)),
                }
            }
        }

        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words!(
    BaseState,
    "base state",
    [
        Idle = "IDLE",
        Mixed = "MIXED",
        Allocated = "ALLOCATED",
        Down = "DOWN",
        Unknown = "UNKNOWN",
        Future = "FUTURE",
    ]
);

words!(
    NodeFlag,
    "flag",
    [
        Completing = "COMPLETING",
        Drain = "DRAIN",
        Fail = "FAIL",
        NotResponding = "NOT_RESPONDING",
        Maintenance = "MAINTENANCE",
        Reserved = "RESERVED",
        RebootRequested = "REBOOT_REQUESTED",
        RebootIssued = "REBOOT_ISSUED",
        InvalidReg = "INVALID_REG",
        PowerDown = "POWER_DOWN",
        PoweringDown = "POWERING_DOWN",
        PoweredDown = "POWERED_DOWN",
        PowerUp = "POWER_UP",
        PoweringUp = "POWERING_UP",
        PowerDownAsap = "POWER_DOWN_ASAP",
        PowerDownForce = "POWER_DOWN_FORCE",
        PowerDrain = "POWER_DRAIN",
        Planned = "PLANNED",
        External = "EXTERNAL",
        Blocked = "BLOCKED",
        Cloud = "CLOUD",
        DynamicNorm = "DYNAMIC_NORM",
        DynamicFuture = "DYNAMIC_FUTURE",
    ]
);

words!(
    NodeState,
    "classification",
    [
        Idle = "IDLE",
        Mixed = "MIXED",
        Allocated = "ALLOCATED",
        Completing = "COMPLETING",
        Draining = "DRAINING",
        Drained = "DRAINED",
        Maint = "MAINT",
        Reserved = "RESERVED",
        Down = "DOWN",
        NotResponding = "NOT_RESPONDING",
        Rebooting = "REBOOTING",
        Power = "POWER",
        InvalidReg = "INVALID_REG",
        Future = "FUTURE",
        Blocked = "BLOCKED",
        Unknown = "UNKNOWN",
    ]
);

/// Reads the words of a state: one base and any flags, in any order and any case.
///
/// Takes the pieces of `IDLE+DRAIN`, the list `["IDLE", "DRAIN"]`, or the base and the `state_flags` list of the
/// oldest JSON formats. No base or two different ones leave the base unknown.
pub fn parse_state_words<'a>(words: impl IntoIterator<Item = &'a str>) -> (Known<BaseState>, NodeFlags) {
    let mut flags = NodeFlags::default();
    let mut base: Option<BaseState> = None;
    let mut second = None;
    for word in words {
        match BaseState::from_word(word) {
            Some(b) if base.is_none_or(|have| have == b) => base = Some(b),
            Some(b) => second = Some(b),
            None => flags.add_word(word),
        }
    }
    let base = match (base, second) {
        (Some(a), Some(b)) => Known::unknown(Cause::Conflicting, format!("two base states: {a} and {b}")),
        (Some(a), None) => Known::Known(a),
        (None, _) => match flags.unknown.first() {
            Some(w) => {
                Known::unknown(Cause::UnrecognisedWord, format!("no base state known here, but {w:?}"))
            }
            None => Known::unknown(Cause::NotReported, "no base state"),
        },
    };
    (base, flags)
}

/// Reads a state as `scontrol` prints it: `IDLE+DRAIN+NOT_RESPONDING`.
pub fn parse_state_text(text: &str) -> (Known<BaseState>, NodeFlags) {
    parse_state_words(text.split('+'))
}

/// Our classification of base state and flags: the fact `node.state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NodeState {
    /// Nothing runs, jobs may start.
    Idle,
    /// Some of it is allocated.
    Mixed,
    /// All of it is allocated.
    Allocated,
    /// No allocation left, but the epilog or a kill still goes on.
    Completing,
    /// DRAIN or FAIL is set and something still runs or completes.
    Draining,
    /// DRAIN or FAIL is set and nothing runs. A suspended job may still sit there: see `suspended_jobs`.
    Drained,
    /// In a MAINT reservation, not drained.
    Maint,
    /// In an ordinary reservation, nothing runs.
    Reserved,
    /// DOWN.
    Down,
    /// Does not answer slurmctld.
    NotResponding,
    /// A reboot was asked for or is going on.
    Rebooting,
    /// Power saving has it, or is taking or giving it.
    Power,
    /// slurmd registered with less than slurm.conf says.
    InvalidReg,
    /// Configured for later; not part of the cluster.
    Future,
    /// Slurm does not schedule it now: BLOCKED or EXTERNAL.
    Blocked,
    /// Not registered yet, or a base state or flag nobody here has seen.
    Unknown,
}

impl NodeState {
    /// Says whether Slurm may start jobs on a node in this state, for some users at least.
    pub fn accepts_jobs(self) -> bool {
        matches!(self, Self::Idle | Self::Mixed | Self::Allocated | Self::Completing | Self::Reserved)
    }
}

/// What a rule gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gives {
    /// Always this state.
    State(NodeState),
    /// The state of the same name as the base.
    Base,
}

/// One line of the classification table. The first rule that holds decides.
pub struct Rule {
    /// When it holds, for people.
    pub when: &'static str,
    /// What it gives.
    pub gives: Gives,
    /// Why it stands where it stands.
    pub why: &'static str,
    test: fn(BaseState, &NodeFlags) -> bool,
}

const REBOOT: &[NodeFlag] = &[NodeFlag::RebootRequested, NodeFlag::RebootIssued];
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
const DRAINS: &[NodeFlag] = &[NodeFlag::Drain, NodeFlag::Fail];

fn is_busy(base: BaseState) -> bool {
    matches!(base, BaseState::Mixed | BaseState::Allocated)
}

/// The classification, in order of precedence. It covers every base with every set of flags.
///
/// The order is one of care: what hides the truth about a node (unknown, not ours to touch, gone) stands above what a
/// person or slurmctld decided (down, drained), and that above what merely goes on there.
pub static RULES: &[Rule] = &[
    Rule {
        when: "a base or flag that this release does not know",
        gives: Gives::State(NodeState::Unknown),
        why: "a new flag may mean anything: do not touch",
        test: |_, f| !f.unknown.is_empty(),
    },
    Rule {
        when: "base UNKNOWN",
        gives: Gives::State(NodeState::Unknown),
        why: "slurmctld restarted and has not heard from the node",
        test: |b, _| b == BaseState::Unknown,
    },
    Rule {
        when: "base FUTURE",
        gives: Gives::State(NodeState::Future),
        why: "configured for later: it is no part of the cluster, whatever else is set",
        test: |b, _| b == BaseState::Future,
    },
    Rule {
        when: "EXTERNAL",
        gives: Gives::State(NodeState::Blocked),
        why: "Slurm runs no slurmd there, so its other flags say nothing about the machine",
        test: |_, f| f.has(NodeFlag::External),
    },
    Rule {
        when: "REBOOT_REQUESTED or REBOOT_ISSUED",
        gives: Gives::State(NodeState::Rebooting),
        why: "DOWN+DRAIN+REBOOT_ISSUED is a reboot on its way, not a dead node; a resume or drain now gets lost",
        test: |_, f| f.has_any(REBOOT),
    },
    Rule {
        when: "any POWER flag",
        gives: Gives::State(NodeState::Power),
        why: "power saving has it: no answer (NOT_RESPONDING) and even DOWN are then expected, and a second hand on the power is harmful",
        test: |_, f| f.has_any(POWER),
    },
    Rule {
        when: "base DOWN",
        gives: Gives::State(NodeState::Down),
        why: "also with DRAIN (which sinfo shows as drained), NOT_RESPONDING, INVALID_REG or a reservation: its jobs are gone and a resume alone would not do",
        test: |b, _| b == BaseState::Down,
    },
    Rule {
        when: "NOT_RESPONDING",
        gives: Gives::State(NodeState::NotResponding),
        why: "what else is set may be out of date; every resume passes through here for seconds",
        test: |_, f| f.has(NodeFlag::NotResponding),
    },
    Rule {
        when: "INVALID_REG",
        gives: Gives::State(NodeState::InvalidReg),
        why: "slurmd has less than slurm.conf says; Slurm drained it and refuses a resume",
        test: |_, f| f.has(NodeFlag::InvalidReg),
    },
    Rule {
        when: "DRAIN or FAIL, and base MIXED or ALLOCATED or COMPLETING set",
        gives: Gives::State(NodeState::Draining),
        why: "something still runs or cleans up; above MAINT and RESERVED, since a drain binds also when they end",
        test: |b, f| f.has_any(DRAINS) && (is_busy(b) || f.has(NodeFlag::Completing)),
    },
    Rule {
        when: "DRAIN or FAIL, base IDLE",
        gives: Gives::State(NodeState::Drained),
        why: "nothing runs; suspended jobs do not count for Slurm, see the fact suspended_jobs",
        test: |_, f| f.has_any(DRAINS),
    },
    Rule {
        when: "BLOCKED",
        gives: Gives::State(NodeState::Blocked),
        why: "Slurm does not schedule it now",
        test: |_, f| f.has(NodeFlag::Blocked),
    },
    Rule {
        when: "MAINTENANCE",
        gives: Gives::State(NodeState::Maint),
        why: "somebody has the node in maintenance: above all that goes on there",
        test: |_, f| f.has(NodeFlag::Maintenance),
    },
    Rule {
        when: "base IDLE with COMPLETING",
        gives: Gives::State(NodeState::Completing),
        why: "an epilog or a kill goes on; above RESERVED, which says that nothing runs",
        test: |b, f| b == BaseState::Idle && f.has(NodeFlag::Completing),
    },
    Rule {
        when: "base IDLE with RESERVED",
        gives: Gives::State(NodeState::Reserved),
        why: "free, but only for some; the fact node.reserved tells it for busy nodes too",
        test: |b, f| b == BaseState::Idle && f.has(NodeFlag::Reserved),
    },
    Rule {
        when: "else",
        gives: Gives::Base,
        why: "IDLE, MIXED or ALLOCATED; PLANNED, CLOUD, DYNAMIC_NORM and DYNAMIC_FUTURE change nothing, COMPLETING and RESERVED nothing on a busy node",
        test: |_, _| true,
    },
];

/// Classifies base state and flags by [`RULES`]; an unknown base gives [`NodeState::Unknown`].
pub fn classify(base: &Known<BaseState>, flags: &NodeFlags) -> NodeState {
    let Known::Known(base) = *base else { return NodeState::Unknown };
    for rule in RULES {
        if (rule.test)(base, flags) {
            return match rule.gives {
                Gives::State(s) => s,
                Gives::Base => of_base(base),
            };
        }
    }
    NodeState::Unknown
}

fn of_base(base: BaseState) -> NodeState {
    match base {
        BaseState::Idle => NodeState::Idle,
        BaseState::Mixed => NodeState::Mixed,
        BaseState::Allocated => NodeState::Allocated,
        BaseState::Down => NodeState::Down,
        BaseState::Future => NodeState::Future,
        BaseState::Unknown => NodeState::Unknown,
    }
}
