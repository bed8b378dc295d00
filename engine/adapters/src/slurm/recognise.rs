//! Finds out what an output is, and parses it: the Slurm half of `slurmedic read FILE`.
//!
//! Takes what the parsers of this module take, and besides the forms people have lying about: `squeue` with other
//! formats, `sinfo`, answers of slurmrestd saved with a line `HTTP 500` behind them, and captures that carry their
//! command, exit code and stderr. An output that reports a failure is a failed read, never an empty answer.

use super::answer::{Answer, MAX_INPUT, ParseError, Ping, Release, shorten};
use super::{json, tables, text};
use engine_core::known::{Cause, Unknown};
use engine_core::model::{Job, Node, Partition, Reservation};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use text::TextContext;

/// A recognised output.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recognised {
    /// `text` or `json`.
    pub format: &'static str,
    /// The command that printed it, where the file says so.
    pub command: Option<String>,
    /// What it holds.
    pub content: Content,
}

/// What an output holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum Content {
    /// Nodes.
    Nodes(Answer<Vec<Node>>),
    /// Jobs.
    Jobs(Answer<Vec<Job>>),
    /// Reservations.
    Reservations(Answer<Vec<Reservation>>),
    /// Partitions.
    Partitions(Answer<Vec<Partition>>),
    /// Controllers.
    Pings(Answer<Vec<Ping>>),
    /// A release.
    Version(Release),
    /// `sinfo`, which collapses states: shown, never used for a decision.
    Sinfo(tables::Sinfo),
    /// An answer of slurmrestd without errors and without records known here, such as that to a change.
    Reply(Answer<()>),
    /// The read failed, or its answer cannot be understood.
    FailedRead(Unknown),
}

impl Content {
    /// Returns the word for the kind, as in the JSON form.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nodes(_) => "nodes",
            Self::Jobs(_) => "jobs",
            Self::Reservations(_) => "reservations",
            Self::Partitions(_) => "partitions",
            Self::Pings(_) => "pings",
            Self::Version(_) => "version",
            Self::Sinfo(_) => "sinfo",
            Self::Reply(_) => "reply",
            Self::FailedRead(_) => "failed_read",
        }
    }
}

/// Recognises and parses an output of Slurm; `None` means that it is something else.
pub fn recognise(bytes: &[u8], ctx: &TextContext) -> Option<Recognised> {
    if bytes.len() > MAX_INPUT {
        let content = failed(&ParseError::TooLarge { len: bytes.len() });
        return Some(Recognised { format: "text", command: None, content });
    }
    let text = String::from_utf8_lossy(bytes);
    let Some(frame) = Frame::parse(&text) else { return bare(&text, ctx) };
    let command = Some(shorten(frame.command, 500));
    let inner = bare(frame.stdout, ctx).map(|r| Recognised { command: command.clone(), ..r });
    let failed = |cause, detail: &str| {
        let content = Content::FailedRead(Unknown::new(cause, shorten(detail, 500)));
        Some(Recognised { format: "text", command: command.clone(), content })
    };
    match inner {
        // `scontrol ping` exits 1 when a controller is down: that is its answer.
        Some(r)
            if matches!(r.content, Content::Pings(_) | Content::FailedRead(_))
                && !frame.stdout.trim().is_empty() =>
        {
            Some(r)
        }
        _ if frame.exit_code != 0 => {
            let said = if frame.stderr.trim().is_empty() { frame.stdout } else { frame.stderr };
            failed(Cause::ReadFailed, &format!("exit code {}: {}", frame.exit_code, said.trim()))
        }
        _ if frame.stdout.trim().is_empty() && !frame.is_read() => None,
        other => other,
    }
}

/// A capture with its command, exit code and both streams.
struct Frame<'a> {
    command: &'a str,
    exit_code: i32,
    stdout: &'a str,
    stderr: &'a str,
}

impl<'a> Frame<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let rest = text.strip_prefix("# command: ")?;
        let (head, body) = rest.split_once("\n--- stdout\n")?;
        let exit_code = head.lines().find_map(|l| l.strip_prefix("# rc: "))?.trim().parse().ok()?;
        let (stdout, stderr) = match body.strip_prefix("--- stderr") {
            Some(stderr) => ("", stderr),
            None => body.split_once("\n--- stderr")?,
        };
        Some(Self { command: head.lines().next()?, exit_code, stdout, stderr })
    }

    /// Says whether an empty output of this command is a failed read; writes are silent when they succeed.
    fn is_read(&self) -> bool {
        let mut words = self.command.split_whitespace().map(|w| w.rsplit('/').next().unwrap_or(w));
        match words.next() {
            Some("squeue" | "sinfo") => true,
            Some("scontrol") => words.any(|w| matches!(w, "show" | "ping" | "--version" | "-V")),
            _ => false,
        }
    }
}

