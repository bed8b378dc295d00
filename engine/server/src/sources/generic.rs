//! Any JSON, by a mapping of the site: JSON pointers say where each part is.

use super::{BadPost, each, json, series};
use crate::alerts::{Gathered, NotTaken};
use engine_core::incident::Alert;
use engine_core::model::NodeName;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;

const WHAT: &str = "post of this source";

/// Where each part of an alert is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointers {
    /// The list of alerts; a body that is one alert has none.
    pub alerts: Option<String>,
    /// The node.
    pub node: String,
    /// The GPU.
    pub gpu: Option<String>,
    /// The fault word, or a word of the source that `faults` translates.
    pub fault: String,
    /// Fault words by the words of the source.
    pub faults: BTreeMap<String, String>,
    /// What says whether it lasts; without it every entry does.
    pub firing: Option<String>,
    /// Values that mean that it lasts.
    pub firing_values: Vec<String>,
    /// When the source saw it: RFC 3339, or seconds since 1970.
    pub seen_at: Option<String>,
    /// Names the series.
    pub fingerprint: Option<String>,
    /// One sentence.
    pub summary: Option<String>,
}

/// Reads a post.
pub fn read(body: &[u8], source: &str, at: &Pointers, now: Timestamp) -> Result<Gathered, BadPost> {
    let mut value = json(WHAT, body)?;
    let list = match &at.alerts {
        None => value,
        Some(p) => match value.pointer_mut(p) {
            Some(v) => v.take(),
            None => return Err(BadPost::Malformed { what: WHAT, why: format!("there is nothing at {p}") }),
        },
    };
    let entries = match list {
        Value::Array(all) => all,
        one @ Value::Object(_) => vec![one],
        _ => {
            let why = "alerts are an object or a list of objects".to_owned();
            return Err(BadPost::Malformed { what: WHAT, why });
        }
    };
    each(entries, |v| entry(&v, source, at, now))
}

fn entry(v: &Value, source: &str, at: &Pointers, now: Timestamp) -> Result<Alert, NotTaken> {
    let need = |word: &'static str, pointer: &str| {
        text(v, pointer).ok_or_else(|| NotTaken::new(word, format!("there is no text at {pointer}")))
    };
    let node = need("no_node", &at.node)?;
    let node = NodeName::new(&node).map_err(|e| NotTaken::new("no_node", e.to_string()))?;
    let said = need("no_fault", &at.fault)?;
    let fault = at.faults.get(&said).cloned().unwrap_or(said);
    let firing = match &at.firing {
        None => true,
        Some(p) => {
            let now_is = need("malformed", p)?;
            at.firing_values.contains(&now_is)
        }
    };
    let seen_at = match &at.seen_at {
        None => now,
        Some(p) => time(v.pointer(p))
            .ok_or_else(|| NotTaken::new("malformed", format!("there is no time at {p}")))?,
    };
    let gpu = at.gpu.as_ref().and_then(|p| text(v, p));
    let own = at.fingerprint.as_ref().and_then(|p| text(v, p));
    let own = own.unwrap_or_else(|| format!("{fault}/{node}/{}", gpu.as_deref().unwrap_or("-")));
    let malformed = |why: String| NotTaken::new("malformed", why);
    Alert {
        source: source.to_owned(),
        fingerprint: series(source, &own)?,
        fault,
        node,
        gpu,
        firing,
        seen_at,
        summary: at.summary.as_ref().and_then(|p| text(v, p)).unwrap_or_default(),
    }
    .checked()
    .map_err(|e| malformed(e.to_string()))
}

/// Reads a text, a whole number or a truth value; anything else is none.
fn text(v: &Value, pointer: &str) -> Option<String> {
    match v.pointer(pointer)? {
        Value::String(s) if !s.is_empty() => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

fn time(v: Option<&Value>) -> Option<Timestamp> {
    match v? {
        Value::String(s) => s.parse().ok(),
        Value::Number(n) => Timestamp::from_second(n.as_i64()?).ok(),
        _ => None,
    }
}
