//! The verbs of this host that change something other than by a reset, against the fake tools of `tests/fakes`, a
//! process file system of the test's own, and one real process.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says what it finds by failing")]

use engine_adapters::node::{LocalNode, NodeToolsConfig};
use engine_core::Known;
use engine_core::model::NodeName;
use engine_runtime::ports::{KillEnd, MAX_EVIDENCE, NodeActuator, Verb, WorkOrder, WorkResult};
use jiff::SignedDuration;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const UUID: &str = "GPU-5f0c1c7a-0b1e-4f0e-9c55-0a3d1e5b1002";
const BUS: &str = "00000000:52:00.0";
const USER: &str = "/user.slice/user-4321.slice/session-7.scope";

struct Fake {
    dir: TempDir,
    node: LocalNode,
}

impl Fake {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut NodeToolsConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path();
        let bin = |tool: &str| state.join("bin").join(tool);
        fs::create_dir(state.join("scratch")).unwrap();
        let mut config = NodeToolsConfig {
            dcgmi: bin("dcgmi"),
            nvidia_smi: bin("nvidia-smi"),
            systemctl: bin("systemctl"),
            scontrol: bin("scontrol"),
            kernel_log: vec![bin("dmesg").display().to_string()],
            read_deadline_seconds: 30,
            cgroup_root: state.join("cgroup"),
            proc_root: state.join("proc"),
            sys_root: state.join("sys"),
            scratch: vec![state.join("scratch")],
            evidence_logs: vec![state.join("nvvs.log")],
            ..NodeToolsConfig::default()
        };
        change(&mut config);
        let fake = Self { node: LocalNode::new(name(), config), dir };
        fake.run(&["new", "--name", "gpu001", "--dcgm", "4.6.0"]);
        // What this test runs under, as the fake kernel tells it.
        fake.process(std::process::id(), "test", 0, "/system.slice/agent.service", 1);
        fake
    }

    fn state(&self) -> &Path {
        self.dir.path()
    }

    fn run(&self, args: &[&str]) {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fakes/gpu-node");
        let out = Command::new(tool).arg(self.state()).args(args).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    fn process(&self, pid: u32, command: &str, uid: u32, cgroup: &str, start: u64) {
        let (pid, uid, start) = (pid.to_string(), uid.to_string(), start.to_string());
        self.run(&["process", &pid, command, &uid, cgroup, &start]);
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.state().join(name)).unwrap_or_default()
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.state().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    async fn perform(&self, id: &str, verb: Verb) -> WorkResult {
        self.node.perform(&order(id, verb)).await
    }

    async fn refused(&self, id: &str, verb: Verb, words: &str) {
        match self.perform(id, verb).await {
            WorkResult::Refused(why) => assert!(why.contains(words), "{why}"),
            other => panic!("{words}: {other:?}"),
        }
    }

    /// A real process that waits, and its entry in the fake process file system.
    fn sleeper(&self, ignores_term: bool) -> Sleeper {
        let script = if ignores_term {
            "trap ': >\"$0\"' TERM; echo up; while :; do sleep 0.05; done"
        } else {
            "echo up; exec sleep 60"
        };
        let mut child = Command::new("/bin/sh")
            .args(["-c", script, &self.state().join("term").display().to_string()])
            .process_group(0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut up = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
        self.process(child.id(), "sleep", 4321, USER, 777);
        Sleeper(child)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let unexpected = self.file("unexpected.log");
        assert!(unexpected.is_empty() || std::thread::panicking(), "unexpected calls:\n{unexpected}");
    }
}

struct Sleeper(Child);

impl Sleeper {
    fn verb(&self) -> Verb {
        Verb::KillProcess { pid: self.0.id(), start_time: 777 }
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn name() -> NodeName {
    NodeName::new("gpu001").unwrap()
}

fn order(id: &str, verb: Verb) -> WorkOrder {
    WorkOrder { id: id.to_owned(), node: name(), run: None, verb, limit: SignedDuration::from_secs(60) }
}

fn clocks() -> Verb {
    Verb::ResetClocks { uuid: UUID.to_owned(), bus_id: BUS.to_owned() }
}

fn unit(name: &str) -> Verb {
    Verb::RestartService { unit: name.to_owned() }
}

#[tokio::test]
async fn clocks_are_set_back_and_read_back_once() {
    let fake = Fake::new();
    fake.put("gpu/2/locked_clock", "600\n");
    fake.put("gpu/2/application_clock", "1200\n");
    let WorkResult::ClocksReset { before, after, steps } = fake.perform("c", clocks()).await else {
        panic!()
    };
    assert_eq!((before.sm, before.application), (Known::Known(600), Known::Known(1200)));
    assert_eq!((&after.application, &after.application_default), (&Known::Known(1980), &Known::Known(1980)));
    assert_ne!(after.sm, Known::Known(600));
    assert_eq!(steps.len(), 3, "{steps:#?}");
    let calls = fake.file("calls.log").matches("-rgc").count();
    assert!(matches!(fake.perform("c", clocks()).await, WorkResult::Ambiguous(_)));
    assert_eq!(fake.file("calls.log").matches("-rgc").count(), calls, "never a second time");
}

#[tokio::test]
async fn clocks_of_another_gpu_under_a_job_or_without_rights_are_refused() {
    let fake = Fake::new();
    let other = Verb::ResetClocks { uuid: UUID.replace("1002", "1003"), bus_id: BUS.to_owned() };
    fake.refused("a", other, "not GPU-").await;
    fake.refused("b", Verb::ResetClocks { uuid: "all".into(), bus_id: "0".into() }, "does not name a GPU")
        .await;
    fake.put("privileged", "0\n");
    fake.refused("c", clocks(), "exit code 4 (no permission)").await;
    fake.put("privileged", "1\n");
    let driver = fake.file("driver");
    fake.put("driver", "none\n");
    fake.refused("e", clocks(), "exit code 9 (the NVIDIA driver is not loaded)").await;
    fake.put("driver", &driver);
    fake.run(&["job", "4711", "5000", "4321"]);
    fake.refused("d", clocks(), "job 4711").await;
    assert_eq!(fake.file("calls.log").matches("-rgc").count(), 1, "only the one without rights was tried");
}

#[tokio::test]
async fn clocks_with_a_tool_that_dies_are_unknown_and_without_application_clocks_are_done() {
    let fake = Fake::new();
    fake.put("gpu/2/application_clock", "none\n");
    let WorkResult::ClocksReset { steps, after, .. } = fake.perform("a", clocks()).await else { panic!() };
    assert!(steps[2].contains("exit code 3"), "{steps:#?}");
    assert!(!after.application.is_known());
    fake.run(&["rule", "nvidia-smi", "*-rgc", "1", "then-killed"]);
    assert!(matches!(fake.perform("b", clocks()).await, WorkResult::Ambiguous(_)));
}

#[tokio::test]
async fn only_listed_services_are_restarted_and_their_state_is_read_back() {
    let fake = Fake::new();
    for bad in ["sshd", "slurmd.service", "nvidia-dcgm; reboot", "--now", "nvidia-*", ""] {
        fake.refused(bad, unit(bad), "node.tools.services").await;
    }
    fake.put("engine/up", "0\n");
    let WorkResult::ServiceRestarted { unit: name, before, after } =
        fake.perform("a", unit("nvidia-dcgm.service")).await
    else {
        panic!()
    };
    assert_eq!(
        (name.as_str(), before.active.as_str(), after.active.as_str()),
        ("nvidia-dcgm", "inactive", "active")
    );
    assert_eq!(fake.file("engine/up").trim(), "1");
    assert!(matches!(fake.perform("a", unit("nvidia-dcgm")).await, WorkResult::Ambiguous(_)), "once");
    fake.put("services/nvidia-fabricmanager", "absent\n");
    fake.refused("b", unit("nvidia-fabricmanager"), "not-found").await;
    fake.put("services/nvidia-fabricmanager", "failed\n");
    let WorkResult::ServiceRestarted { after, .. } = fake.perform("c", unit("nvidia-fabricmanager")).await
    else {
        panic!()
    };
    assert_eq!(after.active, "failed", "that it does not start is an answer");
}

#[tokio::test]
async fn services_of_the_driver_wait_until_no_job_and_no_process_is_there() {
    let fake = Fake::new();
    fake.run(&["holder", "2", "41822", "/usr/bin/python3"]);
    fake.refused("a", unit("nvidia-persistenced"), "41822 (python3) has a GPU open").await;
    fake.run(&["holder", "2"]);
    fake.run(&["job", "4711", "5000", "4321"]);
    fake.refused("b", unit("nvidia-persistenced"), "job 4711").await;
    // The engine and the exporter do not disturb a job.
    assert!(matches!(fake.perform("c", unit("nvidia-dcgm")).await, WorkResult::ServiceRestarted { .. }));
    fs::remove_dir_all(fake.state().join("cgroup/system.slice")).unwrap();
    fs::remove_dir_all(fake.state().join("proc/5000")).unwrap();
    fake.run(&["rule", "nvidia-smi", "--query-compute-apps*", "1", "exit 9 no driver"]);
    fake.refused("d", unit("nvidia-persistenced"), "what computes on the GPUs is").await;
    assert_eq!(fake.file("restarts.log"), "");
    assert!(matches!(
        fake.perform("e", unit("nvidia-persistenced")).await,
        WorkResult::ServiceRestarted { .. }
    ));
    fake.run(&["process", "600", "/usr/libexec/datacenter-gpu-manager-4/nvvs"]);
    fake.refused("f", unit("nvidia-dcgm"), "diagnostic is running").await;
}

#[tokio::test]
async fn processes_are_listed_without_arguments_and_with_their_jobs() {
    let fake = Fake::new();
    fake.run(&["job", "4711", "5000", "4321"]);
    fake.run(&["hidden-holder", "2", "41822", "/usr/bin/python3 --token=hunter2"]);
    let WorkResult::Processes(Known::Known(list)) = fake.perform("p", Verb::Processes).await else {
        panic!()
    };
    assert_eq!(list.processes[0].pid, 41_822, "the holder is first");
    let of_job = list.processes.iter().find(|p| p.pid == 5000).unwrap();
    assert_eq!((&of_job.job, of_job.uid), (&Known::Known("4711".to_owned()), 4321));
    // The listing repeats; a read needs no protection against that.
    assert!(matches!(fake.perform("p", Verb::Processes).await, WorkResult::Processes(Known::Known(_))));
    fs::remove_file(fake.state().join("proc/5000/status")).unwrap();
    fs::create_dir(fake.state().join("proc/5000/status")).unwrap();
    assert!(matches!(fake.perform("p", Verb::Processes).await, WorkResult::Processes(Known::Unknown(_))));
}

#[tokio::test]
async fn a_leftover_process_is_ended_by_term_or_by_kill() {
    let fake = Fake::new();
    for (id, ignores, signal) in [("a", false, "TERM"), ("b", true, "KILL")] {
        let mut s = fake.sleeper(ignores);
        // Half of the order's time is the longest wait after TERM.
        let o = WorkOrder { limit: SignedDuration::from_secs(4), ..order(id, s.verb()) };
        let WorkResult::Killed { end, steps } = fake.node.perform(&o).await else { panic!() };
        assert_eq!(end, KillEnd::Ended { signal: signal.to_owned() }, "{steps:#?}");
        assert!(!s.lives());
        assert!(matches!(fake.node.perform(&o).await, WorkResult::Ambiguous(_)), "once");
        let WorkResult::Killed { end, .. } = fake.perform(&format!("{id}2"), s.verb()).await else {
            panic!()
        };
        assert_eq!(end, KillEnd::WasGone);
    }
}

#[tokio::test]
async fn a_process_that_a_job_takes_in_after_term_does_not_get_kill() {
    let fake = Fake::new();
    let mut s = fake.sleeper(true);
    let o = WorkOrder { limit: SignedDuration::from_secs(8), ..order("a", s.verb()) };
    let job = async {
        while !fake.state().join("term").exists() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        fake.process(s.0.id(), "sleep", 4321, "/system.slice/gpu_slurmstepd.scope/job_4711/step_extern", 777);
    };
    let (result, ()) = tokio::join!(fake.node.perform(&o), job);
    let WorkResult::Killed { end: KillEnd::Remains { .. }, steps } = result else { panic!("{result:?}") };
    assert!(steps.last().unwrap().contains("there still"), "{steps:#?}");
    assert!(steps.iter().any(|s| s.contains("KILL was not sent") && s.contains("job 4711")), "{steps:#?}");
    assert!(s.lives());
}

#[tokio::test]
async fn a_process_that_may_be_anothers_a_jobs_or_the_systems_is_left_alone() {
    let fake = Fake::new();
    let mut s = fake.sleeper(false);
    let pid = s.0.id();
    let later = Verb::KillProcess { pid, start_time: 778 };
    fake.refused("a", later, "another's now").await;
    fake.process(pid, "sleep", 0, USER, 777);
    fake.refused("b", s.verb(), "system's user").await;
    fake.process(pid, "sleep", 4321, "/system.slice/slurmd.service", 777);
    fake.refused("c", s.verb(), "control group of Slurm").await;
    fake.process(pid, "sleep", 4321, "/", 777);
    fake.refused("d", s.verb(), "topmost").await;
    fake.process(pid, "sleep", 4321, USER, 777);
    fake.run(&["job", "4711", "5000", "4321"]);
    fake.refused("e", s.verb(), "its user has job 4711").await;
    fake.run(&["job", "4711", "5000", "0"]);
    fake.refused("f", s.verb(), "whose the jobs here are").await;
    fake.run(&["job", "4711", &pid.to_string(), "4321"]);
    fake.process(pid, "sleep", 4321, "/system.slice/gpu_slurmstepd.scope/job_4711/step_0", 777);
    fake.refused("g", s.verb(), "belongs to job 4711").await;
    fake.refused("h", Verb::KillProcess { pid: 1, start_time: 100 }, "no process that can be ended").await;
    fake.refused("i", Verb::KillProcess { pid: u32::MAX, start_time: 1 }, "no process that can be ended")
        .await;
    let us = Verb::KillProcess { pid: std::process::id(), start_time: 1 };
    fake.refused("j", us, "nothing was sent").await;
    assert!(s.lives());
}

#[tokio::test]
async fn a_leftover_is_moved_once_and_only_while_its_owner_has_nothing_here() {
    let fake = Fake::new();
    let path = fake.state().join("scratch/leftover");
    fs::create_dir(&path).unwrap();
    let is_root = nix::unistd::geteuid().is_root();
    // Root can give files away; for anybody else the files are the system's own or a person's, by their user id.
    let owner = if is_root { 4321 } else { nix::unistd::geteuid().as_raw() };
    std::os::unix::fs::chown(&path, Some(owner), None).unwrap();
    let verb = || Verb::Quarantine { path: path.display().to_string() };
    fake.process(900, "tmux", owner, USER, 5);
    fake.refused("a", verb(), "runs process 900").await;
    fs::remove_dir_all(fake.state().join("proc/900")).unwrap();
    fake.run(&["job", "4711", "5000", &owner.to_string()]);
    fake.refused("b", verb(), "has job 4711").await;
    fs::remove_dir_all(fake.state().join("cgroup/system.slice")).unwrap();
    fs::remove_dir_all(fake.state().join("proc/5000")).unwrap();
    fake.refused("c", Verb::Quarantine { path: "/etc/passwd".into() }, "not below").await;
    assert!(path.exists());
    let WorkResult::Quarantined { from, to } = fake.perform("r1/q", verb()).await else { panic!() };
    assert_eq!(PathBuf::from(from), path);
    assert!(!path.exists() && Path::new(&to).is_dir() && to.contains("r1_q"), "{to}");
    assert!(matches!(fake.perform("r1/q", verb()).await, WorkResult::Ambiguous(_)), "once");
}

#[tokio::test]
async fn evidence_is_redacted_bounded_and_says_why_something_is_missing() {
    let fake = Fake::new();
    let mut log = "x".repeat(9 << 20);
    log.push_str(
        "\nNVRM: Xid (PCI:0000:52:00): 48, name=/home/alice/secret.py\nexport WANDB_API_KEY=hunter2\n",
    );
    fake.put("dmesg", &log);
    fake.put("nvvs.log", "ok\nAuthorization: Bearer abc.def\n");
    fake.put("sys/bus/pci/devices/0000:52:00.0/vendor", "0x10de\n");
    let WorkResult::Evidence(items) = fake.perform("e", Verb::CollectEvidence).await else { panic!() };
    let find = |name: &str| items.iter().find(|i| i.name == name).unwrap();
    let log = find("kernel-log.txt");
    assert!(log.text.contains("Xid (PCI:0000:52:00): 48") && log.note.contains("taken out"), "{}", log.note);
    assert!(find("pci.txt").text.contains("0000:52:00.0"));
    assert!(find("infiniband.txt").note.contains("class/infiniband"));
    assert!(find("log-nvvs.log").text.starts_with("ok\n"));
    let all = serde_json::to_string(&items).unwrap();
    for secret in ["alice", "hunter2", "abc.def"] {
        assert!(!all.contains(secret), "{secret}");
    }
    assert!(all.len() <= MAX_EVIDENCE);
}

#[tokio::test]
async fn a_tool_that_hangs_costs_the_evidence_one_wait_only() {
    let fake = Fake::with(|c| c.read_deadline_seconds = 6);
    fake.run(&["rule", "nvidia-smi", "*", "*", "hang"]);
    let WorkResult::Evidence(items) = fake.perform("e", Verb::CollectEvidence).await else { panic!() };
    let notes: Vec<&str> =
        items.iter().filter(|i| i.name.starts_with("nvidia-smi")).map(|i| i.note.as_str()).collect();
    assert!(notes[0].contains("did not end within"), "{notes:?}");
    assert!(notes[1..].iter().all(|n| n.contains("not asked")) && notes.len() == 4, "{notes:?}");
    assert_eq!(fake.file("calls.log").matches("\tnvidia-smi\t").count(), 1);
    assert!(
        items.iter().any(|i| i.name == "dcgm-version.txt" && !i.text.is_empty()),
        "the others were asked"
    );
}
