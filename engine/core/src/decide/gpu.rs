//! Alerts about GPUs: XIDs in bursts, flags of memory, clocks, heat, links of PCIe and NVLink.

use super::candidate::{Candidate, DOUBT};
use super::reason::ReasonCode::{
    AppFault, ConfigChangeSuspected, Informational, InsufficientEvidence, UnknownCode, UntrustedText,
};
use super::situation::{SeenAlert, Situation};
use crate::knowledge::{ClockAlarm, GpuAsked, Knowledge, LinkEvent, RecoveryWish, Verdict};

/// From how many nodes on the same code of a driver is an incident of the driver.
const DRIVER_SPREAD: f64 = 3.0;
/// From how many jobs on a program's mistake on one GPU is worth a ticket.
const REPEATED_JOBS: f64 = 3.0;

/// Returns the codes of the burst, the ones in the text of kernel lines as well.
pub(super) fn codes(s: &Situation) -> Vec<u32> {
    let told = s.alerts.iter().map(|a| match a.name.as_str() {
        "GpuXid" => named(a),
        "KernelLog" => a.facts.text("text").and_then(xid_in).into_iter().collect(),
        _ => Vec::new(),
    });
    told.flatten().collect()
}

/// Returns the codes that one alert names: in its label, else in the value of the gauge, else in its text.
pub(super) fn named(a: &SeenAlert) -> Vec<u32> {
    if let Some(serde_json::Value::Array(list)) = a.facts.get("xid") {
        return list
            .iter()
            .filter_map(serde_json::Value::as_u64)
            .filter_map(|c| u32::try_from(c).ok())
            .collect();
    }
    let label = a.facts.whole("xid").or_else(|| a.facts.whole("value"));
    label.or_else(|| a.facts.text("text").and_then(xid_in)).into_iter().collect()
}

/// Returns on how many nodes the alert says that it is seen.
pub(super) fn spread(a: &SeenAlert) -> Option<f64> {
    a.facts.number("spread").or_else(|| first_number(a.facts.text("spread")?))
}

/// Finds the code in a line of the kernel log.
pub(super) fn xid_in(line: &str) -> Option<u32> {
    let (_, rest) = line.split_once("Xid (")?;
    let (_, rest) = rest.split_once("): ")?;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Finds what the driver asks for: in an XID 154 of the burst, else in the recovery action that was read.
pub(super) fn wish<'k>(s: &Situation, known: &'k Knowledge) -> Option<&'k RecoveryWish> {
    let of_154 = s.alerts.iter().filter(|a| a.name == "GpuXid" && a.facts.whole("xid") == Some(154));
    for a in of_154 {
        let by_text = a.facts.text("text").and_then(|t| known.wish_in(t));
        let by_value = a.facts.whole("value").and_then(|v| known.wishes.get(&v));
        if let Some(w) = by_text.or(by_value) {
            return Some(w);
        }
    }
    let read = s.context.get("recovery_action")?;
    match read.as_str() {
        Some(word) if s.context.number("recovery_action").is_none() => {
            let word = word.trim().to_lowercase().replace([' ', '-'], "_");
            known.wishes.values().find(|w| {
                let text = w.text.to_lowercase().replace(' ', "_");
                w.word == word
                    || text == word
                    || text.trim_end_matches("_required") == word.trim_end_matches("_required")
            })
        }
        _ => known.wishes.get(&s.context.whole("recovery_action")?),
    }
}

/// Says whether the failure flag of the row remapper is known to be set.
pub(super) fn remap_failed(s: &Situation) -> bool {
    let flags = ["remap_failure", "sram_threshold", "sram_exceeded", "sram_threshold_exceeded"];
    flags.iter().any(|f| s.context.holds(f) == Some(true))
        || s.alerts
            .iter()
            .any(|a| a.name == "RowRemapFailure" && a.facts.number("value").is_none_or(|v| v > 0.0))
}

fn model(s: &Situation) -> &str {
    s.node.text("model").unwrap_or_default()
}

/// Returns the source of an alert where anybody can write what it says.
pub(super) fn open_source(a: &SeenAlert) -> Option<String> {
    let source = a.facts.text("source").unwrap_or_default().to_lowercase();
    let open = ["job", "user", "stdout", "stderr", "logger", "untrusted", "anonymous"];
    open.iter().any(|w| source.contains(w)).then_some(source)
}

