//! The way to a counterexample, told for the author of a playbook.

use super::moves::{JobThere, Move, Obstacle, Told};
use super::situation::Situation;
use super::subject::Subject;
use engine_core::condition::Truth;
use engine_core::run::{Effect, OutcomeKind, Resolution};
use std::fmt;

/// Widest line of a printed trace, in characters.
const WIDTH: usize = 79;

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// The engine decided or did it.
    Engine,
    /// It happened to the node, to a job, or to the engine.
    World,
    /// A person did it.
    Person,
}

impl Who {
    /// Returns the word in the second column of a trace.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::World => "world",
            Self::Person => "person",
        }
    }
}

/// One line of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Who.
    pub who: Who,
    /// What, in a sentence without full stop.
    pub what: String,
}

/// A way, line by line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// The lines, oldest first.
    pub lines: Vec<Line>,
    /// The line, from 0, from which an endless way repeats.
    pub repeats: Option<usize>,
}

impl Trace {
    /// Tells a way; `repeats` is the place from which it goes round.
    pub(super) fn of(subject: &Subject<'_>, way: &[(Situation, Move)], repeats: Option<usize>) -> Self {
        let mut out = Self::default();
        let mut skip = false;
        for (i, (_, mv)) in way.iter().enumerate() {
            if repeats == Some(i) {
                out.repeats = Some(out.lines.len());
            }
            if std::mem::take(&mut skip) {
                continue;
            }
            let follows = way.get(i + 1).map(|(_, m)| &m.told);
            skip = tell(subject, mv, follows, &mut out);
        }
        out
    }

    pub(super) fn add(&mut self, who: Who, what: impl Into<String>) {
        self.lines.push(Line { who, what: what.into() });
    }
}

impl fmt::Display for Trace {
    /// Prints numbered lines of at most 79 characters, each ended by a line break.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, line) in self.lines.iter().enumerate() {
            let mut words = line.what.split_whitespace().peekable();
            let mut first = true;
            while words.peek().is_some() {
                if first {
                    write!(f, "{:>4}  {:<6}  ", i + 1, line.who.as_str())?;
                } else {
                    write!(f, "{:14}", "")?;
                }
                let mut used = 14;
                while let Some(word) = words.next_if(|w| used == 14 || used + 1 + w.chars().count() <= WIDTH)
                {
                    let blank = if used == 14 { "" } else { " " };
                    write!(f, "{blank}{word}")?;
                    used += blank.len() + word.chars().count();
                }
                writeln!(f)?;
                first = false;
            }
        }
        if let Some(at) = self.repeats {
            writeln!(f, "      and so on from line {}, without end", at + 1)?;
        }
        Ok(())
    }
}

/// Tells one move; true if the line also tells the move that follows.
fn tell(subject: &Subject<'_>, mv: &Move, follows: Option<&Told>, out: &mut Trace) -> bool {
    use Who::{Engine, Person, World};
    if mv.late {
        out.add(Person, "cancels the run, while the engine decides");
    }
    if let Some(meddling) = mv.person {
        out.add(Person, meddling.says());
    }
    let name = |effect: Effect| subject.name(effect);
    match &mv.told {
        Told::Asks => {
            let people = subject.plan.people();
            out.add(Engine, if people == 1 { "asks one person" } else { "asks two people" });
        }
        Told::Approves(who) => out.add(Person, format!("{who} approves the plan")),
        Told::VoidAtApproval(obstacle) => {
            stands_against(*obstacle, out);
            out.add(Engine, "rejects the run: what was approved is no longer so");
        }
        Told::Denies => out.add(Person, "says no"),
        Told::RequestLapses => out.add(World, "nobody answers in time"),
        Told::YesLapses => out.add(World, "time goes by, and what was approved has run out"),
        Told::Voids => out.add(Engine, "asks again: the approval has run out"),
        Told::Starts => out.add(Engine, "starts the run"),
        Told::NotYet => out.add(Engine, "waits: a budget, a breaker or a pause stands in the way"),
        Told::NeverAllowed => out.add(Engine, "ends the run: the policy says no"),
        Told::Begins { effect, attempt, job, silent } => {
            return begins(subject, *effect, *attempt, *job, *silent, follows, out);
        }
        Told::Refuses { effect, obstacle } => {
            stands_against(*obstacle, out);
            out.add(Engine, format!("does not begin {}: {}", name(*effect), because(*obstacle)));
        }
        Told::Comes { effect, kind, took } => out.add(World, comes(&name(*effect), *kind, *took)),
        Told::Meddles { effect, probed } => {
            let when = if *probed { "looks what became of" } else { "reads back after" };
            out.add(Engine, format!("sees that when it {when} {}", name(*effect)));
        }
        Told::Dies { effect, took } => {
            let when = if *took { "after" } else { "before" };
            out.add(
                World,
                format!(
                    "the engine dies right {when} {} took effect; only the intent is on record",
                    name(*effect)
                ),
            );
            out.add(Engine, "another process takes the run over");
        }
        Told::Probed { effect, resolution } => {
            let found = match resolution {
                Resolution::Applied => "it took effect",
                Resolution::NotApplied => "it did not take effect",
                Resolution::Unclear => "it cannot be told",
                Resolution::Foreign => "somebody else changed the node",
            };
            out.add(Engine, format!("looks what became of {}: {found}", name(*effect)));
        }
        Told::Retries { effect, attempt } => {
            out.add(Engine, format!("will try {} again, attempt {attempt}", name(*effect)));
        }
        Told::Waits => out.add(Engine, "waits for its time"),
        Told::GoesBack(why) => out.add(Engine, format!("begins the way back: {}", or_stop(why))),
        Told::Ends(end, why) => {
            let word = end.as_str().replace('_', " ");
            let why = or_stop(why);
            out.add(
                Engine,
                if why.is_empty() {
                    format!("ends the run: {word}")
                } else {
                    format!("ends the run: {word}, {why}")
                },
            );
        }
        Told::Cancels => out.add(Person, "cancels the run"),
    }
    false
}

