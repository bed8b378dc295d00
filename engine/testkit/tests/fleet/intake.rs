//! Alerts in: repeated, resolved, flapping, stale, of nodes that are not there; one incident each, and repaired.

use crate::scene::{Scene, secs};
use engine_core::incident::{Alert, Closing, FleetEvent, Heard, NotHeard, Phase};
use engine_core::model::NodeName;
use engine_core::run::End;

#[tokio::test]
async fn an_alert_leads_to_a_repaired_node_with_no_word_but_the_approval() {
    let s = Scene::new(8).await;
    s.break_gpu(3);
    s.play(async {
        s.post(3).await;
        s.wait(600).await;
        assert_eq!(s.incidents().await, []);
    })
    .await;
    assert_eq!(s.ends().await, [(Some(End::Succeeded), 1)].into());
    let words: Vec<&str> = s.history().await.iter().map(FleetEvent::word).collect();
    assert_eq!(words, ["opened", "planned", "closed"]);
    assert_eq!(s.world.resets().len(), 1);
    s.is_clean().await;
}

/// Eight hundred thousand times the same alert, as from an exporter that repeats a sticky XID: one incident, some
/// records, one series in memory, one run; an alert of another node is served meanwhile.
#[tokio::test]
async fn the_same_alert_again_and_again_is_one_incident() {
    let s = Scene::new(8).await;
    s.break_gpu(1);
    s.break_gpu(5);
    s.play(async {
        let alert = s.alert(1, true);
        for round in 0..800 {
            let heard = s.intake.take(vec![alert.clone(); 1_000]).await.unwrap();
            let counted = heard.iter().filter(|h| matches!(h, Heard::Counted(_) | Heard::Not(_))).count();
            assert_eq!(counted, if round == 0 { 999 } else { 1_000 });
            if round == 400 {
                let posted = s.intake.take(vec![s.alert(5, true)]).await.unwrap();
                assert!(matches!(posted.as_slice(), [Heard::New(_)]), "{posted:?}");
                s.wait(4).await;
                let of_5 = s.incidents().await.into_iter().find(|i| i.node() == Some(&s.node(5)));
                assert!(matches!(of_5.unwrap().phase, Phase::Running { .. }), "served within a round or two");
            }
        }
        s.wait(900).await;
    })
    .await;
    let history = s.history().await;
    let opened = history.iter().filter(|e| e.word() == "opened").count();
    assert_eq!(opened, 2, "one incident for each node");
    assert!(history.len() < 20, "{} records", history.len());
    assert_eq!(s.ends().await, [(Some(End::Succeeded), 2)].into());
    s.is_clean().await;
}

/// A flapping alert is latched: it opens one incident and never drives repairs in step.
#[tokio::test]
async fn a_flapping_alert_is_one_incident() {
    let s = Scene::new(4).await;
    // Nothing is wrong with the GPU, so that the playbook does not apply and the incident stays.
    s.play(async {
        for _ in 0..360 {
            s.post(0).await;
            s.wait(5).await;
            s.intake.take(vec![s.alert(0, false)]).await.unwrap();
            s.wait(5).await;
        }
        let open = s.incidents().await;
        assert_eq!(open.len(), 1);
        assert!(matches!(open[0].phase, Phase::WithPerson { .. }), "{open:?}");
        // It stays quiet: then it is over.
        s.wait(400).await;
        assert_eq!(s.incidents().await, []);
    })
    .await;
    let history = s.history().await;
    assert_eq!(history.iter().filter(|e| e.word() == "opened").count(), 1);
    assert!(history.len() < 30, "{} records", history.len());
    assert!(matches!(history.last(), Some(FleetEvent::Closed { closing: Closing::Over, .. })));
    assert_eq!(s.ends().await, [].into());
}

#[tokio::test]
async fn what_opens_nothing_is_counted_by_its_cause() {
    let s = Scene::new(4).await;
    s.play(async {
        let base = s.alert(0, true);
        let now = base.seen_at;
        let cases = [
            (Alert { node: NodeName::new("nope").unwrap(), ..base.clone() }, NotHeard::UnknownNode),
            (Alert { seen_at: now - secs(86_400), ..base.clone() }, NotHeard::Stale),
            (Alert { seen_at: now + secs(3_600), ..base.clone() }, NotHeard::Skewed),
            (Alert { firing: false, ..base.clone() }, NotHeard::NothingToResolve),
        ];
        for (alert, why) in cases {
            let heard = s.intake.take(vec![alert]).await.unwrap();
            assert_eq!(heard, [Heard::Not(why)]);
        }
        assert_eq!(s.intake.not_heard().values().sum::<u64>(), 4);
        assert_eq!(s.incidents().await, []);
    })
    .await;
    assert_eq!(s.history().await, []);
}

/// Several GPUs of one node at once point to a cause one level up: no reset, a person.
#[tokio::test]
async fn two_gpus_of_a_node_at_once_are_for_a_person() {
    let s = Scene::new(4).await;
    s.break_gpu(2);
    s.play(async {
        let first = s.alert(2, true);
        let fingerprint = engine_core::incident::Fingerprint::new("other").unwrap();
        let second = Alert { gpu: Some("5".into()), fingerprint, ..first.clone() };
        s.intake.take(vec![first, second]).await.unwrap();
        s.wait(120).await;
        let open = s.incidents().await;
        assert!(
            matches!(&open[0].phase, Phase::WithPerson { why } if why.contains("one level up")),
            "{open:?}"
        );
    })
    .await;
    assert_eq!(s.world.resets(), []);
    assert_eq!(s.ends().await, [].into());
}

/// A hook names a GPU by its bus id, an exporter by its UUID, a person by its index: it is one GPU all the same.
#[tokio::test]
async fn one_gpu_by_three_names_is_one_gpu() {
    let s = Scene::new(4).await;
    s.break_gpu(2);
    s.play(async {
        let first = s.alert(2, true);
        let look = s.engine.eyes().look_at_gpus(&first.node, None, secs(60)).await.unwrap();
        let gpu = look.0.value.find("2").unwrap().clone();
        let names = [gpu.uuid.known().unwrap().clone(), gpu.bus_id.known().unwrap().clone()];
        let others = names.iter().enumerate().map(|(i, name)| Alert {
            gpu: Some(name.clone()),
            fingerprint: engine_core::incident::Fingerprint::new(&format!("other/{i}")).unwrap(),
            ..first.clone()
        });
        let all: Vec<Alert> = std::iter::once(first.clone()).chain(others).collect();
        s.intake.take(all).await.unwrap();
        s.wait(600).await;
        assert_eq!(s.incidents().await, []);
    })
    .await;
    assert_eq!(s.ends().await, [(Some(End::Succeeded), 1)].into());
}

/// A fault that no playbook is for is a person's, and said so.
#[tokio::test]
async fn a_fault_without_a_playbook_is_for_a_person() {
    let s = Scene::new(4).await;
    s.play(async {
        let alert = Alert { fault: "no-such-fault".into(), ..s.alert(1, true) };
        s.intake.take(vec![alert]).await.unwrap();
        s.wait(30).await;
        let open = s.incidents().await;
        assert!(
            matches!(&open[0].phase, Phase::WithPerson { why } if why.contains("no playbook")),
            "{open:?}"
        );
    })
    .await;
}
