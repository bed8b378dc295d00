//! What the cost and the racks of a policy are read from: pending jobs and the topology, against captures.

#![expect(clippy::unwrap_used, reason = "helpers of tests stop at the first surprise")]

use engine_adapters::slurm::text::{PENDING_HEADER, TextContext, parse_pending};
use engine_adapters::slurm::topology::{parse_topology, read_topology_conf};
use engine_adapters::slurm::{ParseError, SlurmBackend, SlurmConfig};
use engine_core::known::{Cause, Known};
use engine_core::policy::Topology;
use engine_runtime::ports::Scheduler as _;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

fn capture(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    fs::read_to_string(root.join(path)).unwrap()
}

fn racks(t: &Topology) -> Vec<String> {
    t.racks.iter().map(|(n, h)| format!("{n}: {h}")).collect()
}

fn fabrics(t: &Topology) -> Vec<String> {
    t.fabrics.iter().map(|(n, h)| format!("{n}: {h}")).collect()
}

#[test]
fn the_file_and_what_slurmctld_shows_say_the_same() {
    for file in ["slurm-topology/22.05.8/topology.conf", "slurm-topology/22.05.8/show-topology.txt"] {
        let t = parse_topology(&capture(file)).unwrap();
        assert_eq!(racks(&t), ["leaf1: gpu[001-002]", "leaf2: gpu[003-004]"], "{file}");
        assert!(t.fabrics.is_empty(), "{file}");
    }
}

#[test]
fn every_capture_is_named_here() {
    let mut files = Vec::new();
    for dir in ["slurm-topology", "slurm-pending"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(dir);
        for version in fs::read_dir(&root).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()) {
            files.extend(
                fs::read_dir(version).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()),
            );
        }
    }
    files.sort();
    assert_eq!(
        files,
        [
            "show-topology-none.txt",
            "show-topology-none.txt.stderr",
            "show-topology.txt",
            "squeue-pending-none.txt",
            "squeue-pending.txt",
            "topology.conf"
        ]
    );
}

/// The forms of the manual of topology.conf and of `scontrol show topology` with the block plugin.
#[test]
fn blocks_are_fabric_domains() {
    let conf = "# NVLink domains\nBlockName=block1 Nodes=node[01-18]\nblockname=block2 nodes=node[19-36] # second\nBlockSizes=18,36\n";
    let shown = "BlockName=block1 BlockIndex=0 Nodes=node[01-18] BlockSize=18\nBlockName=block2 BlockIndex=1 Nodes=node[19-36] BlockSize=18\n";
    for text in [conf, shown] {
        let t = parse_topology(text).unwrap();
        assert_eq!(fabrics(&t), ["block1: node[01-18]", "block2: node[19-36]"], "{text}");
        assert!(t.racks.is_empty());
    }
}

#[test]
fn comments_continued_lines_and_cases_are_read() {
    let t = parse_topology(
        "SWITCHNAME=s0 NODES=a[1-2],b1 LinkSpeed=100\r\nSwitchName=s1 \\\n  Nodes=c[1-3] \\\n # the top\nSwitchName=DEFAULT LinkSpeed=200\nSwitchName=top Switches=s[0-1]\n\n",
    )
    .unwrap();
    assert_eq!(racks(&t), ["s0: a[1-2],b1", "s1: c[1-3]"]);
    let three = parse_topology("SwitchName=a Level=0 LinkSpeed=1 Nodes=n1\nSwitchName=b Level=1 LinkSpeed=1 Nodes=n1 Switches=a\nSwitchName=c Level=2 LinkSpeed=1 Nodes=n1 Switches=b\n").unwrap();
    assert_eq!(racks(&three), ["a: n1"]);
}

#[test]
fn what_is_not_understood_is_no_topology() {
    for (text, word) in [
        ("", "empty"),
        (" \n# comment\n", "no SwitchName"),
        ("include /etc/slurm/other.conf\n", "no record known here"),
        ("- topology: default\n  tree:\n", "no record known here"),
        ("SwitchName=s0 Nodes=n[1-\n", "brackets"),
        ("SwitchName=s0 Nodes=n[1-999999999]\n", "more than"),
        ("SwitchName=s0 Nodes=n1\nSwitchName=s0 Nodes=n2\n", "there twice"),
        ("SwitchName=s0 Nodes=n1 Nodes=n2\n", "nodes twice"),
        ("SwitchName= Nodes=n1\n", "not a name"),
        ("RingName=r0 Nodes=n1\n", "no record known here"),
        ("slurm_load_topo error: Unable to contact slurm controller\n", "no record known here"),
    ] {
        let e = parse_topology(text).unwrap_err();
        let shown = e.to_string().to_lowercase();
        assert!(shown.contains(&word.to_lowercase()), "{text:?}: {shown}");
    }
    let wide: String = (0..40).map(|i| format!("SwitchName=s{i} Nodes=n{i}_[1-60000]\n")).collect();
    assert!(parse_topology(&wide).is_err(), "all lists together are bounded");
}

#[test]
fn a_file_that_is_not_there_is_no_topology_and_an_unreadable_one_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("topology.conf");
    assert_eq!(read_topology_conf(&path), Known::Known(None));
    fs::write(&path, "SwitchName=s0 Nodes=n[1-2]\n").unwrap();
    assert_eq!(racks(read_topology_conf(&path).known().unwrap().as_ref().unwrap()), ["s0: n[1-2]"]);
    fs::write(&path, "SwitchName=s0 Nodes=n[1-\n").unwrap();
    assert!(matches!(read_topology_conf(&path), Known::Unknown(u) if u.cause == Cause::Unparsable));
    fs::write(&path, b"SwitchName=s0 Nodes=\xff\n").unwrap();
    assert!(matches!(read_topology_conf(&path), Known::Unknown(u) if u.cause == Cause::ReadFailed));
    assert!(matches!(read_topology_conf(dir.path()), Known::Unknown(_)));
    fs::write(dir.path().join("topology.yaml"), "- topology: default\n").unwrap();
    assert!(matches!(read_topology_conf(&path), Known::Unknown(u) if u.detail.contains("topology.yaml")));
}

