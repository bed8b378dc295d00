//! `serve`: the daemon. Works off incidents, answers people and programs, until it is told to stop.

use super::Global;
use super::run::Live;
use crate::daemon::{Daemon, look};
use crate::exit::{CliError, Exit};
use crate::printer::{Printer, Tone, paint, tame};
use crate::site::{Access, Site, open};
use engine_core::diag::Severity;
use engine_playbook::render::one_line;
use engine_runtime::engine::Observer;
use engine_runtime::fleet::{Dispatcher, DispatcherConfig, FleetError};
use engine_server::{Happening, Notifier, RunWatch, Telemetry};
use jiff::SignedDuration;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

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
    /// Form of the log on stderr: `text` for people, `json` for a log collector, one object on each line.
    #[arg(long, value_enum, default_value_t = LogForm::Text)]
    pub(crate) log: LogForm,
}

/// Forms of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogForm {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Time between two signs of life where no service manager asks for them.
const SIGN: Duration = Duration::from_secs(60);
/// How long runs that are under way may go on after the signal to stop. What is left then is picked up by the next
/// start, as after a crash.
const PATIENCE: Duration = Duration::from_secs(20);
/// Rounds that may fail in a row, because the journal cannot be read or written, before the engine gives up.
const FAILURES: u32 = 60;

struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    fn new() -> Result<Self, CliError> {
        let of = |kind| signal(kind).map_err(|e| CliError::caused("signals", e));
        Ok(Self {
            term: of(SignalKind::terminate())?,
            int: of(SignalKind::interrupt())?,
            hup: of(SignalKind::hangup())?,
        })
    }
}

/// Runs `serve`.
pub(crate) async fn run(args: &ServeArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let mut signals = Signals::new()?;
    let telemetry = Telemetry::default();
    let mut site = open(global, printer, Access::Change, None)
        .await?
        .watched(Arc::new(RunWatch::new(telemetry.clone())) as Arc<dyn Observer>);
    if args.log == LogForm::Text {
        site = site.watched(Arc::new(Live::of_many(printer.format)));
    }
    let (site, fleet) = site.gated().await?;
    // What an engine chooses by itself was played in every situation first.
    let library = site.library().proven();
    for item in library.broken() {
        let error = item.loaded.diagnostics.iter().find(|d| d.severity == Severity::Error);
        let why = error.map_or_else(String::new, |d| one_line(d, &item.loaded.source));
        printer.say(format!("{} not used: {}", paint(Tone::Warn, "warning:"), tame(&why)));
    }
    let round = SignedDuration::from_secs(args.round.into());
    let mut daemon = Daemon::new(global, &site, fleet, &library, telemetry, round)?;
    let nodes = look(&daemon.fleet, daemon.watch.as_deref(), &daemon.server).await?;
    let config = DispatcherConfig { round, workers: args.workers.into(), ..DispatcherConfig::default() };
    let dispatcher =
        daemon.fleet.dispatcher(daemon.engine().clone(), Arc::clone(&daemon.playbooks) as _, config);
    let (faces, left_out) = daemon.bind(site.slurm.is_none()).await?;
    for why in left_out {
        printer.say(format!("{} {}; people reach the journal only", paint(Tone::Warn, "note:"), tame(&why)));
    }
    let at: Vec<String> = faces.iter().map(engine_server::Bound::place).collect();
    let open = daemon.fleet.log.read(engine_core::incident::FleetState::open).await;
    printer.say(format!("serving {nodes} nodes; {open} incidents are open; ctrl-c stops"));
    for place in &at {
        printer.say(format!("  answers at {}", tame(place)));
    }
    daemon.start_watching()?;
    let (stop, stopped) = watch::channel(false);
    let answering = tokio::spawn({
        let server = Arc::clone(&daemon.server);
        async move { engine_server::serve(&server, faces, stopped).await }
    });
    let stopping = Arc::new(AtomicBool::new(false));
    let working = tokio::spawn(turn(dispatcher.clone(), daemon.server.clone(), round, Arc::clone(&stopping)));
    let notifier = Notifier::new();
    notifier.ready(&format!("serving {nodes} nodes"));
    let ended = wait(args, &mut daemon, &site, &dispatcher, working, &mut signals, &notifier, printer).await;
    daemon.server.parts().telemetry.tell(&Happening::Stopping { why: "it was told to" });
    notifier.stopping(PATIENCE + Duration::from_secs(10));
    if ended.is_ok() {
        printer.say("stopping: nothing more is begun");
    }
    stopping.store(true, Ordering::SeqCst);
    dispatcher.stop();
    daemon.gate.park();
    let until = tokio::time::Instant::now() + PATIENCE;
    while ended.is_ok() && !dispatcher.is_idle() && tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if ended.is_ok() && !dispatcher.is_idle() {
        printer.say("runs are under way: the next start goes on with them");
    }
    // A receiver that is gone has stopped already.
    let _ = stop.send(true);
    let _ = answering.await;
    ended
}

