//! The integration tests of the product: one binary, one module per suite.
//!
//! Everything under `with_slurm` needs the Slurm programs and starts a real Slurm on loopback
//! (`tests/lab/slurm-lab`); without them those tests fail, they never pass silently.
//! `tests/run` installs what is missing, `tests/run --without-slurm` leaves them out and says so.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test an expectation that does not hold is the failure"
)]

mod checker;
mod docs;
mod fakes;
mod handed;
mod house;
mod journal;
mod knowledge;
mod policy;
mod server;
mod suites;
mod support;
mod watching;
mod with_slurm;
