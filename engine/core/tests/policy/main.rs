//! The policy against tables and properties: which nodes count, each rule of the judgement, budgets, costs.

#![expect(clippy::unwrap_used, reason = "helpers of tests stop at the first surprise")]

mod budgets;
mod costs;
mod counting;
mod rules;
mod speed;

use engine_core::action::EffectClass;
use engine_core::digest::Digest;
use engine_core::known::{Cause, Known};
use engine_core::model::node_state::{classify, parse_state_text};
use engine_core::model::{Node, NodeName, Partition, Reason, Reservation, RunId};
use engine_core::playbook::PlaybookRef;
use engine_core::policy::{Fleet, Held, Hosts, Layout, PastRun, Request, Seen};
use jiff::Timestamp;

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

pub(crate) fn run(text: &str) -> RunId {
    RunId::new(text).unwrap()
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A Saturday at noon.
pub(crate) fn now() -> Timestamp {
    at("2026-11-21T12:00:00Z")
}

/// A node with 8 GPUs in the partition main.
pub(crate) fn node(text: &str, state: &str) -> Node {
    let (base, flags) = parse_state_text(state);
    let unseen = || Cause::NotObserved;
    Node {
        name: name(text),
        state: classify(&base, &flags),
        base,
        flags,
        reason: Known::Known(None),
        partitions: Known::Known(vec!["main".to_owned()]),
        features: Known::Known(vec!["h100".to_owned()]),
        gres: Known::Known("gpu:h100:8".to_owned()),
        gpus_configured: Known::Known(8),
        gpus_allocated: Known::Known(0),
        cpus: Known::Known(64),
        cpus_allocated: Known::Known(0),
        memory_mib: Known::Known(512_000),
        boot_time: Known::unknown(unseen(), ""),
        slurmd_start_time: Known::unknown(unseen(), ""),
        slurmd_version: Known::unknown(unseen(), ""),
        comment: Known::Known(None),
        extra: Known::Known(None),
        reservation: Known::Known(None),
    }
}

/// Nodes n000 and so on, idle.
pub(crate) fn idle(count: usize) -> Vec<Node> {
    (0..count).map(|i| node(&format!("n{i:03}"), "IDLE")).collect()
}

pub(crate) fn reason(text: &str, user: &str) -> Known<Option<Reason>> {
    Known::Known(Some(Reason {
        text: text.to_owned(),
        user: Known::Known(user.to_owned()),
        at: Known::Known(now()),
    }))
}

pub(crate) fn partition(text: &str, nodes: &[&str]) -> Partition {
    Partition {
        name: text.to_owned(),
        nodes: Known::Known(nodes.iter().map(|n| name(n)).collect()),
        state: Known::Known("UP".to_owned()),
        is_default: Known::Known(false),
    }
}

pub(crate) fn reservation(text: &str, nodes: &[&str], flags: &[&str], from: &str, to: &str) -> Reservation {
    Reservation {
        name: text.to_owned(),
        start: Known::Known(at(from)),
        end: Known::Known(at(to)),
        nodes: Known::Known(nodes.iter().map(|n| name(n)).collect()),
        flags: Known::Known(flags.iter().map(|f| (*f).to_owned()).collect()),
        users: Known::Known(vec!["root".to_owned()]),
        accounts: Known::Known(vec![]),
    }
}

/// A fleet without partitions of their own, reservations and racks.
pub(crate) fn fleet(nodes: &[Node]) -> Fleet {
    fleet_with(nodes, &[], &[], &Layout::default())
}

pub(crate) fn fleet_with(
    nodes: &[Node],
    partitions: &[Partition],
    reservations: &[Reservation],
    layout: &Layout,
) -> Fleet {
    let seen = Seen {
        nodes: Known::Known(nodes),
        partitions: Known::Known(partitions),
        reservations: Known::Known(reservations),
    };
    Fleet::of(&seen, layout, now())
}

pub(crate) fn racks(groups: &[(&str, &str)]) -> Layout {
    let group = |(n, hosts): &(&str, &str)| ((*n).to_owned(), Hosts::parse(hosts).unwrap());
    Layout { racks: groups.iter().map(group).collect(), ..Layout::default() }
}

/// A request to drain and reset on a node.
pub(crate) fn request(node: &str) -> Request {
    Request {
        run: run("this"),
        node: name(node),
        gpu: None,
        playbook: PlaybookRef {
            id: "gpu-reset".to_owned(),
            version: semver::Version::new(1, 0, 0),
            digest: Digest::of(b"x"),
        },
        faults: vec!["gpu-ecc".to_owned()],
        worst: EffectClass::Disruptive,
        takes_out: true,
        begun: false,
    }
}

pub(crate) fn held(node: &str, by: &str) -> Held {
    Held { node: name(node), run: run(by), takes_out: true }
}

pub(crate) fn past(node: &str, fault: &str, began: &str) -> PastRun {
    PastRun {
        run: run("past"),
        node: name(node),
        gpu: None,
        playbook: "other".to_owned(),
        faults: vec![fault.to_owned()],
        began: at(began),
        ended: None,
    }
}
