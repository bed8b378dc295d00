//! Making a plan: pure, the same input gives the same plan.

use super::{
    BlastRadius, ConditionReport, GpuRef, MAX_ATTEMPTS, PLAN_FORMAT, Plan, PlannedCondition, PlannedStep,
    Render, RunningJob, Target,
};
use crate::condition::Truth;
use crate::fact::{FactSet, Source};
use crate::known::Known;
use crate::model::{Job, NodeName, RunId};
use crate::ownership::NodeMark;
use crate::playbook::{ArgValue, Playbook, Step, TargetKind};
use crate::run::Actor;
use crate::value::{Type, Value, parse_duration};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// The longest text taken for a version, in bytes.
const MAX_VERSION: usize = 64;

/// Everything a plan is made from.
#[derive(Debug)]
pub struct PlanRequest<'a> {
    /// The run it would become.
    pub run: RunId,
    /// The playbook.
    pub playbook: &'a Playbook,
    /// The node.
    pub node: NodeName,
    /// The GPU, where the caller or the playbook's `select` chose one.
    pub gpu: Option<GpuRef>,
    /// Parameters the caller set.
    pub params: BTreeMap<String, Value>,
    /// Facts about the target.
    pub facts: FactSet,
    /// What people can change about the node.
    pub observed: Known<NodeMark>,
    /// Jobs on the node.
    pub jobs: Known<Vec<Job>>,
    /// Who asks.
    pub initiator: Actor,
    /// The time.
    pub now: Timestamp,
}

/// Why no plan could be made at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// A parameter is not declared.
    #[error("{playbook} has no parameter `{name}`{}", hint.as_ref().map(|h| format!("; did you mean `{h}`?")).unwrap_or_default())]
    UnknownParam {
        /// The playbook.
        playbook: String,
        /// The name given.
        name: String,
        /// The nearest declared name.
        hint: Option<String>,
    },
    /// A parameter has no default and was not given.
    #[error("{playbook} needs the parameter `{name}`: give it with --param {name}=VALUE")]
    MissingParam {
        /// The playbook.
        playbook: String,
        /// The parameter.
        name: String,
    },
    /// A parameter is outside its limits or of another type.
    #[error("parameter `{name}`: {why}")]
    BadParam {
        /// The parameter.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The playbook is for one GPU and none was chosen.
    #[error("{playbook} is for one GPU and none was chosen: {why}")]
    NoGpu {
        /// The playbook.
        playbook: String,
        /// What is wrong.
        why: String,
    },
    /// An argument could not be filled in.
    #[error("step {step} ({action}), argument `{arg}`: {why}")]
    BadArgument {
        /// Place of the step, from 1.
        step: usize,
        /// Its action.
        action: String,
        /// The argument.
        arg: String,
        /// What is wrong.
        why: String,
    },
}

/// Judges preconditions on facts.
pub fn judge(preconditions: &[PlannedCondition], facts: &FactSet) -> Vec<ConditionReport> {
    preconditions.iter().map(|p| ConditionReport::of(&p.condition, p.otherwise.as_deref(), facts)).collect()
}

