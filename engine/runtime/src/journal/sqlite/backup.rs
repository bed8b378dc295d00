//! A copy of the journal as it is at one moment, made while engines go on writing.

use super::place::{Place, bad_place};
use super::{OpenMode, check, schema};
use crate::journal::stored::store;
use crate::journal::{ChainReport, JournalError};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Pages that are copied at once.
const STEP: i32 = 2_048;
/// How long to wait where a lock is in the way.
const NAP: Duration = Duration::from_millis(20);

/// Copies the journal to a file that is not there yet, and checks the copy as `verify` does.
///
/// The copy appears under its name only once it was checked and is on the disk. A broken one is an answer, and leaves no
/// file.
pub(super) fn backup(place: &Place, to: &Path, limit: Duration) -> Result<ChainReport, JournalError> {
    let bad =
        |doing: &str, e: &dyn std::error::Error| bad_place(to, format!("the copy cannot be {doing}: {e}"));
    let name = to.file_name().ok_or_else(|| bad_place(to, "it names no file"))?;
    if fs::symlink_metadata(to).is_ok() {
        return Err(bad_place(to, "it is there already, and a backup overwrites nothing; name another file"));
    }
    let dir = match to.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let mut draft = name.to_os_string();
    draft.push(format!(".new-{}", uuid::Uuid::now_v7().simple()));
    let draft = Draft(dir.join(draft));
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft.0).map_err(|e| {
        match e.kind() {
            std::io::ErrorKind::NotFound => bad_place(to, "its directory is not there; make it first"),
            _ => bad("made", &e),
        }
    })?;
    let head = copy(place, &draft.0, Instant::now() + limit)?;
    fs::File::open(&draft.0).and_then(|f| f.sync_all()).map_err(|e| bad("written", &e))?;

    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let db = Connection::open_with_flags(schema::immutable_uri(&draft.0)?, flags)
        .map_err(|e| store("copied", e))?;
    let report = check::verify(&db)?;
    db.close().map_err(|(_, e)| store("copied", e))?;
    if report.broken.is_some() {
        return Ok(report);
    }
    if (report.events + report.records, report.head.as_str()) != (head.0, head.1.as_str()) {
        return Err(store("copied", "the copy does not end where the journal ended when it was begun"));
    }
    match fs::hard_link(&draft.0, to) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(bad_place(
                to,
                "somebody made it meanwhile, and a backup overwrites nothing; name another file",
            ));
        }
        Err(e) => return Err(bad("named", &e)),
    }
    drop(draft);
    fs::File::open(dir).and_then(|d| d.sync_all()).map_err(|e| bad("named", &e))?;
    Ok(report)
}

/// A file that goes away again unless it was linked under another name.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Copies page by page, all from one view of the journal. Returns position and digest of its last entry.
fn copy(place: &Place, to: &Path, deadline: Instant) -> Result<(u64, String), JournalError> {
    let failed = |e: rusqlite::Error| store("copied", e);
    let from = schema::connect(place, OpenMode::ReadOnly)?;
    // A view that lasts: without it, each write of an engine would have the copy begin anew.
    let view = from.unchecked_transaction().map_err(failed)?;
    let head = view
        .query_row("SELECT pos, hash FROM head WHERE one = 1", [], |r| Ok((r.get::<_, i64>(0)?, r.get(1)?)))
        .map_err(failed)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(to, flags).map_err(failed)?;
    // Nobody else knows the file, and a failed copy is thrown away.
    copy.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(failed)?;
    copy.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(())).map_err(failed)?;
    {
        let backup = Backup::new(&view, &mut copy).map_err(failed)?;
        loop {
            if Instant::now() > deadline {
                return Err(store("copied", "it took longer than a quarter of an hour"));
            }
            match backup.step(STEP).map_err(failed)? {
                StepResult::Done => break,
                StepResult::More => {}
                _ => std::thread::sleep(NAP),
            }
        }
    }
    copy.close().map_err(|(_, e)| failed(e))?;
    Ok((u64::try_from(head.0).map_err(|e| store("copied", e))?, head.1))
}
