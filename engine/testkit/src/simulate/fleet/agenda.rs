//! What will happen to a site with a policy: faults one by one and in storms, people who take nodes and stop things, new
//! policies, outages of slurmctld, deaths of engines. All of it is drawn before the story begins.

use super::super::agenda::{Incident, exponential, incident};
use super::super::rates;
use engine_core::incident::QueuedWork;
use jiff::SignedDuration;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Something that is due.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// Something breaks.
    Incident(Box<Incident>),
    /// A person takes these nodes out of service and gives them back this long after.
    Work(Vec<usize>, SignedDuration),
    /// A person stops something, and lets it go on this long after.
    Stop(What, SignedDuration, QueuedWork),
    /// Another policy is put in force: every engine is started anew with it.
    Policy,
    /// slurmctld is away, or hangs, for this long.
    Outage(SignedDuration, bool),
    /// An engine dies between two of its writes.
    Death(usize),
}

/// What a person stops.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Fleet,
    Partition,
    Playbook,
    Node(usize),
}

/// Mean time between two incidents of the site, in hours, storms aside.
const INCIDENT_HOURS: f64 = 0.55;
/// Mean time between two storms.
const STORM_HOURS: f64 = 18.0;
/// Mean time between two works of people.
const WORK_HOURS: f64 = 4.0;
/// Mean time between two stops.
const STOP_HOURS: f64 = 10.0;
/// Mean time between two policies.
const POLICY_HOURS: f64 = 10.0;
/// Mean time between two outages of slurmctld.
const OUTAGE_HOURS: f64 = 12.0;
/// Mean time between two deaths of one engine.
const DEATH_HOURS: f64 = 12.0;

/// Draws everything that will happen, in the order of time. `only` keeps the items of these numbers.
pub(super) fn draw(
    seed: u64,
    nodes: usize,
    hours: u32,
    engines: usize,
    only: Option<&[usize]>,
) -> Vec<(SignedDuration, usize, Item)> {
    let end = SignedDuration::from_hours(i64::from(hours));
    let mut all: Vec<(SignedDuration, Item)> = Vec::new();
    let mut numbers = vec![0_u32; nodes];
    let each = |purpose: u64, mean: f64, draw: &mut dyn FnMut(&mut ChaCha8Rng, SignedDuration)| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ purpose.wrapping_mul(0xd1b5_4a32_d192_ed03));
        let mut at = exponential(&mut rng, mean);
        while at < end {
            draw(&mut rng, at);
            at += exponential(&mut rng, mean);
        }
    };
    let mut strike = |rng: &mut ChaCha8Rng, node: usize| {
        numbers[node] += 1;
        let mut one = incident(rng, node, numbers[node]);
        // People look after what an engine could not repair within the hour: the site is small.
        one.repair_after = SignedDuration::from_mins(rng.random_range(5..60));
        Item::Incident(Box::new(one))
    };
    each(1, INCIDENT_HOURS, &mut |rng, at| {
        let node = rng.random_range(0..nodes);
        all.push((at, strike(rng, node)));
    });
    each(2, STORM_HOURS, &mut |rng, at| {
        let first = rng.random_range(0..nodes);
        for i in 0..rng.random_range(4..=12).min(nodes) {
            let later = SignedDuration::from_secs(rng.random_range(0..300));
            let node = (first + i * rng.random_range(1..=5)) % nodes;
            all.push((at + later, strike(rng, node)));
        }
    });
    each(3, WORK_HOURS, &mut |rng, at| {
        let first = rng.random_range(0..nodes);
        let taken = (0..rng.random_range(1..=3)).map(|i| (first + i) % nodes).collect();
        all.push((at, Item::Work(taken, SignedDuration::from_mins(rng.random_range(10..180)))));
    });
    each(4, STOP_HOURS, &mut |rng, at| {
        let what = match rng.random_range(0..4) {
            0 => What::Fleet,
            1 => What::Partition,
            2 => What::Playbook,
            _ => What::Node(rng.random_range(0..nodes)),
        };
        let queued = if rng.random_bool(0.5) { QueuedWork::Drop } else { QueuedWork::JudgeAnew };
        all.push((at, Item::Stop(what, SignedDuration::from_mins(rng.random_range(5..90)), queued)));
    });
    each(5, POLICY_HOURS, &mut |_, at| all.push((at, Item::Policy)));
    each(6, OUTAGE_HOURS, &mut |rng, at| {
        let long = SignedDuration::from_secs(rng.random_range(20..300));
        all.push((at, Item::Outage(long, rng.random_bool(0.5))));
    });
    for engine in 0..engines {
        each(7 + engine as u64, DEATH_HOURS, &mut |_, at| all.push((at, Item::Death(engine))));
    }
    all.sort_by_key(|(at, _)| *at);
    let numbered = all.into_iter().enumerate().map(|(i, (at, item))| (at, i, item));
    numbered.filter(|(_, i, _)| only.is_none_or(|wanted| wanted.contains(i))).collect()
}

/// Share of calls that go wrong: as in the simulation of engines.
pub(super) const HICCUPS: crate::world::HiccupRates = rates::HICCUPS;
