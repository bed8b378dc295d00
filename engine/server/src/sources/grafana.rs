//! The webhook of Grafana's alerting: the alerts of Alertmanager's, in an envelope of its own.

use super::alertmanager::entry;
use super::{BadPost, LabelMapping, each, json};
use crate::alerts::Gathered;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

const WHAT: &str = "webhook of Grafana";

#[derive(Debug, Deserialize)]
struct Post {
    version: Option<String>,
    alerts: Vec<Value>,
}

/// Reads a post. A rule without data or with an error of its query is no fault of a node: Grafana says so by the label
/// `alertname` `DatasourceNoData` or `DatasourceError`, which no mapping should name.
pub fn read(body: &[u8], source: &str, mapping: &LabelMapping, now: Timestamp) -> Result<Gathered, BadPost> {
    let post: Post = serde_json::from_value(json(WHAT, body)?)
        .map_err(|e| BadPost::Malformed { what: WHAT, why: e.to_string() })?;
    if let Some(v) = post.version.as_deref().filter(|v| *v != "1") {
        let shown: String = v.chars().take(20).collect();
        return Err(BadPost::Malformed { what: WHAT, why: format!("its version is {shown:?}, not \"1\"") });
    }
    each(post.alerts, |v| {
        let name = v.pointer("/labels/alertname").and_then(Value::as_str).unwrap_or_default();
        if matches!(name, "DatasourceNoData" | "DatasourceError") {
            let why = format!("{name}: the rule could not be judged, which says nothing of the node");
            return Err(crate::alerts::NotTaken::new("sick_source", why));
        }
        entry(v, source, mapping, now)
    })
}
