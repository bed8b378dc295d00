//! What is committed: the playbooks, the schema, the pages of the codes.

use engine_core::condition::Truth;
use engine_core::fact::{FactSet, Source};
use engine_core::known::{Cause, Known};
use engine_core::playbook::{Ends, Playbook};
use engine_core::value::Value;
use engine_playbook::library::EMBEDDED;
use engine_playbook::{Library, codes, load, schema};
use jiff::Timestamp;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compares a generated file with the committed one; with BLESS=1 in the environment it writes it instead.
fn committed(path: &str, text: &str) {
    let file = root().join(path);
    if std::env::var_os("BLESS").is_some_and(|v| v == "1") {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
    }
    let there = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        there == text,
        "{path} is not what the tables say: run the tests with BLESS=1 to write it, then review it"
    );
}

#[test]
fn every_playbook_is_built_in_loads_and_is_released() {
    let mut files = Vec::new();
    for folder in fs::read_dir(root().join("playbooks")).unwrap() {
        let folder = folder.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        assert!(folder.join("NOTES.md").is_file(), "{} has no NOTES.md", folder.display());
        for f in fs::read_dir(&folder).unwrap() {
            let f = f.unwrap().path();
            if f.extension().is_some_and(|e| e == "yaml") {
                let parts: Vec<_> = f.iter().rev().take(2).map(|p| p.to_str().unwrap()).collect();
                files.push(format!("{}/{}", parts[1], parts[0]));
            }
        }
    }
    files.sort();
    let built_in: Vec<_> = EMBEDDED.iter().map(|(p, _)| (*p).to_owned()).collect();
    assert_eq!(files, built_in, "EMBEDDED in library.rs does not list every playbook");
    for library in [Library::embedded(), Library::open(&root().join("playbooks")).unwrap()] {
        assert!(library.broken().is_empty(), "{:?}", library.broken());
        assert_eq!(library.playbooks().count(), files.len());
        for i in library.items() {
            assert_eq!(i.loaded.diagnostics, [], "{}", i.loaded.source.file);
            assert!(i.released, "{} is not in released.lock", i.loaded.source.file);
        }
    }
}

#[test]
fn the_schema_is_the_committed_one() {
    committed("docs/schema/playbook.schema.json", &schema::schema_text());
}

#[test]
fn every_code_has_its_page_and_no_page_is_left_over() {
    for code in codes::all() {
        committed(&format!("docs/codes/{}.md", code.0), &codes::page(code));
    }
    let pages = fs::read_dir(root().join("docs/codes")).unwrap().count();
    assert_eq!(pages, codes::all().count(), "a page in docs/codes has no code");
}

fn newest() -> Playbook {
    Library::embedded().find("dcgm-ecc-drain-reset").unwrap().clone()
}

/// A node in service with a healthy GPU, as DCGM 4.6 shows it.
fn healthy() -> FactSet {
    let mut f = FactSet::default();
    for (name, value) in [
        ("node.state", Value::Word("MIXED".into())),
        ("node.in_maintenance", Value::Bool(false)),
        ("active_jobs", Value::Int(2)),
        ("suspended_jobs", Value::Int(0)),
        ("gpu.answers", Value::Bool(true)),
        ("gpu.xid", Value::Int(0)),
        ("gpu.ecc_dbe_volatile", Value::Int(0)),
        ("gpu.row_remap_pending", Value::Bool(false)),
        ("gpu.row_remap_failure", Value::Bool(false)),
        ("gpu.recovery_action", Value::Word("none".into())),
    ] {
        set(&mut f, name, value);
    }
    f
}

fn set(f: &mut FactSet, name: &str, value: Value) {
    f.set(name.to_owned(), Known::Known(value), Source::NodeTools, Timestamp::UNIX_EPOCH);
}

fn unset(f: &mut FactSet, name: &str) {
    f.set(name.to_owned(), Known::unknown(Cause::Unsupported, ""), Source::NodeTools, Timestamp::UNIX_EPOCH);
}

