//! The server: what the faces share, and how a request becomes a caller.

use crate::authority::Authority;
use crate::caller::Caller;
use crate::crowd::Crowd;
use crate::current::{Current, PlaybooksNow};
use crate::desk::Desk;
use crate::happening::{Happening, Telemetry};
use crate::health::Health;
use crate::limits::{Pace, Senders};
use crate::listen::{Bound, accept};
use crate::peer::{PERSON_HEADER, Peer, caller_of_socket};
use crate::problem::{Problem, ProblemKind};
use crate::settings::Limits;
use crate::sources::Source;
use crate::ticket::TicketDesk;
use crate::token::TokenStore;
use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::FromRequestParts;
use axum::http::request;
use axum::http::{HeaderMap, header};
use engine_core::policy::{Fleet, Policy};
use engine_runtime::fleet::Intake;
use engine_runtime::orders::{Enrolment, Mailbox};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Bytes of a body for which one piece of room is taken.
const ROOM: usize = 64 << 10;
/// How long a body waits for room.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// The sources by name.
pub type SourceTable = BTreeMap<String, Arc<Source>>;

/// What is served. Handed over by whoever puts the engine together.
#[derive(Debug)]
pub struct Parts {
    /// What people ask for.
    pub desk: Desk,
    /// Alerts in.
    pub intake: Arc<Intake>,
    /// How the engine is.
    pub health: Arc<Health>,
    /// What happens.
    pub telemetry: Telemetry,
    /// Who may do what.
    pub authority: Arc<Current<Authority>>,
    /// The policy, for its budgets.
    pub policy: Arc<Current<Policy>>,
    /// Tokens, where the site has any.
    pub tokens: Option<Arc<TokenStore>>,
    /// Tickets, where the site has a key.
    pub tickets: Arc<Current<Option<TicketDesk>>>,
    /// The playbooks in force.
    pub playbooks: Arc<PlaybooksNow>,
    /// Orders for nodes with agents, where the site has any.
    pub orders: Option<Arc<Mailbox>>,
    /// Keys for nodes that prove themselves, where the site hands them out.
    pub enrolment: Option<Arc<Enrolment>>,
    /// Domains of nodes whose agents must show a certificate; `None` where they show none.
    pub node_certificates: Option<Vec<String>>,
    /// Sources of alerts.
    pub sources: Arc<Current<SourceTable>>,
    /// Whether `/metrics` is for everybody who reaches the listener.
    pub open_metrics: bool,
    /// Bounds.
    pub limits: Limits,
    /// Path of the journal; `None` for one in memory.
    pub journal: Option<String>,
    /// Whether the cluster is the simulated one.
    pub simulated: bool,
    /// The last look at the whole cluster.
    pub look: Mutex<Option<Fleet>>,
}

impl Parts {
    /// The whole cluster was read.
    pub fn looked(&self, fleet: Fleet) {
        self.health.slurm_answered();
        self.telemetry.tell(&Happening::ClusterRead { nodes: fleet.nodes().len() });
        *self.look.lock().unwrap_or_else(PoisonError::into_inner) = Some(fleet);
    }

