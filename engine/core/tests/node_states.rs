//! The classification of node states: every base with every flag against a table written by hand, its invariants,
//! and the guide page that shows the rules.

use engine_core::known::{Cause, Known};
use engine_core::model::node_state::{Gives, RULES, classify, parse_state_text, parse_state_words};
use engine_core::model::{BaseState, NodeFlag, NodeFlags, NodeState};
use proptest::prelude::*;

/// Rows: one flag alone. Columns: the base. Written by hand, not from the rules.
const TABLE: &str = "
flag             IDLE           MIXED          ALLOCATED      DOWN        UNKNOWN  FUTURE
-                IDLE           MIXED          ALLOCATED      DOWN        UNKNOWN  FUTURE
COMPLETING       COMPLETING     MIXED          ALLOCATED      DOWN        UNKNOWN  FUTURE
DRAIN            DRAINED        DRAINING       DRAINING       DOWN        UNKNOWN  FUTURE
FAIL             DRAINED        DRAINING       DRAINING       DOWN        UNKNOWN  FUTURE
NOT_RESPONDING   NOT_RESPONDING NOT_RESPONDING NOT_RESPONDING DOWN        UNKNOWN  FUTURE
MAINTENANCE      MAINT          MAINT          MAINT          DOWN        UNKNOWN  FUTURE
RESERVED         RESERVED       MIXED          ALLOCATED      DOWN        UNKNOWN  FUTURE
REBOOT_REQUESTED REBOOTING      REBOOTING      REBOOTING      REBOOTING   UNKNOWN  FUTURE
REBOOT_ISSUED    REBOOTING      REBOOTING      REBOOTING      REBOOTING   UNKNOWN  FUTURE
INVALID_REG      INVALID_REG    INVALID_REG    INVALID_REG    DOWN        UNKNOWN  FUTURE
POWER_DOWN       POWER          POWER          POWER          POWER       UNKNOWN  FUTURE
POWERING_DOWN    POWER          POWER          POWER          POWER       UNKNOWN  FUTURE
POWERED_DOWN     POWER          POWER          POWER          POWER       UNKNOWN  FUTURE
POWER_UP         POWER          POWER          POWER          POWER       UNKNOWN  FUTURE
POWERING_UP      POWER          POWER          POWER          POWER       UNKNOWN  FUTURE
POWER_DOWN_ASAP  POWER          POWER          POWER          POWER       UNKNOWN  FUTURE
POWER_DOWN_FORCE POWER          POWER          POWER          POWER       UNKNOWN  FUTURE
POWER_DRAIN      POWER          POWER          POWER          POWER       UNKNOWN  FUTURE
PLANNED          IDLE           MIXED          ALLOCATED      DOWN        UNKNOWN  FUTURE
EXTERNAL         BLOCKED        BLOCKED        BLOCKED        BLOCKED     UNKNOWN  FUTURE
BLOCKED          BLOCKED        BLOCKED        BLOCKED        DOWN        UNKNOWN  FUTURE
CLOUD            IDLE           MIXED          ALLOCATED      DOWN        UNKNOWN  FUTURE
DYNAMIC_NORM     IDLE           MIXED          ALLOCATED      DOWN        UNKNOWN  FUTURE
DYNAMIC_FUTURE   IDLE           MIXED          ALLOCATED      DOWN        UNKNOWN  FUTURE
";

