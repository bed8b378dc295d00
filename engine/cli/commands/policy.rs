//! `policy`: check, show and compare policy files. Reads files only.

use super::Global;
use crate::config::{self, Config};
use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, Tone, paint, tame, wrapped};
use engine_core::diag::Severity;
use engine_core::policy::{Difference, Policy, diff};
use engine_playbook::library::read_limited;
use engine_playbook::policy::{LoadedPolicy, built_in, load, to_yaml};
use engine_playbook::{Style, diagnostics_json, render_diagnostics};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

/// What to do with the policy.
#[derive(Debug, clap::Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Check policy files: every mistake at once, with place, code and advice.
    Check {
        /// Policy files; without any, the one in force.
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Say it in sentences, for screen readers and logs.
        #[arg(long)]
        narrated: bool,
    },
    /// Print the policy in force, or that of a file, with every key.
    Show {
        /// Policy file; `default` is the built-in one.
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Say what differs between two policies; exit code 3 if anything does.
    Diff {
        /// Policy file; `default` is the built-in one.
        #[arg(value_name = "A")]
        before: PathBuf,
        /// Policy file; without it, the policy in force.
        #[arg(value_name = "B")]
        after: Option<PathBuf>,
    },
}

/// Runs `policy`.
pub(crate) fn run(args: &PolicyArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    match &args.what {
        What::Check { files, narrated } => check(files, *narrated, global, printer),
        What::Show { file } => show(file.as_deref(), global, printer),
        What::Diff { before, after } => compare(before, after.as_deref(), global, printer),
    }
}

/// The name that stands for the built-in policy where no such file is meant.
const BUILT_IN: &str = "default";

/// Returns the policy in force: the site's, else the built-in one, with the name of where it is from. A file with an
/// error is no policy, and nothing starts on it.
pub(crate) fn in_force(config: &Config) -> Result<(Policy, String), CliError> {
    let loaded = match &config.policy.path {
        Some(path) => read(path)?,
        None => built_in(),
    };
    usable(loaded)
}

fn read(path: &Path) -> Result<LoadedPolicy, CliError> {
    let shown = path.display().to_string();
    let bytes = read_limited(path).map_err(|e| {
        CliError::caused(format!("the policy {shown} could not be read"), e)
            .with_exit(Exit::Usage)
            .with_hint("correct policy.path in the configuration, or the name on the command line")
    })?;
    Ok(load(&bytes, &shown))
}

fn usable(loaded: LoadedPolicy) -> Result<(Policy, String), CliError> {
    let file = loaded.source.file.clone();
    let wrong = loaded.diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
    match loaded.policy {
        Some(p) => Ok((p, file)),
        None => Err(CliError::usage(format!("the policy {} has {}", tame(&file), counted(wrong, "error")))
            .with_hint("`slurmedic policy check` shows each with its place and what to do")),
    }
}

fn named(path: &Path) -> Result<LoadedPolicy, CliError> {
    if path == Path::new(BUILT_IN) { Ok(built_in()) } else { read(path) }
}

fn site(global: &Global) -> Result<LoadedPolicy, CliError> {
    match config::load(global.config.as_deref())?.0.policy.path {
        Some(path) => read(&path),
        None => Ok(built_in()),
    }
}

fn check(
    files: &[PathBuf],
    narrated: bool,
    global: &Global,
    printer: &mut Printer,
) -> Result<Exit, CliError> {
    let loaded: Vec<LoadedPolicy> = if files.is_empty() {
        vec![site(global)?]
    } else {
        files.iter().map(|f| named(f)).collect::<Result<_, _>>()?
    };
    let count =
        |severity| loaded.iter().flat_map(|l| &l.diagnostics).filter(|d| d.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    if printer.format == Format::Json {
        let mut list = Vec::new();
        for l in &loaded {
            list.push(serde_json::json!({
                "file": l.source.file,
                "digest": l.policy.as_ref().map(digest).transpose()?,
                "diagnostics": diagnostics_json(&l.diagnostics, &l.source),
            }));
        }
        printer.json(&serde_json::json!({
            "format": "slurmedic/policy-check/1", "errors": errors, "warnings": warnings, "files": list
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
            if let Some(p) = &l.policy {
                printer.out(format!("{}: digest {}", tame(&l.source.file), digest(p)?));
            }
        }
        let tone = if errors > 0 { Tone::Bad } else { Tone::Good };
        let files = counted(loaded.len(), "policy").replace("policys", "policies");
        printer.say(paint(
            tone,
            format!("{files}: {}, {}", counted(errors, "error"), counted(warnings, "warning")),
        ));
        if errors + warnings > 0 {
            printer.say("`slurmedic explain CODE` tells more about a code");
        }
    }
    Ok(if errors > 0 { Exit::Findings } else { Exit::Ok })
}

fn show(file: Option<&Path>, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let (policy, from) = match file {
        Some(path) => usable(named(path)?)?,
        None => in_force(&config::load(global.config.as_deref())?.0)?,
    };
    let digest = digest(&policy)?;
    if printer.format == Format::Json {
        printer.json(&serde_json::json!({
            "format": "slurmedic/policy/1", "from": from, "digest": digest, "policy": policy
        }))?;
    } else {
        let text =
            to_yaml(&policy).map_err(|e| CliError::caused("the policy could not be written out", e))?;
        printer.out(format!("# {}, digest {}", tame(&from), digest.get(..12).unwrap_or(&digest)));
        printer.out(text.trim_end());
    }
    Ok(Exit::Ok)
}

fn compare(
    before: &Path,
    after: Option<&Path>,
    global: &Global,
    printer: &mut Printer,
) -> Result<Exit, CliError> {
    let (a, a_name) = usable(named(before)?)?;
    let (b, b_name) = match after {
        Some(path) => usable(named(path)?)?,
        None => in_force(&config::load(global.config.as_deref())?.0)?,
    };
    let found = diff(&a, &b).map_err(|e| CliError::caused("the policies could not be compared", e))?;
    if printer.format == Format::Json {
        printer.json(&serde_json::json!({
            "format": "slurmedic/policy-diff/1",
            "before": { "from": a_name, "digest": digest(&a)? },
            "after": { "from": b_name, "digest": digest(&b)? },
            "differences": found,
        }))?;
    } else {
        for d in &found {
            line(d, printer);
        }
        printer.say(match found.len() {
            0 => format!("{} and {} say the same", tame(&a_name), tame(&b_name)),
            n => format!("{} from {} to {}", counted(n, "difference"), tame(&a_name), tame(&b_name)),
        });
    }
    Ok(if found.is_empty() { Exit::Ok } else { Exit::Findings })
}

fn line(d: &Difference, printer: &mut Printer) {
    let value = |v: &Option<String>| v.as_deref().map_or("(nothing)".to_owned(), tame);
    let text = format!("{}: {} -> {}", tame(&d.key), value(&d.before), value(&d.after));
    printer.out(wrapped(&text, 4));
}

fn digest(policy: &Policy) -> Result<String, CliError> {
    let d = policy.digest().map_err(|e| CliError::caused("the policy could not be digested", e))?;
    Ok(d.as_str().to_owned())
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
