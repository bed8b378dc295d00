//! A run that somebody asks for by name: the same for a verb at the terminal and for a request.

use crate::desk::Desk;
use crate::documents::Show;
use crate::problem::{Problem, ProblemKind};
use engine_core::model::NodeName;
use engine_core::playbook::Playbook;
use engine_core::run::Actor;
use engine_core::value::Value;
use engine_runtime::engine::{Alert, ProposeError, ProposeRequest};
use engine_runtime::fleet::Playbooks;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The longest identifier of an alert or ticket, in bytes.
pub const MAX_ALERT_ID: usize = 256;

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Playbook id, with `@VERSION` for a version other than the newest.
    pub playbook: String,
    /// The node: exactly one name.
    pub node: String,
    /// The GPU by index, UUID or bus id; without it the playbook chooses the faulty one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// Parameters, as text.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// Identifier of the alert or ticket behind this.
    #[serde(default)]
    pub alert_id: String,
    /// Start nothing where a person would have to say yes: nobody is there to be asked.
    #[serde(default)]
    pub unattended: bool,
}

/// Reads parameters as their playbook declares them. A name that it does not declare is refused by the planner, which knows
/// the nearest one.
pub fn read_params(
    playbook: &Playbook,
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Value>, Problem> {
    let read = |(name, text): (&String, &String)| {
        let value = match playbook.params.get(name) {
            Some(decl) => Value::parse(decl.ty, text)
                .map_err(|why| Problem::usage(format!("parameter {name}: {why}")))?,
            None => Value::Text(text.clone()),
        };
        Ok((name.clone(), value))
    };
    given.iter().map(read).collect()
}

/// Finds a playbook by `id`, the newest version of it, or by `id@version`.
fn find(playbooks: &dyn Playbooks, name: &str) -> Result<Arc<Playbook>, Problem> {
    let all = playbooks.all();
    let (id, version) = name.split_once('@').map_or((name, None), |(id, v)| (id, Some(v)));
    let of_id = all.into_iter().filter(|p| p.reference.id == id);
    let found = match version {
        None => of_id.max_by(|a, b| a.reference.version.cmp(&b.reference.version)),
        Some(v) => of_id.into_iter().find(|p| p.reference.version.to_string() == v),
    };
    found.ok_or_else(|| {
        let shown: String = name.chars().take(80).filter(|c| !c.is_control()).collect();
        Problem::new(ProblemKind::NotFound, format!("the engine that serves has no playbook {shown}"))
            .with_hint("after a change of the playbooks it has to be reloaded (SIGHUP)")
    })
}

impl Desk {
    /// Plans what somebody wants, and puts the plan on record. The dispatcher goes on with it.
    pub async fn propose(
        &self,
        playbooks: &dyn Playbooks,
        wanted: &Wanted,
        by: Actor,
    ) -> Result<Show, Problem> {
        let playbook = find(playbooks, &wanted.playbook)?;
        let node = NodeName::new(&wanted.node)
            .map_err(|e| Problem::usage(e.to_string()).with_hint("`scontrol show nodes` lists the names"))?;
        if wanted.alert_id.len() > MAX_ALERT_ID {
            return Err(Problem::usage(format!("the id of the alert has at most {MAX_ALERT_ID} bytes")));
        }
        let request = ProposeRequest {
            playbook: &playbook,
            node: node.clone(),
            gpu: wanted.gpu.clone(),
            params: read_params(&playbook, &wanted.params)?,
            alert: Alert { id: wanted.alert_id.clone(), last_seen: None },
            initiator: by,
        };
        let planned = self.engine().plan(request).await;
        if matches!(planned, Err(ProposeError::Node { .. })) {
            self.exists(&node).await?;
        }
        let proposal = planned.map_err(|e| {
            let kind = match &e {
                ProposeError::Node { .. } => ProblemKind::Failed,
                ProposeError::Gpu { .. } => ProblemKind::NotApplicable,
                ProposeError::Rejected(_) => ProblemKind::Usage,
            };
            Problem::new(kind, e.to_string())
        })?;
        if wanted.unattended && proposal.objections.is_empty() && proposal.plan.people() > 0 {
            return Err(Problem::usage("this plan needs an approval and there is nobody to ask")
                .with_hint("nothing was started"));
        }
        let run = self.engine().record_plan(proposal).await?.run;
        self.show(&run).await
    }
}
