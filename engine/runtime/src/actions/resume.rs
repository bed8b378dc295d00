//! `slurm.resume`: give the node back, only if the drain is ours and the node is proven healthy (rules 4, 5, 6).

use super::{Ctx, Performed, Performer, Prepared, verify_gpu};
use crate::ports::{RefusalKind, Write};
use async_trait::async_trait;
use engine_core::known::Known;
use engine_core::model::NodeFlag;
use engine_core::ownership::NodeMark;
use engine_core::run::{Effect, Outcome, Resolution};
use serde_json::Value as Json;

pub(super) struct Resume;

#[async_trait]
impl Performer for Resume {
    async fn prepare(&self, ctx: &Ctx<'_>) -> Prepared {
        let ready = Prepared::from_look(ctx.look);
        if !ready.report.passed {
            return ready;
        }
        let Some(ours) = &ctx.state.our_drain else {
            return ready.refuse("no drain of this run is on record, so there is none it may lift");
        };
        let Known::Known(mark) = &ctx.look.mark else { return ready };
        if !mark.is_our_drain(ours) {
            return ready.refuse(format!("the drain is not the one this run made: {}", mark.describe()));
        }
        if ctx.state.verified {
            return ready;
        }
        if ctx.state.disrupted {
            return ready.refuse("no verification newer than the last disruptive step has passed");
        }
        // On the way back without a disruptive step: Slurm's view is restored only for a node that is healthy now.
        match ctx.effect {
            Effect::Undo(_) => match verify_gpu::healthy_now(ctx).await {
                Ok(()) => ready,
                Err(why) => ready.refuse(why),
            },
            _ => ready.refuse("no verification has passed since the node was taken out"),
        }
    }

    async fn act(&self, ctx: &Ctx<'_>, _context: &Json) -> Outcome {
        let node = &ctx.state.plan.target.node;
        match ctx.engine.ports.scheduler.resume(node).await {
            Write::Accepted => {}
            Write::Refused(r) if matches!(r.kind, RefusalKind::NotPermitted | RefusalKind::NotFound) => {
                return Outcome::permanent(format!("slurmctld refused: {}", r.text));
            }
            Write::Refused(r) => {
                // A resume that arrived after all makes a second one "invalid": the node tells.
                return match read_back(ctx).await {
                    ReadBack::InService(mark) => {
                        Outcome::succeeded(format!("{node} is in service")).with_after(mark)
                    }
                    _ => Outcome::transient(format!("slurmctld refused: {}", r.text)),
                };
            }
            Write::Ambiguous(why) => {
                return Outcome::ambiguous(format!("whether the node was resumed is not known: {why}"));
            }
        }
        match wait_for_service(ctx).await {
            ReadBack::InService(mark) => {
                Outcome::succeeded(format!("{node} is in service and answers")).with_after(mark)
            }
            ReadBack::OurDrain => {
                Outcome::transient("slurmctld accepted the resume, but our drain is still there")
            }
            ReadBack::Silent(mark) => {
                Outcome::permanent(format!("{node} was resumed and does not answer: {}", mark.describe()))
                    .with_after(mark)
            }
            ReadBack::Theirs(mark) => {
                Outcome::foreign(format!("taken out again by somebody: {}", mark.describe()))
            }
            ReadBack::Unreadable(why) => Outcome::ambiguous(why),
        }
    }

    async fn probe(&self, ctx: &Ctx<'_>, _context: &Json) -> Performed {
        let mut seen = read_back(ctx).await;
        if matches!(seen, ReadBack::OurDrain) {
            ctx.engine.ports.clock.sleep(ctx.engine.config.confirm).await;
            seen = read_back(ctx).await;
        }
        if matches!(seen, ReadBack::Silent(_)) {
            seen = wait_for_service(ctx).await;
        }
        match seen {
            ReadBack::InService(mark) => {
                Performed::new(Resolution::Applied, "the drain is gone and the node answers", Some(mark))
            }
            ReadBack::OurDrain => {
                Performed::new(Resolution::NotApplied, "our drain is still on the node", None)
            }
            ReadBack::Silent(mark) => {
                Performed::unclear(format!("the node was resumed and does not answer: {}", mark.describe()))
            }
            ReadBack::Theirs(mark) => {
                Performed::new(Resolution::Foreign, format!("the node is now {}", mark.describe()), None)
            }
            ReadBack::Unreadable(why) => Performed::unclear(why),
        }
    }
}

/// What a look after a resume shows.
enum ReadBack {
    /// Not drained, answers, registered well.
    InService(NodeMark),
    /// Still drained by us.
    OurDrain,
    /// Not drained, but silent, down or badly registered.
    Silent(NodeMark),
    /// Drained by somebody else, or set down with a reason.
    Theirs(NodeMark),
    /// Could not be read.
    Unreadable(String),
}

async fn read_back(ctx: &Ctx<'_>) -> ReadBack {
    let mark = match ctx.look_at_node().await {
        Known::Known(mark) => mark,
        Known::Unknown(u) => return ReadBack::Unreadable(format!("the node's state is {u}")),
    };
    if mark.is_drained() {
        let ours = ctx.state.our_drain.as_ref().is_some_and(|made| mark.is_our_drain(made));
        return if ours { ReadBack::OurDrain } else { ReadBack::Theirs(mark) };
    }
    let unwell = mark.flags.has(NodeFlag::NotResponding)
        || mark.flags.has(NodeFlag::InvalidReg)
        || matches!(mark.base, engine_core::model::BaseState::Down | engine_core::model::BaseState::Unknown);
    // Down with a reason: a person set it, or slurmctld gave the node up. Our resume cleared ours, so it is not ours to
    // overwrite (rule 4).
    match &mark.reason {
        Some(_) if unwell => ReadBack::Theirs(mark),
        _ if unwell => ReadBack::Silent(mark),
        _ => ReadBack::InService(mark),
    }
}

/// Waits until the node answers: NOT_RESPONDING stays for some seconds after every resume.
async fn wait_for_service(ctx: &Ctx<'_>) -> ReadBack {
    let clock = &ctx.engine.ports.clock;
    let deadline = ctx.deadline();
    let mut nap = ctx.engine.config.confirm;
    loop {
        let seen = read_back(ctx).await;
        let settled = matches!(seen, ReadBack::InService(_) | ReadBack::Theirs(_) | ReadBack::Unreadable(_));
        if settled || clock.now() >= deadline {
            return seen;
        }
        clock.sleep(nap).await;
        nap = (nap * 2).min(ctx.engine.config.poll);
    }
}
