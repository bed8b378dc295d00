//! From labels to an alert of ours, for sources that send labels: which label names the node, the GPU, the fault.

use super::series;
use crate::alerts::NotTaken;
use engine_core::incident::{Alert, Fingerprint};
use engine_core::model::NodeName;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Labels of one alert.
pub(crate) type Labels = BTreeMap<String, String>;

/// The most labels of one alert.
pub(crate) const MAX_LABELS: usize = 128;

/// How labels are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMapping {
    /// Labels that name the node; the first that is there counts.
    pub node: Vec<String>,
    /// Labels that name the GPU.
    pub gpu: Vec<String>,
    /// Labels that hold the fault word.
    pub fault: Vec<String>,
    /// Fault words by `alertname`, where no label holds one.
    pub faults: BTreeMap<String, String>,
    /// Domains that are cut off a node's name.
    pub domains: Vec<String>,
    /// Labels that an alert must have to be for this cluster.
    pub only: BTreeMap<String, String>,
    /// An alert that began longer ago than this is for people: somebody has seen it for that long.
    pub onset_max_age: SignedDuration,
}

/// What a source says of one alert beside its labels.
#[derive(Debug, Clone)]
pub(crate) struct Said<'a> {
    pub(crate) source: &'a str,
    pub(crate) fingerprint: Option<&'a str>,
    pub(crate) firing: bool,
    /// When it began, by the source's clock.
    pub(crate) began: Option<Timestamp>,
    pub(crate) summary: &'a str,
}

impl LabelMapping {
    /// Makes an alert of labels.
    pub(crate) fn alert(&self, labels: &Labels, said: &Said<'_>, now: Timestamp) -> Result<Alert, NotTaken> {
        if labels.len() > MAX_LABELS {
            let why = format!("it has {} labels; at most {MAX_LABELS} are read", labels.len());
            return Err(NotTaken::new("malformed", why));
        }
        for (name, wanted) in &self.only {
            if labels.get(name) != Some(wanted) {
                let why = format!("its label {name} is not {wanted:?}");
                return Err(NotTaken::new("other_cluster", why));
            }
        }
        let node = first(&self.node, labels).ok_or_else(|| {
            NotTaken::new("no_node", format!("none of the labels {} names a node", self.node.join(", ")))
        })?;
        let node = NodeName::new(self.host(node)).map_err(|e| NotTaken::new("no_node", e.to_string()))?;
        let named = labels.get("alertname").map(String::as_str).unwrap_or_default();
        let fault = first(&self.fault, labels).or_else(|| self.faults.get(named).map(String::as_str));
        let fault = fault.ok_or_else(|| {
            let shown: String = named.chars().take(60).collect();
            NotTaken::new("no_fault", format!("no fault word is set for alertname {shown:?}"))
        })?;
        Alert {
            source: said.source.to_owned(),
            fingerprint: fingerprint(said, labels)?,
            fault: fault.to_owned(),
            node,
            gpu: first(&self.gpu, labels).map(str::to_owned),
            firing: said.firing,
            seen_at: self.seen_at(said, now),
            summary: said.summary.to_owned(),
        }
        .checked()
        .map_err(|e| NotTaken::new("malformed", e.to_string()))
    }

    /// A source that says "firing" says so now, however long ago it began: that is when it was seen. What began too long
    /// ago, or in the future, keeps its own time, and the intake refuses it by that.
    fn seen_at(&self, said: &Said<'_>, now: Timestamp) -> Timestamp {
        match said.began {
            Some(began) if began > now || now.duration_since(began) > self.onset_max_age => began,
            _ => now,
        }
    }

    /// Takes port and known domains off a name. Any other domain stays, and such a node is not known: a host of another
    /// cluster with the same first name must not be taken for ours.
    fn host<'a>(&self, text: &'a str) -> &'a str {
        let host = match text.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => text,
        };
        self.domains.iter().find_map(|d| host.strip_suffix(d.as_str())?.strip_suffix('.')).unwrap_or(host)
    }
}

fn first<'a>(names: &[String], labels: &'a Labels) -> Option<&'a str> {
    names.iter().find_map(|n| labels.get(n)).map(String::as_str).filter(|v| !v.is_empty())
}

