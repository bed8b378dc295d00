//! Incidents as a fold: what alerts change, when breakers trip, and that a record reads back to the same state.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop at once, as tests do")]

use engine_core::incident::Fingerprint;
use engine_core::incident::{
    Alert, Closing, Counters, FleetEvent, FleetState, Heard, IncidentId, IntakeRules, NotHeard, Phase, Place,
    QueuedWork, Scope, Shape, StormRules, Subject, Trouble, hear, tick, trips,
};
use engine_core::model::{NodeName, RunId};
use engine_core::run::Actor;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

fn at(seconds: i64) -> Timestamp {
    "2026-03-04T05:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

fn node(i: usize) -> NodeName {
    NodeName::new(&format!("gpu{i:04}")).unwrap()
}

/// Racks of ten nodes; every other node is in the partition `small` too.
fn place(i: usize) -> Place {
    let mut partitions = vec!["main".to_owned()];
    if i.is_multiple_of(2) && i < 20 {
        partitions.push("small".to_owned());
    }
    Place { partitions, rack: Some(format!("r{}", i / 10)) }
}

fn shape(nodes: usize) -> Shape {
    Shape::new((0..nodes).map(|i| (node(i), place(i))))
}

fn alert(i: usize, fault: &str, seconds: i64) -> Alert {
    Alert {
        source: "test".into(),
        fingerprint: Fingerprint::new(&format!("{fault}/{i}")).unwrap(),
        fault: fault.into(),
        node: node(i),
        gpu: Some("0".into()),
        firing: true,
        seen_at: at(seconds),
        summary: String::new(),
    }
}

/// A fleet with its clock.
struct Desk {
    state: FleetState,
    counters: Counters,
    shape: Shape,
    rules: IntakeRules,
    events: Vec<(Timestamp, FleetEvent)>,
}

impl Desk {
    fn new(nodes: usize) -> Self {
        Self {
            state: FleetState::default(),
            counters: Counters::default(),
            shape: shape(nodes),
            rules: IntakeRules::default(),
            events: Vec::new(),
        }
    }

    fn write(&mut self, seconds: i64, event: FleetEvent) {
        self.state.apply(self.state.seq() + 1, at(seconds), &event).unwrap();
        self.events.push((at(seconds), event));
    }

    fn hear(&mut self, seconds: i64, alert: Alert) -> Heard {
        let heard = hear(&self.state, &mut self.counters, &self.shape, &self.rules, alert, at(seconds));
        if let Heard::New(event) = &heard {
            self.write(seconds, (**event).clone());
        }
        heard
    }

    fn tick(&mut self, seconds: i64) {
        self.tick_within(seconds, usize::MAX);
    }

    fn tick_within(&mut self, seconds: i64, room: usize) -> usize {
        let events = tick(&self.state, &mut self.counters, &self.rules, at(seconds), room);
        let count = events.len();
        for event in events {
            self.write(seconds, event);
        }
        count
    }

    fn trip(&mut self, seconds: i64) -> Vec<Scope> {
        let all = trips(&self.state, &self.shape, &StormRules::default(), at(seconds));
        let mut scopes = Vec::new();
        for event in all {
            if let FleetEvent::Tripped { scope, .. } = &event {
                scopes.push(scope.clone());
            }
            self.write(seconds, event);
        }
        scopes
    }

    fn only(&self) -> IncidentId {
        self.state.incidents().next().unwrap().id
    }
}

/// More is due than one write takes: the rest comes with the next one, and no count is lost.
#[test]
fn what_finds_no_room_is_said_the_next_time() {
    let mut d = Desk::new(10);
    for n in 1..=7 {
        for second in [0, 1] {
            d.hear(second, alert(n, "gpu-off-bus", second));
        }
    }
    let told: Vec<usize> = (0..4).map(|i| d.tick_within(400 + i, 4)).collect();
    assert_eq!(told, [3, 3, 1, 0], "a series needs room for two");
    let counts: Vec<u64> = d.state.incidents().flat_map(|i| i.alerts.values().map(|s| s.times)).collect();
    assert_eq!(counts, [2; 7]);
    for n in 1..=7 {
        d.hear(500, Alert { firing: false, ..alert(n, "gpu-off-bus", 500) });
    }
    let told: Vec<usize> = (0..6).map(|i| d.tick_within(900 + i, 4)).collect();
    assert_eq!(told.iter().sum::<usize>(), 14, "each is resolved once and closed once: {told:?}");
    assert_eq!(d.state.open(), 0);
}

#[test]
fn repeats_count_and_are_written_down_once_in_a_while() {
    let mut d = Desk::new(10);
    for s in 0..1_000 {
        d.hear(s, alert(1, "gpu-off-bus", s));
        d.tick(s);
    }
    let words: Vec<&str> = d.events.iter().map(|(_, e)| e.word()).collect();
    assert_eq!(words.iter().filter(|w| **w == "opened").count(), 1);
    assert!(words.iter().filter(|w| **w == "repeated").count() <= 4, "{words:?}");
    assert_eq!(d.counters.len(), 1);
    let times = d.state.incidents().next().unwrap().alerts.values().next().unwrap().times;
    assert!(times > 890, "{times} of 1000 are on record by now");
}

#[test]
fn the_strongest_firing_fault_decides() {
    let mut d = Desk::new(10);
    d.hear(0, alert(1, "gpu-contained-error", 0));
    d.hear(1, alert(1, "gpu-off-bus", 1));
    d.hear(2, alert(1, "gpu-ecc-uncorrectable", 2));
    let incident = d.state.incidents().next().unwrap();
    assert_eq!(incident.alerts.len(), 3);
    assert_eq!(incident.strongest().unwrap().1.fault, "gpu-off-bus");
    // It is over: the next one counts.
    d.hear(3, Alert { firing: false, ..alert(1, "gpu-off-bus", 3) });
    d.tick(200);
    assert_eq!(d.state.incidents().next().unwrap().strongest().unwrap().1.fault, "gpu-ecc-uncorrectable");
}

#[test]
fn more_series_than_fit_only_count() {
    let mut d = Desk::new(10);
    for i in 0..200 {
        let fingerprint = Fingerprint::new(&format!("f{i}")).unwrap();
        d.hear(i, Alert { fingerprint, ..alert(1, "gpu-off-bus", i) });
    }
    assert_eq!(d.state.incidents().next().unwrap().alerts.len(), engine_core::incident::fold::MAX_SERIES);
    assert_eq!(d.state.open(), 1);
}

#[test]
fn after_a_repair_its_alerts_settle_and_then_count_anew() {
    let mut d = Desk::new(10);
    d.hear(0, alert(1, "gpu-off-bus", 0));
    let incident = d.only();
    d.write(10, FleetEvent::Closed { incident, closing: Closing::Repaired, why: String::new() });
    assert_eq!(d.hear(20, alert(1, "gpu-off-bus", 20)), Heard::Not(NotHeard::Settling));
    // Another fault of the node is heard at once, and the same one after a while.
    assert!(matches!(d.hear(30, alert(1, "gpu-contained-error", 30)), Heard::New(_)));
    let incident = d.only();
    d.write(40, FleetEvent::Closed { incident, closing: Closing::Repaired, why: String::new() });
    assert!(matches!(d.hear(400, alert(1, "gpu-contained-error", 400)), Heard::New(_)));
}

#[test]
fn the_fleet_stops_when_the_share_is_passed_and_not_before() {
    let mut d = Desk::new(100);
    for i in 0..10 {
        // Different faults, so that it is not about racks.
        d.hear(i, alert(i as usize * 10, &format!("fault-{i}"), i));
        assert_eq!(d.trip(i), [], "{i}: ten of a hundred are not more than 10 %");
    }
    d.hear(10, alert(5, "fault-x", 10));
    assert_eq!(d.trip(10), [Scope::Fleet]);
    assert_eq!(d.trip(11), [], "once");
    assert!(d.state.incidents().filter(|i| i.node().is_some()).all(|i| i.part_of.is_some()));
}

#[test]
fn what_is_older_than_the_window_does_not_count() {
    let mut d = Desk::new(100);
    for i in 0..30 {
        d.hear(i * 100, alert(i as usize + 50, &format!("fault-{i}"), i * 100));
        assert_eq!(d.trip(i * 100), [], "nine in fifteen minutes");
    }
}

#[test]
fn few_nodes_are_no_storm() {
    let mut d = Desk::new(4);
    for i in 0..3 {
        d.hear(i, alert(i as usize, "gpu-off-bus", i));
    }
    assert_eq!(d.trip(5), [], "three of four nodes of a laboratory");
}

#[test]
fn two_racks_with_the_same_fault_stop_the_fleet() {
    let mut d = Desk::new(1_000);
    for (n, i) in [10, 11, 12, 20, 21].into_iter().enumerate() {
        d.hear(n as i64, alert(i, "gpu-hw-thermal", n as i64));
    }
    assert_eq!(d.trip(10), [], "one rack, and two nodes of another");
    d.hear(11, alert(22, "host-oom", 11));
    assert_eq!(d.trip(11), [], "another fault");
    d.hear(12, alert(23, "gpu-hw-thermal", 12));
    assert_eq!(d.trip(12), [Scope::Fleet]);
}

/// The same fault on three nodes of a rack is one incident of the rack: none of them is planned alone, whoever joins is its
/// part, and it ends with the fault of the last one.
#[test]
fn three_nodes_of_a_rack_with_the_same_fault_are_one_incident_of_the_rack() {
    let mut d = Desk::new(1_000);
    let rack_of = |d: &Desk| {
        let mut all = d.state.incidents().filter(|i| matches!(i.subject, Subject::Rack { .. }));
        let first = all.next().map(|i| (i.id, i.phase.clone()));
        assert!(all.next().is_none(), "twice");
        first
    };
    let part_of = |d: &Desk, i: usize| d.state.on_node(&node(i)).unwrap().part_of;
    for (n, i) in [30, 31].into_iter().enumerate() {
        d.hear(n as i64, alert(i, "gpu-hw-thermal", n as i64));
    }
    // Another fault in the rack, the same in another rack, and what an application does on three nodes.
    d.hear(3, alert(32, "ib-port-down", 3));
    d.hear(3, alert(40, "gpu-hw-thermal", 3));
    for i in 50..54 {
        d.hear(4, alert(i, "nccl-timeout", 4));
    }
    d.trip(5);
    assert_eq!(rack_of(&d), None);
    d.hear(6, alert(33, "gpu-hw-thermal", 6));
    assert_eq!(d.trip(6), []);
    let (rack, phase) = rack_of(&d).unwrap();
    let Phase::WithPerson { why } = phase else { panic!("{phase:?}") };
    assert!(why.contains("3 nodes of rack r3 (gpu0030, gpu0031, gpu0033)"), "{why}");
    assert!([30, 31, 33].iter().all(|i| part_of(&d, *i) == Some(rack)));
    assert!([32, 40, 50].iter().all(|i| part_of(&d, *i).is_none()));
    // One that comes later, and one that had something else before.
    d.hear(700, alert(34, "gpu-hw-thermal", 700));
    d.hear(
        701,
        Alert { fingerprint: Fingerprint::new("heat/32").unwrap(), ..alert(32, "gpu-hw-thermal", 701) },
    );
    d.trip(701);
    assert!(rack_of(&d).is_some() && [32, 34].iter().all(|i| part_of(&d, *i) == Some(rack)));
    // It is over with the last node.
    for i in [30, 31, 33, 34] {
        d.hear(800, Alert { firing: false, ..alert(i, "gpu-hw-thermal", 800) });
    }
    d.tick(1_000);
    d.tick(1_001);
    assert_eq!(rack_of(&d).map(|(id, _)| id), Some(rack), "node 32 has it still");
    let over =
        Alert { fingerprint: Fingerprint::new("heat/32").unwrap(), ..alert(32, "gpu-hw-thermal", 1_100) };
    d.hear(1_100, Alert { firing: false, ..over });
    d.tick(1_300);
    d.tick(1_301);
    assert_eq!(rack_of(&d), None);
    let mut again = FleetState::default();
    for (n, (at, event)) in d.events.iter().enumerate() {
        again.apply(n as u64 + 1, *at, event).unwrap();
    }
    assert_eq!(again, d.state);
}

/// Closed by a person, its nodes are judged one by one, and what they had does not make it the rack's once more.
#[test]
fn a_closed_incident_of_a_rack_leaves_its_nodes_to_be_judged() {
    let mut d = Desk::new(1_000);
    for i in 30..34 {
        d.hear(1, alert(i, "gpu-hw-thermal", 1));
    }
    d.trip(2);
    let rack = d.state.incidents().find(|i| matches!(i.subject, Subject::Rack { .. })).unwrap().id;
    let why = "the fan of the rack was changed".to_owned();
    d.write(3, FleetEvent::Closed { incident: rack, closing: Closing::Done, why });
    assert_eq!(d.trip(4), []);
    assert!(d.state.incidents().all(|i| i.part_of.is_none() && i.phase == Phase::New && i.is_queued()));
    assert_eq!(d.state.open(), 4);
    // A breaker that opens and is released leaves what is the rack's with the rack.
    for i in [34, 35, 36] {
        d.hear(5, alert(i, "gpu-hw-thermal", 5));
    }
    d.trip(6);
    let rack = d.state.incidents().find(|i| matches!(i.subject, Subject::Rack { .. })).unwrap().id;
    for i in 40..43 {
        d.hear(7, alert(i, "gpu-hw-thermal", 7));
    }
    assert_eq!(d.trip(8), [Scope::Fleet]);
    let by = Actor::person("ana");
    let queued = QueuedWork::JudgeAnew;
    d.write(9, FleetEvent::Released { scope: Scope::Fleet, by, why: "cooled".to_owned(), queued });
    assert_eq!(d.state.on_node(&node(35)).unwrap().part_of, Some(rack));
    assert_eq!(d.state.on_node(&node(41)).unwrap().part_of, None);
}

#[test]
fn a_partition_stops_alone() {
    let mut d = Desk::new(1_000);
    // The partition `small` has ten nodes: more than two of them, and no fewer than four in all.
    for (n, i) in [0, 4, 12, 18].into_iter().enumerate() {
        d.hear(n as i64, alert(i, &format!("fault-{i}"), n as i64));
    }
    assert_eq!(d.trip(10), [Scope::Partition("small".into())]);
    let stopped = d.state.incidents().filter(|i| i.part_of.is_some()).count();
    assert_eq!(stopped, 4);
    d.hear(20, alert(501, "gpu-off-bus", 20));
    assert_eq!(d.state.on_node(&node(501)).unwrap().part_of, None, "the rest of the fleet goes on");
}

#[test]
fn troubles_stop_their_playbook() {
    let trouble = |playbook: &str, trouble| FleetEvent::Troubled {
        run: RunId::new("r1").unwrap(),
        playbook: playbook.into(),
        trouble,
        why: String::new(),
    };
    let mut d = Desk::new(100);
    d.write(0, trouble("a", Trouble::Ambiguous));
    d.write(1, trouble("a", Trouble::Stuck));
    assert_eq!(d.trip(2), []);
    d.write(3, trouble("b", Trouble::Wrongful));
    assert_eq!(d.trip(3), [Scope::Playbook("b".into())], "one is enough");
    d.write(4, trouble("a", Trouble::Ambiguous));
    assert_eq!(d.trip(4), [Scope::Playbook("a".into())]);
    // Released, it does not trip once more for the same.
    let (by, why) = (Actor::person("lead"), String::new());
    d.write(
        5,
        FleetEvent::Released { scope: Scope::Playbook("a".into()), by, why, queued: QueuedWork::Drop },
    );
    assert_eq!(d.trip(6), []);
}

#[test]
fn a_release_drops_or_makes_new_what_waited_and_names_what_was_planned() {
    for queued in [QueuedWork::Drop, QueuedWork::JudgeAnew] {
        let mut d = Desk::new(100);
        d.hear(0, alert(1, "gpu-off-bus", 0));
        d.hear(1, alert(2, "gpu-off-bus", 1));
        let planned = d.state.on_node(&node(2)).unwrap().id;
        let run = RunId::new("r2").unwrap();
        d.write(2, FleetEvent::Planned { incident: planned, run: run.clone() });
        d.write(3, FleetEvent::Tripped { scope: Scope::Fleet, why: "so".into(), nodes: Vec::new() });
        let (by, why) = (Actor::person("lead"), String::new());
        d.write(4, FleetEvent::Released { scope: Scope::Fleet, by, why, queued });
        let waited = d.state.on_node(&node(1));
        match queued {
            QueuedWork::Drop => assert_eq!(waited, None),
            QueuedWork::JudgeAnew => {
                let i = waited.unwrap();
                assert_eq!((&i.phase, i.part_of), (&Phase::New, None));
            }
        }
        let named: Vec<_> = d.state.released().collect();
        assert_eq!(named, [(planned, &run, queued)]);
    }
}

#[test]
fn what_may_not_follow_is_refused_and_changes_nothing() {
    let mut d = Desk::new(10);
    d.hear(0, alert(1, "gpu-off-bus", 0));
    let before = d.state.clone();
    let incident = d.only();
    let nobody = IncidentId(99);
    let run = RunId::new("r1").unwrap();
    let bad = [
        FleetEvent::Opened { alert: alert(1, "x", 1), place: place(1) },
        FleetEvent::Planned { incident: nobody, run },
        FleetEvent::Resolved { incident, fingerprint: Fingerprint::new("other").unwrap() },
        FleetEvent::Closed { incident: nobody, closing: Closing::Over, why: String::new() },
        FleetEvent::Released {
            scope: Scope::Fleet,
            by: Actor::person("lead"),
            why: String::new(),
            queued: QueuedWork::Drop,
        },
    ];
    for event in bad {
        assert!(d.state.apply(2, at(1), &event).is_err(), "{event:?}");
        assert_eq!(d.state, before);
    }
    assert!(d.state.apply(7, at(1), &FleetEvent::Waiting { incident, why: String::new() }).is_err(), "a gap");
}

proptest! {
    /// Any order of alerts, their ends, ticks and trips: one open incident for each node at most, memory no larger than
    /// the open incidents, and the record folds to the same state from its stored form.
    #[test]
    fn any_stream_of_alerts_folds_and_reads_back(steps in prop::collection::vec((0_usize..40, 0..4_u8, 0..90_i64), 1..300)) {
        let mut d = Desk::new(40);
        let mut now = 0;
        for (i, what, later) in steps {
            now += later;
            match what {
                0 | 1 => {
                    d.hear(now, alert(i, if i % 3 == 0 { "gpu-off-bus" } else { "host-oom" }, now));
                }
                2 => {
                    d.hear(now, Alert { firing: false, ..alert(i, "gpu-off-bus", now) });
                }
                _ => {
                    d.tick(now);
                    d.trip(now);
                }
            }
            let nodes: Vec<_> = d.state.incidents().filter_map(|i| i.node()).collect();
            let distinct: std::collections::BTreeSet<_> = nodes.iter().collect();
            prop_assert_eq!(nodes.len(), distinct.len());
        }
        d.tick(now);
        let series: usize = d.state.incidents().map(|i| i.alerts.len()).sum();
        prop_assert!(d.counters.len() <= series);
        let mut again = FleetState::default();
        for (seq, (time, event)) in (1..).zip(&d.events) {
            let text = serde_json::to_string(event).unwrap();
            let back: FleetEvent = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&back, event);
            again.apply(seq, *time, &back).unwrap();
        }
        prop_assert_eq!(again, d.state);
    }
}

