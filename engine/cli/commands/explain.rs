//! `explain`: one diagnostic code in full.

use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, tame};
use engine_playbook::codes;

/// Which code.
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// A code such as PB0007; without one, all of them are listed.
    code: Option<String>,
}

/// Runs `explain`.
pub(crate) fn run(args: &ExplainArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let Some(code) = &args.code else {
        if printer.format == Format::Json {
            let list: Vec<_> = codes::all()
                .map(|(c, t, e)| serde_json::json!({ "code": c, "title": t, "explanation": e }))
                .collect();
            printer.json(&serde_json::json!({ "format": "slurmedic/codes/1", "codes": list }))?;
        } else {
            for (code, title, _) in codes::all() {
                printer.out(format!("{code}  {title}"));
            }
        }
        return Ok(Exit::Ok);
    };
    let wanted = code.trim().to_ascii_uppercase();
    let Some(text) = codes::explain(&wanted) else {
        let error =
            CliError::usage(format!("there is no code {}", tame(&code.chars().take(40).collect::<String>())));
        return Err(match codes::nearest(&wanted) {
            Some(near) => error.with_hint(format!("did you mean {near}? `slurmedic explain` lists them all")),
            None => error.with_hint("`slurmedic explain` lists them all"),
        });
    };
    if printer.format == Format::Json {
        printer.json(
            &serde_json::json!({ "format": "slurmedic/code/1", "code": wanted, "explanation": text }),
        )?;
    } else {
        printer.out(text.trim_end());
    }
    Ok(Exit::Ok)
}
