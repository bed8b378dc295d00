//! The engine: there, away, silent, stopped, refusing; and the spool meanwhile.

use crate::support::{FakeEngine, Site, finish};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;

const XID: &str = "[ 1.0] NVRM: Xid (PCI:0000:1b:00): 79, GPU has fallen off the bus.";
const LOG: &str = "engine = unix:DIR/engine\nengine_deadline = 300ms\ncheck xid log=DIR/kern.log\n";

#[test]
fn what_waits_is_told_when_the_engine_is_back_oldest_first() {
    let site = Site::new(LOG);
    site.log(XID);
    let done = site.health();
    assert_eq!(done.code, 0);
    assert!(done.err.contains("engine is not there; reports wait in the spool"), "{done:?}");
    site.log(&XID.replace("1b", "43"));
    site.health();
    assert_eq!(site.spooled().len(), 2);
    let engine = FakeEngine::listen(&site.path("engine"), 200);
    site.health();
    assert_eq!(site.spooled(), []);
    let gpus: Vec<_> = engine.alerts().into_iter().filter_map(|a| a.gpu).collect();
    assert_eq!(gpus, ["00000000:1B:00.0", "00000000:43:00.0"]);
}

#[test]
fn a_silent_engine_costs_its_deadline_and_no_more() {
    let site = Site::new(LOG);
    let _listener = UnixListener::bind(site.path("engine")).unwrap();
    site.log(XID);
    let done = site.health();
    assert!(done.code == 0 && done.took < Duration::from_secs(3), "{done:?}");
    assert_eq!(site.faults(), ["gpu-off-bus"]);
}

#[test]
fn a_stopped_engine_with_a_full_queue_does_not_hang_the_hook() {
    let site = Site::new(LOG);
    let _listener = UnixListener::bind(site.path("engine")).unwrap();
    // Fill its queue: these connections are never accepted.
    let mut held = Vec::new();
    loop {
        let path = site.path("engine");
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || drop(sender.send(UnixStream::connect(path))));
        match receiver.recv_timeout(Duration::from_millis(300)) {
            Ok(stream) => held.push(stream),
            Err(_) => break,
        }
        assert!(held.len() < 10_000, "its queue has no end");
    }
    site.log(XID);
    let done = site.health();
    assert!(done.code == 0 && done.took < Duration::from_secs(3), "{done:?}");
    assert_eq!(site.faults(), ["gpu-off-bus"]);
}

#[test]
fn an_engine_on_another_host_that_drops_packets_costs_its_deadline() {
    // 192.0.2.0/24 is for documentation: nobody answers there.
    let site =
        Site::new("engine = http://192.0.2.1:8650\nengine_deadline = 300ms\ncheck xid log=DIR/kern.log\n");
    site.log(XID);
    let done = site.health();
    assert!(done.code == 0 && done.took < Duration::from_secs(3), "{done:?}");
    assert_eq!(site.faults(), ["gpu-off-bus"]);
}

#[test]
fn a_host_that_may_not_report_keeps_its_report_and_says_so() {
    let site = Site::new(LOG);
    let _engine = FakeEngine::listen(&site.path("engine"), 401);
    site.log(XID);
    let done = site.health();
    assert!(done.err.contains("does not accept this host (status 401)"), "{done:?}");
    assert_eq!(site.faults(), ["gpu-off-bus"]);
}

#[test]
fn a_report_that_the_engine_refuses_is_not_sent_forever() {
    let site = Site::new(LOG);
    site.log(XID);
    site.health();
    let engine = FakeEngine::listen(&site.path("engine"), 422);
    let done = site.health();
    assert!(done.err.contains("a waiting report was set aside"), "{done:?}");
    assert_eq!(site.spooled(), []);
    assert_eq!(std::fs::read_dir(site.path("state/set-aside")).unwrap().count(), 1);
    let asked = engine.bodies.lock().unwrap().len();
    site.health();
    assert_eq!(engine.bodies.lock().unwrap().len(), asked);
}

