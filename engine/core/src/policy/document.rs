//! The policy: what the site allows the engine to do, as plain data.
//!
//! Every key has a conservative default, and `policies/default.yaml` is the same thing written out; a test holds the two
//! together. The playbook crate reads the file; here is only what it says.

use super::hosts::Hosts;
use super::layout::Racks;
use super::roles::Roles;
use super::share::{Period, Rate, Share, Storm};
use super::stages::Stages;
use super::windows::{Freeze, Window};
use crate::action::EffectClass;
use crate::digest::Digest;
use crate::playbook::ApprovalClass;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// How many nodes may be out of service, whoever took them.
    pub budgets: Budgets,
    /// How many runs go on side by side.
    pub concurrent_runs: u32,
    /// How often something is changed, per effect class.
    pub rates: Rates,
    /// How often the same fault of the same target is tried.
    pub attempts: Rate,
    /// When a piece of hardware is a matter for a person.
    pub repeat_offenders: RepeatOffenders,
    /// When disruptive work may begin; none means always.
    pub windows: Vec<Window>,
    /// When nothing begins but reads and notes.
    pub freezes: Vec<Freeze>,
    /// How a node says that it wants to be left alone.
    pub opt_out: OptOut,
    /// Where playbooks of the class `canary` need no person.
    pub canary: Canary,
    /// How far the engine goes with a playbook that no person began.
    pub stages: Stages,
    /// Who may do what.
    pub roles: Roles,
    /// How long a yes holds and how many are needed.
    pub approvals: Approvals,
    /// What stops everything.
    pub breaker: Breaker,
    /// Which nodes share a rack or a fabric.
    pub racks: Racks,
    /// How long a run may be put off to find a moment at which it costs the queue less. Zero: not at all.
    pub idle_gap: Period,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            budgets: Budgets::default(),
            concurrent_runs: 4,
            rates: Rates::default(),
            attempts: Rate::new(2, Period::hours(24)),
            repeat_offenders: RepeatOffenders::default(),
            windows: Vec::new(),
            freezes: Vec::new(),
            opt_out: OptOut::default(),
            canary: Canary::default(),
            stages: Stages::default(),
            roles: Roles::default(),
            approvals: Approvals::default(),
            breaker: Breaker::default(),
            racks: Racks::default(),
            idle_gap: Period::hours(2),
        }
    }
}

impl Policy {
    /// Digests the policy by its meaning: comments, order and writing do not count.
    pub fn digest(&self) -> Result<Digest, serde_json::Error> {
        Digest::of_json(self)
    }

    /// Returns how many different people must say yes to a run.
    ///
    /// The playbook's own class decides, `canary` needs nobody inside the canary scope, and the policy's quorum for the
    /// worst effect class of the run is the least in any case.
    pub fn people_needed(&self, class: ApprovalClass, worst: EffectClass, in_canary: bool) -> u8 {
        let own = if class == ApprovalClass::Canary && in_canary { 0 } else { class.people() };
        own.max(self.approvals.quorum.of(worst))
    }
}

/// How many nodes of a group may be out of service at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budgets {
    /// Of all nodes.
    pub fleet: Share,
    /// Of each partition that is not named below.
    pub partition: Share,
    /// Of partitions by name.
    pub partitions: BTreeMap<String, Share>,
    /// Of each rack that is not named below.
    pub rack: Share,
    /// Of racks by name.
    pub racks: BTreeMap<String, Share>,
    /// Of each fabric domain that is not named below.
    pub fabric: Share,
    /// Of fabric domains by name.
    pub fabrics: BTreeMap<String, Share>,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            fleet: Share::percent(2),
            partition: Share::percent(5),
            partitions: BTreeMap::new(),
            rack: Share::percent(25),
            racks: BTreeMap::new(),
            fabric: Share::percent(25),
            fabrics: BTreeMap::new(),
        }
    }
}

/// How often something is changed, per effect class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    /// Drains and resumes.
    pub reversible: Rate,
    /// Resets and reboots.
    pub disruptive: Rate,
    /// What costs jobs or power.
    pub destructive: Rate,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            reversible: Rate::new(60, Period::hours(1)),
            disruptive: Rate::new(10, Period::hours(1)),
            destructive: Rate::new(2, Period::hours(24)),
        }
    }
}

impl Rates {
    /// Returns the rate of a class; `None` where nothing is limited, because nothing but words is written.
    pub fn of(&self, class: EffectClass) -> Option<Rate> {
        match class {
            EffectClass::Read | EffectClass::Annotate => None,
            EffectClass::Reversible => Some(self.reversible),
            EffectClass::Disruptive => Some(self.disruptive),
            EffectClass::Destructive => Some(self.destructive),
        }
    }
}

/// The highest number that a policy may set for runs, rates, attempts or events: none is endless (rule 13).
pub const MAX_NUMBER: u32 = 10_000;

/// When a piece of hardware has been worked on so often that only a person may go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RepeatOffenders {
    /// Per GPU, by serial number, or by UUID where there is none.
    pub gpu: Rate,
    /// Per slot: node and bus id, whichever GPU is in it.
    pub slot: Rate,
}

