//! A language model that is asked which playbook to take, and answers as one does: well, not at all, too late, with more
//! than was asked, or with what is none of its business.

use crate::mutants::{HOSTILE, decoy};
use crate::simulate::mortal::mix;
use crate::time::SimClock;
use async_trait::async_trait;
use engine_core::select::Answer;
use engine_runtime::fleet::{Question, Selector};
use engine_runtime::ports::Clock as _;
use jiff::SignedDuration;

/// The model.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) seed: u64,
    pub(super) clock: SimClock,
}

#[async_trait]
impl Selector for Model {
    async fn choose(&self, question: Question<'_>) -> Answer {
        let drawn = mix(self.seed, "model", self.clock.now().as_millisecond() as u64);
        self.clock.sleep(SignedDuration::from_millis((drawn >> 8) as i64 % 24_000)).await;
        let first = question.applicable.candidates.first();
        let named = first.map(|c| c.playbook.id.clone()).unwrap_or_default();
        let said = match drawn % 16 {
            0..4 => return Answer::NoOpinion,
            4..9 => named,
            9 => "person".to_owned(),
            10..13 => decoy().map(|d| d.reference.id).unwrap_or_default(),
            13 => format!("{named} on nodename=ALL"),
            14 => HOSTILE.to_owned(),
            _ => named.repeat(40),
        };
        Answer::Said(said)
    }
}
