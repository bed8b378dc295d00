//! The contract of the scheduler port, against the simulator.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop at once, as tests do")]

use async_trait::async_trait;
use engine_core::model::NodeName;
use engine_runtime::ports::{Clock, Scheduler};
use engine_testkit::contract::{ContractTarget, SCENARIOS, run_all};
use engine_testkit::ports::{SimClock, SimScheduler};
use engine_testkit::time::SimRuntime;
use engine_testkit::world::{HiccupRates, PersonAction, Script, SimConfig, SimWorld};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

#[derive(Debug)]
struct Sim {
    world: SimWorld,
    clock: SimClock,
    node: NodeName,
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut config = SimConfig::new(4, seed, "2026-01-05T08:00:00Z".parse().unwrap());
        config.hiccups = HiccupRates::default();
        let world = SimWorld::new(config);
        Self { clock: SimClock::new(&world), node: NodeName::new("gpu002").unwrap(), world }
    }

    fn act(&self, action: PersonAction) -> Result<(), String> {
        self.world.person_now("admin2", action)
    }
}

#[async_trait]
impl ContractTarget for Sim {
    fn scheduler(&self) -> Arc<dyn Scheduler> {
        Arc::new(SimScheduler::new(&self.world))
    }

    fn node(&self) -> NodeName {
        self.node.clone()
    }

    fn now(&self) -> Timestamp {
        self.world.now()
    }

    async fn wait(&self, duration: SignedDuration) {
        self.clock.sleep(duration).await;
    }

    async fn start_job(&self, node: &NodeName, run: SignedDuration) -> Result<u64, String> {
        self.world.start_job(node, &[0], run)
    }

    async fn submit_job(&self, node: &NodeName, run: SignedDuration) -> Result<(), String> {
        self.world.run(Script::SubmitJob { node: node.clone(), gpus: 1, run }).map(|_| ())
    }

    async fn suspend_job(&self, job: u64) -> Result<(), String> {
        self.act(PersonAction::SuspendJob { job })
    }

    async fn end_job(&self, job: u64) -> Result<(), String> {
        self.act(PersonAction::CancelJob { job })
    }

    async fn person_drains(&self, node: &NodeName, reason: &str) -> Result<(), String> {
        self.act(PersonAction::Drain { node: node.clone(), reason: reason.to_owned() })
    }

    async fn person_resumes(&self, node: &NodeName) -> Result<(), String> {
        self.act(PersonAction::Resume { node: node.clone() })
    }

    async fn kill_slurmd(&self, node: &NodeName) -> Result<(), String> {
        self.world.run(Script::Slurmd { node: node.clone(), alive: false }).map(|_| ())
    }

    async fn start_slurmd(&self, node: &NodeName) -> Result<(), String> {
        self.world.run(Script::Slurmd { node: node.clone(), alive: true }).map(|_| ())
    }

    async fn hang_controller(&self) -> Result<(), String> {
        self.world.run(Script::ControllerHang(SignedDuration::from_hours(1))).map(|_| ())
    }

    async fn release_controller(&self) -> Result<(), String> {
        self.world.run(Script::ControllerHang(SignedDuration::ZERO))?;
        self.clock.sleep(SignedDuration::from_millis(500)).await;
        Ok(())
    }

    async fn clean_up(&self, node: &NodeName) -> Result<(), String> {
        for job in self.world.jobs_view(node).iter().filter(|j| j.holds_node()) {
            self.act(PersonAction::CancelJob { job: job.id })?;
        }
        self.world.cancel_waiting("admin2");
        for r in self.world.reservations_view() {
            self.act(PersonAction::DeleteReservation { name: r.name })?;
        }
        // Refused on a node that is in service, which is what is wanted.
        let _ = self.act(PersonAction::Resume { node: node.clone() });
        self.clock.sleep(SignedDuration::from_secs(30)).await;
        let after = self.world.node_view(node).ok_or("no such node")?;
        if after.flags.known.is_empty() { Ok(()) } else { Err(format!("{:?}", after.flags)) }
    }
}

#[tokio::test]
async fn the_simulator_keeps_the_contract() {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let verdicts = SimRuntime::new(&sim.world).run(run_all(&sim)).await.unwrap();
        assert_eq!(verdicts.len(), SCENARIOS.len());
        for v in verdicts {
            assert_eq!(v.result, Ok(()), "{} with seed {seed}:\n{}", v.scenario, tail(&sim.world));
        }
        let lifted = sim.world.violations();
        // The contract makes the port lift a foreign drain on purpose, once: the rule book must have seen it.
        assert!(lifted.iter().any(|v| v.what.contains("lifted a drain")), "{lifted:?}");
    }
}

#[tokio::test]
async fn the_same_seed_gives_the_same_history() {
    let mut histories = Vec::new();
    for seed in [5, 5, 6] {
        let sim = Sim::new(seed);
        SimRuntime::new(&sim.world).run(run_all(&sim)).await.unwrap();
        histories.push(sim.world.log());
    }
    assert_eq!(histories[0], histories[1]);
    assert_ne!(histories[0], histories[2]);
}

fn tail(world: &SimWorld) -> String {
    let log = world.log();
    let lines: Vec<String> = log.iter().skip(log.len().saturating_sub(20)).map(ToString::to_string).collect();
    lines.join(
        "
",
    )
}
