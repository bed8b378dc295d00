//! The declared facts: every name a condition or a template may use.

use crate::fact::Source;
use crate::value::{EnumType, Type};

/// One declared fact.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FactDecl {
    /// Dotted name, e.g. `gpu.ecc_dbe_volatile`.
    pub name: &'static str,
    /// Its type.
    pub ty: Type,
    /// Unit, empty where there is none.
    pub unit: &'static str,
    /// Meaning, one sentence.
    pub doc: &'static str,
    /// Sources that can give it, best first.
    pub sources: &'static [Source],
    /// Whether it only exists for targets that are GPUs.
    pub per_gpu: bool,
}

/// The words of `node.state`.
pub static NODE_STATE: EnumType = EnumType {
    name: "node.state",
    words: &[
        ("IDLE", "nothing runs, jobs may start"),
        ("MIXED", "some of it is allocated"),
        ("ALLOCATED", "all of it is allocated"),
        ("COMPLETING", "no allocation left, the epilog or a kill still goes on"),
        ("DRAINING", "DRAIN or FAIL is set and something still runs or completes"),
        ("DRAINED", "DRAIN or FAIL is set and nothing runs; a suspended job may still sit there"),
        ("MAINT", "in a MAINT reservation, not drained"),
        ("RESERVED", "in an ordinary reservation, nothing runs"),
        ("DOWN", "DOWN"),
        ("NOT_RESPONDING", "does not answer slurmctld"),
        ("REBOOTING", "a reboot was asked for or is going on"),
        ("POWER", "power saving has it, or is taking or giving it"),
        ("INVALID_REG", "slurmd registered with less than slurm.conf says"),
        ("FUTURE", "configured for later; not part of the cluster"),
        ("BLOCKED", "Slurm does not schedule it now: BLOCKED or EXTERNAL"),
        ("UNKNOWN", "not registered yet, or a base state or flag nobody here has seen"),
    ],
};

/// The words of `gpu.recovery_action`.
pub static RECOVERY_ACTION: EnumType = EnumType {
    name: "gpu.recovery_action",
    words: &[
        ("none", "nothing is needed"),
        ("reset", "reset the GPU"),
        ("reboot", "reboot the node"),
        ("drain_p2p", "drain peer-to-peer traffic, then ask again"),
        ("drain_and_reset", "drain, then reset"),
    ],
};

/// The words of `gpu.health`.
pub static HEALTH: EnumType = EnumType {
    name: "gpu.health",
    words: &[("pass", "nothing found"), ("warn", "something worth a look"), ("fail", "not fit for service")],
};

macro_rules! facts {
    ($( $name:literal : $ty:expr, $unit:literal, [$($src:ident),*], $gpu:literal, $doc:literal; )*) => {
        /// Every declared fact, in the order of documentation.
        pub static FACTS: &[FactDecl] = &[
            $( FactDecl { name: $name, ty: $ty, unit: $unit, doc: $doc, sources: &[$(Source::$src),*], per_gpu: $gpu }, )*
        ];
    };
}

