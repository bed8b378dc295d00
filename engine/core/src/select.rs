//! Which of the applicable playbooks an incident is given to (rule 12).
//!
//! Rules always can say. Whoever else is asked, such as a language model, may name one of the playbooks that are
//! applicable already, or a person. What it says is data: it is compared with their names and used for nothing else.
//!
//! ```text
//! applicable before ─▶ question ─▶ answer ─┐
//!                                          ├─▶ settle ─▶ one that was and is applicable | a person | wait
//! applicable after ────────────────────────┘        else: the rules
//! ```

use crate::playbook::PlaybookRef;
use serde::Serialize;

/// The most playbooks among which a choice is made; with more, a person chooses.
pub const MAX_CANDIDATES: usize = 16;

/// The longest answer that is read, in bytes.
pub const MAX_ANSWER: usize = 256;

/// The answer that asks for a person.
pub const PERSON: &str = "person";

/// A playbook that may be chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// Exactly which version.
    pub playbook: PlaybookRef,
    /// Its one sentence.
    pub summary: String,
}

/// What is applicable at one moment, and why the rest is not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Applicable {
    /// The fault that asks for a playbook.
    pub fault: String,
    /// The playbooks that may be chosen.
    pub candidates: Vec<Candidate>,
    /// Why others may not be, in sentences.
    pub against: Vec<String>,
    /// Why it cannot be told of others, in sentences. Unknown never permits.
    pub unclear: Vec<String>,
}

impl Applicable {
    /// Finds the one that an answer names, by `id@version` or by an id that only one has. Nothing else is understood.
    fn named(&self, answer: &str) -> Option<&PlaybookRef> {
        let all = || self.candidates.iter().map(|c| &c.playbook);
        let mut hits = all().filter(|p| p.to_string() == answer);
        let mut by_id = all().filter(|p| p.id == answer);
        match (hits.next(), by_id.next(), by_id.next()) {
            (Some(exact), ..) => Some(exact),
            (None, Some(only), None) => Some(only),
            _ => None,
        }
    }

    /// Says whether exactly this version, with this content, may be chosen.
    pub fn has(&self, playbook: &PlaybookRef) -> bool {
        self.candidates.iter().any(|c| c.playbook == *playbook)
    }
}

/// What whoever was asked said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It leaves the choice to the rules.
    NoOpinion,
    /// It said this: text from outside.
    Said(String),
    /// It could not be asked, or did not answer in time.
    Silent(String),
}

/// What is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// This one.
    Playbook(PlaybookRef),
    /// Nothing for now: what would decide it is not known.
    Wait(String),
    /// A person decides, and why.
    Person(String),
}

/// A choice, and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// What is chosen.
    pub choice: Choice,
    /// A sentence for the record where somebody other than the rules was asked.
    pub note: Option<String>,
}

/// The guard between an answer and a run. [`settle`] is the one that is in force.
pub type Settle = fn(before: &Applicable, answer: &Answer, after: &Applicable) -> Settled;

/// Chooses by rules alone: the only one that is applicable.
pub fn rules(now: &Applicable) -> Choice {
    match (now.candidates.as_slice(), now.unclear.as_slice()) {
        ([_] | [], [_, ..]) => Choice::Wait(now.unclear.join("; ")),
        ([one], []) => Choice::Playbook(one.playbook.clone()),
        ([], []) if now.against.is_empty() => {
            Choice::Person(format!("no playbook is for {}: a person decides", now.fault))
        }
        ([], []) => Choice::Person(now.against.join("; ")),
        (many, _) => {
            let ids: Vec<&str> = many.iter().map(|c| c.playbook.id.as_str()).collect();
            let (n, fault) = (many.len(), &now.fault);
            Choice::Person(format!("{n} playbooks are for {fault} ({}): a person chooses", ids.join(", ")))
        }
    }
}

/// Holds rule 12: an answer counts if it names one of the playbooks that were applicable when it was asked for and still
/// are, or a person. In every other case the rules choose among those that are applicable now.
pub fn settle(before: &Applicable, answer: &Answer, after: &Applicable) -> Settled {
    let by_rules = |note: Option<String>| Settled { choice: rules(after), note };
    let said = match answer {
        Answer::NoOpinion => return by_rules(None),
        Answer::Silent(why) => {
            return by_rules(Some(format!("the selector did not answer, the rules chose: {why}")));
        }
        Answer::Said(text) if text.len() > MAX_ANSWER => {
            let note = format!("the selector's answer has {} bytes, the rules chose", text.len());
            return by_rules(Some(note));
        }
        Answer::Said(text) => text.trim(),
    };
    if said.eq_ignore_ascii_case(PERSON) {
        let why = "the selector leaves it to a person".to_owned();
        return Settled { choice: Choice::Person(why), note: None };
    }
    match before.named(said) {
        None => {
            by_rules(Some("the selector named none of the applicable playbooks, the rules chose".to_owned()))
        }
        Some(named) if !after.has(named) => by_rules(Some(format!(
            "the selector named {named}, which is not applicable any more, the rules chose"
        ))),
        Some(named) => Settled {
            choice: Choice::Playbook(named.clone()),
            note: Some(format!("the selector chose {named} among {}", before.candidates.len())),
        },
    }
}
