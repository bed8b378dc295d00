//! How often things break, and what: the published figures, and what of them a simulated cluster can show.
//!
//! Source of the counts: the 419 unplanned interruptions of the training of Llama 3 405B in 54 days on 16,384 H100 ("The
//! Llama 3 Herd of Models", table 5). The causes do not say what the hardware showed, so the split of
//! a cause into faults is ours; so is everything about people, which nobody publishes.

use crate::world::{Fault, HiccupRates};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// GPU-hours behind the counts: 54 days of 16,384 GPUs.
pub const GPU_HOURS: f64 = 54.0 * 24.0 * 16_384.0;

/// What a cause shows in a simulated cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// Uncorrectable memory error that a reset cures.
    Memory,
    /// Uncorrectable memory error that no reset cures.
    StubbornMemory,
    /// Row remapping failed.
    Remap,
    /// The GPU fell off the bus.
    OffBus,
    /// The GPU is hot and slow.
    Hot,
    /// The node's tools hang for some minutes, and an alert takes the GPU for sick.
    Tools,
    /// The exporter died, and an alert takes the GPU for sick.
    Exporter,
    /// A process of a job that is over keeps the GPU, and memory errors come with it.
    Leftover,
    /// The node cannot be reached for some minutes.
    Silent,
    /// A person reserves the node for maintenance, and reboots it.
    Maintenance,
}

/// A cause: its name, its count in the source, and what it shows, with shares that add up to 100.
pub type Cause = (&'static str, u32, &'static [(Shows, u32)]);

/// The causes. Silent corruption (6) is left out: nothing in a cluster shows it.
pub const CAUSES: &[Cause] = &[
    (
        "faulty GPU",
        148,
        &[(Shows::OffBus, 40), (Shows::StubbornMemory, 25), (Shows::Remap, 15), (Shows::Memory, 20)],
    ),
    ("HBM3 memory", 72, &[(Shows::Memory, 85), (Shows::StubbornMemory, 10), (Shows::Remap, 5)]),
    ("software bug", 54, &[(Shows::Leftover, 100)]),
    ("network switch or cable", 35, &[(Shows::Silent, 100)]),
    ("host maintenance", 32, &[(Shows::Maintenance, 100)]),
    ("GPU SRAM memory", 19, &[(Shows::Memory, 100)]),
    ("GPU system processor", 17, &[(Shows::Tools, 100)]),
    ("NIC", 7, &[(Shows::Silent, 100)]),
    ("NCCL watchdog timeout", 7, &[(Shows::Leftover, 100)]),
    ("GPU thermal interface and sensor", 6, &[(Shows::Hot, 100)]),
    ("others", 16, &[(Shows::Exporter, 50), (Shows::Silent, 50)]),
];

/// Rate of all causes together, per GPU-hour.
pub fn per_gpu_hour() -> f64 {
    f64::from(CAUSES.iter().map(|(_, count, _)| count).sum::<u32>()) / GPU_HOURS
}

/// Draws what breaks.
pub(crate) fn draw(rng: &mut ChaCha8Rng) -> Shows {
    let mut left = rng.random_range(0..CAUSES.iter().map(|(_, count, _)| count).sum::<u32>());
    for (_, count, shares) in CAUSES {
        if left < *count {
            return share(rng, shares);
        }
        left -= count;
    }
    Shows::Memory
}

fn share(rng: &mut ChaCha8Rng, shares: &[(Shows, u32)]) -> Shows {
    let mut left = rng.random_range(0..shares.iter().map(|(_, n)| n).sum::<u32>());
    for (shows, n) in shares {
        if left < *n {
            return *shows;
        }
        left -= n;
    }
    Shows::Memory
}

impl Shows {
    /// Returns the fault of a GPU or of its node's tools, where it is one.
    pub(crate) fn fault(self) -> Option<Fault> {
        match self {
            Self::Memory | Self::Leftover => Some(Fault::EccDbe),
            Self::StubbornMemory => Some(Fault::StubbornEcc),
            Self::Remap => Some(Fault::RemapFailure),
            Self::OffBus => Some(Fault::OffBus),
            Self::Hot => Some(Fault::Thermal),
            Self::Tools => Some(Fault::ToolsHang),
            Self::Exporter => Some(Fault::ExporterDown),
            Self::Silent | Self::Maintenance => None,
        }
    }
}

/// Changes by people on a node without an incident, per node and 30 days.
pub const PEOPLE_PER_NODE_MONTH: f64 = 0.5;
/// Share of incidents in which a person changes the same node meanwhile.
pub const MEDDLED: f64 = 0.25;
/// Share of incidents in which the reset tool will hang; in half of them the reset takes effect.
pub const RESET_HANGS: f64 = 0.04;
/// Share of nodes with jobs on them when a GPU breaks.
pub const BUSY: f64 = 0.8;
/// Share of alerts that reach two engines of one site.
pub const TOLD_TWICE: f64 = 0.05;
/// Share of alerts that also reach a second site by mistake: another journal on the same Slurm.
pub const TOLD_ELSEWHERE: f64 = 0.03;
/// Probability that an engine dies in one write to its journal, on either side of it.
pub const DIES_IN_WRITE: f64 = 0.002;
/// Mean time between two deaths of an engine that have nothing to do with its writes, in hours.
pub const DIES_ANYWAY_HOURS: f64 = 24.0;
/// Mean time between two outages of slurmctld, in hours.
pub const OUTAGE_HOURS: f64 = 84.0;

/// How often a single call to slurmctld goes wrong: more often than on any cluster that works.
pub(crate) const HICCUPS: HiccupRates = HiccupRates {
    write_applied_later: 0.01,
    write_lost: 0.005,
    slow: 0.01,
    read_fails: 0.003,
    read_empty: 0.002,
};

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn the_table_is_the_sources() {
        let count: u32 = CAUSES.iter().map(|(_, n, _)| n).sum();
        assert_eq!(count, 419 - 6, "the counts of the source, without silent corruption");
        for (cause, _, shares) in CAUSES {
            assert_eq!(shares.iter().map(|(_, n)| n).sum::<u32>(), 100, "{cause}");
        }
        let hours_of_16384 = 1.0 / (per_gpu_hour() * 16_384.0);
        assert!((2.5..3.5).contains(&hours_of_16384), "one interruption each {hours_of_16384} h");
    }

    #[test]
    fn draws_follow_the_table() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let memory = (0..10_000).filter(|_| draw(&mut rng) == Shows::Memory).count();
        let wanted = (148.0 * 0.2 + 72.0 * 0.85 + 19.0) / 413.0 * 10_000.0;
        assert!((memory as f64 - wanted).abs() < 300.0, "{memory} of {wanted}");
    }
}
