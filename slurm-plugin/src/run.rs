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
use std::time::{Duration, Instant};

/// The most lines that one start writes to Slurm's log.
const MAX_LINES: usize = 20;
/// A verdict older than this does not let a prolog fail when it cannot look itself.
const FRESH_MS: u64 = 10 * 60 * 1000;

/// slurmd kills a health check after 60 seconds.
const ALL: Duration = Duration::from_secs(55);

/// Runs one look. The code is 0 whatever happened, except for a prolog that finds a fault of `prolog_fail`.
pub(crate) fn run(path: &Path, mode: Mode) -> ExitCode {
    let end = Instant::now() + ALL;
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
    let outcomes =
        if whole { supervise::look(&config, mode, &node, &state.cursors, &state.stuck) } else { Vec::new() };
    let spool = Spool::new(&config);
    let now = crate::time::now_ms();
    let flushed = report::flush(&config, &spool, now);
    tools.extend(flushed.odd);
    let plan = report::judge(&config, &node, &mut state, &outcomes, tools, whole, now);
    let away = flushed.away.as_deref();
    let mut troubles = report::tell(&config, &spool, &mut state, &outcomes, &plan, away, now);
    for outcome in &outcomes {
        match &outcome.stuck {
            Some(process) => drop(state.stuck.insert(outcome.name.clone(), process.clone())),
            None => drop(state.stuck.remove(&outcome.name)),
        }
    }
    // A configuration with mistakes says nothing about which checks there are.
    if whole {
        let known = |name: &str| config.checks.iter().any(|c| c.name == name);
        state.stuck.retain(|name, _| known(name));
        state.cursors.retain(|name, _| known(name));
    }
    let mut lines = plan.say;
    // That the node is to be drained is kept before it is: it must not be drained again after a person's resume.
    let drain = chosen(&config, &state, &outcomes, now);
    mark(&mut state, drain.as_ref(), true);
    let kept = if state == before { Ok(()) } else { state.store(&config.state_dir) };
    match (&kept, drain) {
        (Ok(()), Some(drain)) => lines.push(act(&config, &node, &mut state, drain, end)),
        (Err(_), Some((finding, _))) => {
            lines.push(format!("{node} is not drained for {}: that could not be kept", finding.fault));
        }
        (_, None) => {}
    }
    if let Err(why) = kept {
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

/// The fault to drain for, and the keys of the verdicts that one drain serves.
type ToDrain = (Finding, Vec<String>);

/// Chooses the fault that the site lets the hook drain for, if there is one.
fn chosen(config: &Config, state: &State, outcomes: &[Outcome], now: u64) -> Option<ToDrain> {
    let listed = |fault: &str| config.drain.iter().any(|f| f == fault);
    // What happened counts once its place in the log is passed: else it would be met again.
    let passed = |o: &&Outcome| o.cursor.is_some() && state.cursors.get(&o.name) == o.cursor.as_ref();
    let happened = outcomes
        .iter()
        .filter(passed)
        .flat_map(|o| &o.findings)
        .find(|f| f.lasts == Lasts::Happened && listed(&f.fault));
    if let Some(finding) = happened {
        return Some((finding.clone(), Vec::new()));
    }
    let lasting: Vec<String> = state
        .verdicts
        .iter()
        .filter(|(_, v)| listed(&v.finding.fault) && !v.drained && v.seen_ms == now)
        .filter(|(_, v)| v.looks >= config.drain_after && report::holds(config, v, now))
        .map(|(k, _)| k.clone())
        .collect();
    let finding = lasting.first().and_then(|k| state.verdicts.get(k))?.finding.clone();
    Some((finding, lasting))
}

fn mark(state: &mut State, drain: Option<&ToDrain>, drained: bool) {
    for key in drain.iter().flat_map(|(_, keys)| keys) {
        if let Some(verdict) = state.verdicts.get_mut(key) {
            verdict.drained = drained;
        }
    }
}

/// Drains, and says what came of it. What failed is tried again at the next look.
fn act(config: &Config, node: &str, state: &mut State, drain: ToDrain, end: Instant) -> String {
    let fault = &drain.0.fault;
    match drain::drain(config, node, &drain.0, end) {
        Ok(Drained::Done(reason)) => format!("{node} is drained: {reason}"),
        Ok(Drained::LeftAlone(why)) => format!("{node} is left alone for {fault}: {why}"),
        Err(why) => {
            let said = format!("{node} could not be drained for {fault}: {why}");
            mark(state, Some(&drain), false);
            match state.store(&config.state_dir) {
                Ok(()) => said,
                Err(why) => format!("{said}; {why}"),
            }
        }
    }
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
