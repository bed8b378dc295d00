//! Puts the readings of one node together: who is which GPU, who contradicts whom, and which green is false.
//!
//! DCGM's ids are mapped to UUIDs and bus ids by the discovery of the same read, every time. Where two tools
//! contradict each other about something that does not change by itself, the fact is unknown.

use super::discovery::DiscoveredGpu;
use super::dmon::Dmon;
use super::fault::Fault;
use super::nvlink::Links;
use super::version::DcgmVersion;
use crate::nvidia_smi::csv::{App, SmiGpus};
use engine_core::model::gpu::{Health, HealthReport};
use engine_core::model::{FabricState, Gpu, NodeGpus};
use engine_core::{Cause, Known};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that was read of one node, each reading with its own failure.
#[derive(Debug, Clone)]
pub struct Readings {
    /// `dcgmi -v`.
    pub version: Known<DcgmVersion>,
    /// `dcgmi discovery -l`.
    pub discovery: Known<Vec<DiscoveredGpu>>,
    /// Why discovery failed, where dcgmi said so.
    pub discovery_fault: Option<Fault>,
    /// `dcgmi dmon`.
    pub dmon: Known<Dmon>,
    /// `dcgmi health -c`, after the watches were set.
    pub health: Known<HealthReport>,
    /// `dcgmi nvlink -s`.
    pub nvlink: Known<BTreeMap<u32, Known<Links>>>,
    /// `nvidia-smi --query-gpu`.
    pub smi: Known<SmiGpus>,
    /// `nvidia-smi --query-remapped-rows`.
    pub rows: Known<SmiGpus>,
    /// `nvidia-smi --query-gpu` of the fabric; unsupported where the driver does not know the fields.
    pub fabric: Known<SmiGpus>,
    /// `nvidia-smi --query-compute-apps`.
    pub apps: Known<Vec<App>>,
    /// Whether the exporter answers.
    pub exporter_up: Known<bool>,
    /// Whether a diagnostic runs.
    pub diag_running: Known<bool>,
}

impl Readings {
    /// Builds readings of which none was made.
    pub fn none(cause: Cause, detail: &str) -> Self {
        fn u<T>(cause: Cause, detail: &str) -> Known<T> {
            Known::unknown(cause, detail)
        }
        Self {
            version: u(cause, detail),
            discovery: u(cause, detail),
            discovery_fault: None,
            dmon: u(cause, detail),
            health: u(cause, detail),
            nvlink: u(cause, detail),
            smi: u(cause, detail),
            rows: u(cause, detail),
            fabric: u(cause, detail),
            apps: u(cause, detail),
            exporter_up: u(cause, detail),
            diag_running: u(cause, detail),
        }
    }
}

/// Puts the readings together.
pub fn assemble_node_gpus(r: &Readings) -> NodeGpus {
    let dcgm_up = match (&r.discovery, r.discovery_fault) {
        (Known::Known(_), _) => Known::Known(true),
        (Known::Unknown(_), Some(Fault::NoConnection)) => Known::Known(false),
        (Known::Unknown(_), Some(f)) if f.engine_answered() => Known::Known(true),
        (Known::Unknown(u), _) => Known::Unknown(u.clone()),
    };
    let mut out = NodeGpus {
        gpus: gpus(r),
        driver_version: r.smi.as_ref().and_then(|s| s.driver_version.clone()),
        // With the engine down, -v may print the version of an engine inside dcgmi.
        dcgm_version: if dcgm_up.is_known_and(|up| *up) {
            r.version.as_ref().and_then(|v| v.engine.clone())
        } else {
            Known::unknown(Cause::ReadFailed, "nv-hostengine does not answer, so its version is not known")
        },
        driver_attached: attached(r),
        dcgm_up,
        health: Known::unknown(Cause::NotObserved, ""),
        exporter_up: r.exporter_up.clone(),
        diag_running: r.diag_running.clone(),
    };
    out.health = believable_health(r, &out);
    out
}

fn attached(r: &Readings) -> Known<bool> {
    match &r.discovery {
        Known::Known(list) if !list.is_empty() => Known::Known(true),
        Known::Known(_) => Known::unknown(
            Cause::Conflicting,
            "DCGM finds no GPU: no driver, no GPU, or it has let go of them",
        ),
        Known::Unknown(_) if r.discovery_fault == Some(Fault::Detached) => Known::Known(false),
        Known::Unknown(u) => Known::Unknown(u.clone()),
    }
}

