//! The actuator of this host against the fake tools of `tests/fakes`, which answer from captures, expect
//! their arguments, and reset only a GPU that nothing holds.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says what it finds by failing")]

use engine_adapters::node::{ExporterCheck, LocalNode, NodeToolsConfig};
use engine_core::model::gpu::Health;
use engine_core::model::{NodeGpus, NodeName, RecoveryAction, ResetOutcome};
use engine_core::verify::{
    AfterReset, Proof, Truth, VerifyHealth, after_reset, before_reset_on_node, verify_health,
};
use engine_core::{Cause, Known};
use engine_runtime::ports::{NodeActuator, Verb, WorkOrder, WorkResult};
use jiff::SignedDuration;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const UUID: &str = "GPU-5f0c1c7a-0b1e-4f0e-9c55-0a3d1e5b1002";
const BUS: &str = "00000000:52:00.0";
const LIMIT: SignedDuration = SignedDuration::from_secs(60);

/// A simulated node in a directory of its own.
struct Fake {
    dir: TempDir,
    node: LocalNode,
}

impl Fake {
    fn new(dcgm: &str) -> Self {
        Self::with(dcgm, |_| {})
    }

    fn with(dcgm: &str, change: impl FnOnce(&mut NodeToolsConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path();
        let bin = |tool: &str| state.join("bin").join(tool);
        let unit = |verb: &str, name: &str| {
            vec![bin("systemctl").display().to_string(), verb.to_owned(), name.to_owned()]
        };
        let mut config = NodeToolsConfig {
            dcgmi: bin("dcgmi"),
            nvidia_smi: bin("nvidia-smi"),
            read_deadline_seconds: 30,
            engine_start_seconds: 3,
            stop_engine: unit("stop", "nvidia-dcgm.service"),
            start_engine: unit("start", "nvidia-dcgm.service"),
            stop_exporter: unit("stop", "dcgm-exporter.service"),
            start_exporter: unit("start", "dcgm-exporter.service"),
            exporter: ExporterCheck::Command(unit("is-active", "dcgm-exporter.service")),
            kernel_log: vec![bin("dmesg").display().to_string()],
            cgroup_root: state.join("cgroup"),
            proc_root: state.join("proc"),
            sys_root: state.join("sys"),
            systemctl: bin("systemctl"),
            scontrol: bin("scontrol"),
            evidence_logs: Vec::new(),
            ..NodeToolsConfig::default()
        };
        change(&mut config);
        let fake = Self { node: LocalNode::new(name(), config), dir };
        fake.run(&["new", "--name", "gpu001", "--dcgm", dcgm]);
        fake
    }

    fn state(&self) -> &Path {
        self.dir.path()
    }

    fn run(&self, args: &[&str]) -> String {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fakes/gpu-node");
        let out = Command::new(tool).arg(self.state()).args(args).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.state().join(name)).unwrap_or_default()
    }

    /// Writes a program of the test's own. By a child: a file that this process had open for writing could
    /// still be open in a fake that another test starts at the same moment, and then cannot be executed.
    fn hook(&self, name: &str, line: &str) -> String {
        let path = self.state().join(name).display().to_string();
        let script = "printf '#!/bin/bash\n%s\n' \"$1\" >\"$0\" && chmod +x \"$0\"";
        let status = Command::new("/bin/sh").args(["-c", script, &path, line]).status().unwrap();
        assert!(status.success());
        path
    }

    fn resets(&self) -> usize {
        self.file("resets.log").lines().count()
    }

    async fn inspect(&self) -> NodeGpus {
        match self.node.perform(&order("inspect", Verb::Inspect)).await {
            WorkResult::Inspected(n) => *n,
            other => panic!("{other:?}"),
        }
    }

    async fn reset(&self, id: &str) -> (ResetOutcome, Vec<String>) {
        let verb = Verb::ResetGpu { uuid: UUID.to_owned(), bus_id: BUS.to_owned() };
        match self.node.perform(&order(id, verb)).await {
            WorkResult::Reset { outcome, steps } => (outcome, steps),
            other => panic!("{other:?}"),
        }
    }

    /// The node's own services are as they were: engine up and attached, exporter up.
    fn assert_put_together(&self) {
        assert_eq!(self.file("engine/up").trim(), "1");
        assert_eq!(self.file("engine/attached").trim(), "1");
        assert_eq!(self.file("exporter/up").trim(), "1");
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let unexpected = self.file("unexpected.log");
        assert!(unexpected.is_empty() || std::thread::panicking(), "unexpected calls:\n{unexpected}");
    }
}

