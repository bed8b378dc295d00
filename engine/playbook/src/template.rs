//! `{{ }}` texts of arguments: checked when the playbook loads, rendered when a plan is made.
//!
//! The language is a small part of minijinja: facts and parameters by name, and four filters. Everything is checked
//! here with exact places; minijinja then renders in strict mode, with an empty environment, fuel and limits.
//! Values of facts are data: they are inserted once and never read as a template.

use crate::codes;
use crate::tree::short;
use engine_core::diag::{Diagnostic, Span, did_you_mean};
use engine_core::fact::FactSet;
use engine_core::known::Known;
use engine_core::plan::Render;
use engine_core::value::{Type, Value, format_duration};
use engine_core::vocabulary;
use minijinja::value::Value as Jinja;
use minijinja::{Environment, UndefinedBehavior};
use std::collections::BTreeMap;
use std::io;

/// Longest template, in bytes.
pub const MAX_SOURCE: usize = 1000;
/// Longest result, in bytes.
pub const MAX_OUTPUT: usize = 4096;
/// Instructions one rendering may take.
const FUEL: u64 = 2000;

/// The filters a template may use, with what they take.
pub const FILTERS: &[(&str, &str)] = &[
    ("upper", "a text in capitals"),
    ("lower", "a text in small letters"),
    ("trim", "a text without white space around it"),
    ("join", "a list as one text: join(', ')"),
];

/// The names a template may use.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// Types of the playbook's parameters.
    pub params: &'a BTreeMap<String, Type>,
    /// Whether facts of a GPU exist.
    pub gpu: bool,
}

/// One `{{ }}`.
#[derive(Debug, Clone, PartialEq)]
struct Piece<'a> {
    /// From `{{` to `}}`.
    span: Span,
    name: &'a str,
    name_span: Span,
    filters: Vec<(&'a str, Span)>,
}

/// What a checked template is.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// Names it uses.
    pub names: Vec<String>,
    /// Its type, where it is one single expression; else it is a text.
    pub single: Option<Type>,
}

/// Says whether a text is a template.
pub fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|m| text.contains(m))
}

/// Checks a template against the vocabulary and the parameters. Spans are relative to the text.
pub fn check(text: &str, names: Names<'_>) -> Result<Checked, Vec<Diagnostic>> {
    let mut found = Vec::new();
    let pieces = pieces(text, &mut found);
    let mut used = Vec::new();
    let mut single = None;
    for piece in &pieces {
        let Some(ty) = type_of(piece, names, &mut found) else { continue };
        let mut ty = ty;
        for (filter, span) in &piece.filters {
            ty = apply(filter, *span, ty, &mut found);
        }
        if matches!(ty, Type::TextList | Type::EnumList(_)) {
            found.push(
                Diagnostic::error(
                    codes::TEMPLATE_TYPE,
                    format!("`{}` is a list", piece.name),
                    piece.span,
                    "a list is not a text",
                )
                .with_help(format!("join it: {{{{ {} | join(', ') }}}}", piece.name)),
            );
        }
        used.push(piece.name.to_owned());
        if pieces.len() == 1 && piece.span.start == 0 && piece.span.end == text.len() {
            single = Some(ty);
        }
    }
    if found.is_empty() { Ok(Checked { names: used, single }) } else { Err(found) }
}

