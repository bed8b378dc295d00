//! What the journal knows of earlier and present work, indexed for the questions a policy asks.
//!
//! It is filled from events, so that limits survive restarts. Times need no order.

use crate::action::EffectClass;
use crate::known::Unknown;
use crate::model::{NodeName, RunId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A lock on a node that the journal holds for a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The node.
    pub node: NodeName,
    /// The run that holds it.
    pub run: RunId,
    /// Whether the run takes the node out of service; true where that is not known.
    pub takes_out: bool,
}

/// A GPU as past and present work names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuIdentity {
    /// Serial number of the board, where it is known.
    pub serial: Option<String>,
    /// UUID, where it is known.
    pub uuid: Option<String>,
    /// PCI address, where it is known.
    pub bus_id: Option<String>,
}

impl GpuIdentity {
    /// Returns the name by which this piece of hardware is remembered wherever it is plugged in: the serial number, else
    /// the UUID.
    pub fn unit(&self) -> Option<String> {
        let serial = self.serial.as_ref().filter(|s| !s.is_empty()).map(|s| format!("serial {s}"));
        serial.or_else(|| self.uuid.as_ref().filter(|u| !u.is_empty()).cloned())
    }

    /// Says whether two of them may be the same GPU: they are not, only if a name that both have differs.
    pub fn may_be(&self, other: &Self) -> bool {
        let differ = |a: &Option<String>, b: &Option<String>| matches!((a, b), (Some(a), Some(b)) if a != b);
        !(differ(&self.uuid, &other.uuid) || differ(&self.bus_id, &other.bus_id))
    }
}

/// A run that was begun, whatever its end. Runs that were rejected, shadowed or cancelled untouched are none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastRun {
    /// The run.
    pub run: RunId,
    /// Its node.
    pub node: NodeName,
    /// Its GPU, for playbooks whose target is one.
    pub gpu: Option<GpuIdentity>,
    /// Id of its playbook.
    pub playbook: String,
    /// The faults it was for.
    pub faults: Vec<String>,
    /// When it was begun.
    pub began: Timestamp,
    /// When it ended; `None` while it goes on.
    pub ended: Option<Timestamp>,
}

/// What the journal knows.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    held: Vec<Held>,
    changes: BTreeMap<EffectClass, Vec<Timestamp>>,
    runs: BTreeMap<NodeName, Vec<PastRun>>,
    units: BTreeMap<String, Vec<Timestamp>>,
    slots: BTreeMap<(NodeName, String), Vec<Timestamp>>,
    gaps: Vec<Unknown>,
}

impl Ledger {
    /// Adds a lock that is held.
    pub fn hold(&mut self, held: Held) {
        self.held.push(held);
    }

    /// Adds the time at which an effect of this class was begun.
    pub fn change(&mut self, class: EffectClass, at: Timestamp) {
        insert(self.changes.entry(class).or_default(), at);
    }

    /// Adds a run that was begun. One with a GPU counts for that unit and for its slot as well.
    pub fn run(&mut self, run: PastRun) {
        if let Some(gpu) = &run.gpu {
            if let Some(unit) = gpu.unit() {
                insert(self.units.entry(unit).or_default(), run.began);
            }
            if let Some(bus_id) = &gpu.bus_id {
                insert(self.slots.entry((run.node.clone(), bus_id.clone())).or_default(), run.began);
            }
        }
        self.runs.entry(run.node.clone()).or_default().push(run);
    }

    /// Adds something of the journal that could not be read: nothing is permitted then.
    pub fn gap(&mut self, what: Unknown) {
        self.gaps.push(what);
    }

    /// Returns what could not be read.
    pub fn gaps(&self) -> &[Unknown] {
        &self.gaps
    }

    /// Returns the locks that are held.
    pub fn held(&self) -> &[Held] {
        &self.held
    }

    /// Returns when effects of a class were begun, after `since`, in order.
    pub fn changes_since(&self, class: EffectClass, since: Timestamp) -> &[Timestamp] {
        let all = self.changes.get(&class).map_or(&[][..], Vec::as_slice);
        all.get(all.partition_point(|t| *t <= since)..).unwrap_or(&[])
    }

    /// Returns the runs on a node.
    pub fn runs_on(&self, node: &NodeName) -> &[PastRun] {
        self.runs.get(node).map_or(&[], Vec::as_slice)
    }

    /// Returns when runs on a piece of hardware began.
    pub fn of_unit(&self, gpu: &GpuIdentity) -> &[Timestamp] {
        gpu.unit().and_then(|u| self.units.get(&u)).map_or(&[], Vec::as_slice)
    }

    /// Returns when runs on a slot began.
    pub fn of_slot(&self, node: &NodeName, gpu: &GpuIdentity) -> &[Timestamp] {
        let Some(bus_id) = &gpu.bus_id else { return &[] };
        self.slots.get(&(node.clone(), bus_id.clone())).map_or(&[], Vec::as_slice)
    }
}

/// Keeps times in order; events mostly come in theirs, so this mostly appends.
fn insert(times: &mut Vec<Timestamp>, at: Timestamp) {
    let place =
        if times.last().is_none_or(|t| *t <= at) { times.len() } else { times.partition_point(|t| *t <= at) };
    times.insert(place, at);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_is_remembered_by_serial_and_by_slot() {
        let node = |n: &str| NodeName::new(n).unwrap();
        let gpu = |serial: Option<&str>, uuid: &str, bus: &str| GpuIdentity {
            serial: serial.map(str::to_owned),
            uuid: Some(uuid.to_owned()),
            bus_id: Some(bus.to_owned()),
        };
        let mut ledger = Ledger::default();
        for (n, g) in [("n1", gpu(Some("S1"), "GPU-a", "0:1")), ("n2", gpu(Some("S1"), "GPU-a", "0:7"))] {
            ledger.run(PastRun {
                run: RunId::new("r1").unwrap(),
                node: node(n),
                gpu: Some(g),
                playbook: "p".to_owned(),
                faults: vec![],
                began: Timestamp::UNIX_EPOCH,
                ended: None,
            });
        }
        // The unit was moved from n1 to n2: it is known in both, each slot in one.
        assert_eq!(ledger.of_unit(&gpu(Some("S1"), "GPU-other", "0:9")).len(), 2);
        assert_eq!(ledger.of_unit(&gpu(None, "GPU-a", "0:1")).len(), 0, "another name of it is another unit");
        assert_eq!(ledger.of_unit(&gpu(Some(""), "", "0:1")).len(), 0);
        assert_eq!(ledger.of_slot(&node("n1"), &gpu(None, "GPU-new", "0:1")).len(), 1);
        assert_eq!(ledger.of_slot(&node("n2"), &gpu(None, "GPU-new", "0:1")).len(), 0);
        assert!(gpu(None, "GPU-a", "0:1").may_be(&GpuIdentity::default()));
        assert!(!gpu(None, "GPU-a", "0:1").may_be(&gpu(None, "GPU-a", "0:2")));
    }
}
