//! What a site hears of its engines: the books first, then the people whom it concerns.

use super::{Office, lock};
use crate::simulate::fleet::people;
use crate::simulate::mortal::Mourner;
use engine_core::model::RunId;
use engine_core::plan::Plan;
use engine_core::run::{Event, EventKind, RunState};
use engine_runtime::engine::Observer;
use engine_runtime::journal::Record;
use std::fmt;
use std::sync::Weak;

impl Office {
    /// Hears of an event of a run: the books first, then the people whom it concerns.
    fn hear(&self, place: usize, event: &Event, state: &RunState) {
        self.warden.on_event(event, state);
        let node = &state.plan.target.node;
        let broken = lock(&self.state).stops[place].judge(event, state);
        if let Some((rule, what)) = broken {
            self.world.report(rule, Some(node), what);
        }
        match &event.kind {
            EventKind::Proposed { plan, .. } => self.judge_choice(plan),
            EventKind::Deferred { .. } => lock(&self.state).deferred += 1,
            EventKind::Started { engine } => self.judge_start(engine, state),
            EventKind::ApprovalRequested { .. } | EventKind::ApprovalVoided { .. } => {
                if let Some(office) = self.me.upgrade() {
                    let (run, node) = (event.run.clone(), node.clone());
                    self.spawner.spawn("on call", people::answer(office, place, run, node));
                }
            }
            _ => {}
        }
    }

    /// Rule 11: who begins has the policy that the plan was judged by, and asked as many people as it says.
    fn judge_start(&self, engine: &str, state: &RunState) {
        let Some(terms) = lock(&self.state).bound.get(engine).cloned() else { return };
        let (node, plan) = (&state.plan.target.node, &state.plan);
        let judged_by = plan.policy.as_ref().and_then(|v| v.policy.as_ref());
        if judged_by != terms.digest.as_ref() {
            let what = format!("{engine} began a plan that was judged by another policy than its own");
            self.world.report(11, Some(node), what);
        }
        if state.approvals.len() < usize::from(terms.people) {
            let said_yes = state.approvals.len();
            let what = format!("a run began with the yes of {said_yes} of {} people", terms.people);
            self.world.report(11, Some(node), what);
        }
    }

    /// Rule 12: a run is of the playbook that is for the fault, and on a node and a GPU that an alert was about.
    fn judge_choice(&self, plan: &Plan) {
        let node = &plan.target.node;
        let on = plan.target.gpu.as_ref().map(|g| g.index);
        let struck = on.is_some_and(|gpu| lock(&self.state).alerted.contains(&(node.clone(), gpu)));
        let what = if plan.playbook.id != self.playbook.reference.id {
            format!("a run of {}, which is for another fault", plan.playbook)
        } else if !struck {
            format!("a run on GPU {on:?}, which no alert was about")
        } else {
            return;
        };
        self.world.report(12, Some(node), what);
    }

    fn hear_records(&self, place: usize, records: &[Record]) {
        for record in records.iter().filter(|r| r.stream.as_str() == "fleet") {
            let tripped = lock(&self.state).stops[place].hear(record);
            if let Some(scope) = tripped
                && let Some(office) = self.me.upgrade()
            {
                self.spawner.spawn("the lead", people::release(office, place, scope));
            }
        }
    }
}

/// Tells the office what a process wrote, if it still stands.
#[derive(Clone)]
pub(super) struct Bell {
    pub(super) office: Weak<Office>,
    pub(super) place: usize,
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Observer for Bell {
    fn on_event(&self, event: &Event, state: &RunState) {
        if let Some(office) = self.office.upgrade() {
            office.hear(self.place, event, state);
        }
    }
}

impl Mourner for Bell {
    fn is_first(&self, run: &RunId, after: u64) -> bool {
        self.office.upgrade().is_some_and(|o| lock(&o.state).struck.insert((run.clone(), after)))
    }

    fn recorded(&self, events: &[Event], state: &RunState) {
        if let Some(office) = self.office.upgrade() {
            for e in events {
                office.hear(self.place, e, state);
            }
        }
    }

    fn streamed(&self, records: &[Record]) {
        if let Some(office) = self.office.upgrade() {
            office.hear_records(self.place, records);
        }
    }

    fn died(&self, engine: usize, _run: &RunId) {
        if let Some(office) = self.office.upgrade() {
            let down = office.downtime();
            office.die(engine, true, down);
        }
    }
}
