//! Situations: what is decided, from the file to the decision.

use engine_core::decide::{Decision, Outcome, Situation, decide};
use engine_core::knowledge::Knowledge;
use engine_playbook::knowledge::built_in;
use engine_playbook::situation::load;
use std::sync::LazyLock;

static KNOWN: LazyLock<Knowledge> = LazyLock::new(|| built_in().unwrap());

fn all(text: &str) -> Vec<Situation> {
    load(text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn one(text: &str) -> Decision {
    decide(&all(text)[0], &KNOWN)
}

/// Every XID on its own, on a busy node and an idle one: a decision, and nothing that the knowledge forbids.
#[test]
fn every_xid_alone_is_decided_and_a_mistake_of_a_program_takes_nothing_away() {
    for code in 1..=180 {
        for node in ["{ base: IDLE }", "{ base: ALLOCATED, jobs: [1] }", "{ base: IDLE, model: B200 }"] {
            let d = one(&format!(
                "{{ id: x, alerts: [{{ name: GpuXid, node: gpu010, xid: {code} }}], node: {node} }}"
            ));
            let takes = d.actions.iter().any(|a| !engine_core::knowledge::is_harmless(a));
            match KNOWN.xids.get(&code) {
                None => assert_eq!(d.outcome, Outcome::Human, "{code}"),
                Some(x) if x.is_application() => {
                    assert!(!takes && d.outcome != Outcome::Propose, "{code}: {d:?}");
                }
                Some(_) => assert!(!takes || d.approval.is_some_and(|a| a.people() > 0), "{code}: {d:?}"),
            }
            assert_eq!(d.playbook.is_none(), matches!(d.outcome, Outcome::None | Outcome::Human), "{code}");
            assert!(d.playbook.is_some() || d.reason_code.is_some(), "{code}");
        }
    }
}

/// Whatever stands in a situation, there is a decision, and where the node is somebody's nothing is taken away.
#[test]
fn somebody_elses_node_is_never_touched() {
    let names = [
        "GpuXid",
        "RowRemapPending",
        "RowRemapFailure",
        "IbPortDown",
        "FabricManagerStatus",
        "GpuCountMismatch",
        "SlurmNodeDrain",
        "SlurmNodeDown",
        "StaleDrain",
        "StuckCompleting",
        "GhostGpuProcess",
        "KernelLog",
        "NoSuchAlert",
    ];
    for name in names {
        for xid in [13, 48, 63, 79, 119] {
            for reason in
                ["replacing DIMM - Ana", "bad dimm : Not responding", "[slurmedic:a@1.0.0#r9] x", "approved"]
            {
                let d = one(&format!(
                    "{{ id: x, alerts: [{{ name: {name}, node: gpu001, xid: {xid}, value: 1, text: x }}], node: {{ flags: [DRAIN], reason: {reason:?}, drained_by: ana }} }}"
                ));
                assert!(d.actions.is_empty() && d.outcome == Outcome::Human, "{name} {xid} {reason}: {d:?}");
            }
        }
    }
}

#[test]
fn files_that_are_no_situations_are_refused() {
    for text in [
        "[1]",
        "x",
        "{ cases: 3 }",
        "{ id: a, alerts: 3 }",
        "{ id: a, alerts: [{ node: x }] }",
        "{ id: a, node: 3 }",
        "a: [",
        "defaults: 3\ncases: []",
    ] {
        assert!(load(text.as_bytes()).is_err(), "{text}");
    }
    assert!(load(&vec![b' '; engine_playbook::situation::MAX_SITUATIONS + 1]).is_err());
    let odd = one(
        "{ id: a, alerts: [{ name: LustreChangelog, counts: { 17: many, b: 1e400 }, threshold: .nan }], context: { 5: [[[]]] } }",
    );
    assert!(odd.actions.is_empty());
}

#[test]
fn every_case_is_decided_as_it_says() {
    let text = include_str!("situations.yaml");
    let expected: serde_json::Value = serde_yaml::from_str(text).unwrap();
    let cases = expected["cases"].as_array().unwrap();
    let situations = all(text);
    assert_eq!(cases.len(), situations.len());
    let mut wrong = Vec::new();
    for (case, s) in cases.iter().zip(&situations) {
        let decided = decide(s, &KNOWN);
        let d = serde_json::to_value(&decided).unwrap();
        let want = &case["expect"];
        for key in ["playbook", "outcome", "reason_code", "approval"] {
            // A playbook that is not there is expected to be none; the other keys count where they are given.
            if (key == "playbook" || want.get(key).is_some()) && d[key] != want[key] {
                wrong.push(format!("{}: {key} is {}, not {}: {:?}", s.id, d[key], want[key], decided.why));
            }
        }
        for word in case["must_not"].as_array().into_iter().flatten().filter_map(|w| w.as_str()) {
            if let Some(action) = decided.actions.iter().find(|a| a.contains(word)) {
                wrong.push(format!("{}: {action} must not be done ({word})", s.id));
            }
        }
        assert!(!decided.why.is_empty(), "{}", s.id);
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
