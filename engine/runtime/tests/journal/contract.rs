//! What every store promises, asked of both.

use crate::sample::{
    Site, at, ended, finished, intent, node, noted, playbook, proposed, run, started, whole,
};
use engine_core::digest::Digest;
use engine_core::fact::FactSet;
use engine_core::model::{NodeName, RunId};
use engine_core::run::{Effect, End, EventKind, GuardReport, Status, fold};
use engine_runtime::journal::{CrashPoint, Journal, JournalError, Lease, LockKey, MAX_BLOB, MemoryJournal};

/// A store on which engine processes can be started; dropping one is its death.
pub(crate) trait Bed {
    fn process(&self) -> Box<dyn Journal>;
}

impl Bed for Site {
    fn process(&self) -> Box<dyn Journal> {
        Box::new(self.open())
    }
}

impl Bed for MemoryJournal {
    fn process(&self) -> Box<dyn Journal> {
        Box::new(self.reopen())
    }
}

macro_rules! contract {
    ($($name:ident)*) => {
        mod sqlite {
            $(#[tokio::test] async fn $name() { super::$name(&$crate::sample::Site::new()).await; })*
        }
        mod memory {
            $(#[tokio::test] async fn $name() {
                super::$name(&engine_runtime::journal::MemoryJournal::new()).await;
            })*
        }
    };
}

pub(crate) use contract;

contract! {
    what_is_appended_is_loaded
    a_state_is_the_fold_of_what_anybody_wrote
    a_writer_that_is_behind_is_told
    an_event_that_may_not_follow_is_refused
    a_number_that_json_cannot_carry_is_refused
    a_node_has_one_lock
    a_claim_ends_with_its_process
    a_playbook_version_never_changes
    bytes_are_found_by_their_digest
    runs_are_listed_newest_first
    an_empty_journal_is_whole
}

async fn what_is_appended_is_loaded(bed: &dyn Bed) {
    let (j, r) = (bed.process(), run("r1"));
    let kinds = whole(&r, &node("gpu001"));
    let mut written = Vec::new();
    written.extend(j.append(&r, 0, at(0), kinds[..5].to_vec()).await.unwrap());
    for (i, kind) in kinds.iter().enumerate().skip(5) {
        written.extend(j.append(&r, i as u64, at(i as u64), vec![kind.clone()]).await.unwrap());
    }
    assert_eq!(j.append(&r, 3, at(0), Vec::new()).await.unwrap(), Vec::new());
    let loaded = j.load(&r).await.unwrap();
    assert_eq!(loaded, written);
    assert_eq!(loaded.iter().map(|e| e.kind.clone()).collect::<Vec<_>>(), kinds);
    assert_eq!(
        loaded.iter().map(|e| e.seq).collect::<Vec<_>>(),
        (1..=kinds.len() as u64).collect::<Vec<_>>()
    );
    assert_eq!(loaded[7].at, at(7), "to the nanosecond");
    assert_eq!(bed.process().load(&r).await.unwrap(), loaded, "another process reads the same");
    assert_eq!(fold(&loaded).unwrap().status, Status::Ended(End::Succeeded));
    assert!(matches!(j.load(&run("r2")).await, Err(JournalError::NoSuchRun(r)) if r == run("r2")));
    let report = j.verify().await.unwrap();
    assert_eq!((report.events, report.runs, report.broken), (kinds.len() as u64, 1, None));
}

async fn a_state_is_the_fold_of_what_anybody_wrote(bed: &dyn Bed) {
    let (one, two, r) = (bed.process(), bed.process(), run("r1"));
    let reader = bed.process();
    let kinds = whole(&r, &node("gpu001"));
    for (i, kind) in kinds.iter().enumerate() {
        let writer = if i % 3 == 0 { &two } else { &one };
        writer.append(&r, i as u64, at(i as u64), vec![kind.clone()]).await.unwrap();
        let all = fold(&reader.load(&r).await.unwrap()).unwrap();
        for process in [&reader, &one] {
            assert_eq!(process.state(&r).await.unwrap(), all, "after event {}", i + 1);
        }
        assert!(!reader.stop_requested(&r).await.unwrap());
    }
    let other = run("r2");
    assert!(matches!(reader.state(&other).await, Err(JournalError::NoSuchRun(n)) if n == other));
    one.append(&other, 0, at(1), vec![proposed(&other, &node("gpu002"))]).await.unwrap();
    let (by, why) = (engine_core::run::Actor::person("ada"), "not now".to_owned());
    two.append(&other, 1, at(2), vec![EventKind::CancelRequested { by, why }]).await.unwrap();
    assert!(reader.stop_requested(&other).await.unwrap());
    assert_eq!(
        reader.state(&other).await.unwrap().cancel.as_deref().map(|w| w.contains("not now")),
        Some(true)
    );
}

