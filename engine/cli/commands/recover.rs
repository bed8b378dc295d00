//! `recover`: pick up runs whose engine was killed.

use super::Global;
use super::run::{Live, finish};
use crate::exit::{CliError, Exit};
use crate::identity;
use crate::printer::{Format, Printer};
use crate::site::{Access, open, run_id};
use engine_core::policy::Deed;
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
    let site =
        open(global, printer, Access::Change, None).await?.watched(Arc::new(Live::new(printer.format)));
    site.permit(&identity::person(), Deed::Run)?;
    let (site, _fleet) = site.gated().await?;
    let runs = match &args.run {
        Some(text) => vec![run_id(&site, text).await?],
        None => site.engine.ports.journal.orphans().await?,
    };
    if runs.is_empty() {
        match printer.format {
            Format::Json => {
                printer.json(&serde_json::json!({ "format": "slurmedic/recover/1", "runs": [] }))?;
            }
            Format::Text => printer.out("no interrupted run"),
        }
        return Ok(Exit::Ok);
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
