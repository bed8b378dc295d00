//! Two engines, each with a journal of its own, on one Slurm: the MAINT reservation decides, and no node ever has two runs.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop at once, as tests do")]

use engine_core::model::{NodeName, RunId};
use engine_core::run::{Actor, Effect, Event, EventKind, OutcomeKind, Resolution};
use engine_core::value::Value;
use engine_playbook::{Library, Renderer};
use engine_runtime::engine::{Alert, Engine, EngineConfig, Ports, ProposeRequest, Rest};
use engine_runtime::journal::{Journal, MemoryJournal};
use engine_runtime::ports::Clock;
use engine_testkit::ports::{SeededIds, SimActuator, SimClock, SimScheduler, SimTelemetry};
use engine_testkit::time::{SimRuntime, Spawner};
use engine_testkit::world::{Fault, HiccupRates, Script, SimConfig, SimWorld};
use jiff::{SignedDuration, Timestamp};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

const NODES: usize = 4;
const ROUNDS: usize = 3;
const SEEDS: u64 = 40;

fn secs(n: i64) -> SignedDuration {
    SignedDuration::from_secs(n)
}

/// A time during which a run had its node for itself, as its own journal tells it.
#[derive(Debug)]
struct Stay {
    engine: usize,
    run: RunId,
    node: NodeName,
    from: Timestamp,
    until: Timestamp,
}

/// Reads when a run had its lock: from the outcome that says so to the intent of giving it back, or to its end.
fn stay(engine: usize, events: &[Event]) -> Option<Stay> {
    let EventKind::Proposed { plan, .. } = &events.first()?.kind else { return None };
    let locked = |e: &&Event| match &e.kind {
        EventKind::Finished { effect: Effect::Lock, outcome, .. } => outcome.kind == OutcomeKind::Succeeded,
        EventKind::Resolved { effect: Effect::Lock, resolution, .. } => *resolution == Resolution::Applied,
        _ => false,
    };
    let over = |e: &&Event| {
        matches!(&e.kind, EventKind::Intent { effect: Effect::Unlock, .. } | EventKind::Ended { .. })
    };
    Some(Stay {
        engine,
        run: plan.run.clone(),
        node: plan.target.node.clone(),
        from: events.iter().find(locked)?.at,
        until: events.iter().find(over).map_or(Timestamp::MAX, |e| e.at),
    })
}

/// Sees a fault now and then, plans, says yes, and lets the engine drive; whatever comes of it.
async fn tend(engine: Engine, clock: SimClock, node: NodeName, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let library = Library::embedded();
    let playbook = library.find("dcgm-ecc-drain-reset").unwrap();
    for round in 0..ROUNDS {
        // Both engines hear of the fault at about the same moment.
        let next = secs(60 + 1800 * round as i64) + SignedDuration::from_millis(rng.random_range(0..4000));
        let start: Timestamp = START.parse().unwrap();
        clock.sleep_until(start + next).await;
        for _ in 0..4 {
            let request = ProposeRequest {
                playbook,
                node: node.clone(),
                gpu: Some("0".to_owned()),
                params: [("idle_wait".to_owned(), Value::Duration(secs(600)))].into(),
                alert: Alert { id: format!("exporter-{node}"), last_seen: None },
                initiator: Actor::program("watch", None),
            };
            let Ok(proposal) = engine.plan(request).await else { continue };
            let Ok(state) = engine.record_plan(proposal).await else { continue };
            let thinks = SignedDuration::from_millis(rng.random_range(500..3000));
            for _ in 0..20 {
                match engine.drive(&state.run).await.unwrap() {
                    Rest::Over(_) => break,
                    Rest::Deferred => clock.sleep(secs(30)).await,
                    Rest::AwaitsApproval => {
                        clock.sleep(thinks).await;
                        engine.approve(&state.run, Actor::person("oncall")).await.unwrap();
                    }
                }
            }
            clock.sleep(SignedDuration::from_millis(rng.random_range(0..90_000))).await;
        }
    }
}

const START: &str = "2026-01-05T08:00:00Z";

