//! `slurmedic serve` as its users meet it, on the simulated cluster: people over the socket, programs over HTTP, the
//! service manager. Needs no Slurm.

use crate::support::cmd::{Done, run};
use crate::support::{eventually, scratch};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

/// A user that is neither root nor anybody with rights on this machine.
const NOBODY: u32 = 65_534;

/// A site in a directory: configuration, policy, program.
struct Site {
    dir: TempDir,
    /// Who the test may be besides itself: another user where it runs as root, else itself.
    other: Option<u32>,
}

/// An engine that serves.
struct Serving {
    child: Child,
    said: Arc<Mutex<String>>,
}

fn name_of(uid: u32) -> String {
    let uid = nix::unistd::Uid::from_raw(uid);
    nix::unistd::User::from_uid(uid).unwrap().map_or_else(|| format!("uid {uid}"), |u| u.name)
}

impl Site {
    fn new() -> Self {
        let dir = scratch("server");
        let other = nix::unistd::geteuid().is_root().then_some(NOBODY);
        let site = Self { dir, other };
        let path = |n: &str| site.dir.path().join(n).display().to_string();
        let config = format!(
            "cluster = \"simulated\"\n[policy]\npath = {:?}\n[server]\nsocket = {:?}\nlisten = \"127.0.0.1:0\"\n\
             tokens = {:?}\nticket_key = {:?}\n[server.sources.alertmanager]\n\
             faults = {{ GpuEcc = \"gpu-ecc-uncorrectable\" }}\nexpect_every = \"1h\"\n",
            path("policy.yaml"),
            path("run/engine.sock"),
            path("tokens.json"),
            path("ticket.key")
        );
        fs::write(site.dir.path().join("c.toml"), config).unwrap();
        fs::write(site.dir.path().join("ticket.key"), "0123456789abcdef0123456789abcdef\n").unwrap();
        fs::set_permissions(site.dir.path().join("ticket.key"), fs::Permissions::from_mode(0o600)).unwrap();
        site.policy(&site.person());
        site
    }

    /// The person who may say yes.
    fn person(&self) -> String {
        name_of(self.other.unwrap_or_else(|| nix::unistd::geteuid().as_raw()))
    }

    fn policy(&self, approver: &str) {
        let own = name_of(nix::unistd::geteuid().as_raw());
        let text = format!(
            "roles:\n  viewer: {{ users: [\"*\"] }}\n  operator: {{ users: [{own}] }}\n  approver: {{ users: [{approver}] }}\n  admin: {{ users: [root] }}\n"
        );
        fs::write(self.dir.path().join("policy.yaml"), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_slurmedic"));
        c.args(args).current_dir(self.dir.path()).env_clear().env("HOME", self.dir.path());
        c.env("NO_COLOR", "1").env("SLURMEDIC_CONFIG", self.dir.path().join("c.toml"));
        c
    }

    /// A verb as the one who keeps the engine.
    fn own(&self, args: &[&str]) -> Done {
        run(&mut self.command(args), LIMIT)
    }

    /// A verb as somebody else, who cannot read the journal or write anything here.
    fn other(&self, args: &[&str]) -> Done {
        let mut c = self.command(args);
        if let Some(uid) = self.other {
            c.uid(uid).gid(uid);
        }
        run(&mut c, LIMIT)
    }

    fn serve(&self, more: &[&str], environment: &[(&str, String)]) -> Serving {
        let mut c = self.command(&["serve", "--round", "1"]);
        c.args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        c.envs(environment.iter().map(|(k, v)| (*k, v.as_str())));
        let mut child = c.spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let talk = BufReader::new(child.stderr.take().unwrap());
        thread::spawn({
            let said = Arc::clone(&said);
            move || {
                for line in talk.lines().map_while(Result::ok) {
                    said.lock().unwrap().push_str(&(line + "\n"));
                }
            }
        });
        Serving { child, said }
    }

    fn started(&self) -> Serving {
        let engine = self.serve(&[], &[]);
        engine.says("answers at http");
        engine
    }

    /// Asks over the socket as oneself.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let stream = UnixStream::connect(self.dir.path().join("run/engine.sock")).unwrap();
        http(stream, method, path, &[], body)
    }

