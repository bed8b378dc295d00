//! Each rule of the judgement with its numbers, and what it answers.

use super::*;
use engine_core::Unknown;
use engine_core::policy::{
    Clock, Freeze, GpuIdentity, Ledger, Outcome, Policy, Rate, Role, Rule, Share, Verdict, Window, Zone,
    in_canary, judge,
};

const WAIT: Outcome = Outcome::Wait { until: None };

fn verdict(policy: &Policy, request: &Request, fleet: &Fleet, ledger: &Ledger) -> Verdict {
    let v = judge(policy, request, fleet, ledger, now());
    assert_eq!(v.policy, Some(policy.digest().unwrap()));
    let json = serde_json::to_string(&v).unwrap();
    assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), v, "{json}");
    let worst = v.findings.iter().map(|f| f.outcome).fold(Outcome::Permit, Outcome::worse);
    assert_eq!(v.outcome, worst);
    v
}

/// The one finding that stands in the way.
fn obstacle(v: &Verdict) -> (Rule, Outcome, String) {
    let all: Vec<_> = v.obstacles().collect();
    assert_eq!(all.len(), 1, "{all:#?}");
    (all[0].rule, all[0].outcome, all[0].says.clone())
}

#[test]
fn a_healthy_cluster_permits_and_shows_its_numbers() {
    let v = verdict(&Policy::default(), &request("n001"), &fleet(&idle(200)), &Ledger::default());
    assert!(v.permits());
    let says: Vec<String> = v.findings.iter().map(|f| format!("{}: {}", f.rule, f.says)).collect();
    assert_eq!(
        says,
        [
            "attempts: gpu-ecc: 0 of 2 attempts in 1d are used on n001",
            "concurrent_runs: 0 of 4 concurrent runs go on",
            "budget: fleet: 0 of 200 out of service, budget 4 (2%)",
            "budget: partition main: 0 of 200 out of service, budget 10 (5%)",
            "budget: rack unknown: 0 of 200 out of service, budget 50 (25%)",
            "rate: reversible: 0 of 60 per 1h",
            "rate: disruptive: 0 of 10 per 1h",
        ]
    );
}

#[test]
fn a_full_budget_waits_and_says_which() {
    let mut nodes = idle(200);
    for n in &mut nodes[10..14] {
        *n = node(n.name.as_str(), "DOWN");
    }
    let (rule, outcome, says) =
        obstacle(&verdict(&Policy::default(), &request("n001"), &fleet(&nodes), &Ledger::default()));
    assert_eq!((rule, outcome), (Rule::Budget, WAIT));
    assert_eq!(says, "fleet: 4 of 200 out of service, budget 4 (2%)");
    // A node that is out already takes nothing more.
    let v = verdict(&Policy::default(), &request("n010"), &fleet(&nodes), &Ledger::default());
    assert!(v.permits(), "{v:#?}");
    assert!(v.findings.iter().any(|f| f.says.ends_with("n010 is among them already: down")));
    // One that does not take the node out needs no budget.
    let look = Request { takes_out: false, ..request("n001") };
    assert!(verdict(&Policy::default(), &look, &fleet(&nodes), &Ledger::default()).permits());
    let mut by_count = Policy::default();
    by_count.budgets.fleet = Share::Count(50);
    by_count.budgets.partitions.insert("main".to_owned(), Share::Count(4));
    let (_, _, says) = obstacle(&verdict(&by_count, &request("n001"), &fleet(&nodes), &Ledger::default()));
    assert_eq!(says, "partition main: 4 of 200 out of service, budget 4");
}

#[test]
fn locks_count_before_their_drain_is_seen() {
    let policy = Policy { concurrent_runs: 100, ..Policy::default() };
    let mut ledger = Ledger::default();
    for i in 0..4 {
        ledger.hold(held(&format!("n{:03}", 50 + i), &format!("r{i}")));
    }
    let fleet = fleet(&idle(200));
    let (rule, _, says) = obstacle(&verdict(&policy, &request("n001"), &fleet, &ledger));
    assert_eq!((rule, says.as_str()), (Rule::Budget, "fleet: 4 of 200 out of service, budget 4 (2%)"));
    // Its own lock does not stand in its way.
    let own = Request { run: run("r0"), node: name("n050"), ..request("n050") };
    assert!(verdict(&policy, &own, &fleet, &ledger).permits());
    let other = Request { node: name("n050"), ..request("n050") };
    let v = verdict(&policy, &other, &fleet, &ledger);
    assert!(v.obstacles().any(|f| f.rule == Rule::NodeLock && f.says == "run r0 has n050"));
}

