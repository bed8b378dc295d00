//! What an effect is: by the catalogue of actions alone, without a word of the fold.

use engine_core::action::{EffectClass, ServiceEffect};
use engine_core::plan::{MAX_ATTEMPTS, Plan, PlannedStep};
use engine_core::run::Effect;

/// Attempts to take the lock, to write why a node is held, and to give the lock back.
const MARK_ATTEMPTS: u32 = 4;

/// The step behind a forward or backward effect.
pub(super) fn step_of(plan: &Plan, effect: Effect) -> Option<&PlannedStep> {
    match effect {
        Effect::Step(i) => plan.steps.get(i),
        Effect::Undo(i) => plan.rollback.get(i),
        Effect::Lock | Effect::Hold | Effect::Unlock => None,
    }
}

fn service(plan: &Plan, effect: Effect) -> Option<ServiceEffect> {
    step_of(plan, effect).and_then(PlannedStep::spec).map(|s| s.service)
}

/// Says whether an effect takes the node out of service.
pub(super) fn takes_out(plan: &Plan, effect: Effect) -> bool {
    effect == Effect::Hold || service(plan, effect) == Some(ServiceEffect::TakesOut)
}

/// Says whether an effect gives the node back.
pub(super) fn gives_back(plan: &Plan, effect: Effect) -> bool {
    service(plan, effect) == Some(ServiceEffect::GivesBack)
}

/// Attempts allowed, the first included; a disruptive step is never repeated by itself.
pub(super) fn limit(plan: &Plan, effect: Effect) -> u32 {
    match step_of(plan, effect) {
        None => MARK_ATTEMPTS,
        Some(step) if class(step).needs_verification() => 1,
        Some(step) => step.attempts.clamp(1, MAX_ATTEMPTS),
    }
}

/// The class of a step: the catalogue decides, and a plan cannot make it milder.
pub(super) fn class(step: &PlannedStep) -> EffectClass {
    step.spec().map_or(step.effect, |s| s.effect.max(step.effect))
}

/// What tells one effect from another, in a byte.
pub(super) fn effect_code(effect: Effect) -> u8 {
    let place = |base: usize, i: usize| u8::try_from(base.saturating_add(i)).unwrap_or(u8::MAX);
    match effect {
        Effect::Lock => 0,
        Effect::Hold => 1,
        Effect::Unlock => 2,
        Effect::Step(i) => place(3, i),
        Effect::Undo(i) => place(128, i),
    }
}
