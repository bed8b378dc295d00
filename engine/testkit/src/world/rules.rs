//! The rule book: what the world itself can tell of the constitution's rules, checked at every deed of the engine.
//!
//! Each finding names the rule by its number. The book sees what reaches slurmctld and the nodes; what only the journal
//! can tell is checked by [`crate::warden::Warden`], which writes into the same book.

use super::control::Op;
use super::log::Who;
use super::state::{Inner, later};
use engine_core::model::{NodeFlag, NodeName};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// The rules of the constitution, by number, in a few words.
pub const RULES: [(u8, &str); 15] = [
    (1, "intent first, no blind repeat"),
    (2, "shadow changes nothing"),
    (3, "unknown never permits"),
    (4, "a person always wins"),
    (5, "no return without a proof"),
    (6, "rolled back or held, as said"),
    (7, "one run per node"),
    (8, "preconditions hold at the first write"),
    (9, "no job is lost to the engine"),
    (10, "budgets"),
    (11, "an approval is for one plan"),
    (12, "models only pick"),
    (13, "every run ends"),
    (14, "a sick checker is no sick node"),
    (15, "outside text is data"),
];

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Violation {
    /// Number of the rule.
    pub rule: u8,
    /// When, in virtual time.
    pub at: Timestamp,
    /// On which node, where it was on one.
    pub node: Option<NodeName>,
    /// What was done.
    pub what: String,
    /// Runs that had been proposed by then.
    pub runs: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}, {}", self.rule, self.at)?;
        if let Some(node) = &self.node {
            write!(f, ", {node}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Age of the last good read of a node at which a write to it is no longer covered by what was seen.
pub(super) const READ_MAX_AGE: SignedDuration = SignedDuration::from_millis(2_100);
/// After this time without a hardware fault nobody can take a node for sick by what its tools showed before.
const WELL_AFTER: SignedDuration = SignedDuration::from_secs(90);
/// Longest reason the engine may leave: token and text.
const MAX_OWN_REASON: usize = 400;

/// What the book remembers of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Page {
    /// When the last good read of the node by an engine began.
    pub(crate) read_at: Option<Timestamp>,
    /// When an engine's last write to the node was sent.
    pub(crate) wrote_at: Option<Timestamp>,
    /// When the last reset took effect.
    pub(crate) reset_at: Option<Timestamp>,
    /// When the node's tools last showed every GPU well, and said so to an engine.
    pub(crate) seen_well_at: Option<Timestamp>,
    /// Who lifted the last drain, and when.
    pub(crate) lifted_by: Option<(Who, Timestamp)>,
    /// Since when no GPU of the node is broken; `None` while one is.
    pub(crate) well_since: Option<Timestamp>,
    /// Since when one is.
    pub(crate) sick_since: Option<Timestamp>,
    /// When the node last fell silent.
    pub(crate) silent_at: Option<Timestamp>,
}

/// An effect that is on record as begun: node, run and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OpenIntent {
    pub(crate) run: String,
    /// Word of the deed: see [`Op::deed`].
    pub(crate) deed: &'static str,
}

/// The intents that cover what an engine may do now, by node; `None` where nobody keeps them.
pub(crate) type Intents = Option<BTreeMap<usize, Vec<OpenIntent>>>;

impl Op {
    /// Names what the write does, as intents name it.
    pub(crate) fn deed(&self) -> &'static str {
        match self {
            Self::Drain { .. } => "drain",
            Self::Resume { .. } => "resume",
            Self::CreateLock(_) => "lock",
            Self::DeleteReservation { .. } => "unlock",
        }
    }
}

impl Inner {
    pub(crate) fn violation(&mut self, rule: u8, node: Option<usize>, what: impl Into<String>) {
        let what = what.into();
        self.note(&Who::Engine, node, format!("BREAKS RULE {rule}: {what}"));
        let node = node.map(|n| self.nodes[n].name.clone());
        self.violations.push(Violation { rule, at: self.now, node, what, runs: self.runs });
    }

