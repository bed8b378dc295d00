//! The node as the checker plays it: what Slurm shows of it, who took it out, and whether a job may be on it.

use engine_core::fact::{FactSet, Source};
use engine_core::known::{Cause, Known};
use engine_core::model::node_state::classify;
use engine_core::model::{BaseState, NodeFlag, NodeFlags, Reason};
use engine_core::ownership::NodeMark;
use engine_core::value::Value;
use jiff::Timestamp;
use std::collections::BTreeSet;

/// How the node was found, drains and reboots aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    InService,
    Maintenance,
    Reserved,
    Down,
    BadRegistration,
    PoweredDown,
    Blocked,
}

/// Whose reason is on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    None,
    /// Ours, by the number of the text.
    Ours(u8),
    /// Somebody else's, from before the run.
    Before,
    /// Somebody else's, from during the run.
    Meanwhile,
}

/// What a person may do to the node while a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Meddling {
    /// Drains it, or drains it anew.
    Drains,
    /// Gives it back to service.
    Resumes,
    /// Writes another reason.
    WritesReason,
    /// Asks for a reboot.
    AsksReboot,
}

pub(super) const MEDDLINGS: [Meddling; 4] =
    [Meddling::Drains, Meddling::Resumes, Meddling::WritesReason, Meddling::AsksReboot];

impl Meddling {
    /// Says it in words.
    pub(super) fn says(self) -> &'static str {
        match self {
            Self::Drains => "drains the node with a reason of their own",
            Self::Resumes => "gives the node back to service",
            Self::WritesReason => "writes another reason on the node",
            Self::AsksReboot => "asks for a reboot of the node",
        }
    }
}

/// What jobs do on the node at one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Jobs {
    None,
    Some,
    Full,
    Completing,
    Suspended,
}

pub(super) const JOBS: [Jobs; 5] = [Jobs::None, Jobs::Some, Jobs::Full, Jobs::Completing, Jobs::Suspended];

/// The node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct World {
    pub(super) standing: Standing,
    pub(super) drained: bool,
    pub(super) reason: Mark,
    pub(super) reboot: bool,
    /// Whether a job may be on the node; once it was seen idle out of service, none can come.
    pub(super) jobs: bool,
    /// What a person did since the plan was made.
    pub(super) meddled: Option<Meddling>,
}

/// Every way in which the node may be found when the plan is made, and whether it answers.
pub(super) fn found() -> Vec<(World, bool)> {
    let plain = World {
        standing: Standing::InService,
        drained: false,
        reason: Mark::None,
        reboot: false,
        jobs: true,
        meddled: None,
    };
    let standing = |standing| (World { standing, ..plain }, false);
    vec![
        (plain, false),
        (World { drained: true, reason: Mark::Before, ..plain }, false),
        (plain, true),
        standing(Standing::Down),
        (World { reboot: true, reason: Mark::Before, ..plain }, false),
        standing(Standing::Maintenance),
        standing(Standing::Reserved),
        standing(Standing::BadRegistration),
        standing(Standing::PoweredDown),
        standing(Standing::Blocked),
    ]
}

impl World {
    /// What a person may do to the node now.
    pub(super) fn after(self, meddling: Meddling) -> Option<Self> {
        let meddled = Some(meddling);
        let reason = Mark::Meanwhile;
        match meddling {
            Meddling::Drains => Some(Self { drained: true, reason, meddled, ..self }),
            Meddling::Resumes if self.drained => {
                Some(Self { drained: false, reason: Mark::None, jobs: true, meddled, ..self })
            }
            Meddling::Resumes => None,
            Meddling::WritesReason => Some(Self { reason, meddled, ..self }),
            Meddling::AsksReboot if !self.reboot => Some(Self { reboot: true, meddled, ..self }),
            Meddling::AsksReboot => None,
        }
    }

    /// Says whether a new job may start on it.
    pub(super) fn takes_jobs(self) -> bool {
        self.is_open() && !self.drained && !self.reboot
    }

    fn is_open(self) -> bool {
        matches!(self.standing, Standing::InService | Standing::Maintenance | Standing::Reserved)
    }

    /// The node without what reservations make of it.
    pub(super) fn without_reservation(self) -> Self {
        let standing = if self.is_open() { Standing::InService } else { self.standing };
        Self { standing, ..self }
    }

    /// Says whether the drain on it is ours and nobody else's.
    pub(super) fn is_drained_by_us(self) -> bool {
        self.drained && matches!(self.reason, Mark::Ours(_))
    }

