//! The one thread that writes: it owns its connection, and does what it is told in order.
//!
//! Group commit: all orders that wait when the thread is free go into one transaction and one synced commit. Each has a
//! savepoint of its own, so that what is refused to one does not touch the others, and everybody hears only after the
//! commit. An order that waits alone is committed at once; no timer holds it back.

use super::desk::Desk;
use super::place::Place;
use crate::journal::JournalError;
use crate::journal::stored::store;
use rusqlite::{Connection, TransactionBehavior};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long a caller waits for a write.
const LIMIT: Duration = Duration::from_secs(15);
/// Orders that may wait for the thread.
const QUEUE: usize = 1024;
/// The most orders of one commit.
const GROUP: usize = 256;
/// Bytes after which a group takes no further order.
const GROUP_BYTES: usize = 4 << 20;
/// How long the thread must be idle before it moves the write-ahead log into the main file.
const IDLE: Duration = Duration::from_millis(300);
/// How long closing waits for the thread.
const CLOSING: Duration = Duration::from_secs(10);

/// A commit that failed, or a transaction that could not begin: heard by everybody in its group.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
struct GroupFailed(Arc<str>);

impl From<rusqlite::Error> for GroupFailed {
    fn from(e: rusqlite::Error) -> Self {
        Self(e.to_string().into())
    }
}

impl From<JournalError> for GroupFailed {
    fn from(e: JournalError) -> Self {
        // What failed is said anew around it.
        Self(std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string).into())
    }
}

/// Something to be written.
trait Order: Send {
    /// About how many bytes it writes.
    fn weight(&self) -> usize;
    /// Does it, unless nobody waits for it any more. Says whether it failed.
    fn carry_out(&mut self, desk: &mut Desk, savepoint: &Savepoint<'_>) -> bool;
    /// Tells who asked, once the commit is through or has failed.
    fn tell(self: Box<Self>, committed: Result<(), &GroupFailed>);
}

struct Task<T, F> {
    weight: usize,
    deadline: Instant,
    work: Option<F>,
    result: Option<Result<T, JournalError>>,
    answer: oneshot::Sender<Result<T, JournalError>>,
}

impl<T, F> Order for Task<T, F>
where
    T: Send,
    F: FnOnce(&mut Desk, &Connection) -> Result<T, JournalError> + Send,
{
    fn weight(&self) -> usize {
        self.weight
    }

    fn carry_out(&mut self, desk: &mut Desk, savepoint: &Savepoint<'_>) -> bool {
        // Whoever asked has given up: it must not happen behind their back.
        if Instant::now() < self.deadline
            && !self.answer.is_closed()
            && let Some(work) = self.work.take()
        {
            self.result = Some(savepoint.run(desk, work));
        }
        matches!(self.result, Some(Err(_)))
    }

    fn tell(self: Box<Self>, committed: Result<(), &GroupFailed>) {
        let failed = |e: &GroupFailed| store("written", e.clone());
        let answer = match (self.result, committed) {
            (Some(Ok(_)) | None, Err(e)) => Err(failed(e)),
            (Some(result), _) => result,
            (None, Ok(())) => return,
        };
        let _ = self.answer.send(answer);
    }
}

/// A place in the transaction to go back to when one order fails. An order that is alone needs none.
struct Savepoint<'a> {
    tx: &'a Connection,
    alone: bool,
}

impl Savepoint<'_> {
    /// Does something in the transaction: whole, or as if it had never been tried.
    fn run<T>(
        &self,
        desk: &mut Desk,
        work: impl FnOnce(&mut Desk, &Connection) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let write = |e: rusqlite::Error| store("written", e);
        let step = |sql: &str| self.tx.prepare_cached(sql).and_then(|mut q| q.execute([])).map_err(write);
        if !self.alone {
            step("SAVEPOINT one_order")?;
        }
        let head = desk.head();
        let result = work(desk, self.tx);
        if result.is_err() {
            desk.back_to(head);
        }
        // An error such as a full disk has ended the whole transaction already.
        if !self.alone && !self.tx.is_autocommit() {
            if result.is_err() {
                step("ROLLBACK TO one_order")?;
            }
            step("RELEASE one_order")?;
        }
        result
    }
}

