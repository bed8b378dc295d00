//! engine-adapters

pub mod agent;
pub mod dcgm;
pub mod munge;
pub mod node;
pub mod nvidia_smi;
pub mod process;
pub mod prometheus;
pub mod slurm;
