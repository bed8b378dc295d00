//! `plan`: what a run would do and why. Changes nothing and records nothing.

use super::Global;
use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, Tone, paint, tame, wrapped};
use crate::site::{Access, Site, open};
use crate::verdict::{cost_lines, policy_lines};
use engine_core::condition::Truth;
use engine_core::model::NodeName;
use engine_core::plan::{ConditionReport, Plan};
use engine_core::policy::Outcome;
use engine_core::run::Actor;
use engine_core::value::format_duration;
use engine_runtime::engine::{Alert, Proposal, ProposeError, ProposeRequest};
use jiff::SignedDuration;
use std::collections::BTreeMap;

/// What is to be planned.
#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) what: What,
}

/// Playbook, target and parameters: shared by `plan` and `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct What {
    /// Playbook id, with `@VERSION` for a version other than the newest.
    #[arg(value_name = "PLAYBOOK")]
    pub(crate) playbook: String,
    /// The node: exactly one name, no list and no range.
    #[arg(long, value_name = "NODE")]
    pub(crate) node: String,
    /// The GPU by index, UUID or bus id; without it the playbook chooses the faulty one.
    #[arg(long, value_name = "GPU")]
    pub(crate) gpu: Option<String>,
    /// A parameter of the playbook; may be given several times.
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub(crate) params: Vec<String>,
    /// Identifier of the alert or ticket behind this, for the reason on the node.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub(crate) alert_id: String,
}

/// Runs `plan`.
pub(crate) async fn run(args: &PlanArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let node = node_name(&args.what.node)?;
    let (site, _fleet) = open(global, printer, Access::Plan, Some(&node)).await?.gated().await?;
    let proposal = propose(&args.what, node, &site).await?;
    match printer.format {
        Format::Json => printer.json(&serde_json::json!({
            "format": "slurmedic/plan/1",
            "digest": proposal.plan.digest().map_err(|e| CliError::caused("the plan could not be encoded", e))?,
            "objections": proposal.objections,
            "plan": proposal.plan,
        }))?,
        Format::Text => show(&proposal, printer),
    }
    Ok(if proposal.objections.is_empty() { Exit::Ok } else { Exit::Rejected })
}

/// Accepts the name of one node, and nothing that could be more than one.
pub(crate) fn node_name(text: &str) -> Result<NodeName, CliError> {
    NodeName::new(text)
        .map_err(|e| CliError::usage(e.to_string()).with_hint("`scontrol show nodes` lists the names"))
}

/// Makes the plan.
pub(crate) async fn propose(what: &What, node: NodeName, site: &Site) -> Result<Proposal, CliError> {
    let playbook = site.playbook(&what.playbook)?;
    if what.alert_id.len() > engine_server::MAX_ALERT_ID {
        return Err(CliError::usage("--alert-id: at most 256 bytes"));
    }
    let params = engine_server::read_params(playbook, &params(&what.params)?)?;
    let request = ProposeRequest {
        playbook,
        node,
        gpu: what.gpu.clone(),
        params,
        alert: Alert { id: what.alert_id.clone(), last_seen: None },
        initiator: Actor::person(crate::identity::person()),
    };
    let node = request.node.clone();
    let planned = site.engine.plan(request).await;
    if matches!(planned, Err(ProposeError::Node { .. })) {
        exists(site, &node).await?;
    }
    planned.map_err(|e| {
        let exit = match &e {
            ProposeError::Node { .. } => Exit::Failed,
            ProposeError::Gpu { .. } => Exit::Rejected,
            ProposeError::Rejected(_) => Exit::Usage,
        };
        let hint = match &e {
            ProposeError::Node { .. } => {
                Some("`slurmedic doctor` tells whether slurmctld answers and how it is read")
            }
            ProposeError::Gpu { .. } => None,
            ProposeError::Rejected(_) => Some("`slurmedic plan PLAYBOOK --node NODE --param NAME=VALUE`"),
        };
        let error = CliError::failed(tame(&e.to_string())).with_exit(exit);
        match hint {
            Some(h) => error.with_hint(h),
            None => error,
        }
    })
}

/// Tells a node that could not be read from one that the cluster does not have.
pub(crate) async fn exists(site: &Site, node: &NodeName) -> Result<(), CliError> {
    match site.engine.ports.scheduler.nodes().await {
        Ok(all) if !all.value.is_empty() && all.value.iter().all(|n| n.name != *node) => {
            Err(CliError::usage(format!("there is no node {node} in this cluster of {}", all.value.len()))
                .with_hint("`scontrol show nodes` lists the names"))
        }
        _ => Ok(()),
    }
}

/// Takes the parameters as they are written at the terminal apart.
pub(super) fn params(given: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let mut out = BTreeMap::new();
    for text in given {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| CliError::usage(format!("--param {}: write NAME=VALUE", tame(text))))?;
        if out.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(CliError::usage(format!("--param {} is given twice", tame(name))));
        }
    }
    Ok(out)
}

