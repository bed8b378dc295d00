//! `scontrol [-o] [-d] show node(s)`.

use super::fields::{Key, Slot, scan};
use super::tail::{self, Tail};
use super::{Record, TextContext, comma_list, records};
use crate::slurm::answer::{ParseError, shorten};
use crate::slurm::gres::{gpus_in_gres, gpus_in_tres};
use engine_core::known::{Cause, Known};
use engine_core::model::node_state::{classify, parse_state_text};
use engine_core::model::{BaseState, Node, NodeFlag, NodeFlags, NodeName};
use jiff::Timestamp;
use std::str::FromStr;

const WHAT: &str = "nodes";

const NAME: usize = 0;
const STATE: usize = 1;
const PARTITIONS: usize = 2;
const FEATURES: usize = 3;
const GRES: usize = 4;
const GRES_USED: usize = 5;
const CPUS: usize = 6;
const CPUS_ALLOC: usize = 7;
const MEMORY: usize = 8;
const BOOT: usize = 9;
const SLURMD_START: usize = 10;
const VERSION: usize = 11;
const CFG_TRES: usize = 12;
const ALLOC_TRES: usize = 13;
const RESUME_AFTER: usize = 14;
const SLOTS: usize = 15;

fn lookup(key: &[u8]) -> Key {
    // By length first: most keys are of no interest, and this is where a fleet's read spends its time.
    match (key.len(), key) {
        (4, b"Gres") => Key::Slot(GRES),
        (5, b"State") => Key::Slot(STATE),
        (6, b"CPUTot") => Key::Slot(CPUS),
        (7, b"Version") => Key::Slot(VERSION),
        (7, b"CfgTRES") => Key::Slot(CFG_TRES),
        (8, b"NodeName") => Key::Slot(NAME),
        (8, b"GresUsed") => Key::Slot(GRES_USED),
        (8, b"CPUAlloc") => Key::Slot(CPUS_ALLOC),
        (8, b"BootTime") => Key::Slot(BOOT),
        (9, b"AllocTRES") => Key::Slot(ALLOC_TRES),
        (10, b"Partitions") => Key::Slot(PARTITIONS),
        (10, b"RealMemory") => Key::Slot(MEMORY),
        (14, b"ActiveFeatures") => Key::Slot(FEATURES),
        (15, b"SlurmdStartTime") => Key::Slot(SLURMD_START),
        (15, b"ResumeAfterTime") => Key::Slot(RESUME_AFTER),
        // The keys of `tail::KEYS`.
        (5, b"Extra")
        | (6, b"Reason")
        | (7, b"Comment")
        | (8, b"Topology")
        | (10, b"InstanceId" | b"Parameters")
        | (12, b"InstanceType")
        | (15, b"ReservationName" | b"TLSCertTokenSet")
        | (18, b"TLSCertLastRenewal") => Key::Stop,
        _ => Key::Skip,
    }
}

/// Parses `scontrol show node(s)` in its one-line and multi-line forms, with or without `-d`.
///
/// # Errors
/// Empty output, a reported failure (also beside good records), a record without state, two records of one name, or a
/// name that is not the name of one node.
pub fn parse_nodes(text: &str, ctx: &TextContext) -> Result<Vec<Node>, ParseError> {
    let records = records(text, WHAT, "NodeName=", "No nodes in the system")?;
    let mut nodes = Vec::with_capacity(records.len());
    for record in &records {
        nodes.push(node(record, ctx)?);
    }
    if nodes.is_empty() {
        return Err(ParseError::Empty { what: WHAT });
    }
    no_name_twice(nodes.iter().map(|n| n.name.as_str()), WHAT)?;
    Ok(nodes)
}

/// Refuses two records of one name: which one is true cannot be told.
pub(crate) fn no_name_twice<'a>(
    names: impl Iterator<Item = &'a str> + Clone,
    what: &'static str,
) -> Result<(), ParseError> {
    // Slurm prints them sorted, as a rule.
    if names.clone().zip(names.clone().skip(1)).all(|(a, b)| a < b) {
        return Ok(());
    }
    let mut sorted: Vec<&str> = names.collect();
    sorted.sort_unstable();
    match sorted.windows(2).find(|w| w[0] == w[1]) {
        Some(w) => Err(ParseError::malformed(what, 0, format!("{:?} is there twice", shorten(w[0], 80)))),
        None => Ok(()),
    }
}

