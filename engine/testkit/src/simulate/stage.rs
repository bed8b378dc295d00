//! What breaks on a node, what people do to it meanwhile, and how they repair what is left.

use super::agenda::Incident;
use super::rates::Shows;
use crate::time::SimClock;
use crate::warden::Warden;
use crate::world::{Fault, PersonAction, Script, SimWorld};
use engine_core::known::Known;
use engine_core::model::{BaseState, NodeFlag, NodeName};
use engine_runtime::ports::Clock as _;
use jiff::{SignedDuration, Timestamp};

/// Time between two attempts of people to give a node back.
const AGAIN: SignedDuration = SignedDuration::from_mins(5);
/// Times that people try to give a repaired node back.
const RESUMES: u32 = 12;

/// Lets happen what no alert of a GPU comes of.
pub(super) fn not_for_engines(world: &SimWorld, node: &NodeName, incident: &Incident) -> bool {
    let later = |d: SignedDuration| world.now().saturating_add(d).unwrap_or(Timestamp::MAX);
    match incident.shows {
        Shows::Silent => {
            world.schedule(world.now(), Script::Slurmd { node: node.clone(), alive: false });
            world.schedule(later(incident.thinks), Script::Slurmd { node: node.clone(), alive: true });
            true
        }
        Shows::Maintenance => {
            let by = |action| Script::Person { login: "admin2".to_owned(), action };
            let name = format!("host-{node}");
            let duration = SignedDuration::from_hours(2);
            world.schedule(world.now(), by(PersonAction::Maintenance { name, node: node.clone(), duration }));
            let reboot = PersonAction::Reboot { node: node.clone(), asap: true, then_resume: true };
            world.schedule(later(incident.thinks), by(reboot));
            true
        }
        _ => false,
    }
}

/// Puts jobs on the node, then breaks it.
pub(super) async fn set(world: &SimWorld, clock: &SimClock, node: &NodeName, incident: &Incident) {
    let now = world.now();
    let later = |d: SignedDuration| now.saturating_add(d).unwrap_or(Timestamp::MAX);
    for (i, (gpus, run)) in incident.jobs.iter().enumerate() {
        // A node that people have taken out gets none.
        if let Ok(job) = world.start_job(node, gpus, *run)
            && i == 0
            && incident.suspended
        {
            let action = PersonAction::SuspendJob { job };
            world.person(later(SignedDuration::from_secs(1)), "admin2", action);
        }
    }
    if let Some((after, gpus, run)) = incident.later_job {
        world.schedule(later(after), Script::SubmitJob { node: node.clone(), gpus, run });
    }
    clock.sleep(SignedDuration::from_secs(2)).await;
    let broken = |fault| world.inject(node, incident.gpu, fault);
    if let Some(applied) = incident.hangs {
        drop(broken(Fault::ResetHangs { applied }));
    }
    if incident.shows == Shows::Leftover {
        drop(broken(Fault::Holder { pid: 41_822, name: "python3".to_owned() }));
        let stop = PersonAction::StopHolder { node: node.clone(), gpu: incident.gpu };
        world.person(later(incident.repair_after), "admin2", stop);
    }
    if let Some(fault) = incident.shows.fault() {
        if fault == Fault::ToolsHang {
            let back = Script::Fault { node: node.clone(), gpu: incident.gpu, fault: Fault::ToolsBack };
            world.schedule(later(incident.thinks), back);
        }
        drop(broken(fault));
    }
}

/// Lets the person who interferes begin.
pub(super) fn interfere(world: &SimWorld, node: &NodeName, incident: &Incident) {
    let Some(m) = &incident.meddler else { return };
    let script = m.act.script(node);
    match m.after {
        Some(trigger) => world.when(node, trigger, m.delay, script),
        None => world.schedule(world.now().saturating_add(m.delay).unwrap_or(Timestamp::MAX), script),
    }
}

/// What people do at the end: whatever is broken is repaired, and the node is given back where it is out.
pub(super) async fn repair(world: &SimWorld, clock: &SimClock, warden: &Warden, node: &NodeName, gpu: u32) {
    let person = |action| world.person_now("hardware", action);
    for (gpu, _) in world.ailments(node) {
        drop(world.cure(node, gpu));
    }
    drop(world.cure(node, gpu));
    drop(world.inject(node, gpu, Fault::ToolsBack));
    world.restart_tools(node);
    drop(world.run(Script::Slurmd { node: node.clone(), alive: true }));
    world.forget_reactions(node);
    world.cancel_waiting_on(node, "hardware");
    for job in world.suspended_on(node) {
        drop(person(PersonAction::ResumeJob { job }));
    }
    clock.sleep(SignedDuration::from_mins(3)).await;
    // Slurm refuses while the node reboots: people try again.
    for _ in 0..RESUMES {
        if is_in_service(world, node) || warden.is_busy(node) {
            return;
        }
        drop(person(PersonAction::Resume { node: node.clone() }));
        clock.sleep(AGAIN).await;
    }
}

/// Says whether a node is as a healthy one in service is.
pub(super) fn is_in_service(world: &SimWorld, node: &NodeName) -> bool {
    let Some(view) = world.node_view(node) else { return true };
    let out = [NodeFlag::Drain, NodeFlag::Fail, NodeFlag::NotResponding, NodeFlag::RebootRequested];
    let down = matches!(view.base, Known::Known(BaseState::Down));
    !down && !out.iter().any(|f| view.flags.has(*f))
}
