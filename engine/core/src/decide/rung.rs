//! Which rung of a playbook the situation asks for, and who has to agree.

use super::owner::Owner;
use super::situation::Situation;
use crate::knowledge::{CataloguePlaybook, Knowledge, Need, PlaybookRung};

/// Says whether a need holds. What is not known does not.
fn holds(need: Need, s: &Situation, known: &Knowledge) -> bool {
    let c = &s.context;
    let none = |n: &str| c.amount(n).is_some_and(|x| x == 0.0);
    let some = |n: &str| c.amount(n).is_some_and(|x| x > 0.0);
    match need {
        Need::Idle => !s.is_busy() && !s.is_wanted_soon(),
        Need::Busy => s.is_busy() || s.is_wanted_soon(),
        Need::Stuck => some("d_state"),
        Need::ProcessesLeft => some("job_processes"),
        Need::Clean => {
            let left = some("job_processes") || some("d_state") || some("gpu_mem_used");
            !left && (none("job_processes") || none("d_state"))
        }
        Need::FirstTime => !again(s),
        Need::LockedClocks => {
            let locked = known.clock_reasons.iter().find(|r| r.name == "clocks_setting").map(|r| r.bit);
            s.alerts.iter().any(|a| a.facts.whole("reasons").is_some() && a.facts.whole("reasons") == locked)
        }
        Need::Persists => super::gpu::is_repeated(s),
        Need::EpilogRuns => c.holds("epilog_running") == Some(true),
        Need::Domain => known.column(s.node.text("model").unwrap_or_default()) == Some("GB200"),
    }
}

/// Says whether the node booted by itself before, within the last week.
pub(super) fn again(s: &Situation) -> bool {
    let many = |n: &str, from: f64| s.context.amount(n).is_some_and(|x| x >= from);
    let told = s.told();
    let says = told.lines().any(|l| {
        (l.contains("reboot") || l.contains("boot") || l.contains("panic"))
            && !["no ", "never", "first"].iter().any(|w| l.contains(w))
    });
    many("reboots_7d", 2.0) || many("unexpected_reboots_7d", 2.0) || many("reboots", 2.0) || says
}

/// Finds the first rung whose needs all hold.
pub(super) fn choose<'k>(
    book: &'k CataloguePlaybook,
    s: &Situation,
    known: &Knowledge,
) -> Option<&'k PlaybookRung> {
    book.rungs.iter().find(|r| r.needs.iter().all(|n| holds(*n, s, known)))
}

/// Steps that only make sense where the drain is our own.
const DRAIN: &str = "slurm.drain";
const RESUME: &str = "slurm.resume";
/// Playbooks that give a node back which Slurm took out.
const RETURNS: &[&str] = &[
    "slurm-unexpected-reboot-triage",
    "slurm-kill-task-failed",
    "slurm-prolog-epilog-failure",
    "slurm-ghost-job-reconcile",
    "node-return-to-service",
];

/// Returns the actions in order. On a node that is out already nothing is drained, and only what is for that gives it back.
pub(super) fn actions(
    book: &CataloguePlaybook,
    rung: &PlaybookRung,
    s: &Situation,
    owner: &Owner<'_>,
) -> Vec<String> {
    let out = super::owner::is_out(s) && !matches!(owner, Owner::Us);
    let returns = RETURNS.contains(&book.id.as_str());
    let keep = |a: &&String| match a.as_str() {
        DRAIN => !out,
        RESUME => (!out || returns) && !s.has_flag("INVALID_REG"),
        _ => true,
    };
    rung.actions.iter().filter(keep).cloned().collect()
}

/// Says whether a plan takes a node out that serves now.
pub(super) fn takes_out(actions: &[String]) -> bool {
    actions.iter().any(|a| a == DRAIN)
}
