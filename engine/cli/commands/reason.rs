//! `reason`: what a reason of a node means, and what would be done about it.

use super::{Global, knowledge};
use crate::exit::{CliError, Exit};
use crate::page;
use crate::printer::{Format, Printer, Tone, paint, tame};
use engine_core::knowledge::{ReasonAnswer, Verdict};
use engine_core::watch::Pattern;
use serde_json::{Value, json};

/// Longest text that is looked up, in bytes.
const MAX_REASON: usize = 4_096;

/// Which one.
#[derive(Debug, clap::Args)]
pub(crate) struct ReasonArgs {
    /// The reason, as `scontrol show node` or `sinfo -R` prints it.
    text: String,
}

/// Runs `reason`.
pub(crate) fn run(args: &ReasonArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    if args.text.len() > MAX_REASON {
        let says = format!("the reason has {} bytes; at most {MAX_REASON} are looked at", args.text.len());
        return Err(CliError::usage(says));
    }
    let known = knowledge::of_site(global)?;
    let answer = known.reason(&args.text);
    if printer.format == Format::Json {
        let parts: Vec<Value> = answer
            .parts
            .iter()
            .map(|p| {
                json!({
                    "text": p.text, "known": p.pattern, "never": p.never,
                    "sources": p.sources, "changes": p.changes,
                })
            })
            .collect();
        printer.json(&json!({
            "format": "slurmedic/reason/1",
            "reason": args.text,
            "parts": parts,
            "decision": { "verdict": answer.verdict, "playbook": answer.playbook, "why": answer.why },
        }))?;
        return Ok(Exit::Ok);
    }
    for part in &answer.parts {
        printer.out(paint(Tone::Strong, tame(&part.text)));
        let Some(p) = part.pattern else {
            let says = if answer.ours { "a mark of ours" } else { "somebody's own words" };
            page::row(printer, "means", says);
            continue;
        };
        show(p, printer);
        page::rows(printer, "never", &part.never);
        page::rows(printer, "sources", part.sources.iter().map(|s| knowledge::source_short(s)));
        knowledge::changes(part.changes.iter().copied(), printer);
    }
    decision(&known, &answer, printer);
    Ok(Exit::Ok)
}

fn show(p: &Pattern, printer: &mut Printer) {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    page::row(printer, "means", p.means.as_deref().unwrap_or(&p.says));
    page::row(printer, "written by", &text(&p.written_by));
    page::row(printer, "state", &text(&p.state));
    page::row(printer, "jobs lost", &text(&p.jobs_lost));
    page::row(printer, "comes back", &text(&p.returns));
    page::row(printer, "look at", &text(&p.look_at));
    page::row(printer, "a machine", &p.automatic.join("; "));
    page::row(printer, "a person", &text(&p.person_for));
    page::row(printer, "releases", &text(&p.versions));
    page::row(printer, "fault", p.fault.as_deref().unwrap_or_default());
}

fn decision(known: &engine_core::knowledge::Knowledge, answer: &ReasonAnswer<'_>, printer: &mut Printer) {
    let says = match (answer.verdict, answer.playbook) {
        (Verdict::Playbook, Some(id)) => {
            let summary = known.playbooks.get(id).map(|p| format!(": {}", p.summary)).unwrap_or_default();
            format!("playbook {id}{summary}")
        }
        (Verdict::Nothing, _) => "nothing is done".to_owned(),
        _ => "a person decides".to_owned(),
    };
    page::row(printer, "decision", &says);
    page::rows(printer, "", &answer.why);
}
