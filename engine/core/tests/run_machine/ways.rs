//! Single ways through a run that once went wrong, or that tell a rule best.

use crate::plans::{begun, comment, drain_reset, drained, event, in_service, later, plan, step, step_with};
use crate::player::{cancel, finished, guard, intent, refused, resolved};
use engine_core::plan::Plan;
use engine_core::playbook::{ApprovalClass, Ends};
use engine_core::run::{Effect, End, EventKind, Next, OutcomeKind, Resolution, RunState, next};

/// Plays events, each with the next number.
struct Way {
    state: RunState,
}

impl Way {
    fn new(plan: &Plan) -> Self {
        let mut way = Self { state: begun(plan).0 };
        way.write(EventKind::Started { engine: "e1".to_owned() });
        way.done(Effect::Lock);
        way
    }

    fn write(&mut self, kind: EventKind) {
        let e = event(self.state.seq + 1, later(i64::try_from(self.state.seq).unwrap()), kind);
        self.state.apply(&e).unwrap();
    }

    fn may_write(&self, kind: EventKind) -> bool {
        self.state.clone().apply(&event(self.state.seq + 1, later(0), kind)).is_ok()
    }

    fn begin(&mut self, effect: Effect) {
        let kind = intent(&self.state, effect, 1);
        self.write(kind);
    }

    /// Begins an effect and lets it come out well, with the node read back.
    fn done(&mut self, effect: Effect) {
        self.begin(effect);
        let after = match self.state.step_of(effect).map(|s| s.action.as_str()) {
            Some("slurm.drain") => Some(drained("alert")),
            Some("slurm.resume") => Some(in_service()),
            _ => None,
        };
        self.write(finished(effect, 1, OutcomeKind::Succeeded, after));
    }

    fn back(&mut self) {
        self.write(EventKind::RollbackStarted { why: "so".to_owned() });
    }

    fn next(&self) -> Next {
        next(&self.state, later(900))
    }

    fn ends_as(&self) -> Option<End> {
        if let Next::Finish { end, .. } = self.next() { Some(end) } else { None }
    }
}

fn begins(effect: Effect) -> Next {
    Next::Begin { effect, attempt: 1 }
}

/// A cancel that comes after the last step is no cancel: the healthy node in service is not drained again.
#[test]
fn a_cancel_after_the_last_step_changes_nothing() {
    let mut way = Way::new(&drain_reset(ApprovalClass::Auto));
    (0..6).for_each(|i| way.done(Effect::Step(i)));
    way.write(cancel());
    assert_eq!(way.next(), begins(Effect::Unlock));
    way.done(Effect::Unlock);
    assert_eq!(way.ends_as(), Some(End::Succeeded));
}

/// A step that fails after the resume does not lead to a second resume, nor to a drain.
#[test]
fn what_the_forward_way_took_back_is_not_taken_back_again() {
    let steps = vec![step("slurm.drain"), step("slurm.resume"), comment()];
    let mut way = Way::new(&plan(steps, vec![step("slurm.resume")], ApprovalClass::Auto, Ends::InService));
    way.done(Effect::Step(0));
    way.done(Effect::Step(1));
    way.write(refused(Effect::Step(2), false, false));
    way.back();
    assert_eq!(way.next(), begins(Effect::Unlock));
    way.done(Effect::Unlock);
    assert_eq!(way.ends_as(), Some(End::RolledBack));
}

/// Rule 6: a drain that nobody read back, or of which nobody can say whether it took effect, is not "rolled back".
#[test]
fn a_drain_that_may_be_there_is_held() {
    for resolution in [Resolution::Applied, Resolution::Unclear] {
        let steps = vec![step("slurm.drain"), step("slurm.wait_idle")];
        let mut way = Way::new(&plan(steps, vec![], ApprovalClass::Auto, Ends::Drained));
        way.begin(Effect::Step(0));
        way.write(resolved(Effect::Step(0), 1, resolution, None));
        assert!(way.state.our_drain.is_none());
        if resolution == Resolution::Applied {
            way.write(refused(Effect::Step(1), false, false));
        }
        way.back();
        assert_eq!(way.next(), begins(Effect::Hold), "{resolution:?}");
        way.begin(Effect::Unlock);
        way.write(finished(Effect::Unlock, 1, OutcomeKind::Succeeded, None));
        assert!(!way.may_write(crate::plans::ended(End::RolledBack)), "{resolution:?}");
    }
}

/// Rule 5: on the way back after a reset the resume is not even begun, and the fold refuses its intent.
#[test]
fn nothing_resumes_an_unproven_node() {
    let mut way = Way::new(&drain_reset(ApprovalClass::Auto));
    (0..4).for_each(|i| way.done(Effect::Step(i)));
    way.write(refused(Effect::Step(4), false, false));
    way.back();
    assert!(!way.may_write(intent(&way.state, Effect::Undo(0), 1)));
    assert_eq!(way.next(), begins(Effect::Hold));
    way.done(Effect::Hold);
    way.done(Effect::Unlock);
    assert_eq!(way.ends_as(), Some(End::Held));
    assert!(!way.may_write(crate::plans::ended(End::RolledBack)));
}

