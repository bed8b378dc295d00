//! Driving a run: do what `next` says until the run is over or waits for people.

use super::step::Ahead;
use super::{Engine, EngineError, Pass, takes_more};
use crate::actions::{Ctx, Performed, performer};
use crate::approval::Ticket;
use engine_core::fact::FactSet;
use engine_core::model::RunId;
use engine_core::run::{
    Actor, Effect, EffectState, End, EventKind, GuardReport, Next, RunState, Status, next,
};
use jiff::SignedDuration;

/// Where driving a run came to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// The run is over.
    Over(End),
    /// The run waits for people.
    AwaitsApproval,
    /// The run may not begin yet; drive it again later.
    Deferred,
}

impl Engine {
    /// Carries a run as far as it goes without people.
    pub async fn drive(&self, run: &RunId) -> Result<Rest, EngineError> {
        if !self.ports.journal.claim(run).await? {
            return Err(EngineError::Claimed(run.clone()));
        }
        let mut state = self.state(run).await?;
        let mut ahead = Ahead::Nothing;
        loop {
            // A decision ahead serves what comes right after it, and nothing later.
            let before = match std::mem::take(&mut ahead) {
                Ahead::Unwritten(last) => {
                    ahead = Box::pin(self.go_on(&mut state, last)).await?;
                    continue;
                }
                other => other,
            };
            let now = self.ports.clock.now();
            let comes = next(&state, now);
            if let Some(kind) = comes.as_event(&state, now, self.config.approval_wait) {
                self.record_following(&mut state, kind).await?;
                continue;
            }
            match comes {
                Next::Over(end) => return Ok(Rest::Over(end)),
                Next::AwaitApproval => return Ok(Rest::AwaitsApproval),
                Next::Start => match self.gate.admit(&state).await {
                    Pass::Go => {
                        let engine = self.config.engine.clone();
                        ahead = Ahead::Unwritten(self.unwritten(&state, EventKind::Started { engine }));
                    }
                    Pass::Wait { why, until } => {
                        self.defer(&mut state, why, until).await?;
                        return Ok(Rest::Deferred);
                    }
                    Pass::Never(why) => {
                        let end =
                            EventKind::Ended { end: End::Rejected, why, next_step: String::new(), by: None };
                        self.record(&mut state, end).await?;
                    }
                },
                Next::WaitUntil(time) => {
                    // Short naps, so that a request to stop is heard.
                    let nap =
                        time.duration_since(now).min(self.config.poll).max(SignedDuration::from_millis(1));
                    self.ports.clock.sleep(nap).await;
                    if self.stop_requested(&state).await {
                        state = self.state(run).await?;
                    }
                }
                Next::Begin { effect, .. } if state.plan.is_shadow() => {
                    self.rehearse(&mut state, effect).await?;
                }
                Next::Begin { effect, attempt } => {
                    let decided = match before.decided(&state, effect, attempt, now) {
                        Some(decided) => Some(decided),
                        None if takes_more(&state, effect) && !self.passes(&mut state, effect).await? => None,
                        None => Box::pin(self.decide(&state, effect, attempt)).await,
                    };
                    if let Some(decided) = decided {
                        ahead = Box::pin(self.begin(&mut state, None, decided)).await?;
                    }
                }
                Next::Probe { effect, attempt } => self.probe(&mut state, effect, attempt).await?,
                // They are events, and were written above.
                Next::RequestApproval
                | Next::VoidApproval(_)
                | Next::ScheduleRetry { .. }
                | Next::StartRollback(_)
                | Next::Finish { .. } => {}
            }
        }
    }

    /// Asks the gate before an effect that takes more away. At a closed gate the run naps, and after a while goes back.
    async fn passes(&self, state: &mut RunState, effect: Effect) -> Result<bool, EngineError> {
        let (why, until, never) = match self.gate.allows(state, effect).await {
            Pass::Go => return Ok(true),
            Pass::Wait { why, until } => (why, until, false),
            Pass::Never(why) => (why, None, true),
        };
        let now = self.ports.clock.now();
        let waited = state.deferred.as_ref().map(|d| now.duration_since(d.since));
        if never || waited.is_some_and(|w| w >= self.config.freeze_patience) {
            let guard = GuardReport { passed: false, why, conditions: Vec::new(), facts: FactSet::default() };
            let refused = EventKind::Refused { effect, guard, foreign: false, transient: false };
            self.record(state, refused).await?;
            return Ok(false);
        }
        self.defer(state, why, until).await?;
        self.ports.clock.sleep(self.config.poll).await;
        if self.stop_requested(state).await {
            *state = self.state(&state.run).await?;
        }
        Ok(false)
    }

    /// Writes down what a run waits for, once for each reason.
    async fn defer(
        &self,
        state: &mut RunState,
        why: String,
        until: Option<jiff::Timestamp>,
    ) -> Result<(), EngineError> {
        if state.deferred.as_ref().is_some_and(|d| d.why == why) {
            return Ok(());
        }
        self.record(state, EventKind::Deferred { why, until }).await
    }

