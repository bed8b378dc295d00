//! The key of a node, for an agent that proves that it is the node: by a credential of munge, or by its certificate.

use super::agent::shows_certificate;
use super::read_json;
use crate::happening::Happening;
use crate::peer::Peer;
use crate::problem::{Problem, ProblemKind};
use crate::server::Server;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use engine_core::model::NodeName;
use engine_runtime::orders::NotEnrolled;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyBody {
    node: String,
    /// Tells one asking agent from another; with a credential it is sealed in there.
    nonce: Option<String>,
    credential: Option<String>,
}

/// The key, sealed where it was asked for by a credential.
#[derive(Debug, Serialize)]
pub(super) struct Given {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
}

/// Hands the key of a node out.
pub(super) async fn key(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Given>, Problem> {
    let Some(enrolment) = server.parts().enrolment.clone() else {
        let hint = "`slurmedic agent key NODE` on the engine's host prints a key; agents.enrol lets nodes ask for theirs";
        return Err(Problem::new(ProblemKind::NotFound, "this engine hands no keys to nodes").with_hint(hint));
    };
    server.may_try(&peer)?;
    let body = server.body(&headers, body, server.limits().body_bytes).await?;
    let asked: KeyBody = read_json(&body)?;
    let Ok(node) = NodeName::new(&asked.node) else {
        return Err(server.refused(&peer, "this is no name of a node"));
    };
    shows_certificate(&server, &peer, &node)?;
    let now = jiff::Timestamp::now();
    let (by, given) = match (asked.credential, asked.nonce) {
        (Some(credential), None) => {
            let sealed = enrolment.by_credential(&node, &credential, now).await;
            ("munge", sealed.map(|c| Given { key: None, credential: Some(c) }))
        }
        (None, Some(nonce)) => {
            // Without a demand nobody has looked at the certificate.
            if server.parts().node_certificates.is_none() {
                return Err(server.refused(&peer, "no certificates are asked for here: set server.client_ca"));
            }
            let key = enrolment.by_certificate(&node, &nonce, now);
            ("certificate", key.map(|k| Given { key: Some(k.reveal()), credential: None }))
        }
        _ => return Err(Problem::usage("give a credential or a nonce")),
    };
    match given {
        Ok(given) => {
            server.parts().telemetry.tell(&Happening::KeyHandedOut { node: node.to_string(), by });
            Ok(Json(given))
        }
        Err(e @ NotEnrolled::NotProven(_)) => Err(server.refused(&peer, format!("no key for {node}: {e}"))),
        Err(e @ NotEnrolled::Before { .. }) => {
            server.parts().telemetry.tell(&Happening::KeyRefused { node: node.to_string(), by });
            // Counts as a refused attempt: who asks for the key of another must not be able to ask on and on.
            let _ = server.refused(&peer, "");
            Err(Problem::new(ProblemKind::Conflict, e.to_string())
                .with_hint("is this really the node? nodes without a disk need agents.enrol_again = true"))
        }
        Err(e) => Err(Problem::failed("the key was not handed out", &e)),
    }
}