/// Recognises an output without its frame.
fn bare(text: &str, ctx: &TextContext) -> Option<Recognised> {
    let (body, status) = http_status(text);
    let format = if body.trim_start().starts_with('{') { "json" } else { "text" };
    let content = if format == "json" { from_json(body) } else { from_text(body, ctx) };
    let content = match (content, status) {
        (_, Some(304)) => Content::FailedRead(Unknown::new(
            Cause::EmptyAnswer,
            "HTTP 304: nothing changed since the update_time asked for, so nothing was sent",
        )),
        (Some(c @ Content::FailedRead(_)), _) => c,
        (_, Some(status)) if status >= 400 => Content::FailedRead(Unknown::new(
            Cause::ReadFailed,
            format!("HTTP {status}: {}", shorten(body, 300)),
        )),
        (content, _) => content?,
    };
    Some(Recognised { format, command: None, content })
}

/// Splits off a last line `HTTP 500`.
fn http_status(text: &str) -> (&str, Option<u16>) {
    let trimmed = text.trim_end();
    let (body, last) = trimmed.rsplit_once('\n').unwrap_or(("", trimmed));
    match last.strip_prefix("HTTP ").and_then(|s| s.parse().ok()) {
        Some(status) => (body, Some(status)),
        None => (text, None),
    }
}

fn failed(error: &ParseError) -> Content {
    Content::FailedRead(Unknown::new(error.cause(), error.to_string()))
}

fn content<T>(result: Result<T, ParseError>, make: impl FnOnce(T) -> Content) -> Content {
    match result {
        Ok(v) => make(v),
        Err(e) => failed(&e),
    }
}

/// The keys that tell what a body is.
#[derive(Deserialize)]
struct Keys {
    errors: Option<IgnoredAny>,
    meta: Option<IgnoredAny>,
    nodes: Option<IgnoredAny>,
    jobs: Option<IgnoredAny>,
    reservations: Option<IgnoredAny>,
    partitions: Option<IgnoredAny>,
    pings: Option<IgnoredAny>,
    sinfo: Option<IgnoredAny>,
}

fn from_json(body: &str) -> Option<Content> {
    let keys: Keys = match serde_json::from_str(body) {
        Ok(keys) => keys,
        // Cut short: still Slurm's, if it begins like it.
        Err(e) => {
            let head: String = body.chars().take(400).collect();
            let ours = [
                "\"nodes\"",
                "\"jobs\"",
                "\"Slurm\"",
                "\"reservations\"",
                "\"partitions\"",
                "\"pings\"",
                "\"sinfo\"",
            ];
            return ours
                .iter()
                .any(|k| head.contains(k))
                .then(|| failed(&ParseError::malformed("a JSON body", e.line(), e.to_string())));
        }
    };
    let bytes = body.as_bytes();
    // Every body of Slurm has one of these; a file of another tool that happens to hold "nodes" has not.
    if keys.errors.is_none() && keys.meta.is_none() {
        return None;
    }
    Some(match () {
        () if keys.nodes.is_some() => content(json::parse_nodes(bytes), Content::Nodes),
        () if keys.jobs.is_some() => content(json::parse_jobs(bytes), Content::Jobs),
        () if keys.reservations.is_some() => content(json::parse_reservations(bytes), Content::Reservations),
        () if keys.partitions.is_some() => content(json::parse_partitions(bytes), Content::Partitions),
        () if keys.pings.is_some() => content(json::parse_ping(bytes), Content::Pings),
        () if keys.sinfo.is_some() => content(tables::sinfo_json(bytes), Content::Sinfo),
        () if keys.meta.is_some() => content(json::parse_reply(bytes), Content::Reply),
        () => return None,
    })
}

