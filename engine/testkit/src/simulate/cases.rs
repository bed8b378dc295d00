//! The life of an incident: it is noticed, an engine hears of it, a person is asked, a run ends, and people repair what is
//! left.

use super::agenda::{Answer, Incident};
use super::site::{ELSEWHERE, Site};
use super::stage;
use engine_core::condition::Truth;
use engine_core::model::{NodeName, RunId};
use engine_core::run::{Actor, End, Status};
use engine_runtime::engine::{Alert, Engine, EngineError, ProposeRequest, Rest};
use engine_runtime::journal::Journal as _;
use engine_runtime::ports::Clock as _;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Time after which an alert that nobody works on is sent again.
const REPEAT: SignedDuration = SignedDuration::from_mins(5);
/// Times that it is looked whether a case is over, at the most: after that nobody believes in it any more.
const LOOKS: u32 = 400;
/// Times that planning is tried while the world cannot be read.
const PLAN_ATTEMPTS: u32 = 6;
/// Times that one engine goes on with a run that waits.
const GOES: u32 = 40;

/// One incident, as everybody who has to do with it knows it.
#[derive(Debug)]
pub(super) struct Case {
    /// `s<seed>-<node>-<number>`: the beginning of the ids of its runs.
    pub(super) name: String,
    pub(super) node: NodeName,
    pub(super) incident: Incident,
    attempts: AtomicU32,
    carriers: AtomicU32,
    ends: Mutex<Vec<(RunId, Option<End>)>>,
    noticed: Mutex<Option<Timestamp>>,
}

/// Stands for an engine that works on a case; gone when it is done or dead.
#[derive(Debug)]
pub(super) struct Carrier(Arc<Case>);

