//! The webhook of Alertmanager, version 4.

use super::labels::{LabelMapping, Labels, Said};
use super::{BadPost, each, json};
use crate::alerts::{Gathered, NotTaken};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

const WHAT: &str = "webhook of Alertmanager";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Post {
    version: Option<String>,
    alerts: Vec<Value>,
    #[serde(default)]
    truncated_alerts: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    status: String,
    labels: Labels,
    #[serde(default)]
    annotations: Labels,
    starts_at: Option<Timestamp>,
    #[serde(default)]
    fingerprint: String,
}

/// Reads a post.
pub fn read(body: &[u8], source: &str, mapping: &LabelMapping, now: Timestamp) -> Result<Gathered, BadPost> {
    let post: Post = serde_json::from_value(json(WHAT, body)?)
        .map_err(|e| BadPost::Malformed { what: WHAT, why: e.to_string() })?;
    if let Some(v) = post.version.as_deref().filter(|v| *v != "4") {
        let shown: String = v.chars().take(20).collect();
        return Err(BadPost::Malformed { what: WHAT, why: format!("its version is {shown:?}, not \"4\"") });
    }
    let mut read = each(post.alerts, |v| entry(v, source, mapping, now))?;
    if post.truncated_alerts > 0 {
        let why = format!("the sender left {} alerts out: raise its max_alerts", post.truncated_alerts);
        read.push(Err(NotTaken::new("truncated", why)));
    }
    Ok(read)
}

/// Reads one alert; Grafana writes them the same way.
pub(super) fn entry(
    value: Value,
    source: &str,
    mapping: &LabelMapping,
    now: Timestamp,
) -> Result<engine_core::incident::Alert, NotTaken> {
    let e: Entry = serde_json::from_value(value).map_err(|e| NotTaken::new("malformed", e.to_string()))?;
    let firing = match e.status.as_str() {
        "firing" => true,
        "resolved" => false,
        other => {
            let shown: String = other.chars().take(20).collect();
            return Err(NotTaken::new("malformed", format!("its status is {shown:?}")));
        }
    };
    let summary = ["summary", "description", "message"].iter().find_map(|k| e.annotations.get(*k));
    let said = Said {
        source,
        fingerprint: Some(&e.fingerprint),
        firing,
        began: e.starts_at,
        summary: summary.map(String::as_str).unwrap_or_default(),
    };
    mapping.alert(&e.labels, &said, now)
}
