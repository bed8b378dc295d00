//! `init`: write a commented configuration file.

use crate::exit::{CliError, Exit};
use crate::printer::Printer;
use std::io::Write as _;
use std::path::PathBuf;

/// The configuration with every key at its default, explained.
pub(crate) const TEMPLATE: &str = include_str!("../slurmedic.toml");

/// Where to write it.
#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// File to write; without it the text goes to stdout.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Runs `init`.
pub(crate) fn run(args: &InitArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let Some(path) = &args.file else {
        printer.out(TEMPLATE.trim_end());
        return Ok(Exit::Ok);
    };
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(|e| {
        let error = CliError::caused(format!("{} could not be written", path.display()), e);
        error.with_hint("an existing file is never overwritten; choose another name")
    })?;
    file.write_all(TEMPLATE.as_bytes())
        .map_err(|e| CliError::caused(format!("{} could not be written", path.display()), e))?;
    printer.out(format!("wrote {}", path.display()));
    printer.say(
        "every key is commented out at its default: change what differs here, then run `slurmedic doctor`",
    );
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::TEMPLATE;
    use crate::config::Config;

    #[test]
    fn the_template_loads_and_so_does_it_with_every_key_set() {
        toml::from_str::<Config>(TEMPLATE).unwrap();
        let set: String = TEMPLATE
            .lines()
            .map(|l| match l.strip_prefix('#') {
                Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) && rest.contains(" = ") => {
                    rest
                }
                _ => l,
            })
            .map(|l| format!("{l}\n"))
            .collect();
        toml::from_str::<Config>(&set).unwrap_or_else(|e| panic!("{e}\n{set}"));
    }
}
