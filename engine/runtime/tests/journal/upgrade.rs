//! Journals of earlier formats: opened, upgraded, and still whole.

use crate::sample::{Site, at, node, noted, run};
use engine_runtime::journal::{
    Journal, JournalError, Lease, LockKey, NewRecord, OpenMode, SqliteJournal, StreamName,
};
use std::os::unix::fs::PermissionsExt;

/// Leaves a journal of format 1: the tables of that step, and rows as that release wrote them. Events have the same
/// form in both formats; the locks were in a table of nodes.
async fn of_format_1() -> Site {
    let today = Site::new();
    today.fill().await;
    let site = Site::new();
    let db = site.raw();
    db.execute_batch(include_str!("../../src/journal/sqlite/schema_1.sql")).unwrap();
    db.execute("ATTACH ?1 AS today", [today.file().to_str().unwrap()]).unwrap();
    for table in ["events", "head", "runs", "playbooks", "blobs"] {
        db.execute_batch(&format!("INSERT INTO {table} SELECT * FROM today.{table}")).unwrap();
    }
    db.execute_batch(
        "INSERT INTO leases VALUES ('gpu002', 'rb', 7, '2026-03-04T05:06:07Z'), ('gpu001', 'ra', 6, '2026-03-04T05:06:07Z');
         UPDATE fence SET token = 7;
         DETACH today; PRAGMA application_id = 1397509444; PRAGMA user_version = 1;",
    )
    .unwrap();
    db.query_row("PRAGMA journal_mode = WAL", [], |r| r.get::<_, String>(0)).unwrap();
    drop(db);
    std::fs::set_permissions(site.file(), std::fs::Permissions::from_mode(0o600)).unwrap();
    site
}

fn format(site: &Site) -> i64 {
    site.raw().pragma_query_value(None, "user_version", |r| r.get(0)).unwrap()
}

#[tokio::test]
async fn format_1_is_upgraded_and_stays_whole() {
    let site = of_format_1().await;
    match SqliteJournal::open(&site.file(), OpenMode::ReadOnly) {
        Err(JournalError::BadPlace { why, .. }) => assert!(why.contains("open it once for writing"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(format(&site), 1, "reading changes nothing");
    let j = site.open();
    assert_eq!(format(&site), 2);
    let report = j.verify().await.unwrap();
    assert_eq!((report.events, report.runs, report.records, &report.broken), (19, 3, 0, &None));
    // The lock of the run that is not over holds, under the name that locks have now.
    let held = j.leases().await.unwrap();
    assert_eq!(
        held.iter().map(|l| (l.key.to_string(), l.token)).collect::<Vec<_>>(),
        [("node:gpu002".to_owned(), 7)]
    );
    let other = j.take_lease(&node("gpu002"), &run("rc"), at(60)).await.unwrap();
    assert_eq!(other, Lease::HeldBy { key: LockKey::Node(node("gpu002")), run: run("rb") });
    assert_eq!(j.take_lease(&node("gpu001"), &run("rc"), at(60)).await.unwrap(), Lease::Taken { token: 8 });
    // And the chain goes on where it was.
    let fleet = StreamName::new("fleet").unwrap();
    j.append_records(&fleet, Some(0), at(61), vec![NewRecord::new("paused", "{}").unwrap()]).await.unwrap();
    j.append(&run("rb"), 5, at(62), vec![noted("x")]).await.unwrap();
    drop(j);
    let j = SqliteJournal::open(&site.file(), OpenMode::ReadOnly).unwrap();
    let report = j.verify().await.unwrap();
    assert_eq!((report.events, report.records, report.broken), (20, 1, None));
}

#[tokio::test]
async fn a_changed_event_of_format_1_is_found_after_the_upgrade() {
    let site = of_format_1().await;
    site.raw()
        .execute_batch("DROP TRIGGER events_no_update; UPDATE events SET body = replace(body, 'ada', 'bob') WHERE pos = 19;
                        CREATE TRIGGER events_no_update BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;")
        .unwrap();
    let broken = site.open().verify().await.unwrap().broken.unwrap();
    assert_eq!((broken.pos, broken.run.as_deref()), (Some(19), Some("rb")), "{broken}");
}

#[tokio::test]
async fn many_upgrade_the_same_journal_at_once() {
    let site = of_format_1().await;
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let file = site.file();
            std::thread::spawn(move || drop(SqliteJournal::open(&file, OpenMode::ReadWrite).unwrap()))
        })
        .collect();
    for t in threads {
        t.join().unwrap();
    }
    assert_eq!(format(&site), 2);
    assert_eq!(site.open().verify().await.unwrap().broken, None);
}
