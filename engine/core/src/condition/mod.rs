//! The condition language: typed, three-valued, with spans and an evaluation trace.
//!
//! It is the subset of Jinja and Python that people write in Ansible's `when:`:
//!
//! ```text
//! node.state in [IDLE, COMPLETING] and active_jobs == 0
//! not gpu.row_remap_failure and gpu.xid is known
//! slurm.version >= '23.02' or alert.age < params.max_age
//! ```
//!
//! | written | means |
//! |---|---|
//! | `and` `or` `not` | Kleene's logic: `false and unknown` is false, `true or unknown` is true |
//! | `==` `!=` | same type on both sides; two facts may be compared |
//! | `<` `<=` `>` `>=` | ints, floats, durations, versions |
//! | `in` `not in` | a list on the right: `[a, b]`, or a fact that is a list |
//! | `is known` `is unknown` | whether a fact has a value; never unknown itself |
//! | `5` `0.5` `true` `'text'` `5m` `IDLE` | int, float, bool, text, duration, word of a closed set |
//!
//! There is no arithmetic, no function, no filter and no conversion: a condition is checked completely when the
//! playbook loads, and judging it is bounded. Unknown never permits: null, NaN, stale, a word nobody here has
//! seen, the word UNKNOWN and a value of the wrong type are all unknown.
//!
//! A text goes through [`compile`] once; [`Condition::evaluate`] then costs microseconds. A stored condition keeps
//! its source and the types of what it reads, and is checked again when it is read back.

mod ast;
mod check;
pub mod codes;
mod eval;
mod number;
mod parse;
mod possible;
mod print;
mod scope;
mod sink;
mod token;
mod trace;
mod version;

#[cfg(test)]
mod tests;

pub use eval::Truth;
pub use possible::Outcomes;
pub use scope::Scope;
pub use trace::{Evaluation, Reading, TraceEntry};

use crate::diag::{Diagnostic, Span};
use crate::fact::FactSet;
use eval::{Names, Node};
use scope::Ty;
use serde::{Deserialize, Serialize, Serializer};
use sink::Sink;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// The longest source, in bytes.
pub const MAX_SOURCE: usize = 4096;

/// A condition that was checked and can be evaluated.
///
/// In JSON it is `{"source": "...", "types": {...}}`: complete in itself, and checked again when read.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Condition(Arc<Compiled>);

/// What a condition is made of; copies of it share this.
#[derive(Debug, PartialEq)]
struct Compiled {
    source: String,
    canonical: String,
    names: Names,
    root: Node,
}

/// A condition as it is stored.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    source: String,
    types: BTreeMap<String, Ty>,
}

/// The same, on its way out.
#[derive(Serialize)]
struct Storing<'a> {
    source: &'a str,
    types: BTreeMap<&'a str, &'a Ty>,
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let types = self.0.names.iter().map(|(name, ty)| (name.as_str(), ty)).collect();
        Storing { source: &self.0.source, types }.serialize(serializer)
    }
}

/// Compiles a condition, or says everything that is wrong with it, in the order of the source.
///
/// Spans are relative to `source`. Every diagnostic is an error with a code of [`codes::CODES`] and a help line.
pub fn compile(source: &str, scope: &Scope<'_>) -> Result<Condition, Vec<Diagnostic>> {
    let mut sink = Sink::default();
    if source.len() > MAX_SOURCE {
        sink.error(
            codes::TOO_LARGE,
            format!("this condition is {} bytes long, {MAX_SOURCE} are allowed", source.len()),
            Span::new(0, source.len()),
            "too long",
            "split it: each line of `preconditions` is one condition, and all of them must hold",
        );
        return Err(sink.into_sorted());
    }
    let checked = parse::parse(source, &mut sink)
        .and_then(|tree| check::check(source, &tree, scope, &mut sink).map(|checked| (tree, checked)));
    match checked {
        Some((tree, (names, root))) if sink.is_empty() => {
            let canonical = print::print(&tree);
            Ok(Condition(Arc::new(Compiled { source: source.to_owned(), canonical, names, root })))
        }
        _ => {
            if sink.is_empty() {
                // Nothing is permitted that was not understood, whatever went wrong in here.
                let span = Span::new(0, source.len());
                let help = "write it in simpler parts, joined by `and`";
                sink.error(codes::UNEXPECTED, "this condition cannot be understood", span, "all of it", help);
            }
            Err(sink.into_sorted())
        }
    }
}

impl Condition {
    /// Returns the text as written.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Returns the canonical form: one line, fewest parentheses, `'texts'`. It means the same.
    pub fn canonical(&self) -> String {
        self.0.canonical.clone()
    }

    /// Returns the names it reads, parameters as `params.NAME`.
    pub fn facts(&self) -> BTreeSet<String> {
        self.0.names.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Judges the condition on these facts; what is absent is unknown.
    pub fn evaluate(&self, facts: &FactSet) -> Evaluation {
        let mut trace = Vec::new();
        let truth = eval::evaluate(&self.0.root, &self.0.names, facts, false, &mut trace);
        Evaluation { truth, trace }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.canonical)
    }
}

/// A stored condition that does not compile any more.
#[derive(Debug, Clone, thiserror::Error)]
#[error("stored condition is refused: {code}: {message}; make a new plan with this release")]
struct StoredError {
    code: String,
    message: String,
}

impl TryFrom<Stored> for Condition {
    type Error = StoredError;

    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        compile(&stored.source, &Scope::of_stored(stored.types)).map_err(|found| {
            let first = found.into_iter().next();
            let (code, message) = first.map_or_else(Default::default, |d| (d.code, d.message));
            StoredError { code, message }
        })
    }
}
