//! A situation: alerts, the node, the cluster and whatever else is known, as typed facts. Everything in it is text from
//! outside; what is not there or not understood is unknown.

use crate::hostlist;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Most alerts of one situation.
pub const MAX_ALERTS: usize = 10_000;

/// Facts by name, with typed reads.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts(pub Map<String, Value>);

impl Facts {
    /// Lays these facts over others.
    #[must_use]
    pub fn over(&self, defaults: &Self) -> Self {
        let mut out = defaults.0.clone();
        out.extend(self.0.iter().map(|(k, v)| (k.clone(), v.clone())));
        Self(out)
    }

    /// Returns a fact that is there and is something.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|v| !v.is_null())
    }

    /// Reads a number, also one that is written as text or in hexadecimal digits.
    pub fn number(&self, name: &str) -> Option<f64> {
        number(self.get(name)?)
    }

    /// Reads a number without a fraction.
    pub fn whole(&self, name: &str) -> Option<u32> {
        self.number(name).filter(|n| n.fract() == 0.0 && (0.0..4_294_967_296.0).contains(n)).map(|n| n as u32)
    }

    /// Reads a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str).map(str::trim).filter(|t| !t.is_empty())
    }

    /// Reads how many: a number, a list by its length, or true and false.
    pub fn amount(&self, name: &str) -> Option<f64> {
        match self.get(name)? {
            Value::Bool(b) => Some(f64::from(u8::from(*b))),
            Value::Array(a) => Some(a.len() as f64),
            Value::Object(o) => Some(o.len() as f64),
            other => number(other),
        }
    }

    /// Reads whether something holds: true, a number that is not 0, a text that does not deny it, a list that is not empty.
    pub fn holds(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            Value::Bool(b) => Some(*b),
            Value::String(t) => {
                let t = t.trim().to_lowercase();
                Some(!["", "no", "false", "none", "off", "0", "closed", "free", "null"].contains(&t.as_str()))
            }
            Value::Array(a) => Some(!a.is_empty()),
            Value::Object(o) => Some(!o.is_empty()),
            other => number(other).map(|n| n != 0.0),
        }
    }

    /// Returns everything a fact says, in lower case, for facts that are lists or lines of text.
    pub fn words(&self, name: &str) -> String {
        let mut out = String::new();
        if let Some(v) = self.get(name) {
            gather(v, &mut out, 0);
        }
        out.to_lowercase()
    }
}

fn gather(value: &Value, out: &mut String, depth: usize) {
    if depth > 6 || out.len() > 20_000 {
        return;
    }
    match value {
        Value::Array(a) => a.iter().for_each(|v| gather(v, out, depth + 1)),
        Value::Object(o) => o.iter().for_each(|(k, v)| {
            out.push_str(k);
            out.push(' ');
            gather(v, out, depth + 1);
        }),
        Value::String(s) => {
            out.push_str(s);
            out.push('\n');
        }
        Value::Null => {}
        other => {
            out.push_str(&other.to_string());
            out.push('\n');
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(n) => n.as_f64(),
        Value::String(t) => {
            let t = t.trim();
            match t.strip_prefix("0x").or_else(|| t.strip_prefix("0X")) {
                Some(hex) => u32::from_str_radix(hex, 16).ok().map(f64::from),
                None => t.trim_end_matches('%').parse().ok().filter(|n: &f64| n.is_finite()),
            }
        }
        _ => None,
    }
}

/// One alert.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenAlert {
    /// Its name, e.g. `GpuXid`.
    pub name: String,
    /// The nodes it names: one, or all of a list for as many alerts; empty where it names none.
    pub nodes: Vec<String>,
    /// Whether what it names as a node can be one.
    pub names_well: bool,
    /// All of its labels.
    pub facts: Facts,
}

/// A situation.
#[derive(Debug, Clone, PartialEq)]
pub struct Situation {
    /// Its name.
    pub id: String,
    /// The alerts.
    pub alerts: Vec<SeenAlert>,
    /// The node.
    pub node: Facts,
    /// The cluster.
    pub cluster: Facts,
    /// Whatever else is known.
    pub context: Facts,
}

/// Why a text is no situation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSituation {
    /// Something is not of its form.
    #[error("{place} is not {form}")]
    Form {
        /// What.
        place: String,
        /// What it should be.
        form: &'static str,
    },
    /// There is too much of something.
    #[error("{id} has more than {MAX_ALERTS} alerts")]
    TooMany {
        /// Which situation.
        id: String,
    },
}

fn map(value: Option<&Value>, place: &str) -> Result<Facts, NoSituation> {
    match value {
        None | Some(Value::Null) => Ok(Facts::default()),
        Some(Value::Object(o)) => Ok(Facts(o.clone())),
        Some(_) => Err(NoSituation::Form { place: place.to_owned(), form: "a mapping" }),
    }
}

/// What a situation says where it does not say otherwise, by the vocabulary of situations.
fn built_in() -> Value {
    serde_json::json!({
        "alert": { "age_s": 30, "source": "alertmanager", "status": "firing" },
        "cluster": {
            "nodes": 200, "partition": "gpu", "unavailable_before": 2, "slurm": "24.05", "breaker": "closed",
            "canary": ["gpu001", "gpu002"], "racks": 20, "nodes_per_rack": 10
        },
        "node": {
            "known": true, "base": "IDLE", "flags": [], "reason": null, "drained_by": "nobody", "jobs": [], "gpus": 8,
            "model": "H100", "reservation": null, "canary": false, "prior_remediations_30d": 0
        }
    })
}

