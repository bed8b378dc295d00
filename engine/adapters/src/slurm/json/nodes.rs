//! `.nodes[]`

use super::super::answer::{Answer, ParseError};
use super::super::gres::gpus_in_gres;
use super::super::text::no_name_twice;
use super::field::Field;
use super::{body, read, require};
use engine_core::known::{Cause, Known};
use engine_core::model::node_state::{classify, parse_state_words};
use engine_core::model::{BaseState, Node, NodeFlags, NodeName, Reason};
use serde::Deserialize;

const WHAT: &str = "nodes";

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    name: Field,
    #[serde(default)]
    state: Field,
    #[serde(default)]
    state_flags: Field,
    #[serde(default)]
    reason: Field,
    #[serde(default)]
    reason_changed_at: Field,
    #[serde(default)]
    reason_set_by_user: Field,
    #[serde(default)]
    partitions: Field,
    #[serde(default)]
    active_features: Field,
    #[serde(default)]
    gres: Field,
    #[serde(default)]
    gres_used: Field,
    #[serde(default)]
    cpus: Field,
    #[serde(default)]
    alloc_cpus: Field,
    #[serde(default)]
    real_memory: Field,
    #[serde(default)]
    boot_time: Field,
    #[serde(default)]
    slurmd_start_time: Field,
    #[serde(default)]
    version: Field,
    #[serde(default)]
    slurmd_version: Field,
    #[serde(default)]
    comment: Field,
    #[serde(default)]
    extra: Field,
    #[serde(default)]
    reservation: Field,
}

body!(NodesBody, nodes, Raw);

/// Parses a body with nodes.
///
/// # Errors
/// Errors reported by the body, no nodes at all, a missing required key (`errors`, `nodes`, `name`, `state`,
/// `reason`), two records of one name, or a name that is not the name of one node.
pub fn parse_nodes(bytes: &[u8]) -> Result<Answer<Vec<Node>>, ParseError> {
    let answer = read::<NodesBody, Node>(bytes, node)?;
    if answer.value.is_empty() {
        return Err(ParseError::Empty { what: WHAT });
    }
    no_name_twice(answer.value.iter().map(|n| n.name.as_str()), WHAT)?;
    Ok(answer)
}

fn node(raw: &Raw) -> Result<Node, ParseError> {
    require(&raw.name, WHAT, "name")?;
    require(&raw.state, WHAT, "state")?;
    require(&raw.reason, WHAT, "reason")?;
    let name = match &raw.name {
        Field::Text(t) => NodeName::new(t).map_err(|e| ParseError::malformed(WHAT, 0, e.to_string()))?,
        _ => return Err(ParseError::malformed(WHAT, 0, "a node name is not a text")),
    };
    let (base, flags) = state(&raw.state, &raw.state_flags);
    let gpus_configured = gpus(&raw.gres);
    let gpus_allocated =
        if gpus_configured == Known::Known(0) { Known::Known(0) } else { gpus(&raw.gres_used) };
    let slurmd_version = if raw.version.is_missing() { &raw.slurmd_version } else { &raw.version };
    Ok(Node {
        name,
        state: classify(&base, &flags),
        base,
        flags,
        reason: reason(raw),
        partitions: raw.partitions.words(),
        features: raw.active_features.words(),
        gres: match &raw.gres {
            Field::Null => Known::Known(String::new()),
            Field::Text(t) if t == "(null)" => Known::Known(String::new()),
            Field::Text(t) => Known::Known(t.clone()),
            other => other.text(),
        },
        gpus_configured,
        gpus_allocated,
        cpus: raw.cpus.count(),
        cpus_allocated: raw.alloc_cpus.count(),
        memory_mib: raw.real_memory.count(),
        boot_time: raw.boot_time.set_time(),
        slurmd_start_time: raw.slurmd_start_time.set_time(),
        slurmd_version: slurmd_version.text(),
        comment: raw.comment.optional(),
        extra: raw.extra.optional(),
        reservation: raw.reservation.optional(),
    })
}

/// A list of words, or a base with its flags apart. A base without any list of flags tells nothing about drains.
fn state(state: &Field, state_flags: &Field) -> (Known<BaseState>, NodeFlags) {
    let (words, flags_told) = match state {
        Field::Words(w) => (w.iter().map(String::as_str).collect(), true),
        Field::Text(t) if t.contains('+') => (t.split('+').collect::<Vec<_>>(), true),
        Field::Text(t) if !t.is_empty() => (vec![t.as_str()], false),
        Field::Text(_) | Field::Null => {
            return (Known::unknown(Cause::NotReported, "no state"), NodeFlags::default());
        }
        _ => {
            return (
                Known::unknown(Cause::Unparsable, "unexpected shape of the state"),
                NodeFlags::default(),
            );
        }
    };
    let more: &[String] = if let Field::Words(w) = state_flags { w } else { &[] };
    let (mut base, mut flags) = parse_state_words(words.into_iter().chain(more.iter().map(String::as_str)));
    match state_flags {
        Field::Words(_) => {}
        Field::Missing | Field::Null if flags_told => {}
        Field::Missing | Field::Null => {
            // v0.0.36. Its base is of no use either: it says `allocated` for a mixed node.
            base = Known::unknown(Cause::Unsupported, "this data parser reports no state flags");
            flags.add_unknown("(flags not reported)");
        }
        _ => flags.add_unknown("(flags in an unexpected shape)"),
    }
    (base, flags)
}

