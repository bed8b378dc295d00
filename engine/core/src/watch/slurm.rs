//! Faults that a read of the whole cluster tells, and when they are over.
//!
//! A node that is ours, somebody's, in maintenance, or on its way through a reboot or power saving is left alone: nothing
//! is told about it, neither that something is wrong nor that it is over. A fault is over when the node serves again.

use super::gpu::Asked;
use super::reasons::{Reasons, Told};
use super::series_of;
use crate::incident::{Alert, FleetState};
use crate::known::Known;
use crate::model::{BaseState, Node, NodeFlag, NodeName};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Name of this source in alerts.
pub const SOURCE: &str = "slurm-poll";
/// The most alerts of one look; what is left is told the next time.
pub const MAX_ALERTS: usize = 5_000;

/// Boot times jitter by a second.
const BOOT_SLACK: SignedDuration = SignedDuration::from_secs(60);

/// Time limits of the watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlurmRules {
    /// How long slurmd may be silent before that is a fault. slurmctld calls a node down by itself after SlurmdTimeout.
    pub silent: SignedDuration,
    /// How long an unexpected boot stays a fault.
    pub booted: SignedDuration,
    /// Looks further apart than this cannot tell whether a boot was expected.
    pub gap: SignedDuration,
}

impl Default for SlurmRules {
    fn default() -> Self {
        Self {
            silent: SignedDuration::from_mins(3),
            booted: SignedDuration::from_mins(15),
            gap: SignedDuration::from_mins(10),
        }
    }
}

/// What is on record as lasting, by this source: fault words by node.
pub type Standing = BTreeMap<NodeName, BTreeSet<String>>;

/// Takes what this source has open out of the fleet's record, so that a watch that was just started can end it.
pub fn standing(state: &FleetState, source: &str) -> Standing {
    let mut out = Standing::new();
    for i in state.incidents() {
        let Some(node) = i.node() else { continue };
        for series in i.alerts.values().filter(|s| s.firing && s.source == source) {
            out.entry(node.clone()).or_default().insert(series.fault.clone());
        }
    }
    out
}

/// What is remembered of a node from look to look.
#[derive(Debug, Clone, Default)]
struct Memory {
    boot: Option<Timestamp>,
    /// Since when slurmd is silent, or the node is out of service and nobody says why.
    since: Option<Timestamp>,
    /// When an unexpected boot was seen.
    booted: Option<Timestamp>,
    /// Whether the last look found it in hands.
    in_hands: bool,
    /// Whether something was said to be over.
    said_over: bool,
    /// GPUs that Slurm has configured.
    gpus: u32,
}

/// Watches the nodes by comparing looks. Its memory is as large as the cluster.
#[derive(Debug, Clone, Default)]
pub struct SlurmWatch {
    nodes: BTreeMap<NodeName, Memory>,
    last: Option<Timestamp>,
}

/// What one node shows.
enum Shows {
    /// Nothing may be said about it.
    InHands,
    /// It cannot be told, or not yet.
    Undecided,
    /// It serves.
    Serves,
    /// These faults, each with a sentence.
    Faults(BTreeMap<String, String>),
}

impl SlurmWatch {
    /// Lists the nodes with GPUs as the last look found them.
    pub fn with_gpus(&self) -> Vec<Asked> {
        let gpus = self.nodes.iter().filter(|(_, m)| m.gpus > 0);
        gpus.map(|(n, m)| Asked { node: n.clone(), configured: m.gpus, in_hands: m.in_hands }).collect()
    }

    /// Finds a node with GPUs as the last look found it.
    pub fn asked(&self, node: &NodeName) -> Option<Asked> {
        let memory = self.nodes.get(node).filter(|m| m.gpus > 0)?;
        Some(Asked { node: node.clone(), configured: memory.gpus, in_hands: memory.in_hands })
    }

