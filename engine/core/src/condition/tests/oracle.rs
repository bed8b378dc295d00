//! On well-typed known facts a condition means what minijinja says.
//!
//! minijinja gets the same expression with words as texts, durations as milliseconds and versions as lists of
//! numbers, since it has none of these.

use super::super::Truth;
use super::{compile, facts};
use crate::Known;
use crate::value::{Type, Value, format_duration};
use crate::vocabulary::{FACTS, FactDecl};
use jiff::SignedDuration;
use proptest::prelude::*;

/// A generated leaf or tree, in both languages.
#[derive(Debug, Clone)]
struct Both {
    ours: String,
    theirs: String,
}

fn of_type(wanted: fn(Type) -> bool) -> impl Strategy<Value = &'static FactDecl> {
    prop::sample::select(FACTS.iter().filter(|f| wanted(f.ty)).collect::<Vec<_>>())
}

fn small_text() -> impl Strategy<Value = String> {
    // Few, so that equality happens; with what needs quoting.
    prop::sample::select(vec![
        "",
        "a",
        "gpu",
        "it's",
        "say \"x\"",
        "back\\slash",
        "line\nbreak",
        "\u{e9}\u{1f600}",
    ])
    .prop_map(str::to_owned)
}

/// A known value of a type.
fn value_of(ty: Type) -> BoxedStrategy<Value> {
    match ty {
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::Int => prop_oneof![-3..4_i64, any::<i64>()].prop_map(Value::Int).boxed(),
        Type::Float => prop_oneof![
            (-6..8_i32).prop_map(|h| f64::from(h) / 2.0),
            any::<f64>().prop_filter("finite", |x| x.is_finite())
        ]
        .prop_map(Value::Float)
        .boxed(),
        Type::Text => small_text().prop_map(Value::Text).boxed(),
        Type::Duration => (0..5_i64).prop_map(|m| Value::Duration(SignedDuration::from_secs(m * 30))).boxed(),
        Type::Version => prop::array::uniform3(0..3_u8)
            .prop_map(|[a, b, c]| Value::Version(format!("{a}.{b}.{c}")))
            .boxed(),
        Type::Enum(set) => {
            let words: Vec<_> = set.words.iter().map(|(w, _)| *w).filter(|w| *w != "UNKNOWN").collect();
            prop::sample::select(words).prop_map(|w| Value::Word(w.to_owned())).boxed()
        }
        Type::TextList => prop::collection::vec(small_text(), 0..3).prop_map(Value::List).boxed(),
        Type::EnumList(_) => unreachable!("the vocabulary has no such fact"),
    }
}

fn numbers_of(version: &str) -> Vec<u64> {
    version.split('.').map(|p| p.parse().unwrap()).collect()
}

/// Writes a value in both languages.
fn write(value: &Value) -> Both {
    let quoted = |t: &str| super::super::print::quote(t);
    let (ours, theirs) = match value {
        Value::Bool(b) => (b.to_string(), b.to_string()),
        Value::Int(i) => (i.to_string(), i.to_string()),
        Value::Float(x) => (format!("{x:?}"), format!("{x:?}")),
        Value::Text(t) => (quoted(t), quoted(t)),
        Value::Word(w) => (w.clone(), quoted(w)),
        Value::Duration(d) => (format_duration(*d), d.as_millis().to_string()),
        Value::Version(v) => (quoted(v), format!("{:?}", numbers_of(v))),
        Value::List(_) => unreachable!("lists are not literals of one value"),
    };
    Both { ours, theirs }
}

fn infix(left: &str, op: &str, right: &Both, flip: bool) -> Both {
    let one =
        |right: &str| if flip { format!("{right} {op} {left}") } else { format!("{left} {op} {right}") };
    Both { ours: one(&right.ours), theirs: one(&right.theirs) }
}

