//! What is known of XIDs, faults, Slurm's reasons and playbooks: data with its sources, and the lookups over it. Pure.
//!
//! The tables lie as YAML under `knowledge/`; the playbook crate reads and checks them, and lays a site's differences over
//! them. Nothing here is a table.

pub mod answer;
pub mod fault;
pub mod link;
pub mod playbook;
pub mod provenance;
pub mod xid;

pub use answer::{GpuAsked, Listed, ReasonAnswer, ReasonPart, Verdict, XidAnswer};
pub use fault::{
    ClockAlarm, ClockReason, Fault, Generation, GpuColumn, Hazard, KernelLine, Rung, Signal, SxidRange,
};
pub use link::{LinkEvent, LinkRule, LinkSeverity};
pub use playbook::{Blast, CataloguePlaybook, Need, PlaybookRung, is_harmless};
pub use provenance::{SiteChange, Source, Table};
pub use xid::{Class, Disagreement, Drains, RecoveryWish, Status, VendorAction, Xid};

use crate::watch::Reasons;
use std::collections::BTreeMap;

/// The word for "a person decides" in the `playbook` of an entry.
pub const HUMAN: &str = "human";
/// The word for "nothing is to be done" in the `playbook` of an entry.
pub const NOTHING: &str = "none";
/// The fault of the driver's own wish. Its value decides, so a code alone never tells it.
pub const WISH: &str = "gpu-recovery-action-set";

/// Everything that is known, checked and complete.
#[derive(Debug, Clone, PartialEq)]
pub struct Knowledge {
    /// Sources by id.
    pub sources: BTreeMap<String, Source>,
    /// XIDs by code.
    pub xids: BTreeMap<u32, Xid>,
    /// NVIDIA's words for what is to be done.
    pub vendor_actions: BTreeMap<String, VendorAction>,
    /// What the driver may ask for, by its number.
    pub wishes: BTreeMap<u32, RecoveryWish>,
    /// Where known tables disagree.
    pub disagreements: Vec<Disagreement>,
    /// NVLink 5, in order: the first rule that fits counts.
    pub links: Vec<LinkRule>,
    /// Generations of GPUs.
    pub generations: Vec<Generation>,
    /// The column of the catalogue that a model follows.
    pub columns: Vec<GpuColumn>,
    /// Bits of the clock event reasons.
    pub clock_reasons: Vec<ClockReason>,
    /// Lines of the kernel log, in order: the first that fits counts.
    pub kernel_lines: Vec<KernelLine>,
    /// SXids of NVSwitches.
    pub sxids: Vec<SxidRange>,
    /// Faults by word.
    pub faults: BTreeMap<String, Fault>,
    /// Patterns of Slurm's reasons, in order.
    pub reasons: Reasons,
    /// What goes wrong by itself or by a command.
    pub hazards: Vec<Hazard>,
    /// Playbooks by id.
    pub playbooks: BTreeMap<String, CataloguePlaybook>,
    /// What the site sees differently.
    pub changes: Vec<SiteChange>,
}

impl Knowledge {
    /// Finds the sources of an entry; a word without a source is left out, the loader refuses it.
    pub fn sources_of<'a>(&'a self, ids: &'a [String]) -> impl Iterator<Item = &'a Source> {
        ids.iter().filter_map(|id| self.sources.get(id))
    }

    /// Finds what the site changed in an entry.
    pub fn changes_of<'a>(&'a self, table: Table, entry: &'a str) -> impl Iterator<Item = &'a SiteChange> {
        self.changes.iter().filter(move |c| c.table == table && c.entry == entry)
    }

    /// Finds the generation of a model, whatever stands before and behind its name: `NVIDIA H100 80GB HBM3`.
    pub fn generation(&self, model: &str) -> Option<&Generation> {
        self.generations.iter().find(|g| g.gpus.iter().any(|m| names(model, m)))
    }

    /// Finds the column of the catalogue that a model follows.
    pub fn column(&self, model: &str) -> Option<&str> {
        let found = self.columns.iter().find(|c| c.gpus.iter().any(|m| names(model, m)));
        found.map(|c| c.column.as_str())
    }

    /// Finds the limit of PCIe replays in a minute for a model, with all lanes at its own generation.
    pub fn pcie_replays(&self, model: &str) -> Option<u32> {
        self.columns.iter().find(|c| c.gpus.iter().any(|m| names(model, m))).map(|c| c.pcie_replays)
    }

    /// Finds the fault that a line of the kernel log tells; case does not matter.
    pub fn kernel_fault(&self, line: &str) -> Option<&str> {
        let line = line.to_lowercase();
        let fits = |k: &&KernelLine| k.has.iter().all(|h| line.contains(h.as_str()));
        self.kernel_lines.iter().find(fits).map(|k| k.fault.as_str())
    }

    /// Says whether an SXid is fatal, where that is known of its number alone.
    pub fn sxid_is_fatal(&self, sxid: u32) -> Option<bool> {
        self.sxids.iter().find(|s| (s.first..=s.last).contains(&sxid)).map(|s| s.fatal)
    }

    /// Finds the rule for an event of NVLink 5.
    pub fn link_rule(&self, event: &LinkEvent) -> Option<&LinkRule> {
        self.links.iter().find(|r| r.fits(event))
    }

    /// Finds what the driver asks for in the text of an XID 154: `.. to 0x2 (Node Reboot Required)`.
    pub fn wish_in(&self, text: &str) -> Option<&RecoveryWish> {
        let (_, to) = text.rsplit_once(" to 0x")?;
        let digits: String = to.chars().take_while(char::is_ascii_hexdigit).collect();
        let wish = self.wishes.get(&u32::from_str_radix(&digits, 16).ok()?)?;
        // The number and the words must say the same.
        let words = to[digits.len()..].trim_start().strip_prefix('(').and_then(|w| w.split_once(')'));
        match words {
            Some((w, _)) if !w.eq_ignore_ascii_case(&wish.text) => None,
            _ => Some(wish),
        }
    }
}

/// Says whether a name of a product contains a model as a word: `B200` is in `NVIDIA B200`, not in `GB200`.
fn names(product: &str, model: &str) -> bool {
    product.split(|c: char| !c.is_ascii_alphanumeric()).any(|w| w.eq_ignore_ascii_case(model))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_a_word_of_the_product() {
        assert!(
            names("NVIDIA H100 80GB HBM3", "H100")
                && names("h200", "H200")
                && names("A100-SXM4-80GB", "A100")
        );
        assert!(!names("NVIDIA GB200", "B200") && !names("L40S", "L40") && !names("", "H100"));
    }
}
