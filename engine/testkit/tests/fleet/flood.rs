//! Eight hundred thousand identical alerts on the real clock, into a journal on disk, while other incidents come: one
//! incident, a few records, a bounded queue, and a bounded number of alerts ahead of anybody else's.

use engine_core::incident::{Alert, Fingerprint, FleetEvent, Heard, IntakeRules, Place, Shape, StormRules};
use engine_core::model::NodeName;
use engine_runtime::fleet::{FleetLog, Intake, MAX_WAITING};
use engine_runtime::journal::{OpenMode, SqliteJournal};
use engine_runtime::system::SystemClock;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ALERTS: usize = 800_000;
/// Who floods at the same time, and with how many alerts in each post.
const POSTERS: usize = 16;
const POST: usize = 500;
/// Incidents of other nodes that come meanwhile.
const OTHERS: usize = 40;

fn alert(node: usize) -> Alert {
    let node = NodeName::new(&format!("gpu{node:04}")).unwrap();
    Alert {
        source: "test".to_owned(),
        fingerprint: Fingerprint::new(&format!("xid79/{node}")).unwrap(),
        fault: "gpu-off-bus".to_owned(),
        node,
        gpu: Some("3".to_owned()),
        firing: true,
        seen_at: Timestamp::now(),
        summary: "the GPU has fallen off the bus".to_owned(),
    }
}

async fn intake(dir: &std::path::Path) -> (Arc<Intake>, Arc<FleetLog>) {
    let journal = Arc::new(SqliteJournal::open(&dir.join("journal.db"), OpenMode::ReadWrite).unwrap());
    let log = Arc::new(FleetLog::open(journal, Arc::new(SystemClock)).await.unwrap());
    let intake = Arc::new(Intake::new(Arc::clone(&log), IntakeRules::default(), StormRules::default()));
    let place = Place { partitions: vec!["main".to_owned()], rack: None };
    intake.set_shape(Arc::new(Shape::new((0..1_000).map(|n| (alert(n).node, place.clone())))));
    (intake, log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_alert_holds_nobody_else_up() {
    let dir = tempfile::tempdir().unwrap();
    let (intake, log) = intake(dir.path()).await;
    let mut posters = tokio::task::JoinSet::new();
    for _ in 0..POSTERS {
        let intake = Arc::clone(&intake);
        posters.spawn(async move {
            for _ in 0..ALERTS / POSTERS / POST {
                let heard = intake.take(vec![alert(0); POST]).await.unwrap();
                assert_eq!(heard.len(), POST);
            }
        });
    }
    // The others come spread over the flood, each when so many of its alerts are in.
    let mut waited = Vec::new();
    for n in 1..=OTHERS {
        let due = (ALERTS / (OTHERS + 1) * n) as u64;
        while intake.counts().taken < due {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        let began = Instant::now();
        let heard = intake.take(vec![alert(n)]).await.unwrap();
        assert!(matches!(heard.as_slice(), [Heard::New(_)]), "{heard:?}");
        waited.push(began.elapsed());
    }
    while let Some(done) = posters.join_next().await {
        done.unwrap();
    }
    intake.tick().await.unwrap();
    let counts = intake.counts();
    waited.sort();
    println!(
        "other incidents among {ALERTS} identical alerts: {:?} in the middle, {:?} at worst, at most {} alerts ahead",
        waited[OTHERS / 2],
        waited[OTHERS - 1],
        counts.most_ahead
    );
    assert_eq!(counts.taken, (ALERTS + OTHERS) as u64);
    assert_eq!((counts.waiting, counts.series), (0, 1), "one series is counted, nothing waits any more");
    // Everybody who floods has one post in the queue and one in the write before it.
    let flood = POSTERS * POST;
    assert!(counts.most_waiting <= flood + 1 && flood < MAX_WAITING, "{} waited", counts.most_waiting);
    assert!(counts.most_ahead <= 2 * (flood as u64 + 1), "{} ahead", counts.most_ahead);
    let history = log.history(10_000).await.unwrap();
    let opened = |e: &FleetEvent| e.word() == "opened";
    assert_eq!(history.iter().filter(|(_, _, e)| opened(e)).count(), 1 + OTHERS);
    assert!(history.len() < OTHERS + 20, "{} records of {ALERTS} alerts", history.len());
    assert_eq!(log.read(|f| f.incidents().filter(|i| i.node().is_some()).count()).await, 1 + OTHERS);
}
