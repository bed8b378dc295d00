//! `dcgmi health`: the check (`-c -j`, and its table form) and which watches are set (`-f -j`, `-s a`).
//!
//! The exit code of a check is 0 for Warning and Failure too: only the tree counts. "Healthy" with no
//! driver, a detached driver or a lost GPU is a false green; `super::assemble` takes that back.

use super::json::documents;
use super::text::{cells, decode, is_rule, missing, one_line};
use engine_core::model::gpu::{Health, HealthIncident, HealthReport};
use engine_core::{Cause, Known, Unknown};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The systems that a check names. "Internal error" are XIDs that concern the whole GPU.
const SYSTEMS: &[&str] = &[
    "PCIe system",
    "NVLINK system",
    "Memory system",
    "InfoROM system",
    "Thermal system",
    "Power system",
    "Driver",
    "ConnectX system",
    "Internal error",
];

/// Kinds of entities that a check may list beside GPUs.
const ENTITIES: &[&str] = &["GPU", "NvSwitch", "Switch", "CPU", "CPU_CORE", "ConnectX", "Link", "NvLink"];

/// Says whether the output is a health check, in either form.
pub fn is_check(text: &str) -> bool {
    // The statistics of a job have an "Overall Health" too, of something else.
    text.contains("Health Monitor Report") || text.contains("\"Overall Health\"")
}

/// Says whether the output lists the watches.
pub fn is_watches(text: &str) -> bool {
    text.trim_start().starts_with("Health monitor systems report")
}

/// Reads the answer to `-s a`.
pub fn parse_set(bytes: &[u8]) -> Known<bool> {
    let text = decode(bytes);
    if text.contains("Health monitor systems set successfully") {
        Known::Known(true)
    } else {
        Known::Unknown(missing(&text, "confirmation that health watches are set"))
    }
}

/// Reads a health check. A word or a system that nobody here has seen makes all of it unknown.
pub fn parse(bytes: &[u8]) -> Known<HealthReport> {
    let text = decode(bytes);
    let read = if text.contains('{') { check_json(&text) } else { check_table(&text) };
    match read.and_then(Tree::report) {
        Ok(report) => Known::Known(report),
        Err(u) => Known::Unknown(u),
    }
}

/// Reads which watches are set, by the tool's names of the systems.
pub fn parse_watches(bytes: &[u8]) -> Known<BTreeMap<String, bool>> {
    let text = decode(bytes);
    let mut pairs: Vec<(String, String)> = Vec::new();
    if text.contains('{') {
        let docs = match documents(&text) {
            Ok(d) => d,
            Err(u) => return Known::Unknown(u),
        };
        let bodies = docs.iter().filter_map(|d| d.get("body").and_then(Value::as_object));
        for (name, node) in bodies.flatten() {
            let word = node.get("value").and_then(Value::as_str).unwrap_or_default();
            pairs.push((name.clone(), word.to_owned()));
        }
    } else {
        for row in text.lines().filter_map(cells) {
            if let [name, word] = row.as_slice() {
                pairs.push((name.trim().to_owned(), word.trim().to_owned()));
            }
        }
    }
    if pairs.is_empty() {
        return Known::Unknown(missing(&text, "list of watches"));
    }
    let mut out = BTreeMap::new();
    for (name, word) in pairs {
        let on = match word.as_str() {
            "On" => true,
            "Off" => false,
            w => {
                return Known::unknown(
                    Cause::UnrecognisedWord,
                    format!("watch {name:?} is {:?}", one_line(w)),
                );
            }
        };
        out.insert(one_line(&name), on);
    }
    Known::Known(out)
}

/// What a check says, before its words are judged.
#[derive(Default)]
struct Tree {
    overall: Option<String>,
    entities: Vec<Entity>,
}

struct Entity {
    kind: String,
    id: String,
    word: String,
    systems: Vec<System>,
}

#[derive(Default)]
struct System {
    name: String,
    word: String,
    lines: Vec<String>,
}

fn word(text: &str) -> Result<Health, Unknown> {
    match text {
        "Healthy" => Ok(Health::Pass),
        "Warning" => Ok(Health::Warn),
        "Failure" => Ok(Health::Fail),
        other => Err(Unknown::new(Cause::UnrecognisedWord, format!("health word {:?}", one_line(other)))),
    }
}

