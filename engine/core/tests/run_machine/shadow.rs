//! A run in shadow (rule 2): looked at step by step, nothing begun, always an end.

use crate::legality::any_kind;
use crate::plans::{begun, drain_reset, ended, event, later, plan, step};
use crate::player::{cancel, guard, intent};
use engine_core::plan::Plan;
use engine_core::playbook::{ApprovalClass, Ends};
use engine_core::policy::Stage;
use engine_core::run::{Effect, End, EventKind, Next, RunState, Status, next};
use proptest::prelude::*;

fn shadowed(approval: ApprovalClass) -> Plan {
    Plan { stage: Some(Stage::Shadow), ..drain_reset(approval) }
}

fn rehearsed(step: usize, passed: bool) -> EventKind {
    let would = vec!["send it".to_owned()];
    EventKind::Rehearsed { effect: Effect::Step(step), action: "x".to_owned(), guard: guard(passed), would }
}

fn write(state: &mut RunState, kind: EventKind) -> bool {
    let e = event(state.seq + 1, later(1), kind);
    state.apply(&e).is_ok()
}

/// Does what `next` says, with the guards given; the last one holds for the rest.
fn played(plan: &Plan, guards: &[bool]) -> (RunState, usize) {
    let mut state = begun(plan).0;
    let mut looks = 0;
    loop {
        match next(&state, later(2)) {
            Next::Begin { effect: Effect::Step(i), attempt: 1 } => {
                let passed = guards.get(looks).or(guards.last()).copied().unwrap();
                looks += 1;
                assert!(write(&mut state, rehearsed(i, passed)));
            }
            Next::Finish { end, why, next_step } => {
                assert!(write(&mut state, EventKind::Ended { end, why, next_step, by: None }));
            }
            Next::Over(_) => return (state, looks),
            other => panic!("{other:?} in shadow"),
        }
    }
}

#[test]
fn every_step_is_looked_at_and_nobody_is_asked() {
    for approval in [ApprovalClass::Auto, ApprovalClass::Canary, ApprovalClass::Hitl, ApprovalClass::Hitl2] {
        let (state, looks) = played(&shadowed(approval), &[true]);
        assert_eq!(state.status, Status::Ended(End::Shadowed));
        assert_eq!(looks, 6);
        assert!(state.effects.is_empty() && !state.has_mutated());
        assert!(state.why.contains("it would have begun slurm.drain, dcgm.reset_gpu, slurm.resume"));
    }
}

#[test]
fn a_guard_before_the_first_change_ends_it_and_one_after_it_does_not() {
    let (state, looks) = played(&shadowed(ApprovalClass::Hitl), &[false]);
    assert_eq!((state.status, looks), (Status::Ended(End::Shadowed), 1));
    assert!(state.why.contains("would have stopped at slurm.drain"), "{}", state.why);
    let (state, looks) = played(&shadowed(ApprovalClass::Hitl), &[true, false]);
    assert_eq!((state.status, looks), (Status::Ended(End::Shadowed), 6));
}

#[test]
fn a_playbook_that_only_reads_is_shadowed_too() {
    let reads = plan(vec![step("node.collect_evidence")], vec![], ApprovalClass::Auto, Ends::Untouched);
    let (state, looks) = played(&Plan { stage: Some(Stage::Shadow), ..reads }, &[true]);
    assert_eq!((state.status, looks), (Status::Ended(End::Shadowed), 1));
}

#[test]
fn nothing_is_begun_in_shadow_and_nothing_is_shadowed_outside_of_it() {
    let mut state = begun(&shadowed(ApprovalClass::Auto)).0;
    assert!(!write(&mut state.clone(), EventKind::Started { engine: "e1".to_owned() }));
    for effect in [Effect::Lock, Effect::Step(0), Effect::Hold, Effect::Unlock, Effect::Undo(0)] {
        let kind = intent(&state, effect, 1);
        assert!(!write(&mut state.clone(), kind), "{effect:?}");
    }
    assert!(!write(&mut state.clone(), rehearsed(1, true)), "out of order");
    assert!(!write(&mut state.clone(), ended(End::Shadowed)), "before every step was looked at");
    assert!(write(&mut state.clone(), ended(End::Rejected)));
    assert!(write(&mut state, cancel()));
    assert!(matches!(next(&state, later(2)), Next::Finish { end: End::Cancelled, .. }));
    for stage in [None, Some(Stage::Canary), Some(Stage::Fleet)] {
        let mut state = begun(&Plan { stage, ..drain_reset(ApprovalClass::Auto) }).0;
        assert!(!write(&mut state, rehearsed(0, true)), "{stage:?}");
        assert!(!write(&mut state, ended(End::Shadowed)), "{stage:?}");
    }
}

proptest! {
    /// Whatever is written to a run in shadow, no intent is ever taken, no effect exists, and it comes to an end.
    #[test]
    fn no_sequence_of_events_begins_anything(kinds in prop::collection::vec(any_kind(), 1..80)) {
        let mut state = begun(&shadowed(ApprovalClass::Auto)).0;
        for kind in kinds {
            let begins = matches!(kind, EventKind::Intent { .. } | EventKind::Started { .. });
            let taken = write(&mut state, kind);
            prop_assert!(!(begins && taken));
            prop_assert!(state.effects.is_empty() && state.last_mutation_at.is_none());
        }
        for _ in 0..8 {
            match next(&state, later(2)) {
                Next::Begin { effect: Effect::Step(i), .. } => prop_assert!(write(&mut state, rehearsed(i, true))),
                Next::Finish { end, why, next_step } => {
                    let taken = write(&mut state, EventKind::Ended { end, why, next_step, by: None });
                    prop_assert!(taken);
                }
                _ => {}
            }
        }
        prop_assert!(state.status.is_terminal());
    }
}
