//! What a reload replaces while everything that holds it goes on: policy, gate, playbooks, roles, sources.

use async_trait::async_trait;
use engine_core::plan::Plan;
use engine_core::playbook::{Playbook, PlaybookRef};
use engine_core::policy::{Cost, Stage};
use engine_core::run::{Actor, Effect, RunState};
use engine_runtime::engine::{Gate, Judgement, Pass};
use engine_runtime::fleet::Playbooks;
use engine_runtime::gather::Situation;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// The value that is in force now.
#[derive(Debug)]
pub struct Current<T: ?Sized>(RwLock<Arc<T>>);

impl<T: ?Sized> Current<T> {
    /// Puts the first one in force.
    pub fn new(value: Arc<T>) -> Self {
        Self(RwLock::new(value))
    }

    /// Returns the one in force.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another one in force; whoever has the old one goes on with it to the end of what it does.
    pub fn set(&self, value: Arc<T>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

/// The gate that is in force now. While the engine stops nothing that takes more is begun.
#[derive(Debug)]
pub struct GateNow {
    gate: Current<dyn Gate>,
    parked: AtomicBool,
}

impl GateNow {
    /// Puts the first gate in force.
    pub fn new(gate: Arc<dyn Gate>) -> Self {
        Self { gate: Current::new(gate), parked: AtomicBool::new(false) }
    }

    /// Puts another gate in force.
    pub fn set(&self, gate: Arc<dyn Gate>) {
        self.gate.set(gate);
    }

    /// Parks every run: what takes nodes or hardware away waits for the next engine.
    pub fn park(&self) {
        self.parked.store(true, Ordering::SeqCst);
    }

    fn parking(&self) -> Option<Pass> {
        self.parked
            .load(Ordering::SeqCst)
            .then(|| Pass::Wait { why: "the engine stops; the next start goes on".to_owned(), until: None })
    }
}

#[async_trait]
impl Gate for GateNow {
    fn may_approve(&self, plan: &Plan, by: &Actor) -> Result<(), String> {
        self.gate.get().may_approve(plan, by)
    }

    fn stage(&self, playbook: &PlaybookRef, by: &Actor) -> Option<Stage> {
        self.gate.get().stage(playbook, by)
    }

    async fn judge(&self, plan: &Plan) -> Option<Judgement> {
        self.gate.get().judge(plan).await
    }

    async fn cost(&self, plan: &Plan, look: &Situation) -> Option<Cost> {
        self.gate.get().cost(plan, look).await
    }

    async fn admit(&self, state: &RunState) -> Pass {
        match self.parking() {
            Some(wait) => wait,
            None => self.gate.get().admit(state).await,
        }
    }

    async fn allows(&self, state: &RunState, effect: Effect) -> Pass {
        match self.parking() {
            Some(wait) => wait,
            None => self.gate.get().allows(state, effect).await,
        }
    }

    async fn stands(&self, state: &RunState) -> Pass {
        match self.parking() {
            Some(wait) => wait,
            None => self.gate.get().stands(state).await,
        }
    }
}

/// The playbooks that are in force now.
#[derive(Debug)]
pub struct PlaybooksNow(Current<dyn Playbooks>);

impl PlaybooksNow {
    /// Puts the first ones in force.
    pub fn new(playbooks: Arc<dyn Playbooks>) -> Self {
        Self(Current::new(playbooks))
    }

    /// Puts others in force.
    pub fn set(&self, playbooks: Arc<dyn Playbooks>) {
        self.0.set(playbooks);
    }
}

impl Playbooks for PlaybooksNow {
    fn for_fault(&self, fault: &str) -> Vec<Arc<Playbook>> {
        self.0.get().for_fault(fault)
    }

    fn find(&self, reference: &PlaybookRef) -> Option<Arc<Playbook>> {
        self.0.get().find(reference)
    }

    fn all(&self) -> Vec<Arc<Playbook>> {
        self.0.get().all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_runtime::engine::OpenGate;

    #[test]
    fn while_the_engine_stops_everything_waits_whatever_the_gate_says() {
        let gate = GateNow::new(Arc::new(OpenGate));
        assert_eq!(gate.parking(), None);
        gate.park();
        gate.set(Arc::new(OpenGate));
        assert!(matches!(gate.parking(), Some(Pass::Wait { until: None, .. })));
    }

    #[test]
    fn whoever_holds_the_old_value_keeps_it_and_others_get_the_new_one() {
        let now = Current::new(Arc::new(1));
        let old = now.get();
        now.set(Arc::new(2));
        assert_eq!((*old, *now.get()), (1, 2));
    }
}
