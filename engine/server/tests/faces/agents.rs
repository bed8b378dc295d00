//! Agents of nodes at the faces: thousands of them beside people, and certificates.

use crate::rig::{Rig, Setup, bearer};
use engine_core::model::NodeName;
use engine_core::policy::Role;
use engine_runtime::orders::{EnrolRules, Enrolment, Mailbox, NodeKey, OrderMaster, RequestMark};
use engine_server::{Limits, Listen, TlsFiles, TokenScope, open_files};
use jiff::Timestamp;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const FETCH: &str = "/agent/v1/fetch";

fn master() -> OrderMaster {
    OrderMaster::new(vec![5; 32]).unwrap()
}

fn mailbox() -> Arc<Mailbox> {
    Arc::new(Mailbox::new(master()))
}

fn key_of(name: &str) -> NodeKey {
    master().key_of(&NodeName::new(name).unwrap()).unwrap()
}

/// The headers of a request that this node signs.
fn signed(name: &str, key: &NodeKey, body: &str) -> [(&'static str, String); 4] {
    let (at, nonce) = (Timestamp::now().to_string(), engine_server::random_hex(8).unwrap());
    let mark = RequestMark { node: name, path: FETCH, at: &at, nonce: &nonce, body: body.as_bytes() };
    let tag = key.mark(mark).unwrap();
    let node = name.to_owned();
    [
        ("x-slurmedic-node", node),
        ("x-slurmedic-at", at),
        ("x-slurmedic-nonce", nonce),
        ("x-slurmedic-signature", tag),
    ]
}

fn fetch(name: &str, key: &NodeKey, wait_s: u64) -> String {
    let body = format!(r#"{{"wait_s":{wait_s},"release":"test"}}"#);
    let headers = signed(name, key, &body).map(|(k, v)| format!("{k}: {v}\r\n")).concat();
    let length = body.len();
    format!("POST {FETCH} HTTP/1.1\r\nhost: e\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

/// Asks for orders over a connection of its own, and keeps it.
async fn ask(rig: &Rig, name: &str, key: &NodeKey, wait_s: u64) -> TcpStream {
    let at = rig.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(fetch(name, key, wait_s).as_bytes()).await.unwrap();
    stream
}

async fn status_of(stream: &mut TcpStream) -> String {
    let mut head = vec![0; 12];
    stream.read_exact(&mut head).await.unwrap();
    String::from_utf8(head).unwrap()
}

async fn eventually(rig: &Rig, series: &str, wanted: f64) {
    let mut seen = f64::NAN;
    for _ in 0..200 {
        seen = rig.metric(series).await;
        if (seen - wanted).abs() < 0.5 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{series} is {seen}, not {wanted}");
}

fn rig_of(limits: Limits) -> Setup {
    Setup { limits: Some(limits), orders: Some(mailbox()), ..Setup::default() }
}

const HELD: &str = "slurmedic_connections{face=\"net\",of=\"agents\"}";

#[tokio::test(flavor = "multi_thread")]
async fn three_thousand_agents_that_wait_lock_nobody_out() {
    const AGENTS: usize = 3_000;
    // Both ends of each connection are in this process.
    let files = open_files();
    assert!(
        files > 2 * AGENTS as u64 + 1_000,
        "{files} open files are too few for this test: raise `ulimit -Hn`"
    );
    let rig =
        Arc::new(Rig::start(rig_of(Limits { connections: 16, per_peer: 16, ..Limits::default() })).await);
    let token = rig.token("ada", Role::Viewer, None, &[TokenScope::Api]);
    let mut held = Vec::new();
    let before = resident();
    // As many at once as one address may have at the door.
    for first in (0..AGENTS).step_by(12) {
        let mut coming = JoinSet::new();
        for i in first..AGENTS.min(first + 12) {
            let rig = Arc::clone(&rig);
            coming.spawn(async move {
                let name = format!("n{i:05}");
                ask(&rig, &name, &key_of(&name), 30).await
            });
        }
        held.extend(coming.join_all().await);
        eventually(&rig, HELD, held.len() as f64).await;
    }
    let each = resident().saturating_sub(before) / AGENTS as u64;
    println!("{AGENTS} agents wait; {each} bytes of memory for both ends of each");
    // 16 places for people are all free: 16 times more than people need one by one, and at the same time.
    let mut people = JoinSet::new();
    for _ in 0..8 {
        let (rig, token) = (Arc::clone(&rig), token.clone());
        people.spawn(async move { rig.get("/api/v1/runs", &[("authorization", &bearer(&token))]).await.0 });
    }
    assert_eq!(people.join_all().await, [200; 8]);
    assert!(rig.metric("slurmedic_agents{state=\"heard\"}").await >= AGENTS as f64);
    drop(held);
    eventually(&rig, HELD, 0.0).await;
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn agents_beyond_the_bound_hear_why_and_one_node_has_few_places() {
    let rig = Rig::start(rig_of(Limits { agent_connections: 9, ..Limits::default() })).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(ask(&rig, "gpu001", &key_of("gpu001"), 30).await);
    }
    eventually(&rig, HELD, 8.0).await;
    let mut ninth = ask(&rig, "gpu001", &key_of("gpu001"), 30).await;
    assert_eq!(status_of(&mut ninth).await, "HTTP/1.1 503", "eight of one node");
    held.push(ask(&rig, "gpu002", &key_of("gpu002"), 30).await);
    eventually(&rig, HELD, 9.0).await;
    let mut tenth = ask(&rig, "gpu003", &key_of("gpu003"), 30).await;
    let mut text = String::new();
    tenth.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("max_agent_connections"), "{text}");
    assert!(text.contains("connection: close") && text.contains("retry-after"), "{text}");
    assert!(rig.metric("slurmedic_connections_turned_away_total{face=\"net\"}").await >= 2.0);
    // A place that is free again is given again.
    drop(held);
    eventually(&rig, HELD, 0.0).await;
    let mut again = ask(&rig, "gpu003", &key_of("gpu003"), 0).await;
    assert_eq!(status_of(&mut again).await, "HTTP/1.1 200");
}

#[tokio::test]
async fn whoever_only_says_that_it_is_an_agent_gets_no_place_of_an_agent() {
    let rig = Rig::start(rig_of(Limits::default())).await;
    let mut forged = ask(&rig, "gpu001", &key_of("gpu002"), 30).await;
    let mut text = String::new();
    forged.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 401") && text.contains("connection: close"), "{text}");
    eventually(&rig, HELD, 0.0).await;
    eventually(&rig, "slurmedic_connections{face=\"net\",of=\"arriving\"}", 0.0).await;
}

fn tls(name: &str) -> PathBuf {
    format!("{}/../../fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR")).into()
}

/// A client that believes the engine, and shows this certificate.
fn client(shows: Option<&str>) -> reqwest::Client {
    let ours = reqwest::Certificate::from_pem(&std::fs::read(tls("cert.pem")).unwrap()).unwrap();
    let mut builder = reqwest::Client::builder().no_proxy().tls_certs_only([ours]);
    if let Some(name) = shows {
        let mut pem = std::fs::read(tls(&format!("{name}.pem"))).unwrap();
        pem.extend(std::fs::read(tls(&format!("{name}.key.pem"))).unwrap());
        builder = builder.identity(reqwest::Identity::from_pem(&pem).unwrap());
    }
    builder.build().unwrap()
}

/// Asks for orders as a node with a certificate; the status, or none where TLS itself refuses.
async fn ask_with(rig: &Rig, shows: Option<&str>, name: &str) -> Option<u16> {
    let body = r#"{"wait_s":0,"release":"test"}"#;
    let mut request = client(shows).post(format!("{}{FETCH}", rig.url)).body(body);
    for (header, value) in signed(name, &key_of(name), body) {
        request = request.header(header, value);
    }
    request.send().await.ok().map(|r| r.status().as_u16())
}

async fn demanding(crl: bool, refusals: u16) -> Rig {
    let files = TlsFiles {
        certificate: tls("cert.pem"),
        key: tls("key.pem"),
        client_ca: Some(tls("nodes-ca.pem")),
        client_crl: crl.then(|| tls("nodes.crl.pem")),
    };
    let listen = Listen::Tls { at: "127.0.0.1:0".parse().unwrap(), files };
    let domains = vec!["cluster.example.org".to_owned()];
    let limits = Limits { refusals, ..Limits::default() };
    let records = tempfile::tempdir().unwrap().path().join("enrolled");
    let rules = EnrolRules { by_certificate: true, records, ..EnrolRules::default() };
    let enrolment = Some(Arc::new(Enrolment::new(master(), rules, None)));
    let node_certificates = Some(domains);
    Rig::start(Setup { listen: Some(listen), node_certificates, enrolment, ..rig_of(limits) }).await
}

#[tokio::test]
async fn a_certificate_counts_for_its_own_node_only() {
    let rig = demanding(true, 100).await;
    for (shows, name, wanted) in [
        (Some("gpu001"), "gpu001", Some(200)),
        (Some("gpu002-host"), "gpu002", Some(200)),
        (Some("gpu003-cn"), "gpu003", Some(200)),
        // The key of the node alone is not enough, nor is the certificate of another.
        (None, "gpu001", Some(401)),
        (Some("gpu001"), "gpu002", Some(401)),
        (Some("gpu001"), "somebody", Some(401)),
        // A common name beside DNS names does not count, and a wildcard is no node.
        (Some("gpu002-host"), "gpu003", Some(401)),
        (Some("wildcard"), "gpu001", Some(401)),
        // Of another CA, too old, or revoked.
        (Some("stranger"), "gpu001", None),
        (Some("expired"), "gpu001", None),
        (Some("revoked"), "gpu001", None),
    ] {
        assert_eq!(ask_with(&rig, shows, name).await, wanted, "{shows:?} as {name}");
    }
    // The certificate without the key of the node.
    let body = r#"{"wait_s":0,"release":"test"}"#;
    let mut request = client(Some("gpu001")).post(format!("{}{FETCH}", rig.url)).body(body);
    for (header, value) in signed("gpu001", &key_of("gpu002"), body) {
        request = request.header(header, value);
    }
    assert_eq!(request.send().await.unwrap().status(), 401);
    // People show none.
    assert_eq!(client(None).get(format!("{}/healthz", rig.url)).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn without_a_list_of_revoked_ones_every_certificate_of_the_ca_counts() {
    let rig = demanding(false, 100).await;
    assert_eq!(ask_with(&rig, Some("revoked"), "gpu001").await, Some(200));
    assert_eq!(ask_with(&rig, Some("stranger"), "gpu001").await, None);
    let broken = TlsFiles {
        certificate: tls("cert.pem"),
        key: tls("key.pem"),
        client_ca: Some(tls("key.pem")),
        client_crl: None,
    };
    assert!(engine_server::TlsNow::read(&broken).is_err(), "a key is no CA");
    let broken =
        TlsFiles { client_ca: Some(tls("nodes-ca.pem")), client_crl: Some(tls("cert.pem")), ..broken };
    assert!(engine_server::TlsNow::read(&broken).is_err(), "a certificate is no list");
}

#[tokio::test]
async fn a_node_gets_its_key_by_its_certificate_once() {
    let rig = demanding(true, 100).await;
    let ask = async |shows: Option<&str>, name: &str, nonce: &str| {
        let body = serde_json::json!({ "node": name, "nonce": nonce }).to_string();
        let reply = client(shows).post(format!("{}/agent/v1/key", rig.url)).body(body).send().await.unwrap();
        (reply.status().as_u16(), reply.json::<serde_json::Value>().await.unwrap())
    };
    let (one, two) = ("1".repeat(32), "2".repeat(32));
    let (status, given) = ask(Some("gpu001"), "gpu001", &one).await;
    assert_eq!((status, given["key"].as_str().unwrap()), (200, key_of("gpu001").reveal().as_str()));
    assert_eq!(ask(Some("gpu001"), "gpu001", &one).await.0, 200, "the answer may have been lost");
    let (status, said) = ask(Some("gpu001"), "gpu001", &two).await;
    assert_eq!((status, said["key"].as_str()), (409, None), "{said}");
    assert!(said["error"].as_str().unwrap().contains("slurmedic agent forget gpu001"), "{said}");
    for (shows, name, nonce, wanted) in [
        (Some("gpu001"), "gpu002", one.as_str(), 401),
        (None, "gpu003", &one, 401),
        (Some("gpu003-cn"), "gpu003", "x", 401),
    ] {
        let (status, said) = ask(shows, name, nonce).await;
        assert_eq!((status, said["key"].as_str()), (wanted, None), "{shows:?} as {name}: {said}");
    }
    assert!(rig.metric("slurmedic_node_keys_total{by=\"certificate\",outcome=\"refused\"}").await >= 1.0);
    // Where nobody looks at certificates, saying a name proves nothing.
    let rules = EnrolRules { by_certificate: true, ..EnrolRules::default() };
    let enrolment = Some(Arc::new(Enrolment::new(master(), rules, None)));
    let plain = Rig::start(Setup { enrolment, ..rig_of(Limits::default()) }).await;
    let body = serde_json::json!({ "node": "gpu001", "nonce": one }).to_string();
    assert_eq!(plain.post("/agent/v1/key", &[], body).await.0, 401);
    let none = Rig::start(rig_of(Limits::default())).await;
    assert_eq!(none.post("/agent/v1/key", &[], "{}").await.0, 404);
}
