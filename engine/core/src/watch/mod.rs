//! The watch: what polling alone tells about nodes. Pure; the time and what is on record come in as arguments.
//!
//! [`slurm`] compares looks at the whole cluster, [`reasons`] says what the reasons of Slurm's nodes mean.

pub mod reasons;
pub mod slurm;

pub use reasons::{BadReasons, Pattern, Reasons, Told, Written};
pub use slurm::{SlurmRules, SlurmWatch, Standing, standing};
