//! The node agent against an engine that may be anybody: what it carries out, what it refuses, and what it says.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may stop at once, as tests do")]

use async_trait::async_trait;
use engine_adapters::agent::{Agent, AgentConfig};
use engine_core::model::NodeName;
use engine_runtime::orders::{NodeKey, OrderMaster, SignedOrder};
use engine_runtime::ports::{ActuatorStatus, NodeActuator, Verb, WorkOrder, WorkResult};
use engine_runtime::system::SystemClock;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// An engine that hands out what it was told to, to whoever asks, and keeps what it hears.
#[derive(Debug, Default)]
struct Engine {
    orders: Mutex<VecDeque<String>>,
    heard: Mutex<Vec<Value>>,
    requests: Mutex<Vec<String>>,
    /// Answers that get no reply.
    deaf: Mutex<u32>,
}

impl Engine {
    async fn start() -> (Arc<Self>, String) {
        let me = Arc::new(Self::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = Arc::clone(&me);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let me = Arc::clone(&serving);
                tokio::spawn(async move { me.talk(stream).await });
            }
        });
        (me, url)
    }

    async fn talk(&self, mut stream: TcpStream) -> Option<()> {
        let mut buffer = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                    break at + 4;
                }
                if stream.read_buf(&mut buffer).await.ok()? == 0 {
                    return None;
                }
            };
            let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
            let length: usize =
                head.lines().find_map(|l| l.strip_prefix("content-length: "))?.trim().parse().ok()?;
            while buffer.len() < end + length {
                stream.read_buf(&mut buffer).await.ok()?;
            }
            let body: Value = serde_json::from_slice(&buffer[end..end + length]).ok()?;
            buffer.drain(..end + length);
            self.requests.lock().unwrap().push(head.clone());
            let reply = if head.starts_with("post /agent/v1/fetch ") {
                let order = self.orders.lock().unwrap().pop_front();
                if order.is_none() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                json!({ "order": order })
            } else {
                let deaf = {
                    let mut deaf = self.deaf.lock().unwrap();
                    let was = *deaf;
                    *deaf = was.saturating_sub(1);
                    was > 0
                };
                if deaf {
                    return None;
                }
                self.heard.lock().unwrap().push(body);
                json!({ "heard": "taken" })
            };
            let text = reply.to_string();
            let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
            stream.write_all(reply.as_bytes()).await.ok()?;
        }
    }

    fn give(&self, text: impl Into<String>) {
        self.orders.lock().unwrap().push_back(text.into());
    }

    async fn hears(&self, count: usize) -> Vec<Value> {
        for _ in 0..1_000 {
            let heard = self.heard.lock().unwrap().clone();
            if heard.len() >= count {
                return heard;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{count} answers were due: {:?}", self.heard.lock().unwrap());
    }
}

/// Tools that note what they were told.
#[derive(Debug, Default)]
struct Tools {
    done: Mutex<Vec<String>>,
    takes: Duration,
}

#[async_trait]
impl NodeActuator for Tools {
    async fn status(&self, _: &NodeName) -> ActuatorStatus {
        ActuatorStatus { by: "test".into(), ready: Ok(()) }
    }

    async fn perform(&self, order: &WorkOrder) -> WorkResult {
        self.done.lock().unwrap().push(order.id.clone());
        tokio::time::sleep(self.takes).await;
        WorkResult::Restored(vec![order.id.clone()])
    }
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn key_of(name: &str) -> NodeKey {
    OrderMaster::new(vec![9; 32]).unwrap().key_of(&node(name)).unwrap()
}

fn order(id: &str, name: &str) -> SignedOrder {
    let now = Timestamp::now();
    SignedOrder {
        order: WorkOrder {
            id: id.to_owned(),
            node: node(name),
            run: None,
            verb: Verb::RestoreTools,
            limit: SignedDuration::from_secs(30),
        },
        issued_at: now,
        expires_at: now + SignedDuration::from_mins(1),
    }
}

fn agent(url: &str, state: &Path, tools: &Arc<Tools>) -> Agent {
    let config = AgentConfig {
        engine: url.to_owned(),
        ca: None,
        identity: None,
        node: node("gpu001"),
        key: key_of("gpu001"),
        state: state.to_owned(),
        spool: None,
        kernel_log: None,
    };
    Agent::new(config, Arc::clone(tools) as _, Arc::new(SystemClock)).unwrap()
}

/// Runs an agent until it is aborted: that is its kill.
fn started(
    url: &str,
    state: &Path,
    tools: &Arc<Tools>,
) -> (tokio::task::JoinHandle<()>, watch::Sender<bool>) {
    let (stop, stopped) = watch::channel(false);
    let agent = agent(url, state, tools);
    (tokio::spawn(async move { agent.run(stopped).await.unwrap() }), stop)
}

#[tokio::test]
async fn an_order_is_carried_out_once_and_answered() {
    let (dir, tools) = (tempfile::tempdir().unwrap(), Arc::new(Tools::default()));
    let (engine, url) = Engine::start().await;
    let text = key_of("gpu001").sign(&order("r1/1", "gpu001")).unwrap();
    engine.give(text.clone());
    let (working, stop) = started(&url, dir.path(), &tools);
    let heard = engine.hears(1).await;
    assert_eq!(heard[0], json!({"order": "r1/1", "result": {"result": "restored", "data": ["r1/1"]}}));
    // Once more, word for word: refused, reported, and nothing said about the order itself.
    engine.give(text);
    let heard = engine.hears(2).await;
    assert_eq!(heard[1]["order"], "");
    assert!(heard[1].to_string().contains("r1/1 came a second time"), "{}", heard[1]);
    assert_eq!(*tools.done.lock().unwrap(), ["r1/1"]);
    stop.send(true).unwrap();
    working.await.unwrap();
    // Every request says for which node it is, and is signed; none has the key in it.
    let requests = engine.requests.lock().unwrap().clone();
    let revealed = key_of("gpu001").reveal();
    for head in requests {
        assert!(head.contains("x-slurmedic-node: gpu001") && head.contains("x-slurmedic-signature: "));
        assert!(!head.contains(&revealed));
    }
}

#[tokio::test]
async fn what_is_no_order_for_this_node_is_refused_and_reported() {
    let (dir, tools) = (tempfile::tempdir().unwrap(), Arc::new(Tools::default()));
    let (engine, url) = Engine::start().await;
    let key = key_of("gpu001");
    let good = key.sign(&order("good", "gpu001")).unwrap();
    let old = {
        let mut o = order("old", "gpu001");
        o.issued_at -= SignedDuration::from_mins(10);
        o.expires_at = o.issued_at + SignedDuration::from_mins(1);
        key.sign(&o).unwrap()
    };
    let ahead = {
        let mut o = order("ahead", "gpu001");
        o.issued_at += SignedDuration::from_mins(10);
        o.expires_at = o.issued_at + SignedDuration::from_mins(1);
        key.sign(&o).unwrap()
    };
    let bad = [
        ("altered", good.replace("\"good\"", "\"evil\""), "signature does not fit"),
        ("another verb", good.replace("restore_tools", "inspect"), "signature does not fit"),
        ("of another node's key", key_of("gpu002").sign(&order("x", "gpu002")).unwrap(), "signature"),
        ("for another node", key.sign(&order("x", "gpu002")).unwrap(), "another node"),
        ("expired", old, "expired"),
        ("dated ahead", ahead, "dated ahead"),
        ("no order", "rm -rf /".to_owned(), "signature does not fit"),
        ("empty", String::new(), "signature does not fit"),
    ];
    for (_, text, _) in &bad {
        engine.give(text.clone());
    }
    let (_working, _stop) = started(&url, dir.path(), &tools);
    let heard: Vec<String> = engine.hears(bad.len()).await.iter().map(Value::to_string).collect();
    assert_eq!(*tools.done.lock().unwrap(), Vec::<String>::new(), "nothing was carried out");
    for (name, _, why) in &bad {
        assert!(heard.iter().any(|h| h.contains(why)), "{name}: {heard:?}");
    }
    assert!(heard.iter().all(|h| h.contains("\"order\":\"\"")), "{heard:?}");
    // And it goes on working.
    engine.give(key.sign(&order("next", "gpu001")).unwrap());
    engine.hears(bad.len() + 1).await;
    assert_eq!(*tools.done.lock().unwrap(), ["next"]);
}

#[tokio::test]
async fn an_agent_that_died_in_the_middle_says_so_and_does_not_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let slow = Arc::new(Tools { takes: Duration::from_secs(3600), ..Tools::default() });
    let (engine, url) = Engine::start().await;
    let text = key_of("gpu001").sign(&order("r1/reset", "gpu001")).unwrap();
    engine.give(text.clone());
    let (working, _stop) = started(&url, dir.path(), &slow);
    while slow.done.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    working.abort();
    let _ = working.await;
    let tools = Arc::new(Tools::default());
    engine.give(text);
    let (_working, _stop) = started(&url, dir.path(), &tools);
    let heard = engine.hears(2).await;
    assert_eq!(
        (&heard[0]["order"], &heard[0]["result"]["result"]),
        (&json!("r1/reset"), &json!("ambiguous"))
    );
    assert!(heard[1].to_string().contains("second time"), "{}", heard[1]);
    assert_eq!(*tools.done.lock().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_result_that_did_not_arrive_is_handed_over_later() {
    let (dir, tools) = (tempfile::tempdir().unwrap(), Arc::new(Tools::default()));
    let (engine, url) = Engine::start().await;
    *engine.deaf.lock().unwrap() = 2;
    engine.give(key_of("gpu001").sign(&order("r1/1", "gpu001")).unwrap());
    let (_working, _stop) = started(&url, dir.path(), &tools);
    let heard = engine.hears(1).await;
    assert_eq!((&heard[0]["order"], &heard[0]["result"]["result"]), (&json!("r1/1"), &json!("restored")));
    assert_eq!(*tools.done.lock().unwrap(), ["r1/1"]);
}
