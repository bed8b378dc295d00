//! Canonical formatting: order of fields, two blanks of indentation, spacing of flow collections.
//!
//! Values and comments are copied as they were written. The result is only used when it reads as the same values with
//! the same comments; else the text stays as it is.

use crate::read::FIELDS;
use crate::source::SourceText;
use crate::tree::{self, Entry, Kind, Node, Written};
use engine_core::diag::Diagnostic;
use std::collections::BTreeMap;

/// Longest line that a flow collection written over several lines is folded into.
const WIDTH: usize = 110;

/// What came of formatting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formatted {
    /// The text, formatted or as it was.
    pub text: String,
    /// Why the text was left as it is, where it was.
    pub kept: Option<&'static str>,
}

/// Formats a playbook; one that is no YAML, or holds what a playbook must not hold, cannot be formatted.
pub fn format(bytes: &[u8], file: &str) -> Result<Formatted, Vec<Diagnostic>> {
    let (source, found) = SourceText::read(bytes, file);
    if !found.is_empty() {
        return Err(found);
    }
    let (tree, found) = tree::read(&source);
    let Some(tree) = tree.filter(|_| found.is_empty()) else { return Err(found) };
    let kept = |why| Formatted { text: source.text.clone(), kept: Some(why) };
    let Some(text) = write(&source, &tree) else {
        return Ok(kept(
            "it has a comment inside a list or mapping on several lines, or an explicit indentation",
        ));
    };
    let again = SourceText::new(file, text.as_str());
    let (other, found) = tree::read(&again);
    let Some(other) = other.filter(|_| found.is_empty()) else {
        return Ok(kept("formatting would break it"));
    };
    let comments = |s: &SourceText, t: &Node| {
        let mut all: Vec<String> = Layout::of(s, t).map(|l| l.all_comments()).unwrap_or_default();
        all.sort();
        all
    };
    if !tree.same_values(&other) || comments(&source, &tree) != comments(&again, &other) {
        return Ok(kept("formatting would change its meaning or lose a comment"));
    }
    if write(&again, &other).as_deref() != Some(text.as_str()) {
        return Ok(kept("its form cannot be settled"));
    }
    Ok(Formatted { text, kept: None })
}

fn write(source: &SourceText, tree: &Node) -> Option<String> {
    let layout = Layout::of(source, tree)?;
    let mut w = Writer { source, layout, out: String::new(), gave_up: false };
    w.top(tree);
    (!w.gave_up).then_some(w.out)
}

/// Comments and blank lines of a text, by what they belong to.
#[derive(Debug, Default)]
struct Layout {
    /// Own-line comments and blank lines (empty texts) before the thing that starts at a byte.
    before: BTreeMap<usize, Vec<String>>,
    /// Comments at the end of a line, by the line from 1.
    behind: BTreeMap<usize, String>,
    /// Comments after the last thing.
    last: Vec<String>,
}

impl Layout {
    /// Sorts out comments; `None` where one stands inside a flow collection or a text of several lines.
    fn of(source: &SourceText, tree: &Node) -> Option<Self> {
        let mut leaves = Vec::new();
        let mut anchors = Vec::new();
        collect(tree, &mut leaves, &mut anchors);
        leaves.sort_unstable();
        anchors.sort_unstable();
        let mut out = Self::default();
        let mut pending: Vec<String> = Vec::new();
        let (mut at, mut leaf, mut anchor) = (0, 0, 0);
        for (number, line) in source.text.split_inclusive('\n').enumerate() {
            let (start, end) = (at, at + line.trim_end().len());
            at += line.len();
            while leaves.get(leaf).is_some_and(|(_, e)| *e <= start) {
                leaf += 1;
            }
            let inside = leaves.get(leaf).is_some_and(|(s, e)| *s < start && *e > start);
            if !inside && end == start {
                if pending.last().is_none_or(|p| !p.is_empty()) {
                    pending.push(String::new());
                }
                continue;
            }
            let comment = comment_in(source, start, end, &leaves[leaf..]);
            let text = comment.map(|c| source.text[c..end].trim_end().to_owned());
            let own = comment.is_some_and(|c| source.text[start..c].trim().is_empty());
            if own {
                pending.extend(text);
                continue;
            }
            while anchors.get(anchor).is_some_and(|a| *a < start) {
                anchor += 1;
            }
            match anchors.get(anchor) {
                Some(a) if *a < at => {
                    if !pending.is_empty() {
                        out.before.insert(*a, std::mem::take(&mut pending));
                    }
                }
                _ => {
                    if pending.iter().any(|p| !p.is_empty()) {
                        return None;
                    }
                    pending.clear();
                }
            }
            if let Some(text) = text {
                out.behind.insert(number + 1, text);
            }
        }
        while pending.last().is_some_and(String::is_empty) {
            pending.pop();
        }
        out.last = pending;
        Some(out)
    }

    fn all_comments(&self) -> Vec<String> {
        let before = self.before.values().flatten();
        before.chain(self.behind.values()).chain(&self.last).filter(|c| !c.is_empty()).cloned().collect()
    }
}

