//! Approvals: for one plan and one state of the node, from distinct people, for a while; every way in which one is void.

use crate::scene::{Scene, secs};
use engine_core::digest::Digest;
use engine_core::model::RunId;
use engine_core::policy::Policy;
use engine_core::run::{Actor, End, EventKind, RunState, Status};
use engine_playbook::Library;
use engine_runtime::approval::{BadTicket, Ticket, TicketKey};
use engine_runtime::engine::{Alert, Engine, EngineError, ProposeRequest};
use engine_runtime::fleet::ByFault;
use engine_runtime::journal::{Journal, JournalError};
use engine_testkit::world::{Fault, PersonAction};
use std::collections::BTreeMap;

/// A scene on which a person asks for the run of a broken GPU; nobody else works.
struct Desk {
    s: Scene,
    run: RunId,
}

async fn ask_as(s: &Scene, initiator: Actor) -> RunState {
    let library = Library::embedded();
    let request = ProposeRequest {
        playbook: library.find("dcgm-ecc-drain-reset").unwrap(),
        node: s.node(1),
        gpu: Some("2".into()),
        params: BTreeMap::new(),
        alert: Alert { id: "A-1".into(), last_seen: Some(s.clock_now()) },
        initiator,
    };
    let proposal = s.engine.plan(request).await.unwrap();
    assert_eq!(proposal.objections, Vec::<String>::new());
    let state = s.engine.record_plan(proposal).await.unwrap();
    s.engine.drive(&state.run).await.unwrap();
    s.engine.state(&state.run).await.unwrap()
}

async fn asked(s: &Scene) -> Desk {
    s.break_gpu(1);
    let state = ask_as(s, Actor::person("jon")).await;
    assert_eq!(state.status, Status::AwaitingApproval);
    Desk { s: s.clone(), run: state.run }
}

fn two_people() -> Policy {
    let mut policy = Policy::default();
    policy.approvals.quorum.disruptive = 2;
    policy
}

impl Desk {
    async fn state(&self) -> RunState {
        self.s.engine.state(&self.run).await.unwrap()
    }

    async fn approve(&self, name: &str) -> Result<RunState, EngineError> {
        self.s.engine.approve(&self.run, Actor::person(name)).await
    }

    async fn ended_untouched(&self, words: &str) {
        drop(self.s.engine.drive(&self.run).await);
        let state = self.state().await;
        assert!(matches!(state.status, Status::Ended(End::Rejected | End::HandedOver)), "{}", state.status);
        assert!(state.why.contains(words), "{:?} has no {words:?}", state.why);
        assert_eq!(self.s.world.resets(), []);
        assert_eq!(self.s.world.violations(), []);
    }
}

#[tokio::test]
async fn a_yes_that_is_in_time_is_enough() {
    let s = Scene::under(&Policy::default(), 8).await;
    s.alone(async {
        let d = asked(&s).await;
        d.approve("ada").await.unwrap();
        s.engine.drive(&d.run).await.unwrap();
        assert_eq!(d.state().await.status, Status::Ended(End::Succeeded));
    })
    .await;
    assert_eq!(s.world.resets().len(), 1);
}

#[tokio::test]
async fn a_yes_expires_and_is_asked_for_again() {
    let s = Scene::under(&Policy::default(), 8).await;
    s.alone(async {
        let d = asked(&s).await;
        d.approve("ada").await.unwrap();
        s.wait(16 * 60).await;
        s.engine.drive(&d.run).await.unwrap();
        let state = d.state().await;
        assert_eq!(state.status, Status::AwaitingApproval);
        assert!(state.approvals.is_empty() && state.effects.is_empty());
    })
    .await;
}

#[tokio::test]
async fn the_node_changed_after_the_plan() {
    for (changed_after_yes, words) in [(false, "void at approval"), (true, "the node is")] {
        let s = Scene::under(&Policy::default(), 8).await;
        s.alone(async {
            let d = asked(&s).await;
            let drain = PersonAction::Drain { node: s.node(1), reason: "mine".into() };
            if changed_after_yes {
                d.approve("ada").await.unwrap();
                s.world.person_now("admin1", drain).unwrap();
            } else {
                s.world.person_now("admin1", drain).unwrap();
                drop(d.approve("ada").await);
            }
            drop(s.engine.drive(&d.run).await);
            let state = d.state().await;
            assert!(matches!(state.status, Status::Ended(_)), "{} {words}", state.status);
            assert_ne!(state.status, Status::Ended(End::Succeeded));
            assert_eq!(s.world.resets(), []);
        })
        .await;
        assert_eq!(s.world.violations(), []);
    }
}

#[tokio::test]
async fn the_fault_went_away_after_the_yes() {
    let s = Scene::under(&Policy::default(), 8).await;
    s.alone(async {
        let d = asked(&s).await;
        d.approve("ada").await.unwrap();
        s.world.inject(&s.node(1), 2, Fault::Repaired).unwrap();
        // Longer than a fact may be old.
        s.wait(120).await;
        d.ended_untouched("gpu.row_remap_pending = false").await;
    })
    .await;
}