/// A reset of which nobody saw the outcome is looked at and never begun again, whatever number of attempts a plan has.
#[test]
fn a_reset_is_never_begun_twice() {
    let mut plan = drain_reset(ApprovalClass::Auto);
    plan.steps[3] = step_with("dcgm.reset_gpu", 9);
    let mut way = Way::new(&plan);
    (0..3).for_each(|i| way.done(Effect::Step(i)));
    way.begin(Effect::Step(3));
    assert_eq!(way.next(), Next::Probe { effect: Effect::Step(3), attempt: 1 });
    assert!(!way.may_write(intent(&way.state, Effect::Step(3), 2)));
    way.write(resolved(Effect::Step(3), 1, Resolution::NotApplied, None));
    assert!(matches!(way.next(), Next::StartRollback(_)));
    let again = EventKind::RetryScheduled {
        effect: Effect::Step(3),
        attempt: 2,
        not_before: later(1_000),
        why: "again".to_owned(),
    };
    assert!(!way.may_write(again));
}

/// Rule 3: what the tools said before a reset, or while it went on, is not what they say of the GPU now.
#[test]
fn a_reset_makes_old_what_was_seen_before_it_came_out() {
    let mut way = Way::new(&drain_reset(ApprovalClass::Auto));
    (0..3).for_each(|i| way.done(Effect::Step(i)));
    assert_eq!(way.state.last_disruption_at, None);
    way.begin(Effect::Step(3));
    let begun = way.state.last_event_at;
    assert_eq!(way.state.last_disruption_at, Some(begun));
    way.write(finished(Effect::Step(3), 1, OutcomeKind::Ambiguous, None));
    let out = way.state.last_event_at;
    assert!(out > begun && way.state.last_disruption_at == Some(out));
    way.write(resolved(Effect::Step(3), 1, Resolution::Applied, None));
    let known = way.state.last_event_at;
    assert!(known > out && way.state.last_disruption_at == Some(known));
    way.done(Effect::Step(4));
    assert_eq!(way.state.last_disruption_at, Some(known));
}

/// A plan cannot call a reset milder than the catalogue does.
#[test]
fn the_catalogue_decides_what_is_disruptive() {
    let mut plan = drain_reset(ApprovalClass::Auto);
    plan.steps[3].effect = engine_core::action::EffectClass::Read;
    let mut way = Way::new(&plan);
    (0..4).for_each(|i| way.done(Effect::Step(i)));
    assert!(way.state.disrupted && !way.state.verified && way.state.has_mutated());
}

/// Rule 4: after somebody else's change nothing but our lock is given back, and no other end may be written.
#[test]
fn after_somebody_elses_change_only_the_lock_is_given_back() {
    let mut way = Way::new(&drain_reset(ApprovalClass::Auto));
    way.done(Effect::Step(0));
    way.write(refused(Effect::Step(1), true, false));
    assert_eq!(way.next(), begins(Effect::Unlock));
    assert!(!way.may_write(intent(&way.state, Effect::Step(2), 1)));
    assert!(!way.may_write(EventKind::RollbackStarted { why: "so".to_owned() }));
    way.done(Effect::Unlock);
    assert_eq!(way.ends_as(), Some(End::HandedOver));
    assert!(!way.may_write(crate::plans::ended(End::Held)));
    assert!(!way.may_write(crate::plans::ended(End::Rejected)));
}

/// Rule 4 on the way back: a node that somebody else changed is not even marked as held.
#[test]
fn a_foreign_change_on_the_way_back_stops_the_hold_too() {
    let mut way = Way::new(&drain_reset(ApprovalClass::Auto));
    way.done(Effect::Step(0));
    way.back();
    assert!(way.may_write(intent(&way.state, Effect::Hold, 1)));
    way.write(refused(Effect::Undo(0), true, false));
    assert!(!way.may_write(intent(&way.state, Effect::Hold, 1)));
    assert_eq!(way.next(), begins(Effect::Unlock));
}