    /// Judges a write at the moment in which it leaves the engine.
    pub(crate) fn judge_write(&mut self, op: &Op) {
        let node = match op {
            Op::DeleteReservation { name } => {
                name.strip_prefix("slurmedic-").and_then(|n| self.by_name.get(n).copied())
            }
            _ => op.node().and_then(|n| self.find(n)),
        };
        let Some(n) = node else { return };
        self.judge_intent(n, op.deed(), None);
        if op.deed() != "unlock" {
            self.judge_freshness(n, op.deed());
        }
        self.judge_reservations(n, op.deed());
        self.judge_budget(n, op.deed());
        if let Op::Drain { reason, .. } = op {
            self.judge_reason(n, reason);
            self.judge_health(n);
        }
        if !matches!(op.deed(), "lock" | "unlock") {
            self.nodes[n].page.wrote_at = Some(self.now);
        }
    }

    /// Judges an order to reset a GPU at the moment in which it reaches the node.
    pub(crate) fn judge_reset(&mut self, n: usize, run: Option<&str>) {
        if self.intents.is_none() {
            return;
        }
        self.judge_intent(n, "reset", run);
        self.judge_freshness(n, "reset");
        self.judge_reservations(n, "reset");
        let sent = self.now;
        let node = &self.nodes[n];
        if node.has(NodeFlag::Drain) {
            let drain = node.drained_by.clone();
            let reason = node.reason.as_ref().map(|r| (r.by.clone(), r.written));
            self.judge_engine(n, "reset a GPU under a drain", sent, drain);
            self.judge_engine(n, "reset a GPU under a reason", sent, reason);
        } else {
            let lifted = node.page.lifted_by.clone();
            match lifted {
                Some((who, at)) if who != Who::Engine => {
                    self.judge_engine(n, "reset a GPU after a resume", sent, Some((who, at)));
                }
                _ => self.violation(4, Some(n), "the engine reset a GPU of a node that was not drained"),
            }
        }
    }

    /// Rule 1: what is done now is on record as begun.
    fn judge_intent(&mut self, n: usize, deed: &'static str, run: Option<&str>) {
        let Some(open) = &self.intents else { return };
        let covers = |i: &OpenIntent| i.deed == deed && run.is_none_or(|r| r == i.run);
        if !open.get(&n).is_some_and(|list| list.iter().any(covers)) {
            if self.shadows.contains_key(&n) {
                self.violation(
                    2,
                    Some(n),
                    format!("the engine did a {deed} while its run there is in shadow"),
                );
                return;
            }
            self.violation(1, Some(n), format!("the engine did a {deed} that no open intent covers"));
        }
    }

    /// Rule 3: the node was read a moment ago, and after the engine's own last write.
    fn judge_freshness(&mut self, n: usize, deed: &str) {
        if self.intents.is_none() {
            return;
        }
        let page = &self.nodes[n].page;
        let problem = match (page.read_at, page.wrote_at) {
            (None, _) => Some("was never read".to_owned()),
            // A lock is a test-and-set: it may lawfully meet what another engine writes in the same moment.
            (Some(read), Some(wrote)) if read < wrote && deed != "lock" => {
                Some(format!("was last read at {read}, before the engine's own write at {wrote}"))
            }
            (Some(read), _) if self.now.duration_since(read) > READ_MAX_AGE => {
                Some(format!("was last read {:#} before", self.now.duration_since(read)))
            }
            _ => None,
        };
        if let Some(problem) = problem {
            self.violation(3, Some(n), format!("the engine did a {deed} on a node that {problem}"));
        }
    }

    /// Rule 4: no mutation of a node that a person has reserved, once that can be seen.
    fn judge_reservations(&mut self, n: usize, deed: &str) {
        if matches!(deed, "lock" | "unlock") {
            return;
        }
        let seen_by = later(self.now, -self.cfg.race_window);
        let theirs = self.reservations.iter().find(|(name, r)| {
            r.node == n && r.made <= seen_by && r.end > self.now && !name.starts_with("slurmedic-")
        });
        if let Some((name, r)) = theirs {
            let what = format!("the engine did a {deed} under reservation {name}, made at {}", r.made);
            self.violation(4, Some(n), what);
        }
    }

