//! Storms: when so much goes wrong at once that no single repair can be right, everything stops.

use super::event::{FleetEvent, MAX_LISTED, Trouble};
use super::fault::{Strength, strength};
use super::fold::{FleetState, Opening};
use super::shape::Shape;
use super::switch::Scope;
use crate::model::NodeName;
use crate::policy::{Breaker, Period, Rate, Storm};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// When a breaker trips: the policy's shares and rates, and below what a storm is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StormRules {
    /// The policy's part.
    pub breaker: Breaker,
    /// Fewer nodes than this are no storm, whatever their share: small clusters have few nodes.
    pub least_nodes: usize,
    /// Nodes of one rack with the same fault that make it a fault of the rack.
    pub rack_nodes: usize,
}

impl Default for StormRules {
    fn default() -> Self {
        Self { breaker: Breaker::default(), least_nodes: 4, rack_nodes: 3 }
    }
}

/// Says which breakers trip now and which racks have a fault of their own, none twice.
pub fn trips(state: &FleetState, shape: &Shape, rules: &StormRules, now: Timestamp) -> Vec<FleetEvent> {
    let mut out = Vec::new();
    if state.switches().find(&Scope::Fleet).is_some() {
        return out;
    }
    let breaker = &rules.breaker;
    let nodes: BTreeSet<&NodeName> = recent(state, breaker.fleet.per, now).map(|o| &o.node).collect();
    if let Some(why) = over(nodes.len(), shape.len(), breaker.fleet, rules, "the fleet") {
        return vec![tripped(Scope::Fleet, why, &nodes)];
    }
    if let Some(trip) = racks(state, rules, now) {
        return vec![trip];
    }
    let mut partitions: BTreeMap<&str, BTreeSet<&NodeName>> = BTreeMap::new();
    for o in recent(state, breaker.partition.per, now) {
        for p in &o.place.partitions {
            partitions.entry(p).or_default().insert(&o.node);
        }
    }
    for (name, nodes) in partitions {
        let scope = Scope::Partition(name.to_owned());
        if state.switches().find(&scope).is_none()
            && let Some(why) =
                over(nodes.len(), shape.partition_size(name), breaker.partition, rules, &scope.to_string())
        {
            out.push(tripped(scope, why, &nodes));
        }
    }
    out.extend(troubles(state, breaker, now));
    out.extend(super::rack::struck(state, rules, now));
    out
}

/// Lists the openings within a period. They are written in the order of time, so the newest are at the end.
pub(super) fn recent(state: &FleetState, per: Period, now: Timestamp) -> impl Iterator<Item = &Opening> {
    state.openings.iter().rev().take_while(move |o| per.reaches(o.at, now))
}

/// Says whether a fault may come from what a rack shares. What an application does to itself, one job does on many nodes.
pub(super) fn tells_of_the_rack(o: &Opening) -> bool {
    strength(&o.fault) != Strength::Application
}

/// Says whether so many racks have a fault of their own that the fleet stops.
fn racks(state: &FleetState, rules: &StormRules, now: Timestamp) -> Option<FleetEvent> {
    let rate = rules.breaker.racks;
    let mut struck: BTreeMap<(&str, &str), BTreeSet<&NodeName>> = BTreeMap::new();
    for o in recent(state, rate.per, now).filter(|o| tells_of_the_rack(o)) {
        if let Some(rack) = &o.place.rack {
            struck.entry((rack, &o.fault)).or_default().insert(&o.node);
        }
    }
    struck.retain(|_, nodes| nodes.len() >= rules.rack_nodes);
    let racks: BTreeSet<&str> = struck.keys().map(|(rack, _)| *rack).collect();
    if rate.most == 0 || racks.len() < rate.most as usize {
        return None;
    }
    let names: Vec<&str> = racks.iter().copied().take(8).collect();
    let why = format!(
        "{} racks ({}) each have {} or more nodes with the same fault within {}",
        racks.len(),
        names.join(", "),
        rules.rack_nodes,
        rate.per
    );
    Some(tripped(Scope::Fleet, why, &struck.values().flatten().copied().collect()))
}

fn troubles(state: &FleetState, breaker: &Breaker, now: Timestamp) -> Vec<FleetEvent> {
    let mut by_playbook: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for t in &state.troubles {
        let (ambiguous, wrongful) = by_playbook.entry(&t.playbook).or_default();
        match t.trouble {
            Trouble::Ambiguous | Trouble::Stuck if breaker.ambiguous_outcomes.per.reaches(t.at, now) => {
                *ambiguous += 1;
            }
            Trouble::Wrongful if breaker.wrongful_actions.per.reaches(t.at, now) => *wrongful += 1,
            Trouble::Ambiguous | Trouble::Stuck | Trouble::Wrongful => {}
        }
    }
    let reached = |n: usize, rate: Rate| rate.most > 0 && n >= rate.most as usize;
    let mut out = Vec::new();
    for (playbook, (ambiguous, wrongful)) in by_playbook {
        let scope = Scope::Playbook(playbook.to_owned());
        if state.switches().find(&scope).is_some() {
            continue;
        }
        let why = if reached(wrongful, breaker.wrongful_actions) {
            format!("wrongful actions within {}: {wrongful}", breaker.wrongful_actions.per)
        } else if reached(ambiguous, breaker.ambiguous_outcomes) {
            format!(
                "runs within {} of which nobody can say what they came to: {ambiguous}",
                breaker.ambiguous_outcomes.per
            )
        } else {
            continue;
        };
        out.push(tripped(scope, why, &BTreeSet::new()));
    }
    out
}

/// Says in figures that too many nodes of a group are struck, or nothing.
fn over(struck: usize, of: usize, storm: Storm, rules: &StormRules, what: &str) -> Option<String> {
    let too_many = struck >= rules.least_nodes.max(1) && struck > storm.share.of(of);
    (too_many && of > 0).then(|| {
        format!(
            "{struck} of {of} nodes of {what} have a new incident within {}, more than {}",
            storm.per, storm.share
        )
    })
}

fn tripped(scope: Scope, why: String, nodes: &BTreeSet<&NodeName>) -> FleetEvent {
    FleetEvent::Tripped { scope, why, nodes: nodes.iter().take(MAX_LISTED).map(|n| (*n).clone()).collect() }
}
