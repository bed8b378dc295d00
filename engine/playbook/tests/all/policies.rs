//! Policy files: the default one, every mistake with its place, and hostile ones.

use engine_core::diag::Severity;
use engine_core::policy::{Day, Policy, RackSource, Rate, Role, Share, Stage, diff};
use engine_playbook::codes as common;
use engine_playbook::policy::{DEFAULT, built_in, codes, load, to_yaml};
use engine_playbook::render::one_line;
use proptest::prelude::*;

fn good(text: &str) -> Policy {
    let loaded = load(text.as_bytes(), "policy.yaml");
    assert_eq!(loaded.diagnostics, [], "{text}");
    loaded.policy.unwrap()
}

/// Loads a policy and returns `code line:column` of each diagnostic, errors only.
fn errors(text: &str) -> Vec<String> {
    found(text, Severity::Error)
}

fn found(text: &str, severity: Severity) -> Vec<String> {
    let loaded = load(text.as_bytes(), "policy.yaml");
    assert_eq!(loaded.failed(), loaded.policy.is_none(), "no policy in part: {text}");
    loaded
        .diagnostics
        .iter()
        .filter(|d| d.severity == severity)
        .map(|d| {
            assert!(d.help.is_some(), "{} has no help: {text}", d.message);
            let at = loaded.source.position(d.labels[0].span.start);
            format!("{} {}:{}", d.code, at.line, at.column)
        })
        .collect()
}

#[test]
fn the_built_in_policy_is_the_default_one_written_out() {
    let loaded = built_in();
    assert_eq!(loaded.diagnostics, []);
    assert_eq!(loaded.policy.unwrap(), Policy::default());
    // Written out means: every key of the JSON form stands in the file.
    let json = serde_json::to_value(Policy::default()).unwrap();
    for (key, value) in json.as_object().unwrap() {
        assert!(DEFAULT.contains(&format!("\n{key}:")), "{key} is not in the default policy");
        for below in value.as_object().into_iter().flatten().map(|(k, _)| k) {
            assert!(DEFAULT.contains(&format!("\n  {below}:")), "{key}.{below} is not in the default policy");
        }
    }
}

/// The guide has a line for each key, with the default that the code has, and no other.
#[test]
fn the_guide_lists_every_key_with_its_default() {
    let guide = include_str!("../../../../docs/guide/policy.md");
    let rows: std::collections::BTreeMap<String, String> = guide
        .lines()
        .filter_map(|l| l.strip_prefix("| `"))
        .map(|l| {
            let (key, rest) = l.split_once("` |").unwrap();
            (key.to_owned(), rest.split('|').nth(1).unwrap().trim().trim_matches('`').to_owned())
        })
        .collect();
    let mut keys = std::collections::BTreeMap::new();
    let json = serde_json::to_value(Policy::default()).unwrap();
    for (key, value) in json.as_object().unwrap() {
        for (below, value) in value.as_object().into_iter().flatten() {
            let maps = value.as_object().filter(|m| !m.is_empty() && key != "roles");
            for (third, value) in maps.into_iter().flatten() {
                keys.insert(format!("{key}.{below}.{third}"), value.clone());
            }
            if maps.is_none() {
                keys.insert(format!("{key}.{below}"), value.clone());
            }
        }
        if value.as_object().is_none_or(serde_json::Map::is_empty) {
            keys.insert(key.clone(), value.clone());
        }
    }
    assert_eq!(rows.keys().collect::<Vec<_>>(), keys.keys().collect::<Vec<_>>());
    for (key, value) in keys {
        let written = match &value {
            serde_json::Value::String(s) if s.is_empty() => "empty".to_owned(),
            serde_json::Value::String(s) => s.clone(),
            _ if key.starts_with("roles.") => continue,
            other => other.to_string(),
        };
        assert_eq!(rows[&key], written, "{key}");
    }
    for (deed, who, _) in engine_core::policy::TABLE {
        let cells: Vec<&str> = who.iter().map(|w| if *w { "yes" } else { "no" }).collect();
        let row = format!("| {deed} | {} |", cells.join(" | "));
        assert!(guide.contains(&row), "{row}");
    }
}

