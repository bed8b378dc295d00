//! The summary: counted from the world and from the journal.

use super::DemoOptions;
use super::script::{Case, Mark};
use crate::oncall::Outcome;
use crate::world::{SimWorld, Who};
use engine_core::model::{NodeFlag, NodeName};
use engine_core::run::End;
use engine_runtime::journal::ChainReport;
use jiff::SignedDuration;
use serde::Serialize;
use std::collections::BTreeMap;

/// What became of one fault.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaseResult {
    /// The node.
    pub node: NodeName,
    /// GPU index.
    pub gpu: u32,
    /// The situation.
    pub story: &'static str,
    /// The ends that are right.
    pub right: Vec<&'static str>,
    /// The end; `None` when no run was made or it did not end.
    pub end: Option<&'static str>,
    /// Why.
    pub why: String,
    /// Resets of this GPU.
    pub resets: usize,
    /// From the fault to the end, in seconds of virtual time.
    pub seconds: Option<i64>,
    /// Whether it ended as it should.
    pub as_it_should: bool,
}

/// Jobs by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct JobCounts {
    /// Ended by themselves.
    pub finished: usize,
    /// Died of broken hardware.
    pub lost_to_hardware: usize,
    /// Lost to something the engine did.
    pub lost_to_engine: usize,
    /// Run or wait.
    pub open: usize,
}

/// The journal in figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JournalCounts {
    /// Events.
    pub events: u64,
    /// Runs.
    pub runs: u64,
    /// Whether the chain holds from the first event to the last.
    pub intact: bool,
}

/// The summary of a demonstration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DemoSummary {
    /// Seed.
    pub seed: u64,
    /// Nodes.
    pub nodes: usize,
    /// Virtual time that went by, in seconds.
    pub virtual_seconds: i64,
    /// Every fault.
    pub cases: Vec<CaseResult>,
    /// Runs by their end.
    pub ends: BTreeMap<&'static str, usize>,
    /// Mean virtual time from fault to service, of the nodes that came back, in seconds.
    pub mean_repair_seconds: Option<i64>,
    /// The longest of them.
    pub longest_repair_seconds: Option<i64>,
    /// Jobs.
    pub jobs: JobCounts,
    /// Marks that people made on nodes.
    pub foreign_marks: usize,
    /// Those of them that the engine changed: must be 0.
    pub foreign_marks_touched: usize,
    /// Resets carried out.
    pub resets: usize,
    /// Resets that cured.
    pub resets_that_cured: usize,
    /// Rules of the constitution that were broken: must be empty.
    pub violations: Vec<String>,
    /// Foreign changes inside the window that Slurm leaves open.
    pub races: usize,
    /// Nodes that carry a drain of ours whose run did not end with it: must be empty.
    pub orphan_drains: Vec<NodeName>,
    /// The engine's reservations that still stand.
    pub reservations_left: Vec<String>,
    /// The journal.
    pub journal: JournalCounts,
    /// Whether everything is as it should be.
    pub ok: bool,
}

pub(super) struct Evidence<'a> {
    pub(super) options: &'a DemoOptions,
    pub(super) world: &'a SimWorld,
    pub(super) cases: &'a [Case],
    pub(super) marks: &'a [Mark],
    pub(super) outcomes: &'a BTreeMap<(NodeName, u32), Outcome>,
    pub(super) report: &'a ChainReport,
}

