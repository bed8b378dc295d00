//! Ownership: what counts as somebody else's change, whose a drain is, and the reason as one safe line.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is a failed test")]

use engine_core::digest::Digest;
use engine_core::known::{Cause, Known};
use engine_core::model::{BaseState, Node, NodeFlag, NodeFlags, NodeName, NodeState, Reason, RunId};
use engine_core::ownership::{Change, MAX_REASON_TEXT, NodeMark, reason, run_of_reason};
use engine_core::playbook::PlaybookRef;
use jiff::Timestamp;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn text(text: &str, user: Known<&str>, second: Known<i64>) -> Reason {
    Reason {
        text: text.to_owned(),
        user: user.map(str::to_owned),
        at: second.map(|s| Timestamp::from_second(s).unwrap()),
    }
}

fn ours() -> Reason {
    text("[slurmedic:p@1.0.0#r1] ECC", Known::Known("slurm"), Known::Known(7))
}

/// The node as our drain left it.
fn last() -> NodeMark {
    NodeMark {
        base: BaseState::Idle,
        flags: NodeFlags { known: BTreeSet::from([NodeFlag::Drain]), unknown: Vec::new() },
        reason: Some(ours()),
        reservations: BTreeSet::from(["weekly".to_owned()]),
    }
}

#[derive(Debug, PartialEq)]
enum Who {
    Nobody,
    Somebody,
    Node,
}

fn who(change: impl Fn(&mut NodeMark)) -> Who {
    let mut now = last();
    change(&mut now);
    match now.change_since(&last()) {
        None => Who::Nobody,
        Some(Change::Somebody(_)) => Who::Somebody,
        Some(Change::Node(_)) => Who::Node,
    }
}

fn unknown<T>() -> Known<T> {
    Known::unknown(Cause::NotReported, "")
}

/// A slurmctld that was started a moment ago calls a node UNKNOWN until its slurmd registers. That is no change of the
/// node's: nothing is known of it, and whoever asks waits.
#[test]
fn a_node_that_slurmctld_has_not_heard_of_has_no_mark() {
    let mut node = Node {
        name: NodeName::new("gpu001").unwrap(),
        base: Known::Known(BaseState::Unknown),
        flags: NodeFlags::default(),
        state: NodeState::Unknown,
        reason: Known::Known(None),
        partitions: unknown(),
        features: unknown(),
        gres: unknown(),
        gpus_configured: unknown(),
        gpus_allocated: unknown(),
        cpus: unknown(),
        cpus_allocated: unknown(),
        memory_mib: unknown(),
        boot_time: unknown(),
        slurmd_start_time: unknown(),
        slurmd_version: unknown(),
        comment: unknown(),
        extra: unknown(),
        reservation: unknown(),
    };
    let mark = |node: &Node| NodeMark::of(node, &[], Timestamp::UNIX_EPOCH);
    assert!(matches!(mark(&node), Known::Unknown(u) if u.detail.contains("has not heard of gpu001")));
    node.base = Known::Known(BaseState::Idle);
    assert!(mark(&node).is_known());
}

