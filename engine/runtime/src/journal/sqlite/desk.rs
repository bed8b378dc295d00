//! What the writing thread knows and does, inside a transaction that it does not end itself.
//!
//! What it keeps in memory of runs only saves reading; every transaction begins by looking at what is on disk,
//! because other processes write to the same journal.

use super::engines::{self, Engine};
use super::locks;
use super::place::Place;
use super::read;
use crate::journal::stored::{Phase, Prepared, RawSummary, Summary, place_records, prepare, store};
use crate::journal::stream::{NewRecord, Record, StreamName};
use crate::journal::{JournalError, NewEvent};
use engine_core::digest::Digest;
use engine_core::model::RunId;
use engine_core::playbook::PlaybookRef;
use engine_core::run::{Event, EventKind, RunState};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Folded runs that are kept in memory.
const KEPT_RUNS: usize = 256;

/// Place and digest of the last entry.
pub(super) type Head = (u64, Digest);

/// What the thread owns beside its connection.
#[derive(Debug)]
pub(super) struct Desk {
    place: Arc<Place>,
    engine: Arc<str>,
    alive: Option<Engine>,
    /// The engine came to life in this transaction.
    newborn: bool,
    /// Files of dead engines that this transaction forgets.
    gone: Vec<PathBuf>,
    kept: BTreeMap<RunId, (u64, RunState)>,
    tick: u64,
    /// The last entry in this transaction, once it is known.
    head: Option<Head>,
    /// The position that the file names as the last.
    head_on_file: u64,
}

pub(super) fn write(e: rusqlite::Error) -> JournalError {
    store("written", e)
}

impl Desk {
    pub(super) fn new(place: Arc<Place>, engine: Arc<str>) -> Self {
        Self {
            place,
            engine,
            alive: None,
            newborn: false,
            gone: Vec::new(),
            kept: BTreeMap::new(),
            tick: 0,
            head: None,
            head_on_file: 0,
        }
    }

    /// Returns the last entry in this transaction, to go back to.
    pub(super) fn head(&self) -> Option<Head> {
        self.head.clone()
    }

    /// Forgets what an order did that failed.
    pub(super) fn back_to(&mut self, head: Option<Head>) {
        self.head = head;
    }

