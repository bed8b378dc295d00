//! A fleet as `scontrol -o show nodes` prints it, in any size: for benchmarks and size tests.

use std::fmt::Write as _;

/// Situations by their share of a fleet: state, allocated CPUs and memory, reason and what else stands at the end.
const SITUATIONS: &[(usize, &str, u32, &str)] = &[
    (55, "ALLOCATED", 64, ""),
    (20, "MIXED", 12, ""),
    (15, "IDLE", 0, ""),
    (3, "IDLE+DRAIN", 0, " Reason=gpu: DBE on 0000:3b:00.0 [root@2026-11-21T01:40:26]"),
    (
        2,
        "MIXED+DRAIN",
        8,
        " Reason=remedy: ecc, comma=equals \"quotes\" | pipe [alice@2026-11-20T23:59:59] Comment=ticket OPS-1 Extra={\"health\":\"bad\"}",
    ),
    (2, "DOWN+NOT_RESPONDING", 0, " Reason=Not responding [slurm@2026-11-21T01:44:32]"),
    (1, "IDLE+COMPLETING", 0, ""),
    (1, "DOWN+DRAIN+REBOOT_ISSUED", 0, " Reason=fw update : reboot issued [root@2026-11-21T01:43:42]"),
    (1, "IDLE+MAINTENANCE+RESERVED", 0, " ReservationName=fw"),
];

/// Prints `nodes` nodes in the form of Slurm 23.11, with the mix of states of a busy cluster.
pub fn fleet_text(nodes: usize) -> String {
    let mut out = String::with_capacity(nodes * 740);
    let mut order = SITUATIONS.iter().flat_map(|s| std::iter::repeat_n(s, s.0)).cycle().step_by(37);
    for i in 1..=nodes {
        let Some((_, state, cpus, tail)) = order.next() else { break };
        let tres = if *cpus == 0 { String::new() } else { format!("cpu={cpus},mem={}M", cpus * 4000) };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "NodeName=gpu{i:05} Arch=x86_64 CoresPerSocket=1  CPUAlloc={cpus} CPUEfctv=64 CPUTot=64 CPULoad={}.{:02} \
             AvailableFeatures=h100,rack{rack} ActiveFeatures=h100,rack{rack} Gres=gpu:h100:8 NodeAddr=127.0.0.1 \
             NodeHostName=localhost Port=27986 Version=23.11.11 OS=Linux 6.1.0-18 #1 SMP PREEMPT_DYNAMIC @0  \
             RealMemory=512000 AllocMem={} FreeMem={} Sockets=64 Boards=1 State={state} ThreadsPerCore=1 TmpDisk=0 \
             Weight=1 Owner=N/A MCS_label=N/A Partitions=main,high  BootTime=2026-11-21T00:57:06 \
             SlurmdStartTime=2026-11-21T01:13:19 LastBusyTime=2026-11-21T01:13:19 ResumeAfterTime=None \
             CfgTRES=cpu=64,mem=500G,billing=64 AllocTRES={tres} CapWatts=n/a CurrentWatts=0 AveWatts=0 \
             ExtSensorsJoules=n/s ExtSensorsWatts=0 ExtSensorsTemp=n/s{tail}",
            i % 64,
            i % 100,
            cpus * 4000,
            512_000 - cpus * 4000 - (i as u32 % 1000),
            rack = i / 16 % 40,
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::text::{TextContext, parse_nodes};
    use engine_core::model::NodeState;

    #[test]
    fn a_fleet_is_read_whole() {
        let text = fleet_text(1000);
        assert!((650..780).contains(&(text.len() / 1000)), "{} bytes", text.len());
        let nodes = parse_nodes(&text, &TextContext::utc()).unwrap();
        assert_eq!(nodes.len(), 1000);
        assert!(
            nodes.iter().all(|n| n.state != NodeState::Unknown && n.reason.is_known() && n.cpus.is_known())
        );
        assert!(nodes.iter().filter(|n| n.state == NodeState::Drained).count() > 10);
    }
}
