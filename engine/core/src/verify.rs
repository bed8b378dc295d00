//! The lists that stand before and after a GPU reset, and the proof of health without one.
//!
//! Pure: reads in, lines out. Every line says what was wanted and what was seen; only a list whose every
//! line passes permits anything, and what is not known does not pass. The same lists run in the plan, right
//! before the reset, and in the verification, so that nobody checks by a list of his own.

use crate::known::{Cause, Known, Unknown};
use crate::model::gpu::{DiagReport, Health, HealthReport};
use crate::model::{FabricState, Gpu, GpuProcess, NodeGpus, RecoveryAction, ResetOutcome};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::{Debug, Display};

/// XID of a GPU that has fallen off the bus: a reset cannot help.
pub const XID_OFF_THE_BUS: u32 = 79;

/// What a line came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truth {
    /// Seen as wanted.
    Pass,
    /// Not known: blocks like a failure.
    Unknown,
    /// Seen otherwise.
    Fail,
}

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Stable word.
    pub id: String,
    /// What was wanted.
    pub wanted: String,
    /// What was seen; holds text from outside.
    pub seen: String,
    /// What it came to.
    pub truth: Truth,
    /// Whether waiting and reading again can make it pass.
    pub may_recover: bool,
}

/// A list of lines, in the order of the checks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CheckList(pub Vec<Check>);

impl CheckList {
    /// Says whether every line passes, and there is at least one.
    pub fn passed(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|c| c.truth == Truth::Pass)
    }

    /// Returns the lines that do not pass.
    pub fn blocking(&self) -> impl Iterator<Item = &Check> {
        self.0.iter().filter(|c| c.truth != Truth::Pass)
    }

    /// Says whether a line failed that no waiting can mend.
    pub fn hopeless(&self) -> bool {
        self.0.iter().any(|c| c.truth == Truth::Fail && !c.may_recover)
    }

    /// Finds a line.
    pub fn find(&self, id: &str) -> Option<&Check> {
        self.0.iter().find(|c| c.id == id)
    }

    /// Says in one line for people what blocks; empty where nothing does.
    pub fn summary(&self) -> String {
        let line = |c: &Check| format!("{}: wanted {}, seen {}", c.id, c.wanted, c.seen);
        self.blocking().map(line).collect::<Vec<_>>().join("; ")
    }

    /// Says it in a sentence: the lines that weigh most, the rest counted.
    pub fn brief(&self) -> String {
        const SHOWN: usize = 2;
        const LONGEST: usize = 90;
        let mut lines: Vec<&Check> = self.blocking().collect();
        // What failed for good weighs more than what failed for now, and that more than what is not known.
        lines.sort_by_key(|c| (c.truth != Truth::Fail, c.may_recover));
        let mut out: Vec<String> = lines
            .iter()
            .take(SHOWN)
            .map(|c| {
                let cut = if c.seen.chars().count() > LONGEST { "..." } else { "" };
                format!("{} ({}{cut})", c.id, c.seen.chars().take(LONGEST).collect::<String>())
            })
            .collect();
        let names: Vec<&str> = lines.iter().skip(SHOWN).map(|c| c.id.as_str()).collect();
        if !names.is_empty() {
            out.push(format!("also {}", names.join(", ")));
        }
        format!("{} of {} lines do not pass: {}", lines.len(), self.0.len(), out.join("; "))
    }

    fn add(&mut self, id: &str, wanted: impl Into<String>, truth: Truth, seen: impl Into<String>) {
        let (id, wanted, seen) = (id.to_owned(), wanted.into(), seen.into());
        self.0.push(Check { id, wanted, seen, truth, may_recover: true });
    }

    /// Marks the line added last as one that waiting cannot mend.
    fn for_good(&mut self) {
        if let Some(c) = self.0.last_mut() {
            c.may_recover = false;
        }
    }

    /// Adds a line about one value.
    fn value<T: Display>(&mut self, id: &str, wanted: &str, value: &Known<T>, pass: impl FnOnce(&T) -> bool) {
        match value {
            Known::Known(v) => self.add(id, wanted, truth(pass(v)), v.to_string()),
            Known::Unknown(u) => self.add(id, wanted, Truth::Unknown, u.to_string()),
        }
    }
}

fn truth(pass: bool) -> Truth {
    if pass { Truth::Pass } else { Truth::Fail }
}

