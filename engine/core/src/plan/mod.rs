//! Plans: facts + playbook → the exact steps, guards, approvals and blast radius, as plain data.
//!
//! Making a plan does nothing. A plan is bound to what was observed by its digest, and an approval names that digest.

mod fixed;
mod make;

pub use fixed::FixedPlan;
pub use make::{PlanRequest, Rejection, judge, make_plan};

use crate::action::{ActionSpec, EffectClass};
use crate::condition::{Condition, Truth};
use crate::digest::Digest;
use crate::fact::FactSet;
use crate::model::{NodeName, RunId};
use crate::ownership::NodeMark;
use crate::playbook::{ApprovalClass, Ends, PlaybookRef};
use crate::policy::{Cost, Stage, Verdict};
use crate::run::Actor;
use crate::value::Value;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most attempts a step may take, whatever a playbook or a journal says (rule 13).
pub const MAX_ATTEMPTS: u32 = 10;

/// Version of the stored form of a plan.
pub const PLAN_FORMAT: u32 = 1;

/// Renders `{{ }}` texts; the playbook crate has the one real implementation.
pub trait Render {
    /// Renders a text against facts and params; an unknown fact is an error that names it.
    fn render(&self, template: &str, facts: &FactSet) -> Result<String, String>;
}

/// A GPU named in a way that survives renumbering.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuRef {
    /// DCGM's id when the plan was made.
    pub index: u32,
    /// UUID.
    pub uuid: String,
    /// PCI address.
    pub bus_id: String,
}

/// What a plan is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The node.
    pub node: NodeName,
    /// The GPU, for playbooks whose target is one.
    pub gpu: Option<GpuRef>,
}

/// A condition with what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConditionReport {
    /// As the playbook has it.
    pub source: String,
    /// True, false or unknown; only true permits.
    pub truth: Truth,
    /// The values behind it, for people.
    pub explain: String,
    /// What to do instead, where the playbook says so.
    pub otherwise: Option<String>,
}

impl ConditionReport {
    /// Evaluates a condition.
    pub fn of(condition: &Condition, otherwise: Option<&str>, facts: &FactSet) -> Self {
        let e = condition.evaluate(facts);
        Self {
            source: condition.source().to_owned(),
            truth: e.truth,
            explain: e.explain(),
            otherwise: otherwise.map(str::to_owned),
        }
    }

    /// Says whether it permits.
    pub fn permits(&self) -> bool {
        self.truth == Truth::True
    }
}

/// A precondition as the plan carries it, to be judged again at approval and before the first mutation (rule 8).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedCondition {
    /// The condition.
    pub condition: Condition,
    /// What to do instead.
    pub otherwise: Option<String>,
}

/// A step with everything filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Action name.
    pub action: String,
    /// Effect class, for people; the catalogue decides.
    pub effect: EffectClass,
    /// Arguments.
    pub args: BTreeMap<String, Value>,
    /// The step's own guard.
    pub when: Option<Condition>,
    /// Time limit in seconds.
    pub timeout_s: u64,
    /// Attempts for transient outcomes, the first included.
    pub attempts: u32,
}

impl PlannedStep {
    /// Returns the catalogue entry; `None` when a newer release wrote the plan.
    pub fn spec(&self) -> Option<&'static ActionSpec> {
        crate::action::find(&self.action)
    }

    /// Returns the time limit.
    pub fn timeout(&self) -> SignedDuration {
        SignedDuration::from_secs(i64::try_from(self.timeout_s).unwrap_or(i64::MAX))
    }

    /// Returns a text argument.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.args.get(name) {
            Some(Value::Text(t)) => Some(t),
            _ => None,
        }
    }

    /// Returns a whole-number argument.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.args.get(name) {
            Some(Value::Int(i)) => Some(*i),
            _ => None,
        }
    }
}

/// Who and what is touched if the plan is carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlastRadius {
    /// Nodes taken out of service.
    pub nodes: Vec<NodeName>,
    /// GPUs taken out of service with them.
    pub gpus: Option<u32>,
    /// Jobs on the node when the plan was made; the drain lets them finish.
    pub running_jobs: Vec<RunningJob>,
    /// Whether every job was readable.
    pub jobs_known: bool,
}

/// A job on the node when the plan was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunningJob {
    /// Id as Slurm shows it.
    pub id: String,
    /// Owner, where known.
    pub user: Option<String>,
    /// Whether it is suspended.
    pub suspended: bool,
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of this form.
    pub format: u32,
    /// The run it would become.
    pub run: RunId,
    /// Exactly which playbook.
    pub playbook: PlaybookRef,
    /// The playbook's one sentence.
    pub summary: String,
    /// What it is for.
    pub target: Target,
    /// Who asked.
    pub initiator: Actor,
    /// When it was made.
    pub made_at: Timestamp,
    /// Parameters in force.
    pub params: BTreeMap<String, Value>,
    /// Facts it was judged on.
    pub facts: FactSet,
    /// What people can change about the node, as it was seen.
    pub observed: Option<NodeMark>,
    /// Preconditions, to be judged again.
    pub preconditions: Vec<PlannedCondition>,
    /// Preconditions with what came of them.
    pub judged: Vec<ConditionReport>,
    /// The steps.
    pub steps: Vec<PlannedStep>,
    /// The steps of the way back.
    pub rollback: Vec<PlannedStep>,
    /// Who has to say yes.
    pub approval: ApprovalClass,
    /// How the good end leaves the node.
    pub ends: Ends,
    /// Who and what is touched.
    pub blast: BlastRadius,
    /// How many different people have to say yes, where the site's policy says something else than the class alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvers: Option<u8>,
    /// What the policy said when the plan was made; absent in plans of releases before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Verdict>,
    /// What the run costs the queue; absent where nobody reckoned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// The stage of the playbook's version, where no person began the run and the site has a policy; a person who begins
    /// a run is in no stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
}

impl Plan {
    /// Digests the whole plan: what an approval is bound to (rule 11).
    pub fn digest(&self) -> Result<Digest, serde_json::Error> {
        Digest::of_json(self)
    }

    /// Returns how many different people have to say yes. A policy can ask for more than the playbook's class; for
    /// less only inside the canary scope of a class that allows it.
    pub fn people(&self) -> u8 {
        let class = self.approval.people();
        match (self.approvers, self.approval) {
            (None, _) => class,
            (Some(n), ApprovalClass::Canary) => n,
            (Some(n), _) => n.max(class),
        }
    }

    /// Says whether the plan is carried out in shadow: it changes nothing (rule 2).
    pub fn is_shadow(&self) -> bool {
        self.stage == Some(Stage::Shadow)
    }

    /// Returns the worst effect class of its steps.
    pub fn worst_effect(&self) -> EffectClass {
        self.steps.iter().map(|s| s.effect).max().unwrap_or(EffectClass::Read)
    }
}
