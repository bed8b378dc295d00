//! The rules as the checker names them.

/// A rule that never breaks, or the playbook's own promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// 1: intents come first, and are probed.
    Intent,
    /// 3: unknown never permits.
    Unknown,
    /// 4: a person always wins.
    Person,
    /// 5: no return to service unverified.
    Unverified,
    /// 6: a rollback restores the scheduler's view, or the node is held.
    WayBack,
    /// 7: one run per node: nothing without the lock, and the lock is given back.
    Lock,
    /// 8: preconditions and guards hold right before.
    Guard,
    /// 9: no job is lost.
    Job,
    /// 11: an approval is for one plan.
    Approval,
    /// 13: every run ends.
    End,
    /// What the playbook itself says: its good end, and that a person who cancels is heard.
    Promise,
}

impl Rule {
    /// Every rule that the checker judges.
    pub const ALL: [Self; 11] = [
        Self::Intent,
        Self::Unknown,
        Self::Person,
        Self::Unverified,
        Self::WayBack,
        Self::Lock,
        Self::Guard,
        Self::Job,
        Self::Approval,
        Self::End,
        Self::Promise,
    ];

    /// Its number among the rules of the constitution; 0 for the playbook's promise.
    pub fn number(self) -> u8 {
        match self {
            Self::Intent => 1,
            Self::Unknown => 3,
            Self::Person => 4,
            Self::Unverified => 5,
            Self::WayBack => 6,
            Self::Lock => 7,
            Self::Guard => 8,
            Self::Job => 9,
            Self::Approval => 11,
            Self::End => 13,
            Self::Promise => 0,
        }
    }

    /// The rule in one sentence.
    pub fn says(self) -> &'static str {
        match self {
            Self::Intent => {
                "nothing is changed before its intent is on record, and what came of it is looked at"
            }
            Self::Unknown => "unknown never permits",
            Self::Person => "a person always wins",
            Self::Unverified => "no node returns to service unverified",
            Self::WayBack => "the way back restores Slurm's view, or the node is held",
            Self::Lock => "nothing is done to a node that is not locked, and the lock is given back",
            Self::Guard => "conditions hold right before what they guard",
            Self::Job => "no job is lost",
            Self::Approval => "an approval is for one plan, and in time",
            Self::End => "every run ends, and no attempt is endless",
            Self::Promise => "a run ends as the playbook promises",
        }
    }
}

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub rule: Rule,
    /// How, in a sentence.
    pub why: String,
    /// What was begun when it broke, where that is a step.
    pub effect: Option<engine_core::run::Effect>,
}

/// The answer of a rule.
pub(super) type Holds = Result<(), Broken>;

/// Holds a rule.
pub(super) fn hold(rule: Rule, holds: bool, why: &str) -> Holds {
    if holds { Ok(()) } else { Err(Broken { rule, why: why.to_owned(), effect: None }) }
}
