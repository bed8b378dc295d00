//! From what a source sent to the intake: in parts of a size that it takes, with an answer for each alert.

use crate::documents::AlertsTaken;
use crate::problem::Problem;
use crate::sources::MAX_ANSWERS;
use engine_core::incident::{Alert, FleetEvent, Heard, NotHeard};
use engine_runtime::fleet::{Intake, MAX_POST};
use std::collections::BTreeMap;

/// Why one entry of a post is no alert for this engine: a stable word and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word}: {why}")]
pub struct NotTaken {
    /// Stable word, for the metric.
    pub word: &'static str,
    /// One sentence for people.
    pub why: String,
}

impl NotTaken {
    /// Builds one.
    pub fn new(word: &'static str, why: impl Into<String>) -> Self {
        Self { word, why: why.into() }
    }
}

/// What a source sent, entry by entry.
pub type Gathered = Vec<Result<Alert, NotTaken>>;

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The answer for the sender.
    pub document: AlertsTaken,
    /// How many entries came to each stable word: `opened`, `joined`, `counted`, or why not.
    pub by_word: BTreeMap<&'static str, u64>,
    /// The first entry that opened nothing, for the log.
    pub first_refused: Option<String>,
}

/// Hands alerts to the intake. What they changed is durable when this returns. A post that is larger than the intake takes
/// at once is taken in parts, in order; what failed in the middle is sent again as a whole, and then only counts.
pub async fn feed(intake: &Intake, gathered: Gathered) -> Result<Answered, Problem> {
    let mut answers = Vec::new();
    let mut by_word: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut first_refused = None;
    let (mut taken, mut new, mut refused) = (0, 0, 0);
    let mut rest = gathered.into_iter().peekable();
    while rest.peek().is_some() {
        let part: Gathered = rest.by_ref().take(MAX_POST).collect();
        let alerts: Vec<Alert> = part.iter().filter_map(|r| r.as_ref().ok()).cloned().collect();
        let nodes: Vec<String> = alerts.iter().map(|a| format!("{} {}", a.node, a.fault)).collect();
        let mut heard = intake.take(alerts).await?.into_iter().zip(nodes);
        for entry in part {
            let (word, sentence, which) = match entry {
                Err(not) => (not.word, format!("not taken, {not}"), None),
                Ok(_) => match heard.next() {
                    Some((h, which)) => (word_of(&h), sentence_of(&h), Some(which)),
                    None => ("failed", "not taken, it was not answered".to_owned(), None),
                },
            };
            *by_word.entry(word).or_insert(0) += 1;
            match word {
                "opened" | "joined" => {
                    taken += 1;
                    new += 1;
                }
                "counted" => taken += 1,
                _ => {
                    refused += 1;
                    first_refused.get_or_insert_with(|| match &which {
                        Some(which) => format!("{which}: {sentence}"),
                        None => sentence.clone(),
                    });
                }
            }
            if answers.len() < MAX_ANSWERS {
                answers.push(sentence);
            }
        }
    }
    let format = "slurmedic/alert/1".to_owned();
    let document = AlertsTaken { format, taken, new, refused, answers };
    Ok(Answered { document, by_word, first_refused })
}

fn word_of(heard: &Heard) -> &'static str {
    match heard {
        Heard::New(event) if matches!(**event, FleetEvent::Joined { .. }) => "joined",
        Heard::New(event) if matches!(**event, FleetEvent::Eased { .. }) => "counted",
        Heard::New(_) => "opened",
        Heard::Counted(_) => "counted",
        Heard::Not(NotHeard::UnknownNode) => "unknown_node",
        Heard::Not(NotHeard::Stale) => "stale_alert",
        Heard::Not(NotHeard::Skewed) => "clock_skew",
        Heard::Not(NotHeard::NothingToResolve) => "nothing_to_resolve",
        Heard::Not(NotHeard::Settling) => "settling",
    }
}

fn sentence_of(heard: &Heard) -> String {
    match heard {
        Heard::New(event) => match &**event {
            FleetEvent::Joined { incident, .. } => format!("joins incident {incident}"),
            FleetEvent::Eased { incident, .. } => format!("counted for incident {incident}: it may be over"),
            _ => "opens an incident".to_owned(),
        },
        Heard::Counted(incident) => format!("counted for incident {incident}"),
        Heard::Not(why) => format!("not taken, {why}"),
    }
}
