//! The built program against the lab: one node of it with fake GPU tools, the program's configuration, its story.

use super::cmd::{Done, Running, run};
use super::fake::Fake;
use super::lab::Lent;
use super::{read, root, scratch};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Longest time that one call of the program may need in these suites.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);
/// The playbook of the main job.
pub(crate) const MAIN: &str = "dcgm-ecc-drain-reset";
/// The same with another id, of a site, whose waits are as short as a test wants them.
pub(crate) const IMPATIENT: &str = "site-ecc-drain-reset";

/// The lab is small and its tests drain nodes side by side: budgets that let them.
const ROOM: &str = "\
budgets: { fleet: 100%, partition: 100%, rack: 100%, fabric: 100% }
concurrent_runs: 100
rates: { reversible: 1000 per 1h, disruptive: 1000 per 1h }
roles: { viewer: { users: [\"*\"] }, operator: { users: [\"*\"] }, approver: { users: [alice, bob, root] }, admin: { users: [root] } }
";

/// A node of the lab, its GPUs, wrappers before the Slurm clients, and a configuration that binds them together.
pub(crate) struct Bench {
    /// The lab, with this node lent from it.
    pub(crate) lab: Lent,
    /// The node's GPU tools.
    pub(crate) gpu: Fake,
    /// The wrappers in front of the Slurm clients; only the program uses them.
    pub(crate) slurm: Fake,
    dir: TempDir,
}

impl Bench {
    /// Borrows a node whose GPU 2 has an uncorrectable memory error.
    pub(crate) fn faulty() -> Self {
        let bench = Self::on(Lent::nodes(1));
        bench.gpu.set(&["fault", "ecc-dbe", "2"]);
        bench
    }

    /// The same in a lab that nobody else uses meanwhile.
    pub(crate) fn faulty_alone() -> Self {
        let bench = Self::on(Lent::alone(1));
        bench.gpu.set(&["fault", "ecc-dbe", "2"]);
        bench
    }

    /// Sets the program up for the first of the nodes that were lent, with healthy GPUs.
    pub(crate) fn on(lab: Lent) -> Self {
        let gpu = Fake::gpu_node(lab.name(0), "4.6.0");
        let slurm = Fake::slurm(&lab.conf(), &lab.bin());
        let bench = Self { lab, gpu, slurm, dir: scratch("bench") };
        std::fs::write(bench.config(), bench.settings()).unwrap();
        std::fs::write(bench.file("policy.yaml"), ROOM).unwrap();
        bench.write_impatient_playbook();
        bench
    }

    /// The node's name.
    pub(crate) fn node(&self) -> &str {
        self.lab.name(0)
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("slurmedic.toml")
    }

    /// The journal.
    pub(crate) fn journal(&self) -> PathBuf {
        self.dir.path().join("journal.db")
    }

    /// A path in the directory of this bench.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn settings(&self) -> String {
        let tool = |fake: &Fake, name: &str| format!("{:?}", fake.tool(name).display().to_string());
        let unit = |verb: &str, unit: &str| format!("[{}, {verb:?}, {unit:?}]", tool(&self.gpu, "systemctl"));
        let state = |name: &str| format!("{:?}", self.gpu.path().join(name).display().to_string());
        format!(
            r#"cluster = "slurm"
[journal]
path = {journal:?}
[playbooks]
dir = {playbooks:?}
[policy]
path = {policy:?}
[engine]
read_patience = "4s"
poll = "200ms"
confirm = "100ms"
health_settle = "0s"
[slurm]
scontrol = {scontrol}
squeue = {squeue}
sinfo = {sinfo}
slurm_conf = {conf:?}
read_via = "text"
read_deadline_seconds = 7
write_deadline_seconds = 7
[node]
name = {node:?}
[node.tools]
dcgmi = {dcgmi}
nvidia_smi = {smi}
read_deadline_seconds = 10
engine_start_seconds = 10
stop_engine = {stop_engine}
start_engine = {start_engine}
stop_exporter = {stop_exporter}
start_exporter = {start_exporter}
exporter = {{ command = {exporter} }}
kernel_log = [{dmesg}]
proc_root = {proc}
cgroup_root = {cgroup}
"#,
            journal = self.journal().display().to_string(),
            playbooks = self.file("playbooks").display().to_string(),
            policy = self.file("policy.yaml").display().to_string(),
            scontrol = tool(&self.slurm, "scontrol"),
            squeue = tool(&self.slurm, "squeue"),
            sinfo = tool(&self.slurm, "sinfo"),
            conf = self.lab.conf().display().to_string(),
            node = self.node(),
            dcgmi = tool(&self.gpu, "dcgmi"),
            smi = tool(&self.gpu, "nvidia-smi"),
            stop_engine = unit("stop", "nvidia-dcgm.service"),
            start_engine = unit("start", "nvidia-dcgm.service"),
            stop_exporter = unit("stop", "dcgm-exporter.service"),
            start_exporter = unit("start", "dcgm-exporter.service"),
            exporter = unit("is-active", "dcgm-exporter.service"),
            dmesg = tool(&self.gpu, "dmesg"),
            proc = state("proc"),
            cgroup = state("cgroup"),
        )
    }

    fn write_impatient_playbook(&self) {
        let shipped = read(root().join("playbooks").join(MAIN).join("1.3.0.yaml"));
        let (id, limit) = (format!("playbook: {MAIN}"), "min: 1m");
        assert!(
            shipped.contains(&id) && shipped.contains(limit),
            "the shipped playbook has changed:\n{shipped}"
        );
        let text = shipped.replace(&id, &format!("playbook: {IMPATIENT}")).replace(limit, "min: 1s");
        let dir = self.file("playbooks").join(IMPATIENT);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("1.3.0.yaml"), text).unwrap();
    }

    /// The program with this configuration; its environment is that of a plain login.
    pub(crate) fn medic(&self, args: &[&str]) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_slurmedic"));
        c.args(args).arg("--config").arg(self.config()).env("NO_COLOR", "1").current_dir(self.dir.path());
        for name in ["SLURM_CONF", "SLURMEDIC_CONFIG", "SLURMEDIC_JOURNAL", "SUDO_USER"] {
            c.env_remove(name);
        }
        c
    }

    /// Runs a verb to its end.
    pub(crate) fn call(&self, args: &[&str]) -> Done {
        let done = run(&mut self.medic(args), LIMIT);
        assert!(!done.timed_out, "{done}");
        done
    }

    fn words<'a>(&'a self, playbook: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["run", playbook, "--node", self.node(), "--alert-id", "A-1"];
        all.extend(["--yes", "--approved-by", "alice", "--format", "json"]);
        all.extend(more);
        all
    }

    /// Runs a playbook to its end, approved by alice.
    pub(crate) fn run(&self, playbook: &str, more: &[&str]) -> Story {
        Story::of(self.call(&self.words(playbook, more)))
    }

    /// Starts the main job, approved by alice.
    pub(crate) fn start(&self) -> Running {
        self.start_playbook(MAIN, &[])
    }

    /// Starts a playbook, approved by alice.
    pub(crate) fn start_playbook(&self, playbook: &str, more: &[&str]) -> Running {
        Running::start(&mut self.medic(&self.words(playbook, more)))
    }

    /// Starts the main job and kills the engine, and only the engine, as soon as it has written so many events.
    ///
    /// Says whether it lived to write them.
    pub(crate) fn crash_after(&self, events: usize) -> bool {
        let mut child = self
            .medic(&self.words(MAIN, &[]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let talk = BufReader::new(child.stderr.take().unwrap());
        let mut seen = 0;
        let mut reached = false;
        for line in talk.lines() {
            let Ok(line) = line else { break };
            // an event begins with its time; what is wrapped behind it is indented
            let time: Vec<_> = line.get(..8).unwrap_or("").split(':').collect();
            if time.len() == 3 && time.iter().all(|t| t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit())) {
                seen += 1;
                if seen == events {
                    child.kill().unwrap();
                    reached = true;
                    break;
                }
            }
        }
        child.wait().unwrap();
        reached
    }

    /// A script by which a person acts on Slurm: the body may use `scontrol` and `$NODE`.
    pub(crate) fn person(&self, name: &str, body: &str) -> PathBuf {
        self.slurm.hook(
            name,
            &format!(
                "export SLURM_CONF={} NODE={}\nPATH={}:$PATH\n{body}",
                self.lab.conf().display(),
                self.node(),
                self.lab.bin().display()
            ),
        )
    }

    /// The newest run's story, from `show`.
    pub(crate) fn told(&self) -> Story {
        self.told_so_far().unwrap_or_else(|| panic!("there is no run on record"))
    }

    /// The same while there may be none yet.
    pub(crate) fn told_so_far(&self) -> Option<Story> {
        let list = self.call(&["runs", "--format", "json"]);
        let list: Value = serde_json::from_str(&list.out).ok()?;
        let run = list["runs"][0]["run"].as_str()?.to_owned();
        Some(Story::of(self.call(&["show", &run, "--format", "json"])))
    }

    /// The reservation of this product on the node, as scontrol shows it.
    pub(crate) fn reservation(&self) -> Option<String> {
        let list = self.lab.scontrol(&["-o", "show", "reservation"]).ok();
        let name = format!("ReservationName=slurmedic-{} ", self.node());
        list.lines().find(|l| l.starts_with(&name)).map(str::to_owned)
    }

    /// The line of `scontrol -o show node` behind ` Reason=`: text, user and time.
    pub(crate) fn reason(&self) -> String {
        self.lab.node(self.node())["Reason"].clone()
    }

    /// Calls of the program that asked Slurm to change something.
    pub(crate) fn writes(&self) -> Vec<String> {
        let writes = ["scontrol update", "scontrol create", "scontrol delete"];
        self.slurm.calls().into_iter().filter(|c| writes.iter().any(|w| c.starts_with(w))).collect()
    }

    /// Requires that Slurm and the GPUs are as the record says, whatever way the run took.
    pub(crate) fn agrees(&self, story: &Story) {
        let state = self.lab.state(self.node());
        let reason = self.reason();
        let drained = state.contains("DRAIN");
        let ours =
            reason.starts_with(&format!("[slurmedic:{}", story.playbook())) && reason.contains(&story.run());
        let all = format!("node {state}, reason {reason:?}, resets {}\n{story}", self.gpu.resets());
        match story.status().as_str() {
            "succeeded" => {
                assert!(!drained && reason.is_empty() && self.gpu.resets() == 1, "{all}");
                assert_eq!(self.gpu_is_clean(), Ok(()), "{all}");
            }
            "rolled_back" | "rejected" | "cancelled" => assert!(!ours, "{all}"),
            "held" => assert!(drained && ours && reason.contains("] held: "), "{all}"),
            "handed_over" | "stuck" => {}
            other => panic!("the run is not over but {other}: {all}"),
        }
        assert!(self.gpu.resets() <= 1, "the reset was repeated: {all}");
        assert_eq!(self.gpu.unexpected(), "", "{all}");
        assert_eq!(self.slurm.unexpected(), "", "{all}");
        self.call(&["journal", "verify"]).ok();
    }

    fn gpu_is_clean(&self) -> Result<(), String> {
        let dbe = read(self.gpu.path().join("gpu/2/dbe"));
        if dbe.trim() == "0" { Ok(()) } else { Err(format!("GPU 2 still has {dbe} uncorrectable errors")) }
    }
}

