//! The faces over real sockets on loopback: who gets in, what is bounded, what becomes of alerts.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test an expectation that does not hold is the failure"
)]

mod access;
mod agents;
mod bounds;
mod fuzz;
mod hostile;
mod rig;
mod sources;
