//! Counters and histograms, kept in memory, bounded. What can be read from the journal's fold is read when it is asked for,
//! see `snapshot`; here is only what happens in this process.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What kind of metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only ever grows.
    Counter,
    /// A value now.
    Gauge,
    /// How long something took.
    Histogram,
}

/// One metric: what it is called and what it means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Family {
    /// Name without the endings that the exposition adds.
    pub(crate) name: &'static str,
    /// Kind.
    pub(crate) kind: Kind,
    /// Unit, which the name ends with; empty for none.
    pub(crate) unit: &'static str,
    /// One sentence.
    pub(crate) help: &'static str,
    /// Names of its labels.
    pub(crate) labels: &'static [&'static str],
}

/// Upper bounds of the buckets, in seconds: from a quick answer to a wait for jobs.
pub(crate) const BUCKETS: [f64; 12] =
    [0.005, 0.025, 0.1, 0.5, 2.0, 10.0, 30.0, 120.0, 600.0, 1_800.0, 7_200.0, 28_800.0];

/// Series that are kept, in all; what comes later counts for labels `other`.
const MAX_SERIES: usize = 4_000;

/// Counts of one histogram.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Histogram {
    /// Observations in each bucket alone, and behind the last.
    pub(crate) buckets: [u64; BUCKETS.len() + 1],
    /// Sum of all.
    pub(crate) sum: f64,
}

/// A series of a histogram: its labels and its counts.
pub(crate) type HistogramSeries = (Vec<String>, Histogram);

#[derive(Debug, Default)]
struct Kept {
    numbers: BTreeMap<(&'static str, Vec<String>), f64>,
    histograms: BTreeMap<(&'static str, Vec<String>), Histogram>,
}

/// What this process counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    kept: Mutex<Kept>,
}

impl Metrics {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to a counter.
    pub(crate) fn add(&self, family: &'static Family, labels: &[&str], by: f64) {
        let mut kept = self.kept();
        let full = kept.numbers.len() >= MAX_SERIES;
        let key = key(family, labels, |k| full && !kept.numbers.contains_key(k));
        *kept.numbers.entry(key).or_insert(0.0) += by;
    }

    /// Sets a gauge.
    pub(crate) fn set(&self, family: &'static Family, labels: &[&str], to: f64) {
        let mut kept = self.kept();
        let full = kept.numbers.len() >= MAX_SERIES;
        let key = key(family, labels, |k| full && !kept.numbers.contains_key(k));
        kept.numbers.insert(key, to);
    }

    /// Counts how long something took.
    pub(crate) fn observe(&self, family: &'static Family, labels: &[&str], seconds: f64) {
        let mut kept = self.kept();
        let full = kept.histograms.len() >= MAX_SERIES;
        let key = key(family, labels, |k| full && !kept.histograms.contains_key(k));
        let h = kept.histograms.entry(key).or_default();
        let place = BUCKETS.iter().position(|b| seconds <= *b).unwrap_or(BUCKETS.len());
        if let Some(b) = h.buckets.get_mut(place) {
            *b += 1;
        }
        h.sum += seconds;
    }

    /// Lists the series of a counter or gauge.
    pub(crate) fn numbers(&self, family: &Family) -> Vec<(Vec<String>, f64)> {
        let of = |((name, labels), v): (&(&'static str, Vec<String>), &f64)| {
            (*name == family.name).then(|| (labels.clone(), *v))
        };
        self.kept().numbers.iter().filter_map(of).collect()
    }

    /// Lists the series of a histogram.
    pub(crate) fn histograms(&self, family: &Family) -> Vec<HistogramSeries> {
        let of = |((name, labels), h): (&(&'static str, Vec<String>), &Histogram)| {
            (*name == family.name).then(|| (labels.clone(), h.clone()))
        };
        self.kept().histograms.iter().filter_map(of).collect()
    }
}

fn key(
    family: &'static Family,
    labels: &[&str],
    too_many: impl Fn(&(&'static str, Vec<String>)) -> bool,
) -> (&'static str, Vec<String>) {
    debug_assert_eq!(labels.len(), family.labels.len(), "{}", family.name);
    let key = (family.name, labels.iter().map(|l| l.chars().take(80).collect()).collect());
    if too_many(&key) { (family.name, vec!["other".to_owned(); labels.len()]) } else { key }
}

#[cfg(test)]
mod tests {
    use super::*;

    static F: Family = Family { name: "t", kind: Kind::Counter, unit: "", help: "a test", labels: &["a"] };

    #[test]
    fn the_number_of_series_is_bounded() {
        let m = Metrics::default();
        for i in 0..MAX_SERIES + 500 {
            m.add(&F, &[&i.to_string()], 1.0);
        }
        let all = m.numbers(&F);
        assert_eq!(all.len(), MAX_SERIES + 1);
        assert!(all.iter().any(|(l, v)| l[0] == "other" && (*v - 500.0).abs() < 1e-9));
    }

    #[test]
    fn every_observation_is_in_one_bucket() {
        let m = Metrics::default();
        for s in [0.0, 0.005, 0.006, 1e9] {
            m.observe(&F, &["x"], s);
        }
        let all = m.histograms(&F);
        assert_eq!(all[0].1.buckets.iter().sum::<u64>(), 4);
        assert_eq!((all[0].1.buckets[0], all[0].1.buckets[BUCKETS.len()]), (2, 1));
    }
}
