//! Slurm: the scheduler port on a real cluster, and what `scontrol`, `squeue` and slurmrestd print, parsed into the model.
//!
//! [`SlurmBackend`] is the port: it reads through the clients or slurmrestd and writes through `scontrol`. The
//! parsers beneath it are pure: bytes in, typed records or a [`ParseError`] out. They never panic, and what they
//! cannot understand becomes an error or an explicit unknown, never a default.

pub mod answer;
mod backend;
mod cli;
pub mod config;
pub mod doctor;
pub mod gres;
pub mod hooks;
pub mod job;
pub mod json;
mod probe;
pub mod recognise;
mod rest;
pub mod sample;
pub mod tables;
pub mod text;
pub mod topology;
mod write;

pub use answer::{Answer, ParseError, Ping, Release, Source};
pub use backend::SlurmBackend;
pub use config::{ConfigError, ReadVia, RestConfig, SlurmConfig};
pub use doctor::{DoctorLine, Verdict};
pub use job::{JobAnswer, JobConfig, SlurmJobs};
