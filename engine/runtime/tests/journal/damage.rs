//! Whatever is done to the file behind the journal's back is found, and the event is named.

use crate::sample::{Site, at, node, noted, places, proposed, run};
use engine_runtime::journal::{ChainBreak, Journal, JournalError, OpenMode, SqliteJournal};
use proptest::prelude::*;
use rusqlite::types::Value;
use std::os::unix::fs::{FileExt, PermissionsExt};

pub(crate) async fn broken(site: &Site) -> Option<ChainBreak> {
    let j = SqliteJournal::open(&site.file(), OpenMode::ReadOnly).unwrap();
    j.verify().await.unwrap().broken
}

/// Runs SQL as somebody who knows about the triggers.
pub(crate) fn forge(site: &Site, sql: &str) {
    let db = site.raw();
    let triggers: Vec<(String, String)> = db
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    for (name, _) in &triggers {
        db.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
    }
    db.execute_batch(sql).unwrap();
    for (_, text) in &triggers {
        db.execute_batch(text).unwrap();
    }
}

fn flip(site: &Site, at: usize, mask: u8) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(site.file()).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ mask], at as u64).unwrap();
}

#[tokio::test]
async fn one_changed_byte_is_found_and_the_event_named() {
    let site = Site::new();
    site.fill().await;
    assert_eq!(broken(&site).await, None);
    let found = places(&site.file(), b"job 4711 of user ada");
    // In the event, and in the list of runs as the last word about the run.
    assert_eq!(found.len(), 2);
    let mut named = Vec::new();
    for place in found {
        flip(&site, place + 4, 0x01);
        let b = broken(&site).await.unwrap();
        named.push((b.pos, b.run.clone(), b.seq, b.kind.clone()));
        assert!(!b.to_string().is_empty());
        flip(&site, place + 4, 0x01);
        assert_eq!(broken(&site).await, None);
    }
    named.sort();
    let rb = Some("rb".to_owned());
    assert_eq!(named, [(None, rb.clone(), None, None), (Some(19), rb, Some(5), Some("noted".to_owned()))]);
}

