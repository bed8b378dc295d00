//! What differs between two policies, key by key.

use super::document::Policy;
use serde::Serialize;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// One key that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The key with dots, such as `budgets.partitions.main`; items of lists by number from 1: `windows.1.from`.
    pub key: String,
    /// Its value in the first policy; `None` where it is not there.
    pub before: Option<String>,
    /// Its value in the second policy; `None` where it is not there.
    pub after: Option<String>,
}

/// Compares the meanings of two policies; defaults count as written. Empty for equal policies.
pub fn diff(before: &Policy, after: &Policy) -> Result<Vec<Difference>, serde_json::Error> {
    let (mut a, mut b) = (BTreeMap::new(), BTreeMap::new());
    flatten("", &serde_json::to_value(before)?, &mut a);
    flatten("", &serde_json::to_value(after)?, &mut b);
    let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let differ = |key: &String| {
        let (x, y) = (a.get(key), b.get(key));
        (x != y).then(|| Difference { key: key.clone(), before: x.cloned(), after: y.cloned() })
    };
    Ok(keys.into_iter().filter_map(differ).collect())
}

fn flatten(key: &str, value: &Json, out: &mut BTreeMap<String, String>) {
    let below = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    match value {
        Json::Object(map) => map.iter().for_each(|(k, v)| flatten(&below(k), v, out)),
        Json::Array(items) if items.iter().any(Json::is_object) => {
            items.iter().enumerate().for_each(|(i, v)| flatten(&below(&(i + 1).to_string()), v, out));
        }
        Json::Array(items) => {
            let words: Vec<String> = items.iter().map(plain).collect();
            out.insert(key.to_owned(), format!("[{}]", words.join(", ")));
        }
        scalar => {
            out.insert(key.to_owned(), plain(scalar));
        }
    }
}

fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::{Freeze, Share};
    use super::*;

    #[test]
    fn equal_policies_differ_in_nothing_and_others_in_exactly_what_was_changed() {
        let a = Policy::default();
        assert_eq!(diff(&a, &a).unwrap(), []);
        let mut b = a.clone();
        b.budgets.fleet = Share::Count(7);
        b.budgets.partitions.insert("main".to_owned(), Share::percent(1));
        b.canary.features.insert("canary".to_owned());
        let from = "2026-12-24T00:00:00Z".parse().unwrap();
        b.freezes.push(Freeze {
            from,
            to: "2027-01-02T00:00:00Z".parse().unwrap(),
            why: "holidays".to_owned(),
        });
        let found = diff(&a, &b).unwrap();
        let line = |d: &Difference| {
            format!("{} {} {}", d.key, d.before.as_deref().unwrap_or("-"), d.after.as_deref().unwrap_or("-"))
        };
        assert_eq!(
            found.iter().map(line).collect::<Vec<_>>(),
            [
                "budgets.fleet 2% 7",
                "budgets.partitions.main - 1%",
                "canary.features [] [canary]",
                "freezes [] -",
                "freezes.1.from - 2026-12-24T00:00:00Z",
                "freezes.1.to - 2027-01-02T00:00:00Z",
                "freezes.1.why - holidays",
            ]
        );
        let back: Vec<_> = diff(&b, &a).unwrap().into_iter().map(|d| (d.key, d.after, d.before)).collect();
        assert_eq!(back, found.into_iter().map(|d| (d.key, d.before, d.after)).collect::<Vec<_>>());
    }
}
