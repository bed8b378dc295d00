//! What will happen: every fault, every person, every outage and every death of an engine, drawn before the simulation
//! begins.
//!
//! What happens to a node is drawn from that node's own chance, so that a node alone tells the same story as among ten
//! thousand others.

use super::rates::{self, Shows};
use super::{Only, SimulateOptions};
use crate::world::{PersonAction, Script, Trigger, node_rng};
use engine_core::model::NodeName;
use jiff::SignedDuration;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Least time between two incidents of one node: what came of the first is over by then.
const GAP: SignedDuration = SignedDuration::from_hours(16);
/// GPUs of a node.
pub(super) const GPUS: u32 = 8;

/// One incident and everything around it.
#[derive(Debug, Clone)]
pub(super) struct Incident {
    /// Which of its node, from 1.
    pub(super) number: u32,
    pub(super) node: usize,
    pub(super) gpu: u32,
    pub(super) shows: Shows,
    /// Whether the reset tool will hang, and if so, whether the reset takes effect.
    pub(super) hangs: Option<bool>,
    /// Jobs on the node when the GPU breaks: GPUs and run time.
    pub(super) jobs: Vec<(Vec<u32>, SignedDuration)>,
    /// Whether a person has suspended the first of them.
    pub(super) suspended: bool,
    /// A job that is submitted for the node later: when, GPUs, run time.
    pub(super) later_job: Option<(SignedDuration, u32, SignedDuration)>,
    /// From the fault to the alert.
    pub(super) noticed_after: SignedDuration,
    /// What a person does to the node meanwhile.
    pub(super) meddler: Option<Meddler>,
    pub(super) answer: Answer,
    /// How long the person who answers thinks.
    pub(super) thinks: SignedDuration,
    /// When a person asks the run to stop, after the alert.
    pub(super) cancel: Option<SignedDuration>,
    /// From the end of the run to the repair by people, where one is needed.
    pub(super) repair_after: SignedDuration,
    /// Which engine hears of it first.
    pub(super) engine: usize,
    /// Whether both engines of the site hear of it.
    pub(super) told_twice: bool,
    /// Whether another site hears of it.
    pub(super) told_elsewhere: bool,
}

/// A person who changes a node while a run may be under way.
#[derive(Debug, Clone)]
pub(super) struct Meddler {
    /// After what the engine did; `None`: after the alert.
    pub(super) after: Option<Trigger>,
    pub(super) delay: SignedDuration,
    pub(super) act: Act,
}

/// What a person does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Drain,
    Resume,
    Reason,
    Down,
    Reboot { asap: bool, resume: bool },
    Maintenance,
}

/// What the person who is asked says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    /// Nothing, until the request is void.
    Nothing,
}

/// Something that is due.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// Something breaks.
    Incident(Box<Incident>),
    /// A person changes a node that nobody works on.
    Person(usize, Act),
    /// slurmctld is away, or hangs, for this long.
    Outage(SignedDuration, bool),
    /// An engine dies between two of its writes.
    Death(usize),
}

impl Act {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        match rng.random_range(0..12) {
            0..3 => Self::Drain,
            3..6 => Self::Reason,
            6..8 => Self::Resume,
            8 => Self::Down,
            9 => Self::Reboot { asap: true, resume: rng.random_bool(0.5) },
            10 => Self::Reboot { asap: false, resume: false },
            _ => Self::Maintenance,
        }
    }

    /// Returns it as what happens in the world.
    pub(super) fn script(self, node: &NodeName) -> Script {
        let node = node.clone();
        let reason = || REASONS[node.as_str().len() % REASONS.len()].to_owned();
        let action = match self {
            Self::Drain => PersonAction::Drain { reason: reason(), node },
            Self::Resume => PersonAction::Resume { node },
            Self::Reason => PersonAction::SetReason { reason: reason(), node },
            Self::Down => PersonAction::Down { reason: reason(), node },
            Self::Reboot { asap, resume } => PersonAction::Reboot { node, asap, then_resume: resume },
            Self::Maintenance => PersonAction::Maintenance {
                name: format!("maint-{node}"),
                node,
                duration: SignedDuration::from_hours(3),
            },
        };
        Script::Person { login: "admin1".to_owned(), action }
    }
}

/// What people write: also things that look like something else.
const REASONS: [&str; 3] =
    ["PSU swap, back on Thursday", "mine: State=RESUME $(reboot) {{ node }}", "looking at it myself"];

fn minutes(rng: &mut ChaCha8Rng, range: std::ops::Range<f64>) -> SignedDuration {
    // Even over the logarithm: short is common, long happens.
    let drawn = rng.random_range(range.start.ln()..range.end.ln()).exp();
    SignedDuration::from_millis((drawn * 60_000.0) as i64)
}

pub(super) fn exponential(rng: &mut ChaCha8Rng, mean_hours: f64) -> SignedDuration {
    let hours = -(1.0 - rng.random::<f64>()).ln() * mean_hours;
    SignedDuration::from_millis((hours.min(1e6) * 3_600_000.0) as i64)
}

