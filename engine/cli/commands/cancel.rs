//! `cancel`: ask a run to stop at its nearest safe point.

use super::Global;
use crate::exit::{CliError, Exit};
use crate::identity;
use crate::printer::{Format, Printer};
use crate::site::{Access, open, run_id};
use engine_core::policy::Deed;
use engine_core::run::Actor;

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
    let site = open(global, printer, Access::Record, None).await?;
    let run = run_id(&site, &args.run).await?;
    site.permit(&identity::person(), Deed::Cancel)?;
    let state = site.engine.cancel(&run, Actor::person(identity::person()), &args.why).await?;
    match printer.format {
        Format::Json => printer.json(&serde_json::json!({
            "format": "slurmedic/cancel/1", "run": run, "status": state.status.as_str()
        }))?,
        Format::Text => {
            printer.out(format!(
                "run {run} is asked to stop; it is {} now",
                state.status.as_str().replace('_', " ")
            ));
            printer.out("  its engine stops at the nearest safe point and goes back from there;");
            printer.out(format!("  where no engine runs any more: slurmedic recover {run}"));
        }
    }
    Ok(Exit::Ok)
}
