//! C7: faults without end on a whole site, with restarts and deaths of the engine and its agents in between. At the end
//! nothing has grown, nothing is lost and nothing was done twice. `tests/soak` starts it and says for how long.
#![expect(clippy::print_stdout, reason = "the table is what the soak is started for")]

use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::read;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Nodes of the site.
const NODES: usize = 4;
/// Growth of resident memory from the second or third to the last quarter that passes: a share, and kB beside it. An allocator keeps
/// pages that were in use once.
const MORE_MEMORY: f64 = 1.15;
const MORE_KB: f64 = 3_072.0;
/// Growth of open files that passes: connections that happen to be open.
const MORE_FILES: f64 = 8.0;
/// How long the last runs may take after the last fault.
const LAST: Duration = Duration::from_secs(420);
/// A GPU that was repaired settles for five minutes, in which the same alert opens nothing.
const SETTLES: Duration = Duration::from_secs(330);

/// One look at a process.
struct Sample {
    /// Share of the time that had gone by.
    at: f64,
    /// Resident memory in kB.
    memory: f64,
    files: f64,
}

/// Reads what a process holds; `None` when it is gone.
fn sample(pid: u32, at: f64) -> Option<Sample> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:"))?;
    let memory = line.split_whitespace().nth(1)?.parse().ok()?;
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as f64;
    Some(Sample { at, memory, files })
}

/// The middle of the values within a part of the time.
fn middle(samples: &[Sample], from: f64, to: f64, of: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().filter(|s| s.at >= from && s.at < to).map(of).collect();
    values.sort_by(f64::total_cmp);
    assert!(!values.is_empty(), "no samples from {from} to {to}");
    values[values.len() / 2]
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }
}

/// What is going on with the site, from outside.
struct Soak {
    site: Cluster,
    began: Instant,
    length: Duration,
    dice: Dice,
    /// When a GPU had its last fault.
    last: BTreeMap<(usize, usize), Instant>,
    /// When a node may have its next fault.
    free_at: [Instant; NODES],
    /// slurmds that are to be started again.
    down: BTreeMap<usize, Instant>,
    counts: BTreeMap<&'static str, usize>,
    approved: BTreeSet<String>,
    samples: BTreeMap<String, Vec<Sample>>,
}

