//! Properties over generated trees and arbitrary texts.

use super::super::ast::{CmpOp, Expr, Kind, Literal, chain};
use super::super::codes::CODES;
use super::super::sink::Sink;
use super::super::{Truth, parse, print};
use super::{compile, facts, scope, stale};
use crate::diag::Span;
use crate::value::Value;
use crate::{Known, vocabulary::FACTS};
use jiff::SignedDuration;
use proptest::prelude::*;

const NOWHERE: Span = Span { start: 0, end: 0 };

fn expr(kind: Kind) -> Expr {
    Expr::new(kind, NOWHERE)
}

fn without_spans(e: &Expr) -> Expr {
    let many = |items: &[Expr]| items.iter().map(without_spans).collect();
    let one = |e: &Expr| Box::new(without_spans(e));
    expr(match &e.kind {
        Kind::Or(items) => Kind::Or(many(items)),
        Kind::And(items) => Kind::And(many(items)),
        Kind::List(items) => Kind::List(many(items)),
        Kind::Not(inner) => Kind::Not(one(inner)),
        Kind::Compare { op, left, right } => Kind::Compare { op: *op, left: one(left), right: one(right) },
        Kind::In { negated, item, list } => Kind::In { negated: *negated, item: one(item), list: one(list) },
        Kind::Is { known, operand } => Kind::Is { known: *known, operand: one(operand) },
        leaf @ (Kind::Name(_) | Kind::Literal(_) | Kind::Error) => leaf.clone(),
    })
}

fn operator() -> impl Strategy<Value = CmpOp> {
    prop::sample::select(vec![CmpOp::Eq, CmpOp::Ne, CmpOp::Lt, CmpOp::Le, CmpOp::Gt, CmpOp::Ge])
}

fn literal() -> impl Strategy<Value = Literal> {
    prop_oneof![
        any::<bool>().prop_map(Literal::Bool),
        any::<i64>().prop_map(Literal::Int),
        any::<f64>().prop_filter("finite", |x| x.is_finite()).prop_map(Literal::Float),
        any::<String>().prop_map(|s| Literal::Text(s.chars().take(20).collect())),
        (0..10 * 365 * 86_400_000_i64).prop_map(|ms| Literal::Duration(SignedDuration::from_millis(ms))),
    ]
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z_][a-zA-Z0-9_]{0,5}(\\.[a-zA-Z_][a-zA-Z0-9_]{0,5}){0,2}".prop_filter("not a keyword", |n| {
        let lower = n.to_lowercase();
        !["and", "or", "not", "in", "is", "true", "false"].contains(&lower.as_str())
    })
}

/// Any tree that the parser can build: operands are anything, chains are flat.
fn tree() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        name().prop_map(|n| expr(Kind::Name(n))),
        literal().prop_map(|l| expr(Kind::Literal(l))),
        prop::collection::vec(literal().prop_map(|l| expr(Kind::Literal(l))), 0..4)
            .prop_map(|l| expr(Kind::List(l))),
    ];
    leaf.prop_recursive(6, 48, 3, |inner| {
        let two = (inner.clone(), inner.clone()).boxed();
        prop_oneof![
            (any::<bool>(), two.clone()).prop_map(|(and, (a, b))| without_spans(&chain(and, a, b))),
            inner.clone().prop_map(|e| expr(Kind::Not(Box::new(e)))),
            (operator(), two.clone()).prop_map(|(op, (a, b))| {
                expr(Kind::Compare { op, left: Box::new(a), right: Box::new(b) })
            }),
            (any::<bool>(), two).prop_map(|(negated, (a, b))| {
                expr(Kind::In { negated, item: Box::new(a), list: Box::new(b) })
            }),
            (any::<bool>(), inner.clone())
                .prop_map(|(known, e)| expr(Kind::Is { known, operand: Box::new(e) })),
            prop::collection::vec(inner, 0..3).prop_map(|l| expr(Kind::List(l))),
        ]
    })
}

fn truth() -> impl Strategy<Value = Truth> {
    prop::sample::select(vec![Truth::False, Truth::Unknown, Truth::True])
}

/// The pieces of the language, and those of its neighbours.
fn pieces() -> impl Strategy<Value = String> {
    let mut words: Vec<String> = [
        "and",
        "or",
        "not",
        "in",
        "is",
        "known",
        "unknown",
        "true",
        "false",
        "(",
        ")",
        "[",
        "]",
        ",",
        "==",
        "!=",
        "<",
        "<=",
        ">",
        ">=",
        "=",
        "&&",
        "||",
        "!",
        "|",
        "+",
        "-",
        "{{",
        "}}",
        ".",
        "'",
        "\"",
        "\\",
        "\\u",
        "'a'",
        "0",
        "1.5",
        "-1",
        "5m",
        "1h",
        "9e9",
        "23.02.1",
        "IDLE",
        "COMPLETNG",
        "UNKNOWN",
        "none",
        "params.limit",
        "params.x",
        "\n",
        "\u{2018}",
        "\u{e9}",
        "AND",
        "x(",
        "y[",
        "1e",
        "0x1",
    ]
    .map(str::to_owned)
    .to_vec();
    words.extend(FACTS.iter().map(|f| f.name.to_owned()));
    prop::collection::vec((prop::sample::select(words), prop::sample::select(vec!["", " "])), 0..40)
        .prop_map(|parts| parts.into_iter().flat_map(|(a, b)| [a, b.to_owned()]).collect())
}

