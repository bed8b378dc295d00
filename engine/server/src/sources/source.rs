//! One source as the site sets it: its kind, its mapping, its signature, its pace.

use super::generic::Pointers;
use super::{BadPost, LabelMapping, Signing, alertmanager, generic, grafana};
use crate::alerts::Gathered;
use crate::limits::{Pace, Senders};
use crate::peer::is_name;
use crate::secret::{SecretError, read_secret};
use engine_core::value::parse_duration;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};

/// How a source writes its posts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Webhook of Alertmanager, version 4.
    #[default]
    Alertmanager,
    /// Webhook of Grafana.
    Grafana,
    /// Any JSON, by JSON pointers.
    Generic,
}

/// A source as it is written in the configuration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceConfig {
    /// How it writes.
    pub kind: Kind,
    /// File with the secret that signs its posts; without one it needs a token for alerts.
    pub secret: Option<PathBuf>,
    /// Header with the signature.
    pub signature_header: Option<String>,
    /// Header with the time that is signed along.
    pub timestamp_header: Option<String>,
    /// Where the node is: labels, or one JSON pointer.
    pub node: Option<Vec<String>>,
    /// Where the GPU is.
    pub gpu: Option<Vec<String>>,
    /// Where the fault word is.
    pub fault: Option<Vec<String>>,
    /// Fault words by alertname, or by the word of the source.
    pub faults: BTreeMap<String, String>,
    /// Domains that are cut off node names.
    pub domains: Vec<String>,
    /// Labels that an alert must have.
    pub only: BTreeMap<String, String>,
    /// Age of its beginning from which an alert is for people only.
    pub onset_max_age: Option<String>,
    /// JSON pointer to the list of alerts.
    pub alerts: Option<String>,
    /// JSON pointer to what says whether it lasts.
    pub firing: Option<String>,
    /// Values that mean that it lasts.
    pub firing_values: Vec<String>,
    /// JSON pointer to the time of the observation.
    pub seen_at: Option<String>,
    /// JSON pointer to what names the series.
    pub fingerprint: Option<String>,
    /// JSON pointer to one sentence.
    pub summary: Option<String>,
    /// Time within which it is expected to send something; it is stale after that.
    pub expect_every: Option<String>,
    /// Posts per second, on and on; twice as many at once.
    pub posts_per_second: Option<u16>,
}

/// What is read of a post.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mapping {
    Labels(LabelMapping),
    Pointers(Box<Pointers>),
}

/// A source that was judged.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSettings {
    kind: Kind,
    mapping: Mapping,
    secret: Option<PathBuf>,
    signature_header: String,
    timestamp_header: Option<String>,
    expect_every: Option<SignedDuration>,
    pace: Pace,
}

impl SourceConfig {
    /// The sources that need no setting.
    pub(crate) fn built_in() -> [(&'static str, Self); 2] {
        let of = |kind| Self { kind, ..Self::default() };
        [("alertmanager", of(Kind::Alertmanager)), ("grafana", of(Kind::Grafana))]
    }

    /// Judges it.
    pub(crate) fn lower(&self, name: &str) -> Result<SourceSettings, String> {
        if !is_name(name) || name.len() > 40 {
            return Err("a source's name has 1 to 40 letters, digits, `-`, `_` or `.`".to_owned());
        }
        let mapping = match self.kind {
            Kind::Alertmanager | Kind::Grafana => Mapping::Labels(self.labels(name)?),
            Kind::Generic => Mapping::Pointers(Box::new(self.pointers()?)),
        };
        let default_header =
            if self.kind == Kind::Grafana { "x-grafana-alerting-signature" } else { "x-slurmedic-signature" };
        let per_second = f64::from(self.posts_per_second.unwrap_or(50));
        if per_second < 1.0 {
            return Err("posts_per_second: at least 1".to_owned());
        }
        Ok(SourceSettings {
            kind: self.kind,
            mapping,
            secret: self.secret.clone(),
            signature_header: self.signature_header.clone().unwrap_or_else(|| default_header.to_owned()),
            timestamp_header: self.timestamp_header.clone(),
            expect_every: self.expect_every.as_deref().map(|t| time("expect_every", t)).transpose()?,
            pace: Pace { size: per_second * 2.0, per_second },
        })
    }

    pub(crate) fn labels(&self, name: &str) -> Result<LabelMapping, String> {
        for (key, set) in [
            ("alerts", &self.alerts),
            ("firing", &self.firing),
            ("seen_at", &self.seen_at),
            ("fingerprint", &self.fingerprint),
            ("summary", &self.summary),
        ] {
            if set.is_some() {
                return Err(format!("{key} is for kind = \"generic\"; {name} names its own"));
            }
        }
        let or = |given: &Option<Vec<String>>, default: &[&str]| {
            given.clone().unwrap_or_else(|| default.iter().map(|s| (*s).to_owned()).collect())
        };
        Ok(LabelMapping {
            node: or(&self.node, &["node", "Hostname", "hostname", "instance"]),
            gpu: or(&self.gpu, &["gpu", "UUID", "pci_bus_id"]),
            fault: or(&self.fault, &["fault"]),
            faults: self.faults.clone(),
            domains: self.domains.clone(),
            only: self.only.clone(),
            onset_max_age: match &self.onset_max_age {
                Some(t) => time("onset_max_age", t)?,
                None => SignedDuration::from_hours(24),
            },
        })
    }

    fn pointers(&self) -> Result<Pointers, String> {
        if !self.only.is_empty() || !self.domains.is_empty() || self.onset_max_age.is_some() {
            return Err("only, domains and onset_max_age are for sources with labels".to_owned());
        }
        let one = |key: &str, given: &Option<Vec<String>>| match given.as_deref() {
            None | Some([]) => Ok(None),
            Some([p]) => pointer(key, p).map(Some),
            Some(_) => Err(format!("{key}: give one JSON pointer")),
        };
        let opt = |key: &str, given: &Option<String>| given.as_deref().map(|p| pointer(key, p)).transpose();
        let need = |key: &str, found: Option<String>| {
            found.ok_or_else(|| format!("{key}: give the JSON pointer to it, such as \"/{key}\""))
        };
        let firing = opt("firing", &self.firing)?;
        if firing.is_some() && self.firing_values.is_empty() {
            return Err("firing_values: say which values mean that it lasts".to_owned());
        }
        Ok(Pointers {
            alerts: opt("alerts", &self.alerts)?.filter(|p| !p.is_empty()),
            node: need("node", one("node", &self.node)?)?,
            gpu: one("gpu", &self.gpu)?,
            fault: need("fault", one("fault", &self.fault)?)?,
            faults: self.faults.clone(),
            firing,
            firing_values: self.firing_values.clone(),
            seen_at: opt("seen_at", &self.seen_at)?,
            fingerprint: opt("fingerprint", &self.fingerprint)?,
            summary: opt("summary", &self.summary)?,
        })
    }
}

fn pointer(key: &str, text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err(format!("{key}: {text:?} is no JSON pointer; it begins with `/`"))
    }
}

