//! `dcgm.reset_gpu`: reset one GPU, once, and never repeat it blindly.

use super::{Ctx, Performed, Performer, Prepared};
use crate::gather::find_gpu;
use crate::ports::{Verb, WorkOrder, WorkResult};
use async_trait::async_trait;
use engine_core::known::{Cause, Known};
use engine_core::model::{NodeGpus, ResetOutcome};
use engine_core::plan::{GpuRef, PlannedStep};
use engine_core::run::{Outcome, Resolution};
use engine_core::value::Value;
use engine_core::verify::{BeforeReset, before_reset};
use jiff::SignedDuration;
use serde::Deserialize as _;
use serde_json::Value as Json;

pub(super) struct ResetGpu;

#[async_trait]
impl Performer for ResetGpu {
    async fn prepare(&self, ctx: &Ctx<'_>) -> Prepared {
        let ready = Prepared::from_look(ctx.look);
        if !ready.report.passed {
            return ready;
        }
        let Some(gpu) = &ctx.state.plan.target.gpu else { return ready.refuse("the plan names no GPU") };
        let asked = ctx.step().and_then(|s| s.text("bus_id")).unwrap_or("");
        if engine_core::model::gpu::normalize_bus_id(asked)
            != engine_core::model::gpu::normalize_bus_id(&gpu.bus_id)
        {
            return ready.refuse(format!("bus id {asked} is not that of the plan's GPU, {}", gpu.bus_id));
        }
        let engine = ctx.engine;
        let before = match engine.inspect(&ctx.state.plan.target.node, ctx.order_id("before")).await {
            Ok(gpus) => gpus,
            Err(u) => {
                let mut no = ready.refuse(format!("the GPUs are {u}"));
                no.transient = false;
                return no;
            }
        };
        let facts = &ready.report.facts;
        let count = |name: &str| match facts.value(name) {
            Known::Known(Value::Int(n)) => Known::Known(n),
            Known::Known(other) => Known::unknown(Cause::Unparsable, format!("{name} = {other}")),
            Known::Unknown(u) => Known::Unknown(u),
        };
        let ours = ctx.state.our_drain.as_ref();
        let list = before_reset(&BeforeReset {
            node: &before,
            uuid: &gpu.uuid,
            bus_id: &gpu.bus_id,
            drained_by_us: ctx.look.mark.clone().map(|m| ours.is_some_and(|o| m.is_our_drain(o))),
            active_jobs: count("active_jobs"),
            suspended_jobs: count("suspended_jobs"),
        });
        if !list.passed() {
            return ready.refuse(format!("not safe to reset: {}", list.brief()));
        }
        ready.with_context(serde_json::json!({ "before": before, "checks": list }))
    }

    async fn act(&self, ctx: &Ctx<'_>, context: &Json) -> Outcome {
        let Some(gpu) = &ctx.state.plan.target.gpu else {
            return Outcome::permanent("the plan names no GPU");
        };
        let order = WorkOrder {
            id: ctx.order_id("reset"),
            node: ctx.state.plan.target.node.clone(),
            run: Some(ctx.state.run.clone()),
            verb: Verb::ResetGpu { uuid: gpu.uuid.clone(), bus_id: gpu.bus_id.clone() },
            limit: ctx.step().map_or(SignedDuration::from_secs(300), PlannedStep::timeout),
        };
        let (outcome, steps) = match ctx.engine.ports.actuator.perform(&order).await {
            WorkResult::Reset { outcome, steps } => (outcome, steps),
            WorkResult::Refused(why) => return Outcome::permanent(format!("the node refused: {why}")),
            WorkResult::Ambiguous(why) => return Outcome::ambiguous(why),
            other => return Outcome::ambiguous(format!("the node answered something else: {other:?}")),
        };
        let data = serde_json::json!({
            "before": context.get("before"),
            "outcome": outcome,
            "steps": steps,
            "at": ctx.engine.ports.clock.now(),
        });
        match &outcome {
            ResetOutcome::Done => {}
            ResetOutcome::Unknown { .. } => return Outcome::ambiguous(outcome.describe()).with_data(data),
            certain => return Outcome::permanent(certain.describe()).with_data(data),
        }
        match answers_again(ctx, gpu).await {
            Ok(()) => Outcome::succeeded(format!("GPU {} was reset and answers", gpu.bus_id)).with_data(data),
            Err(why) => {
                Outcome::permanent(format!("the reset was reported as done, but {why}")).with_data(data)
            }
        }
    }

