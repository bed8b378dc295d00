//! The fake GPU tools answer as the captured programs do, refuse what they were not taught, and obey their script.

use crate::support::cmd::Running;
use crate::support::fake::Fake;
use crate::support::{eventually, read, root};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

const HEALTH: &[&str] = &["health", "-g", "0", "-c", "-j"];
const DIAG: &[&str] = &["diag", "-r", "1", "-j"];
const BUS: &str = "00000000:52:00.0";

/// Capture, versions, state (`key=value` or words for `gpu-node`, separated by `;`), arguments that differ from the capture's.
const CAPTURED: &[(&str, &str, &str, &str)] = &[
    ("version-local", "4.6.0 3.3.9", "", ""),
    ("version-hostengine-down", "4.6.0", "engine/up=0", ""),
    ("discovery-list", "4.6.0 3.3.9", "", ""),
    ("discovery-gpu3-lost", "4.6.0", "gpu/3/lost=1", ""),
    ("discovery-hostengine-down", "4.6.0 3.3.9", "engine/up=0", ""),
    ("discovery-driver-detached", "4.6.0", "engine/attached=0", ""),
    ("detach-driver", "4.6.0", "", ""),
    ("attach-driver", "4.6.0", "engine/attached=0", ""),
    ("health-set-all", "4.6.0 3.3.9", "", ""),
    ("health-set-driver-detached", "4.6.0", "engine/attached=0", ""),
    ("health-check-not-enabled-json", "4.6.0 3.3.9", "engine/watches=0", ""),
    ("health-check-hostengine-down-json", "4.6.0 3.3.9", "engine/up=0", ""),
    ("health-check-healthy-json", "4.6.0 3.3.9", "", ""),
    ("health-check-driver-detached-json", "4.6.0", "engine/attached=0;fault xid 3 79", ""),
    ("health-check-driver-reattached-json", "4.6.0", "fault xid 3 79", ""),
    ("health-check-xid48-gpu3-json", "4.6.0 3.3.9", "fault xid 3 48", ""),
    ("health-check-xid63-gpu3-json", "4.6.0 3.3.9", "fault xid 3 63", ""),
    ("health-check-xid64-gpu3-json", "4.6.0 3.3.9", "fault xid 3 64", ""),
    ("health-check-xid79-gpu3-json", "4.6.0 3.3.9", "fault xid 3 79", ""),
    ("health-check-xid95-gpu3-json", "4.6.0 3.3.9", "fault xid 3 95", ""),
    ("health-check-xid119-gpu3-json", "4.6.0 3.3.9", "fault xid 3 119", ""),
    ("health-check-xid13-gpu3-json", "4.6.0", "fault xid 3 13", ""),
    ("health-check-xid31-gpu3-json", "4.6.0", "fault xid 3 31", ""),
    ("health-check-xid74-gpu3-json", "4.6.0", "fault xid 3 74", ""),
    ("health-check-xid94-gpu3-json", "4.6.0", "fault xid 3 94", ""),
    ("health-check-dbe-volatile-gpu2-json", "4.6.0 3.3.9", "gpu/2/dbe=2", ""),
    ("health-check-dbe-xid48-xid63-recovery-gpu2-json", "4.6.0", "fault ecc-dbe 2", ""),
    ("health-check-row-remap-pending-gpu2-json", "4.6.0 3.3.9", "gpu/2/remap_pending=1", ""),
    ("health-check-row-remap-failure-gpu2-json", "4.6.0 3.3.9", "gpu/2/remap_failure=1", ""),
    ("health-check-recovery-action-reset-gpu5-json", "4.6.0", "gpu/5/recovery=1", ""),
    ("health-check-recovery-action-reboot-gpu5-json", "4.6.0", "fault reboot 5", ""),
    ("health-check-recovery-action-drain-p2p-gpu5-json", "4.6.0", "gpu/5/recovery=3", ""),
    ("health-check-recovery-action-drain-reset-gpu5-json", "4.6.0", "gpu/5/recovery=4", ""),
    ("health-check-nvlink-down-gpu6-json", "4.6.0 3.3.9", "gpu/6/nvlink_down=3 4", ""),
    ("health-check-gpu3-lost-json", "4.6.0", "gpu/3/lost=1", ""),
    ("nvlink-status", "4.6.0 3.3.9", "", ""),
    ("nvlink-status-gpu6-links-down", "4.6.0", "gpu/6/nvlink_down=3 4", ""),
    ("nvlink-status-gpu3-lost", "4.6.0", "gpu/3/lost=1", ""),
    ("dmon-default-fields", "4.6.0 3.3.9", "", "-d 1"),
    ("dmon-one-gpu", "4.6.0", "", ""),
    ("dmon-bad-gpu", "4.6.0", "", ""),
    ("dmon-bad-field", "3.3.9", "", ""),
    ("dmon-driver-detached", "4.6.0", "engine/attached=0", ""),
    ("dmon-gpu3-lost", "4.6.0", "gpu/3/lost=1", ""),
    ("dmon-dbe-volatile-gpu2", "4.6.0", "gpu/2/dbe=2;gpu/2/dbe_aggregate=2", "-d 1"),
    ("dmon-row-remap-pending-gpu2", "4.6.0", "gpu/2/remap_pending=1;gpu/2/remap_unc=1", "-d 1"),
    ("dmon-row-remap-failure-gpu2", "4.6.0", "gpu/2/remap_failure=1;gpu/2/remap_unc=8", "-d 1"),
    ("dmon-recovery-action-reset-gpu5", "4.6.0", "gpu/5/recovery=1", ""),
    ("diag-r1-pass-json", "4.6.0 3.3.9", "", ""),
    ("diag-r1-gpus-2-3-json", "4.6.0", "", ""),
    ("diag-r1-row-remap-pending-gpu2-json", "4.6.0 3.3.9", "gpu/2/remap_pending=1;gpu/2/remap_unc=1", ""),
    ("diag-r1-row-remap-failure-gpu2-json", "4.6.0 3.3.9", "gpu/2/remap_failure=1;gpu/2/remap_unc=8", ""),
    ("diag-r1-remap-history-only-gpu2-json", "4.6.0", "gpu/2/remap_unc=1", ""),
    ("diag-r1-remap-pending-flag-only-gpu2-json", "4.6.0", "gpu/2/remap_pending=1", ""),
    ("diag-r1-dbe-volatile-gpu2-json", "4.6.0", "gpu/2/dbe=2", ""),
    ("diag-r1-persistence-off-gpu2-json", "4.6.0", "fault persistence-off 2", ""),
    ("diag-r1-gpu3-lost-json", "4.6.0", "gpu/3/lost=1", ""),
    ("diag-unknown-gpu-json", "4.6.0 3.3.9", "", ""),
    ("diag-already-running-json", "4.6.0", "engine/diag_busy=1", ""),
    ("diag-driver-detached-json", "4.6.0", "engine/attached=0", ""),
    ("diag-hostengine-down-json", "4.6.0", "engine/up=0", ""),
];

