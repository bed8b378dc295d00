//! Pass 4: from the tree to the typed playbook, collecting every mistake.

pub(crate) mod field;
mod params;
mod steps;

pub(crate) use params::PARAM_TYPES;
pub(crate) use steps::MAX_ATTEMPTS;

use crate::codes;
use crate::rules;
use crate::source::SourceText;
use crate::template::{self, Names};
use crate::tree::{Kind, Node, short};
use engine_core::condition::{self, Condition, Scope};
use engine_core::diag::{Diagnostic, Severity, Span};
use engine_core::digest::Digest;
use engine_core::playbook::{
    APPROVAL, ApprovalClass, Ends, ParamDecl, Playbook, PlaybookRef, Precondition, Requires, Step, TargetKind,
};
use engine_core::value::Type;
use engine_core::vocabulary::FACTS;
use field::{Fields, name};
use semver::{Version, VersionReq};
use std::collections::{BTreeMap, BTreeSet};

/// Top-level fields, in canonical order.
pub(crate) const FIELDS: &[&str] = &[
    "playbook",
    "version",
    "summary",
    "owner",
    "target",
    "fault",
    "requires",
    "params",
    "select",
    "preconditions",
    "steps",
    "rollback",
    "approval",
    "ends",
];

/// Fields that every playbook has.
pub(crate) const REQUIRED: &[&str] =
    &["playbook", "version", "summary", "owner", "target", "steps", "approval"];

/// The words of `target`.
pub(crate) const TARGETS: &[&str] = &["node", "gpu"];
/// The words of `ends`.
pub(crate) const ENDS: &[&str] = &["drained"];
/// Longest condition, in bytes.
pub(crate) const MAX_CONDITION: usize = 2000;
/// Longest text for people, in characters.
pub(crate) const MAX_TEXT: usize = 200;
/// Longest `otherwise`, in characters.
pub(crate) const MAX_OTHERWISE: usize = 500;
/// Longest list of steps or preconditions.
pub(crate) const MAX_ITEMS: usize = 100;

/// A step with the places that the rules point at.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) step: Step,
    /// The action's name in the source.
    pub(crate) span: Span,
    /// Where `attempts` stands.
    pub(crate) attempts: Option<Span>,
}

/// Everything the rules look at.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) root: &'a Node,
    pub(crate) target: TargetKind,
    pub(crate) steps: Vec<Placed>,
    pub(crate) rollback: Vec<Placed>,
    pub(crate) preconditions: Vec<Precondition>,
    /// Whether all preconditions were understood.
    pub(crate) all_preconditions: bool,
    pub(crate) approval: Option<ApprovalClass>,
    pub(crate) ends_drained: Option<Span>,
    pub(crate) capabilities: Vec<(String, Span)>,
    pub(crate) params: BTreeMap<String, (ParamDecl, Span)>,
    pub(crate) used: BTreeSet<String>,
    /// Whether all steps of both lists were understood; the rules on their order are only judged then.
    pub(crate) complete: bool,
}

/// Collects diagnostics, and what the readers share.
pub(crate) struct Reader<'a> {
    pub(crate) source: &'a SourceText,
    pub(crate) found: Vec<Diagnostic>,
    /// Parameters with their types and the greatest value each may take.
    pub(crate) types: BTreeMap<String, Type>,
    pub(crate) params: BTreeMap<String, (ParamDecl, Span)>,
    /// Names of parameters whose declaration was wrong: their use is not reported again.
    pub(crate) broken_params: BTreeSet<String>,
    pub(crate) gpu: bool,
    /// Names that conditions and templates use.
    pub(crate) used: BTreeSet<String>,
}

/// Reads a playbook from its tree.
pub(crate) fn playbook(
    root: &Node,
    source: &SourceText,
    digest: Digest,
) -> (Option<Playbook>, Vec<Diagnostic>) {
    let mut r = Reader::new(source);
    let read = r.root(root, digest);
    let failed = r.found.iter().any(|d| d.severity == Severity::Error);
    (read.filter(|_| !failed), r.found)
}

