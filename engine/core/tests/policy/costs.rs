//! What a run costs the queue, and the later moment.

use super::*;
use engine_core::model::{Job, JobState, PendingJob};
use engine_core::policy::{Cost, CostInput, Felt, Moment, Period, WorkTime, cost};
use jiff::SignedDuration;

fn job(id: u64, on: &[&str], ends: Option<&str>) -> Job {
    Job {
        id,
        display_id: id.to_string(),
        state: Known::Known(JobState::Running),
        flags: vec![],
        unknown_states: vec![],
        user: Known::Known("ada".to_owned()),
        account: Known::Known(None),
        partition: Known::Known("main".to_owned()),
        name: Known::unknown(Cause::NotObserved, ""),
        nodes: Known::Known(on.iter().map(|n| name(n)).collect()),
        state_reason: Known::Known(None),
        start: Known::Known(Some(at("2026-11-21T08:00:00Z"))),
        end: Known::Known(ends.map(at)),
    }
}

fn waiting(id: &str, nodes: u32, partitions: &[&str]) -> PendingJob {
    PendingJob {
        display_id: id.to_owned(),
        user: Known::Known("bob".to_owned()),
        partitions: Known::Known(partitions.iter().map(|p| (*p).to_owned()).collect()),
        nodes: Known::Known(nodes),
        named: Known::Known(vec![]),
        planned: Known::Known(vec![]),
        start: Known::Known(None),
        reason: Known::Known("Resources".to_owned()),
    }
}

/// A cluster of ten nodes; n001 is the one in question.
struct Scene {
    node: Node,
    jobs: Vec<Job>,
    pending: Known<Vec<PendingJob>>,
    reservations: Vec<Reservation>,
    work: WorkTime,
    idle_gap: Period,
    takes_out: bool,
    gives_back: bool,
}

impl Scene {
    fn new() -> Self {
        Self {
            node: node("n001", "IDLE"),
            jobs: vec![],
            pending: Known::Known(vec![]),
            reservations: vec![],
            work: WorkTime::Measured { time: SignedDuration::from_mins(30), runs: 12 },
            idle_gap: Period::hours(4),
            takes_out: true,
            gives_back: true,
        }
    }

    fn busy(gpus: u32, ends: &[(&str, Option<&str>)]) -> Self {
        let mut s = Self::new();
        s.node = node("n001", "MIXED");
        s.node.gpus_allocated = Known::Known(gpus);
        s.jobs = ends.iter().enumerate().map(|(i, (n, e))| job(100 + i as u64, &[n], *e)).collect();
        s
    }

    fn cost(&self) -> Cost {
        let mut nodes = idle(10);
        nodes[1] = self.node.clone();
        let fleet = fleet(&nodes);
        let c = cost(&CostInput {
            node: &self.node,
            work: self.work,
            takes_out: self.takes_out,
            gives_back: self.gives_back,
            jobs: Known::Known(&self.jobs),
            pending: self.pending.as_ref().map(Vec::as_slice),
            reservations: Known::Known(&self.reservations),
            fleet: &fleet,
            idle_gap: self.idle_gap,
            now: now(),
        });
        let json = serde_json::to_string(&c).unwrap();
        assert_eq!(serde_json::from_str::<Cost>(&json).unwrap(), c, "{json}");
        c
    }
}

#[test]
fn an_idle_node_costs_the_work_and_nothing_else() {
    let c = Scene::new().cost();
    assert_eq!((c.gpu_minutes_least, c.gpu_minutes_most), (Known::Known(240), Known::Known(240)));
    assert_eq!((c.holding_total, c.pending_total, c.moment), (0, Known::Known(0), Moment::Now));
    assert_eq!(c.free_at, Known::Known(now()));
    assert_eq!((c.work_minutes, c.work_measured_on), (30, 12));
    let limits = Scene { work: WorkTime::Limits(SignedDuration::from_secs(61)), ..Scene::new() }.cost();
    assert_eq!((limits.work_minutes, limits.work_measured_on), (2, 0), "minutes are rounded up");
    assert_eq!(
        (limits.gpu_minutes_least, limits.gpu_minutes_most),
        (Known::Known(0), Known::Known(16)),
        "a limit says nothing about the least"
    );
}

