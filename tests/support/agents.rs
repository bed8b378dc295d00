//! An engine on a host that is no node, and the agent of one node: what the suites about the way of an alert share.

use super::cmd::{Running, run};
use super::product::{Bench, LIMIT, Story};
use super::{eventually, read};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

/// How long a run may take here, with everybody else's tests beside it.
pub(crate) const SOON: Duration = Duration::from_secs(240);

/// The engine on a host that is no node, and the agent of the one node.
pub(crate) struct Site {
    /// The node, its tools and the lab.
    pub(crate) bench: Bench,
    /// Port of the engine on loopback.
    pub(crate) port: u16,
    /// The engine, once it serves.
    pub(crate) engine: Option<Running>,
    /// The agent, once it runs.
    pub(crate) agent: Option<Running>,
}

impl Site {
    /// Borrows a node whose GPU 2 has an uncorrectable memory error.
    pub(crate) fn new() -> Self {
        Self::on(Bench::faulty())
    }

    /// The same on a bench.
    pub(crate) fn on(bench: Bench) -> Self {
        Self::with(bench, |_| String::new())
    }

    /// The same with more lines for the engine's configuration; they begin in its section `[server]`, behind its other keys.
    pub(crate) fn with(bench: Bench, more: impl FnOnce(&Bench) -> String) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let own = read(bench.config());
        let node = format!("name = {:?}", bench.node());
        let tools = own.find("[node.tools]").unwrap();
        // One playbook for the fault: between two a person would have to choose.
        let engine = own[..tools].replace(&node, "name = \"enginehost\"");
        let (before, after) = engine.split_once("[playbooks]\n").unwrap();
        let engine = format!("{before}{}", after.split_once('\n').unwrap().1);
        let engine = format!(
            "{engine}[server]\nsocket = {:?}\nlisten = \"127.0.0.1:{port}\"\ntokens = {:?}\n{}\n[agents]\nsecret = {:?}\n",
            bench.file("engine.sock").display().to_string(),
            bench.file("tokens.json").display().to_string(),
            more(&bench),
            bench.file("agents.secret").display().to_string(),
        );
        std::fs::write(bench.file("engine.toml"), engine).unwrap();
        let site = Self { bench, port, engine: None, agent: None };
        run(&mut site.medic(&["agent", "secret"]), LIMIT).ok();
        let key = run(&mut site.medic(&["agent", "key", site.bench.node()]), LIMIT).ok();
        std::fs::write(site.bench.file("node.key"), key).unwrap();
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(site.bench.file("node.key"), mode).unwrap();
        site
    }

    /// The program on the engine's host.
    pub(crate) fn medic(&self, args: &[&str]) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_slurmedic"));
        c.args(args).arg("--config").arg(self.bench.file("engine.toml")).env("NO_COLOR", "1");
        for name in ["SLURM_CONF", "SLURMEDIC_CONFIG", "SLURMEDIC_JOURNAL", "SUDO_USER"] {
            c.env_remove(name);
        }
        c
    }

    /// Starts the engine and waits until it answers.
    pub(crate) fn serve(&mut self) {
        self.engine = Some(Running::start(&mut self.medic(&["serve", "--round", "1"])));
        let socket = self.bench.file("engine.sock");
        eventually("the engine answers", SOON, || {
            std::os::unix::net::UnixStream::connect(&socket).map_err(|e| e.to_string())
        });
    }

    /// Starts the agent of the node.
    pub(crate) fn start_agent(&mut self) {
        let key = self.bench.file("node.key").display().to_string();
        let state = self.bench.file("agent-state").display().to_string();
        let url = format!("http://127.0.0.1:{}", self.port);
        let words = ["agent", "run", "--engine", &url, "--key", &key, "--state", &state];
        self.agent = Some(Running::start(&mut self.bench.medic(&words)));
    }

    /// Feeds an alert about GPU 2 by hand.
    pub(crate) fn alert(&self) {
        let alert = serde_json::json!([{
            "source": "test", "fingerprint": "ecc/2", "fault": "gpu-ecc-uncorrectable", "node": self.bench.node(),
            "gpu": "2", "firing": true, "seen_at": jiff::Timestamp::now().to_string(), "summary": "DBE",
        }]);
        let file = self.bench.file("alert.json");
        std::fs::write(&file, alert.to_string()).unwrap();
        run(&mut self.medic(&["alert", &file.display().to_string()]), LIMIT).ok();
    }

    /// The newest run, if there is one.
    pub(crate) fn told(&self) -> Option<Story> {
        let list = run(&mut self.medic(&["runs", "--format", "json"]), LIMIT);
        let list: serde_json::Value = serde_json::from_str(&list.out).ok()?;
        let id = list["runs"][0]["run"].as_str()?.to_owned();
        Some(Story::of(run(&mut self.medic(&["show", &id, "--format", "json"]), LIMIT)))
    }

    /// Waits until the newest run has one of these.
    pub(crate) fn await_status(&self, wanted: &[&str]) -> Story {
        eventually(&format!("a run that is {wanted:?}"), SOON, || match self.told() {
            Some(story) if wanted.contains(&story.status().as_str()) => Ok(story),
            Some(story) => Err(format!("{story}its last event is {}", story.events().last().unwrap())),
            None => Err(run(&mut self.medic(&["incidents"]), LIMIT).to_string()),
        })
    }

    /// From the alert to the yes of a person.
    pub(crate) fn approved(&self) {
        self.alert();
        let story = self.await_status(&["awaiting_approval"]);
        run(&mut self.medic(&["approve", &story.run()]), LIMIT).ok();
    }
}
