//! No parser panics or runs away, whatever it is given: arbitrary bytes, captures with changes, and texts made to hurt.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use engine_adapters::slurm::recognise::{Content, recognise};
use engine_adapters::slurm::text::{SQUEUE_HEADER, TextContext};
use engine_adapters::slurm::{json, text};
use proptest::prelude::*;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Captures of every kind, small ones.
static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/slurm");
    [
        "22.05.8/node-drained.txt",
        "22.05.8/node-drained.rest-v0.0.38.json",
        "22.05.8/node-reason-multiline.txt",
        "22.05.8/node-reason-multiline.oneline.txt",
        "22.05.8/nodes-all-oneline.txt",
        "22.05.8/job-running.detail.txt",
        "22.05.8/job-running.rest-v0.0.38.json",
        "22.05.8/resv-show.txt",
        "22.05.8/resv.rest-v0.0.38.json",
        "22.05.8/partitions.txt",
        "22.05.8/err-ctld-down-ping.txt",
        "22.05.8/restd-err-unknown-node.txt",
        "22.05.8/node-drained.sinfo.txt",
        "22.05.8/mixed-fleet/nodes.txt",
        "22.05.8/mixed-fleet/nodes-detail-lines.txt",
        "22.05.8/mixed-fleet/squeue.txt",
        "22.05.8/mixed-fleet/squeue-default.txt",
        "22.05.8/mixed-fleet/jobs.txt",
        "22.05.8/mixed-fleet/partitions.rest-v0.0.38.json",
        "23.11.11/node/with-admin-fields.txt",
        "23.11.11/node/with-admin-fields.json",
        "23.11.11/node/maint-mixed.txt",
        "23.11.11/error/unknown-node-show.txt",
        "23.11.11/ping.txt",
        "26.05.3/ping.json",
        "26.05.3/job/expediting.json",
        "26.05.3/job/expediting.txt",
        "26.05.3/busy/squeue.txt",
        "26.05.3/busy/sinfo-Nel.txt",
        "26.05.3/partitions.json",
        "26.05.3/reservations.json",
        "26.05.3/reservations.txt",
        "26.05.3/version.txt",
    ]
    .iter()
    .map(|f| std::fs::read(root.join(f)).expect(f))
    .collect()
});

/// Gives the bytes to every parser.
fn feed(bytes: &[u8]) {
    let ctx = TextContext::utc();
    let lossy = String::from_utf8_lossy(bytes);
    let _ = text::parse_nodes(&lossy, &ctx);
    let _ = text::parse_jobs(&lossy, &ctx);
    let _ = text::parse_squeue(&lossy, &ctx);
    let _ = text::parse_reservations(&lossy, &ctx);
    let _ = text::parse_partitions(&lossy);
    let _ = text::parse_ping(&lossy);
    let _ = text::parse_version(&lossy);
    let _ = json::parse_nodes(bytes);
    let _ = json::parse_jobs(bytes);
    let _ = json::parse_reservations(bytes);
    let _ = json::parse_partitions(bytes);
    let _ = json::parse_ping(bytes);
    let _ = json::parse_reply(bytes);
    if let Some(r) = recognise(bytes, &ctx) {
        serde_json::to_string(&r).unwrap();
    }
}

