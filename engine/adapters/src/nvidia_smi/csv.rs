//! `--query-gpu`, `--query-remapped-rows` and `--query-compute-apps` with `--format=csv`.
//!
//! The header is asked for: it names the columns and is itself the proof that an empty list is an answer.
//! Units in brackets are dropped from it; units behind values are read and checked.

use super::{cell, failed_read};
use crate::dcgm::discovery::{bus_id, uuid};
use crate::dcgm::text::{decode, missing, one_line, version};
use engine_core::model::{FabricState, Gpu, GpuProcess, RecoveryAction};
use engine_core::{Cause, Known, Unknown};
use serde::{Deserialize, Serialize};

/// Fields to ask `--query-gpu` for.
pub const GPU_FIELDS: &str = "index,uuid,pci.bus_id,serial,name,driver_version,persistence_mode,mig.mode.current,\
ecc.errors.corrected.volatile.total,ecc.errors.uncorrected.volatile.total,ecc.errors.uncorrected.aggregate.total,\
reset_status.reset_required,reset_status.drain_and_reset_recommended,temperature.gpu,power.draw,clocks.sm";
/// Fields of newer drivers, asked for on their own: a driver that lacks one refuses the whole query.
pub const FABRIC_FIELDS: &str = "uuid,fabric.state,fabric.status";
/// Fields to ask `--query-remapped-rows` for.
pub const ROW_FIELDS: &str = "gpu_uuid,remapped_rows.correctable,remapped_rows.uncorrectable,remapped_rows.pending,remapped_rows.failure";
/// Fields to ask `--query-compute-apps` for; the name last, it may hold commas.
pub const APP_FIELDS: &str = "gpu_uuid,pid,process_name";

/// A table: names of columns and rows of cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// A process and the GPU it is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// UUID of the GPU.
    pub gpu_uuid: String,
    /// The process.
    pub process: GpuProcess,
}

/// What `--query-gpu` and `--query-remapped-rows` say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SmiGpus {
    /// Driver version, where it was asked for.
    pub driver_version: Known<String>,
    /// The GPUs, by nvidia-smi's index where it was asked for, else in their order.
    pub gpus: Vec<Gpu>,
}

/// Says whether the text is a table of GPUs.
pub fn is_gpus(text: &str) -> bool {
    let header = text.lines().next().unwrap_or_default();
    let has = |n: &str| header.split(',').any(|c| strip_unit(c) == n);
    (has("uuid") || has("gpu_uuid") || has("index") || has("pci.bus_id") || has("gpu_bus_id"))
        && !is_apps(text)
}

/// Says whether the text is a table of processes.
pub fn is_apps(text: &str) -> bool {
    let header = text.lines().next().unwrap_or_default();
    header.split(',').any(|c| strip_unit(c) == "pid") && header.contains("gpu_uuid")
}

fn strip_unit(column: &str) -> &str {
    column.split('[').next().unwrap_or_default().trim()
}

/// Cuts the text; a row may have more cells than columns only if one column holds names.
pub(super) fn table(text: &str) -> Result<Table, Unknown> {
    if let Some(u) = failed_read(text.as_bytes()) {
        return Err(u);
    }
    let mut lines = text.lines().filter(|l| !l.trim().is_empty());
    let header = lines.next().ok_or_else(|| missing(text, "table"))?;
    let columns: Vec<String> = header.split(',').map(|c| strip_unit(c).to_owned()).collect();
    let word =
        |c: &String| !c.is_empty() && c.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_');
    if !columns.iter().all(word) || columns.iter().any(|c| c.bytes().all(|b| b.is_ascii_digit())) {
        return Err(missing(text, "header with names of columns"));
    }
    if !text.ends_with('\n') {
        return Err(Unknown::new(Cause::Unparsable, "the table is cut off"));
    }
    let free = columns.iter().position(|c| c == "process_name" || c == "name" || c == "gpu_name");
    let mut rows = Vec::new();
    for line in lines {
        let mut cells: Vec<String> = line.split(", ").map(|c| c.trim().to_owned()).collect();
        if let Some(at) = free.filter(|_| cells.len() > columns.len()) {
            let extra = cells.len() - columns.len();
            let joined = cells[at..=at + extra].join(", ");
            cells.splice(at..=at + extra, [joined]);
        }
        if cells.len() != columns.len() {
            return Err(Unknown::new(
                Cause::Unparsable,
                format!("{} cells under {} columns: {:?}", cells.len(), columns.len(), one_line(line)),
            ));
        }
        rows.push(cells);
    }
    Ok(Table { columns, rows })
}

/// Reads a table of processes.
pub fn parse_apps(bytes: &[u8]) -> Known<Vec<App>> {
    match apps(&decode(bytes)) {
        Ok(a) => Known::Known(a),
        Err(u) => Known::Unknown(u),
    }
}

