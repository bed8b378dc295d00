//! One file per verb.

pub(crate) mod actions;
pub(crate) mod agent;
pub(crate) mod alert;
pub(crate) mod bench;
pub(crate) mod breaker;
pub(crate) mod cancel;
pub(crate) mod decide;
pub(crate) mod decision;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod facts;
pub(crate) mod fmt;
pub(crate) mod handed;
pub(crate) mod incidents;
pub(crate) mod init;
pub(crate) mod journal;
pub(crate) mod knowledge;
pub(crate) mod lint;
pub(crate) mod plan;
pub(crate) mod policy;
pub(crate) mod read;
pub(crate) mod reason;
pub(crate) mod recover;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod schema;
pub(crate) mod serve;
pub(crate) mod show;
pub(crate) mod simulate;
pub(crate) mod ticket;
pub(crate) mod token;
pub(crate) mod why;
pub(crate) mod xid;

use crate::args::{Args, Verb};
use crate::config::Cluster;
use crate::exit::{CliError, Exit};
use crate::printer::Printer;
use std::future::Future;
use std::path::PathBuf;

/// What every verb may need of the command line.
#[derive(Debug, Clone)]
pub(crate) struct Global {
    /// Configuration file that was named.
    pub(crate) config: Option<PathBuf>,
    /// Journal file that was named.
    pub(crate) journal: Option<PathBuf>,
    /// Cluster that was named.
    pub(crate) cluster: Option<Cluster>,
}

/// Runs the verb.
pub(crate) fn run(args: Args, printer: &mut Printer) -> Result<Exit, CliError> {
    let global = Global { config: args.config, journal: args.journal, cluster: args.cluster };
    match args.verb {
        Verb::Demo(a) => demo::run(&a, printer),
        Verb::Simulate(a) => simulate::run(&a, printer),
        Verb::Plan(a) => wait(plan::run(&a, &global, printer)),
        Verb::Run(a) => wait(run::run(&a, &global, printer)),
        Verb::Runs(a) => wait(runs::run(&a, &global, printer)),
        Verb::Show(a) => wait(show::run(&a, &global, printer)),
        Verb::Why(a) => wait(why::run(&a, &global, printer)),
        Verb::Approve(a) => wait(decide::approve(&a, &global, printer)),
        Verb::Deny(a) => wait(decide::deny(&a, &global, printer)),
        Verb::Cancel(a) => wait(cancel::run(&a, &global, printer)),
        Verb::Recover(a) => wait(recover::run(&a, &global, printer)),
        Verb::Serve(a) => wait(serve::run(&a, &global, printer)),
        Verb::Alert(a) => wait(alert::run(&a, &global, printer)),
        Verb::Incidents(a) => wait(incidents::run(&a, &global, printer)),
        Verb::Pause(a) => wait(breaker::pause(&a, &global, printer)),
        Verb::Breaker(a) => wait(breaker::run(&a, &global, printer)),
        Verb::Agent(a) => agent::run(&a, &global, printer),
        Verb::Token(a) => token::run(&a, &global, printer),
        Verb::Ticket(a) => wait(ticket::run(&a, &global, printer)),
        Verb::Journal(a) => wait(journal::run(&a, &global, printer)),
        Verb::Doctor(a) => wait(doctor::run(&a, &global, printer)),
        Verb::Init(a) => wait(init::run(&a, &global, printer)),
        Verb::Read(a) => read::run(&a, printer),
        Verb::Policy(a) => policy::run(&a, &global, printer),
        Verb::Lint(a) => lint::run(&a, printer),
        Verb::Fmt(a) => fmt::run(&a, printer),
        Verb::Schema(a) => schema::run(&a, printer),
        Verb::Explain(a) => explain::run(&a, printer),
        Verb::Actions(a) => actions::run(&a, printer),
        Verb::Facts(a) => facts::run(&a, printer),
        Verb::Xid(a) => xid::run(&a, &global, printer),
        Verb::Reason(a) => reason::run(&a, &global, printer),
        Verb::Decide(a) => decision::run(&a, &global, printer),
        Verb::Knowledge(a) => knowledge::run(&a, &global, printer),
        Verb::Bench(a) => bench::run(&a, &global, printer),
    }
}

/// Runs a verb that waits for the world.
fn wait<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| CliError::caused("the runtime could not be started", e))?;
    runtime.block_on(work)
}
