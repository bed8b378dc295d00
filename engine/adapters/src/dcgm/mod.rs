//! DCGM: what `dcgmi` and dcgm-exporter print, as typed facts.
//!
//! Pure functions from bytes to core types. Nothing here runs a program; see `crate::node` for that.
//! What a version prints that nobody here has seen becomes unknown with its cause, never a value.

pub mod assemble;
pub mod diag;
pub mod discovery;
pub mod dmon;
pub mod exporter;
pub mod fault;
pub mod fields;
pub mod health;
pub mod json;
pub mod nvlink;
pub mod prometheus;
pub mod recognise;
pub mod text;
pub mod version;
