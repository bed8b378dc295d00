//! `health.verify_gpu`: prove the node's GPUs healthy on reads newer than the last disruptive step.

use super::{Ctx, Performed, Performer};
use crate::ports::{Verb, WorkOrder, WorkResult};
use async_trait::async_trait;
use engine_core::known::{Cause, Known};
use engine_core::model::gpu::DiagReport;
use engine_core::model::{NodeGpus, ResetOutcome};
use engine_core::plan::PlannedStep;
use engine_core::run::{Effect, Outcome};
use engine_core::verify::{AfterReset, CheckList, Proof, VerifyHealth, after_reset, verify_health};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize as _;
use serde_json::Value as Json;

pub(super) struct VerifyGpu;

#[async_trait]
impl Performer for VerifyGpu {
    async fn act(&self, ctx: &Ctx<'_>, _context: &Json) -> Outcome {
        let level = ctx.step().and_then(|s| s.int("diag_level")).unwrap_or(1);
        let level = u8::try_from(level.clamp(0, 3)).unwrap_or(1);
        match prove(ctx, level, ctx.deadline()).await {
            Ok(list) => Outcome::succeeded(format!("all {} lines pass", list.0.len()))
                .with_data(serde_json::json!({ "checks": list })),
            Err(Unproven { why, list }) => {
                Outcome::permanent(why).with_data(serde_json::json!({ "checks": list }))
            }
        }
    }

    async fn probe(&self, _ctx: &Ctx<'_>, _context: &Json) -> Performed {
        Performed::repeatable()
    }
}

/// Proves health on the way back, where no disruptive step was begun. Reads only.
pub(super) async fn healthy_now(ctx: &Ctx<'_>) -> Result<(), String> {
    let limit = ctx.engine.config.health_settle + ctx.engine.config.inspect_limit;
    let deadline = ctx.engine.ports.clock.now().saturating_add(limit).unwrap_or(Timestamp::MAX);
    prove(ctx, 0, deadline)
        .await
        .map(|_| ())
        .map_err(|u| format!("the node is not proven healthy: {}", u.why))
}

struct Unproven {
    why: String,
    list: CheckList,
}

/// The record that the reset of this run left.
struct ResetRecord {
    before: NodeGpus,
    outcome: ResetOutcome,
    at: Timestamp,
}

fn reset_record(ctx: &Ctx<'_>) -> Option<ResetRecord> {
    let steps = &ctx.state.plan.steps;
    let (i, _) = steps.iter().enumerate().rev().find(|(_, s)| s.effect.needs_verification())?;
    let data = ctx.state.data.get(&Effect::Step(i))?;
    let probed = data.get("probed").and_then(Json::as_bool) == Some(true);
    Some(ResetRecord {
        before: NodeGpus::deserialize(data.get("before")?).ok()?,
        outcome: if probed {
            ResetOutcome::Done
        } else {
            ResetOutcome::deserialize(data.get("outcome")?).ok()?
        },
        at: if probed { ctx.state.last_event_at } else { Timestamp::deserialize(data.get("at")?).ok()? },
    })
}

async fn prove(ctx: &Ctx<'_>, level: u8, deadline: Timestamp) -> Result<CheckList, Unproven> {
    let engine = ctx.engine;
    let clock = &engine.ports.clock;
    let reset = reset_record(ctx);
    if reset.is_none() && ctx.state.disrupted {
        let why = "what the GPU looked like before the reset is not on record".to_owned();
        return Err(Unproven { why, list: CheckList::default() });
    }
    let watched_since = reset.as_ref().map_or_else(|| clock.now(), |r| r.at);
    let mut diag: Option<Known<DiagReport>> = None;
    let mut round = 0_u32;
    loop {
        round += 1;
        let began = clock.now();
        let seen = engine.inspect(&ctx.state.plan.target.node, ctx.order_id(&format!("verify{round}"))).await;
        let list = match &seen {
            Ok(now) => {
                let proof = Proof {
                    diag: diag.as_ref().map(|d| (level, d)),
                    watched_s: Known::Known(began.duration_since(watched_since).as_secs()),
                    watch_s: engine.config.health_settle.as_secs(),
                    exporter_expected: engine.config.exporter_expected,
                };
                judge(ctx, reset.as_ref(), now, proof)
            }
            Err(_) => CheckList::default(),
        };
        if list.passed() {
            if level == 0 || diag.is_some() {
                return Ok(list);
            }
            diag = Some(diagnose(ctx, level, round, deadline).await);
            continue;
        }
        let why = match &seen {
            Ok(_) => list.brief(),
            Err(u) => format!("the GPUs are {u}"),
        };
        if list.hopeless() {
            return Err(Unproven { why, list });
        }
        if engine.stop_requested(ctx.state).await {
            return Err(Unproven { why: "somebody asked the run to stop".to_owned(), list });
        }
        let now = clock.now();
        if now >= deadline {
            return Err(Unproven { why: format!("out of time: {why}"), list });
        }
        // A diagnostic that did not pass is run once more with the next list that passes.
        diag = None;
        clock.sleep(engine.config.poll.min(deadline.duration_since(now))).await;
    }
}

fn judge(ctx: &Ctx<'_>, reset: Option<&ResetRecord>, now: &NodeGpus, proof: Proof<'_>) -> CheckList {
    match (reset, &ctx.state.plan.target.gpu) {
        (Some(r), Some(gpu)) => after_reset(&AfterReset {
            before: &r.before,
            after: now,
            uuid: &gpu.uuid,
            outcome: &r.outcome,
            proof,
        }),
        _ => {
            let expected_gpus = ctx.state.plan.blast.gpus.map(u64::from);
            verify_health(&VerifyHealth { node: now, expected_gpus, proof })
        }
    }
}

async fn diagnose(ctx: &Ctx<'_>, level: u8, round: u32, deadline: Timestamp) -> Known<DiagReport> {
    let left = deadline.duration_since(ctx.engine.ports.clock.now()).max(SignedDuration::from_secs(5));
    let order = WorkOrder {
        id: ctx.order_id(&format!("diag{round}")),
        node: ctx.state.plan.target.node.clone(),
        run: Some(ctx.state.run.clone()),
        verb: Verb::Diag { level },
        limit: ctx.step().map_or(left, PlannedStep::timeout).min(left),
    };
    match ctx.engine.ports.actuator.perform(&order).await {
        WorkResult::Diag(report) => report,
        WorkResult::Refused(why) => Known::unknown(Cause::ReadFailed, why),
        WorkResult::Ambiguous(why) => Known::unknown(Cause::TimedOut, why),
        other => Known::unknown(Cause::Unparsable, format!("the node answered something else: {other:?}")),
    }
}