fn apps(text: &str) -> Result<Vec<App>, Unknown> {
    let t = table(text)?;
    let column = |n: &str| {
        let at = t.columns.iter().position(|c| c == n);
        at.ok_or_else(|| Unknown::new(Cause::Unparsable, format!("no column {n} in the table of processes")))
    };
    let (gpu, pid, name) = (column("gpu_uuid")?, column("pid")?, column("process_name")?);
    let mut out = Vec::new();
    for row in &t.rows {
        let gpu_uuid = match uuid(&row[gpu]) {
            Known::Known(u) => u,
            Known::Unknown(u) => return Err(u),
        };
        let pid = row[pid].parse().map_err(|_| {
            Unknown::new(Cause::Unparsable, format!("not a process id: {:?}", one_line(&row[pid])))
        })?;
        out.push(App { gpu_uuid, process: GpuProcess { pid, name: one_line(&row[name]) } });
    }
    Ok(out)
}

/// Reads a table of GPUs or of remapped rows.
pub fn parse_gpus(bytes: &[u8]) -> Known<SmiGpus> {
    match gpus(&decode(bytes)) {
        Ok(g) => Known::Known(g),
        Err(u) => Known::Unknown(u),
    }
}

fn gpus(text: &str) -> Result<SmiGpus, Unknown> {
    let t = table(text)?;
    let mut out: Vec<Gpu> = Vec::new();
    let mut driver: Option<Known<String>> = None;
    for (n, row) in t.rows.iter().enumerate() {
        let index = match t.columns.iter().position(|c| c == "index") {
            None => u32::try_from(n).unwrap_or(u32::MAX),
            Some(at) => row[at].parse().map_err(|_| {
                Unknown::new(Cause::Unparsable, format!("not an index: {:?}", one_line(&row[at])))
            })?,
        };
        let mut gpu = Gpu::unseen(index, Cause::NotObserved, "not asked for");
        for (column, text) in t.columns.iter().zip(row) {
            if column == "driver_version" {
                let v = cell(text).and_then(version);
                driver = Some(match driver {
                    Some(before) if before != v => {
                        Known::unknown(Cause::Conflicting, "GPUs name different drivers")
                    }
                    _ => v,
                });
            } else {
                set(&mut gpu, column, text);
            }
        }
        settle(&mut gpu, &t, row);
        if out.iter().any(|g| g.index == gpu.index || (g.uuid.is_known() && g.uuid == gpu.uuid)) {
            return Err(Unknown::new(Cause::Conflicting, format!("GPU {index} is listed twice")));
        }
        out.push(gpu);
    }
    let none = || Known::unknown(Cause::NotObserved, "not asked for");
    Ok(SmiGpus { driver_version: driver.unwrap_or_else(none), gpus: out })
}

/// Says whether the text is `nvidia-smi -L`.
pub fn is_list(text: &str) -> bool {
    text.starts_with("GPU ") && text.lines().next().is_some_and(|l| l.contains("(UUID: GPU-"))
}

/// Reads `nvidia-smi -L`: index, model and UUID; a GPU with MIG devices below it has MIG on.
pub fn parse_list(bytes: &[u8]) -> Known<SmiGpus> {
    let text = decode(bytes);
    let bad = |l: &str| {
        Known::unknown(Cause::Unparsable, format!("not a line of a list of GPUs: {:?}", one_line(l)))
    };
    if let Some(u) = failed_read(bytes) {
        return Known::Unknown(u);
    }
    if !is_list(&text) {
        return Known::Unknown(missing(&text, "list of GPUs"));
    }
    let mut gpus: Vec<Gpu> = Vec::new();
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        if let Some(last) = gpus.last_mut().filter(|_| line.trim_start().starts_with("MIG ")) {
            last.mig_enabled = Known::Known(true);
            continue;
        }
        let parts = line.strip_prefix("GPU ").and_then(|r| r.split_once(": "));
        let Some((index, rest)) = parts else { return bad(line) };
        let Some((model, id)) =
            rest.rsplit_once(" (UUID: ").and_then(|(m, u)| Some((m, u.trim().strip_suffix(')')?)))
        else {
            return bad(line);
        };
        let Ok(index) = index.parse() else { return bad(line) };
        let mut gpu = Gpu::unseen(index, Cause::NotObserved, "not in the list");
        gpu.model = Known::Known(one_line(model));
        gpu.uuid = uuid(id);
        gpus.push(gpu);
    }
    Known::Known(SmiGpus { driver_version: Known::unknown(Cause::NotObserved, "not in the list"), gpus })
}

