//! `approve` and `deny`.

use super::Global;
use super::run::{Live, drive_and_tell, finish};
use crate::exit::{CliError, Exit};
use crate::identity;
use crate::printer::Printer;
use crate::site::{Access, open, run_id};
use engine_core::run::Actor;
use std::sync::Arc;

/// Which run.
#[derive(Debug, clap::Args)]
pub(crate) struct ApproveArgs {
    /// The run, or the beginning of its id.
    run: String,
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
    let site =
        open(global, printer, Access::Change, None).await?.watched(Arc::new(Live::new(printer.format)));
    let run = run_id(&site, &args.run).await?;
    site.engine.approve(&run, Actor::person(identity::person())).await?;
    drive_and_tell(&site, &run, printer).await
}

/// Runs `deny`.
pub(crate) async fn deny(args: &DenyArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let site = open(global, printer, Access::Record, None).await?;
    let run = run_id(&site, &args.run).await?;
    site.engine.deny(&run, &Actor::person(identity::person()), &args.why).await?;
    finish(&site, &run, printer).await?;
    Ok(Exit::Ok)
}
