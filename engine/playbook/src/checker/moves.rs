//! Everything that can happen next: what the engine decides, how the world answers it, and what people do meanwhile.
//!
//! People and the node change things right before the engine looks, or right after it acted: a change at any other
//! moment is seen at the next look just the same. Between a look and the write that follows it nobody comes in, jobs
//! on a node in service excepted.

mod outcomes;

use super::machine::Machine;
use super::node::Looked;
use super::situation::Situation;
use super::subject::{Before, Subject, views};
use super::world::{MEDDLINGS, Meddling, World};
use engine_core::condition::Truth;
use engine_core::fact::FactSet;
use engine_core::run::{Actor, Effect, End, EventKind, GuardReport, Next, OutcomeKind, Resolution};
use jiff::{SignedDuration, Timestamp};

/// What stands against an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Obstacle {
    /// A person changed the node right before the look.
    Meddled(Meddling),
    /// Somebody else's change shows that the model did not make, such as a drain of ours that nobody knew of.
    Change,
    /// The node does not answer, or answers again, since the run last saw it.
    Node,
    /// Slurm could not be read.
    Unreadable,
    /// A precondition.
    Preconditions(Truth),
    /// The step's own condition.
    When(Truth),
    /// The action's own guard, whatever the node.
    Own(&'static str),
    /// The action's own guard may say no.
    Chance(&'static str),
}

/// A job on the node when a step begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobThere {
    No,
    Runs,
    Starts,
}

/// What a move is, for the trace.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Told {
    Asks,
    Approves(&'static str),
    VoidAtApproval(Obstacle),
    Denies,
    RequestLapses,
    YesLapses,
    Voids,
    Starts,
    NotYet,
    NeverAllowed,
    Begins { effect: Effect, attempt: u32, job: JobThere, silent: bool },
    Refuses { effect: Effect, obstacle: Obstacle },
    Comes { effect: Effect, kind: OutcomeKind, took: bool },
    Meddles { effect: Effect, probed: bool },
    Dies { effect: Effect, took: bool },
    Probed { effect: Effect, resolution: Resolution },
    Retries { effect: Effect, attempt: u32 },
    Waits,
    GoesBack(String),
    Ends(End, String),
    Cancels,
}

/// One thing that can happen.
#[derive(Debug, Clone)]
pub(super) struct Move {
    pub(super) told: Told,
    pub(super) events: Vec<EventKind>,
    /// The node afterwards.
    pub(super) world: World,
    /// An effect that takes place now, whether the engine hears of it or not.
    pub(super) acts: Option<Effect>,
    pub(super) took: Option<bool>,
    pub(super) later: Option<Timestamp>,
    /// A person cancels after the engine decided and before its event is written.
    pub(super) late: bool,
    pub(super) looked: Option<Looked>,
    /// What a person did to the node right before it.
    pub(super) person: Option<Meddling>,
}

pub(super) fn cancel() -> EventKind {
    EventKind::CancelRequested { by: Actor::person("jon"), why: "stop".to_owned() }
}

/// Lists what can happen next; empty when the run is over.
pub(super) fn moves(subject: &Subject<'_>, s: &Situation, machine: &impl Machine, next: &Next) -> Vec<Move> {
    let state = &s.state;
    let mut out = Moves { subject, s, list: Vec::new() };
    match next {
        Next::Over(_) => return Vec::new(),
        Next::RequestApproval => out.event(
            Told::Asks,
            EventKind::ApprovalRequested {
                people: state.plan.people(),
                expires_at: later(s.now, SignedDuration::from_hours(12)),
            },
        ),
        Next::AwaitApproval => out.approvals(machine),
        Next::VoidApproval(why) => out.event(Told::Voids, EventKind::ApprovalVoided { why: why.clone() }),
        Next::Start => out.start(),
        Next::Begin { effect, attempt } => out.begin(machine, *effect, *attempt),
        Next::Probe { effect, attempt } => out.open(*effect, *attempt),
        Next::ScheduleRetry { effect, attempt, not_before, why } => out.event(
            Told::Retries { effect: *effect, attempt: *attempt },
            EventKind::RetryScheduled {
                effect: *effect,
                attempt: *attempt,
                not_before: *not_before,
                why: why.clone(),
            },
        ),
        Next::WaitUntil(t) => {
            out.add(Told::Waits, Vec::new()).later = Some(*t);
        }
        Next::StartRollback(why) => {
            out.event(Told::GoesBack(why.clone()), EventKind::RollbackStarted { why: why.clone() });
        }
        Next::Finish { end, why, next_step } => out.event(
            Told::Ends(*end, why.clone()),
            EventKind::Ended { end: *end, why: why.clone(), next_step: next_step.clone(), by: None },
        ),
    }
    if state.cancel.is_none() {
        out.cancels(next);
    }
    out.list
}

