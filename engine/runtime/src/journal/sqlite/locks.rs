//! Locks in SQLite: taken all at once, judged and written in one transaction.

use super::desk::{execute, phase_of, unsigned, write};
use crate::journal::JournalError;
use crate::journal::lock::{Admit, HeldLease, Lease, LockKey, judge};
use crate::journal::stored::{Phase, store};
use engine_core::model::RunId;
use jiff::Timestamp;
use rusqlite::{Connection, params};

/// Takes locks for a run; `keys` are in order, each once.
pub(super) fn take(
    tx: &Connection,
    keys: &[LockKey],
    run: &RunId,
    at: Timestamp,
    admit: Option<&Admit>,
) -> Result<Lease, JournalError> {
    match phase_of(tx, run)? {
        None => return Err(JournalError::NoSuchRun(run.clone())),
        Some(Phase::Over) => return Err(JournalError::RunOver(run.clone())),
        Some(Phase::Waiting | Phase::Acting) => {}
    }
    if let Some(refused) = judge(keys, run, &held(tx)?, admit) {
        return Ok(refused);
    }
    execute(tx, "UPDATE fence SET token = token + 1", params![])?;
    let token: i64 = tx.query_row("SELECT token FROM fence", [], |r| r.get(0)).map_err(write)?;
    for key in keys {
        execute(
            tx,
            "INSERT INTO locks (key, run, token, taken_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (key) DO UPDATE SET run = excluded.run, token = excluded.token, taken_at = excluded.taken_at",
            params![key.to_string(), run.as_str(), token, at.to_string()],
        )?;
    }
    Ok(Lease::Taken { token: unsigned(token)? })
}

/// Gives those of `keys` back that the run holds.
pub(super) fn give_back(tx: &Connection, keys: &[LockKey], run: &RunId) -> Result<(), JournalError> {
    for key in keys {
        execute(tx, "DELETE FROM locks WHERE key = ?1 AND run = ?2", params![key.to_string(), run.as_str()])?;
    }
    Ok(())
}

/// Gives all that the run holds back.
pub(super) fn give_all_back(tx: &Connection, run: &RunId) -> Result<(), JournalError> {
    execute(tx, "DELETE FROM locks WHERE run = ?1", params![run.as_str()])
}

/// Lists the locks of runs that are not over, in the order of keys.
pub(super) fn held(db: &Connection) -> Result<Vec<HeldLease>, JournalError> {
    let read = |e: rusqlite::Error| store("read", e);
    let mut q = db
        .prepare_cached(
            "SELECT l.key, l.run, l.token, l.taken_at FROM locks l LEFT JOIN runs r ON r.run = l.run
             WHERE r.phase IS NULL OR r.phase < 2",
        )
        .map_err(read)?;
    let rows = q
        .query_map([], |r| {
            let row: (String, String, i64, String) = (r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?);
            Ok(row)
        })
        .map_err(read)?;
    let mut held = Vec::new();
    for row in rows {
        let (key, run, token, taken_at) = row.map_err(read)?;
        // What cannot be read is not free: nothing is taken until somebody has looked.
        held.push(HeldLease {
            key: key.parse().map_err(|e| store("read", e))?,
            run: RunId::new(&run).map_err(|e| store("read", e))?,
            token: unsigned(token)?,
            taken_at: taken_at.parse().map_err(|e: jiff::Error| store("read", e))?,
        });
    }
    held.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(held)
}
