//! `simulate`: the real engines on a simulated cluster, month after month, against every rule.

mod mutations;

use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, Tone, paint, tame, wrapped};
use engine_testkit::simulate::{
    Found, Only, Part, Progress, Report, SimulateError, SimulateOptions, Trace, rates, shrink, simulate_many,
};
use engine_testkit::world::RULES;
use jiff::SignedDuration;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What to simulate.
#[derive(Debug, clap::Args)]
pub(crate) struct SimulateArgs {
    /// Nodes, with 8 GPUs each.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    nodes: u32,
    /// Virtual time, in hours.
    #[arg(long, default_value_t = 720, value_parser = clap::value_parser!(u32).range(1..=87_600))]
    hours: u32,
    /// Seed: the same seed tells the same story.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seeds to simulate, from --seed on.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// Threads; all cores if not given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Faults come this many times as often as published.
    #[arg(long, default_value_t = 1.0, value_parser = rate)]
    rate: f64,
    /// Only this node, and with a number only that incident of it: replays a finding.
    #[arg(long, value_name = "NODE[:NUMBER]", value_parser = only)]
    only: Option<Only>,
    /// An engine that dies at a time, in seconds since the start: replays a finding.
    #[arg(long, value_name = "SECONDS:ENGINE", value_parser = death)]
    death: Vec<(SignedDuration, usize)>,
    /// What is simulated: engines alone on every node, a site of 48 nodes with the whole fleet layer, or both.
    #[arg(long, value_enum, default_value_t = PartArg::Both)]
    part: PartArg,
    /// Of the site with the fleet layer, only what has these numbers happens: replays a finding.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    items: Option<Vec<usize>>,
    /// Breaks the guard of each rule on purpose and hunts for what comes of it: a table, one line for each. Looks at none
    /// of the other options but --jobs.
    #[arg(long, conflicts_with_all = ["only", "death", "items"])]
    mutations: bool,
}

/// The parts, as they are named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum PartArg {
    Both,
    Engines,
    Fleet,
}

impl From<PartArg> for Part {
    fn from(part: PartArg) -> Self {
        match part {
            PartArg::Both => Self::Both,
            PartArg::Engines => Self::Engines,
            PartArg::Fleet => Self::Fleet,
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if (0.001..=10_000.0).contains(&x) => Ok(x),
        _ => Err("give a number from 0.001 to 10000".to_owned()),
    }
}

fn only(text: &str) -> Result<Only, String> {
    let (node, incident) = match text.split_once(':') {
        Some((node, n)) => (node, Some(n.parse::<u32>().map_err(|_| format!("{n:?} is no number"))?)),
        None => (text, None),
    };
    let place = node.strip_prefix("gpu").and_then(|n| n.parse::<usize>().ok()).and_then(|n| n.checked_sub(1));
    match place {
        Some(node) => Ok(Only { node, incident }),
        None => Err("give a simulated node, such as gpu017 or gpu017:3".to_owned()),
    }
}

fn death(text: &str) -> Result<(SignedDuration, usize), String> {
    let wrong = || "give seconds and an engine, such as 3600.5:0".to_owned();
    let (seconds, engine) = text.split_once(':').ok_or_else(wrong)?;
    let seconds: f64 = seconds.parse().map_err(|_| wrong())?;
    let engine: usize = engine.parse().map_err(|_| wrong())?;
    if !(0.0..1e9).contains(&seconds) || engine > 2 {
        return Err(wrong());
    }
    Ok((SignedDuration::from_millis((seconds * 1_000.0).round() as i64), engine))
}

/// Runs `simulate`.
pub(crate) fn run(args: &SimulateArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.map_or(cores, usize::from).min(usize::try_from(args.runs).unwrap_or(usize::MAX));
    if args.mutations {
        return mutations::run(args.jobs.map_or(cores, usize::from), printer);
    }
    let options = SimulateOptions {
        nodes: args.nodes as usize,
        hours: args.hours,
        seed: args.seed,
        rate: args.rate,
        only: args.only,
        deaths: args.death.clone(),
        part: args.part.into(),
        items: args.items.clone(),
        mutant: None,
    };
    if let Some(Only { node, .. }) = options.only
        && node >= options.nodes
    {
        return Err(CliError::usage(format!("there is no node gpu{:03} among {}", node + 1, options.nodes))
            .with_hint("give --nodes as in the simulation that found it"));
    }
    let began = Instant::now();
    let cpu = super::bench::cpu_ms();
    let report = watched(&options, args.runs, jobs, printer)
        .map_err(|e| CliError::caused("the simulation did not come to its end", e))?;
    let took =
        Took { wall: began.elapsed(), cpu_seconds: (super::bench::cpu_ms() - cpu) / 1e3, threads: jobs };
    let trace = match report.found.first() {
        Some(found) => shrink(&options, found).map_err(|e| CliError::caused("the finding", e))?,
        None => None,
    };
    if printer.format == Format::Json {
        json(&options, args.runs, &report, &took, trace.as_ref(), printer)?;
    } else {
        tell(args.runs, &report, &took, printer);
        for found in &report.found {
            say_found(found, printer);
        }
        if let Some(trace) = &trace {
            tell_trace(trace, printer);
        }
    }
    Ok(if report.is_clean() { Exit::Ok } else { Exit::Findings })
}

/// What it took.
struct Took {
    wall: Duration,
    /// CPU time of all threads: what other programs on the machine take is not counted.
    cpu_seconds: f64,
    threads: usize,
}

impl Took {
    fn per_core(&self, n: u64) -> f64 {
        if self.cpu_seconds > 0.0 { n as f64 / self.cpu_seconds } else { 0.0 }
    }
}

/// Time between two words about how far it is.
const WORD_EVERY: Duration = Duration::from_secs(10);

fn watched(
    options: &SimulateOptions,
    runs: u64,
    jobs: usize,
    printer: &mut Printer,
) -> Result<Report, SimulateError> {
    let progress = Progress::default();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (began, mut next) = (Instant::now(), WORD_EVERY);
            while !done.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(50));
                if began.elapsed() >= next {
                    next += WORD_EVERY;
                    printer.say(format!(
                        "{:>5} s: seed {} of {runs}, hour {} of {}, {} incidents",
                        began.elapsed().as_secs(),
                        (progress.seeds() + 1).min(runs),
                        progress.hour(),
                        options.hours,
                        progress.incidents()
                    ));
                }
            }
        });
        let report = simulate_many(options, runs, jobs, &progress);
        done.store(true, Ordering::SeqCst);
        report
    })
}

fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

fn line(printer: &mut Printer, what: &str, text: &str) {
    printer.out(format!("{what:<26} {}", wrapped(text, 27)));
}

fn tell(runs: u64, r: &Report, took: &Took, printer: &mut Printer) {
    line(printer, "simulated node-years", &format!("{:.1}", r.node_years));
    line(printer, "seeds", &grouped(runs));
    line(
        printer,
        "incidents",
        &format!("{}, {} of which gave nothing to plan on", grouped(r.incidents), grouped(r.unplanned)),
    );
    line(printer, "runs", &format!("{} with {} events", grouped(r.runs), grouped(r.events)));
    for (end, n) in &r.ends {
        line(printer, &format!("  {}", end.replace('_', " ")), &grouped(*n));
    }
    line(
        printer,
        "people met",
        &format!("{} changes, {} in the very moment of a write", grouped(r.people), grouped(r.races)),
    );
    line(
        printer,
        "engine deaths survived",
        &format!(
            "{} in a write to the journal, {} between",
            grouped(r.died_in_write),
            grouped(r.died_between)
        ),
    );
    line(
        printer,
        "GPU resets",
        &format!("{}, of them cures: {}", grouped(r.world.resets), grouped(r.world.cures)),
    );
    line(
        printer,
        "jobs",
        &format!(
            "{} finished, {} lost to hardware, {} lost to the engine",
            grouped(r.world.jobs_finished),
            grouped(r.world.jobs_lost_to_hardware),
            grouped(r.world.jobs_lost_to_engine)
        ),
    );
    tell_fleet(r, printer);
    printer.out("");
    printer.out(paint(Tone::Strong, format!("{:<4} {:<42} {}", "RULE", "", "VIOLATIONS")));
    for (rule, words) in RULES {
        let n = r.violations.get(&rule).copied().unwrap_or(0);
        let (tone, text) = if n == 0 { (Tone::Good, "0".to_owned()) } else { (Tone::Bad, grouped(n)) };
        printer.out(format!("{rule:>4} {words:<42} {}", paint(tone, text)));
    }
    printer.out("");
    let threads = if took.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", took.threads) };
    line(
        printer,
        "time",
        &format!("{:.1} s on {threads}, {:.1} s of CPU", took.wall.as_secs_f64(), took.cpu_seconds),
    );
    line(
        printer,
        "per second and core",
        &format!("{:.0} runs, {:.0} incidents", took.per_core(r.runs), took.per_core(r.incidents)),
    );
    if r.is_clean() {
        printer.out(paint(Tone::Good, "No rule was broken."));
    } else {
        printer.out(paint(Tone::Bad, "Rules were broken."));
    }
}

