//! `schema`: the JSON Schema of playbooks, for editors.

use crate::exit::{CliError, Exit};
use crate::printer::Printer;

/// Nothing to choose.
#[derive(Debug, clap::Args)]
pub(crate) struct SchemaArgs {}

/// Runs `schema`.
pub(crate) fn run(_args: &SchemaArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    printer.out(engine_playbook::schema::schema_text().trim_end());
    Ok(Exit::Ok)
}
