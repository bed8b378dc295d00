//! Intake: what an alert changes. Most change nothing: they only count.

use super::alert::{Alert, Fingerprint};
use super::event::{Closing, FleetEvent, IncidentId};
use super::fold::{FleetState, Incident, MAX_SERIES, Phase};
use super::rack;
use super::shape::Shape;
use crate::model::NodeName;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Time limits of the intake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntakeRules {
    /// An alert older than this is stale and opens nothing.
    pub max_age: SignedDuration,
    /// An alert from further in the future than this is from a wrong clock.
    pub max_skew: SignedDuration,
    /// Time between two records that an alert was seen again.
    pub repeat_every: SignedDuration,
    /// How long a resolved alert must stay resolved before it counts: a flapping one never does.
    pub quiet: SignedDuration,
    /// How long after a repair its alerts do not open a new incident.
    pub settle: SignedDuration,
}

impl Default for IntakeRules {
    fn default() -> Self {
        Self {
            max_age: SignedDuration::from_mins(10),
            max_skew: SignedDuration::from_mins(5),
            repeat_every: SignedDuration::from_mins(5),
            quiet: SignedDuration::from_mins(3),
            settle: SignedDuration::from_mins(5),
        }
    }
}

/// Why an alert opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum NotHeard {
    /// The cluster has no such node.
    #[error("unknown_node: the cluster has no node of this name")]
    UnknownNode,
    /// Too old.
    #[error("stale_alert: it is older than an alert may be")]
    Stale,
    /// From the future.
    #[error("clock_skew: its time lies in the future")]
    Skewed,
    /// It says that something is over which was never known.
    #[error("resolved: nothing is known that it could end")]
    NothingToResolve,
    /// A repair is settling.
    #[error("settling: its node was repaired a moment ago")]
    Settling,
}

/// What came of hearing an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It changes something: the event to write.
    New(Box<FleetEvent>),
    /// It only counts for its incident.
    Counted(IncidentId),
    /// It opens nothing.
    Not(NotHeard),
}

/// Counts that are kept in memory between two records. As large as the open incidents are, and no larger.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    series: BTreeMap<(IncidentId, Fingerprint), Counter>,
}

#[derive(Debug, Clone, Default)]
struct Counter {
    times: u64,
    last_seen: Timestamp,
    recorded_at: Timestamp,
    /// Since when the source says that it is over.
    over_since: Option<Timestamp>,
}

impl Counters {
    /// Counts the series it follows.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Says whether it follows none.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }
}

/// Says what an alert changes. `shape` is empty as long as the cluster was not read; then nothing is opened.
pub fn hear(
    state: &FleetState,
    counters: &mut Counters,
    shape: &Shape,
    rules: &IntakeRules,
    alert: Alert,
    now: Timestamp,
) -> Heard {
    let age = now.duration_since(alert.seen_at);
    // Also where the node has an incident: what was seen long ago says nothing about it, and may be the strongest of all.
    if alert.firing && age > rules.max_age {
        return Heard::Not(NotHeard::Stale);
    }
    if alert.firing && -age > rules.max_skew {
        return Heard::Not(NotHeard::Skewed);
    }
    if let Some(incident) = state.on_node(&alert.node) {
        return hear_known(counters, rules, incident, alert, now);
    }
    if !alert.firing {
        return Heard::Not(NotHeard::NothingToResolve);
    }
    let Some(place) = shape.place(&alert.node) else { return Heard::Not(NotHeard::UnknownNode) };
    if is_settling(state, rules, &alert.node, &alert.fingerprint, now) {
        return Heard::Not(NotHeard::Settling);
    }
    Heard::New(Box::new(FleetEvent::Opened { alert, place: place.clone() }))
}

fn is_settling(
    state: &FleetState,
    rules: &IntakeRules,
    node: &NodeName,
    fingerprint: &Fingerprint,
    now: Timestamp,
) -> bool {
    state.settling(node, fingerprint).is_some_and(|since| now.duration_since(since) <= rules.settle)
}

