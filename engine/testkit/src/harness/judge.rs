//! The judgement of a scene: what must hold whatever went wrong.

use super::meddler::Call;
use super::twist::{PERSON, REASON, RESERVATION};
use super::{GPU, Stage};
use crate::timeline::words;
use crate::world::Who;
use engine_core::model::NodeFlag;
use engine_core::run::{End, Event, Status};
use engine_runtime::journal::{Journal as _, MemoryJournal};
use std::collections::BTreeMap;

/// What came of a scene.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// How the runs ended, in the order in which they were proposed.
    pub ends: Vec<End>,
    /// What is wrong; empty where every rule holds.
    pub wrong: Vec<String>,
    /// Appends that the first engine process asked for.
    pub appends: u64,
    /// Events on record.
    pub events: u64,
    /// The calls of ports, in order.
    pub calls: Vec<Call>,
    /// Changes that met a write inside the window that Slurm leaves open.
    pub races: usize,
    /// What happened to the node, and what the journal says, for people.
    pub story: Vec<String>,
}

pub(super) async fn judge(
    stage: &Stage,
    journal: &MemoryJournal,
    appends: u64,
    trouble: Option<String>,
) -> Verdict {
    let world = &stage.world;
    let mut wrong: Vec<String> = world.violations().iter().map(ToString::to_string).collect();
    wrong.extend(trouble);
    let mut ends = Vec::new();
    let mut story = Vec::new();
    match journal.runs(None, false, 20).await {
        Ok(runs) => {
            for line in runs.iter().rev() {
                match line.status {
                    Status::Ended(end) => ends.push(end),
                    other => wrong.push(format!("rule 13: run {} is {other}", line.run)),
                }
                story.push(format!("run {}: {}: {}", line.run, line.status, line.why));
                if let Ok(events) = journal.load(&line.run).await {
                    let tell = |e: &Event| format!("{} journal {}: {}", e.at, e.seq, words(&e.kind));
                    story.extend(events.iter().map(tell));
                }
            }
        }
        Err(e) => wrong.push(format!("the journal cannot be listed: {e}")),
    }
    match journal.verify().await {
        Ok(report) => {
            if let Some(broken) = report.broken {
                wrong.push(format!("the journal does not hold together: {broken}"));
            }
        }
        Err(e) => wrong.push(format!("the journal cannot be checked: {e}")),
    }
    match journal.leases().await {
        Ok(leases) if leases.is_empty() => {}
        Ok(leases) => wrong.push(format!("rule 7: {} locks of the journal are left", leases.len())),
        Err(e) => wrong.push(format!("the journal's locks cannot be listed: {e}")),
    }
    match journal.orphans().await {
        Ok(left) if left.is_empty() => {}
        Ok(left) => wrong.push(format!("rule 13: {} runs have nobody who carries them on", left.len())),
        Err(e) => wrong.push(format!("orphans cannot be listed: {e}")),
    }
    for left in world.engine_reservations() {
        wrong.push(format!("reservation {left} is left"));
    }
    resets(stage, &mut wrong);
    marks(stage, &ends, &mut wrong);
    if world.jobs_lost_to_engine() > 0 {
        wrong.push(format!("rule 9: {} jobs are lost to the engine", world.jobs_lost_to_engine()));
    }
    let events = stage.warden.events();
    story.extend(world.log_of(&stage.node).iter().map(ToString::to_string));
    Verdict { ends, wrong, appends, events, calls: stage.calls.seen(), races: world.races().len(), story }
}

/// At most one reset for each run, and only of the GPU that is sick.
fn resets(stage: &Stage, wrong: &mut Vec<String>) {
    let mut by_run: BTreeMap<Option<String>, usize> = BTreeMap::new();
    for reset in stage.world.resets() {
        if reset.node != stage.node || reset.gpu != GPU {
            wrong.push(format!("rule 15: GPU {} of {} was reset", reset.gpu, reset.node));
        }
        *by_run.entry(reset.run).or_insert(0) += 1;
    }
    for (run, count) in by_run {
        if run.is_none() || count > 1 {
            wrong.push(format!("rule 1: {count} resets by run {run:?}"));
        }
    }
}

/// What a person left stands, and what the run left is what its end says.
fn marks(stage: &Stage, ends: &[End], wrong: &mut Vec<String>) {
    let world = &stage.world;
    let Some(node) = world.node_view(&stage.node) else { return };
    let reason = node.reason.known().and_then(Option::as_ref).map(|r| r.text.clone());
    let drained = node.flags.has(NodeFlag::Drain);
    let history = world.log_of(&stage.node);
    let theirs = history.iter().rev().find(|e| {
        e.who == Who::person(PERSON) && (e.what.starts_with("drains") || e.what.starts_with("sets"))
    });
    let raced = !world.races().is_empty();
    let later = |word: &str, after: jiff::Timestamp| {
        history.iter().any(|e| e.at >= after && e.who != Who::Engine && e.what.contains(word))
    };
    if let Some(mark) = theirs.filter(|_| !raced)
        && !later("resumes", mark.at)
        && reason.as_deref() != Some(REASON)
    {
        wrong.push(format!("rule 4: {PERSON} wrote {REASON:?} and the node says {reason:?}"));
    }
    let reserved = history.iter().any(|e| e.what == format!("reserves the node as {RESERVATION}"));
    if reserved && !world.reservations_view().iter().any(|r| r.name == RESERVATION) {
        wrong.push(format!("rule 4: {PERSON}'s reservation is gone"));
    }
    let ours = reason.as_deref().and_then(engine_core::ownership::run_of_reason).is_some();
    let out = [End::Held, End::Stuck, End::HandedOver];
    if ours && drained && !ends.iter().any(|e| out.contains(e)) {
        wrong.push(format!("rule 6: a drain of ours stands and the runs ended {ends:?}"));
    }
    if ends.last() == Some(&End::Held) && !drained && theirs.is_none() && !history.iter().any(is_foreign) {
        wrong.push("rule 6: the run ended held and the node is in service".to_owned());
    }
}

fn is_foreign(e: &crate::world::LogEntry) -> bool {
    e.who == Who::person(PERSON) || e.what.contains("reboot")
}
