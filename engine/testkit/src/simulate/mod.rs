//! The simulation at scale: the real engines on a simulated cluster for a simulated month, with faults at published rates,
//! people, jobs, a controller that stumbles, and engines that die. Every rule is checked at every event.
//!
//! Faults are discovered as an alert source does it, some time after they happen; nothing sweeps over the cluster, so
//! virtual time jumps from event to event.

mod agenda;
mod cases;
pub mod fleet;
mod many;
mod mortal;
pub mod rates;
mod report;
mod shrink;
mod site;
mod stage;

pub use many::{Progress, simulate_many};
pub use report::{FleetReport, Found, Report};
pub use shrink::{Trace, shrink};

use crate::mutants::Mutant;
use crate::time::{SimRuntime, Spawner, Stalled};
use crate::warden::Warden;
use crate::world::{KeepLog, Script, SimConfig, SimWorld};
use agenda::Item;
use engine_core::playbook::Playbook;
use engine_playbook::{FindError, Library, Renderer};
use engine_runtime::journal::{Journal as _, JournalError, MemoryJournal};
use engine_runtime::ports::Clock as _;
use jiff::{SignedDuration, Timestamp};
use site::Site;
use std::sync::Arc;
use std::time::Instant;

/// What to simulate.
#[derive(Debug, Clone, PartialEq)]
pub struct SimulateOptions {
    /// Nodes, with 8 GPUs each.
    pub nodes: usize,
    /// Virtual time in which things break, in hours.
    pub hours: u32,
    /// Seed: the same one tells the same story.
    pub seed: u64,
    /// Faults come this many times as often as published; 1 for the published rate.
    pub rate: f64,
    /// Only this node, and of it only this incident.
    pub only: Option<Only>,
    /// Engines that die at a time, beside those that die anyway: time since the start, and which engine.
    pub deaths: Vec<(SignedDuration, usize)>,
    /// Which part is simulated.
    pub part: Part,
    /// Of the part with the fleet layer, only what has these numbers happens.
    pub items: Option<Vec<usize>>,
    /// A guard that is broken on purpose, to see that the rules find what comes of it.
    pub mutant: Option<Mutant>,
}

/// The two parts of each seed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Both.
    #[default]
    Both,
    /// Engines on as many nodes as wanted, with nothing before them.
    Engines,
    /// A site of a few racks, with the whole fleet layer before its engines.
    Fleet,
}

/// A part of a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Only {
    /// The node, by its place from 0.
    pub node: usize,
    /// The incident of that node, from 1; `None` for all of them and for what people do there.
    pub incident: Option<u32>,
}

impl Default for SimulateOptions {
    fn default() -> Self {
        Self {
            nodes: 1_000,
            hours: 720,
            seed: 1,
            rate: 1.0,
            only: None,
            deaths: Vec::new(),
            part: Part::Both,
            items: None,
            mutant: None,
        }
    }
}

/// Why there was no simulation.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The simulation stood still.
    #[error("seed {seed}: {source}")]
    Stalled {
        /// The seed.
        seed: u64,
        /// Where.
        #[source]
        source: Stalled,
    },
    /// The playbook is not there.
    #[error("the built-in playbook {PLAYBOOK} could not be loaded")]
    Playbook(#[from] FindError),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The record of the fleet failed.
    #[error(transparent)]
    Fleet(#[from] engine_runtime::fleet::FleetError),
    /// The machine gave no runtime.
    #[error("the runtime could not be started")]
    Runtime(#[from] std::io::Error),
}

/// The playbook that is simulated, in its newest built-in version.
const PLAYBOOK: &str = "dcgm-ecc-drain-reset";
/// Entries of the history that are kept of each node.
const HISTORY: usize = 160;
/// Time after the last fault in which everything must come to its end.
const DRAIN: SignedDuration = SignedDuration::from_hours(60);

/// Keeps what simulated engines would warn of from the log of this process: their troubles are the story's.
fn quiet<T>(work: impl FnOnce() -> T) -> T {
    tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), work)
}

/// Simulates one seed.
pub async fn simulate(options: &SimulateOptions, progress: &Progress) -> Result<Report, SimulateError> {
    let mut report = Report { seeds: 1, ..Report::default() };
    if options.part != Part::Fleet {
        report.add(run(options, progress).await?.0);
    }
    // A replay of one node's story has no part in the other.
    if options.part != Part::Engines && options.only.is_none() {
        report.add(fleet::simulate(options, progress).await?.0);
    }
    Ok(report)
}

pub(crate) fn playbook() -> Result<Arc<Playbook>, FindError> {
    Ok(Arc::new(Library::embedded().find(PLAYBOOK)?.clone()))
}