/// What an XID speaks for.
pub(super) fn xid(s: &Situation, known: &Knowledge, a: &SeenAlert, code: u32) -> Candidate {
    if let Some(source) = open_source(a) {
        return Candidate::person(
            UntrustedText,
            format!("XID {code} comes from {source}, where anybody can write"),
        );
    }
    let burst = codes(s);
    let seen = known.xid(code, GpuAsked { model: Some(model(s)), driver: None });
    let Some(x) = seen.xid else {
        return Candidate::person(UnknownCode, format!("XID {code} is not known: collect, and ask a person"));
    };
    if code == 154 {
        return xid154(s, known, &burst);
    }
    if (144..=150).contains(&code) {
        return link(s, known, a, code);
    }
    if x.status != crate::knowledge::Status::Active && seen.verdict == Verdict::Person {
        return Candidate::person(
            UnknownCode,
            format!("XID {code} is not in use on this GPU: collect, and ask a person"),
        );
    }
    match (seen.verdict, seen.playbook) {
        (Verdict::Nothing, _) => Candidate::nothing(Informational, format!("XID {code} only informs")),
        (Verdict::Playbook, Some("xid-app-annotate")) => Candidate::playbook(
            "xid-app-annotate",
            "host-oom",
            format!("XID {code} is a program's own mistake"),
        )
        .with_code(AppFault),
        (Verdict::Playbook, Some(id)) => {
            let fault = seen.counts_as.unwrap_or(x).fault.as_deref().unwrap_or_default();
            // 48 beside 94 is the same error, contained.
            if code == 48 && burst.contains(&94) && !burst.contains(&95) && !burst.contains(&140) {
                return Candidate::of_fault(known, "gpu-contained-error", "XID 48 beside 94 is contained");
            }
            let hangs = fault == "gpu-firmware-hang";
            if x.needs_witness && !has_witness(s, known, &burst, code) {
                return Candidate::person(
                    InsufficientEvidence,
                    format!("XID {code} counts only with a second witness, and there is none"),
                );
            }
            let many = spread(a).is_some_and(|n| n > DRIVER_SPREAD);
            let changed = super::candidate::tells_of_a_change(s) && s.told().contains("nodes");
            if hangs && (many || changed) {
                let says = format!(
                    "XID {code} on many nodes, or after a change of software: not this node's own fault"
                );
                return Candidate {
                    weight: DOUBT + 40,
                    fault: Some(fault.to_owned()),
                    ..Candidate::person(ConfigChangeSuspected, says)
                };
            }
            // A code without a fault of its own counts as what its playbook is for.
            let first = known.playbooks.get(id).and_then(|b| b.faults.first()).map_or("", String::as_str);
            let fault = if fault.is_empty() { first } else { fault };
            Candidate::playbook(id, fault, format!("XID {code}: {}", x.means))
        }
        _ => Candidate::person(InsufficientEvidence, format!("XID {code}: {}", seen.why.join("; "))),
    }
}

fn first_number(text: &str) -> Option<f64> {
    text.split(|c: char| !c.is_ascii_digit()).find(|t| !t.is_empty())?.parse().ok()
}

fn has_witness(s: &Situation, known: &Knowledge, burst: &[u32], code: u32) -> bool {
    let asks = wish(s, known).is_some_and(|w| w.value != 0);
    let hang = |c: &u32| {
        *c != code && known.xids.get(c).is_some_and(|x| x.fault.as_deref() == Some("gpu-firmware-hang"))
    };
    asks || burst.iter().any(hang) || s.alerts.iter().any(|a| a.name == "GpuCountMismatch")
}

/// The value leads; the companion says which playbook knows best how.
fn xid154(s: &Situation, known: &Knowledge, burst: &[u32]) -> Candidate {
    let Some(w) = wish(s, known) else {
        return Candidate::person(InsufficientEvidence, "XID 154 without a value that is understood");
    };
    if w.value == 0 {
        return Candidate::nothing(Informational, "XID 154 takes the wish of the driver back");
    }
    let companion = |c: &u32| *c != 154 && known.xids.get(c).is_some_and(|x| x.fault.is_some());
    let says = format!("XID 154: the driver asks for {}, which leads to {}", w.text, w.playbook);
    if !burst.iter().any(companion) {
        return Candidate::playbook("xid154-dispatch", crate::knowledge::WISH, says);
    }
    // With a companion the fault is known, and the value only says which rung.
    match w.word.as_str() {
        "reboot" => Candidate::playbook(&w.playbook, "gpu-off-bus", says),
        "drain_p2p" => Candidate::person(InsufficientEvidence, says),
        _ => Candidate::nothing(Informational, format!("{says}; its companion says how")),
    }
}

