//! `run` where an engine serves: the run is handed to it, and followed from here. It reaches nodes by their agents, which no
//! other process does.

use super::plan::{What, node_name, params, show};
use super::run::{NOT_YES, RunArgs, ask_person};
use crate::exit::{CliError, Exit};
use crate::following::Followed;
use crate::identity;
use crate::printer::{Format, Printer, Tone, paint};
use crate::remote::Remote;
use engine_core::model::RunId;
use engine_core::policy::Deed;
use engine_core::run::{EventKind, Status};
use engine_runtime::engine::Proposal;
use engine_server::{About, Decided, Show, Wanted};

/// Hands a run over and follows it.
pub(crate) async fn run(args: &RunArgs, engine: &Remote, printer: &mut Printer) -> Result<Exit, CliError> {
    may_approve(args, engine).await?;
    let wanted = wanted(&args.what, !args.yes && !identity::can_ask())?;
    let shown: Show = engine.post("/api/v1/runs", &wanted).await?;
    if printer.format == Format::Text {
        if let Some(proposal) = proposal_of(&shown) {
            show(&proposal, printer);
        }
        printer.out("");
    }
    let mut followed = Followed::begin(shown, printer)?;
    if !matches!(followed.status(), Status::Ended(_)) {
        printer.say(format!(
            "{} the engine that serves carries run {} out; ctrl-c leaves it alone",
            paint(Tone::Dim, "note:"),
            followed.run
        ));
    }
    followed.until_it_rests(engine, printer).await?;
    if followed.status() == Status::AwaitingApproval {
        decide(args, engine, &followed.run, printer).await?;
        followed.refresh(engine, printer).await?;
        followed.until_it_rests(engine, printer).await?;
    }
    followed.end(printer)
}

/// Says yes or no, as the people who are named or the one at the terminal do.
async fn decide(args: &RunArgs, engine: &Remote, run: &RunId, printer: &mut Printer) -> Result<(), CliError> {
    let path = format!("/api/v1/runs/{run}/approve");
    if args.yes {
        for name in &args.approved_by {
            let done: Decided = engine.post_as(name, &path, &serde_json::json!({})).await?;
            if done.status != Status::AwaitingApproval.as_str() {
                break;
            }
        }
        return Ok(());
    }
    let me = identity::person();
    if ask_person(run, &me, printer).await? {
        engine.post::<Decided>(&path, &serde_json::json!({})).await?;
    } else {
        let path = format!("/api/v1/runs/{run}/deny");
        engine.post::<Decided>(&path, &serde_json::json!({ "why": NOT_YES })).await?;
    }
    Ok(())
}

/// Makes sure, before anything is begun, that the engine will take the yes of the people who are named.
async fn may_approve(args: &RunArgs, engine: &Remote) -> Result<(), CliError> {
    for name in &args.approved_by {
        let about: About = engine.get_as(name, "/api/v1/about").await?;
        if about.you != *name {
            return Err(CliError::usage(format!(
                "--approved-by {name}: the engine knows you as {}, and only root says what others decided",
                about.you
            ))
            .with_hint(format!("leave --yes out, and {name} runs `slurmedic approve RUN`")));
        }
        if !about.may.iter().any(|d| d == Deed::Approve.as_str()) {
            return Err(CliError::usage(format!("{name} may not approve: the policy gives no such role"))
                .with_hint("`slurmedic policy show` lists who has which"));
        }
    }
    Ok(())
}

fn wanted(what: &What, unattended: bool) -> Result<Wanted, CliError> {
    let node = node_name(&what.node)?;
    Ok(Wanted {
        playbook: what.playbook.clone(),
        node: node.to_string(),
        gpu: what.gpu.clone(),
        params: params(&what.params)?,
        alert_id: what.alert_id.clone(),
        unattended,
    })
}

/// The plan that is on record, and why it may not be carried out, if so.
fn proposal_of(shown: &Show) -> Option<Proposal> {
    let EventKind::Proposed { plan, .. } = &shown.events.first()?.kind else { return None };
    let objections = shown.events.iter().filter_map(|e| match &e.kind {
        EventKind::Ended { why, .. } => Some(why.clone()),
        _ => None,
    });
    Some(Proposal { plan: (**plan).clone(), objections: objections.collect() })
}
