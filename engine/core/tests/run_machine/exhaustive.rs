//! Every step × outcome × crash × foreign change × cancel, for each plan below: a depth-first walk over all the
//! situations that the adversary can bring about, each visited once.

use crate::plans::{comment, drain_reset, plan, step, step_with};
use crate::player::{Game, tell};
use engine_core::plan::Plan;
use engine_core::playbook::{ApprovalClass, Ends};
use engine_core::run::{Effect, EffectState, End, Event, Next, Status, next};
use std::collections::{BTreeMap, BTreeSet};

/// No path of any plan here is longer than this many events.
const LONGEST: usize = 80;

struct Walk {
    seen: BTreeSet<String>,
    on_path: BTreeSet<String>,
    events: Vec<Event>,
    ends: BTreeMap<End, usize>,
    crash_every: usize,
    most_resets: u32,
    disruptive: Vec<Effect>,
}

impl Walk {
    fn step(&mut self, game: &Game) {
        let key = key(game);
        assert!(!self.on_path.contains(&key), "(13) an endless way\n{}", tell(&self.events));
        if !self.seen.insert(key.clone()) {
            return;
        }
        assert!(self.events.len() <= LONGEST, "(13) too long a way\n{}", tell(&self.events));
        for effect in &self.disruptive {
            self.most_resets = self.most_resets.max(game.judge.intents(*effect));
        }
        if self.seen.len().is_multiple_of(self.crash_every) {
            game.crash(&self.events);
        }
        let moves = game.moves();
        if moves.is_empty() {
            let end = game.judge.end();
            assert!(
                end.is_some() && game.state.status.is_terminal(),
                "(13) a run stands still\n{}",
                tell(&self.events)
            );
            *self.ends.entry(end.unwrap()).or_default() += 1;
            return;
        }
        assert!(!game.state.status.is_terminal(), "an ended run goes on\n{}", tell(&self.events));
        self.on_path.insert(key.clone());
        let length = self.events.len();
        for mv in &moves {
            let mut game = game.clone();
            game.play(mv, &mut self.events);
            self.step(&game);
            self.events.truncate(length);
        }
        self.on_path.remove(&key);
    }
}

/// What decides the future of a run, times and sentences left out.
fn key(game: &Game) -> String {
    let s = &game.state;
    let mut out = game.judge.key();
    for (effect, state) in &s.effects {
        let word = match state {
            EffectState::Failed { .. } | EffectState::Retry { .. } if game.judge.is_behind(*effect) => {
                "n".to_owned()
            }
            EffectState::Open { attempt } => format!("o{attempt}"),
            EffectState::Applied => "a".to_owned(),
            EffectState::Retry { attempt, .. } => format!("r{attempt}"),
            EffectState::Failed { attempt, transient, .. } => format!("f{attempt}{transient}"),
            EffectState::Ambiguous { attempt } => format!("m{attempt}"),
            EffectState::Unclear { .. } => "u".to_owned(),
            EffectState::Foreign { begun, .. } => format!("x{begun}"),
        };
        out.push_str(&format!(" {effect:?}{word}"));
    }
    let flags = [
        s.our_drain.is_some() && !game.judge.is_behind(Effect::Hold),
        s.disrupted,
        s.verified,
        s.cancel.is_some(),
        s.rollback_why.is_some(),
        matches!(next(s, game.now), Next::WaitUntil(_)),
        s.approval_expires_at.is_some_and(|t| t <= game.now),
    ];
    out.push_str(&format!(" {} {flags:?}", s.status));
    if matches!(s.status, Status::Proposed | Status::AwaitingApproval | Status::Approved) {
        out.push_str(&format!(" {:?} {}", s.approvals.keys(), s.valid_approvals(game.now)));
    }
    out
}

/// Walks every way of a plan; tells how often each end was met.
fn walk(plan: &Plan) -> Walk {
    let (game, events) = Game::new(plan);
    let disruptive = plan
        .steps
        .iter()
        .enumerate()
        .filter(|(_, s)| s.action == "dcgm.reset_gpu")
        .map(|(i, _)| Effect::Step(i))
        .collect();
    let mut walk = Walk {
        seen: BTreeSet::new(),
        on_path: BTreeSet::new(),
        events,
        ends: BTreeMap::new(),
        crash_every: if plan.steps.len() > 3 { 16 } else { 4 },
        most_resets: 0,
        disruptive,
    };
    walk.step(&game);
    walk
}