fn link(s: &Situation, known: &Knowledge, a: &SeenAlert, code: u32) -> Candidate {
    let listed = known.xid(code, GpuAsked { model: Some(model(s)), driver: None });
    if listed.verdict != Verdict::Playbook {
        return Candidate::person(InsufficientEvidence, format!("XID {code} does not belong to this GPU"));
    }
    let Some(event) = a.facts.text("text").and_then(LinkEvent::read).filter(|e| e.xid == code) else {
        return Candidate::person(
            InsufficientEvidence,
            format!("XID {code} cannot be decoded: its fields decide"),
        );
    };
    let Some(rule) = known.link_rule(&event) else {
        return Candidate::person(
            UnknownCode,
            format!("XID {code}: {} with status {:#x} is not known", event.unit, event.status),
        );
    };
    let driver = s
        .context
        .whole("driver")
        .or_else(|| s.context.text("driver").and_then(first_number).map(|n| n as u32));
    let word = rule.vendor_for(&event, driver);
    let says = format!("XID {code}: {} means {word}, then {}", event.unit, rule.vendor_then);
    match word {
        "IGNORE" => Candidate::nothing(Informational, says),
        "RESET_GPU" => Candidate::of_fault(known, "nvlink-down", says),
        "XID_154_EVAL" => match wish(s, known) {
            Some(w) if w.value != 0 => Candidate::of_fault(known, "nvlink-down", says),
            _ => Candidate::playbook("xid-app-annotate", "host-oom", says).with_code(AppFault),
        },
        _ => Candidate::person(InsufficientEvidence, says),
    }
}

/// What an alert about the clocks of a GPU speaks for.
pub(super) fn throttle(s: &Situation, known: &Knowledge, a: &SeenAlert) -> Candidate {
    let Some(mask) = a.facts.whole("reasons") else {
        return Candidate::person(
            InsufficientEvidence,
            "the clocks are held back, and the reasons are not known",
        );
    };
    let bit = |name: &str| known.clock_reasons.iter().any(|c| c.name == name && mask & c.bit != 0);
    let alarm = |k: ClockAlarm| known.clock_reasons.iter().any(|c| c.alarm == k && mask & c.bit != 0);
    let all: u32 = known.clock_reasons.iter().map(|c| c.bit).fold(0, |a, b| a | b);
    let says = format!("clock event reasons {mask:#x}");
    if mask & !all != 0 {
        return Candidate::person(UnknownCode, format!("{says} have a bit that nobody knows"));
    }
    if bit("hw_power_brake") {
        return Candidate::of_fault(known, "gpu-power-brake", says);
    }
    if alarm(ClockAlarm::Fault) || alarm(ClockAlarm::Sustained) {
        return Candidate::of_fault(known, "gpu-hw-thermal", says);
    }
    let used = a.facts.number("util").map_or_else(|| s.is_busy(), |u| u > 50.0);
    if (alarm(ClockAlarm::Straggler) || alarm(ClockAlarm::Peers)) && (used || bit("clocks_setting")) {
        return Candidate::of_fault(known, "gpu-clock-straggler", says);
    }
    Candidate::nothing(Informational, format!("{says} are normal"))
}

/// What a low clock speaks for, compared with the others of the job.
pub(super) fn low_clock(s: &Situation, known: &Knowledge, a: &SeenAlert) -> Candidate {
    let util = a.facts.number("util");
    if util.map_or(!s.is_busy(), |u| u <= 50.0) {
        return Candidate::nothing(Informational, "an idle GPU lowers its clock: it is not judged");
    }
    match (a.facts.number("sm_clock"), a.facts.number("peer_median")) {
        (Some(clock), Some(peers)) if peers > 0.0 && clock < 0.8 * peers => Candidate::of_fault(
            known,
            "gpu-clock-straggler",
            format!("{clock} MHz against {peers} MHz of its peers"),
        ),
        (Some(_), Some(_)) => Candidate::nothing(Informational, "the clock is near that of its peers"),
        _ => Candidate::person(InsufficientEvidence, "there are no peers to compare the clock with"),
    }
}

