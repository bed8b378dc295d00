//! Tables that `squeue` and `sinfo` print in formats that are not ours. For `slurmedic read` only.

use super::answer::{ParseError, shorten};
use super::text::{NameBudget, TextContext, node_list, optional};
use engine_core::known::{Cause, Known};
use engine_core::model::job::{JobState, parse_job_words};
use engine_core::model::{Job, NodeName};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The most rows taken from a table.
const MAX_ROWS: usize = 200_000;

/// What `sinfo` printed. Its state words collapse base and flags, so nothing is decided on them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sinfo {
    /// Why these are texts and not facts.
    pub note: &'static str,
    /// Rows by column, where the columns can be told apart.
    pub rows: Vec<BTreeMap<String, String>>,
    /// Lines that are not rows: other layouts, and the rest of reasons with line ends in them.
    pub lines: Vec<String>,
}

const NOTE: &str = "sinfo collapses the state of a node into one word; use scontrol show nodes";

/// Columns of `squeue` by their headers.
fn column(header: &str) -> &str {
    match header {
        "NODELIST(REASON)" => "NODES_OR_REASON",
        other => other,
    }
}

/// Reads a table of `squeue`, with or without header, with `|` or blanks between the columns; `None` if it is not one.
pub(crate) fn squeue(text: &str, ctx: &TextContext) -> Option<Result<Vec<Job>, ParseError>> {
    let mut lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()).peekable();
    let (_, first) = *lines.peek()?;
    let piped = first.contains('|');
    let split = |line: &str| -> Vec<String> {
        if piped {
            line.split('|').map(str::to_owned).collect()
        } else {
            line.split_whitespace().map(str::to_owned).collect()
        }
    };
    let head = split(first);
    let columns: Vec<String> = if head.iter().any(|c| c == "JOBID") {
        lines.next();
        head.iter().map(|h| column(h).to_owned()).collect()
    } else {
        bare_layout(&head, piped)?.iter().map(|c| (*c).to_owned()).collect()
    };
    let mut budget = NameBudget::default();
    let mut jobs = Vec::new();
    for (number, line) in lines.take(MAX_ROWS) {
        let mut row = split(line);
        if !piped && columns.last().is_some_and(|c| c == "NODES_OR_REASON") {
            // The last column may be empty, or a reason of several words.
            if row.len() + 1 == columns.len() {
                row.push(String::new());
            } else if row.get(columns.len() - 1).is_some_and(|c| c.starts_with('(')) {
                row.truncate(columns.len());
            }
        }
        if row.len() != columns.len() {
            let problem = format!("{} columns instead of {}", row.len(), columns.len());
            return Some(Err(ParseError::malformed("jobs", number + 1, problem)));
        }
        let cells: BTreeMap<&str, &str> =
            columns.iter().zip(&row).map(|(c, v)| (c.as_str(), v.as_str())).collect();
        match job(&cells, piped, ctx) {
            Some(j) => {
                if let Err(e) = budget.spend(&j.nodes, "jobs") {
                    return Some(Err(e));
                }
                jobs.push(j);
            }
            None => {
                return Some(Err(ParseError::malformed(
                    "jobs",
                    number + 1,
                    format!("not a row of squeue: {:?}", shorten(line, 80)),
                )));
            }
        }
    }
    Some(Ok(jobs))
}

/// The layouts without header that are in use, told by where the state stands.
fn bare_layout(row: &[String], piped: bool) -> Option<&'static [&'static str]> {
    let state_at = row.iter().position(|c| JobState::from_word(c).is_some())?;
    leading_number(&row[0])?;
    match (piped, state_at, row.len()) {
        (true, 1, 5) => Some(&["JOBID", "STATE", "USER", "NODELIST", "REASON"]),
        (true, 1, 7) => Some(&["JOBID", "STATE", "USER", "NODELIST", "REASON", "COMMENT", "TRES_PER_NODE"]),
        (false, 1, 2) => Some(&["JOBID", "STATE"]),
        (false, 1, 3) => Some(&["JOBID", "STATE", "NODELIST"]),
        (false, 2, 3) => Some(&["JOBID", "USER", "STATE"]),
        _ => None,
    }
}

fn leading_number(id: &str) -> Option<u64> {
    let digits = id.find(|c: char| !c.is_ascii_digit()).unwrap_or(id.len());
    let known_rest = matches!(id.as_bytes().get(digits), None | Some(b'_' | b'+' | b'.'));
    (digits > 0 && known_rest).then(|| id[..digits].parse().ok()).flatten()
}