/// Reads situations: one, a list of them, or a file with `defaults` and `cases`.
pub fn read(document: &Value) -> Result<Vec<Situation>, NoSituation> {
    let base = built_in();
    let given = map(document.get("defaults"), "defaults")?;
    let default = |part: &str| -> Result<Facts, NoSituation> {
        let mine = map(given.get(part), &format!("defaults.{part}"))?;
        Ok(mine.over(&map(base.get(part), part)?))
    };
    let (alert, cluster, node) = (default("alert")?, default("cluster")?, default("node")?);
    let one = |v: &Value| situation(v, &alert, &cluster, &node);
    match (document, document.get("cases")) {
        (Value::Array(all), _) | (_, Some(Value::Array(all))) => all.iter().map(one).collect(),
        (Value::Object(_), None) => Ok(vec![one(document)?]),
        _ => Err(NoSituation::Form {
            place: "the document".to_owned(),
            form: "a situation, or a list of them",
        }),
    }
}

fn situation(v: &Value, alert: &Facts, cluster: &Facts, node: &Facts) -> Result<Situation, NoSituation> {
    let whole = map(Some(v), "a situation")?;
    let id = whole.text("id").unwrap_or("situation").to_owned();
    let mut alerts = Vec::new();
    let listed = match whole.get("alerts") {
        None => &[][..],
        Some(Value::Array(a)) => a.as_slice(),
        Some(_) => return Err(NoSituation::Form { place: format!("{id}: alerts"), form: "a list" }),
    };
    if listed.len() > MAX_ALERTS {
        return Err(NoSituation::TooMany { id });
    }
    for a in listed {
        let facts = map(Some(a), &format!("{id}: an alert"))?.over(alert);
        let Some(name) = facts.text("name").map(str::to_owned) else {
            return Err(NoSituation::Form { place: format!("{id}: an alert's name"), form: "there" });
        };
        let named = facts.get("node").or_else(|| facts.get("nodes").filter(|n| n.is_string()));
        let (nodes, names_well) = match named {
            None => (Vec::new(), true),
            Some(Value::String(text)) => match names(text) {
                Some(n) => (n, true),
                None => (Vec::new(), false),
            },
            Some(_) => (Vec::new(), false),
        };
        alerts.push(SeenAlert { name, nodes, names_well, facts });
    }
    let part = |name: &str| map(whole.get(name), &format!("{id}: {name}"));
    Ok(Situation {
        alerts,
        node: part("node")?.over(node),
        cluster: part("cluster")?.over(cluster),
        context: part("context")?,
        id,
    })
}

/// A list in brackets stands for one alert of each node. Anything else that is not one plain name is none.
fn names(text: &str) -> Option<Vec<String>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.contains('[') && text.chars().all(|c| plain(c) || "[],".contains(c)) {
        return hostlist::expand(text).ok();
    }
    crate::model::NodeName::new(text).is_ok().then(|| vec![text.to_owned()])
}

impl Situation {
    /// Returns every node that alerts name, each once.
    pub fn nodes(&self) -> BTreeSet<&str> {
        self.alerts.iter().flat_map(|a| &a.nodes).map(String::as_str).collect()
    }

    /// Says whether a flag of Slurm is set.
    pub fn has_flag(&self, flag: &str) -> bool {
        let listed = match self.node.get("flags") {
            Some(Value::Array(a)) => a.iter().filter_map(Value::as_str).any(|f| f.eq_ignore_ascii_case(flag)),
            Some(Value::String(s)) => s.split([',', '+', ' ']).any(|f| f.eq_ignore_ascii_case(flag)),
            _ => false,
        };
        listed || self.node.text("base").is_some_and(|b| b.split('+').any(|f| f.eq_ignore_ascii_case(flag)))
    }

    /// Says whether a job holds the node.
    pub fn is_busy(&self) -> bool {
        let base = self.node.text("base").unwrap_or_default().to_uppercase();
        self.node.amount("jobs").is_some_and(|n| n > 0.0)
            || ["ALLOCATED", "MIXED", "COMPLETING"].iter().any(|b| base.starts_with(b))
            || self.has_flag("COMPLETING")
    }

    /// Says whether a job is planned for the next fifteen minutes.
    pub fn is_wanted_soon(&self) -> bool {
        self.context.number("next_job_in_s").is_some_and(|s| s < 900.0) || self.has_flag("PLANNED")
    }

    /// Says whether the node is on the canary list.
    pub fn is_canary(&self) -> bool {
        if self.node.holds("canary") == Some(true) {
            return true;
        }
        let nodes = self.nodes();
        let Some(Value::Array(list)) = self.cluster.get("canary") else { return false };
        !nodes.is_empty() && nodes.iter().all(|n| list.iter().filter_map(Value::as_str).any(|c| c == *n))
    }

    /// Returns all that history and events say, in lower case.
    pub fn told(&self) -> String {
        format!("{}{}", self.context.words("history"), self.context.words("events"))
    }
}
