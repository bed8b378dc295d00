//! Faults that scrapes of dcgm-exporter tell, and when they are over.
//!
//! What lasts (a pending remap, a wish of the driver) counts as it is read; what only grows or sticks (the XID gauge, the
//! count of errors) counts when it changes. Nothing is told about a node in somebody's hands. An exporter that does not
//! answer is a fault of the tool and tells nothing about its node.

use super::{series_of, xid};
use crate::incident::tool::MAX_WHY;
use crate::incident::{Alert, FleetState, ToolHealth, Tools};
use crate::known::Known;
use crate::model::gpu::RecoveryAction;
use crate::model::{Gpu, NodeGpus, NodeName};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Name of this source in alerts.
pub const SOURCE: &str = "exporter-poll";
/// Name of the source of a single look at a node that somebody told of.
pub const LOOK: &str = "node-look";
/// The most GPUs of a node that are followed.
pub const MAX_GPUS: usize = 64;

/// Bits of the clock event reasons, DCGM field 112.
const HW_THERMAL: u64 = 0x40;
const HW_POWER_BRAKE: u64 = 0x80;

/// The driver's own wish.
const WISH: &str = "gpu-recovery-action-set";

/// The faults that one GPU can show here.
const FAULTS: [&str; 11] = [
    WISH,
    "gpu-off-bus",
    "gpu-ecc-uncorrectable",
    "gpu-row-remap-failure",
    "gpu-firmware-hang",
    "nvlink-down",
    "gpu-row-remap-pending",
    "gpu-contained-error",
    "gpu-ecc-corrected-rate",
    "gpu-hw-thermal",
    "gpu-power-brake",
];

/// How often something must be seen in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuRules {
    /// Scrapes with fewer GPUs than configured.
    pub missing: u32,
    /// Scrapes that fail, before the exporter counts as silent.
    pub silent: u32,
    /// Scrapes with hardware throttling.
    pub throttled: u32,
}

impl Default for GpuRules {
    fn default() -> Self {
        Self { missing: 2, silent: 3, throttled: 3 }
    }
}

/// A fault of a node's GPU; without a GPU it is the node's.
pub type GpuFault = (String, Option<String>);

/// Takes what a source has open on a node out of the fleet's record.
pub fn standing_gpus(state: &FleetState, node: &NodeName, source: &str) -> BTreeSet<GpuFault> {
    let open = state.on_node(node).into_iter().flat_map(|i| i.alerts.values());
    open.filter(|s| s.firing && s.source == source).map(|s| (s.fault.clone(), s.gpu.clone())).collect()
}

/// A node whose exporter is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its name.
    pub node: NodeName,
    /// GPUs that Slurm has configured for it.
    pub configured: u32,
    /// Whether it is in somebody's hands, by the last look at the cluster.
    pub in_hands: bool,
}

/// What became of an exporter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// Nothing changed.
    Same,
    /// It does not answer any more.
    Silent,
    /// It answers again.
    Back,
}

#[derive(Debug, Clone, Default)]
struct NodeMemory {
    failed: u32,
    /// Whether the exporter answered since this process watches.
    answered: bool,
    /// Why it did not answer the last time.
    why: String,
    missing: u32,
    gpus: BTreeMap<String, GpuMemory>,
    said_over: BTreeSet<GpuFault>,
    /// What was told and is not on record yet: an XID is seen once only.
    told: BTreeMap<GpuFault, String>,
}

#[derive(Debug, Clone, Default)]
struct GpuMemory {
    xid: Option<u32>,
    errors: Option<u64>,
    thermal: u32,
    brake: u32,
}

/// Watches GPUs by comparing scrapes. Its memory is as large as the cluster.
#[derive(Debug, Clone)]
pub struct GpuWatch {
    source: &'static str,
    nodes: BTreeMap<NodeName, NodeMemory>,
}

impl Default for GpuWatch {
    fn default() -> Self {
        Self { source: SOURCE, nodes: BTreeMap::new() }
    }
}

/// Judges a single look at a node's GPUs, with nothing to compare it with: only what lasts can be told.
pub fn single_look(
    asked: &Asked,
    seen: &NodeGpus,
    standing: &BTreeSet<GpuFault>,
    at: Timestamp,
) -> Vec<Alert> {
    let mut watch = GpuWatch { source: LOOK, ..GpuWatch::default() };
    watch.read(asked, seen, &GpuRules::default(), standing, at).0
}

/// What a lasting sign of a fault says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// There is none for this fault.
    No,
    Unknown,
    Bad,
    Good,
}

impl From<&Known<bool>> for Sign {
    fn from(value: &Known<bool>) -> Self {
        match value {
            Known::Known(true) => Self::Bad,
            Known::Known(false) => Self::Good,
            Known::Unknown(_) => Self::Unknown,
        }
    }
}

