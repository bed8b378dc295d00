//! Rules over several entries: what a word refers to is there, and no entry takes away what it may not.

use super::codes;
use super::read::Entry;
use super::shape::Refers;
use crate::tree::short;
use engine_core::diag::{Diagnostic, did_you_mean};
use engine_core::incident::fault::{Strength, strength};
use engine_core::knowledge::is_harmless;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The names that words may refer to.
#[derive(Debug, Default)]
pub(super) struct Names {
    faults: BTreeSet<String>,
    playbooks: BTreeSet<String>,
    sources: BTreeSet<String>,
    vendors: BTreeSet<String>,
}

impl Names {
    /// Adds the names of entries.
    pub(super) fn add<'e>(&mut self, entries: impl IntoIterator<Item = &'e Entry>) {
        for e in entries {
            let to = match e.shape.name {
                "faults" => &mut self.faults,
                "playbooks" => &mut self.playbooks,
                "sources" => &mut self.sources,
                "vendor_actions" => &mut self.vendors,
                _ => continue,
            };
            to.insert(e.key.clone());
        }
    }

    fn of(&self, to: Refers) -> (&BTreeSet<String>, &'static str, &'static str, &'static str) {
        match to {
            Refers::Fault => (&self.faults, codes::UNKNOWN_FAULT, "fault", "faults"),
            Refers::Playbook => (&self.playbooks, codes::UNKNOWN_PLAYBOOK, "playbook", "playbooks"),
            Refers::Source => (&self.sources, codes::UNKNOWN_SOURCE, "source", "sources"),
            Refers::Vendor => (&self.vendors, codes::UNKNOWN_VENDOR, "word of the catalogue", "xids"),
        }
    }
}

/// Finds words that refer to nothing.
pub(super) fn references(entry: &Entry, names: &Names, found: &mut Vec<Diagnostic>) {
    for r in &entry.references {
        let (there, code, what, list) = names.of(r.to);
        let free: &[&str] = if r.to == Refers::Playbook { &["none", "human"] } else { &[] };
        if free.contains(&r.word.as_str()) || there.contains(&r.word) {
            continue;
        }
        let help = match did_you_mean(&r.word, there.iter().map(String::as_str).chain(free.iter().copied())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("`slurmedic knowledge list {list}` lists them"),
        };
        let says = format!("there is no {what} `{}`", short(&r.word));
        found.push(Diagnostic::error(code, says, r.span, format!("no {what} of this name")).with_help(help));
    }
}

/// Holds the rules of one complete entry. `entry` says where its fields stand.
pub(super) fn rules(entry: &Entry, fields: &Map<String, Value>, found: &mut Vec<Diagnostic>) {
    match entry.shape.name {
        "xids" => xid(entry, fields, found),
        "faults" => fault(entry, fields, found),
        "reasons" => reason(entry, fields, found),
        "playbooks" => playbook(entry, fields, found),
        _ => {}
    }
}

fn text<'f>(fields: &'f Map<String, Value>, name: &str) -> &'f str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn xid(entry: &Entry, fields: &Map<String, Value>, found: &mut Vec<Diagnostic>) {
    let code = fields.get("code").and_then(Value::as_u64).unwrap_or_default();
    if !(1..=65_535).contains(&code) {
        let says = format!("{code} is no XID");
        found.push(
            Diagnostic::error(codes::BAD_NUMBER, says, entry.place("code"), "")
                .with_help("write the number of the kernel log, from 1 to 65535"),
        );
    }
    if text(fields, "class") != "application" {
        return;
    }
    let drain = text(fields, "drain");
    if !["never", "on_repeat", "person"].contains(&drain) {
        let says = format!("XID {code} is a program's own mistake, and would take a node out");
        found.push(
            Diagnostic::error(codes::APPLICATION_DRAINS, says, entry.place("drain"), "takes the node out")
                .with_help("write never, on_repeat or person"),
        );
    }
    let playbook = text(fields, "playbook");
    if !["none", "human", "xid-app-annotate"].contains(&playbook) {
        let says = format!("XID {code} is a program's own mistake, and {playbook} is no playbook for it");
        found.push(
            Diagnostic::error(codes::APPLICATION_DRAINS, says, entry.place("playbook"), "not for a program")
                .with_help("write xid-app-annotate, human or none"),
        );
    }
}

fn fault(entry: &Entry, fields: &Map<String, Value>, found: &mut Vec<Diagnostic>) {
    let word = match strength(&entry.key) {
        // What the engine does not know counts as the weakest: there is nothing to contradict.
        Strength::Unknown => return,
        Strength::Application => "application",
        Strength::Contained => "contained",
        Strength::Fabric => "fabric",
        Strength::Node => "node",
        Strength::Hang => "hang",
        Strength::Hardware => "hardware",
        Strength::Uncontained => "uncontained",
        Strength::Lost => "lost",
        Strength::DriverAsks => "driver_asks",
    };
    let written = text(fields, "strength");
    if written != word {
        let says = format!("the engine counts {} as `{word}`, not as `{written}`", entry.key);
        found.push(
            Diagnostic::error(codes::BAD_STRENGTH, says, entry.place("strength"), "not the engine's")
                .with_help(format!("write `{word}`")),
        );
    }
}

fn reason(entry: &Entry, fields: &Map<String, Value>, found: &mut Vec<Diagnostic>) {
    let has = |name: &str| fields.contains_key(name);
    let flag = |name: &str| fields.get(name).and_then(Value::as_bool).unwrap_or_default();
    let mut wrong = |says: &str, help: &str| {
        let says = format!("{}: {says}", entry.key);
        found.push(Diagnostic::error(codes::BAD_PATTERN, says, entry.key_span, "").with_help(help));
    };
    if !(has("is") || has("starts") || has("contains")) {
        wrong("it fits nothing", "add `is` with the whole text, or `starts` with its beginning");
    }
    if has("is") && (has("starts") || has("contains")) {
        wrong("`is` stands alone", "take `starts` and `contains` out");
    }
    let kinds = [has("fault"), flag("planned"), flag("person")].iter().filter(|k| **k).count();
    if kinds != 1 {
        wrong(
            "it says neither or more than one of three things",
            "give one of `fault`, `planned: true` and `person: true`",
        );
    }
    let known = strength(text(fields, "fault")) != Strength::Unknown;
    if has("fault") && !known {
        wrong(
            "the engine does not follow this fault at nodes",
            "name a fault of `slurmedic knowledge list faults` that has a strength in the engine",
        );
    }
}

fn playbook(entry: &Entry, fields: &Map<String, Value>, found: &mut Vec<Diagnostic>) {
    let rungs = fields.get("rungs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let empty = |rung: &Value| rung.get("needs").and_then(Value::as_array).is_none_or(Vec::is_empty);
    let last = rungs.len().saturating_sub(1);
    if rungs.is_empty() || rungs.iter().take(last).any(empty) {
        let says = format!("{}: a rung can never be taken", entry.key);
        found.push(
            Diagnostic::error(codes::NO_RUNG, says, entry.place("rungs"), "")
                .with_help("only the last rung may be without `needs`"),
        );
    }
    for rung in rungs {
        let actions = rung.get("actions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let taking = actions.iter().filter_map(Value::as_str).find(|a| !is_harmless(a));
        let auto = rung.get("approval").and_then(Value::as_str) == Some("auto");
        if let (true, Some(action)) = (auto, taking) {
            let says = format!("{}: nobody is asked before {}", entry.key, short(action));
            found.push(
                Diagnostic::error(codes::UNASKED, says, entry.place("rungs"), "")
                    .with_help("write canary, hitl or hitl2"),
            );
        }
    }
}
