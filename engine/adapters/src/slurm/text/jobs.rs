//! `scontrol [-o] [-d] show job(s)`.
//!
//! Users write job names, comments and command lines, which stand unquoted in this output and may imitate any field.
//! A field found twice is unknown, so a user can make a job unreadable but not another state of it believed. `squeue`
//! with our own format has no field a user writes and is the better source; see [`super::SQUEUE_FORMAT`].

use super::fields::{Key, Slot, scan};
use super::{NameBudget, Record, TextContext, node_list, optional, records};
use crate::slurm::answer::{ParseError, shorten};
use engine_core::known::{Cause, Known};
use engine_core::model::Job;
use engine_core::model::job::parse_job_words;

const WHAT: &str = "jobs";

const ID: usize = 0;
const ARRAY_ID: usize = 1;
const ARRAY_TASK: usize = 2;
const HET_ID: usize = 3;
const HET_OFFSET: usize = 4;
const USER: usize = 5;
const ACCOUNT: usize = 6;
const STATE: usize = 7;
const REASON: usize = 8;
const PARTITION: usize = 9;
const NODES: usize = 10;
const START: usize = 11;
const END: usize = 12;
const SLOTS: usize = 13;

fn lookup(key: &[u8]) -> Key {
    match key {
        b"JobId" => Key::Slot(ID),
        b"ArrayJobId" => Key::Slot(ARRAY_ID),
        b"ArrayTaskId" => Key::Slot(ARRAY_TASK),
        b"HetJobId" => Key::Slot(HET_ID),
        b"HetJobOffset" => Key::Slot(HET_OFFSET),
        b"UserId" => Key::Slot(USER),
        b"Account" => Key::Slot(ACCOUNT),
        b"JobState" => Key::Slot(STATE),
        b"Reason" => Key::Slot(REASON),
        b"Partition" => Key::Slot(PARTITION),
        b"NodeList" => Key::Slot(NODES),
        b"StartTime" => Key::Slot(START),
        b"EndTime" => Key::Slot(END),
        _ => Key::Skip,
    }
}

/// Parses `scontrol show job(s)`; `No jobs in the system` gives an empty list, empty output an error.
///
/// # Errors
/// Empty output, a reported failure, or a record without job id, state or node list.
pub fn parse_jobs(text: &str, ctx: &TextContext) -> Result<Vec<Job>, ParseError> {
    let mut budget = NameBudget::default();
    let mut jobs = Vec::new();
    for record in records(text, WHAT, "JobId=", "No jobs in the system")? {
        let job = job(&record, ctx)?;
        budget.spend(&job.nodes, WHAT)?;
        jobs.push(job);
    }
    Ok(jobs)
}

fn job(record: &Record<'_>, ctx: &TextContext) -> Result<Job, ParseError> {
    let (slots, _) = scan::<SLOTS>(record.text, lookup);
    for (slot, key) in [(ID, "JobId"), (STATE, "JobState"), (NODES, "NodeList")] {
        if slots[slot] == Slot::Missing {
            return Err(ParseError::Drift { what: WHAT, key, line: record.line });
        }
    }
    // The id is the first word of the record, before anything a user writes.
    let id = record.text["JobId=".len()..].split([' ', '\n']).next().unwrap_or_default();
    let id: u64 = id.parse().map_err(|_| {
        ParseError::malformed(WHAT, record.line, format!("JobId={:?} is not a number", shorten(id, 40)))
    })?;
    let states = match slots[STATE] {
        Slot::Once(word) => parse_job_words([word]),
        _ => parse_job_words(["(unclear)"]),
    };
    Ok(Job {
        id,
        display_id: display_id(id, &slots),
        state: states.base,
        flags: states.flags,
        unknown_states: states.unknown,
        user: field(slots[USER], |v| user(v).map(Known::Known)),
        account: field(slots[ACCOUNT], |v| Some(Known::Known(optional(v)))),
        partition: field(slots[PARTITION], |v| Some(Known::Known(v.to_owned()))),
        name: name(record.text, slots[USER]),
        nodes: field(slots[NODES], |v| Some(node_list(v))),
        state_reason: field(slots[REASON], |v| Some(Known::Known(optional(v)))),
        start: field(slots[START], |v| Some(ctx.time(v))),
        end: field(slots[END], |v| Some(ctx.time(v))),
    })
}

fn field<T>(slot: Slot<'_>, parse: impl FnOnce(&str) -> Option<Known<T>>) -> Known<T> {
    match slot {
        Slot::Once(v) => parse(v).unwrap_or_else(|| Known::unknown(Cause::Unparsable, shorten(v, 80))),
        Slot::Missing => Known::unknown(Cause::Unsupported, ""),
        Slot::Unclear => Known::unknown(
            Cause::Conflicting,
            "printed more than once: free text of a user may imitate fields",
        ),
    }
}

