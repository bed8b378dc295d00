//! Performers: the code behind each declared action, and behind the run's own marks (lock, hold, unlock).
//!
//! A performer never decides what comes next. `prepare` may refuse, `act` touches the world once, `probe` looks.

mod drain;
mod evidence;
mod gpu_reset;
mod marks;
mod resume;
mod verify_gpu;
mod wait_idle;

use crate::engine::{Engine, Look};
use async_trait::async_trait;
use engine_core::fact::FactSet;
use engine_core::known::Known;
use engine_core::ownership::NodeMark;
use engine_core::plan::PlannedStep;
use engine_core::run::{Effect, GuardReport, Load, Outcome, Resolution, RunState};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value as Json;

/// What a performer has at hand.
#[derive(Debug, Clone, Copy)]
pub struct Ctx<'a> {
    /// The engine and its ports.
    pub engine: &'a Engine,
    /// The run.
    pub state: &'a RunState,
    /// What is to be done.
    pub effect: Effect,
    /// Which attempt.
    pub attempt: u32,
    /// The look right before it.
    pub look: &'a Look,
}

impl<'a> Ctx<'a> {
    /// Returns the step, where the effect is one.
    pub fn step(&self) -> Option<&'a PlannedStep> {
        self.state.step_of(self.effect)
    }

    /// Returns the time at which the step is out of time.
    pub fn deadline(&self) -> Timestamp {
        let limit = self.step().map_or(SignedDuration::from_secs(60), PlannedStep::timeout);
        self.engine.ports.clock.now().saturating_add(limit).unwrap_or(Timestamp::MAX)
    }

    /// Returns the name of an order to the node: carried out at most once under it.
    pub fn order_id(&self, part: &str) -> String {
        let effect = match self.effect {
            Effect::Step(i) => format!("s{i}"),
            Effect::Undo(i) => format!("u{i}"),
            Effect::Lock => "lock".to_owned(),
            Effect::Hold => "hold".to_owned(),
            Effect::Unlock => "unlock".to_owned(),
        };
        format!("{}-{effect}-{}-{part}", self.state.run, self.attempt)
    }

    /// Looks at the node again, patiently.
    pub async fn look_at_node(&self) -> Known<NodeMark> {
        self.engine.look_patiently(&self.state.plan.target.node).await.mark()
    }
}

/// Answer of `prepare`.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The verdict, with the conditions and facts behind it.
    pub report: GuardReport,
    /// Somebody else's change stands against it.
    pub foreign: bool,
    /// Looking again later may help.
    pub transient: bool,
    /// What the probe will need.
    pub context: Load,
}

impl Prepared {
    /// Takes the common verdict over.
    pub fn from_look(look: &Look) -> Self {
        Self {
            report: look.report.clone(),
            foreign: look.foreign,
            transient: look.transient,
            context: Load::default(),
        }
    }

    /// Refuses without a look.
    pub fn no(why: impl Into<String>, transient: bool) -> Self {
        let report =
            GuardReport { passed: false, why: why.into(), conditions: Vec::new(), facts: FactSet::default() };
        Self { report, foreign: false, transient, context: Load::default() }
    }

    /// Turns a yes into a no; a no stays what it is.
    #[must_use]
    pub fn refuse(mut self, why: impl Into<String>) -> Self {
        if self.report.passed {
            self.report.passed = false;
            self.report.why = why.into();
        }
        self
    }

    /// Adds what the probe will need.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<Load>) -> Self {
        self.context = context.into();
        self
    }
}

/// Answer of `probe`.
#[derive(Debug, Clone)]
pub struct Performed {
    /// What was found.
    pub resolution: Resolution,
    /// One sentence for people.
    pub why: String,
    /// The node as it was seen.
    pub after: Option<NodeMark>,
    /// Data for later steps.
    pub data: Load,
}

impl Performed {
    /// Builds an answer without data.
    pub fn new(resolution: Resolution, why: impl Into<String>, after: Option<NodeMark>) -> Self {
        Self { resolution, why: why.into(), after, data: Load::default() }
    }

    /// Cannot be told.
    pub fn unclear(why: impl Into<String>) -> Self {
        Self::new(Resolution::Unclear, why, None)
    }

    /// Changes nothing, so it may be done again.
    pub fn repeatable() -> Self {
        Self::new(Resolution::NotApplied, "it only reads, so it is done again", None)
    }
}

/// The code behind one action.
#[async_trait]
pub trait Performer: Send + Sync {
    /// Checks what must hold right before; changes nothing.
    async fn prepare(&self, ctx: &Ctx<'_>) -> Prepared {
        Prepared::from_look(ctx.look)
    }

    /// Does it once, and reads back.
    async fn act(&self, ctx: &Ctx<'_>, context: &Json) -> Outcome;

    /// Finds out whether an attempt without an outcome took effect; never repeats it. It may put back what the attempt
    /// took apart around it.
    async fn probe(&self, ctx: &Ctx<'_>, context: &Json) -> Performed;
}

/// Every performer by the name of its action.
static PERFORMERS: &[(&str, &dyn Performer)] = &[
    ("slurm.drain", &drain::Drain),
    ("slurm.wait_idle", &wait_idle::WaitIdle),
    ("node.collect_evidence", &evidence::CollectEvidence),
    ("dcgm.reset_gpu", &gpu_reset::ResetGpu),
    ("health.verify_gpu", &verify_gpu::VerifyGpu),
    ("slurm.resume", &resume::Resume),
];

/// Finds the code behind an effect.
pub fn performer(state: &RunState, effect: Effect) -> Option<&'static dyn Performer> {
    match effect {
        Effect::Lock => Some(&marks::Lock),
        Effect::Hold => Some(&marks::Hold),
        Effect::Unlock => Some(&marks::Unlock),
        Effect::Step(_) | Effect::Undo(_) => {
            let action = &state.step_of(effect)?.action;
            PERFORMERS.iter().find(|(name, _)| name == action).map(|(_, p)| *p)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PERFORMERS;

    #[test]
    fn every_declared_action_has_its_performer_and_no_other() {
        let mut have: Vec<&str> = PERFORMERS.iter().map(|(n, _)| *n).collect();
        let mut want: Vec<&str> = engine_core::action::ACTIONS.iter().map(|a| a.name).collect();
        have.sort_unstable();
        want.sort_unstable();
        assert_eq!(have, want);
    }
}