#[tokio::test]
async fn a_byte_that_breaks_the_text_is_found_and_loading_refuses_it() {
    let site = Site::new();
    site.fill().await;
    let place = places(&site.file(), br#"{"event":"noted""#);
    assert_eq!(place.len(), 1);
    // Not JSON any more; then not even text.
    for (offset, mask) in [(0, 0x20), (4, 0x80)] {
        flip(&site, place[0] + offset, mask);
        let b = broken(&site).await.unwrap();
        assert_eq!((b.pos, b.run.as_deref(), b.seq), (Some(19), Some("rb"), Some(5)), "{b}");
        assert!(b.to_string().starts_with("event 19 of the journal (number 5 of run rb, noted): "), "{b}");
        let j = site.open();
        let load = j.load(&run("rb")).await;
        assert!(matches!(&load, Err(JournalError::Unreadable { seq: 5, .. })), "{load:?}");
        // Nor does anything go on on top of it.
        let append = j.append(&run("rb"), 5, at(50), vec![noted("x")]).await;
        assert!(matches!(&append, Err(JournalError::Unreadable { seq: 5, .. })), "{append:?}");
        assert_eq!(j.load(&run("ra")).await.unwrap().len(), 13, "other runs are still read");
        drop(j);
        flip(&site, place[0] + offset, mask);
    }
    assert_eq!(broken(&site).await, None);
}

#[tokio::test]
async fn a_byte_changed_under_a_living_journal_is_found() {
    let site = Site::new();
    let j = site.open();
    let r = run("r1");
    j.append(&r, 0, at(0), vec![proposed(&r, &node("gpu001")), noted("remember the milk")]).await.unwrap();
    // Into the main file, as a checkpoint does, while the journal stays open.
    site.raw().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get::<_, i64>(0)).unwrap();
    assert_eq!(j.verify().await.unwrap().broken, None);
    let event = places(&site.file(), br#"text":"remember the milk"#);
    assert_eq!(event.len(), 1);
    flip(&site, event[0] + 10, 0x02);
    let b = j.verify().await.unwrap().broken.unwrap();
    assert_eq!((b.pos, b.seq), (Some(2), Some(2)), "{b}");
}

#[tokio::test]
async fn removed_exchanged_and_added_events_are_found() {
    struct Case {
        what: &'static str,
        sql: &'static str,
        pos: Option<u64>,
        says: &'static str,
    }
    let cases = [
        Case { what: "last event removed", sql: "DELETE FROM events WHERE pos = 19", pos: Some(19), says: "it is gone" },
        Case { what: "last three removed", sql: "DELETE FROM events WHERE pos > 16", pos: Some(17), says: "it is gone" },
        Case { what: "all removed", sql: "DELETE FROM events", pos: Some(1), says: "it is gone" },
        Case { what: "middle removed", sql: "DELETE FROM events WHERE pos = 9", pos: Some(9), says: "it is gone" },
        Case {
            what: "middle removed and the rest renumbered",
            sql: "DELETE FROM events WHERE pos = 9; UPDATE events SET pos = pos - 1 WHERE pos > 9",
            pos: Some(9),
            says: "does not follow",
        },
        Case {
            what: "two exchanged",
            sql: "UPDATE events SET pos = -1 WHERE pos = 9; UPDATE events SET pos = 9 WHERE pos = 10;
                  UPDATE events SET pos = 10 WHERE pos = -1",
            pos: Some(9),
            says: "does not follow",
        },
        Case {
            what: "two bodies exchanged",
            sql: "CREATE TEMP TABLE t AS SELECT pos, body FROM events;
                  UPDATE events SET body = (SELECT body FROM t WHERE pos = 19 - events.pos) WHERE pos IN (9, 10)",
            pos: Some(9),
            says: "changed after it was written",
        },
        Case {
            what: "an event at the end without its head",
            sql: "INSERT INTO events SELECT 20, run, 6, at, kind, body, hash, hash FROM events WHERE pos = 19",
            pos: Some(20),
            says: "changed after it was written",
        },
        Case { what: "head set back", sql: "UPDATE head SET pos = 18", pos: Some(19), says: "not on the record" },
        Case { what: "head forged", sql: "UPDATE head SET hash = 'x'", pos: Some(19), says: "another digest" },
        Case { what: "head gone", sql: "DELETE FROM head", pos: None, says: "record of the last entry is gone" },
        Case {
            what: "end made up in the list",
            sql: "UPDATE runs SET status = '{\"ended\":\"succeeded\"}', phase = 2 WHERE run = 'rb'",
            pos: None,
            says: "not what its events say",
        },
        Case { what: "line removed", sql: "DELETE FROM runs WHERE run = 'rb'", pos: None, says: "missing in the list" },
        Case {
            what: "line added",
            sql: "INSERT INTO runs SELECT 'rx', 99, seq, phase, node, playbook, version, digest, initiator, status,
                  proposed_at, last_event_at, why FROM runs WHERE run = 'rb'",
            pos: None,
            says: "has no event",
        },
        Case {
            what: "pinned digest changed",
            sql: "UPDATE playbooks SET digest = replace(digest, substr(digest, 1, 1), 'e') || ''",
            pos: Some(1),
            says: "with digest",
        },
        Case { what: "bytes changed", sql: "UPDATE blobs SET bytes = x'00'", pos: None, says: "not what was stored" },
        Case { what: "token set back", sql: "INSERT INTO locks VALUES ('node:n', 'rb', 7, '')", pos: None, says: "newer token" },
        Case { what: "type lost", sql: "PRAGMA writable_schema = 1", pos: None, says: "" },
    ];
    for case in cases {
        let site = Site::new();
        site.fill().await;
        forge(&site, case.sql);
        let found = broken(&site).await;
        if case.says.is_empty() {
            // The forging itself leaves no trace: what the other cases find is what they forged.
            assert_eq!(found, None, "{}", case.what);
            continue;
        }
        let found = found.unwrap_or_else(|| panic!("{}: not found", case.what));
        assert_eq!(found.pos, case.pos, "{}: {found}", case.what);
        assert!(found.to_string().contains(case.says), "{}: {found}", case.what);
    }
}

#[tokio::test]
async fn what_keeps_the_journal_append_only_must_stay() {
    let site = Site::new();
    site.fill().await;
    let db = site.raw();
    for (sql, says) in [
        ("UPDATE events SET body = '{}' WHERE pos = 3", "events are never changed"),
        ("DELETE FROM events WHERE pos = 19", "events are never deleted"),
        ("DELETE FROM events", "events are never deleted"),
        ("INSERT OR REPLACE INTO events SELECT * FROM events WHERE pos = 3", "only ever added at the end"),
        (
            "INSERT OR REPLACE INTO events SELECT 20, run, seq, at, kind, body, prev_hash, hash FROM events WHERE pos = 3",
            "only ever added at the end",
        ),
        (
            "INSERT INTO events SELECT 25, run, 99, at, kind, body, prev_hash, hash FROM events WHERE pos = 3",
            "only ever added",
        ),
        ("UPDATE playbooks SET digest = ''", "never changed"),
        ("DELETE FROM playbooks", "never deleted"),
        (
            "INSERT OR REPLACE INTO playbooks SELECT id, version, '', pinned_at FROM playbooks",
            "never changed",
        ),
        ("UPDATE blobs SET bytes = x''", "never changed"),
        ("DELETE FROM blobs", "never deleted"),
        ("INSERT OR REPLACE INTO blobs SELECT digest, stored_at, x'' FROM blobs", "never changed"),
        ("UPDATE fence SET token = token - 1", "never goes back"),
        ("DELETE FROM fence", "stays"),
    ] {
        let error = db.execute_batch(sql).unwrap_err().to_string();
        assert!(error.contains(says), "{sql}: {error}");
    }
    assert_eq!(broken(&site).await, None);
    db.execute_batch("DROP TRIGGER events_no_update").unwrap();
    let found = broken(&site).await.unwrap();
    assert_eq!(found.to_string(), "trigger events_no_update was removed or changed");
}

#[tokio::test]
async fn a_damaged_page_names_the_first_event_that_cannot_be_read() {
    let site = Site::new();
    let (j, r) = (site.open(), run("r1"));
    j.append(&r, 0, at(0), vec![proposed(&r, &node("gpu001"))]).await.unwrap();
    for i in 1..60 {
        j.append(&r, i, at(i), vec![noted(format!("note {i} {}", "x".repeat(500)))]).await.unwrap();
    }
    drop(j);
    let place = places(&site.file(), b"note 30 ");
    let page = place.iter().map(|p| p / 4096 * 4096).min().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(site.file()).unwrap();
    file.write_all_at(&[0; 4096], page as u64).unwrap();
    drop(file);
    let b = broken(&site).await.unwrap();
    let pos = b.pos.unwrap();
    assert!((20..=31).contains(&pos), "{b}");
    assert_eq!((b.run.as_deref(), b.seq), (Some("r1"), Some(pos)), "{b}: the index still knows whose it is");
    assert!(b.why.contains("damaged"), "{b}");
    let j = site.open();
    assert!(j.load(&r).await.is_err());
}

#[tokio::test]
async fn unfit_places_are_refused_and_say_why() {
    let site = Site::new();
    let why = |mode| match SqliteJournal::open(&site.file(), mode) {
        Err(JournalError::BadPlace { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    assert!(why(OpenMode::ReadOnly).contains("slurmedic init"));
    assert!(!site.file().exists(), "reading makes nothing");
    std::fs::write(site.file(), b"#!/bin/sh\n# not a journal at all, but a file somebody needs\n".repeat(40))
        .unwrap();
    for mode in [OpenMode::ReadOnly, OpenMode::ReadWrite] {
        std::fs::set_permissions(site.file(), std::fs::Permissions::from_mode(0o600)).unwrap();
        let before = std::fs::read(site.file()).unwrap();
        assert!(why(mode).contains("not a journal"), "{}", why(mode));
        assert_eq!(std::fs::read(site.file()).unwrap(), before);
    }
    std::fs::remove_file(site.file()).unwrap();
    site.raw().execute_batch("CREATE TABLE tickets (id)").unwrap();
    assert!(why(OpenMode::ReadWrite).contains("another program"));
    std::fs::remove_file(site.file()).unwrap();

    drop(site.open());
    let mode = std::fs::metadata(site.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    site.raw().execute_batch("PRAGMA user_version = 99").unwrap();
    assert!(why(OpenMode::ReadWrite).contains("newer"));
    let left: Vec<_> = std::fs::read_dir(site.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|n| !n.to_string_lossy().contains(".new-")), "{left:?}");
}

#[tokio::test]
async fn a_journal_for_reading_writes_nothing() {
    let site = Site::new();
    site.fill().await;
    let j = SqliteJournal::open(&site.file(), OpenMode::ReadOnly).unwrap();
    assert_eq!(j.runs(None, false, 10).await.unwrap().len(), 3);
    let error = j.append(&run("rb"), 5, at(50), vec![noted("x")]).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(matches!(error, JournalError::Store { .. }) && source.contains("reading only"), "{source}");
    assert!(j.claim(&run("rb")).await.is_err());
}

#[tokio::test]
async fn every_column_of_every_event_counts() {
    let site = Site::new();
    site.fill().await;
    let whole = std::fs::read(site.file()).unwrap();
    for column in ["run", "seq", "at", "kind", "body", "prev_hash", "hash"] {
        for pos in 1..=19 {
            let change = if column == "seq" { "seq + 1000".to_owned() } else { format!("{column} || ' '") };
            forge(&site, &format!("UPDATE events SET {column} = {change} WHERE pos = {pos}"));
            let b = broken(&site).await.unwrap_or_else(|| panic!("{column} of {pos}"));
            assert_eq!(b.pos, Some(pos), "{column}: {b}");
            std::fs::write(site.file(), &whole).unwrap();
        }
    }
    assert_eq!(broken(&site).await, None);
}

/// Reads every event as it lies in the file; `None` where SQLite cannot.
fn rows(site: &Site) -> Option<Vec<Vec<Value>>> {
    let db = site.raw();
    let mut q = db.prepare("SELECT * FROM events NOT INDEXED ORDER BY pos").ok()?;
    let rows =
        q.query_map([], |r| (0..8).map(|i| r.get::<_, Value>(i)).collect::<Result<Vec<_>, _>>()).ok()?;
    rows.collect::<Result<_, _>>().ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 0, ..ProptestConfig::default() })]

    /// Any byte of the file: either it is found, or no event and no run reads differently than before.
    #[test]
    fn no_changed_byte_passes(place in any::<prop::sample::Index>(), mask in 1_u8..) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (site, image) = filled(&runtime);
        let before = rows(&site).unwrap();
        flip(&site, place.index(image), mask);
        let Ok(j) = SqliteJournal::open(&site.file(), OpenMode::ReadWrite) else { return Ok(()) };
        let report = runtime.block_on(j.verify());
        if let Ok(report) = report && report.broken.is_none() {
            prop_assert_eq!(report.events, 19);
            let mut loaded = 0;
            for r in ["ra", "rb", "rc"] {
                loaded += runtime.block_on(j.load(&run(r))).unwrap().len();
            }
            prop_assert_eq!(loaded, 19);
            drop(j);
            prop_assert_eq!(rows(&site), Some(before));
        }
    }

    /// Any byte of an event's own fields: always found, and never behind its place.
    #[test]
    fn no_changed_byte_of_an_event_passes(
        pos in 1_i64..=19, column in prop::sample::select(&["run", "at", "kind", "body", "prev_hash", "hash"][..]),
        place in any::<prop::sample::Index>(), mask in 1_u8..,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (site, _) = filled(&runtime);
        let db = site.raw();
        let mut bytes: Vec<u8> = db
            .query_row(&format!("SELECT CAST({column} AS BLOB) FROM events WHERE pos = ?1"), [pos], |r| r.get(0))
            .unwrap();
        let at = place.index(bytes.len());
        bytes[at] ^= mask;
        db.execute_batch("DROP TRIGGER events_no_update").unwrap();
        // Bytes that are no text, as a changed file would hold them.
        let sql = format!("UPDATE events SET {column} = CAST(?1 AS TEXT) WHERE pos = ?2");
        match db.execute(&sql, rusqlite::params![bytes, pos]) {
            Ok(_) => {}
            // The name of another run that has such an event: the index alone keeps that out.
            Err(e) if column == "run" => {
                prop_assert_eq!(e.sqlite_error_code(), Some(rusqlite::ErrorCode::ConstraintViolation));
                return Ok(());
            }
            Err(e) => panic!("{e}"),
        }
        drop(db);
        let broken = runtime.block_on(broken(&site));
        prop_assert_eq!(broken.and_then(|b| b.pos), Some(pos as u64));
    }
}

/// Copies a filled journal, made once.
fn filled(runtime: &tokio::runtime::Runtime) -> (Site, usize) {
    static IMAGE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let image = IMAGE.get_or_init(|| {
        let site = Site::new();
        runtime.block_on(site.fill());
        std::fs::read(site.file()).unwrap()
    });
    let site = Site::new();
    std::fs::write(site.file(), image).unwrap();
    std::fs::set_permissions(site.file(), std::fs::Permissions::from_mode(0o600)).unwrap();
    (site, image.len())
}