fn type_of(piece: &Piece<'_>, names: Names<'_>, found: &mut Vec<Diagnostic>) -> Option<Type> {
    if let Some(param) = piece.name.strip_prefix("params.") {
        if let Some(ty) = names.params.get(param) {
            return Some(*ty);
        }
        let help = match did_you_mean(param, names.params.keys().map(String::as_str)) {
            Some(near) => format!("did you mean `params.{near}`?"),
            None => format!("declare it: params: {{ {}: {{ type: text }} }}", short(param)),
        };
        found.push(
            Diagnostic::error(
                codes::UNKNOWN_NAME,
                format!("the playbook has no parameter `{}`", short(param)),
                piece.name_span,
                "not declared",
            )
            .with_help(help),
        );
        return None;
    }
    let Some(fact) = vocabulary::find(piece.name) else {
        let params: Vec<String> = names.params.keys().map(|p| format!("params.{p}")).collect();
        let near = nearest_fact(piece.name)
            .or_else(|| names.params.contains_key(piece.name).then(|| format!("params.{}", piece.name)))
            .or_else(|| did_you_mean(piece.name, params.iter().map(String::as_str)).map(str::to_owned));
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`slurmedic facts` lists the names".to_owned(),
        };
        found.push(
            Diagnostic::error(
                codes::UNKNOWN_NAME,
                format!("there is no fact `{}`", short(piece.name)),
                piece.name_span,
                "unknown name",
            )
            .with_help(help),
        );
        return None;
    };
    if fact.per_gpu && !names.gpu {
        found.push(
            Diagnostic::error(
                codes::TEMPLATE_TYPE,
                format!("`{}` is a fact of a GPU and the target is a node", fact.name),
                piece.name_span,
                "has no value here",
            )
            .with_help("set `target: gpu`, or use a fact of the node"),
        );
        return None;
    }
    Some(fact.ty)
}

/// Finds the fact that a name means: the same with dots for underscores, the last part of one, or the nearest.
fn nearest_fact(name: &str) -> Option<String> {
    let flat = |s: &str| s.replace('_', ".");
    let facts = || vocabulary::FACTS.iter().map(|f| f.name);
    facts()
        .find(|f| flat(f) == flat(name))
        .or_else(|| {
            let mut ends = facts().filter(|f| f.rsplit('.').next() == Some(name));
            ends.next().filter(|_| ends.next().is_none())
        })
        .or_else(|| did_you_mean(name, facts()))
        .map(str::to_owned)
}

fn apply(filter: &str, span: Span, ty: Type, found: &mut Vec<Diagnostic>) -> Type {
    let list = matches!(ty, Type::TextList | Type::EnumList(_));
    let fits = if filter == "join" { list } else { matches!(ty, Type::Text | Type::Enum(_) | Type::Version) };
    if !fits {
        let takes = if filter == "join" { "a list" } else { "a text" };
        found.push(
            Diagnostic::error(
                codes::TEMPLATE_TYPE,
                format!("the filter `{filter}` takes {takes}, not a value of type {ty}"),
                span,
                "does not fit",
            )
            .with_help("take the filter out"),
        );
    }
    Type::Text
}

/// Takes a text apart; what is no `{{ name | filter }}` is reported.
fn pieces<'a>(text: &'a str, found: &mut Vec<Diagnostic>) -> Vec<Piece<'a>> {
    let mut out = Vec::new();
    if text.len() > MAX_SOURCE {
        found.push(
            Diagnostic::error(
                codes::TEMPLATE_SYNTAX,
                format!("the template has {} bytes, the limit is {MAX_SOURCE}", text.len()),
                Span::new(0, text.len()),
                "too long",
            )
            .with_help("shorten it"),
        );
        return out;
    }
    let mut at = 0;
    while let Some(open) = text[at..].find('{').map(|i| at + i) {
        let rest = &text[open..];
        if rest.starts_with("{%") || rest.starts_with("{#") {
            found.push(
                Diagnostic::error(
                    codes::TEMPLATE_SYNTAX,
                    "statements and comments are not allowed in a text",
                    Span::new(open, open + 2),
                    "not allowed",
                )
                .with_help("only `{{ name }}` is: a condition belongs into `when`"),
            );
            return out;
        }
        if !rest.starts_with("{{") {
            at = open + 1;
            continue;
        }
        let Some(close) = rest.find("}}").map(|i| open + i) else {
            found.push(
                Diagnostic::error(
                    codes::TEMPLATE_SYNTAX,
                    "`{{` is never closed",
                    Span::new(open, open + 2),
                    "opened here",
                )
                .with_help("close it with `}}`"),
            );
            return out;
        };
        let span = Span::new(open, close + 2);
        match expression(&text[open + 2..close], open + 2, span) {
            Ok(piece) => out.push(piece),
            Err(d) => found.push(*d),
        }
        at = close + 2;
    }
    out
}