/// Turns the dispatcher round by round; each round that came to its end is a sign of life.
async fn turn(
    dispatcher: Dispatcher,
    server: Arc<engine_server::Server>,
    round: SignedDuration,
    stopping: Arc<AtomicBool>,
) -> Result<(), FleetError> {
    let (mut turns, mut failed) = (0_u64, 0_u32);
    while !stopping.load(Ordering::SeqCst) {
        match dispatcher.round().await {
            Ok(()) => {
                failed = 0;
                turns += 1;
                server.parts().health.turned(turns);
            }
            Err(error) => {
                failed += 1;
                if failed >= FAILURES {
                    return Err(error);
                }
                tracing::warn!(%error, failed, "a round failed; it is tried again");
            }
        }
        server.parts().desk.engine().ports.clock.sleep(round).await;
    }
    Ok(())
}

/// Waits for a signal, and does what time asks for.
#[expect(clippy::too_many_arguments, reason = "the daemon's whole state, in one loop")]
async fn wait(
    args: &ServeArgs,
    daemon: &mut Daemon,
    site: &Site,
    dispatcher: &Dispatcher,
    mut working: tokio::task::JoinHandle<Result<(), FleetError>>,
    signals: &mut Signals,
    notifier: &Notifier,
    printer: &mut Printer,
) -> Result<Exit, CliError> {
    let mut due = tokio::time::interval_at(tokio::time::Instant::now() + daemon.interval, daemon.interval);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut looking: Option<tokio::task::JoinHandle<()>> = None;
    let mut idle = tokio::time::interval(Duration::from_secs(1));
    let mut alive =
        tokio::time::interval(notifier.interval().unwrap_or(SIGN).max(Duration::from_millis(100)));
    loop {
        tokio::select! {
            _ = signals.term.recv() => return Ok(Exit::Ok),
            _ = signals.int.recv() => return Ok(Exit::Ok),
            _ = signals.hup.recv() => reload(daemon, site, notifier, printer).await,
            ended = &mut working => {
                ended.map_err(|e| CliError::caused("the dispatcher", e))??;
                return Ok(Exit::Ok);
            }
            // A look that still goes on is not overtaken; the tick is asked for all the same, or nothing wakes this loop.
            _ = due.tick() => if looking.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
                // Beside the loop: a slow slurmctld must not keep a signal waiting.
                let (fleet, server) = (daemon.fleet.clone(), Arc::clone(&daemon.server));
                let watch = daemon.watch.clone();
                looking = Some(tokio::spawn(async move {
                    // The nodes that were known stay known, and the log has why.
                    let _ = look(&fleet, watch.as_deref(), &server).await;
                }));
            },
            _ = alive.tick() => {
                // Only a loop that really turns is alive.
                if daemon.server.parts().health.turns() {
                    notifier.alive();
                }
            }
            _ = idle.tick(), if args.until_idle => {
                let busy = daemon
                    .fleet
                    .log
                    .read(|f| f.incidents().any(|i| i.node().is_some() && !is_settled(i)))
                    .await;
                if !busy && dispatcher.is_idle() {
                    return Ok(Exit::Ok);
                }
            }
        }
    }
}

/// Reads the configuration anew; on any mistake the last good one stays in force.
async fn reload(daemon: &mut Daemon, site: &Site, notifier: &Notifier, printer: &mut Printer) {
    notifier.reloading();
    let telemetry = daemon.server.parts().telemetry.clone();
    match daemon.reload(site).await {
        Ok(what) => {
            printer.say(format!("the configuration was read anew: {}", tame(&what)));
            telemetry.tell(&Happening::Reloaded { what });
        }
        Err(e) => {
            printer.error(&e);
            printer.say("the last good configuration stays in force");
            telemetry.tell(&Happening::NotReloaded { why: e.to_string() });
        }
    }
    notifier.ready("serving");
}

fn is_settled(incident: &engine_core::incident::Incident) -> bool {
    matches!(incident.phase, engine_core::incident::Phase::WithPerson { .. })
}