    /// Feeds one alert, and waits until its run waits for a yes.
    fn waiting_run(&self, node: &str) -> String {
        let alert = format!(r#"{{"node": "{node}", "fault": "gpu-ecc-uncorrectable"}}"#);
        fs::write(self.dir.path().join("a.json"), alert).unwrap();
        let fed = self.own(&["alert", "a.json"]);
        assert!(fed.code == 0 && fed.out.contains("opens an incident"), "{fed}");
        eventually("a run that waits for a yes", LIMIT, || {
            let runs: Value = serde_json::from_str(&self.own(&["runs", "--format", "json"]).out).unwrap();
            let all = runs["runs"].as_array().unwrap();
            let found = all.iter().find(|r| r["node"] == node && r["status"] == "awaiting_approval");
            found.map(|r| r["run"].as_str().unwrap().to_owned()).ok_or_else(|| runs.to_string())
        })
    }

    fn ends(&self, run: &str, end: &str) {
        eventually("the run's end", LIMIT, || {
            let shown = self.own(&["show", run]).out;
            if shown.contains(&format!("status    {end}")) { Ok(()) } else { Err(shown) }
        });
    }

    fn metric(&self, series: &str) -> f64 {
        let (status, text) = self.ask("GET", "/metrics", "");
        assert_eq!(status, 200);
        let line = text.lines().find(|l| l.starts_with(series));
        line.map_or(0.0, |l| l.rsplit_once(' ').unwrap().1.parse().unwrap())
    }
}

impl Serving {
    fn says(&self, words: &str) -> String {
        eventually(words, LIMIT, || {
            let said = self.said.lock().unwrap().clone();
            if said.contains(words) { Ok(said) } else { Err(said) }
        })
    }

