//! The syntax tree of a condition: what was written, before any name or type is looked up.

use crate::diag::Span;
use jiff::SignedDuration;

/// A piece of a condition and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expr {
    pub(super) kind: Kind,
    pub(super) span: Span,
}

/// What a piece is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Two or more alternatives; no child is itself an `Or`.
    Or(Vec<Expr>),
    /// Two or more conjuncts; no child is itself an `And`.
    And(Vec<Expr>),
    /// `not x`.
    Not(Box<Expr>),
    /// `a == b`, `a < b`, ...
    Compare { op: CmpOp, left: Box<Expr>, right: Box<Expr> },
    /// `a in b`, `a not in b`.
    In { negated: bool, item: Box<Expr>, list: Box<Expr> },
    /// `a is known` (`known`), `a is unknown` (not `known`).
    Is { known: bool, operand: Box<Expr> },
    /// A fact, a parameter or a bare word; which one is the checker's work.
    Name(String),
    /// A finished value.
    Literal(Literal),
    /// `[a, b]`.
    List(Vec<Expr>),
    /// A piece that could not be read; a diagnostic about it was reported.
    Error,
}

/// A literal as written. Versions are written as texts.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Bool(bool),
    Int(i64),
    /// Always finite.
    Float(f64),
    Text(String),
    Duration(SignedDuration),
}

impl Literal {
    /// Returns the word for its type, for messages.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "a bool",
            Self::Int(_) => "an int",
            Self::Float(_) => "a float",
            Self::Text(_) => "a text",
            Self::Duration(_) => "a duration",
        }
    }
}

/// A comparison operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CmpOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl CmpOp {
    /// Returns the operator as written.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
        }
    }

    /// Says whether it asks for an order, not only for equality.
    pub(super) fn orders(self) -> bool {
        !matches!(self, Self::Eq | Self::Ne)
    }

    /// Returns the operator that means the same with its sides exchanged.
    pub(super) fn flipped(self) -> Self {
        match self {
            Self::Lt => Self::Gt,
            Self::Le => Self::Ge,
            Self::Gt => Self::Lt,
            Self::Ge => Self::Le,
            same => same,
        }
    }

    /// Returns the operator that is true exactly when this one is false.
    pub(super) fn opposite(self) -> Self {
        match self {
            Self::Eq => Self::Ne,
            Self::Ne => Self::Eq,
            Self::Lt => Self::Ge,
            Self::Le => Self::Gt,
            Self::Gt => Self::Le,
            Self::Ge => Self::Lt,
        }
    }
}

impl Expr {
    pub(super) fn new(kind: Kind, span: Span) -> Self {
        Self { kind, span }
    }

    /// Says whether the piece could not be read.
    pub(super) fn is_error(&self) -> bool {
        matches!(self.kind, Kind::Error)
    }
}

/// Joins two pieces by `and`, or by `or`, keeping chains flat.
pub(super) fn chain(conjunction: bool, left: Expr, right: Expr) -> Expr {
    let span = left.span.join(right.span);
    let mut items = Vec::with_capacity(2);
    for side in [left, right] {
        match side.kind {
            Kind::And(children) if conjunction => items.extend(children),
            Kind::Or(children) if !conjunction => items.extend(children),
            kind => items.push(Expr::new(kind, side.span)),
        }
    }
    Expr::new(if conjunction { Kind::And(items) } else { Kind::Or(items) }, span)
}
