//! What forbids anything before a fault is looked at, and what forbids a plan that takes something away.

use super::candidate::Lead;
use super::owner::{Owner, is_moving};
use super::reason::ReasonCode::{
    self, BreakerOpen, BudgetExhausted, ControllerUnreachable, Duplicate, ForeignDrain, InsufficientEvidence,
    LeaseHeld, MaintReservation, RebootInProgress, RepeatOffender, Resolved, StaleAlert, UnknownNode,
    UntrustedText,
};
use super::situation::{SeenAlert, Situation};
use crate::model::node_state::parse_state_text;
use serde_json::Value;

/// Oldest alert that counts, in seconds.
const FRESH_S: f64 = 600.0;
/// How far into the future a clock may be, in seconds.
const SKEW_S: f64 = 300.0;
/// Repairs in thirty days from which on a node is a person's.
const REPEATS: f64 = 3.0;

/// Alerts that stay although their source says that it is over.
const LATCHED: &[&str] = &["IbLinkFlap", "NcclTimeout"];

/// Says whether an alert is over.
pub(super) fn is_over(a: &SeenAlert) -> bool {
    let flaps = a.facts.number("transitions_20m").is_some_and(|n| n >= 2.0);
    let resolved = a.facts.text("status").is_some_and(|s| s.eq_ignore_ascii_case("resolved"));
    resolved && !flaps && !LATCHED.contains(&a.name.as_str())
}

/// Says whether an alert is too old, by the clock of the receiver: what the sender's clock is off by does not count.
pub(super) fn is_stale(s: &Situation, a: &SeenAlert) -> bool {
    let Some(age) = a.facts.number("age_s") else { return true };
    let off = s.context.number("time_offset_s").unwrap_or_default().abs();
    let fits = |age: f64| (-SKEW_S..=FRESH_S).contains(&age);
    !(fits(age) || (off > 0.0 && (fits(age - off) || fits(age + off))))
}

/// What forbids to look at any fault.
pub(super) fn before(s: &Situation) -> Option<(Lead, String)> {
    let nothing = |code: ReasonCode, says: &str| Some((Lead::Nothing(code), says.to_owned()));
    let person = |code: ReasonCode, says: &str| Some((Lead::Person(code), says.to_owned()));
    if s.alerts.iter().any(|a| !a.names_well) {
        return person(UnknownNode, "what the alert names as a node is not the name of one node");
    }
    if s.node.holds("known") == Some(false) {
        return person(UnknownNode, "the cluster has no node of this name");
    }
    if !s.alerts.is_empty() && s.alerts.iter().all(is_over) {
        return nothing(Resolved, "the source says that it is over");
    }
    if !s.alerts.is_empty() && s.alerts.iter().filter(|a| !is_over(a)).all(|a| is_stale(s, a)) {
        return nothing(StaleAlert, "the alert is older than ten minutes, or from the future");
    }
    if s.context.text("slurmctld").is_some_and(|c| {
        !["up", "ok", "alive", "primary", "backup", "responding"].contains(&c.to_lowercase().as_str())
    }) || s.context.holds("slurmctld") == Some(false)
    {
        return person(ControllerUnreachable, "slurmctld does not answer: nothing is known of the node");
    }
    let breaker = s.cluster.text("breaker").or_else(|| s.context.text("breaker")).unwrap_or("closed");
    if !breaker.eq_ignore_ascii_case("closed") {
        return person(BreakerOpen, "the breaker is open: people reset it");
    }
    if s.context.holds("lease") == Some(true) {
        return nothing(LeaseHeld, "another run works on the node");
    }
    if s.context.holds("duplicate") == Some(true) || s.context.holds("open_incident") == Some(true) {
        return nothing(Duplicate, "the same alert is worked on already");
    }
    let said = s.node.words("journal") + &s.told();
    if AT_WORK.iter().any(|w| said.contains(w)) {
        return nothing(Duplicate, "the same alert is worked on already");
    }
    let declared = s.alerts.iter().filter_map(|a| Some((a.facts.amount("declared_nodes")?, a.nodes.len())));
    if declared.into_iter().any(|(n, named)| n > 1.0 && n > named as f64) {
        return person(UntrustedText, "the alert declares more nodes than it is about");
    }
    None
}

/// What journal and history say where a run for this already goes on.
const AT_WORK: &[&str] = &[
    "awaiting approval",
    "awaiting_approval",
    "already running",
    "already open",
    "already handled",
    "active run",
    "same fingerprint",
    "incident open",
    "open incident",
];

/// Says whether the node is in somebody's maintenance.
fn in_maintenance(s: &Situation) -> bool {
    let words = s.node.words("reservation");
    ["MAINT", "MAINTENANCE"].iter().any(|f| s.has_flag(f))
        || (words.contains("maint") && !words.contains("slurmedic-"))
}

