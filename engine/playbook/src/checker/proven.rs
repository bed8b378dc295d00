//! Which playbooks were checked already, by digest: a process checks none twice.

use super::{Refusal, check};
use engine_core::digest::Digest;
use engine_core::playbook::Playbook;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The verdicts so far. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Proven(Arc<Mutex<BTreeMap<Digest, Verdict>>>);

type Verdict = Result<(), Arc<Refusal>>;

impl Proven {
    /// Checks a playbook, unless one with its digest was checked before.
    pub fn check(&self, playbook: &Playbook) -> Result<(), Arc<Refusal>> {
        let digest = &playbook.reference.digest;
        if let Some(verdict) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest) {
            return verdict.clone();
        }
        // Not under the lock: others need not wait. Two that check the same one come to the same verdict.
        let verdict = check(playbook).map(|_| ()).map_err(Arc::from);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(digest.clone(), verdict.clone());
        verdict
    }

    /// Counts the playbooks that were checked.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Says whether none was checked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
