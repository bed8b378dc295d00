//! A simulated GPU: the fields DCGM and nvidia-smi show, the faults behind them, and what a reset cures.

use engine_core::known::{Cause, Known};
use engine_core::model::gpu::{Health, HealthIncident};
use engine_core::model::{FabricState, Gpu, GpuProcess, RecoveryAction};
use std::collections::BTreeMap;

/// What can break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Uncorrectable memory error: XID 48 and 63, volatile DBE, a remap that waits for a reset. Kills the job on it.
    EccDbe,
    /// The same, and each reset brings it back.
    StubbornEcc,
    /// XID 79: the GPU has fallen off the bus.
    OffBus,
    /// XID 64: row remapping failed; hardware service.
    RemapFailure,
    /// The GPU is too hot and slows down.
    Thermal,
    /// A process outside any job holds the GPU.
    Holder {
        /// Process id.
        pid: u32,
        /// Program.
        name: String,
    },
    /// An NVLink is down.
    NvlinkDown,
    /// The reset tool hangs until its limit.
    ResetHangs {
        /// Whether the reset takes effect all the same.
        applied: bool,
    },
    /// The node's tools hang: nothing can be known.
    ToolsHang,
    /// The node's tools answer again.
    ToolsBack,
    /// dcgm-exporter is dead until the DCGM engine is restarted by a reset.
    ExporterDown,
    /// nv-hostengine is dead.
    DcgmDown,
    /// The end of all faults: somebody repaired the GPU by hand.
    Repaired,
}

impl Fault {
    /// Returns a sentence for people.
    pub fn describe(&self) -> String {
        match self {
            Self::EccDbe => "uncorrectable memory error (XID 48, 63), remap pending".to_owned(),
            Self::StubbornEcc => "uncorrectable memory error that no reset cures".to_owned(),
            Self::OffBus => "fallen off the bus (XID 79)".to_owned(),
            Self::RemapFailure => "row remapping failed (XID 64)".to_owned(),
            Self::Thermal => "thermal slowdown".to_owned(),
            Self::Holder { pid, name } => format!("held by {name} (pid {pid})"),
            Self::NvlinkDown => "an NVLink is down".to_owned(),
            Self::ResetHangs { applied: true } => {
                "the reset tool will hang, and reset all the same".to_owned()
            }
            Self::ResetHangs { applied: false } => "the reset tool will hang, and not reset".to_owned(),
            Self::ToolsHang => "the node's tools hang".to_owned(),
            Self::ToolsBack => "the node's tools answer again".to_owned(),
            Self::ExporterDown => "dcgm-exporter died".to_owned(),
            Self::DcgmDown => "nv-hostengine died".to_owned(),
            Self::Repaired => "repaired by hand".to_owned(),
        }
    }
}

/// Number of NVLinks of a simulated GPU.
const NVLINKS: u32 = 18;

/// One GPU.
#[derive(Debug, Clone)]
pub(crate) struct SimGpu {
    pub(crate) index: u32,
    pub(crate) uuid: String,
    pub(crate) bus_id: String,
    serial: String,
    pub(crate) on_bus: bool,
    /// XIDs that the DCGM engine has seen since it started.
    xids: BTreeMap<u32, u64>,
    last_xid: u32,
    dbe_volatile: u64,
    dbe_aggregate: u64,
    rows_remapped: u64,
    remap_pending: bool,
    remap_failure: bool,
    recovery: RecoveryAction,
    hot: bool,
    links_down: u32,
    stubborn: bool,
    pub(crate) holder: Option<GpuProcess>,
    pub(crate) hang: Option<bool>,
    pub(crate) resets: u32,
}

