//! Alerts about the fabric, file systems, and the tools that watch.

use super::candidate::{Candidate, tells_of_a_change};
use super::reason::ReasonCode::{
    ConfigChangeSuspected, Informational, InsufficientEvidence, Resolved, StorageIncident, UnknownCode,
    UntrustedText,
};
use super::situation::{SeenAlert, Situation};
use crate::knowledge::Knowledge;
use serde_json::Value;
use std::collections::BTreeMap;

/// How long a port must be down, in seconds.
const PORT_DOWN_S: f64 = 300.0;
/// How long the fabric manager may take to start, in seconds.
const MANAGER_STARTS_S: f64 = 600.0;

/// What an SXid speaks for. The word in the line counts more than its number.
pub(super) fn sxid(known: &Knowledge, code: Option<u32>, text: Option<&str>) -> Candidate {
    let text = text.unwrap_or_default().to_lowercase();
    let by_word = match (text.contains("non-fatal") || text.contains("nonfatal"), text.contains("fatal")) {
        (true, _) => Some(false),
        (false, true) => Some(true),
        (false, false) => None,
    };
    let says = code.map_or("SXid".to_owned(), |c| format!("SXid {c}"));
    match by_word.or_else(|| known.sxid_is_fatal(code?)) {
        Some(true) => Candidate::of_fault(known, "nvswitch-sxid-fatal", format!("{says} is fatal")),
        Some(false) => Candidate::of_fault(known, "nvswitch-sxid-nonfatal", format!("{says} is not fatal")),
        None => Candidate::person(UnknownCode, format!("{says} does not say whether it is fatal")),
    }
}

/// What the state of the fabric manager speaks for.
pub(super) fn manager(s: &Situation, known: &Knowledge, a: &SeenAlert) -> Candidate {
    let model = s.node.text("model").unwrap_or_default().to_uppercase();
    let has_switch = !model.contains("PCIE")
        && known.generation(&model).is_none_or(|g| g.containment)
        && !model.contains("A30");
    if !has_switch {
        return Candidate::nothing(Informational, "a node without NVSwitch has no fabric manager");
    }
    let version = |n: &str| s.context.words(n).trim().to_owned();
    let (fm, driver) = (version("fm_version"), version("driver_version"));
    if !fm.is_empty() && !driver.is_empty() && fm != driver {
        return Candidate::person(
            ConfigChangeSuspected,
            "fabric manager and driver are of different versions",
        );
    }
    let value = a.facts.text("value").map(str::to_lowercase);
    let number = a.facts.whole("value").or(match value.as_deref() {
        Some("not_started" | "failed" | "failure" | "inactive") => Some(4),
        Some("success") => Some(3),
        Some("in_progress") => Some(2),
        Some("not_supported") => Some(0),
        _ => None,
    });
    let down = |says: &str| Candidate::of_fault(known, "fabric-manager-down", says);
    match number {
        Some(0) => Candidate::nothing(Informational, "this GPU has no fabric manager"),
        Some(1) => down("the fabric manager was not started"),
        Some(2) if a.facts.number("for_s").is_some_and(|t| t > MANAGER_STARTS_S) => {
            down("the fabric manager does not come up")
        }
        Some(2) => Candidate::nothing(Informational, "the fabric manager starts: ten minutes are allowed"),
        Some(3) => Candidate::nothing(Resolved, "the fabric manager runs"),
        Some(4) => down("the fabric manager failed"),
        _ => Candidate::person(InsufficientEvidence, "the state of the fabric manager is not known"),
    }
}

/// What a port that is down speaks for.
pub(super) fn port_down(known: &Knowledge, a: &SeenAlert) -> Candidate {
    if a.facts.words("text").contains("init") {
        return Candidate::person(
            InsufficientEvidence,
            "the link is up and not active: the subnet manager, not this node",
        );
    }
    if a.facts.number("transitions_20m").is_some_and(|n| n >= 4.0) {
        return Candidate::of_fault(
            known,
            "ib-link-flap",
            "a port goes up and down: it counts as flapping for a day",
        );
    }
    match a.facts.number("for_s") {
        Some(t) if t < PORT_DOWN_S => {
            Candidate::nothing(InsufficientEvidence, format!("the port is down for {t} s only"))
        }
        _ => Candidate::of_fault(known, "ib-port-down", "a port of the fabric is down"),
    }
}