impl<'a> Reader<'a> {
    /// Begins to read a document.
    pub(crate) fn new(source: &'a SourceText) -> Self {
        Self {
            source,
            found: Vec::new(),
            types: BTreeMap::new(),
            params: BTreeMap::new(),
            broken_params: BTreeSet::new(),
            gpu: true,
            used: BTreeSet::new(),
        }
    }
}

impl Reader<'_> {
    fn root(&mut self, root: &Node, digest: Digest) -> Option<Playbook> {
        let Kind::Map(_) = root.kind else {
            self.wrong_type(root, "a playbook is a mapping", "start with `playbook: <id>`");
            return None;
        };
        let fields = Fields::of(self, root, "a playbook", FIELDS, REQUIRED);
        let id = fields.get("playbook").and_then(|n| self.name(n, name::ID));
        let version = fields.get("version").and_then(|n| self.version(n));
        let summary = fields.get("summary").and_then(|n| self.prose(n, MAX_TEXT));
        let owner = fields.get("owner").and_then(|n| self.name(n, name::ID));
        let target = fields.get("target").and_then(|n| self.word(n, "target", TARGETS));
        let target = target.map(|t| if t == "node" { TargetKind::Node } else { TargetKind::Gpu });
        // With the target in doubt, facts of GPUs are not reported as well.
        self.gpu = target != Some(TargetKind::Node);
        let fault = fields.get("fault").map(|n| self.names(n, name::ID)).unwrap_or_default();
        let (requires, capabilities) = fields.get("requires").map(|n| self.requires(n)).unwrap_or_default();
        if let Some(n) = fields.get("params") {
            self.read_params(n);
        }
        let select = fields.get("select").and_then(|n| self.condition(n));
        if let (Some(n), Some(TargetKind::Node)) = (fields.get("select"), target) {
            self.found.push(
                Diagnostic::error(
                    codes::SELECT_ON_NODE,
                    "`select` chooses a GPU and the target is a node",
                    n.span,
                    "chooses nothing",
                )
                .with_help("set `target: gpu`, or take `select` out"),
            );
        }
        let given = fields.get("preconditions");
        let preconditions = given.map(|n| self.preconditions(n)).unwrap_or_default();
        let all_preconditions =
            given.is_some_and(|n| matches!(&n.kind, Kind::Seq(items) if items.len() == preconditions.len()));
        let steps = fields.get("steps").map(|n| self.steps(n));
        let rollback = fields.get("rollback").map(|n| self.steps(n));
        let approval = fields.get("approval").and_then(|n| self.approval(n));
        let ends = fields.get("ends").and_then(|n| self.word(n, "ends", ENDS).map(|_| n.span));
        let complete = steps.as_ref().is_some_and(|s| s.1) && rollback.as_ref().is_none_or(|s| s.1);
        let mut draft = Draft {
            root,
            target: target.unwrap_or(TargetKind::Gpu),
            steps: steps.map(|s| s.0).unwrap_or_default(),
            rollback: rollback.map(|s| s.0).unwrap_or_default(),
            preconditions,
            all_preconditions,
            approval,
            ends_drained: ends,
            capabilities,
            params: std::mem::take(&mut self.params),
            used: std::mem::take(&mut self.used),
            complete,
        };
        let end = rules::check(&mut draft, &mut self.found);
        Some(Playbook {
            reference: PlaybookRef { id: id?, version: version?, digest },
            summary: summary?,
            owner: owner?,
            target: target?,
            fault: fault.into_iter().map(|(w, _)| w).collect(),
            requires,
            params: draft.params.into_iter().map(|(k, (d, _))| (k, d)).collect(),
            select,
            preconditions: draft.preconditions,
            steps: draft.steps.into_iter().map(|p| p.step).collect(),
            rollback: draft.rollback.into_iter().map(|p| p.step).collect(),
            approval: approval?,
            ends: end,
        })
    }

    fn version(&mut self, node: &Node) -> Option<Version> {
        let text = match &node.kind {
            Kind::Text(t) => t.clone(),
            // `1.2` is a number in YAML; the message shows what to write.
            Kind::Int(_) | Kind::Float(_) => self.source.slice(node.span).to_owned(),
            _ => {
                self.wrong_type(node, "a version is a text such as 1.2.0", "write three numbers with dots");
                return None;
            }
        };
        match Version::parse(&text) {
            Ok(v) if v.build.is_empty() => Some(v),
            _ => {
                let dots = text.matches('.').count();
                let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.');
                let help = match (digits, dots) {
                    (true, 0) => format!("write {text}.0.0"),
                    (true, 1) => format!("write {text}.0"),
                    _ => "write three numbers with dots and without leading zeros, such as 1.2.0".to_owned(),
                };
                self.found.push(
                    Diagnostic::error(
                        codes::BAD_VERSION,
                        format!("`{}` is not a version", short(&text)),
                        node.span,
                        "not MAJOR.MINOR.PATCH",
                    )
                    .with_help(help),
                );
                None
            }
        }
    }

    fn requires(&mut self, node: &Node) -> (Requires, Vec<(String, Span)>) {
        let fields = Fields::of(self, node, "`requires`", &["slurm", "dcgm", "capabilities"], &[]);
        let slurm = fields.get("slurm").and_then(|n| self.range(n));
        let dcgm = fields.get("dcgm").and_then(|n| self.range(n));
        let capabilities =
            fields.get("capabilities").map(|n| self.names(n, name::CAPABILITY)).unwrap_or_default();
        let words = capabilities.iter().map(|(w, _)| w.clone()).collect();
        (Requires { slurm, dcgm, capabilities: words }, capabilities)
    }

    fn range(&mut self, node: &Node) -> Option<VersionReq> {
        let text = match &node.kind {
            Kind::Text(t) => t.clone(),
            Kind::Int(_) | Kind::Float(_) => {
                let raw = self.source.slice(node.span).to_owned();
                let help = format!("write \">={raw}\", with the quotes");
                self.found.push(
                    Diagnostic::error(codes::BAD_RANGE, "a version range is a text", node.span, "a number")
                        .with_help(help),
                );
                return None;
            }
            _ => {
                self.wrong_type(node, "a version range is a text", "write \">=22.05\", with the quotes");
                return None;
            }
        };
        // Releases such as 22.05 have leading zeros, which semantic versions do not.
        let parsed =
            if text.len() <= 100 { VersionReq::parse(&without_leading_zeros(&text)).ok() } else { None };
        if parsed.is_none() {
            self.found.push(
                Diagnostic::error(
                    codes::BAD_RANGE,
                    format!("`{}` is not a version range", short(&text)),
                    node.span,
                    "not understood",
                )
                .with_help("write \">=22.05\" or \">=3.3, <5\""),
            );
        }
        parsed
    }

    fn approval(&mut self, node: &Node) -> Option<ApprovalClass> {
        let words: Vec<_> = APPROVAL.words.iter().map(|(w, _)| *w).collect();
        Some(match self.word(node, "approval", &words)? {
            "auto" => ApprovalClass::Auto,
            "canary" => ApprovalClass::Canary,
            "hitl" => ApprovalClass::Hitl,
            _ => ApprovalClass::Hitl2,
        })
    }

    fn preconditions(&mut self, node: &Node) -> Vec<Precondition> {
        let Some(items) =
            self.list(node, "`preconditions` is a list of conditions", "write `- node.state in [IDLE]`")
        else {
            return Vec::new();
        };
        let mut out = Vec::new();
        for item in items {
            if let Kind::Map(_) = item.kind {
                let fields = Fields::of(self, item, "a precondition", &["check", "otherwise"], &["check"]);
                let condition = fields.get("check").and_then(|n| self.condition(n));
                let otherwise = fields.get("otherwise").and_then(|n| self.prose(n, MAX_OTHERWISE));
                out.extend(condition.map(|condition| Precondition { condition, otherwise }));
            } else {
                out.extend(self.condition(item).map(|condition| Precondition { condition, otherwise: None }));
            }
        }
        out
    }

    /// Compiles a condition; its diagnostics are placed in the document.
    pub(crate) fn condition(&mut self, node: &Node) -> Option<Condition> {
        let Kind::Text(text) = &node.kind else {
            let help = match node.kind {
                Kind::Bool(_) => "a constant guards nothing: compare a fact, or leave it out",
                _ => {
                    "write a comparison such as `active_jobs == 0`; put it in quotes if YAML reads it otherwise"
                }
            };
            self.wrong_type(node, "a condition is a text", help);
            return None;
        };
        if text.trim().is_empty() || text.len() > MAX_CONDITION {
            let message =
                format!("a condition has 1 to {MAX_CONDITION} bytes, this one has {}", text.trim().len());
            self.found.push(
                Diagnostic::error(codes::BAD_LENGTH, message, node.span, "")
                    .with_help("split it: each item of `preconditions` is one condition, and all must hold"),
            );
            return None;
        }
        if template::is_template(text) {
            let at = ["{{", "{%", "{#"].iter().filter_map(|m| text.find(m)).min().unwrap_or(0);
            self.found.push(
                Diagnostic::error(
                    codes::TEMPLATE_HERE,
                    "a condition is not a template",
                    node.place(Span::new(at, at + 2), self.source),
                    "not rendered here",
                )
                .with_help("write the names without braces: active_jobs == 0"),
            );
            return None;
        }
        let mut scope = Scope::new(FACTS);
        for (name, ty) in &self.types {
            scope = scope.with_param(name, *ty);
        }
        if !self.gpu {
            scope = scope.without_gpu();
        }
        match condition::compile(text, &scope) {
            Ok(c) => {
                self.used.extend(c.facts());
                Some(c)
            }
            Err(found) => {
                for mut d in found {
                    for l in &mut d.labels {
                        l.span = node.place(l.span, self.source);
                    }
                    let about_broken =
                        self.broken_params.iter().any(|p| d.message.contains(&format!("params.{p}")));
                    if !about_broken {
                        self.found.push(d);
                    }
                }
                None
            }
        }
    }

    /// Checks a template of an argument; its diagnostics are placed in the document.
    pub(crate) fn template(&mut self, node: &Node, text: &str) -> Option<template::Checked> {
        match template::check(text, Names { params: &self.types, gpu: self.gpu }) {
            Ok(checked) => {
                self.used.extend(checked.names.iter().cloned());
                Some(checked)
            }
            Err(found) => {
                for mut d in found {
                    for l in &mut d.labels {
                        l.span = node.place(l.span, self.source);
                    }
                    if !self.broken_params.iter().any(|p| d.message.contains(&format!("`{p}`"))) {
                        self.found.push(d);
                    }
                }
                None
            }
        }
    }
}

/// Turns `>=22.05.8` into `>=22.5.8`.
fn without_leading_zeros(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut in_number = false;
    while let Some(c) = chars.next() {
        let more = chars.peek().is_some_and(char::is_ascii_digit);
        if c == '0' && !in_number && more {
            continue;
        }
        in_number = c.is_ascii_digit();
        out.push(c);
    }
    out
}

/// Returns what `ends` means for a playbook that takes the node out or not.
pub(crate) fn end_of(taken_out: bool, left_out: bool) -> Ends {
    match (taken_out, left_out) {
        (false, _) => Ends::Untouched,
        (true, true) => Ends::Drained,
        (true, false) => Ends::InService,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_with_leading_zeros_are_ranges() {
        assert_eq!(without_leading_zeros(">=22.05, <26.00.10"), ">=22.5, <26.0.10");
        let req = VersionReq::parse(&without_leading_zeros(">=22.05")).unwrap();
        assert!(req.matches(&Version::new(22, 5, 8)) && !req.matches(&Version::new(21, 8, 0)));
    }
}
