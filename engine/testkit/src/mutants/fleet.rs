//! Gates, last metres and selections with a fault on purpose.

use super::{Mutant, decoy};
use async_trait::async_trait;
use engine_core::plan::Plan;
use engine_core::playbook::PlaybookRef;
use engine_core::policy::{Cost, Stage};
use engine_core::run::{Actor, Effect, RunState};
use engine_core::select::{Answer, Applicable, Choice, Settle, Settled, settle};
use engine_runtime::engine::{Gate, Judgement, LastMetre, Pass, Ports, WouldDo};
use engine_runtime::gather::Situation;
use std::sync::Arc;

/// Puts a fault before an honest gate; one without a fault in it is returned as it is.
pub(crate) fn gate(mutant: Option<Mutant>, honest: Arc<dyn Gate>) -> Arc<dyn Gate> {
    match mutant {
        Some(mutant @ (Mutant::AdmitsAll | Mutant::AsksNobody)) => Arc::new(Faulty { mutant, inner: honest }),
        _ => honest,
    }
}

#[derive(Debug)]
struct Faulty {
    mutant: Mutant,
    inner: Arc<dyn Gate>,
}

impl Faulty {
    /// Says whether this one takes a full budget for room.
    fn forgets(&self, why: &str) -> bool {
        self.mutant == Mutant::AdmitsAll && why.contains("out of service, budget")
    }
}

#[async_trait]
impl Gate for Faulty {
    fn may_approve(&self, plan: &Plan, by: &Actor) -> Result<(), String> {
        self.inner.may_approve(plan, by)
    }

    fn stage(&self, playbook: &PlaybookRef, by: &Actor) -> Option<Stage> {
        self.inner.stage(playbook, by)
    }

    async fn judge(&self, plan: &Plan) -> Option<Judgement> {
        let judged = self.inner.judge(plan).await?;
        let approvers = if self.mutant == Mutant::AsksNobody { 0 } else { judged.approvers };
        Some(Judgement { approvers, ..judged })
    }

    async fn cost(&self, plan: &Plan, look: &Situation) -> Option<Cost> {
        self.inner.cost(plan, look).await
    }

    async fn admit(&self, state: &RunState) -> Pass {
        match self.inner.admit(state).await {
            Pass::Wait { why, .. } if self.forgets(&why) => Pass::Go,
            honest => honest,
        }
    }

    async fn allows(&self, state: &RunState, effect: Effect) -> Pass {
        match self.inner.allows(state, effect).await {
            Pass::Wait { why, .. } if self.forgets(&why) => Pass::Go,
            honest => honest,
        }
    }

    async fn stands(&self, state: &RunState) -> Pass {
        match self.inner.stands(state).await {
            Pass::Wait { why, .. } if self.forgets(&why) => Pass::Go,
            honest => honest,
        }
    }
}

/// A last metre that replaces nothing: what a run in shadow sends goes to the cluster.
#[derive(Debug)]
pub(crate) struct Replaced;

impl LastMetre for Replaced {
    fn replace(&self, real: &Ports, _would: &WouldDo) -> Ports {
        real.clone()
    }
}

/// Returns how an answer of a model is settled.
pub(crate) fn settled_by(mutant: Option<Mutant>) -> Settle {
    if mutant == Some(Mutant::TakesAnyAnswer) { take_any } else { settle }
}

/// Takes what a model says for a choice, whether it was among the applicable ones or not.
fn take_any(before: &Applicable, answer: &Answer, after: &Applicable) -> Settled {
    match (answer, decoy()) {
        (Answer::Said(text), Some(decoy)) if text.contains(&decoy.reference.id) => {
            Settled { choice: Choice::Playbook(decoy.reference), note: None }
        }
        _ => settle(before, answer, after),
    }
}
