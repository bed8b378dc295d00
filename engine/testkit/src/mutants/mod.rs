//! The mutation table: for each rule of the constitution its guard is broken on purpose, and whoever watches has to find
//! it. A rule whose mutant lives is a rule that nobody would see broken.
//!
//! The faults stand in front of the engine, at its ports, its gate and its selection, or in the decisions that the
//! checker plays. Nothing in the engine can switch a guard off.

mod actuator;
mod fleet;
mod machine;
mod scheduler;

pub(crate) use actuator::actuator;
pub(crate) use fleet::{Replaced, gate, settled_by};
pub(crate) use scheduler::scheduler;

use crate::simulate::{Part, Progress, SimulateError, SimulateOptions, playbook, simulate_many};
use engine_core::playbook::Playbook;
use engine_playbook::checker::{Options, check_with};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Text from outside that means ill.
pub(crate) const HOSTILE: &str = "a\"7'; scontrol update nodename=ALL state=resume {{ 7*7 }}";

/// A guard that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mutant {
    /// Rule 1.
    RepeatsBlindly,
    /// Rule 2.
    ActsInShadow,
    /// Rule 3.
    RemembersReads,
    /// Rule 4.
    CachesReasons,
    /// Rule 5.
    CallsEverythingWell,
    /// Rule 6, for the checker.
    CallsHeldRolledBack,
    /// Rule 6, for the simulator.
    SwallowsResumes,
    /// Rule 7.
    TakesAnyLock,
    /// Rule 8.
    LooksOnce,
    /// Rule 9.
    DownsForDrains,
    /// Rule 10.
    AdmitsAll,
    /// Rule 11.
    AsksNobody,
    /// Rule 12.
    TakesAnyAnswer,
    /// Rule 13.
    NeverAnswers,
    /// Rule 14.
    BlamesTheNode,
    /// Rule 15.
    PassesTextOn,
}

/// Who is to find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Means {
    /// The playbook checker.
    Checker,
    /// The simulation of engines.
    Engines,
    /// The simulation of a site with the fleet layer.
    Fleet,
}

impl Means {
    /// Names it for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Checker => "checker",
            Self::Engines => "simulator, engines",
            Self::Fleet => "simulator, fleet",
        }
    }
}

/// Nodes, hours and rate of the simulations of engines, small enough for a test.
const NODES: usize = 40;
const HOURS: u32 = 72;
const RATE: f64 = 800.0;
/// Seeds that are played for one mutant at the most.
const SEEDS: u64 = 24;

impl Mutant {
    /// Every mutant, in the order of the rules; each rule has one at least.
    pub const ALL: [Self; 16] = [
        Self::RepeatsBlindly,
        Self::ActsInShadow,
        Self::RemembersReads,
        Self::CachesReasons,
        Self::CallsEverythingWell,
        Self::CallsHeldRolledBack,
        Self::SwallowsResumes,
        Self::TakesAnyLock,
        Self::LooksOnce,
        Self::DownsForDrains,
        Self::AdmitsAll,
        Self::AsksNobody,
        Self::TakesAnyAnswer,
        Self::NeverAnswers,
        Self::BlamesTheNode,
        Self::PassesTextOn,
    ];

    /// The rule whose guard it breaks.
    pub fn rule(self) -> u8 {
        match self {
            Self::RepeatsBlindly => 1,
            Self::ActsInShadow => 2,
            Self::RemembersReads => 3,
            Self::CachesReasons => 4,
            Self::CallsEverythingWell => 5,
            Self::CallsHeldRolledBack | Self::SwallowsResumes => 6,
            Self::TakesAnyLock => 7,
            Self::LooksOnce => 8,
            Self::DownsForDrains => 9,
            Self::AdmitsAll => 10,
            Self::AsksNobody => 11,
            Self::TakesAnyAnswer => 12,
            Self::NeverAnswers => 13,
            Self::BlamesTheNode => 14,
            Self::PassesTextOn => 15,
        }
    }

