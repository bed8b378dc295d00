//! Each mistake gives its code, at its place, with a help line, and nothing else goes wrong because of it.

use crate::{GOOD, with};
use engine_core::diag::Severity;
use engine_playbook::{codes, load};

/// What is found: code and the text under the first label, shortened.
fn found(text: &str) -> Vec<(String, String)> {
    let l = load(text.as_bytes(), "x.yaml");
    for d in &l.diagnostics {
        assert!(codes::explain(&d.code).is_some(), "{} has no explanation", d.code);
        assert!(d.help.as_ref().is_some_and(|h| !h.is_empty()), "{}: {} has no help", d.code, d.message);
        assert!(!d.labels.is_empty(), "{} has no place", d.code);
        assert!(!d.message.ends_with('.'), "{}", d.message);
    }
    assert_eq!(l.playbook.is_some(), !l.failed());
    l.diagnostics
        .iter()
        .map(|d| (d.code.clone(), l.source.slice(d.labels[0].span).lines().next().unwrap_or("").to_owned()))
        .collect()
}

fn check(text: &str, expected: &[(&str, &str)]) {
    let found = found(text);
    let found: Vec<(&str, &str)> = found.iter().map(|(c, t)| (c.as_str(), t.as_str())).collect();
    assert_eq!(found, expected, "\n{text}");
}

fn help_of(text: &str, code: &str) -> String {
    let l = load(text.as_bytes(), "x.yaml");
    let d = l.diagnostics.iter().find(|d| d.code == code);
    d.unwrap_or_else(|| panic!("{code} is not in {:?}", l.diagnostics)).help.clone().unwrap()
}

#[test]
fn the_good_playbook_has_nothing_wrong() {
    check(GOOD, &[]);
    let p = load(GOOD.as_bytes(), "x").playbook.unwrap();
    assert_eq!(p.reference.to_string(), "gpu-reset@1.0.0");
    assert_eq!(p.steps.len(), 5);
    assert_eq!(p.preconditions[1].otherwise.as_deref(), Some("hardware service"));
    assert_eq!(p.rollback[0].action.name, "slurm.resume");
}

#[test]
fn fields() {
    check(&with("owner:", "onwer:"), &[(codes::MISSING_FIELD, "playbook"), (codes::UNKNOWN_FIELD, "onwer")]);
    assert_eq!(help_of(&with("owner:", "onwer:"), codes::UNKNOWN_FIELD), "did you mean `owner`?");
    check(&with("version: 1.0.0", "version: 1.2"), &[(codes::BAD_VERSION, "1.2")]);
    assert_eq!(help_of(&with("version: 1.0.0", "version: 1.2"), codes::BAD_VERSION), "write 1.2.0");
    check(&with("version: 1.0.0", "version: v1"), &[(codes::BAD_VERSION, "v1")]);
    check(&with("version: 1.0.0", "version: [1]"), &[(codes::WRONG_TYPE, "[1]")]);
    check(&with("playbook: gpu-reset", "playbook: GPU Reset"), &[(codes::BAD_NAME, "GPU Reset")]);
    assert_eq!(
        help_of(&with("playbook: gpu-reset", "playbook: GPU Reset"), codes::BAD_NAME),
        "write `gpu-reset`"
    );
    check(&with("playbook: gpu-reset", "playbook: ../../etc"), &[(codes::BAD_NAME, "../../etc")]);
    check(&with("summary: Reset a GPU", "summary: \"\""), &[(codes::BAD_LENGTH, "\"\"")]);
    check(&with("summary: Reset a GPU", "summary: 42"), &[(codes::WRONG_TYPE, "42")]);
    check(
        &with("summary: Reset a GPU", "summary: \"{{ alert.id }}\""),
        &[(codes::TEMPLATE_HERE, "\"{{ alert.id }}\"")],
    );
    check(&with("summary: Reset a GPU", "summary:"), &[(codes::MISSING_FIELD, "summary")]);
    check(&with("target: gpu", "target: gpus"), &[(codes::UNKNOWN_WORD, "gpus")]);
    check(&with("fault: [gpu-ecc]", "fault: gpu-ecc"), &[(codes::WRONG_TYPE, "gpu-ecc")]);
    check(&with("fault: [gpu-ecc]", "fault: [a, b, a]"), &[(codes::REPEATED_WORD, "a")]);
    check(&with("approval: hitl", "approval: hilt"), &[(codes::UNKNOWN_WORD, "hilt")]);
    check(&with("\">=3.3\"", "3.3"), &[(codes::BAD_RANGE, "3.3")]);
    check(&with("\">=3.3\"", "newest"), &[(codes::BAD_RANGE, "newest")]);
    check("[1, 2]\n", &[(codes::WRONG_TYPE, "[1, 2]")]);
    check("just a text\n", &[(codes::WRONG_TYPE, "just a text")]);
}

