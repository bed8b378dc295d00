//! `slurmedic policy` as its user meets it: exit codes, both forms of output, eighty columns, a policy that is refused.

use crate::support::cmd::{Done, run};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

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
fn what_show_prints_is_a_policy_and_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let shown = slurmedic(dir.path(), &["policy", "show"]).ok();
    assert!(shown.lines().all(|l| l.chars().count() <= 80), "{shown}");
    fs::write(dir.path().join("site.yaml"), &shown).unwrap();
    let same = slurmedic(dir.path(), &["policy", "diff", "default", "site.yaml"]);
    assert!(same.code == 0 && same.out.is_empty(), "{same}");
    let checked = slurmedic(dir.path(), &["policy", "check", "site.yaml"]);
    assert!(checked.code == 0 && checked.err.contains("1 policy: 0 errors, 0 warnings"), "{checked}");
    let a = json(slurmedic(dir.path(), &["policy", "show", "--format", "json"]));
    let b = json(slurmedic(dir.path(), &["policy", "show", "site.yaml", "--format", "json"]));
    assert_eq!(a["format"], "slurmedic/policy/1");
    assert_eq!((&a["digest"], &a["policy"]), (&b["digest"], &b["policy"]));
    assert_eq!(a["policy"]["budgets"]["fleet"], "2%");
    assert!(checked.out.contains(a["digest"].as_str().unwrap()));
}

#[test]
fn a_difference_is_named_key_by_key_and_is_exit_code_three() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), "budgets: { fleet: 4, partitions: { debug: 50% } }\n").unwrap();
    let done = slurmedic(dir.path(), &["policy", "diff", "default", "a.yaml"]);
    assert_eq!(done.code, 3, "{done}");
    assert_eq!(done.out, "budgets.fleet: 2% -> 4\nbudgets.partitions.debug: (nothing) -> 50%\n");
    let back = json(slurmedic(dir.path(), &["policy", "diff", "a.yaml", "--format", "json"]));
    assert_eq!(back["differences"][0]["after"], "2%", "without B, the policy in force");
    assert_eq!(back["after"]["from"], "built-in policy");
}

#[test]
fn mistakes_come_all_at_once_and_such_a_policy_is_never_in_force() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("bad.yaml"), "budget: { fleet: 2% }\nidle_gap: soon\n").unwrap();
    let checked = slurmedic(dir.path(), &["policy", "check", "bad.yaml"]);
    assert_eq!(checked.code, 3, "{checked}");
    for part in ["PB0010", "bad.yaml:1:1", "did you mean `budgets`?", "PO0003", "bad.yaml:2:11"] {
        assert!(checked.out.contains(part), "{part}: {checked}");
    }
    let form = json(slurmedic(dir.path(), &["policy", "check", "bad.yaml", "--format", "json"]));
    assert_eq!((&form["errors"], &form["files"][0]["digest"]), (&2.into(), &serde_json::Value::Null));
    fs::write(dir.path().join("c.toml"), "[policy]\npath = \"bad.yaml\"\n").unwrap();
    for args in [
        &["policy", "show"][..],
        &["policy", "diff", "default"],
        &["plan", "dcgm-ecc-drain-reset", "--node", "gpu002", "--cluster", "simulated"],
    ] {
        let refused = slurmedic(dir.path(), &[&["--config", "c.toml"], args].concat());
        assert_eq!(refused.code, 2, "{refused}");
        assert!(refused.err.contains("2 errors") && refused.err.contains("hint:"), "{refused}");
        assert_eq!(refused.out, "");
    }
    for missing in [&["policy", "check", "none.yaml"][..], &["policy", "show", "none.yaml"]] {
        let refused = slurmedic(dir.path(), missing);
        assert!(refused.code == 2 && refused.err.contains("none.yaml could not be read"), "{refused}");
    }
}

#[test]
fn a_plan_names_its_policy_and_shows_its_numbers_in_eighty_columns() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("none.yaml"), "budgets: { fleet: 0 }\n").unwrap();
    fs::write(dir.path().join("c.toml"), "[policy]\npath = \"none.yaml\"\n").unwrap();
    let plan = ["plan", "dcgm-ecc-drain-reset", "--node", "gpu002", "--cluster", "simulated"];
    let free = slurmedic(dir.path(), &plan);
    assert_eq!(free.code, 0, "{free}");
    let block = |text: &str| -> Vec<String> {
        let lines = text.lines().skip_while(|l| !l.starts_with("Policy"));
        lines.take_while(|l| !l.is_empty()).map(str::to_owned).collect()
    };
    let lines = block(&free.out);
    assert!(lines[0].starts_with("Policy      permits it now ("), "{free}");
    assert!(lines.iter().any(|l| l == "            fleet: 0 of 64 out of service, budget 1 (2%)"), "{free}");
    assert!(lines.iter().any(|l| l.starts_with("Cost        ")), "{free}");
    assert!(lines.iter().all(|l| l.chars().count() <= 80), "{free}");
    let held = slurmedic(dir.path(), &[&["--config", "c.toml"], &plan[..]].concat());
    let lines = block(&held.out);
    assert!(lines[0].starts_with("Policy      not now ("), "{held}");
    assert!(
        lines.iter().any(|l| l == "            budget: fleet: 0 of 64 out of service, budget 0"),
        "{held}"
    );
    let form =
        json(slurmedic(dir.path(), &[&["--config", "c.toml", "--format", "json"], &plan[..]].concat()));
    let policy = json(slurmedic(dir.path(), &["--config", "c.toml", "--format", "json", "policy", "show"]));
    assert_eq!(
        form["plan"]["policy"]["policy"], policy["digest"],
        "the plan carries the digest of its policy"
    );
    assert_eq!(form["plan"]["policy"]["outcome"]["wait"]["until"], serde_json::Value::Null);
}

/// A policy file's roles decide who feeds alerts and who picks up interrupted runs, on the simulated cluster too.
#[test]
fn roles_decide_who_feeds_alerts_and_who_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let alert = r#"{"node": "gpu002", "fault": "gpu-ecc-uncorrectable", "gpu": 3}"#;
    fs::write(dir.path().join("alert.json"), alert).unwrap();
    fs::write(dir.path().join("site.toml"), "[policy]\npath = \"site.yaml\"\n").unwrap();
    let nobody = ["operator", "approver", "admin"].map(|r| format!("  {r}: {{ users: [somebody-else] }}"));
    for (role, may_feed, may_recover) in
        [("viewer", false, false), ("operator", true, true), ("approver", true, false), ("admin", true, true)]
    {
        let all = nobody.iter().map(|line| {
            if line.trim_start().starts_with(role) {
                format!("  {role}: {{ users: [\"*\"] }}")
            } else {
                line.clone()
            }
        });
        let roles = all.collect::<Vec<_>>().join("\n");
        fs::write(dir.path().join("site.yaml"), format!("roles:\n{roles}\n")).unwrap();
        for (args, may, word) in
            [(vec!["alert", "alert.json"], may_feed, "propose"), (vec!["recover"], may_recover, "run")]
        {
            let common = ["--config", "site.toml", "--cluster", "simulated"];
            let done = slurmedic(dir.path(), &[&common[..], &args].concat());
            assert_eq!(done.code == 0, may, "{role} {args:?}: {done}");
            if !may {
                assert_eq!(done.code, 2, "{done}");
                assert!(done.err.contains(&format!(" may not {word}: ")), "{done}");
                assert!(done.err.contains("it needs one of the roles operator, "), "{done}");
            }
        }
    }
}
