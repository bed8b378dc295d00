//! `.reservations[]`, `.partitions[]` and `.pings[]`

use super::super::answer::{Answer, ParseError, Ping, shorten};
use super::super::text::{NameBudget, node_list};
use super::field::Field;
use super::{body, read, require};
use engine_core::known::{Cause, Known};
use engine_core::model::{NodeName, Partition, Reservation};
use serde::Deserialize;

#[derive(Deserialize)]
struct RawReservation {
    #[serde(default)]
    name: Field,
    #[serde(default)]
    start_time: Field,
    #[serde(default)]
    end_time: Field,
    #[serde(default)]
    node_list: Field,
    #[serde(default)]
    flags: Field,
    #[serde(default)]
    users: Field,
    #[serde(default)]
    accounts: Field,
}

body!(ReservationsBody, reservations, RawReservation);

/// Parses a body with reservations; an empty list without errors means that there are none.
///
/// # Errors
/// Errors reported by the body, or a missing required key (`errors`, `reservations`, `name`).
pub fn parse_reservations(bytes: &[u8]) -> Result<Answer<Vec<Reservation>>, ParseError> {
    let mut budget = NameBudget::default();
    read::<ReservationsBody, Reservation>(bytes, |raw| {
        let nodes = nodes(&raw.node_list);
        budget.spend(&nodes, "reservations")?;
        Ok(Reservation {
            name: name(&raw.name, "reservations")?,
            start: raw.start_time.set_time(),
            end: raw.end_time.set_time(),
            nodes,
            flags: raw.flags.words().map(|w| w.iter().map(|f| f.to_ascii_uppercase()).collect()),
            users: raw.users.words(),
            accounts: raw.accounts.words(),
        })
    })
}

#[derive(Deserialize)]
struct RawPartition {
    #[serde(default)]
    name: Field,
    /// An object from v0.0.39 on, a text before.
    #[serde(default)]
    nodes: Option<serde_json::Value>,
    #[serde(default)]
    partition: Option<serde_json::Value>,
    /// Before v0.0.39.
    #[serde(default)]
    state: Field,
    #[serde(default)]
    flags: Field,
}

body!(PartitionsBody, partitions, RawPartition);

/// Parses a body with partitions.
///
/// # Errors
/// Errors reported by the body, no partitions at all, or a missing required key (`errors`, `partitions`, `name`).
pub fn parse_partitions(bytes: &[u8]) -> Result<Answer<Vec<Partition>>, ParseError> {
    let mut budget = NameBudget::default();
    let answer = read::<PartitionsBody, Partition>(bytes, |raw| {
        let nodes = nodes(&inner(raw.nodes.as_ref(), "configured"));
        budget.spend(&nodes, "partitions")?;
        Ok(Partition {
            name: name(&raw.name, "partitions")?,
            nodes,
            state: if raw.state.is_missing() {
                inner(raw.partition.as_ref(), "state")
            } else {
                raw.state.clone()
            }
            .words()
            .and_then(|w| match &w[..] {
                [one] => Known::Known(one.to_ascii_uppercase()),
                [] => Known::unknown(Cause::NotReported, ""),
                _ => Known::unknown(Cause::Conflicting, "several states"),
            }),
            // v0.0.40 to v0.0.44 do not say it.
            is_default: if raw.flags.is_missing() {
                Known::unknown(Cause::Unsupported, "this release does not report it")
            } else {
                raw.flags.words().map(|f| f.iter().any(|w| w.eq_ignore_ascii_case("DEFAULT")))
            },
        })
    })?;
    if answer.value.is_empty() { Err(ParseError::Empty { what: "partitions" }) } else { Ok(answer) }
}

/// A field that is an object with `key` in newer versions, and the value itself in older ones.
fn inner(value: Option<&serde_json::Value>, key: &str) -> Field {
    let value = match value {
        Some(serde_json::Value::Object(o)) => o.get(key),
        other => other,
    };
    value.and_then(|v| Field::deserialize(v).ok()).unwrap_or_default()
}

#[derive(Deserialize)]
struct RawPing {
    #[serde(default)]
    hostname: Field,
    /// v0.0.38
    #[serde(default)]
    ping: Field,
    /// v0.0.39 to v0.0.44
    #[serde(default)]
    pinged: Field,
    /// From v0.0.42 on
    #[serde(default)]
    responding: Field,
    /// Until v0.0.44
    #[serde(default)]
    mode: Field,
    /// From v0.0.42 on
    #[serde(default)]
    primary: Field,
}

body!(PingsBody, pings, RawPing);

/// Parses a body with pings. A controller that is down is not an error here.
///
/// # Errors
/// Errors reported by the body, no pings at all, or a missing required key (`errors`, `pings`, `hostname`).
pub fn parse_ping(bytes: &[u8]) -> Result<Answer<Vec<Ping>>, ParseError> {
    let answer = read::<PingsBody, Ping>(bytes, |raw| {
        require(&raw.hostname, "pings", "hostname")?;
        Ok(Ping {
            host: raw.hostname.text().into_known().unwrap_or_default(),
            up: up(raw),
            primary: match (&raw.primary, &raw.mode) {
                (Field::Bool(b), _) => Known::Known(*b),
                (Field::Missing, Field::Text(m)) if m == "primary" => Known::Known(true),
                (Field::Missing, Field::Text(m)) if m.starts_with("backup") => Known::Known(false),
                (Field::Missing, mode) => {
                    mode.text().and_then(|w| Known::unknown(Cause::UnrecognisedWord, shorten(&w, 40)))
                }
                _ => Known::unknown(Cause::Unparsable, "unexpected shape of `primary`"),
            },
        })
    })?;
    if answer.value.is_empty() { Err(ParseError::Empty { what: "pings" }) } else { Ok(answer) }
}

