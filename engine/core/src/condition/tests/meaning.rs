//! What conditions mean, what is said about their outcome, and that they can be stored.

use super::super::{Condition, Truth};
use super::{facts, int, ok, scope, stale, text, word};
use crate::known::{Cause, Known};
use crate::value::Value;
use Truth::{False, True, Unknown};

fn float(x: f64) -> Known<Value> {
    Known::Known(Value::Float(x))
}

fn version(v: &str) -> Known<Value> {
    Known::Known(Value::Version(v.to_owned()))
}

fn list(items: &[&str]) -> Known<Value> {
    Known::Known(Value::List(items.iter().map(|s| (*s).to_owned()).collect()))
}

fn minutes(m: i64) -> Known<Value> {
    Known::Known(Value::Duration(jiff::SignedDuration::from_mins(m)))
}

#[test]
fn outcomes() {
    let set = facts([
        ("node.state", word("ALLOCATED")),
        ("gpu.health", word("frobnicated")),
        ("gpu.recovery_action", word("none")),
        ("params.fault", word("UNKNOWN")),
        ("params.faults", list(&["ecc"])),
        ("node.name", text("gpu017")),
        ("params.node", text("gpu017")),
        ("node.responding", Known::Known(Value::Bool(true))),
        ("node.reserved", Known::Known(Value::Bool(false))),
        ("dcgm.up", stale()),
        ("active_jobs", int(3)),
        ("params.limit", int(4)),
        ("gpu.xid", stale()),
        ("suspended_jobs", text("0")),
        ("gpu.temperature", float(70.5)),
        ("gpu.power", float(f64::NAN)),
        ("gpu.sm_clock", float(f64::INFINITY)),
        ("gpu.memory_temperature", int(80)),
        ("slurm.version", version("23.11.4")),
        ("dcgm.version", version("abc")),
        ("driver.version", version("24.11.0-0rc1")),
        ("node.features", list(&["gpu", "a100"])),
        ("alert.age", minutes(10)),
        ("params.max_age", minutes(30)),
    ]);
    for (source, want) in [
        ("node.state == ALLOCATED", True),
        ("node.state != ALLOCATED", False),
        ("node.state in [IDLE, COMPLETING]", False),
        ("node.state not in [IDLE, COMPLETING]", True),
        ("IDLE != node.state", True),
        ("active_jobs == 3 and node.responding", True),
        ("active_jobs <= 2 or not node.responding", False),
        ("4 > active_jobs", True),
        ("4 < active_jobs", False),
        ("active_jobs < params.limit", True),
        ("active_jobs < gpu.temperature", True),
        ("active_jobs in [1, 2, 3]", True),
        ("node.reserved == false", True),
        ("node.reserved", False),
        ("gpu.temperature > 70", True),
        ("gpu.temperature <= 70.5", True),
        ("gpu.memory_temperature == 80.0", True),
        ("gpu.recovery_action == none", True),
        ("slurm.version >= '23.02'", True),
        ("slurm.version >= '23.11.10'", False),
        ("slurm.version == '23.11.04'", True),
        ("slurm.version in ['23.02', '23.11.4-1']", True),
        ("'gpu' in node.features", True),
        ("'gp' in node.features", False),
        ("node.name not in node.features", True),
        ("ecc in params.faults and nvlink not in params.faults", True),
        ("node.name == params.node", True),
        ("node.name == 'gpu018'", False),
        ("alert.age < params.max_age and alert.age >= 600s", True),
        ("alert.age in [5m, 10m]", True),
        // Unknown: stale, absent, of the wrong type, not a number, a word or version nobody knows.
        ("gpu.xid == 0", Unknown),
        ("gpu.xid != 0", Unknown),
        ("gpu.xid not in [79, 94]", Unknown),
        ("not gpu.xid == 0", Unknown),
        ("dcgm.up", Unknown),
        ("not dcgm.up", Unknown),
        ("node.reason == ''", Unknown),
        ("node.reason != 'x'", Unknown),
        ("suspended_jobs == 0", Unknown),
        ("suspended_jobs is known", False),
        ("gpu.power < 700", Unknown),
        ("not gpu.power < 700", Unknown),
        ("gpu.power is known", False),
        ("gpu.sm_clock > 0", Unknown),
        ("gpu.sm_clock > 0.5", Unknown),
        ("gpu.sm_clock is known", False),
        ("gpu.health != fail", Unknown),
        ("gpu.health is unknown", True),
        ("params.fault != ecc", Unknown),
        ("params.fault not in params.faults", Unknown),
        ("params.fault is unknown", True),
        ("dcgm.version >= '1'", Unknown),
        ("driver.version >= '24.11.0-0rc2'", Unknown),
        ("driver.version not in ['24.11.0-0rc2']", Unknown),
        ("driver.version < '24.11'", True),
        ("active_jobs < node.gpus_allocated", Unknown),
        // Kleene's logic.
        ("gpu.xid == 0 and node.reserved", False),
        ("node.reserved and gpu.xid == 0", False),
        ("gpu.xid == 0 or node.responding", True),
        ("gpu.xid == 0 and node.responding", Unknown),
        ("gpu.xid == 0 or node.reserved", Unknown),
        ("not (gpu.xid == 0 and node.reserved)", True),
        ("gpu.xid == 0 or gpu.xid != 0", Unknown),
        // Precedence: not before and before or.
        ("not node.reserved and node.responding", True),
        ("node.responding or node.reserved and node.reserved", True),
        ("(node.responding or node.reserved) and node.reserved", False),
        ("not node.state == IDLE", True),
        // Knowledge of knowledge.
        ("gpu.xid is known", False),
        ("gpu.xid is unknown", True),
        ("gpu.xid is not known", True),
        ("gpu.xid is not unknown", False),
        ("active_jobs is known and node.reason is unknown", True),
    ] {
        let c = ok(source);
        let outcome = c.evaluate(&set);
        assert_eq!(outcome.truth, want, "{source}: {:#?}", outcome.trace);
        assert_eq!(outcome.permits(), want == True, "{source}");
        assert_eq!(ok(&c.canonical()).evaluate(&set).truth, want, "{source} as {c}");
    }
}

