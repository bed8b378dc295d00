//! Group commit: many writers share one synced commit, and none of them another's refusal.

use crate::sample::{Site, at, ended, node, noted, proposed, run, started};
use engine_core::run::{End, EventKind};
use engine_runtime::journal::{Journal, JournalError, NewRecord, StreamName};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Counts the commits in a write-ahead log: frames that say how large the file is after them. (SQLite's file format,
/// section 4.1: a header of 32 bytes, then frames of 24 bytes and a page.)
fn commits(wal: &Path) -> usize {
    let bytes = std::fs::read(wal).unwrap();
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let page = number(8) as usize;
    let salt = &bytes[16..24];
    let frames = bytes[32..].chunks_exact(24 + page);
    frames.take_while(|f| &f[8..16] == salt).filter(|f| f[4..8] != [0; 4]).count()
}

/// Keeps the file locked while orders gather, so that they wait together.
async fn gathered<T: Send + 'static>(
    site: &Site,
    orders: Vec<impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let other = site.raw();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let tasks: Vec<_> = orders.into_iter().map(tokio::spawn).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    other.execute_batch("ROLLBACK").unwrap();
    let mut results = Vec::new();
    for t in tasks {
        results.push(t.await.unwrap());
    }
    results
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_that_wait_together_are_committed_together() {
    let site = Site::new();
    let j = Arc::new(site.open());
    let fleet = StreamName::new("fleet").unwrap();
    let wal = site.dir.path().join("journal.db-wal");
    j.append_records(&fleet, None, at(0), vec![NewRecord::new("alert", "0").unwrap()]).await.unwrap();
    let before = commits(&wal);
    let orders = (1..=100)
        .map(|i: u64| {
            let (j, fleet) = (Arc::clone(&j), fleet.clone());
            async move {
                let record = NewRecord::new("alert", i.to_string()).unwrap();
                j.append_records(&fleet, None, at(i), vec![record]).await.unwrap()[0].seq
            }
        })
        .collect();
    let mut seqs = gathered(&site, orders).await;
    let made = commits(&wal) - before;
    assert!((1..=3).contains(&made), "100 orders took {made} commits");
    seqs.sort_unstable();
    assert_eq!(seqs, (2..=101).collect::<Vec<_>>(), "each its own place");
    // And one alone is not held back for others.
    j.append_records(&fleet, None, at(0), vec![NewRecord::new("alert", "0").unwrap()]).await.unwrap();
    assert_eq!(commits(&wal) - before, made + 1);
    assert_eq!(j.verify().await.unwrap().broken, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_in_a_group_touches_nobody_else() {
    let site = Site::new();
    let j = Arc::new(site.open());
    for i in 0..60 {
        let r = run(&format!("r{i}"));
        j.append(&r, 0, at(0), started(&r, &node("gpu001"))).await.unwrap();
    }
    let orders = (0..60_usize)
        .map(|i| {
            let j = Arc::clone(&j);
            async move {
                let r = run(&format!("r{i}"));
                let note = noted(format!("note of r{i}"));
                let result = match i % 6 {
                    0 => j.append(&r, 4, at(1), vec![note]).await,
                    // Behind; unknown; legal first and illegal second; too large; twice in one group.
                    1 => j.append(&r, 3, at(1), vec![note]).await,
                    2 => j.append(&run("nobody"), 3, at(1), vec![note]).await,
                    3 => j.append(&r, 4, at(1), vec![note, ended(End::Succeeded)]).await,
                    4 => j.append(&r, 4, at(1), vec![noted("x".repeat(9 << 20))]).await,
                    _ => {
                        j.append(&r, 4, at(1), vec![note.clone()]).await.unwrap();
                        j.append(&r, 5, at(1), vec![note]).await
                    }
                };
                (i, result)
            }
        })
        .collect();
    for (i, result) in gathered(&site, orders).await {
        let fits = match (i % 6, &result) {
            (0, Ok(events)) => events.len() == 1,
            (1, Err(JournalError::Conflict { found: 4, .. })) => true,
            (2, Err(JournalError::NoSuchRun(_))) => true,
            (3, Err(JournalError::Illegal(illegal))) => illegal.seq == 6,
            (4, Err(JournalError::TooLarge { .. })) => true,
            (5, Ok(events)) => events[0].seq == 6,
            _ => false,
        };
        assert!(fits, "{i}: {result:?}");
        let length = j.load(&run(&format!("r{i}"))).await.unwrap().len();
        let due = [5, 4, 4, 4, 4, 6][i % 6];
        assert_eq!(length, due, "r{i}");
    }
    // The journal's memory of runs is right as well: each goes on where it is.
    for i in 0..60 {
        let after = [5, 4, 4, 4, 4, 6][i % 6];
        j.append(&run(&format!("r{i}")), after, at(2), vec![noted("later")]).await.unwrap();
    }
    let report = j.verify().await.unwrap();
    assert_eq!((report.runs, report.broken), (60, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_commit_everybody_hears_it_and_nothing_is_there() {
    let site = Site::new();
    let j = Arc::new(site.open());
    let runs: Vec<_> = (0..20).map(|i| run(&format!("r{i}"))).collect();
    for r in &runs {
        j.append(r, 0, at(0), vec![proposed(r, &node("gpu001"))]).await.unwrap();
    }
    let fails =
        "CREATE TRIGGER disk_gone BEFORE UPDATE ON head BEGIN SELECT RAISE(ABORT, 'no space left'); END";
    site.raw().execute_batch(fails).unwrap();
    let orders = runs
        .iter()
        .map(|r| {
            let (j, r) = (Arc::clone(&j), r.clone());
            async move { j.append(&r, 1, at(1), vec![noted("x")]).await }
        })
        .collect();
    for result in gathered(&site, orders).await {
        let error = result.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(matches!(error, JournalError::Store { .. }) && cause.contains("no space left"), "{cause}");
    }
    for r in &runs {
        assert_eq!(j.load(r).await.unwrap().len(), 1);
    }
    assert!(j.claim(&runs[0]).await.unwrap(), "what writes no event is not held up");
    site.raw().execute_batch("DROP TRIGGER disk_gone").unwrap();
    for r in &runs {
        let written = j.append(r, 1, at(2), vec![noted("y")]).await.unwrap();
        assert_eq!(written[0].kind, EventKind::Noted { text: "y".to_owned() });
    }
    assert_eq!(j.verify().await.unwrap().broken, None);
}
