//! Finds out what an output of the GPU tools is, and parses it: their half of `slurmedic read FILE`.
//!
//! An output that reports a failure is a failed read, never an empty answer; an output of these tools that
//! gives no facts is named as that.

use super::discovery::DiscoveredGpu;
use super::fault::Fault;
use super::nvlink::Links;
use super::text::{decode, error_text, one_line};
use super::version::DcgmVersion;
use super::{diag, discovery, dmon, exporter, health, nvlink, version};
use crate::nvidia_smi::csv::{App, SmiGpus};
use crate::nvidia_smi::{csv, failed_read, reset, xml};
use engine_core::model::gpu::HealthReport;
use engine_core::model::{Gpu, NodeGpus, ResetOutcome};
use engine_core::{Cause, Known, Unknown};
use serde::Serialize;
use std::collections::BTreeMap;

/// Largest output that is looked at, in bytes.
pub const MAX_INPUT: usize = 64 << 20;

/// A recognised output.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recognised {
    /// `dcgmi`, `dcgm-exporter` or `nvidia-smi`.
    pub tool: &'static str,
    /// What it holds.
    pub content: Content,
}

/// What an output holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum Content {
    /// `dcgmi -v`.
    Version(DcgmVersion),
    /// `dcgmi discovery -l`.
    Discovery(Known<Vec<DiscoveredGpu>>),
    /// `dcgmi health -c`. "Healthy" alone is no proof of health.
    Health(Known<HealthReport>),
    /// `dcgmi health -f`.
    Watches(Known<BTreeMap<String, bool>>),
    /// `dcgmi health -s`.
    WatchesSet(Known<bool>),
    /// `dcgmi diag`.
    Diag(Known<diag::Diag>),
    /// `dcgmi dmon`.
    Values(Known<Vec<Gpu>>),
    /// `dcgmi nvlink -s`.
    Nvlinks(Known<BTreeMap<u32, Known<Links>>>),
    /// A scrape of dcgm-exporter.
    Metrics(Box<Known<NodeGpus>>),
    /// `nvidia-smi --query-gpu`, `--query-remapped-rows`, `-q -x`, `-L`.
    Gpus(Known<SmiGpus>),
    /// `nvidia-smi --query-compute-apps`.
    Processes(Known<Vec<App>>),
    /// `nvidia-smi --gpu-reset`; without its exit code nothing but a refusal is certain.
    Reset(ResetOutcome),
    /// The tool says that it could not look.
    FailedRead {
        /// What it means, where it is known.
        fault: Option<Fault>,
        /// The tool's words.
        reason: Unknown,
    },
    /// An output of these tools that gives no facts.
    NoFacts(Unknown),
}

impl Content {
    /// Returns the word for the kind, as in the JSON form.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Version(_) => "version",
            Self::Discovery(_) => "discovery",
            Self::Health(_) => "health",
            Self::Watches(_) => "watches",
            Self::WatchesSet(_) => "watches_set",
            Self::Diag(_) => "diag",
            Self::Values(_) => "values",
            Self::Nvlinks(_) => "nvlinks",
            Self::Metrics(_) => "metrics",
            Self::Gpus(_) => "gpus",
            Self::Processes(_) => "processes",
            Self::Reset(_) => "reset",
            Self::FailedRead { .. } => "failed_read",
            Self::NoFacts(_) => "no_facts",
        }
    }
}

