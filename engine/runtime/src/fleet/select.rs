//! Who is asked which playbook an incident is given to, and what holds rule 12 between the answer and a run.

use async_trait::async_trait;
use engine_core::incident::Incident;
use engine_core::select::{Answer, Applicable, Settle, settle};
use jiff::SignedDuration;
use std::fmt::Debug;
use std::sync::Arc;

/// What a selector is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The incident, with its alerts. Their texts come from outside.
    pub incident: &'a Incident,
    /// What is applicable.
    pub applicable: &'a Applicable,
}

/// Chooses a playbook, or leaves it to the rules. Whatever it answers is only data: see [`engine_core::select`].
#[async_trait]
pub trait Selector: Send + Sync + Debug {
    /// Answers with the id of one of the candidates, or with `person`.
    async fn choose(&self, question: Question<'_>) -> Answer;
}

/// The selector that has no opinion, so that the rules choose. With it the engine is complete.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByRules;

#[async_trait]
impl Selector for ByRules {
    async fn choose(&self, _question: Question<'_>) -> Answer {
        Answer::NoOpinion
    }
}

/// How a dispatcher selects.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Who is asked.
    pub selector: Arc<dyn Selector>,
    /// The guard between its answer and a run. [`settle`] holds rule 12; tests show what happens without it.
    pub settle: Settle,
    /// How long an answer is waited for before the rules choose.
    pub patience: SignedDuration,
}

impl Default for Selection {
    fn default() -> Self {
        Self { selector: Arc::new(ByRules), settle, patience: SignedDuration::from_secs(20) }
    }
}
