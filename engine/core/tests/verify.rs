//! The lists before and after a reset: a healthy node passes, and each single thing that is wrong, or not
//! known, blocks under its own word.

use engine_core::model::gpu::{DiagReport, Health, HealthIncident, HealthReport};
use engine_core::model::{FabricState, Gpu, GpuProcess, NodeGpus, RecoveryAction, ResetOutcome};
use engine_core::verify::{
    AfterReset, BeforeReset, CheckList, Proof, Truth, VerifyHealth, after_reset, before_reset, verify_health,
};
use engine_core::{Cause, Known};
use std::collections::BTreeMap;

const UUID: &str = "GPU-5f0c1c7a-0b1e-4f0e-9c55-0a3d1e5b1002";
const BUS: &str = "00000000:52:00.0";

fn gpu(index: u32) -> Gpu {
    let mut g = Gpu::unseen(index, Cause::NotObserved, "");
    g.uuid = Known::Known(format!("GPU-5f0c1c7a-0b1e-4f0e-9c55-0a3d1e5b100{index}"));
    g.bus_id = Known::Known(if index == 2 { BUS.to_owned() } else { format!("00000000:{index}B:00.0") });
    g.model = Known::Known("NVIDIA H100 80GB HBM3".to_owned());
    g.answers = Known::Known(true);
    g.last_xid = Known::Known(0);
    g.ecc_dbe_volatile = Known::Known(0);
    g.row_remap_pending = Known::Known(false);
    g.row_remap_failure = Known::Known(false);
    g.recovery_action = Known::Known(RecoveryAction::None);
    g.temperature_c = Known::Known(33.0);
    g.power_w = Known::Known(71.0);
    g.persistence_mode = Known::Known(true);
    g.mig_enabled = Known::Known(false);
    g.nvlinks_up = Known::Known(18);
    g.nvlinks_down = Known::Known(0);
    g.fabric = Known::Known(FabricState::Completed);
    g.processes = Known::Known(Vec::new());
    g
}

fn node() -> NodeGpus {
    let mut n = NodeGpus::unseen(Cause::NotObserved, "");
    n.gpus = (0..4).map(gpu).collect();
    n.dcgm_up = Known::Known(true);
    n.driver_attached = Known::Known(true);
    n.health = Known::Known(HealthReport { overall: Health::Pass, incidents: Vec::new() });
    n.exporter_up = Known::Known(true);
    n.diag_running = Known::Known(false);
    n
}

/// The node with its fault, as it is right before the reset.
fn faulty() -> NodeGpus {
    let mut n = node();
    let g = &mut n.gpus[2];
    g.last_xid = Known::Known(63);
    g.ecc_dbe_volatile = Known::Known(2);
    g.row_remap_pending = Known::Known(true);
    g.recovery_action = Known::Known(RecoveryAction::Reset);
    n.health = Known::Known(HealthReport { overall: Health::Fail, incidents: Vec::new() });
    n
}

fn unknown<T>() -> Known<T> {
    Known::unknown(Cause::TimedOut, "15 s")
}

fn before(node: &NodeGpus) -> BeforeReset<'_> {
    BeforeReset {
        node,
        uuid: UUID,
        bus_id: BUS,
        drained_by_us: Known::Known(true),
        active_jobs: Known::Known(0),
        suspended_jobs: Known::Known(0),
    }
}

fn diag() -> Known<DiagReport> {
    Known::Known(DiagReport { level: 1, overall: Health::Pass, passed: 8, incidents: Vec::new() })
}

fn proof(diag: &Known<DiagReport>) -> Proof<'_> {
    Proof { diag: Some((1, diag)), watched_s: Known::Known(60), watch_s: 60, exporter_expected: true }
}

fn after(now: &NodeGpus) -> CheckList {
    let d = diag();
    let was = faulty();
    after_reset(&AfterReset {
        before: &was,
        after: now,
        uuid: UUID,
        outcome: &ResetOutcome::Done,
        proof: proof(&d),
    })
}

/// Asserts that exactly these lines block, with this truth.
fn blocks(list: &CheckList, wanted: &[&str], truth: Truth) {
    let found: Vec<&str> = list.blocking().map(|c| c.id.as_str()).collect();
    assert_eq!(found, wanted, "{}", list.summary());
    assert!(list.blocking().all(|c| c.truth == truth), "{}", list.summary());
    assert!(!list.passed());
}

type Change = fn(&mut NodeGpus);

