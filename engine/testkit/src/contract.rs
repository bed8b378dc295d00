//! The contract of the scheduler port: what drain, resume, jobs, reservations and time-outs mean.
//!
//! Written once, against [`ContractTarget`]; run against the simulator and against a real Slurm, so that the simulator
//! cannot drift from the truth. Expectations use the port's own types alone.

use async_trait::async_trait;
use engine_core::model::{BaseState, Node, NodeFlag, NodeName, Reason};
use engine_runtime::ports::{LockReservation, RefusalKind, Scheduler, Write};
use jiff::{SignedDuration, Timestamp};
use std::fmt::Debug;
use std::sync::Arc;

/// A cluster that the contract can be tried on, with hands of its own: everything but the scheduler port acts as
/// somebody else than the engine.
///
/// Every method returns an error text where the target itself failed; that fails the scenario.
#[async_trait]
pub trait ContractTarget: Send + Sync + Debug {
    /// Returns the port under test.
    fn scheduler(&self) -> Arc<dyn Scheduler>;
    /// Returns the node to use: idle, undrained, without jobs and reservations. It is cleaned up by the target after
    /// each scenario.
    fn node(&self) -> NodeName;
    /// Returns the time, for the ends of reservations.
    fn now(&self) -> Timestamp;
    /// Waits.
    async fn wait(&self, duration: SignedDuration);
    /// Submits a job to this node that runs for this long, and returns when it runs; its number.
    async fn start_job(&self, node: &NodeName, run: SignedDuration) -> Result<u64, String>;
    /// Submits a job to this node and does not wait for anything.
    async fn submit_job(&self, node: &NodeName, run: SignedDuration) -> Result<(), String>;
    /// Suspends a running job.
    async fn suspend_job(&self, job: u64) -> Result<(), String>;
    /// Ends a job.
    async fn end_job(&self, job: u64) -> Result<(), String>;
    /// Another administrator drains the node.
    async fn person_drains(&self, node: &NodeName, reason: &str) -> Result<(), String>;
    /// Another administrator resumes the node.
    async fn person_resumes(&self, node: &NodeName) -> Result<(), String>;
    /// Kills the node's slurmd.
    async fn kill_slurmd(&self, node: &NodeName) -> Result<(), String>;
    /// Starts the node's slurmd again.
    async fn start_slurmd(&self, node: &NodeName) -> Result<(), String>;
    /// Makes slurmctld hang, as under SIGSTOP: calls time out.
    async fn hang_controller(&self) -> Result<(), String>;
    /// Lets slurmctld go on; what reached it meanwhile is applied.
    async fn release_controller(&self) -> Result<(), String>;
    /// Brings the node back to how [`ContractTarget::node`] promises it.
    async fn clean_up(&self, node: &NodeName) -> Result<(), String>;
}

/// The names of the scenarios, in the order of [`run_all`].
pub const SCENARIOS: &[&str] = &[
    "drain",
    "drain twice keeps time and user",
    "drain with another reason overwrites",
    "drain without a reason is refused",
    "drain of an unknown node is refused",
    "a foreign drain is seen with its words",
    "resume",
    "resume of a healthy node is refused",
    "resume lifts a foreign drain",
    "resume with a dead slurmd stays silent",
    "a drained node starts no job and keeps its own",
    "a job that starts while we drain is seen or never starts",
    "a suspended job is still there",
    "the lock reservation is a test-and-set",
    "a reservation keeps new jobs out",
    "an unknown node is an error",
    "a hanging controller gives no answer",
    "a write that timed out is applied later",
];

/// What a scenario came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Its name.
    pub scenario: &'static str,
    /// Nothing, or what was otherwise than expected.
    pub result: Result<(), String>,
}

/// Runs every scenario, each on a clean node.
pub async fn run_all(target: &dyn ContractTarget) -> Vec<Verdict> {
    let mut verdicts = Vec::with_capacity(SCENARIOS.len());
    for scenario in SCENARIOS {
        verdicts.push(Verdict { scenario, result: run_one(target, scenario).await });
    }
    verdicts
}

