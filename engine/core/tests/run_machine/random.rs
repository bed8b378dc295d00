//! Random plans, random adversaries: longer ways than the walk over all situations can take.

use crate::plans::{comment, plan, step_with};
use crate::player::{Game, Move, cancel, tell};
use engine_core::action::ACTIONS;
use engine_core::plan::{Plan, PlannedStep};
use engine_core::playbook::{ApprovalClass, Ends};
use engine_core::run::EventKind;
use proptest::prelude::*;

/// A step of any action of the catalogue, or of one it does not have.
fn any_step() -> impl Strategy<Value = PlannedStep> {
    (0..=ACTIONS.len(), 0_u32..4)
        .prop_map(|(i, attempts)| ACTIONS.get(i).map_or_else(comment, |a| step_with(a.name, attempts)))
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let approval = prop_oneof![
        3 => Just(ApprovalClass::Auto),
        1 => Just(ApprovalClass::Hitl),
        1 => Just(ApprovalClass::Hitl2),
    ];
    let ends = prop_oneof![Just(Ends::InService), Just(Ends::Drained), Just(Ends::Untouched)];
    let steps = prop::collection::vec(any_step(), 0..8);
    let rollback = prop::collection::vec(any_step(), 0..4);
    (steps, rollback, approval, ends).prop_map(|(s, r, a, e)| plan(s, r, a, e))
}

/// Mostly good outcomes, so that runs get far; the adversary picks any of the others now and then.
fn pick(moves: &[Move], die: u16) -> &Move {
    let n = moves.len();
    if die.is_multiple_of(4) { &moves[usize::from(die / 4) % n] } else { &moves[0] }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever the plan and whatever happens, the judge finds no rule broken, a restart at any event decides the
    /// same, and the run ends within a bounded number of events (rule 13), cancels, notes and recoveries included.
    #[test]
    fn no_plan_and_no_adversary_breaks_a_rule(
        plan in any_plan(),
        dice in prop::collection::vec(any::<u16>(), 120),
        crashes in prop::collection::vec(0_usize..120, 0..4),
    ) {
        let (mut game, mut events) = Game::new(&plan);
        let bound = 60 + 50 * (plan.steps.len() + plan.rollback.len() + 3);
        for turn in 0.. {
            let moves = game.moves();
            if moves.is_empty() {
                break;
            }
            let die = dice.get(turn).copied().unwrap_or(4);
            if crashes.contains(&turn) {
                game.crash(&events);
                let back = EventKind::Recovered { engine: "e2".to_owned(), why: "its engine stopped".to_owned() };
                game.play(&Move::Write(back), &mut events);
            }
            match die {
                0..600 => game.play(&Move::Write(EventKind::Noted { text: "still waiting".to_owned() }), &mut events),
                600..900 => game.play(&Move::Write(cancel()), &mut events),
                // Approvals that nobody gives would let time pass for ever: the first move is a yes.
                _ => game.play(pick(&moves, die), &mut events),
            }
            prop_assert!(events.len() < bound, "(13) no end in sight\n{}", tell(&events));
            prop_assert!(turn < 3 * bound);
        }
        game.crash(&events);
        prop_assert!(game.judge.end().is_some());
    }
}
