//! From a violation at a site to the fewest things that have to happen for it.

use super::{SimulateOptions, items, simulate};
use crate::simulate::{Found, Part, Progress, SimulateError, Trace, quiet};
use crate::world::{LogEntry, Violation};

/// Stories that are told at the most while one is narrowed down.
const TRIES: u32 = 300;

/// Leaves out half of what happens, then less and less, as long as the same rule is still broken.
pub(crate) fn shrink(options: &SimulateOptions, found: &Found) -> Result<Option<Trace>, SimulateError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let whole = SimulateOptions { seed: found.seed, part: Part::Fleet, only: None, ..options.clone() };
    let mut kept: Vec<usize> = whole.items.clone().unwrap_or_else(|| (0..items(&whole)).collect());
    let Some(mut best) = attempt(&runtime, &whole, found, &kept)? else { return Ok(None) };
    let mut tries = 0;
    let mut size = kept.len().div_ceil(2);
    while size > 0 && tries < TRIES {
        let mut from = 0;
        let mut less = false;
        while from < kept.len() && tries < TRIES {
            tries += 1;
            let rest: Vec<usize> = kept
                .iter()
                .enumerate()
                .filter(|(i, _)| !(from..from + size).contains(i))
                .map(|(_, k)| *k)
                .collect();
            match attempt(&runtime, &whole, found, &rest)? {
                Some(trace) => {
                    best = trace;
                    kept = rest;
                    less = true;
                }
                None => from += size,
            }
        }
        // Once nothing can be left out one by one, that is all there is to it.
        size = if size == 1 && less { 1 } else { size / 2 };
    }
    Ok(Some(best))
}

/// Tells the story with these things only; the trace where it breaks the same rule.
fn attempt(
    runtime: &tokio::runtime::Runtime,
    whole: &SimulateOptions,
    found: &Found,
    kept: &[usize],
) -> Result<Option<Trace>, SimulateError> {
    let options = SimulateOptions { items: Some(kept.to_vec()), ..whole.clone() };
    let (_, world, office) = quiet(|| runtime.block_on(simulate(&options, &Progress::default())))?;
    let same = |v: &Violation| v.rule == found.violation.rule;
    let Some(violation) = world.violations().into_iter().find(same) else { return Ok(None) };
    // A budget is about all nodes, so that the history of all is told.
    let mut history: Vec<LogEntry> = world.node_names().iter().flat_map(|n| world.log_of(n)).collect();
    history.sort_by(|a, b| a.at.cmp(&b.at).then_with(|| a.node.cmp(&b.node)));
    history.dedup();
    history.retain(|e| e.at <= violation.at);
    let journal = match &violation.node {
        Some(node) => runtime.block_on(crate::simulate::site::written(&office.journals, node)),
        None => Vec::new(),
    };
    Ok(Some(Trace { violation, options, history, journal }))
}