    /// Picks up a run whose engine process is gone: notes it, then drives it. Every open intent is probed first.
    pub async fn recover(&self, run: &RunId) -> Result<Rest, EngineError> {
        if !self.ports.journal.claim(run).await? {
            return Err(EngineError::Claimed(run.clone()));
        }
        let mut state = self.state(run).await?;
        if !state.status.is_terminal() {
            let open = state.effects.iter().find(|(_, s)| matches!(s, EffectState::Open { .. }));
            let why = match open {
                Some((effect, _)) => {
                    format!(
                        "its engine stopped while {} was under way: it is looked at, not repeated",
                        name(&state, *effect)
                    )
                }
                None => "its engine stopped between two steps".to_owned(),
            };
            self.record(&mut state, EventKind::Recovered { engine: self.config.engine.clone(), why }).await?;
        }
        self.drive(run).await
    }

    /// Takes one person's yes to the plan with this digest, after judging the plan again on fresh facts (rule 8).
    pub async fn approve(&self, run: &RunId, by: Actor) -> Result<RunState, EngineError> {
        let state = self.state(run).await?;
        self.take_yes(state, by, None).await
    }

    /// Takes the yes of the person to whom a ticket was given. The ticket is for one plan, for a while, and for once.
    pub async fn approve_by_ticket(&self, ticket: &Ticket) -> Result<RunState, EngineError> {
        let state = self.state(&ticket.run).await?;
        if ticket.digest != state.digest {
            let why = "the ticket is for another plan".to_owned();
            return Err(EngineError::WrongStatus { run: ticket.run.clone(), status: state.status, why });
        }
        self.take_yes(state, Actor::person(ticket.person.clone()), Some(ticket.nonce.clone())).await
    }

    async fn take_yes(
        &self,
        mut state: RunState,
        by: Actor,
        ticket: Option<String>,
    ) -> Result<RunState, EngineError> {
        let run = &state.run.clone();
        if state.status != Status::AwaitingApproval {
            let why = "only a run that awaits approval can be approved".to_owned();
            return Err(EngineError::WrongStatus { run: run.clone(), status: state.status, why });
        }
        if let Err(why) = self.gate.may_approve(&state.plan, &by) {
            return Err(EngineError::WrongStatus { run: run.clone(), status: state.status, why });
        }
        let look = self.look_again(&state, false, false).await;
        if !look.report.passed {
            let why = format!("void at approval: {}", look.report.why);
            self.record(
                &mut state,
                EventKind::Ended { end: End::Rejected, why, next_step: String::new(), by: None },
            )
            .await?;
            return Ok(state);
        }
        let digest = state.digest.clone();
        let expires_at = self.ports.clock.now() + self.config.approval_ttl;
        self.record(&mut state, EventKind::Approved { by, digest, expires_at, ticket }).await?;
        Ok(state)
    }

    /// Takes a person's no.
    pub async fn deny(&self, run: &RunId, by: &Actor, why: &str) -> Result<RunState, EngineError> {
        let mut state = self.state(run).await?;
        if !matches!(state.status, Status::Proposed | Status::AwaitingApproval | Status::Approved) {
            let why = "it has begun; `slurmedic cancel` stops it at its nearest safe point".to_owned();
            return Err(EngineError::WrongStatus { run: run.clone(), status: state.status, why });
        }
        let why = format!("denied by {by}: {why}");
        let (end, next_step, by) = (End::Rejected, String::new(), Some(by.clone()));
        self.record(&mut state, EventKind::Ended { end, why, next_step, by }).await?;
        Ok(state)
    }

    /// Finds out what became of an effect whose outcome nobody saw.
    async fn probe(&self, state: &mut RunState, effect: Effect, attempt: u32) -> Result<(), EngineError> {
        let context = state.contexts.get(&effect).cloned().unwrap_or_default();
        let look = self.look_before(state, effect).await;
        let found = {
            let ctx = Ctx { engine: self, state, effect, attempt, look: &look };
            match performer(state, effect) {
                Some(p) => p.probe(&ctx, &context).await,
                None => Performed::unclear("this release does not know the action"),
            }
        };
        let Performed { resolution, why, after, data } = found;
        let kind = EventKind::Resolved { effect, attempt, resolution, why, after, data };
        self.record_following(state, kind).await
    }

    /// Writes a note for people, such as progress of a wait.
    pub(crate) async fn note(&self, state: &RunState, text: String) {
        let mut state = state.clone();
        // A note that cannot be written is no reason to stop a wait: the next event will say what is wrong.
        let _ = self.record(&mut state, EventKind::Noted { text }).await;
    }
}

/// Names an effect for people.
pub(crate) fn name(state: &RunState, effect: Effect) -> String {
    match effect {
        Effect::Lock => "lock".to_owned(),
        Effect::Unlock => "unlock".to_owned(),
        Effect::Hold => "hold".to_owned(),
        Effect::Step(_) | Effect::Undo(_) => {
            state.step_of(effect).map_or_else(|| "unknown".to_owned(), |s| s.action.clone())
        }
    }
}
