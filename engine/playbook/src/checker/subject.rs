//! The playbook as the checker plays it: a plan without arguments, and what its conditions may come to on each node.

use super::world::{JOBS, Jobs, World};
use engine_core::condition::{Condition, Outcomes, Truth};
use engine_core::digest::Digest;
use engine_core::fact::FactSet;
use engine_core::model::{NodeName, RunId};
use engine_core::ownership::NodeMark;
use engine_core::plan::{BlastRadius, MAX_ATTEMPTS, PLAN_FORMAT, Plan, PlannedStep, Target};
use engine_core::playbook::{Playbook, Step};
use engine_core::run::{Actor, Effect};
use jiff::Timestamp;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What the conditions before an effect may come to, given what jobs do on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdicts {
    /// By the place in [`JOBS`].
    by_jobs: [Outcomes; JOBS.len()],
}

impl Verdicts {
    /// What they may come to at one look.
    pub(super) fn at(self, jobs: Jobs) -> Outcomes {
        self.by_jobs[jobs as usize]
    }
}

/// Which conditions stand before an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Before {
    /// The preconditions.
    Run,
    /// The `when` of a step.
    Effect(Effect),
}

/// Which conditions, on which node, answering or not.
type View = (Before, [u8; 2], bool);

/// The playbook.
pub(super) struct Subject<'a> {
    pub(super) playbook: &'a Playbook,
    pub(super) plan: Plan,
    /// Whether no step's condition asks what reservations make of the node.
    pub(super) blind: bool,
    /// Whether situations that differ only in what is behind them count as one.
    pub(super) merge: bool,
    verdicts: RefCell<BTreeMap<View, Verdicts>>,
}

impl<'a> Subject<'a> {
    /// Prepares a playbook; an error is a sentence.
    pub(super) fn of(playbook: &'a Playbook, merge: bool) -> Result<Self, String> {
        let run = RunId::new("r1").map_err(|e| e.to_string())?;
        let node = NodeName::new("node1").map_err(|e| e.to_string())?;
        let steps: Vec<PlannedStep> = playbook.steps.iter().map(planned).collect();
        let plan = Plan {
            format: PLAN_FORMAT,
            run,
            playbook: playbook.reference.clone(),
            summary: String::new(),
            target: Target { node: node.clone(), gpu: None },
            initiator: Actor::person("mara"),
            made_at: Timestamp::UNIX_EPOCH,
            params: BTreeMap::new(),
            facts: FactSet::default(),
            observed: None,
            preconditions: Vec::new(),
            judged: Vec::new(),
            rollback: playbook.rollback.iter().map(planned).collect(),
            approval: playbook.approval,
            ends: playbook.ends,
            blast: BlastRadius { nodes: vec![node], gpus: None, running_jobs: Vec::new(), jobs_known: true },
            policy: None,
            cost: None,
            approvers: None,
            stage: None,
            steps,
        };
        let asks = |c: &Condition| {
            ["node.state", "node.in_maintenance", "node.reserved"].iter().any(|f| c.facts().contains(*f))
        };
        let mut steps = playbook.steps.iter().chain(&playbook.rollback);
        let blind = !steps.any(|s| s.when.as_ref().is_some_and(asks));
        Ok(Self { playbook, plan, blind, merge, verdicts: RefCell::new(BTreeMap::new()) })
    }

    /// The plan as it is made when the node looks like this.
    pub(super) fn plan_on(&self, observed: NodeMark) -> Result<(Plan, Digest), String> {
        let plan = Plan { observed: Some(observed), ..self.plan.clone() };
        let digest = plan.digest().map_err(|e| e.to_string())?;
        Ok((plan, digest))
    }

    /// The step behind a forward or backward effect.
    pub(super) fn step(&self, effect: Effect) -> Option<&Step> {
        match effect {
            Effect::Step(i) => self.playbook.steps.get(i),
            Effect::Undo(i) => self.playbook.rollback.get(i),
            Effect::Lock | Effect::Hold | Effect::Unlock => None,
        }
    }

    /// The number of the text that an effect leaves as the node's reason: the same for steps that leave the same text.
    pub(super) fn reason(&self, effect: Effect) -> u8 {
        let steps = || self.playbook.steps.iter().chain(&self.playbook.rollback);
        let Some(step) = self.step(effect) else { return 0 };
        let same = |other: &Step| other.args.get("reason") == step.args.get("reason");
        let place = steps().position(same).unwrap_or(0);
        u8::try_from(place + 1).unwrap_or(u8::MAX)
    }

    fn conditions(&self, before: Before) -> Vec<&Condition> {
        match before {
            Before::Run => self.playbook.preconditions.iter().map(|p| &p.condition).collect(),
            Before::Effect(effect) => self.step(effect).and_then(|s| s.when.as_ref()).into_iter().collect(),
        }
    }

    /// Says what conditions may come to on a node.
    pub(super) fn verdicts(&self, before: Before, world: World, silent: bool) -> Verdicts {
        let key = (before, world.code(), silent);
        if let Some(known) = self.verdicts.borrow().get(&key) {
            return *known;
        }
        let conditions = self.conditions(before);
        let by_jobs = JOBS.map(|jobs| {
            let facts = world.facts(silent, jobs);
            conditions.iter().fold(Outcomes::only(Truth::True), |out, c| out.and(c.possible(&facts)))
        });
        let verdicts = Verdicts { by_jobs };
        self.verdicts.borrow_mut().insert(key, verdicts);
        verdicts
    }

    /// Names an effect as an author would: by its place and action.
    pub(super) fn name(&self, effect: Effect) -> String {
        let action = self.step(effect).map_or("", |s| s.action.name);
        match effect {
            Effect::Lock => "the lock".to_owned(),
            Effect::Hold => "the reason that says why the node is held".to_owned(),
            Effect::Unlock => "the lock".to_owned(),
            Effect::Step(i) => format!("step {} ({action})", i + 1),
            Effect::Undo(i) => format!("rollback step {} ({action})", i + 1),
        }
    }
}

/// What a look may show of jobs.
pub(super) fn views(world: World) -> &'static [Jobs] {
    if world.jobs { &JOBS } else { &[Jobs::None] }
}

fn planned(step: &Step) -> PlannedStep {
    let spec = step.action;
    PlannedStep {
        action: spec.name.to_owned(),
        effect: spec.effect,
        args: BTreeMap::new(),
        when: None,
        timeout_s: u64::from(spec.default_timeout_s),
        attempts: if spec.effect.needs_verification() {
            1
        } else {
            step.attempts.unwrap_or(spec.default_attempts).clamp(1, MAX_ATTEMPTS)
        },
    }
}
