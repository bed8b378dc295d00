//! Jobs: they arrive by a seeded load or a script, get GPUs, end, complete, are suspended, requeued and killed.

use super::events::Happening;
use super::log::Who;
use super::state::{Inner, later};
use engine_core::model::{JobState, NodeFlag};
use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use std::collections::BTreeSet;

/// A job; it runs on one node.
#[derive(Debug, Clone)]
pub(crate) struct SimJob {
    pub(crate) id: u64,
    pub(crate) user: String,
    pub(crate) name: String,
    pub(crate) node: Option<usize>,
    pub(crate) gpus: BTreeSet<u32>,
    pub(crate) wanted: u32,
    pub(crate) state: JobState,
    pub(crate) completing: bool,
    pub(crate) start: Option<Timestamp>,
    /// When it ends, or ended.
    pub(crate) end: Option<Timestamp>,
    /// What is left of a suspended job.
    left: SignedDuration,
    run: SignedDuration,
    /// Tells ends of an earlier life apart.
    life: u64,
    only_on: Option<usize>,
}

impl SimJob {
    /// Says whether it has resources on the node: running, suspended or completing.
    pub(crate) fn holds(&self, node: usize) -> bool {
        self.node == Some(node)
            && (self.completing || matches!(self.state, JobState::Running | JobState::Suspended))
    }

    pub(crate) fn uses(&self, node: usize, gpu: u32) -> bool {
        self.holds(node) && self.gpus.contains(&gpu)
    }
}

impl Inner {
    /// Begins the load: jobs that run already, and the first arrival.
    pub(crate) fn begin_load(&mut self) {
        let Some(load) = self.cfg.load.clone() else { return };
        for _ in 0..load.initial_jobs {
            self.new_load_job();
        }
        self.place_jobs();
        self.push_in(load.mean_gap, Happening::JobArrives);
    }

    fn new_load_job(&mut self) {
        let Some(load) = self.cfg.load.clone() else { return };
        let wanted = [1_u32, 2, 4, 8][self.rng_load.random_range(0..4)].min(self.cfg.gpus_per_node.max(1));
        let run = SignedDuration::from_secs(self.rng_load.random_range(load.run_seconds));
        let user = format!("user{}", self.rng_load.random_range(1..=9));
        self.new_job(user, "train".to_owned(), wanted, run, None);
    }

    fn new_job(
        &mut self,
        user: String,
        name: String,
        wanted: u32,
        run: SignedDuration,
        only_on: Option<usize>,
    ) -> u64 {
        self.next_job += 1;
        let id = self.next_job;
        let job = SimJob {
            id,
            user,
            name,
            node: None,
            gpus: BTreeSet::new(),
            wanted,
            state: JobState::Pending,
            completing: false,
            start: None,
            end: None,
            left: run,
            run,
            life: 0,
            only_on,
        };
        self.jobs.insert(id, job);
        self.waiting.insert(id);
        id
    }

    /// A job of the load arrives, and the next one is on its way.
    pub(crate) fn job_arrives(&mut self) {
        let Some(load) = self.cfg.load.clone() else { return };
        self.new_load_job();
        let gap = load.mean_gap.as_millis_f64() * -(1.0 - self.rng_load.random::<f64>()).ln();
        self.push_in(
            SignedDuration::from_millis(gap.clamp(100.0, 3_600_000.0) as i64),
            Happening::JobArrives,
        );
    }

    /// Lists the jobs that are or were on a node.
    pub(crate) fn jobs_of(&self, n: usize) -> impl Iterator<Item = &SimJob> {
        self.nodes[n].jobs.iter().filter_map(|id| self.jobs.get(id))
    }

    /// Lists the jobs that wait for this very node.
    pub(crate) fn waiting_for(&self, n: usize) -> Vec<u64> {
        let wanted = |id: &&u64| self.jobs.get(*id).is_some_and(|j| j.only_on == Some(n));
        self.waiting.iter().filter(wanted).copied().collect()
    }

    /// slurmctld forgets a finished job.
    pub(crate) fn forget_job(&mut self, id: u64) {
        let Some(job) = self.jobs.get(&id).filter(|j| j.state.is_finished() && !j.completing) else { return };
        if let Some(n) = job.node {
            self.nodes[n].jobs.remove(&id);
        }
        self.jobs.remove(&id);
    }

