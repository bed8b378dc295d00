//! Every captured Slurm output against tables of expected values that were made without these parsers.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use engine_adapters::slurm::recognise::{Content, recognise};
use engine_adapters::slurm::text::TextContext;
use engine_core::known::Known;
use engine_core::model::{Job, Node, NodeName};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/slurm")
}

/// Every capture: its path below the fixtures, and its bytes.
fn captures() -> BTreeMap<String, Vec<u8>> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).expect("fixtures are part of the project") {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, out) } else { out.push(path) }
        }
    }
    let mut files = Vec::new();
    walk(&root(), &mut files);
    let name = |p: &Path| p.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    files
        .iter()
        .filter(|p| p.extension().is_some_and(|e| ["txt", "json", "stderr"].iter().any(|w| e == *w)))
        .map(|p| (name(p), std::fs::read(p).unwrap()))
        .collect()
}

/// The rows of a table by its columns.
fn table(name: &str) -> Vec<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(root().join(name)).unwrap();
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().unwrap().split('\t').collect();
    lines
        .map(|l| {
            let cells: Vec<&str> = l.split('\t').collect();
            assert_eq!(cells.len(), head.len(), "{name}: {l}");
            head.iter().zip(cells).map(|(h, c)| ((*h).to_owned(), c.to_owned())).collect()
        })
        .collect()
}

/// A cell: JSON, a bare word, or `?` for "must be unknown".
fn cell(text: &str) -> Value {
    match text {
        "?" => json!({"unknown": true}),
        _ => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
    }
}

fn known<T>(k: &Known<T>, value: impl FnOnce(&T) -> Value) -> Value {
    match k {
        Known::Known(v) => value(v),
        Known::Unknown(_) => json!({"unknown": true}),
    }
}

fn seconds(t: &Timestamp) -> Value {
    json!(t.as_second())
}

fn node_row(n: &Node) -> BTreeMap<&'static str, Value> {
    let of_reason = |f: &dyn Fn(&engine_core::model::Reason) -> Value| match &n.reason {
        Known::Known(None) => Value::Null,
        Known::Known(Some(r)) => f(r),
        Known::Unknown(_) => json!({"unknown": true}),
    };
    let mut flags: Vec<String> = n.flags.known.iter().map(ToString::to_string).collect();
    flags.extend(n.flags.unknown.iter().map(|_| "?".to_owned()));
    flags.sort();
    BTreeMap::from([
        ("node", json!(n.name)),
        ("state", json!(n.state)),
        ("base", known(&n.base, |b| json!(b))),
        ("flags", json!(flags)),
        ("reason", of_reason(&|r| json!(r.text))),
        ("reason_user", of_reason(&|r| known(&r.user, |u| json!(u)))),
        ("reason_at", of_reason(&|r| known(&r.at, seconds))),
        ("partitions", known(&n.partitions, |v| json!(v))),
        ("features", known(&n.features, |v| json!(v))),
        ("gres", known(&n.gres, |v| json!(v))),
        ("gpus", known(&n.gpus_configured, |v| json!(v))),
        ("gpus_allocated", known(&n.gpus_allocated, |v| json!(v))),
        ("cpus", known(&n.cpus, |v| json!(v))),
        ("cpus_allocated", known(&n.cpus_allocated, |v| json!(v))),
        ("memory", known(&n.memory_mib, |v| json!(v))),
        ("boot", known(&n.boot_time, seconds)),
        ("slurmd_start", known(&n.slurmd_start_time, seconds)),
        ("version", known(&n.slurmd_version, |v| json!(v))),
        ("comment", known(&n.comment, |v| json!(v))),
        ("extra", known(&n.extra, |v| json!(v))),
        ("reservation", known(&n.reservation, |v| json!(v))),
    ])
}

