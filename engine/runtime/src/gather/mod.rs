//! Gathering: one look at a node through every port, turned into facts.

mod recent;

pub(crate) use recent::RecentLooks;

use crate::ports::{
    Clock, GpuTelemetry, NodeActuator, Observed, Read, Scheduler, Verb, WorkOrder, WorkResult,
};
use engine_core::fact::{FactSet, Source};
use engine_core::known::{Cause, Known, Unknown};
use engine_core::model::node_state::classify;
use engine_core::model::{Gpu, Job, Node, NodeFlag, NodeGpus, NodeName, Reservation};
use engine_core::observe;
use engine_core::ownership::NodeMark;
use engine_core::plan::GpuRef;
use engine_core::value::Value;
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

/// One look at a node. What could not be read is unknown, with its cause. Copies share what was read.
#[derive(Debug, Clone)]
pub struct Situation {
    /// The node.
    pub node: Read<Arc<Node>>,
    /// Jobs that have it.
    pub jobs: Read<Arc<Vec<Job>>>,
    /// Every reservation.
    pub reservations: Read<Arc<Vec<Reservation>>>,
    /// Release of slurmctld.
    pub slurm_version: Known<String>,
    /// The GPUs and who saw them.
    pub gpus: Result<(Observed<NodeGpus>, Source), Unknown>,
    /// When the look began.
    pub at: Timestamp,
}

impl Situation {
    /// Says whether everything that Slurm tells could be read.
    pub fn slurm_is_readable(&self) -> Result<(), Unknown> {
        self.node.as_ref().map_err(Clone::clone)?;
        self.jobs.as_ref().map_err(Clone::clone)?;
        self.reservations.as_ref().map_err(Clone::clone)?;
        Ok(())
    }

    /// Copies what was read of the node's state, jobs and reservations, and nothing else.
    fn slurm_side(&self) -> Self {
        let unseen = Unknown::new(Cause::NotObserved, "not part of this look");
        Self {
            node: self.node.clone(),
            jobs: self.jobs.clone(),
            reservations: self.reservations.clone(),
            slurm_version: Known::Unknown(unseen.clone()),
            gpus: Err(unseen),
            at: self.at,
        }
    }

    /// Returns the jobs, or why they are not known.
    pub fn known_jobs(&self) -> Known<Vec<Job>> {
        self.jobs_seen().map(<[Job]>::to_vec)
    }

    /// Returns the jobs as they were read, or why they are not known.
    pub fn jobs_seen(&self) -> Known<&[Job]> {
        known(&self.jobs)
    }

    /// Returns what people can change about the node.
    pub fn mark(&self) -> Known<NodeMark> {
        let node = match &self.node {
            Ok(n) => &n.value,
            Err(u) => return Known::Unknown(u.clone()),
        };
        match &self.reservations {
            Ok(r) => NodeMark::of(node, &r.value, self.at),
            Err(u) => Known::Unknown(u.clone()),
        }
    }

    /// Returns the GPUs, or why they are not known.
    pub fn known_gpus(&self) -> Known<&NodeGpus> {
        match &self.gpus {
            Ok((g, _)) => Known::Known(&g.value),
            Err(u) => Known::Unknown(u.clone()),
        }
    }

    /// Takes the flags of our own lock reservation off, so that it does not stand in its own way: MAINTENANCE appears
    /// some seconds after the reservation begins. With any other reservation over the node nothing is taken off.
    fn without_our_lock(&self, node: &Node) -> Node {
        let mut node = node.clone();
        let Ok(all) = &self.reservations else { return node };
        let ours = engine_core::ownership::reservation_name(&node.name);
        let mut covering = all.value.iter().filter(|r| r.covers(&node.name, self.at)).peekable();
        if covering.peek().is_some() && covering.all(|r| r.name == ours) {
            node.flags.known.remove(&NodeFlag::Maintenance);
            node.flags.known.remove(&NodeFlag::Reserved);
            node.state = classify(&node.base, &node.flags);
        }
        node
    }

