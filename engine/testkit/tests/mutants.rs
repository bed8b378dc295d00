//! The mutation table: every rule's guard is broken on purpose, and each is found.

use engine_testkit::mutants::{Hunt, Mutant, hunt_all};
use std::collections::BTreeSet;

#[test]
fn each_rules_guard_is_broken_and_each_is_found() {
    let rules: BTreeSet<u8> = Mutant::ALL.iter().map(|m| m.rule()).collect();
    assert_eq!(rules, (1..=15).collect());
    let hunts: Vec<Hunt> = hunt_all(2).unwrap();
    for h in &hunts {
        println!("{:>2} {:<48} {:<20} {:?}", h.rule, h.broken, h.means.as_str(), h.found);
    }
    let alive: Vec<&Hunt> = hunts.iter().filter(|h| h.found.is_none()).collect();
    assert!(alive.is_empty(), "nobody noticed: {alive:#?}");
}
