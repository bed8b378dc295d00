//! The engine: proposes runs, takes approvals, carries plans out, and picks up what a dead engine left.
//!
//! It decides nothing by itself: `engine_core::run::next` says what comes next, and the journal is the only memory.

mod drive;
mod gate;
mod guard;
mod late;
mod propose;
mod shadow;
mod step;

pub use drive::Rest;
pub use gate::{Gate, Judgement, OpenGate, Pass, takes_more};
pub use guard::Look;
pub use propose::{Alert, Proposal, ProposeError, ProposeRequest, TimeIds};
pub use shadow::{LastMetre, ReadsOnly, WouldDo};

use crate::gather::{Eyes, RecentLooks, Situation};
use crate::journal::{Journal, JournalError, NewEvent};
use crate::ports::{Clock, GpuTelemetry, Ids, NodeActuator, Scheduler};
use engine_core::known::{Cause, Known};
use engine_core::model::{NodeName, RunId};
use engine_core::plan::Render;
use engine_core::playbook::PlaybookRef;
use engine_core::policy::Stage;
use engine_core::run::{Actor, Event, EventKind, IllegalEvent, RunState, Status, next};
use jiff::{SignedDuration, Timestamp};
use std::fmt::Debug;
use std::sync::Arc;

/// The world as the engine sees it.
#[derive(Debug, Clone)]
pub struct Ports {
    /// The cluster's scheduler.
    pub scheduler: Arc<dyn Scheduler>,
    /// Privileged work on nodes.
    pub actuator: Arc<dyn NodeActuator>,
    /// Telemetry without the node's tools, where configured.
    pub telemetry: Option<Arc<dyn GpuTelemetry>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Identifiers.
    pub ids: Arc<dyn Ids>,
    /// The journal.
    pub journal: Arc<dyn Journal>,
}

/// Hears of every event the engine writes, right after it is durable.
pub trait Observer: Send + Sync + Debug {
    /// Takes one event.
    fn on_event(&self, event: &Event, state: &RunState);
}

/// Time limits and tolerances of the engine. Defaults are for a real cluster.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Name of this engine process, unique while it lives.
    pub engine: String,
    /// How long a failing read is repeated before the run acts on not knowing.
    pub read_patience: SignedDuration,
    /// Time between two looks at a node that is waited for.
    pub poll: SignedDuration,
    /// Time between the two reads that must agree before something counts as idle or not applied.
    pub confirm: SignedDuration,
    /// Age at which a fact is stale.
    pub fact_max_age: SignedDuration,
    /// How long a request for approval stands.
    pub approval_wait: SignedDuration,
    /// How long an approval holds before the run must have begun.
    pub approval_ttl: SignedDuration,
    /// How long DCGM's health watches must have run after the engine restart before they are believed.
    pub health_settle: SignedDuration,
    /// Time limit of one look by the node's tools.
    pub inspect_limit: SignedDuration,
    /// Whether the site has a dcgm-exporter that must answer before a node goes back to service.
    pub exporter_expected: bool,
    /// Time added to the sum of all step limits for the end of the lock reservation.
    pub lock_slack: SignedDuration,
    /// How long a run that has begun waits at a closed gate before it goes back.
    pub freeze_patience: SignedDuration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            engine: "engine".to_owned(),
            read_patience: SignedDuration::from_mins(2),
            poll: SignedDuration::from_secs(5),
            confirm: SignedDuration::from_millis(500),
            fact_max_age: SignedDuration::from_secs(60),
            approval_wait: SignedDuration::from_hours(12),
            approval_ttl: SignedDuration::from_mins(15),
            health_settle: SignedDuration::from_secs(60),
            inspect_limit: SignedDuration::from_secs(90),
            exporter_expected: false,
            lock_slack: SignedDuration::from_mins(30),
            freeze_patience: SignedDuration::from_mins(30),
        }
    }
}

/// Events that are written in one commit, at most.
const MAX_AT_ONCE: usize = 8;
/// Times an event is decided anew because somebody else wrote to the run meanwhile.
const RECORD_ATTEMPTS: u32 = 64;

