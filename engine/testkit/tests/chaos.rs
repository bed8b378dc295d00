//! The real engine among faults, people and a controller that lies: whatever happens, no rule of the constitution is
//! broken.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop at once, as tests do")]

use engine_core::model::NodeName;
use engine_core::run::{Effect, End, Event, EventKind, OutcomeKind};
use engine_playbook::{Library, Renderer};
use engine_runtime::engine::{Engine, EngineConfig, Ports};
use engine_runtime::journal::{Journal, MemoryJournal};
use engine_runtime::ports::Clock;
use engine_testkit::demo::orphan_drains;
use engine_testkit::oncall::{Outcome, Watch};
use engine_testkit::ports::{SeededIds, SimActuator, SimClock, SimScheduler, SimTelemetry};
use engine_testkit::simulate::{Progress, SimulateOptions, simulate_many};
use engine_testkit::time::{SimRuntime, Spawner};
use engine_testkit::warden::Warden;
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

/// People who come at any time, to any node.
fn passers_by(world: &SimWorld, rng: &mut ChaCha8Rng) {
    let nodes = world.node_names();
    for _ in 0..rng.random_range(0..6) {
        let node = nodes[rng.random_range(0..nodes.len())].clone();
        let at = world.now() + secs(rng.random_range(0..3_000));
        let script = person(rng, &node);
        world.schedule(at, script);
    }
}

fn engine(world: &SimWorld, journal: &MemoryJournal, name: &str, ids: u64) -> Engine {
    let ports = Ports {
        scheduler: Arc::new(SimScheduler::new(world)),
        actuator: Arc::new(SimActuator::new(world)),
        telemetry: Some(Arc::new(SimTelemetry::new(world))),
        clock: Arc::new(SimClock::new(world)),
        ids: Arc::new(SeededIds::new(ids)),
        journal: Arc::new(journal.clone()),
    };
    let config = EngineConfig { engine: name.to_owned(), ..EngineConfig::default() };
    Engine::new(ports, config, Arc::new(Renderer::new()))
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
    let warden = Arc::new(Warden::new(&world, EngineConfig::default().fact_max_age));
    let wanted = stage(&world, &mut rng);
    passers_by(&world, &mut rng);
    let journal = MemoryJournal::new();
    let playbook = Arc::new(Library::embedded().find("dcgm-ecc-drain-reset").unwrap().clone());
    let spawner = Spawner::default();
    // Two engine processes on one journal hear of the same faults and go for the same nodes (rule 7).
    let watches =
        [("one", journal.clone(), 0), ("two", journal.reopen(), 1_000)].map(|(name, process, ids)| {
            let engine = engine(&world, &process, name, seed + ids).with_observer(Arc::clone(&warden) as _);
            Watch::new(&world, engine, Arc::clone(&playbook), wanted.clone(), seed + ids, spawner.clone())
        });
    let all_outcomes = watches.each_ref().map(Watch::outcomes);
    let clock = SimClock::new(&world);
    let play = async move {
        let [one, two] = watches;
        tokio::join!(one.run(), two.run());
        clock.sleep(secs(120)).await;
    };
    SimRuntime::new(&world).run_with(&spawner, play, &mut |_| {}).await.unwrap();
    let mut wrong: Vec<String> = world.violations().iter().map(ToString::to_string).collect();
    let mut ends = BTreeMap::new();
    let mut merged = BTreeMap::new();
    for outcomes in all_outcomes {
        for ((node, gpu), o) in outcomes.lock().unwrap().clone() {
            match o.end {
                Some(end) => *ends.entry(end.as_str()).or_insert(0) += 1,
                // Only planning may give up: then nothing was begun.
                None if o.why.contains("could not be") || o.why.contains("is not known") => {}
                None => wrong.push(format!("{node} GPU {gpu}: no end: {}", o.why)),
            }
            let out = |o: &Outcome| matches!(o.end, Some(End::Held | End::Stuck | End::HandedOver) | None);
            let kept = merged.entry((node, gpu)).or_insert_with(|| o.clone());
            if out(&o) {
                *kept = o;
            }
        }
    }
    if world.jobs_lost_to_engine() > 0 {
        wrong.push(format!("{} jobs lost to the engine", world.jobs_lost_to_engine()));
    }
    for node in orphan_drains(&world, &merged) {
        wrong.push(format!("{node} carries a drain of ours without a run that stands for it"));
    }
    wrong.extend(left_behind(&world, &journal).await);
    (world, wrong, ends)
}