    async fn probe(&self, ctx: &Ctx<'_>, context: &Json) -> Performed {
        let Some(gpu) = &ctx.state.plan.target.gpu else {
            return Performed::unclear("the plan names no GPU");
        };
        let before: Option<NodeGpus> = context.get("before").and_then(|b| NodeGpus::deserialize(b).ok());
        let Some(before) = before else {
            return Performed::unclear("what the GPU looked like before is not on record");
        };
        // The engine that died may have left DCGM stopped or detached; nothing could be seen then, nor afterwards.
        let restored = self.restore_tools(ctx).await;
        let now = match ctx.engine.inspect(&ctx.state.plan.target.node, ctx.order_id("probe")).await {
            Ok(gpus) => gpus,
            Err(u) => return Performed::unclear(format!("the GPUs are {u}; the reset is not repeated")),
        };
        match traces_of_reset(&before, &now, gpu) {
            Ok(trace) => {
                let mut done =
                    Performed::new(Resolution::Applied, format!("the reset took effect: {trace}"), None);
                done.data = serde_json::json!({ "before": before, "probed": true, "steps": restored }).into();
                done
            }
            Err(why) => Performed::unclear(format!("{why}; the reset is not repeated")),
        }
    }
}

impl ResetGpu {
    /// Has the node start again what a reset takes apart. Says what was done; a failure shows in the look after it.
    async fn restore_tools(&self, ctx: &Ctx<'_>) -> Vec<String> {
        let order = WorkOrder {
            id: ctx.order_id("restore"),
            node: ctx.state.plan.target.node.clone(),
            run: Some(ctx.state.run.clone()),
            verb: Verb::RestoreTools,
            limit: ctx.step().map_or(SignedDuration::from_secs(300), PlannedStep::timeout),
        };
        match ctx.engine.ports.actuator.perform(&order).await {
            WorkResult::Restored(steps) => steps,
            WorkResult::Refused(why) | WorkResult::Ambiguous(why) => {
                vec![format!("tools not restored: {why}")]
            }
            other => vec![format!("the node answered something else: {other:?}")],
        }
    }
}

async fn answers_again(ctx: &Ctx<'_>, gpu: &GpuRef) -> Result<(), String> {
    let gpus = ctx
        .engine
        .inspect(&ctx.state.plan.target.node, ctx.order_id("after"))
        .await
        .map_err(|u| format!("the GPUs are now {u}"))?;
    let found = find_gpu(&gpus, gpu).ok_or("the GPU is gone")?;
    if found.answers.is_known_and(|a| *a) { Ok(()) } else { Err("the GPU does not answer".to_owned()) }
}

/// Counters that only a reset clears, and that stood before: if they are clear now, the reset took effect.
fn traces_of_reset(before: &NodeGpus, now: &NodeGpus, gpu: &GpuRef) -> Result<String, String> {
    let was = find_gpu(before, gpu).ok_or("the GPU was not there before")?;
    let is = find_gpu(now, gpu).ok_or("the GPU is gone")?;
    if !is.answers.is_known_and(|a| *a) {
        return Err("the GPU does not answer".to_owned());
    }
    let mut cleared = Vec::new();
    let mut standing = Vec::new();
    let mut judge = |name: &str, stood: bool, clear: Known<bool>| {
        if stood {
            match clear {
                Known::Known(true) => cleared.push(name.to_owned()),
                Known::Known(false) => standing.push(format!("{name} still stands")),
                Known::Unknown(u) => standing.push(format!("{name} is {u}")),
            }
        }
    };
    judge(
        "uncorrectable errors",
        was.ecc_dbe_volatile.is_known_and(|n| *n > 0),
        is.ecc_dbe_volatile.as_ref().map(|n| *n == 0),
    );
    judge(
        "row remap pending",
        was.row_remap_pending.is_known_and(|p| *p),
        is.row_remap_pending.as_ref().map(|p| !*p),
    );
    if standing.is_empty() && !cleared.is_empty() {
        Ok(format!("{} cleared", cleared.join(" and ")))
    } else if standing.is_empty() {
        Err("nothing tells whether the GPU was reset".to_owned())
    } else {
        Err(standing.join("; "))
    }
}
