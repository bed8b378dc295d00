//! What may not follow: refused, without a panic and without a trace in the state.

use crate::plans::{begun, drain_reset, drained, ended, event, later, proposed, start};
use crate::player::{cancel, finished, guard, refused, resolved};
use engine_core::digest::Digest;
use engine_core::model::RunId;
use engine_core::ownership::NodeMark;
use engine_core::playbook::ApprovalClass;
use engine_core::run::{Actor, Effect, End, Event, EventKind, OutcomeKind, Resolution, RunState, fold, next};
use proptest::prelude::*;

fn any_effect() -> impl Strategy<Value = Effect> {
    prop_oneof![
        2 => Just(Effect::Lock),
        4 => (0_usize..8).prop_map(Effect::Step),
        1 => (0_usize..3).prop_map(Effect::Undo),
        1 => Just(Effect::Hold),
        1 => Just(Effect::Unlock),
        1 => Just(Effect::Step(usize::MAX)),
    ]
}

pub(crate) fn any_kind() -> impl Strategy<Value = EventKind> {
    let attempt = prop_oneof![4 => 1_u32..4, 1 => any::<u32>()];
    let mark = || prop_oneof![Just(None::<NodeMark>), Just(Some(drained("alert")))];
    let outcome = prop_oneof![
        4 => Just(OutcomeKind::Succeeded),
        1 => Just(OutcomeKind::Transient),
        1 => Just(OutcomeKind::Permanent),
        1 => Just(OutcomeKind::Ambiguous),
        1 => Just(OutcomeKind::Foreign),
    ];
    let resolution = prop_oneof![
        Just(Resolution::Applied),
        Just(Resolution::NotApplied),
        Just(Resolution::Unclear),
        Just(Resolution::Foreign),
    ];
    let end = prop_oneof![
        Just(End::Succeeded),
        Just(End::Shadowed),
        Just(End::Rejected),
        Just(End::Cancelled),
        Just(End::RolledBack),
        Just(End::Held),
        Just(End::HandedOver),
        Just(End::Stuck),
    ];
    let time = -9_000_i64..9_000;
    prop_oneof![
        6 => (any_effect(), attempt.clone(), any::<bool>()).prop_map(|(effect, attempt, passed)| EventKind::Intent {
            effect, attempt, action: "x".to_owned(), guard: guard(passed), before: None, context: engine_core::run::Load::default(),
        }),
        6 => (any_effect(), attempt.clone(), outcome, mark()).prop_map(|(e, a, o, m)| finished(e, a, o, m)),
        3 => (any_effect(), attempt.clone(), resolution, mark()).prop_map(|(e, a, r, m)| resolved(e, a, r, m)),
        2 => (any_effect(), any::<bool>(), any::<bool>()).prop_map(|(e, f, t)| refused(e, f, t)),
        2 => (any_effect(), attempt, time.clone()).prop_map(|(effect, attempt, t)| EventKind::RetryScheduled {
            effect, attempt, not_before: later(t), why: "again".to_owned(),
        }),
        1 => end.prop_map(ended),
        1 => Just(cancel()),
        1 => Just(EventKind::RollbackStarted { why: "back".to_owned() }),
        1 => Just(EventKind::Started { engine: "e1".to_owned() }),
        1 => time.clone().prop_map(|t| EventKind::ApprovalRequested { people: 0, expires_at: later(t) }),
        1 => time.prop_map(|t| EventKind::Approved {
            by: Actor::person("ada"), digest: drain_reset(ApprovalClass::Hitl).digest().unwrap(), expires_at: later(t),
            ticket: None,
        }),
        1 => Just(EventKind::ApprovalVoided { why: "void".to_owned() }),
        1 => Just(EventKind::Recovered { engine: "e2".to_owned(), why: "back".to_owned() }),
        1 => Just(EventKind::Noted { text: "note".to_owned() }),
        1 => Just(proposed(&drain_reset(ApprovalClass::Hitl))),
    ]
}

