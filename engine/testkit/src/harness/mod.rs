//! The harness common to all playbooks: one run of a playbook on a simulated node, in which one thing goes wrong at one
//! point, judged by the rules.
//!
//! An engine that dies is taken over by another one on the same journal, as after a restart, until every run is over.

mod judge;
mod meddler;
mod twist;

pub use judge::Verdict;
pub use meddler::{Call, Kind};
pub use twist::{Foreign, PERSON, REASON, RESERVATION, Twist, Way};

use crate::ports::{SeededIds, SimClock, SimTelemetry};
use crate::time::{SimRuntime, Stalled};
use crate::warden::Warden;
use crate::world::{Fault, SimConfig, SimWorld};
use engine_core::model::{NodeName, RunId};
use engine_core::playbook::Playbook;
use engine_core::run::{Actor, Event, RunState};
use engine_core::value::Value;
use engine_playbook::Renderer;
use engine_runtime::engine::{
    Alert, Engine, EngineConfig, EngineError, Observer, Ports, ProposeRequest, Rest,
};
use engine_runtime::journal::MemoryJournal;
use engine_runtime::ports::Clock as _;
use jiff::{SignedDuration, Timestamp};
use meddler::{Calls, OddActuator, OddScheduler};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

/// The GPU that breaks.
const GPU: u32 = 3;
/// Engine processes a scene may use up before it is called stuck.
const PROCESSES: u64 = 8;
/// Times that one process goes on with a run that waits for people or for the gate.
const GOES: u32 = 12;

/// The longest that a lock of a run of this harness may stand: the limits of its steps, and the slack.
const LOCK_AT_MOST: SignedDuration = SignedDuration::from_hours(2);

/// The fault that a playbook is for, as the simulator can make it; `None` for a fault it does not know.
pub fn fault_for(playbook: &Playbook) -> Option<Fault> {
    playbook.fault.iter().find_map(|word| match word.as_str() {
        "gpu-ecc-uncorrectable" => Some(Fault::EccDbe),
        _ => None,
    })
}

/// A playbook, and what breaks for it.
#[derive(Debug, Clone)]
pub struct Scene {
    playbook: Arc<Playbook>,
    fault: Fault,
}

/// What everybody in a scene shares.
struct Stage {
    world: SimWorld,
    node: NodeName,
    calls: Arc<Calls>,
    warden: Arc<Warden>,
    prompter: Arc<Prompter>,
    ids: Arc<SeededIds>,
    playbook: Arc<Playbook>,
}

/// Lets the foreign change of a twist happen at its event.
#[derive(Debug)]
struct Prompter {
    world: SimWorld,
    node: NodeName,
    cue: Option<(u64, SignedDuration, Foreign)>,
    events: AtomicU64,
}

impl Observer for Prompter {
    fn on_event(&self, _event: &Event, _state: &RunState) {
        let number = self.events.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some((after, delay, change)) = self.cue
            && after == number
        {
            let at = self.world.now().saturating_add(delay).unwrap_or(Timestamp::MAX);
            for (more, script) in change.scripts(&self.node, GPU) {
                self.world.schedule(at.saturating_add(more).unwrap_or(Timestamp::MAX), script);
            }
        }
    }
}

/// How one engine process came to its end.
enum Left {
    /// Nothing is left to do.
    Done,
    /// It was killed.
    Dead,
    /// It gave up, and said why.
    GaveUp(String),
}

impl Scene {
    /// Builds the scene of a playbook; `None` where the simulator does not know the fault it is for.
    pub fn new(playbook: &Playbook) -> Option<Self> {
        let fault = fault_for(playbook)?;
        Some(Self { playbook: Arc::new(playbook.clone()), fault })
    }

