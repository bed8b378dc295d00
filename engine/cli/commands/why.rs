//! `why`: why a node is as it is, from Slurm and from the journal.

use super::Global;
use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, Tone, paint, tame, wrapped};
use crate::remote;
use crate::site::{Access, open};
use engine_core::run::Status;
use engine_server::{Desk, Why};

/// Which node.
#[derive(Debug, clap::Args)]
pub(crate) struct WhyArgs {
    /// The node.
    node: String,
}

/// Runs `why`.
pub(crate) async fn run(args: &WhyArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let node = super::plan::node_name(&args.node)?;
    let found: Why = match remote::engine(global).await? {
        Some(engine) => {
            engine.get(&format!("/api/v1/nodes/{}", remote::segment(node.as_str())?), &[]).await?
        }
        None => {
            let site = open(global, printer, Access::Plan, Some(&node)).await?;
            Desk::new(site.engine).why(&node).await?
        }
    };
    if printer.format == Format::Json {
        printer.json(&found)?;
        return Ok(Exit::Ok);
    }
    let slurm = tame(&found.slurm);
    match (&found.state, &found.drain) {
        (None, _) => printer.out(format!("{node}: slurmctld could not be read: {slurm}")),
        (Some(state), Some(drain)) => {
            let state = paint(Tone::Strong, tame(state));
            printer.out(format!("{} is {state}", paint(Tone::Strong, node.as_str())));
            printer.out(format!("  Slurm says {}", wrapped(&slurm, 13)));
            printer.out(format!("  {}", wrapped(&tame(drain), 2)));
        }
        (Some(state), None) => printer.out(format!("{node} is {}: {slurm}", tame(state))),
    }
    if found.runs.is_empty() {
        printer.out("  no run of this journal has touched it");
    }
    for r in &found.runs {
        let status = match r.status {
            Status::Ended(e) => e.as_str().replace('_', " "),
            s => s.as_str().replace('_', " "),
        };
        let head = format!(
            "{} run {} ({}): {status}",
            r.proposed_at.strftime("%Y-%m-%d %H:%M:%S"),
            r.run,
            r.playbook
        );
        printer.out(head);
        printer.out(format!("  {}", wrapped(&tame(&r.why), 2)));
    }
    if let Some(next) = &found.next {
        printer.out(format!("  next: {}", wrapped(&tame(next), 8)));
    }
    Ok(Exit::Ok)
}
