//! From the tree of a file to its entries, by the shapes, with every mistake.

use super::codes;
use super::shape::{Field, Form, Refers, Shape, TABLES};
use crate::read::Reader;
use crate::read::field::{Fields, name};
use crate::source::SourceText;
use crate::tree::{Kind, Node, short};
use engine_core::diag::{Diagnostic, Span};
use serde_json::{Map, Value};

/// The format of the files that come with the program.
pub(super) const FORMAT: &str = "slurmedic/knowledge/1";
/// The format of a site's file.
pub(super) const SITE_FORMAT: &str = "slurmedic/knowledge-site/1";
/// Longest line of text, in characters.
const MAX_TEXT: usize = 700;
/// Most entries of a table, and items of a list.
const MAX_ENTRIES: usize = 2_000;

/// A word that refers to something else.
#[derive(Debug, Clone)]
pub(super) struct Reference {
    pub(super) to: Refers,
    pub(super) word: String,
    pub(super) span: Span,
}

/// One entry as it was read.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) shape: &'static Shape,
    /// Its name; a running number where entries of its table have none.
    pub(super) key: String,
    pub(super) key_span: Span,
    /// Its fields, the name included.
    pub(super) fields: Map<String, Value>,
    /// Where each field stands.
    pub(super) places: Vec<(&'static str, Span)>,
    pub(super) references: Vec<Reference>,
    /// Why the site says so.
    pub(super) why: Option<String>,
}

impl Entry {
    /// Returns the place of a field, or of the entry.
    pub(super) fn place(&self, field: &str) -> Span {
        self.places.iter().find(|(n, _)| *n == field).map_or(self.key_span, |(_, s)| *s)
    }
}

/// Who says so, at the top of a site's file.
#[derive(Debug, Clone)]
pub(super) struct SiteHead {
    pub(super) source: String,
    pub(super) date: String,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) entries: Vec<Entry>,
    /// Only of a site's file.
    pub(super) site: Option<SiteHead>,
    /// Whether the file is a site's.
    pub(super) is_site: bool,
    pub(super) found: Vec<Diagnostic>,
}

/// Reads a file from its tree.
pub(super) fn file(root: &Node, source: &SourceText) -> Read {
    let mut r = Reader::new(source);
    let mut out = Read::default();
    if let Kind::Map(_) = root.kind {
        r.knowledge(root, &mut out);
    } else {
        r.wrong_type(root, "knowledge is a mapping", "start with `format: slurmedic/knowledge-site/1`");
    }
    out.found = r.found;
    out
}