#[test]
fn everything_is_said_at_once() {
    let text = GOOD
        .replace("owner: gpu-oncall", "owner: 42")
        .replace("target: gpu", "target: gup")
        .replace("IDLE,", "IDEL,")
        .replace("slurm.drain: {", "slurm.drian: {")
        .replace("timeout: 5m", "timeout: 300")
        .replace("diag_level: 2", "diag_level: high")
        .replace("approval: hitl", "approval: maybe\nnotes: x");
    let codes_found: Vec<_> = found(&text).into_iter().map(|(c, _)| c).collect();
    assert_eq!(
        codes_found,
        [
            codes::WRONG_TYPE,
            codes::UNKNOWN_WORD,
            "CN0014",
            codes::UNKNOWN_ACTION,
            codes::BAD_ARGUMENT,
            codes::BAD_ARGUMENT,
            codes::UNKNOWN_WORD,
            codes::UNKNOWN_FIELD
        ]
    );
}

#[test]
fn duplicates_do_not_hide_the_rest() {
    let text = with("owner: gpu-oncall", "owner: gpu-oncall\nowner: other\ntraget: gpu");
    check(&text, &[(codes::DUPLICATE_KEY, "owner"), (codes::UNKNOWN_FIELD, "traget")]);
}

#[test]
fn conditions_are_placed_in_the_document() {
    check(&with("IDLE, COMPLETING", "IDLE, COMPLETNG"), &[("CN0014", "COMPLETNG")]);
    assert!(help_of(&with("IDLE, COMPLETING", "IDLE, COMPLETNG"), "CN0014").contains("COMPLETING"));
    check(&with("when: active_jobs == 0", "when: active_jbos == 0"), &[("CN0011", "active_jbos")]);
    check(&with("when: active_jobs == 0", "when: \"active_jobs == '0'\""), &[("CN0016", "'0'")]);
    check(&with("when: active_jobs == 0", "when: true"), &[(codes::WRONG_TYPE, "true")]);
    check(
        &with("when: active_jobs == 0", "when: \"{{ active_jobs }} == 0\""),
        &[(codes::TEMPLATE_HERE, "{{")],
    );
    check(&with("when: active_jobs == 0", "when: >-\n      active_jbos == 0"), &[("CN0011", ">-")]);
    check(
        &with("check: gpu", "chekc: gpu"),
        &[(codes::UNKNOWN_FIELD, "chekc"), (codes::MISSING_FIELD, "chekc")],
    );
}

