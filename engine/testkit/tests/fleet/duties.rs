//! What a dispatcher owes to others: plans of processes that died, a journal that fails for a while, a person's no, and
//! locks that nobody holds.

use crate::scene::{Flaky, Scene, Setup, secs};
use engine_core::incident::{Alert as FleetAlert, Phase};
use engine_core::model::RunId;
use engine_core::policy::Policy;
use engine_core::run::{Actor, End, Refusal, RunState, Status};
use engine_playbook::Library;
use engine_runtime::engine::{Alert, Pass, ProposeRequest};
use engine_runtime::journal::Journal;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// A plan that a dispatcher made and has not given to its incident.
async fn unlinked(s: &Scene, node: usize) -> RunState {
    seen(s, node, s.clock_now()).await
}

async fn seen(s: &Scene, node: usize, last_seen: Timestamp) -> RunState {
    let library = Library::embedded();
    let request = ProposeRequest {
        playbook: library.find("dcgm-ecc-drain-reset").unwrap(),
        node: s.node(node),
        gpu: Some("2".into()),
        params: BTreeMap::new(),
        alert: Alert { id: "A-1".into(), last_seen: Some(last_seen) },
        initiator: Actor::engine("dispatcher"),
    };
    let proposal = s.engine.plan(request).await.unwrap();
    s.engine.record_plan(proposal).await.unwrap()
}

/// Another process may just be giving a young plan to its incident; an old one is given up in any round, not only in
/// the first.
#[tokio::test]
async fn a_plan_without_an_incident_is_given_up_when_it_is_old() {
    let s = Scene::new(8).await;
    s.break_gpu(1);
    s.break_gpu(2);
    s.play(async {
        let early = unlinked(&s, 1).await.run;
        s.wait(40).await;
        let late = unlinked(&s, 2).await.run;
        let ended = async |run: &RunId| s.engine.state(run).await.unwrap().status.is_terminal();
        assert!(!ended(&early).await, "a process may be about to link it");
        s.wait(40).await;
        assert!(ended(&early).await && !ended(&late).await);
        s.wait(40).await;
        for run in [early, late] {
            let state = s.engine.state(&run).await.unwrap();
            assert_eq!(state.status, Status::Ended(End::Rejected));
            assert!(state.why.contains("it belongs to no open incident"), "{}", state.why);
            assert!(state.effects.is_empty(), "and it was not carried on meanwhile, yes or no");
        }
    })
    .await;
    assert_eq!(s.changes.all(), Vec::<String>::new());
}

/// A fault without a playbook, seen again: its count is to be written down every five minutes.
async fn something_to_write(s: &Scene) {
    let alert = FleetAlert { fault: "no-such-fault".into(), ..s.alert(7, true) };
    for _ in 0..2 {
        s.intake.take(vec![alert.clone()]).await.unwrap();
    }
    s.wait(290).await;
}

#[tokio::test]
async fn a_journal_that_fails_for_a_while_does_not_end_the_dispatcher() {
    let flaky = Flaky::default();
    let s = Scene::with(8, Setup { flaky: Some(flaky.clone()), ..Setup::default() }).await;
    s.break_gpu(3);
    s.play(async {
        something_to_write(&s).await;
        flaky.fails(true);
        s.wait(60).await;
        assert!(s.intake.take(vec![s.alert(3, true)]).await.is_err(), "it does fail");
        flaky.fails(false);
        s.post(3).await;
        s.wait(600).await;
        let open: Vec<_> = s.incidents().await.into_iter().filter_map(|i| i.node().cloned()).collect();
        assert_eq!(open, [s.node(7)]);
    })
    .await;
    assert_eq!(s.ends().await, [(Some(End::Succeeded), 1)].into());
    s.is_clean().await;
}

