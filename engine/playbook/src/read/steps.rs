//! Steps: the action, its arguments with their types, and the keys beside it.

use super::{MAX_ITEMS, Placed, Reader};
use crate::codes;
use crate::template;
use crate::tree::{Entry, Kind, Node, short};
use engine_core::action::{self, ACTIONS, ActionSpec, ArgSpec};
use engine_core::diag::{Diagnostic, Span, did_you_mean};
use engine_core::playbook::{ArgValue, Step};
use engine_core::value::{Type, Value, format_duration};
use jiff::SignedDuration;
use std::collections::BTreeMap;

/// Keys beside the action.
pub(crate) const BESIDE: &[&str] = &["when", "timeout", "attempts"];
/// Most attempts.
pub(crate) const MAX_ATTEMPTS: u32 = 10;
/// Longest literal text of an argument, in bytes.
const MAX_ARGUMENT: usize = 1000;

impl Reader<'_> {
    /// Reads a list of steps; also says whether all of them were understood.
    pub(crate) fn steps(&mut self, node: &Node) -> (Vec<Placed>, bool) {
        let help = "write one step per item: `- slurm.resume`";
        let Some(items) = self.list(node, "a list of steps is due here", help) else {
            return (Vec::new(), false);
        };
        let steps: Vec<_> = items.iter().take(MAX_ITEMS).filter_map(|n| self.step(n)).collect();
        let complete = steps.len() == items.len();
        (steps, complete)
    }

    fn step(&mut self, node: &Node) -> Option<Placed> {
        match &node.kind {
            Kind::Text(name) => {
                let spec = self.action(name, node.span)?;
                let step =
                    Step { action: spec, args: BTreeMap::new(), when: None, timeout: None, attempts: None };
                self.missing_arguments(spec, None, node.span);
                Some(Placed { step, span: node.span, attempts: None })
            }
            Kind::Map(entries) => self.mapping(entries, node),
            _ => {
                self.bad_step(node.span, format!("a step is an action, not {}", node.type_name()));
                None
            }
        }
    }

    fn bad_step(&mut self, span: Span, message: String) {
        self.found.push(
            Diagnostic::error(codes::BAD_STEP, message, span, "not a step").with_help(
                "write `- slurm.resume`, or `- slurm.drain: { reason: \"…\" }` with `when`, `timeout` and `attempts` beside it",
            ),
        );
    }

    fn mapping(&mut self, entries: &[Entry], node: &Node) -> Option<Placed> {
        let others: Vec<&Entry> = entries.iter().filter(|e| !BESIDE.contains(&e.key.as_str())).collect();
        // The action is the key with a dot, else the first that is not beside it.
        let action = others.iter().find(|e| e.key.contains('.')).or(others.first()).copied();
        let Some(action) = action else {
            self.bad_step(node.span, "the step names no action".to_owned());
            return None;
        };
        for e in others.iter().filter(|e| !std::ptr::eq(**e, action)) {
            let help = if e.key.contains('.') {
                "each step is an item of its own: begin it with `- `".to_owned()
            } else {
                match did_you_mean(&e.key, BESIDE.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("beside an action stand {}; arguments stand under it", BESIDE.join(", ")),
                }
            };
            let text = format!("a step has no field `{}`", short(&e.key));
            self.found.push(
                Diagnostic::error(codes::UNKNOWN_FIELD, text, e.key_span, "unknown field").with_help(help),
            );
        }
        let spec = self.action(&action.key, action.key_span);
        let beside = |key: &str| entries.iter().find(|e| e.key == key).map(|e| &e.value);
        let when = beside("when").map(|n| self.condition(n));
        let Some(spec) = spec else {
            // Without the action the arguments have no types, but the rest is checked.
            return None;
        };
        let (args, inner) = self.arguments(spec, action)?;
        let outer =
            beside("timeout").and_then(|n| self.argument(spec, timeout_spec(spec), n).map(|v| (v, n.span)));
        if let (Some((_, a)), Some((_, b))) = (&inner, &outer) {
            self.found.push(
                Diagnostic::error(codes::GIVEN_TWICE, "the time limit is given twice", *b, "given here")
                    .with_label(*a, "and here")
                    .with_help("keep one of them"),
            );
        }
        let attempts = beside("attempts").and_then(|n| self.attempts(spec, n).map(|a| (a, n.span)));
        let when = match when {
            Some(None) => return None,
            Some(w) => w,
            None => None,
        };
        let step = Step {
            action: spec,
            args,
            when,
            timeout: inner.or(outer).map(|(v, _)| v),
            attempts: attempts.map(|(a, _)| a),
        };
        Some(Placed { step, span: action.key_span, attempts: attempts.map(|(_, s)| s) })
    }

    fn action(&mut self, name: &str, span: Span) -> Option<&'static ActionSpec> {
        if let Some(spec) = action::find(name) {
            return Some(spec);
        }
        let by_verb = || {
            let verb = name.rsplit('.').next().unwrap_or(name);
            ACTIONS.iter().map(|a| a.name).find(|a| a.rsplit('.').next() == Some(verb))
        };
        let help = match did_you_mean(name, ACTIONS.iter().map(|a| a.name)).or_else(by_verb) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`slurmedic actions` lists the actions".to_owned(),
        };
        let text = format!("there is no action `{}`", short(name));
        self.found
            .push(Diagnostic::error(codes::UNKNOWN_ACTION, text, span, "unknown action").with_help(help));
        None
    }

    #[expect(clippy::type_complexity, reason = "arguments, and the time limit with its place")]
    fn arguments(
        &mut self,
        spec: &'static ActionSpec,
        action: &Entry,
    ) -> Option<(BTreeMap<String, ArgValue>, Option<(ArgValue, Span)>)> {
        let mut args = BTreeMap::new();
        let mut timeout = None;
        let given: &[Entry] = match &action.value.kind {
            Kind::Map(given) => given,
            Kind::Null => &[],
            _ => {
                let example = spec.args.iter().find(|a| a.required).or(spec.args.first());
                let help = match example {
                    Some(a) => format!(
                        "write `{}: {{ {}: {} }}`",
                        spec.name,
                        a.name,
                        short(self.source.slice(action.value.span))
                    ),
                    None => format!("write `- {}`", spec.name),
                };
                let text = format!(
                    "the arguments of `{}` are a mapping, not {}",
                    spec.name,
                    action.value.type_name()
                );
                self.found.push(
                    Diagnostic::error(
                        codes::BAD_STEP,
                        text,
                        action.value.span,
                        "without the argument's name",
                    )
                    .with_help(help),
                );
                return None;
            }
        };
        for e in given {
            let Some(arg) = spec.args.iter().find(|a| a.name == e.key) else {
                let names: Vec<_> = spec.args.iter().map(|a| a.name).collect();
                let help = match did_you_mean(&e.key, names.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None if BESIDE.contains(&e.key.as_str()) => {
                        format!("`{}` stands beside the action, on a line of its own", e.key)
                    }
                    None => format!("its arguments are {}", names.join(", ")),
                };
                let text = format!("`{}` has no argument `{}`", spec.name, short(&e.key));
                self.found.push(
                    Diagnostic::error(codes::UNKNOWN_ARGUMENT, text, e.key_span, "unknown argument")
                        .with_help(help),
                );
                continue;
            };
            if e.value.kind == Kind::Null {
                continue;
            }
            let Some(value) = self.argument(spec, arg, &e.value) else { continue };
            if arg.name == "timeout" {
                timeout = Some((value, e.value.span));
            } else {
                args.insert(e.key.clone(), value);
            }
        }
        self.missing_arguments(spec, Some(given), action.key_span);
        Some((args, timeout))
    }

    fn missing_arguments(&mut self, spec: &ActionSpec, given: Option<&[Entry]>, span: Span) {
        for a in spec.args.iter().filter(|a| a.required) {
            let has = given.is_some_and(|g| g.iter().any(|e| e.key == a.name && e.value.kind != Kind::Null));
            if !has {
                let sample = match a.name {
                    "bus_id" => "\"{{ gpu.bus_id }}\"",
                    _ => "\"…\"",
                };
                self.found.push(
                    Diagnostic::error(
                        codes::MISSING_ARGUMENT,
                        format!("`{}` needs the argument `{}`", spec.name, a.name),
                        span,
                        format!("without `{}`", a.name),
                    )
                    .with_help(format!("write `{}: {{ {}: {sample} }}`: {}", spec.name, a.name, a.doc)),
                );
            }
        }
    }

    /// Reads one argument: a literal of its type, or a template that gives one.
    fn argument(&mut self, spec: &ActionSpec, arg: &ArgSpec, node: &Node) -> Option<ArgValue> {
        if let Kind::Text(t) = &node.kind
            && template::is_template(t)
        {
            let checked = self.template(node, t)?;
            let given = checked.single.unwrap_or(Type::Text);
            if !fits(given, arg.ty) {
                let text = format!("`{}` is of type {}, and this template gives {given}", arg.name, arg.ty);
                let help = format!("use one fact or parameter of type {}, alone between the quotes", arg.ty);
                self.found.push(
                    Diagnostic::error(codes::TEMPLATE_TYPE, text, node.span, format!("gives {given}"))
                        .with_help(help),
                );
                return None;
            }
            if arg.name == "timeout" {
                self.timeout_param(spec, &checked.names, node.span);
            }
            return Some(ArgValue::Template(t.clone()));
        }
        let value = match self.literal(node, arg.ty) {
            Ok(v) => v,
            Err((message, help)) => {
                let text = format!("argument `{}`: {message}", arg.name);
                self.found.push(
                    Diagnostic::error(
                        codes::BAD_ARGUMENT,
                        text,
                        node.span,
                        format!("not of type {}", arg.ty),
                    )
                    .with_help(help),
                );
                return None;
            }
        };
        if let Value::Text(t) = &value
            && (t.trim().is_empty() || t.len() > MAX_ARGUMENT || t.chars().any(char::is_control))
        {
            let text = format!("argument `{}` is one line of 1 to {MAX_ARGUMENT} bytes", arg.name);
            self.found.push(
                Diagnostic::error(codes::BAD_LENGTH, text, node.span, "").with_help("write one short line"),
            );
            return None;
        }
        if arg.name == "timeout" && !self.timeout_fits(spec, &value, node.span, "the time limit") {
            return None;
        }
        Some(ArgValue::Literal(value))
    }

    fn timeout_fits(&mut self, spec: &ActionSpec, value: &Value, span: Span, what: &str) -> bool {
        let max = SignedDuration::from_secs(i64::from(spec.max_timeout_s));
        let fits = matches!(value, Value::Duration(d) if *d > SignedDuration::ZERO && *d <= max);
        if !fits {
            let max = format_duration(max);
            self.found.push(
                Diagnostic::error(
                    codes::BAD_TIMEOUT,
                    format!("{what} of `{}` is more than 0s and at most {max}, not {value}", spec.name),
                    span,
                    "out of range",
                )
                .with_help(format!("choose at most {max}; without one it is {}", {
                    format_duration(SignedDuration::from_secs(i64::from(spec.default_timeout_s)))
                })),
            );
        }
        fits
    }

    /// A parameter used as time limit must keep within the action's.
    fn timeout_param(&mut self, spec: &ActionSpec, names: &[String], span: Span) {
        for name in names.iter().filter_map(|n| n.strip_prefix("params.")) {
            let Some((decl, _)) = self.params.get(name) else { continue };
            let greatest = decl.max.clone().or_else(|| decl.default.clone());
            if let Some(v) = greatest {
                self.timeout_fits(spec, &v, span, &format!("the greatest value of `{name}`, as time limit"));
            }
        }
    }

    fn attempts(&mut self, spec: &ActionSpec, node: &Node) -> Option<u32> {
        let Kind::Int(i) = node.kind else {
            self.wrong_type(node, "`attempts` is a whole number", "write `attempts: 3`");
            return None;
        };
        match u32::try_from(i).ok().filter(|n| (1..=MAX_ATTEMPTS).contains(n)) {
            Some(n) => Some(n),
            None => {
                self.found.push(
                    Diagnostic::error(
                        codes::BAD_ATTEMPTS,
                        format!("`attempts` is 1 to {MAX_ATTEMPTS}, not {i}"),
                        node.span,
                        "out of range",
                    )
                    .with_help(format!(
                        "without it `{}` is tried {} times",
                        spec.name, spec.default_attempts
                    )),
                );
                None
            }
        }
    }
}

fn timeout_spec(spec: &ActionSpec) -> &'static ArgSpec {
    const TIMEOUT: ArgSpec = ArgSpec {
        name: "timeout",
        ty: Type::Duration,
        required: false,
        default: "",
        doc: "Time limit of the step.",
    };
    static FALLBACK: ArgSpec = TIMEOUT;
    action::find(spec.name).and_then(|s| s.args.iter().find(|a| a.name == "timeout")).unwrap_or(&FALLBACK)
}

/// Says whether a value of one type may stand where another is due.
fn fits(given: Type, due: Type) -> bool {
    let list = matches!(given, Type::TextList | Type::EnumList(_));
    given == due || (due == Type::Text && !list) || (due == Type::Float && given == Type::Int)
}