#[test]
fn runs_side_by_side_are_limited() {
    let mut policy = Policy { concurrent_runs: 2, ..Policy::default() };
    policy.budgets.fleet = Share::percent(50);
    policy.budgets.partition = Share::percent(50);
    policy.budgets.rack = Share::percent(50);
    let fleet = fleet(&idle(10));
    let mut ledger = Ledger::default();
    ledger.hold(held("n005", "r1"));
    ledger.hold(held("n006", "r1"));
    assert!(verdict(&policy, &request("n001"), &fleet, &ledger).permits(), "one run may hold two nodes");
    ledger.hold(held("n007", "r2"));
    let (rule, outcome, says) = obstacle(&verdict(&policy, &request("n001"), &fleet, &ledger));
    assert_eq!((rule, outcome, says.as_str()), (Rule::ConcurrentRuns, WAIT, "2 of 2 concurrent runs go on"));
}

#[test]
fn attempts_are_counted_per_fault_node_and_gpu_within_the_window() {
    let policy = Policy::default();
    let fleet = fleet(&idle(200));
    let gpu = |bus: &str, uuid: &str| GpuIdentity {
        serial: None,
        uuid: Some(uuid.to_owned()),
        bus_id: Some(bus.to_owned()),
    };
    let with_gpu = |p: PastRun, g: GpuIdentity| PastRun { gpu: Some(g), ..p };
    let by = |p: PastRun, playbook: &str| PastRun { playbook: playbook.to_owned(), faults: vec![], ..p };
    let recent = "2026-11-21T02:00:00Z";
    for (what, runs, request, tried) in [
        ("same fault", vec![past("n001", "gpu-ecc", recent); 2], request("n001"), 2),
        ("another node", vec![past("n002", "gpu-ecc", recent); 2], request("n001"), 0),
        ("another fault", vec![past("n001", "gpu-xid", recent); 2], request("n001"), 0),
        ("too long ago", vec![past("n001", "gpu-ecc", "2026-11-20T12:00:00Z"); 2], request("n001"), 0),
        ("just within", vec![past("n001", "gpu-ecc", "2026-11-20T12:00:01Z"); 2], request("n001"), 2),
        ("in the future", vec![past("n001", "gpu-ecc", "2026-12-24T12:00:01Z"); 2], request("n001"), 2),
        (
            "another GPU",
            vec![with_gpu(past("n001", "gpu-ecc", recent), gpu("0:1", "a"))],
            Request { gpu: Some(gpu("0:2", "b")), ..request("n001") },
            0,
        ),
        (
            "perhaps the same GPU",
            vec![past("n001", "gpu-ecc", recent)],
            Request { gpu: Some(gpu("0:2", "b")), ..request("n001") },
            1,
        ),
        (
            "without a fault the playbook stands for it",
            vec![by(past("n001", "", recent), "gpu-reset"), by(past("n001", "", recent), "other")],
            Request { faults: vec![], ..request("n001") },
            1,
        ),
    ] {
        let mut ledger = Ledger::default();
        for r in runs {
            ledger.run(r);
        }
        let v = verdict(&policy, &request, &fleet, &ledger);
        let f = v.findings.iter().find(|f| f.rule == Rule::Attempts).unwrap();
        assert!(f.says.contains(&format!("{tried} of 2 attempts")), "{what}: {}", f.says);
        assert_eq!(f.outcome, if tried < 2 { Outcome::Permit } else { Outcome::NeedsPerson }, "{what}");
    }
}

#[test]
fn hardware_that_comes_back_again_and_again_is_for_a_person() {
    let policy = Policy { attempts: Rate::parse("100 per 1h").unwrap(), ..Policy::default() };
    let gpu = GpuIdentity {
        serial: Some("1650".to_owned()),
        uuid: Some("GPU-a".to_owned()),
        bus_id: Some("0:1B".to_owned()),
    };
    let ask = Request { gpu: Some(gpu.clone()), ..request("n001") };
    let fleet = fleet(&idle(200));
    // Three runs on the same unit, in three nodes.
    let mut ledger = Ledger::default();
    for n in ["n001", "n002", "n003"] {
        let moved = GpuIdentity { bus_id: Some(format!("0:{n}")), ..gpu.clone() };
        ledger.run(PastRun { gpu: Some(moved), ..past(n, "gpu-xid", "2026-11-01T00:00:00Z") });
    }
    let (rule, outcome, says) = obstacle(&verdict(&policy, &ask, &fleet, &ledger));
    assert_eq!((rule, outcome), (Rule::RepeatOffender, Outcome::NeedsPerson));
    assert_eq!(says, "GPU serial 1650: 3 of 3 runs in 30d");
    // Three units in the same slot.
    let mut ledger = Ledger::default();
    for serial in ["1", "2", "3"] {
        let other = GpuIdentity { serial: Some(serial.to_owned()), uuid: None, ..gpu.clone() };
        ledger.run(PastRun { gpu: Some(other), ..past("n001", "gpu-xid", "2026-11-01T00:00:00Z") });
    }
    let (_, _, says) = obstacle(&verdict(&policy, &ask, &fleet, &ledger));
    assert_eq!(says, "slot n001 0:1B: 3 of 3 runs in 30d");
    // A GPU without any name cannot be remembered.
    let nameless = Request { gpu: Some(GpuIdentity::default()), ..request("n001") };
    let (rule, outcome, _) = obstacle(&verdict(&policy, &nameless, &fleet, &Ledger::default()));
    assert_eq!((rule, outcome), (Rule::RepeatOffender, Outcome::NeedsPerson));
}

