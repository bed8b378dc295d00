//! Whatever hangs: the start ends, the culprit is named, and what comes behind it is still looked at.

use crate::support::{Site, lives};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::time::Duration;

/// A pipe that nobody writes to: opening it waits forever, as reading a file on a dead server does.
fn fifo(site: &Site, name: &str) {
    let made = Command::new("mkfifo").arg(site.path(name)).status().unwrap();
    assert!(made.success());
}

#[test]
fn a_file_that_does_not_answer_is_named_and_the_rest_is_checked() {
    let site =
        Site::new("check mount path=/ read=DIR/pipe deadline=200ms\ncheck gpus expect=1 dev=DIR proc=DIR\n");
    fifo(&site, "pipe");
    let done = site.health();
    assert_eq!(done.code, 0);
    assert!(done.took < Duration::from_secs(3), "{done:?}");
    assert!(done.err.contains("mount-hang: / (") && done.err.contains("does not answer"), "{done:?}");
    assert_eq!(site.faults(), ["mount-hang", "gpu-count-mismatch"]);
    assert!(!lives(&site.path("pipe").display().to_string()), "the worker was left behind");
}

/// A file system in the kernel whose other side never answers: the real thing, with FUSE.
#[test]
fn a_dead_file_system_is_named_and_nobody_waits_for_it() {
    let site =
        Site::new("check mount path=DIR/dead deadline=300ms\ncheck space path=DIR/dead deadline=300ms\n");
    let dead = site.path("dead");
    std::fs::create_dir(&dead).unwrap();
    if !nix::unistd::Uid::effective().is_root() {
        // Only root may mount; without it the pipe stands for the dead server.
        fifo(&site, "pipe");
        site.configure("check mount path=/ read=DIR/pipe deadline=300ms\n");
        assert_eq!((site.health().code, site.faults()), (0, vec!["mount-hang".to_owned()]));
        return;
    }
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    mount(Some("dead"), &dead, Some("fuse"), MsFlags::empty(), Some(options.as_str())).unwrap();
    let done = site.health();
    let again = site.health();
    umount2(&dead, MntFlags::MNT_DETACH | MntFlags::MNT_FORCE).unwrap();
    assert_eq!((done.code, again.code), (0, 0));
    assert!(done.took < Duration::from_secs(4) && again.took < Duration::from_secs(4), "{done:?} {again:?}");
    assert!(done.err.contains("dead (fuse) does not answer"), "{done:?}");
    let faults = site.faults();
    assert!(!faults.is_empty() && faults.iter().all(|f| f == "mount-hang"), "{faults:?}");
}

#[test]
fn a_hung_nvidia_smi_is_a_fault_of_the_tool() {
    let site = Site::new("check throttle nvidia_smi=DIR/nvidia-smi deadline=300ms\ncheck mount path=/\n");
    let mark = format!("30{:07}", std::process::id());
    site.script("nvidia-smi", &format!("exec sleep {mark}"));
    let done = site.health();
    assert_eq!(done.code, 0);
    assert!(done.took < Duration::from_secs(3), "{done:?}");
    assert!(done.err.contains("check throttle: nvidia-smi does not answer"), "{done:?}");
    assert_eq!(site.faults(), ["hook-check-failed"]);
    assert!(!lives(&mark), "it was left running");
}

#[test]
fn an_nvidia_smi_that_is_missing_or_fails_is_a_fault_of_the_tool() {
    let site = Site::new("check throttle nvidia_smi=DIR/absent\n");
    assert_eq!((site.health().code, site.faults()), (0, vec!["hook-check-failed".to_owned()]));
    site.script("nvidia-smi", "echo 'No devices were found'; exit 6");
    site.configure("check throttle nvidia_smi=DIR/nvidia-smi label=other\n");
    let done = site.health();
    assert!(done.err.contains("exit code 6: No devices were found"), "{done:?}");
}

#[test]
fn an_exporter_that_says_nothing_is_a_fault_of_the_exporter() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let site = Site::new(&format!("check exporter address={address} deadline=300ms\n"));
    let done = site.health();
    assert!(done.code == 0 && done.took < Duration::from_secs(3), "{done:?}");
    assert!(done.err.contains("does not answer in time"), "{done:?}");
    assert_eq!(site.faults(), ["dcgm-exporter-down"]);
    drop(listener);
    let site = Site::new(&format!("check exporter address={address}\n"));
    assert!(site.health().err.contains("refuses the connection"));
}

#[test]
fn many_hung_checks_end_with_the_deadline_of_all() {
    let mut lines = "deadline = 700ms\ncheck_deadline = 300ms\n".to_owned();
    for i in 0..8 {
        lines += &format!("check mount path=/ read=DIR/pipe label=m{i}\n");
    }
    let site = Site::new(&lines);
    fifo(&site, "pipe");
    let done = site.health();
    assert!(done.code == 0 && done.took < Duration::from_secs(3), "{done:?}");
    let faults = site.faults();
    assert!(faults.contains(&"mount-hang".to_owned()), "{faults:?}");
    assert!(faults.contains(&"hook-check-failed".to_owned()), "those without a turn are named: {faults:?}");
}

#[test]
fn a_kernel_log_that_never_ends_is_read_in_parts() {
    let site = Site::new("check xid log=DIR/kern.log deadline=1s\n");
    let flood = "[ 1.0] NVRM: Xid (PCI:0000:1b:00): 48, DBE\n".repeat(250_000);
    std::fs::write(site.path("kern.log"), flood).unwrap();
    for _ in 0..3 {
        let done = site.health();
        assert!(done.code == 0 && done.took < Duration::from_secs(5), "{done:?}");
    }
    assert_eq!(site.faults(), ["gpu-ecc-uncorrectable"; 3], "one alert for each part");
}
