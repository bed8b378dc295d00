//! `slurmedic-hook` as a real Slurm starts it: HealthCheckProgram, Prolog, Epilog, EpilogSlurmctld and a trigger.

use crate::support::cmd::{Running, run};
use crate::support::lab::{Lab, SETTLE};
use crate::support::{eventually, read, scratch};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

const XID: &str = "[ 4242.1] NVRM: Xid (PCI:0000:1b:00): 48, pid='<unknown>', name=<unknown>, DBE\n";
const SECONDS: Duration = Duration::from_secs(20);

fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}

/// A lab with the hook in it, where every daemon's user can reach it.
struct Site {
    lab: Lab,
}

impl Site {
    fn new(lab: Lab) -> Self {
        let built = Path::new(env!("CARGO_BIN_EXE_slurmedic")).with_file_name("slurmedic-hook");
        assert!(
            built.is_file(),
            "{} is not built: run `cargo test --workspace`, or tests/run",
            built.display()
        );
        let site = Self { lab };
        for dir in ["hook", "hooks"] {
            std::fs::create_dir_all(site.path(dir)).unwrap();
        }
        open_to_all(&site.path("hook"));
        std::fs::copy(built, site.path("hook/slurmedic-hook")).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.lab.dir().join(name)
    }

    /// Writes the configuration of a node or of the controller; `DIR` is the directory of the hook.
    fn configure(&self, name: &str, lines: &str) {
        let dir = self.path("hook").display().to_string();
        let text = format!("state_dir = {dir}/{name}\nsyslog = no\n{}\n", lines.replace("DIR", &dir));
        std::fs::write(self.path(&format!("hook/{name}.conf")), text).unwrap();
    }

    /// Lets Slurm start the hook, as its own program would be: no argument but the place of its configuration.
    fn install(&self, hook: &str, config: &str) {
        let dir = self.path("hook").display().to_string();
        let script = self.path(&format!("hooks/{hook}"));
        let new = self.path(&format!("hook/new-{hook}"));
        std::fs::write(
            &new,
            format!(
                "#!/bin/sh\nexec {dir}/slurmedic-hook --config {dir}/{config}.conf 2>>{dir}/{hook}.err\n"
            ),
        )
        .unwrap();
        std::fs::write(self.path(&format!("hook/{hook}.err")), "").unwrap();
        open_to_all(&self.path(&format!("hook/{hook}.err")));
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(new, script).unwrap();
    }

    /// The alerts that wait in the spool of a node or of the controller.
    fn spooled(&self, name: &str) -> String {
        let dir = self.path(&format!("hook/{name}/spool"));
        let mut files: Vec<_> =
            std::fs::read_dir(dir).into_iter().flatten().map(|e| e.unwrap().path()).collect();
        files.sort();
        files.iter().filter(|f| f.extension().is_some_and(|e| e == "json")).map(read).collect()
    }

    fn await_alert(&self, name: &str, words: &[&str]) -> String {
        eventually(&format!("an alert of {name} with {words:?}"), SECONDS.max(SETTLE), || {
            let text = self.spooled(name);
            if words.iter().all(|w| text.contains(w)) { Ok(text) } else { Err(format!("it has {text:?}")) }
        })
    }
}

#[test]
fn an_xid_in_the_kernel_log_reaches_the_record_of_incidents() {
    let site = Site::new(Lab::looked_after(2, 1));
    for node in ["gpu001", "gpu002"] {
        std::fs::write(site.path(&format!("hook/{node}.log")), "[ 0.0] Linux version 6.1.0\n").unwrap();
        site.configure(node, &format!("check xid log=DIR/{node}.log\ncheck mount path=/\n"));
    }
    site.install("health", "$SLURMD_NODENAME");
    eventually("both nodes were looked at", SECONDS, || {
        let looked = ["gpu001", "gpu002"].iter().all(|n| site.path(&format!("hook/{n}/state")).exists());
        if looked { Ok(()) } else { Err("not yet".to_owned()) }
    });
    assert_eq!(site.spooled("gpu002"), "");
    let log = site.path("hook/gpu002.log");
    std::fs::OpenOptions::new().append(true).open(log).unwrap().write_all(XID.as_bytes()).unwrap();
    let text =
        site.await_alert("gpu002", &["gpu-ecc-uncorrectable", "00000000:1B:00.0", "\"node\":\"gpu002\""]);
    assert_eq!((text.lines().count(), site.spooled("gpu001")), (1, String::new()));
    // The hook tells; what becomes of the node is for the engine.
    assert_eq!(site.lab.state("gpu002"), "IDLE");
    assert_eq!(read(site.path("hook/health.err")).lines().count(), 1, "told once, however often it looks");

    let own = scratch("hook");
    let conf = format!(
        "[journal]\npath = \"{0}/journal.db\"\n[slurm]\nscontrol = \"{1}/scontrol\"\nsqueue = \"{1}/squeue\"\nslurm_conf = \"{2}\"\n",
        own.path().display(),
        site.lab.bin().display(),
        site.lab.conf().display()
    );
    std::fs::write(own.path().join("slurmedic.toml"), conf).unwrap();
    std::fs::write(own.path().join("alerts.json"), text).unwrap();
    let mut feed = Command::new(env!("CARGO_BIN_EXE_slurmedic"));
    feed.arg("alert")
        .arg(own.path().join("alerts.json"))
        .arg("--config")
        .arg(own.path().join("slurmedic.toml"));
    feed.env_remove("SLURMEDIC_JOURNAL");
    let told = run(&mut feed, SETTLE).ok();
    assert!(told.contains("gpu002 GPU 00000000:1B:00.0 gpu-ecc-uncorrectable: opens an incident"), "{told}");
}

