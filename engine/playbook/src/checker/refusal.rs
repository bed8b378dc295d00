//! Why the checker refuses a playbook, with the way that shows it.

use super::explore::{Found, Stopped};
use super::moves::Obstacle;
use super::rule::{Broken, Rule};
use super::subject::{Before, Subject};
use super::thousands;
use super::trace::{Trace, Who, because};
use super::world::{JOBS, found as nodes};
use engine_core::condition::Truth;
use engine_core::run::Effect;
use std::fmt;

/// What the checker found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A rule breaks.
    Broken(Broken),
    /// No way leads to the good end.
    NoGoodEnd {
        /// The first thing that is never done; `None` where the preconditions let no node in.
        stuck_at: Option<Effect>,
        /// Why not, in a sentence.
        why: String,
    },
    /// The limit was reached before every situation was seen.
    Limit {
        /// The limit.
        situations: usize,
    },
    /// The playbook cannot be played.
    Unplayable(String),
}

/// A refused playbook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub finding: Finding,
    /// A shortest way that shows it; empty where there is none.
    pub trace: Trace,
    /// Situations seen until it was found.
    pub situations: usize,
    /// The name of the step that it is about.
    at: Option<String>,
}

impl Refusal {
    pub(super) fn new(finding: Finding, situations: usize) -> Self {
        Self { finding, trace: Trace::default(), situations, at: None }
    }

    /// The step that it is about, where there is one.
    pub fn effect(&self) -> Option<Effect> {
        match &self.finding {
            Finding::Broken(b) => b.effect,
            Finding::NoGoodEnd { stuck_at, .. } => *stuck_at,
            Finding::Limit { .. } | Finding::Unplayable(_) => None,
        }
    }

    /// The rule that breaks, where one does.
    pub fn rule(&self) -> Option<Rule> {
        match &self.finding {
            Finding::Broken(b) => Some(b.rule),
            _ => None,
        }
    }

    /// Prints the way that shows it, in numbered lines of at most 80 characters; empty where there is none.
    pub fn way(&self) -> String {
        match self.rule() {
            Some(rule) if rule.number() > 0 => {
                format!("{}      here rule {} is broken: {}\n", self.trace, rule.number(), rule.says())
            }
            _ => self.trace.to_string(),
        }
    }

    /// Says in a sentence what is wrong, without the way.
    pub fn sentence(&self) -> String {
        match &self.finding {
            Finding::Broken(b) => match &self.at {
                Some(name) => format!("{name}: {}", b.why),
                None => b.why.clone(),
            },
            Finding::NoGoodEnd { why, .. } => format!("no way leads to the good end: {why}"),
            Finding::Limit { situations } => {
                format!("more than {} situations: not all were seen", thousands(*situations as u64))
            }
            Finding::Unplayable(why) => format!("the checker cannot play it: {why}"),
        }
    }
}

impl fmt::Display for Refusal {
    /// Prints the sentence, then the way.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.sentence())?;
        f.write_str(&self.way())
    }
}

/// Tells why an exploration stopped.
pub(super) fn of(subject: &Subject<'_>, stopped: Stopped, situations: usize) -> Refusal {
    match stopped {
        Stopped::Broken(broken, way) => Refusal {
            trace: Trace::of(subject, &way, None),
            at: broken.effect.filter(|e| subject.step(*e).is_some()).map(|e| subject.name(e)),
            finding: Finding::Broken(broken),
            situations,
        },
        Stopped::Endless(way, repeats) => {
            let why = "a way goes round and never ends".to_owned();
            Refusal {
                finding: Finding::Broken(Broken { rule: Rule::End, why, effect: None }),
                trace: Trace::of(subject, &way, Some(repeats)),
                at: None,
                situations,
            }
        }
        Stopped::Limit(limit) => Refusal::new(Finding::Limit { situations: limit }, situations),
        Stopped::Unplayable(why) => Refusal::new(Finding::Unplayable(why), situations),
    }
}

/// Tells why no way leads to the good end: the first thing on it that is never done.
pub(super) fn no_good_end(subject: &Subject<'_>, found: &Found) -> Refusal {
    if found.admitted == 0 {
        let why = "no state of a node meets all preconditions".to_owned();
        return Refusal::new(Finding::NoGoodEnd { stuck_at: None, why }, found.situations);
    }
    let forward = (0..subject.playbook.steps.len()).map(Effect::Step);
    let stuck = std::iter::once(Effect::Lock).chain(forward).find(|e| !found.done.contains(e));
    let Some(effect) = stuck else {
        let why = "every step can be done, and the run still does not end well".to_owned();
        return Refusal::new(Finding::NoGoodEnd { stuck_at: None, why }, found.situations);
    };
    let (way, reason) = match (found.due.get(&effect), found.turned.get(&effect)) {
        (Some(way), _) => (way.as_slice(), reason(subject, found, effect)),
        (None, Some((way, why))) => {
            let action = subject.step(effect).map_or("", |s| s.action.name);
            let why = why.strip_prefix(action).and_then(|w| w.strip_prefix(": ")).unwrap_or(why);
            (way.as_slice(), why.to_owned())
        }
        (None, None) => (&[][..], "nothing ever lets it begin".to_owned()),
    };
    let name = subject.name(effect);
    let mut trace = Trace::of(subject, way, None);
    trace.add(Who::Engine, format!("cannot begin {name}: {reason}"));
    let finding =
        Finding::NoGoodEnd { stuck_at: Some(effect), why: format!("{name} is never done: {reason}") };
    Refusal { finding, trace, situations: found.situations, at: Some(name) }
}

fn reason(subject: &Subject<'_>, found: &Found, effect: Effect) -> String {
    let obstacles = found.obstacles.get(&effect);
    let own = obstacles.into_iter().flatten().find(|o| matches!(o, Obstacle::Own(_)));
    if let Some(own) = own {
        return because(*own);
    }
    if let Some(when) = subject.step(effect).and_then(|s| s.when.as_ref()) {
        let never = "its `when` never holds here";
        let shown = found.due.get(&effect).and_then(|way| {
            let (last, mv) = way.last()?;
            let world = last.after(mv.clone(), &super::RealMachine).map_or(last.world, |s| s.world);
            let jobs = if world.jobs { JOBS.as_slice() } else { &JOBS[..1] };
            let facts = jobs.iter().map(|j| world.facts(false, *j)).collect::<Vec<_>>();
            let words = facts
                .iter()
                .filter(|f| !when.possible(f).contains(Truth::True))
                .map(|f| when.evaluate(f).explain());
            words.into_iter().next()
        });
        return shown.map_or_else(|| never.to_owned(), |s| format!("{never} ({s})"));
    }
    let preconditions = obstacles.into_iter().flatten().any(|o| matches!(o, Obstacle::Preconditions(_)));
    if preconditions && effect == Effect::Lock {
        let node = nodes()
            .into_iter()
            .find(|(w, silent)| subject.verdicts(Before::Run, *w, *silent).at(JOBS[0]).contains(Truth::True));
        if node.is_none() {
            return "the preconditions hold only while a job is on the node".to_owned();
        }
    }
    "nothing ever lets it begin".to_owned()
}
