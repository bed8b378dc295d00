//! Compares version numbers by their parts: `23.02` < `23.11.4`, `23.02` = `23.2.0`.
//!
//! A packaging suffix (`23.11.4-1`, `550.54+1`) does not count; a pre-release (`24.11.0-0rc1`) comes before its
//! release. Anything else behind the numbers has a meaning nobody here knows, and is not compared.

use std::cmp::Ordering;

/// The longest text taken for a version, in bytes.
const MAX_LENGTH: usize = 64;

/// A version taken apart.
struct Parts<'a> {
    /// The numbers, without trailing zeros.
    numbers: Vec<u64>,
    /// The suffix, for a pre-release.
    pre_release: Option<&'a str>,
}

/// Says whether the text is a version that can be compared.
pub(super) fn is_version(text: &str) -> bool {
    take_apart(text).is_some()
}

/// Compares two versions; none where the order cannot be told.
pub(super) fn compare(a: &str, b: &str) -> Option<Ordering> {
    let (left, right) = (take_apart(a)?, take_apart(b)?);
    let numbers = left.numbers.cmp(&right.numbers);
    if numbers != Ordering::Equal {
        return Some(numbers);
    }
    match (left.pre_release, right.pre_release) {
        (None, None) => Some(Ordering::Equal),
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (Some(x), Some(y)) => (x == y).then_some(Ordering::Equal),
    }
}

fn take_apart(text: &str) -> Option<Parts<'_>> {
    if text.len() > MAX_LENGTH {
        return None;
    }
    let mut numbers = Vec::new();
    let mut rest = text;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        numbers.push(rest[..digits].parse().ok()?);
        rest = &rest[digits..];
        match rest.strip_prefix('.') {
            Some(next) if next.starts_with(|c: char| c.is_ascii_digit()) => rest = next,
            _ => break,
        }
    }
    while numbers.len() > 1 && numbers.last() == Some(&0) {
        numbers.pop();
    }
    Some(Parts { numbers, pre_release: suffix(rest)? })
}

/// Reads what stands behind the numbers: nothing or packaging is `Some(None)`, a pre-release is itself.
#[expect(clippy::option_option, reason = "not understood, no pre-release, pre-release: three answers")]
fn suffix(rest: &str) -> Option<Option<&str>> {
    if rest.is_empty() {
        return Some(None);
    }
    if !rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+' | b'~' | b'_')) {
        return None;
    }
    let lower = rest.to_ascii_lowercase();
    if ["rc", "pre", "alpha", "beta", "dev"].iter().any(|word| lower.contains(word)) {
        return Some(Some(rest));
    }
    let packaging =
        rest.strip_prefix(['-', '+']).is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()));
    packaging.then_some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_parts() {
        use Ordering::{Equal, Greater, Less};
        for (a, b, want) in [
            ("23.02", "23.11", Some(Less)),
            ("23.2", "23.02.0", Some(Equal)),
            ("26.05.3", "23.11.11", Some(Greater)),
            ("23.02.10", "23.02.9", Some(Greater)),
            ("23.11.4-1", "23.11.4", Some(Equal)),
            ("4.5.0-1ubuntu2", "4.4.1", Some(Greater)),
            ("24.11.0-0rc1", "24.11", Some(Less)),
            ("24.11.0", "24.11.0-0pre1", Some(Greater)),
            ("24.11.0-0rc1", "24.11.0-0rc1", Some(Equal)),
            ("24.11.0-0rc1", "24.11.0-0rc2", None),
            ("24.11.0-0rc1", "24.05.9", Some(Greater)),
            ("550.54.15-server", "550.54.15", None),
            ("", "1", None),
            ("v1", "1", None),
            ("1.", "1", None),
            ("1..2", "1", None),
            ("99999999999999999999999", "1", None),
            ("1\u{661}", "1", None),
        ] {
            assert_eq!(compare(a, b), want, "{a} ~ {b}");
            assert_eq!(compare(b, a), want.map(Ordering::reverse), "{b} ~ {a}");
        }
        assert!(!is_version(&"1.".repeat(40)));
    }
}
