//! An engine that others are faster than, again and again: it decides anew each time, and gives up in the end.

use async_trait::async_trait;
use engine_core::model::{NodeName, RunId};
use engine_core::run::{Actor, Event, EventKind};
use engine_playbook::{Library, Renderer};
use engine_runtime::engine::{Alert, Engine, EngineConfig, EngineError, Ports, ProposeRequest};
use engine_runtime::journal::{Journal, JournalError, MemoryJournal, NewEvent};
use engine_testkit::journal::{Guarded, Porter};
use engine_testkit::ports::{SeededIds, SimActuator, SimClock, SimScheduler, SimTelemetry};
use engine_testkit::time::SimRuntime;
use engine_testkit::world::{Fault, SimConfig, SimWorld};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Somebody who writes a note right before each of the next so many appends.
#[derive(Debug)]
struct Crowd {
    faster: AtomicU32,
}

#[async_trait]
impl Porter for Crowd {
    async fn append_events(
        &self,
        inner: &MemoryJournal,
        run: &RunId,
        after: u64,
        new: Vec<NewEvent>,
    ) -> Result<Vec<Event>, JournalError> {
        if self.faster.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            let note = EventKind::Noted { text: "somebody else was faster".to_owned() };
            let at = new.first().map_or(Timestamp::UNIX_EPOCH, |n| n.at);
            inner.append(run, after, at, vec![note]).await?;
        }
        inner.append_events(run, after, new).await
    }
}

#[tokio::test]
async fn an_event_is_decided_anew_64_times_and_not_for_ever() {
    for (faster, succeeds) in [(0, true), (63, true), (64, false), (1000, false)] {
        let world = SimWorld::new(SimConfig::new(2, 1, "2026-01-05T08:00:00Z".parse().unwrap()));
        let node = NodeName::new("gpu001").unwrap();
        world.inject(&node, 0, Fault::EccDbe).unwrap();
        let journal = Arc::new(Guarded::new(MemoryJournal::new(), Crowd { faster: AtomicU32::new(0) }));
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
            journal.porter.faster.store(faster, Ordering::SeqCst);
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
