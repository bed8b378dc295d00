//! Reading: on connections of its own, each read with a time limit that SQLite itself keeps.

use super::OpenMode;
use super::folded::Folded;
use super::place::Place;
use super::{engines, schema};
use crate::journal::chain::{Owner, RawEvent, is_digest, link, stored_digest};
use crate::journal::stored::{RawSummary, decode, store};
use crate::journal::stream::{self, Record, StreamName};
use crate::journal::{JournalError, RunSummary};
use engine_core::digest::Digest;
use engine_core::model::{NodeName, RunId};
use engine_core::run::{Event, EventKind, RunState, fold};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Connections that are kept open between reads.
const KEPT: usize = 4;
/// How often SQLite looks at the clock, in instructions of its virtual machine.
const TICK: i32 = 20_000;
/// How long a caller waits beyond the limit for SQLite to notice it.
const GRACE: Duration = Duration::from_secs(2);

/// Connections for reading.
#[derive(Debug)]
pub(super) struct Readers {
    place: Arc<Place>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    /// Begins with one connection.
    pub(super) fn new(place: Arc<Place>, first: Option<Connection>) -> Self {
        Self { place, idle: Arc::new(Mutex::new(first.into_iter().collect())) }
    }

    /// Runs a read on a thread that may wait.
    pub(super) async fn read<T, F>(&self, limit: Duration, work: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, JournalError> + Send + 'static,
    {
        let (place, idle) = (Arc::clone(&self.place), Arc::clone(&self.idle));
        let task = tokio::task::spawn_blocking(move || {
            let kept = idle.lock().ok().and_then(|mut idle| idle.pop());
            let mut db = match kept {
                Some(db) => db,
                None => schema::connect(&place, OpenMode::ReadOnly)?,
            };
            let deadline = Instant::now() + limit;
            db.progress_handler(TICK, Some(move || Instant::now() > deadline))
                .map_err(|e| store("read", e))?;
            let result = work(&db);
            db.progress_handler(0, None::<fn() -> bool>).map_err(|e| store("read", e))?;
            if let Ok(mut idle) = idle.lock() {
                // After an error the connection may be what is wrong.
                if result.is_ok() && idle.len() < KEPT {
                    idle.push(db);
                }
            }
            result
        });
        match tokio::time::timeout(limit + GRACE, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(e)) => Err(store("read", e)),
            Err(_) => Err(store("read", format!("the disk did not answer within {} s", limit.as_secs()))),
        }
    }

    /// Runs a read on a connection of its own, so that every page comes from the file and none from a cache.
    pub(super) async fn read_anew<T, F>(&self, limit: Duration, work: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, JournalError> + Send + 'static,
    {
        Self { place: Arc::clone(&self.place), idle: Arc::default() }.read(limit, work).await
    }

    /// Closes what is idle.
    pub(super) fn close(&self) {
        if let Ok(mut idle) = self.idle.lock() {
            idle.clear();
        }
    }
}

fn read(e: rusqlite::Error) -> JournalError {
    store("read", e)
}

/// The columns of [`raw_event`] in the table of events.
pub(super) const EVENT_COLUMNS: &str = "pos, run, seq, at, kind, body, prev_hash, hash";
/// The columns of [`raw_event`] in the table of records.
pub(super) const RECORD_COLUMNS: &str = "pos, stream, seq, at, kind, body, prev_hash, hash";

/// Takes an event or a record as it lies in the file; `Err` says at which position which part has lost its type.
pub(super) fn raw_event<'r>(
    owner: Owner,
    row: &'r Row<'_>,
) -> rusqlite::Result<Result<RawEvent<'r>, (Option<u64>, String)>> {
    let mut bad = None;
    let mut number = |i: usize, what: &str| -> rusqlite::Result<u64> {
        match row.get_ref(i)? {
            ValueRef::Integer(n) if n >= 0 => Ok(n as u64),
            _ => {
                bad.get_or_insert_with(|| format!("its {what} is not a number"));
                Ok(0)
            }
        }
    };
    let (pos, seq) = (number(0, "position")?, number(2, "place")?);
    let mut bytes = |i: usize, what: &str, digest: bool| -> rusqlite::Result<&'r [u8]> {
        match (row.get_ref(i)?, owner) {
            (ValueRef::Text(t), Owner::Run) => Ok(t),
            (ValueRef::Text(t), Owner::Stream) if !digest => Ok(t),
            (ValueRef::Blob(b), Owner::Stream) if digest => Ok(b),
            _ => {
                bad.get_or_insert_with(|| format!("its {what} has lost its type"));
                Ok(&[])
            }
        }
    };
    let name = match owner {
        Owner::Run => "run",
        Owner::Stream => "stream",
    };
    let event = RawEvent {
        owner,
        pos,
        name: bytes(1, name, false)?,
        seq,
        at: bytes(3, "time", false)?,
        kind: bytes(4, "kind", false)?,
        body: bytes(5, "content", false)?,
        prev: bytes(6, "link", true)?,
        hash: bytes(7, "digest", true)?,
    };
    Ok(match bad {
        None => Ok(event),
        Some(why) => Err(((pos > 0).then_some(pos), why)),
    })
}

