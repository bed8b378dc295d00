//! A playbook's text as it was read, with its lines, and the limits that hold before anything parses it.

use engine_core::diag::{Diagnostic, Span};
use serde::Serialize;

use crate::codes;

/// Largest document, in bytes.
pub const MAX_BYTES: usize = 256 * 1024;

/// A text and the name it is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceText {
    /// File name, for messages.
    pub file: String,
    /// The text, without a byte order mark.
    pub text: String,
    lines: Vec<usize>,
}

/// A place as people count it: from one, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl SourceText {
    /// Takes a text as it is.
    pub fn new(file: &str, text: impl Into<String>) -> Self {
        let text = text.into();
        let mut lines = vec![0];
        lines.extend(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1));
        Self { file: file.to_owned(), text, lines }
    }

    /// Checks size, encoding and characters. The source that comes back can be shown even when it was refused.
    pub fn read(bytes: &[u8], file: &str) -> (Self, Vec<Diagnostic>) {
        if bytes.len() > MAX_BYTES {
            let d = Diagnostic::error(
                codes::TOO_LARGE,
                format!("the file has {} bytes, the limit is {MAX_BYTES}", bytes.len()),
                Span::default(),
                "",
            )
            .with_help("a playbook or a policy is a page or two: is this the right file?");
            return (Self::new(file, ""), vec![d]);
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let text = match std::str::from_utf8(bytes) {
            Ok(t) => t,
            Err(e) => {
                let good = String::from_utf8_lossy(&bytes[..e.valid_up_to()]).into_owned();
                let end = good.len();
                let d = Diagnostic::error(
                    codes::BAD_TEXT,
                    format!(
                        "the file is not UTF-8: byte {} does not belong to any character",
                        e.valid_up_to() + 1
                    ),
                    Span::new(end, end),
                    "the text ends here",
                )
                .with_help("save the file as UTF-8");
                return (Self::new(file, good), vec![d]);
            }
        };
        let source = Self::new(file, text);
        let found = source.forbidden_characters();
        (source, found)
    }

    fn forbidden_characters(&self) -> Vec<Diagnostic> {
        let mut out = Vec::new();
        let mut chars = self.text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let lone_return = c == '\r' && chars.peek().is_none_or(|(_, n)| *n != '\n');
            if !lone_return && !is_forbidden(c) {
                continue;
            }
            out.push(
                Diagnostic::error(
                    codes::BAD_TEXT,
                    format!("the character U+{:04X} is not allowed here", c as u32),
                    Span::new(at, at + c.len_utf8()),
                    "does not print",
                )
                .with_help(
                    "take it out: invisible characters make a text read differently from what it does",
                ),
            );
            if out.len() == 8 {
                break;
            }
        }
        out
    }

    /// Returns the line and column of a byte offset; beyond the end, the end's.
    pub fn position(&self, at: usize) -> Position {
        let at = self.floor(at);
        let line = self.lines.partition_point(|l| *l <= at).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        Position { line, column: self.text[start..at].chars().count() + 1 }
    }

    /// Returns the text of a span, clamped to the source.
    pub fn slice(&self, span: Span) -> &str {
        let start = self.floor(span.start);
        &self.text[start..self.floor(span.end).max(start)]
    }

    /// Returns the byte offset of a line, from 1, and a column in characters, from 1.
    pub(crate) fn offset(&self, line: usize, column: usize) -> usize {
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(self.text.len());
        let rest = self.text.get(start..).unwrap_or("");
        let line = &rest[..rest.find('\n').unwrap_or(rest.len())];
        start + line.char_indices().nth(column.saturating_sub(1)).map_or(line.len(), |(i, _)| i)
    }

    fn floor(&self, at: usize) -> usize {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

/// Control characters, YAML 1.1 line breaks that YAML 1.2 does not break at, and characters that reorder or hide text.
pub(crate) fn is_forbidden(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' => false,
        c if c.is_control() => true,
        '\u{2028}'
        | '\u{2029}'
        | '\u{feff}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_and_lines_from_one() {
        let s = SourceText::new("x", "äb\nc°d\n");
        assert_eq!(s.position(0), Position { line: 1, column: 1 });
        assert_eq!(s.position(2), Position { line: 1, column: 2 });
        assert_eq!(s.position(4), Position { line: 2, column: 1 });
        assert_eq!(s.position(7), Position { line: 2, column: 3 });
        assert_eq!(s.position(99), Position { line: 3, column: 1 });
        assert_eq!(s.offset(2, 3), 7);
        assert_eq!(s.offset(9, 9), s.text.len());
    }

    #[test]
    fn a_byte_order_mark_is_dropped_and_bad_texts_are_named() {
        let (s, found) = SourceText::read(b"\xef\xbb\xbfplaybook: x\r\n", "x");
        assert!(found.is_empty());
        assert!(s.text.starts_with("playbook"));
        assert_eq!(SourceText::read(b"a\xffb", "x").1[0].labels[0].span, Span::new(1, 1));
        for bad in ["a\u{1b}[2J", "a\rb", "a\u{2028}b", "a\u{202e}b", "\0"] {
            assert_eq!(SourceText::read(bad.as_bytes(), "x").1[0].code, codes::BAD_TEXT, "{bad:?}");
        }
        assert_eq!(SourceText::read(&vec![b' '; MAX_BYTES + 1], "x").1[0].code, codes::TOO_LARGE);
    }
}
