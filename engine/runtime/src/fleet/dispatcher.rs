//! The dispatcher: gives queued incidents to playbooks, and runs to workers. It decides nothing that is not on record:
//! killed at any moment, another one goes on from the journal.

use super::Intake;
use super::log::{FleetError, FleetLog};
use crate::engine::{Alert, Engine, EngineError, ProposeRequest, Rest};
use crate::journal::RunSummary;
use crate::ports::Spawn;
use engine_core::condition::Truth;
use engine_core::incident::{
    Affected, Closing, FleetEvent, Incident, IncidentId, Phase, QueuedWork, Subject, Trouble,
};
use engine_core::model::{NodeName, RunId};
use engine_core::playbook::{Playbook, PlaybookRef, TargetKind};
use engine_core::run::{Actor, EffectState, End, RunState, Status};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The playbooks that the dispatcher may give incidents to.
pub trait Playbooks: Send + Sync + Debug {
    /// Finds the playbook for a fault, in the version that is to be used. `Err` says why there is none.
    fn for_fault(&self, fault: &str) -> Result<Arc<Playbook>, String>;

    /// Says whether exactly this version, with this content, is among them.
    fn holds(&self, reference: &PlaybookRef) -> bool;
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
        }
    }
}

/// Runs that are carried out for incidents are read in pages of this size.
const OPEN_RUNS: usize = 100_000;

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
}

impl Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What becomes of an incident after a look at it.
enum Decision {
    Planned,
    Wait(String),
    Person(String),
}

impl Dispatcher {
    /// Builds a dispatcher; [`Dispatcher::run`] starts it.
    pub fn new(
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
            config,
            at_work: Mutex::default(),
            stopping: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Works until it is stopped or the journal fails for good; every round takes up what other processes left or decided.
    pub async fn run(&self) -> Result<(), FleetError> {
        self.take_over().await?;
        while !self.shared.stopping.load(Ordering::SeqCst) {
            self.round().await?;
            self.shared.engine.ports.clock.sleep(self.shared.config.round).await;
        }
        Ok(())
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
        // Oldest first: who waited longest is asked first.
        for run in runs.iter().rev() {
            self.carry_on(run, orphans.contains(&run.run));
        }
        self.settle_ended(&runs).await?;
        self.plan_queued().await
    }

    /// Ends plans that a dispatcher made and could not connect with their incident before it died.
    async fn take_over(&self) -> Result<(), FleetError> {
        let s = &self.shared;
        for run in s.engine.ports.journal.runs(None, true, OPEN_RUNS).await? {
            let ours = run.initiator == s.config.name;
            let waits = matches!(run.status, Status::Proposed | Status::AwaitingApproval | Status::Approved);
            let known = s.log.read(|f| f.of_run(&run.run).is_some()).await;
            if ours && waits && !known {
                let by = Actor::engine(s.config.name.clone());
                let why = "the process that planned it died before it was given to its incident";
                // One that was decided meanwhile is as good.
                let _ = s.engine.deny(&run.run, &by, why).await;
            }
        }
        Ok(())
    }

    /// A plan that was made before a breaker was released and has not begun is never carried out: its incident is
    /// dropped, or judged anew on fresh facts.
    async fn after_release(&self) -> Result<(), FleetError> {
        let s = &self.shared;
        let all: Vec<_> =
            s.log.read(|f| f.released().map(|(id, run, queued)| (id, run.clone(), queued)).collect()).await;
        for (id, run, queued) in all {
            let by = Actor::engine(s.config.name.clone());
            let why = "it was planned before the breaker was released";
            match s.engine.deny(&run, &by, why).await {
                Ok(_) => {}
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

    fn carry_on(&self, run: &RunSummary, orphaned: bool) {
        let s = &self.shared;
        let ready = match run.status {
            Status::Proposed | Status::Approved => true,
            Status::AwaitingApproval => false,
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

    /// Takes note of runs that ended while nobody looked.
    async fn settle_ended(&self, open: &[RunSummary]) -> Result<(), FleetError> {
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
    async fn settle(&self, run: &RunId) -> Result<(), FleetError> {
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

    async fn plan_queued(&self) -> Result<(), FleetError> {
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
        let again = s.engine.ports.clock.now().saturating_add(s.config.plan_again);
        lock(&s.at_work).again.insert(id, again.unwrap_or(Timestamp::MAX));
        let event = match decision {
            Decision::Planned => return Ok(()),
            Decision::Wait(why) => FleetEvent::Waiting { incident: id, why },
            Decision::Person(why) => FleetEvent::WithPerson { incident: id, why },
        };
        s.log
            .write(|draft| match draft.state.incident(id) {
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
        let playbook = match s.playbooks.for_fault(&series.fault) {
            Ok(p) => p,
            Err(why) => return Ok(Decision::Person(why)),
        };
        let gpu = match (playbook.target, incident.gpus().len()) {
            (TargetKind::Gpu, 2..) => {
                return Ok(Decision::Person(format!(
                    "{} GPUs of {node} at once: look one level up (power, fabric, driver)",
                    incident.gpus().len()
                )));
            }
            (TargetKind::Gpu, _) => series.gpu.clone(),
            (TargetKind::Node, _) => None,
        };
        let affected =
            Affected { node, partitions: Some(&place.partitions), playbook: &playbook.reference.id };
        if let Some(why) = s.log.read(|f| f.switches().against(affected)).await {
            return Ok(Decision::Wait(why));
        }
        if let Some(run) = self.other_run(node).await? {
            return Ok(Decision::Wait(format!("run {run} has the node")));
        }
        let request = ProposeRequest {
            playbook: &playbook,
            node: node.clone(),
            gpu,
            params: BTreeMap::new(),
            alert: Alert { id: fingerprint.as_str().to_owned(), last_seen: Some(series.last_seen) },
            initiator: Actor::engine(s.config.name.clone()),
        };
        let proposal = match s.engine.plan(request).await {
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
        let planned = FleetEvent::Planned { incident: incident.id, run: state.run.clone() };
        let taken = s
            .log
            .write(|draft| match draft.state.incident(incident.id) {
                Some(now) if now.is_queued() => draft.push(planned.clone()).map(|()| true),
                _ => Ok(false),
            })
            .await?;
        if !taken {
            let by = Actor::engine(s.config.name.clone());
            let _ = s.engine.deny(&state.run, &by, "its incident was closed meanwhile").await;
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

/// What the end of a run means for its incident.
fn after_run(incident: &Incident, state: &RunState, end: End, plans: usize) -> FleetEvent {
    let id = incident.id;
    let why = format!("run {} {}: {}", state.run, end.as_str().replace('_', " "), state.why);
    match end {
        End::Succeeded => FleetEvent::Closed { incident: id, closing: Closing::Repaired, why },
        // Nothing stands of it: it may be planned anew on fresh facts, a few times.
        End::Rejected | End::RolledBack if incident.runs.len() < plans && !refused_by_person(state) => {
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

/// A person's no, or nobody's yes, is not asked for again.
fn refused_by_person(state: &RunState) -> bool {
    state.effects.is_empty()
        && (state.why.starts_with("denied by") || state.why.starts_with("nobody approved"))
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
