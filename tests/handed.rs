//! Runs that the terminal hands to the engine that serves, on the simulated cluster: the same timeline and the same exit codes
//! as without one; and incidents that a person closes.

use crate::support::cmd::{Done, run};
use crate::support::{eventually, read, scratch};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);
const MAIN: &str = "dcgm-ecc-drain-reset";

struct Engine(Child);

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_slurmedic"));
    c.args(args).current_dir(dir).env_clear().env("HOME", dir).env("NO_COLOR", "1");
    c.env("SLURMEDIC_CONFIG", dir.join("c.toml"));
    c
}

fn verb(dir: &Path, args: &[&str]) -> Done {
    run(&mut command(dir, args), LIMIT)
}

fn me() -> String {
    let uid = nix::unistd::geteuid();
    nix::unistd::User::from_uid(uid).unwrap().map_or_else(|| format!("uid {uid}"), |u| u.name)
}

fn serve(dir: &Path) -> Engine {
    let socket = dir.join("engine.sock");
    let policy = dir.join("policy.yaml");
    let own = me();
    let roles = format!(
        "roles:\n  viewer: {{ users: [\"*\"] }}\n  operator: {{ users: [{own}] }}\n  approver: {{ users: [{own}] }}\n  admin: {{ users: [root] }}\n"
    );
    fs::write(&policy, roles).unwrap();
    let config = format!(
        "cluster = \"simulated\"\n[policy]\npath = {policy:?}\n[server]\nsocket = {socket:?}\n[watch]\nslurm = false\ngpus = \"off\"\n"
    );
    fs::write(dir.join("c.toml"), config).unwrap();
    let log = fs::File::create(dir.join("log")).unwrap();
    let mut c = command(dir, &["serve", "--round", "1"]);
    c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let engine = Engine(c.spawn().unwrap());
    eventually("the socket", LIMIT, || if socket.exists() { Ok(()) } else { Err(read(dir.join("log"))) });
    engine
}

#[test]
fn a_run_is_handed_over_followed_and_ends_with_its_exit_code() {
    let dir = scratch("handed");
    let dir = dir.path();
    let _engine = serve(dir);
    let own = me();
    let done =
        verb(dir, &["run", MAIN, "--node", "gpu002", "--yes", "--approved-by", &own, "--format", "json"]);
    assert_eq!(done.code, 0, "{done}");
    let told: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((&told["status"], &told["exit_code"]), (&Value::from("succeeded"), &Value::from(0)), "{done}");
    // The timeline came while it happened, as without an engine.
    for words in ["the engine that serves carries run", "proposed", "approved", "slurm.drain", "succeeded"] {
        assert!(done.err.contains(words), "no {words:?}: {done}");
    }
    // It is the engine's run, on its record.
    let runs = verb(dir, &["runs"]).ok();
    assert!(runs.contains(told["run"].as_str().unwrap()), "{runs}");
    // A healthy node: rejected, with the plan's own words.
    let done = verb(dir, &["run", MAIN, "--node", "gpu010", "--gpu", "0", "--yes", "--approved-by", &own]);
    assert!(done.code == 10 && done.out.contains("no sign of an uncorrectable memory error"), "{done}");
    // Which GPU is meant cannot be told: the same exit code as without an engine.
    let done = verb(dir, &["run", MAIN, "--node", "gpu010", "--yes", "--approved-by", &own]);
    assert_eq!(done.code, 10, "{done}");
    assert_eq!(verb(dir, &["run", MAIN, "--node", "gpu999", "--yes", "--approved-by", &own]).code, 2);
    assert_eq!(verb(dir, &["run", "no-such", "--node", "gpu002", "--yes", "--approved-by", &own]).code, 2);
    let done = verb(
        dir,
        &["run", MAIN, "--node", "gpu002", "--param", "idle_wait=soon", "--yes", "--approved-by", &own],
    );
    assert!(done.code == 2 && done.err.contains("idle_wait"), "{done}");
    assert!(verb(dir, &["recover"]).ok().contains("no interrupted run"));
}

#[test]
fn nobody_approves_under_a_name_that_may_not_and_nothing_is_begun_then() {
    let dir = scratch("handed");
    let dir = dir.path();
    let _engine = serve(dir);
    let done = verb(dir, &["run", MAIN, "--node", "gpu002", "--yes", "--approved-by", "mallory"]);
    assert!(done.code == 2 && done.err.contains("mallory"), "{done}");
    // Nobody is at a terminal to be asked.
    let done = verb(dir, &["run", MAIN, "--node", "gpu002"]);
    assert!(done.code == 2 && done.err.contains("nothing was started"), "{done}");
    let runs: Value = serde_json::from_str(&verb(dir, &["runs", "--format", "json"]).out).unwrap();
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(0), "{runs}");
}

#[test]
fn an_approval_can_be_followed_and_a_person_closes_what_they_have_done() {
    let dir = scratch("handed");
    let dir = dir.path();
    let _engine = serve(dir);
    let alerts = r#"[{"node": "gpu002", "fault": "gpu-ecc-uncorrectable"}, {"node": "gpu009", "fault": "ib-port-down"}]"#;
    fs::write(dir.join("a.json"), alerts).unwrap();
    verb(dir, &["alert", "a.json"]).ok();
    let waits = eventually("a run that waits for a yes", LIMIT, || {
        let runs: Value = serde_json::from_str(&verb(dir, &["runs", "--format", "json"]).out).unwrap();
        let all = runs["runs"].as_array().unwrap();
        let one = all.iter().find(|r| r["status"] == "awaiting_approval");
        one.map(|r| r["run"].as_str().unwrap().to_owned()).ok_or_else(|| runs.to_string())
    });
    let incidents = || -> Vec<Value> {
        let doc: Value = serde_json::from_str(&verb(dir, &["incidents", "--format", "json"]).out).unwrap();
        doc["incidents"].as_array().unwrap().clone()
    };
    let id_of = |node: &str| {
        let all = incidents();
        let one = all.iter().find(|i| i["node"] == node).unwrap_or_else(|| panic!("{all:?}"));
        format!("i{}", one["id"].to_string().trim_matches(|c: char| !c.is_ascii_digit()))
    };
    // One that a run has is not closed under its hands.
    let refused = verb(dir, &["incidents", "close", &id_of("gpu002"), "--reason", "done"]);
    assert!(refused.code == 2 && refused.err.contains(&waits), "{refused}");
    let closed = verb(dir, &["incidents", "close", &id_of("gpu009"), "--reason", "cable replaced"]).ok();
    assert!(closed.contains("gpu009"), "{closed}");
    assert!(incidents().iter().all(|i| i["node"] != "gpu009"));
    let again = verb(dir, &["incidents", "close", "i4711", "--reason", "x"]);
    assert!(again.code == 2 && again.err.contains("slurmedic incidents"), "{again}");
    let done = verb(dir, &["approve", &waits, "--follow"]);
    assert!(done.code == 0 && done.out.contains("succeeded") && done.err.contains("slurm.resume"), "{done}");
}