/// `alice(20001)`
fn user(text: &str) -> Option<String> {
    let (name, _) = text.rsplit_once('(')?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The name stands between the ids and the user, and may hold blanks.
fn name(text: &str, user: Slot<'_>) -> Known<String> {
    let found = text.find(" JobName=").and_then(|at| {
        let rest = &text[at + " JobName=".len()..];
        let end = [" SLUID=", " UserId=", "\n"].iter().filter_map(|k| rest.find(k)).min()?;
        Some(rest[..end].to_owned())
    });
    match (found, user) {
        (Some(n), Slot::Once(_)) => Known::Known(n),
        (Some(_), _) => Known::unknown(Cause::Conflicting, "the name imitates other fields"),
        (None, _) => Known::unknown(Cause::Unsupported, ""),
    }
}

/// The id as `squeue` shows it: `6_2`, `6_[3-9%1]`, `9+1`.
fn display_id(id: u64, slots: &[Slot<'_>; SLOTS]) -> String {
    let number = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    match (slots[ARRAY_ID].get(), slots[ARRAY_TASK].get(), slots[HET_ID].get(), slots[HET_OFFSET].get()) {
        (Some(array), Some(task), ..) if number(array) && number(task) => format!("{array}_{task}"),
        (Some(array), Some(tasks), ..) if number(array) && tasks.len() <= 256 => format!("{array}_[{tasks}]"),
        (_, _, Some(het), Some(offset)) if number(het) && number(offset) => format!("{het}+{offset}"),
        _ => id.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_core::model::JobState;

    fn ctx() -> TextContext {
        TextContext::utc()
    }

    const REST: &str = "JobState=RUNNING Reason=None Account=a Partition=gpu NodeList=n[1-2] StartTime=2026-11-21T01:40:26 EndTime=Unknown";

    #[test]
    fn no_jobs_is_an_answer_and_nothing_is_none() {
        assert_eq!(parse_jobs("No jobs in the system\n", &ctx()).unwrap(), vec![]);
        assert!(matches!(parse_jobs("", &ctx()), Err(ParseError::Empty { .. })));
        assert!(matches!(parse_jobs("\n\n", &ctx()), Err(ParseError::Empty { .. })));
        let failed = parse_jobs("slurm_load_jobs error: Invalid job id specified\n", &ctx());
        assert!(matches!(failed, Err(ParseError::ReadFailed { .. })));
    }

    #[test]
    fn a_name_cannot_make_a_state() {
        let fake = "x UserId=bob(2) JobState=COMPLETED NodeList=n9";
        let jobs = parse_jobs(&format!("JobId=7 JobName={fake} UserId=alice(1) {REST}\n"), &ctx()).unwrap();
        let j = &jobs[0];
        assert!(j.holds_node() && !j.user.is_known() && !j.nodes.is_known() && !j.name.is_known());
        // A name with a line end and a whole second record: the true state and nodes stay visible.
        let fake = format!(
            "x UserId=bob(2) {}\nJobId=8 JobName=y",
            REST.replace("RUNNING", "COMPLETED").replace("n[1-2]", "n9")
        );
        let jobs = parse_jobs(&format!("JobId=7 JobName={fake} UserId=alice(1) {REST}\n"), &ctx()).unwrap();
        assert!(
            jobs.iter()
                .any(|j| j.holds_node() && j.nodes.known().unwrap().iter().any(|n| n.as_str() == "n1"))
        );
    }

    #[test]
    fn a_plain_name_with_blanks() {
        let jobs =
            parse_jobs(&format!("JobId=7 JobName=hello big world UserId=alice(1) {REST}\n"), &ctx()).unwrap();
        assert_eq!(jobs[0].name, Known::Known("hello big world".into()));
        assert_eq!(jobs[0].state, Known::Known(JobState::Running));
        assert_eq!(jobs[0].end, Known::Known(None));
        assert_eq!(jobs[0].nodes.known().unwrap().len(), 2);
    }

    #[test]
    fn required_keys() {
        for key in ["JobState", "NodeList"] {
            let text =
                format!("JobId=7 JobName=x UserId=alice(1) {REST}\n").replace(&format!("{key}="), "Other=");
            assert!(
                matches!(parse_jobs(&text, &ctx()), Err(ParseError::Drift { key: k, .. }) if k == key),
                "{key}"
            );
        }
    }
}
