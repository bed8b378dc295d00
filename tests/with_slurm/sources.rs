//! The ways by which a fault reaches the engine, each to its end on a real Slurm: with one yes of a person the node is
//! repaired, verified and back. The hook's own way is in `agent.rs`.

use crate::support::agents::{SOON, Site};
use crate::support::cmd::{Running, run};
use crate::support::exporter::Exporter;
use crate::support::lab::{Lab, Lent};
use crate::support::product::{Bench, LIMIT, Story};
use crate::support::{eventually, read};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

fn time(value: &Value) -> jiff::Timestamp {
    value.as_str().unwrap_or_else(|| panic!("no time in {value}")).parse().unwrap()
}

/// From the incident that waits for a yes to the node that serves again; the order of what is on record is checked.
fn repaired(site: &Site, source: &str) -> Story {
    let story = site.await_status(&["awaiting_approval"]);
    let open = run(&mut site.medic(&["incidents", "--format", "json"]), LIMIT).ok();
    let open: Value = serde_json::from_str(&open).unwrap();
    let all = open["incidents"].as_array().unwrap();
    let incident = all.iter().find(|i| i["run"] == story.run()).unwrap_or_else(|| panic!("{open:#}"));
    let told = incident["alerts"].as_object().unwrap();
    let alert = told.values().find(|a| a["source"] == source && a["fault"] == "gpu-ecc-uncorrectable");
    assert!(alert.is_some(), "no alert of {source}: {incident:#}");
    run(&mut site.medic(&["approve", &story.run()]), LIMIT).ok();
    let story = site.await_status(&["succeeded", "held", "rejected", "rolled_back", "stuck"]);
    assert_eq!(story.status(), "succeeded", "{story}");
    site.bench.agrees(&story);
    site.bench.lab.await_state(site.bench.node(), &["IDLE"]);

    // alert → incident → plan → approval → steps → end
    let at =
        |kind: &str| time(&story.of_kind(kind).next().unwrap_or_else(|| panic!("{kind}: {story}"))["at"]);
    let order = ["proposed", "approval_requested", "approved", "started", "intent", "finished", "ended"];
    let times: Vec<_> = std::iter::once(time(&incident["opened_at"])).chain(order.map(at)).collect();
    assert!(times.is_sorted(), "{times:?}: {story}");
    assert_eq!(story.of_kind("approved").count(), 1, "one yes was enough: {story}");
    eventually("the incident is over", MINUTE, || {
        let open = run(&mut site.medic(&["incidents", "--format", "json"]), LIMIT).ok();
        if open.contains(&format!("\"{}\"", site.bench.node())) { Err(open) } else { Ok(()) }
    });
    story
}

