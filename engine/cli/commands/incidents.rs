//! `incidents`: what is open.

use super::Global;
use crate::exit::{CliError, Exit};
use crate::identity;
use crate::printer::{Format, Printer, Tone, paint, tame, wrapped};
use crate::remote;
use crate::site::{Access, open};
use engine_core::incident::{Incident, Phase, Subject};
use engine_core::policy::Deed;
use engine_core::run::Actor;
use engine_server::{Closed, Desk, Incidents};

/// Which incidents.
#[derive(Debug, clap::Args)]
pub(crate) struct IncidentsArgs {
    /// At most so many, oldest first.
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: usize,
    #[command(subcommand)]
    what: Option<What>,
}

/// What is to be done.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// Close one that a person has: it is done. A fault that is still there is reported anew by its source.
    Close(CloseArgs),
}

/// Which incident, and why.
#[derive(Debug, clap::Args)]
struct CloseArgs {
    /// Its id, such as i12.
    #[arg(value_name = "INCIDENT")]
    incident: String,
    /// What was done; goes on record.
    #[arg(long)]
    reason: String,
}

async fn close(args: &CloseArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let done: Closed = match remote::engine(global).await? {
        Some(engine) => {
            let path = format!("/api/v1/incidents/{}/close", remote::segment(&args.incident)?);
            engine.post(&path, &serde_json::json!({ "why": args.reason })).await?
        }
        None => {
            let site = open(global, printer, Access::Record, None).await?;
            let me = identity::person();
            site.permit(&me, Deed::Cancel)?;
            Desk::new(site.engine).close(&args.incident, &Actor::person(me), &args.reason).await?
        }
    };
    match printer.format {
        Format::Json => printer.json(&done)?,
        Format::Text => {
            printer
                .out(format!("incident {} of {} is closed; {} says so", done.incident, done.node, done.by));
        }
    }
    Ok(Exit::Ok)
}

/// Runs `incidents`.
pub(crate) async fn run(
    args: &IncidentsArgs,
    global: &Global,
    printer: &mut Printer,
) -> Result<Exit, CliError> {
    if let Some(What::Close(close_args)) = &args.what {
        return close(close_args, global, printer).await;
    }
    let found: Incidents = match remote::engine(global).await? {
        Some(engine) => engine.get("/api/v1/incidents", &[("limit", args.limit.to_string())]).await?,
        None => {
            let site = open(global, printer, Access::Look, None).await?;
            Desk::new(site.engine).incidents(args.limit).await?
        }
    };
    if printer.format == Format::Json {
        printer.json(&found)?;
        return Ok(Exit::Ok);
    }
    let Incidents { stops, open: count, incidents: all, .. } = found;
    for stop in &stops {
        printer.out(paint(Tone::Bad, wrapped(&format!("STOPPED: {}", tame(stop)), 0)));
    }
    if all.is_empty() {
        printer.out("no incident is open");
        return Ok(Exit::Ok);
    }
    printer.out(paint(
        Tone::Strong,
        format!("{:<7} {:<16} {:<14} {:<12} {}", "ID", "OPENED (UTC)", "ON", "STANDS", "FAULT"),
    ));
    for i in &all {
        print(i, printer);
    }
    if count > all.len() {
        printer.say(format!("{} more: --limit {count}", count - all.len()));
    }
    Ok(Exit::Ok)
}

fn print(i: &Incident, printer: &mut Printer) {
    let on = match &i.subject {
        Subject::Node { node, .. } => node.as_str().to_owned(),
        Subject::Breaker { .. } => "breaker".to_owned(),
        Subject::Tool { .. } => "tool".to_owned(),
        Subject::Rack { rack, .. } => format!("rack {}", tame(rack)),
    };
    let (tone, stands, why) = match &i.phase {
        Phase::New => (Tone::Strong, "new", String::new()),
        Phase::Waiting { why, .. } => (Tone::Warn, "waiting", why.clone()),
        Phase::Running { run } => (Tone::Good, "run", format!("`slurmedic show {run}`")),
        Phase::WithPerson { why } => (Tone::Bad, "with person", why.clone()),
    };
    let fault = i.strongest().map(|(_, s)| {
        let gpu = s.gpu.as_ref().map(|g| format!(" GPU {}", tame(g))).unwrap_or_default();
        format!("{}{gpu}", s.fault)
    });
    let fault = match &i.subject {
        Subject::Tool { tool } => Some(tame(tool)),
        Subject::Rack { fault, .. } => Some(tame(fault)),
        Subject::Node { .. } | Subject::Breaker { .. } => fault,
    };
    printer.out(format!(
        "{:<7} {:<16} {:<14} {} {}",
        i.id.to_string(),
        i.opened_at.strftime("%Y-%m-%d %H:%M"),
        on.chars().take(14).collect::<String>(),
        paint(tone, format!("{stands:<12}")),
        fault.unwrap_or_default()
    ));
    if !why.is_empty() {
        printer.out(paint(Tone::Dim, format!("        {}", wrapped(&tame(&why), 8))));
    }
}