/// Says whether an entry is what its own digest says.
fn is_whole(raw: &RawEvent<'_>) -> bool {
    stored_digest(raw.owner, raw.prev).is_some_and(|prev| is_digest(raw.owner, raw.hash, &link(&prev, raw)))
}

/// Returns how many records a stream has.
pub(super) fn stream_length(db: &Connection, stream: &StreamName) -> Result<u64, JournalError> {
    let seq: i64 = db
        .prepare_cached("SELECT coalesce(max(seq), 0) FROM records WHERE stream = ?1")
        .map_err(read)?
        .query_row(params![stream.as_str()], |r| r.get(0))
        .map_err(read)?;
    u64::try_from(seq).map_err(|e| store("read", e))
}

/// Reads records behind number `after`. Each is checked against its own digest, and none may be missing in between.
pub(super) fn load_records(
    db: &Connection,
    stream: &StreamName,
    after: u64,
    limit: usize,
) -> Result<Vec<Record>, JournalError> {
    let unreadable =
        |seq: u64, why: String| JournalError::UnreadableRecord { stream: stream.clone(), seq, why };
    let mut q = db
        .prepare_cached(&format!(
            "SELECT {RECORD_COLUMNS} FROM records WHERE stream = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3"
        ))
        .map_err(read)?;
    let after_seq = i64::try_from(after).unwrap_or(i64::MAX);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = q.query(params![stream.as_str(), after_seq, limit]).map_err(read)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next().map_err(read)? {
        let next = after.saturating_add(records.len() as u64 + 1);
        let raw = raw_event(Owner::Stream, row).map_err(read)?.map_err(|(_, why)| unreadable(next, why))?;
        if raw.seq != next {
            return Err(unreadable(next, format!("it is missing: number {} comes in its place", raw.seq)));
        }
        if !is_whole(&raw) {
            return Err(unreadable(next, "it was changed after it was written".to_owned()));
        }
        records.push(stream::decode(&raw).map_err(|why| unreadable(next, why))?);
    }
    Ok(records)
}

/// Says whether somebody asked a run to stop. It is asked at every nap of a wait, so it reads no event's content.
pub(super) fn stop_requested(db: &Connection, run: &RunId) -> Result<bool, JournalError> {
    db.prepare_cached("SELECT EXISTS (SELECT 1 FROM events WHERE run = ?1 AND kind = ?2)")
        .map_err(read)?
        .query_row(params![run.as_str(), EventKind::CANCEL_REQUESTED], |r| r.get(0))
        .map_err(read)
}

/// Reads all events of a run. Each is checked against its own digest, and none may be missing.
pub(super) fn load(db: &Connection, run: &RunId) -> Result<Vec<Event>, JournalError> {
    load_after(db, run, 0)
}

/// Reads the events of a run behind number `after`, as [`load`] does.
fn load_after(db: &Connection, run: &RunId, after: u64) -> Result<Vec<Event>, JournalError> {
    let unreadable = |seq: u64, why: String| JournalError::Unreadable { run: run.to_string(), seq, why };
    // One view of the file for both questions; inside a writer's transaction it is that one's.
    let tx = if db.is_autocommit() { Some(db.unchecked_transaction().map_err(read)?) } else { None };
    let due: Option<i64> = db
        .prepare_cached("SELECT seq FROM runs WHERE run = ?1")
        .map_err(read)?
        .query_row(params![run.as_str()], |r| r.get(0))
        .optional()
        .map_err(read)?;
    let due = due.ok_or_else(|| JournalError::NoSuchRun(run.clone()))?;
    let due = u64::try_from(due).map_err(|e| store("read", e))?;
    let mut events: Vec<Event> = Vec::with_capacity(due.saturating_sub(after).min(4096) as usize);
    {
        let mut q = db
            .prepare_cached(&format!(
                "SELECT {EVENT_COLUMNS} FROM events WHERE run = ?1 AND seq > ?2 ORDER BY seq"
            ))
            .map_err(read)?;
        let after_seq = i64::try_from(after).unwrap_or(i64::MAX);
        let mut rows = q.query(params![run.as_str(), after_seq]).map_err(read)?;
        while let Some(row) = rows.next().map_err(read)? {
            let next = after + events.len() as u64 + 1;
            let raw = raw_event(Owner::Run, row).map_err(read)?.map_err(|(_, why)| unreadable(next, why))?;
            if raw.seq != next {
                return Err(unreadable(
                    next,
                    format!("it is missing: number {} comes in its place", raw.seq),
                ));
            }
            if !is_whole(&raw) {
                return Err(unreadable(next, "it was changed after it was written".to_owned()));
            }
            events.push(decode(&raw).map_err(|why| unreadable(next, why))?);
        }
    }
    let last = after + events.len() as u64;
    if last != due {
        return Err(unreadable(last + 1, format!("it is missing: {due} were written")));
    }
    if let Some(tx) = tx {
        tx.commit().map_err(read)?;
    }
    Ok(events)
}