/// What the program said about one run, with `--format json`.
pub(crate) struct Story {
    /// Exit code of the call that told it.
    pub(crate) code: i32,
    doc: Value,
    err: String,
}

impl Story {
    /// Reads the answer of `run`, `recover` or `show`.
    pub(crate) fn of(done: Done) -> Self {
        assert!(!done.timed_out, "{done}");
        let doc = serde_json::from_str(&done.out).unwrap_or_else(|e| panic!("no document ({e}): {done}"));
        Self { code: done.code, doc, err: done.err }
    }

    /// The run's id.
    pub(crate) fn run(&self) -> String {
        self.doc["run"].as_str().unwrap_or_else(|| panic!("no run in {self}")).to_owned()
    }

    /// Its status.
    pub(crate) fn status(&self) -> String {
        self.doc["status"].as_str().unwrap_or_default().to_owned()
    }

    /// Why it ended so; from its last event.
    pub(crate) fn why(&self) -> String {
        let last = self.events().last().unwrap_or_else(|| panic!("no events in {self}"));
        last["kind"]["why"].as_str().unwrap_or_default().to_owned()
    }

    /// Its events.
    pub(crate) fn events(&self) -> &Vec<Value> {
        self.doc["events"].as_array().unwrap_or_else(|| panic!("no events in {self}"))
    }