fn time(key: &str, text: &str) -> Result<SignedDuration, String> {
    match parse_duration(text) {
        Ok(d) if d > SignedDuration::ZERO => Ok(d),
        Ok(_) => Err(format!("{key} = {text:?} is too short")),
        Err(e) => Err(format!("{key}: {e}")),
    }
}

/// A source that takes posts.
#[derive(Debug)]
pub struct Source {
    /// Its name.
    pub name: String,
    settings: SourceSettings,
    signing: Option<Signing>,
    pace: Senders,
    /// Seconds since the epoch; 0 for never.
    heard: AtomicI64,
}

impl Source {
    /// Builds it, and reads its secret.
    pub fn new(name: &str, settings: SourceSettings) -> Result<Self, SecretError> {
        let signing = match &settings.secret {
            None => None,
            Some(path) => Some(Signing::new(
                read_secret(path)?,
                &settings.signature_header,
                settings.timestamp_header.as_deref(),
            )),
        };
        let pace = Senders::new(settings.pace);
        Ok(Self { name: name.to_owned(), settings, signing, pace, heard: AtomicI64::new(0) })
    }

    /// Returns how its posts are signed; `None` where a token is needed.
    pub fn signing(&self) -> Option<&Signing> {
        self.signing.as_ref()
    }

    /// Takes a place for one post; false where it posts too often.
    pub(crate) fn may_post(&self) -> bool {
        self.pace.take("")
    }

    /// Reads a post.
    pub fn read(&self, body: &[u8], now: Timestamp) -> Result<Gathered, BadPost> {
        match (&self.settings.mapping, self.settings.kind) {
            (Mapping::Pointers(p), _) => generic::read(body, &self.name, p, now),
            (Mapping::Labels(m), Kind::Grafana) => grafana::read(body, &self.name, m, now),
            (Mapping::Labels(m), _) => alertmanager::read(body, &self.name, m, now),
        }
    }

    /// It sent something that was taken.
    pub(crate) fn heard(&self, now: Timestamp) {
        self.heard.store(now.as_second(), Ordering::Relaxed);
    }

    /// Takes over when the same source was last heard, at a reload.
    pub fn heard_as(&self, before: &Self) {
        self.heard.store(before.heard.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Says when it was last heard.
    pub fn heard_at(&self) -> Option<Timestamp> {
        match self.heard.load(Ordering::Relaxed) {
            0 => None,
            s => Timestamp::from_second(s).ok(),
        }
    }

    /// Says whether it has been silent for longer than it should be; `None` where nothing is expected of it.
    pub fn is_stale(&self, since: Timestamp, now: Timestamp) -> Option<bool> {
        let limit = self.settings.expect_every?;
        Some(now.duration_since(self.heard_at().unwrap_or(since)) > limit)
    }
}
