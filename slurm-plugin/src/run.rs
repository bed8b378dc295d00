//! One start on a node: lock, look, tell, and end in a way that cannot drain the node by accident.

use crate::config::{self, Config};
use crate::drain::{self, Drained};
use crate::finding::{CHECK_FAILED, Finding, Lasts};
use crate::mode::Mode;
use crate::report::{self, SELF};
use crate::spool::{Kind, Spool};
use crate::state::State;
use crate::supervise::{self, Outcome};
use crate::talk;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The most lines that one start writes to Slurm's log.
const MAX_LINES: usize = 20;
/// A verdict older than this does not let a prolog fail when it cannot look itself.
const FRESH_MS: u64 = 10 * 60 * 1000;

/// Runs one look. The code is 0 whatever happened, except for a prolog that finds a fault of `prolog_fail`.
pub(crate) fn run(path: &Path, mode: Mode) -> ExitCode {
    let (config, mut mistakes) = config::load(path);
    if mistakes.is_empty() && config.checks.is_empty() {
        mistakes.push(format!("{}: there is no `check` line: nothing is checked", path.display()));
    }
    let Some(node) = node(&config) else {
        talk::err("this node has no usable name: set `node = NAME`, as slurm.conf has it");
        return ExitCode::SUCCESS;
    };
    let mut tools: Vec<Finding> = Vec::new();
    if let Some(text) = mistakes_in_short(&mistakes) {
        tools.push(Finding::now(CHECK_FAILED, "configuration", text));
    }
    if let Err(why) = make_state_dir(&config.state_dir) {
        tools.push(Finding::now(CHECK_FAILED, "state", why));
    }
    let lock = match lock(&config.state_dir) {
        Lock::Ours(file) => Some(file),
        Lock::None => None,
        Lock::Theirs => {
            // Another start looks just now. A prolog goes by the verdict that is on file.
            let (state, _) = State::load(&config.state_dir);
            return leave(&config, mode, &state, &[]);
        }
    };
    let (mut state, damaged) = State::load(&config.state_dir);
    let before = state.clone();
    if let Some(text) = damaged {
        tools.push(Finding { lasts: Lasts::Happened, ..Finding::now(CHECK_FAILED, "state", text) });
    }
    let whole = mistakes.is_empty();
    let outcomes = if whole { supervise::look(&config, mode, &node, &state.cursors) } else { Vec::new() };
    let spool = Spool::new(&config);
    let now = crate::time::now_ms();
    let flushed = report::flush(&config, &spool, now);
    tools.extend(flushed.odd);
    let plan = report::judge(&config, &node, &mut state, &outcomes, tools, whole, now);
    let away = flushed.away.as_deref();
    let mut troubles = report::tell(&config, &spool, &mut state, &outcomes, &plan, away, now);
    let mut lines = plan.say;
    lines.extend(drains(&config, &node, &mut state, &outcomes, now));
    if state != before
        && let Err(why) = state.store(&config.state_dir)
    {
        let text = format!("verdicts are not kept, so reports repeat: {why}");
        let finding = Finding::now(CHECK_FAILED, "state", text.clone());
        let alert = [crate::alert::line(&node, &finding, true, now)];
        if config.engine.is_some() {
            report::send(&config, &spool, Kind::Condition, &alert, away, now, &mut troubles);
        }
        troubles.push(text);
    }
    // A mistake in the configuration is said at every start: nothing is checked meanwhile.
    if !whole && !lines.iter().any(|l| l.starts_with(CHECK_FAILED)) {
        lines.extend(mistakes_in_short(&mistakes));
    }
    lines.extend(troubles);
    for line in lines.iter().take(MAX_LINES) {
        talk::err(line);
        if config.syslog {
            talk::syslog(line);
        }
    }
    drop(lock);
    leave(&config, mode, &state, &outcomes)
}

