//! `.jobs[]`

use super::super::answer::{Answer, ParseError};
use super::super::text::{NameBudget, node_list, optional};
use super::field::Field;
use super::{body, read, require};
use engine_core::known::{Cause, Known};
use engine_core::model::job::parse_job_words;
use engine_core::model::{Job, NodeName};
use serde::Deserialize;

const WHAT: &str = "jobs";

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    job_id: Field,
    #[serde(default)]
    array_job_id: Field,
    #[serde(default)]
    array_task_id: Field,
    #[serde(default)]
    array_task_string: Field,
    #[serde(default)]
    het_job_id: Field,
    #[serde(default)]
    het_job_offset: Field,
    #[serde(default)]
    job_state: Field,
    #[serde(default)]
    user_name: Field,
    #[serde(default)]
    account: Field,
    #[serde(default)]
    partition: Field,
    #[serde(default)]
    name: Field,
    #[serde(default)]
    nodes: Field,
    #[serde(default)]
    state_reason: Field,
    #[serde(default)]
    state_description: Field,
    #[serde(default)]
    start_time: Field,
    #[serde(default)]
    end_time: Field,
}

body!(JobsBody, jobs, Raw);

/// Parses a body with jobs; an empty list without errors means that there are none. So does the answer to a request for one
/// job that does not exist: who asks for one job must find it in the list.
///
/// `squeue --json` ignores its filters in some releases and lists finished jobs with their old nodes: filter by
/// [`Job::nodes`] and [`Job::holds_node`].
///
/// # Errors
/// Errors reported by the body, or a missing required key (`errors`, `jobs`, `job_id`, `job_state`, `nodes`).
pub fn parse_jobs(bytes: &[u8]) -> Result<Answer<Vec<Job>>, ParseError> {
    let mut budget = NameBudget::default();
    read::<JobsBody, Job>(bytes, |raw| {
        let job = job(raw)?;
        budget.spend(&job.nodes, WHAT)?;
        Ok(job)
    })
}

fn job(raw: &Raw) -> Result<Job, ParseError> {
    require(&raw.job_id, WHAT, "job_id")?;
    require(&raw.job_state, WHAT, "job_state")?;
    require(&raw.nodes, WHAT, "nodes")?;
    let Known::Known(id) = raw.job_id.count::<u64>() else {
        return Err(ParseError::malformed(WHAT, 0, "a job id is not a number"));
    };
    let states = match &raw.job_state {
        Field::Words(w) => parse_job_words(w.iter().map(String::as_str)),
        Field::Text(t) => parse_job_words([t.as_str()]),
        _ => parse_job_words(["(unexpected shape)"]),
    };
    Ok(Job {
        id,
        display_id: display_id(id, raw),
        state: states.base,
        flags: states.flags,
        unknown_states: states.unknown,
        user: raw.user_name.text(),
        account: raw.account.optional(),
        partition: raw.partition.text(),
        name: match &raw.name {
            // Any text is a name, the empty one too.
            Field::Text(t) => Known::Known(t.clone()),
            other => other.text(),
        },
        nodes: nodes(&raw.nodes),
        state_reason: state_reason(raw),
        start: raw.start_time.time(),
        end: raw.end_time.time(),
    })
}

fn nodes(field: &Field) -> Known<Vec<NodeName>> {
    match field {
        Field::Null => Known::Known(Vec::new()),
        Field::Text(t) => node_list(t),
        _ => Known::unknown(Cause::Unparsable, "unexpected shape of the node list"),
    }
}

/// The reason as the text tools show it: the description, if there is one, with underscores for blanks.
fn state_reason(raw: &Raw) -> Known<Option<String>> {
    match raw.state_description.optional() {
        Known::Known(Some(d)) => Known::Known(Some(d.replace(' ', "_"))),
        _ => raw.state_reason.optional().map(|r| r.and_then(|r| optional(&r))),
    }
}

