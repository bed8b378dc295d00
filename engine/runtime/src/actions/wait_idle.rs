//! `slurm.wait_idle`: wait until no job holds the node, and watch over our drain meanwhile.

use super::{Ctx, Performed, Performer};
use async_trait::async_trait;
use engine_core::known::Known;
use engine_core::model::{Job, NodeFlag};
use engine_core::ownership::Change;
use engine_core::run::Outcome;
use serde_json::Value as Json;

pub(super) struct WaitIdle;

#[async_trait]
impl Performer for WaitIdle {
    async fn act(&self, ctx: &Ctx<'_>, _context: &Json) -> Outcome {
        let engine = ctx.engine;
        let node = &ctx.state.plan.target.node;
        let deadline = ctx.deadline();
        let mut agreed = 0;
        let mut told = String::new();
        loop {
            let look = engine.look_patiently(node).await;
            let held_by = match (look.mark(), look.jobs_seen()) {
                (Known::Known(mark), Known::Known(jobs)) => {
                    match ctx.state.last_seen.as_ref().and_then(|last| mark.change_since(last)) {
                        Some(Change::Somebody(what)) => return Outcome::foreign(what),
                        Some(Change::Node(what)) => {
                            return Outcome::permanent(format!("the node changed: {what}"));
                        }
                        None => {}
                    }
                    let what = holders(jobs, mark.flags.has(NodeFlag::Completing));
                    if what.is_empty() {
                        agreed += 1;
                        if agreed == 2 {
                            return Outcome::succeeded(format!("no job holds {node}")).with_after(mark);
                        }
                    } else {
                        agreed = 0;
                    }
                    what
                }
                (Known::Unknown(u), _) | (_, Known::Unknown(u)) => {
                    agreed = 0;
                    format!("slurmctld could not be read: {u}")
                }
            };
            if engine.stop_requested(ctx.state).await {
                return Outcome::permanent("somebody asked the run to stop");
            }
            let now = engine.ports.clock.now();
            if now >= deadline {
                let why = if held_by.is_empty() {
                    "two reads that agree were not to be had".to_owned()
                } else {
                    held_by
                };
                return Outcome::permanent(format!("out of time while waiting for {node}: {why}"));
            }
            if !held_by.is_empty() && held_by != told {
                engine.note(ctx.state, format!("waiting: {held_by}")).await;
                told = held_by;
            }
            let nap = if agreed == 1 { engine.config.confirm } else { engine.config.poll };
            engine.ports.clock.sleep(nap.min(deadline.duration_since(now))).await;
        }
    }

    async fn probe(&self, _ctx: &Ctx<'_>, _context: &Json) -> Performed {
        Performed::repeatable()
    }
}

/// Names what holds the node; empty when nothing does.
fn holders(jobs: &[Job], completing: bool) -> String {
    let mut parts: Vec<String> = jobs
        .iter()
        .filter(|j| j.holds_node())
        .map(|j| {
            let owner = j.user.known().map(|u| format!(" of {u}")).unwrap_or_default();
            if j.is_suspended() {
                format!(
                    "job {0}{owner} is suspended and its processes may hold the GPUs: it does not end by itself, resume or cancel it (scontrol resume {0})",
                    j.display_id
                )
            } else {
                format!("job {}{owner} has the node", j.display_id)
            }
        })
        .collect();
    if parts.is_empty() && completing {
        parts.push("the epilog of a job still runs (COMPLETING)".to_owned());
    }
    parts.join("; ")
}
