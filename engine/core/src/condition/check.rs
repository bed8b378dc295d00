//! Checks names, words and types, and turns the syntax tree into one that can be evaluated.
//!
//! Pieces that are in error already stay silent, so that one mistake is reported once.

mod values;

use super::ast::{CmpOp, Expr, Kind, Literal};
use super::codes;
use super::eval::{Leaf, Names, Node, Operand, Test};
use super::scope::{Lookup, Scope, Ty};
use super::sink::{Sink, quoted};
use super::trace::wanted;
use crate::diag::{Span, did_you_mean};
use crate::value::Value;
use values::is_no_value;

/// Checks a tree; none where something was reported.
pub(super) fn check(source: &str, tree: &Expr, scope: &Scope<'_>, sink: &mut Sink) -> Option<(Names, Node)> {
    let mut checker = Checker { source, scope, sink, names: Names::new() };
    let root = checker.condition(tree)?;
    Some((checker.names, root))
}

struct Checker<'a, 's> {
    source: &'a str,
    scope: &'a Scope<'s>,
    sink: &'a mut Sink,
    names: Names,
}

/// One side of a comparison.
enum Side<'e> {
    /// A fact, by its place in the names.
    Fact(usize),
    Literal(&'e Literal),
    /// A name without a dot that is no fact: a word of a set, if there is one to belong to.
    Word(&'e str),
    /// Reported already.
    Bad,
}

impl Checker<'_, '_> {
    fn condition(&mut self, expr: &Expr) -> Option<Node> {
        match &expr.kind {
            Kind::Or(items) => self.conditions(items).map(Node::Any),
            Kind::And(items) => self.conditions(items).map(Node::All),
            Kind::Not(inner) => self.condition(inner).map(|n| Node::Not(Box::new(n))),
            Kind::Compare { op, left, right } => self.compare(*op, left, right, expr.span),
            Kind::In { negated, item, list } => self.member(*negated, item, list, expr.span),
            Kind::Is { known, operand } => self.is_known(*known, operand, expr.span),
            Kind::Name(name) => self.lone_name(name, expr.span),
            Kind::Literal(Literal::Bool(_)) => {
                self.constant(expr.span, "take it out: it decides without looking at any fact");
                None
            }
            Kind::Literal(literal) => {
                let message = format!("{} is neither true nor false", literal.type_name());
                self.not_a_condition(
                    message,
                    expr.span,
                    "compare it with a fact, such as `active_jobs == 0`",
                );
                None
            }
            Kind::List(_) => {
                let help = "ask whether a fact is in it: `node.state in [IDLE, COMPLETING]`";
                self.not_a_condition("a list is neither true nor false".to_owned(), expr.span, help);
                None
            }
            Kind::Error => None,
        }
    }

    fn conditions(&mut self, items: &[Expr]) -> Option<Vec<Node>> {
        // All of them are checked, so that all mistakes are reported.
        let nodes: Vec<Option<Node>> = items.iter().map(|item| self.condition(item)).collect();
        nodes.into_iter().collect()
    }

    fn leaf(&self, test: Test, span: Span) -> Node {
        let text = self.source[span.start..span.end].to_owned();
        Node::Leaf(Leaf { text, wanted: wanted(&test, &self.names), test })
    }

    fn constant(&mut self, span: Span, help: &str) {
        self.sink.error(codes::CONSTANT, "this part is always the same", span, "reads no fact", help);
    }

    fn not_a_condition(&mut self, message: String, span: Span, help: &str) {
        self.sink.error(codes::NOT_A_CONDITION, message, span, "not a condition", help);
    }

    fn mismatch(&mut self, message: String, span: Span, label: String, help: String) {
        self.sink.error(codes::TYPE_MISMATCH, message, span, label, help);
    }

    /// Returns the place of a name among the names this condition reads.
    fn intern(&mut self, name: &str, ty: Ty) -> usize {
        self.names.iter().position(|(n, _)| n == name).unwrap_or_else(|| {
            self.names.push((name.to_owned(), ty));
            self.names.len() - 1
        })
    }

    fn lone_name(&mut self, name: &str, span: Span) -> Option<Node> {
        match self.resolve(name, span) {
            Side::Fact(fact) if self.names[fact].1 == Ty::Bool => Some(self.leaf(Test::Holds { fact }, span)),
            Side::Fact(fact) => {
                let ty = &self.names[fact].1;
                let help = match ty {
                    Ty::Bool => format!("write `{name}`"),
                    Ty::Int | Ty::Float => format!("say `{name} == 0` or `{name} > 0`"),
                    Ty::Text => format!("compare it: `{name} == 'text'`"),
                    Ty::Duration => format!("compare it: `{name} < 5m`"),
                    Ty::Version => format!("compare it: `{name} >= '23.02'`"),
                    Ty::Word(set) => {
                        format!("compare it: `{name} == {}`", set.words.first().map_or("WORD", |w| w))
                    }
                    Ty::TextList => format!("ask for an item: `'text' in {name}`"),
                    Ty::WordList(set) => {
                        format!("ask for an item: `{} in {name}`", set.words.first().map_or("WORD", |w| w))
                    }
                };
                let message = format!("`{name}` is {}, neither true nor false", ty.describe());
                self.not_a_condition(message, span, &help);
                None
            }
            Side::Word(word) => {
                self.stray_word(word, span);
                None
            }
            Side::Literal(_) | Side::Bad => None,
        }
    }

    /// Looks a name up; a dotted one must be a fact or a parameter.
    fn resolve<'e>(&mut self, name: &'e str, span: Span) -> Side<'e> {
        match self.scope.lookup(name) {
            Lookup::Found(ty) => Side::Fact(self.intern(name, ty)),
            Lookup::NeedsGpu => {
                self.sink.error(
                    codes::NEEDS_GPU,
                    format!("`{name}` is a fact of one GPU, and the target is a node"),
                    span,
                    "needs `target: gpu`",
                    "declare `target: gpu`, or use a fact of the node",
                );
                Side::Bad
            }
            Lookup::Missing if !name.contains('.') => Side::Word(name),
            Lookup::Missing => {
                self.missing(name, span);
                Side::Bad
            }
        }
    }

    /// Reports a name that is no fact.
    fn missing(&mut self, name: &str, span: Span) {
        let shown = quoted(name);
        if name.starts_with("params.") {
            let help = match did_you_mean(name, self.scope.params()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => match self.scope.params().collect::<Vec<_>>().as_slice() {
                    [] => "declare it under `params:`".to_owned(),
                    declared => format!("declare it under `params:`; declared are {}", declared.join(", ")),
                },
            };
            let message = format!("no parameter is called `{shown}`");
            self.sink.error(codes::UNKNOWN_PARAM, message, span, "not declared", help);
            return;
        }
        // `ecc_dbe_volatile` and `idle_wait` are nearer than any edit distance says.
        let by_tail = self.scope.names().find(|n| n.rsplit('.').next() == Some(name));
        let help = match by_tail.or_else(|| did_you_mean(name, self.scope.names())) {
            Some(near) => format!("did you mean `{near}`?"),
            None if name.contains('.') => "`slurmedic facts` lists every fact with its type".to_owned(),
            None => {
                format!(
                    "`slurmedic facts` lists every fact with its type; a text is written in quotes: '{shown}'"
                )
            }
        };
        self.sink.error(
            codes::UNKNOWN_FACT,
            format!("no fact is called `{shown}`"),
            span,
            "not declared",
            help,
        );
    }

    /// Reports a bare word that stands beside nothing that has words.
    fn stray_word(&mut self, word: &str, span: Span) {
        if is_no_value(word) {
            self.no_value(word, span);
        } else if let Some((fact, spelt)) = self.scope.owner_of(word) {
            let help = format!("compare it with that fact: `{fact} == {spelt}`");
            let message = format!("`{}` is a word of {fact}, used without it", quoted(word));
            self.sink.error(codes::BARE_WORD, message, span, "a word alone", help);
        } else {
            self.missing(word, span);
        }
    }

    fn side<'e>(&mut self, expr: &'e Expr) -> Side<'e> {
        match &expr.kind {
            Kind::Name(name) => self.resolve(name, expr.span),
            Kind::Literal(literal) => Side::Literal(literal),
            Kind::Error => Side::Bad,
            Kind::List(_) => {
                self.sink.error(
                    codes::BAD_LIST,
                    "a list cannot be compared",
                    expr.span,
                    "a list here",
                    "ask for an item: `node.state in [IDLE, COMPLETING]`",
                );
                Side::Bad
            }
            Kind::Or(_)
            | Kind::And(_)
            | Kind::Not(_)
            | Kind::Compare { .. }
            | Kind::In { .. }
            | Kind::Is { .. } => {
                self.mismatch(
                    "a condition cannot be compared".to_owned(),
                    expr.span,
                    "true or false already".to_owned(),
                    "leave `== true` out, and write `not (...)` for `== false`; join conditions by `and`, `or`"
                        .to_owned(),
                );
                Side::Bad
            }
        }
    }

    fn compare(&mut self, op: CmpOp, left: &Expr, right: &Expr, span: Span) -> Option<Node> {
        let sides = (self.side(left), self.side(right));
        let test = match sides {
            (Side::Fact(a), Side::Fact(b)) => self.compare_facts(a, op, b, span)?,
            (Side::Fact(fact), value) => self.compare_value(fact, op, &value, right.span, span)?,
            (value, Side::Fact(fact)) => self.compare_value(fact, op.flipped(), &value, left.span, span)?,
            (Side::Literal(_), Side::Literal(_)) => {
                self.constant(span, "compare a fact with a value, such as `active_jobs == 0`");
                return None;
            }
            (Side::Bad, _) | (_, Side::Bad) => return None,
            (a, b) => {
                // Beside a misspelt fact, a word that exists is not the mistake.
                let stray = |side: &Side<'_>| match side {
                    Side::Word(word) => Some(self.scope.owner_of(word).is_some()),
                    _ => None,
                };
                let misspelt = [&a, &b].iter().any(|s| stray(s) == Some(false));
                for (side, expr) in [(a, left), (b, right)] {
                    if misspelt && stray(&side) == Some(true) {
                        continue;
                    }
                    if let Side::Word(word) = side {
                        self.stray_word(word, expr.span);
                    }
                }
                return None;
            }
        };
        Some(self.leaf(test, span))
    }

    /// Checks that `op` makes sense for a fact.
    fn ordered(&mut self, op: CmpOp, fact: usize, span: Span) -> Option<()> {
        let (name, ty) = &self.names[fact];
        if !op.orders() || ty.is_ordered() {
            return Some(());
        }
        let help = match ty {
            Ty::Word(_) => format!("list the words that are right: `{name} in [...]`"),
            Ty::TextList | Ty::WordList(_) => format!("ask for an item: `... in {name}`"),
            _ => "use == or !=".to_owned(),
        };
        let message = format!("`{}` has no meaning for {}", op.as_str(), ty.describe());
        let label = format!("`{name}` is {}", ty.describe());
        self.sink.error(codes::NOT_ORDERED, message, span, label, help);
        None
    }

    fn compare_facts(&mut self, a: usize, op: CmpOp, b: usize, span: Span) -> Option<Test> {
        if a == b {
            self.constant(span, "both sides are the same fact: one of them is meant to be another");
            return None;
        }
        self.ordered(op, a, span)?;
        self.same_type(a, b, span)?;
        Some(Test::Compare { fact: a, op, with: Operand::Fact(b) })
    }

    fn same_type(&mut self, a: usize, b: usize, span: Span) -> Option<()> {
        let ((a, a_ty), (b, b_ty)) = (&self.names[a], &self.names[b]);
        if a_ty.compares_with(b_ty) {
            return Some(());
        }
        let message = format!("`{a}` is {}, `{b}` is {}", a_ty.describe(), b_ty.describe());
        let help = match (a_ty.is_list(), b_ty.is_list()) {
            (false, true) => format!("ask for an item: `{a} in {b}`"),
            (true, false) => format!("ask for an item: `{b} in {a}`"),
            (true, true) => "lists cannot be compared; ask for items with `in`".to_owned(),
            (false, false) => "compare facts of the same type".to_owned(),
        };
        self.mismatch(message, span, "not the same type".to_owned(), help);
        None
    }

    fn compare_value(
        &mut self,
        fact: usize,
        op: CmpOp,
        value: &Side<'_>,
        at: Span,
        span: Span,
    ) -> Option<Test> {
        if matches!(value, Side::Bad) {
            return None;
        }
        self.ordered(op, fact, span)?;
        let (name, ty) = self.names[fact].clone();
        let value = self.value(&name, &ty, value, at)?;
        Some(Test::Compare { fact, op, with: Operand::Value(value) })
    }

    fn member(&mut self, negated: bool, item: &Expr, list: &Expr, span: Span) -> Option<Node> {
        let left = self.side(item);
        let test = match &list.kind {
            Kind::Error => return None,
            Kind::List(values) => self.one_of(negated, &left, item.span, values, list.span)?,
            Kind::Name(name) => {
                let list_fact = match self.resolve(name, list.span) {
                    Side::Fact(fact) if self.names[fact].1.is_list() => fact,
                    Side::Fact(fact) => {
                        let (name, ty) = self.names[fact].clone();
                        self.not_a_list(format!("`{name}` is {}, not a list", ty.describe()), list.span);
                        return None;
                    }
                    Side::Word(word) => {
                        self.stray_word(word, list.span);
                        return None;
                    }
                    Side::Literal(_) | Side::Bad => return None,
                };
                self.contains(negated, &left, item.span, list_fact, span)?
            }
            Kind::Literal(literal) => {
                self.not_a_list(format!("{} is not a list", literal.type_name()), list.span);
                return None;
            }
            _ => {
                self.not_a_list("a condition is not a list".to_owned(), list.span);
                return None;
            }
        };
        Some(self.leaf(test, span))
    }

    fn not_a_list(&mut self, message: String, span: Span) {
        let help = "write a list, such as `in [IDLE, COMPLETING]`; `in` does not look for a piece of a text";
        self.sink.error(codes::NOT_A_LIST, message, span, "not a list", help);
    }

    fn one_of(
        &mut self,
        negated: bool,
        left: &Side<'_>,
        at: Span,
        items: &[Expr],
        span: Span,
    ) -> Option<Test> {
        let bad_list = |this: &mut Self, message: &str, span: Span, help: &str| {
            this.sink.error(codes::BAD_LIST, message, span, "in this list", help);
        };
        if items.is_empty() {
            bad_list(self, "this list is empty, so nothing is in it", span, "name at least one value");
        }
        let fact = match left {
            Side::Fact(fact) => Some((*fact, self.names[*fact].clone())),
            Side::Literal(_) => {
                self.constant(
                    at.join(span),
                    "put a fact before `in`, such as `node.state in [IDLE, COMPLETING]`",
                );
                return None;
            }
            Side::Word(word) => {
                self.stray_word(word, at);
                None
            }
            Side::Bad => None,
        };
        if let Some((_, (name, ty))) = fact.as_ref().filter(|(_, (_, ty))| ty.is_list()) {
            let help = format!("ask for one item at a time: `... in {name}`");
            let message = format!("`{name}` is {} itself", ty.describe());
            self.mismatch(message, at, "a list in a list".to_owned(), help);
            return None;
        }
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            let side = match &item.kind {
                Kind::Literal(literal) => Side::Literal(literal),
                Kind::Name(name) => self.resolve(name, item.span),
                Kind::Error => Side::Bad,
                _ => {
                    bad_list(
                        self,
                        "a list holds finished values",
                        item.span,
                        "write values, such as [IDLE, MIXED]",
                    );
                    Side::Bad
                }
            };
            if let Side::Fact(_) = side {
                let help = "write a comparison of its own, joined by `or`: `a == b or a == c`";
                bad_list(self, "a list holds finished values, not facts", item.span, help);
            }
            if let Some((_, (name, ty))) = &fact {
                values.push(self.value(name, ty, &side, item.span));
            }
        }
        let values: Vec<Value> = values.into_iter().collect::<Option<_>>()?;
        let (fact, _) = fact.filter(|_| !values.is_empty())?;
        Some(Test::OneOf { fact, values, negated })
    }

    fn contains(
        &mut self,
        negated: bool,
        left: &Side<'_>,
        at: Span,
        list: usize,
        span: Span,
    ) -> Option<Test> {
        let (name, ty) = self.names[list].clone();
        let item_ty = match ty {
            Ty::WordList(set) => Ty::Word(set),
            _ => Ty::Text,
        };
        let item = match left {
            Side::Fact(fact) if self.names[*fact].1 == item_ty => Operand::Fact(*fact),
            Side::Fact(fact) => {
                let (item, ty) = &self.names[*fact];
                let message =
                    format!("`{item}` is {}, and `{name}` lists {}", ty.describe(), plural(&item_ty));
                let help = format!("ask for {}", item_ty.describe());
                self.mismatch(message, span, "not the same type".to_owned(), help);
                return None;
            }
            value => Operand::Value(self.value(&name, &item_ty, value, at)?),
        };
        Some(Test::Contains { item, list, negated })
    }

    fn is_known(&mut self, known: bool, operand: &Expr, span: Span) -> Option<Node> {
        let fact = match &operand.kind {
            Kind::Name(name) => match self.resolve(name, operand.span) {
                Side::Fact(fact) => fact,
                Side::Word(word) => {
                    self.stray_word(word, operand.span);
                    return None;
                }
                Side::Literal(_) | Side::Bad => return None,
            },
            Kind::Error => return None,
            Kind::Literal(_) | Kind::List(_) => {
                self.constant(span, "a finished value is always known: ask about a fact");
                return None;
            }
            _ => {
                self.sink.error(
                    codes::BAD_IS,
                    "only a fact can be asked whether it is known",
                    operand.span,
                    "not a fact",
                    "ask about each fact, joined by `and`: `gpu.xid is known and gpu.health is known`",
                );
                return None;
            }
        };
        Some(self.leaf(Test::Known { fact, known }, span))
    }
}

fn plural(ty: &Ty) -> String {
    match ty {
        Ty::Word(set) => format!("words of {}", set.set),
        _ => "texts".to_owned(),
    }
}
