//! People win: what somebody did to a node before a run, or does between any two of its steps, stays as they left it.

use crate::support::lab::Lent;
use crate::support::product::{Bench, LIMIT, MAIN, Story};
use crate::support::{eventually, read};
use std::time::Duration;

/// What a person may do to the node, as lines of shell.
const REASON: &str = "scontrol update nodename=$NODE reason='mine, do not touch'";
const RESUME: &str = "scontrol update nodename=$NODE state=resume";
const DRAIN: &str = "scontrol update nodename=$NODE state=drain reason=\"a second drain, by 'me'\"";
const REBOOT: &str = "scontrol reboot $NODE";
const MAINTENANCE: &str = "scontrol create reservation reservationname=people-$NODE starttime=now duration=60 \
                           flags=maint,ignore_jobs user=root nodes=$NODE";

/// Notes what the person left.
fn body(act: &str) -> String {
    format!("{act}\nscontrol -o show node $NODE >\"$STATE/left\"")
}

fn reason_of(line: &str) -> &str {
    line.trim_end().split_once(" Reason=").map_or("", |(_, r)| r)
}

/// The run stopped and lifted nothing of theirs; `updates` are the changes of the node that it had made before.
fn left_alone(b: &Bench, story: &Story, act: &str, updates: usize) {
    assert_eq!(story.status(), "handed_over", "{act}: {story}");
    assert_eq!(story.code, 14);
    b.agrees(story);
    let left = read(b.slurm.path().join("left"));
    assert!(left.contains("NodeName="), "nobody was there: {act}: {story}");
    assert_eq!(b.reason(), reason_of(&left), "{act}: the reason is not as they left it: {story}");
    let state = b.lab.state(b.node());
    assert_eq!(
        state.contains("DRAIN"),
        act != RESUME && !(act == MAINTENANCE && updates == 0),
        "{act}: {state}"
    );
    assert_eq!(b.reservation(), None, "{act}: our lock is left behind: {story}");
    if act == MAINTENANCE {
        let list = b.lab.scontrol(&["-o", "show", "reservation"]).ok();
        assert!(list.contains(&format!("ReservationName=people-{} ", b.node())), "{list}");
    }
    let made = b.writes();
    let nodes = made.iter().filter(|w| w.starts_with("scontrol update")).count();
    assert_eq!(nodes, updates, "{act}: {made:?}");
    assert!(made.last().is_some_and(|w| w.starts_with("scontrol delete")), "{act}: {made:?}");
}

/// A person acts right after a write of ours was done, before its answer is there.
fn after_write(pattern: &str, acts: &[&str], updates: usize) {
    for act in acts {
        let b = Bench::faulty();
        let hook = b.person("person", &body(act));
        b.slurm.rule("scontrol", pattern, "1", &format!("then-hook {}", hook.display()));
        left_alone(&b, &b.run(MAIN, &[]), act, updates);
    }
}

/// A person acts right after a call of the node's tools.
fn after_tool(tool: &str, pattern: &str, acts: &[&str], resets: usize) {
    for act in acts {
        let b = Bench::faulty();
        // the person's script finds its state beside the Slurm wrappers
        let act_of = format!("STATE={}\n{}", b.slurm.path().display(), body(act));
        let hook = b.person("person", &act_of);
        b.gpu.rule(tool, pattern, "1", &format!("then-hook {}", hook.display()));
        let story = b.run(MAIN, &[]);
        left_alone(&b, &story, act, 1);
        assert_eq!(b.gpu.resets(), resets, "{act}: {story}");
        assert!(!story.intents().contains(&"slurm.resume"), "{act}: {story}");
    }
}

#[test]
fn a_node_that_a_person_drained_before_is_refused_and_its_reason_kept() {
    let b = Bench::faulty();
    let target = format!("nodename={}", b.node());
    for words in [
        "bad fan, see ticket 12",
        "it's \"quoted\" state=resume",
        "[slurmedic:dcgm-ecc-drain-reset@1.3.0#r1] fake",
    ] {
        b.lab.scontrol(&["update", &target, "state=drain", &format!("reason={words}")]).ok();
        let before = b.lab.scontrol(&["-o", "show", "node", b.node()]).ok();
        let story = b.run(MAIN, &[]);
        story.ended("rejected", 10);
        b.agrees(&story);
        let after = b.lab.scontrol(&["-o", "show", "node", b.node()]).ok();
        assert_eq!(reason_of(&after).as_bytes(), reason_of(&before).as_bytes());
        assert!(reason_of(&after).starts_with(words), "{after}");
        let why = b.call(&["why", b.node()]).ok();
        let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(why.contains(&format!("{words:?}")) && why.contains("a person's"), "{why}");
        b.lab.scontrol(&["update", &target, "state=resume"]).ok();
        b.lab.await_state(b.node(), &["IDLE"]);
    }
    assert_eq!(b.writes(), [""; 0]);
    assert_eq!(b.gpu.resets(), 0);
}

