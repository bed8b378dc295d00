//! The GPUs of a node as DCGM, its exporter and nvidia-smi report them.

use crate::known::Known;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the driver says is needed to recover a GPU (DCGM field 1523, DCGM 4.5 and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryAction {
    /// 0: nothing.
    None,
    /// 1: reset the GPU.
    Reset,
    /// 2: reboot the node.
    Reboot,
    /// 3: drain peer-to-peer traffic, then ask again.
    DrainP2p,
    /// 4: drain, then reset.
    DrainAndReset,
}

impl RecoveryAction {
    /// Returns the stable word, as conditions write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Reset => "reset",
            Self::Reboot => "reboot",
            Self::DrainP2p => "drain_p2p",
            Self::DrainAndReset => "drain_and_reset",
        }
    }
}

/// How far the GPU has registered with its NVLink fabric (nvidia-smi `fabric.state`, `fabric.status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FabricState {
    /// The GPU or the driver has no such fabric.
    NotSupported,
    /// Registration did not begin.
    NotStarted,
    /// Registration goes on.
    InProgress,
    /// Registered, with success.
    Completed,
    /// Registered, with an error.
    Failed,
}

impl FabricState {
    /// Returns the stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotSupported => "not_supported",
            Self::NotStarted => "not_started",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

/// One GPU as one read saw it.
///
/// A field that the source does not have or did not answer is unknown with its cause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// DCGM's id or nvidia-smi's index, whichever the source uses; not stable over reboots.
    pub index: u32,
    /// `GPU-…`, the stable name of the device.
    pub uuid: Known<String>,
    /// PCI address in the long upper-case form `00000000:1B:00.0`.
    pub bus_id: Known<String>,
    /// Serial number of the board.
    pub serial: Known<String>,
    /// Model, e.g. `NVIDIA H100 80GB HBM3`.
    pub model: Known<String>,
    /// Whether the GPU answers its management reads. `false` is a lost GPU.
    pub answers: Known<bool>,
    /// Last XID since the DCGM engine started; 0 is "none seen". Sticky: a reset does not clear it.
    pub last_xid: Known<u32>,
    /// XIDs of the last window with their counts, where the source counts them.
    pub recent_xids: Known<BTreeMap<u32, u64>>,
    /// Correctable memory errors since the driver loaded.
    pub ecc_sbe_volatile: Known<u64>,
    /// Uncorrectable memory errors since the driver loaded.
    pub ecc_dbe_volatile: Known<u64>,
    /// Uncorrectable memory errors of the board's life.
    pub ecc_dbe_aggregate: Known<u64>,
    /// Rows remapped for uncorrectable errors.
    pub rows_remapped_uncorrectable: Known<u64>,
    /// Rows remapped for correctable errors.
    pub rows_remapped_correctable: Known<u64>,
    /// A remap waits for the next reset.
    pub row_remap_pending: Known<bool>,
    /// Remapping failed: hardware service.
    pub row_remap_failure: Known<bool>,
    /// What the driver wants done.
    pub recovery_action: Known<RecoveryAction>,
    /// GPU temperature in degrees Celsius.
    pub temperature_c: Known<f64>,
    /// Memory temperature in degrees Celsius.
    pub memory_temperature_c: Known<f64>,
    /// Power draw in watts.
    pub power_w: Known<f64>,
    /// SM clock in MHz.
    pub sm_clock_mhz: Known<f64>,
    /// Memory clock in MHz.
    pub memory_clock_mhz: Known<f64>,
    /// Utilisation in percent.
    pub utilization_percent: Known<f64>,
    /// Clock event reasons, bit mask of DCGM field 112.
    pub clock_reasons: Known<u64>,
    /// Persistence mode.
    pub persistence_mode: Known<bool>,
    /// MIG mode on.
    pub mig_enabled: Known<bool>,
    /// NVLinks that are down though they should be up.
    pub nvlinks_down: Known<u32>,
    /// NVLinks that are up.
    pub nvlinks_up: Known<u32>,
    /// Registration with the NVLink fabric.
    pub fabric: Known<FabricState>,
    /// PCIe replays since the driver loaded.
    pub pcie_replays: Known<u64>,
    /// Processes that hold the GPU now.
    pub processes: Known<Vec<GpuProcess>>,
}

impl Gpu {
    /// Builds a GPU of which nothing is known but its index.
    pub fn unseen(index: u32, cause: crate::known::Cause, detail: &str) -> Self {
        fn u<T>(cause: crate::known::Cause, detail: &str) -> Known<T> {
            Known::unknown(cause, detail)
        }
        Self {
            index,
            uuid: u(cause, detail),
            bus_id: u(cause, detail),
            serial: u(cause, detail),
            model: u(cause, detail),
            answers: u(cause, detail),
            last_xid: u(cause, detail),
            recent_xids: u(cause, detail),
            ecc_sbe_volatile: u(cause, detail),
            ecc_dbe_volatile: u(cause, detail),
            ecc_dbe_aggregate: u(cause, detail),
            rows_remapped_uncorrectable: u(cause, detail),
            rows_remapped_correctable: u(cause, detail),
            row_remap_pending: u(cause, detail),
            row_remap_failure: u(cause, detail),
            recovery_action: u(cause, detail),
            temperature_c: u(cause, detail),
            memory_temperature_c: u(cause, detail),
            power_w: u(cause, detail),
            sm_clock_mhz: u(cause, detail),
            memory_clock_mhz: u(cause, detail),
            utilization_percent: u(cause, detail),
            clock_reasons: u(cause, detail),
            persistence_mode: u(cause, detail),
            mig_enabled: u(cause, detail),
            nvlinks_down: u(cause, detail),
            nvlinks_up: u(cause, detail),
            fabric: u(cause, detail),
            pcie_replays: u(cause, detail),
            processes: u(cause, detail),
        }
    }
}

