//! Hears of every event of every run, and tells what the operator wants to count.

use crate::happening::{Happening, Telemetry};
use engine_core::known::Known;
use engine_core::run::{Effect, Event, EventKind, OutcomeKind, RunState};
use engine_runtime::engine::Observer;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Steps whose beginning is remembered, at most: more than runs can be under way.
const MAX_OPEN: usize = 4_096;

/// Tells the telemetry of runs and steps.
#[derive(Debug)]
pub struct RunWatch {
    telemetry: Telemetry,
    begun: Mutex<BTreeMap<(String, Effect), Timestamp>>,
}

impl RunWatch {
    /// Builds it.
    pub fn new(telemetry: Telemetry) -> Self {
        Self { telemetry, begun: Mutex::default() }
    }

    fn step_ended(&self, event: &Event, state: &RunState, effect: Effect, outcome: OutcomeKind) {
        let key = (event.run.to_string(), effect);
        let began = self.begun.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        let Some(began) = began else { return };
        let action = match effect {
            Effect::Lock => "lock",
            Effect::Unlock => "unlock",
            Effect::Hold => "hold",
            Effect::Step(_) | Effect::Undo(_) => state.step_of(effect).map_or("?", |s| s.action.as_str()),
        };
        self.telemetry.tell(&Happening::StepEnded {
            run: event.run.to_string(),
            action: action.to_owned(),
            outcome: match outcome {
                OutcomeKind::Succeeded => "succeeded",
                OutcomeKind::Transient => "transient",
                OutcomeKind::Permanent => "permanent",
                OutcomeKind::Ambiguous => "ambiguous",
                OutcomeKind::Foreign => "foreign",
            },
            seconds: seconds(began, event.at),
        });
    }
}

impl Observer for RunWatch {
    fn on_event(&self, event: &Event, state: &RunState) {
        let (run, node) = (event.run.to_string(), state.plan.target.node.to_string());
        match &event.kind {
            EventKind::Proposed { plan, .. } => {
                let playbook = plan.playbook.id.clone();
                self.telemetry.tell(&Happening::RunProposed { run, playbook, node });
            }
            EventKind::Started { .. } => {
                let of = |minutes: &Known<u64>| match minutes {
                    Known::Known(m) => Some(*m as f64 * 60.0),
                    Known::Unknown(_) => None,
                };
                let cost = state.plan.cost.as_ref();
                let gpu_seconds =
                    cost.map_or((None, None), |c| (of(&c.gpu_minutes_least), of(&c.gpu_minutes_most)));
                self.telemetry.tell(&Happening::RunBegun { run, node, gpu_seconds });
            }
            EventKind::Intent { effect, .. } => {
                let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
                if begun.len() >= MAX_OPEN {
                    begun.pop_first();
                }
                begun.insert((run, *effect), event.at);
            }
            EventKind::Finished { effect, outcome, .. } => {
                self.step_ended(event, state, *effect, outcome.kind);
            }
            EventKind::Ended { end, why, .. } => {
                self.begun.lock().unwrap_or_else(PoisonError::into_inner).retain(|(r, _), _| *r != run);
                self.telemetry.tell(&Happening::RunEnded {
                    run,
                    playbook: state.plan.playbook.id.clone(),
                    node,
                    end: end.as_str(),
                    why: why.clone(),
                    seconds: seconds(state.proposed_at, event.at),
                });
            }
            _ => {}
        }
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}