/// What the list before a reset looks at.
#[derive(Debug, Clone)]
pub struct BeforeReset<'a> {
    /// The node's GPUs, read now.
    pub node: &'a NodeGpus,
    /// UUID the plan was made for.
    pub uuid: &'a str,
    /// PCI address the plan was made for.
    pub bus_id: &'a str,
    /// The node is drained, by this run, and the drain is unchanged.
    pub drained_by_us: Known<bool>,
    /// Jobs that hold the node, completing ones included.
    pub active_jobs: Known<i64>,
    /// Suspended jobs on the node.
    pub suspended_jobs: Known<i64>,
}

/// What the list after a reset looks at.
#[derive(Debug, Clone)]
pub struct AfterReset<'a> {
    /// The node's GPUs as recorded right before the reset.
    pub before: &'a NodeGpus,
    /// The node's GPUs, read now.
    pub after: &'a NodeGpus,
    /// UUID of the GPU that was reset.
    pub uuid: &'a str,
    /// What came of the reset.
    pub outcome: &'a ResetOutcome,
    /// What the verification itself asks for.
    pub proof: Proof<'a>,
}

/// What the list without a reset looks at.
#[derive(Debug, Clone)]
pub struct VerifyHealth<'a> {
    /// The node's GPUs, read now.
    pub node: &'a NodeGpus,
    /// GPUs that the node should have, where something says how many.
    pub expected_gpus: Option<u64>,
    /// What the verification itself asks for.
    pub proof: Proof<'a>,
}

/// What a proof of health needs besides the reads.
#[derive(Debug, Clone)]
pub struct Proof<'a> {
    /// The diagnostic, and the level that was asked for; `None` where none was.
    pub diag: Option<(u8, &'a Known<DiagReport>)>,
    /// Seconds since the health watches were set anew.
    pub watched_s: Known<i64>,
    /// Seconds that the watches need; DCGM compares the last 60 s for some systems.
    pub watch_s: i64,
    /// Whether the site has an exporter that must answer.
    pub exporter_expected: bool,
}

/// Checks everything that must hold right before a reset.
pub fn before_reset(b: &BeforeReset<'_>) -> CheckList {
    let mut list = CheckList::default();
    list.value("drained_by_us", "the node is drained by this run", &b.drained_by_us, |d| *d);
    list.value("no_jobs", "no job holds the node", &b.active_jobs, |n| *n == 0);
    list.value("no_suspended_jobs", "no suspended job on the node", &b.suspended_jobs, |n| *n == 0);
    list.0.extend(before_reset_on_node(b.node, b.uuid, b.bus_id).0);
    list
}

/// The part of [`before_reset`] that the node can see by itself, checked there once more right before the reset.
pub fn before_reset_on_node(node: &NodeGpus, uuid: &str, bus_id: &str) -> CheckList {
    let mut list = CheckList::default();
    let target = target(&mut list, node, uuid, Some(bus_id));
    holders(&mut list, node);
    list.value("no_diag", "no diagnostic runs", &node.diag_running, |d| !d);
    let Some(gpu) = target else { return list };
    list.value("answers", "the GPU answers", &gpu.answers, |a| *a);
    list.for_good();
    off_the_bus(&mut list, node, gpu);
    match &gpu.recovery_action {
        Known::Known(a) => {
            let fit =
                matches!(a, RecoveryAction::None | RecoveryAction::Reset | RecoveryAction::DrainAndReset);
            list.add(
                "recovery_action",
                "a reset can help (not reboot, not drain_p2p)",
                truth(fit),
                a.as_str(),
            );
        }
        // Decision 004: a field that this release does not have is no failed read.
        Known::Unknown(u) if u.cause == Cause::Unsupported => {
            list.add("recovery_action", "a reset can help", Truth::Pass, "this DCGM does not say");
        }
        Known::Unknown(u) => list.add("recovery_action", "a reset can help", Truth::Unknown, u.to_string()),
    }
    list.value("mig_off", "MIG is off", &gpu.mig_enabled, |m| !m);
    fabric_rule(&mut list, node, gpu);
    list.value(
        "persistence_recorded",
        "persistence mode is known, to be compared afterwards",
        &gpu.persistence_mode,
        |_| true,
    );
    list
}

