//! The command line, as clap sees it. Lowered once in `commands`; nothing below knows clap.

use crate::commands;
use crate::config::Cluster;
use crate::printer::Format;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Remediation playbooks for GPU clusters under Slurm: drain, reset, verify, give back - or hold and say why.
#[derive(Debug, Parser)]
#[command(name = "slurmedic", version, max_term_width = 80, arg_required_else_help = true, after_help = AFTER)]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
    /// Configuration file; a named one must exist.
    #[arg(long, global = true, env = "SLURMEDIC_CONFIG", hide_env_values = true, value_name = "FILE", help_heading = GLOBAL)]
    pub(crate) config: Option<PathBuf>,
    /// Journal file; overrides the configuration.
    #[arg(long, global = true, env = "SLURMEDIC_JOURNAL", hide_env_values = true, value_name = "FILE", help_heading = GLOBAL)]
    pub(crate) journal: Option<PathBuf>,
    /// Cluster to act on; overrides the configuration.
    #[arg(long, global = true, value_enum, help_heading = GLOBAL)]
    pub(crate) cluster: Option<Cluster>,
    /// Form of the data on stdout.
    #[arg(long, global = true, value_enum, default_value = "text", help_heading = GLOBAL)]
    pub(crate) format: Format,
    /// More log on stderr; twice for still more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = GLOBAL)]
    pub(crate) verbose: u8,
}

const GLOBAL: &str = "Everywhere";

const AFTER: &str = "\
Exit codes: 0 done or succeeded, 1 environment, 2 usage, 3 findings,
10 rejected, 11 cancelled, 12 rolled back, 13 held, 14 handed over, 15 stuck,
16 awaits approval.
Start with `slurmedic demo`; it touches nothing real.";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the whole loop on a simulated cluster of 64 nodes.
    Demo(commands::demo::DemoArgs),
    /// Show what a run would do and why, and change nothing.
    Plan(commands::plan::PlanArgs),
    /// Make a plan, ask for the approval, and carry it out.
    Run(commands::run::RunArgs),
    /// List runs.
    Runs(commands::runs::RunsArgs),
    /// Tell one run from its first to its last event.
    Show(commands::show::ShowArgs),
    /// Say why a node is as it is, and what was done about it.
    Why(commands::why::WhyArgs),
    /// Say yes to the plan of a run that waits for it, and carry it out.
    Approve(commands::decide::ApproveArgs),
    /// Say no to the plan of a run that waits for approval.
    Deny(commands::decide::DenyArgs),
    /// Ask a run to stop at its nearest safe point.
    Cancel(commands::cancel::CancelArgs),
    /// Pick up runs whose engine was killed: resume, go back or hold.
    Recover(commands::recover::RecoverArgs),
    /// The daemon: works off incidents and answers people and programs, until it is stopped.
    Serve(commands::serve::ServeArgs),
    /// Feed alerts by hand.
    Alert(commands::alert::AlertArgs),
    /// List what is open.
    Incidents(commands::incidents::IncidentsArgs),
    /// Stop everything that takes nodes or hardware away, at once.
    Pause(commands::breaker::PauseArgs),
    /// Show what stands still, and let it go on.
    Breaker(commands::breaker::BreakerArgs),
    /// Carry orders out on a node; make the keys of nodes.
    Agent(commands::agent::AgentArgs),
    /// Make, list and revoke API tokens.
    Token(commands::token::TokenArgs),
    /// Make a one-time yes for a person who is not at a terminal.
    Ticket(commands::ticket::TicketArgs),
    /// Check the journal, or back it up.
    Journal(commands::journal::JournalArgs),
    /// Check what this site offers, and say which way Slurm is read.
    Doctor(commands::doctor::DoctorArgs),
    /// Write a commented configuration file.
    Init(commands::init::InitArgs),
    /// Read captured outputs of Slurm, DCGM or NVIDIA tools and print typed facts.
    Read(commands::read::ReadArgs),
    /// Check, show or compare policies: what the site allows.
    Policy(commands::policy::PolicyArgs),
    /// Check playbooks.
    Lint(commands::lint::LintArgs),
    /// Format playbooks.
    Fmt(commands::fmt::FmtArgs),
    /// Print the JSON Schema of playbooks, for editors.
    Schema(commands::schema::SchemaArgs),
    /// Explain a diagnostic code.
    Explain(commands::explain::ExplainArgs),
    /// List the actions a step may use.
    Actions(commands::actions::ActionsArgs),
    /// List the facts a condition may use.
    Facts(commands::facts::FactsArgs),
    /// Say what an XID of the NVIDIA driver means, and what would be done.
    Xid(commands::xid::XidArgs),
    /// Say what a reason of a node means, and what would be done.
    Reason(commands::reason::ReasonArgs),
    /// Say which playbook a situation asks for, by rules alone.
    Decide(commands::decision::DecideArgs),
    /// Check what this site knows differently; list what is known.
    Knowledge(commands::knowledge::KnowledgeArgs),
    /// Simulate clusters by the month, and check every rule at every event.
    Simulate(commands::simulate::SimulateArgs),
    /// Measure this machine and print the figures.
    Bench(commands::bench::BenchArgs),
}