/// What no run may leave: a second reset, a lock of the journal, a reservation beyond its end, a broken journal.
async fn left_behind(world: &SimWorld, journal: &MemoryJournal) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut resets: BTreeMap<Option<String>, usize> = BTreeMap::new();
    for reset in world.resets() {
        *resets.entry(reset.run).or_insert(0) += 1;
    }
    let too_often = resets.into_iter().filter(|(run, n)| *n > 1 || run.is_none());
    wrong.extend(too_often.map(|(run, n)| format!("{n} resets by run {run:?}")));
    let open = journal.runs(None, true, 100).await.unwrap();
    wrong.extend(open.iter().map(|r| format!("run {} on {} is {}", r.run, r.node, r.status)));
    let leases = journal.leases().await.unwrap();
    wrong.extend(leases.iter().map(|l| format!("run {} still has its lock", l.run)));
    for r in world.reservations_view().iter().filter(|r| r.name.starts_with("slurmedic-")) {
        let ends = r.end.known().copied().unwrap_or(Timestamp::MAX);
        let longest = world.now() + SignedDuration::from_hours(8);
        let ended = journal.runs(r.nodes.known().and_then(|n| n.first()), false, 9).await.unwrap();
        // One that slurmctld would not let go, or made after it had timed out and was looked for, ends by itself; the
        // run says so.
        let mut told = false;
        for run in &ended {
            told |= cannot_know_its_lock(&journal.load(&run.run).await.unwrap());
        }
        if ends > longest || !told {
            wrong.push(format!("reservation {} is left until {ends}", r.name));
        }
    }
    if let Some(b) = journal.verify().await.unwrap().broken {
        wrong.push(format!("journal: {b}"));
    }
    wrong
}

fn cannot_know_its_lock(events: &[Event]) -> bool {
    let last = events.iter().rev().find_map(|e| match &e.kind {
        EventKind::Finished { effect: Effect::Unlock, outcome, .. } => Some(outcome.kind),
        EventKind::Resolved { effect: Effect::Unlock, .. } => Some(OutcomeKind::Ambiguous),
        _ => None,
    });
    let came_late = events.iter().any(|e| match &e.kind {
        EventKind::Finished { effect: Effect::Lock, outcome, .. } => outcome.kind == OutcomeKind::Ambiguous,
        _ => false,
    });
    came_late || last.is_some_and(|kind| kind != OutcomeKind::Succeeded)
}

/// The seeds, or the one that is to be replayed: `CHAOS_SEED=7`.
fn seeds() -> std::ops::Range<u64> {
    match std::env::var("CHAOS_SEED") {
        Ok(seed) => {
            let seed = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 0..40,
    }
}

#[tokio::test]
async fn no_rule_is_broken_whatever_happens() {
    let mut all: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut found = Vec::new();
    for seed in seeds() {
        let (world, wrong, ends) = storm(seed).await;
        for (end, n) in ends {
            *all.entry(end).or_insert(0) += n;
        }
        for w in wrong {
            let node = world.node_names().into_iter().find(|n| w.contains(n.as_str()));
            let about = |e: &&engine_testkit::world::LogEntry| node.is_some() && e.node == node;
            let story: Vec<String> = world.log().iter().filter(about).map(|e| format!("    {e}")).collect();
            found.push(format!("CHAOS_SEED={seed}: {w}\n{}", story.join("\n")));
        }
    }
    assert!(found.is_empty(), "{} findings\n{}", found.len(), found.join("\n"));
    if seeds().count() > 1 {
        for end in ["succeeded", "held", "rejected", "handed_over"] {
            assert!(all.get(end).is_some_and(|n| *n >= 3), "the storms are too tame: {all:?}");
        }
    }
}

/// Engines that die at random writes and between them, two on one journal and one on another, for two days at a time.
#[test]
fn no_rule_is_broken_when_engines_die() {
    let mut died = 0;
    for seed in seeds().take(12) {
        let options = SimulateOptions { nodes: NODES, hours: 48, seed, rate: 3_000.0, ..Default::default() };
        let report = simulate_many(&options, 1, 1, &Progress::default()).unwrap();
        let shown = serde_json::to_string_pretty(&report.found).unwrap();
        assert!(report.is_clean(), "CHAOS_SEED={seed}: {shown}");
        died += report.died_in_write + report.died_between;
    }
    assert!(died >= 5 || seeds().count() == 1, "too tame: {died} deaths");
}
