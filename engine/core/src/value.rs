//! Typed values of facts, parameters and action arguments, and their types.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A closed set of words, such as the node states, that conditions may compare with.
#[derive(Debug, PartialEq, Eq)]
pub struct EnumType {
    /// Name of the set, e.g. `node.state`.
    pub name: &'static str,
    /// Its words with their meaning.
    pub words: &'static [(&'static str, &'static str)],
}

impl EnumType {
    /// Says whether the set has this word.
    pub fn contains(&self, word: &str) -> bool {
        self.words.iter().any(|(w, _)| *w == word)
    }
}

/// The type of a fact, a parameter or an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int,
    /// A real number. Whole numbers are accepted where a real one is due.
    Float,
    /// Free text.
    Text,
    /// A length of time, written `90s`, `5m`, `4h`, `1h30m`, `2d`.
    Duration,
    /// A version number, compared by its parts.
    Version,
    /// One word out of a closed set.
    Enum(&'static EnumType),
    /// A list of texts.
    TextList,
    /// A list of words out of a closed set.
    EnumList(&'static EnumType),
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Float => f.write_str("float"),
            Self::Text => f.write_str("text"),
            Self::Duration => f.write_str("duration"),
            Self::Version => f.write_str("version"),
            Self::Enum(e) => write!(f, "word of {}", e.name),
            Self::TextList => f.write_str("list of text"),
            Self::EnumList(e) => write!(f, "list of words of {}", e.name),
        }
    }
}

/// A typed value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
pub enum Value {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A real number; never NaN (a NaN reading is unknown).
    Float(f64),
    /// Free text.
    Text(String),
    /// A length of time, in milliseconds.
    #[serde(with = "millis")]
    Duration(SignedDuration),
    /// A version, as text; compared by its numeric parts.
    Version(String),
    /// A word of a closed set.
    Word(String),
    /// A list of texts or words.
    List(Vec<String>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => write!(f, "{b}"),
            Self::Int(i) => write!(f, "{i}"),
            Self::Float(x) => write!(f, "{x}"),
            Self::Text(t) => write!(f, "{t:?}"),
            Self::Duration(d) => f.write_str(&format_duration(*d)),
            Self::Version(v) | Self::Word(v) => f.write_str(v),
            Self::List(l) => write!(f, "[{}]", l.join(", ")),
        }
    }
}

mod millis {
    use jiff::SignedDuration;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(d: &SignedDuration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_i64(i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<SignedDuration, D::Error> {
        Ok(SignedDuration::from_millis(i64::deserialize(d)?))
    }
}

/// A text that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration: write a number and a unit (ms, s, m, h, d), such as 90s, 5m or 1h30m")]
pub struct DurationError(pub String);

/// Parses `90s`, `5m`, `1h30m`, `2d`, `250ms`. Refuses a bare number, a sign and anything above ten years.
pub fn parse_duration(text: &str) -> Result<SignedDuration, DurationError> {
    let err = || DurationError(text.chars().take(40).collect());
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(err());
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(err)?;
        if digits == 0 {
            return Err(err());
        }
        let n: i64 = rest[..digits].parse().map_err(|_| err())?;
        rest = &rest[digits..];
        let unit_len = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..unit_len] {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(err()),
        };
        rest = &rest[unit_len..];
        total = n.checked_mul(unit).and_then(|x| x.checked_add(total)).ok_or_else(err)?;
    }
    if total > 10 * 366 * 86_400_000 {
        return Err(err());
    }
    Ok(SignedDuration::from_millis(total))
}

/// Prints a duration in the form that [`parse_duration`] reads.
pub fn format_duration(d: SignedDuration) -> String {
    let ms = d.as_millis();
    if ms < 0 {
        return format!("-{}", format_duration(-d));
    }
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    let mut rest = ms;
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest >= size {
            out.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse_and_print_back() {
        for t in ["90s", "5m", "1h30m", "2d", "250ms", "0s"] {
            let d = parse_duration(t).unwrap();
            assert_eq!(parse_duration(&format_duration(d)).unwrap(), d, "{t}");
        }
        assert_eq!(parse_duration("1h30m").unwrap(), SignedDuration::from_mins(90));
        for bad in ["", "300", "-5m", "5 m", "m", "5x", "99999999999999999999d", "9999d9999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
