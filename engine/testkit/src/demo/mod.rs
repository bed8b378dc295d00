//! The demonstration: the real engine on a simulated cluster, with faults, jobs, people and a controller that stumbles.
//!
//! Nothing is decided here but what breaks and who interferes; what becomes of it is the engine's doing, and the
//! summary is counted from the world and from the journal.

mod feed;
mod script;
mod summary;

pub use feed::{Cell, DemoEvent, DemoKind, Frame, RunLine};
pub use script::Case;
pub use summary::{CaseResult, DemoSummary, JobCounts, JournalCounts, orphan_drains};

use crate::oncall::Watch;
use crate::ports::{SeededIds, SimActuator, SimClock, SimScheduler, SimTelemetry};
use crate::time::{Pace, SimRuntime, Spawner, Stalled};
use crate::world::{LoadConfig, SimConfig, SimWorld};
use engine_core::plan::Render;
use engine_playbook::{FindError, Library, Renderer};
use engine_runtime::engine::{Engine, EngineConfig, Ports};
use engine_runtime::journal::{Journal, JournalError, MemoryJournal};
use engine_runtime::ports::Clock;
use feed::Feed;
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// The least number of nodes on which the script has room.
pub const MIN_NODES: usize = script::MIN_NODES;

/// How the demonstration is run.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Nodes; at least [`MIN_NODES`].
    pub nodes: usize,
    /// Seed: the same seed gives the same history.
    pub seed: u64,
    /// Wall time that the whole may take, for people who watch; zero for as fast as it can be computed.
    pub watch_for: Duration,
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self { nodes: 64, seed: 1, watch_for: Duration::from_secs(25) }
    }
}

/// Sees the demonstration while it goes on.
pub trait DemoObserver {
    /// Hears of one event, in order.
    fn on_event(&mut self, event: &DemoEvent);
    /// Sees the cluster now and then.
    fn on_frame(&mut self, frame: &Frame);
}

/// Why there was no demonstration.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Too small.
    #[error("the demonstration needs at least {MIN_NODES} nodes, not {0}")]
    TooFewNodes(usize),
    /// The simulation stood still.
    #[error(transparent)]
    Stalled(#[from] Stalled),
    /// The playbook is not there.
    #[error("the built-in playbook {PLAYBOOK} could not be loaded")]
    Playbook(#[from] FindError),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The playbook that is shown, in its newest built-in version.
const PLAYBOOK: &str = "dcgm-ecc-drain-reset";
/// Virtual time between two frames.
const FRAME_EVERY: SignedDuration = SignedDuration::from_secs(2);
/// Time after the last run before the cluster is counted.
const SETTLE: SignedDuration = SignedDuration::from_secs(45);
/// About how long the script takes, to find the pace.
const SCRIPT_SECONDS: u32 = 1_000;

/// Runs the demonstration.
pub async fn demo(options: DemoOptions, observer: &mut dyn DemoObserver) -> Result<DemoSummary, DemoError> {
    if options.nodes < MIN_NODES {
        return Err(DemoError::TooFewNodes(options.nodes));
    }
    let playbook = Arc::new(Library::embedded().find(PLAYBOOK)?.clone());
    let render: Arc<dyn Render + Send + Sync> = Arc::new(Renderer::new());
    let cases = script::cases();
    let world = SimWorld::new(config(&options, &cases));
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
    let feed = Arc::new(Feed::new(&world, &cases));
    let ports = Ports {
        scheduler: Arc::new(SimScheduler::new(&world)),
        actuator: Arc::new(SimActuator::new(&world)),
        telemetry: Some(Arc::new(SimTelemetry::new(&world))),
        clock: Arc::new(SimClock::new(&world)),
        ids: Arc::new(SeededIds::new(options.seed)),
        journal: Arc::clone(&journal),
    };
    let engine_config =
        EngineConfig { engine: "demo".to_owned(), exporter_expected: true, ..EngineConfig::default() };
    let seen: Arc<dyn engine_runtime::engine::Observer> = Arc::clone(&feed) as _;
    let engine = Engine::new(ports, engine_config, render).with_observer(seen);

    let marks = script::stage(&world, &cases);
    let spawner = Spawner::default();
    let wanted = cases.iter().filter_map(|c| Some((c.node(&world)?, c.gpu))).collect();
    let watch = Watch::new(&world, engine, playbook, wanted, options.seed, spawner.clone());
    let outcomes = watch.outcomes();
    let pace = if options.watch_for.is_zero() {
        Pace::Fast
    } else {
        Pace::Watched {
            per_second: options.watch_for / SCRIPT_SECONDS,
            longest: Duration::from_millis(250),
            budget: options.watch_for,
        }
    };
    let mut next_frame = world.now();
    let mut on_step = |now: Timestamp| {
        for event in feed.take() {
            observer.on_event(&event);
        }
        if now >= next_frame {
            observer.on_frame(&feed.frame());
            next_frame = now.checked_add(FRAME_EVERY).unwrap_or(Timestamp::MAX);
        }
    };
    let clock = SimClock::new(&world);
    let play = async move {
        watch.run().await;
        // Whatever is still on its way, such as a write that timed out, arrives before anything is counted.
        clock.sleep(SETTLE).await;
    };
    SimRuntime::new(&world).with_pace(pace).run_with(&spawner, play, &mut on_step).await?;
    for event in feed.take() {
        observer.on_event(&event);
    }
    observer.on_frame(&feed.frame());
    let report = journal.verify().await?;
    Ok(summary::sum_up(&summary::Evidence {
        options: &options,
        world: &world,
        cases: &cases,
        marks: &marks,
        outcomes: &outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        report: &report,
    }))
}

fn config(options: &DemoOptions, cases: &[Case]) -> SimConfig {
    // 2026-01-05T08:00:00Z, a Monday.
    let start = Timestamp::from_second(1_767_600_000).unwrap_or(Timestamp::UNIX_EPOCH);
    let mut config = SimConfig::new(options.nodes, options.seed, start);
    config.load = Some(LoadConfig {
        mean_gap: SignedDuration::from_secs(8),
        run_seconds: 120..=900,
        keep_free: cases.iter().map(|c| c.place).collect(),
        initial_jobs: options.nodes,
    });
    config
}
