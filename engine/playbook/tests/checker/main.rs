//! The playbook checker: shipped playbooks hold, bad ones are refused with a shortest way, broken engines are found.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stop at the first surprise")]

mod bad;
mod limits;
mod mutants;
mod running;
mod shipped;

use engine_core::playbook::Playbook;
use engine_playbook::load;

/// The playbook that the others are made from.
const GOOD: &str = include_str!("../all/good.yaml");

/// Replaces pieces of the good playbook, each of which must be there exactly once.
fn with(changes: &[(&str, &str)]) -> String {
    let mut text = GOOD.to_owned();
    for (from, to) in changes {
        assert_eq!(text.matches(from).count(), 1, "{from:?} is not there exactly once");
        text = text.replace(from, to);
    }
    text
}

/// Loads a playbook that every static rule accepts.
fn accepted(text: &str) -> Playbook {
    let loaded = load(text.as_bytes(), "x.yaml");
    loaded.playbook.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics))
}

/// The good playbook, to be made worse than any static rule allows.
fn good() -> Playbook {
    accepted(GOOD)
}