impl GpuWatch {
    /// Forgets nodes that are not asked any more.
    pub fn keep(&mut self, asked: &[Asked]) {
        if self.nodes.len() > asked.len() {
            let there: BTreeSet<&NodeName> = asked.iter().map(|a| &a.node).collect();
            self.nodes.retain(|name, _| there.contains(name));
        }
    }

    /// Says how the exporters are; one that fails is not called silent before it failed some times.
    pub fn exporters(&self, rules: &GpuRules) -> Tools {
        let health = |n: &NodeMemory| match n.failed {
            0 if n.answered => ToolHealth::Well,
            failed if failed >= rules.silent => ToolHealth::Ill(n.why.clone()),
            _ => ToolHealth::Undecided,
        };
        self.nodes.iter().map(|(node, n)| (node.to_string(), health(n))).collect()
    }

    /// Counts the exporters that are silent.
    pub fn silent(&self, rules: &GpuRules) -> usize {
        self.nodes.values().filter(|n| n.failed >= rules.silent).count()
    }

    /// Takes in that an exporter did not answer. That is never a fault of the node.
    pub fn unread(&mut self, node: &NodeName, why: &str, rules: &GpuRules) -> Tool {
        let memory = self.nodes.entry(node.clone()).or_default();
        memory.why = why.chars().take(MAX_WHY).collect();
        memory.failed = memory.failed.saturating_add(1);
        if memory.failed == rules.silent { Tool::Silent } else { Tool::Same }
    }

    /// Compares a scrape with what is known: alerts of faults that are new and of faults that are over.
    pub fn read(
        &mut self,
        asked: &Asked,
        seen: &NodeGpus,
        rules: &GpuRules,
        standing: &BTreeSet<GpuFault>,
        at: Timestamp,
    ) -> (Vec<Alert>, Tool) {
        let source = self.source;
        let memory = self.nodes.entry(asked.node.clone()).or_default();
        let tool = if memory.failed >= rules.silent { Tool::Back } else { Tool::Same };
        (memory.failed, memory.answered) = (0, true);
        memory.why.clear();
        let mut firing: BTreeMap<GpuFault, String> = BTreeMap::new();
        let mut over: BTreeSet<GpuFault> = BTreeSet::new();
        count(asked, seen, rules, memory, &mut firing, &mut over);
        for gpu in seen.gpus.iter().take(MAX_GPUS) {
            let name = gpu.uuid.known().cloned().unwrap_or_else(|| gpu.index.to_string());
            let followed = memory.gpus.entry(name.clone()).or_default();
            judge(gpu, &name, rules, followed, standing, &mut firing, &mut over);
        }
        if memory.gpus.len() > MAX_GPUS {
            let names: BTreeSet<&String> = seen.gpus.iter().filter_map(|g| g.uuid.known()).collect();
            memory.gpus.retain(|name, _| names.contains(name));
        }
        if asked.in_hands {
            memory.told.clear();
            return (Vec::new(), tool);
        }
        memory.told.retain(|f, _| !standing.contains(f) && !over.contains(f));
        for (fault, says) in &memory.told {
            firing.entry(fault.clone()).or_insert_with(|| says.clone());
        }
        let mut alerts = Vec::new();
        let mut tell = |(fault, gpu): &GpuFault, firing: bool, summary: String| {
            let alert = Alert {
                source: source.to_owned(),
                fingerprint: series_of(source, &asked.node, fault, gpu.as_deref())?,
                fault: fault.clone(),
                node: asked.node.clone(),
                gpu: gpu.clone(),
                firing,
                seen_at: at,
                summary,
            };
            alerts.push(alert.checked().ok()?);
            Some(())
        };
        for (fault, says) in firing {
            let is_new = !standing.contains(&fault);
            if memory.said_over.remove(&fault) || is_new {
                tell(&fault, true, says.clone());
            }
            if is_new {
                memory.told.insert(fault, says);
            }
        }
        for fault in standing.intersection(&over) {
            if tell(fault, false, "the GPUs do not show it any more".to_owned()).is_some() {
                memory.said_over.insert(fault.clone());
            }
        }
        memory.said_over.retain(|f| standing.contains(f));
        (alerts, tool)
    }
}

fn count(
    asked: &Asked,
    seen: &NodeGpus,
    rules: &GpuRules,
    memory: &mut NodeMemory,
    firing: &mut BTreeMap<GpuFault, String>,
    over: &mut BTreeSet<GpuFault>,
) {
    let fault = ("gpu-count-mismatch".to_owned(), None);
    let found = seen.gpus.len();
    if found >= asked.configured as usize {
        memory.missing = 0;
        over.insert(fault);
        return;
    }
    memory.missing = memory.missing.saturating_add(1);
    if memory.missing >= rules.missing {
        firing.insert(fault, format!("the exporter shows {found} GPUs, Slurm has {}", asked.configured));
    }
}