    /// Turns the look into facts, those of one GPU included.
    pub fn facts(&self, gpu: Option<&GpuRef>) -> FactSet {
        let mut facts = FactSet::default();
        match &self.node {
            Ok(node) => {
                observe::node_facts(&mut facts, &self.without_our_lock(&node.value), node.at);
                observe::reservation_facts(&mut facts, &node.value, &known(&self.reservations), self.at);
                observe::job_facts(&mut facts, Some(&node.value), &self.jobs_seen(), self.at);
            }
            Err(u) => {
                for name in
                    ["node.state", "node.reason", "node.in_maintenance", "active_jobs", "suspended_jobs"]
                {
                    facts.set(name, Known::Unknown(u.clone()), Source::Slurm, self.at);
                }
            }
        }
        facts.set("slurm.version", self.slurm_version.clone().map(Value::Version), Source::Slurm, self.at);
        match &self.gpus {
            Ok((gpus, source)) => {
                observe::gpus_facts(&mut facts, &gpus.value, *source, gpus.at);
                match gpu.map(|g| (g, find_gpu(&gpus.value, g))) {
                    Some((_, Some(found))) => {
                        observe::gpu_facts(&mut facts, found, &gpus.value, *source, gpus.at);
                    }
                    Some((g, None)) => {
                        let why = format!("GPU {} is not among the {} found", g.uuid, gpus.value.gpus.len());
                        facts.set("gpu.answers", Known::unknown(Cause::EmptyAnswer, why), *source, gpus.at);
                    }
                    None => {}
                }
            }
            Err(u) => {
                for f in
                    engine_core::vocabulary::FACTS.iter().filter(|f| f.per_gpu || f.name.starts_with("dcgm."))
                {
                    facts.set(f.name, Known::Unknown(u.clone()), Source::NodeTools, self.at);
                }
            }
        }
        facts
    }
}

/// Finds a GPU by UUID, and only if its bus id is still the same.
pub fn find_gpu<'a>(gpus: &'a NodeGpus, wanted: &GpuRef) -> Option<&'a Gpu> {
    gpus.gpus.iter().find(|g| {
        g.uuid.is_known_and(|u| *u == wanted.uuid) && g.bus_id.is_known_and(|b| *b == wanted.bus_id)
    })
}

fn known<T>(read: &Read<Arc<Vec<T>>>) -> Known<&[T]> {
    match read {
        Ok(o) => Known::Known(o.value.as_slice()),
        Err(u) => Known::Unknown(u.clone()),
    }
}

fn shared<T>(read: Read<T>) -> Read<Arc<T>> {
    read.map(|o| Observed { value: Arc::new(o.value), at: o.at })
}

/// The ports a look goes through.
#[derive(Debug, Clone, Copy)]
pub struct Eyes<'a> {
    /// The scheduler.
    pub scheduler: &'a dyn Scheduler,
    /// The node's own tools.
    pub actuator: &'a dyn NodeActuator,
    /// Telemetry without the node's tools, where configured.
    pub telemetry: Option<&'a dyn GpuTelemetry>,
    /// Time.
    pub clock: &'a dyn Clock,
}

impl Eyes<'_> {
    /// Looks at Slurm's side only; the parts are read side by side.
    pub async fn look_at_slurm(&self, node: &NodeName, slurm_version: Known<String>) -> Situation {
        let at = self.clock.now();
        let ((n, j), r) = tokio::join!(self.scheduler.node_with_jobs(node), self.scheduler.reservations());
        let gpus = Err(Unknown::new(Cause::NotObserved, "the GPUs were not part of this look"));
        Situation { node: shared(n), jobs: shared(j), reservations: shared(r), slurm_version, gpus, at }
    }

    /// Looks at Slurm's side and at the GPUs.
    pub async fn look(
        &self,
        node: &NodeName,
        slurm_version: Known<String>,
        limit: SignedDuration,
    ) -> Situation {
        let (mut situation, gpus) =
            tokio::join!(self.look_at_slurm(node, slurm_version), self.look_at_gpus(node, None, limit));
        situation.gpus = gpus;
        situation
    }

    /// Looks at the GPUs by the node's own tools, else by telemetry.
    pub async fn look_at_gpus(
        &self,
        node: &NodeName,
        order_id: Option<String>,
        limit: SignedDuration,
    ) -> Result<(Observed<NodeGpus>, Source), Unknown> {
        let status = self.actuator.status(node).await;
        let at = self.clock.now();
        if let Err(why) = status.ready {
            return match self.telemetry {
                Some(t) => t.gpus(node).await.map(|o| (o, Source::DcgmExporter)),
                None => Err(Unknown::new(Cause::NotObserved, why)),
            };
        }
        let id = order_id.unwrap_or_else(|| format!("look-{node}-{}", at.as_millisecond()));
        let order = WorkOrder { id, node: node.clone(), run: None, verb: Verb::Inspect, limit };
        match self.actuator.perform(&order).await {
            WorkResult::Inspected(gpus) => Ok((Observed { value: *gpus, at }, Source::NodeTools)),
            WorkResult::Refused(why) => Err(Unknown::new(Cause::ReadFailed, why)),
            WorkResult::Ambiguous(why) => Err(Unknown::new(Cause::TimedOut, why)),
            other => {
                Err(Unknown::new(Cause::Unparsable, format!("the node answered something else: {other:?}")))
            }
        }
    }
}
