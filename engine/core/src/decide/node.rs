//! Alerts about Slurm's view of a node, about stale states, and about the node itself.

use super::candidate::{Candidate, DOUBT, tells_of_a_change};
use super::owner::{Owner, is_moving, owner};
use super::reason::ReasonCode::{
    ConfigChangeSuspected, Duplicate, ForeignDrain, Informational, InsufficientEvidence, RebootInProgress,
    Resolved, StorageIncident, UntrustedText,
};
use super::situation::{SeenAlert, Situation};
use crate::knowledge::{HUMAN, Knowledge};

/// Programs that watch GPUs and are no leftovers of jobs.
const MONITORS: &[&str] =
    &["nv-hostengine", "dcgm", "nvidia-persiste", "nvidia-persistenced", "nvidia-smi", "telegraf"];

/// Says whether an incident of a file system is open.
pub(super) fn storage_is_sick(s: &Situation) -> bool {
    s.context.holds("storage_incident") == Some(true)
}

/// What Slurm's state of the node and its reason speak for.
pub(super) fn slurm_state(s: &Situation, known: &Knowledge, a: &SeenAlert) -> Candidate {
    match owner(s, known) {
        Owner::Somebody(words) => Candidate::person(ForeignDrain, format!("somebody has the node: {words}")),
        Owner::OnTheWay => {
            Candidate::nothing(RebootInProgress, "somebody asked for a reboot or a change of power")
        }
        Owner::Us if a.name == "StaleDrain" => stale_drain(s),
        Owner::Us => Candidate::nothing(Duplicate, "the drain is ours: its run looks after the node"),
        Owner::Slurm(_) if a.name == "StaleDrain" => {
            Candidate::person(ForeignDrain, "the drain that is left over is Slurm's own, not ours")
        }
        Owner::Slurm(told) => {
            let all: Vec<Candidate> = told
                .iter()
                .map(|p| match (&p.fault, p.playbook.as_str()) {
                    (Some(fault), id) if id != HUMAN => playbook_of(s, known, id, fault, &p.says),
                    (Some(fault), _) => Candidate::of_fault(known, fault, p.says.clone()),
                    (None, _) => Candidate::person(InsufficientEvidence, p.says.clone()),
                })
                .collect();
            let best = all.into_iter().rev().max_by_key(|c| c.weight);
            best.unwrap_or_else(|| Candidate::person(InsufficientEvidence, "the reason tells nothing"))
        }
        Owner::Unexplained => Candidate::person(InsufficientEvidence, "the node is out, and nobody says why"),
        Owner::Nobody if is_moving(s) => {
            Candidate::nothing(RebootInProgress, "a reboot or a change of power goes on")
        }
        Owner::Nobody if a.name == "SlurmNodeDown" => {
            Candidate::of_fault(known, "node-not-responding", "Slurm calls the node down")
        }
        Owner::Nobody => Candidate::nothing(Resolved, "Slurm shows no drain any more"),
    }
}

fn playbook_of(s: &Situation, known: &Knowledge, id: &str, fault: &str, says: &str) -> Candidate {
    let changed = tells_of_a_change(s) || s.context.holds("config_changed") == Some(true);
    match fault {
        "slurm-kill-task-failed" if storage_is_sick(s) => Candidate {
            weight: 40,
            ..Candidate::nothing(StorageIncident, "a file system is sick: what it explains is held")
        },
        "slurm-invalid-registration" | "gpu-count-mismatch" if changed => Candidate {
            weight: DOUBT + 90,
            ..Candidate::person(ConfigChangeSuspected, "the registration changed with the configuration")
        },
        _ if known.playbooks.contains_key(id) => Candidate::playbook(id, fault, says),
        _ => Candidate::of_fault(known, fault, says),
    }
}

fn stale_drain(s: &Situation) -> Candidate {
    let journal = s.node.words("journal");
    let verify = s.context.words("verify") + &s.context.words("current");
    let failed = |t: &str| {
        ["verify failed", "verification failed", "verify: failed", "fail", "held"]
            .iter()
            .any(|w| t.contains(w))
    };
    if failed(&journal) || failed(&verify) || s.has_flag("INVALID_REG") {
        return Candidate::person(InsufficientEvidence, "the node is not proved healthy");
    }
    Candidate::playbook(
        "node-return-to-service",
        "slurm-node-out-unexplained",
        "a drain of ours is left over",
    )
}

