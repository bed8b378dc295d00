//! The engine is killed at any moment: the next start resumes, goes back or holds, and never repeats the reset blindly.

use crate::support::product::{Bench, IMPATIENT, MAIN, Story};
use std::time::Duration;

/// Picks up what the dead engine left and requires a true end.
fn recovered(b: &Bench, what: &str) -> Option<Story> {
    let done = b.call(&["recover", "--format", "json"]);
    if done.out.contains("slurmedic/recover/1") {
        return None;
    }
    let story = Story::of(done);
    if story.status() == "awaiting_approval" {
        assert_eq!(story.code, 16, "{what}: {story}");
        assert_eq!(b.writes(), [""; 0], "{what}: {story}");
        return None;
    }
    assert!([0, 10, 12, 13].contains(&story.code), "{what}: {story}");
    b.agrees(&story);
    assert_eq!(b.reservation(), None, "{what}: the lock is left behind: {story}");
    assert!(story.kinds().contains(&"recovered"), "{what}: {story}");
    let again = b.call(&["recover"]).ok();
    assert!(again.contains("no interrupted run"), "{what}: {again}");
    let orders = b.gpu.calls().iter().filter(|c| c.starts_with("nvidia-smi --gpu-reset")).count();
    assert!(orders <= 1, "{what}: the reset was ordered {orders} times: {story}");
    Some(story)
}

/// Kills the engine right after it wrote its event number `n`, for every n that leaves `rest` modulo `step`.
fn after_events(rest: usize, step: usize) {
    let mut n = rest;
    loop {
        if n == 0 {
            n += step;
            continue;
        }
        let b = Bench::faulty();
        if !b.crash_after(n) {
            // it ended before: the last event is behind us
            b.lab.await_state(b.node(), &["IDLE"]);
            assert!(n > 15, "the main job has fewer events than it should: {}", b.told());
            return;
        }
        let what = format!("killed after event {n}");
        match recovered(&b, &what) {
            Some(_) => {}
            None => {
                // nothing was begun, or it was just over
                let story = b.told();
                let over = story.kinds().contains(&"ended");
                if over {
                    b.agrees(&story);
                } else {
                    assert!(
                        ["proposed", "awaiting_approval", "approved"].contains(&story.status().as_str()),
                        "{what}: {story}"
                    );
                    assert_eq!(b.writes(), [""; 0], "{what}: {story}");
                }
                assert_eq!(b.reservation(), None, "{what}: {story}");
            }
        }
        n += step;
    }
}

#[test]
fn killed_after_every_event_0() {
    after_events(0, 5);
}

#[test]
fn killed_after_every_event_1() {
    after_events(1, 5);
}

#[test]
fn killed_after_every_event_2() {
    after_events(2, 5);
}

#[test]
fn killed_after_every_event_3() {
    after_events(3, 5);
}

#[test]
fn killed_after_every_event_4() {
    after_events(4, 5);
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Child {
    /// What the engine had started goes on and is done before the next start.
    GoesOn,
    /// It is still under way while the next start looks.
    Late,
}

/// Kills the engine while one call of a tool or a client is under way, before or after its work was done.
fn in_the_middle(slurm: bool, tool: &str, pattern: &str, ends: &[&str]) {
    for action in ["barrier", "then-barrier"] {
        for child in [Child::GoesOn, Child::Late] {
            let what = format!("killed at {action} of {tool} {pattern}, the child {child:?}");
            let b = Bench::faulty();
            let fake = if slurm { &b.slurm } else { &b.gpu };
            fake.rule(tool, pattern, "1", &format!("{action} here"));
            let mut engine = b.start_playbook(IMPATIENT, &[]);
            fake.await_barrier("here");
            engine.crash();
            if child == Child::GoesOn {
                fake.open_barrier("here");
                std::thread::sleep(Duration::from_millis(700));
            }
            let story = recovered(&b, &what).unwrap_or_else(|| panic!("{what}: the run was not picked up"));
            assert!(ends.contains(&story.status().as_str()), "{what}: {story}");
            if child == Child::Late {
                fake.open_barrier("here");
                std::thread::sleep(Duration::from_millis(700));
                // what comes late must not repeat the reset, nor give back a node that is held
                assert!(b.gpu.resets() <= 1, "{what}: {story}");
                let drained = b.lab.state(b.node()).contains("DRAIN");
                if story.status() == "held" {
                    assert!(drained, "{what}: given back late: {story}");
                }
            }
        }
    }
}

#[test]
fn killed_while_the_lock_is_taken() {
    in_the_middle(true, "scontrol", "create *", &["succeeded", "rejected", "held", "rolled_back"]);
}

#[test]
fn killed_while_the_node_is_drained() {
    in_the_middle(true, "scontrol", "update *state=drain*", &["succeeded", "held", "rolled_back"]);
}

#[test]
fn killed_while_evidence_is_collected() {
    in_the_middle(false, "dmesg", "*", &["succeeded"]);
}

#[test]
fn killed_while_the_host_engine_is_stopped_for_the_reset() {
    in_the_middle(false, "systemctl", "stop nvidia-dcgm*", &["succeeded", "held"]);
}

#[test]
fn killed_while_the_gpu_is_reset() {
    in_the_middle(false, "nvidia-smi", "--gpu-reset *", &["succeeded", "held"]);
}

#[test]
fn killed_while_the_host_engine_is_started_after_the_reset() {
    in_the_middle(false, "systemctl", "start nvidia-dcgm*", &["succeeded", "held"]);
}

#[test]
fn killed_while_the_gpu_is_verified() {
    in_the_middle(false, "dcgmi", "diag *", &["succeeded", "held"]);
}

#[test]
fn killed_while_the_node_is_given_back() {
    in_the_middle(true, "scontrol", "update *state=resume*", &["succeeded", "held"]);
}

#[test]
fn killed_while_the_lock_is_given_back() {
    in_the_middle(true, "scontrol", "delete *", &["succeeded"]);
}

#[test]
fn a_new_run_on_the_node_picks_the_interrupted_one_up_first() {
    let b = Bench::faulty();
    b.gpu.rule("dmesg", "*", "1", "barrier here");
    let mut engine = b.start();
    b.gpu.await_barrier("here");
    engine.crash();
    b.gpu.open_barrier("here");
    let interrupted = b.call(&["runs"]).ok();
    assert!(interrupted.contains("interrupted"), "{interrupted}");
    let story = b.run(MAIN, &[]);
    assert!(story.kinds().contains(&"recovered"), "{story}");
    story.ended("succeeded", 0);
    b.agrees(&story);
    assert_eq!(b.reservation(), None);
}
