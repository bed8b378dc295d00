//! A slurmctld that hangs or dies, and clients that lie: an outcome that nobody saw is never taken for success.

use crate::support::eventually;
use crate::support::product::{Bench, IMPATIENT, LIMIT, MAIN, Story};
use std::time::{Duration, Instant};

/// The four writes of the main job, in their order.
const WRITES: [(&str, &str); 4] = [
    ("lock", "create *"),
    ("drain", "update *state=drain*"),
    ("resume", "update *state=resume*"),
    ("unlock", "delete *"),
];
/// Longer than a client waits for a slurmctld that does not answer.
const HANG: Duration = Duration::from_millis(6500);

/// Waits until a write stands at its barrier, or the run is over.
fn meets(b: &Bench, name: &str) -> bool {
    let reached = b.slurm.path().join(format!("barrier.{name}.reached"));
    eventually(name, Duration::from_secs(60), || {
        if reached.exists() {
            return Ok(true);
        }
        if b.told_so_far().is_some_and(|s| s.kinds().contains(&"ended")) {
            return Ok(false);
        }
        Err("neither at the barrier nor over".to_owned())
    })
}

/// Carries the main job out; at each write, `before` it or right after it, slurmctld gets sick and well again.
fn sick_at_every_write(before: bool, sick: impl Fn(&Bench), well: impl Fn(&Bench)) -> (Bench, Story, usize) {
    let b = Bench::faulty_alone();
    for (name, pattern) in WRITES {
        let action = if before { format!("barrier {name}") } else { format!("then-barrier {name}") };
        b.slurm.rule("scontrol", pattern, "1", &action);
    }
    let engine = b.start();
    let mut met = 0;
    for (name, _) in WRITES {
        if meets(&b, name) {
            met += 1;
            sick(&b);
            b.slurm.open_barrier(name);
            well(&b);
        }
    }
    let story = Story::of(engine.finish(LIMIT));
    (b, story, met)
}

fn stop(b: &Bench) {
    b.lab.lab(&["signal", "slurmctld", "STOP"]).ok();
}

fn go_on(b: &Bench) {
    std::thread::sleep(HANG);
    b.lab.lab(&["signal", "slurmctld", "CONT"]).ok();
}

fn kill(b: &Bench) {
    b.lab.lab(&["stop", "slurmctld", "KILL"]).ok();
}

fn start_again(b: &Bench) {
    std::thread::sleep(Duration::from_millis(1500));
    b.lab.lab(&["start", "slurmctld"]).ok();
}

/// Whatever it ended with, it is true; and a run that got that far has left no lock.
fn honest(b: &Bench, story: &Story) {
    assert!([0, 10, 12, 13, 14, 15].contains(&story.code), "{story}");
    assert!(!story.why().is_empty(), "{story}");
    b.agrees(story);
}

#[test]
fn a_controller_that_hangs_before_each_write_applies_it_late() {
    let (b, story, met) = sick_at_every_write(true, stop, go_on);
    honest(&b, &story);
    story.ended("succeeded", 0);
    assert_eq!(met, 4, "{story}");
    let ambiguous = story.of_kind("finished").filter(|e| e["kind"]["outcome"]["kind"] == "ambiguous").count();
    assert!(ambiguous >= 3, "a write that timed out was taken for certain: {story}");
    assert!(story.of_kind("resolved").count() >= 3, "{story}");
    assert_eq!(b.reservation(), None);
}

#[test]
fn a_controller_that_hangs_after_each_write_is_read_again() {
    let (b, story, met) = sick_at_every_write(false, stop, go_on);
    honest(&b, &story);
    story.ended("succeeded", 0);
    assert_eq!(met, 4, "{story}");
    assert_eq!(b.reservation(), None);
}

#[test]
fn a_controller_that_is_killed_before_each_write_and_started_again() {
    let (b, story, met) = sick_at_every_write(true, kill, start_again);
    assert!(met >= 1, "{story}");
    honest(&b, &story);
}

#[test]
fn a_controller_that_is_killed_after_each_write_may_have_forgotten_it() {
    let (b, story, met) = sick_at_every_write(false, kill, start_again);
    assert!(met >= 1, "{story}");
    honest(&b, &story);
}

#[test]
fn a_controller_that_never_comes_back_leaves_the_node_drained_and_calls_a_person() {
    let b = Bench::faulty_alone();
    b.gpu.rule("nvidia-smi", "--gpu-reset *", "1", "barrier reset");
    let engine = b.start();
    b.gpu.await_barrier("reset");
    stop(&b);
    b.gpu.open_barrier("reset");
    let story = Story::of(engine.finish(LIMIT));
    b.lab.lab(&["signal", "slurmctld", "CONT"]).ok();
    story.ended("stuck", 15);
    let next = story.events().last().unwrap()["kind"]["next_step"].as_str().unwrap_or_default();
    assert!(next.contains(b.node()), "{next}");
    assert_eq!(b.gpu.resets(), 1);
    // late updates have been worked off by now
    std::thread::sleep(Duration::from_secs(1));
    let state = b.lab.state(b.node());
    assert!(state.contains("DRAIN"), "given back unproven: {state}: {story}");
    assert!(b.reason().contains(&story.run()), "{}", b.reason());
    b.agrees(&story);
}

#[test]
fn a_controller_that_is_dead_from_the_start_changes_nothing() {
    let b = Bench::faulty_alone();
    kill(&b);
    let began = Instant::now();
    let done = b.call(&["run", MAIN, "--node", b.node(), "--yes", "--approved-by", "alice"]);
    assert_eq!(done.code, 1, "{done}");
    assert!(done.err.contains("error:") && done.err.contains("hint:"), "{done}");
    assert!(began.elapsed() < Duration::from_secs(60));
    assert_eq!(b.writes(), [""; 0]);
    let doctor = b.call(&["doctor"]);
    assert!(doctor.code != 0, "{doctor}");
}

