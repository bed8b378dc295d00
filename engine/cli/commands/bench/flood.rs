//! How long the alert of another node waits while one exporter repeats itself: hundreds of thousands of identical alerts
//! in large posts, into a synced journal.

use super::decide::{alert, sample_intake};
use super::{Figure, add};
use crate::exit::CliError;
use engine_runtime::fleet::Intake;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Identical alerts in all.
const ALERTS: usize = 800_000;
/// Who posts them at the same time, and how many in each post.
const POSTERS: usize = 16;
const POST: usize = 500;
/// Alerts of other nodes that come meanwhile.
const OTHERS: usize = 100;

/// Measures one flood.
pub(super) fn measure(dir: &Path, figures: &mut Vec<Figure>) -> Result<(), CliError> {
    let path = dir.join(format!(".slurmedic-bench-flood-{}.db", std::process::id()));
    let result = super::super::wait(run(&path));
    super::remove_database(&path);
    let (waited, rate, ahead) = result?;
    add(figures, format!("alert of another node amid {ALERTS} repeats"), "ms", waited);
    add(figures, "  repeats counted meanwhile", "/s", vec![rate]);
    add(figures, "  most alerts between a post and its answer", "alerts", vec![ahead]);
    Ok(())
}

async fn run(path: &Path) -> Result<(Vec<f64>, f64, f64), CliError> {
    let (intake, nodes) = sample_intake(path).await?;
    let name = |i: usize| nodes.get(i).cloned().ok_or_else(|| CliError::failed("too few sample nodes"));
    let loud = alert(name(0)?)?;
    let mut posters = tokio::task::JoinSet::new();
    let began = Instant::now();
    for _ in 0..POSTERS {
        let (intake, loud): (Arc<Intake>, _) = (Arc::clone(&intake), loud.clone());
        posters.spawn(async move {
            for _ in 0..ALERTS / POSTERS / POST {
                intake.take(vec![loud.clone(); POST]).await.map(drop)?;
            }
            Ok::<(), engine_runtime::fleet::IntakeError>(())
        });
    }
    let mut waited = Vec::with_capacity(OTHERS);
    for i in 1..=OTHERS {
        let due = (ALERTS / (OTHERS + 1) * i) as u64;
        while intake.counts().taken < due && !posters.is_empty() {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        let start = Instant::now();
        intake.take(vec![alert(name(i)?)?]).await.map_err(|e| CliError::caused("the intake", e))?;
        waited.push(start.elapsed().as_secs_f64() * 1e3);
    }
    while let Some(done) = posters.join_next().await {
        done.map_err(|e| CliError::caused("the measurement", e))?
            .map_err(|e| CliError::caused("the intake", e))?;
    }
    let rate = ALERTS as f64 / began.elapsed().as_secs_f64();
    Ok((waited, rate, intake.counts().most_ahead as f64))
}
