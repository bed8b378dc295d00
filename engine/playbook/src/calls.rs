//! Steps written as calls, `slurm.drain(reason: "…")`, as the founding documents have them.
//!
//! They are found in the lines of `steps` and `rollback` before YAML sees the text, because YAML reads them as
//! something else. Each gets its diagnostic; the loader then goes on with the rewritten text, so that everything else
//! that is wrong is found too, and `lint --fix` writes the same text to the file.

use crate::codes;
use crate::source::SourceText;
use crate::template;
use engine_core::diag::{Diagnostic, Span};
use engine_core::vocabulary;

/// One call and what it becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    /// From the action's name to the closing parenthesis.
    span: Span,
    mapping: String,
}

/// A text with its calls rewritten, and the way back to the places of the original.
#[derive(Debug)]
pub(crate) struct Rewritten {
    pub(crate) text: String,
    calls: Vec<Call>,
}

/// Finds the calls of a text; `None` when there are none.
pub(crate) fn rewrite(source: &SourceText) -> Option<Rewritten> {
    let calls = find(&source.text);
    if calls.is_empty() {
        return None;
    }
    let mut text = String::with_capacity(source.text.len() + 64);
    let mut at = 0;
    for c in &calls {
        text.push_str(&source.text[at..c.span.start]);
        text.push_str(&c.mapping);
        at = c.span.end;
    }
    text.push_str(&source.text[at..]);
    Some(Rewritten { text, calls })
}

impl Rewritten {
    /// Says of each call what it should be.
    pub(crate) fn diagnostics(&self) -> impl Iterator<Item = Diagnostic> + '_ {
        self.calls.iter().map(|c| {
            Diagnostic::error(
                codes::CALL_NOTATION,
                "a step is not a call: the arguments are a mapping",
                c.span,
                "written as a call",
            )
            .with_help(format!("write `- {}`; `slurmedic lint --fix` does that for you", c.mapping))
        })
    }

    /// Places a span of the rewritten text in the original; what lies in a rewritten step is the whole call.
    pub(crate) fn original(&self, span: Span) -> Span {
        let start = self.point(span.start, false);
        Span::new(start, self.point(span.end, true).max(start))
    }

    fn point(&self, at: usize, is_end: bool) -> usize {
        // Bytes of the original and of the rewritten text up to the end of the calls passed.
        let (mut original, mut rewritten) = (0, 0);
        for c in &self.calls {
            let start = rewritten + (c.span.start - original);
            let end = start + c.mapping.len();
            if at < start || (is_end && at == start) {
                break;
            }
            if at < end || (is_end && at == end) {
                return if is_end { c.span.end } else { c.span.start };
            }
            (original, rewritten) = (c.span.end, end);
        }
        original + (at - rewritten)
    }
}

/// Finds calls in the lists of the top-level keys `steps` and `rollback`.
fn find(text: &str) -> Vec<Call> {
    let mut out = Vec::new();
    let mut in_steps = false;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let body = line.trim_end();
        let indent = body.len() - body.trim_start().len();
        let rest = &body[indent..];
        if rest.is_empty() || rest.starts_with('#') {
            continue;
        }
        if indent == 0 && !rest.starts_with('-') {
            in_steps = rest.starts_with("steps:") || rest.starts_with("rollback:");
            continue;
        }
        let Some(item) = rest.strip_prefix("- ").filter(|_| in_steps) else { continue };
        let lead = item.len() - item.trim_start().len();
        if let Some((len, mapping)) = call(item.trim_start()) {
            let from = start + indent + 2 + lead;
            out.push(Call { span: Span::new(from, from + len), mapping });
        }
    }
    out
}

/// Reads `group.verb(arguments)` with nothing but a comment behind it; returns its length and the mapping form.
fn call(item: &str) -> Option<(usize, String)> {
    let open = item.find('(')?;
    let name = &item[..open];
    let is_word = |w: &str| !w.is_empty() && w.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !name.contains('.') || !name.split('.').all(is_word) {
        return None;
    }
    let close = closing(item, open)?;
    let behind = item[close + 1..].trim_start();
    if !(behind.is_empty() || behind.starts_with('#')) {
        return None;
    }
    let arguments = split(&item[open + 1..close]);
    let mut fields = Vec::new();
    for a in arguments {
        fields.push(field(a)?);
    }
    let mapping =
        if fields.is_empty() { name.to_owned() } else { format!("{name}: {{ {} }}", fields.join(", ")) };
    Some((close + 1, mapping))
}