#[test]
fn the_word_unknown_never_permits() {
    let set = facts([("node.state", word("UNKNOWN"))]);
    for source in ["node.state != DOWN", "node.state not in [DOWN, DRAINED]", "not node.state == DOWN"] {
        assert_eq!(ok(source).evaluate(&set).truth, Unknown, "{source}");
    }
    assert_eq!(ok("node.state is unknown").evaluate(&set).truth, True);
}

#[test]
fn explanations() {
    let set = facts([
        ("node.state", word("ALLOCATED")),
        ("active_jobs", int(2)),
        ("gpus.found", int(8)),
        ("node.gpus_configured", int(8)),
        ("gpu.xid", stale()),
        ("gpu.health", word("pass")),
        ("node.responding", Known::Known(Value::Bool(false))),
        ("node.reason", text("it's\nbroken\u{202e}")),
        ("node.features", list(&["gpu", "a\nb"])),
        ("driver.version", version("24.11.0-0rc1")),
        ("node.reason_user", Known::unknown(Cause::Unparsable, "saw \u{1b}[31mred\nline")),
    ]);
    for (source, want) in [
        ("node.state in [IDLE, COMPLETING]", "node.state = ALLOCATED, wanted IDLE or COMPLETING"),
        ("node.state in [IDLE, MIXED, MAINT]", "node.state = ALLOCATED, wanted IDLE, MIXED or MAINT"),
        ("node.state not in [ALLOCATED, DOWN]", "node.state = ALLOCATED, wanted none of ALLOCATED or DOWN"),
        ("node.state not in [ALLOCATED]", "node.state = ALLOCATED, wanted not ALLOCATED"),
        ("not (node.state == ALLOCATED)", "node.state = ALLOCATED, wanted not ALLOCATED"),
        ("not node.state != DOWN", "node.state = ALLOCATED, wanted DOWN"),
        ("active_jobs == 0", "active_jobs = 2, wanted 0"),
        ("0 >= active_jobs", "active_jobs = 2, wanted <= 0"),
        ("not active_jobs > 1", "active_jobs = 2, wanted <= 1"),
        ("not active_jobs >= 1", "active_jobs = 2, wanted < 1"),
        ("not active_jobs < 3", "active_jobs = 2, wanted >= 3"),
        ("not active_jobs <= 3", "active_jobs = 2, wanted > 3"),
        ("3 < active_jobs", "active_jobs = 2, wanted > 3"),
        ("active_jobs == 2", "active_jobs = 2"),
        (
            "gpus.found != node.gpus_configured",
            "gpus.found = 8, node.gpus_configured = 8, wanted gpus.found != node.gpus_configured",
        ),
        ("gpu.xid == 0", "gpu.xid is unknown (stale: observed 10 min ago)"),
        ("gpu.xid is known", "gpu.xid is unknown (stale: observed 10 min ago), wanted a known value"),
        ("gpu.health is unknown", "gpu.health = pass, wanted no known value"),
        ("dcgm.up", "dcgm.up is unknown (not_observed: no source gave dcgm.up)"),
        ("node.responding", "node.responding = false, wanted true"),
        ("'h100' in node.features", "node.features = [gpu, a\\u000ab], wanted 'h100' in node.features"),
        ("'gpu' not in node.features", "node.features = [gpu, a\\u000ab], wanted 'gpu' not in node.features"),
        ("node.reason == ''", "node.reason = 'it\\'s\\nbroken\\u202e', wanted ''"),
        ("node.reason_user == ''", "node.reason_user is unknown (unparsable: saw \\u001b[31mred\\u000aline)"),
        (
            "driver.version >= '24.11.0-0rc2'",
            "driver.version = 24.11.0-0rc1, which cannot be compared, wanted >= 24.11.0-0rc2",
        ),
        // Only what decided is named.
        ("gpu.health == pass and active_jobs == 0 and gpu.xid == 0", "active_jobs = 2, wanted 0"),
        ("gpu.health == pass and gpu.xid == 0", "gpu.xid is unknown (stale: observed 10 min ago)"),
        ("gpu.health == pass or gpu.xid == 0", "gpu.health = pass"),
        (
            "active_jobs == 0 or node.state == IDLE",
            "active_jobs = 2, wanted 0; node.state = ALLOCATED, wanted IDLE",
        ),
        ("not (gpu.health == pass or active_jobs == 0)", "gpu.health = pass, wanted not pass"),
    ] {
        assert_eq!(ok(source).evaluate(&set).explain(), want, "{source}");
    }
}

