//! Ownership: the proof that a drain is ours and still only ours, and the check that nobody touched the node.

use crate::known::{Cause, Known, Unknown};
use crate::model::names::RunId;
use crate::model::{BaseState, Node, NodeFlag, NodeFlags, Reason, Reservation};
use crate::playbook::PlaybookRef;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Longest text behind the token.
pub const MAX_REASON_TEXT: usize = 200;

/// Builds the reason we leave on a node: `[slurmedic:<playbook>@<version>#<run>] text`, one line of plain ASCII.
///
/// Text from outside is flattened: control characters, quotes and non-ASCII become blanks or `?`.
pub fn reason(playbook: &PlaybookRef, run: &RunId, text: &str) -> String {
    let flat: String = text
        .chars()
        .map(|c| match c {
            '\'' | '"' | '`' | '\\' => ' ',
            c if c.is_ascii_graphic() || c == ' ' => c,
            c if c.is_whitespace() || c.is_control() => ' ',
            _ => '?',
        })
        .take(MAX_REASON_TEXT)
        .collect();
    let text = flat.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("[slurmedic:{}@{}#{run}] {text}", playbook.id, playbook.version).trim_end().to_owned()
}

/// Reads the run out of a reason of ours. That it names a run proves nothing until the journal knows that run.
pub fn run_of_reason(text: &str) -> Option<RunId> {
    let inside = text.strip_prefix("[slurmedic:")?.split_once(']')?.0;
    RunId::new(inside.rsplit_once('#')?.1).ok()
}

/// Names the reservation that is our lock on a node.
pub fn reservation_name(node: &crate::model::NodeName) -> String {
    format!("slurmedic-{node}")
}

/// What people can change about a node, as one read saw it.
///
/// Two marks that agree mean that nobody intervened in between.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeMark {
    /// Base state.
    pub base: BaseState,
    /// Flags.
    pub flags: NodeFlags,
    /// The reason with its user and time.
    pub reason: Option<Reason>,
    /// Reservations over the node now, ours excepted.
    pub reservations: BTreeSet<String>,
}

impl NodeMark {
    /// Takes the mark of a node; anything unknown in it makes the whole mark unknown (rule 3).
    pub fn of(node: &Node, reservations: &[Reservation], now: Timestamp) -> Known<Self> {
        let base = match &node.base {
            // What slurmctld says until slurmd has registered after a restart: it does not know, so nobody does.
            Known::Known(BaseState::Unknown) => {
                let detail = format!("slurmctld has not heard of {} since it was started", node.name);
                return Known::unknown(Cause::NotObserved, detail);
            }
            Known::Known(b) => *b,
            Known::Unknown(u) => return Known::Unknown(u.clone()),
        };
        if let Some(word) = node.flags.unknown.first() {
            let detail = format!("{} carries the flag {word}, which this release does not know", node.name);
            return Known::Unknown(Unknown::new(Cause::UnrecognisedWord, detail));
        }
        let reason = match &node.reason {
            Known::Known(r) => r.clone(),
            Known::Unknown(u) => return Known::Unknown(u.clone()),
        };
        let ours = reservation_name(&node.name);
        let reservations = reservations
            .iter()
            .filter(|r| r.name != ours && r.covers(&node.name, now))
            .map(|r| r.name.clone())
            .collect();
        Known::Known(Self { base, flags: node.flags.clone(), reason, reservations })
    }

    /// Says whether DRAIN or FAIL is set.
    pub fn is_drained(&self) -> bool {
        self.flags.has(NodeFlag::Drain) || self.flags.has(NodeFlag::Fail)
    }

    /// Says whether the drain is the one we made: our text, and the user and time seen right after making it.
    pub fn is_our_drain(&self, made: &Reason) -> bool {
        self.flags.has(NodeFlag::Drain)
            && !self.flags.has(NodeFlag::Fail)
            && self.reason.as_ref().is_some_and(|r| same_reason(r, made))
    }

    /// Describes the mark in one line.
    pub fn describe(&self) -> String {
        let mut out = base_word(self.base);
        for f in &self.flags.known {
            out.push('+');
            out.push_str(&flag_word(*f));
        }
        if let Some(r) = &self.reason {
            out.push_str(&format!(", reason {:?} by {}", r.text, r.user));
        }
        if !self.reservations.is_empty() {
            out.push_str(&format!(
                ", reserved by {}",
                self.reservations.iter().cloned().collect::<Vec<_>>().join(", ")
            ));
        }
        out
    }