/// Compiles anything and checks what must hold of every outcome.
fn well_behaved(source: &str) -> Result<(), TestCaseError> {
    match compile(source, &scope()) {
        Ok(c) => {
            let again = compile(&c.canonical(), &scope());
            let again = again.map_err(|d| TestCaseError::fail(format!("{c} does not compile: {d:?}")))?;
            prop_assert_eq!(again.canonical(), c.canonical());
            // Nothing is known, so only questions about knowledge can be answered.
            let outcome = c.evaluate(&facts([]));
            let asks = |e: &super::super::TraceEntry| e.text.contains("known");
            prop_assert!(outcome.truth == Truth::Unknown || outcome.trace.iter().any(asks), "{source}");
            prop_assert!(!outcome.trace.is_empty());
            outcome.explain();
        }
        Err(found) => {
            prop_assert!(!found.is_empty() && found.len() <= 32);
            let mut last = 0;
            for d in &found {
                prop_assert!(CODES.iter().any(|(c, ..)| *c == d.code), "{}", d.code);
                prop_assert!(d.help.as_ref().is_some_and(|h| !h.is_empty()));
                let span = d.labels[0].span;
                prop_assert!(source.get(span.start..span.end).is_some(), "{span:?} in {source:?}");
                prop_assert!(span.start >= last);
                last = span.start;
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_parses_to_the_same_tree(tree in tree()) {
        let printed = print::print(&tree);
        let mut sink = Sink::default();
        let parsed = parse::parse(&printed, &mut sink);
        prop_assert!(sink.is_empty(), "{printed}: {:?}", sink.into_sorted());
        prop_assert_eq!(parsed.as_ref().map(without_spans), Some(tree), "{}", printed);
    }

    #[test]
    fn arbitrary_text_is_judged_or_refused(source in any::<String>()) {
        well_behaved(&source)?;
    }

    #[test]
    fn arbitrary_ascii_is_judged_or_refused(source in "[ -~\n]{0,200}") {
        well_behaved(&source)?;
    }

    #[test]
    fn arbitrary_pieces_are_judged_or_refused(source in pieces()) {
        well_behaved(&source)?;
    }

    #[test]
    fn kleenes_laws_hold(a in truth(), b in truth(), c in truth()) {
        prop_assert_eq!(a.and(b), b.and(a));
        prop_assert_eq!(a.or(b), b.or(a));
        prop_assert_eq!(a.and(b.and(c)), a.and(b).and(c));
        prop_assert_eq!(a.or(b.or(c)), a.or(b).or(c));
        prop_assert_eq!(a.and(b.or(c)), a.and(b).or(a.and(c)));
        prop_assert_eq!(!a.and(b), (!a).or(!b));
        prop_assert_eq!(!a.or(b), (!a).and(!b));
        prop_assert_eq!(!!a, a);
        prop_assert_eq!(a.or(a.and(b)), a);
        prop_assert_eq!(Truth::False.and(a), Truth::False);
        prop_assert_eq!(Truth::True.or(a), Truth::True);
        prop_assert_eq!(a.and(!a) == Truth::True, false);
    }

    /// What three values say must hold whatever the unknown facts turn out to be.
    #[test]
    fn an_answer_given_without_a_fact_stays_when_it_becomes_known(
        shape in tree_of_bools(), values in prop::array::uniform4(prop::option::of(any::<bool>())), later in prop::array::uniform4(any::<bool>()),
    ) {
        let c = super::ok(&shape);
        let set = |known: &dyn Fn(usize) -> Option<bool>| {
            facts(BOOLS.iter().enumerate().map(|(i, n)| (*n, known(i).map_or_else(stale, |b| Known::Known(Value::Bool(b))))))
        };
        let now = c.evaluate(&set(&|i| values[i])).truth;
        let then = c.evaluate(&set(&|i| Some(values[i].unwrap_or(later[i])))).truth;
        prop_assert_ne!(then, Truth::Unknown);
        prop_assert!(now == Truth::Unknown || now == then, "{shape}: {now} then {then}");
    }
}

const BOOLS: [&str; 4] = ["node.responding", "node.reserved", "dcgm.up", "gpu.answers"];

fn tree_of_bools() -> impl Strategy<Value = String> {
    prop::sample::select(BOOLS.to_vec()).prop_map(str::to_owned).prop_recursive(5, 24, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} and {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} or {b})")),
            inner.prop_map(|a| format!("not {a}")),
        ]
    })
}
