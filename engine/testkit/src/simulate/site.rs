//! The engines of a simulated site: two processes on one journal, and one of another site that should not be there.
//!
//! A process dies in a write or between two; everything it does is dropped, and a while later another one takes over.

use super::SimulateOptions;
use super::cases::{Case, Cases};
use super::mortal::{Mortal, Mourner, mix};
use crate::journal::Guarded;
use crate::mutants::{self, Mutant};
use crate::ports::{SimActuator, SimClock, SimScheduler};
use crate::time::{Group, Spawner};
use crate::warden::Warden;
use crate::world::SimWorld;
use engine_core::model::{NodeName, RunId};
use engine_core::plan::Render;
use engine_core::playbook::Playbook;
use engine_core::run::{Event, RunState};
use engine_runtime::engine::{Engine, EngineConfig, Observer as _, Ports};
use engine_runtime::journal::{Journal, MemoryJournal};
use engine_runtime::ports::{Clock as _, Ids};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Engine processes: the first two share a journal, the third has its own.
pub(super) const ENGINES: usize = 3;
/// The engine of the other site.
pub(super) const ELSEWHERE: usize = 2;

/// One engine process.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) index: usize,
    pub(super) group: Group,
    pub(super) journal: MemoryJournal,
    pub(super) engine: Engine,
}

/// What everybody in a simulation shares.
pub(super) struct Site {
    pub(super) world: SimWorld,
    pub(super) clock: SimClock,
    pub(super) spawner: Spawner,
    pub(super) warden: Arc<Warden>,
    pub(super) playbook: Arc<Playbook>,
    pub(super) cases: Cases,
    pub(super) seed: u64,
    mutant: Option<Mutant>,
    /// The journals of the two sites, as a person's command line opens them.
    pub(super) desks: [MemoryJournal; 2],
    render: Arc<dyn Render + Send + Sync>,
    me: Weak<Site>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: [Option<Process>; ENGINES],
    groups: u64,
    deaths: Vec<Death>,
    /// Writes in which an engine has died.
    struck: BTreeSet<(RunId, u64)>,
}

/// The death of an engine.
#[derive(Debug, Clone)]
pub(super) struct Death {
    pub(super) at: Timestamp,
    pub(super) engine: usize,
    /// The run in whose write it died; `None` between two writes.
    pub(super) run: Option<RunId>,
}

/// Gives one run id.
#[derive(Debug)]
struct OneId(RunId);

