//! Slurm's state machine as the simulator plays it, transition by transition.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop at once, as tests do")]

use engine_core::known::Known;
use engine_core::model::{BaseState, JobState, Node, NodeFlag, NodeName, NodeState, ResetOutcome};
use engine_runtime::ports::{
    Clock, GpuTelemetry, KillEnd, NodeActuator, RefusalKind, Scheduler, Verb, WorkOrder, WorkResult, Write,
};
use engine_testkit::ports::{SimActuator, SimClock, SimScheduler, SimTelemetry};
use engine_testkit::time::SimRuntime;
use engine_testkit::world::{Fault, Hiccup, LoadConfig, PersonAction, Script, SimConfig, SimWorld, Trigger};
use jiff::{SignedDuration, Timestamp};

fn start() -> Timestamp {
    "2026-01-05T08:00:00Z".parse().unwrap()
}

fn world() -> SimWorld {
    SimWorld::new(SimConfig::new(4, 7, start()))
}

fn name(n: &str) -> NodeName {
    NodeName::new(n).unwrap()
}

fn secs(n: i64) -> SignedDuration {
    SignedDuration::from_secs(n)
}

/// Lets virtual time go by.
async fn pass(world: &SimWorld, d: SignedDuration) {
    let clock = SimClock::new(world);
    SimRuntime::new(world).run(async move { clock.sleep(d).await }).await.unwrap();
}

fn view(world: &SimWorld, n: &str) -> Node {
    world.node_view(&name(n)).unwrap()
}

fn drain(n: &str, reason: &str) -> PersonAction {
    PersonAction::Drain { node: name(n), reason: reason.to_owned() }
}

fn resume(n: &str) -> PersonAction {
    PersonAction::Resume { node: name(n) }
}

#[tokio::test]
async fn base_follows_the_jobs_and_completing_their_epilog() {
    let w = world();
    let n = name("gpu001");
    let small = w.start_job(&n, &[0, 1], secs(60)).unwrap();
    assert_eq!(view(&w, "gpu001").base, Known::Known(BaseState::Mixed));
    w.start_job(&n, &[2, 3, 4, 5, 6, 7], secs(20)).unwrap();
    assert_eq!(view(&w, "gpu001").base, Known::Known(BaseState::Allocated));
    assert!(w.start_job(&n, &[1], secs(1)).is_err(), "the GPU is taken");
    w.person_now("admin1", drain("gpu001", "fan")).unwrap();
    assert_eq!(view(&w, "gpu001").state, NodeState::Draining);
    assert!(w.start_job(&n, &[7], secs(1)).unwrap_err().contains("DRAIN"));
    pass(&w, secs(21)).await;
    let now = view(&w, "gpu001");
    assert!(now.flags.has(NodeFlag::Completing), "{:?}", now.flags);
    assert_eq!(now.gpus_allocated, Known::Known(2));
    pass(&w, secs(60)).await;
    assert_eq!(view(&w, "gpu001").state, NodeState::Drained);
    let job = w.jobs_view(&n).into_iter().find(|j| j.id == small).unwrap();
    assert_eq!((job.state.clone(), job.holds_node()), (Known::Known(JobState::Completed), false));
    pass(&w, secs(400)).await;
    assert!(w.jobs_view(&n).is_empty(), "forgotten after MinJobAge");
}

#[tokio::test]
async fn a_suspended_job_leaves_the_node_idle_and_goes_on_even_when_it_is_drained() {
    let w = world();
    let n = name("gpu001");
    let job = w.start_job(&n, &[0], secs(600)).unwrap();
    w.person_now("admin1", PersonAction::SuspendJob { job }).unwrap();
    let seen = view(&w, "gpu001");
    assert_eq!((seen.base, seen.gpus_allocated), (Known::Known(BaseState::Idle), Known::Known(0)));
    assert!(w.jobs_view(&n)[0].is_suspended());
    let gpus = w.gpus_view(&n).unwrap();
    assert!(gpus.gpus[0].processes.is_known_and(|p| p.len() == 1), "frozen processes hold the GPU");
    w.person_now("admin1", drain("gpu001", "fan")).unwrap();
    w.person_now("admin1", PersonAction::ResumeJob { job }).unwrap();
    assert_eq!(view(&w, "gpu001").state, NodeState::Draining);
}

