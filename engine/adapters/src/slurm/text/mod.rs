//! Text output: `scontrol show …` in its one-line and multi-line forms, `squeue`, `scontrol ping`.
//!
//! Records are found by their first key at the start of a line, fields by whole keys, so that `NextState=RESUME` is
//! never taken for `State=`. A key that appears twice, which only free text of users or administrators can bring
//! about, makes that field unknown instead of choosing one.
//!
//! Times in text are local to the process that printed them and carry no zone: run the commands with `TZ=UTC0` and
//! parse with [`TextContext::utc`], or name the zone of the machine the text comes from.

mod fields;
mod jobs;
mod nodes;
mod others;
mod pending;
mod squeue;
mod tail;

pub use jobs::parse_jobs;
pub(crate) use nodes::no_name_twice;
pub use nodes::parse_nodes;
pub use others::{parse_partitions, parse_ping, parse_reservations, parse_version};
pub use pending::{PENDING_ARGS, PENDING_FORMAT, PENDING_HEADER, parse_pending};
pub use squeue::{SQUEUE_ARGS, SQUEUE_FORMAT, SQUEUE_HEADER, parse_squeue};

use super::answer::{MAX_INPUT, ParseError, shorten};
use super::gres::cut;
use engine_core::hostlist;
use engine_core::known::{Cause, Known};
use engine_core::model::NodeName;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// What a text does not say about itself.
#[derive(Debug, Clone)]
pub struct TextContext {
    /// The zone of the times in it.
    pub tz: TimeZone,
}

impl TextContext {
    /// Times are UTC: the command ran with `TZ=UTC0`.
    pub fn utc() -> Self {
        Self { tz: TimeZone::UTC }
    }

    /// Reads a time such as `2026-11-21T01:13:52`; `None`, `Unknown`, `N/A` and nothing mean that there is none.
    pub(crate) fn time(&self, text: &str) -> Known<Option<Timestamp>> {
        if matches!(text, "" | "None" | "Unknown" | "N/A" | "(null)") {
            return Known::Known(None);
        }
        let Some(civil) = civil_time(text) else {
            return Known::unknown(Cause::Unparsable, format!("not a time: {:?}", shorten(text, 40)));
        };
        match self.tz.to_ambiguous_timestamp(civil).unambiguous() {
            Ok(t) => Known::Known(Some(t)),
            Err(_) => Known::unknown(
                Cause::Conflicting,
                format!("{text} came twice or never in this zone; read with TZ=UTC0"),
            ),
        }
    }
}

/// Reads exactly `YYYY-MM-DDTHH:MM:SS`.
pub(crate) fn civil_time(text: &str) -> Option<DateTime> {
    const DIGITS: [usize; 14] = [0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18];
    let b: &[u8; 19] = text.as_bytes().try_into().ok()?;
    let plain = DIGITS.iter().fold(true, |all, i| all & b[*i].is_ascii_digit());
    if !plain || [b[4], b[7], b[10], b[13], b[16]] != *b"--T::" {
        return None;
    }
    let two = |at: usize| ((b[at] - b'0') * 10 + (b[at + 1] - b'0')).cast_signed();
    DateTime::new(i16::from(two(0)) * 100 + i16::from(two(2)), two(5), two(8), two(11), two(14), two(17), 0)
        .ok()
}

/// Reads a hostlist field; nothing and `(null)` are no nodes.
pub(crate) fn node_list(text: &str) -> Known<Vec<NodeName>> {
    if matches!(text, "" | "(null)" | "None assigned" | "N/A") {
        return Known::Known(Vec::new());
    }
    let names = match hostlist::expand(text) {
        Ok(n) => n,
        Err(e) => {
            return Known::unknown(Cause::Unparsable, format!("node list {:?}: {e}", shorten(text, 80)));
        }
    };
    let mut nodes = Vec::with_capacity(names.len());
    for name in names {
        match NodeName::new(&name) {
            Ok(n) => nodes.push(n),
            Err(e) => return Known::unknown(Cause::Unparsable, e.to_string()),
        }
    }
    Known::Known(nodes)
}

/// The most node names taken from one output, all its records together.
const MAX_NAMES: usize = 2_000_000;

