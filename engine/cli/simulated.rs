//! The embedded cluster for verbs without a Slurm: nothing real is touched, time goes fast.

use crate::commands::Global;
use crate::exit::CliError;
use crate::printer::Printer;
use crate::site::{self, Site, announce_simulation};
use engine_core::model::NodeName;
use engine_core::policy::Policy;
use engine_playbook::Library;
use engine_runtime::engine::{EngineConfig, Ports, TimeIds};
use engine_runtime::journal::{Journal, MemoryJournal, OpenMode, SqliteJournal};
use engine_runtime::ports::Clock;
use engine_testkit::ports::{SimActuator, SimScheduler, SimTelemetry};
use engine_testkit::time::{Pace, SimClock, SimRuntime};
use engine_testkit::world::{Fault, SimConfig, SimWorld};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// Nodes of the embedded cluster.
const NODES: usize = 64;

/// What is wrong with it from the start, so that there is something to plan and to run.
const FAULTS: &[(&str, u32, Fault)] = &[
    ("gpu002", 3, Fault::EccDbe),
    ("gpu003", 5, Fault::OffBus),
    ("gpu004", 0, Fault::StubbornEcc),
    ("gpu005", 7, Fault::RemapFailure),
];

/// Puts the site together. Time passes by itself, about a thousand times faster than outside.
pub(crate) fn open(
    global: &Global,
    printer: &mut Printer,
    library: Library,
    config: EngineConfig,
    policy: Arc<Policy>,
    node: Option<&NodeName>,
) -> Result<Site, CliError> {
    announce_simulation(printer);
    let world = SimWorld::new(SimConfig::new(NODES, 1, Timestamp::now()));
    for (name, gpu, fault) in FAULTS {
        let name = NodeName::new(name).map_err(|e| CliError::caused("the embedded cluster", e))?;
        world.inject(&name, *gpu, fault.clone()).map_err(CliError::failed)?;
    }
    if node.is_some_and(|n| !world.node_names().contains(n)) {
        printer.say("the simulated nodes are gpu001 to gpu064; gpu002 to gpu005 have faults");
    }
    let journal: Arc<dyn Journal> = match &global.journal {
        Some(path) => Arc::new(SqliteJournal::open(path, OpenMode::ReadWrite)?),
        None => Arc::new(MemoryJournal::new()),
    };
    let clock = SimClock::new(&world);
    let ports = Ports {
        scheduler: Arc::new(SimScheduler::new(&world)),
        actuator: Arc::new(SimActuator::new(&world)),
        telemetry: Some(Arc::new(SimTelemetry::new(&world))),
        clock: Arc::new(clock.clone()),
        ids: Arc::new(TimeIds),
        journal,
    };
    std::thread::spawn(move || let_time_pass(&world, &clock));
    Ok(site::simulated(ports, config, policy, library))
}

/// Moves virtual time for as long as the process lives.
fn let_time_pass(world: &SimWorld, clock: &SimClock) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    let pace = Pace::Watched {
        per_second: Duration::from_millis(2),
        longest: Duration::from_millis(40),
        budget: Duration::from_secs(86_400),
    };
    // In naps: while nobody else sleeps, because a person is asked or a playbook is played, a long sleep would end at
    // once, and time with it.
    let end = clock_end(world);
    let forever = async {
        while world.now() < end {
            clock.sleep_until(world.now() + SignedDuration::from_secs(10)).await;
        }
    };
    // It ends only with the process; a stall cannot happen with the one participant that sleeps.
    let _ = runtime.block_on(SimRuntime::new(world).with_pace(pace).run(forever));
}

fn clock_end(world: &SimWorld) -> Timestamp {
    world.now().saturating_add(SignedDuration::from_hours(24 * 365)).unwrap_or(Timestamp::MAX)
}

/// Virtual time beside a real disk: long waits are over at once, and a short nap, which gives something that is at work a
/// moment to be done, is a real one. In virtual time it would be over before the disk could answer.
#[derive(Debug)]
struct RealNaps(SimClock);

/// The longest nap.
const NAP: SignedDuration = SignedDuration::from_millis(100);

#[async_trait::async_trait]
impl Clock for RealNaps {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    async fn sleep(&self, duration: SignedDuration) {
        match Duration::try_from(duration) {
            Ok(nap) if duration <= NAP => tokio::time::sleep(nap).await,
            _ => self.0.sleep(duration).await,
        }
    }
}

/// A simulated site whose answers take no time, with a real journal: what is left is the engine.
pub(crate) fn instant(journal: Arc<dyn Journal>) -> Result<(SimWorld, Site), CliError> {
    let world = SimWorld::new(SimConfig::new(NODES, 1, Timestamp::now()));
    let clock = SimClock::new(&world);
    let ports = Ports {
        scheduler: Arc::new(SimScheduler::new(&world)),
        actuator: Arc::new(SimActuator::new(&world)),
        telemetry: None,
        clock: Arc::new(RealNaps(clock)),
        ids: Arc::new(TimeIds),
        journal,
    };
    Ok((world, site::simulated(ports, EngineConfig::default(), Arc::default(), Library::embedded())))
}

/// A run that was carried out, and the wall time it took.
pub(crate) struct Measured {
    /// The run at its end.
    pub(crate) state: engine_core::run::RunState,
    /// From the request to the yes of a person, which comes at once: look, plan, record, approval.
    pub(crate) asked: Duration,
    /// From the yes to the end.
    pub(crate) carried_out: Duration,
    /// Effects that were begun.
    pub(crate) effects: usize,
}

/// Carries one run out from request to end, in virtual time. `approved` is called between asking and carrying out.
pub(crate) async fn one_run(
    (world, site): &(SimWorld, Site),
    round: usize,
    approved: impl FnOnce(),
) -> Result<Measured, CliError> {
    use engine_core::run::{Actor, EventKind};
    let name = format!("gpu{:03}", round % NODES + 1);
    let node = NodeName::new(&name).map_err(|e| CliError::caused("the simulated node", e))?;
    world.inject(&node, 0, Fault::EccDbe).map_err(CliError::failed)?;
    let playbook = site.playbook("dcgm-ecc-drain-reset")?;
    let engine = &site.engine;
    let work = async {
        let start = std::time::Instant::now();
        let request = engine_runtime::engine::ProposeRequest {
            playbook,
            node,
            gpu: None,
            params: std::collections::BTreeMap::new(),
            alert: engine_runtime::engine::Alert::default(),
            initiator: Actor::person("bench"),
        };
        let proposal = engine.plan(request).await.map_err(|e| CliError::caused("the plan", e))?;
        let run = engine.record_plan(proposal).await?.run;
        engine.drive(&run).await?;
        engine.approve(&run, Actor::person("bench")).await?;
        let asked = start.elapsed();
        approved();
        let start = std::time::Instant::now();
        engine.drive(&run).await?;
        let carried_out = start.elapsed();
        let events = engine.ports.journal.load(&run).await?;
        let effects = events.iter().filter(|e| matches!(e.kind, EventKind::Intent { .. })).count();
        Ok(Measured { state: engine.state(&run).await?, asked, carried_out, effects: effects.max(1) })
    };
    Box::pin(SimRuntime::new(world).run(work)).await.map_err(|e| CliError::caused("the simulation", e))?
}
