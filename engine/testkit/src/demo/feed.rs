//! The live view: what happens in the world and in the engine, as events and frames for people.

use super::script::Case;
use crate::world::{SimWorld, Who};
use engine_core::model::{NodeFlag, NodeName, NodeState, RunId};
use engine_core::run::{Effect, End, Event, EventKind, OutcomeKind, RunState, Status};
use engine_runtime::engine::Observer;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What an event of the demonstration is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DemoKind {
    /// Something broke.
    Fault,
    /// A person acted.
    Person,
    /// The controller stumbled or came back.
    Controller,
    /// The engine decided.
    Decision,
    /// The engine did a step.
    Done,
    /// The engine did not do a step, or it did not work out.
    NotDone,
    /// A run ended.
    End(End),
}

/// One event of the demonstration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoEvent {
    /// Virtual time.
    pub at: Timestamp,
    /// Virtual time since the start.
    pub since_start: SignedDuration,
    /// The node it is about.
    pub node: Option<NodeName>,
    /// What it is about.
    pub kind: DemoKind,
    /// What happened, in a few words.
    pub what: String,
    /// Why, or what was seen; may be empty.
    pub why: String,
}

/// What a node looks like in the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    /// Free.
    Idle,
    /// Jobs run.
    Busy,
    /// A GPU is sick and nobody has acted yet.
    Sick,
    /// A run of ours waits for a person's yes.
    Asked,
    /// Taken out by us, waiting for jobs or at work.
    Draining,
    /// A GPU is being reset.
    Resetting,
    /// Health is being proven.
    Verifying,
    /// Given back by us.
    Returned,
    /// Kept drained by us; a person is called.
    Held,
    /// A person has it.
    Theirs,
    /// Down, silent, or in any other state.
    Other,
}

/// A run in the live view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunLine {
    /// The run.
    pub run: RunId,
    /// Its node.
    pub node: NodeName,
    /// GPU index.
    pub gpu: Option<u32>,
    /// Where it stands.
    pub status: Status,
    /// What it does now.
    pub doing: String,
}

/// The cluster at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Virtual time since the start.
    pub since_start: SignedDuration,
    /// Every node.
    pub grid: Vec<(NodeName, Cell)>,
    /// Every run, oldest first.
    pub runs: Vec<RunLine>,
    /// Faults that have come so far.
    pub faults_so_far: usize,
    /// Runs that are over.
    pub runs_over: usize,
    /// Faults to come in all.
    pub faults_in_all: usize,
}

/// Collects what the observer is told.
#[derive(Debug)]
pub(super) struct Feed {
    world: SimWorld,
    start: Timestamp,
    faults_in_all: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    read: usize,
    faults: usize,
    events: Vec<DemoEvent>,
    runs: BTreeMap<RunId, RunLine>,
}

