//! Stages (rule 2): in shadow everything is looked at and nothing is changed, whenever the engine dies.

use crate::scene::{ECC, Scene, Setup};
use engine_core::incident::Phase;
use engine_core::model::RunId;
use engine_core::policy::{Policy, Stage, Stages};
use engine_core::run::{Actor, End, EventKind, Status};
use engine_playbook::Library;
use engine_runtime::engine::{Alert, LastMetre, Ports, ProposeRequest, WouldDo};
use engine_runtime::journal::{CrashPoint, Journal};
use std::collections::BTreeMap;
use std::sync::Arc;

const PLAYBOOK: &str = "dcgm-ecc-drain-reset";

fn at(stage: Stage) -> Policy {
    Policy { stages: Stages([(PLAYBOOK.to_owned(), stage)].into()), ..Policy::default() }
}

/// What each step of a run would have sent.
async fn rehearsals(s: &Scene, run: &RunId) -> Vec<(String, bool, Vec<String>)> {
    let events = s.journal.reopen().load(run).await.unwrap();
    let told = events.into_iter().filter_map(|e| match e.kind {
        EventKind::Rehearsed { action, guard, would, .. } => Some((action, guard.passed, would)),
        _ => None,
    });
    told.collect()
}

async fn nothing_was_changed(s: &Scene) {
    assert_eq!(s.changes.all(), Vec::<String>::new());
    assert_eq!(s.world.resets(), []);
    s.is_clean().await;
}

#[tokio::test]
async fn an_incident_is_looked_at_to_the_last_step_and_nothing_is_changed() {
    let s = Scene::under(&at(Stage::Shadow), 8).await;
    s.break_gpu(3);
    let run = s
        .play(async {
            s.post(3).await;
            s.wait(600).await;
            let open = s.incidents().await;
            let Phase::WithPerson { why } = &open[0].phase else { panic!("{open:?}") };
            assert!(why.contains("shadowed: nothing was changed; it would have begun"), "{why}");
            open[0].runs[0].clone()
        })
        .await;
    assert_eq!(s.ends().await, [(Some(End::Shadowed), 1)].into());
    nothing_was_changed(&s).await;
    let all = rehearsals(&s, &run).await;
    let actions: Vec<&str> = all.iter().map(|(action, ..)| action.as_str()).collect();
    let steps = Library::embedded().find(PLAYBOOK).unwrap().steps.clone();
    assert_eq!(actions, steps.iter().map(|s| s.action.name).collect::<Vec<_>>());
    let (_, passed, would) = &all[0];
    assert!(passed, "the guard of the drain passes on the live node");
    assert_eq!(would.len(), 1);
    assert!(would[0].starts_with("drain gpu004 with the reason \"[slurmedic:"), "{would:?}");
    let sent: Vec<&String> = all.iter().flat_map(|(.., would)| would).collect();
    assert_eq!(sent.len(), 3, "{sent:?}");
    assert!(sent[1].starts_with("reset GPU GPU-") && sent[2] == "resume gpu004", "{sent:?}");
}

#[tokio::test]
async fn where_a_guard_says_no_it_would_have_stopped_there() {
    let s = Scene::under(&at(Stage::Shadow), 8).await;
    s.break_gpu(3);
    let state = s
        .alone(async {
            let proposal = s.engine.plan(request(&s, Actor::engine("rule"))).await.unwrap();
            let run = s.engine.record_plan(proposal).await.unwrap().run;
            // Between the plan and the first look somebody takes the node.
            let drain = engine_testkit::world::PersonAction::Drain { node: s.node(3), reason: "mine".into() };
            s.world.person_now("admin1", drain).unwrap();
            s.engine.drive(&run).await.unwrap();
            s.engine.state(&run).await.unwrap()
        })
        .await;
    assert_eq!(state.status, Status::Ended(End::Shadowed));
    assert!(state.why.contains("it would have stopped at slurm.drain"), "{}", state.why);
    assert_eq!(rehearsals(&s, &state.run).await.len(), 1);
    nothing_was_changed(&s).await;
}

/// Dies before and after each of its writes; another engine goes on. Neither ever changes anything, and every run ends.
#[tokio::test]
async fn whatever_write_it_dies_at_nothing_is_changed() {
    let policy = at(Stage::Shadow);
    let mut crashes = 0;
    for point in [CrashPoint::Before, CrashPoint::After] {
        for n in 1.. {
            let first = Scene::under(&policy, 4).await;
            first.break_gpu(1);
            first.journal.crash_after(n, point);
            let died = first
                .play(async {
                    drop(first.intake.take(vec![first.alert(1, true)]).await);
                    first.wait(300).await;
                    first.journal.is_dead()
                })
                .await;
            if !died {
                break;
            }
            crashes += 1;
            let second = first.beside("engine-2", &policy, false).await;
            second
                .play(async {
                    drop(second.intake.take(vec![second.alert(1, true)]).await);
                    second.wait(900).await;
                })
                .await;
            let story = format!("{point:?} write {n}");
            let ends = second.ends().await;
            assert!(ends.get(&Some(End::Shadowed)) >= Some(&1), "{story}: {ends:?}");
            let untouched = |e: &Option<End>| matches!(e, Some(End::Shadowed | End::Rejected));
            assert!(ends.keys().all(untouched), "{story}: {ends:?}");
            assert_eq!(first.changes.all(), Vec::<String>::new(), "{story}");
            nothing_was_changed(&second).await;
        }
    }
    println!("{crashes} crashes in shadow, each followed by another engine: no change at all");
    assert!(crashes > 15, "{crashes}");
}