/// The Alertmanager of the distribution.
fn alertmanager() -> PathBuf {
    let names = ["prometheus-alertmanager", "alertmanager"];
    let dirs = ["/usr/bin", "/usr/local/bin"];
    let all = dirs.iter().flat_map(|d| names.map(|n| Path::new(d).join(n)));
    all.clone().find(|p| p.is_file()).unwrap_or_else(|| {
        panic!("this test needs an Alertmanager: run tests/run, which installs prometheus-alertmanager")
    })
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn an_alertmanager_leads_to_a_verified_node() {
    let mut site = Site::with(Bench::faulty(), |_| {
        "[server.sources.alertmanager]\nfaults = { GpuEccUncorrectable = \"gpu-ecc-uncorrectable\" }\n"
            .to_owned()
    });
    site.serve();
    site.start_agent();
    let token = run(&mut site.medic(&["token", "new", "alertmanager", "--scope", "alerts"]), LIMIT).ok();
    let token = token.lines().find(|l| l.starts_with("slurmedic_")).unwrap();
    std::fs::write(site.bench.file("am.token"), token).unwrap();
    let config = format!(
        "route: {{ receiver: slurmedic, group_by: [alertname, instance], group_wait: 1s, group_interval: 1s, repeat_interval: 1m }}\n\
         receivers:\n- name: slurmedic\n  webhook_configs:\n  \
         - url: http://127.0.0.1:{}/api/v1/alerts/alertmanager\n    send_resolved: true\n    \
         http_config: {{ authorization: {{ credentials_file: {} }} }}\n",
        site.port,
        site.bench.file("am.token").display()
    );
    std::fs::write(site.bench.file("alertmanager.yml"), config).unwrap();
    let port = free_port();
    let mut program = Command::new(alertmanager());
    program
        .arg(format!("--config.file={}", site.bench.file("alertmanager.yml").display()))
        .arg(format!("--storage.path={}", site.bench.file("alertmanager").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--cluster.listen-address=");
    let sender = Running::start(&mut program);
    let post = |alert: &Value| {
        let mut c = Command::new("curl");
        c.args(["-sS", "--fail", "-m", "10", "-H", "Content-Type: application/json", "-d"]);
        run(c.arg(alert.to_string()).arg(format!("http://127.0.0.1:{port}/api/v2/alerts")), MINUTE)
    };
    let began = jiff::Timestamp::now();
    let mut alert = serde_json::json!([{
        "labels": { "alertname": "GpuEccUncorrectable", "severity": "critical", "gpu": "2",
                    "instance": format!("{}:9400", site.bench.node()) },
        "annotations": { "summary": "2 uncorrectable errors" },
        "startsAt": began.to_string(),
    }]);
    eventually("the Alertmanager takes alerts", MINUTE, || {
        let done = post(&alert);
        if done.code == 0 { Ok(()) } else { Err(done.to_string()) }
    });
    repaired(&site, "alertmanager");
    // What it says when it is over is heard too, and opens nothing.
    alert[0]["endsAt"] = Value::from(jiff::Timestamp::now().to_string());
    assert_eq!(post(&alert).code, 0);
    let metrics = |what: &str| {
        let mut c = Command::new("curl");
        c.args(["-sS", "-m", "10", "--unix-socket"]).arg(site.bench.file("engine.sock"));
        let text = run(c.arg("http://engine/metrics"), MINUTE).ok();
        text.lines()
            .any(|l| l.starts_with("slurmedic_alerts_total{source=\"alertmanager\"") && l.contains(what))
    };
    eventually("the end was heard", MINUTE, || {
        if metrics("nothing_to_resolve") || metrics("counted") { Ok(()) } else { Err("not yet".to_owned()) }
    });
    drop(sender);
}

/// A trigger gets a host list and nothing else: the engine looks at the node for the cause, and judges anew when it is up.
#[test]
fn a_trigger_leads_to_a_verified_node() {
    let lab = Lab::up(2);
    let dir = lab.dir().join("hook");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    let built = Path::new(env!("CARGO_BIN_EXE_slurmedic")).with_file_name("slurmedic-hook");
    std::fs::copy(built, dir.join("slurmedic-hook")).unwrap();
    let bench = Bench::on(Lent::of(lab, "gpu002"));
    bench.gpu.set(&["fault", "ecc-dbe", "2"]);
    // slurmctld's host: the user of slurmctld tells the engine over loopback, with a signature.
    std::fs::write(dir.join("key"), "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::set_permissions(dir.join("key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let key = dir.join("key").display().to_string();
    let guide = read(crate::support::root().join("docs/guide/hooks.md"));
    let source = guide.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let source = source.replace("/etc/slurmedic/hook.key", &key);
    // Polling of Slurm tells nothing here: only the trigger does.
    let mut site = Site::with(bench, |_| format!("{source}[watch]\nslurm = false\n"));
    let own = dir.display().to_string();
    let conf = format!(
        "engine = http://127.0.0.1:{}\nengine_path = /api/v1/alerts/hook\nsecret_file = {own}/key\nstate_dir = {own}/state\nsyslog = no\n",
        site.port
    );
    std::fs::write(dir.join("hook.conf"), conf).unwrap();
    let root = nix::unistd::Uid::effective().is_root();
    let as_slurm = |program: &Path| {
        let mut c = Command::new(if root { Path::new("setpriv") } else { program });
        if root {
            c.args(["--reuid=slurm", "--regid=slurm", "--clear-groups"]).arg(program);
        }
        c.env("SLURM_CONF", site.bench.lab.conf());
        c
    };
    if root {
        // The hook reads a secret only if its own user owns it, and the engine reads its copy.
        let slurm = nix::unistd::User::from_name("slurm").unwrap().unwrap();
        std::fs::copy(dir.join("key"), dir.join("engine.key")).unwrap();
        std::os::unix::fs::chown(dir.join("key"), Some(slurm.uid.as_raw()), None).unwrap();
        let config = read(site.bench.file("engine.toml")).replace(&key, &format!("{own}/engine.key"));
        std::fs::write(site.bench.file("engine.toml"), config).unwrap();
    }
    let strigger = site.bench.lab.bin().join("strigger");
    for event in ["down", "up"] {
        let link = dir.join(format!("slurmedic-hook-{event}"));
        std::os::unix::fs::symlink("slurmedic-hook", &link).unwrap();
        let script = dir.join(event);
        let text = format!(
            "#!/bin/sh\nexec {own}/slurmedic-hook-{event} --config {own}/hook.conf \"$@\" 2>>{own}/err\n"
        );
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut set = as_slurm(&strigger);
        set.args(["--set", "--node=gpu002", &format!("--{event}"), "--flags=PERM"]);
        run(set.arg(format!("--program={}", script.display())), MINUTE).ok();
    }
    site.serve();
    site.start_agent();

    // slurmd dies; slurmctld calls the node DOWN, and tells it by the trigger.
    site.bench.lab.lab(&["stop", "gpu002", "KILL"]).ok();
    eventually("a person has the incident, and the cause", SOON, || {
        let open = run(&mut site.medic(&["incidents", "--format", "json"]), LIMIT).ok();
        let all =
            ["node-not-responding", "gpu-ecc-uncorrectable", "node.state"].iter().all(|w| open.contains(w));
        if all {
            Ok(())
        } else {
            Err(format!("{open}\n{}\n{}", site.bench.lab.state("gpu002"), read(dir.join("err"))))
        }
    });
    assert!(site.told().is_none(), "nothing is planned for a node that is down");
    // It is brought back: slurmctld tells that too, and the engine goes on by itself.
    site.bench.lab.lab(&["start", "gpu002"]).ok();
    repaired(&site, "node-look");
}

/// Every hook is off: the engine asks Slurm, and the exporter of each node.
#[test]
fn polling_alone_leads_to_a_verified_node() {
    let bench = Bench::on(Lent::nodes(1));
    let exporter = Exporter::of(&[(bench.node(), bench.gpu.path())]);
    let url = exporter.url();
    let watch = "[watch]\ninterval = \"1s\"\ngpu_interval = \"1s\"\n";
    let mut site = Site::with(bench, |_| format!("[exporter]\nurl = \"{url}\"\n{watch}"));
    site.serve();
    site.start_agent();
    eventually("the exporter is asked", MINUTE, || {
        if exporter.asked() > 1 { Ok(()) } else { Err("no".to_owned()) }
    });
    assert!(site.told().is_none(), "a healthy node is left alone");
    site.bench.gpu.set(&["fault", "ecc-dbe", "2"]);
    repaired(&site, "exporter-poll");
}
