//! dcgm-exporter's metrics as facts about GPUs.
//!
//! Traps: the same series comes once per HPC job, so series are one per GPU and must agree; the XID gauge
//! is sticky and, from 4.8 on, absent until the first XID; health 0 is a false green before 4.8.2, so only
//! bad news of it is believed; MIG instances have series of their own; the label with the node's name
//! changes and lies, so the node is the scrape target's, not the text's.

use super::discovery::{bus_id, uuid};
use super::dmon::forget;
use super::fields::{FIELDS, Reading, by_metric};
use super::prometheus::{Exposition, Sample, parse as parse_text};
use super::text::{decode, one_line, version};
use engine_core::model::gpu::{Health, HealthIncident, HealthReport};
use engine_core::model::{Gpu, NodeGpus};
use engine_core::{Cause, Known};
use std::collections::{BTreeMap, BTreeSet};

const XID: [&str; 2] = ["DCGM_FI_DEV_XID_ERROR", "DCGM_FI_DEV_XID_ERRORS"];
const XID_COUNT: &str = "DCGM_EXP_XID_ERRORS_COUNT";
const HEALTH: &str = "DCGM_EXP_GPU_HEALTH_STATUS";

/// Says whether the text is of dcgm-exporter.
pub fn is_exporter(text: &str) -> bool {
    let ours =
        |l: &str| l.starts_with("DCGM_FI_") || l.starts_with("DCGM_EXP_") || l.starts_with("# HELP DCGM_");
    text.lines().take(200).any(ours)
}

/// Reads a scrape of one node.
pub fn parse(bytes: &[u8]) -> Known<NodeGpus> {
    match parse_text(&decode(bytes)) {
        Ok(e) => node(&e),
        Err(e) => Known::unknown(Cause::Unparsable, e.to_string()),
    }
}

fn node(e: &Exposition) -> Known<NodeGpus> {
    let ids = gpu_ids(e);
    let Known::Known(ids) = ids else { return ids.map(|_| NodeGpus::unseen(Cause::Unparsable, "")) };
    if ids.is_empty() {
        return Known::unknown(Cause::EmptyAnswer, "no series of any GPU");
    }
    let why = "dcgm-exporter does not tell";
    let mut out = NodeGpus::unseen(Cause::NotObserved, why);
    out.gpus = ids.iter().map(|id| gpu(e, *id)).collect();
    out.exporter_up = Known::Known(true);
    out.driver_version = one_of(e.samples.iter(), "DCGM_FI_DRIVER_VERSION").and_then(|v| version(&v));
    out.health = health(e);
    Known::Known(out)
}

fn gpu_ids(e: &Exposition) -> Known<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for s in e.samples.iter().filter(|s| s.name.starts_with("DCGM_")) {
        // Series of CPUs, switches and links have no such label.
        let Some(text) = s.label("gpu") else { continue };
        match text.parse() {
            Ok(id) => {
                ids.insert(id);
            }
            Err(_) => {
                return Known::unknown(
                    Cause::Unparsable,
                    format!("line {}: not a GPU id: {:?}", s.line, one_line(text)),
                );
            }
        }
    }
    Known::Known(ids)
}

/// Series of a MIG instance carry its id; they must not stand for the whole GPU.
fn is_instance(s: &Sample) -> bool {
    s.labels.keys().any(|k| k.eq_ignore_ascii_case("GPU_I_ID"))
}

/// Returns a label that all series must agree on.
fn one_of<'a>(samples: impl Iterator<Item = &'a Sample>, label: &str) -> Known<String> {
    let values: BTreeSet<&str> = samples.filter_map(|s| s.label(label)).filter(|v| !v.is_empty()).collect();
    let mut values = values.into_iter();
    match (values.next(), values.next()) {
        (None, _) => Known::unknown(Cause::NotReported, format!("no label {label}")),
        (Some(v), None) => Known::Known(v.to_owned()),
        (Some(a), Some(b)) => Known::unknown(
            Cause::Conflicting,
            format!("label {label} is {:?} and {:?}", one_line(a), one_line(b)),
        ),
    }
}