#[test]
fn explanations_are_short_whatever_the_facts() {
    let long = "x".repeat(100_000);
    let set = facts([("node.reason", text(&long)), ("node.features", list(&[&long]))]);
    let many = vec!["node.reason == ''"; 20].join(" or ");
    for source in [many.as_str(), "'a' in node.features", &format!("node.reason == '{}'", "y".repeat(4000))] {
        let said = ok(source).evaluate(&set).explain();
        assert!(said.len() < 3000 && said.contains("..."), "{} bytes", said.len());
    }
    assert!(ok(&many).evaluate(&set).explain().ends_with("; and 14 more"));
}

#[test]
fn the_trace_has_every_comparison_with_what_it_read() {
    let c = ok("gpu.xid == 0 and not (active_jobs == 2 or params.limit < 5)");
    assert_eq!(c.facts().into_iter().collect::<Vec<_>>(), ["active_jobs", "gpu.xid", "params.limit"]);
    let outcome = c.evaluate(&facts([("gpu.xid", stale()), ("active_jobs", int(2))]));
    assert_eq!(outcome.truth, False);
    let rows: Vec<_> = outcome
        .trace
        .iter()
        .map(|e| (e.text.as_str(), e.truth, e.negated, e.decisive, e.satisfied()))
        .collect();
    assert_eq!(
        rows,
        [
            ("gpu.xid == 0", Unknown, false, false, Unknown),
            ("active_jobs == 2", True, true, true, False),
            ("params.limit < 5", Unknown, true, false, Unknown),
        ]
    );
    assert!(outcome.trace[0].facts[0].source.is_some() && outcome.trace[2].facts[0].source.is_none());
    let json = serde_json::to_string(&outcome).unwrap();
    assert_eq!(serde_json::from_str::<super::super::Evaluation>(&json).unwrap(), outcome, "{json}");
}