/// Combinations that Slurm really shows, and the hard questions of precedence.
const COMBINATIONS: &[(&str, NodeState)] = &[
    ("IDLE+COMPLETING+DRAIN", NodeState::Draining),
    ("IDLE+DRAIN+COMPLETING", NodeState::Draining),
    ("MIXED+COMPLETING+DRAIN", NodeState::Draining),
    ("ALLOCATED+COMPLETING+FAIL", NodeState::Draining),
    ("IDLE+DRAIN+FAIL", NodeState::Drained),
    ("IDLE+DRAIN+INVALID_REG", NodeState::InvalidReg),
    ("IDLE+DRAIN+NOT_RESPONDING", NodeState::NotResponding),
    ("IDLE+INVALID_REG+NOT_RESPONDING", NodeState::NotResponding),
    ("IDLE+DRAIN+MAINTENANCE+RESERVED", NodeState::Drained),
    ("IDLE+MAINTENANCE+RESERVED", NodeState::Maint),
    ("MIXED+MAINTENANCE+RESERVED", NodeState::Maint),
    ("IDLE+COMPLETING+MAINTENANCE+RESERVED", NodeState::Maint),
    ("IDLE+COMPLETING+RESERVED", NodeState::Completing),
    ("MIXED+COMPLETING", NodeState::Mixed),
    ("MIXED+RESERVED", NodeState::Mixed),
    ("IDLE+PLANNED", NodeState::Idle),
    ("IDLE+PLANNED+DRAIN", NodeState::Drained),
    ("IDLE+CLOUD+POWERED_DOWN", NodeState::Power),
    ("DOWN+CLOUD+POWERED_DOWN", NodeState::Power),
    ("IDLE+NOT_RESPONDING+POWERING_UP", NodeState::Power),
    ("DOWN+DRAIN", NodeState::Down),
    ("DOWN+DRAIN+NOT_RESPONDING", NodeState::Down),
    ("DOWN+DRAIN+INVALID_REG", NodeState::Down),
    ("DOWN+DRAIN+REBOOT_ISSUED", NodeState::Rebooting),
    ("DOWN+REBOOT_ISSUED", NodeState::Rebooting),
    ("IDLE+REBOOT_ISSUED", NodeState::Rebooting),
    ("MIXED+DRAIN+REBOOT_REQUESTED", NodeState::Rebooting),
    ("IDLE+DRAIN+REBOOT_REQUESTED+POWERED_DOWN", NodeState::Rebooting),
    ("MIXED+BLOCKED+DRAIN", NodeState::Draining),
    ("IDLE+EXTERNAL+DRAIN", NodeState::Blocked),
    ("idle+drain", NodeState::Drained),
    ("IDLE*", NodeState::Unknown),
    ("IDLE+DRAIN*", NodeState::Unknown),
    ("IDLE+", NodeState::Unknown),
    ("IDLE+DRAIN+SOMETHING_NEW", NodeState::Unknown),
    ("ERROR", NodeState::Unknown),
    ("INVALID", NodeState::Unknown),
    ("DRAIN", NodeState::Unknown),
    ("IDLE+DOWN", NodeState::Unknown),
    ("", NodeState::Unknown),
    (" IDLE", NodeState::Unknown),
    ("IDLE DRAIN", NodeState::Unknown),
];

fn flags(list: &[NodeFlag]) -> NodeFlags {
    NodeFlags { known: list.iter().copied().collect(), unknown: Vec::new() }
}

fn state(base: BaseState, list: &[NodeFlag]) -> NodeState {
    classify(&Known::Known(base), &flags(list))
}

#[test]
fn every_base_with_every_flag_is_as_the_table_says() {
    let mut lines = TABLE.lines().filter(|l| !l.is_empty());
    let bases: Vec<BaseState> =
        lines.next().unwrap().split_whitespace().skip(1).map(|w| BaseState::from_word(w).unwrap()).collect();
    assert_eq!(bases.len(), BaseState::ALL.len());
    let mut rows = 0;
    for line in lines {
        let mut words = line.split_whitespace();
        let flag = words.next().unwrap();
        let set: Vec<NodeFlag> = if flag == "-" { vec![] } else { vec![NodeFlag::from_word(flag).unwrap()] };
        for base in &bases {
            let want = NodeState::from_word(words.next().unwrap()).unwrap();
            assert_eq!(state(*base, &set), want, "{base}+{flag}");
        }
        rows += 1;
    }
    assert_eq!(rows, NodeFlag::ALL.len() + 1, "a flag is missing in the table");
}

#[test]
fn combinations_that_slurm_shows() {
    for (text, want) in COMBINATIONS {
        let (base, flags) = parse_state_text(text);
        assert_eq!(classify(&base, &flags), *want, "{text}");
    }
}

#[test]
fn words_come_as_text_list_or_base_and_flags_alike() {
    let text = parse_state_text("IDLE+DRAIN+NOT_RESPONDING");
    assert_eq!(parse_state_words(["IDLE", "DRAIN", "NOT_RESPONDING"]), text);
    assert_eq!(parse_state_words(["idle", "NOT_RESPONDING", "DRAIN"]), text);
    let (base, flags) = parse_state_text("IDLE+DOWN");
    assert!(matches!(base, Known::Unknown(u) if u.cause == Cause::Conflicting));
    assert!(flags.unknown.is_empty());
    let (base, _) = parse_state_text("ERROR+DRAIN");
    assert!(matches!(base, Known::Unknown(u) if u.cause == Cause::UnrecognisedWord));
}

#[test]
fn hostile_words_are_kept_short_and_few() {
    let long = "\u{e9}".repeat(10_000);
    let (_, flags) = parse_state_words(std::iter::repeat_n(long.as_str(), 1000));
    assert!(flags.unknown.len() <= 32 && flags.unknown.iter().all(|w| w.len() <= 64));
}

