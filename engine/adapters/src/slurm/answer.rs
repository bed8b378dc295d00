//! What a read gives besides the records: where they come from, and how a read fails.

use engine_core::known::{Cause, Known};
use serde::Serialize;
use std::fmt;

/// The largest output parsed, in bytes: ten times that of 50,000 nodes as text.
pub const MAX_INPUT: usize = 256 * 1024 * 1024;

/// Why an output gives no records. None of these ever means "there are none".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Nothing was printed where an answer was due.
    #[error("empty output where {what} were due; look at the exit code and stderr of the command")]
    Empty {
        /// What was being read.
        what: &'static str,
    },
    /// The output says that the read failed.
    #[error("the read of {what} failed: {message}")]
    ReadFailed {
        /// What was being read.
        what: &'static str,
        /// The words of the tool, cut to a sensible length.
        message: String,
    },
    /// A key that every known release prints is not there.
    #[error(
        "{what}: the key `{key}` is missing{}; this release prints another format, or a text with a line end broke the record",
        at(*line)
    )]
    Drift {
        /// What was being read.
        what: &'static str,
        /// The missing key.
        key: &'static str,
        /// Line of the record, counted from 1; 0 where lines mean nothing.
        line: usize,
    },
    /// The output is not in the expected form.
    #[error("{what}{}: {problem}", at(*line))]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// Line counted from 1; 0 where lines mean nothing.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The output is larger than [`MAX_INPUT`].
    #[error("the output has {len} bytes; at most {MAX_INPUT} are read")]
    TooLarge {
        /// Its length.
        len: usize,
    },
}

fn at(line: usize) -> String {
    if line == 0 { String::new() } else { format!(" (line {line})") }
}

impl ParseError {
    /// Returns the cause for the facts that this read should have given.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Empty { .. } => Cause::EmptyAnswer,
            Self::ReadFailed { .. } => Cause::ReadFailed,
            Self::Drift { .. } | Self::Malformed { .. } | Self::TooLarge { .. } => Cause::Unparsable,
        }
    }

    pub(crate) fn malformed(what: &'static str, line: usize, problem: impl Into<String>) -> Self {
        Self::Malformed { what, line, problem: problem.into() }
    }

    pub(crate) fn failed(what: &'static str, message: &str) -> Self {
        Self::ReadFailed { what, message: shorten(message, 400) }
    }
}

/// Cuts a text from outside to at most `max` bytes for a message.
pub(crate) fn shorten(text: &str, max: usize) -> String {
    let text = text.trim();
    if text.len() <= max {
        return text.to_owned();
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// Who answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The data parser of a JSON answer, e.g. `v0.0.42`.
    pub data_parser: Known<String>,
    /// Release of the Slurm that answered, e.g. `26.05.3`.
    pub slurm_release: Known<String>,
}

impl Source {
    /// The source of a text answer, which names neither.
    pub fn text() -> Self {
        let unknown = || Known::unknown(Cause::NotReported, "text output names no version");
        Self { data_parser: unknown(), slurm_release: unknown() }
    }
}

/// Records with their source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer<T> {
    /// Who answered.
    pub source: Source,
    /// Warnings of the answer, text from outside.
    pub warnings: Vec<String>,
    /// The records.
    pub value: T,
}

impl<T> Answer<T> {
    /// Wraps the records of a text answer.
    pub fn from_text(value: T) -> Self {
        Self { source: Source::text(), warnings: Vec::new(), value }
    }
}

/// One controller as `scontrol ping` saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ping {
    /// Host name of the controller.
    pub host: String,
    /// Whether it answers.
    pub up: Known<bool>,
    /// Whether it is the primary.
    pub primary: Known<bool>,
}

/// A release of Slurm.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Release {
    /// Year, e.g. 24.
    pub major: u16,
    /// Month, e.g. 11.
    pub minor: u16,
    /// Maintenance release.
    pub micro: u16,
    /// What follows, e.g. `0rc1`; empty for a release.
    pub suffix: String,
}

impl Release {
    /// Reads `22.05.8`, `24.11.0-0rc1` or `slurm-wlm 22.05.8`.
    pub fn parse(text: &str) -> Option<Self> {
        let word = text.split_whitespace().next_back().filter(|w| w.len() <= 64)?;
        let (numbers, suffix) = word.split_once('-').unwrap_or((word, ""));
        let mut parts = numbers.split('.').map(|p| p.parse::<u16>().ok());
        let (major, minor, micro) = (parts.next()??, parts.next()??, parts.next()??);
        if parts.next().is_some() {
            return None;
        }
        Some(Self { major, minor, micro, suffix: suffix.to_owned() })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}.{}", self.major, self.minor, self.micro)?;
        if self.suffix.is_empty() { Ok(()) } else { write!(f, "-{}", self.suffix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        for (text, want) in [
            ("slurm-wlm 22.05.8\n", Some("22.05.8")),
            ("slurm 26.05.3", Some("26.05.3")),
            ("24.11.0-0rc1", Some("24.11.0-0rc1")),
            ("slurm", None),
            ("", None),
            ("22.05", None),
            ("1.2.3.4", None),
            ("99999999.1.1", None),
        ] {
            assert_eq!(Release::parse(text).map(|r| r.to_string()).as_deref(), want, "{text}");
        }
        assert!(Release::parse("22.05.8") < Release::parse("23.11.0"));
    }

    #[test]
    fn messages_are_cut_at_character_boundaries() {
        assert!(shorten(&"\u{20ac}".repeat(1000), 400).len() <= 404);
    }
}
