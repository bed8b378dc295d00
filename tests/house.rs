//! The house holds: the crate graph is the one that ARCHITECTURE.md shows, and the core stays pure.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Reads the edges between our own crates, development ones left out.
fn real_edges() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let out = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let meta: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let packages = meta["packages"].as_array().unwrap();
    let ours: BTreeSet<&str> = packages.iter().map(|p| p["name"].as_str().unwrap()).collect();
    packages
        .iter()
        .map(|p| {
            let deps = p["dependencies"].as_array().unwrap().iter();
            let edges = deps
                .filter(|d| d["kind"].is_null())
                .map(|d| d["name"].as_str().unwrap())
                .filter(|d| ours.contains(d))
                .map(str::to_owned)
                .collect();
            (p["name"].as_str().unwrap().to_owned(), edges)
        })
        .collect()
}

/// Reads the table under "Crate graph" in ARCHITECTURE.md.
fn written_edges() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/ARCHITECTURE.md")).unwrap();
    let table = text.split("## Crate graph").nth(1).unwrap().split("\n## ").next().unwrap().to_owned();
    table
        .lines()
        .filter(|l| l.starts_with("| `"))
        .map(|l| {
            let mut cells = l.trim_matches('|').split('|').map(str::trim);
            let name = cells.next().unwrap().trim_matches('`').to_owned();
            let names = |c: &str| c.split(',').map(|d| d.trim().trim_matches('`').to_owned()).collect();
            let deps = match cells.next().unwrap() {
                "none" => BTreeSet::new(),
                cell => names(cell),
            };
            (name, deps)
        })
        .collect()
}

#[test]
fn the_crate_graph_is_the_written_one() {
    assert_eq!(real_edges(), written_edges(), "ARCHITECTURE.md, \"Crate graph\", and the manifests disagree");
}

#[test]
fn adapters_and_testkit_never_see_each_other_and_nothing_sees_the_command() {
    let edges = real_edges();
    assert!(!edges["engine-adapters"].contains("engine-testkit"));
    assert!(!edges["engine-testkit"].contains("engine-adapters"));
    assert!(edges.values().all(|deps| !deps.contains("slurmedic")));
    assert!(edges["engine-core"].is_empty());
}

/// The bans are lints; this holds that they are there and that the core has no crate that waits or reaches out.
#[test]
fn the_core_has_its_bans_and_no_crate_with_effects() {
    let root = env!("CARGO_MANIFEST_DIR");
    let bans = std::fs::read_to_string(format!("{root}/engine/core/clippy.toml")).unwrap();
    for banned in ["SystemTime::now", "Timestamp::now", "env::var", "fs::File", "process::Command", "HashMap"]
    {
        assert!(bans.contains(banned), "engine/core/clippy.toml no longer bans {banned}");
    }
    let manifest = std::fs::read_to_string(format!("{root}/engine/core/Cargo.toml")).unwrap();
    let deps = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    for crate_with_effects in ["tokio", "reqwest", "rusqlite", "nix", "tracing", "uuid"] {
        assert!(!deps.contains(crate_with_effects), "engine-core depends on {crate_with_effects}");
    }
}

/// Only the printer writes to the terminal, and no source file grows past the limit of the house without a reason.
#[test]
fn files_stay_readable() {
    fn walk(dir: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/engine")), &mut files);
    assert!(files.len() > 50);
    let long: Vec<String> = files
        .iter()
        .map(|f| (f, std::fs::read_to_string(f).unwrap()))
        .filter(|(_, text)| text.lines().count() > 800)
        .map(|(f, text)| format!("{} has {} lines", f.display(), text.lines().count()))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}
