//! The document as a tree of values with the place of each: passes 2 and 3 of the loader.
//!
//! Pass 2 walks the events of one YAML parser, refusing what a playbook must not hold (duplicate keys, anchors,
//! aliases, tags, merge keys, several documents, deep or huge structures) before the second parser sees the text.
//! Pass 3 lets `serde_yaml` decide what the scalars mean, and refuses a text that the two read differently.

use crate::codes;
use crate::source::SourceText;
use engine_core::diag::{Diagnostic, Span};
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_yaml::Value as Yaml;
use std::collections::BTreeMap;

/// Deepest nesting of mappings and lists.
pub(crate) const MAX_DEPTH: usize = 24;
/// Most values in one document.
pub(crate) const MAX_NODES: usize = 10_000;
/// Most diagnostics of this pass.
const MAX_FOUND: usize = 50;

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    /// A number that is no `i64`: real, or too large.
    Float(f64),
    Text(String),
    Seq(Vec<Node>),
    Map(Vec<Entry>),
}

/// How a scalar was written, or that it is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    Plain,
    Quoted,
    Block,
    Collection,
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
    pub(crate) written: Written,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) value: Node,
}

impl Node {
    /// Names the type for messages.
    pub(crate) fn type_name(&self) -> &'static str {
        match &self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "true or false",
            Kind::Int(_) | Kind::Float(_) => "a number",
            Kind::Text(_) => "a text",
            Kind::Seq(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }

    /// Returns the entry of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|e| e.key == key),
            _ => None,
        }
    }

    /// Says whether two trees hold the same values, whatever the order of keys and the places.
    pub(crate) fn same_values(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Seq(a), Kind::Seq(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.same_values(y))
            }
            (Kind::Map(a), Kind::Map(b)) => {
                a.len() == b.len()
                    && a.iter().all(|e| b.iter().any(|o| o.key == e.key && e.value.same_values(&o.value)))
            }
            (a, b) => a == b,
        }
    }

    /// Returns the bytes of the source that a text's bytes were written with, where they are the same.
    pub(crate) fn text_offset(&self, source: &SourceText) -> Option<usize> {
        let Kind::Text(t) = &self.kind else { return None };
        let inner = match self.written {
            Written::Plain => self.span,
            Written::Quoted => Span::new(self.span.start + 1, self.span.end.saturating_sub(1)),
            Written::Block | Written::Collection => return None,
        };
        (source.slice(inner) == t.as_str()).then_some(inner.start)
    }

    /// Places a span of the text in the document; the whole value where the writing differs from the text.
    pub(crate) fn place(&self, inside: Span, source: &SourceText) -> Span {
        self.text_offset(source).map_or(self.span, |by| inside.shifted(by))
    }
}

/// Reads a checked text. A tree comes back whenever one can be made, so that later passes can go on finding mistakes;
/// it is only meant for use when there are no diagnostics.
pub(crate) fn read(source: &SourceText) -> (Option<Node>, Vec<Diagnostic>) {
    let mut builder = Builder::new(source);
    let mut tree = builder.run();
    let mut found = builder.found;
    if !found.is_empty() {
        return (tree, found);
    }
    let value = match serde_yaml::from_str::<Yaml>(&source.text) {
        Ok(v) => v,
        Err(e) => {
            let at = e.location().map_or(0, |l| source.offset(l.line(), l.column()));
            found.push(syntax(&clean(&e.to_string()), Span::new(at, at)));
            return (None, found);
        }
    };
    if let Some(t) = &mut tree {
        settle(t, &value, &mut found);
    }
    (tree, found)
}

fn syntax(message: &str, span: Span) -> Diagnostic {
    Diagnostic::error(codes::SYNTAX, format!("this is not YAML: {message}"), span, "the parser stopped here")
        .with_help(
            "check indentation and quotes; a text with `: `, ` #`, `{`, `[` or `\"` in it must be quoted",
        )
}

fn too_deep(what: String, at: usize) -> Diagnostic {
    Diagnostic::error(codes::TOO_DEEP, what, Span::new(at, at), "too much from here on")
        .with_help("playbooks and policies are flat: is this the right file?")
}

