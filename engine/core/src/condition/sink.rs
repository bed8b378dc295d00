//! Collects the diagnostics of one compilation, bounded.

use crate::diag::{Diagnostic, Span};

/// The most diagnostics one condition yields; the rest would only bury the first ones.
const MAX_DIAGNOSTICS: usize = 32;
/// The longest piece of source text repeated in a message, in characters.
const MAX_QUOTED: usize = 60;

/// The diagnostics so far.
#[derive(Debug, Default)]
pub(super) struct Sink {
    found: Vec<Diagnostic>,
}

impl Sink {
    /// Adds an error; beyond the limit it is dropped.
    pub(super) fn error(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        span: Span,
        label: impl Into<String>,
        help: impl Into<String>,
    ) {
        if self.found.len() < MAX_DIAGNOSTICS {
            self.found.push(Diagnostic::error(code, message, span, label).with_help(help));
        }
    }

    /// Says whether nothing is wrong.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Returns them in the order of the source.
    pub(super) fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|d| d.labels.first().map_or(0, |l| l.span.start));
        self.found
    }
}

/// Shortens a piece of source text and makes it printable on one line.
pub(super) fn quoted(text: &str) -> String {
    clip(text, MAX_QUOTED)
}

/// Shortens to `max` characters and escapes what does not print.
pub(super) fn clip(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max + 8));
    for (i, c) in text.chars().enumerate() {
        if i == max {
            out.push_str("...");
            break;
        }
        push_printable(&mut out, c);
    }
    out
}

/// Appends a character, as `\uXXXX` where it does not print: control, bidirectional and invisible characters.
pub(super) fn push_printable(out: &mut String, c: char) {
    let plain = c == ' ' || c == '\'' || c == '"' || c == '\\' || c.escape_debug().len() == 1;
    if plain {
        out.push(c);
    } else {
        for unit in c.encode_utf16(&mut [0; 2]) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
}
