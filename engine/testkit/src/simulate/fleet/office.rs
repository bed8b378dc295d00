//! The engines of a site with a policy: each with its intake, its dispatcher and its gate, as `serve` puts them together.
//! Two share a journal; a third has one of its own on the same Slurm.

mod ears;

use super::AGENT;
use super::model::Model;
use super::stops::Stops;
use super::terms::Terms;
use crate::journal::Guarded;
use crate::mutants::{self, Mutant};
use crate::ports::{SeededIds, SimActuator, SimClock, SimScheduler};
use crate::simulate::SimulateOptions;
use crate::simulate::agenda::Incident;
use crate::simulate::mortal::{Mortal, mix};
use crate::time::{Group, Spawner};
use crate::warden::Warden;
use crate::world::SimWorld;
use ears::Bell;
use engine_core::incident::{IntakeRules, Scope, StormRules};
use engine_core::model::{NodeName, RunId};
use engine_core::plan::Render;
use engine_core::playbook::Playbook;
use engine_runtime::engine::{Engine, EngineConfig, Gate, Ports};
use engine_runtime::fleet::{
    ByFault, Dispatcher, DispatcherConfig, FleetError, FleetLog, FleetView, Intake, PolicyGate, Selection,
    SwitchGate, shape_of,
};
use engine_runtime::journal::{Journal, MemoryJournal};
use engine_runtime::ports::{Clock, Spawn, Task};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Engine processes: the first two share a journal, the third has its own.
pub(super) const ENGINES: usize = 3;
/// The engine with a journal of its own.
pub(super) const ELSEWHERE: usize = 2;

/// One engine process.
#[derive(Clone)]
struct Process {
    group: Group,
    journal: MemoryJournal,
    intake: Arc<Intake>,
}

/// What a person at a terminal of a site has: the record, and an engine to say yes with.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(super) log: Arc<FleetLog>,
    pub(super) engine: Engine,
}

/// The parts of one process.
struct Parts {
    engine: Engine,
    log: Arc<FleetLog>,
    intake: Arc<Intake>,
    view: Arc<FleetView>,
    playbooks: ByFault,
}

/// What everybody at the site shares.
pub(crate) struct Office {
    pub(super) world: SimWorld,
    pub(super) clock: SimClock,
    pub(super) spawner: Spawner,
    pub(super) warden: Arc<Warden>,
    pub(super) seed: u64,
    pub(super) journals: [MemoryJournal; 2],
    mutant: Option<Mutant>,
    playbook: Arc<Playbook>,
    render: Arc<dyn Render + Send + Sync>,
    me: Weak<Office>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: [Option<Process>; ENGINES],
    desks: [Option<Desk>; 2],
    terms: Option<Arc<Terms>>,
    /// The policy that an engine has, by the engine's name.
    bound: BTreeMap<String, Arc<Terms>>,
    stops: [Stops; 2],
    /// The last incident of each node.
    incidents: BTreeMap<NodeName, Incident>,
    /// Every GPU that an alert was about.
    alerted: BTreeSet<(NodeName, u32)>,
    open: usize,
    generation: u64,
    deaths_in_write: u64,
    deaths_between: u64,
    deferred: u64,
    struck: BTreeSet<(RunId, u64)>,
    over: bool,
}

/// Starts what a dispatcher starts, as a part of its process.
#[derive(Debug)]
struct OfGroup(Spawner, Group);

