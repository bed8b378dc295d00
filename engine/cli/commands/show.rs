//! `show`: one run from its first to its last event.

use super::Global;
use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, Tone, paint, tame, wrapped};
use crate::remote;
use crate::site::{Access, open};
use crate::timeline::{self, dated};
use engine_core::condition::Truth;
use engine_core::fact::FactSet;
use engine_core::plan::ConditionReport;
use engine_core::run::{EventKind, RunState, fold};
use engine_server::{Desk, Show};

/// Which run.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// The run, or the beginning of its id.
    run: String,
    /// Also the facts behind each decision: all of the plan, then what conditions rest on and what had changed.
    #[arg(long)]
    facts: bool,
}

/// Runs `show`.
pub(crate) async fn run(args: &ShowArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let found: Show = match remote::engine(global).await? {
        Some(engine) => engine.get(&format!("/api/v1/runs/{}", remote::segment(&args.run)?), &[]).await?,
        None => {
            let site = open(global, printer, Access::Look, None).await?;
            let desk = Desk::new(site.engine);
            desk.show(&desk.find(&args.run).await?).await?
        }
    };
    if printer.format == Format::Json {
        printer.json(&found)?;
        return Ok(Exit::Ok);
    }
    let events = found.events;
    let state = fold(&events).map_err(|e| {
        CliError::caused("the run does not hold together", e)
            .with_hint("`slurmedic journal verify` tells more")
    })?;
    head(&state, printer);
    for event in &events {
        printer.out(dated(event, &state));
        match &event.kind {
            EventKind::Proposed { plan, .. } => {
                conditions(&plan.judged, printer);
                facts(&plan.facts, args.facts, printer);
            }
            EventKind::Intent { guard, before, .. } => {
                conditions(&guard.conditions, printer);
                facts(&guard.facts, args.facts, printer);
                if let Some(b) = before {
                    printer.out(format!("          before: {}", wrapped(&tame(&b.describe()), 18)));
                }
            }
            EventKind::Refused { guard, .. } => {
                conditions(&guard.conditions, printer);
                facts(&guard.facts, args.facts, printer);
            }
            EventKind::Finished { outcome, .. } => {
                if let Some(a) = &outcome.after {
                    printer.out(format!("          after:  {}", wrapped(&tame(&a.describe()), 18)));
                }
                details(&outcome.data, printer);
            }
            EventKind::Resolved { after: Some(a), .. } => {
                printer.out(format!("          after:  {}", wrapped(&tame(&a.describe()), 18)));
            }
            EventKind::Ended { next_step, .. } if !next_step.is_empty() => {
                printer.out(format!("          next: {}", wrapped(&tame(next_step), 16)));
            }
            _ => {}
        }
    }
    Ok(Exit::Ok)
}

fn head(state: &RunState, printer: &mut Printer) {
    printer.out(paint(Tone::Strong, format!("run {}  {}", state.run, state.plan.playbook)));
    printer.out(format!("target    {}", timeline::target(state)));
    printer.out(format!("status    {}", state.status.as_str().replace('_', " ")));
    printer.out(format!("why       {}", wrapped(&tame(&state.why), 10)));
    printer.out(format!(
        "asked by  {} at {}",
        state.plan.initiator,
        state.proposed_at.strftime("%Y-%m-%d %H:%M:%S UTC")
    ));
    printer.out(format!("playbook  sha256 {}", state.plan.playbook.digest));
    printer.out(format!("plan      sha256 {}", state.digest));
    printer.out("");
}

fn conditions(list: &[ConditionReport], printer: &mut Printer) {
    for c in list {
        let (tone, word) = match c.truth {
            Truth::True => (Tone::Good, "yes"),
            Truth::False => (Tone::Bad, "no "),
            Truth::Unknown => (Tone::Warn, "?  "),
        };
        let text = format!("{} [{}]", c.source, c.explain);
        printer.out(format!("          {} {}", paint(tone, word), wrapped(&tame(&text), 14)));
    }
}

fn facts(facts: &FactSet, wanted: bool, printer: &mut Printer) {
    if !wanted {
        return;
    }
    for (name, f) in facts.iter() {
        let text = format!(
            "{name} = {} ({}, {})",
            timeline::known(&f.value),
            f.source.as_str(),
            f.observed_at.strftime("%H:%M:%S")
        );
        printer.out(paint(Tone::Dim, format!("            {}", wrapped(&text, 14))));
    }
}

/// Shows what an action left: the lines of a verification, the steps around a reset, the digest of a bundle.
fn details(data: &serde_json::Value, printer: &mut Printer) {
    for step in data.get("steps").and_then(|s| s.as_array()).into_iter().flatten().filter_map(|s| s.as_str())
    {
        printer.out(paint(Tone::Dim, format!("          - {}", wrapped(&tame(step), 12))));
    }
    for check in data.get("checks").and_then(|s| s.as_array()).into_iter().flatten() {
        let text = |name: &str| tame(check.get(name).and_then(|v| v.as_str()).unwrap_or(""));
        let tone = if text("truth") == "pass" { Tone::Good } else { Tone::Bad };
        let line = format!("{}: wanted {}, seen {}", text("id"), text("wanted"), text("seen"));
        printer.out(format!(
            "          {} {}",
            paint(tone, format!("{:<7}", text("truth"))),
            wrapped(&line, 18)
        ));
    }
    if let Some(d) = data.get("digest").and_then(|d| d.as_str()) {
        printer.out(paint(Tone::Dim, format!("          bundle sha256 {d}")));
    }
}
