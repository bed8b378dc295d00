//! The playbooks that come along hold in every situation.

use engine_playbook::{Library, checker};
use std::time::Instant;

#[test]
fn every_shipped_playbook_holds_in_every_situation() {
    for p in Library::embedded().playbooks() {
        let began = Instant::now();
        match checker::check(p) {
            Ok(r) => println!("{}: {r}; {} ({:?})", p.reference, r.details(), began.elapsed()),
            Err(refusal) => panic!("{}: {refusal}", p.reference),
        }
    }
}