/// What clients that lost their file system speak for.
pub(super) fn storage(s: &Situation, known: &Knowledge, clients: f64) -> Candidate {
    let all = s.cluster.number("nodes").unwrap_or_default();
    let named = s.nodes().len() as f64;
    let clients = clients.max(named);
    if clients >= 3.0 || (all > 0.0 && clients / all >= 0.02) {
        let says = format!("{clients} clients lost their file system");
        return Candidate { weight: 45, ..Candidate::of_fault(known, "lustre-hang", says) };
    }
    if super::node::storage_is_sick(s) {
        return Candidate {
            weight: 40,
            ..Candidate::nothing(StorageIncident, "the incident of the file system is open already")
        };
    }
    Candidate::person(InsufficientEvidence, "few clients lost their file system: it may be the client")
}

/// What NCCL time-outs speak for; a sick file system looks the same.
pub(super) fn nccl(s: &Situation, known: &Knowledge) -> Candidate {
    if super::node::storage_is_sick(s) {
        return Candidate {
            weight: 40,
            ..Candidate::nothing(StorageIncident, "a file system is sick, which looks the same")
        };
    }
    Candidate::of_fault(known, "nccl-timeout", "a collective operation timed out")
}

/// Operations by job, and who owns each job.
fn counts(a: &SeenAlert) -> (BTreeMap<&str, f64>, BTreeMap<&str, String>) {
    let entries = |name: &str| match a.facts.get(name) {
        Some(Value::Object(o)) => o.iter().collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    let jobs = entries("counts").into_iter().filter_map(|(k, v)| Some((k.as_str(), v.as_f64()?))).collect();
    let owner = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    (jobs, entries("users").into_iter().map(|(k, v)| (k.as_str(), owner(v))).collect())
}

/// Words for a job that is not the one it says.
const NO_JOB: &[&str] = &[
    "not found",
    "unknown",
    "no such",
    "missing",
    "mismatch",
    "other user",
    "nonexist",
    "does not exist",
    "ended",
];

/// What operations on metadata speak for: jobs above the threshold first, then users by the sum of their jobs, and where
/// nobody alone is above it, a quarantine.
pub(super) fn changelog(s: &Situation, known: &Knowledge, a: &SeenAlert) -> Candidate {
    let (Some(limit), (jobs, owners)) = (a.facts.number("threshold"), counts(a)) else {
        return Candidate::person(InsufficientEvidence, "operations without a threshold");
    };
    let total: f64 = jobs.values().sum();
    if total < limit {
        return Candidate::nothing(Informational, format!("{total} operations, {limit} are allowed"));
    }
    let state = s.context.words("job_state");
    if NO_JOB.iter().any(|w| state.contains(w)) {
        let says = "the job of the change log does not exist, or belongs to somebody else";
        return Candidate::person(UntrustedText, says);
    }
    let mut who: Vec<&str> =
        jobs.iter().filter(|(_, n)| **n > limit || jobs.len() == 1).map(|(j, _)| *j).collect();
    if who.is_empty() {
        let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
        for (job, n) in &jobs {
            if let Some(user) = owners.get(job) {
                *sums.entry(user).or_default() += n;
            }
        }
        who = sums.into_iter().filter(|(_, n)| *n > limit).map(|(user, _)| user).collect();
    }
    let alone = !who.is_empty();
    if !alone {
        who = jobs.iter().max_by(|x, y| x.1.total_cmp(y.1)).map(|(j, _)| *j).into_iter().collect();
    }
    let nobody = |w: &&str| {
        let user = owners.get(w).map_or(*w, String::as_str);
        ["root", "system", "slurm", "unknown", "none", "", "0"].contains(&user)
    };
    if who.iter().all(nobody) {
        return Candidate::person(
            InsufficientEvidence,
            "the operations are the system's own, or nobody's that is known",
        );
    }
    let told = s.told();
    let goes_on = ["notified", "mail", "told", "warned", "persist", "still"].iter().any(|w| told.contains(w))
        || ["notified", "owner_notified", "persists"].iter().any(|n| s.context.holds(n) == Some(true));
    let says = format!("{} of {total} operations, {limit} are allowed", who.join(", "));
    if alone && !goes_on {
        return Candidate::of_fault(known, "lustre-metadata-overuse", says);
    }
    let after =
        if alone { "the owner was told, and it goes on" } else { "nobody alone is above the threshold" };
    Candidate::playbook("lustre-overuse-quarantine", "lustre-metadata-overuse", format!("{says}: {after}"))
}

/// What a tool that is silent speaks for: never for a fault of its node.
pub(super) fn tool(s: &Situation, a: &SeenAlert) -> Candidate {
    if tells_of_a_change(s) {
        return Candidate::person(ConfigChangeSuspected, format!("{}: after a change", a.name));
    }
    Candidate::person(
        InsufficientEvidence,
        format!("{}: a tool is silent, which says nothing of the node", a.name),
    )
}