/// Carries the main job out while each of its four writes goes wrong once.
fn broken_writes(action: &str, ends: &[&str]) {
    let b = Bench::faulty();
    for (_, pattern) in WRITES {
        b.slurm.rule("scontrol", pattern, "1", action);
    }
    let story = b.run(MAIN, &[]);
    honest(&b, &story);
    assert!(ends.contains(&story.status().as_str()), "{action}: {story}");
    if story.status() == "succeeded" {
        assert_eq!(b.reservation(), None, "{action}: {story}");
    }
}

#[test]
fn writes_that_hang() {
    broken_writes("hang", &["succeeded"]);
}

#[test]
fn writes_that_hang_after_they_were_done() {
    broken_writes("then-hang-hard", &["succeeded"]);
}

#[test]
fn writes_whose_client_is_killed() {
    broken_writes("killed", &["succeeded"]);
}

#[test]
fn writes_whose_client_is_killed_after_they_were_done() {
    broken_writes("then-killed", &["succeeded"]);
}

#[test]
fn writes_that_print_garbage_and_do_nothing() {
    broken_writes("garbage", &["succeeded"]);
}

#[test]
fn writes_that_print_garbage_after_they_were_done() {
    broken_writes("then-garbage", &["succeeded"]);
}

#[test]
fn writes_that_say_nothing_exit_0_and_do_nothing() {
    broken_writes("empty", &["succeeded", "handed_over"]);
}

#[test]
fn writes_that_report_an_unknown_error_after_they_were_done() {
    broken_writes("then-exit 1 slurm_update error: Socket timed out on send/recv operation", &["succeeded"]);
}

#[test]
fn writes_that_fail_with_a_word_nobody_knows() {
    broken_writes("exit 1 slurm_update error: the moon is full", &["succeeded"]);
}

#[test]
fn slow_clients_are_only_slow() {
    let b = Bench::faulty();
    b.slurm.rule("scontrol", "*", "*", "slow 0.7");
    b.slurm.rule("squeue", "*", "*", "slow 0.9");
    let story = b.run(MAIN, &[]);
    story.ended("succeeded", 0);
    b.agrees(&story);
    assert_eq!(b.reservation(), None);
}

/// Nothing is begun on a node of which one read is sick.
fn sick_read_from_the_start(tool: &str, pattern: &str) {
    for action in
        ["empty", "garbage", "killed", "exit 1 slurm_load_node error: Unable to contact slurm controller"]
    {
        let b = Bench::faulty();
        b.slurm.rule(tool, pattern, "*", action);
        let done = b.call(&["run", MAIN, "--node", b.node(), "--yes", "--approved-by", "alice"]);
        assert!([1, 10].contains(&done.code), "{action}: {done}");
        assert!(!done.out.is_empty() || !done.err.is_empty(), "{action}: without a word");
        assert_eq!(b.writes(), [""; 0], "{action}");
        assert_eq!(b.gpu.resets(), 0);
        assert_eq!(b.lab.state(b.node()), "IDLE");
    }
}

#[test]
fn no_job_list_is_not_an_empty_job_list() {
    sick_read_from_the_start("squeue", "*");
}

#[test]
fn no_node_is_no_node() {
    sick_read_from_the_start("scontrol", "*show node *");
}

#[test]
fn no_list_of_reservations_is_not_an_empty_one() {
    sick_read_from_the_start("scontrol", "*show reservations");
}

/// A job runs on, and squeue stops telling of it right after the drain.
fn job_list_lost_after_the_drain(action: &str) {
    let b = Bench::faulty();
    let job = b.lab.job_on(b.node(), 600);
    let hook = b.slurm.hook("person", &format!("printf 'squeue\\t*\\t*\\t{action}\\n' >>\"$STATE/script\""));
    b.slurm.rule("scontrol", "update *state=drain*", "1", &format!("then-hook {}", hook.display()));
    let story = b.run(IMPATIENT, &["--param", "idle_wait=3s"]);
    assert!(["held", "stuck"].contains(&story.status().as_str()), "{action}: {story}");
    assert_eq!(b.gpu.resets(), 0, "{action}: {story}");
    assert!(!story.intents().contains(&"dcgm.reset_gpu"), "{action}: {story}");
    b.lab.await_job(&job, "RUNNING");
    assert!(b.lab.state(b.node()).contains("DRAIN"), "{action}: {story}");
    b.agrees(&story);
}

#[test]
fn an_empty_job_list_never_ends_the_wait() {
    job_list_lost_after_the_drain("empty");
}

#[test]
fn a_garbled_job_list_never_ends_the_wait() {
    job_list_lost_after_the_drain("garbage");
}

#[test]
fn a_failing_job_list_never_ends_the_wait() {
    job_list_lost_after_the_drain(
        "exit 1 slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
    );
}

#[test]
fn reads_that_fail_for_a_while_are_repeated() {
    let b = Bench::faulty();
    let broken =
        "printf 'squeue\\t*\\t3\\tempty\\nscontrol\\t*show node *\\t3\\tgarbage\\n' >>\"$STATE/script\"";
    let hook = b.slurm.hook("person", broken);
    for pattern in ["create *", "update *state=resume*"] {
        b.slurm.rule("scontrol", pattern, "1", &format!("hook {}", hook.display()));
    }
    let story = b.run(MAIN, &[]);
    story.ended("succeeded", 0);
    b.agrees(&story);
    assert_eq!(b.reservation(), None);
}
