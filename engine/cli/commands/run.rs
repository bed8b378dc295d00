//! `run`: plan, ask, do, tell.

use super::Global;
use super::plan::{What, node_name, propose, show};
use crate::exit::{CliError, Exit};
use crate::identity;
use crate::printer::{Format, Printer, Tone, paint, wrapped};
use crate::remote;
use crate::site::{Access, Site, open};
use crate::timeline;
use engine_core::model::{NodeName, RunId};
use engine_core::policy::Deed;
use engine_core::run::{Actor, Event, EventKind, RunState, Status, fold};
use engine_runtime::engine::{Engine, EngineError, Observer, Rest};
use std::io::BufRead as _;
use std::sync::Arc;

/// What is to be run.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(super) what: What,
    /// Do not ask on the terminal: the people named by --approved-by have approved.
    #[arg(long, requires = "approved_by")]
    pub(super) yes: bool,
    /// Who approved; goes on record. Twice for a playbook that needs two people.
    #[arg(long, value_name = "NAME")]
    pub(super) approved_by: Vec<String>,
}

/// Runs `run`.
pub(crate) async fn run(args: &RunArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let node = node_name(&args.what.node)?;
    for name in &args.approved_by {
        if !identity::is_name(name) {
            return Err(CliError::usage(
                "--approved-by: give a name of letters, digits, `-`, `_`, `.` and `@`",
            ));
        }
    }
    if !args.approved_by.is_empty() && !args.yes {
        return Err(CliError::usage(
            "--approved-by is for --yes; without it the person at the terminal is asked",
        ));
    }
    if let Some(engine) = remote::engine(global).await? {
        return super::handed::run(args, &engine, printer).await;
    }
    let site = open(global, printer, Access::Change, Some(&node))
        .await?
        .watched(Arc::new(Live::new(printer.format)));
    let (site, _fleet) = site.gated().await?;
    site.permit(&identity::person(), Deed::Run)?;
    site.within_reach(&node)?;
    for name in &args.approved_by {
        site.permit(name, Deed::Approve)?;
    }
    if let Some(exit) = recover_first(&site, &node, printer).await? {
        return Ok(exit);
    }
    let proposal = propose(&args.what, node, &site).await?;
    if printer.format == Format::Text {
        show(&proposal, printer);
        printer.out("");
    }
    let people = usize::from(proposal.plan.people());
    if people > 0 && proposal.objections.is_empty() && !args.yes && !identity::can_ask() {
        return Err(CliError::usage("this playbook needs an approval and there is no terminal to ask on")
            .with_hint("give --yes --approved-by NAME for a person who has approved; nothing was started"));
    }
    let state = site.engine.record_plan(proposal).await?;
    let run = state.run.clone();
    if !state.status.is_terminal() && people > 0 {
        site.engine.drive(&run).await?;
        match ask(args, &site, &run, printer).await? {
            Answer::Yes => {}
            Answer::No => return finish(&site, &run, printer).await,
        }
    }
    drive_through(&site.engine, &run).await?;
    finish(&site, &run, printer).await
}

enum Answer {
    Yes,
    No,
}

async fn ask(args: &RunArgs, site: &Site, run: &RunId, printer: &mut Printer) -> Result<Answer, CliError> {
    if args.yes {
        for name in &args.approved_by {
            if site.engine.state(run).await?.status == Status::AwaitingApproval {
                site.engine.approve(run, Actor::person(name)).await?;
            }
        }
        return Ok(Answer::Yes);
    }
    let me = identity::person();
    if ask_person(run, &me, printer).await? {
        site.permit(&me, Deed::Approve)?;
        site.engine.approve(run, Actor::person(me)).await?;
        Ok(Answer::Yes)
    } else {
        site.engine.deny(run, &Actor::person(me), NOT_YES).await?;
        Ok(Answer::No)
    }
}

/// Why a run was refused at the terminal.
pub(super) const NOT_YES: &str = "the answer at the terminal was not `yes`";

