//! The judgement stays cheap at 10,000 nodes. `cargo bench -p engine-core --bench policy` prints the figures; here a wide
//! bound holds also without optimisation, so that nothing quadratic slips in.

use super::*;
use engine_core::policy::{Ledger, Policy, Quota, judge};

#[test]
fn ten_thousand_nodes_are_counted_without_a_quadratic_step() {
    let count = 10_000;
    let nodes: Vec<Node> = (0..count).map(|i| node(&format!("n{i:05}"), "IDLE")).collect();
    let names: Vec<&str> = nodes.iter().map(|n| n.name.as_str()).collect();
    let partitions = [partition("main", &names), partition("all", &names)];
    let groups: Vec<(String, String)> = (0..count / 20)
        .map(|i| (format!("r{i:04}"), format!("n[{:05}-{:05}]", i * 20, i * 20 + 19)))
        .collect();
    let groups: Vec<(&str, &str)> = groups.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let layout = racks(&groups);
    let middle = format!("n{:05}", count / 2);
    let best = (0..5)
        .map(|_| {
            #[expect(clippy::disallowed_methods, reason = "this test measures")]
            let start = std::time::Instant::now();
            let fleet = fleet_with(&nodes, &partitions, &[], &layout);
            let v = judge(&Policy::default(), &request(&middle), &fleet, &Ledger::default(), now());
            assert!(v.permits());
            assert_eq!(Quota::of(&Policy::default(), &fleet, &name(&middle), true).scopes().len(), 4);
            start.elapsed()
        })
        .min();
    // Wide enough for a busy machine without optimisation; comparing each node with each other would take far longer.
    assert!(best.is_some_and(|b| b < std::time::Duration::from_secs(2)), "{best:?}");
}
