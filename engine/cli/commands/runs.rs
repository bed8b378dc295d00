//! `runs`: the list.

use super::Global;
use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, Tone, paint, tame};
use crate::remote;
use crate::site::{Access, open};
use crate::timeline::end_tone;
use engine_core::run::Status;
use engine_server::{Desk, Runs};

/// Which runs.
#[derive(Debug, clap::Args)]
pub(crate) struct RunsArgs {
    /// Only runs on this node.
    #[arg(long)]
    node: Option<String>,
    /// Only runs that are not over.
    #[arg(long)]
    open: bool,
    /// At most so many, newest first.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    limit: u16,
}

/// Runs `runs`.
pub(crate) async fn run(args: &RunsArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let node = args.node.as_deref().map(super::plan::node_name).transpose()?;
    let found: Runs = match remote::engine(global).await? {
        Some(engine) => {
            let mut query = vec![("limit", args.limit.to_string()), ("open", args.open.to_string())];
            query.extend(node.map(|n| ("node", n.to_string())));
            engine.get("/api/v1/runs", &query).await?
        }
        None => {
            let site = open(global, printer, Access::Look, None).await?;
            Desk::new(site.engine).runs(node.as_ref(), args.open, args.limit.into()).await?
        }
    };
    if printer.format == Format::Json {
        printer.json(&found)?;
        return Ok(Exit::Ok);
    }
    let Runs { runs, interrupted: orphans, .. } = found;
    if runs.is_empty() {
        printer.out("no run on record");
        return Ok(Exit::Ok);
    }
    printer.out(paint(
        Tone::Strong,
        format!("{:<18} {:<20} {:<12} {:<15} {}", "RUN", "PROPOSED (UTC)", "NODE", "STATUS", "BY"),
    ));
    for r in &runs {
        let interrupted = orphans.contains(&r.run);
        let (tone, word) = match r.status {
            _ if interrupted => (Tone::Bad, "interrupted".to_owned()),
            Status::Ended(end) => (end_tone(end), end.as_str().to_owned()),
            s => (Tone::Strong, s.as_str().to_owned()),
        };
        let time = r.proposed_at.strftime("%Y-%m-%d %H:%M:%S");
        let node: String = r.node.as_str().chars().take(12).collect();
        printer.out(format!(
            "{:<18} {time:<20} {node:<12} {} {}",
            r.run.as_str(),
            paint(tone, format!("{word:<15}")),
            tame(&r.initiator)
        ));
        let why: String = tame(&r.why).chars().take(58).collect();
        printer.out(paint(Tone::Dim, format!("{:<18} {}  {why}", "", r.playbook)));
    }
    if !orphans.is_empty() {
        printer.say(format!("{} interrupted run(s): `slurmedic recover` picks them up", orphans.len()));
    }
    Ok(Exit::Ok)
}
