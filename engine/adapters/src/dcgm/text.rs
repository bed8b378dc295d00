//! Small helpers for text from outside: always data, bounded before it is shown to people.

use engine_core::{Cause, Known, Unknown};
use std::borrow::Cow;

/// Longest piece of a tool's text that is carried in a detail, in characters.
const MAX_DETAIL: usize = 400;

/// Decodes a tool's output; bytes that are not UTF-8 become replacement characters.
pub(crate) fn decode(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Makes a tool's text fit for one line of a detail: no control characters, blanks folded, bounded.
pub(crate) fn one_line(text: &str) -> String {
    let mut out = String::new();
    let mut count = 0;
    for word in text.split_whitespace() {
        if count > 0 {
            out.push(' ');
            count += 1;
        }
        for c in word.chars().filter(|c| !c.is_control()) {
            if count >= MAX_DETAIL {
                out.push('…');
                return out;
            }
            out.push(c);
            count += 1;
        }
    }
    out
}

/// Returns what a tool says went wrong: its lines from the first that starts like an error.
pub(crate) fn error_text(text: &str) -> Option<String> {
    let starts = |l: &str| {
        let l = l.trim_start();
        ["Error", "ERROR", "PARSE ERROR", "Cannot ", "CacheManager Init Failed"]
            .iter()
            .any(|p| l.starts_with(p))
    };
    let lines: Vec<&str> = text.lines().skip_while(|l| !starts(l)).collect();
    (!lines.is_empty()).then(|| one_line(&lines.join(" ")))
}

/// Builds the unknown for output in which what was looked for does not occur.
pub(crate) fn missing(text: &str, wanted: &str) -> Unknown {
    if text.trim().is_empty() {
        return Unknown::new(Cause::EmptyAnswer, format!("no output where {wanted} was due"));
    }
    match error_text(text) {
        Some(e) => Unknown::new(Cause::ReadFailed, e),
        None => Unknown::new(Cause::Unparsable, format!("no {wanted} in: {}", one_line(text))),
    }
}

/// Reads a version such as `4.6.0` or `550.163.01`; anything else is unknown.
pub(crate) fn version(text: &str) -> Known<String> {
    let t = text.trim();
    let numeric = |p: &str| !p.is_empty() && p.len() <= 9 && p.bytes().all(|b| b.is_ascii_digit());
    if t.contains('.') && t.len() <= 64 && t.split('.').all(numeric) {
        Known::Known(t.to_owned())
    } else {
        Known::unknown(Cause::UnrecognisedWord, format!("not a version: {:?}", one_line(t)))
    }
}

/// Splits a row of a drawn table, `| a | b |`, into its cells without their padding on the right.
pub(crate) fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim_end().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim_end).collect())
}

/// Says whether a line only draws a table.
pub(crate) fn is_rule(line: &str) -> bool {
    let t = line.trim();
    t.starts_with('+') && t.ends_with('+') && t.chars().all(|c| matches!(c, '+' | '-' | '='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_one_bounded_line() {
        assert_eq!(one_line("a\n\tb\u{1b}[31m  c"), "a b[31m c");
        assert_eq!(one_line(&"x".repeat(1000)).chars().count(), MAX_DETAIL + 1);
    }

    #[test]
    fn versions_are_numbers_and_dots() {
        assert_eq!(version(" 4.6.0 ").known().map(String::as_str), Some("4.6.0"));
        for bad in ["", "4", "4.6.", "4.6.0-rc1", "v4.6", "4..6"] {
            assert!(!version(bad).is_known(), "{bad}");
        }
    }
}
