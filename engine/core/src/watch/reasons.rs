//! What a reason of Slurm's nodes means: patterns are data, and what fits none is somebody's own words.

use crate::incident::fault::{Strength, strength};
use crate::ownership::run_of_reason;
use serde::Deserialize;
use std::collections::BTreeSet;

/// The most patterns of one table.
pub const MAX_PATTERNS: usize = 500;
/// The most parts of a reason that are looked at; what has more is somebody's own words.
const MAX_PARTS: usize = 32;
/// The longest text of a pattern, in bytes.
const MAX_TEXT: usize = 200;
/// The format that is read.
const FORMAT: &str = "slurmedic/slurm-reasons/1";

/// One pattern, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    /// Its name, unique in the table.
    pub id: String,
    /// The whole part.
    #[serde(default)]
    pub is: Option<String>,
    /// The beginning of the part.
    #[serde(default)]
    pub starts: Option<String>,
    /// Fragments that must all be in the part.
    #[serde(default)]
    pub contains: Vec<String>,
    /// The fault that it tells.
    #[serde(default)]
    pub fault: Option<String>,
    /// Whether it tells of something that somebody asked for.
    #[serde(default)]
    pub planned: bool,
    /// What it means, in one sentence.
    pub says: String,
}

impl Pattern {
    fn fits(&self, part: &str) -> bool {
        self.is.as_ref().is_none_or(|t| part == t)
            && self.starts.as_ref().is_none_or(|t| part.starts_with(t.as_str()))
            && self.contains.iter().all(|t| part.contains(t.as_str()))
    }

    /// Says what is wrong with it.
    fn problem(&self) -> Option<String> {
        let texts = || self.is.iter().chain(&self.starts).chain(&self.contains);
        if texts().next().is_none() {
            return Some("it has none of `is`, `starts` and `contains`".to_owned());
        }
        if self.is.is_some() && (self.starts.is_some() || !self.contains.is_empty()) {
            return Some("`is` stands alone".to_owned());
        }
        if texts().chain([&self.id, &self.says]).any(|t| t.is_empty() || t.len() > MAX_TEXT) {
            return Some(format!("a text is empty or longer than {MAX_TEXT} bytes"));
        }
        match (&self.fault, self.planned) {
            (Some(_), true) | (None, false) => Some("give either `fault` or `planned: true`".to_owned()),
            (Some(f), false) if strength(f) == Strength::Unknown => {
                Some(format!("{f} is no fault word of this release"))
            }
            _ => None,
        }
    }
}

/// A table as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// `slurmedic/slurm-reasons/1`.
    pub format: String,
    /// The patterns, in order.
    pub reasons: Vec<Pattern>,
}

/// Why a table is not valid: each mistake in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the table of reasons is not valid: {}", .0.join("; "))]
pub struct BadReasons(pub Vec<String>);

/// The patterns in their order, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reasons {
    patterns: Vec<Pattern>,
}

/// What a reason tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told<'a> {
    /// It is a mark of ours: its run looks after the node.
    Ours,
    /// Somebody's own words, or something that somebody asked for: the node is theirs.
    Somebody,
    /// Faults, each with the pattern that told it; never empty, each fault once.
    Faults(Vec<(&'a str, &'a Pattern)>),
}

impl Reasons {
    /// Checks a table.
    pub fn new(written: Written) -> Result<Self, BadReasons> {
        let mut wrong = Vec::new();
        if written.format != FORMAT {
            wrong.push(format!("its format is {:?}, not {FORMAT:?}", written.format));
        }
        if written.reasons.len() > MAX_PATTERNS {
            wrong.push(format!("it has more than {MAX_PATTERNS} patterns"));
        }
        let mut ids = BTreeSet::new();
        for p in written.reasons.iter().take(MAX_PATTERNS) {
            if let Some(problem) = p.problem() {
                wrong.push(format!("{}: {problem}", p.id));
            }
            if !ids.insert(&p.id) {
                wrong.push(format!("{}: the name is there twice", p.id));
            }
        }
        if wrong.is_empty() { Ok(Self { patterns: written.reasons }) } else { Err(BadReasons(wrong)) }
    }

    /// Says what a reason tells. One part in somebody's own words makes the whole node theirs.
    pub fn told(&self, reason: &str) -> Told<'_> {
        // A text that only looks like ours is left alone as well.
        if run_of_reason(reason).is_some() || reason.trim_start().starts_with("[slurmedic") {
            return Told::Ours;
        }
        let mut faults: Vec<(&str, &Pattern)> = Vec::new();
        for (i, part) in reason.split(" : ").map(str::trim).filter(|p| !p.is_empty()).enumerate() {
            let fits = self.patterns.iter().find(|p| p.fits(part)).filter(|_| i < MAX_PARTS);
            match fits.and_then(|p| Some((p.fault.as_deref()?, p))) {
                None => return Told::Somebody,
                Some((fault, p)) if faults.iter().all(|(f, _)| *f != fault) => faults.push((fault, p)),
                Some(_) => {}
            }
        }
        if faults.is_empty() { Told::Somebody } else { Told::Faults(faults) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(id: &str) -> Pattern {
        Pattern {
            id: id.to_owned(),
            is: Some("Epilog error".to_owned()),
            starts: None,
            contains: vec![],
            fault: Some("disk-full".to_owned()),
            planned: false,
            says: "x".to_owned(),
        }
    }

    fn wrong(p: Pattern) -> String {
        let written = Written { format: FORMAT.to_owned(), reasons: vec![p] };
        Reasons::new(written).unwrap_err().to_string()
    }

    #[test]
    fn a_table_with_a_mistake_is_refused_with_every_one_of_them() {
        assert!(wrong(Pattern { is: None, ..pattern("a") }).contains("none of"));
        assert!(wrong(Pattern { starts: Some("E".into()), ..pattern("a") }).contains("alone"));
        assert!(wrong(Pattern { planned: true, ..pattern("a") }).contains("either"));
        assert!(wrong(Pattern { fault: None, ..pattern("a") }).contains("either"));
        assert!(wrong(Pattern { fault: Some("no-such".into()), ..pattern("a") }).contains("no fault word"));
        assert!(wrong(Pattern { says: String::new(), ..pattern("a") }).contains("empty"));
        let written = Written { format: "x".to_owned(), reasons: vec![pattern("a"), pattern("a")] };
        assert_eq!(Reasons::new(written).unwrap_err().0.len(), 2);
    }
}
