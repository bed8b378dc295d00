//! A whole site on a lab of its own: the engine that serves, an agent, a hook and GPUs for each node, polling and triggers.

use super::cmd::{Done, Running, run};
use super::exporter::Exporter;
use super::fake::Fake;
use super::lab::{Lab, Lent};
use super::product::{Bench, LIMIT};
use super::{eventually, read, root};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Seconds between two health checks of Slurm.
const HEALTH: u32 = 15;
const SOON: Duration = Duration::from_secs(60);

/// A few nodes may all have a fault in a quarter of an hour here: that is no storm.
const POLICY: &str = "\
budgets: { fleet: 100%, partition: 100%, rack: 100%, fabric: 100% }
concurrent_runs: 100
rates: { reversible: 10000 per 1h, disruptive: 10000 per 1h }
breaker: { fleet: 100% per 15m, partition: 100% per 15m, ambiguous_outcomes: 1000 per 1h }
roles: { viewer: { users: [\"*\"] }, operator: { users: [\"*\"] }, approver: { users: [alice, root] }, admin: { users: [root] } }
";

/// One node.
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: String,
    /// Its GPU tools.
    pub(crate) gpu: Fake,
    /// Its agent, while it runs.
    pub(crate) agent: Option<Running>,
    /// PCI addresses of its GPUs.
    bus: Vec<String>,
}

/// The site.
pub(crate) struct Cluster {
    /// The nodes.
    pub(crate) nodes: Vec<Node>,
    /// The engine, while it serves.
    pub(crate) engine: Option<Running>,
    bench: Bench,
    port: u16,
    /// The programs as they were when the site was set up: a build meanwhile changes nothing.
    medic: PathBuf,
}

fn open_to(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

impl Cluster {
    /// Sets a site with so many nodes up; nothing of ours runs yet.
    pub(crate) fn of(count: usize) -> Self {
        let lab = Lab::looked_after(count, HEALTH);
        let own = lab.dir().join("hook");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::create_dir_all(lab.dir().join("hooks")).unwrap();
        open_to(&own, 0o777);
        let built = Path::new(env!("CARGO_BIN_EXE_slurmedic"));
        std::fs::copy(built, own.join("slurmedic")).unwrap();
        std::fs::copy(built.with_file_name("slurmedic-hook"), own.join("slurmedic-hook")).unwrap();
        let names: Vec<String> = (1..=count).map(|i| format!("gpu{i:03}")).collect();
        let bench = Bench::on(Lent::of(lab, &names[0]));
        std::fs::write(bench.file("policy.yaml"), POLICY).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let nodes = names.iter().map(|name| {
            let gpu = Fake::gpu_node(name, "4.6.0");
            let table = read(gpu.path().join("gpus"));
            let bus = table.lines().filter_map(|l| l.split('\t').nth(2)).map(str::to_owned).collect();
            Node { name: name.clone(), gpu, agent: None, bus }
        });
        let nodes: Vec<Node> = nodes.collect();
        let site = Self { nodes, engine: None, bench, port, medic: own.join("slurmedic") };
        site.configure(&own);
        site.install(&own);
        site
    }

    fn configure(&self, own: &Path) {
        let whole = read(self.bench.config());
        let name = |n: &str| format!("name = {n:?}");
        let first = name(&self.nodes[0].name);
        let table: Vec<(&str, &Path)> = self.nodes.iter().map(|n| (n.name.as_str(), n.gpu.path())).collect();
        let exporter = Exporter::of(&table).url();
        let (before, after) = whole.split_once("[playbooks]\n").unwrap();
        let engine = format!("{before}{}", after.split_once('\n').unwrap().1);
        let engine = engine[..engine.find("[node.tools]").unwrap()].replace(&first, &name("enginehost"));
        let guide = read(root().join("docs/guide/hooks.md"));
        let source = guide.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        let key = |who: &str| own.join(format!("{who}.key")).display().to_string();
        let engine = format!(
            "{engine}[server]\nsocket = {:?}\nlisten = \"127.0.0.1:{}\"\n{}[agents]\nsecret = {:?}\n\
             [exporter]\nurl = {exporter:?}\n[watch]\ninterval = \"3s\"\ngpu_interval = \"3s\"\nsilent = \"30s\"\n",
            self.file("engine.sock"),
            self.port,
            source.replace("/etc/slurmedic/hook.key", &key("engine")),
            self.file("agents.secret"),
        );
        std::fs::write(self.bench.file("engine.toml"), engine).unwrap();
        // The same secret for each user that reads it: a hook on the controller runs as SlurmUser.
        for who in ["engine", "root", "slurm"] {
            std::fs::write(key(who), "0123456789abcdef0123456789abcdef\n").unwrap();
            open_to(Path::new(&key(who)), 0o600);
        }
        self.verb(&["agent", "secret"]).ok();
        let first_gpu = self.bench.gpu.path().display().to_string();
        for node in &self.nodes {
            let made = self.verb(&["agent", "key", &node.name]).ok();
            let key = self.bench.file(&format!("{}.key", node.name));
            std::fs::write(&key, made).unwrap();
            open_to(&key, 0o600);
            let tools = whole.replace(&first_gpu, &node.gpu.path().display().to_string());
            let spool = own.join(&node.name).join("spool").display().to_string();
            let config = format!("{}[agent]\nspool = {spool:?}\n", tools.replace(&first, &name(&node.name)));
            std::fs::write(self.bench.file(&format!("{}.toml", node.name)), config).unwrap();
        }
    }

    /// Lets Slurm start the hook: as HealthCheckProgram on the nodes, as triggers on the controller.
    fn install(&self, own: &Path) {
        let dir = own.display().to_string();
        let direct = |who: &str| {
            format!(
                "engine = http://127.0.0.1:{}\nengine_path = /api/v1/alerts/hook\nsecret_file = {dir}/{who}.key\n",
                self.port
            )
        };
        for (i, node) in self.nodes.iter().enumerate() {
            let name = &node.name;
            std::fs::write(own.join(format!("{name}.log")), "[ 0.0] Linux version 6.1.0\n").unwrap();
            // One half tells the engine itself, the other half leaves it to the agent.
            let to = if i % 2 == 0 { direct("root") } else { String::new() };
            let text = format!(
                "{to}state_dir = {dir}/{name}\nsyslog = no\nrepeat = 1m\ncheck xid log={dir}/{name}.log\ncheck mount path=/\n"
            );
            std::fs::write(own.join(format!("{name}.conf")), text).unwrap();
        }
        let as_root = nix::unistd::Uid::effective().is_root();
        let user = if as_root { "slurm" } else { "root" };
        if as_root {
            let slurm = nix::unistd::User::from_name("slurm").unwrap().unwrap();
            std::os::unix::fs::chown(own.join("slurm.key"), Some(slurm.uid.as_raw()), None).unwrap();
        }
        let text = format!("{}state_dir = {dir}/controller\nsyslog = no\n", direct(user));
        std::fs::write(own.join("controller.conf"), text).unwrap();
        let script = |path: &Path, text: String| {
            std::fs::write(path, text).unwrap();
            open_to(path, 0o755);
        };
        let strigger = self.lab().bin().join("strigger");
        for event in ["down", "up", "drained"] {
            std::os::unix::fs::symlink("slurmedic-hook", own.join(format!("slurmedic-hook-{event}")))
                .unwrap();
            let program = own.join(event);
            script(
                &program,
                format!(
                    "#!/bin/sh\nexec {dir}/slurmedic-hook-{event} --config {dir}/controller.conf \"$@\" 2>>{dir}/err-{event}\n"
                ),
            );
            let mut set = Command::new(if as_root { Path::new("setpriv") } else { &strigger });
            if as_root {
                set.args(["--reuid=slurm", "--regid=slurm", "--clear-groups"]).arg(&strigger);
            }
            set.args(["--set", "--node", &format!("--{event}"), "--flags=PERM"]);
            set.arg(format!("--program={}", program.display())).env("SLURM_CONF", self.lab().conf());
            run(&mut set, SOON).ok();
        }
        script(
            &own.join("new"),
            format!(
                "#!/bin/sh\nexec {dir}/slurmedic-hook --config {dir}/$SLURMD_NODENAME.conf 2>>{dir}/err\n"
            ),
        );
        std::fs::rename(own.join("new"), self.lab().dir().join("hooks/health")).unwrap();
    }

    /// The lab.
    pub(crate) fn lab(&self) -> &Lab {
        &self.bench.lab
    }

    /// Where a file of the site lies.
    pub(crate) fn file(&self, name: &str) -> String {
        self.bench.file(name).display().to_string()
    }

    fn command(&self, config: &str, args: &[&str]) -> Command {
        let mut c = Command::new(&self.medic);
        c.args(args).arg("--config").arg(self.bench.file(config)).env("NO_COLOR", "1");
        for name in ["SLURM_CONF", "SLURMEDIC_CONFIG", "SLURMEDIC_JOURNAL", "SUDO_USER"] {
            c.env_remove(name);
        }
        c
    }

    /// A verb on the engine's host.
    pub(crate) fn verb(&self, args: &[&str]) -> Done {
        run(&mut self.command("engine.toml", args), LIMIT)
    }

    /// Starts the engine and waits until it answers.
    pub(crate) fn serve(&mut self) {
        self.engine = Some(Running::start(&mut self.command("engine.toml", &["serve", "--round", "1"])));
        let socket = self.file("engine.sock");
        eventually("the engine answers", SOON, || {
            std::os::unix::net::UnixStream::connect(&socket).map_err(|e| e.to_string())
        });
    }

    /// Starts the agent of a node; one that runs is killed.
    pub(crate) fn start_agent(&mut self, node: usize) {
        let name = &self.nodes[node].name;
        let (key, state) = (self.file(&format!("{name}.key")), self.file(&format!("{name}.state")));
        let url = format!("http://127.0.0.1:{}", self.port);
        let words = ["agent", "run", "--engine", &url, "--key", &key, "--state", &state];
        let agent = Running::start(&mut self.command(&format!("{name}.toml"), &words));
        self.nodes[node].agent = Some(agent);
    }

    /// Writes an XID of a GPU to the kernel log of a node.
    pub(crate) fn xid(&self, node: usize, gpu: usize, xid: u32) {
        let node = &self.nodes[node];
        let bus = node.bus[gpu].trim_start_matches("0000").trim_end_matches(".0");
        let log = self.lab().dir().join("hook").join(format!("{}.log", node.name));
        let line = format!("[ 4242.1] NVRM: Xid (PCI:0000{bus}): {xid}, pid='<unknown>', name=<unknown>\n");
        std::fs::OpenOptions::new().append(true).open(log).unwrap().write_all(line.as_bytes()).unwrap();
    }

    /// What any fake of the site did not expect.
    pub(crate) fn unexpected(&self) -> String {
        let gpus = self.nodes.iter().map(|n| n.gpu.unexpected());
        gpus.chain([self.bench.slurm.unexpected()]).collect()
    }
}