fn name() -> NodeName {
    NodeName::new("gpu001").unwrap()
}

fn order(id: &str, verb: Verb) -> WorkOrder {
    WorkOrder { id: id.to_owned(), node: name(), run: None, verb, limit: LIMIT }
}

fn cause<T: std::fmt::Debug>(k: &Known<T>) -> Cause {
    let Known::Unknown(u) = k else { panic!("known: {k:?}") };
    u.cause
}

fn proof(diag: &Known<engine_core::model::gpu::DiagReport>) -> Proof<'_> {
    Proof { diag: Some((1, diag)), watched_s: Known::Known(60), watch_s: 60, exporter_expected: true }
}

#[tokio::test]
async fn a_healthy_node_is_fully_known_in_both_majors() {
    for dcgm in ["4.6.0", "3.3.9"] {
        let fake = Fake::new(dcgm);
        let n = fake.inspect().await;
        assert_eq!(n.gpus.len(), 8, "{dcgm}");
        assert_eq!(n.dcgm_version, Known::Known(dcgm.to_owned()));
        assert!(n.health.is_known_and(|h| h.overall == Health::Pass), "{:?}", n.health);
        let WorkResult::Diag(diag) = fake.node.perform(&order("d", Verb::Diag { level: 1 })).await else {
            panic!()
        };
        let list = verify_health(&VerifyHealth { node: &n, expected_gpus: Some(8), proof: proof(&diag) });
        assert!(list.passed(), "{dcgm}: {}", list.summary());
        assert!(before_reset_on_node(&n, UUID, BUS).passed());
    }
}

#[tokio::test]
async fn a_gpu_with_uncorrectable_errors_is_reset_and_proven() {
    for dcgm in ["4.6.0", "3.3.9"] {
        let fake = Fake::new(dcgm);
        fake.run(&["fault", "ecc-dbe", "2"]);
        let before = fake.inspect().await;
        let g = before.find(UUID).unwrap();
        assert_eq!((&g.ecc_dbe_volatile, &g.last_xid), (&Known::Known(2), &Known::Known(63)));
        assert_eq!(g.recovery_action, Known::Known(RecoveryAction::Reset));
        assert!(before.health.is_known_and(|h| h.overall == Health::Fail));

        let (outcome, steps) = fake.reset("run1/reset/1").await;
        assert_eq!(outcome, ResetOutcome::Done, "{steps:#?}");
        assert_eq!(fake.resets(), 1);
        fake.assert_put_together();
        let after = fake.inspect().await;
        let WorkResult::Diag(diag) = fake.node.perform(&order("d", Verb::Diag { level: 1 })).await else {
            panic!()
        };
        let list = after_reset(&AfterReset {
            before: &before,
            after: &after,
            uuid: UUID,
            outcome: &outcome,
            proof: proof(&diag),
        });
        assert!(list.passed(), "{dcgm}: {} {steps:#?}", list.summary());
        let detached = steps.iter().any(|s| s.contains("--detach-driver"));
        assert_eq!(detached, dcgm == "4.6.0", "{steps:#?}");
    }
}

#[tokio::test]
async fn a_reset_that_cures_nothing_is_not_proven() {
    let fake = Fake::new("4.6.0");
    fake.run(&["fault", "ecc-dbe", "2"]);
    fake.run(&["after-reset", "2", "stays"]);
    let before = fake.inspect().await;
    let (outcome, _) = fake.reset("r").await;
    let after = fake.inspect().await;
    let WorkResult::Diag(diag) = fake.node.perform(&order("d", Verb::Diag { level: 1 })).await else {
        panic!()
    };
    let list = after_reset(&AfterReset {
        before: &before,
        after: &after,
        uuid: UUID,
        outcome: &outcome,
        proof: proof(&diag),
    });
    let blocking: Vec<&str> = list.blocking().map(|c| c.id.as_str()).collect();
    assert_eq!(
        blocking,
        ["no_uncorrectable_errors", "no_remap_pending", "no_recovery_action", "health", "diag"]
    );
    assert!(list.hopeless());
}

#[tokio::test]
async fn the_same_order_is_never_carried_out_twice() {
    let fake = Fake::new("4.6.0");
    assert_eq!(fake.reset("run1/reset/1").await.0, ResetOutcome::Done);
    let verb = Verb::ResetGpu { uuid: UUID.to_owned(), bus_id: BUS.to_owned() };
    let again = fake.node.perform(&order("run1/reset/1", verb)).await;
    assert!(matches!(again, WorkResult::Ambiguous(_)), "{again:?}");
    assert_eq!(fake.resets(), 1);
}

