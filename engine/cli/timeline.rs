//! Events as people read them: one line each, the same in the live view of `run` and in `show`.

use crate::printer::{Tone, paint, tame, wrapped};
use engine_core::known::Known;
use engine_core::run::{Effect, End, Event, EventKind, OutcomeKind, Resolution, RunState};

/// Names an effect.
pub(crate) fn effect_name(state: &RunState, effect: Effect) -> String {
    match effect {
        Effect::Lock => "lock".to_owned(),
        Effect::Unlock => "unlock".to_owned(),
        Effect::Hold => "mark as held".to_owned(),
        Effect::Step(_) | Effect::Undo(_) => {
            let name = state.step_of(effect).map_or("?", |s| s.action.as_str());
            if matches!(effect, Effect::Undo(_)) { format!("undo: {name}") } else { name.to_owned() }
        }
    }
}

/// Describes an event in one line, without its time.
pub(crate) fn line(event: &Event, state: &RunState) -> String {
    let (tone, head, tail) = parts(&event.kind, state);
    let head = paint(tone, head);
    if tail.is_empty() { head } else { format!("{head}  {}", tame(&tail)) }
}

fn people_words(people: u8) -> String {
    if people == 1 { "1 person".to_owned() } else { format!("{people} different people") }
}

/// Writes an event with its time, wrapped to 80 columns.
pub(crate) fn dated(event: &Event, state: &RunState) -> String {
    let time = event.at.strftime("%H:%M:%S").to_string();
    format!("{time}  {}", wrapped(&line(event, state), 10))
}

/// Writes an event with its time and its node, wrapped to 80 columns.
pub(crate) fn of_node(event: &Event, state: &RunState) -> String {
    let time = event.at.strftime("%H:%M:%S").to_string();
    let text = format!("{}  {}", state.plan.target.node, line(event, state));
    format!("{time}  {}", wrapped(&text, 10))
}

fn parts(kind: &EventKind, state: &RunState) -> (Tone, String, String) {
    match kind {
        EventKind::Proposed { plan, digest } => (
            Tone::Strong,
            "proposed".into(),
            format!("{} on {} by {}, plan {}", plan.playbook, target(state), plan.initiator, digest.short()),
        ),
        EventKind::ApprovalRequested { people, expires_at } => (
            Tone::Warn,
            "approval needed".into(),
            format!("{}, until {}", people_words(*people), time(*expires_at)),
        ),
        EventKind::Approved { by, digest, expires_at, .. } => (
            Tone::Good,
            "approved".into(),
            format!("by {by}, plan {}, holds until {}", digest.short(), time(*expires_at)),
        ),
        EventKind::ApprovalVoided { why } => (Tone::Warn, "approval void".into(), why.clone()),
        EventKind::Started { engine } => (Tone::Strong, "started".into(), format!("by {engine}")),
        EventKind::Recovered { engine, why } => {
            (Tone::Warn, "recovered".into(), format!("by {engine}: {why}"))
        }
        EventKind::Intent { effect, attempt, guard, .. } => {
            let again = if *attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
            (Tone::Dim, format!("{} ...", effect_name(state, *effect)), format!("{}{again}", guard.why))
        }
        EventKind::Refused { effect, guard, foreign, .. } => {
            let what = if *foreign { "changed by somebody else" } else { "not done" };
            (Tone::Bad, format!("{}: {what}", effect_name(state, *effect)), guard.why.clone())
        }
        EventKind::Finished { effect, outcome, .. } => {
            let (tone, word) = match outcome.kind {
                OutcomeKind::Succeeded => (Tone::Good, "done"),
                OutcomeKind::Transient => (Tone::Warn, "failed for now"),
                OutcomeKind::Permanent => (Tone::Bad, "failed"),
                OutcomeKind::Ambiguous => (Tone::Warn, "outcome not known"),
                OutcomeKind::Foreign => (Tone::Bad, "changed by somebody else"),
            };
            (tone, format!("{}: {word}", effect_name(state, *effect)), outcome.why.clone())
        }
        EventKind::Resolved { effect, resolution, why, .. } => {
            let (tone, word) = match resolution {
                Resolution::Applied => (Tone::Good, "looked: it took effect"),
                Resolution::NotApplied => (Tone::Warn, "looked: it did not take effect"),
                Resolution::Unclear => (Tone::Bad, "looked: cannot be told"),
                Resolution::Foreign => (Tone::Bad, "looked: changed by somebody else"),
            };
            (tone, format!("{}: {word}", effect_name(state, *effect)), why.clone())
        }
        EventKind::RetryScheduled { effect, attempt, not_before, why } => (
            Tone::Warn,
            format!("{}: again", effect_name(state, *effect)),
            format!("attempt {attempt} not before {}: {why}", time(*not_before)),
        ),
        EventKind::Rehearsed { effect, guard, would, .. } => {
            let name = effect_name(state, *effect);
            match (guard.passed, would.is_empty()) {
                (_, false) => {
                    (Tone::Dim, format!("{name}: in shadow"), format!("would {}", would.join("; ")))
                }
                (true, true) => (Tone::Dim, format!("{name}: in shadow"), "only looked at".into()),
                (false, true) => (Tone::Warn, format!("{name}: in shadow"), guard.why.clone()),
            }
        }
        EventKind::Deferred { why, .. } => (Tone::Warn, "waits".into(), why.clone()),
        EventKind::CancelRequested { by, why } => {
            (Tone::Warn, "cancel asked for".into(), format!("by {by}: {why}"))
        }
        EventKind::RollbackStarted { why } => (Tone::Warn, "going back".into(), why.clone()),
        EventKind::Noted { text } => (Tone::Dim, "note".into(), text.clone()),
        EventKind::Ended { end, why, .. } => (end_tone(*end), end.as_str().replace('_', " "), why.clone()),
    }
}

/// Shows a time to the second.
pub(crate) fn time(t: jiff::Timestamp) -> String {
    t.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Colours an end.
pub(crate) fn end_tone(end: End) -> Tone {
    match end {
        End::Succeeded | End::Shadowed => Tone::Good,
        End::Rejected | End::Cancelled | End::RolledBack | End::HandedOver => Tone::Warn,
        End::Held | End::Stuck => Tone::Bad,
    }
}

/// Names the target of a run.
pub(crate) fn target(state: &RunState) -> String {
    let t = &state.plan.target;
    match &t.gpu {
        Some(g) => format!("{} GPU {} ({})", t.node, g.index, g.bus_id),
        None => t.node.to_string(),
    }
}

/// Shows a value that may be unknown.
pub(crate) fn known<T: std::fmt::Display>(value: &Known<T>) -> String {
    tame(&value.to_string())
}