fn gpu(e: &Exposition, id: u32) -> Gpu {
    let text_id = id.to_string();
    let of_gpu: Vec<&Sample> = e.samples.iter().filter(|s| s.label("gpu") == Some(&text_id)).collect();
    let whole: Vec<&Sample> = of_gpu.iter().copied().filter(|s| !is_instance(s)).collect();
    let mut gpu = Gpu::unseen(id, Cause::NotReported, "no such series");
    gpu.uuid = one_of(whole.iter().copied(), "UUID").and_then(|v| uuid(&v));
    gpu.bus_id = one_of(whole.iter().copied(), "pci_bus_id").and_then(|v| bus_id(&v));
    gpu.model = one_of(whole.iter().copied(), "modelName").map(|v| one_line(&v));

    let mut vital = false;
    for field in FIELDS {
        let series: Vec<&Sample> =
            whole.iter().copied().filter(|s| by_metric(&s.name).is_some_and(|f| f.id == field.id)).collect();
        if let Some(value) = agreed(&series) {
            let value = match &value {
                Known::Known(text) => Reading::of(text),
                Known::Unknown(u) => Known::Unknown(u.clone()),
            };
            vital |= field.vital && value.is_known();
            (field.set)(&mut gpu, value);
        }
    }
    gpu.answers = if vital {
        Known::Known(true)
    } else {
        // The exporter leaves out what it cannot read; a series may also be missing from its list.
        Known::unknown(Cause::NotReported, "no series of temperature, power, clock or utilisation")
    };
    if of_gpu.len() > whole.len() {
        gpu.mig_enabled = Known::Known(true);
    }
    xids(e, &whole, &mut gpu);
    if gpu.uuid.is_known() && gpu.bus_id.is_known() {
        return gpu;
    }
    // Series of one id that name several devices cannot be told apart.
    let conflict = |k: &Known<String>| matches!(k, Known::Unknown(u) if u.cause == Cause::Conflicting);
    if conflict(&gpu.uuid) || conflict(&gpu.bus_id) {
        let answers = gpu.answers.clone();
        forget(&mut gpu);
        gpu.answers = answers.and_then(|_| Known::unknown(Cause::Conflicting, "one id, several devices"));
        gpu.last_xid = Known::unknown(Cause::Conflicting, "one id, several devices");
        gpu.recent_xids = Known::unknown(Cause::Conflicting, "one id, several devices");
    }
    gpu
}

/// Returns the value on which all series agree; they differ only in labels such as `hpc_job`.
fn agreed(series: &[&Sample]) -> Option<Known<String>> {
    let first = series.first()?;
    let same = |s: &&Sample| {
        s.value == first.value || s.value.parse::<f64>().ok() == first.value.parse::<f64>().ok()
    };
    Some(match series.iter().find(|s| !same(s)) {
        None => Known::Known(first.value.clone()),
        Some(other) => Known::unknown(
            Cause::Conflicting,
            format!(
                "{} is {} in line {} and {} in line {}",
                first.name, first.value, first.line, other.value, other.line
            ),
        ),
    })
}

fn xids(e: &Exposition, whole: &[&Sample], gpu: &mut Gpu) {
    let gauge: Vec<&&Sample> = whole.iter().filter(|s| XID.contains(&s.name.as_str())).collect();
    let counts: Vec<&&Sample> = whole.iter().filter(|s| s.name == XID_COUNT).collect();
    if let Some(odd) =
        gauge.iter().find(|s| s.label("err_code").is_some_and(|c| Some(c) != as_code(&s.value).as_deref()))
    {
        let (code, value) = (odd.label("err_code").unwrap_or_default(), &odd.value);
        gpu.last_xid =
            Known::unknown(Cause::Conflicting, format!("XID {value} with err_code {:?}", one_line(code)));
    } else if gauge.is_empty() {
        // From 4.8 on the series comes with the first XID. That it is exported at all must be seen elsewhere
        // in the text; and the GPU's other series must be there, else the whole GPU is just missing.
        let exported = e.samples.iter().any(|s| XID.contains(&s.name.as_str()))
            || XID.iter().any(|n| e.declared.contains(*n))
            || !counts.is_empty();
        gpu.last_xid = match (exported, gpu.answers.is_known_and(|a| *a)) {
            (true, true) => Known::Known(0),
            (false, _) => Known::unknown(Cause::NotReported, "no XID series: none yet, or not exported"),
            (true, false) => Known::unknown(Cause::NotReported, "no XID series and no other reading"),
        };
    }
    if counts.is_empty() {
        return;
    }
    let mut recent: BTreeMap<u32, u64> = BTreeMap::new();
    for s in counts {
        let count = s.value.parse::<f64>().ok().filter(|v| *v >= 0.0 && v.fract() == 0.0).map(|v| v as u64);
        let code = s.label("xid").map(str::parse::<u32>);
        match (code, count) {
            (None, Some(0)) => {}
            (Some(Ok(code)), Some(n)) => match recent.insert(code, n) {
                Some(before) if before != n => {
                    gpu.recent_xids =
                        Known::unknown(Cause::Conflicting, format!("XID {code} counts {before} and {n}"));
                    return;
                }
                _ => {}
            },
            _ => {
                gpu.recent_xids = Known::unknown(Cause::Unparsable, format!("line {}: XID count", s.line));
                return;
            }
        }
    }
    recent.retain(|_, n| *n > 0);
    gpu.recent_xids = Known::Known(recent);
}

fn as_code(value: &str) -> Option<String> {
    let v = value.parse::<f64>().ok().filter(|v| v.fract() == 0.0 && *v >= 0.0 && *v < 1e9)?;
    Some((v as u64).to_string())
}

