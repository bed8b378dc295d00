//! Fault words by strength: of several faults on one node the strongest decides what is done.

/// What a fault is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strength {
    /// A word this release does not know: recorded, never acted on by a guess.
    Unknown,
    /// The application's own doing.
    Application,
    /// Contained or corrected by the hardware.
    Contained,
    /// Links and fabric.
    Fabric,
    /// The node's daemons and files.
    Node,
    /// Hangs of a GPU or its firmware.
    Hang,
    /// Memory that cannot be repaired by a reset.
    Hardware,
    /// An error that was not contained.
    Uncontained,
    /// The GPU is gone.
    Lost,
    /// The driver says itself what it needs.
    DriverAsks,
}

/// One known fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Its word.
    pub word: &'static str,
    /// How strong it is as evidence.
    pub strength: Strength,
}

const fn fault(word: &'static str, strength: Strength) -> Fault {
    Fault { word, strength }
}

/// The faults that are known, after `knowledge/faults.yaml` and the selection rules of the catalogue.
pub static FAULTS: &[Fault] = &[
    fault("gpu-recovery-action-set", Strength::DriverAsks),
    fault("gpu-off-bus", Strength::Lost),
    fault("gpu-count-mismatch", Strength::Lost),
    fault("gpu-ecc-uncorrectable", Strength::Uncontained),
    fault("gpu-row-remap-failure", Strength::Hardware),
    fault("gpu-sram-threshold", Strength::Hardware),
    fault("gpu-page-retirement-volta", Strength::Hardware),
    fault("gpu-inforom-corrupt", Strength::Hardware),
    fault("gpu-firmware-hang", Strength::Hang),
    fault("hung-task", Strength::Hang),
    fault("cpu-lockup", Strength::Hang),
    fault("kernel-panic-or-unexpected-boot", Strength::Node),
    fault("fs-read-only", Strength::Node),
    fault("disk-full", Strength::Node),
    fault("nvme-failure", Strength::Node),
    fault("memory-uncorrected-host", Strength::Node),
    fault("dimm-lost", Strength::Node),
    fault("node-not-responding", Strength::Node),
    fault("slurm-kill-task-failed", Strength::Node),
    fault("slurm-prolog-epilog-failure", Strength::Node),
    fault("slurm-invalid-registration", Strength::Node),
    fault("slurm-ghost-job-reconcile", Strength::Node),
    fault("slurm-node-out-unexplained", Strength::Node),
    fault("nhc-check-failed", Strength::Node),
    fault("nvlink-down", Strength::Fabric),
    fault("nvlink-errors", Strength::Fabric),
    fault("nvswitch-sxid-fatal", Strength::Fabric),
    fault("fabric-manager-down", Strength::Fabric),
    fault("ib-port-down", Strength::Fabric),
    fault("gpu-row-remap-pending", Strength::Contained),
    fault("gpu-contained-error", Strength::Contained),
    fault("gpu-ecc-corrected-rate", Strength::Contained),
    fault("memory-corrected-host", Strength::Contained),
    fault("gpu-hw-thermal", Strength::Contained),
    fault("gpu-power-brake", Strength::Contained),
    fault("gpu-clock-straggler", Strength::Contained),
    fault("host-oom", Strength::Application),
    fault("nccl-timeout", Strength::Application),
];

/// Says whether a fault word tells that a node is out, or was, and not why: somebody should look at it.
pub fn tells_no_cause(word: &str) -> bool {
    matches!(
        word,
        "node-not-responding"
            | "kernel-panic-or-unexpected-boot"
            | "slurm-kill-task-failed"
            | "slurm-prolog-epilog-failure"
            | "slurm-node-out-unexplained"
            | "slurm-node-drained"
            | "slurm-node-failing"
            | "nhc-check-failed"
    )
}

/// Finds the strength of a fault word.
pub fn strength(word: &str) -> Strength {
    FAULTS.iter().find(|f| f.word == word).map_or(Strength::Unknown, |f| f.strength)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_the_order_is_that_of_the_selection_rules() {
        let words: std::collections::BTreeSet<_> = FAULTS.iter().map(|f| f.word).collect();
        assert_eq!(words.len(), FAULTS.len());
        let order = [
            "gpu-recovery-action-set",
            "gpu-off-bus",
            "gpu-ecc-uncorrectable",
            "gpu-row-remap-failure",
            "gpu-firmware-hang",
            "nvlink-down",
            "gpu-contained-error",
            "host-oom",
            "no-such-word",
        ];
        for pair in order.windows(2) {
            assert!(strength(pair[0]) > strength(pair[1]), "{pair:?}");
        }
    }
}