pub(super) fn sum_up(e: &Evidence<'_>) -> DemoSummary {
    let log = e.world.log();
    let start = log.first().map_or_else(|| e.world.now(), |l| l.at);
    let resets = e.world.resets();
    let mut cases = Vec::new();
    let mut repairs: Vec<i64> = Vec::new();
    let mut ends = BTreeMap::new();
    for case in e.cases {
        let Some(node) = case.node(e.world) else { continue };
        let broke = log
            .iter()
            .find(|l| l.who == Who::Hardware && l.node.as_ref() == Some(&node) && is_of(case, &l.what));
        let outcome = e.outcomes.get(&(node.clone(), case.gpu));
        let end = outcome.and_then(|o| o.end);
        let done = resets.iter().filter(|r| r.node == node && r.gpu == case.gpu).count();
        let seconds = match (broke, outcome) {
            (Some(l), Some(o)) => Some(o.over_at.duration_since(l.at).as_secs()),
            _ => None,
        };
        if let Some(end) = end {
            *ends.entry(end.as_str()).or_insert(0) += 1;
        }
        let back = end == Some(End::Succeeded);
        if back {
            repairs.extend(seconds);
        }
        let right_end = end.is_some_and(|x| case.right.contains(&x));
        let right_hands = case.reset_is_right == (done > 0);
        let healthy_if_back = !back || !e.world.ailments(&node).iter().any(|(g, _)| *g == case.gpu);
        let held_if_held = end != Some(End::Held) || drained_with_our_reason(e.world, &node);
        cases.push(CaseResult {
            gpu: case.gpu,
            story: case.story,
            right: case.right.iter().map(|x| x.as_str()).collect(),
            end: end.map(End::as_str),
            why: outcome.map_or_else(|| "no run was made".to_owned(), |o| o.why.clone()),
            resets: done,
            seconds,
            as_it_should: right_end && right_hands && healthy_if_back && held_if_held,
            node,
        });
    }
    let (finished, lost_to_hardware, open) = e.world.job_counts();
    let jobs = JobCounts { finished, lost_to_hardware, lost_to_engine: e.world.jobs_lost_to_engine(), open };
    let touched = e.marks.iter().filter(|m| !still_there(e.world, m)).count();
    let violations: Vec<String> = e.world.violations().iter().map(ToString::to_string).collect();
    let journal = JournalCounts {
        events: e.report.events,
        runs: e.report.runs,
        intact: e.report.broken.is_none() && e.report.events > 0,
    };
    let orphan_drains = orphan_drains(e.world, e.outcomes);
    let reservations_left = e.world.engine_reservations();
    let ok = cases.len() == e.cases.len()
        && cases.iter().all(|c| c.as_it_should)
        && jobs.lost_to_engine == 0
        && touched == 0
        && violations.is_empty()
        && reservations_left.is_empty()
        && orphan_drains.is_empty()
        && journal.intact;
    let mean = (!repairs.is_empty()).then(|| repairs.iter().sum::<i64>() / repairs.len() as i64);
    DemoSummary {
        seed: e.options.seed,
        nodes: e.options.nodes,
        virtual_seconds: e.world.now().duration_since(start).max(SignedDuration::ZERO).as_secs(),
        cases,
        ends,
        mean_repair_seconds: mean,
        longest_repair_seconds: repairs.iter().max().copied(),
        jobs,
        foreign_marks: e.marks.len(),
        foreign_marks_touched: touched,
        resets: resets.len(),
        resets_that_cured: resets.iter().filter(|r| r.cured).count(),
        violations,
        races: e.world.races().len(),
        orphan_drains,
        reservations_left,
        journal,
        ok,
    }
}

fn is_of(case: &Case, what: &str) -> bool {
    what == format!("GPU {}: {}", case.gpu, case.fault.describe())
}

/// Lists the nodes that carry a drain of ours though no run ended with one.
pub fn orphan_drains(world: &SimWorld, outcomes: &BTreeMap<(NodeName, u32), Outcome>) -> Vec<NodeName> {
    let may_be = |node: &NodeName| {
        let ends = outcomes.iter().filter(|((n, _), _)| n == node).map(|(_, o)| o.end);
        ends.into_iter().any(|e| matches!(e, Some(End::Held | End::Stuck | End::HandedOver) | None))
    };
    world.node_names().into_iter().filter(|n| drained_with_our_reason(world, n) && !may_be(n)).collect()
}

fn drained_with_our_reason(world: &SimWorld, node: &NodeName) -> bool {
    world.node_view(node).is_some_and(|n| {
        let ours = |t: &str| engine_core::ownership::run_of_reason(t).is_some();
        let reason = n.reason.known().and_then(Option::as_ref);
        n.flags.has(NodeFlag::Drain) && reason.is_some_and(|r| ours(&r.text))
    })
}

/// Says whether a person's mark stands as they left it.
fn still_there(world: &SimWorld, mark: &Mark) -> bool {
    world.node_view(&mark.node).is_some_and(|n| {
        let reason = n.reason.known().and_then(Option::as_ref);
        let drained = n.flags.has(NodeFlag::Drain);
        match (mark.reason, reason) {
            (Some((login, text)), Some(r)) => {
                drained && r.text == text && r.user.is_known_and(|u| u == login)
            }
            (None, None) => !drained,
            _ => false,
        }
    })
}
