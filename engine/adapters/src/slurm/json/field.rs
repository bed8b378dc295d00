//! A JSON field in whatever shape a release gives it.
//!
//! Over the releases the same field came as number, string, list, null, or `{set, infinite, number}`. Reading it into
//! one type keeps a new shape of one field from failing the whole answer: it is unknown, and the rest is read.

use super::super::answer::shorten;
use engine_core::known::{Cause, Known};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// The most elements of a list that are kept.
const MAX_LIST: usize = 100_000;

/// The shapes a field may have.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Field {
    /// The key is not there.
    #[default]
    Missing,
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Words(Vec<String>),
    /// `{set: true, number}`
    Number(i64),
    /// `{set: false}`
    Unset,
    /// `{infinite: true}`
    Infinite,
    /// Any other shape.
    Other(&'static str),
}

impl Field {
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }

    fn strange<T>(&self) -> Known<T> {
        match self {
            Self::Missing => Known::unknown(Cause::Unsupported, "this release does not report it"),
            Self::Null | Self::Unset => Known::unknown(Cause::NotReported, ""),
            Self::Other(shape) => Known::unknown(Cause::Unparsable, format!("unexpected shape: {shape}")),
            Self::Text(t) => {
                Known::unknown(Cause::Unparsable, format!("unexpected text {:?}", shorten(t, 60)))
            }
            other => Known::unknown(Cause::Unparsable, format!("unexpected {other:?}")),
        }
    }

    /// A text; null and empty are `None`, and so are Slurm's words for nothing. A missing key is unknown: every release
    /// that has the field prints it always.
    pub(crate) fn optional(&self) -> Known<Option<String>> {
        match self {
            Self::Null => Known::Known(None),
            Self::Text(t) if matches!(t.as_str(), "" | "(null)" | "N/A") => Known::Known(None),
            Self::Text(t) => Known::Known(Some(t.clone())),
            other => other.strange(),
        }
    }

    /// A text that must be there.
    pub(crate) fn text(&self) -> Known<String> {
        self.optional().and_then(|t| match t {
            Some(t) => Known::Known(t),
            None => Known::unknown(Cause::NotReported, ""),
        })
    }

    /// A list, or a comma-separated text.
    pub(crate) fn words(&self) -> Known<Vec<String>> {
        match self {
            Self::Words(w) => Known::Known(w.clone()),
            Self::Null => Known::Known(Vec::new()),
            Self::Text(t) if t.is_empty() || t == "(null)" => Known::Known(Vec::new()),
            Self::Text(t) => Known::Known(t.split(',').map(str::to_owned).collect()),
            other => other.strange(),
        }
    }

    /// A count.
    pub(crate) fn count<T: TryFrom<i64>>(&self) -> Known<T> {
        match self {
            Self::Int(n) | Self::Number(n) => match T::try_from(*n) {
                Ok(n) => Known::Known(n),
                Err(_) => Known::unknown(Cause::Unparsable, format!("{n} is out of range")),
            },
            other => other.strange(),
        }
    }

    /// A time in seconds since 1970; 0, null and infinite are "none".
    pub(crate) fn time(&self) -> Known<Option<Timestamp>> {
        match self {
            Self::Int(0) | Self::Number(0) | Self::Null | Self::Infinite => Known::Known(None),
            Self::Int(n) | Self::Number(n) => match Timestamp::from_second(*n) {
                Ok(t) => Known::Known(Some(t)),
                Err(_) => Known::unknown(Cause::Unparsable, format!("{n} is no time")),
            },
            other => other.strange(),
        }
    }

    /// A time that should be there; "none" is not reported.
    pub(crate) fn set_time(&self) -> Known<Timestamp> {
        self.time().and_then(|t| match t {
            Some(t) => Known::Known(t),
            None => Known::unknown(Cause::NotReported, ""),
        })
    }
}

