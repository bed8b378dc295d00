//! Hostile input is refused in bounded time, stack and output.

use super::super::MAX_SOURCE;
use super::super::parse::{MAX_DEPTH, MAX_NODES};
use super::{compile, ok, scope};
use std::time::Instant;

/// Compiles and returns the codes, within a time that no sane input needs.
#[expect(clippy::disallowed_methods, reason = "the test measures the bound it states")]
fn refused(source: &str) -> Vec<String> {
    let start = Instant::now();
    let found = compile(source, &scope()).expect_err("refused");
    let took = start.elapsed();
    assert!(took.as_millis() < 500, "{took:?} for {} bytes", source.len());
    assert!(found.len() <= 32);
    for d in &found {
        assert!(d.message.len() < 400 && d.help.as_ref().is_none_or(|h| h.len() < 2000), "{d:?}");
    }
    found.into_iter().map(|d| d.code).collect()
}

#[test]
fn a_source_has_a_greatest_length() {
    for piece in ["(", "not ", "[", "a and ", "'", "a", "((a))", "{{", "\u{1F600}", "a == 0 or ", "1 < "] {
        assert_eq!(refused(&piece.repeat(200_000)), ["CN0001"], "{piece}");
    }
    let longest = format!("active_jobs == 0{}", " ".repeat(MAX_SOURCE - 16));
    assert_eq!(longest.len(), MAX_SOURCE);
    ok(&longest);
    assert_eq!(refused(&format!("{longest} ")), ["CN0001"]);
}

#[test]
fn every_short_source_is_bounded_too() {
    for piece in [
        "(",
        ")",
        "[",
        "]",
        "not ",
        "!",
        "a and ",
        "'",
        "a",
        "a ",
        "a.b ",
        "{{",
        "}}",
        "\u{1F600}",
        "1 < ",
        "= ",
        ",",
        "a(",
        "a[",
        "x is ",
        "in ",
        "\\",
        "'\\",
        "$",
        "&",
        "|",
        "zz == 0 or ",
        "node.stat == A and ",
        "(a]",
        "[)",
        "99999 ",
    ] {
        let source = piece.repeat(MAX_SOURCE / piece.len());
        assert!(!refused(&source).is_empty(), "{piece}");
    }
}

#[test]
fn nesting_has_a_greatest_depth() {
    let nested = |n: usize| format!("{}active_jobs == 0{}", "(".repeat(n), ")".repeat(n));
    ok(&nested(MAX_DEPTH));
    assert_eq!(refused(&nested(MAX_DEPTH + 1)), ["CN0001"]);
    ok(&format!("{}dcgm.up", "not ".repeat(MAX_DEPTH)));
    assert_eq!(refused(&format!("{}dcgm.up", "not ".repeat(MAX_DEPTH + 1))), ["CN0001"]);
    assert_eq!(refused(&"(".repeat(4000)), ["CN0001"]);
    assert_eq!(refused(&"[".repeat(4000)), ["CN0001"]);
}

#[test]
fn a_condition_has_a_greatest_number_of_parts() {
    let listed = |n: usize| format!("active_jobs in [{}]", vec!["1"; n].join(","));
    // The list, its items, the fact and the comparison.
    ok(&listed(MAX_NODES - 3));
    assert_eq!(refused(&listed(MAX_NODES - 2)), ["CN0001"]);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test measures the bound it states")]
fn evaluation_takes_microseconds() {
    let c = ok("node.state in [IDLE, COMPLETING] and active_jobs == 0 and gpu.row_remap_failure == false");
    let set = super::facts([("node.state", super::word("IDLE")), ("active_jobs", super::int(0))]);
    let start = Instant::now();
    for _ in 0..1000 {
        std::hint::black_box(c.evaluate(&set));
    }
    let each = start.elapsed() / 1000;
    // Unoptimised and on a busy machine; the benchmark states the real figure.
    assert!(each.as_micros() < 200, "{each:?}");
}
