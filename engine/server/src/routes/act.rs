//! For whoever may decide: yes, no, stop, go on. Each is judged by the policy and goes on record with the name that the
//! kernel or the token gives.

use super::{read_json, to_its_end};
use crate::caller::Caller;
use crate::desk::Stops;
use crate::documents::{Closed, Decided, Show, Stopped, TicketIssued};
use crate::happening::Happening;
use crate::peer::Peer;
use crate::problem::{Problem, ProblemKind};
use crate::propose::Wanted;
use crate::server::Server;
use crate::ticket::TicketDesk;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use engine_core::digest::Digest;
use engine_core::incident::{QueuedWork, Scope};
use engine_core::policy::Deed;
use engine_core::value::parse_duration;
use jiff::SignedDuration;
use serde::Deserialize;
use std::sync::Arc;

type Answer<T> = Result<Json<T>, Problem>;

/// How long a ticket lives where nobody says.
const TICKET_LIFE: SignedDuration = SignedDuration::from_hours(1);

/// A request that was let in: who, what they sent, and the server.
struct Act<T> {
    server: Arc<Server>,
    caller: Caller,
    sent: T,
}

impl<T: serde::de::DeserializeOwned> Act<T> {
    /// Judges first, then reads the body.
    async fn begin(
        server: Arc<Server>,
        caller: Caller,
        deed: Deed,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Self, Problem> {
        server.parts().authority.get().permit(&caller, deed)?;
        let body = server.body(headers, body, server.limits().body_bytes).await?;
        let sent = read_json(&body)?;
        Ok(Self { server, caller, sent })
    }
}

fn tell(server: &Server, caller: &Caller, deed: &'static str, about: String) {
    let (by, known_by) = (caller.name.clone(), caller.known_by());
    server.parts().telemetry.tell(&Happening::Decided { deed, by, known_by, about });
}

/// Plans a run and puts it on record; the dispatcher goes on with it.
pub(super) async fn run(
    State(server): State<Arc<Server>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Answer<Show> {
    let act: Act<Wanted> = Act::begin(server, caller, Deed::Run, &headers, body).await?;
    to_its_end(async move {
        let parts = act.server.parts();
        let shown = parts.desk.propose(&*parts.playbooks, &act.sent, act.caller.actor()).await?;
        tell(&act.server, &act.caller, "run", shown.run.to_string());
        Ok(Json(shown))
    })
    .await
}

/// Closes an incident: a person says that it is done.
pub(super) async fn close(
    State(server): State<Arc<Server>>,
    caller: Caller,
    Path(incident): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Closed> {
    let act: Act<Because> = Act::begin(server, caller, Deed::Cancel, &headers, body).await?;
    to_its_end(async move {
        let desk = &act.server.parts().desk;
        let done = desk.close(&incident, &act.caller.actor(), act.sent.why()).await?;
        tell(&act.server, &act.caller, "close", done.incident.clone());
        Ok(Json(done))
    })
    .await
}

/// Which plan is meant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Yes {
    digest: Option<Digest>,
}

/// Says yes.
pub(super) async fn approve(
    State(server): State<Arc<Server>>,
    caller: Caller,
    Path(run): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Decided> {
    let act: Act<Yes> = Act::begin(server, caller, Deed::Approve, &headers, body).await?;
    to_its_end(async move {
        let desk = &act.server.parts().desk;
        let run = desk.find(&run).await?;
        let done = desk.approve(&run, act.caller.actor(), act.sent.digest.as_ref()).await?;
        tell(&act.server, &act.caller, "approve", run.to_string());
        Ok(Json(done))
    })
    .await
}

/// Why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Because {
    why: Option<String>,
}

impl Because {
    fn why(&self) -> &str {
        self.why.as_deref().unwrap_or("no reason given")
    }
}

/// Says no.
pub(super) async fn deny(
    State(server): State<Arc<Server>>,
    caller: Caller,
    Path(run): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Decided> {
    let act: Act<Because> = Act::begin(server, caller, Deed::Approve, &headers, body).await?;
    to_its_end(async move {
        let desk = &act.server.parts().desk;
        let run = desk.find(&run).await?;
        let done = desk.deny(&run, &act.caller.actor(), act.sent.why()).await?;
        tell(&act.server, &act.caller, "deny", run.to_string());
        Ok(Json(done))
    })
    .await
}

/// Asks a run to stop.
pub(super) async fn cancel(
    State(server): State<Arc<Server>>,
    caller: Caller,
    Path(run): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Decided> {
    let act: Act<Because> = Act::begin(server, caller, Deed::Cancel, &headers, body).await?;
    to_its_end(async move {
        let desk = &act.server.parts().desk;
        let run = desk.find(&run).await?;
        let done = desk.cancel(&run, act.caller.actor(), act.sent.why()).await?;
        tell(&act.server, &act.caller, "cancel", run.to_string());
        Ok(Json(done))
    })
    .await
}

/// Which ticket.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichTicket {
    person: Option<String>,
    expires: Option<String>,
}

/// Makes a ticket.
pub(super) async fn ticket(
    State(server): State<Arc<Server>>,
    caller: Caller,
    Path(run): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer<TicketIssued> {
    let act: Act<WhichTicket> = Act::begin(server, caller, Deed::Approve, &headers, body).await?;
    let parts = act.server.parts();
    let person = act.sent.person.clone().unwrap_or_else(|| act.caller.name.clone());
    TicketDesk::may_issue(&parts.authority.get(), &act.caller, &person)?;
    let life = match &act.sent.expires {
        None => TICKET_LIFE,
        Some(t) => parse_duration(t).map_err(|e| Problem::usage(format!("expires: {e}")))?,
    };
    let tickets = parts.tickets.get();
    let Some(tickets) = &*tickets else { return Err(no_tickets()) };
    let run = parts.desk.find(&run).await?;
    let issued = tickets.issue(&parts.desk, &run, &person, life, act.server.now()).await?;
    tell(&act.server, &act.caller, "ticket", format!("{run} for {person}"));
    Ok(Json(issued))
}

fn no_tickets() -> Problem {
    Problem::new(ProblemKind::NotFound, "this engine knows no tickets")
        .with_hint("set server.ticket_key to a file of 32 random bytes or more")
}

/// A ticket that came back.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Brought {
    ticket: String,
}

/// Takes the yes of a ticket. The ticket is the proof; nobody else needs to be known.
pub(super) async fn by_ticket(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Decided> {
    server.may_try(&peer)?;
    let body = server.body(&headers, body, server.limits().body_bytes).await?;
    let brought: Brought = read_json(&body)?;
    let tickets = server.parts().tickets.get();
    let Some(tickets) = &*tickets else { return Err(no_tickets()) };
    let authority = server.parts().authority.get();
    let ticket = match tickets.open(&authority, &brought.ticket, server.now()).await {
        Ok(t) => t,
        Err(p) if p.kind == ProblemKind::Unauthenticated => {
            let mut refused = server.refused(&peer, p.error);
            refused.hint = p.hint;
            return Err(refused);
        }
        Err(p) => return Err(p),
    };
    to_its_end(async move {
        let done = server.parts().desk.approve_by_ticket(&ticket).await?;
        server.parts().telemetry.tell(&Happening::Decided {
            deed: "approve",
            by: ticket.person.clone(),
            known_by: "ticket".to_owned(),
            about: ticket.run.to_string(),
        });
        Ok(Json(done))
    })
    .await
}

/// How much stands still, and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pause {
    #[serde(default = "fleet")]
    scope: Scope,
    why: String,
}

/// What goes on, and what becomes of the work that waited.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reset {
    #[serde(default = "fleet")]
    scope: Scope,
    why: String,
    queued: QueuedWork,
}

fn fleet() -> Scope {
    Scope::Fleet
}

/// Refuses names that no scope can have.
fn checked(scope: Scope) -> Result<Scope, Problem> {
    let plain = |t: &str| !t.is_empty() && t.len() <= 64 && !t.chars().any(char::is_control);
    match &scope {
        Scope::Partition(name) | Scope::Playbook(name) if !plain(name) => {
            Err(Problem::usage("a name has 1 to 64 plain characters"))
        }
        _ => Ok(scope),
    }
}

/// Stops a scope.
pub(super) async fn pause(
    State(server): State<Arc<Server>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Answer<Stopped> {
    let act: Act<Pause> = Act::begin(server, caller, Deed::Pause, &headers, body).await?;
    to_its_end(async move {
        let scope = checked(act.sent.scope)?;
        let desk = &act.server.parts().desk;
        let done = desk.switch(&scope, Stops::Pause, act.caller.actor(), &act.sent.why).await?;
        tell(&act.server, &act.caller, "pause", scope.to_string());
        Ok(Json(done))
    })
    .await
}

/// Lets a scope go on.
pub(super) async fn reset(
    State(server): State<Arc<Server>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Answer<Stopped> {
    let act: Act<Reset> = Act::begin(server, caller, Deed::BreakerReset, &headers, body).await?;
    to_its_end(async move {
        let scope = checked(act.sent.scope)?;
        let what = Stops::Release(act.sent.queued);
        let done = act.server.parts().desk.switch(&scope, what, act.caller.actor(), &act.sent.why).await?;
        tell(&act.server, &act.caller, "breaker_reset", scope.to_string());
        Ok(Json(done))
    })
    .await
}

/// Which run was wrong, and what was.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wrong {
    run: String,
    why: String,
}

/// Records that a run did what it should not have done.
pub(super) async fn wrong(
    State(server): State<Arc<Server>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Answer<Stopped> {
    let act: Act<Wrong> = Act::begin(server, caller, Deed::Pause, &headers, body).await?;
    to_its_end(async move {
        let desk = &act.server.parts().desk;
        let run = desk.find(&act.sent.run).await?;
        let done = desk.wrong(&run, &act.caller.actor(), &act.sent.why).await?;
        tell(&act.server, &act.caller, "breaker_wrong", run.to_string());
        Ok(Json(done))
    })
    .await
}