    /// Plays the scene with a twist, and judges it.
    pub async fn play(&self, twist: &Twist) -> Result<Verdict, Stalled> {
        let world = SimWorld::new(config(twist));
        let Some(node) = world.node_names().first().cloned() else {
            return Err(Stalled { at: world.now(), who: vec!["there is no node".to_owned()] });
        };
        // Work of people on other GPUs of the node, which the drain lets finish.
        let job = world.start_job(&node, &[0, 1], SignedDuration::from_secs(40));
        let broken = job.and_then(|_| world.inject(&node, GPU, self.fault.clone()));
        if let Err(why) = broken {
            return Err(Stalled { at: world.now(), who: vec![why] });
        }
        let wrong = match twist {
            Twist::Call { number, way } => Some((*number, *way)),
            _ => None,
        };
        let cue = match twist {
            Twist::Foreign { after, delay, change } => Some((*after, *delay, *change)),
            _ => None,
        };
        let stage = Stage {
            calls: Arc::new(Calls::new(&world, wrong, matches!(twist, Twist::Twice { .. }))),
            warden: Arc::new(Warden::new(&world, engine_config().fact_max_age)),
            prompter: Arc::new(Prompter {
                world: world.clone(),
                node: node.clone(),
                cue,
                events: AtomicU64::new(0),
            }),
            ids: Arc::new(SeededIds::new(1)),
            playbook: Arc::clone(&self.playbook),
            node,
            world: world.clone(),
        };
        let journal = MemoryJournal::new();
        let play = async {
            let (last, trouble) = Box::pin(stage.operate(&journal, twist)).await;
            let trouble = match trouble {
                Some(why) => Some(why),
                None => stage.settle(twist).await,
            };
            let appends = journal.appends();
            judge::judge(&stage, &last, appends, trouble).await
        };
        Box::pin(SimRuntime::new(&world).run(play)).await
    }
}

impl Stage {
    /// Runs engine processes one after the other until one has nothing left to do.
    async fn operate(&self, first: &MemoryJournal, twist: &Twist) -> (MemoryJournal, Option<String>) {
        let clock = SimClock::new(&self.world);
        let mut journal = first.clone();
        for process in 1..=PROCESSES {
            let crash = match (twist, process) {
                (Twist::Crash { first, .. }, 1) => Some(*first),
                (Twist::Crash { second, .. }, 2) => *second,
                _ => None,
            };
            if let Some((n, point)) = crash {
                journal.crash_after(n, point);
            }
            self.calls.begin_process(&journal);
            let engine = self.engine(&journal, process);
            match self.until_death(&engine, &journal).await {
                Left::Done => return (journal, None),
                Left::GaveUp(why) => return (journal, Some(why)),
                Left::Dead => {
                    journal = journal.reopen();
                    if let Err(e) = self.warden.catch_up(&journal).await {
                        return (journal, Some(e.to_string()));
                    }
                    clock.sleep(SignedDuration::from_secs(5)).await;
                }
            }
        }
        (journal, Some(format!("{PROCESSES} engine processes did not bring it to an end")))
    }

    fn engine(&self, journal: &MemoryJournal, process: u64) -> Engine {
        let ports = Ports {
            scheduler: Arc::new(OddScheduler::new(&self.world, &self.calls)),
            actuator: Arc::new(OddActuator::new(&self.world, &self.calls)),
            telemetry: Some(Arc::new(SimTelemetry::new(&self.world))),
            clock: Arc::new(SimClock::new(&self.world)),
            ids: Arc::clone(&self.ids) as _,
            journal: Arc::new(journal.clone()),
        };
        let config = EngineConfig { engine: format!("engine{process}"), ..engine_config() };
        Engine::new(ports, config, Arc::new(Renderer::new()))
            .with_observer(Arc::clone(&self.warden) as _)
            .with_observer(Arc::clone(&self.prompter) as _)
    }

    /// Lets one engine process work until it is done or killed; killed, everything it does is dropped at once.
    async fn until_death(&self, engine: &Engine, journal: &MemoryJournal) -> Left {
        let mut work = pin!(self.work(engine));
        let result = poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if journal.is_dead() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await;
        match result {
            _ if journal.is_dead() => Left::Dead,
            Some(Ok(())) => Left::Done,
            Some(Err(why)) => Left::GaveUp(why),
            None => Left::Dead,
        }
    }

