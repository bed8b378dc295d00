//! The command `slurmedic`: arguments in, one verb out.
//!
//! The only composition root: here adapters meet the engine. Verbs live in `commands/`, one file each; only
//! `printer` writes to the terminal.

mod args;
mod commands;
mod config;
mod exit;
mod fleet;
mod identity;
mod printer;
mod simulated;
mod site;
mod timeline;
mod verdict;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let mut printer = printer::Printer::new(args.format);
    init_logging(args.verbose);
    match commands::run(args, &mut printer) {
        Ok(code) => code.into(),
        Err(error) => {
            printer.error(&error);
            error.exit.into()
        }
    }
}

/// Logs go to stderr: warnings only, unless `-v` or `SLURMEDIC_LOG` asks for more.
fn init_logging(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("SLURMEDIC_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