/// Reads the health series: bad news is news, good news is not believed.
fn health(e: &Exposition) -> Known<HealthReport> {
    let mut seen = BTreeSet::new();
    let mut incidents = Vec::new();
    for s in e.samples.iter().filter(|s| s.name == HEALTH) {
        let value = s.value.parse::<f64>().unwrap_or(f64::NAN);
        let health = match value {
            0.0 => continue,
            10.0 => Health::Warn,
            20.0 => Health::Fail,
            _ => {
                return Known::unknown(
                    Cause::UnrecognisedWord,
                    format!("line {}: health status {}", s.line, one_line(&s.value)),
                );
            }
        };
        let gpu = s.label("gpu").and_then(|g| g.parse().ok());
        let system = one_line(s.label("health_watch").unwrap_or("?"));
        let text = one_line(s.label("health_error_code").unwrap_or_default());
        if seen.insert((gpu, system.clone(), text.clone())) {
            incidents.push(HealthIncident { gpu, system, health, text });
        }
    }
    match incidents.iter().map(|i| i.health).max() {
        Some(overall) => Known::Known(HealthReport { overall, incidents }),
        None => Known::unknown(
            Cause::NotObserved,
            "dcgm-exporter is no proof of health: it may show 0 whatever the GPU does",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const L: &str = "gpu=\"0\",UUID=\"GPU-0123abcd\",pci_bus_id=\"00000000:1B:00.0\",modelName=\"M\"";

    fn one(lines: &[String]) -> NodeGpus {
        parse((lines.join("\n") + "\n").as_bytes()).into_known().unwrap()
    }

    #[test]
    fn series_of_two_jobs_must_agree() {
        let temp = |job: u32, v: u32| format!("DCGM_FI_DEV_GPU_TEMP{{{L},hpc_job=\"{job}\"}} {v}");
        assert_eq!(one(&[temp(1, 40), temp(2, 40)]).gpus[0].temperature_c, Known::Known(40.0));
        let Known::Unknown(u) = &one(&[temp(1, 40), temp(2, 41)]).gpus[0].temperature_c else { panic!() };
        assert_eq!(u.cause, Cause::Conflicting);
    }

    #[test]
    fn no_xid_needs_proof_that_xids_are_exported() {
        let temp = format!("DCGM_FI_DEV_GPU_TEMP{{{L}}} 40");
        assert!(!one(std::slice::from_ref(&temp)).gpus[0].last_xid.is_known());
        let help = "# HELP DCGM_FI_DEV_XID_ERRORS x".to_owned();
        assert_eq!(one(&[help.clone(), temp.clone()]).gpus[0].last_xid, Known::Known(0));
        let count = format!("DCGM_EXP_XID_ERRORS_COUNT{{{L},window_size_in_ms=\"300000\"}} 0");
        let g = one(&[temp, count.clone()]).gpus.remove(0);
        assert_eq!((g.last_xid, g.recent_xids), (Known::Known(0), Known::Known(BTreeMap::new())));
        assert!(!one(&[help, count]).gpus[0].last_xid.is_known());
    }

    #[test]
    fn a_mig_instance_does_not_stand_for_the_gpu() {
        let whole = format!("DCGM_FI_DEV_GPU_TEMP{{{L}}} 40");
        let part = format!("DCGM_FI_DEV_GPU_TEMP{{{L},GPU_I_PROFILE=\"1g.10gb\",GPU_I_ID=\"7\"}} 99");
        let g = one(&[part, whole]).gpus.remove(0);
        assert_eq!((g.temperature_c, g.mig_enabled), (Known::Known(40.0), Known::Known(true)));
    }

    #[test]
    fn one_id_of_two_devices_is_nobodys() {
        let other = "gpu=\"0\",UUID=\"GPU-ffffffff\",pci_bus_id=\"00000000:1B:00.0\"";
        let lines =
            [format!("DCGM_FI_DEV_GPU_TEMP{{{L}}} 40"), format!("DCGM_FI_DEV_SM_CLOCK{{{other}}} 40")];
        let g = one(&lines).gpus.remove(0);
        assert!(
            !g.uuid.is_known()
                && !g.temperature_c.is_known()
                && !g.answers.is_known()
                && !g.last_xid.is_known()
        );
    }

    #[test]
    fn zero_health_proves_nothing_and_other_words_are_unknown() {
        let h = |v: u32| {
            format!("DCGM_EXP_GPU_HEALTH_STATUS{{{L},health_watch=\"MEM\",health_error_code=\"X\"}} {v}")
        };
        assert!(!one(&[h(0)]).health.is_known());
        assert_eq!(one(&[h(0), h(20)]).health.into_known().unwrap().overall, Health::Fail);
        assert!(!one(&[h(20), h(30)]).health.is_known());
    }
}