/// Collects moves.
pub(super) struct Moves<'a> {
    pub(super) subject: &'a Subject<'a>,
    pub(super) s: &'a Situation,
    pub(super) list: Vec<Move>,
}

impl Moves<'_> {
    pub(super) fn add(&mut self, told: Told, events: Vec<EventKind>) -> &mut Move {
        let at = self.list.len();
        self.list.push(Move {
            told,
            events,
            world: self.s.world,
            acts: None,
            took: self.s.took,
            later: None,
            late: false,
            looked: None,
            person: None,
        });
        &mut self.list[at]
    }

    fn event(&mut self, told: Told, kind: EventKind) {
        self.add(told, vec![kind]);
    }

    /// A cancel, now, or in time for the engine's decision to be written behind it. An intent is never written behind
    /// a cancel: it is written only if nobody wrote meanwhile.
    fn cancels(&mut self, next: &Next) {
        let decided = matches!(
            next,
            Next::Begin { .. }
                | Next::StartRollback(_)
                | Next::Finish { .. }
                | Next::ScheduleRetry { .. }
                | Next::Start
        );
        let behind = self.list.iter().find(|m| {
            let slips = |k: &EventKind| !matches!(k, EventKind::Intent { .. });
            decided && m.later.is_none() && !m.events.is_empty() && m.events.iter().all(slips)
        });
        if let Some(m) = behind.cloned() {
            self.list.push(Move { late: true, ..m });
        }
        self.event(Told::Cancels, cancel());
    }

    /// The state of the plan's conditions at an approval: judged again (rule 8).
    fn approvals(&mut self, machine: &impl Machine) {
        let (s, world) = (self.s, self.s.world);
        for name in ["ada", "bob"] {
            if s.state.approvals.contains_key(name) {
                continue;
            }
            let kind = EventKind::Approved {
                by: Actor::person(name),
                digest: s.state.digest.clone(),
                expires_at: later(s.now, SignedDuration::from_mins(15)),
                ticket: None,
            };
            self.event(Told::Approves(name), kind);
        }
        let rejected = || ended(End::Rejected, "void at approval");
        let mark = |world: World| world.mark(false);
        for meddling in MEDDLINGS {
            let Some(changed) = world.after(meddling) else { continue };
            if machine.change(&s.state, &mark(changed)).is_some() {
                let mv = self.add(Told::VoidAtApproval(Obstacle::Meddled(meddling)), vec![rejected()]);
                mv.world = changed;
                mv.person = Some(meddling);
            }
        }
        let verdicts = self.subject.verdicts(Before::Run, world, false);
        for truth in [Truth::False, Truth::Unknown] {
            if views(world).iter().any(|jobs| verdicts.at(*jobs).contains(truth)) {
                self.event(Told::VoidAtApproval(Obstacle::Preconditions(truth)), rejected());
            }
        }
        self.event(Told::Denies, ended(End::Rejected, "denied"));
        // The first yes runs out while a second one is waited for, once.
        let given = s.state.approvals.len();
        if given > 0 && usize::from(s.state.valid_approvals(s.now)) == given {
            self.add(Told::YesLapses, Vec::new()).later = Some(later(s.now, SignedDuration::from_mins(20)));
        }
        if let Some(t) = s.state.approval_expires_at {
            self.add(Told::RequestLapses, Vec::new()).later = Some(t);
        }
    }

    fn start(&mut self) {
        self.event(Told::Starts, EventKind::Started { engine: "e1".to_owned() });
        self.not_yet();
        self.event(Told::NeverAllowed, ended(End::Rejected, "policy"));
        // The engine was away until the approvals had run out, once.
        if self.s.state.plan.people() > 0 && self.s.judge.voided == 0 {
            self.add(Told::YesLapses, Vec::new()).later =
                Some(later(self.s.now, SignedDuration::from_mins(20)));
        }
    }

    /// A budget, a breaker or a pause stands in the way for now.
    pub(super) fn not_yet(&mut self) {
        if self.s.state.deferred.is_none() {
            self.event(Told::NotYet, EventKind::Deferred { why: "not yet".to_owned(), until: None });
        }
    }
}

fn ended(end: End, why: &str) -> EventKind {
    EventKind::Ended { end, why: why.to_owned(), next_step: String::new(), by: None }
}

pub(super) fn guard(passed: bool) -> GuardReport {
    GuardReport { passed, why: String::new(), conditions: Vec::new(), facts: FactSet::default() }
}

fn later(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}
