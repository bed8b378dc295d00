//! The events of a run. Stored as JSON in the journal: words are stable, fields are only ever added.

use super::load::Load;
use crate::digest::Digest;
use crate::fact::FactSet;
use crate::model::RunId;
use crate::ownership::NodeMark;
use crate::plan::{ConditionReport, FixedPlan};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What kind of initiator or approver somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// A person.
    Person,
    /// A program that speaks for itself: an agent, a hook, a rule.
    Program,
    /// This engine.
    Engine,
}

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Actor {
    /// What kind.
    pub kind: ActorKind,
    /// Name, as far as it could be established.
    pub name: String,
    /// The person a program speaks for, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
}

impl Actor {
    /// Names a person.
    pub fn person(name: impl Into<String>) -> Self {
        Self { kind: ActorKind::Person, name: name.into(), on_behalf_of: None }
    }

    /// Names an engine process.
    pub fn engine(name: impl Into<String>) -> Self {
        Self { kind: ActorKind::Engine, name: name.into(), on_behalf_of: None }
    }

    /// Names a program, and the person it speaks for.
    pub fn program(name: impl Into<String>, on_behalf_of: Option<String>) -> Self {
        Self { kind: ActorKind::Program, name: name.into(), on_behalf_of }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A unit of work that may touch the world, and so has an intent and an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "on", content = "index", rename_all = "snake_case")]
pub enum Effect {
    /// Taking the lock: the journal's and the reservation on Slurm.
    Lock,
    /// Forward step, by its place in the plan.
    Step(usize),
    /// Step of the way back, by its place in the plan's rollback.
    Undo(usize),
    /// Writing into the reason why the node is held.
    Hold,
    /// Giving the lock back.
    Unlock,
}

/// How an effect came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeKind {
    /// Done, and read back.
    Succeeded,
    /// Not done, and trying again may help.
    Transient,
    /// Not done, and trying again will not help.
    Permanent,
    /// Nobody can say: it must be probed.
    Ambiguous,
    /// Not done, because somebody else changed the node.
    Foreign,
}

/// What came of an effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it came out.
    pub kind: OutcomeKind,
    /// One sentence for people.
    pub why: String,
    /// The node afterwards, where it was read back.
    pub after: Option<NodeMark>,
    /// What the action found, as data for later steps and for `show`.
    #[serde(default, skip_serializing_if = "Load::is_none")]
    pub data: Load,
}

impl Outcome {
    /// Builds an outcome without read-back and data.
    pub fn new(kind: OutcomeKind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into(), after: None, data: Load::default() }
    }

    /// Builds a success.
    pub fn succeeded(why: impl Into<String>) -> Self {
        Self::new(OutcomeKind::Succeeded, why)
    }

    /// Builds a failure that trying again may cure.
    pub fn transient(why: impl Into<String>) -> Self {
        Self::new(OutcomeKind::Transient, why)
    }

    /// Builds a failure that trying again will not cure.
    pub fn permanent(why: impl Into<String>) -> Self {
        Self::new(OutcomeKind::Permanent, why)
    }

    /// Builds an outcome nobody can name.
    pub fn ambiguous(why: impl Into<String>) -> Self {
        Self::new(OutcomeKind::Ambiguous, why)
    }

    /// Builds the outcome of meeting somebody else's change.
    pub fn foreign(why: impl Into<String>) -> Self {
        Self::new(OutcomeKind::Foreign, why)
    }

    /// Adds the node as it was read back.
    #[must_use]
    pub fn with_after(mut self, after: NodeMark) -> Self {
        self.after = Some(after);
        self
    }

    /// Adds data.
    #[must_use]
    pub fn with_data(mut self, data: impl Into<Load>) -> Self {
        self.data = data.into();
        self
    }
}

/// What a probe of an ambiguous effect found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// It took effect.
    Applied,
    /// It did not, and may be tried again.
    NotApplied,
    /// It cannot be told and must not be repeated; the run goes back or is held.
    Unclear,
    /// Somebody else changed the node meanwhile.
    Foreign,
}

/// What was looked at right before an effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuardReport {
    /// Whether the effect may go on.
    pub passed: bool,
    /// One sentence for people.
    pub why: String,
    /// The conditions with their values.
    #[serde(default)]
    pub conditions: Vec<ConditionReport>,
    /// The facts that the conditions of the plan rest on, and those that were no longer as when it was made: the others
    /// are in the plan.
    #[serde(default)]
    pub facts: FactSet,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The node is as the playbook promises.
    Succeeded,
    /// Shadow: nothing was done, the plan is on record.
    Shadowed,
    /// Never started: preconditions, policy, the lock or a person said no.
    Rejected,
    /// Stopped by a person before anything was changed.
    Cancelled,
    /// Slurm's view of the node is as it was before.
    RolledBack,
    /// The node stays drained with our reason, and a person is called.
    Held,
    /// Somebody took over: nothing of theirs was touched.
    HandedOver,
    /// The engine could not find out or restore the state; a person must look now.
    Stuck,
}

