//! What a check finds, and the fault words it may use.

use std::fmt;

/// What kind of fault a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasts {
    /// It is so now, and over when a later look does not find it.
    WhileFound,
    /// It happened: told once, never taken back.
    Happened,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Fault word.
    pub(crate) fault: String,
    /// What it is about, e.g. `/scratch` or `mlx5_0/1`. Part of the fingerprint.
    pub(crate) subject: String,
    /// PCI address or index, if it is about one GPU.
    pub(crate) gpu: Option<String>,
    /// Whether it can be over.
    pub(crate) lasts: Lasts,
    /// When it happened in milliseconds since 1970, where the source says so.
    pub(crate) at_ms: Option<u64>,
    /// One sentence for people.
    pub(crate) text: String,
}

impl Finding {
    /// Something that is so now.
    pub(crate) fn now(fault: &str, subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            fault: fault.to_owned(),
            subject: subject.into(),
            gpu: None,
            lasts: Lasts::WhileFound,
            at_ms: None,
            text: text.into(),
        }
    }

    /// Names the GPU it is about.
    pub(crate) fn on_gpu(mut self, gpu: &str) -> Self {
        self.gpu = Some(gpu.to_owned());
        self
    }

    /// The same for the same fault of the same thing.
    pub(crate) fn key(&self) -> String {
        match &self.gpu {
            Some(gpu) => format!("{}/{}/{gpu}", self.fault, self.subject),
            None => format!("{}/{}", self.fault, self.subject),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.gpu {
            Some(gpu) => write!(f, "{} on GPU {gpu}: {}", self.fault, self.text),
            None => write!(f, "{}: {}", self.fault, self.text),
        }
    }
}

/// The fault of a check that could not be made: it says something about the tool, nothing about the node.
pub(crate) const CHECK_FAILED: &str = "hook-check-failed";
/// The fault of dcgm-exporter itself.
pub(crate) const EXPORTER_DOWN: &str = "dcgm-exporter-down";

/// The words a finding may carry, and whether a fault lies in this one node, so that a site may let the hook drain or the
/// prolog fail for it. What other nodes may share at the same moment (storage, fabric, heat) never may.
pub(crate) static FAULTS: &[(&str, bool)] = &[
    ("gpu-off-bus", true),
    ("gpu-count-mismatch", true),
    ("gpu-ecc-uncorrectable", true),
    ("gpu-row-remap-failure", true),
    ("gpu-firmware-hang", true),
    ("fs-read-only", true),
    ("disk-full", true),
    ("gpu-recovery-action-set", false),
    ("gpu-row-remap-pending", false),
    ("gpu-contained-error", false),
    ("gpu-ecc-corrected-rate", false),
    ("gpu-hw-thermal", false),
    ("gpu-power-brake", false),
    ("gpu-app-error", false),
    ("gpu-xid-other", false),
    ("nvlink-errors", false),
    ("mount-missing", false),
    ("nvlink-down", false),
    ("nvswitch-sxid-fatal", false),
    ("nvswitch-sxid-nonfatal", false),
    ("ib-port-down", false),
    ("nfs-hang", false),
    ("lustre-hang", false),
    ("mount-hang", false),
    ("leftover-processes", false),
    (EXPORTER_DOWN, false),
    (CHECK_FAILED, false),
    ("node-not-responding", false),
    ("slurm-node-failing", false),
    ("slurm-node-drained", false),
    ("slurm-job-end", false),
];

/// Says whether a fault lies in this one node; nothing for a word that is not known.
pub(crate) fn is_local(fault: &str) -> Option<bool> {
    FAULTS.iter().find(|(word, _)| *word == fault).map(|(_, local)| *local)
}