/// Simulates one seed, and keeps the site to be looked at.
async fn run(
    options: &SimulateOptions,
    progress: &Progress,
) -> Result<(Report, Arc<Site>, Timestamp), SimulateError> {
    let began = Instant::now();
    let playbook = playbook()?;
    let world = SimWorld::new(config(options));
    let start = world.now();
    let spawner = Spawner::default();
    let site = Site::new(&world, &spawner, playbook, Arc::new(Renderer::new()), options);
    let items = agenda::draw(options);
    let director = direct(Arc::clone(&site), items, start, progress);
    let runtime = SimRuntime::new(&world);
    let mut on_step = |_| {};
    let (incidents, people) = runtime
        .run_with(&spawner, director, &mut on_step)
        .await
        .map_err(|source| SimulateError::Stalled { seed: options.seed, source })?;
    close(&site.world, &site.warden, &site.desks).await?;
    let report = report::sum_up(options, &site, incidents, people, began.elapsed());
    Ok((report, site, start))
}

/// Lets everything happen at its time, then waits until every case is over.
async fn direct(
    site: Arc<Site>,
    items: Vec<(SignedDuration, Item)>,
    start: Timestamp,
    progress: &Progress,
) -> (u64, u64) {
    let (mut incidents, mut people) = (0, 0);
    for (after, item) in items {
        let at = start.saturating_add(after).unwrap_or(Timestamp::MAX);
        if at > site.world.now() {
            site.clock.sleep_until(at).await;
        }
        progress.moved_to(after);
        match item {
            Item::Incident(incident) => {
                incidents += 1;
                people += u64::from(incident.meddler.is_some()) + u64::from(incident.cancel.is_some());
                progress.incident();
                let name = format!("incident {} of node {}", incident.number, incident.node);
                site.spawner.spawn(name, cases::live(Arc::clone(&site), *incident));
            }
            Item::Person(node, act) => {
                people += 1;
                let Some(node) = site.world.node_names_at(node) else { continue };
                site.world.schedule(at, act.script(&node));
                site.spawner.spawn("a person comes back", back_to_work(Arc::clone(&site), node));
            }
            Item::Outage(long, hangs) => {
                let script = if hangs { Script::ControllerHang(long) } else { Script::ControllerDown(long) };
                drop(site.world.run(script));
            }
            Item::Death(engine) => site.die(engine, None),
        }
    }
    let mut left = DRAIN.as_hours() * 6;
    while site.cases.len() > 0 && left > 0 {
        left -= 1;
        site.clock.sleep(SignedDuration::from_mins(10)).await;
    }
    // What is still on its way, and reservations that could not be deleted, come to their end.
    site.clock.sleep(SignedDuration::from_hours(8)).await;
    (incidents, people)
}

/// A person gives back what a person took out, some hours later.
async fn back_to_work(site: Arc<Site>, node: engine_core::model::NodeName) {
    site.clock.sleep(SignedDuration::from_hours(4)).await;
    if !stage::is_in_service(&site.world, &node)
        && !site.warden.is_busy(&node)
        && site.world.reason_run(&node).is_none()
    {
        let resume = crate::world::PersonAction::Resume { node };
        drop(site.world.person_now("admin1", resume));
    }
}

/// Checks what must hold when everything is over.
async fn close(world: &SimWorld, warden: &Warden, desks: &[MemoryJournal]) -> Result<(), SimulateError> {
    for (run, node, began) in warden.open_runs() {
        world.report(13, Some(&node), format!("run {run}, begun at {began}, is not over"));
    }
    for desk in desks {
        for lease in desk.leases().await? {
            world.report(7, lease.key.node(), format!("the lock of run {} is left", lease.run));
        }
        if let Some(broken) = desk.verify().await?.broken {
            world.report(1, None, format!("the journal does not hold together: {broken}"));
        }
    }
    for name in world.engine_reservations() {
        world.report(7, None, format!("reservation {name} is left"));
    }
    for (node, run) in world.drained_by_runs() {
        world.report(6, Some(&node), format!("the drain of run {run} stands and nobody stands for it"));
    }
    Ok(())
}

fn config(options: &SimulateOptions) -> SimConfig {
    let mut config = SimConfig::new(options.nodes, options.seed, start());
    config.hiccups = rates::HICCUPS;
    config.keep_log = KeepLog::PerNode(HISTORY);
    config
}

/// 2026-01-05T08:00:00Z, a Monday.
fn start() -> Timestamp {
    Timestamp::from_second(1_767_600_000).unwrap_or(Timestamp::UNIX_EPOCH)
}
