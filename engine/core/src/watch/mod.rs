//! The watch: what polling alone tells about nodes. Pure; the time and what is on record come in as arguments.
//!
//! [`slurm`] compares looks at the whole cluster, [`reasons`] says what the reasons of Slurm's nodes mean; [`prometheus`] reads
//! the answers to rules; [`gpu`] compares scrapes of dcgm-exporter, [`xid`] says what XIDs mean.

pub mod gpu;
pub mod prometheus;
pub mod reasons;
pub mod slurm;
pub mod xid;

pub use gpu::{Asked, GpuFault, GpuRules, GpuWatch, Tool, single_look, standing_gpus};
pub use prometheus::{PromRules, PromWatch, standing_by_prometheus};
pub use reasons::{BadReasons, Pattern, Reasons, Told};
pub use slurm::{SlurmRules, SlurmWatch, Standing, standing};

use crate::digest::Digest;
use crate::incident::Fingerprint;
use crate::incident::alert::MAX_FINGERPRINT;
use crate::model::NodeName;

/// Names the series of a fault: the same at every look and in every engine.
fn series_of(source: &str, node: &NodeName, fault: &str, gpu: Option<&str>) -> Option<Fingerprint> {
    let mut text = format!("{source}:{fault}:{node}");
    if let Some(gpu) = gpu {
        text.push(':');
        text.push_str(gpu);
    }
    let text = if text.len() > MAX_FINGERPRINT { Digest::of(text.as_bytes()).to_string() } else { text };
    Fingerprint::new(&text).ok()
}