/// Runs one scenario by its name, and cleans up whatever came of it.
pub async fn run_one(target: &dyn ContractTarget, scenario: &str) -> Result<(), String> {
    let c = Contract { target, slurm: target.scheduler(), node: target.node() };
    c.starts_clean().await?;
    let result = match scenario {
        "drain" => c.drain().await,
        "drain twice keeps time and user" => c.drain_twice().await,
        "drain with another reason overwrites" => c.drain_overwrites().await,
        "drain without a reason is refused" => c.drain_without_reason().await,
        "drain of an unknown node is refused" => c.drain_unknown().await,
        "a foreign drain is seen with its words" => c.foreign_drain().await,
        "resume" => c.resume().await,
        "resume of a healthy node is refused" => c.resume_healthy().await,
        "resume lifts a foreign drain" => c.resume_lifts_all().await,
        "resume with a dead slurmd stays silent" => c.resume_dead().await,
        "a drained node starts no job and keeps its own" => c.drained_node_and_jobs().await,
        "a job that starts while we drain is seen or never starts" => c.job_race().await,
        "a suspended job is still there" => c.suspended_job().await,
        "the lock reservation is a test-and-set" => c.lock().await,
        "a reservation keeps new jobs out" => c.reservation_and_jobs().await,
        "an unknown node is an error" => c.unknown_node().await,
        "a hanging controller gives no answer" => c.hang_reads().await,
        "a write that timed out is applied later" => c.applied_later().await,
        other => Err(format!("there is no scenario {other:?}")),
    };
    let cleaned =
        target.clean_up(&c.node).await.map_err(|e| format!("the node could not be cleaned up: {e}"));
    result.and(cleaned)
}

const OURS: &str = "[slurmedic:contract@1.0.0#c1] first words";
const OTHER: &str = "[slurmedic:contract@1.0.0#c1] other words";
const THEIRS: &str = "maintenance: do not touch";

struct Contract<'a> {
    target: &'a dyn ContractTarget,
    slurm: Arc<dyn Scheduler>,
    node: NodeName,
}

fn secs(n: i64) -> SignedDuration {
    SignedDuration::from_secs(n)
}

