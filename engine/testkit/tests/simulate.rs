//! The simulation at scale, in small: no rule is broken, the same seed tells the same story, and what is broken on
//! purpose is found, shrunk to one incident, and shown again.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop at once, as tests do")]

use engine_testkit::mutants::Mutant;
use engine_testkit::simulate::{Part, Progress, Report, SimulateOptions, shrink, simulate_many};

fn small(seed: u64) -> SimulateOptions {
    SimulateOptions { nodes: 60, hours: 300, seed, rate: 400.0, ..SimulateOptions::default() }
}

fn run(options: &SimulateOptions, runs: u64, jobs: usize) -> Report {
    simulate_many(options, runs, jobs, &Progress::default()).unwrap()
}

/// Seeds from the environment, to replay one: `SIMULATE_SEED=7`.
fn first_seed() -> (u64, u64) {
    match std::env::var("SIMULATE_SEED") {
        Ok(seed) => (seed.parse().unwrap(), 1),
        Err(_) => (1, 2),
    }
}

#[test]
fn no_rule_is_broken_in_a_month_of_faults_and_people() {
    let (seed, runs) = first_seed();
    let report = run(&small(seed), runs, 2);
    let shown = serde_json::to_string_pretty(&report).unwrap();
    println!("{} runs, {:.0} per second and thread", report.runs, report.runs_per_thread_second());
    assert!(report.is_clean(), "{shown}");
    for end in ["succeeded", "held", "rejected", "handed_over", "cancelled"] {
        assert!(report.ends.get(end).is_some_and(|n| *n >= 3), "too tame, few ended {end}: {shown}");
    }
    assert!(report.died_in_write > 3 && report.died_between > 3, "{shown}");
    assert!(report.world.cures > 20 && report.world.jobs_finished > 20, "{shown}");
}

#[test]
fn the_same_seed_tells_the_same_story_on_any_number_of_threads() {
    let tell = |jobs| {
        let report =
            Report { thread_seconds: 0.0, ..run(&SimulateOptions { hours: 60, ..small(5) }, 3, jobs) };
        serde_json::to_string(&report).unwrap()
    };
    assert_eq!(tell(1), tell(3));
}

#[test]
fn what_is_broken_on_purpose_is_found_and_shrunk_to_one_incident() {
    // An engine that is shown an old reason as a fresh one overrules people: rule 4.
    let options = SimulateOptions { mutant: Some(Mutant::CachesReasons), part: Part::Engines, ..small(3) };
    let report = run(&options, 1, 1);
    let found = report.found.iter().find(|f| f.violation.rule == 4).expect("nobody noticed");
    let trace = shrink(&options, found).unwrap().expect("it did not show itself again");
    let only = trace.options.only.expect("it was not narrowed down");
    assert!(only.incident.is_some(), "{:?}", trace.options);
    assert_eq!((trace.violation.rule, &trace.violation.node), (4, &found.violation.node));
    assert!(trace.history.iter().any(|e| e.what.contains("BREAKS RULE 4")), "{:?}", trace.history);
    assert!(trace.journal.iter().any(|line| line.contains("intent")), "{:?}", trace.journal);
    // The part alone shows it again, and no other way of running it hides it.
    assert_eq!(run(&trace.options, 1, 1).found.first().map(|f| f.violation.rule), Some(4));
}

/// The whole fleet layer before the engines: what it is there for is met, and nothing is broken.
#[test]
fn no_rule_is_broken_with_budgets_breakers_stops_and_new_policies() {
    let (seed, runs) = first_seed();
    let options = SimulateOptions { part: Part::Fleet, ..small(seed) };
    let report = run(&options, runs, 2);
    let shown = serde_json::to_string_pretty(&report).unwrap();
    assert!(report.is_clean(), "{shown}");
    if runs == 1 {
        // One seed that is played again need not show everything.
        return;
    }
    let f = &report.fleet;
    assert!(f.runs > 40 && f.waits > 20 && f.budgets.taken > 30, "too tame: {shown}");
    assert!(f.budgets.to_the_limit > 10, "no budget was ever full: {shown}");
    assert!(f.trips > 1 && f.stops > 1 && f.releases > 2 && f.policies > 2, "too tame: {shown}");
}

#[test]
fn a_site_is_shrunk_to_the_fewest_things_that_show_a_finding() {
    let options =
        SimulateOptions { part: Part::Fleet, mutant: Some(Mutant::AdmitsAll), hours: 12, ..small(1) };
    let report = run(&options, 1, 1);
    let found = report.found.iter().find(|f| f.violation.rule == 10).expect("nobody noticed");
    let trace = shrink(&options, found).unwrap().expect("it did not show itself again");
    let items = trace.options.items.clone().unwrap();
    assert!((1..=6).contains(&items.len()), "{items:?}");
    assert_eq!(run(&trace.options, 1, 1).found.first().map(|f| f.violation.rule), Some(10));
}
