//! Broken engines: the same exploration, with one decision of the engine replaced by a wrong one. Each is found, by
//! the rule that it breaks. So the rules are judged by the checker, and not only kept by the engine.

use crate::good;
use engine_core::condition::Truth;
use engine_core::ownership::{Change, NodeMark};
use engine_core::playbook::Playbook;
use engine_core::run::{
    Effect, EffectState, End, Event, EventKind, IllegalEvent, Next, OutcomeKind, RunState, fold, next,
};
use engine_playbook::checker::{Machine, Options, Rule, check_with};
use jiff::{SignedDuration, Timestamp};

/// Decides as if an effect stood otherwise than it does.
fn next_as_if(state: &RunState, now: Timestamp, effect: Effect, stands: EffectState) -> Next {
    let mut other = state.clone();
    other.effects.insert(effect, stands);
    next(&other, now)
}

/// One engine with one fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    SkipsTheProbe,
    RepeatsInsteadOfProbing,
    ForgetsIntentsInACrash,
    TakesUnknownForYes,
    TakesNoForYes,
    IgnoresPeople,
    GoesBackOverPeople,
    ResumesUnproven,
    ThinksAResetProvesItself,
    EndsWellUnproven,
    CallsHeldRolledBack,
    NeverHolds,
    ForgetsADrain,
    NeverLocks,
    NeverUnlocks,
    LooksAtPreconditionsOnce,
    IgnoresASilentNode,
    SkipsTheWait,
    StartsUnasked,
    TakesAnOldYes,
    NeedsOneOfTwo,
    RetriesForEver,
    WaitsForEver,
    WaitsForNothing,
    RepeatsAReset,
    IgnoresACancel,
}

impl Machine for Fault {
    fn next(&self, state: &RunState, now: Timestamp) -> Next {
        let real = next(state, now);
        match (self, &real) {
            (Self::SkipsTheProbe, Next::Probe { effect, .. })
                if matches!(state.effects.get(effect), Some(EffectState::Ambiguous { .. })) =>
            {
                next_as_if(state, now, *effect, EffectState::Applied)
            }
            (Self::RepeatsInsteadOfProbing, Next::Probe { effect, attempt })
                if matches!(state.effects.get(effect), Some(EffectState::Ambiguous { .. })) =>
            {
                Next::Begin { effect: *effect, attempt: attempt + 1 }
            }
            (Self::GoesBackOverPeople, _) if is_foreign(state) && state.rollback_why.is_none() => {
                Next::StartRollback("somebody else changed the node".to_owned())
            }
            (Self::ResumesUnproven, Next::Begin { effect: Effect::Hold, .. })
                if state.is_unproven() && !state.effects.contains_key(&Effect::Undo(0)) =>
            {
                Next::Begin { effect: Effect::Undo(0), attempt: 1 }
            }
            (Self::CallsHeldRolledBack, Next::Finish { end: End::Held, .. }) => finish(End::RolledBack),
            (Self::NeverHolds, Next::Begin { effect: effect @ Effect::Hold, .. }) => {
                next_as_if(state, now, *effect, EffectState::Applied)
            }
            (Self::NeverLocks, Next::Begin { effect: effect @ Effect::Lock, .. })
            | (Self::NeverUnlocks, Next::Begin { effect: effect @ Effect::Unlock, .. })
            | (Self::SkipsTheWait, Next::Begin { effect: effect @ Effect::Step(1), .. }) => {
                next_as_if(state, now, *effect, EffectState::Applied)
            }
            (Self::StartsUnasked, Next::RequestApproval | Next::AwaitApproval)
            | (Self::TakesAnOldYes, Next::VoidApproval(_)) => Next::Start,
            (Self::NeedsOneOfTwo, Next::AwaitApproval) if !state.approvals.is_empty() => Next::Start,
            (Self::RetriesForEver, Next::StartRollback(_) | Next::Finish { .. }) => {
                transient(state).map_or(real, |(effect, attempt)| Next::ScheduleRetry {
                    effect,
                    attempt: attempt + 1,
                    not_before: now.saturating_add(SignedDuration::from_secs(1)).unwrap(),
                    why: "once more".to_owned(),
                })
            }
            (Self::WaitsForEver, Next::Finish { .. }) => {
                Next::WaitUntil(now.saturating_add(SignedDuration::from_secs(1)).unwrap())
            }
            (Self::WaitsForNothing, Next::ScheduleRetry { .. }) => Next::WaitUntil(now),
            (Self::RepeatsAReset, Next::StartRollback(_))
                if matches!(state.effects.get(&Effect::Step(2)), Some(EffectState::Failed { .. })) =>
            {
                Next::Begin { effect: Effect::Step(2), attempt: 2 }
            }
            (Self::IgnoresACancel, _) if state.cancel.is_some() => {
                let mut other = state.clone();
                other.cancel = None;
                next(&other, now)
            }
            _ => real,
        }
    }

