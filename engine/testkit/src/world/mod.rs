//! The simulated cluster: seeded, in virtual time, with everything on record that the constitution's rules speak of.
//!
//! The world never moves by itself: [`crate::time::SimRuntime`] carries it from event to event.

mod budget;
mod config;
mod control;
mod events;
mod gpu;
mod jobs;
mod log;
mod node;
mod people;
mod rules;
mod script;
mod state;
mod verbs;
mod views;

pub use budget::{BudgetCounts, Limits};
pub use config::{HiccupRates, KeepLog, LoadConfig, SimConfig, Timings};
pub use gpu::Fault;
pub use log::{LogEntry, Who};
pub use rules::{RULES, Violation};
pub use script::{Hiccup, PersonAction, Script, Trigger};
pub use state::{RaceNote, ResetRecord, WorldCounts};

pub(crate) use control::{Course, Flight, Op, Order};
pub(crate) use events::Happening;
pub(crate) use rules::OpenIntent;
pub(crate) use state::{Inner, Sleeper, node_rng, release};

use engine_core::model::{Job, Node, NodeGpus, NodeName, Reservation};
use jiff::{SignedDuration, Timestamp};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A simulated cluster; clones are handles to the same one.
#[derive(Clone)]
pub struct SimWorld {
    inner: Arc<Mutex<Inner>>,
}

impl fmt::Debug for SimWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let w = self.lock();
        f.debug_struct("SimWorld").field("now", &w.now).field("nodes", &w.nodes.len()).finish_non_exhaustive()
    }
}

