//! `--query-gpu` of clocks, before and after they are set back to their defaults.

use super::cell;
use super::csv::{number, table};
use crate::dcgm::discovery::{bus_id, uuid};
use crate::dcgm::text::{decode, missing, one_line};
use engine_core::{Cause, Known, Unknown};
use engine_runtime::ports::GpuClocks;

/// Fields that every driver knows.
pub const CLOCK_FIELDS: &str = "uuid,pci.bus_id,clocks.sm,clocks.max.sm";
/// The same with the application clocks, which some drivers refuse to be asked for.
pub const ALL_CLOCK_FIELDS: &str = "uuid,pci.bus_id,clocks.sm,clocks.max.sm,clocks.applications.graphics,clocks.default_applications.graphics";

/// Reads the one GPU of a table: its UUID, PCI address and clocks.
pub fn parse(bytes: &[u8]) -> Known<(String, String, GpuClocks)> {
    let read = || {
        let text = decode(bytes);
        let t = table(&text)?;
        let [row] = t.rows.as_slice() else {
            return Err(Unknown::new(
                Cause::Unparsable,
                format!("{} GPUs where one was asked for", t.rows.len()),
            ));
        };
        let find = |names: &[&str]| t.columns.iter().position(|c| names.contains(&c.as_str()));
        let id = |name: &str| find(&[name]).ok_or_else(|| missing(&text, name)).map(|at| row[at].as_str());
        let clock = |names: &[&str]| match find(names) {
            Some(at) => cell(&row[at]).and_then(|v| number(v, "MHz")).map(|mhz| mhz as u32),
            None => Known::unknown(Cause::NotReported, format!("no column {}", names[0])),
        };
        let known = |value: Known<String>| match value {
            Known::Known(v) => Ok(v),
            Known::Unknown(u) => Err(Unknown::new(u.cause, one_line(&u.detail))),
        };
        let clocks = GpuClocks {
            sm: clock(&["clocks.sm", "clocks.current.sm"]),
            sm_max: clock(&["clocks.max.sm"]),
            application: clock(&["clocks.applications.graphics"]),
            application_default: clock(&["clocks.default_applications.graphics"]),
        };
        Ok((known(uuid(id("uuid")?))?, known(bus_id(id("pci.bus_id")?))?, clocks))
    };
    match read() {
        Ok(found) => Known::Known(found),
        Err(u) => Known::Unknown(u),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "GPU-5f0c1c7a-0b1e-4f0e-9c55-0a3d1e5b1002, 00000000:52:00.0";

    #[test]
    fn clocks_with_and_without_application_clocks() {
        let head = "uuid, pci.bus_id, clocks.current.sm [MHz], clocks.max.sm [MHz]";
        let all = format!(
            "{head}, clocks.applications.graphics [MHz], clocks.default_applications.graphics [MHz]\n\
             {ID}, 345 MHz, 1980 MHz, [N/A], [Requested functionality has been deprecated]\n"
        );
        let (uuid, bus, c) = parse(all.as_bytes()).into_known().unwrap();
        assert_eq!(
            (uuid.as_str(), bus.as_str()),
            ("GPU-5f0c1c7a-0b1e-4f0e-9c55-0a3d1e5b1002", "00000000:52:00.0")
        );
        assert_eq!((&c.sm, &c.sm_max), (&Known::Known(345), &Known::Known(1980)));
        assert!(!c.application.is_known() && !c.application_default.is_known());
        let (_, _, c) = parse(format!("{head}\n{ID}, 345, 1980\n").as_bytes()).into_known().unwrap();
        assert_eq!(c.sm, Known::Known(345));
        assert!(!c.application.is_known());
    }

    #[test]
    fn anything_but_one_gpu_is_unknown() {
        let head = "uuid, pci.bus_id, clocks.sm, clocks.max.sm\n";
        for bad in [
            "",
            "No devices were found\n",
            head,
            &format!("{head}{ID}, 1, 2\n{ID}, 1, 2\n"),
            &format!("{head}x, y, 1, 2\n"),
        ] {
            assert!(!parse(bad.as_bytes()).is_known(), "{bad:?}");
        }
    }
}
