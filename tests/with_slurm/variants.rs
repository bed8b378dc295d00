//! The main job where it cannot go straight through: jobs, a fault that stays, a holder, faults it is not for.

use crate::support::eventually;
use crate::support::lab::Lent;
use crate::support::product::{Bench, IMPATIENT, LIMIT, MAIN, Story};
use std::time::Duration;

fn await_drain(b: &Bench) {
    eventually("the drain", Duration::from_secs(40), || {
        let state = b.lab.state(b.node());
        if state.contains("DRAIN") { Ok(()) } else { Err(state) }
    });
}

#[test]
fn a_running_job_is_waited_for() {
    let b = Bench::faulty();
    let job = b.lab.job_on(b.node(), 600);
    let engine = b.start();
    await_drain(&b);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(b.gpu.resets(), 0, "reset under a running job");
    b.lab.await_job(&job, "RUNNING");
    b.lab.client("scancel", &[&job]).ok();
    let story = Story::of(engine.finish(LIMIT));
    story.ended("succeeded", 0);
    b.agrees(&story);
    let told: Vec<_> = story.of_kind("noted").filter_map(|e| e["kind"]["text"].as_str()).collect();
    assert!(told.iter().any(|t| t.contains(&format!("job {job}"))), "{told:?}");
    assert_eq!(b.reservation(), None);
}

#[test]
fn a_suspended_job_forbids_the_reset_and_is_named() {
    let b = Bench::faulty();
    let job = b.lab.job_on(b.node(), 600);
    b.lab.scontrol(&["suspend", &job]).ok();
    b.lab.await_job(&job, "SUSPENDED");
    assert_eq!(b.lab.state(b.node()), "IDLE", "a suspended job hides from the state of its node");
    let story = b.run(IMPATIENT, &["--param", "idle_wait=3s"]);
    story.ended("held", 13).because(&[&format!("job {job}"), "suspended"]);
    b.agrees(&story);
    assert_eq!(b.gpu.resets(), 0);
    assert!(!story.intents().contains(&"dcgm.reset_gpu"), "{story}");
    assert!(b.reason().contains("suspended"), "{}", b.reason());
    assert_eq!(b.reservation(), None);
    b.lab.await_job(&job, "SUSPENDED");
}

#[test]
fn a_fault_that_a_reset_does_not_cure_keeps_the_node_out() {
    let b = Bench::faulty();
    b.gpu.set(&["after-reset", "2", "stays"]);
    let story = b.run(MAIN, &[]);
    story.ended("held", 13).because(&["health.verify_gpu"]);
    b.agrees(&story);
    assert_eq!(b.gpu.resets(), 1);
    assert!(!story.intents().contains(&"slurm.resume"), "{story}");
    assert_eq!(b.reservation(), None);
    let next = story.events().last().unwrap()["kind"]["next_step"].as_str().unwrap_or_default();
    assert!(next.contains(b.node()) && next.contains("state=resume"), "{next}");
    // the next run of anybody meets the drain and leaves it
    let reason = b.reason();
    b.run(MAIN, &[]).ended("rejected", 10);
    assert_eq!(b.reason(), reason);
}

#[test]
fn a_gpu_that_is_gone_after_its_reset_keeps_the_node_out() {
    for after in ["lost", "unstable"] {
        let b = Bench::faulty();
        b.gpu.put("gpu/2/after_reset", after);
        let story = b.run(MAIN, &[]);
        story.ended("held", 13);
        b.agrees(&story);
        assert_eq!(b.gpu.resets(), 1, "{after}");
        assert!(!story.intents().contains(&"slurm.resume"), "{after}: {story}");
        assert_eq!(b.reservation(), None);
    }
}