fn begins(
    subject: &Subject<'_>,
    effect: Effect,
    attempt: u32,
    job: JobThere,
    silent: bool,
    follows: Option<&Told>,
    out: &mut Trace,
) -> bool {
    let again = if attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
    match job {
        JobThere::No => {}
        JobThere::Runs => out.add(Who::World, "a job is on the node"),
        JobThere::Starts => {
            out.add(Who::World, "a job starts right after the engine looked: the node is in service");
        }
    }
    if silent {
        out.add(Who::World, "the node does not answer");
    }
    let what = match effect {
        Effect::Lock => "takes the lock on the node".to_owned(),
        Effect::Unlock => "gives the lock back".to_owned(),
        Effect::Hold => "writes on the node why it is held".to_owned(),
        Effect::Step(_) | Effect::Undo(_) => format!("begins {}", subject.name(effect)),
    };
    let done =
        matches!(follows, Some(Told::Comes { effect: e, kind: OutcomeKind::Succeeded, .. }) if *e == effect);
    let marks = matches!(effect, Effect::Lock | Effect::Unlock | Effect::Hold);
    let end = match (done, marks) {
        (true, true) => "",
        (true, false) => ": done",
        (false, _) => ": the intent is on record",
    };
    out.add(Who::Engine, format!("{what}{again}{end}"));
    done
}

/// What the world did to make it so.
fn stands_against(obstacle: Obstacle, out: &mut Trace) {
    match obstacle {
        Obstacle::Node => out.add(Who::World, "the node goes silent, or comes back"),
        Obstacle::Unreadable => out.add(Who::World, "Slurm does not answer"),
        Obstacle::Meddled(_)
        | Obstacle::Change
        | Obstacle::Preconditions(_)
        | Obstacle::When(_)
        | Obstacle::Own(_)
        | Obstacle::Chance(_) => {}
    }
}

/// Why the engine does not begin.
pub(super) fn because(obstacle: Obstacle) -> String {
    let comes_to = |t: Truth| if t == Truth::Unknown { "is unknown" } else { "does not hold" };
    match obstacle {
        Obstacle::Meddled(_) | Obstacle::Change => "somebody else changed the node".to_owned(),
        Obstacle::Node => "the node changed".to_owned(),
        Obstacle::Unreadable => "nothing can be read".to_owned(),
        Obstacle::Preconditions(t) => format!("a precondition {}", comes_to(t)),
        Obstacle::When(t) => format!("its `when` {}", comes_to(t)),
        Obstacle::Own(why) | Obstacle::Chance(why) => why.to_owned(),
    }
}

fn comes(name: &str, kind: OutcomeKind, took: bool) -> String {
    match (kind, took) {
        (OutcomeKind::Succeeded, _) => format!("{name} is done and was read back"),
        (OutcomeKind::Transient, _) => format!("{name} fails; trying again may help"),
        (OutcomeKind::Permanent, true) => format!("{name} takes effect, and the node never answers"),
        (OutcomeKind::Permanent, false) => format!("{name} fails, or runs out of time"),
        (OutcomeKind::Ambiguous, true) => format!("{name} takes effect, and nobody hears of it"),
        (OutcomeKind::Ambiguous, false) => format!("{name} does not take effect, and nobody hears of it"),
        (OutcomeKind::Foreign, _) => format!("{name} meets somebody else's change"),
    }
}

/// The machine's sentences carry what the model wrote into them; those are told in their own lines already.
fn or_stop(why: &str) -> &str {
    why.trim().trim_end_matches(':').trim()
}