fn reason(raw: &Raw) -> Known<Option<Reason>> {
    // Words such as `N/A` are a reason here as good as any: only nothing is none.
    let text = match &raw.reason {
        Field::Null => return Known::Known(None),
        Field::Text(t) if t.is_empty() => return Known::Known(None),
        Field::Text(t) => t.clone(),
        other => return other.text().map(|_| None),
    };
    Known::Known(Some(Reason {
        text,
        user: raw.reason_set_by_user.text(),
        at: raw.reason_changed_at.set_time(),
    }))
}

fn gpus(gres: &Field) -> Known<u32> {
    match gres {
        Field::Null => Known::Known(0),
        Field::Text(t) => match gpus_in_gres(t) {
            Some(n) => Known::Known(n),
            None => Known::unknown(Cause::Unparsable, super::shorten(t, 80)),
        },
        other => other.count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_core::model::{NodeFlag, NodeState};

    fn body(node: &str) -> String {
        format!(r#"{{"nodes":[{node}],"errors":[],"meta":{{}}}}"#)
    }

    fn one(node: &str) -> Node {
        parse_nodes(body(node).as_bytes()).unwrap().value.remove(0)
    }

    #[test]
    fn states_in_every_shape() {
        for (json, want) in [
            (r#""state":["IDLE","DRAIN"]"#, NodeState::Drained),
            (r#""state":"idle","state_flags":["DRAIN"]"#, NodeState::Drained),
            (r#""state":"idle","state_flags":[]"#, NodeState::Idle),
            (r#""state":"IDLE+DRAIN""#, NodeState::Drained),
            (r#""state":["IDLE","NEW_FLAG"]"#, NodeState::Unknown),
            // v0.0.36: a drain would not be seen
            (r#""state":"idle""#, NodeState::Unknown),
            (r#""state":"idle","state_flags":{"drain":true}"#, NodeState::Unknown),
            (r#""state":["IDLE"],"state_flags":{"drain":true}"#, NodeState::Unknown),
            (r#""state":{"current":"IDLE"}"#, NodeState::Unknown),
            (r#""state":7"#, NodeState::Unknown),
            (r#""state":null"#, NodeState::Unknown),
            (r#""state":[]"#, NodeState::Unknown),
            (r#""state":"idle*","state_flags":[]"#, NodeState::Unknown),
        ] {
            assert_eq!(one(&format!(r#"{{"name":"n1","reason":"",{json}}}"#)).state, want, "{json}");
        }
        assert!(one(r#"{"name":"n1","reason":"","state":["IDLE","DRAIN"]}"#).flags.has(NodeFlag::Drain));
    }

    #[test]
    fn required_keys_and_shapes() {
        let all = r#"{"name":"n1","reason":"","state":["IDLE"]}"#;
        for key in ["name", "reason", "state"] {
            let text = body(&all.replace(&format!("\"{key}\""), "\"other\""));
            assert!(
                matches!(parse_nodes(text.as_bytes()), Err(ParseError::Drift { key: k, .. }) if k == key),
                "{key}"
            );
        }
        let node = one(
            r#"{"name":"n1","reason":"x","state":["IDLE"],"cpus":{"a":1},"boot_time":"soon","gres":["x"],"partitions":7}"#,
        );
        assert!(
            !node.cpus.is_known()
                && !node.boot_time.is_known()
                && !node.gres.is_known()
                && !node.partitions.is_known()
        );
        assert!(!node.reservation.is_known());
        for bad in [
            r#"{"name":"ALL","reason":"","state":["IDLE"]}"#,
            r#"{"name":["n1"],"reason":"","state":["IDLE"]}"#,
        ] {
            assert!(matches!(parse_nodes(body(bad).as_bytes()), Err(ParseError::Malformed { .. })), "{bad}");
        }
        let twice = body(&format!("{all},{all}"));
        assert!(matches!(parse_nodes(twice.as_bytes()), Err(ParseError::Malformed { .. })));
    }

    #[test]
    fn errors_make_the_read_fail() {
        let nodes = r#""nodes":[{"name":"n1","reason":"","state":["IDLE"]}]"#;
        for errors in [
            r#"[{"error":"No error","error_number":0}]"#,
            r#"[{"error":"Unspecified error","errno":-1}]"#,
            r#"["x"]"#,
            r#"{"a":1}"#,
            r#""x""#,
        ] {
            let text = format!(r#"{{{nodes},"errors":{errors}}}"#);
            assert!(matches!(parse_nodes(text.as_bytes()), Err(ParseError::ReadFailed { .. })), "{errors}");
        }
        for text in
            [format!("{{{nodes}}}"), format!(r#"{{{nodes},"errors":null}}"#), r#"{"errors":[]}"#.into()]
        {
            assert!(matches!(parse_nodes(text.as_bytes()), Err(ParseError::Drift { .. })), "{text}");
        }
        for text in ["", " \n", r#"{"nodes":[],"errors":[]}"#] {
            assert!(matches!(parse_nodes(text.as_bytes()), Err(ParseError::Empty { .. })), "{text}");
        }
        for text in [
            "x",
            "[]",
            "{",
            r#"{"nodes":{"n1":{}},"errors":[]}"#,
            r#"{"nodes":[["n1",["IDLE"]]],"errors":[]}"#,
        ] {
            assert!(matches!(parse_nodes(text.as_bytes()), Err(ParseError::Malformed { .. })), "{text}");
        }
        let failed =
            parse_nodes(b"slurm_load_node error: Unable to contact slurm controller (connect failure)\n");
        assert!(matches!(failed, Err(ParseError::ReadFailed { .. })));
    }
}
