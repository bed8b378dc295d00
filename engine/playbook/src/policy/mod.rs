//! The policy file: from YAML with source positions to the policy of the core, with everything that is wrong at once.
//!
//! It goes through the same passes as a playbook: size and characters, structure, meaning. Only a file without errors
//! becomes a policy; there is no policy in part.

pub mod codes;
mod groups;
mod read;
mod stages;
mod time;
mod write;

pub use write::to_yaml;

use crate::source::SourceText;
use crate::tree;
use engine_core::diag::{Diagnostic, Severity, Span};
use engine_core::policy::Policy;

/// The policy in force where the site has none: every key at its default, explained.
pub const DEFAULT: &str = include_str!("../../../../policies/default.yaml");

/// The name of [`DEFAULT`] in messages.
pub const DEFAULT_NAME: &str = "built-in policy";

/// Most diagnostics of one file.
const MAX_DIAGNOSTICS: usize = 200;

/// What came of loading a policy.
#[derive(Debug, Clone)]
pub struct LoadedPolicy {
    /// The policy, where there is no error.
    pub policy: Option<Policy>,
    /// Everything that is wrong or worth a look, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
    /// The text the diagnostics point into.
    pub source: SourceText,
}

impl LoadedPolicy {
    /// Says whether any diagnostic is an error.
    pub fn failed(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }
}

/// Loads a policy. `file` is only the name used in messages.
pub fn load(bytes: &[u8], file: &str) -> LoadedPolicy {
    let (source, mut diagnostics) = SourceText::read(bytes, file);
    let mut policy = None;
    if diagnostics.is_empty() {
        let (root, found) = tree::read(&source);
        diagnostics = found;
        let cut_short = |d: &Diagnostic| {
            use crate::codes::{DOCUMENTS, SYNTAX, TOO_DEEP};
            [SYNTAX, TOO_DEEP, DOCUMENTS].contains(&d.code.as_str())
        };
        // A file that ends early lacks keys for that reason: only what is there is judged.
        if let Some(root) = root.filter(|_| !diagnostics.iter().any(cut_short)) {
            let (read, more) = read::policy(&root, &source);
            let refused: Vec<Span> =
                diagnostics.iter().filter_map(|d| d.labels.first()).map(|l| l.span).collect();
            let apart = |d: &Diagnostic| {
                let at = d.labels.first().map(|l| l.span).unwrap_or_default();
                !refused.iter().any(|r| at.start < r.end && r.start < at.end)
            };
            policy = read.filter(|_| diagnostics.is_empty());
            diagnostics.extend(more.into_iter().filter(apart));
        }
    }
    diagnostics.sort_by_key(|d| d.labels.first().map_or(0, |l| l.span.start));
    diagnostics.truncate(MAX_DIAGNOSTICS);
    let loaded = LoadedPolicy { policy, diagnostics, source };
    if loaded.failed() { LoadedPolicy { policy: None, ..loaded } } else { loaded }
}

/// Loads the built-in policy.
pub fn built_in() -> LoadedPolicy {
    load(DEFAULT.as_bytes(), DEFAULT_NAME)
}
