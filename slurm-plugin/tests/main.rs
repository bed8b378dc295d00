//! The program as Slurm starts it: every way in which it could hang, drain by accident or keep quiet.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test an expectation that does not hold is the failure"
)]

mod engine;
mod exits;
mod hangs;
mod overlap;
mod support;
mod tells;
