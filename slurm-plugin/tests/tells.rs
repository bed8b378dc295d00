//! What is told, how often, and what people see by hand.

use crate::support::{FakeEngine, NODE, Site};

const XID: &str = "[ 4242.1] NVRM: Xid (PCI:0000:1b:00): 48, pid='<unknown>', name=<unknown>, DBE";

#[test]
fn a_healthy_node_is_quiet_and_nothing_is_written() {
    let site = Site::new("check mount path=/\ncheck space path=/ free=0% inodes=0%\n");
    let done = site.health();
    assert_eq!((done.code, &*done.out, &*done.err), (0, "", ""));
    let left: Vec<_> =
        std::fs::read_dir(site.path("state")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
}

#[test]
fn an_xid_is_told_once_with_node_and_gpu() {
    let site = Site::new("check xid log=DIR/kern.log\n");
    site.log("[ 0.0] Linux version 6.1.0");
    assert_eq!(site.health().err, "");
    site.log(XID);
    let done = site.health();
    assert_eq!(done.code, 0);
    assert!(done.err.contains("gpu-ecc-uncorrectable on GPU 00000000:1B:00.0"), "{done:?}");
    let alerts = site.spooled();
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!(alerts[0].node.as_str(), NODE);
    assert_eq!(alerts[0].fault, "gpu-ecc-uncorrectable");
    assert_eq!(alerts[0].gpu.as_deref(), Some("00000000:1B:00.0"));
    assert!(alerts[0].firing && alerts[0].summary.contains("xid 48"), "{alerts:?}");
    assert_eq!((site.health().err.as_str(), site.spooled().len()), ("", 1));
}

#[test]
fn a_verdict_is_told_once_and_once_when_it_is_over() {
    let site = Site::new("engine = unix:DIR/engine\ncheck gpus expect=2 dev=DIR/dev proc=DIR/proc\n");
    let engine = FakeEngine::listen(&site.path("engine"), 200);
    std::fs::create_dir(site.path("dev")).unwrap();
    std::fs::write(site.path("dev/nvidia0"), "").unwrap();
    for _ in 0..3 {
        assert_eq!(site.health().code, 0);
    }
    let alerts = engine.alerts();
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert!(alerts[0].firing && alerts[0].fault == "gpu-count-mismatch");
    std::fs::write(site.path("dev/nvidia1"), "").unwrap();
    site.health();
    site.health();
    let alerts = engine.alerts();
    assert_eq!(alerts.len(), 2, "{alerts:?}");
    assert!(!alerts[1].firing && alerts[1].fingerprint == alerts[0].fingerprint);
}

#[test]
fn mistakes_are_listed_with_their_lines_and_told_as_a_fault_of_the_tool() {
    let site = Site::new("deadline = soon\ncheck moon\n");
    let done = site.by_hand(&["--check-config"]);
    assert_eq!(done.code, 2);
    assert!(done.err.contains("hook.conf:3: deadline = soon is no time"), "{}", done.err);
    assert!(done.err.contains("hook.conf:4: there is no check \"moon\""), "{}", done.err);
    let done = site.health();
    assert_eq!(done.code, 0);
    assert!(done.err.contains("hook.conf:3") && done.err.contains("1 more"), "{}", done.err);
    assert_eq!(site.faults(), ["hook-check-failed"]);
    // said at every start, told once
    assert!(site.health().err.contains("hook.conf:3"));
    assert_eq!(site.faults(), ["hook-check-failed"]);
    site.configure("check mount path=/\n");
    assert_eq!(site.health().code, 0);
    assert!(!site.spooled()[1].firing, "the mistake is over");
}

#[test]
fn a_dry_run_shows_every_check_and_tells_nobody() {
    let site = Site::new("check mount path=/\ncheck xid log=DIR/kern.log\ncheck xid log=DIR/absent\n");
    site.log(XID);
    let done = site.by_hand(&["--dry-run"]);
    assert_eq!(done.code, 3, "{done:?}");
    let lines: Vec<&str> = done.out.lines().collect();
    assert!(lines[0].starts_with("mount:/ ") && lines[0].contains(" ok "), "{}", done.out);
    assert!(lines[1].contains(" found ") && lines[1].contains("xid 48"), "{}", done.out);
    assert!(lines[2].contains(" FAILED "), "{}", done.out);
    assert!(done.out.contains("gpu003, as health: 3 checks in"), "{}", done.out);
    assert!(!site.path("state").exists(), "it keeps nothing");
}

#[test]
fn help_fits_a_terminal() {
    let site = Site::new("");
    let done = site.by_hand(&["--help"]);
    assert!(done.code == 0 && done.out.contains("--dry-run"));
    for line in done.out.lines().chain(site.by_hand(&["--example"]).out.lines()) {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn the_example_of_the_program_is_a_configuration_that_works() {
    let site = Site::new("");
    std::fs::write(site.path("hook.conf"), site.by_hand(&["--example"]).out).unwrap();
    let done = site.by_hand(&["--check-config"]);
    assert_eq!(done.code, 0, "{}", done.err);
}

#[test]
fn a_mistake_in_the_configuration_does_not_tell_old_lines_again() {
    let lines = "check xid log=DIR/kern.log\n";
    let site = Site::new(lines);
    site.log(XID);
    site.health();
    site.configure("check moon\n");
    site.health();
    site.configure(lines);
    site.health();
    let told: Vec<_> = site.spooled().into_iter().filter(|a| a.fault == "gpu-ecc-uncorrectable").collect();
    assert_eq!(told.len(), 1, "{told:?}");
}
