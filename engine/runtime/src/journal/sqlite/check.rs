//! `verify` over the database file: whatever is wrong in it is named, as far as the file still tells.

use super::read::{EVENT_COLUMNS, SUMMARY_COLUMNS, raw_event, raw_summary};
use super::schema;
use crate::journal::JournalError;
use crate::journal::stored::{shown, store};
use crate::journal::verify::{ChainBreak, ChainReport, ChainWalk, PlaybookCheck, RunCheck};
use engine_core::digest::Digest;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

/// Why a check stops.
enum Stop {
    /// Something is wrong with the journal.
    Broken(ChainBreak),
    /// It could not be looked at.
    Failed(JournalError),
}

impl From<ChainBreak> for Stop {
    fn from(b: ChainBreak) -> Self {
        Self::Broken(b)
    }
}

impl From<rusqlite::Error> for Stop {
    /// Damage is a finding; a lock, a time limit or a failing disk is not.
    fn from(e: rusqlite::Error) -> Self {
        if is_damage(&e) {
            Self::Broken(ChainBreak::of_journal(damage(&e)))
        } else {
            Self::Failed(store("read", e))
        }
    }
}

fn is_damage(e: &rusqlite::Error) -> bool {
    match e {
        rusqlite::Error::SqliteFailure(..) => matches!(
            e.sqlite_error_code(),
            Some(
                ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::TypeMismatch
                    | ErrorCode::Unknown
            )
        ),
        // A value that is not of the column's type, or a table that is not there.
        _ => true,
    }
}

fn damage(e: &rusqlite::Error) -> String {
    format!("the file is damaged: {e}; keep a copy of it, and compare with a backup")
}

/// Checks everything, in one view of the file.
pub(super) fn verify(db: &Connection) -> Result<ChainReport, JournalError> {
    let mut walk = ChainWalk::new();
    let (mut runs, mut blobs) = (0, 0);
    let stopped = check(db, &mut walk, &mut runs, &mut blobs);
    let broken = match stopped {
        Ok(()) => None,
        Err(Stop::Broken(b)) => Some(b),
        Err(Stop::Failed(e)) => return Err(e),
    };
    Ok(ChainReport { events: walk.events(), runs, blobs, head: walk.head().clone(), broken })
}

fn check(db: &Connection, walk: &mut ChainWalk, runs: &mut u64, blobs: &mut u64) -> Result<(), Stop> {
    let view = db.unchecked_transaction()?;
    check_chain(&view, walk)?;
    check_head(&view, walk)?;
    check_runs(&view, walk, runs)?;
    check_others(&view, blobs)?;
    check_schema(&view)?;
    // Last, because it names pages and not events.
    let found: String = view.query_row("PRAGMA integrity_check(1)", [], |r| r.get(0))?;
    if found == "ok" {
        Ok(())
    } else {
        Err(ChainBreak::of_journal(format!(
            "every event is as it was written, but the file is damaged: {found}"
        ))
        .into())
    }
}

fn check_chain(db: &Connection, walk: &mut ChainWalk) -> Result<(), Stop> {
    let mut q = db.prepare(&format!("SELECT {EVENT_COLUMNS} FROM events NOT INDEXED ORDER BY pos"))?;
    let mut rows = q.query([])?;
    loop {
        let raw = match rows.next() {
            Ok(None) => return Ok(()),
            Ok(Some(row)) => raw_event(row)
                .map(|r| r.map_err(|(pos, why)| (pos.unwrap_or(walk.events() + 1), why)))
                .or_else(|e| if is_damage(&e) { Ok(Err((walk.events() + 1, damage(&e)))) } else { Err(e) })?,
            Err(e) if is_damage(&e) => Err((walk.events() + 1, damage(&e))),
            Err(e) => return Err(e.into()),
        };
        match raw {
            Ok(raw) => walk.step(&raw)?,
            Err((pos, why)) => return Err(named_by_index(db, pos, why).into()),
        }
    }
}

/// Names an event whose own page cannot be read: the index of runs still knows whose it is.
fn named_by_index(db: &Connection, pos: u64, why: String) -> ChainBreak {
    let found = db
        .query_row(
            "SELECT run, seq FROM events INDEXED BY sqlite_autoindex_events_1 WHERE pos = ?1",
            params![i64::try_from(pos).unwrap_or(i64::MAX)],
            |r| Ok((r.get::<_, String>(0)?, r.get::<_, i64>(1)?)),
        )
        .ok();
    let mut b = ChainBreak::at(pos, why);
    if let Some((run, seq)) = found {
        b.run = Some(shown(run.as_bytes()));
        b.seq = u64::try_from(seq).ok();
    }
    b
}

