//! What taking a node out costs the queue, and whether a later moment would cost less.
//!
//! Every number comes with what is not known about it. A cost that cannot be told is no reason to hold work up; the
//! budgets are for that. It is there for the person who says yes, and for the choice of the moment.

use super::fleet::{Fleet, GroupKind};
use super::service::Service;
use super::share::Period;
use crate::known::{Cause, Known};
use crate::model::{Job, Node, PendingJob, Reservation};
use crate::ownership::reservation_name;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Most jobs of a kind that are listed; the rest is only counted.
pub const MAX_LISTED: usize = 20;

/// How long the node is needed once it is idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkTime {
    /// The median of that many earlier runs.
    Measured {
        /// The time.
        time: SignedDuration,
        /// The runs.
        runs: u32,
    },
    /// The sum of the steps' time limits: the most it can take.
    Limits(SignedDuration),
}

impl WorkTime {
    /// Returns the time; never negative.
    pub fn time(self) -> SignedDuration {
        match self {
            Self::Measured { time, .. } | Self::Limits(time) => time.max(SignedDuration::ZERO),
        }
    }
}

/// What the cost is reckoned from.
#[derive(Debug, Clone)]
pub struct CostInput<'a> {
    /// The node.
    pub node: &'a Node,
    /// How long it is needed once it is idle.
    pub work: WorkTime,
    /// Whether it is taken out of service at all.
    pub takes_out: bool,
    /// Whether the good end gives it back.
    pub gives_back: bool,
    /// Jobs on the node, or all jobs.
    pub jobs: Known<&'a [Job]>,
    /// Pending jobs.
    pub pending: Known<&'a [PendingJob]>,
    /// Reservations.
    pub reservations: Known<&'a [Reservation]>,
    /// The fleet, for what is left of the partitions.
    pub fleet: &'a Fleet,
    /// How long the run may be put off.
    pub idle_gap: Period,
    /// The time.
    pub now: Timestamp,
}

/// What a run costs the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// GPU-minutes that the queue loses at least, if the drain begins now.
    pub gpu_minutes_least: Known<u64>,
    /// GPU-minutes that it loses at most: with no job on the node ending before its limit, and the run ending well.
    pub gpu_minutes_most: Known<u64>,
    /// Minutes of the work itself, and where the figure comes from.
    pub work_minutes: u64,
    /// Runs behind that figure; 0 says that it is the sum of the time limits.
    pub work_measured_on: u32,
    /// Jobs that hold the node up, the one that lasts longest first.
    pub holding: Vec<Holding>,
    /// How many there are.
    pub holding_total: usize,
    /// When the last of them ends at the latest; the present where none holds it.
    pub free_at: Known<Timestamp>,
    /// Pending jobs that feel it.
    pub pending: Vec<Delayed>,
    /// How many there are.
    pub pending_total: Known<usize>,
    /// The reservation of others that begins next on the node.
    pub next_reservation: Known<Option<Ahead>>,
    /// The moment at which the run would cost the queue less.
    pub moment: Moment,
}

impl Cost {
    /// Says until when a run may be put off because it then costs the queue less; `None` for now.
    ///
    /// Only for work that can wait: until then the node stays in service and takes new jobs, which is wrong for a GPU
    /// that loses them. It never says so twice: at the moment itself the run begins, whatever has started there since.
    pub fn put_off(&self, now: Timestamp) -> Option<Timestamp> {
        match self.moment {
            Moment::At { at, .. } if now < at => Some(at),
            _ => None,
        }
    }
}

/// A job that holds the node up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Its id.
    pub id: String,
    /// Its owner, where known.
    pub user: Option<String>,
    /// When it ends at the latest.
    pub ends: Known<Timestamp>,
}

/// A pending job that feels it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delayed {
    /// Its id.
    pub id: String,
    /// Its owner, where known.
    pub user: Option<String>,
    /// How it feels it.
    pub why: Felt,
    /// When it was to start, where that is planned.
    pub start: Option<Timestamp>,
}

/// How a pending job feels it. The later, the less.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Felt {
    /// It asked for this node by name.
    Named,
    /// It is planned on this node.
    Planned,
    /// Its partition has too few nodes left in service for it.
    Short {
        /// The partition.
        partition: String,
        /// Nodes it needs.
        needs: u32,
        /// Nodes in service without this one.
        left: usize,
    },
}

/// A reservation that begins later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ahead {
    /// Its name.
    pub name: String,
    /// When it begins.
    pub start: Timestamp,
    /// When it ends.
    pub end: Known<Timestamp>,
    /// Whether it is for maintenance.
    pub maintenance: bool,
}

