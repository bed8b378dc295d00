//! The main job: an uncorrectable memory error on an idle node, from the alert to the node back in service.

use crate::support::eventually;
use crate::support::product::{Bench, LIMIT, MAIN, Story};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn a_faulty_gpu_is_reset_and_its_node_given_back() {
    let b = Bench::faulty();
    b.gpu.rule("nvidia-smi", "--gpu-reset *", "1", "barrier reset");
    let engine = b.start();
    b.gpu.await_barrier("reset");

    // in the middle: drained by us, the lock there, nothing reset
    let state = b.lab.state(b.node());
    let words: Vec<_> = state.split('+').collect();
    // what follows comes from the lock, which is a reservation for maintenance
    assert!(words.starts_with(&["IDLE", "DRAIN"]), "{state}");
    assert!(words[2..].iter().all(|w| ["MAINT", "MAINTENANCE", "RESERVED"].contains(w)), "{state}");
    let reason = b.reason();
    assert!(reason.starts_with(&format!("[slurmedic:{MAIN}@1.3.0#r")), "{reason}");
    assert!(reason.contains("] DCGM ECC alert A-1 ["), "{reason}");
    let lock = b.reservation().expect("the lock reservation");
    assert!(lock.contains("Flags=MAINT") && lock.contains(&format!("Nodes={} ", b.node())), "{lock}");
    assert_eq!(b.gpu.resets(), 0);
    let seen = b.call(&["runs"]).ok();
    assert!(seen.contains("running") && !seen.contains("interrupted"), "{seen}");

    b.gpu.open_barrier("reset");
    let story = Story::of(engine.finish(LIMIT));
    story.ended("succeeded", 0);
    b.agrees(&story);
    assert_eq!(b.lab.state(b.node()), "IDLE");
    assert_eq!(b.reservation(), None);
    let steps = [
        "slurm.drain",
        "slurm.wait_idle",
        "node.collect_evidence",
        "dcgm.reset_gpu",
        "health.verify_gpu",
        "slurm.resume",
    ];
    let all: Vec<_> = ["lock"].into_iter().chain(steps).chain(["unlock"]).collect();
    assert_eq!(story.intents(), all, "{story}");
    assert_eq!(&story.kinds()[..4], ["proposed", "approval_requested", "approved", "started"]);
    assert_eq!(story.of_kind("approved").next().unwrap()["kind"]["by"]["name"], "alice");
    // what was asked of Slurm: the lock, one drain, one resume, the lock given back
    let words: Vec<String> =
        b.writes().iter().map(|w| w.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        words,
        ["scontrol create", "scontrol update", "scontrol update", "scontrol delete"],
        "{:?}",
        b.writes()
    );
    assert!(read_log(&b).contains("bus=00000000:52:00.0"), "the wrong GPU: {}", read_log(&b));

    told_by_show(&b, &story, &steps);
    let why = b.call(&["why", b.node()]).ok();
    assert!(why.contains(&story.run()), "{why}");
}

fn read_log(b: &Bench) -> String {
    crate::support::read(b.gpu.path().join("resets.log"))
}

fn told_by_show(b: &Bench, story: &Story, steps: &[&str]) {
    let text = b.call(&["show", &story.run(), "--facts"]).ok();
    let mut from = 0;
    for word in
        ["proposed", "approved", "alice", "started"].iter().chain(steps).chain(&["unlock", "succeeded"])
    {
        let at = text[from..].find(word).unwrap_or_else(|| panic!("{word} does not follow in\n{text}"));
        from += at;
    }
    for word in ["gpu.ecc_dbe_volatile", "before: IDLE", "active_jobs == 0", "sha256"] {
        assert!(text.contains(word), "no {word} in\n{text}");
    }
    assert!(text.lines().all(|l| l.chars().count() <= 120), "{text}");
}

#[test]
fn one_changed_byte_in_the_journal_is_found_and_named() {
    let b = Bench::faulty();
    let story = b.run(MAIN, &[]);
    story.ended("succeeded", 0);
    let whole = b.call(&["journal", "verify"]).ok();
    assert!(whole.contains("whole") && whole.contains("1 run"), "{whole}");

    let at = story.events().iter().position(|e| e["kind"]["event"] == "approved").unwrap() + 1;
    let bytes = std::fs::read(b.journal()).unwrap();
    let name = br#""name":"alice""#;
    let places: Vec<usize> =
        (0..bytes.len() - name.len()).filter(|i| &bytes[*i..*i + name.len()] == name).collect();
    assert!(!places.is_empty(), "the approval is not in the journal file");
    // A page may also keep remains of a row that was moved, which nobody reads: each place is tried by itself.
    let found = places.iter().filter(|place| {
        let mut changed = bytes.clone();
        changed[**place + name.len() - 2] ^= 1;
        std::fs::write(b.journal(), changed).unwrap();
        let done = b.call(&["journal", "verify"]);
        if done.code == 0 {
            return false;
        }
        assert_eq!(done.code, 3, "{done}");
        for word in ["broken", &format!("event {at} "), &story.run(), "approved"] {
            assert!(done.out.contains(word), "no {word:?}: {done}");
        }
        true
    });
    assert_eq!(found.count(), 1, "the one place of the event in {}", places.len());
    let mut bytes = bytes;
    for place in places {
        bytes[place + name.len() - 2] ^= 1;
    }
    std::fs::write(b.journal(), bytes).unwrap();
    // and nothing is carried out on it
    b.gpu.set(&["fault", "ecc-dbe", "3"]);
    let before = b.writes().len();
    b.call(&["journal", "verify", "--format", "json"]);
    assert_eq!(b.writes().len(), before);
}