#[tokio::test]
async fn a_held_gpu_is_refused_by_name_before_anything_is_touched() {
    let fake = Fake::new("4.6.0");
    fake.run(&["holder", "2", "41822", "/usr/bin/python3"]);
    let (outcome, steps) = fake.reset("r").await;
    let ResetOutcome::Refused { why, holders } = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("/usr/bin/python3 (pid 41822) on GPU 2"), "{why}");
    assert_eq!(holders.iter().map(|h| h.pid).collect::<Vec<_>>(), [41822]);
    assert!(steps.is_empty() && fake.resets() == 0);
    assert!(!fake.file("calls.log").contains("--detach-driver"));
    fake.assert_put_together();
}

#[tokio::test]
async fn a_holder_that_comes_in_between_is_named_and_all_is_put_together() {
    let fake = Fake::new("4.6.0");
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fakes/gpu-node");
    let hook = fake.hook("come", &format!("{} \"$STATE\" holder 2 41822 /usr/bin/python3", tool.display()));
    fake.run(&["rule", "nvidia-smi", "--gpu-reset*", "1", &format!("hook {hook}")]);
    let (outcome, steps) = fake.reset("r").await;
    let ResetOutcome::Refused { holders, .. } = &outcome else { panic!("{outcome:?}") };
    assert_eq!(holders.iter().map(|h| h.name.as_str()).collect::<Vec<_>>(), ["/usr/bin/python3"]);
    assert_eq!(fake.resets(), 0);
    assert!(steps.iter().any(|s| s == "dcgmi set --attach-driver: done"), "{steps:#?}");
    fake.assert_put_together();
}

#[tokio::test]
async fn a_holder_that_nvidia_smi_does_not_list_is_named_by_its_open_files() {
    let fake = Fake::new("4.6.0");
    fake.run(&["hidden-holder", "2", "977", "/usr/bin/nvtop"]);
    let (outcome, steps) = fake.reset("r").await;
    let ResetOutcome::Refused { why, holders } = &outcome else { panic!("{outcome:?}") };
    assert_eq!(why, "something holds the GPU");
    assert_eq!(
        holders.iter().map(|h| (h.pid, h.name.as_str())).collect::<Vec<_>>(),
        [(977, "/usr/bin/nvtop")]
    );
    assert_eq!(fake.resets(), 0, "{steps:#?}");
    fake.assert_put_together();
}

#[tokio::test]
async fn a_gpu_off_the_bus_is_never_reset() {
    let fake = Fake::new("4.6.0");
    fake.run(&["fault", "xid79", "2"]);
    let n = fake.inspect().await;
    assert_eq!(n.find(UUID).unwrap().answers, Known::Known(false));
    let list = before_reset_on_node(&n, UUID, BUS);
    assert_eq!(list.find("on_the_bus").unwrap().truth, Truth::Fail);
    let (outcome, _) = fake.reset("r").await;
    assert!(matches!(outcome, ResetOutcome::Refused { .. }), "{outcome:?}");
    assert_eq!(fake.resets(), 0);
}

#[tokio::test]
async fn another_gpu_than_the_plans_is_refused() {
    let fake = Fake::new("4.6.0");
    for (uuid, bus) in [
        (UUID, "00000000:61:00.0"),
        ("GPU-00000000-0000-0000-0000-000000000000", BUS),
        ("ALL", BUS),
        (UUID, "-i 0"),
        (UUID, ""),
    ] {
        let verb = Verb::ResetGpu { uuid: uuid.to_owned(), bus_id: bus.to_owned() };
        let r = fake.node.perform(&order(&format!("{uuid}{bus}"), verb)).await;
        let refused = matches!(
            &r,
            WorkResult::Refused(_) | WorkResult::Reset { outcome: ResetOutcome::Refused { .. }, .. }
        );
        assert!(refused, "{uuid} {bus}: {r:?}");
    }
    let elsewhere = WorkOrder { node: NodeName::new("gpu002").unwrap(), ..order("x", Verb::Inspect) };
    assert!(matches!(fake.node.perform(&elsewhere).await, WorkResult::Refused(_)));
    assert_eq!(fake.resets(), 0);
}

#[tokio::test]
async fn a_job_with_a_cgroup_forbids_the_reset() {
    let fake = Fake::new("4.6.0");
    std::fs::create_dir_all(fake.state().join("cgroup/system.slice/slurmstepd.scope/job_4711")).unwrap();
    let (outcome, _) = fake.reset("r").await;
    assert!(outcome.describe().contains("4711"), "{outcome:?}");
    assert_eq!(fake.resets(), 0);
}

