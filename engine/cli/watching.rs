//! `[watch]`: faults that the engine finds by looking, with every hook off.

use crate::exit::CliError;
use crate::fleet::Fleet;
use engine_core::incident::Alert;
use engine_core::value::parse_duration;
use engine_core::watch::{SlurmRules, slurm};
use engine_runtime::fleet::Watch;
use engine_server::{Happening, Server, feed};
use jiff::SignedDuration;
use serde::Deserialize;
use std::time::Duration;

/// Faults that the engine finds by looking.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WatchConfig {
    /// Whether the states and reasons of Slurm's nodes open incidents.
    pub(crate) slurm: bool,
    /// Time between two reads of the whole cluster.
    interval: String,
    /// How long slurmd may be silent.
    silent: String,
    /// How long an unexpected boot stays a fault.
    booted: String,
}

impl Default for WatchConfig {
    fn default() -> Self {
        let (interval, silent, booted) = ("60s".to_owned(), "3m".to_owned(), "15m".to_owned());
        Self { slurm: true, interval, silent, booted }
    }
}

/// The times of the watch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watching {
    /// Time between two reads of the whole cluster.
    pub(crate) interval: Duration,
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
        let rules = SlurmRules {
            silent: time("silent", &self.silent, (1, 86_400)),
            booted: time("booted", &self.booted, (60, 86_400)),
            gap: (interval * 3).max(SlurmRules::default().gap),
        };
        if !wrong.is_empty() {
            return Err(CliError::usage(wrong.join("; ")));
        }
        Ok(Watching { interval: interval.unsigned_abs(), rules })
    }

    /// Builds the watch, unless it is off.
    pub(crate) fn build(&self, fleet: &Fleet) -> Result<Option<Watch>, CliError> {
        if !self.slurm {
            return Ok(None);
        }
        let reasons = engine_playbook::reasons::embedded().map_err(|e| CliError::caused("the watch", e))?;
        Ok(Some(Watch::new(std::sync::Arc::clone(&fleet.log), reasons, self.lower()?.rules)))
    }
}

/// Hands alerts of the watch to the intake, and tells what became of them. What was not taken is told again by the next
/// look.
pub(crate) async fn hand_over(fleet: &Fleet, server: &Server, alerts: Vec<Alert>) {
    if alerts.is_empty() {
        return;
    }
    let source = slurm::SOURCE.to_owned();
    let happening = match feed(&fleet.intake, alerts.into_iter().map(Ok).collect()).await {
        Ok(done) => Happening::Heard { source, by_word: done.by_word, first_refused: done.first_refused },
        Err(problem) => Happening::NotHeard { source, why: problem.error },
    };
    server.parts().telemetry.tell(&happening);
}
