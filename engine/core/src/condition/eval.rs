//! Three-valued evaluation of a checked condition, with a trace of everything it looked at.
//!
//! Nothing is short-cut: each comparison is made and recorded, so that the audit shows all of them.

use super::ast::CmpOp;
use super::scope::Ty;
use super::trace::{Reading, TraceEntry};
use super::version;
use crate::fact::FactSet;
use crate::known::{Cause, Known};
use crate::value::Value;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// The word that says that a source does not know; a fact with this word is unknown (rule 3).
pub(super) const UNKNOWN_WORD: &str = "UNKNOWN";

/// The outcome of a condition, in Kleene's logic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truth {
    /// It does not hold.
    False,
    /// Nobody can tell.
    Unknown,
    /// It holds.
    True,
}

impl Truth {
    /// Both hold: false wins over unknown.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.min(other)
    }

    /// One of them holds: true wins over unknown.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        self.max(other)
    }

    /// Returns the stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::False => "false",
            Self::Unknown => "unknown",
            Self::True => "true",
        }
    }
}

impl std::ops::Not for Truth {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::False => Self::True,
            Self::Unknown => Self::Unknown,
            Self::True => Self::False,
        }
    }
}

impl From<bool> for Truth {
    fn from(b: bool) -> Self {
        if b { Self::True } else { Self::False }
    }
}

impl std::fmt::Display for Truth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A checked condition: names are resolved, values have the type of what they are compared with.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Any(Vec<Node>),
    All(Vec<Node>),
    Not(Box<Node>),
    Leaf(Leaf),
}

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Leaf {
    /// As written.
    pub(super) text: String,
    /// What would make it false, and what would make it true, for people.
    pub(super) wanted: [String; 2],
    pub(super) test: Test,
}

/// What a comparison asks. Facts are given by their place in [`Names`].
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Test {
    /// A bool fact on its own.
    Holds {
        fact: usize,
    },
    Compare {
        fact: usize,
        op: CmpOp,
        with: Operand,
    },
    /// A fact is one of these values.
    OneOf {
        fact: usize,
        values: Vec<Value>,
        negated: bool,
    },
    /// A list fact has this item.
    Contains {
        item: Operand,
        list: usize,
        negated: bool,
    },
    /// A fact is known, or (not `known`) unknown.
    Known {
        fact: usize,
        known: bool,
    },
}

/// The other side of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Fact(usize),
    Value(Value),
}

/// The facts a condition reads.
pub(super) type Names = Vec<(String, Ty)>;

impl Test {
    /// Returns the facts it reads.
    pub(super) fn reads(&self) -> (usize, Option<usize>) {
        match self {
            Self::Compare { fact, with: Operand::Fact(other), .. } => (*fact, Some(*other)),
            Self::Holds { fact }
            | Self::Compare { fact, .. }
            | Self::OneOf { fact, .. }
            | Self::Known { fact, .. } => (*fact, None),
            Self::Contains { item: Operand::Fact(item), list, .. } => (*item, Some(*list)),
            Self::Contains { list, .. } => (*list, None),
        }
    }
}

/// Evaluates a tree and appends its comparisons to the trace.
///
/// `negated` says whether the tree stands under an odd number of `not`.
pub(super) fn evaluate(
    node: &Node,
    names: &Names,
    facts: &FactSet,
    negated: bool,
    trace: &mut Vec<TraceEntry>,
) -> Truth {
    match node {
        Node::Not(inner) => !evaluate(inner, names, facts, !negated, trace),
        Node::Leaf(leaf) => {
            let entry = leaf.evaluate(names, facts, negated);
            let truth = entry.truth;
            trace.push(entry);
            truth
        }
        Node::All(children) | Node::Any(children) => {
            let parts: Vec<(usize, Truth)> = children
                .iter()
                .map(|child| {
                    let start = trace.len();
                    (start, evaluate(child, names, facts, negated, trace))
                })
                .collect();
            let truths = parts.iter().map(|(_, t)| *t);
            let truth = match node {
                Node::All(_) => truths.fold(Truth::True, Truth::and),
                _ => truths.fold(Truth::False, Truth::or),
            };
            // A part decided the outcome exactly when it came out the same.
            for (i, (start, part)) in parts.iter().enumerate() {
                let end = parts.get(i + 1).map_or(trace.len(), |(next, _)| *next);
                if *part != truth {
                    trace[*start..end].iter_mut().for_each(|e| e.decisive = false);
                }
            }
            truth
        }
    }
}

impl Leaf {
    fn evaluate(&self, names: &Names, facts: &FactSet, negated: bool) -> TraceEntry {
        let (first, second) = self.test.reads();
        let mut readings = vec![read(&names[first], facts)];
        readings.extend(second.map(|i| read(&names[i], facts)));
        let truth = self.test.judge(readings[0].value.known(), readings.get(1).and_then(|r| r.value.known()));
        TraceEntry {
            text: self.text.clone(),
            facts: readings,
            wanted: self.wanted[usize::from(!negated)].clone(),
            negated,
            truth,
            decisive: true,
        }
    }
}

