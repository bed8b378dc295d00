//! What breaks in the demonstration, who interferes, and which ends are right.

use crate::world::{Fault, Hiccup, PersonAction, Script, SimWorld, Trigger};
use engine_core::model::NodeName;
use engine_core::run::End;
use jiff::{SignedDuration, Timestamp};

/// The least number of nodes on which the script has room.
pub(super) const MIN_NODES: usize = 62;

/// One fault and what may become of it.
#[derive(Debug, Clone)]
pub struct Case {
    /// Place of the node, from 0.
    pub place: usize,
    /// GPU index.
    pub gpu: u32,
    /// Seconds after the start.
    pub after_s: i64,
    /// What breaks.
    pub fault: Fault,
    /// The situation, for people.
    pub story: &'static str,
    /// The ends that are right.
    pub right: &'static [End],
    /// Whether a reset of the GPU is right.
    pub reset_is_right: bool,
}

impl Case {
    /// Finds the node.
    pub fn node(&self, world: &SimWorld) -> Option<NodeName> {
        world.node_names().get(self.place).cloned()
    }
}

/// A mark that a person left on a node and that must still stand at the end: login and text; `None`: not drained.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) node: NodeName,
    pub(super) reason: Option<(&'static str, &'static str)>,
}

const BEFORE: &str = "PSU swap, back on Thursday";
const MID_RUN: &str = "looking at this one myself";

/// Lists the cases.
pub(super) fn cases() -> Vec<Case> {
    let good: &[End] = &[End::Succeeded];
    let held: &[End] = &[End::Held];
    let no: &[End] = &[End::Rejected];
    let theirs: &[End] = &[End::HandedOver];
    let case = |place, gpu, after_s, fault, story, right, reset_is_right| Case {
        place,
        gpu,
        after_s,
        fault,
        story,
        right,
        reset_is_right,
    };
    vec![
        case(2, 2, 60, Fault::EccDbe, "memory error, node idle", good, true),
        case(8, 5, 75, Fault::EccDbe, "memory error, node idle", good, true),
        case(13, 0, 90, Fault::EccDbe, "memory error, jobs on the other GPUs", good, true),
        case(20, 7, 110, Fault::EccDbe, "memory error while slurmctld hangs", good, true),
        case(26, 1, 130, Fault::EccDbe, "memory error, jobs on the other GPUs", good, true),
        case(29, 3, 150, Fault::OffBus, "XID 79: fallen off the bus", no, false),
        case(33, 4, 165, Fault::StubbornEcc, "memory error that no reset cures", held, true),
        case(37, 6, 190, Fault::EccDbe, "memory error, a process holds the GPU", held, false),
        case(40, 1, 210, Fault::EccDbe, "memory error, a job is suspended", held, false),
        case(44, 5, 230, Fault::RemapFailure, "row remapping failed", no, false),
        case(49, 0, 250, Fault::EccDbe, "memory error, drained by a person before", no, false),
        case(53, 2, 270, Fault::EccDbe, "a person changes the reason mid-run", theirs, false),
        case(57, 3, 290, Fault::EccDbe, "a person resumes the node mid-run", theirs, false),
        case(61, 4, 310, Fault::EccDbe, "memory error, a write is applied late", good, true),
    ]
}

/// Puts everything on the stage; returns what people's marks must still be at the end.
pub(super) fn stage(world: &SimWorld, cases: &[Case]) -> Vec<Mark> {
    let start = world.now();
    let secs = SignedDuration::from_secs;
    let at = |s: i64| start.checked_add(secs(s)).unwrap_or(Timestamp::MAX);
    let mut marks = Vec::new();
    for case in cases {
        let Some(node) = case.node(world) else { continue };
        world.schedule(
            at(case.after_s),
            Script::Fault { node: node.clone(), gpu: case.gpu, fault: case.fault.clone() },
        );
        let by = |login: &str, action| Script::Person { login: login.to_owned(), action };
        match case.place {
            // The job on the sick GPU dies of the error; its neighbours have some minutes to go.
            13 | 26 => {
                let run = |s| Script::StartJob { node: node.clone(), gpus: vec![case.gpu], run: secs(s) };
                world.schedule(at(5), run(1_200));
                let others = vec![case.gpu + 1, case.gpu + 2];
                let left = if case.place == 13 { 420 } else { 330 };
                world.schedule(at(6), Script::StartJob { node: node.clone(), gpus: others, run: secs(left) });
            }
            20 => world.schedule(at(case.after_s + 40), Script::ControllerHang(secs(14))),
            37 => {
                let fault = Fault::Holder { pid: 41_822, name: "python3".to_owned() };
                world.schedule(at(30), Script::Fault { node, gpu: case.gpu, fault });
            }
            40 => {
                let job = world.start_job(&node, &[6], SignedDuration::from_hours(5));
                if let Ok(job) = job {
                    world.schedule(at(20), by("admin2", PersonAction::SuspendJob { job }));
                }
            }
            49 => {
                world.schedule(
                    at(25),
                    by("admin1", PersonAction::Drain { node: node.clone(), reason: BEFORE.to_owned() }),
                );
                marks.push(Mark { node, reason: Some(("admin1", BEFORE)) });
            }
            53 => {
                let reason = PersonAction::SetReason { node: node.clone(), reason: MID_RUN.to_owned() };
                world.when(&node, Trigger::EngineDrained, secs(3), by("admin1", reason));
                marks.push(Mark { node, reason: Some(("admin1", MID_RUN)) });
            }
            57 => {
                let resume = PersonAction::Resume { node: node.clone() };
                world.when(&node, Trigger::EngineDrained, secs(3), by("admin2", resume));
                marks.push(Mark { node, reason: None });
            }
            61 => {
                let late = Script::Hiccup(Hiccup::WriteAppliedLater(secs(13)));
                world.when(&node, Trigger::EngineLocked, SignedDuration::ZERO, late);
            }
            _ => {}
        }
    }
    marks
}
