//! Budgets under many incidents at once: never more nodes out of service than the policy allows, whoever took them, at
//! any moment of virtual time; runs queue and none is lost.

use crate::scene::Scene;
use engine_core::model::{BaseState, Node, NodeFlag};
use engine_core::policy::{Period, Policy, Rate, Share};
use engine_core::run::End;
use engine_testkit::world::PersonAction;
use std::sync::{Arc, Mutex};

/// Ten percent of forty nodes, and no other limit that would hide it.
fn tenth() -> Policy {
    let mut policy = Policy::default();
    policy.budgets.fleet = Share::percent(10);
    policy.budgets.partition = Share::percent(100);
    policy.budgets.rack = Share::percent(100);
    policy.concurrent_runs = 100;
    let plenty = Rate::new(10_000, Period::hours(1));
    policy.rates.reversible = plenty;
    policy.rates.disruptive = plenty;
    policy.attempts = Rate::new(50, Period::hours(1));
    policy
}

const NODES: usize = 40;
const LIMIT: usize = 4;

fn is_out(node: &Node) -> bool {
    node.flags.has(NodeFlag::Drain) || node.base.is_known_and(|b| *b == BaseState::Down)
}

/// Looks at the cluster ten times a second for as long as the engine lives; returns the most nodes ever out of service.
fn watch(s: &Scene) -> Arc<Mutex<usize>> {
    let most = Arc::new(Mutex::new(0));
    let (seen, s2) = (Arc::clone(&most), s.clone());
    let looks = async move {
        while !s2.journal.is_dead() {
            let names = s2.world.node_names();
            let out = names.iter().filter(|n| is_out(&s2.world.node_view(n).unwrap())).count();
            {
                let mut most = seen.lock().unwrap();
                *most = (*most).max(out);
            }
            engine_runtime::ports::Clock::sleep(&s2.clock, jiff::SignedDuration::from_millis(100)).await;
        }
    };
    s.spawner.spawn("watch", looks);
    most
}

async fn all_at_once(s: &Scene, incidents: usize) {
    for i in 0..incidents {
        s.break_gpu(i);
    }
    // Spread over the breaker's window: this is about budgets, not about storms.
    for i in 0..incidents {
        s.post(i).await;
        s.wait(310).await;
    }
}

#[tokio::test]
async fn people_and_runs_together_never_exceed_the_budget() {
    let s = Scene::under(&tenth(), NODES).await;
    let most = watch(&s);
    s.play(async {
        // Two of the four are taken by people for the first hours.
        for i in 30..32 {
            let action = PersonAction::Drain { node: s.node(i), reason: "rack work".into() };
            s.world.person_now("admin1", action).unwrap();
        }
        all_at_once(&s, 20).await;
        s.wait(1_200).await;
        assert_eq!(s.incidents().await, []);
    })
    .await;
    assert!(*most.lock().unwrap() <= LIMIT, "{} out of service", most.lock().unwrap());
    assert_eq!(s.ends().await, [(Some(End::Succeeded), 20)].into(), "none is lost");
    s.is_clean().await;
}

#[tokio::test]
async fn with_the_budget_taken_by_people_nothing_is_begun() {
    let s = Scene::under(&tenth(), NODES).await;
    s.break_gpu(1);
    s.play(async {
        for i in 30..34 {
            let action = PersonAction::Drain { node: s.node(i), reason: "rack work".into() };
            s.world.person_now("admin1", action).unwrap();
        }
        s.post(1).await;
        s.wait(900).await;
        assert!(!is_out(&s.world.node_view(&s.node(1)).unwrap()));
        let run = s.incidents().await[0].runs[0].clone();
        let why = s.engine.state(&run).await.unwrap().deferred.unwrap().why;
        assert!(why.contains("fleet: 4 of 40 out of service, budget 4 (10%)"), "{why}");
        // One comes back: the run goes on by itself.
        s.world.person_now("admin1", PersonAction::Resume { node: s.node(30) }).unwrap();
        s.wait(1_500).await;
        assert_eq!(s.incidents().await, []);
    })
    .await;
    assert_eq!(s.ends().await.get(&Some(End::Succeeded)), Some(&1));
}

/// Two engines on one journal: the leases are counted inside the transaction.
#[tokio::test]
async fn two_engines_on_one_journal_share_one_budget() {
    two_engines(false).await;
}

/// Two engines with two journals on one Slurm know of each other only by reservations and drains.
#[tokio::test]
async fn two_engines_with_two_journals_share_one_budget() {
    two_engines(true).await;
}

async fn two_engines(own_journal: bool) {
    let policy = tenth();
    let first = Scene::under(&policy, NODES).await;
    let second = first.beside("engine-2", &policy, own_journal).await;
    let most = watch(&first);
    second.work();
    first
        .play(async {
            for i in 0..16 {
                first.break_gpu(i);
            }
            for i in 0..16 {
                first.post(i).await;
                // The same alert reaches both where they do not share a record.
                second.post(i).await;
                first.wait(310).await;
            }
            first.wait(2_400).await;
            second.dispatcher.stop();
            second.journal.kill();
        })
        .await;
    assert!(*most.lock().unwrap() <= LIMIT, "{} out of service", most.lock().unwrap());
    assert_eq!(first.world.violations(), []);
    let resets = first.world.resets();
    for i in 0..16 {
        let of_node = resets.iter().filter(|r| r.node == first.node(i)).count();
        assert_eq!(of_node, 1, "{}: never two runs on one node", first.node(i));
    }
}