#[test]
fn pairs_of_flags_hold_the_invariants() {
    for base in BaseState::ALL {
        for a in NodeFlag::ALL {
            for b in NodeFlag::ALL {
                let s = state(*base, &[*a, *b]);
                assert_eq!(s, state(*base, &[*b, *a]));
                let drained = [a, b].iter().any(|f| matches!(f, NodeFlag::Drain | NodeFlag::Fail));
                assert!(!(drained && s.accepts_jobs()), "{base}+{a}+{b} gives {s}");
                for ignored in
                    [NodeFlag::Planned, NodeFlag::Cloud, NodeFlag::DynamicNorm, NodeFlag::DynamicFuture]
                {
                    assert_eq!(state(*base, &[*a, *b, ignored]), s, "{base}+{a}+{b}+{ignored}");
                }
            }
        }
    }
}

fn any_flags() -> impl Strategy<Value = Vec<NodeFlag>> {
    proptest::sample::subsequence(NodeFlag::ALL.to_vec(), 0..=NodeFlag::ALL.len())
}

proptest! {
    #[test]
    fn an_unknown_word_always_gives_unknown(base in proptest::sample::select(BaseState::ALL), set in any_flags(), word in "[A-Z_]{1,20}") {
        prop_assume!(NodeFlag::from_word(&word).is_none() && BaseState::from_word(&word).is_none());
        let mut f = flags(&set);
        f.add_word(&word);
        prop_assert_eq!(classify(&Known::Known(base), &f), NodeState::Unknown);
    }

    #[test]
    fn a_drain_is_never_open_for_jobs(base in proptest::sample::select(BaseState::ALL), set in any_flags()) {
        for drain in [NodeFlag::Drain, NodeFlag::Fail, NodeFlag::NotResponding, NodeFlag::Maintenance] {
            let mut with = set.clone();
            with.push(drain);
            prop_assert!(!state(base, &with).accepts_jobs());
        }
    }

    #[test]
    fn an_unknown_base_gives_unknown(set in any_flags()) {
        let s = classify(&Known::unknown(Cause::Unparsable, ""), &flags(&set));
        prop_assert_eq!(s, NodeState::Unknown);
    }

    #[test]
    fn printed_words_come_back(base in proptest::sample::select(BaseState::ALL), set in any_flags()) {
        let mut text = base.to_string();
        for f in &set {
            text = format!("{text}+{f}");
        }
        prop_assert_eq!(parse_state_text(&text), (Known::Known(base), flags(&set)));
    }

    #[test]
    fn no_text_panics(text in ".*") {
        let (base, flags) = parse_state_text(&text);
        classify(&base, &flags);
    }
}

/// The tables of the guide page, from the rules.
fn guide_tables() -> String {
    let mut out = String::from("| # | when | node.state | why |\n|---|---|---|---|\n");
    for (i, r) in RULES.iter().enumerate() {
        let gives = match r.gives {
            Gives::State(s) => s.as_str(),
            Gives::Base => "as the base",
        };
        out.push_str(&format!("| {} | {} | {gives} | {} |\n", i + 1, r.when, r.why));
    }
    out.push_str("\nOne flag alone on each base:\n\n| flag |");
    for b in BaseState::ALL {
        out.push_str(&format!(" {b} |"));
    }
    out.push_str("\n|---|---|---|---|---|---|---|\n");
    let rows = std::iter::once(None).chain(NodeFlag::ALL.iter().copied().map(Some));
    for flag in rows {
        out.push_str(&format!("| {} |", flag.map_or("(none)", NodeFlag::as_str)));
        for b in BaseState::ALL {
            let set: Vec<NodeFlag> = flag.into_iter().collect();
            out.push_str(&format!(" {} |", state(*b, &set)));
        }
        out.push('\n');
    }
    out.push_str("\nCombinations:\n\n| State= | node.state |\n|---|---|\n");
    for (text, s) in COMBINATIONS.iter().filter(|(t, _)| t.starts_with(|c: char| c.is_ascii_uppercase())) {
        out.push_str(&format!("| `{text}` | {s} |\n"));
    }
    out
}

#[test]
fn the_guide_shows_these_rules() {
    let guide = include_str!("../../../docs/guide/node-states.md");
    let want = guide_tables();
    assert!(guide.contains(&want), "docs/guide/node-states.md must contain exactly these tables:\n\n{want}");
}
