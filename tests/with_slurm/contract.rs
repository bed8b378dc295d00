//! The contract of the scheduler port, against the real Slurm; `engine/testkit/tests/contract_sim.rs` holds the
//! simulator to the same scenarios.

use crate::support::cmd::{Done, run};
use crate::support::lab::{Lab, Lent};
use async_trait::async_trait;
use engine_adapters::slurm::{SlurmBackend, SlurmConfig};
use engine_core::model::NodeName;
use engine_runtime::ports::Scheduler;
use engine_testkit::contract::{ContractTarget, SCENARIOS, run_one};
use jiff::{SignedDuration, Timestamp};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A node of the lab, the port under test, and hands that know nothing of the port.
struct Real<'a> {
    lab: &'a Lab,
    node: NodeName,
    port: Arc<SlurmBackend>,
    /// Every job submitted: `scancel -w` does not find one that still waits.
    jobs: Mutex<Vec<u64>>,
}

impl std::fmt::Debug for Real<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.node, self.lab.dir().display())
    }
}

/// What a program said, if it ended well.
fn said(done: Done) -> Result<String, String> {
    if done.code == 0 { Ok(done.out) } else { Err(done.to_string()) }
}

impl<'a> Real<'a> {
    fn new(lab: &'a Lab, node: &str) -> Self {
        let bin = |name: &str| Some(lab.bin().join(name));
        let config = SlurmConfig {
            scontrol: bin("scontrol"),
            squeue: bin("squeue"),
            sinfo: bin("sinfo"),
            slurm_conf: Some(lab.conf()),
            ..SlurmConfig::default()
        };
        Self {
            lab,
            node: NodeName::new(node).unwrap(),
            port: Arc::new(SlurmBackend::new(config).unwrap()),
            jobs: Mutex::default(),
        }
    }

    /// `scontrol` in the hands of somebody else: `SlurmUser`, who may do what root may; without root, who we are.
    fn person(&self, args: &[&str]) -> Result<(), String> {
        let scontrol = self.lab.bin().join("scontrol");
        let mut c = if nix::unistd::geteuid().is_root() {
            let mut c = Command::new("setpriv");
            c.args(["--reuid=slurm", "--regid=slurm", "--clear-groups"]).arg(scontrol);
            c
        } else {
            Command::new(scontrol)
        };
        c.args(args).env("SLURM_CONF", self.lab.conf()).env("LC_ALL", "C").current_dir(self.lab.dir());
        said(run(&mut c, Duration::from_secs(40))).map(|_| ())
    }

    fn lab(&self, args: &[&str]) -> Result<(), String> {
        said(self.lab.lab(args)).map(|_| ())
    }

    fn submit(&self, node: &NodeName, run: SignedDuration) -> Result<u64, String> {
        let wrap = format!("sleep {}", run.as_secs());
        let args = ["--parsable", "-w", node.as_str(), "--gpus=1", "--output=/dev/null", "--wrap", &wrap];
        let id = said(self.lab.client("sbatch", &args))?;
        let id = id.trim().parse().map_err(|e| format!("sbatch said {id:?}: {e}"))?;
        self.jobs.lock().unwrap().push(id);
        Ok(id)
    }
}

