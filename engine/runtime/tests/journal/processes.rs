//! Several processes on one journal, and processes that are killed.

use crate::sample::{Site, at, node, noted, proposed, run, started};
use engine_runtime::journal::{Journal, JournalError, OpenMode, SqliteJournal};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const CHILD: &str = "SLURMEDIC_TEST_JOURNAL";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_writers_lose_and_repeat_nothing() {
    let site = Site::new();
    let shared = run("shared");
    let handles = [Arc::new(site.open()), Arc::new(site.open())];
    handles[0].append(&shared, 0, at(0), vec![proposed(&shared, &node("gpu001"))]).await.unwrap();
    let each = 100_u64;
    let mut tasks = Vec::new();
    for (who, j) in handles.iter().enumerate() {
        let (j, shared) = (Arc::clone(j), shared.clone());
        tasks.push(tokio::spawn(async move {
            let own = run(&format!("own{who}"));
            j.append(&own, 0, at(0), vec![proposed(&own, &node("gpu002"))]).await.unwrap();
            let (mut seq, mut conflicts) = (1, 0);
            for i in 0..each {
                j.append(&own, i + 1, at(i), vec![noted(format!("{who} {i}"))]).await.unwrap();
                loop {
                    match j.append(&shared, seq, at(i), vec![noted(format!("{who} {i}"))]).await {
                        Ok(events) => {
                            seq = events.last().unwrap().seq;
                            break;
                        }
                        Err(JournalError::Conflict { found, .. }) => {
                            assert!(found > seq);
                            conflicts += 1;
                            seq = found;
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            }
            conflicts
        }));
    }
    let mut conflicts = 0;
    for t in tasks {
        conflicts += t.await.unwrap();
    }
    assert!(conflicts > 0, "the writers never met: the test shows nothing");
    let events = handles[1].load(&shared).await.unwrap();
    assert_eq!(events.len() as u64, 1 + 2 * each);
    let texts: BTreeSet<String> =
        events.iter().skip(1).map(|e| serde_json::to_string(&e.kind).unwrap()).collect();
    assert_eq!(texts.len() as u64, 2 * each, "each exactly once");
    let report = handles[0].verify().await.unwrap();
    assert_eq!((report.events, report.runs, report.broken), (3 + 4 * each, 3, None));
}

#[test]
fn many_make_the_same_journal_at_once() {
    let site = Site::new();
    let file = site.file();
    let threads: Vec<_> = (0..8)
        .map(|i| {
            let file = file.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let j = SqliteJournal::open(&file, OpenMode::ReadWrite).unwrap();
                let r = run(&format!("r{i}"));
                runtime.block_on(j.append(&r, 0, at(i), vec![proposed(&r, &node("gpu001"))])).unwrap();
            })
        })
        .collect();
    for t in threads {
        t.join().unwrap();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = runtime.block_on(site.open().verify()).unwrap();
    assert_eq!((report.events, report.runs, report.broken), (8, 8, None));
}

/// Not a test of its own: the other process of the tests below, told by an environment variable.
#[test]
#[ignore = "run as a child process by other tests"]
fn child() {
    let Ok(file) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let j = SqliteJournal::open(Path::new(&file), OpenMode::ReadWrite).unwrap();
        let r = run("r1");
        j.append(&r, 0, at(0), started(&r, &node("gpu001"))).await.unwrap();
        assert!(j.claim(&r).await.unwrap());
        for seq in 4.. {
            j.append(&r, seq, at(seq), vec![noted("x".repeat(300))]).await.unwrap();
            println!("\nwritten {}", seq + 1);
            std::io::stdout().flush().unwrap();
        }
    });
}

/// Starts the child, lets it write some events, and kills it. Returns the last event it knew to be written.
fn killed_writer(file: &PathBuf, events: usize) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "processes::child", "--ignored", "--nocapture"])
        .env(CHILD, file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut numbers =
        lines.filter_map(|l| l.unwrap().strip_prefix("written ").map(|n| n.parse::<u64>().unwrap()));
    let mut last = numbers.by_ref().take(events).last().expect("the child wrote nothing");
    child.kill().unwrap();
    child.wait().unwrap();
    if let Some(n) = numbers.last() {
        last = n;
    }
    last
}

#[tokio::test]
async fn a_killed_writer_leaves_a_whole_journal_and_an_orphan() {
    for events in [1, 7, 60] {
        let site = Site::new();
        let known = killed_writer(&site.file(), events);
        let r = run("r1");
        let j = site.open();
        let loaded = j.load(&r).await.unwrap().len() as u64;
        assert!(loaded == known || loaded == known + 1, "{loaded} on record, {known} were known to be");
        assert_eq!(j.verify().await.unwrap().broken, None);
        assert_eq!(j.orphans().await.unwrap(), std::slice::from_ref(&r));
        assert!(j.claim(&r).await.unwrap());
        assert_eq!(j.orphans().await.unwrap(), []);
        j.append(&r, loaded, at(99), vec![noted("taken over")]).await.unwrap();
    }
}

#[tokio::test]
async fn a_living_engine_keeps_its_run_even_when_its_file_is_removed() {
    let site = Site::new();
    let (one, two, r) = (site.open(), site.open(), run("r1"));
    one.append(&r, 0, at(0), started(&r, &node("gpu001"))).await.unwrap();
    assert!(one.claim(&r).await.unwrap());
    let lock = site.dir.path().join("journal.db.engines").join(format!("{}.lock", one.engine()));
    assert!(lock.exists());
    std::fs::remove_file(&lock).unwrap();
    assert!(!two.claim(&r).await.unwrap(), "its process is there");
    assert_eq!(two.orphans().await.unwrap(), []);
    // As another boot would have left it.
    site.raw().execute("UPDATE engines SET boot = 'earlier' WHERE engine = ?1", [one.engine()]).unwrap();
    assert_eq!(two.orphans().await.unwrap(), std::slice::from_ref(&r));
    // As another process with the same number.
    site.raw()
        .execute_batch(
            "UPDATE engines SET start = '1', boot = (SELECT boot FROM engines WHERE boot <> 'earlier') WHERE boot = 'earlier'",
        )
        .unwrap();
    assert!(two.claim(&r).await.unwrap());
}

#[tokio::test]
async fn dead_engines_that_claim_nothing_are_forgotten() {
    let site = Site::new();
    let r = run("r1");
    let keeper = site.open();
    keeper.append(&r, 0, at(0), started(&r, &node("gpu001"))).await.unwrap();
    for _ in 0..5 {
        assert!(site.open().claim(&r).await.unwrap());
    }
    let files = std::fs::read_dir(site.dir.path().join("journal.db.engines")).unwrap().count();
    assert!(files <= 2, "{files} files of engines");
    let engines: i64 = site.raw().query_row("SELECT count(*) FROM engines", [], |r| r.get(0)).unwrap();
    assert!(engines <= 2, "{engines} engines");
}

#[tokio::test]
async fn a_locked_database_is_an_error_in_time() {
    let site = Site::new();
    let (j, r) = (site.open(), run("r1"));
    j.append(&r, 0, at(0), vec![proposed(&r, &node("gpu001"))]).await.unwrap();
    let other = site.raw();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = std::time::Instant::now();
    let result = j.append(&r, 1, at(1), vec![noted("x")]).await;
    assert!(matches!(result, Err(JournalError::Store { .. })), "{result:?}");
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert_eq!(j.load(&r).await.unwrap().len(), 1, "reading goes on beside a writer");
    other.execute_batch("ROLLBACK").unwrap();
    j.append(&r, 1, at(1), vec![noted("x")]).await.unwrap();
}
