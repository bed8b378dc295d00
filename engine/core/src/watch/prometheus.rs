//! Faults that Prometheus tells by rules, and when they are over.
//!
//! A rule is a query and the fault that each of its samples stands for. What is not in the answer is over only where the
//! rule tells of what lasts, and where the node is seen by Prometheus at all: a series that is missing is unknown, not
//! good. A node that is not seen is a fault of the tool (rule 14).

use super::gpu::Asked;
use super::{series_of, xid};
use crate::incident::{Alert, FleetState, ToolHealth, Tools};
use crate::knowledge::WISH;
use crate::known::Unknown;
use crate::model::NodeName;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Name of this source in alerts.
pub const SOURCE: &str = "prometheus";
/// The most rules of one set.
pub const MAX_RULES: usize = 200;
/// The most alerts of one round; what is left is told by the next one.
pub const MAX_ALERTS: usize = 5_000;
/// How far the time of a sample may be from now.
const MAX_AGE: SignedDuration = SignedDuration::from_mins(5);
/// Rounds in a row in which a node must not be seen before its exporter counts as missing.
const MISSED: u32 = 3;
/// Rounds in a row with fewer GPUs than configured.
const FEWER: u32 = 2;
/// The driver's value for a wish that only a reboot fulfils.
const REBOOT: f64 = 2.0;
/// The fault of a node that shows fewer GPUs than Slurm has.
const COUNT: &str = "gpu-count-mismatch";

/// Rules, and how what they find is read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromRules {
    /// Version of this form.
    pub format: String,
    /// Labels that may name the node; the first that names a node of the cluster counts.
    pub node_labels: Vec<String>,
    /// Labels that name the GPU; the first that is there counts.
    pub gpu_labels: Vec<String>,
    /// A query with one sample for each node that is seen: how many GPUs it shows.
    pub seen: String,
    /// The rules.
    pub rules: Vec<PromRule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromRule {
    /// Its name, for people.
    pub name: String,
    /// The query, in PromQL: an instant vector, each sample of which is a fault.
    pub query: String,
    /// The fault that a sample stands for; absent where the XID says it.
    #[serde(default)]
    pub fault: Option<String>,
    /// The label with the number of the XID, or `value` where it is the sample's value.
    #[serde(default)]
    pub xid: Option<String>,
    /// Whether the answer shows a state that lasts, so that its end is an end.
    #[serde(default)]
    pub lasts: bool,
    /// Rounds in a row in which it must be seen; 0 is 1.
    #[serde(default)]
    pub rounds: u32,
    /// One sentence for people.
    pub says: String,
}

/// Why rules are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRules(String);

/// One sample of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value; never NaN.
    pub value: f64,
    /// Its time, by the clock of Prometheus.
    pub at: Timestamp,
}

/// What came back for a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The samples.
    pub samples: Vec<Sample>,
    /// Whether it says that nothing is missing.
    pub complete: bool,
}

/// What came back for all queries of one round.
#[derive(Debug, Clone)]
pub struct Answers {
    /// When they came, by the clock of this host: what its times are compared with.
    pub at: Timestamp,
    /// For the nodes that are seen.
    pub seen: Result<Found, Unknown>,
    /// For each rule, in their order.
    pub rules: Vec<Result<Found, Unknown>>,
}

/// A fault of a GPU, or of a node where no GPU is named.
pub type Key = (NodeName, String, Option<String>);

/// Takes what this source has open out of the fleet's record.
pub fn standing_by_prometheus(state: &FleetState) -> BTreeSet<Key> {
    let mut out = BTreeSet::new();
    for i in state.incidents() {
        let Some(node) = i.node() else { continue };
        let ours = i.alerts.values().filter(|s| s.firing && s.source == SOURCE);
        out.extend(ours.map(|s| (node.clone(), s.fault.clone(), s.gpu.clone())));
    }
    out
}

