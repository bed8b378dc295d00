//! Events of a run in a few words, for traces.

use engine_core::run::EventKind;

/// Tells an event in a few words.
pub fn words(kind: &EventKind) -> String {
    let more = match kind {
        EventKind::Intent { action, .. } => action.clone(),
        EventKind::Finished { outcome, .. } => outcome.why.clone(),
        EventKind::Refused { guard, .. } => guard.why.clone(),
        EventKind::Rehearsed { action, would, .. } => format!("{action}: {}", would.join("; ")),
        EventKind::Resolved { why, .. }
        | EventKind::RollbackStarted { why }
        | EventKind::Recovered { why, .. }
        | EventKind::RetryScheduled { why, .. } => why.clone(),
        EventKind::Ended { end, why, .. } => format!("{}: {why}", end.as_str()),
        _ => String::new(),
    };
    if more.is_empty() { kind.word().to_owned() } else { format!("{} {more}", kind.word()) }
}
