//! What people ask of the engine, done on its journal: the same for a verb at the terminal and for a request.
//!
//! Nothing here judges who may ask; the faces do, before they come here.

use crate::documents::{Closed, Decided, Incidents, Runs, Show, StopList, StopNow, Stopped, Why};
use crate::problem::{Problem, ProblemKind};
use engine_core::digest::Digest;
use engine_core::incident::{Closing, FleetEvent, Incident, Phase, QueuedWork, Scope, Subject, Trouble};
use engine_core::known::Known;
use engine_core::model::{NodeName, RunId};
use engine_core::observe::state_word;
use engine_core::ownership::{NodeMark, run_of_reason};
use engine_core::run::{Actor, EventKind, RunState, fold};
use engine_runtime::approval::Ticket;
use engine_runtime::engine::Engine;
use engine_runtime::fleet::FleetLog;
use engine_runtime::journal::RunSummary;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// The most runs or incidents of one answer.
pub(crate) const MAX_LISTED: usize = 10_000;
/// The longest reason that goes on record, in bytes.
const MAX_REASON: usize = 500;
/// Runs of a node that `why` tells.
const LAST_RUNS: usize = 5;

/// An engine with its journal, and the record of its fleet.
#[derive(Debug, Clone)]
pub struct Desk {
    engine: Engine,
    log: Arc<OnceCell<Arc<FleetLog>>>,
}

/// What a stop or a release is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stops {
    /// Everything in the scope stands still.
    Pause,
    /// It goes on; what waited is dropped or judged anew.
    Release(QueuedWork),
}

impl Desk {
    /// Builds the desk. The record of the fleet is opened when it is first needed.
    pub fn new(engine: Engine) -> Self {
        Self { engine, log: Arc::default() }
    }

    /// Builds the desk on a record of the fleet that is open already.
    pub fn with_log(engine: Engine, log: Arc<FleetLog>) -> Self {
        Self { engine, log: Arc::new(OnceCell::new_with(Some(log))) }
    }

    /// Returns the engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Returns the record of the fleet, as far as anybody wrote it.
    pub async fn log(&self) -> Result<&Arc<FleetLog>, Problem> {
        let ports = &self.engine.ports;
        let open = || async {
            FleetLog::open(Arc::clone(&ports.journal), Arc::clone(&ports.clock)).await.map(Arc::new)
        };
        let log = self.log.get_or_try_init(open).await?;
        log.sync().await?;
        Ok(log)
    }

