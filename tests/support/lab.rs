//! A real Slurm for the tests: one lab whose nodes are lent to tests, and a few that are lent as a whole to tests
//! that stop slurmctld.
//!
//! A lab lives as long as somebody holds the standard input of `slurm-lab hold`, so a test binary
//! that ends, panics or is killed takes its lab with it.

use super::cmd::{Done, run};
use super::{eventually, root, scratch};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Nodes of the shared lab.
const NODES: usize = 6;
/// Nodes of each lab that is lent as a whole.
const WHOLE_NODES: usize = 2;
/// Labs that are lent as a whole, at most.
const WHOLE_LABS: usize = 2;
/// Longer than any client waits for a slurmctld that does not answer.
const LIMIT: Duration = Duration::from_secs(40);
/// How long a node may need to be plain idle again.
pub(crate) const SETTLE: Duration = Duration::from_secs(45);
/// Seconds after which a client gives up on a hung slurmctld.
pub(crate) const MESSAGE_TIMEOUT: &str = "5";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A lab with its daemons; gone when dropped.
pub(crate) struct Lab {
    dir: PathBuf,
    nodes: usize,
    hold: Option<Child>,
}

impl Lab {
    /// Starts a lab and waits until its nodes are idle.
    ///
    /// Fails the test if that is not possible: a test that needs Slurm must not pass without it.
    pub(crate) fn up(nodes: usize) -> Self {
        Self::try_up(nodes).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Starts a lab of many nodes behind one slurmd, for tests of size: they can be drained and resumed, and only the
    /// first can run jobs.
    pub(crate) fn emulated(nodes: usize) -> Self {
        Self::start(nodes, &["--emulate"], &[]).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Starts a lab whose nodes run `hooks/health` every so many seconds.
    pub(crate) fn looked_after(nodes: usize, seconds: u32) -> Self {
        let seconds = seconds.to_string();
        Self::start(nodes, &[], &[("SLURM_LAB_HEALTH_INTERVAL", &seconds)])
            .unwrap_or_else(|why| panic!("{why}"))
    }

    fn try_up(nodes: usize) -> Result<Self, String> {
        Self::start(nodes, &[], &[])
    }

    fn start(nodes: usize, how: &[&str], env: &[(&str, &str)]) -> Result<Self, String> {
        let script = root().join("tests/lab/slurm-lab");
        let missing = run(Command::new(&script).arg("missing"), LIMIT);
        if missing.code != 0 {
            return Err(format!(
                "this test needs a real Slurm and the machine lacks {}: run tests/run, which installs it, \
                 or tests/run --without-slurm",
                missing.out.split_whitespace().collect::<Vec<_>>().join(", ")
            ));
        }
        // `down --purge` removes the directory, also when this process is killed; the log has no name
        let dir = scratch("lab").keep();
        let mut log = tempfile::tempfile().unwrap();
        let mut hold = Command::new(&script)
            .arg("hold")
            .args(how)
            .arg(nodes.to_string())
            .envs(env.iter().copied())
            .env("SLURM_LAB_DIR", &dir)
            .env("SLURM_LAB_MESSAGE_TIMEOUT", if how.is_empty() { MESSAGE_TIMEOUT } else { "60" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.try_clone().unwrap())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(hold.stdout.take().unwrap()).read_line(&mut first).unwrap();
        if first != "ready\n" {
            let _ = hold.wait();
            let mut said = String::new();
            log.rewind().unwrap();
            log.read_to_string(&mut said).unwrap();
            return Err(format!("the lab did not start:\n{said}"));
        }
        Ok(Self { dir, nodes, hold: Some(hold) })
    }

    /// The lab's directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The cluster's configuration file.
    pub(crate) fn conf(&self) -> PathBuf {
        self.dir.join("etc/slurm.conf")
    }

    /// Where links to the real clients lie.
    pub(crate) fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// Runs a verb of the lab script.
    pub(crate) fn lab(&self, args: &[&str]) -> Done {
        let mut c = Command::new(root().join("tests/lab/slurm-lab"));
        run(
            c.args(args).env("SLURM_LAB_DIR", &self.dir).env("SLURM_LAB_MESSAGE_TIMEOUT", MESSAGE_TIMEOUT),
            LIMIT,
        )
    }

    /// Variables of `slurm-lab env`, e.g. `SLURMRESTD_URL`.
    pub(crate) fn env(&self, name: &str) -> String {
        let text = self.lab(&["env"]).ok();
        let prefix = format!("export {name}=");
        let line = text.lines().find_map(|l| l.strip_prefix(&prefix));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).to_owned()
    }

    /// Runs a Slurm client as the current user.
    pub(crate) fn client(&self, name: &str, args: &[&str]) -> Done {
        let mut c = Command::new(self.bin().join(name));
        run(c.args(args).env("SLURM_CONF", self.conf()).env("LC_ALL", "C").current_dir(&self.dir), LIMIT)
    }

    /// `scontrol` with these arguments.
    pub(crate) fn scontrol(&self, args: &[&str]) -> Done {
        self.client("scontrol", args)
    }

    /// The keys of `scontrol -o show node`.
    pub(crate) fn node(&self, name: &str) -> BTreeMap<String, String> {
        let line = self.scontrol(&["-o", "show", "node", name]).ok();
        let (front, reason) = line.trim().split_once(" Reason=").unwrap_or((line.trim(), ""));
        let mut keys: BTreeMap<_, _> = front
            .split_whitespace()
            .filter_map(|w| w.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())))
            .collect();
        keys.insert("Reason".into(), reason.to_owned());
        keys
    }