    fn apply(&self, state: &mut RunState, event: &Event) -> Result<(), IllegalEvent> {
        state.apply(event)?;
        match (self, &event.kind) {
            (
                Self::ThinksAResetProvesItself,
                EventKind::Finished { effect: Effect::Step(2), outcome, .. },
            ) if outcome.kind == OutcomeKind::Succeeded => {
                state.verified = true;
            }
            (Self::EndsWellUnproven, EventKind::Finished { effect: Effect::Step(3), outcome, .. })
                if outcome.kind == OutcomeKind::Permanent =>
            {
                state.effects.insert(Effect::Step(3), EffectState::Applied);
                state.disrupted = false;
            }
            (Self::ForgetsADrain, EventKind::Resolved { effect: Effect::Step(0), .. })
                if matches!(state.effects.get(&Effect::Step(0)), Some(EffectState::Unclear { .. })) =>
            {
                let why = "nobody can tell".to_owned();
                state
                    .effects
                    .insert(Effect::Step(0), EffectState::Failed { attempt: 1, transient: false, why });
            }
            _ => {}
        }
        Ok(())
    }

    fn fold(&self, events: &[Event]) -> Result<RunState, IllegalEvent> {
        if *self == Self::ForgetsIntentsInACrash {
            let mut state = fold(events)?;
            state.effects.retain(|_, s| !matches!(s, EffectState::Open { .. }));
            return Ok(state);
        }
        let (first, rest) = events.split_first().unwrap();
        let mut state = RunState::begin(first)?;
        for e in rest {
            self.apply(&mut state, e)?;
        }
        Ok(state)
    }

    fn change(&self, state: &RunState, seen: &NodeMark) -> Option<Change> {
        let real = state.last_seen.as_ref().and_then(|last| seen.change_since(last));
        match (self, real) {
            (Self::IgnoresPeople, Some(Change::Somebody(_)))
            | (Self::IgnoresASilentNode, Some(Change::Node(_))) => None,
            (_, real) => real,
        }
    }

    fn permits(&self, truth: Truth) -> bool {
        match self {
            Self::TakesUnknownForYes => truth != Truth::False,
            Self::TakesNoForYes => truth != Truth::Unknown,
            _ => truth == Truth::True,
        }
    }

    /// Two lines of defence keep an unproven node out of service: the decision and the action's own guard.
    fn asks_the_action(&self, state: &RunState) -> bool {
        *self != Self::ResumesUnproven || !state.is_unproven()
    }

    fn preconditions_are_due(&self, state: &RunState) -> bool {
        *self != Self::LooksAtPreconditionsOnce && !state.has_mutated()
    }
}

fn is_foreign(state: &RunState) -> bool {
    state.effects.values().any(|s| matches!(s, EffectState::Foreign { .. })) && !state.status.is_terminal()
}

fn transient(state: &RunState) -> Option<(Effect, u32)> {
    state.effects.iter().find_map(|(effect, s)| match s {
        EffectState::Failed { attempt, transient: true, .. } => Some((*effect, *attempt)),
        _ => None,
    })
}

fn finish(end: End) -> Next {
    Next::Finish { end, why: "so".to_owned(), next_step: String::new() }
}

/// The playbook with two people to ask.
fn for_two() -> Playbook {
    Playbook { approval: engine_core::playbook::ApprovalClass::Hitl2, ..good() }
}

#[test]
fn every_broken_engine_is_found_by_its_rule() {
    use Fault::*;
    let table = [
        (SkipsTheProbe, Rule::Intent),
        (RepeatsInsteadOfProbing, Rule::Intent),
        (ForgetsIntentsInACrash, Rule::Intent),
        (TakesUnknownForYes, Rule::Unknown),
        (IgnoresPeople, Rule::Person),
        (GoesBackOverPeople, Rule::Person),
        (ResumesUnproven, Rule::Unverified),
        (ThinksAResetProvesItself, Rule::Unverified),
        (EndsWellUnproven, Rule::Unverified),
        (CallsHeldRolledBack, Rule::WayBack),
        (NeverHolds, Rule::WayBack),
        (ForgetsADrain, Rule::WayBack),
        (NeverLocks, Rule::Lock),
        (NeverUnlocks, Rule::Lock),
        (TakesNoForYes, Rule::Guard),
        (LooksAtPreconditionsOnce, Rule::Guard),
        (IgnoresASilentNode, Rule::Guard),
        (SkipsTheWait, Rule::Guard),
        (StartsUnasked, Rule::Approval),
        (TakesAnOldYes, Rule::Approval),
        (NeedsOneOfTwo, Rule::Approval),
        (RetriesForEver, Rule::End),
        (WaitsForEver, Rule::End),
        (WaitsForNothing, Rule::End),
        (RepeatsAReset, Rule::End),
        (IgnoresACancel, Rule::Promise),
    ];
    println!("{:<28} {:>4}  {:>10}", "engine", "rule", "situations");
    for (fault, rule) in table {
        let playbook = if fault == NeedsOneOfTwo { for_two() } else { good() };
        let refusal = match check_with(&playbook, &fault, Options::default()) {
            Ok(report) => panic!("{fault:?} was not found: {report}"),
            Err(refusal) => refusal,
        };
        assert_eq!(refusal.rule(), Some(rule), "{fault:?}: {refusal}");
        let number = if rule.number() > 0 { rule.number().to_string() } else { "-".to_owned() };
        println!("{:<28} {number:>4}  {:>10}", format!("{fault:?}"), refusal.situations);
    }
}
