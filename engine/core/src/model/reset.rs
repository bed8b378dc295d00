//! What came of an attempt to reset a GPU.

use super::gpu::GpuProcess;
use serde::{Deserialize, Serialize};

/// The outcome of one `nvidia-smi --gpu-reset`, decided by its exit code; texts give the detail only.
///
/// Even `Done` proves nothing about the GPU: only the reads after it do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ResetOutcome {
    /// The tool reports success.
    Done,
    /// Nothing was reset: something holds the GPU, or a guard on the node said no.
    Refused {
        /// Why, in the tool's words or ours.
        why: String,
        /// The processes that hold the GPU, where they could be named.
        holders: Vec<GpuProcess>,
    },
    /// This GPU, driver or environment cannot reset.
    NotSupported {
        /// The tool's text.
        text: String,
    },
    /// Not enough rights: resets need root.
    NoPermission,
    /// No GPU under this address.
    NotFound,
    /// The kernel driver is not loaded.
    DriverNotLoaded,
    /// nvidia-smi found no NVML library.
    NoNvml,
    /// The GPU is off the bus: a reset cannot help, the node needs a reboot or a power cycle.
    GpuLost,
    /// NVLink peers must be reset in the same command.
    NeedsPeers {
        /// Their indexes in the numbering of nvidia-smi.
        peers: Vec<u32>,
    },
    /// It is not known whether the GPU was reset: time-out, signal, a code or text nobody here has seen.
    Unknown {
        /// Exit code, where there was one.
        code: Option<i32>,
        /// What was seen.
        text: String,
    },
}

impl ResetOutcome {
    /// Says whether the GPU was certainly left alone.
    pub fn changed_nothing(&self) -> bool {
        !matches!(self, Self::Done | Self::Unknown { .. })
    }

    /// Says it in one sentence for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Done => "the GPU was reset".to_owned(),
            Self::Refused { why, holders } if holders.is_empty() => format!("refused: {why}"),
            Self::Refused { why, holders } => {
                let who: Vec<String> =
                    holders.iter().map(|p| format!("{} (pid {})", p.name, p.pid)).collect();
                format!("refused: {why}: {}", who.join(", "))
            }
            Self::NotSupported { text } => format!("reset is not supported here: {text}"),
            Self::NoPermission => "not enough rights: a reset needs root".to_owned(),
            Self::NotFound => "no GPU under this address".to_owned(),
            Self::DriverNotLoaded => "the NVIDIA driver is not loaded".to_owned(),
            Self::NoNvml => "nvidia-smi found no NVML library".to_owned(),
            Self::GpuLost => "the GPU is off the bus: it needs a reboot or a power cycle".to_owned(),
            Self::NeedsPeers { peers } => {
                let list: Vec<String> = peers.iter().map(u32::to_string).collect();
                format!("NVLink peers must be reset together with it: GPUs {}", list.join(", "))
            }
            Self::Unknown { code: Some(c), text } => format!("not known (exit code {c}): {text}"),
            Self::Unknown { code: None, text } => format!("not known: {text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_named() {
        let r = ResetOutcome::Refused {
            why: "in use".to_owned(),
            holders: vec![GpuProcess { pid: 41822, name: "/usr/bin/python3".to_owned() }],
        };
        assert_eq!(r.describe(), "refused: in use: /usr/bin/python3 (pid 41822)");
        assert!(r.changed_nothing());
        let json = serde_json::to_string(&r).unwrap();
        assert_eq!(serde_json::from_str::<ResetOutcome>(&json).unwrap(), r, "{json}");
    }
}