fn expect(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

fn accepted(write: &Write) -> Result<(), String> {
    expect(*write == Write::Accepted, || format!("wanted Accepted, got {write:?}"))
}

fn refused_as(write: &Write, kinds: &[RefusalKind]) -> Result<(), String> {
    let fits = matches!(write, Write::Refused(r) if kinds.contains(&r.kind));
    expect(fits, || format!("wanted a refusal of {kinds:?}, got {write:?}"))
}

impl Contract<'_> {
    async fn look(&self) -> Result<Node, String> {
        self.slurm
            .node(&self.node)
            .await
            .map(|o| o.value)
            .map_err(|u| format!("the node could not be read: {u}"))
    }

    /// Holds the target to what [`ContractTarget::node`] promises.
    async fn starts_clean(&self) -> Result<(), String> {
        let node = self.look().await?;
        let plain = node.base.is_known_and(|b| *b == BaseState::Idle)
            && node.flags.known.is_empty()
            && node.flags.unknown.is_empty();
        expect(plain, || format!("the node is not plain idle: {:?} {:?}", node.base, node.flags))?;
        let jobs = self.holding_jobs().await?;
        expect(jobs.is_empty(), || format!("jobs {jobs:?} are on the node"))
    }

    async fn reason(&self) -> Result<Option<Reason>, String> {
        let node = self.look().await?;
        node.reason.into_known().ok_or_else(|| "the reason is unknown".to_owned())
    }

    async fn has(&self, flag: NodeFlag) -> Result<bool, String> {
        Ok(self.look().await?.flags.has(flag))
    }

    /// Polls until the node is as wanted.
    async fn until(
        &self,
        limit: SignedDuration,
        what: &str,
        test: impl Fn(&Node) -> bool,
    ) -> Result<Node, String> {
        let deadline = self.target.now().checked_add(limit).unwrap_or(Timestamp::MAX);
        loop {
            let node = self.look().await?;
            if test(&node) {
                return Ok(node);
            }
            if self.target.now() >= deadline {
                return Err(format!(
                    "{what}: not within {limit:#}; the node is {:?} {:?}",
                    node.base, node.flags
                ));
            }
            self.target.wait(SignedDuration::from_millis(250)).await;
        }
    }

    async fn drained_by_us(&self) -> Result<Reason, String> {
        accepted(&self.slurm.drain(&self.node, OURS).await)?;
        let node = self.look().await?;
        expect(node.flags.has(NodeFlag::Drain), || format!("no DRAIN after a drain: {:?}", node.flags))?;
        let reason = self.reason().await?.ok_or("no reason after a drain")?;
        expect(reason.text == OURS, || format!("the reason is {:?}", reason.text))?;
        expect(reason.user.is_known() && reason.at.is_known(), || format!("no user or time: {reason:?}"))?;
        Ok(reason)
    }

    async fn holding_jobs(&self) -> Result<Vec<u64>, String> {
        let jobs =
            self.slurm.jobs_on(&self.node).await.map_err(|u| format!("the jobs could not be read: {u}"))?;
        Ok(jobs.value.iter().filter(|j| j.holds_node()).map(|j| j.id).collect())
    }

    fn lock_of(&self, minutes: i64) -> LockReservation {
        let end = self.target.now().checked_add(SignedDuration::from_mins(minutes)).unwrap_or(Timestamp::MAX);
        let end = Timestamp::from_second(end.as_second()).unwrap_or(end);
        LockReservation {
            name: engine_core::ownership::reservation_name(&self.node),
            node: self.node.clone(),
            end,
        }
    }

    async fn drain(&self) -> Result<(), String> {
        self.drained_by_us().await.map(|_| ())
    }

    async fn drain_twice(&self) -> Result<(), String> {
        let first = self.drained_by_us().await?;
        self.target.wait(secs(2)).await;
        accepted(&self.slurm.drain(&self.node, OURS).await)?;
        let second = self.reason().await?;
        expect(second.as_ref() == Some(&first), || format!("{first:?} became {second:?}"))
    }

    async fn drain_overwrites(&self) -> Result<(), String> {
        let first = self.drained_by_us().await?;
        self.target.wait(secs(2)).await;
        accepted(&self.slurm.drain(&self.node, OTHER).await)?;
        let second = self.reason().await?.ok_or("no reason")?;
        expect(second.text == OTHER, || format!("the reason is {:?}", second.text))?;
        expect(second.at != first.at, || "the time of the reason did not change".to_owned())
    }

    async fn drain_without_reason(&self) -> Result<(), String> {
        let write = self.slurm.drain(&self.node, "").await;
        expect(matches!(write, Write::Refused(_)), || format!("wanted a refusal, got {write:?}"))?;
        expect(!self.has(NodeFlag::Drain).await?, || "the node is drained all the same".to_owned())
    }

    async fn drain_unknown(&self) -> Result<(), String> {
        let nobody = NodeName::new("nosuchnode9").map_err(|e| e.to_string())?;
        refused_as(&self.slurm.drain(&nobody, OURS).await, &[RefusalKind::NotFound])?;
        refused_as(&self.slurm.resume(&nobody).await, &[RefusalKind::NotFound])
    }

    async fn foreign_drain(&self) -> Result<(), String> {
        self.target.person_drains(&self.node, THEIRS).await?;
        let node = self.look().await?;
        expect(node.flags.has(NodeFlag::Drain), || format!("no DRAIN: {:?}", node.flags))?;
        let text = self.reason().await?.map(|r| r.text);
        expect(text.as_deref() == Some(THEIRS), || format!("the reason is {text:?}"))
    }

    async fn resume(&self) -> Result<(), String> {
        self.drained_by_us().await?;
        accepted(&self.slurm.resume(&self.node).await)?;
        let node = self.look().await?;
        expect(!node.flags.has(NodeFlag::Drain), || "DRAIN is still set".to_owned())?;
        self.until(secs(15), "the node answers", |n| !n.flags.has(NodeFlag::NotResponding)).await.map(|_| ())
    }

    async fn resume_healthy(&self) -> Result<(), String> {
        refused_as(&self.slurm.resume(&self.node).await, &[RefusalKind::InvalidState])
    }

    async fn resume_lifts_all(&self) -> Result<(), String> {
        self.target.person_drains(&self.node, THEIRS).await?;
        self.target.wait(secs(1)).await;
        accepted(&self.slurm.resume(&self.node).await)?;
        expect(!self.has(NodeFlag::Drain).await?, || {
            "Slurm kept a foreign drain: the engine's guard would not be needed".to_owned()
        })
    }

    async fn resume_dead(&self) -> Result<(), String> {
        self.drained_by_us().await?;
        self.target.kill_slurmd(&self.node).await?;
        self.target.wait(secs(1)).await;
        accepted(&self.slurm.resume(&self.node).await)?;
        let silent = |n: &Node| n.flags.has(NodeFlag::NotResponding);
        self.until(secs(2), "NOT_RESPONDING", silent).await?;
        self.target.wait(secs(6)).await;
        expect(self.has(NodeFlag::NotResponding).await?, || "a dead node answered".to_owned())?;
        self.target.start_slurmd(&self.node).await?;
        self.until(secs(30), "the node answers again", |n| !silent(n)).await.map(|_| ())
    }

    async fn drained_node_and_jobs(&self) -> Result<(), String> {
        let job = self.target.start_job(&self.node, secs(600)).await?;
        self.drained_by_us().await?;
        expect(self.holding_jobs().await? == [job], || "the running job is gone".to_owned())?;
        self.target.submit_job(&self.node, secs(600)).await?;
        self.target.wait(secs(4)).await;
        let jobs = self.holding_jobs().await?;
        expect(jobs == [job], || format!("jobs {jobs:?} hold a drained node, wanted {job} alone"))?;
        self.target.end_job(job).await?;
        let deadline = self.target.now().checked_add(secs(30)).unwrap_or(Timestamp::MAX);
        while !self.holding_jobs().await?.is_empty() || self.has(NodeFlag::Completing).await? {
            expect(self.target.now() < deadline, || "the job does not go away".to_owned())?;
            self.target.wait(SignedDuration::from_millis(250)).await;
        }
        Ok(())
    }

    async fn job_race(&self) -> Result<(), String> {
        self.target.submit_job(&self.node, secs(600)).await?;
        accepted(&self.slurm.drain(&self.node, OURS).await)?;
        let at_once = self.holding_jobs().await?;
        self.target.wait(secs(4)).await;
        let later = self.holding_jobs().await?;
        expect(later == at_once, || format!("jobs {at_once:?} right after the drain became {later:?}"))
    }

    async fn suspended_job(&self) -> Result<(), String> {
        let job = self.target.start_job(&self.node, secs(600)).await?;
        self.target.suspend_job(job).await?;
        accepted(&self.slurm.drain(&self.node, OURS).await)?;
        let jobs = self.slurm.jobs_on(&self.node).await.map_err(|u| u.to_string())?.value;
        let found = jobs.iter().find(|j| j.id == job).ok_or("the suspended job is not listed")?;
        expect(found.is_suspended() && found.holds_node(), || format!("the job is {:?}", found.state))
    }

    async fn lock(&self) -> Result<(), String> {
        let lock = self.lock_of(30);
        accepted(&self.slurm.create_lock(&lock).await)?;
        let second = LockReservation { end: self.lock_of(60).end, ..lock.clone() };
        refused_as(&self.slurm.create_lock(&second).await, &[RefusalKind::AlreadyExists])?;
        let all = self.slurm.reservations().await.map_err(|u| u.to_string())?.value;
        let ours = all.iter().find(|r| r.name == lock.name).ok_or("the reservation is not listed")?;
        expect(ours.is_maintenance() && ours.covers(&self.node, self.target.now()), || format!("{ours:?}"))?;
        expect(ours.end.is_known_and(|e| *e == lock.end), || {
            format!("end is {:?}, wanted {}", ours.end, lock.end)
        })?;
        let shown = |n: &Node| n.flags.has(NodeFlag::Maintenance) && n.flags.has(NodeFlag::Reserved);
        self.until(secs(20), "MAINTENANCE and RESERVED", shown).await?;
        accepted(&self.slurm.delete_reservation(&lock.name).await)?;
        refused_as(&self.slurm.delete_reservation(&lock.name).await, &[RefusalKind::NotFound])?;
        self.until(secs(20), "the flags go", |n| !n.flags.has(NodeFlag::Maintenance)).await.map(|_| ())
    }

    async fn reservation_and_jobs(&self) -> Result<(), String> {
        accepted(&self.slurm.create_lock(&self.lock_of(30)).await)?;
        self.target.submit_job(&self.node, secs(600)).await?;
        self.target.wait(secs(4)).await;
        let jobs = self.holding_jobs().await?;
        expect(jobs.is_empty(), || format!("jobs {jobs:?} started on a reserved node"))
    }

    async fn unknown_node(&self) -> Result<(), String> {
        let nobody = NodeName::new("nosuchnode9").map_err(|e| e.to_string())?;
        let node = self.slurm.node(&nobody).await;
        expect(node.is_err(), || format!("a node that does not exist was read: {node:?}"))?;
        let jobs = self.slurm.jobs_on(&nobody).await;
        expect(jobs.is_err(), || format!("jobs on a node that does not exist: {jobs:?}"))
    }

    async fn hang_reads(&self) -> Result<(), String> {
        self.target.hang_controller().await?;
        let (node, jobs) = (self.slurm.node(&self.node).await, self.slurm.jobs_on(&self.node).await);
        self.target.release_controller().await?;
        expect(node.is_err(), || format!("a hanging controller gave {node:?}"))?;
        expect(jobs.is_err(), || format!("a hanging controller gave {jobs:?}"))?;
        self.look().await.map(|_| ())
    }

    async fn applied_later(&self) -> Result<(), String> {
        self.target.hang_controller().await?;
        let write = self.slurm.drain(&self.node, OURS).await;
        self.target.release_controller().await?;
        expect(matches!(write, Write::Ambiguous(_)), || format!("wanted Ambiguous, got {write:?}"))?;
        self.until(secs(20), "the drain is applied", |n| n.flags.has(NodeFlag::Drain)).await?;
        let text = self.reason().await?.map(|r| r.text);
        expect(text.as_deref() == Some(OURS), || format!("the reason is {text:?}"))
    }
}