/// A source that says once that it is over, to an engine that dies before that counts, is heard by the next one.
#[test]
fn what_is_over_stays_on_record_over_the_death_of_an_engine() {
    let mut d = Desk::new(10);
    d.hear(0, alert(1, "node-not-responding", 0));
    let over = |second: i64| Alert { firing: false, ..alert(1, "node-not-responding", second) };
    assert!(matches!(d.hear(60, over(60)), Heard::New(e) if matches!(*e, FleetEvent::Eased { .. })));
    assert!(matches!(d.hear(61, over(61)), Heard::Counted(_)), "once is enough");
    // Another process, with what is on record and nothing else.
    let mut next = Desk { state: d.state.clone(), ..Desk::new(10) };
    next.tick(400);
    assert_eq!(next.state.open(), 1, "had it been seen since, that would be on record by now at the latest");
    next.tick(600);
    next.tick(601);
    assert_eq!(next.state.open(), 0);

    // One that was seen again is not over.
    d.hear(70, alert(1, "node-not-responding", 70));
    d.tick(400);
    let mut next = Desk { state: d.state.clone(), ..Desk::new(10) };
    for second in (600..3_000).step_by(60) {
        next.tick(second);
    }
    assert_eq!(next.state.open(), 1);
}

/// A person was asked about a fault without a playbook; a stronger one that joins is judged anew, a weaker one is not, and
/// nothing is taken out of the hands of a person after a run.
#[test]
fn a_stronger_fault_is_judged_anew_where_nothing_was_tried() {
    let with_person =
        |d: &Desk| matches!(d.state.incidents().next().unwrap().phase, Phase::WithPerson { .. });
    let person = |d: &mut Desk, second: i64| {
        let incident = d.only();
        d.write(second, FleetEvent::WithPerson { incident, why: "no playbook".into() });
    };
    let mut d = Desk::new(10);
    d.hear(0, alert(1, "node-not-responding", 0));
    person(&mut d, 1);
    d.hear(2, alert(1, "gpu-contained-error", 2));
    assert!(with_person(&d));
    d.hear(3, alert(1, "gpu-ecc-uncorrectable", 3));
    assert!(d.state.incidents().next().unwrap().is_queued());
    let incident = d.only();
    d.write(4, FleetEvent::Planned { incident, run: RunId::new("r1").unwrap() });
    person(&mut d, 5);
    d.hear(6, alert(1, "gpu-off-bus", 6));
    assert!(with_person(&d));
}

/// A strong fault of long ago, or of a wrong clock, does not join what is open now either.
#[test]
fn a_stale_alert_joins_nothing() {
    let mut d = Desk::new(10);
    d.hear(100_000, alert(1, "gpu-ecc-uncorrectable", 100_000));
    assert_eq!(d.hear(100_001, alert(1, "gpu-off-bus", 10)), Heard::Not(NotHeard::Stale));
    assert_eq!(d.hear(100_001, alert(1, "gpu-off-bus", 200_000)), Heard::Not(NotHeard::Skewed));
    assert_eq!(d.state.incidents().next().unwrap().alerts.len(), 1);
    assert!(matches!(d.hear(100_002, alert(1, "gpu-off-bus", 100_000)), Heard::New(_)));
}