impl SimGpu {
    pub(crate) fn new(node: usize, index: u32) -> Self {
        let slot = [0x1A, 0x3B, 0x4C, 0x5D, 0x9B, 0xBB, 0xCB, 0xDB];
        let bus = slot.get(index as usize).copied().unwrap_or(0x10 + index);
        let id = (node as u64 + 1) * 1_000 + u64::from(index);
        Self {
            index,
            uuid: format!("GPU-{:08x}-5eed-4000-8000-{:012x}", id.wrapping_mul(2_654_435_761) as u32, id),
            bus_id: format!("00000000:{bus:02X}:00.0"),
            serial: format!("16{id:011}"),
            on_bus: true,
            xids: BTreeMap::new(),
            last_xid: 0,
            dbe_volatile: 0,
            dbe_aggregate: 0,
            rows_remapped: 0,
            remap_pending: false,
            remap_failure: false,
            recovery: RecoveryAction::None,
            hot: false,
            links_down: 0,
            stubborn: false,
            holder: None,
            hang: None,
            resets: 0,
        }
    }

    fn xid(&mut self, code: u32) {
        *self.xids.entry(code).or_insert(0) += 1;
        self.last_xid = code;
    }

    fn memory_error(&mut self) {
        self.xid(63);
        self.xid(48);
        self.dbe_volatile += 2;
        self.dbe_aggregate += 2;
        self.remap_pending = true;
        self.recovery = RecoveryAction::Reset;
    }

    /// Breaks the GPU; says whether work on it dies of that.
    pub(crate) fn break_by(&mut self, fault: &Fault) -> bool {
        match fault {
            Fault::EccDbe => self.memory_error(),
            Fault::StubbornEcc => {
                self.stubborn = true;
                self.memory_error();
            }
            Fault::OffBus => {
                self.xid(79);
                self.on_bus = false;
                self.recovery = RecoveryAction::Reboot;
            }
            Fault::RemapFailure => {
                self.memory_error();
                self.xid(64);
                self.remap_pending = false;
                self.remap_failure = true;
            }
            Fault::Thermal => {
                self.hot = true;
                return false;
            }
            Fault::NvlinkDown => {
                self.xid(74);
                self.links_down = 1;
                return false;
            }
            Fault::Holder { pid, name } => {
                self.holder = Some(GpuProcess { pid: *pid, name: name.clone() });
                return false;
            }
            Fault::ResetHangs { applied } => {
                self.hang = Some(*applied);
                return false;
            }
            Fault::Repaired => {
                self.stubborn = false;
                self.remap_failure = false;
                self.reboot();
                return false;
            }
            Fault::ToolsHang | Fault::ToolsBack | Fault::ExporterDown | Fault::DcgmDown => return false,
        }
        true
    }

    /// Resets the GPU. The XID history is the DCGM engine's and stays.
    pub(crate) fn reset(&mut self) {
        self.resets += 1;
        if !self.on_bus {
            return;
        }
        self.start_afresh();
        if self.stubborn {
            self.memory_error();
        }
    }

    /// Reboots the node under it: also brings a lost GPU back.
    pub(crate) fn reboot(&mut self) {
        self.on_bus = true;
        self.holder = None;
        self.forget_xids();
        self.start_afresh();
        if self.stubborn {
            self.memory_error();
        }
    }

    fn start_afresh(&mut self) {
        self.dbe_volatile = 0;
        if self.remap_pending {
            self.rows_remapped += 1;
            self.remap_pending = false;
        }
        if !self.remap_failure {
            self.recovery = RecoveryAction::None;
        }
        self.links_down = 0;
        self.hang = None;
    }

    /// Repairs the GPU, or puts a good one in its place: nothing of what was broken is left, nor remembered.
    pub(crate) fn cure(&mut self) {
        self.on_bus = true;
        self.stubborn = false;
        self.remap_failure = false;
        self.remap_pending = false;
        self.hot = false;
        self.holder = None;
        self.start_afresh();
        self.forget_xids();
    }

    /// Restarts the DCGM engine: the only thing that clears the XID history.
    pub(crate) fn forget_xids(&mut self) {
        self.xids.clear();
        self.last_xid = 0;
        if self.stubborn && self.dbe_volatile > 0 {
            self.xid(48);
        }
        if !self.on_bus {
            self.xid(79);
        }
    }

