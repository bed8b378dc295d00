//! A simulated cluster with Slurm's and DCGM's semantics, virtual time, faults and people; and the contract suite
//! that holds it to the truth.
//!
//! [`world::SimWorld`] is the cluster, [`time::SimRuntime`] drives futures through its virtual time, [`ports`] are the
//! engine's view of it, and [`contract`] is run against it and against a real Slurm alike.
#![forbid(unsafe_code)]

pub mod contract;
pub mod demo;
pub mod harness;
pub mod journal;
pub mod mutants;
pub mod oncall;
pub mod ports;
pub mod simulate;
pub mod time;
pub mod timeline;
pub mod warden;
pub mod world;