/// Answers the question of `run` at a terminal of its own.
fn at_a_terminal(b: &Bench, answer: &str) -> (i32, String) {
    let medic = b.medic(&["run", MAIN, "--node", b.node(), "--alert-id", "A-2"]);
    let mut line = format!("{:?}", medic.get_program());
    for a in medic.get_args() {
        line.push_str(&format!(" {a:?}"));
    }
    let mut child = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keyboard = child.stdin.take().unwrap();
    writeln!(keyboard, "{answer}").unwrap();
    // the keyboard stays there until the end, as a person's does
    let out = child.wait_with_output().unwrap();
    drop(keyboard);
    (out.status.code().unwrap_or(-1), String::from_utf8_lossy(&out.stdout).into_owned())
}

#[test]
fn a_person_at_the_terminal_says_yes() {
    let b = Bench::faulty();
    let (code, screen) = at_a_terminal(&b, "yes");
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("approve run") && screen.contains("succeeded"), "{screen}");
    let story = b.told();
    assert_eq!(story.status(), "succeeded");
    assert_eq!(b.gpu.resets(), 1);
    b.lab.await_state(b.node(), &["IDLE"]);
}

#[test]
fn anything_but_yes_at_the_terminal_is_a_no() {
    let b = Bench::faulty();
    for answer in ["no", "y", ""] {
        let (code, screen) = at_a_terminal(&b, answer);
        assert_eq!(code, 10, "{answer:?}: {screen}");
        assert_eq!(b.told().status(), "rejected");
    }
    assert_eq!(b.writes(), [""; 0]);
    assert_eq!(b.gpu.resets(), 0);
    assert_eq!(b.lab.state(b.node()), "IDLE");
}

#[test]
fn without_a_terminal_and_without_yes_nothing_is_started() {
    let b = Bench::faulty();
    let done = b.call(&["run", MAIN, "--node", b.node()]);
    assert_eq!(done.code, 2, "{done}");
    assert!(done.err.contains("approv"), "{done}");
    let done = b.call(&["run", MAIN, "--node", b.node(), "--yes"]);
    assert_eq!(done.code, 2, "{done}");
    assert!(done.err.contains("approved-by"), "{done}");
    assert_eq!(b.writes(), [""; 0]);
    let list = b.call(&["runs"]);
    assert!(list.out.contains("no run on record") || list.code == 1, "{list}");
}

#[test]
fn a_second_engine_does_not_touch_a_node_that_one_has() {
    let b = Bench::faulty();
    b.gpu.rule("nvidia-smi", "--gpu-reset *", "1", "barrier reset");
    let first = b.start();
    b.gpu.await_barrier("reset");
    let writes = b.writes().len();
    // the same journal: the node is drained, which is nobody's to take again
    let second = b.run(MAIN, &[]);
    second.ended("rejected", 10);
    // a recovery leaves a run alone whose engine is alive
    let none = b.call(&["recover"]).ok();
    assert!(none.contains("no interrupted run"), "{none}");
    assert_eq!(b.writes().len(), writes, "{:?}", b.writes());
    b.gpu.open_barrier("reset");
    let story = Story::of(first.finish(LIMIT));
    story.ended("succeeded", 0);
    b.agrees(&story);
}

#[test]
fn a_run_that_is_cancelled_while_it_waits_for_a_job_leaves_the_job_alone() {
    let b = Bench::faulty();
    let job = b.lab.job_on(b.node(), 600);
    let engine = b.start();
    eventually("the wait", Duration::from_secs(30), || {
        let calls = b.slurm.calls();
        if b.lab.state(b.node()).contains("DRAIN") { Ok(()) } else { Err(format!("{calls:?}")) }
    });
    let run_id = b.told().run();
    b.call(&["cancel", &run_id, "--why", "not now"]).ok();
    let story = Story::of(engine.finish(LIMIT));
    // the fault is still there: the node is not given back (decision 002)
    story.ended("held", 13).because(&["cancelled by", "not now"]);
    b.agrees(&story);
    assert_eq!(b.gpu.resets(), 0);
    b.lab.await_job(&job, "RUNNING");
    assert_eq!(b.reservation(), None);
}
