//! `facts`: the facts a condition may use.

use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, tame};
use engine_core::diag::did_you_mean;
use engine_playbook::catalogue;

/// Which one.
#[derive(Debug, clap::Args)]
pub(crate) struct FactsArgs {
    /// One fact in full; without it, all of them in short.
    name: Option<String>,
}

/// Runs `facts`.
pub(crate) fn run(args: &FactsArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let document = |list| serde_json::json!({ "format": "slurmedic/facts/1", "facts": list });
    let json = printer.format == Format::Json;
    let Some(name) = &args.name else {
        if json {
            printer.json(&document(catalogue::facts_json()))?;
            return Ok(Exit::Ok);
        }
        printer.out(catalogue::facts_table().trim_end());
        return Ok(Exit::Ok);
    };
    match engine_core::vocabulary::find(name) {
        Some(found) if json => {
            printer.json(&document(serde_json::json!([catalogue::fact_json(found)])))?;
            Ok(Exit::Ok)
        }
        Some(found) => {
            printer.out(catalogue::fact_page(found).trim_end());
            Ok(Exit::Ok)
        }
        None => {
            let shown = tame(&name.chars().take(60).collect::<String>());
            let error = CliError::usage(format!("there is no fact {shown}"));
            let near = did_you_mean(name, engine_core::vocabulary::FACTS.iter().map(|f| f.name));
            Err(match near {
                Some(near) => error.with_hint(format!("did you mean {near}?")),
                None => error.with_hint("`slurmedic facts` lists them all"),
            })
        }
    }
}