impl Default for RepeatOffenders {
    fn default() -> Self {
        let limit = Rate::new(3, Period::hours(30 * 24));
        Self { gpu: limit, slot: limit }
    }
}

/// How a node says that it wants to be left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptOut {
    /// A node with this Slurm feature is left alone.
    pub feature: String,
    /// A node whose comment holds this text is left alone.
    pub comment: String,
}

impl Default for OptOut {
    fn default() -> Self {
        Self { feature: "noremedy".to_owned(), comment: "slurmedic:off".to_owned() }
    }
}

/// Where playbooks of the class `canary` need no person. Empty by default: nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Canary {
    /// Nodes.
    pub nodes: Hosts,
    /// Partitions.
    pub partitions: BTreeSet<String>,
    /// Slurm features.
    pub features: BTreeSet<String>,
}

/// How long requests and approvals hold, and how many people are needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Approvals {
    /// How long a request for approval stands.
    pub request_expires: Period,
    /// How long a yes holds before the run must have begun.
    pub approval_expires: Period,
    /// Whether a run that a program asked for needs a yes from somebody else than the person the program works for.
    pub program_needs_other: bool,
    /// The least number of people for the worst effect class of a run, whatever its playbook says.
    pub quorum: Quorum,
}

impl Default for Approvals {
    fn default() -> Self {
        Self {
            request_expires: Period::hours(12),
            approval_expires: Period::minutes(15),
            program_needs_other: true,
            quorum: Quorum::default(),
        }
    }
}

/// The least number of people per effect class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quorum {
    /// For drains and resumes.
    pub reversible: u8,
    /// For resets and reboots.
    pub disruptive: u8,
    /// For what costs jobs or power.
    pub destructive: u8,
}

/// The highest quorum that a policy may set.
pub const MAX_QUORUM: u8 = 5;

impl Default for Quorum {
    fn default() -> Self {
        Self { reversible: 0, disruptive: 0, destructive: 2 }
    }
}

impl Quorum {
    /// Returns the least number of people for a class.
    pub fn of(&self, class: EffectClass) -> u8 {
        match class {
            EffectClass::Read | EffectClass::Annotate => 0,
            EffectClass::Reversible => self.reversible,
            EffectClass::Disruptive => self.disruptive,
            EffectClass::Destructive => self.destructive,
        }
    }
}

/// What stops all mutations until a person resets it. Each event has the number or share at which it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Nodes of the fleet with a new fault: more than this share.
    pub fleet: Storm,
    /// Nodes of one partition with a new fault: more than this share.
    pub partition: Storm,
    /// Racks with new faults on more than one node: as many as this.
    pub racks: Rate,
    /// Actions that turned out to be wrong: as many as this.
    pub wrongful_actions: Rate,
    /// Effects of which nobody can say whether they were applied: as many as this.
    pub ambiguous_outcomes: Rate,
}

impl Default for Breaker {
    fn default() -> Self {
        let quarter = Period::minutes(15);
        Self {
            fleet: Storm { share: Share::percent(10), per: quarter },
            partition: Storm { share: Share::percent(20), per: quarter },
            racks: Rate::new(2, quarter),
            wrongful_actions: Rate::new(1, Period::hours(24)),
            ambiguous_outcomes: Rate::new(3, Period::hours(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_the_meaning_and_changes_with_each_part_of_it() {
        let policy = Policy::default();
        let again: Policy = serde_json::from_str(&serde_json::to_string(&policy).unwrap()).unwrap();
        assert_eq!(again, policy);
        assert_eq!(again.digest().unwrap(), policy.digest().unwrap());
        assert_eq!(serde_json::from_str::<Policy>("{}").unwrap(), policy, "every key has its default");
        let mut other = policy.clone();
        other.approvals.program_needs_other = false;
        assert_ne!(other.digest().unwrap(), policy.digest().unwrap());
        assert!(serde_json::from_str::<Policy>(r#"{"budget": {}}"#).is_err());
    }

    #[test]
    fn people_needed_is_the_more_careful_of_playbook_and_policy() {
        use ApprovalClass::{Auto, Canary, Hitl, Hitl2};
        use EffectClass::{Annotate, Destructive, Disruptive, Read, Reversible};
        let mut policy = Policy::default();
        for (class, worst, in_canary, people) in [
            (Auto, Read, false, 0),
            (Auto, Annotate, false, 0),
            (Canary, Disruptive, true, 0),
            (Canary, Disruptive, false, 1),
            (Hitl, Reversible, true, 1),
            (Hitl2, Reversible, true, 2),
            (Canary, Destructive, true, 2),
            (Hitl, Destructive, false, 2),
        ] {
            assert_eq!(
                policy.people_needed(class, worst, in_canary),
                people,
                "{class:?} {worst:?} {in_canary}"
            );
        }
        policy.approvals.quorum.disruptive = 3;
        assert_eq!(policy.people_needed(Hitl2, Disruptive, false), 3);
        assert_eq!(policy.people_needed(Canary, Disruptive, true), 3);
    }
}