/// The way to the writing thread.
#[derive(Debug)]
pub(super) struct Writer {
    orders: Option<SyncSender<Box<dyn Order>>>,
    closed: std::sync::Mutex<Receiver<()>>,
}

impl Writer {
    /// Starts the thread on a connection.
    pub(super) fn start(db: Connection, place: Arc<Place>, engine: Arc<str>) -> Result<Self, JournalError> {
        let (orders, inbox) = sync_channel::<Box<dyn Order>>(QUEUE);
        let (done, closed) = sync_channel::<()>(1);
        let desk = Desk::new(place, engine);
        std::thread::Builder::new()
            .name("journal-writer".to_owned())
            .spawn(move || {
                serve(db, desk, &inbox);
                let _ = done.send(());
            })
            .map_err(|e| store("opened", e))?;
        Ok(Self { orders: Some(orders), closed: std::sync::Mutex::new(closed) })
    }

    /// Has the thread do something, and waits for what came of it. `weight` is about how many bytes it writes.
    pub(super) async fn order<T, F>(&self, weight: usize, work: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Desk, &Connection) -> Result<T, JournalError> + Send + 'static,
    {
        let (answer, hears) = oneshot::channel();
        let task = Task { weight, deadline: Instant::now() + LIMIT, work: Some(work), result: None, answer };
        let orders = self.orders.as_ref().ok_or_else(|| store("written", "it is being closed"))?;
        orders.try_send(Box::new(task)).map_err(|e| match e {
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

/// Serves orders until nobody can give any more.
fn serve(mut db: Connection, mut desk: Desk, inbox: &Receiver<Box<dyn Order>>) {
    let mut unmoved = false;
    loop {
        let first = if unmoved {
            match inbox.recv_timeout(IDLE) {
                Ok(order) => order,
                Err(RecvTimeoutError::Timeout) => {
                    // Without waiting for anybody, and best effort: a later commit does the same when it must.
                    let _ = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
                    unmoved = false;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        } else {
            match inbox.recv() {
                Ok(order) => order,
                Err(_) => return,
            }
        };
        let mut weight = first.weight();
        let mut group = vec![first];
        while group.len() < GROUP && weight < GROUP_BYTES {
            let Ok(order) = inbox.try_recv() else { break };
            weight = weight.saturating_add(order.weight());
            group.push(order);
        }
        commit(&mut db, &mut desk, group);
        unmoved = true;
    }
}

/// Carries a group of orders out in one transaction, and tells everybody.
fn commit(db: &mut Connection, desk: &mut Desk, mut group: Vec<Box<dyn Order>>) {
    let committed = carry_out(db, desk, &mut group);
    match &committed {
        Ok(true) => desk.committed(),
        Ok(false) => desk.refused(),
        Err(_) => desk.rolled_back(),
    }
    for order in group {
        order.tell(committed.as_ref().map(|_| ()));
    }
}

/// Says whether there was anything to commit: a lone order that failed is rolled back as a whole.
fn carry_out(
    db: &mut Connection,
    desk: &mut Desk,
    group: &mut [Box<dyn Order>],
) -> Result<bool, GroupFailed> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let alone = group.len() == 1;
    for order in group {
        let failed = order.carry_out(desk, &Savepoint { tx: &tx, alone });
        if failed && alone {
            return Ok(false);
        }
        // Some errors, such as a full disk, end the transaction; what came after would be no part of it.
        if tx.is_autocommit() {
            return Err(GroupFailed(
                "SQLite gave the transaction up after an error of another write in it".into(),
            ));
        }
    }
    desk.write_head(&tx)?;
    tx.commit()?;
    Ok(true)
}
