//! `journal`: check the journal.

use super::Global;
use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, Tone, paint, tame, wrapped};
use crate::site::{Access, open};

/// What to do with the journal.
#[derive(Debug, clap::Args)]
pub(crate) struct JournalArgs {
    #[command(subcommand)]
    verb: JournalVerb,
}

#[derive(Debug, clap::Subcommand)]
enum JournalVerb {
    /// Check the hash chain from the first event to the last, and every run in it.
    Verify,
}

/// Runs `journal`.
pub(crate) async fn run(
    args: &JournalArgs,
    global: &Global,
    printer: &mut Printer,
) -> Result<Exit, CliError> {
    let JournalVerb::Verify = args.verb;
    let site = open(global, printer, Access::Look, None).await?;
    let report = site.engine.ports.journal.verify().await?;
    if printer.format == Format::Json {
        printer.json(&serde_json::json!({ "format": "slurmedic/journal-verify/1", "report": report }))?;
    } else {
        match &report.broken {
            None => {
                printer.out(paint(Tone::Good, "the journal is whole"));
                printer.out(format!(
                    "  {} events in {} runs, head sha256 {}",
                    report.events, report.runs, report.head
                ));
            }
            Some(b) => {
                printer.out(paint(Tone::Bad, "the journal is broken"));
                printer.out(format!("  {}", wrapped(&tame(&b.to_string()), 2)));
                printer.out("  the events before it are whole; compare with a backup before anything runs");
            }
        }
    }
    Ok(if report.broken.is_none() { Exit::Ok } else { Exit::Findings })
}