#[test]
fn a_process_that_holds_the_gpu_is_named_and_nothing_is_reset() {
    for verb in ["holder", "hidden-holder"] {
        let b = Bench::faulty();
        b.gpu.set(&[verb, "2", "4711", "/opt/monitor/gpu-exporter"]);
        let story = b.run(MAIN, &[]);
        story.ended("held", 13).because(&["4711"]);
        b.agrees(&story);
        assert_eq!(b.gpu.resets(), 0, "{verb}");
        let asked = b.gpu.calls().iter().filter(|c| c.starts_with("nvidia-smi --gpu-reset")).count();
        assert!(asked <= 1, "{verb}: a storm of {asked} resets");
        let tried = story.intents().iter().filter(|a| **a == "dcgm.reset_gpu").count();
        assert!(tried <= 1, "{verb}: {tried} attempts: {story}");
        assert!(!story.intents().contains(&"slurm.resume"), "{story}");
        assert_eq!(b.reservation(), None);
        assert_eq!(
            crate::support::read(b.gpu.path().join("engine/up")).trim(),
            "1",
            "the host engine is left stopped"
        );
    }
}

/// A fault that the playbook is not for: refused before anything is touched, with what to do instead.
fn does_not_apply(fault: &[&str], words: &[&str]) {
    let b = Bench::on(Lent::nodes(1));
    b.gpu.set(fault);
    let args = ["run", MAIN, "--node", b.node(), "--gpu", "2", "--yes", "--approved-by", "alice"];
    let done = b.call(&args);
    assert_eq!(done.code, 10, "{done}");
    let text = done.out.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(text.contains(word), "no {word:?}: {done}");
    }
    assert_eq!(b.writes(), [""; 0]);
    assert_eq!(b.gpu.resets(), 0);
    assert_eq!(b.lab.state(b.node()), "IDLE");
    let plan = b.call(&["plan", MAIN, "--node", b.node(), "--gpu", "2"]);
    assert_eq!(plan.code, 10, "{plan}");
    assert_eq!(b.told().status(), "rejected");
}

#[test]
fn a_gpu_off_the_bus_is_not_for_a_reset() {
    does_not_apply(&["fault", "xid79", "2"], &["XID 79", "gpu-fallen-off-bus-reboot"]);
}

#[test]
fn a_failed_row_remap_is_not_for_a_reset() {
    does_not_apply(&["fault", "remap-failure", "2"], &["gpu-remap-failure-rma"]);
}

#[test]
fn a_gpu_off_the_bus_is_found_without_being_named() {
    let b = Bench::on(Lent::nodes(1));
    b.gpu.set(&["fault", "xid79", "2"]);
    let done = b.call(&["run", MAIN, "--node", b.node(), "--yes", "--approved-by", "alice"]);
    assert_eq!(done.code, 10, "{done}");
    let text = (done.out.clone() + &done.err).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("79"), "it does not say what is wrong: {done}");
    assert_eq!(b.writes(), [""; 0]);
}

#[test]
fn a_healthy_node_is_left_alone() {
    let b = Bench::on(Lent::nodes(1));
    let done = b.call(&["run", MAIN, "--node", b.node(), "--yes", "--approved-by", "alice"]);
    assert_eq!(done.code, 10, "{done}");
    assert!((done.out.clone() + &done.err).contains("nothing to repair"), "{done}");
    assert_eq!(b.writes(), [""; 0]);
    assert_eq!(b.gpu.resets(), 0);
}

#[test]
fn a_node_that_is_not_this_host_is_never_reset_from_here() {
    let lab = Lent::nodes(2);
    let other = lab.name(1).to_owned();
    let b = Bench::on(lab);
    b.gpu.set(&["fault", "ecc-dbe", "2"]);
    let done = b.call(&["run", MAIN, "--node", &other, "--gpu", "2", "--yes", "--approved-by", "alice"]);
    assert!(done.code != 0, "{done}");
    assert_eq!(b.writes(), [""; 0]);
    assert_eq!(b.gpu.resets(), 0);
    assert_eq!(b.lab.state(&other), "IDLE");
}