fn check_head(db: &Connection, walk: &ChainWalk) -> Result<(), Stop> {
    let head: Option<(i64, Vec<u8>)> = db
        .query_row("SELECT pos, hash FROM head WHERE one = 1", [], |r| {
            let hash = match r.get_ref(1)? {
                ValueRef::Text(t) | ValueRef::Blob(t) => t.to_vec(),
                _ => Vec::new(),
            };
            Ok((r.get(0)?, hash))
        })
        .optional()?;
    let head = head.map(|(pos, hash)| (u64::try_from(pos).unwrap_or(0), hash));
    walk.end(head.as_ref().map(|(pos, hash)| (*pos, hash.as_slice())))?;
    Ok(())
}

fn check_runs(db: &Connection, walk: &ChainWalk, count: &mut u64) -> Result<(), Stop> {
    let mut playbooks = PlaybookCheck::default();
    let mut q = db.prepare("SELECT id, version, digest FROM playbooks")?;
    let mut rows = q.query([])?;
    while let Some(row) = rows.next()? {
        playbooks.pin(row.get(0)?, row.get(1)?, &row.get::<_, String>(2)?)?;
    }
    let mut events =
        db.prepare(&format!("SELECT {EVENT_COLUMNS} FROM events WHERE run = ?1 ORDER BY seq"))?;
    let mut summary = db.prepare(&format!("SELECT {SUMMARY_COLUMNS} FROM runs WHERE run = ?1"))?;
    for (run, due) in walk.runs() {
        // Bytes that are no text were written by nobody; the chain was right, so this is a forged one.
        let run = std::str::from_utf8(run)
            .map_err(|_| ChainBreak::of_journal(format!("run {} has no readable name", shown(run))))?;
        let mut fold = RunCheck::default();
        let mut found = 0;
        let mut rows = events.query(params![run])?;
        while let Some(row) = rows.next()? {
            let raw = raw_event(row)?.map_err(|(_, why)| ChainBreak::of_run(run, why))?;
            fold.step(&raw, &mut playbooks)?;
            found += 1;
        }
        if found != *due {
            let why = format!("the index finds {found} of its {due} events: the file is damaged");
            return Err(ChainBreak::of_run(run, why).into());
        }
        let line = summary.query_row(params![run], raw_summary).optional()?;
        fold.end(run, line.map(crate::journal::stored::RawSummary::decode))?;
        *count += 1;
    }
    let extra: Option<String> = db
        .query_row(
            "SELECT run FROM runs WHERE run NOT IN (SELECT run FROM events NOT INDEXED) LIMIT 1",
            [],
            |r| r.get(0),
        )
        .optional()?;
    match extra {
        Some(run) => Err(ChainBreak::of_run(&run, "it is in the list of runs and has no event").into()),
        None => Ok(()),
    }
}

fn check_others(db: &Connection, blobs: &mut u64) -> Result<(), Stop> {
    let mut q = db.prepare("SELECT digest, bytes FROM blobs")?;
    let mut rows = q.query([])?;
    while let Some(row) = rows.next()? {
        let digest: String = row.get(0)?;
        let whole = match row.get_ref(1)? {
            ValueRef::Blob(bytes) => Digest::of(bytes).as_str() == digest,
            _ => false,
        };
        if !whole {
            let why = format!("the bytes stored as {} are not what was stored", shown(digest.as_bytes()));
            return Err(ChainBreak::of_journal(why).into());
        }
        *blobs += 1;
    }
    let ahead: Option<String> = db
        .query_row(
            "SELECT node FROM leases WHERE token > (SELECT coalesce(max(token), 0) FROM fence)",
            [],
            |r| r.get(0),
        )
        .optional()?;
    match ahead {
        Some(node) => {
            let why =
                format!("the lock on {} has a newer token than was ever given out", shown(node.as_bytes()));
            Err(ChainBreak::of_journal(why).into())
        }
        None => Ok(()),
    }
}

/// Makes sure that what keeps the journal append-only is still in place.
fn check_schema(db: &Connection) -> Result<(), Stop> {
    let expected = schema::expected()?;
    let actual = schema::actual(db)?;
    let name = |(kind, name, _): &(String, String, String)| format!("{kind} {name}");
    if let Some(gone) = expected.iter().find(|e| !actual.contains(e)) {
        return Err(ChainBreak::of_journal(format!("{} was removed or changed", name(gone))).into());
    }
    // `ANALYZE` may add tables of SQLite's own.
    match actual.iter().find(|a| !expected.contains(a) && !a.1.starts_with("sqlite_stat")) {
        Some(added) => Err(ChainBreak::of_journal(format!("{} was added by somebody", name(added))).into()),
        None => Ok(()),
    }
}