#[test]
fn what_a_drain_wastes_is_what_no_job_uses_until_the_last_one_ends() {
    let s = Scene::busy(
        6,
        &[("n001", Some("2026-11-21T13:00:00Z")), ("n001", Some("2026-11-21T14:00:00Z")), ("n002", None)],
    );
    let c = s.cost();
    assert_eq!(c.put_off(now()), Some(at("2026-11-21T14:00:00Z")));
    assert_eq!(c.put_off(at("2026-11-21T14:00:00Z")), None, "it is put off once");
    // Two idle GPUs for two hours, then eight for half an hour; at most all eight for the whole time.
    assert_eq!(
        (c.gpu_minutes_least, c.gpu_minutes_most),
        (Known::Known(2 * 120 + 240), Known::Known(8 * 150))
    );
    assert_eq!(
        c.holding.iter().map(|h| h.id.as_str()).collect::<Vec<_>>(),
        ["101", "100"],
        "the longest first"
    );
    assert_eq!(c.free_at, Known::Known(at("2026-11-21T14:00:00Z")));
    let moment = Moment::At { at: at("2026-11-21T14:00:00Z"), saves: Known::Known(240) };
    assert_eq!(c.moment, moment);
    assert_eq!(Scene::new().cost().put_off(now()), None);
    let short =
        Scene { idle_gap: Period::hours(1), ..Scene::busy(6, &[("n001", Some("2026-11-21T14:00:00Z"))]) };
    assert!(matches!(short.cost().moment, Moment::None { why } if why.contains("within 1h")));
    let never =
        Scene { idle_gap: Period::hours(0), ..Scene::busy(6, &[("n001", Some("2026-11-21T14:00:00Z"))]) };
    assert!(matches!(never.cost().moment, Moment::None { why } if why.contains("puts no run off")));
}

#[test]
fn a_node_that_stays_out_costs_nobody_knows_how_much() {
    let c = Scene { gives_back: false, ..Scene::new() }.cost();
    assert_eq!(c.gpu_minutes_least, Known::Known(240));
    assert!(matches!(c.gpu_minutes_most, Known::Unknown(u) if u.detail.contains("stays out of service")));
}

#[test]
fn an_end_that_is_not_known_is_no_number() {
    let mut suspended = job(7, &["n001"], Some("2026-11-21T14:00:00Z"));
    suspended.state = Known::Known(JobState::Suspended);
    let mut unread = job(7, &["n001"], None);
    unread.end = Known::unknown(Cause::NotReported, "no time limit");
    let overdue = job(7, &["n001"], Some("2026-11-21T11:00:00Z"));
    for (what, j) in [
        ("suspended", suspended),
        ("unread", unread),
        ("past its end", overdue),
        ("no time limit", job(7, &["n001"], None)),
    ] {
        let mut s = Scene::busy(4, &[("n001", Some("2026-11-21T13:00:00Z"))]);
        s.jobs.push(j);
        let c = s.cost();
        assert!(!c.free_at.is_known() && !c.gpu_minutes_most.is_known(), "{what}");
        assert_eq!(c.gpu_minutes_least, Known::Known(240), "the work at least: {what}");
        assert_eq!(c.holding[0].id, "7", "the one nobody knows stands first: {what}");
        assert!(matches!(c.moment, Moment::None { why } if why.contains("of job 7")), "{what}");
    }
    let mut s = Scene::new();
    s.node.gpus_configured = Known::unknown(Cause::NotReported, "");
    assert!(!s.cost().gpu_minutes_least.is_known());
    let mut s = Scene::busy(4, &[("n001", Some("2026-11-21T13:00:00Z"))]);
    s.node.gpus_allocated = Known::unknown(Cause::NotReported, "");
    let c = s.cost();
    assert_eq!((c.gpu_minutes_least, c.gpu_minutes_most), (Known::Known(240), Known::Known(720)));
}

