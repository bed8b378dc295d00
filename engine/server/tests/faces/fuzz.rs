//! No bytes make a reader panic, and whatever it lets through is bounded and plain.

use engine_core::incident::Alert;
use engine_server::sources::{LabelMapping, alertmanager, generic, grafana, native};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn mapping() -> LabelMapping {
    let words = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    LabelMapping {
        node: words(&["node", "instance"]),
        gpu: words(&["gpu"]),
        fault: words(&["fault"]),
        faults: BTreeMap::from([("A".to_owned(), "gpu-off-bus".to_owned())]),
        domains: words(&["example"]),
        only: BTreeMap::new(),
        onset_max_age: SignedDuration::from_hours(24),
    }
}

fn pointers() -> generic::Pointers {
    let p = |t: &str| Some(t.to_owned());
    generic::Pointers {
        alerts: None,
        node: "/labels/node".to_owned(),
        gpu: p("/labels/gpu"),
        fault: "/labels/fault".to_owned(),
        faults: BTreeMap::new(),
        firing: p("/status"),
        firing_values: vec!["firing".to_owned()],
        seen_at: p("/startsAt"),
        fingerprint: p("/fingerprint"),
        summary: p("/annotations/summary"),
    }
}

/// Reads a body with every reader, and gives back what they let through.
fn every(body: &[u8]) -> Vec<Alert> {
    let (m, p) = (mapping(), pointers());
    let now = Timestamp::UNIX_EPOCH;
    let all = [
        alertmanager::read(body, "a", &m, now),
        grafana::read(body, "g", &m, now),
        generic::read(body, "p", &p, now),
        native::read(body, "n", now),
    ];
    all.into_iter().flatten().flatten().flatten().collect()
}

fn plain(alert: &Alert) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    alert.fingerprint.as_str().len() <= 128
        && alert.fault.len() <= 64
        && alert.fault.chars().all(word)
        && alert.summary.len() <= 512
        && !alert.summary.chars().any(char::is_control)
        && alert.gpu.as_ref().is_none_or(|g| g.len() <= 64 && !g.chars().any(char::is_control))
}

/// Texts that labels may hold, the nasty ones among them.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("gpu001".to_owned()),
        Just("gpu001:9400".to_owned()),
        Just("gpu-off-bus".to_owned()),
        Just("gpu[001-999]".to_owned()),
        Just("{{ 7*7 }}; $(reboot)".to_owned()),
        Just(String::new()),
        Just("x".repeat(5_000)),
        any::<String>(),
    ]
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        text().prop_map(Into::into),
        Just("2026-01-05T12:00:00Z".into()),
        Just("-9999-01-01T00:00:00Z".into()),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::btree_map(text(), inner, 0..4).prop_map(|m| m.into_iter().collect()),
        ]
    })
}

/// A post that is nearly right, with anything in the place of anything.
fn nearly() -> impl Strategy<Value = String> {
    let labels = prop::collection::btree_map(
        prop_oneof![Just("node".to_owned()), Just("fault".to_owned()), Just("gpu".to_owned()), text()],
        prop_oneof![4 => text().prop_map(Into::into), 1 => value()],
        0..6,
    );
    let entry =
        (labels, value(), value(), prop_oneof![Just("firing".into()), Just("resolved".into()), value()])
            .prop_map(|(labels, starts, print, status): (BTreeMap<String, serde_json::Value>, _, _, _)| {
                serde_json::json!({
                    "status": status, "labels": labels, "startsAt": starts, "fingerprint": print,
                    "annotations": { "summary": "s" },
                })
            });
    (
        prop::collection::vec(prop_oneof![8 => entry, 1 => value()], 0..6),
        prop_oneof![Just("4".into()), Just("1".into()), value()],
    )
        .prop_map(|(alerts, version): (Vec<serde_json::Value>, serde_json::Value)| {
            serde_json::json!({ "version": version, "alerts": alerts }).to_string()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..400)) {
        for alert in every(&body) {
            prop_assert!(plain(&alert), "{alert:?}");
        }
    }

    #[test]
    fn any_json_is_read_without_a_panic(v in value()) {
        for alert in every(v.to_string().as_bytes()) {
            prop_assert!(plain(&alert), "{alert:?}");
        }
    }

    #[test]
    fn a_post_that_is_nearly_right_gives_only_plain_alerts(body in nearly()) {
        for alert in every(body.as_bytes()) {
            prop_assert!(plain(&alert), "{alert:?}");
        }
    }
}

#[test]
fn the_readers_let_something_through() {
    let body = r#"{"version":"4","alerts":[{"status":"firing","labels":{"node":"n1","fault":"x"}}]}"#;
    assert_eq!(every(body.as_bytes()).len(), 1);
}
