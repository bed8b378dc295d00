//! Writes a policy as YAML, every key with its value: what `policy show` prints can be read back.

use engine_core::policy::Policy;
use serde_json::Value as Json;
use std::fmt::Write as _;

/// Writes a policy. Keys stand in the order of the guide; nothing is left out.
pub fn to_yaml(policy: &Policy) -> Result<String, serde_json::Error> {
    let json = serde_json::to_value(policy)?;
    let mut out = String::new();
    for key in super::read::KEYS {
        if let Some(value) = json.get(key) {
            entry(key, value, 0, &mut out);
        }
    }
    Ok(out)
}

fn entry(key: &str, value: &Json, depth: usize, out: &mut String) {
    let pad = "  ".repeat(depth);
    // Writing to a String cannot fail.
    let _ = match value {
        Json::Object(map) if !map.is_empty() => {
            let _ = writeln!(out, "{pad}{}:", scalar(key));
            map.iter().for_each(|(k, v)| entry(k, v, depth + 1, out));
            Ok(())
        }
        Json::Array(items) if items.iter().any(Json::is_object) => {
            let _ = writeln!(out, "{pad}{}:", scalar(key));
            items.iter().try_for_each(|i| writeln!(out, "{pad}  - {}", inline(i)))
        }
        other => writeln!(out, "{pad}{}: {}", scalar(key), inline(other)),
    };
}

fn inline(value: &Json) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match value {
        Json::Object(map) if map.is_empty() => "{}".to_owned(),
        Json::Object(map) => {
            format!(
                "{{ {} }}",
                list(map.iter().map(|(k, v)| format!("{}: {}", scalar(k), inline(v))).collect())
            )
        }
        Json::Array(items) => format!("[{}]", list(items.iter().map(inline).collect())),
        Json::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// Quotes a text wherever YAML could read it as something else.
fn scalar(text: &str) -> String {
    let tame = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '%' | ' ');
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c.is_ascii_digit())
        && !text.ends_with(' ')
        && text.chars().all(tame);
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let number = text.parse::<f64>().is_ok() || text.starts_with("0x") || text.starts_with("0o");
    if word && !number && !reserved.iter().any(|r| text.eq_ignore_ascii_case(r)) {
        text.to_owned()
    } else {
        // The strings of JSON are strings of YAML.
        serde_json::Value::from(text).to_string()
    }
}
