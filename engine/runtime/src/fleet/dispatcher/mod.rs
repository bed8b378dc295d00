//! The dispatcher: gives queued incidents to playbooks, and runs to workers. It decides nothing that is not on record:
//! killed at any moment, another one goes on from the journal.

mod after_run;
mod choose;
mod plan;

use super::log::{FleetError, FleetLog};
use super::{Intake, Selection};
use crate::engine::{Engine, EngineError, Rest};
use crate::journal::RunSummary;
use crate::ports::Spawn;
use engine_core::incident::{Closing, FleetEvent, IncidentId, Phase, QueuedWork};
use engine_core::model::RunId;
use engine_core::playbook::{Playbook, PlaybookRef};
use engine_core::run::{Actor, ActorKind, End, Refusal, Status};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The playbooks that the dispatcher may give incidents to.
pub trait Playbooks: Send + Sync + Debug {
    /// Lists the playbooks for a fault, each in the version that is to be used.
    fn for_fault(&self, fault: &str) -> Vec<Arc<Playbook>>;

    /// Finds exactly this version, with this content.
    fn find(&self, reference: &PlaybookRef) -> Option<Arc<Playbook>>;

    /// Lists every playbook in every version, for whoever names one.
    fn all(&self) -> Vec<Arc<Playbook>>;

    /// Says whether exactly this version, with this content, is among them.
    fn holds(&self, reference: &PlaybookRef) -> bool {
        self.find(reference).is_some()
    }
}

/// How much the dispatcher does at once, and how often.
#[derive(Debug, Clone)]
pub struct DispatcherConfig {
    /// Name under which runs are proposed.
    pub name: String,
    /// Time between two rounds.
    pub round: SignedDuration,
    /// Runs that are carried out at the same time in this process, at most.
    pub workers: usize,
    /// Incidents that are planned at the same time, at most.
    pub planners: usize,
    /// Time after which an incident that waits is planned again.
    pub plan_again: SignedDuration,
    /// Plans that are made for one incident, at most, before a person is called.
    pub plans: usize,
    /// Rounds that may fail in a row, because the journal cannot be read or written, before the dispatcher gives up.
    pub failures: u32,
    /// Age from which a plan of a dispatcher that belongs to no open incident is given up: before, another process may
    /// just be giving it to its incident.
    pub unlinked: SignedDuration,
}

impl Default for DispatcherConfig {
    fn default() -> Self {
        Self {
            name: "dispatcher".to_owned(),
            round: SignedDuration::from_secs(2),
            workers: 64,
            planners: 8,
            plan_again: SignedDuration::from_mins(2),
            plans: 3,
            failures: 60,
            unlinked: SignedDuration::from_secs(60),
        }
    }
}

/// Runs that are carried out for incidents are read in pages of this size.
const OPEN_RUNS: usize = 100_000;
/// Time between two looks at a run that waits for people.
const ASKED_AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// The dispatcher.
#[derive(Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    log: Arc<FleetLog>,
    intake: Arc<Intake>,
    playbooks: Arc<dyn Playbooks>,
    spawn: Arc<dyn Spawn>,
    selection: Selection,
    config: DispatcherConfig,
    at_work: Mutex<AtWork>,
    stopping: AtomicBool,
}

/// What this process works on now.
#[derive(Debug, Default)]
struct AtWork {
    planning: BTreeSet<IncidentId>,
    driving: BTreeSet<RunId>,
    /// When an incident that waits is worth another plan, and how often one was tried.
    again: BTreeMap<IncidentId, Timestamp>,
    /// When a run that waits for people was last looked at.
    asked: BTreeMap<RunId, Timestamp>,
}

impl Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dispatcher {
    /// Builds a dispatcher that selects by rules; [`Dispatcher::run`] starts it.
    pub fn new(
        engine: Engine,
        intake: Arc<Intake>,
        log: Arc<FleetLog>,
        playbooks: Arc<dyn Playbooks>,
        spawn: Arc<dyn Spawn>,
        config: DispatcherConfig,
    ) -> Self {
        Self::selecting(Selection::default(), engine, intake, log, playbooks, spawn, config)
    }