/// Plays one seed. Returns how often a node was taken, how often a run found it taken, and what was wrong.
async fn play(seed: u64) -> (usize, usize, Vec<String>) {
    let mut config = SimConfig::new(NODES, seed, START.parse().unwrap());
    if seed % 2 == 1 {
        config.hiccups = HiccupRates {
            write_applied_later: 0.08,
            write_lost: 0.05,
            slow: 0.10,
            read_fails: 0.03,
            read_empty: 0.03,
        };
    }
    let world = SimWorld::new(config);
    for round in 0..ROUNDS {
        for node in world.node_names() {
            let at = world.now() + secs(30 + 1800 * round as i64);
            world.schedule(at, Script::Fault { node, gpu: 0, fault: Fault::EccDbe });
        }
    }
    let spawner = Spawner::default();
    let journals: Vec<Arc<dyn Journal>> =
        vec![Arc::new(MemoryJournal::new()), Arc::new(MemoryJournal::new())];
    for (who, journal) in journals.iter().enumerate() {
        let ports = Ports {
            scheduler: Arc::new(SimScheduler::new(&world)),
            actuator: Arc::new(SimActuator::new(&world)),
            telemetry: Some(Arc::new(SimTelemetry::new(&world))),
            clock: Arc::new(SimClock::new(&world)),
            ids: Arc::new(SeededIds::new(seed * 2 + who as u64)),
            journal: Arc::clone(journal),
        };
        let engine = Engine::new(ports, EngineConfig::default(), Arc::new(Renderer::new()));
        for (n, node) in world.node_names().into_iter().enumerate() {
            let name = format!("engine {who} on {node}");
            let seed = seed << 8 | (n as u64) << 1 | who as u64;
            spawner.spawn(name, tend(engine.clone(), SimClock::new(&world), node, seed));
        }
    }
    let clock = SimClock::new(&world);
    let whole = async { clock.sleep(secs(1800 * (ROUNDS as i64 + 3))).await };
    SimRuntime::new(&world).run_with(&spawner, whole, &mut |_| {}).await.unwrap();
    judge(&journals, seed, &world).await
}

async fn judge(journals: &[Arc<dyn Journal>], seed: u64, world: &SimWorld) -> (usize, usize, Vec<String>) {
    let mut stays: BTreeMap<NodeName, Vec<Stay>> = BTreeMap::new();
    let (mut taken, mut met) = (0, 0);
    let mut wrong: Vec<String> = world.violations().iter().map(|v| format!("seed {seed}: {v}")).collect();
    for (engine, journal) in journals.iter().enumerate() {
        for line in journal.runs(None, false, 10_000).await.unwrap() {
            let events = journal.load(&line.run).await.unwrap();
            if !line.status.is_terminal() {
                wrong.push(format!("seed {seed}: run {} of engine {engine} has no end", line.run));
            }
            if let Some(stay) = stay(engine, &events) {
                taken += 1;
                stays.entry(stay.node.clone()).or_default().push(stay);
            }
            met += usize::from(line.why.contains("exists already"));
        }
        assert_eq!(journal.verify().await.unwrap().broken, None);
    }
    for all in stays.values_mut() {
        all.sort_by_key(|s| s.from);
        for pair in all.windows(2) {
            if let [a, b] = pair
                && b.from < a.until
            {
                wrong.push(format!(
                    "seed {seed}: on {} run {} of engine {} from {} to {} and run {} of engine {} from {} to {}",
                    a.node, a.run, a.engine, a.from, a.until, b.run, b.engine, b.from, b.until
                ));
            }
        }
    }
    (taken, met, wrong)
}

#[tokio::test]
async fn two_journals_on_one_slurm_never_have_two_runs_on_one_node() {
    let (mut taken, mut met, mut found) = (0, 0, Vec::new());
    for seed in 0..SEEDS {
        let (t, m, wrong) = play(seed).await;
        taken += t;
        met += m;
        found.extend(wrong);
    }
    assert!(found.is_empty(), "{} findings in {SEEDS} seeds\n{}", found.len(), found.join("\n"));
    println!("{SEEDS} seeds: nodes were taken {taken} times, and found taken {met} times");
    let due = SEEDS as usize;
    assert!(taken > due && met > due, "{taken} {met}: the engines do not meet, the test shows too little");
}
