//! Libraries: built in, of a site, and what is refused there.

use crate::GOOD;
use engine_playbook::{FindError, Library, codes, load, release::Lock};
use std::fs;
use std::path::Path;

fn put(dir: &Path, path: &str, text: &str) {
    let p = dir.join(path);
    fs::create_dir_all(p.parent().unwrap()).unwrap();
    fs::write(p, text).unwrap();
}

fn broken_codes(l: &Library) -> Vec<String> {
    l.broken().iter().flat_map(|i| i.loaded.diagnostics.iter().map(|d| d.code.clone())).collect()
}

#[test]
fn the_newest_version_is_found_by_id() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "gpu-reset/1.0.0.yaml", GOOD);
    put(dir.path(), "gpu-reset/1.10.0.yaml", &GOOD.replace("version: 1.0.0", "version: 1.10.0"));
    put(dir.path(), "gpu-reset/1.9.0.yaml", &GOOD.replace("version: 1.0.0", "version: 1.9.0"));
    put(dir.path(), "gpu-reset/2.0.0-rc.1.yaml", &GOOD.replace("version: 1.0.0", "version: 2.0.0-rc.1"));
    put(dir.path(), "gpu-reset/NOTES.md", "notes");
    put(dir.path(), "gpu-reset/cases/idle.yaml", "not: a playbook");
    let l = Library::open(dir.path()).unwrap();
    assert_eq!(broken_codes(&l), Vec::<String>::new());
    assert_eq!(l.find("gpu-reset").unwrap().reference.to_string(), "gpu-reset@1.10.0");
    assert_eq!(l.find("gpu-reset@1.9.0").unwrap().reference.to_string(), "gpu-reset@1.9.0");
    assert_eq!(l.find("gpu-reset@2.0.0-rc.1").unwrap().reference.to_string(), "gpu-reset@2.0.0-rc.1");
    assert_eq!(l.playbooks().count(), 4);
    let e = l.find("gpu-rset").unwrap_err();
    assert_eq!(e.to_string(), "there is no playbook `gpu-rset`; did you mean `gpu-reset`?");
    let e = l.find("gpu-reset@3.0.0").unwrap_err();
    assert!(matches!(e, FindError::UnknownVersion { .. }), "{e}");
    assert!(l.find("gpu-reset@../x").is_err());
    assert!(Library::open(&dir.path().join("missing")).is_err());
}

#[test]
fn a_file_in_another_place_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "other/1.0.0.yaml", GOOD);
    put(dir.path(), "gpu-reset/1.0.1.yaml", GOOD);
    put(dir.path(), "gpu-reset/1.0.0.yml", GOOD);
    let l = Library::open(dir.path()).unwrap();
    assert_eq!(broken_codes(&l), [codes::WRONG_PLACE; 3]);
    assert_eq!(l.playbooks().count(), 0);
}

#[test]
fn a_released_version_never_changes() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "gpu-reset/1.0.0.yaml", GOOD);
    let line = Lock::line(&load(GOOD.as_bytes(), "x").playbook.unwrap().reference);
    put(dir.path(), "released.lock", &format!("# released\n{line}"));
    let l = Library::open(dir.path()).unwrap();
    assert_eq!(broken_codes(&l), Vec::<String>::new());
    assert!(l.items().all(|i| i.released));
    put(dir.path(), "gpu-reset/1.0.0.yaml", &GOOD.replace("Reset a GPU", "Reset one GPU"));
    let l = Library::open(dir.path()).unwrap();
    assert_eq!(broken_codes(&l), [codes::CHANGED_RELEASE]);
    assert!(matches!(l.find("gpu-reset").unwrap_err(), FindError::Broken { .. }));
    // One file alone is judged in the same way.
    let changed = dir.path().join("gpu-reset/1.0.0.yaml");
    let alone = Library::load_file(&changed, &fs::read(&changed).unwrap()).unwrap();
    assert_eq!(alone.diagnostics[0].code, codes::CHANGED_RELEASE);
    assert!(alone.playbook.is_none());
    let alone = Library::load_file(&changed, GOOD.as_bytes()).unwrap();
    assert_eq!(alone.diagnostics, []);
    put(dir.path(), "released.lock", "gpu-reset 1.0.0 abc\n");
    assert!(broken_codes(&Library::open(dir.path()).unwrap()).contains(&codes::BAD_LOCK.to_owned()));
}

#[test]
fn an_older_version_is_not_taken_for_a_broken_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "gpu-reset/1.0.0.yaml", GOOD);
    put(dir.path(), "gpu-reset/1.1.0.yaml", "playbook: gpu-reset\nversion: 1.1.0\n");
    put(dir.path(), "gpu-reset/0.9.0.yaml", "playbook: [");
    let l = Library::open(dir.path()).unwrap();
    assert!(matches!(l.find("gpu-reset").unwrap_err(), FindError::Broken { .. }));
    assert_eq!(l.find("gpu-reset@1.0.0").unwrap().reference.to_string(), "gpu-reset@1.0.0");
    fs::remove_file(dir.path().join("gpu-reset/1.1.0.yaml")).unwrap();
    assert!(Library::open(dir.path()).unwrap().find("gpu-reset").is_ok());
}

#[test]
fn a_site_adds_playbooks_and_cannot_replace_built_in_versions() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "gpu-reset/1.0.0.yaml", GOOD);
    let (path, text) = engine_playbook::library::EMBEDDED[0];
    put(dir.path(), path, text);
    let l = Library::embedded().with_site(dir.path()).unwrap();
    assert_eq!(broken_codes(&l), Vec::<String>::new());
    assert!(l.find("gpu-reset").is_ok() && l.find("dcgm-ecc-drain-reset").is_ok());
    put(dir.path(), path, &text.replace("max: 24h", "max: 48h"));
    let l = Library::embedded().with_site(dir.path()).unwrap();
    assert_eq!(broken_codes(&l), [codes::CHANGED_RELEASE]);
}