fn from_text(body: &str, ctx: &TextContext) -> Option<Content> {
    let Some(first) = body.lines().find(|l| !l.trim().is_empty()) else {
        return Some(failed(&ParseError::Empty { what: "records" }));
    };
    let of = |key: &str| first.starts_with(key);
    let answer = |r| content(r, |v| Content::Jobs(Answer::from_text(v)));
    Some(match () {
        () if of("NodeName=") => {
            content(text::parse_nodes(body, ctx), |v| Content::Nodes(Answer::from_text(v)))
        }
        () if of("JobId=") && first.contains("Nodes(COMPLETING)=") => {
            let detail = "`scontrol completing` names no job states; read `squeue` or `scontrol show jobs`";
            Content::FailedRead(Unknown::new(Cause::Unsupported, detail))
        }
        () if of("JobId=") || first.trim() == "No jobs in the system" => answer(text::parse_jobs(body, ctx)),
        () if of("ReservationName=") || first.trim() == "No reservations in the system" => {
            content(text::parse_reservations(body, ctx), |v| Content::Reservations(Answer::from_text(v)))
        }
        () if of("PartitionName=") => {
            content(text::parse_partitions(body), |v| Content::Partitions(Answer::from_text(v)))
        }
        () if of("Slurmctld(") => content(text::parse_ping(body), |v| Content::Pings(Answer::from_text(v))),
        () if first == text::SQUEUE_HEADER => answer(text::parse_squeue(body, ctx)),
        () if text::failure(first).is_some() => {
            let message =
                body.lines().map(str::trim).filter(|l| !l.is_empty()).take(5).collect::<Vec<_>>().join(" | ");
            Content::FailedRead(Unknown::new(Cause::ReadFailed, shorten(&message, 500)))
        }
        () if of("slurm") && body.trim().lines().count() == 1 => {
            content(text::parse_version(body), Content::Version)
        }
        () => match tables::squeue(body, ctx) {
            Some(jobs) => answer(jobs),
            None => Content::Sinfo(tables::sinfo(body)?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Option<&'static str> {
        recognise(text.as_bytes(), &TextContext::utc()).map(|r| r.content.kind())
    }

    #[test]
    fn kinds() {
        for (text, want) in [
            ("", Some("failed_read")),
            (" \n\n", Some("failed_read")),
            ("Node nope001 not found\n", Some("failed_read")),
            (
                "slurm_load_node error: Unable to contact slurm controller (connect failure)\n",
                Some("failed_read"),
            ),
            ("No jobs in the system\n", Some("jobs")),
            ("No reservations in the system\n", Some("reservations")),
            ("slurm 26.05.3\n", Some("version")),
            ("slurm-wlm 22.05.8", Some("version")),
            ("Slurmctld(primary) at head is UP\n", Some("pings")),
            ("Authentication failure\nHTTP 401\n", Some("failed_read")),
            ("whatever\nHTTP 503\n", Some("failed_read")),
            ("1|RUNNING|alice|gpu001|None\n", Some("jobs")),
            ("{\"meta\":{},\"errors\":[]}\nHTTP 200\n", Some("reply")),
            ("{\"nodes\":[1],\"meta\":{}}", Some("failed_read")),
            ("{\n\"nodes\": [", Some("failed_read")),
            ("# HELP DCGM_FI_DEV_SM_CLOCK x\n", None),
            ("{\"category\":\"x\"}", None),
            ("{\"nodes\":7}", None),
            ("hello world\n", None),
        ] {
            assert_eq!(kind(text), want, "{text:?}");
        }
    }

    #[test]
    fn captures_with_their_exit_code() {
        let frame = |cmd: &str, rc: i32, out: &str, err: &str| {
            format!("# command: {cmd}\n# rc: {rc}\n--- stdout\n{out}--- stderr\n{err}")
        };
        let nodes = "NodeName=n1 State=IDLE Gres=(null)\n";
        assert_eq!(kind(&frame("scontrol -o show node n1", 0, nodes, "")), Some("nodes"));
        assert_eq!(kind(&frame("scontrol -o show node n1", 1, nodes, "x")), Some("failed_read"));
        assert_eq!(kind(&frame("squeue -h -w n1 -o '%i %T'", 0, "", "")), Some("failed_read"));
        assert_eq!(kind(&frame("scontrol update nodename=n1 state=drain reason=x", 0, "", "")), None);
        assert_eq!(
            kind(&frame("scontrol update nodename=n1 state=drain", 1, "", "You must")),
            Some("failed_read")
        );
        assert_eq!(
            kind(&frame("scontrol ping", 1, "Slurmctld(primary) at head is DOWN\n", "")),
            Some("pings")
        );
    }
}
