//! A job as slurmctld reports it.

use super::names::NodeName;
use crate::known::{Cause, Known};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The state of a job; words as `squeue %T` prints them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the words are Slurm's own")]
pub enum JobState {
    Pending,
    Running,
    Suspended,
    Completing,
    Configuring,
    Stopped,
    Signaling,
    StageOut,
    ResvDelHold,
    Requeued,
    RequeueFed,
    RequeueHold,
    Resizing,
    SpecialExit,
    Expediting,
    Completed,
    Cancelled,
    Failed,
    Timeout,
    NodeFail,
    Preempted,
    BootFail,
    Deadline,
    OutOfMemory,
    Revoked,
    LaunchFailed,
    ReconfigFail,
    PowerUpNode,
    UpdateDb,
}

/// Every state with Slurm's word for it, and whether it is a flag on top of a base state.
const WORDS: &[(JobState, &str, bool)] = &[
    (JobState::Pending, "PENDING", false),
    (JobState::Running, "RUNNING", false),
    (JobState::Suspended, "SUSPENDED", false),
    (JobState::Completed, "COMPLETED", false),
    (JobState::Cancelled, "CANCELLED", false),
    (JobState::Failed, "FAILED", false),
    (JobState::Timeout, "TIMEOUT", false),
    (JobState::NodeFail, "NODE_FAIL", false),
    (JobState::Preempted, "PREEMPTED", false),
    (JobState::BootFail, "BOOT_FAIL", false),
    (JobState::Deadline, "DEADLINE", false),
    (JobState::OutOfMemory, "OUT_OF_MEMORY", false),
    (JobState::Completing, "COMPLETING", true),
    (JobState::Configuring, "CONFIGURING", true),
    (JobState::Stopped, "STOPPED", true),
    (JobState::Signaling, "SIGNALING", true),
    (JobState::StageOut, "STAGE_OUT", true),
    (JobState::ResvDelHold, "RESV_DEL_HOLD", true),
    (JobState::Requeued, "REQUEUED", true),
    (JobState::RequeueFed, "REQUEUE_FED", true),
    (JobState::RequeueHold, "REQUEUE_HOLD", true),
    (JobState::Resizing, "RESIZING", true),
    (JobState::SpecialExit, "SPECIAL_EXIT", true),
    (JobState::Expediting, "EXPEDITING", true),
    (JobState::Revoked, "REVOKED", true),
    (JobState::LaunchFailed, "LAUNCH_FAILED", true),
    (JobState::ReconfigFail, "RECONFIG_FAIL", true),
    (JobState::PowerUpNode, "POWER_UP_NODE", true),
    (JobState::UpdateDb, "UPDATE_DB", true),
];

impl JobState {
    /// Finds a state by its whole word, in any case; `(state, is a flag)`.
    pub fn from_word(word: &str) -> Option<(Self, bool)> {
        WORDS.iter().find(|(_, w, _)| w.eq_ignore_ascii_case(word)).map(|(s, _, flag)| (*s, *flag))
    }

    /// Returns Slurm's word for it.
    pub fn as_str(self) -> &'static str {
        WORDS.iter().find(|(s, ..)| *s == self).map_or("?", |(_, w, _)| w)
    }

    /// Says whether the job is over: nothing of it can run again without being requeued.
    pub fn is_finished(self) -> bool {
        matches!(
            self,
            Self::Completed
                | Self::Cancelled
                | Self::Failed
                | Self::Timeout
                | Self::NodeFail
                | Self::Preempted
                | Self::BootFail
                | Self::Deadline
                | Self::OutOfMemory
                | Self::Revoked
        )
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The words of one job's state, told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStates {
    /// The base state; unknown where a flag hides it, as in all text output.
    pub base: Known<JobState>,
    /// Flags on top of it.
    pub flags: Vec<JobState>,
    /// Words nobody here has seen before.
    pub unknown: Vec<String>,
}