impl Soak {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_insert(0) += 1;
    }

    fn share(&self) -> f64 {
        self.began.elapsed().as_secs_f64() / self.length.as_secs_f64()
    }

    fn document(&self, args: &[&str]) -> Option<Value> {
        let mut args = args.to_vec();
        args.extend(["--format", "json"]);
        serde_json::from_str(&self.site.verb(&args).out).ok()
    }

    fn runs(&self) -> Vec<Value> {
        let doc = self.document(&["runs", "--limit", "10000"]);
        doc.and_then(|d| d["runs"].as_array().cloned()).unwrap_or_default()
    }

    fn incidents(&self) -> Vec<Value> {
        let doc = self.document(&["incidents"]);
        doc.and_then(|d| d["incidents"].as_array().cloned()).unwrap_or_default()
    }

    fn sample(&mut self) {
        let at = self.share();
        let engine = self.site.engine.as_ref().map(|e| ("serve".to_owned(), e.pid()));
        let agents = self.site.nodes.iter().filter_map(|n| Some((n.name.clone(), n.agent.as_ref()?.pid())));
        for (who, pid) in engine.into_iter().chain(agents).collect::<Vec<_>>() {
            if let Some(seen) = sample(pid, at) {
                self.samples.entry(who).or_default().push(seen);
            }
        }
    }

    /// The robot says yes to whatever is asked, and looks after what a person has.
    fn person(&mut self) {
        for run in self.runs() {
            let id = run["run"].as_str().unwrap_or_default().to_owned();
            if run["status"] == "awaiting_approval" && self.site.verb(&["approve", &id]).code == 0 {
                self.approved.insert(id);
                self.count("approved");
            }
        }
    }

    /// The robot repairs by hand what a run left held: another GPU goes in, the node is resumed, the incident closed.
    fn service(&mut self) {
        for incident in self.incidents() {
            let Some(index) = self.site.nodes.iter().position(|n| incident["node"] == n.name.as_str()) else {
                continue;
            };
            let node = &self.site.nodes[index];
            if incident["phase"] != "with_person" || self.down.contains_key(&index) {
                continue;
            }
            // Such as an XID that the hook told after the repair: there is nothing left to do.
            if incident["why"].as_str().is_some_and(|w| w.contains("no sign of")) {
                self.close(&incident, "the GPU shows nothing any more");
                self.count("told too late, closed by a person");
                continue;
            }
            let reason = self.site.lab().node(&node.name)["Reason"].clone();
            if !reason.contains("] held: ") {
                continue;
            }
            for gpu in 0..8 {
                for key in ["dbe", "remap_pending", "recovery"] {
                    node.gpu.put(&format!("gpu/{gpu}/{key}"), "0");
                }
            }
            self.site.lab().forget(std::slice::from_ref(&node.name));
            self.close(&incident, "GPU replaced");
            self.free_at[index] = Instant::now() + Duration::from_secs(30);
            self.count("held, repaired by a person");
        }
    }

    fn close(&self, incident: &Value, why: &str) {
        let closed =
            self.site.verb(&["incidents", "close", &format!("i{}", incident["id"]), "--reason", why]);
        // Its sources may have said meanwhile that it is over.
        assert!(closed.code == 0 || closed.err.contains("is open"), "{closed}");
    }

    /// A GPU of a node that may have a fault now.
    fn gpu(&mut self, node: usize) -> Option<usize> {
        let first = self.dice.below(8);
        let well = |g: &usize| self.last.get(&(node, *g)).is_none_or(|at| at.elapsed() > SETTLES);
        (0..8).map(|i| (first + i) % 8).find(well)
    }

    /// One more fault, where a node is free for it.
    fn fault(&mut self) {
        let open: BTreeSet<String> =
            self.incidents().iter().filter_map(|i| i["node"].as_str().map(str::to_owned)).collect();
        let free = |i: &usize| {
            Instant::now() >= self.free_at[*i]
                && !self.down.contains_key(i)
                && !open.contains(&self.site.nodes[*i].name)
        };
        let all: Vec<usize> = (0..NODES).filter(free).collect();
        if all.is_empty() {
            return;
        }
        let node = all[self.dice.below(all.len())];
        let name = self.site.nodes[node].name.clone();
        self.free_at[node] = Instant::now() + Duration::from_secs(15);
        match self.dice.below(10) {
            kind @ 0..=6 => {
                let Some(gpu) = self.gpu(node) else { return };
                self.last.insert((node, gpu), Instant::now());
                if kind >= 5 {
                    let job = ["-w", &name, "--output=/dev/null", "--wrap", "sleep 12"];
                    self.site.lab().client("sbatch", &job);
                    self.count("jobs on the node");
                }
                self.site.nodes[node].gpu.set(&["fault", "ecc-dbe", &gpu.to_string()]);
                if kind >= 2 {
                    self.site.xid(node, gpu, 48);
                    self.count("memory error, XID in the kernel log");
                } else {
                    self.count("memory error, exporter only");
                }
            }
            7 => {
                // slurmctld calls it DOWN, the trigger tells; it comes back.
                self.site.lab().lab(&["stop", &name, "KILL"]);
                self.down.insert(node, Instant::now() + Duration::from_secs(45));
                self.count("slurmd died");
            }
            8 => {
                // A person takes it out and brings it back: nothing of ours may touch it.
                let target = format!("nodename={name}");
                self.site.lab().scontrol(&["update", &target, "state=drain", "reason=cable"]);
                std::thread::sleep(Duration::from_secs(4));
                self.site.lab().scontrol(&["update", &target, "state=resume"]);
                self.count("drained and resumed by a person");
            }
            _ => self.noise(),
        }
    }

    /// What is no fault of any node.
    fn noise(&mut self) {
        let file = self.site.file("noise.json");
        let mut all: Vec<Value> = (0..200)
            .map(|i| {
                let node = format!("gpu{:05}", 10_000 + i);
                serde_json::json!({"node": node, "fault": "gpu-ecc-uncorrectable", "fingerprint": format!("n/{i}")})
            })
            .collect();
        all.push(
            serde_json::json!({"node": "gpu001", "fault": "gpu-off-bus", "seen_at": "2020-01-01T00:00:00Z"}),
        );
        std::fs::write(&file, Value::from(all).to_string()).unwrap();
        self.site.verb(&["alert", &file]);
        self.count("posts of alerts about nobody");
    }

    /// Brings slurmds back whose time has come.
    fn bring_back(&mut self) {
        let due: Vec<usize> =
            self.down.iter().filter(|(_, at)| Instant::now() >= **at).map(|(n, _)| *n).collect();
        for node in due {
            self.down.remove(&node);
            let name = self.site.nodes[node].name.clone();
            self.site.lab().lab(&["start", &name]);
            self.free_at[node] = Instant::now() + Duration::from_secs(30);
        }
    }

    fn restart(&mut self, how: nix::sys::signal::Signal, agents: bool) {
        if let Some(engine) = self.site.engine.take() {
            let pid = nix::unistd::Pid::from_raw(engine.pid().cast_signed());
            nix::sys::signal::kill(pid, how).unwrap();
            let done = engine.finish(Duration::from_secs(60));
            assert!(!done.timed_out, "{done}");
        }
        if agents {
            for node in 0..NODES {
                self.site.nodes[node].agent.as_mut().unwrap().crash();
                self.site.nodes[node].agent = None;
                self.site.start_agent(node);
            }
            self.count("deaths of all agents");
        }
        self.site.serve();
        self.count(if how == nix::sys::signal::Signal::SIGKILL { "engine killed" } else { "engine stopped" });
    }

    /// Incidents and nodes, when no fault comes any more.
    fn settled(&self) -> Result<(), String> {
        let runs: Vec<Value> = self.runs().into_iter().filter(|r| r["status"].is_string()).collect();
        if !runs.is_empty() {
            return Err(format!("runs are open: {runs:?}"));
        }
        let open = self.incidents();
        let waits = open.iter().filter(|i| i["phase"] != "with_person");
        let waits: Vec<_> = waits.map(|i| format!("{} {} {}", i["node"], i["phase"], i["why"])).collect();
        if !waits.is_empty() {
            return Err(format!("incidents are open: {waits:?}"));
        }
        for node in &self.site.nodes {
            let (state, reason) =
                (self.site.lab().state(&node.name), self.site.lab().node(&node.name)["Reason"].clone());
            let held = state.contains("DRAIN") && reason.contains("] held: ");
            if state != "IDLE" && !held {
                return Err(format!("{} is {state}, reason {reason:?}", node.name));
            }
        }
        Ok(())
    }
}

