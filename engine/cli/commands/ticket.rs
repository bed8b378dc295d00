//! `ticket`: a one-time yes for a person who is not at a terminal.

use super::Global;
use crate::config;
use crate::daemon::issue_ticket;
use crate::exit::{CliError, Exit};
use crate::identity;
use crate::printer::{Format, Printer};
use crate::remote::{self, segment};
use crate::site::{Access, open};
use crate::timeline::time;
use engine_core::policy::Deed;
use engine_core::value::parse_duration;
use engine_server::{Desk, TicketIssued};

/// For which run, and for whom.
#[derive(Debug, clap::Args)]
pub(crate) struct TicketArgs {
    /// The run that waits for a yes, or the beginning of its id.
    run: String,
    /// The person whose yes it will be; yourself where nobody is named.
    #[arg(long = "for", value_name = "LOGIN")]
    person: Option<String>,
    /// How long it is good for, at most 7 days; never longer than the request itself.
    #[arg(long, default_value = "1h", value_name = "TIME")]
    expires: String,
}

/// Runs `ticket`.
pub(crate) async fn run(args: &TicketArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let life = parse_duration(&args.expires).map_err(|e| CliError::usage(format!("--expires: {e}")))?;
    let me = identity::person();
    let issued: TicketIssued = match remote::engine(global).await? {
        Some(engine) => {
            let path = format!("/api/v1/runs/{}/ticket", segment(&args.run)?);
            let sent = serde_json::json!({ "person": args.person, "expires": args.expires });
            engine.post(&path, &sent).await?
        }
        None => {
            let person = args.person.clone().unwrap_or_else(|| me.clone());
            let site = open(global, printer, Access::Record, None).await?;
            site.permit(&me, if person == me { Deed::Approve } else { Deed::Policy })?;
            let (config, _) = config::load(global.config.as_deref())?;
            let desk = Desk::new(site.engine);
            let run = desk.find(&args.run).await?;
            issue_ticket(&config, &desk, &run, &person, life).await?
        }
    };
    match printer.format {
        Format::Json => printer.json(&issued)?,
        Format::Text => {
            printer.say(format!(
                "the yes of {} to run {}, plan {}, once, until {}",
                issued.person,
                issued.run,
                issued.digest.short(),
                time(issued.expires_at)
            ));
            printer.say("whoever has it can use it; send it as {\"ticket\": \"...\"} to /api/v1/approvals");
            printer.out(issued.ticket);
        }
    }
    Ok(Exit::Ok)
}
