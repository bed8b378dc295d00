//! Alerts: one observation that something is wrong. Everything in one is text from outside, bounded and checked.

use crate::model::NodeName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest fingerprint, in bytes.
pub const MAX_FINGERPRINT: usize = 128;
/// The longest fault word, in bytes.
pub const MAX_FAULT: usize = 64;
/// The longest name of a source, in bytes.
pub const MAX_SOURCE: usize = 64;
/// The longest GPU name (index, UUID or PCI address), in bytes.
pub const MAX_GPU: usize = 64;
/// The longest summary, in bytes; longer ones are cut.
pub const MAX_SUMMARY: usize = 512;

/// Names a series of alerts: two alerts with the same one are the same alert, seen again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Accepts 1 to [`MAX_FINGERPRINT`] bytes of printable text.
    pub fn new(text: &str) -> Result<Self, InvalidAlert> {
        plain("fingerprint", text, MAX_FINGERPRINT).map(Self)
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One observation that something is wrong, or that it is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Who sent it, e.g. `alertmanager`.
    pub source: String,
    /// Which series it belongs to.
    pub fingerprint: Fingerprint,
    /// What is wrong, as a fault word such as `gpu-ecc-uncorrectable`.
    pub fault: String,
    /// The node: exactly one.
    pub node: NodeName,
    /// The GPU, where the alert names one: index, UUID or PCI address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// True while it lasts, false when the source says that it is over.
    pub firing: bool,
    /// When the source saw it, by the source's clock.
    pub seen_at: Timestamp,
    /// One sentence for people. Never a template, never a command.
    #[serde(default)]
    pub summary: String,
}

/// Why something is no alert.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAlert {
    /// A part is missing.
    #[error("the alert's {part} is empty")]
    Empty {
        /// Which part.
        part: &'static str,
    },
    /// A part is too long.
    #[error("the alert's {part} has {len} bytes; at most {max} are taken")]
    TooLong {
        /// Which part.
        part: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A part has characters that it may not have.
    #[error("the alert's {part} contains {found:?}; {allowed}")]
    BadCharacter {
        /// Which part.
        part: &'static str,
        /// The first such character.
        found: char,
        /// What it may have.
        allowed: &'static str,
    },
}

impl Alert {
    /// Checks and bounds the parts that are text. The summary is cut and cleaned, everything else is refused.
    pub fn checked(mut self) -> Result<Self, InvalidAlert> {
        plain("source", &self.source, MAX_SOURCE)?;
        if let Some(gpu) = &self.gpu {
            plain("GPU", gpu, MAX_GPU)?;
        }
        plain("fault", &self.fault, MAX_FAULT)?;
        let allowed = "lower-case letters, digits and `-` only";
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if let Some(found) = self.fault.chars().find(|c| !word(*c)) {
            return Err(InvalidAlert::BadCharacter { part: "fault", found, allowed });
        }
        let mut summary = String::new();
        for c in self.summary.chars().map(|c| if c.is_control() { ' ' } else { c }) {
            if summary.len() + c.len_utf8() > MAX_SUMMARY {
                break;
            }
            summary.push(c);
        }
        self.summary = summary;
        Ok(self)
    }
}

fn plain(part: &'static str, text: &str, max: usize) -> Result<String, InvalidAlert> {
    if text.is_empty() {
        return Err(InvalidAlert::Empty { part });
    }
    if text.len() > max {
        return Err(InvalidAlert::TooLong { part, len: text.len(), max });
    }
    match text.chars().find(|c| c.is_control()) {
        Some(found) => Err(InvalidAlert::BadCharacter { part, found, allowed: "printable characters only" }),
        None => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(fault: &str, summary: &str) -> Alert {
        Alert {
            source: "test".to_owned(),
            fingerprint: Fingerprint::new("f1").unwrap(),
            fault: fault.to_owned(),
            node: NodeName::new("gpu001").unwrap(),
            gpu: None,
            firing: true,
            seen_at: Timestamp::UNIX_EPOCH,
            summary: summary.to_owned(),
        }
    }

    #[test]
    fn parts_are_bounded_and_plain() {
        assert!(alert("gpu-ecc-uncorrectable", "ok").checked().is_ok());
        for fault in ["", "GPU", "a b", "{{ 7*7 }}", "a\nb", &"a".repeat(65)] {
            assert!(alert(fault, "").checked().is_err(), "{fault:?}");
        }
        assert!(Fingerprint::new(&"x".repeat(129)).is_err());
        assert!(Fingerprint::new("a\u{0}b").is_err());
        let long = alert("x", &"é\n".repeat(2_000)).checked().unwrap();
        assert!(long.summary.len() <= MAX_SUMMARY && !long.summary.contains('\n'));
    }
}
