//! `decide`, the verb: which playbook a situation asks for, by rules. Reads files only.

use super::{Global, knowledge};
use crate::exit::{CliError, Exit};
use crate::page;
use crate::printer::{Format, Printer, Tone, paint, tame};
use engine_core::decide::{Decision, decide};
use engine_playbook::situation;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Which situation.
#[derive(Debug, clap::Args)]
pub(crate) struct DecideArgs {
    /// File with one situation, a list of them, or `defaults` and `cases`; `-` for stdin.
    #[arg(long, value_name = "FILE")]
    situation: PathBuf,
}

/// Runs `decide`.
pub(crate) fn run(args: &DecideArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let shown = args.situation.display().to_string();
    let bytes = read(&args.situation)
        .map_err(|e| CliError::caused(format!("{shown} could not be read"), e).with_exit(Exit::Usage))?;
    let situations = situation::load(&bytes).map_err(|e| {
        CliError::caused(format!("{shown} holds no situation"), e)
            .with_exit(Exit::Usage)
            .with_hint("docs/guide/knowledge.md shows how one looks")
    })?;
    let known = knowledge::of_site(global)?;
    let all: Vec<Decision> = situations.iter().map(|s| decide(s, &known)).collect();
    if printer.format == Format::Json {
        printer.json(&all)?;
    } else {
        for d in &all {
            show(d, printer);
        }
    }
    Ok(Exit::Ok)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let most = situation::MAX_SITUATIONS as u64 + 1;
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().take(most).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn show(d: &Decision, printer: &mut Printer) {
    let what = d.playbook.as_deref().unwrap_or("no playbook");
    printer.out(format!("{}  {}: {}", paint(Tone::Strong, tame(&d.id)), d.outcome.as_str(), what));
    page::row(printer, "  code", d.reason_code.map_or("", |c| c.as_str()));
    page::row(printer, "  approval", d.approval.map_or("", |a| a.as_str()));
    page::row(printer, "  actions", &d.actions.join(", "));
    page::rows(printer, "  why", &d.why);
}
