//! A Pratt parser with recovery: one pass reports every mistake it can tell apart.
//!
//! Work and stack are bounded by [`MAX_DEPTH`] and [`MAX_NODES`], whatever the input.

use super::ast::{Expr, Kind, chain};
use super::codes;
use super::sink::{Sink, quoted};
use super::token::{Tok, Token, tokenize};
use crate::diag::Span;

/// Deepest nesting of parentheses, lists and `not`.
pub(super) const MAX_DEPTH: usize = 32;
/// Most pieces in one condition.
pub(super) const MAX_NODES: usize = 512;

/// Parses a source; pieces that could not be read are [`Kind::Error`], each of them reported.
///
/// None where a limit was passed: then the rest was not read.
pub(super) fn parse(source: &str, sink: &mut Sink) -> Option<Expr> {
    let tokens = tokenize(source, sink);
    let mut parser =
        Parser { source, tokens, at: 0, open: Vec::new(), depth: 0, nodes: 0, stopped: false, sink };
    let tree = parser.sequence(Closer::End);
    (!parser.stopped).then_some(tree)
}

/// How tightly an operator binds, loosest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Power {
    Or,
    And,
    Not,
    Compare,
    Operand,
}

/// What ends the piece being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closer {
    End,
    Paren,
    /// An item of a list: ends at `,` or `]`.
    Item,
}

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    at: usize,
    /// What would close the brackets now open, outermost first.
    open: Vec<Tok>,
    depth: usize,
    nodes: usize,
    /// A limit was passed: nothing more is read.
    stopped: bool,
    sink: &'a mut Sink,
}

