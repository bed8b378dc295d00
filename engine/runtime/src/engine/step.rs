//! One step of a run: look, intent, act, outcome; and the outcome on record together with the next intent.
//!
//! An intent is on record before anything is touched. What came of it is written with the next intent where that is decided
//! at once, so that a step costs one synced commit. Until then it stands only in this process: if that dies, the step is one
//! whose outcome nobody saw, which is looked at and never repeated, as ever.

use super::guard::{FRESH, Look, on_record};
use super::{Engine, EngineError, Pass, takes_more};
use crate::actions::{Ctx, Prepared, performer};
use crate::journal::{JournalError, NewEvent};
use engine_core::run::{Effect, EventKind, Next, Outcome, RunState, next};
use jiff::{SignedDuration, Timestamp};

/// How long what happened may wait for the next intent before it is written alone.
const SOON: SignedDuration = SignedDuration::from_millis(50);

/// What lies between two turns of the loop that drives a run.
#[derive(Default)]
pub(super) enum Ahead {
    /// Nothing: everything is on record.
    #[default]
    Nothing,
    /// Something happened that is not on record yet.
    Unwritten(Unwritten),
    /// The next effect was looked at already.
    Decided(Decided),
}

/// What happened, with what follows from it by itself, and the state it leads to.
pub(super) struct Unwritten {
    what: EventKind,
    at: Timestamp,
    new: Vec<NewEvent>,
    leads_to: RunState,
}

/// An effect whose guard was asked.
pub(super) struct Decided {
    effect: Effect,
    attempt: u32,
    /// The run's last event when it was asked.
    seq: u64,
    at: Timestamp,
    look: Look,
    prepared: Prepared,
}

impl Engine {
    /// Takes down what just happened, to be written with what comes next.
    pub(super) fn unwritten(&self, state: &RunState, what: EventKind) -> Unwritten {
        let at = self.ports.clock.now();
        let (new, leads_to) = self.with_followers(Some(state.clone()), &state.run, what.clone(), at);
        Unwritten { what, at, new, leads_to: leads_to.unwrap_or_else(|| state.clone()) }
    }

    /// Goes on from what happened: with the next effect in the same commit, or, where its guard needs longer or says that
    /// something else comes first, by writing it alone.
    pub(super) async fn go_on(&self, state: &mut RunState, last: Unwritten) -> Result<Ahead, EngineError> {
        let coming = next(&last.leads_to, self.ports.clock.now());
        let Next::Begin { effect, attempt } = coming else {
            self.write_alone(state, last).await?;
            return Ok(Ahead::Nothing);
        };
        if last.leads_to.plan.is_shadow() {
            self.write_alone(state, last).await?;
            return Ok(Ahead::Nothing);
        }
        let leads_to = last.leads_to.clone();
        let mut decision = Box::pin(self.decide_ahead(&leads_to, effect, attempt));
        let soon = tokio::select! {
            biased;
            decided = &mut decision => Some(decided),
            () = self.ports.clock.sleep(SOON) => None,
        };
        match soon {
            Some(Some(decided)) => self.begin(state, Some(last), decided).await,
            Some(None) => {
                self.write_alone(state, last).await?;
                Ok(Ahead::Nothing)
            }
            None => {
                // Only reading goes on beside the write: the intent is written after both.
                let (written, decided) = tokio::join!(self.write_alone(state, last), decision);
                written?;
                Ok(decided.map_or(Ahead::Nothing, Ahead::Decided))
            }
        }
    }

    /// Asks gate and guard of an effect for a state that is not on record yet. `None` where the gate is not open: the loop
    /// asks it again and says why.
    async fn decide_ahead(&self, state: &RunState, effect: Effect, attempt: u32) -> Option<Decided> {
        if takes_more(state, effect) && self.gate.allows(state, effect).await != Pass::Go {
            return None;
        }
        self.decide(state, effect, attempt).await
    }

    /// Asks the guard of an effect, right after its gate. `None` where the gate was closed meanwhile.
    pub(super) async fn decide(&self, state: &RunState, effect: Effect, attempt: u32) -> Option<Decided> {
        let asked = self.ports.clock.now();
        let (look, prepared) = self.guarded(state, effect, attempt).await;
        let prepared = self.still_passes(state, effect, asked, &look, prepared).await?;
        let at = self.ports.clock.now();
        Some(Decided { effect, attempt, seq: state.seq, at, look, prepared })
    }

