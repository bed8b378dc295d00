//! The Prometheus of the distribution scrapes an exporter, and the engine asks it by its own rules. The cluster is the
//! simulated one: nothing here needs slurmctld.

use crate::support::cmd::run;
use crate::support::{eventually, read, root, scratch};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const CAPTURE: &str = "fixtures/dcgm-exporter/3.6.1/metrics-default-counters.prom";
const PENDING: &str = "DCGM_FI_DEV_ROW_REMAP_PENDING";

/// A program that is gone when dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves this text as metrics until the test program ends; returns its address.
fn exporter(text: &Arc<Mutex<String>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let text = Arc::clone(text);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            BufReader::new(&stream)
                .lines()
                .map_while(Result::ok)
                .take_while(|l| !l.is_empty())
                .for_each(drop);
            let body = text.lock().unwrap().clone();
            let head =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            // Whoever asked may have gone away.
            let _ = stream.write_all((head + &body).as_bytes());
        }
    });
    address
}

/// A scrape of the real program in which a node of the simulated cluster speaks.
fn metrics(pending: u8) -> String {
    let capture = read(root().join(CAPTURE)).replace("gpu-node-07", "gpu006");
    let gpu = capture.lines().find_map(|l| l.strip_prefix("DCGM_FI_DEV_GPU_TEMP{")).unwrap();
    let labels = gpu.split('}').next().unwrap();
    let others: String = capture.lines().filter(|l| !l.contains(PENDING)).map(|l| format!("{l}\n")).collect();
    format!("{others}# TYPE {PENDING} gauge\n{PENDING}{{{labels}}} {pending}\n")
}

fn prometheus(dir: &Path, port: u16) -> Program {
    let program = ["/usr/bin/prometheus", "/usr/local/bin/prometheus"];
    let found = program.iter().map(PathBuf::from).find(|p| p.is_file());
    let program =
        found.unwrap_or_else(|| panic!("this test needs Prometheus: run tests/run, which installs it"));
    let log = fs::File::options().create(true).append(true).open(dir.join("prometheus.log")).unwrap();
    let mut c = Command::new(program);
    c.arg(format!("--config.file={}", dir.join("prometheus.yml").display()));
    c.arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()));
    c.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--log.level=warn");
    c.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Program(c.spawn().unwrap())
}

struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_slurmedic"));
        c.args(args).current_dir(self.dir.path()).env_clear().env("HOME", self.dir.path());
        c.env("NO_COLOR", "1").env("SLURMEDIC_CONFIG", self.dir.path().join("c.toml"));
        c
    }

    /// The open incidents: what each is about, and its fault words.
    fn open(&self) -> Vec<(String, String)> {
        let text = run(&mut self.command(&["incidents", "--format", "json"]), LIMIT).ok();
        let all: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let about = |i: &Value| {
            let on = ["node", "tool"].iter().find_map(|k| i[k].as_str()).unwrap_or("?").to_owned();
            let faults = i["alerts"].as_object().into_iter().flat_map(|a| a.values());
            (on, faults.map(|s| format!("{} {} ", s["fault"], s["source"])).collect::<String>())
        };
        all["incidents"].as_array().unwrap().iter().map(about).collect()
    }

    fn wait_for(&self, what: &str, on: &str, fault: &str, there: bool) {
        eventually(what, LIMIT, || {
            let open = self.open();
            let is = open.iter().any(|(o, f)| o == on && f.contains(fault));
            if is == there {
                Ok(())
            } else {
                let logs = [read(self.dir.path().join("log")), read(self.dir.path().join("prometheus.log"))];
                Err(format!("{open:?}\n{}", logs.concat()))
            }
        });
    }
}

#[test]
fn a_real_prometheus_tells_faults_by_rules_and_its_own_troubles_are_no_nodes() {
    let site = Site { dir: scratch("prom") };
    let dir = site.dir.path();
    let text = Arc::new(Mutex::new(metrics(1)));
    let target = exporter(&text);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    fs::write(
        dir.join("prometheus.yml"),
        format!(
            "global: {{ scrape_interval: 1s }}\nscrape_configs:\n- job_name: dcgm\n  static_configs:\n  - targets: ['{target}']\n"
        ),
    )
    .unwrap();
    let server = prometheus(dir, port);
    let socket = dir.join("engine.sock");
    let config = format!(
        "cluster = \"simulated\"\n[server]\nsocket = {socket:?}\n[watch]\ninterval = \"1s\"\ngpus = \"off\"\n\
         [[watch.prometheus]]\nurl = \"http://127.0.0.1:{port}\"\ninterval = \"1s\"\n"
    );
    fs::write(dir.join("c.toml"), config).unwrap();
    let log = fs::File::create(dir.join("log")).unwrap();
    let mut c = site.command(&["serve", "--round", "1", "-v"]);
    c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let _engine = Program(c.spawn().unwrap());
    eventually("the socket", LIMIT, || if socket.exists() { Ok(()) } else { Err(read(dir.join("log"))) });

    site.wait_for("the fault", "gpu006", "gpu-row-remap-pending\" \"prometheus", true);
    // Of 64 nodes one has an exporter: that is one incident, of the tool.
    site.wait_for("the exporters", "exporter by main: all", "", true);
    let nodes = |site: &Site| site.open().into_iter().filter(|(on, _)| on.starts_with("gpu")).count();
    assert_eq!(nodes(&site), 1, "{:?}", site.open());
    let shown = run(&mut site.command(&["incidents"]), LIMIT).ok();
    assert!(shown.lines().any(|l| l.contains(" tool ") && l.contains("exporter by main: all")), "{shown}");

    drop(server);
    site.wait_for("that Prometheus is away", "prometheus main", "", true);
    assert_eq!(nodes(&site), 1, "nothing is over because nobody answers: {:?}", site.open());

    *text.lock().unwrap() = metrics(0);
    let _server = prometheus(dir, port);
    site.wait_for("that Prometheus is back", "prometheus main", "", false);
    site.wait_for("the end of the fault", "gpu006", "", false);
}
