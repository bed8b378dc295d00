//! Tests of the playbook crate against whole documents, in one program.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stop at the first surprise")]

mod documents;
mod formatting;
mod hostile;
mod knowledge;
mod libraries;
mod policies;
mod rendered;
mod shipped;
mod situations;

/// A playbook that loads without any diagnostic.
const GOOD: &str = include_str!("good.yaml");

/// Replaces one piece of the good playbook, which must be there exactly once.
fn with(from: &str, to: &str) -> String {
    assert_eq!(GOOD.matches(from).count(), 1, "{from:?} is not there exactly once");
    GOOD.replace(from, to)
}
