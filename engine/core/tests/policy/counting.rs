//! Which nodes count as out of service, and in which groups.

use super::*;
use engine_core::model::node_state::{BaseState, NodeFlag};
use engine_core::policy::{GroupKind, Out, Service, UNKNOWN_RACK, service};

#[test]
fn every_unavailable_node_counts_whoever_took_it() {
    let drained = |by: Option<&str>| Service::Out(Out::Drained { by: by.map(str::to_owned), run: None });
    for (state, expected) in [
        ("IDLE", Service::In),
        ("MIXED", Service::In),
        ("ALLOCATED", Service::In),
        ("IDLE+COMPLETING", Service::In),
        ("IDLE+RESERVED", Service::In),
        ("IDLE+PLANNED", Service::In),
        ("IDLE+BLOCKED", Service::In),
        ("IDLE+CLOUD", Service::In),
        ("IDLE+DYNAMIC_NORM", Service::In),
        // Power saving: neither unavailable nor spare.
        ("IDLE+CLOUD+POWERED_DOWN", Service::Asleep),
        ("IDLE+POWERING_DOWN", Service::Asleep),
        ("ALLOCATED+CLOUD+NOT_RESPONDING+POWERING_UP", Service::Asleep),
        ("IDLE+POWER_UP+NOT_RESPONDING", Service::Asleep),
        // ... unless no job can wake it.
        ("DOWN+CLOUD+POWERED_DOWN", Service::Out(Out::Down)),
        ("IDLE+DRAIN+POWERED_DOWN", drained(None)),
        ("IDLE+DRAIN", drained(None)),
        ("MIXED+DRAIN", drained(None)),
        ("IDLE+FAIL", drained(None)),
        ("DOWN", Service::Out(Out::Down)),
        ("DOWN+DRAIN", Service::Out(Out::Down)),
        ("DOWN+NOT_RESPONDING", Service::Out(Out::Down)),
        ("IDLE+NOT_RESPONDING", Service::Out(Out::NotResponding)),
        ("IDLE+DRAIN+INVALID_REG", Service::Out(Out::InvalidReg)),
        ("MIXED+REBOOT_REQUESTED", Service::Out(Out::Rebooting)),
        ("DOWN+DRAIN+REBOOT_ISSUED", Service::Out(Out::Rebooting)),
        ("IDLE+MAINTENANCE+RESERVED", Service::Out(Out::Maintenance { reservation: None })),
        ("FUTURE", Service::Apart),
        ("IDLE+EXTERNAL", Service::Apart),
        ("UNKNOWN", Service::Out(Out::Unknown("slurmctld has not heard from it".to_owned()))),
        ("IDLE+SHINY", Service::Out(Out::Unknown("flag SHINY".to_owned()))),
    ] {
        assert_eq!(service(&node("n1", state), None), expected, "{state}");
    }
    let mut ours = node("n1", "IDLE+DRAIN");
    ours.reason = reason("[slurmedic:gpu-reset@1.0.0#r42] GPU memory error", "root");
    let Service::Out(why) = service(&ours, None) else { panic!() };
    assert_eq!(why.to_string(), "drained by run r42");
    ours.reason = reason("fan", "ada");
    assert_eq!(service(&ours, None), drained(Some("ada")));
    assert_eq!(
        service(&node("n1", "IDLE"), Some("window")),
        Service::Out(Out::Maintenance { reservation: Some("window".to_owned()) })
    );
}

/// No pair of base and flag is forgotten: what is not plainly in service, asleep or apart, is out.
#[test]
fn a_flag_never_brings_a_node_back() {
    let mut seen = 0;
    for base in BaseState::ALL {
        for flag in NodeFlag::ALL {
            let state = format!("{base}+{flag}");
            let with = service(&node("n1", &state), None);
            let without = service(&node("n1", base.as_str()), None);
            let apart = *base == BaseState::Future || *flag == NodeFlag::External;
            assert!(!without.is_out() || with.is_out() || apart, "{state}: {with:?}");
            seen += 1;
        }
    }
    assert_eq!(seen, BaseState::ALL.len() * NodeFlag::ALL.len());
}

#[test]
fn groups_are_counted_once_per_node_and_from_both_sides() {
    let mut nodes = idle(6);
    nodes[1] = node("n001", "DOWN");
    nodes[2] = node("n002", "IDLE+CLOUD+POWERED_DOWN");
    nodes[3] = node("n003", "FUTURE");
    // A node that does not say its partitions is found through the partition, one that says more is in both.
    nodes[4].partitions = Known::unknown(Cause::NotReported, "");
    nodes[5].partitions = Known::Known(vec!["main".to_owned(), "debug".to_owned()]);
    let partitions = [
        partition("main", &["n000", "n001", "n002", "n003", "n004", "n005", "login1"]),
        partition("empty", &[]),
    ];
    let layout = racks(&[("r1", "n[000-002],n000"), ("r2", "n003,other[1-9]")]);
    let fleet = fleet_with(&nodes, &partitions, &[], &layout);
    assert_eq!(fleet.gaps(), []);
    let count = |kind, name: &str| {
        let g = fleet.groups().iter().find(|g| g.kind == kind && g.name == name).unwrap();
        (g.out, g.counted)
    };
    assert_eq!(count(GroupKind::Fleet, ""), (1, 4));
    assert_eq!(count(GroupKind::Partition, "main"), (1, 4));
    assert_eq!(count(GroupKind::Partition, "debug"), (0, 1));
    assert_eq!(count(GroupKind::Partition, "empty"), (0, 0));
    assert_eq!(count(GroupKind::Rack, "r1"), (1, 2));
    assert_eq!(count(GroupKind::Rack, "r2"), (0, 0));
    assert_eq!(count(GroupKind::Rack, UNKNOWN_RACK), (0, 2));
    let groups: Vec<String> = fleet.groups_of(&name("n005")).map(|(_, g)| g.to_string()).collect();
    assert_eq!(groups, ["fleet", "partition debug", "partition main", "rack unknown"]);
    assert_eq!(fleet.out().map(|(n, w)| format!("{n} {w}")).collect::<Vec<_>>(), ["n001 down"]);
}