impl Feed {
    pub(super) fn new(world: &SimWorld, cases: &[Case]) -> Self {
        let state = Mutex::new(State::default());
        Self { world: world.clone(), start: world.now(), faults_in_all: cases.len(), state }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the events since the last call, those of the world and those of the engine, by time.
    pub(super) fn take(&self) -> Vec<DemoEvent> {
        let mut s = self.state();
        let fresh = self.world.log_since(s.read);
        s.read += fresh.len();
        for entry in fresh {
            let kind = match &entry.who {
                Who::Hardware if entry.what.starts_with("GPU ") => DemoKind::Fault,
                Who::Person(_) => DemoKind::Person,
                Who::Slurm if entry.node.is_none() => DemoKind::Controller,
                _ => continue,
            };
            s.faults += usize::from(kind == DemoKind::Fault);
            let (what, why) = match kind {
                DemoKind::Person => (format!("{} {}", entry.who, entry.what), String::new()),
                _ => (entry.what, String::new()),
            };
            let since_start = entry.at.duration_since(self.start);
            s.events.push(DemoEvent { at: entry.at, since_start, node: entry.node, kind, what, why });
        }
        let mut events = std::mem::take(&mut s.events);
        drop(s);
        events.sort_by_key(|e| e.at);
        events
    }

    /// Shows the cluster now.
    pub(super) fn frame(&self) -> Frame {
        let s = self.state();
        let by_node: BTreeMap<&NodeName, &RunLine> = s.runs.values().map(|r| (&r.node, r)).collect();
        let grid = self
            .world
            .node_names()
            .into_iter()
            .map(|n| {
                let cell = self.cell(&n, by_node.get(&n).copied());
                (n, cell)
            })
            .collect();
        Frame {
            since_start: self.world.now().duration_since(self.start),
            grid,
            runs: s.runs.values().cloned().collect(),
            faults_so_far: s.faults.min(self.faults_in_all),
            runs_over: s.runs.values().filter(|r| r.status.is_terminal()).count(),
            faults_in_all: self.faults_in_all,
        }
    }

    fn cell(&self, name: &NodeName, run: Option<&RunLine>) -> Cell {
        let Some(node) = self.world.node_view(name) else { return Cell::Other };
        let ours = |text: &str| engine_core::ownership::run_of_reason(text).is_some();
        let theirs = node.reason.known().and_then(Option::as_ref).is_some_and(|r| !ours(&r.text));
        let drained = node.flags.has(NodeFlag::Drain) || node.flags.has(NodeFlag::Fail);
        if drained && theirs {
            return Cell::Theirs;
        }
        if let Some(run) = run {
            match run.status {
                Status::Ended(End::Held | End::Stuck) if drained => return Cell::Held,
                Status::Ended(_) => {}
                Status::Proposed | Status::AwaitingApproval | Status::Approved => return Cell::Asked,
                Status::Verifying => return Cell::Verifying,
                Status::Running | Status::RollingBack if run.doing == "dcgm.reset_gpu" => {
                    return Cell::Resetting;
                }
                Status::Running | Status::RollingBack => return Cell::Draining,
            }
        }
        if !self.world.ailments(name).is_empty() {
            return Cell::Sick;
        }
        let returned = run.is_some_and(|r| r.status == Status::Ended(End::Succeeded));
        match node.state {
            NodeState::Idle if returned => Cell::Returned,
            NodeState::Idle => Cell::Idle,
            NodeState::Mixed | NodeState::Allocated | NodeState::Completing => Cell::Busy,
            _ => Cell::Other,
        }
    }
}

impl Observer for Feed {
    fn on_event(&self, event: &Event, state: &RunState) {
        let target = &state.plan.target;
        let doing = |effect: &Effect| state.step_of(*effect).map(|s| s.action.clone());
        let named = |effect: &Effect| {
            let undo = matches!(effect, Effect::Undo(_));
            let name = doing(effect).unwrap_or_else(|| {
                match effect {
                    Effect::Lock => "lock",
                    Effect::Unlock => "unlock",
                    Effect::Hold => "hold",
                    _ => "step",
                }
                .to_owned()
            });
            if undo { format!("undo by {name}") } else { name }
        };
        let mut s = self.state();
        let line = s.runs.entry(event.run.clone()).or_insert_with(|| RunLine {
            run: event.run.clone(),
            node: target.node.clone(),
            gpu: target.gpu.as_ref().map(|g| g.index),
            status: state.status,
            doing: String::new(),
        });
        line.status = state.status;
        if let EventKind::Intent { effect, .. } = &event.kind {
            line.doing = named(effect);
        }
        let told = match &event.kind {
            EventKind::Proposed { plan, .. } => {
                let gpu =
                    plan.target.gpu.as_ref().map(|g| format!(" for GPU {}", g.index)).unwrap_or_default();
                let steps =
                    format!("{} steps, {} jobs on the node", plan.steps.len(), plan.blast.running_jobs.len());
                Some((DemoKind::Decision, format!("plans {}{gpu}", plan.playbook), steps))
            }
            EventKind::ApprovalRequested { .. } => {
                Some((DemoKind::Decision, "asks for a yes".to_owned(), String::new()))
            }
            EventKind::Approved { by, .. } => {
                Some((DemoKind::Decision, format!("{by} says yes"), String::new()))
            }
            EventKind::ApprovalVoided { why } => {
                Some((DemoKind::NotDone, "approval void".to_owned(), why.clone()))
            }
            EventKind::Refused { effect, guard, .. } => {
                Some((DemoKind::NotDone, format!("does not {}", named(effect)), guard.why.clone()))
            }
            EventKind::Finished { effect, outcome, .. } => {
                let kind =
                    if outcome.kind == OutcomeKind::Succeeded { DemoKind::Done } else { DemoKind::NotDone };
                Some((kind, named(effect), outcome.why.clone()))
            }
            EventKind::Resolved { effect, resolution, why, .. } => {
                let what = format!("looked: {} is {resolution:?}", named(effect));
                Some((DemoKind::Decision, what, why.clone()))
            }
            EventKind::RetryScheduled { effect, attempt, why, .. } => Some((
                DemoKind::Decision,
                format!("will try {} again ({attempt})", named(effect)),
                why.clone(),
            )),
            EventKind::RollbackStarted { why } => {
                Some((DemoKind::Decision, "goes back".to_owned(), why.clone()))
            }
            EventKind::Rehearsed { effect, would, .. } => {
                Some((DemoKind::Decision, format!("would begin {}", named(effect)), would.join("; ")))
            }
            EventKind::Noted { text: why } | EventKind::Deferred { why, .. } => {
                Some((DemoKind::Decision, "waits".to_owned(), why.clone()))
            }
            EventKind::Ended { end, why, .. } => {
                Some((DemoKind::End(*end), end.as_str().to_owned(), why.clone()))
            }
            EventKind::Started { .. }
            | EventKind::Recovered { .. }
            | EventKind::Intent { .. }
            | EventKind::CancelRequested { .. } => None,
        };
        if let Some((kind, what, why)) = told {
            let since_start = event.at.duration_since(self.start);
            s.events.push(DemoEvent {
                at: event.at,
                since_start,
                node: Some(target.node.clone()),
                kind,
                what,
                why,
            });
        }
    }
}
