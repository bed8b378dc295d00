//! What it takes to count 10,000 nodes and to judge a request on them: `cargo bench -p engine-core --bench policy`.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use engine_core::action::EffectClass;
use engine_core::digest::Digest;
use engine_core::known::{Cause, Known};
use engine_core::model::node_state::{classify, parse_state_text};
use engine_core::model::{Node, NodeName, Partition, Reservation, RunId};
use engine_core::playbook::PlaybookRef;
use engine_core::policy::{
    Fleet, GpuIdentity, Held, Hosts, Layout, Ledger, PastRun, Policy, Quota, Request, Seen, judge,
};
use jiff::{SignedDuration, Timestamp};
use std::hint::black_box;
use std::time::{Duration, Instant};

const NODES: usize = 10_000;
const RACK: usize = 20;
const LOCKS: usize = 100;

fn node(i: usize) -> Node {
    let state = match i % 50 {
        0 => "IDLE+DRAIN",
        1..=30 => "MIXED",
        _ => "IDLE",
    };
    let (base, flags) = parse_state_text(state);
    let part = if i.is_multiple_of(10) { "debug" } else { "gpu" };
    Node {
        name: NodeName::new(&format!("gpu{i:05}")).unwrap(),
        state: classify(&base, &flags),
        base,
        flags,
        reason: Known::Known(None),
        partitions: Known::Known(vec!["main".to_owned(), part.to_owned()]),
        features: Known::Known(vec!["h100".to_owned(), "nvlink".to_owned(), "ib".to_owned()]),
        gres: Known::Known("gpu:h100:8".to_owned()),
        gpus_configured: Known::Known(8),
        gpus_allocated: Known::Known(4),
        cpus: Known::Known(128),
        cpus_allocated: Known::Known(64),
        memory_mib: Known::Known(2_000_000),
        boot_time: Known::unknown(Cause::NotObserved, ""),
        slurmd_start_time: Known::unknown(Cause::NotObserved, ""),
        slurmd_version: Known::unknown(Cause::NotObserved, ""),
        comment: Known::Known(None),
        extra: Known::Known(None),
        reservation: Known::Known(None),
    }
}

/// Runs `work` many times and prints the median and the 99th percentile.
fn measure<T>(what: &str, rounds: usize, mut work: impl FnMut() -> T) {
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            let made = black_box(work());
            let took = start.elapsed();
            drop(made);
            took
        })
        .collect();
    times.sort_unstable();
    println!("{what:<46} median {:>10.1?}   p99 {:>10.1?}", times[rounds / 2], times[rounds * 99 / 100]);
}

fn main() {
    let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let nodes: Vec<Node> = (0..NODES).map(node).collect();
    let names = |every: usize| Known::Known(nodes.iter().step_by(every).map(|n| n.name.clone()).collect());
    let part = |name: &str, every| Partition {
        name: name.to_owned(),
        nodes: names(every),
        state: Known::Known("UP".to_owned()),
        is_default: Known::Known(false),
    };
    let partitions = [part("main", 1), part("gpu", 2), part("debug", 10)];
    let reservations = [Reservation {
        name: "window".to_owned(),
        start: Known::Known(now),
        end: Known::Known(now + SignedDuration::from_hours(1)),
        nodes: names(100),
        flags: Known::Known(vec!["MAINT".to_owned()]),
        users: Known::Known(vec![]),
        accounts: Known::Known(vec![]),
    }];
    let mut layout = Layout::default();
    for (i, chunk) in nodes.chunks(RACK).enumerate() {
        let hosts = || Hosts::new(chunk.iter().map(|n| n.name.to_string()).collect());
        layout.racks.insert(format!("rack{i:03}"), hosts());
    }
    let seen = Seen {
        nodes: Known::Known(nodes.as_slice()),
        partitions: Known::Known(&partitions),
        reservations: Known::Known(&reservations),
    };
    let mut ledger = Ledger::default();
    let mut locks = Vec::new();
    for i in 0..10_000 {
        let node = nodes[i * 7 % NODES].name.clone();
        let run = RunId::new(&format!("run{i}")).unwrap();
        let at = now - SignedDuration::from_mins(i as i64);
        ledger.change(EffectClass::Reversible, at);
        ledger.change(EffectClass::Disruptive, at);
        let gpu = GpuIdentity {
            serial: Some(format!("{}", i % 5000)),
            uuid: None,
            bus_id: Some("00000000:1B:00.0".to_owned()),
        };
        if i < LOCKS {
            locks.push(Held { node: node.clone(), run: run.clone(), takes_out: true });
        }
        let faults = vec!["gpu-ecc".to_owned()];
        ledger.run(PastRun {
            run,
            node,
            gpu: Some(gpu),
            playbook: "p".to_owned(),
            faults,
            began: at,
            ended: None,
        });
    }
    for h in &locks {
        ledger.hold(h.clone());
    }
    let policy = Policy { concurrent_runs: 1000, ..Policy::default() };
    let fleet = Fleet::of(&seen, &layout, now);
    assert!(fleet.gaps().is_empty());
    let request = Request {
        run: RunId::new("this").unwrap(),
        node: nodes[4321].name.clone(),
        gpu: Some(GpuIdentity { serial: Some("77".to_owned()), uuid: None, bus_id: None }),
        playbook: PlaybookRef {
            id: "p".to_owned(),
            version: semver::Version::new(1, 0, 0),
            digest: Digest::of(b"x"),
        },
        faults: vec!["gpu-ecc".to_owned()],
        worst: EffectClass::Disruptive,
        takes_out: true,
        begun: false,
    };
    println!(
        "{NODES} nodes, {} groups, {} out of service; 10,000 earlier runs, {} locks",
        fleet.groups().len(),
        fleet.out().count(),
        locks.len()
    );
    measure("Fleet::of (count the nodes of one look)", 300, || Fleet::of(&seen, &layout, now));
    measure("judge (one request, all rules)", 5000, || judge(&policy, &request, &fleet, &ledger, now));
    measure("Quota::of (budgets of one request)", 5000, || Quota::of(&policy, &fleet, &request.node, true));
    let quota = Quota::of(&policy, &fleet, &request.node, true);
    measure("Quota::admit (inside the transaction)", 5000, || quota.admit(&request.run, &locks).is_ok());
}
