//! Alerts as people and our own programs write them: what `slurmedic alert FILE` reads.

use super::{BadPost, MAX_ENTRIES};
use crate::alerts::{Gathered, NotTaken};
use engine_core::incident::{Alert, Fingerprint};
use engine_core::model::NodeName;
use jiff::Timestamp;
use serde::Deserialize;

/// `node` and `fault` are needed; the rest has a default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    node: String,
    fault: String,
    gpu: Option<Gpu>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    fingerprint: Option<String>,
    #[serde(default = "yes")]
    firing: bool,
    #[serde(default)]
    seen_at: Option<Timestamp>,
    #[serde(default)]
    summary: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Gpu {
    Index(u32),
    Name(String),
}

fn yes() -> bool {
    true
}

/// Reads one alert as JSON, a list of them, or one on each line. `source` is who sends them where they do not say.
pub fn read(body: &[u8], source: &str, now: Timestamp) -> Result<Gathered, BadPost> {
    read_at_most(body, source, now, MAX_ENTRIES)
}

/// Reads a file that a person feeds: as [`read`], with any number of alerts.
pub fn read_file(body: &[u8], source: &str, now: Timestamp) -> Result<Gathered, BadPost> {
    read_at_most(body, source, now, usize::MAX)
}

fn read_at_most(body: &[u8], source: &str, now: Timestamp, most: usize) -> Result<Gathered, BadPost> {
    let bad = |e: serde_json::Error| BadPost::Malformed { what: "alert", why: e.to_string() };
    let begins = body.iter().find(|b| !b.is_ascii_whitespace());
    let written: Vec<Written> = if begins == Some(&b'[') {
        serde_json::from_slice(body).map_err(bad)?
    } else {
        let all = serde_json::Deserializer::from_slice(body).into_iter::<Written>();
        all.collect::<Result<_, _>>().map_err(bad)?
    };
    if written.len() > most {
        return Err(BadPost::TooMany(written.len()));
    }
    Ok(written
        .into_iter()
        .map(|w| lower(w, source, now).map_err(|e| NotTaken::new("malformed", e)))
        .collect())
}

fn lower(w: Written, source: &str, now: Timestamp) -> Result<Alert, String> {
    let gpu = w.gpu.map(|g| match g {
        Gpu::Index(i) => i.to_string(),
        Gpu::Name(name) => name,
    });
    let named = format!("{}/{}/{}", w.fault, w.node, gpu.as_deref().unwrap_or("-"));
    let fingerprint = Fingerprint::new(w.fingerprint.as_deref().unwrap_or(&named));
    Alert {
        source: w.source.unwrap_or_else(|| source.to_owned()),
        fingerprint: fingerprint.map_err(|e| e.to_string())?,
        fault: w.fault,
        node: NodeName::new(&w.node).map_err(|e| e.to_string())?,
        gpu,
        firing: w.firing,
        seen_at: w.seen_at.unwrap_or(now),
        summary: w.summary,
    }
    .checked()
    .map_err(|e| e.to_string())
}
