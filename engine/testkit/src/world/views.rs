//! The world as slurmctld and the nodes' tools show it.

use super::state::{Inner, later, to_second};
use engine_core::known::{Cause, Known};
use engine_core::model::gpu::{DiagReport, Health, HealthReport};
use engine_core::model::node_state::classify;
use engine_core::model::{
    BaseState, Gpu, Job, JobState, Node, NodeFlag, NodeFlags, NodeGpus, Partition, Reason, Reservation,
};
use jiff::SignedDuration;

/// The one partition of the simulated cluster.
const PARTITION: &str = "gpu";
const CPUS: u32 = 128;
const MEMORY_MIB: u64 = 2_048_000;

impl Inner {
    /// Shows a node.
    pub(crate) fn view_node(&self, n: usize) -> Node {
        let node = &self.nodes[n];
        let running = |j: &&super::jobs::SimJob| j.state == JobState::Running;
        let gpus: usize = self.jobs_of(n).filter(running).map(|j| j.gpus.len()).sum();
        let total = node.gpus.len();
        let base = if node.down {
            BaseState::Down
        } else if gpus == 0 {
            BaseState::Idle
        } else if gpus >= total {
            BaseState::Allocated
        } else {
            BaseState::Mixed
        };
        let mut flags = NodeFlags { known: node.flags.clone(), unknown: Vec::new() };
        if self.jobs_of(n).any(|j| j.completing) {
            flags.known.insert(NodeFlag::Completing);
        }
        let shown_from = |start| later(start, self.cfg.timings.reservation_flags) <= self.now;
        let reserved =
            self.reservations.iter().find(|(_, r)| r.node == n && shown_from(r.start) && r.end > self.now);
        if reserved.is_some() {
            flags.known.insert(NodeFlag::Maintenance);
            flags.known.insert(NodeFlag::Reserved);
        }
        let reason = node.reason.as_ref().map(|r| Reason {
            text: r.text.clone(),
            user: Known::Known(r.user.clone()),
            at: Known::Known(r.at),
        });
        let base = Known::Known(base);
        let boot_time = if node.has(NodeFlag::NotResponding) {
            Known::unknown(Cause::NotReported, "0")
        } else {
            Known::Known(to_second(node.booted))
        };
        let cpus = if total == 0 { 0 } else { CPUS * gpus as u32 / total as u32 };
        Node {
            name: node.name.clone(),
            state: classify(&base, &flags),
            base,
            flags,
            reason: Known::Known(reason),
            partitions: Known::Known(vec![PARTITION.to_owned()]),
            features: Known::Known(vec!["h100".to_owned()]),
            gres: Known::Known(format!("gpu:h100:{total}")),
            gpus_configured: Known::Known(total as u32),
            gpus_allocated: Known::Known(gpus as u32),
            cpus: Known::Known(CPUS),
            cpus_allocated: Known::Known(cpus),
            memory_mib: Known::Known(MEMORY_MIB),
            boot_time,
            slurmd_start_time: Known::Known(to_second(node.slurmd_start)),
            slurmd_version: Known::Known(self.cfg.slurm_version.clone()),
            comment: Known::Known(None),
            extra: Known::Known(None),
            reservation: Known::Known(reserved.map(|(name, _)| name.clone())),
        }
    }

    /// Shows the jobs, of one node or of all, finished ones included.
    pub(crate) fn view_jobs(&self, node: Option<usize>) -> Vec<Job> {
        let show = |j: &super::jobs::SimJob| Job {
            id: j.id,
            display_id: j.id.to_string(),
            state: Known::Known(j.state),
            flags: if j.completing { vec![JobState::Completing] } else { Vec::new() },
            unknown_states: Vec::new(),
            user: Known::Known(j.user.clone()),
            account: Known::Known(Some("science".to_owned())),
            partition: Known::Known(PARTITION.to_owned()),
            name: Known::Known(j.name.clone()),
            nodes: Known::Known(j.node.map(|n| self.nodes[n].name.clone()).into_iter().collect()),
            state_reason: Known::Known((j.state == JobState::Pending).then(|| "Resources".to_owned())),
            start: Known::Known(j.start.map(to_second)),
            end: Known::Known(j.end.map(to_second)),
        };
        match node {
            Some(n) => self.jobs_of(n).map(show).collect(),
            None => self.jobs.values().map(show).collect(),
        }
    }

    /// Shows the reservations.
    pub(crate) fn view_reservations(&self) -> Vec<Reservation> {
        self.reservations
            .iter()
            .map(|(name, r)| Reservation {
                name: name.clone(),
                start: Known::Known(r.start),
                end: Known::Known(r.end),
                nodes: Known::Known(vec![self.nodes[r.node].name.clone()]),
                flags: Known::Known(["MAINT", "IGNORE_JOBS", "SPEC_NODES"].map(str::to_owned).to_vec()),
                users: Known::Known(vec![r.user.clone()]),
                accounts: Known::Known(Vec::new()),
            })
            .collect()
    }

