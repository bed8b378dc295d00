//! `dcgmi discovery -l`: which GPUs DCGM has, and what its ids stand for right now.

use super::text::{cells, decode, error_text, is_rule, missing, one_line};
use engine_core::model::gpu::normalize_bus_id;
use engine_core::{Cause, Known, Unknown};
use serde::{Deserialize, Serialize};

/// One GPU of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoveredGpu {
    /// DCGM's id.
    pub id: u32,
    /// Model name.
    pub name: Known<String>,
    /// PCI address in the long form.
    pub bus_id: Known<String>,
    /// UUID.
    pub uuid: Known<String>,
}

/// Says whether the output is of this command.
pub fn is_discovery(text: &str) -> bool {
    text.contains("GPUs found") || text.contains("GPU found")
}

/// Reads the list; a count that differs from the rows, or an error beside them, makes all of it unknown.
pub fn parse(bytes: &[u8]) -> Known<Vec<DiscoveredGpu>> {
    let text = decode(bytes);
    match read(&text) {
        Ok(gpus) => Known::Known(gpus),
        Err(u) => Known::Unknown(u),
    }
}

fn read(text: &str) -> Result<Vec<DiscoveredGpu>, Unknown> {
    let bad = |why: String| Unknown::new(Cause::Unparsable, why);
    let count_line = text
        .lines()
        .find(|l| l.contains(" GPUs found") || l.contains(" GPU found"))
        .ok_or_else(|| missing(text, "list of GPUs"))?;
    if let Some(e) = error_text(text) {
        return Err(Unknown::new(Cause::ReadFailed, e));
    }
    let count: usize = count_line
        .split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| bad(format!("no number of GPUs in {:?}", one_line(count_line))))?;

    let mut gpus: Vec<DiscoveredGpu> = Vec::new();
    let mut in_table = false;
    let mut ended = false;
    for line in text.lines() {
        let Some(row) = cells(line) else {
            // The tables of NVSwitches, CPUs and whatever comes next start with a line of their own.
            if in_table && !is_rule(line) {
                ended = true;
                break;
            }
            continue;
        };
        if row.first().is_some_and(|c| c.trim() == "GPU ID") {
            in_table = true;
            continue;
        }
        if !in_table {
            continue;
        }
        let [id, info] = row.as_slice() else {
            return Err(bad(format!("a row of {} cells: {:?}", row.len(), one_line(line))));
        };
        if !id.trim().is_empty() {
            let id = id.trim().parse().map_err(|_| bad(format!("not a GPU id: {:?}", one_line(id))))?;
            if gpus.iter().any(|g| g.id == id) {
                return Err(Unknown::new(Cause::Conflicting, format!("GPU {id} is listed twice")));
            }
            let none = || Known::unknown(Cause::EmptyAnswer, "not in the list");
            gpus.push(DiscoveredGpu { id, name: none(), bus_id: none(), uuid: none() });
        }
        let gpu = gpus.last_mut().ok_or_else(|| bad("a row before the first GPU".to_owned()))?;
        // Keys that are not known here are passed over.
        if let Some((key, value)) = info.split_once(':') {
            let value = value.trim();
            match key.trim() {
                "Name" => gpu.name = named(value),
                "PCI Bus ID" => gpu.bus_id = bus_id(value),
                "Device UUID" => gpu.uuid = uuid(value),
                _ => {}
            }
        }
    }
    if !in_table {
        return Err(bad("no table of GPUs".to_owned()));
    }
    if gpus.len() != count {
        return Err(bad(format!("{count} GPUs announced, {} listed", gpus.len())));
    }
    // The last table row ends with a rule; a text cut inside a GPU would show fewer keys, not fewer GPUs.
    if !ended && !text.ends_with('\n') {
        return Err(bad("the list is cut off".to_owned()));
    }
    Ok(gpus)
}

fn named(value: &str) -> Known<String> {
    if value.is_empty() || value == "N/A" || value == "Not Specified" {
        return Known::unknown(Cause::NotReported, format!("{value:?}"));
    }
    Known::Known(one_line(value))
}

/// Reads a UUID of a GPU: `GPU-` and hexadecimal groups.
pub(crate) fn uuid(value: &str) -> Known<String> {
    let ok = |rest: &str| rest.len() >= 8 && rest.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    match value.strip_prefix("GPU-") {
        Some(rest) if ok(rest) && value.len() <= 64 => Known::Known(value.to_owned()),
        _ => Known::unknown(Cause::Unparsable, format!("not a GPU UUID: {:?}", one_line(value))),
    }
}

/// Reads a PCI address.
pub(crate) fn bus_id(value: &str) -> Known<String> {
    match normalize_bus_id(value) {
        Some(b) => Known::Known(b),
        None => Known::unknown(Cause::Unparsable, format!("not a PCI address: {:?}", one_line(value))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "1 GPUs found.\n+--------+----+\n| GPU ID | Device Information |\n+--------+----+\n\
        | 7      | Name: A |\n|        | PCI Bus ID: 1B:00.0 |\n|        | Device UUID: GPU-0123abcd |\n+--------+----+\n";

    #[test]
    fn ids_are_dcgms_own() {
        let g = parse(ONE.as_bytes()).into_known().unwrap();
        assert_eq!((g.len(), g[0].id), (1, 7));
        assert_eq!(g[0].bus_id.known().map(String::as_str), Some("00000000:1B:00.0"));
    }

    #[test]
    fn a_list_that_contradicts_itself_is_unknown() {
        let two = ONE.replace("1 GPUs", "2 GPUs");
        let Known::Unknown(u) = parse(two.as_bytes()) else { panic!("count") };
        assert_eq!(u.cause, Cause::Unparsable);
        let error = format!("{ONE}Error: Cannot get devices from remote node. Return: x\n");
        let Known::Unknown(u) = parse(error.as_bytes()) else { panic!("error") };
        assert_eq!(u.cause, Cause::ReadFailed);
    }
}