/// The word of a run's status: where it stands, or how it ended.
fn status(run: &Value) -> &str {
    run["status"].as_str().or_else(|| run["status"]["ended"].as_str()).unwrap_or("?")
}

#[test]
#[ignore = "tests/soak starts it and says for how long"]
fn faults_without_end() {
    let minutes: u64 = std::env::var("SLURMEDIC_SOAK_MINUTES").unwrap().parse().unwrap();
    let mut site = Cluster::of(NODES);
    site.serve();
    for node in 0..NODES {
        site.start_agent(node);
    }
    let now = Instant::now();
    let mut soak = Soak {
        site,
        began: now,
        length: Duration::from_secs(60 * minutes),
        dice: Dice(7),
        last: BTreeMap::new(),
        free_at: [now + Duration::from_secs(10); NODES],
        down: BTreeMap::new(),
        counts: BTreeMap::new(),
        approved: BTreeSet::new(),
        samples: BTreeMap::new(),
    };
    // Within the second quarter, and within the last two, one process lives.
    let mut deaths = vec![(0.05, true, true), (0.12, true, false), (0.2, false, false), (0.5, true, true)];
    let mut next_fault = now;
    let mut told = 0;
    while soak.share() < 1.0 {
        if deaths.first().is_some_and(|(at, ..)| soak.share() >= *at) {
            let (_, killed, agents) = deaths.remove(0);
            let how =
                if killed { nix::sys::signal::Signal::SIGKILL } else { nix::sys::signal::Signal::SIGTERM };
            soak.restart(how, agents);
        }
        soak.bring_back();
        if Instant::now() >= next_fault {
            soak.fault();
            next_fault = Instant::now() + Duration::from_secs(3);
        }
        soak.person();
        soak.service();
        soak.sample();
        let minute = soak.began.elapsed().as_secs() / 60;
        if minute > told {
            told = minute;
            println!("minute {minute}: {:?}", soak.counts);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    for at in soak.down.values_mut() {
        *at = Instant::now();
    }
    soak.bring_back();
    eventually("everything comes to its end", LAST, || {
        soak.person();
        soak.service();
        std::thread::sleep(Duration::from_secs(1));
        soak.settled()
    });
    report(&soak);
}

/// Prints the table, and fails where something has grown, is lost or was done twice.
fn report(soak: &Soak) {
    let mut wrong = Vec::new();
    println!("\n{:<34} {:>10}", "what happened", "times");
    for (what, n) in &soak.counts {
        println!("{what:<34} {n:>10}");
    }
    let runs = soak.runs();
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    for run in &runs {
        *ends.entry(status(run)).or_insert(0) += 1;
    }
    println!("\n{:<34} {:>10}", "runs", runs.len());
    for (end, n) in &ends {
        println!("  {end:<32} {n:>10}");
    }
    let open = soak.incidents();
    println!("{:<34} {:>10}", "incidents that a person has", open.len());
    for i in &open {
        println!("  {} {}", i["node"], i["why"]);
    }
    // Since half of the time the same processes live: the third and the last quarter are theirs.
    println!("\n{:<10} {:>30} {:>24}", "process", "resident kB, quarter 2, 3, 4", "open files, 2, 3, 4");
    for (who, samples) in &soak.samples {
        let of = |what: fn(&Sample) -> f64| {
            [(0.25, 0.5), (0.5, 0.75), (0.75, 1.0)].map(|(from, to)| middle(samples, from, to, what))
        };
        let ([m2, m3, m4], [f2, f3, f4]) = (of(|s| s.memory), of(|s| s.files));
        println!("{who:<10} {m2:>14.0} {m3:>7.0} {m4:>7.0} {f2:>14.0} {f3:>4.0} {f4:>4.0}");
        if m4 > m2.min(m3) * MORE_MEMORY + MORE_KB {
            wrong.push(format!("{who} has grown to {m4} kB, from {m2} and {m3}"));
        }
        if f4 > f2.min(f3) + MORE_FILES {
            wrong.push(format!("{who} has {f4} files open, {f2} and {f3} before"));
        }
    }
    let verified = soak.site.verb(&["journal", "verify"]);
    println!("\njournal: {}", verified.out.trim().replace('\n', "\n         "));
    if verified.code != 0 {
        wrong.push(format!("the journal: {verified}"));
    }
    // A reset that was done twice for one run would show here.
    let resets: usize = soak.site.nodes.iter().map(|n| n.gpu.resets()).sum();
    let mut asked = 0;
    for run in &runs {
        let id = run["run"].as_str().unwrap_or_default();
        let shown = soak.document(&["show", id]).unwrap_or_default();
        let events = shown["events"].as_array().cloned().unwrap_or_default();
        let begun = |e: &&Value| e["kind"]["event"] == "intent" && e["kind"]["action"] == "dcgm.reset_gpu";
        asked += usize::from(events.iter().any(|e| begun(&e)));
    }
    println!("{:<34} {resets:>10}  of {asked} runs that began one", "resets of GPUs");
    if resets > asked {
        wrong.push(format!("{resets} resets for {asked} runs"));
    }
    if !soak.site.unexpected().is_empty() {
        wrong.push(format!("calls that no tool expects: {}", soak.site.unexpected()));
    }
    if ends.get("succeeded").is_none_or(|n| *n == 0) {
        wrong.push("no run succeeded".to_owned());
    }
    for bad in ["stuck", "handed_over"] {
        if let Some(n) = ends.get(bad) {
            wrong.push(format!("{n} runs are {bad}"));
        }
    }
    let load = read("/proc/loadavg");
    println!("{:<34} {:>10}\n", "load of the machine at the end", load.split(' ').next().unwrap_or_default());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
