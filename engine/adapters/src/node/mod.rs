//! Work on a node by its own tools: `dcgmi`, `nvidia-smi`, the unit manager. And the exporter's scrape.
//!
//! Each verb that changes something has a file of its own and looks once more, on the node, right before it does.
//!
//! Every call has a deadline and a fixed argument vector; what does not answer is unknown, never fine.

mod clocks;
pub mod config;
pub mod evidence;
mod hardware;
pub mod host;
mod kill;
pub mod local;
mod processes;
pub mod quarantine;
mod redact;
pub mod scrape;
mod service;
pub mod tools;

pub use config::{ExporterCheck, NodeToolsConfig, Redact};
pub use local::{LocalNode, LocalNodes};
pub use scrape::ExporterTelemetry;