    fn port(&self) -> u16 {
        let said = self.says("http://127.0.0.1:");
        let rest = said.split("http://127.0.0.1:").nth(1).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    fn finish(mut self) -> (Option<i32>, String) {
        let status = eventually("the engine's end", LIMIT, || {
            self.child.try_wait().unwrap().ok_or_else(|| self.said.lock().unwrap().clone())
        });
        (status.code(), self.said.lock().unwrap().clone())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request on a connection of its own.
fn http(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String) {
    let more: String = headers.iter().map(|(k, v)| format!("{k}: {v}\r\n")).collect();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: engine\r\nconnection: close\r\ncontent-length: {}\r\n{more}\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn somebody_without_the_journal_says_yes_over_the_socket_and_the_kernel_names_them() {
    let site = Site::new();
    let _engine = site.started();
    let run = site.waiting_run("gpu002");
    let seen = site.other(&["runs"]);
    assert!(seen.code == 0 && seen.out.contains(&run), "{seen}");
    for refused in [&["breaker", "reset", "--reason", "x", "--queued", "drop"][..], &["cancel", "nosuchrun"]]
    {
        let done = site.other(refused);
        assert!(done.code == 2 && done.err.contains("hint:"), "{done}");
    }
    let why = site.other(&["why", "gpu002"]);
    assert!(why.code == 0 && why.out.contains("gpu002 is IDLE") && why.out.contains(&run), "{why}");
    let open = site.other(&["incidents"]);
    assert!(open.code == 0 && open.out.contains("gpu-ecc-uncorrectable"), "{open}");
    assert!(site.metric("slurmedic_open_runs{status=\"awaiting_approval\"}") >= 1.0);
    let yes = site.other(&["approve", &run]);
    assert!(yes.code == 0 && yes.out.contains("the engine that serves carries it out"), "{yes}");
    site.ends(&run, "succeeded");
    let told = site.own(&["show", &run]);
    assert!(told.out.contains(&format!("by {}, plan", site.person())), "{told}");
    let again = site.other(&["approve", &run]);
    assert!(again.code == 2 && again.err.contains("only a run that awaits approval"), "{again}");
    let reset = site.ask("POST", "/api/v1/breaker/reset", r#"{"why": "x", "queued": "drop"}"#);
    let admin = nix::unistd::geteuid().is_root();
    assert_eq!(reset.0, if admin { 409 } else { 403 }, "{}", reset.1);
    assert!(
        site.metric("slurmedic_runs_ended_total{playbook=\"dcgm-ecc-drain-reset\",end=\"succeeded\"}") >= 1.0
    );
    assert!(site.metric("slurmedic_step_seconds_count{action=\"slurm.drain\",outcome=\"succeeded\"}") >= 1.0);
}

#[test]
fn whoever_has_no_role_is_refused_on_each_verb_and_a_no_is_taken_from_whoever_may() {
    let site = Site::new();
    site.policy("nobody-else");
    let engine = site.started();
    let run = site.waiting_run("gpu002");
    if site.other.is_some() {
        for verb in [
            &["approve", run.as_str()][..],
            &["deny", &run],
            &["cancel", &run],
            &["ticket", &run],
            &["pause", "--reason", "x"],
            &["breaker", "reset", "--reason", "x", "--queued", "drop"],
            &["breaker", "wrong", &run, "--reason", "x"],
            &["alert", "a.json"],
        ] {
            let done = site.other(verb);
            assert!(done.code == 2 && done.err.contains("gives no such role"), "{verb:?} {done}");
        }
    }
    site.policy(&site.person());
    engine.signal(nix::sys::signal::Signal::SIGHUP);
    engine.says("read anew: the policy is another one");
    let no = site.other(&["deny", &run, "--why", "not tonight"]);
    assert!(no.code == 0 && no.out.contains("not tonight"), "{no}");
    site.ends(&run, "rejected");
}

#[test]
fn a_ticket_is_one_yes_of_one_person_to_one_plan() {
    let site = Site::new();
    let engine = site.started();
    let run = site.waiting_run("gpu002");
    let made = site.other(&["ticket", &run, "--expires", "10m", "--format", "json"]);
    let issued: Value = serde_json::from_str(&made.out).unwrap_or_else(|e| panic!("{e}: {made}"));
    assert_eq!(issued["person"], site.person());
    let post = |ticket: &str| {
        let to = TcpStream::connect(("127.0.0.1", engine.port())).unwrap();
        http(to, "POST", "/api/v1/approvals", &[], &serde_json::json!({ "ticket": ticket }).to_string())
    };
    let text = issued["ticket"].as_str().unwrap();
    let last = if text.ends_with('0') { "1" } else { "0" };
    assert_eq!(post(&format!("{}{last}", &text[..text.len() - 1])).0, 401, "one digit changed");
    let (status, said) = post(text);
    assert_eq!(status, 200, "{said}");
    site.ends(&run, "succeeded");
    assert_eq!(post(text).0, 409, "it counts once");
    let late = site.other(&["ticket", &run]);
    assert!(late.code == 2 && late.err.contains("waits for no yes"), "{late}");
}

#[test]
fn a_reload_brings_all_of_it_into_force_or_nothing() {
    let site = Site::new();
    let engine = site.started();
    let may = |wanted: bool| {
        let said = site.other(&["ticket", "r0"]);
        assert_eq!(said.err.contains("gives no such role"), !wanted, "{said}");
    };
    may(true);
    let good = fs::read_to_string(site.dir.path().join("policy.yaml")).unwrap();
    fs::write(site.dir.path().join("policy.yaml"), "roles: { approver: 7 }\n").unwrap();
    engine.signal(nix::sys::signal::Signal::SIGHUP);
    engine.says("the last good configuration stays in force");
    may(true);
    fs::write(site.dir.path().join("policy.yaml"), good).unwrap();
    fs::write(site.dir.path().join("ticket.key"), "short").unwrap();
    engine.signal(nix::sys::signal::Signal::SIGHUP);
    engine.says("the secret");
    may(true);
    assert!(site.metric("slurmedic_reloads_total{outcome=\"failed\"}") >= 2.0);
    fs::write(site.dir.path().join("ticket.key"), "0123456789abcdef0123456789abcdef").unwrap();
    let config = fs::read_to_string(site.dir.path().join("c.toml")).unwrap();
    fs::write(site.dir.path().join("c.toml"), config + "[engine]\npoll = \"7s\"\n").unwrap();
    site.policy("somebody-else");
    engine.signal(nix::sys::signal::Signal::SIGHUP);
    let said = engine.says("read anew: the policy is another one");
    assert!(said.contains("a restart is needed for [engine]"), "{said}");
    if site.other.is_some() {
        may(false);
    }
}

#[test]
fn the_service_manager_hears_ready_alive_reloading_and_stopping_and_the_log_is_json() {
    let site = Site::new();
    let at = site.dir.path().join("notify.sock");
    let manager = UnixDatagram::bind(&at).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let hears = |words: &str| {
        let mut seen = String::new();
        let mut buffer = [0; 4_096];
        while !seen.contains(words) {
            let n = manager.recv(&mut buffer).unwrap_or_else(|e| panic!("no {words}, {e}, but {seen}"));
            seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
            seen.push('\n');
        }
        seen
    };
    let environment = [("NOTIFY_SOCKET", at.display().to_string()), ("WATCHDOG_USEC", "900000".to_owned())];
    let engine = site.serve(&["--log", "json"], &environment);
    hears("READY=1");
    hears("WATCHDOG=1");
    engine.signal(nix::sys::signal::Signal::SIGHUP);
    assert!(hears("RELOADING=1").contains("RELOADING=1"));
    hears("READY=1");
    let (status, ready) = site.ask("GET", "/readyz", "");
    assert_eq!(status, 200, "{ready}");
    engine.signal(nix::sys::signal::Signal::SIGTERM);
    hears("STOPPING=1");
    let (code, said) = engine.finish();
    assert_eq!(code, Some(0), "{said}");
    let events: Vec<Value> = said.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
    for word in ["serving", "reloaded", "stopping"] {
        assert!(events.iter().any(|e| e["event"] == word), "no {word} in {said}");
    }
    assert!(!site.dir.path().join("run/engine.sock").exists(), "the socket goes with the engine");
}

#[test]
fn a_stop_parks_what_waits_and_leaves_the_journal_whole() {
    let site = Site::new();
    let engine = site.serve(&["--journal", "j.db"], &[]);
    engine.says("answers at http");
    let run = site.waiting_run("gpu002");
    engine.signal(nix::sys::signal::Signal::SIGTERM);
    let (code, said) = engine.finish();
    assert!(code == Some(0) && said.contains("stopping: nothing more is begun"), "{said}");
    let whole = site.own(&["journal", "verify", "--journal", "j.db"]);
    assert!(whole.code == 0 && whole.out.contains("the journal is whole"), "{whole}");
    let waits = site.own(&["show", &run, "--journal", "j.db"]);
    assert!(waits.out.contains("status    awaiting approval"), "{waits}");
}

#[test]
fn two_engines_never_share_a_socket_and_a_dead_one_leaves_it_free() {
    let site = Site::new();
    let first = site.started();
    let second = site.serve(&[], &[]);
    second.says("another engine process serves");
    drop(second);
    assert_eq!(site.ask("GET", "/healthz", ""), (200, "ok\n".to_owned()));
    first.signal(nix::sys::signal::Signal::SIGKILL);
    drop(first);
    assert!(site.dir.path().join("run/engine.sock").exists(), "left behind");
    let alone = site.own(&["incidents", "--journal", "none.db"]);
    assert!(alone.code == 2 && alone.err.contains("there is no journal"), "without an engine: {alone}");
    let _third = site.started();
    assert_eq!(site.ask("GET", "/healthz", ""), (200, "ok\n".to_owned()));
    if site.other.is_some() {
        let private = site.dir.path().join("private");
        fs::create_dir(&private).unwrap();
        fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
        let tools = "[slurm]\nscontrol = \"/bin/true\"\nsqueue = \"/bin/true\"\nsinfo = \"/bin/true\"\n";
        fs::write(site.dir.path().join("d.toml"), format!("cluster = \"slurm\"\n{tools}")).unwrap();
        let journal = private.join("j.db").display().to_string();
        let closed = site.other(&["approve", "r1", "--config", "d.toml", "--journal", &journal]);
        assert!(closed.code == 1 && closed.err.contains("is not for you"), "{closed}");
        assert!(closed.err.contains("hint: no engine serves it at"), "{closed}");
    }
    let other_journal = site.own(&["runs", "--journal", "none.db"]);
    assert_eq!(other_journal.code, 2, "an engine with another journal is not asked: {other_journal}");
}

#[test]
fn alertmanager_and_a_scraper_come_with_tokens_made_at_the_terminal() {
    let site = Site::new();
    let engine = site.started();
    let new = |name: &str, scope: &str| {
        let done = site.own(&["token", "new", name, "--scope", scope, "--expires", "1d"]);
        assert!(done.code == 0 && done.out.starts_with("slurmedic_"), "{done}");
        format!("Bearer {}", done.out.trim())
    };
    let (feeder, scraper) = (new("alertmanager", "alerts"), new("prometheus", "metrics"));
    let again = site.own(&["token", "new", "prometheus", "--scope", "metrics"]);
    assert!(again.code == 2 && again.err.contains("already"), "{again}");
    let list = site.own(&["token", "list"]);
    assert!(list.out.contains("alertmanager") && list.out.lines().all(|l| l.chars().count() <= 80), "{list}");
    let ask = |method: &str, path: &str, token: &str, body: &str| {
        let to = TcpStream::connect(("127.0.0.1", engine.port())).unwrap();
        http(to, method, path, &[("authorization", token)], body)
    };
    let capture = crate::support::root().join("fixtures/alerts/alertmanager-0.25.0/firing.json");
    let post = fs::read_to_string(capture).unwrap().replace("GpuEccUncorrectable", "GpuEcc");
    let post = post.replace("2026-11-21T15:16:05.433147532Z", &jiff::Timestamp::now().to_string());
    let (status, said) = ask("POST", "/api/v1/alerts/alertmanager", &feeder, &post);
    assert_eq!(status, 200, "{said}");
    assert!(said.contains("\"new\":2"), "{said}");
    assert_eq!(ask("GET", "/metrics", &feeder, "").0, 403);
    let (status, text) = ask("GET", "/metrics", &scraper, "");
    assert_eq!(status, 200);
    for series in [
        "slurmedic_alerts_total{source=\"alertmanager\",outcome=\"opened\"} 2",
        "slurmedic_open_incidents{",
        "slurmedic_nodes 64",
        "slurmedic_nodes_out_of_service{budget=\"fleet\"}",
        "slurmedic_budget_nodes{budget=\"fleet\"} 1",
        "slurmedic_source_stale{source=\"alertmanager\"} 0",
        "slurmedic_ready{part=\"dispatcher\"} 1",
        "slurmedic_queued_incidents ",
    ] {
        assert!(text.lines().any(|l| l.starts_with(series)), "no {series} in\n{text}");
    }
    let gone = site.own(&["token", "revoke", "prometheus"]);
    assert_eq!(gone.code, 0, "{gone}");
    assert_eq!(ask("GET", "/metrics", &scraper, "").0, 401, "at once");
}

#[test]
fn the_unit_starts_what_the_command_knows() {
    let unit =
        fs::read_to_string(crate::support::root().join("packaging/systemd/slurmedic.service")).unwrap();
    let start = unit.lines().find_map(|l| l.strip_prefix("ExecStart=/usr/bin/slurmedic ")).unwrap();
    let mut words: Vec<&str> = start.split_whitespace().collect();
    words.push("--help");
    let site = Site::new();
    let done = site.own(&words);
    assert!(done.code == 0 && done.out.contains("--log"), "{done}");
    for line in ["Type=notify", "NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet="] {
        assert!(unit.lines().any(|l| l == line), "{line}");
    }
}
