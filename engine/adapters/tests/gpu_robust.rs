//! The readers of GPU tools against arbitrary bytes, cut and damaged captures: no panic, and damage never
//! makes anything healthier than it was.
#![expect(clippy::unwrap_used, reason = "a test says what it finds by failing")]

use engine_adapters::dcgm::recognise::{Content, recognise};
use engine_adapters::dcgm::{diag, discovery, dmon, exporter, health, nvlink, version};
use engine_adapters::nvidia_smi::{csv, reset, xml};
use engine_adapters::process::Exit;
use engine_core::model::gpu::Health;
use engine_core::model::{Gpu, ResetOutcome};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

fn every_parser(bytes: &[u8]) {
    let _ = version::parse(bytes);
    let _ = discovery::parse(bytes);
    let _ = health::parse(bytes);
    let _ = health::parse_watches(bytes);
    let _ = health::parse_set(bytes);
    let _ = diag::parse(bytes);
    let _ = dmon::parse(bytes).map(|d| d.gpus());
    let _ = nvlink::parse(bytes);
    let _ = exporter::parse(bytes);
    let _ = csv::parse_gpus(bytes);
    let _ = csv::parse_apps(bytes);
    let _ = csv::parse_list(bytes);
    let _ = xml::parse(bytes);
    let _ = reset::outcome(Some(Exit::Code(255)), bytes, bytes);
    let _ = recognise(bytes).map(|r| serde_json::to_string(&r).unwrap());
}

fn fixtures() -> Vec<(PathBuf, Vec<u8>)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, out) } else { out.push(path) }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let mut paths = Vec::new();
    for tool in ["dcgm", "dcgm-exporter", "nvidia-smi"] {
        walk(&root.join(tool), &mut paths);
    }
    paths.sort();
    assert!(paths.len() > 200);
    paths.into_iter().map(|p| (p.clone(), std::fs::read(p).unwrap())).collect()
}

/// What of an output would let a node pass.
#[derive(Debug, Default, PartialEq)]
struct Green {
    health: bool,
    diag: bool,
    reset: bool,
    gpus: Vec<(u32, Vec<String>)>,
}

/// The facts of a GPU that a decision could rest on; an unknown one starts with a tilde.
fn facts(g: &Gpu) -> Vec<String> {
    let all = [
        format!("{:?}", g.answers),
        format!("{:?}", g.last_xid),
        format!("{:?}", g.ecc_dbe_volatile),
        format!("{:?}", g.row_remap_pending),
        format!("{:?}", g.row_remap_failure),
        format!("{:?}", g.recovery_action),
    ];
    all.into_iter().map(|f| if f.starts_with("Unknown") { format!("~{f}") } else { f }).collect()
}

fn green(bytes: &[u8]) -> Green {
    let mut green = Green::default();
    let Some(r) = recognise(bytes) else { return green };
    let gpus: Vec<Gpu> = match r.content {
        Content::Health(h) => {
            green.health = h.is_known_and(|h| h.overall == Health::Pass);
            return green;
        }
        Content::Diag(d) => {
            green.diag = d.is_known_and(|d| d.overall == Health::Pass);
            return green;
        }
        Content::Reset(o) => {
            green.reset = o == ResetOutcome::Done;
            return green;
        }
        Content::Values(v) => v.into_known().unwrap_or_default(),
        Content::Metrics(m) => m.into_known().map(|n| n.gpus).unwrap_or_default(),
        Content::Gpus(g) => g.into_known().map(|g| g.gpus).unwrap_or_default(),
        _ => return green,
    };
    green.gpus = gpus.iter().filter(|g| g.answers.is_known()).map(|g| (g.index, facts(g))).collect();
    green
}

/// Cutting an output short anywhere gives fewer facts or none; no fact of a GPU changes to another value.
#[test]
fn a_cut_output_is_never_healthier() {
    for (path, bytes) in fixtures() {
        let whole = green(&bytes);
        let step = (bytes.len() / 97).max(1);
        for cut in (0..bytes.len()).step_by(step).chain(bytes.len().saturating_sub(40)..bytes.len()) {
            let part = green(&bytes[..cut]);
            let name = path.display();
            assert!(part.health <= whole.health, "{name} cut at {cut}");
            assert!(part.diag <= whole.diag, "{name} cut at {cut}");
            assert!(part.reset <= whole.reset, "{name} cut at {cut}");
            for (id, f) in &part.gpus {
                let (_, w) =
                    whole.gpus.iter().find(|(i, _)| i == id).unwrap_or_else(|| panic!("{name}: GPU {id}"));
                for (part, whole) in f.iter().zip(w) {
                    // Cut between two lines, a scrape lacks series and nothing shows it: the XID series that is
                    // absent then reads as "none". Transports that know the length refuse such a body.
                    let xid_of_metrics = path.extension().is_some_and(|e| e == "prom") && *part == f[1];
                    assert!(
                        part == whole || part.starts_with('~') || xid_of_metrics,
                        "{name} cut at {cut}: {part}"
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        every_parser(&bytes);
    }

    #[test]
    fn words_of_the_tools_in_any_order_do_not_panic(words in proptest::collection::vec(prop_oneof![
        Just("{"), Just("}"), Just("\"body\""), Just(":"), Just("\"Overall Health\""), Just("\"value\""), Just("["), Just("]"),
        Just("#Entity"), Just("GPU 0"), Just("GPU"), Just("N/A"), Just("\n"), Just("  "), Just("| "), Just("-> 3"), Just("|"),
        Just("8 GPUs found."), Just("| GPU ID |"), Just("+---+"), Just("NvLink Link Status"), Just("GPUs:"), Just("gpuId 0:"),
        Just("<nvidia_smi_log>"), Just("<gpu id=\"0\">"), Just("</gpu>"), Just("<"), Just(">"), Just("&amp;"), Just("DCGM_FI_DEV_GPU_TEMP"),
        Just("{gpu=\"0\"}"), Just("1"), Just("é"), Just("uuid, pid"), Just(","), Just("Hostengine build info:"), Just("Version :"),
        Just("Health Monitor Report"), Just("was successfully reset"), Just("append the following device indexes and retry."),
    ], 0..60)) {
        every_parser(words.concat().as_bytes());
    }

    #[test]
    fn damaged_captures_do_not_panic(pick in any::<prop::sample::Index>(), edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        thread_local! {
            static ALL: Vec<(PathBuf, Vec<u8>)> = fixtures();
        }
        let mut bytes = ALL.with(|all| all[pick.index(all.len())].1.clone());
        if !bytes.is_empty() {
            for (at, b) in edits {
                let at = at.index(bytes.len());
                bytes[at] = b;
            }
        }
        every_parser(&bytes);
    }
}
