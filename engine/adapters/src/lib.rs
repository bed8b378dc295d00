//! engine-adapters

pub mod dcgm;
pub mod node;
pub mod nvidia_smi;
pub mod process;
pub mod slurm;
