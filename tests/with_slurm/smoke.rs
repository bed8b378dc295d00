//! The lab itself: what the other suites build on behaves as `tests/lab/slurm-lab` promises.

use crate::support::cmd::run;
use crate::support::lab::{Lab, Lent};
use crate::support::{eventually, root};
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn a_drained_node_keeps_its_reason_until_it_is_resumed() {
    let lab = Lent::nodes(1);
    let node = lab.name(0);
    let update = format!("nodename={node}");
    lab.scontrol(&["update", &update, "state=drain", "reason=two words"]).ok();
    let seen = lab.node(node);
    assert_eq!(seen["State"], "IDLE+DRAIN");
    assert!(seen["Reason"].starts_with("two words ["), "{}", seen["Reason"]);
    lab.scontrol(&["update", &update, "state=resume"]).ok();
    lab.await_state(node, &["IDLE"]);
    assert_eq!(lab.node(node)["Reason"], "");
}

#[test]
fn a_reservation_is_a_test_and_set() {
    let lab = Lent::nodes(1);
    let node = lab.name(0);
    let nodes = format!("nodes={node}");
    let name = format!("reservationname=slurmedic-{node}");
    let create = [
        "create",
        "reservation",
        &name,
        "starttime=now",
        "duration=10",
        "flags=maint,ignore_jobs",
        "user=root",
        &nodes,
    ];
    lab.scontrol(&create).ok();
    let why = lab.scontrol(&create).refused();
    assert!(why.contains("Duplicate reservation name"), "{why}");
    lab.scontrol(&["delete", &name]).ok();
    lab.scontrol(&create).ok();
}

#[test]
fn a_draining_node_finishes_its_job() {
    let lab = Lent::nodes(1);
    let node = lab.name(0);
    let job = lab.job_on(node, 300);
    lab.scontrol(&["update", &format!("nodename={node}"), "state=drain", "reason=wait"]).ok();
    assert_eq!(lab.state(node), "MIXED+DRAIN");
    lab.client("scancel", &[&job]).ok();
    lab.await_state(node, &["IDLE+DRAIN"]);
}

#[test]
fn a_suspended_job_hides_from_the_node_state_but_not_from_squeue() {
    let lab = Lent::nodes(1);
    let node = lab.name(0);
    let job = lab.job_on(node, 300);
    lab.scontrol(&["suspend", &job]).ok();
    lab.await_job(&job, "SUSPENDED");
    lab.scontrol(&["update", &format!("nodename={node}"), "state=drain", "reason=suspended"]).ok();
    lab.await_state(node, &["IDLE+DRAIN"]);
    let listed = lab.client("squeue", &["-h", "-w", node, "-o", "%i %t"]).ok();
    assert_eq!(listed.trim(), format!("{job} S"));
}

#[test]
fn slurmrestd_answers_at_both_doors() {
    let lab = Lent::nodes(1);
    let get = |args: &[&str]| {
        run(Command::new("curl").args(["-sS", "-m", "10"]).args(args), Duration::from_secs(15)).ok()
    };
    let socket = lab.env("SLURMRESTD_SOCKET");
    let over_socket = get(&["--unix-socket", &socket, "http://localhost/slurm/v0.0.38/ping"]);
    let url = format!("{}/slurm/v0.0.38/ping", lab.env("SLURMRESTD_URL"));
    let user =
        String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap().trim().to_owned();
    let token = lab.lab(&["token", &user]).ok();
    let name = format!("X-SLURM-USER-NAME: {user}");
    let pass = format!("X-SLURM-USER-TOKEN: {}", token.trim());
    let over_tcp = get(&["-H", &name, "-H", &pass, &url]);
    for answer in [over_socket, over_tcp] {
        let json: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(json["pings"][0]["ping"], "UP", "{answer}");
    }
    assert_eq!(get(&["-o", "/dev/null", "-w", "%{http_code}", &url]), "401");
}

#[test]
fn a_hung_slurmctld_may_apply_an_update_after_the_client_gave_up() {
    let lab = Lent::alone(1);
    let node = lab.name(0);
    lab.lab(&["signal", "slurmctld", "STOP"]).ok();
    let started = Instant::now();
    let done = lab.scontrol(&["update", &format!("nodename={node}"), "state=drain", "reason=late"]);
    assert!(done.code != 0 && !done.timed_out, "{done}");
    assert!(started.elapsed() >= Duration::from_secs(4), "it did not wait: {done}");
    lab.lab(&["signal", "slurmctld", "CONT"]).ok();
    lab.await_state(node, &["IDLE+DRAIN"]);
}

#[test]
fn a_dead_slurmctld_gives_an_empty_list_with_exit_0_in_json_and_exit_1_in_text() {
    let lab = Lent::alone(1);
    lab.lab(&["stop", "slurmctld", "KILL"]).ok();
    let json = lab.client("squeue", &["--json"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["jobs"].as_array().map(Vec::len), Some(0));
    assert!(!json["errors"].as_array().unwrap().is_empty());
    lab.client("squeue", &["-h"]).refused();
}

#[test]
fn a_lab_that_is_let_go_leaves_no_process_and_no_file() {
    let lab = Lab::up(2);
    let dir = lab.dir().to_owned();
    // a job with a child in a session of its own, a hung daemon, a killed one
    let wrap = "setsid sleep 7331 & sleep 7332";
    lab.client("sbatch", &["-w", "gpu001", "--output=/dev/null", "--wrap", wrap]).ok();
    eventually("the job's processes", Duration::from_secs(30), || {
        let seen = lab.lab(&["leftovers"]).out;
        if seen.contains("sleep 7331") { Ok(()) } else { Err(seen) }
    });
    lab.lab(&["signal", "gpu002", "KILL"]).ok();
    lab.lab(&["signal", "slurmctld", "STOP"]).ok();
    let pids: Vec<_> =
        lab.lab(&["leftovers"]).out.lines().filter_map(|l| l.split('\t').next().map(str::to_owned)).collect();
    assert!(pids.len() >= 6, "too few processes: {pids:?}");
    drop(lab);
    for pid in pids {
        let line = crate::support::read(format!("/proc/{pid}/cmdline"));
        assert!(
            !line.contains(dir.to_str().unwrap()) && !line.contains("sleep\u{0}733"),
            "left behind: {pid} {line}"
        );
    }
    assert!(!dir.exists(), "{} is still there", dir.display());
}

#[test]
fn an_ordinary_shell_is_not_a_part_of_the_lab() {
    let lab = Lent::nodes(1);
    let mut shell = Command::new("sleep").arg("60").env("SLURM_CONF", lab.conf()).spawn().unwrap();
    let seen = lab.lab(&["leftovers"]).out;
    shell.kill().unwrap();
    shell.wait().unwrap();
    assert!(!seen.contains(&format!("{}\t", shell.id())), "{seen}");
    assert!(seen.contains("slurmctld"), "{seen}");
    assert!(root().join("tests/lab/slurm-lab").is_file());
}