/// Checks everything that must hold after a reset before the node may return to service.
pub fn after_reset(a: &AfterReset<'_>) -> CheckList {
    let mut list = CheckList::default();
    let done = match a.outcome {
        ResetOutcome::Done => Truth::Pass,
        ResetOutcome::Unknown { .. } => Truth::Unknown,
        _ => Truth::Fail,
    };
    list.add("reset_done", "the tool reports success", done, a.outcome.describe());
    list.for_good();
    same_gpus(&mut list, a.before, a.after);
    let bus = a.before.find(a.uuid).and_then(|g| g.bus_id.known());
    target(&mut list, a.after, a.uuid, bus.map(String::as_str));
    healthy(&mut list, a.after, Some(a.before), &a.proof);
    list
}

/// Checks the node's health where no reset went before.
pub fn verify_health(v: &VerifyHealth<'_>) -> CheckList {
    let mut list = CheckList::default();
    let found = v.node.gpus.len();
    let wanted = v.expected_gpus.map_or("at least one GPU".to_owned(), |n| format!("{n} GPUs"));
    let right = v.expected_gpus.map_or(found > 0, |n| usize::try_from(n) == Ok(found) && n > 0);
    list.add("gpu_count", wanted, truth(right), format!("{found} GPUs"));
    identities(&mut list, v.node);
    healthy(&mut list, v.node, None, &v.proof);
    list
}

/// Finds the target by its UUID, and checks its address.
fn target<'a>(list: &mut CheckList, node: &'a NodeGpus, uuid: &str, bus_id: Option<&str>) -> Option<&'a Gpu> {
    let hits: Vec<&Gpu> = node.gpus.iter().filter(|g| g.uuid.is_known_and(|u| u == uuid)).collect();
    let wanted = match bus_id {
        Some(b) => format!("one GPU {uuid} at {b}"),
        None => format!("one GPU {uuid} at a known address"),
    };
    let [gpu] = hits.as_slice() else {
        let unread = node.gpus.iter().find_map(|g| match &g.uuid {
            Known::Unknown(u) => Some(u),
            Known::Known(_) => None,
        });
        let seen = match (hits.len(), unread) {
            (0, Some(u)) => format!("not among the {} GPUs; one UUID is {u}", node.gpus.len()),
            (0, None) => format!("not among the {} GPUs", node.gpus.len()),
            (n, _) => format!("{n} GPUs with this UUID"),
        };
        let unread = hits.is_empty() && (unread.is_some() || node.gpus.is_empty());
        list.add("target", wanted, if unread { Truth::Unknown } else { Truth::Fail }, seen);
        return None;
    };
    let normal = |b: &str| crate::model::gpu::normalize_bus_id(b);
    match (&gpu.bus_id, bus_id) {
        (Known::Unknown(u), _) => list.add("target", wanted, Truth::Unknown, u.to_string()),
        (Known::Known(is), Some(want)) => {
            let same = normal(is).is_some() && normal(is) == normal(want);
            list.add("target", wanted, truth(same), format!("{uuid} at {is}"));
        }
        // After a reset the address must be compared with a known one.
        (Known::Known(is), None) => {
            list.add("target", wanted, Truth::Unknown, format!("{uuid} at {is}; no address to compare"));
        }
    }
    Some(gpu)
}

/// Names every process on every GPU of the node: one of them holds the target, or will be disturbed.
fn holders(list: &mut CheckList, node: &NodeGpus) {
    let wanted = "no process on any GPU";
    let mut named = Vec::new();
    let mut unread: Option<&Unknown> = None;
    for g in &node.gpus {
        match &g.processes {
            Known::Known(all) => {
                let show = |p: &GpuProcess| format!("{} (pid {}) on GPU {}", p.name, p.pid, g.index);
                named.extend(all.iter().map(show));
            }
            Known::Unknown(u) => unread = Some(u),
        }
    }
    match (named.is_empty(), unread) {
        (false, _) => list.add("no_processes", wanted, Truth::Fail, named.join(", ")),
        (true, Some(u)) => list.add("no_processes", wanted, Truth::Unknown, u.to_string()),
        (true, None) if node.gpus.is_empty() => {
            list.add("no_processes", wanted, Truth::Unknown, "no GPU was read");
        }
        (true, None) => list.add("no_processes", wanted, Truth::Pass, "none"),
    }
}