#[test]
fn steps_and_arguments() {
    let drain = "slurm.drain: { reason: \"ECC alert {{ alert.id }}\" }";
    check(&with(drain, "slurm.drian: { reason: x }"), &[(codes::UNKNOWN_ACTION, "slurm.drian")]);
    assert_eq!(
        help_of(&with(drain, "drain: { reason: x }"), codes::UNKNOWN_ACTION),
        "did you mean `slurm.drain`?"
    );
    check(&with(drain, "slurm.drain"), &[(codes::MISSING_ARGUMENT, "slurm.drain")]);
    check(&with(drain, "slurm.drain: { reason: }"), &[(codes::MISSING_ARGUMENT, "slurm.drain")]);
    check(&with(drain, "slurm.drain: because"), &[(codes::BAD_STEP, "because")]);
    check(&with(drain, "slurm.drain: { reason: x, txt: y }"), &[(codes::UNKNOWN_ARGUMENT, "txt")]);
    check(&with(drain, "slurm.drain: { reason: 17 }"), &[(codes::BAD_ARGUMENT, "17")]);
    check(
        &with(drain, "slurm.drain: { reason: \"a\\nstate=resume\" }"),
        &[(codes::BAD_LENGTH, "\"a\\nstate=resume\"")],
    );
    check(&with("- slurm.resume\nrollback", "- 42\nrollback"), &[(codes::BAD_STEP, "42")]);
    check(
        &with("- slurm.resume\nrollback", "- when: active_jobs == 0\nrollback"),
        &[(codes::BAD_STEP, "when: active_jobs == 0")],
    );
    check(&with("when: active", "whne: active"), &[(codes::UNKNOWN_FIELD, "whne")]);
    check(
        &with("timeout: 5m", "timeout: 5m\n    health.verify_gpu:"),
        &[(codes::UNKNOWN_FIELD, "health.verify_gpu")],
    );
    check(&with("timeout: 5m", "timeout: 300"), &[(codes::BAD_ARGUMENT, "300")]);
    assert!(help_of(&with("timeout: 5m", "timeout: 300"), codes::BAD_ARGUMENT).contains("300s"));
    check(&with("timeout: 5m", "timeout: 2d"), &[(codes::BAD_TIMEOUT, "2d")]);
    check(&with("timeout: 5m", "timeout: 0s"), &[(codes::BAD_TIMEOUT, "0s")]);
    check(
        &with("timeout: 5m", "timeout: \"{{ gpu.temperature }}\""),
        &[(codes::TEMPLATE_TYPE, "\"{{ gpu.temperature }}\"")],
    );
    check(&with("max: 24h", "max: 20d"), &[(codes::BAD_TIMEOUT, "\"{{ params.idle_wait }}\"")]);
    check(
        &with("bus_id: \"{{ gpu.bus_id }}\"", "bus_id: \"{{ gpu.bus_id }}\", timeout: 4m"),
        &[(codes::GIVEN_TWICE, "5m")],
    );
    check(&with("timeout: 5m", "attempts: 3"), &[(codes::BAD_ATTEMPTS, "3")]);
    check(&with("timeout: 5m", "attempts: 0"), &[(codes::BAD_ATTEMPTS, "0")]);
    check(&with("timeout: 5m", "attempts: many"), &[(codes::WRONG_TYPE, "many")]);
    check(&with("{{ alert.id }}", "{{alert_id}}"), &[(codes::UNKNOWN_NAME, "alert_id")]);
    assert_eq!(
        help_of(&with("{{ alert.id }}", "{{alert_id}}"), codes::UNKNOWN_NAME),
        "did you mean `alert.id`?"
    );
    check(&with("\"{{ gpu.bus_id }}\"", "{{ gpu.bus_id }}"), &[(codes::TEMPLATE_SYNTAX, "{{ gpu.bus_id }")]);
}

#[test]
fn parameters() {
    let decl = "{ type: duration, default: 4h, max: 24h }";
    check(&with(decl, "{ type: duration, default: 4, max: 24h }"), &[(codes::BAD_PARAM, "4")]);
    check(&with(decl, "{ type: duration, default: 48h, max: 24h }"), &[(codes::PARAM_LIMITS, "48h")]);
    check(&with(decl, "{ type: duration, default: 4h, min: 5h, max: 24h }"), &[(codes::PARAM_LIMITS, "4h")]);
    check(&with(decl, "{ type: time, default: 4h }"), &[(codes::UNKNOWN_WORD, "time")]);
    check(&with(decl, "{ default: 4h }"), &[(codes::MISSING_FIELD, "default")]);
    check(&with(decl, "4h"), &[(codes::WRONG_TYPE, "4h")]);
    check(&with(decl, "{ type: int, default: 4 }"), &[(codes::TEMPLATE_TYPE, "\"{{ params.idle_wait }}\"")]);
    check(
        &with(decl, "{ type: duration, default: 4h, max: 24h }\n  dry: { type: bool, default: yes }"),
        &[(codes::BAD_PARAM, "yes")],
    );
    check(
        &with(decl, "{ type: duration, default: 4h, max: 24h }\n  why: { type: text, max: z }"),
        &[(codes::BAD_PARAM, "z")],
    );
    let unused = with(decl, "{ type: duration, default: 4h, max: 24h }\n  extra: { type: int, default: 1 }");
    check(&unused, &[(codes::UNUSED_PARAM, "extra")]);
    let l = load(unused.as_bytes(), "x");
    assert_eq!(l.diagnostics[0].severity, Severity::Warning);
    assert!(l.playbook.is_some());
    check(
        &with(decl, "{ type: duration, default: 4h, max: 24h }\n  Max-Age: { type: duration }")
            .replace("when: active_jobs == 0", "when: alert.age < params.max_age"),
        &[(codes::BAD_NAME, "Max-Age"), ("CN0012", "params.max_age")],
    );
}