fn judge(
    gpu: &Gpu,
    name: &str,
    rules: &GpuRules,
    memory: &mut GpuMemory,
    standing: &BTreeSet<GpuFault>,
    firing: &mut BTreeMap<GpuFault, String>,
    over: &mut BTreeSet<GpuFault>,
) {
    let gauge = gpu.last_xid.known().copied();
    // The first value is none: it may be of last week. A gauge that is unknown keeps what was seen before.
    let changed = gauge.filter(|now| *now != 0 && memory.xid.is_some_and(|was| was != *now));
    memory.xid = gauge.or(memory.xid);
    let errors = gpu.ecc_dbe_volatile.known().copied();
    let grew = matches!((memory.errors, errors), (Some(was), Some(now)) if now > was);
    memory.errors = errors.or(memory.errors);
    let bit = |mask: u64, seen: u32| match gpu.clock_reasons.known() {
        None => (seen, Sign::Unknown),
        Some(bits) if bits & mask == 0 => (0, Sign::Good),
        Some(_) if seen + 1 >= rules.throttled => (rules.throttled, Sign::Bad),
        Some(_) => (seen + 1, Sign::Unknown),
    };
    let (thermal, brake);
    (memory.thermal, thermal) = bit(HW_THERMAL, memory.thermal);
    (memory.brake, brake) = bit(HW_POWER_BRAKE, memory.brake);
    let ecc = match errors {
        None => Sign::Unknown,
        Some(0) => Sign::Good,
        Some(_) if grew => Sign::Bad,
        // Errors since the driver loaded whose row is remapped already are over, and not gone.
        Some(_) if gpu.row_remap_pending.is_known_and(|p| !p) => Sign::Unknown,
        Some(_) => Sign::Bad,
    };
    let key = |fault: &str| (fault.to_owned(), Some(name.to_owned()));
    for fault in FAULTS {
        let sign = match fault {
            WISH => match gpu.recovery_action.known() {
                None => Sign::Unknown,
                Some(RecoveryAction::None) => Sign::Good,
                Some(_) => Sign::Bad,
            },
            "gpu-off-bus" => match gpu.answers.known() {
                None => Sign::Unknown,
                Some(true) => Sign::Good,
                Some(false) => Sign::Bad,
            },
            "gpu-ecc-uncorrectable" => ecc,
            "gpu-row-remap-failure" => Sign::from(&gpu.row_remap_failure),
            "gpu-row-remap-pending" => Sign::from(&gpu.row_remap_pending),
            "gpu-hw-thermal" => thermal,
            "gpu-power-brake" => brake,
            _ => Sign::No,
        };
        let tells = |x: &u32| xid::fault_of(*x) == Some(fault);
        let fresh = changed.filter(tells);
        let recent = gpu
            .recent_xids
            .known()
            .and_then(|all| all.iter().find(|(x, times)| **times > 0 && tells(x)).map(|(x, _)| *x));
        if let Some(xid) = fresh.or(recent) {
            firing.insert(key(fault), format!("XID {xid}"));
        } else if sign == Sign::Bad {
            firing.insert(key(fault), says(fault, gpu));
        } else if matches!(sign, Sign::Good | Sign::No) && gauge.is_some_and(|x| !tells(&x)) {
            over.insert(key(fault));
        }
    }
    // A wish for a reset is news where nothing else of this GPU explains it; a wish for more always is.
    let wish = key(WISH);
    let more = gpu.recovery_action.is_known_and(|a| *a == RecoveryAction::Reboot);
    let explained = |f: &GpuFault| f.1.as_deref() == Some(name) && f.0 != WISH;
    if !more && (firing.keys().any(explained) || standing.iter().any(explained)) {
        firing.remove(&wish);
    }
}

fn says(fault: &str, gpu: &Gpu) -> String {
    match fault {
        WISH => {
            let wish = gpu.recovery_action.known().map_or("something", |a| a.as_str());
            format!("the driver asks for {wish}")
        }
        "gpu-off-bus" => "the GPU does not answer".to_owned(),
        "gpu-ecc-uncorrectable" => {
            let errors = gpu.ecc_dbe_volatile.known().copied().unwrap_or_default();
            format!("{errors} uncorrectable memory errors since the driver loaded")
        }
        "gpu-row-remap-failure" => "a row could not be remapped".to_owned(),
        "gpu-row-remap-pending" => "a row remap waits for a reset".to_owned(),
        "gpu-hw-thermal" => "the hardware slows the GPU down: heat".to_owned(),
        _ => "the hardware slows the GPU down: power brake".to_owned(),
    }
}