/// The last XID hides earlier ones; the window of the exporter and the health check of DCGM 4 may still show it.
fn off_the_bus(list: &mut CheckList, node: &NodeGpus, gpu: &Gpu) {
    let wanted = "no XID 79";
    let recent = gpu.recent_xids.known().is_some_and(|x| x.get(&XID_OFF_THE_BUS).is_some_and(|n| *n > 0));
    let told = node.health.known().is_some_and(|h| {
        h.incidents
            .iter()
            .any(|i| i.gpu == Some(gpu.index) && i.text.contains(&format!("XID {XID_OFF_THE_BUS}:")))
    });
    if recent || told {
        let by = if recent { "in the last window" } else { "in the health check" };
        list.add("on_the_bus", wanted, Truth::Fail, format!("XID 79 {by}"));
    } else {
        list.value("on_the_bus", wanted, &gpu.last_xid, |x| *x != XID_OFF_THE_BUS);
    }
    list.for_good();
}

/// Families that reset singly whatever their links: Hopper and newer.
const SINGLE: &[&str] = &["H100", "H200", "H800", "H20", "GH200", "B100", "B200", "B300", "GB200", "GB300"];
/// Families that reset singly where Fabric Manager runs or no NVSwitch is there; nvidia-smi refuses else.
const AMPERE: &[&str] = &["A100", "A800", "A30", "A40", "A10", "A16", "A2", "A6000", "L4", "L40", "L40S"];

/// NVLink peers of older GPUs must be reset in one command, which this action never does.
fn fabric_rule(list: &mut CheckList, node: &NodeGpus, gpu: &Gpu) {
    let wanted = "the GPU can be reset alone";
    let others = node.gpus.len().saturating_sub(1);
    if let (Known::Known(0), Known::Known(0)) = (&gpu.nvlinks_up, &gpu.nvlinks_down) {
        return list.add("reset_alone", wanted, Truth::Pass, "no NVLinks");
    }
    let Known::Known(model) = &gpu.model else {
        let why = gpu.model.as_ref().map(String::as_str);
        return list.add("reset_alone", wanted, Truth::Unknown, format!("the model is {why}"));
    };
    let words: BTreeSet<&str> = model.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    if SINGLE.iter().any(|m| words.contains(m)) {
        list.add("reset_alone", wanted, Truth::Pass, model.clone());
    } else if AMPERE.iter().any(|m| words.contains(m)) {
        list.add(
            "reset_alone",
            wanted,
            Truth::Pass,
            format!("{model}; nvidia-smi refuses where its peers must come too"),
        );
    } else if others == 0 {
        list.add("reset_alone", wanted, Truth::Pass, format!("{model}, the only GPU"));
    } else {
        let seen = format!(
            "{model} with NVLinks, and {others} other GPUs: peers may have to be reset in the same command"
        );
        list.add("reset_alone", wanted, Truth::Fail, seen);
        list.for_good();
    }
}

/// Every GPU has a UUID, and no two have the same.
fn identities(list: &mut CheckList, node: &NodeGpus) {
    let wanted = "every GPU has its own UUID";
    match uuids(node) {
        Ok(set) if set.is_empty() => list.add("own_uuids", wanted, Truth::Unknown, "no GPU was read"),
        Ok(set) if set.len() == node.gpus.len() => {
            list.add("own_uuids", wanted, Truth::Pass, format!("{} UUIDs", set.len()));
        }
        Ok(set) => list.add(
            "own_uuids",
            wanted,
            Truth::Fail,
            format!("{} UUIDs of {} GPUs", set.len(), node.gpus.len()),
        ),
        Err(u) => list.add("own_uuids", wanted, Truth::Unknown, u.to_string()),
    }
}

fn uuids(node: &NodeGpus) -> Result<BTreeSet<&str>, Unknown> {
    let mut set = BTreeSet::new();
    for g in &node.gpus {
        match &g.uuid {
            Known::Known(u) => {
                set.insert(u.as_str());
            }
            Known::Unknown(u) => return Err(u.clone()),
        }
    }
    Ok(set)
}