#[tokio::test]
async fn a_hung_engine_costs_one_deadline_and_leaves_unknown() {
    let fake = Fake::with("4.6.0", |c| c.read_deadline_seconds = 4);
    fake.run(&["rule", "dcgmi", "*", "*", "hang-hard"]);
    let started = Instant::now();
    let n = fake.inspect().await;
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    assert_eq!(cause(&n.dcgm_up), Cause::TimedOut);
    assert!(!n.health.is_known() && n.gpus.len() == 8, "nvidia-smi still lists the GPUs");
    let (outcome, _) = fake.reset("r").await;
    assert!(matches!(outcome, ResetOutcome::Refused { .. }) && fake.resets() == 0);
}

#[tokio::test]
async fn nonsense_of_the_tools_is_unknown() {
    for (tool, action) in [
        ("dcgmi", "garbage"),
        ("dcgmi", "empty"),
        ("nvidia-smi", "garbage"),
        ("nvidia-smi", "empty"),
        ("dcgmi", "killed"),
    ] {
        let fake = Fake::new("4.6.0");
        fake.run(&["rule", tool, "*", "*", action]);
        let n = fake.inspect().await;
        assert!(!before_reset_on_node(&n, UUID, BUS).passed(), "{tool} {action}");
        let d = Known::unknown(Cause::NotObserved, "");
        assert!(
            !verify_health(&VerifyHealth { node: &n, expected_gpus: Some(8), proof: proof(&d) }).passed()
        );
        let WorkResult::Diag(diag) = fake.node.perform(&order("d", Verb::Diag { level: 1 })).await else {
            panic!()
        };
        assert_eq!(diag.is_known(), tool != "dcgmi", "{tool} {action}: {diag:?}");
        assert_eq!(fake.resets(), 0);
    }
}

#[tokio::test]
async fn a_reset_that_hangs_is_unknown_and_the_node_is_put_together() {
    let fake = Fake::with("4.6.0", |c| c.reset_deadline_seconds = 6);
    fake.run(&["rule", "nvidia-smi", "--gpu-reset*", "1", "then-hang"]);
    let (outcome, steps) = fake.reset("r").await;
    assert!(matches!(outcome, ResetOutcome::Unknown { code: None, .. }), "{outcome:?}");
    assert_eq!(fake.resets(), 1);
    assert!(!outcome.changed_nothing(), "{steps:#?}");
    fake.assert_put_together();
}

#[tokio::test]
async fn a_caller_who_goes_away_does_not_stop_a_reset_in_the_middle() {
    let fake = Fake::new("4.6.0");
    fake.run(&["rule", "nvidia-smi", "--gpu-reset*", "1", "slow 1"]);
    let verb = Verb::ResetGpu { uuid: UUID.to_owned(), bus_id: BUS.to_owned() };
    let o = order("r", verb);
    let gone = tokio::time::timeout(Duration::from_millis(1500), fake.node.perform(&o)).await;
    assert!(gone.is_err(), "the reset was faster than the test");
    // An inspection waits for it, and sees a node that is whole.
    let n = fake.inspect().await;
    assert_eq!(fake.resets(), 1);
    assert!(n.health.is_known());
    fake.assert_put_together();
}

#[tokio::test]
async fn refusals_of_nvidia_smi_have_their_words() {
    let fake = Fake::new("4.6.0");
    std::fs::write(fake.state().join("privileged"), "0\n").unwrap();
    assert_eq!(fake.reset("a").await.0, ResetOutcome::NoPermission);
    std::fs::write(fake.state().join("gpu/2/resettable"), "0\n").unwrap();
    assert!(matches!(fake.reset("b").await.0, ResetOutcome::NotSupported { .. }));
    assert_eq!(fake.resets(), 0);
    fake.assert_put_together();
}

#[tokio::test]
async fn persistence_mode_is_set_again() {
    let fake = Fake::new("4.6.0");
    let hook = fake.hook("lose", "echo 0 >\"$STATE/gpu/2/persistence\"");
    fake.run(&["rule", "nvidia-smi", "--gpu-reset*", "1", &format!("then-hook {hook}")]);
    let (outcome, steps) = fake.reset("r").await;
    assert_eq!(outcome, ResetOutcome::Done);
    assert!(steps.iter().any(|s| s == "persistence mode set again"), "{steps:#?}");
    assert_eq!(fake.inspect().await.find(UUID).unwrap().persistence_mode, Known::Known(true));
}