fn leaf() -> impl Strategy<Value = Both> {
    let ordered = |t: Type| matches!(t, Type::Int | Type::Float | Type::Duration | Type::Version);
    let scalar = |t: Type| !matches!(t, Type::TextList);
    let equality = of_type(scalar).prop_flat_map(|f| {
        (prop::sample::select(vec!["==", "!="]), value_of(f.ty), any::<bool>())
            .prop_map(|(op, v, flip)| infix(f.name, op, &write(&v), flip))
    });
    let order = of_type(ordered).prop_flat_map(|f| {
        (prop::sample::select(vec!["<", "<=", ">", ">="]), value_of(f.ty), any::<bool>())
            .prop_map(|(op, v, flip)| infix(f.name, op, &write(&v), flip))
    });
    let mixed =
        (of_type(|t| t == Type::Float), prop::sample::select(vec!["==", "<", ">="]), value_of(Type::Int))
            .prop_map(|(f, op, v)| infix(f.name, op, &write(&v), false));
    let facts_of = (
        of_type(|t| t == Type::Int),
        of_type(|t| matches!(t, Type::Int | Type::Float)),
        prop::sample::select(vec!["==", "!=", "<", ">="]),
    )
        .prop_filter("two facts", |(a, b, _)| a.name != b.name)
        .prop_map(|(a, b, op)| {
            let b = Both { ours: b.name.to_owned(), theirs: b.name.to_owned() };
            infix(a.name, op, &b, false)
        });
    let member = of_type(scalar).prop_flat_map(|f| {
        (prop::sample::select(vec!["in", "not in"]), prop::collection::vec(value_of(f.ty), 1..4)).prop_map(
            |(op, values)| {
                let all: Vec<Both> = values.iter().map(write).collect();
                let list = |one: fn(&Both) -> &String| {
                    format!("[{}]", all.iter().map(|b| one(b).as_str()).collect::<Vec<_>>().join(", "))
                };
                infix(f.name, op, &Both { ours: list(|b| &b.ours), theirs: list(|b| &b.theirs) }, false)
            },
        )
    });
    let contains =
        (of_type(|t| t == Type::TextList), prop::sample::select(vec!["in", "not in"]), small_text())
            .prop_map(|(f, op, t)| infix(f.name, op, &write(&Value::Text(t)), true));
    let lone = of_type(|t| t == Type::Bool)
        .prop_map(|f| Both { ours: f.name.to_owned(), theirs: f.name.to_owned() });
    prop_oneof![3 => equality, 3 => order, 1 => mixed, 1 => facts_of, 3 => member, 1 => contains, 1 => lone]
}

/// Trees with parentheses only where `grouped`, so that both languages' precedence is compared as well.
fn tree() -> impl Strategy<Value = Both> {
    leaf().prop_recursive(4, 16, 2, |inner| {
        let joined = (inner.clone(), prop::sample::select(vec!["and", "or"]), inner.clone(), any::<bool>());
        prop_oneof![
            3 => joined.prop_map(|(a, op, b, grouped)| {
                let one = |a: &str, b: &str| if grouped { format!("({a} {op} {b})") } else { format!("{a} {op} {b}") };
                Both { ours: one(&a.ours, &b.ours), theirs: one(&a.theirs, &b.theirs) }
            }),
            1 => inner.prop_map(|a| Both { ours: format!("not {}", a.ours), theirs: format!("not {}", a.theirs) }),
        ]
    })
}

/// A value for every fact.
fn situation() -> impl Strategy<Value = Vec<(&'static str, Value)>> {
    FACTS.iter().map(|f| value_of(f.ty).prop_map(move |v| (f.name, v))).collect::<Vec<_>>()
}

fn to_minijinja(value: &Value) -> minijinja::Value {
    match value {
        Value::Bool(b) => minijinja::Value::from(*b),
        Value::Int(i) => minijinja::Value::from(*i),
        Value::Float(x) => minijinja::Value::from(*x),
        Value::Text(t) | Value::Word(t) => minijinja::Value::from(t.as_str()),
        Value::Duration(d) => minijinja::Value::from(i64::try_from(d.as_millis()).unwrap()),
        Value::Version(v) => numbers_of(v).into_iter().collect(),
        Value::List(l) => l.iter().map(String::as_str).collect(),
    }
}

/// Nests `node.state` and the like as minijinja reads them.
fn context(situation: &[(&str, Value)]) -> minijinja::Value {
    let mut top: std::collections::BTreeMap<String, minijinja::Value> = std::collections::BTreeMap::new();
    let mut groups: std::collections::BTreeMap<&str, std::collections::BTreeMap<&str, minijinja::Value>> =
        std::collections::BTreeMap::new();
    for (name, value) in situation {
        match name.split_once('.') {
            Some((group, rest)) => {
                groups.entry(group).or_default().insert(rest, to_minijinja(value));
            }
            None => {
                top.insert((*name).to_owned(), to_minijinja(value));
            }
        }
    }
    top.extend(groups.into_iter().map(|(k, v)| (k.to_owned(), minijinja::Value::from_pairs(v))));
    minijinja::Value::from_pairs(top)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn on_known_facts_the_answer_is_minijinjas(tree in tree(), situation in situation()) {
        let ours = compile(&tree.ours, &super::Scope::new(FACTS))
            .map_err(|d| TestCaseError::fail(format!("{}: {d:?}", tree.ours)))?
            .evaluate(&facts(situation.iter().map(|(n, v)| (*n, Known::Known(v.clone())))))
            .truth;
        let environment = minijinja::Environment::new();
        let theirs = environment
            .compile_expression(&tree.theirs)
            .and_then(|e| e.eval(context(&situation)))
            .map_err(|e| TestCaseError::fail(format!("{}: {e}", tree.theirs)))?;
        prop_assert_eq!(theirs.kind(), minijinja::value::ValueKind::Bool);
        prop_assert_eq!(ours, Truth::from(theirs.is_true()), "{} / {}", tree.ours, tree.theirs);
    }
}