    fn free_gpus(&self, n: usize) -> Vec<u32> {
        let on = |g: u32| self.jobs_of(n).any(|j| j.uses(n, g) && j.state != JobState::Suspended);
        self.nodes[n].gpus.iter().map(|g| g.index).filter(|g| !on(*g)).collect()
    }

    /// Says whether Slurm starts jobs on the node, and if not, why.
    pub(crate) fn accepts(&self, n: usize) -> Result<(), String> {
        let node = &self.nodes[n];
        if node.down {
            return Err("the node is down".to_owned());
        }
        let closed = [
            NodeFlag::Drain,
            NodeFlag::Fail,
            NodeFlag::NotResponding,
            NodeFlag::RebootRequested,
            NodeFlag::RebootIssued,
            NodeFlag::InvalidReg,
        ];
        if let Some(f) = closed.iter().find(|f| node.has(**f)) {
            return Err(format!("the node is {f}"));
        }
        let reserved =
            self.reservations.iter().find(|(_, r)| r.node == n && r.start <= self.now && r.end > self.now);
        match reserved {
            Some((name, _)) => Err(format!("the node is reserved by {name}")),
            None => Ok(()),
        }
    }

    fn may_start(&self, n: usize, only_on: Option<usize>) -> bool {
        only_on.map_or(!self.keep_free.contains(&n), |wanted| wanted == n) && self.accepts(n).is_ok()
    }

    /// Puts a job for this very node into the queue; slurmctld looks at it a moment later.
    pub(crate) fn submit_for(&mut self, n: usize, gpus: u32, run: SignedDuration) -> u64 {
        self.new_job("user2".to_owned(), "train".to_owned(), gpus, run, Some(n))
    }

    /// Starts waiting jobs where there is room, oldest first.
    pub(crate) fn place_jobs(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let waiting: Vec<u64> = self.waiting.iter().copied().collect();
        if waiting.is_empty() || self.nodes.is_empty() {
            return;
        }
        for id in waiting {
            let Some((wanted, only_on)) = self.jobs.get(&id).map(|j| (j.wanted as usize, j.only_on)) else {
                continue;
            };
            let first = (id as usize).wrapping_mul(7) % self.nodes.len();
            let (first, count) = only_on.map_or((first, self.nodes.len()), |n| (n, 1));
            let place = (0..count).map(|i| (first + i) % self.nodes.len()).find_map(|n| {
                let free = self.may_start(n, only_on).then(|| self.free_gpus(n))?;
                (free.len() >= wanted).then(|| (n, free[..wanted].to_vec()))
            });
            if let Some((n, gpus)) = place {
                self.launch(id, n, gpus.into_iter().collect());
            }
        }
    }

    fn launch(&mut self, id: u64, n: usize, gpus: BTreeSet<u32>) {
        let now = self.now;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.node = Some(n);
        job.state = JobState::Running;
        job.start = Some(now);
        job.life += 1;
        job.end = Some(later(now, job.run));
        job.left = job.run;
        let what = format!("job {id} starts on GPUs {}", list(&gpus));
        job.gpus = gpus;
        let (end, life) = (later(now, job.run), job.life);
        self.waiting.remove(&id);
        self.nodes[n].jobs.insert(id);
        self.push(end, Happening::JobEnds(id, life));
        self.note(&Who::Users, Some(n), what);
    }

    /// Starts a job on this very node, if Slurm would.
    pub(crate) fn start_here(&mut self, n: usize, gpus: &[u32], run: SignedDuration) -> Result<u64, String> {
        self.accepts(n)?;
        let free = self.free_gpus(n);
        if let Some(g) = gpus.iter().find(|g| !free.contains(g)) {
            return Err(format!("GPU {g} is not free"));
        }
        let id = self.new_job("user1".to_owned(), "train".to_owned(), gpus.len() as u32, run, Some(n));
        self.launch(id, n, gpus.iter().copied().collect());
        Ok(id)
    }

    /// A job's time is over.
    pub(crate) fn job_ends(&mut self, id: u64, life: u64) {
        if self.jobs.get(&id).is_some_and(|j| j.life == life && j.state == JobState::Running) {
            self.finish(id, JobState::Completed, &Who::Users, "ends");
        }
    }

