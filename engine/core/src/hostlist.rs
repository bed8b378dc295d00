//! Slurm hostlists: expand and fold.
//!
//! `expand` accepts what Slurm prints and what people write: `gpu[001-004,007]`, `r[1-2]n[01-16]`, lists with commas,
//! and, beyond Slurm, text behind the last bracket (`n[1-2]-ib`). It is stricter than Slurm where Slurm guesses: an
//! unclosed bracket, an empty element, `5-` or a descending range is an error. `fold` gives the form of
//! `scontrol show hostlist`; folding and expanding again gives the same names in the same order.

use std::fmt::Write as _;

/// Why a text is not a hostlist that can be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostlistError {
    /// Nothing was given, or nothing between two commas.
    #[error("an element of the node list is empty")]
    Empty,
    /// The text is longer than the limit.
    #[error("the node list has {len} bytes; at most {max} are read")]
    TooLong {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The list stands for more names than the limit.
    #[error("the node list stands for more than {max} names")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// One name would be longer than [`MAX_NAME`].
    #[error("a name in the node list is longer than {MAX_NAME} bytes")]
    NameTooLong,
    /// Brackets do not match, or stand inside each other.
    #[error("brackets of the node list do not match at byte {at}")]
    Brackets {
        /// Position in the text.
        at: usize,
    },
    /// A character that no node name has.
    #[error("the node list contains {found:?} at byte {at}")]
    BadCharacter {
        /// Position in the text.
        at: usize,
        /// The character.
        found: char,
    },
    /// What stands in brackets is not a number or an ascending range.
    #[error("{shown:?} is not a range of numbers")]
    BadRange {
        /// The range, cut to a sensible length.
        shown: String,
    },
}

/// Bounds on what is expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of the text.
    pub bytes: usize,
    /// Most names it may stand for.
    pub names: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1024 * 1024, names: 100_000 }
    }
}

/// The longest name made, in bytes.
pub const MAX_NAME: usize = 256;
/// The longest number kept apart by `fold`, in digits; it always fits an `u64`.
const MAX_DIGITS: usize = 18;
/// The most names Slurm takes in one range.
const MAX_RANGE: u64 = 64 * 1024;

/// Expands a hostlist within the default [`Limits`].
pub fn expand(text: &str) -> Result<Vec<String>, HostlistError> {
    expand_within(text, Limits::default())
}

/// Expands a hostlist within the limits.
pub fn expand_within(text: &str, limits: Limits) -> Result<Vec<String>, HostlistError> {
    if text.len() > limits.bytes {
        return Err(HostlistError::TooLong { len: text.len(), max: limits.bytes });
    }
    let mut names = Vec::new();
    let mut at = 0;
    loop {
        let (parts, end) = element(text, at)?;
        let count = parts.iter().try_fold(1u64, |n, p| n.checked_mul(p.count()));
        let room = limits.names.saturating_sub(names.len()) as u64;
        if count.is_none_or(|c| c > room) {
            return Err(HostlistError::TooMany { max: limits.names });
        }
        if parts.iter().map(Part::longest).sum::<usize>() > MAX_NAME {
            return Err(HostlistError::NameTooLong);
        }
        make(&parts, &mut String::new(), &mut names);
        if end == text.len() {
            return Ok(names);
        }
        at = end + 1;
    }
}

/// A piece of one element: plain text, or the numbers of one pair of brackets.
enum Part<'a> {
    Text(&'a str),
    Ranges(Vec<Range>),
}

/// Numbers from `from` to `to`, written with at least `width` digits.
struct Range {
    from: u64,
    to: u64,
    width: usize,
}

impl Part<'_> {
    fn count(&self) -> u64 {
        match self {
            Self::Text(_) => 1,
            // No overflow: each number has at most 18 digits, and there are at most a million of ranges.
            Self::Ranges(r) => r.iter().map(|r| r.to - r.from + 1).fold(0, u64::saturating_add),
        }
    }

    fn longest(&self) -> usize {
        match self {
            Self::Text(t) => t.len(),
            Self::Ranges(r) => r.iter().map(|r| r.width.max(MAX_DIGITS)).max().unwrap_or(0),
        }
    }
}

