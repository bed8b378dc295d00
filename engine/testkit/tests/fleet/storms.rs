//! Storms and people's stops: everything stands still at once, what was begun comes to a safe end, and nothing stale is
//! ever replayed.

use crate::scene::Scene;
use engine_core::incident::{FleetEvent, Phase, QueuedWork, Scope, Subject};
use engine_core::model::NodeFlag;
use engine_core::run::{Actor, End};
use engine_testkit::world::{Fault, Script};
use jiff::SignedDuration;

const NODES: usize = 100;

/// Thirty of a hundred nodes alert within a minute. The breaker trips as soon as the share is passed; one fleet
/// incident; nothing is begun any more.
async fn storm(s: &Scene) {
    for i in 0..30 {
        s.break_gpu(i);
        s.post(i).await;
        s.wait(2).await;
    }
}

#[tokio::test]
async fn a_storm_trips_the_breaker_and_nothing_more_is_begun() {
    let s = Scene::new(NODES).await;
    s.play(async {
        for i in 0..11 {
            s.post(i).await;
        }
        let before = s.clock_now();
        let stops: Vec<Scope> =
            s.log.read(|f| f.switches().iter().map(|(scope, _)| scope.clone()).collect()).await;
        assert_eq!(stops, [Scope::Fleet], "11 of 100 are more than 10 %");
        assert!(s.clock_now().duration_since(before) < SignedDuration::from_secs(1));
        let breakers =
            s.incidents().await.into_iter().filter(|i| matches!(i.subject, Subject::Breaker { .. }));
        assert_eq!(breakers.count(), 1);
    })
    .await;
    let tripped = s.history().await.into_iter().filter(|e| e.word() == "tripped").count();
    assert_eq!(tripped, 1, "and it trips once");
}

#[tokio::test]
async fn released_to_judge_anew_only_faults_that_still_hold_are_planned() {
    let s = Scene::new(NODES).await;
    s.play(async {
        storm(&s).await;
        s.wait(900).await;
        let resets_before = s.world.resets().len();
        let waiting = s.incidents().await.iter().filter(|i| i.is_queued()).count();
        assert!(waiting >= 15, "{waiting} wait");
        assert!(s.incidents().await.iter().filter(|i| i.is_queued()).all(|i| i.part_of.is_some()));
        // Meanwhile somebody repairs half of them by hand.
        let mut cured = 0;
        for i in 0..30 {
            let waits = s.incidents().await.iter().any(|x| x.node() == Some(&s.node(i)) && x.is_queued());
            if waits && i % 2 == 0 {
                s.world.inject(&s.node(i), 2, Fault::Repaired).unwrap();
                cured += 1;
            }
        }
        assert_eq!(s.world.resets().len(), resets_before, "nothing is reset while the breaker is open");
        s.release(Scope::Fleet, QueuedWork::JudgeAnew).await;
        s.wait(3_600).await;
        let with_person = s.incidents().await;
        assert_eq!(with_person.len(), cured, "those that were cured by hand: nothing to repair");
        for i in &with_person {
            assert!(
                matches!(&i.phase, Phase::WithPerson { why } if why.contains("nothing to repair")),
                "{i:?}"
            );
        }
        assert_eq!(s.world.resets().len(), 30 - cured, "each of the others once");
    })
    .await;
    s.is_clean().await;
}

#[tokio::test]
async fn released_to_drop_nothing_is_replayed() {
    let s = Scene::new(NODES).await;
    s.play(async {
        storm(&s).await;
        s.wait(900).await;
        let resets = s.world.resets().len();
        s.release(Scope::Fleet, QueuedWork::Drop).await;
        s.wait(1_800).await;
        assert_eq!(s.incidents().await, []);
        assert_eq!(s.world.resets().len(), resets);
    })
    .await;
    s.is_clean().await;
}

/// A person's stop in the middle of a run: the drain that stands is kept, nothing more is taken away, and what gives
/// back goes on.
#[tokio::test]
async fn a_stop_in_the_middle_freezes_what_takes_and_lets_through_what_gives_back() {
    let s = Scene::new(8).await;
    s.break_gpu(4);
    let node = s.node(4);
    // A job keeps the run waiting, so that the stop comes between drain and reset.
    let job = s.world.start_job(&node, &[7], SignedDuration::from_hours(3)).unwrap();
    s.play(async {
        s.post(4).await;
        s.wait(120).await;
        assert!(s.world.node_view(&node).unwrap().flags.has(NodeFlag::Drain));
        let stop =
            FleetEvent::Stopped { scope: Scope::Fleet, by: Actor::person("lead"), why: "power work".into() };
        s.log.note(stop).await.unwrap();
        s.world.run(Script::FinishJob { job }).unwrap();
        s.wait(300).await;
        assert_eq!(s.world.resets(), [], "frozen");
        let run = s.incidents().await[0].runs[0].clone();
        let state = s.engine.state(&run).await.unwrap();
        assert!(state.deferred.is_some_and(|d| d.why.contains("lead stopped the fleet: power work")));
        s.release(Scope::Fleet, QueuedWork::JudgeAnew).await;
        s.wait(300).await;
        assert_eq!(s.world.resets().len(), 1);
        assert_eq!(s.incidents().await, []);
    })
    .await;
    assert_eq!(s.ends().await, [(Some(End::Succeeded), 1)].into());
    s.is_clean().await;
}

/// A stop that outlasts patience: the run goes back without having reset anything. The GPU is as sick as before, so the
/// node stays drained, says why, and a person has the incident.
#[tokio::test]
async fn a_stop_that_outlasts_patience_ends_the_run_safely() {
    let s = Scene::new(8).await;
    s.break_gpu(4);
    let node = s.node(4);
    let scope = Scope::Node(node.clone());
    let lead = Actor::person("lead");
    s.world.start_job(&node, &[7], SignedDuration::from_secs(90)).unwrap();
    s.play(async {
        s.post(4).await;
        s.wait(20).await;
        s.log.note(FleetEvent::Stopped { scope, by: lead, why: "mine".into() }).await.unwrap();
        s.wait(3 * 3_600).await;
        let view = s.world.node_view(&node).unwrap();
        let reason = view.reason.known().cloned().flatten().map(|r| r.text).unwrap_or_default();
        assert!(view.flags.has(NodeFlag::Drain) && reason.contains("held: "), "{reason}");
        assert!(reason.contains("lead stopped node gpu005: mine"), "{reason}");
        assert!(matches!(s.incidents().await[0].phase, Phase::WithPerson { .. }));
    })
    .await;
    assert_eq!(s.world.resets(), []);
    assert_eq!(s.ends().await, [(Some(End::Held), 1)].into());
    s.is_clean().await;
}