fn job(cells: &BTreeMap<&str, &str>, piped: bool, ctx: &TextContext) -> Option<Job> {
    fn absent<T>() -> Known<T> {
        Known::unknown(Cause::NotObserved, "no such column")
    }
    // Columns of fixed width are cut without a sign.
    let text = |key: &str| match cells.get(key) {
        Some(v) if piped => Known::Known(optional(v)),
        Some(_) => Known::unknown(Cause::Unparsable, "this layout cuts long values"),
        None => absent(),
    };
    let needed = |key: &str| {
        text(key).and_then(|t| t.map_or_else(|| Known::unknown(Cause::NotReported, ""), Known::Known))
    };
    let display_id = *cells.get("JOBID")?;
    let states = match (cells.get("STATE"), cells.get("ST")) {
        (Some(word), _) => parse_job_words([*word]),
        (None, Some(short)) => parse_job_words([compact(short).unwrap_or(short)]),
        (None, None) => parse_job_words([]),
    };
    let (nodes, reason): (Known<Vec<NodeName>>, Known<Option<String>>) = match cells.get("NODES_OR_REASON") {
        Some(v) if v.starts_with('(') => {
            (Known::Known(Vec::new()), Known::Known(optional(v.trim_matches(['(', ')']))))
        }
        Some(v) => (node_list(v), absent()),
        None => (absent(), absent()),
    };
    Some(Job {
        id: leading_number(display_id)?,
        display_id: display_id.to_owned(),
        state: states.base,
        flags: states.flags,
        unknown_states: states.unknown,
        user: needed("USER"),
        account: text("ACCOUNT"),
        partition: needed("PARTITION"),
        name: Known::unknown(Cause::NotObserved, "users write it"),
        nodes: cells.get("NODELIST").map_or(nodes, |v| node_list(v)),
        state_reason: if cells.contains_key("REASON") { text("REASON") } else { reason },
        start: cells.get("START_TIME").map_or_else(absent, |v| ctx.time(v)),
        end: cells.get("END_TIME").map_or_else(absent, |v| ctx.time(v)),
    })
}

/// The word for a compact state of `squeue %t`.
fn compact(short: &str) -> Option<&'static str> {
    const CODES: &[(&str, &str)] = &[
        ("PD", "PENDING"),
        ("R", "RUNNING"),
        ("S", "SUSPENDED"),
        ("CG", "COMPLETING"),
        ("CF", "CONFIGURING"),
        ("CD", "COMPLETED"),
        ("CA", "CANCELLED"),
        ("F", "FAILED"),
        ("TO", "TIMEOUT"),
        ("NF", "NODE_FAIL"),
        ("PR", "PREEMPTED"),
        ("BF", "BOOT_FAIL"),
        ("DL", "DEADLINE"),
        ("OOM", "OUT_OF_MEMORY"),
        ("RQ", "REQUEUED"),
        ("RF", "REQUEUE_FED"),
        ("RH", "REQUEUE_HOLD"),
        ("RS", "RESIZING"),
        ("RV", "REVOKED"),
        ("RD", "RESV_DEL_HOLD"),
        ("SE", "SPECIAL_EXIT"),
        ("SI", "SIGNALING"),
        ("SO", "STAGE_OUT"),
        ("ST", "STOPPED"),
    ];
    CODES.iter().find(|(c, _)| *c == short).map(|(_, w)| *w)
}

/// Reads a table of `sinfo`; `None` if it is not one.
pub(crate) fn sinfo(text: &str) -> Option<Sinfo> {
    let mut lines = text.lines().filter(|l| !l.trim().is_empty());
    let first = lines.next()?;
    let mut table = Sinfo { note: NOTE, rows: Vec::new(), lines: Vec::new() };
    if first.contains('|') {
        let columns: Vec<&str> = first.split('|').collect();
        if columns[0] != "NODELIST" || !columns.contains(&"STATE") {
            // Without header the columns have no names.
            let bare = columns.iter().any(|c| is_sinfo_word(c)) && columns.iter().any(|c| looks_like_time(c));
            return bare.then(|| Sinfo {
                lines: text.lines().take(MAX_ROWS).map(|l| shorten(l, 400)).collect(),
                ..table
            });
        }
        for line in lines.take(MAX_ROWS) {
            let row: Vec<&str> = line.split('|').collect();
            if row.len() == columns.len() {
                table
                    .rows
                    .push(columns.iter().zip(row).map(|(c, v)| ((*c).to_owned(), v.to_owned())).collect());
            } else {
                table.lines.push(shorten(line, 400));
            }
        }
        return Some(table);
    }
    let titles = ["PARTITION AVAIL", "REASON ", "NODELIST "];
    let all: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    // `sinfo -l` prints the date first; `sinfo -h` has no title but the column of availability.
    let titled = all.iter().take(2).any(|l| titles.iter().any(|t| l.starts_with(t)));
    let bare =
        all.iter().all(|l| matches!(l.split_whitespace().nth(1), Some("up" | "down" | "drain" | "inact")));
    (titled || bare).then(|| {
        table.lines = all.iter().take(MAX_ROWS).map(|l| shorten(l, 400)).collect();
        table
    })
}