/// One change of a capture.
#[derive(Debug, Clone)]
enum Change {
    Cut(usize),
    Byte(usize, u8),
    Insert(usize, String),
    Remove(usize, usize),
    Repeat(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let piece = prop_oneof![
        "[ -~]{0,12}",
        Just("\n".to_owned()),
        Just(" State=IDLE".to_owned()),
        Just("\nNodeName=n1 State=IDLE".to_owned()),
        Just("\nJobId=1 ".to_owned()),
        Just(" [root@2026-11-21T01:13:52]".to_owned()),
        Just(" Reason=".to_owned()),
        Just("\u{e9}\u{1f600}".to_owned()),
        Just("\u{1f}".to_owned()),
        Just("\"\\u0000".to_owned()),
        Just("{}[]".to_owned()),
        Just("[1-9999999]".to_owned()),
        Just("99999999999999999999".to_owned()),
    ];
    prop_oneof![
        any::<usize>().prop_map(Change::Cut),
        (any::<usize>(), any::<u8>()).prop_map(|(a, b)| Change::Byte(a, b)),
        (any::<usize>(), piece).prop_map(|(a, p)| Change::Insert(a, p)),
        (any::<usize>(), 1..40usize).prop_map(|(a, n)| Change::Remove(a, n)),
        (any::<usize>(), 1..200usize).prop_map(|(a, n)| Change::Repeat(a, n)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let at = |n: usize, len: usize| if len == 0 { 0 } else { n % len };
    let len = bytes.len();
    match change {
        Change::Cut(n) => bytes.truncate(at(*n, len)),
        Change::Byte(n, b) if len > 0 => bytes[n % len] = *b,
        Change::Byte(..) => {}
        Change::Insert(n, p) => {
            let i = at(*n, len);
            bytes.splice(i..i, p.bytes());
        }
        Change::Remove(n, count) => {
            let i = at(*n, len);
            bytes.drain(i..(i + count).min(len));
        }
        Change::Repeat(n, count) => {
            let i = at(*n, len);
            let part = bytes[i..(i + count).min(len)].to_vec();
            bytes.splice(i..i, part);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        feed(&bytes);
    }

    #[test]
    fn arbitrary_text(text in "\\PC{0,300}") {
        feed(text.as_bytes());
    }

    #[test]
    fn changed_captures(seed in any::<prop::sample::Index>(), changes in proptest::collection::vec(change(), 1..6)) {
        let mut bytes = seed.get(&SEEDS).clone();
        for c in &changes {
            apply(&mut bytes, c);
        }
        feed(&bytes);
    }

    /// A capture cut anywhere is never an answer with fewer records than it had lines begun: it is an error, or it ends at a
    /// record's end.
    #[test]
    fn a_cut_json_body_is_an_error(seed in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>()) {
        let bodies: Vec<&Vec<u8>> = SEEDS.iter().filter(|s| s.starts_with(b"{")).collect();
        let body = seed.get(&bodies);
        let end = body.iter().rposition(|b| *b == b'}').unwrap();
        let cut = &body[..cut.index(end)];
        prop_assert!(json::parse_nodes(cut).is_err() && json::parse_jobs(cut).is_err() && json::parse_reservations(cut).is_err());
    }

    /// No free text in a reason changes what is read of the state, and what is read of the reason is the text or unknown.
    #[test]
    fn a_reason_changes_nothing_else(reason in "[ -~]{1,80}", tail in prop_oneof![Just(""), Just(" Comment=a b"), Just(" Extra={} InstanceId=i")]) {
        prop_assume!(reason.trim() == reason);
        let line = format!("NodeName=n1 Gres=(null) State=IDLE+DRAIN Partitions=a Reason={reason} [root@2026-11-21T01:13:52]{tail}\n");
        let node = text::parse_nodes(&line, &TextContext::utc()).unwrap().remove(0);
        prop_assert_eq!(node.state, engine_core::model::NodeState::Drained);
        if let engine_core::Known::Known(r) = &node.reason {
            prop_assert_eq!(&r.as_ref().unwrap().text, &reason);
        }
    }
}

#[test]
fn texts_made_to_hurt_end_in_bounded_time() {
    let repeat = |s: &str, n: usize| s.repeat(n).into_bytes();
    let nodes = |tail: &str| format!("NodeName=n1 State=IDLE {tail}\n").into_bytes();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("brackets", repeat("[", 200_000)),
        ("braces", repeat("{\"nodes\":", 200_000)),
        ("nested lists", [br#"{"errors":[],"nodes":"#.to_vec(), repeat("[", 200_000)].concat()),
        ("nested unknown key", [br#"{"errors":[],"x":"#.to_vec(), repeat("[", 200_000)].concat()),
        ("nested errors", [br#"{"errors":"#.to_vec(), repeat("[", 200_000)].concat()),
        ("reasons", nodes(&format!("Reason={}", "x [root@2026-11-21T01:13:52]        ".repeat(30_000)))),
        ("tail keys", nodes(&"Comment=a Reason=b Extra=c ".repeat(40_000))),
        ("open brackets in reason", nodes(&format!("Reason={}", " [a@".repeat(60_000)))),
        ("states", repeat("NodeName=n1 State=IDLE+A+B+C ", 40_000)),
        ("flags", nodes("").into_iter().chain(repeat("State=", 100_000)).collect()),
        ("records", repeat("NodeName=\n", 30_000)),
        (
            "node list",
            format!(
                "ReservationName=r StartTime=x EndTime=x Flags= Nodes={}\n",
                "n[1-99999],".repeat(10_000)
            )
            .into_bytes(),
        ),
        (
            "many node lists",
            format!(
                "{SQUEUE_HEADER}\n{}",
                "1\u{1f}1\u{1f}RUNNING\u{1f}a\u{1f}a\u{1f}p\u{1f}n[1-99999]\u{1f}N/A\u{1f}N/A\u{1f}x\n"
                    .repeat(2000)
            )
            .into_bytes(),
        ),
        ("one long line", repeat("x", 2_000_000)),
        ("lines", repeat("\n", 250_000)),
        ("spaces", repeat(" ", 1_000_000)),
        ("pipes", repeat("a|", 300_000)),
        ("headers", repeat("JOBID|STATE\n", 30_000)),
        ("nul", vec![0; 300_000]),
        ("high bytes", vec![0xff; 300_000]),
    ];
    for (name, bytes) in cases {
        let start = Instant::now();
        feed(&bytes);
        let took = start.elapsed();
        // Generous: the tests run without optimisation, beside others.
        assert!(took < Duration::from_secs(20), "{name} took {took:?}");
    }
}

#[test]
fn node_names_that_are_not_one_node_stop_the_read() {
    let long = "x".repeat(10_240);
    for name in ["gpu[001-999]", "ALL", "gpu001,gpu002", "", &long, "a;b", "\u{20ac}"] {
        let line = format!("NodeName={name} Gres=(null) State=IDLE\n");
        let error = text::parse_nodes(&line, &TextContext::utc()).unwrap_err().to_string();
        assert!(error.len() < 400, "{error}");
        let body =
            serde_json::json!({"nodes": [{"name": name, "state": ["IDLE"], "reason": ""}], "errors": []});
        assert!(json::parse_nodes(body.to_string().as_bytes()).is_err(), "{name:?}");
    }
}

#[test]
fn what_a_release_to_come_may_print() {
    let ctx = TextContext::utc();
    let state = |bytes: &[u8]| match recognise(bytes, &ctx).unwrap().content {
        Content::Nodes(a) => a.value[0].state.as_str(),
        other => other.kind(),
    };
    // New fields pass, a new flag or base does not.
    assert_eq!(state(b"NodeName=n1 Colour=blue Gres=(null) State=IDLE Shape=round Mood=good Reason=x [root@2026-11-21T01:13:52]\n"), "IDLE");
    assert_eq!(state(b"NodeName=n1 Gres=(null) State=IDLE+HAUNTED\n"), "UNKNOWN");
    assert_eq!(state(b"NodeName=n1 Gres=(null) State=ASLEEP\n"), "UNKNOWN");
    let body = |node: &str| {
        format!(
            r#"{{"nodes":[{{"name":"n1","reason":"",{node},"colour":{{"a":[1]}}}}],"errors":[],"meta":{{"plugin":{{"data_parser":"data_parser/v0.0.99"}}}},"new":7}}"#
        )
    };
    assert_eq!(state(body(r#""state":["IDLE"]"#).as_bytes()), "IDLE");
    assert_eq!(state(body(r#""state":["IDLE","HAUNTED"]"#).as_bytes()), "UNKNOWN");
    assert_eq!(state(body(r#""state":{"base":"IDLE","flags":[]}"#).as_bytes()), "UNKNOWN");
    assert_eq!(state(body(r#""status":["IDLE"]"#).as_bytes()), "failed_read");
}
