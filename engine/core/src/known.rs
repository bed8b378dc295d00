//! Three-valued knowledge: a value, or the reason why there is none.
//!
//! `Unknown` is not a value and never permits an action (constitution rule 3).

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Why a value is not known. Stable words: they appear in JSON output and in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Nobody looked: no source for this fact is configured or it was not part of the read.
    NotObserved,
    /// The read failed (tool missing, exit code, connection refused, error list not empty).
    ReadFailed,
    /// The read did not finish before its deadline.
    TimedOut,
    /// The answer was empty where an answer was due.
    EmptyAnswer,
    /// The answer could not be parsed.
    Unparsable,
    /// The source has this field, and says that it does not know (`N/A`, `set: false`).
    NotReported,
    /// This version of the source has no such field.
    Unsupported,
    /// A word, flag, status or version that this release of Slurmedic has never seen.
    UnrecognisedWord,
    /// Two sources, or two series of one source, contradict each other.
    Conflicting,
    /// Observed too long ago.
    Stale,
    /// Observed before our own last mutation of the target.
    OlderThanMutation,
}

impl Cause {
    /// Returns the stable word for this cause.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotObserved => "not_observed",
            Self::ReadFailed => "read_failed",
            Self::TimedOut => "timed_out",
            Self::EmptyAnswer => "empty_answer",
            Self::Unparsable => "unparsable",
            Self::NotReported => "not_reported",
            Self::Unsupported => "unsupported",
            Self::UnrecognisedWord => "unrecognised_word",
            Self::Conflicting => "conflicting",
            Self::Stale => "stale",
            Self::OlderThanMutation => "older_than_mutation",
        }
    }
}

/// The absence of a value, with its cause and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unknown {
    /// The class of the cause.
    pub cause: Cause,
    /// What exactly happened, for people; may be empty.
    #[serde(default)]
    pub detail: String,
}

impl Unknown {
    /// Builds an unknown from its cause and a detail for people.
    pub fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self { cause, detail: detail.into() }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            write!(f, "unknown ({})", self.cause.as_str())
        } else {
            write!(f, "unknown ({}: {})", self.cause.as_str(), self.detail)
        }
    }
}

/// A value that may be unknown.
///
/// In JSON a known value is the value itself; an unknown one is
/// `{"unknown": {"cause": "...", "detail": "..."}}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Known<T> {
    /// The value is known.
    Known(T),
    /// It is not, and why.
    Unknown(Unknown),
}

impl<T> Known<T> {
    /// Builds an unknown value.
    pub fn unknown(cause: Cause, detail: impl Into<String>) -> Self {
        Self::Unknown(Unknown::new(cause, detail))
    }

    /// Returns the value, if known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(v) => Some(v),
            Self::Unknown(_) => None,
        }
    }

    /// Returns the value by move, if known.
    pub fn into_known(self) -> Option<T> {
        match self {
            Self::Known(v) => Some(v),
            Self::Unknown(_) => None,
        }
    }

    /// Says whether the value is known.
    pub fn is_known(&self) -> bool {
        matches!(self, Self::Known(_))
    }

    /// Says whether the value is known and satisfies the predicate; unknown is `false`.
    pub fn is_known_and(&self, f: impl FnOnce(&T) -> bool) -> bool {
        self.known().is_some_and(f)
    }

    /// Applies a function to a known value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Known<U> {
        match self {
            Self::Known(v) => Known::Known(f(v)),
            Self::Unknown(u) => Known::Unknown(u),
        }
    }

    /// Applies a function that may itself find the value unknown.
    pub fn and_then<U>(self, f: impl FnOnce(T) -> Known<U>) -> Known<U> {
        match self {
            Self::Known(v) => f(v),
            Self::Unknown(u) => Known::Unknown(u),
        }
    }

    /// Borrows the content.
    pub fn as_ref(&self) -> Known<&T> {
        match self {
            Self::Known(v) => Known::Known(v),
            Self::Unknown(u) => Known::Unknown(u.clone()),
        }
    }
}

impl<T> From<T> for Known<T> {
    fn from(v: T) -> Self {
        Self::Known(v)
    }
}

impl<T: fmt::Display> fmt::Display for Known<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(v) => v.fmt(f),
            Self::Unknown(u) => u.fmt(f),
        }
    }
}

impl<T: Serialize> Serialize for Known<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Wire<'a> {
            unknown: &'a Unknown,
        }
        match self {
            Self::Known(v) => v.serialize(s),
            Self::Unknown(u) => Wire { unknown: u }.serialize(s),
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Known<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let v = serde_json::Value::deserialize(d)?;
        if let Some(u) = v.as_object().filter(|o| o.len() == 1).and_then(|o| o.get("unknown")) {
            return Unknown::deserialize(u).map(Self::Unknown).map_err(D::Error::custom);
        }
        T::deserialize(v).map(Self::Known).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_round_trip_keeps_value_and_cause() {
        for k in [Known::Known(3_i64), Known::unknown(Cause::Stale, "read 10 min ago")] {
            let j = serde_json::to_string(&k).unwrap();
            assert_eq!(serde_json::from_str::<Known<i64>>(&j).unwrap(), k, "{j}");
        }
    }
}
