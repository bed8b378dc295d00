//! Suites that need a real Slurm.

mod agent;
mod contract;
mod crash;
mod cuts;
mod enrol;
mod fleet;
mod hook;
mod hostile_input;
mod main_job;
mod people;
mod poll;
mod prometheus;
mod sick_controller;
mod slurm_job;
mod smoke;
mod soak;
mod sources;
mod variants;
mod wrappers;
