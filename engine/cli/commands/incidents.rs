//! `incidents`: what is open.

use super::Global;
use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, Tone, paint, tame, wrapped};
use crate::remote;
use crate::site::{Access, open};
use engine_core::incident::{Incident, Phase, Subject};
use engine_server::{Desk, Incidents};

/// Which incidents.
#[derive(Debug, clap::Args)]
pub(crate) struct IncidentsArgs {
    /// At most so many, oldest first.
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: usize,
}

/// Runs `incidents`.
pub(crate) async fn run(
    args: &IncidentsArgs,
    global: &Global,
    printer: &mut Printer,
) -> Result<Exit, CliError> {
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