fn meets(walk: &Walk, ends: &[End]) {
    let met: BTreeSet<End> = walk.ends.keys().copied().collect();
    assert_eq!(met, ends.iter().copied().collect(), "the ends that can be met");
}

/// The main playbook in every situation: rules 1, 4, 5, 6, 7, 13 of the constitution by the judge; each crash folds
/// to the same state and decision; the reset is begun once at most; every way ends, in one of the ends listed.
#[test]
fn drain_reset_keeps_every_rule_in_every_situation() {
    let walk = walk(&drain_reset(ApprovalClass::Auto));
    assert!(walk.seen.len() > 10_000, "only {} situations", walk.seen.len());
    assert_eq!(walk.most_resets, 1);
    meets(
        &walk,
        &[
            End::Succeeded,
            End::Rejected,
            End::Cancelled,
            End::RolledBack,
            End::Held,
            End::HandedOver,
            End::Stuck,
        ],
    );
}

/// One person's yes, and two different people's: asked, given, void, denied, expired and cancelled in every order;
/// a run never starts without as many valid approvals as the plan needs (rule 11), and always ends.
#[test]
fn approvals_come_lapse_and_are_refused_in_every_order() {
    for class in [ApprovalClass::Canary, ApprovalClass::Hitl, ApprovalClass::Hitl2] {
        let plan = plan(vec![step("slurm.wait_idle")], vec![], class, Ends::Untouched);
        let walk = walk(&plan);
        meets(&walk, &[End::Succeeded, End::Rejected, End::Cancelled, End::HandedOver]);
    }
}

/// A playbook that leaves the node drained on purpose: a cancel after the good end is no cancel, and no way back is
/// claimed that is not there (rule 6).
#[test]
fn a_playbook_without_a_way_back_is_held_and_never_called_rolled_back() {
    let steps = vec![step("slurm.drain"), step("slurm.wait_idle"), step("node.collect_evidence")];
    let walk = walk(&plan(steps, vec![], ApprovalClass::Auto, Ends::Drained));
    meets(&walk, &[End::Succeeded, End::Rejected, End::Cancelled, End::Held, End::HandedOver, End::Stuck]);
}

/// Reads alone change nothing: no such run ends held, rolled back or stuck.
#[test]
fn a_playbook_that_only_reads_never_touches_the_node() {
    let steps = vec![step("node.collect_evidence"), step("health.verify_gpu")];
    let walk = walk(&plan(steps, vec![step("slurm.resume")], ApprovalClass::Auto, Ends::Untouched));
    meets(&walk, &[End::Succeeded, End::Rejected, End::Cancelled, End::HandedOver]);
}

/// A step that fails after the node was given back: the resume is not repeated and the node is not taken out again.
#[test]
fn a_failure_after_the_resume_leaves_the_node_in_service() {
    let steps = vec![step("slurm.drain"), step("slurm.resume"), comment()];
    let walk = walk(&plan(steps, vec![step("slurm.resume")], ApprovalClass::Auto, Ends::InService));
    assert!(walk.ends.contains_key(&End::RolledBack));
}

/// Plans that the loader refuses, and that a damaged or foreign journal could still hold: a reset without
/// verification, one after it, one that asks for attempts, one on a node in service. Rule 5 holds without the loader.
#[test]
fn rule_5_holds_for_plans_that_no_loader_would_accept() {
    let reset = || step_with("dcgm.reset_gpu", 3);
    let (drain, verify, resume) =
        (|| step_with("slurm.drain", 1), || step("health.verify_gpu"), || step_with("slurm.resume", 1));
    for steps in [
        vec![drain(), verify(), reset(), resume()],
        vec![drain(), reset(), verify(), resume(), reset()],
        vec![reset(), reset()],
    ] {
        for rollback in [vec![resume(), resume()], vec![drain(), resume()]] {
            for ends in [Ends::InService, Ends::Drained] {
                let walk = walk(&plan(steps.clone(), rollback.clone(), ApprovalClass::Auto, ends));
                assert!(walk.most_resets <= 1);
            }
        }
    }
}

/// No step at all is no work: the run locks, unlocks and ends, and never before it was started.
#[test]
fn an_empty_plan_ends_without_a_step() {
    let walk = walk(&plan(vec![], vec![], ApprovalClass::Auto, Ends::Untouched));
    meets(&walk, &[End::Succeeded, End::Rejected, End::Cancelled, End::HandedOver]);
}
