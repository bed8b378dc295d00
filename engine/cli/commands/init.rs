//! `init`: write a commented configuration file, or the lines that Slurm needs.

pub(crate) mod slurm;

use super::Global;
use crate::exit::{CliError, Exit};
use crate::printer::Printer;
use std::io::Write as _;
use std::path::PathBuf;

/// The configuration with every key at its default, explained.
pub(crate) const TEMPLATE: &str = include_str!("../slurmedic.toml");

/// Where to write it.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct InitArgs {
    /// What else to begin with.
    #[command(subcommand)]
    what: Option<InitWhat>,
    /// File to write; without it the text goes to stdout.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// What else there is to begin with.
#[derive(Debug, clap::Subcommand)]
enum InitWhat {
    /// Print the lines by which Slurm starts the hook here, or check them.
    Slurm(slurm::SlurmArgs),
}

/// Runs `init`.
pub(crate) async fn run(args: &InitArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    if let Some(InitWhat::Slurm(args)) = &args.what {
        return slurm::run(args, global, printer).await;
    }
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
