//! What a condition may come to when only some of its facts are given: for proofs about playbooks, never for runs.

use super::Condition;
use super::eval::{Names, Node, Test, Truth, evaluate};
use crate::fact::FactSet;

/// A set of outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outcomes(u8);

const ALL: [Truth; 3] = [Truth::False, Truth::Unknown, Truth::True];

impl Outcomes {
    /// Every outcome.
    pub const ANY: Self = Self(0b111);

    /// Exactly one outcome.
    pub fn only(truth: Truth) -> Self {
        Self(1 << truth as u8)
    }

    /// Says whether an outcome is among them.
    pub fn contains(self, truth: Truth) -> bool {
        self.0 & Self::only(truth).0 != 0
    }

    /// The outcomes of both holding, whatever the two have to do with each other.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.pairs(other, Truth::and)
    }

    /// The outcomes of one of them holding, whatever the two have to do with each other.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        self.pairs(other, Truth::or)
    }

    fn pairs(self, other: Self, join: impl Fn(Truth, Truth) -> Truth) -> Self {
        let mut out = 0;
        for a in ALL.into_iter().filter(|t| self.contains(*t)) {
            for b in ALL.into_iter().filter(|t| other.contains(*t)) {
                out |= Self::only(join(a, b)).0;
            }
        }
        Self(out)
    }

    fn negated(self) -> Self {
        Self(ALL.into_iter().filter(|t| self.contains(*t)).fold(0, |out, t| out | Self::only(!t).0))
    }
}

impl Condition {
    /// Says what the condition may come to: facts of `given` are as they are there, all others may have any value or
    /// none. Too many outcomes rather than too few: facts that are not given count as independent of each other.
    pub fn possible(&self, given: &FactSet) -> Outcomes {
        possible(&self.0.root, &self.0.names, given)
    }
}

fn possible(node: &Node, names: &Names, given: &FactSet) -> Outcomes {
    match node {
        Node::Not(inner) => possible(inner, names, given).negated(),
        Node::All(parts) => {
            parts.iter().fold(Outcomes::only(Truth::True), |out, part| out.and(possible(part, names, given)))
        }
        Node::Any(parts) => {
            parts.iter().fold(Outcomes::only(Truth::False), |out, part| out.or(possible(part, names, given)))
        }
        Node::Leaf(leaf) => {
            let (first, second) = leaf.test.reads();
            let is_given = |i: usize| names.get(i).is_some_and(|(name, _)| given.get(name).is_some());
            if is_given(first) && second.is_none_or(is_given) {
                Outcomes::only(evaluate(node, names, given, false, &mut Vec::new()))
            } else if matches!(leaf.test, Test::Known { .. }) {
                Outcomes(Outcomes::only(Truth::True).0 | Outcomes::only(Truth::False).0)
            } else {
                Outcomes::ANY
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::{Scope, compile};
    use crate::fact::Source;
    use crate::known::Known;
    use crate::value::Value;
    use crate::vocabulary::FACTS;

    fn outcomes(source: &str) -> String {
        let mut given = FactSet::default();
        given.set("active_jobs", Known::Known(Value::Int(1)), Source::Slurm, jiff::Timestamp::UNIX_EPOCH);
        let c = compile(source, &Scope::new(FACTS)).unwrap();
        let possible = c.possible(&given);
        ALL.into_iter()
            .filter(|t| possible.contains(*t))
            .map(|t| t.as_str().chars().next().unwrap())
            .collect()
    }

    #[test]
    fn given_facts_decide_and_others_may_be_anything() {
        for (source, want) in [
            ("active_jobs == 0", "f"),
            ("active_jobs == 1", "t"),
            ("gpu.xid == 48", "fut"),
            ("gpu.xid is known", "ft"),
            ("active_jobs == 0 and (gpu.xid is unknown or gpu.xid != 79)", "f"),
            ("active_jobs == 1 or gpu.xid == 48", "t"),
            ("active_jobs == 1 and gpu.xid == 48", "fut"),
            ("not (active_jobs == 0 or gpu.xid == 48)", "fut"),
            ("active_jobs < suspended_jobs", "fut"),
        ] {
            assert_eq!(outcomes(source), want, "{source}");
        }
    }
}