fn expression(inner: &str, offset: usize, span: Span) -> Result<Piece<'_>, Box<Diagnostic>> {
    let not_understood = |span: Span| {
        Box::new(
            Diagnostic::error(
                codes::TEMPLATE_SYNTAX,
                "only a name and filters may stand between `{{` and `}}`",
                span,
                "not understood",
            )
            .with_help(
                "for example {{ alert.id }}, {{ params.idle_wait }} or {{ node.partitions | join(', ') }}",
            ),
        )
    };
    let mut parts = split_pipes(inner).into_iter();
    let (start, first) = parts.next().unwrap_or((0, ""));
    let place = |start: usize, part: &str| {
        let lead = part.len() - part.trim_start().len();
        let from = offset + start + lead;
        Span::new(from, from + part.trim().len())
    };
    let name = first.trim();
    let name_span = place(start, first);
    let is_word = |w: &str| {
        w.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && w.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if name.is_empty() || !name.split('.').all(is_word) {
        return Err(not_understood(if name.is_empty() { span } else { name_span }));
    }
    let mut filters = Vec::new();
    for (start, part) in parts {
        let at = place(start, part);
        let (word, argument) = match part.trim().split_once('(') {
            Some((w, rest)) => (w.trim(), Some(rest)),
            None => (part.trim(), None),
        };
        if !FILTERS.iter().any(|(f, _)| *f == word) {
            let allowed: Vec<_> = FILTERS.iter().map(|(f, _)| *f).collect();
            let help = match did_you_mean(word, allowed.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("allowed are {}", allowed.join(", ")),
            };
            let text = format!("the filter `{}` is not allowed", short(word));
            return Err(Box::new(
                Diagnostic::error(codes::UNKNOWN_FILTER, text, at, "not allowed").with_help(help),
            ));
        }
        let argument_fits = match argument {
            None => true,
            Some(rest) => word == "join" && rest.strip_suffix(')').is_some_and(|a| is_quoted(a.trim())),
        };
        if !argument_fits {
            return Err(not_understood(at));
        }
        filters.push((word, at));
    }
    Ok(Piece { span, name, name_span, filters })
}

fn is_quoted(text: &str) -> bool {
    ['\'', '"'].iter().any(|q| {
        text.len() >= 2
            && text.strip_prefix(*q).and_then(|t| t.strip_suffix(*q)).is_some_and(|t| !t.contains([*q, '\\']))
    })
}

/// Splits at `|` outside of quotes, with the offset of each part.
fn split_pipes(text: &str) -> Vec<(usize, &str)> {
    let mut out = Vec::new();
    let mut start = 0;
    let mut quote = None;
    for (i, c) in text.char_indices() {
        match quote {
            Some(q) if c == q => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c == '|' => {
                out.push((start, &text[start..i]));
                start = i + 1;
            }
            Some(_) | None => {}
        }
    }
    out.push((start, &text[start..]));
    out
}

/// The one implementation of [`Render`].
#[derive(Debug)]
pub struct Renderer {
    environment: Environment<'static>,
}

impl Default for Renderer {
    fn default() -> Self {
        Self::new()
    }
}

impl Renderer {
    /// Builds the environment: empty but for the four filters.
    pub fn new() -> Self {
        let mut environment = Environment::empty();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.add_filter("upper", minijinja::filters::upper);
        environment.add_filter("lower", minijinja::filters::lower);
        environment.add_filter("trim", minijinja::filters::trim);
        environment.add_filter("join", minijinja::filters::join);
        Self { environment }
    }
}

