//! Proposing: from a request to a plan, and from a plan to a run that waits for its approval.

use super::{Engine, EngineError};
use crate::gather::Situation;
use crate::journal::{JournalError, NewEvent};
use engine_core::condition::Truth;
use engine_core::fact::{FactSet, Source};
use engine_core::known::{Known, Unknown};
use engine_core::model::{Gpu, NodeGpus, NodeName, RunId};
use engine_core::ownership::NodeMark;
use engine_core::plan::{FixedPlan, GpuRef, Plan, PlanRequest, Rejection, judge, make_plan};
use engine_core::playbook::{Playbook, TargetKind};
use engine_core::policy::{Outcome, Stage};
use engine_core::run::{Actor, End, EventKind, RunState};
use engine_core::value::Value;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// The alert behind a request.
#[derive(Debug, Clone, Default)]
pub struct Alert {
    /// Its identifier: text from outside, never a template.
    pub id: String,
    /// When it was last seen firing.
    pub last_seen: Option<Timestamp>,
}

/// A request for a plan.
#[derive(Debug, Clone)]
pub struct ProposeRequest<'a> {
    /// The playbook.
    pub playbook: &'a Playbook,
    /// The node: accepted only if the controller knows exactly this name.
    pub node: NodeName,
    /// Index, UUID or bus id; without it the playbook's `select` chooses.
    pub gpu: Option<String>,
    /// Parameters.
    pub params: BTreeMap<String, Value>,
    /// The alert, where there is one.
    pub alert: Alert,
    /// Who asks.
    pub initiator: Actor,
}

/// A plan with the look it was made on. Nothing is on record yet.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The plan.
    pub plan: Plan,
    /// Why the plan may not become a run, in sentences; empty if it may.
    pub objections: Vec<String>,
}

/// Why no plan could be made.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// The node could not be read, so there is nothing to plan on.
    #[error("node {node} could not be read: {why}")]
    Node {
        /// The node.
        node: NodeName,
        /// Why not.
        why: Unknown,
    },
    /// Which GPU is meant could not be told.
    #[error("which GPU of {node} is meant could not be told: {why}")]
    Gpu {
        /// The node.
        node: NodeName,
        /// Why not.
        why: String,
    },
    /// The playbook cannot be filled in.
    #[error(transparent)]
    Rejected(#[from] Rejection),
}

impl Engine {
    /// Looks at the target and makes a plan. Changes nothing and records nothing.
    pub async fn plan(&self, request: ProposeRequest<'_>) -> Result<Proposal, ProposeError> {
        let wants_gpus = request.playbook.target == TargetKind::Gpu;
        let eyes = self.eyes();
        let began = self.recent.begin(&request.node);
        let version = async {
            match self.ports.scheduler.controller().await {
                Ok(c) => c.value.version,
                Err(u) => Known::Unknown(u),
            }
        };
        let look = async {
            let unread = Known::unknown(engine_core::Cause::NotObserved, "not read yet");
            if wants_gpus {
                eyes.look(&request.node, unread, self.config.inspect_limit).await
            } else {
                eyes.look_at_slurm(&request.node, unread).await
            }
        };
        let (version, mut situation) = tokio::join!(version, look);
        situation.slurm_version = version;
        if situation.slurm_is_readable().is_ok() && situation.mark().is_known() {
            self.recent.keep(&request.node, began, &situation);
        }
        if let Err(why) = &situation.node {
            return Err(ProposeError::Node { node: request.node, why: why.clone() });
        }
        let gpu = if wants_gpus { Some(choose_gpu(&request, &situation)?) } else { None };
        let now = self.ports.clock.now();
        let mut facts = situation.facts(gpu.as_ref());
        self.engine_facts(&mut facts, &situation, now, None).await;
        request_facts(&mut facts, &request.alert, now);
        let mut plan = make_plan(
            PlanRequest {
                run: self.ports.ids.run_id(),
                playbook: request.playbook,
                node: request.node,
                gpu,
                params: request.params,
                facts,
                observed: situation.mark(),
                jobs: situation.known_jobs(),
                initiator: request.initiator,
                now,
            },
            &*self.render,
        )?;
        let mut objections = objections(&plan);
        plan.stage = self.gate.stage(&plan.playbook, &plan.initiator);
        if plan.stage == Some(Stage::Off) {
            objections.push(format!("the stage of {} is off", plan.playbook));
        }
        let (judged, cost) = tokio::join!(self.gate.judge(&plan), self.gate.cost(&plan, &situation));
        plan.cost = cost;
        if let Some(judged) = judged {
            if judged.verdict.outcome == Outcome::Deny {
                let says = judged.verdict.obstacles().map(|f| f.says.as_str());
                objections.push(format!("the policy says no: {}", says.collect::<Vec<_>>().join("; ")));
            }
            plan.approvers = Some(judged.approvers);
            plan.policy = Some(judged.verdict);
        }
        Ok(Proposal { plan, objections })
    }

