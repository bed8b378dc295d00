//! Rule 12: whatever a selector says, what is chosen was applicable before and is applicable now, or it is a person.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop at once, as tests do")]

use engine_core::digest::Digest;
use engine_core::playbook::PlaybookRef;
use engine_core::select::{Answer, Applicable, Candidate, Choice, MAX_ANSWER, Settled, rules, settle};
use proptest::prelude::*;
use std::slice::from_ref;

fn playbook(id: &str, version: &str) -> PlaybookRef {
    PlaybookRef { id: id.to_owned(), version: version.parse().unwrap(), digest: Digest::of(id.as_bytes()) }
}

fn applicable(all: &[PlaybookRef]) -> Applicable {
    let candidate = |p: &PlaybookRef| Candidate { playbook: p.clone(), summary: "Repairs it".to_owned() };
    Applicable {
        fault: "gpu-off-bus".to_owned(),
        candidates: all.iter().map(candidate).collect(),
        ..Applicable::default()
    }
}

fn said(text: &str) -> Answer {
    Answer::Said(text.to_owned())
}

#[test]
fn the_rules_take_the_only_one_and_leave_the_rest_to_people() {
    let [reset, reboot] = [playbook("reset", "1.0.0"), playbook("reboot", "2.1.0")];
    assert_eq!(rules(&applicable(from_ref(&reset))), Choice::Playbook(reset.clone()));
    let none = Choice::Person("no playbook is for gpu-off-bus: a person decides".to_owned());
    assert_eq!(rules(&applicable(&[])), none);
    let two = Choice::Person("2 playbooks are for gpu-off-bus (reset, reboot): a person chooses".to_owned());
    assert_eq!(rules(&applicable(&[reset.clone(), reboot])), two);
    let against = Applicable { against: vec!["it is off".to_owned()], ..applicable(&[]) };
    assert_eq!(rules(&against), Choice::Person("it is off".to_owned()));
    // One that may be applicable as well is not left out because it could not be read.
    for all in [vec![], vec![reset]] {
        let unclear = Applicable { unclear: vec!["unread".to_owned()], ..applicable(&all) };
        assert_eq!(rules(&unclear), Choice::Wait("unread".to_owned()));
    }
}

#[test]
fn an_answer_counts_if_it_names_one_that_was_and_is_applicable() {
    let [reset, reboot] = [playbook("reset", "1.0.0"), playbook("reboot", "2.1.0")];
    let both = applicable(&[reset.clone(), reboot.clone()]);
    for text in ["reset", " reset\n", "reset@1.0.0"] {
        let Settled { choice, note } = settle(&both, &said(text), &both);
        assert_eq!(choice, Choice::Playbook(reset.clone()), "{text:?}");
        assert_eq!(note.unwrap(), "the selector chose reset@1.0.0 among 2");
    }
    for text in ["person", "PERSON", " person "] {
        assert!(matches!(settle(&both, &said(text), &both).choice, Choice::Person(_)), "{text:?}");
    }
    for text in [
        "",
        "Reset",
        "reset@1.0.1",
        "reset@1",
        "reset, reboot",
        "reset; rm -rf /",
        "{{ reset }}",
        "0",
        "reset@",
    ] {
        let settled = settle(&both, &said(text), &both);
        assert_eq!(settled.choice, rules(&both), "{text:?}");
        assert!(settled.note.unwrap().ends_with("the rules chose"), "{text:?}");
    }
}

#[test]
fn what_is_not_applicable_any_more_is_not_chosen() {
    let [reset, reboot] = [playbook("reset", "1.0.0"), playbook("reboot", "2.1.0")];
    let before = applicable(&[reset.clone(), reboot.clone()]);
    let settled = settle(&before, &said("reset"), &applicable(from_ref(&reboot)));
    assert_eq!(settled.choice, Choice::Playbook(reboot.clone()), "the rules have one left");
    assert!(settled.note.unwrap().contains("reset@1.0.0, which is not applicable any more"));
    // Nor is what has become applicable meanwhile, on the word of who was not offered it.
    let settled = settle(&applicable(from_ref(&reset)), &said("reboot"), &before);
    assert_eq!(settled.choice, rules(&before));
    // The same id and version with another content is another playbook.
    let changed = PlaybookRef { digest: Digest::of(b"changed"), ..reset.clone() };
    let after = applicable(&[changed.clone(), reboot]);
    assert_eq!(settle(&before, &said("reset"), &after).choice, rules(&after));
}

#[test]
fn silence_and_excess_leave_it_to_the_rules() {
    let reset = playbook("reset", "1.0.0");
    let one = applicable(from_ref(&reset));
    let long = format!("reset{}", " ".repeat(MAX_ANSWER));
    for answer in [Answer::NoOpinion, Answer::Silent("timed out".to_owned()), said(&long)] {
        assert_eq!(settle(&one, &answer, &one).choice, Choice::Playbook(reset.clone()), "{answer:?}");
    }
    assert_eq!(settle(&one, &Answer::NoOpinion, &one).note, None);
    // Two versions of one id: the id alone names neither.
    let two = applicable(&[reset, playbook("reset", "2.0.0")]);
    assert_eq!(settle(&two, &said("reset"), &two).choice, rules(&two));
}

fn any_playbook() -> impl Strategy<Value = PlaybookRef> {
    (prop::sample::select(vec!["reset", "reboot", "drain", "person"]), 0_u64..3)
        .prop_map(|(id, major)| playbook(id, &format!("{major}.0.0")))
}

fn any_answer() -> impl Strategy<Value = String> {
    let near = any_playbook().prop_flat_map(|p| {
        prop_oneof![
            Just(p.id.clone()),
            Just(p.to_string()),
            "[ \n\t]{0,3}".prop_map(move |blank| format!("{blank}{p}{blank}")),
        ]
    });
    prop_oneof![3 => near, 2 => any::<String>(), 1 => "\\PC{0,300}", 1 => "(reset|reboot)@[0-9.]{0,8}.{0,4}"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// For any answer and any two moments: a playbook that is chosen is applicable now, and one that is chosen on the word
    /// of the selector was applicable when it was asked. The text of the answer is never part of what is said.
    #[test]
    fn a_chosen_playbook_is_always_in_the_list(
        before in prop::collection::vec(any_playbook(), 0..5),
        after in prop::collection::vec(any_playbook(), 0..5),
        answer in any_answer(),
    ) {
        let (before, after) = (applicable(&before), applicable(&after));
        let settled = settle(&before, &said(&answer), &after);
        let by_rules = settled.choice == rules(&after);
        if let Choice::Playbook(chosen) = &settled.choice {
            prop_assert!(after.has(chosen));
            prop_assert!(before.has(chosen) || by_rules);
            prop_assert!(by_rules || [chosen.id.clone(), chosen.to_string()].contains(&answer.trim().to_owned()));
        }
        let odd = answer.trim();
        let texts = [settled.note.clone().unwrap_or_default(), format!("{:?}", settled.choice)];
        let known = ["reset", "reboot", "drain", "person"].iter().any(|w| odd.contains(w) || w.contains(odd));
        prop_assert!(known || odd.chars().count() < 12 || texts.iter().all(|t| !t.contains(odd)));
    }
}