/// Reads and folds a run.
pub(super) fn fold_run(db: &Connection, run: &RunId) -> Result<RunState, JournalError> {
    let events = load(db, run)?;
    fold(&events).map_err(|e| JournalError::Unreadable { run: run.to_string(), seq: e.seq, why: e.why })
}

/// Reads a run's state, going on from where this process folded it last.
pub(super) fn state(db: &Connection, run: &RunId, folded: &Folded) -> Result<RunState, JournalError> {
    let state = match folded.take(run) {
        None => fold(&load(db, run)?)?,
        Some(mut state) => {
            for event in load_after(db, run, state.seq)? {
                state.apply(&event)?;
            }
            state
        }
    };
    folded.keep(&state);
    Ok(state)
}

/// The columns of [`raw_summary`].
pub(super) const SUMMARY_COLUMNS: &str =
    "run, seq, phase, node, playbook, version, digest, initiator, status, proposed_at, last_event_at, why";

/// Takes a run's line as it lies in the file.
pub(super) fn raw_summary(row: &Row<'_>) -> rusqlite::Result<RawSummary> {
    Ok(RawSummary {
        run: row.get(0)?,
        seq: u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0),
        phase: row.get(2)?,
        node: row.get(3)?,
        playbook: row.get(4)?,
        version: row.get(5)?,
        digest: row.get(6)?,
        initiator: row.get(7)?,
        status: row.get(8)?,
        proposed_at: row.get(9)?,
        last_event_at: row.get(10)?,
        why: row.get(11)?,
    })
}

/// Lists runs, newest first.
pub(super) fn runs(
    db: &Connection,
    node: Option<&NodeName>,
    open_only: bool,
    limit: usize,
) -> Result<Vec<RunSummary>, JournalError> {
    let mut sql = format!("SELECT {SUMMARY_COLUMNS} FROM runs WHERE 1");
    if node.is_some() {
        sql.push_str(" AND node = ?2");
    }
    if open_only {
        sql.push_str(" AND phase < 2");
    }
    sql.push_str(" ORDER BY first_pos DESC LIMIT ?1");
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut q = db.prepare_cached(&sql).map_err(read)?;
    let mut rows = match node {
        Some(node) => q.query(params![limit, node.as_str()]),
        None => q.query(params![limit]),
    }
    .map_err(read)?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next().map_err(read)? {
        let raw = raw_summary(row).map_err(read)?;
        let run = raw.run.clone();
        let summary = raw.decode().map_err(|why| {
            store(
                "read",
                format!("the line of run {run:?} is damaged: {why}; run `slurmedic journal verify`"),
            )
        })?;
        lines.push(summary.line);
    }
    Ok(lines)
}

/// Lists open runs whose engine is gone.
pub(super) fn orphans(db: &Connection, place: &Place) -> Result<Vec<RunId>, JournalError> {
    let open: Vec<(String, Option<String>)> = {
        let mut q = db
            .prepare_cached(
                "SELECT r.run, c.engine FROM runs r LEFT JOIN claims c ON c.run = r.run
                 WHERE r.phase < 2 AND (r.phase = 1 OR c.engine IS NOT NULL) ORDER BY r.first_pos",
            )
            .map_err(read)?;
        let rows = q.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).map_err(read)?;
        rows.collect::<Result<_, _>>().map_err(read)?
    };
    let mut living: BTreeMap<String, bool> = BTreeMap::new();
    let mut orphans = Vec::new();
    for (run, engine) in open {
        let lives = match engine {
            None => false,
            Some(engine) => match living.get(&engine) {
                Some(lives) => *lives,
                None => {
                    let lives = engines::lives(db, place, &engine)?;
                    living.insert(engine, lives);
                    lives
                }
            },
        };
        if !lives {
            orphans.push(RunId::new(&run).map_err(|e| store("read", e))?);
        }
    }
    Ok(orphans)
}

/// Reads bytes by their digest, and makes sure that they are what it says.
pub(super) fn blob(db: &Connection, digest: &Digest) -> Result<Option<Vec<u8>>, JournalError> {
    let bytes: Option<Vec<u8>> = db
        .prepare_cached("SELECT bytes FROM blobs WHERE digest = ?1")
        .map_err(read)?
        .query_row(params![digest.as_str()], |r| r.get(0))
        .optional()
        .map_err(read)?;
    match bytes {
        Some(bytes) if Digest::of(&bytes) != *digest => {
            Err(store("read", format!("the bytes stored as {} were changed", digest.short())))
        }
        other => Ok(other),
    }
}