#[test]
fn safety_rules() {
    let reset =
        "  - dcgm.reset_gpu: { bus_id: \"{{ gpu.bus_id }}\" }\n    when: active_jobs == 0\n    timeout: 5m\n";
    let verify = "  - health.verify_gpu: { diag_level: 2 }\n";
    let resume = "  - slurm.resume\nrollback";
    let drain = "  - slurm.drain: { reason: \"ECC alert {{ alert.id }}\" }\n";
    let wait = "  - slurm.wait_idle: { timeout: \"{{ params.idle_wait }}\" }\n";
    let no_diag = |t: String| t.replace(", gpu.diag]", "]");
    // Verification missing, and behind the return.
    check(&no_diag(with(verify, "")), &[(codes::RETURN_UNVERIFIED, "slurm.resume")]);
    let late = with(verify, "").replace(resume, &format!("  - slurm.resume\n{verify}rollback"));
    check(&late, &[(codes::RETURN_UNVERIFIED, "slurm.resume")]);
    let early = with(verify, "").replace(reset, &format!("{verify}{reset}"));
    check(&early, &[(codes::RETURN_UNVERIFIED, "slurm.resume")]);
    let drained =
        no_diag(with(verify, "").replace(resume, "rollback").replace("approval", "ends: drained\napproval"));
    check(&drained, &[(codes::UNVERIFIED_STEP, "dcgm.reset_gpu")]);
    // A second reset after the verification needs its own.
    let twice = with(verify, &format!("{verify}{reset}"));
    check(&twice, &[(codes::RETURN_UNVERIFIED, "slurm.resume")]);
    // The node stays out without saying so, or says so and does not.
    check(&with(resume, "rollback"), &[(codes::LEFT_DRAINED, "slurm.drain")]);
    check(&with(resume, "rollback").replace("approval", "ends: drained\napproval"), &[]);
    check(&with("approval: hitl", "approval: hitl\nends: drained"), &[(codes::WRONG_END, "drained")]);
    check(&with("approval: hitl", "approval: hitl\nends: broken"), &[(codes::UNKNOWN_WORD, "broken")]);
    // Out of service and idle before the reset.
    let unwaited =
        with(wait, "").replace("params:\n  idle_wait: { type: duration, default: 4h, max: 24h }\n", "");
    check(&unwaited, &[(codes::NOT_TAKEN_OUT, "dcgm.reset_gpu")]);
    let moved = with(wait, "").replace(drain, &format!("{wait}{drain}"));
    check(&moved, &[(codes::NOT_TAKEN_OUT, "dcgm.reset_gpu")]);
    // A node that nobody took out.
    let undrained =
        with(drain, "").replace("slurm.drain, ", "").replace("rollback:\n  - slurm.resume:\n", "");
    check(&undrained, &[(codes::NOT_TAKEN_OUT, "dcgm.reset_gpu"), (codes::NOT_OURS, "slurm.resume")]);
    // The rollback.
    check(&with("  - slurm.resume:\n", reset), &[(codes::DISRUPTIVE_ROLLBACK, "dcgm.reset_gpu")]);
    check(&with("  - slurm.resume:\n", drain), &[]);
    let read_only = "steps:\n  - health.verify_gpu\nrollback:\n  - slurm.resume\napproval: auto\n";
    let start = GOOD.find("requires").unwrap();
    let head = &GOOD[..start];
    check(
        &format!("{head}requires: {{ capabilities: [gpu.diag] }}\n{read_only}"),
        &[(codes::USELESS_ROLLBACK, "slurm.resume")],
    );
    // Nobody is asked; nothing is proven.
    check(&with("approval: hitl", "approval: auto"), &[(codes::AUTO_MUTATES, "auto")]);
    check(&with("approval: hitl", "approval: canary"), &[]);
    let bare = "preconditions:\n  - node.state in [IDLE, COMPLETING]\n  - check: gpu.row_remap_failure == false\n    otherwise: hardware service\n";
    check(&with(bare, ""), &[(codes::NO_PRECONDITIONS, "steps")]);
    check(&with(bare, "preconditions: []\n"), &[(codes::NO_PRECONDITIONS, "preconditions")]);
    check(&with("  - node.state in [IDLE, COMPLETING]\n", ""), &[(codes::NO_NODE_STATE, "preconditions")]);
    // Targets and capabilities.
    let node = with("target: gpu", "target: node").replace("select: gpu.ecc_dbe_volatile > 0\n", "");
    check(
        &node,
        &[
            ("CN0013", "gpu.row_remap_failure"),
            (codes::NEEDS_GPU, "dcgm.reset_gpu"),
            (codes::TEMPLATE_TYPE, "gpu.bus_id"),
            (codes::NEEDS_GPU, "health.verify_gpu"),
        ],
    );
    check(
        &with("target: gpu", "target: node").replace("gpu.ecc_dbe_volatile > 0", "active_jobs == 0"),
        &[
            (codes::SELECT_ON_NODE, "active_jobs == 0"),
            ("CN0013", "gpu.row_remap_failure"),
            (codes::NEEDS_GPU, "dcgm.reset_gpu"),
            (codes::TEMPLATE_TYPE, "gpu.bus_id"),
            (codes::NEEDS_GPU, "health.verify_gpu"),
        ],
    );
    check(&with(", gpu.reset", ""), &[(codes::MISSING_CAPABILITY, "dcgm.reset_gpu")]);
    check(&with("gpu.reset, ", "gpu.reset, node.collect, "), &[(codes::UNUSED_CAPABILITY, "node.collect")]);
    check(&with("gpu.reset, ", "gpu.reset, gpu.rset, "), &[(codes::UNUSED_CAPABILITY, "gpu.rset")]);
    let head_steps = GOOD.find("steps:").unwrap();
    let no_steps = format!("{}steps: []\napproval: hitl\n", &GOOD[..head_steps]);
    assert!(found(&no_steps).iter().any(|(c, t)| c == codes::NO_STEPS && t == "steps"));
}

