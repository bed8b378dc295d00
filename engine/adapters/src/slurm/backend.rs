//! The scheduler port on a real Slurm.

use super::cli::Cli;
use super::config::{ConfigError, SlurmConfig};
use super::probe::{self, Access, Reader};
use super::rest::Rest;
use super::write::{self, Kind};
use crate::process;
use async_trait::async_trait;
use engine_core::known::{Cause, Known, Unknown};
use engine_core::model::{BaseState, Job, Node, NodeFlag, NodeName, Partition, PendingJob, Reservation};
use engine_core::policy::Topology;
use engine_runtime::ports::{Controller, LockReservation, Observed, Read, Refusal, Scheduler, Write};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Mutex;

/// A Slurm cluster, read through its clients or slurmrestd and written through `scontrol`.
///
/// It is probed at its first use and whenever [`Scheduler::controller`] is called.
#[derive(Debug)]
pub struct SlurmBackend {
    pub(super) config: SlurmConfig,
    pub(super) cli: Cli,
    pub(super) rest: Option<Rest>,
    probed: Mutex<Probed>,
}

/// What is kept of probes.
#[derive(Debug, Default)]
struct Probed {
    good: Option<Arc<Access>>,
    /// The last failure, for those who waited while it was made: they need not each wait for another one.
    failed: Option<(Instant, Unknown)>,
}

impl SlurmBackend {
    /// Checks the configuration and finds the clients. Asks the controller nothing yet.
    ///
    /// # Errors
    /// A configuration that cannot work, or clients that are not there.
    pub fn new(config: SlurmConfig) -> Result<Self, ConfigError> {
        let clients = config.clients()?;
        let rest = match &config.rest {
            Some(rest) => Some(
                Rest::new(rest, config.read_deadline())
                    .map_err(|problem| ConfigError::Bad { key: "rest", problem })?,
            ),
            None => None,
        };
        Ok(Self { cli: Cli::new(&config, clients), config, rest, probed: Mutex::default() })
    }

    /// Returns the configuration in use.
    pub fn configuration(&self) -> &SlurmConfig {
        &self.config
    }

    /// Returns what the last good probe found, probing first if there was none.
    async fn access(&self) -> Result<Arc<Access>, Unknown> {
        let asked = Instant::now();
        let mut probed = self.probed.lock().await;
        match &*probed {
            Probed { good: Some(access), .. } => return Ok(Arc::clone(access)),
            Probed { failed: Some((at, u)), .. } if *at >= asked => return Err(u.clone()),
            Probed { .. } => {}
        }
        match self.probe().await {
            Ok(access) => Ok(Arc::clone(probed.good.insert(Arc::new(access)))),
            Err(u) => {
                probed.failed = Some((Instant::now(), u.clone()));
                Err(u)
            }
        }
    }

    /// Probes again; what was known before stays in use where that fails.
    pub(super) async fn probe_again(&self) -> Result<Arc<Access>, Unknown> {
        // Not under the lock: reads that know their way need not wait for this.
        let access = Arc::new(self.probe().await?);
        self.probed.lock().await.good = Some(Arc::clone(&access));
        Ok(access)
    }

    async fn probe(&self) -> Result<Access, Unknown> {
        probe::probe(&self.config, &self.cli, self.rest.as_ref()).await
    }

    /// Reads the network topology that slurmctld goes by; `Known(None)` where the cluster has none.
    pub async fn topology(&self) -> Known<Option<Topology>> {
        match self.cli.topology().await {
            Ok(t) => Known::Known(t),
            Err(u) => Known::Unknown(u),
        }
    }

    fn rest(&self) -> Result<&Rest, Unknown> {
        self.rest.as_ref().ok_or_else(|| Unknown::new(Cause::ReadFailed, "slurmrestd is not configured"))
    }

    pub(super) fn read_by(&self, reader: &Reader) -> String {
        match (reader, &self.rest) {
            (Reader::Json(form), _) => form.describe(),
            (Reader::Rest(version), Some(rest)) => rest.describe(version),
            (Reader::Rest(version), None) => format!("slurmrestd {version}"),
            (Reader::Text, _) => "scontrol and squeue text".to_owned(),
        }
    }