async fn a_writer_that_is_behind_is_told(bed: &dyn Bed) {
    let (one, two, r) = (bed.process(), bed.process(), run("r1"));
    assert!(matches!(one.append(&r, 1, at(0), vec![noted("x")]).await, Err(JournalError::NoSuchRun(_))));
    one.append(&r, 0, at(0), vec![proposed(&r, &node("gpu001"))]).await.unwrap();
    two.append(&r, 1, at(1), vec![noted("two was faster")]).await.unwrap();
    for behind in [0, 1] {
        match one.append(&r, behind, at(2), vec![noted("one")]).await {
            Err(JournalError::Conflict { run, expected, found }) => {
                assert_eq!((run, expected, found), (r.clone(), behind, 2));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(
        one.append(&r, 3, at(2), vec![noted("ahead")]).await,
        Err(JournalError::Conflict { found: 2, .. })
    ));
    one.append(&r, 2, at(2), vec![noted("one, having read")]).await.unwrap();
    assert_eq!(two.load(&r).await.unwrap().len(), 3);
}

async fn an_event_that_may_not_follow_is_refused(bed: &dyn Bed) {
    let (j, r) = (bed.process(), run("r1"));
    let illegal = |e: Result<_, JournalError>| match e {
        Err(JournalError::Illegal(i)) => (i.seq, i.event),
        other => panic!("{other:?}"),
    };
    assert_eq!(illegal(j.append(&r, 0, at(0), vec![noted("first")]).await), (1, "noted"));
    assert_eq!(
        illegal(j.append(&r, 0, at(0), vec![proposed(&run("r2"), &node("gpu001"))]).await),
        (1, "proposed")
    );
    j.append(&r, 0, at(0), started(&r, &node("gpu001"))).await.unwrap();
    // A drain without the lock; then a batch whose first event is legal and whose second is not.
    assert_eq!(
        illegal(j.append(&r, 4, at(1), vec![intent(Effect::Step(0), "slurm.drain")]).await),
        (5, "intent")
    );
    let batch = vec![intent(Effect::Lock, "lock"), ended(End::Succeeded)];
    assert_eq!(illegal(j.append(&r, 4, at(1), batch).await), (6, "ended"));
    let refused = EventKind::Refused {
        effect: Effect::Lock,
        guard: GuardReport {
            passed: true,
            why: String::new(),
            conditions: Vec::new(),
            facts: FactSet::default(),
        },
        foreign: false,
        transient: false,
    };
    assert_eq!(illegal(j.append(&r, 4, at(1), vec![refused]).await), (5, "refused"));
    assert_eq!(j.load(&r).await.unwrap().len(), 4, "all of a batch or nothing");
    j.append(&r, 4, at(2), vec![intent(Effect::Lock, "lock"), finished(Effect::Lock)]).await.unwrap();
    assert_eq!(j.verify().await.unwrap().broken, None);
}

async fn a_number_that_json_cannot_carry_is_refused(bed: &dyn Bed) {
    let (j, r) = (bed.process(), run("r1"));
    let mut plan = crate::sample::plan(&r, &node("gpu001"));
    plan.params.insert("x".to_owned(), engine_core::value::Value::Float(f64::NAN));
    let digest = plan.digest().unwrap();
    let result = j.append(&r, 0, at(0), vec![EventKind::Proposed { plan: plan.into(), digest }]).await;
    assert!(
        matches!(&result, Err(JournalError::Illegal(i)) if i.why.contains("would not read back")),
        "{result:?}"
    );
    // Numbers whose decimal form is long come back to the last bit, or the plan's digest would not hold any more.
    let mut plan = crate::sample::plan(&r, &node("gpu001"));
    for i in 1..2000_u32 {
        let x = f64::from(i).sqrt() / f64::from(i + 7) * 1e-3;
        plan.params.insert(format!("x{i}"), engine_core::value::Value::Float(x));
    }
    let digest = plan.digest().unwrap();
    j.append(&r, 0, at(0), vec![EventKind::Proposed { plan: plan.into(), digest }]).await.unwrap();
    assert!(fold(&j.load(&r).await.unwrap()).is_ok());
}

fn held_by(node: &NodeName, run: &RunId) -> Lease {
    Lease::HeldBy { key: LockKey::Node(node.clone()), run: run.clone() }
}

async fn a_node_has_one_lock(bed: &dyn Bed) {
    let (j, n) = (bed.process(), node("gpu001"));
    let (a, b) = (run("ra"), run("rb"));
    assert!(matches!(j.take_lease(&n, &a, at(0)).await, Err(JournalError::NoSuchRun(_))));
    for r in [&a, &b] {
        j.append(r, 0, at(0), started(r, &n)).await.unwrap();
    }
    let token = |l: Lease| match l {
        Lease::Taken { token } => token,
        other => panic!("{other:?}"),
    };
    let first = token(j.take_lease(&n, &a, at(1)).await.unwrap());
    assert_eq!(bed.process().take_lease(&n, &b, at(2)).await.unwrap(), held_by(&n, &a));
    let again = token(bed.process().take_lease(&n, &a, at(3)).await.unwrap());
    let elsewhere = token(j.take_lease(&node("gpu002"), &b, at(3)).await.unwrap());
    j.drop_lease(&n, &b).await.unwrap();
    assert_eq!(j.take_lease(&n, &b, at(4)).await.unwrap(), held_by(&n, &a), "only its run gives it back");
    j.drop_lease(&n, &a).await.unwrap();
    j.drop_lease(&n, &a).await.unwrap();
    let later = token(j.take_lease(&n, &b, at(5)).await.unwrap());
    assert!(first < again && again < elsewhere && elsewhere < later, "{first} {again} {elsewhere} {later}");
    // A run that ended without giving it back does not keep the node for ever, and takes nothing any more.
    j.append(&b, 4, at(6), vec![ended(End::Cancelled)]).await.unwrap();
    assert!(matches!(j.take_lease(&n, &b, at(7)).await, Err(JournalError::RunOver(over)) if over == b));
    assert!(token(j.take_lease(&n, &a, at(8)).await.unwrap()) > later);
}

async fn a_claim_ends_with_its_process(bed: &dyn Bed) {
    let (one, two) = (bed.process(), bed.process());
    let (a, b, c) = (run("ra"), run("rb"), run("rc"));
    assert!(matches!(one.claim(&a).await, Err(JournalError::NoSuchRun(_))));
    one.append(&a, 0, at(0), started(&a, &node("gpu001"))).await.unwrap();
    one.append(&b, 0, at(0), vec![proposed(&b, &node("gpu002"))]).await.unwrap();
    one.append(&c, 0, at(0), vec![proposed(&c, &node("gpu003"))]).await.unwrap();
    assert_eq!(
        two.orphans().await.unwrap(),
        std::slice::from_ref(&a),
        "begun and nobody's; what was not begun waits for people"
    );
    for r in [&a, &b] {
        assert!(one.claim(r).await.unwrap());
        assert!(one.claim(r).await.unwrap(), "again, by the same process");
        assert!(!two.claim(r).await.unwrap());
    }
    assert!(two.claim(&c).await.unwrap());
    assert_eq!(two.orphans().await.unwrap(), []);
    assert_eq!(one.orphans().await.unwrap(), []);
    drop(one);
    assert_eq!(two.orphans().await.unwrap(), [a.clone(), b.clone()], "oldest first");
    assert!(two.claim(&a).await.unwrap());
    assert_eq!(two.orphans().await.unwrap(), std::slice::from_ref(&b));
    let three = bed.process();
    assert!(!three.claim(&a).await.unwrap());
    assert!(three.claim(&b).await.unwrap());
    two.append(&a, 4, at(1), vec![ended(End::Cancelled)]).await.unwrap();
    drop(two);
    assert_eq!(three.orphans().await.unwrap(), std::slice::from_ref(&c), "what is over has no orphan");
    assert!(three.claim(&a).await.unwrap(), "what is over may be looked at by anybody");
    assert_eq!(bed.process().orphans().await.unwrap(), [c]);
}

async fn a_playbook_version_never_changes(bed: &dyn Bed) {
    let j = bed.process();
    j.pin_playbook(&playbook("steps"), at(0)).await.unwrap();
    j.pin_playbook(&playbook("steps"), at(1)).await.unwrap();
    match bed.process().pin_playbook(&playbook("other steps"), at(2)).await {
        Err(e @ JournalError::PlaybookChanged { .. }) => {
            let text = e.to_string();
            assert!(
                text.contains("dcgm-ecc-drain-reset@1.2.0")
                    && text.contains(playbook("steps").digest.as_str()),
                "{text}"
            );
        }
        other => panic!("{other:?}"),
    }
    let next =
        engine_core::playbook::PlaybookRef { version: "1.3.0".parse().unwrap(), ..playbook("other steps") };
    j.pin_playbook(&next, at(3)).await.unwrap();
    // A run that names another content under a pinned version is found.
    let r = run("r1");
    let mut plan = crate::sample::plan(&r, &node("gpu001"));
    plan.playbook = playbook("forged");
    let digest = plan.digest().unwrap();
    j.append(&r, 0, at(4), vec![EventKind::Proposed { plan: plan.into(), digest }]).await.unwrap();
    let broken = j.verify().await.unwrap().broken.unwrap();
    assert_eq!((broken.pos, broken.kind.as_deref()), (Some(1), Some("proposed")));
    assert!(broken.why.contains("dcgm-ecc-drain-reset@1.2.0"), "{broken}");
}

async fn bytes_are_found_by_their_digest(bed: &dyn Bed) {
    let j = bed.process();
    let bytes: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
    let digest = j.store_blob(bytes.clone(), at(0)).await.unwrap();
    assert_eq!(digest, Digest::of(&bytes));
    assert_eq!(j.store_blob(bytes.clone(), at(1)).await.unwrap(), digest);
    assert_eq!(bed.process().load_blob(&digest).await.unwrap(), Some(bytes));
    assert_eq!(j.load_blob(&Digest::of(b"never stored")).await.unwrap(), None);
    assert_eq!(j.store_blob(Vec::new(), at(2)).await.unwrap(), Digest::of(b""));
    let large = j.store_blob(vec![0; MAX_BLOB + 1], at(3)).await;
    assert!(matches!(large, Err(JournalError::TooLarge { size, .. }) if size == MAX_BLOB + 1));
}

async fn runs_are_listed_newest_first(bed: &dyn Bed) {
    let j = bed.process();
    let (a, b, c) = (run("ra"), run("rb"), run("rc"));
    // Their times say otherwise: a clock that was set back does not change the order.
    j.append(&b, 0, at(9), started(&b, &node("gpu001"))).await.unwrap();
    j.append(&a, 0, at(5), vec![proposed(&a, &node("gpu002"))]).await.unwrap();
    j.append(&c, 0, at(1), vec![proposed(&c, &node("gpu001"))]).await.unwrap();
    j.append(&c, 1, at(2), vec![ended(End::Cancelled)]).await.unwrap();
    j.append(&b, 4, at(10), vec![noted("waiting for two jobs")]).await.unwrap();
    let all = bed.process().runs(None, false, 10).await.unwrap();
    let names =
        |l: &[engine_runtime::journal::RunSummary]| l.iter().map(|s| s.run.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&all), ["rc", "ra", "rb"]);
    assert_eq!(names(&j.runs(None, false, 2).await.unwrap()), ["rc", "ra"]);
    assert_eq!(names(&j.runs(None, true, 10).await.unwrap()), ["ra", "rb"]);
    assert_eq!(names(&j.runs(Some(&node("gpu001")), false, 10).await.unwrap()), ["rc", "rb"]);
    assert_eq!(names(&j.runs(Some(&node("gpu001")), true, 10).await.unwrap()), ["rb"]);
    assert_eq!(names(&j.runs(Some(&node("gpu009")), false, 10).await.unwrap()), [""; 0]);
    let line = &all[2];
    assert_eq!((line.status, line.why.as_str()), (Status::Running, "waiting for two jobs"));
    assert_eq!((line.proposed_at, line.last_event_at), (at(9), at(10)));
    assert_eq!(
        (line.node.as_str(), line.initiator.as_str(), &line.playbook),
        ("gpu001", "mara", &playbook("steps"))
    );
    assert_eq!(all[0].status, Status::Ended(End::Cancelled));
}

async fn an_empty_journal_is_whole(bed: &dyn Bed) {
    let j = bed.process();
    let report = j.verify().await.unwrap();
    assert_eq!((report.events, report.runs, report.broken), (0, 0, None));
    assert_eq!(j.runs(None, false, 10).await.unwrap(), []);
    assert_eq!(j.orphans().await.unwrap(), []);
}

#[tokio::test]
async fn a_process_in_memory_dies_where_it_is_told_to() {
    for (point, kept) in [(CrashPoint::Before, 2), (CrashPoint::After, 3)] {
        let j = MemoryJournal::new();
        let r = run("r1");
        j.append(&r, 0, at(0), vec![proposed(&r, &node("gpu001"))]).await.unwrap();
        assert!(j.claim(&r).await.unwrap());
        j.crash_after(2, point);
        j.append(&r, 1, at(1), vec![noted("one")]).await.unwrap();
        assert!(matches!(j.append(&r, 2, at(2), vec![noted("two")]).await, Err(JournalError::Store { .. })));
        assert!(j.is_dead());
        assert!(matches!(j.clone().load(&r).await, Err(JournalError::Store { .. })), "the dead do nothing");
        assert!(matches!(
            j.append(&r, kept, at(2), vec![noted("three")]).await,
            Err(JournalError::Store { .. })
        ));
        let next = j.reopen();
        assert_eq!(next.load(&r).await.unwrap().len() as u64, kept, "{point:?}");
        assert_eq!(next.orphans().await.unwrap(), std::slice::from_ref(&r));
        assert!(next.claim(&r).await.unwrap());
        assert_eq!(next.verify().await.unwrap().broken, None);
    }
}
