//! The watch over exporters: what scrapes tell, what sticks, and that a silent tool says nothing about its node.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop at once, as tests do")]

use engine_core::known::{Cause, Known};
use engine_core::model::gpu::RecoveryAction;
use engine_core::model::{Gpu, NodeGpus, NodeName};
use engine_core::watch::{Asked, GpuFault, GpuRules, GpuWatch, Tool, xid};
use jiff::Timestamp;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const RULES: GpuRules = GpuRules { missing: 2, silent: 3, throttled: 3 };

fn well(index: u32) -> Gpu {
    let mut g = Gpu::unseen(index, Cause::NotReported, "");
    g.uuid = Known::Known(format!("GPU-{index}"));
    g.answers = Known::Known(true);
    g.last_xid = Known::Known(0);
    g.ecc_dbe_volatile = Known::Known(0);
    g.row_remap_pending = Known::Known(false);
    g.row_remap_failure = Known::Known(false);
    g.recovery_action = Known::Known(RecoveryAction::None);
    g.clock_reasons = Known::Known(0);
    g
}

fn node(gpus: Vec<Gpu>) -> NodeGpus {
    NodeGpus { gpus, ..NodeGpus::unseen(Cause::NotReported, "") }
}

fn asked(in_hands: bool) -> Asked {
    Asked { node: NodeName::new("gpu001").unwrap(), configured: 2, in_hands }
}

struct Eyes {
    watch: GpuWatch,
    standing: BTreeSet<GpuFault>,
}

impl Eyes {
    fn new() -> Self {
        Self { watch: GpuWatch::default(), standing: BTreeSet::new() }
    }

    fn read(&mut self, gpus: Vec<Gpu>) -> Vec<String> {
        self.read_as(&asked(false), gpus)
    }

    /// Reads, and lets the record take what it tells.
    fn read_as(&mut self, asked: &Asked, gpus: Vec<Gpu>) -> Vec<String> {
        let (alerts, _) = self.watch.read(asked, &node(gpus), &RULES, &self.standing, Timestamp::UNIX_EPOCH);
        let said = |a: &engine_core::incident::Alert| {
            let gpu = a.gpu.as_deref().map(|g| format!("@{g}")).unwrap_or_default();
            format!("{}{}{gpu}", if a.firing { "+" } else { "-" }, a.fault)
        };
        for a in &alerts {
            let key = (a.fault.clone(), a.gpu.clone());
            if a.firing {
                self.standing.insert(key)
            } else {
                self.standing.remove(&key)
            };
        }
        alerts.iter().map(said).collect()
    }

    fn both(&mut self, change: impl FnOnce(&mut Gpu)) -> Vec<String> {
        let mut one = well(0);
        change(&mut one);
        self.read(vec![one, well(1)])
    }
}

#[test]
fn what_lasts_counts_at_the_first_look_and_is_over_when_it_is_gone() {
    type Change = fn(&mut Gpu);
    let cases: [(Change, &str); 5] = [
        (|g| g.row_remap_failure = Known::Known(true), "gpu-row-remap-failure"),
        (|g| g.row_remap_pending = Known::Known(true), "gpu-row-remap-pending"),
        (|g| g.recovery_action = Known::Known(RecoveryAction::Reset), "gpu-recovery-action-set"),
        (|g| g.answers = Known::Known(false), "gpu-off-bus"),
        (|g| g.recent_xids = Known::Known(BTreeMap::from([(119, 2)])), "gpu-firmware-hang"),
    ];
    for (change, fault) in cases {
        let mut eyes = Eyes::new();
        assert_eq!(eyes.both(change), [format!("+{fault}@GPU-0")]);
        assert_eq!(eyes.both(change), [""; 0], "{fault}: told once");
        assert_eq!(eyes.both(|_| {}), [format!("-{fault}@GPU-0")]);
        assert_eq!(eyes.both(|_| {}), [""; 0]);
    }
}

#[test]
fn the_xid_gauge_is_sticky_and_only_its_changes_count() {
    let xid = |x: u32| move |g: &mut Gpu| g.last_xid = Known::Known(x);
    let mut old = Eyes::new();
    assert_eq!(old.both(xid(79)), [""; 0], "it may be of last week");
    assert_eq!(old.both(xid(79)), [""; 0]);
    let mut eyes = Eyes::new();
    assert_eq!(eyes.both(|_| {}), [""; 0]);
    assert_eq!(eyes.both(xid(31)), [""; 0], "an application's own");
    assert_eq!(eyes.both(xid(94)), ["+gpu-contained-error@GPU-0"]);
    assert_eq!(eyes.both(xid(94)), [""; 0], "it sticks");
    assert_eq!(eyes.both(|g| g.last_xid = Known::unknown(Cause::NotReported, "")), [""; 0]);
    assert_eq!(eyes.both(xid(94)), [""; 0], "a gap is no change");
    assert_eq!(eyes.both(|_| {}), ["-gpu-contained-error@GPU-0"]);
}

#[test]
fn errors_count_when_they_grow_or_wait_for_a_reset() {
    let errors = |n: u64, pending: bool| {
        move |g: &mut Gpu| {
            g.ecc_dbe_volatile = Known::Known(n);
            g.row_remap_pending = Known::Known(pending);
        }
    };
    let mut eyes = Eyes::new();
    assert_eq!(eyes.both(errors(3, false)), [""; 0], "old, and remapped");
    assert_eq!(eyes.both(errors(4, false)), ["+gpu-ecc-uncorrectable@GPU-0"]);
    assert_eq!(eyes.both(errors(4, false)), [""; 0], "neither new nor over");
    assert_eq!(eyes.both(errors(0, false)), ["-gpu-ecc-uncorrectable@GPU-0"]);
    let told = Eyes::new().both(errors(1, true));
    assert_eq!(told, ["+gpu-ecc-uncorrectable@GPU-0", "+gpu-row-remap-pending@GPU-0"]);
}

