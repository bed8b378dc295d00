//! `actions`: the actions a step may use.

use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, tame};
use engine_core::diag::did_you_mean;
use engine_playbook::catalogue;

/// Which one.
#[derive(Debug, clap::Args)]
pub(crate) struct ActionsArgs {
    /// One action in full; without it, all of them in short.
    name: Option<String>,
}

/// Runs `actions`.
pub(crate) fn run(args: &ActionsArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let document = |list| serde_json::json!({ "format": "slurmedic/actions/1", "actions": list });
    let json = printer.format == Format::Json;
    let Some(name) = &args.name else {
        if json {
            printer.json(&document(catalogue::actions_json()))?;
            return Ok(Exit::Ok);
        }
        printer.out(catalogue::actions_table().trim_end());
        return Ok(Exit::Ok);
    };
    match engine_core::action::find(name) {
        Some(found) if json => {
            printer.json(&document(serde_json::json!([catalogue::action_json(found)])))?;
            Ok(Exit::Ok)
        }
        Some(found) => {
            printer.out(catalogue::action_page(found).trim_end());
            Ok(Exit::Ok)
        }
        None => {
            let shown = tame(&name.chars().take(60).collect::<String>());
            let error = CliError::usage(format!("there is no action {shown}"));
            let near = did_you_mean(name, engine_core::action::ACTIONS.iter().map(|a| a.name));
            Err(match near {
                Some(near) => error.with_hint(format!("did you mean {near}?")),
                None => error.with_hint("`slurmedic actions` lists them all"),
            })
        }
    }
}