/// Says whether the exporter is known to be silent.
fn exporter_is_silent(s: &Situation) -> bool {
    let said = s.context.words("exporter");
    let silent =
        ["down", "absent", "dead", "stale", "silent", "timeout", "timed out", "unreachable", "missing"];
    s.context.holds("exporter") == Some(false) || silent.iter().any(|w| said.contains(w))
}

/// Playbooks that rest on what the exporter reads. A hang or a lost GPU may silence it, so theirs do not.
const BY_EXPORTER: &[&str] = &["dcgm-ecc-drain-reset", "gpu-idle-window-reset", "gpu-remap-failure-rma"];

/// What forbids to touch the node. `about_slurm` is true where the alert is about the drain itself.
pub(super) fn node(s: &Situation, owner: &Owner<'_>, about_slurm: bool) -> Option<(Lead, String)> {
    if s.node.words("reservation").contains("slurmedic-") {
        return Some((
            Lead::Nothing(LeaseHeld),
            "our lock is on the node: its run looks after it".to_owned(),
        ));
    }
    if in_maintenance(s) {
        return Some((
            Lead::Nothing(MaintReservation),
            "the node is in a reservation for maintenance".to_owned(),
        ));
    }
    if is_moving(s) {
        return Some((Lead::Nothing(RebootInProgress), "a reboot or a change of power goes on".to_owned()));
    }
    match owner {
        Owner::Somebody(words) => {
            Some((Lead::Person(ForeignDrain), format!("somebody has the node: {words}")))
        }
        Owner::OnTheWay => Some((
            Lead::Nothing(RebootInProgress),
            "somebody asked for a reboot or a change of power".to_owned(),
        )),
        Owner::Unexplained if !about_slurm => {
            Some((Lead::Person(ForeignDrain), "the node is drained, and nobody says why".to_owned()))
        }
        Owner::Us if !about_slurm => Some((
            Lead::Nothing(Duplicate),
            "the node is drained by a run of ours, which looks after it".to_owned(),
        )),
        _ => None,
    }
}

/// Words for a fault that is over, and for one that is not seen, in what is read now.
const OVER: &[&str] = &["recovered", "cleared", "resolved", "back to normal"];
const CLEAN: &[&str] = &["healthy", "clean", "no fault", "all gpus answer", "all 8 gpus", "not seen"];

/// What forbids a plan that takes something away.
pub(super) fn plan(s: &Situation, playbook: &str, takes_out: bool) -> Option<(Lead, String)> {
    if !s.node.words("reservation").trim().is_empty() {
        return Some((Lead::Person(MaintReservation), "the node is reserved by somebody".to_owned()));
    }
    if BY_EXPORTER.contains(&playbook) && exporter_is_silent(s) {
        let says = "the exporter does not answer, so the fault cannot be confirmed";
        return Some((Lead::Person(InsufficientEvidence), says.to_owned()));
    }
    if s.node.number("prior_remediations_30d").is_some_and(|n| n >= REPEATS) {
        let says = "the node was repaired three times in thirty days: a person looks at it";
        return Some((Lead::Person(RepeatOffender), says.to_owned()));
    }
    let now = s.context.words("current");
    if OVER.iter().any(|w| now.contains(w)) {
        return Some((Lead::Nothing(Resolved), "what is read now shows that it is over".to_owned()));
    }
    if CLEAN.iter().any(|w| now.contains(w)) {
        let says = "what is read now does not show the fault: the sources disagree";
        return Some((Lead::Person(InsufficientEvidence), says.to_owned()));
    }
    let flags = s.node.get("flags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let words: Vec<&str> = std::iter::once("IDLE").chain(flags).collect();
    if !parse_state_text(&words.join("+")).1.unknown.is_empty() {
        let says = "the node has a flag that nobody here knows: its state is unknown";
        return Some((Lead::Person(InsufficientEvidence), says.to_owned()));
    }
    if !takes_out {
        return None;
    }
    let nodes = s.cluster.number("nodes").unwrap_or_default();
    let unavailable =
        s.context.amount("unavailable_before").or_else(|| s.cluster.amount("unavailable_before"));
    let of_ours = s.context.amount("already_drained_by_us_1h").unwrap_or_default();
    let mine = (nodes * 0.02).max(2.0);
    let says = match unavailable {
        None => "how much is out of service is not known",
        Some(n) if n + 1.0 > nodes * 0.1 => "a tenth of the cluster is out of service already",
        _ if of_ours + 1.0 > mine => "as many nodes as are allowed were taken out within the hour",
        _ => return None,
    };
    Some((Lead::Person(BudgetExhausted), says.to_owned()))
}