/// Why the engine could not go on with a run. The run itself is safe: its journal says where it stands.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal holds something that may not be there.
    #[error("the journal of run {run} does not hold together; run `slurmedic journal verify`")]
    Illegal {
        /// The run.
        run: RunId,
        /// What may not follow.
        #[source]
        source: IllegalEvent,
    },
    /// Another living engine process has the run.
    #[error("run {0} is being carried out by another engine process that is alive")]
    Claimed(RunId),
    /// Other processes wrote to the run faster than this one could.
    #[error(
        "{event} could not be written to run {run}: others wrote to it {RECORD_ATTEMPTS} times in between; find out with `slurmedic show {run}` who does, then run `slurmedic recover`"
    )]
    Outrun {
        /// The run.
        run: RunId,
        /// The event.
        event: &'static str,
    },
    /// What was asked does not fit where the run stands.
    #[error("run {run} is {status}: {why}")]
    WrongStatus {
        /// The run.
        run: RunId,
        /// Where it stands.
        status: Status,
        /// What would be needed.
        why: String,
    },
    /// The plan could not be put into its stored form.
    #[error("the plan could not be stored")]
    Encode(#[from] serde_json::Error),
}

/// The engine.
#[derive(Clone)]
pub struct Engine {
    /// The world.
    pub ports: Ports,
    /// Time limits.
    pub config: EngineConfig,
    render: Arc<dyn Render + Send + Sync>,
    observers: Vec<Arc<dyn Observer>>,
    recent: Arc<RecentLooks>,
    gate: Arc<dyn Gate>,
    last_metre: Arc<dyn LastMetre>,
}

impl Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Engine {
    /// Builds an engine.
    pub fn new(ports: Ports, config: EngineConfig, render: Arc<dyn Render + Send + Sync>) -> Self {
        Self {
            ports,
            config,
            render,
            observers: Vec::new(),
            recent: Arc::default(),
            gate: Arc::new(OpenGate),
            last_metre: Arc::new(ReadsOnly),
        }
    }

    /// Puts a gate in front of what takes nodes and hardware away.
    #[must_use]
    pub fn with_gate(mut self, gate: Arc<dyn Gate>) -> Self {
        self.gate = gate;
        self
    }

    /// Puts another last metre under runs in shadow: for tests that show what happens without the real one.
    #[must_use]
    pub fn with_last_metre(mut self, last_metre: Arc<dyn LastMetre>) -> Self {
        self.last_metre = last_metre;
        self
    }

    /// Returns the stage of a playbook's version for what this initiator begins; `None` for a person, and where there is
    /// no policy.
    pub fn stage(&self, playbook: &PlaybookRef, by: &Actor) -> Option<Stage> {
        self.gate.stage(playbook, by)
    }