    /// Writes down which entry is the last, if there is a new one.
    pub(super) fn write_head(&mut self, tx: &Connection) -> Result<(), JournalError> {
        match &self.head {
            Some((pos, hash)) if *pos != self.head_on_file => {
                execute(
                    tx,
                    "UPDATE head SET pos = ?1, hash = ?2 WHERE one = 1",
                    params![signed(*pos)?, hash.as_str()],
                )?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The transaction is on disk.
    pub(super) fn committed(&mut self) {
        self.head = None;
        self.newborn = false;
        for file in std::mem::take(&mut self.gone) {
            // A file that stays is in nobody's way.
            let _ = std::fs::remove_file(file);
        }
    }

    /// The transaction held one order, which failed: what is kept of runs is as it was before.
    pub(super) fn refused(&mut self) {
        self.head = None;
        self.gone.clear();
        self.stillborn();
    }

    /// The transaction never was, and orders in it had succeeded.
    pub(super) fn rolled_back(&mut self) {
        self.refused();
        self.kept.clear();
    }

    /// The engine is not on record: the next claim starts over under the same name.
    fn stillborn(&mut self) {
        if std::mem::take(&mut self.newborn) {
            self.alive = None;
            engines::forget(&self.place, &self.engine);
        }
    }

    fn last(&mut self, tx: &Connection) -> Result<Head, JournalError> {
        if let Some(head) = &self.head {
            return Ok(head.clone());
        }
        let (pos, hash): (i64, String) = tx
            .prepare_cached("SELECT pos, hash FROM head WHERE one = 1")
            .map_err(write)?
            .query_row([], |r| Ok((r.get(0)?, r.get(1)?)))
            .map_err(write)?;
        let hash = Digest::parse(&hash).ok_or_else(|| {
            store("read", "the record of the last entry is damaged: run `slurmedic journal verify`")
        })?;
        let head = (unsigned(pos)?, hash);
        self.head_on_file = head.0;
        self.head = Some(head.clone());
        Ok(head)
    }

    /// Appends events; see [`Journal::append_events`](crate::journal::Journal::append_events).
    pub(super) fn append(
        &mut self,
        tx: &Connection,
        run: &RunId,
        after: u64,
        new: Vec<NewEvent>,
    ) -> Result<Vec<Event>, JournalError> {
        let found = events_of(tx, run)?;
        if found != after {
            if found == 0 {
                return Err(JournalError::NoSuchRun(run.clone()));
            }
            return Err(JournalError::Conflict { run: run.clone(), expected: after, found });
        }
        let begins = new.iter().any(|n| matches!(n.kind, EventKind::Intent { .. }));
        if begins && holder_of(tx, run)?.is_some_and(|engine| engine != *self.engine) {
            return Err(JournalError::TakenOver(run.clone()));
        }
        // Taken out: after any error below it is read anew.
        let state = match self.kept.remove(run) {
            _ if found == 0 => None,
            Some((_, state)) if state.seq == found => Some(state),
            _ => Some(read::fold_run(tx, run)?),
        };
        let Prepared { events, stored, state } = prepare(run, state, self.last(tx)?, new)?;
        {
            let mut insert = tx
                .prepare_cached(
                    "INSERT INTO events (pos, run, seq, at, kind, body, prev_hash, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )
                .map_err(write)?;
            for e in &stored {
                insert
                    .execute(params![
                        signed(e.pos)?,
                        e.name,
                        signed(e.seq)?,
                        e.at,
                        e.kind,
                        e.body,
                        e.prev.as_str(),
                        e.hash.as_str()
                    ])
                    .map_err(write)?;
            }
        }
        if let (Some(first), Some(last)) = (stored.first(), stored.last()) {
            self.head = Some((last.pos, last.hash.clone()));
            let summary = Summary::of(&state);
            set_summary(tx, first.pos, &summary)?;
            if summary.phase == Phase::Over {
                execute(tx, "DELETE FROM claims WHERE run = ?1", params![run.as_str()])?;
                locks::give_all_back(tx, run)?;
            }
        }
        self.keep(state);
        Ok(events)
    }

    fn keep(&mut self, state: RunState) {
        if state.status.is_terminal() {
            return;
        }
        self.tick += 1;
        self.kept.insert(state.run.clone(), (self.tick, state));
        if self.kept.len() > KEPT_RUNS {
            let oldest = self.kept.iter().min_by_key(|(_, (tick, _))| *tick).map(|(run, _)| run.clone());
            if let Some(run) = oldest {
                self.kept.remove(&run);
            }
        }
    }

    /// Appends records; see [`Journal::append_records`](crate::journal::Journal::append_records).
    pub(super) fn append_records(
        &mut self,
        tx: &Connection,
        stream: &StreamName,
        after: Option<u64>,
        at: Timestamp,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Record>, JournalError> {
        let found = read::stream_length(tx, stream)?;
        if let Some(expected) = after.filter(|n| *n != found) {
            return Err(JournalError::StreamConflict { stream: stream.clone(), expected, found });
        }
        let text = at.to_string();
        let places = place_records(stream, found, self.last(tx)?, &text, &records);
        let mut insert = tx
            .prepare_cached(
                "INSERT INTO records (pos, stream, seq, at, kind, body, prev_hash, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )
            .map_err(write)?;
        let mut written = Vec::with_capacity(records.len());
        for (place, record) in places.iter().zip(records) {
            insert
                .execute(params![
                    signed(place.pos)?,
                    stream.as_str(),
                    signed(place.seq)?,
                    text,
                    record.kind(),
                    record.body(),
                    place.prev.bytes(),
                    place.hash.bytes()
                ])
                .map_err(write)?;
            let (kind, body) = record.into_parts();
            written.push(Record { stream: stream.clone(), seq: place.seq, at, kind, body });
        }
        if let Some(last) = places.into_iter().next_back() {
            self.head = Some((last.pos, last.hash));
        }
        Ok(written)
    }

    /// Records a playbook's digest, or finds that it changed.
    pub(super) fn pin(tx: &Connection, playbook: &PlaybookRef, at: Timestamp) -> Result<(), JournalError> {
        let version = playbook.version.to_string();
        let recorded: Option<String> = tx
            .prepare_cached("SELECT digest FROM playbooks WHERE id = ?1 AND version = ?2")
            .map_err(write)?
            .query_row(params![playbook.id, version], |r| r.get(0))
            .optional()
            .map_err(write)?;
        match recorded {
            Some(d) if d == playbook.digest.as_str() => Ok(()),
            Some(d) => Err(JournalError::PlaybookChanged {
                id: playbook.id.clone(),
                version,
                recorded: Digest::parse(&d)
                    .ok_or_else(|| store("read", "a playbook's digest on record is none"))?,
                found: playbook.digest.clone(),
            }),
            None => execute(
                tx,
                "INSERT INTO playbooks (id, version, digest, pinned_at) VALUES (?1, ?2, ?3, ?4)",
                params![playbook.id, version, playbook.digest.as_str(), at.to_string()],
            ),
        }
    }

    /// Claims a run for this engine.
    pub(super) fn claim(&mut self, tx: &Connection, run: &RunId) -> Result<bool, JournalError> {
        let first = self.alive.is_none();
        if first {
            self.alive = Some(Engine::start(&self.place, &self.engine)?);
            self.newborn = true;
        }
        let claimed = self.claim_alive(tx, run, first);
        if first && claimed.is_err() {
            self.gone.clear();
            self.stillborn();
        }
        claimed
    }

    fn claim_alive(&mut self, tx: &Connection, run: &RunId, first: bool) -> Result<bool, JournalError> {
        let phase = phase_of(tx, run)?.ok_or_else(|| JournalError::NoSuchRun(run.clone()))?;
        if first {
            self.gone = engines::register(tx, &self.place, &self.engine)?;
        }
        let free = match holder_of(tx, run)? {
            Some(holder) if holder == *self.engine && !first => return Ok(true),
            Some(holder) if holder != *self.engine => !engines::lives(tx, &self.place, &holder)?,
            _ => true,
        };
        if free && phase != Phase::Over {
            execute(
                tx,
                "INSERT INTO claims (run, engine) VALUES (?1, ?2) ON CONFLICT (run) DO UPDATE SET engine = excluded.engine",
                params![run.as_str(), &*self.engine],
            )?;
        }
        Ok(free)
    }

    /// Frees what a run holds that was not begun and that no living engine has.
    pub(super) fn free_abandoned(&self, tx: &Connection, run: &RunId) -> Result<bool, JournalError> {
        let lives = match holder_of(tx, run)? {
            Some(holder) if holder == *self.engine => true,
            Some(holder) => engines::lives(tx, &self.place, &holder)?,
            None => false,
        };
        if lives || phase_of(tx, run)? != Some(Phase::Waiting) {
            return Ok(false);
        }
        locks::give_all_back(tx, run)?;
        execute(tx, "DELETE FROM claims WHERE run = ?1", params![run.as_str()])?;
        Ok(true)
    }

    /// Stores bytes under their digest.
    pub(super) fn store_blob(
        tx: &Connection,
        digest: &Digest,
        bytes: &[u8],
        at: Timestamp,
    ) -> Result<(), JournalError> {
        let there: bool = tx
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM blobs WHERE digest = ?1)")
            .map_err(write)?
            .query_row(params![digest.as_str()], |r| r.get(0))
            .map_err(write)?;
        if there {
            return Ok(());
        }
        execute(
            tx,
            "INSERT INTO blobs (digest, stored_at, bytes) VALUES (?1, ?2, ?3)",
            params![digest.as_str(), at.to_string(), bytes],
        )
    }
}

pub(super) fn execute(tx: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<(), JournalError> {
    tx.prepare_cached(sql).map_err(write)?.execute(values).map(drop).map_err(write)
}

/// Returns how many events a run has on record; 0 for no run.
fn events_of(tx: &Connection, run: &RunId) -> Result<u64, JournalError> {
    let seq: Option<i64> = tx
        .prepare_cached("SELECT seq FROM runs WHERE run = ?1")
        .map_err(write)?
        .query_row(params![run.as_str()], |r| r.get(0))
        .optional()
        .map_err(write)?;
    seq.map_or(Ok(0), unsigned)
}

/// Returns the engine that claimed a run last.
fn holder_of(tx: &Connection, run: &RunId) -> Result<Option<String>, JournalError> {
    tx.prepare_cached("SELECT engine FROM claims WHERE run = ?1")
        .map_err(write)?
        .query_row(params![run.as_str()], |r| r.get(0))
        .optional()
        .map_err(write)
}

pub(super) fn phase_of(tx: &Connection, run: &RunId) -> Result<Option<Phase>, JournalError> {
    let phase: Option<i64> = tx
        .prepare_cached("SELECT phase FROM runs WHERE run = ?1")
        .map_err(write)?
        .query_row(params![run.as_str()], |r| r.get(0))
        .optional()
        .map_err(write)?;
    match phase {
        None => Ok(None),
        Some(0) => Ok(Some(Phase::Waiting)),
        Some(1) => Ok(Some(Phase::Acting)),
        Some(2) => Ok(Some(Phase::Over)),
        Some(other) => Err(store("read", format!("run {run} is in phase {other}, which does not exist"))),
    }
}

fn set_summary(tx: &Connection, first_pos: u64, summary: &Summary) -> Result<(), JournalError> {
    let s = RawSummary::of(summary)?;
    execute(
        tx,
        "INSERT INTO runs (run, first_pos, seq, phase, node, playbook, version, digest, initiator, status, proposed_at, last_event_at, why)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT (run) DO UPDATE SET seq = excluded.seq, phase = excluded.phase, status = excluded.status,
             last_event_at = excluded.last_event_at, why = excluded.why",
        params![
            s.run,
            signed(first_pos)?,
            signed(s.seq)?,
            s.phase,
            s.node,
            s.playbook,
            s.version,
            s.digest,
            s.initiator,
            s.status,
            s.proposed_at,
            s.last_event_at,
            s.why
        ],
    )
}

pub(super) fn signed(n: u64) -> Result<i64, JournalError> {
    i64::try_from(n).map_err(|e| store("written", e))
}

pub(super) fn unsigned(n: i64) -> Result<u64, JournalError> {
    u64::try_from(n).map_err(|e| store("read", e))
}
