//! Situations: from YAML or JSON to the typed facts that the core decides on.

use engine_core::decide::{NoSituation, Situation, read};
use serde_json::{Map, Value};
use serde_yaml::Value as Yaml;

/// Largest file, in bytes.
pub const MAX_SITUATIONS: usize = 4 << 20;

/// Why a file holds no situations.
#[derive(Debug, thiserror::Error)]
pub enum SituationError {
    /// It is too large.
    #[error("the file has {0} bytes; at most {MAX_SITUATIONS} are read")]
    TooLarge(usize),
    /// It is neither YAML nor JSON.
    #[error("the file is neither YAML nor JSON: {0}")]
    Unreadable(#[from] serde_yaml::Error),
    /// It has another form.
    #[error(transparent)]
    Form(#[from] NoSituation),
}

/// Reads one situation, a list of them, or a file with `defaults` and `cases`.
pub fn load(bytes: &[u8]) -> Result<Vec<Situation>, SituationError> {
    if bytes.len() > MAX_SITUATIONS {
        return Err(SituationError::TooLarge(bytes.len()));
    }
    let yaml: Yaml = serde_yaml::from_slice(bytes)?;
    Ok(read(&json(yaml))?)
}

/// Keys that are numbers become text; tags are left out.
fn json(value: Yaml) -> Value {
    match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(b) => Value::Bool(b),
        Yaml::Number(n) => {
            n.as_i64().map(Value::from).or_else(|| n.as_f64().map(Value::from)).unwrap_or_default()
        }
        Yaml::String(s) => Value::String(s),
        Yaml::Sequence(all) => Value::Array(all.into_iter().map(json).collect()),
        Yaml::Mapping(map) => {
            let mut out = Map::new();
            for (k, v) in map {
                let key = match k {
                    Yaml::String(s) => s,
                    other => json(other).to_string(),
                };
                out.insert(key, json(v));
            }
            Value::Object(out)
        }
        Yaml::Tagged(t) => json(t.value),
    }
}
