//! What earlier runs count for the policy: attempts, repeat offenders, rates. Read from the journal, so that it
//! survives restarts and counts the runs of every process.

use crate::journal::{Journal, JournalError};
use engine_core::action::EffectClass;
use engine_core::known::{Cause, Unknown};
use engine_core::model::RunId;
use engine_core::plan::Plan;
use engine_core::policy::{GpuIdentity, Held, Ledger, PastRun, Policy};
use engine_core::run::{Event, EventKind, RunState, Status, fold};
use engine_core::value::Value;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Runs that are read when the history is built; older ones are out of every window, or said to be unread.
const FIRST: usize = 50_000;
/// Runs that are looked at again each time: the newest.
const AGAIN: usize = 1_000;

/// The history of runs.
#[derive(Debug)]
pub struct History {
    journal: Arc<dyn Journal>,
    /// How far back a policy looks at most.
    reach: SignedDuration,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    runs: BTreeMap<RunId, Entry>,
    read_at: Option<Timestamp>,
}

#[derive(Debug, Clone)]
struct Entry {
    last_event_at: Timestamp,
    past: Option<PastRun>,
    changes: Vec<(EffectClass, Timestamp)>,
}

impl History {
    /// Builds an empty history; it is read when it is first asked. Runs that ended longer ago than the policy looks
    /// back are not read.
    pub fn new(journal: Arc<dyn Journal>, policy: &Policy) -> Self {
        let rates = &policy.rates;
        let offenders = &policy.repeat_offenders;
        let all = [
            policy.attempts,
            offenders.gpu,
            offenders.slot,
            rates.reversible,
            rates.disruptive,
            rates.destructive,
        ];
        let reach = all.iter().map(|r| r.per.duration()).max().unwrap_or_default();
        Self { journal, reach, known: Mutex::default() }
    }

    /// Returns everything the policy counts, with the locks that are held now. The runs on record are read again if they
    /// were last read before `read_after`.
    pub async fn ledger(&self, held: &[Held], read_after: Timestamp, now: Timestamp) -> Ledger {
        let mut ledger = Ledger::default();
        for h in held {
            ledger.hold(h.clone());
        }
        let mut known = self.known.lock().await;
        if known.read_at.is_none_or(|at| at < read_after) {
            match self.refresh(&mut known.runs, now).await {
                Ok(()) => known.read_at = Some(now),
                Err(e) => ledger.gap(Unknown::new(Cause::ReadFailed, format!("the runs on record: {e}"))),
            }
        }
        for entry in known.runs.values() {
            if let Some(past) = &entry.past {
                ledger.run(past.clone());
            }
            for (class, at) in &entry.changes {
                ledger.change(*class, *at);
            }
        }
        ledger
    }

    async fn refresh(&self, known: &mut BTreeMap<RunId, Entry>, now: Timestamp) -> Result<(), JournalError> {
        let limit = if known.is_empty() { FIRST } else { AGAIN };
        let from = now.saturating_sub(self.reach).unwrap_or(Timestamp::MIN);
        known.retain(|_, e| e.last_event_at >= from || !e.is_over());
        let lines = self.journal.runs(None, false, limit).await?;
        let unread = lines.len() == FIRST && lines.last().is_some_and(|l| l.last_event_at >= from);
        for line in lines {
            if known.get(&line.run).is_some_and(|e| e.last_event_at == line.last_event_at && e.is_over()) {
                continue;
            }
            if line.status.is_terminal() && line.last_event_at < from {
                continue;
            }
            // A plan that was not begun counts for nothing, and need not be read.
            if matches!(line.status, Status::Proposed | Status::AwaitingApproval | Status::Approved) {
                continue;
            }
            let events = self.journal.load(&line.run).await?;
            if let Ok(state) = fold(&events) {
                known.insert(line.run, Entry::of(&state, &events));
            }
        }
        if unread {
            let what = "runs of the journal within the policy's reach, so that it cannot be counted";
            return Err(JournalError::TooMany { what, count: FIRST, limit: FIRST - 1 });
        }
        Ok(())
    }
}

impl Entry {
    fn of(state: &RunState, events: &[Event]) -> Self {
        let began = events.iter().find(|e| matches!(e.kind, EventKind::Started { .. })).map(|e| e.at);
        let touched = state.effects.keys().any(|e| state.step_of(*e).is_some());
        let changes = events.iter().filter_map(|e| match &e.kind {
            EventKind::Intent { effect, .. } => {
                state.step_of(*effect).filter(|s| s.effect.mutates()).map(|s| (s.effect, e.at))
            }
            _ => None,
        });
        let past = began.filter(|_| touched).map(|began| PastRun {
            run: state.run.clone(),
            node: state.plan.target.node.clone(),
            gpu: gpu_of(&state.plan),
            playbook: state.plan.playbook.id.clone(),
            faults: Vec::new(),
            began,
            ended: state.status.is_terminal().then_some(state.last_event_at),
        });
        Self { last_event_at: state.last_event_at, past, changes: changes.collect() }
    }

    fn is_over(&self) -> bool {
        self.past.as_ref().is_none_or(|p| p.ended.is_some())
    }
}

/// Names the GPU of a plan for the policy.
pub(super) fn gpu_of(plan: &Plan) -> Option<GpuIdentity> {
    let gpu = plan.target.gpu.as_ref()?;
    let serial = plan.facts.get("gpu.serial").and_then(|f| match f.value.known() {
        Some(Value::Text(t)) => Some(t.clone()),
        _ => None,
    });
    Some(GpuIdentity { serial, uuid: Some(gpu.uuid.clone()), bus_id: Some(gpu.bus_id.clone()) })
}