/// Outputs of dcgmi that give no facts, by words that occur in them.
const NO_FACTS: &[(&str, &str)] = &[
    ("Instance Hierarchy", "discovery -c"),
    ("Topology Information", "topo"),
    ("Execution Stats", "stats"),
    ("| GPU ID:", "discovery of one GPU"),
    ("Policy information", "policy"),
    ("Listening for violations", "policy --reg, which does not name the GPU,"),
    ("Policy successfully set", "policy --set"),
    ("\"Compute Mode\"", "config"),
    ("| Compute Mode ", "config"),
    ("| GROUPS", "group -l"),
    ("\"GROUPS\"", "group -l"),
    ("GROUP INFO", "group -i"),
    ("\"Group Info\"", "group -i"),
    ("Successfully created group", "group -c"),
    ("Successfully removed group", "group -d"),
    ("FIELD GROUPS", "fieldgroup -l"),
    ("List Modules", "modules -l"),
    ("Introspection Information", "introspect"),
    ("NVLINK Error Counts", "nvlink -e"),
    ("Short Name          Field ID", "dmon -l"),
    ("Successfully started process watches", "stats"),
    ("Successfully started recording stats", "stats"),
    ("Successfully stopped recording stats", "stats"),
    ("Successfully ran diagnostic for group", "diag without -j (ask for JSON)"),
    ("Started host engine version", "host engine start"),
];

/// Recognises and parses an output of the GPU tools; `None` means that it is something else.
pub fn recognise(bytes: &[u8]) -> Option<Recognised> {
    if bytes.len() > MAX_INPUT {
        return None;
    }
    let text = decode(bytes);
    let dcgmi = |content| Some(Recognised { tool: "dcgmi", content });
    let smi = |content| Some(Recognised { tool: "nvidia-smi", content });
    if exporter::is_exporter(&text) {
        return Some(Recognised {
            tool: "dcgm-exporter",
            content: Content::Metrics(Box::new(exporter::parse(bytes))),
        });
    }
    if xml::is_xml(&text) {
        return smi(Content::Gpus(xml::parse(bytes)));
    }
    if reset::is_reset(&text) {
        return smi(Content::Reset(reset::outcome(None, bytes, b"")));
    }
    if let Some(reason) = failed_read(bytes) {
        return smi(Content::FailedRead { fault: None, reason });
    }
    if version::is_version(&text) {
        return dcgmi(Content::Version(version::parse(bytes)));
    }
    if diag::is_diag(&text) {
        return dcgmi(Content::Diag(diag::parse(bytes)));
    }
    if health::is_check(&text) {
        return dcgmi(Content::Health(health::parse(bytes)));
    }
    if health::is_watches(&text) {
        return dcgmi(Content::Watches(health::parse_watches(bytes)));
    }
    if text.contains("Health monitor systems set successfully") {
        return dcgmi(Content::WatchesSet(health::parse_set(bytes)));
    }
    if dmon::is_dmon(&text) {
        return dcgmi(Content::Values(dmon::parse(bytes).map(|d| d.gpus())));
    }
    if nvlink::is_nvlink(&text) {
        return dcgmi(Content::Nvlinks(nvlink::parse(bytes)));
    }
    if discovery::is_discovery(&text) {
        return dcgmi(Content::Discovery(discovery::parse(bytes)));
    }
    if let Some((_, what)) = NO_FACTS.iter().find(|(sign, _)| text.contains(sign)) {
        let reason = Unknown::new(Cause::Unsupported, format!("dcgmi {what} gives no facts"));
        return dcgmi(Content::NoFacts(reason));
    }
    if csv::is_list(&text) {
        return smi(Content::Gpus(csv::parse_list(bytes)));
    }
    if csv::is_apps(&text) {
        return smi(Content::Processes(csv::parse_apps(bytes)));
    }
    if csv::is_gpus(&text) {
        return smi(Content::Gpus(csv::parse_gpus(bytes)));
    }
    // Errors last: a line that starts like one may be part of any of the above.
    let fault = Fault::of_text(&text);
    if fault.is_some() || text.contains("CacheManager Init Failed") || text.starts_with("Error: Unable to ") {
        let words = error_text(&text).unwrap_or_else(|| one_line(&text));
        let cause = fault.map_or(Cause::ReadFailed, Fault::cause);
        return dcgmi(Content::FailedRead { fault, reason: Unknown::new(cause, words) });
    }
    None
}