    /// What an engine process does: pick up what a dead one left, else begin; then go on until every run is over.
    async fn work(&self, engine: &Engine) -> Result<(), String> {
        let text = |e: EngineError| e.to_string();
        let journal = &engine.ports.journal;
        for run in journal.orphans().await.map_err(|e| e.to_string())? {
            let rest = engine.recover(&run).await.map_err(text)?;
            self.go_on(engine, &run, rest).await?;
        }
        let mut runs = journal.runs(None, false, 10).await.map_err(|e| e.to_string())?;
        if runs.is_empty() {
            match self.propose(engine).await {
                Ok(run) => {
                    let rest = engine.drive(&run).await.map_err(text)?;
                    self.go_on(engine, &run, rest).await?;
                }
                Err(Some(why)) => return Err(why),
                // Nothing could be planned, so nothing was begun.
                Err(None) => return Ok(()),
            }
            runs = journal.runs(None, false, 10).await.map_err(|e| e.to_string())?;
        }
        for line in runs.into_iter().filter(|r| !r.status.is_terminal()) {
            let rest = engine.drive(&line.run).await.map_err(text)?;
            self.go_on(engine, &line.run, rest).await?;
        }
        Ok(())
    }

    /// Plans and puts the plan on record; `Err(None)` where no plan could be made.
    async fn propose(&self, engine: &Engine) -> Result<RunId, Option<String>> {
        let mut last = None;
        for _ in 0..4 {
            let request = ProposeRequest {
                playbook: &self.playbook,
                node: self.node.clone(),
                gpu: Some(GPU.to_string()),
                params: [("idle_wait".to_owned(), Value::Duration(SignedDuration::from_mins(10)))].into(),
                alert: Alert { id: "a'1 $(reboot)".to_owned(), last_seen: Some(self.world.now()) },
                initiator: Actor::person("oncall"),
            };
            match engine.plan(request).await {
                Ok(p) if p.objections.is_empty() => last = Some(p),
                Ok(p) => {
                    last = Some(p);
                    engine.ports.clock.sleep(SignedDuration::from_secs(20)).await;
                    continue;
                }
                Err(_) => {
                    engine.ports.clock.sleep(SignedDuration::from_secs(20)).await;
                    continue;
                }
            }
            break;
        }
        match last {
            Some(p) => engine.record_plan(p).await.map(|s| s.run).map_err(|e| Some(e.to_string())),
            None => Err(None),
        }
    }

    /// Says yes for the people, and drives on.
    async fn go_on(&self, engine: &Engine, run: &RunId, mut rest: Rest) -> Result<(), String> {
        for _ in 0..GOES {
            match rest {
                Rest::Over(_) => return Ok(()),
                Rest::AwaitsApproval => {
                    engine.ports.clock.sleep(SignedDuration::from_secs(10)).await;
                    match engine.approve(run, Actor::person("oncall")).await {
                        Ok(_) | Err(EngineError::WrongStatus { .. }) => {}
                        Err(e) => return Err(e.to_string()),
                    }
                }
                Rest::Deferred => engine.ports.clock.sleep(SignedDuration::from_secs(30)).await,
            }
            rest = engine.drive(run).await.map_err(|e| e.to_string())?;
        }
        Err(format!("run {run} waits and waits: {rest:?}"))
    }

    /// Lets everything arrive that is still on its way, and our reservations end that could not be deleted.
    ///
    /// A reservation may be left only where slurmctld was away for longer than the engine tries, and no longer than its
    /// own end.
    async fn settle(&self, twist: &Twist) -> Option<String> {
        let clock = SimClock::new(&self.world);
        clock.sleep(SignedDuration::from_mins(6)).await;
        let away = matches!(twist, Twist::Call { way: Way::Away, .. });
        if away && !self.world.engine_reservations().is_empty() {
            clock.sleep(LOCK_AT_MOST).await;
        }
        None
    }
}

fn engine_config() -> EngineConfig {
    EngineConfig { health_settle: SignedDuration::from_secs(15), ..EngineConfig::default() }
}

fn config(twist: &Twist) -> SimConfig {
    // 2026-01-05T08:00:00Z, a Monday.
    let start = Timestamp::from_second(1_767_600_000).unwrap_or(Timestamp::UNIX_EPOCH);
    let mut config = SimConfig::new(2, 1, start);
    if let Twist::Twice { after } = twist {
        config.writes_arrive_again = Some(*after);
    }
    config
}