/// Ports that change the world, in the place of those that do not.
#[derive(Debug)]
struct Leaky;

impl LastMetre for Leaky {
    fn replace(&self, real: &Ports, _would: &WouldDo) -> Ports {
        real.clone()
    }
}

/// The last metre is what holds it: without, the count of changes is not zero. A count that cannot rise proves nothing.
#[tokio::test]
async fn without_the_last_metre_the_count_rises() {
    let setup = Setup { last_metre: Some(Arc::new(Leaky)), ..Setup::under(&at(Stage::Shadow)) };
    let s = Scene::with(8, setup).await;
    s.break_gpu(3);
    s.play(async {
        s.post(3).await;
        s.wait(600).await;
    })
    .await;
    assert!(s.changes.all().contains(&"drain gpu004".to_owned()), "{:?}", s.changes.all());
}

fn request(s: &Scene, initiator: Actor) -> ProposeRequest<'static> {
    let library = Box::leak(Box::new(Library::embedded()));
    ProposeRequest {
        playbook: library.find(PLAYBOOK).unwrap(),
        node: s.node(3),
        gpu: Some("2".into()),
        params: BTreeMap::new(),
        alert: Alert { id: "A-1".into(), last_seen: Some(s.clock_now()) },
        initiator,
    }
}

/// A person who begins a run by hand is in no stage; a program is.
#[tokio::test]
async fn a_person_is_in_no_stage_and_a_program_is() {
    for stage in Stage::ALL {
        let s = Scene::under(&at(stage), 8).await;
        s.break_gpu(3);
        s.alone(async {
            let of = async |by: Actor| s.engine.plan(request(&s, by)).await.unwrap();
            let person = of(Actor::person("jon")).await;
            assert_eq!((person.plan.stage, person.objections.len()), (None, 0));
            for by in [Actor::engine("rule"), Actor::program("agent-7", Some("jon".into()))] {
                let proposal = of(by).await;
                assert_eq!(proposal.plan.stage, Some(stage));
                assert_eq!(proposal.objections.is_empty(), stage != Stage::Off, "{:?}", proposal.objections);
            }
            let run = s.engine.record_plan(person).await.unwrap().run;
            s.engine.drive(&run).await.unwrap();
            s.engine.approve(&run, Actor::person("ada")).await.unwrap();
            s.engine.drive(&run).await.unwrap();
            assert_eq!(s.engine.state(&run).await.unwrap().status, Status::Ended(End::Succeeded));
        })
        .await;
        assert_eq!(s.world.resets().len(), 1);
        s.is_clean().await;
    }
}

#[tokio::test]
async fn what_is_off_is_not_chosen() {
    let s = Scene::under(&at(Stage::Off), 8).await;
    s.break_gpu(3);
    s.play(async {
        s.post(3).await;
        s.wait(60).await;
        let open = s.incidents().await;
        let says = |w: &str| w.starts_with("the stage of dcgm-ecc-drain-reset@") && w.contains("is off");
        assert!(matches!(&open[0].phase, Phase::WithPerson { why } if says(why)), "{open:?}");
        assert_eq!(open[0].strongest().unwrap().1.fault, ECC);
    })
    .await;
    assert_eq!(s.ends().await, [].into());
    nothing_was_changed(&s).await;
}

/// A policy that would let the playbook run without a person asks for one outside the canary scope at the stage canary.
#[tokio::test]
async fn at_canary_a_person_is_asked_outside_the_scope() {
    let library = Library::embedded();
    let mut playbook = library.find(PLAYBOOK).unwrap().clone();
    playbook.approval = engine_core::playbook::ApprovalClass::Auto;
    for (stage, inside, people) in
        [(Stage::Fleet, false, 0), (Stage::Canary, true, 0), (Stage::Canary, false, 1)]
    {
        let mut policy = at(stage);
        if inside {
            policy.canary.partitions = ["main".to_owned(), "gpu".to_owned(), "batch".to_owned()].into();
        }
        let s = Scene::under(&policy, 8).await;
        s.break_gpu(3);
        s.alone(async {
            if inside {
                let names = s.engine.ports.scheduler.partitions().await.unwrap().value;
                assert!(
                    names.iter().any(|p| policy.canary.partitions.contains(p.name.as_str())),
                    "{names:?}"
                );
            }
            let request = ProposeRequest { playbook: &playbook, ..request(&s, Actor::engine("rule")) };
            assert_eq!(s.engine.plan(request).await.unwrap().plan.people(), people, "{stage} {inside}");
        })
        .await;
    }
}
