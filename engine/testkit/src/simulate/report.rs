//! What a simulation came to, and the sum of many.

use super::site::Site;
use super::{Part, SimulateOptions};
use crate::world::{BudgetCounts, Violation, WorldCounts};
use jiff::SignedDuration;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// A rule that was broken, with the seed that breaks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// In which part of it.
    pub part: Part,
    /// The violation.
    pub violation: Violation,
}

/// What came of one simulation, or of many together.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Seeds simulated.
    pub seeds: u64,
    /// Simulated node-years.
    pub node_years: f64,
    /// Faults, silent nodes and maintenance: everything that broke.
    pub incidents: u64,
    /// Runs by their end.
    pub ends: BTreeMap<&'static str, u64>,
    /// Runs in all.
    pub runs: u64,
    /// Alerts of which no plan could be made: nothing readable, or no GPU there.
    pub unplanned: u64,
    /// Events that engines wrote.
    pub events: u64,
    /// Changes by people.
    pub people: u64,
    /// Changes that met a write of an engine inside the window that Slurm leaves open.
    pub races: u64,
    /// Engines that died in a write to their journal.
    pub died_in_write: u64,
    /// Engines that died between two writes.
    pub died_between: u64,
    /// What happened in the world.
    pub world: WorldCounts,
    /// What of it went through the whole fleet layer.
    pub fleet: FleetReport,
    /// Violations, by rule.
    pub violations: BTreeMap<u8, u64>,
    /// The first violation of each rule.
    #[serde(skip)]
    pub first_of: BTreeMap<u8, Violation>,
    /// The first violations, with their seeds.
    pub found: Vec<Found>,
    /// Wall time of the simulations, added up over the threads, in seconds.
    pub thread_seconds: f64,
}

/// What went through the whole fleet layer: intake, incidents, dispatcher, policy, budgets, breakers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FleetReport {
    /// Faults, silent nodes and maintenance.
    pub incidents: u64,
    /// Runs.
    pub runs: u64,
    /// Times a run was told to wait: budgets, rates, stops, locks.
    pub waits: u64,
    /// Policies that were in force.
    pub policies: u64,
    /// Breakers that tripped.
    pub trips: u64,
    /// Stops by people.
    pub stops: u64,
    /// Releases.
    pub releases: u64,
    /// Releases that dropped the work that waited.
    pub dropped: u64,
    /// What the book of the budgets counted.
    pub budgets: BudgetCounts,
}

impl FleetReport {
    fn add(&mut self, other: &Self) {
        self.incidents += other.incidents;
        self.runs += other.runs;
        self.waits += other.waits;
        self.policies += other.policies;
        self.trips += other.trips;
        self.stops += other.stops;
        self.releases += other.releases;
        self.dropped += other.dropped;
        self.budgets.add(&other.budgets);
    }
}

/// Violations that are kept whole.
const FOUND: usize = 20;

impl Report {
    /// Adds another report.
    pub fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.node_years += other.node_years;
        self.incidents += other.incidents;
        self.runs += other.runs;
        self.unplanned += other.unplanned;
        self.events += other.events;
        self.people += other.people;
        self.races += other.races;
        self.died_in_write += other.died_in_write;
        self.died_between += other.died_between;
        self.thread_seconds += other.thread_seconds;
        self.world.add(&other.world);
        self.fleet.add(&other.fleet);
        for (end, n) in other.ends {
            *self.ends.entry(end).or_insert(0) += n;
        }
        for (rule, n) in other.violations {
            *self.violations.entry(rule).or_insert(0) += n;
        }
        for (rule, violation) in other.first_of {
            self.first_of.entry(rule).or_insert(violation);
        }
        self.found.extend(other.found);
        self.found.sort_by_key(|f| (f.seed, f.part, f.violation.at));
        self.found.truncate(FOUND);
    }

    /// Takes in what broke a rule in one part of one seed.
    pub(super) fn violated(&mut self, seed: u64, part: Part, all: Vec<Violation>) {
        for violation in all {
            *self.violations.entry(violation.rule).or_insert(0) += 1;
            self.first_of.entry(violation.rule).or_insert_with(|| violation.clone());
            if self.found.len() < FOUND {
                self.found.push(Found { seed, part, violation });
            }
        }
    }

    /// Says whether no rule was broken.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// Runs for each second of a thread.
    pub fn runs_per_thread_second(&self) -> f64 {
        if self.thread_seconds > 0.0 { self.runs as f64 / self.thread_seconds } else { 0.0 }
    }
}

/// Hours of a year.
pub(super) const YEAR_HOURS: f64 = 365.25 * 24.0;

pub(super) fn sum_up(
    options: &SimulateOptions,
    site: &Site,
    incidents: u64,
    people: u64,
    took: Duration,
) -> Report {
    let nodes = if options.only.is_some() { 1 } else { options.nodes };
    let ends = site.warden.ends();
    let deaths = site.deaths();
    let in_write = deaths.iter().filter(|d| d.run.is_some()).count() as u64;
    let mut report = Report {
        node_years: nodes as f64 * f64::from(options.hours) / YEAR_HOURS,
        incidents,
        runs: ends.values().sum(),
        ends,
        unplanned: site.cases.unplanned(),
        events: site.warden.events(),
        people,
        races: site.world.race_count(),
        died_in_write: in_write,
        died_between: deaths.len() as u64 - in_write,
        world: site.world.counts(),
        thread_seconds: took.as_secs_f64(),
        ..Report::default()
    };
    report.violated(options.seed, Part::Engines, site.world.violations());
    report
}

/// The deaths of engines in the writes of other nodes' runs, as they have to be repeated for one node alone.
pub(super) fn foreign_deaths(
    site: &Site,
    start: jiff::Timestamp,
    node: &str,
) -> Vec<(SignedDuration, usize)> {
    let of_node = |run: &str| run.split('-').nth(1) == Some(node);
    site.deaths()
        .iter()
        .filter(|d| d.run.as_ref().is_some_and(|r| !of_node(r.as_str())))
        .map(|d| (d.at.duration_since(start), d.engine))
        .collect()
}
