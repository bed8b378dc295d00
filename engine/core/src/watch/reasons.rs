//! What a reason of Slurm's nodes means: patterns are data, and what fits none is somebody's own words.

use crate::incident::fault::{Strength, strength};
use crate::ownership::run_of_reason;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The most patterns of one table.
pub const MAX_PATTERNS: usize = 500;
/// The most parts of a reason that are looked at; what has more is somebody's own words.
const MAX_PARTS: usize = 32;
/// The longest text of a pattern, in bytes.
const MAX_TEXT: usize = 200;

/// One pattern, as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pattern {
    /// Its name, unique in the table.
    pub id: String,
    /// The whole part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is: Option<String>,
    /// The beginning of the part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts: Option<String>,
    /// Fragments that must all be in the part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contains: Vec<String>,
    /// The fault that it tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Whether it tells of something that somebody asked for.
    pub planned: bool,
    /// Whether Slurm explains it and a person has to look after it.
    pub person: bool,
    /// What it means, in one sentence.
    pub says: String,
    /// The playbook; `none` where nothing is to be done, `human` where a person decides.
    pub playbook: String,
    /// What it means in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub means: Option<String>,
    /// Which daemon or person writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_by: Option<String>,
    /// The states it comes with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Which jobs are lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs_lost: Option<String>,
    /// When the node comes back by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub returns: Option<String>,
    /// What a person looks at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look_at: Option<String>,
    /// What a machine may do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub automatic: Vec<String>,
    /// What needs a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person_for: Option<String>,
    /// Which releases of Slurm write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versions: Option<String>,
    /// Where it comes from.
    pub sources: Vec<String>,
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
        let kinds = [self.fault.is_some(), self.planned, self.person];
        if kinds.iter().filter(|k| **k).count() != 1 {
            return Some("give one of `fault`, `planned: true` and `person: true`".to_owned());
        }
        let unknown = self.fault.as_deref().filter(|f| strength(f) == Strength::Unknown);
        unknown.map(|f| format!("{f} is no fault word of this release"))
    }
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
    pub fn new(patterns: Vec<Pattern>) -> Result<Self, BadReasons> {
        let mut wrong = Vec::new();
        if patterns.len() > MAX_PATTERNS {
            wrong.push(format!("it has more than {MAX_PATTERNS} patterns"));
        }
        let mut ids = BTreeSet::new();
        for p in patterns.iter().take(MAX_PATTERNS) {
            if let Some(problem) = p.problem() {
                wrong.push(format!("{}: {problem}", p.id));
            }
            if !ids.insert(&p.id) {
                wrong.push(format!("{}: the name is there twice", p.id));
            }
        }
        if wrong.is_empty() { Ok(Self { patterns }) } else { Err(BadReasons(wrong)) }
    }

    /// Returns the patterns, in order.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Says whether a reason has the form of a mark of ours. A text that only looks like one is left alone as well.
    pub fn looks_ours(&self, reason: &str) -> bool {
        run_of_reason(reason).is_some() || reason.trim_start().starts_with("[slurmedic")
    }

    /// Splits a reason into its parts, each with the pattern that fits it. What has too many parts fits none.
    pub fn parts<'p, 't>(
        &'p self,
        reason: &'t str,
    ) -> impl Iterator<Item = (&'t str, Option<&'p Pattern>)> + use<'p, 't> {
        let parts = reason.split(" : ").map(str::trim).filter(|p| !p.is_empty());
        let fits = move |part: &str| self.patterns.iter().find(|p| p.fits(part));
        parts
            .take(MAX_PARTS + 1)
            .enumerate()
            .map(move |(i, part)| (part, fits(part).filter(|_| i < MAX_PARTS)))
    }

    /// Says what a reason tells. One part in somebody's own words makes the whole node theirs.
    pub fn told(&self, reason: &str) -> Told<'_> {
        if self.looks_ours(reason) {
            return Told::Ours;
        }
        let mut faults: Vec<(&str, &Pattern)> = Vec::new();
        let parts = reason.split(" : ").map(str::trim).filter(|p| !p.is_empty());
        for (i, part) in parts.enumerate() {
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
            fault: Some("disk-full".to_owned()),
            says: "x".to_owned(),
            ..Pattern::default()
        }
    }

    fn wrong(p: Pattern) -> String {
        Reasons::new(vec![p]).unwrap_err().to_string()
    }

    #[test]
    fn a_table_with_a_mistake_is_refused_with_every_one_of_them() {
        assert!(wrong(Pattern { is: None, ..pattern("a") }).contains("none of"));
        assert!(wrong(Pattern { starts: Some("E".into()), ..pattern("a") }).contains("alone"));
        assert!(wrong(Pattern { planned: true, ..pattern("a") }).contains("one of"));
        assert!(wrong(Pattern { fault: None, ..pattern("a") }).contains("one of"));
        assert!(wrong(Pattern { fault: Some("no-such".into()), ..pattern("a") }).contains("no fault word"));
        assert!(wrong(Pattern { says: String::new(), ..pattern("a") }).contains("empty"));
        assert!(wrong(Pattern { person: true, ..pattern("a") }).contains("one of"));
        assert_eq!(Reasons::new(vec![pattern("a"), pattern("a")]).unwrap_err().0.len(), 1);
    }
}