impl Reader<'_> {
    fn knowledge(&mut self, root: &Node, out: &mut Read) {
        let format = root.get("format");
        let written = format.and_then(|e| match &e.value.kind {
            Kind::Text(t) => Some(t.as_str()),
            _ => None,
        });
        out.is_site = written != Some(FORMAT);
        if !matches!(written, Some(FORMAT | SITE_FORMAT)) {
            let span = format.map_or(Span::new(0, 0), |e| e.value.span);
            let says = "the file does not say that it is knowledge";
            self.wrong(
                codes::BAD_FORMAT,
                says.to_owned(),
                span,
                "begin with `format: slurmedic/knowledge-site/1`",
            );
        }
        let mut known = vec!["format"];
        if out.is_site {
            known.extend(["source", "date"]);
        }
        known.extend(TABLES.iter().filter(|t| t.site || !out.is_site).map(|t| t.name));
        let fields = Fields::of(self, root, "the file", &known, &[]);
        if out.is_site {
            out.site = self.head(root, &fields);
        }
        for shape in TABLES.iter().filter(|t| t.site || !out.is_site) {
            let Some(node) = fields.get(shape.name) else { continue };
            let Some(items) = self.many(node) else { continue };
            for (i, item) in items.iter().enumerate() {
                let Some(entry) = self.entry(shape, item, i, out.is_site) else { continue };
                let same =
                    |e: &&Entry| e.shape.name == shape.name && e.key == entry.key && shape.key.is_some();
                if let Some(first) = out.entries.iter().find(same) {
                    self.found.push(
                        Diagnostic::error(
                            codes::DUPLICATE_ENTRY,
                            format!("{} {} is given twice", shape.what, short(&entry.key)),
                            entry.key_span,
                            "given again",
                        )
                        .with_label(first.key_span, "first given here")
                        .with_help("make one entry of both"),
                    );
                    continue;
                }
                out.entries.push(entry);
            }
        }
    }

    fn head(&mut self, root: &Node, fields: &Fields<'_>) -> Option<SiteHead> {
        let mut missing = |what: &str, field: &str| {
            let says = format!("the file does not say {what}");
            let span = root.get("format").map_or(Span::new(0, 0), |e| e.key_span);
            self.wrong(codes::NO_SOURCE, says, span, &format!("add `{field}:` at its top"));
        };
        let source = fields.get("source");
        let date = fields.get("date");
        if source.is_none() {
            missing("who says so", "source");
        }
        if date.is_none() {
            missing("since when", "date");
        }
        let source = source.and_then(|n| self.prose(n, MAX_TEXT));
        let date = date.and_then(|n| self.day(n));
        Some(SiteHead { source: source?, date: date? })
    }

    fn many<'n>(&mut self, node: &'n Node) -> Option<&'n [Node]> {
        let Kind::Seq(items) = &node.kind else {
            self.wrong_type(node, "this field is a list", "begin each item with `- `");
            return None;
        };
        if items.len() > MAX_ENTRIES {
            let says = format!("{} items, more than {MAX_ENTRIES}", items.len());
            self.wrong(codes::BAD_NUMBER, says, node.span, "make it shorter");
            return None;
        }
        Some(items)
    }

    fn entry(&mut self, shape: &'static Shape, node: &Node, number: usize, site: bool) -> Option<Entry> {
        let mut known: Vec<&str> = shape.fields.iter().map(|f| f.name).collect();
        if site {
            known.push("why");
        }
        // A site states differences only: whether an entry is complete is seen when it is laid over.
        let sources = |f: &&Field| f.name != "sources";
        let required: Vec<&str> = match (site, shape.key) {
            (true, key) => key.into_iter().collect(),
            (false, _) => {
                shape.fields.iter().filter(|f| f.required).filter(sources).map(|f| f.name).collect()
            }
        };
        let fields = Fields::of(self, node, shape.what, &known, &required);
        let Kind::Map(given) = &node.kind else { return None };
        let key_node = shape.key.and_then(|k| node.get(k));
        let mut entry = Entry {
            shape,
            key: number.to_string(),
            key_span: key_node.map_or(node.span, |e| e.value.span),
            fields: Map::new(),
            places: Vec::new(),
            references: Vec::new(),
            why: None,
        };
        for field in shape.fields {
            let Some(value_node) = fields.get(field.name) else { continue };
            entry.places.push((field.name, value_node.span));
            if let Some(value) = self.value(field.form, value_node, &mut entry.references) {
                entry.fields.insert(field.name.to_owned(), value);
            }
        }
        if site {
            entry.why = fields.get("why").and_then(|n| self.prose(n, MAX_TEXT));
        } else if shape.fields.iter().any(|f| f.name == "sources") {
            let none = |v: Option<&Value>| v.and_then(Value::as_array).is_none_or(Vec::is_empty);
            if none(entry.fields.get("sources")) {
                let span = given.first().map_or(node.span, |e| e.key_span);
                let says = format!("nobody says so: {} without `sources`", shape.what);
                self.wrong(codes::NO_SOURCE, says, span, "name who says it, as in `sources: [nv-catalog]`");
            }
        }
        if let Some(key) = shape.key {
            entry.key = plain(entry.fields.get(key)?);
        }
        Some(entry)
    }

    fn value(&mut self, form: Form, node: &Node, refs: &mut Vec<Reference>) -> Option<Value> {
        Some(match form {
            Form::Id => Value::String(self.name(node, name::ID)?),
            Form::Text => Value::String(self.prose(node, MAX_TEXT)?),
            Form::Word(words) => Value::String(self.word(node, "this field", words)?.to_owned()),
            Form::Number => Value::from(self.whole(node)?),
            Form::Flag => match node.kind {
                Kind::Bool(b) => Value::Bool(b),
                _ => {
                    self.wrong_type(node, "this field is true or false", "write true or false");
                    return None;
                }
            },
            Form::Day => Value::String(self.day(node)?),
            Form::Ref(to) => {
                let word = self.text(node, "this field")?.to_owned();
                refs.push(Reference { to, word: word.clone(), span: node.span });
                Value::String(word)
            }
            Form::Words(words) => self.each(node, refs, Form::Word(words))?,
            Form::Texts => self.each(node, refs, Form::Text)?,
            Form::Numbers => self.each(node, refs, Form::Number)?,
            Form::Refs(to) => self.each(node, refs, Form::Ref(to))?,
            Form::Maps(fields) => {
                let mut all = Vec::new();
                for item in self.many(node)? {
                    all.extend(self.map(fields, item, refs));
                }
                Value::Array(all)
            }
        })
    }

    fn each(&mut self, node: &Node, refs: &mut Vec<Reference>, form: Form) -> Option<Value> {
        let mut all = Vec::new();
        for item in self.many(node)? {
            all.extend(self.value(form, item, refs));
        }
        Some(Value::Array(all))
    }

    fn map(&mut self, shape: &[Field], node: &Node, refs: &mut Vec<Reference>) -> Option<Value> {
        let known: Vec<&str> = shape.iter().map(|f| f.name).collect();
        let required: Vec<&str> = shape.iter().filter(|f| f.required).map(|f| f.name).collect();
        let fields = Fields::of(self, node, "this item", &known, &required);
        let mut out = Map::new();
        for field in shape {
            let Some(value) = fields.get(field.name) else { continue };
            if let Some(v) = self.value(field.form, value, refs) {
                out.insert(field.name.to_owned(), v);
            }
        }
        (!out.is_empty()).then_some(Value::Object(out))
    }

    fn whole(&mut self, node: &Node) -> Option<u32> {
        let Kind::Int(i) = node.kind else {
            self.wrong_type(node, "this field is a whole number", "write a whole number from 0");
            return None;
        };
        let number = u32::try_from(i).ok();
        if number.is_none() {
            self.wrong(
                codes::BAD_NUMBER,
                format!("{i} is out of range"),
                node.span,
                "write a whole number from 0",
            );
        }
        number
    }

    fn day(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node, "a day")?;
        if text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok() {
            return Some(text.to_owned());
        }
        let says = format!("`{}` is not a day", short(text));
        self.wrong(codes::BAD_DAY, says, node.span, "write year, month and day: 2026-11-21");
        None
    }

    /// Reports an error.
    fn wrong(&mut self, code: &str, says: String, span: Span, help: &str) {
        self.found.push(Diagnostic::error(code, says, span, "").with_help(help));
    }
}

/// Shows a value as it is written.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Array(items) if items.iter().all(|i| !i.is_object()) => {
            items.iter().map(plain).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}
