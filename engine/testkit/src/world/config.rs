//! What a simulated cluster is made of, and how fast its parts react.

use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// The make of a simulated cluster. The same configuration and the same scripts give the same history.
#[derive(Debug, Clone)]
pub struct SimConfig {
    /// Number of nodes, named `gpu001` and on.
    pub nodes: usize,
    /// GPUs of each node.
    pub gpus_per_node: u32,
    /// Seed of every random decision.
    pub seed: u64,
    /// Virtual time at which the world begins.
    pub start: Timestamp,
    /// Jobs that arrive by themselves; `None` for none.
    pub load: Option<LoadConfig>,
    /// How often the controller misbehaves by itself.
    pub hiccups: HiccupRates,
    /// How fast things go.
    pub timings: Timings,
    /// Release that the controller names.
    pub slurm_version: String,
    /// Version that DCGM names.
    pub dcgm_version: String,
    /// Version that the driver names.
    pub driver_version: String,
    /// User as which the engine writes to Slurm.
    pub engine_user: String,
    /// Probability that what was under way when its engine died takes effect all the same.
    pub outlives_engine: f64,
    /// Every write of the engine arrives a second time, this long after the first.
    pub writes_arrive_again: Option<SignedDuration>,
    /// How much history is kept.
    pub keep_log: KeepLog,
    /// A foreign change this short before the engine's write cannot be seen by anybody: Slurm has no
    /// compare-and-set. It is logged as a race, not as a violation.
    pub race_window: SignedDuration,
}

impl SimConfig {
    /// Builds a quiet cluster: no load, no hiccups, 8 GPUs a node.
    pub fn new(nodes: usize, seed: u64, start: Timestamp) -> Self {
        Self {
            nodes,
            gpus_per_node: 8,
            seed,
            start,
            load: None,
            hiccups: HiccupRates::default(),
            timings: Timings::default(),
            slurm_version: "22.05.8".to_owned(),
            dcgm_version: "4.6.0".to_owned(),
            driver_version: "570.172.08".to_owned(),
            engine_user: "root".to_owned(),
            outlives_engine: 0.5,
            writes_arrive_again: None,
            keep_log: KeepLog::All,
            race_window: SignedDuration::from_millis(250),
        }
    }
}

/// How much of the history of a world is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepLog {
    /// All of it, in one list.
    All,
    /// The last so many entries of each node, and of what is about none.
    PerNode(usize),
}

/// Jobs that arrive by themselves.
#[derive(Debug, Clone)]
pub struct LoadConfig {
    /// Mean time between arrivals.
    pub mean_gap: SignedDuration,
    /// Run time of a job in seconds.
    pub run_seconds: RangeInclusive<i64>,
    /// Nodes that get no load until the engine gives them back, by their place from 0.
    pub keep_free: BTreeSet<usize>,
    /// Jobs that run when the world begins.
    pub initial_jobs: usize,
}

/// Probabilities, per read or write, of a controller that misbehaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct HiccupRates {
    /// A write times out and is applied some seconds later.
    pub write_applied_later: f64,
    /// A write times out and is lost.
    pub write_lost: f64,
    /// A read or a write takes 1 to 8 seconds.
    pub slow: f64,
    /// A read fails.
    pub read_fails: f64,
    /// A read gives an empty answer.
    pub read_empty: f64,
}

/// How fast things go; the defaults are those measured on Slurm 22.05.8.
#[derive(Debug, Clone)]
pub struct Timings {
    /// A read of the controller.
    pub read: SignedDuration,
    /// A write to the controller.
    pub write: SignedDuration,
    /// MessageTimeout: after this a client gives up.
    pub client_timeout: SignedDuration,
    /// How long clients retry against a controller that is down.
    pub connect_retry: SignedDuration,
    /// COMPLETING after a job ends, in milliseconds.
    pub epilog_ms: RangeInclusive<i64>,
    /// NOT_RESPONDING after a resume, in milliseconds.
    pub answer_ms: RangeInclusive<i64>,
    /// From the death of slurmd to NOT_RESPONDING.
    pub silent_after: SignedDuration,
    /// From the death of slurmd to DOWN.
    pub down_after: SignedDuration,
    /// From the start of a reservation to its flags on the node.
    pub reservation_flags: SignedDuration,
    /// How long slurmctld keeps finished jobs (MinJobAge).
    pub min_job_age: SignedDuration,
    /// A reboot.
    pub reboot: SignedDuration,
    /// Node tools: one look at all GPUs.
    pub inspect: SignedDuration,
    /// Node tools: a reset with detach and restart of the DCGM engine, in milliseconds.
    pub reset_ms: RangeInclusive<i64>,
    /// Node tools: a diagnostic of level 1; each level more takes ten times as long.
    pub diag: SignedDuration,
    /// Node tools: a bundle of evidence.
    pub evidence: SignedDuration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            read: SignedDuration::from_millis(8),
            write: SignedDuration::from_millis(6),
            client_timeout: SignedDuration::from_secs(10),
            connect_retry: SignedDuration::from_secs(9),
            epilog_ms: 2_000..=9_000,
            answer_ms: 500..=4_000,
            silent_after: SignedDuration::from_secs(12),
            down_after: SignedDuration::from_secs(40),
            reservation_flags: SignedDuration::from_secs(3),
            min_job_age: SignedDuration::from_secs(300),
            reboot: SignedDuration::from_secs(90),
            inspect: SignedDuration::from_millis(900),
            reset_ms: 8_000..=20_000,
            diag: SignedDuration::from_secs(12),
            evidence: SignedDuration::from_secs(3),
        }
    }
}
