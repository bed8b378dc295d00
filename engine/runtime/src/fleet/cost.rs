//! What a plan costs the queue, reckoned from what was read when it was made.

use crate::gather::Situation;
use crate::ports::Read;
use engine_core::known::{Known, Unknown};
use engine_core::model::PendingJob;
use engine_core::plan::Plan;
use engine_core::playbook::Ends;
use engine_core::policy::{Cost, CostInput, Fleet, Policy, WorkTime, cost};
use jiff::{SignedDuration, Timestamp};

/// The step whose time depends on the jobs, which the cost counts by itself.
const WAITS_FOR_JOBS: &str = "slurm.wait_idle";

/// Reckons the cost; `None` where the node itself could not be read, since then there is no plan either.
pub(super) fn reckon(
    policy: &Policy,
    fleet: &Fleet,
    pending: Read<Vec<PendingJob>>,
    plan: &Plan,
    look: &Situation,
    now: Timestamp,
) -> Option<Cost> {
    let node = &look.node.as_ref().ok()?.value;
    let pending = pending.map(|o| o.value);
    let limits = plan.steps.iter().filter(|s| s.action != WAITS_FOR_JOBS);
    let work = limits.fold(SignedDuration::ZERO, |sum, s| sum.saturating_add(s.timeout()));
    Some(cost(&CostInput {
        node,
        work: WorkTime::Limits(work),
        takes_out: !plan.blast.nodes.is_empty(),
        gives_back: plan.ends == Ends::InService,
        jobs: known(look.jobs.as_ref().map(|o| o.value.as_slice())),
        pending: known(pending.as_deref()),
        reservations: known(look.reservations.as_ref().map(|o| o.value.as_slice())),
        fleet,
        idle_gap: policy.idle_gap,
        now,
    }))
}

fn known<T>(read: Result<T, &Unknown>) -> Known<T> {
    match read {
        Ok(value) => Known::Known(value),
        Err(u) => Known::Unknown(u.clone()),
    }
}
