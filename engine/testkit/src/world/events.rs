//! What happens in the world by itself or by script, in the order of its time.

use super::control::{Flight, Op};
use super::gpu::Fault;
use super::log::Who;
use super::script::Script;
use super::state::Inner;
use engine_core::model::JobState;
use jiff::Timestamp;

/// Something that is due at a time.
#[derive(Debug, Clone)]
pub(crate) enum Happening {
    /// A job of the load arrives.
    JobArrives,
    /// A job's time is over, if it is still in this life.
    JobEnds(u64, u64),
    /// The epilog of a job is through.
    EpilogEnds(u64),
    /// slurmctld forgets a finished job.
    JobForgotten(u64),
    /// A node answers slurmctld.
    NodeAnswers(usize, u64),
    /// slurmctld notices that a node is silent.
    NodeSilent(usize, u64),
    /// slurmctld gives a silent node up.
    NodeDown(usize, u64),
    /// A reservation of this serial ends.
    ReservationEnds(String, u64),
    /// A write that timed out at the client is applied; sent at that time.
    AppliedLate(Op, Timestamp),
    /// Work whose engine died takes effect.
    Outlives(Flight),
    /// The controller answers again.
    ControllerBack(u64),
    /// A reboot is through.
    Rebooted(usize, u64),
    /// A script is due.
    Do(Script),
}

impl Inner {
    pub(crate) fn happen(&mut self, what: Happening) {
        match what {
            Happening::JobArrives => self.job_arrives(),
            Happening::JobEnds(id, life) => self.job_ends(id, life),
            Happening::EpilogEnds(id) => self.epilog_ends(id),
            Happening::JobForgotten(id) => {
                self.forget_job(id);
            }
            Happening::NodeAnswers(n, life) => self.node_answers(n, life),
            Happening::NodeSilent(n, life) => self.node_silent(n, life),
            Happening::NodeDown(n, life) => self.node_down(n, life),
            Happening::ReservationEnds(name, serial) => {
                if let Some(r) = self.reservations.get(&name).filter(|r| r.serial == serial) {
                    let node = r.node;
                    self.reservations.remove(&name);
                    self.note(&Who::Slurm, Some(node), format!("reservation {name} ends"));
                }
            }
            Happening::AppliedLate(op, sent) => {
                let write = self.apply(&Who::Engine, &op, sent);
                let place = op.node().and_then(|n| self.find(n));
                self.note(&Who::Slurm, place, format!("a write that had timed out is applied: {write:?}"));
            }
            Happening::Outlives(Flight::Write(op, sent)) => {
                let write = self.apply(&Who::Engine, &op, sent);
                let place = op.node().and_then(|n| self.find(n));
                self.note(&Who::Slurm, place, format!("a write of a dead engine is applied: {write:?}"));
            }
            Happening::Outlives(Flight::Reset(id, node, run, uuid)) => {
                self.finish_reset(&id, &node, run.as_deref(), &uuid);
            }
            Happening::ControllerBack(serial) => self.controller_back(serial),
            Happening::Rebooted(n, life) => self.rebooted(n, life),
            Happening::Do(script) => {
                let words = format!("{script:?}");
                if let Err(why) = self.perform(script) {
                    self.note(&Who::Users, None, format!("could not be done: {words}: {why}"));
                }
            }
        }
    }

    /// Carries a script out now; a started job gives its number.
    pub(crate) fn perform(&mut self, script: Script) -> Result<Option<u64>, String> {
        let node_of = |w: &Self, name: &engine_core::model::NodeName| {
            w.find(name).ok_or_else(|| format!("there is no node {name}"))
        };
        match script {
            Script::Person { login, action } => self.act(&login, action)?,
            Script::Fault { node, gpu, fault } => {
                let n = node_of(self, &node)?;
                self.break_node(n, gpu, &fault)?;
            }
            Script::Hiccup(h) => self.controller.once.push_back(h),
            Script::ControllerDown(d) => self.controller_down(d),
            Script::ControllerHang(d) => self.controller_hang(d),
            Script::Slurmd { node, alive } => {
                let n = node_of(self, &node)?;
                self.set_slurmd(n, alive);
            }
            Script::StartJob { node, gpus, run } => {
                let n = node_of(self, &node)?;
                return self.start_here(n, &gpus, run).map(Some);
            }
            Script::SubmitJob { node, gpus, run } => {
                let n = node_of(self, &node)?;
                return Ok(Some(self.submit_for(n, gpus, run)));
            }
            Script::FinishJob { job } => {
                if !self.jobs.contains_key(&job) {
                    return Err(format!("there is no job {job}"));
                }
                self.finish(job, JobState::Completed, &Who::Users, "ends");
            }
        }
        Ok(None)
    }

    /// Repairs a GPU.
    pub(crate) fn cure(&mut self, node: &engine_core::model::NodeName, gpu: u32) -> Result<(), String> {
        let n = self.find(node).ok_or_else(|| format!("there is no node {node}"))?;
        let place = self.nodes[n].gpus.iter_mut().find(|g| g.index == gpu);
        let g = place.ok_or_else(|| format!("{node} has no GPU {gpu}"))?;
        g.cure();
        self.keep_health(n);
        self.note(&Who::Hardware, Some(n), format!("GPU {gpu}: repaired"));
        Ok(())
    }

    fn break_node(&mut self, n: usize, gpu: u32, fault: &Fault) -> Result<(), String> {
        let node = &mut self.nodes[n];
        match fault {
            Fault::ToolsHang => node.tools.hang = true,
            Fault::ToolsBack => node.tools.hang = false,
            Fault::ExporterDown => node.tools.exporter_up = false,
            Fault::DcgmDown => node.tools.dcgm_up = false,
            on_gpu => {
                let place = node.gpus.iter_mut().find(|g| g.index == gpu);
                let g = place.ok_or_else(|| format!("{} has no GPU {gpu}", node.name))?;
                if g.break_by(on_gpu) {
                    self.hardware_kills(n, gpu);
                }
                self.keep_health(n);
            }
        }
        self.note(&Who::Hardware, Some(n), format!("GPU {gpu}: {}", fault.describe()));
        Ok(())
    }
}
