//! A node for one test: a configuration, a state directory, a fake kernel log, and the program started as slurmd does it.

use engine_core::incident::Alert;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The name of the node.
pub(crate) const NODE: &str = "gpu003";
/// Nothing that the program does may take longer in a test, whatever hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// How a start ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) took: Duration,
}

/// One node.
pub(crate) struct Site {
    pub(crate) dir: TempDir,
}

impl Site {
    /// Makes a node whose configuration has these lines behind `state_dir` and `syslog = no`.
    pub(crate) fn new(lines: &str) -> Self {
        let site = Self { dir: tempfile::Builder::new().prefix("hook.").tempdir().unwrap() };
        site.configure(lines);
        site
    }

    /// Writes the configuration anew; `DIR` stands for the directory of the test.
    pub(crate) fn configure(&self, lines: &str) {
        let dir = self.dir.path().display().to_string();
        let text = format!("state_dir = {dir}/state\nsyslog = no\n{}\n", lines.replace("DIR", &dir));
        std::fs::write(self.path("hook.conf"), text).unwrap();
    }

    /// A path in the directory of the test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes an executable script.
    pub(crate) fn script(&self, name: &str, body: &str) {
        std::fs::write(self.path(name), format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Adds a line to the fake kernel log.
    pub(crate) fn log(&self, line: &str) {
        let mut log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.path("kern.log")).unwrap();
        writeln!(log, "{line}").unwrap();
    }

    /// The command as slurmd starts it: no PATH, only the name of the node.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_slurmedic-hook"));
        c.arg("--config").arg(self.path("hook.conf")).args(args).env_clear().env("SLURMD_NODENAME", NODE);
        c.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        c
    }

    /// Runs it as HealthCheckProgram.
    pub(crate) fn health(&self) -> Done {
        finish(self.command(&[]).spawn().unwrap())
    }

    /// Runs it as Prolog.
    pub(crate) fn prolog(&self) -> Done {
        finish(self.command(&[]).env("SLURM_SCRIPT_CONTEXT", "prolog_slurmd").spawn().unwrap())
    }

    /// Runs it as a person does.
    pub(crate) fn by_hand(&self, args: &[&str]) -> Done {
        finish(self.command(args).spawn().unwrap())
    }

    /// The alerts that wait in the spool, in order.
    pub(crate) fn spooled(&self) -> Vec<Alert> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(self.path("state/spool"))
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().path())
            .collect();
        files.sort();
        let text: String = files.iter().map(|f| std::fs::read_to_string(f).unwrap() + "\n").collect();
        text.lines().map(alert).collect()
    }

    /// What waits, as `fault subject-free summary` pairs.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.spooled().into_iter().map(|a| a.fault).collect()
    }
}

/// Reads one alert, as the engine does.
pub(crate) fn alert(line: &str) -> Alert {
    let alert: Alert = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    alert.checked().unwrap()
}

/// Waits for the end; a program that does not come to one is killed and fails the test.
pub(crate) fn finish(mut child: Child) -> Done {
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > LIMIT {
            child.kill().unwrap();
            panic!("it does not come to an end");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let took = began.elapsed();
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    Done { code: status.code().unwrap_or(-1), out, err, took }
}

/// An engine on a socket of this host that answers each post with one status.
pub(crate) struct FakeEngine {
    pub(crate) bodies: Arc<Mutex<Vec<String>>>,
    pub(crate) heads: Arc<Mutex<Vec<String>>>,
}

impl FakeEngine {
    /// Listens until the test program ends.
    pub(crate) fn listen(path: &Path, status: u16) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (kept, tops) = (Arc::clone(&bodies), Arc::clone(&heads));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut all = Vec::new();
                let mut buffer = vec![0; 65_536];
                loop {
                    let n = stream.read(&mut buffer).unwrap();
                    all.extend_from_slice(&buffer[..n]);
                    let text = String::from_utf8_lossy(&all);
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).unwrap();
                    if n == 0 || body.len() >= length.parse().unwrap() {
                        tops.lock().unwrap().push(head.to_owned());
                        kept.lock().unwrap().push(body.to_owned());
                        break;
                    }
                }
                let _ = write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n{{}}");
            }
        });
        Self { bodies, heads }
    }

    /// The alerts that came, in order.
    pub(crate) fn alerts(&self) -> Vec<Alert> {
        let bodies = self.bodies.lock().unwrap();
        bodies.iter().flat_map(|b| serde_json::from_str::<Vec<Alert>>(b).unwrap()).collect()
    }
}

/// Says whether a process with this text in its command line is alive.
pub(crate) fn lives(text: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|e| {
        let line = std::fs::read(e.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    })
}