fn job_row(j: &Job) -> BTreeMap<&'static str, Value> {
    let names = |v: &Vec<NodeName>| json!(v);
    let time = |t: &Option<Timestamp>| t.as_ref().map_or(Value::Null, seconds);
    let mut flags: Vec<String> = j.flags.iter().map(ToString::to_string).collect();
    flags.sort();
    assert!(j.unknown_states.is_empty(), "{j:?}");
    BTreeMap::from([
        ("id", json!(j.id)),
        ("shown", json!(j.display_id)),
        ("base", known(&j.state, |s| json!(s))),
        ("flags", json!(flags)),
        ("user", known(&j.user, |v| json!(v))),
        ("account", known(&j.account, |v| json!(v))),
        ("partition", known(&j.partition, |v| json!(v))),
        ("name", known(&j.name, |v| json!(v))),
        ("nodes", known(&j.nodes, names)),
        ("reason", known(&j.state_reason, |v| json!(v))),
        ("start", known(&j.start, time)),
        ("end", known(&j.end, time)),
    ])
}

fn read(file: &str, bytes: &[u8]) -> Option<Content> {
    let found = recognise(bytes, &TextContext::utc()).map(|r| r.content);
    // What is printed must be printable.
    if let Some(c) = &found {
        serde_json::to_string(c).unwrap_or_else(|e| panic!("{file}: {e}"));
    }
    found
}

