//! The static rules: what a playbook must be so that it can be proven safe before it runs.
//!
//! They hold rules 5, 6 and 8 of the constitution at load time; the runtime holds them again on live facts.

use crate::codes;
use crate::read::{Draft, Placed, end_of};
use engine_core::action::{ACTIONS, EffectClass, ServiceEffect, Undo};
use engine_core::diag::{Diagnostic, Severity, Span, did_you_mean};
use engine_core::playbook::{ApprovalClass, Ends, TargetKind};
use std::collections::BTreeSet;

/// Judges a draft; returns how its good end leaves the node.
pub(crate) fn check(draft: &mut Draft<'_>, found: &mut Vec<Diagnostic>) -> Ends {
    let steps_at = place_of(draft, "steps");
    if draft.complete && draft.steps.is_empty() {
        found.push(
            Diagnostic::error(codes::NO_STEPS, "the playbook has no steps", steps_at, "empty")
                .with_help("add at least one action; `slurmedic actions` lists them"),
        );
    }
    attempts(draft, found);
    targets(draft, found);
    let end = if draft.complete { service(draft, found) } else { Ends::Untouched };
    if draft.complete {
        rollback(draft, found);
        capabilities(draft, found);
        unused_params(draft, found);
    }
    permission(draft, found);
    end
}

fn place_of(draft: &Draft<'_>, key: &str) -> Span {
    draft.root.get(key).map_or(Span::default(), |e| e.key_span)
}

fn attempts(draft: &Draft<'_>, found: &mut Vec<Diagnostic>) {
    for p in draft.steps.iter().chain(&draft.rollback) {
        if p.step.action.effect.needs_verification() && p.step.attempts.is_some_and(|n| n > 1) {
            found.push(
                Diagnostic::error(
                    codes::BAD_ATTEMPTS,
                    format!(
                        "`{}` is {} and never repeated by itself",
                        p.step.action.name,
                        p.step.action.effect.as_str()
                    ),
                    p.attempts.unwrap_or(p.span),
                    "more than one",
                )
                .with_help("take `attempts` out: after a failure a person looks at the node"),
            );
        }
    }
}

fn targets(draft: &Draft<'_>, found: &mut Vec<Diagnostic>) {
    if draft.target != TargetKind::Node {
        return;
    }
    for p in draft.steps.iter().chain(&draft.rollback).filter(|p| p.step.action.needs_gpu) {
        let target = draft.root.get("target").map_or(Span::default(), |e| e.value.span);
        found.push(
            Diagnostic::error(
                codes::NEEDS_GPU,
                format!("`{}` is for a GPU, and the target is a node", p.step.action.name),
                p.span,
                "needs a GPU",
            )
            .with_label(target, "the target")
            .with_help("set `target: gpu`"),
        );
    }
}