#[test]
fn damaged_reports_are_set_aside_and_told() {
    let site = Site::new(LOG);
    for gpu in ["1b", "43"] {
        site.log(&XID.replace("1b", gpu));
        site.health();
    }
    let mut files: Vec<_> =
        std::fs::read_dir(site.path("state/spool")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    std::fs::write(&files[0], "{\"node\":\"gpu0").unwrap();
    std::fs::write(site.path("state/spool/\u{fc}ber.json"), [0xff, 0xfe]).unwrap();
    let engine = FakeEngine::listen(&site.path("engine"), 200);
    let done = site.health();
    assert_eq!(done.code, 0);
    assert!(done.err.contains("1 reports in the spool were damaged"), "{done:?}");
    let told: Vec<_> = engine.alerts().into_iter().map(|a| (a.fault, a.gpu)).collect();
    let tool = ("hook-check-failed".to_owned(), None);
    assert!(told.contains(&tool), "{told:?}");
    assert!(told.contains(&("gpu-off-bus".to_owned(), Some("00000000:43:00.0".to_owned()))), "{told:?}");
    assert_eq!(std::fs::read_dir(site.path("state/set-aside")).unwrap().count(), 2);
}

#[test]
fn posts_are_signed_with_the_secret_of_the_host() {
    let site = Site::new(&format!("secret_file = DIR/key\n{LOG}"));
    std::fs::write(site.path("key"), "0123456789abcdef\n").unwrap();
    std::fs::set_permissions(site.path("key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let engine = FakeEngine::listen(&site.path("engine"), 200);
    site.log(XID);
    assert!(site.health().err.contains("may be read by others"));
    assert_eq!(engine.bodies.lock().unwrap().len(), 0);
    std::fs::set_permissions(site.path("key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    site.health();
    let head = engine.heads.lock().unwrap()[0].clone();
    assert!(head.starts_with("POST /api/v1/alerts HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("X-Slurmedic-Signature: sha256="), "{head}");
}

/// The state directory on a file system of a few pages that is full.
#[test]
fn a_full_disk_is_named_and_the_engine_still_hears() {
    let site = Site::new(LOG);
    let engine = FakeEngine::listen(&site.path("engine"), 200);
    site.log(XID);
    std::fs::create_dir(site.path("state")).unwrap();
    let script = "mount -t tmpfs -o size=16k,mode=700 full \"$1/state\" && \
                  { dd if=/dev/zero of=\"$1/state/fill\" bs=4k 2>/dev/null; \"$2\" --config \"$1/hook.conf\"; echo rc=$?; \
                    \"$2\" --config \"$1/hook.conf\"; echo rc=$?; }";
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "--", "sh", "-c", script, "sh"]);
    unshare.arg(site.dir.path()).arg(env!("CARGO_BIN_EXE_slurmedic-hook"));
    unshare
        .env("SLURMD_NODENAME", "gpu003")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let done = finish(unshare.spawn().unwrap());
    assert_eq!(done.out, "rc=0\nrc=0\n", "{done:?}");
    assert!(done.err.contains("verdicts are not kept, so reports repeat"), "{done:?}");
    let told: Vec<_> = engine.alerts().into_iter().map(|a| a.fault).collect();
    assert_eq!(told[0], "gpu-off-bus");
    assert!(told.contains(&"hook-check-failed".to_owned()), "{told:?}");
}

#[test]
fn a_full_disk_and_no_engine_is_said_and_told_later() {
    let site = Site::new(LOG);
    site.log(XID);
    // A file where the directory should be: nothing can be kept.
    std::fs::write(site.path("state"), "").unwrap();
    let done = site.health();
    assert_eq!(done.code, 0);
    assert!(done.err.contains("a report is lost for now"), "{done:?}");
    std::fs::remove_file(site.path("state")).unwrap();
    site.health();
    assert_eq!(site.faults(), ["gpu-off-bus"]);
}

#[test]
fn a_trigger_names_its_nodes_and_a_wake_up_never_waits() {
    let site = Site::new(LOG);
    let down = site.by_hand(&["--as", "down", "gpu[001-002]"]);
    assert_eq!(down.code, 0, "{down:?}");
    let told: Vec<_> = site.spooled().into_iter().map(|a| (a.node.to_string(), a.fault, a.firing)).collect();
    let fault = "node-not-responding".to_owned();
    assert_eq!(told, [("gpu001".to_owned(), fault.clone(), true), ("gpu002".to_owned(), fault, true)]);
    for args in
        [&["--as", "job-end", "gpu001"][..], &["--as", "drained", "gpu001"], &["--as", "down", "$(x)"]]
    {
        let done = site.by_hand(args);
        assert!(done.code == 0 && !done.err.is_empty(), "{done:?}");
    }
    assert_eq!(site.spooled().len(), 2);
    let engine = FakeEngine::listen(&site.path("engine"), 200);
    site.by_hand(&["--as", "up", "gpu001"]);
    site.by_hand(&["--as", "job-end", "gpu001"]);
    let firing: Vec<bool> = engine.alerts().into_iter().map(|a| a.firing).collect();
    assert_eq!(firing, [true, true, false, false]);
}