/// Makes a plan. Preconditions that do not hold are part of the plan (`judged`), not an error: `plan` shows them,
/// `run` rejects on them.
pub fn make_plan(request: PlanRequest<'_>, render: &dyn Render) -> Result<Plan, Rejection> {
    let playbook = request.playbook;
    let params = fill_params(playbook, request.params)?;
    let mut facts = request.facts;
    for (name, value) in &params {
        facts.set(format!("params.{name}"), Known::Known(value.clone()), Source::Request, request.now);
    }
    if playbook.target == TargetKind::Gpu && request.gpu.is_none() {
        let playbook = playbook.reference.to_string();
        return Err(Rejection::NoGpu {
            playbook,
            why: "name it with --gpu INDEX, UUID or BUS_ID".to_owned(),
        });
    }
    let preconditions: Vec<_> = playbook
        .preconditions
        .iter()
        .map(|p| PlannedCondition { condition: p.condition.clone(), otherwise: p.otherwise.clone() })
        .collect();
    let mut judged = judge(&preconditions, &facts);
    judged.extend(judge_requirements(playbook, &facts));
    let (observed, unseen) = match request.observed {
        Known::Known(mark) => (Some(mark), None),
        Known::Unknown(u) => (None, Some(u)),
    };
    if let Some(u) = unseen {
        judged.push(ConditionReport {
            source: "the node's state, flags and reason are readable".to_owned(),
            truth: Truth::Unknown,
            explain: u.to_string(),
            otherwise: None,
        });
    }
    let steps = plan_steps(&playbook.steps, &facts, render)?;
    let rollback = plan_steps(&playbook.rollback, &facts, render)?;
    let takes_out = steps.iter().any(|s| s.effect.mutates());
    let (running_jobs, jobs_known) = match &request.jobs {
        Known::Known(jobs) => (jobs.iter().filter(|j| j.holds_node()).map(running_job).collect(), true),
        Known::Unknown(_) => (Vec::new(), false),
    };
    let gpus = match facts.value("node.gpus_configured") {
        Known::Known(Value::Int(n)) => u32::try_from(n).ok(),
        _ => None,
    };
    Ok(Plan {
        format: PLAN_FORMAT,
        run: request.run,
        playbook: playbook.reference.clone(),
        summary: playbook.summary.clone(),
        blast: BlastRadius {
            nodes: if takes_out { vec![request.node.clone()] } else { Vec::new() },
            gpus,
            running_jobs,
            jobs_known,
        },
        target: Target { node: request.node, gpu: request.gpu },
        initiator: request.initiator,
        made_at: request.now,
        params,
        facts,
        observed,
        preconditions,
        judged,
        steps,
        rollback,
        approval: playbook.approval,
        ends: playbook.ends,
        policy: None,
        cost: None,
        approvers: None,
        stage: None,
    })
}

fn running_job(job: &Job) -> RunningJob {
    RunningJob { id: job.display_id.clone(), user: job.user.known().cloned(), suspended: job.is_suspended() }
}

fn fill_params(
    playbook: &Playbook,
    mut given: BTreeMap<String, Value>,
) -> Result<BTreeMap<String, Value>, Rejection> {
    let mut out = BTreeMap::new();
    for (name, decl) in &playbook.params {
        let value = match given.remove(name).or_else(|| decl.default.clone()) {
            Some(v) => v,
            None => {
                return Err(Rejection::MissingParam {
                    playbook: playbook.reference.to_string(),
                    name: name.clone(),
                });
            }
        };
        let bad = |why: String| Rejection::BadParam { name: name.clone(), why };
        if !value.is_of(decl.ty) {
            return Err(bad(format!("{value} is not of type {}", decl.ty)));
        }
        // A limit that cannot be compared with is not kept: what cannot be judged does not permit.
        let order = |bound: &Value| {
            let why = || bad(format!("{value} cannot be compared with its limit {bound}"));
            value.partial_cmp_same(bound).ok_or_else(why)
        };
        if let Some(min) = &decl.min
            && order(min)?.is_lt()
        {
            return Err(bad(format!("{value} is less than the {min} allowed")));
        }
        if let Some(max) = &decl.max
            && order(max)?.is_gt()
        {
            return Err(bad(format!("{value} is more than the {max} allowed")));
        }
        out.insert(name.clone(), value);
    }
    if let Some(name) = given.into_keys().next() {
        let hint =
            crate::diag::did_you_mean(&name, playbook.params.keys().map(String::as_str)).map(str::to_owned);
        return Err(Rejection::UnknownParam { playbook: playbook.reference.to_string(), name, hint });
    }
    Ok(out)
}

