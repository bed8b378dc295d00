//! `nvidia-smi -q -x`: the elements that a reset decision needs.
//!
//! A small reader of our own: tags, text and the five entities. Anything deeper than 32 levels, unbalanced
//! or cut off is unparsable; elements that are not known here are passed over.

use super::csv::{SmiGpus, count, fabric, mig, number, recovery, reset_status, switch};
use super::{cell, failed_read};
use crate::dcgm::discovery::{bus_id, uuid};
use crate::dcgm::text::{decode, missing, one_line, version};
use engine_core::model::{Gpu, GpuProcess};
use engine_core::{Cause, Known, Unknown};
use std::collections::BTreeMap;

const MAX_DEPTH: usize = 32;
const MAX_LEAVES: usize = 200_000;

/// Says whether the text is this document.
pub fn is_xml(text: &str) -> bool {
    text.contains("<nvidia_smi_log>")
}

/// One element without children: where it stands, and its text.
struct Leaf {
    /// Which `gpu` element it is in, from 0.
    gpu: Option<usize>,
    /// Which `process_info` of it.
    process: usize,
    /// Names from below `nvidia_smi_log` (and below `gpu`), joined by slashes.
    path: String,
    text: String,
}

struct Document {
    /// `id` attribute of each `gpu` element.
    gpus: Vec<String>,
    leaves: Vec<Leaf>,
}

/// Reads the document.
pub fn parse(bytes: &[u8]) -> Known<SmiGpus> {
    let text = decode(bytes);
    let read = failed_read(bytes).map_or_else(|| document(&text), Err);
    match read {
        Ok(d) => Known::Known(facts(&d)),
        Err(u) => Known::Unknown(u),
    }
}

fn document(text: &str) -> Result<Document, Unknown> {
    let bad = |why: &str| Unknown::new(Cause::Unparsable, format!("XML: {why}"));
    if !is_xml(text) {
        return Err(missing(text, "XML of nvidia-smi"));
    }
    let mut doc = Document { gpus: Vec::new(), leaves: Vec::new() };
    let mut stack: Vec<&str> = Vec::new();
    let mut process = 0;
    let mut closed = false;
    let mut leaf = false;
    let mut rest = text;
    while let Some(open) = rest.find('<') {
        let inner = &rest[..open];
        let after = &rest[open + 1..];
        if let Some(body) = after.strip_prefix("!--") {
            let end = body.find("-->").ok_or_else(|| bad("a comment is not closed"))?;
            rest = &body[end + 3..];
            continue;
        }
        let end = after.find('>').ok_or_else(|| bad("a tag is not closed"))?;
        let tag = &after[..end];
        rest = &after[end + 1..];
        if tag.starts_with(['?', '!']) {
            continue;
        }
        if let Some(name) = tag.strip_prefix('/') {
            let name = name.trim();
            if stack.last() != Some(&name) {
                return Err(bad("a tag is closed that was not open"));
            }
            if leaf {
                doc.leaves.push(Leaf {
                    gpu: gpu_of(&stack, &doc),
                    process,
                    path: path(&stack),
                    text: unescape(inner),
                });
                if doc.leaves.len() > MAX_LEAVES {
                    return Err(bad("too many elements"));
                }
            }
            if name == "process_info" {
                process += 1;
            }
            stack.pop();
            closed = stack.is_empty();
            leaf = false;
            continue;
        }
        if closed {
            return Err(bad("something stands after the document"));
        }
        let empty = tag.ends_with('/');
        let body = tag.trim_end_matches('/');
        let name = body.split_whitespace().next().ok_or_else(|| bad("a tag without a name"))?;
        if stack.len() == 1 && name == "gpu" {
            let id =
                body.split_once("id=\"").and_then(|(_, r)| r.split_once('"')).map(|(id, _)| id.to_owned());
            doc.gpus.push(id.unwrap_or_default());
            process = 0;
        }
        if !empty {
            stack.push(name);
            leaf = true;
            if stack.len() > MAX_DEPTH {
                return Err(bad("too deep"));
            }
        }
    }
    if closed { Ok(doc) } else { Err(bad("the document is cut off")) }
}

fn gpu_of(stack: &[&str], doc: &Document) -> Option<usize> {
    (stack.get(1) == Some(&"gpu")).then(|| doc.gpus.len() - 1)
}

