//! Many seeds on all cores: one thread each, with a runtime of its own.

use super::{Report, SimulateError, SimulateOptions, quiet, simulate};
use jiff::SignedDuration;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How far simulations are; read by whoever tells people.
#[derive(Debug, Default)]
pub struct Progress {
    incidents: AtomicU64,
    seeds: AtomicU64,
    hour: AtomicU64,
}

impl Progress {
    pub(super) fn incident(&self) {
        self.incidents.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn moved_to(&self, since_start: SignedDuration) {
        self.hour.store(since_start.as_hours().max(0) as u64, Ordering::Relaxed);
    }

    /// Incidents begun so far, in all seeds.
    pub fn incidents(&self) -> u64 {
        self.incidents.load(Ordering::Relaxed)
    }

    /// Seeds that are through.
    pub fn seeds(&self) -> u64 {
        self.seeds.load(Ordering::Relaxed)
    }

    /// Virtual hour that some seed has reached.
    pub fn hour(&self) -> u64 {
        self.hour.load(Ordering::Relaxed)
    }
}

/// Simulates `runs` seeds from the one of the options on, on `jobs` threads. The report is the same whatever the
/// number of threads, the times excepted.
pub fn simulate_many(
    options: &SimulateOptions,
    runs: u64,
    jobs: usize,
    progress: &Progress,
) -> Result<Report, SimulateError> {
    let next = AtomicU64::new(0);
    let total = Mutex::new(Report::default());
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, 256) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::SeqCst);
                    if i >= runs || lock(&failed).is_some() {
                        return;
                    }
                    let mine = SimulateOptions { seed: options.seed.wrapping_add(i), ..options.clone() };
                    match one(&mine, progress) {
                        Ok(report) => lock(&total).add(report),
                        Err(e) => *lock(&failed) = Some(e),
                    }
                    progress.seeds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(e) => Err(e),
        None => Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

fn one(options: &SimulateOptions, progress: &Progress) -> Result<Report, SimulateError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    quiet(|| runtime.block_on(simulate(options, progress)))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
