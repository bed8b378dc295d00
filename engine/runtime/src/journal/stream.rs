//! Streams: append-only records of what concerns the fleet and not one run, such as alerts, pauses and the breaker.
//!
//! A stream shares positions and the hash chain with the events of all runs, so that the check of the journal proves
//! in which order they happened.

use super::JournalError;
use jiff::Timestamp;
use serde::Serialize;
use std::fmt;

/// The longest name of a stream and the longest kind of a record, in bytes.
pub const MAX_WORD: usize = 32;
/// The largest record, in bytes of JSON.
pub const MAX_RECORD: usize = 1 << 20;
/// The most records of one append.
pub const MAX_RECORDS: usize = 10_000;
/// The largest append of records, in bytes of JSON.
pub const MAX_APPEND: usize = 8 << 20;

/// A record that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecord {
    /// A name of a stream or a kind of a record that is no plain word.
    #[error(
        "{shown:?} cannot be the {what}: use 1 to {MAX_WORD} lower-case letters, digits, `-` or `_`, a letter first"
    )]
    BadWord {
        /// What it was to be.
        what: &'static str,
        /// The first characters of what was given.
        shown: String,
    },
    /// The body is not JSON.
    #[error("the body of the record is not JSON: {why}")]
    NotJson {
        /// What is wrong.
        why: String,
    },
    /// The body is too large.
    #[error("the body of the record has {size} bytes; at most {MAX_RECORD} are allowed")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
}

fn word(what: &'static str, text: &str) -> Result<(), InvalidRecord> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    let good = (1..=MAX_WORD).contains(&text.len())
        && text.bytes().all(plain)
        && text.starts_with(|c: char| c.is_ascii_lowercase());
    if good { Ok(()) } else { Err(InvalidRecord::BadWord { what, shown: text.chars().take(48).collect() }) }
}

/// The name of a stream: a short word, such as `fleet`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct StreamName(String);

impl StreamName {
    /// Accepts a name: 1 to [`MAX_WORD`] lower-case letters, digits, `-` or `_`, a letter first.
    pub fn new(text: &str) -> Result<Self, InvalidRecord> {
        word("name of a stream", text)?;
        Ok(Self(text.to_owned()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A record to be appended: checked when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    kind: String,
    body: String,
}

impl NewRecord {
    /// Takes a kind, which is a stable word, and a body, which is one JSON value of at most [`MAX_RECORD`] bytes. The
    /// body is kept to the byte.
    pub fn new(kind: impl Into<String>, body: impl Into<String>) -> Result<Self, InvalidRecord> {
        let (kind, body) = (kind.into(), body.into());
        word("kind of a record", &kind)?;
        if body.len() > MAX_RECORD {
            return Err(InvalidRecord::TooLarge { size: body.len() });
        }
        is_json(&body).map_err(|why| InvalidRecord::NotJson { why })?;
        Ok(Self { kind, body })
    }

    /// Takes a value and writes it as JSON.
    pub fn of<T: Serialize>(kind: impl Into<String>, value: &T) -> Result<Self, InvalidRecord> {
        let body = serde_json::to_string(value).map_err(|e| InvalidRecord::NotJson { why: e.to_string() })?;
        Self::new(kind, body)
    }

    /// Returns the kind.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Returns the body.
    pub fn body(&self) -> &str {
        &self.body
    }

    pub(super) fn into_parts(self) -> (String, String) {
        (self.kind, self.body)
    }
}

/// Says whether a text is one JSON value.
fn is_json(text: &str) -> Result<(), String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop).map_err(|e| e.to_string())
}

/// A record on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Its stream.
    pub stream: StreamName,
    /// Its place in the stream: from 1, no gaps.
    pub seq: u64,
    /// When it was appended, by the clock of who appended it.
    pub at: Timestamp,
    /// What it is: a stable word.
    pub kind: String,
    /// What it says: JSON.
    pub body: String,
}

/// Makes sure that an append keeps its bounds.
pub(super) fn bounded(records: &[NewRecord]) -> Result<(), JournalError> {
    if records.len() > MAX_RECORDS {
        return Err(JournalError::TooMany {
            what: "records in one append",
            count: records.len(),
            limit: MAX_RECORDS,
        });
    }
    let size = records.iter().map(|r| r.body.len()).sum();
    if size > MAX_APPEND {
        return Err(JournalError::TooLarge { what: "the append", size, limit: MAX_APPEND });
    }
    Ok(())
}

/// Reads a record out of stored bytes; `Err` says what in it cannot be read.
pub(super) fn decode(raw: &super::chain::RawEvent<'_>) -> Result<Record, String> {
    let text = |what: &str, bytes: &[u8]| {
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|e| format!("its {what} is not text: {e}"))
    };
    let kind = text("kind", raw.kind)?;
    word("kind of a record", &kind).map_err(|e| e.to_string())?;
    let body = text("content", raw.body)?;
    is_json(&body).map_err(|why| format!("its content is not JSON: {why}"))?;
    Ok(Record {
        stream: StreamName::new(&text("stream", raw.name)?).map_err(|e| e.to_string())?,
        seq: raw.seq,
        at: text("time", raw.at)?.parse().map_err(|e| format!("its time cannot be read: {e}"))?,
        kind,
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_a_plain_word_for_a_name() {
        for good in ["fleet", "a", "alerts_2", "x-y"] {
            assert_eq!(StreamName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "Fleet", "2x", "a b", "a:b", "ä", "-a", &"x".repeat(33)] {
            assert!(StreamName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_body_is_one_json_value_and_stays_as_it_is() {
        let r = NewRecord::new("alert", r#"{ "b": 1.50, "a": "ü\u00fc" }"#).unwrap();
        assert_eq!(r.body(), r#"{ "b": 1.50, "a": "ü\u00fc" }"#);
        for bad in ["", "{", "{} {}", "nan", "{'a': 1}", "\u{0}"] {
            assert!(matches!(NewRecord::new("alert", bad), Err(InvalidRecord::NotJson { .. })), "{bad}");
        }
        assert!(NewRecord::new("Alert", "{}").is_err());
        let large = format!("\"{}\"", "x".repeat(MAX_RECORD));
        assert!(matches!(NewRecord::new("alert", large), Err(InvalidRecord::TooLarge { .. })));
        assert_eq!(NewRecord::of("alert", &serde_json::json!({"a": 1})).unwrap().body(), r#"{"a":1}"#);
    }
}