/// Finds the `#` of a comment in a line: behind a blank or at its start, outside of every scalar.
fn comment_in(source: &SourceText, start: usize, end: usize, leaves: &[(usize, usize)]) -> Option<usize> {
    let bytes = source.text.as_bytes();
    (start..end).find(|i| {
        bytes[*i] == b'#'
            && (*i == start || matches!(bytes[*i - 1], b' ' | b'\t'))
            && !leaves.iter().take_while(|(s, _)| *s <= *i).any(|(_, e)| *e > *i)
    })
}

/// Collects the spans of scalars and keys, and the starts of what is written on lines of its own.
fn collect(node: &Node, leaves: &mut Vec<(usize, usize)>, anchors: &mut Vec<usize>) {
    match &node.kind {
        Kind::Seq(items) => {
            for i in items {
                anchors.push(i.span.start);
                collect(i, leaves, anchors);
            }
        }
        Kind::Map(entries) => {
            for e in entries {
                anchors.push(e.key_span.start);
                leaves.push((e.key_span.start, e.key_span.end));
                collect(&e.value, leaves, anchors);
            }
        }
        _ => leaves.push((node.span.start, node.span.end)),
    }
}

struct Writer<'a> {
    source: &'a SourceText,
    layout: Layout,
    out: String,
    gave_up: bool,
}

/// How the keys of a mapping are put in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    AsWritten,
    Top,
    Step,
    Fields(&'static [&'static str]),
}

impl Order {
    fn rank(self, key: &str) -> usize {
        let place = |known: &[&str]| known.iter().position(|k| *k == key);
        match self {
            Self::AsWritten => 0,
            Self::Top => place(FIELDS).unwrap_or(FIELDS.len()),
            Self::Step => place(&["when", "timeout", "attempts"]).map_or(0, |i| i + 1),
            Self::Fields(known) => place(known).unwrap_or(known.len()),
        }
    }

    fn sort(self, entries: &[Entry]) -> Vec<&Entry> {
        let mut out: Vec<&Entry> = entries.iter().collect();
        out.sort_by_key(|e| self.rank(&e.key));
        out
    }
}

/// The orders inside the value of a top-level field: of the value itself, and of what it holds.
fn orders(key: &str) -> (Order, Order) {
    match key {
        "steps" | "rollback" => (Order::AsWritten, Order::Step),
        "preconditions" => (Order::AsWritten, Order::Fields(&["check", "otherwise"])),
        "params" => (Order::AsWritten, Order::Fields(&["type", "default", "min", "max", "doc"])),
        "requires" => (Order::Fields(&["slurm", "dcgm", "capabilities"]), Order::AsWritten),
        _ => (Order::AsWritten, Order::AsWritten),
    }
}