fn arrange(fake: &Fake, state: &str) {
    fake.put("engine/watches", "1");
    for step in state.split(';').filter(|s| !s.is_empty()) {
        match step.split_once('=') {
            Some((key, value)) => fake.put(key, value),
            None => {
                fake.set(&step.split(' ').collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn dcgmi_answers_are_the_captured_ones_byte_for_byte() {
    let mut compared = 0;
    for (name, versions, state, more) in CAPTURED {
        for version in versions.split(' ') {
            let dir = root().join("fixtures/dcgm").join(version);
            let index = fs::read_to_string(dir.join("index.tsv")).unwrap();
            let row = index.lines().map(|l| l.split('\t').collect::<Vec<_>>()).find(|c| c[0] == *name);
            let row = row.unwrap_or_else(|| panic!("{name} is not in the index of {version}"));
            let fake = Fake::gpu_node("gpu001", version);
            arrange(&fake, state);
            let args: Vec<_> =
                row[1].strip_prefix("dcgmi ").unwrap().split(' ').chain(more.split_whitespace()).collect();
            let done = fake.call("dcgmi", &args);
            assert_eq!(done.code.to_string(), row[2], "{version} {name}: {done}");
            let captured = |suffix: &str| read(dir.join(format!("{name}.{suffix}")));
            assert_eq!(done.out, captured("out"), "{version} {name}");
            assert_eq!(done.err, captured("err"), "{version} {name}, standard error");
            assert_eq!(fake.unexpected(), "", "{version} {name}");
            compared += 1;
        }
    }
    assert_eq!(compared, 84);
}

#[test]
fn an_argv_they_were_not_taught_is_loud_and_recorded() {
    let fake = Fake::gpu_node("gpu002", "4.6.0");
    let wrong: &[(&str, &[&str])] = &[
        ("dcgmi", &["health", "-g", "1", "-c", "-j"]),
        ("dcgmi", &["diag", "-r", "5", "-j"]),
        ("dcgmi", &["diag", "-r", "1"]),
        ("dcgmi", &["dmon", "-e", "230;311", "-c", "1"]),
        ("dcgmi", &["dmon", "-e", "4711", "-c", "1"]),
        ("dcgmi", &[]),
        ("nvidia-smi", &["--gpu-reset"]),
        ("nvidia-smi", &["--gpu-reset", "-i", "2"]),
        ("nvidia-smi", &["--gpu-reset", "-i", "all"]),
        ("nvidia-smi", &["--gpu-reset", "-i", BUS, "-i", "00000000:1B:00.0"]),
        ("nvidia-smi", &["--query-gpu=index,nonsense", "--format=csv,noheader,nounits"]),
        ("nvidia-smi", &["--query-gpu=index"]),
        ("systemctl", &["restart", "sshd"]),
        ("systemctl", &["restart", "nvidia-dcgm", "dcgm-exporter"]),
    ];
    for (tool, args) in wrong {
        let done = fake.call(tool, args);
        assert!(done.code == 64 && done.err.contains("UNEXPECTED"), "{done}");
    }
    assert_eq!(fake.unexpected().lines().count(), wrong.len());
    assert_eq!(fake.calls().len(), wrong.len());
    assert_eq!(fake.resets(), 0);
}

#[test]
fn only_a_gpu_that_nothing_holds_is_reset_and_only_then_cured() {
    let fake = Fake::gpu_node("gpu002", "4.6.0");
    fake.set(&["fault", "ecc-dbe", "2"]);
    let reset = || fake.call("nvidia-smi", &["--gpu-reset", "-i", BUS]);
    let dmon = || fake.call("dcgmi", &["dmon", "-e", "230,311,313,393,396,1523", "-i", "2", "-c", "1"]).ok();
    let values = |text: &str| {
        text.lines().last().unwrap().split_whitespace().skip(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(values(&dmon()), ["63", "2", "2", "1", "1", "1"]);

    // the host engine holds the driver
    let held = reset();
    assert!(held.code == 255 && held.out.contains("In use by another client"), "{held}");
    fake.call("dcgmi", &["set", "--detach-driver"]).ok();
    // a process holds the GPU
    fake.set(&["holder", "2", "41822", "/usr/bin/python3"]);
    let apps =
        ["--query-compute-apps=gpu_uuid,pid,process_name,used_gpu_memory", "--format=csv,noheader,nounits"];
    let listed = fake.call("nvidia-smi", &apps).ok();
    assert_eq!(listed, "GPU-5f0c1c7a-0b1e-4f0e-9c55-0a3d1e5b2002, 41822, /usr/bin/python3, 40212\n");
    assert_eq!(reset().code, 255);
    fake.set(&["holder", "2"]);
    // one that nvidia-smi does not list; its open file tells
    fake.set(&["hidden-holder", "2", "777", "/usr/bin/nvidia-cuda-mps-server"]);
    assert_eq!(fake.call("nvidia-smi", &apps).ok(), "");
    assert_eq!(fs::read_link(fake.path().join("proc/777/fd/3")).unwrap().to_str(), Some("/dev/nvidia2"));
    assert_eq!(reset().code, 255);
    fake.set(&["holder", "2"]);
    assert!(!fake.path().join("proc/777").exists());
    // an exporter with an engine of its own holds it
    fake.put("exporter/mode", "embedded");
    assert_eq!(reset().code, 255);
    fake.call("systemctl", &["stop", "dcgm-exporter"]).ok();
    assert_eq!(fake.resets(), 0);

    assert_eq!(reset().ok(), format!("GPU {BUS} was successfully reset.\n"));
    assert_eq!(fake.resets(), 1);
    fake.call("dcgmi", &["set", "--attach-driver"]).ok();
    // volatile counts are gone; the board's history stays, and so does the engine's memory of the XID
    assert_eq!(values(&dmon()), ["63", "0", "2", "1", "0", "0"]);
    fake.call("systemctl", &["restart", "nvidia-dcgm"]).ok();
    assert!(fake.call("dmesg", &[]).ok().contains("NVRM: Xid (PCI:0000:52:00): 63,"));
    assert_eq!(values(&dmon()), ["N/A", "0", "2", "1", "0", "0"]);
    assert_eq!(fake.call("dcgmi", HEALTH).code, 253, "a restarted engine has no watches");
    fake.call("dcgmi", &["health", "-g", "0", "-s", "a"]).ok();
    assert!(fake.call("dcgmi", HEALTH).ok().contains("\"value\" : \"Healthy\""));
    assert!(fake.call("dcgmi", DIAG).ok().contains("Pass"));
    assert_eq!(fake.unexpected(), "");
}

#[test]
fn a_fault_can_outlive_the_reset() {
    let fake = Fake::gpu_node("gpu002", "3.3.9");
    fake.set(&["fault", "ecc-dbe", "2"]);
    fake.set(&["after-reset", "2", "stays"]);
    assert_eq!(fake.call("dcgmi", &["set", "--detach-driver"]).code, 1, "3.3.9 cannot detach");
    fake.call("systemctl", &["stop", "nvidia-dcgm"]).ok();
    fake.call("nvidia-smi", &["--gpu-reset", "-i", BUS]).ok();
    fake.call("systemctl", &["start", "nvidia-dcgm"]).ok();
    fake.call("dcgmi", &["health", "-g", "0", "-s", "a"]).ok();
    assert!(
        fake.call("dcgmi", HEALTH).ok().contains("Detected 2 volatile double-bit ECC error(s) in GPU 2.")
    );
    assert_eq!(fake.resets(), 1);
}

#[test]
fn a_gpu_off_the_bus_answers_nothing_and_keeps_the_engine_from_starting() {
    let fake = Fake::gpu_node("gpu002", "4.6.0");
    fake.set(&["fault", "xid79", "3"]);
    let query = ["--query-gpu=index,uuid", "--format=csv,noheader,nounits"];
    let done = fake.call("nvidia-smi", &query);
    assert!(done.code == 15 && done.out.contains("GPU is lost"), "{done}");
    fake.call("dcgmi", &["set", "--detach-driver"]).ok();
    let done = fake.call("nvidia-smi", &["--gpu-reset", "-i", "00000000:61:00.0"]);
    assert!(done.code == 15 && done.out.contains("GPU is lost"), "{done}");
    fake.call("systemctl", &["restart", "nvidia-dcgm"]).ok();
    assert_eq!(fake.call("dcgmi", &["discovery", "-l"]).code, 235);
    assert_eq!(fake.resets(), 0);
}

#[test]
fn a_restarted_engine_takes_its_exporter_down() {
    let fake = Fake::gpu_node("gpu002", "4.6.0");
    let active = |unit: &str| fake.call("systemctl", &["is-active", unit]).code;
    assert_eq!((active("nvidia-dcgm"), active("dcgm-exporter")), (0, 0));
    fake.call("systemctl", &["restart", "nvidia-dcgm"]).ok();
    assert_eq!((active("nvidia-dcgm"), active("dcgm-exporter")), (0, 3));
    fake.call("systemctl", &["restart", "dcgm-exporter.service"]).ok();
    assert_eq!(active("dcgm-exporter"), 0);
}

#[test]
fn the_script_breaks_exactly_the_calls_it_names() {
    let fake = Fake::gpu_node("gpu002", "4.6.0");
    fake.rule("dcgmi", "-v", "@2", "exit 253 boom");
    fake.rule("dcgmi", "health*", "2", "empty");
    let version = || fake.call("dcgmi", &["-v"]);
    assert!(version().ok().contains("Version : 4.6.0"));
    let second = version();
    assert!(second.code == 253 && second.err == "boom\n" && second.out.is_empty(), "{second}");
    assert!(version().ok().contains("Version : 4.6.0"));
    for expected in ["", "", "Health monitor systems set successfully.\n"] {
        assert_eq!(fake.call("dcgmi", &["health", "-g", "0", "-s", "a"]).ok(), expected);
    }
    fake.rule("nvidia-smi", "-L", "*", "garbage");
    for _ in 0..2 {
        assert!(fake.call("nvidia-smi", &["-L"]).ok().contains("%%%%"));
    }
}

#[test]
fn a_hanging_tool_hangs_until_it_is_killed_and_leaves_no_child() {
    let fake = Fake::gpu_node("gpu002", "4.6.0");
    fake.rule("dcgmi", "-v", "1", "hang");
    fake.rule("dcgmi", "-v", "1", "hang-hard");
    fake.rule("dcgmi", "-v", "1", "slow 0.3");
    for _ in 0..2 {
        let done = fake.call_for("dcgmi", &["-v"], Duration::from_millis(400));
        assert!(done.timed_out && done.out.is_empty(), "{done}");
    }
    let started = Instant::now();
    fake.call("dcgmi", &["-v"]).ok();
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_call_outlives_the_crash_of_its_caller_and_can_be_held_at_any_point() {
    let fake = Fake::gpu_node("gpu002", "4.6.0");
    fake.call("dcgmi", &["set", "--detach-driver"]).ok();
    fake.rule("nvidia-smi", "--gpu-reset *", "1", "barrier before");
    fake.rule("nvidia-smi", "--gpu-reset *", "1", "then-barrier after");
    for (barrier, resets_at_barrier, resets_in_the_end) in [("before", 0, 1), ("after", 2, 2)] {
        // a shell stands for the engine: it waits for the tool and is killed meanwhile
        let line = format!("{} --gpu-reset -i {BUS}; exit 0", fake.tool("nvidia-smi").display());
        let mut caller = Running::start(Command::new("/bin/sh").args(["-c", &line]));
        fake.await_barrier(barrier);
        assert_eq!(fake.resets(), resets_at_barrier, "{barrier}");
        caller.crash();
        fake.open_barrier(barrier);
        eventually("the reset", Duration::from_secs(10), || {
            if fake.resets() == resets_in_the_end { Ok(()) } else { Err(format!("{} resets", fake.resets())) }
        });
        assert_eq!(caller.finish(Duration::from_secs(10)).code, 137);
    }
    assert_eq!(fake.unexpected(), "");
}

#[test]
fn the_composed_nvidia_smi_texts_are_the_fixtures() {
    let fake = Fake::gpu_node("gpu001", "4.6.0");
    fake.set(&["fault", "ecc-dbe", "2"]);
    fake.set(&["holder", "2", "41822", "/usr/bin/python3"]);
    let composed = root().join("fixtures/nvidia-smi/550.163.01/composed");
    let rows = "--query-remapped-rows=gpu_bus_id,gpu_uuid,remapped_rows.correctable,remapped_rows.uncorrectable,\
                remapped_rows.pending,remapped_rows.failure";
    let status = "--query-gpu=index,uuid,pci.bus_id,name,driver_version,persistence_mode,mig.mode.current,\
                  ecc.errors.uncorrected.volatile.total,reset_status.reset_required,\
                  reset_status.drain_and_reset_recommended,temperature.gpu,power.draw";
    let apps = "--query-compute-apps=gpu_uuid,pid,process_name,used_gpu_memory";
    for (file, query) in [
        ("query-remapped-rows.csv", rows),
        ("query-gpu-reset-status.csv", status),
        ("query-compute-apps.csv", apps),
    ] {
        let answer = fake.call("nvidia-smi", &[query, "--format=csv"]).ok();
        let fixture = read(composed.join(file));
        assert!(!fixture.is_empty(), "{file} is missing");
        for line in fixture.lines() {
            assert!(answer.lines().any(|l| l == line), "{file}: no line {line:?} in\n{answer}");
        }
    }
}
