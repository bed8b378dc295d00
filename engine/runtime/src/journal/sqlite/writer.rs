//! The one thread that writes: it owns its connection, and does what it is told in order.
//!
//! What it keeps in memory of runs only saves reading; every transaction begins by looking at what is on disk,
//! because other processes write to the same journal.

use super::engines::{self, Engine};
use super::place::Place;
use super::read;
use crate::journal::stored::{Phase, Prepared, RawSummary, Summary, prepare, store};
use crate::journal::{JournalError, Lease};
use engine_core::digest::Digest;
use engine_core::model::{NodeName, RunId};
use engine_core::playbook::PlaybookRef;
use engine_core::run::{Event, EventKind, RunState};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long a caller waits for a write.
const LIMIT: Duration = Duration::from_secs(15);
/// Orders that may wait for the thread.
const QUEUE: usize = 1024;
/// Folded runs that are kept in memory.
const KEPT_RUNS: usize = 256;
/// How long closing waits for the thread.
const CLOSING: Duration = Duration::from_secs(10);

type Order = Box<dyn FnOnce(&mut Desk) + Send>;

/// The way to the writing thread.
#[derive(Debug)]
pub(super) struct Writer {
    orders: Option<SyncSender<Order>>,
    closed: std::sync::Mutex<Receiver<()>>,
}

impl Writer {
    /// Starts the thread on a connection.
    pub(super) fn start(db: Connection, place: Arc<Place>, engine: Arc<str>) -> Result<Self, JournalError> {
        let (orders, inbox) = sync_channel::<Order>(QUEUE);
        let (done, closed) = sync_channel::<()>(1);
        let mut desk = Desk { db, place, engine, alive: None, kept: BTreeMap::new(), tick: 0 };
        std::thread::Builder::new()
            .name("journal-writer".to_owned())
            .spawn(move || {
                while let Ok(order) = inbox.recv() {
                    order(&mut desk);
                }
                drop(desk);
                let _ = done.send(());
            })
            .map_err(|e| store("opened", e))?;
        Ok(Self { orders: Some(orders), closed: std::sync::Mutex::new(closed) })
    }

    /// Has the thread do something, and waits for what came of it.
    pub(super) async fn order<T, F>(&self, work: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Desk) -> Result<T, JournalError> + Send + 'static,
    {
        let (answer, hears) = oneshot::channel();
        let deadline = Instant::now() + LIMIT;
        let order: Order = Box::new(move |desk| {
            // Whoever asked has given up: it must not happen behind their back.
            if Instant::now() < deadline && !answer.is_closed() {
                let _ = answer.send(work(desk));
            }
        });
        let orders = self.orders.as_ref().ok_or_else(|| store("written", "it is being closed"))?;
        orders.try_send(order).map_err(|e| match e {
            TrySendError::Full(_) => store("written", "more than a thousand writes wait for the disk"),
            TrySendError::Disconnected(_) => store("written", "the writing thread has ended"),
        })?;
        match tokio::time::timeout(LIMIT, hears).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(store("written", "the writing thread has ended")),
            Err(_) => Err(store("written", format!("the disk did not answer within {} s", LIMIT.as_secs()))),
        }
    }
}

impl Drop for Writer {
    /// Lets the thread finish what it was told, so that the file is closed in order; not for ever.
    fn drop(&mut self) {
        self.orders = None;
        if let Ok(closed) = self.closed.get_mut() {
            let _ = closed.recv_timeout(CLOSING);
        }
    }
}

/// What the thread owns.
#[derive(Debug)]
pub(super) struct Desk {
    db: Connection,
    place: Arc<Place>,
    engine: Arc<str>,
    alive: Option<Engine>,
    kept: BTreeMap<RunId, (u64, RunState)>,
    tick: u64,
}

fn write(e: rusqlite::Error) -> JournalError {
    store("written", e)
}

fn begin(db: &mut Connection) -> Result<Transaction<'_>, JournalError> {
    db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(write)
}