#[test]
fn a_policy_that_is_printed_can_be_read_back() {
    let rich = good(
        r#"
budgets: { fleet: 4, partition: 2.5%, partitions: { main: 2%, "0x1": 3 }, racks: { r1: 1 } }
attempts: 1 per 90m
windows:
  - { days: [sun, sat], from: "22:00", to: "06:00", zone: europe/berlin }
  - { from: 12:00, to: 24:00 }
freezes: [{ from: 2026-12-24, to: 2027-01-02, zone: Europe/Berlin, why: "holidays: \"all\" of them # yes" }]
canary: { nodes: ["gpu[001-004]", gpu003], partitions: [debug], features: [yes] }
roles: { operator: { groups: [oncall] }, admin: { users: [ada], groups: ["42"] } }
racks: { map: { r1: "gpu[001-010]", r2: "gpu[011-020]" }, fabrics: { nvl1: "gpu[001-018]" } }
stages: { drain-reset: off, drain-reset@1.2.0-rc.1: shadow, other: canary }
idle_gap: 0s
"#,
    );
    assert_eq!(rich.budgets.partitions["main"], Share::percent(2));
    assert_eq!(rich.attempts, Rate::parse("1 per 90m").unwrap());
    assert_eq!(rich.windows[0].days, [Day::Sat, Day::Sun]);
    assert_eq!(rich.freezes[0].from.to_string(), "2026-12-23T23:00:00Z");
    assert_eq!(rich.canary.nodes.names().len(), 4);
    assert_eq!(rich.racks.from, RackSource::Map);
    assert_eq!(rich.stages.0["drain-reset"], Stage::Off);
    assert_eq!(rich.stages.0["drain-reset@1.2.0-rc.1"], Stage::Shadow);
    assert!(rich.roles.0[&Role::Approver].users.contains("root"), "a role that is left out has its default");
    for policy in [rich, Policy::default()] {
        let text = to_yaml(&policy).unwrap();
        let again = good(&text);
        assert_eq!(diff(&policy, &again).unwrap(), [], "{text}");
        assert_eq!(again.digest().unwrap(), policy.digest().unwrap());
    }
}