fn path(stack: &[&str]) -> String {
    let from = if stack.get(1) == Some(&"gpu") { 2 } else { 1 };
    stack.get(from..).unwrap_or_default().join("/")
}

fn unescape(text: &str) -> String {
    let t = text.trim();
    if !t.contains('&') {
        return t.to_owned();
    }
    // "&amp;" last, so that it cannot make a new entity.
    let pairs = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    pairs.iter().fold(t.to_owned(), |acc, (from, to)| acc.replace(from, to))
}

fn facts(doc: &Document) -> SmiGpus {
    let top = |name: &str| doc.leaves.iter().find(|l| l.gpu.is_none() && l.path == name);
    let driver_version = match top("driver_version") {
        Some(l) => cell(&l.text).and_then(version),
        None => Known::unknown(Cause::NotReported, "no driver_version"),
    };
    let gpus = doc.gpus.iter().enumerate().map(|(n, id)| gpu(doc, n, id)).collect();
    SmiGpus { driver_version, gpus }
}

fn gpu(doc: &Document, n: usize, id: &str) -> Gpu {
    let leaves: Vec<&Leaf> = doc.leaves.iter().filter(|l| l.gpu == Some(n)).collect();
    let get = |path: &str| leaves.iter().find(|l| l.path == path).map(|l| l.text.as_str());
    let value = |path: &str| match get(path) {
        Some(t) => cell(t),
        None => Known::unknown(Cause::NotReported, format!("no element {path}")),
    };
    let mut g = Gpu::unseen(u32::try_from(n).unwrap_or(u32::MAX), Cause::NotReported, "not in the document");
    g.bus_id = bus_id(id);
    g.uuid = value("uuid").and_then(uuid);
    g.serial = value("serial").map(one_line);
    g.model = value("product_name").map(one_line);
    g.persistence_mode = value("persistence_mode").and_then(switch);
    g.mig_enabled = if get("mig_mode/current_mig").is_some() {
        mig(value("mig_mode/current_mig"))
    } else {
        Known::unknown(Cause::NotReported, "no element mig_mode")
    };
    g.recovery_action = match get("gpu_recovery_action") {
        Some(t) => cell(t).and_then(recovery),
        None => reset_status(
            value("gpu_reset_status/reset_required").and_then(switch),
            value("gpu_reset_status/drain_and_reset_recommended").and_then(switch),
        ),
    };
    g.ecc_dbe_volatile = ecc(&leaves, "ecc_errors/volatile/");
    g.ecc_dbe_aggregate = ecc(&leaves, "ecc_errors/aggregate/");
    g.rows_remapped_correctable = value("remapped_rows/remapped_row_corr").and_then(count);
    g.rows_remapped_uncorrectable = value("remapped_rows/remapped_row_unc").and_then(count);
    g.row_remap_pending = value("remapped_rows/remapped_row_pending").and_then(switch);
    g.row_remap_failure = value("remapped_rows/remapped_row_failure").and_then(switch);
    g.temperature_c = value("temperature/gpu_temp").and_then(|v| number(v, "C"));
    g.memory_temperature_c = value("temperature/memory_temp").and_then(|v| number(v, "C"));
    g.sm_clock_mhz = value("clocks/sm_clock").and_then(|v| number(v, "MHz"));
    g.memory_clock_mhz = value("clocks/mem_clock").and_then(|v| number(v, "MHz"));
    g.utilization_percent = value("utilization/gpu_util").and_then(|v| number(v, "%"));
    if let Some(state) = get("fabric/state") {
        g.fabric = fabric(state, get("fabric/status"));
    }
    g.processes = processes(&leaves, doc, n);
    g.answers = if leaves.iter().any(|l| l.text.contains("GPU is lost")) {
        Known::Known(false)
    } else if g.temperature_c.is_known() || g.sm_clock_mhz.is_known() || g.ecc_dbe_volatile.is_known() {
        Known::Known(true)
    } else {
        Known::unknown(Cause::NotReported, "no element that only an answering GPU has")
    };
    g
}

