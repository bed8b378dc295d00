//! What the end of a run means for its incident, and for the breakers.

use super::{Dispatcher, lock};
use crate::engine::EngineError;
use crate::fleet::FleetError;
use crate::journal::RunSummary;
use engine_core::incident::{Closing, FleetEvent, Incident, Phase, Trouble};
use engine_core::model::RunId;
use engine_core::run::{ActorKind, EffectState, End, Refusal, RunState, Status};
use std::collections::BTreeSet;

impl Dispatcher {
    /// Takes note of runs that ended while nobody looked.
    pub(super) async fn settle_ended(&self, open: &[RunSummary]) -> Result<(), FleetError> {
        let open: BTreeSet<&RunId> = open.iter().map(|r| &r.run).collect();
        let ended: Vec<RunId> = self
            .shared
            .log
            .read(|f| {
                let runs = f.incidents().filter_map(|i| match &i.phase {
                    Phase::Running { run } => Some(run.clone()),
                    _ => None,
                });
                runs.filter(|r| !open.contains(r)).collect()
            })
            .await;
        for run in ended {
            if !lock(&self.shared.at_work).driving.contains(&run) {
                self.settle(&run).await?;
            }
        }
        Ok(())
    }

    /// Writes down what the end of a run means for its incident.
    pub(super) async fn settle(&self, run: &RunId) -> Result<(), FleetError> {
        let s = &self.shared;
        let state = match s.engine.state(run).await {
            Ok(state) => state,
            Err(EngineError::Journal(e)) => return Err(e.into()),
            Err(error) => {
                tracing::error!(%run, %error, "a run that ended cannot be read");
                return Ok(());
            }
        };
        let Status::Ended(end) = state.status else { return Ok(()) };
        let trouble = trouble_of(&state, end);
        s.log
            .write(|draft| {
                if let Some((trouble, why)) = &trouble {
                    let playbook = state.plan.playbook.id.clone();
                    let (run, why) = (run.clone(), why.clone());
                    draft.push(FleetEvent::Troubled { run, playbook, trouble: *trouble, why })?;
                }
                let Some(incident) = draft.state.of_run(run) else { return Ok(()) };
                if !matches!(&incident.phase, Phase::Running { run: r } if r == run) {
                    return Ok(());
                }
                let event = after_run(incident, &state, end, s.config.plans);
                draft.push(event)
            })
            .await
    }
}

/// What the end of a run means for its incident.
fn after_run(incident: &Incident, state: &RunState, end: End, plans: usize) -> FleetEvent {
    let id = incident.id;
    let why = format!("run {} {}: {}", state.run, end.as_str().replace('_', " "), state.why);
    match end {
        End::Succeeded => FleetEvent::Closed { incident: id, closing: Closing::Repaired, why },
        // Nothing stands of it: it may be planned anew on fresh facts, a few times.
        End::Rejected | End::RolledBack if incident.runs.len() < plans && !refused_by_people(state) => {
            FleetEvent::Waiting { incident: id, why }
        }
        End::Rejected
        | End::RolledBack
        | End::Shadowed
        | End::Cancelled
        | End::Held
        | End::HandedOver
        | End::Stuck => FleetEvent::WithPerson { incident: id, why },
    }
}

/// A person's no, a program's, or nobody's yes, is not asked for again. What an engine took back itself may be.
fn refused_by_people(state: &RunState) -> bool {
    match &state.refusal {
        Some(Refusal::By(actor)) => actor.kind != ActorKind::Engine,
        Some(Refusal::Nobody) => true,
        None => false,
    }
}

fn trouble_of(state: &RunState, end: End) -> Option<(Trouble, String)> {
    if end == End::Stuck {
        return Some((Trouble::Stuck, state.why.clone()));
    }
    state.effects.values().find_map(|e| match e {
        EffectState::Unclear { why } => Some((Trouble::Ambiguous, why.clone())),
        _ => None,
    })
}