/// Asks the person at the terminal whether the run may go on.
pub(super) async fn ask_person(run: &RunId, me: &str, printer: &mut Printer) -> Result<bool, CliError> {
    printer.say(format!(
        "{} approve run {run} as {me}? Type {} to go on: ",
        paint(Tone::Strong, "?"),
        paint(Tone::Strong, "yes")
    ));
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    })
    .await
    .map_err(|e| CliError::caused("the terminal could not be read", e))?
    .map_err(|e| CliError::caused("the terminal could not be read", e))?;
    Ok(answer.trim() == "yes")
}

/// Picks up what a killed engine left on this node; a new run would only meet its marks.
async fn recover_first(
    site: &Site,
    node: &NodeName,
    printer: &mut Printer,
) -> Result<Option<Exit>, CliError> {
    for run in site.engine.ports.journal.orphans().await? {
        let state = site.engine.state(&run).await?;
        if state.plan.target.node != *node {
            printer.say(format!(
                "{} run {run} on {} was interrupted: `slurmedic recover` picks it up",
                paint(Tone::Warn, "note:"),
                state.plan.target.node
            ));
            continue;
        }
        printer.say(format!(
            "{} run {run} on {node} was interrupted; it is picked up first",
            paint(Tone::Warn, "note:")
        ));
        site.engine.recover(&run).await?;
        let exit = finish(site, &run, printer).await?;
        printer.say("No new run was started: look at the node, then start again if it is still needed.");
        return Ok(Some(exit));
    }
    Ok(None)
}

/// Tells the end of a run, and returns its exit code.
pub(crate) async fn finish(site: &Site, run: &RunId, printer: &mut Printer) -> Result<Exit, CliError> {
    let events = site.engine.ports.journal.load(run).await?;
    tell_end(run, &events, printer)
}

/// The same, from the events.
pub(crate) fn tell_end(run: &RunId, events: &[Event], printer: &mut Printer) -> Result<Exit, CliError> {
    let state = fold(events).map_err(|e| {
        CliError::caused("the run does not hold together", e)
            .with_hint("`slurmedic journal verify` tells more")
    })?;
    let exit = match state.status {
        Status::Ended(end) => Exit::of_end(end),
        _ => Exit::AwaitsApproval,
    };
    match printer.format {
        Format::Json => printer.json(&serde_json::json!({
            "format": "slurmedic/run/1",
            "run": run,
            "status": state.status.as_str(),
            "why": state.why,
            "exit_code": exit as u8,
            "events": events,
        }))?,
        Format::Text => {
            let tone = match state.status {
                Status::Ended(end) => timeline::end_tone(end),
                _ => Tone::Warn,
            };
            let head = format!("run {run}: {}", state.status.as_str().replace('_', " "));
            printer.out(paint(tone, head));
            printer.out(format!("  {}", wrapped(&crate::printer::tame(&state.why), 2)));
            if let Some(EventKind::Ended { next_step, .. }) = events.last().map(|e| &e.kind)
                && !next_step.is_empty()
            {
                printer.out(format!("  next: {}", wrapped(&crate::printer::tame(next_step), 8)));
            }
            if exit == Exit::AwaitsApproval {
                printer.out(format!("  next: another person runs `slurmedic approve {run}`"));
            }
            printer.out(paint(Tone::Dim, format!("  `slurmedic show {run}` tells every step")));
        }
    }
    Ok(exit)
}

/// Drives a run, also past moments at which it may not begin yet; who waits sees why.
pub(crate) async fn drive_through(engine: &Engine, run: &RunId) -> Result<(), EngineError> {
    while engine.drive(run).await? == Rest::Deferred {
        engine.ports.clock.sleep(engine.config.poll).await;
    }
    Ok(())
}

/// Tells each event on stderr as it happens.
#[derive(Debug)]
pub(crate) struct Live {
    format: Format,
    many: bool,
}

impl Live {
    /// Builds the observer.
    pub(crate) fn new(format: Format) -> Self {
        Self { format, many: false }
    }

    /// Builds the observer of many runs: each line names its node.
    pub(crate) fn of_many(format: Format) -> Self {
        Self { format, many: true }
    }
}

impl Observer for Live {
    fn on_event(&self, event: &Event, state: &RunState) {
        let mut printer = Printer::new(self.format);
        if self.many {
            printer.say(timeline::of_node(event, state));
        } else {
            printer.say(timeline::dated(event, state));
        }
    }
}
