//! The fold: events of the fleet in, incidents and switches out. An event that may not follow is a typed error.

use super::alert::{Alert, Fingerprint};
use super::event::{Closing, FleetEvent, IncidentId, QueuedWork, Trouble};
use super::fault::{Strength, strength};
use super::rack;
use super::shape::Place;
use super::switch::{Scope, Stop, Switches};
use crate::model::{NodeName, RunId};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How long an opened incident counts for the storm rules, at most.
const MEMORY: SignedDuration = SignedDuration::from_hours(24);
/// Openings that are remembered for the storm rules, at most: more than any fleet has nodes.
const MAX_OPENINGS: usize = 200_000;
/// Alert series that one incident tells apart; further ones only count.
pub const MAX_SERIES: usize = 64;

/// What an incident is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "subject", rename_all = "snake_case")]
pub enum Subject {
    /// A node, with everything on it.
    Node {
        /// Its name.
        node: NodeName,
        /// Where it belongs.
        place: Place,
    },
    /// A breaker that tripped.
    Breaker {
        /// Its scope.
        scope: Scope,
    },
    /// A rack, of which several nodes have the same fault.
    Rack {
        /// Its name.
        rack: String,
        /// The fault word.
        fault: String,
    },
    /// A tool that tells about nodes; nothing is ever done to a node for it.
    Tool {
        /// Which one, such as `exporter: gpu001`.
        tool: String,
    },
}

/// Where an incident stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Nothing was decided yet.
    New,
    /// Nothing is done for now, and why.
    Waiting {
        /// One sentence.
        why: String,
        /// Since when.
        since: Timestamp,
    },
    /// A run has it.
    Running {
        /// The run.
        run: RunId,
    },
    /// A person has it.
    WithPerson {
        /// One sentence.
        why: String,
    },
}

/// One series of alerts within an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// The fault word.
    pub fault: String,
    /// The GPU, where the alert names one.
    pub gpu: Option<String>,
    /// Who sends it.
    pub source: String,
    /// Whether it lasts.
    pub firing: bool,
    /// How often it was seen, as far as the record says.
    pub times: u64,
    /// When it was seen last.
    pub last_seen: Timestamp,
    /// Whether its source said last, as far as the record says, that it is over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub easing: bool,
    /// When that was written down last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eased_at: Option<Timestamp>,
}

/// An open incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Its id.
    pub id: IncidentId,
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// Its alerts.
    pub alerts: BTreeMap<Fingerprint, Series>,
    /// Where it stands.
    #[serde(flatten)]
    pub phase: Phase,
    /// The greater incident that it is a part of: of its rack, or of a breaker while that is open.
    pub part_of: Option<IncidentId>,
    /// Runs that were made for it.
    pub runs: Vec<RunId>,
}

impl Incident {
    /// Returns the node, for an incident of one.
    pub fn node(&self) -> Option<&NodeName> {
        match &self.subject {
            Subject::Node { node, .. } => Some(node),
            Subject::Breaker { .. } | Subject::Tool { .. } | Subject::Rack { .. } => None,
        }
    }

    /// Finds the strongest fault among its alerts: firing ones first, then strength, then the one seen first.
    pub fn strongest(&self) -> Option<(&Fingerprint, &Series)> {
        self.alerts.iter().max_by(|(_, a), (_, b)| {
            let rank = |s: &Series| (s.firing, strength(&s.fault));
            rank(a).cmp(&rank(b)).then(b.last_seen.cmp(&a.last_seen))
        })
    }

    /// Returns the strength of its strongest fault.
    pub fn strength(&self) -> Strength {
        self.strongest().map_or(Strength::Unknown, |(_, s)| strength(&s.fault))
    }

    /// Lists the GPUs that its alerts name.
    pub fn gpus(&self) -> BTreeSet<&str> {
        self.alerts.values().filter_map(|s| s.gpu.as_deref()).collect()
    }

    /// Says whether any of its alerts lasts.
    pub fn firing(&self) -> bool {
        self.alerts.values().any(|s| s.firing)
    }

    /// Says whether a person has it by rule alone: no run was made for it, so nobody was asked and nothing was tried.
    pub fn is_untouched_with_person(&self) -> bool {
        matches!(self.phase, Phase::WithPerson { .. }) && self.runs.is_empty()
    }

    /// Says whether the engine may begin something for it now.
    pub fn is_queued(&self) -> bool {
        matches!(self.subject, Subject::Node { .. })
            && matches!(self.phase, Phase::New | Phase::Waiting { .. })
    }
}

/// An event that may not follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {seq} ({event}) of the fleet may not follow: {why}")]
pub struct IllegalFleetEvent {
    /// Its place.
    pub seq: u64,
    /// Its word.
    pub event: &'static str,
    /// Why not.
    pub why: String,
}