    /// Says what is wrong with the GPU in truth, whatever the tools see.
    pub(crate) fn ailment(&self) -> Option<String> {
        let mut found = Vec::new();
        if !self.on_bus {
            found.push("off the bus".to_owned());
        }
        if self.dbe_volatile > 0 {
            found.push(format!("{} uncorrectable errors", self.dbe_volatile));
        }
        if self.remap_pending {
            found.push("remap pending".to_owned());
        }
        if self.remap_failure {
            found.push("remap failed".to_owned());
        }
        if self.links_down > 0 {
            found.push("NVLink down".to_owned());
        }
        (!found.is_empty()).then(|| found.join(", "))
    }

    /// Shows the GPU as the node's tools do. `by_dcgm` false: nv-hostengine is away, nvidia-smi alone answers.
    pub(crate) fn view(&self, processes: Vec<GpuProcess>, busy: bool, by_dcgm: bool) -> Gpu {
        let by_dcgm_only = |n: u32| {
            if by_dcgm {
                Known::Known(n)
            } else {
                Known::unknown(Cause::ReadFailed, "nv-hostengine does not answer")
            }
        };
        let xids = if by_dcgm {
            Known::Known(self.xids.clone())
        } else {
            Known::unknown(Cause::ReadFailed, "nv-hostengine does not answer")
        };
        if !self.on_bus {
            let mut gpu = Gpu::unseen(self.index, Cause::NotReported, "N/A");
            gpu.uuid = Known::Known(self.uuid.clone());
            gpu.bus_id = Known::Known(self.bus_id.clone());
            gpu.answers = Known::Known(false);
            gpu.last_xid = by_dcgm_only(self.last_xid);
            gpu.recent_xids = xids;
            return gpu;
        }
        let wobble = f64::from(self.index) * 0.5;
        Gpu {
            index: self.index,
            uuid: Known::Known(self.uuid.clone()),
            bus_id: Known::Known(self.bus_id.clone()),
            serial: Known::Known(self.serial.clone()),
            model: Known::Known("NVIDIA H100 80GB HBM3".to_owned()),
            answers: Known::Known(true),
            last_xid: by_dcgm_only(self.last_xid),
            recent_xids: xids,
            ecc_sbe_volatile: Known::Known(0),
            ecc_dbe_volatile: Known::Known(self.dbe_volatile),
            ecc_dbe_aggregate: Known::Known(self.dbe_aggregate),
            rows_remapped_uncorrectable: Known::Known(self.rows_remapped),
            rows_remapped_correctable: Known::Known(0),
            row_remap_pending: Known::Known(self.remap_pending),
            row_remap_failure: Known::Known(self.remap_failure),
            recovery_action: Known::Known(self.recovery),
            temperature_c: Known::Known(if self.hot {
                91.0
            } else if busy {
                62.0 + wobble
            } else {
                33.0 + wobble
            }),
            memory_temperature_c: Known::Known(if self.hot { 97.0 } else { 45.0 + wobble }),
            power_w: Known::Known(if busy { 610.0 } else { 72.0 }),
            sm_clock_mhz: Known::Known(if self.hot {
                1_005.0
            } else if busy {
                1_980.0
            } else {
                345.0
            }),
            memory_clock_mhz: Known::Known(2_619.0),
            utilization_percent: Known::Known(if busy { 97.0 } else { 0.0 }),
            clock_reasons: Known::Known(if self.hot { 0x40 } else { u64::from(!busy) }),
            persistence_mode: Known::Known(true),
            mig_enabled: Known::Known(false),
            nvlinks_down: Known::Known(self.links_down),
            nvlinks_up: Known::Known(NVLINKS - self.links_down),
            fabric: Known::Known(FabricState::Completed),
            pcie_replays: Known::Known(0),
            processes: Known::Known(processes),
        }
    }