    /// Finds a run by its id or the beginning of it.
    pub async fn find(&self, text: &str) -> Result<RunId, Problem> {
        let runs = self.engine.ports.journal.runs(None, false, MAX_LISTED).await?;
        let shown: String = text.chars().take(40).map(|c| if c.is_control() { '?' } else { c }).collect();
        let hits: Vec<&RunId> =
            runs.iter().map(|r| &r.run).filter(|r| r.as_str().starts_with(text)).collect();
        match hits.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(Problem::new(ProblemKind::NotFound, format!("there is no run {shown}"))
                .with_hint("`slurmedic runs` lists them")),
            many => match many.iter().find(|r| r.as_str() == text) {
                Some(exact) => Ok((**exact).clone()),
                None => Err(Problem::usage(format!(
                    "{} runs begin with {shown}: give more of the id",
                    many.len()
                ))),
            },
        }
    }

    /// Lists runs, newest first.
    pub async fn runs(&self, node: Option<&NodeName>, open: bool, limit: usize) -> Result<Runs, Problem> {
        let journal = &self.engine.ports.journal;
        let runs = journal.runs(node, open, limit.min(MAX_LISTED)).await?;
        Ok(Runs { format: "slurmedic/runs/1".to_owned(), runs, interrupted: journal.orphans().await? })
    }

    /// Tells one run.
    pub async fn show(&self, run: &RunId) -> Result<Show, Problem> {
        let events = self.engine.ports.journal.load(run).await?;
        let state = fold(&events).map_err(|e| {
            Problem::failed("the run does not hold together", &e)
                .with_hint("`slurmedic journal verify` tells more")
        })?;
        let status = state.status.as_str().to_owned();
        Ok(Show { format: "slurmedic/show/1".to_owned(), run: run.clone(), status, events })
    }

    /// Takes a person's yes. With `digest`, only to that plan.
    pub async fn approve(&self, run: &RunId, by: Actor, digest: Option<&Digest>) -> Result<Decided, Problem> {
        if let Some(wanted) = digest {
            let found = self.engine.state(run).await?.digest;
            if found != *wanted {
                return Err(Problem::new(
                    ProblemKind::Conflict,
                    format!("the plan of run {run} is {}, not {}", found.short(), wanted.short()),
                )
                .with_hint(format!("look at it again: slurmedic show {run}")));
            }
        }
        let name = by.name.clone();
        let state = self.engine.approve(run, by).await?;
        Ok(decided("slurmedic/approve/1", &state, name))
    }

    /// Takes the yes of a ticket.
    pub async fn approve_by_ticket(&self, ticket: &Ticket) -> Result<Decided, Problem> {
        let state = self.engine.approve_by_ticket(ticket).await?;
        Ok(decided("slurmedic/approve/1", &state, ticket.person.clone()))
    }

    /// Takes a person's no.
    pub async fn deny(&self, run: &RunId, by: &Actor, why: &str) -> Result<Decided, Problem> {
        let state = self.engine.deny(run, by, &reason(why)?).await?;
        Ok(decided("slurmedic/deny/1", &state, by.name.clone()))
    }

    /// Asks a run to stop at its nearest safe point.
    pub async fn cancel(&self, run: &RunId, by: Actor, why: &str) -> Result<Decided, Problem> {
        let name = by.name.clone();
        let state = self.engine.cancel(run, by, &reason(why)?).await?;
        Ok(decided("slurmedic/cancel/1", &state, name))
    }

    /// Lists what is open, oldest first.
    pub async fn incidents(&self, limit: usize) -> Result<Incidents, Problem> {
        let (stops, open, incidents) = self
            .log()
            .await?
            .read(|f| {
                let stops: Vec<String> = f.switches().iter().map(|(scope, s)| s.sentence(scope)).collect();
                let listed = f.incidents().take(limit.min(MAX_LISTED)).cloned().collect::<Vec<_>>();
                (stops, f.open(), listed)
            })
            .await;
        Ok(Incidents { format: "slurmedic/incidents/1".to_owned(), stops, open, incidents })
    }

    /// Closes the incident of a node that a person has: they say that it is done. One that the engine works on is not
    /// closed under its hands.
    pub async fn close(&self, incident: &str, by: &Actor, why: &str) -> Result<Closed, Problem> {
        let why = format!("{by} says: {}", reason(why)?);
        let log = self.log().await?;
        let found = log
            .write(|draft| {
                let all = || draft.state.incidents().filter(|i| i.id.to_string() == incident);
                let Some((id, node, phase)) = all().find_map(|i| Some((i.id, on(i)?, i.phase.clone())))
                else {
                    return Ok(Err(None));
                };
                if let Phase::Running { run } = phase {
                    return Ok(Err(Some(run)));
                }
                let why = why.clone();
                draft.push(FleetEvent::Closed { incident: id, closing: Closing::Done, why })?;
                Ok(Ok((id, node)))
            })
            .await?;
        match found {
            Ok((id, node)) => Ok(Closed {
                format: "slurmedic/closed/1".to_owned(),
                incident: id.to_string(),
                node,
                by: by.name.clone(),
            }),
            Err(None) => {
                let shown: String = incident.chars().take(40).filter(|c| !c.is_control()).collect();
                Err(Problem::new(ProblemKind::NotFound, format!("no incident {shown} of a node is open"))
                    .with_hint("`slurmedic incidents` lists them"))
            }
            Err(Some(run)) => {
                Err(Problem::new(ProblemKind::Conflict, format!("run {run} works on incident {incident}"))
                    .with_hint(format!("`slurmedic deny {run}` or `slurmedic cancel {run}` ends it first")))
            }
        }
    }

    /// Lists what stands still.
    pub async fn stops(&self) -> Result<StopList, Problem> {
        let list = |f: &engine_core::incident::FleetState| -> Vec<StopNow> {
            f.switches().iter().map(|(a, b)| StopNow { scope: a.clone(), stop: b.clone() }).collect()
        };
        let stops = self.log().await?.read(list).await;
        Ok(StopList { format: "slurmedic/breaker/1".to_owned(), stops })
    }

    /// Stops a scope, or lets it go on.
    pub async fn switch(&self, scope: &Scope, what: Stops, by: Actor, why: &str) -> Result<Stopped, Problem> {
        let why = reason(why)?;
        let log = self.log().await?;
        let (event, now) = match what {
            Stops::Pause => (FleetEvent::Stopped { scope: scope.clone(), by, why }, "stands still"),
            Stops::Release(queued) => {
                if log.read(|f| f.switches().find(scope).is_none()).await {
                    let error = format!("{scope} does not stand still");
                    return Err(Problem::new(ProblemKind::Conflict, error)
                        .with_hint("`slurmedic breaker` shows what does"));
                }
                (FleetEvent::Released { scope: scope.clone(), by, why, queued }, "goes on")
            }
        };
        log.note(event).await?;
        Ok(stopped(scope, now))
    }

    /// Records that a run did what it should not have done; its playbook stops.
    pub async fn wrong(&self, run: &RunId, by: &Actor, why: &str) -> Result<Stopped, Problem> {
        let playbook = self.engine.state(run).await?.plan.playbook.id.clone();
        let scope = Scope::Playbook(playbook.clone());
        let why = format!("{by} says: {}", reason(why)?);
        let log = self.log().await?;
        let troubled =
            FleetEvent::Troubled { run: run.clone(), playbook, trouble: Trouble::Wrongful, why: why.clone() };
        let tripped = FleetEvent::Tripped { scope: scope.clone(), why, nodes: Vec::new() };
        log.write(|draft| {
            draft.push(troubled.clone())?;
            if draft.state.switches().find(&scope).is_none() {
                draft.push(tripped.clone())?;
            }
            Ok(())
        })
        .await?;
        Ok(stopped(&scope, "stands still"))
    }

    /// Says why a node is as it is, from Slurm and from the journal.
    pub async fn why(&self, node: &NodeName) -> Result<Why, Problem> {
        let ports = &self.engine.ports;
        let (read, reservations) = tokio::join!(ports.scheduler.node(node), ports.scheduler.reservations());
        if read.is_err() {
            self.exists(node).await?;
        }
        let mark = match (&read, &reservations) {
            (Ok(n), Ok(r)) => NodeMark::of(&n.value, &r.value, ports.clock.now()),
            (Err(u), _) | (_, Err(u)) => Known::Unknown(u.clone()),
        };
        let ours = match &mark {
            Known::Known(m) => self.engine.drain_is_from_our_journal(m).await,
            Known::Unknown(_) => false,
        };
        let shown = match &read {
            Ok(n) => serde_json::to_value(&n.value),
            Err(u) => serde_json::to_value(Known::<()>::Unknown(u.clone())),
        };
        let runs = ports.journal.runs(Some(node), false, LAST_RUNS).await?;
        let next = self.next_of(runs.first()).await?;
        Ok(Why {
            format: "slurmedic/why/1".to_owned(),
            node: shown.map_err(|e| Problem::failed("the answer could not be encoded", &e))?,
            state: read.as_ref().ok().map(|n| state_word(&n.value)),
            slurm: match &mark {
                Known::Known(m) => m.describe(),
                Known::Unknown(u) => u.to_string(),
            },
            drain_is_ours: ours,
            drain: match &mark {
                Known::Known(m) => Some(whose_drain(m, ours)),
                Known::Unknown(_) => None,
            },
            runs,
            next,
        })
    }

    async fn next_of(&self, last: Option<&RunSummary>) -> Result<Option<String>, Problem> {
        let Some(last) = last else { return Ok(None) };
        let events = self.engine.ports.journal.load(&last.run).await?;
        Ok(match events.last().map(|e| &e.kind) {
            Some(EventKind::Ended { next_step, .. }) if !next_step.is_empty() => Some(next_step.clone()),
            _ => None,
        })
    }

    /// A node that could not be read may not exist at all.
    pub(crate) async fn exists(&self, node: &NodeName) -> Result<(), Problem> {
        match self.engine.ports.scheduler.nodes().await {
            Ok(all) if !all.value.is_empty() && all.value.iter().all(|n| n.name != *node) => {
                let error = format!("there is no node {node} in this cluster of {}", all.value.len());
                Err(Problem::new(ProblemKind::NotFound, error)
                    .with_hint("`scontrol show nodes` lists the names"))
            }
            _ => Ok(()),
        }
    }
}