fn same_gpus(list: &mut CheckList, before: &NodeGpus, after: &NodeGpus) {
    let wanted = format!("the same {} GPUs as before", before.gpus.len());
    let (truth, seen) = match (uuids(before), uuids(after)) {
        (Err(u), _) => (Truth::Unknown, format!("before: {u}")),
        (_, Err(u)) => (Truth::Unknown, format!("now: {u}")),
        (Ok(b), Ok(_)) if b.is_empty() => (Truth::Unknown, "no GPU was recorded before".to_owned()),
        (Ok(b), Ok(a)) => {
            let gone: Vec<&str> = b.difference(&a).copied().collect();
            let new: Vec<&str> = a.difference(&b).copied().collect();
            let same = gone.is_empty() && new.is_empty() && before.gpus.len() == after.gpus.len();
            let mut seen = format!("{} GPUs", after.gpus.len());
            if !gone.is_empty() {
                seen.push_str(&format!(", gone: {}", gone.join(", ")));
            }
            if !new.is_empty() {
                seen.push_str(&format!(", new: {}", new.join(", ")));
            }
            (if same { Truth::Pass } else { Truth::Fail }, seen)
        }
    };
    list.add("same_gpus", wanted, truth, seen);
}

/// The lines that a healthy node passes, with or without a reset before.
fn healthy(list: &mut CheckList, node: &NodeGpus, before: Option<&NodeGpus>, proof: &Proof<'_>) {
    list.value("engine_up", "nv-hostengine answers", &node.dcgm_up, |up| *up);
    list.value("driver_attached", "DCGM is attached to the driver", &node.driver_attached, |a| *a);
    every(list, node, "answer", "every GPU answers", |g| line(&g.answers, |a| *a, "answers"));
    every(list, node, "readable", "temperature and power of every GPU are readable", |g| {
        worse(line(&g.temperature_c, |_| true, "temperature"), line(&g.power_w, |_| true, "power"))
    });
    every(list, node, "no_uncorrectable_errors", "no volatile uncorrectable memory error on any GPU", |g| {
        line(&g.ecc_dbe_volatile, |n| *n == 0, "volatile uncorrectable errors")
    });
    list.for_good();
    every(list, node, "no_remap_pending", "no row remap pending on any GPU", |g| {
        line(&g.row_remap_pending, |p| !p, "remap pending")
    });
    every(list, node, "no_remap_failure", "no row remap failure on any GPU", |g| {
        line(&g.row_remap_failure, |f| !f, "remap failure")
    });
    list.for_good();
    every(list, node, "no_recovery_action", "the driver asks for nothing on any GPU", |g| {
        match &g.recovery_action {
            Known::Unknown(u) if u.cause == Cause::Unsupported => {
                (Truth::Pass, "this DCGM does not say".to_owned())
            }
            action => line(&action.clone().map(RecoveryAction::as_str), |a| *a == "none", "recovery action"),
        }
    });
    every(list, node, "no_xid", "no XID since the engine was started", |g| xid(g, old(before, g)));
    list.for_good();
    every(list, node, "persistence", "persistence mode on every GPU as before", |g| match old(before, g) {
        Some(o) => match (&o.persistence_mode, &g.persistence_mode) {
            (Known::Known(b), Known::Known(a)) => (truth(a == b), format!("{a}, was {b}")),
            (Known::Unknown(u), _) => (Truth::Unknown, format!("before: {u}")),
            (_, Known::Unknown(u)) => (Truth::Unknown, u.to_string()),
        },
        None => line(&g.persistence_mode, |_| true, "persistence mode"),
    });
    every(list, node, "nvlinks", "every NVLink up on every GPU", |g| links(g, old(before, g)));
    every(list, node, "fabric", "every GPU registered with its fabric, if it has one", |g| {
        fabric(g, old(before, g))
    });
    let wanted = format!("health watches set for {} s", proof.watch_s);
    list.value("watched", &wanted, &proof.watched_s, |s| *s >= proof.watch_s);
    health(list, &node.health);
    if let Some((level, diag)) = proof.diag {
        diagnostic(list, level, diag);
    }
    if proof.exporter_expected {
        list.value("exporter_up", "dcgm-exporter answers", &node.exporter_up, |up| *up);
    }
}

fn old<'a>(before: Option<&'a NodeGpus>, g: &Gpu) -> Option<&'a Gpu> {
    before?.gpus.iter().find(|b| matches!((&b.uuid, &g.uuid), (Known::Known(b), Known::Known(g)) if b == g))
}

/// Checks one thing on every GPU and names those that do not pass. No GPU at all is unknown.
fn every(
    list: &mut CheckList,
    node: &NodeGpus,
    id: &str,
    wanted: &str,
    check: impl Fn(&Gpu) -> (Truth, String),
) {
    let mut worst = if node.gpus.is_empty() { Truth::Unknown } else { Truth::Pass };
    let mut bad = Vec::new();
    for g in &node.gpus {
        let (truth, seen) = check(g);
        worst = worst.max(truth);
        if truth != Truth::Pass {
            bad.push(format!("GPU {}: {seen}", g.index));
        }
    }
    let seen = match (node.gpus.is_empty(), bad.is_empty()) {
        (true, _) => "no GPU was read".to_owned(),
        (_, true) => format!("all {} GPUs", node.gpus.len()),
        _ => bad.join("; "),
    };
    list.add(id, wanted, worst, seen);
}

