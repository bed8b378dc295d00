//! `demo`: the whole loop on a simulated cluster, live.

use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, Tone, paint, tame, wrapped};
use crate::timeline::end_tone;
use engine_core::run::{End, Status};
use engine_core::value::format_duration;
use engine_testkit::demo::{Cell, DemoEvent, DemoKind, DemoObserver, DemoOptions, DemoSummary, Frame, demo};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::SignedDuration;
use std::io::IsTerminal as _;
use std::time::Duration;

/// How to show it.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Do not slow down for people who watch.
    #[arg(long)]
    fast: bool,
    /// Seed: the same seed tells the same story.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds that it takes at the most, for people who watch.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..=50))]
    seconds: u64,
}

/// Runs `demo`.
pub(crate) fn run(args: &DemoArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::caused("the runtime could not be started", e))?;
    let quiet = printer.format == Format::Json;
    let live = !quiet && std::io::stderr().is_terminal();
    let watch_for = if args.fast || quiet { Duration::ZERO } else { Duration::from_secs(args.seconds) };
    let options = DemoOptions { seed: args.seed, watch_for, ..DemoOptions::default() };
    if !quiet {
        printer.say(paint(
            Tone::Strong,
            "64 nodes with 8 GPUs each; faults and people to come. Nothing real is touched.",
        ));
    }
    let mut view = View::new(live, quiet);
    let summary =
        runtime.block_on(demo(options, &mut view)).map_err(|e| CliError::caused("the demonstration", e))?;
    view.close();
    if quiet {
        printer.json(&serde_json::json!({ "format": "slurmedic/demo/1", "summary": summary }))?;
    } else {
        tell(&summary, printer);
    }
    Ok(if summary.ok { Exit::Ok } else { Exit::Findings })
}

/// Shows events as lines and, on a terminal, the cluster below them.
struct View {
    live: Option<Live>,
    quiet: bool,
}

struct Live {
    all: MultiProgress,
    rows: Vec<ProgressBar>,
    progress: ProgressBar,
}

/// Nodes in a row of the grid.
const ROW: usize = 16;

impl View {
    fn new(live: bool, quiet: bool) -> Self {
        let plain = || ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        let live = live.then(|| {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            let rows = (0..5).map(|_| all.add(ProgressBar::new_spinner().with_style(plain()))).collect();
            let bar = ProgressStyle::with_template("{bar:30} {pos} of {len} runs over   {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let progress = all.add(ProgressBar::new(1).with_style(bar));
            Live { all, rows, progress }
        });
        Self { live, quiet }
    }

    fn close(&mut self) {
        if let Some(live) = self.live.take() {
            let _ = live.all.clear();
        }
    }

    fn line(&self, text: String) {
        match &self.live {
            Some(live) => {
                let _ = live.all.println(text);
            }
            None if !self.quiet => Printer::new(Format::Text).say(text),
            None => {}
        }
    }
}

impl DemoObserver for View {
    fn on_event(&mut self, e: &DemoEvent) {
        let (tone, mark) = match e.kind {
            DemoKind::Fault => (Tone::Bad, "!"),
            DemoKind::Person => (Tone::Warn, "@"),
            DemoKind::Controller => (Tone::Warn, "~"),
            DemoKind::Decision => (Tone::Strong, ">"),
            DemoKind::Done => (Tone::Good, "+"),
            DemoKind::NotDone => (Tone::Warn, "-"),
            DemoKind::End(end) => (end_tone(end), "="),
        };
        let node = e.node.as_ref().map_or("-", |n| n.as_str());
        let why = if e.why.is_empty() { String::new() } else { format!(": {}", e.why) };
        let text: String = tame(&format!("{}{why}", e.what));
        let text = paint(tone, wrapped(&text, 19));
        self.line(format!("{:>8} {node:<7} {} {text}", clock(e.since_start), paint(tone, mark)));
    }

