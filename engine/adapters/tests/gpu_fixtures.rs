//! Every captured output of dcgmi, dcgm-exporter and nvidia-smi, read as `slurmedic read` reads it, against
//! one table of expected facts. A file without a line in the table fails, and so does a line without a file.

#![expect(clippy::unwrap_used, reason = "a test says what it finds by failing")]

use engine_adapters::dcgm::recognise::{Content, recognise};
use engine_core::model::gpu::{HealthIncident, HealthReport};
use engine_core::model::{Gpu, NodeGpus};
use engine_core::{Known, Unknown};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn files(under: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out);
        } else if !matches!(path.file_name().and_then(|n| n.to_str()), Some("PROVENANCE.md" | "index.tsv")) {
            out.push(path);
        }
    }
}

fn gpu(g: &Gpu) -> String {
    let mut s = format!("{}", g.index);
    let mut put = |name: &str, value: Option<String>| {
        if let Some(v) = value {
            let _ = write!(s, " {name}={v}");
        }
    };
    fn show<T: ToString>(k: &Known<T>) -> Option<String> {
        match k {
            Known::Known(v) => Some(v.to_string()),
            Known::Unknown(u) if u.cause == engine_core::Cause::Conflicting => Some("?!".to_owned()),
            Known::Unknown(_) => None,
        }
    }
    put("bus", show(&g.bus_id).map(|b| b[9..11].to_owned()));
    put("uuid", show(&g.uuid).map(|u| u[u.len() - 4..].to_owned()));
    put("answers", show(&g.answers));
    put("xid", show(&g.last_xid));
    put("xids", g.recent_xids.known().filter(|x| !x.is_empty()).map(|x| format!("{x:?}")));
    put("dbe", show(&g.ecc_dbe_volatile));
    put("agg", show(&g.ecc_dbe_aggregate));
    put("unc", show(&g.rows_remapped_uncorrectable));
    put("pend", show(&g.row_remap_pending));
    put("fail", show(&g.row_remap_failure));
    put("rec", g.recovery_action.known().map(|r| r.as_str().to_owned()));
    put("t", show(&g.temperature_c));
    put("w", show(&g.power_w));
    put("sm", show(&g.sm_clock_mhz));
    put("why", show(&g.clock_reasons).filter(|v| v != "1"));
    put("pm", show(&g.persistence_mode));
    put("mig", show(&g.mig_enabled));
    put("procs", g.processes.known().map(|p| p.len().to_string()));
    s
}

/// All GPUs; those that differ from the first only by their numbers of identity are left out of long lists.
fn gpus(list: &[Gpu]) -> String {
    list.iter().map(gpu).collect::<Vec<_>>().join("; ")
}

