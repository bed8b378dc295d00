//! Sources of alerts: how each writes its posts, who may send them, and what they come to as alerts of ours. Everything in
//! a post is text from outside: bounded, checked, never a template and never a command.

pub mod alertmanager;
pub mod generic;
pub mod grafana;
mod labels;
pub mod native;
mod signature;
mod source;

pub use labels::LabelMapping;
pub use signature::{BadSignature, Signing};
pub use source::{Kind, Source, SourceConfig, SourceSettings};

use crate::alerts::{Gathered, NotTaken};
use engine_core::incident::Fingerprint;
use engine_core::incident::alert::MAX_FINGERPRINT;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The most entries of one post.
pub const MAX_ENTRIES: usize = 20_000;
/// The most answers that one reply lists.
pub const MAX_ANSWERS: usize = 1_000;

/// Why a whole post is nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPost {
    /// It is not what this source sends.
    #[error("this is no {what}: {why}")]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// It has too many entries.
    #[error("{0} entries in one post are too many: at most {MAX_ENTRIES} are read")]
    TooMany(usize),
}

/// Names a series of a source; a name that is too long is told by its digest.
fn series(source: &str, own: &str) -> Result<Fingerprint, NotTaken> {
    let mut text = format!("{source}:{own}");
    if text.len() > MAX_FINGERPRINT {
        let digest = crate::secret::hex(&Sha256::digest(own.as_bytes()));
        text = format!("{source}:{}", digest.get(..32).unwrap_or(&digest));
    }
    Fingerprint::new(&text).map_err(|e| NotTaken::new("malformed", e.to_string()))
}

/// Reads a body as one JSON value.
fn json(what: &'static str, body: &[u8]) -> Result<Value, BadPost> {
    serde_json::from_slice(body).map_err(|e| BadPost::Malformed { what, why: e.to_string() })
}

/// Reads each entry of a list; one that is wrong does not spoil the others.
fn each(
    entries: Vec<Value>,
    read: impl Fn(Value) -> Result<engine_core::incident::Alert, NotTaken>,
) -> Result<Gathered, BadPost> {
    if entries.len() > MAX_ENTRIES {
        return Err(BadPost::TooMany(entries.len()));
    }
    Ok(entries.into_iter().map(read).collect())
}
