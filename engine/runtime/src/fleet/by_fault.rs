//! Which playbooks are for a fault: of each id that names it the newest version.

use super::Playbooks;
use engine_core::playbook::{Playbook, PlaybookRef};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Playbooks by the faults they name.
#[derive(Debug, Clone, Default)]
pub struct ByFault {
    faults: BTreeMap<String, Vec<Arc<Playbook>>>,
    all: BTreeMap<PlaybookRef, Arc<Playbook>>,
}

impl ByFault {
    /// Sorts playbooks by their faults; of each id only the newest version counts.
    pub fn newest<'a>(playbooks: impl IntoIterator<Item = &'a Playbook>) -> Self {
        let mut all = BTreeMap::new();
        let mut newest: BTreeMap<String, Arc<Playbook>> = BTreeMap::new();
        for p in playbooks.into_iter().cloned().map(Arc::new) {
            all.insert(p.reference.clone(), Arc::clone(&p));
            let known = newest.entry(p.reference.id.clone()).or_insert_with(|| Arc::clone(&p));
            if known.reference.version < p.reference.version {
                *known = p;
            }
        }
        let mut faults: BTreeMap<String, Vec<Arc<Playbook>>> = BTreeMap::new();
        for p in newest.into_values() {
            for fault in &p.fault {
                faults.entry(fault.clone()).or_default().push(Arc::clone(&p));
            }
        }
        Self { faults, all }
    }
}

impl Playbooks for ByFault {
    fn for_fault(&self, fault: &str) -> Vec<Arc<Playbook>> {
        self.faults.get(fault).cloned().unwrap_or_default()
    }

    fn find(&self, reference: &PlaybookRef) -> Option<Arc<Playbook>> {
        self.all.get(reference).cloned()
    }

    fn all(&self) -> Vec<Arc<Playbook>> {
        self.all.values().cloned().collect()
    }
}