/// When to begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// Now is as cheap as any time.
    Now,
    /// Later is cheaper: then no job holds the node, and the work ends before any reservation.
    At {
        /// When.
        at: Timestamp,
        /// GPU-minutes of idle waiting that it saves.
        saves: Known<u64>,
    },
    /// No cheaper moment could be found within the limit.
    None {
        /// Why not.
        why: String,
    },
}

/// Reckons the cost of a run.
pub fn cost(input: &CostInput<'_>) -> Cost {
    let now = input.now;
    let work = input.work.time();
    let (holding, free_at) = holding(input);
    let ahead = reservations_ahead(input);
    let queue_has_it = input.fleet.node(&input.node.name).is_some_and(|m| m.service == Service::In);
    let costs = input.takes_out && queue_has_it;
    let (least, most, saves) = if costs {
        gpu_minutes(input, &free_at, work)
    } else {
        (Known::Known(0), Known::Known(0), Known::Known(0))
    };
    let (pending, pending_total) = if costs { delayed(input) } else { (Vec::new(), Known::Known(0)) };
    let moment = if costs { moment(input, &holding, &free_at, &ahead, work, saves) } else { Moment::Now };
    let holding_total = holding.len();
    Cost {
        gpu_minutes_least: least,
        gpu_minutes_most: most,
        work_minutes: minutes(work),
        work_measured_on: match input.work {
            WorkTime::Measured { runs, .. } => runs,
            WorkTime::Limits(_) => 0,
        },
        holding: holding.into_iter().take(MAX_LISTED).collect(),
        holding_total,
        free_at,
        pending,
        pending_total,
        next_reservation: ahead.map(|list| list.into_iter().find(|r| r.start > now)),
        moment,
    }
}

/// Whole minutes, rounded up: a cost is rather said too high.
fn minutes(d: SignedDuration) -> u64 {
    u64::try_from((d.as_secs() + 59).max(0) / 60).unwrap_or(0)
}

fn holding(input: &CostInput<'_>) -> (Vec<Holding>, Known<Timestamp>) {
    let jobs = match &input.jobs {
        Known::Known(jobs) => *jobs,
        Known::Unknown(u) => return (Vec::new(), Known::Unknown(u.clone())),
    };
    let here = |j: &&Job| j.holds_node() && j.nodes.known().is_none_or(|n| n.contains(&input.node.name));
    let mut list: Vec<Holding> = jobs
        .iter()
        .filter(here)
        .map(|j| Holding {
            id: j.display_id.clone(),
            user: j.user.known().cloned(),
            ends: ends(j, input.now),
        })
        .collect();
    list.sort_by(|a, b| match (a.ends.known(), b.ends.known()) {
        (Some(x), Some(y)) => y.cmp(x),
        (None, Some(_)) => std::cmp::Ordering::Less,
        (Some(_), None) => std::cmp::Ordering::Greater,
        (None, None) => a.id.cmp(&b.id),
    });
    let free_at = list.first().map_or(Known::Known(input.now), |h| h.ends.clone());
    (list, free_at)
}

fn ends(job: &Job, now: Timestamp) -> Known<Timestamp> {
    if job.is_suspended() {
        return Known::unknown(Cause::NotReported, "it is suspended");
    }
    match &job.end {
        Known::Unknown(u) => Known::Unknown(u.clone()),
        Known::Known(None) => Known::unknown(Cause::NotReported, "it has no time limit"),
        Known::Known(Some(end)) if *end <= now => {
            Known::unknown(Cause::NotReported, "it is past its end and still there")
        }
        Known::Known(Some(end)) => Known::Known(*end),
    }
}

/// Returns the reservations of others that are on this node and not over, by their beginning.
fn reservations_ahead(input: &CostInput<'_>) -> Known<Vec<Ahead>> {
    let list = match &input.reservations {
        Known::Known(list) => *list,
        Known::Unknown(u) => return Known::Unknown(u.clone()),
    };
    let ours = reservation_name(&input.node.name);
    let mut out = Vec::new();
    for r in list.iter().filter(|r| r.name != ours) {
        match &r.nodes {
            Known::Known(nodes) if !nodes.contains(&input.node.name) => continue,
            Known::Unknown(u) => return Known::Unknown(u.clone()),
            Known::Known(_) => {}
        }
        if r.end.is_known_and(|e| *e <= input.now) {
            continue;
        }
        match &r.start {
            Known::Known(start) => out.push(Ahead {
                name: r.name.clone(),
                start: *start,
                end: r.end.clone(),
                maintenance: r.is_maintenance(),
            }),
            Known::Unknown(u) => return Known::Unknown(u.clone()),
        }
    }
    out.sort_by(|a, b| (a.start, &a.name).cmp(&(b.start, &b.name)));
    Known::Known(out)
}

