//! Carries plans out: ports to the world, the journal, the executor, the performers of actions.
//!
//! Knows no adapter: Slurm, DCGM and the simulator implement its ports.
#![forbid(unsafe_code)]

pub mod actions;
pub mod approval;
pub mod engine;
pub mod fleet;
pub mod gather;
pub mod journal;
pub mod orders;
pub mod ports;
pub mod system;
