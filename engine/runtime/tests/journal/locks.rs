//! Locks on several keys: all or nothing, judged where nobody can come in between.

use crate::contract::{Bed, contract};
use crate::sample::{at, ended, node, proposed, run, started};
use engine_core::model::RunId;
use engine_core::run::End;
use engine_runtime::journal::{Admit, HeldLease, Journal, JournalError, Lease, LockKey, MAX_KEYS};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

fn keys(texts: &[&str]) -> Vec<LockKey> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

fn token(lease: Lease) -> u64 {
    match lease {
        Lease::Taken { token } => token,
        other => panic!("{other:?}"),
    }
}

async fn begun(j: &dyn Journal, names: &[&str]) -> Vec<RunId> {
    let mut runs = Vec::new();
    for name in names {
        let r = run(name);
        j.append(&r, 0, at(0), started(&r, &node("gpu001"))).await.unwrap();
        runs.push(r);
    }
    runs
}

contract! {
    all_keys_or_none
    a_judge_sees_every_held_lock
    a_judge_is_not_asked_twice
    what_a_run_holds_is_listed_and_given_back
    two_who_want_the_same_in_another_order_never_wait
    what_a_dead_process_had_not_begun_is_freed_with_its_claim
}

/// Lock and claim in one step: a claim that stayed would keep every other process from the run for as long as this one lives.
async fn what_a_dead_process_had_not_begun_is_freed_with_its_claim(bed: &dyn Bed) {
    let (dies, lives) = (bed.process(), bed.process());
    let (waits, acts) = (run("ra"), run("rb"));
    let gpu = |name: &str| keys(&[name]);
    dies.append(&waits, 0, at(0), vec![proposed(&waits, &node("gpu001"))]).await.unwrap();
    dies.append(&acts, 0, at(0), started(&acts, &node("gpu002"))).await.unwrap();
    for (r, key) in [(&waits, "node:gpu001"), (&acts, "node:gpu002")] {
        assert!(dies.claim(r).await.unwrap());
        token(dies.take_leases(&gpu(key), r, at(1), None).await.unwrap());
        assert!(!lives.free_abandoned(r).await.unwrap(), "its process lives");
        assert!(!dies.free_abandoned(r).await.unwrap(), "and does not give itself up");
    }
    assert!(lives.free_abandoned(&run("rx")).await.is_err() || lives.leases().await.unwrap().len() == 2);
    drop(dies);
    assert!(!lives.free_abandoned(&acts).await.unwrap(), "what was begun is recovered, not freed");
    assert!(lives.free_abandoned(&waits).await.unwrap());
    let left: Vec<RunId> = lives.leases().await.unwrap().into_iter().map(|l| l.run).collect();
    assert_eq!(left, [acts]);
    let other = bed.process();
    assert!(other.claim(&waits).await.unwrap(), "any process may carry it out now");
    assert!(!lives.free_abandoned(&waits).await.unwrap());
}

async fn all_keys_or_none(bed: &dyn Bed) {
    let j = bed.process();
    let runs = begun(&*j, &["ra", "rb"]).await;
    let (a, b) = (&runs[0], &runs[1]);
    let first =
        token(j.take_leases(&keys(&["rack:r1", "node:gpu001", "fabric:f1"]), a, at(1), None).await.unwrap());
    // The last of the three is free, and stays so.
    let refused =
        j.take_leases(&keys(&["node:gpu002", "fabric:f1", "rack:r1"]), b, at(2), None).await.unwrap();
    let key = "rack:r1".parse().unwrap();
    assert_eq!(refused, Lease::HeldBy { key, run: a.clone() }, "the first in the order of keys");
    assert!(j.leases().await.unwrap().iter().all(|l| l.run == *a));
    // A node in the rack is another lock: the journal knows no racks.
    let second = token(j.take_leases(&keys(&["node:gpu002"]), b, at(3), None).await.unwrap());
    let again = token(j.take_leases(&keys(&["rack:r1", "rack:r2"]), a, at(4), None).await.unwrap());
    assert!(first < second && second < again);
    let none = j.take_leases(&[], a, at(5), None).await.unwrap();
    assert!(token(none) > again, "of nothing, everything is taken");
    let many: Vec<LockKey> = (0..=MAX_KEYS).map(|i| format!("node:n{i}").parse().unwrap()).collect();
    assert!(matches!(j.take_leases(&many, a, at(6), None).await, Err(JournalError::TooMany { .. })));
    assert!(matches!(
        j.take_leases(&keys(&["node:x"]), &run("rx"), at(6), None).await,
        Err(JournalError::NoSuchRun(_))
    ));
}

