//! The checker is bounded, deterministic, and never passes what it did not see; merging situations hides nothing.

use crate::{accepted, good, with};
use engine_core::action::ACTIONS;
use engine_core::condition::{Condition, Scope, compile};
use engine_core::playbook::{ApprovalClass, ArgValue, Ends, Playbook, Precondition, Step};
use engine_core::value::Value;
use engine_core::vocabulary::FACTS;
use engine_playbook::checker::{Finding, Options, RealMachine, Refusal, Report, check, check_with};
use proptest::prelude::*;

fn checked(p: &Playbook, situations: usize, merge: bool) -> Result<Report, Box<Refusal>> {
    check_with(p, &RealMachine, Options { situations, merge })
}

#[test]
fn a_reached_limit_is_a_finding_of_its_own_and_never_a_pass() {
    let full = check(&good()).unwrap();
    assert!(checked(&good(), full.situations, true).is_ok());
    for limit in [1, 10, 100, full.situations - 100] {
        let refusal = checked(&good(), limit, true).unwrap_err();
        assert_eq!(refusal.finding, Finding::Limit { situations: limit });
        assert!(refusal.sentence().contains("not all were seen"));
    }
}

#[test]
fn the_same_playbook_gives_the_same_report() {
    let report = check(&good()).unwrap();
    assert_eq!(report.crashes, report.situations);
    assert_eq!(check(&good()).unwrap(), report);
}

/// A long playbook, most steps with as many attempts as there can be.
#[test]
fn a_long_playbook_is_seen_to_its_end() {
    let evidence = "  - node.collect_evidence:\n    attempts: 10\n".repeat(10);
    let text = with(&[
        ("  - dcgm.reset_gpu", &format!("{evidence}  - dcgm.reset_gpu")),
        ("[slurm.drain,", "[slurm.drain, node.collect,"),
    ]);
    let p = accepted(&text);
    assert_eq!(p.steps.len(), 15);
    let began = std::time::Instant::now();
    let report = check(&p).unwrap();
    println!("15 steps, 10 attempts each: {report}; {} ({:?})", report.details(), began.elapsed());
}

/// Situations that differ only in what can no longer matter count as one: without that there are many times as many,
/// and they end the same ways, the longest of them after as many events.
#[test]
fn merging_hides_nothing() {
    let merged = check(&good()).unwrap();
    let all = checked(&good(), 1_000_000, false).unwrap();
    println!("merged: {merged}\nnot merged: {all}");
    assert!(all.situations > 10 * merged.situations);
    assert_eq!((all.ends, all.longest), (merged.ends, merged.longest));
}

fn condition(source: &str) -> Condition {
    compile(source, &Scope::new(FACTS)).unwrap()
}

fn any_when() -> impl Strategy<Value = Option<Condition>> {
    let sources = vec![
        "active_jobs == 0",
        "node.state == IDLE",
        "node.drained_by_us",
        "gpu.xid == 48 or active_jobs == 0",
        "gpu.xid is unknown",
        "not (node.responding and suspended_jobs > 0)",
    ];
    prop_oneof![3 => Just(None), 1 => prop::sample::select(sources).prop_map(|s| Some(condition(s)))]
}

fn any_step() -> impl Strategy<Value = Step> {
    (0..ACTIONS.len(), any_when(), prop::option::of(1_u32..4), any::<bool>()).prop_map(
        |(action, when, attempts, other)| {
            let text = if other { "one" } else { "two" };
            let reason = ("reason".to_owned(), ArgValue::Literal(Value::Text(text.to_owned())));
            Step { action: &ACTIONS[action], args: [reason].into(), when, timeout: None, attempts }
        },
    )
}

fn any_playbook(longest: usize) -> impl Strategy<Value = Playbook> {
    let approval = prop_oneof![
        3 => Just(ApprovalClass::Auto),
        1 => Just(ApprovalClass::Hitl),
        1 => Just(ApprovalClass::Hitl2),
    ];
    let ends = prop_oneof![Just(Ends::InService), Just(Ends::Drained), Just(Ends::Untouched)];
    let preconditions = prop::collection::vec(any_when(), 0..2);
    let steps = prop::collection::vec(any_step(), 0..longest);
    let rollback = prop::collection::vec(any_step(), 0..3);
    (steps, rollback, approval, ends, preconditions).prop_map(|(steps, rollback, approval, ends, pre)| {
        let preconditions =
            pre.into_iter().flatten().map(|condition| Precondition { condition, otherwise: None }).collect();
        Playbook { steps, rollback, approval, ends, preconditions, ..good() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Any playbook, sensible or not: a verdict within the limit, no panic, and a way to tell for each refusal.
    #[test]
    fn any_playbook_gets_a_verdict_within_the_limit(p in any_playbook(9)) {
        match checked(&p, 3_000, true) {
            Ok(report) => prop_assert!(report.situations <= 3_000),
            Err(refusal) => {
                prop_assert!(refusal.situations <= 3_000 + 64, "{}", refusal.situations);
                prop_assert!(!refusal.to_string().is_empty());
                if matches!(refusal.finding, Finding::Broken(_)) {
                    prop_assert!(!refusal.trace.lines.is_empty());
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// The verdict is the same whether situations are merged or not.
    #[test]
    fn merging_never_changes_the_verdict(p in any_playbook(4)) {
        let merged = checked(&p, 10_000, true);
        let all = checked(&p, 10_000, false);
        let limit = |r: &Result<Report, Box<Refusal>>| {
            r.as_ref().is_err_and(|e| matches!(e.finding, Finding::Limit { .. }))
        };
        prop_assume!(!limit(&all));
        match (merged, all) {
            (Ok(a), Ok(b)) => prop_assert_eq!((a.ends, a.longest), (b.ends, b.longest)),
            (Err(a), Err(b)) => {
                prop_assert_eq!(a.rule(), b.rule());
                prop_assert_eq!(a.trace, b.trace);
            }
            (a, b) => prop_assert!(false, "{a:?}\n{b:?}"),
        }
    }
}
