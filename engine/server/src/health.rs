//! Whether the engine is well: its loop turns, its journal can be written, Slurm answered lately.

use engine_core::model::RunId;
use engine_runtime::journal::Journal;
use engine_runtime::ports::Clock;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a look at the journal serves.
const LOOK_AGE: Duration = Duration::from_secs(1);
/// How long a write to the journal may take before it counts as not possible.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// Looks at the parts.
#[derive(Debug)]
pub struct Health {
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    started: Timestamp,
    /// Seconds since the epoch; 0 for never.
    slurm: AtomicI64,
    exporters: AtomicI64,
    turned: AtomicI64,
    turns: AtomicU64,
    slurm_limit: SignedDuration,
    turn_limit: SignedDuration,
    /// The last look at the journal: whoever asks often does not write often.
    journal_was: tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>,
}

/// How the parts are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// `slurmedic/ready/1`.
    pub format: String,
    /// Whether all is well.
    pub ready: bool,
    /// Whether the dispatcher's loop turned lately, and else since when not.
    pub dispatcher: Result<(), String>,
    /// Whether the journal can be written.
    pub journal: Result<(), String>,
    /// Whether Slurm answered lately.
    pub slurm: Result<(), String>,
}

impl Health {
    /// Builds it. `turn_limit` is the age of the loop's last turn, `slurm_limit` that of Slurm's last answer, from which
    /// the engine is not ready.
    pub fn new(
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
        turn_limit: SignedDuration,
        slurm_limit: SignedDuration,
    ) -> Self {
        let started = clock.now();
        Self {
            journal,
            clock,
            started,
            slurm: AtomicI64::new(0),
            exporters: AtomicI64::new(0),
            turned: AtomicI64::new(0),
            turns: AtomicU64::new(0),
            slurm_limit,
            turn_limit,
            journal_was: tokio::sync::Mutex::default(),
        }
    }

    /// The whole cluster was read.
    pub fn slurm_answered(&self) {
        self.slurm.store(self.clock.now().as_second(), Ordering::Relaxed);
    }

    /// A round over the exporters of the nodes came to its end, and some answered.
    pub fn exporters_answered(&self) {
        self.exporters.store(self.clock.now().as_second(), Ordering::Relaxed);
    }

    /// Says when exporters last answered.
    pub fn exporters_at(&self) -> Option<Timestamp> {
        time(&self.exporters)
    }

    /// The loop came round so often in all.
    pub fn turned(&self, turns: u64) {
        if self.turns.swap(turns, Ordering::Relaxed) != turns {
            self.turned.store(self.clock.now().as_second(), Ordering::Relaxed);
        }
    }

    /// Returns when the engine was started.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// Says when Slurm last answered.
    pub fn slurm_at(&self) -> Option<Timestamp> {
        time(&self.slurm)
    }

    /// Says whether the loop turned lately: what a watchdog asks for.
    pub fn turns(&self) -> bool {
        self.age_of(&self.turned) <= self.turn_limit
    }

    fn age_of(&self, at: &AtomicI64) -> SignedDuration {
        self.clock.now().duration_since(time(at).unwrap_or(self.started))
    }

    async fn journal_is_writable(&self) -> Result<(), String> {
        let mut was = self.journal_was.lock().await;
        if let Some((at, known)) = &*was
            && at.elapsed() < LOOK_AGE
        {
            return known.clone();
        }
        // Nothing is held by nobody: the write takes the journal's lock and changes nothing.
        let nobody = RunId::unknown();
        let probe = self.journal.drop_all_leases(&nobody);
        let is = match tokio::time::timeout(WRITE_LIMIT, probe).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(e.to_string()),
            Err(_) => Err(format!("a write took more than {} s", WRITE_LIMIT.as_secs())),
        };
        *was = Some((Instant::now(), is.clone()));
        is
    }

    /// Looks at every part. The journal is written to without changing it.
    pub async fn report(&self) -> HealthReport {
        let dispatcher = if self.turns() {
            Ok(())
        } else {
            Err(format!("its loop has not turned for {} s", self.age_of(&self.turned).as_secs()))
        };
        let slurm = match time(&self.slurm) {
            None => Err("the cluster was not read yet".to_owned()),
            Some(_) if self.age_of(&self.slurm) <= self.slurm_limit => Ok(()),
            Some(at) => Err(format!("the cluster was last read at {at}")),
        };
        let journal = self.journal_is_writable().await;
        let ready = dispatcher.is_ok() && slurm.is_ok() && journal.is_ok();
        HealthReport { format: "slurmedic/ready/1".to_owned(), ready, dispatcher, journal, slurm }
    }
}

fn time(at: &AtomicI64) -> Option<Timestamp> {
    match at.load(Ordering::Relaxed) {
        0 => None,
        s => Timestamp::from_second(s).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use engine_runtime::journal::MemoryJournal;
    use std::sync::Mutex;

    #[derive(Debug)]
    struct Hand(Mutex<Timestamp>);

    #[async_trait]
    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            *self.0.lock().unwrap()
        }

        async fn sleep(&self, _: SignedDuration) {}
    }

    #[tokio::test]
    async fn a_part_that_is_silent_for_too_long_is_named() {
        let clock = Arc::new(Hand(Mutex::new("2026-01-05T12:00:00Z".parse().unwrap())));
        let pass = |s: i64| *clock.0.lock().unwrap() += SignedDuration::from_secs(s);
        let (turn, slurm) = (SignedDuration::from_secs(60), SignedDuration::from_secs(200));
        let health = Health::new(Arc::new(MemoryJournal::new()), clock.clone(), turn, slurm);
        let first = health.report().await;
        assert!(!first.ready && first.slurm.is_err(), "the cluster was not read yet: {first:?}");
        health.slurm_answered();
        health.turned(1);
        assert!(health.report().await.ready);
        pass(61);
        health.turned(1);
        let stuck = health.report().await;
        assert!(stuck.dispatcher.is_err() && stuck.slurm.is_ok() && !health.turns(), "{stuck:?}");
        health.turned(2);
        pass(140);
        health.turned(3);
        let silent = health.report().await;
        assert!(silent.dispatcher.is_ok() && silent.slurm.unwrap_err().contains("last read at"));
    }
}
