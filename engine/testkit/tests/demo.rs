//! The demonstration: every fault finds its right end, for several seeds, and the same seed tells the same story.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop at once, as tests do")]

use engine_testkit::demo::{DemoEvent, DemoObserver, DemoOptions, DemoSummary, Frame, demo};
use std::time::Duration;

#[derive(Default)]
struct Notes {
    events: Vec<DemoEvent>,
    frames: usize,
}

impl DemoObserver for Notes {
    fn on_event(&mut self, event: &DemoEvent) {
        self.events.push(event.clone());
    }

    fn on_frame(&mut self, frame: &Frame) {
        assert_eq!(frame.grid.len(), 64);
        self.frames += 1;
    }
}

async fn run(seed: u64) -> (DemoSummary, Notes) {
    let mut notes = Notes::default();
    let options = DemoOptions { seed, watch_for: Duration::ZERO, ..DemoOptions::default() };
    let summary = demo(options, &mut notes).await.unwrap();
    (summary, notes)
}

fn tell(notes: &Notes) -> String {
    let line = |e: &DemoEvent| {
        let node = e.node.as_ref().map_or("-", |n| n.as_str());
        format!("{:>6.1} {node} {:?} {} | {}", e.since_start.as_secs_f64(), e.kind, e.what, e.why)
    };
    notes.events.iter().map(line).collect::<Vec<_>>().join(
        "
",
    )
}

#[tokio::test]
async fn every_fault_finds_its_right_end() {
    for seed in 1..=3 {
        let (summary, notes) = run(seed).await;
        let shown = serde_json::to_string_pretty(&summary).unwrap();
        assert!(summary.ok, "seed {seed}: {shown}\n{}", tell(&notes));
        assert!(summary.cases.len() >= 12 && notes.frames > 50);
        assert!(summary.resets_that_cured >= 6 && summary.foreign_marks == 3);
    }
}

#[tokio::test]
async fn the_same_seed_tells_the_same_story() {
    let (a, b) = (run(9).await, run(9).await);
    assert_eq!(a.0, b.0);
    assert_eq!(a.1.events, b.1.events);
}