impl Drop for Carrier {
    fn drop(&mut self) {
        self.0.carriers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The cases by their names.
#[derive(Debug, Default)]
pub(super) struct Cases {
    open: Mutex<BTreeMap<String, Arc<Case>>>,
    unplanned: AtomicU32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cases {
    /// Finds the case of a run.
    pub(super) fn of_run(&self, run: &RunId) -> Option<Arc<Case>> {
        let (name, _) = run.as_str().rsplit_once('-')?;
        lock(&self.open).get(name).cloned()
    }

    fn add(&self, case: &Arc<Case>) {
        lock(&self.open).insert(case.name.clone(), Arc::clone(case));
    }

    fn close(&self, case: &Case) {
        lock(&self.open).remove(&case.name);
    }

    /// Counts the alerts of which no plan could be made.
    pub(super) fn unplanned(&self) -> u64 {
        u64::from(self.unplanned.load(Ordering::SeqCst))
    }

    /// Counts the cases that are not over.
    pub(super) fn len(&self) -> usize {
        lock(&self.open).len()
    }
}

impl Case {
    fn new(seed: u64, node: NodeName, incident: Incident) -> Arc<Self> {
        Arc::new(Self {
            name: format!("s{seed}-{node}-{}", incident.number),
            node,
            incident,
            attempts: AtomicU32::new(0),
            carriers: AtomicU32::new(0),
            ends: Mutex::default(),
            noticed: Mutex::default(),
        })
    }

    /// Takes note that an engine works on it.
    pub(super) fn carried(self: &Arc<Self>) -> Carrier {
        self.carriers.fetch_add(1, Ordering::SeqCst);
        Carrier(Arc::clone(self))
    }

    /// Numbers the runs of the case: a letter for each.
    pub(super) fn next_attempt(&self) -> String {
        format!("x{}", self.attempts.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn is_carried(&self) -> bool {
        self.carriers.load(Ordering::SeqCst) > 0
    }

    fn note_end(&self, run: RunId, end: Option<End>) {
        let mut ends = lock(&self.ends);
        if !ends.iter().any(|(r, _)| *r == run) {
            ends.push((run, end));
        }
    }

    fn has_ended(&self) -> bool {
        !lock(&self.ends).is_empty()
    }
}

/// Breaks what the incident breaks, and follows it to its end.
pub(super) async fn live(site: Arc<Site>, incident: Incident) {
    let Some(node) = site.world.node_names_at(incident.node) else { return };
    if stage::not_for_engines(&site.world, &node, &incident) {
        return;
    }
    let case = Case::new(site.seed, node, incident);
    stage::set(&site.world, &site.clock, &case.node, &case.incident).await;
    site.clock.sleep(case.incident.noticed_after).await;
    *lock(&case.noticed) = Some(site.clock.now());
    site.cases.add(&case);
    meddle(&site, &case);
    let mut told_first = true;
    for look in 0..LOOKS {
        if !case.is_carried() {
            let open = site.warden.open_run(&format!("{}-", case.name));
            if open.is_none() && case.has_ended() {
                break;
            }
            tell(&site, &case, told_first, look as usize, open.as_ref());
            told_first = false;
        }
        site.clock.sleep(REPEAT).await;
    }
    site.clock.sleep(case.incident.repair_after).await;
    stage::repair(&site.world, &site.clock, &site.warden, &case.node, case.incident.gpu).await;
    site.cases.close(&case);
    site.world.forget_orders(&case.node);
}

/// Lets the person who interferes begin.
fn meddle(site: &Arc<Site>, case: &Arc<Case>) {
    stage::interfere(&site.world, &case.node, &case.incident);
    if let Some(after) = case.incident.cancel {
        let (site, case) = (Arc::clone(site), Arc::clone(case));
        let spawner = site.spawner.clone();
        spawner.spawn("a person at a terminal", async move {
            site.clock.sleep(after).await;
            let [desk, _] = &site.desks;
            let engine = site.engine(9, Arc::new(desk.clone()));
            let Ok(open) = desk.runs(Some(&case.node), true, 3).await else { return };
            for line in open {
                // A run that is over meanwhile refuses, as it should.
                drop(engine.cancel(&line.run, Actor::person("admin2"), "not now").await);
            }
        });
    }
}

/// Sends the alert to the engines that hear of it.
fn tell(site: &Arc<Site>, case: &Arc<Case>, first: bool, look: usize, open: Option<&RunId>) {
    let i = &case.incident;
    // Who dies with a run in hand finds it again in the same journal.
    let theirs = open.is_some_and(|r| r.as_str().starts_with(&format!("{}-{ELSEWHERE}x", case.name)));
    let one = if theirs { ELSEWHERE } else { (i.engine + look) % 2 };
    let mut told = vec![one];
    if first && i.told_twice {
        told.push((one + 1) % 2);
    }
    if first && i.told_elsewhere {
        told.push(ELSEWHERE);
    }
    for engine in told {
        if let Some(process) = site.process(engine) {
            site.carry(&process, case, None);
        }
    }
}

/// What an engine does about a case: plans, asks, carries out; or goes on with a run that a dead engine left.
pub(super) async fn handle(site: &Site, engine: &Engine, case: &Case, run: Option<RunId>) {
    let outcome = match run {
        Some(run) => match engine.recover(&run).await {
            Ok(rest) => go_on(site, engine, case, run, rest).await,
            Err(e) => Err(e),
        },
        None => Box::pin(begin(site, engine, case)).await,
    };
    // An engine that could not go on has left its run to the next one; a run with another engine is in good hands.
    match outcome {
        Ok(Some((run, end))) => case.note_end(run, end),
        Ok(None) | Err(_) => {}
    }
}

type Ended = Option<(RunId, Option<End>)>;

async fn begin(site: &Site, engine: &Engine, case: &Case) -> Result<Ended, EngineError> {
    // A run that was proposed and that nobody drives goes on before another one is made.
    for line in engine.ports.journal.runs(Some(&case.node), true, 8).await? {
        if line.run.as_str().starts_with(case.name.as_str()) {
            return match engine.drive(&line.run).await {
                Ok(rest) => go_on(site, engine, case, line.run, rest).await,
                Err(EngineError::Claimed(_)) => Ok(None),
                Err(e) => Err(e),
            };
        }
    }
    let mut last = None;
    for attempt in 0..PLAN_ATTEMPTS {
        if attempt > 0 {
            engine.ports.clock.sleep(SignedDuration::from_secs(15)).await;
        }
        let request = ProposeRequest {
            playbook: &site.playbook,
            node: case.node.clone(),
            gpu: Some(case.incident.gpu.to_string()),
            params: BTreeMap::new(),
            alert: Alert { id: ALERT_ID.to_owned(), last_seen: Some(engine.ports.clock.now()) },
            initiator: Actor::program("alertmanager", None),
        };
        match engine.plan(request).await {
            Ok(p) => {
                let any = |truth| p.plan.judged.iter().any(|c| c.truth == truth);
                let only_unknown = any(Truth::Unknown) && !any(Truth::False);
                last = Some(p);
                if !only_unknown {
                    break;
                }
            }
            Err(_) => {}
        }
    }
    let Some(proposal) = last else {
        site.cases.unplanned.fetch_add(1, Ordering::SeqCst);
        // Nothing could be planned: people hear of it, and nothing was begun.
        return Ok(Some((engine.ports.ids.run_id(), None)));
    };
    let state = engine.record_plan(proposal).await?;
    let rest = match state.status {
        Status::Ended(end) => Rest::Over(end),
        _ => engine.drive(&state.run).await?,
    };
    go_on(site, engine, case, state.run, rest).await
}

/// An alert's text, as somebody who means ill would write it.
const ALERT_ID: &str = "a\"7'; scontrol update nodename=ALL state=resume {{ 7*7 }}";

/// Asks the person, and drives the run until it is over.
async fn go_on(
    site: &Site,
    engine: &Engine,
    case: &Case,
    run: RunId,
    mut rest: Rest,
) -> Result<Ended, EngineError> {
    let oncall = || Actor::person("oncall");
    for _ in 0..GOES {
        match rest {
            Rest::Over(end) => return Ok(Some((run, Some(end)))),
            Rest::Deferred => site.clock.sleep(SignedDuration::from_mins(1)).await,
            Rest::AwaitsApproval => {
                site.clock.sleep(case.incident.thinks).await;
                let said = match case.incident.answer {
                    Answer::Yes => engine.approve(&run, oncall()).await.map(drop),
                    Answer::No => engine.deny(&run, &oncall(), "not today").await.map(drop),
                    Answer::Nothing => {
                        site.clock.sleep(SignedDuration::from_hours(12)).await;
                        Ok(())
                    }
                };
                match said {
                    Ok(()) | Err(EngineError::WrongStatus { .. }) => {}
                    Err(e) => return Err(e),
                }
            }
        }
        rest = engine.drive(&run).await?;
    }
    Ok(None)
}
