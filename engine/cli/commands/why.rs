//! `why`: why a node is as it is, from Slurm and from the journal.

use super::Global;
use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, Tone, paint, tame, wrapped};
use crate::site::{Access, open};
use engine_core::known::Known;
use engine_core::observe::state_word;
use engine_core::ownership::{NodeMark, run_of_reason};
use engine_core::run::{EventKind, Status};

/// Which node.
#[derive(Debug, clap::Args)]
pub(crate) struct WhyArgs {
    /// The node.
    node: String,
}

/// Runs `why`.
pub(crate) async fn run(args: &WhyArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let node = super::plan::node_name(&args.node)?;
    let site = open(global, printer, Access::Plan, Some(&node)).await?;
    let ports = &site.engine.ports;
    let (read, reservations) = tokio::join!(ports.scheduler.node(&node), ports.scheduler.reservations());
    if read.is_err() {
        super::plan::exists(&site, &node).await?;
    }
    let runs = ports.journal.runs(Some(&node), false, 5).await?;
    let mark = match (&read, &reservations) {
        (Ok(n), Ok(r)) => NodeMark::of(&n.value, &r.value, ports.clock.now()),
        (Err(u), _) | (_, Err(u)) => Known::Unknown(u.clone()),
    };
    let ours = match &mark {
        Known::Known(m) => site.engine.drain_is_from_our_journal(m).await,
        Known::Unknown(_) => false,
    };
    if printer.format == Format::Json {
        let node_json = match &read {
            Ok(n) => serde_json::to_value(&n.value),
            Err(u) => serde_json::to_value(Known::<()>::Unknown(u.clone())),
        }
        .map_err(|e| CliError::caused("the answer could not be encoded", e))?;
        printer.json(&serde_json::json!({
            "format": "slurmedic/why/1", "node": node_json, "drain_is_ours": ours, "runs": runs
        }))?;
        return Ok(Exit::Ok);
    }
    match (&read, &mark) {
        (Err(u), _) => printer.out(format!("{node}: slurmctld could not be read: {}", tame(&u.to_string()))),
        (Ok(n), Known::Known(m)) => {
            printer.out(format!(
                "{} is {}",
                paint(Tone::Strong, node.as_str()),
                paint(Tone::Strong, state_word(&n.value))
            ));
            printer.out(format!("  Slurm says {}", wrapped(&tame(&m.describe()), 13)));
            let text = m.reason.as_ref().map(|r| r.text.clone()).unwrap_or_default();
            let line = match (m.is_drained(), ours, run_of_reason(&text)) {
                (false, _, _) => "The node is not drained.".to_owned(),
                (true, true, _) => "The drain is ours and unchanged.".to_owned(),
                (true, false, Some(run)) => {
                    format!(
                        "The reason names run {run}, but this journal did not make it, or somebody changed it since: it is treated as a person's."
                    )
                }
                (true, false, None) => {
                    "The drain is a person's or another tool's: Slurmedic does not touch it.".to_owned()
                }
            };
            printer.out(format!("  {}", wrapped(&line, 2)));
        }
        (Ok(n), Known::Unknown(u)) => {
            printer.out(format!("{node} is {}: {}", state_word(&n.value), tame(&u.to_string())));
        }
    }
    if runs.is_empty() {
        printer.out("  no run of this journal has touched it");
    }
    for r in &runs {
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
    if let Some(last) = runs.first()
        && let Some(EventKind::Ended { next_step, .. }) =
            ports.journal.load(&last.run).await?.last().map(|e| &e.kind)
        && !next_step.is_empty()
    {
        printer.out(format!("  next: {}", wrapped(&tame(next_step), 8)));
    }
    Ok(Exit::Ok)
}
