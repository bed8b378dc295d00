//! The whole state of a simulated world, its event queue, its history and its rule book.

use super::budget::BudgetBook;
use super::config::{KeepLog, SimConfig};
use super::control::Controller;
use super::events::Happening;
use super::gpu::SimGpu;
use super::jobs::SimJob;
use super::log::{LogEntry, Who};
use super::node::SimNode;
use super::rules::{Intents, Violation};
use super::script::{Reaction, Trigger};
use engine_core::model::NodeName;
use jiff::{SignedDuration, Timestamp};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::task::Waker;

/// A reservation.
#[derive(Debug, Clone)]
pub(crate) struct SimReservation {
    pub(crate) node: usize,
    pub(crate) start: Timestamp,
    /// The exact time at which it was made.
    pub(crate) made: Timestamp,
    pub(crate) end: Timestamp,
    pub(crate) user: String,
    /// Tells a reservation from an earlier one of the same name.
    pub(crate) serial: u64,
}

/// A reset that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetRecord {
    /// When it took effect.
    pub at: Timestamp,
    /// On which node.
    pub node: NodeName,
    /// GPU index.
    pub gpu: u32,
    /// The run that asked for it.
    pub run: Option<String>,
    /// Whether the GPU was well afterwards.
    pub cured: bool,
}

/// What happened in a world, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct WorldCounts {
    /// Resets of GPUs that were carried out.
    pub resets: u64,
    /// Those after which the GPU was well.
    pub cures: u64,
    /// Jobs that ended with success.
    pub jobs_finished: u64,
    /// Jobs that died of broken hardware.
    pub jobs_lost_to_hardware: u64,
    /// Jobs that ended because of something an engine did.
    pub jobs_lost_to_engine: u64,
}

impl WorldCounts {
    /// Adds another world's.
    pub fn add(&mut self, other: &Self) {
        self.resets += other.resets;
        self.cures += other.cures;
        self.jobs_finished += other.jobs_finished;
        self.jobs_lost_to_hardware += other.jobs_lost_to_hardware;
        self.jobs_lost_to_engine += other.jobs_lost_to_engine;
    }
}

/// Notes of one kind that a world keeps whole; beyond that it counts.
const KEPT: usize = 4_096;

/// A foreign change inside the window that Slurm leaves between a check and a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaceNote {
    /// When the engine's write took effect.
    pub at: Timestamp,
    /// On which node.
    pub node: NodeName,
    /// What met what.
    pub what: String,
}

/// Somebody who sleeps in virtual time.
#[derive(Debug)]
pub(crate) struct Sleeper {
    pub(crate) seat: Option<u64>,
    pub(crate) waker: Waker,
}

pub(crate) struct Inner {
    pub(crate) cfg: SimConfig,
    pub(crate) now: Timestamp,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) rng_load: ChaCha8Rng,
    pub(crate) serial: u64,
    pub(crate) queue: BTreeMap<(Timestamp, u64), Happening>,
    pub(crate) nodes: Vec<SimNode>,
    pub(crate) by_name: BTreeMap<String, usize>,
    pub(crate) jobs: BTreeMap<u64, SimJob>,
    /// Jobs that wait for a place, oldest first.
    pub(crate) waiting: BTreeSet<u64>,
    pub(crate) next_job: u64,
    pub(crate) jobs_done: usize,
    pub(crate) jobs_broken: usize,
    pub(crate) keep_free: BTreeSet<usize>,
    pub(crate) reservations: BTreeMap<String, SimReservation>,
    pub(crate) controller: Controller,
    pub(crate) log: VecDeque<LogEntry>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) intents: Intents,
    /// The book of the budgets, in worlds where a policy stands before the engines.
    pub(crate) budgets: Option<BudgetBook>,
    /// Nodes with runs in shadow that are not over, and how many.
    pub(crate) shadows: BTreeMap<usize, u32>,
    /// Runs that were proposed so far.
    pub(crate) runs: u64,
    pub(crate) races: Vec<RaceNote>,
    pub(crate) race_count: u64,
    reset_count: u64,
    cure_count: u64,
    pub(crate) lost_jobs: Vec<u64>,
    pub(crate) reactions: Vec<Reaction>,
    pub(crate) resets: Vec<ResetRecord>,
    pub(crate) sleepers: BTreeMap<(Timestamp, u64), Sleeper>,
    /// How many sleeps each participant has open.
    pub(crate) sleeping: HashMap<u64, u32>,
    /// The participant that the driver polls now.
    pub(crate) seat: Option<u64>,
}

