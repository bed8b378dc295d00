//! The fleet's gate: breakers and people's stops, then the policy with its budgets, then the locks. Everything is read
//! anew, since other engines and people write too; what cannot be read stops everything (rule 3).

use super::Intake;
use super::Playbooks;
use super::cost::reckon;
use super::history::{History, gpu_of};
use super::log::FleetLog;
use super::view::{FleetView, shape_of};
use crate::engine::{Gate, Judgement, Pass};
use crate::gather::Situation;
use crate::journal::{Admit, HeldLease, Journal, Lease, LockKey};
use crate::ports::Clock;
use async_trait::async_trait;
use engine_core::action::ServiceEffect;
use engine_core::incident::Affected;
use engine_core::model::NodeName;
use engine_core::ownership::reservation_name;
use engine_core::plan::{Plan, PlannedStep};
use engine_core::playbook::PlaybookRef;
use engine_core::policy::{
    Cost, Fleet, Held, Out, Outcome, Policy, Quota, Request, Stage, Verdict, in_canary, judge,
};
use engine_core::run::{Actor, ActorKind, Effect, RunState};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Age of a look at the whole cluster up to which it may say no. A yes is always given on a fresh one.
const RECENT: SignedDuration = SignedDuration::from_secs(2);

/// Lets pass what no breaker and no person stops. What stands behind every other gate, too.
#[derive(Debug, Clone)]
pub struct SwitchGate {
    log: Arc<FleetLog>,
    intake: Arc<Intake>,
}

impl SwitchGate {
    /// Builds the gate on the fleet's record; the intake knows which partitions a node is in.
    pub fn new(log: Arc<FleetLog>, intake: Arc<Intake>) -> Self {
        Self { log, intake }
    }

    async fn pass(&self, plan: &Plan) -> Pass {
        if let Err(e) = self.log.sync().await {
            return Pass::Wait { why: format!("whether a breaker is open cannot be read: {e}"), until: None };
        }
        let target = &plan.target.node;
        let shape = self.intake.shape();
        let partitions = shape.place(target).map(|p| p.partitions.as_slice());
        let work = Affected { node: target, partitions, playbook: &plan.playbook.id };
        match self.log.read(|f| f.switches().against(work)).await {
            Some(why) => Pass::Wait { why, until: None },
            None => Pass::Go,
        }
    }
}

#[async_trait]
impl Gate for SwitchGate {
    fn stage(&self, _playbook: &PlaybookRef, _by: &Actor) -> Option<Stage> {
        None
    }

    async fn admit(&self, state: &RunState) -> Pass {
        self.pass(&state.plan).await
    }

    async fn allows(&self, state: &RunState, _effect: Effect) -> Pass {
        self.pass(&state.plan).await
    }

    async fn stands(&self, state: &RunState) -> Pass {
        self.pass(&state.plan).await
    }
}

/// Breakers, policy and locks.
#[derive(Debug)]
pub struct PolicyGate {
    switches: SwitchGate,
    policy: Arc<Policy>,
    view: Arc<FleetView>,
    playbooks: Arc<dyn Playbooks>,
    history: History,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
}

impl PolicyGate {
    /// Builds the gate.
    pub fn new(
        switches: SwitchGate,
        policy: Arc<Policy>,
        view: Arc<FleetView>,
        playbooks: Arc<dyn Playbooks>,
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let history = History::new(Arc::clone(&journal), &policy);
        Self { switches, policy, view, playbooks, history, journal, clock }
    }

    /// Says why a plan must not be carried out any more, whoever approved it: what it stands on was changed (rule 11).
    fn stale(&self, plan: &Plan) -> Option<String> {
        if !self.playbooks.holds(&plan.playbook) {
            return Some(format!("{} was changed or withdrawn since the plan was made", plan.playbook));
        }
        let judged_by = plan.policy.as_ref().map(|v| &v.policy);
        if judged_by.is_some_and(|p| *p != self.policy.digest().ok()) {
            return Some("the policy was changed since the plan was made".to_owned());
        }
        None
    }

    /// Asks the switches, once it is known which partitions the node is in.
    async fn switched(&self, plan: &Plan) -> Pass {
        if self.switches.intake.shape().is_empty()
            && let Some(shape) = shape_of(&self.view.recent(RECENT).await)
        {
            self.switches.intake.set_shape(Arc::new(shape));
        }
        self.switches.pass(plan).await
    }

    async fn held(&self) -> Result<Vec<Held>, crate::journal::JournalError> {
        Ok(held_of(&self.journal.leases().await?))
    }

