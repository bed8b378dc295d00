//! What people call by hand: help, the check of a configuration, a look that tells nobody.

use crate::config::{self, Config};
use crate::mode::Mode;
use crate::{run, supervise, talk};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// Every key and every check, at its default or as one would write it.
pub(crate) const EXAMPLE: &str = include_str!("../hook.conf");

/// `--help`.
pub(crate) const HELP: &str = "\
Checks a node for Slurm within a deadline and reports to Slurmedic.
It never drains a node by accident: its exit code is 0, whatever it finds.

Usage: slurmedic-hook [--config FILE] [--as WHAT]
       slurmedic-hook [--config FILE] --dry-run [--as WHAT]
       slurmedic-hook [--config FILE] --check-config

Slurm needs no arguments. Prolog, Epilog and EpilogSlurmctld are known by
Slurm's environment, a trigger by the link it is called by:
  HealthCheckProgram=/usr/sbin/slurmedic-hook
  ln -s slurmedic-hook /usr/sbin/slurmedic-hook-down
  strigger --set --node --down --flags=PERM -p /usr/sbin/slurmedic-hook-down
`slurmedic init slurm` prints these lines for your site.

Options:
  --config FILE    configuration [default: /etc/slurmedic/hook.conf]
  --as WHAT        health, prolog, epilog; on the controller job-end, down, up,
                   drained, fail with a list of nodes behind it
  --dry-run        make the checks, show each with its time, tell nobody
  --check-config   read the configuration and list every mistake
  --example        print a configuration with every key and check
  --help, --version

Exit code: 0. By hand, 2 for mistakes in the configuration, 3 for findings of
--dry-run. A prolog ends with 1 for faults listed in prolog_fail, and only then.";

/// Reads the configuration and lists every mistake.
pub(crate) fn check_config(path: &Path) -> ExitCode {
    let (config, mistakes) = config::load(path);
    for mistake in &mistakes {
        talk::err(mistake);
    }
    if !mistakes.is_empty() {
        return ExitCode::from(2);
    }
    let names: Vec<&str> = config.checks.iter().map(|c| c.name.as_str()).collect();
    talk::out(&format!("{}: {} checks: {}", path.display(), names.len(), names.join(", ")));
    match &config.engine {
        None => talk::out("no engine is set: reports stay in the spool"),
        Some(engine) => talk::out(&format!("reports go to {engine:?}{}", config.engine_path)),
    }
    ExitCode::SUCCESS
}

/// Makes the checks and shows them. Nothing is kept and nobody is told.
pub(crate) fn dry_run(path: &Path, mode: Mode) -> ExitCode {
    let (config, mistakes) = config::load(path);
    for mistake in &mistakes {
        talk::err(mistake);
    }
    if !mistakes.is_empty() {
        return ExitCode::from(2);
    }
    let Some(node) = run::node(&config) else {
        talk::err("this node has no usable name: set `node = NAME`, as slurm.conf has it");
        return ExitCode::from(2);
    };
    table(&config, mode, &node)
}

fn table(config: &Config, mode: Mode, node: &str) -> ExitCode {
    let began = std::time::Instant::now();
    let outcomes = supervise::look(config, mode, node, &BTreeMap::new(), &BTreeMap::new());
    let took = began.elapsed();
    let width = outcomes.iter().map(|o| o.name.chars().count()).max().unwrap_or(0).clamp(5, 30);
    let mut bad = 0;
    for o in &outcomes {
        let (word, mut texts) = match (&o.trouble, o.findings.is_empty()) {
            (Some(_), _) => ("FAILED", Vec::new()),
            (None, false) => ("found", Vec::new()),
            (None, true) => ("ok", vec![o.note.clone()]),
        };
        texts.extend(o.findings.iter().map(ToString::to_string));
        texts.extend(o.trouble.iter().map(|t| t.text.clone()));
        bad += usize::from(word != "ok");
        let mut texts = texts.into_iter();
        let ms = o.took.as_secs_f64() * 1000.0;
        let front = format!("{:<width$}  {word:<6} {ms:>8.2} ms", o.name);
        talk::out(format!("{front}  {}", texts.next().unwrap_or_default()).trim_end());
        for text in texts {
            talk::out(&format!("{:<width$}  {text}", ""));
        }
    }
    talk::out(&format!(
        "{node}, as {}: {} checks in {:.2} ms, {bad} not ok; nobody was told",
        mode.as_str(),
        outcomes.len(),
        took.as_secs_f64() * 1000.0
    ));
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(3) }
}