#[tokio::test]
async fn drain_and_reason_semantics() {
    let w = world();
    assert!(w.person_now("admin1", drain("gpu001", " ")).is_err());
    w.person_now("admin1", drain("gpu001", "fan")).unwrap();
    let first = view(&w, "gpu001").reason;
    pass(&w, secs(5)).await;
    w.person_now("admin2", drain("gpu001", "fan")).unwrap();
    assert_eq!(view(&w, "gpu001").reason, first, "the same state and reason keep user and time");
    w.person_now("admin2", drain("gpu001", "PSU")).unwrap();
    let second = view(&w, "gpu001").reason.into_known().flatten().unwrap();
    assert_eq!((second.text.as_str(), second.user), ("PSU", Known::Known("admin2".to_owned())));
    w.person_now("admin1", PersonAction::SetReason { node: name("gpu001"), reason: "x".into() }).unwrap();
    assert!(view(&w, "gpu001").flags.has(NodeFlag::Drain));
    w.person_now("admin1", resume("gpu001")).unwrap();
    let after = view(&w, "gpu001");
    assert_eq!(after.reason, Known::Known(None));
    assert_eq!(after.state, NodeState::NotResponding);
    pass(&w, secs(4)).await;
    assert_eq!(view(&w, "gpu001").state, NodeState::Idle);
    assert_eq!(
        w.person_now("admin1", resume("gpu001")).unwrap_err(),
        "slurm_update error: Invalid node state specified"
    );
}

#[tokio::test]
async fn silent_nodes_go_down_and_a_dead_one_stays_silent_after_resume() {
    let w = world();
    let n = name("gpu002");
    let job = w.start_job(&n, &[0], secs(3600)).unwrap();
    w.run(Script::Slurmd { node: n.clone(), alive: false }).unwrap();
    pass(&w, secs(13)).await;
    assert!(view(&w, "gpu002").flags.has(NodeFlag::NotResponding));
    pass(&w, secs(30)).await;
    assert_eq!(view(&w, "gpu002").base, Known::Known(BaseState::Down));
    assert!(w.jobs_view(&n).iter().all(|j| j.id != job), "requeued");
    w.person_now("admin1", resume("gpu002")).unwrap();
    pass(&w, secs(10)).await;
    assert_eq!(view(&w, "gpu002").state, NodeState::NotResponding);
    pass(&w, secs(40)).await;
    assert_eq!(view(&w, "gpu002").base, Known::Known(BaseState::Down));
    w.run(Script::Slurmd { node: n, alive: true }).unwrap();
    pass(&w, secs(2)).await;
    assert_eq!(view(&w, "gpu002").flags.known.len(), 0, "ReturnToService=1");
}

#[tokio::test]
async fn reservations_show_their_flags_late_and_end_by_themselves() {
    let w = world();
    let what = PersonAction::Maintenance { name: "rack7".into(), node: name("gpu003"), duration: secs(120) };
    w.person_now("admin1", what.clone()).unwrap();
    assert!(w.person_now("admin1", what).unwrap_err().contains("Duplicate"));
    assert!(view(&w, "gpu003").flags.known.is_empty());
    assert!(w.start_job(&name("gpu003"), &[0], secs(5)).is_err(), "closed at once");
    pass(&w, secs(4)).await;
    assert_eq!(view(&w, "gpu003").state, NodeState::Maint);
    pass(&w, secs(120)).await;
    assert!(w.reservations_view().is_empty());
    assert_eq!(view(&w, "gpu003").state, NodeState::Idle);
}

#[tokio::test]
async fn a_reboot_waits_for_jobs_and_brings_a_lost_gpu_back() {
    let w = world();
    let n = name("gpu001");
    w.inject(&n, 5, Fault::OffBus).unwrap();
    w.start_job(&n, &[0], secs(30)).unwrap();
    w.person_now("admin1", PersonAction::Reboot { node: n.clone(), asap: true, then_resume: true }).unwrap();
    assert!(view(&w, "gpu001").flags.has(NodeFlag::RebootRequested));
    pass(&w, secs(45)).await;
    let during = view(&w, "gpu001");
    assert!(
        during.flags.has(NodeFlag::RebootIssued) && during.base == Known::Known(BaseState::Down),
        "{during:?}"
    );
    let reason = during.reason.into_known().flatten().unwrap();
    assert_eq!(
        (reason.text.as_str(), reason.user),
        ("Reboot ASAP : reboot issued", Known::Known("slurm".to_owned()))
    );
    assert!(w.person_now("admin1", resume("gpu001")).is_err());
    pass(&w, secs(120)).await;
    assert_eq!(view(&w, "gpu001").state, NodeState::Idle);
    assert!(w.ailments(&n).is_empty());
}