#[async_trait]
impl ContractTarget for Real<'_> {
    fn scheduler(&self) -> Arc<dyn Scheduler> {
        Arc::clone(&self.port) as Arc<dyn Scheduler>
    }

    fn node(&self) -> NodeName {
        self.node.clone()
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn wait(&self, duration: SignedDuration) {
        tokio::time::sleep(duration.unsigned_abs()).await;
    }

    async fn start_job(&self, node: &NodeName, run: SignedDuration) -> Result<u64, String> {
        let id = self.submit(node, run)?;
        self.lab.await_job(&id.to_string(), "RUNNING");
        Ok(id)
    }

    async fn submit_job(&self, node: &NodeName, run: SignedDuration) -> Result<(), String> {
        self.submit(node, run).map(|_| ())
    }

    async fn suspend_job(&self, job: u64) -> Result<(), String> {
        self.person(&["suspend", &job.to_string()])
    }

    async fn end_job(&self, job: u64) -> Result<(), String> {
        said(self.lab.client("scancel", &[&job.to_string()])).map(|_| ())
    }

    async fn person_drains(&self, node: &NodeName, reason: &str) -> Result<(), String> {
        self.person(&["update", &format!("nodename={node}"), "state=drain", &format!("reason={reason}")])
    }

    async fn person_resumes(&self, node: &NodeName) -> Result<(), String> {
        self.person(&["update", &format!("nodename={node}"), "state=resume"])
    }

    async fn kill_slurmd(&self, node: &NodeName) -> Result<(), String> {
        self.lab(&["stop", node.as_str(), "KILL"])
    }

    async fn start_slurmd(&self, node: &NodeName) -> Result<(), String> {
        self.lab(&["start", node.as_str()])
    }

    async fn hang_controller(&self) -> Result<(), String> {
        self.lab(&["signal", "slurmctld", "STOP"])
    }

    async fn release_controller(&self) -> Result<(), String> {
        self.lab(&["signal", "slurmctld", "CONT"])?;
        let answer = said(self.lab.scontrol(&["ping"]))?;
        if answer.contains("is UP") { Ok(()) } else { Err(answer) }
    }

    async fn clean_up(&self, node: &NodeName) -> Result<(), String> {
        for job in std::mem::take(&mut *self.jobs.lock().unwrap()) {
            // refused for a job that has ended, which is what is wanted
            self.lab.client("scancel", &["--quiet", &job.to_string()]);
        }
        self.lab.forget(&[node.as_str().to_owned()]);
        self.lab.await_state(node.as_str(), &["IDLE"]);
        Ok(())
    }
}

/// Carries one scenario out on a borrowed node.
fn holds(lent: &Lent, scenario: &str) {
    let real = Real::new(lent, lent.name(0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = runtime.block_on(run_one(&real, scenario));
    assert_eq!(result, Ok(()), "{scenario}");
}

/// One test for each scenario, and the list of them.
macro_rules! scenarios {
    ($($test:ident: $lent:ident, $scenario:literal;)+) => {
        const HERE: &[&str] = &[$($scenario),+];
        $(
            #[test]
            fn $test() {
                holds(&Lent::$lent(1), $scenario);
            }
        )+
    };
}

scenarios! {
    drain: nodes, "drain";
    drain_twice: nodes, "drain twice keeps time and user";
    drain_with_another_reason: nodes, "drain with another reason overwrites";
    drain_without_a_reason: nodes, "drain without a reason is refused";
    drain_of_an_unknown_node: nodes, "drain of an unknown node is refused";
    foreign_drain: nodes, "a foreign drain is seen with its words";
    resume: nodes, "resume";
    resume_of_a_healthy_node: nodes, "resume of a healthy node is refused";
    resume_of_a_foreign_drain: nodes, "resume lifts a foreign drain";
    resume_with_a_dead_slurmd: nodes, "resume with a dead slurmd stays silent";
    drained_node_and_jobs: nodes, "a drained node starts no job and keeps its own";
    job_race: nodes, "a job that starts while we drain is seen or never starts";
    suspended_job: nodes, "a suspended job is still there";
    lock_reservation: nodes, "the lock reservation is a test-and-set";
    reservation_and_jobs: nodes, "a reservation keeps new jobs out";
    unknown_node: nodes, "an unknown node is an error";
    hanging_controller: alone, "a hanging controller gives no answer";
    write_applied_later: alone, "a write that timed out is applied later";
}

#[test]
fn every_scenario_of_the_contract_is_run_here() {
    assert_eq!(HERE, SCENARIOS);
}