/// Rule 1 in the fold itself: while an effect has not come out nothing else is begun or refused, no way back begins
/// and no end is written; steps follow each other in their order.
#[test]
fn one_thing_at_a_time_and_in_order() {
    let mut way = Way::new(&drain_reset(ApprovalClass::Auto));
    for later_step in [Effect::Step(1), Effect::Step(3), Effect::Step(5), Effect::Step(6), Effect::Undo(0)] {
        assert!(!way.may_write(intent(&way.state, later_step, 1)), "{later_step:?}");
        assert!(!way.may_write(refused(later_step, false, false)), "{later_step:?}");
    }
    way.begin(Effect::Step(0));
    for ambiguous in [false, true] {
        if ambiguous {
            way.write(finished(Effect::Step(0), 1, OutcomeKind::Ambiguous, None));
        }
        assert!(matches!(way.next(), Next::Probe { effect: Effect::Step(0), attempt: 1 }));
        for other in [Effect::Step(0), Effect::Step(1), Effect::Unlock] {
            assert!(!way.may_write(intent(&way.state, other, 1)), "{other:?}");
            assert!(!way.may_write(refused(other, false, true)), "{other:?}");
        }
        assert!(!way.may_write(EventKind::RollbackStarted { why: "so".to_owned() }));
    }
    way.write(resolved(Effect::Step(0), 1, Resolution::Applied, Some(drained("alert"))));
    way.back();
    way.begin(Effect::Unlock);
    for end in [End::Stuck, End::Held, End::RolledBack, End::HandedOver, End::Succeeded, End::Rejected] {
        assert!(!way.may_write(crate::plans::ended(end)), "{end:?} while the lock is being given back");
    }
    way.write(finished(Effect::Unlock, 1, OutcomeKind::Succeeded, None));
    assert!(way.may_write(crate::plans::ended(End::Stuck)));
}

/// A drain that somebody overrode in the same moment was ours for that moment: the run does not end as if it had
/// changed nothing.
#[test]
fn a_change_that_was_overridden_at_once_still_counts() {
    let mut way = Way::new(&drain_reset(ApprovalClass::Auto));
    way.begin(Effect::Step(0));
    way.write(finished(Effect::Step(0), 1, OutcomeKind::Foreign, None));
    assert!(way.state.has_mutated());
    let mut refused_at_once = Way::new(&drain_reset(ApprovalClass::Auto));
    refused_at_once.write(refused(Effect::Step(0), true, false));
    assert!(!refused_at_once.state.has_mutated());
}

/// Rule 13: no retry after a failure that is for good, beyond the number of attempts, or of what did not fail.
#[test]
fn retries_are_counted_and_only_for_what_may_help() {
    let retry = |attempt| EventKind::RetryScheduled {
        effect: Effect::Step(0),
        attempt,
        not_before: later(1_000),
        why: "again".to_owned(),
    };
    let mut plan = drain_reset(ApprovalClass::Auto);
    plan.steps[0] = step_with("slurm.drain", u32::MAX);
    let mut way = Way::new(&plan);
    assert!(!way.may_write(retry(1)));
    for attempt in 1..10 {
        way.write(refused(Effect::Step(0), false, true));
        assert!(!way.may_write(retry(attempt)) && !way.may_write(retry(attempt + 2)));
        way.write(retry(attempt + 1));
    }
    way.write(refused(Effect::Step(0), false, true));
    assert!(!way.may_write(retry(11)), "ten attempts are the most, whatever a plan says");
    assert_eq!(way.next(), begins(Effect::Unlock));
    let mut way = Way::new(&plan);
    way.write(refused(Effect::Step(0), false, false));
    assert!(!way.may_write(retry(2)));
}

/// The lock is the first thing taken and the last given back: nothing is done without it or after it, and a run does
/// not end while it may be there.
#[test]
fn nothing_is_done_outside_the_lock() {
    let mut way = Way::new(&drain_reset(ApprovalClass::Auto));
    assert!(!way.may_write(crate::plans::ended(End::Rejected)), "the lock is still there");
    way.done(Effect::Unlock);
    assert!(!way.may_write(intent(&way.state, Effect::Step(0), 1)), "the lock is gone");
    let (mut state, _) = begun(&drain_reset(ApprovalClass::Auto));
    state.apply(&event(2, later(0), EventKind::Started { engine: "e1".to_owned() })).unwrap();
    for effect in [Effect::Step(0), Effect::Unlock, Effect::Hold, Effect::Undo(0)] {
        assert!(state.clone().apply(&event(3, later(1), intent(&state, effect, 1))).is_err(), "{effect:?}");
        assert!(
            state.clone().apply(&event(3, later(1), refused(effect, false, false))).is_err(),
            "{effect:?}"
        );
    }
    let mut unguarded = intent(&state, Effect::Lock, 1);
    if let EventKind::Intent { guard: g, .. } = &mut unguarded {
        *g = guard(false);
    }
    assert!(state.apply(&event(3, later(1), unguarded)).is_err(), "its guard did not pass");
}

/// Time at the edge of the calendar is no reason to panic.
#[test]
fn a_retry_at_the_end_of_time_does_not_panic() {
    let (mut state, _) = begun(&drain_reset(ApprovalClass::Auto));
    let max = jiff::Timestamp::MAX;
    state.apply(&event(2, max, EventKind::Started { engine: "e1".to_owned() })).unwrap();
    state.apply(&event(3, max, refused(Effect::Lock, false, true))).unwrap();
    assert!(matches!(next(&state, max), Next::ScheduleRetry { .. }));
}
