//! The free text at the end of a node record: reason, comment, extra.
//!
//! slurmctld prints the first line of a reason with ` [user@time]` behind it, further lines after it with a fixed
//! indent, then comment, extra and a few more in a fixed order. In the one-line form a text can imitate all of this;
//! where it can be read in two ways, the fields are unknown. JSON output has no such doubt.

use super::{TextContext, civil_time};
use engine_core::known::{Cause, Known};
use engine_core::model::Reason;

/// The keys of the tail in the order of printing.
pub(crate) const KEYS: &[&str] = &[
    "Reason=",
    "Comment=",
    "Extra=",
    "InstanceId=",
    "InstanceType=",
    "ReservationName=",
    "TLSCertTokenSet=",
    "TLSCertLastRenewal=",
    "Topology=",
    "Parameters=",
];

/// The fields of the tail.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub reason: Known<Option<Reason>>,
    pub comment: Known<Option<String>>,
    pub extra: Known<Option<String>>,
    /// Name of the reservation, if one was printed.
    pub reservation: Known<Option<String>>,
}

impl Tail {
    /// A record without tail.
    pub(crate) fn none() -> Self {
        Self {
            reason: Known::Known(None),
            comment: Known::Known(None),
            extra: Known::Known(None),
            reservation: Known::Known(None),
        }
    }
}

/// Reads the tail of a record; `text` begins with one of [`KEYS`].
pub(crate) fn parse(text: &str, multi_line: bool, ctx: &TextContext) -> Tail {
    let marks = marks(text, multi_line);
    let (reason, rest) = match marks.first() {
        Some((0, 0)) => reason(text, &marks, multi_line, ctx),
        _ => (Known::Known(None), 0),
    };
    let mut tail = Tail { reason, ..Tail::none() };
    let marks: Vec<_> = marks.into_iter().filter(|(at, _)| *at >= rest).collect();
    let in_order = marks.windows(2).all(|w| w[0].1 < w[1].1);
    if !in_order || !tail.reason.is_known() {
        let unclear = || {
            Known::unknown(
                Cause::Conflicting,
                "free text of this node can be read in two ways; JSON output has no such doubt",
            )
        };
        tail.comment = unclear();
        tail.extra = unclear();
        tail.reservation = unclear();
        return tail;
    }
    for (i, (at, key)) in marks.iter().enumerate() {
        let from = at + KEYS[*key].len();
        let to = marks.get(i + 1).map_or(text.len(), |(next, _)| next - separator(multi_line).len());
        let value = text.get(from..to).unwrap_or_default();
        let value = (!value.is_empty()).then(|| value.to_owned());
        match *key {
            1 => tail.comment = Known::Known(value),
            2 => tail.extra = Known::Known(value),
            5 => tail.reservation = Known::Known(value.map(|v| v.trim().to_owned())),
            _ => {}
        }
    }
    tail
}

fn separator(multi_line: bool) -> &'static str {
    if multi_line { "\n   " } else { " " }
}

fn continuation(multi_line: bool) -> &'static str {
    if multi_line { "\n          " } else { "        " }
}

/// Finds where keys of the tail begin, the one at position 0 included: (position, index of the key).
fn marks(text: &str, multi_line: bool) -> Vec<(usize, usize)> {
    let key_at = |at: usize| KEYS.iter().position(|k| text[at..].starts_with(k));
    let sep = separator(multi_line);
    let mut found = Vec::new();
    found.extend(key_at(0).map(|k| (0, k)));
    for (at, _) in text.match_indices(sep) {
        let at = at + sep.len();
        if let Some(k) = key_at(at) {
            found.push((at, k));
            if found.len() > 64 {
                break;
            }
        }
    }
    found
}