/// Rule 4, row by row: work of the scheduler is nobody's change, what slurmctld notices is the node's, everything
/// else is somebody's, a changed reason, user or time alone included; a mix counts as somebody's.
#[test]
fn every_change_has_its_author() {
    assert_eq!(who(|_| ()), Who::Nobody);
    for base in [BaseState::Mixed, BaseState::Allocated, BaseState::Idle] {
        assert_eq!(who(|m| m.base = base), Who::Nobody, "{base}");
    }
    for base in [BaseState::Down, BaseState::Unknown, BaseState::Future] {
        assert_eq!(who(|m| m.base = base), Who::Node, "{base}");
    }
    for flag in NodeFlag::ALL.iter().copied().filter(|f| *f != NodeFlag::Drain) {
        let want = match flag {
            NodeFlag::Completing | NodeFlag::Planned | NodeFlag::Maintenance | NodeFlag::Reserved => {
                Who::Nobody
            }
            NodeFlag::NotResponding | NodeFlag::InvalidReg => Who::Node,
            _ => Who::Somebody,
        };
        assert_eq!(who(|m| m.flags.known.extend([flag])), want, "{flag} set");
    }
    assert_eq!(who(|m| m.flags.known.clear()), Who::Somebody);
    assert_eq!(
        who(|m| m.flags.unknown.push("HAUNTED".to_owned())),
        Who::Somebody,
        "a flag nobody here knows"
    );
    assert_eq!(who(|m| m.reason = None), Who::Somebody);
    let rows = [
        ("[slurmedic:p@1.0.0#r1] ECC ", Known::Known("slurm"), Known::Known(7)),
        ("[slurmedic:p@1.0.0#r2] ECC", Known::Known("slurm"), Known::Known(7)),
        ("", Known::Known("slurm"), Known::Known(7)),
        ("[slurmedic:p@1.0.0#r1] ECC", Known::Known("root"), Known::Known(7)),
        ("[slurmedic:p@1.0.0#r1] ECC", unknown(), Known::Known(7)),
        ("[slurmedic:p@1.0.0#r1] ECC", Known::Known("slurm"), Known::Known(8)),
        ("[slurmedic:p@1.0.0#r1] ECC", Known::Known("slurm"), unknown()),
    ];
    for (t, user, at) in rows {
        let r = text(t, user, at);
        assert!(!last().is_our_drain(&r), "{r:?}");
        assert_eq!(who(|m| m.reason = Some(r.clone())), Who::Somebody, "{r:?}");
    }
    assert_eq!(who(|m| m.reservations.extend(["other".to_owned()])), Who::Somebody);
    assert_eq!(who(|m| m.reservations.clear()), Who::Nobody, "a reservation that ended");
    let both = |m: &mut NodeMark| {
        m.base = BaseState::Down;
        m.reason = None;
    };
    assert_eq!(who(both), Who::Somebody);
}

/// Only DRAIN with exactly our reason is our drain: not FAIL, not a reason without DRAIN.
#[test]
fn a_drain_is_ours_only_with_our_reason_and_without_fail() {
    assert!(last().is_our_drain(&ours()));
    let mut m = last();
    m.flags.known.insert(NodeFlag::Fail);
    assert!(m.is_drained() && !m.is_our_drain(&ours()));
    m.flags.known = BTreeSet::new();
    assert!(!m.is_drained() && !m.is_our_drain(&ours()));
}

fn playbook() -> PlaybookRef {
    PlaybookRef {
        id: "dcgm-ecc-drain-reset".to_owned(),
        version: "1.2.0".parse().unwrap(),
        digest: Digest::of(b"x"),
    }
}

/// A token that is not ours, or names no run that could exist, names none.
#[test]
fn only_a_whole_token_names_a_run() {
    for none in [
        "",
        "maintenance",
        "slurmedic:p@1#r1",
        " [slurmedic:p@1#r1] x",
        "[slurmedic:p@1#r1",
        "[slurmedic:p@1] #r1]",
        "[slurmedic:p@1#] x",
        "[slurmedic:p@1#a b] x",
        "[SLURMEDIC:p@1#r1] x",
        "[slurmedic:p@1#r1;reboot] x",
    ] {
        assert_eq!(run_of_reason(none), None, "{none:?}");
    }
}

proptest! {
    /// Rule 15: whatever the text and the run, the reason is one line of printable ASCII, without quotes and
    /// backslashes, of bounded length, and the run can be read out of it again.
    #[test]
    fn any_text_becomes_one_safe_line(
        text in prop_oneof![any::<String>(), "[\\x00-\\xff]{0,400}", "(\\]|#|\\[slurmedic:|'|\"|\n| ){0,60}"],
        run in "[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
    ) {
        let (p, run) = (playbook(), RunId::new(&run).unwrap());
        let line = reason(&p, &run, &text);
        prop_assert!(line.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{line:?}");
        prop_assert!(!line.contains(['\'', '"', '`', '\\']), "{line:?}");
        prop_assert!(line.len() <= "[slurmedic:dcgm-ecc-drain-reset@1.2.0#] ".len() + 64 + MAX_REASON_TEXT);
        prop_assert_eq!(line.trim(), &line);
        prop_assert_eq!(run_of_reason(&line), Some(run.clone()));
        prop_assert_eq!(reason(&p, &run, &text), line.clone(), "the same text, the same reason");
    }

    /// A reason from outside never makes the reader panic.
    #[test]
    fn any_reason_is_read_without_a_panic(text in any::<String>(), tail in "\\[slurmedic:.{0,80}") {
        let _ = (run_of_reason(&text), run_of_reason(&tail));
    }
}