impl Inner {
    pub(crate) fn new(cfg: SimConfig) -> Self {
        let mut nodes = Vec::with_capacity(cfg.nodes);
        let mut by_name = BTreeMap::new();
        for place in 0..cfg.nodes {
            let Ok(name) = NodeName::new(&format!("gpu{:03}", place + 1)) else { continue };
            by_name.insert(name.as_str().to_owned(), place);
            let gpus = (0..cfg.gpus_per_node).map(|i| SimGpu::new(place, i)).collect();
            nodes.push(SimNode::new(name, gpus, cfg.start));
        }
        let keep_free = cfg.load.as_ref().map(|l| l.keep_free.clone()).unwrap_or_default();
        let mut world = Self {
            now: cfg.start,
            rng: ChaCha8Rng::seed_from_u64(cfg.seed),
            rng_load: ChaCha8Rng::seed_from_u64(cfg.seed ^ 0x10ad),
            serial: 0,
            queue: BTreeMap::new(),
            nodes,
            by_name,
            jobs: BTreeMap::new(),
            waiting: BTreeSet::new(),
            next_job: 1_000,
            jobs_done: 0,
            jobs_broken: 0,
            keep_free,
            reservations: BTreeMap::new(),
            controller: Controller::default(),
            log: VecDeque::new(),
            violations: Vec::new(),
            intents: None,
            budgets: None,
            shadows: BTreeMap::new(),
            runs: 0,
            races: Vec::new(),
            race_count: 0,
            reset_count: 0,
            cure_count: 0,
            lost_jobs: Vec::new(),
            reactions: Vec::new(),
            resets: Vec::new(),
            sleepers: BTreeMap::new(),
            sleeping: HashMap::new(),
            seat: None,
            cfg,
        };
        world.begin_load();
        world
    }

    pub(crate) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(crate) fn push(&mut self, at: Timestamp, what: Happening) {
        let serial = self.next_serial();
        self.queue.insert((at, serial), what);
    }

    pub(crate) fn push_in(&mut self, delay: SignedDuration, what: Happening) {
        self.push(later(self.now, delay), what);
    }

    pub(crate) fn find(&self, node: &NodeName) -> Option<usize> {
        self.by_name.get(node.as_str()).copied()
    }

    pub(crate) fn note(&mut self, who: &Who, node: Option<usize>, what: impl Into<String>) {
        let name = node.map(|n| self.nodes[n].name.clone());
        let entry = LogEntry { at: self.now, who: who.clone(), node: name, what: what.into() };
        let (list, limit) = match (self.cfg.keep_log, node) {
            (KeepLog::All, _) => (&mut self.log, usize::MAX),
            (KeepLog::PerNode(limit), None) => (&mut self.log, limit),
            (KeepLog::PerNode(limit), Some(n)) => (&mut self.nodes[n].log, limit),
        };
        if list.len() >= limit {
            list.pop_front();
        }
        list.push_back(entry);
    }

    pub(crate) fn race(&mut self, node: usize, what: String) {
        self.note(&Who::Engine, Some(node), format!("race: {what}"));
        self.race_count += 1;
        if self.races.len() < KEPT {
            self.races.push(RaceNote { at: self.now, node: self.nodes[node].name.clone(), what });
        }
    }

