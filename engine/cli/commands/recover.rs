//! `recover`: pick up runs whose engine was killed.

use super::Global;
use super::run::{Live, finish};
use crate::exit::{CliError, Exit};
use crate::following::follow;
use crate::identity;
use crate::printer::{Format, Printer};
use crate::remote::{self, Remote, segment};
use crate::site::{Access, open, run_id};
use engine_core::policy::Deed;
use engine_server::{Runs, Show};
use std::sync::Arc;

/// Which runs.
#[derive(Debug, clap::Args)]
pub(crate) struct RecoverArgs {
    /// One run, or the beginning of its id; without it every interrupted run.
    run: Option<String>,
}

/// Runs `recover`.
pub(crate) async fn run(
    args: &RecoverArgs,
    global: &Global,
    printer: &mut Printer,
) -> Result<Exit, CliError> {
    if let Some(engine) = remote::engine(global).await? {
        return recover_at(args, &engine, printer).await;
    }
    let site =
        open(global, printer, Access::Change, None).await?.watched(Arc::new(Live::new(printer.format)));
    site.permit(&identity::person(), Deed::Run)?;
    let (site, _fleet) = site.gated().await?;
    let runs = match &args.run {
        Some(text) => vec![run_id(&site, text).await?],
        None => site.engine.ports.journal.orphans().await?,
    };
    for run in &runs {
        site.within_reach(&site.engine.state(run).await?.plan.target.node)?;
    }
    if runs.is_empty() {
        return nothing(printer);
    }
    // Side by side: one may wait hours for its jobs.
    let mut work = tokio::task::JoinSet::new();
    for run in runs {
        let engine = site.engine.clone();
        work.spawn(async move {
            let result = engine.recover(&run).await;
            (run, result)
        });
    }
    let mut worst = Exit::Ok;
    while let Some(done) = work.join_next().await {
        let (run, result) = done.map_err(|e| CliError::caused("a recovery was interrupted", e))?;
        result?;
        let exit = finish(&site, &run, printer).await?;
        if exit as u8 > worst as u8 {
            worst = exit;
        }
    }
    Ok(worst)
}

/// The engine that serves picks interrupted runs up by itself: they are only followed.
async fn recover_at(args: &RecoverArgs, engine: &Remote, printer: &mut Printer) -> Result<Exit, CliError> {
    let runs = match &args.run {
        Some(text) => {
            let shown: Show = engine.get(&format!("/api/v1/runs/{}", segment(text)?), &[]).await?;
            vec![shown.run]
        }
        None => engine.get::<Runs>("/api/v1/runs", &[("limit", "1".to_owned())]).await?.interrupted,
    };
    if runs.is_empty() {
        return nothing(printer);
    }
    let mut worst = Exit::Ok;
    for run in &runs {
        let exit = follow(engine, run, printer).await?;
        if exit as u8 > worst as u8 {
            worst = exit;
        }
    }
    Ok(worst)
}

fn nothing(printer: &mut Printer) -> Result<Exit, CliError> {
    match printer.format {
        Format::Json => {
            printer.json(&serde_json::json!({ "format": "slurmedic/recover/1", "runs": [] }))?;
        }
        Format::Text => printer.out("no interrupted run"),
    }
    Ok(Exit::Ok)
}
