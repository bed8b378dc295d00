//! Formatting keeps meaning and comments, and a second time changes nothing.

use crate::GOOD;
use engine_playbook::format::format;
use engine_playbook::load;
use proptest::prelude::*;

fn formatted(text: &str) -> String {
    let f = format(text.as_bytes(), "x").unwrap();
    assert_eq!(f.kept, None, "{text}");
    let again = format(f.text.as_bytes(), "x").unwrap();
    assert_eq!(again.text, f.text, "a second time changes something");
    f.text
}

#[test]
fn a_well_formatted_playbook_stays() {
    for (path, text) in engine_playbook::library::EMBEDDED {
        assert_eq!(formatted(text), *text, "{path}");
    }
    assert_eq!(formatted(GOOD), GOOD);
}

#[test]
fn fields_are_put_in_order_and_comments_stay_with_their_lines() {
    let text = "# About the file.\n\n# who says yes\napproval:   hitl   # one person\n\n\nplaybook: x\nsteps:\n# first\n- when: active_jobs == 0   # guard\n  node.collect_evidence:\n\n-   slurm.drain:   {reason:   \"a # b\"  ,timeout: 5s}\n- health.verify_gpu:\n      diag_level: 1\n      timeout: [a,\n        b]\nsummary: >-\n      folded\n        text\n\n      end\nparams: {p: {default: 1, type: int}}\nowner: 'it''s\n  me'\n# the end\n";
    assert_eq!(
        formatted(text),
        "# About the file.\n\nplaybook: x\nsummary: >-\n  folded\n    text\n\n  end\nowner: 'it''s\n  me'\nparams: { p: { type: int, default: 1 } }\nsteps:\n  # first\n  - node.collect_evidence:\n    when: active_jobs == 0  # guard\n\n  - slurm.drain: { reason: \"a # b\", timeout: 5s }\n  - health.verify_gpu:\n      diag_level: 1\n      timeout: [a, b]\n# who says yes\napproval: hitl  # one person\n# the end\n"
    );
}

#[test]
fn what_cannot_be_formatted_safely_stays_as_it_is() {
    for text in ["fault: [a,  # first\n  b]\nplaybook: x\n", "summary: |2\n    x\nplaybook: x\n"] {
        let f = format(text.as_bytes(), "x").unwrap();
        assert_eq!(f.text, text);
        assert!(f.kept.is_some());
    }
    assert!(format(b"a: [", "x").is_err());
    assert!(format(b"a: 1\na: 2\n", "x").is_err());
}

proptest! {
    #[test]
    fn formatting_keeps_the_playbook(
        order in Just(GOOD.split_inclusive('\n').collect::<Vec<_>>()),
        spaces in proptest::collection::vec(0_usize..4, 30),
        comments in proptest::collection::vec(any::<bool>(), 30),
    ) {
        let mut text = String::new();
        for (i, line) in order.iter().enumerate() {
            let body = line.trim_end();
            if comments[i % 30] && !body.starts_with(' ') {
                text.push_str(&format!("# comment {i}\n"));
            }
            text.push_str(body);
            if comments[(i + 7) % 30] {
                text.push_str(&format!("{} # behind {i}", " ".repeat(spaces[i % 30])));
            }
            text.push('\n');
            if spaces[(i + 3) % 30] == 0 {
                text.push('\n');
            }
        }
        let f = format(text.as_bytes(), "x").unwrap();
        prop_assert_eq!(f.kept, None);
        let (mut a, mut b) = (load(text.as_bytes(), "x").playbook.unwrap(), load(f.text.as_bytes(), "x").playbook.unwrap());
        let same = a.reference.digest.clone();
        a.reference.digest = same.clone();
        b.reference.digest = same;
        prop_assert_eq!(a, b);
        prop_assert_eq!(f.text.matches('#').count(), text.matches('#').count());
        prop_assert_eq!(format(f.text.as_bytes(), "x").unwrap().text, f.text);
    }
}