/// The engine that comes to carry it out has another policy, or no longer has the playbook.
#[tokio::test]
async fn the_policy_changed_after_the_yes() {
    let s = Scene::under(&Policy::default(), 8).await;
    let stricter = two_people();
    let other = s.beside("engine-2", &stricter, false).await;
    s.alone(async {
        let d = asked(&s).await;
        d.approve("ada").await.unwrap();
        s.journal.kill();
        let d = Desk { s: other.clone(), run: d.run };
        d.ended_untouched("the policy was changed since the plan was made").await;
    })
    .await;
}

#[tokio::test]
async fn the_playbook_changed_after_the_yes() {
    let policy = Policy::default();
    let s = Scene::under(&policy, 8).await;
    let library = Library::embedded();
    let mut changed = library.find("dcgm-ecc-drain-reset").unwrap().clone();
    changed.reference.digest = Digest::of(b"one byte more");
    let other = s.with_playbooks("engine-2", &policy, ByFault::newest([&changed])).await;
    s.alone(async {
        let d = asked(&s).await;
        d.approve("ada").await.unwrap();
        s.journal.kill();
        let d = Desk { s: other.clone(), run: d.run };
        d.ended_untouched("was changed or withdrawn since the plan was made").await;
    })
    .await;
}

#[tokio::test]
async fn the_same_person_twice_is_one_person() {
    let s = Scene::under(&two_people(), 8).await;
    s.alone(async {
        let d = asked(&s).await;
        assert_eq!(d.state().await.plan.people(), 2);
        d.approve("ada").await.unwrap();
        let again = d.approve("ada").await.unwrap_err();
        assert!(again.to_string().contains("has said yes already"), "{again}");
        assert_eq!(d.state().await.status, Status::AwaitingApproval);
        d.approve("bob").await.unwrap();
        assert_eq!(d.state().await.status, Status::Approved);
    })
    .await;
}

#[tokio::test]
async fn who_has_an_agent_ask_is_not_one_of_the_two() {
    let s = Scene::under(&two_people(), 8).await;
    s.alone(async {
        s.break_gpu(1);
        let state = ask_as(&s, Actor::program("agent-7", Some("ada".into()))).await;
        let d = Desk { s: s.clone(), run: state.run };
        let no = d.approve("ada").await.unwrap_err();
        assert!(no.to_string().contains("speaks for ada"), "{no}");
        d.approve("bob").await.unwrap();
        d.approve("eve").await.unwrap();
        assert_eq!(d.state().await.status, Status::Approved);
    })
    .await;
}

/// A plan changed by one byte has another digest, and no yes to the first is one to it.
#[tokio::test]
async fn a_plan_changed_by_one_byte_has_no_yes() {
    let s = Scene::under(&Policy::default(), 8).await;
    s.alone(async {
        let d = asked(&s).await;
        let state = d.state().await;
        let mut plan = (*state.plan).clone();
        plan.summary.push('.');
        let kind = EventKind::Approved {
            by: Actor::person("ada"),
            digest: plan.digest().unwrap(),
            expires_at: s.clock_now() + secs(60),
            ticket: None,
        };
        let refused = s.journal.append(&d.run, state.seq, s.clock_now(), vec![kind]).await.unwrap_err();
        assert!(matches!(refused, JournalError::Illegal(_)), "{refused}");
        // And a record whose plan is not that of its digest is no record.
        let forged = EventKind::Proposed { plan: plan.into(), digest: state.digest.clone() };
        let fresh = RunId::new("r-forged").unwrap();
        assert!(s.journal.append(&fresh, 0, s.clock_now(), vec![forged]).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn tickets_expire_are_not_replayed_and_cannot_be_forged() {
    let s = Scene::under(&Policy::default(), 8).await;
    s.alone(async {
        let key = TicketKey::new(vec![3; 32]).unwrap();
        let d = asked(&s).await;
        let state = d.state().await;
        let ticket = |digest: &Digest, nonce: &str| Ticket {
            run: d.run.clone(),
            digest: digest.clone(),
            person: "ada".into(),
            expires_at: s.clock_now() + secs(600),
            nonce: nonce.into(),
        };
        let engine: &Engine = &s.engine;
        // Of another plan.
        let other = ticket(&Digest::of(b"other"), "n0");
        assert!(engine.approve_by_ticket(&other).await.unwrap_err().to_string().contains("another plan"));
        // Forged: by another key, or changed on the way.
        let good = ticket(&state.digest, "n1");
        let text = key.sign(&good).unwrap();
        let forger = TicketKey::new(vec![4; 32]).unwrap();
        assert_eq!(key.open(&forger.sign(&good).unwrap(), s.clock_now()), Err(BadTicket::Forged));
        // Used once, then voided: the same ticket is no yes any more.
        engine.approve_by_ticket(&key.open(&text, s.clock_now()).unwrap()).await.unwrap();
        assert_eq!(d.state().await.status, Status::Approved);
        s.wait(16 * 60).await;
        engine.drive(&d.run).await.unwrap();
        assert_eq!(d.state().await.status, Status::AwaitingApproval);
        assert_eq!(key.open(&text, s.clock_now()), Err(BadTicket::Expired));
        let replayed = engine.approve_by_ticket(&good).await.unwrap_err();
        assert!(replayed.to_string().contains("used before"), "{replayed}");
        assert_eq!(d.state().await.status, Status::AwaitingApproval);
        assert_eq!(s.world.resets(), []);
    })
    .await;
}