impl Tree {
    fn report(self) -> Result<HealthReport, Unknown> {
        let said =
            self.overall.ok_or_else(|| Unknown::new(Cause::Unparsable, "no overall health in the answer"))?;
        let overall = word(&said)?;
        let mut incidents = Vec::new();
        for entity in self.entities {
            let gpu = if entity.kind == "GPU" {
                let id = entity.id.parse().map_err(|_| {
                    Unknown::new(Cause::Unparsable, format!("not a GPU id: {:?}", one_line(&entity.id)))
                })?;
                Some(id)
            } else if ENTITIES.contains(&entity.kind.as_str()) {
                None
            } else {
                return Err(Unknown::new(
                    Cause::UnrecognisedWord,
                    format!("health of a {:?}, with overall health {said}", one_line(&entity.kind)),
                ));
            };
            let whole = word(&entity.word)?;
            let before = incidents.len();
            for s in entity.systems {
                if !SYSTEMS.contains(&s.name.as_str()) {
                    return Err(Unknown::new(
                        Cause::UnrecognisedWord,
                        format!("health system {:?} is {:?}", one_line(&s.name), one_line(&s.word)),
                    ));
                }
                let health = word(&s.word)?;
                if health > Health::Pass {
                    let text = one_line(&s.lines.join(" "));
                    incidents.push(HealthIncident { gpu, system: s.name, health, text });
                }
            }
            let found = incidents[before..].iter().map(|i| i.health).max().unwrap_or(Health::Pass);
            if found < whole {
                let system = if gpu.is_some() { "GPU".to_owned() } else { entity.kind };
                let text = "no system is named for it".to_owned();
                incidents.push(HealthIncident { gpu, system, health: whole, text });
            }
        }
        let worst = incidents.iter().map(|i| i.health).max().unwrap_or(Health::Pass);
        if worst > overall {
            return Err(Unknown::new(
                Cause::Conflicting,
                format!("overall health {said}, with a {} below it", worst.as_str()),
            ));
        }
        Ok(HealthReport { overall, incidents })
    }
}

fn check_json(text: &str) -> Result<Tree, Unknown> {
    let shape = |what: &str| Unknown::new(Cause::Unparsable, format!("health answer without {what}"));
    let mut tree: Option<Tree> = None;
    for doc in documents(text)? {
        let Some(body) = doc.get("body").and_then(Value::as_object) else { continue };
        if !body.contains_key("Overall Health") {
            continue;
        }
        if tree.is_some() {
            return Err(Unknown::new(Cause::Conflicting, "two health checks in one answer"));
        }
        let mut t = Tree::default();
        for (key, node) in body {
            if key == "Overall Health" {
                t.overall = node.get("value").and_then(Value::as_str).map(str::to_owned);
                continue;
            }
            let children =
                node.get("children").and_then(Value::as_object).ok_or_else(|| shape("children"))?;
            for (id, entity) in children {
                t.entities.push(Entity {
                    kind: key.clone(),
                    id: id.clone(),
                    word: value_of(entity).ok_or_else(|| shape("value"))?,
                    systems: systems(entity).ok_or_else(|| shape("errors"))?,
                });
            }
        }
        tree = Some(t);
    }
    tree.ok_or_else(|| missing(text, "health check"))
}

fn value_of(node: &Value) -> Option<String> {
    node.get("value").and_then(Value::as_str).map(str::to_owned)
}

fn systems(entity: &Value) -> Option<Vec<System>> {
    let Some(groups) = entity.get("children") else { return Some(Vec::new()) };
    let mut out = Vec::new();
    for (group, node) in groups.as_object()? {
        if group != "Errors" {
            return None;
        }
        let empty = Map::new();
        let list = node.get("children").map_or(Some(&empty), Value::as_object)?;
        for (name, system) in list {
            let mut lines = Vec::new();
            for piece in system.get("overflow").and_then(Value::as_array).into_iter().flatten() {
                lines.push(piece.as_str()?.to_owned());
            }
            out.push(System { name: name.clone(), word: value_of(system)?, lines });
        }
    }
    Some(out)
}

