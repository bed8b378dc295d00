//! Knowledge: what comes with the program is complete and agrees with the engine; a site's file is checked whole, and what
//! it changes is seen.

use engine_core::incident::fault::{FAULTS, Strength, strength};
use engine_core::knowledge::{Class, GpuAsked, Knowledge, LinkEvent, Table, Verdict};
use engine_core::watch::xid::fault_of;
use engine_playbook::knowledge::{FILES, built_in, load};
use std::sync::LazyLock;

static KNOWN: LazyLock<Knowledge> = LazyLock::new(|| built_in().unwrap());

/// The codes that known tables cover.
const CODES: std::ops::RangeInclusive<u32> = 1..=173;

#[test]
fn every_xid_gives_a_decision_with_its_source_and_its_day() {
    assert_eq!(KNOWN.xids.keys().copied().collect::<Vec<_>>(), CODES.collect::<Vec<_>>());
    for code in CODES {
        let a = KNOWN.xid(code, GpuAsked::default());
        let x = a.xid.unwrap();
        assert!(!x.means.is_empty() && !a.why.is_empty(), "{code}");
        assert!(!a.sources.is_empty() && a.sources.iter().all(|s| s.read.len() == 10), "{code}");
        match a.verdict {
            Verdict::Playbook => assert!(KNOWN.playbooks.contains_key(a.playbook.unwrap()), "{code}"),
            Verdict::Nothing | Verdict::Person => assert_eq!(a.playbook, None, "{code}"),
        }
    }
}

#[test]
fn a_mistake_of_a_program_never_drains_whatever_the_gpu() {
    let models: Vec<&str> = KNOWN.columns.iter().flat_map(|c| &c.gpus).map(String::as_str).collect();
    let mut programs = 0;
    for code in CODES {
        let of_a_program = KNOWN.xids[&code].class == Class::Application;
        programs += usize::from(of_a_program);
        for model in models.iter().copied().map(Some).chain([None]) {
            for driver in [None, Some(535), Some(565), Some(590)] {
                let a = KNOWN.xid(code, GpuAsked { model, driver });
                let book = a.playbook.and_then(|p| KNOWN.playbooks.get(p));
                if of_a_program {
                    assert!(!a.drains, "{code} on {model:?}");
                    assert!(book.is_none_or(|b| !b.mutates()), "{code} on {model:?}: {:?}", a.playbook);
                }
                assert!(!a.drains || a.verdict == Verdict::Playbook, "{code} on {model:?}");
            }
        }
    }
    assert!(programs > 40, "{programs}");
}

#[test]
fn codes_that_nobody_knows_ask_a_person() {
    for code in [0, 174, 999, u32::MAX] {
        let a = KNOWN.xid(code, GpuAsked::default());
        assert_eq!((a.verdict, a.playbook, a.drains), (Verdict::Person, None, false), "{code}");
    }
    for code in CODES.filter(|c| KNOWN.xids[c].status != engine_core::knowledge::Status::Active) {
        assert_ne!(KNOWN.xid(code, GpuAsked::default()).verdict, Verdict::Playbook, "{code}");
    }
}

#[test]
fn gpus_make_a_difference() {
    let on = |code, model| KNOWN.xid(code, GpuAsked { model: Some(model), driver: None });
    assert_eq!(on(94, "NVIDIA H100 80GB HBM3").playbook, Some("gpu-ecc-watch"));
    let spread = on(94, "L40S");
    assert_eq!((spread.counts_as.unwrap().code, spread.playbook), (95, Some("dcgm-ecc-drain-reset")));
    assert_eq!(on(48, "V100").playbook, Some("dcgm-ecc-drain-reset"), "our judgement holds for it");
    assert_eq!(on(9, "V100").verdict, Verdict::Person);
    assert_eq!(on(149, "H100").verdict, Verdict::Person, "this GPU has no NVLink 5");
    assert_eq!(on(149, "GB300").playbook, Some("nvlink-fault-diag-reset"));
}