fn incidents(list: &[HealthIncident]) -> String {
    let one = |i: &HealthIncident| {
        let gpu = i.gpu.map_or("-".to_owned(), |g| g.to_string());
        let text: String = i.text.chars().take(48).collect();
        format!("[{gpu} {} {}: {text}]", i.system, i.health.as_str())
    };
    list.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn report(r: &HealthReport) -> String {
    format!("{} {}", r.overall.as_str(), incidents(&r.incidents)).trim_end().to_owned()
}

fn node(n: &NodeGpus) -> String {
    let health = n.health.known().map_or("unknown".to_owned(), report);
    format!("driver {} health {health} | {}", n.driver_version, gpus(&n.gpus))
}

fn unknown(u: &Unknown) -> String {
    let detail: String = u.detail.chars().take(90).collect();
    format!("unknown {}: {detail}", u.cause.as_str())
}

fn known<T>(k: &Known<T>, f: impl Fn(&T) -> String) -> String {
    match k {
        Known::Known(v) => f(v),
        Known::Unknown(u) => unknown(u),
    }
}

fn summary(bytes: &[u8]) -> String {
    let Some(r) = recognise(bytes) else { return "unrecognised".to_owned() };
    // What is recognised must also be printable as JSON.
    serde_json::to_string(&r).unwrap();
    let text = match &r.content {
        Content::Version(v) => {
            format!("{} / {}", known(&v.client, Clone::clone), known(&v.engine, Clone::clone))
        }
        Content::Discovery(d) => known(d, |d| {
            let one = |g: &engine_adapters::dcgm::discovery::DiscoveredGpu| {
                let id = |k: &Known<String>| known(k, Clone::clone);
                format!("{} {} {}", g.id, &id(&g.bus_id)[9..], &id(&g.uuid)[36..])
            };
            d.iter().map(one).collect::<Vec<_>>().join("; ")
        }),
        Content::Health(h) => known(h, report),
        Content::Watches(w) => known(w, |w| {
            let off: Vec<&str> = w.iter().filter(|(_, on)| !**on).map(|(n, _)| n.as_str()).collect();
            format!("{} watches, off: {}", w.len(), off.join(", "))
        }),
        Content::WatchesSet(w) => known(w, ToString::to_string),
        Content::Diag(d) => known(d, |d| {
            format!(
                "{} {} pass {} skip, {} GPUs, version {}, driver {} {}",
                d.overall.as_str(),
                d.passed,
                d.skipped,
                d.gpus.len(),
                d.version,
                d.driver_version,
                incidents(&d.incidents)
            )
        }),
        Content::Values(v) => known(v, |v| gpus(v)),
        Content::Nvlinks(n) => known(n, |n| {
            let mut by: BTreeMap<String, Vec<u32>> = BTreeMap::new();
            for (id, l) in n {
                let word =
                    known(l, |l| format!("{} up {} down {} unsupported", l.up, l.down, l.not_supported));
                by.entry(word).or_default().push(*id);
            }
            format!("{by:?}")
        }),
        Content::Metrics(m) => known(m, node),
        Content::Gpus(g) => {
            known(g, |g| format!("driver {} | {}", known(&g.driver_version, Clone::clone), gpus(&g.gpus)))
        }
        Content::Processes(p) => known(p, |p| {
            let one = |a: &engine_adapters::nvidia_smi::csv::App| {
                format!("{} on {}", a.process.name, &a.gpu_uuid[36..])
            };
            p.iter().map(one).collect::<Vec<_>>().join("; ")
        }),
        Content::Reset(r) => r.describe(),
        Content::FailedRead { fault, reason } => match fault {
            Some(f) => format!("{} {}", serde_json::to_value(f).unwrap().as_str().unwrap(), unknown(reason)),
            None => unknown(reason),
        },
        Content::NoFacts(u) => u.detail.clone(),
    };
    format!("{} {} {text}", r.tool, r.content.kind()).trim_end().to_owned()
}

#[test]
fn every_fixture_reads_as_the_table_says() {
    let mut all = Vec::new();
    for tool in ["dcgm", "dcgm-exporter", "nvidia-smi"] {
        files(&root().join(tool), &mut all);
    }
    all.sort();
    assert!(all.len() > 200, "fixtures are missing: {}", all.len());
    let mut actual = String::new();
    for path in &all {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        let line = summary(&std::fs::read(path).unwrap());
        let _ = writeln!(actual, "{name}\t{line}");
    }
    let table = include_str!("gpu_fixtures.tsv");
    let wanted: BTreeMap<&str, &str> =
        table.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_once('\t')).collect();
    let found: BTreeMap<&str, &str> = actual.lines().filter_map(|l| l.split_once('\t')).collect();
    let mut wrong = String::new();
    for (name, line) in &found {
        match wanted.get(name) {
            None => {
                let _ = writeln!(wrong, "not in the table: {name}\t{line}");
            }
            Some(w) if w != line => {
                let _ = writeln!(wrong, "{name}\n  wanted {w}\n  found  {line}");
            }
            Some(_) => {}
        }
    }
    for name in wanted.keys().filter(|n| !found.contains_key(*n)) {
        let _ = writeln!(wrong, "in the table and not there: {name}");
    }
    assert!(wrong.is_empty(), "{wrong}");
}
