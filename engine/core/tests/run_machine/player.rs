//! The interpreter that stands in for the executor, and everything the adversary may do at each point.

use crate::judge::Judge;
use crate::plans::{begun, drained, event, in_service, start};
use engine_core::action::ServiceEffect;
use engine_core::fact::FactSet;
use engine_core::ownership::NodeMark;
use engine_core::plan::{Plan, PlannedStep};
use engine_core::run::{
    Actor, Effect, End, Event, EventKind, GuardReport, Next, Outcome, OutcomeKind, Resolution, RunState,
    fold, next,
};
use jiff::{SignedDuration, Timestamp};

/// What the adversary does next.
#[derive(Debug, Clone)]
pub(crate) enum Move {
    /// The event comes about.
    Write(EventKind),
    /// Time goes by.
    Later(Timestamp),
    /// A person cancels after the engine decided and before its event is written.
    LateCancel(EventKind),
}

/// A game: one run as far as it went.
#[derive(Debug, Clone)]
pub(crate) struct Game {
    pub(crate) state: RunState,
    pub(crate) judge: Judge,
    pub(crate) now: Timestamp,
}

pub(crate) fn guard(passed: bool) -> GuardReport {
    GuardReport { passed, why: "guard".to_owned(), conditions: Vec::new(), facts: FactSet::default() }
}

pub(crate) fn cancel() -> EventKind {
    EventKind::CancelRequested { by: Actor::person("jon"), why: "stop".to_owned() }
}

pub(crate) fn intent(state: &RunState, effect: Effect, attempt: u32) -> EventKind {
    EventKind::Intent {
        effect,
        attempt,
        action: state.step_of(effect).map_or_else(|| "mark".to_owned(), |s| s.action.clone()),
        guard: guard(true),
        before: state.last_seen.clone(),
        context: engine_core::run::Load::default(),
    }
}

pub(crate) fn refused(effect: Effect, foreign: bool, transient: bool) -> EventKind {
    EventKind::Refused { effect, guard: guard(false), foreign, transient }
}

pub(crate) fn finished(
    effect: Effect,
    attempt: u32,
    kind: OutcomeKind,
    after: Option<NodeMark>,
) -> EventKind {
    let mut outcome = Outcome::new(kind, "outcome");
    outcome.after = after;
    EventKind::Finished { effect, attempt, outcome }
}

pub(crate) fn resolved(
    effect: Effect,
    attempt: u32,
    resolution: Resolution,
    after: Option<NodeMark>,
) -> EventKind {
    let why = "probe".to_owned();
    EventKind::Resolved { effect, attempt, resolution, why, after, data: engine_core::run::Load::default() }
}

/// How the node may look after an effect: as it should, or nobody read it back.
fn marks_after(state: &RunState, effect: Effect) -> Vec<Option<NodeMark>> {
    let service = state.step_of(effect).and_then(PlannedStep::spec).map(|s| s.service);
    match (effect, service) {
        (Effect::Hold, _) => vec![Some(drained("held")), None],
        (_, Some(ServiceEffect::TakesOut)) => vec![Some(drained("alert")), None],
        (_, Some(ServiceEffect::GivesBack)) => vec![Some(in_service()), None],
        _ => vec![None],
    }
}

impl Game {
    pub(crate) fn new(plan: &Plan) -> (Self, Vec<Event>) {
        let (state, events) = begun(plan);
        (Self { judge: Judge::new(plan), state, now: start() }, events)
    }

