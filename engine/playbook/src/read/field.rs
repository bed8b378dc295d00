//! Readers of single fields: each takes a node and either returns the value or says what is wrong with it.

use super::{MAX_ITEMS, Reader};
use crate::codes;
use crate::source::is_forbidden;
use crate::template;
use crate::tree::{Kind, Node, short};
use engine_core::diag::{Diagnostic, Span, did_you_mean};

/// Forms of names.
pub(crate) mod name {
    /// What a name may look like.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Form {
        pub(crate) joint: &'static [char],
        pub(crate) says: &'static str,
    }

    /// Ids, owners, fault words.
    pub(crate) const ID: Form = Form {
        joint: &['-'],
        says: "lower-case letters, digits and `-`, beginning with a letter, at most 64 characters",
    };
    /// Parameters.
    pub(crate) const PARAM: Form = Form {
        joint: &['_'],
        says: "lower-case letters, digits and `_`, beginning with a letter, at most 64 characters",
    };
    /// Capabilities.
    pub(crate) const CAPABILITY: Form =
        Form { joint: &['.', '_'], says: "two words with a dot, such as gpu.reset" };

    impl Form {
        pub(crate) fn fits(self, text: &str) -> bool {
            text.len() <= 64
                && text.starts_with(|c: char| c.is_ascii_lowercase())
                && text.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && text
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || self.joint.contains(&c))
        }

        /// Turns a text into the nearest name of this form.
        pub(crate) fn nearest(self, text: &str) -> Option<String> {
            let joint = self.joint[0];
            let mut out = String::new();
            for c in text.trim().chars().take(64) {
                let c = c.to_ascii_lowercase();
                if c.is_ascii_lowercase() || c.is_ascii_digit() || self.joint.contains(&c) {
                    out.push(c);
                } else if !out.ends_with(joint) {
                    out.push(joint);
                }
            }
            let out = out.trim_matches(joint).to_owned();
            self.fits(&out).then_some(out)
        }
    }
}

/// The fields of a mapping, after unknown and missing ones were reported.
#[derive(Debug)]
pub(crate) struct Fields<'n> {
    node: &'n Node,
}

impl<'n> Fields<'n> {
    pub(crate) fn of(
        r: &mut Reader<'_>,
        node: &'n Node,
        what: &str,
        known: &[&str],
        required: &[&str],
    ) -> Self {
        let Kind::Map(entries) = &node.kind else {
            r.wrong_type(
                node,
                &format!("{what} is a mapping"),
                &format!("its fields are {}", known.join(", ")),
            );
            return Self { node };
        };
        for e in entries {
            if !known.contains(&e.key.as_str()) {
                let help = match did_you_mean(&e.key, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("the fields are {}", known.join(", ")),
                };
                r.found.push(
                    Diagnostic::error(
                        codes::UNKNOWN_FIELD,
                        format!("{what} has no field `{}`", short(&e.key)),
                        e.key_span,
                        "unknown field",
                    )
                    .with_help(help),
                );
            }
        }
        for m in required {
            let given = entries.iter().find(|e| e.key == *m);
            if given.is_none_or(|e| e.value.kind == Kind::Null) {
                // A missing field has no place: the first key of the mapping, or the empty one, stands for it.
                let span = given.or(entries.first()).map_or(node.span, |e| e.key_span);
                let label = if given.is_some() { "has no value" } else { "" };
                r.found.push(
                    Diagnostic::error(
                        codes::MISSING_FIELD,
                        format!("{what} needs the field `{m}`"),
                        span,
                        label,
                    )
                    .with_help(example(m)),
                );
            }
        }
        Self { node }
    }

    /// Returns the value of a field; one without a value counts as left out.
    pub(crate) fn get(&self, key: &str) -> Option<&'n Node> {
        self.node.get(key).map(|e| &e.value).filter(|n| n.kind != Kind::Null)
    }
}

fn example(field: &str) -> &'static str {
    match field {
        "playbook" => "add `playbook: <id>`, the name of its folder",
        "version" => "add `version: 1.0.0`",
        "summary" => "add `summary:` with one sentence for people",
        "owner" => "add `owner:` with the team that answers for it",
        "target" => "add `target: gpu` or `target: node`",
        "steps" => "add `steps:` with a list of actions; `slurmedic actions` lists them",
        "approval" => "add `approval: hitl`: one person says yes to each run",
        "check" => "add `check:` with the condition",
        "from" => "add `from:`",
        "to" => "add `to:`",
        "why" => "add `why:` with the reason, for people",
        "type" => "add `type:` with bool, int, float, text, duration or version",
        _ => "add it",
    }
}