#[test]
fn a_faulty_gpu_on_an_idle_node_may_be_reset() {
    let n = faulty();
    let list = before_reset(&before(&n));
    assert!(list.passed(), "{}", list.summary());
    assert_eq!(list.summary(), "");
    let json = serde_json::to_string(&list).unwrap();
    assert_eq!(serde_json::from_str::<CheckList>(&json).unwrap(), list);
}

#[test]
fn everything_that_forbids_a_reset_is_a_line_of_its_own() {
    let table: &[(&str, Change)] = &[
        ("target", |n| n.gpus[2].bus_id = Known::Known("00000000:53:00.0".to_owned())),
        ("no_processes", |n| {
            n.gpus[2].processes = Known::Known(vec![GpuProcess { pid: 7, name: "python3".to_owned() }]);
        }),
        ("no_processes", |n| {
            n.gpus[0].processes = Known::Known(vec![GpuProcess { pid: 7, name: "python3".to_owned() }]);
        }),
        ("no_diag", |n| n.diag_running = Known::Known(true)),
        ("answers", |n| n.gpus[2].answers = Known::Known(false)),
        ("on_the_bus", |n| n.gpus[2].last_xid = Known::Known(79)),
        ("on_the_bus", |n| n.gpus[2].recent_xids = Known::Known(BTreeMap::from([(79, 1)]))),
        ("on_the_bus", |n| {
            let text = "GPU 2 has fallen off the bus (triggered by XID 79: x)".to_owned();
            let i = HealthIncident {
                gpu: Some(2),
                system: "Internal error".to_owned(),
                health: Health::Fail,
                text,
            };
            n.health = Known::Known(HealthReport { overall: Health::Fail, incidents: vec![i] });
        }),
        ("recovery_action", |n| n.gpus[2].recovery_action = Known::Known(RecoveryAction::Reboot)),
        ("recovery_action", |n| n.gpus[2].recovery_action = Known::Known(RecoveryAction::DrainP2p)),
        ("mig_off", |n| n.gpus[2].mig_enabled = Known::Known(true)),
        ("reset_alone", |n| n.gpus[2].model = Known::Known("Tesla V100-SXM2-32GB".to_owned())),
    ];
    for (id, change) in table {
        let mut n = faulty();
        change(&mut n);
        blocks(&before_reset(&before(&n)), &[id], Truth::Fail);
    }
    let n = faulty();
    for (id, b) in [
        ("drained_by_us", BeforeReset { drained_by_us: Known::Known(false), ..before(&n) }),
        ("no_jobs", BeforeReset { active_jobs: Known::Known(1), ..before(&n) }),
        ("no_suspended_jobs", BeforeReset { suspended_jobs: Known::Known(1), ..before(&n) }),
    ] {
        blocks(&before_reset(&b), &[id], Truth::Fail);
    }
}

#[test]
fn what_is_not_known_forbids_a_reset() {
    let table: &[(&str, Change)] = &[
        ("target", |n| n.gpus[2].bus_id = unknown()),
        ("no_processes", |n| n.gpus[1].processes = unknown()),
        ("no_diag", |n| n.diag_running = unknown()),
        ("answers", |n| n.gpus[2].answers = unknown()),
        ("on_the_bus", |n| n.gpus[2].last_xid = unknown()),
        ("recovery_action", |n| n.gpus[2].recovery_action = unknown()),
        ("mig_off", |n| n.gpus[2].mig_enabled = unknown()),
        ("reset_alone", |n| n.gpus[2].model = unknown()),
        ("persistence_recorded", |n| n.gpus[2].persistence_mode = unknown()),
    ];
    for (id, change) in table {
        let mut n = faulty();
        change(&mut n);
        blocks(&before_reset(&before(&n)), &[id], Truth::Unknown);
    }
    let n = faulty();
    for (id, b) in [
        ("drained_by_us", BeforeReset { drained_by_us: unknown(), ..before(&n) }),
        ("no_jobs", BeforeReset { active_jobs: unknown(), ..before(&n) }),
        ("no_suspended_jobs", BeforeReset { suspended_jobs: unknown(), ..before(&n) }),
    ] {
        blocks(&before_reset(&b), &[id], Truth::Unknown);
    }
    let nothing = NodeGpus::unseen(Cause::TimedOut, "15 s");
    blocks(&before_reset(&before(&nothing)), &["target", "no_processes", "no_diag"], Truth::Unknown);
}

