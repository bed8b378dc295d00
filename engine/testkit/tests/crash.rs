//! Every embedded playbook, with one thing going wrong at every point where it can: the engine dies at every write to its
//! journal, every call of a port fails in every way, everything arrives twice, and somebody else changes the node between
//! any two events. Whatever happens, the rules hold and every run ends.
#![expect(clippy::panic, reason = "helpers of tests may stop at once, as tests do")]
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop at once, as tests do")]

use engine_core::playbook::Playbook;
use engine_core::run::End;
use engine_playbook::Library;
use engine_runtime::journal::CrashPoint;
use engine_testkit::harness::{Foreign, Scene, Twist, Verdict};
use jiff::SignedDuration;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const POINTS: [CrashPoint; 2] = [CrashPoint::Before, CrashPoint::After];
/// Findings that are told whole; the others are counted.
const TOLD: usize = 3;

fn play(scene: &Scene, twist: &Twist) -> Verdict {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(scene.play(twist)).unwrap_or_else(|e| panic!("{twist}: {e}"))
}

fn scenes() -> Vec<(String, Scene)> {
    let library = Library::embedded();
    let named = |p: &Playbook| {
        let name = p.reference.to_string();
        let scene = Scene::new(p).unwrap_or_else(|| {
            panic!("{name}: the simulator knows none of the faults {:?}: add one to fault_for", p.fault)
        });
        (name, scene)
    };
    library.playbooks().map(named).collect()
}

/// Lists every situation of a scene, by what goes wrong.
fn situations(plain: &Verdict) -> Vec<(&'static str, Twist)> {
    let mut all = Vec::new();
    for n in 1..=plain.appends {
        for point in POINTS {
            all.push(("one crash", Twist::Crash { first: (n, point), second: None }));
            // The engine that takes over writes at most as much again, and one event that says so.
            for m in 1..=(plain.appends - n + 3) {
                let side = POINTS[(n + m) as usize % 2];
                all.push(("two crashes", Twist::Crash { first: (n, point), second: Some((m, side)) }));
            }
        }
    }
    for (i, (kind, _)) in plain.calls.iter().enumerate() {
        let number = i as u64 + 1;
        all.extend(kind.ways().iter().map(|way| ("a call fails", Twist::Call { number, way: *way })));
    }
    for after in 1..=plain.events {
        for delay in [0, 4, 700].map(SignedDuration::from_millis) {
            let twists = Foreign::ALL.map(|change| Twist::Foreign { after, delay, change });
            all.extend(twists.into_iter().map(|t| ("a foreign change", t)));
        }
    }
    let delays = [0, 3, 40, 400, 2_000, 9_000].map(SignedDuration::from_millis);
    all.extend(delays.map(|after| ("everything twice", Twist::Twice { after })));
    all
}

#[derive(Default)]
struct Tally {
    explored: BTreeMap<&'static str, usize>,
    ends: BTreeMap<&'static str, usize>,
    races: usize,
    findings: Vec<String>,
}

fn explore(name: &str, scene: &Scene, all: &[(&'static str, Twist)]) -> Tally {
    let next = AtomicUsize::new(0);
    let tally = Mutex::new(Tally::default());
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((what, twist)) = all.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let verdict = play(scene, twist);
                    let mut tally = tally.lock().unwrap();
                    *tally.explored.entry(what).or_insert(0) += 1;
                    for end in &verdict.ends {
                        *tally.ends.entry(end.as_str()).or_insert(0) += 1;
                    }
                    tally.races += verdict.races;
                    if !verdict.wrong.is_empty() {
                        let mut text = format!("{name}: {twist}: {}", verdict.wrong.join("; "));
                        if tally.findings.len() < TOLD {
                            let story = verdict.story.join("\n    ");
                            write!(text, "\n    {story}").unwrap();
                        }
                        tally.findings.push(text);
                    }
                }
            });
        }
    });
    tally.into_inner().unwrap()
}

#[test]
fn whatever_goes_wrong_the_rules_hold() {
    let mut explored = 0;
    let mut findings = Vec::new();
    for (name, scene) in scenes() {
        let plain = play(&scene, &Twist::Nothing);
        assert!(plain.wrong.is_empty(), "{name}: {:?}\n{}", plain.wrong, plain.story.join("\n"));
        assert_eq!(plain.ends, [End::Succeeded], "{name}: {}", plain.story.join("\n"));
        let all = situations(&plain);
        let tally = explore(&name, &scene, &all);
        println!("{name}: {} appends, {} calls", plain.appends, plain.calls.len());
        println!("    explored {:?}\n    ends {:?}, races {}", tally.explored, tally.ends, tally.races);
        assert_eq!(tally.explored.values().sum::<usize>(), all.len());
        for end in [End::Succeeded, End::Held, End::HandedOver, End::Rejected, End::RolledBack] {
            assert!(tally.ends.contains_key(end.as_str()), "{name}: no situation ended {}", end.as_str());
        }
        explored += all.len();
        findings.extend(tally.findings);
    }
    println!("{explored} situations explored, {} findings", findings.len());
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn the_same_twist_gives_the_same_story() {
    let (_, scene) = scenes().pop().unwrap();
    for twist in [
        Twist::Nothing,
        Twist::Crash { first: (9, CrashPoint::After), second: Some((4, CrashPoint::Before)) },
        Twist::Foreign { after: 8, delay: SignedDuration::from_millis(4), change: Foreign::Reboot },
    ] {
        assert_eq!(play(&scene, &twist).story, play(&scene, &twist).story, "{twist}");
    }
}
