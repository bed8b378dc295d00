//! For machines that watch the engine: health, readiness, metrics.

use crate::caller::{Caller, TokenScope};
use crate::exposition::Form;
use crate::peer::Peer;
use crate::problem::Problem;
use crate::server::Server;
use crate::snapshot;
use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine_core::policy::Deed;
use std::sync::Arc;

/// The process lives and answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Every part is well. Without a proof of who asks it says which, and not why.
pub(super) async fn readyz(State(server): State<Arc<Server>>, Extension(peer): Extension<Peer>) -> Response {
    let mut report = server.parts().health.report().await;
    if matches!(peer, Peer::Net { .. }) {
        for part in [&mut report.dispatcher, &mut report.journal, &mut report.slurm] {
            if let Err(why) = part {
                *why = "not well: the engine's log says why".to_owned();
            }
        }
    }
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

/// Metrics, for whoever may look or has a token for them.
pub(super) async fn metrics(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let open = server.parts().open_metrics && matches!(peer, Peer::Net { .. });
    if !open {
        let caller: Caller = server.caller(&peer, &headers).await?;
        if !caller.has_scope(TokenScope::Metrics) || matches!(peer, Peer::Socket { .. }) {
            server.parts().authority.get().permit(&caller, Deed::View)?;
        }
    }
    let form = Form::of(headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()));
    let text = snapshot::text(&server, form).await;
    Ok(([(header::CONTENT_TYPE, form.content_type())], text).into_response())
}
