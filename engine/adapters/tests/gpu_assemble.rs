//! Readings of one node put together, from captures: who is which GPU, who contradicts whom, false greens.
#![expect(clippy::panic, reason = "a test says what it finds by failing")]

use engine_adapters::dcgm::assemble::{Readings, assemble_node_gpus};
use engine_adapters::dcgm::fault::Fault;
use engine_adapters::dcgm::{discovery, dmon, health, nvlink, version};
use engine_adapters::nvidia_smi::csv;
use engine_core::model::gpu::Health;
use engine_core::model::{FabricState, NodeGpus, RecoveryAction};
use engine_core::{Cause, Known};
use std::path::Path;

fn capture(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    std::fs::read(root.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn dcgm(name: &str) -> Vec<u8> {
    capture(&format!("dcgm/4.6.0/{name}.out"))
}

/// nvidia-smi's table of the GPUs of the captures, with changes of single cells.
fn smi(change: impl Fn(usize, &mut [String])) -> Vec<u8> {
    let mut text = "index, uuid, pci.bus_id, driver_version, persistence_mode, mig.mode.current, \
        ecc.errors.uncorrected.volatile.total, temperature.gpu\n"
        .to_owned();
    for (i, bus) in ["1B", "43", "52", "61", "9D", "C3", "D1", "DF"].iter().enumerate() {
        let mut cells = [
            i.to_string(),
            format!("GPU-5f0c1c7a-0b1e-4f0e-9c55-0a3d1e5b100{i}"),
            format!("00000000:{bus}:00.0"),
            "550.163.01".to_owned(),
            "Enabled".to_owned(),
            "Disabled".to_owned(),
            "0".to_owned(),
            "33".to_owned(),
        ];
        change(i, &mut cells);
        text.push_str(&(cells.join(", ") + "\n"));
    }
    text.into_bytes()
}

fn healthy() -> Readings {
    Readings {
        version: Known::Known(version::parse(&dcgm("version-local"))),
        discovery: discovery::parse(&dcgm("discovery-list")),
        discovery_fault: None,
        dmon: dmon::parse(&dcgm("dmon-default-fields")),
        health: health::parse(&dcgm("health-check-healthy-json")),
        nvlink: nvlink::parse(&dcgm("nvlink-status")),
        smi: csv::parse_gpus(&smi(|_, _| {})),
        rows: csv::parse_gpus(
            b"gpu_uuid, remapped_rows.pending\nGPU-5f0c1c7a-0b1e-4f0e-9c55-0a3d1e5b1002, No\n",
        ),
        fabric: Known::unknown(Cause::Unsupported, "no such field"),
        apps: csv::parse_apps(&capture("nvidia-smi/550.163.01/composed/query-compute-apps.csv")),
        exporter_up: Known::Known(true),
        diag_running: Known::Known(false),
    }
}

fn cause<T: std::fmt::Debug>(k: &Known<T>) -> Cause {
    let Known::Unknown(u) = k else { panic!("known: {k:?}") };
    u.cause
}

fn build(change: impl FnOnce(&mut Readings)) -> NodeGpus {
    let mut r = healthy();
    change(&mut r);
    assemble_node_gpus(&r)
}

#[test]
fn a_healthy_node_has_its_facts_by_uuid() {
    let n = build(|_| {});
    assert_eq!(n.gpus.len(), 8);
    assert_eq!((&n.dcgm_up, &n.driver_attached), (&Known::Known(true), &Known::Known(true)));
    assert_eq!(n.dcgm_version, Known::Known("4.6.0".to_owned()));
    assert_eq!(n.driver_version, Known::Known("550.163.01".to_owned()));
    assert!(n.health.is_known_and(|h| h.overall == Health::Pass));
    let g = n.find("GPU-5f0c1c7a-0b1e-4f0e-9c55-0a3d1e5b1002").unwrap();
    assert_eq!(g.index, 2);
    assert_eq!(g.bus_id, Known::Known("00000000:52:00.0".to_owned()));
    assert_eq!(
        (&g.answers, &g.last_xid, &g.mig_enabled),
        (&Known::Known(true), &Known::Known(0), &Known::Known(false))
    );
    assert_eq!((&g.nvlinks_up, &g.nvlinks_down), (&Known::Known(18), &Known::Known(0)));
    assert_eq!(g.fabric, Known::Known(FabricState::NotSupported));
    let names: Vec<String> = g.processes.clone().into_known().unwrap().into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["/usr/bin/python3"]);
    assert_eq!(n.gpus[0].processes, Known::Known(Vec::new()));
}

#[test]
fn the_ids_of_3_x_descend_and_are_mapped_all_the_same() {
    let n = build(|r| r.dmon = dmon::parse(&capture("dcgm/3.3.9/dmon-default-fields.out")));
    assert_eq!(n.find("00000000:DF:00.0").unwrap().temperature_c, Known::Known(36.0));
    assert_eq!(n.find("00000000:DF:00.0").unwrap().index, 7);
}

#[test]
fn healthy_is_not_believed_when_it_cannot_see() {
    let detached = build(|r| {
        r.discovery = discovery::parse(&dcgm("discovery-driver-detached"));
        r.discovery_fault = Some(Fault::Detached);
        r.health = health::parse(&dcgm("health-check-driver-detached-json"));
    });
    assert_eq!((&detached.dcgm_up, &detached.driver_attached), (&Known::Known(true), &Known::Known(false)));
    assert_eq!(cause(&detached.health), Cause::Conflicting);

    let no_driver = build(|r| {
        r.discovery = discovery::parse(&dcgm("discovery-no-driver"));
        r.health = health::parse(&dcgm("health-check-no-driver-json"));
        r.smi = csv::parse_gpus(&capture("nvidia-smi/550.163.01/no-driver-query-csv.out"));
    });
    assert_eq!(cause(&no_driver.health), Cause::Conflicting);
    assert!(no_driver.gpus.is_empty() && !no_driver.driver_version.is_known());

    let one_missing = build(|r| {
        let mut list = r.smi.clone().into_known().unwrap();
        list.gpus.pop();
        r.smi = Known::Known(list);
    });
    assert_eq!(cause(&one_missing.health), Cause::Conflicting);
    assert_eq!(cause(&one_missing.gpus[7].answers), Cause::Conflicting);

    let blind = build(|r| r.dmon = Known::unknown(Cause::TimedOut, "15 s"));
    // nvidia-smi still answers for the GPUs.
    assert!(blind.health.is_known());
    let blinder = build(|r| {
        r.dmon = Known::unknown(Cause::TimedOut, "15 s");
        r.smi = Known::unknown(Cause::ReadFailed, "exit code 15");
    });
    assert_eq!(cause(&blinder.health), Cause::Conflicting);
}

#[test]
fn a_lost_gpu_keeps_its_name_and_nothing_else() {
    let n = build(|r| {
        r.discovery = discovery::parse(&dcgm("discovery-gpu3-lost"));
        r.dmon = dmon::parse(&dcgm("dmon-gpu3-lost"));
        r.nvlink = nvlink::parse(&dcgm("nvlink-status-gpu3-lost"));
        r.smi = Known::unknown(Cause::ReadFailed, "exit code 15");
        r.rows = Known::unknown(Cause::ReadFailed, "exit code 15");
    });
    let g = &n.gpus[3];
    assert_eq!(g.answers, Known::Known(false));
    assert!(g.uuid.is_known() && g.bus_id.is_known());
    // dmon printed 0 for both, from memory.
    assert!(!g.row_remap_pending.is_known() && !g.recovery_action.is_known() && !g.nvlinks_down.is_known());
    assert_eq!(cause(&n.health), Cause::Conflicting);
    // Bad news is believed.
    let n = build(|r| {
        r.dmon = dmon::parse(&dcgm("dmon-gpu3-lost"));
        r.health = health::parse(&dcgm("health-check-gpu3-lost-json"));
    });
    assert!(n.health.is_known_and(|h| h.overall == Health::Fail));
}

#[test]
fn tools_that_contradict_each_other_leave_the_fact_unknown() {
    let n = build(|r| {
        r.smi = csv::parse_gpus(&smi(|i, c| {
            if i == 2 {
                "2".clone_into(&mut c[6]);
            }
        }));
    });
    assert_eq!(cause(&n.gpus[2].ecc_dbe_volatile), Cause::Conflicting);
    assert_eq!(n.gpus[1].ecc_dbe_volatile, Known::Known(0));
    // The UUID of one GPU with the bus id of another.
    let n = build(|r| {
        r.smi = csv::parse_gpus(&smi(|i, c| {
            if i == 2 {
                "00000000:DE:00.0".clone_into(&mut c[2]);
            }
        }));
    });
    assert_eq!(cause(&n.gpus[2].bus_id), Cause::Conflicting);
    // A process on a GPU that nobody lists: no list of processes is complete.
    let n = build(|r| r.apps = csv::parse_apps(b"gpu_uuid, pid, process_name\nGPU-ffffffff, 9, x\n"));
    assert!(n.gpus.iter().all(|g| cause(&g.processes) == Cause::Conflicting));
}

#[test]
fn an_engine_that_is_down_or_hung_is_told_apart() {
    let down = build(|r| {
        r.discovery = discovery::parse(&dcgm("discovery-hostengine-down"));
        r.discovery_fault = Some(Fault::NoConnection);
        // -v answers from an engine of its own.
        r.health = Known::unknown(Cause::ReadFailed, "235");
    });
    assert_eq!(down.dcgm_up, Known::Known(false));
    assert!(!down.dcgm_version.is_known() && !down.driver_attached.is_known());
    assert_eq!(down.gpus.len(), 8, "nvidia-smi still lists them");
    let hung = build(|r| r.discovery = Known::unknown(Cause::TimedOut, "15 s"));
    assert_eq!(cause(&hung.dcgm_up), Cause::TimedOut);
    assert_eq!(cause(&hung.health), Cause::Conflicting);
}

#[test]
fn the_recovery_action_comes_from_dcgm_or_from_the_flags_of_nvidia_smi() {
    let table = capture("nvidia-smi/550.163.01/composed/query-gpu-reset-status.csv");
    let n = build(|r| r.smi = csv::parse_gpus(&table));
    assert_eq!(n.gpus[2].recovery_action, Known::Known(RecoveryAction::Reset));
    let n = build(|r| {
        r.smi = csv::parse_gpus(&table);
        r.dmon = dmon::parse(&dcgm("dmon-recovery-action-reset-gpu5"));
    });
    assert_eq!(n.gpus[5].recovery_action, Known::Known(RecoveryAction::Reset));
    assert_eq!(n.gpus[2].recovery_action, Known::Known(RecoveryAction::None));
}
