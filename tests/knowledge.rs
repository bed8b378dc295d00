//! `slurmedic xid`, `reason`, `knowledge` and `decide` as their user meets them: eighty columns, both forms of output, a
//! site's file that counts, one that is refused.

use crate::support::cmd::{Done, run};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SITE: &str = "format: slurmedic/knowledge-site/1\nsource: GPU operations\ndate: 2026-11-20\nxids:\n- { code: 92, playbook: human, drain: person, why: our boards wear out }\n";

/// Calls the command without any configuration of the machine.
fn slurmedic(dir: &Path, args: &[&str]) -> Done {
    let mut c = Command::new(env!("CARGO_BIN_EXE_slurmedic"));
    c.args(args).current_dir(dir).env_clear().env("HOME", dir).env("NO_COLOR", "1");
    run(&mut c, Duration::from_secs(30))
}

fn json(done: Done) -> serde_json::Value {
    serde_json::from_str(&done.out).unwrap_or_else(|e| panic!("{e}: {done}"))
}

#[test]
fn what_is_looked_up_fits_the_terminal_and_names_its_source() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["xid"][..],
        &["xid", "94"],
        &["xid", "149", "--gpu", "B200", "--driver", "575.57"],
        &["reason", "Kill task failed : Not responding"],
        &["knowledge", "list", "faults"],
        &["knowledge", "list", "sources"],
        &["knowledge", "list", "playbooks"],
    ] {
        let shown = slurmedic(dir.path(), args).ok();
        assert!(shown.lines().count() >= 5, "{args:?}: {shown}");
        assert!(shown.lines().all(|l| l.chars().count() <= 80), "{args:?}: {shown}");
    }
    let known = slurmedic(dir.path(), &["xid", "94"]).ok();
    assert!(known.contains("gpu-ecc-watch") && known.contains("read 2026-11-21") && known.contains("never"));
    let unknown = json(slurmedic(dir.path(), &["xid", "999", "--format", "json"]));
    assert_eq!(
        (&unknown["format"], &unknown["decision"]["verdict"]),
        (&"slurmedic/xid/1".into(), &"person".into())
    );
    let all = json(slurmedic(dir.path(), &["xid", "--format", "json"]));
    let all = all["xids"].as_array().unwrap();
    assert_eq!(all.len(), 173);
    assert!(all.iter().all(|x| !x["sources"].as_array().unwrap().is_empty()));
    let wrong = slurmedic(dir.path(), &["xid", "94", "--driver", "new"]);
    assert!(wrong.code == 2 && wrong.err.contains("--driver 570"), "{wrong}");
    let reason = json(slurmedic(dir.path(), &["reason", "bad dimm", "--format", "json"]));
    assert_eq!(reason["decision"]["verdict"], "person");
}

#[test]
fn a_sites_file_is_checked_counts_and_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("site.yaml"), SITE).unwrap();
    fs::write(dir.path().join("slurmedic.toml"), "[knowledge]\nsite = \"site.yaml\"\n").unwrap();
    let checked = slurmedic(dir.path(), &["knowledge", "check", "site.yaml"]);
    assert!(checked.code == 0 && checked.err.contains("1 file: 0 errors, 0 warnings"), "{checked}");
    let shown = slurmedic(dir.path(), &["--config", "slurmedic.toml", "xid", "92"]).ok();
    assert!(shown.contains("a person decides") && shown.contains("GPU operations"), "{shown}");
    assert!(shown.contains("gpu-ecc-watch -> human") && shown.contains("our boards wear out"), "{shown}");
    fs::write(dir.path().join("site.yaml"), SITE.replace("playbook: human", "playbook: humn")).unwrap();
    let refused = slurmedic(dir.path(), &["--config", "slurmedic.toml", "xid", "92"]);
    assert!(refused.code == 2 && refused.err.contains("knowledge check"), "{refused}");
    let told = slurmedic(dir.path(), &["--config", "slurmedic.toml", "knowledge", "check"]);
    assert!(told.code == 3 && told.out.contains("KN0004") && told.out.contains("site.yaml:5"), "{told}");
    let json = json(slurmedic(dir.path(), &["knowledge", "check", "site.yaml", "--format", "json"]));
    assert_eq!(json["files"][0]["diagnostics"][0]["code"], "KN0004");
}

#[test]
fn decisions_are_an_array_with_exactly_these_keys() {
    let dir = tempfile::tempdir().unwrap();
    let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/engine/playbook/tests/all/situations.yaml");
    let all = json(slurmedic(dir.path(), &["decide", "--situation", cases, "--format", "json"]));
    let all = all.as_array().unwrap();
    assert!(all.len() > 150);
    for d in all {
        let keys: BTreeSet<&str> = d.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            BTreeSet::from(["id", "playbook", "outcome", "reason_code", "approval", "actions", "why"])
        );
    }
    fs::write(dir.path().join("one.yaml"), "id: a\nalerts: [{ name: GpuXid, node: gpu010, xid: 13 }]\n")
        .unwrap();
    let one = json(slurmedic(dir.path(), &["decide", "--situation", "one.yaml", "--format", "json"]));
    assert_eq!((&one[0]["playbook"], &one[0]["outcome"]), (&"xid-app-annotate".into(), &"run".into()));
    let shown = slurmedic(dir.path(), &["decide", "--situation", cases]).ok();
    assert!(shown.lines().all(|l| l.chars().count() <= 80), "{shown}");
    let missing = slurmedic(dir.path(), &["decide", "--situation", "none.yaml"]);
    assert_eq!(missing.code, 2, "{missing}");
}
