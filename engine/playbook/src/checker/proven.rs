//! Which playbooks were checked already, by digest: a process checks none twice.

use super::{Refusal, check};
use engine_core::digest::Digest;
use engine_core::playbook::Playbook;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The verdicts so far. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Proven(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    known: Mutex<BTreeMap<Digest, Verdict>>,
    explored: AtomicU64,
}

type Verdict = Result<(), Arc<Refusal>>;

impl Proven {
    /// Checks a playbook, unless one with its digest was checked before.
    pub fn check(&self, playbook: &Playbook) -> Result<(), Arc<Refusal>> {
        let digest = &playbook.reference.digest;
        if let Some(verdict) = self.known().get(digest) {
            return verdict.clone();
        }
        // Not under the lock: others need not wait. Two that check the same one come to the same verdict.
        self.0.explored.fetch_add(1, Ordering::SeqCst);
        let verdict = check(playbook).map(|_| ()).map_err(Arc::from);
        self.known().insert(digest.clone(), verdict.clone());
        verdict
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Digest, Verdict>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the playbooks that were checked.
    pub fn len(&self) -> usize {
        self.known().len()
    }

    /// Counts the explorations that were made.
    pub fn explored(&self) -> u64 {
        self.0.explored.load(Ordering::SeqCst)
    }

    /// Says whether none was checked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