/// What the engine is told to do, as an event that makes progress.
fn well_behaved(state: &RunState) -> Option<EventKind> {
    let game = crate::player::Game {
        judge: crate::judge::Judge::new(&state.plan),
        state: state.clone(),
        now: state.last_event_at,
    };
    game.moves().into_iter().find_map(|m| if let crate::player::Move::Write(k) = m { Some(k) } else { None })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// For any sequence of events, sensible ones and nonsense mixed: `apply` and `next` never panic, an event that may
    /// not follow leaves the state as it was, bit by bit, and what was accepted folds to the same state.
    #[test]
    fn an_illegal_event_leaves_no_trace(
        kinds in prop::collection::vec(prop_oneof![any_kind().prop_map(Some), Just(None)], 1..60),
        hitl in any::<bool>(),
    ) {
        let plan = drain_reset(if hitl { ApprovalClass::Hitl } else { ApprovalClass::Auto });
        let (mut state, mut events) = begun(&plan);
        for (i, kind) in kinds.into_iter().enumerate() {
            let Some(kind) = kind.or_else(|| well_behaved(&state)) else { continue };
            let at = later(i64::try_from(i).unwrap());
            let e = event(state.seq + 1, at, kind);
            let before = state.clone();
            if state.apply(&e).is_ok() {
                events.push(e);
                prop_assert_eq!(state.seq, before.seq + 1);
            } else {
                prop_assert_eq!(&state, &before, "{:?} left a trace", e.kind.word());
            }
            let _ = next(&state, at);
        }
        prop_assert_eq!(fold(&events).unwrap(), state);
    }

    /// Events survive their stored form: a journal read back folds to the same state.
    #[test]
    fn stored_events_fold_to_the_same_state(kind in any_kind()) {
        let text = serde_json::to_string(&kind).unwrap();
        prop_assert_eq!(serde_json::from_str::<EventKind>(&text).unwrap(), kind);
    }
}

/// The frame of a run: it begins with `proposed`, number 1, its own plan and digest; numbers have no gap; events of
/// other runs and anything but a note after the end are refused.
#[test]
fn the_frame_of_a_run_is_checked() {
    let plan = drain_reset(ApprovalClass::Auto);
    assert!(fold(&[]).is_err());
    assert!(fold(&[event(1, start(), cancel())]).is_err());
    assert!(fold(&[event(2, start(), proposed(&plan))]).is_err());
    let forged = EventKind::Proposed { plan: plan.clone().into(), digest: Digest::of(b"another plan") };
    assert!(fold(&[event(1, start(), forged)]).is_err());
    let elsewhere = Event { run: RunId::new("r2").unwrap(), ..event(1, start(), proposed(&plan)) };
    assert!(fold(&[elsewhere]).is_err());

    let (mut state, _) = begun(&plan);
    assert!(state.apply(&event(3, start(), cancel())).is_err(), "a gap");
    assert!(state.apply(&event(1, start(), cancel())).is_err(), "a number used twice");
    assert!(state.apply(&Event { run: RunId::new("r2").unwrap(), ..event(2, start(), cancel()) }).is_err());
    state.apply(&event(2, start(), ended(End::Rejected))).unwrap();
    assert!(state.apply(&event(3, start(), cancel())).is_err(), "after the end");
    state.apply(&event(3, start(), EventKind::Noted { text: "seen".to_owned() })).unwrap();
    assert_eq!(next(&state, start()), engine_core::run::Next::Over(End::Rejected));
}

/// Rule 11: a yes counts for one digest, by a person, once, while it holds.
#[test]
fn only_living_people_approve_and_each_counts_once() {
    let plan = drain_reset(ApprovalClass::Hitl2);
    let (mut state, _) = begun(&plan);
    let digest = state.digest.clone();
    state
        .apply(&event(2, start(), EventKind::ApprovalRequested { people: 2, expires_at: later(9_000) }))
        .unwrap();
    let yes = |by: Actor, digest: &Digest| EventKind::Approved {
        by,
        digest: digest.clone(),
        expires_at: later(100),
        ticket: None,
    };
    let program = Actor::program("agent", None);
    assert!(state.apply(&event(3, start(), yes(program, &digest))).is_err());
    assert!(state.apply(&event(3, start(), yes(Actor::engine("e1"), &digest))).is_err());
    assert!(state.apply(&event(3, start(), yes(Actor::person(" "), &digest))).is_err());
    assert!(state.apply(&event(3, start(), yes(Actor::person("ada"), &Digest::of(b"other")))).is_err());
    state.apply(&event(3, start(), yes(Actor::person("ada"), &digest))).unwrap();
    let again = event(4, start(), yes(Actor::person("ada"), &digest));
    assert!(state.clone().apply(&again).is_err(), "the same person twice");
    assert_eq!(state.valid_approvals(start()), 1);
    let begin = EventKind::Started { engine: "e1".to_owned() };
    assert!(state.apply(&event(4, start(), begin.clone())).is_err(), "one person is not two");
    state.apply(&event(4, start(), yes(Actor::person("bob"), &digest))).unwrap();
    assert!(state.apply(&event(5, later(100), begin.clone())).is_err(), "the yes has run out");
    state.apply(&event(5, later(99), begin)).unwrap();
}