/// Refuses an output whose node lists stand for more names than [`MAX_NAMES`].
///
/// One short line may stand for 100,000 names, so the size of the text alone is no bound.
#[derive(Debug, Default)]
pub(crate) struct NameBudget {
    used: usize,
}

impl NameBudget {
    pub(crate) fn spend(
        &mut self,
        nodes: &Known<Vec<NodeName>>,
        what: &'static str,
    ) -> Result<(), ParseError> {
        self.used += nodes.known().map_or(0, Vec::len);
        if self.used > MAX_NAMES {
            let problem = format!("its node lists stand for more than {MAX_NAMES} names");
            return Err(ParseError::malformed(what, 0, problem));
        }
        Ok(())
    }
}

/// Reads a comma list; nothing and `(null)` are an empty list.
pub(crate) fn comma_list(text: &str) -> Vec<String> {
    if matches!(text, "" | "(null)") {
        return Vec::new();
    }
    let mut list = Vec::with_capacity(1 + text.bytes().filter(|b| *b == b',').count());
    let mut rest = Some(text);
    while let Some(words) = rest {
        let (word, next) = cut(words, b',');
        list.push(word.to_owned());
        rest = next;
    }
    list
}

/// Reads a text field in which `(null)`, `N/A` and nothing mean that there is none.
pub(crate) fn optional(text: &str) -> Option<String> {
    (!matches!(text, "" | "(null)" | "N/A" | "None")).then(|| text.to_owned())
}

/// One record of `scontrol show …`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    /// Line of its start, counted from 1.
    pub line: usize,
    /// From its first key to before the next record, without trailing line ends.
    pub text: &'a str,
    /// Whether it is in the multi-line form, whose lines are indented by three blanks.
    pub multi_line: bool,
}

/// Splits the output of `scontrol show …` into records that begin with `key` (which includes the `=`).
///
/// A line that reports a failure, even after good records, makes the whole read fail: with a list of names
/// `scontrol` prints what it found and `Node x not found`, and exits 0.
pub(crate) fn records<'a>(
    text: &'a str,
    what: &'static str,
    key: &'static str,
    none: &str,
) -> Result<Vec<Record<'a>>, ParseError> {
    if text.len() > MAX_INPUT {
        return Err(ParseError::TooLarge { len: text.len() });
    }
    // A record has at least some hundred bytes.
    let mut found: Vec<Record<'a>> = Vec::with_capacity(text.len() / 256 + 1);
    // Begin and line of the current record, and whether it is in the multi-line form.
    let mut current: Option<(usize, usize, bool)> = None;
    let mut said_none = false;
    let mut close = |current: Option<(usize, usize, bool)>, end: usize| {
        if let Some((start, line, multi_line)) = current {
            found.push(Record { line, text: text[start..end].trim_end_matches(['\n', '\r']), multi_line });
        }
    };
    let (mut at, mut line, mut first_end) = (0, 0, 0);
    while at < text.len() {
        line += 1;
        let end = end_of_line(text.as_bytes(), at);
        let this = &text[at..end];
        if this.starts_with(key) {
            close(current, at);
            current = Some((at, line, false));
            first_end = end;
        } else if this.starts_with("   ") {
            if let Some((start, begin, multi_line)) = &mut current {
                // A one-line record has its state in its first line; its further lines are free text.
                *multi_line |= *begin + 1 == line && !text[*start..first_end].contains(" State=");
            }
        } else if !this.trim().is_empty() {
            if let Some(message) = failure(this) {
                return Err(ParseError::failed(what, message));
            }
            if current.is_none() {
                if this.trim_end() != none {
                    let problem = format!("expected `{key}…`, found {:?}", shorten(this, 80));
                    return Err(ParseError::malformed(what, line, problem));
                }
                said_none = true;
            }
        }
        at = end + 1;
    }
    close(current, text.len());
    if found.is_empty() && !said_none {
        return Err(ParseError::Empty { what });
    }
    Ok(found)
}