    pub(super) fn written_by(&self) -> String {
        format!("{} update, create, delete", self.cli.clients.scontrol.display())
    }

    async fn read_node(&self, access: &Access, node: &NodeName) -> Result<Node, Unknown> {
        match &access.reader {
            Reader::Text => self.cli.text_node(node).await,
            Reader::Json(form) => self.cli.json_node(form, node).await,
            Reader::Rest(version) => self.rest()?.node(version, node).await,
        }
    }

    async fn read_jobs(&self, access: &Access, node: Option<&NodeName>) -> Result<Vec<Job>, Unknown> {
        access.complete("jobs")?;
        match &access.reader {
            Reader::Text => self.cli.text_jobs(node).await,
            Reader::Json(form) => self.cli.json_jobs(form).await,
            Reader::Rest(version) => self.rest()?.jobs(version).await,
        }
    }

    /// Reads the jobs of a node. That none holds it is believed only if the node, read afterwards, agrees.
    async fn read_jobs_on(&self, access: &Access, node: &NodeName) -> Result<Vec<Job>, Unknown> {
        let mut why = String::new();
        // A job may start between the two reads: then the next look at the jobs shows it.
        for _ in 0..2 {
            let jobs = self.read_jobs_listed(access, node).await?;
            if jobs.iter().any(Job::holds_node) {
                return Ok(jobs);
            }
            match busy(&self.read_node(access, node).await?) {
                None => return Ok(jobs),
                Some(b) => why = b,
            }
        }
        Err(disagree(node, &why))
    }

    /// Reads the jobs of a node and then the node itself, which serves as the proof that none holds it.
    async fn read_node_with_jobs(&self, access: &Access, node: &NodeName) -> (Read<Node>, Read<Vec<Job>>) {
        let mut last = None;
        for _ in 0..2 {
            let jobs_at = Timestamp::now();
            let jobs = self.read_jobs_listed(access, node).await;
            let node_at = Timestamp::now();
            let seen = observed(node_at, self.read_node(access, node).await);
            let idle = match (&jobs, &seen) {
                (Ok(jobs), _) if jobs.iter().any(Job::holds_node) => None,
                (Ok(_), Ok(seen)) => busy(&seen.value),
                (Ok(_), Err(u)) => return (Err(u.clone()), Err(u.clone())),
                (Err(_), _) => None,
            };
            match idle {
                None => return (seen, observed(jobs_at, jobs)),
                Some(why) => last = Some((seen, why)),
            }
        }
        match last {
            Some((seen, why)) => (seen, Err(disagree(node, &why))),
            None => (self.node(node).await, self.jobs_on(node).await),
        }
    }

    async fn read_jobs_listed(&self, access: &Access, node: &NodeName) -> Result<Vec<Job>, Unknown> {
        let mut jobs = self.read_jobs(access, Some(node)).await?;
        // A job whose nodes are not known may be on any.
        jobs.retain(|j| j.nodes.known().is_none_or(|nodes| nodes.contains(node)));
        Ok(jobs)
    }

    /// Runs one write and says what it came to.
    async fn write(&self, kind: Kind, name: &str, args: Result<Vec<String>, Refusal>) -> Write {
        let args = match args {
            Ok(a) => a,
            Err(refusal) => return Write::Refused(refusal),
        };
        let access = match self.access().await {
            Ok(a) => a,
            Err(u) => {
                return Write::Refused(write::not_sent(format!("the controller could not be probed: {u}")));
            }
        };
        let program = self.cli.scontrol([]).args(args).deadline(access.write_deadline).max_output(64 * 1024);
        let outcome = write::outcome(kind, name, process::run(&program).await);
        tracing::debug!(command = %program.display(), ?outcome, "wrote to slurm");
        outcome
    }
}

/// Says how a node shows that something runs or ends on it.
fn busy(node: &Node) -> Option<String> {
    match &node.base {
        Known::Unknown(u) => return Some(format!("its state is {u}")),
        Known::Known(b @ (BaseState::Allocated | BaseState::Mixed)) => {
            return Some(format!("its base state is {b:?}").to_uppercase());
        }
        Known::Known(_) => {}
    }
    node.flags.has(NodeFlag::Completing).then(|| "it is COMPLETING".to_owned())
}