facts! {
    "node.name": Type::Text, "", [Slurm], false, "Name of the node in slurm.conf.";
    "node.state": Type::Enum(&NODE_STATE), "", [Slurm], false, "Our classification of Slurm's base state and flags.";
    "node.drained_by_us": Type::Bool, "", [Engine, Slurm], false, "The node carries a drain whose reason names a run of this journal, unchanged since.";
    "node.reason": Type::Text, "", [Slurm], false, "Text of the administrative reason; empty where there is none.";
    "node.reason_user": Type::Text, "", [Slurm], false, "Who wrote the reason; empty where there is none.";
    "node.responding": Type::Bool, "", [Slurm], false, "slurmd answers slurmctld.";
    "node.partitions": Type::TextList, "", [Slurm], false, "Partitions the node is in.";
    "node.features": Type::TextList, "", [Slurm], false, "Active features of the node.";
    "node.gpus_configured": Type::Int, "GPUs", [Slurm], false, "GPUs that slurm.conf gives the node.";
    "node.gpus_allocated": Type::Int, "GPUs", [Slurm], false, "GPUs allocated to jobs. 0 is no proof that the epilog ended.";
    "node.slurmd_version": Type::Version, "", [Slurm], false, "Version of slurmd on the node.";
    "node.in_maintenance": Type::Bool, "", [Slurm], false, "A MAINT reservation that is not ours covers the node now.";
    "node.reserved": Type::Bool, "", [Slurm], false, "Any reservation that is not ours covers the node now.";
    "active_jobs": Type::Int, "jobs", [Slurm], false, "Jobs that hold the node: running, completing, configuring or suspended; a COMPLETING flag of the node counts as one.";
    "suspended_jobs": Type::Int, "jobs", [Slurm], false, "Suspended or stopped jobs on the node: their processes are frozen and may hold GPU memory.";
    "slurm.version": Type::Version, "", [Slurm], false, "Release of slurmctld.";
    "dcgm.version": Type::Version, "", [NodeTools], false, "Version of nv-hostengine.";
    "dcgm.up": Type::Bool, "", [NodeTools], false, "nv-hostengine answers.";
    "dcgm.driver_attached": Type::Bool, "", [NodeTools], false, "DCGM is attached to the driver; without it health says Healthy whatever the GPUs do.";
    "dcgm.exporter_up": Type::Bool, "", [DcgmExporter, NodeTools], false, "dcgm-exporter answers.";
    "driver.version": Type::Version, "", [NodeTools, DcgmExporter], false, "NVIDIA driver version.";
    "gpus.found": Type::Int, "GPUs", [NodeTools, DcgmExporter], false, "GPUs that the telemetry sees on the node.";
    "gpus.answering": Type::Int, "GPUs", [NodeTools, DcgmExporter], false, "GPUs of them that answer their reads.";
    "gpu.index": Type::Int, "", [NodeTools, DcgmExporter], true, "DCGM's id of the GPU; not stable over reboots.";
    "gpu.uuid": Type::Text, "", [NodeTools, DcgmExporter], true, "UUID of the GPU.";
    "gpu.bus_id": Type::Text, "", [NodeTools, DcgmExporter], true, "PCI address of the GPU.";
    "gpu.serial": Type::Text, "", [NodeTools], true, "Serial number of the board.";
    "gpu.model": Type::Text, "", [NodeTools, DcgmExporter], true, "Model name.";
    "gpu.answers": Type::Bool, "", [NodeTools, DcgmExporter], true, "The GPU answers its management reads; false is a lost GPU.";
    "gpu.xid": Type::Int, "", [NodeTools, DcgmExporter], true, "Last XID since the DCGM engine started, 0 for none. Sticky: a reset does not clear it.";
    "gpu.ecc_sbe_volatile": Type::Int, "errors", [NodeTools, DcgmExporter], true, "Correctable memory errors since the driver loaded.";
    "gpu.ecc_dbe_volatile": Type::Int, "errors", [NodeTools, DcgmExporter], true, "Uncorrectable memory errors since the driver loaded.";
    "gpu.ecc_dbe_aggregate": Type::Int, "errors", [NodeTools, DcgmExporter], true, "Uncorrectable memory errors of the board's life.";
    "gpu.row_remap_pending": Type::Bool, "", [NodeTools, DcgmExporter], true, "A row remap waits for the next reset.";
    "gpu.row_remap_failure": Type::Bool, "", [NodeTools, DcgmExporter], true, "Row remapping failed: hardware service.";
    "gpu.rows_remapped": Type::Int, "rows", [NodeTools, DcgmExporter], true, "Rows remapped for uncorrectable errors.";
    "gpu.recovery_action": Type::Enum(&RECOVERY_ACTION), "", [NodeTools, DcgmExporter], true, "What the driver says is needed (DCGM 4.5 and later; unknown before).";
    "gpu.health": Type::Enum(&HEALTH), "", [NodeTools], true, "Worst finding of DCGM's health check for this GPU.";
    "gpu.temperature": Type::Float, "°C", [NodeTools, DcgmExporter], true, "GPU temperature.";
    "gpu.memory_temperature": Type::Float, "°C", [NodeTools, DcgmExporter], true, "Memory temperature.";
    "gpu.power": Type::Float, "W", [NodeTools, DcgmExporter], true, "Power draw.";
    "gpu.sm_clock": Type::Float, "MHz", [NodeTools, DcgmExporter], true, "SM clock.";
    "gpu.utilization": Type::Float, "%", [NodeTools, DcgmExporter], true, "Share of time in which a kernel ran.";
    "gpu.processes": Type::Int, "processes", [NodeTools], true, "Processes that hold the GPU.";
    "gpu.persistence_mode": Type::Bool, "", [NodeTools], true, "Persistence mode is on.";
    "gpu.mig_enabled": Type::Bool, "", [NodeTools, DcgmExporter], true, "MIG mode is on.";
    "gpu.nvlinks_down": Type::Int, "links", [NodeTools], true, "NVLinks that are down though they should be up.";
    "alert.id": Type::Text, "", [Request], false, "Identifier of the alert or ticket that asked for the run; empty where a person asked.";
    "alert.age": Type::Duration, "", [Request, Engine], false, "Time since the alert was last seen firing.";
}

/// Finds a declared fact.
pub fn find(name: &str) -> Option<&'static FactDecl> {
    FACTS.iter().find(|f| f.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_documented() {
        for (i, f) in FACTS.iter().enumerate() {
            assert!(FACTS[i + 1..].iter().all(|g| g.name != f.name), "{} twice", f.name);
            assert!(f.doc.ends_with('.'), "{}", f.name);
            assert!(!f.sources.is_empty(), "{}", f.name);
        }
    }
}