    /// The state of a node as scontrol prints it, e.g. `IDLE+DRAIN`.
    pub(crate) fn state(&self, name: &str) -> String {
        self.node(name).remove("State").unwrap_or_default()
    }

    /// Waits until a node has one of these states.
    pub(crate) fn await_state(&self, name: &str, wanted: &[&str]) {
        eventually(&format!("{name} in {wanted:?}"), SETTLE, || {
            let state = self.state(name);
            if wanted.contains(&state.as_str()) { Ok(()) } else { Err(format!("it is {state}")) }
        });
    }

    /// Submits a job that sleeps on a node and waits until it runs; gives its id.
    pub(crate) fn job_on(&self, node: &str, seconds: u32) -> String {
        let wrap = format!("sleep {seconds}");
        let args = ["--parsable", "-w", node, "--output=/dev/null", "--wrap", &wrap];
        let id = self.client("sbatch", &args).ok().trim().to_owned();
        self.await_job(&id, "RUNNING");
        id
    }

    /// Waits until a job has a state.
    pub(crate) fn await_job(&self, id: &str, wanted: &str) {
        eventually(&format!("job {id} {wanted}"), SETTLE, || {
            let state = self.client("squeue", &["-h", "-j", id, "-t", "all", "-o", "%T"]).ok();
            if state.trim() == wanted { Ok(()) } else { Err(format!("it is {state}")) }
        });
    }

    /// Brings everything back: daemons alive and running, the nodes idle, nothing reserved.
    fn restore(&self, nodes: &[String]) {
        let mut all = vec!["munged".to_owned(), "slurmctld".to_owned()];
        all.extend(nodes.iter().cloned());
        for daemon in &all {
            // a daemon that is not there any more is brought back by `up`
            self.lab(&["signal", daemon, "CONT"]);
        }
        self.lab(&["up", &self.nodes.to_string()]).ok();
        self.forget(nodes);
    }

    /// Ends the jobs and reservations of these nodes and puts them back into service.
    pub(crate) fn forget(&self, nodes: &[String]) {
        for node in nodes {
            self.client("scancel", &["-w", node]).ok();
            for line in self.scontrol(&["-o", "show", "reservation"]).out.lines() {
                let value = |key: &str| line.split_whitespace().find_map(|w| w.strip_prefix(key));
                if let Some(name) = value("ReservationName=")
                    && value("Nodes=").is_some_and(|n| n.split(',').any(|n| n == node))
                {
                    self.scontrol(&["delete", &format!("reservationname={name}")]).ok();
                }
            }
            let state = self.state(node);
            if state.contains("DRAIN") || state.starts_with("DOWN") || state.contains("FAIL") {
                eventually(&format!("resume {node}"), SETTLE, || {
                    let done = self.scontrol(&["update", &format!("nodename={node}"), "state=resume"]);
                    if done.code == 0 { Ok(()) } else { Err(done.to_string()) }
                });
            }
            self.clear_stale_maintenance(node);
        }
    }

    /// slurmctld 22.05 that was killed or stopped around the end of a reservation can leave MAINTENANCE on the node for
    /// good, with no reservation there. One that comes and goes takes the flag with it.
    fn clear_stale_maintenance(&self, node: &str) {
        let stale = || self.state(node).contains("MAINTENANCE");
        let gone_within = |seconds: u64| {
            let end = std::time::Instant::now() + Duration::from_secs(seconds);
            while stale() && std::time::Instant::now() < end {
                std::thread::sleep(Duration::from_millis(250));
            }
            !stale()
        };
        for _ in 0..3 {
            if gone_within(6) {
                return;
            }
            let name = format!("reservationname=clear-{node}");
            let nodes = format!("nodes={node}");
            self.scontrol(&[
                "create",
                "reservation",
                &name,
                "starttime=now",
                "duration=5",
                "flags=maint",
                &nodes,
                "user=root",
            ])
            .ok();
            std::thread::sleep(Duration::from_secs(6));
            self.scontrol(&["delete", &name]).ok();
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut hold) = self.hold.take() {
            drop(hold.stdin.take());
            let _ = hold.wait();
        }
    }
}