/// Writes one argument as a field of a mapping.
fn field(argument: &str) -> Option<String> {
    let is_name = |w: &str| {
        w.starts_with(|c: char| c.is_ascii_alphabetic())
            && w.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let separator = [':', '='].iter().filter_map(|c| argument.find(*c)).min();
    if let Some(i) = separator.filter(|i| is_name(argument[..*i].trim())) {
        let value = argument[i + 1..].trim();
        return (!value.is_empty()).then(|| format!("{}: {}", argument[..i].trim(), scalar(value)));
    }
    // A bare name is the fact of that name.
    let name = argument.trim();
    let fact = is_name(name).then(|| {
        let full = ["gpu", "alert", "node"].iter().map(|g| format!("{g}.{name}"));
        full.clone().find(|f| vocabulary::find(f).is_some()).unwrap_or_else(|| format!("params.{name}"))
    })?;
    Some(format!("{name}: \"{{{{ {fact} }}}}\""))
}

/// Writes a value so that YAML reads it as it is: quoted ones stay, plain words stay, all else is quoted.
fn scalar(value: &str) -> String {
    let quoted = |q: char| value.len() >= 2 && value.starts_with(q) && value.ends_with(q);
    let plain = value.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    if quoted('"') || quoted('\'') || (plain && !value.starts_with('-')) {
        value.to_owned()
    } else if template::is_template(value) || !value.contains('\'') {
        format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        format!("'{}'", value.replace('\'', "''"))
    }
}

/// Finds the parenthesis that closes the one at `open`, outside of quotes.
fn closing(text: &str, open: usize) -> Option<usize> {
    let mut depth = 0;
    let mut quote = None;
    for (i, c) in text.char_indices().skip_while(|(i, _)| *i < open) {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None => match c {
                '"' | '\'' => quote = Some(c),
                '(' => depth += 1,
                ')' => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(i);
                    }
                }
                _ => {}
            },
        }
    }
    None
}

/// Splits arguments at commas outside of quotes and brackets.
fn split(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut start, mut depth, mut quote) = (0, 0_i32, None);
    for (i, c) in text.char_indices() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None => match c {
                '"' | '\'' => quote = Some(c),
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth -= 1,
                ',' if depth == 0 => {
                    out.push(text[start..i].trim());
                    start = i + 1;
                }
                _ => {}
            },
        }
    }
    let last = text[start..].trim();
    if !last.is_empty() {
        out.push(last);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUNDING: &str = "playbook: x   # keep\nsteps:\n- slurm.drain(reason: \"DCGM ECC alert {{alert.id}}\")  # first\n- dcgm.reset_gpu(bus_id)\n- health.verify_gpu(timeout: 300s)\nrollback:\n  - slurm.resume()\napproval: hitl\n";

    #[test]
    fn the_founding_form_becomes_mappings_and_all_else_stays() {
        let r = rewrite(&SourceText::new("x", FOUNDING)).unwrap();
        assert_eq!(
            r.text,
            "playbook: x   # keep\nsteps:\n- slurm.drain: { reason: \"DCGM ECC alert {{alert.id}}\" }  # first\n- dcgm.reset_gpu: { bus_id: \"{{ gpu.bus_id }}\" }\n- health.verify_gpu: { timeout: 300s }\nrollback:\n  - slurm.resume\napproval: hitl\n"
        );
        assert_eq!(r.diagnostics().count(), 4);
        assert!(rewrite(&SourceText::new("x", r.text.as_str())).is_none(), "the rewritten text has no calls");
    }

    #[test]
    fn places_lead_back_to_the_original() {
        let r = rewrite(&SourceText::new("x", FOUNDING)).unwrap();
        for word in ["playbook", "# first", "rollback", "approval: hitl"] {
            let at = r.text.find(word).unwrap();
            let back = r.original(Span::new(at, at + word.len()));
            assert_eq!(&FOUNDING[back.start..back.end], word);
        }
        let at = r.text.find("bus_id").unwrap();
        let back = r.original(Span::new(at, at + 6));
        assert_eq!(&FOUNDING[back.start..back.end], "dcgm.reset_gpu(bus_id)");
        let back = r.original(Span::new(0, r.text.len()));
        assert_eq!(back, Span::new(0, FOUNDING.len()));
    }

    #[test]
    fn only_steps_are_calls() {
        for text in [
            "summary: see slurm.drain(x)\n",
            "preconditions:\n  - slurm.drain(x)\n",
            "steps:\n  - slurm.drain: { reason: \"a (b)\" }\n",
            "steps:\n  - slurm.drain(reason\n",
            "steps:\n  # - slurm.drain(a: b)\n  - slurm.resume\n",
        ] {
            assert!(rewrite(&SourceText::new("x", text)).is_none(), "{text}");
        }
        let t = "steps:\n  - a.b(x: say \"hi, (you)\", y=[1, 2], z: \"a, b)\")\n";
        assert_eq!(
            rewrite(&SourceText::new("x", t)).unwrap().text,
            "steps:\n  - a.b: { x: \"say \\\"hi, (you)\\\"\", y: \"[1, 2]\", z: \"a, b)\" }\n"
        );
    }
}
