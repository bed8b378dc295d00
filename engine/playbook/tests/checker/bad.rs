//! Bad playbooks: each is refused by its rule, with the shortest way that shows it. The ways lie in `traces/`, as the
//! checker prints them; BLESS=1 writes them anew, to be reviewed.

use crate::{accepted, good, with};
use engine_core::playbook::{Ends, Playbook};
use engine_core::run::Effect;
use engine_playbook::checker::{Finding, Refusal, Rule, check};
use std::path::Path;

/// Compares what is printed with the committed file.
fn told(name: &str, refusal: &Refusal) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/checker/traces/{name}.txt"));
    let text = refusal.to_string();
    for line in text.lines().skip(1) {
        assert!(line.chars().count() <= 80, "{name}: a line is too wide: {line}");
    }
    if std::env::var_os("BLESS").is_some_and(|v| v == "1") {
        std::fs::write(&file, &text).unwrap();
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, there, "{name}: BLESS=1 writes it anew, then review it");
}

fn refused(name: &str, playbook: &Playbook) -> Refusal {
    match check(playbook) {
        Ok(report) => panic!("{name} is accepted: {report}"),
        Err(refusal) => {
            told(name, &refusal);
            *refusal
        }
    }
}

fn breaks(name: &str, playbook: &Playbook, rule: Rule, effect: Option<Effect>) {
    let refusal = refused(name, playbook);
    assert_eq!((refusal.rule(), refusal.effect()), (Some(rule), effect), "{name}");
}

fn never_ends_well(name: &str, playbook: &Playbook, stuck_at: Option<Effect>) {
    let refusal = refused(name, playbook);
    assert!(matches!(refusal.finding, Finding::NoGoodEnd { .. }), "{name}: {refusal}");
    assert_eq!(refusal.effect(), stuck_at, "{name}");
}

/// Takes steps of these actions out, whatever the static rules say.
fn without(actions: &[&str]) -> Playbook {
    let mut p = good();
    p.steps.retain(|s| !actions.contains(&s.action.name));
    p
}

#[test]
fn the_good_playbook_holds() {
    check(&good()).unwrap();
}

/// Rule 9: nothing keeps a job away from the reset.
#[test]
fn a_reset_without_a_wait_and_without_a_guard_takes_a_job_with_it() {
    let mut p = without(&["slurm.wait_idle"]);
    p.steps[1].when = None;
    breaks("job-under-reset", &p, Rule::Job, Some(Effect::Step(1)));
}

/// Rule 9: a look at the jobs is not enough where Slurm may start one after it.
#[test]
fn a_guard_without_a_drain_does_not_keep_jobs_away() {
    let p = without(&["slurm.drain", "slurm.wait_idle", "slurm.resume"]);
    breaks("job-starts-after-look", &p, Rule::Job, Some(Effect::Step(0)));
}

/// Rule 9: a condition that does not speak of jobs, or may be true for another reason, does not keep them away.
#[test]
fn a_guard_on_something_else_does_not_keep_jobs_away() {
    for condition in ["gpu.processes == 0", "suspended_jobs == 0", "active_jobs == 0 or gpu.xid == 48"] {
        let mut p = without(&["slurm.wait_idle"]);
        let text = with(&[("when: active_jobs == 0", &format!("when: {condition}"))]);
        p.steps[1].when.clone_from(&accepted(&text).steps[2].when);
        let refusal = check(&p).unwrap_err();
        assert_eq!(refusal.rule(), Some(Rule::Job), "{condition}: {refusal}");
    }
}

/// What keeps jobs away: the wait alone on a drained node, or the guard alone on a drained node.
#[test]
fn a_wait_or_a_guard_behind_the_drain_keeps_jobs_away() {
    let mut p = good();
    p.steps[2].when = None;
    check(&p).unwrap();
    check(&without(&["slurm.wait_idle"])).unwrap();
}

/// The good end must be what the playbook says.
#[test]
fn a_good_end_that_leaves_the_node_drained_must_say_so() {
    let mut p = without(&["slurm.resume"]);
    breaks("left-drained", &p, Rule::Promise, None);
    p.ends = Ends::Drained;
    check(&p).unwrap();
    let mut p = good();
    p.ends = Ends::Drained;
    breaks("not-drained", &p, Rule::Promise, None);
}

/// Rule 5 keeps the engine from giving the node back; so the good end is never reached.
#[test]
fn a_reset_without_a_verification_never_ends_well() {
    never_ends_well("no-verification", &without(&["health.verify_gpu"]), Some(Effect::Step(3)));
}

/// Static rules accept it: nothing was disturbed. The engine still gives a node back only after a verification.
#[test]
fn a_resume_without_any_verification_never_ends_well() {
    let text = with(&[
        (
            "  - dcgm.reset_gpu: { bus_id: \"{{ gpu.bus_id }}\" }\n    when: active_jobs == 0\n    timeout: 5m\n",
            "",
        ),
        ("  - health.verify_gpu: { diag_level: 2 }\n", ""),
        ("capabilities: [slurm.drain, gpu.reset, gpu.diag]", "capabilities: [slurm.drain]"),
    ]);
    never_ends_well("resume-unverified", &accepted(&text), Some(Effect::Step(2)));
}

/// Static rules accept it: a drained node is DRAINED, so a guard that wants IDLE never holds.
#[test]
fn a_guard_that_never_holds_on_a_drained_node_is_found() {
    let text = with(&[("when: active_jobs == 0", "when: node.state == IDLE")]);
    never_ends_well("guard-never-holds", &accepted(&text), Some(Effect::Step(2)));
}

/// Static rules accept it: only nodes that somebody drained are let in, and those are never drained again.
#[test]
fn preconditions_that_want_a_drained_node_before_a_drain_are_found() {
    let text = with(&[("node.state in [IDLE, COMPLETING]", "node.state == DRAINED")]);
    never_ends_well("drained-before-drain", &accepted(&text), Some(Effect::Step(0)));
}

/// Static rules accept it: no node meets both.
#[test]
fn preconditions_that_exclude_each_other_are_found() {
    let text = with(&[(
        "node.state in [IDLE, COMPLETING]",
        "node.state == IDLE\n  - active_jobs > 0\n  - suspended_jobs == 0",
    )]);
    never_ends_well("no-node", &accepted(&text), None);
}

/// Static rules accept it: a second drain with another text meets the first.
#[test]
fn a_second_drain_with_another_text_is_found() {
    let drain = "  - slurm.drain: { reason: \"ECC alert {{ alert.id }}\" }\n";
    let text = with(&[(drain, &format!("{drain}  - slurm.drain: {{ reason: \"again\" }}\n"))]);
    never_ends_well("second-drain", &accepted(&text), Some(Effect::Step(1)));
    let text = with(&[(drain, &format!("{drain}{drain}"))]);
    check(&accepted(&text)).unwrap();
}

/// A drain that nobody took is not lifted.
#[test]
fn a_resume_without_a_drain_never_ends_well() {
    let p = without(&["slurm.drain", "slurm.wait_idle", "dcgm.reset_gpu"]);
    never_ends_well("resume-without-drain", &p, Some(Effect::Step(1)));
}

/// A rollback step that no way ever reaches is named.
#[test]
fn a_rollback_step_that_is_never_carried_out_is_named() {
    let text = with(&[("rollback:\n", "rollback:\n  - slurm.wait_idle\n")]);
    assert_eq!(check(&accepted(&text)).unwrap().idle_rollback, [0]);
    assert_eq!(check(&good()).unwrap().idle_rollback, Vec::<usize>::new());
}
