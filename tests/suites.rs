//! No test file may be forgotten: each one must be named by a `mod` line.

use crate::support;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The modules a file declares.
fn declared(file: &Path) -> BTreeSet<String> {
    fs::read_to_string(file)
        .unwrap()
        .lines()
        .filter_map(|l| {
            l.trim_start_matches("pub(crate) ").strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
        })
        .collect()
}

/// The modules that lie beside it.
fn present(dir: &Path, root: &str) -> BTreeSet<String> {
    fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|x| x == "rs") || p.join("mod.rs").is_file())
        .map(|p| p.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|n| n != root)
        .collect()
}

#[test]
fn every_test_file_is_compiled() {
    let tests = support::root().join("tests");
    for (file, dir, root) in [
        (tests.join("main.rs"), tests.clone(), "main"),
        (tests.join("with_slurm/mod.rs"), tests.join("with_slurm"), "mod"),
        (tests.join("support/mod.rs"), tests.join("support"), "mod"),
    ] {
        assert_eq!(declared(&file), present(&dir, root), "mod lines of {} against its files", file.display());
    }
}