impl Render for Renderer {
    fn render(&self, template: &str, facts: &FactSet) -> Result<String, String> {
        let mut found = Vec::new();
        let pieces = pieces(template, &mut found);
        if let Some(d) = found.first() {
            return Err(d.message.clone());
        }
        let mut context: BTreeMap<&str, BTreeMap<&str, Jinja>> = BTreeMap::new();
        let mut plain: BTreeMap<&str, Jinja> = BTreeMap::new();
        for piece in &pieces {
            let value = match facts.value(piece.name) {
                Known::Known(v) => jinja(piece.name, &v)?,
                Known::Unknown(u) => return Err(format!("`{}` is {u}", piece.name)),
            };
            match piece.name.split_once('.') {
                Some((group, rest)) => {
                    context.entry(group).or_default().insert(rest, value);
                }
                None => {
                    plain.insert(piece.name, value);
                }
            }
        }
        plain.extend(context.into_iter().map(|(k, v)| (k, Jinja::from_pairs(v))));
        let compiled = self.environment.template_from_str(template).map_err(|e| e.to_string())?;
        let mut out = Capped(Vec::new());
        compiled.render_captured_to(Jinja::from_pairs(plain), &mut out).map_err(|e| {
            if out.0.len() >= MAX_OUTPUT {
                format!("the text grows beyond {MAX_OUTPUT} bytes")
            } else {
                e.to_string()
            }
        })?;
        // An empty fact at the end leaves a blank that Slurm would not give back.
        String::from_utf8(out.0).map(|t| t.trim().to_owned()).map_err(|e| e.to_string())
    }
}

fn jinja(name: &str, value: &Value) -> Result<Jinja, String> {
    let text = |t: &str| {
        if t.len() > MAX_OUTPUT {
            return Err(format!("the value of `{name}` has {} bytes, the limit is {MAX_OUTPUT}", t.len()));
        }
        if t.chars().any(char::is_control) {
            return Err(format!("the value of `{name}` holds a line break or another control character"));
        }
        Ok(Jinja::from(t))
    };
    Ok(match value {
        Value::Bool(b) => Jinja::from(*b),
        Value::Int(i) => Jinja::from(*i),
        Value::Float(x) => Jinja::from(*x),
        Value::Text(t) | Value::Version(t) | Value::Word(t) => text(t)?,
        Value::Duration(d) => Jinja::from(format_duration(*d)),
        Value::List(l) => {
            if l.len() > MAX_OUTPUT {
                return Err(format!("the list `{name}` has {} items", l.len()));
            }
            Jinja::from(l.iter().map(|t| text(t)).collect::<Result<Vec<_>, _>>()?)
        }
    })
}