#[tokio::test]
async fn the_diagnostic_says_pass_fail_or_why_not() {
    let fake = Fake::new("4.6.0");
    let diag = async |f: &Fake| match f.node.perform(&order("d", Verb::Diag { level: 1 })).await {
        WorkResult::Diag(d) => d,
        other => panic!("{other:?}"),
    };
    assert!(diag(&fake).await.is_known_and(|d| d.overall == Health::Pass && d.level == 1 && d.passed == 8));
    fake.run(&["fault", "ecc-dbe", "2"]);
    let d = diag(&fake).await.into_known().unwrap();
    assert_eq!((d.overall, d.incidents[0].gpu), (Health::Fail, Some(2)));
    std::fs::write(fake.state().join("engine/diag_busy"), "1\n").unwrap();
    assert_eq!(cause(&diag(&fake).await), Cause::ReadFailed);
    std::fs::write(fake.state().join("engine/up"), "0\n").unwrap();
    assert_eq!(cause(&diag(&fake).await), Cause::ReadFailed);
    let none = fake.node.perform(&order("d", Verb::Diag { level: 0 })).await;
    assert!(matches!(none, WorkResult::Refused(_)));
}

#[tokio::test]
async fn an_engine_that_is_down_is_not_a_sick_gpu() {
    let fake = Fake::new("4.6.0");
    std::fs::write(fake.state().join("engine/up"), "0\n").unwrap();
    let n = fake.inspect().await;
    assert_eq!(n.dcgm_up, Known::Known(false));
    assert!(!n.health.is_known() && !n.dcgm_version.is_known());
    assert!(n.gpus.iter().all(|g| g.answers == Known::Known(true)), "nvidia-smi reads them");
    assert!(!before_reset_on_node(&n, UUID, BUS).passed());
}

#[tokio::test]
async fn no_driver_is_no_healthy_node() {
    let fake = Fake::new("4.6.0");
    std::fs::write(fake.state().join("driver"), "none\n").unwrap();
    let n = fake.inspect().await;
    let d = Known::unknown(Cause::NotObserved, "");
    let list = verify_health(&VerifyHealth { node: &n, expected_gpus: Some(8), proof: proof(&d) });
    assert!(!list.passed());
    assert_eq!(cause(&n.driver_version), Cause::ReadFailed);
}

#[tokio::test]
async fn evidence_holds_every_text_and_names_what_is_missing() {
    let fake = Fake::new("4.6.0");
    fake.run(&["fault", "ecc-dbe", "2"]);
    fake.inspect().await;
    fake.run(&["rule", "dcgmi", "nvlink -s", "*", "exit 235 no connection"]);
    let WorkResult::Evidence(items) = fake.node.perform(&order("e", Verb::CollectEvidence)).await else {
        panic!()
    };
    let find = |name: &str| items.iter().find(|i| i.name == name).unwrap();
    assert_eq!(items.len(), 15);
    assert!(find("nvidia-smi.xml").text.contains("<nvidia_smi_log>"));
    assert!(find("dcgm-health.json").text.contains("XID 48"));
    assert!(find("kernel-log.txt").text.contains("Xid"));
    assert!(find("dcgm-nvlinks.txt").note.contains("exit code 235"));
    assert!(find("nvidia-smi-topology.txt").text.contains("NV18"));
    assert!(find("processes.json").text.contains("init"));
    assert!(find("slurm-node.txt").note.contains("does not exist"), "{:?}", find("slurm-node.txt"));
    let missing: Vec<&str> = items.iter().filter(|i| !i.note.is_empty()).map(|i| i.name.as_str()).collect();
    assert_eq!(missing, ["pci.txt", "infiniband.txt", "dcgm-nvlinks.txt", "slurm-node.txt"]);
    assert_eq!(items[0].name, "kernel-log.txt", "what a crash takes away comes first");
}

#[tokio::test]
async fn status_says_what_is_missing() {
    let fake = Fake::new("4.6.0");
    assert_eq!(fake.node.status(&name()).await.ready, Ok(()));
    assert!(fake.node.status(&NodeName::new("gpu002").unwrap()).await.ready.is_err());
    let config = NodeToolsConfig { dcgmi: PathBuf::from("/no/such/dcgmi"), ..NodeToolsConfig::default() };
    let why = LocalNode::new(name(), config).status(&name()).await.ready.unwrap_err();
    assert!(why.contains("/no/such/dcgmi does not exist"), "{why}");
}
