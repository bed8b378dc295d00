//! A site's differences, laid over what comes with the program, with a record of each.

use super::cross;
use super::read::{Entry, Read, SiteHead, plain};
use super::shape::table;
use super::{codes, read};
use crate::codes as common;
use engine_core::diag::Diagnostic;
use engine_core::knowledge::{SiteChange, Table};
use serde_json::{Value, json};

/// The name of the source that a site's file is itself.
const SITE: &str = "site";

fn of(name: &str) -> Option<Table> {
    Table::ALL.into_iter().find(|t| t.as_str() == name)
}

/// Lays the entries over. New patterns of reasons stand before all others, so that a site can be more exact.
pub(super) fn lay_over(all: &mut Vec<Entry>, site: Read, found: &mut Vec<Diagnostic>) -> Vec<SiteChange> {
    let Some(head) = &site.site else { return Vec::new() };
    let mut changes = Vec::new();
    let mut first = Vec::new();
    for entry in site.entries {
        let at = all.iter().position(|e| e.shape.name == entry.shape.name && e.key == entry.key);
        let Some(at) = at else {
            if let Some(e) = whole(entry, head, &mut changes, found) {
                if e.shape.name == "reasons" { first.push(e) } else { all.push(e) }
            }
            continue;
        };
        if let Some(old) = all.get_mut(at) {
            differ(old, &entry, head, &mut changes, found);
        }
    }
    if let Some(shape) = table("sources") {
        let fields = json!({ "id": SITE, "title": head.source, "read": head.date });
        if let Value::Object(fields) = fields {
            let key_span = engine_core::diag::Span::default();
            let (places, references) = (vec![], vec![]);
            first.push(Entry {
                shape,
                key: SITE.to_owned(),
                key_span,
                fields,
                places,
                references,
                why: None,
            });
        }
    }
    first.append(all);
    *all = first;
    changes
}

/// Takes an entry that only the site has.
fn whole(
    mut entry: Entry,
    head: &SiteHead,
    changes: &mut Vec<SiteChange>,
    found: &mut Vec<Diagnostic>,
) -> Option<Entry> {
    let named = entry.shape.fields.iter().any(|f| f.name == "sources");
    if named {
        entry.fields.entry("sources").or_insert_with(|| json!([SITE]));
    }
    let missing: Vec<&str> = entry
        .shape
        .fields
        .iter()
        .filter(|f| f.required && !entry.fields.contains_key(f.name))
        .map(|f| f.name)
        .collect();
    if !missing.is_empty() {
        let says = format!("{} {} is new, and needs {}", entry.shape.what, entry.key, missing.join(", "));
        let help = "an entry that came with the program needs only what differs; is its name right?";
        found
            .push(Diagnostic::error(common::MISSING_FIELD, says, entry.key_span, "new here").with_help(help));
        return None;
    }
    cross::rules(&entry, &entry.fields, found);
    if let Some(table) = of(entry.shape.name) {
        changes.push(change(table, &entry, None, None, None, head));
    }
    Some(entry)
}

fn differ(
    old: &mut Entry,
    new: &Entry,
    head: &SiteHead,
    changes: &mut Vec<SiteChange>,
    found: &mut Vec<Diagnostic>,
) {
    let Some(table) = of(new.shape.name) else {
        let says = format!("{} {} came with the program", new.shape.what, new.key);
        let help = "give yours another name";
        found.push(Diagnostic::error(codes::DUPLICATE_ENTRY, says, new.key_span, "").with_help(help));
        return;
    };
    for (name, span) in &new.places {
        if Some(*name) == new.shape.key {
            continue;
        }
        if let Some((_, why)) = new.shape.fixed.iter().find(|(f, _)| f == name) {
            let says = format!("a site may not change `{name}`: {why}");
            found.push(
                Diagnostic::error(codes::FIXED, says, *span, "fixed")
                    .with_help("change `playbook` or `drain` where something else is to be done"),
            );
            continue;
        }
        let Some(value) = new.fields.get(*name) else { continue };
        let before = old.fields.get(*name);
        if before == Some(value) {
            let says = format!("`{name}` is `{}` already", read::plain(value));
            found.push(
                Diagnostic::warning(codes::NO_DIFFERENCE, says, *span, "the same").with_help("take it out"),
            );
            continue;
        }
        changes.push(change(table, new, Some(name), before, Some(value), head));
        old.fields.insert((*name).to_owned(), value.clone());
    }
    // The mistake is shown where the site wrote; what it did not write was right before.
    cross::rules(new, &old.fields, found);
}

fn change(
    table: Table,
    entry: &Entry,
    field: Option<&str>,
    before: Option<&Value>,
    after: Option<&Value>,
    head: &SiteHead,
) -> SiteChange {
    SiteChange {
        table,
        entry: entry.key.clone(),
        field: field.map(str::to_owned),
        before: before.map(plain),
        after: after.map(plain),
        why: entry.why.clone().unwrap_or_default(),
        source: head.source.clone(),
        date: head.date.clone(),
    }
}