fn hear_known(
    counters: &mut Counters,
    rules: &IntakeRules,
    incident: &Incident,
    alert: Alert,
    now: Timestamp,
) -> Heard {
    let id = incident.id;
    let Some(known) = incident.alerts.get(&alert.fingerprint) else {
        if !alert.firing {
            return Heard::Not(NotHeard::NothingToResolve);
        }
        if incident.alerts.len() >= MAX_SERIES {
            return Heard::Counted(id);
        }
        return Heard::New(Box::new(FleetEvent::Joined { incident: id, alert }));
    };
    let counter = counters
        .series
        .entry((id, alert.fingerprint.clone()))
        .or_insert_with(|| Counter { recorded_at: known.last_seen, ..Counter::default() });
    if alert.firing {
        counter.times += 1;
        counter.last_seen = now;
        counter.over_since = None;
    } else if known.firing {
        counter.over_since.get_or_insert(now);
        // Once in a while: one that flaps has not a record for each time.
        let rested = known.eased_at.is_none_or(|at| now.duration_since(at) >= rules.repeat_every * 2);
        if !known.easing && rested {
            let fingerprint = alert.fingerprint;
            return Heard::New(Box::new(FleetEvent::Eased { incident: id, fingerprint }));
        }
    }
    Heard::Counted(id)
}

/// Takes up what an engine before this one heard to be over and did not live to resolve. Had it been seen again since, a
/// record would say so by now.
fn adopt(state: &FleetState, counters: &mut Counters, rules: &IntakeRules, now: Timestamp) {
    let patience = rules.repeat_every + rules.quiet;
    for i in state.incidents() {
        for (print, s) in i.alerts.iter().filter(|(_, s)| s.firing && s.easing) {
            let Some(at) = s.eased_at.filter(|at| now.duration_since(*at) >= patience) else { continue };
            counters.series.entry((i.id, print.clone())).or_insert_with(|| Counter {
                recorded_at: s.last_seen,
                over_since: Some(at),
                ..Counter::default()
            });
        }
    }
}

/// Says what time alone changes: counts are written down, alerts that stayed over are resolved, and incidents whose
/// alerts are all over and that nobody works on are closed. At most `room` events; what is left is said the next time.
pub fn tick(
    state: &FleetState,
    counters: &mut Counters,
    rules: &IntakeRules,
    now: Timestamp,
    room: usize,
) -> Vec<FleetEvent> {
    let mut out = Vec::new();
    adopt(state, counters, rules, now);
    counters
        .series
        .retain(|(id, print), _| state.incident(*id).is_some_and(|i| i.alerts.contains_key(print)));
    for ((id, print), c) in &mut counters.series {
        // A series has two events at most, and both or none.
        if out.len() + 2 > room {
            break;
        }
        if c.times > 0 && now.duration_since(c.recorded_at) >= rules.repeat_every {
            out.push(FleetEvent::Repeated {
                incident: *id,
                fingerprint: print.clone(),
                times: c.times,
                last_seen: c.last_seen,
            });
            c.times = 0;
            c.recorded_at = now;
        }
        if c.over_since.is_some_and(|since| now.duration_since(since) >= rules.quiet) {
            c.over_since = None;
            c.times = 0;
            out.push(FleetEvent::Resolved { incident: *id, fingerprint: print.clone() });
        }
    }
    let mut closed = BTreeSet::new();
    for i in state.incidents() {
        let idle = i.node().is_some() && !matches!(i.phase, Phase::Running { .. });
        if idle && !i.firing() && out.len() < room {
            closed.insert(i.id);
            out.push(FleetEvent::Closed {
                incident: i.id,
                closing: Closing::Over,
                why: "its sources say that it is over".to_owned(),
            });
        }
    }
    for id in rack::over_by_now(state) {
        if out.len() < room {
            let why = "none of its nodes has the fault any more".to_owned();
            out.push(FleetEvent::Closed { incident: id, closing: Closing::Over, why });
        }
    }
    counters.series.retain(|(id, _), _| !closed.contains(id));
    out
}
