//! The exception: a drain by the hook itself, for faults that the site listed and that lie in this one node.
//!
//! A person always wins: a node that carries any mark of somebody is left alone, and a fault is drained for once. A
//! resume by a person is not answered by another drain.

use crate::command;
use crate::config::Config;
use crate::finding::Finding;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long one call may take: longer than Slurm's own MessageTimeout of 10 s.
const CALL: Duration = Duration::from_secs(14);
/// The longest text behind the token.
const MAX_TEXT: usize = 200;
/// Flags that say nothing against a drain. Any other one, also one not known, is a mark of somebody.
const HARMLESS: [&str; 5] = ["COMPLETING", "PLANNED", "RESERVED", "DYNAMIC_NORM", "NOT_RESPONDING"];

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// The node is drained, read back.
    Done(String),
    /// Somebody has a mark on it.
    LeftAlone(String),
}

/// Drains this node, or gives up at `end`.
pub(crate) fn drain(config: &Config, node: &str, finding: &Finding, end: Instant) -> Result<Drained, String> {
    let env: Vec<(&str, &Path)> =
        config.slurm_conf.iter().map(|path| ("SLURM_CONF", path.as_path())).collect();
    let call = |args: &[&str]| command::run(&config.scontrol, args, &env, end.min(Instant::now() + CALL));
    let show = ["-o", "show", "node", node];
    let before = Seen::of(&call(&show)?, node)?;
    if let Some(mark) = before.mark() {
        return Ok(Drained::LeftAlone(mark));
    }
    let reason = reason(finding);
    let update = call(&["update", &format!("nodename={node}"), "state=drain", &format!("reason={reason}")]);
    // Whatever the answer: only the node itself says whether it happened.
    let after = Seen::of(&call(&show)?, node)?;
    match update {
        _ if after.flags.iter().any(|f| f == "DRAIN") && after.reason.starts_with(&reason) => {
            Ok(Drained::Done(reason))
        }
        Ok(_) => Err(format!("{node} is {} after the drain", after.state())),
        Err(why) => Err(why),
    }
}

/// `[slurmedic:hook@<version>#<boot>] fault: text`, one line of plain ASCII.
fn reason(finding: &Finding) -> String {
    let text: String = finding
        .to_string()
        .chars()
        .map(|c| match c {
            '\'' | '"' | '`' | '\\' => ' ',
            c if c.is_ascii_graphic() || c == ' ' => c,
            c if c.is_whitespace() || c.is_control() => ' ',
            _ => '?',
        })
        .take(MAX_TEXT)
        .collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("[slurmedic:hook@{}#{}] {text}", env!("CARGO_PKG_VERSION"), crate::spool::boot())
}

struct Seen {
    base: String,
    flags: Vec<String>,
    reason: String,
}

impl Seen {
    fn of(text: &str, node: &str) -> Result<Self, String> {
        let line = text.trim();
        let (front, reason) = line.split_once(" Reason=").unwrap_or((line, ""));
        let value = |key: &str| front.split_whitespace().find_map(|w| w.strip_prefix(key));
        if value("NodeName=") != Some(node) || line.lines().count() != 1 {
            return Err(format!("scontrol does not show {node}: {}", crate::talk::tame(line)));
        }
        let state = value("State=").ok_or("scontrol shows no state")?;
        let not_responding = state.ends_with('*');
        let mut words = state.trim_end_matches('*').split('+').map(str::to_owned);
        let base = words.next().unwrap_or_default();
        let mut flags: Vec<String> = words.collect();
        if not_responding {
            flags.push("NOT_RESPONDING".to_owned());
        }
        Ok(Self { base, flags, reason: reason.to_owned() })
    }

    fn state(&self) -> String {
        std::iter::once(&self.base).chain(&self.flags).map(String::as_str).collect::<Vec<_>>().join("+")
    }

    fn mark(&self) -> Option<String> {
        let base = ["IDLE", "ALLOCATED", "MIXED"].contains(&self.base.as_str());
        let harmless = self.flags.iter().all(|f| HARMLESS.contains(&f.as_str()));
        if base && harmless && self.reason.is_empty() {
            return None;
        }
        let mut reason = crate::talk::tame(&self.reason);
        crate::talk::cut(&mut reason, 100);
        Some(format!("it is {} ({reason})", self.state()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(state: &str, reason: &str) -> Seen {
        let text = format!("NodeName=gpu003 Arch=x86_64 State={state} ThreadsPerCore=1{reason}\n");
        Seen::of(&text, "gpu003").unwrap()
    }

    #[test]
    fn only_a_node_without_any_mark_is_drained() {
        for state in ["IDLE", "MIXED", "ALLOCATED", "IDLE+COMPLETING", "MIXED+PLANNED", "IDLE*"] {
            assert_eq!(seen(state, "").mark(), None, "{state}");
        }
        for state in [
            "DOWN",
            "IDLE+DRAIN",
            "MIXED+DRAIN",
            "IDLE+FAIL",
            "IDLE+MAINTENANCE+RESERVED",
            "UNKNOWN",
            "IDLE+REBOOT_REQUESTED",
            "IDLE+INVALID_REG",
            "IDLE+SOMETHING_NEW",
            "DOWN*",
        ] {
            assert!(seen(state, "").mark().is_some(), "{state}");
        }
        assert!(seen("IDLE", " Reason=a person [root@2026-11-21]").mark().is_some());
        assert!(Seen::of("NodeName=gpu004 State=IDLE", "gpu003").is_err());
        assert!(Seen::of("Node gpu003 not found", "gpu003").is_err());
    }

    #[test]
    fn the_reason_has_the_form_of_the_product() {
        let finding = Finding::now("gpu-count-mismatch", "gpus", "7 of 8 \"GPUs\"\n`reboot` é");
        let reason = reason(&finding);
        assert!(reason.starts_with("[slurmedic:hook@0."), "{reason}");
        assert!(reason.contains("] gpu-count-mismatch: 7 of 8 GPUs reboot ?"), "{reason}");
    }
}