impl Spawn for OfGroup {
    fn spawn(&self, name: String, task: Task) {
        self.0.spawn_in(self.1, name, task);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Office {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Office").field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// Returns the journal of an engine, by its place.
fn journal_of(engine: usize) -> usize {
    usize::from(engine == ELSEWHERE)
}

impl Office {
    /// Opens a site under a policy: its people first, then its engines.
    pub(super) async fn open(
        world: &SimWorld,
        spawner: &Spawner,
        playbook: Arc<Playbook>,
        render: Arc<dyn Render + Send + Sync>,
        options: &SimulateOptions,
        terms: Terms,
    ) -> Result<Arc<Self>, FleetError> {
        let office = Arc::new_cyclic(|me| Self {
            world: world.clone(),
            clock: SimClock::new(world),
            spawner: spawner.clone(),
            warden: Arc::new(Warden::new(world, config(String::new()).fact_max_age)),
            seed: options.seed,
            mutant: options.mutant,
            journals: [MemoryJournal::passing(), MemoryJournal::passing()],
            playbook,
            render,
            me: me.clone(),
            state: Mutex::default(),
        });
        office.put_in_force(terms).await?;
        for engine in 0..ENGINES {
            office.start(engine).await?;
        }
        Ok(office)
    }

    /// Puts a policy in force: people have it at once, engines when they are started anew.
    pub(super) async fn put_in_force(&self, terms: Terms) -> Result<(), FleetError> {
        let terms = Arc::new(terms);
        lock(&self.state).terms = Some(Arc::clone(&terms));
        for place in 0..self.journals.len() {
            let parts = self.parts(usize::MAX, place, &terms, "desk".to_owned(), None).await?;
            lock(&self.state).desks[place] = Some(Desk { log: parts.log, engine: parts.engine });
        }
        Ok(())
    }

    /// Puts the parts of one process together on a journal.
    async fn parts(
        &self,
        engine: usize,
        place: usize,
        terms: &Terms,
        name: String,
        journal: Option<MemoryJournal>,
    ) -> Result<Parts, FleetError> {
        let bell = Bell { office: self.me.clone(), place };
        // What people write is heard too, but a terminal does not die in a write.
        let mortal = Mortal::new(engine, self.seed, Arc::new(bell.clone()));
        let mortal = if journal.is_some() { mortal } else { mortal.deathless() };
        let handle = journal.unwrap_or_else(|| self.journals[place].reopen());
        let journal: Arc<dyn Journal> = Arc::new(Guarded::new(handle, mortal));
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let generation = lock(&self.state).generation;
        let ports = Ports {
            scheduler: Arc::new(SimScheduler::new(&self.world)),
            actuator: mutants::actuator(self.mutant, SimActuator::new(&self.world), &self.world),
            telemetry: None,
            clock: Arc::clone(&clock),
            ids: Arc::new(SeededIds::new(generation)),
            journal: Arc::clone(&journal),
        };
        let log = Arc::new(FleetLog::open(Arc::clone(&journal), Arc::clone(&clock)).await?);
        let storm = StormRules { breaker: terms.policy.breaker.clone(), ..StormRules::default() };
        let intake = Arc::new(Intake::new(Arc::clone(&log), IntakeRules::default(), storm));
        let view = Arc::new(FleetView::new(Arc::clone(&ports.scheduler), Arc::clone(&clock), terms.layout()));
        let switches = SwitchGate::new(Arc::clone(&log), Arc::clone(&intake));
        let playbooks = ByFault::newest(mutants::decoy().iter().chain([&*self.playbook]));
        let gate: Arc<dyn Gate> = Arc::new(PolicyGate::new(
            switches,
            Arc::new(terms.policy.clone()),
            Arc::clone(&view),
            Arc::new(playbooks.clone()),
            journal,
            clock,
        ));
        let mut engine = Engine::new(ports, config(name), Arc::clone(&self.render))
            .with_gate(mutants::gate(self.mutant, gate))
            .with_observer(Arc::new(bell));
        if self.mutant == Some(Mutant::ActsInShadow) {
            engine = engine.with_last_metre(Arc::new(mutants::Replaced));
        }
        Ok(Parts { engine, log, intake, view, playbooks })
    }

    /// Starts an engine process with the policy that is in force.
    async fn start(self: &Arc<Self>, index: usize) -> Result<(), FleetError> {
        let (terms, group, name) = {
            let mut state = lock(&self.state);
            state.generation += 1;
            let name = format!("engine{index}.{}", state.generation);
            let Some(terms) = state.terms.clone() else { return Ok(()) };
            state.bound.insert(name.clone(), Arc::clone(&terms));
            (terms, Group(state.generation), name)
        };
        let journal = self.journals[journal_of(index)].reopen();
        let parts = self.parts(index, journal_of(index), &terms, name, Some(journal.clone())).await?;
        let spawn: Arc<dyn Spawn> = Arc::new(OfGroup(self.spawner.clone(), group));
        let selection = Selection {
            selector: Arc::new(Model { seed: self.seed, clock: self.clock.clone() }),
            settle: mutants::settled_by(self.mutant),
            ..Selection::default()
        };
        let dispatcher = Dispatcher::selecting(
            selection,
            parts.engine,
            Arc::clone(&parts.intake),
            parts.log,
            Arc::new(parts.playbooks),
            spawn,
            DispatcherConfig {
                // Both processes of a site plan under one name, as two of one service do.
                name: AGENT.to_owned(),
                round: SignedDuration::from_secs(90),
                plan_again: SignedDuration::from_mins(10),
                ..DispatcherConfig::default()
            },
        );
        self.world.bind_engine(index, Some(terms.limits));
        let process = Process { group, journal, intake: Arc::clone(&parts.intake) };
        lock(&self.state).running[index] = Some(process);
        let (view, intake, clock) = (parts.view, parts.intake, self.clock.clone());
        self.spawner.spawn_in(group, format!("engine {index}"), async move {
            // Which nodes there are is asked until slurmctld answers.
            loop {
                if let Some(shape) = shape_of(&view.fresh().await) {
                    intake.set_shape(Arc::new(shape));
                    break;
                }
                clock.sleep(SignedDuration::from_secs(15)).await;
            }
            // A dispatcher ends only with its process.
            drop(dispatcher.run().await);
        });
        Ok(())
    }

    /// Ends an engine process; another one takes over some time later.
    pub(super) fn die(&self, index: usize, in_write: bool, down: SignedDuration) {
        let process = {
            let mut state = lock(&self.state);
            let Some(process) = state.running.get_mut(index).and_then(Option::take) else { return };
            if in_write {
                state.deaths_in_write += 1;
            } else {
                state.deaths_between += 1;
            }
            process
        };
        process.journal.kill();
        self.spawner.end(process.group);
        self.world.bind_engine(index, None);
        let Some(office) = self.me.upgrade() else { return };
        self.spawner.spawn(format!("restart of engine {index}"), async move {
            office.clock.sleep(down).await;
            if !lock(&office.state).over {
                // A journal in memory can always be opened; were it not so, the engine would stay away.
                drop(office.start(index).await);
            }
        });
    }

    /// How long an engine is away that dies now.
    pub(super) fn downtime(&self) -> SignedDuration {
        let at = self.clock.now().as_second() as u64;
        SignedDuration::from_secs(5 + (mix(self.seed, "down", at) % 240) as i64)
    }

    /// Starts every engine anew, one after another.
    pub(super) async fn roll(&self) {
        for engine in 0..ENGINES {
            self.die(engine, false, SignedDuration::from_secs(3));
            self.clock.sleep(SignedDuration::from_secs(10)).await;
        }
    }

    /// Ends everything.
    pub(super) fn close(&self) {
        let processes = {
            let mut state = lock(&self.state);
            state.over = true;
            std::mem::take(&mut state.running)
        };
        for process in processes.into_iter().flatten() {
            process.journal.kill();
            self.spawner.end(process.group);
        }
    }

    /// Returns the intake of an engine, or of its neighbour where it is away.
    pub(super) fn intake(&self, engine: usize) -> Option<Arc<Intake>> {
        let state = lock(&self.state);
        let running = |i: usize| state.running.get(i).and_then(|p| p.as_ref()).map(|p| Arc::clone(&p.intake));
        running(engine).or_else(|| if engine == ELSEWHERE { None } else { running(1 - engine) })
    }

    /// Returns the terminal on a journal.
    pub(super) fn desk(&self, place: usize) -> Option<Desk> {
        lock(&self.state).desks.get(place).cloned().flatten()
    }

    /// Counts a case as open, before anybody works on it.
    pub(super) fn begin_case(&self) {
        lock(&self.state).open += 1;
    }

    /// Lets people know of an incident.
    pub(super) fn know(&self, node: &NodeName, incident: &Incident) {
        let mut state = lock(&self.state);
        state.incidents.insert(node.clone(), incident.clone());
        state.alerted.insert((node.clone(), incident.gpu));
    }

    pub(super) fn end_case(&self) {
        lock(&self.state).open -= 1;
    }

    pub(super) fn open_cases(&self) -> usize {
        lock(&self.state).open
    }

    /// Finds the last incident of a node.
    pub(super) fn incident_on(&self, node: &NodeName) -> Option<Incident> {
        lock(&self.state).incidents.get(node).cloned()
    }

    /// Returns `(trips, stops, releases, dropped)` of all journals, and how often a run waited at the gate.
    pub(super) fn counted(&self) -> ([u64; 4], u64) {
        let state = lock(&self.state);
        let sum = |of: fn(&Stops) -> u64| state.stops.iter().map(of).sum();
        ([sum(|s| s.trips), sum(|s| s.by_people), sum(|s| s.releases), sum(|s| s.dropped)], state.deferred)
    }

    /// Returns how many engines died in a write and between two.
    pub(super) fn deaths(&self) -> (u64, u64) {
        let state = lock(&self.state);
        (state.deaths_in_write, state.deaths_between)
    }

    /// Returns the terminals on every journal.
    pub(super) fn desks(&self) -> Vec<Desk> {
        lock(&self.state).desks.iter().flatten().cloned().collect()
    }

    /// Turns what a person stops into a scope.
    pub(super) fn scope(&self, what: super::agenda::What) -> Option<Scope> {
        use super::agenda::What;
        Some(match what {
            What::Fleet => Scope::Fleet,
            What::Partition => Scope::Partition("gpu".to_owned()),
            What::Playbook => Scope::Playbook(self.playbook.reference.id.clone()),
            What::Node(place) => Scope::Node(self.world.node_names_at(place)?),
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

fn config(engine: String) -> EngineConfig {
    EngineConfig { engine, poll: SignedDuration::from_mins(1), ..EngineConfig::default() }
}
