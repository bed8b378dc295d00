//! Prints a condition in its canonical form: one line, fewest parentheses, `'texts'`.
//!
//! What is printed parses to the same tree.

use super::ast::{Expr, Kind, Literal};
use super::sink::push_printable;
use crate::value::format_duration;

/// Prints a tree that has no [`Kind::Error`] in it.
pub(super) fn print(expr: &Expr) -> String {
    let mut out = String::new();
    write(&mut out, expr, 0);
    out
}

/// How tightly a piece binds: 0 `or`, 1 `and`, 2 `not`, 3 comparison, 4 anything that stands alone.
fn power(kind: &Kind) -> u8 {
    match kind {
        Kind::Or(_) => 0,
        Kind::And(_) => 1,
        Kind::Not(_) => 2,
        Kind::Compare { .. } | Kind::In { .. } | Kind::Is { .. } => 3,
        Kind::Name(_) | Kind::Literal(_) | Kind::List(_) | Kind::Error => 4,
    }
}

fn write(out: &mut String, expr: &Expr, least: u8) {
    if power(&expr.kind) < least {
        out.push('(');
        write(out, expr, 0);
        out.push(')');
        return;
    }
    match &expr.kind {
        Kind::Or(items) => joined(out, items, " or ", 1),
        Kind::And(items) => joined(out, items, " and ", 2),
        Kind::Not(inner) => {
            out.push_str("not ");
            write(out, inner, 2);
        }
        Kind::Compare { op, left, right } => {
            write(out, left, 4);
            out.push(' ');
            out.push_str(op.as_str());
            out.push(' ');
            write(out, right, 4);
        }
        Kind::In { negated, item, list } => {
            write(out, item, 4);
            out.push_str(if *negated { " not in " } else { " in " });
            write(out, list, 4);
        }
        Kind::Is { known, operand } => {
            write(out, operand, 4);
            out.push_str(if *known { " is known" } else { " is unknown" });
        }
        Kind::Name(name) => out.push_str(name),
        Kind::Literal(literal) => out.push_str(&print_literal(literal)),
        Kind::List(items) => {
            out.push('[');
            joined(out, items, ", ", 0);
            out.push(']');
        }
        Kind::Error => out.push('?'),
    }
}

fn joined(out: &mut String, items: &[Expr], between: &str, least: u8) {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push_str(between);
        }
        write(out, item, least);
    }
}

fn print_literal(literal: &Literal) -> String {
    match literal {
        Literal::Bool(b) => b.to_string(),
        Literal::Int(i) => i.to_string(),
        // `{:?}` keeps the point or the exponent, so that it reads back as a float.
        Literal::Float(x) => format!("{x:?}"),
        Literal::Text(t) => quote(t),
        Literal::Duration(d) => format_duration(*d),
    }
}

/// Writes a text as a literal.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\'' => out.push_str("\\'"),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => push_printable(&mut out, c),
        }
    }
    out.push('\'');
    out
}
