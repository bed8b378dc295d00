//! `knowledge`: check a site's file, list what is known. Reads files only.

use super::Global;
use crate::config::{self, Config};
use crate::exit::{CliError, Exit};
use crate::page;
use crate::printer::{Format, Printer, Tone, paint, tame, wrapped};
use engine_core::diag::Severity;
use engine_core::knowledge::{Knowledge, SiteChange, Source};
use engine_playbook::knowledge::{self, LoadedKnowledge};
use engine_playbook::library::read_limited;
use engine_playbook::{Style, diagnostics_json, render_diagnostics};
use serde_json::{Value, json};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

/// What to do with the knowledge.
#[derive(Debug, clap::Args)]
pub(crate) struct KnowledgeArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Check a site's file: every mistake at once, with place, code and advice.
    Check {
        /// Files; without any, the site's file of the configuration.
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Say it in sentences, for screen readers and logs.
        #[arg(long)]
        narrated: bool,
    },
    /// List what is known, and what this site sees differently.
    List {
        /// Which table.
        #[arg(value_enum, default_value = "summary")]
        table: Listing,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Listing {
    /// How much is known, and what the site changed.
    Summary,
    /// XIDs.
    Xids,
    /// Faults.
    Faults,
    /// Slurm's reasons.
    Reasons,
    /// Playbooks of the catalogue.
    Playbooks,
    /// Sources.
    Sources,
    /// What goes wrong by itself or by a command.
    Hazards,
}

/// Runs `knowledge`.
pub(crate) fn run(args: &KnowledgeArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    match &args.what {
        What::Check { files, narrated } => check(files, *narrated, global, printer),
        What::List { table } => list(*table, global, printer),
    }
}

/// Returns what is known here: what came with the program and the site's differences. A file with an error is none, and
/// nothing starts on it.
pub(crate) fn in_force(config: &Config) -> Result<Knowledge, CliError> {
    let Some(path) = &config.knowledge.site else {
        return knowledge::built_in().map_err(|e| CliError::caused("the knowledge", e));
    };
    let loaded = read(path)?;
    let wrong = loaded.diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
    loaded.knowledge.ok_or_else(|| {
        let says = format!("the knowledge {} has {}", tame(&loaded.source.file), counted(wrong, "error"));
        CliError::usage(says)
            .with_hint("`slurmedic knowledge check` shows each with its place and what to do")
    })
}

/// Returns what is known here, by the configuration that was named.
pub(crate) fn of_site(global: &Global) -> Result<Knowledge, CliError> {
    in_force(&config::load(global.config.as_deref())?.0)
}

fn read(path: &Path) -> Result<LoadedKnowledge, CliError> {
    let shown = path.display().to_string();
    let bytes = read_limited(path).map_err(|e| {
        CliError::caused(format!("the knowledge {shown} could not be read"), e)
            .with_exit(Exit::Usage)
            .with_hint("correct knowledge.site in the configuration, or the name on the command line")
    })?;
    knowledge::load(&bytes, &shown).map_err(|e| CliError::caused("the knowledge", e))
}

fn check(
    files: &[PathBuf],
    narrated: bool,
    global: &Global,
    printer: &mut Printer,
) -> Result<Exit, CliError> {
    let mut paths = files.to_vec();
    if paths.is_empty() {
        let named = config::load(global.config.as_deref())?.0.knowledge.site;
        paths.push(named.ok_or_else(|| {
            CliError::usage("there is no file to check: knowledge.site is not set")
                .with_hint("name a file; docs/guide/knowledge.md shows how one looks")
        })?);
    }
    let loaded: Vec<LoadedKnowledge> = paths.iter().map(|p| read(p)).collect::<Result<_, _>>()?;
    let count = |s| loaded.iter().flat_map(|l| &l.diagnostics).filter(|d| d.severity == s).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    if printer.format == Format::Json {
        let list: Vec<Value> = loaded
            .iter()
            .map(|l| {
                json!({
                    "file": l.source.file,
                    "entries": l.entries,
                    "changes": l.knowledge.as_ref().map(|k| &k.changes),
                    "diagnostics": diagnostics_json(&l.diagnostics, &l.source),
                })
            })
            .collect();
        printer.json(&json!({
            "format": "slurmedic/knowledge-check/1", "errors": errors, "warnings": warnings, "files": list
        }))?;
    } else {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let style = match (narrated, colour) {
            (true, _) => Style::Narrated,
            (false, true) => Style::Colour,
            (false, false) => Style::Plain,
        };
        for l in &loaded {
            let text = render_diagnostics(&l.diagnostics, &l.source, style);
            if !text.is_empty() {
                printer.out(text.trim_end());
            }
            if let Some(k) = &l.knowledge {
                let file = tame(&l.source.file);
                printer.out(format!("{file}: {}", counted(l.entries, "entry").replace("entrys", "entries")));
                changes(k.changes.iter(), printer);
            }
        }
        let tone = if errors > 0 { Tone::Bad } else { Tone::Good };
        let says = format!("{}, {}", counted(errors, "error"), counted(warnings, "warning"));
        printer.say(paint(tone, format!("{}: {says}", counted(loaded.len(), "file"))));
        if errors + warnings > 0 {
            printer.say("`slurmedic explain CODE` tells more about a code");
        }
    }
    Ok(if errors > 0 { Exit::Findings } else { Exit::Ok })
}

/// Writes what a site changed, one change a line.
pub(crate) fn changes<'c>(all: impl Iterator<Item = &'c SiteChange>, printer: &mut Printer) {
    for c in all {
        page::row(printer, "site", &told(c));
    }
}