/// Keeps a message of a parser to one line of printable characters.
fn clean(message: &str) -> String {
    message.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Gives plain scalars the meaning that the second parser found, and refuses a difference in anything else.
fn settle(node: &mut Node, value: &Yaml, found: &mut Vec<Diagnostic>) {
    let same = match (&mut node.kind, value) {
        (Kind::Seq(items), Yaml::Sequence(values)) if items.len() == values.len() => {
            for (item, v) in items.iter_mut().zip(values) {
                settle(item, v, found);
            }
            true
        }
        (Kind::Map(entries), Yaml::Mapping(values)) if entries.len() == values.len() => {
            for (entry, (k, v)) in entries.iter_mut().zip(values) {
                if k.as_str() == Some(entry.key.as_str()) {
                    settle(&mut entry.value, v, found);
                } else {
                    found.push(disagree(entry.key_span));
                }
            }
            true
        }
        (Kind::Text(t), Yaml::String(s)) => t == s,
        (Kind::Seq(_) | Kind::Map(_), _) | (_, Yaml::Sequence(_) | Yaml::Mapping(_) | Yaml::Tagged(_)) => {
            false
        }
        (kind, scalar) => {
            let plain = node.written == Written::Plain;
            *kind = meaning(scalar);
            plain
        }
    };
    if !same {
        found.push(disagree(node.span));
    }
}

fn disagree(span: Span) -> Diagnostic {
    Diagnostic::error(
        codes::AMBIGUOUS_YAML,
        "two YAML parsers read this differently",
        span,
        "read in two ways",
    )
    .with_help("put the text in double quotes, or write the list or mapping in block style")
}

fn meaning(scalar: &Yaml) -> Kind {
    match scalar {
        Yaml::Bool(b) => Kind::Bool(*b),
        Yaml::Number(n) => n.as_i64().map_or_else(|| Kind::Float(n.as_f64().unwrap_or(f64::NAN)), Kind::Int),
        Yaml::String(s) => Kind::Text(s.clone()),
        _ => Kind::Null,
    }
}

/// Converts character offsets, which only grow from event to event but may step back a little, into byte offsets.
struct Offsets<'a> {
    text: &'a str,
    /// Byte offset of every 64th character.
    marks: Vec<usize>,
}

impl<'a> Offsets<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, marks: text.char_indices().step_by(64).map(|(i, _)| i).collect() }
    }

    fn byte(&self, character: usize) -> usize {
        let Some(start) = self.marks.get(character / 64) else { return self.text.len() };
        self.text[*start..].char_indices().nth(character % 64).map_or(self.text.len(), |(i, _)| start + i)
    }

    fn span(&self, span: saphyr_parser::Span) -> Span {
        Span::new(self.byte(span.start.index()), self.byte(span.end.index()))
    }
}

struct Builder<'a> {
    source: &'a SourceText,
    offsets: Offsets<'a>,
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    nodes: usize,
    stopped: bool,
    found: Vec<Diagnostic>,
}

impl<'a> Builder<'a> {
    fn new(source: &'a SourceText) -> Self {
        Self {
            source,
            offsets: Offsets::new(&source.text),
            parser: Parser::new_from_str(&source.text),
            nodes: 0,
            stopped: false,
            found: Vec::new(),
        }
    }

    fn push(&mut self, d: Diagnostic) {
        // What is cut short by a limit looks wrong in many ways that mean nothing.
        if self.found.len() < MAX_FOUND && !self.stopped {
            self.found.push(d);
        }
    }

    fn stop(&mut self, d: Diagnostic) {
        self.push(d);
        self.stopped = true;
    }

    /// Takes the next event; `None` at the end, after an error and after a limit.
    fn next(&mut self) -> Option<(Event<'a>, Span)> {
        if self.stopped {
            return None;
        }
        match self.parser.next_event()? {
            Ok((event, span)) => Some((event, self.offsets.span(span))),
            Err(e) => {
                let at = self.offsets.byte(e.marker().index());
                // The parser reads ahead and has its own limit, which it may meet first.
                if e.info().contains("recursion limit") {
                    self.stop(too_deep(format!("nested more than {MAX_DEPTH} deep"), at));
                    return None;
                }
                self.stop(syntax(&clean(e.info()), Span::new(at, at)));
                None
            }
        }
    }

