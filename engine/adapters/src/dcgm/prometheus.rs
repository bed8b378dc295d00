//! The Prometheus text format, strictly: one wrong line makes the whole text unreadable, with its number.
//!
//! A line that cannot be read may be the one that carries the fault, so nothing is passed over silently.

use super::text::one_line;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// One sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Line it stands in, from 1.
    pub line: usize,
    /// Metric name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value as printed.
    pub value: String,
}

impl Sample {
    /// Returns a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }
}

/// A text of metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exposition {
    /// Metrics that a HELP or TYPE line announces.
    pub declared: BTreeSet<String>,
    /// Every sample, in the order of the text.
    pub samples: Vec<Sample>,
}

/// Why a text is not metrics.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MetricsError {
    /// Nothing in it.
    #[error("no metrics: the text is empty")]
    Empty,
    /// A line that the format does not allow.
    #[error("line {line}: {why}: {text:?}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        why: &'static str,
        /// The line, bounded.
        text: String,
    },
    /// The last line has no end: the text was cut.
    #[error("line {line}: the text is cut off here")]
    Cut {
        /// Its number, from 1.
        line: usize,
    },
}

/// Reads a text of metrics.
pub fn parse(text: &str) -> Result<Exposition, MetricsError> {
    if text.trim().is_empty() {
        return Err(MetricsError::Empty);
    }
    let mut out = Exposition::default();
    for (i, raw) in text.split_inclusive('\n').enumerate() {
        let number = i + 1;
        let line = raw.trim_end_matches(['\n', '\r']);
        if !raw.ends_with('\n') {
            return Err(MetricsError::Cut { line: number });
        }
        if let Some(comment) = line.strip_prefix('#') {
            let mut words = comment.split_whitespace();
            if matches!(words.next(), Some("HELP" | "TYPE")) {
                out.declared.extend(words.next().map(str::to_owned));
            }
            continue;
        }
        if line.trim().is_empty() {
            continue;
        }
        let sample = sample(line, number).map_err(|why| MetricsError::Line {
            line: number,
            why,
            text: one_line(line),
        })?;
        out.samples.push(sample);
    }
    Ok(out)
}

fn is_name(text: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    !text.is_empty() && text.chars().all(ok) && !text.starts_with(|c: char| c.is_ascii_digit())
}

fn sample(line: &str, number: usize) -> Result<Sample, &'static str> {
    let line = line.trim_start();
    let end = line.find(|c: char| c == '{' || c.is_whitespace()).ok_or("no value")?;
    let (name, rest) = line.split_at(end);
    if !is_name(name) {
        return Err("not a metric name");
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inner) => read_labels(inner)?,
        None => (BTreeMap::new(), rest),
    };
    let mut words = rest.split_whitespace();
    let value = words.next().ok_or("no value")?;
    let number_like = |v: &str| v.parse::<f64>().is_ok() || matches!(v, "+Inf" | "-Inf" | "NaN");
    if !number_like(value) {
        return Err("the value is not a number");
    }
    if words.next().is_some_and(|t| t.parse::<i64>().is_err()) || words.next().is_some() {
        return Err("something stands after the value");
    }
    Ok(Sample { line: number, name: name.to_owned(), labels, value: value.to_owned() })
}

/// Reads `name="value",...}` and returns what follows.
fn read_labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str), &'static str> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (name, after) = rest.split_once('=').ok_or("a label without value")?;
        let name = name.trim();
        if !is_name(name) {
            return Err("not a label name");
        }
        let after = after.trim_start().strip_prefix('"').ok_or("a label value without quotes")?;
        let (value, after) = read_quoted(after)?;
        if labels.insert(name.to_owned(), value).is_some() {
            return Err("a label occurs twice");
        }
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None if rest.starts_with('}') => {}
            None => return Err("labels are not closed"),
        }
    }
}

fn read_quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('"' | '\\'))) => value.push(c),
                _ => return Err("an escape that does not exist"),
            },
            c => value.push(c),
        }
    }
    Err("a label value is not closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_escapes_and_timestamps_are_read() {
        let text =
            "# HELP a b\n# TYPE a gauge\na{x=\"1\",y=\"q\\\"\\\\\\n}\",} 1.5 1700000000000\nup 1\n\n# odd\n";
        let e = parse(text).unwrap();
        assert_eq!(e.samples.len(), 2);
        assert_eq!(e.samples[0].label("y"), Some("q\"\\\n}"));
        assert_eq!((e.samples[0].line, e.samples[0].value.as_str()), (3, "1.5"));
        assert!(e.declared.contains("a"));
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, line) in [
            ("a 1\nb{x=1} 2\n", 2),
            ("a{x=\"1\" 2\n", 1),
            ("a{x=\"1\",x=\"2\"} 2\n", 1),
            ("a{x=\"1} 2\n", 1),
            ("a{x=\"\\q\"} 2\n", 1),
            ("a one\n", 1),
            ("a\n", 1),
            ("a 1 2 3\n", 1),
            ("9a 1\n", 1),
        ] {
            let Err(MetricsError::Line { line: l, .. }) = parse(text) else { panic!("{text}") };
            assert_eq!(l, line, "{text}");
        }
        assert_eq!(parse("a 1\nb 7"), Err(MetricsError::Cut { line: 2 }));
        assert_eq!(parse("\n"), Err(MetricsError::Empty));
    }
}