#[test]
fn holders_are_named() {
    let mut n = faulty();
    n.gpus[2].processes = Known::Known(vec![GpuProcess { pid: 41822, name: "/usr/bin/python3".to_owned() }]);
    let list = before_reset(&before(&n));
    assert_eq!(list.find("no_processes").unwrap().seen, "/usr/bin/python3 (pid 41822) on GPU 2");
}

#[test]
fn the_target_is_one_gpu_and_no_other() {
    let mut n = faulty();
    n.gpus[3].uuid = n.gpus[2].uuid.clone();
    assert_eq!(before_reset(&before(&n)).find("target").unwrap().truth, Truth::Fail);
    let mut n = faulty();
    n.gpus.remove(2);
    assert_eq!(before_reset(&before(&n)).find("target").unwrap().truth, Truth::Fail);
    let n = faulty();
    let short = BeforeReset { bus_id: "52:00.0", ..before(&n) };
    assert!(before_reset(&short).passed(), "the short form of the same address");
}

#[test]
fn links_of_old_gpus_do_not_matter_where_there_are_none() {
    for model in ["Tesla T4", "Tesla V100-PCIE-16GB", "a model of next year"] {
        let mut n = faulty();
        n.gpus[2].model = Known::Known(model.to_owned());
        n.gpus[2].nvlinks_up = Known::Known(0);
        assert!(before_reset(&before(&n)).passed(), "{model}");
    }
}

#[test]
fn a_node_after_a_good_reset_passes() {
    let list = after(&node());
    assert!(list.passed(), "{}", list.summary());
    let d = diag();
    let list = verify_health(&VerifyHealth { node: &node(), expected_gpus: Some(4), proof: proof(&d) });
    assert!(list.passed(), "{}", list.summary());
}

#[test]
fn every_miss_after_a_reset_is_a_line_of_its_own() {
    let table: &[(&[&str], Change)] = &[
        (&["same_gpus"], |n| {
            n.gpus.pop();
        }),
        (&["same_gpus"], |n| n.gpus[3].uuid = Known::Known("GPU-ffffffff".to_owned())),
        (&["target"], |n| n.gpus[2].bus_id = Known::Known("00000000:53:00.0".to_owned())),
        (&["engine_up"], |n| n.dcgm_up = Known::Known(false)),
        (&["driver_attached"], |n| n.driver_attached = Known::Known(false)),
        (&["answer"], |n| n.gpus[1].answers = Known::Known(false)),
        (&["no_uncorrectable_errors"], |n| n.gpus[2].ecc_dbe_volatile = Known::Known(1)),
        (&["no_remap_pending"], |n| n.gpus[2].row_remap_pending = Known::Known(true)),
        (&["no_remap_failure"], |n| n.gpus[2].row_remap_failure = Known::Known(true)),
        (&["no_recovery_action"], |n| n.gpus[2].recovery_action = Known::Known(RecoveryAction::Reset)),
        (&["no_xid"], |n| n.gpus[2].last_xid = Known::Known(48)),
        (&["no_xid"], |n| n.gpus[0].last_xid = Known::Known(31)),
        (&["persistence"], |n| n.gpus[2].persistence_mode = Known::Known(false)),
        (&["nvlinks"], |n| n.gpus[2].nvlinks_down = Known::Known(2)),
        (&["nvlinks"], |n| n.gpus[2].nvlinks_up = Known::Known(0)),
        (&["fabric"], |n| n.gpus[2].fabric = Known::Known(FabricState::InProgress)),
        (&["fabric"], |n| n.gpus[2].fabric = Known::Known(FabricState::NotSupported)),
        (&["fabric"], |n| n.gpus[2].fabric = Known::Known(FabricState::Failed)),
        (&["health"], |n| {
            n.health = Known::Known(HealthReport { overall: Health::Warn, incidents: Vec::new() });
        }),
        (&["exporter_up"], |n| n.exporter_up = Known::Known(false)),
    ];
    for (ids, change) in table {
        let mut n = node();
        change(&mut n);
        blocks(&after(&n), ids, Truth::Fail);
    }
}