    /// Writes what happened, and nothing else.
    async fn write_alone(&self, state: &mut RunState, last: Unwritten) -> Result<(), EngineError> {
        if self.append(state, last.new).await? {
            return Ok(());
        }
        self.record_following_at(state, last.what, last.at).await
    }

    /// Intent, act, outcome: the only way in which anything is changed. `last` is what happened before and is not on record.
    pub(super) async fn begin(
        &self,
        state: &mut RunState,
        last: Option<Unwritten>,
        decided: Decided,
    ) -> Result<Ahead, EngineError> {
        let Decided { effect, attempt, look, prepared, .. } = decided;
        let Prepared { report, foreign, transient, context } = prepared;
        let before = last.as_ref().map_or(&*state, |last| &last.leads_to);
        let report = on_record(before, effect, report);
        let passed = report.passed;
        let kind = if passed {
            let seen = look.mark.known().cloned();
            let action = super::drive::name(before, effect);
            EventKind::Intent {
                effect,
                attempt,
                action,
                guard: report,
                before: seen,
                context: context.clone(),
            }
        } else {
            EventKind::Refused { effect, guard: report, foreign, transient }
        };
        let (following, _) =
            self.with_followers(Some(before.clone()), &state.run, kind, self.ports.clock.now());
        let mut new = last.as_ref().map_or_else(Vec::new, |last| last.new.clone());
        new.extend(following);
        // Where somebody wrote meanwhile, perhaps a request to stop, it is decided anew before anything is touched.
        let written = match (self.append(state, new).await, last) {
            (Ok(true), _) => true,
            (Ok(false), None) => false,
            (Ok(false), Some(last)) => {
                self.record_following_at(state, last.what, last.at).await?;
                false
            }
            (Err(e), Some(last)) if matches!(e, EngineError::Journal(JournalError::TakenOver(_))) => {
                // Another process has the run now. What came out here is worth knowing there.
                self.record_following_at(state, last.what, last.at).await?;
                return Err(e);
            }
            (Err(e), _) => return Err(e),
        };
        if !written || !passed {
            return Ok(Ahead::Nothing);
        }
        self.recent.forget(&state.plan.target.node);
        let outcome = {
            let ctx = Ctx { engine: self, state, effect, attempt, look: &look };
            match performer(state, effect) {
                Some(p) => p.act(&ctx, &context).await,
                None => Outcome::permanent("this release does not know the action"),
            }
        };
        self.recent.forget(&state.plan.target.node);
        Ok(Ahead::Unwritten(self.unwritten(state, EventKind::Finished { effect, attempt, outcome })))
    }

    /// Looks at the node and asks the guard of an effect. Changes nothing but the journal's lock.
    pub(super) async fn guarded(&self, state: &RunState, effect: Effect, attempt: u32) -> (Look, Prepared) {
        let look = self.look_before(state, effect).await;
        let ctx = Ctx { engine: self, state, effect, attempt, look: &look };
        let mut prepared = match performer(state, effect) {
            Some(p) => p.prepare(&ctx).await,
            None => Prepared::no("this release does not know the action", false),
        };
        if prepared.report.passed && touches_node(state, effect) {
            prepared = self.still_so(state, &look, prepared).await;
        }
        (look, prepared)
    }
}

impl Ahead {
    /// Returns the decision about an effect, if one was made for it, nobody wrote to the run since, and what was seen is
    /// still fresh at `now`.
    pub(super) fn decided(
        self,
        state: &RunState,
        effect: Effect,
        attempt: u32,
        now: Timestamp,
    ) -> Option<Decided> {
        match self {
            Self::Decided(d) => {
                let same = (d.effect, d.attempt, d.seq) == (effect, attempt, state.seq);
                (same && now.duration_since(d.at) <= FRESH).then_some(d)
            }
            Self::Nothing | Self::Unwritten(_) => None,
        }
    }
}

/// Says whether an effect writes something that a person's change could meet.
fn touches_node(state: &RunState, effect: Effect) -> bool {
    match effect {
        Effect::Lock | Effect::Hold => true,
        Effect::Unlock => false,
        Effect::Step(_) | Effect::Undo(_) => state.step_of(effect).is_some_and(|s| s.effect.mutates()),
    }
}
