//! What an evaluation looked at, and how to say it to people in one line.

use super::ast::CmpOp;
use super::eval::{Names, Operand, Test, Truth};
use super::print::quote;
use super::sink::clip;
use crate::fact::Source;
use crate::known::Known;
use crate::value::Value;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The longest value shown in a sentence, in characters.
const MAX_SHOWN: usize = 120;
/// The most comparisons named in one sentence.
const MAX_NAMED: usize = 6;

/// The outcome of a condition and everything it looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The outcome.
    pub truth: Truth,
    /// Every comparison, in the order of the source.
    pub trace: Vec<TraceEntry>,
}

/// One comparison that was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceEntry {
    /// The comparison as written.
    pub text: String,
    /// The facts it read, with their values or why they are unknown.
    pub facts: Vec<Reading>,
    /// What the condition needs here, for people: `IDLE or COMPLETING`.
    pub wanted: String,
    /// Whether it stands under `not`: then the condition needs it to be false.
    pub negated: bool,
    /// Its own outcome.
    pub truth: Truth,
    /// Whether the outcome of the whole rests on it.
    pub decisive: bool,
}

/// One fact as it was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Its name.
    pub name: String,
    /// Its value; unknown also where the value is not of the declared type, or not a number.
    pub value: Known<Value>,
    /// Who said so; none where nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// When it was observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<Timestamp>,
}

impl Evaluation {
    /// Says whether it permits anything: only true does (rule 3).
    pub fn permits(&self) -> bool {
        self.truth == Truth::True
    }

    /// Says in one line why it came out as it did: `node.state = ALLOCATED, wanted IDLE or COMPLETING`.
    pub fn explain(&self) -> String {
        let decisive: Vec<&TraceEntry> = self.trace.iter().filter(|e| e.decisive).collect();
        let mut out: Vec<String> = decisive.iter().take(MAX_NAMED).map(|e| e.explain()).collect();
        if decisive.len() > MAX_NAMED {
            out.push(format!("and {} more", decisive.len() - MAX_NAMED));
        }
        out.join("; ")
    }
}

impl TraceEntry {
    /// Says whether the condition has here what it needs.
    pub fn satisfied(&self) -> Truth {
        if self.negated { !self.truth } else { self.truth }
    }

    /// Says in one line what was read and, unless that is what is needed, what is wanted.
    pub fn explain(&self) -> String {
        let readings: Vec<String> = self.facts.iter().map(Reading::explain).collect();
        let readings = readings.join(", ");
        let wanted = clip(&self.wanted, MAX_SHOWN * 2);
        let some_unknown = self.facts.iter().any(|f| !f.value.is_known());
        match self.satisfied() {
            Truth::False => format!("{readings}, wanted {wanted}"),
            Truth::Unknown if !some_unknown => {
                format!("{readings}, which cannot be compared, wanted {wanted}")
            }
            Truth::True | Truth::Unknown => readings,
        }
    }
}

impl Reading {
    /// Says the value, or why it is unknown.
    fn explain(&self) -> String {
        match &self.value {
            Known::Known(v) => format!("{} = {}", self.name, show(v)),
            Known::Unknown(u) => format!("{} is {}", self.name, clip(&u.to_string(), MAX_SHOWN * 2)),
        }
    }
}

/// Shows a value on one line; text from outside is quoted, shortened and printable.
fn show(value: &Value) -> String {
    match value {
        Value::Text(t) => {
            let short: String = t.chars().take(MAX_SHOWN).collect();
            let more = if short.len() < t.len() { "..." } else { "" };
            format!("{}{more}", quote(&short))
        }
        other => clip(&other.to_string(), MAX_SHOWN),
    }
}

/// Says what makes a test false, and what makes it true.
pub(super) fn wanted(test: &Test, names: &Names) -> [String; 2] {
    [false, true].map(|positive| match test {
        Test::Holds { .. } => positive.to_string(),
        Test::Compare { fact, op, with } => {
            let op = if positive { *op } else { op.opposite() };
            match (op, with) {
                (op, Operand::Fact(other)) => {
                    format!("{} {} {}", names[*fact].0, op.as_str(), names[*other].0)
                }
                (CmpOp::Eq, Operand::Value(v)) => show(v),
                (CmpOp::Ne, Operand::Value(v)) => format!("not {}", show(v)),
                (op, Operand::Value(v)) => format!("{} {}", op.as_str(), show(v)),
            }
        }
        Test::OneOf { values, negated, .. } => {
            let shown: Vec<String> = values.iter().map(show).collect();
            let alternatives = match shown.as_slice() {
                [head @ .., last] if !head.is_empty() => format!("{} or {last}", head.join(", ")),
                _ => shown.join(""),
            };
            match (positive != *negated, values.len()) {
                (true, _) => alternatives,
                (false, 1) => format!("not {alternatives}"),
                (false, _) => format!("none of {alternatives}"),
            }
        }
        Test::Contains { item, list, negated } => {
            let item = match item {
                Operand::Fact(i) => names[*i].0.clone(),
                Operand::Value(v) => show(v),
            };
            let verb = if positive == *negated { "not in" } else { "in" };
            format!("{item} {verb} {}", names[*list].0)
        }
        Test::Known { known, .. } => {
            if positive == *known {
                "a known value".to_owned()
            } else {
                "no known value".to_owned()
            }
        }
    })
}