impl Desk {
    /// Appends events; see [`Journal::append`](crate::journal::Journal::append).
    pub(super) fn append(
        &mut self,
        run: &RunId,
        after: u64,
        at: Timestamp,
        kinds: Vec<EventKind>,
    ) -> Result<Vec<Event>, JournalError> {
        let tx = begin(&mut self.db)?;
        let found = events_of(&tx, run)?;
        if found != after {
            if found == 0 {
                return Err(JournalError::NoSuchRun(run.clone()));
            }
            return Err(JournalError::Conflict { run: run.clone(), expected: after, found });
        }
        // Taken out: after any error below it is read anew.
        let state = match self.kept.remove(run) {
            _ if found == 0 => None,
            Some((_, state)) if state.seq == found => Some(state),
            _ => Some(read::fold_run(&tx, run)?),
        };
        let Prepared { events, stored, state } = prepare(run, state, head(&tx)?, at, kinds)?;
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
                        e.run,
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
            set_head(&tx, last.pos, &last.hash)?;
            let summary = Summary::of(&state);
            set_summary(&tx, first.pos, &summary)?;
            if summary.phase == Phase::Over {
                execute(&tx, "DELETE FROM claims WHERE run = ?1", params![run.as_str()])?;
            }
        }
        tx.commit().map_err(write)?;
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

    /// Takes the lock on a node.
    pub(super) fn take_lease(
        &mut self,
        node: &NodeName,
        run: &RunId,
        at: Timestamp,
    ) -> Result<Lease, JournalError> {
        let tx = begin(&mut self.db)?;
        match phase_of(&tx, run)? {
            None => return Err(JournalError::NoSuchRun(run.clone())),
            Some(Phase::Over) => return Err(JournalError::RunOver(run.clone())),
            Some(Phase::Waiting | Phase::Acting) => {}
        }
        let holder: Option<String> = tx
            .prepare_cached("SELECT run FROM leases WHERE node = ?1")
            .map_err(write)?
            .query_row(params![node.as_str()], |r| r.get(0))
            .optional()
            .map_err(write)?;
        if let Some(holder) = holder.filter(|h| h != run.as_str()) {
            let holder = RunId::new(&holder).map_err(|e| store("read", e))?;
            if phase_of(&tx, &holder)? != Some(Phase::Over) {
                return Ok(Lease::HeldBy(holder));
            }
        }
        execute(&tx, "UPDATE fence SET token = token + 1", params![])?;
        let token: i64 = tx.query_row("SELECT token FROM fence", [], |r| r.get(0)).map_err(write)?;
        execute(
            &tx,
            "INSERT INTO leases (node, run, token, taken_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (node) DO UPDATE SET run = excluded.run, token = excluded.token, taken_at = excluded.taken_at",
            params![node.as_str(), run.as_str(), token, at.to_string()],
        )?;
        tx.commit().map_err(write)?;
        Ok(Lease::Taken { token: unsigned(token)? })
    }

    /// Gives the lock on a node back, if this run holds it.
    pub(super) fn drop_lease(&mut self, node: &NodeName, run: &RunId) -> Result<(), JournalError> {
        let tx = begin(&mut self.db)?;
        execute(
            &tx,
            "DELETE FROM leases WHERE node = ?1 AND run = ?2",
            params![node.as_str(), run.as_str()],
        )?;
        tx.commit().map_err(write)
    }