impl Reader<'_> {
    /// Reports a value of the wrong type.
    pub(crate) fn wrong_type(&mut self, node: &Node, message: &str, help: &str) {
        self.found.push(
            Diagnostic::error(
                codes::WRONG_TYPE,
                format!("{message}, not {}", node.type_name()),
                node.span,
                format!("this is {}", node.type_name()),
            )
            .with_help(help),
        );
    }

    /// Reads a list with a bounded number of items.
    pub(crate) fn list<'n>(&mut self, node: &'n Node, message: &str, help: &str) -> Option<&'n [Node]> {
        let Kind::Seq(items) = &node.kind else {
            self.wrong_type(node, message, help);
            return None;
        };
        if items.len() > MAX_ITEMS {
            let text = format!("{} items, at most {MAX_ITEMS} are allowed", items.len());
            self.found.push(
                Diagnostic::error(codes::BAD_LENGTH, text, items[MAX_ITEMS].span, "one too many")
                    .with_help("split it"),
            );
            return None;
        }
        Some(items)
    }

    /// Reads a text; anything else is reported.
    pub(crate) fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        if let Kind::Text(t) = &node.kind {
            return Some(t);
        }
        let raw = short(self.source.slice(node.span));
        let help = match node.kind {
            Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) => format!("put it in quotes: \"{raw}\""),
            _ => "write a text on one line".to_owned(),
        };
        self.wrong_type(node, &format!("{what} is a text"), &help);
        None
    }

    /// Reads a text for people: one line, not empty, not a template.
    pub(crate) fn prose(&mut self, node: &Node, most: usize) -> Option<String> {
        let text = self.text(node, "this field")?.trim();
        let count = text.chars().count();
        let problem = if count == 0 {
            Some("the text is empty".to_owned())
        } else if count > most {
            Some(format!("the text has {count} characters, at most {most} are allowed"))
        } else if text.chars().any(char::is_control) {
            Some("the text has more than one line".to_owned())
        } else if text.chars().any(is_forbidden) {
            // Escapes in quotes bring in what the text of the file must not hold.
            Some("the text has characters that do not print".to_owned())
        } else {
            None
        };
        if let Some(p) = problem {
            self.found.push(
                Diagnostic::error(codes::BAD_LENGTH, p, node.span, "").with_help("write one short line"),
            );
            return None;
        }
        if template::is_template(text) {
            self.found.push(
                Diagnostic::error(
                    codes::TEMPLATE_HERE,
                    "this text is not a template",
                    node.span,
                    "shown as it stands",
                )
                .with_help("only arguments of steps are rendered: write plain words here"),
            );
            return None;
        }
        Some(text.to_owned())
    }

    /// Reads a name of a form.
    pub(crate) fn name(&mut self, node: &Node, form: name::Form) -> Option<String> {
        let text = self.text(node, "a name")?;
        if form.fits(text) {
            return Some(text.to_owned());
        }
        let help = match form.nearest(text) {
            Some(near) => format!("write `{near}`"),
            None => format!("a name is {}", form.says),
        };
        self.found.push(
            Diagnostic::error(
                codes::BAD_NAME,
                format!("`{}` is not a name: {}", short(text), form.says),
                node.span,
                "not a name",
            )
            .with_help(help),
        );
        None
    }

    /// Reads a list of names, each once.
    pub(crate) fn names(&mut self, node: &Node, form: name::Form) -> Vec<(String, Span)> {
        let help = format!("write [{}]", short(self.source.slice(node.span)));
        let Some(items) = self.list(node, "this field is a list", &help) else { return Vec::new() };
        let mut out: Vec<(String, Span)> = Vec::new();
        for item in items {
            let Some(word) = self.name(item, form) else { continue };
            if let Some((_, first)) = out.iter().find(|(w, _)| *w == word) {
                self.found.push(
                    Diagnostic::error(
                        codes::REPEATED_WORD,
                        format!("`{word}` stands twice"),
                        item.span,
                        "again",
                    )
                    .with_label(*first, "first here")
                    .with_help("take one of them out"),
                );
                continue;
            }
            out.push((word, item.span));
        }
        out
    }

    /// Reads one word of a closed set.
    pub(crate) fn word<'w>(&mut self, node: &Node, what: &str, words: &[&'w str]) -> Option<&'w str> {
        let text = self.text(node, what)?;
        if let Some(w) = words.iter().find(|w| **w == text) {
            return Some(w);
        }
        let help = match did_you_mean(text, words.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write {}", words.join(", ")),
        };
        self.found.push(
            Diagnostic::error(
                codes::UNKNOWN_WORD,
                format!("`{}` is not a word of `{what}`", short(text)),
                node.span,
                format!("not one of {}", words.join(", ")),
            )
            .with_help(help),
        );
        None
    }
}
