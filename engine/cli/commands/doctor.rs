//! `doctor`: what this site offers and what is missing, without changing anything.

use super::Global;
use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, Tone, paint, tame, wrapped};
use crate::site::{Access, open};
use engine_adapters::slurm::Verdict;
use serde::Serialize;

/// Nothing to choose.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {}

#[derive(Serialize)]
struct Line {
    what: String,
    found: String,
    verdict: Verdict,
    advice: String,
}

/// Runs `doctor`.
pub(crate) async fn run(
    _args: &DoctorArgs,
    global: &Global,
    printer: &mut Printer,
) -> Result<Exit, CliError> {
    let site = open(global, printer, Access::Plan, None).await?;
    let mut lines = Vec::new();
    let mut add = |verdict, what: &str, found: String, advice: &str| {
        lines.push(Line { what: what.to_owned(), found, verdict, advice: advice.to_owned() });
    };
    match &site.config_path {
        Some(p) => add(Verdict::Ok, "configuration", p.display().to_string(), ""),
        None => add(
            Verdict::Ok,
            "configuration",
            "none: every key at its default".to_owned(),
            "`slurmedic init` writes one",
        ),
    }
    match &site.journal_path {
        Some(p) => match site.engine.ports.journal.verify().await {
            Ok(r) if r.broken.is_none() => {
                add(Verdict::Ok, "journal", format!("{}, {} events, whole", p.display(), r.events), "");
            }
            Ok(_) => add(
                Verdict::Fail,
                "journal",
                format!("{} is broken", p.display()),
                "`slurmedic journal verify` names the place",
            ),
            Err(e) => add(Verdict::Fail, "journal", e.to_string(), "correct journal.path or its rights"),
        },
        None => add(Verdict::Ok, "journal", "not made yet".to_owned(), "the first run makes it"),
    }
    let names: Vec<String> = site.library().playbooks().map(|p| p.reference.to_string()).collect();
    add(Verdict::Ok, "playbooks", names.join(", "), "");
    for item in site.library().broken() {
        let file = match &item.origin {
            engine_playbook::library::Origin::BuiltIn => "a built-in playbook".to_owned(),
            engine_playbook::library::Origin::File(p) => p.display().to_string(),
        };
        add(
            Verdict::Fail,
            "playbooks",
            format!("{file} has errors and is not used"),
            "`slurmedic lint FILE` shows them",
        );
    }
    if let Some(slurm) = &site.slurm {
        for l in slurm.doctor().await {
            add(l.verdict, l.what, l.found, &l.advice);
        }
        if let Some(local) = &site.local {
            let status = site.engine.ports.actuator.status(local).await;
            match status.ready {
                Ok(()) => add(Verdict::Ok, "node tools", format!("{local} is {}", status.by), ""),
                Err(why) => add(
                    Verdict::Warn,
                    "node tools",
                    why,
                    "resets, diagnostics and evidence need them; correct node.tools, or run on the node itself",
                ),
            }
        }
    }
    let worst = lines.iter().map(|l| l.verdict).max().unwrap_or(Verdict::Ok);
    if printer.format == Format::Json {
        printer.json(&serde_json::json!({ "format": "slurmedic/doctor/1", "lines": lines }))?;
    } else {
        for l in &lines {
            let (tone, word) = match l.verdict {
                Verdict::Ok => (Tone::Good, "ok  "),
                Verdict::Warn => (Tone::Warn, "warn"),
                Verdict::Fail => (Tone::Bad, "FAIL"),
            };
            printer.out(format!("{}  {:<18} {}", paint(tone, word), l.what, wrapped(&tame(&l.found), 25)));
            if !l.advice.is_empty() {
                printer.out(format!("{:25}{}", "", paint(Tone::Dim, wrapped(&tame(&l.advice), 25))));
            }
        }
    }
    Ok(if worst == Verdict::Fail { Exit::Findings } else { Exit::Ok })
}