fn told(c: &SiteChange) -> String {
    let nothing = || "(nothing)".to_owned();
    let what = match &c.field {
        None => "is of this site".to_owned(),
        Some(f) => {
            let (before, after) = (c.before.clone(), c.after.clone());
            format!("{f}: {} -> {}", before.unwrap_or_else(nothing), after.unwrap_or_else(nothing))
        }
    };
    let why = if c.why.is_empty() { String::new() } else { format!("; {}", c.why) };
    format!("{} {} {what} ({}, {}{why})", c.table.as_str(), c.entry, c.source, c.date)
}

/// Says who says so and since when; `knowledge list sources` says where.
pub(crate) fn source_short(s: &Source) -> String {
    format!("{}, read {}", s.title, s.read)
}

/// Says in one line who says so, where and since when.
fn source_line(s: &Source) -> String {
    let at = s.at.as_ref().map(|a| format!(" at {a}")).unwrap_or_default();
    let place = s.place.as_ref().map(|p| format!(", {p}")).unwrap_or_default();
    format!("{}: {}{at}{place}, read {}", s.id, s.title, s.read)
}

fn list(table: Listing, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let known = of_site(global)?;
    if printer.format == Format::Json {
        printer.json(&document(table, &known))?;
        return Ok(Exit::Ok);
    }
    let mut line = |name: &str, width: usize, text: &str| {
        let name = tame(name);
        let gap = " ".repeat(width.saturating_sub(name.chars().count()).max(1));
        printer.out(format!("{name}{gap}{}", wrapped(&page::folded(&tame(text), width), width)));
    };
    match table {
        Listing::Summary => {
            line("XIDs", 13, &known.xids.len().to_string());
            line("NVLink rules", 13, &known.links.len().to_string());
            line("faults", 13, &known.faults.len().to_string());
            line("reasons", 13, &known.reasons.patterns().len().to_string());
            line("playbooks", 13, &known.playbooks.len().to_string());
            line("hazards", 13, &known.hazards.len().to_string());
            line("sources", 13, &known.sources.len().to_string());
        }
        Listing::Xids => super::xid::table(&known, &mut line),
        Listing::Faults => {
            for f in known.faults.values() {
                line(&f.id, 34, &format!("{}: {}", f.class.as_str(), f.playbook));
            }
        }
        Listing::Reasons => {
            for p in known.reasons.patterns() {
                line(&p.id, 28, &format!("{}: {}", p.says, p.playbook));
            }
        }
        Listing::Playbooks => {
            for p in known.playbooks.values() {
                let ask: Vec<&str> = p.rungs.iter().map(|r| r.approval.as_str()).collect();
                line(&p.id, 30, &format!("{} ({})", p.summary, ask.join(", ")));
            }
        }
        Listing::Sources => {
            for s in known.sources.values() {
                line(&s.id, 14, source_line(s).split_once(": ").map_or("", |(_, rest)| rest));
            }
        }
        Listing::Hazards => {
            for h in &known.hazards {
                line(&h.id, 12, &format!("{}: {}", h.what, h.effect));
            }
        }
    }
    changes(known.changes.iter(), printer);
    Ok(Exit::Ok)
}

fn document(table: Listing, known: &Knowledge) -> Value {
    let rows = match table {
        Listing::Summary => json!({
            "xids": known.xids.len(), "link_rules": known.links.len(), "faults": known.faults.len(),
            "reasons": known.reasons.patterns().len(), "playbooks": known.playbooks.len(),
            "hazards": known.hazards.len(), "sources": known.sources.len(),
        }),
        Listing::Xids => json!(known.xids.values().collect::<Vec<_>>()),
        Listing::Faults => json!(known.faults.values().collect::<Vec<_>>()),
        Listing::Reasons => json!(known.reasons.patterns()),
        Listing::Playbooks => json!(known.playbooks.values().collect::<Vec<_>>()),
        Listing::Sources => json!(known.sources.values().collect::<Vec<_>>()),
        Listing::Hazards => json!(known.hazards),
    };
    json!({ "format": "slurmedic/knowledge/1", "known": rows, "changes": known.changes })
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