/// The table that the watch, the hook and the agent are built with is read line by line: it says what the file says.
#[test]
fn the_built_in_table_of_xids_is_the_file() {
    for code in 0..=1_000 {
        let written = KNOWN.xids.get(&code).and_then(|x| x.fault.as_deref());
        assert_eq!(fault_of(code), written.filter(|f| *f != engine_core::knowledge::WISH), "{code}");
    }
}

/// The same for lines of the kernel log, as the hook and the agent read them.
#[test]
fn lines_of_the_kernel_log_tell_what_the_file_says() {
    use engine_xid::{Meaning, meaning};
    for code in CODES {
        let x = &KNOWN.xids[&code];
        let expected = match (x.fault.as_deref(), x.playbook.as_str()) {
            (Some(f), _) => format!("{:?}", Some(f)),
            (None, "xid-app-annotate") => "program".to_owned(),
            (None, "none") => "nothing".to_owned(),
            (None, _) => format!("{:?}", Some("gpu-xid-other")),
        };
        let told = match meaning(code, "") {
            Meaning::Fault(f) => format!("{:?}", Some(f)),
            Meaning::Application => "program".to_owned(),
            Meaning::Quiet => "nothing".to_owned(),
        };
        assert_eq!(told, expected, "{code}");
        if let Some(f) = &x.fault_nonfatal {
            assert!(matches!(meaning(code, "NETIR_X Nonfatal"), Meaning::Fault(told) if told == f), "{code}");
        }
    }
}

#[test]
fn faults_and_playbooks_point_at_each_other_and_the_engine_knows_the_strengths() {
    for f in FAULTS {
        assert!(KNOWN.faults.contains_key(f.word), "{} is not in knowledge/faults.yaml", f.word);
    }
    for f in KNOWN.faults.values() {
        if let Some(book) = KNOWN.playbooks.get(&f.playbook) {
            assert!(book.faults.contains(&f.id), "{} does not name {}", book.id, f.id);
        }
    }
    for p in KNOWN.playbooks.values() {
        for fault in &p.faults {
            assert_eq!(KNOWN.faults[fault].playbook, p.id, "{fault}");
        }
    }
    assert_eq!(KNOWN.playbooks.len(), 32);
    for code in CODES.filter(|c| *c != 154) {
        assert!(fault_of(code).is_none_or(|f| strength(f) != Strength::Unknown), "{code}");
    }
}

#[test]
fn lines_of_nvlink_find_their_rule() {
    let found = |line: &str| {
        let event = LinkEvent::read(line).unwrap();
        KNOWN.link_rule(&event).map(|r| r.vendor_for(&event, None).to_owned())
    };
    let ber = "149, NETIR_BER_EVENT Nonfatal XC0 i0 Link 04 (0x00000013 0x00000001 0x0 0x0)";
    assert_eq!(found(ber).as_deref(), Some("IGNORE"));
    let down = "149, NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x004505c6 0x00000000 0x0)";
    assert_eq!(found(down).as_deref(), Some("RESET_GPU"));
    let low = "145, RLW_RXPIPE Nonfatal XC0 i0 Link 08 (0x00000006 0x00000001 0x0)";
    assert_eq!(found(low).as_deref(), Some("IGNORE"));
    let promoted = "145, RLW_RXPIPE Nonfatal XC0 i0 Link 08 (0x00000086 0x00000001 0x0)";
    assert_eq!(found(promoted).as_deref(), Some("RESET_GPU"));
    assert_eq!(
        found("149, NETIR_NEW Fatal XC0 i0 Link 08 (0x0 0x0)"),
        None,
        "what is not known asks a person"
    );
    let wish = "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)";
    assert_eq!(KNOWN.wish_in(wish).unwrap().word, "reboot");
    assert_eq!(KNOWN.wish_in("changed from 0x0 (None) to 0x2 (None)"), None, "number and words disagree");
    assert_eq!(KNOWN.wish_in("to 0x9 (New)"), None);
}

const HEAD: &str = "format: slurmedic/knowledge-site/1\nsource: GPU operations\ndate: 2026-11-21\n";