/// Puts one cell into its place; columns that are not known here are passed over.
fn set(gpu: &mut Gpu, column: &str, text: &str) {
    let value = cell(text);
    match column {
        "uuid" | "gpu_uuid" => gpu.uuid = value.and_then(uuid),
        "pci.bus_id" | "gpu_bus_id" => gpu.bus_id = value.and_then(bus_id),
        "serial" | "gpu_serial" => gpu.serial = value.map(one_line),
        "name" | "gpu_name" => gpu.model = value.map(one_line),
        "persistence_mode" => gpu.persistence_mode = value.and_then(switch),
        "mig.mode.current" => gpu.mig_enabled = mig(value),
        "ecc.errors.corrected.volatile.total" => gpu.ecc_sbe_volatile = value.and_then(count),
        "ecc.errors.uncorrected.volatile.total" => gpu.ecc_dbe_volatile = value.and_then(count),
        "ecc.errors.uncorrected.aggregate.total" => gpu.ecc_dbe_aggregate = value.and_then(count),
        "remapped_rows.correctable" => gpu.rows_remapped_correctable = value.and_then(count),
        "remapped_rows.uncorrectable" => gpu.rows_remapped_uncorrectable = value.and_then(count),
        "remapped_rows.pending" => gpu.row_remap_pending = value.and_then(switch),
        "remapped_rows.failure" => gpu.row_remap_failure = value.and_then(switch),
        "gpu_recovery_action" => gpu.recovery_action = value.and_then(recovery),
        "temperature.gpu" => gpu.temperature_c = value.and_then(|v| number(v, "C")),
        "temperature.memory" => gpu.memory_temperature_c = value.and_then(|v| number(v, "C")),
        "power.draw" => gpu.power_w = value.and_then(|v| number(v, "W")),
        "clocks.sm" | "clocks.current.sm" => gpu.sm_clock_mhz = value.and_then(|v| number(v, "MHz")),
        "clocks.mem" | "clocks.current.memory" => gpu.memory_clock_mhz = value.and_then(|v| number(v, "MHz")),
        "utilization.gpu" => gpu.utilization_percent = value.and_then(|v| number(v, "%")),
        _ => {}
    }
}

/// Sets what needs more than one cell: whether the GPU answers, the recovery action, the fabric.
fn settle(gpu: &mut Gpu, t: &Table, row: &[String]) {
    let get = |name: &str| t.columns.iter().position(|c| c == name).map(|at| row[at].as_str());
    let lost = row.iter().any(|c| c.contains("GPU is lost"));
    gpu.answers = if lost {
        Known::Known(false)
    } else if gpu.temperature_c.is_known() || gpu.power_w.is_known() || gpu.sm_clock_mhz.is_known() {
        Known::Known(true)
    } else {
        Known::unknown(Cause::NotObserved, "nothing was asked for that only an answering GPU has")
    };
    if let (Some(reset), Some(drain)) =
        (get("reset_status.reset_required"), get("reset_status.drain_and_reset_recommended"))
        && !gpu.recovery_action.is_known()
    {
        gpu.recovery_action = reset_status(cell(reset).and_then(switch), cell(drain).and_then(switch));
    }
    if let Some(state) = get("fabric.state") {
        gpu.fabric = fabric(state, get("fabric.status"));
    }
}

/// Makes a recovery action of the two flags that drivers up to 550 have instead of it.
pub(crate) fn reset_status(required: Known<bool>, drain: Known<bool>) -> Known<RecoveryAction> {
    match (required, drain) {
        (Known::Known(true), _) => Known::Known(RecoveryAction::Reset),
        (Known::Known(false), Known::Known(true)) => Known::Known(RecoveryAction::DrainAndReset),
        (Known::Known(false), Known::Known(false)) => Known::Known(RecoveryAction::None),
        (Known::Unknown(u), _) | (_, Known::Unknown(u)) => Known::Unknown(u),
    }
}

pub(crate) fn fabric(state: &str, status: Option<&str>) -> Known<FabricState> {
    match state.trim().trim_matches(['[', ']']) {
        "N/A" | "Not Supported" => Known::Known(FabricState::NotSupported),
        "Not Started" => Known::Known(FabricState::NotStarted),
        "In Progress" => Known::Known(FabricState::InProgress),
        "Completed" => match status.map(str::trim) {
            None | Some("Success") => Known::Known(FabricState::Completed),
            Some("N/A" | "[N/A]" | "") => {
                Known::unknown(Cause::NotReported, "fabric completed without a status")
            }
            Some(_) => Known::Known(FabricState::Failed),
        },
        other => Known::unknown(Cause::UnrecognisedWord, format!("fabric state {:?}", one_line(other))),
    }
}

