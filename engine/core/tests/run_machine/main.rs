//! The run machine against an adversary: a tiny interpreter plays the executor over `fold` and `next`, an adversary
//! chooses every guard, outcome, probe, cancel and crash, and a judge that knows nothing of the fold's own flags
//! holds the rules on the list of events alone.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a failure is a failed test")]

mod exhaustive;
mod judge;
mod legality;
mod plans;
mod player;
mod random;
mod shadow;
mod ways;
