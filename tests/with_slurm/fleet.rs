//! Many incidents at once on a real slurmctld with a thousand nodes: the budget holds at every look, runs queue, none is
//! lost, and an engine that is killed again and again comes to the same end.

use crate::support::cmd::run;
use crate::support::lab::Lab;
use crate::support::{eventually, root, scratch};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const NODES: usize = 1_000;
const INCIDENTS: usize = 200;
/// Two percent.
const BUDGET: usize = 20;
/// Nodes that people took before.
const OTHERS: usize = 5;
const LIMIT: Duration = Duration::from_secs(120);

const POLICY: &str = "\
budgets: { fleet: 2%, partition: 100%, rack: 100%, fabric: 100% }
concurrent_runs: 100
rates: { reversible: 10000 per 1h, disruptive: 10000 per 1h }
breaker:
  fleet: 100% per 15m
  partition: 100% per 15m
";

/// Takes a node out for service by hand and leaves it to a person.
const PLAYBOOK: &str = "\
playbook: site-take-out
version: 1.0.0
summary: Take a node out of service and let its jobs end
owner: site
target: node
fault: [node-not-responding]
requires: { slurm: \">=22.05\", capabilities: [slurm.drain] }
preconditions:
  - node.state in [IDLE, MIXED, ALLOCATED, COMPLETING]
steps:
  - slurm.drain: { reason: \"{{ alert.id }}\" }
  - slurm.wait_idle: { timeout: 1m }
approval: hitl
ends: drained
";

/// An engine that serves; gone when dropped, also when the test fails.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Site {
    lab: Lab,
    dir: TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { lab: Lab::emulated(NODES), dir: scratch("fleet") };
        let playbooks = site.dir.path().join("playbooks/site-take-out");
        std::fs::create_dir_all(&playbooks).unwrap();
        std::fs::write(playbooks.join("1.0.0.yaml"), PLAYBOOK).unwrap();
        std::fs::write(site.dir.path().join("policy.yaml"), POLICY).unwrap();
        let path = |name: &str| site.dir.path().join(name).display().to_string();
        let client = |name: &str| site.lab.bin().join(name).display().to_string();
        let settings = format!(
            "cluster = \"slurm\"\n[journal]\npath = {:?}\n[playbooks]\ndir = {:?}\n[policy]\npath = {:?}\n\
             [engine]\npoll = \"300ms\"\nconfirm = \"100ms\"\n\
             [slurm]\nscontrol = {:?}\nsqueue = {:?}\nsinfo = {:?}\nslurm_conf = {:?}\nread_via = \"text\"\n\
             [node]\nname = \"{}\"\n",
            path("journal.db"),
            path("playbooks"),
            path("policy.yaml"),
            client("scontrol"),
            client("squeue"),
            client("sinfo"),
            site.lab.conf().display().to_string(),
            node(1),
        );
        std::fs::write(site.dir.path().join("slurmedic.toml"), settings).unwrap();
        site
    }

    fn medic(&self, args: &[&str]) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_slurmedic"));
        c.args(args).arg("--config").arg(self.dir.path().join("slurmedic.toml")).env("NO_COLOR", "1");
        for name in ["SLURM_CONF", "SLURMEDIC_CONFIG", "SLURMEDIC_JOURNAL", "SUDO_USER"] {
            c.env_remove(name);
        }
        c.current_dir(root());
        c
    }

    fn serve(&self) -> Serving {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("serve.log"))
            .unwrap();
        let mut engine = self.medic(&["serve", "--round", "1"]);
        engine.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Serving(engine.spawn().unwrap())
    }

    fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.extend(["--format", "json"]);
        let done = run(&mut self.medic(&all), LIMIT);
        serde_json::from_str(&done.out).unwrap_or_else(|e| panic!("{e}: {done}"))
    }

    /// Ids of runs by their status.
    fn runs(&self, status: &str) -> Vec<String> {
        let list = self.json(&["runs", "--limit", "1000"]);
        let all = list["runs"].as_array().unwrap();
        let word = |r: &Value| {
            r["status"]
                .as_str()
                .map_or_else(|| r["status"]["ended"].as_str().map(str::to_owned), |s| Some(s.to_owned()))
        };
        all.iter()
            .filter(|r| word(r).as_deref() == Some(status))
            .map(|r| r["run"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Nodes out of service now, with their reasons.
    fn out(&self) -> Vec<(String, String)> {
        let list = self.lab.client("sinfo", &["-h", "-N", "-t", "drain,down", "-o", "%N|%E"]).ok();
        let lines: BTreeSet<&str> = list.lines().collect();
        lines.iter().filter_map(|l| l.split_once('|')).map(|(n, r)| (n.to_owned(), r.to_owned())).collect()
    }
}

fn node(i: usize) -> String {
    format!("gpu{i:05}")
}

#[test]
fn two_hundred_incidents_at_once_stay_within_the_budget_whatever_is_killed() {
    let site = Arc::new(Site::new());
    for i in 0..OTHERS {
        let name = format!("nodename={}", node(900 + i));
        site.lab.scontrol(&["update", &name, "state=drain", "reason=rack work"]).ok();
    }
    let over = Arc::new(AtomicBool::new(false));
    let most = Arc::new(AtomicUsize::new(0));
    let looks = Arc::new(AtomicUsize::new(0));
    // Looks at the cluster all the time, and plays the crew that repairs what the engine took out.
    let crew = std::thread::spawn({
        let (site, over, most, looks) =
            (Arc::clone(&site), Arc::clone(&over), Arc::clone(&most), Arc::clone(&looks));
        move || {
            while !over.load(Ordering::SeqCst) {
                let out = site.out();
                most.fetch_max(out.len(), Ordering::SeqCst);
                looks.fetch_add(1, Ordering::SeqCst);
                // A node whose run is over, by its lock being gone, is repaired and given back.
                let reservations = site.lab.scontrol(&["-o", "show", "reservation"]).out;
                for (name, reason) in out {
                    let locked = reservations.contains(&format!("ReservationName=slurmedic-{name} "));
                    if reason.starts_with("[slurmedic:site-take-out@") && !locked {
                        site.lab.scontrol(&["update", &format!("nodename={name}"), "state=resume"]);
                    }
                }
            }
        }
    });
    let alerts: String = (1..=INCIDENTS)
        .map(|i| format!("{{\"node\": \"{}\", \"fault\": \"node-not-responding\"}}\n", node(i * 4)))
        .collect();
    let file = site.dir.path().join("alerts.json");
    std::fs::write(&file, alerts).unwrap();
    run(&mut site.medic(&["alert", &file.display().to_string()]), LIMIT).ok();

    let mut engine = site.serve();
    let mut kills = 0;
    let began = Instant::now();
    let mut done = 0;
    while done < INCIDENTS {
        assert!(began.elapsed() < Duration::from_secs(600), "{done} of {INCIDENTS} after ten minutes");
        let waiting = site.runs("awaiting_approval");
        if !waiting.is_empty() {
            let mut args = vec!["approve"];
            args.extend(waiting.iter().take(50).map(String::as_str));
            run(&mut site.medic(&args), LIMIT);
        }
        done = site.runs("succeeded").len();
        if kills < 5 && done > kills * 30 {
            drop(engine);
            kills += 1;
            engine = site.serve();
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    eventually("every incident to be over", Duration::from_secs(60), || {
        let open = site.json(&["incidents"])["open"].as_u64().unwrap();
        if open == 0 { Ok(()) } else { Err(format!("{open} are open")) }
    });
    drop(engine);
    eventually("the crew to give everything back", Duration::from_secs(60), || {
        let out = site.out().len();
        if out == OTHERS { Ok(()) } else { Err(format!("{out} nodes are out of service")) }
    });
    over.store(true, Ordering::SeqCst);
    crew.join().unwrap();

    assert_eq!(kills, 5);
    let most = most.load(Ordering::SeqCst);
    println!(
        "{INCIDENTS} incidents, {kills} kills, {:.0} s, {} looks, at most {most} nodes out of service, budget {BUDGET}",
        began.elapsed().as_secs_f64(),
        looks.load(Ordering::SeqCst)
    );
    assert!(most <= BUDGET, "{most} nodes were out of service, {BUDGET} may be");
    let succeeded: BTreeSet<String> = site.runs("succeeded").into_iter().collect();
    assert_eq!(succeeded.len(), INCIDENTS, "each once");
    assert_eq!(site.lab.scontrol(&["-o", "show", "reservation"]).out.matches("slurmedic-").count(), 0);
    run(&mut site.medic(&["journal", "verify"]), LIMIT).ok();
}
