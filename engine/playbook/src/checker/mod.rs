//! The playbook checker: plays every situation that an adversary can bring about in a run of one playbook, and says
//! that every way ends and no rule breaks, or shows a shortest way on which one does.
//!
//! What is played: the engine's own decisions (`engine_core::run`), with every answer of the world. Each step may
//! succeed, fail for now or for good, run out of time, or leave nobody able to tell; its guard may hold, fail, be
//! unknown or unreadable; the engine may die at each write of its journal, before and after what it was about to do;
//! a person may drain, resume, re-label or reboot the node, or cancel, before each look; the node may go silent; jobs
//! may be there and start wherever Slurm lets them; approvals are given, refused, void, lapsed.
//!
//! What is judged, by books of its own: rules 1 (intents come first and are probed), 3 (unknown never permits), 4 (a
//! person wins), 5 (no return unverified), 6 (the way back), 7 (lock discipline), 8 (conditions right before), 9 (no
//! job under a disruptive step), 11 (approvals), 13 (every way ends), and that the good end can be reached at all and
//! is what the playbook says.
//!
//! What it cannot speak about: rule 2 (shadow replaces the actuator), 10 (budgets), 12 (models), 14 (the tools'
//! parsers) and 15 (outside text) are not in a playbook. Nor can it see the milliseconds between the engine's look and
//! its write, a write that Slurm carries out long after it timed out, or what facts of GPUs have to do with each other:
//! conditions on those may come to anything. At most one person meddles on a way; the first change ends the run.
//! The action's own guard against jobs is not counted on: a playbook has to be safe before that last line.

mod diagnose;
mod effects;
mod explore;
mod judge;
mod look;
mod machine;
mod moves;
mod node;
mod proven;
mod refusal;
mod rule;
mod situation;
mod subject;
mod trace;
mod world;

pub(crate) use diagnose::refused;
pub use diagnose::{Checked, lint};
pub use machine::{Machine, RealMachine};
pub use proven::Proven;
pub use refusal::{Finding, Refusal};
pub use rule::{Broken, Rule};
pub use trace::{Line, Trace, Who};

use engine_core::playbook::Playbook;
use engine_core::run::{Effect, End};
use explore::{Found, explore};
use std::fmt;
use subject::Subject;

/// Most situations of one playbook, where nothing else is said.
pub const MAX_SITUATIONS: usize = 100_000;

/// How a playbook is explored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Most situations; a playbook with more is refused, never passed.
    pub situations: usize,
    /// Whether situations that differ only in what can no longer matter count as one. Without it there are many times
    /// as many, and the verdict is the same.
    pub merge: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { situations: MAX_SITUATIONS, merge: true }
    }
}

/// A playbook that holds in every situation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Situations visited, each once.
    pub situations: usize,
    /// Events played between them.
    pub events: u64,
    /// Situations in which the engine was stopped and the next one folded the run anew: all of them, unless the ways
    /// are very long.
    pub crashes: usize,
    /// The ends that can be met.
    pub ends: Vec<End>,
    /// Events of the longest way from the plan to an end.
    pub longest: u32,
    /// Steps of the rollback that no way ever reaches, by their place from 0.
    pub idle_rollback: Vec<usize>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} situations, every way ends, no rule broken", thousands(self.situations as u64))
    }
}

impl Report {
    /// Tells the rest in one line: events, longest way, ends.
    pub fn details(&self) -> String {
        let ends: Vec<String> = self.ends.iter().map(|e| e.as_str().replace('_', " ")).collect();
        format!(
            "{} events; a crash in {} situations; the longest way has {} events; ends: {}",
            thousands(self.events),
            thousands(self.crashes as u64),
            self.longest,
            ends.join(", ")
        )
    }
}

/// Checks a playbook against the engine as it is.
pub fn check(playbook: &Playbook) -> Result<Report, Box<Refusal>> {
    check_with(playbook, &RealMachine, Options::default())
}

/// Checks a playbook against a machine.
pub fn check_with(
    playbook: &Playbook,
    machine: &impl Machine,
    options: Options,
) -> Result<Report, Box<Refusal>> {
    let subject = Subject::of(playbook, options.merge)
        .map_err(|why| Box::new(Refusal::new(Finding::Unplayable(why), 0)))?;
    let found = explore(&subject, machine, options.situations)
        .map_err(|(stopped, seen)| Box::new(refusal::of(&subject, stopped, seen)))?;
    if !found.ends.contains(&End::Succeeded) {
        return Err(Box::new(refusal::no_good_end(&subject, &found)));
    }
    Ok(report(&subject, &found))
}

fn report(subject: &Subject<'_>, found: &Found) -> Report {
    let undos = 0..subject.playbook.rollback.len();
    Report {
        situations: found.situations,
        events: found.events,
        crashes: found.crashes,
        ends: found.ends.iter().copied().collect(),
        longest: found.longest,
        idle_rollback: undos.filter(|i| !found.begun.contains(&Effect::Undo(*i))).collect(),
    }
}

/// Writes a number as people read it: `41,212`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}
