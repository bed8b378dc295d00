//! A run at the engine that serves, seen from a terminal: its timeline as it happens, and how it ends. The engine carries it
//! out whether somebody looks or not.

use crate::commands::run::{Live, tell_end};
use crate::exit::{CliError, Exit};
use crate::printer::{Printer, Tone, paint};
use crate::remote::Remote;
use engine_core::model::RunId;
use engine_core::run::{Event, RunState, Status};
use engine_runtime::engine::Observer as _;
use engine_server::Show;
use std::time::Duration;
use tokio::time::Instant;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// How long the engine may be away, such as for a restart, before the terminal gives up. The run does not.
const AWAY: Duration = Duration::from_secs(120);

/// A run that is followed.
#[derive(Debug)]
pub(crate) struct Followed {
    /// Its id.
    pub(crate) run: RunId,
    /// Its events so far.
    pub(crate) events: Vec<Event>,
    state: RunState,
}

impl Followed {
    /// Begins with what is on record, and tells it.
    pub(crate) fn begin(shown: Show, printer: &Printer) -> Result<Self, CliError> {
        let broken = |e| {
            CliError::caused("the run does not hold together", e)
                .with_hint("`slurmedic journal verify` tells more")
        };
        let first = shown.events.first().ok_or_else(|| CliError::failed("the run has no events"))?;
        let state = RunState::begin(first).map_err(broken)?;
        Live::new(printer.format).on_event(first, &state);
        let mut followed = Self { run: shown.run, events: vec![first.clone()], state };
        followed.take(shown.events, printer)?;
        Ok(followed)
    }

    /// Tells what is new.
    fn take(&mut self, events: Vec<Event>, printer: &Printer) -> Result<(), CliError> {
        let live = Live::new(printer.format);
        for event in events.into_iter().skip(self.events.len()) {
            self.state.apply(&event).map_err(|e| CliError::caused("the run does not hold together", e))?;
            live.on_event(&event, &self.state);
            self.events.push(event);
        }
        Ok(())
    }

    /// Returns where it stands.
    pub(crate) fn status(&self) -> Status {
        self.state.status
    }

    /// Looks once more.
    pub(crate) async fn refresh(&mut self, engine: &Remote, printer: &Printer) -> Result<(), CliError> {
        let shown: Show = engine.get(&format!("/api/v1/runs/{}", self.run), &[]).await?;
        self.take(shown.events, printer)
    }

    /// Looks until the run is over or waits for people.
    pub(crate) async fn until_it_rests(
        &mut self,
        engine: &Remote,
        printer: &mut Printer,
    ) -> Result<(), CliError> {
        let mut away: Option<Instant> = None;
        while !matches!(self.state.status, Status::Ended(_) | Status::AwaitingApproval) {
            tokio::time::sleep(LOOK).await;
            match self.refresh(engine, printer).await {
                Ok(()) => away = None,
                Err(error) => {
                    let since = *away.get_or_insert_with(|| {
                        printer.say(format!(
                            "{} the engine does not answer; the run goes on when it does",
                            paint(Tone::Warn, "note:")
                        ));
                        Instant::now()
                    });
                    if since.elapsed() > AWAY {
                        return Err(error.with_hint(format!(
                            "start the engine that serves again: it goes on; `slurmedic show {}`",
                            self.run
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells the end, and returns its exit code.
    pub(crate) fn end(&self, printer: &mut Printer) -> Result<Exit, CliError> {
        tell_end(&self.run, &self.events, printer)
    }
}

/// Follows a run that is on record to its end or until it waits for people.
pub(crate) async fn follow(engine: &Remote, run: &RunId, printer: &mut Printer) -> Result<Exit, CliError> {
    let shown: Show = engine.get(&format!("/api/v1/runs/{run}"), &[]).await?;
    let mut followed = Followed::begin(shown, printer)?;
    followed.until_it_rests(engine, printer).await?;
    followed.end(printer)
}
