//! The routes, and what every request goes through: a deadline, and a word to log and metrics.

mod act;
mod agent;
mod enrol;
mod look;
mod ops;
mod push;

use crate::crowd::{Place, Room};
use crate::happening::Happening;
use crate::peer::Peer;
use crate::problem::{Problem, ProblemKind};
use crate::server::Server;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::de::DeserializeOwned;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

/// Builds them.
pub(crate) fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
        .route("/api/v1/about", get(look::about))
        .route("/api/v1/runs", get(look::runs).post(act::run))
        .route("/api/v1/runs/{run}", get(look::show))
        .route("/api/v1/runs/{run}/approve", post(act::approve))
        .route("/api/v1/runs/{run}/deny", post(act::deny))
        .route("/api/v1/runs/{run}/cancel", post(act::cancel))
        .route("/api/v1/runs/{run}/ticket", post(act::ticket))
        .route("/api/v1/approvals", post(act::by_ticket))
        .route("/api/v1/nodes/{node}", get(look::why))
        .route("/api/v1/incidents", get(look::incidents))
        .route("/api/v1/incidents/{incident}/close", post(act::close))
        .route("/api/v1/breaker", get(look::stops))
        .route("/api/v1/breaker/pause", post(act::pause))
        .route("/api/v1/breaker/reset", post(act::reset))
        .route("/api/v1/breaker/wrong", post(act::wrong))
        .route("/api/v1/alerts", post(push::native))
        .route("/api/v1/alerts/{source}", post(push::source))
        .route("/agent/v1/fetch", post(agent::fetch))
        .route("/agent/v1/answer", post(agent::answer))
        .route("/agent/v1/alerts", post(agent::alerts))
        .route("/agent/v1/key", post(enrol::key))
        .fallback(nothing)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&server), through))
        .with_state(server)
}

async fn nothing() -> Problem {
    Problem::new(ProblemKind::NotFound, "there is nothing at this path")
        .with_hint("docs/guide/server.md lists the paths")
}

async fn wrong_method() -> Response {
    let problem =
        Problem::usage("this path is not for this method").with_hint("docs/guide/server.md lists the paths");
    (axum::http::StatusCode::METHOD_NOT_ALLOWED, axum::Json(problem)).into_response()
}

/// What every request goes through.
async fn through(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |p| p.as_str().to_owned());
    let method = if matches!(*request.method(), Method::GET | Method::HEAD | Method::POST) {
        request.method().to_string()
    } else {
        "other".to_owned()
    };
    let net = matches!(request.extensions().get::<Peer>(), Some(Peer::Net { .. }));
    let who = request.extensions().get::<Peer>().map_or_else(|| "nobody".to_owned(), Peer::key);
    let looks_at_slurm = route.starts_with("/api/v1/nodes") || route.starts_with("/api/v1/runs");
    let approves = route == "/api/v1/approvals";
    let limits = server.limits();
    // An agent's fetch is held open, and its evidence is large.
    let agent = route.starts_with("/agent/");
    let limit = if looks_at_slurm || approves || agent { limits.act_time } else { limits.request_time };
    let telemetry = &server.parts().telemetry;
    let face = if net { "net" } else { "socket" };
    let place = request.extensions().get::<Arc<Place>>().cloned();
    // An agent finds its room when its node is proven.
    let room = match &place {
        Some(place) if !agent => place.settle(Room::People, &who),
        _ => Ok(()),
    };
    let mut response = match room {
        Err(full) => {
            telemetry.tell(&Happening::TurnedAway { face, who: who.clone() });
            Problem::new(ProblemKind::Busy, full.to_string())
                .with_hint("try again in a while; server.max_connections bounds people and programs")
                .into_response()
        }
        Ok(()) => match tokio::time::timeout(limit, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::new(ProblemKind::Busy, format!("not answered within {} s", limit.as_secs()))
                .with_hint("what was asked for may still be done: look before you ask again")
                .into_response(),
        },
    };
    // Whoever has found no room by now leaves the door to others.
    if place.is_some_and(|p| p.is_arriving()) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(p) = response.extensions().get::<Problem>() {
        telemetry.tell(&Happening::Refused { kind: p.kind, who, why: p.error.chars().take(300).collect() });
    }
    telemetry.tell(&Happening::Answered {
        face,
        route,
        method,
        status: response.status().as_u16(),
        seconds: began.elapsed().as_secs_f64(),
    });
    response
}

/// Does something to its end, also where whoever asked goes away meanwhile.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    tokio::spawn(work).await.map_err(|e| Problem::failed("the request was interrupted", &e))?
}

/// Reads a small body as JSON; an empty one is `{}`.
fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let body = if body.iter().all(u8::is_ascii_whitespace) { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|e| {
        Problem::usage(format!("the body is not what this path takes: {e}"))
            .with_hint("docs/guide/server.md shows each")
    })
}
