//! Makes the table of XIDs from `knowledge/xid.yaml`, for this crate and for the core.
//!
//! The file is read line by line, so that nothing of a YAML reader is needed here: a test of the playbook crate compares
//! what comes of it with the file as the real reader reads it.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "what the core may not do it may not do when it runs"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let missing = || io::Error::other("cargo did not say where to read and write");
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or_else(missing)?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(missing)?);
    let file = here.join("../../knowledge/xid.yaml");
    println!("cargo:rerun-if-changed={}", file.display());
    println!("cargo:rerun-if-changed=build.rs");
    fs::write(out.join("xid_table.rs"), table(&file)?)
}

/// One entry for each code: its fault, its fault where the line says `Nonfatal`, its playbook; empty for none.
fn table(file: &Path) -> io::Result<String> {
    let text = fs::read_to_string(file)?;
    let (_, entries) = text.split_once("\nxids:\n").ok_or_else(|| io::Error::other("no list of XIDs"))?;
    let mut out = String::from("/// XIDs by code.\nstatic XIDS: &[(u32, &str, &str, &str)] = &[\n");
    let mut last = 0_u32;
    for entry in entries.split("- code: ").skip(1) {
        let mut lines = entry.lines();
        let code = lines.next().and_then(|c| c.trim().parse().ok()).filter(|c| *c > last);
        last = code.ok_or_else(|| io::Error::other(format!("the XID after {last} has no greater code")))?;
        let field = |name: &str| {
            let found =
                entry.lines().find_map(|l| l.strip_prefix("  ")?.strip_prefix(name)?.strip_prefix(": "));
            found.unwrap_or_default()
        };
        let (fault, nonfatal, playbook) = (field("fault"), field("fault_nonfatal"), field("playbook"));
        writeln!(out, "    ({last}, {fault:?}, {nonfatal:?}, {playbook:?}),").map_err(io::Error::other)?;
    }
    out.push_str("];\n");
    Ok(out)
}
