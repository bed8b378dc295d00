//! The real engine among faults, people and a controller that lies: whatever happens, no rule of the constitution is
//! broken.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop at once, as tests do")]

use engine_core::model::NodeName;
use engine_playbook::{Library, Renderer};
use engine_runtime::engine::{Engine, EngineConfig, Ports};
use engine_runtime::journal::{Journal, MemoryJournal};
use engine_runtime::ports::Clock;
use engine_testkit::demo::orphan_drains;
use engine_testkit::oncall::Watch;
use engine_testkit::ports::{SeededIds, SimActuator, SimClock, SimScheduler, SimTelemetry};
use engine_testkit::time::{SimRuntime, Spawner};
use engine_testkit::world::{
    Fault, HiccupRates, LoadConfig, PersonAction, Script, SimConfig, SimWorld, Trigger,
};
use jiff::{SignedDuration, Timestamp};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const NODES: usize = 12;

fn secs(n: i64) -> SignedDuration {
    SignedDuration::from_secs(n)
}

fn person(rng: &mut ChaCha8Rng, node: &NodeName) -> Script {
    let node = node.clone();
    let action = match rng.random_range(0..7) {
        0 => PersonAction::Drain { node, reason: "mine".into() },
        1 | 2 => PersonAction::SetReason { node, reason: "looking at it".into() },
        3 | 4 => PersonAction::Resume { node },
        5 => PersonAction::Reboot { node, asap: true, then_resume: rng.random_bool(0.5) },
        _ => PersonAction::Maintenance { name: format!("theirs-{node}"), node, duration: secs(1_800) },
    };
    Script::Person { login: "admin1".into(), action }
}

fn stage(world: &SimWorld, rng: &mut ChaCha8Rng) -> BTreeSet<(NodeName, u32)> {
    let start = world.now();
    let mut wanted = BTreeSet::new();
    for node in world.node_names() {
        if rng.random_bool(0.3) {
            continue;
        }
        let gpu = rng.random_range(0..8);
        let fault = match rng.random_range(0..10) {
            0 => Fault::StubbornEcc,
            1 => Fault::OffBus,
            2 => Fault::RemapFailure,
            _ => Fault::EccDbe,
        };
        let broken_at = start + secs(rng.random_range(30..600));
        world.schedule(broken_at, Script::Fault { node: node.clone(), gpu, fault });
        if rng.random_bool(0.15) {
            let applied = rng.random_bool(0.5);
            world.inject(&node, gpu, Fault::ResetHangs { applied }).unwrap();
        }
        if rng.random_bool(0.1) {
            world.schedule(broken_at + secs(60), Script::Slurmd { node: node.clone(), alive: false });
        }
        if rng.random_bool(0.5) {
            let triggers =
                [Trigger::EngineLocked, Trigger::EngineDrained, Trigger::EngineReset, Trigger::EngineResumed];
            let trigger = triggers[rng.random_range(0..4)];
            let delay = SignedDuration::from_millis(rng.random_range(0..60_000));
            let script = person(rng, &node);
            world.when(&node, trigger, delay, script);
        }
        wanted.insert((node, gpu));
    }
    wanted
}

async fn storm(seed: u64) -> (SimWorld, Vec<String>, BTreeMap<&'static str, usize>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut config = SimConfig::new(NODES, seed, "2026-01-05T08:00:00Z".parse::<Timestamp>().unwrap());
    config.load = Some(LoadConfig {
        mean_gap: secs(30),
        run_seconds: 60..=600,
        keep_free: BTreeSet::new(),
        initial_jobs: NODES / 2,
    });
    config.hiccups = HiccupRates {
        write_applied_later: 0.08,
        write_lost: 0.05,
        slow: 0.05,
        read_fails: 0.03,
        read_empty: 0.03,
    };
    let world = SimWorld::new(config);
    let wanted = stage(&world, &mut rng);
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
    let ports = Ports {
        scheduler: Arc::new(SimScheduler::new(&world)),
        actuator: Arc::new(SimActuator::new(&world)),
        telemetry: Some(Arc::new(SimTelemetry::new(&world))),
        clock: Arc::new(SimClock::new(&world)),
        ids: Arc::new(SeededIds::new(seed)),
        journal: Arc::clone(&journal),
    };
    let engine = Engine::new(ports, EngineConfig::default(), Arc::new(Renderer::new()));
    let playbook = Arc::new(Library::embedded().find("dcgm-ecc-drain-reset").unwrap().clone());
    let spawner = Spawner::default();
    let watch = Watch::new(&world, engine, playbook, wanted.clone(), seed, spawner.clone());
    let outcomes = watch.outcomes();
    let clock = SimClock::new(&world);
    let play = async move {
        watch.run().await;
        clock.sleep(secs(120)).await;
    };
    SimRuntime::new(&world).run_with(&spawner, play, &mut |_| {}).await.unwrap();
    let outcomes = outcomes.lock().unwrap().clone();
    let mut wrong: Vec<String> = world.violations().iter().map(ToString::to_string).collect();
    let mut ends = BTreeMap::new();
    for ((node, gpu), o) in &outcomes {
        match o.end {
            Some(end) => *ends.entry(end.as_str()).or_insert(0) += 1,
            // Only planning may give up: then nothing was begun.
            None if o.why.contains("could not be") || o.why.contains("is not known") => {}
            None => wrong.push(format!("{node} GPU {gpu}: no end: {}", o.why)),
        }
    }
    if world.jobs_lost_to_engine() > 0 {
        wrong.push(format!("{} jobs lost to the engine", world.jobs_lost_to_engine()));
    }
    for node in orphan_drains(&world, &outcomes) {
        wrong.push(format!("{node} carries a drain of ours without a run that stands for it"));
    }
    let report = journal.verify().await.unwrap();
    if let Some(b) = report.broken {
        wrong.push(format!("journal: {}", b.why));
    }
    (world, wrong, ends)
}

#[tokio::test]
async fn no_rule_is_broken_whatever_happens() {
    let mut all: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut found = Vec::new();
    for seed in 0..40 {
        let (world, wrong, ends) = storm(seed).await;
        for (end, n) in ends {
            *all.entry(end).or_insert(0) += n;
        }
        for w in wrong {
            let node = world.node_names().into_iter().find(|n| w.contains(n.as_str()));
            let about = |e: &&engine_testkit::world::LogEntry| node.is_some() && e.node == node;
            let story: Vec<String> = world.log().iter().filter(about).map(|e| format!("    {e}")).collect();
            found.push(format!(
                "seed {seed}: {w}
{}",
                story.join(
                    "
"
                )
            ));
        }
    }
    assert!(found.is_empty(), "{} findings\n{}", found.len(), found.join("\n"));
    for end in ["succeeded", "held", "rejected", "handed_over"] {
        assert!(all.get(end).is_some_and(|n| *n >= 3), "the storms are too tame: {all:?}");
    }
}