#[test]
fn every_mistake_is_named_at_its_place() {
    for (text, expected) in [
        ("budget: { fleet: 2% }", vec!["PB0010 1:1"]),
        ("budgets: { fleet: 120% }", vec!["PO0001 1:19"]),
        ("budgets: { fleet: -1 }", vec!["PO0001 1:19"]),
        ("budgets: { fleet: [2%] }", vec!["PO0001 1:19"]),
        ("budgets: { partitions: { main: much } }", vec!["PO0001 1:32"]),
        ("budgets: { partitions: [main] }", vec!["PB0012 1:24"]),
        ("budgets: { racks: { \"r 1\": 2 } }", vec!["PO0011 1:21"]),
        ("concurrent_runs: four", vec!["PB0012 1:18"]),
        ("concurrent_runs: -4", vec!["PO0004 1:18"]),
        ("concurrent_runs: 1000000", vec!["PO0004 1:18"]),
        ("rates: { disruptive: 10/h }", vec!["PO0002 1:22"]),
        ("rates: { disruptive: 99999 per 1h }", vec!["PO0004 1:22"]),
        ("attempts: 2", vec!["PO0002 1:11"]),
        ("attempts: 2 per 0s", vec!["PO0002 1:11"]),
        ("breaker: { fleet: 10% }", vec!["PO0002 1:19"]),
        ("breaker: { racks: 0 per 15m }", vec!["PO0004 1:19"]),
        ("idle_gap: 2", vec!["PO0003 1:11"]),
        ("idle_gap: 365d", vec!["PO0003 1:11"]),
        ("approvals: { approval_expires: 0s }", vec!["PO0003 1:32"]),
        ("approvals: { program_needs_other: yes }", vec!["PB0012 1:35"]),
        ("approvals: { quorum: { destructive: 9 } }", vec!["PO0004 1:37"]),
        ("windows: [{ from: \"22:00\" }]", vec!["PB0011 1:13"]),
        ("windows: [{ from: 10pm, to: \"25:00\" }]", vec!["PO0006 1:19", "PO0006 1:29"]),
        ("windows: [{ from: \"08:00\", to: \"09:00\", zone: Europe/Berln }]", vec!["PO0005 1:47"]),
        ("windows: [{ days: [mo], from: \"08:00\", to: \"09:00\" }]", vec!["PB0015 1:20"]),
        ("windows: { from: \"08:00\", to: \"09:00\" }", vec!["PB0012 1:10"]),
        ("freezes: [{ from: 2027-01-02, to: 2026-12-24, why: x }]", vec!["PO0008 1:35"]),
        ("freezes: [{ from: 2026-12-24, to: 2026-12-24, why: x }]", vec!["PO0008 1:35"]),
        ("freezes: [{ from: 2026-13-24, to: tomorrow, why: x }]", vec!["PO0007 1:19", "PO0007 1:35"]),
        ("freezes: [{ from: 2026-12-24, to: 2026-12-25 }]", vec!["PB0011 1:13"]),
        ("canary: { nodes: \"gpu[001-\" }", vec!["PO0009 1:18"]),
        ("canary: { nodes: ALL }", vec!["PO0009 1:18"]),
        ("canary: { nodes: \"gpu[000001-999999]\" }", vec!["PO0017 1:18"]),
        ("canary: { features: gpu }", vec!["PB0012 1:21"]),
        ("canary: { features: [gpu, gpu] }", vec!["PB0018 1:27"]),
        ("roles: { aprover: { users: [ada] } }", vec!["PB0010 1:10"]),
        ("roles: { approver: [ada] }", vec!["PB0012 1:20"]),
        ("roles: { approver: { users: [\"ada, bob\"] } }", vec!["PO0011 1:30"]),
        ("racks: { from: rack.conf }", vec!["PB0015 1:16"]),
        ("racks: { from: map }", vec!["PB0011 1:16"]),
        ("racks: { from: topology.conf, map: { r1: n1 } }", vec!["PO0012 1:36"]),
        ("racks: { map: { r1: \"n[1-5]\", r2: \"n[5-9]\" } }", vec!["PO0010 1:35"]),
        ("racks: { map: { unknown: n1 } }", vec!["PO0011 1:17"]),
        ("opt_out: { feature: \"no remedy\" }", vec!["PO0011 1:21"]),
        ("stages: [drain-reset]", vec!["PB0012 1:9"]),
        ("stages: { drain-reset: shade }", vec!["PB0015 1:24"]),
        ("stages: { drain-reset@1.2: off }", vec!["PO0011 1:11"]),
        ("stages: { \"Drain reset\": off }", vec!["PO0011 1:11"]),
        ("opt_out: { comment: \"\" }", vec!["PB0017 1:21"]),
        ("budgets: 2%", vec!["PB0012 1:10"]),
        ("- budgets", vec!["PB0012 1:1"]),
        ("", vec!["PB0008 1:1"]),
        ("# nothing but a comment\n", vec!["PB0008 1:1"]),
        ("budgets: { fleet: 2%, fleet: 50% }", vec!["PB0004 1:23"]),
        ("budgets: &b { fleet: 2% }\n", vec!["PB0005 1:10"]),
        ("idle_gap: 2h\n---\nidle_gap: 3h\n", vec!["PB0008 2:1"]),
    ] {
        assert_eq!(errors(text), expected, "{text}");
    }
}

#[test]
fn all_mistakes_come_at_once_with_advice() {
    let text = "budgets: { flet: 2%, rack: much }\nroles:\n  aprover: { users: [ada] }\nwindows:\n  - { from: \"8\", to: \"09:00\", zone: Mars }\n";
    let loaded = load(text.as_bytes(), "site.yaml");
    let lines: Vec<String> = loaded
        .diagnostics
        .iter()
        .map(|d| format!("{} ({})", one_line(d, &loaded.source), d.help.as_deref().unwrap_or("")))
        .collect();
    assert_eq!(
        lines,
        [
            "site.yaml:1:12: error[PB0010]: `budgets` has no field `flet` (did you mean `fleet`?)",
            "site.yaml:1:28: error[PO0001]: `much` is not a share: write a number of nodes such as 4, or a percentage such as 2% or 2.5% (write 2% or 4)",
            "site.yaml:3:3: error[PB0010]: `roles` has no field `aprover` (did you mean `approver`?)",
            "site.yaml:5:13: error[PO0006]: `8` is not a time of day (write it with four digits and in quotes, such as \"22:00\")",
            "site.yaml:5:37: error[PO0005]: `Mars` is not a time zone (write an IANA name such as UTC or Europe/Berlin)",
        ]
    );
}