/// When a node's incident was opened: what the storm rules count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) at: Timestamp,
    pub(super) node: NodeName,
    pub(super) place: Place,
    pub(super) fault: String,
}

/// What went wrong with runs lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Troubles {
    pub(super) at: Timestamp,
    pub(super) playbook: String,
    pub(super) trouble: Trouble,
}

/// The fleet as its events tell it: open incidents, switches, and what the storm rules count. Bounded by the number of
/// nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetState {
    seq: u64,
    incidents: BTreeMap<IncidentId, Incident>,
    by_node: BTreeMap<NodeName, IncidentId>,
    by_run: BTreeMap<RunId, IncidentId>,
    /// What is still settling after a repair: alerts of these series do not open an incident at once.
    settling: BTreeMap<NodeName, (Timestamp, BTreeSet<Fingerprint>)>,
    /// What was said, at the release of a breaker, about incidents whose run may not have begun yet.
    released: BTreeMap<IncidentId, QueuedWork>,
    switches: Switches,
    pub(super) openings: VecDeque<Opening>,
    pub(super) troubles: VecDeque<Troubles>,
}

impl FleetState {
    /// Returns how many events it has taken.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Lists the open incidents, oldest first.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.values()
    }

    /// Counts the open incidents.
    pub fn open(&self) -> usize {
        self.incidents.len()
    }

    /// Finds an open incident.
    pub fn incident(&self, id: IncidentId) -> Option<&Incident> {
        self.incidents.get(&id)
    }

    /// Finds the open incident of a node.
    pub fn on_node(&self, node: &NodeName) -> Option<&Incident> {
        self.by_node.get(node).and_then(|id| self.incidents.get(id))
    }

    /// Finds the open incident of a run.
    pub fn of_run(&self, run: &RunId) -> Option<&Incident> {
        self.by_run.get(run).and_then(|id| self.incidents.get(id))
    }

    /// Lists the runs that were made before a breaker was released: one that has not begun is dropped or judged anew.
    pub fn released(&self) -> impl Iterator<Item = (IncidentId, &RunId, QueuedWork)> {
        self.released.iter().filter_map(|(id, queued)| match &self.incidents.get(id)?.phase {
            Phase::Running { run } => Some((*id, run, *queued)),
            _ => None,
        })
    }

    /// Returns what stands still.
    pub fn switches(&self) -> &Switches {
        &self.switches
    }

    /// Says since when a node settles after a repair, for one series of alerts.
    pub fn settling(&self, node: &NodeName, fingerprint: &Fingerprint) -> Option<Timestamp> {
        self.settling.get(node).filter(|(_, all)| all.contains(fingerprint)).map(|(at, _)| *at)
    }

    /// Applies the event at place `seq`, written at `at`.
    pub fn apply(&mut self, seq: u64, at: Timestamp, event: &FleetEvent) -> Result<(), IllegalFleetEvent> {
        let illegal = |why: String| IllegalFleetEvent { seq, event: event.word(), why };
        if seq != self.seq + 1 {
            return Err(illegal(format!("{} events came before it", self.seq)));
        }
        self.take(seq, at, event).map_err(illegal)?;
        self.seq = seq;
        Ok(())
    }

    fn take(&mut self, seq: u64, at: Timestamp, event: &FleetEvent) -> Result<(), String> {
        match event {
            FleetEvent::Opened { alert, place } => self.open_incident(IncidentId(seq), at, alert, place),
            FleetEvent::Joined { incident, alert } => {
                let i = self.find(*incident)?;
                if i.alerts.len() >= MAX_SERIES {
                    return Err(format!("{incident} has {MAX_SERIES} series already"));
                }
                let stronger = strength(&alert.fault) > i.strength();
                i.alerts.insert(alert.fingerprint.clone(), series(alert, at));
                let joined = i.clone();
                let greater = joined.part_of.or_else(|| rack::over(self, &joined));
                let i = self.find(*incident)?;
                i.part_of = greater;
                // What a person was asked about was the weaker one, and nobody has touched the node for it.
                if stronger && i.is_untouched_with_person() {
                    i.phase = Phase::New;
                }
                Ok(())
            }
            FleetEvent::Repeated { incident, fingerprint, times, last_seen } => {
                let s = self.series(*incident, fingerprint)?;
                s.times = s.times.saturating_add(*times);
                s.last_seen = s.last_seen.max(*last_seen);
                (s.firing, s.easing) = (true, false);
                Ok(())
            }
            FleetEvent::Eased { incident, fingerprint } => {
                let s = self.series(*incident, fingerprint)?;
                (s.easing, s.eased_at) = (true, Some(at));
                Ok(())
            }
            FleetEvent::Resolved { incident, fingerprint } => {
                let s = self.series(*incident, fingerprint)?;
                (s.firing, s.easing) = (false, false);
                Ok(())
            }
            FleetEvent::Planned { incident, run } => {
                let i = self.find(*incident)?;
                if !i.is_queued() {
                    return Err(format!("{incident} is not waiting for a run"));
                }
                i.phase = Phase::Running { run: run.clone() };
                i.runs.push(run.clone());
                self.released.remove(incident);
                self.by_run.insert(run.clone(), *incident);
                Ok(())
            }
            FleetEvent::Waiting { incident, why } => {
                let i = self.find(*incident)?;
                let since = if let Phase::Waiting { since, .. } = &i.phase { *since } else { at };
                i.phase = Phase::Waiting { why: why.clone(), since };
                Ok(())
            }
            FleetEvent::WithPerson { incident, why } => {
                self.find(*incident)?.phase = Phase::WithPerson { why: why.clone() };
                Ok(())
            }
            FleetEvent::Troubled { playbook, trouble, .. } => {
                self.troubles.push_back(Troubles { at, playbook: playbook.clone(), trouble: *trouble });
                self.forget_before(at);
                Ok(())
            }
            FleetEvent::Closed { incident, closing, .. } => self.close(*incident, *closing, at),
            FleetEvent::Tripped { scope, why, .. } => {
                if self.switches.find(scope).is_some() {
                    return Err(format!("{scope} stands still already"));
                }
                let id = IncidentId(seq);
                self.switches.stop(scope.clone(), Stop { since: at, by: None, why: why.clone() });
                for i in self.incidents.values_mut().filter(|i| i.is_queued() && covers(scope, i)) {
                    i.part_of.get_or_insert(id);
                }
                let subject = Subject::Breaker { scope: scope.clone() };
                self.incidents.insert(id, Incident::new(id, subject, at));
                Ok(())
            }
            FleetEvent::RackStruck { rack, fault, why, .. } => {
                let id = IncidentId(seq);
                let subject = Subject::Rack { rack: rack.clone(), fault: fault.clone() };
                if self.incidents.values().any(|i| i.subject == subject) {
                    return Err(format!("rack {rack} has an open incident of {fault} already"));
                }
                for i in self.incidents.values_mut().filter(|i| rack::covers(rack, fault, i)) {
                    i.part_of.get_or_insert(id);
                }
                let mut incident = Incident::new(id, subject, at);
                incident.phase = Phase::WithPerson { why: why.clone() };
                self.incidents.insert(id, incident);
                Ok(())
            }
            FleetEvent::ToolFailed { tool, why } => {
                let (id, subject) = (IncidentId(seq), Subject::Tool { tool: tool.clone() });
                if self.incidents.values().any(|i| i.subject == subject) {
                    return Err(format!("{tool} has an open incident already"));
                }
                let mut incident = Incident::new(id, subject, at);
                incident.phase = Phase::WithPerson { why: why.clone() };
                self.incidents.insert(id, incident);
                Ok(())
            }
            FleetEvent::Stopped { scope, by, why } => {
                self.switches.stop(scope.clone(), Stop { since: at, by: Some(by.clone()), why: why.clone() });
                Ok(())
            }
            FleetEvent::Released { scope, queued, .. } => self.release(scope, *queued, at),
        }
    }

    fn find(&mut self, id: IncidentId) -> Result<&mut Incident, String> {
        self.incidents.get_mut(&id).ok_or_else(|| format!("there is no open incident {id}"))
    }

    fn series(&mut self, id: IncidentId, fingerprint: &Fingerprint) -> Result<&mut Series, String> {
        self.find(id)?.alerts.get_mut(fingerprint).ok_or_else(|| format!("{id} has no alert {fingerprint}"))
    }

    fn open_incident(
        &mut self,
        id: IncidentId,
        at: Timestamp,
        alert: &Alert,
        place: &Place,
    ) -> Result<(), String> {
        if let Some(other) = self.by_node.get(&alert.node) {
            return Err(format!("{} has the open incident {other}", alert.node));
        }
        self.settling.remove(&alert.node);
        let subject = Subject::Node { node: alert.node.clone(), place: place.clone() };
        let mut incident = Incident::new(id, subject, at);
        incident.alerts.insert(alert.fingerprint.clone(), series(alert, at));
        incident.part_of = self.breaker_over(&incident).or_else(|| rack::over(self, &incident));
        self.incidents.insert(id, incident);
        self.by_node.insert(alert.node.clone(), id);
        self.openings.push_back(Opening {
            at,
            node: alert.node.clone(),
            place: place.clone(),
            fault: alert.fault.clone(),
        });
        self.forget_before(at);
        Ok(())
    }

    /// Finds the incident of an open breaker that covers a node's incident.
    fn breaker_over(&self, incident: &Incident) -> Option<IncidentId> {
        self.incidents.values().find_map(|i| match &i.subject {
            Subject::Breaker { scope } if self.switches.find(scope).is_some() && covers(scope, incident) => {
                Some(i.id)
            }
            _ => None,
        })
    }

    fn close(&mut self, id: IncidentId, closing: Closing, at: Timestamp) -> Result<(), String> {
        let incident = self.incidents.remove(&id).ok_or_else(|| format!("there is no open incident {id}"))?;
        for run in &incident.runs {
            self.by_run.remove(run);
        }
        self.released.remove(&id);
        if let Subject::Rack { rack, fault } = &incident.subject {
            // Its nodes are judged one by one now, and what was opened before does not make it the rack's once more.
            for i in self.incidents.values_mut().filter(|i| i.part_of == Some(id)) {
                i.part_of = None;
                if i.is_queued() {
                    i.phase = Phase::New;
                }
            }
            self.openings.retain(|o| o.place.rack.as_deref() != Some(rack) || o.fault != *fault);
        }
        if let Some(node) = incident.node() {
            self.by_node.remove(node);
            if closing != Closing::Over {
                let all = incident.alerts.keys().cloned().collect();
                self.settling.insert(node.clone(), (at, all));
            }
        }
        Ok(())
    }

    fn release(&mut self, scope: &Scope, queued: QueuedWork, at: Timestamp) -> Result<(), String> {
        if !self.switches.release(scope) {
            return Err(format!("{scope} does not stand still"));
        }
        let breaker = self.incidents.values().find_map(|i| match &i.subject {
            Subject::Breaker { scope: s } if s == scope => Some(i.id),
            _ => None,
        });
        for i in self.incidents.values().filter(|i| covers(scope, i)) {
            if matches!(i.phase, Phase::Running { .. }) {
                self.released.insert(i.id, queued);
            }
        }
        let waiting: Vec<IncidentId> =
            self.incidents.values().filter(|i| i.is_queued() && covers(scope, i)).map(|i| i.id).collect();
        for id in waiting {
            match queued {
                QueuedWork::Drop => self.close(id, Closing::Dropped, at)?,
                QueuedWork::JudgeAnew => {
                    let greater = self.incidents.get(&id).and_then(|i| rack::over(self, i));
                    let i = self.find(id)?;
                    i.part_of = greater;
                    i.phase = Phase::New;
                }
            }
        }
        // What was opened before the release does not trip the same breaker once more.
        self.openings.retain(|o| !covers_place(scope, &o.node, &o.place));
        if matches!(scope, Scope::Fleet) {
            self.troubles.clear();
        } else if let Scope::Playbook(id) = scope {
            self.troubles.retain(|t| t.playbook != *id);
        }
        match breaker {
            Some(id) => self.close(id, Closing::Done, at),
            None => Ok(()),
        }
    }

    fn forget_before(&mut self, now: Timestamp) {
        let old = |at: Timestamp| now.duration_since(at) > MEMORY;
        while self.openings.front().is_some_and(|o| old(o.at)) || self.openings.len() > MAX_OPENINGS {
            self.openings.pop_front();
        }
        while self.troubles.front().is_some_and(|t| old(t.at)) || self.troubles.len() > MAX_OPENINGS {
            self.troubles.pop_front();
        }
        if self.settling.len() > 4 * self.incidents.len() + 1024 {
            self.settling.retain(|_, (at, _)| !old(*at));
        }
    }
}

impl Incident {
    fn new(id: IncidentId, subject: Subject, at: Timestamp) -> Self {
        let (alerts, runs) = (BTreeMap::new(), Vec::new());
        Self { id, subject, opened_at: at, alerts, phase: Phase::New, part_of: None, runs }
    }
}

fn series(alert: &Alert, at: Timestamp) -> Series {
    Series {
        fault: alert.fault.clone(),
        gpu: alert.gpu.clone(),
        source: alert.source.clone(),
        firing: alert.firing,
        times: 1,
        last_seen: at,
        easing: false,
        eased_at: None,
    }
}

fn covers(scope: &Scope, incident: &Incident) -> bool {
    match &incident.subject {
        Subject::Node { node, place } => covers_place(scope, node, place),
        Subject::Breaker { .. } | Subject::Tool { .. } | Subject::Rack { .. } => false,
    }
}

fn covers_place(scope: &Scope, node: &NodeName, place: &Place) -> bool {
    match scope {
        Scope::Fleet => true,
        Scope::Partition(p) => place.partitions.contains(p),
        Scope::Node(n) => n == node,
        // Which playbook an incident needs is decided anew each time it is planned.
        Scope::Playbook(_) => false,
    }
}