#[test]
fn the_example_of_the_design_loads() {
    // Without `node.collect` among the capabilities: evidence is worth having, and no reason to refuse.
    let text = GOOD.replace("  - dcgm.reset_gpu", "  - node.collect_evidence\n  - dcgm.reset_gpu");
    check(&text, &[(codes::MISSING_CAPABILITY, "node.collect_evidence")]);
    assert!(load(text.as_bytes(), "x").playbook.is_some());
}

#[test]
fn the_form_of_the_founding_documents_is_explained_and_fixed() {
    let text = "playbook: dcgm-ecc-drain-reset\nversion: 1.2.0\npreconditions:\n- node.state in [IDLE, COMPLETING]\n- active_jobs == 0\nsteps:\n- slurm.drain(reason: \"DCGM ECC alert {{alert_id}}\")\n- dcgm.reset_gpu(bus_id)\n- health.verify_gpu(timeout: 300s)\nrollback:\n- slurm.resume()\napproval: hitl\n";
    let all = found(text);
    let calls: Vec<&str> =
        all.iter().filter(|(c, _)| c == codes::CALL_NOTATION).map(|(_, t)| t.as_str()).collect();
    assert_eq!(
        calls,
        [
            "slurm.drain(reason: \"DCGM ECC alert {{alert_id}}\")",
            "dcgm.reset_gpu(bus_id)",
            "health.verify_gpu(timeout: 300s)",
            "slurm.resume()"
        ]
    );
    // Everything else that is wrong is said too, at its place in the text as it is.
    assert!(all.iter().any(|(c, _)| c == codes::MISSING_FIELD));
    assert!(all.iter().any(|(c, t)| c == codes::UNKNOWN_NAME && t.starts_with("slurm.drain(")));
    assert!(
        help_of(text, codes::CALL_NOTATION)
            .contains("- slurm.drain: { reason: \"DCGM ECC alert {{alert_id}}\" }")
    );
    assert_eq!(help_of(text, codes::UNKNOWN_NAME), "did you mean `alert.id`?");

    let calls = GOOD
        .replace(
            "slurm.drain: { reason: \"ECC alert {{ alert.id }}\" }",
            "slurm.drain(reason: \"ECC alert {{ alert.id }}\")  # why",
        )
        .replace("health.verify_gpu: { diag_level: 2 }", "health.verify_gpu(diag_level: 2)")
        .replace("  - slurm.resume\nrollback", "  - slurm.resume()\nrollback");
    assert!(load(calls.as_bytes(), "x").playbook.is_none());
    let fixed = engine_playbook::fix(calls.as_bytes()).unwrap();
    assert_eq!(fixed.replace("  # why", ""), GOOD);
    assert_eq!(engine_playbook::fix(fixed.as_bytes()), None);
}
