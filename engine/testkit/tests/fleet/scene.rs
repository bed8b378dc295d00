//! A simulated cluster with a dispatcher, and on call somebody who says yes.

use crate::counted::{Changes, Counted};
use engine_core::incident::{
    Alert, Fingerprint, FleetEvent, Incident, IntakeRules, Place, QueuedWork, Scope, Shape, StormRules,
};
use engine_core::known::Known;
use engine_core::model::NodeName;
use engine_core::policy::{Layout, Policy};
use engine_core::run::{Actor, End, Status};
use engine_playbook::{Library, Renderer};
use engine_runtime::engine::{Engine, EngineConfig, Gate, LastMetre, Ports};
use engine_runtime::fleet::{
    ByFault, Dispatcher, DispatcherConfig, FleetLog, FleetView, Intake, PolicyGate, Selection, SwitchGate,
};
use engine_runtime::journal::{Journal, JournalError, MemoryJournal, NewRecord, Record, StreamName};
use engine_runtime::ports::{Clock, Spawn};
use engine_testkit::journal::{Guarded, Porter};
use engine_testkit::ports::{SeededIds, SimActuator, SimClock, SimScheduler, SimTelemetry};
use engine_testkit::time::{SimRuntime, Spawner};
use engine_testkit::world::{Fault, SimConfig, SimWorld};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) const ECC: &str = "gpu-ecc-uncorrectable";

pub(crate) fn secs(n: i64) -> SignedDuration {
    SignedDuration::from_secs(n)
}

/// What differs from one engine process to another.
#[derive(Default)]
pub(crate) struct Setup {
    /// Without one, only breakers and pauses stand before the engine.
    pub(crate) policy: Option<Policy>,
    /// Without them, those that come with Slurmedic.
    pub(crate) playbooks: Option<ByFault>,
    pub(crate) selection: Selection,
    pub(crate) last_metre: Option<Arc<dyn LastMetre>>,
    /// A journal whose streams cannot be written while it says so.
    pub(crate) flaky: Option<Flaky>,
}

/// A disk that is full for a while: what concerns the fleet cannot be written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flaky(Arc<AtomicBool>);