fn reset_order(w: &SimWorld, id: &str, run: &str, node: &str, gpu: usize) -> WorkOrder {
    let g = w.gpus_view(&name(node)).unwrap().gpus[gpu].clone();
    WorkOrder {
        id: id.to_owned(),
        node: name(node),
        run: Some(engine_core::model::RunId::new(run).unwrap()),
        verb: Verb::ResetGpu { uuid: g.uuid.into_known().unwrap(), bus_id: g.bus_id.into_known().unwrap() },
        limit: secs(300),
    }
}

async fn perform(w: &SimWorld, order: &WorkOrder) -> WorkResult {
    let actuator = SimActuator::new(w);
    SimRuntime::new(w).run(async move { actuator.perform(order).await }).await.unwrap()
}

#[tokio::test]
async fn a_reset_is_done_once_and_never_under_a_process() {
    let w = world();
    w.inject(&name("gpu001"), 2, Fault::EccDbe).unwrap();
    let order = reset_order(&w, "o1", "r1", "gpu001", 2);
    let first = perform(&w, &order).await;
    assert!(matches!(&first, WorkResult::Reset { outcome: ResetOutcome::Done, .. }), "{first:?}");
    assert_eq!(perform(&w, &order).await, first, "the same order gives the same answer and nothing else");
    assert_eq!(w.resets().len(), 1);
    assert!(w.ailments(&name("gpu001")).is_empty() && w.violations().is_empty());
    assert_eq!(
        w.gpus_view(&name("gpu001")).unwrap().gpus[2].last_xid,
        Known::Known(0),
        "the engine was restarted"
    );
    perform(&w, &reset_order(&w, "o2", "r1", "gpu001", 2)).await;
    assert!(w.violations()[0].what.contains("second time"), "{:?}", w.violations());

    w.inject(&name("gpu002"), 1, Fault::Holder { pid: 41_822, name: "python3".into() }).unwrap();
    let held = perform(&w, &reset_order(&w, "o3", "r2", "gpu002", 1)).await;
    let WorkResult::Reset { outcome: ResetOutcome::Refused { holders, .. }, .. } = held else {
        panic!("{held:?}")
    };
    assert_eq!(holders[0].pid, 41_822);

    w.start_job(&name("gpu003"), &[4], secs(900)).unwrap();
    pass(&w, secs(5)).await;
    let busy = perform(&w, &reset_order(&w, "o4", "r3", "gpu003", 4)).await;
    assert!(matches!(busy, WorkResult::Reset { outcome: ResetOutcome::Refused { .. }, .. }));
    assert_eq!(w.resets().len(), 2);
    assert!(w.violations()[1].what.contains("while job"), "{:?}", w.violations());
}

fn verb_order(id: &str, node: &str, verb: Verb) -> WorkOrder {
    WorkOrder { id: id.to_owned(), node: name(node), run: None, verb, limit: secs(30) }
}