/// Takes at most [`MAX_OUTPUT`] bytes; one more is an error.
struct Capped(Vec<u8>);

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = MAX_OUTPUT - self.0.len();
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room { Err(io::ErrorKind::WriteZero.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_core::fact::Source;
    use engine_core::known::Cause;
    use jiff::{SignedDuration, Timestamp};

    fn facts(pairs: &[(&'static str, Value)]) -> FactSet {
        let mut f = FactSet::default();
        for (n, v) in pairs {
            f.set(*n, Known::Known(v.clone()), Source::Engine, Timestamp::UNIX_EPOCH);
        }
        f
    }

    fn checked(text: &str) -> Result<Checked, Vec<(String, Span, String)>> {
        let params = BTreeMap::from([("idle_wait".to_owned(), Type::Duration)]);
        check(text, Names { params: &params, gpu: true }).map_err(|e| {
            e.into_iter().map(|d| (d.code, d.labels[0].span, d.help.unwrap_or_default())).collect()
        })
    }

    #[test]
    fn names_and_filters_are_checked_with_their_places() {
        assert_eq!(checked("{{ params.idle_wait }}").unwrap().single, Some(Type::Duration));
        assert_eq!(checked("alert {{ alert.id | upper | trim }} {").unwrap().single, None);
        assert_eq!(checked("{{ node.partitions | join(', ') }}").unwrap().single, Some(Type::Text));
        for (text, code, start, help) in [
            ("x {{alert_id}}", codes::UNKNOWN_NAME, 4, "alert.id"),
            ("{{ gpu.busid }}", codes::UNKNOWN_NAME, 3, "gpu.bus_id"),
            ("{{ bus_id }}", codes::UNKNOWN_NAME, 3, "gpu.bus_id"),
            ("{{ idle_wait }}", codes::UNKNOWN_NAME, 3, "params.idle_wait"),
            ("{{ params.idle_wiat }}", codes::UNKNOWN_NAME, 3, "params.idle_wait"),
            ("{{ alert.id | default('x') }}", codes::UNKNOWN_FILTER, 14, "allowed"),
            ("{{ alert.id | uper }}", codes::UNKNOWN_FILTER, 14, "upper"),
            ("{% for x in y %}", codes::TEMPLATE_SYNTAX, 0, "name"),
            ("{{ 1 + 1 }}", codes::TEMPLATE_SYNTAX, 3, "for example"),
            ("{{ alert.id", codes::TEMPLATE_SYNTAX, 0, "}}"),
            ("{{ }}", codes::TEMPLATE_SYNTAX, 0, "for example"),
            ("{{ node.partitions }}", codes::TEMPLATE_TYPE, 0, "join"),
            ("{{ active_jobs | upper }}", codes::TEMPLATE_TYPE, 17, "take"),
        ] {
            let found = checked(text).unwrap_err();
            assert_eq!((found[0].0.as_str(), found[0].1.start), (code, start), "{text}");
            assert!(found[0].2.contains(help), "{text}: {}", found[0].2);
        }
    }

    #[test]
    fn facts_are_data_and_rendered_once() {
        let hostile = "{{ 7 * 7 }} {% raw %} ${x} \"; state=resume";
        let f = facts(&[
            ("alert.id", Value::Text(hostile.into())),
            ("active_jobs", Value::Int(3)),
            ("params.idle_wait", Value::Duration(SignedDuration::from_mins(90))),
            ("node.partitions", Value::List(vec!["a".into(), "b".into()])),
        ]);
        let r = Renderer::new();
        assert_eq!(r.render("alert {{ alert.id }}!", &f).unwrap(), format!("alert {hostile}!"));
        assert_eq!(
            r.render("alert {{ alert.id }}", &facts(&[("alert.id", Value::Text(String::new()))])).unwrap(),
            "alert"
        );
        assert_eq!(r.render("{{ active_jobs }} {{ params.idle_wait }}", &f).unwrap(), "3 1h30m");
        assert_eq!(r.render("{{ node.partitions | join(' | ') | upper }}", &f).unwrap(), "A | B");
    }

    #[test]
    fn unknown_facts_and_too_long_texts_are_errors_that_name_them() {
        let mut f = facts(&[
            ("alert.id", Value::Text("line\nbreak".into())),
            ("node.reason", Value::Text("x".repeat(3000))),
        ]);
        f.set(
            "gpu.bus_id",
            Known::unknown(Cause::TimedOut, "10 s"),
            Source::NodeTools,
            Timestamp::UNIX_EPOCH,
        );
        let r = Renderer::new();
        assert!(r.render("{{ gpu.bus_id }}", &f).unwrap_err().contains("`gpu.bus_id` is unknown (timed_out"));
        assert!(r.render("{{ gpu.uuid }}", &f).unwrap_err().contains("gpu.uuid"));
        assert!(r.render("{{ alert.id }}", &f).unwrap_err().contains("line break"));
        assert!(r.render("{{ node.reason }}{{ node.reason }}", &f).unwrap_err().contains("4096"));
        assert!(r.render("{% set x = 1 %}", &f).is_err());
        assert!(r.render(&"x{{ a.b }}".repeat(200), &f).is_err());
    }
}
