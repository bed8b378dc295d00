//! Tests of the condition language as a whole.

mod bounds;
mod meaning;
mod messages;
mod oracle;
mod properties;

use super::{Condition, Scope, compile};
use crate::fact::{FactSet, Source};
use crate::known::{Cause, Known};
use crate::value::{EnumType, Type, Value};
use crate::vocabulary::FACTS;
use jiff::Timestamp;

/// The vocabulary, and parameters of the types it lacks.
fn scope() -> Scope<'static> {
    static FAULTS: EnumType =
        EnumType { name: "faults", words: &[("ecc", ""), ("nvlink", ""), ("UNKNOWN", "")] };
    Scope::new(FACTS)
        .with_param("idle_wait", Type::Duration)
        .with_param("max_age", Type::Duration)
        .with_param("limit", Type::Int)
        .with_param("node", Type::Text)
        .with_param("faults", Type::EnumList(&FAULTS))
        .with_param("fault", Type::Enum(&FAULTS))
}

fn ok(source: &str) -> Condition {
    compile(source, &scope()).unwrap_or_else(|d| panic!("{source}: {d:#?}"))
}

fn word(w: &str) -> Known<Value> {
    Known::Known(Value::Word(w.to_owned()))
}

fn text(t: &str) -> Known<Value> {
    Known::Known(Value::Text(t.to_owned()))
}

fn int(i: i64) -> Known<Value> {
    Known::Known(Value::Int(i))
}

fn stale() -> Known<Value> {
    Known::unknown(Cause::Stale, "observed 10 min ago")
}

fn facts(values: impl IntoIterator<Item = (&'static str, Known<Value>)>) -> FactSet {
    let mut set = FactSet::default();
    for (name, value) in values {
        set.set(name, value, Source::Slurm, Timestamp::UNIX_EPOCH);
    }
    set
}