fn line<T: Display>(value: &Known<T>, pass: impl FnOnce(&T) -> bool, what: &str) -> (Truth, String) {
    match value {
        Known::Known(v) => (truth(pass(v)), format!("{what} {v}")),
        Known::Unknown(u) => (Truth::Unknown, format!("{what} {u}")),
    }
}

fn worse(a: (Truth, String), b: (Truth, String)) -> (Truth, String) {
    if b.0 > a.0 { b } else { a }
}

/// The engine remembers XIDs until it is restarted; an old one that is still shown hides whether one is new.
fn xid(g: &Gpu, before: Option<&Gpu>) -> (Truth, String) {
    match (&g.last_xid, before.and_then(|b| b.last_xid.known())) {
        (Known::Known(0), _) => (Truth::Pass, "none".to_owned()),
        (Known::Known(now), Some(then)) if now == then => (
            Truth::Unknown,
            format!("XID {now} as before: the engine was not restarted, a new one would not show"),
        ),
        (Known::Known(now), _) => (Truth::Fail, format!("XID {now}")),
        (Known::Unknown(u), _) => (Truth::Unknown, format!("XID {u}")),
    }
}

fn links(g: &Gpu, before: Option<&Gpu>) -> (Truth, String) {
    match (&g.nvlinks_up, &g.nvlinks_down, before.map(|b| &b.nvlinks_up)) {
        (_, Known::Known(down), _) if *down > 0 => (Truth::Fail, format!("{down} down")),
        (Known::Known(up), Known::Known(_), Some(Known::Known(was))) if up < was => {
            // A GPU that does not answer shows its links as not supported instead of down.
            (Truth::Fail, format!("{up} up, {was} before"))
        }
        (Known::Known(up), Known::Known(_), _) => (Truth::Pass, format!("{up} up")),
        (Known::Unknown(u), _, _) | (_, Known::Unknown(u), _) => (Truth::Unknown, format!("links {u}")),
    }
}

fn fabric(g: &Gpu, before: Option<&Gpu>) -> (Truth, String) {
    let state = match &g.fabric {
        Known::Known(s) => *s,
        Known::Unknown(u) => return (Truth::Unknown, format!("fabric {u}")),
    };
    let had_one = before.and_then(|b| b.fabric.known()).is_some_and(|b| *b != FabricState::NotSupported);
    let fine = match state {
        FabricState::Completed => true,
        FabricState::NotSupported => !had_one,
        FabricState::NotStarted | FabricState::InProgress | FabricState::Failed => false,
    };
    (truth(fine), format!("fabric {}", state.as_str()))
}

fn health(list: &mut CheckList, health: &Known<HealthReport>) {
    let wanted = "DCGM health: Healthy";
    match health {
        Known::Unknown(u) => list.add("health", wanted, Truth::Unknown, u.to_string()),
        Known::Known(r) => {
            list.add("health", wanted, truth(r.overall == Health::Pass), incidents(r.overall, &r.incidents));
        }
    }
}

fn diagnostic(list: &mut CheckList, level: u8, diag: &Known<DiagReport>) {
    let wanted = format!("diagnostic of level {level}: Pass");
    match diag {
        Known::Unknown(u) => list.add("diag", wanted, Truth::Unknown, u.to_string()),
        Known::Known(d) => {
            let pass = d.overall == Health::Pass && d.passed > 0 && d.level == level;
            let seen =
                format!("level {}, {} passed, {}", d.level, d.passed, incidents(d.overall, &d.incidents));
            list.add("diag", wanted, truth(pass), seen);
        }
    }
}

fn incidents(overall: Health, list: &[crate::model::gpu::HealthIncident]) -> String {
    let mut seen = overall.as_str().to_owned();
    for i in list {
        let gpu = i.gpu.map_or("node".to_owned(), |g| format!("GPU {g}"));
        seen.push_str(&format!("; {gpu} {} {}: {}", i.system, i.health.as_str(), i.text));
    }
    seen
}