#[tokio::test]
async fn processes_services_and_clocks_answer_from_the_world_and_change_it_once() {
    let w = world();
    w.inject(&name("gpu002"), 1, Fault::Holder { pid: 41_822, name: "python3".into() }).unwrap();
    let listed = perform(&w, &verb_order("p", "gpu002", Verb::Processes)).await;
    let WorkResult::Processes(Known::Known(list)) = listed else { panic!("{listed:?}") };
    let start_time = list.processes[0].start_time;
    assert_eq!((list.processes[0].pid, list.processes.len()), (41_822, 1));

    let unit = |u: &str| Verb::RestartService { unit: u.into() };
    let held = perform(&w, &verb_order("s1", "gpu002", unit("nvidia-persistenced"))).await;
    assert!(matches!(&held, WorkResult::Refused(why) if why.contains("41822")), "{held:?}");
    let other = Verb::KillProcess { pid: 41_822, start_time: start_time + 1 };
    assert!(matches!(perform(&w, &verb_order("k1", "gpu002", other)).await, WorkResult::Refused(_)));
    let order = verb_order("k2", "gpu002", Verb::KillProcess { pid: 41_822, start_time });
    assert!(matches!(perform(&w, &order).await, WorkResult::Killed { end: KillEnd::Ended { .. }, .. }));
    assert!(matches!(perform(&w, &order).await, WorkResult::Ambiguous(_)), "once only");
    let gone = perform(&w, &WorkOrder { id: "k3".into(), ..order }).await;
    assert!(matches!(gone, WorkResult::Killed { end: KillEnd::WasGone, .. }), "{gone:?}");
    let free = perform(&w, &verb_order("s2", "gpu002", unit("nvidia-persistenced"))).await;
    assert!(matches!(free, WorkResult::ServiceRestarted { .. }), "{free:?}");

    w.inject(&name("gpu001"), 0, Fault::DcgmDown).unwrap();
    let dcgm = perform(&w, &verb_order("s3", "gpu001", unit("nvidia-dcgm.service"))).await;
    let WorkResult::ServiceRestarted { before, after, .. } = dcgm else { panic!("{dcgm:?}") };
    assert_eq!((before.active.as_str(), after.active.as_str()), ("inactive", "active"));
    assert_eq!(w.gpus_view(&name("gpu001")).unwrap().dcgm_up, Known::Known(true));
    assert!(matches!(perform(&w, &verb_order("s4", "gpu001", unit("sshd"))).await, WorkResult::Refused(_)));

    w.start_job(&name("gpu003"), &[4], secs(900)).unwrap();
    pass(&w, secs(5)).await;
    let g = w.gpus_view(&name("gpu003")).unwrap().gpus[4].clone();
    let clocks =
        Verb::ResetClocks { uuid: g.uuid.into_known().unwrap(), bus_id: g.bus_id.into_known().unwrap() };
    let busy = perform(&w, &verb_order("c1", "gpu003", clocks.clone())).await;
    assert!(matches!(&busy, WorkResult::Refused(why) if why.contains("job")), "{busy:?}");
    let listed = perform(&w, &verb_order("p2", "gpu003", Verb::Processes)).await;
    let WorkResult::Processes(Known::Known(list)) = listed else { panic!("{listed:?}") };
    let p = &list.processes[0];
    let end = Verb::KillProcess { pid: p.pid, start_time: p.start_time };
    let refused = perform(&w, &verb_order("k4", "gpu003", end)).await;
    assert!(matches!(&refused, WorkResult::Refused(why) if why.contains("belongs to job")), "{refused:?}");
    pass(&w, secs(1_000)).await;
    let done = perform(&w, &verb_order("c2", "gpu003", clocks)).await;
    assert!(matches!(done, WorkResult::ClocksReset { .. }), "{done:?}");
    let path = Verb::Quarantine { path: "/tmp/x".into() };
    assert!(matches!(perform(&w, &verb_order("q", "gpu003", path)).await, WorkResult::Refused(_)));
}

#[tokio::test]
async fn hung_tools_and_a_dead_exporter_give_no_values() {
    let w = world();
    let n = name("gpu001");
    w.inject(&n, 0, Fault::ExporterDown).unwrap();
    w.inject(&n, 0, Fault::ToolsHang).unwrap();
    let (tele, act) = (SimTelemetry::new(&w), SimActuator::new(&w));
    let order =
        WorkOrder { id: "i".into(), node: n.clone(), run: None, verb: Verb::Inspect, limit: secs(15) };
    let (scrape, look) =
        SimRuntime::new(&w).run(async { (tele.gpus(&n).await, act.perform(&order).await) }).await.unwrap();
    assert!(scrape.is_err());
    let WorkResult::Inspected(seen) = look else { panic!("{look:?}") };
    assert!(seen.gpus.is_empty() && !seen.dcgm_up.is_known() && !seen.health.is_known());
    assert_eq!(w.now().duration_since(start()).as_secs(), 15);
    let hung = perform(&w, &{
        w.inject(&n, 0, Fault::ToolsBack).unwrap();
        w.inject(&n, 3, Fault::ResetHangs { applied: true }).unwrap();
        w.inject(&n, 3, Fault::EccDbe).unwrap();
        reset_order(&w, "o9", "r9", "gpu001", 3)
    })
    .await;
    assert!(matches!(hung, WorkResult::Ambiguous(_)), "{hung:?}");
    assert!(w.ailments(&n).is_empty(), "it was reset all the same");
}

#[tokio::test]
async fn the_rule_book_sees_what_an_engine_may_not_do() {
    let w = world();
    let slurm = SimScheduler::new(&w);
    w.person_now("admin1", drain("gpu001", "maintenance")).unwrap();
    w.inject(&name("gpu002"), 0, Fault::EccDbe).unwrap();
    w.person_now(
        "admin1",
        PersonAction::Maintenance { name: "theirs".into(), node: name("gpu003"), duration: secs(900) },
    )
    .unwrap();
    pass(&w, secs(10)).await;
    SimRuntime::new(&w)
        .run(async {
            assert_eq!(slurm.drain(&name("gpu001"), "[slurmedic:x@1.0.0#r] mine").await, Write::Accepted);
            assert_eq!(slurm.drain(&name("gpu002"), "[slurmedic:x@1.0.0#r] mine").await, Write::Accepted);
            assert_eq!(slurm.resume(&name("gpu002")).await, Write::Accepted);
            assert_eq!(slurm.delete_reservation("theirs").await, Write::Accepted);
        })
        .await
        .unwrap();
    let found = w.violations();
    assert_eq!(found.len(), 3, "{found:#?}");
    for (v, word) in found.iter().zip(["overwrote a reason", "while sick", "not the engine's"]) {
        assert!(v.what.contains(word), "{v}");
    }
}

