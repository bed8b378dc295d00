//! Streams: what both stores promise of them, and what is found when they are damaged.

use crate::contract::{Bed, contract};
use crate::damage::{broken, forge};
use crate::sample::{Site, at, node, noted, proposed, run};
use engine_runtime::journal::{
    CrashPoint, Journal, JournalError, MAX_RECORD, MAX_RECORDS, MemoryJournal, NewRecord, OpenMode, Record,
    SqliteJournal, StreamName,
};
use proptest::prelude::*;

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

fn record(n: u64) -> NewRecord {
    NewRecord::of("alert", &serde_json::json!({ "n": n, "text": "ECC “alert” \u{1f525}\n" })).unwrap()
}

contract! {
    what_is_appended_is_loaded
    a_writer_that_is_behind_is_told
    streams_and_runs_share_one_chain
    bounds_are_kept
}

async fn what_is_appended_is_loaded(bed: &dyn Bed) {
    let (j, fleet, audit) = (bed.process(), stream("fleet"), stream("audit"));
    assert_eq!(j.load_records(&fleet, 0, 10).await.unwrap(), []);
    assert_eq!(j.stream_length(&fleet).await.unwrap(), 0);
    assert_eq!(j.append_records(&fleet, None, at(0), Vec::new()).await.unwrap(), []);
    let mut written = j.append_records(&fleet, None, at(0), vec![record(1), record(2)]).await.unwrap();
    j.append_records(&audit, Some(0), at(1), vec![record(7)]).await.unwrap();
    let odd = NewRecord::new("paused", r#"{ "by":"mara", "share": 1.50 }"#).unwrap();
    written.extend(bed.process().append_records(&fleet, Some(2), at(2), vec![odd]).await.unwrap());
    let loaded = j.load_records(&fleet, 0, 10).await.unwrap();
    assert_eq!(loaded, written);
    assert_eq!(loaded.iter().map(|r| r.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((loaded[2].at, loaded[2].kind.as_str()), (at(2), "paused"), "to the nanosecond");
    assert_eq!(loaded[2].body, r#"{ "by":"mara", "share": 1.50 }"#, "to the byte");
    let numbers = |l: &[Record]| l.iter().map(|r| r.seq).collect::<Vec<_>>();
    assert_eq!(numbers(&j.load_records(&fleet, 1, 1).await.unwrap()), [2]);
    assert_eq!(numbers(&j.load_records(&fleet, 2, 10).await.unwrap()), [3]);
    assert_eq!(numbers(&j.load_records(&fleet, 3, 10).await.unwrap()), [0; 0]);
    assert_eq!(numbers(&j.load_records(&fleet, u64::MAX, 10).await.unwrap()), [0; 0]);
    assert_eq!((j.stream_length(&fleet).await.unwrap(), j.stream_length(&audit).await.unwrap()), (3, 1));
}

async fn a_writer_that_is_behind_is_told(bed: &dyn Bed) {
    let (one, two, fleet) = (bed.process(), bed.process(), stream("fleet"));
    one.append_records(&fleet, Some(0), at(0), vec![record(1)]).await.unwrap();
    two.append_records(&fleet, None, at(1), vec![record(2)]).await.unwrap();
    for behind in [0, 1, 3] {
        match one.append_records(&fleet, Some(behind), at(2), vec![record(3)]).await {
            Err(JournalError::StreamConflict { stream, expected, found }) => {
                assert_eq!((stream, expected, found), (fleet.clone(), behind, 2));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(two.stream_length(&fleet).await.unwrap(), 2);
    let written = one.append_records(&fleet, Some(2), at(2), vec![record(3)]).await.unwrap();
    assert_eq!(written[0].seq, 3);
}

async fn streams_and_runs_share_one_chain(bed: &dyn Bed) {
    let (j, fleet, r) = (bed.process(), stream("fleet"), run("r1"));
    let mut heads = Vec::new();
    j.append(&r, 0, at(0), vec![proposed(&r, &node("gpu001"))]).await.unwrap();
    heads.push(j.verify().await.unwrap().head);
    j.append_records(&fleet, None, at(1), vec![record(1), record(2)]).await.unwrap();
    heads.push(j.verify().await.unwrap().head);
    j.append(&r, 1, at(2), vec![noted("x")]).await.unwrap();
    let report = j.verify().await.unwrap();
    assert_eq!(
        (report.events, report.runs, report.records, report.streams, &report.broken),
        (2, 1, 2, 1, &None)
    );
    heads.push(report.head);
    heads.dedup();
    assert_eq!(heads.len(), 3, "each moves the one head");
}

async fn bounds_are_kept(bed: &dyn Bed) {
    let (j, fleet) = (bed.process(), stream("fleet"));
    let many = vec![record(0); MAX_RECORDS + 1];
    let refused = j.append_records(&fleet, None, at(0), many).await;
    assert!(
        matches!(&refused, Err(JournalError::TooMany { count, .. }) if *count == MAX_RECORDS + 1),
        "{refused:?}"
    );
    let large = NewRecord::new("alert", format!("\"{}\"", "x".repeat(MAX_RECORD - 2))).unwrap();
    j.append_records(&fleet, None, at(0), vec![large.clone(); 8]).await.unwrap();
    let refused = j.append_records(&fleet, None, at(0), vec![large; 9]).await;
    assert!(matches!(&refused, Err(JournalError::TooLarge { .. })), "{refused:?}");
    j.append_records(&fleet, None, at(0), vec![record(0); MAX_RECORDS]).await.unwrap();
    assert_eq!(j.stream_length(&fleet).await.unwrap(), 8 + MAX_RECORDS as u64, "all or nothing");
    assert_eq!(j.verify().await.unwrap().broken, None);
}

#[tokio::test]
async fn a_process_in_memory_dies_in_a_record_too() {
    for (point, kept) in [(CrashPoint::Before, 1), (CrashPoint::After, 2)] {
        let j = MemoryJournal::new();
        let fleet = stream("fleet");
        j.crash_after(2, point);
        j.append_records(&fleet, None, at(0), vec![record(1)]).await.unwrap();
        let dead = j.append_records(&fleet, None, at(1), vec![record(2)]).await;
        assert!(matches!(dead, Err(JournalError::Store { .. })) && j.is_dead());
        let next = j.reopen();
        assert_eq!(next.stream_length(&fleet).await.unwrap(), kept, "{point:?}");
        assert_eq!(next.verify().await.unwrap().broken, None);
    }
}

/// Leaves a journal whose chain goes: events 1 to 19 of runs as in `Site::fill`, records 20 to 22, event 23, record 24.
async fn filled() -> Site {
    let site = Site::new();
    site.fill().await;
    let (j, fleet) = (site.open(), stream("fleet"));
    j.append_records(&fleet, None, at(50), vec![record(1), record(2)]).await.unwrap();
    j.append_records(&stream("audit"), None, at(51), vec![record(3)]).await.unwrap();
    j.append(&run("rb"), 5, at(52), vec![noted("x")]).await.unwrap();
    j.append_records(&fleet, None, at(53), vec![record(4)]).await.unwrap();
    drop(j);
    assert_eq!(broken(&site).await, None);
    site
}

#[tokio::test]
async fn removed_exchanged_and_added_records_are_found() {
    struct Case {
        what: &'static str,
        sql: &'static str,
        pos: Option<u64>,
        stream: Option<&'static str>,
        says: &'static str,
    }
    let case = |what, sql, pos, stream, says| Case { what, sql, pos, stream, says };
    let cases = [
        case("last removed", "DELETE FROM records WHERE pos = 24", Some(24), None, "it is gone"),
        case("all removed", "DELETE FROM records", Some(20), None, "it is gone: entry 23 follows entry 19"),
        case("middle removed", "DELETE FROM records WHERE pos = 21", Some(21), None, "it is gone"),
        case("an event between records removed", "DELETE FROM events WHERE pos = 23", Some(23), None, "it is gone"),
        case(
            "two exchanged",
            "UPDATE records SET pos = -1 WHERE pos = 21; UPDATE records SET pos = 21 WHERE pos = 22;
             UPDATE records SET pos = 22 WHERE pos = -1",
            Some(21),
            Some("audit"),
            "does not follow",
        ),
        case(
            "moved to another stream",
            "UPDATE records SET stream = 'fleet', seq = 9 WHERE pos = 22",
            Some(22),
            Some("fleet"),
            "changed after it was written",
        ),
        case(
            "a record where an event was",
            "DELETE FROM events WHERE pos = 23; INSERT INTO records SELECT 23, stream, 8, at, kind, body, prev_hash, hash
             FROM records WHERE pos = 22",
            Some(23),
            Some("audit"),
            "does not follow",
        ),
        case(
            "a record added",
            "INSERT INTO records SELECT 25, stream, 4, at, kind, body, hash, hash FROM records WHERE pos = 24",
            Some(25),
            Some("fleet"),
            "changed after it was written",
        ),
        case(
            "a record at the place of an event",
            "INSERT INTO records SELECT 5, stream, 4, at, kind, body, hash, hash FROM records WHERE pos = 24",
            Some(5),
            Some("fleet"),
            "another entry has its position",
        ),
        case(
            "a lock nobody can read",
            "INSERT INTO locks VALUES ('row:7', 'rb', 0, '')",
            None,
            None,
            "a lock cannot be read",
        ),
    ];
    for c in cases {
        let site = filled().await;
        forge(&site, c.sql);
        let found = broken(&site).await.unwrap_or_else(|| panic!("{}: not found", c.what));
        assert_eq!((found.pos, found.stream.as_deref()), (c.pos, c.stream), "{}: {found}", c.what);
        assert!(found.to_string().contains(c.says), "{}: {found}", c.what);
    }
}

#[tokio::test]
async fn every_column_of_every_record_counts() {
    let site = filled().await;
    let whole = std::fs::read(site.file()).unwrap();
    for column in ["stream", "seq", "at", "kind", "body", "prev_hash", "hash"] {
        for pos in [20, 21, 22, 24] {
            let change = match column {
                "seq" => "seq + 1000".to_owned(),
                "prev_hash" | "hash" => format!("CAST(x'00' || substr({column}, 2) AS BLOB)"),
                _ => format!("{column} || ' '"),
            };
            forge(&site, &format!("UPDATE records SET {column} = {change} WHERE pos = {pos}"));
            let b = broken(&site).await.unwrap_or_else(|| panic!("{column} of {pos}"));
            assert_eq!(b.pos, Some(pos), "{column}: {b}");
            assert!(b.stream.is_some() && b.run.is_none(), "{b}");
            assert!(b.to_string().starts_with(&format!("record {pos} of the journal (number ")), "{b}");
            let j = site.open();
            if ["at", "kind", "body", "prev_hash", "hash", "seq"].contains(&column) && pos != 22 {
                let loaded = j.load_records(&stream("fleet"), 0, 10).await;
                assert!(
                    matches!(loaded, Err(JournalError::UnreadableRecord { .. }))
                        || (column == "seq" && pos == 24),
                    "{column} of {pos}: {loaded:?}"
                );
            }
            drop(j);
            std::fs::write(site.file(), &whole).unwrap();
        }
    }
    assert_eq!(broken(&site).await, None);
}

#[tokio::test]
async fn records_are_append_only() {
    let site = filled().await;
    let db = site.raw();
    for (sql, says) in [
        ("UPDATE records SET body = '{}' WHERE pos = 20", "records are never changed"),
        ("DELETE FROM records WHERE pos = 24", "records are never deleted"),
        ("INSERT OR REPLACE INTO records SELECT * FROM records WHERE pos = 20", "only ever added at the end"),
        (
            "INSERT INTO records SELECT 25, stream, 9, at, kind, body, hash, hash FROM records WHERE pos = 24",
            "only ever added at the end",
        ),
        (
            "INSERT INTO records SELECT 26, stream, 4, at, kind, body, hash, hash FROM records WHERE pos = 24",
            "only ever added at the end",
        ),
        (
            "INSERT INTO events SELECT 24, run, 7, at, kind, body, hash, hash FROM events WHERE pos = 23",
            "only ever added at the end",
        ),
        (
            "INSERT INTO records SELECT 25, stream, 4, at, kind, body, x'00', hash FROM records WHERE pos = 24",
            "CHECK constraint failed",
        ),
    ] {
        let error = db.execute_batch(sql).unwrap_err().to_string();
        assert!(error.contains(says), "{sql}: {error}");
    }
    assert_eq!(broken(&site).await, None);
    db.execute_batch("DROP TRIGGER records_no_delete").unwrap();
    let found = broken(&site).await.unwrap();
    assert_eq!(found.to_string(), "trigger records_no_delete was removed or changed");
}

#[tokio::test]
async fn a_damaged_page_of_records_names_the_first_that_cannot_be_read() {
    use std::os::unix::fs::FileExt;
    let site = Site::new();
    let (j, fleet, r) = (site.open(), stream("fleet"), run("r1"));
    j.append(&r, 0, at(0), vec![proposed(&r, &node("gpu001"))]).await.unwrap();
    for i in 1..60 {
        let body = serde_json::json!({ "text": format!("alert {i} {}", "x".repeat(500)) });
        j.append_records(&fleet, None, at(i), vec![NewRecord::of("alert", &body).unwrap()]).await.unwrap();
        j.append(&r, i, at(i), vec![noted("between")]).await.unwrap();
    }
    drop(j);
    let place = crate::sample::places(&site.file(), b"alert 30 ");
    let page = place.iter().map(|p| p / 4096 * 4096).min().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(site.file()).unwrap();
    file.write_all_at(&[0; 4096], page as u64).unwrap();
    drop(file);
    let b = broken(&site).await.unwrap();
    // Record n stands at position 2 n.
    assert_eq!((b.stream.as_deref(), b.seq.map(|n| n * 2)), (Some("fleet"), b.pos), "{b}");
    assert!((20..=30).contains(&b.seq.unwrap()), "{b}");
    assert!(b.why.contains("damaged"), "{b}");
}

/// Copies the filled journal, made once.
fn copied(runtime: &tokio::runtime::Runtime) -> Site {
    static IMAGE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let image = IMAGE.get_or_init(|| std::fs::read(runtime.block_on(filled()).file()).unwrap());
    let site = Site::new();
    std::fs::write(site.file(), image).unwrap();
    std::fs::set_permissions(site.file(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    site
}

/// Reads both streams as anybody would.
fn both(runtime: &tokio::runtime::Runtime, j: &dyn Journal) -> Result<Vec<Record>, JournalError> {
    let mut all = runtime.block_on(j.load_records(&stream("fleet"), 0, 100))?;
    all.extend(runtime.block_on(j.load_records(&stream("audit"), 0, 100))?);
    Ok(all)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any byte of the file: either it is found, or every record reads as before.
    #[test]
    fn no_changed_byte_of_the_file_changes_a_record(place in any::<prop::sample::Index>(), mask in 1_u8..) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let site = copied(&runtime);
        let before = both(&runtime, &site.open()).unwrap();
        let mut bytes = std::fs::read(site.file()).unwrap();
        let at = place.index(bytes.len());
        bytes[at] ^= mask;
        std::fs::write(site.file(), bytes).unwrap();
        let Ok(j) = SqliteJournal::open(&site.file(), OpenMode::ReadWrite) else { return Ok(()) };
        if let Ok(report) = runtime.block_on(j.verify()) && report.broken.is_none() {
            prop_assert_eq!((report.events, report.records, report.streams), (20, 4, 2));
            prop_assert_eq!(both(&runtime, &j).unwrap(), before);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any byte of a record's own fields: always found, and the record named.
    #[test]
    fn no_changed_byte_of_a_record_passes(
        pos in prop::sample::select(&[20_i64, 21, 22, 24][..]),
        column in prop::sample::select(&["stream", "at", "kind", "body", "prev_hash", "hash"][..]),
        place in any::<prop::sample::Index>(), mask in 1_u8..,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let site = copied(&runtime);
        let db = site.raw();
        let mut bytes: Vec<u8> = db
            .query_row(&format!("SELECT CAST({column} AS BLOB) FROM records WHERE pos = ?1"), [pos], |r| r.get(0))
            .unwrap();
        let at = place.index(bytes.len());
        bytes[at] ^= mask;
        db.execute_batch("DROP TRIGGER records_no_update").unwrap();
        let digest = ["prev_hash", "hash"].contains(&column);
        let value = if digest { "?1" } else { "CAST(?1 AS TEXT)" };
        db.execute(&format!("UPDATE records SET {column} = {value} WHERE pos = ?2"), rusqlite::params![bytes, pos]).unwrap();
        drop(db);
        let found = runtime.block_on(broken(&site));
        prop_assert_eq!(found.map(|b| (b.pos, b.stream.is_some())), Some((Some(pos as u64), true)));
    }
}