impl End {
    /// Returns the stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Shadowed => "shadowed",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
            Self::RolledBack => "rolled_back",
            Self::Held => "held",
            Self::HandedOver => "handed_over",
            Self::Stuck => "stuck",
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A plan was made; the first event of every run.
    Proposed {
        /// The plan.
        plan: FixedPlan,
        /// Its digest, which an approval names.
        digest: Digest,
    },
    /// The plan waits for people.
    ApprovalRequested {
        /// How many different people are needed.
        people: u8,
        /// When the request is void.
        expires_at: Timestamp,
    },
    /// A person said yes to one plan.
    Approved {
        /// Who.
        by: Actor,
        /// The plan they saw.
        digest: Digest,
        /// When the yes is void.
        expires_at: Timestamp,
        /// The ticket it was given by, where it came from afar; each ticket counts once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ticket: Option<String>,
    },
    /// An approval no longer holds.
    ApprovalVoided {
        /// Why.
        why: String,
    },
    /// An engine begins to carry the plan out.
    Started {
        /// Which engine process.
        engine: String,
    },
    /// Another engine process took the run over after a crash or restart.
    Recovered {
        /// Which engine process.
        engine: String,
        /// What it found.
        why: String,
    },
    /// An effect is about to be attempted. Durable before anything is touched (rule 1).
    Intent {
        /// The effect.
        effect: Effect,
        /// 1 for the first attempt.
        attempt: u32,
        /// The action's name.
        action: String,
        /// What was looked at.
        guard: GuardReport,
        /// The node as it was last seen.
        before: Option<NodeMark>,
        /// What the probe will need to tell whether it took effect.
        #[serde(default, skip_serializing_if = "Load::is_none")]
        context: Load,
    },
    /// An effect was not attempted, because its guard did not hold.
    Refused {
        /// The effect.
        effect: Effect,
        /// What was looked at.
        guard: GuardReport,
        /// Whether it was somebody else's change that stopped it.
        foreign: bool,
        /// Whether looking again later may help (a read failed).
        transient: bool,
    },
    /// An effect came out.
    Finished {
        /// The effect.
        effect: Effect,
        /// Which attempt.
        attempt: u32,
        /// How.
        outcome: Outcome,
    },
    /// A probe told what became of an ambiguous effect, or of an intent without outcome.
    Resolved {
        /// The effect.
        effect: Effect,
        /// Which attempt.
        attempt: u32,
        /// What was found.
        resolution: Resolution,
        /// One sentence for people.
        why: String,
        /// The node as it was seen.
        after: Option<NodeMark>,
        /// Data for later steps, as in an outcome.
        #[serde(default, skip_serializing_if = "Load::is_none")]
        data: Load,
    },
    /// Another attempt is due.
    RetryScheduled {
        /// The effect.
        effect: Effect,
        /// Number of the attempt to come.
        attempt: u32,
        /// Not before this time.
        not_before: Timestamp,
        /// Why the last one failed.
        why: String,
    },
    /// What comes next may not begin yet: a budget is spent, a breaker is open, a person paused it. Nothing was touched.
    Deferred {
        /// What it waits for, in one sentence.
        why: String,
        /// When it is tried again at the latest, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
    /// In shadow, a step was looked at as if it were about to be done; nothing was changed (rule 2).
    Rehearsed {
        /// The step.
        effect: Effect,
        /// The action's name.
        action: String,
        /// What was looked at, and whether the step would have been begun on the node as it is.
        guard: GuardReport,
        /// What would have been sent to the cluster or to the node, in the order of sending.
        would: Vec<String>,
    },
    /// Somebody asked the run to stop at its nearest safe point.
    CancelRequested {
        /// Who.
        by: Actor,
        /// Why.
        why: String,
    },
    /// The way back begins.
    RollbackStarted {
        /// Why.
        why: String,
    },
    /// Something worth keeping for people, such as progress of a long wait.
    Noted {
        /// What.
        text: String,
    },
    /// The run is over.
    Ended {
        /// How.
        end: End,
        /// Why.
        why: String,
        /// What a person should do next; empty for nothing.
        next_step: String,
        /// Who said no, where somebody did: a person, or an engine that took its own plan back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Actor>,
    },
}

impl EventKind {
    /// The word of a request to stop: a journal finds it without reading what the run's other events hold.
    pub const CANCEL_REQUESTED: &'static str = "cancel_requested";

    /// Returns the stable word of the event.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Proposed { .. } => "proposed",
            Self::ApprovalRequested { .. } => "approval_requested",
            Self::Approved { .. } => "approved",
            Self::ApprovalVoided { .. } => "approval_voided",
            Self::Started { .. } => "started",
            Self::Recovered { .. } => "recovered",
            Self::Intent { .. } => "intent",
            Self::Refused { .. } => "refused",
            Self::Finished { .. } => "finished",
            Self::Resolved { .. } => "resolved",
            Self::RetryScheduled { .. } => "retry_scheduled",
            Self::Deferred { .. } => "deferred",
            Self::Rehearsed { .. } => "rehearsed",
            Self::CancelRequested { .. } => Self::CANCEL_REQUESTED,
            Self::RollbackStarted { .. } => "rollback_started",
            Self::Noted { .. } => "noted",
            Self::Ended { .. } => "ended",
        }
    }
}

/// An event with its place and time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The run.
    pub run: RunId,
    /// Place in the run, from 1, without gaps.
    pub seq: u64,
    /// When it was written, by the engine's clock.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
}