/// Reads the reason and says where the rest of the tail begins.
fn reason(
    text: &str,
    marks: &[(usize, usize)],
    multi_line: bool,
    ctx: &TextContext,
) -> (Known<Option<Reason>>, usize) {
    let start = KEYS[0].len();
    let next_mark = |from: usize| marks.iter().find(|(at, _)| *at > from && *at > 0).map(|(at, _)| *at);
    let sep = separator(multi_line).len();
    let cont = continuation(multi_line);
    let unclear = |detail: &str| (Known::unknown(Cause::Conflicting, detail), text.len());

    // Ends of ` [user@time]` behind which the reason may end or go on with another line.
    let first_line_end = if multi_line { text.find('\n').unwrap_or(text.len()) } else { text.len() };
    let mut ends: Vec<(usize, usize, &str, &str)> = Vec::new();
    for (open, _) in text[..first_line_end].match_indices(" [") {
        let Some((end, user, time)) = signature(text, open) else { continue };
        let closes = if multi_line {
            end == first_line_end
        } else {
            end == text.len() || next_mark(end) == Some(end + sep) || text[end..].starts_with(cont)
        };
        if open >= start && closes {
            ends.push((open, end, user, time));
        }
        if ends.len() > 1 {
            break;
        }
    }
    match ends[..] {
        [] => {
            let end = next_mark(0).map_or(text.len(), |at| at - sep);
            if end < text.len() && !multi_line {
                return unclear(
                    "the reason has no user and time, and its end cannot be told from what follows",
                );
            }
            let none = || Cause::NotReported;
            let reason = Reason {
                text: unfold(&text[start..end.max(start)], cont),
                user: Known::unknown(none(), "no user was printed"),
                at: Known::unknown(none(), "no time was printed"),
            };
            (Known::Known(Some(reason)), end)
        }
        [(open, end, user, time)] => {
            let stop = next_mark(end).map_or(text.len(), |at| at - sep);
            let more = &text[end..stop.max(end)];
            if !multi_line && !more.is_empty() && stop < text.len() {
                return unclear(
                    "a reason of several lines is followed by other fields; its end cannot be told in one-line output",
                );
            }
            let reason = Reason {
                text: format!("{}{}", &text[start..open.max(start)], unfold(more, cont)),
                user: Known::Known(user.to_owned()),
                at: ctx.time(time).and_then(|t| match t {
                    Some(t) => Known::Known(t),
                    None => Known::unknown(Cause::NotReported, ""),
                }),
            };
            (Known::Known(Some(reason)), stop)
        }
        _ => unclear("the reason holds what looks like a second user and time"),
    }
}

fn unfold(text: &str, continuation: &str) -> String {
    text.replace(continuation, "\n")
}

/// Reads ` [user@time]` at `open`; returns its end, the user and the time.
fn signature(text: &str, open: usize) -> Option<(usize, &str, &str)> {
    let inner = text.get(open + 2..)?;
    let close = inner.bytes().take(300).position(|b| b == b']')?;
    let (user, time) = inner[..close].rsplit_once('@')?;
    let plain = !user.is_empty() && !user.contains([' ', '\n']);
    (plain && civil_time(time).is_some()).then_some((open + 2 + close + 1, user, time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Tail {
        parse(text, false, &TextContext::utc())
    }

    fn reason_of(t: &Tail) -> (&str, &str) {
        let r = t.reason.known().unwrap().as_ref().unwrap();
        (&r.text, r.user.known().map_or("?", String::as_str))
    }

    #[test]
    fn a_reason_may_hold_anything() {
        for text in [
            "gpu: Xid 63",
            "x State=RESUME",
            "k=v, [bracket] \"quote | pipe",
            "see [bob@2026-01-01T00:00:00] first",
            "a  b",
            "",
        ] {
            let t = one(&format!("Reason={text} [root@2026-11-21T01:13:52]"));
            assert_eq!(reason_of(&t), (text, "root"));
            let t = one(&format!(
                "Reason={text} [a@b@2026-11-21T01:13:52] Comment=ticket OPS-1 Extra={{\"a\":1}} InstanceId=i-1 ReservationName=fw"
            ));
            assert_eq!(reason_of(&t), (text, "a@b"));
            assert_eq!(t.comment, Known::Known(Some("ticket OPS-1".into())));
            assert_eq!(t.extra, Known::Known(Some("{\"a\":1}".into())));
            assert_eq!(t.reservation, Known::Known(Some("fw".into())));
        }
    }

    #[test]
    fn lines_of_a_reason_come_back() {
        let t = one("Reason=two [root@2026-11-21T01:28:41]        lines\tand \u{e9}");
        assert_eq!(reason_of(&t), ("two\nlines\tand \u{e9}", "root"));
        let t = parse(
            "Reason=two [root@2026-11-21T01:28:41]\n          lines\tand \u{e9}\n   Comment=c",
            true,
            &TextContext::utc(),
        );
        assert_eq!(reason_of(&t), ("two\nlines\tand \u{e9}", "root"));
        assert_eq!(t.comment, Known::Known(Some("c".into())));
    }

    #[test]
    fn a_text_that_can_be_read_in_two_ways_is_unknown() {
        for text in [
            // a reason that imitates its own end, or a comment that imitates a reason
            "Reason=a [root@2026-11-21T01:13:52] Comment=x [bob@2026-11-21T01:13:53]",
            "Reason=a [root@2026-11-21T01:13:52]        b [bob@2026-11-21T01:13:53]",
            // a reason of several lines with something behind it
            "Reason=a [root@2026-11-21T01:13:52]        b Comment=c",
            "Reason=a Comment=b",
        ] {
            let t = one(text);
            assert!(!t.reason.is_known() && !t.comment.is_known(), "{text}");
        }
        for text in ["Comment=a Comment=b", "Extra=a Comment=b"] {
            let t = one(text);
            assert_eq!(t.reason, Known::Known(None));
            assert!(!t.comment.is_known() && !t.extra.is_known(), "{text}");
        }
    }

    #[test]
    fn without_user_and_time() {
        let t = one("Reason=Not responding");
        assert_eq!(reason_of(&t), ("Not responding", "?"));
        assert_eq!(one("Comment=x Reason=y").reason, Known::Known(None));
    }
}
