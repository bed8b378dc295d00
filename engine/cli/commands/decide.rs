//! `approve` and `deny`.

use super::Global;
use super::run::{Live, drive_through, finish, tell_end};
use crate::exit::{CliError, Exit};
use crate::following::follow;
use crate::identity;
use crate::printer::{Format, Printer};
use crate::remote::{self, Remote, segment};
use crate::site::{Access, open, run_id};
use engine_core::model::RunId;
use engine_core::policy::Deed;
use engine_core::run::Actor;
use engine_runtime::engine::EngineError;
use engine_server::{Decided, Show};
use std::sync::Arc;

/// Which run.
#[derive(Debug, clap::Args)]
pub(crate) struct ApproveArgs {
    /// The runs, or the beginnings of their ids.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<String>,
    /// Where an engine serves: stay, tell what it does, and end as the runs end.
    #[arg(long)]
    follow: bool,
}

/// Which run, and why not.
#[derive(Debug, clap::Args)]
pub(crate) struct DenyArgs {
    /// The run, or the beginning of its id.
    run: String,
    /// Why not; goes on record.
    #[arg(long, default_value = "no reason given")]
    why: String,
}

/// Runs `approve`.
pub(crate) async fn approve(
    args: &ApproveArgs,
    global: &Global,
    printer: &mut Printer,
) -> Result<Exit, CliError> {
    if let Some(engine) = remote::engine(global).await? {
        return approve_at(&engine, args, printer).await;
    }
    let site =
        open(global, printer, Access::Change, None).await?.watched(Arc::new(Live::new(printer.format)));
    let (site, _fleet) = site.gated().await?;
    site.permit(&identity::person(), Deed::Approve)?;
    let me = Actor::person(identity::person());
    let mut work = tokio::task::JoinSet::new();
    for text in &args.runs {
        let run = run_id(&site, text).await?;
        site.within_reach(&site.engine.state(&run).await?.plan.target.node)?;
        site.engine.approve(&run, me.clone()).await?;
        let engine = site.engine.clone();
        work.spawn(async move {
            let driven = drive_through(&engine, &run).await;
            (run, driven)
        });
    }
    let mut worst = Exit::Ok;
    while let Some(done) = work.join_next().await {
        let (run, driven) = done.map_err(|e| CliError::caused("a run was interrupted", e))?;
        match driven {
            Ok(()) => {}
            Err(EngineError::Claimed(_)) => {
                told(&run, printer)?;
                continue;
            }
            Err(e) => return Err(e.into()),
        }
        let exit = finish(&site, &run, printer).await?;
        if exit as u8 > worst as u8 {
            worst = exit;
        }
    }
    Ok(worst)
}

/// Says yes at the engine that serves; it carries the runs out.
async fn approve_at(engine: &Remote, args: &ApproveArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let mut worst = Exit::Ok;
    let mut followed = Vec::new();
    for text in &args.runs {
        let path = format!("/api/v1/runs/{}/approve", segment(text)?);
        let done: Decided = engine.post(&path, &serde_json::json!({})).await?;
        let exit = match done.status.as_str() {
            "approved" | "running" if args.follow => {
                followed.push(done.run);
                continue;
            }
            "approved" | "running" => {
                told(&done.run, printer)?;
                Exit::Ok
            }
            // Void, or one of two: the run itself says so.
            _ => {
                let shown: Show = engine.get(&format!("/api/v1/runs/{}", done.run), &[]).await?;
                tell_end(&shown.run, &shown.events, printer)?
            }
        };
        if exit as u8 > worst as u8 {
            worst = exit;
        }
    }
    // All of them are under way already.
    for run in &followed {
        let exit = follow(engine, run, printer).await?;
        if exit as u8 > worst as u8 {
            worst = exit;
        }
    }
    Ok(worst)
}

/// An engine that serves has the run: it goes on with it by itself.
fn told(run: &RunId, printer: &mut Printer) -> Result<(), CliError> {
    match printer.format {
        Format::Json => printer.json(
            &serde_json::json!({ "format": "slurmedic/approve/1", "run": run, "status": "approved" }),
        )?,
        Format::Text => printer.out(format!(
            "run {run}: approved; the engine that serves carries it out (`slurmedic show {run}`)"
        )),
    }
    Ok(())
}

/// Runs `deny`.
pub(crate) async fn deny(args: &DenyArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    if let Some(engine) = remote::engine(global).await? {
        let path = format!("/api/v1/runs/{}/deny", segment(&args.run)?);
        let done: Decided = engine.post(&path, &serde_json::json!({ "why": args.why })).await?;
        let shown: Show = engine.get(&format!("/api/v1/runs/{}", done.run), &[]).await?;
        tell_end(&shown.run, &shown.events, printer)?;
        return Ok(Exit::Ok);
    }
    let site = open(global, printer, Access::Record, None).await?;
    let run = run_id(&site, &args.run).await?;
    site.permit(&identity::person(), Deed::Approve)?;
    site.engine.deny(&run, &Actor::person(identity::person()), &args.why).await?;
    finish(&site, &run, printer).await?;
    Ok(Exit::Ok)
}
