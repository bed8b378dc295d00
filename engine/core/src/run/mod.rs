//! Runs: their events, the fold that derives a run's state from them, and what comes next.
//!
//! The fold is the only definition of what may follow what. The executor, `show`, `journal verify` and crash
//! recovery all use it; none of them keeps a state of its own.

mod event;
mod fold;
mod load;
mod next;
mod shadow;

pub use event::{
    Actor, ActorKind, Effect, End, Event, EventKind, GuardReport, Outcome, OutcomeKind, Resolution,
};
pub use fold::{Deferral, EffectState, IllegalEvent, Refusal, RunState, Status, fold};
pub use load::Load;
pub use next::{Next, next};
pub use shadow::Rehearsal;