fn codes_of(body: &str) -> Vec<String> {
    let text = format!("{HEAD}{body}");
    let loaded = load(text.as_bytes(), "site.yaml").unwrap();
    assert_eq!(loaded.knowledge.is_none(), loaded.failed());
    loaded.diagnostics.into_iter().map(|d| d.code).collect()
}

#[test]
fn every_mistake_of_a_site_is_named() {
    let reason = "reasons:\n- { id: ours, says: x, playbook: human";
    for (body, code) in [
        ("xids:\n- { code: 92, playbok: human }", "PB0010"),
        ("xids:\n- { code: 92, playbook: human }\n- { code: 92, drain: person }", "KN0002"),
        ("xids:\n- { code: 92, drain: sometimes }", "PB"),
        ("xids:\n- { code: 92, playbook: ecc-watch }", "KN0004"),
        ("xids:\n- { code: 92, sources: [nobody] }", "KN0005"),
        ("xids:\n- { code: 92, vendor: RESET }", "KN0014"),
        ("xids:\n- { code: 13, drain: now }", "KN0008"),
        ("xids:\n- { code: 13, playbook: dcgm-ecc-drain-reset }", "KN0008"),
        ("xids:\n- { code: 92, class: application, playbook: gpu-hang-drain-reset }", "KN0008"),
        ("xids:\n- { code: -1, drain: never }", "KN0009"),
        ("xids:\n- { code: 92, fault: gpu-off-bus }", "KN0013"),
        ("xids:\n- { code: 92, playbook: gpu-ecc-watch }", "KN0012"),
        ("xids:\n- { code: 200, playbook: human }", "PB"),
        ("sources:\n- { id: note, title: a note, read: 21.11.2026 }", "KN0007"),
        ("sources:\n- { id: nv-mem, title: a note, read: 2026-11-21 }", "KN0002"),
        ("faults:\n- { id: gpu-off-bus, strength: node }", "KN0013"),
        (&format!("{reason} }}"), "KN0010"),
        (&format!("{reason}, is: a, starts: b, person: true }}"), "KN0010"),
        (&format!("{reason}, is: a, person: true, planned: true }}"), "KN0010"),
        (&format!("{reason}, is: a, fault: gpu-of-bus }}"), "KN0003"),
        (
            "playbooks:\n- id: gpu-hang-drain-reset\n  rungs:\n  - { id: a, approval: auto, actions: [slurm.drain] }",
            "KN0011",
        ),
        ("playbooks:\n- { id: gpu-hang-drain-reset, rungs: [] }", "KN0016"),
        ("link_rules: []", "PB0010"),
    ] {
        let found = codes_of(body);
        assert!(found.iter().any(|c| c.starts_with(code)), "{body}: {found:?}");
    }
    for (text, code) in [
        ("xids: []\n", "KN0001"),
        ("format: slurmedic/knowledge-site/1\nxids: []\n", "KN0006"),
        ("format: slurmedic/knowledge/1\nhazards:\n- { id: a, what: b, effect: c }\n", "KN0006"),
        ("format: slurmedic/knowledge/1\nfaults:\n- id: gpu-off-bus\n", "PB"),
    ] {
        let found = load(text.as_bytes(), "x").unwrap().diagnostics;
        assert!(found.iter().any(|d| d.code.starts_with(code)), "{text}: {found:?}");
    }
}

#[test]
fn mistakes_are_told_all_at_once_with_a_near_word() {
    let text = format!(
        "{HEAD}xids:\n- {{ code: 92, playbook: gpu-ecc-wach, why: x }}\n- {{ code: 13, drain: now }}\nfaults:\n- {{ id: gpu-off-bus, playbook: gpu-fallen-of-bus-reboot }}\n"
    );
    let loaded = load(text.as_bytes(), "site.yaml").unwrap();
    let helps: Vec<&str> = loaded.diagnostics.iter().filter_map(|d| d.help.as_deref()).collect();
    assert_eq!(loaded.diagnostics.len(), 3, "{:?}", loaded.diagnostics);
    assert!(
        helps[0].contains("gpu-ecc-watch") && helps[2].contains("gpu-fallen-off-bus-reboot"),
        "{helps:?}"
    );
    let placed = |d: &engine_core::diag::Diagnostic| loaded.source.slice(d.labels[0].span).to_owned();
    assert_eq!(
        loaded.diagnostics.iter().map(placed).collect::<Vec<_>>(),
        ["gpu-ecc-wach", "now", "gpu-fallen-of-bus-reboot"]
    );
}

