//! Payloads as their programs send them.

use crate::rig::{Rig, Setup, bearer, node};
use engine_server::TokenScope;
use engine_server::sources::{Kind, SourceConfig};
use jiff::Timestamp;
use std::collections::BTreeMap;

fn fixture(path: &str) -> String {
    let full = format!("{}/../../fixtures/alerts/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&full).unwrap_or_else(|e| panic!("{full}: {e}"))
}

/// Gives the times of a capture a new day, so that it is not stale.
fn today(text: &str, rig: &Rig) -> String {
    let now = rig.clock_now().to_string();
    text.replace("2026-11-21T15:16:05.433147532Z", &now).replace("2026-01-05T12:00:00Z", &now)
}

fn faults(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[tokio::test]
async fn alertmanager_opens_and_resolves_by_its_own_fingerprints() {
    let config = SourceConfig {
        faults: faults(&[("GpuEccUncorrectable", "gpu-ecc-uncorrectable")]),
        ..SourceConfig::default()
    };
    let sources = [("alertmanager".to_owned(), config)].into();
    let rig = Rig::start(Setup { sources, ..Setup::default() }).await;
    let auth = bearer(&rig.feeder());
    let headers = [("authorization", auth.as_str())];
    let path = "/api/v1/alerts/alertmanager";
    let (status, said) =
        rig.post(path, &headers, today(&fixture("alertmanager-0.25.0/firing.json"), &rig)).await;
    assert_eq!((status, said["new"].as_u64()), (200, Some(2)), "{said}");
    let series = rig
        .log
        .read(|f| {
            let i = f.on_node(&node(4)).unwrap();
            let (print, s) = i.strongest().unwrap();
            (print.to_string(), s.fault.clone(), s.gpu.clone(), s.source.clone())
        })
        .await;
    let wanted = ("alertmanager:6a466f21764d267d", "gpu-ecc-uncorrectable", Some("5"), "alertmanager");
    let (print, fault, gpu, source) = &series;
    assert_eq!((print.as_str(), fault.as_str(), gpu.as_deref(), source.as_str()), wanted);
    let resolved = today(&fixture("alertmanager-0.25.0/resolved.json"), &rig);
    let (status, said) = rig.post(path, &headers, resolved).await;
    assert_eq!((status, said["taken"].as_u64(), said["refused"].as_u64()), (200, Some(2), Some(0)), "{said}");
    rig.clock.pass(jiff::SignedDuration::from_mins(4));
    rig.intake.tick().await.unwrap();
    rig.intake.tick().await.unwrap();
    assert_eq!(rig.open().await, 0);
    assert!(rig.metric("slurmedic_source_age_seconds{source=\"alertmanager\"}").await < 30.0);
}

#[tokio::test]
async fn grafana_signs_and_dates_its_posts_and_a_sick_rule_is_no_sick_node() {
    let secret = b"0123456789abcdef0123456789abcdef";
    let dir = tempfile::tempdir().unwrap();
    let config = SourceConfig {
        kind: Kind::Grafana,
        secret: Some(crate::rig::secret_file(dir.path().join("s"), secret)),
        timestamp_header: Some("X-Grafana-Alerting-Timestamp".to_owned()),
        ..SourceConfig::default()
    };
    let sources = [("grafana".to_owned(), config)].into();
    let rig = Rig::start(Setup { sources, ..Setup::default() }).await;
    let body = today(&fixture("grafana/firing.json"), &rig);
    let signing =
        engine_server::sources::Signing::new(secret.to_vec(), "x-grafana-alerting-signature", Some("t"));
    let now = Timestamp::now().as_second();
    for (time, wanted) in [(now - 3_600, 401), (now + 3_600, 401), (now, 200)] {
        let time = time.to_string();
        let signature = signing.sign(Some(&time), body.as_bytes());
        let headers =
            [("x-grafana-alerting-signature", signature.as_str()), ("x-grafana-alerting-timestamp", &time)];
        let (status, said) = rig.post("/api/v1/alerts/grafana", &headers, body.clone()).await;
        assert_eq!(status, wanted, "{said}");
        if status == 200 {
            assert_eq!((said["new"].as_u64(), said["refused"].as_u64()), (Some(1), Some(1)));
            assert!(said["answers"][1].as_str().unwrap().contains("sick_source"), "{said}");
        }
    }
    assert!(rig.log.read(|f| f.on_node(&node(7)).is_some() && f.on_node(&node(8)).is_none()).await);
}

#[tokio::test]
async fn any_json_is_read_by_pointers() {
    let p = |t: &str| Some(vec![t.to_owned()]);
    let config = SourceConfig {
        kind: Kind::Generic,
        alerts: Some("/findings".to_owned()),
        node: p("/host"),
        gpu: p("/dev"),
        fault: p("/what"),
        faults: faults(&[("DBE", "gpu-ecc-uncorrectable")]),
        firing: Some("/state".to_owned()),
        firing_values: vec!["bad".to_owned()],
        seen_at: Some("/at".to_owned()),
        fingerprint: Some("/key".to_owned()),
        summary: Some("/text".to_owned()),
        ..SourceConfig::default()
    };
    let sources = [("sweep".to_owned(), config)].into();
    let rig = Rig::start(Setup { sources, ..Setup::default() }).await;
    let auth = bearer(&rig.token("sweep", engine_core::policy::Role::Viewer, None, &[TokenScope::Alerts]));
    let now = rig.clock_now().as_second().to_string();
    let body = fixture("generic/site-script.json").replace("1767614400", &now);
    let (status, said) = rig.post("/api/v1/alerts/sweep", &[("authorization", &auth)], body).await;
    assert_eq!((status, said["new"].as_u64(), said["refused"].as_u64()), (200, Some(1), Some(1)), "{said}");
    let (fault, gpu) = rig
        .log
        .read(|f| f.on_node(&node(9)).unwrap().strongest().map(|(_, s)| (s.fault.clone(), s.gpu.clone())))
        .await
        .unwrap();
    assert_eq!((fault.as_str(), gpu.as_deref()), ("gpu-ecc-uncorrectable", Some("4")));
    let nobody = rig.post("/api/v1/alerts/other", &[("authorization", &auth)], "{}").await;
    assert_eq!(nobody.0, 404);
}

#[tokio::test]
async fn the_socket_feeds_alerts_for_whoever_may_propose() {
    let rig = Rig::start(Setup::default()).await;
    let client = reqwest::Client::builder().unix_socket(rig.socket.clone()).build().unwrap();
    let body = r#"{"node": "gpu011", "fault": "gpu-ecc-uncorrectable", "gpu": 3}"#;
    let sent = client.post("http://e/api/v1/alerts").body(body).send().await.unwrap();
    let root = nix::unistd::geteuid().is_root();
    assert_eq!(sent.status().as_u16(), if root { 200 } else { 403 });
    assert_eq!(rig.open().await, usize::from(root));
}

/// As docs/guide/hooks.md writes it.
#[tokio::test]
async fn the_hook_is_a_source_of_dated_and_signed_posts_and_its_longest_series_fits() {
    let secret = b"0123456789abcdef0123456789abcdef";
    let dir = tempfile::tempdir().unwrap();
    let p = |t: &str| Some(vec![t.to_owned()]);
    let config = SourceConfig {
        kind: Kind::Generic,
        secret: Some(crate::rig::secret_file(dir.path().join("s"), secret)),
        timestamp_header: Some("x-slurmedic-timestamp".to_owned()),
        node: p("/node"),
        gpu: p("/gpu"),
        fault: p("/fault"),
        firing: Some("/firing".to_owned()),
        firing_values: vec!["true".to_owned()],
        seen_at: Some("/seen_at".to_owned()),
        fingerprint: Some("/fingerprint".to_owned()),
        summary: Some("/summary".to_owned()),
        ..SourceConfig::default()
    };
    let sources = [("hook".to_owned(), config)].into();
    let rig = Rig::start(Setup { sources, ..Setup::default() }).await;
    let now = rig.clock_now();
    let alert = |firing: bool| {
        serde_json::json!([{
            "source": "slurmedic-hook", "node": "gpu013", "fault": "gpu-off-bus", "firing": firing,
            "fingerprint": "x".repeat(128), "summary": "XID 79", "seen_at": now.to_string(),
        }])
        .to_string()
    };
    let signing = engine_server::sources::Signing::new(secret.to_vec(), "h", Some("t"));
    let time = Timestamp::now().as_second().to_string();
    let mut said = Vec::new();
    for body in [alert(true), alert(true), alert(false)] {
        let signature = format!("sha256={}", signing.sign(Some(&time), body.as_bytes()));
        let headers = [("x-slurmedic-signature", signature.as_str()), ("x-slurmedic-timestamp", &time)];
        let (status, answer) = rig.post("/api/v1/alerts/hook", &headers, body).await;
        assert_eq!(status, 200, "{answer}");
        said.push(answer["answers"][0].as_str().unwrap().to_owned());
    }
    assert_eq!(said[0], "opens an incident");
    assert!(said[1].starts_with("counted") && said[2].starts_with("counted"), "the same series: {said:?}");
}
