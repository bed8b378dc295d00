//! Plans and node marks to play with, built by hand.

use engine_core::action::{self, EffectClass};
use engine_core::digest::Digest;
use engine_core::fact::FactSet;
use engine_core::known::Known;
use engine_core::model::{BaseState, NodeFlag, NodeFlags, NodeName, Reason, RunId};
use engine_core::ownership::{self, NodeMark};
use engine_core::plan::{BlastRadius, PLAN_FORMAT, Plan, PlannedStep, Target};
use engine_core::playbook::{ApprovalClass, Ends, PlaybookRef};
use engine_core::run::{Actor, End, Event, EventKind, RunState};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Attempts for the lock, the hold and the unlock, as the engine documents them.
pub(crate) const MARK_ATTEMPTS: u32 = 4;

pub(crate) fn run_id() -> RunId {
    RunId::new("r1").unwrap()
}

pub(crate) fn start() -> Timestamp {
    "2026-03-04T05:06:07Z".parse().unwrap()
}

pub(crate) fn later(seconds: i64) -> Timestamp {
    start() + SignedDuration::from_secs(seconds)
}

/// A step of the catalogue with its default number of attempts.
pub(crate) fn step(name: &str) -> PlannedStep {
    let spec = action::find(name).unwrap();
    PlannedStep {
        action: name.to_owned(),
        effect: spec.effect,
        args: BTreeMap::new(),
        when: None,
        timeout_s: u64::from(spec.default_timeout_s),
        attempts: spec.default_attempts,
    }
}

/// A step with another number of attempts.
pub(crate) fn step_with(name: &str, attempts: u32) -> PlannedStep {
    PlannedStep { attempts, ..step(name) }
}

/// A step that writes for people only, by an action that this release does not know.
pub(crate) fn comment() -> PlannedStep {
    PlannedStep {
        action: "ticket.comment".to_owned(),
        effect: EffectClass::Annotate,
        ..step("slurm.wait_idle")
    }
}

pub(crate) fn plan(
    steps: Vec<PlannedStep>,
    rollback: Vec<PlannedStep>,
    approval: ApprovalClass,
    ends: Ends,
) -> Plan {
    let node = NodeName::new("gpu001").unwrap();
    Plan {
        format: PLAN_FORMAT,
        run: run_id(),
        playbook: PlaybookRef {
            id: "dcgm-ecc-drain-reset".to_owned(),
            version: "1.2.0".parse().unwrap(),
            digest: Digest::of(b"steps"),
        },
        summary: "Drain, reset, verify, resume".to_owned(),
        target: Target { node: node.clone(), gpu: None },
        initiator: Actor::person("mara"),
        made_at: start(),
        params: BTreeMap::new(),
        facts: FactSet::default(),
        observed: Some(in_service()),
        preconditions: Vec::new(),
        judged: Vec::new(),
        steps,
        rollback,
        approval,
        ends,
        blast: BlastRadius { nodes: vec![node], gpus: None, running_jobs: Vec::new(), jobs_known: true },
        policy: None,
        cost: None,
        approvers: None,
        stage: None,
    }
}

/// The playbook of the main job.
pub(crate) fn drain_reset(approval: ApprovalClass) -> Plan {
    let names = [
        "slurm.drain",
        "slurm.wait_idle",
        "node.collect_evidence",
        "dcgm.reset_gpu",
        "health.verify_gpu",
        "slurm.resume",
    ];
    plan(names.map(step).to_vec(), vec![step("slurm.resume")], approval, Ends::InService)
}

fn mark(flags: &[NodeFlag], reason: Option<&str>) -> NodeMark {
    NodeMark {
        base: BaseState::Idle,
        flags: NodeFlags { known: flags.iter().copied().collect(), unknown: Vec::new() },
        reason: reason.map(|text| Reason {
            text: ownership::reason(&drain_ref(), &run_id(), text),
            user: Known::Known("slurm".to_owned()),
            at: Known::Known(start()),
        }),
        reservations: BTreeSet::new(),
    }
}

fn drain_ref() -> PlaybookRef {
    PlaybookRef { id: "x".to_owned(), version: "1.0.0".parse().unwrap(), digest: Digest::of(b"x") }
}

pub(crate) fn in_service() -> NodeMark {
    mark(&[], None)
}

pub(crate) fn drained(text: &str) -> NodeMark {
    mark(&[NodeFlag::Drain], Some(text))
}

/// Numbers events for a run.
pub(crate) fn event(seq: u64, at: Timestamp, kind: EventKind) -> Event {
    Event { run: run_id(), seq, at, kind }
}

pub(crate) fn proposed(plan: &Plan) -> EventKind {
    EventKind::Proposed { digest: plan.digest().unwrap(), plan: plan.clone().into() }
}

pub(crate) fn begun(plan: &Plan) -> (RunState, Vec<Event>) {
    let first = event(1, start(), proposed(plan));
    (RunState::begin(&first).unwrap(), vec![first])
}

pub(crate) fn ended(end: End) -> EventKind {
    EventKind::Ended { end, why: "so".to_owned(), next_step: String::new(), by: None }
}
