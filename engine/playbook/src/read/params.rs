//! The parameters a playbook declares.

use super::field::{Fields, name};
use super::{MAX_TEXT, Reader};
use crate::codes;
use crate::template;
use crate::tree::{Kind, Node, short};
use engine_core::diag::{Diagnostic, Span};
use engine_core::playbook::ParamDecl;
use engine_core::value::{Type, Value, parse_duration};
use std::cmp::Ordering;

/// The words of a parameter's `type`, with their types.
pub(crate) const PARAM_TYPES: &[(&str, Type)] = &[
    ("bool", Type::Bool),
    ("int", Type::Int),
    ("float", Type::Float),
    ("text", Type::Text),
    ("duration", Type::Duration),
    ("version", Type::Version),
];

/// The fields of a parameter.
pub(crate) const PARAM_FIELDS: &[&str] = &["type", "default", "min", "max", "doc"];

impl Reader<'_> {
    /// Reads `params` into the reader.
    pub(crate) fn read_params(&mut self, node: &Node) {
        let Kind::Map(entries) = &node.kind else {
            self.wrong_type(
                node,
                "`params` is a mapping",
                "write `idle_wait: { type: duration, default: 4h }`",
            );
            return;
        };
        for e in entries {
            if !name::PARAM.fits(&e.key) {
                let help = match name::PARAM.nearest(&e.key) {
                    Some(near) => format!("write `{near}`"),
                    None => format!("a parameter's name is {}", name::PARAM.says),
                };
                let text = format!("`{}` is not a name: {}", short(&e.key), name::PARAM.says);
                self.found
                    .push(Diagnostic::error(codes::BAD_NAME, text, e.key_span, "not a name").with_help(help));
            }
            match self.param(&e.value) {
                Some(decl) => {
                    self.types.insert(e.key.clone(), decl.ty);
                    self.params.insert(e.key.clone(), (decl, e.key_span));
                }
                None => {
                    self.broken_params.insert(e.key.clone());
                }
            }
        }
    }

    fn param(&mut self, node: &Node) -> Option<ParamDecl> {
        let fields = Fields::of(self, node, "a parameter", PARAM_FIELDS, &["type"]);
        let words: Vec<_> = PARAM_TYPES.iter().map(|(w, _)| *w).collect();
        let word = fields.get("type").and_then(|n| self.word(n, "type", &words))?;
        let ty = PARAM_TYPES.iter().find(|(w, _)| *w == word).map(|(_, t)| *t)?;
        let doc = fields.get("doc").and_then(|n| self.prose(n, MAX_TEXT)).unwrap_or_default();
        let before = self.found.len();
        let mut value = |key: &str| {
            let node = fields.get(key)?;
            let bounds = key != "default";
            if bounds && !matches!(ty, Type::Int | Type::Float | Type::Duration | Type::Version) {
                self.found.push(
                    Diagnostic::error(
                        codes::BAD_PARAM,
                        format!("values of type {ty} have no order, so there is no `{key}`"),
                        node.span,
                        "no order",
                    )
                    .with_help(format!("take `{key}` out")),
                );
                return None;
            }
            match self.literal(node, ty) {
                Ok(v) => Some((v, node.span)),
                Err((message, help)) => {
                    self.found.push(
                        Diagnostic::error(codes::BAD_PARAM, message, node.span, format!("not of type {ty}"))
                            .with_help(help),
                    );
                    None
                }
            }
        };
        let (default, min, max) = (value("default"), value("min"), value("max"));
        if self.found.len() > before {
            return None;
        }
        self.check_limits(default.as_ref(), min.as_ref(), max.as_ref());
        let bare = |v: Option<(Value, Span)>| v.map(|(v, _)| v);
        Some(ParamDecl { ty, default: bare(default), min: bare(min), max: bare(max), doc })
    }

    fn check_limits(
        &mut self,
        default: Option<&(Value, Span)>,
        min: Option<&(Value, Span)>,
        max: Option<&(Value, Span)>,
    ) {
        for (left, right, wrong, text) in [
            (default, min, Ordering::Less, "the default is less than the least value"),
            (default, max, Ordering::Greater, "the default is more than the greatest value"),
            (min, max, Ordering::Greater, "the least value is more than the greatest"),
        ] {
            let (Some((a, at)), Some((b, bound))) = (left, right) else { continue };
            if a.partial_cmp_same(b) == Some(wrong) {
                self.found.push(
                    Diagnostic::error(
                        codes::PARAM_LIMITS,
                        format!("{text}: {a} against {b}"),
                        *at,
                        a.to_string(),
                    )
                    .with_label(*bound, b.to_string())
                    .with_help("change one of the two"),
                );
            }
        }
    }

    /// Reads a literal as a value of a type; else what is wrong and what to write.
    pub(crate) fn literal(&self, node: &Node, ty: Type) -> Result<Value, (String, String)> {
        let raw = short(self.source.slice(node.span));
        let not = |help: String| Err((format!("{} is not of type {ty}", node.type_name()), help));
        match (&node.kind, ty) {
            (Kind::Bool(b), Type::Bool) => Ok(Value::Bool(*b)),
            (Kind::Int(i), Type::Int) => Ok(Value::Int(*i)),
            (Kind::Int(i), Type::Float) => Ok(Value::Float(*i as f64)),
            (Kind::Float(x), Type::Float) if x.is_finite() => Ok(Value::Float(*x)),
            (Kind::Text(t), Type::Text) if !template::is_template(t) => Ok(Value::Text(t.clone())),
            (Kind::Text(t), Type::Duration) => match parse_duration(t) {
                Ok(d) => Ok(Value::Duration(d)),
                Err(e) => {
                    Err((e.to_string(), "write it without blanks, such as 300s, 5m or 1h30m".to_owned()))
                }
            },
            (Kind::Int(i), Type::Duration) => {
                Err((format!("`{i}` has no unit"), format!("write {i}s for seconds, {i}m for minutes")))
            }
            (Kind::Text(t), Type::Version | Type::Enum(_)) => Value::parse(ty, t)
                .map_err(|e| (e, "write a version such as 24.05.3, or a word of the set".to_owned())),
            (Kind::Int(_) | Kind::Float(_), Type::Version) => not(format!("put it in quotes: \"{raw}\"")),
            (Kind::Bool(_) | Kind::Int(_) | Kind::Float(_), Type::Text) => {
                not(format!("put it in quotes: \"{raw}\""))
            }
            (Kind::Text(_), Type::Text) => {
                Err(("a template stands where none is rendered".to_owned(), "write a plain text".to_owned()))
            }
            (Kind::Text(t), Type::Bool)
                if ["yes", "no", "on", "off"].contains(&t.to_lowercase().as_str()) =>
            {
                not("write true or false".to_owned())
            }
            (Kind::Seq(items), Type::TextList | Type::EnumList(_)) => {
                let texts: Option<Vec<String>> = items
                    .iter()
                    .map(|n| if let Kind::Text(t) = &n.kind { Some(t.clone()) } else { None })
                    .collect();
                match texts.map(Value::List).filter(|v| v.is_of(ty)) {
                    Some(v) => Ok(v),
                    None => not(format!("write a {ty}")),
                }
            }
            _ => not(format!("write a value of type {ty}")),
        }
    }
}
