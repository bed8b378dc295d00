//! Alerts that lie, flood, flap, come late, early or never began.

use crate::rig::{NODES, Rig, Setup, alertmanager, bearer, node};
use engine_core::incident::Phase;
use engine_server::sources::{Signing, SourceConfig};
use jiff::SignedDuration;

const PATH: &str = "/api/v1/alerts/alertmanager";

async fn feed(
    rig: &Rig,
    auth: &str,
    alerts: &[(&str, &str, jiff::Timestamp, &str)],
) -> (u16, serde_json::Value) {
    rig.post(PATH, &[("authorization", auth)], alertmanager(alerts)).await
}

#[tokio::test]
async fn a_forged_signature_opens_nothing_and_a_true_one_does() {
    let secret = b"0123456789abcdef0123456789abcdef";
    let dir = tempfile::tempdir().unwrap();
    let path = crate::rig::secret_file(dir.path().join("secret"), secret);
    let config = SourceConfig { secret: Some(path), ..SourceConfig::default() };
    let sources = [("alertmanager".to_owned(), config)].into();
    let rig = Rig::start(Setup { sources, ..Setup::default() }).await;
    let body = alertmanager(&[("gpu001", "firing", rig.clock_now(), "a")]);
    let signing = Signing::new(secret.to_vec(), "x-slurmedic-signature", None);
    let true_one = signing.sign(None, body.as_bytes());
    let forged = signing.sign(None, b"another body");
    assert_eq!(rig.post(PATH, &[], body.clone()).await.0, 401, "not signed");
    let (status, said) = rig.post(PATH, &[("x-slurmedic-signature", &forged)], body.clone()).await;
    assert_eq!((status, said["error"].as_str()), (401, Some("the signature does not fit")));
    let auth = bearer(&rig.feeder());
    let (status, _) = rig.post(PATH, &[("authorization", &auth)], body.clone()).await;
    assert_eq!(status, 401, "a token does not stand in for the signature");
    assert_eq!(rig.open().await, 0);
    let (status, said) = rig.post(PATH, &[("x-slurmedic-signature", &true_one)], body).await;
    assert_eq!((status, said["new"].as_u64()), (200, Some(1)));
    assert_eq!(rig.open().await, 1);
    assert!(rig.metric("slurmedic_refused_requests_total{kind=\"unauthenticated\"}").await >= 3.0);
}

#[tokio::test]
async fn ten_thousand_series_in_one_post_are_taken_and_bounded() {
    let rig = Rig::start(Setup::default()).await;
    let auth = bearer(&rig.feeder());
    let at = rig.clock_now();
    let names: Vec<(String, String)> =
        (0..10_000).map(|i| (node(i % NODES + 1).to_string(), i.to_string())).collect();
    let alerts: Vec<_> = names.iter().map(|(n, i)| (n.as_str(), "firing", at, i.as_str())).collect();
    let (status, said) = feed(&rig, &auth, &alerts).await;
    assert_eq!((status, said["taken"].as_u64()), (200, Some(10_000)), "{}", said["error"]);
    assert_eq!(said["answers"].as_array().unwrap().len(), 1_000, "the answer is cut");
    assert_eq!(rig.open().await, NODES, "one incident for each node");
    let widest = rig.log.read(|f| f.incidents().map(|i| i.alerts.len()).max()).await;
    assert_eq!(widest, Some(64), "an incident tells 64 series apart; others only count");
    let before = rig.records().await;
    assert_eq!(feed(&rig, &auth, &alerts).await.0, 200);
    assert_eq!(rig.records().await, before, "the same again is not written");
    let too_many: Vec<_> = (0..20_001).map(|_| ("gpu001", "firing", at, "a")).collect();
    let small: Vec<serde_json::Value> = too_many.iter().map(|_| serde_json::json!({})).collect();
    let body = serde_json::json!({ "version": "4", "alerts": small }).to_string();
    assert_eq!(rig.post(PATH, &[("authorization", &auth)], body).await.0, 413);
}

