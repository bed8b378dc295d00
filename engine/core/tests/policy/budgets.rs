//! No order of admissions exceeds a budget.

use super::*;
use engine_core::policy::{NotAdmitted, Policy, Quota, Share};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::slice::from_ref;

fn quota(policy: &Policy, fleet: &Fleet, node: &str) -> Quota {
    Quota::of(policy, fleet, &name(node), true)
}

#[test]
fn the_store_admits_what_fits_on_the_locks_of_that_moment() {
    let mut policy = Policy { concurrent_runs: 3, ..Policy::default() };
    policy.budgets.partition = Share::percent(100);
    policy.budgets.fleet = Share::Count(3);
    let mut nodes = idle(20);
    nodes[19] = node("n019", "DOWN");
    let layout = racks(&[("r1", "n[000-009]"), ("r2", "n[010-019]")]);
    policy.budgets.racks.insert("r1".to_owned(), Share::Count(1));
    let fleet = fleet_with(&nodes, &[], &[], &layout);
    let admit = |node: &str, by: &str, held: &[Held]| quota(&policy, &fleet, node).admit(&run(by), held);
    assert_eq!(admit("n001", "a", &[]), Ok(()));
    let a = held("n001", "a");
    assert_eq!(admit("n001", "a", from_ref(&a)), Ok(()), "its own lock again");
    assert_eq!(admit("n001", "b", from_ref(&a)), Err(NotAdmitted::Node(run("a"))));
    let full = admit("n002", "b", from_ref(&a)).unwrap_err();
    assert_eq!(full.to_string(), "rack r1: 1 of 10 out of service, budget 1");
    assert_eq!(admit("n010", "b", from_ref(&a)), Ok(()));
    let b = held("n010", "b");
    let full = admit("n011", "c", &[a.clone(), b.clone()]).unwrap_err();
    assert_eq!(full.to_string(), "fleet: 3 of 20 out of service, budget 3");
    assert_eq!(admit("n019", "c", &[a.clone(), b.clone()]), Ok(()), "it is down already");
    // A lock whose run takes nothing out costs nothing; one on a node that nobody knows costs everywhere.
    let look = Held { takes_out: false, ..held("n012", "d") };
    assert_eq!(admit("n011", "c", &[a.clone(), look]), Ok(()));
    let stranger = held("new1", "d");
    assert!(admit("n002", "c", from_ref(&stranger)).is_err());
    assert!(admit("n011", "c", &[a.clone(), stranger]).is_err());
    let three = [held("n001", "a"), held("n019", "b"), Held { takes_out: false, ..held("n012", "c") }];
    assert_eq!(admit("n011", "d", &three), Err(NotAdmitted::Runs { running: 3, limit: 3 }));
    // A node that the look did not know counts for the fleet.
    assert_eq!(admit("new2", "c", &[]), Ok(()));
}

#[test]
fn a_quota_can_be_handed_to_the_thread_that_writes() {
    fn sendable<T: Send + Sync + Clone + 'static>(_: &T) {}
    let fleet = fleet(&idle(3));
    sendable(&quota(&Policy::default(), &fleet, "n001"));
    sendable(&fleet);
}

/// A random world: states, partitions, racks, budgets.
#[derive(Debug, Clone)]
struct World {
    states: Vec<u8>,
    in_debug: Vec<bool>,
    rack_size: usize,
    shares: [(bool, u32); 3],
    wishes: Vec<(usize, bool)>,
    concurrent: u32,
}

fn world() -> impl Strategy<Value = World> {
    (1usize..60).prop_flat_map(|n| {
        (
            proptest::collection::vec(0u8..8, n),
            proptest::collection::vec(any::<bool>(), n),
            1usize..12,
            proptest::array::uniform3((any::<bool>(), 0u32..40)),
            proptest::collection::vec((0..n, any::<bool>()), 1..120),
            1u32..40,
        )
            .prop_map(|(states, in_debug, rack_size, shares, wishes, concurrent)| World {
                states,
                in_debug,
                rack_size,
                shares,
                wishes,
                concurrent,
            })
    })
}

const STATES: [&str; 8] =
    ["IDLE", "MIXED", "ALLOCATED", "IDLE", "DOWN", "IDLE+DRAIN", "IDLE+POWERED_DOWN", "IDLE+SHINY"];

proptest! {
    /// Runs come and go in any order; each is admitted on the locks of its moment. At no moment is a group further over
    /// its budget than others alone had brought it.
    #[test]
    fn no_sequence_of_admissions_exceeds_a_budget(w in world()) {
        let mut nodes = idle(w.states.len());
        let mut layout = Layout::default();
        for (i, n) in nodes.iter_mut().enumerate() {
            *n = node(n.name.as_str(), STATES[w.states[i] as usize]);
            if w.in_debug[i] {
                n.partitions = Known::Known(vec!["main".to_owned(), "debug".to_owned()]);
            }
        }
        for (i, chunk) in nodes.chunks(w.rack_size).enumerate() {
            let hosts = Hosts::new(chunk.iter().map(|n| n.name.to_string()).collect());
            layout.racks.insert(format!("r{i}"), hosts);
        }
        let fleet = fleet_with(&nodes, &[], &[], &layout);
        let share = |(percent, n): (bool, u32)| if percent { Share::percent(n) } else { Share::Count(n / 4) };
        let mut policy = Policy { concurrent_runs: w.concurrent, ..Policy::default() };
        policy.budgets.fleet = share(w.shares[0]);
        policy.budgets.partition = share(w.shares[1]);
        policy.budgets.rack = share(w.shares[2]);
        let limit = |g: &engine_core::policy::Group| match g.kind {
            engine_core::policy::GroupKind::Fleet => policy.budgets.fleet,
            engine_core::policy::GroupKind::Partition => policy.budgets.partition,
            _ => policy.budgets.rack,
        }.of(g.counted);
        let mut locks: BTreeMap<NodeName, Held> = BTreeMap::new();
        for (i, (which, comes)) in w.wishes.iter().enumerate() {
            let target = nodes[*which].name.clone();
            if !comes {
                locks.remove(&target);
                continue;
            }
            let id = run(&format!("r{i}"));
            let held: Vec<Held> = locks.values().cloned().collect();
            let quota = Quota::of(&policy, &fleet, &target, true);
            let answer = quota.admit(&id, &held);
            // Admission is exactly: the node is free, there is room for a run, and every group stays within budget.
            let out_now = |n: &NodeName| fleet.node(n).unwrap().service.is_out();
            let fits = fleet.groups_of(&target).all(|(_, g)| {
                let taken: BTreeSet<&NodeName> =
                    locks.keys().filter(|n| fleet.is_in(n, g) && !out_now(n)).collect();
                out_now(&target) || g.out + taken.len() < limit(g)
            });
            let expected = !locks.contains_key(&target) && held.len() < w.concurrent as usize && fits;
            prop_assert_eq!(answer.is_ok(), expected, "{:?}", answer);
            if answer.is_ok() {
                locks.insert(target.clone(), Held { node: target, run: id, takes_out: true });
            }
            prop_assert!(locks.len() <= w.concurrent as usize);
            for g in fleet.groups() {
                let ours = locks.keys().filter(|n| fleet.is_in(n, g) && !out_now(n)).count();
                prop_assert!(g.out + ours <= limit(g).max(g.out), "{}: {} + {}", g, g.out, ours);
            }
        }
    }
}
