//! What may run: a library gives out no playbook that the checker refuses, and checks none twice.

use crate::{GOOD, accepted, good, with};
use engine_core::diag::Severity;
use engine_playbook::checker::{Proven, check, lint};
use engine_playbook::library::{EMBEDDED, Item};
use engine_playbook::{FindError, Library, SourceText, codes};
use std::path::Path;

/// A playbook that loads, and whose reset never begins.
fn bad() -> String {
    with(&[("when: active_jobs == 0", "when: node.state == IDLE"), ("version: 1.0.0", "version: 1.1.0")])
}

fn site(dir: &Path) -> Library {
    let folder = dir.join("gpu-reset");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("1.0.0.yaml"), GOOD).unwrap();
    std::fs::write(folder.join("1.1.0.yaml"), bad()).unwrap();
    Library::embedded().with_site(dir).unwrap()
}

#[test]
fn a_refused_playbook_is_found_and_not_given_out_to_be_run() {
    let dir = tempfile::tempdir().unwrap();
    let library = site(dir.path());
    assert!(library.find("gpu-reset").is_ok(), "the document itself has no error");
    let refused = library.find_for_run("gpu-reset").unwrap_err();
    assert!(matches!(refused, FindError::Refused { .. }), "{refused}");
    let text = refused.to_string();
    for part in ["gpu-reset@1.1.0", "step 3 (dcgm.reset_gpu)", "slurmedic lint", "gpu-reset/1.1.0.yaml"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // An older version is not taken for it, and runs when it is named.
    assert_eq!(library.find_for_run("gpu-reset@1.0.0").unwrap().reference.to_string(), "gpu-reset@1.0.0");
    assert!(matches!(library.find_for_run("nothing").unwrap_err(), FindError::UnknownId { .. }));
}

#[test]
fn an_engine_that_chooses_by_itself_gets_proven_playbooks_only() {
    let dir = tempfile::tempdir().unwrap();
    let library = site(dir.path());
    let proven = library.proven();
    assert_eq!(proven.playbooks().count() + 1, library.playbooks().count());
    let broken: Vec<&Item> = proven.broken().iter().collect();
    assert_eq!(broken.len(), 1);
    assert_eq!(broken[0].loaded.diagnostics[0].code, codes::NO_GOOD_END);
    assert!(matches!(proven.find("gpu-reset").unwrap_err(), FindError::Broken { .. }));
    assert!(proven.find("gpu-reset@1.0.0").is_ok());
}

#[test]
fn no_playbook_is_checked_twice_and_none_that_is_built_in_at_all() {
    let proven = Proven::default();
    assert!(proven.is_empty());
    proven.check(&good()).unwrap();
    let refused = proven.check(&accepted(&bad())).unwrap_err();
    for _ in 0..1_000 {
        proven.check(&good()).unwrap();
        assert_eq!(proven.check(&accepted_once()).unwrap_err(), refused);
    }
    assert_eq!((proven.len(), proven.explored()), (2, 2));

    let library = Library::embedded();
    for _ in 0..100 {
        for (path, _) in EMBEDDED {
            let (id, file) = path.split_once('/').unwrap();
            library.find_for_run(&format!("{id}@{}", file.strip_suffix(".yaml").unwrap())).unwrap();
        }
    }
    assert_eq!(library.explored(), 0);
    let dir = tempfile::tempdir().unwrap();
    let library = site(dir.path());
    for _ in 0..3 {
        library.find_for_run("gpu-reset@1.0.0").unwrap();
    }
    assert_eq!(library.explored(), 1);
}

/// The bad playbook, loaded once for all rounds: the digest decides, not the object.
fn accepted_once() -> engine_core::playbook::Playbook {
    static BAD: std::sync::OnceLock<engine_core::playbook::Playbook> = std::sync::OnceLock::new();
    BAD.get_or_init(|| accepted(&bad())).clone()
}

#[test]
fn findings_have_their_place_their_code_and_their_advice() {
    let text = bad();
    let source = SourceText::new("x.yaml", text.as_str());
    let checked = lint(&accepted(&text), &source);
    assert!(checked.outcome.is_err());
    let [d] = checked.diagnostics.as_slice() else { panic!("{:?}", checked.diagnostics) };
    assert_eq!((d.code.as_str(), d.severity), (codes::NO_GOOD_END, Severity::Error));
    assert_eq!(source.slice(d.labels[0].span), "dcgm.reset_gpu");
    assert!(d.help.is_some());

    let text = with(&[("rollback:\n", "rollback:\n  - slurm.wait_idle\n")]);
    let source = SourceText::new("x.yaml", text.as_str());
    let checked = lint(&accepted(&text), &source);
    let [d] = checked.diagnostics.as_slice() else { panic!("{:?}", checked.diagnostics) };
    assert_eq!((d.code.as_str(), d.severity), (codes::IDLE_ROLLBACK, Severity::Warning));
    assert_eq!(source.position(d.labels[0].span.start).line, text[..d.labels[0].span.start].lines().count());
    assert_eq!(source.slice(d.labels[0].span), "slurm.wait_idle");
    assert_eq!(checked.outcome, check(&accepted(&text)));

    let text = with(&[(
        "node.state in [IDLE, COMPLETING]",
        "node.state == IDLE\n  - active_jobs > 0\n  - suspended_jobs == 0",
    )]);
    let source = SourceText::new("x.yaml", text.as_str());
    let checked = lint(&accepted(&text), &source);
    assert_eq!(source.slice(checked.diagnostics[0].labels[0].span), "preconditions");
}