#[tokio::test]
async fn what_is_no_utf8_or_no_webhook_is_refused_whole() {
    let rig = Rig::start(Setup::default()).await;
    let auth = bearer(&rig.feeder());
    let mut spoiled = alertmanager(&[("gpu001", "firing", rig.clock_now(), "a")]).into_bytes();
    let at = spoiled.windows(6).position(|w| w == b"gpu001").unwrap();
    spoiled[at] = 0xff;
    for body in [
        spoiled,
        b"\xc3\x28".to_vec(),
        b"".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        b"{\"version\":\"5\",\"alerts\":[]}".to_vec(),
        "[".repeat(100_000).into_bytes(),
    ] {
        let (status, said) = rig.post(PATH, &[("authorization", &auth)], body).await;
        assert_eq!((status, said["kind"].as_str()), (400, Some("usage")), "{said}");
    }
    assert_eq!(rig.open().await, 0);
    assert!(
        rig.metric("slurmedic_alert_posts_total{source=\"alertmanager\",outcome=\"refused\"}").await >= 7.0
    );
}

#[tokio::test]
async fn an_unknown_node_opens_nothing_and_does_not_spoil_its_neighbours() {
    let rig = Rig::start(Setup::default()).await;
    let auth = bearer(&rig.feeder());
    let at = rig.clock_now();
    let alerts = [
        ("gpu999", "firing", at, "a"),
        ("gpu[001-064]", "firing", at, "a"),
        ("ALL", "firing", at, "a"),
        ("gpu002", "firing", at, "a"),
    ];
    let (status, said) = feed(&rig, &auth, &alerts).await;
    assert_eq!((status, said["new"].as_u64(), said["refused"].as_u64()), (200, Some(1), Some(3)), "{said}");
    assert!(said["answers"][0].as_str().unwrap().contains("unknown_node"), "{said}");
    assert_eq!(rig.open().await, 1);
    assert!(
        rig.metric("slurmedic_alerts_total{source=\"alertmanager\",outcome=\"unknown_node\"}").await >= 1.0
    );
}

