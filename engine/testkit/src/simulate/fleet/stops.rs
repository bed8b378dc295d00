//! The book of the stops: what stands still by the fleet's record, and who began something all the same.

use crate::warden::takes_away;
use engine_core::incident::{FleetEvent, Scope};
use engine_core::run::{Event, RunState};
use engine_runtime::journal::Record;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// How long after a stop is on record an engine may still begin what it had decided: nothing can call it back.
const WINDOW: SignedDuration = SignedDuration::from_secs(1);

/// What stands still by the record of one journal.
#[derive(Debug, Default)]
pub(super) struct Stops {
    still: BTreeMap<Scope, (bool, Timestamp)>,
    pub(super) trips: u64,
    pub(super) by_people: u64,
    pub(super) releases: u64,
    pub(super) dropped: u64,
}

impl Stops {
    /// Hears a record of the fleet; returns the scope of a breaker that tripped.
    pub(super) fn hear(&mut self, record: &Record) -> Option<Scope> {
        let event: FleetEvent = serde_json::from_str(&record.body).ok()?;
        match event {
            FleetEvent::Tripped { scope, .. } => {
                self.trips += 1;
                self.still.entry(scope.clone()).or_insert((false, record.at));
                return Some(scope);
            }
            FleetEvent::Stopped { scope, .. } => {
                self.by_people += 1;
                self.still.entry(scope).or_insert((true, record.at));
            }
            FleetEvent::Released { scope, queued, .. } => {
                self.releases += 1;
                self.dropped += u64::from(queued == engine_core::incident::QueuedWork::Drop);
                self.still.remove(&scope);
            }
            _ => {}
        }
        None
    }

    /// Says which rule an intent breaks, and how: what takes something away is begun while its scope stands still. A
    /// person's stop is rule 4; a breaker's is rule 10, for it is about how fast nodes are taken.
    pub(super) fn judge(&self, event: &Event, state: &RunState) -> Option<(u8, String)> {
        let deed = takes_away(event, state)?;
        let plan = &state.plan;
        let concerns = |scope: &Scope| match scope {
            // There is one partition, and every node is in it.
            Scope::Fleet | Scope::Partition(_) => true,
            Scope::Playbook(id) => *id == plan.playbook.id,
            Scope::Node(node) => *node == plan.target.node,
        };
        let long = |since: Timestamp| event.at.duration_since(since) > WINDOW;
        let (scope, (person, since)) =
            self.still.iter().find(|(scope, (_, since))| concerns(scope) && long(*since))?;
        let rule = if *person { 4 } else { 10 };
        Some((rule, format!("run {} began a {deed} while {scope} stands still since {since}", event.run)))
    }
}