    /// Adds somebody who hears of every event.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observers.push(observer);
        self
    }

    /// Reads a run.
    pub async fn state(&self, run: &RunId) -> Result<RunState, EngineError> {
        self.ports.journal.state(run).await.map_err(|e| match e {
            JournalError::Illegal(source) => EngineError::Illegal { run: run.clone(), source },
            other => other.into(),
        })
    }

    /// Asks a run to stop at its nearest safe point; works from any process.
    pub async fn cancel(&self, run: &RunId, by: Actor, why: &str) -> Result<RunState, EngineError> {
        let mut state = self.state(run).await?;
        if state.status.is_terminal() {
            let why = "there is nothing left to cancel".to_owned();
            return Err(EngineError::WrongStatus { run: run.clone(), status: state.status, why });
        }
        self.record(&mut state, EventKind::CancelRequested { by, why: why.to_owned() }).await?;
        Ok(state)
    }

    /// Writes one event. Where somebody else wrote in between, the state is read anew and the event is written if it
    /// still may follow; not for ever.
    pub(crate) async fn record(&self, state: &mut RunState, kind: EventKind) -> Result<(), EngineError> {
        let word = kind.word();
        for _ in 0..RECORD_ATTEMPTS {
            if self.record_if_unchanged(state, kind.clone()).await? {
                return Ok(());
            }
        }
        Err(EngineError::Outrun { run: state.run.clone(), event: word })
    }

    /// Writes one event as [`Engine::record`] does, and in the same commit those that follow from it by themselves: the
    /// end after the last outcome, the way back after a refusal. Only for the process that carries the run out.
    pub(crate) async fn record_following(
        &self,
        state: &mut RunState,
        kind: EventKind,
    ) -> Result<(), EngineError> {
        self.record_following_at(state, kind, self.ports.clock.now()).await
    }

    /// Writes what happened at a time, as [`Engine::record_following`] does.
    async fn record_following_at(
        &self,
        state: &mut RunState,
        kind: EventKind,
        at: Timestamp,
    ) -> Result<(), EngineError> {
        let word = kind.word();
        for _ in 0..RECORD_ATTEMPTS {
            let (new, _) = self.with_followers(Some(state.clone()), &state.run, kind.clone(), at);
            if self.append(state, new).await? {
                return Ok(());
            }
        }
        Err(EngineError::Outrun { run: state.run.clone(), event: word })
    }

    /// Returns an event with those that follow from it by themselves, and the state they lead to; without a state, the
    /// event begins the run. What may not follow is left to the journal to refuse.
    fn with_followers(
        &self,
        mut ahead: Option<RunState>,
        run: &RunId,
        kind: EventKind,
        at: Timestamp,
    ) -> (Vec<NewEvent>, Option<RunState>) {
        let mut new = Vec::new();
        let mut follows = Some(kind);
        while let Some(kind) = follows.take() {
            let event = Event { run: run.clone(), seq: ahead.as_ref().map_or(1, |s| s.seq + 1), at, kind };
            let applied = match &mut ahead {
                Some(state) => state.apply(&event),
                None => RunState::begin(&event).map(|begun| ahead = Some(begun)),
            };
            new.push(NewEvent { at, kind: event.kind });
            if let (Ok(()), Some(state)) = (applied, &ahead)
                && new.len() < MAX_AT_ONCE
            {
                follows = next(state, at).as_event(state, at, self.config.approval_wait);
            }
        }
        (new, ahead)
    }

    fn tell(&self, event: &Event, state: &RunState) {
        for o in &self.observers {
            o.on_event(event, state);
        }
    }

    /// Appends events behind the state; where somebody wrote meanwhile, reads the state anew and says no.
    async fn append(&self, state: &mut RunState, new: Vec<NewEvent>) -> Result<bool, EngineError> {
        match self.ports.journal.append_events(&state.run, state.seq, new).await {
            Ok(events) => {
                for e in &events {
                    state.apply(e).map_err(|source| EngineError::Illegal { run: e.run.clone(), source })?;
                    self.tell(e, state);
                }
                Ok(true)
            }
            Err(JournalError::Conflict { .. }) => {
                *state = self.state(&state.run).await?;
                Ok(false)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Writes one event only if nobody wrote since the state was read; else reads the state anew and writes nothing.
    pub(crate) async fn record_if_unchanged(
        &self,
        state: &mut RunState,
        kind: EventKind,
    ) -> Result<bool, EngineError> {
        let at = self.ports.clock.now();
        self.append(state, vec![NewEvent { at, kind }]).await
    }

    /// Returns the ports a look goes through.
    pub fn eyes(&self) -> Eyes<'_> {
        Eyes {
            scheduler: &*self.ports.scheduler,
            actuator: &*self.ports.actuator,
            telemetry: self.ports.telemetry.as_deref(),
            clock: &*self.ports.clock,
        }
    }

    /// Looks at a node's Slurm side, again and again until it can be read or patience ends.
    pub(crate) async fn look_patiently(&self, node: &NodeName) -> Situation {
        let version = Known::unknown(Cause::NotObserved, "the release was not part of this look");
        let clock = &self.ports.clock;
        let deadline = clock.now() + self.config.read_patience;
        loop {
            let began = self.recent.begin(node);
            let situation = self.eyes().look_at_slurm(node, version.clone()).await;
            let readable = situation.slurm_is_readable().is_ok() && situation.mark().is_known();
            if readable {
                self.recent.keep(node, began, &situation);
            }
            if readable || clock.now() >= deadline {
                return situation;
            }
            clock.sleep(self.config.poll.min(self.config.read_patience)).await;
        }
    }

    /// Says whether somebody asked the run to stop since the state was read.
    pub(crate) async fn stop_requested(&self, state: &RunState) -> bool {
        self.ports.journal.stop_requested(&state.run).await.unwrap_or(false)
    }
}

impl Engine {
    /// Reads the GPUs of a node by its own tools.
    pub(crate) async fn inspect(
        &self,
        node: &NodeName,
        order_id: String,
    ) -> Result<engine_core::model::NodeGpus, engine_core::Unknown> {
        let looked = self.eyes().look_at_gpus(node, Some(order_id), self.config.inspect_limit).await?;
        Ok(looked.0.value)
    }
}