#[test]
fn canonical_forms() {
    for (source, want) in [
        ("((active_jobs)==0)", "active_jobs == 0"),
        (
            "dcgm.up and(node.responding and\n  node.reserved)",
            "dcgm.up and node.responding and node.reserved",
        ),
        ("dcgm.up or (node.responding and node.reserved)", "dcgm.up or node.responding and node.reserved"),
        ("dcgm.up and (node.responding or node.reserved)", "dcgm.up and (node.responding or node.reserved)"),
        ("not (dcgm.up and node.reserved)", "not (dcgm.up and node.reserved)"),
        ("not (dcgm.up)", "not dcgm.up"),
        ("gpu.xid is not known", "gpu.xid is unknown"),
        ("node.reason == \"it's \\u0041\\u202e\"", "node.reason == 'it\\'s A\\u202e'"),
        ("alert.age<90m", "alert.age < 1h30m"),
        ("gpu.power < 1e3", "gpu.power < 1000.0"),
        ("node.state in [IDLE,MIXED,]", "node.state in [IDLE, MIXED]"),
    ] {
        assert_eq!(ok(source).canonical(), want);
        assert_eq!(ok(want).canonical(), want);
    }
}

#[test]
fn a_stored_condition_is_complete_and_is_checked_again() {
    let set = facts([
        ("node.state", word("IDLE")),
        ("gpu.health", word("frobnicated")),
        ("params.max_age", minutes(5)),
        ("alert.age", minutes(1)),
        ("slurm.version", version("23.11")),
    ]);
    for source in [
        "node.state in [IDLE, COMPLETING] and gpu.health != fail",
        "alert.age < params.max_age or ecc in params.faults",
        "slurm.version >= '23.02' and node.name not in ['a', 'b']",
    ] {
        let c = ok(source);
        let json = serde_json::to_string(&c).unwrap();
        let back: Condition = serde_json::from_str(&json).unwrap();
        assert_eq!(back, c, "{json}");
        assert_eq!(back.evaluate(&set), c.evaluate(&set));
        assert_eq!((back.source(), back.canonical()), (source, c.canonical()));
    }
    let json = serde_json::to_string(&ok("active_jobs == 0")).unwrap();
    assert_eq!(json, r#"{"source":"active_jobs == 0","types":{"active_jobs":"int"}}"#);
    for tampered in [
        json.replace("active_jobs == 0", "true"),
        json.replace("active_jobs == 0", "active_jobs == '0'"),
        json.replace("active_jobs == 0", "gpus.found == 0"),
        json.replace("active_jobs == 0", &"(".repeat(200_000)),
        json.replace(r#""int""#, r#""complex""#),
        json.replace("types", "kinds"),
    ] {
        let error = serde_json::from_str::<Condition>(&tampered).unwrap_err().to_string();
        assert!(error.len() < 400, "{error}");
    }
    // The scope of the test has what the table above needs.
    assert!(super::compile("params.limit == 1", &scope()).is_ok());
}
