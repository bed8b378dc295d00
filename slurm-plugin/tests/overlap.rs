//! Twelve starts at once: slurmd has no guard against it.

use crate::support::{Site, finish};
use std::time::Duration;

#[test]
fn of_twelve_starts_one_works_and_the_others_leave_at_once() {
    // Each that works waits 1 s for the pipe, so that all of the others meet its lock.
    let site = Site::new("check mount path=/ read=DIR/pipe deadline=1s\n");
    let made = std::process::Command::new("mkfifo").arg(site.path("pipe")).status().unwrap();
    assert!(made.success());
    let all: Vec<_> = (0..12).map(|_| site.command(&[]).spawn().unwrap()).collect();
    let done: Vec<_> = all.into_iter().map(finish).collect();
    assert!(done.iter().all(|d| d.code == 0), "{done:?}");
    let told = done.iter().filter(|d| d.err.contains("mount-hang")).count();
    assert_eq!(told, 1, "{done:?}");
    assert_eq!(site.faults(), ["mount-hang"]);
}

#[test]
fn a_prolog_beside_a_look_goes_by_the_verdict_on_file() {
    let lines = "prolog_fail = gpu-count-mismatch\ncheck gpus expect=8 dev=DIR proc=DIR\n";
    let site = Site::new(lines);
    assert_eq!(site.health().code, 0);
    let made = std::process::Command::new("mkfifo").arg(site.path("pipe")).status().unwrap();
    assert!(made.success());
    site.configure(&format!("{lines}check mount path=/ read=DIR/pipe deadline=2s\n"));
    let slow = site.command(&[]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(400));
    let prolog = site.prolog();
    assert!(prolog.code == 1 && prolog.took < Duration::from_secs(1), "{prolog:?}");
    assert_eq!(finish(slow).code, 0);
}

/// A worker that is not collected is one more orphan with each look where the first process is no real init.
#[test]
fn a_look_leaves_no_process_behind() {
    // Orphans become ours, and nobody here collects them.
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let site = Site::new("check mount path=/\n");
    for _ in 0..5 {
        assert_eq!(site.health().code, 0);
    }
    let me = std::process::id().to_string();
    let orphans: Vec<String> = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| std::fs::read_to_string(e.path().join("stat")).ok())
        // A worker is started as /proc/self/exe, which is its name.
        .filter(|stat| stat.contains(" (exe) Z ") && stat.split(' ').nth(3) == Some(&me))
        .collect();
    assert_eq!(orphans, Vec::<String>::new());
}