    /// Puts a plan on record as a run: rejected at once where it has objections, else waiting to go on.
    pub async fn record_plan(&self, proposal: Proposal) -> Result<RunState, EngineError> {
        let now = self.ports.clock.now();
        let plan = proposal.plan;
        self.ports.journal.pin_playbook(&plan.playbook, now).await?;
        let plan = FixedPlan::from(plan);
        let digest = plan.digest()?;
        let run = plan.run.clone();
        let proposed = EventKind::Proposed { plan, digest };
        let new = if proposal.objections.is_empty() {
            self.with_followers(None, &run, proposed, now).0
        } else {
            let why = proposal.objections.join("; ");
            let ended = EventKind::Ended { end: End::Rejected, why, next_step: String::new(), by: None };
            vec![NewEvent { at: now, kind: proposed }, NewEvent { at: now, kind: ended }]
        };
        let events = self.ports.journal.append_events(&run, 0, new).await?;
        let illegal = |source| EngineError::Illegal { run: run.clone(), source };
        let mut events = events.iter();
        let begun = events.next().ok_or_else(|| JournalError::NoSuchRun(run.clone()))?;
        let mut state = RunState::begin(begun).map_err(illegal)?;
        self.tell(begun, &state);
        for e in events {
            state.apply(e).map_err(illegal)?;
            self.tell(e, &state);
        }
        Ok(state)
    }

    /// Adds what only the engine knows: whether the node carries a drain of one of our own runs; of `own`, where it is that
    /// one.
    pub(super) async fn engine_facts(
        &self,
        facts: &mut FactSet,
        situation: &Situation,
        now: Timestamp,
        own: Option<&RunState>,
    ) {
        let ours = match situation.mark() {
            Known::Unknown(u) => Known::Unknown(u),
            Known::Known(mark) => Known::Known(Value::Bool(self.is_our_drain(&mark, own).await)),
        };
        facts.set("node.drained_by_us", ours, Source::Slurm, now);
    }

    /// Says whether a drain was made by a run of this journal and is unchanged since. A token alone proves nothing.
    pub async fn drain_is_from_our_journal(&self, mark: &NodeMark) -> bool {
        self.is_our_drain(mark, None).await
    }

    async fn is_our_drain(&self, mark: &NodeMark, own: Option<&RunState>) -> bool {
        let Some(reason) = mark.reason.as_ref().filter(|_| mark.is_drained()) else { return false };
        let Some(run) = engine_core::ownership::run_of_reason(&reason.text) else { return false };
        if let Some(own) = own.filter(|s| s.run == run) {
            return own.our_drain.as_ref().is_some_and(|made| mark.is_our_drain(made));
        }
        let Ok(state) = self.state(&run).await else { return false };
        state.our_drain.as_ref().is_some_and(|made| mark.is_our_drain(made))
    }
}

fn request_facts(facts: &mut FactSet, alert: &Alert, now: Timestamp) {
    facts.set("alert.id", Known::Known(Value::Text(alert.id.clone())), Source::Request, now);
    if let Some(seen) = alert.last_seen {
        // The journal keeps lengths of time to the millisecond, and takes none that it would not give back.
        let age = SignedDuration::from_millis(
            i64::try_from(now.duration_since(seen).as_millis()).unwrap_or(i64::MAX),
        );
        facts.set("alert.age", Known::Known(Value::Duration(age)), Source::Engine, now);
    }
}