impl Writer<'_> {
    fn top(&mut self, tree: &Node) {
        let Kind::Map(entries) = &tree.kind else {
            self.gave_up = true;
            return;
        };
        // A comment at the top with a blank line behind it is about the file, not about the first field.
        if let Some(lead) = entries.first().and_then(|e| self.layout.before.get_mut(&e.key_span.start))
            && let Some(blank) = lead.iter().rposition(String::is_empty).filter(|i| *i > 0)
        {
            let head: Vec<String> = lead.drain(..=blank).collect();
            for line in head.iter().skip_while(|l| l.is_empty()) {
                self.out.push_str(line);
                self.out.push('\n');
            }
        }
        for e in Order::Top.sort(entries) {
            let (value, inner) = orders(&e.key);
            self.before(e.key_span.start, 0);
            self.entry(e, 0, value, inner);
        }
        for c in std::mem::take(&mut self.layout.last) {
            self.out.push_str(&c);
            self.out.push('\n');
        }
    }

    /// Writes the comments and the blank line that stand before something.
    fn before(&mut self, start: usize, indent: usize) {
        for line in self.layout.before.remove(&start).unwrap_or_default() {
            if line.is_empty() {
                if !self.out.is_empty() && !self.out.ends_with("\n\n") {
                    self.out.push('\n');
                }
                continue;
            }
            self.indent(indent);
            self.out.push_str(&line);
            self.out.push('\n');
        }
    }

    fn indent(&mut self, indent: usize) {
        self.out.extend(std::iter::repeat_n(' ', indent));
    }

    /// Ends a line, with the comment that stood behind it.
    fn end_line(&mut self, source_at: usize) {
        let line = self.source.position(source_at).line;
        if let Some(c) = self.layout.behind.remove(&line) {
            self.out.push_str("  ");
            self.out.push_str(&c);
        }
        self.out.push('\n');
    }

    /// Writes `key: value` where the cursor stands.
    fn entry(&mut self, e: &Entry, indent: usize, value: Order, inner: Order) {
        self.out.push_str(self.source.slice(e.key_span));
        self.out.push(':');
        let v = &e.value;
        match &v.kind {
            Kind::Null if v.span == e.key_span => self.end_line(e.key_span.start),
            Kind::Map(entries) if !self.stays_flow(v, value, inner) => {
                self.end_line(e.key_span.start);
                for x in value.sort(entries) {
                    self.before(x.key_span.start, indent + 2);
                    self.indent(indent + 2);
                    self.entry(x, indent + 2, inner, Order::AsWritten);
                }
            }
            Kind::Seq(items) if !self.stays_flow(v, value, inner) => {
                self.end_line(e.key_span.start);
                for i in items {
                    self.before(i.span.start, indent + 2);
                    self.indent(indent + 2);
                    self.item(i, indent + 2, inner);
                }
            }
            _ => {
                self.out.push(' ');
                self.inline(v, indent, value, inner);
            }
        }
    }

    /// Writes `- value` where the cursor stands.
    fn item(&mut self, node: &Node, indent: usize, order: Order) {
        self.out.push_str("- ");
        match &node.kind {
            Kind::Map(entries) if !self.stays_flow(node, order, Order::AsWritten) => {
                for (n, x) in order.sort(entries).into_iter().enumerate() {
                    if n > 0 {
                        self.before(x.key_span.start, indent + 2);
                        self.indent(indent + 2);
                    } else {
                        // Comments of a key that moved to the front go before the item: there is no other place.
                        let lead = self.layout.before.remove(&x.key_span.start);
                        self.gave_up |= lead.is_some_and(|l| l.iter().any(|c| !c.is_empty()));
                    }
                    self.entry(x, indent + 2, Order::AsWritten, Order::AsWritten);
                }
            }
            Kind::Seq(_) if !self.stays_flow(node, order, Order::AsWritten) => self.gave_up = true,
            _ => self.inline(node, indent, order, Order::AsWritten),
        }
    }

    /// Says whether a collection is written in one line: it was, or it was a flow one and fits.
    fn stays_flow(&self, node: &Node, value: Order, inner: Order) -> bool {
        let raw = self.source.slice(node.span);
        if !raw.starts_with(['{', '[']) || node.written != Written::Collection {
            return false;
        }
        let empty = matches!(&node.kind, Kind::Seq(x) if x.is_empty())
            || matches!(&node.kind, Kind::Map(x) if x.is_empty());
        !raw.contains('\n') || empty || self.flow(node, value, inner).is_some_and(|t| t.len() <= WIDTH - 20)
    }

    fn inline(&mut self, node: &Node, indent: usize, value: Order, inner: Order) {
        match (&node.kind, node.written) {
            (Kind::Seq(_) | Kind::Map(_), _) => match self.flow(node, value, inner) {
                Some(text) => self.out.push_str(&text),
                None => self.gave_up = true,
            },
            (_, Written::Block) => {
                self.block(node, indent);
                return;
            }
            _ => self.scalar(node, indent),
        }
        self.end_line(node.span.end.saturating_sub(1).max(node.span.start));
    }

    /// Copies a scalar; further lines are indented below their key.
    fn scalar(&mut self, node: &Node, indent: usize) {
        let raw = self.source.slice(node.span);
        for (n, line) in raw.lines().enumerate() {
            if n > 0 {
                self.out.push('\n');
                if !line.trim().is_empty() {
                    self.indent(indent + 2);
                }
            }
            self.out.push_str(if n == 0 { line.trim_end() } else { line.trim() });
        }
    }

    /// Copies a block scalar with its content moved to its new indentation.
    fn block(&mut self, node: &Node, indent: usize) {
        let raw = self.source.slice(node.span);
        let (header, body) = raw.split_once('\n').unwrap_or((raw, ""));
        let header = header.trim_end();
        if !header.starts_with(['|', '>']) || header.chars().any(|c| c.is_ascii_digit() || c == '#') {
            self.gave_up = true;
            return;
        }
        self.out.push_str(header);
        self.out.push('\n');
        let depth = |l: &str| l.len() - l.trim_start_matches(' ').len();
        let least = body.lines().filter(|l| !l.trim().is_empty()).map(depth).min().unwrap_or(0);
        for line in body.lines() {
            if let Some(rest) = line.get(least..).filter(|r| !r.trim().is_empty()) {
                self.indent(indent + 2);
                self.out.push_str(rest.trim_end_matches('\r'));
            }
            self.out.push('\n');
        }
    }

    /// Writes a value in one line; `None` where that cannot be.
    fn flow(&self, node: &Node, value: Order, inner: Order) -> Option<String> {
        match &node.kind {
            Kind::Seq(items) => {
                let parts: Option<Vec<_>> =
                    items.iter().map(|i| self.flow(i, inner, Order::AsWritten)).collect();
                Some(format!("[{}]", parts?.join(", ")))
            }
            Kind::Map(entries) if entries.is_empty() => Some("{}".to_owned()),
            Kind::Map(entries) => {
                let mut parts = Vec::new();
                for e in value.sort(entries) {
                    let key = self.source.slice(e.key_span);
                    if e.value.kind == Kind::Null && e.value.span == e.key_span {
                        parts.push(format!("{key}:"));
                    } else {
                        parts.push(format!("{key}: {}", self.flow(&e.value, inner, Order::AsWritten)?));
                    }
                }
                Some(format!("{{ {} }}", parts.join(", ")))
            }
            _ => {
                let raw = self.source.slice(node.span);
                (!raw.contains('\n')).then(|| raw.to_owned())
            }
        }
    }
}