#[test]
fn pending_jobs_say_what_they_asked_for_and_where_they_are_planned() {
    let jobs =
        parse_pending(&capture("slurm-pending/22.05.8/squeue-pending.txt"), &TextContext::utc()).unwrap();
    let line = |j: &engine_core::model::PendingJob| {
        let nodes = |k: &Known<Vec<engine_core::model::NodeName>>| {
            k.known()
                .unwrap()
                .iter()
                .map(|n| n.as_str().trim_start_matches("gpu00").to_owned())
                .collect::<String>()
        };
        let (named, planned) = (nodes(&j.named), nodes(&j.planned));
        format!(
            "{} wants {} [{named}] planned [{planned}] {}",
            j.display_id,
            j.nodes,
            j.start.known().unwrap().is_some()
        )
    };
    assert_eq!(
        jobs.iter().map(line).collect::<Vec<_>>(),
        [
            "3 wants 1 [1] planned [1] true",
            "4 wants 4 [] planned [1234] true",
            "7 wants 1 [] planned [] true",
            "6 wants 1 [] planned [] false",
        ]
    );
    assert_eq!(jobs[0].partitions, Known::Known(vec!["main".to_owned()]));
    assert!(jobs[1].reason.known().unwrap().starts_with("Nodes required for job are DOWN, DRAINED"));
    let none = capture("slurm-pending/22.05.8/squeue-pending-none.txt");
    assert_eq!(parse_pending(&none, &TextContext::utc()).unwrap(), []);
}

#[test]
fn rows_that_are_cut_short_or_odd_are_errors_or_unknown() {
    let parse = |row: &str| {
        parse_pending(&format!("{PENDING_HEADER}\n{}\n", row.replace('|', "\u{1f}")), &TextContext::utc())
    };
    let many = parse("5_[1-3]|ada|main,high|2-4||(null)|N/A|Priority").unwrap();
    assert_eq!(many[0].nodes, Known::Known(2));
    assert_eq!(many[0].partitions.known().unwrap().len(), 2);
    let odd = parse("5|(null)|(null)|many|n[1-|n1 n2|soon|").unwrap();
    let o = &odd[0];
    assert!(!o.user.is_known() && !o.partitions.is_known() && !o.nodes.is_known() && !o.named.is_known());
    assert!(!o.planned.is_known() && !o.start.is_known() && !o.reason.is_known());
    for bad in ["5|ada|main|2", "|ada|main|2||(null)|N/A|x", "5|ada|main|2||(null)|N/A|x|y", ""] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
    for text in ["", "\n", "JOBID\n", PENDING_HEADER, "squeue: error: Unable to contact slurm controller\n"] {
        assert!(parse_pending(text, &TextContext::utc()).is_err(), "{text:?}");
    }
    let failed = parse_pending("squeue: error: Unable to contact slurm controller\n", &TextContext::utc());
    assert!(matches!(failed, Err(ParseError::ReadFailed { .. })));
}

fn script(dir: &Path, name: &str, body: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The backend against commands that print captures and expect their arguments.
#[tokio::test]
async fn the_backend_asks_for_the_topology_and_believes_only_clean_answers() {
    let dir = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/slurm-topology/22.05.8");
    let fixtures = fixtures.canonicalize().unwrap();
    let squeue = script(dir.path(), "squeue", "exit 9");
    let backend = |body: &str| {
        let expect = "[ \"$*\" = 'show topology' ] || { echo \"unexpected: $*\" >&2; exit 64; }";
        let scontrol = script(dir.path(), "scontrol", &format!("{expect}\n{body}"));
        let config =
            SlurmConfig { scontrol: Some(scontrol), squeue: Some(squeue.clone()), ..SlurmConfig::default() };
        SlurmBackend::new(config).unwrap()
    };
    let shown = backend(&format!("cat {}/show-topology.txt", fixtures.display())).topology().await;
    assert_eq!(racks(shown.known().unwrap().as_ref().unwrap()).len(), 2);
    let none = backend(&format!("cat {}/show-topology-none.txt.stderr >&2", fixtures.display()));
    assert_eq!(none.topology().await, Known::Known(None));
    for body in [
        "exit 1",
        "echo 'slurm_load_topo error: Unable to contact slurm controller' >&2; exit 1",
        "true",
        "echo 'SwitchName=s0 Nodes=n1'; echo 'scontrol: error: half of it' >&2",
        "echo 'scontrol: error: No topology information available' >&2; exit 1",
        "echo 'scontrol: error: No topology information available' >&2; echo 'and more' >&2",
        "echo 'SwitchName=s0 Nodes=n['",
    ] {
        assert!(!backend(body).topology().await.is_known(), "{body}");
    }
    // Pending jobs come through the port; a controller that cannot be probed gives none.
    assert!(backend("exit 1").pending().await.is_err());
}

proptest! {
    #[test]
    fn no_text_panics(text in "(SwitchName|Nodes|BlockName|=|s0|n\\[1-3\\]|[ -~\\n\\\\#]){0,40}") {
        let _ = parse_topology(&text);
        let _ = parse_pending(&text, &TextContext::utc());
        let _ = parse_pending(&format!("{PENDING_HEADER}\n{text}\n"), &TextContext::utc());
    }
}
