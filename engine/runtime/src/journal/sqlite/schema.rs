//! Making, opening and upgrading the database file.

use super::OpenMode;
use super::place::{Place, bad_place};
use crate::journal::JournalError;
use crate::journal::chain::genesis;
use crate::journal::stored::store;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// Marks the file as a journal of ours: "SLMD".
const APPLICATION_ID: i64 = 0x534C_4D44;
/// The steps from an empty file to the format of today; their number is the format.
const STEPS: &[&str] = &[include_str!("schema_1.sql"), include_str!("schema_2.sql")];
/// Memory for pages of a writer, as SQLite counts it: negative, in KiB. A whole group of writes fits, so that no page is
/// written twice for it.
const CACHE_KIB: i64 = -32_768;
/// Pages in the write-ahead log after which a commit moves them into the main file: 16 MiB. Most of the time the
/// writing thread does it when it is idle.
const LOG_PAGES: i64 = 4_096;
/// How long a statement waits for another process.
const BUSY: Duration = Duration::from_secs(5);

/// Makes the file where there is none. The file appears whole or not at all, whoever makes it at the same time.
pub(super) fn create(place: &Place) -> Result<(), JournalError> {
    let bad =
        |doing: &str, e: &dyn std::error::Error| bad_place(&place.file, format!("it cannot be {doing}: {e}"));
    let new = place.with_suffix(&format!(".new-{}", uuid::Uuid::now_v7().simple()));
    let made = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(|e| bad("made", &e))
        .map(drop)
        .and_then(|()| build(&new).map_err(|e| bad("made", &e)))
        .and_then(|()| match fs::hard_link(&new, &place.file) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(bad("made", &e)),
            _ => Ok(()),
        });
    let removed = fs::remove_file(&new);
    made?;
    removed.map_err(|e| bad("made", &e))?;
    let dir = place.file.parent().unwrap_or(Path::new("."));
    fs::File::open(dir).and_then(|d| d.sync_all()).map_err(|e| bad("made", &e))
}

