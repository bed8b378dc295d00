//! The action catalogue and the fact vocabulary, for people and for programs.

use engine_core::action::{ACTIONS, ActionSpec, ServiceEffect, Undo};
use engine_core::value::{Type, format_duration};
use engine_core::vocabulary::{FACTS, FactDecl};
use jiff::SignedDuration;
use serde_json::{Value as Json, json};

/// Lists the actions, one line each.
pub fn actions_table() -> String {
    let rows: Vec<[String; 4]> = ACTIONS
        .iter()
        .map(|a| {
            [a.name.to_owned(), a.effect.as_str().to_owned(), a.capability.to_owned(), a.summary.to_owned()]
        })
        .collect();
    table(["ACTION", "EFFECT", "CAPABILITY", "WHAT IT DOES"], &rows)
}

/// Describes one action completely.
pub fn action_page(a: &ActionSpec) -> String {
    let mut out = format!("{}\n  {}\n\n", a.name, a.summary);
    let mut line = |label: &str, text: &str| out.push_str(&format!("  {label:<12} {text}\n"));
    line("effect", a.effect.as_str());
    line("capability", a.capability);
    line("undo", &undo(a));
    line("target", if a.needs_gpu { "one GPU" } else { "a node" });
    line("guard", a.guard);
    line("reads back", a.reads_back);
    line("transient", a.transient);
    line("permanent", a.permanent);
    line("ambiguous", a.ambiguous);
    line("time limit", &format!("{}, at most {}", seconds(a.default_timeout_s), seconds(a.max_timeout_s)));
    line("attempts", &a.default_attempts.to_string());
    if a.args.is_empty() {
        line("arguments", "none");
    }
    for arg in a.args {
        let need = match (arg.required, arg.default) {
            (true, _) => "required".to_owned(),
            (false, "") => "optional".to_owned(),
            (false, d) => format!("default {d}"),
        };
        out.push_str(&format!("  argument     {}: {} ({need}) - {}\n", arg.name, arg.ty, arg.doc));
    }
    out
}

/// Returns the catalogue for programs, a list.
pub fn actions_json() -> Json {
    ACTIONS.iter().map(action_json).collect()
}

/// Returns one action for programs.
pub fn action_json(a: &ActionSpec) -> Json {
    let args: Vec<Json> = a
        .args
        .iter()
        .map(|x| {
            json!({ "name": x.name, "type": x.ty.to_string(), "required": x.required,
                        "default": (!x.default.is_empty()).then_some(x.default), "doc": x.doc })
        })
        .collect();
    json!({
        "name": a.name, "summary": a.summary, "effect": a.effect, "capability": a.capability,
        "undo": undo(a), "verifies": a.verifies, "needs_gpu": a.needs_gpu, "guard": a.guard,
        "service": match a.service {
            ServiceEffect::None => "none",
            ServiceEffect::TakesOut => "takes_out",
            ServiceEffect::GivesBack => "gives_back",
        },
        "reads_back": a.reads_back, "transient": a.transient, "permanent": a.permanent,
        "ambiguous": a.ambiguous, "default_timeout_s": a.default_timeout_s,
        "max_timeout_s": a.max_timeout_s, "default_attempts": a.default_attempts, "args": args,
    })
}

fn undo(a: &ActionSpec) -> String {
    match a.undo {
        Undo::Nothing => "nothing to take back".to_owned(),
        Undo::Impossible(why) => format!("impossible: {why}"),
        Undo::Action(name) => name.to_owned(),
    }
}

fn seconds(s: u32) -> String {
    format_duration(SignedDuration::from_secs(i64::from(s)))
}

/// Lists the facts, one line each.
pub fn facts_table() -> String {
    let rows: Vec<[String; 4]> = FACTS
        .iter()
        .map(|f| {
            let ty = if f.unit.is_empty() { f.ty.to_string() } else { format!("{} ({})", f.ty, f.unit) };
            [f.name.to_owned(), ty, sources(f), f.doc.to_owned()]
        })
        .collect();
    table(["FACT", "TYPE", "SOURCES", "MEANING"], &rows)
}

/// Describes one fact completely, with the words of its set.
pub fn fact_page(f: &FactDecl) -> String {
    let mut out = format!("{}\n  {}\n\n  type     {}\n", f.name, f.doc, f.ty);
    if !f.unit.is_empty() {
        out.push_str(&format!("  unit     {}\n", f.unit));
    }
    out.push_str(&format!("  sources  {}\n", sources(f)));
    if let Some(words) = words(f.ty) {
        out.push_str("  words\n");
        let width = words.iter().map(|(w, _)| w.len()).max().unwrap_or(0);
        for (w, doc) in words {
            out.push_str(&format!("    {w:<width$}  {doc}\n"));
        }
    }
    out
}

/// Returns the vocabulary for programs, a list.
pub fn facts_json() -> Json {
    FACTS.iter().map(fact_json).collect()
}

/// Returns one fact for programs.
pub fn fact_json(f: &FactDecl) -> Json {
    let words = words(f.ty)
        .map(|w| w.iter().map(|(word, doc)| json!({ "word": word, "doc": doc })).collect::<Vec<_>>());
    json!({
        "name": f.name, "type": f.ty.to_string(), "unit": f.unit, "doc": f.doc,
        "sources": f.sources, "per_gpu": f.per_gpu, "words": words,
    })
}

fn words(ty: Type) -> Option<&'static [(&'static str, &'static str)]> {
    match ty {
        Type::Enum(e) | Type::EnumList(e) => Some(e.words),
        _ => None,
    }
}

fn sources(f: &FactDecl) -> String {
    f.sources.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", ")
}

fn table(head: [&str; 4], rows: &[[String; 4]]) -> String {
    let mut width = head.map(str::len);
    for r in rows {
        for (w, cell) in width.iter_mut().zip(r) {
            *w = (*w).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let mut line = |cells: [&str; 4]| {
        for (i, (cell, w)) in cells.iter().zip(width).enumerate() {
            let pad = if i == 3 { 0 } else { w.saturating_sub(cell.chars().count()) + 2 };
            out.push_str(cell);
            out.extend(std::iter::repeat_n(' ', pad));
        }
        out.push('\n');
    };
    line(head);
    for r in rows {
        line([&r[0], &r[1], &r[2], &r[3]]);
    }
    out
}