    /// Finds what changed since `last`; `None` when nothing did.
    ///
    /// Jobs that start and end, completing, planning by the scheduler, and the flags of our own reservation are
    /// not changes. A change of the reason alone is one, whatever the state.
    pub fn change_since(&self, last: &Self) -> Option<Change> {
        let mut changes = Vec::new();
        let mut by_node = Vec::new();
        if admin_base(self.base) != admin_base(last.base) {
            by_node.push(format!("base state was {}, is {}", base_word(last.base), base_word(self.base)));
        }
        for f in self.flags.known.symmetric_difference(&last.flags.known) {
            if !is_natural(*f) {
                let verb = if self.flags.has(*f) { "was set" } else { "was cleared" };
                let list = if matches!(f, NodeFlag::NotResponding | NodeFlag::InvalidReg) {
                    &mut by_node
                } else {
                    &mut changes
                };
                list.push(format!("{} {verb}", flag_word(*f)));
            }
        }
        if self.flags.unknown != last.flags.unknown {
            changes.push(format!(
                "flags nobody here knows: {:?}, were {:?}",
                self.flags.unknown, last.flags.unknown
            ));
        }
        match (&last.reason, &self.reason) {
            (None, None) => {}
            (Some(a), Some(b)) if same_reason(a, b) => {}
            (_, Some(b)) => changes.push(format!("the reason is now {:?} by {}", b.text, b.user)),
            (Some(_), None) => changes.push("the reason was cleared".to_owned()),
        }
        for r in self.reservations.difference(&last.reservations) {
            changes.push(format!("reservation {r} covers the node now"));
        }
        if !changes.is_empty() {
            changes.append(&mut by_node);
            return Some(Change::Somebody(changes.join("; ")));
        }
        (!by_node.is_empty()).then(|| Change::Node(by_node.join("; ")))
    }
}

/// What changed about a node between two reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A person or another tool changed it: the run stops and hands over (rule 4).
    Somebody(String),
    /// slurmctld noticed something about the node itself: it went silent, down, or registered with less.
    Node(String),
}

/// Compares two readings of a reason: same text, user and time. An unknown user or time is equal to nothing known,
/// but two reads that both lack it are taken as equal: the text carries our run id.
pub fn same_reason(a: &Reason, b: &Reason) -> bool {
    fn same<T: PartialEq>(a: &Known<T>, b: &Known<T>) -> bool {
        match (a, b) {
            (Known::Known(x), Known::Known(y)) => x == y,
            (Known::Unknown(_), Known::Unknown(_)) => true,
            _ => false,
        }
    }
    a.text == b.text && same(&a.user, &b.user) && same(&a.at, &b.at)
}

fn base_word(b: BaseState) -> String {
    format!("{b:?}").to_uppercase()
}

fn admin_base(b: BaseState) -> u8 {
    match b {
        BaseState::Idle | BaseState::Mixed | BaseState::Allocated => 0,
        BaseState::Down => 1,
        BaseState::Unknown => 2,
        BaseState::Future => 3,
    }
}

fn is_natural(f: NodeFlag) -> bool {
    matches!(f, NodeFlag::Completing | NodeFlag::Planned | NodeFlag::Maintenance | NodeFlag::Reserved)
}

fn flag_word(f: NodeFlag) -> String {
    serde_json::to_value(f)
        .ok()
        .and_then(|v| v.as_str().map(str::to_owned))
        .unwrap_or_else(|| format!("{f:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn mark(flags: &[NodeFlag], reason: Option<&str>) -> NodeMark {
        NodeMark {
            base: BaseState::Idle,
            flags: NodeFlags { known: flags.iter().copied().collect(), unknown: vec![] },
            reason: reason.map(|t| Reason {
                text: t.to_owned(),
                user: Known::Known("root".into()),
                at: Known::Known(Timestamp::UNIX_EPOCH),
            }),
            reservations: BTreeSet::new(),
        }
    }

    #[test]
    fn hostile_text_becomes_one_plain_line_behind_the_token() {
        let p = PlaybookRef { id: "x".into(), version: "1.0.0".parse().unwrap(), digest: Digest::of(b"") };
        let r = reason(&p, &RunId::new("r1").unwrap(), "a\nb 'state=resume' \"q\" \u{e9}");
        assert_eq!(r, "[slurmedic:x@1.0.0#r1] a b state=resume q ?");
        assert_eq!(run_of_reason(&r), Some(RunId::new("r1").unwrap()));
        assert_eq!(run_of_reason("[slurmedic:x@1] #r1"), None);
        assert_eq!(run_of_reason("maintenance #r1"), None);
    }

    #[test]
    fn work_of_the_scheduler_is_no_intervention_and_work_of_people_is() {
        let last = mark(&[NodeFlag::Drain], Some("ours"));
        let busy = NodeMark {
            base: BaseState::Mixed,
            ..mark(&[NodeFlag::Drain, NodeFlag::Completing], Some("ours"))
        };
        assert_eq!(busy.change_since(&last), None);
        let by_somebody = |m: NodeMark| matches!(m.change_since(&last), Some(Change::Somebody(_)));
        assert!(by_somebody(mark(&[], Some("ours"))));
        assert!(by_somebody(mark(&[NodeFlag::Drain], Some("theirs"))));
        assert!(by_somebody(mark(&[NodeFlag::Drain, NodeFlag::RebootRequested], Some("ours"))));
        let silent = mark(&[NodeFlag::Drain, NodeFlag::NotResponding], Some("ours"));
        assert!(matches!(silent.change_since(&last), Some(Change::Node(_))));
        let mut resaid = last.clone();
        resaid.reason.as_mut().unwrap().at = Known::Known(Timestamp::from_second(1).unwrap());
        assert!(resaid.change_since(&last).is_some());
    }
}
