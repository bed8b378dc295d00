//! Faults that the engine finds by itself: no alert is fed, no hook runs, on the simulated cluster.

use crate::support::cmd::{Done, run};
use crate::support::{eventually, read, scratch};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

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

/// Writes the configuration and starts the engine.
fn serve(dir: &Path, watch: &str) -> Engine {
    let socket = dir.join("engine.sock");
    let config = format!("cluster = \"simulated\"\n[server]\nsocket = {socket:?}\n[watch]\n{watch}\n");
    fs::write(dir.join("c.toml"), config).unwrap();
    let log = fs::File::create(dir.join("log")).unwrap();
    let mut c = command(dir, &["serve", "--round", "1", "-v"]);
    c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let engine = Engine(c.spawn().unwrap());
    eventually("the socket", LIMIT, || if socket.exists() { Ok(()) } else { Err(read(dir.join("log"))) });
    engine
}

#[test]
fn polling_alone_leads_from_a_memory_error_to_a_node_that_serves_again() {
    let dir = scratch("watching");
    let dir = dir.path();
    let _engine = serve(dir, "interval = \"1s\"\ngpus = \"on\"\ngpu_interval = \"1s\"");
    let runs = || verb(dir, &["runs", "--format", "json"]).out;
    let found = eventually("a run that waits for a yes", LIMIT, || {
        let text = runs();
        let all: Value = serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))?;
        let waits = |r: &&Value| r["node"] == "gpu002" && r["status"] == "awaiting_approval";
        let one = all["runs"].as_array().and_then(|all| all.iter().find(waits));
        one.and_then(|r| r["run"].as_str()).map(str::to_owned).ok_or(text)
    });
    let open = verb(dir, &["incidents"]).ok();
    for words in ["gpu002", "gpu-ecc-uncorrectable", "gpu005", "gpu.row_remap_failure"] {
        assert!(open.contains(words), "{words} is missing:\n{open}");
    }
    assert!(!open.contains("gpu001") && !open.contains("gpu006"), "a well node has an incident:\n{open}");
    verb(dir, &["approve", &found]).ok();
    eventually("the run's end", LIMIT, || {
        let shown = verb(dir, &["show", &found]).out;
        if shown.contains("status    succeeded") { Ok(()) } else { Err(shown) }
    });
    let told = read(dir.join("log"));
    assert!(told.contains("exporter-poll"), "{told}");
}

#[test]
fn a_watch_that_is_off_opens_nothing_and_wrong_settings_start_nothing() {
    let dir = scratch("watching");
    let dir = dir.path();
    let _engine = serve(dir, "slurm = false\ngpus = \"off\"");
    let done = verb(dir, &["incidents", "--format", "json"]).ok();
    assert!(!done.contains("gpu002"), "{done}");
    for (watch, words) in [
        ("interval = \"0s\"", "watch.interval"),
        ("silent = \"soon\"", "watch.silent"),
        ("gpu_interval = \"2h\"", "watch.gpu_interval"),
        ("gpus = \"maybe\"", "gpus"),
        ("slrum = true", "slrum"),
    ] {
        fs::write(dir.join("c.toml"), format!("cluster = \"simulated\"\n[watch]\n{watch}\n")).unwrap();
        let refused = verb(dir, &["serve", "--until-idle"]);
        assert!(refused.code == 2 && refused.err.contains(words), "{watch}: {refused}");
    }
}
