//! Alerts that are pushed in.

use super::to_its_end;
use crate::alerts::{Gathered, feed};
use crate::caller::{Caller, TokenScope};
use crate::documents::AlertsTaken;
use crate::happening::Happening;
use crate::peer::Peer;
use crate::problem::{Problem, ProblemKind};
use crate::server::Server;
use crate::sources::{BadPost, Source, native as written};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use engine_core::policy::Deed;
use std::sync::Arc;

type Answer = Result<Json<AlertsTaken>, Problem>;

/// Makes sure that somebody may feed alerts: by a role that may ask for plans, or by a token for alerts.
fn may_feed(server: &Server, caller: &Caller) -> Result<(), Problem> {
    let by_token = matches!(caller.means, crate::caller::Means::Token { .. });
    if by_token && caller.has_scope(TokenScope::Alerts) {
        return Ok(());
    }
    server.parts().authority.get().permit(caller, Deed::Propose)
}

/// Alerts as our own programs write them.
pub(super) async fn native(
    State(server): State<Arc<Server>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    may_feed(&server, &caller)?;
    let body = server.body(&headers, body, server.limits().alert_bytes).await?;
    let name = caller.name.clone();
    let read = written::read(&body, &name, server.now());
    drop(body);
    take(server, "api".to_owned(), read).await
}

/// A webhook.
pub(super) async fn source(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let Some(source) = server.parts().sources.get().get(&name).cloned() else {
        return Err(Problem::new(ProblemKind::NotFound, "there is no source of this name")
            .with_hint("server.sources in the configuration names them"));
    };
    let limit = server.limits().alert_bytes;
    let header = |n: &str| headers.get(n).and_then(|v| v.to_str().ok());
    // Whoever is not known is refused before anything is read.
    let signed = match source.signing() {
        None => {
            let caller = server.caller(&peer, &headers).await.inspect_err(|p| told(&server, &source, p))?;
            may_feed(&server, &caller).inspect_err(|p| told(&server, &source, p))?;
            None
        }
        Some(signing) => {
            server.may_try(&peer)?;
            if header(&signing.header).is_none() {
                let p = server.refused(&peer, "the post is not signed");
                told(&server, &source, &p);
                return Err(p);
            }
            Some(signing)
        }
    };
    // Whoever is not known yet takes no place of the source's.
    if signed.is_none() {
        pace(&server, &source)?;
    }
    let body = server.body(&headers, body, limit).await.inspect_err(|p| told(&server, &source, p))?;
    if let Some(signing) = signed {
        let time = signing.time_header.as_deref().and_then(header);
        // Signatures are dated by the clock of this machine, as tokens are.
        let now = jiff::Timestamp::now();
        if let Err(e) = signing.check(header(&signing.header), time, &body, now) {
            let p = server.refused(&peer, e.to_string());
            told(&server, &source, &p);
            return Err(p);
        }
        pace(&server, &source)?;
    }
    let read = source.read(&body, server.now());
    drop(body);
    let answer = take(Arc::clone(&server), name, read).await?;
    source.heard(jiff::Timestamp::now());
    Ok(answer)
}

/// Takes a place for one post of a source.
fn pace(server: &Server, source: &Source) -> Result<(), Problem> {
    if source.may_post() {
        return Ok(());
    }
    let p = Problem::new(ProblemKind::Busy, "this source posts too often: send again in a few seconds");
    told(server, source, &p);
    Err(p)
}

fn told(server: &Server, source: &Source, problem: &Problem) {
    let (source, why) = (source.name.clone(), problem.error.clone());
    server.parts().telemetry.tell(&Happening::NotHeard { source, why });
}

/// Hands over what was read, and tells what became of it.
pub(super) async fn take(server: Arc<Server>, source: String, read: Result<Gathered, BadPost>) -> Answer {
    let gathered = match read {
        Ok(g) => g,
        Err(e) => {
            let why: String = e.to_string().chars().take(300).collect();
            server.parts().telemetry.tell(&Happening::NotHeard { source, why: why.clone() });
            let kind = match e {
                BadPost::TooMany(_) => ProblemKind::TooLarge,
                BadPost::Malformed { .. } => ProblemKind::Usage,
            };
            return Err(Problem::new(kind, why));
        }
    };
    to_its_end(async move {
        let telemetry = &server.parts().telemetry;
        match feed(&server.parts().intake, gathered).await {
            Ok(answered) => {
                telemetry.tell(&Happening::Heard {
                    source,
                    by_word: answered.by_word,
                    first_refused: answered.first_refused,
                });
                Ok(Json(answered.document))
            }
            Err(p) => {
                telemetry.tell(&Happening::NotHeard { source, why: p.error.clone() });
                Err(p)
            }
        }
    })
    .await
}