/// Judges `requires` on the versions that were read; what could not be read does not permit.
fn judge_requirements(playbook: &Playbook, facts: &FactSet) -> Vec<ConditionReport> {
    let mut out = Vec::new();
    for (wanted, fact) in
        [(&playbook.requires.slurm, "slurm.version"), (&playbook.requires.dcgm, "dcgm.version")]
    {
        let Some(req) = wanted else { continue };
        let (truth, explain) = match facts.value(fact) {
            Known::Known(Value::Version(v) | Value::Text(v)) => match lenient_version(&v) {
                Some(parsed) => {
                    (if req.matches(&parsed) { Truth::True } else { Truth::False }, format!("{fact} = {v}"))
                }
                None => (Truth::Unknown, format!("{fact} = {v}, which is not a version")),
            },
            Known::Known(other) => (Truth::Unknown, format!("{fact} = {other}, which is not a version")),
            Known::Unknown(u) => (Truth::Unknown, format!("{fact} is {u}")),
        };
        out.push(ConditionReport {
            source: format!("requires {fact} {}", as_released(req)),
            truth,
            explain,
            otherwise: None,
        });
    }
    out
}

/// Writes a requirement as releases are written: Slurm's months have two digits.
fn as_released(req: &semver::VersionReq) -> String {
    let text = req.to_string();
    let mut out = String::with_capacity(text.len() + 2);
    let mut numbers = text.split('.').peekable();
    while let Some(part) = numbers.next() {
        let year = part.ends_with(|c: char| c.is_ascii_digit())
            && part.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().is_ok_and(|n: u32| n >= 20);
        out.push_str(part);
        if let Some(next) = numbers.peek() {
            out.push('.');
            let digits = next.chars().take_while(char::is_ascii_digit).count();
            if year && digits == 1 {
                out.push('0');
            }
        }
    }
    out
}