/// Reads one element of the list; returns its parts and the position of the comma or end behind it.
fn element(text: &str, start: usize) -> Result<(Vec<Part<'_>>, usize), HostlistError> {
    let mut parts = Vec::new();
    let mut from = start;
    let mut open = None;
    for (i, c) in text[start..].char_indices() {
        let at = start + i;
        match (c, open) {
            ('[', None) => {
                if at > from {
                    parts.push(Part::Text(&text[from..at]));
                }
                open = Some(at);
            }
            (']', Some(o)) => {
                parts.push(Part::Ranges(ranges(&text[o + 1..at])?));
                open = None;
                from = at + 1;
            }
            ('[' | ']', _) => return Err(HostlistError::Brackets { at }),
            (',', None) => return finish(text, parts, from, at),
            (c, None) if c.is_whitespace() || c.is_control() => {
                return Err(HostlistError::BadCharacter { at, found: c });
            }
            _ => {}
        }
    }
    match open {
        Some(at) => Err(HostlistError::Brackets { at }),
        None => finish(text, parts, from, text.len()),
    }
}

fn finish<'a>(
    text: &'a str,
    mut parts: Vec<Part<'a>>,
    from: usize,
    end: usize,
) -> Result<(Vec<Part<'a>>, usize), HostlistError> {
    if end > from {
        parts.push(Part::Text(&text[from..end]));
    }
    if parts.is_empty() { Err(HostlistError::Empty) } else { Ok((parts, end)) }
}

fn ranges(inner: &str) -> Result<Vec<Range>, HostlistError> {
    inner.split(',').map(range).collect()
}

fn range(text: &str) -> Result<Range, HostlistError> {
    let bad = || HostlistError::BadRange { shown: text.chars().take(40).collect() };
    let number = |s: &str| {
        let plain = !s.is_empty() && s.len() <= 64 && s.bytes().all(|b| b.is_ascii_digit());
        plain
            .then(|| s.parse::<u64>().ok().filter(|n| *n < 10u64.pow(MAX_DIGITS as u32)))
            .flatten()
            .ok_or_else(bad)
    };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let r = Range { from: number(from)?, to: number(to)?, width: from.len() };
    if r.from <= r.to { Ok(r) } else { Err(bad()) }
}

fn make(parts: &[Part<'_>], name: &mut String, out: &mut Vec<String>) {
    let Some((first, rest)) = parts.split_first() else {
        out.push(name.clone());
        return;
    };
    let len = name.len();
    match first {
        Part::Text(t) => {
            name.push_str(t);
            make(rest, name, out);
            name.truncate(len);
        }
        Part::Ranges(ranges) => {
            for r in ranges {
                for n in r.from..=r.to {
                    // Writing to a String cannot fail.
                    let _ = write!(name, "{n:0width$}", width = r.width);
                    make(rest, name, out);
                    name.truncate(len);
                }
            }
        }
    }
}

/// Folds names into one hostlist, in the order given.
///
/// Neighbours that differ only in the number at their end share brackets, as `scontrol show hostlist` does it.
pub fn fold<S: AsRef<str>>(names: &[S]) -> String {
    let mut out = String::new();
    let mut i = 0;
    while i < names.len() {
        let (prefix, _) = split(names[i].as_ref());
        let mut end = i + 1;
        while end < names.len() && has_number(names[i].as_ref()) {
            let next = names[end].as_ref();
            if !has_number(next) || split(next).0 != prefix {
                break;
            }
            end += 1;
        }
        if !out.is_empty() {
            out.push(',');
        }
        if end - i == 1 {
            out.push_str(names[i].as_ref());
        } else {
            out.push_str(prefix);
            out.push('[');
            fold_numbers(names[i..end].iter().map(|n| split(n.as_ref()).1), &mut out);
            out.push(']');
        }
        i = end;
    }
    out
}

fn fold_numbers<'a>(mut digits: impl Iterator<Item = &'a str>, out: &mut String) {
    let Some(first) = digits.next() else { return };
    let (mut from, mut to, mut length) = (first, first, 1);
    let close = |from: &str, to: &str, out: &mut String| {
        out.push_str(from);
        if from != to {
            out.push('-');
            out.push_str(to);
        }
    };
    for d in digits {
        if length < MAX_RANGE && follows(from, to, d) {
            to = d;
            length += 1;
        } else {
            close(from, to, out);
            out.push(',');
            (from, to, length) = (d, d, 1);
        }
    }
    close(from, to, out);
}