    /// Lists what DCGM's health check finds, with the XID table of DCGM 4.6.
    pub(crate) fn health(&self) -> Vec<HealthIncident> {
        let mut found = Vec::new();
        let mut add = |system: &str, health: Health, text: String| {
            found.push(HealthIncident { gpu: Some(self.index), system: system.to_owned(), health, text });
        };
        for code in self.xids.keys() {
            match code {
                48 | 74 | 79 | 95 | 119 | 120 | 140 => {
                    add("Internal error", Health::Fail, format!("Detected XID {code}: GPU-wide error"));
                }
                63 => add("Memory system", Health::Warn, "Detected XID 63: row remap recorded".to_owned()),
                64 => add("Memory system", Health::Fail, "Detected XID 64: row remap failed".to_owned()),
                _ => {}
            }
        }
        if self.dbe_volatile > 0 {
            add("Memory system", Health::Fail, format!("{} volatile DBEs detected", self.dbe_volatile));
        }
        if self.remap_failure {
            add("Memory system", Health::Fail, "row remap failure".to_owned());
        }
        match self.recovery {
            RecoveryAction::None => {}
            RecoveryAction::DrainP2p => add("Driver", Health::Warn, "drain P2P traffic".to_owned()),
            r => add("Driver", Health::Fail, format!("GPU recovery action: {}", r.as_str())),
        }
        if self.hot {
            add("Thermal system", Health::Warn, "thermal violations rise".to_owned());
        }
        if self.links_down > 0 {
            add("NVLINK system", Health::Fail, format!("{} NVLink down", self.links_down));
        }
        found
    }

    /// Lists what a diagnostic of level 1 finds: it does not look at volatile DBEs.
    pub(crate) fn diag(&self) -> Vec<HealthIncident> {
        let mut found = Vec::new();
        let mut add = |text: &str| {
            found.push(HealthIncident {
                gpu: Some(self.index),
                system: "software".to_owned(),
                health: Health::Fail,
                text: text.to_owned(),
            });
        };
        if !self.on_bus {
            add("the GPU cannot be read");
        }
        if self.remap_pending {
            add("row remap pending: reset the GPU");
        }
        if self.remap_failure {
            add("row remap failure");
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_cures_memory_errors_and_not_the_memory_of_dcgm() {
        let mut g = SimGpu::new(0, 3);
        assert!(g.break_by(&Fault::EccDbe));
        assert_eq!(g.view(vec![], false, true).last_xid, Known::Known(48));
        assert!(g.ailment().is_some() && !g.diag().is_empty());
        g.reset();
        assert_eq!(g.ailment(), None);
        let seen = g.view(vec![], false, true);
        assert_eq!(seen.last_xid, Known::Known(48), "the XID is sticky until the engine restarts");
        assert_eq!(
            (seen.rows_remapped_uncorrectable, seen.ecc_dbe_aggregate),
            (Known::Known(1), Known::Known(2))
        );
        assert!(!g.health().is_empty(), "health alone never turns green before the restart");
        g.forget_xids();
        assert!(g.health().is_empty());
    }

    #[test]
    fn what_no_reset_cures() {
        for (fault, word) in [
            (Fault::StubbornEcc, "uncorrectable"),
            (Fault::RemapFailure, "remap failed"),
            (Fault::OffBus, "off the bus"),
        ] {
            let mut g = SimGpu::new(0, 0);
            g.break_by(&fault);
            g.reset();
            g.forget_xids();
            assert!(g.ailment().unwrap().contains(word), "{fault:?}");
            assert!(!g.health().is_empty(), "{fault:?}");
        }
        let mut lost = SimGpu::new(0, 0);
        lost.break_by(&Fault::OffBus);
        lost.reboot();
        assert_eq!(lost.ailment(), None);
    }

    #[test]
    fn gpus_have_names_of_their_own() {
        let mut seen = std::collections::BTreeSet::new();
        for node in 0..64 {
            for index in 0..8 {
                assert!(seen.insert(SimGpu::new(node, index).uuid));
            }
        }
    }
}
