//! `fmt`: one layout for playbooks.

use super::lint::write_atomically;
use crate::exit::{CliError, Exit};
use crate::printer::{Printer, Tone, paint};
use engine_playbook::format::format;
use engine_playbook::library::read_limited;
use engine_playbook::{SourceText, Style, render_diagnostics};
use std::path::PathBuf;

/// What to format.
#[derive(Debug, clap::Args)]
pub(crate) struct FmtArgs {
    /// Playbook files; rewritten in place.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Change nothing; exit 3 if a file is not formatted.
    #[arg(long)]
    check: bool,
}

/// Runs `fmt`.
pub(crate) fn run(args: &FmtArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let mut exit = Exit::Ok;
    for path in &args.files {
        let name = path.display().to_string();
        let bytes = read_limited(path)
            .map_err(|e| CliError::caused(format!("{name} could not be read"), e).with_exit(Exit::Usage))?;
        match format(&bytes, &name) {
            Err(diagnostics) => {
                let (source, _) = SourceText::read(&bytes, &name);
                printer.out(render_diagnostics(&diagnostics, &source, Style::Plain).trim_end());
                exit = Exit::Findings;
            }
            Ok(done) if done.text.as_bytes() == bytes => {
                if let Some(why) = done.kept {
                    printer.say(format!("{name}: left as it is: {why}"));
                }
            }
            Ok(_) if args.check => {
                printer.out(format!("{} {name} is not formatted", paint(Tone::Warn, "!")));
                exit = Exit::Findings;
            }
            Ok(done) => {
                write_atomically(path, &done.text)?;
                printer.say(format!("{name}: formatted"));
            }
        }
    }
    Ok(exit)
}
