//! Everything has a bound: bodies, heads, connections, time.

use crate::rig::{Rig, Setup, alertmanager, bearer};
use engine_server::{Limits, TlsFiles};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn talk(rig: &Rig, bytes: &[u8]) -> String {
    let mut s = TcpStream::connect(rig.url.strip_prefix("http://").unwrap()).await.unwrap();
    // Whoever is refused early may find the connection closed while it still writes.
    let _ = s.write_all(bytes).await;
    let mut out = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), s.read_to_end(&mut out)).await;
    String::from_utf8_lossy(&out).into_owned()
}

#[tokio::test]
async fn a_body_of_ten_megabytes_is_refused_and_the_next_request_is_served() {
    let rig = Rig::start(Setup::default()).await;
    let auth = bearer(&rig.feeder());
    let headers = [("authorization", auth.as_str())];
    let (status, said) = rig.post("/api/v1/alerts/alertmanager", &headers, vec![b'x'; 10 << 20]).await;
    assert_eq!((status, said["kind"].as_str()), (413, Some("too_large")), "{said}");
    // The same without a declared length.
    let mut chunked = format!(
        "POST /api/v1/alerts/alertmanager HTTP/1.1\r\nhost: e\r\nauthorization: {auth}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for _ in 0..10 {
        chunked.extend_from_slice(b"100000\r\n");
        chunked.resize(chunked.len() + (1 << 20), b' ');
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert!(talk(&rig, &chunked).await.starts_with("HTTP/1.1 413"));
    let good = alertmanager(&[("gpu001", "firing", rig.clock_now(), "a")]);
    assert_eq!(rig.post("/api/v1/alerts/alertmanager", &headers, good).await.0, 200);
    assert_eq!(rig.open().await, 1);
    assert!(
        rig.metric("slurmedic_alert_posts_total{source=\"alertmanager\",outcome=\"refused\"}").await >= 2.0
    );
}

#[tokio::test]
async fn heads_are_bounded_in_size_number_and_time() {
    let limits = Limits { header_time: Duration::from_millis(300), ..Limits::default() };
    let rig = Rig::start(Setup { limits: Some(limits), ..Setup::default() }).await;
    let long = format!("GET /healthz HTTP/1.1\r\nhost: e\r\nx: {}\r\n\r\n", "a".repeat(64 << 10));
    assert!(talk(&rig, long.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many: String = (0..100).map(|i| format!("x{i}: a\r\n")).collect();
    let many = format!("GET /healthz HTTP/1.1\r\nhost: e\r\n{many}\r\n");
    assert!(talk(&rig, many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let began = Instant::now();
    assert!(!talk(&rig, b"GET /healthz HTTP/1.1\r\nhost: e\r\n").await.contains("200"));
    assert!(began.elapsed() < Duration::from_secs(5), "a head that never ends is cut off");
    assert!(
        talk(&rig, b"GET /healthz HTTP/1.1\r\nhost: e\r\nconnection: close\r\n\r\n").await.contains("200 OK")
    );
}

#[tokio::test]
async fn a_body_that_never_comes_ends_at_the_deadline_of_the_request() {
    let limits = Limits { request_time: Duration::from_millis(300), ..Limits::default() };
    let rig = Rig::start(Setup { limits: Some(limits), ..Setup::default() }).await;
    let head = format!(
        "POST /api/v1/alerts HTTP/1.1\r\nhost: e\r\nauthorization: {}\r\nconnection: close\r\ncontent-length: 100\r\n\r\n{{",
        bearer(&rig.feeder())
    );
    let began = Instant::now();
    let answer = talk(&rig, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn connections_beyond_the_bound_are_turned_away_and_counted() {
    let limits = Limits { connections: 8, per_peer: 8, ..Limits::default() };
    let rig = Rig::start(Setup { limits: Some(limits), ..Setup::default() }).await;
    let at = rig.url.strip_prefix("http://").unwrap();
    let mut kept = Vec::new();
    for _ in 0..8 {
        let mut s = TcpStream::connect(at).await.unwrap();
        s.write_all(b"GET /healthz HTTP/1.1\r\nhost: e\r\n\r\n").await.unwrap();
        let mut one = [0; 12];
        s.read_exact(&mut one).await.unwrap();
        kept.push(s);
    }
    let full = talk(&rig, b"GET /healthz HTTP/1.1\r\nhost: e\r\n\r\n").await;
    assert!(full.starts_with("HTTP/1.1 503") && full.contains("connection: close"), "{full}");
    assert!(full.contains("8 connections are open") && full.contains("retry-after"), "{full}");
    assert!(rig.metric("slurmedic_connections_turned_away_total{face=\"net\"}").await >= 1.0);
    drop(kept);
    for _ in 0..100 {
        if talk(&rig, b"GET /healthz HTTP/1.1\r\nhost: e\r\nconnection: close\r\n\r\n")
            .await
            .contains("200 OK")
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the places are not free again");
}

#[tokio::test]
async fn a_source_that_posts_too_often_is_told_to_come_again() {
    let slow = engine_server::sources::SourceConfig { posts_per_second: Some(1), ..Default::default() };
    let sources = [("alertmanager".to_owned(), slow)].into();
    let rig = Rig::start(Setup { sources, ..Setup::default() }).await;
    let auth = bearer(&rig.feeder());
    let mut seen = Vec::new();
    for _ in 0..6 {
        let post = alertmanager(&[("gpu001", "firing", rig.clock_now(), "a")]);
        seen.push(rig.post("/api/v1/alerts/alertmanager", &[("authorization", &auth)], post).await.0);
    }
    assert_eq!(seen[..2], [200, 200]);
    assert!(seen.contains(&503), "a 5xx makes Alertmanager send again, a 429 does not: {seen:?}");
}

#[tokio::test]
async fn over_tls_the_same_is_served_and_plain_text_is_not() {
    let at = |name: &str| format!("{}/../../fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR")).into();
    let certificate: std::path::PathBuf = at("cert.pem");
    let listen = engine_server::Listen::Tls {
        at: "127.0.0.1:0".parse().unwrap(),
        files: TlsFiles { certificate: certificate.clone(), key: at("key.pem"), ..TlsFiles::default() },
    };
    let rig = Rig::start(Setup { listen: Some(listen), ..Setup::default() }).await;
    let pem = std::fs::read(&certificate).unwrap();
    let trusted = reqwest::Certificate::from_pem(&pem).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([trusted]).build().unwrap();
    assert!(rig.url.starts_with("https://127.0.0.1:"));
    let said = client.get(format!("{}/healthz", rig.url)).send().await.unwrap();
    assert_eq!(said.status(), 200);
    assert_eq!(client.get(format!("{}/api/v1/runs", rig.url)).send().await.unwrap().status(), 401);
    let plain = rig.url.replace("https", "http");
    assert!(client.get(format!("{plain}/healthz")).send().await.is_err());
    let stranger = reqwest::Client::builder().no_proxy().build().unwrap();
    assert!(stranger.get(format!("{}/healthz", rig.url)).send().await.is_err(), "who does not know it");
    let both = TlsFiles { certificate: at("key.pem"), key: at("key.pem"), ..TlsFiles::default() };
    let broken = engine_server::TlsNow::read(&both);
    assert!(broken.unwrap_err().to_string().contains("certificate"));
}
