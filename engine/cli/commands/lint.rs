//! `lint`: every mistake of a playbook at once, with place, code and advice; and what the checker finds in its runs.

use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, Tone, paint, tame, wrapped};
use engine_core::diag::Severity;
use engine_playbook::checker::{self, Refusal, Report, Rule};
use engine_playbook::library::{Library, Origin, read_limited};
use engine_playbook::{Loaded, Style, diagnostics_json, fix, render_diagnostics};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

/// What to check.
#[derive(Debug, clap::Args)]
pub(crate) struct LintArgs {
    /// Playbook files, or directories with <id>/<version>.yaml; without any, the built-in playbooks.
    #[arg(value_name = "FILE|DIR")]
    files: Vec<PathBuf>,
    /// Rewrite steps in call notation (`slurm.drain(reason: "x")`) as mappings.
    #[arg(long)]
    fix: bool,
    /// Say it in sentences, for screen readers and logs.
    #[arg(long)]
    narrated: bool,
    /// Tell how much the checker played: events, crashes, the longest way, the ends that can be met.
    #[arg(long)]
    details: bool,
}

/// One document with all that was found about it.
struct Document {
    name: String,
    loaded: Loaded,
    /// What the checker came to; it only plays playbooks that are clean otherwise.
    checked: Option<Result<Report, Box<Refusal>>>,
}

impl Document {
    /// Plays every situation of a playbook that loaded, and adds what is found.
    fn check(name: String, mut loaded: Loaded) -> Self {
        let clean = loaded.playbook.take().filter(|_| !loaded.failed());
        let checked = clean.map(|playbook| {
            let checked = checker::lint(&playbook, &loaded.source);
            loaded.diagnostics.extend(checked.diagnostics);
            if checked.outcome.is_ok() {
                loaded.playbook = Some(playbook);
            }
            checked.outcome
        });
        Self { name, loaded, checked }
    }

    fn json(&self) -> serde_json::Value {
        let found = diagnostics_json(&self.loaded.diagnostics, &self.loaded.source);
        let checked = match &self.checked {
            None => serde_json::Value::Null,
            Some(Ok(r)) => serde_json::json!({
                "holds": true, "situations": r.situations, "events": r.events, "crashes": r.crashes,
                "longest": r.longest, "ends": r.ends,
            }),
            Some(Err(refusal)) => {
                let line = |l: &checker::Line| serde_json::json!({ "who": l.who.as_str(), "what": l.what });
                serde_json::json!({
                    "holds": false, "situations": refusal.situations, "why": refusal.sentence(),
                    "rule": refusal.rule().map(Rule::number).filter(|n| *n > 0),
                    "trace": refusal.trace.lines.iter().map(line).collect::<Vec<_>>(),
                    "repeats_from": refusal.trace.repeats.map(|n| n + 1),
                })
            }
        };
        serde_json::json!({ "file": self.name, "diagnostics": found, "checked": checked })
    }
}

/// Runs `lint`.
pub(crate) fn run(args: &LintArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let mut documents: Vec<(String, Loaded)> = Vec::new();
    if args.files.is_empty() {
        if args.fix {
            return Err(CliError::usage("--fix needs a file to rewrite"));
        }
        collect(&Library::embedded(), &mut documents);
    }
    for path in &args.files {
        if path.is_dir() {
            let library = Library::open(path)
                .map_err(|e| CliError::caused("the playbooks", e).with_exit(Exit::Usage))?;
            collect(&library, &mut documents);
        } else {
            documents.push((path.display().to_string(), lint_file(path, args.fix, printer)?));
        }
    }
    let documents: Vec<Document> =
        documents.into_iter().map(|(name, loaded)| Document::check(name, loaded)).collect();
    let errors: usize = documents.iter().map(|d| count(&d.loaded, Severity::Error)).sum();
    let warnings: usize = documents.iter().map(|d| count(&d.loaded, Severity::Warning)).sum();
    if printer.format == Format::Json {
        let files: Vec<_> = documents.iter().map(Document::json).collect();
        printer.json(&serde_json::json!({
            "format": "slurmedic/lint/1", "errors": errors, "warnings": warnings, "files": files
        }))?;
    } else {
        let style = match (
            args.narrated,
            std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        ) {
            (true, _) => Style::Narrated,
            (false, true) => Style::Colour,
            (false, false) => Style::Plain,
        };
        for d in &documents {
            tell(d, style, args.details, printer);
        }
        let tone = if errors > 0 { Tone::Bad } else { Tone::Good };
        let summary = format!(
            "{}: {}, {}",
            counted(documents.len(), "file"),
            counted(errors, "error"),
            counted(warnings, "warning")
        );
        printer.say(paint(tone, summary));
        if errors + warnings > 0 {
            printer.say("`slurmedic explain CODE` tells more about a code");
        }
    }
    Ok(if errors > 0 { Exit::Findings } else { Exit::Ok })
}

fn tell(d: &Document, style: Style, details: bool, printer: &mut Printer) {
    let text = render_diagnostics(&d.loaded.diagnostics, &d.loaded.source, style);
    if !text.is_empty() {
        printer.out(text.trim_end());
    }
    match &d.checked {
        None => {}
        Some(Ok(report)) => {
            let line = format!("{}: checked: {report}", tame(&d.name));
            printer.say(if line.chars().count() <= 80 { line } else { line.replacen(": ", ":\n  ", 1) });
            if details {
                printer.say(format!("  {}", wrapped(&report.details(), 2)));
            }
        }
        Some(Err(refusal)) if !refusal.trace.lines.is_empty() => {
            printer.out(refusal.way().trim_end());
            printer.out("");
        }
        Some(Err(_)) => {}
    }
}

fn count(loaded: &Loaded, severity: Severity) -> usize {
    loaded.diagnostics.iter().filter(|d| d.severity == severity).count()
}

fn collect(library: &Library, documents: &mut Vec<(String, Loaded)>) {
    for item in library.items().chain(library.broken()) {
        let name = match &item.origin {
            Origin::BuiltIn => item.loaded.source.file.clone(),
            Origin::File(path) => path.display().to_string(),
        };
        documents.push((name, item.loaded.clone()));
    }
}

fn lint_file(path: &Path, rewrite: bool, printer: &mut Printer) -> Result<Loaded, CliError> {
    let name = path.display().to_string();
    let read = || {
        read_limited(path)
            .map_err(|e| CliError::caused(format!("{name} could not be read"), e).with_exit(Exit::Usage))
    };
    let bytes = read()?;
    if rewrite && let Some(text) = fix(&bytes) {
        write_atomically(path, &text)?;
        printer.say(format!("{name}: rewrote steps in call notation"));
        return judge(path, &read()?);
    }
    judge(path, &bytes)
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn judge(path: &Path, bytes: &[u8]) -> Result<Loaded, CliError> {
    Library::load_file(path, bytes)
        .map_err(|e| CliError::caused("the list of released playbooks", e).with_exit(Exit::Usage))
}

/// Replaces a file in one move, so that a full disk loses nothing.
pub(crate) fn write_atomically(path: &Path, text: &str) -> Result<(), CliError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let fail = |e: std::io::Error| CliError::caused(format!("{} could not be written", path.display()), e);
    std::fs::write(&beside, text).map_err(fail)?;
    if let Ok(meta) = std::fs::metadata(path) {
        std::fs::set_permissions(&beside, meta.permissions()).map_err(fail)?;
    }
    std::fs::rename(&beside, path).map_err(fail)
}