pub(super) fn incident(rng: &mut ChaCha8Rng, node: usize, number: u32) -> Incident {
    let gpu = rng.random_range(0..GPUS);
    let shows = rates::draw(rng);
    let mut jobs = Vec::new();
    if rng.random_bool(rates::BUSY) {
        let mut free: Vec<u32> = (0..GPUS).collect();
        for _ in 0..rng.random_range(1..=3) {
            let wanted = [1, 2, 4][rng.random_range(0..3)].min(free.len());
            let from = rng.random_range(0..=(free.len() - wanted));
            let gpus: Vec<u32> = free.drain(from..from + wanted).collect();
            if !gpus.is_empty() {
                jobs.push((gpus, minutes(rng, 1.0..120.0)));
            }
        }
    }
    let later_job = rng
        .random_bool(0.5)
        .then(|| (minutes(rng, 0.2..90.0), rng.random_range(1..=4), minutes(rng, 1.0..60.0)));
    let triggers =
        [Trigger::EngineLocked, Trigger::EngineDrained, Trigger::EngineReset, Trigger::EngineResumed];
    let meddler = rng.random_bool(rates::MEDDLED).then(|| {
        let act = Act::draw(rng);
        if rng.random_bool(0.7) {
            let after = Some(triggers[rng.random_range(0..triggers.len())]);
            Meddler { after, delay: SignedDuration::from_millis(rng.random_range(0..60_000)), act }
        } else {
            Meddler { after: None, delay: minutes(rng, 0.1..60.0), act }
        }
    });
    let answer = match rng.random_range(0..100) {
        0..3 => Answer::No,
        3..5 => Answer::Nothing,
        _ => Answer::Yes,
    };
    Incident {
        number,
        node,
        gpu,
        shows,
        hangs: rng.random_bool(rates::RESET_HANGS).then(|| rng.random_bool(0.5)),
        suspended: !jobs.is_empty() && rng.random_bool(0.04),
        jobs,
        later_job,
        noticed_after: SignedDuration::from_millis(rng.random_range(15_000..90_000)),
        meddler,
        answer,
        thinks: minutes(rng, 0.3..14.0),
        cancel: rng.random_bool(0.03).then(|| minutes(rng, 0.5..40.0)),
        repair_after: minutes(rng, 20.0..240.0),
        engine: rng.random_range(0..2),
        told_twice: rng.random_bool(rates::TOLD_TWICE),
        told_elsewhere: rng.random_bool(rates::TOLD_ELSEWHERE),
    }
}

/// Draws everything that will happen, in the order of time.
pub(super) fn draw(options: &SimulateOptions) -> Vec<(SignedDuration, Item)> {
    let end = SignedDuration::from_hours(i64::from(options.hours));
    let mut all = Vec::new();
    let mean = 1.0 / (rates::per_gpu_hour() * f64::from(GPUS) * options.rate);
    let people = 30.0 * 24.0 / rates::PEOPLE_PER_NODE_MONTH;
    for node in 0..options.nodes {
        let wanted = |number: Option<u32>| match &options.only {
            None => true,
            Some(Only { node: only, incident }) => {
                *only == node && number.is_none_or(|n| incident.is_none_or(|i| i == n))
            }
        };
        if !wanted(None) {
            continue;
        }
        let mut rng = node_rng(options.seed, node, 1);
        let mut at = exponential(&mut rng, mean);
        let mut number = 0;
        while at < end {
            number += 1;
            // Each has a chance of its own, so that one of them alone is the same.
            let mut own = node_rng(options.seed, node, 16 + u64::from(number));
            if wanted(Some(number)) {
                all.push((at, Item::Incident(Box::new(incident(&mut own, node, number)))));
            }
            at += GAP + exponential(&mut rng, mean);
        }
        let mut rng = node_rng(options.seed, node, 2);
        let mut at = exponential(&mut rng, people);
        while at < end {
            let act = Act::draw(&mut rng);
            if options.only.as_ref().is_none_or(|o| o.incident.is_none()) {
                all.push((at, Item::Person(node, act)));
            }
            at += exponential(&mut rng, people);
        }
    }
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed ^ 0x0074_a6e5);
    let mut at = exponential(&mut rng, rates::OUTAGE_HOURS);
    while at < end {
        let long = SignedDuration::from_secs(rng.random_range(20..300));
        all.push((at, Item::Outage(long, rng.random_bool(0.5))));
        at += exponential(&mut rng, rates::OUTAGE_HOURS);
    }
    for engine in 0..super::site::ENGINES {
        let mut at = exponential(&mut rng, rates::DIES_ANYWAY_HOURS);
        while at < end {
            all.push((at, Item::Death(engine)));
            at += exponential(&mut rng, rates::DIES_ANYWAY_HOURS);
        }
    }
    all.extend(options.deaths.iter().map(|(at, engine)| (*at, Item::Death(*engine))));
    all.sort_by_key(|(at, _)| *at);
    all
}
