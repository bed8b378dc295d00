//! From a violation among ten thousand nodes to the smallest part of the simulation that still shows it.

use super::{Found, Only, Part, Progress, Report, SimulateError, SimulateOptions, fleet, quiet, report, run};
use crate::world::{LogEntry, Violation};
use engine_core::model::NodeName;

/// The smallest part of a simulation that shows a violation.
#[derive(Debug, Clone)]
pub struct Trace {
    /// What was broken, in that part.
    pub violation: Violation,
    /// How to see it again.
    pub options: SimulateOptions,
    /// What happened to the node, and to slurmctld, up to then.
    pub history: Vec<LogEntry>,
    /// What the runs on the node wrote: run, number and word of each event.
    pub journal: Vec<String>,
}

/// Simulates the seed of a finding again, then its node alone, then single incidents of it, as long as the same rule is
/// still broken on that node.
pub fn shrink(options: &SimulateOptions, found: &Found) -> Result<Option<Trace>, SimulateError> {
    if found.part == Part::Fleet {
        return fleet::shrink(options, found);
    }
    let whole = SimulateOptions { seed: found.seed, part: Part::Engines, ..options.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let mut best = attempt(&runtime, &whole, found)?;
    let Some(node) = &found.violation.node else { return Ok(best.map(|(t, _)| t)) };
    let Some((_, deaths)) = &best else { return Ok(None) };
    let deaths = deaths.clone();
    let Some(place) = place_of(node) else { return Ok(best.map(|(t, _)| t)) };
    let alone = |incident, deaths| SimulateOptions {
        only: Some(Only { node: place, incident }),
        deaths,
        ..whole.clone()
    };
    let mut smaller = attempt(&runtime, &alone(None, Vec::new()), found)?;
    if smaller.is_none() {
        smaller = attempt(&runtime, &alone(None, deaths), found)?;
    }
    if let Some((trace, _)) = smaller {
        let mut least = trace.options.clone();
        best = Some((trace, Vec::new()));
        for incident in (1..=MOST_INCIDENTS).rev() {
            least.only = Some(Only { node: place, incident: Some(incident) });
            if let Some(found) = attempt(&runtime, &least, found)? {
                best = Some(found);
                break;
            }
        }
    }
    Ok(best.map(|(t, _)| t))
}

/// Incidents of a node that are tried one by one.
const MOST_INCIDENTS: u32 = 64;

type Tried = Option<(Trace, Vec<(jiff::SignedDuration, usize)>)>;

/// Simulates a part; the trace where it breaks the same rule on the same node.
fn attempt(
    runtime: &tokio::runtime::Runtime,
    options: &SimulateOptions,
    found: &Found,
) -> Result<Tried, SimulateError> {
    let progress = Progress::default();
    let (report, site, start): (Report, _, _) = quiet(|| runtime.block_on(run(options, &progress)))?;
    drop(report);
    let same = |v: &Violation| v.rule == found.violation.rule && v.node == found.violation.node;
    let Some(violation) = site.world.violations().into_iter().find(same) else { return Ok(None) };
    let (history, deaths) = match &violation.node {
        Some(node) => (site.world.log_of(node), report::foreign_deaths(&site, start, node.as_str())),
        None => (site.world.log(), Vec::new()),
    };
    let history: Vec<LogEntry> = history.into_iter().filter(|e| e.at <= violation.at).collect();
    let journal = match &violation.node {
        Some(node) => runtime.block_on(super::site::written(&site.desks, node)),
        None => Vec::new(),
    };
    Ok(Some((Trace { violation, options: options.clone(), history, journal }, deaths)))
}

/// Returns the place of a node by its name.
fn place_of(node: &NodeName) -> Option<usize> {
    let number: usize = node.as_str().strip_prefix("gpu")?.parse().ok()?;
    number.checked_sub(1)
}
