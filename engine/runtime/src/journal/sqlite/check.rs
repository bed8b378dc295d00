//! `verify` over the database file: whatever is wrong in it is named, as far as the file still tells.

use super::read::{EVENT_COLUMNS, RECORD_COLUMNS, SUMMARY_COLUMNS, raw_event, raw_summary};
use super::schema;
use crate::journal::JournalError;
use crate::journal::chain::{Owner, RawEvent};
use crate::journal::lock::LockKey;
use crate::journal::stored::{shown, store};
use crate::journal::verify::{ChainBreak, ChainReport, ChainWalk, PlaybookCheck, RunCheck};
use engine_core::digest::Digest;
use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Rows, params};

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
    Ok(walk.report(runs, blobs, broken))
}

fn check(db: &Connection, walk: &mut ChainWalk, runs: &mut u64, blobs: &mut u64) -> Result<(), Stop> {
    let view = db.unchecked_transaction()?;
    check_chain(&view, walk)?;
    check_head(&view, walk)?;
    check_runs(&view, walk, runs)?;
    check_streams(&view, walk)?;
    check_others(&view, blobs)?;
    check_schema(&view)?;
    // Last, because it names pages and not events.
    let found: String = view.query_row("PRAGMA integrity_check(1)", [], |r| r.get(0))?;
    if found == "ok" {
        Ok(())
    } else {
        Err(ChainBreak::of_journal(format!(
            "every entry is as it was written, but the file is damaged: {found}"
        ))
        .into())
    }
}

/// What comes next in a table.
enum Sight<'r> {
    Entry(RawEvent<'r>),
    /// Something that cannot be read, with its position where that still can.
    Bad(Option<u64>, String),
    End,
}

impl Sight<'_> {
    /// Sorts what is due, or should have come before, before what is not; what cannot be read may be what is due.
    fn rank(&self, due: u64) -> (u8, u64) {
        match self {
            Self::Entry(RawEvent { pos, .. }) | Self::Bad(Some(pos), _) if *pos <= due => (0, *pos),
            Self::Bad(None, _) => (1, due),
            Self::Entry(RawEvent { pos, .. }) | Self::Bad(Some(pos), _) => (2, *pos),
            Self::End => (3, 0),
        }
    }
}

/// One of the two tables that the chain runs through.
struct Lane<'stmt> {
    owner: Owner,
    rows: Rows<'stmt>,
    /// What keeps this table from being read on.
    damage: Option<String>,
}

impl<'stmt> Lane<'stmt> {
    fn new(owner: Owner, rows: Rows<'stmt>) -> Result<Self, Stop> {
        let mut lane = Self { owner, rows, damage: None };
        lane.advance()?;
        Ok(lane)
    }

    fn advance(&mut self) -> Result<(), Stop> {
        match self.rows.advance() {
            Ok(()) => Ok(()),
            Err(e) if is_damage(&e) => {
                self.damage = Some(damage(&e));
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }

    fn look(&self) -> Result<Sight<'_>, Stop> {
        if let Some(why) = &self.damage {
            return Ok(Sight::Bad(None, why.clone()));
        }
        let Some(row) = self.rows.get() else { return Ok(Sight::End) };
        match raw_event(self.owner, row) {
            Ok(Ok(raw)) => Ok(Sight::Entry(raw)),
            Ok(Err((pos, why))) => Ok(Sight::Bad(pos, why)),
            Err(e) if is_damage(&e) => Ok(Sight::Bad(None, damage(&e))),
            Err(e) => Err(e.into()),
        }
    }
}

/// Walks both tables in the order of positions, each position being in one of them.
fn check_chain(db: &Connection, walk: &mut ChainWalk) -> Result<(), Stop> {
    let mut events = db.prepare(&format!("SELECT {EVENT_COLUMNS} FROM events NOT INDEXED ORDER BY pos"))?;
    let mut records =
        db.prepare(&format!("SELECT {RECORD_COLUMNS} FROM records NOT INDEXED ORDER BY pos"))?;
    let mut events = Lane::new(Owner::Run, events.query([])?)?;
    let mut records = Lane::new(Owner::Stream, records.query([])?)?;
    loop {
        let due = walk.len() + 1;
        let (event, record) = (events.look()?, records.look()?);
        let of_run = event.rank(due) <= record.rank(due);
        match if of_run { event } else { record } {
            Sight::End => return Ok(()),
            Sight::Entry(raw) => walk.step(&raw)?,
            Sight::Bad(pos, why) => return Err(named_by_index(db, pos.unwrap_or(due), why).into()),
        }
        if of_run { events.advance()? } else { records.advance()? }
    }
}

/// Names an entry whose own page cannot be read: the indexes still know whose it is.
fn named_by_index(db: &Connection, pos: u64, why: String) -> ChainBreak {
    let place = i64::try_from(pos).unwrap_or(i64::MAX);
    let find = |sql: &str| {
        db.query_row(sql, params![place], |r| Ok((r.get::<_, String>(0)?, r.get::<_, i64>(1)?))).ok()
    };
    let b = ChainBreak::at(pos, why);
    let run = "SELECT run, seq FROM events INDEXED BY sqlite_autoindex_events_1 WHERE pos = ?1";
    let stream = "SELECT stream, seq FROM records INDEXED BY sqlite_autoindex_records_1 WHERE pos = ?1";
    if let Some((run, seq)) = find(run) {
        b.owned(Owner::Run, run.as_bytes(), u64::try_from(seq).unwrap_or(0))
    } else if let Some((stream, seq)) = find(stream) {
        b.owned(Owner::Stream, stream.as_bytes(), u64::try_from(seq).unwrap_or(0))
    } else {
        b
    }
}

/// Makes sure that reading a stream finds all of its records.
fn check_streams(db: &Connection, walk: &ChainWalk) -> Result<(), Stop> {
    let mut count = db.prepare(
        "SELECT count(*) FROM records INDEXED BY sqlite_autoindex_records_1 WHERE stream = ?1 AND seq BETWEEN 1 AND ?2",
    )?;
    for (stream, due) in walk.streams() {
        let name =
            std::str::from_utf8(stream).map_err(|_| ChainBreak::of_stream(stream, "its name is not text"))?;
        let last = i64::try_from(*due).unwrap_or(i64::MAX);
        let found: i64 = count.query_row(params![name, last], |r| r.get(0))?;
        if found != last {
            let why = format!("the index finds {found} of its {due} records: the file is damaged");
            return Err(ChainBreak::of_stream(stream, why).into());
        }
    }
    Ok(())
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
            let raw = raw_event(Owner::Run, row)?.map_err(|(_, why)| ChainBreak::of_run(run, why))?;
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
    let fence: i64 = db.query_row("SELECT coalesce(max(token), 0) FROM fence", [], |r| r.get(0))?;
    let mut q = db.prepare("SELECT key, token FROM locks")?;
    let mut rows = q.query([])?;
    while let Some(row) = rows.next()? {
        let (key, token): (String, i64) = (row.get(0)?, row.get(1)?);
        if let Err(e) = key.parse::<LockKey>() {
            return Err(ChainBreak::of_journal(format!("a lock cannot be read: {e}")).into());
        }
        if token > fence {
            let why = format!("the lock on {key} has a newer token than was ever given out");
            return Err(ChainBreak::of_journal(why).into());
        }
    }
    Ok(())
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
