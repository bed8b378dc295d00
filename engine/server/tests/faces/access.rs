//! Who gets in, and who does what.

use crate::rig::{Rig, Setup, bearer};
use engine_core::policy::{Deed, Role, may};
use engine_server::TokenScope;
use jiff::{SignedDuration, Timestamp};

/// Every route that asks for a deed, with a body that is right for it.
const ROUTES: &[(&str, &str, Deed, &str)] = &[
    ("GET", "/api/v1/runs", Deed::View, ""),
    ("GET", "/api/v1/runs/r404", Deed::View, ""),
    ("GET", "/api/v1/incidents", Deed::View, ""),
    ("GET", "/api/v1/breaker", Deed::View, ""),
    ("POST", "/api/v1/runs/r404/approve", Deed::Approve, "{}"),
    ("POST", "/api/v1/runs/r404/deny", Deed::Approve, r#"{"why": "no"}"#),
    ("POST", "/api/v1/runs/r404/ticket", Deed::Approve, "{}"),
    ("POST", "/api/v1/runs/r404/cancel", Deed::Cancel, r#"{"why": "no"}"#),
    ("POST", "/api/v1/runs", Deed::Run, r#"{"playbook": "no-such", "node": "gpu001"}"#),
    ("POST", "/api/v1/incidents/i404/close", Deed::Cancel, r#"{"why": "done"}"#),
    ("POST", "/api/v1/breaker/pause", Deed::Pause, r#"{"why": "test"}"#),
    ("POST", "/api/v1/breaker/wrong", Deed::Pause, r#"{"run": "r404", "why": "test"}"#),
    ("POST", "/api/v1/breaker/reset", Deed::BreakerReset, r#"{"why": "test", "queued": "drop"}"#),
    ("POST", "/api/v1/alerts", Deed::Propose, r#"{"node": "gpu001", "fault": "x"}"#),
];

async fn ask(rig: &Rig, method: &str, path: &str, token: &str, body: &'static str) -> u16 {
    let auth = bearer(token);
    let headers = [("authorization", auth.as_str())];
    if method == "GET" { rig.get(path, &headers).await.0 } else { rig.post(path, &headers, body).await.0 }
}

#[tokio::test]
async fn each_role_on_each_verb_is_what_the_table_says() {
    let rig = Rig::start(Setup { ticket_key: Some(vec![7; 32]), ..Setup::default() }).await;
    let people =
        [(Role::Viewer, "vera"), (Role::Operator, "olga"), (Role::Approver, "ada"), (Role::Admin, "root")];
    for (role, person) in people {
        let token = rig.token(&format!("{person}-t"), role, Some(person), &[TokenScope::Api]);
        for (method, path, deed, body) in ROUTES {
            let status = ask(&rig, method, path, &token, body).await;
            assert_eq!(status != 403, may(role, *deed), "{person} {method} {path}: {status}");
            assert!(matches!(status, 200 | 403 | 404 | 409), "{person} {method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn a_programs_token_never_says_yes_and_a_token_for_alerts_feeds_only() {
    let rig = Rig::start(Setup::default()).await;
    let bot = rig.token("bot", Role::Admin, None, &[TokenScope::Api]);
    let feeder = rig.feeder();
    let scraper = rig.token("scraper", Role::Viewer, None, &[TokenScope::Metrics]);
    for (method, path, deed, body) in ROUTES {
        let status = ask(&rig, method, path, &bot, body).await;
        assert_eq!(status == 403, *deed == Deed::Approve, "bot {path}: {status}");
        let status = ask(&rig, method, path, &feeder, body).await;
        assert_eq!(status == 200, *deed == Deed::Propose, "feeder {path}: {status}");
        assert_eq!(ask(&rig, method, path, &scraper, body).await, 403, "scraper {path}");
    }
    assert_eq!(ask(&rig, "GET", "/metrics", &scraper, "").await, 200);
    assert_eq!(ask(&rig, "GET", "/metrics", &feeder, "").await, 403);
    assert_eq!(rig.get("/metrics", &[]).await.0, 401);
    assert_eq!(rig.get("/healthz", &[]).await, (200, "ok\n".to_owned()));
}

#[tokio::test]
async fn a_token_that_is_unknown_expired_or_revoked_is_refused() {
    let rig = Rig::start(Setup::default()).await;
    let good = rig.token("good", Role::Viewer, Some("vera"), &[TokenScope::Api]);
    let late = Timestamp::now() - SignedDuration::from_secs(1);
    let old = rig.token_until("old", Role::Viewer, Some("vera"), &[TokenScope::Api], late);
    assert_eq!(ask(&rig, "GET", "/api/v1/runs", &good, "").await, 200);
    assert_eq!(ask(&rig, "GET", "/api/v1/runs", &old, "").await, 401);
    assert_eq!(ask(&rig, "GET", "/api/v1/runs", &format!("{good}0"), "").await, 401);
    rig.revoke("good");
    assert_eq!(ask(&rig, "GET", "/api/v1/runs", &good, "").await, 401, "at once");
    for header in [("authorization", "Basic YTpi"), ("authorization", "Bearer"), ("x-token", "a")] {
        assert_eq!(rig.get("/api/v1/runs", &[header]).await.0, 401, "{header:?}");
    }
}

#[tokio::test]
async fn guessing_is_slowed_down_for_whoever_guesses_only() {
    let rig = Rig::start(Setup::default()).await;
    let good = rig.token("good", Role::Viewer, Some("vera"), &[TokenScope::Api]);
    let mut seen = Vec::new();
    for i in 0..15 {
        seen.push(ask(&rig, "GET", "/api/v1/runs", &format!("guess{i}"), "").await);
    }
    assert_eq!(seen.iter().filter(|s| **s == 401).count(), 10, "{seen:?}");
    assert_eq!(seen.iter().filter(|s| **s == 429).count(), 5, "{seen:?}");
    assert_eq!(ask(&rig, "GET", "/api/v1/runs", &good, "").await, 429, "the address waits");
    let socket = reqwest::Client::builder().unix_socket(rig.socket.clone()).build().unwrap();
    assert_eq!(socket.get("http://e/api/v1/runs").send().await.unwrap().status(), 200, "others do not");
    assert!(rig.metric("slurmedic_refused_requests_total{kind=\"too_often\"}").await >= 5.0);
}

#[tokio::test]
async fn the_socket_names_its_peer_and_hears_root_only_on_behalf_of_others() {
    let rig = Rig::start(Setup::default()).await;
    let client = reqwest::Client::builder().unix_socket(rig.socket.clone()).build().unwrap();
    let about = |person: Option<&'static str>| {
        let mut r = client.get("http://e/api/v1/about");
        if let Some(p) = person {
            r = r.header("slurmedic-person", p);
        }
        async move { r.send().await.unwrap().json::<engine_server::About>().await.unwrap() }
    };
    let uid = nix::unistd::geteuid();
    let own = nix::unistd::User::from_uid(uid).unwrap().map_or(format!("uid {uid}"), |u| u.name);
    let me = about(None).await;
    assert_eq!((me.you.clone(), me.known_by.clone()), (own.clone(), format!("uid {uid}")));
    let as_ada = about(Some("ada")).await;
    if uid.is_root() {
        assert_eq!(as_ada.you, "ada");
        assert!(as_ada.may.contains(&"approve".to_owned()) && !as_ada.may.contains(&"policy".to_owned()));
    } else {
        assert_eq!(as_ada.you, own, "nobody but root speaks for others");
    }
}

#[tokio::test]
async fn a_forged_ticket_is_refused_and_slowed_down() {
    let rig = Rig::start(Setup { ticket_key: Some(vec![7; 32]), ..Setup::default() }).await;
    let mut seen = Vec::new();
    for i in 0..12 {
        let body = format!(r#"{{"ticket": "{i:02}.00"}}"#);
        seen.push(rig.post("/api/v1/approvals", &[], body).await.0);
    }
    assert_eq!(seen[..10], [401; 10]);
    assert_eq!(seen[10..], [429; 2]);
}