/// Takes a "Healthy" back that proves nothing: no driver, detached, a GPU missing, lost or unreadable.
fn believable_health(r: &Readings, node: &NodeGpus) -> Known<HealthReport> {
    let Known::Known(report) = &r.health else { return r.health.clone() };
    if report.overall > Health::Pass {
        // Bad news needs no proof.
        return r.health.clone();
    }
    let doubt = |why: String| Known::unknown(Cause::Conflicting, format!("health says Healthy, but {why}"));
    let Known::Known(found) = &r.discovery else {
        return doubt("which GPUs DCGM sees is not known".to_owned());
    };
    if !node.driver_attached.is_known_and(|a| *a) {
        return doubt("DCGM is not attached to a driver".to_owned());
    }
    if let Known::Known(smi) = &r.smi
        && smi.gpus.len() != found.len()
    {
        return doubt(format!("DCGM sees {} GPUs and nvidia-smi {}", found.len(), smi.gpus.len()));
    }
    for g in &node.gpus {
        match &g.answers {
            Known::Known(true) => {}
            Known::Known(false) => return doubt(format!("GPU {} does not answer", g.index)),
            Known::Unknown(u) => return doubt(format!("whether GPU {} answers is {u}", g.index)),
        }
    }
    r.health.clone()
}

fn gpus(r: &Readings) -> Vec<Gpu> {
    let mut out: Vec<Gpu> = Vec::new();
    let by_id: BTreeMap<u32, Gpu> = match &r.dmon {
        Known::Known(d) => d.gpus().into_iter().map(|g| (g.index, g)).collect(),
        Known::Unknown(_) => BTreeMap::new(),
    };
    if let Known::Known(found) = &r.discovery {
        for d in found {
            let mut g = by_id.get(&d.id).cloned().unwrap_or_else(|| match &r.dmon {
                Known::Known(_) => Gpu::unseen(d.id, Cause::EmptyAnswer, "dcgmi dmon has no row for it"),
                Known::Unknown(u) => Gpu::unseen(d.id, u.cause, &u.detail),
            });
            g.uuid = d.uuid.clone();
            g.bus_id = d.bus_id.clone();
            g.model = d.name.clone();
            links(&mut g, &r.nvlink);
            out.push(g);
        }
    }
    let smi_of = |known: &Known<SmiGpus>, g: &Gpu| -> Known<Gpu> {
        match known {
            Known::Known(list) => match matching(&list.gpus, g) {
                Ok(Some(m)) => Known::Known(m.clone()),
                Ok(None) => Known::unknown(Cause::Conflicting, "nvidia-smi does not list this GPU"),
                Err(why) => Known::unknown(Cause::Conflicting, why),
            },
            Known::Unknown(u) => Known::Unknown(u.clone()),
        }
    };
    // GPUs that only nvidia-smi sees; with no discovery at all, these are the list.
    let mut unseen_by_dcgm = Vec::new();
    if let Known::Known(smi) = &r.smi {
        for s in &smi.gpus {
            if !out.iter().any(|g| same(g, s)) {
                let mut g = s.clone();
                if r.discovery.is_known() {
                    g.answers =
                        Known::unknown(Cause::Conflicting, "nvidia-smi lists this GPU and DCGM does not");
                }
                unseen_by_dcgm.push(g);
            }
        }
    }
    for g in &mut out {
        match smi_of(&r.smi, g) {
            Known::Known(s) => merge(g, &s),
            Known::Unknown(u) if u.cause == Cause::Conflicting && g.answers.is_known_and(|a| *a) => {
                g.answers = Known::Unknown(u);
            }
            Known::Unknown(_) => {}
        }
    }
    out.extend(unseen_by_dcgm);
    for g in &mut out {
        if let Known::Known(s) = smi_of(&r.rows, g) {
            merge(g, &s);
        }
        g.fabric = match (&r.fabric, smi_of(&r.fabric, g)) {
            // "Field ... is not a valid field": the driver says that it knows of no fabric.
            (Known::Unknown(u), _) if u.cause == Cause::Unsupported => {
                Known::Known(FabricState::NotSupported)
            }
            (_, f) => f.and_then(|f| f.fabric),
        };
        g.processes = match (&r.apps, &g.uuid) {
            (Known::Unknown(u), _) | (_, Known::Unknown(u)) => Known::Unknown(u.clone()),
            (Known::Known(apps), Known::Known(uuid)) => {
                Known::Known(apps.iter().filter(|a| a.gpu_uuid == *uuid).map(|a| a.process.clone()).collect())
            }
        };
    }
    // A process on a GPU that nobody lists: no list of processes is complete then.
    if let Known::Known(apps) = &r.apps {
        let known: BTreeSet<&String> = out.iter().filter_map(|g| g.uuid.known()).collect();
        if let Some(stray) = apps.iter().find(|a| !known.contains(&a.gpu_uuid)) {
            let why =
                format!("process {} is on GPU {}, which is not listed", stray.process.pid, stray.gpu_uuid);
            for g in &mut out {
                g.processes = Known::unknown(Cause::Conflicting, why.clone());
            }
        }
    }
    for g in &mut out {
        if g.answers.is_known_and(|a| !a) {
            let processes = g.processes.clone();
            super::dmon::forget(g);
            g.processes = processes;
        }
    }
    duplicates(&mut out);
    out
}