#[tokio::test]
async fn a_change_inside_slurms_own_window_is_a_race_and_no_violation() {
    let w = world();
    let slurm = SimScheduler::new(&w);
    SimRuntime::new(&w).run(async { slurm.drain(&name("gpu001"), "mine").await }).await.unwrap();
    pass(&w, secs(60)).await;
    let at = w.now().checked_add(SignedDuration::from_millis(3)).unwrap();
    w.person(at, "admin1", PersonAction::SetReason { node: name("gpu001"), reason: "mine now".into() });
    let done = SimRuntime::new(&w).run(async { slurm.resume(&name("gpu001")).await }).await.unwrap();
    assert_eq!(done, Write::Accepted);
    assert!(w.violations().is_empty(), "{:?}", w.violations());
    assert_eq!(w.races().len(), 1);
}

#[tokio::test]
async fn hiccups_are_ambiguous_or_unknown_and_never_success() {
    let w = world();
    let slurm = SimScheduler::new(&w);
    let n = name("gpu001");
    for h in [Hiccup::WriteLost, Hiccup::WriteAppliedLater(secs(15))] {
        w.run(Script::Hiccup(h)).unwrap();
    }
    SimRuntime::new(&w)
        .run(async {
            let clock = SimClock::new(&w);
            assert!(matches!(slurm.drain(&n, "a").await, Write::Ambiguous(_)));
            assert!(!slurm.node(&n).await.unwrap().value.flags.has(NodeFlag::Drain));
            assert!(matches!(slurm.drain(&n, "b").await, Write::Ambiguous(_)));
            assert!(!slurm.node(&n).await.unwrap().value.flags.has(NodeFlag::Drain));
            clock.sleep(secs(6)).await;
            assert!(slurm.node(&n).await.unwrap().value.flags.has(NodeFlag::Drain), "applied later");
            for h in [Hiccup::ReadEmpty, Hiccup::ReadTimesOut] {
                w.run(Script::Hiccup(h)).unwrap();
                assert!(slurm.jobs_on(&n).await.is_err());
            }
            w.run(Script::ControllerDown(secs(60))).unwrap();
            assert!(slurm.nodes().await.is_err());
            assert!(matches!(slurm.resume(&n).await, Write::Ambiguous(_)));
            clock.sleep(secs(60)).await;
            assert!(slurm.nodes().await.unwrap().value[0].flags.has(NodeFlag::Drain));
            let twice = slurm.delete_reservation("no").await;
            assert!(matches!(twice, Write::Refused(r) if r.kind == RefusalKind::NotFound));
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn people_answer_to_the_engine() {
    let w = world();
    let n = name("gpu001");
    let reason = Script::Person { login: "admin1".into(), action: drain("gpu001", "mine now") };
    w.when(&n, Trigger::EngineDrained, secs(10), reason);
    let slurm = SimScheduler::new(&w);
    SimRuntime::new(&w).run(async { slurm.drain(&n, "ours").await }).await.unwrap();
    pass(&w, secs(9)).await;
    assert_eq!(view(&w, "gpu001").reason.into_known().flatten().unwrap().text, "ours");
    pass(&w, secs(2)).await;
    assert_eq!(view(&w, "gpu001").reason.into_known().flatten().unwrap().text, "mine now");
}

#[tokio::test]
async fn a_busy_cluster_is_the_same_for_the_same_seed() {
    let mut histories = Vec::new();
    for seed in [11, 11, 12] {
        let mut config = SimConfig::new(64, seed, start());
        config.load = Some(LoadConfig {
            mean_gap: secs(12),
            run_seconds: 120..=900,
            keep_free: [3, 4].into(),
            initial_jobs: 60,
        });
        let w = SimWorld::new(config);
        pass(&w, SignedDuration::from_hours(2)).await;
        let (done, broken, _) = w.job_counts();
        assert!(done > 300 && broken == 0, "{done} {broken}");
        assert!(w.jobs_view(&name("gpu004")).is_empty(), "kept free");
        histories.push(w.log());
    }
    assert_eq!(histories[0], histories[1]);
    assert_ne!(histories[0], histories[2]);
}