/// Reads `24.05.3`, `22.05.8-1`, `4.6` as a semantic version: leading zeros dropped, missing parts zero, packaging
/// suffix (`-1`, `+ubuntu2`) cut. Anything else, a pre-release included, has a meaning nobody here knows: `None`.
pub(crate) fn lenient_version(text: &str) -> Option<semver::Version> {
    if text.len() > MAX_VERSION {
        return None;
    }
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (numbers, suffix) = text.split_at(end);
    let packaging = suffix.is_empty()
        || (suffix.starts_with(['-', '+'])
            && suffix
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+' | b'~' | b'_')));
    let lower = suffix.to_ascii_lowercase();
    if !packaging || ["rc", "pre", "alpha", "beta", "dev"].iter().any(|word| lower.contains(word)) {
        return None;
    }
    // Every part must be a number, also those that a semantic version has no place for.
    let parts = numbers.split('.').map(str::parse::<u64>).collect::<Result<Vec<_>, _>>().ok()?;
    let part = |i: usize| parts.get(i).copied().unwrap_or(0);
    Some(semver::Version::new(part(0), part(1), part(2)))
}

fn plan_steps(steps: &[Step], facts: &FactSet, render: &dyn Render) -> Result<Vec<PlannedStep>, Rejection> {
    steps.iter().enumerate().map(|(i, s)| plan_step(i + 1, s, facts, render)).collect()
}

fn plan_step(
    place: usize,
    step: &Step,
    facts: &FactSet,
    render: &dyn Render,
) -> Result<PlannedStep, Rejection> {
    let spec = step.action;
    let bad = |arg: &str, why: String| Rejection::BadArgument {
        step: place,
        action: spec.name.to_owned(),
        arg: arg.to_owned(),
        why,
    };
    let fill = |arg: &str, ty: Type, value: &ArgValue| match value {
        ArgValue::Literal(v) if v.is_of(ty) => Ok(v.clone()),
        ArgValue::Literal(v) => Err(bad(arg, format!("{v} is not of type {ty}"))),
        ArgValue::Template(t) => {
            let text = render.render(t, facts).map_err(|why| bad(arg, why))?;
            read_as(ty, &text).map_err(|why| bad(arg, why))
        }
    };
    let mut args = BTreeMap::new();
    for a in spec.args.iter().filter(|a| a.name != "timeout") {
        let value = match step.args.get(a.name) {
            Some(v) => Some(fill(a.name, a.ty, v)?),
            None if !a.default.is_empty() => Some(read_as(a.ty, a.default).map_err(|why| bad(a.name, why))?),
            None => None,
        };
        match value {
            Some(v) => {
                args.insert(a.name.to_owned(), v);
            }
            None if a.required => return Err(bad(a.name, "is missing".to_owned())),
            None => {}
        }
    }
    let timeout_s = match &step.timeout {
        None => u64::from(spec.default_timeout_s),
        Some(v) => match fill("timeout", Type::Duration, v)? {
            Value::Duration(d) if d.is_positive() && d.as_secs() <= i64::from(spec.max_timeout_s) => {
                u64::try_from((d.as_millis() + 999) / 1000).unwrap_or(u64::MAX)
            }
            v => {
                let max =
                    crate::value::format_duration(jiff::SignedDuration::from_secs(spec.max_timeout_s.into()));
                return Err(bad("timeout", format!("{v} is not a time limit between 0s and {max}")));
            }
        },
    };
    Ok(PlannedStep {
        action: spec.name.to_owned(),
        effect: spec.effect,
        args,
        when: step.when.clone(),
        timeout_s,
        attempts: if spec.effect.needs_verification() {
            1
        } else {
            step.attempts.unwrap_or(spec.default_attempts).clamp(1, MAX_ATTEMPTS)
        },
    })
}

fn read_as(ty: Type, text: &str) -> Result<Value, String> {
    Value::parse(ty, text)
}

impl Value {
    /// Reads a written text as a value of a type: from a rendered template, a default or `--param`.
    pub fn parse(ty: Type, text: &str) -> Result<Self, String> {
        let no = || format!("`{}` is not of type {ty}", text.chars().take(60).collect::<String>());
        Ok(match ty {
            Type::Bool => Self::Bool(text.parse().map_err(|_| no())?),
            Type::Int => Self::Int(text.parse().map_err(|_| no())?),
            Type::Float => Self::Float(text.parse::<f64>().ok().filter(|x| x.is_finite()).ok_or_else(no)?),
            Type::Text => Self::Text(text.to_owned()),
            Type::Version => Self::Version(lenient_version(text).map(|_| text.to_owned()).ok_or_else(no)?),
            Type::Duration => Self::Duration(parse_duration(text).map_err(|e| e.to_string())?),
            Type::Enum(e) if e.contains(text) => Self::Word(text.to_owned()),
            Type::Enum(_) | Type::TextList | Type::EnumList(_) => return Err(no()),
        })
    }

    /// Says whether the value is of the type.
    pub fn is_of(&self, ty: Type) -> bool {
        match (self, ty) {
            (Self::Bool(_), Type::Bool)
            | (Self::Int(_), Type::Int | Type::Float)
            | (Self::Text(_), Type::Text)
            | (Self::Duration(_), Type::Duration)
            | (Self::List(_), Type::TextList) => true,
            (Self::Float(x), Type::Float) => x.is_finite(),
            (Self::Version(v), Type::Version) => lenient_version(v).is_some(),
            (Self::Word(w), Type::Enum(e)) => e.contains(w),
            (Self::List(l), Type::EnumList(e)) => l.iter().all(|w| e.contains(w)),
            _ => false,
        }
    }

    /// Compares two values of the same type; `None` where there is no order.
    pub fn partial_cmp_same(&self, other: &Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(b),
            (Self::Int(a), Self::Float(b)) => (*a as f64).partial_cmp(b),
            (Self::Float(a), Self::Int(b)) => a.partial_cmp(&(*b as f64)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            (Self::Version(a), Self::Version(b)) => Some(lenient_version(a)?.cmp(&lenient_version(b)?)),
            _ => None,
        }
    }
}
