//! Work on a node by its own tools: `dcgmi`, `nvidia-smi`, the unit manager. And the exporter's scrape.
//!
//! Every call has a deadline and a fixed argument vector; what does not answer is unknown, never fine.

pub mod config;
pub mod evidence;
pub mod host;
pub mod local;
pub mod scrape;
pub mod tools;

pub use config::{ExporterCheck, NodeToolsConfig};
pub use local::{LocalNode, LocalNodes};
pub use scrape::ExporterTelemetry;
