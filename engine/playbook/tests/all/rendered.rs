//! What people see.

use crate::with;
use engine_playbook::{Style, diagnostics_json, load, render_diagnostics};

#[test]
fn a_misspelt_word_is_shown_under_the_text() {
    let l = load(with("IDLE, COMPLETING", "IDLE, COMPLETNG").as_bytes(), "playbooks/x/1.0.0.yaml");
    insta::assert_snapshot!(render_diagnostics(&l.diagnostics, &l.source, Style::Plain), @r##"
    CN0014

      × `COMPLETNG` is not a word of node.state
        ╭─[playbooks/x/1.0.0.yaml:12:26]
     11 │ preconditions:
     12 │   - node.state in [IDLE, COMPLETNG]
        ·                          ────┬────
        ·                              ╰── no such word
     13 │   - check: gpu.row_remap_failure == false
        ╰────
      help: did you mean COMPLETING?
    "##);
}

#[test]
fn both_places_of_a_duplicate_are_shown() {
    let l = load(with("owner: gpu-oncall", "owner: gpu-oncall\nowner: b").as_bytes(), "x.yaml");
    insta::assert_snapshot!(render_diagnostics(&l.diagnostics, &l.source, Style::Plain), @r##"
    PB0004

      × `owner` is given twice
       ╭─[x.yaml:5:1]
     3 │ summary: Reset a GPU
     4 │ owner: gpu-oncall
       · ──┬──
       ·   ╰── first given here
     5 │ owner: b
       · ──┬──
       ·   ╰── given again
     6 │ target: gpu
       ╰────
      help: keep one of them; a repeated step is another item of the list, with its own `- `
    "##);
}

#[test]
fn a_call_is_shown_with_its_mapping_in_sentences() {
    let l = load(with("  - slurm.resume\nrollback", "  - slurm.resume()\nrollback").as_bytes(), "x.yaml");
    insta::assert_snapshot!(render_diagnostics(&l.diagnostics, &l.source, Style::Narrated), @r##"
    a step is not a call: the arguments are a mapping
        Diagnostic severity: error
    Begin snippet for x.yaml starting at line 21, column 1

    snippet line 21:   - health.verify_gpu: { diag_level: 2 }
    snippet line 22:   - slurm.resume()
        label at line 22, columns 5 to 18: written as a call
    snippet line 23: rollback:
    diagnostic help: write `- slurm.resume`; `slurmedic lint --fix` does that for you
    diagnostic code: PB0020
    "##);
}

#[test]
fn colours_are_only_in_the_coloured_style() {
    let l = load(b"a: 1", "x.yaml");
    assert!(render_diagnostics(&l.diagnostics, &l.source, Style::Colour).contains('\u{1b}'));
    assert!(!render_diagnostics(&l.diagnostics, &l.source, Style::Plain).contains('\u{1b}'));
}

#[test]
fn programs_get_places_in_lines_and_bytes() {
    let l = load(with("timeout: 5m", "timeout: 300").as_bytes(), "x.yaml");
    let json = diagnostics_json(&l.diagnostics, &l.source);
    let d = &json[0];
    assert_eq!(
        (&d["code"], &d["severity"], &d["file"]),
        (&"PB0025".into(), &"error".into(), &"x.yaml".into())
    );
    assert_eq!(d["labels"][0]["start"], serde_json::json!({ "line": 20, "column": 14 }));
    let bytes = (
        d["labels"][0]["bytes"][0].as_u64().unwrap() as usize,
        d["labels"][0]["bytes"][1].as_u64().unwrap() as usize,
    );
    assert_eq!(&l.source.text[bytes.0..bytes.1], "300");
}