/// Finds the line end at or after `from`, or the end of the text.
fn end_of_line(text: &[u8], from: usize) -> usize {
    // Blocks without early exit become vector instructions.
    let (blocks, rest) = text[from..].as_chunks::<32>();
    let full =
        blocks.iter().position(|b| b.iter().fold(0, |found, byte| found | u8::from(*byte == b'\n')) != 0);
    let (start, tail) = match full {
        Some(i) => (from + i * 32, &blocks[i][..]),
        None => (text.len() - rest.len(), rest),
    };
    tail.iter().position(|b| *b == b'\n').map_or(text.len(), |i| start + i)
}

/// Tools of Slurm that put their name before an error.
const TOOLS: &[&str] =
    &["scontrol", "squeue", "sinfo", "scancel", "sacct", "slurmrestd", "strigger", "sbatch", "srun"];

/// Recognises a line by which a Slurm tool or slurmrestd says that it failed.
pub fn failure(line: &str) -> Option<&str> {
    let line = line.trim();
    if line.len() > 4096 {
        return None;
    }
    let head = line.split([' ', ':']).next().unwrap_or_default();
    let by_tool = TOOLS.contains(&head)
        && ["error:", "fatal:", "unrecognized option", "invalid option"].iter().any(|w| line.contains(w));
    let by_call =
        (head.starts_with("slurm_") || head.starts_with("scontrol_") || head == "delete_reservation")
            && line.contains(':');
    let not_found = ["Node ", "Reservation ", "Partition ", "Job "].iter().any(|w| line.starts_with(w))
        && line.ends_with(" not found");
    let by_phrase = [
        "Unable to contact slurm controller",
        "Invalid job id specified",
        "Access/permission denied",
        "Unexpected message received",
        "Requested operation is presently disabled",
        "Error creating the reservation",
        "You must specify a reason",
        "Update of this parameter is not supported",
        "Invalid input:",
        "Request aborted",
        "Authentication failure",
        "Unable find requested URL",
        "Requested REST method is not defined",
        "Unable to find requested URL",
        "Socket timed out on send/recv operation",
    ]
    .iter()
    .any(|w| line.starts_with(w));
    (by_tool || by_call || not_found || by_phrase).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_need_their_zone() {
        let utc = TextContext::utc().time("2026-11-21T01:13:52").into_known().flatten().unwrap();
        assert_eq!(utc.as_second(), 1_795_223_632);
        let tokyo = TextContext { tz: TimeZone::fixed(jiff::tz::offset(9)) };
        let there = tokyo.time("2026-11-21T10:13:52").into_known().flatten().unwrap();
        assert_eq!(utc, there);
        for none in ["", "None", "Unknown", "N/A"] {
            assert_eq!(TextContext::utc().time(none), Known::Known(None));
        }
        for bad in [
            "2026-11-21",
            "2026-13-21T01:13:52",
            "2026-11-21T25:13:52",
            "2026-11-21T01:13:5x",
            "+026-11-21T01:13:52",
        ] {
            assert!(!TextContext::utc().time(bad).is_known(), "{bad}");
        }
    }

    #[test]
    fn line_ends_are_found_anywhere() {
        for len in 0..40 {
            for at in 0..len {
                let mut text = vec![b'\x8a'; len];
                text[at] = b'\n';
                for from in 0..=len {
                    let want = if from <= at { at } else { len };
                    assert_eq!(end_of_line(&text, from), want, "{len} {at} {from}");
                }
            }
        }
    }

    #[test]
    fn lines_that_say_failure() {
        for line in [
            "slurm_load_node error: Unable to contact slurm controller (connect failure)",
            "slurm_load_partitions: Unable to contact slurm controller (connect failure)",
            "scontrol_reboot_nodes error:Permission denied",
            "squeue: error: Invalid node name nope001",
            "scontrol: unrecognized option '--bogus'",
            "Node nope001 not found",
            "Reservation nope not found",
            "Invalid job id specified for job 99999",
            "Authentication failure",
            "slurmrestd: fatal: slurmrestd should not be run as the root user.",
            "delete_reservation reservationname=nope: Requested reservation is invalid",
        ] {
            assert!(failure(line).is_some(), "{line}");
        }
        for line in [
            "NodeName=n1 State=IDLE",
            "No jobs in the system",
            "",
            "JOBID|STATE",
            "1|RUNNING|alice|gpu001|None",
        ] {
            assert!(failure(line).is_none(), "{line}");
        }
    }
}