/// The shared lab, and the nodes of it that no test uses now.
struct Pool {
    lab: Lab,
    free: Mutex<VecDeque<String>>,
    freed: Condvar,
}

fn pool() -> &'static Pool {
    // never dropped: the end of this process closes the pipe that keeps the lab up;
    // a lab that did not start is not tried again by each test
    static POOL: OnceLock<Result<Pool, String>> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        Ok(Pool { lab: Lab::try_up(NODES)?, free: Mutex::new(names(NODES).into()), freed: Condvar::new() })
    });
    pool.as_ref().unwrap_or_else(|why| panic!("{why}"))
}

fn names(count: usize) -> Vec<String> {
    (1..=count).map(|i| format!("gpu{i:03}")).collect()
}

/// Labs that are lent as a whole, to tests that stop slurmctld.
struct Whole {
    free: Mutex<Idle>,
    freed: Condvar,
}

#[derive(Default)]
struct Idle {
    labs: Vec<Lab>,
    started: usize,
}

static WHOLE: Whole =
    Whole { free: Mutex::new(Idle { labs: Vec::new(), started: 0 }), freed: Condvar::new() };

impl Whole {
    fn take(&self) -> Lab {
        let mut idle = lock(&self.free);
        loop {
            if let Some(lab) = idle.labs.pop() {
                return lab;
            }
            if idle.started < WHOLE_LABS {
                idle.started += 1;
                drop(idle);
                return Lab::up(WHOLE_NODES);
            }
            idle = self.freed.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, lab: Lab) {
        lock(&self.free).labs.push(lab);
        self.freed.notify_one();
    }
}

/// A part of the shared lab, or a lab as a whole, lent to one test: its nodes are its own until this is dropped.
pub(crate) struct Lent {
    nodes: Vec<String>,
    whole: Option<Lab>,
    /// A lab that was started for this test.
    own: Option<Lab>,
}

impl Lent {
    /// Borrows nodes that are plain idle; other tests use the others at the same time.
    pub(crate) fn nodes(count: usize) -> Self {
        let pool = pool();
        let mut free = lock(&pool.free);
        while free.len() < count {
            free = pool.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        let nodes: Vec<_> = free.drain(..count).collect();
        drop(free);
        Self { nodes, whole: None, own: None }.ready()
    }

    /// Borrows nodes of a lab that nobody else uses meanwhile: for tests that stop slurmctld.
    pub(crate) fn alone(count: usize) -> Self {
        assert!(count <= WHOLE_NODES, "a whole lab has {WHOLE_NODES} nodes");
        let mut nodes = names(WHOLE_NODES);
        nodes.truncate(count);
        Self { nodes, whole: Some(WHOLE.take()), own: None }.ready()
    }

    /// Takes a node of a lab that was started for this test and ends with it.
    pub(crate) fn of(lab: Lab, node: &str) -> Self {
        Self { nodes: vec![node.to_owned()], whole: None, own: Some(lab) }.ready()
    }

    fn ready(self) -> Self {
        for node in &self.nodes {
            self.clear_stale_maintenance(node);
            self.await_state(node, &["IDLE"]);
        }
        self
    }

    /// The name of the node number `i` of those borrowed, from 0.
    pub(crate) fn name(&self, i: usize) -> &str {
        &self.nodes[i]
    }
}

impl std::ops::Deref for Lent {
    type Target = Lab;
    fn deref(&self) -> &Lab {
        self.own.as_ref().or(self.whole.as_ref()).unwrap_or_else(|| &pool().lab)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.own.is_some() {
            return;
        }
        let lab: &Lab = self;
        // a failure here is a failure of the next borrower, who waits for plain idle nodes
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            if self.whole.is_some() {
                lab.restore(&self.nodes);
                return;
            }
            for node in &self.nodes {
                lab.lab(&["signal", node, "CONT"]);
                lab.lab(&["start", node]);
            }
            lab.forget(&self.nodes);
        }));
        match self.whole.take() {
            Some(lab) => WHOLE.give_back(lab),
            None => {
                lock(&pool().free).extend(self.nodes.drain(..));
                pool().freed.notify_all();
            }
        }
    }
}