    /// The whole way to the locks. The locks that are held are counted twice, before the look at the cluster and inside
    /// the transaction: a run that ends in between, and leaves its node drained, is in one of the two.
    async fn take(&self, state: &RunState) -> Result<Pass, crate::journal::JournalError> {
        let request = request(&state.plan, false);
        let mut held = self.held().await?;
        let rival = held.iter().find(|h| h.node == request.node && h.run != request.run);
        if let Some(rival) = rival.map(|h| h.run.clone())
            && self.journal.free_abandoned(&rival).await?
        {
            // Its engine died after it took the lock and before it began.
            held = self.held().await?;
        }
        for fresh in [false, true] {
            let now = self.clock.now();
            let ledger = self.history.ledger(&held, if fresh { now } else { before(now) }, now).await;
            let fleet = if fresh { self.view.fresh().await } else { self.view.recent(RECENT).await };
            let verdict = judge(&self.policy, &request, &fleet, &ledger, self.clock.now());
            match pass_of(&verdict, state) {
                Pass::Go if !fresh => continue,
                Pass::Go => {}
                no => return Ok(no),
            }
            let quota = Quota::of(&self.policy, &fleet, &request.node, request.takes_out);
            let (run, earlier) = (state.run.clone(), held.clone());
            let admit: Admit = Arc::new(move |now: &[HeldLease]| {
                let mut all: BTreeMap<_, Held> =
                    earlier.iter().map(|h| (h.node.clone(), h.clone())).collect();
                all.extend(held_of(now).into_iter().map(|h| (h.node.clone(), h)));
                quota.admit(&run, all.values()).map_err(|e| e.to_string())
            });
            let keys = [LockKey::Node(request.node.clone())];
            let now = self.clock.now();
            return Ok(match self.journal.take_leases(&keys, &state.run, now, Some(admit)).await? {
                Lease::Taken { .. } => Pass::Go,
                Lease::HeldBy { key, run } => wait(format!("run {run} has {key}")),
                Lease::NotAdmitted(why) => wait(why),
            });
        }
        Ok(wait("the cluster could not be judged".to_owned()))
    }
}

#[async_trait]
impl Gate for PolicyGate {
    fn may_approve(&self, plan: &Plan, by: &Actor) -> Result<(), String> {
        let initiator = &plan.initiator;
        let own = initiator.kind == ActorKind::Program && initiator.on_behalf_of.as_ref() == Some(&by.name);
        if own && self.policy.approvals.program_needs_other {
            return Err(format!("{initiator} speaks for {by}: somebody else has to say yes"));
        }
        Ok(())
    }

    fn stage(&self, playbook: &PlaybookRef, by: &Actor) -> Option<Stage> {
        (by.kind != ActorKind::Person).then(|| self.policy.stages.of(playbook))
    }

    async fn judge(&self, plan: &Plan) -> Option<Judgement> {
        let fleet = self.view.recent(RECENT).await;
        let request = request(plan, false);
        // A journal that cannot be read is a gap of the ledger, and waits.
        let held = self.held().await.unwrap_or_default();
        let now = self.clock.now();
        let ledger = self.history.ledger(&held, before(now), now).await;
        let verdict = judge(&self.policy, &request, &fleet, &ledger, self.clock.now());
        let canary = in_canary(&self.policy, &fleet, &plan.target.node) && verdict.permits();
        let mut approvers = self.policy.people_needed(plan.approval, request.worst, canary);
        if let Some(stage) = plan.stage {
            approvers = stage.people(approvers, canary);
        }
        if verdict.outcome == Outcome::NeedsPerson {
            approvers = approvers.max(1);
        }
        Some(Judgement { verdict, approvers })
    }

    async fn cost(&self, plan: &Plan, look: &Situation) -> Option<Cost> {
        let (fleet, pending) = tokio::join!(self.view.recent(RECENT), self.view.pending());
        reckon(&self.policy, &fleet, pending, plan, look, self.clock.now())
    }

    async fn admit(&self, state: &RunState) -> Pass {
        if let Some(why) = self.stale(&state.plan) {
            return Pass::Never(format!("void: {why}; start a new run, it is planned on fresh facts"));
        }
        match self.switched(&state.plan).await {
            Pass::Go => {}
            no => return no,
        }
        self.take(state).await.unwrap_or_else(|e| wait(format!("the budgets cannot be counted: {e}")))
    }