/// The code Slurm sees.
fn leave(config: &Config, mode: Mode, state: &State, outcomes: &[Outcome]) -> ExitCode {
    if mode != Mode::Prolog || config.prolog_fail.is_empty() {
        return ExitCode::SUCCESS;
    }
    let now = crate::time::now_ms();
    let fails = |fault: &str| config.prolog_fail.iter().any(|f| f == fault);
    let happened =
        outcomes.iter().flat_map(|o| &o.findings).find(|f| f.lasts == Lasts::Happened && fails(&f.fault));
    let lasting = state.verdicts.values().find(|v| {
        fails(&v.finding.fault)
            && v.check != SELF
            && now.saturating_sub(v.seen_ms) <= FRESH_MS
            && report::holds(config, v, now)
    });
    match happened.or(lasting.map(|v| &v.finding)) {
        Some(finding) => {
            talk::err(&format!(
                "the prolog fails, as prolog_fail asks for, and Slurm drains the node: {finding}"
            ));
            ExitCode::from(1)
        }
        None => ExitCode::SUCCESS,
    }
}

/// Drains for what the site listed. Says what it did.
fn drains(config: &Config, node: &str, state: &mut State, outcomes: &[Outcome], now: u64) -> Vec<String> {
    let listed = |fault: &str| config.drain.iter().any(|f| f == fault);
    let mut said = Vec::new();
    let mut act = |finding: &Finding| match drain::drain(config, node, finding) {
        Ok(Drained::Done(reason)) => {
            said.push(format!("{node} is drained: {reason}"));
            true
        }
        Ok(Drained::LeftAlone(why)) => {
            said.push(format!("{node} is left alone for {}: {why}", finding.fault));
            true
        }
        Err(why) => {
            said.push(format!("{node} could not be drained for {}: {why}", finding.fault));
            false
        }
    };
    let happened =
        outcomes.iter().flat_map(|o| &o.findings).find(|f| f.lasts == Lasts::Happened && listed(&f.fault));
    if let Some(finding) = happened {
        act(finding);
        return said;
    }
    let lasting: Vec<String> = state
        .verdicts
        .iter()
        .filter(|(_, v)| listed(&v.finding.fault) && !v.drained && v.seen_ms == now)
        .filter(|(_, v)| v.looks >= config.drain_after && report::holds(config, v, now))
        .map(|(k, _)| k.clone())
        .collect();
    // One drain serves all of them.
    if let Some(finding) = lasting.first().and_then(|k| state.verdicts.get(k)).map(|v| v.finding.clone())
        && act(&finding)
    {
        for key in lasting {
            if let Some(verdict) = state.verdicts.get_mut(&key) {
                verdict.drained = true;
            }
        }
    }
    said
}

/// The name that Slurm gave, else the one of the configuration, else that of the host.
pub(crate) fn node(config: &Config) -> Option<String> {
    let by_slurm = crate::mode::from_env("SLURMD_NODENAME");
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = by_slurm
        .or_else(|| config.node.clone())
        .or_else(|| host().map(|h| h.trim().split('.').next().unwrap_or_default().to_owned()))?;
    config::node_name(&name)
}

/// The first mistake and how many more there are.
pub(crate) fn mistakes_in_short(mistakes: &[String]) -> Option<String> {
    let first = mistakes.first()?;
    Some(match mistakes.len() - 1 {
        0 => first.clone(),
        more => format!("{first} (and {more} more; `slurmedic-hook --check-config` lists them)"),
    })
}

/// Makes the directory of the state where it is not there yet.
pub(crate) fn make_state_dir(dir: &Path) -> Result<(), String> {
    if dir.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| format!("the state directory {} cannot be made: {e}", dir.display()))
}

enum Lock {
    /// Held until the file is closed.
    Ours(File),
    /// Another start holds it.
    Theirs,
    /// There is no place for one; every deadline still holds.
    None,
}

fn lock(dir: &Path) -> Lock {
    for path in [dir.join("lock"), PathBuf::from("/run/slurmedic-hook.lock")] {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        if let Ok(file) = file {
            return match file.try_lock() {
                Ok(()) => Lock::Ours(file),
                Err(TryLockError::WouldBlock) => Lock::Theirs,
                Err(TryLockError::Error(_)) => Lock::None,
            };
        }
    }
    Lock::None
}