/// `responding`, and the words UP and DOWN; where both are there they must agree.
fn up(raw: &RawPing) -> Known<bool> {
    let word = |f: &Field| match f {
        Field::Missing => None,
        Field::Text(t) if t == "UP" => Some(Known::Known(true)),
        Field::Text(t) if t == "DOWN" => Some(Known::Known(false)),
        Field::Text(t) => Some(Known::unknown(Cause::UnrecognisedWord, shorten(t, 40))),
        _ => Some(Known::unknown(Cause::Unparsable, "unexpected shape")),
    };
    let responding = match &raw.responding {
        Field::Missing => None,
        Field::Bool(b) => Some(Known::Known(*b)),
        _ => Some(Known::unknown(Cause::Unparsable, "unexpected shape")),
    };
    let mut said = [responding, word(&raw.pinged), word(&raw.ping)].into_iter().flatten();
    let Some(first) = said.next() else {
        return Known::unknown(Cause::Unsupported, "neither responding nor pinged");
    };
    if said.all(|s| s == first) {
        first
    } else {
        Known::unknown(Cause::Conflicting, "responding and pinged disagree")
    }
}

fn name(field: &Field, what: &'static str) -> Result<String, ParseError> {
    require(field, what, "name")?;
    match field {
        Field::Text(t) if !t.is_empty() && t.len() <= 256 => Ok(t.clone()),
        _ => Err(ParseError::malformed(what, 0, "a name is empty, too long, or not a text")),
    }
}

fn nodes(field: &Field) -> Known<Vec<NodeName>> {
    match field {
        Field::Null => Known::Known(Vec::new()),
        Field::Text(t) => node_list(t),
        Field::Missing => Known::unknown(Cause::Unsupported, "this release does not report it"),
        _ => Known::unknown(Cause::Unparsable, "unexpected shape of the node list"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(json: &str) -> Ping {
        parse_ping(format!(r#"{{"pings":[{{"hostname":"h",{json}}}],"errors":[]}}"#).as_bytes())
            .unwrap()
            .value
            .remove(0)
    }

    #[test]
    fn pings_of_all_versions() {
        for (json, up) in [
            (r#""ping":"UP","status":0,"mode":"primary""#, Some(true)),
            (r#""pinged":"DOWN","latency":1,"mode":"primary""#, Some(false)),
            (r#""pinged":"UP","responding":true,"mode":"primary","primary":true"#, Some(true)),
            (r#""responding":false,"latency":9,"primary":true,"status":"Unable""#, Some(false)),
            (r#""pinged":"UP","responding":false,"primary":true"#, None),
            (r#""pinged":"SIDEWAYS","primary":true"#, None),
            (r#""responding":"yes","primary":true"#, None),
            (r#""primary":true"#, None),
        ] {
            let p = ping(json);
            assert_eq!((p.up.known().copied(), p.primary), (up, Known::Known(true)), "{json}");
        }
        assert!(!ping(r#""pinged":"UP""#).primary.is_known());
        assert!(!ping(r#""pinged":"UP","mode":"sideways""#).primary.is_known());
    }

    #[test]
    fn partitions_of_all_versions() {
        for json in [
            r#""nodes":{"configured":"n[1-2]","total":2},"partition":{"state":["UP"]},"flags":["DEFAULT"]"#,
            r#""nodes":"n[1-2]","state":"up","flags":["default"]"#,
        ] {
            let text = format!(r#"{{"partitions":[{{"name":"gpu",{json}}}],"errors":[]}}"#);
            let p = parse_partitions(text.as_bytes()).unwrap().value.remove(0);
            assert_eq!(
                (p.nodes.known().map(Vec::len), p.state, p.is_default),
                (Some(2), Known::Known("UP".into()), true.into())
            );
        }
        let text = br#"{"partitions":[{"name":"gpu","nodes":[1],"partition":7}],"errors":[]}"#;
        let p = parse_partitions(text).unwrap().value.remove(0);
        assert!(!p.nodes.is_known() && !p.state.is_known() && !p.is_default.is_known());
        assert!(parse_partitions(br#"{"partitions":[],"errors":[]}"#).is_err());
    }

    #[test]
    fn reservations_need_a_name_and_no_errors() {
        assert_eq!(parse_reservations(br#"{"reservations":[],"errors":[]}"#).unwrap().value, vec![]);
        for bad in [
            r#"{"reservations":[],"errors":[{"error":"x"}]}"#,
            r#"{"reservations":[{}],"errors":[]}"#,
            r#"{"reservations":[{"name":""}],"errors":[]}"#,
        ] {
            assert!(parse_reservations(bad.as_bytes()).is_err(), "{bad}");
        }
        let text = br#"{"reservations":[{"name":"fw","flags":{"x":1}}],"errors":[]}"#;
        let r = parse_reservations(text).unwrap().value.remove(0);
        assert!(r.is_maintenance() && !r.nodes.is_known() && !r.end.is_known());
    }
}