/// Adds the uncorrectable counters: generations name them differently (`dram_uncorrectable`,
/// `sram_uncorrectable_parity`, before Ampere `double_bit/total`).
fn ecc(leaves: &[&Leaf], under: &str) -> Known<u64> {
    let total = format!("{under}double_bit/total");
    let uncorrectable = |l: &&&Leaf| {
        l.path.strip_prefix(under).is_some_and(|p| p.contains("uncorrectable") && !p.contains("threshold"))
    };
    let chosen: Vec<&Leaf> = match leaves.iter().find(|l| l.path == total) {
        Some(l) => vec![l],
        None => leaves.iter().filter(uncorrectable).copied().collect(),
    };
    if chosen.is_empty() {
        return Known::unknown(Cause::NotReported, "no counter of uncorrectable errors");
    }
    let mut sum = 0_u64;
    for leaf in chosen {
        match cell(&leaf.text).and_then(count) {
            Known::Known(v) => sum = sum.saturating_add(v),
            Known::Unknown(u) => return Known::Unknown(u),
        }
    }
    Known::Known(sum)
}

fn processes(leaves: &[&Leaf], doc: &Document, n: usize) -> Known<Vec<GpuProcess>> {
    let mut map: BTreeMap<usize, (Option<&str>, Option<&str>)> = BTreeMap::new();
    let mut seen = false;
    for l in leaves {
        if l.path == "processes" {
            // An empty element, or a word such as N/A.
            seen = l.text.is_empty();
            continue;
        }
        let Some(name) = l.path.strip_prefix("processes/process_info/") else { continue };
        seen = true;
        let entry = map.entry(l.process).or_default();
        match name {
            "pid" => entry.0 = Some(&l.text),
            "process_name" => entry.1 = Some(&l.text),
            _ => {}
        }
    }
    if !seen {
        return Known::unknown(
            Cause::NotReported,
            format!("no list of processes of GPU {}", one_line(&doc.gpus[n])),
        );
    }
    let mut out = Vec::new();
    for (pid, name) in map.into_values() {
        let Some(pid) = pid.and_then(|p| p.parse().ok()) else {
            return Known::unknown(Cause::Unparsable, "a process without a readable pid");
        };
        out.push(GpuProcess { pid, name: one_line(name.unwrap_or("?")) });
    }
    Known::Known(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doc(inner: &str) -> Vec<u8> {
        format!("<?xml version=\"1.0\" ?>\n<nvidia_smi_log>\n<gpu id=\"00000000:1B:00.0\">{inner}</gpu>\n</nvidia_smi_log>\n")
            .into_bytes()
    }

    #[test]
    fn counters_of_all_memories_are_added() {
        let inner = "<ecc_errors><volatile><sram_uncorrectable_parity>1</sram_uncorrectable_parity>\
            <dram_uncorrectable>2</dram_uncorrectable></volatile></ecc_errors><processes></processes>";
        let g = parse(&doc(inner)).into_known().unwrap().gpus.remove(0);
        assert_eq!((g.ecc_dbe_volatile, g.processes), (Known::Known(3), Known::Known(Vec::new())));
        let part = inner.replace(">2<", ">N/A<");
        assert!(!parse(&doc(&part)).into_known().unwrap().gpus[0].ecc_dbe_volatile.is_known());
    }

    #[test]
    fn processes_are_named() {
        let inner = "<processes><process_info><pid>7</pid><process_name>a &amp;lt; b</process_name></process_info>\
            <process_info><pid>8</pid><process_name>c</process_name></process_info></processes>";
        let g = parse(&doc(inner)).into_known().unwrap().gpus.remove(0);
        let list = g.processes.into_known().unwrap();
        assert_eq!((list.len(), list[0].name.as_str(), list[1].pid), (2, "a &lt; b", 8));
    }

    #[test]
    fn broken_documents_are_unparsable() {
        let whole = doc("<uuid>GPU-0123abcd</uuid>");
        assert!(parse(&whole).is_known());
        for cut in [30, 60, whole.len() - 5] {
            assert!(!parse(&whole[..cut]).is_known(), "{cut}");
        }
        let deep = format!("<nvidia_smi_log>{}", "<a>".repeat(100_000));
        assert!(!parse(deep.as_bytes()).is_known());
        assert!(!parse(b"<nvidia_smi_log></gpu>").is_known());
    }
}