    /// Ends a job: COMPLETING until its epilog is through.
    pub(crate) fn finish(&mut self, id: u64, state: JobState, who: &Who, how: &str) {
        let now = self.now;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.state.is_finished() {
            return;
        }
        self.waiting.remove(&id);
        job.state = state;
        job.end = Some(now);
        job.life += 1;
        let node = job.node;
        job.completing = node.is_some();
        match state {
            JobState::Completed => self.jobs_done += 1,
            _ => self.jobs_broken += usize::from(*who == Who::Hardware),
        }
        if *who == Who::Engine {
            self.lost_jobs.push(id);
            self.violation(9, node, format!("job {id} {how}"));
        }
        self.note(who, node, format!("job {id} {how}"));
        let range = self.cfg.timings.epilog_ms.clone();
        let epilog = self.draw_ms(node, &range);
        self.push_in(epilog, Happening::EpilogEnds(id));
    }

    /// The epilog of a job is through: its node is clean.
    pub(crate) fn epilog_ends(&mut self, id: u64) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.completing = false;
        let node = job.node;
        self.push_in(self.cfg.timings.min_job_age, Happening::JobForgotten(id));
        if let Some(n) = node {
            self.note(&Who::Slurm, Some(n), format!("job {id} is cleaned up"));
            self.try_reboot(n);
        }
    }

    /// Freezes a running job: its processes stay on the GPUs.
    pub(crate) fn suspend(&mut self, who: &Who, id: u64) -> Result<(), String> {
        let now = self.now;
        let job = self.jobs.get_mut(&id).ok_or("Invalid job id specified")?;
        if job.state != JobState::Running {
            return Err("Job is not running".to_owned());
        }
        job.left = job.end.map_or(job.run, |e| e.duration_since(now));
        job.state = JobState::Suspended;
        job.life += 1;
        let node = job.node;
        self.note(who, node, format!("job {id} is suspended"));
        Ok(())
    }

    /// Lets a suspended job go on, on a drained node as well.
    pub(crate) fn unsuspend(&mut self, who: &Who, id: u64) -> Result<(), String> {
        let now = self.now;
        let job = self.jobs.get_mut(&id).ok_or("Invalid job id specified")?;
        if job.state != JobState::Suspended {
            return Err("Job is not suspended".to_owned());
        }
        job.state = JobState::Running;
        job.life += 1;
        let (end, life, node) = (later(now, job.left), job.life, job.node);
        job.end = Some(end);
        self.push(end, Happening::JobEnds(id, life));
        self.note(who, node, format!("job {id} goes on"));
        Ok(())
    }

    /// Kills what runs on a node and puts it back into the queue.
    pub(crate) fn requeue_jobs_of(&mut self, who: &Who, n: usize) {
        let ids: Vec<u64> = self.jobs_of(n).filter(|j| j.holds(n) && !j.completing).map(|j| j.id).collect();
        for id in ids {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.state = JobState::Pending;
                job.life += 1;
                job.node = None;
                job.gpus.clear();
                job.start = None;
                job.end = None;
            }
            self.nodes[n].jobs.remove(&id);
            self.waiting.insert(id);
            if *who == Who::Engine {
                self.lost_jobs.push(id);
                self.violation(9, Some(n), format!("job {id} is killed and requeued"));
            }
            self.note(who, Some(n), format!("job {id} is killed and requeued"));
        }
    }

    /// Ends the jobs on a GPU that broke.
    pub(crate) fn hardware_kills(&mut self, n: usize, gpu: u32) {
        let ids: Vec<u64> =
            self.jobs_of(n).filter(|j| j.uses(n, gpu) && !j.completing).map(|j| j.id).collect();
        for id in ids {
            self.finish(id, JobState::Failed, &Who::Hardware, "dies of the GPU's error");
        }
    }

    pub(crate) fn jobs_lost_to_engine(&self) -> usize {
        self.lost_jobs.iter().collect::<BTreeSet<_>>().len()
    }

    pub(crate) fn job_counts(&self) -> (usize, usize, usize) {
        let open = self.jobs.values().filter(|j| !j.state.is_finished()).count();
        (self.jobs_done, self.jobs_broken, open)
    }
}

fn list(gpus: &BTreeSet<u32>) -> String {
    gpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}