#[test]
fn rates_wait_until_there_is_room() {
    let mut policy = Policy::default();
    policy.rates.disruptive = Rate::parse("2 per 1h").unwrap();
    let mut ledger = Ledger::default();
    ledger.change(EffectClass::Disruptive, at("2026-11-21T11:10:00Z"));
    ledger.change(EffectClass::Disruptive, at("2026-11-21T11:30:00Z"));
    let fleet = fleet(&idle(200));
    let (rule, outcome, says) = obstacle(&verdict(&policy, &request("n001"), &fleet, &ledger));
    assert_eq!(rule, Rule::Rate);
    assert_eq!(outcome, Outcome::Wait { until: Some(at("2026-11-21T12:10:00Z")) });
    assert_eq!(says, "disruptive: 2 of 2 per 1h");
    let drain = Request { worst: EffectClass::Reversible, ..request("n001") };
    assert!(verdict(&policy, &drain, &fleet, &ledger).permits(), "a drain resets nothing");
    policy.rates.reversible = Rate::parse("0 per 1h").unwrap();
    let (_, outcome, _) = obstacle(&verdict(&policy, &drain, &fleet, &ledger));
    assert_eq!(outcome, Outcome::NeedsPerson, "a rate of 0 never has room");
}

#[test]
fn windows_bind_disruptive_work_and_freezes_all_but_reads_and_notes() {
    let fleet = fleet(&idle(200));
    let clock = |t| Clock::parse(t).unwrap();
    let berlin = Zone::named("Europe/Berlin").unwrap();
    let closed = Window { days: vec![], from: clock("22:00"), to: clock("06:00"), zone: berlin };
    let policy = Policy { windows: vec![closed], ..Policy::default() };
    let (rule, outcome, says) = obstacle(&verdict(&policy, &request("n001"), &fleet, &Ledger::default()));
    assert_eq!(rule, Rule::Window);
    assert_eq!(outcome, Outcome::Wait { until: Some(at("2026-11-21T21:00:00Z")) });
    assert_eq!(says, "the next change window opens 2026-11-21 22:00 CET");
    let drain = Request { worst: EffectClass::Reversible, ..request("n001") };
    assert!(verdict(&policy, &drain, &fleet, &Ledger::default()).permits());

    let freeze = Freeze { from: now(), to: at("2026-12-01T00:00:00Z"), why: "benchmark".to_owned() };
    let policy = Policy { freezes: vec![freeze], ..Policy::default() };
    for (worst, takes_out, free) in [
        (EffectClass::Read, false, true),
        (EffectClass::Annotate, false, true),
        (EffectClass::Reversible, true, false),
        (EffectClass::Disruptive, true, false),
        (EffectClass::Annotate, true, false),
    ] {
        let ask = Request { worst, takes_out, ..request("n001") };
        let v = verdict(&policy, &ask, &fleet, &Ledger::default());
        assert_eq!(v.permits(), free, "{worst:?}");
        if !free {
            assert_eq!(v.outcome, Outcome::Wait { until: Some(at("2026-12-01T00:00:00Z")) });
            assert!(obstacle(&v).2.ends_with(": benchmark"));
        }
    }
    // What was begun goes on, whatever the policy says now.
    let begun = Request { begun: true, ..request("n001") };
    let v = verdict(&policy, &begun, &fleet, &Ledger::default());
    assert!(v.permits() && v.findings.len() == 1);
}

