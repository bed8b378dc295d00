//! Intake: alerts in, durable before the answer, a thousand repeats for the price of one record.

use super::log::{FleetError, FleetLog};
use super::wakes::Wakes;
use engine_core::incident::{
    Alert, Counters, FleetEvent, Heard, IntakeRules, NotHeard, Shape, StormRules, Tools, hear,
    tells_no_cause, tick, tool_events, trips,
};
use engine_core::model::NodeName;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::oneshot;

/// The most alerts that wait for their turn; more are refused, and their sender tries again.
pub const MAX_WAITING: usize = 100_000;

/// The most alerts of one post.
pub const MAX_POST: usize = 5_000;

/// Why alerts were not taken. None of them is on record.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// Too many wait already.
    #[error("{MAX_WAITING} alerts wait to be taken in: send them again in a few seconds")]
    Overloaded,
    /// Too many at once.
    #[error("{0} alerts in one post are too many: send at most {MAX_POST} at once")]
    TooMany(usize),
    /// The record failed.
    #[error(transparent)]
    Fleet(#[from] Arc<FleetError>),
    /// Whoever was to write them stopped in the middle.
    #[error("the alerts were not written: send them again")]
    Interrupted,
}

/// What an intake has done since it was built, and how much it holds. All of it is bounded but the count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IntakeCounts {
    /// Alerts that were answered.
    pub taken: u64,
    /// Alerts that wait for their turn now; at most [`MAX_WAITING`].
    pub waiting: usize,
    /// The most alerts that ever waited.
    pub most_waiting: usize,
    /// The most alerts that were taken between a post and its answer, its own included: how long anybody has to wait
    /// depends on this, and on nothing that came before.
    pub most_ahead: u64,
    /// Series that are counted in memory: those of open incidents.
    pub series: usize,
}

type Answer = Result<Vec<Heard>, Arc<FleetError>>;

struct Posted {
    alerts: Vec<Alert>,
    answer: oneshot::Sender<Answer>,
    /// Alerts that had been taken when it came.
    before: u64,
}