impl Flaky {
    pub(crate) fn fails(&self, fails: bool) {
        self.0.store(fails, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl Porter for Flaky {
    async fn append_records(
        &self,
        inner: &MemoryJournal,
        stream: &StreamName,
        after: Option<u64>,
        at: Timestamp,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Record>, JournalError> {
        if self.0.load(Ordering::SeqCst) {
            return Err(JournalError::Store { doing: "written", source: "no space left".into() });
        }
        inner.append_records(stream, after, at, records).await
    }
}

impl Setup {
    pub(crate) fn under(policy: &Policy) -> Self {
        Self { policy: Some(policy.clone()), ..Self::default() }
    }
}

/// One engine process with everything that feeds it.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) world: SimWorld,
    pub(crate) clock: SimClock,
    pub(crate) journal: MemoryJournal,
    pub(crate) engine: Engine,
    pub(crate) log: Arc<FleetLog>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) spawner: Spawner,
    /// What this process did to the cluster and its nodes.
    pub(crate) changes: Changes,
    /// What stands before its runs.
    pub(crate) gate: Arc<dyn Gate>,
}

impl Scene {
    pub(crate) async fn new(nodes: usize) -> Self {
        Self::with(nodes, Setup::default()).await
    }

    /// A first engine process on a cluster of its own.
    pub(crate) async fn with(nodes: usize, setup: Setup) -> Self {
        let world = SimWorld::new(SimConfig::new(nodes, 7, "2026-01-05T08:00:00Z".parse().unwrap()));
        Self::on(&world, MemoryJournal::new(), "engine-1", Spawner::default(), setup).await
    }

    /// Another engine process on the same world and the same journal.
    pub(crate) async fn reborn(&self, name: &str) -> Self {
        self.reborn_with(name, Setup::default()).await
    }

    pub(crate) async fn reborn_with(&self, name: &str, setup: Setup) -> Self {
        Self::on(&self.world, self.journal.reopen(), name, self.spawner.clone(), setup).await
    }

    /// A first engine process under a policy.
    pub(crate) async fn under(policy: &Policy, nodes: usize) -> Self {
        Self::with(nodes, Setup::under(policy)).await
    }

    /// Another engine process on the same world, with the same journal or one of its own.
    pub(crate) async fn beside(&self, name: &str, policy: &Policy, own_journal: bool) -> Self {
        let journal = if own_journal { MemoryJournal::new() } else { self.journal.reopen() };
        Self::on(&self.world, journal, name, self.spawner.clone(), Setup::under(policy)).await
    }

    /// Another engine process on the same journal that has other playbooks.
    pub(crate) async fn with_playbooks(&self, name: &str, policy: &Policy, playbooks: ByFault) -> Self {
        self.reborn_with(name, Setup { playbooks: Some(playbooks), ..Setup::under(policy) }).await
    }

    async fn on(
        world: &SimWorld,
        journal: MemoryJournal,
        name: &str,
        spawner: Spawner,
        setup: Setup,
    ) -> Self {
        let Setup { policy, playbooks, selection, last_metre, flaky } = setup;
        let playbooks = playbooks.unwrap_or_else(|| ByFault::newest(Library::embedded().playbooks()));
        let changes = Changes::default();
        let clock = SimClock::new(world);
        let shared: Arc<dyn Journal> = match flaky {
            Some(flaky) => Arc::new(Guarded::new(journal.clone(), flaky)),
            None => Arc::new(journal.clone()),
        };
        let ports = Ports {
            scheduler: Arc::new(Counted { inner: SimScheduler::new(world), changes: changes.clone() }),
            actuator: Arc::new(Counted { inner: SimActuator::new(world), changes: changes.clone() }),
            telemetry: Some(Arc::new(SimTelemetry::new(world))),
            clock: Arc::new(clock.clone()),
            ids: Arc::new(SeededIds::new(name.bytes().map(u64::from).sum())),
            journal: Arc::clone(&shared),
        };
        let config = EngineConfig { engine: name.to_owned(), ..EngineConfig::default() };
        let log = Arc::new(FleetLog::open(shared, Arc::new(clock.clone())).await.unwrap());
        let intake = Arc::new(Intake::new(Arc::clone(&log), IntakeRules::default(), StormRules::default()));
        let place = |_: &NodeName| Place { partitions: vec!["main".into()], rack: None };
        let nodes = world.node_names();
        intake.set_shape(Arc::new(Shape::new(nodes.iter().map(|n| (n.clone(), place(n))))));
        let switches = SwitchGate::new(Arc::clone(&log), Arc::clone(&intake));
        let shared_clock: Arc<dyn Clock> = Arc::new(clock.clone());
        let gate: Arc<dyn Gate> = match policy {
            None => Arc::new(switches),
            Some(policy) => {
                let layout = Layout::of(&policy.racks, &Known::Known(None));
                let scheduler = Arc::clone(&ports.scheduler);
                let view = Arc::new(FleetView::new(scheduler, Arc::clone(&shared_clock), layout));
                Arc::new(PolicyGate::new(
                    switches,
                    policy.into(),
                    view,
                    Arc::new(playbooks.clone()),
                    Arc::clone(&ports.journal),
                    shared_clock,
                ))
            }
        };
        let mut engine = Engine::new(ports, config, Arc::new(Renderer::new())).with_gate(Arc::clone(&gate));
        if let Some(last_metre) = last_metre {
            engine = engine.with_last_metre(last_metre);
        }
        let dispatcher = Dispatcher::selecting(
            selection,
            engine.clone(),
            Arc::clone(&intake),
            Arc::clone(&log),
            Arc::new(playbooks),
            Arc::new(spawner.clone()),
            DispatcherConfig::default(),
        );
        Self { world: world.clone(), clock, journal, engine, log, intake, dispatcher, spawner, changes, gate }
    }

    /// Lets the dispatcher and an on-call person work while `play` goes on, then stops both.
    pub(crate) async fn play<T>(&self, play: impl Future<Output = T>) -> T {
        let mine = self.clone();
        let spawn: &dyn Spawn = &self.spawner;
        spawn.spawn("on call".into(), Box::pin(async move { mine.say_yes().await }));
        self.play_with_nobody_on_call(play).await
    }

    /// Lets the dispatcher work while `play` goes on; nobody answers it.
    pub(crate) async fn play_with_nobody_on_call<T>(&self, play: impl Future<Output = T>) -> T {
        let spawn: &dyn Spawn = &self.spawner;
        let working = self.dispatcher.clone();
        spawn.spawn("dispatcher".into(), Box::pin(async move { drop(working.run().await) }));
        let whole = async {
            let out = play.await;
            self.dispatcher.stop();
            self.journal.kill();
            out
        };
        SimRuntime::new(&self.world).run_with(&self.spawner, whole, &mut |_| {}).await.unwrap()
    }

    /// Only `play` goes on; nobody else works.
    pub(crate) async fn alone<T>(&self, play: impl Future<Output = T>) -> T {
        SimRuntime::new(&self.world).run_with(&self.spawner, play, &mut |_| {}).await.unwrap()
    }

    /// Has this process work too, beside the one that plays; it ends when its journal is killed or it is stopped.
    pub(crate) fn work(&self) {
        let spawn: &dyn Spawn = &self.spawner;
        let working = self.dispatcher.clone();
        spawn.spawn("another dispatcher".into(), Box::pin(async move { drop(working.run().await) }));
        let mine = self.clone();
        spawn.spawn("on call there".into(), Box::pin(async move { mine.say_yes().await }));
    }

    /// Approves what waits for a person, until the engine is gone.
    async fn say_yes(&self) {
        while let Ok(open) = self.engine.ports.journal.runs(None, true, 1_000).await {
            for run in open.iter().filter(|r| r.status == Status::AwaitingApproval) {
                drop(self.engine.approve(&run.run, Actor::person("oncall")).await);
            }
            self.clock.sleep(secs(11)).await;
        }
    }

    pub(crate) fn node(&self, i: usize) -> NodeName {
        self.world.node_names()[i].clone()
    }

    /// An uncorrectable error on GPU 2 of a node.
    pub(crate) fn break_gpu(&self, i: usize) {
        self.world.inject(&self.node(i), 2, Fault::EccDbe).unwrap();
    }

    pub(crate) fn alert(&self, i: usize, firing: bool) -> Alert {
        let node = self.node(i);
        Alert {
            source: "test".into(),
            fingerprint: Fingerprint::new(&format!("{ECC}/{node}/2")).unwrap(),
            fault: ECC.into(),
            node,
            gpu: Some("2".into()),
            firing,
            seen_at: self.clock.now(),
            summary: "double bit error {{ 7*7 }}".into(),
        }
    }

    pub(crate) async fn post(&self, i: usize) {
        self.intake.take(vec![self.alert(i, true)]).await.unwrap();
    }

    pub(crate) async fn wait(&self, seconds: i64) {
        self.clock.sleep(secs(seconds)).await;
    }

    pub(crate) async fn incidents(&self) -> Vec<Incident> {
        self.log.sync().await.unwrap();
        self.log.read(|f| f.incidents().cloned().collect()).await
    }

    pub(crate) async fn history(&self) -> Vec<FleetEvent> {
        let journal: Arc<dyn Journal> = Arc::new(self.journal.reopen());
        let log = FleetLog::open(journal, Arc::new(self.clock.clone())).await.unwrap();
        log.history(1_000_000).await.unwrap().into_iter().map(|(_, _, e)| e).collect()
    }

    /// How the runs on record ended.
    pub(crate) async fn ends(&self) -> BTreeMap<Option<End>, usize> {
        let mut out = BTreeMap::new();
        for run in self.journal.reopen().runs(None, false, 1_000_000).await.unwrap() {
            let end = if let Status::Ended(end) = run.status { Some(end) } else { None };
            *out.entry(end).or_insert(0) += 1;
        }
        out
    }

    pub(crate) async fn release(&self, scope: Scope, queued: QueuedWork) {
        let by = Actor::person("lead");
        let why = "looked at it".to_owned();
        self.log.note(FleetEvent::Released { scope, by, why, queued }).await.unwrap();
    }

    /// Nothing of the engine is left on the cluster, nothing was broken, the journal is whole.
    pub(crate) async fn is_clean(&self) {
        assert_eq!(self.world.violations(), []);
        assert_eq!(self.world.jobs_lost_to_engine(), 0);
        assert_eq!(self.world.engine_reservations(), Vec::<String>::new());
        let fresh = self.journal.reopen();
        assert_eq!(fresh.verify().await.unwrap().broken, None);
        assert_eq!(fresh.leases().await.unwrap(), []);
    }
}

impl Scene {
    pub(crate) fn clock_now(&self) -> jiff::Timestamp {
        self.clock.now()
    }
}
