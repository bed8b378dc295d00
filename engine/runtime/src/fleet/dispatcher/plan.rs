//! From an incident that waits to a plan on record.

use super::choose::Wanted;
use super::{Dispatcher, lock};
use crate::engine::EngineError;
use crate::fleet::FleetError;
use engine_core::condition::Truth;
use engine_core::incident::{Affected, FleetEvent, Incident, IncidentId, Phase, Subject};
use engine_core::model::{NodeName, RunId};
use engine_core::select::Choice;
use jiff::Timestamp;
use std::collections::BTreeSet;

/// What becomes of an incident after a look at it.
enum Decision {
    Planned,
    Wait(String),
    Person(String),
}

impl Dispatcher {
    /// Plans the incidents that wait, the strongest fault first.
    pub(super) async fn plan_queued(&self) -> Result<(), FleetError> {
        let s = &self.shared;
        let now = s.engine.ports.clock.now();
        let (busy, again) = {
            let at_work = lock(&s.at_work);
            (at_work.planning.clone(), at_work.again.clone())
        };
        let due = |i: &&Incident| {
            let rested = again.get(&i.id).is_none_or(|t| *t <= now);
            i.is_queued() && i.part_of.is_none() && !busy.contains(&i.id) && rested
        };
        let mut queued: Vec<_> =
            s.log.read(|f| f.incidents().filter(due).map(|i| (i.id, i.strength())).collect::<Vec<_>>()).await;
        queued.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        for (id, _) in queued {
            {
                let mut at_work = lock(&s.at_work);
                if at_work.planning.len() >= s.config.planners {
                    break;
                }
                at_work.planning.insert(id);
            }
            let me = self.clone();
            s.spawn.spawn(
                format!("plan for {id}"),
                Box::pin(async move {
                    if let Err(error) = me.plan(id).await {
                        tracing::warn!(%id, %error, "an incident could not be planned; it is tried again");
                    }
                    lock(&me.shared.at_work).planning.remove(&id);
                }),
            );
        }
        let open: BTreeSet<IncidentId> =
            s.log.read(|f| f.incidents().filter(|i| i.is_queued()).map(|i| i.id).collect()).await;
        lock(&s.at_work).again.retain(|id, _| open.contains(id));
        Ok(())
    }

    /// Plans one incident and writes down what came of it.
    async fn plan(&self, id: IncidentId) -> Result<(), FleetError> {
        let s = &self.shared;
        let Some(incident) = s.log.read(|f| f.incident(id).cloned()).await else { return Ok(()) };
        let decision = self.decide(&incident).await?;
        let event = match decision {
            Decision::Planned => return Ok(()),
            Decision::Wait(why) => {
                let again = s.engine.ports.clock.now().saturating_add(s.config.plan_again);
                lock(&s.at_work).again.insert(id, again.unwrap_or(Timestamp::MAX));
                FleetEvent::Waiting { incident: id, why }
            }
            Decision::Person(why) => FleetEvent::WithPerson { incident: id, why },
        };
        s.log
            .write(|draft| match draft.state.incident(id) {
                // A stronger fault that joined meanwhile was not judged: the next round does.
                Some(now) if now.strength() > incident.strength() => Ok(()),
                Some(now) if now.is_queued() && !says_the_same(now, &event) => draft.push(event.clone()),
                _ => Ok(()),
            })
            .await
    }

    async fn decide(&self, incident: &Incident) -> Result<Decision, FleetError> {
        let s = &self.shared;
        let Subject::Node { node, place } = &incident.subject else {
            return Ok(Decision::Person("a breaker is open".to_owned()));
        };
        let Some((fingerprint, series)) = incident.strongest() else {
            return Ok(Decision::Wait("it has no alert".to_owned()));
        };
        if incident.runs.len() >= s.config.plans {
            let why = format!("attempts: {} runs did not repair it", incident.runs.len());
            return Ok(Decision::Person(why));
        }
        let wanted = Wanted { incident, node, fingerprint, series };
        let chosen = self.choose(wanted).await;
        let reference = match chosen.choice {
            Choice::Playbook(reference) => reference,
            Choice::Wait(why) => return Ok(Decision::Wait(why)),
            Choice::Person(why) => {
                let note = chosen.note.map(|n| format!(" ({n})")).unwrap_or_default();
                return Ok(Decision::Person(format!("{why}{note}")));
            }
        };
        let Some(playbook) = s.playbooks.find(&reference) else {
            return Ok(Decision::Wait(format!("{reference} was withdrawn meanwhile")));
        };
        let affected =
            Affected { node, partitions: Some(&place.partitions), playbook: &playbook.reference.id };
        if let Some(why) = s.log.read(|f| f.switches().against(affected)).await {
            return Ok(Decision::Wait(why));
        }
        if let Some(run) = self.other_run(node).await? {
            return Ok(Decision::Wait(format!("run {run} has the node")));
        }
        let proposal = match s.engine.plan(wanted.request(&playbook, self.me())).await {
            Ok(p) => p,
            Err(e) => return Ok(Decision::Wait(e.to_string())),
        };
        if !proposal.objections.is_empty() {
            let why = proposal.objections.join("; ");
            let known_no = proposal.plan.judged.iter().any(|c| c.truth == Truth::False);
            return Ok(if known_no { Decision::Person(why) } else { Decision::Wait(why) });
        }
        let state = match s.engine.record_plan(proposal).await {
            Ok(state) => state,
            Err(EngineError::Journal(e)) => return Err(e.into()),
            Err(e) => return Ok(Decision::Wait(e.to_string())),
        };
        if let Some(note) = chosen.note {
            s.engine.note(&state, note).await;
        }
        let planned = FleetEvent::Planned { incident: incident.id, run: state.run.clone() };
        let taken = s
            .log
            .write(|draft| match draft.state.incident(incident.id) {
                Some(now) if now.is_queued() => draft.push(planned.clone()).map(|()| true),
                _ => Ok(false),
            })
            .await?;
        if !taken {
            let _ = s.engine.deny(&state.run, &self.me(), "its incident was closed meanwhile").await;
        }
        Ok(Decision::Planned)
    }

    /// Finds a run that has the node already, whoever asked for it.
    async fn other_run(&self, node: &NodeName) -> Result<Option<RunId>, FleetError> {
        let open = self.shared.engine.ports.journal.runs(Some(node), true, 1).await?;
        Ok(open.into_iter().next().map(|r| r.run))
    }
}

fn says_the_same(incident: &Incident, event: &FleetEvent) -> bool {
    matches!((&incident.phase, event), (Phase::Waiting { why: a, .. }, FleetEvent::Waiting { why: b, .. }) if a == b)
}
