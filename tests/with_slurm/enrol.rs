//! How a node gets its key the first time, with a real munged of the test's own: only for root on the node, each credential
//! once, and the real program on both sides.

use crate::support::agents::Site;
use crate::support::cmd::{Running, run};
use crate::support::product::{Bench, LIMIT};
use crate::support::{eventually, read, scratch};
use engine_adapters::munge::{Munge, MungeConfig};
use engine_core::model::NodeName;
use engine_runtime::orders::{EnrolRules, Enrolment, OrderMaster, Seals, ask_for_key, forget, read_key};
use jiff::Timestamp;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const NUMBER: &str = "0123456789abcdef0123456789abcdef";
const NODE: &str = "localhost";

/// A munged with a socket and a key of its own; it ends with the test.
struct Realm {
    dir: TempDir,
    _munged: Running,
}

impl Realm {
    fn new() -> Self {
        let dir = scratch("munge");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let file = |name: &str| dir.path().join(name).display().to_string();
        let mut key = vec![0; 64];
        std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut key).unwrap();
        std::fs::write(file("key"), key).unwrap();
        std::fs::set_permissions(file("key"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut munged = Command::new("/usr/sbin/munged");
        munged.args(["--foreground", "--force", "--num-threads=2"]);
        for (option, name) in [
            ("socket", "socket"),
            ("key-file", "key"),
            ("pid-file", "pid"),
            ("seed-file", "seed"),
            ("log-file", "log"),
        ] {
            munged.arg(format!("--{option}={}", file(name)));
        }
        // It finds the address of its own host by this name.
        let munged = Running::start(&mut munged);
        let realm = Self { dir, _munged: munged };
        let socket = realm.file("socket");
        eventually("munged answers", Duration::from_secs(20), || {
            std::os::unix::net::UnixStream::connect(&socket).map_err(|e| e.to_string())
        });
        realm
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn munge(&self) -> Munge {
        Munge::new(MungeConfig { socket: Some(self.file("socket")), ..MungeConfig::default() })
    }

    fn enrolment(&self, check_address: bool) -> Enrolment {
        let rules = EnrolRules {
            uids: [0].into(),
            check_address,
            records: self.file("enrolled"),
            ..EnrolRules::default()
        };
        Enrolment::new(OrderMaster::new(vec![7; 32]).unwrap(), rules, Some(Arc::new(self.munge())))
    }

    /// Makes a credential with the program itself.
    fn credential(&self, payload: &str, options: &[&str]) -> String {
        let mut c = Command::new("/usr/bin/munge");
        c.arg(format!("--socket={}", self.file("socket").display()))
            .args(options)
            .arg(format!("--string={payload}"));
        run(&mut c, LIMIT).ok().trim().to_owned()
    }
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[tokio::test]
async fn a_credential_counts_once_while_it_is_fresh_and_for_its_node() {
    assert!(is_root(), "munge's users are told apart here: run the tests on real Slurm as root");
    let realm = Realm::new();
    let enrolment = realm.enrolment(false);
    let now = Timestamp::now();
    let asks = ask_for_key(&node(NODE), NUMBER);
    let good = realm.credential(&asks, &[]);
    let sealed = enrolment.by_credential(&node(NODE), &good, now).await.unwrap();
    let opened = realm.munge().open(&sealed).await.unwrap();
    let key = read_key(&opened.payload, &node(NODE), NUMBER).unwrap();
    assert_eq!(key, OrderMaster::new(vec![7; 32]).unwrap().key_of(&node(NODE)).unwrap());
    assert_eq!(opened.uid, 0);
    let refused = async |name: &str, credential: &str, why: &str| {
        let no = enrolment.by_credential(&node(name), credential, now).await.unwrap_err().to_string();
        assert!(no.contains(why), "{no} is not {why:?}");
    };
    refused(NODE, &good, "opened before").await;
    refused(NODE, &sealed, "opened before").await;
    let old = realm.credential(&asks, &["--ttl=1"]);
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    refused(NODE, &old, "expired").await;
    refused("gpu002", &realm.credential(&asks, &[]), "not made to ask for the key of gpu002").await;
    refused(NODE, &realm.credential("something else", &[]), "not made to ask").await;
    refused(NODE, &realm.credential(&asks, &["--restrict-uid=65534"]), "somebody else").await;
    let mut forged = realm.credential(&asks, &[]);
    forged.replace_range(60..61, if &forged[60..61] == "A" { "B" } else { "A" });
    refused(NODE, &forged, "unmunge").await;
    // Of another realm.
    refused(NODE, &Realm::new().credential(&asks, &[]), "unmunge").await;
    // Of a user who is not root.
    let mut other = Command::new("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/munge"]);
    other.arg(format!("--socket={}", realm.file("socket").display())).arg(format!("--string={asks}"));
    refused(NODE, run(&mut other, LIMIT).ok().trim(), "user 65534").await;
    // The sealed answer opens for root alone.
    assert!(forget(&realm.file("enrolled"), &node(NODE)).unwrap());
    let sealed = enrolment.by_credential(&node(NODE), &realm.credential(&asks, &[]), now).await.unwrap();
    let mut other = Command::new("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/unmunge"]);
    std::fs::write(realm.file("sealed"), &sealed).unwrap();
    std::fs::set_permissions(realm.file("sealed"), std::fs::Permissions::from_mode(0o644)).unwrap();
    other.arg(format!("--socket={}", realm.file("socket").display()));
    other.arg(format!("--input={}", realm.file("sealed").display()));
    let done = run(&mut other, LIMIT);
    assert!(!done.out.contains(&key.reveal()) && done.to_string().contains("Unauthorized"), "{done}");
}

#[tokio::test]
async fn the_address_in_a_credential_is_that_of_the_node() {
    let realm = Realm::new();
    let enrolment = realm.enrolment(true);
    let now = Timestamp::now();
    // Where munged was here is an address of this machine; whose name has another address is not this machine.
    let made = realm.munge().open(&realm.credential("x", &[])).await.unwrap();
    let own = realm.munge().addresses(&node(NODE)).await.unwrap();
    let asks = ask_for_key(&node(NODE), NUMBER);
    let given = enrolment.by_credential(&node(NODE), &realm.credential(&asks, &[]), now).await;
    assert_eq!(given.is_ok(), made.from.is_some_and(|a| own.contains(&a)), "{made:?} {own:?} {given:?}");
    let elsewhere = node("192.0.2.7");
    let credential = realm.credential(&ask_for_key(&elsewhere, NUMBER), &[]);
    let no = enrolment.by_credential(&elsewhere, &credential, now).await.unwrap_err().to_string();
    assert!(no.contains("which is not 192.0.2.7's"), "{no}");
    let nowhere = node("no-such-node-anywhere.invalid");
    let credential = realm.credential(&ask_for_key(&nowhere, NUMBER), &[]);
    let no = enrolment.by_credential(&nowhere, &credential, now).await.unwrap_err().to_string();
    assert!(no.contains("is not known"), "{no}");
}

#[test]
fn an_agent_without_a_key_gets_it_by_munge_and_its_node_is_looked_at() {
    let bench = Bench::faulty();
    let socket = bench.lab.dir().join("run/munge.sock").display().to_string();
    let munge = format!("[munge]\nsocket = {socket:?}\n");
    let append = |path: PathBuf, text: &str| {
        let all = format!("{}{text}", read(&path));
        std::fs::write(path, all).unwrap();
    };
    append(bench.config(), &format!("[agent]\nenrol = \"munge\"\nengine_users = [\"root\"]\n{munge}"));
    let mut site = Site::on(bench);
    let records = site.bench.file("enrolled").display().to_string();
    // The nodes of the lab are no hosts with a name.
    append(
        site.bench.file("engine.toml"),
        &format!("enrol = [\"munge\"]\nenrolled = {records:?}\nmunge_hosts = \"any\"\n{munge}"),
    );
    let url = format!("http://127.0.0.1:{}", site.port);
    let none = site.bench.file("no.key").display().to_string();
    let start = |state: &str| {
        let state = site.bench.file(state).display().to_string();
        let words = ["agent", "run", "--engine", &url, "--key", &none, "--state", &state];
        Running::start(&mut site.bench.medic(&words))
    };
    // It asks until there is an engine.
    let agent = start("agent-state");
    std::thread::sleep(Duration::from_secs(2));
    site.serve();
    site.alert();
    site.await_status(&["awaiting_approval"]);
    let key = site.bench.file("agent-state/node.key");
    assert_eq!(read(&key).trim(), read(site.bench.file("node.key")).trim());
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    drop(agent);
    // Another one that says it is the node gets nothing, until a person says so.
    let state = site.bench.file("other-state").display().to_string();
    let words = ["agent", "run", "--engine", &url, "--key", &none, "--state", &state];
    let other = Running::start(&mut site.bench.medic(&words));
    std::thread::sleep(Duration::from_secs(4));
    assert!(!site.bench.file("other-state/node.key").exists());
    run(&mut site.medic(&["agent", "forget", site.bench.node()]), LIMIT).ok();
    eventually("the other has the key", Duration::from_secs(90), || {
        let there = site.bench.file("other-state/node.key").exists();
        if there { Ok(()) } else { Err("not yet".to_owned()) }
    });
    drop(other);
}