impl PromRules {
    /// Checks what can be checked without asking anybody.
    pub fn checked(self) -> Result<Self, BadRules> {
        let bad = |why: String| Err(BadRules(why));
        if self.format != "slurmedic/prometheus/1" {
            return bad(format!(
                "format is {:?}; this release reads \"slurmedic/prometheus/1\"",
                self.format
            ));
        }
        if self.node_labels.is_empty() || self.seen.trim().is_empty() {
            return bad("node_labels and seen may not be empty".to_owned());
        }
        if self.rules.len() > MAX_RULES {
            return bad(format!("{} rules; at most {MAX_RULES} are taken", self.rules.len()));
        }
        let mut names = BTreeSet::new();
        for rule in &self.rules {
            let name = &rule.name;
            if name.is_empty() || !names.insert(name) {
                return bad(format!("the name {name:?} is empty or given twice"));
            }
            if rule.query.trim().is_empty() {
                return bad(format!("{name}: the query is empty"));
            }
            if rule.fault.is_some() == rule.xid.is_some() {
                return bad(format!("{name}: say either `fault` or `xid`"));
            }
            if rule.lasts && rule.xid.is_some() {
                return bad(format!("{name}: an XID is an event, it does not last"));
            }
        }
        Ok(self)
    }

    fn node(&self, sample: &Sample, known: &BTreeMap<&str, &Asked>) -> Option<NodeName> {
        self.node_labels.iter().filter_map(|l| sample.labels.get(l)).find_map(|text| {
            let host = text.rsplit_once(':').map_or(text.as_str(), |(host, _)| host);
            let short = host.split('.').next().unwrap_or(host);
            [text.as_str(), host, short].iter().find_map(|name| known.get(name)).map(|a| a.node.clone())
        })
    }

    fn gpu(&self, sample: &Sample) -> Option<String> {
        self.gpu_labels.iter().find_map(|l| sample.labels.get(l)).filter(|t| !t.is_empty()).cloned()
    }
}

impl PromRule {
    fn fault_of(&self, sample: &Sample) -> Option<(String, String)> {
        let Some(label) = &self.xid else { return Some((self.fault.clone()?, self.says.clone())) };
        let number = if label == "value" {
            (sample.value.fract() == 0.0 && (1.0..1e6).contains(&sample.value)).then_some(sample.value as u32)
        } else {
            sample.labels.get(label)?.parse().ok()
        };
        let number = number?;
        Some((xid::fault_of(number)?.to_owned(), format!("XID {number}: {}", self.says)))
    }
}

/// Follows one Prometheus from round to round. Its memory is as large as the cluster.
#[derive(Debug, Clone, Default)]
pub struct PromWatch {
    /// How often in a row something was seen.
    rounds: BTreeMap<Key, u32>,
    fewer: BTreeMap<NodeName, u32>,
    missed: BTreeMap<NodeName, u32>,
}

/// What one round came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PromRound {
    /// For the intake.
    pub alerts: Vec<Alert>,
    /// How the exporters of the nodes are, as Prometheus sees them.
    pub exporters: Tools,
    /// Why Prometheus itself did not answer as it should.
    pub ill: Option<String>,
    /// Samples that name no node of the cluster.
    pub strangers: usize,
}

