//! `squeue` for pending jobs: what they asked for, and where backfill has planned them.

use super::{NameBudget, TextContext, comma_list, failure, node_list, optional};
use crate::slurm::answer::{MAX_INPUT, ParseError, shorten};
use engine_core::known::{Cause, Known};
use engine_core::model::PendingJob;

const WHAT: &str = "pending jobs";

/// The format for `squeue -o`: eight fields separated by US (0x1f). No field is written by users.
pub const PENDING_FORMAT: &str = "%i\u{1f}%u\u{1f}%P\u{1f}%D\u{1f}%n\u{1f}%Y\u{1f}%S\u{1f}%r";

/// The header that `squeue` prints for [`PENDING_FORMAT`]. It is asked for because it proves that squeue ran.
pub const PENDING_HEADER: &str =
    "JOBID\u{1f}USER\u{1f}PARTITION\u{1f}NODES\u{1f}REQ_NODES\u{1f}SCHEDNODES\u{1f}START_TIME\u{1f}REASON";

/// Arguments for `squeue`: hidden partitions too, pending jobs only.
pub const PENDING_ARGS: [&str; 5] = ["-a", "-t", "PD", "-o", PENDING_FORMAT];

/// Parses the output of `squeue` with [`PENDING_ARGS`]. The header alone means that no job waits.
///
/// # Errors
/// Empty output, a missing or other header, a reported failure, a row cut short.
pub fn parse_pending(text: &str, ctx: &TextContext) -> Result<Vec<PendingJob>, ParseError> {
    if text.len() > MAX_INPUT {
        return Err(ParseError::TooLarge { len: text.len() });
    }
    if text.trim().is_empty() {
        return Err(ParseError::Empty { what: WHAT });
    }
    let Some(body) = text.strip_suffix('\n') else {
        return Err(ParseError::malformed(WHAT, 0, "the last line has no end: the output was cut short"));
    };
    let mut lines = body.split('\n').enumerate();
    let header = lines.next().map_or("", |(_, l)| l);
    if header.trim_end() != PENDING_HEADER {
        return Err(match failure(header) {
            Some(message) => ParseError::failed(WHAT, message),
            None => ParseError::malformed(WHAT, 1, format!("unexpected header {:?}", shorten(header, 120))),
        });
    }
    let mut budget = NameBudget::default();
    let mut jobs = Vec::new();
    for (i, line) in lines {
        let job = row(i + 1, line, ctx)?;
        budget.spend(&job.named, WHAT)?;
        budget.spend(&job.planned, WHAT)?;
        jobs.push(job);
    }
    Ok(jobs)
}

fn missing<T>(what: &str) -> Known<T> {
    Known::unknown(Cause::NotReported, what.to_owned())
}

fn row(number: usize, line: &str, ctx: &TextContext) -> Result<PendingJob, ParseError> {
    let fields: Vec<&str> = line.split('\u{1f}').collect();
    let [id, user, partitions, nodes, named, planned, start, reason] = fields.as_slice() else {
        return Err(match failure(line) {
            Some(message) => ParseError::failed(WHAT, message),
            None => ParseError::malformed(WHAT, number, format!("{} fields instead of 8", fields.len())),
        });
    };
    if id.is_empty() {
        return Err(ParseError::malformed(WHAT, number, "a job without an id"));
    }
    // An array prints the count of one task; a range such as 1-3 its least.
    let least = nodes.split('-').next().unwrap_or("").trim().parse().ok();
    Ok(PendingJob {
        display_id: (*id).to_owned(),
        user: optional(user).map_or_else(|| missing("no user"), Known::Known),
        partitions: optional(partitions)
            .map_or_else(|| missing("no partition"), |p| Known::Known(comma_list(&p))),
        nodes: least.map_or_else(|| Known::unknown(Cause::Unparsable, shorten(nodes, 40)), Known::Known),
        named: node_list(named),
        planned: node_list(planned),
        start: ctx.time(start),
        reason: optional(reason).map_or_else(|| missing("no reason"), Known::Known),
    })
}
