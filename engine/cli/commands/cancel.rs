//! `cancel`: ask a run to stop at its nearest safe point.

use super::Global;
use crate::exit::{CliError, Exit};
use crate::identity;
use crate::printer::{Format, Printer};
use crate::remote;
use crate::site::{Access, open};
use engine_core::policy::Deed;
use engine_core::run::Actor;
use engine_server::{Decided, Desk};

/// Which run, and why.
#[derive(Debug, clap::Args)]
pub(crate) struct CancelArgs {
    /// The run, or the beginning of its id.
    run: String,
    /// Why; goes on record.
    #[arg(long, default_value = "no reason given")]
    why: String,
}

/// Runs `cancel`.
pub(crate) async fn run(args: &CancelArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let done: Decided = match remote::engine(global).await? {
        Some(engine) => {
            let path = format!("/api/v1/runs/{}/cancel", remote::segment(&args.run)?);
            engine.post(&path, &serde_json::json!({ "why": args.why })).await?
        }
        None => {
            let site = open(global, printer, Access::Record, None).await?;
            let desk = Desk::new(site.engine.clone());
            let run = desk.find(&args.run).await?;
            site.permit(&identity::person(), Deed::Cancel)?;
            desk.cancel(&run, Actor::person(identity::person()), &args.why).await?
        }
    };
    match printer.format {
        Format::Json => printer.json(&done)?,
        Format::Text => {
            let run = &done.run;
            printer.out(format!("run {run} is asked to stop; it is {} now", done.status.replace('_', " ")));
            printer.out("  its engine stops at the nearest safe point and goes back from there;");
            printer.out(format!("  where no engine runs any more: slurmedic recover {run}"));
        }
    }
    Ok(Exit::Ok)
}
