//! `slurmedic journal` on files: what is not there, what is there, and copies. Needs no Slurm.

use std::path::Path;
use std::process::{Command, Output};

fn slurmedic(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_slurmedic"))
        .args(args)
        .current_dir(dir)
        .env_clear()
        .env("HOME", dir)
        .env("XDG_STATE_HOME", dir.join("state"))
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_journal_that_is_not_there_is_a_usage_error_and_stays_away() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["journal", "verify", "--journal", "no.db", "--cluster", "simulated"][..],
        &["journal", "verify", "--journal", "no.db"],
        &["journal", "backup", "copy.db", "--journal", "no.db"],
        &["runs", "--journal", "no.db", "--cluster", "simulated"],
    ] {
        let done = slurmedic(dir.path(), args);
        let err = text(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{args:?}: {err}");
        assert!(err.contains("there is no journal at no.db") && err.contains("hint:"), "{args:?}: {err}");
    }
    let done = slurmedic(dir.path(), &["journal", "verify", "--cluster", "simulated"]);
    assert_eq!(done.status.code(), Some(2));
    assert!(text(&done.stderr).contains("in memory"), "{}", text(&done.stderr));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "looking makes nothing");
}

#[test]
fn a_backup_is_whole_and_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let run = [
        "run",
        "dcgm-ecc-drain-reset",
        "--node",
        "gpu002",
        "--cluster",
        "simulated",
        "--journal",
        "j.db",
        "--yes",
        "--approved-by",
        "ana",
    ];
    let done = slurmedic(dir.path(), &run);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let verified = slurmedic(dir.path(), &["journal", "verify", "--journal", "j.db"]);
    assert_eq!(verified.status.code(), Some(0));
    let head = text(&verified.stdout).lines().last().unwrap().to_owned();
    assert!(head.starts_with("  head sha256 "), "{head}");
    let backup = ["journal", "backup", "copy.db", "--journal", "j.db"];
    let done = slurmedic(dir.path(), &backup);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(text(&done.stdout).starts_with("copy.db is a whole copy\n"), "{}", text(&done.stdout));
    assert!(text(&done.stdout).contains(&head));
    let copied = slurmedic(dir.path(), &["journal", "verify", "--journal", "copy.db"]);
    assert_eq!(text(&copied.stdout), text(&verified.stdout));
    let done = slurmedic(dir.path(), &backup);
    assert_eq!(done.status.code(), Some(2));
    assert!(text(&done.stderr).contains("overwrites nothing"), "{}", text(&done.stderr));
}
