//! What is between the parts goes away and comes back: the engine itself, slurmctld, the exporter, the network to a node.
//! Nothing is lost, nothing is done twice, and `/metrics` shows within one interval of asking who is not heard.

use crate::support::agents::{SOON, Site};
use crate::support::cmd::{Running, run};
use crate::support::exporter::Exporter;
use crate::support::network::Network;
use crate::support::product::{Bench, Story};
use crate::support::{eventually, read};
use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);
/// Time between two looks of the engine at Slurm and at the exporters, in these tests.
const INTERVAL: Duration = Duration::from_secs(5);
/// Time for a look that fails, and for a busy machine.
const SLACK: Duration = Duration::from_secs(15);
/// How often an agent asks, and what the engine allows on top.
const AGENT_INTERVAL: Duration = Duration::from_secs(30);
const ENDS: [&str; 5] = ["succeeded", "held", "rejected", "rolled_back", "stuck"];

fn watching() -> String {
    format!("[watch]\ninterval = \"{0}s\"\ngpu_interval = \"{0}s\"\n", INTERVAL.as_secs())
}

/// Reads one series; none where it is absent.
fn metric(site: &Site, series: &str) -> Option<f64> {
    let mut c = Command::new("curl");
    c.args(["-sS", "-m", "10", "--unix-socket"]).arg(site.bench.file("engine.sock"));
    let text = run(c.arg("http://engine/metrics"), MINUTE).out;
    let line = text.lines().find(|l| l.starts_with(series))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// Waits until a series is at least, or at most, so much; returns how long that took.
fn shows(site: &Site, series: &str, is: impl Fn(f64) -> bool, limit: Duration) -> Duration {
    let began = Instant::now();
    eventually(&format!("{series} tells it"), limit, || match metric(site, series) {
        Some(v) if is(v) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    began.elapsed()
}

/// A log in the place of `/dev/kmsg` that the agent reads.
fn kernel_log(bench: &Bench) -> std::fs::File {
    let path = bench.file("kmsg");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let text = format!("{}[agent]\nkernel_log = {:?}\n", read(bench.config()), path.display().to_string());
    std::fs::write(bench.config(), text).unwrap();
    // Open at both ends, so that it never has an end.
    std::fs::File::options().read(true).write(true).open(path).unwrap()
}

/// The driver tells of GPU 2, now.
fn xid(log: &mut std::fs::File, number: u64) {
    let up: f64 = read("/proc/uptime").split(' ').next().unwrap().parse().unwrap();
    let line = "NVRM: Xid (PCI:0000:52:00): 48, pid='<unknown>', name=<unknown>, DBE";
    writeln!(log, "4,{number},{},-;{line}", (up * 1e6) as u64).unwrap();
}

fn approve(site: &Site, story: &Story) {
    run(&mut site.medic(&["approve", &story.run()]), MINUTE).ok();
}

/// The one run came to its good end, with one reset.
fn once(site: &Site) -> Story {
    let story = site.await_status(&ENDS);
    let ended = (story.status(), site.bench.gpu.resets());
    assert_eq!(ended, ("succeeded".to_owned(), 1), "{story}{}", story.why());
    let runs = run(&mut site.medic(&["runs", "--format", "json"]), MINUTE).ok();
    let runs: serde_json::Value = serde_json::from_str(&runs).unwrap();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 1, "{runs:#}");
    site.bench.agrees(&story);
    story
}

#[test]
fn an_engine_that_is_killed_in_the_middle_of_a_reset_goes_on_and_hears_what_was_told_meanwhile() {
    let bench = Bench::faulty();
    let mut log = kernel_log(&bench);
    let mut site = Site::on(bench);
    // The engine is not there yet; what the kernel says waits on the node.
    site.start_agent();
    xid(&mut log, 1);
    std::thread::sleep(Duration::from_secs(4));
    site.serve();
    let story = site.await_status(&["awaiting_approval"]);
    site.bench.gpu.rule("nvidia-smi", "--gpu-reset *", "1", "then-barrier here");
    approve(&site, &story);
    site.bench.gpu.await_barrier("here");
    site.engine.as_mut().unwrap().crash();
    // The agent goes on with what it has, and hands it over to whoever answers next.
    site.bench.gpu.open_barrier("here");
    std::thread::sleep(Duration::from_secs(2));
    site.serve();
    let story = once(&site);
    assert!(story.kinds().contains(&"resolved"), "what was under way was looked at: {story}");
    // The same line is not told again, by nobody.
    site.agent.as_mut().unwrap().crash();
    site.start_agent();
    xid(&mut log, 1);
    shows(&site, "slurmedic_agents{state=\"heard\"}", |n| n >= 1.0, MINUTE);
    std::thread::sleep(Duration::from_secs(5));
    once(&site);
    assert_eq!(metric(&site, "slurmedic_queued_incidents"), Some(0.0));
}

#[test]
fn a_slurmctld_that_restarts_in_the_middle_of_a_reset_is_seen_and_the_run_goes_on() {
    let mut site = Site::with(Bench::faulty_alone(), |_| watching());
    site.serve();
    site.start_agent();
    site.alert();
    let story = site.await_status(&["awaiting_approval"]);
    shows(&site, "slurmedic_cluster_reads_total{outcome=\"read\"}", |n| n >= 1.0, MINUTE);
    site.bench.gpu.rule("nvidia-smi", "--gpu-reset *", "1", "then-barrier here");
    approve(&site, &story);
    site.bench.gpu.await_barrier("here");
    let failed = metric(&site, "slurmedic_cluster_reads_total{outcome=\"failed\"}").unwrap_or(0.0);
    site.bench.lab.lab(&["stop", "slurmctld"]).ok();
    let took = shows(
        &site,
        "slurmedic_cluster_reads_total{outcome=\"failed\"}",
        |n| n > failed,
        INTERVAL + SLACK + Duration::from_secs(10),
    );
    let age = metric(&site, "slurmedic_source_age_seconds{source=\"slurm\"}").unwrap();
    assert!(age > 1.0, "{age} s after {took:?}");
    site.bench.lab.lab(&["start", "slurmctld"]).ok();
    let known = |age: f64| age < INTERVAL.as_secs_f64();
    shows(&site, "slurmedic_source_age_seconds{source=\"slurm\"}", known, MINUTE);
    // Until slurmd has registered, the state of the node may be UNKNOWN: the run waits for it.
    site.bench.gpu.open_barrier("here");
    once(&site);
}

#[test]
fn an_exporter_that_is_away_is_seen_and_a_fault_of_meanwhile_is_found() {
    let bench = Bench::on(crate::support::lab::Lent::nodes(1));
    let exporter = Exporter::of(&[(bench.node(), bench.gpu.path())]);
    let url = exporter.url();
    let mut site = Site::with(bench, |_| format!("[exporter]\nurl = \"{url}\"\n{}", watching()));
    site.serve();
    site.start_agent();
    let answered = "slurmedic_exporters{state=\"answered\"}";
    shows(&site, answered, |n| n >= 1.0, MINUTE);
    let up = site.bench.gpu.path().join("exporter/up");
    std::fs::write(&up, "0\n").unwrap();
    let before = metric(&site, answered).unwrap();
    shows(&site, answered, |n| n < before, INTERVAL + SLACK);
    // The tool is ill, not the node: nothing is opened, however long it lasts.
    shows(&site, "slurmedic_exporter_turns_total{to=\"silent\"}", |n| n >= 1.0, MINUTE);
    assert_eq!(metric(&site, "slurmedic_queued_incidents"), Some(0.0));
    assert!(site.told().is_none() && site.bench.writes().is_empty());
    site.bench.gpu.set(&["fault", "ecc-dbe", "2"]);
    std::fs::write(&up, "1\n").unwrap();
    shows(&site, answered, |n| n >= before, INTERVAL + SLACK);
    let story = site.await_status(&["awaiting_approval"]);
    approve(&site, &story);
    once(&site);
}

#[test]
fn a_network_that_is_cut_in_the_middle_of_a_reset_loses_and_repeats_nothing() {
    let bench = Bench::faulty();
    let mut log = kernel_log(&bench);
    let mut site = Site::on(bench);
    let network = Network::new(site.port);
    let settings = read(site.bench.file("engine.toml"));
    let plain = format!("listen = \"127.0.0.1:{}\"", site.port);
    assert!(settings.contains(&plain));
    std::fs::write(site.bench.file("engine.toml"), settings.replace(&plain, &network.listen())).unwrap();
    let own = read(site.bench.config()).replace("[agent]\n", &format!("[agent]\n{}", network.agent()));
    std::fs::write(site.bench.config(), own).unwrap();
    let agent = |site: &Site| {
        let key = site.bench.file("node.key").display().to_string();
        let state = site.bench.file("agent-state").display().to_string();
        let command = site.bench.medic(&["agent", "run", "--key", &key, "--state", &state]);
        Running::start(&mut network.there(command))
    };
    site.serve();
    site.agent = Some(agent(&site));
    let (heard, silent) = ("slurmedic_agents{state=\"heard\"}", "slurmedic_agents{state=\"silent\"}");
    shows(&site, heard, |n| n >= 1.0, MINUTE);

    // Cut while nothing is under way: the kernel's line waits on the node, the silence is told.
    network.cut();
    xid(&mut log, 1);
    let took = shows(&site, silent, |n| n >= 1.0, AGENT_INTERVAL + SLACK);
    let age = metric(&site, "slurmedic_source_age_seconds{source=\"agents\"}").unwrap();
    assert!(age >= AGENT_INTERVAL.as_secs_f64(), "{age} s after {took:?}");
    assert_eq!(metric(&site, "slurmedic_source_stale{source=\"agents\"}"), Some(1.0));
    assert!(site.told().is_none(), "nothing came through");
    network.mend();
    let story = site.await_status(&["awaiting_approval"]);
    shows(&site, heard, |n| n >= 1.0, MINUTE);

    // Cut in the middle of a reset: the agent ends it alone, and tells when it can.
    site.bench.gpu.rule("nvidia-smi", "--gpu-reset *", "1", "then-barrier here");
    approve(&site, &story);
    site.bench.gpu.await_barrier("here");
    network.cut();
    site.bench.gpu.open_barrier("here");
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(site.bench.gpu.resets(), 1);
    network.mend();
    eventually("the run ends", SOON, || {
        let status = site.told().map(|s| s.status()).unwrap_or_default();
        if ENDS.contains(&status.as_str()) { Ok(()) } else { Err(status) }
    });
    once(&site);
}
