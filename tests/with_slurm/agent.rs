//! The node's own agent, with the real program on both sides: the whole way of an alert, and what comes of a node that dies,
//! lies or is gone in the middle.

use crate::support::agents::{SOON, Site};
use crate::support::cmd::run;
use crate::support::lab::{Lab, Lent};
use crate::support::product::{Bench, LIMIT, MAIN, Story};
use crate::support::{eventually, read};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

/// Counts the sockets of a process that listen, as `ss` tells it.
fn listening(pid: u32) -> usize {
    let mut inodes: Vec<String> = Vec::new();
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        let fields = text.lines().skip(1).map(|l| l.split_whitespace().collect::<Vec<_>>());
        inodes.extend(
            fields.filter(|f| f.get(3) == Some(&"0A")).filter_map(|f| f.get(9).map(|i| (*i).to_owned())),
        );
    }
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = fds.filter_map(|f| std::fs::read_link(f.ok()?.path()).ok());
    links.filter(|l| inodes.iter().any(|i| l == Path::new(&format!("socket:[{i}]")))).count()
}

#[test]
fn an_alert_becomes_a_repair_by_the_agent_which_opens_no_port() {
    let mut site = Site::new();
    site.serve();
    site.start_agent();
    assert!(listening(site.engine.as_ref().unwrap().pid()) > 0, "the engine listens, so the look tells");
    site.approved();
    let agent = site.agent.as_ref().unwrap().pid();
    assert_eq!(listening(agent), 0);
    let story = site.await_status(&["succeeded", "held", "rejected", "rolled_back", "stuck"]);
    assert_eq!(story.status(), "succeeded", "{story}");
    assert_eq!(listening(agent), 0);
    site.bench.agrees(&story);
    site.bench.lab.await_state(site.bench.node(), &["IDLE"]);
}