    /// Lists everything that may come next, given what the engine does by itself; empty when the run is over.
    pub(crate) fn moves(&self) -> Vec<Move> {
        use Move::{LateCancel, Later, Write};
        let state = &self.state;
        let mut out: Vec<Move> = match next(state, self.now) {
            Next::Over(_) => return Vec::new(),
            Next::RequestApproval => vec![Write(EventKind::ApprovalRequested {
                people: state.plan.people(),
                expires_at: self.now + SignedDuration::from_hours(12),
            })],
            Next::AwaitApproval => {
                let mut out: Vec<Move> = ["ada", "bob"]
                    .into_iter()
                    .filter(|name| !state.approvals.contains_key(*name))
                    .map(|name| {
                        Write(EventKind::Approved {
                            by: Actor::person(name),
                            digest: state.digest.clone(),
                            expires_at: self.now + SignedDuration::from_mins(15),
                            ticket: None,
                        })
                    })
                    .collect();
                out.push(Write(crate::plans::ended(End::Rejected)));
                out.extend(state.approval_expires_at.map(Later));
                out
            }
            Next::VoidApproval(why) => vec![Write(EventKind::ApprovalVoided { why })],
            Next::Start => {
                let mut out = vec![Write(EventKind::Started { engine: "e1".to_owned() })];
                // The engine was away until the approvals had run out, once.
                if state.plan.people() > 0 && self.judge.voided == 0 {
                    out.push(Later(self.now + SignedDuration::from_mins(20)));
                }
                out
            }
            Next::Begin { effect, attempt } => vec![
                Write(intent(state, effect, attempt)),
                Write(refused(effect, true, false)),
                Write(refused(effect, false, true)),
                Write(refused(effect, false, false)),
            ],
            // An intent without outcome: either the engine lives and the outcome comes, or it died and the next one
            // probes. The fold sees no difference between the two until the event comes.
            Next::Probe { effect, attempt } => {
                let mut out = Vec::new();
                for after in marks_after(state, effect) {
                    if self.judge.is_open(effect) {
                        out.push(Write(finished(effect, attempt, OutcomeKind::Succeeded, after.clone())));
                    }
                    out.push(Write(resolved(effect, attempt, Resolution::Applied, after)));
                }
                if self.judge.is_open(effect) {
                    for kind in [
                        OutcomeKind::Transient,
                        OutcomeKind::Permanent,
                        OutcomeKind::Ambiguous,
                        OutcomeKind::Foreign,
                    ] {
                        out.push(Write(finished(effect, attempt, kind, None)));
                    }
                }
                for r in [Resolution::NotApplied, Resolution::Unclear, Resolution::Foreign] {
                    out.push(Write(resolved(effect, attempt, r, None)));
                }
                out
            }
            Next::ScheduleRetry { effect, attempt, not_before, why } => {
                vec![Write(EventKind::RetryScheduled { effect, attempt, not_before, why })]
            }
            Next::WaitUntil(t) => vec![Later(t)],
            Next::StartRollback(why) => vec![Write(EventKind::RollbackStarted { why })],
            Next::Finish { end, why, next_step } => {
                vec![Write(EventKind::Ended { end, why, next_step, by: None })]
            }
        };
        if state.cancel.is_none() {
            let late: Vec<Move> = out
                .iter()
                .filter_map(|m| if let Write(k) = m { Some(LateCancel(k.clone())) } else { None })
                .collect();
            // One way to be late is enough where several events differ in their outcome only.
            let deciding = matches!(
                next(state, self.now),
                Next::Begin { .. }
                    | Next::StartRollback(_)
                    | Next::Finish { .. }
                    | Next::ScheduleRetry { .. }
                    | Next::Start
            );
            if deciding {
                out.extend(late.into_iter().take(1));
            }
            out.push(Write(cancel()));
        }
        out
    }

    /// Makes a move. The judge looks at each event, and a crash at this point must change nothing.
    pub(crate) fn play(&mut self, mv: &Move, events: &mut Vec<Event>) {
        match mv {
            Move::Later(t) => {
                assert!(*t > self.now, "a wait that is over already would be an endless one");
                self.now = *t;
            }
            Move::Write(kind) => self.write(kind, events, false),
            Move::LateCancel(kind) => {
                self.write(&cancel(), events, true);
                self.write(kind, events, false);
            }
        }
    }

    fn write(&mut self, kind: &EventKind, events: &mut Vec<Event>, late: bool) {
        let e = event(self.state.seq + 1, self.now, kind.clone());
        events.push(e);
        let e = &events[events.len() - 1];
        if let Err(illegal) = self.state.apply(e) {
            panic!("what the engine was told to do may not follow: {illegal}\n{}", tell(events));
        }
        if let Err(broken) = self.judge.hear(e, late) {
            panic!("{broken}\n{}", tell(events));
        }
        if let Err(broken) = self.judge.agrees(&self.state) {
            panic!("{broken}\n{}", tell(events));
        }
    }

    /// Drops the state and folds the events anew, as the next engine process would.
    pub(crate) fn crash(&self, events: &[Event]) {
        let again = match fold(events) {
            Ok(again) => again,
            Err(e) => panic!("{e}\n{}", tell(events)),
        };
        assert_eq!(again, self.state, "a restart sees another state\n{}", tell(events));
        assert_eq!(next(&again, self.now), next(&self.state, self.now), "a restart decides otherwise");
    }
}

/// Tells a run in a few words per event, for failures.
pub(crate) fn tell(events: &[Event]) -> String {
    let mut out = String::new();
    for e in events {
        let detail = match &e.kind {
            EventKind::Proposed { plan, .. } => {
                let names = |s: &[PlannedStep]| {
                    s.iter().map(|s| format!("{}x{}", s.action, s.attempts)).collect::<Vec<_>>().join(", ")
                };
                format!(
                    "steps {}; rollback {}; ends {:?}",
                    names(&plan.steps),
                    names(&plan.rollback),
                    plan.ends
                )
            }
            EventKind::Intent { effect, attempt, .. } | EventKind::RetryScheduled { effect, attempt, .. } => {
                format!("{effect:?} {attempt}")
            }
            EventKind::Refused { effect, foreign, transient, .. } => {
                format!("{effect:?} foreign={foreign} transient={transient}")
            }
            EventKind::Finished { effect, outcome, .. } => {
                format!("{effect:?} {:?} read_back={}", outcome.kind, outcome.after.is_some())
            }
            EventKind::Resolved { effect, resolution, after, .. } => {
                format!("{effect:?} {resolution:?} read_back={}", after.is_some())
            }
            EventKind::Ended { end, why, .. } => format!("{end:?}: {why}"),
            _ => String::new(),
        };
        out.push_str(&format!("{:3} {} {detail}\n", e.seq, e.kind.word()));
    }
    out
}