#[test]
fn a_wish_for_a_reset_that_is_explained_is_no_fault_of_its_own() {
    let wish = |action| {
        move |g: &mut Gpu| {
            g.recovery_action = Known::Known(action);
            g.row_remap_pending = Known::Known(true);
        }
    };
    let mut eyes = Eyes::new();
    assert_eq!(eyes.both(wish(RecoveryAction::DrainAndReset)), ["+gpu-row-remap-pending@GPU-0"]);
    assert_eq!(eyes.both(wish(RecoveryAction::Reset)), [""; 0]);
    assert_eq!(eyes.both(wish(RecoveryAction::Reboot)), ["+gpu-recovery-action-set@GPU-0"]);
}

#[test]
fn throttling_and_missing_gpus_must_last() {
    let hot = |g: &mut Gpu| g.clock_reasons = Known::Known(0x40);
    let mut eyes = Eyes::new();
    assert_eq!(eyes.both(hot), [""; 0]);
    assert_eq!(eyes.both(|_| {}), [""; 0]);
    assert_eq!(eyes.both(hot), [""; 0]);
    assert_eq!(eyes.both(hot), [""; 0]);
    assert_eq!(eyes.both(hot), ["+gpu-hw-thermal@GPU-0"]);
    assert_eq!(eyes.both(|_| {}), ["-gpu-hw-thermal@GPU-0"]);
    let mut eyes = Eyes::new();
    assert_eq!(eyes.read(vec![well(0)]), [""; 0]);
    assert_eq!(eyes.read(vec![well(0)]), ["+gpu-count-mismatch"]);
    assert_eq!(eyes.read(vec![well(0), well(1)]), ["-gpu-count-mismatch"]);
}

#[test]
fn nothing_is_told_of_a_node_in_somebodys_hands() {
    let mut bad = well(0);
    bad.row_remap_pending = Known::Known(true);
    let mut eyes = Eyes::new();
    assert_eq!(eyes.read_as(&asked(true), vec![bad.clone(), well(1)]), [""; 0]);
    assert_eq!(eyes.read(vec![bad, well(1)]), ["+gpu-row-remap-pending@GPU-0"]);
    assert_eq!(eyes.read_as(&asked(true), vec![well(0), well(1)]), [""; 0], "not over either");
}

#[test]
fn what_was_seen_once_is_told_until_it_is_on_record() {
    let mut eyes = Eyes::new();
    assert_eq!(eyes.both(|_| {}), [""; 0]);
    let xid = |g: &mut Gpu| g.last_xid = Known::Known(119);
    assert_eq!(eyes.both(xid), ["+gpu-firmware-hang@GPU-0"]);
    eyes.standing.clear();
    assert_eq!(eyes.both(xid), ["+gpu-firmware-hang@GPU-0"], "the intake did not take it");
    assert_eq!(eyes.both(xid), [""; 0]);
}

#[test]
fn a_silent_exporter_is_the_tools_fault_and_tells_nothing_of_the_node() {
    let mut eyes = Eyes::new();
    let name = asked(false).node;
    assert_eq!(eyes.both(|g| g.row_remap_pending = Known::Known(true)).len(), 1);
    let turns: Vec<Tool> = (0..5).map(|_| eyes.watch.unread(&name, "refused", &RULES)).collect();
    assert_eq!(turns, [Tool::Same, Tool::Same, Tool::Silent, Tool::Same, Tool::Same]);
    assert_eq!(eyes.watch.silent(&RULES), 1);
    let (alerts, tool) = eyes.watch.read(
        &asked(false),
        &node(vec![well(0), well(1)]),
        &RULES,
        &BTreeSet::new(),
        Timestamp::UNIX_EPOCH,
    );
    assert_eq!((tool, eyes.watch.silent(&RULES)), (Tool::Back, 0));
    assert!(alerts.is_empty(), "what is gone is not told again: {alerts:?}");
}

#[test]
fn every_xid_that_tells_a_fault_tells_one_that_is_known() {
    use engine_core::incident::fault::{Strength, strength};
    let told: Vec<&str> = (0..1_000).filter_map(xid::fault_of).collect();
    assert!(told.len() > 20);
    assert!(told.iter().all(|f| strength(f) != Strength::Unknown));
}

proptest! {
    /// Any scrapes: what is told as new is not on record, and what is told as over is.
    #[test]
    fn nothing_is_told_twice(
        scrapes in prop::collection::vec((0..130_u32, 0..4_u64, any::<bool>(), any::<bool>(), 0..3_usize, prop::bool::weighted(0.2)), 1..40)
    ) {
        let mut eyes = Eyes::new();
        for (xid, errors, pending, failure, gpus, hands) in scrapes {
            let mut one = well(0);
            one.last_xid = Known::Known(xid);
            one.ecc_dbe_volatile = Known::Known(errors);
            one.row_remap_pending = Known::Known(pending);
            one.row_remap_failure = Known::Known(failure);
            let all: Vec<Gpu> = [one, well(1)].into_iter().take(gpus).collect();
            let before = eyes.standing.clone();
            let told = eyes.read_as(&asked(hands), all);
            prop_assert!(!hands || told.is_empty());
            for said in told {
                let (fault, gpu) = said[1..].split_once('@').map_or((&said[1..], None), |(f, g)| (f, Some(g.to_owned())));
                prop_assert_eq!(before.contains(&(fault.to_owned(), gpu)), said.starts_with('-'), "{}", said);
            }
        }
    }
}
