//! Copies of a journal that is in use.

use crate::damage::forge;
use crate::sample::{Site, at, node, noted, proposed, run};
use engine_runtime::journal::{Journal, JournalError, NewRecord, OpenMode, SqliteJournal, StreamName};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn names(site: &Site) -> Vec<String> {
    let entries = std::fs::read_dir(site.dir.path()).unwrap();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).filter(|n| n.contains("copy")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_while_an_engine_writes_is_whole() {
    let site = Site::new();
    let j = Arc::new(site.open());
    let (r, fleet) = (run("r1"), StreamName::new("fleet").unwrap());
    j.append(&r, 0, at(0), vec![proposed(&r, &node("gpu001"))]).await.unwrap();
    let body = serde_json::json!({ "text": "x".repeat(2000) });
    let many = vec![NewRecord::of("alert", &body).unwrap(); 4000];
    j.append_records(&fleet, None, at(0), many).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (j, r, stop) = (Arc::clone(&j), r.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut seq = 1;
            while !stop.load(Ordering::Relaxed) {
                j.append(&r, seq, at(seq), vec![noted("x".repeat(300))]).await.unwrap();
                seq += 1;
            }
            seq
        })
    };
    let mut last = 0;
    for i in 0..3 {
        let copy = site.dir.path().join(format!("copy{i}.db"));
        // By another process, which may only read.
        let reader = SqliteJournal::open(&site.file(), OpenMode::ReadOnly).unwrap();
        let report = reader.backup(&copy).await.unwrap();
        assert_eq!(report.broken, None);
        assert!(report.events > last && report.records == 4000, "{report:?}");
        last = report.events;
        assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
        let copied = SqliteJournal::open(&copy, OpenMode::ReadWrite).unwrap();
        assert_eq!(copied.verify().await.unwrap(), report);
        let there = copied.load(&r).await.unwrap();
        assert_eq!(there.len() as u64, report.events);
        assert_eq!(there, j.load(&r).await.unwrap()[..there.len()]);
    }
    stop.store(true, Ordering::Relaxed);
    let written = writer.await.unwrap();
    assert!(written > last, "the engine went on writing");
    assert!(names(&site).iter().all(|n| !n.contains(".new-")), "{:?}", names(&site));
}

#[tokio::test]
async fn a_backup_overwrites_nothing_and_leaves_no_broken_copy() {
    let site = Site::new();
    site.fill().await;
    let copy = site.dir.path().join("copy.db");
    let j = SqliteJournal::open(&site.file(), OpenMode::ReadOnly).unwrap();
    std::fs::write(&copy, b"somebody's").unwrap();
    match j.backup(&copy).await {
        Err(JournalError::BadPlace { why, .. }) => assert!(why.contains("overwrites nothing"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(&copy).unwrap(), b"somebody's");
    std::fs::remove_file(&copy).unwrap();
    let nowhere = site.dir.path().join("no/copy.db");
    assert!(matches!(j.backup(&nowhere).await, Err(JournalError::BadPlace { .. })));
    drop(j);
    forge(&site, "UPDATE events SET body = replace(body, 'ada', 'bob') WHERE pos = 19");
    let j = SqliteJournal::open(&site.file(), OpenMode::ReadOnly).unwrap();
    let broken = j.backup(&copy).await.unwrap().broken.unwrap();
    assert_eq!(broken.pos, Some(19));
    assert_eq!(names(&site), [""; 0]);
}