/// Tells what of it went through the whole fleet layer.
fn tell_fleet(r: &Report, printer: &mut Printer) {
    let f = &r.fleet;
    if f.policies == 0 {
        return;
    }
    line(
        printer,
        "with the fleet layer",
        &format!("{} of the incidents, {} of the runs", grouped(f.incidents), grouped(f.runs)),
    );
    line(
        printer,
        "  nodes taken",
        &format!(
            "{}, {} of them filled a budget, {} met others in the very moment",
            grouped(f.budgets.taken),
            grouped(f.budgets.to_the_limit),
            grouped(f.budgets.races)
        ),
    );
    line(printer, "  told to wait", &format!("{} times", grouped(f.waits)));
    line(
        printer,
        "  stopped",
        &format!(
            "{} times by a breaker, {} by people; {} releases, {} dropped what waited",
            grouped(f.trips),
            grouped(f.stops),
            grouped(f.releases),
            grouped(f.dropped)
        ),
    );
    line(printer, "  policies in force", &grouped(f.policies));
}

fn say_found(found: &Found, printer: &mut Printer) {
    let text = tame(&format!("seed {}: {}", found.seed, found.violation));
    printer.out(paint(Tone::Bad, format!("  {}", wrapped(&text, 2))));
}

/// The command that shows a finding again.
fn command(o: &SimulateOptions) -> String {
    let mut out = format!("slurmedic simulate --nodes {} --hours {} --seed {}", o.nodes, o.hours, o.seed);
    if (o.rate - 1.0).abs() > f64::EPSILON {
        out.push_str(&format!(" --rate {}", o.rate));
    }
    if let Some(only) = &o.only {
        out.push_str(&format!(" --only gpu{:03}", only.node + 1));
        if let Some(n) = only.incident {
            out.push_str(&format!(":{n}"));
        }
    }
    match o.part {
        Part::Both => {}
        Part::Engines => out.push_str(" --part engines"),
        Part::Fleet => out.push_str(" --part fleet"),
    }
    if let Some(items) = &o.items {
        let items: Vec<String> = items.iter().map(usize::to_string).collect();
        out.push_str(&format!(" --items {}", items.join(",")));
    }
    for (at, engine) in &o.deaths {
        out.push_str(&format!(" --death {}:{engine}", at.as_secs_f64()));
    }
    out
}

fn tell_trace(trace: &Trace, printer: &mut Printer) {
    printer.out("");
    printer.out(paint(Tone::Strong, "The smallest part that shows it:"));
    printer.out(format!("  {}", command(&trace.options)));
    let (seed, part) = (trace.options.seed, trace.options.part);
    say_found(&Found { seed, part, violation: trace.violation.clone() }, printer);
    printer.out(paint(Tone::Strong, "What happened:"));
    for e in &trace.history {
        printer.out(format!("  {}", wrapped(&tame(&e.to_string()), 4)));
    }
    printer.out(paint(Tone::Strong, "What the engines wrote:"));
    for e in &trace.journal {
        printer.out(format!("  {}", wrapped(&tame(e), 4)));
    }
}

fn json(
    options: &SimulateOptions,
    runs: u64,
    report: &Report,
    took: &Took,
    trace: Option<&Trace>,
    printer: &mut Printer,
) -> Result<(), CliError> {
    let trace = trace.map(|t| {
        serde_json::json!({
            "command": command(&t.options),
            "violation": t.violation,
            "history": t.history.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "journal": t.journal,
        })
    });
    printer.json(&serde_json::json!({
        "format": "slurmedic/simulate/1",
        "nodes": options.nodes,
        "hours": options.hours,
        "first_seed": options.seed,
        "seeds": runs,
        "rate": options.rate,
        "published_faults_per_gpu_hour": rates::per_gpu_hour(),
        "threads": took.threads,
        "wall_seconds": took.wall.as_secs_f64(),
        "cpu_seconds": took.cpu_seconds,
        "runs_per_second_and_core": took.per_core(report.runs),
        "incidents_per_second_and_core": took.per_core(report.incidents),
        "report": report,
        "trace": trace,
    }))
}
