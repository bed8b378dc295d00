//! How many alerts per second the journal takes in, durable before the answer, beside what bounds it: plain inserts
//! into SQLite, and a receiver that keeps nothing.

use super::{Figure, add, remove_database};
use crate::exit::CliError;
use engine_runtime::journal::{Journal, NewRecord, OpenMode, SqliteJournal, StreamName};
use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior, params};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Who posts at the same time.
const POSTERS: usize = 64;
/// Alerts of one post, where they come in batches.
const BATCH: usize = 100;
/// How long each measurement takes.
const SPAN: Duration = Duration::from_millis(1500);
/// Rounds that are enough here: each takes its time.
const ROUNDS: usize = 5;

/// Measures the intake.
pub(super) fn measure(dir: &Path, rounds: usize, figures: &mut Vec<Figure>) -> Result<(), CliError> {
    let mut found: [Vec<f64>; 6] = Default::default();
    for _ in 0..rounds.clamp(1, ROUNDS) {
        // Side by side in every round: the machine may be another one a minute later.
        found[0].push(super::super::wait(journal(dir, 1))?);
        found[1].push(super::super::wait(memory(1))?);
        found[2].push(super::super::wait(journal(dir, BATCH))?);
        found[3].push(plain(dir)?);
        found[4].push(super::super::wait(memory(BATCH))?);
        found[5].push(super::super::wait(journal_alone(dir))?);
    }
    let [singly, bare_singly, batches, plain, bare_batches, alone] = found;
    add(figures, format!("alerts durable, {POSTERS} posters, one by one"), "/s", singly);
    add(figures, "  peer: read as JSON, kept nowhere, one by one", "/s", bare_singly);
    add(figures, format!("alerts durable, {POSTERS} posters, batches of {BATCH}"), "/s", batches);
    add(figures, format!("  peer: plain SQLite, {BATCH} rows per synced commit"), "/s", plain);
    add(figures, format!("  peer: read as JSON, kept nowhere, batches of {BATCH}"), "/s", bare_batches);
    add(figures, "alert durable, one poster: from post to answer", "us", alone);
    Ok(())
}

/// An alert as Alertmanager posts it.
fn alert(n: u64) -> String {
    format!(
        r#"{{"fingerprint":"{n:016x}","status":"firing","startsAt":"2026-01-05T08:00:00Z","labels":{{"alertname":"DcgmEccDbe","severity":"critical","instance":"gpu{:04}:9400","gpu":"{}","uuid":"GPU-5e1c9a42-0b7d-4c3e-9a51-{n:012x}"}},"annotations":{{"summary":"uncorrectable memory error"}}}}"#,
        n % 10_000,
        n % 8
    )
}

fn alerts(from: u64, count: usize) -> Result<Vec<NewRecord>, CliError> {
    (from..from + count as u64)
        .map(|n| NewRecord::new("alert", alert(n)).map_err(|e| CliError::caused("the sample alert", e)))
        .collect()
}

fn place(dir: &Path) -> PathBuf {
    dir.join(format!(".slurmedic-bench-intake-{}.db", std::process::id()))
}

fn fleet() -> Result<StreamName, CliError> {
    StreamName::new("fleet").map_err(|e| CliError::caused("the name of the stream", e))
}

/// Posts into a journal from many sides; returns alerts per second, each on disk before its poster went on.
async fn journal(dir: &Path, batch: usize) -> Result<f64, CliError> {
    let path = place(dir);
    let journal = Arc::new(SqliteJournal::open(&path, OpenMode::ReadWrite)?);
    let stream = fleet()?;
    let taken = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut posters = Vec::new();
    for poster in 0..POSTERS as u64 {
        let (journal, stream, taken) = (Arc::clone(&journal), stream.clone(), Arc::clone(&taken));
        posters.push(tokio::spawn(async move {
            let mut next = poster << 32;
            while start.elapsed() < SPAN {
                journal.append_records(&stream, None, Timestamp::now(), alerts(next, batch)?).await?;
                next += batch as u64;
                taken.fetch_add(batch as u64, Ordering::Relaxed);
            }
            Ok::<(), CliError>(())
        }));
    }
    for poster in posters {
        poster.await.map_err(|e| CliError::caused("a poster", e))??;
    }
    let rate = taken.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    let length = journal.stream_length(&stream).await?;
    drop(journal);
    remove_database(&path);
    if length == taken.load(Ordering::Relaxed) {
        Ok(rate)
    } else {
        Err(CliError::failed("not every alert that was answered is in the journal"))
    }
}

/// One poster who waits for each answer: the delay that nothing can share. Microseconds.
async fn journal_alone(dir: &Path) -> Result<f64, CliError> {
    let path = place(dir);
    let journal = SqliteJournal::open(&path, OpenMode::ReadWrite)?;
    let stream = fleet()?;
    let mut each = Vec::new();
    for n in 0..500 {
        let records = alerts(n, 1)?;
        let start = Instant::now();
        journal.append_records(&stream, None, Timestamp::now(), records).await?;
        each.push(start.elapsed().as_secs_f64() * 1e6);
    }
    drop(journal);
    remove_database(&path);
    each.sort_by(f64::total_cmp);
    Ok(each.get(each.len() / 2).copied().unwrap_or(0.0))
}

/// The same texts into a bare table: no chain, no check, no posters.
fn plain(dir: &Path) -> Result<f64, CliError> {
    let path = place(dir);
    let measured = plain_inserts(&path).map_err(|e| CliError::caused("the plain database", e));
    remove_database(&path);
    measured
}

fn plain_inserts(path: &Path) -> rusqlite::Result<f64> {
    let mut db = Connection::open(path)?;
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.execute_batch(
        "CREATE TABLE alerts (id INTEGER PRIMARY KEY, at TEXT NOT NULL, body TEXT NOT NULL) STRICT",
    )?;
    let start = Instant::now();
    let mut rows = 0_u64;
    while start.elapsed() < SPAN {
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insert = tx.prepare_cached("INSERT INTO alerts (at, body) VALUES (?1, ?2)")?;
            let at = Timestamp::now().to_string();
            for _ in 0..BATCH {
                insert.execute(params![at, alert(rows)])?;
                rows += 1;
            }
        }
        tx.commit()?;
    }
    Ok(rows as f64 / start.elapsed().as_secs_f64())
}

type Post = (Vec<NewRecord>, oneshot::Sender<usize>);

/// The same posters, and a receiver that counts.
async fn memory(batch: usize) -> Result<f64, CliError> {
    let (send, mut inbox) = mpsc::channel::<Post>(1024);
    let receiver = tokio::spawn(async move {
        let mut count = 0;
        while let Some((records, answer)) = inbox.recv().await {
            count += records.len();
            let _ = answer.send(count);
        }
    });
    let taken = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut posters = Vec::new();
    for poster in 0..POSTERS as u64 {
        let (send, taken) = (send.clone(), Arc::clone(&taken));
        posters.push(tokio::spawn(async move {
            let mut next = poster << 32;
            while start.elapsed() < SPAN {
                let (answer, hears) = oneshot::channel();
                let gone = || CliError::failed("the receiver has ended");
                send.send((alerts(next, batch)?, answer)).await.map_err(|_| gone())?;
                hears.await.map_err(|_| gone())?;
                next += batch as u64;
                taken.fetch_add(batch as u64, Ordering::Relaxed);
            }
            Ok::<(), CliError>(())
        }));
    }
    drop(send);
    for poster in posters {
        poster.await.map_err(|e| CliError::caused("a poster", e))??;
    }
    receiver.await.map_err(|e| CliError::caused("the receiver", e))?;
    Ok(taken.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}