    fn on_frame(&mut self, frame: &Frame) {
        let Some(live) = &self.live else { return };
        for (i, row) in frame.grid.chunks(ROW).take(4).enumerate() {
            let first = row.first().map_or("", |(n, _)| n.as_str());
            let cells: Vec<String> = row.iter().map(|(_, c)| paint(look(*c).1, look(*c).0)).collect();
            if let Some(bar) = live.rows.get(i) {
                bar.set_message(format!("{first}  {}", cells.join(" ")));
            }
        }
        if let Some(legend) = live.rows.get(4) {
            legend.set_message(paint(
                Tone::Dim,
                ". idle  b busy  ! sick  ? asked  d draining  R reset  v verify  + back  H held  @ theirs",
            ));
        }
        let open = frame.runs.iter().filter(|r| !r.status.is_terminal()).count();
        let asked = frame.runs.iter().filter(|r| r.status == Status::AwaitingApproval).count();
        live.progress.set_length(frame.faults_in_all.max(frame.runs.len()) as u64);
        live.progress.set_position(frame.runs_over as u64);
        live.progress
            .set_message(format!("{}  {open} open, {asked} waiting for a yes", clock(frame.since_start)));
    }
}

fn look(cell: Cell) -> (&'static str, Tone) {
    match cell {
        Cell::Idle => (".", Tone::Dim),
        Cell::Busy => ("b", Tone::Dim),
        Cell::Sick => ("!", Tone::Bad),
        Cell::Asked => ("?", Tone::Warn),
        Cell::Draining => ("d", Tone::Warn),
        Cell::Resetting => ("R", Tone::Bad),
        Cell::Verifying => ("v", Tone::Strong),
        Cell::Returned => ("+", Tone::Good),
        Cell::Held => ("H", Tone::Bad),
        Cell::Theirs => ("@", Tone::Warn),
        Cell::Other => ("x", Tone::Dim),
    }
}

fn clock(since: SignedDuration) -> String {
    let s = since.as_secs().max(0);
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

fn seconds(s: i64) -> String {
    format_duration(SignedDuration::from_secs(s))
}

fn tell(s: &DemoSummary, printer: &mut Printer) {
    printer.out("");
    printer.out(paint(
        Tone::Strong,
        format!("{:<8} {:<3} {:<12} {:<7} {}", "NODE", "GPU", "END", "TIME", "SITUATION"),
    ));
    for c in &s.cases {
        let end = c.end.unwrap_or("none");
        let tone = if c.as_it_should { end_word_tone(end) } else { Tone::Bad };
        let time = c.seconds.map_or("-".to_owned(), short);
        let mark = if c.as_it_should { "" } else { "  (not as it should be)" };
        printer.out(format!(
            "{:<8} {:<3} {} {time:<7} {}{mark}",
            c.node.as_str(),
            c.gpu,
            paint(tone, format!("{:<12}", end.replace('_', " "))),
            wrapped(c.story, 34)
        ));
        printer.out(paint(Tone::Dim, format!("{:13}{}", "", wrapped(&tame(&c.why), 13))));
    }
    printer.out("");
    let ends: Vec<String> = s.ends.iter().map(|(e, n)| format!("{n} {}", e.replace('_', " "))).collect();
    line(printer, "runs", &ends.join(", "));
    if let (Some(mean), Some(longest)) = (s.mean_repair_seconds, s.longest_repair_seconds) {
        line(
            printer,
            "fault to service",
            &format!("mean {}, longest {} (virtual time)", seconds(mean), seconds(longest)),
        );
    }
    line(
        printer,
        "jobs",
        &format!(
            "{} finished, {} lost to broken GPUs, {} lost to the engine",
            s.jobs.finished, s.jobs.lost_to_hardware, s.jobs.lost_to_engine
        ),
    );
    line(
        printer,
        "people's marks",
        &format!("{}, of them touched by the engine: {}", s.foreign_marks, s.foreign_marks_touched),
    );
    line(printer, "GPU resets", &format!("{}, of them cures: {}", s.resets, s.resets_that_cured));
    line(
        printer,
        "left behind",
        &format!("{} reservations, {} drains of no run", s.reservations_left.len(), s.orphan_drains.len()),
    );
    let chain = if s.journal.intact { "chain whole" } else { "CHAIN BROKEN" };
    line(printer, "journal", &format!("{} events in {} runs, {chain}", s.journal.events, s.journal.runs));
    line(printer, "rules broken", &s.violations.len().to_string());
    for v in &s.violations {
        printer.out(paint(Tone::Bad, format!("  {}", wrapped(v, 2))));
    }
    printer.out("");
    printer.out(if s.ok {
        paint(Tone::Good, "Everything ended as it should.")
    } else {
        paint(Tone::Bad, "Something did not end as it should.")
    });
    printer.say(format!("The same story again: slurmedic demo --seed {}", s.seed));
}

fn line(printer: &mut Printer, what: &str, text: &str) {
    printer.out(format!("{what:<18} {}", wrapped(text, 19)));
}

/// At most two units, to fit a column.
fn short(s: i64) -> String {
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        _ => format!("{}h{:02}m", s / 3600, s / 60 % 60),
    }
}

fn end_word_tone(word: &str) -> Tone {
    let all = [
        End::Succeeded,
        End::Shadowed,
        End::Rejected,
        End::Cancelled,
        End::RolledBack,
        End::Held,
        End::HandedOver,
        End::Stuck,
    ];
    all.into_iter().find(|e| e.as_str() == word).map_or(Tone::Dim, end_tone)
}