impl SimWorld {
    /// Builds a cluster in which everything is healthy.
    pub fn new(config: SimConfig) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner::new(config))) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the virtual time.
    pub fn now(&self) -> Timestamp {
        self.lock().now
    }

    /// Makes something happen now; the error says why it could not.
    pub fn run(&self, script: Script) -> Result<Option<u64>, String> {
        let mut w = self.lock();
        let done = w.perform(script);
        w.place_jobs();
        done
    }

    /// Makes something happen at a time; one in the past happens with the next step.
    pub fn schedule(&self, at: Timestamp, script: Script) {
        self.lock().push(at, Happening::Do(script));
    }

    /// Makes something happen once, some time after the engine has done a thing to a node.
    pub fn when(&self, node: &NodeName, trigger: Trigger, delay: SignedDuration, script: Script) {
        self.lock().reactions.push(script::Reaction { node: node.clone(), trigger, delay, script });
    }

    /// Breaks something now.
    pub fn inject(&self, node: &NodeName, gpu: u32, fault: Fault) -> Result<(), String> {
        self.run(Script::Fault { node: node.clone(), gpu, fault }).map(|_| ())
    }

    /// Repairs a GPU now, as hardware service would: whatever was broken on it is new.
    pub fn cure(&self, node: &NodeName, gpu: u32) -> Result<(), String> {
        self.lock().cure(node, gpu)
    }

    /// Has a person act at a time.
    pub fn person(&self, at: Timestamp, login: &str, action: PersonAction) {
        self.schedule(at, Script::Person { login: login.to_owned(), action });
    }

    /// Has a person act now.
    pub fn person_now(&self, login: &str, action: PersonAction) -> Result<(), String> {
        self.run(Script::Person { login: login.to_owned(), action }).map(|_| ())
    }

    /// Starts a job on this very node now; refused like Slurm would. Returns its number.
    pub fn start_job(&self, node: &NodeName, gpus: &[u32], run: SignedDuration) -> Result<u64, String> {
        let script = Script::StartJob { node: node.clone(), gpus: gpus.to_vec(), run };
        self.run(script)?.ok_or_else(|| "the job has no number".to_owned())
    }

    /// Cancels every waiting job.
    pub fn cancel_waiting(&self, login: &str) {
        let mut w = self.lock();
        let waiting: Vec<u64> = w
            .jobs
            .values()
            .filter(|j| j.state == engine_core::model::JobState::Pending)
            .map(|j| j.id)
            .collect();
        for id in waiting {
            w.finish(id, engine_core::model::JobState::Cancelled, &Who::person(login), "is cancelled");
        }
    }

    /// Names the node at a place, from 0.
    pub fn node_names_at(&self, place: usize) -> Option<NodeName> {
        self.lock().nodes.get(place).map(|n| n.name.clone())
    }

    /// Forgets the orders that a node was given: nobody will ask for them again.
    pub fn forget_orders(&self, node: &NodeName) {
        let mut w = self.lock();
        if let Some(n) = w.find(node) {
            w.nodes[n].orders.clear();
        }
    }

    /// Drops the scripts that wait for the engine to do something to a node.
    pub fn forget_reactions(&self, node: &NodeName) {
        self.lock().reactions.retain(|r| r.node != *node);
    }

    /// Restarts the DCGM engine and the exporter of a node.
    pub fn restart_tools(&self, node: &NodeName) {
        let mut w = self.lock();
        if let Some(n) = w.find(node) {
            w.restart_tools(n);
        }
    }

    /// Lists the suspended jobs of a node.
    pub fn suspended_on(&self, node: &NodeName) -> Vec<u64> {
        let w = self.lock();
        let Some(n) = w.find(node) else { return Vec::new() };
        let is_suspended = |j: &&jobs::SimJob| j.state == engine_core::model::JobState::Suspended;
        w.jobs_of(n).filter(is_suspended).map(|j| j.id).collect()
    }

    /// Cancels the jobs that wait for a node.
    pub fn cancel_waiting_on(&self, node: &NodeName, login: &str) {
        let mut w = self.lock();
        let Some(n) = w.find(node) else { return };
        for id in w.waiting_for(n) {
            w.finish(id, engine_core::model::JobState::Cancelled, &Who::person(login), "is cancelled");
        }
    }

    /// Counts the changes that met the engine's write inside the window that Slurm leaves open.
    pub fn race_count(&self) -> u64 {
        self.lock().race_count
    }

    /// Counts what happened.
    pub fn counts(&self) -> WorldCounts {
        self.lock().counts()
    }

    /// Lists the nodes' names.
    pub fn node_names(&self) -> Vec<NodeName> {
        self.lock().nodes.iter().map(|n| n.name.clone()).collect()
    }

    /// Shows a node as slurmctld would, without the way there.
    pub fn node_view(&self, node: &NodeName) -> Option<Node> {
        let w = self.lock();
        w.find(node).map(|n| w.view_node(n))
    }

    /// Shows a node's GPUs as its tools would.
    pub fn gpus_view(&self, node: &NodeName) -> Option<NodeGpus> {
        let w = self.lock();
        w.find(node).map(|n| w.view_gpus(n))
    }

    /// Shows a node's GPUs as its tools would if they did not hang: for mutants that make answers up.
    pub(crate) fn gpus_behind_tools(&self, node: &NodeName) -> Option<NodeGpus> {
        let mut w = self.lock();
        let n = w.find(node)?;
        let hang = std::mem::take(&mut w.nodes[n].tools.hang);
        let seen = w.view_gpus(n);
        w.nodes[n].tools.hang = hang;
        Some(seen)
    }

    /// Sets a node DOWN in the name of the engine: for mutants whose drains do more than they say.
    pub(crate) fn engine_sets_down(&self, node: &NodeName, reason: &str) {
        let mut w = self.lock();
        if let Some(n) = w.find(node) {
            w.set_down(&Who::Engine, n, reason);
        }
    }

    /// Shows the jobs on a node, finished ones included.
    pub fn jobs_view(&self, node: &NodeName) -> Vec<Job> {
        let w = self.lock();
        w.find(node).map(|n| w.view_jobs(Some(n))).unwrap_or_default()
    }

    /// Shows every reservation.
    pub fn reservations_view(&self) -> Vec<Reservation> {
        self.lock().view_reservations()
    }

    /// Says what is wrong with a node's GPUs in truth, whatever the tools see: `(gpu, what)`.
    pub fn ailments(&self, node: &NodeName) -> Vec<(u32, String)> {
        let w = self.lock();
        w.find(node).map(|n| w.ailments(n)).unwrap_or_default()
    }

    /// Returns the history.
    pub fn log(&self) -> Vec<LogEntry> {
        self.lock().log.iter().cloned().collect()
    }

    /// Returns the history from a place on.
    pub fn log_since(&self, from: usize) -> Vec<LogEntry> {
        self.lock().log.iter().skip(from).cloned().collect()
    }

    /// Returns what is kept of the history of one node, and of what is about no node, in the order of time.
    pub fn log_of(&self, node: &NodeName) -> Vec<LogEntry> {
        let w = self.lock();
        let about = |e: &&LogEntry| e.node.is_none() || e.node.as_ref() == Some(node);
        let mut out: Vec<LogEntry> = w.log.iter().filter(about).cloned().collect();
        if let Some(n) = w.find(node) {
            out.extend(w.nodes[n].log.iter().cloned());
        }
        out.sort_by_key(|e| e.at);
        out
    }

    /// Lists what broke a rule of the constitution, in the order in which it happened.
    pub fn violations(&self) -> Vec<Violation> {
        self.lock().violations.clone()
    }

    /// Lists changes that met the engine's write inside the window that Slurm leaves open.
    pub fn races(&self) -> Vec<RaceNote> {
        self.lock().races.clone()
    }

    /// Lists every reset that was carried out.
    pub fn resets(&self) -> Vec<ResetRecord> {
        self.lock().resets.clone()
    }

    /// Says whether the node's reason is the engine's, and for which run.
    pub fn reason_run(&self, node: &NodeName) -> Option<engine_core::model::RunId> {
        let w = self.lock();
        let n = w.find(node)?;
        let reason = w.nodes[n].reason.as_ref()?;
        engine_core::ownership::run_of_reason(&reason.text)
    }

    /// Lists the nodes that are drained under the reason of a run, with the run.
    pub(crate) fn drained_by_runs(&self) -> Vec<(NodeName, engine_core::model::RunId)> {
        let w = self.lock();
        let drained = w.nodes.iter().filter(|n| n.has(engine_core::model::NodeFlag::Drain));
        let run = |n: &node::SimNode| engine_core::ownership::run_of_reason(&n.reason.as_ref()?.text);
        drained.filter_map(|n| Some((n.name.clone(), run(n)?))).collect()
    }

    /// Puts a finding of another checker into the rule book.
    pub fn report(&self, rule: u8, node: Option<&NodeName>, what: impl Into<String>) {
        let mut w = self.lock();
        let place = node.and_then(|n| w.find(n));
        w.violation(rule, place, what);
    }

    /// Counts the jobs that ended because of something the engine did.
    pub fn jobs_lost_to_engine(&self) -> usize {
        self.lock().jobs_lost_to_engine()
    }

    /// Counts `(finished with success, lost to hardware, running or waiting)`.
    pub fn job_counts(&self) -> (usize, usize, usize) {
        self.lock().job_counts()
    }

    /// Lists the engine's reservations that still stand.
    pub fn engine_reservations(&self) -> Vec<String> {
        self.lock().reservations.keys().filter(|n| n.starts_with("slurmedic-")).cloned().collect()
    }
}
