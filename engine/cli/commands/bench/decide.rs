//! How long an alert waits for its decision while alerts come at a steady rate: opened, joined or counted, breakers
//! judged, and on record with a synced journal.

use super::Figure;
use crate::exit::CliError;
use engine_core::incident::{Alert, Fingerprint, IntakeRules, Place, Shape, StormRules};
use engine_core::model::NodeName;
use engine_runtime::fleet::{FleetLog, Intake};
use engine_runtime::journal::{OpenMode, SqliteJournal};
use engine_runtime::system::SystemClock;
use jiff::Timestamp;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Nodes of the fleet.
const NODES: usize = 10_000;
/// Alerts per second.
const RATE: u32 = 1_000;
/// One alert in so many is the first of its node; the others are seen again.
const NEW_EVERY: usize = 10;

/// Measures for `seconds` seconds.
pub(super) fn measure(dir: &Path, seconds: u32, figures: &mut Vec<Figure>) -> Result<(), CliError> {
    let path = dir.join(format!(".slurmedic-bench-decide-{}.db", std::process::id()));
    let result = super::super::wait(run(&path, seconds, figures));
    super::remove_database(&path);
    result
}

async fn run(path: &Path, seconds: u32, figures: &mut Vec<Figure>) -> Result<(), CliError> {
    let (intake, nodes) = sample_intake(path).await?;
    let count = (seconds * RATE) as usize;
    let mut work = tokio::task::JoinSet::new();
    let began = Instant::now();
    for i in 0..count {
        // Open loop: the next alert comes at its time, whether the last one was answered or not.
        let due = began + Duration::from_secs(1) / RATE * u32::try_from(i).unwrap_or(u32::MAX);
        tokio::time::sleep_until(due.into()).await;
        let node = nodes.get(i / NEW_EVERY % NODES).cloned().unwrap_or_else(|| nodes[0].clone());
        let alert = alert(node)?;
        let intake = Arc::clone(&intake);
        work.spawn(async move {
            let taken = intake.take(vec![alert]).await.map(drop);
            taken.map(|()| due.elapsed())
        });
    }
    let mut waited = Vec::with_capacity(count);
    while let Some(done) = work.join_next().await {
        let done = done.map_err(|e| CliError::caused("the measurement", e))?;
        let latency = done.map_err(|e| CliError::caused("the intake", e))?;
        waited.push(latency.as_secs_f64() * 1e3);
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    waited.sort_by(f64::total_cmp);
    let at = |share: f64| waited.get(((waited.len() - 1) as f64 * share) as usize).copied().unwrap_or(0.0);
    for (what, share) in [("p50", 0.5), ("p99", 0.99)] {
        figures.push(Figure {
            what: format!("alert to durable decision at {rate:.0}/s, {what}"),
            unit: "ms",
            median: at(share),
            min: at(0.0),
            max: at(1.0),
            rounds: count,
        });
    }
    Ok(())
}

/// Opens an intake for a large fleet on a journal at this path.
pub(super) async fn sample_intake(path: &Path) -> Result<(Arc<Intake>, Vec<NodeName>), CliError> {
    let journal = Arc::new(SqliteJournal::open(path, OpenMode::ReadWrite)?);
    let log = Arc::new(FleetLog::open(journal, Arc::new(SystemClock)).await?);
    // Nothing is to trip: it is about the ordinary day.
    let storm = StormRules { least_nodes: usize::MAX, ..StormRules::default() };
    let intake = Arc::new(Intake::new(log, IntakeRules::default(), storm));
    let nodes: Vec<NodeName> = (1..=NODES)
        .map(|i| NodeName::new(&format!("gpu{i:05}")).map_err(|e| CliError::caused("a name", e)))
        .collect::<Result<_, _>>()?;
    let place = Place { partitions: vec!["main".to_owned()], rack: None };
    intake.set_shape(Arc::new(Shape::new(nodes.iter().map(|n| (n.clone(), place.clone())))));
    Ok((intake, nodes))
}

pub(super) fn alert(node: NodeName) -> Result<Alert, CliError> {
    let fingerprint = Fingerprint::new(&format!("gpu-ecc-uncorrectable/{node}"));
    Ok(Alert {
        source: "bench".to_owned(),
        fingerprint: fingerprint.map_err(|e| CliError::caused("a fingerprint", e))?,
        fault: "gpu-ecc-uncorrectable".to_owned(),
        node,
        gpu: Some("0".to_owned()),
        firing: true,
        seen_at: Timestamp::now(),
        summary: String::new(),
    })
}