/// Says in sentences why a plan may not become a run.
fn objections(plan: &Plan) -> Vec<String> {
    plan.judged
        .iter()
        .filter(|c| !c.permits())
        .map(|c| {
            let verdict = if c.truth == Truth::Unknown { "is not known" } else { "does not hold" };
            let otherwise = c.otherwise.as_ref().map(|o| format!(" ({o})")).unwrap_or_default();
            format!("`{}` {verdict}: {}{otherwise}", c.source, c.explain)
        })
        .collect()
}

/// Chooses the GPU: the one named, else the only one for which the playbook's `select` is true.
fn choose_gpu(request: &ProposeRequest<'_>, situation: &Situation) -> Result<GpuRef, ProposeError> {
    let fail = |why: String| ProposeError::Gpu { node: request.node.clone(), why };
    let gpus = match situation.known_gpus() {
        Known::Known(g) => g,
        Known::Unknown(u) => return Err(fail(format!("the GPUs are {u}"))),
    };
    if let Some(named) = &request.gpu {
        let shown: String = named.chars().take(60).collect();
        let gpu = gpus.find(named).ok_or_else(|| {
            fail(format!("{shown:?} is not exactly one of {}: give an index, a UUID or a bus id", list(gpus)))
        })?;
        return name_gpu(gpu).map_err(fail);
    }
    let Some(select) = &request.playbook.select else {
        return Err(fail(format!("name it with --gpu; there are {}", list(gpus))));
    };
    let condition = [engine_core::plan::PlannedCondition { condition: select.clone(), otherwise: None }];
    let mut chosen = Vec::new();
    let mut unclear = Vec::new();
    for gpu in &gpus.gpus {
        let Ok(name) = name_gpu(gpu) else {
            unclear.push(format!("GPU {} has no readable UUID and bus id", gpu.index));
            continue;
        };
        let facts = situation.facts(Some(&name));
        for report in judge(&condition, &facts) {
            match report.truth {
                Truth::True => chosen.push(name.clone()),
                Truth::False => {}
                Truth::Unknown => unclear.push(format!("GPU {}: {}", gpu.index, report.explain)),
            }
        }
    }
    match (chosen.as_slice(), unclear.as_slice()) {
        ([one], _) => Ok(one.clone()),
        ([], []) => Err(fail(format!(
            "`{}` is true for none of {}: there is nothing to repair, or name the GPU with --gpu",
            select.source(),
            list(gpus)
        ))),
        ([], some) => Err(fail(format!("`{}` cannot be told: {}", select.source(), some.join("; ")))),
        (many, _) => {
            let which: Vec<String> = many.iter().map(|g| g.index.to_string()).collect();
            Err(fail(format!(
                "`{}` is true for {} GPUs ({}): several at once point to a cause one level up; name one with --gpu",
                select.source(),
                many.len(),
                which.join(", ")
            )))
        }
    }
}

fn name_gpu(gpu: &Gpu) -> Result<GpuRef, String> {
    match (&gpu.uuid, &gpu.bus_id) {
        (Known::Known(uuid), Known::Known(bus_id)) => {
            Ok(GpuRef { index: gpu.index, uuid: uuid.clone(), bus_id: bus_id.clone() })
        }
        (Known::Unknown(u), _) | (_, Known::Unknown(u)) => Err(format!("GPU {}: {u}", gpu.index)),
    }
}

fn list(gpus: &NodeGpus) -> String {
    match gpus.gpus.len() {
        0 => "no GPU".to_owned(),
        n => format!("{n} GPUs (0 to {})", gpus.gpus.iter().map(|g| g.index).max().unwrap_or(0)),
    }
}

/// Run ids from time and chance: `r` and twelve letters and digits, sorted by time.
#[derive(Debug, Default)]
pub struct TimeIds;

impl crate::ports::Ids for TimeIds {
    fn run_id(&self) -> RunId {
        let uuid = uuid::Uuid::now_v7().simple().to_string();
        // 48 bits of milliseconds, then chance from the end: 12 + 6 digits are enough for one journal.
        let text = format!("r{}{}", uuid.get(2..12).unwrap_or("0"), uuid.get(26..32).unwrap_or("0"));
        RunId::new(&text).unwrap_or_else(|_| RunId::unknown())
    }
}
