//! Which engine processes live: each holds a lock on a file of its own, and the kernel frees it however it dies.

use super::place::Place;
use crate::journal::JournalError;
use crate::journal::stored::store;
use rusqlite::{Connection, OptionalExtension, params};
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

/// This process as an engine; living until dropped.
#[derive(Debug)]
pub(super) struct Engine {
    _lock: File,
}

fn directory(place: &Place) -> PathBuf {
    place.with_suffix(".engines")
}

fn lock_file(place: &Place, engine: &str) -> PathBuf {
    directory(place).join(format!("{engine}.lock"))
}

impl Engine {
    /// Takes the lock that shows this engine alive. Comes before its first claim.
    pub(super) fn start(place: &Place, engine: &str) -> Result<Self, JournalError> {
        let dir = directory(place);
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(store("locked for this engine process", e));
            }
            _ => {}
        }
        let lock = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(lock_file(place, engine))
            .map_err(|e| store("locked for this engine process", e))?;
        lock.try_lock().map_err(|e| store("locked for this engine process", std::io::Error::from(e)))?;
        Ok(Self { _lock: lock })
    }
}

/// Writes down who this engine is, and forgets dead ones that claim nothing. Returns the files of those.
pub(super) fn register(db: &Connection, place: &Place, engine: &str) -> Result<Vec<PathBuf>, JournalError> {
    let write = |e: rusqlite::Error| store("written", e);
    let idle: Vec<String> = {
        let mut q = db
            .prepare("SELECT engine FROM engines WHERE engine NOT IN (SELECT engine FROM claims)")
            .map_err(write)?;
        let rows = q.query_map([], |r| r.get(0)).map_err(write)?;
        rows.collect::<Result<_, _>>().map_err(write)?
    };
    let mut gone = Vec::new();
    for other in idle {
        if !lives(db, place, &other)? {
            db.execute("DELETE FROM engines WHERE engine = ?1", params![other]).map_err(write)?;
            gone.push(lock_file(place, &other));
        }
    }
    let pid = std::process::id();
    db.execute(
        "INSERT INTO engines (engine, boot, pids, pid, start) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![engine, boot(), pid_namespace(), pid, started(pid).unwrap_or_default()],
    )
    .map_err(write)?;
    Ok(gone)
}

/// Removes the file of an engine that never came on record.
pub(super) fn forget(place: &Place, engine: &str) {
    // A file that stays is in nobody's way, but its name cannot be used again.
    let _ = fs::remove_file(lock_file(place, engine));
}

/// Says whether an engine lives. What cannot be told is an error, never "dead": a second engine on a living one's
/// run is the worst that can happen.
pub(super) fn lives(db: &Connection, place: &Place, engine: &str) -> Result<bool, JournalError> {
    let read = |e: rusqlite::Error| store("read", e);
    let known: Option<(String, String, u32, String)> = db
        .prepare_cached("SELECT boot, pids, pid, start FROM engines WHERE engine = ?1")
        .map_err(read)?
        .query_row(params![engine], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))
        .optional()
        .map_err(read)?;
    let Some((its_boot, its_pids, pid, start)) = known else { return Ok(false) };
    match File::open(lock_file(place, engine)) {
        // Shared, so that two who look at the same time do not take each other for the engine.
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(e)) => Err(store("asked whether an engine lives", e)),
        },
        // Somebody removed the file, and its lock with it: the process itself is looked for, where that is possible.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let (boot, pids) = (boot(), pid_namespace());
            let tellable = !boot.is_empty() && !pids.is_empty() && (its_boot != boot || its_pids == pids);
            Ok(!tellable || (its_boot == boot && started(pid).is_some_and(|s| s == start)))
        }
        Err(e) => Err(store("asked whether an engine lives", e)),
    }
}

/// Returns what names this boot of this host; empty where /proc does not tell.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|s| s.trim().to_owned()).unwrap_or_default()
}

/// Returns what names this container's numbering of processes; empty where /proc does not tell.
fn pid_namespace() -> String {
    fs::read_link("/proc/self/ns/pid").map(|p| p.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Returns when a process began, in the kernel's ticks (proc(5), field 22 of stat): a reused number differs in it.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, blanks and parentheses included.
    let rest = stat.rsplit_once(')')?.1;
    rest.split_whitespace().nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_beginning_and_a_boot() {
        let me = started(std::process::id()).unwrap();
        assert!(me.parse::<u64>().unwrap() > 0);
        assert_eq!(started(std::process::id()).unwrap(), me);
        assert_eq!(started(u32::MAX), None);
        assert_eq!(boot().len(), 36);
        assert!(pid_namespace().starts_with("pid:["));
    }
}