#[test]
fn the_order_of_the_list_does_not_matter_and_a_name_twice_is_unknown() {
    let mut nodes = idle(40);
    nodes[7] = node("n007", "DOWN");
    let layout = racks(&[("r1", "n[000-019]"), ("r2", "n[020-039]")]);
    let straight = fleet_with(&nodes, &[], &[], &layout);
    let mut mixed = nodes.clone();
    mixed.reverse();
    mixed.swap(3, 30);
    let other = fleet_with(&mixed, &[], &[], &layout);
    let numbers =
        |f: &Fleet| f.groups().iter().map(|g| (g.to_string(), g.out, g.counted)).collect::<Vec<_>>();
    assert_eq!(numbers(&straight), numbers(&other));
    mixed.push(node("n012", "IDLE"));
    let twice = fleet_with(&mixed, &[], &[], &layout);
    assert!(twice.node(&name("n012")).unwrap().service.is_out());
}

#[test]
fn reservations_for_maintenance_count_while_they_hold() {
    let nodes = idle(4);
    let r = |n: &str, node: &str, flags: &[&str], from, to| reservation(n, &[node], flags, from, to);
    let list = [
        r("now", "n000", &["MAINT"], "2026-11-21T11:00:00Z", "2026-11-21T13:00:00Z"),
        r("later", "n001", &["MAINT"], "2026-11-21T12:00:01Z", "2026-11-21T13:00:00Z"),
        r("over", "n002", &["MAINT"], "2026-11-21T10:00:00Z", "2026-11-21T12:00:00Z"),
        r("class", "n003", &["FLEX"], "2026-11-21T11:00:00Z", "2026-11-21T13:00:00Z"),
    ];
    let fleet = fleet_with(&nodes, &[], &list, &Layout::default());
    let out: Vec<String> = fleet.out().map(|(n, w)| format!("{n} {w}")).collect();
    assert_eq!(out, ["n000 in maintenance reservation now"]);
    let mut odd = list[3].clone();
    odd.flags = Known::unknown(Cause::UnrecognisedWord, "SHINY");
    let fleet = fleet_with(&nodes, &[], &[odd.clone()], &Layout::default());
    assert_eq!(fleet.out().count(), 1, "unknown flags count as maintenance");
    odd.nodes = Known::unknown(Cause::Unparsable, "n[1-");
    let fleet = fleet_with(&nodes, &[], &[odd], &Layout::default());
    assert_eq!(fleet.gaps().len(), 1, "unknown nodes are a gap");
}

#[test]
fn what_could_not_be_read_is_a_gap_never_an_empty_fleet() {
    let nodes = idle(3);
    let unread = || Cause::TimedOut;
    let seen =
        |n, p, r| Fleet::of(&Seen { nodes: n, partitions: p, reservations: r }, &Layout::default(), now());
    let (n, p, r): (&[Node], &[Partition], &[Reservation]) = (&nodes, &[], &[]);
    let known = || (Known::Known(n), Known::Known(p), Known::Known(r));
    assert_eq!(seen(known().0, known().1, known().2).gaps().len(), 0);
    assert_eq!(seen(Known::unknown(unread(), "nodes"), known().1, known().2).gaps().len(), 1);
    assert_eq!(seen(Known::Known(&[]), known().1, known().2).gaps().len(), 1);
    assert_eq!(seen(known().0, known().1, Known::unknown(unread(), "reservations")).gaps().len(), 1);
    // Nodes say their partitions themselves; only where one does not, the list of partitions is missed.
    assert_eq!(seen(known().0, Known::unknown(unread(), "partitions"), known().2).gaps().len(), 0);
    let mut adrift = nodes.clone();
    adrift[1].partitions = Known::unknown(Cause::NotReported, "");
    let gaps = seen(Known::Known(&adrift), Known::unknown(unread(), "partitions"), known().2);
    assert!(gaps.gaps()[0].detail.contains("partitions of 1 nodes"));
    let layout =
        Layout { unknown: Some(engine_core::Unknown::new(unread(), "topology")), ..Layout::default() };
    assert_eq!(fleet_with(&nodes, &[], &[], &layout).gaps().len(), 1);
}