/// Says whether it is a state as `sinfo %T` prints it, with its marks behind it.
fn is_sinfo_word(text: &str) -> bool {
    const WORDS: &[&str] = &[
        "allocated",
        "blocked",
        "completing",
        "down",
        "drained",
        "draining",
        "fail",
        "failing",
        "future",
        "idle",
        "inval",
        "maint",
        "mixed",
        "perfctrs",
        "planned",
        "power_down",
        "power_up",
        "reboot",
        "reserved",
        "unknown",
    ];
    let word = text.trim_end_matches(['*', '~', '#', '!', '%', '$', '@', '^', '-', '+']);
    WORDS.contains(&word)
}

fn looks_like_time(text: &str) -> bool {
    text == "Unknown" || super::text::civil_time(text).is_some()
}

/// Reads `sinfo --json` of 23.02 and later, which groups nodes.
pub(crate) fn sinfo_json(bytes: &[u8]) -> Result<Sinfo, ParseError> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        sinfo: Vec<Value>,
        #[serde(default)]
        errors: Vec<Value>,
    }
    let text = String::from_utf8_lossy(bytes);
    let body: Body = serde_json::from_str(&text)
        .map_err(|e| ParseError::malformed("sinfo", e.line(), shorten(&e.to_string(), 200)))?;
    if let Some(e) = body.errors.first() {
        return Err(ParseError::failed("sinfo", &e.to_string()));
    }
    let row = |v: &Value| -> BTreeMap<String, String> {
        let words = |path: &str| match v.pointer(path) {
            Some(Value::String(s)) => s.clone(),
            Some(Value::Array(a)) => a.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("+"),
            _ => String::new(),
        };
        [
            ("NODELIST", "/nodes/nodes"),
            ("STATE", "/node/state"),
            ("PARTITION", "/partition/name"),
            ("REASON", "/reason/description"),
        ]
        .iter()
        .map(|(name, path)| ((*name).to_owned(), words(path)))
        .collect()
    };
    Ok(Sinfo { note: NOTE, rows: body.sinfo.iter().take(MAX_ROWS).map(row).collect(), lines: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(text: &str) -> Vec<Job> {
        squeue(text, &TextContext::utc()).unwrap().unwrap()
    }

    #[test]
    fn squeue_with_and_without_header() {
        let j = jobs(
            "JOBID|USER|STATE|ST|REASON|NODELIST|NODELIST(REASON)\n6_[2%1]|bob|PENDING|PD|JobArrayTaskLimit||(JobArrayTaskLimit)\n",
        );
        assert_eq!((j[0].id, j[0].display_id.as_str(), j[0].nodes.known().unwrap().len()), (6, "6_[2%1]", 0));
        assert_eq!(j[0].state_reason, Known::Known(Some("JobArrayTaskLimit".into())));
        assert_eq!(jobs("JOBID|STATE\n"), vec![]);
        assert_eq!(jobs("1 alice RUNNING\n")[0].state, Known::Known(JobState::Running));
        assert_eq!(jobs("14 SUSPENDED n3\n")[0].nodes.known().unwrap().len(), 1);
        let default = "             JOBID PARTITION     NAME     USER ST       TIME  NODES NODELIST(REASON)\n                 4       gpu  waiting      bob PD       0:00      1 (Resources)\n                 1       gpu    train    alice  R       0:02      1 n1\n";
        let j = jobs(default);
        assert!(!j[0].user.is_known() && !j[0].holds_node() && j[1].holds_node());
        assert_eq!(j[1].nodes.known().unwrap()[0].as_str(), "n1");
    }

    #[test]
    fn what_is_not_squeue() {
        let utc = TextContext::utc();
        for text in [
            "",
            "hello world",
            "gpu001|drained|drain|x|Unknown|root|root(0)",
            "NODELIST|STATE\n",
            "x RUNNING",
        ] {
            assert!(squeue(text, &utc).is_none(), "{text}");
        }
        for text in ["JOBID|STATE\n1|2|3\n", "JOBID STATE\n1\n", "JOBID|STATE\nx|RUNNING\n"] {
            assert!(squeue(text, &utc).unwrap().is_err(), "{text}");
        }
    }

    #[test]
    fn sinfo_is_shown_and_not_believed() {
        let s = sinfo(
            "NODELIST|STATE|REASON|USER|TIMESTAMP\nn4|drained|line one\nline two|root|2026-11-21T01:45:25\n",
        )
        .unwrap();
        assert_eq!((s.rows.len(), s.lines.len()), (0, 2));
        let s = sinfo("gpu001|drained|drain|remedy: ecc|2026-11-21T01:13:52|root|root(0)\n").unwrap();
        assert_eq!((s.rows.len(), s.lines.len()), (0, 1));
        assert!(sinfo("gpu003|Not responding|2026-11-21T01:13:52|slurm|slurm(64030)|down*\n").is_some());
        assert!(sinfo("a|b|2026-11-21T01:13:52|c\n").is_none());
        assert!(sinfo("main*        up   infinite      0    n/a \n").is_some());
        assert!(sinfo("hello\n").is_none() && sinfo("a|b\n").is_none() && sinfo("").is_none());
    }
}