/// Names the series: as the source does, else by its labels.
fn fingerprint(said: &Said<'_>, labels: &Labels) -> Result<Fingerprint, NotTaken> {
    let own = said.fingerprint.filter(|f| !f.is_empty()).map(str::to_owned);
    let own = own.unwrap_or_else(|| {
        let mut hash = Sha256::new();
        for (k, v) in labels {
            for part in [k, v] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part.as_bytes());
            }
        }
        crate::secret::hex(&hash.finalize()).chars().take(32).collect()
    });
    series(said.source, &own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::SourceConfig;

    fn mapping() -> LabelMapping {
        let mut m = SourceConfig::default().labels("t").unwrap();
        m.domains = vec!["gpu.example".to_owned()];
        m
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    const SAID: Said<'_> = Said { source: "t", fingerprint: None, firing: true, began: None, summary: "" };

    #[test]
    fn a_node_is_one_exact_name() {
        let m = mapping();
        for (given, wanted) in [
            ("gpu003", "gpu003"),
            ("gpu003:9400", "gpu003"),
            ("gpu003.gpu.example:9400", "gpu003"),
            ("gpu003.other.example", "gpu003.other.example"),
            ("gpu003gpu.example", "gpu003gpu.example"),
        ] {
            assert_eq!(m.host(given), wanted);
        }
        for bad in ["gpu[001-100]", "ALL", "gpu001,gpu002", "", "gpu 1", "../x"] {
            let l = labels(&[("node", bad), ("fault", "x")]);
            assert_eq!(m.alert(&l, &SAID, Timestamp::UNIX_EPOCH).unwrap_err().word, "no_node", "{bad:?}");
        }
    }

    #[test]
    fn what_names_no_fault_or_another_cluster_is_told_apart() {
        let mut m = mapping();
        m.faults.insert("GpuDbe".to_owned(), "gpu-ecc-uncorrectable".to_owned());
        m.only.insert("cluster".to_owned(), "main".to_owned());
        let at = Timestamp::UNIX_EPOCH;
        let ours = labels(&[("node", "n1"), ("alertname", "GpuDbe"), ("cluster", "main")]);
        assert_eq!(m.alert(&ours, &SAID, at).unwrap().fault, "gpu-ecc-uncorrectable");
        let other = labels(&[("node", "n1"), ("alertname", "GpuDbe"), ("cluster", "b")]);
        assert_eq!(m.alert(&other, &SAID, at).unwrap_err().word, "other_cluster");
        let none = labels(&[("node", "n1"), ("alertname", "Other"), ("cluster", "main")]);
        assert_eq!(m.alert(&none, &SAID, at).unwrap_err().word, "no_fault");
    }

    #[test]
    fn a_series_is_the_same_for_the_same_labels_and_differs_between_sources() {
        let m = mapping();
        let at = Timestamp::UNIX_EPOCH;
        let a = labels(&[("node", "n1"), ("fault", "x"), ("z", "1")]);
        let one = m.alert(&a, &SAID, at).unwrap().fingerprint;
        assert_eq!(m.alert(&a, &SAID, at).unwrap().fingerprint, one);
        let other = Said { source: "u", ..SAID };
        assert_ne!(m.alert(&a, &other, at).unwrap().fingerprint, one);
        let b = labels(&[("node", "n1"), ("fault", "x"), ("z", "2")]);
        assert_ne!(m.alert(&b, &SAID, at).unwrap().fingerprint, one);
    }

    #[test]
    fn firing_means_now_unless_it_began_too_long_ago_or_in_the_future() {
        let m = mapping();
        let now: Timestamp = "2026-01-05T12:00:00Z".parse().unwrap();
        for (began, seen) in [
            ("2026-01-05T11:59:00Z", "2026-01-05T12:00:00Z"),
            ("2026-01-04T13:00:00Z", "2026-01-05T12:00:00Z"),
            ("2026-01-04T11:00:00Z", "2026-01-04T11:00:00Z"),
            ("2026-01-06T12:00:00Z", "2026-01-06T12:00:00Z"),
        ] {
            let said = Said { began: Some(began.parse().unwrap()), ..SAID };
            assert_eq!(m.seen_at(&said, now), seen.parse::<Timestamp>().unwrap(), "{began}");
        }
    }
}