    /// Compares a look with what is known, and returns what is new and what is over. What was told and is not on record
    /// yet is told again, so that nothing is lost where alerts were not taken.
    pub fn look(
        &mut self,
        nodes: &[Node],
        reasons: &Reasons,
        rules: &SlurmRules,
        standing: &Standing,
        at: Timestamp,
    ) -> Vec<Alert> {
        let near = self.last.is_some_and(|l| at.duration_since(l) <= rules.gap);
        self.last = Some(at);
        let mut out = Vec::new();
        if self.nodes.len() > nodes.len() {
            let there: BTreeSet<&NodeName> = nodes.iter().map(|n| &n.name).collect();
            self.nodes.retain(|name, _| there.contains(name));
        }
        let none = BTreeSet::new();
        for node in nodes {
            if !self.nodes.contains_key(&node.name) {
                self.nodes.insert(node.name.clone(), Memory::default());
            }
            let Some(memory) = self.nodes.get_mut(&node.name) else { continue };
            let known = standing.get(&node.name).unwrap_or(&none);
            let mut shows = shows(node, reasons, rules, memory, at);
            let hands = matches!(shows, Shows::InHands);
            boot(node, memory, near && !hands && !memory.in_hands, hands, rules, at);
            memory.in_hands = hands;
            memory.gpus = node.gpus_configured.known().copied().unwrap_or(0);
            if let (Some(_), Shows::Serves) = (memory.booted, &shows) {
                let says = "its boot time changed though nobody asked for a reboot".to_owned();
                shows = Shows::Faults([("kernel-panic-or-unexpected-boot".to_owned(), says)].into());
            }
            if out.len() >= MAX_ALERTS {
                continue;
            }
            match shows {
                Shows::InHands | Shows::Undecided => {}
                Shows::Serves => {
                    for fault in known {
                        memory.said_over = true;
                        out.extend(alert(node, fault, false, "the node serves again".to_owned(), at));
                    }
                    memory.said_over &= !known.is_empty();
                }
                Shows::Faults(faults) => {
                    for (fault, says) in faults {
                        if memory.said_over || !known.contains(&fault) {
                            out.extend(alert(node, &fault, true, says, at));
                        }
                    }
                    memory.said_over = false;
                }
            }
        }
        out
    }
}

const HANDS: [NodeFlag; 13] = [
    NodeFlag::Maintenance,
    NodeFlag::RebootRequested,
    NodeFlag::RebootIssued,
    NodeFlag::PowerDown,
    NodeFlag::PoweringDown,
    NodeFlag::PoweredDown,
    NodeFlag::PowerUp,
    NodeFlag::PoweringUp,
    NodeFlag::PowerDownAsap,
    NodeFlag::PowerDownForce,
    NodeFlag::PowerDrain,
    NodeFlag::External,
    NodeFlag::Blocked,
];

fn shows(node: &Node, reasons: &Reasons, rules: &SlurmRules, memory: &mut Memory, at: Timestamp) -> Shows {
    let was = memory.since.take();
    let Known::Known(base) = &node.base else { return Shows::Undecided };
    if !node.flags.unknown.is_empty() || matches!(base, BaseState::Unknown) {
        return Shows::Undecided;
    }
    if matches!(base, BaseState::Future) || node.flags.has_any(&HANDS) {
        return Shows::InHands;
    }
    let down = matches!(base, BaseState::Down);
    let invalid = node.flags.has(NodeFlag::InvalidReg);
    let is_out = down || invalid || node.flags.has_any(&[NodeFlag::Drain, NodeFlag::Fail]);
    let mut faults = BTreeMap::new();
    // Some releases keep a reason after a resume: it counts for a node that is out only.
    if is_out {
        match &node.reason {
            Known::Unknown(_) => return Shows::Undecided,
            Known::Known(None) => {}
            Known::Known(Some(reason)) => match reasons.told(&reason.text) {
                Told::Ours | Told::Somebody => return Shows::InHands,
                Told::Faults(told) => {
                    for (fault, pattern) in told {
                        let says = format!("{}; Slurm's reason: {}", pattern.says, reason.text);
                        faults.insert(fault.to_owned(), says);
                    }
                }
            },
        }
        if invalid && faults.is_empty() {
            let says = "slurmctld does not accept its registration, and leaves no reason".to_owned();
            faults.insert("slurm-invalid-registration".to_owned(), says);
        }
        if !faults.is_empty() {
            return Shows::Faults(faults);
        }
    }
    let silent = node.flags.has(NodeFlag::NotResponding);
    if !silent && !is_out {
        return Shows::Serves;
    }
    let since = was.unwrap_or(at);
    memory.since = Some(since);
    if at.duration_since(since) < rules.silent {
        return Shows::Undecided;
    }
    let (fault, says) = if silent {
        ("node-not-responding", format!("slurmd is silent since {since}"))
    } else {
        // A person looks.
        ("slurm-node-out-unexplained", format!("it is out of service since {since}, and nobody says why"))
    };
    Shows::Faults([(fault.to_owned(), says)].into())
}

/// Follows the boot time. `can_tell` says that a change was not expected.
fn boot(node: &Node, memory: &mut Memory, can_tell: bool, hands: bool, rules: &SlurmRules, at: Timestamp) {
    if hands || memory.booted.is_some_and(|seen| at.duration_since(seen) > rules.booted) {
        memory.booted = None;
    }
    let Known::Known(boot) = &node.boot_time else { return };
    let last = memory.boot.replace(*boot);
    if can_tell && last.is_some_and(|last| boot.duration_since(last) > BOOT_SLACK) {
        memory.booted = Some(at);
    }
}

fn alert(node: &Node, fault: &str, firing: bool, summary: String, at: Timestamp) -> Option<Alert> {
    let alert = Alert {
        source: SOURCE.to_owned(),
        fingerprint: series_of(SOURCE, &node.name, fault, None)?,
        fault: fault.to_owned(),
        node: node.name.clone(),
        gpu: None,
        firing,
        seen_at: at,
        summary,
    };
    alert.checked().ok()
}
