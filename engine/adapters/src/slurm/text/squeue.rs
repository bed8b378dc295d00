//! `squeue` with a format of our own.

use super::{NameBudget, TextContext, failure, node_list, optional};
use crate::slurm::answer::{MAX_INPUT, ParseError, shorten};
use engine_core::known::{Cause, Known};
use engine_core::model::Job;
use engine_core::model::job::parse_job_words;

const WHAT: &str = "jobs";

/// The format for `squeue -o`: ten fields separated by the control character US (0x1f), which no name in Slurm holds.
///
/// Every field is written by slurmctld or by administrators. Job name, comment and command are left out on purpose: a
/// user writes them, and with a line end in them could add rows.
pub const SQUEUE_FORMAT: &str = "%A\u{1f}%i\u{1f}%T\u{1f}%u\u{1f}%a\u{1f}%P\u{1f}%N\u{1f}%S\u{1f}%e\u{1f}%r";

/// The header that `squeue` prints for [`SQUEUE_FORMAT`], the same from 22.05 to 26.05.
///
/// It is asked for (no `-h`) because it proves that squeue ran: without it an empty queue and a squeue that printed
/// nothing would look the same.
pub const SQUEUE_HEADER: &str = "JOBID\u{1f}JOBID\u{1f}STATE\u{1f}USER\u{1f}ACCOUNT\u{1f}PARTITION\u{1f}NODELIST\u{1f}START_TIME\u{1f}END_TIME\u{1f}REASON";

/// Arguments for `squeue`: hidden partitions too, every state, our format. Add `-w NODE` for one node.
pub const SQUEUE_ARGS: [&str; 5] = ["-a", "-t", "all", "-o", SQUEUE_FORMAT];

/// Parses the output of `squeue` with [`SQUEUE_ARGS`]. The header alone means that there are no jobs.
///
/// # Errors
/// Empty output, a missing or other header, a reported failure, a row cut short.
pub fn parse_squeue(text: &str, ctx: &TextContext) -> Result<Vec<Job>, ParseError> {
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
    if header.trim_end() != SQUEUE_HEADER {
        return Err(match failure(header) {
            Some(message) => ParseError::failed(WHAT, message),
            None => ParseError::malformed(WHAT, 1, format!("unexpected header {:?}", shorten(header, 120))),
        });
    }
    let mut budget = NameBudget::default();
    let mut jobs = Vec::new();
    for (i, line) in lines {
        let job = row(i + 1, line, ctx)?;
        budget.spend(&job.nodes, WHAT)?;
        jobs.push(job);
    }
    Ok(jobs)
}

fn row(number: usize, line: &str, ctx: &TextContext) -> Result<Job, ParseError> {
    let mut fields = [""; 10];
    let mut count = 0;
    for part in line.split('\u{1f}') {
        if let Some(f) = fields.get_mut(count) {
            *f = part;
        }
        count += 1;
    }
    if count != fields.len() {
        if let Some(message) = failure(line) {
            return Err(ParseError::failed(WHAT, message));
        }
        return Err(ParseError::malformed(
            WHAT,
            number,
            format!("{count} fields instead of {}", fields.len()),
        ));
    }
    let [id, display, state, user, account, partition, nodes, start, end, reason] = fields;
    let id = id.parse().map_err(|_| {
        ParseError::malformed(WHAT, number, format!("job id {:?} is not a number", shorten(id, 40)))
    })?;
    let states = parse_job_words([state]);
    Ok(Job {
        id,
        display_id: display.to_owned(),
        state: states.base,
        flags: states.flags,
        unknown_states: states.unknown,
        user: required(user),
        account: Known::Known(optional(account)),
        partition: required(partition),
        name: Known::unknown(Cause::NotObserved, "not asked for: users write it"),
        nodes: node_list(nodes),
        state_reason: Known::Known(optional(reason)),
        start: ctx.time(start),
        end: match end {
            // slurmctld does have an end for it, a year ahead, which squeue does not show.
            "NONE" => Known::unknown(Cause::NotReported, "no time limit"),
            end => ctx.time(end),
        },
    })
}

fn required(text: &str) -> Known<String> {
    match optional(text) {
        Some(t) => Known::Known(t),
        None => Known::unknown(Cause::NotReported, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_core::model::JobState;

    fn parse(rows: &[&str]) -> Result<Vec<Job>, ParseError> {
        let mut text = format!("{SQUEUE_HEADER}\n");
        for r in rows {
            text.push_str(&r.replace('|', "\u{1f}"));
            text.push('\n');
        }
        parse_squeue(&text, &TextContext::utc())
    }

    #[test]
    fn rows() {
        let jobs = parse(&[
            "7|6_1|RUNNING|bob|proj2|gpu|n2|2026-11-21T01:40:26|2026-11-21T02:00:26|None",
            "6|6_[2%1]|PENDING|bob|(null)|gpu||N/A|N/A|JobArrayTaskLimit",
            "3|3|COMPLETING|alice|proj1|gpu|n[3-4]|2026-11-21T01:40:26|2026-11-21T01:40:27|None",
        ])
        .unwrap();
        assert_eq!(jobs[0].display_id, "6_1");
        assert_eq!(jobs[0].state, Known::Known(JobState::Running));
        assert_eq!(jobs[1].nodes, Known::Known(vec![]));
        assert_eq!(jobs[1].account, Known::Known(None));
        assert_eq!(jobs[1].start, Known::Known(None));
        let unlimited = parse(&["7|7|RUNNING|bob|(null)|gpu|n2|2026-11-21T01:40:26|NONE|None"]).unwrap();
        assert!(!unlimited[0].end.is_known());
        assert!(!jobs[1].holds_node() && jobs[2].holds_node() && jobs[0].holds_node());
        assert_eq!(jobs[2].nodes.known().unwrap().len(), 2);
    }

    #[test]
    fn the_header_alone_is_no_jobs_and_nothing_is_a_failure() {
        assert_eq!(parse(&[]).unwrap(), vec![]);
        let utc = TextContext::utc();
        for text in ["", "\n", "  \n"] {
            assert!(matches!(parse_squeue(text, &utc), Err(ParseError::Empty { .. })), "{text:?}");
        }
        assert!(matches!(parse_squeue(SQUEUE_HEADER, &utc), Err(ParseError::Malformed { .. })));
        for text in ["JOBID|STATE\n", "1|2\n", "garbage\n"] {
            assert!(matches!(parse_squeue(text, &utc), Err(ParseError::Malformed { .. })), "{text:?}");
        }
        let failed = parse_squeue("squeue: error: Invalid node name nope001\n", &utc);
        assert!(matches!(failed, Err(ParseError::ReadFailed { .. })));
    }

    #[test]
    fn a_row_cut_short_is_an_error() {
        assert!(parse(&["7|6_1|RUNNING|bob|proj2|gpu|n2"]).is_err());
        assert!(parse(&[""]).is_err());
        assert!(parse(&["x|6_1|RUNNING|bob|proj2|gpu|n2|a|b|None"]).is_err());
        let odd = parse(&["7|7|SLEEPING|bob|proj2|gpu|n[2|a|b|None"]).unwrap();
        assert!(odd[0].holds_node() && !odd[0].nodes.is_known() && !odd[0].start.is_known());
    }
}
