//! The lesser verbs of a simulated node: clocks, services, processes, quarantine. Each looks at the world right before.

use super::log::Who;
use super::state::Inner;
use engine_core::known::{Cause, Known};
use engine_core::model::JobState;
use engine_core::model::gpu::normalize_bus_id;
use engine_runtime::ports::{
    GpuClocks, KillEnd, NodeProcess, ProcessList, ServiceState, Verb, WorkOrder, WorkResult,
};

/// Highest clock of a simulated GPU, in MHz.
const MAX_CLOCK: u32 = 1_980;
/// Clock ticks per second of a start time.
const TICKS: u64 = 100;
/// Services of a simulated node that restart under running jobs, and those that do not.
const HARMLESS: [&str; 2] = ["nvidia-dcgm", "dcgm-exporter"];
const OF_THE_DRIVER: [&str; 2] = ["nvidia-persistenced", "nvidia-fabricmanager"];

impl Inner {
    /// Carries out an order of one of the lesser verbs; one that changes something, once.
    pub(crate) fn lesser_verb(&mut self, order: &WorkOrder) -> WorkResult {
        let Some(n) = self.find(&order.node) else {
            return WorkResult::Refused(format!("there is no node {}", order.node));
        };
        if order.verb == Verb::Processes {
            return WorkResult::Processes(self.view_processes(n));
        }
        if self.nodes[n].orders.contains_key(&order.id) {
            let why = "this order was carried out before: look what came of it, do not repeat";
            return WorkResult::Ambiguous(why.to_owned());
        }
        self.nodes[n].orders.insert(order.id.clone(), None);
        let result = match &order.verb {
            Verb::ResetClocks { uuid, bus_id } => self.reset_clocks(n, uuid, bus_id),
            Verb::RestartService { unit } => self.restart_service(n, unit),
            Verb::KillProcess { pid, start_time } => self.end_process(n, *pid, *start_time),
            Verb::Quarantine { path } => {
                Err(format!("{path}: no scratch directory is configured on a simulated node"))
            }
            other => Err(format!("{} is none of the lesser verbs", other.word())),
        };
        let result = result.unwrap_or_else(WorkResult::Refused);
        self.nodes[n].orders.insert(order.id.clone(), Some(result.clone()));
        result
    }

    /// Returns a job that has something of the node.
    fn job_there(&self, n: usize) -> Option<u64> {
        self.jobs_of(n).find(|j| j.holds(n)).map(|j| j.id)
    }

    fn reset_clocks(&mut self, n: usize, uuid: &str, bus_id: &str) -> Result<WorkResult, String> {
        if let Some(job) = self.job_there(n) {
            return Err(format!("job {job} is on the node, which may have set the clocks itself"));
        }
        let bus = normalize_bus_id(bus_id);
        let found = self.nodes[n].gpus.iter().find(|g| g.uuid == uuid && Some(&g.bus_id) == bus.as_ref());
        let gpu = found.ok_or_else(|| format!("no GPU here is both {uuid} and {bus_id}"))?;
        if !gpu.on_bus {
            return Err(format!("GPU {uuid} is lost"));
        }
        let index = gpu.index;
        let view = gpu.view(Vec::new(), false, true);
        let none = || Known::unknown(Cause::Unsupported, "a simulated GPU has no application clocks");
        let clocks = GpuClocks {
            sm: view.sm_clock_mhz.map(|mhz| mhz as u32),
            sm_max: Known::Known(MAX_CLOCK),
            application: none(),
            application_default: none(),
        };
        self.note(&Who::Engine, Some(n), format!("sets the clocks of GPU {index} back"));
        let steps = vec![format!("nvidia-smi -i {bus_id} -rgc: All done.")];
        Ok(WorkResult::ClocksReset { before: clocks.clone(), after: clocks, steps })
    }

    fn service(&self, n: usize, name: &str) -> ServiceState {
        let tools = &self.nodes[n].tools;
        let runs = match name {
            "nvidia-dcgm" => tools.dcgm_up,
            "dcgm-exporter" => tools.dcgm_up && tools.exporter_up,
            _ => true,
        };
        let (active, sub) = if runs { ("active", "running") } else { ("inactive", "dead") };
        let main_pid = if runs { 4_000 + n as u32 % 1_000 } else { 0 };
        ServiceState { active: active.to_owned(), sub: sub.to_owned(), main_pid }
    }