#[test]
fn a_node_in_a_maintenance_of_people_is_refused() {
    let b = Bench::faulty();
    let hook = b.person("person", MAINTENANCE);
    crate::support::cmd::run(&mut std::process::Command::new(hook), LIMIT).ok();
    let story = b.run(MAIN, &[]);
    story.ended("rejected", 10).because(&["maintenance"]);
    assert_eq!(b.writes(), [""; 0]);
    b.agrees(&story);
}

#[test]
fn somebody_drains_the_node_between_the_plan_and_the_approval() {
    let b = Bench::faulty();
    let hook = b.person("person", &body(DRAIN));
    // The second look at the jobs of the node; the plan also asks for the pending ones.
    b.slurm.rule("squeue", "*-t all*", "@2", &format!("hook {}", hook.display()));
    let story = b.run(MAIN, &[]);
    assert!([10, 14].contains(&story.code), "{story}");
    assert_eq!(b.writes(), [""; 0]);
    assert_eq!(b.reason(), reason_of(&read(b.slurm.path().join("left"))));
    b.agrees(&story);
}

#[test]
fn somebody_acts_between_the_lock_and_the_drain() {
    after_write("create *", &[DRAIN, MAINTENANCE], 0);
}

#[test]
fn somebody_acts_right_after_the_drain() {
    after_write("update *state=drain*", &[REASON, RESUME, DRAIN, MAINTENANCE], 1);
}

#[test]
fn somebody_acts_while_a_job_is_waited_for() {
    for act in [REASON, RESUME, DRAIN, REBOOT, MAINTENANCE] {
        let b = Bench::faulty();
        let job = b.lab.job_on(b.node(), 600);
        let engine = b.start();
        eventually("the wait", Duration::from_secs(40), || {
            let waits = b.told_so_far().is_some_and(|s| s.of_kind("noted").count() > 0);
            if waits { Ok(()) } else { Err("it does not wait".to_owned()) }
        });
        let hook = b.person("person", &format!("STATE={}\n{}", b.slurm.path().display(), body(act)));
        crate::support::cmd::run(&mut std::process::Command::new(hook), LIMIT).ok();
        let story = Story::of(engine.finish(LIMIT));
        left_alone(&b, &story, act, 1);
        if act == REBOOT {
            let state = b.lab.state(b.node());
            b.lab.scontrol(&["cancel_reboot", b.node()]).ok();
            assert!(state.contains("REBOOT"), "their reboot is gone: {state}");
        }
        assert_eq!(b.gpu.resets(), 0);
        b.lab.await_job(&job, "RUNNING");
    }
}

#[test]
fn somebody_acts_while_evidence_is_collected() {
    after_tool("dmesg", "*", &[REASON, RESUME, DRAIN], 0);
}

#[test]
fn somebody_acts_between_the_reset_and_the_verification() {
    after_tool("nvidia-smi", "--gpu-reset *", &[REASON, RESUME, DRAIN], 1);
}

#[test]
fn somebody_acts_between_the_verification_and_the_resume() {
    after_tool("dcgmi", "diag *", &[REASON, RESUME, MAINTENANCE], 1);
}

#[test]
fn somebody_drains_the_node_right_after_the_resume() {
    after_write("update *state=resume*", &[DRAIN], 2);
}

#[test]
fn a_lock_that_somebody_deletes_is_not_missed() {
    let b = Bench::faulty();
    let act = "scontrol delete reservationname=slurmedic-$NODE\nscontrol -o show node $NODE >/dev/null";
    let hook = b.person("person", act);
    b.gpu.rule("dmesg", "*", "1", &format!("then-hook {}", hook.display()));
    let story = b.run(MAIN, &[]);
    // the drain is still ours, so the way on is open; only the lock is gone, and none is made again
    assert!(["succeeded", "handed_over", "held"].contains(&story.status().as_str()), "{story}");
    b.agrees(&story);
    assert_eq!(b.reservation(), None);
}

#[test]
fn a_reservation_of_the_name_of_our_lock_that_is_not_ours_is_left_alone() {
    let b = Bench::on(Lent::nodes(1));
    b.gpu.set(&["fault", "ecc-dbe", "2"]);
    let name = format!("reservationname=slurmedic-{}", b.node());
    let nodes = format!("nodes={}", b.node());
    let create = [
        "create",
        "reservation",
        &name,
        "starttime=now+1hour",
        "duration=60",
        "flags=maint",
        "user=root",
        &nodes,
    ];
    b.lab.scontrol(&create).ok();
    let before = b.reservation();
    let story = b.run(MAIN, &[]);
    story.ended("rejected", 10);
    assert_eq!(b.reservation(), before, "{story}");
    assert!(!b.lab.state(b.node()).contains("DRAIN"));
    b.agrees(&story);
}
