//! Playbooks and policies: from YAML with source positions to the typed documents of the core.
//!
//! A document goes through four passes: size and characters, structure (events of one YAML parser), meaning
//! (`serde_yaml`), semantics (types, names, conditions, templates, static rules). All passes collect everything that
//! is wrong; only a document without errors becomes a playbook.
#![forbid(unsafe_code)]

mod calls;
pub mod catalogue;
pub mod checker;
pub mod codes;
pub mod format;
pub mod knowledge;
pub mod library;
pub mod policy;
pub mod prometheus;
mod read;
pub mod release;
pub mod render;
mod rules;
pub mod schema;
pub mod situation;
pub mod source;
pub mod template;
mod tree;

pub use library::{FindError, Library, LibraryError};
pub use render::{Style, diagnostics_json, render_diagnostics};
pub use source::{MAX_BYTES, Position, SourceText};
pub use template::Renderer;

use engine_core::diag::{Diagnostic, Severity, Span};
use engine_core::digest::Digest;
use engine_core::playbook::Playbook;

/// Most diagnostics of one document; more would only bury the first.
const MAX_DIAGNOSTICS: usize = 200;

/// What came of loading a document.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The playbook, where there is no error.
    pub playbook: Option<Playbook>,
    /// Everything that is wrong or worth a look, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
    /// The text the diagnostics point into.
    pub source: SourceText,
}

impl Loaded {
    /// Says whether any diagnostic is an error.
    pub fn failed(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }
}

/// Loads a playbook. `file` is only the name used in messages.
pub fn load(bytes: &[u8], file: &str) -> Loaded {
    let (source, mut diagnostics) = SourceText::read(bytes, file);
    let mut playbook = None;
    if diagnostics.is_empty() {
        if let Some(rewritten) = calls::rewrite(&source) {
            let inner = SourceText::new(file, rewritten.text.as_str());
            let (_, found) = read_text(&inner, bytes);
            diagnostics.extend(rewritten.diagnostics());
            diagnostics.extend(found.into_iter().map(|mut d| {
                for l in &mut d.labels {
                    l.span = rewritten.original(l.span);
                }
                d
            }));
        } else {
            (playbook, diagnostics) = read_text(&source, bytes);
        }
    }
    diagnostics.sort_by_key(|d| d.labels.first().map_or(0, |l| l.span.start));
    diagnostics.truncate(MAX_DIAGNOSTICS);
    Loaded { playbook, diagnostics, source }
}

fn read_text(source: &SourceText, bytes: &[u8]) -> (Option<Playbook>, Vec<Diagnostic>) {
    let (tree, mut found) = tree::read(source);
    let clean = found.is_empty();
    let Some(tree) = tree else { return (None, found) };
    // A document that ends early lacks fields for that reason: only what is there is judged.
    let cut_short =
        found.iter().any(|d| [codes::SYNTAX, codes::TOO_DEEP, codes::DOCUMENTS].contains(&d.code.as_str()));
    if cut_short {
        return (None, found);
    }
    let (playbook, more) = read::playbook(&tree, source, Digest::of(bytes));
    // What was refused for its form is not judged for its meaning as well.
    let refused: Vec<Span> = found
        .iter()
        .filter(|d| d.code != codes::DUPLICATE_KEY)
        .filter_map(|d| Some(d.labels.first()?.span))
        .collect();
    let overlaps = |s: Span| refused.iter().any(|r| s.start < r.end && r.start < s.end);
    found.extend(more.into_iter().filter(|d| !d.labels.first().is_some_and(|l| overlaps(l.span))));
    (playbook.filter(|_| clean), found)
}

/// Rewrites steps in call notation as mappings, everything else untouched; `None` where there are none.
pub fn fix(bytes: &[u8]) -> Option<String> {
    let (source, found) = SourceText::read(bytes, "");
    if !found.is_empty() {
        return None;
    }
    calls::rewrite(&source).map(|r| r.text)
}