#[test]
fn what_is_not_known_after_a_reset_blocks() {
    let table: &[(&[&str], Change)] = &[
        (&["same_gpus"], |n| n.gpus[3].uuid = unknown()),
        (&["engine_up"], |n| n.dcgm_up = unknown()),
        (&["driver_attached"], |n| n.driver_attached = unknown()),
        (&["answer"], |n| n.gpus[1].answers = unknown()),
        (&["readable"], |n| n.gpus[1].temperature_c = unknown()),
        (&["readable"], |n| n.gpus[2].power_w = unknown()),
        (&["no_uncorrectable_errors"], |n| n.gpus[2].ecc_dbe_volatile = unknown()),
        (&["no_remap_pending"], |n| n.gpus[2].row_remap_pending = unknown()),
        (&["no_remap_failure"], |n| n.gpus[2].row_remap_failure = unknown()),
        (&["no_recovery_action"], |n| n.gpus[2].recovery_action = unknown()),
        (&["no_xid"], |n| n.gpus[2].last_xid = unknown()),
        // The engine still remembers the XID from before: a new one of the same kind would not show.
        (&["no_xid"], |n| n.gpus[2].last_xid = Known::Known(63)),
        (&["persistence"], |n| n.gpus[2].persistence_mode = unknown()),
        (&["nvlinks"], |n| n.gpus[2].nvlinks_down = unknown()),
        (&["nvlinks"], |n| n.gpus[2].nvlinks_up = unknown()),
        (&["fabric"], |n| n.gpus[2].fabric = unknown()),
        (&["health"], |n| n.health = unknown()),
        (&["exporter_up"], |n| n.exporter_up = unknown()),
    ];
    for (ids, change) in table {
        let mut n = node();
        change(&mut n);
        let list = after(&n);
        if *ids == ["same_gpus"] {
            // Without its UUID the GPU's state before cannot be found either.
            assert_eq!(list.find("same_gpus").unwrap().truth, Truth::Unknown);
            assert!(!list.passed());
        } else {
            blocks(&list, ids, Truth::Unknown);
        }
    }
}

#[test]
fn the_proof_itself_can_be_missing() {
    let (now, was) = (node(), faulty());
    let good = diag();
    let run = |outcome: &ResetOutcome, proof: Proof<'_>| {
        after_reset(&AfterReset { before: &was, after: &now, uuid: UUID, outcome, proof })
    };
    let fails = |d: DiagReport, truth| {
        let d = Known::Known(d);
        blocks(&run(&ResetOutcome::Done, proof(&d)), &["diag"], truth);
    };
    let report = |level, overall, passed| DiagReport { level, overall, passed, incidents: Vec::new() };
    fails(report(1, Health::Fail, 7), Truth::Fail);
    fails(report(1, Health::Pass, 0), Truth::Fail);
    fails(report(2, Health::Pass, 8), Truth::Fail);
    let late = unknown();
    blocks(&run(&ResetOutcome::Done, proof(&late)), &["diag"], Truth::Unknown);
    blocks(
        &run(&ResetOutcome::Done, Proof { watched_s: Known::Known(59), ..proof(&good) }),
        &["watched"],
        Truth::Fail,
    );
    blocks(
        &run(&ResetOutcome::Done, Proof { watched_s: unknown(), ..proof(&good) }),
        &["watched"],
        Truth::Unknown,
    );
    blocks(&run(&ResetOutcome::GpuLost, proof(&good)), &["reset_done"], Truth::Fail);
    let lost = ResetOutcome::Unknown { code: None, text: "time-out".to_owned() };
    blocks(&run(&lost, proof(&good)), &["reset_done"], Truth::Unknown);
    assert!(run(&ResetOutcome::Done, Proof { diag: None, ..proof(&good) }).passed());
}

#[test]
fn waiting_mends_some_lines_and_not_others() {
    let mut n = node();
    n.gpus[2].fabric = Known::Known(FabricState::InProgress);
    n.health = unknown();
    assert!(!after(&n).hopeless());
    n.gpus[2].row_remap_failure = Known::Known(true);
    assert!(after(&n).hopeless());
}

#[test]
fn nothing_read_proves_nothing() {
    assert!(!CheckList::default().passed());
    let d = diag();
    let nothing = NodeGpus::unseen(Cause::TimedOut, "15 s");
    let list = verify_health(&VerifyHealth { node: &nothing, expected_gpus: None, proof: proof(&d) });
    assert!(
        list.0
            .iter()
            .filter(|c| c.truth == Truth::Pass)
            .all(|c| ["watched", "diag"].contains(&c.id.as_str())),
        "{list:?}"
    );
    let three = VerifyHealth { node: &node(), expected_gpus: Some(3), proof: proof(&d) };
    blocks(&verify_health(&three), &["gpu_count"], Truth::Fail);
}
