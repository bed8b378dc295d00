//! JSON as `dcgmi -j` prints it: text before the first brace, several documents, text after the last one,
//! or no JSON at all.

use super::text::{missing, one_line};
use engine_core::{Cause, Unknown};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Most documents that are read from one output.
const MAX_DOCUMENTS: usize = 256;

/// A JSON value in which no object has the same key twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
                Ok(v.into())
            }
            fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
                Ok(v.into())
            }
            fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
                Ok(v.into())
            }
            fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
                Ok(v.into())
            }
            fn visit_str<E>(self, v: &str) -> Result<Value, E> {
                Ok(v.into())
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(Strict(v)) = seq.next_element()? {
                    list.push(v);
                }
                Ok(Value::Array(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut out = Map::new();
                while let Some((key, Strict(v))) = map.next_entry::<String, Strict>()? {
                    if out.contains_key(&key) {
                        return Err(A::Error::custom(format!("key {key:?} occurs twice")));
                    }
                    out.insert(key, v);
                }
                Ok(Value::Object(out))
            }
        }
        d.deserialize_any(V).map(Strict)
    }
}

/// Reads every document of an output, in order; at least one.
///
/// Text before the first `{` and a last line after the documents are not JSON and are passed over; a
/// document that is cut off or broken makes the whole output unparsable.
pub(crate) fn documents(text: &str) -> Result<Vec<Value>, Unknown> {
    let start = text.find('{').ok_or_else(|| missing(text, "JSON"))?;
    let mut rest = &text[start..];
    let mut found = Vec::new();
    while rest.starts_with('{') {
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Strict>();
        match stream.next() {
            Some(Ok(Strict(v))) => found.push(v),
            Some(Err(e)) => {
                return Err(Unknown::new(
                    Cause::Unparsable,
                    format!("broken JSON: {}", one_line(&e.to_string())),
                ));
            }
            None => break,
        }
        if found.len() > MAX_DOCUMENTS {
            return Err(Unknown::new(Cause::Unparsable, format!("more than {MAX_DOCUMENTS} JSON documents")));
        }
        rest = rest[stream.byte_offset()..].trim_start();
        if !rest.starts_with('{') {
            // Text between two documents, or behind the last one.
            rest = rest.find("\n{").map_or("", |at| &rest[at + 1..]);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_around_and_several_documents_are_read() {
        let docs = documents("Policy information\n{\"a\":1}\n{\"b\":[2]}\n**** Non-homogenous\n{\"c\":3}\n")
            .unwrap();
        assert_eq!(docs.len(), 3);
        assert_eq!(docs[1]["b"][0], 2);
    }

    #[test]
    fn no_json_is_an_error_with_its_text() {
        let e = documents("Error: Health watches not enabled.\n").unwrap_err();
        assert_eq!((e.cause, e.detail.as_str()), (Cause::ReadFailed, "Error: Health watches not enabled."));
        assert_eq!(documents("").unwrap_err().cause, Cause::EmptyAnswer);
    }

    #[test]
    fn cut_or_contradictory_documents_are_unparsable() {
        for bad in ["{\"a\":1", "{\"a\":1,\"a\":2}", "{\"a\":1}{\"b\":", "{]"] {
            assert_eq!(documents(bad).unwrap_err().cause, Cause::Unparsable, "{bad}");
        }
        let deep = "{\"a\":".repeat(5000);
        assert_eq!(documents(&deep).unwrap_err().cause, Cause::Unparsable);
    }
}