/// Shows a plan to people.
pub(crate) fn show(proposal: &Proposal, printer: &mut Printer) {
    let plan = &proposal.plan;
    let title = format!("{} on {}", plan.playbook, target(plan));
    printer.out(paint(Tone::Strong, title));
    printer.out(wrapped(&tame(&plan.summary), 0));
    printer.out("");
    if let Some(mark) = &plan.observed {
        printer.out(format!("Node now    {}", wrapped(&tame(&mark.describe()), 12)));
    }
    printer.out(format!("Touches     {}", wrapped(&blast(plan), 12)));
    printer.out(format!("Approval    {}", approval(plan)));
    for line in plan.policy.iter().flat_map(policy_lines).chain(plan.cost.iter().flat_map(cost_lines)) {
        printer.out(line);
    }
    printer.out("");
    printer.out(paint(Tone::Strong, "Preconditions"));
    for c in &plan.judged {
        condition(c, printer);
    }
    printer.out("");
    printer.out(paint(Tone::Strong, "Steps"));
    steps(&plan.steps, printer);
    printer.out(paint(Tone::Strong, "If it cannot go on"));
    if plan.rollback.is_empty() {
        printer.out("  nothing is taken back");
    } else {
        steps(&plan.rollback, printer);
    }
    printer.out("");
    let waits = plan.policy.as_ref().is_some_and(|v| matches!(v.outcome, Outcome::Wait { .. }));
    if proposal.objections.is_empty() && waits {
        printer.out(paint(Tone::Warn, "This plan may be carried out when the policy permits it."));
        printer.out("Nothing was changed.");
    } else if proposal.objections.is_empty() {
        printer.out(paint(Tone::Good, "This plan may be carried out.") + " Nothing was changed.");
    } else {
        printer.out(paint(Tone::Warn, "This playbook does not apply here.") + " Nothing was changed.");
        for o in &proposal.objections {
            printer.out(format!("  {}", wrapped(&tame(o), 2)));
        }
    }
}

fn steps(steps: &[engine_core::plan::PlannedStep], printer: &mut Printer) {
    for (i, s) in steps.iter().enumerate() {
        let limit = format_duration(SignedDuration::from_secs(i64::try_from(s.timeout_s).unwrap_or(0)));
        printer.out(format!("  {}. {} ({}, at most {limit})", i + 1, s.action, s.effect.as_str()));
        for (name, value) in &s.args {
            printer.out(format!("       {name}: {}", wrapped(&tame(&value.to_string()), 11)));
        }
        if let Some(when) = &s.when {
            printer.out(format!("       only if {}", wrapped(when.source(), 16)));
        }
    }
}

fn condition(c: &ConditionReport, printer: &mut Printer) {
    let (tone, word) = match c.truth {
        Truth::True => (Tone::Good, "yes    "),
        Truth::False => (Tone::Bad, "no     "),
        Truth::Unknown => (Tone::Warn, "unknown"),
    };
    printer.out(format!("  {} {}", paint(tone, word), wrapped(&c.source, 10)));
    printer.out(format!("          {}", paint(Tone::Dim, wrapped(&tame(&c.explain), 10))));
    if c.truth != Truth::True
        && let Some(o) = &c.otherwise
    {
        printer.out(format!("          instead: {}", wrapped(o, 19)));
    }
}

fn target(plan: &Plan) -> String {
    match &plan.target.gpu {
        Some(g) => format!("{}, GPU {} ({}, {})", plan.target.node, g.index, g.bus_id, g.uuid),
        None => plan.target.node.to_string(),
    }
}

fn blast(plan: &Plan) -> String {
    let nodes: Vec<String> = plan.blast.nodes.iter().map(ToString::to_string).collect();
    let gpus = plan.blast.gpus.map_or(String::new(), |n| format!(" with {n} GPUs"));
    let jobs = if !plan.blast.jobs_known {
        "the jobs could not be read".to_owned()
    } else if plan.blast.running_jobs.is_empty() {
        "no job runs there".to_owned()
    } else {
        let list: Vec<String> = plan
            .blast
            .running_jobs
            .iter()
            .map(|j| {
                let user = j.user.as_ref().map(|u| format!(" of {u}")).unwrap_or_default();
                format!("{}{user}{}", j.id, if j.suspended { " (suspended)" } else { "" })
            })
            .collect();
        format!("waits for {}; no job is killed", list.join(", "))
    };
    if nodes.is_empty() {
        "nothing".to_owned()
    } else {
        tame(&format!("{}{gpus} out of service; {jobs}", nodes.join(", ")))
    }
}

fn approval(plan: &Plan) -> String {
    match plan.people() {
        0 => "nobody is asked".to_owned(),
        1 => format!("one person ({})", plan.approval.as_str()),
        n => format!("{n} different people ({})", plan.approval.as_str()),
    }
}