/// A record: an object and nothing else. Derived structs would take a list by position too.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        d.deserialize_map(ObjectVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Field, E> {
        Ok(Field::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Field, E> {
        Ok(Field::Int(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Field, E> {
        Ok(i64::try_from(v).map_or(Field::Other("a huge number"), Field::Int))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Field, E> {
        Ok(Field::Float(v))
    }

    fn visit_str<E>(self, v: &str) -> Result<Field, E> {
        Ok(Field::Text(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Field, E> {
        Ok(Field::Text(v))
    }

    fn visit_unit<E>(self) -> Result<Field, E> {
        Ok(Field::Null)
    }

    fn visit_none<E>(self) -> Result<Field, E> {
        Ok(Field::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Field, D::Error> {
        Field::deserialize(d)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field, A::Error> {
        let mut words = Vec::new();
        let mut strange = false;
        while let Some(element) = seq.next_element::<Element>()? {
            match element {
                Element::Text(t) if words.len() < MAX_LIST => words.push(t),
                _ => strange = true,
            }
        }
        Ok(if strange { Field::Other("a list of other things than text") } else { Field::Words(words) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        let (mut set, mut infinite, mut number) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "set" => set = map.next_value::<Scalar>()?.bool(),
                "infinite" => infinite = map.next_value::<Scalar>()?.bool(),
                "number" => number = map.next_value::<Scalar>()?.int(),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(match (set, infinite, number) {
            (_, Some(true), _) => Field::Infinite,
            (Some(true), _, Some(n)) => Field::Number(n),
            (Some(false), _, _) => Field::Unset,
            _ => Field::Other("an object"),
        })
    }
}

/// An element of a list: text, or something else that is read past.
enum Element {
    Text(String),
    Other,
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Scalar::deserialize(d).map(|s| match s {
            Scalar::Text(t) => Self::Text(t),
            _ => Self::Other,
        })
    }
}

enum Scalar {
    Bool(bool),
    Int(i64),
    Text(String),
    Other,
}

impl Scalar {
    fn bool(&self) -> Option<bool> {
        if let Self::Bool(b) = self { Some(*b) } else { None }
    }

    fn int(&self) -> Option<i64> {
        if let Self::Int(n) = self { Some(*n) } else { None }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl<'de> Visitor<'de> for ScalarVisitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON value")
            }
            fn visit_bool<E>(self, v: bool) -> Result<Scalar, E> {
                Ok(Scalar::Bool(v))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Scalar, E> {
                Ok(Scalar::Int(v))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Scalar, E> {
                Ok(i64::try_from(v).map_or(Scalar::Other, Scalar::Int))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Scalar, E> {
                // `number` of a float parser: whole values only.
                let whole = v.fract() == 0.0 && v.abs() < 9e15;
                Ok(if whole { Scalar::Int(v as i64) } else { Scalar::Other })
            }
            fn visit_str<E>(self, v: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(v.to_owned()))
            }
            fn visit_string<E>(self, v: String) -> Result<Scalar, E> {
                Ok(Scalar::Text(v))
            }
            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }
        d.deserialize_any(ScalarVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(json: &str) -> Field {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn shapes() {
        for (json, want) in [
            ("null", Field::Null),
            ("true", Field::Bool(true)),
            ("-3", Field::Int(-3)),
            ("18446744073709551615", Field::Other("a huge number")),
            ("1.5", Field::Float(1.5)),
            (r#""x""#, Field::Text("x".into())),
            (r#"["A","B"]"#, Field::Words(vec!["A".into(), "B".into()])),
            ("[]", Field::Words(vec![])),
            ("[1]", Field::Other("a list of other things than text")),
            (r#"["A",{"b":[1]}]"#, Field::Other("a list of other things than text")),
            (r#"{"set":true,"infinite":false,"number":7}"#, Field::Number(7)),
            (r#"{"set":true,"infinite":false,"number":7.0}"#, Field::Number(7)),
            (r#"{"set":false,"infinite":false,"number":0}"#, Field::Unset),
            (r#"{"set":false,"infinite":true,"number":0}"#, Field::Infinite),
            (r#"{"set":true,"number":"7"}"#, Field::Other("an object")),
            (r#"{"a":{"b":[1,2,{}]}}"#, Field::Other("an object")),
            ("{}", Field::Other("an object")),
        ] {
            assert_eq!(field(json), want, "{json}");
        }
    }

    #[test]
    fn unset_is_never_zero() {
        assert!(!field(r#"{"set":false,"infinite":false,"number":0}"#).count::<u32>().is_known());
        assert!(!field(r#"{"set":false,"infinite":false,"number":0}"#).time().is_known());
        assert_eq!(field(r#"{"set":true,"infinite":false,"number":0}"#).time(), Known::Known(None));
        assert_eq!(field("0").count::<u32>(), Known::Known(0));
        assert!(!field("-1").count::<u32>().is_known());
        assert!(!Field::Missing.count::<u32>().is_known());
        for empty in [Field::Null, Field::Text(String::new())] {
            assert_eq!(empty.optional(), Known::Known(None));
        }
        assert!(!Field::Missing.optional().is_known());
        assert!(!field("[1]").optional().is_known());
    }
}