/// What an alert about PCIe speaks for.
pub(super) fn pcie(s: &Situation, known: &Knowledge, a: &SeenAlert) -> Candidate {
    let fault = |says: String| Candidate::of_fault(known, "pcie-link-degraded", says);
    let doubt = || Candidate::person(InsufficientEvidence, format!("{} without its numbers", a.name));
    let both = |x: &str, y: &str| Some((a.facts.number(x)?, a.facts.number(y)?));
    match a.name.as_str() {
        "PcieLinkGen" => {
            let Some((generation, most)) = both("gen", "max_gen") else { return doubt() };
            let loaded = a.facts.number("util").map_or_else(|| s.is_busy(), |u| u > 10.0);
            if generation >= most {
                Candidate::nothing(Informational, "the link runs at its generation")
            } else if loaded {
                fault(format!("the link runs at generation {generation} of {most} under load"))
            } else {
                Candidate::nothing(Informational, "an idle link lowers its generation to save power")
            }
        }
        "PcieLinkWidth" => match both("width", "max_width") {
            Some((w, most)) if w < most => fault(format!("the link has {w} lanes of {most}")),
            Some(_) => Candidate::nothing(Informational, "the link has all of its lanes"),
            None => doubt(),
        },
        _ => {
            let limit = known.pcie_replays(model(s));
            match (a.facts.number("rate_per_min"), limit) {
                (Some(rate), Some(limit)) if rate > f64::from(limit) => Candidate::of_fault(
                    known,
                    "pcie-aer-corrected",
                    format!("{rate} replays a minute, {limit} are normal"),
                ),
                (Some(rate), Some(limit)) => {
                    Candidate::nothing(Informational, format!("{rate} replays a minute, {limit} are normal"))
                }
                _ => doubt(),
            }
        }
    }
}

/// What a flag of a GPU's memory speaks for.
pub(super) fn memory_flag(s: &Situation, known: &Knowledge, a: &SeenAlert) -> Candidate {
    let value = a.facts.get("value");
    let number = a.facts.number("value");
    if number.is_none() && value.is_some_and(serde_json::Value::is_string) {
        return Candidate::person(
            InsufficientEvidence,
            format!("{} is not known, and unknown is not 0", a.name),
        );
    }
    if number.is_some_and(|n| n < 0.0) {
        return Candidate::person(InsufficientEvidence, format!("{} is not a count", a.name));
    }
    if number == Some(0.0) || a.facts.holds("value") == Some(false) {
        return Candidate::nothing(super::reason::ReasonCode::Resolved, format!("{} is 0", a.name));
    }
    match a.name.as_str() {
        "RowRemapFailure" => {
            Candidate::of_fault(known, "gpu-row-remap-failure", "a row could not be remapped")
        }
        "RowRemapPending" => {
            Candidate::of_fault(known, "gpu-row-remap-pending", "a row remap waits for a reset")
        }
        _ => {
            let remaps = known.generation(model(s)).is_none_or(|g| g.row_remap);
            if remaps {
                let says = "pages are retired only on GPUs before Ampere: the rule is not for this one";
                return Candidate::person(InsufficientEvidence, says);
            }
            let total = a.facts.number("count").or(number).unwrap_or_default();
            if total >= 63.0 {
                let says = format!("{total} retired pages: the limit is reached");
                return Candidate::playbook("gpu-remap-failure-rma", "gpu-row-remap-failure", says);
            }
            Candidate::of_fault(known, "gpu-page-retirement-volta", "a page waits for its retirement")
        }
    }
}

/// Says whether a program's mistake was seen on this GPU with several jobs.
pub(super) fn is_repeated(s: &Situation) -> bool {
    let many = |f: &super::situation::Facts, n: &str| f.amount(n).is_some_and(|x| x >= REPEATED_JOBS);
    ["distinct_jobs", "repeat_jobs", "jobs_affected", "repeats", "repeats_24h"]
        .iter()
        .any(|n| many(&s.context, n))
        || s.alerts.iter().any(|a| many(&a.facts, "spread") || many(&a.facts, "count"))
        || ["jobs", "users", "same gpc", "same tpc"].iter().any(|w| s.told().contains(w))
}