    /// Shows the partitions.
    pub(crate) fn view_partitions(&self) -> Vec<Partition> {
        vec![Partition {
            name: PARTITION.to_owned(),
            nodes: Known::Known(self.nodes.iter().map(|n| n.name.clone()).collect()),
            state: Known::Known("UP".to_owned()),
            is_default: Known::Known(true),
        }]
    }

    fn view_each(&self, n: usize) -> Vec<Gpu> {
        let node = &self.nodes[n];
        let busy = |g: u32| self.jobs_of(n).any(|j| j.uses(n, g) && j.state == JobState::Running);
        node.gpus
            .iter()
            .map(|g| g.view(self.processes_on(n, g.index), busy(g.index), node.tools.dcgm_up))
            .collect()
    }

    /// Shows a node's GPUs as its own tools see them.
    pub(crate) fn view_gpus(&self, n: usize) -> NodeGpus {
        let node = &self.nodes[n];
        if node.tools.hang {
            return NodeGpus::unseen(Cause::TimedOut, "nvidia-smi did not answer in time");
        }
        let up = node.tools.dcgm_up;
        let no_engine = "nv-hostengine does not answer (exit code 235)";
        NodeGpus {
            gpus: self.view_each(n),
            driver_version: Known::Known(self.cfg.driver_version.clone()),
            dcgm_version: if up {
                Known::Known(self.cfg.dcgm_version.clone())
            } else {
                Known::unknown(Cause::ReadFailed, no_engine)
            },
            dcgm_up: Known::Known(up),
            driver_attached: if up {
                Known::Known(true)
            } else {
                Known::unknown(Cause::ReadFailed, no_engine)
            },
            health: if up {
                let incidents: Vec<_> = node.gpus.iter().flat_map(super::gpu::SimGpu::health).collect();
                let overall = incidents.iter().map(|i| i.health).max().unwrap_or(Health::Pass);
                Known::Known(HealthReport { overall, incidents })
            } else {
                Known::unknown(Cause::ReadFailed, no_engine)
            },
            // The exporter is a client of the engine and dies with it.
            exporter_up: Known::Known(up && node.tools.exporter_up),
            diag_running: Known::Known(node.tools.diag_running),
        }
    }

    /// Shows a node's GPUs as a scrape of its exporter does; `None` when the exporter is dead.
    pub(crate) fn view_scrape(&self, n: usize) -> Option<NodeGpus> {
        let node = &self.nodes[n];
        if !node.tools.dcgm_up || !node.tools.exporter_up {
            return None;
        }
        let not_there = "dcgm-exporter does not tell";
        let mut gpus = self.view_each(n);
        for g in &mut gpus {
            g.serial = Known::unknown(Cause::Unsupported, not_there);
            g.processes = Known::unknown(Cause::Unsupported, not_there);
            g.persistence_mode = Known::unknown(Cause::Unsupported, not_there);
            g.nvlinks_up = Known::unknown(Cause::Unsupported, not_there);
            g.nvlinks_down = Known::unknown(Cause::Unsupported, not_there);
            g.fabric = Known::unknown(Cause::Unsupported, not_there);
        }
        Some(NodeGpus {
            gpus,
            driver_version: Known::Known(self.cfg.driver_version.clone()),
            exporter_up: Known::Known(true),
            ..NodeGpus::unseen(Cause::Unsupported, not_there)
        })
    }

    /// Gives the report of a diagnostic.
    pub(crate) fn view_diag(&self, n: usize, level: u8) -> Known<DiagReport> {
        let node = &self.nodes[n];
        if node.tools.hang {
            return Known::unknown(Cause::TimedOut, "dcgmi diag did not answer in time");
        }
        if !node.tools.dcgm_up {
            return Known::unknown(Cause::ReadFailed, "nv-hostengine does not answer (exit code 235)");
        }
        let incidents: Vec<_> = node.gpus.iter().flat_map(super::gpu::SimGpu::diag).collect();
        let overall = incidents.iter().map(|i| i.health).max().unwrap_or(Health::Pass);
        Known::Known(DiagReport {
            level,
            overall,
            passed: (node.gpus.len() - incidents.len().min(node.gpus.len())) as u32,
            incidents,
        })
    }

    /// Says how long a diagnostic of this level takes.
    pub(crate) fn diag_time(&self, level: u8) -> SignedDuration {
        let factor = 10_i32.pow(u32::from(level.clamp(1, 3)) - 1);
        self.cfg.timings.diag.saturating_mul(factor)
    }
}