    /// Gives the chance of a node, or that of the controller: each node has its own, so that what happens to it does
    /// not depend on what happens elsewhere.
    pub(crate) fn luck(&mut self, node: Option<usize>) -> &mut ChaCha8Rng {
        let seed = self.cfg.seed;
        match node.and_then(|n| self.nodes.get_mut(n).map(|node| (n, node))) {
            Some((n, node)) => node.rng.get_or_insert_with(|| Box::new(node_rng(seed, n, 0))),
            None => &mut self.rng,
        }
    }

    /// Keeps a reset that was carried out.
    pub(crate) fn keep_reset(&mut self, reset: ResetRecord) {
        self.reset_count += 1;
        self.cure_count += u64::from(reset.cured);
        if self.resets.len() < KEPT {
            self.resets.push(reset);
        }
    }

    pub(crate) fn counts(&self) -> WorldCounts {
        WorldCounts {
            resets: self.reset_count,
            cures: self.cure_count,
            jobs_finished: self.jobs_done as u64,
            jobs_lost_to_hardware: self.jobs_broken as u64,
            jobs_lost_to_engine: self.jobs_lost_to_engine() as u64,
        }
    }

    /// Draws a duration from a range of milliseconds.
    pub(crate) fn draw_ms(&mut self, node: Option<usize>, range: &RangeInclusive<i64>) -> SignedDuration {
        SignedDuration::from_millis(self.luck(node).random_range(range.clone()))
    }

    /// Draws with a probability; no draw is made for zero, so that quiet worlds stay comparable.
    pub(crate) fn chance(&mut self, node: Option<usize>, probability: f64) -> bool {
        probability > 0.0 && self.luck(node).random_bool(probability.min(1.0))
    }

    /// Lets the scripts that wait for this deed of the engine begin.
    pub(crate) fn react(&mut self, node: usize, trigger: Trigger) {
        let name = self.nodes[node].name.clone();
        if !self.reactions.iter().any(|r| r.node == name && r.trigger == trigger) {
            return;
        }
        let (due, rest): (Vec<Reaction>, Vec<Reaction>) =
            self.reactions.drain(..).partition(|r| r.node == name && r.trigger == trigger);
        self.reactions = rest;
        for r in due {
            self.push_in(r.delay, Happening::Do(r.script));
        }
    }

    /// Finds the time of what happens next, to the world or to a sleeper.
    pub(crate) fn next_time(&self) -> Option<Timestamp> {
        let event = self.queue.first_key_value().map(|((at, _), _)| *at);
        let sleeper = self.sleepers.first_key_value().map(|((at, _), _)| *at);
        match (event, sleeper) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Moves to what happens next and lets it happen; returns the sleepers to wake, in their order.
    pub(crate) fn step(&mut self) -> Vec<Waker> {
        let Some(next) = self.next_time() else { return Vec::new() };
        self.now = self.now.max(next);
        let mut happened = false;
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let what = entry.remove();
            self.happen(what);
            happened = true;
        }
        if happened {
            self.place_jobs();
        }
        let mut wakers = Vec::new();
        while let Some(entry) = self.sleepers.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let sleeper = entry.remove();
            release(&mut self.sleeping, sleeper.seat);
            wakers.push(sleeper.waker);
        }
        wakers
    }
}

/// Builds the chance of a node for one purpose.
pub(crate) fn node_rng(seed: u64, node: usize, purpose: u64) -> ChaCha8Rng {
    let mixed = seed
        ^ (node as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ purpose.wrapping_mul(0xd1b5_4a32_d192_ed03);
    ChaCha8Rng::seed_from_u64(mixed)
}

/// Adds a duration to a time; the end of time stays the end of time.
pub(crate) fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// Counts one sleep of a participant less.
pub(crate) fn release(sleeping: &mut HashMap<u64, u32>, seat: Option<u64>) {
    let Some(seat) = seat else { return };
    if let Some(count) = sleeping.get_mut(&seat) {
        *count -= 1;
        if *count == 0 {
            sleeping.remove(&seat);
        }
    }
}

/// Cuts a time to the second, as Slurm stores it.
pub(crate) fn to_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
