//! What an event carries for probes and later steps, beside what the fold reads of it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::ops::Deref;
use std::sync::Arc;

static NOTHING: Value = Value::Null;

/// A document that events carry; copies share it. Reads as null where there is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Load(Option<Arc<Value>>);

impl Load {
    /// Says whether there is none.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl From<Value> for Load {
    fn from(value: Value) -> Self {
        Self((!value.is_null()).then(|| Arc::new(value)))
    }
}

impl Deref for Load {
    type Target = Value;

    fn deref(&self) -> &Value {
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

impl Serialize for Load {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Value::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Load {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::from)
    }
}
