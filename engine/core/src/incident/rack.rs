//! Racks: the same fault on several nodes of one rack is a fault of what they share, such as power, cooling or a switch.
//! It is one incident, a person has it, and nothing is done to its nodes one by one.

use super::event::{FleetEvent, MAX_LISTED};
use super::fold::{FleetState, Incident, Subject};
use super::storm::{StormRules, recent, tells_of_the_rack};
use crate::model::NodeName;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Names that are told in the sentence for people.
const NAMED: usize = 6;

/// Says whether a node's incident is one of a rack's: the node is in it, and has the fault.
pub(super) fn covers(rack: &str, fault: &str, incident: &Incident) -> bool {
    match &incident.subject {
        Subject::Node { place, .. } => {
            place.rack.as_deref() == Some(rack)
                && incident.alerts.values().any(|s| s.firing && s.fault == fault)
        }
        Subject::Breaker { .. } | Subject::Tool { .. } | Subject::Rack { .. } => false,
    }
}

/// Finds the incident of the rack that a node's incident belongs to.
pub(super) fn over(state: &FleetState, incident: &Incident) -> Option<super::IncidentId> {
    state.incidents().find_map(|i| match &i.subject {
        Subject::Rack { rack, fault } if covers(rack, fault, incident) => Some(i.id),
        _ => None,
    })
}

/// Says which racks have a fault of their own now, none twice.
pub(super) fn struck(state: &FleetState, rules: &StormRules, now: Timestamp) -> Vec<FleetEvent> {
    let rate = rules.breaker.racks;
    if rate.most == 0 || rules.rack_nodes == 0 {
        return Vec::new();
    }
    let mut by_rack: BTreeMap<(&str, &str), BTreeSet<&NodeName>> = BTreeMap::new();
    for o in recent(state, rate.per, now).filter(|o| tells_of_the_rack(o)) {
        let Some(rack) = o.place.rack.as_deref() else { continue };
        let stands = state.on_node(&o.node).is_some_and(|i| covers(rack, &o.fault, i));
        if stands {
            by_rack.entry((rack, &o.fault)).or_default().insert(&o.node);
        }
    }
    by_rack.retain(|_, nodes| nodes.len() >= rules.rack_nodes);
    let known = |rack: &str, fault: &str| {
        let is = |i: &Incident| matches!(&i.subject, Subject::Rack { rack: r, fault: f } if r == rack && f == fault);
        state.incidents().any(is)
    };
    let events = by_rack.into_iter().filter(|((rack, fault), _)| !known(rack, fault));
    events
        .map(|((rack, fault), nodes)| {
            let names: Vec<&str> = nodes.iter().take(NAMED).map(|n| n.as_str()).collect();
            let more = if nodes.len() > NAMED { ", ..." } else { "" };
            let why = format!(
                "{} nodes of rack {rack} ({}{more}) have {fault} within {}: look at what they share; until this is closed, nothing is done to them one by one",
                nodes.len(),
                names.join(", "),
                rate.per
            );
            FleetEvent::RackStruck {
                rack: rack.to_owned(),
                fault: fault.to_owned(),
                why,
                nodes: nodes.into_iter().take(MAX_LISTED).cloned().collect(),
            }
        })
        .collect()
}

/// Lists the incidents of racks of which no node has the fault any more.
pub(super) fn over_by_now(state: &FleetState) -> impl Iterator<Item = super::IncidentId> {
    state.incidents().filter_map(|i| match &i.subject {
        Subject::Rack { rack, fault } if !state.incidents().any(|m| covers(rack, fault, m)) => Some(i.id),
        _ => None,
    })
}