pub(crate) fn recovery(word: &str) -> Known<RecoveryAction> {
    Known::Known(match word.trim() {
        "None" => RecoveryAction::None,
        "Reset" | "GPU Reset" => RecoveryAction::Reset,
        "Reboot" | "Node Reboot" => RecoveryAction::Reboot,
        "Drain P2P" => RecoveryAction::DrainP2p,
        "Drain and Reset" => RecoveryAction::DrainAndReset,
        other => {
            return Known::unknown(Cause::UnrecognisedWord, format!("recovery action {:?}", one_line(other)));
        }
    })
}

/// A GPU that has no MIG says N/A: that is off.
pub(crate) fn mig(value: Known<&str>) -> Known<bool> {
    match value {
        Known::Unknown(u) if matches!(u.cause, Cause::NotReported | Cause::Unsupported) => {
            Known::Known(false)
        }
        other => other.and_then(switch),
    }
}

pub(crate) fn switch(word: &str) -> Known<bool> {
    match word.trim() {
        "Yes" | "Enabled" | "1" | "Active" => Known::Known(true),
        "No" | "Disabled" | "0" | "Not Active" => Known::Known(false),
        other => {
            Known::unknown(Cause::UnrecognisedWord, format!("{:?} where yes or no was due", one_line(other)))
        }
    }
}

pub(crate) fn count(text: &str) -> Known<u64> {
    match text.trim().parse() {
        Ok(v) => Known::Known(v),
        Err(_) => Known::unknown(Cause::Unparsable, format!("not a count: {:?}", one_line(text))),
    }
}

/// Reads a number with or without its unit.
pub(crate) fn number(text: &str, unit: &str) -> Known<f64> {
    let t = text.trim();
    let bare = t.strip_suffix(unit).unwrap_or(t).trim();
    match bare.parse::<f64>() {
        Ok(v) if v.is_finite() => Known::Known(v),
        _ => Known::unknown(Cause::Unparsable, format!("not a number in {unit}: {:?}", one_line(t))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_says_what_is_what() {
        let text = "pid, gpu_uuid, process_name, used_gpu_memory [MiB]\n7, GPU-0123abcd, /usr/bin/x, --a=1, -b, 5 MiB\n";
        let a = parse_apps(text.as_bytes()).into_known().unwrap();
        assert_eq!((a[0].process.pid, a[0].process.name.as_str()), (7, "/usr/bin/x, --a=1, -b"));
        assert_eq!(parse_apps(b"gpu_uuid, pid, process_name\n"), Known::Known(Vec::new()));
    }

    #[test]
    fn an_answer_without_header_or_end_is_no_answer() {
        for text in ["", "0, GPU-0123abcd\n", "gpu_uuid, pid, process_name\nGPU-0123abcd, 7, x", "nonsense\n"]
        {
            assert!(!parse_apps(text.as_bytes()).is_known(), "{text}");
        }
        assert!(!parse_gpus(b"index, uuid\n0\n").is_known());
        assert!(!parse_gpus(b"index, uuid\n0, GPU-0123abcd\n0, GPU-1123abcd\n").is_known());
    }

    #[test]
    fn a_lost_gpu_and_bracketed_cells() {
        let text = "index, uuid, temperature.gpu, persistence_mode, mig.mode.current\n\
                    0, GPU-0123abcd, [GPU is lost], [Unknown Error], [N/A]\n";
        let g = parse_gpus(text.as_bytes()).into_known().unwrap().gpus.remove(0);
        assert_eq!((g.answers, g.mig_enabled), (Known::Known(false), Known::Known(false)));
        let Known::Unknown(u) = g.persistence_mode else { panic!() };
        assert_eq!(u.cause, Cause::ReadFailed);
    }

    #[test]
    fn a_list_names_its_gpus() {
        let text = "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-0123abcd)\n  MIG 1g.5gb Device 0: (UUID: MIG-77)\n\
                    GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-1123abcd)\n";
        let g = parse_list(text.as_bytes()).into_known().unwrap().gpus;
        assert_eq!((g.len(), &g[0].mig_enabled, g[1].index), (2, &Known::Known(true), 1));
        assert!(!parse_list(b"GPU 0: X (UUID: GPU-0123abcd)\nGPU 1: X (UUID\n").is_known());
    }

    #[test]
    fn flags_of_old_drivers_become_a_recovery_action() {
        let yes = || Known::Known(true);
        let no = || Known::Known(false);
        assert_eq!(reset_status(yes(), no()), Known::Known(RecoveryAction::Reset));
        assert_eq!(reset_status(no(), yes()), Known::Known(RecoveryAction::DrainAndReset));
        assert_eq!(reset_status(no(), no()), Known::Known(RecoveryAction::None));
        assert!(!reset_status(no(), Known::unknown(Cause::NotReported, "")).is_known());
    }
}