    fn restart_service(&mut self, n: usize, unit: &str) -> Result<WorkResult, String> {
        let name = unit.strip_suffix(".service").unwrap_or(unit);
        if !HARMLESS.contains(&name) && !OF_THE_DRIVER.contains(&name) {
            return Err(format!("{unit:?} is not among the services that may be restarted here"));
        }
        if OF_THE_DRIVER.contains(&name) {
            if let Some(job) = self.job_there(n) {
                return Err(format!("{name} is not restarted: job {job} is on the node"));
            }
            if let Some(p) = self.nodes[n].gpus.iter().find_map(|g| g.holder.as_ref()) {
                let why = format!("{name} is not restarted: process {} ({}) has a GPU open", p.pid, p.name);
                return Err(why);
            }
        }
        let before = self.service(n, name);
        match name {
            // As the real one does: the engine forgets its XIDs, and an exporter that used it has ended.
            "nvidia-dcgm" => {
                self.restart_tools(n);
                self.nodes[n].tools.exporter_up = false;
            }
            "dcgm-exporter" => self.nodes[n].tools.exporter_up = true,
            _ => {}
        }
        self.note(&Who::Engine, Some(n), format!("restarts {name}"));
        Ok(WorkResult::ServiceRestarted { unit: name.to_owned(), before, after: self.service(n, name) })
    }

    fn view_processes(&self, n: usize) -> Known<ProcessList> {
        let node = &self.nodes[n];
        if node.tools.hang {
            return Known::unknown(Cause::TimedOut, "the processes could not be read in time");
        }
        let up = self.now.duration_since(node.booted).as_secs().max(0) as u64;
        let show =
            |pid: u32, uid: u32, user: String, command: &str, cgroup: String, job: String, start: u64| {
                NodeProcess {
                    pid,
                    start_time: start * TICKS,
                    uid,
                    user: Some(user),
                    command: command.to_owned(),
                    cgroup: Known::Known(cgroup),
                    job: Known::Known(job),
                    holds_gpu: Known::Known(true),
                    state: 'S',
                    age_s: up.saturating_sub(start),
                }
            };
        let strangers = node.gpus.iter().filter_map(|g| g.holder.as_ref()).map(|p| {
            let cgroup = "/user.slice/user-1000.slice/session-1.scope".to_owned();
            show(p.pid, 1_000, "stranger".to_owned(), &p.name, cgroup, String::new(), 0)
        });
        let running = |j: &&super::jobs::SimJob| {
            j.node == Some(n) && matches!(j.state, JobState::Running | JobState::Suspended)
        };
        let of_jobs = self.jobs_of(n).filter(running).map(|j| {
            let cgroup = format!("/system.slice/slurmstepd.scope/job_{}/step_0", j.id);
            let begun = j.start.map_or(0, |s| s.duration_since(node.booted).as_secs().max(0) as u64);
            let digits: String = j.user.chars().filter(char::is_ascii_digit).collect();
            let uid = 2_000 + digits.parse().unwrap_or(0_u32) % 10_000;
            show(
                20_000 + (j.id % 10_000) as u32,
                uid,
                j.user.clone(),
                "python3",
                cgroup,
                j.id.to_string(),
                begun,
            )
        });
        Known::Known(ProcessList { processes: strangers.chain(of_jobs).collect(), left_out: 0 })
    }

    fn end_process(&mut self, n: usize, pid: u32, start_time: u64) -> Result<WorkResult, String> {
        let list = match self.view_processes(n) {
            Known::Known(l) => l,
            Known::Unknown(u) => return Err(format!("what runs on the node is {u}")),
        };
        let Some(p) = list.processes.into_iter().find(|p| p.pid == pid) else {
            let steps = vec![format!("there is no process {pid}")];
            return Ok(WorkResult::Killed { end: KillEnd::WasGone, steps });
        };
        if p.start_time != start_time {
            return Err(format!("process {pid} started at {}: the number is another's now", p.start_time));
        }
        if let Known::Known(job) = p.job
            && !job.is_empty()
        {
            return Err(format!("process {pid} belongs to job {job}; nothing was sent"));
        }
        for g in self.nodes[n].gpus.iter_mut().filter(|g| g.holder.as_ref().is_some_and(|h| h.pid == pid)) {
            g.holder = None;
        }
        self.note(&Who::Engine, Some(n), format!("ends process {pid} ({})", p.command));
        let end = KillEnd::Ended { signal: "TERM".to_owned() };
        Ok(WorkResult::Killed { end, steps: vec!["TERM sent".to_owned(), "it has ended".to_owned()] })
    }
}
