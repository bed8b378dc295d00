//! JSON output: `scontrol --json`, `squeue --json`, `sinfo --json` of 22.05, and the bodies of slurmrestd.
//!
//! One reader for the data parsers v0.0.36 to v0.0.45 and those to come: the shape of each field is looked at, not the
//! version. Keys nobody knows are skipped; a required key that is missing stops the read; `.errors` that is not empty
//! means that the read failed, whatever else the body holds.

mod field;
mod jobs;
mod nodes;
mod others;

pub use jobs::parse_jobs;
pub use nodes::parse_nodes;
pub use others::{parse_partitions, parse_ping, parse_reservations};

use super::answer::{Answer, MAX_INPUT, ParseError, Source, shorten};
use engine_core::known::{Cause, Known};
use field::{Field, Object};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What every body has beside its records.
#[derive(Deserialize)]
struct Frame {
    #[serde(default)]
    meta: Option<Value>,
    #[serde(default)]
    errors: Option<Value>,
    #[serde(default)]
    warnings: Option<Value>,
}

impl Frame {
    /// Refuses a body that reports errors, or does not say that there are none.
    fn check(&self, what: &'static str) -> Result<(), ParseError> {
        if let Some(message) = errors(self.errors.as_ref()) {
            return Err(ParseError::failed(what, &message));
        }
        match self.errors {
            Some(Value::Array(_)) => Ok(()),
            _ => Err(ParseError::Drift { what, key: "errors", line: 0 }),
        }
    }

    fn answer<T>(&self, value: T) -> Answer<T> {
        let warnings = self.warnings.as_ref().and_then(Value::as_array);
        Answer {
            source: source(self.meta.as_ref()),
            warnings: warnings.into_iter().flatten().take(32).map(problem).collect(),
            value,
        }
    }
}

/// A body: its records, if the key is there, and the frame.
trait Body: DeserializeOwned {
    type Record;
    const WHAT: &'static str;
    const KEY: &'static str;
    fn split(self) -> (Option<Vec<Object<Self::Record>>>, Frame);
}

macro_rules! body {
    ($name:ident, $key:ident, $record:ty) => {
        #[derive(serde::Deserialize)]
        struct $name {
            #[serde(default)]
            $key: Option<Vec<super::Object<$record>>>,
            #[serde(default)]
            meta: Option<serde_json::Value>,
            #[serde(default)]
            errors: Option<serde_json::Value>,
            #[serde(default)]
            warnings: Option<serde_json::Value>,
        }

        impl super::Body for $name {
            type Record = $record;
            const WHAT: &'static str = stringify!($key);
            const KEY: &'static str = stringify!($key);
            fn split(self) -> (Option<Vec<super::Object<$record>>>, super::Frame) {
                let frame = super::Frame { meta: self.meta, errors: self.errors, warnings: self.warnings };
                (self.$key, frame)
            }
        }
    };
}
use body;

/// Reads a body, refuses it if it reports errors, and converts its records.
fn read<B: Body, T>(
    bytes: &[u8],
    mut convert: impl FnMut(&B::Record) -> Result<T, ParseError>,
) -> Result<Answer<Vec<T>>, ParseError> {
    if bytes.len() > MAX_INPUT {
        return Err(ParseError::TooLarge { len: bytes.len() });
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ParseError::Empty { what: B::WHAT });
    }
    // Free text in a body need not be UTF-8.
    let text = String::from_utf8_lossy(bytes);
    let Object(body) = serde_json::from_str::<Object<B>>(&text).map_err(|e| not_json(B::WHAT, &text, &e))?;
    let (records, frame) = body.split();
    frame.check(B::WHAT)?;
    let records = records.ok_or(ParseError::Drift { what: B::WHAT, key: B::KEY, line: 0 })?;
    Ok(frame.answer(records.iter().map(|Object(r)| convert(r)).collect::<Result<_, _>>()?))
}

/// Reads a body without records, such as the answer to an update: accepted, unless it reports errors.
///
/// # Errors
/// Errors reported by the body, or a body without `errors`.
pub fn parse_reply(bytes: &[u8]) -> Result<Answer<()>, ParseError> {
    const WHAT: &str = "an answer";
    if bytes.len() > MAX_INPUT {
        return Err(ParseError::TooLarge { len: bytes.len() });
    }
    let text = String::from_utf8_lossy(bytes);
    if text.trim().is_empty() {
        return Err(ParseError::Empty { what: WHAT });
    }
    let Object(frame) =
        serde_json::from_str::<Object<Frame>>(&text).map_err(|e| not_json(WHAT, &text, &e))?;
    frame.check(WHAT)?;
    Ok(frame.answer(()))
}

fn not_json(what: &'static str, text: &str, error: &serde_json::Error) -> ParseError {
    match text.lines().find_map(super::text::failure) {
        Some(message) if !text.trim_start().starts_with(['{', '[']) => ParseError::failed(what, message),
        _ => ParseError::malformed(
            what,
            error.line(),
            format!("not the JSON expected: {}", shorten(&error.to_string(), 200)),
        ),
    }
}

/// The reported errors as one line; `None` if there are none.
fn errors(errors: Option<&Value>) -> Option<String> {
    match errors {
        None | Some(Value::Null) => None,
        Some(Value::Array(list)) if list.is_empty() => None,
        Some(Value::Array(list)) => Some(list.iter().take(8).map(problem).collect::<Vec<_>>().join("; ")),
        Some(other) => Some(shorten(&other.to_string(), 400)),
    }
}

/// One entry of `.errors` or `.warnings` in the words of slurmrestd; its keys differ between versions.
fn problem(entry: &Value) -> String {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
    let number = ["error_number", "errno"].iter().find_map(|k| entry.get(*k).and_then(Value::as_i64));
    let mut words: Vec<String> =
        ["description", "error"].iter().filter_map(|k| text(k)).map(str::to_owned).collect();
    words.dedup();
    if let Some(n) = number {
        words.push(format!("error {n}"));
    }
    if words.is_empty() {
        words.push(entry.to_string());
    }
    shorten(&words.join(", "), 300)
}

fn source(meta: Option<&Value>) -> Source {
    let text = |path: &[&str]| {
        path.iter()
            .try_fold(meta?, |v, k| v.get(*k))
            .and_then(Value::as_str)
            .filter(|t| !t.is_empty() && t.len() < 100)
    };
    let known = |t: Option<&str>| match t {
        Some(t) => Known::Known(t.to_owned()),
        None => Known::unknown(Cause::NotReported, ""),
    };
    let parser = text(&["plugin", "data_parser"]).or_else(|| text(&["plugin", "type"]));
    let parser = parser.map(|p| p.rsplit('/').next().unwrap_or(p)).filter(|p| p.starts_with('v'));
    Source {
        data_parser: known(parser),
        slurm_release: known(text(&["slurm", "release"]).or_else(|| text(&["Slurm", "release"]))),
    }
}

/// Says that a required key is missing.
fn require(field: &Field, what: &'static str, key: &'static str) -> Result<(), ParseError> {
    if field.is_missing() { Err(ParseError::Drift { what, key, line: 0 }) } else { Ok(()) }
}
