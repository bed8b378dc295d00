//! Who took a node out: us, Slurm, somebody; or somebody is on their way with it.

use super::situation::Situation;
use crate::knowledge::Knowledge;
use crate::ownership::run_of_reason;
use crate::watch::Pattern;
use serde_json::Value;

/// Who has the node.
#[derive(Debug, Clone, PartialEq)]
pub enum Owner<'k> {
    /// Nobody: it serves, or is down without a word.
    Nobody,
    /// We, by a run of this journal.
    Us,
    /// Slurm by itself, with what its reason tells; the last pattern is the newest.
    Slurm(Vec<&'k Pattern>),
    /// Somebody asked for a reboot or a change of power.
    OnTheWay,
    /// Somebody else, in these words.
    Somebody(String),
    /// It is out, and nobody says why.
    Unexplained,
}

/// Accounts of daemons, and of programs that act for them.
const DAEMONS: &[&str] =
    &["slurmctld", "slurmd", "slurmstepd", "slurm", "slurmuser", "root", "nobody", "nhc", "0", "system"];
/// Accounts that our own drains come from.
const OURS: &[&str] = &["slurmedic", "slurm", "slurmuser", "root", "us", "engine", "slurmedic-engine", "0"];

fn is_one_of(list: &[&str], who: &str) -> bool {
    list.iter().any(|w| who.eq_ignore_ascii_case(w))
}

/// Flags with which a node is on its way through a reboot or power saving.
const MOVING: &[&str] = &[
    "REBOOT",
    "REBOOT_REQUESTED",
    "REBOOT_ISSUED",
    "REBOOT^",
    "REBOOT@",
    "POWERING_UP",
    "POWERING_DOWN",
    "POWERED_DOWN",
    "POWER_DOWN",
    "POWER_UP",
    "POWER_DRAIN",
];

/// Says whether the node is on its way through a reboot or power saving.
pub fn is_moving(s: &Situation) -> bool {
    MOVING.iter().any(|f| s.has_flag(f))
}

/// Says whether the node is out of service.
pub fn is_out(s: &Situation) -> bool {
    ["DRAIN", "DRAINED", "DRAINING", "FAIL", "DOWN"].iter().any(|f| s.has_flag(f))
}

/// Finds out who has the node.
pub fn owner<'k>(s: &Situation, known: &'k Knowledge) -> Owner<'k> {
    let who = s.node.text("drained_by").unwrap_or("nobody");
    // The text of a reason may outlive its drain.
    let about =
        s.alerts.iter().any(|a| ["SlurmNodeDown", "SlurmNodeDrain", "StaleDrain"].contains(&a.name.as_str()));
    if !is_out(s) && !is_moving(s) && !about {
        return Owner::Nobody;
    }
    let Some(reason) = s.node.text("reason") else {
        return match (is_out(s), is_one_of(DAEMONS, who)) {
            (true, _) if s.has_flag("DOWN") => Owner::Nobody,
            (true, false) => Owner::Somebody("no reason is given".to_owned()),
            (true, true) => Owner::Unexplained,
            (false, _) => Owner::Nobody,
        };
    };
    if reason.starts_with("[slurmedic:") {
        return if is_ours(s, reason, who) {
            Owner::Us
        } else {
            Owner::Somebody("the reason looks like one of ours, and the journal does not say so".to_owned())
        };
    }
    let parts: Vec<(&str, Option<&Pattern>)> = known.reasons.parts(reason).collect();
    let newest = parts.last().and_then(|(_, p)| *p);
    let asked = parts.iter().rposition(|(_, p)| p.is_some_and(is_reboot));
    // The words before a reboot that was asked for are why it was: they are part of it.
    let rest = asked.map_or(0, |i| i + 1);
    if asked.is_some() && rest == parts.len() {
        return if is_out(s) || is_moving(s) { Owner::OnTheWay } else { Owner::Nobody };
    }
    let mut told = Vec::new();
    for (text, pattern) in parts.iter().skip(rest) {
        match pattern {
            Some(p) if !p.planned => told.push(*p),
            _ => return Owner::Somebody((*text).to_owned()),
        }
    }
    if !is_one_of(DAEMONS, who) && newest.is_none_or(|p| p.fault.as_deref() != Some("node-not-responding")) {
        return Owner::Somebody(format!("{who} wrote the reason"));
    }
    Owner::Slurm(told)
}

fn is_reboot(p: &Pattern) -> bool {
    p.planned && p.written_by.as_deref().is_some_and(|w| w.starts_with("slurmctld"))
}

/// Journal, reason and account have to agree, and nothing may stand behind our words.
fn is_ours(s: &Situation, reason: &str, who: &str) -> bool {
    let Some(run) = run_of_reason(reason) else { return false };
    if !is_one_of(OURS, who) && who != "nobody" {
        return false;
    }
    !reason.contains(" : ") && journal_knows(s.node.get("journal"), &run.to_string())
}

/// Says whether what the journal says names a run, and does not deny it.
fn journal_knows(journal: Option<&Value>, run: &str) -> bool {
    let denies = |t: &str| {
        let t = t.to_lowercase();
        ["unknown", "no such", "not ", "no run", "none", "never", "empty"].iter().any(|w| t.contains(w))
    };
    let names = |t: &str| t.split(|c: char| c.is_whitespace() || ",;:#()[]'\"".contains(c)).any(|w| w == run);
    match journal {
        Some(Value::Bool(known)) => *known,
        Some(Value::String(t)) => {
            let plain =
                ["known", "ours", "yes", "match", "matches"].contains(&t.trim().to_lowercase().as_str());
            plain || (names(t) && !t.to_lowercase().contains("no such") && !denies_run(t, run, denies))
        }
        Some(Value::Array(a)) => a.iter().any(|v| journal_knows(Some(v), run)),
        Some(Value::Object(o)) => match o.get("known").or_else(|| o.get("knows")) {
            Some(Value::Bool(known)) => *known,
            _ => o.contains_key(run) || o.values().any(|v| matches!(v, Value::String(t) if names(t))),
        },
        Some(Value::Number(n)) => n.to_string() == run,
        _ => false,
    }
}

fn denies_run(text: &str, run: &str, denies: impl Fn(&str) -> bool) -> bool {
    text.split([';', ',', '.', '\n']).any(|clause| clause.contains(run) && denies(clause))
}