    /// What is broken, in a few words.
    pub fn says(self) -> &'static str {
        match self {
            Self::RepeatsBlindly => "a reset nobody knows of is ordered again",
            Self::ActsInShadow => "in shadow the last metre is the real one",
            Self::RemembersReads => "a failed read is answered from memory",
            Self::CachesReasons => "a reason minutes old is shown as fresh",
            Self::CallsEverythingWell => "tools call every GPU well",
            Self::CallsHeldRolledBack => "a held run is called rolled back",
            Self::SwallowsResumes => "a resume is said to be done and is not sent",
            Self::TakesAnyLock => "a lock somebody else has counts as taken",
            Self::LooksOnce => "preconditions are judged once, when planned",
            Self::DownsForDrains => "a drain sets the node DOWN as well",
            Self::AdmitsAll => "the gate lets pass what a full budget stops",
            Self::AsksNobody => "the policy's number of approvers is dropped",
            Self::TakesAnyAnswer => "a model may name any playbook",
            Self::NeverAnswers => "an order to a node has no deadline",
            Self::BlamesTheNode => "a hung tool is taken for a broken GPU",
            Self::PassesTextOn => "an alert's text goes into the reason raw",
        }
    }

    /// Who is to find it.
    pub fn means(self) -> Means {
        match self {
            Self::CallsHeldRolledBack | Self::LooksOnce => Means::Checker,
            Self::ActsInShadow
            | Self::AdmitsAll
            | Self::AsksNobody
            | Self::TakesAnyAnswer
            | Self::NeverAnswers => Means::Fleet,
            _ => Means::Engines,
        }
    }
}

/// What became of a mutant.
#[derive(Debug, Clone, Serialize)]
pub struct Hunt {
    /// Which.
    pub mutant: Mutant,
    /// Its rule.
    pub rule: u8,
    /// What is broken.
    pub broken: &'static str,
    /// Who was to find it.
    pub means: Means,
    /// How it was found; `None` if it lives.
    pub found: Option<Caught>,
}

/// How a mutant was found.
#[derive(Debug, Clone, Serialize)]
pub struct Caught {
    /// Situations that the checker visited, or runs that were proposed, until then.
    pub after: u64,
    /// Seeds that were played.
    pub seeds: u64,
    /// What was seen.
    pub what: String,
}

/// Hunts one mutant.
pub fn hunt(mutant: Mutant) -> Result<Hunt, SimulateError> {
    let found = match mutant.means() {
        Means::Checker => checked(mutant)?,
        Means::Engines => played(mutant, Part::Engines)?,
        Means::Fleet => played(mutant, Part::Fleet)?,
    };
    let (rule, broken, means) = (mutant.rule(), mutant.says(), mutant.means());
    Ok(Hunt { mutant, rule, broken, means, found })
}

/// Hunts every mutant on so many threads; in the order of the rules.
pub fn hunt_all(jobs: usize) -> Result<Vec<Hunt>, SimulateError> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, Mutant::ALL.len()) {
            scope.spawn(|| {
                while let Some((i, mutant)) = {
                    let i = next.fetch_add(1, Ordering::SeqCst);
                    Mutant::ALL.get(i).map(|m| (i, *m))
                } {
                    let hunted = hunt(mutant);
                    done.lock().unwrap_or_else(PoisonError::into_inner).insert(i, hunted);
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

fn checked(mutant: Mutant) -> Result<Option<Caught>, SimulateError> {
    let verdict = check_with(&*playbook()?, &machine::Wrong(mutant), Options::default());
    let refusal = verdict.err().filter(|r| r.rule().is_some_and(|rule| rule.number() == mutant.rule()));
    Ok(refusal.map(|r| Caught { after: r.situations as u64, seeds: 0, what: r.sentence() }))
}

/// Plays seed after seed until the mutant's own rule is seen broken. What else it breaks does not count.
fn played(mutant: Mutant, part: Part) -> Result<Option<Caught>, SimulateError> {
    let mut before = 0;
    for seed in 1..=SEEDS {
        let options = SimulateOptions {
            nodes: NODES,
            hours: HOURS,
            rate: RATE,
            seed,
            part,
            mutant: Some(mutant),
            ..SimulateOptions::default()
        };
        let report = simulate_many(&options, 1, 1, &Progress::default())?;
        if let Some(v) = report.first_of.get(&mutant.rule()) {
            return Ok(Some(Caught { after: before + v.runs, seeds: seed, what: v.what.clone() }));
        }
        before += report.runs;
    }
    Ok(None)
}

/// A playbook for another fault than the one that alerts tell of: no answer of a model may bring it to a run.
pub(crate) fn decoy() -> Option<Playbook> {
    let mut decoy = (*playbook().ok()?).clone();
    decoy.reference.id = "gpu-off-bus-reset".to_owned();
    decoy.reference.digest = engine_core::digest::Digest::of(b"gpu-off-bus-reset");
    decoy.fault = vec!["gpu-off-bus".to_owned()];
    Some(decoy)
}
