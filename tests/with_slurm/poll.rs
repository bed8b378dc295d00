//! What polling costs: ten thousand nodes on a real slurmctld, read again and again by an engine that serves.

use crate::support::cmd::run;
use crate::support::lab::Lab;
use crate::support::{eventually, read, root, scratch};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const NODES: usize = 10_000;
/// The interval that the promise is for; here it is looked more often, and reckoned back.
const INTERVAL: f64 = 30.0;
const LOOKS: u64 = 5;
const LIMIT: Duration = Duration::from_secs(180);

/// An engine that is gone when dropped.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU seconds of a process itself, and of the programs it has started.
fn cpu(pid: u32) -> [f64; 2] {
    let stat = read(format!("/proc/{pid}/stat"));
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(|f| f.parse().unwrap())
        .collect();
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).unwrap().unwrap() as f64;
    [(fields[0] + fields[1]) / ticks, (fields[2] + fields[3]) / ticks]
}

fn memory_mb(pid: u32, key: &str) -> f64 {
    let status = read(format!("/proc/{pid}/status"));
    let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_else(|| panic!("{status}"));
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}

/// How often slurmctld was asked what.
fn rpcs(lab: &Lab) -> BTreeMap<String, u64> {
    let said = lab.client("sdiag", &[]).ok();
    let line = |l: &str| {
        let name = l.trim().strip_prefix("REQUEST_")?.split_whitespace().next()?.to_owned();
        Some((name, l.split("count:").nth(1)?.split_whitespace().next()?.parse().ok()?))
    };
    said.lines().filter_map(line).collect()
}

fn config(lab: &Lab, dir: &Path) -> String {
    let client = |name: &str| lab.bin().join(name).display().to_string();
    format!(
        "cluster = \"slurm\"\n[journal]\npath = {:?}\n[server]\nsocket = {:?}\n\
         [watch]\ninterval = \"5s\"\ngpus = \"off\"\n\
         [slurm]\nscontrol = {:?}\nsqueue = {:?}\nsinfo = {:?}\nslurm_conf = {:?}\nread_via = \"text\"\n\
         [node]\nname = \"gpu00001\"\n",
        dir.join("journal.db").display().to_string(),
        dir.join("engine.sock").display().to_string(),
        client("scontrol"),
        client("squeue"),
        client("sinfo"),
        lab.conf().display().to_string(),
    )
}

#[test]
fn ten_thousand_nodes_cost_a_twentieth_of_a_core_and_little_memory() {
    let lab = Lab::emulated(NODES);
    let dir = scratch("poll");
    fs::write(dir.path().join("c.toml"), config(&lab, dir.path())).unwrap();
    let mut c = Command::new(env!("CARGO_BIN_EXE_slurmedic"));
    c.args(["serve", "--config"])
        .arg(dir.path().join("c.toml"))
        .env_remove("SLURM_CONF")
        .env("NO_COLOR", "1");
    let log = fs::File::create(dir.path().join("log")).unwrap();
    c.current_dir(root()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let engine = Serving(c.spawn().unwrap());
    let pid = engine.0.id();
    let said = |rpc: &BTreeMap<String, u64>, what: &str| rpc.get(what).copied().unwrap_or(0);
    let mut first = BTreeMap::new();
    let asked_before = said(&rpcs(&lab), "NODE_INFO");
    eventually("two looks", LIMIT, || {
        first = rpcs(&lab);
        if said(&first, "NODE_INFO") >= asked_before + 2 { Ok(()) } else { Err(read(dir.path().join("log"))) }
    });
    let (began, before) = (Instant::now(), cpu(pid));
    let mut last = BTreeMap::new();
    eventually("more looks", LIMIT, || {
        last = rpcs(&lab);
        if said(&last, "NODE_INFO") >= said(&first, "NODE_INFO") + LOOKS {
            Ok(())
        } else {
            std::thread::sleep(Duration::from_millis(500));
            Err(read(dir.path().join("log")))
        }
    });
    let after = cpu(pid);
    let looks = (said(&last, "NODE_INFO") - said(&first, "NODE_INFO")) as f64;
    let share = |i: usize| (after[i] - before[i]) / looks / INTERVAL * 100.0;
    let (ours, tools, peak) = (share(0), share(1), memory_mb(pid, "VmHWM:"));
    let more: BTreeMap<&String, u64> =
        last.iter().map(|(k, n)| (k, n - said(&first, k))).filter(|(_, n)| *n > 0).collect();
    println!(
        "{NODES} nodes, one look each {INTERVAL} s: engine {ours:.2} % of a core, scontrol {tools:.2} %, peak \
         {peak:.0} MB; in {:.0} s and {looks} looks slurmctld was asked {more:?}",
        began.elapsed().as_secs_f64()
    );
    // A build for tests needs more of both than a release, and holds the first all the same.
    let memory = if cfg!(debug_assertions) { 128.0 } else { 96.0 };
    assert!(ours <= 5.0, "{ours} % of a core");
    assert!(peak <= memory, "{peak} MB");
    let most = looks as u64 + 1;
    for what in ["NODE_INFO", "PARTITION_INFO", "RESERVATION_INFO"] {
        let bound = if what == "PARTITION_INFO" { 2 * most } else { most };
        assert!(said(&last, what) - said(&first, what) <= bound, "{what}: {more:?}");
    }
    assert!(
        !more.keys().any(|k| k.starts_with("JOB_INFO")),
        "the queue is not read to watch nodes: {more:?}"
    );
    let nodes = run(
        Command::new(lab.bin().join("sinfo")).args(["-h", "-o", "%D"]).env("SLURM_CONF", lab.conf()),
        LIMIT,
    );
    assert_eq!(nodes.ok().trim(), NODES.to_string());
}
