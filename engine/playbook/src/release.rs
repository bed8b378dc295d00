//! Released versions are immutable: `released.lock` names the digest of each.

use crate::codes;
use crate::source::SourceText;
use crate::tree::short;
use engine_core::diag::{Diagnostic, Span};
use engine_core::playbook::PlaybookRef;
use semver::Version;
use std::collections::BTreeMap;

/// Name of the file at the root of a library.
pub const LOCK_FILE: &str = "released.lock";

/// The released versions with their digests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock(BTreeMap<(String, Version), String>);

impl Lock {
    /// Reads the lines `id version sha256`.
    pub fn parse(source: &SourceText) -> (Self, Vec<Diagnostic>) {
        let mut out = Self::default();
        let mut found = Vec::new();
        let mut at = 0;
        for line in source.text.split_inclusive('\n') {
            let span = Span::new(at, at + line.trim_end().len());
            at += line.len();
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let entry = match words.as_slice() {
                [id, version, digest] if is_digest(digest) => {
                    Version::parse(version).ok().map(|v| ((*id).to_owned(), v, (*digest).to_owned()))
                }
                _ => None,
            };
            let problem = match entry {
                None => format!("`{}` is not a released version", short(line)),
                Some((id, version, digest)) => match out.0.insert((id, version), digest) {
                    None => continue,
                    Some(_) => format!("`{}` stands here twice", short(line)),
                },
            };
            found.push(
                Diagnostic::error(codes::BAD_LOCK, problem, span, "")
                    .with_help("a line is an id, a version and a SHA-256 of 64 hexadecimal digits"),
            );
        }
        (out, found)
    }

    /// Says whether the version was released.
    pub fn contains(&self, id: &str, version: &Version) -> bool {
        self.0.contains_key(&(id.to_owned(), version.clone()))
    }

    /// Refuses a released version whose content differs from what was released.
    pub fn check(&self, playbook: &PlaybookRef, version_span: Span) -> Option<Diagnostic> {
        let released = self.0.get(&(playbook.id.clone(), playbook.version.clone()))?;
        (released != playbook.digest.as_str()).then(|| {
            Diagnostic::error(
                codes::CHANGED_RELEASE,
                format!("{playbook} was released with other content"),
                version_span,
                "this version never changes again",
            )
            .with_help(format!(
                "released as {}, now {}: restore the file and put the change into a new version",
                released.get(..12).unwrap_or(released),
                playbook.digest.short()
            ))
        })
    }

    /// Returns the line that releases a version.
    pub fn line(playbook: &PlaybookRef) -> String {
        format!("{} {} {}\n", playbook.id, playbook.version, playbook.digest)
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
}
