//! The watch over the whole cluster: what states and reasons tell, and that nothing is told twice or about a node in
//! somebody's hands.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop at once, as tests do")]

use engine_core::incident::{Alert, Counters, FleetState, Heard, IntakeRules, Place, Shape, hear, tick};
use engine_core::known::{Cause, Known};
use engine_core::model::node_state::{classify, parse_state_text};
use engine_core::model::{Node, NodeName, Reason};
use engine_core::watch::{Pattern, Reasons, SlurmRules, SlurmWatch, Standing, slurm, standing};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

const OURS: &str = "[slurmedic:dcgm-ecc-drain-reset@1.3.0#r1] ecc";

fn at(seconds: i64) -> Timestamp {
    "2026-03-04T05:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

fn reasons() -> Reasons {
    let one = |is: &str, fault: &str| Pattern {
        id: is.to_owned(),
        is: Some(is.to_owned()),
        fault: Some(fault.to_owned()),
        says: "it is so".to_owned(),
        ..Pattern::default()
    };
    let reasons = vec![
        one("Not responding", "node-not-responding"),
        one("Kill task failed", "slurm-kill-task-failed"),
        one("Epilog error", "slurm-prolog-epilog-failure"),
        Pattern { fault: None, planned: true, ..one("reboot issued", "") },
    ];
    Reasons::new(reasons).unwrap()
}

fn node(name: &str, state: &str, reason: Option<&str>, boot: Option<i64>) -> Node {
    let (base, flags) = parse_state_text(state);
    let unseen = || Cause::NotObserved;
    let written = |text: &str| Reason {
        text: text.to_owned(),
        user: Known::Known("slurm".to_owned()),
        at: Known::Known(at(0)),
    };
    Node {
        name: NodeName::new(name).unwrap(),
        state: classify(&base, &flags),
        base,
        flags,
        reason: Known::Known(reason.map(written)),
        partitions: Known::Known(vec!["main".to_owned()]),
        features: Known::Known(vec![]),
        gres: Known::Known("gpu:h100:8".to_owned()),
        gpus_configured: Known::Known(8),
        gpus_allocated: Known::Known(0),
        cpus: Known::Known(64),
        cpus_allocated: Known::Known(0),
        memory_mib: Known::Known(512_000),
        boot_time: boot.map_or(Known::unknown(unseen(), ""), |s| Known::Known(at(s))),
        slurmd_start_time: Known::unknown(unseen(), ""),
        slurmd_version: Known::unknown(unseen(), ""),
        comment: Known::Known(None),
        extra: Known::Known(None),
        reservation: Known::Known(None),
    }
}

/// Looks at one node again and again.
struct Eyes {
    watch: SlurmWatch,
    standing: Standing,
}

impl Eyes {
    fn new() -> Self {
        Self { watch: SlurmWatch::default(), standing: Standing::new() }
    }

    fn look(&mut self, node: &Node, seconds: i64) -> Vec<String> {
        let nodes = std::slice::from_ref(node);
        let alerts = self.watch.look(nodes, &reasons(), &SlurmRules::default(), &self.standing, at(seconds));
        alerts.iter().map(|a| format!("{}{}", if a.firing { "+" } else { "-" }, a.fault)).collect()
    }

    fn stands(&mut self, fault: &str) {
        self.standing.entry(NodeName::new("gpu001").unwrap()).or_default().insert(fault.to_owned());
    }
}

#[test]
fn what_a_first_look_tells() {
    for (state, reason, expected) in [
        ("IDLE", None, ""),
        ("MIXED", Some("Kill task failed"), ""),
        ("DOWN+NOT_RESPONDING", Some("Not responding"), "+node-not-responding"),
        ("IDLE+DRAIN", Some("Kill task failed"), "+slurm-kill-task-failed"),
        ("MIXED+DRAIN", Some("Epilog error"), "+slurm-prolog-epilog-failure"),
        (
            "IDLE+DRAIN",
            Some("Epilog error : Kill task failed"),
            "+slurm-kill-task-failed +slurm-prolog-epilog-failure",
        ),
        ("IDLE+INVALID_REG", None, "+slurm-invalid-registration"),
        ("IDLE+DRAIN+INVALID_REG", Some("bad dimm, alice"), ""),
        ("IDLE+DRAIN", Some("bad dimm, alice"), ""),
        ("DOWN+DRAIN", Some("bad dimm : Not responding"), ""),
        ("IDLE+DRAIN", Some(OURS), ""),
        ("DOWN+DRAIN+NOT_RESPONDING", Some("[slurmedic:a@1.0.0#r1] x : Not responding"), ""),
        ("IDLE+MAINTENANCE+DRAIN", Some("Epilog error"), ""),
        ("DOWN+DRAIN+REBOOT_ISSUED", Some("Kill task failed : reboot issued"), ""),
        ("DOWN+POWERED_DOWN", Some("Not responding"), ""),
        ("IDLE+DRAIN+NEVER_HEARD_OF", Some("Kill task failed"), ""),
        ("IDLE+NOT_RESPONDING", None, ""),
        ("DOWN", None, ""),
        ("UNKNOWN", None, ""),
    ] {
        let told = Eyes::new().look(&node("gpu001", state, reason, None), 0).join(" ");
        assert_eq!(told, expected, "{state} {reason:?}");
    }
}

#[test]
fn silence_is_a_fault_after_a_while_only() {
    let mut eyes = Eyes::new();
    let silent = node("gpu001", "IDLE+NOT_RESPONDING", None, None);
    for seconds in [0, 60, 120] {
        assert_eq!(eyes.look(&silent, seconds), [""; 0]);
    }
    assert_eq!(eyes.look(&silent, 180), ["+node-not-responding"]);
    assert_eq!(eyes.look(&silent, 240), ["+node-not-responding"], "told until it is on record");
    eyes.stands("node-not-responding");
    assert_eq!(eyes.look(&silent, 300), [""; 0]);
    let down = node("gpu001", "DOWN", None, None);
    assert_eq!(eyes.look(&down, 301), ["+slurm-node-out-unexplained"]);
    let mut anew = Eyes::new();
    anew.stands("node-not-responding");
    assert_eq!(
        anew.look(&silent, 310),
        [""; 0],
        "an engine that was just started ends nothing it cannot judge"
    );
}

#[test]
fn a_fault_is_over_when_the_node_serves_and_not_in_somebodys_hands() {
    let mut eyes = Eyes::new();
    eyes.stands("slurm-kill-task-failed");
    for (state, reason) in [
        ("IDLE+DRAIN", Some("alice looks")),
        ("IDLE+DRAIN", Some(OURS)),
        ("IDLE+MAINTENANCE+RESERVED", None),
        ("IDLE+NOT_RESPONDING", None),
        ("UNKNOWN", None),
    ] {
        assert_eq!(eyes.look(&node("gpu001", state, reason, None), 0), [""; 0], "{state}");
    }
    let well = node("gpu001", "MIXED", None, None);
    assert_eq!(eyes.look(&well, 60), ["-slurm-kill-task-failed"]);
    let again = node("gpu001", "MIXED+DRAIN", Some("Kill task failed"), None);
    assert_eq!(eyes.look(&again, 120), ["+slurm-kill-task-failed"], "it is not over after all");
    assert_eq!(eyes.look(&again, 180), [""; 0]);
}

#[test]
fn a_boot_that_nobody_asked_for_is_a_fault_for_a_while() {
    let boot = "+kernel-panic-or-unexpected-boot";
    let idle = |boot| node("gpu001", "IDLE", None, boot);
    let mut eyes = Eyes::new();
    assert_eq!(eyes.look(&idle(Some(-9_000)), 0), [""; 0], "the first look knows no boot before");
    assert_eq!(eyes.look(&idle(Some(-8_999)), 60), [""; 0], "boot times jitter");
    assert_eq!(eyes.look(&idle(None), 120), [""; 0], "unknown after a resume");
    assert_eq!(eyes.look(&idle(Some(90)), 180), [boot]);
    eyes.stands("kernel-panic-or-unexpected-boot");
    assert_eq!(eyes.look(&idle(Some(90)), 240), [""; 0]);
    assert_eq!(eyes.look(&idle(Some(90)), 1_200), ["-kernel-panic-or-unexpected-boot"]);

    for hands in [
        node("gpu001", "IDLE+DRAIN", Some("firmware, alice"), None),
        node("gpu001", "DOWN+DRAIN+REBOOT_ISSUED", Some("x : reboot issued"), None),
        node("gpu001", "IDLE+DRAIN", Some(OURS), None),
    ] {
        let mut eyes = Eyes::new();
        assert_eq!(eyes.look(&idle(Some(-9_000)), 0), [""; 0]);
        assert_eq!(eyes.look(&hands, 60), [""; 0]);
        assert_eq!(eyes.look(&idle(Some(90)), 120), [""; 0], "{:?}", hands.reason);
    }
    let mut blind = Eyes::new();
    assert_eq!(blind.look(&idle(Some(-9_000)), 0), [""; 0]);
    assert_eq!(blind.look(&idle(Some(90)), 3_600), [""; 0], "nobody looked for an hour");
}

#[test]
fn a_name_of_any_length_gives_a_series() {
    let long = "n".repeat(128);
    let mut watch = SlurmWatch::default();
    let nodes = [
        node(&long, "IDLE+DRAIN", Some("Epilog error"), None),
        node("gpu001", "IDLE+DRAIN", Some("Epilog error"), None),
    ];
    let told = watch.look(&nodes, &reasons(), &SlurmRules::default(), &Standing::new(), at(0));
    assert_eq!(told.len(), 2);
    assert_ne!(told[0].fingerprint, told[1].fingerprint);
    assert_eq!(told[1].fingerprint.as_str(), "slurm-poll:slurm-prolog-epilog-failure:gpu001");
}

const STATES: [&str; 12] = [
    "IDLE",
    "MIXED",
    "IDLE+DRAIN",
    "MIXED+DRAIN",
    "DOWN",
    "DOWN+NOT_RESPONDING",
    "DOWN+DRAIN",
    "IDLE+NOT_RESPONDING",
    "IDLE+DRAIN+INVALID_REG",
    "IDLE+MAINTENANCE+RESERVED",
    "DOWN+DRAIN+REBOOT_ISSUED",
    "UNKNOWN",
];
const TEXTS: [Option<&str>; 7] = [
    None,
    Some("Not responding"),
    Some("Kill task failed"),
    Some("Epilog error : Not responding"),
    Some("bad dimm, alice"),
    Some(OURS),
    Some("[slurmedic:a@1.0.0#r9] x : Kill task failed"),
];

proptest! {
    /// Any states, reasons, boots and restarts of the engine: the record has each fault of a node open once at most, a node
    /// that carries a mark of ours opens and ends nothing, and what is told again is the same series.
    #[test]
    fn each_fault_of_a_node_is_open_once_and_our_own_drain_is_none(
        steps in prop::collection::vec(
            (prop::collection::vec((0..STATES.len(), 0..TEXTS.len(), 0..3_i64), 3), 1..400_i64, prop::bool::weighted(0.1)),
            1..60,
        )
    ) {
        let names = ["gpu001", "gpu002", "gpu003"];
        let shape = Shape::new(names.iter().map(|n| (NodeName::new(n).unwrap(), Place::default())));
        let (mut state, mut counters, mut watch) = (FleetState::default(), Counters::default(), SlurmWatch::default());
        let (rules, mut now, mut seq) = (IntakeRules::default(), 0, 0);
        for (shown, pass, restart) in steps {
            now += pass;
            if restart {
                watch = SlurmWatch::default();
                counters = Counters::default();
            }
            let nodes: Vec<Node> = names.iter().zip(&shown).map(|(n, (s, r, b))| node(n, STATES[*s], TEXTS[*r], Some(b * 1_000))).collect();
            let known = standing(&state, slurm::SOURCE);
            let told = watch.look(&nodes, &reasons(), &SlurmRules::default(), &known, at(now));
            for (i, (_, r, _)) in shown.iter().enumerate() {
                let ours = TEXTS[*r].is_some_and(|t| t.starts_with("[slurmedic:"));
                let is_out = !matches!(STATES[shown[i].0], "IDLE" | "MIXED" | "IDLE+NOT_RESPONDING" | "UNKNOWN");
                if ours && is_out {
                    prop_assert!(told.iter().all(|a: &Alert| a.node.as_str() != names[i]), "{told:?}");
                }
            }
            for alert in told {
                if let Heard::New(event) = hear(&state, &mut counters, &shape, &rules, alert, at(now)) {
                    seq += 1;
                    state.apply(seq, at(now), &event).unwrap();
                }
            }
            for event in tick(&state, &mut counters, &rules, at(now), 1_000) {
                seq += 1;
                state.apply(seq, at(now), &event).unwrap();
            }
            for name in names {
                let of_node: Vec<_> = state.incidents().filter(|i| i.node().is_some_and(|n| n.as_str() == name)).collect();
                prop_assert!(of_node.len() <= 1);
                let mut faults: Vec<&str> = of_node.iter().flat_map(|i| i.alerts.values()).filter(|s| s.firing).map(|s| s.fault.as_str()).collect();
                let all = faults.len();
                faults.sort_unstable();
                faults.dedup();
                prop_assert_eq!(faults.len(), all);
            }
        }
    }
}
