//! `[watch]`: faults that the engine finds by looking, with every hook off.

use crate::exit::CliError;
use crate::fleet::Fleet;
use crate::prometheus::PrometheusConfig;
use engine_core::incident::Alert;
use engine_core::value::parse_duration;
use engine_core::watch::{Reasons, SlurmRules, gpu};
use engine_runtime::engine::Engine;
use engine_runtime::fleet::Watch;
use engine_runtime::ports::{Clock, GpuTelemetry};
use engine_server::{Happening, Server, feed};
use jiff::SignedDuration;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// Faults that the engine finds by looking.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WatchConfig {
    /// Whether the states and reasons of Slurm's nodes open incidents.
    pub(crate) slurm: bool,
    /// Time between two reads of the whole cluster.
    interval: String,
    /// Whether the exporters of the nodes are asked.
    pub(crate) gpus: Gpus,
    /// Time between two rounds over the exporters.
    gpu_interval: String,
    /// How long slurmd may be silent.
    silent: String,
    /// How long an unexpected boot stays a fault.
    booted: String,
    /// Prometheus servers that are asked by rules.
    pub(crate) prometheus: Vec<PrometheusConfig>,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            slurm: true,
            interval: "60s".to_owned(),
            gpus: Gpus::Auto,
            gpu_interval: "60s".to_owned(),
            silent: "3m".to_owned(),
            booted: "15m".to_owned(),
            prometheus: Vec::new(),
        }
    }
}

/// Whether the exporters of the nodes are asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Gpus {
    /// Where `exporter.url` is set.
    #[default]
    Auto,
    /// Yes; on the simulated cluster its own exporters.
    On,
    /// No.
    Off,
}

/// The times of the watch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watching {
    /// Time between two reads of the whole cluster.
    pub(crate) interval: Duration,
    /// Time between two rounds over the exporters.
    pub(crate) gpu_interval: SignedDuration,
    /// Limits of the rules.
    pub(crate) rules: SlurmRules,
}

impl WatchConfig {
    /// Lowers the times; every wrong one is named at once.
    pub(crate) fn lower(&self) -> Result<Watching, CliError> {
        let mut wrong = Vec::new();
        let mut time = |key: &str, text: &str, (least, most): (i64, i64)| {
            let (least, most) = (SignedDuration::from_secs(least), SignedDuration::from_secs(most));
            match parse_duration(text) {
                Ok(d) if (least..=most).contains(&d) => d,
                Ok(_) => {
                    wrong.push(format!("watch.{key} = {text:?} is not between {least:#} and {most:#}"));
                    least
                }
                Err(e) => {
                    wrong.push(format!("watch.{key}: {e}"));
                    least
                }
            }
        };
        let interval = time("interval", &self.interval, (1, 3_600));
        let gpu_interval = time("gpu_interval", &self.gpu_interval, (1, 3_600));
        let rules = SlurmRules {
            silent: time("silent", &self.silent, (1, 86_400)),
            booted: time("booted", &self.booted, (60, 86_400)),
            gap: (interval * 3).max(SlurmRules::default().gap),
        };
        if !wrong.is_empty() {
            return Err(CliError::usage(wrong.join("; ")));
        }
        crate::prometheus::lower(&self.prometheus)?;
        Ok(Watching { interval: interval.unsigned_abs(), gpu_interval, rules })
    }

    /// Builds the watch, unless all of it is off.
    pub(crate) fn build(
        &self,
        fleet: &Fleet,
        clock: Arc<dyn Clock>,
        reasons: Reasons,
    ) -> Result<Option<Watch>, CliError> {
        if !self.slurm && self.gpus == Gpus::Off && self.prometheus.is_empty() {
            return Ok(None);
        }
        Ok(Some(Watch::new(Arc::clone(&fleet.log), clock, reasons, self.lower()?.rules, self.slurm)))
    }