    async fn allows(&self, state: &RunState, effect: Effect) -> Pass {
        match self.switched(&state.plan).await {
            Pass::Go => {}
            no => return no,
        }
        let takes = |s: &PlannedStep| s.spec().is_some_and(|s| s.service == ServiceEffect::TakesOut);
        let locks = effect == Effect::Lock;
        let takes_out = match state.step_of(effect) {
            Some(step) => takes(step),
            None => locks && state.plan.steps.iter().any(takes),
        };
        if !takes_out {
            return Pass::Go;
        }
        let fleet = self.view.fresh().await;
        if let Some(gap) = fleet.gaps().first() {
            return wait(format!("the budgets cannot be counted: {gap}"));
        }
        match overdrawn(&self.policy, &fleet, &state.plan.target.node, locks) {
            Some(why) => wait(why),
            None => Pass::Go,
        }
    }

    async fn stands(&self, state: &RunState) -> Pass {
        self.switches.pass(&state.plan).await
    }
}

/// Counts the budgets once more right before a node is locked, and right before one that has our lock is drained: people,
/// and engines with other journals, may have taken nodes meanwhile. The node itself is out of service by its lock.
///
/// Two engines that locked a node each at the same moment see each other. So that they do not both wait, the one whose
/// node comes first by name goes on: a node that is locked and not drained, and comes later, does not count for it. For a
/// lock that is still to be taken, every lock counts.
fn overdrawn(policy: &Policy, fleet: &Fleet, node: &NodeName, locks: bool) -> Option<String> {
    let quota = Quota::of(policy, fleet, node, true);
    let later_rivals: Vec<&NodeName> = fleet
        .out()
        .filter(|(name, out)| {
            let locked =
                matches!(out, Out::Maintenance { reservation: Some(r) } if *r == reservation_name(name));
            locked && *name > node && !locks
        })
        .map(|(name, _)| name)
        .collect();
    let locked_here = fleet.node(node).is_some_and(|m| m.service.is_out());
    quota.levels([]).into_iter().zip(fleet.groups_of(node)).find_map(|(level, (_, group))| {
        let behind = later_rivals.iter().filter(|n| fleet.is_in(n, group)).count();
        let out = level.out.saturating_sub(behind) + usize::from(!locked_here);
        (out > level.limit).then(|| level.to_string())
    })
}

/// What was read before this is read again.
fn before(now: Timestamp) -> Timestamp {
    now.saturating_sub(RECENT).unwrap_or(Timestamp::MIN)
}

fn wait(why: String) -> Pass {
    Pass::Wait { why, until: None }
}

/// What a verdict means for a run that asks to begin. A person's yes to a plan that showed the finding counts.
fn pass_of(verdict: &Verdict, state: &RunState) -> Pass {
    let why = || {
        let all: Vec<&str> = verdict.obstacles().map(|f| f.says.as_str()).collect();
        all.join("; ")
    };
    // A person's yes to one finding does not lift what says "not now": a freeze, a rate, what cannot be read.
    let waits = verdict.obstacles().find_map(|f| match f.outcome {
        Outcome::Wait { until } => Some(until),
        _ => None,
    });
    match verdict.outcome {
        Outcome::NeedsPerson if waits.is_some() => Pass::Wait { why: why(), until: waits.flatten() },
        Outcome::Permit => Pass::Go,
        Outcome::Wait { until } => Pass::Wait { why: why(), until },
        Outcome::NeedsPerson if state.plan.people() > 0 && was_shown(verdict, &state.plan) => Pass::Go,
        Outcome::NeedsPerson => Pass::Never(format!("a person has to decide: {}", why())),
        Outcome::Deny => Pass::Never(format!("the policy says no: {}", why())),
    }
}

/// Says whether the plan that people approved showed every finding that needs a person now.
fn was_shown(verdict: &Verdict, plan: &Plan) -> bool {
    let shown = plan.policy.as_ref();
    verdict.obstacles().filter(|f| f.outcome == Outcome::NeedsPerson).all(|f| {
        shown.is_some_and(|v| v.obstacles().any(|s| s.rule == f.rule && s.outcome == Outcome::NeedsPerson))
    })
}

fn held_of(leases: &[HeldLease]) -> Vec<Held> {
    leases
        .iter()
        .filter_map(|l| {
            let node = l.key.node()?.clone();
            Some(Held { node, run: l.run.clone(), takes_out: true })
        })
        .collect()
}

fn request(plan: &Plan, begun: bool) -> Request {
    let takes_out = |s: &engine_core::plan::PlannedStep| {
        s.spec().is_none_or(|spec| spec.service == ServiceEffect::TakesOut)
    };
    Request {
        run: plan.run.clone(),
        node: plan.target.node.clone(),
        gpu: gpu_of(plan),
        playbook: plan.playbook.clone(),
        faults: Vec::new(),
        worst: plan.worst_effect(),
        takes_out: plan.steps.iter().any(takes_out),
        begun,
    }
}