/// Takes alerts in. Callers that come at the same time share one write.
pub struct Intake {
    log: Arc<FleetLog>,
    shape: RwLock<Arc<Shape>>,
    rules: IntakeRules,
    storm: RwLock<StormRules>,
    waiting: Mutex<(usize, Vec<Posted>)>,
    turn: tokio::sync::Mutex<Counters>,
    not_heard: Mutex<BTreeMap<NotHeard, u64>>,
    counts: Mutex<IntakeCounts>,
    wakes: Wakes,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("rules", &self.rules).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Intake {
    /// Builds the intake. Until [`Intake::set_shape`] tells which nodes there are, alerts open nothing.
    pub fn new(log: Arc<FleetLog>, rules: IntakeRules, storm: StormRules) -> Self {
        Self {
            log,
            shape: RwLock::default(),
            rules,
            storm: RwLock::new(storm),
            waiting: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            not_heard: Mutex::default(),
            counts: Mutex::default(),
            wakes: Wakes::default(),
        }
    }

    /// Returns the nodes that alerts told of without saying why.
    pub fn wakes(&self) -> &Wakes {
        &self.wakes
    }

    /// Says which nodes there are.
    pub fn set_shape(&self, shape: Arc<Shape>) {
        *self.shape.write().unwrap_or_else(PoisonError::into_inner) = shape;
    }

    /// Returns the nodes as they were last told.
    pub fn shape(&self) -> Arc<Shape> {
        Arc::clone(&self.shape.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts other rules for storms in force.
    pub fn set_storm(&self, storm: StormRules) {
        *self.storm.write().unwrap_or_else(PoisonError::into_inner) = storm;
    }

    /// Counts the alerts that opened nothing, by cause.
    pub fn not_heard(&self) -> BTreeMap<NotHeard, u64> {
        lock(&self.not_heard).clone()
    }

    /// Counts what was done, and what is held.
    pub fn counts(&self) -> IntakeCounts {
        let waiting = lock(&self.waiting).0;
        IntakeCounts { waiting, ..*lock(&self.counts) }
    }

    /// Takes alerts in. When this returns, what they changed is durable; the answers are in their order.
    pub async fn take(&self, alerts: Vec<Alert>) -> Result<Vec<Heard>, IntakeError> {
        if alerts.len() > MAX_POST {
            return Err(IntakeError::TooMany(alerts.len()));
        }
        let (answer, mut hears) = oneshot::channel();
        {
            let mut waiting = lock(&self.waiting);
            if waiting.0 + alerts.len() > MAX_WAITING {
                return Err(IntakeError::Overloaded);
            }
            waiting.0 += alerts.len();
            let mut counts = lock(&self.counts);
            counts.most_waiting = counts.most_waiting.max(waiting.0);
            waiting.1.push(Posted { alerts, answer, before: counts.taken });
        }
        // Whoever has the turn writes for everybody who waits.
        let mut counters = self.turn.lock().await;
        if let Ok(done) = hears.try_recv() {
            return Ok(done?);
        }
        self.work_off(&mut counters).await;
        drop(counters);
        match hears.try_recv() {
            Ok(done) => Ok(done?),
            Err(_) => Err(IntakeError::Interrupted),
        }
    }

    async fn work_off(&self, counters: &mut Counters) {
        let posted = {
            let mut waiting = lock(&self.waiting);
            waiting.0 = 0;
            std::mem::take(&mut waiting.1)
        };
        let mut rest = posted.as_slice();
        let mut answers: Vec<Answer> = Vec::with_capacity(posted.len());
        while !rest.is_empty() {
            match self.write_some(counters, rest).await {
                Ok(done) => {
                    {
                        let mut counts = lock(&self.counts);
                        counts.taken += done.iter().map(|d| d.len() as u64).sum::<u64>();
                        counts.series = counters.len();
                    }
                    rest = rest.get(done.len().max(1)..).unwrap_or_default();
                    answers.extend(done.into_iter().map(Ok));
                }
                Err(e) => {
                    let e = Arc::new(e);
                    answers.extend(rest.iter().map(|_| Err(Arc::clone(&e))));
                    break;
                }
            }
        }
        {
            let mut counts = lock(&self.counts);
            let first = posted.iter().map(|p| p.before).min().unwrap_or(counts.taken);
            counts.most_ahead = counts.most_ahead.max(counts.taken - first);
        }
        for (p, a) in posted.into_iter().zip(answers) {
            // Whoever went away meanwhile sends again; its alerts only count once more.
            let _ = p.answer.send(a);
        }
    }

    /// Writes what the first of these change, as many as fit into one write, at least one.
    async fn write_some(
        &self,
        counters: &mut Counters,
        posted: &[Posted],
    ) -> Result<Vec<Vec<Heard>>, FleetError> {
        let shape = self.shape();
        let done = self
            .log
            .write(|draft| {
                let mut done: Vec<Vec<Heard>> = Vec::new();
                for p in posted {
                    if !done.is_empty() && draft.is_full() {
                        break;
                    }
                    let mut heard = Vec::with_capacity(p.alerts.len());
                    for alert in &p.alerts {
                        let h = hear(draft.state, counters, &shape, &self.rules, alert.clone(), draft.now);
                        if let Heard::New(event) = &h {
                            draft.push((**event).clone())?;
                        }
                        heard.push(h);
                    }
                    done.push(heard);
                }
                self.trip(draft, &shape)?;
                Ok(done)
            })
            .await?;
        let heard = posted.iter().flat_map(|p| &p.alerts).zip(done.iter().flatten());
        for (alert, h) in heard.filter(|(a, _)| tells_no_cause(&a.fault)) {
            let is_now = !matches!(h, Heard::Not(NotHeard::Stale | NotHeard::Skewed));
            if is_now && shape.place(&alert.node).is_some() {
                self.wakes.ask(&alert.node, !alert.firing);
            }
        }
        let mut not = lock(&self.not_heard);
        for h in done.iter().flatten() {
            if let Heard::Not(why) = h {
                *not.entry(*why).or_insert(0) += 1;
            }
        }
        Ok(done)
    }

    fn trip(
        &self,
        draft: &mut super::log::Draft<'_>,
        shape: &Shape,
    ) -> Result<(), engine_core::incident::IllegalFleetEvent> {
        let storm = self.storm.read().unwrap_or_else(PoisonError::into_inner);
        for event in trips(draft.state, shape, &storm, draft.now) {
            draft.push(event)?;
        }
        Ok(())
    }

    /// Takes in how the tools of a kind are: those that are ill have an incident of their own, and it ends when they are
    /// well (rule 14).
    pub async fn tools(&self, kind: &str, tools: &Tools) -> Result<(), FleetError> {
        if self.log.read(|f| tool_events(f, kind, tools).is_empty()).await {
            return Ok(());
        }
        self.log
            .write(|draft| {
                for event in tool_events(draft.state, kind, tools) {
                    draft.push(event)?;
                }
                Ok(())
            })
            .await
    }

    /// Has the incident of a node judged anew that a person has by rule alone: the node came back. Says whether there was
    /// one.
    pub async fn judge_anew(&self, node: &NodeName, why: &str) -> Result<bool, FleetError> {
        self.log
            .write(|draft| match draft.state.on_node(node) {
                Some(i) if i.is_untouched_with_person() => {
                    let event = FleetEvent::Waiting { incident: i.id, why: why.to_owned() };
                    draft.push(event).map(|()| true)
                }
                _ => Ok(false),
            })
            .await
    }

    /// Does what time alone asks for: counts are written down, what stayed resolved is resolved, what is over is
    /// closed, breakers trip.
    pub async fn tick(&self) -> Result<(), FleetError> {
        let mut counters = self.turn.lock().await;
        let shape = self.shape();
        // What was counted stays counted until it is on record.
        let after = self
            .log
            .write(|draft| {
                let mut after = counters.clone();
                // Room is left for the breakers.
                let room = draft.room() / 2;
                for event in tick(draft.state, &mut after, &self.rules, draft.now, room) {
                    draft.push(event)?;
                }
                self.trip(draft, &shape)?;
                Ok(after)
            })
            .await?;
        *counters = after;
        lock(&self.counts).series = counters.len();
        Ok(())
    }
}
