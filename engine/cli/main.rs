//! The command `slurmedic`: arguments in, one verb out.
//!
//! The only composition root: here adapters meet the engine. Verbs live in `commands/`, one file each; only
//! `printer` writes to the terminal.

mod args;
mod commands;
mod config;
mod daemon;
mod exit;
mod fleet;
mod following;
mod identity;
mod page;
mod printer;
mod prometheus;
mod remote;
mod simulated;
mod site;
mod timeline;
mod verdict;
mod watching;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let mut printer = printer::Printer::new(args.format);
    init_logging(&args);
    match commands::run(args, &mut printer) {
        Ok(code) => code.into(),
        Err(error) => {
            printer.error(&error);
            error.exit.into()
        }
    }
}

/// Logs go to stderr: warnings only, unless `-v` or `SLURMEDIC_LOG` asks for more.
/// `serve --log json` tells everything from `info` on, one object on each line.
fn init_logging(args: &args::Args) {
    use commands::serve::LogForm;
    use tracing_subscriber::EnvFilter;
    let json = matches!(&args.verb, args::Verb::Serve(s) if s.log == LogForm::Json);
    let level = match args.verbose {
        0 if !json => "warn",
        0 => "info",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("SLURMEDIC_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    if json {
        log.json().flatten_event(true).with_current_span(false).init();
    } else {
        log.init();
    }
}
