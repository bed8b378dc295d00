//! The playbook checker as its user meets it: `lint` shows the way on which a playbook goes wrong, and no verb that
//! runs playbooks takes it.

use crate::support::cmd::{Done, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn slurmedic(dir: &Path, args: &[&str]) -> Done {
    let mut c = Command::new(env!("CARGO_BIN_EXE_slurmedic"));
    c.args(args).current_dir(dir).env_clear().env("HOME", dir).env("NO_COLOR", "1");
    run(&mut c, Duration::from_secs(60))
}

/// The shipped playbook under another id, with one piece replaced, in a site's library.
fn site(dir: &Path, from: &str, to: &str) -> PathBuf {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("playbooks/dcgm-ecc-drain-reset/1.3.0.yaml");
    let text = fs::read_to_string(shipped).unwrap();
    assert!(text.contains(from), "{from:?} is not in the shipped playbook");
    let text = text.replace("playbook: dcgm-ecc-drain-reset", "playbook: ours").replace(from, to);
    let folder = dir.join("books/ours");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("1.3.0.yaml"), text).unwrap();
    fs::write(dir.join("site.toml"), "[playbooks]\ndir = \"books\"\n").unwrap();
    PathBuf::from("books/ours/1.3.0.yaml")
}

const GUARD: &str = "when: active_jobs == 0 and suspended_jobs == 0";

#[test]
fn lint_shows_the_way_on_which_a_playbook_goes_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let file = site(dir.path(), GUARD, "when: node.state == IDLE");
    let done = slurmedic(dir.path(), &["lint", file.to_str().unwrap()]);
    assert_eq!(done.code, 3, "{done}");
    let line = fs::read_to_string(dir.path().join(&file)).unwrap();
    let line = 1 + line.lines().position(|l| l.contains("dcgm.reset_gpu:")).unwrap();
    for part in [
        "PB0082",
        &format!("books/ours/1.3.0.yaml:{line}:5"),
        "step 4 (dcgm.reset_gpu) is never done",
        "   1  engine  asks one person\n   2  person  ada approves the plan\n",
        "   8  engine  cannot begin step 4 (dcgm.reset_gpu): its `when` never holds here\n",
    ] {
        assert!(done.out.contains(part), "{part:?}: {done}");
    }
    assert!(done.err.contains("1 file: 1 error, 0 warnings"), "{done}");

    let form = slurmedic(dir.path(), &["lint", file.to_str().unwrap(), "--format", "json"]);
    let form: serde_json::Value = serde_json::from_str(&form.out).unwrap();
    let checked = &form["files"][0]["checked"];
    assert_eq!((&checked["holds"], checked["trace"].as_array().unwrap().len()), (&false.into(), 8));
    assert_eq!(form["files"][0]["diagnostics"][0]["code"], "PB0082");
}

#[test]
fn lint_says_what_was_played_of_a_playbook_that_holds() {
    let dir = tempfile::tempdir().unwrap();
    let done = slurmedic(dir.path(), &["lint", "--details"]);
    assert_eq!(done.code, 0, "{done}");
    for line in done.err.lines() {
        assert!(line.chars().count() <= 80, "too wide: {line}");
    }
    assert!(done.err.contains("ends: succeeded, rejected, cancelled, rolled back, held, handed over, stuck"));
    let form = slurmedic(dir.path(), &["lint", "--format", "json"]);
    let form: serde_json::Value = serde_json::from_str(&form.out).unwrap();
    let files = form["files"].as_array().unwrap().len();
    assert!(files >= 2);
    assert_eq!(done.err.matches("situations, every way ends, no rule broken").count(), files, "{done}");
    for file in form["files"].as_array().unwrap() {
        let checked = &file["checked"];
        assert_eq!(checked["holds"], true);
        assert!(checked["situations"].as_u64() > Some(1_000) && checked["crashes"] == checked["situations"]);
    }
}

#[test]
fn no_verb_that_runs_playbooks_takes_one_that_the_checker_refuses() {
    let dir = tempfile::tempdir().unwrap();
    site(dir.path(), GUARD, "when: node.state == IDLE");
    let simulated = ["--config", "site.toml", "--cluster", "simulated"];
    for verb in [&["plan"][..], &["run", "--yes", "--approved-by", "ada"]] {
        let args = [&simulated[..], verb, &["ours", "--node", "gpu002"]].concat();
        let done = slurmedic(dir.path(), &args);
        assert_eq!(done.code, 2, "{done}");
        for part in ["ours@1.3.0", "refused by the checker", "step 4", "slurmedic lint books/ours/1.3.0.yaml"]
        {
            assert!(done.err.contains(part), "{part}: {done}");
        }
    }
    site(dir.path(), GUARD, "when: active_jobs == 0");
    let done = slurmedic(dir.path(), &[&simulated[..], &["plan", "ours", "--node", "gpu002"]].concat());
    assert_eq!(done.code, 0, "{done}");
}