#[test]
fn every_file_is_what_the_table_says_it_is() {
    let captures = captures();
    let rows = table("expected-files.tsv");
    let expected: BTreeMap<&str, &str> =
        rows.iter().map(|r| (r["file"].as_str(), r["kind"].as_str())).collect();
    let uncovered: Vec<&String> = captures.keys().filter(|f| !expected.contains_key(f.as_str())).collect();
    assert!(uncovered.is_empty(), "not in expected-files.tsv: {uncovered:?}");
    let gone: Vec<&&str> = expected.keys().filter(|f| !captures.contains_key(**f)).collect();
    assert!(gone.is_empty(), "in expected-files.tsv, but not there: {gone:?}");
    let mut wrong = Vec::new();
    for (file, bytes) in &captures {
        let kind = read(file, bytes).map_or("none", |c| c.kind());
        if kind != expected[file.as_str()] {
            wrong.push(format!("{file}: {kind}, expected {}", expected[file.as_str()]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(captures.len() > 850, "{}", captures.len());
}

/// Compares the records of every file of a kind with the table.
fn compare(
    table_name: &str,
    kind: &str,
    rows_of: impl Fn(&str, &Content) -> Vec<BTreeMap<&'static str, Value>>,
) {
    let mut expected: BTreeMap<String, Vec<BTreeMap<String, Value>>> = BTreeMap::new();
    for mut row in table(table_name) {
        let file = row.remove("file").unwrap();
        let row =
            row.iter().map(|(k, v)| (k.clone(), if k == "file" { json!(v) } else { cell(v) })).collect();
        expected.entry(cell(&file).as_str().unwrap().to_owned()).or_default().push(row);
    }
    let (mut wrong, mut records, mut files) = (Vec::new(), 0, 0);
    for (file, bytes) in captures() {
        let Some(content) = read(&file, &bytes) else { continue };
        if content.kind() != kind {
            assert!(!expected.contains_key(&file), "{file} is {}", content.kind());
            continue;
        }
        files += 1;
        let got = rows_of(&file, &content);
        let want = expected.remove(&file).unwrap_or_default();
        assert_eq!(got.len(), want.len(), "{file}: number of records");
        for (g, w) in got.iter().zip(&want) {
            records += 1;
            for (column, value) in g {
                if value != &w[*column] {
                    wrong.push(format!("{file}: {column}: {value}, expected {}", w[*column]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(expected.is_empty(), "files in the table that are not read: {:?}", expected.keys());
    assert!(records > 200 && files > 90, "{records} records of {files} files");
}

#[test]
fn every_node_file_gives_the_expected_nodes() {
    compare("expected-nodes.tsv", "nodes", |_, c| match c {
        Content::Nodes(a) => a.value.iter().map(node_row).collect(),
        _ => vec![],
    });
}

#[test]
fn every_job_file_gives_the_expected_jobs() {
    compare("expected-jobs.tsv", "jobs", |_, c| match c {
        Content::Jobs(a) => a.value.iter().map(job_row).collect(),
        _ => vec![],
    });
}

/// Files that show one situation through several interfaces.
fn situations(captures: &BTreeMap<String, Vec<u8>>) -> Vec<Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in captures.keys() {
        let (version, rest) = file.split_once('/').unwrap();
        let key = match rest.split('/').collect::<Vec<_>>()[..] {
            // one situation read by scontrol, squeue and slurmrestd
            ["mixed-fleet", name] => {
                format!("{version}/mixed-fleet/{}", if name.starts_with("nodes") { "nodes" } else { "jobs" })
            }
            ["busy", name] if name.starts_with("nodes") => format!("{version}/busy/nodes"),
            ["busy", name] if name.starts_with("jobs") || name.starts_with("squeue.") => {
                format!("{version}/busy/jobs")
            }
            [dir, "nodes.json"] if dir.starts_with("cli-") => format!("{version}/busy/nodes"),
            ["rest", _, "nodes.json"] => format!("{version}/busy/nodes"),
            ["rest", _, "jobs.json"] => format!("{version}/busy/jobs"),
            ["node" | "job", name] if !name.contains("squeue") => format!("{version}/{}", file_stem(rest)),
            [name] if version == "22.05.8" && name.starts_with("node-") => {
                format!("{version}/{}", file_stem(name))
            }
            _ => continue,
        };
        groups.entry(key).or_default().push(file.clone());
    }
    groups.into_values().filter(|g| g.len() > 1).collect()
}

fn file_stem(name: &str) -> String {
    let stem = name.rsplit_once('.').unwrap().0;
    stem.trim_end_matches(".rest-v0.0.38").trim_end_matches(".oneline").trim_end_matches(".detail").to_owned()
}

/// Says whether the columns agree where both are known; boot times jitter by a second.
fn agree(column: &str, a: &Value, b: &Value) -> bool {
    let unknown = |v: &Value| v.get("unknown").is_some();
    let near = |a: &Value, b: &Value| a.as_i64().zip(b.as_i64()).is_some_and(|(a, b)| (a - b).abs() <= 1);
    // A state of which flags or base are not told is unknown itself.
    let open = |v: &Value| unknown(v) || v == "UNKNOWN" || v == &json!(["?"]);
    open(a) || open(b) || a == b || (column == "boot" && near(a, b))
}

#[test]
fn text_cli_json_and_rest_bodies_of_one_situation_agree() {
    // Captured a moment apart, while something changed; looked at by hand.
    const MOVED: &[(&str, &[&str])] = &[
        ("22.05.8/node-reboot-requested", &["base", "flags", "state", "reason", "reason_user", "reason_at"]),
        // the backfill scheduler estimated the start of a pending job meanwhile
        ("26.05.3/busy/jobs", &["start", "end"]),
        // the node answered meanwhile
        ("26.05.3/node/drained-rest", &["flags", "state"]),
    ];
    // The layouts of squeue without job number show that of the array.
    let shows_array_only = |f: &str| f.ends_with("busy/squeue.txt");
    let captures = captures();
    let (mut wrong, mut pairs) = (Vec::new(), 0);
    for group in situations(&captures) {
        let mut rows: Vec<(String, String, BTreeMap<&'static str, Value>)> = Vec::new();
        for file in &group {
            match read(file, &captures[file]) {
                Some(Content::Nodes(a)) => {
                    rows.extend(a.value.iter().map(|n| (file.clone(), n.name.to_string(), node_row(n))));
                }
                Some(Content::Jobs(a)) => {
                    rows.extend(a.value.iter().map(|j| (file.clone(), j.display_id.clone(), job_row(j))));
                }
                _ => {}
            }
        }
        for (i, (file, id, row)) in rows.iter().enumerate() {
            for (other, _, theirs) in rows[i + 1..].iter().filter(|(f, other, _)| other == id && f != file) {
                pairs += 1;
                for (column, value) in row {
                    let moved =
                        MOVED.iter().any(|(f, columns)| file.starts_with(f) && columns.contains(column))
                            || (*column == "id" && (shows_array_only(file) || shows_array_only(other)));
                    if !moved && !agree(column, value, &theirs[column]) {
                        wrong.push(format!(
                            "{id}: {column}: {value} in {file}, {} in {other}",
                            theirs[column]
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(pairs > 500, "{pairs} pairs compared");
}

fn names(nodes: &Known<Vec<NodeName>>) -> String {
    nodes.known().map_or("?".into(), |n| n.iter().map(NodeName::as_str).collect::<Vec<_>>().join(","))
}

#[test]
fn reservations_are_as_they_were_made() {
    // File, nodes, begin and end; all of them have these flags and the user root.
    let expected = [
        ("22.05.8/resv-show.txt", "maint1", "gpu004", 1_795_223_947, 1_795_224_547),
        ("22.05.8/resv.rest-v0.0.38.json", "maint1", "gpu004", 1_795_223_947, 1_795_224_547),
        ("22.05.8/mixed-fleet/reservations.txt", "fw", "gpu003", 1_795_251_130, 1_795_252_930),
        ("22.05.8/mixed-fleet/reservations-lines.txt", "fw", "gpu003", 1_795_251_130, 1_795_252_930),
        ("22.05.8/mixed-fleet/reservations.rest-v0.0.37.json", "fw", "gpu003", 1_795_251_130, 1_795_252_930),
        ("22.05.8/mixed-fleet/reservations.rest-v0.0.38.json", "fw", "gpu003", 1_795_251_130, 1_795_252_930),
        ("23.11.11/reservations.txt", "fw", "n2,n4", 1_795_225_409, 1_795_227_209),
        ("23.11.11/reservations.json", "fw", "n2,n4", 1_795_225_409, 1_795_227_209),
        ("26.05.3/reservations.txt", "fw", "n2,n4", 1_795_225_270, 1_795_227_070),
        ("26.05.3/reservations.json", "fw", "n2,n4", 1_795_225_270, 1_795_227_070),
    ];
    let captures = captures();
    let kinds = table("expected-files.tsv");
    assert_eq!(kinds.iter().filter(|r| r["kind"] == "reservations").count(), expected.len());
    for (file, name, nodes, start, end) in expected {
        let Some(Content::Reservations(a)) = read(file, &captures[file]) else { panic!("{file}") };
        assert_eq!(a.value.len(), 1, "{file}");
        let r = &a.value[0];
        assert_eq!((r.name.as_str(), names(&r.nodes).as_str()), (name, nodes), "{file}");
        let second = |t: &Known<Timestamp>| t.known().map(|t| t.as_second());
        assert_eq!((second(&r.start), second(&r.end)), (Some(start), Some(end)), "{file}");
        let flags = ["MAINT", "IGNORE_JOBS", "SPEC_NODES"].map(String::from).to_vec();
        assert_eq!(
            (&r.flags, &r.users, &r.accounts),
            (&flags.into(), &vec!["root".to_owned()].into(), &vec![].into()),
            "{file}"
        );
    }
}

#[test]
fn partitions_are_as_configured() {
    let captures = captures();
    let mut seen = 0;
    for row in table("expected-files.tsv").iter().filter(|r| r["kind"] == "partitions") {
        let file = row["file"].as_str();
        let Some(Content::Partitions(a)) = read(file, &captures[file]) else { panic!("{file}") };
        let got: Vec<String> = a
            .value
            .iter()
            .map(|p| {
                let is_default = p.is_default.known().map_or("?".into(), ToString::to_string);
                let state = p.state.known().map_or("?", String::as_str);
                format!("{} {} {state} {is_default}", p.name, names(&p.nodes))
            })
            .collect();
        let all = "gpu001,gpu002,gpu003,gpu004";
        let expected = match file {
            // the parsers that do not say which partition is the default, or what state it is in
            "23.11.11/partitions.json" => ["gpu n1,n2,n3,n4 UP ?".to_owned(), "debug n1,n2 UP ?".to_owned()],
            "22.05.8/mixed-fleet/partitions.rest-v0.0.36.json" => {
                [format!("main {all} ? true"), format!("high {all} ? false")]
            }
            "26.05.3/partitions.json" => {
                ["gpu n1,n2,n3,n4 UP true".to_owned(), "debug n1,n2 UP false".to_owned()]
            }
            _ => [format!("main {all} UP true"), format!("high {all} UP false")],
        };
        assert_eq!(got, expected, "{file}");
        seen += 1;
    }
    assert_eq!(seen, 7);
}

#[test]
fn pings_tell_up_from_down() {
    let captures = captures();
    let mut seen = 0;
    for row in table("expected-files.tsv").iter().filter(|r| r["kind"] == "pings") {
        let file = row["file"].as_str();
        let Some(Content::Pings(a)) = read(file, &captures[file]) else { panic!("{file}") };
        let down = file.contains("controller-") || file.contains("err-ctld");
        assert_eq!(
            (a.value.len(), &a.value[0].up, &a.value[0].primary),
            (1, &Known::Known(!down), &Known::Known(true)),
            "{file}"
        );
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn releases_and_data_parsers_are_named() {
    let captures = captures();
    for version in ["22.05.8", "23.11.11", "26.05.3"] {
        let file = format!("{version}/version.txt");
        let Some(Content::Version(r)) = read(&file, &captures[&file]) else { panic!("{file}") };
        assert_eq!(r.to_string(), version);
    }
    let mut seen = std::collections::BTreeSet::new();
    for (file, bytes) in
        captures.iter().filter(|(f, _)| f.contains(".json") && (f.contains("cli-") || f.contains("rest")))
    {
        let Some(Content::Nodes(a)) = read(file, bytes) else { continue };
        let parser = a.source.data_parser.known().unwrap_or_else(|| panic!("{file}")).clone();
        assert!(file.contains(&parser) || file.contains("rest.json"), "{file}: {parser}");
        assert!(file.starts_with(a.source.slurm_release.known().unwrap().as_str()), "{file}");
        seen.insert(parser);
    }
    let known = ["v0.0.36", "v0.0.37", "v0.0.38", "v0.0.40", "v0.0.42", "v0.0.43", "v0.0.44", "v0.0.45"];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), known);
}

#[test]
fn failed_reads_say_what_failed() {
    let captures = captures();
    for (file, cause, words) in [
        ("22.05.8/err-ctld-down-squeue-json.txt", "read_failed", "Failed while looking for jobs"),
        ("22.05.8/err-ctld-down-sinfo-json.txt", "read_failed", "Unspecified error"),
        ("22.05.8/err-unknown-node-show.txt", "read_failed", "Node nope001 not found"),
        ("22.05.8/mixed-fleet/nodes-one-unknown.txt", "read_failed", "Node nope not found"),
        ("22.05.8/restd-err-no-token.txt", "read_failed", "Authentication failure"),
        ("22.05.8/restd-err-unknown-node.txt", "read_failed", "error 2018"),
        ("22.05.8/restd-nodes-update_time.txt", "empty_answer", "HTTP 304"),
        ("22.05.8/mixed-fleet/jobs.txt", "unparsable", "JobState"),
        ("22.05.8/err-ctld-down-scontrol-show.txt", "empty_answer", "empty output"),
        ("22.05.8/err-ctld-down-scontrol-show.txt.stderr", "read_failed", "Unable to contact"),
        ("23.11.11/cli-v0.0.39/nodes.json", "empty_answer", "empty output"),
        ("23.11.11/rest/v0.0.39/jobs.json", "read_failed", ""),
        ("23.11.11/error/unknown-node-show-json.txt", "empty_answer", "nodes"),
        ("26.05.3/rest/error/unknown-node-get.json", "read_failed", "error 0"),
        ("26.05.3/error/controller-down-nodes-json.txt", "read_failed", "exit code 1: slurm_load_node error"),
        ("26.05.3/error/bad-json-plugin.txt", "read_failed", "exit code 1"),
        ("26.05.3/rest/error/no-token.txt", "read_failed", "Authentication failure"),
    ] {
        let Some(Content::FailedRead(u)) = read(file, &captures[file]) else { panic!("{file}") };
        assert_eq!(u.cause.as_str(), cause, "{file}: {}", u.detail);
        assert!(u.detail.contains(words) && u.detail.len() < 700, "{file}: {}", u.detail);
    }
}