impl Parser<'_> {
    fn peek(&self) -> &Tok {
        &self.tokens[self.at].tok
    }

    fn peek_second(&self) -> &Tok {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].tok
    }

    fn span(&self) -> Span {
        self.tokens[self.at].span
    }

    /// Takes the next token and returns its span; the end is never taken.
    fn take(&mut self) -> Span {
        let span = self.span();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        span
    }

    fn text(&self, span: Span) -> &str {
        &self.source[span.start..span.end]
    }

    /// Describes the next token for a message.
    fn found(&self) -> String {
        match self.peek() {
            Tok::End => "the end".to_owned(),
            _ => format!("`{}`", quoted(self.text(self.span()))),
        }
    }

    /// Builds a node, or stops everything when there are too many.
    fn node(&mut self, kind: Kind, span: Span) -> Expr {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            self.stop(format!("this condition has more than {MAX_NODES} parts"), span);
            return Expr::new(Kind::Error, span);
        }
        Expr::new(kind, span)
    }

    fn stop(&mut self, message: String, span: Span) {
        if !self.stopped {
            self.stopped = true;
            self.sink.error(
                codes::TOO_LARGE,
                message,
                span,
                "too much from here on",
                "split it: each line of `preconditions` is one condition, and all of them must hold",
            );
        }
        self.at = self.tokens.len() - 1;
    }

    fn enter(&mut self) -> bool {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let span = self.span();
            self.stop(format!("nested more than {MAX_DEPTH} deep"), span);
        }
        !self.stopped
    }

    fn at_closer(&self, closer: Closer) -> bool {
        match self.peek() {
            Tok::End => true,
            Tok::RParen => closer == Closer::Paren,
            Tok::RBracket | Tok::Comma => closer == Closer::Item,
            _ => false,
        }
    }

    /// Reads a whole piece up to its closer, going on after what does not fit.
    fn sequence(&mut self, closer: Closer) -> Expr {
        let mut left = self.expression(Power::Or);
        while !self.at_closer(closer) {
            let span = self.span();
            match self.peek() {
                // A closer of another kind: whoever opened what is open now deals with it.
                Tok::RParen | Tok::RBracket if closer != Closer::End => break,
                Tok::RParen | Tok::RBracket => {
                    self.sink.error(
                        codes::UNBALANCED,
                        format!("{} closes nothing", self.found()),
                        span,
                        "was not opened",
                        "take it out, or add what opens it",
                    );
                    self.take();
                }
                Tok::And | Tok::Or => {}
                _ => {
                    if !left.is_error() && *self.peek() != Tok::Junk {
                        self.sink.error(
                            codes::UNEXPECTED,
                            format!("expected `and`, `or` or the end, found {}", self.found()),
                            span,
                            "not expected here",
                            "join two conditions by `and` or `or`; compare with ==, !=, <, <=, >, >=, in, is known",
                        );
                    }
                    left = Expr::new(Kind::Error, left.span);
                    self.skip_to_join(closer);
                }
            }
            left = self.infix(left, Power::Or);
        }
        left
    }

    /// Skips to the next `and`, `or` or closer outside of brackets opened on the way.
    fn skip_to_join(&mut self, closer: Closer) {
        let mut open = 0_usize;
        loop {
            match self.peek() {
                Tok::End => return,
                Tok::And | Tok::Or | Tok::RParen | Tok::RBracket if open == 0 => return,
                Tok::LParen | Tok::LBracket => open += 1,
                Tok::RParen | Tok::RBracket => open -= 1,
                Tok::Comma if open == 0 && closer == Closer::Item => return,
                _ => {}
            }
            self.take();
        }
    }

    fn expression(&mut self, least: Power) -> Expr {
        let left = self.prefix();
        self.infix(left, least)
    }

    fn infix(&mut self, mut left: Expr, least: Power) -> Expr {
        let mut compared = false;
        loop {
            left = match self.peek() {
                Tok::Or if least <= Power::Or => {
                    self.take();
                    let right = self.expression(Power::And);
                    self.join(false, left, right)
                }
                Tok::And if least <= Power::And => {
                    self.take();
                    let right = self.expression(Power::Not);
                    self.join(true, left, right)
                }
                Tok::Op(_) | Tok::In | Tok::Is if least <= Power::Compare => {
                    self.comparison(left, std::mem::replace(&mut compared, true))
                }
                Tok::Not if least <= Power::Compare && *self.peek_second() == Tok::In => {
                    self.comparison(left, std::mem::replace(&mut compared, true))
                }
                _ => return left,
            };
        }
    }

    fn join(&mut self, conjunction: bool, left: Expr, right: Expr) -> Expr {
        let joined = chain(conjunction, left, right);
        self.node(joined.kind, joined.span)
    }

    /// Reads the operator and the right side of a comparison; `a < b < c` is reported and read on.
    fn comparison(&mut self, left: Expr, chained: bool) -> Expr {
        let op_span = self.span();
        let op = self.peek().clone();
        self.take();
        let kind = match op {
            Tok::Is => return self.is_test(left, op_span, chained),
            Tok::Op(op) => {
                let right = self.expression(Power::Operand);
                Kind::Compare { op, left: Box::new(left), right: Box::new(right) }
            }
            other => {
                let negated = other == Tok::Not;
                if negated {
                    self.take();
                }
                let list = self.expression(Power::Operand);
                Kind::In { negated, item: Box::new(left), list: Box::new(list) }
            }
        };
        let span = match &kind {
            Kind::Compare { left, right, .. } => left.span.join(right.span),
            Kind::In { item, list, .. } => item.span.join(list.span),
            _ => op_span,
        };
        if chained {
            self.chained(op_span);
            return Expr::new(Kind::Error, span);
        }
        self.node(kind, span)
    }

    fn chained(&mut self, op_span: Span) {
        self.sink.error(
            codes::CHAINED,
            "comparisons cannot be chained",
            op_span,
            "a second comparison",
            "write both and join them: `1 < gpus.found and gpus.found < 8`",
        );
    }

    /// Reads what follows `is`.
    fn is_test(&mut self, left: Expr, op_span: Span, chained: bool) -> Expr {
        let mut known = true;
        if *self.peek() == Tok::Not {
            self.take();
            known = false;
        }
        let word_span = self.span();
        let word = if *self.peek() == Tok::Name { self.text(word_span).to_owned() } else { String::new() };
        let known = match word.as_str() {
            "known" => known,
            "unknown" => !known,
            _ => {
                let help = match word.as_str() {
                    "none" | "None" | "null" | "undefined" => "write `is unknown`".to_owned(),
                    "defined" => "write `is known`".to_owned(),
                    _ if word.is_empty() => "write `is known` or `is unknown`".to_owned(),
                    _ => format!("write `is known` or `is unknown`, or compare: `== {}`", quoted(&word)),
                };
                let found = self.found();
                self.sink.error(
                    codes::BAD_IS,
                    format!("after `is` only `known` and `unknown` can stand, found {found}"),
                    if word.is_empty() { op_span } else { word_span },
                    "asks for something else",
                    help,
                );
                if word.is_empty() && !matches!(self.peek(), Tok::Literal(_)) {
                    return Expr::new(Kind::Error, left.span.join(op_span));
                }
                self.take();
                return Expr::new(Kind::Error, left.span.join(word_span));
            }
        };
        self.take();
        let span = left.span.join(word_span);
        if chained {
            self.chained(op_span);
            return Expr::new(Kind::Error, span);
        }
        self.node(Kind::Is { known, operand: Box::new(left) }, span)
    }

    fn prefix(&mut self) -> Expr {
        let span = self.span();
        if self.stopped {
            return Expr::new(Kind::Error, span);
        }
        match self.peek().clone() {
            Tok::Not => {
                self.take();
                if !self.enter() {
                    return Expr::new(Kind::Error, span);
                }
                let inner = self.expression(Power::Not);
                self.depth -= 1;
                let span = span.join(inner.span);
                self.node(Kind::Not(Box::new(inner)), span)
            }
            Tok::LParen => self.parenthesis(span),
            Tok::LBracket => self.list(span),
            Tok::Name => self.name(span),
            Tok::Literal(literal) => {
                self.take();
                self.node(Kind::Literal(literal), span)
            }
            Tok::Junk => {
                self.take();
                Expr::new(Kind::Error, span)
            }
            Tok::End => {
                self.expected_operand(span);
                Expr::new(Kind::Error, span)
            }
            // Left where it is: what comes before or behind it knows what to do with it.
            _ => {
                self.expected_operand(span);
                Expr::new(Kind::Error, Span::new(span.start, span.start))
            }
        }
    }

    fn expected_operand(&mut self, span: Span) {
        let (message, help) = if self.source.trim().is_empty() {
            ("this condition is empty".to_owned(), "write a condition such as `active_jobs == 0`".to_owned())
        } else {
            (
                format!("expected a fact or a value, found {}", self.found()),
                "a condition compares a fact with a value, such as `active_jobs == 0`".to_owned(),
            )
        };
        self.sink.error(codes::UNEXPECTED, message, span, "something is missing here", help);
    }

    fn name(&mut self, span: Span) -> Expr {
        self.take();
        let touches = self.span().start == span.end;
        if touches && matches!(self.peek(), Tok::LParen | Tok::LBracket) {
            let (what, help) = if *self.peek() == Tok::LParen {
                (
                    "functions are not part of conditions",
                    "compare the fact itself; `is known` asks whether it is known",
                )
            } else {
                (
                    "indexing is not part of conditions",
                    "ask whether a list holds a value: `'gpu' in node.features`",
                )
            };
            self.sink.error(codes::NOT_IN_LANGUAGE, what, span, "used like a function or a table", help);
            let end = self.skip_brackets();
            return Expr::new(Kind::Error, span.join(end));
        }
        let text = self.text(span).to_owned();
        self.node(Kind::Name(text), span)
    }

    /// Skips a balanced pair of brackets and returns the span of its last token.
    fn skip_brackets(&mut self) -> Span {
        let mut open = 0_usize;
        loop {
            match self.peek() {
                Tok::End => return self.span(),
                Tok::LParen | Tok::LBracket => open += 1,
                Tok::RParen | Tok::RBracket => open -= 1,
                _ => {}
            }
            let span = self.take();
            if open == 0 {
                return span;
            }
        }
    }

    fn parenthesis(&mut self, open: Span) -> Expr {
        self.take();
        if !self.enter() {
            return Expr::new(Kind::Error, open);
        }
        self.open.push(Tok::RParen);
        let inner = self.sequence(Closer::Paren);
        let span = self.close(open, inner.span);
        Expr::new(inner.kind, span)
    }

    fn list(&mut self, open: Span) -> Expr {
        self.take();
        if !self.enter() {
            return Expr::new(Kind::Error, open);
        }
        self.open.push(Tok::RBracket);
        let mut items = Vec::new();
        let mut last = open;
        while !matches!(self.peek(), Tok::RBracket | Tok::End) {
            let item = self.sequence(Closer::Item);
            last = item.span;
            items.push(item);
            if *self.peek() != Tok::Comma {
                break;
            }
            self.take();
        }
        let span = self.close(open, last);
        self.node(Kind::List(items), span)
    }

    /// Takes the closer of what `open` opened and returns the span of the whole.
    fn close(&mut self, open: Span, last: Span) -> Span {
        self.depth -= 1;
        let wanted = self.open.pop();
        if wanted.as_ref() == Some(self.peek()) {
            return open.join(self.take());
        }
        if self.stopped {
            return open.join(last);
        }
        let opener = self.text(open).to_owned();
        let closer = if opener == "(" { ")" } else { "]" };
        self.sink.error(
            codes::UNBALANCED,
            format!("this `{opener}` is not closed, found {}", self.found()),
            open,
            "opened here",
            format!("close it with `{closer}` behind the last part that belongs to it"),
        );
        // A closer that nobody else waits for is ours, misspelt.
        if matches!(self.peek(), Tok::RParen | Tok::RBracket) && !self.open.contains(self.peek()) {
            return open.join(self.take());
        }
        open.join(last)
    }
}