#[tokio::test]
async fn times_in_the_future_and_a_day_old_open_nothing() {
    let rig = Rig::start(Setup::default()).await;
    let auth = bearer(&rig.feeder());
    let now = rig.clock_now();
    let (hour, day) = (SignedDuration::from_hours(1), SignedDuration::from_hours(24));
    let minute = SignedDuration::from_mins(1);
    for (i, (at, word)) in [
        (now + hour, "clock_skew"),
        (now - day - minute, "stale_alert"),
        (now - day * 3_000, "stale_alert"),
        (now + minute, "opens"),
        (now - hour, "opens"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = node(i + 1).to_string();
        let (status, said) = feed(&rig, &auth, &[(&name, "firing", at, "a")]).await;
        assert_eq!(status, 200);
        assert!(said["answers"][0].as_str().unwrap().contains(word), "{at}: {said}");
    }
    assert_eq!(rig.open().await, 2);
    // An alert that another source dates itself is stale after ten minutes already.
    let old = serde_json::json!({ "node": "gpu020", "fault": "x", "seen_at": (now - hour).to_string() });
    let said = rig.post("/api/v1/alerts", &[("authorization", &auth)], old.to_string()).await.1;
    assert!(said["answers"][0].as_str().unwrap().contains("stale_alert"), "{said}");
}

#[tokio::test]
async fn resolved_before_firing_ends_nothing_and_the_alert_still_opens_later() {
    let rig = Rig::start(Setup::default()).await;
    let auth = bearer(&rig.feeder());
    let at = rig.clock_now();
    let said = feed(&rig, &auth, &[("gpu005", "resolved", at, "a")]).await.1;
    assert!(said["answers"][0].as_str().unwrap().contains("nothing is known"), "{said}");
    assert_eq!((rig.open().await, rig.records().await), (0, 0));
    // In one post, in the wrong order.
    let both = [("gpu005", "resolved", at, "a"), ("gpu005", "firing", at, "a")];
    let said = feed(&rig, &auth, &both).await.1;
    assert_eq!((said["new"].as_u64(), said["refused"].as_u64()), (Some(1), Some(1)), "{said}");
    assert_eq!(rig.open().await, 1);
}

#[tokio::test]
async fn an_hour_of_flapping_is_one_incident_and_a_handful_of_records() {
    let rig = Rig::start(Setup { sources: fast(), ..Setup::default() }).await;
    let auth = bearer(&rig.feeder());
    let began = rig.clock_now();
    for turn in 0..360 {
        let status = if turn % 2 == 0 { "firing" } else { "resolved" };
        let (code, _) = feed(&rig, &auth, &[("gpu006", status, began, "a")]).await;
        assert_eq!(code, 200);
        rig.intake.tick().await.unwrap();
        rig.clock.pass(SignedDuration::from_secs(10));
        assert_eq!(rig.open().await, 1, "at turn {turn}");
    }
    let records = rig.records().await;
    assert!(records <= 20, "{records} records");
    let times =
        rig.log.read(|f| f.on_node(&node(6)).map(|i| i.alerts.values().map(|s| s.times).sum::<u64>())).await;
    assert!(times.unwrap() >= 160, "the repeats are counted: {times:?}");
    // Quiet for three minutes, and it is over.
    feed(&rig, &auth, &[("gpu006", "resolved", began, "a")]).await;
    rig.clock.pass(SignedDuration::from_mins(4));
    rig.intake.tick().await.unwrap();
    rig.intake.tick().await.unwrap();
    assert_eq!(rig.open().await, 0);
}

#[tokio::test]
async fn a_thousand_repeats_are_one_incident_and_two_posts_at_once_are_one_too() {
    let rig = Rig::start(Setup { sources: fast(), ..Setup::default() }).await;
    let auth = bearer(&rig.feeder());
    let at = rig.clock_now();
    for _ in 0..50 {
        let alerts = vec![("gpu003", "firing", at, "a"); 20];
        assert_eq!(feed(&rig, &auth, &alerts).await.0, 200);
    }
    let (a, b) = (&[("gpu004", "firing", at, "a")], &[("gpu004", "firing", at, "a")]);
    let (one, two) = tokio::join!(feed(&rig, &auth, a), feed(&rig, &auth, b));
    assert_eq!((one.0, two.0), (200, 200));
    assert_eq!(one.1["new"].as_u64().unwrap() + two.1["new"].as_u64().unwrap(), 1);
    assert_eq!((rig.open().await, rig.records().await), (2, 2));
    let new = rig.log.read(|f| f.incidents().all(|i| i.phase == Phase::New)).await;
    assert!(new);
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_taken_and_comes_again() {
    let rig = Rig::start(Setup::default()).await;
    let auth = bearer(&rig.feeder());
    let post = [("gpu012", "firing", rig.clock_now(), "a")];
    rig.disk.is_full(true);
    let (status, said) = feed(&rig, &auth, &post).await;
    assert!(status >= 500, "a 5xx makes the sender try again: {status} {said}");
    assert!(said["error"].as_str().unwrap().contains("no space left"), "{said}");
    assert_eq!(rig.open().await, 0);
    assert!(
        rig.metric("slurmedic_alert_posts_total{source=\"alertmanager\",outcome=\"refused\"}").await >= 1.0
    );
    rig.disk.is_full(false);
    assert_eq!(feed(&rig, &auth, &post).await.0, 200);
    assert_eq!(rig.open().await, 1);
}

fn fast() -> std::collections::BTreeMap<String, SourceConfig> {
    let config = SourceConfig { posts_per_second: Some(1_000), ..SourceConfig::default() };
    [("alertmanager".to_owned(), config)].into()
}