/// Returns what the queue loses at least and at most, and what it would not lose if the node were idle already.
fn gpu_minutes(
    input: &CostInput<'_>,
    free_at: &Known<Timestamp>,
    work: SignedDuration,
) -> (Known<u64>, Known<u64>, Known<u64>) {
    let gpus = match &input.node.gpus_configured {
        Known::Known(n) => u64::from(*n),
        Known::Unknown(u) => {
            let u = || Known::Unknown(u.clone());
            return (u(), u(), u());
        }
    };
    let working = gpus.saturating_mul(minutes(work));
    // Limits say how long the work may take, not how long it will.
    let surely = if matches!(input.work, WorkTime::Measured { .. }) { working } else { 0 };
    let wait = free_at.clone().map(|t| minutes(t.duration_since(input.now)));
    // A GPU that no job has stands still from the drain on.
    let idle = input.node.gpus_allocated.clone().map(|a| gpus.saturating_sub(u64::from(a)));
    let saved = wait.clone().and_then(|w| idle.map(|i| i.saturating_mul(w)));
    let least = surely.saturating_add(saved.known().copied().unwrap_or(0));
    let most = if input.gives_back {
        wait.map(|w| gpus.saturating_mul(w).saturating_add(working))
    } else {
        Known::unknown(Cause::NotReported, "the node stays out of service at the end")
    };
    (Known::Known(least), most, saved)
}

fn delayed(input: &CostInput<'_>) -> (Vec<Delayed>, Known<usize>) {
    let pending = match &input.pending {
        Known::Known(jobs) => *jobs,
        Known::Unknown(u) => return (Vec::new(), Known::Unknown(u.clone())),
    };
    let node = &input.node.name;
    // What is left of each partition of the node without it.
    let left: Vec<(&str, usize)> = input
        .fleet
        .groups_of(node)
        .filter(|(_, g)| g.kind == GroupKind::Partition)
        .map(|(_, g)| (g.name.as_str(), g.counted.saturating_sub(g.out + 1)))
        .collect();
    let felt = |job: &PendingJob| {
        if job.named.is_known_and(|n| n.contains(node)) {
            return Some(Felt::Named);
        }
        if job.planned.is_known_and(|n| n.contains(node)) {
            return Some(Felt::Planned);
        }
        let (needs, partitions) = (*job.nodes.known()?, job.partitions.known()?);
        // A job that may run elsewhere as well is not short, nor is one that was too large before.
        let short = |p: &str| {
            let n = left.iter().find(|(name, _)| *name == p).map(|(_, n)| *n)?;
            (n < needs as usize && needs as usize <= n + 1).then_some(n)
        };
        let all: Option<Vec<usize>> = partitions.iter().map(|p| short(p)).collect();
        let (left, partition) = (*all?.first()?, partitions.first()?.clone());
        Some(Felt::Short { partition, needs, left })
    };
    let mut out: Vec<Delayed> = pending
        .iter()
        .filter_map(|j| {
            Some(Delayed {
                id: j.display_id.clone(),
                user: j.user.known().cloned(),
                why: felt(j)?,
                start: j.start.known().copied().flatten(),
            })
        })
        .collect();
    let total = out.len();
    out.sort_by(|a, b| a.why.cmp(&b.why));
    out.truncate(MAX_LISTED);
    (out, Known::Known(total))
}

/// Finds the earliest time within the limit at which no job holds the node and the work ends before any reservation.
fn moment(
    input: &CostInput<'_>,
    holding: &[Holding],
    free_at: &Known<Timestamp>,
    ahead: &Known<Vec<Ahead>>,
    work: SignedDuration,
    saves: Known<u64>,
) -> Moment {
    let none = |why: String| Moment::None { why };
    if input.idle_gap.duration().is_zero() {
        return none("the policy puts no run off".to_owned());
    }
    let mut at = match free_at {
        Known::Known(t) => *t,
        Known::Unknown(u) => {
            let id = holding.first().map(|h| format!(" of job {}", h.id)).unwrap_or_default();
            return none(format!("the end{id} is not known: {}", u.detail));
        }
    };
    let ahead = match ahead {
        Known::Known(list) => list,
        Known::Unknown(u) => return none(format!("the reservations are not known: {u}")),
    };
    for r in ahead {
        let end_of_work = at.saturating_add(work).unwrap_or(Timestamp::MAX);
        let over = r.end.is_known_and(|e| *e <= at);
        if end_of_work > r.start && !over {
            match &r.end {
                Known::Known(end) => at = at.max(*end),
                Known::Unknown(_) => return none(format!("the end of reservation {} is not known", r.name)),
            }
        }
    }
    if at <= input.now {
        return Moment::Now;
    }
    if at > input.idle_gap.over(input.now) {
        return none(format!("the node is not free of jobs and reservations within {}", input.idle_gap));
    }
    Moment::At { at, saves }
}