#[test]
fn the_moment_does_not_cut_into_a_reservation() {
    let class = |from, to| reservation("class", &["n001"], &[], from, to);
    let mut s = Scene::busy(8, &[("n001", Some("2026-11-21T13:00:00Z"))]);
    s.reservations = vec![
        class("2026-11-21T13:20:00Z", "2026-11-21T14:00:00Z"),
        reservation("slurmedic-n001", &["n001"], &["MAINT"], "2026-11-21T11:00:00Z", "2026-11-21T20:00:00Z"),
        reservation("elsewhere", &["n002"], &[], "2026-11-21T12:30:00Z", "2026-11-21T20:00:00Z"),
    ];
    let c = s.cost();
    assert_eq!(c.next_reservation.known().unwrap().as_ref().unwrap().name, "class");
    assert!(
        matches!(c.moment, Moment::At { at: t, .. } if t == at("2026-11-21T14:00:00Z")),
        "{:?}",
        c.moment
    );
    // Half an hour fits exactly before it.
    s.reservations[0] = class("2026-11-21T13:30:00Z", "2026-11-21T14:00:00Z");
    assert!(matches!(s.cost().moment, Moment::At { at: t, .. } if t == at("2026-11-21T13:00:00Z")));
    // An idle node on which one begins soon: after it.
    let mut idle = Scene::new();
    idle.reservations = vec![class("2026-11-21T12:10:00Z", "2026-11-21T13:00:00Z")];
    assert!(matches!(idle.cost().moment, Moment::At { at: t, .. } if t == at("2026-11-21T13:00:00Z")));
    idle.reservations.push(class("2026-11-21T13:15:00Z", "2026-11-21T23:00:00Z"));
    assert!(matches!(idle.cost().moment, Moment::None { .. }));
    idle.reservations[1].end = Known::unknown(Cause::NotReported, "");
    assert!(matches!(idle.cost().moment, Moment::None { why } if why.contains("end of reservation class")));
    idle.reservations[1].nodes = Known::unknown(Cause::Unparsable, "n[1-");
    let c = idle.cost();
    assert!(!c.next_reservation.is_known() && matches!(c.moment, Moment::None { .. }));
}

#[test]
fn pending_jobs_that_feel_it_are_named() {
    let mut named = waiting("7", 1, &["main"]);
    named.named = Known::Known(vec![name("n001")]);
    let mut planned = waiting("8_[1-3]", 1, &["main"]);
    planned.planned = Known::Known(vec![name("n000"), name("n001")]);
    planned.start = Known::Known(Some(at("2026-11-21T12:30:00Z")));
    let mut odd = waiting("12", 10, &["main"]);
    odd.nodes = Known::unknown(Cause::Unparsable, "");
    let mut s = Scene::new();
    s.pending = Known::Known(vec![
        waiting("9", 10, &["main"]),
        waiting("10", 9, &["main"]),
        waiting("11", 11, &["main"]),
        waiting("13", 10, &["main", "other"]),
        odd,
        planned,
        named,
    ]);
    let c = s.cost();
    assert_eq!(c.pending_total, Known::Known(3));
    let felt: Vec<_> = c.pending.iter().map(|p| (p.id.as_str(), p.why.clone())).collect();
    let short = Felt::Short { partition: "main".to_owned(), needs: 10, left: 9 };
    assert_eq!(felt, [("7", Felt::Named), ("8_[1-3]", Felt::Planned), ("9", short)]);
    assert_eq!(c.pending[1].start, Some(at("2026-11-21T12:30:00Z")));
    s.pending = Known::unknown(Cause::Unsupported, "squeue");
    assert!(!s.cost().pending_total.is_known());
    s.pending = Known::Known((0..100).map(|i| waiting(&i.to_string(), 10, &["main"])).collect());
    let c = s.cost();
    assert_eq!((c.pending.len(), c.pending_total), (20, Known::Known(100)));
}

#[test]
fn what_is_out_already_or_stays_in_costs_nothing() {
    for s in [
        Scene { takes_out: false, ..Scene::busy(8, &[("n001", Some("2026-11-21T13:00:00Z"))]) },
        Scene { node: node("n001", "IDLE+DRAIN"), ..Scene::new() },
        Scene { node: node("n001", "DOWN"), ..Scene::new() },
    ] {
        let c = s.cost();
        assert_eq!((c.gpu_minutes_most, c.moment), (Known::Known(0), Moment::Now));
    }
}