    /// Records a playbook's digest, or finds that it changed.
    pub(super) fn pin(&mut self, playbook: &PlaybookRef, at: Timestamp) -> Result<(), JournalError> {
        let version = playbook.version.to_string();
        let tx = begin(&mut self.db)?;
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
            None => {
                execute(
                    &tx,
                    "INSERT INTO playbooks (id, version, digest, pinned_at) VALUES (?1, ?2, ?3, ?4)",
                    params![playbook.id, version, playbook.digest.as_str(), at.to_string()],
                )?;
                tx.commit().map_err(write)
            }
        }
    }

    /// Claims a run for this engine.
    pub(super) fn claim(&mut self, run: &RunId) -> Result<bool, JournalError> {
        let first = self.alive.is_none();
        if first {
            self.alive = Some(Engine::start(&self.place, &self.engine)?);
        }
        let claimed = self.claim_alive(run, first);
        if first && claimed.is_err() {
            // Not on record: the next claim starts over under the same name.
            self.alive = None;
            engines::forget(&self.place, &self.engine);
        }
        claimed
    }

    fn claim_alive(&mut self, run: &RunId, first: bool) -> Result<bool, JournalError> {
        let (place, engine) = (&self.place, &self.engine);
        let tx = begin(&mut self.db)?;
        let phase = phase_of(&tx, run)?.ok_or_else(|| JournalError::NoSuchRun(run.clone()))?;
        let gone = if first { engines::register(&tx, place, engine)? } else { Vec::new() };
        let holder: Option<String> = tx
            .prepare_cached("SELECT engine FROM claims WHERE run = ?1")
            .map_err(write)?
            .query_row(params![run.as_str()], |r| r.get(0))
            .optional()
            .map_err(write)?;
        let free = match holder {
            Some(holder) if holder != **engine => !engines::lives(&tx, place, &holder)?,
            _ => true,
        };
        if free && phase != Phase::Over {
            execute(
                &tx,
                "INSERT INTO claims (run, engine) VALUES (?1, ?2) ON CONFLICT (run) DO UPDATE SET engine = excluded.engine",
                params![run.as_str(), &**engine],
            )?;
        }
        tx.commit().map_err(write)?;
        for file in gone {
            // A file that stays is in nobody's way.
            let _ = std::fs::remove_file(file);
        }
        Ok(free)
    }

    /// Stores bytes under their digest.
    pub(super) fn store_blob(
        &mut self,
        digest: &Digest,
        bytes: &[u8],
        at: Timestamp,
    ) -> Result<(), JournalError> {
        let tx = begin(&mut self.db)?;
        let there: bool = tx
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM blobs WHERE digest = ?1)")
            .map_err(write)?
            .query_row(params![digest.as_str()], |r| r.get(0))
            .map_err(write)?;
        if there {
            return Ok(());
        }
        execute(
            &tx,
            "INSERT INTO blobs (digest, stored_at, bytes) VALUES (?1, ?2, ?3)",
            params![digest.as_str(), at.to_string(), bytes],
        )?;
        tx.commit().map_err(write)
    }
}

fn execute(tx: &Transaction<'_>, sql: &str, values: impl rusqlite::Params) -> Result<(), JournalError> {
    tx.prepare_cached(sql).map_err(write)?.execute(values).map(drop).map_err(write)
}

/// Returns how many events a run has on record; 0 for no run.
fn events_of(tx: &Transaction<'_>, run: &RunId) -> Result<u64, JournalError> {
    let seq: Option<i64> = tx
        .prepare_cached("SELECT seq FROM runs WHERE run = ?1")
        .map_err(write)?
        .query_row(params![run.as_str()], |r| r.get(0))
        .optional()
        .map_err(write)?;
    seq.map_or(Ok(0), unsigned)
}

fn phase_of(tx: &Transaction<'_>, run: &RunId) -> Result<Option<Phase>, JournalError> {
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

/// Returns the place and the digest of the last event.
fn head(tx: &Transaction<'_>) -> Result<(u64, Digest), JournalError> {
    let (pos, hash): (i64, String) = tx
        .prepare_cached("SELECT pos, hash FROM head WHERE one = 1")
        .map_err(write)?
        .query_row([], |r| Ok((r.get(0)?, r.get(1)?)))
        .map_err(write)?;
    let hash = Digest::parse(&hash).ok_or_else(|| {
        store("read", "the record of the last event is damaged: run `slurmedic journal verify`")
    })?;
    Ok((unsigned(pos)?, hash))
}

fn set_head(tx: &Transaction<'_>, pos: u64, hash: &Digest) -> Result<(), JournalError> {
    execute(tx, "UPDATE head SET pos = ?1, hash = ?2 WHERE one = 1", params![signed(pos)?, hash.as_str()])
}

fn set_summary(tx: &Transaction<'_>, first_pos: u64, summary: &Summary) -> Result<(), JournalError> {
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

fn signed(n: u64) -> Result<i64, JournalError> {
    i64::try_from(n).map_err(|e| store("written", e))
}

fn unsigned(n: i64) -> Result<u64, JournalError> {
    u64::try_from(n).map_err(|e| store("read", e))
}
