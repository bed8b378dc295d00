//! `journal`: check the journal, and back it up. Works on the file itself: no cluster is asked.

use super::Global;
use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, Tone, paint, tame, wrapped};
use crate::site::journal_file;
use engine_runtime::journal::{ChainReport, Journal as _};
use std::path::{Path, PathBuf};

/// What to do with the journal.
#[derive(Debug, clap::Args)]
pub(crate) struct JournalArgs {
    #[command(subcommand)]
    verb: JournalVerb,
}

#[derive(Debug, clap::Subcommand)]
enum JournalVerb {
    /// Check the hash chain from the first entry to the last, and every run in it.
    Verify,
    /// Copy the journal, also while an engine writes to it, and check the copy.
    Backup {
        /// File of the copy; it must not exist.
        file: PathBuf,
    },
}

/// Runs `journal`.
pub(crate) async fn run(
    args: &JournalArgs,
    global: &Global,
    printer: &mut Printer,
) -> Result<Exit, CliError> {
    let journal = journal_file(global)?;
    match &args.verb {
        JournalVerb::Verify => tell_verify(&journal.verify().await?, printer),
        JournalVerb::Backup { file } => {
            if file.exists() {
                return Err(CliError::usage(format!(
                    "{} is there already",
                    tame(&file.display().to_string())
                ))
                .with_hint("a backup overwrites nothing: name another file"));
            }
            tell_backup(&journal.backup(file).await?, file, printer)
        }
    }
}

fn counts(report: &ChainReport) -> String {
    let count = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut text = format!("{} in {}", count(report.events, "event"), count(report.runs, "run"));
    if report.records > 0 {
        let records = count(report.records, "record");
        text.push_str(&format!(", {records} in {}", count(report.streams, "stream")));
    }
    text
}

fn tell_verify(report: &ChainReport, printer: &mut Printer) -> Result<Exit, CliError> {
    if printer.format == Format::Json {
        printer.json(&serde_json::json!({ "format": "slurmedic/journal-verify/1", "report": report }))?;
    } else {
        match &report.broken {
            None => {
                printer.out(paint(Tone::Good, "the journal is whole"));
                tell_head(report, printer);
            }
            Some(b) => {
                printer.out(paint(Tone::Bad, "the journal is broken"));
                printer.out(format!("  {}", wrapped(&tame(&b.to_string()), 2)));
                printer.out("  what is before it is whole; compare with a backup before anything runs");
            }
        }
    }
    Ok(exit(report))
}

fn tell_backup(report: &ChainReport, file: &Path, printer: &mut Printer) -> Result<Exit, CliError> {
    if printer.format == Format::Json {
        let copy = report.broken.is_none().then_some(file);
        printer.json(
            &serde_json::json!({ "format": "slurmedic/journal-backup/1", "file": copy, "report": report }),
        )?;
    } else {
        match &report.broken {
            None => {
                printer
                    .out(paint(Tone::Good, format!("{} is a whole copy", tame(&file.display().to_string()))));
                tell_head(report, printer);
            }
            Some(b) => {
                printer.out(paint(Tone::Bad, "the copy is broken, and was removed"));
                printer.out(format!("  {}", wrapped(&tame(&b.to_string()), 2)));
                printer.out("  `slurmedic journal verify` says whether the journal itself is");
            }
        }
    }
    Ok(exit(report))
}

fn tell_head(report: &ChainReport, printer: &mut Printer) {
    printer.out(format!("  {}", counts(report)));
    printer.out(format!("  head sha256 {}", report.head));
}

fn exit(report: &ChainReport) -> Exit {
    if report.broken.is_none() { Exit::Ok } else { Exit::Findings }
}