/// Two entries under one UUID or bus id are nobody's.
fn duplicates(gpus: &mut [Gpu]) {
    for i in 0..gpus.len() {
        let twin = gpus.iter().enumerate().any(|(j, other)| j != i && same(&gpus[i], other));
        if twin {
            gpus[i].answers = Known::unknown(Cause::Conflicting, "two GPUs under one UUID or bus id");
        }
    }
}

fn links(g: &mut Gpu, nvlink: &Known<BTreeMap<u32, Known<Links>>>) {
    let own = nvlink.as_ref().and_then(|map| match map.get(&g.index) {
        Some(l) => l.clone(),
        None => Known::unknown(Cause::EmptyAnswer, "dcgmi nvlink does not list it"),
    });
    g.nvlinks_down = own.clone().map(|l| l.down);
    g.nvlinks_up = own.map(|l| l.up);
}

fn same(a: &Gpu, b: &Gpu) -> bool {
    let eq =
        |x: &Known<String>, y: &Known<String>| matches!((x, y), (Known::Known(x), Known::Known(y)) if x == y);
    eq(&a.uuid, &b.uuid) || eq(&a.bus_id, &b.bus_id)
}

/// Finds the entry of the same device; UUID and bus id must not point to different ones.
fn matching<'a>(list: &'a [Gpu], g: &Gpu) -> Result<Option<&'a Gpu>, String> {
    let mut hits = list.iter().filter(|s| same(s, g));
    let hit = hits.next();
    if hits.next().is_some() {
        return Err("nvidia-smi lists the UUID and the bus id of this GPU as two devices".to_owned());
    }
    Ok(hit)
}

/// Takes over what the second source knows; a contradiction about something stable is unknown.
fn merge(into: &mut Gpu, from: &Gpu) {
    stable("uuid", &mut into.uuid, &from.uuid);
    stable("bus id", &mut into.bus_id, &from.bus_id);
    stable("serial", &mut into.serial, &from.serial);
    // The tools may name one model differently; the name decides nothing by itself.
    first(&mut into.model, &from.model);
    stable("persistence mode", &mut into.persistence_mode, &from.persistence_mode);
    stable("MIG mode", &mut into.mig_enabled, &from.mig_enabled);
    stable("uncorrectable errors", &mut into.ecc_dbe_volatile, &from.ecc_dbe_volatile);
    stable("row remap pending", &mut into.row_remap_pending, &from.row_remap_pending);
    stable("row remap failure", &mut into.row_remap_failure, &from.row_remap_failure);
    stable("remapped rows", &mut into.rows_remapped_uncorrectable, &from.rows_remapped_uncorrectable);
    // These move by themselves, or the tools count them differently: the first source stands.
    first(&mut into.rows_remapped_correctable, &from.rows_remapped_correctable);
    first(&mut into.ecc_sbe_volatile, &from.ecc_sbe_volatile);
    first(&mut into.ecc_dbe_aggregate, &from.ecc_dbe_aggregate);
    first(&mut into.recovery_action, &from.recovery_action);
    first(&mut into.temperature_c, &from.temperature_c);
    first(&mut into.memory_temperature_c, &from.memory_temperature_c);
    first(&mut into.power_w, &from.power_w);
    first(&mut into.sm_clock_mhz, &from.sm_clock_mhz);
    first(&mut into.memory_clock_mhz, &from.memory_clock_mhz);
    first(&mut into.utilization_percent, &from.utilization_percent);
    // One "lost" is enough.
    match (&into.answers, &from.answers) {
        (Known::Known(true), Known::Known(false)) => into.answers = Known::Known(false),
        (Known::Unknown(u), Known::Known(_)) if u.cause != Cause::Conflicting => {
            into.answers = from.answers.clone();
        }
        _ => {}
    }
}

fn first<T: Clone>(into: &mut Known<T>, from: &Known<T>) {
    if !into.is_known() && from.is_known() {
        *into = from.clone();
    }
}

fn stable<T: Clone + PartialEq + std::fmt::Debug>(what: &str, into: &mut Known<T>, from: &Known<T>) {
    match (&*into, from) {
        (Known::Known(a), Known::Known(b)) if a != b => {
            *into = Known::unknown(Cause::Conflicting, format!("{what}: DCGM says {a:?}, nvidia-smi {b:?}"));
        }
        (Known::Unknown(u), Known::Known(_)) if u.cause != Cause::Conflicting => *into = from.clone(),
        _ => {}
    }
}