/// The texts of the preconditions that do not hold, and whether the GPU is selected.
fn judged(f: &FactSet) -> (Truth, Vec<String>) {
    let p = newest();
    let refused = p
        .preconditions
        .iter()
        .filter(|c| c.condition.evaluate(f).truth != Truth::True)
        .map(|c| c.otherwise.clone().unwrap_or_default())
        .collect();
    (p.select.unwrap().evaluate(f).truth, refused)
}

#[test]
fn the_newest_version_is_for_uncorrectable_memory_errors() {
    let p = newest();
    assert_eq!((p.reference.to_string().as_str(), p.ends), ("dcgm-ecc-drain-reset@1.3.0", Ends::InService));
    assert!(p.preconditions.iter().all(|c| c.otherwise.is_some()));
    for (name, value) in [
        ("gpu.ecc_dbe_volatile", Value::Int(1)),
        ("gpu.row_remap_pending", Value::Bool(true)),
        ("gpu.xid", Value::Int(48)),
        ("gpu.xid", Value::Int(95)),
        ("gpu.xid", Value::Int(140)),
    ] {
        let mut f = healthy();
        set(&mut f, name, value.clone());
        assert_eq!(judged(&f), (Truth::True, vec![]), "{name} = {value}");
        // DCGM before 4.5 has no recovery action; the playbook works there too.
        unset(&mut f, "gpu.recovery_action");
        assert_eq!(judged(&f), (Truth::True, vec![]), "{name} = {value}, without recovery action");
    }
}

#[test]
fn a_healthy_gpu_is_not_selected_and_not_touched() {
    let (selected, refused) = judged(&healthy());
    assert_eq!(selected, Truth::False);
    assert!(refused.len() == 1 && refused[0].contains("nothing to repair"), "{refused:?}");
}

#[test]
fn where_a_reset_does_not_help_it_says_what_does() {
    // A GPU that fell off the bus: the XID stays, all else is unknown.
    let mut f = healthy();
    set(&mut f, "gpu.xid", Value::Int(79));
    set(&mut f, "gpu.answers", Value::Bool(false));
    for lost in
        ["gpu.ecc_dbe_volatile", "gpu.row_remap_pending", "gpu.row_remap_failure", "gpu.recovery_action"]
    {
        unset(&mut f, lost);
    }
    let (selected, refused) = judged(&f);
    assert_eq!(selected, Truth::True, "the GPU is found, so that the reason can be told");
    assert!(refused[0].contains("XID 79") && refused[0].contains("gpu-fallen-off-bus-reboot"), "{refused:?}");

    for (name, value, says) in [
        ("gpu.row_remap_failure", Value::Bool(true), "gpu-remap-failure-rma"),
        ("gpu.recovery_action", Value::Word("reboot".into()), "reboot the node"),
        ("gpu.recovery_action", Value::Word("drain_p2p".into()), "peer-to-peer"),
        ("node.in_maintenance", Value::Bool(true), "a person has the node"),
        ("node.state", Value::Word("DRAINED".into()), "whoever took it out"),
    ] {
        let mut f = healthy();
        set(&mut f, "gpu.ecc_dbe_volatile", Value::Int(3));
        set(&mut f, name, value);
        let (_, refused) = judged(&f);
        assert!(refused.len() == 1 && refused[0].contains(says), "{name}: {refused:?}");
    }
}

#[test]
fn unknown_never_permits() {
    for name in ["node.state", "node.in_maintenance", "gpu.answers", "gpu.row_remap_failure", "gpu.xid"] {
        let mut f = healthy();
        set(&mut f, "gpu.ecc_dbe_volatile", Value::Int(1));
        unset(&mut f, name);
        assert_eq!(judged(&f).1.len(), 1, "{name}");
    }
}

#[test]
fn the_design_s_version_keeps_its_preconditions() {
    let (_, text) = EMBEDDED[0];
    let p = load(text.as_bytes(), "x").playbook.unwrap();
    let sources: Vec<_> = p.preconditions.iter().map(|c| c.condition.source()).collect();
    assert_eq!(
        sources,
        ["node.state in [IDLE, COMPLETING]", "active_jobs == 0", "gpu.row_remap_failure == false"]
    );
}