#[test]
fn a_prolog_reports_and_fails_only_where_the_site_asks_for_it() {
    let site = Site::new(Lab::up(1));
    let gpus = "check gpus expect=9 dev=DIR proc=DIR\n";
    site.configure("gpu001", gpus);
    site.install("prolog", "$SLURMD_NODENAME");
    let job = site.lab.job_on("gpu001", 60);
    site.await_alert("gpu001", &["gpu-count-mismatch"]);
    assert!(!site.lab.state("gpu001").contains("DRAIN"));
    site.lab.client("scancel", &[&job]).ok();
    site.lab.await_state("gpu001", &["IDLE"]);

    site.configure("gpu001", &format!("prolog_fail = gpu-count-mismatch\n{gpus}"));
    site.lab.client("sbatch", &["-w", "gpu001", "--output=/dev/null", "--wrap", "sleep 60"]).ok();
    eventually("the prolog drained the node", SETTLE, || {
        let node = site.lab.node("gpu001");
        if node["State"].contains("DRAIN") && node["Reason"].starts_with("Prolog error") {
            Ok(())
        } else {
            Err(format!("{} {}", node["State"], node["Reason"]))
        }
    });
    let said = read(site.path("hook/prolog.err"));
    assert!(said.contains("the prolog fails, as prolog_fail asks for"), "{said}");
}

#[test]
fn a_hung_check_delays_a_job_and_drains_nothing() {
    let site = Site::new(Lab::up(1));
    assert!(Command::new("mkfifo").arg(site.path("hook/pipe")).status().unwrap().success());
    site.configure("gpu001", "prolog_fail = fs-read-only\ncheck mount path=/ read=DIR/pipe deadline=1s\n");
    site.install("prolog", "$SLURMD_NODENAME");
    site.install("epilog", "$SLURMD_NODENAME");
    let job = site.lab.job_on("gpu001", 60);
    site.await_alert("gpu001", &["mount-hang", "does not answer"]);
    site.lab.client("scancel", &[&job]).ok();
    site.lab.await_state("gpu001", &["IDLE"]);
    assert_eq!(site.lab.node("gpu001")["Reason"], "");
}

#[test]
fn the_end_of_a_job_wakes_the_engine() {
    let site = Site::new(Lab::up(1));
    let socket = site.path("hook/engine");
    let listener = UnixListener::bind(&socket).unwrap();
    open_to_all(&socket);
    let (sender, posts) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut buffer = vec![0; 64 * 1024];
            let n = stream.read(&mut buffer).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            if sender.send(String::from_utf8_lossy(&buffer[..n]).into_owned()).is_err() {
                break;
            }
        }
    });
    site.configure("controller", "engine = unix:DIR/engine\n");
    site.install("epilog_slurmctld", "controller");
    let job = site.lab.job_on("gpu001", 60);
    site.lab.client("scancel", &[&job]).ok();
    let post = posts.recv_timeout(SETTLE).unwrap_or_else(|e| {
        panic!("no wake-up ({e}): {}", read(site.path("hook/epilog_slurmctld.err")));
    });
    assert!(post.contains("\"node\":\"gpu001\"") && post.contains("slurm-job-end"), "{post}");
    site.lab.await_state("gpu001", &["IDLE"]);
}

#[test]
fn a_trigger_tells_which_node_went_down() {
    let site = Site::new(Lab::up(2));
    let dir = site.path("hook");
    site.configure("controller", "");
    // A trigger's program gets a host list and nothing else: the link says what happened.
    std::os::unix::fs::symlink("slurmedic-hook", dir.join("slurmedic-hook-down")).unwrap();
    let script = dir.join("down");
    std::fs::write(
        &script,
        format!(
            "#!/bin/sh\nexec {0}/slurmedic-hook-down --config {0}/controller.conf \"$@\"\n",
            dir.display()
        ),
    )
    .unwrap();
    open_to_all(&script);
    let set = format!("--program={}", script.display());
    let strigger = site.lab.bin().join("strigger");
    let root = nix::unistd::Uid::effective().is_root();
    let mut command = Command::new(if root { Path::new("setpriv") } else { &strigger });
    if root {
        // Only SlurmUser may set one for nodes.
        command.args(["--reuid=slurm", "--regid=slurm", "--clear-groups"]).arg(&strigger);
    }
    command.args(["--set", "--node", "--down", "--flags=PERM", &set]).env("SLURM_CONF", site.lab.conf());
    run(&mut command, SECONDS).ok();
    site.lab.scontrol(&["update", "nodename=gpu002", "state=down", "reason=test"]).ok();
    let text =
        site.await_alert("controller", &["node-not-responding", "\"node\":\"gpu002\"", "\"firing\":true"]);
    assert!(!text.contains("gpu001"), "{text}");
}

