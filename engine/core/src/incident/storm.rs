//! Storms: when so much goes wrong at once that no single repair can be right, everything stops.

use super::event::{FleetEvent, MAX_LISTED, Trouble};
use super::fold::FleetState;
use super::shape::Shape;
use super::switch::Scope;
use crate::model::NodeName;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// When a breaker trips. The defaults are those of the design: 10 % of the fleet, 20 % of a partition, two racks in
/// 15 minutes, one wrongful action, three ambiguous outcomes in an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StormRules {
    /// Window in which nodes with a new incident are counted.
    pub window: SignedDuration,
    /// Share of the fleet's nodes above which the fleet stops, in percent.
    pub fleet_percent: u32,
    /// Share of a partition's nodes above which the partition stops, in percent.
    pub partition_percent: u32,
    /// Fewer nodes than this are no storm, whatever their share: small clusters have few nodes.
    pub least_nodes: usize,
    /// Nodes of one rack with the same fault that make it a fault of the rack.
    pub rack_nodes: usize,
    /// Racks with such a fault at which the fleet stops.
    pub racks: usize,
    /// Window in which troubles of runs are counted.
    pub trouble_window: SignedDuration,
    /// Runs that ended stuck, or of which nobody can say what a step came to, at which their playbook stops.
    pub ambiguous: usize,
    /// Wrongful actions at which their playbook stops.
    pub wrongful: usize,
}

impl Default for StormRules {
    fn default() -> Self {
        Self {
            window: SignedDuration::from_mins(15),
            fleet_percent: 10,
            partition_percent: 20,
            least_nodes: 4,
            rack_nodes: 3,
            racks: 2,
            trouble_window: SignedDuration::from_hours(1),
            ambiguous: 3,
            wrongful: 1,
        }
    }
}

/// Says which breakers trip now, none twice.
pub fn trips(state: &FleetState, shape: &Shape, rules: &StormRules, now: Timestamp) -> Vec<FleetEvent> {
    let mut out = Vec::new();
    if state.switches().find(&Scope::Fleet).is_some() {
        return out;
    }
    let from = now.saturating_sub(rules.window).unwrap_or(Timestamp::MIN);
    // Written in the order of time, so the newest are at the end.
    let recent = || state.openings.iter().rev().take_while(|o| o.at >= from);
    let nodes: BTreeSet<&NodeName> = recent().map(|o| &o.node).collect();
    if let Some(why) = over(nodes.len(), shape.len(), rules.fleet_percent, rules, "the fleet") {
        return vec![tripped(Scope::Fleet, why, &nodes)];
    }
    let mut racks: BTreeMap<(&str, &str), BTreeSet<&NodeName>> = BTreeMap::new();
    let mut partitions: BTreeMap<&str, BTreeSet<&NodeName>> = BTreeMap::new();
    for o in recent() {
        if let Some(rack) = &o.place.rack {
            racks.entry((rack, &o.fault)).or_default().insert(&o.node);
        }
        for p in &o.place.partitions {
            partitions.entry(p).or_default().insert(&o.node);
        }
    }
    racks.retain(|_, nodes| nodes.len() >= rules.rack_nodes);
    let struck: BTreeSet<&str> = racks.keys().map(|(rack, _)| *rack).collect();
    if rules.racks > 0 && struck.len() >= rules.racks {
        let names: Vec<&str> = struck.iter().copied().take(8).collect();
        let why = format!(
            "{} racks ({}) each have {} or more nodes with the same fault within {:#}",
            struck.len(),
            names.join(", "),
            rules.rack_nodes,
            rules.window
        );
        let nodes = racks.values().flatten().copied().collect();
        return vec![tripped(Scope::Fleet, why, &nodes)];
    }
    for (name, nodes) in partitions {
        let scope = Scope::Partition(name.to_owned());
        if state.switches().find(&scope).is_none()
            && let Some(why) =
                over(nodes.len(), shape.partition_size(name), rules.partition_percent, rules, name)
        {
            out.push(tripped(scope, why, &nodes));
        }
    }
    out.extend(troubles(state, rules, now));
    out
}

fn troubles(state: &FleetState, rules: &StormRules, now: Timestamp) -> Vec<FleetEvent> {
    let from = now.saturating_sub(rules.trouble_window).unwrap_or(Timestamp::MIN);
    let mut by_playbook: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for t in state.troubles.iter().rev().take_while(|t| t.at >= from) {
        let (ambiguous, wrongful) = by_playbook.entry(&t.playbook).or_default();
        match t.trouble {
            Trouble::Ambiguous | Trouble::Stuck => *ambiguous += 1,
            Trouble::Wrongful => *wrongful += 1,
        }
    }
    let mut out = Vec::new();
    for (playbook, (ambiguous, wrongful)) in by_playbook {
        let scope = Scope::Playbook(playbook.to_owned());
        if state.switches().find(&scope).is_some() {
            continue;
        }
        let why = if rules.wrongful > 0 && wrongful >= rules.wrongful {
            format!("{wrongful} wrongful action(s) within {:#}", rules.trouble_window)
        } else if rules.ambiguous > 0 && ambiguous >= rules.ambiguous {
            format!(
                "{ambiguous} runs within {:#} of which nobody can say what they came to",
                rules.trouble_window
            )
        } else {
            continue;
        };
        out.push(tripped(scope, why, &BTreeSet::new()));
    }
    out
}

/// Says in figures that too many nodes of a group are struck, or nothing.
fn over(struck: usize, of: usize, percent: u32, rules: &StormRules, what: &str) -> Option<String> {
    let too_many = struck >= rules.least_nodes.max(1) && struck * 100 > of * percent as usize;
    (too_many && of > 0).then(|| {
        format!(
            "{struck} of {of} nodes of {what} have a new incident within {:#}, more than {percent} %",
            rules.window
        )
    })
}

fn tripped(scope: Scope, why: String, nodes: &BTreeSet<&NodeName>) -> FleetEvent {
    FleetEvent::Tripped { scope, why, nodes: nodes.iter().take(MAX_LISTED).map(|n| (*n).clone()).collect() }
}