/// A process that holds a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuProcess {
    /// Process id on the node.
    pub pid: u32,
    /// Program name: text from outside.
    pub name: String,
}

/// The verdict of one health system or test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Nothing found.
    Pass,
    /// Something worth a look.
    Warn,
    /// Not fit for service.
    Fail,
}

impl Health {
    /// Returns the stable word, as conditions write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One finding of a health check or a diagnostic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthIncident {
    /// GPU id it belongs to, where the tool says so.
    pub gpu: Option<u32>,
    /// System or test, e.g. `Memory system`.
    pub system: String,
    /// How bad it is.
    pub health: Health,
    /// The tool's text.
    pub text: String,
}

/// What `dcgmi health -c` said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// The worst of all.
    pub overall: Health,
    /// Every finding.
    pub incidents: Vec<HealthIncident>,
}

/// What a diagnostic said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagReport {
    /// Level that was run.
    pub level: u8,
    /// Whether every test that ran passed, and at least one ran.
    pub overall: Health,
    /// Number of results that were Pass.
    pub passed: u32,
    /// Every result that was not Pass or Skip.
    pub incidents: Vec<HealthIncident>,
}

/// The GPUs of one node, and the tools that look at them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeGpus {
    /// Every GPU found.
    pub gpus: Vec<Gpu>,
    /// NVIDIA driver version.
    pub driver_version: Known<String>,
    /// DCGM version of the host engine, not of the client.
    pub dcgm_version: Known<String>,
    /// Whether nv-hostengine answered.
    pub dcgm_up: Known<bool>,
    /// Whether DCGM is attached to the driver.
    pub driver_attached: Known<bool>,
    /// Health by DCGM, after the watches were set.
    pub health: Known<HealthReport>,
    /// Whether the exporter answers.
    pub exporter_up: Known<bool>,
    /// Whether a DCGM diagnostic runs on the node now.
    pub diag_running: Known<bool>,
}

impl NodeGpus {
    /// Builds a node of which nothing is known: no GPU, every field unknown for the same cause.
    pub fn unseen(cause: crate::known::Cause, detail: &str) -> Self {
        Self {
            gpus: Vec::new(),
            driver_version: Known::unknown(cause, detail),
            dcgm_version: Known::unknown(cause, detail),
            dcgm_up: Known::unknown(cause, detail),
            driver_attached: Known::unknown(cause, detail),
            health: Known::unknown(cause, detail),
            exporter_up: Known::unknown(cause, detail),
            diag_running: Known::unknown(cause, detail),
        }
    }

    /// Finds a GPU by index, UUID or bus id (short or long form). Ambiguity finds nothing.
    pub fn find(&self, selector: &str) -> Option<&Gpu> {
        let s = selector.trim();
        let same_bus =
            |b: &String| normalize_bus_id(b) == normalize_bus_id(s) && normalize_bus_id(s).is_some();
        let mut hits = self.gpus.iter().filter(|g| {
            s.parse::<u32>().is_ok_and(|i| i == g.index)
                || g.uuid.is_known_and(|u| u.eq_ignore_ascii_case(s))
                || g.bus_id.is_known_and(same_bus)
        });
        let first = hits.next()?;
        hits.next().is_none().then_some(first)
    }
}

/// Brings a PCI address to the form `00000000:1B:00.0`; `None` if it is not one.
pub fn normalize_bus_id(text: &str) -> Option<String> {
    let t = text.trim().to_ascii_uppercase();
    let (rest, function) = t.rsplit_once('.').unwrap_or((&t, "0"));
    let mut parts: Vec<&str> = rest.split(':').collect();
    if parts.len() == 2 {
        parts.insert(0, "0");
    }
    let [domain, bus, device] = parts.as_slice() else { return None };
    let d = u32::from_str_radix(domain, 16).ok()?;
    let b = u8::from_str_radix(bus, 16).ok()?;
    let dev = u8::from_str_radix(device, 16).ok()?;
    let f = u8::from_str_radix(function, 16).ok()?;
    Some(format!("{d:08X}:{b:02X}:{dev:02X}.{f:X}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bus_ids_have_one_form() {
        for t in ["00000000:1B:00.0", "0000:1b:00.0", "1b:00.0", "0000:1b:00"] {
            assert_eq!(normalize_bus_id(t).as_deref(), Some("00000000:1B:00.0"), "{t}");
        }
        for t in ["", "GPU-1", "1b", "xx:00.0", "a:b:c:d"] {
            assert_eq!(normalize_bus_id(t), None, "{t}");
        }
    }
}