/// What a job that does not complete speaks for.
pub(super) fn completing(s: &Situation, known: &Knowledge) -> Candidate {
    if s.has_flag("NOT_RESPONDING") || s.has_flag("DOWN") {
        return Candidate::of_fault(
            known,
            "node-not-responding",
            "the node does not answer, so nothing completes",
        );
    }
    if storage_is_sick(s) {
        return Candidate {
            weight: 40,
            ..Candidate::nothing(StorageIncident, "a file system is sick: what it explains is held")
        };
    }
    if s.context.holds("epilog_running") == Some(true) {
        return Candidate::nothing(Informational, "the epilog still runs: wait");
    }
    if s.context.amount("d_state").is_some_and(|n| n > 0.0) {
        return Candidate::of_fault(known, "slurm-kill-task-failed", "a process waits and cannot be ended");
    }
    Candidate::of_fault(known, "stuck-completing-node", "a job does not complete, and nothing explains it")
}

/// What a process on a GPU without a job speaks for.
pub(super) fn ghost(s: &Situation, known: &Knowledge, a: &SeenAlert) -> Candidate {
    let comm = a.facts.text("comm").unwrap_or_default().to_lowercase();
    if MONITORS.iter().any(|m| comm.starts_with(m)) {
        return Candidate::nothing(Informational, format!("{comm} watches the GPUs: it is no leftover"));
    }
    let state = s.context.words("job_state").to_uppercase();
    if ["RUNNING", "COMPLETING", "SUSPENDED", "CONFIGURING", "STOPPED"].iter().any(|w| state.contains(w)) {
        return Candidate::nothing(Informational, "the process belongs to a job that lives");
    }
    if storage_is_sick(s) {
        return Candidate {
            weight: 40,
            ..Candidate::nothing(StorageIncident, "a file system is sick: what it explains is held")
        };
    }
    let cgroup = s.context.words("cgroup");
    let has_job = cgroup.contains("job") && !cgroup.contains("no job");
    if !cgroup.trim().is_empty() && !has_job {
        return Candidate::person(
            InsufficientEvidence,
            "the cgroup does not prove that the process belongs to a dead job",
        );
    }
    if s.is_busy() && !has_job {
        return Candidate::person(
            InsufficientEvidence,
            "other jobs run, and nothing proves whose the process is",
        );
    }
    if s.context.amount("d_state").is_some_and(|n| n > 0.0) {
        return Candidate::of_fault(known, "slurm-kill-task-failed", "the process waits and cannot be ended");
    }
    Candidate::of_fault(known, "ghost-job-on-node", "a process of a job that ended holds a GPU")
}

/// What a line of the kernel log speaks for.
pub(super) fn kernel_line(s: &Situation, known: &Knowledge, a: &SeenAlert) -> Candidate {
    let Some(text) = a.facts.text("text") else {
        return Candidate::person(InsufficientEvidence, "a line of the kernel log without its text");
    };
    if let Some(source) = super::gpu::open_source(a) {
        return Candidate::person(
            UntrustedText,
            format!("the line comes from {source}, where anybody can write"),
        );
    }
    if let Some(code) = super::gpu::xid_in(text) {
        return super::gpu::xid(s, known, a, code);
    }
    if let Some(sxid) = text.split_once("SXid (").and_then(|(_, r)| r.split_once("): ")).map(|(_, r)| r) {
        let digits: String = sxid.chars().take_while(char::is_ascii_digit).collect();
        return super::fabric::sxid(known, digits.parse().ok(), Some(text));
    }
    let Some(fault) = known.kernel_fault(text) else {
        return Candidate::person(
            super::reason::ReasonCode::UnknownCode,
            "a line of the kernel log that nobody knows",
        );
    };
    let count = a.facts.number("count_1h");
    match fault {
        "pcie-aer-corrected" if count.is_some_and(|n| n < 10.0) => {
            Candidate::nothing(Informational, "single corrected errors of PCIe are normal")
        }
        "nfs-hang" | "lustre-hang" => super::fabric::storage(s, known, a.nodes.len() as f64),
        "host-oom"
            if text.to_uppercase().contains("CONSTRAINT_NONE")
                || text.contains("slurmd")
                || text.contains("slurmstepd") =>
        {
            Candidate::person(InsufficientEvidence, "the host ran out of memory, or a daemon was ended")
        }
        "hung-task" if storage_is_sick(s) => Candidate {
            weight: 40,
            ..Candidate::nothing(StorageIncident, "a file system is sick: what it explains is held")
        },
        other => Candidate::of_fault(
            known,
            other,
            format!("the kernel says: {}", known.faults.get(other).map_or(other, |f| &f.id)),
        ),
    }
}
