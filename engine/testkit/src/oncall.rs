//! The part of the on-call team: sees faults in the exporters, has the engine plan, says yes, lets it drive.

use crate::ports::{SimClock, SimTelemetry};
use crate::time::Spawner;
use crate::world::SimWorld;
use engine_core::condition::Truth;
use engine_core::model::{Gpu, NodeName};
use engine_core::playbook::Playbook;
use engine_core::run::{Actor, End, Status};
use engine_core::value::Value;
use engine_runtime::engine::{Alert, Engine, Proposal, ProposeRequest, Rest};
use engine_runtime::ports::{Clock, GpuTelemetry};
use jiff::{SignedDuration, Timestamp};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// What became of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How the run ended; `None` when there was none or it did not end.
    pub end: Option<End>,
    /// Why.
    pub why: String,
    /// When.
    pub over_at: Timestamp,
}

/// What became of each GPU that fell sick.
pub type Outcomes = Arc<Mutex<BTreeMap<(NodeName, u32), Outcome>>>;

/// Time between two sweeps over the exporters.
const SWEEP: SignedDuration = SignedDuration::from_secs(10);
/// How long jobs are waited for in the demonstration.
const IDLE_WAIT: SignedDuration = SignedDuration::from_mins(12);
/// After this the demonstration ends whatever is open.
const AT_MOST: SignedDuration = SignedDuration::from_mins(90);
/// Times that planning is tried while the world cannot be read.
const PLAN_ATTEMPTS: u32 = 6;
/// Times that a person is asked anew.
const ASKED_AT_MOST: u32 = 3;

/// Watches a cluster and has the engine repair it.
pub struct Watch {
    world: SimWorld,
    clock: SimClock,
    hands: Hands,
    wanted: BTreeSet<(NodeName, u32)>,
    rng: ChaCha8Rng,
    spawner: Spawner,
}

#[derive(Clone)]
struct Hands {
    engine: Engine,
    playbook: Arc<Playbook>,
    clock: SimClock,
    outcomes: Outcomes,
}

impl Watch {
    /// Builds the watch; it ends when every one of `wanted` has found its end.
    pub fn new(
        world: &SimWorld,
        engine: Engine,
        playbook: Arc<Playbook>,
        wanted: BTreeSet<(NodeName, u32)>,
        seed: u64,
        spawner: Spawner,
    ) -> Self {
        let clock = SimClock::new(world);
        let hands = Hands { engine, playbook, clock: clock.clone(), outcomes: Outcomes::default() };
        Self {
            world: world.clone(),
            clock,
            hands,
            wanted,
            rng: ChaCha8Rng::seed_from_u64(seed ^ 0x0ca1),
            spawner,
        }
    }

    /// Returns what became of each sick GPU; filled while the watch runs.
    pub fn outcomes(&self) -> Outcomes {
        Arc::clone(&self.hands.outcomes)
    }

    /// Sweeps over the exporters until every fault has found its end.
    pub async fn run(mut self) {
        let telemetry = SimTelemetry::new(&self.world);
        let names = self.world.node_names();
        let deadline = self.clock.now().checked_add(AT_MOST).unwrap_or(Timestamp::MAX);
        let mut open: BTreeSet<(NodeName, u32)> = BTreeSet::new();
        while !self.all_over() && self.clock.now() < deadline {
            for node in &names {
                let Ok(seen) = telemetry.gpus(node).await else { continue };
                for gpu in &seen.value.gpus {
                    let key = (node.clone(), gpu.index);
                    if !is_sick(gpu) {
                        open.remove(&key);
                    } else if open.insert(key) {
                        self.alarm(node, gpu.index, seen.at);
                    }
                }
            }
            self.clock.sleep(SWEEP).await;
        }
    }

    fn all_over(&self) -> bool {
        let done = self.hands.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        self.wanted.iter().all(|k| done.contains_key(k))
    }

    fn alarm(&mut self, node: &NodeName, gpu: u32, at: Timestamp) {
        let thinks = SignedDuration::from_millis(self.rng.random_range(8_000..30_000));
        let (hands, node) = (self.hands.clone(), node.clone());
        let name = format!("run on {node}");
        self.spawner.spawn(name, async move { hands.handle(node, gpu, at, thinks).await });
    }
}

/// Says whether the exporter shows what somebody should look at.
fn is_sick(gpu: &Gpu) -> bool {
    gpu.answers.is_known_and(|a| !a)
        || gpu.last_xid.is_known_and(|x| matches!(x, 48 | 63 | 64 | 79 | 94 | 95))
        || gpu.ecc_dbe_volatile.is_known_and(|n| *n > 0)
        || gpu.row_remap_failure.is_known_and(|f| *f)
}

impl Hands {
    async fn handle(self, node: NodeName, gpu: u32, seen: Timestamp, thinks: SignedDuration) {
        let (end, why) = match self.go(&node, gpu, seen, thinks).await {
            Ok((end, why)) => (Some(end), why),
            Err(why) => (None, why),
        };
        let over_at = self.clock.now();
        let mut all = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry((node, gpu)).or_insert(Outcome { end, why, over_at });
    }

    async fn go(
        &self,
        node: &NodeName,
        gpu: u32,
        seen: Timestamp,
        thinks: SignedDuration,
    ) -> Result<(End, String), String> {
        let proposal = self.plan(node, gpu, seen).await?;
        let mut state = self.engine.record_plan(proposal).await.map_err(|e| e.to_string())?;
        let run = state.run.clone();
        for _ in 0..ASKED_AT_MOST {
            if state.status.is_terminal() {
                break;
            }
            match self.engine.drive(&run).await.map_err(|e| e.to_string())? {
                Rest::Over(_) => break,
                Rest::Deferred => self.clock.sleep(SignedDuration::from_secs(30)).await,
                Rest::AwaitsApproval => {
                    self.clock.sleep(thinks).await;
                    self.engine.approve(&run, Actor::person("oncall")).await.map_err(|e| e.to_string())?;
                }
            }
            state = self.engine.state(&run).await.map_err(|e| e.to_string())?;
        }
        let state = self.engine.state(&run).await.map_err(|e| e.to_string())?;
        match state.status {
            Status::Ended(end) => Ok((end, state.why)),
            other => Err(format!("the run is {other} and nobody goes on with it")),
        }
    }

    /// Plans, again and again while the world cannot be read.
    async fn plan(&self, node: &NodeName, gpu: u32, seen: Timestamp) -> Result<Proposal, String> {
        let mut last = String::new();
        for attempt in 0..PLAN_ATTEMPTS {
            if attempt > 0 {
                self.clock.sleep(SignedDuration::from_secs(15)).await;
            }
            let request = ProposeRequest {
                playbook: &self.playbook,
                node: node.clone(),
                gpu: Some(gpu.to_string()),
                params: [("idle_wait".to_owned(), Value::Duration(IDLE_WAIT))].into(),
                alert: Alert { id: format!("exporter-{node}-{gpu}"), last_seen: Some(seen) },
                initiator: Actor::program("watch", None),
            };
            match self.engine.plan(request).await {
                Err(e) => last = e.to_string(),
                // What is known to stand against it decides; only where that is nothing may another look help.
                Ok(p) if only_unknown(&p) && attempt + 1 < PLAN_ATTEMPTS => last = p.objections.join("; "),
                Ok(p) => return Ok(p),
            }
        }
        Err(last)
    }
}

fn only_unknown(p: &Proposal) -> bool {
    let any = |truth| p.plan.judged.iter().any(|c| c.truth == truth);
    any(Truth::Unknown) && !any(Truth::False)
}
