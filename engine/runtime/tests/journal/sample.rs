//! Runs to write down.

use engine_core::Known;
use engine_core::action::EffectClass;
use engine_core::digest::Digest;
use engine_core::fact::{FactSet, Source};
use engine_core::model::{NodeName, RunId};
use engine_core::plan::{BlastRadius, PLAN_FORMAT, Plan, PlannedStep, Target};
use engine_core::playbook::{ApprovalClass, Ends, PlaybookRef};
use engine_core::run::{Actor, Effect, End, EventKind, GuardReport, Outcome};
use engine_core::value::Value;
use engine_runtime::journal::{Journal, OpenMode, SqliteJournal};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) fn run(name: &str) -> RunId {
    RunId::new(name).unwrap()
}

pub(crate) fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

/// A time with every digit used, `n` seconds after the first.
pub(crate) fn at(n: u64) -> Timestamp {
    "2026-03-04T05:06:07.123456789Z".parse::<Timestamp>().unwrap() + jiff::SignedDuration::from_secs(n as i64)
}

pub(crate) fn playbook(content: &str) -> PlaybookRef {
    PlaybookRef {
        id: "dcgm-ecc-drain-reset".to_owned(),
        version: "1.2.0".parse().unwrap(),
        digest: Digest::of(content.as_bytes()),
    }
}

pub(crate) fn plan(run: &RunId, node: &NodeName) -> Plan {
    let step = |action: &str, effect| PlannedStep {
        action: action.to_owned(),
        effect,
        args: BTreeMap::from([("reason".to_owned(), Value::Text("ECC “alert” \u{1f525}\n".to_owned()))]),
        when: None,
        timeout_s: 60,
        attempts: 3,
    };
    let mut facts = FactSet::default();
    facts.set("gpu.temperature", Known::Known(Value::Float(0.1 + 0.2)), Source::DcgmExporter, at(0));
    facts.set("active_jobs", Known::Known(Value::Int(i64::MAX)), Source::Slurm, at(0));
    Plan {
        format: PLAN_FORMAT,
        run: run.clone(),
        playbook: playbook("steps"),
        summary: "Drain and wait".to_owned(),
        target: Target { node: node.clone(), gpu: None },
        initiator: Actor::person("mara"),
        made_at: at(0),
        params: BTreeMap::new(),
        facts,
        observed: None,
        preconditions: Vec::new(),
        judged: Vec::new(),
        steps: vec![step("slurm.drain", EffectClass::Reversible), step("slurm.wait_idle", EffectClass::Read)],
        rollback: vec![step("slurm.resume", EffectClass::Reversible)],
        approval: ApprovalClass::Hitl,
        ends: Ends::Drained,
        blast: BlastRadius {
            nodes: vec![node.clone()],
            gpus: None,
            running_jobs: Vec::new(),
            jobs_known: true,
        },
        policy: None,
        cost: None,
        approvers: None,
        stage: None,
    }
}

pub(crate) fn proposed(run: &RunId, node: &NodeName) -> EventKind {
    let plan = plan(run, node);
    let digest = plan.digest().unwrap();
    EventKind::Proposed { plan: plan.into(), digest }
}

pub(crate) fn noted(text: impl Into<String>) -> EventKind {
    EventKind::Noted { text: text.into() }
}

/// From the plan to the start: four events.
pub(crate) fn started(run: &RunId, node: &NodeName) -> Vec<EventKind> {
    let digest = plan(run, node).digest().unwrap();
    vec![
        proposed(run, node),
        EventKind::ApprovalRequested { people: 1, expires_at: at(3600) },
        EventKind::Approved { by: Actor::person("jon"), digest, expires_at: at(3600), ticket: None },
        EventKind::Started { engine: "e1".to_owned() },
    ]
}

pub(crate) fn intent(effect: Effect, action: &str) -> EventKind {
    EventKind::Intent {
        effect,
        attempt: 1,
        action: action.to_owned(),
        guard: GuardReport {
            passed: true,
            why: "fit".to_owned(),
            conditions: Vec::new(),
            facts: FactSet::default(),
        },
        before: None,
        context: serde_json::json!({ "end": at(9), "share": 0.1 }).into(),
    }
}

pub(crate) fn finished(effect: Effect) -> EventKind {
    EventKind::Finished { effect, attempt: 1, outcome: Outcome::succeeded("done and read back") }
}

pub(crate) fn ended(end: End) -> EventKind {
    EventKind::Ended { end, why: "every step was done".to_owned(), next_step: String::new(), by: None }
}

/// A whole run, from plan to end.
pub(crate) fn whole(run: &RunId, node: &NodeName) -> Vec<EventKind> {
    let mut all = started(run, node);
    for (effect, action) in [
        (Effect::Lock, "lock"),
        (Effect::Step(0), "slurm.drain"),
        (Effect::Step(1), "slurm.wait_idle"),
        (Effect::Unlock, "unlock"),
    ] {
        all.push(intent(effect, action));
        all.push(finished(effect));
    }
    all.push(ended(End::Succeeded));
    all
}

/// A directory with a journal in it.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("journal.db")
    }

    pub(crate) fn open(&self) -> SqliteJournal {
        SqliteJournal::open(&self.file(), OpenMode::ReadWrite).unwrap()
    }

    pub(crate) fn raw(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.file()).unwrap()
    }

    /// Leaves a closed journal with three runs: one over, one begun, one only proposed.
    pub(crate) async fn fill(&self) {
        let j = self.open();
        j.pin_playbook(&playbook("steps"), at(0)).await.unwrap();
        let (a, b, c) = (run("ra"), run("rb"), run("rc"));
        for (i, kind) in whole(&a, &node("gpu001")).into_iter().enumerate() {
            j.append(&a, i as u64, at(i as u64), vec![kind]).await.unwrap();
            if i == 2 {
                j.append(&b, 0, at(2), started(&b, &node("gpu002"))).await.unwrap();
            }
        }
        j.append(&c, 0, at(40), vec![proposed(&c, &node("gpu003"))]).await.unwrap();
        j.append(&b, 4, at(41), vec![noted("waiting for job 4711 of user ada")]).await.unwrap();
        j.store_blob(b"nvidia-smi -q".to_vec(), at(42)).await.unwrap();
        let report = j.verify().await.unwrap();
        assert_eq!((report.events, report.runs, report.blobs, &report.broken), (19, 3, 1, &None));
        drop(j);
        assert!(
            !self.dir.path().join("journal.db-wal").exists(),
            "the last to close puts everything into the file"
        );
    }
}

/// Where a piece of text lies in a file; every place.
pub(crate) fn places(file: &Path, needle: &[u8]) -> Vec<usize> {
    let bytes = std::fs::read(file).unwrap();
    bytes.windows(needle.len()).enumerate().filter(|(_, w)| *w == needle).map(|(i, _)| i).collect()
}