fn node(record: &Record<'_>, ctx: &TextContext) -> Result<Node, ParseError> {
    let (slots, tail_at) = scan::<SLOTS>(record.text, lookup);
    let drift = |key| ParseError::Drift { what: WHAT, key, line: record.line };
    let name = slots[NAME].get().ok_or_else(|| drift("NodeName"))?;
    let name = NodeName::new(name).map_err(|e| ParseError::malformed(WHAT, record.line, e.to_string()))?;
    let (base, flags) = match slots[STATE] {
        Slot::Once(s) => parse_state_text(s),
        Slot::Missing => return Err(drift("State")),
        Slot::Unclear => unclear_state(),
    };
    let tail = if tail_at < record.text.len() {
        tail::parse(&record.text[tail_at..], record.multi_line, ctx)
    } else {
        Tail::none()
    };
    let gres = match slots[GRES] {
        Slot::Once("(null)") => Known::Known(String::new()),
        slot => value(slot, |v| Some(v.to_owned())),
    };
    let gpus_configured = value(slots[GRES], gpus_in_gres);
    let state = classify(&base, &flags);
    Ok(Node {
        gpus_allocated: gpus_allocated(&slots, &gpus_configured),
        reservation: reservation(tail.reservation, slots[RESUME_AFTER], &flags),
        name,
        base,
        flags,
        state,
        reason: tail.reason,
        partitions: match slots[PARTITIONS] {
            Slot::Missing => Known::Known(Vec::new()),
            slot => value(slot, |v| Some(comma_list(v))),
        },
        features: value(slots[FEATURES], |v| Some(comma_list(v))),
        gres,
        gpus_configured,
        cpus: number(slots[CPUS]),
        cpus_allocated: number(slots[CPUS_ALLOC]),
        memory_mib: number(slots[MEMORY]),
        boot_time: time(slots[BOOT], ctx),
        slurmd_start_time: time(slots[SLURMD_START], ctx),
        slurmd_version: match slots[VERSION] {
            Slot::Missing => Known::unknown(Cause::NotReported, "slurmd has not registered"),
            slot => value(slot, |v| (!v.is_empty()).then(|| v.to_owned())),
        },
        comment: tail.comment,
        extra: tail.extra,
    })
}

fn unclear_state() -> (Known<BaseState>, NodeFlags) {
    let mut flags = NodeFlags::default();
    flags.add_unknown("(unclear)");
    (Known::unknown(Cause::Conflicting, "the state is printed more than once, or not as one word"), flags)
}

fn value<T>(slot: Slot<'_>, parse: impl FnOnce(&str) -> Option<T>) -> Known<T> {
    match slot {
        Slot::Once(v) => match parse(v) {
            Some(t) => Known::Known(t),
            None => Known::unknown(Cause::Unparsable, shorten(v, 80)),
        },
        Slot::Missing => Known::unknown(Cause::Unsupported, ""),
        Slot::Unclear => Known::unknown(Cause::Conflicting, "printed more than once, or not as one word"),
    }
}

fn number<T: FromStr>(slot: Slot<'_>) -> Known<T> {
    if slot == Slot::Once("N/A") {
        return Known::unknown(Cause::NotReported, "");
    }
    value(slot, |v| if v.as_bytes().first().is_some_and(u8::is_ascii_digit) { v.parse().ok() } else { None })
}

fn time(slot: Slot<'_>, ctx: &TextContext) -> Known<Timestamp> {
    match slot {
        Slot::Once(v) => ctx.time(v).and_then(|t| match t {
            Some(t) => Known::Known(t),
            None => Known::unknown(Cause::NotReported, ""),
        }),
        slot => value(slot, |_| None),
    }
}

/// Allocated GPUs: printed with `-d`, or counted in the TRES where the cluster accounts for GPUs.
fn gpus_allocated(slots: &[Slot<'_>; SLOTS], configured: &Known<u32>) -> Known<u32> {
    if *configured == Known::Known(0) {
        return Known::Known(0);
    }
    match slots[GRES_USED] {
        Slot::Missing => {}
        slot => return value(slot, gpus_in_gres),
    }
    match (slots[CFG_TRES].get().and_then(gpus_in_tres), slots[ALLOC_TRES]) {
        // A TRES of which nothing is allocated is not listed.
        (Some(_), Slot::Once(used)) if !used.contains("gres/gpu=") => Known::Known(0),
        (Some(_), slot) => value(slot, gpus_in_tres),
        _ => Known::unknown(Cause::NotReported, "scontrol prints used GPUs only with -d"),
    }
}

/// Name of the reservation: printed since 23.02, which is the release that brought `ResumeAfterTime` too.
fn reservation(
    printed: Known<Option<String>>,
    resume_after: Slot<'_>,
    flags: &NodeFlags,
) -> Known<Option<String>> {
    match printed {
        Known::Known(None) if resume_after == Slot::Missing => {
            Known::unknown(Cause::Unsupported, "this release does not print it")
        }
        Known::Known(None) if flags.has_any(&[NodeFlag::Reserved, NodeFlag::Maintenance]) => {
            Known::unknown(Cause::NotReported, "reserved, but no name was printed")
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_tail_stops_the_scan() {
        for key in tail::KEYS {
            assert_eq!(lookup(key.trim_end_matches('=').as_bytes()), Key::Stop, "{key}");
        }
    }
}
