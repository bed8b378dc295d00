//! `serve`: works off incidents until it is told to stop.

use super::Global;
use super::run::Live;
use crate::exit::{CliError, Exit};
use crate::printer::{Printer, Tone, paint, tame};
use crate::site::{Access, open};
use engine_core::diag::Severity;
use engine_playbook::render::one_line;
use engine_runtime::fleet::DispatcherConfig;
use jiff::SignedDuration;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How it serves.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Runs that are carried out side by side, at most; the policy may allow fewer.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// Seconds between two rounds over incidents and runs.
    #[arg(long, default_value_t = 2, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=300))]
    round: u16,
    /// End as soon as nothing is left to do.
    #[arg(long)]
    until_idle: bool,
}

/// Time between two reads of which nodes there are.
const LOOK: Duration = Duration::from_secs(60);
/// How long runs that are under way may go on after the signal to stop. What is left then is picked up by the next
/// start, as after a crash.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `serve`.
pub(crate) async fn run(args: &ServeArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let mut term = signal(SignalKind::terminate()).map_err(|e| CliError::caused("signals", e))?;
    let mut int = signal(SignalKind::interrupt()).map_err(|e| CliError::caused("signals", e))?;
    let site =
        open(global, printer, Access::Change, None).await?.watched(Arc::new(Live::of_many(printer.format)));
    let (site, fleet) = site.gated().await?;
    let nodes = fleet.look().await?;
    let config = DispatcherConfig {
        round: SignedDuration::from_secs(args.round.into()),
        workers: args.workers.into(),
        ..DispatcherConfig::default()
    };
    // What an engine chooses by itself was played in every situation first.
    let library = site.library().proven();
    for item in library.broken() {
        let error = item.loaded.diagnostics.iter().find(|d| d.severity == Severity::Error);
        let why = error.map_or_else(String::new, |d| one_line(d, &item.loaded.source));
        printer.say(format!("{} not used: {}", paint(Tone::Warn, "warning:"), tame(&why)));
    }
    let dispatcher = fleet.dispatcher(site.engine.clone(), &library, config);
    let open = fleet.log.read(engine_core::incident::FleetState::open).await;
    printer.say(format!("serving {nodes} nodes; {open} incidents are open; ctrl-c stops"));
    let mut working = tokio::spawn({
        let dispatcher = dispatcher.clone();
        async move { dispatcher.run().await }
    });
    let mut look = tokio::time::interval_at(tokio::time::Instant::now() + LOOK, LOOK);
    let mut idle = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            ended = &mut working => {
                ended.map_err(|e| CliError::caused("the dispatcher", e))??;
                return Ok(Exit::Ok);
            }
            _ = look.tick() => {
                // The nodes that were known stay known.
                if let Err(e) = fleet.look().await {
                    tracing::warn!("{e}");
                }
            }
            _ = idle.tick(), if args.until_idle => {
                let busy = fleet.log.read(|f| f.incidents().any(|i| i.node().is_some() && !is_settled(i))).await;
                if !busy && dispatcher.is_idle() {
                    break;
                }
            }
        }
    }
    printer.say("stopping: nothing more is begun");
    dispatcher.stop();
    let until = tokio::time::Instant::now() + PATIENCE;
    while !dispatcher.is_idle() && tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if !dispatcher.is_idle() {
        printer.say("runs are under way: the next start goes on with them");
    }
    Ok(Exit::Ok)
}

fn is_settled(incident: &engine_core::incident::Incident) -> bool {
    matches!(incident.phase, engine_core::incident::Phase::WithPerson { .. })
}
