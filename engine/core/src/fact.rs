//! Facts: typed values with their source and time of observation.

use crate::known::{Cause, Known};
use crate::value::Value;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where a fact comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// slurmctld, by `scontrol`, `squeue` or slurmrestd.
    Slurm,
    /// dcgm-exporter's metrics text.
    DcgmExporter,
    /// Tools on the node: dcgmi, nvidia-smi, /proc.
    NodeTools,
    /// The alert or the command line that started the run.
    Request,
    /// The engine's own journal and clock.
    Engine,
}

impl Source {
    /// Returns the stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slurm => "slurm",
            Self::DcgmExporter => "dcgm_exporter",
            Self::NodeTools => "node_tools",
            Self::Request => "request",
            Self::Engine => "engine",
        }
    }
}

/// One observation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// The value, or why there is none.
    pub value: Known<Value>,
    /// Who said so.
    pub source: Source,
    /// When it was observed, by the engine's clock.
    pub observed_at: Timestamp,
}

/// The dotted name of a fact; a declared one costs nothing to copy.
type FactName = Cow<'static, str>;

/// The facts about one target, by their dotted names.
///
/// A name that is absent was not observed and reads as unknown. Copies share what they hold until one of them is changed:
/// facts travel from the look through guards and events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FactSet(
    /// Sorted by name, none twice.
    Arc<Vec<(FactName, Arc<Fact>)>>,
);

impl Serialize for FactSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for FactSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let named =
            |name: String| crate::vocabulary::find(&name).map_or(FactName::Owned(name), |f| f.name.into());
        let facts: BTreeMap<String, Fact> = BTreeMap::deserialize(deserializer)?;
        Ok(Self(Arc::new(facts.into_iter().map(|(name, f)| (named(name), Arc::new(f))).collect())))
    }
}

impl FactSet {
    /// Finds a name, or the place where it would stand.
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(n, _)| n.as_ref().cmp(name))
    }

    fn put(&mut self, name: FactName, fact: Arc<Fact>) {
        let place = self.place(&name);
        let facts = Arc::make_mut(&mut self.0);
        match place {
            Ok(found) => {
                if let Some((_, known)) = facts.get_mut(found) {
                    *known = fact;
                }
            }
            Err(due) => {
                if facts.is_empty() {
                    facts.reserve(crate::vocabulary::FACTS.len());
                }
                facts.insert(due, (name, fact));
            }
        }
    }

    /// Records a fact; a later one of the same name replaces it.
    pub fn set(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        value: Known<Value>,
        source: Source,
        observed_at: Timestamp,
    ) {
        self.put(name.into(), Arc::new(Fact { value, source, observed_at }));
    }

    /// Returns the value of a fact; absent is unknown.
    pub fn value(&self, name: &str) -> Known<Value> {
        match self.get(name) {
            Some(f) => f.value.clone(),
            None => Known::unknown(Cause::NotObserved, format!("no source gave {name}")),
        }
    }

    /// Returns the fact as it was observed.
    pub fn get(&self, name: &str) -> Option<&Fact> {
        let place = self.place(name).ok()?;
        self.0.get(place).map(|(_, f)| f.as_ref())
    }

    /// Iterates in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Fact)> {
        self.0.iter().map(|(k, v)| (k.as_ref(), v.as_ref()))
    }

    /// Counts the facts.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the facts of another set; they replace those of the same name.
    pub fn extend(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        for (name, fact) in Arc::unwrap_or_clone(other.0) {
            self.put(name, fact);
        }
    }

    /// Returns those that fit.
    #[must_use]
    pub fn only(&self, fits: impl Fn(&str, &Fact) -> bool) -> Self {
        Self(Arc::new(self.0.iter().filter(|(name, f)| fits(name, f)).cloned().collect()))
    }

    /// Returns what tells these facts from those of an earlier look: the facts named in `needed`, and those that were
    /// observed since and have another value.
    #[must_use]
    pub fn since(&self, earlier: &Self, needed: &BTreeSet<String>) -> Self {
        let is_news = |name: &str, f: &Fact| {
            earlier.get(name).is_none_or(|was| was.observed_at != f.observed_at && was.value != f.value)
        };
        self.only(|name, f| needed.contains(name) || is_news(name, f))
    }

    /// Turns every fact observed more than `limit` before `now` into unknown (rule 3).
    ///
    /// Facts of the request and of the engine do not age.
    pub fn expire(&mut self, now: Timestamp, limit: SignedDuration) {
        self.degrade(Cause::Stale, |f| now.duration_since(f.observed_at) > limit);
    }

    /// Turns every fact observed before `mutation` into unknown (rule 3): it may describe the world before it.
    pub fn invalidate_before(&mut self, mutation: Timestamp) {
        self.degrade(Cause::OlderThanMutation, |f| f.observed_at < mutation);
    }

    fn degrade(&mut self, cause: Cause, is_old: impl Fn(&Fact) -> bool) {
        let degrades = |f: &Fact| {
            let external = !matches!(f.source, Source::Request | Source::Engine);
            external && f.value.is_known() && is_old(f)
        };
        if !self.iter().any(|(_, f)| degrades(f)) {
            return;
        }
        for (_, f) in Arc::make_mut(&mut self.0).iter_mut().filter(|(_, f)| degrades(f)) {
            let value = Known::unknown(cause, format!("observed {}", f.observed_at));
            *f = Arc::new(Fact { value, source: f.source, observed_at: f.observed_at });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
    }

    fn set(facts: &[(&'static str, i64, i64)]) -> FactSet {
        let mut out = FactSet::default();
        for (name, value, second) in facts {
            out.set(*name, Known::Known(Value::Int(*value)), Source::Slurm, at(*second));
        }
        out
    }

    #[test]
    fn what_is_new_is_what_is_needed_and_what_changed() {
        let earlier = set(&[("needed", 1, 0), ("same", 1, 0), ("other", 1, 0), ("carried", 1, 0)]);
        let mut now =
            set(&[("needed", 1, 5), ("same", 1, 5), ("other", 2, 5), ("carried", 1, 0), ("first", 1, 5)]);
        now.expire(at(100), SignedDuration::from_secs(97));
        let needed = BTreeSet::from(["needed".to_owned()]);
        let told = now.since(&earlier, &needed);
        assert_eq!(told.iter().map(|(n, _)| n).collect::<Vec<_>>(), ["first", "needed", "other"]);
        assert_eq!(now.value("carried").known(), None, "it only grew old: the plan has it with its time");
        assert_eq!(told.get("other"), now.get("other"));
    }
}