fn disagree(node: &NodeName, why: &str) -> Unknown {
    Unknown::new(Cause::Conflicting, format!("no job holds {node} by the list of jobs, but {why}"))
}

fn observed<T>(at: Timestamp, value: Result<T, Unknown>) -> Read<T> {
    value.map(|value| Observed { value, at })
}

#[async_trait]
impl Scheduler for SlurmBackend {
    async fn controller(&self) -> Read<Controller> {
        let at = Timestamp::now();
        let access = self.probe_again().await?;
        let value = Controller {
            version: access.config.release.clone().map(|r| r.to_string()),
            read_by: self.read_by(&access.reader),
            written_by: self.written_by(),
            cluster: access.config.cluster.clone(),
        };
        Ok(Observed { value, at })
    }

    async fn node(&self, node: &NodeName) -> Read<Node> {
        let access = self.access().await?;
        observed(Timestamp::now(), self.read_node(&access, node).await)
    }

    async fn nodes(&self) -> Read<Vec<Node>> {
        let access = self.access().await?;
        access.complete("nodes")?;
        let at = Timestamp::now();
        let nodes = match &access.reader {
            Reader::Text => self.cli.text_nodes().await,
            Reader::Json(form) => self.cli.json_nodes(form).await,
            Reader::Rest(version) => self.rest()?.nodes(version).await,
        };
        observed(at, nodes)
    }

    async fn jobs_on(&self, node: &NodeName) -> Read<Vec<Job>> {
        let access = self.access().await?;
        // The earliest of its reads: a later one can only make it newer.
        observed(Timestamp::now(), self.read_jobs_on(&access, node).await)
    }

    async fn node_with_jobs(&self, node: &NodeName) -> (Read<Node>, Read<Vec<Job>>) {
        match self.access().await {
            Ok(access) => self.read_node_with_jobs(&access, node).await,
            Err(u) => (Err(u.clone()), Err(u)),
        }
    }

    async fn jobs(&self) -> Read<Vec<Job>> {
        let access = self.access().await?;
        observed(Timestamp::now(), self.read_jobs(&access, None).await)
    }

    async fn pending(&self) -> Read<Vec<PendingJob>> {
        let access = self.access().await?;
        access.complete("jobs")?;
        observed(Timestamp::now(), self.cli.pending().await)
    }

    async fn reservations(&self) -> Read<Vec<Reservation>> {
        let access = self.access().await?;
        access.complete("reservations")?;
        let at = Timestamp::now();
        let reservations = match &access.reader {
            Reader::Text => self.cli.text_reservations().await,
            Reader::Json(form) => self.cli.json_reservations(form).await,
            Reader::Rest(version) => self.rest()?.reservations(version).await,
        };
        observed(at, reservations)
    }

    async fn partitions(&self) -> Read<Vec<Partition>> {
        let access = self.access().await?;
        access.complete("partitions")?;
        let at = Timestamp::now();
        let partitions = match &access.reader {
            Reader::Text => self.cli.text_partitions().await,
            Reader::Json(form) => self.cli.json_partitions(form).await,
            Reader::Rest(version) => self.rest()?.partitions(version).await,
        };
        observed(at, partitions)
    }

    async fn drain(&self, node: &NodeName, reason: &str) -> Write {
        self.write(Kind::Drain, node.as_str(), write::drain_args(node, reason)).await
    }

    async fn resume(&self, node: &NodeName) -> Write {
        self.write(Kind::Resume, node.as_str(), Ok(write::resume_args(node))).await
    }

    async fn create_lock(&self, lock: &LockReservation) -> Write {
        self.write(Kind::CreateLock, &lock.name, write::lock_args(lock, &self.config.lock_user)).await
    }

    async fn delete_reservation(&self, name: &str) -> Write {
        self.write(Kind::DeleteReservation, name, write::delete_args(name)).await
    }
}