/// Reads the drawn form: names on the left, indented by arrows, words and wrapped text on the right.
fn check_table(text: &str) -> Result<Tree, Unknown> {
    let mut tree = Tree::default();
    let mut kind = String::new();
    let bad = |l: &str| Unknown::new(Cause::Unparsable, format!("health table row: {:?}", one_line(l)));
    for line in text.lines() {
        if is_rule(line) || line.trim().is_empty() {
            continue;
        }
        let Some(row) = cells(line) else { continue };
        let [left, right] = row.as_slice() else { continue };
        let depth = left.len() - left.trim_start().len();
        let (name, arrow) = match left.trim_start().strip_prefix("->") {
            Some(n) => (n.trim(), true),
            None => (left.trim(), false),
        };
        let right = right.trim();
        match (arrow, name, depth) {
            (false, "Overall Health", _) => {
                if tree.overall.replace(right.to_owned()).is_some() {
                    return Err(Unknown::new(Cause::Conflicting, "two health checks in one answer"));
                }
            }
            (false, "", _) => {
                let system =
                    tree.entities.last_mut().and_then(|e| e.systems.last_mut()).ok_or_else(|| bad(line))?;
                system.lines.push(right.to_owned());
            }
            (false, k, _) => k.clone_into(&mut kind),
            (true, "Errors", _) => {}
            (true, id, 0..=2) => tree.entities.push(Entity {
                kind: kind.clone(),
                id: id.to_owned(),
                word: right.to_owned(),
                systems: Vec::new(),
            }),
            (true, system, _) => {
                let entity = tree.entities.last_mut().ok_or_else(|| bad(line))?;
                let (name, word) = (system.to_owned(), right.to_owned());
                entity.systems.push(System { name, word, lines: Vec::new() });
            }
        }
    }
    if tree.overall.is_none() {
        return Err(missing(text, "health check"));
    }
    if !text.trim_end().lines().last().is_some_and(is_rule) {
        return Err(Unknown::new(Cause::Unparsable, "the health table is cut off"));
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(overall: &str, system: &str, word: &str) -> Vec<u8> {
        format!(
            "text before\n{{\"body\":{{\"GPU\":{{\"children\":{{\"3\":{{\"children\":{{\"Errors\":{{\"children\":\
             {{\"{system}\":{{\"overflow\":[\"a\",\"b\"],\"value\":\"{word}\"}}}}}}}},\"value\":\"{word}\"}}}}}},\
             \"Overall Health\":{{\"value\":\"{overall}\"}}}}}}\n"
        )
        .into_bytes()
    }

    fn cause(k: Known<HealthReport>) -> Cause {
        let Known::Unknown(u) = k else { panic!("{k:?}") };
        u.cause
    }

    #[test]
    fn incidents_belong_to_the_gpu_of_the_tree() {
        let r = parse(&json("Failure", "Memory system", "Failure")).into_known().unwrap();
        assert_eq!(r.overall, Health::Fail);
        assert_eq!((r.incidents[0].gpu, r.incidents[0].text.as_str()), (Some(3), "a b"));
    }

    #[test]
    fn what_nobody_has_seen_is_unknown_and_never_healthy() {
        assert_eq!(cause(parse(&json("Failure", "Memory system", "Degraded"))), Cause::UnrecognisedWord);
        assert_eq!(cause(parse(&json("Splendid", "Memory system", "Warning"))), Cause::UnrecognisedWord);
        assert_eq!(cause(parse(&json("Failure", "Flux system", "Failure"))), Cause::UnrecognisedWord);
        assert_eq!(cause(parse(&json("Failure", "Flux system", "Healthy"))), Cause::UnrecognisedWord);
        assert_eq!(cause(parse(&json("Healthy", "Memory system", "Failure"))), Cause::Conflicting);
        assert_eq!(cause(parse(b"{\"body\":{}}")), Cause::Unparsable);
        assert_eq!(cause(parse(b"")), Cause::EmptyAnswer);
        let twice = [json("Healthy", "Driver", "Healthy"), json("Failure", "Driver", "Failure")].concat();
        assert_eq!(cause(parse(&twice)), Cause::Conflicting);
    }
}