#[test]
fn what_is_odd_but_possible_is_a_warning() {
    for (text, expected) in [
        ("budgets: { fleet: 0 }", "PO0015 1:19"),
        ("budgets: { rack: 0.00% }", "PO0015 1:18"),
        ("concurrent_runs: 0", "PO0015 1:18"),
        ("rates: { destructive: 0 per 24h }", "PO0015 1:23"),
        ("budgets: { racks: { r9: 1 } }\nracks: { map: { r1: n1 } }", "PO0013 1:21"),
        ("windows: [{ from: \"08:00\", to: \"08:00\" }]", "PO0016 1:11"),
        ("roles: { approver: {}, admin: { groups: [] } }", "PO0014 1:1"),
        ("approvals: { quorum: { disruptive: 4 } }", "PO0018 1:14"),
    ] {
        assert_eq!(errors(text), [""; 0], "{text}");
        assert!(
            found(text, Severity::Warning).contains(&expected.to_owned()),
            "{text}: {:?}",
            found(text, Severity::Warning)
        );
    }
    assert_eq!(
        good("budgets: { racks: { unknown: 5 } }\nracks: { map: { r1: n1 } }").budgets.racks["unknown"],
        Share::Count(5)
    );
    assert_eq!(
        good("approvals: { quorum: { disruptive: 4 } }\nroles: { approver: { groups: [oncall] } }")
            .approvals
            .quorum
            .disruptive,
        4
    );
}

#[test]
fn every_code_of_the_table_can_be_met_and_explained() {
    let mut met: Vec<String> = Vec::new();
    let page = include_str!("policies.rs");
    for (code, title, text) in codes::CODES {
        assert!(page.contains(&format!("\"{code} ")), "no test meets {code}: {title}");
        assert!(text.contains("Good:") || text.len() > 60, "{code}");
        assert!(common::explain(code).unwrap().starts_with(&format!("# {code}: {title}")));
        met.push((*code).to_owned());
    }
    assert_eq!(met.len(), 18);
}

#[test]
fn hostile_files_are_refused_after_little_work() {
    let started = std::time::Instant::now();
    let mut files: Vec<String> = vec![
        format!(
            "racks: {{ map: {{ {} }} }}",
            (0..3000).map(|i| format!("r{i}: \"n[0-99999]\"")).collect::<Vec<_>>().join(", ")
        ),
        "canary: { nodes: \"n[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]\" }".to_owned(),
        format!("canary: {{ nodes: \"{}\" }}", "n,".repeat(60_000)),
        format!("roles: {{ admin: {{ users: [{}] }} }}", "a,".repeat(5_000)),
        format!("freezes: [{}]", "{ from: 2026-01-01, to: 2026-01-02, why: x },".repeat(3_000)),
        format!("windows: [{}]", "{ from: \"00:00\", to: \"01:00\", zone: Nowhere/At_all },".repeat(90)),
        "budgets: ".to_owned() + &"[".repeat(100_000),
        "idle_gap: 99999999999999999999d".to_owned(),
        "attempts: 99999999999999999999 per 1h".to_owned(),
        "concurrent_runs: 99999999999999999999".to_owned(),
        "opt_out: { comment: \"\\u202e\" }".to_owned(),
        "opt_out: { comment: \"a\\nb\" }".to_owned(),
        "roles: { admin: { users: [\"ad\\u200ba\"] } }".to_owned(),
        "budgets: { fleet: .nan }".to_owned(),
        "budgets: { fleet: 0x10 }".to_owned(),
        "freezes: [{ from: -009999-01-01, to: 9999-12-31, why: x }]".to_owned(),
        " ".repeat(300 * 1024),
        "budgets: \u{0}".to_owned(),
    ];
    files.push("a: &a [x]\n".to_owned() + &(1..40).map(|_| "b: [*a, *a]\n").collect::<String>());
    for text in &files {
        let loaded = load(text.as_bytes(), "x");
        assert!(loaded.failed() && loaded.policy.is_none(), "{}", text.chars().take(80).collect::<String>());
        assert!(loaded.diagnostics.len() <= 200);
    }
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    assert!(load(b"budgets: \xff", "x").failed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_damaged_policy_never_panics_and_never_loads_in_part(at in 0usize..DEFAULT.len(), cut in 0usize..40, insert in "[ -~\n]{0,12}") {
        let mut bytes = DEFAULT.as_bytes().to_vec();
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, insert.bytes());
        let loaded = load(&bytes, "x");
        prop_assert_eq!(loaded.failed(), loaded.policy.is_none());
        if let Some(p) = loaded.policy {
            let text = to_yaml(&p).unwrap();
            let again = load(text.as_bytes(), "y");
            prop_assert_eq!(again.policy.as_ref(), Some(&p), "{}", text);
        }
    }
}