/// The id as `squeue` shows it: `6_2`, `6_[3-9%1]`, `9+1`.
fn display_id(id: u64, raw: &Raw) -> String {
    let number = |f: &Field| f.count::<u64>().into_known();
    let array = number(&raw.array_job_id).filter(|n| *n > 0);
    let tasks = raw.array_task_string.optional().into_known().flatten().filter(|t| t.len() <= 256);
    let het = number(&raw.het_job_id).filter(|n| *n > 0);
    match (array, tasks, number(&raw.array_task_id), het, number(&raw.het_job_offset)) {
        (Some(array), Some(tasks), ..) => format!("{array}_[{tasks}]"),
        (Some(array), None, Some(task), ..) => format!("{array}_{task}"),
        (.., Some(het), Some(offset)) => format!("{het}+{offset}"),
        _ => id.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_core::model::JobState;

    fn one(job: &str) -> Result<Job, ParseError> {
        let text = format!(r#"{{"jobs":[{job}],"errors":[]}}"#);
        parse_jobs(text.as_bytes()).map(|mut a| a.value.remove(0))
    }

    #[test]
    fn states_in_every_shape() {
        for (json, base, flags, holds) in [
            (r#""RUNNING""#, Some(JobState::Running), 0, true),
            (r#"["RUNNING"]"#, Some(JobState::Running), 0, true),
            (r#"["COMPLETED","COMPLETING"]"#, Some(JobState::Completed), 1, true),
            (r#"["COMPLETED"]"#, Some(JobState::Completed), 0, false),
            (r#""COMPLETING""#, None, 1, true),
            (r#"["PENDING","EXPEDITING"]"#, Some(JobState::Pending), 1, false),
            (r#"["COMPLETED","BRAND_NEW"]"#, None, 0, true),
            ("[]", None, 0, true),
            ("7", None, 0, true),
            ("null", None, 0, true),
        ] {
            let job = one(&format!(r#"{{"job_id":1,"nodes":"n1","job_state":{json}}}"#)).unwrap();
            assert_eq!(
                (job.state.known().copied(), job.flags.len(), job.holds_node()),
                (base, flags, holds),
                "{json}"
            );
        }
    }

    #[test]
    fn no_jobs_only_without_errors() {
        assert_eq!(parse_jobs(br#"{"jobs":[],"errors":[]}"#).unwrap().value, vec![]);
        for bad in [r#"{"jobs":[],"errors":[{"error":"x"}]}"#, r#"{"jobs":[]}"#, r#"{"errors":[]}"#, ""] {
            assert!(parse_jobs(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn required_keys_and_shapes() {
        let all = r#"{"job_id":1,"nodes":"n[1-2]","job_state":["RUNNING"]}"#;
        for key in ["job_id", "job_state", "nodes"] {
            let text = all.replace(&format!("\"{key}\""), "\"other\"");
            assert!(matches!(one(&text), Err(ParseError::Drift { key: k, .. }) if k == key), "{key}");
        }
        assert_eq!(one(all).unwrap().nodes.known().unwrap().len(), 2);
        for nodes in [r#"["n1"]"#, r#"{"list":"n1"}"#, r#""n[1""#, "7"] {
            let job = one(&format!(r#"{{"job_id":1,"job_state":["RUNNING"],"nodes":{nodes}}}"#)).unwrap();
            assert!(!job.nodes.is_known(), "{nodes}");
        }
    }

    #[test]
    fn ids_as_squeue_shows_them() {
        let base = r#""nodes":"","job_state":["PENDING"]"#;
        for (json, want) in [
            (
                r#""array_job_id":{"set":true,"infinite":false,"number":6},"array_task_id":{"set":true,"infinite":false,"number":1}"#,
                "6_1",
            ),
            (
                r#""array_job_id":{"set":true,"infinite":false,"number":6},"array_task_id":{"set":false,"infinite":false,"number":0},"array_task_string":"2%1""#,
                "6_[2%1]",
            ),
            (r#""array_job_id":0,"array_task_id":null,"array_task_string":"""#, "7"),
            (
                r#""het_job_id":{"set":true,"infinite":false,"number":9},"het_job_offset":{"set":true,"infinite":false,"number":1}"#,
                "9+1",
            ),
            (r#""het_job_id":0,"het_job_offset":0"#, "7"),
        ] {
            assert_eq!(one(&format!(r#"{{"job_id":7,{base},{json}}}"#)).unwrap().display_id, want, "{json}");
        }
    }
}