    fn run(&mut self) -> Option<Node> {
        let mut root = None;
        let mut documents = 0;
        while let Some((event, span)) = self.next() {
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        self.stop(
                            Diagnostic::error(
                                codes::DOCUMENTS,
                                "the file holds more than one document",
                                span,
                                "the second one starts here",
                            )
                            .with_help(
                                "one file, one playbook version or policy: move it to a file of its own",
                            ),
                        );
                    }
                }
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
                other => {
                    let node = self.node(other, span, 0);
                    if root.is_none() {
                        root = node;
                    }
                }
            }
        }
        if root.is_none() && self.found.is_empty() {
            self.push(
                Diagnostic::error(codes::DOCUMENTS, "the file holds no document", Span::default(), "")
                    .with_help(
                        "start with `playbook: <id>`, or `budgets:` in a policy; docs/guide shows the fields",
                    ),
            );
        }
        root
    }

    /// Builds the node that an event starts; `None` when it was refused or the text ended.
    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Option<Node> {
        self.nodes += 1;
        if depth >= MAX_DEPTH || self.nodes > MAX_NODES {
            let what = if depth >= MAX_DEPTH {
                format!("nested more than {MAX_DEPTH} deep")
            } else {
                format!("more than {MAX_NODES} values")
            };
            self.stop(too_deep(what, span.start));
            return None;
        }
        match event {
            Event::Alias(_) => {
                self.refuse_alias(span);
                Some(Node { kind: Kind::Null, span, written: Written::Plain })
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_marks(anchor, tag.is_some(), span);
                let written = match style {
                    ScalarStyle::Plain => Written::Plain,
                    ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Written::Quoted,
                    ScalarStyle::Literal | ScalarStyle::Folded => Written::Block,
                };
                let kind = match written {
                    // The second parser decides what a plain scalar means; here only when it will not be asked.
                    Written::Plain if text.is_empty() => Kind::Null,
                    Written::Plain => plain_meaning(&text),
                    _ => Kind::Text(text.into_owned()),
                };
                let span = self.trimmed(span);
                let span = if written == Written::Block { self.with_header(span) } else { span };
                Some(Node { kind, span, written })
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_marks(anchor, tag.is_some(), span);
                let mut items = Vec::new();
                let mut end = span.end;
                while let Some((event, at)) = self.next() {
                    if event == Event::SequenceEnd {
                        end = at.start + 1;
                        break;
                    }
                    items.extend(self.node(event, at, depth + 1));
                }
                let last = items.last().map(|n| n.span.end);
                let span = self.collection(span, end, last);
                Some(Node { kind: Kind::Seq(items), span, written: Written::Collection })
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_marks(anchor, tag.is_some(), span);
                Some(self.mapping(span, depth))
            }
            _ => None,
        }
    }

    fn mapping(&mut self, start: Span, depth: usize) -> Node {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: BTreeMap<String, Span> = BTreeMap::new();
        let mut end = start.end;
        while let Some((event, at)) = self.next() {
            if event == Event::MappingEnd {
                end = at.start + 1;
                break;
            }
            let key = self.key(event, at, depth);
            let Some((event, at)) = self.next() else { break };
            let value = self.node(event, at, depth + 1);
            let (Some((key, key_span)), Some(mut value)) = (key, value) else { continue };
            if value.kind == Kind::Null && value.span.start == value.span.end {
                value.span = key_span;
            }
            if let Some(first) = seen.get(&key) {
                let d = Diagnostic::error(
                    codes::DUPLICATE_KEY,
                    format!("`{}` is given twice", short(&key)),
                    key_span,
                    "given again",
                )
                .with_label(*first, "first given here")
                .with_help(
                    "keep one of them; a repeated step is another item of the list, with its own `- `",
                );
                self.push(d);
                continue;
            }
            seen.insert(key.clone(), key_span);
            entries.push(Entry { key, key_span, value });
        }
        let last = entries.last().map(|e| e.value.span.end.max(e.key_span.end));
        let span = self.collection(start, end, last);
        Node { kind: Kind::Map(entries), span, written: Written::Collection }
    }

    /// Reads a key; a key must be a text.
    fn key(&mut self, event: Event<'a>, span: Span, depth: usize) -> Option<(String, Span)> {
        let is_scalar = matches!(event, Event::Scalar(..));
        let node = self.node(event, span, depth + 1)?;
        let span = node.span;
        let written = node.written;
        match node.kind {
            Kind::Text(t) if t == "<<" && written == Written::Plain => {
                self.push(
                    Diagnostic::error(
                        codes::ALIAS,
                        "merge keys are not allowed",
                        span,
                        "merges another mapping",
                    )
                    .with_help("write the fields out: what a step does must be readable where it stands"),
                );
                None
            }
            Kind::Text(t) => Some((t, span)),
            _ if !is_scalar && self.source.text[..span.start].ends_with('{') => {
                let open = span.start - 1;
                self.push(
                    Diagnostic::error(
                        codes::TEMPLATE_SYNTAX,
                        "a text with `{{ }}` must be quoted",
                        Span::new(open, span.end),
                        "YAML reads this as a mapping",
                    )
                    .with_help("write it as \"{{ … }}\"; conditions are written without `{{ }}`"),
                );
                None
            }
            _ => {
                self.push(
                    Diagnostic::error(codes::AMBIGUOUS_YAML, "a key must be a text", span, "not a text")
                        .with_help("write a name, or put it in quotes"),
                );
                None
            }
        }
    }

    fn refuse_alias(&mut self, span: Span) {
        self.push(
            Diagnostic::error(
                codes::ALIAS,
                "aliases are not allowed",
                span,
                "stands for something written elsewhere",
            )
            .with_help("write the value out: what a step does must be readable where it stands"),
        );
    }

    fn refuse_marks(&mut self, anchor: usize, tagged: bool, span: Span) {
        // The event's span starts behind the mark; the mark is on the same line, before it.
        let line = self.source.text[..span.start].rfind('\n').map_or(0, |i| i + 1);
        let before = &self.source.text[line..span.start];
        if anchor > 0 {
            let start = before.rfind('&').map_or(span.start, |i| line + i);
            self.push(
                Diagnostic::error(
                    codes::ALIAS,
                    "anchors are not allowed",
                    Span::new(start, span.start.max(start)),
                    "names this value for use elsewhere",
                )
                .with_help("write the value out where it is needed"),
            );
        }
        if tagged {
            let start = before.rfind('!').map_or(span.start, |i| line + i);
            self.push(
                Diagnostic::error(
                    codes::TAG,
                    "tags are not allowed",
                    Span::new(start, span.start.max(start)),
                    "a tag",
                )
                .with_help("take it out; to make something a text, put it in quotes"),
            );
        }
    }

    /// A plain or block scalar's span may run into the white space and line breaks behind it.
    fn trimmed(&self, span: Span) -> Span {
        let text = self.source.slice(span);
        Span::new(span.start, span.start + text.trim_end().len())
    }

    /// The span of a block scalar starts with its text: goes back to the `|` or `>` before it.
    fn with_header(&self, span: Span) -> Span {
        let before = self.source.text[..span.start].trim_end();
        let line = before.rfind('\n').map_or(0, |i| i + 1);
        let is_header = |at: &usize| {
            let rest = &before[*at..];
            let mark =
                rest.trim_start_matches(['|', '>', '+', '-', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
            rest.starts_with(['|', '>'])
                && before[..*at].ends_with([' ', '\t', '\n'])
                && (mark.trim().is_empty() || mark.trim_start().starts_with('#'))
        };
        let header = (line..before.len()).filter(|i| before.is_char_boundary(*i)).find(is_header);
        Span::new(header.unwrap_or(span.start), span.end)
    }

    /// The span of a collection: block ones end with their last value, flow ones with their bracket.
    fn collection(&self, start: Span, end: usize, last: Option<usize>) -> Span {
        let flow = self.source.text[start.start..].starts_with(['[', '{']) && start.end > start.start;
        let end = if flow { end } else { last.unwrap_or(start.end) };
        Span::new(start.start, end.max(start.start))
    }
}

/// Asks the second parser what one short plain scalar means.
fn plain_meaning(text: &str) -> Kind {
    if text.len() > 64 {
        return Kind::Text(text.to_owned());
    }
    match serde_yaml::from_str::<Yaml>(text) {
        Ok(v @ (Yaml::Null | Yaml::Bool(_) | Yaml::Number(_))) => meaning(&v),
        _ => Kind::Text(text.to_owned()),
    }
}

/// Shortens a text of the document for a message.
pub(crate) fn short(text: &str) -> String {
    let mut out: String = text.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(60).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes_of(text: &str) -> Vec<String> {
        read(&SourceText::new("x", text)).1.into_iter().map(|d| d.code).collect()
    }

    #[test]
    fn values_have_their_places() {
        let text = "ä: ö\nsteps:\n  - a: { b: \"c d\", e: [1, 2.5, yes, null, true] }\n    when: x == 0   # why\n  - z\nlast: |\n  one\n  two\n";
        let s = SourceText::new("x", text);
        let (tree, found) = read(&s);
        assert_eq!(found, []);
        let tree = tree.unwrap();
        assert_eq!(s.slice(tree.get("ä").unwrap().value.span), "ö");
        let Kind::Seq(steps) = &tree.get("steps").unwrap().value.kind else { panic!() };
        let args = &steps[0].get("a").unwrap().value;
        assert_eq!(s.slice(args.span), "{ b: \"c d\", e: [1, 2.5, yes, null, true] }");
        assert_eq!(s.slice(args.get("b").unwrap().value.span), "\"c d\"");
        assert_eq!(s.slice(args.get("e").unwrap().value.span), "[1, 2.5, yes, null, true]");
        let Kind::Seq(e) = &args.get("e").unwrap().value.kind else { panic!() };
        let kinds: Vec<_> = e.iter().map(|n| n.kind.clone()).collect();
        assert_eq!(
            kinds,
            [Kind::Int(1), Kind::Float(2.5), Kind::Text("yes".into()), Kind::Null, Kind::Bool(true)]
        );
        assert_eq!(s.slice(steps[0].get("when").unwrap().value.span), "x == 0");
        assert_eq!(
            s.slice(steps[0].span),
            "a: { b: \"c d\", e: [1, 2.5, yes, null, true] }\n    when: x == 0"
        );
        assert_eq!(s.slice(steps[1].span), "z");
        assert_eq!(s.slice(tree.get("last").unwrap().value.span), "|\n  one\n  two");
        assert_eq!(tree.get("last").unwrap().value.kind, Kind::Text("one\ntwo\n".into()));
    }

    #[test]
    fn what_a_playbook_must_not_hold_is_refused() {
        for (text, code) in [
            ("a: 1\nb: 2\na: 3\n", codes::DUPLICATE_KEY),
            ("a: { b: 1, b: 2 }\n", codes::DUPLICATE_KEY),
            ("a: &x 1\n", codes::ALIAS),
            ("a: 1\nb:\n  <<: { c: 1 }\n", codes::ALIAS),
            ("a: !!str 1\n", codes::TAG),
            ("a: 1\n---\nb: 2\n", codes::DOCUMENTS),
            ("", codes::DOCUMENTS),
            ("# only a comment\n", codes::DOCUMENTS),
            ("a: [1, 2\n", codes::SYNTAX),
            ("a: \"b\n", codes::SYNTAX),
            ("1: a\n", codes::AMBIGUOUS_YAML),
            ("? [a]\n: b\n", codes::AMBIGUOUS_YAML),
            ("a: {{ alert.id }}\n", codes::TEMPLATE_SYNTAX),
        ] {
            assert!(codes_of(text).contains(&code.to_owned()), "{text:?}: {:?}", codes_of(text));
        }
    }

    #[test]
    fn both_places_of_a_duplicate_are_named() {
        let s = SourceText::new("x", "steps: 1\nother: 2\nsteps: 3\nother: 4\n");
        let (_, found) = read(&s);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].labels[0].span, Span::new(18, 23));
        assert_eq!(found[0].labels[1].span, Span::new(0, 5));
    }

    #[test]
    fn hostile_structures_are_refused_after_little_work() {
        // Work is bounded by the depth and node limits, not by the input: the events stop at the limit.
        for open in ["[", "{", "- ", "? ", "[[", "{a: "] {
            let text = open.repeat(100_000);
            let text = &text[..text.len().min(200_000)];
            let s = SourceText::new("x", text);
            let mut b = Builder::new(&s);
            let _ = b.run();
            assert!(b.nodes <= MAX_DEPTH + 2, "{open}: {} nodes", b.nodes);
            assert_eq!(b.found.len(), 1, "{open}");
        }
        let wide = format!("a: [{}]\n", "1,".repeat(50_000));
        let s = SourceText::new("x", wide.as_str());
        let mut b = Builder::new(&s);
        let _ = b.run();
        assert!(b.nodes <= MAX_NODES + 1);
        assert_eq!(b.found[0].code, codes::TOO_DEEP);
        let mut bomb = "a0: &a0 [x]\n".to_owned();
        for i in 1..10 {
            bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(", ")));
        }
        let found = codes_of(&bomb);
        assert!(!found.is_empty() && found.iter().all(|c| c == codes::ALIAS));
    }
}
