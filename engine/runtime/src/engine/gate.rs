//! The gate: whether a run may take its node now, and whether it may go on changing things. Policy, budgets, breakers
//! and pauses stand behind it.

use crate::gather::Situation;
use async_trait::async_trait;
use engine_core::action::ServiceEffect;
use engine_core::plan::Plan;
use engine_core::playbook::PlaybookRef;
use engine_core::policy::{Cost, Stage, Verdict};
use engine_core::run::{Actor, Effect, RunState};
use jiff::Timestamp;
use std::fmt::Debug;

/// Answer of a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pass {
    /// Go on.
    Go,
    /// Not now.
    Wait {
        /// Why, in one sentence.
        why: String,
        /// When it is worth asking again at the latest, where that is known.
        until: Option<Timestamp>,
    },
    /// Not at all: the run ends.
    Never(String),
}

/// What stands behind a plan beside the playbook.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// What the policy says now.
    pub verdict: Verdict,
    /// How many different people have to say yes.
    pub approvers: u8,
}

/// Decides what may begin. It reads; the locks it takes for a run are the journal's.
#[async_trait]
pub trait Gate: Send + Sync + Debug {
    /// Says why somebody may not say yes to a plan; everybody may where there is no policy.
    fn may_approve(&self, _plan: &Plan, _by: &Actor) -> Result<(), String> {
        Ok(())
    }

    /// Returns the stage of a playbook's version for what this initiator begins. A person who begins a run by hand is in
    /// no stage, nor is anybody where there is no policy.
    fn stage(&self, playbook: &PlaybookRef, by: &Actor) -> Option<Stage>;

    /// Judges a plan that was just made; `None` where there is no policy. Takes nothing.
    async fn judge(&self, _plan: &Plan) -> Option<Judgement> {
        None
    }

    /// Reckons what a run of this plan costs the queue, on the look it was made on; `None` where nobody reckons.
    async fn cost(&self, _plan: &Plan, _look: &Situation) -> Option<Cost> {
        None
    }

    /// Decides right before a run is started: budgets, limits, windows, breakers. On `Go` the run has its locks.
    async fn admit(&self, state: &RunState) -> Pass;

    /// Decides right before an effect that takes more away: see [`takes_more`].
    async fn allows(&self, state: &RunState, effect: Effect) -> Pass;

    /// Says once more, right before the intent of such an effect, that nothing was stopped meanwhile. It asks the record of
    /// the fleet and not the cluster, so that it is quick however slow slurmctld is.
    async fn stands(&self, state: &RunState) -> Pass;
}

/// A gate that is always open: for tests and for clusters without a policy.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenGate;

#[async_trait]
impl Gate for OpenGate {
    fn stage(&self, _playbook: &PlaybookRef, _by: &Actor) -> Option<Stage> {
        None
    }

    async fn admit(&self, _state: &RunState) -> Pass {
        Pass::Go
    }

    async fn allows(&self, _state: &RunState, _effect: Effect) -> Pass {
        Pass::Go
    }

    async fn stands(&self, _state: &RunState) -> Pass {
        Pass::Go
    }
}

/// Says whether an effect takes something away: a node, or a piece of hardware. Only such effects are frozen by a
/// breaker or a pause; what gives back, proves, or tells people goes on, so that a frozen engine leaves no healthy
/// node out of service.
pub fn takes_more(state: &RunState, effect: Effect) -> bool {
    match effect {
        Effect::Lock => true,
        Effect::Unlock | Effect::Hold | Effect::Undo(_) => false,
        Effect::Step(_) => state.step_of(effect).is_some_and(|step| {
            let gives_back = step.spec().is_some_and(|s| s.service == ServiceEffect::GivesBack);
            step.effect > engine_core::action::EffectClass::Annotate && !gives_back
        }),
    }
}