    /// The words of its events, in order.
    pub(crate) fn kinds(&self) -> Vec<&str> {
        self.events().iter().filter_map(|e| e["kind"]["event"].as_str()).collect()
    }

    /// The id and version of its playbook.
    pub(crate) fn playbook(&self) -> String {
        self.events()[0]["kind"]["plan"]["playbook"]["id"].as_str().unwrap_or_default().to_owned()
    }

    /// The actions that an intent was written for, in order, retries included.
    pub(crate) fn intents(&self) -> Vec<&str> {
        self.of_kind("intent").filter_map(|e| e["kind"]["action"].as_str()).collect()
    }

    /// Its events of one kind.
    pub(crate) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events().iter().filter(move |e| e["kind"]["event"] == kind)
    }

    /// Requires an end and its exit code.
    pub(crate) fn ended(&self, status: &str, code: i32) -> &Self {
        assert!(self.status() == status && self.code == code, "wanted {status} and exit {code}: {self}");
        self
    }

    /// Requires words in the explanation of the end.
    pub(crate) fn because(&self, words: &[&str]) -> &Self {
        let why = self.why();
        for word in words {
            assert!(why.contains(word), "no {word:?} in {why:?}: {self}");
        }
        self
    }
}

impl std::fmt::Display for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "run {} is {} (exit {}): {}",
            self.doc["run"], self.doc["status"], self.code, self.doc["why"]
        )?;
        f.write_str(&self.err)
    }
}