    /// Builds a dispatcher that asks another selector.
    pub fn selecting(
        selection: Selection,
        engine: Engine,
        intake: Arc<Intake>,
        log: Arc<FleetLog>,
        playbooks: Arc<dyn Playbooks>,
        spawn: Arc<dyn Spawn>,
        config: DispatcherConfig,
    ) -> Self {
        let shared = Shared {
            engine,
            log,
            intake,
            playbooks,
            spawn,
            selection,
            config,
            at_work: Mutex::default(),
            stopping: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Works until it is stopped, or until too many rounds in a row have failed; every round takes up what other
    /// processes left or decided.
    pub async fn run(&self) -> Result<(), FleetError> {
        let s = &self.shared;
        let mut failed = 0;
        while !s.stopping.load(Ordering::SeqCst) {
            match self.round().await {
                Ok(()) => failed = 0,
                Err(error) => {
                    failed += 1;
                    if failed >= s.config.failures {
                        return Err(error);
                    }
                    tracing::warn!(%error, failed, "a round failed; it is tried again");
                }
            }
            s.engine.ports.clock.sleep(s.config.round).await;
        }
        Ok(())
    }

    /// Names this dispatcher as who asks.
    fn me(&self) -> Actor {
        Actor::engine(self.shared.config.name.clone())
    }

    /// Begins nothing more; what is under way goes on to its end.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
    }

    /// Says whether anything is being planned or carried out here.
    pub fn is_idle(&self) -> bool {
        let at_work = lock(&self.shared.at_work);
        at_work.planning.is_empty() && at_work.driving.is_empty()
    }

    /// One round: what time alone changes, runs that may go on, incidents that wait for a plan.
    pub async fn round(&self) -> Result<(), FleetError> {
        let s = &self.shared;
        s.log.sync().await?;
        s.intake.tick().await?;
        self.after_release().await?;
        let orphans: BTreeSet<RunId> = s.engine.ports.journal.orphans().await?.into_iter().collect();
        let runs = s.engine.ports.journal.runs(None, true, OPEN_RUNS).await?;
        let unlinked = self.unlinked(&runs).await;
        // Oldest first: who waited longest is asked first.
        for run in runs.iter().rev() {
            if unlinked.contains(&run.run) {
                self.give_up_unlinked(run).await;
            } else {
                self.carry_on(run, orphans.contains(&run.run));
            }
        }
        let waits: BTreeSet<&RunId> =
            runs.iter().filter(|r| r.status == Status::AwaitingApproval).map(|r| &r.run).collect();
        lock(&s.at_work).asked.retain(|run, _| waits.contains(run));
        self.settle_ended(&runs).await?;
        self.plan_queued().await
    }

    /// Finds the plans of dispatchers that were not begun and belong to no open incident.
    async fn unlinked(&self, runs: &[RunSummary]) -> BTreeSet<RunId> {
        let s = &self.shared;
        let waits = |s: Status| matches!(s, Status::Proposed | Status::AwaitingApproval | Status::Approved);
        let ours = runs.iter().filter(|r| r.initiator == s.config.name && waits(r.status));
        s.log.read(|f| ours.filter(|r| f.of_run(&r.run).is_none()).map(|r| r.run.clone()).collect()).await
    }

    /// Ends a plan that a dispatcher made and did not give to its incident before it died, or whose incident was closed.
    /// A young one is left alone, and not carried on: its process may be about to do so.
    async fn give_up_unlinked(&self, run: &RunSummary) {
        let s = &self.shared;
        if s.engine.ports.clock.now().duration_since(run.proposed_at) <= s.config.unlinked {
            return;
        }
        let why =
            "it belongs to no open incident: the process that planned it died, or the incident was closed";
        // One that was decided meanwhile is as good; one that cannot be written is found by the next round.
        let _ = s.engine.deny(&run.run, &self.me(), why).await;
    }

    /// A plan that was made before a breaker was released and has not begun is never carried out: its incident is
    /// dropped, or judged anew on fresh facts.
    async fn after_release(&self) -> Result<(), FleetError> {
        let s = &self.shared;
        let all: Vec<_> =
            s.log.read(|f| f.released().map(|(id, run, queued)| (id, run.clone(), queued)).collect()).await;
        for (id, run, queued) in all {
            let why = "it was planned before the breaker was released";
            match s.engine.deny(&run, &self.me(), why).await {
                Ok(_) => {}
                // This process, or one before it, dropped it and did not come to write what follows.
                Err(EngineError::WrongStatus { .. }) if self.was_dropped(&run).await => {}
                // It has begun, and goes on.
                Err(EngineError::WrongStatus { .. }) => continue,
                Err(EngineError::Journal(e)) => return Err(e.into()),
                Err(error) => {
                    tracing::warn!(%run, %error, "a plan could not be dropped; it is tried again");
                    continue;
                }
            }
            let event = match queued {
                QueuedWork::Drop => {
                    FleetEvent::Closed { incident: id, closing: Closing::Dropped, why: why.to_owned() }
                }
                QueuedWork::JudgeAnew => FleetEvent::Waiting { incident: id, why: why.to_owned() },
            };
            s.log
                .write(|draft| match draft.state.incident(id).map(|i| &i.phase) {
                    Some(Phase::Running { run: r }) if *r == run => draft.push(event.clone()),
                    _ => Ok(()),
                })
                .await?;
        }
        Ok(())
    }

    /// Says whether an engine took a plan back before it was begun.
    async fn was_dropped(&self, run: &RunId) -> bool {
        let state = self.shared.engine.state(run).await;
        state.is_ok_and(|s| {
            let by_engine = matches!(&s.refusal, Some(Refusal::By(a)) if a.kind == ActorKind::Engine);
            s.status == Status::Ended(End::Rejected) && by_engine
        })
    }

    fn carry_on(&self, run: &RunSummary, orphaned: bool) {
        let s = &self.shared;
        let ready = match run.status {
            Status::Proposed | Status::Approved => true,
            // A request that nobody answers runs out, and a person may have asked the run to stop.
            Status::AwaitingApproval => self.request_is_due(&run.run),
            Status::Running | Status::Verifying | Status::RollingBack => orphaned,
            Status::Ended(_) => false,
        };
        {
            let mut at_work = lock(&s.at_work);
            let room = at_work.driving.len() < s.config.workers;
            if !ready || !room || !at_work.driving.insert(run.run.clone()) {
                return;
            }
        }
        let (me, id) = (self.clone(), run.run.clone());
        let name = format!("run {id} on {}", run.node);
        s.spawn.spawn(
            name,
            Box::pin(async move {
                me.drive(&id, orphaned).await;
                lock(&me.shared.at_work).driving.remove(&id);
            }),
        );
    }

    /// Says whether it is time to look again at a run that waits for people.
    fn request_is_due(&self, run: &RunId) -> bool {
        let now = self.shared.engine.ports.clock.now();
        let asked = &mut lock(&self.shared.at_work).asked;
        let due = asked.get(run).is_none_or(|at| now.duration_since(*at) >= ASKED_AGAIN);
        if due {
            asked.insert(run.clone(), now);
        }
        due
    }

    async fn drive(&self, run: &RunId, orphaned: bool) {
        let s = &self.shared;
        let done = if orphaned { s.engine.recover(run).await } else { s.engine.drive(run).await };
        match done {
            Ok(Rest::Over(_)) => {
                // What cannot be written now is found by the next round.
                let _ = self.settle(run).await;
            }
            Ok(Rest::AwaitsApproval | Rest::Deferred) | Err(EngineError::Claimed(_)) => {}
            Err(error) => tracing::warn!(%run, %error, "a run could not be carried on; it is tried again"),
        }
    }
}