    pub(crate) fn last_look(&self) -> Option<Fleet> {
        self.look.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The server.
#[derive(Debug)]
pub struct Server {
    parts: Parts,
    refusals: Senders,
    bodies: Arc<Semaphore>,
    socket: Arc<Crowd>,
    net: Arc<Crowd>,
}

/// Serves on every face until `stop` turns true.
pub async fn serve(server: &Arc<Server>, faces: Vec<Bound>, stop: watch::Receiver<bool>) {
    let mut all = tokio::task::JoinSet::new();
    for bound in faces {
        server.parts.telemetry.tell(&Happening::Serving { at: bound.place() });
        all.spawn(accept(bound, Arc::clone(server), stop.clone()));
    }
    while all.join_next().await.is_some() {}
}

impl Server {
    /// Builds the server.
    pub fn new(parts: Parts) -> Arc<Self> {
        let refusals = f64::from(parts.limits.refusals);
        let refusals = Senders::new(Pace { size: refusals, per_second: refusals / 60.0 });
        let bodies = Arc::new(Semaphore::new(parts.limits.body_memory.div_ceil(ROOM)));
        let l = &parts.limits;
        let crowd = || Crowd::new(l.connections, l.per_peer, l.agent_connections);
        let (socket, net) = (crowd(), crowd());
        Arc::new(Self { parts, refusals, bodies, socket, net })
    }

    /// Returns what is served.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.parts.limits
    }

    /// Returns who is connected to a face.
    pub(crate) fn crowd(&self, net: bool) -> &Arc<Crowd> {
        if net { &self.net } else { &self.socket }
    }

    /// Returns the routes.
    pub fn router(self: &Arc<Self>) -> Router {
        crate::routes::router(Arc::clone(self))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.parts.desk.engine().ports.clock.now()
    }

    /// Finds out who asks.
    pub(crate) async fn caller(&self, peer: &Peer, headers: &HeaderMap) -> Result<Caller, Problem> {
        match peer {
            Peer::Socket { uid, gid, known } => {
                let acts_for = headers.get(PERSON_HEADER).and_then(|v| v.to_str().ok());
                Ok(caller_of_socket(*uid, *gid, known, acts_for).await)
            }
            Peer::Net { .. } => {
                self.may_try(peer)?;
                let bearer = headers
                    .get(header::AUTHORIZATION)
                    .and_then(|v| v.to_str().ok())
                    .and_then(|v| v.split_once(' '))
                    .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                    .map(|(_, token)| token.trim().to_owned());
                let Some(token) = bearer else {
                    let hint = "send `Authorization: Bearer TOKEN`; `slurmedic token new` makes one";
                    return Err(
                        Problem::new(ProblemKind::Unauthenticated, "who asks is not known").with_hint(hint)
                    );
                };
                let Some(store) = &self.parts.tokens else {
                    return Err(self.refused(peer, "this engine has no tokens: set server.tokens"));
                };
                // The file and the groups may lie on a slow disk or in a directory service.
                let store = Arc::clone(store);
                let looked = tokio::task::spawn_blocking(move || store.caller(&token, Timestamp::now()));
                match looked.await.map_err(|e| Problem::failed("the token was not judged", &e))? {
                    Ok(Some(caller)) => Ok(caller),
                    Ok(None) => Err(self.refused(peer, "the token is not known, revoked or expired")),
                    Err(e) => {
                        tracing::error!(error = %e, "tokens cannot be read: none is in force");
                        Err(Problem::new(ProblemKind::Busy, "tokens cannot be read now"))
                    }
                }
            }
        }
    }

    /// Makes sure that a sender was not refused too often lately.
    pub(crate) fn may_try(&self, peer: &Peer) -> Result<(), Problem> {
        if self.refusals.has(&peer.key()) {
            Ok(())
        } else {
            Err(Problem::new(ProblemKind::TooOften, "too many refused attempts: wait a minute"))
        }
    }

    /// Refuses somebody whose proof does not hold, and remembers it.
    pub(crate) fn refused(&self, peer: &Peer, why: impl Into<String>) -> Problem {
        self.refusals.take(&peer.key());
        Problem::new(ProblemKind::Unauthenticated, why)
    }

    /// Takes room for so many pieces of bodies, if there is some soon.
    async fn room(&self, pieces: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let pieces = u32::try_from(pieces).unwrap_or(u32::MAX);
        let taking = Arc::clone(&self.bodies).acquire_many_owned(pieces);
        match tokio::time::timeout(ROOM_WAIT, taking).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }

    /// Reads a body up to a limit. What is longer is not kept, but read on for a while so that its sender hears the answer.
    pub(crate) async fn body(
        &self,
        headers: &HeaderMap,
        mut body: Body,
        limit: usize,
    ) -> Result<Vec<u8>, Problem> {
        let declared =
            headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        let too_large = declared.is_some_and(|n: usize| n > limit);
        // Room is taken as the bytes come: whoever sends nothing holds nothing.
        let mut room = self.room(1).await?;
        let mut read = Vec::new();
        let mut seen = 0_usize;
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|e| Problem::usage(format!("the body broke off: {e}")))?;
            let Ok(data) = frame.into_data() else { continue };
            seen = seen.saturating_add(data.len());
            if seen > limit.saturating_mul(4) {
                break;
            }
            if !too_large && seen <= limit {
                let wanted = seen.div_ceil(ROOM);
                if wanted > room.num_permits() {
                    room.merge(self.room(wanted - room.num_permits()).await?);
                }
                read.extend_from_slice(&data);
            } else {
                read = Vec::new();
            }
        }
        if too_large || seen > limit {
            let error = format!("the body is larger than {limit} bytes: send less at once");
            return Err(Problem::new(ProblemKind::TooLarge, error));
        }
        Ok(read)
    }
}

fn busy() -> Problem {
    Problem::new(ProblemKind::Busy, "too much is being read at the same time: try again")
}

impl FromRequestParts<Arc<Server>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut request::Parts,
        server: &Arc<Server>,
    ) -> Result<Self, Self::Rejection> {
        let peer = peer_of(parts)?;
        server.caller(&peer, &parts.headers).await
    }
}

/// Finds the other end of the connection that a request came by.
pub(crate) fn peer_of(parts: &request::Parts) -> Result<Peer, Problem> {
    parts
        .extensions
        .get::<Peer>()
        .cloned()
        .ok_or_else(|| Problem::new(ProblemKind::Failed, "where the request comes from is not known"))
}
