//! From the tree to the policy, key by key. A key that is left out has its default.

use super::codes;
use crate::read::Reader;
use crate::read::field::Fields;
use crate::source::{SourceText, is_forbidden};
use crate::tree::{Kind, Node, short};
use engine_core::diag::{Diagnostic, Severity, Span};
use engine_core::policy::{
    Approvals, Breaker, Budgets, MAX_NUMBER, MAX_QUORUM, OptOut, Period, Policy, Quorum, Rate, Rates,
    RepeatOffenders, Share, Storm,
};
use std::collections::BTreeMap;

/// Top-level keys, in canonical order.
pub(super) const KEYS: &[&str] = &[
    "budgets",
    "concurrent_runs",
    "rates",
    "attempts",
    "repeat_offenders",
    "windows",
    "freezes",
    "opt_out",
    "canary",
    "stages",
    "roles",
    "approvals",
    "breaker",
    "racks",
    "idle_gap",
];

/// Reads a policy from its tree.
pub(super) fn policy(root: &Node, source: &SourceText) -> (Option<Policy>, Vec<Diagnostic>) {
    let mut r = Reader::new(source);
    let read = r.policy(root);
    let failed = r.found.iter().any(|d| d.severity == Severity::Error);
    (read.filter(|_| !failed), r.found)
}

/// Takes a value that was read, else leaves the default: the diagnostic is there.
pub(super) fn set<T>(to: &mut T, value: Option<T>) {
    if let Some(v) = value {
        *to = v;
    }
}