#[test]
fn a_node_that_wants_to_be_left_alone_is() {
    let policy = Policy::default();
    let judged = |change: &dyn Fn(&mut Node), worst, takes_out| {
        let mut nodes = idle(200);
        change(&mut nodes[1]);
        let ask = Request { worst, takes_out, ..request("n001") };
        verdict(&policy, &ask, &fleet(&nodes), &Ledger::default())
    };
    let feature = |n: &mut Node| n.features = Known::Known(vec!["h100".to_owned(), "noremedy".to_owned()]);
    let comment = |n: &mut Node| n.comment = Known::Known(Some("loan to Ada; slurmedic:off".to_owned()));
    for change in [&feature as &dyn Fn(&mut Node), &comment] {
        let (rule, outcome, says) = obstacle(&judged(change, EffectClass::Reversible, true));
        assert_eq!((rule, outcome), (Rule::OptOut, Outcome::Deny));
        assert!(says.ends_with("it is left alone"), "{says}");
        assert!(judged(change, EffectClass::Read, false).permits());
    }
    let near = |n: &mut Node| {
        n.features = Known::Known(vec!["noremedy2".to_owned()]);
        n.comment = Known::Known(Some("slurmedic: off".to_owned()));
    };
    assert!(judged(&near, EffectClass::Disruptive, true).permits());
    let unread = |n: &mut Node| n.features = Known::unknown(Cause::NotReported, "");
    assert_eq!(judged(&unread, EffectClass::Disruptive, true).outcome, WAIT);
    let unread = |n: &mut Node| n.comment = Known::unknown(Cause::NotReported, "");
    assert_eq!(judged(&unread, EffectClass::Disruptive, true).outcome, WAIT);
}

#[test]
fn unknown_never_permits() {
    let policy = Policy::default();
    let nodes = idle(200);
    let (rule, outcome, says) =
        obstacle(&verdict(&policy, &request("x001"), &fleet(&nodes), &Ledger::default()));
    assert_eq!((rule, outcome), (Rule::KnownNode, Outcome::Deny));
    assert_eq!(says, "the controller lists no node x001");
    let seen = Seen {
        nodes: Known::unknown(Cause::TimedOut, "scontrol"),
        partitions: Known::Known(&[]),
        reservations: Known::Known(&[]),
    };
    let blind = Fleet::of(&seen, &Layout::default(), now());
    let (rule, outcome, _) = obstacle(&verdict(
        &Policy { concurrent_runs: 9, ..Policy::default() },
        &Request { takes_out: false, worst: EffectClass::Read, ..request("n001") },
        &blind,
        &Ledger::default(),
    ));
    assert_eq!((rule, outcome), (Rule::Readable, WAIT), "not even a read is begun blind");
    assert!(!verdict(&policy, &request("n001"), &blind, &Ledger::default()).permits());
    let mut ledger = Ledger::default();
    ledger.gap(Unknown::new(Cause::Unparsable, "event 7 of run r1"));
    let (rule, _, says) = obstacle(&verdict(&policy, &request("n001"), &fleet(&nodes), &ledger));
    assert_eq!(rule, Rule::Readable);
    assert!(says.contains("event 7"), "{says}");
}

#[test]
fn the_worst_answer_is_the_verdict() {
    let later = |s: i64| Outcome::Wait { until: Some(Timestamp::from_second(s).unwrap()) };
    for (a, b, worse) in [
        (Outcome::Permit, Outcome::Permit, Outcome::Permit),
        (Outcome::Permit, WAIT, WAIT),
        (later(5), later(9), later(9)),
        (later(5), WAIT, WAIT),
        (WAIT, Outcome::NeedsPerson, Outcome::NeedsPerson),
        (Outcome::NeedsPerson, Outcome::Deny, Outcome::Deny),
        (Outcome::Deny, later(5), Outcome::Deny),
    ] {
        assert_eq!(a.worse(b), worse);
        assert_eq!(b.worse(a), worse);
    }
}

#[test]
fn the_canary_scope_is_by_node_partition_and_feature() {
    let mut nodes = idle(4);
    nodes[2].features = Known::Known(vec!["canary".to_owned()]);
    nodes[3].features = Known::unknown(Cause::NotReported, "");
    let fleet = fleet_with(&nodes, &[partition("debug", &["n001"])], &[], &Layout::default());
    let mut policy = Policy::default();
    let inside = |p: &Policy| -> Vec<bool> {
        (0..4).map(|i| in_canary(p, &fleet, &name(&format!("n{i:03}")))).collect()
    };
    assert_eq!(inside(&policy), [false; 4]);
    policy.canary.nodes = Hosts::parse("n[000,900]").unwrap();
    assert_eq!(inside(&policy), [true, false, false, false]);
    policy.canary.partitions.insert("debug".to_owned());
    policy.canary.features.insert("canary".to_owned());
    assert_eq!(inside(&policy), [true, true, true, false]);
    assert!(!in_canary(&policy, &fleet, &name("n900")), "a node that is not there is in no scope");
    assert!(policy.roles.0.contains_key(&Role::Viewer));
}
