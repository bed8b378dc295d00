//! States of open runs as this process folded them last, so that a run is not read from its beginning at every look.
//!
//! What is kept is only where a fold goes on from: the events behind it are read each time, so what other processes
//! wrote is never missed.

use engine_core::model::RunId;
use engine_core::run::RunState;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// States that are kept.
const KEPT: usize = 256;

/// The states.
#[derive(Debug, Default)]
pub(super) struct Folded(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    tick: u64,
    runs: BTreeMap<RunId, (u64, RunState)>,
}

impl Folded {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the state to go on from. It is taken out: after any error the run is read from its beginning.
    pub(super) fn take(&self, run: &RunId) -> Option<RunState> {
        self.lock().runs.remove(run).map(|(_, state)| state)
    }

    /// Keeps the state of an open run; the one that was asked for longest ago makes room.
    pub(super) fn keep(&self, state: &RunState) {
        if state.status.is_terminal() {
            return;
        }
        let mut inner = self.lock();
        inner.tick += 1;
        let tick = inner.tick;
        inner.runs.insert(state.run.clone(), (tick, state.clone()));
        if inner.runs.len() > KEPT
            && let Some(oldest) =
                inner.runs.iter().min_by_key(|(_, (tick, _))| *tick).map(|(run, _)| run.clone())
        {
            inner.runs.remove(&oldest);
        }
    }
}