#[test]
fn what_a_site_changed_is_seen_and_the_rest_stays() {
    let text = format!(
        "{HEAD}xids:\n- {{ code: 92, playbook: human, drain: person, why: our boards wear out }}\nreasons:\n- {{ id: ours, starts: \"Epilog error of ours\", person: true, says: our check, playbook: human }}\n"
    );
    let loaded = load(text.as_bytes(), "site.yaml").unwrap();
    let known = loaded.knowledge.unwrap();
    let a = known.xid(92, GpuAsked::default());
    assert_eq!(a.verdict, Verdict::Person);
    assert_eq!(a.changes.len(), 2);
    let change = a.changes.iter().find(|c| c.field.as_deref() == Some("playbook")).unwrap();
    assert_eq!((change.before.as_deref(), change.after.as_deref()), (Some("gpu-ecc-watch"), Some("human")));
    assert_eq!((change.source.as_str(), change.date.as_str()), ("GPU operations", "2026-11-21"));
    assert_eq!(a.xid.unwrap().sources, KNOWN.xids[&92].sources, "what came with the program is still named");
    assert_eq!(known.reason("Epilog error of ours: 3").parts[0].pattern.unwrap().id, "ours");
    assert_eq!(known.changes_of(Table::Reasons, "ours").count(), 1);
    let same = known.xids.iter().filter(|(c, x)| KNOWN.xids[*c] == **x).count();
    assert_eq!(same, KNOWN.xids.len() - 1);
}

#[test]
fn reasons_give_a_decision() {
    let told = |text: &str| {
        let a = KNOWN.reason(text);
        (a.verdict, a.playbook.map(str::to_owned))
    };
    let book = |id: &str| (Verdict::Playbook, Some(id.to_owned()));
    assert_eq!(told("Kill task failed"), book("slurm-kill-task-failed"));
    assert_eq!(told("Kill task failed (JobId=17 StepId=17.batch)"), book("slurm-kill-task-failed"));
    assert_eq!(told("gres/gpu count reported lower than configured (7 < 8)"), book("gpu-count-mismatch"));
    assert_eq!(told("Epilog error : Not responding"), book("slurm-prolog-epilog-failure"));
    let two = "Kill task failed : gres/gpu count reported lower than configured (7 < 8)";
    assert_eq!(told(two), book("gpu-count-mismatch"), "the strongest counts");
    assert_eq!(told("Reboot ASAP : reboot issued"), (Verdict::Nothing, None));
    for text in [
        "",
        "bad dimm",
        "bad dimm : Not responding",
        "Cannot collect energy data.",
        "[slurmedic:a@1.0.0#r1] x",
    ] {
        assert_eq!(told(text), (Verdict::Person, None), "{text}");
    }
    assert!(KNOWN.reasons.patterns().iter().all(|p| !p.sources.is_empty()));
}

#[test]
fn the_programs_own_files_check_clean() {
    for (name, text) in FILES {
        let loaded = load(text.as_bytes(), name).unwrap();
        assert!(loaded.diagnostics.is_empty() && loaded.entries > 0, "{name}: {:?}", loaded.diagnostics);
    }
}

#[test]
fn the_example_of_the_guide_is_a_file_of_a_site() {
    let guide = include_str!("../../../../docs/guide/knowledge.md");
    let example = guide.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let loaded = load(example.as_bytes(), "guide").unwrap();
    assert_eq!(loaded.diagnostics, []);
    assert_eq!(loaded.knowledge.unwrap().changes.len(), 3);
}
