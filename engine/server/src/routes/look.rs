//! For whoever may look: runs, incidents, nodes, what stands still.

use crate::caller::Caller;
use crate::documents::{About, Incidents, Runs, Show, StopList, Why};
use crate::problem::Problem;
use crate::server::Server;
use axum::Json;
use axum::extract::{Path, Query, State};
use engine_core::model::NodeName;
use engine_core::policy::Deed;
use serde::Deserialize;
use std::sync::Arc;

type Answer<T> = Result<Json<T>, Problem>;

fn may_look(server: &Server, caller: &Caller) -> Result<(), Problem> {
    server.parts().authority.get().permit(caller, Deed::View)
}

/// Which engine, and who asks.
pub(super) async fn about(State(server): State<Arc<Server>>, caller: Caller) -> Answer<About> {
    let parts = server.parts();
    let may = parts.authority.get().deeds(&caller);
    Ok(Json(About {
        format: "slurmedic/about/1".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        engine: parts.desk.engine().config.engine.clone(),
        journal: parts.journal.clone(),
        simulated: parts.simulated,
        known_by: caller.known_by(),
        you: caller.name,
        may: may.into_iter().map(|d| d.as_str().to_owned()).collect(),
    }))
}

/// Which runs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichRuns {
    node: Option<String>,
    #[serde(default)]
    open: bool,
    limit: Option<usize>,
}

/// Lists runs.
pub(super) async fn runs(
    State(server): State<Arc<Server>>,
    caller: Caller,
    which: Result<Query<WhichRuns>, axum::extract::rejection::QueryRejection>,
) -> Answer<Runs> {
    may_look(&server, &caller)?;
    let Query(which) = which.map_err(|e| Problem::usage(e.body_text()))?;
    let node = which.node.as_deref().map(node_name).transpose()?;
    Ok(Json(server.parts().desk.runs(node.as_ref(), which.open, which.limit.unwrap_or(20)).await?))
}

/// Tells one run.
pub(super) async fn show(
    State(server): State<Arc<Server>>,
    caller: Caller,
    Path(run): Path<String>,
) -> Answer<Show> {
    may_look(&server, &caller)?;
    let desk = &server.parts().desk;
    let run = desk.find(&run).await?;
    Ok(Json(desk.show(&run).await?))
}

/// How many.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HowMany {
    limit: Option<usize>,
}

/// Lists open incidents.
pub(super) async fn incidents(
    State(server): State<Arc<Server>>,
    caller: Caller,
    many: Result<Query<HowMany>, axum::extract::rejection::QueryRejection>,
) -> Answer<Incidents> {
    may_look(&server, &caller)?;
    let Query(many) = many.map_err(|e| Problem::usage(e.body_text()))?;
    Ok(Json(server.parts().desk.incidents(many.limit.unwrap_or(50)).await?))
}

/// Lists what stands still.
pub(super) async fn stops(State(server): State<Arc<Server>>, caller: Caller) -> Answer<StopList> {
    may_look(&server, &caller)?;
    Ok(Json(server.parts().desk.stops().await?))
}

/// Says why a node is as it is.
pub(super) async fn why(
    State(server): State<Arc<Server>>,
    caller: Caller,
    Path(node): Path<String>,
) -> Answer<Why> {
    may_look(&server, &caller)?;
    Ok(Json(server.parts().desk.why(&node_name(&node)?).await?))
}

/// Accepts the name of one node, and nothing that could be more than one.
pub(super) fn node_name(text: &str) -> Result<NodeName, Problem> {
    NodeName::new(text)
        .map_err(|e| Problem::usage(e.to_string()).with_hint("`scontrol show nodes` lists the names"))
}
