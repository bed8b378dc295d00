//! The Slurm backend against clients that answer from captures, lie, hang or die. Needs no Slurm.
#![expect(clippy::unwrap_used, reason = "a test says what it finds by failing")]

use engine_adapters::slurm::{ReadVia, SlurmBackend, SlurmConfig, Verdict};
use engine_core::known::{Cause, Known, Unknown};
use engine_core::model::{NodeFlag, NodeName, NodeState};
use engine_runtime::ports::{LockReservation, RefusalKind, Scheduler as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Clients in a directory of their own: shell scripts that answer what they were told to, and refuse the rest.
struct Fake {
    dir: tempfile::TempDir,
    cases: Vec<(String, String)>,
}

impl Fake {
    /// Clients of a release that answer `show config`.
    fn of(release: &str) -> Self {
        let mut fake = Self { dir: tempfile::tempdir().unwrap(), cases: Vec::new() };
        fake.on(
            "scontrol show config",
            &cat(&fixtures().join("slurm-probe").join(release).join("config.txt")),
        );
        fake
    }

    /// Says what a command line that matches the pattern of `case` does.
    fn on(&mut self, pattern: &str, script: &str) {
        self.cases.push((pattern.to_owned(), script.to_owned()));
    }

    fn backend(&self, read_via: ReadVia) -> SlurmBackend {
        let mut script = String::from("#!/bin/sh\ncase \"${0##*/} $*\" in\n");
        for (pattern, what) in &self.cases {
            script.push_str(&format!("{}) {what} ;;\n", pattern.replace(' ', "\\ ")));
        }
        script.push_str("*) echo \"unexpected: $*\" >&2; exit 97 ;;\nesac\n");
        let mut paths = Vec::new();
        for name in ["scontrol", "squeue"] {
            let path = self.dir.path().join(name);
            std::fs::write(&path, &script).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            paths.push(path);
        }
        let squeue = paths.pop();
        let config = SlurmConfig {
            scontrol: paths.pop(),
            squeue,
            read_via,
            read_deadline_seconds: 2,
            ..SlurmConfig::default()
        };
        SlurmBackend::new(config).unwrap()
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn cat(file: &Path) -> String {
    assert!(file.is_file(), "{}", file.display());
    format!("cat '{}'", file.display())
}

fn slurm(file: &str) -> String {
    cat(&fixtures().join("slurm").join(file))
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn lock(name: &str) -> LockReservation {
    LockReservation {
        name: format!("slurmedic-{name}"),
        node: node(name),
        end: "2030-01-01T00:00:00Z".parse().unwrap(),
    }
}

const HEADER: &str = "JOBID\\037JOBID\\037STATE\\037USER\\037ACCOUNT\\037PARTITION\\037NODELIST\\037START_TIME\\037END_TIME\\037REASON\\n";

fn cause<T: std::fmt::Debug>(read: Result<T, Unknown>) -> Cause {
    read.unwrap_err().cause
}

#[tokio::test]
async fn json_of_each_release_is_asked_for_by_name_and_read() {
    for (release, parser, nodes) in [("23.11.11", "v0.0.40", 4), ("26.05.3", "v0.0.45", 4)] {
        let mut fake = Fake::of(release);
        let list =
            std::fs::read_to_string(fixtures().join("slurm-probe").join(release).join("json-list.txt"))
                .unwrap();
        let (_, streams) = list.split_once("--- stdout\n").unwrap();
        let (out, err) = streams.split_once("--- stderr\n").unwrap();
        fake.on("scontrol --json=list show nodes", &format!("printf %s '{out}'; printf %s '{err}' >&2"));
        fake.on(
            &format!("scontrol -a --json={parser} show nodes"),
            &slurm(&format!("{release}/busy/nodes.json")),
        );
        fake.on(
            &format!("scontrol -a --json={parser} show node n1"),
            &slurm(&format!("{release}/node/idle.json")),
        );
        fake.on(
            &format!("scontrol -a --json={parser} show node nope"),
            &after_streams(release, "unknown-node-show-json"),
        );
        fake.on(&format!("squeue -a -t all --json={parser}"), &slurm(&format!("{release}/busy/squeue.json")));
        fake.on(
            &format!("scontrol -a --json={parser} show reservations"),
            &slurm(&format!("{release}/reservations.json")),
        );
        fake.on(
            &format!("scontrol -a --json={parser} show partitions"),
            &slurm(&format!("{release}/partitions.json")),
        );
        let b = fake.backend(ReadVia::Json);
        let c = b.controller().await.unwrap().value;
        assert_eq!(c.version, Known::Known(release.to_owned()));
        assert!(c.read_by.contains(&format!("--json={parser}")), "{}", c.read_by);
        assert_eq!(b.nodes().await.unwrap().value.len(), nodes);
        assert_eq!(b.node(&node("n1")).await.unwrap().value.state, NodeState::Idle);
        // An unknown name: exit code 0 and an empty list.
        assert_eq!(cause(b.node(&node("nope")).await), Cause::EmptyAnswer, "{release}");
        let on_n1 = b.jobs_on(&node("n1")).await.unwrap().value;
        assert!(!on_n1.is_empty() && on_n1.len() < b.jobs().await.unwrap().value.len(), "{release}");
        assert!(on_n1.iter().all(|j| j.nodes.is_known_and(|n| n.contains(&node("n1")))));
        assert_eq!(b.reservations().await.unwrap().value.len(), 1);
        assert!(!b.partitions().await.unwrap().value.is_empty());
    }
}

/// Prints the standard output that a capture with a frame holds, or the bare file.
fn after_streams(release: &str, name: &str) -> String {
    let file = fixtures().join(format!("slurm/{release}/error/{name}.txt"));
    format!("sed '1,/^--- stdout/d; /^--- stderr/,$d' '{}'", file.display())
}

#[tokio::test]
async fn text_of_newer_releases_is_read() {
    for release in ["23.11.11", "26.05.3"] {
        let mut fake = Fake::of(release);
        fake.on("scontrol -a -d -o show nodes", &slurm(&format!("{release}/busy/nodes-detail.txt")));
        fake.on("scontrol -a -o show reservations", &slurm(&format!("{release}/reservations.txt")));
        let b = fake.backend(ReadVia::Auto);
        assert!(b.controller().await.unwrap().value.read_by.contains("text"));
        let nodes = b.nodes().await.unwrap().value;
        assert_eq!(nodes.len(), 4);
        assert!(nodes.iter().any(|n| n.flags.has(NodeFlag::Drain)));
        assert_eq!(b.reservations().await.unwrap().value.len(), 1);
    }
}

#[tokio::test]
async fn an_unknown_release_is_tried_before_it_is_believed() {
    let mut fake = Fake { dir: tempfile::tempdir().unwrap(), cases: Vec::new() };
    let config = fixtures().join("slurm-probe/26.05.3/config.txt");
    fake.on("scontrol show config", &format!("sed 's/26.05.3/31.05.0/' '{}'", config.display()));
    fake.on("scontrol -a -d -o show nodes", "echo 'Node: n1'");
    fake.on("scontrol --json=list show nodes", "echo data_parser/v0.0.60");
    let release = "26.05.3";
    fake.on("scontrol -a --json=v0.0.60 show nodes", &slurm(&format!("{release}/idle/nodes.json")));
    fake.on("squeue -a -t all --json=v0.0.60", &slurm(&format!("{release}/idle/squeue.json")));
    fake.on("scontrol -a --json=v0.0.60 show reservations", &slurm(&format!("{release}/reservations.json")));
    fake.on("scontrol -a --json=v0.0.60 show partitions", &slurm(&format!("{release}/partitions.json")));
    let c = fake.backend(ReadVia::Auto).controller().await.unwrap().value;
    assert!(c.read_by.contains("v0.0.60"), "{}", c.read_by);
    // The same with no way left.
    fake.cases.truncate(2);
    let u = fake.backend(ReadVia::Auto).controller().await.unwrap_err();
    assert!(u.detail.contains("no way of reading works"), "{u}");
}

#[tokio::test]
async fn no_output_is_never_no_jobs() {
    let idle = "echo 'NodeName=n1 State=IDLE Gres=(null)'";
    for (squeue, node_line, want) in [
        ("exit 0", idle, Cause::EmptyAnswer),
        ("echo", idle, Cause::EmptyAnswer),
        ("echo garbage", idle, Cause::Unparsable),
        ("echo 'JOBID|STATE'", idle, Cause::Unparsable),
        ("printf 'JOBID'", idle, Cause::Unparsable),
        ("echo 'squeue: error: x'", idle, Cause::ReadFailed),
        ("exit 1", idle, Cause::ReadFailed),
        ("kill -9 $$", idle, Cause::ReadFailed),
        ("sleep 30", idle, Cause::TimedOut),
    ] {
        let mut fake = Fake::of("22.05.8");
        fake.on("squeue *-w n1", squeue);
        fake.on("scontrol -a -d -o show node n1", node_line);
        let start = Instant::now();
        assert_eq!(cause(fake.backend(ReadVia::Auto).jobs_on(&node("n1")).await), want, "{squeue}");
        assert!(start.elapsed() < Duration::from_secs(9), "{squeue}");
        let (read, jobs) = fake.backend(ReadVia::Auto).node_with_jobs(&node("n1")).await;
        assert!(read.is_ok() && cause(jobs) == want, "{squeue}");
    }
    // The due header is believed only together with a quiet stderr and a node that agrees.
    let header = format!("printf '{HEADER}'");
    for (squeue, state, want) in [
        (header.clone(), "IDLE", None),
        (header.clone(), "IDLE+DRAIN", None),
        (header.clone(), "ALLOCATED", Some(Cause::Conflicting)),
        (header.clone(), "MIXED+DRAIN", Some(Cause::Conflicting)),
        (header.clone(), "IDLE+COMPLETING", Some(Cause::Conflicting)),
        (header.clone(), "WHAT", Some(Cause::Conflicting)),
        (format!("{header}; echo x >&2"), "IDLE", Some(Cause::ReadFailed)),
        (format!("{header}; exit 1"), "IDLE", Some(Cause::ReadFailed)),
        (format!("{header}; printf '7\\0377'"), "IDLE", Some(Cause::Unparsable)),
    ] {
        let mut fake = Fake::of("22.05.8");
        fake.on("squeue *-w n1", &squeue);
        fake.on("scontrol -a -d -o show node n1", &format!("echo 'NodeName=n1 State={state} Gres=(null)'"));
        let b = fake.backend(ReadVia::Auto);
        let (read, beside) = b.node_with_jobs(&node("n1")).await;
        assert_eq!(read.unwrap().value.name, node("n1"), "{squeue} {state}");
        for jobs in [b.jobs_on(&node("n1")).await, beside] {
            match (jobs, want) {
                (Ok(o), None) => assert_eq!(o.value, vec![]),
                (Err(u), Some(want)) => assert_eq!(u.cause, want, "{squeue} {state}: {u}"),
                (got, want) => panic!("{squeue} {state}: {got:?}, wanted {want:?}"),
            }
        }
    }
    // A node that cannot be read proves nothing about its jobs.
    let mut fake = Fake::of("22.05.8");
    fake.on("squeue *-w n1", &header);
    fake.on("scontrol -a -d -o show node n1", "exit 1");
    let (read, jobs) = fake.backend(ReadVia::Auto).node_with_jobs(&node("n1")).await;
    assert!(cause(read) == Cause::ReadFailed && cause(jobs) == Cause::ReadFailed);
}

#[tokio::test]
async fn a_node_is_only_what_scontrol_cleanly_says_about_it() {
    for (script, want) in [
        ("exit 0", Cause::EmptyAnswer),
        ("echo 'Node n1 not found'; exit 1", Cause::ReadFailed),
        ("echo 'Node n1 not found'", Cause::ReadFailed),
        ("echo garbage", Cause::Unparsable),
        ("echo 'NodeName=n2 State=IDLE Gres=(null)'", Cause::Conflicting),
        ("printf 'NodeName=n1 State=IDLE\\nNodeName=n2 State=IDLE\\n'", Cause::Conflicting),
        ("echo 'NodeName=n1 State=IDLE'; echo oops >&2", Cause::ReadFailed),
        ("head -c 100000 /dev/urandom", Cause::Unparsable),
        ("sleep 30", Cause::TimedOut),
        ("kill -TERM $$", Cause::ReadFailed),
    ] {
        let mut fake = Fake::of("23.11.11");
        fake.on("scontrol -a -d -o show node n1", script);
        assert_eq!(cause(fake.backend(ReadVia::Auto).node(&node("n1")).await), want, "{script}");
    }
}

#[tokio::test]
async fn writes_are_told_apart() {
    let update = "scontrol update nodename=n1 state=drain reason=why";
    for (script, want) in [
        ("exit 0", "accepted"),
        ("echo hello", "ambiguous"),
        ("exit 1", "ambiguous"),
        ("kill -9 $$", "ambiguous"),
        ("sleep 30", "ambiguous"),
        ("echo 'slurm_update error: Socket timed out on send/recv operation' >&2; exit 1", "ambiguous"),
        ("echo 'slurm_update error: Invalid user id' >&2; exit 1", "refused"),
    ] {
        let mut fake = Fake { dir: tempfile::tempdir().unwrap(), cases: Vec::new() };
        // Given up after MessageTimeout + 1.
        let config = fixtures().join("slurm-probe/22.05.8/config.txt");
        fake.on(
            "scontrol show config",
            &format!("sed 's/^MessageTimeout .*/MessageTimeout = 1 sec/' '{}'", config.display()),
        );
        fake.on(update, script);
        let b = fake.backend(ReadVia::Auto);
        let b =
            SlurmBackend::new(SlurmConfig { write_deadline_seconds: Some(1), ..b.configuration().clone() })
                .unwrap();
        let start = Instant::now();
        let got = b.drain(&node("n1"), "why").await;
        let word = match &got {
            Write::Accepted => "accepted",
            Write::Refused(_) => "refused",
            Write::Ambiguous(_) => "ambiguous",
        };
        assert_eq!(word, want, "{script}: {got:?}");
        assert!(start.elapsed() < Duration::from_secs(9), "{script}");
    }
    let mut fake = Fake::of("22.05.8");
    fake.on("scontrol create *", "exit 0");
    let got = fake.backend(ReadVia::Auto).create_lock(&lock("n1")).await;
    assert!(matches!(got, Write::Ambiguous(_)), "no word about a reservation, no lock: {got:?}");
}

#[tokio::test]
async fn nothing_is_sent_that_cannot_be_one_thing() {
    // No case for any write: one that is started answers "unexpected" and would be ambiguous.
    let b = Fake::of("22.05.8").backend(ReadVia::Auto);
    for reason in ["", "two\nlines", "caf\u{e9}", "\"quoted\"", " blank"] {
        let Write::Refused(r) = b.drain(&node("n1"), reason).await else { panic!("{reason:?}") };
        assert!(r.kind == RefusalKind::Other && r.text.starts_with("not sent"), "{r:?}");
    }
    for name in ["", "a,b", "x nodes=ALL", "a\nb"] {
        assert!(
            matches!(b.delete_reservation(name).await, Write::Refused(r) if r.text.starts_with("not sent"))
        );
    }
    // Nor without a controller that answers.
    let mut down = Fake { dir: tempfile::tempdir().unwrap(), cases: Vec::new() };
    down.on(
        "scontrol show config",
        "echo 'slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)' >&2; exit 1",
    );
    let Write::Refused(r) = down.backend(ReadVia::Auto).resume(&node("n1")).await else { panic!() };
    assert!(r.text.contains("not sent") && r.text.contains("Unable to contact"), "{r:?}");
}

#[tokio::test]
async fn doctor_names_what_is_wrong() {
    let lines =
        Fake { dir: tempfile::tempdir().unwrap(), cases: Vec::new() }.backend(ReadVia::Auto).doctor().await;
    let line = lines.iter().find(|l| l.what == "controller").unwrap();
    assert!(line.verdict == Verdict::Fail && !line.advice.is_empty(), "{line:?}");
    let mut fake = Fake::of("26.05.3");
    fake.on("scontrol --version", "echo slurm 23.11.11");
    fake.on("scontrol -a -d -o show nodes", &slurm("26.05.3/busy/nodes-detail.txt"));
    fake.on("squeue *", "echo 'squeue: error: obsolete option' >&2");
    let lines = fake.backend(ReadVia::Auto).doctor().await;
    let find =
        |what: &str| lines.iter().find(|l| l.what == what).unwrap_or_else(|| panic!("{what}: {lines:#?}"));
    assert_eq!(find("controller").verdict, Verdict::Ok);
    assert_eq!(find("releases").verdict, Verdict::Warn);
    assert!(find("text").verdict == Verdict::Fail && find("text").found.contains("obsolete option"));
    assert_eq!((find("nodes").verdict, find("jobs").verdict), (Verdict::Ok, Verdict::Fail));
}
