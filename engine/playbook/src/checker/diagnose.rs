//! What the checker found, as diagnostics at their places in the text.

use super::{Finding, Refusal, Report, Rule, check};
use crate::codes;
use crate::source::SourceText;
use crate::tree::{self, Kind, Node};
use engine_core::diag::{Diagnostic, Span};
use engine_core::playbook::Playbook;
use engine_core::run::Effect;

/// A playbook that was checked.
#[derive(Debug, Clone)]
pub struct Checked {
    /// How it came out.
    pub outcome: Result<Report, Box<Refusal>>,
    /// The same, at its place: one error, or warnings.
    pub diagnostics: Vec<Diagnostic>,
}

/// Checks a playbook that loaded without errors, and places what is found in its text.
pub fn lint(playbook: &Playbook, source: &SourceText) -> Checked {
    let outcome = check(playbook);
    let diagnostics = match &outcome {
        Ok(report) => report
            .idle_rollback
            .iter()
            .map(|i| idle(playbook, *i, place(source, Some(Effect::Undo(*i)), "rollback")))
            .collect(),
        Err(refusal) => vec![refused(playbook, refusal, source)],
    };
    Checked { outcome, diagnostics }
}

/// Places a refusal.
pub(crate) fn refused(playbook: &Playbook, refusal: &Refusal, source: &SourceText) -> Diagnostic {
    let (code, key, label, help) = match &refusal.finding {
        Finding::Broken(b) if b.rule == Rule::Job => (
            codes::JOB_LOST,
            "steps",
            "a job may be on the node here",
            "put `slurm.drain` and `slurm.wait_idle` before it, and `when: active_jobs == 0` beside it",
        ),
        Finding::Broken(b) if b.effect.is_some() => {
            (codes::RULE_BROKEN, "steps", "begun when it breaks", "follow the lines below from the top")
        }
        Finding::Broken(_) => {
            (codes::RULE_BROKEN, "steps", "in a run of these", "follow the lines below from the top")
        }
        Finding::NoGoodEnd { stuck_at: Some(Effect::Step(_)), .. } => {
            (codes::NO_GOOD_END, "steps", "never done", "the lines below show how far a run gets")
        }
        Finding::NoGoodEnd { .. } => (
            codes::NO_GOOD_END,
            if playbook.preconditions.is_empty() { "steps" } else { "preconditions" },
            "no run gets past here",
            "`slurmedic facts node.state` shows which states there are",
        ),
        Finding::Limit { .. } => (
            codes::NOT_ALL_SEEN,
            "steps",
            "too many ways through these",
            "take steps out, lower `attempts`, or make two playbooks of one",
        ),
        Finding::Unplayable(_) => {
            (codes::NOT_ALL_SEEN, "steps", "cannot be played", "this is a fault of the checker: report it")
        }
    };
    Diagnostic::error(code, refusal.sentence(), place(source, refusal.effect(), key), label).with_help(help)
}

fn idle(playbook: &Playbook, at: usize, span: Span) -> Diagnostic {
    let action = playbook.rollback.get(at).map_or("", |s| s.action.name);
    Diagnostic::warning(
        codes::IDLE_ROLLBACK,
        format!("`{action}` in the rollback is never carried out"),
        span,
        "takes nothing back",
    )
    .with_help("take it out: the way back only takes back what was done")
}

/// The place of a step, by its action's name; else of the field.
fn place(source: &SourceText, effect: Option<Effect>, key: &str) -> Span {
    let Some(root) = tree::read(source).0 else { return Span::default() };
    let step = match effect {
        Some(Effect::Step(i)) => item(&root, "steps", i),
        Some(Effect::Undo(i)) => item(&root, "rollback", i),
        Some(Effect::Lock | Effect::Hold | Effect::Unlock) | None => None,
    };
    step.or_else(|| root.get(key).map(|e| e.key_span)).unwrap_or_default()
}

fn item(root: &Node, list: &str, at: usize) -> Option<Span> {
    let Kind::Seq(items) = &root.get(list)?.value.kind else { return None };
    let item = items.get(at)?;
    Some(match &item.kind {
        Kind::Map(entries) => entries.iter().find(|e| e.key.contains('.'))?.key_span,
        _ => item.span,
    })
}