    /// Rule 14: a node without a hardware fault is not taken out, whatever its tools say or do not say.
    fn judge_health(&mut self, n: usize) {
        let well = self.nodes[n].page.well_since;
        let node = &self.nodes[n];
        let ours =
            node.has(NodeFlag::Drain) && node.drained_by.as_ref().is_some_and(|(who, _)| *who == Who::Engine);
        let away = node.down || node.has(NodeFlag::NotResponding);
        if self.intents.is_some()
            && !(ours || away)
            && let Some(since) = well.filter(|s| self.now.duration_since(*s) > WELL_AFTER)
        {
            self.violation(14, Some(n), format!("the engine drained a node that is well since {since}"));
        }
    }

    /// Rule 15: the reason is one plain line behind our token.
    fn judge_reason(&mut self, n: usize, reason: &str) {
        if self.intents.is_none() {
            return;
        }
        let plain = |c: char| (c.is_ascii_graphic() || c == ' ') && !matches!(c, '\'' | '"' | '`' | '\\');
        if !reason.starts_with("[slurmedic:") || reason.len() > MAX_OWN_REASON || !reason.chars().all(plain) {
            self.violation(15, Some(n), format!("the engine wrote the reason {reason:?}"));
        }
    }

    /// Judges a write of the engine that is about to change a node which somebody else has marked (rule 4).
    pub(crate) fn judge_engine(
        &mut self,
        n: usize,
        deed: &str,
        sent: Timestamp,
        when_marked: Option<(Who, Timestamp)>,
    ) {
        let Some((who, at)) = when_marked.filter(|(w, _)| *w != Who::Engine) else { return };
        let seen_by = at.checked_add(self.cfg.race_window).unwrap_or(at);
        if seen_by <= sent {
            self.violation(4, Some(n), format!("the engine {deed} that was made by {who} at {at}"));
        } else {
            self.race(
                n,
                format!("the engine {deed} that {who} had made {} before", self.now.duration_since(at)),
            );
        }
    }

    /// Notes that the reason of a node in service is overwritten which somebody wrote a moment ago. What was there for
    /// longer was seen, and goes with every drain.
    pub(crate) fn judge_fresh_reason(&mut self, n: usize, sent: Timestamp) {
        let Some(reason) = self.nodes[n].reason.clone().filter(|r| r.by != Who::Engine) else { return };
        let unseen = self.nodes[n].page.read_at.is_none_or(|read| read < reason.written);
        if unseen || later(reason.written, self.cfg.race_window) > sent {
            self.judge_engine(n, "overwrote a reason", sent, Some((reason.by, reason.written)));
        }
    }

    /// Rule 5: what the engine gives back is well, and was seen well after the last reset.
    pub(crate) fn judge_return(&mut self, n: usize) {
        let sick = self.ailments(n);
        let page = &self.nodes[n].page;
        if !sick.is_empty() {
            let list: Vec<String> = sick.iter().map(|(g, what)| format!("GPU {g}: {what}")).collect();
            let what = format!("given back to service while sick: {}", list.join("; "));
            match (page.sick_since, page.seen_well_at) {
                // It broke after it was proven: nobody could know.
                (Some(broke), Some(seen)) if broke >= seen => self.race(n, what),
                _ => self.violation(5, Some(n), what),
            }
        }
        let page = &self.nodes[n].page;
        if let Some(reset) = page.reset_at
            && page.seen_well_at.is_none_or(|seen| seen <= reset)
        {
            self.violation(
                5,
                Some(n),
                format!("given back without a look at its GPUs after the reset at {reset}"),
            );
        }
    }

    /// Takes note that an engine saw the node's GPUs by its tools.
    pub(crate) fn seen_by_tools(&mut self, n: usize) {
        if !self.nodes[n].tools.hang && self.nodes[n].page.well_since.is_some() {
            self.nodes[n].page.seen_well_at = Some(self.now);
        }
    }

    /// Keeps since when the node is well.
    pub(crate) fn keep_health(&mut self, n: usize) {
        let well = self.nodes[n].gpus.iter().all(|g| g.ailment().is_none());
        let now = self.now;
        let page = &mut self.nodes[n].page;
        match (well, page.well_since) {
            (true, None) => {
                page.well_since = Some(now);
                page.sick_since = None;
            }
            (false, Some(_)) => {
                page.well_since = None;
                page.sick_since = Some(now);
            }
            _ => {}
        }
    }
}