fn decided(format: &str, state: &RunState, by: String) -> Decided {
    Decided {
        format: format.to_owned(),
        run: state.run.clone(),
        status: state.status.as_str().to_owned(),
        why: state.why.clone(),
        by,
    }
}

/// Names what an incident is about, where a person may close it; a breaker is released instead.
fn on(incident: &Incident) -> Option<String> {
    match &incident.subject {
        Subject::Node { node, .. } => Some(node.to_string()),
        Subject::Tool { tool } => Some(tool.clone()),
        Subject::Rack { rack, .. } => Some(format!("rack {rack}")),
        Subject::Breaker { .. } => None,
    }
}

fn stopped(scope: &Scope, now: &str) -> Stopped {
    Stopped { format: "slurmedic/breaker/1".to_owned(), scope: scope.clone(), now: now.to_owned() }
}

/// Accepts a reason for the record: one line, bounded, not empty.
fn reason(text: &str) -> Result<String, Problem> {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = line.trim();
    if line.is_empty() {
        return Err(Problem::usage("a reason is needed: it goes on record"));
    }
    if line.len() > MAX_REASON {
        return Err(Problem::usage(format!(
            "the reason has {} bytes; at most {MAX_REASON} go on record",
            line.len()
        )));
    }
    Ok(line.to_owned())
}

fn whose_drain(mark: &NodeMark, ours: bool) -> String {
    let text = mark.reason.as_ref().map(|r| r.text.clone()).unwrap_or_default();
    match (mark.is_drained(), ours, run_of_reason(&text)) {
        (false, _, _) => "The node is not drained.".to_owned(),
        (true, true, _) => "The drain is ours and unchanged.".to_owned(),
        (true, false, Some(run)) => format!(
            "The reason names run {run}, but this journal did not make it, or somebody changed it since: it is treated as a person's."
        ),
        (true, false, None) => {
            "The drain is a person's or another tool's: Slurmedic does not touch it.".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_bounded_line() {
        assert_eq!(reason(" power\nwork\u{1b} ").unwrap(), "power work");
        for bad in ["", "  \n", &"x".repeat(501)] {
            assert_eq!(reason(bad).unwrap_err().kind, ProblemKind::Usage);
        }
    }
}
