//! The pure heart of Slurmedic: facts, conditions, plans and the run state machine.
//!
//! Nothing here reads a clock, a file, the network or the environment; `now` and identifiers
//! come in as arguments. That is held by `clippy.toml` beside the manifest and by the
//! crate graph test.
#![forbid(unsafe_code)]

pub mod action;
pub mod condition;
pub mod decide;
pub mod diag;
pub mod digest;
pub mod fact;
pub mod hostlist;
pub mod incident;
pub mod knowledge;
pub mod known;
pub mod model;
pub mod observe;
pub mod ownership;
pub mod plan;
pub mod playbook;
pub mod policy;
pub mod run;
pub mod select;
pub mod value;
pub mod verify;
pub mod vocabulary;
pub mod watch;

pub use known::{Cause, Known, Unknown};
