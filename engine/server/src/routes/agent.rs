//! Agents of nodes: they fetch signed orders and hand results over. Whoever asks is known by the key of their node, and
//! reaches nothing but the mailbox of that node.

use super::{push, read_json};
use crate::alerts::NotTaken;
use crate::certificate;
use crate::crowd::{Place, Room};
use crate::documents::AlertsTaken;
use crate::happening::Happening;
use crate::peer::Peer;
use crate::problem::{Problem, ProblemKind};
use crate::server::Server;
use crate::sources::native;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::{Extension, Json};
use engine_core::model::NodeName;
use engine_runtime::orders::{Answered, Fetched, Mailbox, RequestMark};
use engine_runtime::ports::WorkResult;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Longest time for which a fetch is held open.
const MAX_HOLD: u64 = 30;
/// The largest result, in bytes: a bundle of evidence as text.
const MAX_ANSWER: usize = 33 << 20;
/// The largest report of a hook, in bytes.
const MAX_REPORT: usize = 512 << 10;
/// Time for the body of a request.
const MAX_ARRIVING: Duration = Duration::from_secs(60);
/// Length of a complaint that goes to the log.
const MAX_WHY: usize = 300;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FetchBody {
    wait_s: u64,
    release: String,
}

/// The next order, if there is one.
#[derive(Debug, Serialize)]
pub(super) struct Next {
    order: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerBody {
    order: String,
    result: WorkResult,
}

/// What became of an answer.
#[derive(Debug, Serialize)]
pub(super) struct Heard {
    heard: &'static str,
}

/// Makes sure that a certificate of the node was shown, where the site demands one.
pub(super) fn shows_certificate(server: &Server, peer: &Peer, node: &NodeName) -> Result<(), Problem> {
    if let Some(domains) = &server.parts().node_certificates {
        let Peer::Net { certificate: Some(names), .. } = peer else {
            let why = "agents show a certificate here: set agent.certificate and agent.certificate_key";
            return Err(server.refused(peer, format!("{node} shows none: {why}")));
        };
        if !certificate::is_for(names, node.as_str(), domains) {
            let why = "the certificate is another node's: give each node its own, and its domain in server.client_domains";
            return Err(server.refused(peer, format!("{why} ({node})")));
        }
    }
    Ok(())
}

/// Finds out which node asks, and reads the body that its signature is over.
async fn node_of(
    server: &Server,
    (peer, place): (&Peer, &Place),
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<(Arc<Mailbox>, NodeName, Vec<u8>), Problem> {
    let Some(mailbox) = server.parts().orders.clone() else {
        return Err(Problem::new(ProblemKind::NotFound, "this engine has no agents: set agents.secret"));
    };
    server.may_try(peer)?;
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let named = (
        header("x-slurmedic-node"),
        header("x-slurmedic-at"),
        header("x-slurmedic-nonce"),
        header("x-slurmedic-signature"),
    );
    let (Some(name), Some(at), Some(nonce), Some(tag)) = named else {
        return Err(server.refused(peer, "the request is not signed by a node"));
    };
    let Ok(node) = NodeName::new(name) else {
        return Err(server.refused(peer, "this is no name of a node"));
    };
    shows_certificate(server, peer, &node)?;
    if nonce.is_empty() || nonce.len() > 64 {
        return Err(server.refused(peer, "the nonce has 1 to 64 characters"));
    }
    // Nobody knows yet who sends this.
    let read = tokio::time::timeout(MAX_ARRIVING, server.body(headers, body, limit)).await;
    let body = read.map_err(|_| Problem::new(ProblemKind::Busy, "the body did not come in time"))??;
    let mark = RequestMark { node: name, path: uri.path(), at, nonce, body: &body };
    mailbox
        .admit(&node, mark, tag, server.now())
        .map_err(|why| server.refused(peer, format!("the request of {node}: {why}")))?;
    place.settle(Room::Agents, node.as_str()).map_err(|full| {
        server.parts().telemetry.tell(&Happening::TurnedAway { face: "net", who: node.to_string() });
        Problem::new(ProblemKind::Busy, format!("agents: {full}"))
            .with_hint("server.max_agent_connections bounds them, and LimitNOFILE of the engine's unit")
    })?;
    Ok((mailbox, node, body))
}

/// Hands the next order out.
pub(super) async fn fetch(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    Extension(place): Extension<Arc<Place>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Next>, Problem> {
    let limit = server.limits().body_bytes;
    let (mailbox, node, body) = node_of(&server, (&peer, &place), &uri, &headers, body, limit).await?;
    let asked: FetchBody = read_json(&body)?;
    tracing::trace!(%node, release = asked.release.chars().take(40).collect::<String>(), "an agent asks");
    let wait = Duration::from_secs(asked.wait_s.min(MAX_HOLD));
    let clock = Arc::clone(&server);
    let fetched = mailbox.fetch(&node, wait, move || clock.now()).await;
    let order = match fetched.map_err(|e| Problem::failed("the order could not be signed", &e))? {
        Fetched::Order(text) => Some(text),
        Fetched::Nothing => None,
    };
    Ok(Json(Next { order }))
}

/// Takes a result.
pub(super) async fn answer(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    Extension(place): Extension<Arc<Place>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Heard>, Problem> {
    let (mailbox, node, body) = node_of(&server, (&peer, &place), &uri, &headers, body, MAX_ANSWER).await?;
    let answer: AnswerBody = read_json(&body)?;
    drop(body);
    let telemetry = &server.parts().telemetry;
    if answer.order.is_empty() {
        let why = match answer.result {
            WorkResult::Refused(why) | WorkResult::Ambiguous(why) => why.chars().take(MAX_WHY).collect(),
            _ => "something that is no order".to_owned(),
        };
        telemetry.tell(&Happening::OrderRefused { node: node.to_string(), why });
        return Ok(Json(Heard { heard: "noted" }));
    }
    let heard = match mailbox.answer(&node, &answer.order, answer.result) {
        Answered::Taken => "taken",
        Answered::Late => "late",
    };
    telemetry.tell(&Happening::OrderAnswered {
        node: node.to_string(),
        order: answer.order.chars().take(MAX_WHY).collect(),
        heard,
    });
    Ok(Json(Heard { heard }))
}

/// Takes what the hook of a node had to tell. A node tells about itself only.
pub(super) async fn alerts(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    Extension(place): Extension<Arc<Place>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<AlertsTaken>, Problem> {
    let (_, node, body) = node_of(&server, (&peer, &place), &uri, &headers, body, MAX_REPORT).await?;
    let read = native::read(&body, "hook", server.now()).map(|gathered| {
        let own = |alert: engine_core::incident::Alert| {
            if alert.node == node {
                return Ok(alert);
            }
            Err(NotTaken::new("not_its_node", format!("the agent of {node} tells about {node} only")))
        };
        gathered.into_iter().map(|entry| entry.and_then(own)).collect()
    });
    push::take(server, "agent".to_owned(), read).await
}
