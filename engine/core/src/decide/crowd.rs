//! Many nodes at once: one incident of the rack, the driver or the fleet, in the place of many of nodes.

use super::candidate::{Candidate, Lead};
use super::reason::ReasonCode::{ConfigChangeSuspected, FacilityIncident, InsufficientEvidence};
use super::situation::Situation;
use std::collections::{BTreeMap, BTreeSet};

/// Nodes of one rack with one signal that make it the rack's.
const RACK: usize = 3;
/// Share of the fleet that freezes everything, in percent.
const FLEET: f64 = 10.0;
/// Share of a partition that freezes everything, in percent.
const PARTITION: f64 = 20.0;

/// Playbooks for what a file system that hangs explains.
const BY_STORAGE: &[&str] = &[
    "slurm-kill-task-failed",
    "slurm-ghost-job-reconcile",
    "slurm-not-responding-probe",
    "slurm-prolog-epilog-failure",
];

/// Finds how many nodes the partition has, where that is said.
fn partition(s: &Situation) -> Option<f64> {
    ["partition_nodes", "partition_size", "nodes_in_partition"].iter().find_map(|n| s.cluster.number(n))
}

/// Finds the rack of a node by the number at the end of its name.
fn rack(s: &Situation, node: &str) -> Option<u32> {
    let digits =
        node.rfind(|c: char| !c.is_ascii_digit()).map_or(node, |i| node.get(i + 1..).unwrap_or_default());
    let per = s.cluster.whole("nodes_per_rack").filter(|n| *n > 0)?;
    Some(digits.parse::<u32>().ok()?.checked_sub(1)? / per)
}

/// Says what all candidates together speak for, where they are about many nodes.
pub(super) fn crowd(s: &Situation, all: &[Candidate]) -> Option<Candidate> {
    // A file system that hangs explains what cannot end and what does not answer.
    let leads_to =
        |c: &Candidate, ids: &[&str]| matches!(&c.lead, Lead::Playbook(id) if ids.contains(&id.as_str()));
    let storage = all.iter().any(|c| leads_to(c, &["storage-hang-hold"]));
    let explained = |c: &Candidate| storage && leads_to(c, BY_STORAGE);
    let critical: Vec<&Candidate> = all.iter().filter(|c| c.is_critical() && !explained(c)).collect();
    let nodes: BTreeSet<&str> = critical.iter().flat_map(|c| &c.nodes).map(String::as_str).collect();
    let told = critical.iter().filter_map(|c| c.spread).fold(0.0, f64::max);
    let count = told.max(nodes.len() as f64);
    if count < RACK as f64 {
        return None;
    }
    let share = |of: Option<f64>| of.filter(|n| *n > 0.0).map_or(0.0, |n| count * 100.0 / n);
    let mut racks: BTreeMap<u32, usize> = BTreeMap::new();
    for node in &nodes {
        if let Some(r) = rack(s, node) {
            *racks.entry(r).or_default() += 1;
        }
    }
    let full = racks.values().filter(|n| **n >= RACK).count();
    let too_many = share(s.cluster.number("nodes")) > FLEET || share(partition(s)) > PARTITION || full >= 2;
    if too_many {
        let says = format!("{count} nodes have critical alerts: everything is frozen");
        return Some(Candidate {
            weight: 1_000,
            ..Candidate::playbook("fleet-breaker", "fleet-correlated-fault", says)
        });
    }
    let leads = |id: &str| critical.iter().all(|c| c.lead == Lead::Playbook(id.to_owned()));
    let n = nodes.len();
    if leads("thermal-throttle-enrich") || leads("power-brake-ticket") {
        let first = critical.first().map(|c| (*c).clone())?;
        let says = format!("{n} nodes of one rack: one incident of the rack");
        return Some(Candidate { weight: 900, code: Some(FacilityIncident), says, ..first });
    }
    let limit_and_code = if leads("slurm-prolog-epilog-failure") || leads("slurm-invalid-registration") {
        Some((4, ConfigChangeSuspected, "the same on so many nodes comes from a script or a change"))
    } else if leads("gpu-hang-drain-reset") {
        Some((4, ConfigChangeSuspected, "the same hang on so many nodes comes from the driver"))
    } else if leads("slurm-not-responding-probe") {
        Some((5, FacilityIncident, "so many silent nodes are a matter of network, power or the controller"))
    } else if leads("slurm-ghost-job-reconcile") || leads("slurm-kill-task-failed") {
        Some((
            RACK,
            super::reason::ReasonCode::StorageIncident,
            "so many nodes are a matter of storage or the controller",
        ))
    } else {
        None
    };
    if let Some((limit, code, says)) = limit_and_code
        && n >= limit
    {
        return Some(Candidate { weight: 900, ..Candidate::person(code, format!("{n} nodes: {says}")) });
    }
    if full >= 1 {
        let says = format!(
            "{n} nodes, {RACK} or more of one rack: an incident of the rack or its switch, not of the nodes"
        );
        return Some(Candidate { weight: 900, ..Candidate::person(FacilityIncident, says) });
    }
    None
}

/// Says what all GPUs of one node at once speak for: one look further up, never one reset each.
pub(super) fn whole_node(s: &Situation, all: &[Candidate]) -> Option<Candidate> {
    let total = s.node.whole("gpus").filter(|n| *n > 1)?;
    let resets = [
        "dcgm-ecc-drain-reset",
        "gpu-hang-drain-reset",
        "gpu-idle-window-reset",
        "nvlink-fault-diag-reset",
        "gpu-remap-failure-rma",
    ];
    let takes = |c: &&Candidate| matches!(&c.lead, Lead::Playbook(id) if resets.contains(&id.as_str()));
    let gpus: BTreeSet<&str> = all.iter().filter(takes).filter_map(|c| c.gpu.as_deref()).collect();
    let everything = gpus.contains("all") || gpus.len() >= total as usize;
    everything.then(|| Candidate {
        weight: 900,
        ..Candidate::person(
            InsufficientEvidence,
            "all GPUs of the node at once: look at power, fabric manager, driver and PCIe switch",
        )
    })
}