impl Test {
    /// Judges on the values of the facts, in the order of [`Test::reads`]; none is unknown, or not read at all.
    fn judge(&self, first: Option<&Value>, second: Option<&Value>) -> Truth {
        if let Self::Known { known, .. } = self {
            return Truth::from(first.is_some() == *known);
        }
        let Some(first) = first else { return Truth::Unknown };
        let answer = match self {
            Self::Holds { .. } => match first {
                Value::Bool(b) => Some(*b),
                _ => None,
            },
            Self::Compare { op, with, .. } => {
                let other = match with {
                    Operand::Fact(_) => second,
                    Operand::Value(v) => Some(v),
                };
                other.and_then(|other| compare(first, other)).map(|order| op.accepts(order))
            }
            Self::OneOf { values, negated, .. } => one_of(first, values).map(|found| found != *negated),
            Self::Contains { item, negated, .. } => {
                let found = match item {
                    Operand::Fact(_) => second.and_then(|list| contains(list, first)),
                    Operand::Value(v) => contains(first, v),
                };
                found.map(|found| found != *negated)
            }
            Self::Known { .. } => None,
        };
        answer.map_or(Truth::Unknown, Truth::from)
    }
}

fn one_of(value: &Value, values: &[Value]) -> Option<bool> {
    let mut sure = true;
    for v in values {
        match compare(value, v) {
            Some(Ordering::Equal) => return Some(true),
            Some(_) => {}
            None => sure = false,
        }
    }
    sure.then_some(false)
}

fn contains(list: &Value, item: &Value) -> Option<bool> {
    match (list, item) {
        (Value::List(list), Value::Text(item) | Value::Word(item)) => Some(list.contains(item)),
        _ => None,
    }
}

impl CmpOp {
    fn accepts(self, order: Ordering) -> bool {
        match self {
            Self::Eq => order.is_eq(),
            Self::Ne => order.is_ne(),
            Self::Lt => order.is_lt(),
            Self::Le => order.is_le(),
            Self::Gt => order.is_gt(),
            Self::Ge => order.is_ge(),
        }
    }
}

/// Compares two values of one type; none where they have no order.
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Int(a), Value::Float(b)) => compare_mixed(*a, *b),
        (Value::Float(a), Value::Int(b)) => compare_mixed(*b, *a).map(Ordering::reverse),
        (Value::Text(a), Value::Text(b)) | (Value::Word(a), Value::Word(b)) => Some(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        (Value::Version(a), Value::Version(b)) => version::compare(a, b),
        _ => None,
    }
}

/// Compares exactly: large whole numbers do not fit a float.
fn compare_mixed(int: i64, float: f64) -> Option<Ordering> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if !float.is_finite() {
        return None;
    }
    if float >= LIMIT {
        return Some(Ordering::Less);
    }
    if float < -LIMIT {
        return Some(Ordering::Greater);
    }
    let whole = float.trunc();
    Some(int.cmp(&(whole as i64)).then(0.0.partial_cmp(&(float - whole))?))
}

/// Reads a fact; what cannot be trusted to be of its type is unknown.
fn read((name, ty): &(String, Ty), facts: &FactSet) -> Reading {
    let Some(fact) = facts.get(name) else {
        return Reading { name: name.clone(), value: facts.value(name), source: None, observed_at: None };
    };
    let value = match &fact.value {
        Known::Known(v) => vet(ty, v),
        Known::Unknown(u) => Known::Unknown(u.clone()),
    };
    Reading { name: name.clone(), value, source: Some(fact.source), observed_at: Some(fact.observed_at) }
}

fn vet(ty: &Ty, value: &Value) -> Known<Value> {
    let unseen =
        |word: &String| Known::unknown(Cause::UnrecognisedWord, format!("`{word}` is not a word known here"));
    match (ty, value) {
        (Ty::Float, Value::Float(x)) if !x.is_finite() => {
            Known::unknown(Cause::Unparsable, format!("{x} is no number"))
        }
        (Ty::Version, Value::Version(v)) if !version::is_version(v) => {
            Known::unknown(Cause::Unparsable, format!("`{v}` is not a version that can be compared"))
        }
        (Ty::Word(_), Value::Word(w)) if w == UNKNOWN_WORD => {
            Known::unknown(Cause::UnrecognisedWord, format!("the word is {UNKNOWN_WORD}"))
        }
        (Ty::Word(set), Value::Word(w)) if !set.contains(w) => unseen(w),
        (Ty::WordList(set), Value::List(l)) if l.iter().any(|w| !set.contains(w) || w == UNKNOWN_WORD) => l
            .iter()
            .find(|w| !set.contains(w) || *w == UNKNOWN_WORD)
            .map_or_else(|| Known::Known(value.clone()), unseen),
        (Ty::Bool, Value::Bool(_))
        | (Ty::Int | Ty::Float, Value::Int(_))
        | (Ty::Float, Value::Float(_))
        | (Ty::Text, Value::Text(_))
        | (Ty::Duration, Value::Duration(_))
        | (Ty::Version, Value::Version(_))
        | (Ty::Word(_), Value::Word(_))
        | (Ty::TextList | Ty::WordList(_), Value::List(_)) => Known::Known(value.clone()),
        (wanted, _) => Known::unknown(Cause::Unparsable, format!("the value is not {}", wanted.describe())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ints_and_floats_compare_exactly() {
        use Ordering::{Equal, Greater, Less};
        for (i, f, want) in [
            (5, 5.0, Some(Equal)),
            (5, 5.5, Some(Less)),
            (-5, -5.5, Some(Greater)),
            (i64::MAX, i64::MAX as f64, Some(Less)),
            (i64::MIN, i64::MIN as f64, Some(Equal)),
            ((1 << 53) + 1, 9_007_199_254_740_992.0, Some(Greater)),
            (0, -0.0, Some(Equal)),
            (0, 1e300, Some(Less)),
            (0, f64::NAN, None),
            (0, f64::INFINITY, None),
        ] {
            assert_eq!(compare_mixed(i, f), want, "{i} ~ {f}");
        }
    }
}