/// C1 of the daemon: Slurm starts the hook, the hook finds an XID, the agent carries it, the engine asks, a person says yes, the
/// agent repairs, and the node is back.
#[test]
fn an_xid_in_the_kernel_log_leads_to_a_verified_node_by_hook_and_agent() {
    let lab = Lab::looked_after(3, 10);
    let (hooks, own) = (lab.dir().join("hooks"), lab.dir().join("hook"));
    for dir in [&hooks, &own] {
        std::fs::create_dir_all(dir).unwrap();
    }
    let built = Path::new(env!("CARGO_BIN_EXE_slurmedic")).with_file_name("slurmedic-hook");
    std::fs::copy(built, own.join("slurmedic-hook")).unwrap();
    let dir = own.display().to_string();
    for node in ["gpu001", "gpu002", "gpu003"] {
        std::fs::write(own.join(format!("{node}.log")), "[ 0.0] Linux version 6.1.0\n").unwrap();
        let conf = format!("state_dir = {dir}/{node}\nsyslog = no\ncheck xid log={dir}/{node}.log\n");
        std::fs::write(own.join(format!("{node}.conf")), conf).unwrap();
    }
    let script =
        format!("#!/bin/sh\nexec {dir}/slurmedic-hook --config {dir}/$SLURMD_NODENAME.conf 2>>{dir}/err\n");
    std::fs::write(own.join("new"), script).unwrap();
    std::fs::set_permissions(own.join("new"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(own.join("new"), hooks.join("health")).unwrap();

    let bench = Bench::on(Lent::of(lab, "gpu003"));
    bench.gpu.set(&["fault", "ecc-dbe", "2"]);
    let mut config = read(bench.config());
    config.push_str(&format!("[agent]\nspool = \"{dir}/gpu003/spool\"\n"));
    std::fs::write(bench.config(), config).unwrap();
    let mut site = Site::on(bench);
    site.serve();
    site.start_agent();
    eventually("the node was looked at", SOON, || {
        if own.join("gpu003/state").exists() { Ok(()) } else { Err("not yet".to_owned()) }
    });
    let mut log = std::fs::OpenOptions::new().append(true).open(own.join("gpu003.log")).unwrap();
    log.write_all(b"[ 4242.1] NVRM: Xid (PCI:0000:52:00): 48, pid='<unknown>', name=<unknown>, DBE\n")
        .unwrap();
    let story = site.await_status(&["awaiting_approval"]);
    run(&mut site.medic(&["approve", &story.run()]), LIMIT).ok();
    let story = site.await_status(&["succeeded", "held", "rejected", "rolled_back", "stuck"]);
    assert_eq!(story.status(), "succeeded", "{story}");
    site.bench.agrees(&story);
    site.bench.lab.await_state("gpu003", &["IDLE"]);
    // Plan, yes and steps are on record; the incident is over.
    let incidents = run(&mut site.medic(&["incidents"]), LIMIT).ok();
    assert!(!incidents.contains("gpu003"), "{incidents}");
    let kinds = story.kinds();
    for kind in ["proposed", "approval_requested", "approved", "started", "intent", "finished", "ended"] {
        assert!(kinds.contains(&kind), "{kind}: {story}");
    }
}

#[test]
fn what_the_hook_could_not_tell_is_carried_by_the_agent() {
    let mut site = Site::new();
    let spool = site.bench.file("hook/spool");
    std::fs::create_dir_all(&spool).unwrap();
    let mut config = read(site.bench.config());
    config.push_str(&format!("[agent]\nspool = {:?}\n", spool.display().to_string()));
    std::fs::write(site.bench.config(), config).unwrap();
    let line = |node: &str| {
        format!(
            r#"{{"fault":"gpu-ecc-uncorrectable","node":"{node}","gpu":"2","seen_at":"{}"}}"#,
            jiff::Timestamp::now()
        )
    };
    let both = format!("{}\n{}\n", line(site.bench.node()), line("gpu999"));
    std::fs::write(spool.join("0000000000001-1-0-state-00000000-000000000000.json"), both).unwrap();
    site.serve();
    site.start_agent();
    let story = site.await_status(&["awaiting_approval"]);
    assert!(story.to_string().contains("awaiting_approval"));
    eventually("the report is gone", SOON, || match std::fs::read_dir(&spool).unwrap().count() {
        0 => Ok(()),
        n => Err(format!("{n} files wait")),
    });
    // A node tells about itself only: of the other nothing is on record.
    let open = run(&mut site.medic(&["incidents", "--format", "json"]), LIMIT).ok();
    assert!(open.contains(site.bench.node()) && !open.contains("gpu999"), "{open}");
}

#[test]
fn without_its_agent_nothing_is_drained() {
    let mut site = Site::new();
    site.serve();
    site.alert();
    std::thread::sleep(Duration::from_secs(8));
    let drained = site.bench.lab.state(site.bench.node()).contains("DRAIN");
    assert!(!drained && site.bench.writes().is_empty(), "{:?}", site.bench.writes());
    // It comes later, and so does the plan.
    site.start_agent();
    site.await_status(&["awaiting_approval"]);
}

#[test]
fn an_agent_that_is_killed_in_the_middle_of_a_reset_does_not_repeat_it() {
    let mut site = Site::new();
    site.serve();
    site.start_agent();
    site.bench.gpu.rule("nvidia-smi", "--gpu-reset *", "1", "then-barrier here");
    site.approved();
    site.bench.gpu.await_barrier("here");
    site.agent.as_mut().unwrap().crash();
    site.start_agent();
    site.bench.gpu.open_barrier("here");
    let story = site.await_status(&["succeeded", "held"]);
    let after = story.of_kind("finished").chain(story.of_kind("resolved")).count();
    assert!(after > 0, "{story}");
    assert!(story.kinds().contains(&"resolved"), "the outcome was ambiguous and probed: {story}");
    assert_eq!(site.bench.gpu.resets(), 1, "{story}");
    site.bench.agrees(&story);
}

#[test]
fn a_process_that_comes_onto_the_gpu_after_the_plan_is_seen_by_the_node() {
    let mut site = Site::new();
    site.serve();
    site.start_agent();
    // While the evidence is collected, right before the reset.
    site.bench.gpu.rule("dmesg", "*", "1", "barrier here");
    site.approved();
    site.bench.gpu.await_barrier("here");
    site.bench.gpu.set(&["holder", "2", "4711", "python3"]);
    site.bench.gpu.open_barrier("here");
    let story = site.await_status(&["held", "rolled_back", "succeeded"]);
    assert_eq!((story.status().as_str(), site.bench.gpu.resets()), ("held", 0), "{story}");
    assert!(
        story.to_string().contains("4711") || story.why().contains("4711"),
        "the holder is named: {story}"
    );
}

#[test]
fn a_run_at_the_terminal_reaches_the_node_by_the_engine_that_serves_or_says_so_at_once() {
    let mut site = Site::new();
    let node = site.bench.node().to_owned();
    let words =
        ["run", MAIN, "--node", &node, "--gpu", "2", "--yes", "--approved-by", "root", "--format", "json"];
    let begun = std::time::Instant::now();
    let alone = run(&mut site.medic(&words), LIMIT);
    assert_eq!(alone.code, 1, "{alone}");
    for text in ["its agent", "engine.sock", "slurmedic serve", "nothing was begun"] {
        assert!(alone.err.contains(text), "no {text:?}: {alone}");
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "it waits for nobody: {alone}");
    assert!(site.bench.writes().is_empty(), "{:?}", site.bench.writes());
    site.serve();
    site.start_agent();
    eventually("the agent is heard", SOON, || {
        let story = run(&mut site.medic(&words), LIMIT);
        // Until then nothing is known of the GPU, and the plan is rejected.
        if story.code == 10 { Err(story.to_string()) } else { Ok(Story::of(story)) }
    })
    .ended("succeeded", 0);
    let story = site.await_status(&["succeeded"]);
    site.bench.agrees(&story);
    site.bench.lab.await_state(&node, &["IDLE"]);
}