    /// Says which exporters are asked, if any.
    pub(crate) fn telemetry(
        &self,
        url: Option<&str>,
        port: Option<&Arc<dyn GpuTelemetry>>,
    ) -> Result<Option<Arc<dyn GpuTelemetry>>, CliError> {
        match (self.gpus, port) {
            (Gpus::Off, _) => Ok(None),
            (Gpus::Auto, _) if url.is_none() => Ok(None),
            (Gpus::On, None) => Err(CliError::usage("watch.gpus is \"on\" and exporter.url is not set")
                .with_hint("set exporter.url to http://{node}:9400/metrics")),
            (_, port) => Ok(port.cloned()),
        }
    }
}

/// Asks the exporters round by round, for as long as the process serves. The rounds are not of one length, so that many
/// engines, and whatever else comes every minute, do not meet.
pub(crate) async fn ask_exporters(
    fleet: Fleet,
    server: Arc<Server>,
    watch: Arc<Watch>,
    telemetry: Arc<dyn GpuTelemetry>,
    interval: SignedDuration,
) {
    let whole = interval.unsigned_abs();
    loop {
        let begun = tokio::time::Instant::now();
        let round = watch.exporters(&telemetry, interval / 2).await;
        let parts = server.parts();
        for (node, why) in round.fell_silent {
            parts.telemetry.tell(&Happening::ExporterSilent { node: node.to_string(), why });
        }
        for node in round.came_back {
            parts.telemetry.tell(&Happening::ExporterBack { node: node.to_string() });
        }
        if let Err(error) = fleet.intake.tools("exporter", &round.exporters).await {
            tracing::warn!(%error, "silent exporters have no incident yet; the next round tries again");
        }
        let (asked, answered, silent) = (round.asked, round.answered, round.silent);
        parts.telemetry.tell(&Happening::ExportersRead { asked, answered, silent });
        if answered > 0 {
            parts.health.exporters_answered();
        }
        hand_over(&fleet, &server, gpu::SOURCE, round.alerts).await;
        let jitter = whole / 10 * (jiff::Timestamp::now().subsec_nanosecond().unsigned_abs() % 10) / 10;
        tokio::time::sleep(whole.saturating_sub(begun.elapsed()).max(whole / 10) + jitter).await;
    }
}

/// The most nodes that are looked at at the same time because somebody told of them.
const LOOKS: usize = 8;

/// Looks at nodes that alerts told of without saying why - a trigger of slurmctld, Slurm's own reasons - for as long as the
/// process serves. What their GPUs show joins their incidents.
pub(crate) async fn look_at_nodes(fleet: Fleet, server: Arc<Server>, watch: Arc<Watch>, engine: Engine) {
    let places = Arc::new(tokio::sync::Semaphore::new(LOOKS));
    loop {
        // Nobody closes it.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let wake = fleet.intake.wakes().next().await;
        let (fleet, server) = (fleet.clone(), Arc::clone(&server));
        let (watch, engine) = (Arc::clone(&watch), engine.clone());
        tokio::spawn(async move {
            let telemetry = &server.parts().telemetry;
            let node = wake.node.to_string();
            match watch.single(&wake.node, engine.eyes()).await {
                None => {}
                Some(Err(why)) => telemetry.tell(&Happening::NodeNotLooked { node, why: why.to_string() }),
                Some(Ok(alerts)) => {
                    telemetry.tell(&Happening::NodeLooked { node, alerts: alerts.len() });
                    hand_over(&fleet, &server, gpu::LOOK, alerts).await;
                }
            }
            if wake.over
                && let Err(error) = fleet.intake.judge_anew(&wake.node, "the node is back: judged anew").await
            {
                tracing::warn!(node = %wake.node, %error, "its incident stays as it was judged");
            }
            drop(place);
        });
    }
}

/// Hands alerts of the watch to the intake, and tells what became of them. What was not taken is told again by the next
/// look.
pub(crate) async fn hand_over(fleet: &Fleet, server: &Server, source: &str, alerts: Vec<Alert>) {
    if alerts.is_empty() {
        return;
    }
    let source = source.to_owned();
    let happening = match feed(&fleet.intake, alerts.into_iter().map(Ok).collect()).await {
        Ok(done) => Happening::Heard { source, by_word: done.by_word, first_refused: done.first_refused },
        Err(problem) => Happening::NotHeard { source, why: problem.error },
    };
    server.parts().telemetry.tell(&happening);
}