impl PromWatch {
    /// Judges the answers of one round. `standing` is what this source has open, `now` the time of the engine.
    pub fn read(
        &mut self,
        rules: &PromRules,
        asked: &[Asked],
        answers: &Answers,
        standing: &BTreeSet<Key>,
        now: Timestamp,
    ) -> PromRound {
        let mut round = PromRound::default();
        let known: BTreeMap<&str, &Asked> = asked.iter().map(|a| (a.node.as_str(), a)).collect();
        let seen = self.seen(rules, &known, answers, &mut round);
        let mut firing: BTreeMap<Key, String> = BTreeMap::new();
        // Faults of which it is not known whether they are over.
        let mut unclear: BTreeSet<String> = BTreeSet::new();
        let mut lasting: BTreeSet<String> = BTreeSet::new();
        let mut small_wishes: BTreeSet<Key> = BTreeSet::new();
        for (rule, answer) in rules.rules.iter().zip(&answers.rules) {
            if let Some(fault) = rule.fault.as_ref().filter(|_| rule.lasts) {
                lasting.insert(fault.clone());
            }
            let found = answer.as_ref().map_err(ToString::to_string).and_then(|f| fresh(f, answers.at));
            let found = match found {
                Ok(found) => found,
                Err(why) => {
                    unclear.extend(rule.fault.clone());
                    round.ill.get_or_insert_with(|| format!("rule {}: {why}", rule.name));
                    continue;
                }
            };
            if !found.complete {
                unclear.extend(rule.fault.clone());
            }
            for sample in &found.samples {
                let Some(node) = rules.node(sample, &known) else {
                    round.strangers += 1;
                    continue;
                };
                let Some((fault, says)) = rule.fault_of(sample) else { continue };
                let key = (node, fault, rules.gpu(sample));
                if rule.rounds > 1 {
                    let times = self.rounds.get(&key).copied().unwrap_or(0).saturating_add(1);
                    if times < rule.rounds {
                        firing.entry(key).or_default();
                        continue;
                    }
                }
                if key.1 == WISH && sample.value < REBOOT {
                    small_wishes.insert(key.clone());
                }
                firing.insert(key, says);
            }
        }
        // As with scrapes: a wish for a reset is news where nothing else of this GPU explains it.
        for wish in small_wishes {
            let explains = |k: &Key| k.0 == wish.0 && k.2 == wish.2 && k.1 != WISH;
            if firing.keys().chain(standing).any(explains) {
                firing.remove(&wish);
            }
        }
        lasting.insert(COUNT.to_owned());
        if seen.is_none() {
            unclear.insert(COUNT.to_owned());
        }
        for (node, (found, configured)) in seen.iter().flatten() {
            let times = self.fewer.entry(node.clone()).or_insert(0);
            *times = if found < configured { times.saturating_add(1) } else { 0 };
            if *times >= FEWER {
                let says = format!("Prometheus knows {found} GPUs of it, Slurm has {configured}");
                firing.insert((node.clone(), COUNT.to_owned(), None), says);
            }
        }
        self.fewer.retain(|node, times| *times > 0 && known.contains_key(node.as_str()));
        let counted = std::mem::take(&mut self.rounds);
        self.rounds = firing.keys().map(|k| (k.clone(), counted.get(k).copied().unwrap_or(0) + 1)).collect();
        let in_hands = |node: &NodeName| known.get(node.as_str()).is_none_or(|a| a.in_hands);
        let is_seen = |node: &NodeName| seen.as_ref().is_some_and(|s| s.contains_key(node));
        let not_yet = |says: &String| says.is_empty();
        for (key, says) in firing.iter().filter(|(k, says)| !not_yet(says) && !in_hands(&k.0)) {
            round.alerts.extend(alert(key, true, says.clone(), now));
        }
        for key in standing.iter().filter(|k| !firing.contains_key(*k) && !in_hands(&k.0) && is_seen(&k.0)) {
            if lasting.contains(&key.1) && !unclear.contains(&key.1) {
                round.alerts.extend(alert(
                    key,
                    false,
                    "Prometheus does not show it any more".to_owned(),
                    now,
                ));
            }
        }
        round.alerts.truncate(MAX_ALERTS);
        round
    }

    /// Reads which nodes are seen, with their GPUs and those that Slurm has; `None` where that cannot be said.
    fn seen(
        &mut self,
        rules: &PromRules,
        known: &BTreeMap<&str, &Asked>,
        answers: &Answers,
        round: &mut PromRound,
    ) -> Option<BTreeMap<NodeName, (u32, u32)>> {
        let found = answers.seen.as_ref().map_err(ToString::to_string).and_then(|f| fresh(f, answers.at));
        let found = match found {
            Ok(found) if found.complete => found,
            Ok(_) => {
                round.ill = Some("its answer has gaps, it says so itself".to_owned());
                return None;
            }
            Err(why) => {
                round.ill = Some(why);
                return None;
            }
        };
        let mut seen: BTreeMap<NodeName, (u32, u32)> = BTreeMap::new();
        for sample in &found.samples {
            let Some(node) = rules.node(sample, known) else {
                round.strangers += 1;
                continue;
            };
            let configured = known.get(node.as_str()).map_or(0, |a| a.configured);
            let gpus = sample.value.clamp(0.0, 1e6) as u32;
            seen.entry(node).and_modify(|(n, _)| *n = n.saturating_add(gpus)).or_insert((gpus, configured));
        }
        self.missed.retain(|node, _| known.contains_key(node.as_str()));
        for asked in known.values() {
            let health = if seen.contains_key(&asked.node) {
                self.missed.remove(&asked.node);
                ToolHealth::Well
            } else {
                let times = self.missed.entry(asked.node.clone()).or_insert(0);
                *times = times.saturating_add(1);
                if *times >= MISSED && !asked.in_hands {
                    ToolHealth::Ill("Prometheus has no fresh series of its GPUs".to_owned())
                } else {
                    ToolHealth::Undecided
                }
            };
            round.exporters.insert(asked.node.to_string(), health);
        }
        Some(seen)
    }
}

