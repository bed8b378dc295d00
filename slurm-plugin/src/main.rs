//! `slurmedic-hook`: what Slurm starts on a node (HealthCheckProgram, Prolog, Epilog) and on the controller (strigger,
//! EpilogSlurmctld). It looks, and it reports; the engine decides.
//!
//! Three things it must never do: hang past its deadline, drain a node by accident, or keep quiet about a check that
//! did not work. What may hang runs in a worker process of its own, which is given up on, never waited for.

mod alert;
mod checks;
mod command;
mod config;
mod deliver;
mod drain;
mod finding;
mod hostlist;
mod http;
mod mode;
mod notice;
mod report;
mod run;
mod show;
mod spool;
mod state;
mod supervise;
mod talk;
mod time;
mod worker;

use mode::Call;
use std::process::ExitCode;

fn main() -> ExitCode {
    let call = match mode::call(std::env::args_os(), &mode::from_env) {
        Ok(call) => call,
        Err(why) => {
            talk::err(&format!("{why}; `slurmedic-hook --help` shows what there is"));
            // Slurm may be the caller, with a program of a wrong name: that must not drain the node.
            return ExitCode::SUCCESS;
        }
    };
    match call {
        Call::Help => talk::out(show::HELP),
        Call::Version => talk::out(concat!("slurmedic-hook ", env!("CARGO_PKG_VERSION"))),
        Call::Example => talk::out(show::EXAMPLE.trim_end()),
        Call::Worker { mode, checks } => worker::work(mode, &checks),
        Call::CheckConfig { config } => return show::check_config(&config),
        Call::DryRun { config, mode } => return show::dry_run(&config, mode),
        Call::Check { config, mode } => return run::run(&config, mode),
        Call::Notice { config, event, nodes } => notice::run(&config, event, &nodes),
    }
    ExitCode::SUCCESS
}