impl Ids for OneId {
    fn run_id(&self) -> RunId {
        self.0.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl Site {
    pub(super) fn new(
        world: &SimWorld,
        spawner: &Spawner,
        playbook: Arc<Playbook>,
        render: Arc<dyn Render + Send + Sync>,
        options: &SimulateOptions,
    ) -> Arc<Self> {
        let warden = Arc::new(Warden::new(world, config().fact_max_age));
        let site = Arc::new_cyclic(|me| Self {
            world: world.clone(),
            clock: SimClock::new(world),
            spawner: spawner.clone(),
            warden,
            playbook,
            cases: Cases::default(),
            seed: options.seed,
            mutant: options.mutant,
            desks: [MemoryJournal::passing(), MemoryJournal::passing()],
            render,
            me: me.clone(),
            state: Mutex::default(),
        });
        for engine in 0..ENGINES {
            site.start(engine);
        }
        site
    }

    fn desk_of(&self, engine: usize) -> &MemoryJournal {
        let [ours, theirs] = &self.desks;
        if engine == ELSEWHERE { theirs } else { ours }
    }

    /// Starts an engine process.
    fn start(&self, index: usize) -> Option<Process> {
        let mourner = self.me.upgrade()?;
        let journal = self.desk_of(index).reopen();
        let mortal = Mortal::new(index, self.seed, Arc::new(Bell(Arc::downgrade(&mourner))));
        let mortal = Guarded::new(journal.clone(), mortal);
        let engine = self.engine(index, Arc::new(mortal));
        let mut state = lock(&self.state);
        state.groups += 1;
        let process = Process { index, group: Group(state.groups), journal, engine };
        if let Some(place) = state.running.get_mut(index) {
            *place = Some(process.clone());
        }
        Some(process)
    }

    /// Builds an engine on a journal.
    pub(super) fn engine(&self, index: usize, journal: Arc<dyn Journal>) -> Engine {
        let ports = Ports {
            scheduler: Arc::new(SimScheduler::new(&self.world)),
            actuator: Arc::new(SimActuator::new(&self.world)),
            telemetry: None,
            clock: Arc::new(self.clock.clone()),
            ids: Arc::new(OneId(RunId::unknown())),
            journal,
        };
        let config = EngineConfig { engine: format!("engine{index}"), ..config() };
        Engine::new(ports, config, Arc::clone(&self.render)).with_observer(Arc::clone(&self.warden) as _)
    }

    /// Returns the process of an engine, if it runs.
    pub(super) fn process(&self, engine: usize) -> Option<Process> {
        lock(&self.state).running.get(engine).cloned().flatten()
    }

    /// Lists the deaths of engines so far.
    pub(super) fn deaths(&self) -> Vec<Death> {
        lock(&self.state).deaths.clone()
    }

    /// Ends an engine process; another one takes over some time later.
    pub(super) fn die(&self, engine: usize, run: Option<RunId>) {
        let at = self.clock.now();
        let process = {
            let mut state = lock(&self.state);
            let Some(process) = state.running.get_mut(engine).and_then(Option::take) else { return };
            state.deaths.push(Death { at, engine, run });
            process
        };
        process.journal.kill();
        self.spawner.end(process.group);
        let down = 5 + mix(self.seed, "down", at.as_second() as u64) % 240;
        let Some(site) = self.me.upgrade() else { return };
        self.spawner.spawn(format!("restart of engine {engine}"), async move {
            site.clock.sleep(SignedDuration::from_secs(down as i64)).await;
            site.restart(engine).await;
        });
    }

    /// Starts an engine anew and has it pick up what nobody carries on.
    async fn restart(self: &Arc<Self>, engine: usize) {
        let Some(process) = self.start(engine) else { return };
        let Ok(orphans) = process.journal.orphans().await else { return };
        for run in orphans {
            if let Some(case) = self.cases.of_run(&run) {
                self.carry(&process, &case, Some(run));
            }
        }
    }

    /// Has a process go on with a run of a case, or begin one.
    pub(super) fn carry(self: &Arc<Self>, process: &Process, case: &Arc<Case>, run: Option<RunId>) {
        let (site, engine) = (Arc::clone(self), self.for_case(process, case));
        let (case, carrier) = (Arc::clone(case), case.carried());
        let name = format!("engine {} on {}", process.index, case.node);
        self.spawner.spawn_in(process.group, name, async move {
            let _carrier = carrier;
            Box::pin(super::cases::handle(&site, &engine, &case, run)).await;
        });
    }

    /// Builds what an engine uses for one case: how its calls go is the chance of the case's node.
    fn for_case(&self, process: &Process, case: &Case) -> Engine {
        let mut engine = process.engine.clone();
        let honest = SimScheduler::for_node(&self.world, &case.node);
        engine.ports.scheduler = mutants::scheduler(self.mutant, honest, &self.world);
        engine.ports.actuator = mutants::actuator(self.mutant, SimActuator::new(&self.world), &self.world);
        let id = format!("{}-{}{}", case.name, process.index, case.next_attempt());
        engine.ports.ids = Arc::new(OneId(RunId::new(&id).unwrap_or_else(|_| RunId::unknown())));
        engine
    }
}

/// Tells the site of a death, if it still stands.
struct Bell(Weak<Site>);

impl Mourner for Bell {
    fn is_first(&self, run: &RunId, after: u64) -> bool {
        self.0.upgrade().is_some_and(|site| lock(&site.state).struck.insert((run.clone(), after)))
    }

    fn recorded(&self, events: &[Event], state: &RunState) {
        if let Some(site) = self.0.upgrade() {
            for e in events {
                site.warden.on_event(e, state);
            }
        }
    }

    fn died(&self, engine: usize, run: &RunId) {
        if let Some(site) = self.0.upgrade() {
            site.die(engine, Some(run.clone()));
        }
    }
}

/// The engine's limits in a simulation: those of a real cluster, and a slower look at nodes that are waited for.
fn config() -> EngineConfig {
    EngineConfig { poll: SignedDuration::from_mins(2), ..EngineConfig::default() }
}

/// Tells what the runs on a node wrote, as far as it is kept.
pub(super) async fn written(desks: &[MemoryJournal], node: &NodeName) -> Vec<String> {
    let mut out = Vec::new();
    for desk in desks {
        for line in desk.runs(Some(node), false, 16).await.unwrap_or_default().iter().rev() {
            for e in desk.load(&line.run).await.unwrap_or_default() {
                out.push(format!("{} {} {}: {}", e.at, e.run, e.seq, crate::timeline::words(&e.kind)));
            }
        }
    }
    out
}