/// Says whether `next` is what a range from `first` gives after `last`.
fn follows(first: &str, last: &str, next: &str) -> bool {
    last.parse::<u64>().is_ok_and(|n| format!("{:0width$}", n + 1, width = first.len()) == next)
}

/// Splits a name into its head and the digits at its end.
fn split(name: &str) -> (&str, &str) {
    let digits = name.bytes().rev().take_while(u8::is_ascii_digit).take(MAX_DIGITS).count();
    name.split_at(name.len() - digits)
}

fn has_number(name: &str) -> bool {
    !split(name).1.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bounds_hold() {
        let small = Limits { bytes: 1000, names: 10 };
        assert_eq!(expand_within("n[1-10]", small).unwrap().len(), 10);
        assert_eq!(expand_within("n[1-10],m", small), Err(HostlistError::TooMany { max: 10 }));
        assert!(matches!(expand("n[0-999999999999999999]"), Err(HostlistError::TooMany { .. })));
        assert!(matches!(
            expand("n[0-99999][0-99999][0-99999][0-99999]"),
            Err(HostlistError::TooMany { .. })
        ));
        assert!(matches!(expand(&"n".repeat(300)), Err(HostlistError::NameTooLong)));
        assert!(matches!(expand(&format!("n[{:0300}]", 1)), Err(HostlistError::BadRange { .. })));
        assert!(matches!(expand(&"n,".repeat(1_000_000)), Err(HostlistError::TooLong { .. })));
        assert!(matches!(expand(&"[".repeat(200_000)), Err(HostlistError::Brackets { at: 1 })));
    }

    #[test]
    fn what_is_not_a_hostlist() {
        for bad in [
            "", ",", "n1,", ",n1", "n1,,n2", "n[1-3", "n1-3]", "n[]", "n[1,,2]", "n[3-1]", "n[5-]", "n[-3]",
            "n[a]", "n[1-a]", "a[[1-2]]", "n[1 -2]", "n1 n2", "n1\n", "n[+1]",
        ] {
            assert!(expand(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn text_behind_brackets() {
        assert_eq!(expand("n[1-2]-ib").unwrap(), ["n1-ib", "n2-ib"]);
        assert_eq!(expand("n[1-2],m[3-4]s").unwrap(), ["n1", "n2", "m3s", "m4s"]);
    }

    fn names() -> impl Strategy<Value = Vec<String>> {
        let one = prop_oneof![
            ("[a-c]{1,2}-?", 0u64..30, 1usize..4).prop_map(|(p, n, w)| format!("{p}{n:0w$}")),
            "[a-z0-9][a-z0-9._-]{0,30}",
            (0u64..20, 1usize..3).prop_map(|(n, w)| format!("{n:0w$}")),
        ];
        proptest::collection::vec(one, 1..60)
    }

    proptest! {
        #[test]
        fn folding_loses_nothing(names in names()) {
            let folded = fold(&names);
            prop_assert_eq!(expand(&folded).unwrap(), names, "{}", folded);
        }

        #[test]
        fn folding_twice_changes_nothing(names in names()) {
            let folded = fold(&names);
            prop_assert_eq!(fold(&expand(&folded).unwrap()), folded);
        }

        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = expand(&text);
        }

        #[test]
        fn no_near_hostlist_panics(text in "[a0-9\\[\\],-]{0,60}") {
            if let Ok(names) = expand(&text) {
                prop_assert_eq!(expand(&fold(&names)).unwrap(), names);
            }
        }
    }
}