/// Writes format and tables before WAL is switched on, so that the file names itself from its first page on.
fn build(file: &Path) -> rusqlite::Result<()> {
    let mut db = Connection::open_with_flags(
        file,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    db.pragma_update(None, "synchronous", "FULL")?;
    let tx = db.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    upgrade(&tx, 0)?;
    tx.commit()?;
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    db.close().map_err(|(_, e)| e)
}

/// Brings the tables from a format to the one of today.
fn upgrade(db: &Connection, from: usize) -> rusqlite::Result<()> {
    for (i, step) in STEPS.iter().enumerate().skip(from) {
        db.execute_batch(step)?;
        if i == 0 {
            db.execute("INSERT INTO head (one, pos, hash) VALUES (1, 0, ?1)", params![genesis().as_str()])?;
        }
    }
    db.pragma_update(None, "user_version", STEPS.len() as i64)
}

/// Opens a connection and makes sure that the file is a journal this release can use.
pub(super) fn connect(place: &Place, mode: OpenMode) -> Result<Connection, JournalError> {
    if place.frozen && mode == OpenMode::ReadWrite {
        return Err(bad_place(
            &place.file,
            "its file system is mounted read-only; name a place that can be written",
        ));
    }
    let access = match mode {
        OpenMode::ReadWrite => OpenFlags::SQLITE_OPEN_READ_WRITE,
        OpenMode::ReadOnly => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = if place.frozen && mode == OpenMode::ReadOnly {
        Connection::open_with_flags(immutable_uri(&place.file)?, flags | OpenFlags::SQLITE_OPEN_URI)
    } else {
        Connection::open_with_flags(&place.file, flags)
    };
    let mut db = db.map_err(|e| unfit(place, mode, e))?;
    db.busy_timeout(BUSY).map_err(|e| unfit(place, mode, e))?;
    db.set_prepared_statement_cache_capacity(64);
    let set = |db: &Connection| {
        // Statements stay as they were prepared: else each new value of a parameter has them planned anew.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        db.pragma_update(None, "trusted_schema", "OFF")?;
        db.pragma_update(None, "foreign_keys", "ON")?;
        db.pragma_update(None, "recursive_triggers", "ON")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "cell_size_check", "ON")
    };
    let number = |db: &Connection, name| db.pragma_query_value(None, name, |r| r.get::<_, i64>(0));
    set(&db).map_err(|e| unfit(place, mode, e))?;
    if number(&db, "application_id").map_err(|e| unfit(place, mode, e))? != APPLICATION_ID {
        return Err(bad_place(
            &place.file,
            "it is a database of another program, not a journal; name another file",
        ));
    }
    let format = number(&db, "user_version").map_err(|e| unfit(place, mode, e))?;
    let today = STEPS.len() as i64;
    match mode {
        _ if format > today => {
            let why = format!(
                "its format {format} is newer than {today}, the newest this release knows; use a newer release"
            );
            return Err(bad_place(&place.file, why));
        }
        OpenMode::ReadOnly if format < today => {
            let why = format!(
                "its format {format} is older than {today}; open it once for writing, which upgrades it"
            );
            return Err(bad_place(&place.file, why));
        }
        OpenMode::ReadWrite if format < today => {
            let tx = db
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(|e| store("upgraded", e))?;
            // Another process may have been faster.
            let from = number(&tx, "user_version").map_err(|e| store("upgraded", e))?;
            upgrade(&tx, usize::try_from(from).unwrap_or(0)).map_err(|e| store("upgraded", e))?;
            tx.commit().map_err(|e| store("upgraded", e))?;
        }
        OpenMode::ReadOnly | OpenMode::ReadWrite => {}
    }
    if mode == OpenMode::ReadWrite {
        let tune = |db: &Connection| {
            db.pragma_update(None, "cache_size", CACHE_KIB)?;
            db.pragma_update(None, "temp_store", "MEMORY")?;
            db.pragma_update_and_check(None, "wal_autocheckpoint", LOG_PAGES, |_| Ok(()))
        };
        tune(&db).map_err(|e| unfit(place, mode, e))?;
        let kept: String = db
            .pragma_update_and_check(None, "journal_mode", "WAL", |r| r.get(0))
            .map_err(|e| unfit(place, mode, e))?;
        if kept != "wal" {
            return Err(bad_place(
                &place.file,
                format!("SQLite keeps its journal mode at {kept}, and needs wal there"),
            ));
        }
    }
    Ok(db)
}

/// Says in the user's words why SQLite does not open the file.
fn unfit(place: &Place, mode: OpenMode, e: rusqlite::Error) -> JournalError {
    let why = match e.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "it is not a journal; name another file".to_owned(),
        Some(ErrorCode::DatabaseCorrupt) => {
            format!("the file is damaged ({e}); keep a copy of it, and go on with a backup")
        }
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => match mode {
            OpenMode::ReadWrite => format!("it cannot be written ({e}); run as its owner"),
            OpenMode::ReadOnly => format!(
                "it cannot be read ({e}); reading beside a writer needs the right to write next to it: run as its owner"
            ),
        },
        _ => return store("opened", e),
    };
    bad_place(&place.file, why)
}

/// Names a file that nobody can change, so that SQLite needs no shared memory beside it.
pub(super) fn immutable_uri(file: &Path) -> Result<String, JournalError> {
    let path = file.to_str().ok_or_else(|| bad_place(file, "its name is not text"))?;
    let escaped: String = path
        .chars()
        .map(|c| match c {
            '%' => "%25".to_owned(),
            '?' => "%3f".to_owned(),
            '#' => "%23".to_owned(),
            c => c.to_string(),
        })
        .collect();
    Ok(format!("file:{escaped}?immutable=1"))
}

/// Lists what the schema must hold: kind, name and text of each table, index and trigger.
pub(super) fn expected() -> rusqlite::Result<Vec<(String, String, String)>> {
    let db = Connection::open_in_memory()?;
    upgrade(&db, 0)?;
    actual(&db)
}

/// Lists what the schema holds.
pub(super) fn actual(db: &Connection) -> rusqlite::Result<Vec<(String, String, String)>> {
    let mut q = db.prepare("SELECT type, name, coalesce(sql, '') FROM sqlite_schema ORDER BY type, name")?;
    let rows = q.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
    rows.collect()
}