    /// Why an action that takes a node out refuses this one, as the runtime's does; `reason` is the text it would write.
    pub(super) fn refuses_drain(self, reason: u8) -> Option<&'static str> {
        if self.drained {
            return (self.reason != Mark::Ours(reason)).then_some("the node is drained already");
        }
        (!self.is_open() || self.reboot).then_some("the node is not in service")
    }

    fn flags(self, silent: bool) -> BTreeSet<NodeFlag> {
        let standing = match self.standing {
            Standing::InService | Standing::Down => None,
            Standing::Maintenance => Some(NodeFlag::Maintenance),
            Standing::Reserved => Some(NodeFlag::Reserved),
            Standing::BadRegistration => Some(NodeFlag::InvalidReg),
            Standing::PoweredDown => Some(NodeFlag::PoweredDown),
            Standing::Blocked => Some(NodeFlag::Blocked),
        };
        let others = [
            self.drained.then_some(NodeFlag::Drain),
            self.reboot.then_some(NodeFlag::RebootRequested),
            silent.then_some(NodeFlag::NotResponding),
        ];
        standing.into_iter().chain(others.into_iter().flatten()).collect()
    }

    /// What people can change about the node, as a read shows it; `silent` for a node that does not answer slurmctld.
    pub(super) fn mark(self, silent: bool) -> NodeMark {
        let text = match self.reason {
            Mark::None => None,
            Mark::Ours(n) => Some((format!("[slurmedic:checked#r1] {n}"), "slurm")),
            Mark::Before => Some(("broken fan".to_owned(), "root")),
            Mark::Meanwhile => Some(("mine now".to_owned(), "root")),
        };
        NodeMark {
            base: if self.standing == Standing::Down { BaseState::Down } else { BaseState::Idle },
            flags: NodeFlags { known: self.flags(silent), unknown: Vec::new() },
            reason: text.map(|(text, user)| Reason {
                text,
                user: Known::Known(user.to_owned()),
                at: Known::Known(Timestamp::UNIX_EPOCH),
            }),
            reservations: BTreeSet::new(),
        }
    }

    /// What Slurm says of the node, as far as it follows from this model. Other facts are not in the set.
    pub(super) fn facts(self, silent: bool, jobs: Jobs) -> FactSet {
        let mut flags = self.flags(silent);
        if jobs == Jobs::Completing {
            flags.insert(NodeFlag::Completing);
        }
        let base = match (self.standing, jobs) {
            (Standing::Down, _) => BaseState::Down,
            (_, Jobs::Some) => BaseState::Mixed,
            (_, Jobs::Full) => BaseState::Allocated,
            _ => BaseState::Idle,
        };
        let state = classify(&Known::Known(base), &NodeFlags { known: flags, unknown: Vec::new() });
        let word = serde_json::to_value(state).ok().and_then(|v| v.as_str().map(str::to_owned));
        let mut out = FactSet::default();
        let mut set = |name: &'static str, value: Known<Value>| {
            out.set(name, value, Source::Slurm, Timestamp::UNIX_EPOCH);
        };
        let unread = || Known::unknown(Cause::UnrecognisedWord, "no word for the state");
        set("node.state", word.map_or_else(unread, |w| Known::Known(Value::Word(w))));
        set("node.responding", Known::Known(Value::Bool(!silent)));
        set("node.drained_by_us", Known::Known(Value::Bool(self.is_drained_by_us())));
        set("active_jobs", Known::Known(Value::Int(i64::from(jobs != Jobs::None))));
        set("suspended_jobs", Known::Known(Value::Int(i64::from(jobs == Jobs::Suspended))));
        let (maintained, reserved) =
            (self.standing == Standing::Maintenance, self.standing == Standing::Reserved);
        set("node.in_maintenance", Known::Known(Value::Bool(maintained)));
        set("node.reserved", Known::Known(Value::Bool(maintained || reserved)));
        if self.reason == Mark::None {
            set("node.reason", Known::Known(Value::Text(String::new())));
            set("node.reason_user", Known::Known(Value::Text(String::new())));
        }
        out
    }

    /// What tells one world from another, in two bytes.
    pub(super) fn code(self) -> [u8; 2] {
        let flags = u8::from(self.drained) | u8::from(self.reboot) << 1 | u8::from(self.jobs) << 2;
        [self.standing as u8 | flags << 4, mark_code(self.reason) | u8::from(self.meddled.is_some()) << 7]
    }
}

fn mark_code(mark: Mark) -> u8 {
    match mark {
        Mark::None => 0,
        Mark::Before => 1,
        Mark::Meanwhile => 2,
        Mark::Ours(n) => 3_u8.saturating_add(n),
    }
}

/// What tells one reading of the node from another, in two bytes.
pub(super) fn seen_code(seen: Option<&NodeMark>) -> [u8; 2] {
    let Some(mark) = seen else { return [0xff, 0xff] };
    let flags = u8::from(mark.flags.has(NodeFlag::Drain))
        | u8::from(mark.flags.has(NodeFlag::RebootRequested)) << 1
        | u8::from(mark.flags.has(NodeFlag::NotResponding)) << 2;
    [flags, reason_code(mark.reason.as_ref())]
}

/// What tells one reason from another, in a byte.
pub(super) fn reason_code(reason: Option<&Reason>) -> u8 {
    match reason {
        None => 0,
        Some(r) if r.text.starts_with('b') => 1,
        Some(r) if r.text.starts_with('m') => 2,
        Some(r) => {
            let n = r.text.rsplit(' ').next().and_then(|n| n.parse::<u8>().ok()).unwrap_or(0);
            3_u8.saturating_add(n)
        }
    }
}