/// Over its socket as root, and over loopback with a signature: the two doors that the guide names.
#[test]
fn the_engine_that_serves_hears_the_hook() {
    let site = Site::new(Lab::up(2));
    let own = scratch("hook");
    let dir = own.path().display().to_string();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let key = site.path("hook/key");
    std::fs::write(&key, "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let guide = read(crate::support::root().join("docs/guide/hooks.md"));
    let source = guide.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let source = source.replace("/etc/slurmedic/hook.key", &key.display().to_string());
    let conf = format!(
        "[journal]\npath = \"{dir}/journal.db\"\n[slurm]\nscontrol = \"{0}/scontrol\"\nsqueue = \"{0}/squeue\"\n\
         slurm_conf = \"{1}\"\n[server]\nsocket = \"{dir}/engine.sock\"\nlisten = \"127.0.0.1:{port}\"\n{source}",
        site.lab.bin().display(),
        site.lab.conf().display()
    );
    std::fs::write(own.path().join("slurmedic.toml"), conf).unwrap();
    let medic = |verb: &str| {
        let mut c = Command::new(env!("CARGO_BIN_EXE_slurmedic"));
        c.arg(verb).arg("--config").arg(own.path().join("slurmedic.toml")).env("NO_COLOR", "1");
        c.env_remove("SLURMEDIC_JOURNAL");
        c
    };
    let _serving = Running::start(&mut medic("serve"));
    eventually("the engine answers", SETTLE, || {
        std::os::unix::net::UnixStream::connect(own.path().join("engine.sock")).map_err(|e| e.to_string())
    });
    let check = "check gpus expect=9 dev=DIR proc=DIR\n";
    site.configure("gpu001", &format!("engine = unix:{dir}/engine.sock\n{check}"));
    site.configure(
        "gpu002",
        &format!(
            "engine = http://127.0.0.1:{port}\nengine_path = /api/v1/alerts/hook\nsecret_file = DIR/key\n{check}"
        ),
    );
    for node in ["gpu001", "gpu002"] {
        let mut c = Command::new(site.path("hook/slurmedic-hook"));
        c.arg("--config").arg(site.path(&format!("hook/{node}.conf"))).env("SLURMD_NODENAME", node);
        let done = run(&mut c, SECONDS);
        assert!(done.code == 0 && site.spooled(node).is_empty(), "{done}");
        let open = run(&mut medic("incidents"), SETTLE).ok();
        let told = open.lines().any(|l| l.contains(node) && l.contains("gpu-count-mismatch"));
        assert!(told, "{node}: {open}");
    }
}

#[test]
fn init_slurm_says_what_this_site_lacks() {
    let site = Site::new(Lab::up(1));
    let own = scratch("hook");
    let conf = format!(
        "[slurm]\nscontrol = \"{0}/scontrol\"\nsqueue = \"{0}/squeue\"\nslurm_conf = \"{1}\"\n",
        site.lab.bin().display(),
        site.lab.conf().display()
    );
    std::fs::write(own.path().join("slurmedic.toml"), conf).unwrap();
    let call = |more: &[&str]| {
        let mut c = Command::new(env!("CARGO_BIN_EXE_slurmedic"));
        c.args(["init", "slurm"]).args(more).arg("--config").arg(own.path().join("slurmedic.toml"));
        c.env("NO_COLOR", "1");
        run(&mut c, SETTLE)
    };
    let hook = site.path("hook/slurmedic-hook").display().to_string();
    let lines = call(&["--hook", &hook]).ok();
    assert!(lines.contains(&format!("HealthCheckProgram={hook}")), "{lines}");
    assert!(lines.contains("hook-epilog now."), "what is there already is named: {lines}");
    site.configure("gpu001", "check moon\n");
    let config = site.path("hook/gpu001.conf").display().to_string();
    let checked = call(&["--check", "--hook", &hook, "--hook-config", &config]);
    assert_eq!(checked.code, 3, "{checked}");
    // lines are wrapped at 80 columns
    let said = checked.out.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in ["FAIL HealthCheckProgram not set", "trigger down not set", "there is no check \"moon\""] {
        assert!(said.contains(words), "no {words:?}: {checked}");
    }
}