#[tokio::test]
async fn a_journal_that_fails_for_good_ends_it_after_a_counted_number_of_rounds() {
    let flaky = Flaky::default();
    let s = Scene::with(8, Setup { flaky: Some(flaky.clone()), ..Setup::default() }).await;
    let limit = i64::from(engine_runtime::fleet::DispatcherConfig::default().failures);
    s.alone(async {
        something_to_write(&s).await;
        s.wait(20).await;
        flaky.fails(true);
        let began = s.clock_now();
        let error = s.dispatcher.run().await.unwrap_err();
        assert!(error.to_string().contains("journal could not be written"), "{error}");
        let took = s.clock_now().duration_since(began);
        assert!(took >= secs(2 * (limit - 1)) && took < secs(2 * limit + 60), "{took:#}");
    })
    .await;
}

async fn planned(s: &Scene) -> RunId {
    s.break_gpu(3);
    s.post(3).await;
    s.wait(10).await;
    s.incidents().await[0].runs[0].clone()
}

#[tokio::test]
async fn a_persons_no_is_not_asked_for_again() {
    let s = Scene::new(8).await;
    s.play_with_nobody_on_call(async {
        let run = planned(&s).await;
        s.engine.deny(&run, &Actor::person("ada"), "not tonight").await.unwrap();
        s.wait(600).await;
        let open = s.incidents().await;
        assert!(matches!(open[0].phase, Phase::WithPerson { .. }) && open[0].runs == [run], "{open:?}");
    })
    .await;
}

#[tokio::test]
async fn nobodys_yes_is_not_asked_for_again() {
    let s = Scene::new(8).await;
    s.play_with_nobody_on_call(async {
        let run = planned(&s).await;
        s.wait(13 * 3_600).await;
        let state = s.engine.state(&run).await.unwrap();
        assert_eq!(state.refusal, Some(Refusal::Nobody), "{}", state.why);
        let open = s.incidents().await;
        assert!(matches!(open[0].phase, Phase::WithPerson { .. }) && open[0].runs == [run], "{open:?}");
    })
    .await;
}

/// Who said it counts, not how it is said: what an engine takes back by itself is planned anew.
#[tokio::test]
async fn what_an_engine_takes_back_is_planned_anew() {
    let s = Scene::new(8).await;
    s.play_with_nobody_on_call(async {
        let run = planned(&s).await;
        let state = s.engine.deny(&run, &Actor::engine("dispatcher"), "nobody approved").await.unwrap();
        assert!(state.why.starts_with("denied by"));
        s.wait(300).await;
        let open = s.incidents().await;
        assert!(matches!(open[0].phase, Phase::Running { .. }) && open[0].runs.len() == 2, "{open:?}");
    })
    .await;
}

/// Its engine died after it took the lock and before it began. Whoever wants the node frees the lock, and keeps nobody
/// from carrying that run out.
#[tokio::test]
async fn a_lock_of_a_dead_engine_is_freed_with_its_claim() {
    let policy = Policy::default();
    let first = Scene::under(&policy, 8).await;
    let second = first.beside("engine-2", &policy, false).await;
    let third = first.beside("engine-3", &policy, false).await;
    first.break_gpu(3);
    first
        .alone(async {
            let dies = unlinked(&first, 3).await;
            assert!(first.journal.claim(&dies.run).await.unwrap());
            assert_eq!(first.gate.admit(&dies).await, Pass::Go);
            let other = unlinked(&second, 3).await;
            assert!(matches!(second.gate.admit(&other).await, Pass::Wait { .. }), "its engine lives");
            first.journal.kill();
            assert_eq!(second.gate.admit(&other).await, Pass::Go);
            let holds: Vec<RunId> =
                second.journal.leases().await.unwrap().into_iter().map(|l| l.run).collect();
            assert_eq!(holds, [other.run]);
            assert!(third.journal.claim(&dies.run).await.unwrap(), "though engine-2 lives");
        })
        .await;
}

/// Real clocks do not tick in whole milliseconds; a plan for an alert of any age is one that the journal takes.
#[tokio::test]
async fn the_age_of_an_alert_may_be_any_fraction_of_a_second() {
    let s = Scene::new(8).await;
    s.break_gpu(3);
    s.alone(async {
        for nanos in [0, 1, 999_999, 1_234_567_891, -5_000_001] {
            let state = seen(&s, 3, s.clock_now() - SignedDuration::from_nanos(nanos)).await;
            assert_eq!(state.status, Status::AwaitingApproval, "{nanos}");
        }
    })
    .await;
}
