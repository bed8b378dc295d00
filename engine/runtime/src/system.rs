//! The system: its clock and its tasks.

use crate::ports::{Clock, Spawn, Task};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

/// Time of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep(&self, duration: SignedDuration) {
        tokio::time::sleep(duration.unsigned_abs()).await;
    }
}

/// Tasks of the runtime that the caller runs in.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemSpawn;

impl Spawn for SystemSpawn {
    fn spawn(&self, name: String, task: Task) {
        tracing::trace!(name, "a task begins");
        tokio::spawn(task);
    }
}