/// Reads the words of a job's state, from the list `["COMPLETED", "COMPLETING"]` or the one word of text output.
pub fn parse_job_words<'a>(words: impl IntoIterator<Item = &'a str>) -> JobStates {
    let mut states = JobStates {
        base: Known::unknown(Cause::NotReported, "no state"),
        flags: Vec::new(),
        unknown: Vec::new(),
    };
    let mut base: Option<JobState> = None;
    for word in words {
        match JobState::from_word(word) {
            Some((flag, true)) => states.flags.push(flag),
            Some((b, false)) => match base {
                Some(have) if have != b => {
                    states.unknown.push(format!("{have}+{b}"));
                }
                _ => base = Some(b),
            },
            None if states.unknown.len() < 32 => states.unknown.push(word.chars().take(64).collect()),
            None => {}
        }
    }
    states.flags.sort_unstable();
    states.flags.dedup();
    states.base = match (base, states.unknown.first(), states.flags.first()) {
        (_, Some(w), _) => Known::unknown(Cause::UnrecognisedWord, w.clone()),
        (Some(b), None, _) => Known::Known(b),
        (None, None, Some(f)) => {
            Known::unknown(Cause::NotReported, format!("{f} hides the base state in this format"))
        }
        (None, None, None) => return states,
    };
    states
}

/// A job as one read saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Job number.
    pub id: u64,
    /// The id as Slurm shows it, with array or component part: `6_2`, `6_[2%1]`, `9+1`.
    pub display_id: String,
    /// Base state.
    pub state: Known<JobState>,
    /// States OR-ed onto the base, such as COMPLETING.
    pub flags: Vec<JobState>,
    /// State words nobody here has seen before.
    pub unknown_states: Vec<String>,
    /// Owner.
    pub user: Known<String>,
    /// Account.
    pub account: Known<Option<String>>,
    /// Partition.
    pub partition: Known<String>,
    /// Job name: text from outside.
    pub name: Known<String>,
    /// Nodes, expanded; empty for pending jobs.
    pub nodes: Known<Vec<NodeName>>,
    /// Why it is in this state, Slurm's word.
    pub state_reason: Known<Option<String>>,
    /// Start time, if it started.
    pub start: Known<Option<Timestamp>>,
    /// Expected or real end time.
    pub end: Known<Option<Timestamp>>,
}

impl Job {
    /// Says whether this job keeps a node from being touched: not finished, or finished and still completing,
    /// or in a state we do not understand. Pending jobs hold no node.
    pub fn holds_node(&self) -> bool {
        if !self.unknown_states.is_empty() || self.flags.contains(&JobState::Completing) {
            return true;
        }
        match &self.state {
            Known::Known(JobState::Pending) => false,
            Known::Known(s) => !s.is_finished(),
            Known::Unknown(_) => true,
        }
    }

    /// Says whether the job is suspended: its processes are frozen and may hold GPU memory.
    pub fn is_suspended(&self) -> bool {
        let suspended = |s: &JobState| matches!(s, JobState::Suspended | JobState::Stopped);
        self.state.is_known_and(suspended) || self.flags.iter().any(suspended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_slurms_own_and_all_listed() {
        for (state, word, _) in WORDS {
            assert_eq!(serde_json::to_value(state).unwrap(), *word);
            assert_eq!(JobState::from_word(&word.to_lowercase()).unwrap().0, *state);
        }
    }

    #[test]
    fn base_and_flags() {
        let s = parse_job_words(["COMPLETED", "COMPLETING"]);
        assert_eq!((s.base, s.flags), (Known::Known(JobState::Completed), vec![JobState::Completing]));
        let s = parse_job_words(["COMPLETING"]);
        assert!(!s.base.is_known() && s.flags == [JobState::Completing] && s.unknown.is_empty());
        for strange in [
            vec!["SLEEPING"],
            vec!["RUNNING", "SLEEPING"],
            vec!["RUNNING", "PENDING"],
            vec!["RUNNING*"],
            vec![""],
        ] {
            let s = parse_job_words(strange.iter().copied());
            assert!(!s.base.is_known() && !s.unknown.is_empty(), "{strange:?}");
        }
        assert!(!parse_job_words([]).base.is_known());
    }
}