/// Follows the node through the steps: out of service, idle, disturbed, verified, given back.
fn service(draft: &Draft<'_>, found: &mut Vec<Diagnostic>) -> Ends {
    let mut out: Option<&Placed> = None;
    let mut ever_out = false;
    let mut idle = false;
    let mut unverified: Vec<&Placed> = Vec::new();
    for p in &draft.steps {
        let spec = p.step.action;
        if spec.effect.needs_verification() {
            if out.is_none() || !idle {
                let missing = match (out.is_some(), idle) {
                    (false, _) => "no step before it takes the node out of service",
                    _ => "no `slurm.wait_idle` stands between the drain and it",
                };
                found.push(
                    Diagnostic::error(
                        codes::NOT_TAKEN_OUT,
                        format!("`{}` comes before the node is out of service and idle", spec.name),
                        p.span,
                        missing,
                    )
                    .with_help("put `slurm.drain` and `slurm.wait_idle` before it"),
                );
            }
            unverified.push(p);
        }
        if spec.verifies {
            unverified.clear();
        }
        match spec.service {
            ServiceEffect::TakesOut => {
                out = Some(p);
                ever_out = true;
                idle = false;
            }
            ServiceEffect::GivesBack => {
                if out.is_none() {
                    found.push(
                        Diagnostic::error(
                            codes::NOT_OURS,
                            format!("`{}` gives back a node that no step took out", spec.name),
                            p.span,
                            "not taken out before",
                        )
                        .with_help("put `slurm.drain` before it, or take it out: a drain that is not ours is never lifted"),
                    );
                }
                for u in unverified.drain(..) {
                    found.push(
                        Diagnostic::error(
                            codes::RETURN_UNVERIFIED,
                            format!("the node returns to service unverified after `{}`", u.step.action.name),
                            p.span,
                            "gives the node back here",
                        )
                        .with_label(u.span, "disturbs the hardware, and nothing verifies it in between")
                        .with_help(format!("put `{}` between the two", verifier())),
                    );
                }
                out = None;
                idle = false;
            }
            ServiceEffect::None => {
                if spec.name == "slurm.wait_idle" && out.is_some() {
                    idle = true;
                }
            }
        }
    }
    for u in unverified {
        found.push(
            Diagnostic::error(
                codes::UNVERIFIED_STEP,
                format!("nothing verifies the hardware after `{}`", u.step.action.name),
                u.span,
                format!("{}, and no verification behind it", u.step.action.effect.as_str()),
            )
            .with_help(format!("add `- {}` behind it", verifier())),
        );
    }
    match (out, draft.ends_drained) {
        (Some(p), None) => found.push(
            Diagnostic::error(
                codes::LEFT_DRAINED,
                "the good end leaves the node drained",
                p.span,
                "takes the node out, and no later step gives it back",
            )
            .with_help("end with a verification and `slurm.resume`, or say `ends: drained`"),
        ),
        (None, Some(at)) => found.push(
            Diagnostic::error(
                codes::WRONG_END,
                "the good end does not leave the node drained",
                at,
                if ever_out { "the last steps give the node back" } else { "no step takes the node out" },
            )
            .with_help("take `ends` out"),
        ),
        _ => {}
    }
    end_of(ever_out, out.is_some())
}

fn verifier() -> &'static str {
    ACTIONS.iter().find(|a| a.verifies).map_or("a verification", |a| a.name)
}

fn rollback(draft: &Draft<'_>, found: &mut Vec<Diagnostic>) {
    for p in &draft.rollback {
        let spec = p.step.action;
        if spec.effect.needs_verification() {
            found.push(
                Diagnostic::error(
                    codes::DISRUPTIVE_ROLLBACK,
                    format!("`{}` is {}: it has no place in a rollback", spec.name, spec.effect.as_str()),
                    p.span,
                    spec.effect.as_str(),
                )
                .with_help("take it out: when a run fails the node stays drained and a person is called"),
            );
            continue;
        }
        let undoes = draft.steps.iter().any(|s| s.step.action.undo == Undo::Action(spec.name));
        if spec.effect > EffectClass::Annotate && !undoes {
            found.push(
                Diagnostic::error(
                    codes::USELESS_ROLLBACK,
                    format!("`{}` undoes nothing that the steps do", spec.name),
                    p.span,
                    "undoes nothing",
                )
                .with_help("take it out"),
            );
        }
    }
}