/// Refuses an answer with times far from now: it tells of another hour, or a clock is wrong.
fn fresh(found: &Found, now: Timestamp) -> Result<&Found, String> {
    match found.samples.iter().find(|s| now.duration_since(s.at).abs() > MAX_AGE) {
        Some(s) => Err(format!("it answers with a sample of {}, which is too far from now", s.at)),
        None => Ok(found),
    }
}

fn alert((node, fault, gpu): &Key, firing: bool, summary: String, at: Timestamp) -> Option<Alert> {
    let alert = Alert {
        source: SOURCE.to_owned(),
        fingerprint: series_of(SOURCE, node, fault, gpu.as_deref())?,
        fault: fault.clone(),
        node: node.clone(),
        gpu: gpu.clone(),
        firing,
        seen_at: at,
        summary,
    };
    alert.checked().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known::Cause;

    fn rules() -> PromRules {
        let rule = |name: &str, fault: Option<&str>, xid: Option<&str>, lasts, rounds| PromRule {
            name: name.to_owned(),
            query: "x".to_owned(),
            fault: fault.map(str::to_owned),
            xid: xid.map(str::to_owned),
            lasts,
            rounds,
            says: "it is so".to_owned(),
        };
        PromRules {
            format: "slurmedic/prometheus/1".to_owned(),
            node_labels: vec!["Hostname".to_owned(), "instance".to_owned()],
            gpu_labels: vec!["UUID".to_owned()],
            seen: "s".to_owned(),
            rules: vec![
                rule("xid", None, Some("xid"), false, 0),
                rule("remap", Some("gpu-row-remap-pending"), None, true, 0),
                rule("hot", Some("gpu-hw-thermal"), None, true, 3),
            ],
        }
        .checked()
        .unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
    }

    fn found(samples: &[(&[(&str, &str)], f64)]) -> Result<Found, Unknown> {
        let sample = |(labels, value): &(&[(&str, &str)], f64)| Sample {
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            value: *value,
            at: at(0),
        };
        Ok(Found { samples: samples.iter().map(sample).collect(), complete: true })
    }

    fn down() -> Result<Found, Unknown> {
        Err(Unknown::new(Cause::ReadFailed, "connection refused"))
    }

    fn asked() -> Vec<Asked> {
        let one = |n: &str, in_hands| Asked { node: NodeName::new(n).unwrap(), configured: 8, in_hands };
        vec![one("gpu001", false), one("gpu002", false), one("gpu003", true)]
    }

    const ALL: &[(&[(&str, &str)], f64)] =
        &[(&[("Hostname", "gpu001")], 8.0), (&[("instance", "gpu002.site:9400")], 8.0)];

    fn told(round: &PromRound) -> Vec<(String, String, bool)> {
        round.alerts.iter().map(|a| (a.node.to_string(), a.fault.clone(), a.firing)).collect()
    }

    fn key(node: &str, fault: &str) -> Key {
        (NodeName::new(node).unwrap(), fault.to_owned(), Some("U1".to_owned()))
    }

    #[test]
    fn samples_become_faults_of_known_nodes_and_of_no_others() {
        let mut watch = PromWatch::default();
        let xids = found(&[
            (&[("Hostname", "gpu001"), ("UUID", "U1"), ("xid", "48")], 1.0),
            (&[("Hostname", "gpu001"), ("UUID", "U1"), ("xid", "13")], 1.0),
            (&[("instance", "gpu002.site:9400"), ("UUID", "U1"), ("xid", "79")], 1.0),
            (&[("Hostname", "gpu[001-999]"), ("UUID", "U1"), ("xid", "79")], 1.0),
            (&[("Hostname", "gpu003"), ("UUID", "U1"), ("xid", "79")], 1.0),
            (&[("xid", "79")], 1.0),
        ]);
        let answers = Answers { at: at(0), seen: found(ALL), rules: vec![xids, found(&[]), found(&[])] };
        let round = watch.read(&rules(), &asked(), &answers, &BTreeSet::new(), at(1));
        let want = [("gpu001", "gpu-ecc-uncorrectable"), ("gpu002", "gpu-off-bus")];
        assert_eq!(told(&round), want.map(|(n, f)| (n.to_owned(), f.to_owned(), true)));
        assert_eq!((round.strangers, round.ill), (2, None));
    }

    #[test]
    fn what_is_missing_is_over_only_where_it_lasts_and_the_node_is_seen() {
        let mut watch = PromWatch::default();
        let standing = BTreeSet::from([
            key("gpu001", "gpu-row-remap-pending"),
            key("gpu001", "gpu-ecc-uncorrectable"),
            key("gpu002", "gpu-row-remap-pending"),
        ]);
        let some = &ALL[..1];
        let none = || vec![found(&[]), found(&[]), found(&[])];
        let round = watch.read(
            &rules(),
            &asked(),
            &Answers { at: at(0), seen: found(some), rules: none() },
            &standing,
            at(1),
        );
        assert_eq!(told(&round), [("gpu001".to_owned(), "gpu-row-remap-pending".to_owned(), false)]);
        // Neither a Prometheus that is down, nor a rule that failed, nor an answer with gaps ends anything.
        for (seen, remap) in [
            (down(), found(&[])),
            (found(ALL), down()),
            (found(ALL), found(&[]).map(|f| Found { complete: false, ..f })),
        ] {
            let answers = Answers { at: at(0), seen, rules: vec![found(&[]), remap, found(&[])] };
            assert_eq!(told(&watch.read(&rules(), &asked(), &answers, &standing, at(1))), []);
        }
    }

    #[test]
    fn a_node_that_is_not_seen_is_a_fault_of_the_tool_and_one_with_fewer_gpus_its_own() {
        let mut watch = PromWatch::default();
        let few: &[(&[(&str, &str)], f64)] = &[(&[("Hostname", "gpu001")], 7.0)];
        for turn in 1..=4 {
            let answers =
                Answers { at: at(0), seen: found(few), rules: vec![found(&[]), found(&[]), found(&[])] };
            let round = watch.read(&rules(), &asked(), &answers, &BTreeSet::new(), at(turn));
            assert_eq!(round.exporters["gpu001"], ToolHealth::Well);
            assert_eq!(matches!(round.exporters["gpu002"], ToolHealth::Ill(_)), turn >= 3, "{turn}");
            assert_eq!(round.exporters["gpu003"], ToolHealth::Undecided, "somebody has it");
            assert_eq!(round.alerts.len(), usize::from(turn >= 2));
            assert!(round.alerts.iter().all(|a| a.fault == COUNT && a.node.as_str() == "gpu001"));
        }
        let round = watch.read(
            &rules(),
            &asked(),
            &Answers { at: at(0), seen: down(), rules: vec![] },
            &BTreeSet::new(),
            at(9),
        );
        assert!(round.ill.is_some() && round.exporters.is_empty() && round.alerts.is_empty(), "{round:?}");
    }

    #[test]
    fn some_must_be_seen_some_times_and_an_answer_of_another_hour_says_nothing() {
        let mut watch = PromWatch::default();
        let hot: &[(&[(&str, &str)], f64)] = &[(&[("Hostname", "gpu001"), ("UUID", "U1")], 1.0)];
        let answers =
            Answers { at: at(0), seen: found(ALL), rules: vec![found(&[]), found(&[]), found(hot)] };
        let cold = Answers { rules: vec![found(&[]), found(&[]), found(&[])], ..answers.clone() };
        let mut turn = |a: &Answers, t| watch.read(&rules(), &asked(), a, &BTreeSet::new(), at(t));
        let counts: Vec<usize> = (1..=4).map(|t| turn(&answers, t).alerts.len()).collect();
        assert_eq!(counts, [0, 0, 1, 1]);
        assert!(turn(&cold, 5).alerts.is_empty());
        assert!(turn(&answers, 6).alerts.is_empty(), "it begins anew");
        let late = turn(&Answers { at: at(3_600), ..answers }, 7);
        assert!(late.alerts.is_empty() && late.ill.unwrap().contains("too far from now"));
    }
}
