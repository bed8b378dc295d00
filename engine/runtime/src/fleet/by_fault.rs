//! Which playbook a fault is given to: the newest version of the one playbook that names it.

use super::Playbooks;
use engine_core::playbook::{Playbook, PlaybookRef};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Playbooks by the faults they name.
#[derive(Debug, Clone, Default)]
pub struct ByFault {
    faults: BTreeMap<String, Vec<Arc<Playbook>>>,
    all: BTreeSet<PlaybookRef>,
}

impl ByFault {
    /// Sorts playbooks by their faults; of each id only the newest version counts.
    pub fn newest<'a>(playbooks: impl IntoIterator<Item = &'a Playbook>) -> Self {
        let mut newest: BTreeMap<&str, &Playbook> = BTreeMap::new();
        let mut all = BTreeSet::new();
        for p in playbooks {
            all.insert(p.reference.clone());
            let known = newest.entry(&p.reference.id).or_insert(p);
            if known.reference.version < p.reference.version {
                *known = p;
            }
        }
        let mut faults: BTreeMap<String, Vec<Arc<Playbook>>> = BTreeMap::new();
        for p in newest.into_values().cloned().map(Arc::new) {
            for fault in &p.fault {
                faults.entry(fault.clone()).or_default().push(Arc::clone(&p));
            }
        }
        Self { faults, all }
    }
}

impl Playbooks for ByFault {
    fn holds(&self, reference: &PlaybookRef) -> bool {
        self.all.contains(reference)
    }

    fn for_fault(&self, fault: &str) -> Result<Arc<Playbook>, String> {
        match self.faults.get(fault).map(Vec::as_slice) {
            Some([one]) => Ok(Arc::clone(one)),
            None | Some([]) => Err(format!("no playbook is for {fault}: a person decides")),
            Some(many) => {
                let ids: Vec<&str> = many.iter().map(|p| p.reference.id.as_str()).collect();
                Err(format!("{} playbooks are for {fault} ({}): a person chooses", ids.len(), ids.join(", ")))
            }
        }
    }
}