impl Reader<'_> {
    fn policy(&mut self, root: &Node) -> Option<Policy> {
        let Kind::Map(_) = root.kind else {
            self.wrong_type(
                root,
                "a policy is a mapping",
                "start with `budgets:`; docs/guide/policy.md has every key",
            );
            return None;
        };
        let f = Fields::of(self, root, "a policy", KEYS, &[]);
        let mut p = Policy::default();
        if let Some(n) = f.get("budgets") {
            self.budgets(n, &mut p.budgets);
        }
        if let Some(n) = f.get("concurrent_runs") {
            set(&mut p.concurrent_runs, self.number(n, "concurrent_runs", MAX_NUMBER));
            self.warn_never(n, p.concurrent_runs == 0, "no run ever begins");
        }
        if let Some(n) = f.get("rates") {
            self.rates(n, &mut p.rates);
        }
        if let Some(n) = f.get("attempts") {
            set(&mut p.attempts, self.rate(n));
            self.warn_never(n, p.attempts.most == 0, "no fault is ever worked on");
        }
        if let Some(n) = f.get("repeat_offenders") {
            self.repeat_offenders(n, &mut p.repeat_offenders);
        }
        if let Some(n) = f.get("windows") {
            p.windows = self.windows(n);
        }
        if let Some(n) = f.get("freezes") {
            p.freezes = self.freezes(n);
        }
        if let Some(n) = f.get("opt_out") {
            self.opt_out(n, &mut p.opt_out);
        }
        if let Some(n) = f.get("canary") {
            self.canary(n, &mut p.canary);
        }
        if let Some(n) = f.get("stages") {
            p.stages = self.stages(n);
        }
        if let Some(n) = f.get("roles") {
            self.roles(n, &mut p.roles);
        }
        if let Some(n) = f.get("approvals") {
            self.approvals(n, &mut p.approvals);
        }
        if let Some(n) = f.get("breaker") {
            self.breaker(n, &mut p.breaker);
        }
        if let Some(n) = f.get("racks") {
            self.racks(n, &mut p.racks);
        }
        if let Some(n) = f.get("idle_gap") {
            set(&mut p.idle_gap, self.period(n, "idle_gap", Period::hours(0), Period::hours(7 * 24)));
        }
        self.judge_whole(root, &p);
        Some(p)
    }

    fn budgets(&mut self, node: &Node, to: &mut Budgets) {
        let keys = &["fleet", "partition", "partitions", "rack", "racks", "fabric", "fabrics"];
        let f = Fields::of(self, node, "`budgets`", keys, &[]);
        for (key, share) in [
            ("fleet", &mut to.fleet),
            ("partition", &mut to.partition),
            ("rack", &mut to.rack),
            ("fabric", &mut to.fabric),
        ] {
            if let Some(n) = f.get(key) {
                set(share, self.share(n));
                self.warn_never(n, share.of(usize::MAX) == 0, "no node is ever taken out of service");
            }
        }
        for (key, shares) in
            [("partitions", &mut to.partitions), ("racks", &mut to.racks), ("fabrics", &mut to.fabrics)]
        {
            if let Some(n) = f.get(key) {
                *shares = self.named_shares(n, key);
            }
        }
    }

    fn named_shares(&mut self, node: &Node, what: &str) -> BTreeMap<String, Share> {
        let Kind::Map(entries) = &node.kind else {
            self.wrong_type(node, &format!("`{what}` is a mapping"), "write { name: 2%, other: 4 }");
            return BTreeMap::new();
        };
        let mut out = BTreeMap::new();
        for e in entries {
            let name = self.plain_word(&e.key, e.key_span);
            if let (Some(name), Some(share)) = (name, self.share(&e.value)) {
                out.insert(name, share);
            }
        }
        out
    }

    fn rates(&mut self, node: &Node, to: &mut Rates) {
        let f = Fields::of(self, node, "`rates`", &["reversible", "disruptive", "destructive"], &[]);
        for (key, rate) in [
            ("reversible", &mut to.reversible),
            ("disruptive", &mut to.disruptive),
            ("destructive", &mut to.destructive),
        ] {
            if let Some(n) = f.get(key) {
                set(rate, self.rate(n));
                self.warn_never(n, rate.most == 0, &format!("nothing {key} is ever done"));
            }
        }
    }

    fn repeat_offenders(&mut self, node: &Node, to: &mut RepeatOffenders) {
        let f = Fields::of(self, node, "`repeat_offenders`", &["gpu", "slot"], &[]);
        for (key, rate) in [("gpu", &mut to.gpu), ("slot", &mut to.slot)] {
            if let Some(n) = f.get(key) {
                set(rate, self.rate(n));
            }
        }
    }

    fn opt_out(&mut self, node: &Node, to: &mut OptOut) {
        let f = Fields::of(self, node, "`opt_out`", &["feature", "comment"], &[]);
        if let Some(n) = f.get("feature") {
            let word = self.text(n, "a feature").map(str::to_owned);
            set(&mut to.feature, word.and_then(|w| self.plain_word(&w, n.span)));
        }
        if let Some(n) = f.get("comment") {
            set(&mut to.comment, self.prose(n, 64));
        }
    }

    fn approvals(&mut self, node: &Node, to: &mut Approvals) {
        let keys = &["request_expires", "approval_expires", "program_needs_other", "quorum"];
        let f = Fields::of(self, node, "`approvals`", keys, &[]);
        let (least, most) = (Period::minutes(1), Period::hours(14 * 24));
        if let Some(n) = f.get("request_expires") {
            set(&mut to.request_expires, self.period(n, "request_expires", least, most));
        }
        if let Some(n) = f.get("approval_expires") {
            set(&mut to.approval_expires, self.period(n, "approval_expires", least, Period::hours(24)));
        }
        if let Some(n) = f.get("program_needs_other") {
            match n.kind {
                Kind::Bool(b) => to.program_needs_other = b,
                _ => self.wrong_type(n, "this key is true or false", "write true or false"),
            }
        }
        if let Some(n) = f.get("quorum") {
            self.quorum(n, &mut to.quorum);
        }
    }

    fn quorum(&mut self, node: &Node, to: &mut Quorum) {
        let f = Fields::of(self, node, "`quorum`", &["reversible", "disruptive", "destructive"], &[]);
        for (key, people) in [
            ("reversible", &mut to.reversible),
            ("disruptive", &mut to.disruptive),
            ("destructive", &mut to.destructive),
        ] {
            if let Some(n) = f.get(key) {
                let number = self.number(n, key, u32::from(MAX_QUORUM));
                set(people, number.and_then(|n| u8::try_from(n).ok()));
            }
        }
    }

    fn breaker(&mut self, node: &Node, to: &mut Breaker) {
        let keys = &["fleet", "partition", "racks", "wrongful_actions", "ambiguous_outcomes"];
        let f = Fields::of(self, node, "`breaker`", keys, &[]);
        for (key, storm) in [("fleet", &mut to.fleet), ("partition", &mut to.partition)] {
            if let Some(n) = f.get(key) {
                set(storm, self.storm(n));
            }
        }
        for (key, rate) in [
            ("racks", &mut to.racks),
            ("wrongful_actions", &mut to.wrongful_actions),
            ("ambiguous_outcomes", &mut to.ambiguous_outcomes),
        ] {
            let Some(n) = f.get(key) else { continue };
            match self.rate(n) {
                Some(r) if r.most == 0 => self.problem(
                    codes::BAD_NUMBER,
                    "0 would trip the breaker before anything happened".to_owned(),
                    n.span,
                    "write 1 or more",
                ),
                other => set(rate, other),
            }
        }
    }

    /// Reads a share: `4`, `2%`.
    pub(super) fn share(&mut self, node: &Node) -> Option<Share> {
        let text = self.scalar(
            node,
            codes::BAD_SHARE,
            "write a number of nodes such as 4, or a percentage such as 2%",
        )?;
        Share::parse(&text)
            .map_err(|e| self.problem(codes::BAD_SHARE, e.to_string(), node.span, "write 2% or 4"))
            .ok()
    }

    /// Reads a rate: `10 per 1h`.
    pub(super) fn rate(&mut self, node: &Node) -> Option<Rate> {
        let help = "write 10 per 1h: at most so many in any stretch of that length";
        let text = self.scalar(node, codes::BAD_RATE, help)?;
        match Rate::parse(&text) {
            Ok(r) if r.most > MAX_NUMBER => {
                let says = format!("{} is more than {MAX_NUMBER}", r.most);
                self.problem(codes::BAD_NUMBER, says, node.span, "a limit that never holds is none");
                None
            }
            Ok(r) => Some(r),
            Err(e) => {
                self.problem(codes::BAD_RATE, e.to_string(), node.span, help);
                None
            }
        }
    }

    /// Reads a storm: `10% per 15m`.
    fn storm(&mut self, node: &Node) -> Option<Storm> {
        let help = "write 10% per 15m";
        let text = self.scalar(node, codes::BAD_RATE, help)?;
        Storm::parse(&text).map_err(|e| self.problem(codes::BAD_RATE, e.to_string(), node.span, help)).ok()
    }

    /// Reads a length of time within its range.
    pub(super) fn period(&mut self, node: &Node, what: &str, least: Period, most: Period) -> Option<Period> {
        let help = format!("write a number with a unit, from {least} to {most}, such as {most}");
        let text = self.scalar(node, codes::BAD_PERIOD, &help)?;
        match engine_core::value::parse_duration(&text).map(Period::new) {
            Ok(p) if least <= p && p <= most => Some(p),
            Ok(p) => {
                self.problem(
                    codes::BAD_PERIOD,
                    format!("{what} is {p}, outside its range"),
                    node.span,
                    &help,
                );
                None
            }
            Err(e) => {
                self.problem(codes::BAD_PERIOD, e.to_string(), node.span, &help);
                None
            }
        }
    }

    /// Reads a whole number from 0.
    pub(super) fn number(&mut self, node: &Node, what: &str, most: u32) -> Option<u32> {
        let help = format!("write a whole number from 0 to {most}");
        let Kind::Int(i) = node.kind else {
            self.wrong_type(node, &format!("`{what}` is a whole number"), &help);
            return None;
        };
        let number = u32::try_from(i).ok().filter(|n| *n <= most);
        if number.is_none() {
            self.problem(codes::BAD_NUMBER, format!("`{what}` is {i}, outside its range"), node.span, &help);
        }
        number
    }

    /// Takes the text of a scalar as it is written: `4` and `2%` alike.
    pub(super) fn scalar(&mut self, node: &Node, code: &'static str, help: &str) -> Option<String> {
        match &node.kind {
            Kind::Text(t) => Some(t.clone()),
            Kind::Int(_) | Kind::Float(_) => Some(self.source.slice(node.span).to_owned()),
            _ => {
                self.problem(code, format!("this is {}", node.type_name()), node.span, help);
                None
            }
        }
    }

    /// Reads a name of something outside: a user, a partition, a feature.
    pub(super) fn plain_word(&mut self, text: &str, span: Span) -> Option<String> {
        let bad = |c: char| c.is_whitespace() || is_forbidden(c) || matches!(c, ',' | '"' | '\'' | '`');
        let help = "one name, at most 128 characters, without blanks, commas or quotes";
        if text.is_empty() || text.len() > 128 || text.chars().any(bad) {
            self.problem(codes::BAD_WORD, format!("`{}` is not a name", short(text)), span, help);
            return None;
        }
        Some(text.to_owned())
    }

    /// Reports an error.
    pub(super) fn problem(&mut self, code: &str, says: String, span: Span, help: &str) {
        self.found.push(Diagnostic::error(code, says, span, "").with_help(help));
    }

    fn warn_never(&mut self, node: &Node, never: bool, what: &str) {
        if never {
            self.found.push(
                Diagnostic::warning(codes::NEVER, format!("with 0, {what}"), node.span, "")
                    .with_help("to stop for a while, use `slurmedic pause` or a freeze"),
            );
        }
    }
}