async fn a_judge_sees_every_held_lock(bed: &dyn Bed) {
    let j = bed.process();
    let runs = begun(&*j, &["ra", "rb", "rc", "rd"]).await;
    let seen: Arc<Mutex<Vec<Vec<HeldLease>>>> = Arc::default();
    // At most two nodes out of service.
    let admit: Admit = {
        let seen = Arc::clone(&seen);
        Arc::new(move |held| {
            seen.lock().unwrap().push(held.to_vec());
            let nodes = held.iter().filter(|l| l.key.node().is_some()).count();
            if nodes < 2 { Ok(()) } else { Err(format!("{nodes} nodes are out already")) }
        })
    };
    let take = |key: &'static str, r: usize| {
        let (j, admit, run) = (&j, Arc::clone(&admit), runs[r].clone());
        async move { j.take_leases(&keys(&[key]), &run, at(1), Some(admit)).await.unwrap() }
    };
    let first = token(take("node:gpu001", 0).await);
    token(take("node:gpu002", 1).await);
    assert_eq!(take("node:gpu003", 2).await, Lease::NotAdmitted("2 nodes are out already".to_owned()));
    assert_eq!(
        take("node:gpu001", 2).await,
        Lease::HeldBy { key: keys(&["node:gpu001"])[0].clone(), run: runs[0].clone() }
    );
    assert_eq!(j.leases().await.unwrap().len(), 2, "who is not admitted holds nothing");
    // The end of a run frees its part of the budget, given back or not.
    j.append(&runs[1], 4, at(2), vec![ended(End::Cancelled)]).await.unwrap();
    token(take("node:gpu003", 2).await);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 4, "not asked where a lock is another's");
    assert_eq!(seen[0], []);
    assert_eq!(
        seen[1],
        [HeldLease {
            key: keys(&["node:gpu001"])[0].clone(),
            run: runs[0].clone(),
            token: first,
            taken_at: at(1)
        }]
    );
    assert_eq!(seen[2].len(), 2);
    assert_eq!(seen[3].iter().map(|l| l.run.clone()).collect::<Vec<_>>(), [runs[0].clone()]);
}

async fn a_judge_is_not_asked_twice(bed: &dyn Bed) {
    let j = bed.process();
    let runs = begun(&*j, &["ra"]).await;
    let no: Admit = Arc::new(|_| Err("frozen".to_owned()));
    assert_eq!(
        j.take_leases(&keys(&["node:gpu001"]), &runs[0], at(1), Some(Arc::clone(&no))).await.unwrap(),
        Lease::NotAdmitted("frozen".to_owned())
    );
    token(j.take_leases(&keys(&["node:gpu001", "rack:r1"]), &runs[0], at(1), None).await.unwrap());
    // An engine that takes the run over takes its locks again: nothing more goes out of service.
    let two = bed.process();
    token(two.take_leases(&keys(&["rack:r1"]), &runs[0], at(2), Some(Arc::clone(&no))).await.unwrap());
    let more = two.take_leases(&keys(&["rack:r1", "rack:r2"]), &runs[0], at(3), Some(no)).await.unwrap();
    assert_eq!(more, Lease::NotAdmitted("frozen".to_owned()));
}

async fn what_a_run_holds_is_listed_and_given_back(bed: &dyn Bed) {
    let j = bed.process();
    let runs = begun(&*j, &["ra", "rb"]).await;
    let (a, b) = (&runs[0], &runs[1]);
    j.take_leases(&keys(&["fabric:f1", "rack:r1", "node:gpu009", "node:gpu001"]), a, at(1), None)
        .await
        .unwrap();
    j.take_leases(&keys(&["node:gpu005"]), b, at(2), None).await.unwrap();
    let listed = |l: Vec<HeldLease>| l.iter().map(|l| format!("{} {}", l.key, l.run)).collect::<Vec<_>>();
    assert_eq!(
        listed(bed.process().leases().await.unwrap()),
        ["node:gpu001 ra", "node:gpu005 rb", "node:gpu009 ra", "rack:r1 ra", "fabric:f1 ra"]
    );
    j.drop_leases(&keys(&["rack:r1", "node:gpu005"]), a).await.unwrap();
    assert_eq!(
        listed(j.leases().await.unwrap()),
        ["node:gpu001 ra", "node:gpu005 rb", "node:gpu009 ra", "fabric:f1 ra"]
    );
    j.drop_all_leases(a).await.unwrap();
    assert_eq!(listed(j.leases().await.unwrap()), ["node:gpu005 rb"]);
    j.append(b, 4, at(3), vec![ended(End::Cancelled)]).await.unwrap();
    assert_eq!(j.leases().await.unwrap(), []);
}

async fn two_who_want_the_same_in_another_order_never_wait(bed: &dyn Bed) {
    let j: Arc<dyn Journal> = Arc::from(bed.process());
    let names: Vec<String> = (0..8).map(|i| format!("r{i}")).collect();
    let runs = begun(&*j, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let orders =
        [["node:a", "node:b", "rack:c"], ["rack:c", "node:b", "node:a"], ["node:b", "rack:c", "node:a"]];
    let mut tasks = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let (j, run, keys) = (Arc::clone(&j), run.clone(), keys(&orders[i % 3]));
        tasks.push(tokio::spawn(async move {
            let mut tokens = Vec::new();
            for n in 0..20 {
                match j.take_leases(&keys, &run, at(n), None).await.unwrap() {
                    Lease::Taken { token } => {
                        let held = j.leases().await.unwrap();
                        assert!(
                            held.iter().all(|l| l.run == run && l.token == token),
                            "all three are one run's"
                        );
                        assert_eq!(held.len(), 3);
                        tokens.push(token);
                        j.drop_all_leases(&run).await.unwrap();
                    }
                    Lease::HeldBy { run: other, .. } => assert_ne!(other, run),
                    Lease::NotAdmitted(why) => panic!("{why}"),
                }
            }
            tokens
        }));
    }
    let mut all = Vec::new();
    for t in tasks {
        let tokens = t.await.unwrap();
        assert!(tokens.is_sorted(), "they grow");
        all.extend(tokens);
    }
    let distinct: BTreeSet<u64> = all.iter().copied().collect();
    assert_eq!(distinct.len(), all.len(), "no token is given out twice");
    assert!(!all.is_empty());
}
