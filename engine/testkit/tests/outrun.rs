//! An engine that others are faster than, again and again: it decides anew each time, and gives up in the end.

use async_trait::async_trait;
use engine_core::digest::Digest;
use engine_core::model::{NodeName, RunId};
use engine_core::playbook::PlaybookRef;
use engine_core::run::{Actor, Event, EventKind};
use engine_playbook::{Library, Renderer};
use engine_runtime::engine::{Alert, Engine, EngineConfig, EngineError, Ports, ProposeRequest};
use engine_runtime::journal::{
    Admit, ChainReport, HeldLease, Journal, JournalError, Lease, LockKey, MemoryJournal, NewRecord, Record,
    RunSummary, StreamName,
};
use engine_testkit::ports::{SeededIds, SimActuator, SimClock, SimScheduler, SimTelemetry};
use engine_testkit::time::SimRuntime;
use engine_testkit::world::{Fault, SimConfig, SimWorld};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A journal to which somebody else writes a note right before each of the next so many appends.
#[derive(Debug)]
struct Crowded {
    inner: MemoryJournal,
    faster: AtomicU32,
}

#[async_trait]
impl Journal for Crowded {
    async fn append(
        &self,
        run: &RunId,
        after: u64,
        at: Timestamp,
        kinds: Vec<EventKind>,
    ) -> Result<Vec<Event>, JournalError> {
        if self.faster.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            let note = EventKind::Noted { text: "somebody else was faster".to_owned() };
            self.inner.append(run, after, at, vec![note]).await?;
        }
        self.inner.append(run, after, at, kinds).await
    }

    async fn load(&self, run: &RunId) -> Result<Vec<Event>, JournalError> {
        self.inner.load(run).await
    }

    async fn runs(
        &self,
        node: Option<&NodeName>,
        open_only: bool,
        limit: usize,
    ) -> Result<Vec<RunSummary>, JournalError> {
        self.inner.runs(node, open_only, limit).await
    }

    async fn append_records(
        &self,
        stream: &StreamName,
        after: Option<u64>,
        at: Timestamp,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Record>, JournalError> {
        self.inner.append_records(stream, after, at, records).await
    }

    async fn load_records(
        &self,
        stream: &StreamName,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, JournalError> {
        self.inner.load_records(stream, after, limit).await
    }

    async fn stream_length(&self, stream: &StreamName) -> Result<u64, JournalError> {
        self.inner.stream_length(stream).await
    }

    async fn take_leases(
        &self,
        keys: &[LockKey],
        run: &RunId,
        at: Timestamp,
        admit: Option<Admit>,
    ) -> Result<Lease, JournalError> {
        self.inner.take_leases(keys, run, at, admit).await
    }

    async fn drop_leases(&self, keys: &[LockKey], run: &RunId) -> Result<(), JournalError> {
        self.inner.drop_leases(keys, run).await
    }

    async fn drop_all_leases(&self, run: &RunId) -> Result<(), JournalError> {
        self.inner.drop_all_leases(run).await
    }

    async fn leases(&self) -> Result<Vec<HeldLease>, JournalError> {
        self.inner.leases().await
    }

    async fn pin_playbook(&self, playbook: &PlaybookRef, at: Timestamp) -> Result<(), JournalError> {
        self.inner.pin_playbook(playbook, at).await
    }

    async fn claim(&self, run: &RunId) -> Result<bool, JournalError> {
        self.inner.claim(run).await
    }

    async fn orphans(&self) -> Result<Vec<RunId>, JournalError> {
        self.inner.orphans().await
    }

    async fn store_blob(&self, bytes: Vec<u8>, at: Timestamp) -> Result<Digest, JournalError> {
        self.inner.store_blob(bytes, at).await
    }

    async fn load_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, JournalError> {
        self.inner.load_blob(digest).await
    }

    async fn verify(&self) -> Result<ChainReport, JournalError> {
        self.inner.verify().await
    }
}

#[tokio::test]
async fn an_event_is_decided_anew_64_times_and_not_for_ever() {
    for (faster, succeeds) in [(0, true), (63, true), (64, false), (1000, false)] {
        let world = SimWorld::new(SimConfig::new(2, 1, "2026-01-05T08:00:00Z".parse().unwrap()));
        let node = NodeName::new("gpu001").unwrap();
        world.inject(&node, 0, Fault::EccDbe).unwrap();
        let journal = Arc::new(Crowded { inner: MemoryJournal::new(), faster: AtomicU32::new(0) });
        let ports = Ports {
            scheduler: Arc::new(SimScheduler::new(&world)),
            actuator: Arc::new(SimActuator::new(&world)),
            telemetry: Some(Arc::new(SimTelemetry::new(&world))),
            clock: Arc::new(SimClock::new(&world)),
            ids: Arc::new(SeededIds::new(1)),
            journal: Arc::clone(&journal) as Arc<dyn Journal>,
        };
        let engine = Engine::new(ports, EngineConfig::default(), Arc::new(Renderer::new()));
        let library = Library::embedded();
        let play = async {
            let request = ProposeRequest {
                playbook: library.find("dcgm-ecc-drain-reset").unwrap(),
                node,
                gpu: Some("0".to_owned()),
                params: BTreeMap::new(),
                alert: Alert::default(),
                initiator: Actor::person("mara"),
            };
            let proposal = engine.plan(request).await.unwrap();
            let run = engine.record_plan(proposal).await.unwrap().run;
            let before = journal.load(&run).await.unwrap().len();
            journal.faster.store(faster, Ordering::SeqCst);
            let result = engine.cancel(&run, Actor::person("mara"), "enough").await;
            let written = journal.load(&run).await.unwrap().len() - before;
            (run, result, written)
        };
        let (run, result, written) = SimRuntime::new(&world).run(Box::pin(play)).await.unwrap();
        match result {
            Ok(_) => assert!(succeeds, "{faster}"),
            Err(e @ EngineError::Outrun { .. }) => {
                assert!(!succeeds, "{faster}: {e}");
                let text = e.to_string();
                assert!(text.contains("cancel_requested") && text.contains(&format!("show {run}")), "{text}");
            }
            Err(other) => unreachable!("{faster}: {other}"),
        }
        let notes = faster.min(64) as usize;
        assert_eq!(
            written,
            notes + usize::from(succeeds),
            "{faster}: only the others' notes, and perhaps ours"
        );
    }
}