fn capabilities(draft: &Draft<'_>, found: &mut Vec<Diagnostic>) {
    let used: BTreeSet<&str> =
        draft.steps.iter().chain(&draft.rollback).map(|p| p.step.action.capability).collect();
    let mut missing: BTreeSet<&str> = BTreeSet::new();
    for p in draft.steps.iter().chain(&draft.rollback) {
        let spec = p.step.action;
        // Reading Slurm is what the engine does everywhere, and giving back belongs to taking out.
        let implied = matches!(spec.capability, "slurm.read" | "slurm.resume");
        let listed = draft.capabilities.iter().any(|(c, _)| c == spec.capability);
        if implied || listed || !missing.insert(spec.capability) {
            continue;
        }
        let mut d = Diagnostic::error(
            codes::MISSING_CAPABILITY,
            format!("`{}` needs the capability `{}`, which is not required", spec.name, spec.capability),
            p.span,
            format!("needs {}", spec.capability),
        );
        // What only looks, and proves nothing, is no reason to refuse a playbook.
        if !spec.effect.mutates() && !spec.verifies {
            d.severity = Severity::Warning;
        }
        if let Some(e) = draft.root.get("requires") {
            d = d.with_label(e.key_span, "is not listed here");
        }
        found.push(d.with_help(format!("add it: requires: {{ capabilities: [{}] }}", {
            let mut all: Vec<&str> = draft.capabilities.iter().map(|(c, _)| c.as_str()).collect();
            all.push(spec.capability);
            all.join(", ")
        })));
    }
    for (c, span) in &draft.capabilities {
        if used.contains(c.as_str()) {
            continue;
        }
        let known = || ACTIONS.iter().map(|a| a.capability);
        if known().any(|k| k == c) {
            found.push(
                Diagnostic::warning(
                    codes::UNUSED_CAPABILITY,
                    format!("no step needs the capability `{c}`"),
                    *span,
                    "not used",
                )
                .with_help("take it out"),
            );
        } else {
            let help = match did_you_mean(c, known()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`slurmedic actions` shows the capability of each action".to_owned(),
            };
            found.push(
                Diagnostic::error(
                    codes::UNUSED_CAPABILITY,
                    format!("there is no capability `{c}`"),
                    *span,
                    "unknown capability",
                )
                .with_help(help),
            );
        }
    }
}

fn unused_params(draft: &Draft<'_>, found: &mut Vec<Diagnostic>) {
    for (name, (_, span)) in &draft.params {
        if !draft.used.contains(&format!("params.{name}")) {
            found.push(
                Diagnostic::warning(
                    codes::UNUSED_PARAM,
                    format!("the parameter `{name}` is not used"),
                    *span,
                    "has no effect",
                )
                .with_help(format!("use it as {{{{ params.{name} }}}}, or take it out")),
            );
        }
    }
}

/// Who may let it run, and on what grounds.
fn permission(draft: &Draft<'_>, found: &mut Vec<Diagnostic>) {
    let worst = draft.steps.iter().max_by_key(|p| p.step.action.effect);
    let Some(worst) = worst.filter(|p| p.step.action.effect > EffectClass::Annotate) else { return };
    if draft.approval == Some(ApprovalClass::Auto) {
        let at = draft.root.get("approval").map_or(worst.span, |e| e.value.span);
        found.push(
            Diagnostic::error(
                codes::AUTO_MUTATES,
                format!("`{}` changes something, and nobody is asked", worst.step.action.name),
                at,
                "asks nobody",
            )
            .with_label(worst.span, worst.step.action.effect.as_str())
            .with_help(
                "write `approval: hitl`, or `canary` to go on without a person inside the canary scope",
            ),
        );
    }
    let given = draft.root.get("preconditions");
    if !given.is_some_and(|e| e.value.kind != crate::tree::Kind::Null && !is_empty(&e.value)) {
        let at = given.map_or_else(|| place_of(draft, "steps"), |e| e.key_span);
        found.push(
            Diagnostic::error(
                codes::NO_PRECONDITIONS,
                format!(
                    "the playbook changes something (`{}`) and has no preconditions",
                    worst.step.action.name
                ),
                at,
                "would run on any node",
            )
            .with_help("add `preconditions:` with at least `- node.state in [IDLE, MIXED, ALLOCATED]`"),
        );
        return;
    }
    let drains = draft.steps.iter().find(|p| p.step.action.service == ServiceEffect::TakesOut);
    let looks = draft.preconditions.iter().any(|p| p.condition.facts().contains("node.state"));
    if let (Some(p), false, true) = (drains, looks, draft.all_preconditions) {
        found.push(
            Diagnostic::warning(
                codes::NO_NODE_STATE,
                "no precondition looks at `node.state`, and the playbook takes the node out",
                place_of(draft, "preconditions"),
                "node.state is not asked for",
            )
            .with_label(p.span, "takes the node out")
            .with_help("add `- node.state in [IDLE, MIXED, ALLOCATED, COMPLETING]`"),
        );
    }
}

fn is_empty(node: &crate::tree::Node) -> bool {
    matches!(&node.kind, crate::tree::Kind::Seq(items) if items.is_empty())
}
