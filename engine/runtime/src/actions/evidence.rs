//! `node.collect_evidence`: keep what a reset would wipe out.

use super::{Ctx, Performed, Performer};
use crate::ports::{Verb, WorkOrder, WorkResult};
use async_trait::async_trait;
use engine_core::plan::PlannedStep;
use engine_core::run::Outcome;
use jiff::SignedDuration;
use serde_json::Value as Json;

pub(super) struct CollectEvidence;

#[async_trait]
impl Performer for CollectEvidence {
    async fn act(&self, ctx: &Ctx<'_>, _context: &Json) -> Outcome {
        let order = WorkOrder {
            id: ctx.order_id("evidence"),
            node: ctx.state.plan.target.node.clone(),
            run: Some(ctx.state.run.clone()),
            verb: Verb::CollectEvidence,
            limit: ctx.step().map_or(SignedDuration::from_secs(120), PlannedStep::timeout),
        };
        let items = match ctx.engine.ports.actuator.perform(&order).await {
            WorkResult::Evidence(items) => items,
            WorkResult::Refused(why) => return Outcome::permanent(why),
            WorkResult::Ambiguous(why) => return Outcome::transient(why),
            other => return Outcome::permanent(format!("the node answered something else: {other:?}")),
        };
        let bytes = match serde_json::to_vec(&items) {
            Ok(b) => b,
            Err(e) => return Outcome::permanent(format!("the bundle could not be encoded: {e}")),
        };
        let names: Vec<&str> = items.iter().map(|i| i.name.as_str()).collect();
        let missing: Vec<String> =
            items.iter().filter(|i| !i.note.is_empty()).map(|i| format!("{}: {}", i.name, i.note)).collect();
        let size = bytes.len();
        match ctx.engine.ports.journal.store_blob(bytes, ctx.engine.ports.clock.now()).await {
            Ok(digest) => Outcome::succeeded(format!(
                "{} texts, {size} bytes, stored as {}",
                names.len(),
                digest.short()
            ))
            .with_data(serde_json::json!({ "digest": digest, "items": names, "incomplete": missing })),
            Err(e) => Outcome::transient(format!("the bundle could not be stored: {e}")),
        }
    }

    async fn probe(&self, _ctx: &Ctx<'_>, _context: &Json) -> Performed {
        Performed::repeatable()
    }
}
