//! `slurm.drain`: set DRAIN with our reason, and read back that it is ours.

use super::{Ctx, Performed, Performer, Prepared};
use crate::ports::{RefusalKind, Write};
use async_trait::async_trait;
use engine_core::known::Known;
use engine_core::model::NodeFlag;
use engine_core::ownership::{self, Change, NodeMark};
use engine_core::run::{Outcome, Resolution};
use serde_json::Value as Json;

pub(super) struct Drain;

#[async_trait]
impl Performer for Drain {
    async fn prepare(&self, ctx: &Ctx<'_>) -> Prepared {
        let ready = Prepared::from_look(ctx.look);
        match &ctx.look.mark {
            Known::Known(mark) => match why_not(mark, &reason(ctx)) {
                Some(why) => ready.refuse(why),
                None => ready.with_context(serde_json::json!({ "reason": reason(ctx) })),
            },
            Known::Unknown(_) => ready,
        }
    }

    async fn act(&self, ctx: &Ctx<'_>, _context: &Json) -> Outcome {
        set_reason(ctx, &reason(ctx)).await
    }

    async fn probe(&self, ctx: &Ctx<'_>, _context: &Json) -> Performed {
        find_reason(ctx, &reason(ctx)).await
    }
}

/// A node that is not plainly in service is not ours to drain.
fn why_not(mark: &NodeMark, ours: &str) -> Option<String> {
    if mark.flags.has(NodeFlag::Drain) && mark.reason.as_ref().is_some_and(|r| r.text == ours) {
        return None; // An earlier attempt of this very run took effect after all; draining again changes nothing.
    }
    if mark.is_drained() {
        return Some(format!("the node is drained already: {}", mark.describe()));
    }
    let blocking = [
        NodeFlag::RebootRequested,
        NodeFlag::RebootIssued,
        NodeFlag::InvalidReg,
        NodeFlag::PowerDown,
        NodeFlag::PoweringDown,
        NodeFlag::PoweredDown,
        NodeFlag::PowerUp,
        NodeFlag::PoweringUp,
        NodeFlag::PowerDownAsap,
        NodeFlag::PowerDownForce,
        NodeFlag::Blocked,
        NodeFlag::External,
    ];
    (blocking.iter().any(|f| mark.flags.has(*f)) || mark.base == engine_core::model::BaseState::Down)
        .then(|| format!("the node is not in service: {}", mark.describe()))
}

fn reason(ctx: &Ctx<'_>) -> String {
    let text = ctx.step().and_then(|s| s.text("reason")).unwrap_or("");
    ownership::reason(&ctx.state.plan.playbook, &ctx.state.run, text)
}

/// Sets DRAIN with a reason and reads back. Shared with `hold`, which writes another text under the same token.
pub(super) async fn set_reason(ctx: &Ctx<'_>, reason: &str) -> Outcome {
    let node = &ctx.state.plan.target.node;
    let write = ctx.engine.ports.scheduler.drain(node, reason).await;
    match write {
        Write::Refused(r) if matches!(r.kind, RefusalKind::NotPermitted | RefusalKind::NotFound) => {
            return Outcome::permanent(format!("slurmctld refused: {}", r.text));
        }
        Write::Refused(r) => return Outcome::transient(format!("slurmctld refused: {}", r.text)),
        Write::Ambiguous(why) => {
            return Outcome::ambiguous(format!("whether the node was drained is not known: {why}"));
        }
        Write::Accepted => {}
    }
    match ctx.look_at_node().await {
        Known::Known(mark) if is_set(&mark, reason) => match beside_our_drain(ctx, &mark) {
            None => Outcome::succeeded(format!("{node} is draining or drained, the reason is ours"))
                .with_after(mark),
            Some(what) => Outcome::foreign(format!("while it was drained: {what}")),
        },
        Known::Known(mark) if mark.is_drained() => {
            Outcome::foreign(format!("right after our drain somebody else changed it: {}", mark.describe()))
        }
        Known::Known(mark) => {
            Outcome::foreign(format!("right after our drain somebody lifted it: {}", mark.describe()))
        }
        Known::Unknown(u) => {
            Outcome::ambiguous(format!("slurmctld accepted the drain, but the node's state is {u}"))
        }
    }
}

/// Finds out whether a drain with this reason took effect. Two reads that agree, since an update that timed out may
/// be applied late; a late one is harmless here: the same state and reason again change nothing.
pub(super) async fn find_reason(ctx: &Ctx<'_>, reason: &str) -> Performed {
    let clock = &ctx.engine.ports.clock;
    let first = ctx.look_at_node().await;
    if !first.is_known_and(|m| is_set(m, reason)) {
        clock.sleep(ctx.engine.config.confirm).await;
    }
    match ctx.look_at_node().await {
        Known::Unknown(u) => Performed::unclear(format!("the node could not be read: {u}")),
        Known::Known(mark) if is_set(&mark, reason) => match beside_our_drain(ctx, &mark) {
            None => {
                Performed::new(Resolution::Applied, "the drain is there and the reason is ours", Some(mark))
            }
            Some(what) => Performed::new(Resolution::Foreign, format!("while it was drained: {what}"), None),
        },
        Known::Known(mark) => match ctx.state.last_seen.as_ref().and_then(|last| mark.change_since(last)) {
            None => Performed::new(Resolution::NotApplied, "the node is as it was before", None),
            Some(_) => {
                Performed::new(Resolution::Foreign, format!("the node is now {}", mark.describe()), None)
            }
        },
    }
}

/// Finds what people changed beside our drain, such as a reservation of theirs: the read-back becomes what the run
/// last saw, so what it does not notice here it never notices.
fn beside_our_drain(ctx: &Ctx<'_>, mark: &NodeMark) -> Option<String> {
    let mut expected = ctx.state.last_seen.clone()?;
    expected.flags.known.insert(NodeFlag::Drain);
    expected.reason.clone_from(&mark.reason);
    match mark.change_since(&expected) {
        Some(Change::Somebody(what)) => Some(what),
        Some(Change::Node(_)) | None => None,
    }
}

fn is_set(mark: &NodeMark, reason: &str) -> bool {
    mark.flags.has(NodeFlag::Drain) && mark.reason.as_ref().is_some_and(|r| r.text == reason)
}
