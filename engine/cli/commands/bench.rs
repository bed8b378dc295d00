//! `bench`: figures of this machine, with what they are compared to, in one run.

mod decide;
mod flood;
mod intake;
mod steps;

use super::Global;
use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, Tone, paint};
use crate::site::{Access, open};
use engine_adapters::slurm::{sample, text};
use engine_core::condition::{Scope, compile};
use engine_core::fact::{FactSet, Source};
use engine_core::known::{Cause, Known};
use engine_core::model::gpu::Gpu;
use engine_core::model::{Node, NodeGpus, RunId};
use engine_core::plan::{GpuRef, PlanRequest, make_plan};
use engine_core::run::{Actor, EventKind};
use engine_core::value::Value;
use engine_core::watch::{SlurmRules, SlurmWatch, Standing};
use engine_core::{observe, vocabulary};
use engine_playbook::{Library, Renderer};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// Nodes of the fleet that is read.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    nodes: u32,
    /// Rounds of each measurement; the median is printed.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(3..=1000))]
    rounds: u32,
    /// Directory for the journal that is measured; on the disk that matters.
    #[arg(long, default_value = ".")]
    dir: std::path::PathBuf,
    /// Measure only this; may be given more than once.
    #[arg(long, value_name = "WHAT", value_enum)]
    only: Vec<Part>,
    /// Measure the way from a request to a drained node on this node of the real cluster. It IS drained and resumed.
    #[arg(long, value_name = "NODE")]
    live_node: Option<String>,
}

/// A part of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Reading and watching a fleet, and the memory that takes.
    Fleet,
    /// Planning on known facts.
    Plan,
    /// The engine's own time in each step of a run.
    Steps,
    /// Starting the program.
    Help,
    /// Alerts that become durable per second.
    Intake,
    /// The time from an alert to a durable decision.
    Decide,
    /// An alert amid a flood of repeats.
    Flood,
}

/// How long alerts come at a steady rate.
const DECIDE_SECONDS: u32 = 10;

#[derive(Serialize)]
struct Figure {
    what: String,
    unit: &'static str,
    median: f64,
    min: f64,
    max: f64,
    rounds: usize,
}

/// Runs `bench`.
pub(crate) fn run(args: &BenchArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let rounds = args.rounds as usize;
    let mut figures = Vec::new();
    let wanted = |part| args.only.is_empty() || args.only.contains(&part);
    if wanted(Part::Fleet) {
        fleet(args.nodes as usize, rounds, &mut figures)?;
    }
    if wanted(Part::Plan) {
        plan(rounds, &mut figures)?;
    }
    if wanted(Part::Steps) {
        steps::measure(&args.dir, rounds, &mut figures)?;
    }
    if wanted(Part::Help) {
        help(rounds, &mut figures)?;
    }
    if wanted(Part::Intake) {
        intake::measure(&args.dir, rounds, &mut figures)?;
    }
    if wanted(Part::Decide) {
        decide::measure(&args.dir, DECIDE_SECONDS, &mut figures)?;
    }
    if wanted(Part::Flood) {
        flood::measure(&args.dir, &mut figures)?;
    }
    if let Some(node) = &args.live_node {
        super::wait(live(node, rounds, global, printer, &mut figures))?;
    }
    if printer.format == Format::Json {
        printer.json(&serde_json::json!({ "format": "slurmedic/bench/1", "figures": figures }))?;
    } else {
        printer.out(paint(Tone::Strong, format!("{:<52} {:>7} {:>7} {:>7}", "WHAT", "MEDIAN", "MIN", "MAX")));
        for f in &figures {
            let [median, min, max] = [f.median, f.min, f.max].map(shown);
            printer.out(format!("{:<52} {median:>7} {min:>7} {max:>7} {}", f.what, f.unit));
        }
        printer.say("Medians on a shared machine: compare lines of one run, not of two days.");
    }
    Ok(Exit::Ok)
}

/// Shows a number in at most seven characters, as far as it matters.
fn shown(value: f64) -> String {
    if value < 100.0 { format!("{value:.3}") } else { format!("{value:.0}") }
}

fn add(figures: &mut Vec<Figure>, what: impl Into<String>, unit: &'static str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let (Some(min), Some(max)) = (values.first().copied(), values.last().copied()) else { return };
    let median = values.get(values.len() / 2).copied().unwrap_or(min);
    figures.push(Figure { what: what.into(), unit, median, min, max, rounds: values.len() });
}

fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let out = work();
    (start.elapsed().as_secs_f64() * 1e3, out)
}

/// CPU time of this process in milliseconds: user and system.
pub(crate) fn cpu_ms() -> f64 {
    use nix::sys::resource::{UsageWho, getrusage};
    getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |u| {
        let ms = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 * 1e3 + t.tv_usec() as f64 / 1e3;
        ms(u.user_time()) + ms(u.system_time())
    })
}

fn fleet(nodes: usize, rounds: usize, figures: &mut Vec<Figure>) -> Result<(), CliError> {
    let fleet = sample::fleet_text(nodes);
    let context = text::TextContext::utc();
    let mut ours = Vec::new();
    let mut peer = Vec::new();
    for _ in 0..rounds {
        let before = cpu_ms();
        let parsed =
            text::parse_nodes(&fleet, &context).map_err(|e| CliError::caused("the sample fleet", e))?;
        ours.push(cpu_ms() - before);
        if parsed.len() != nodes {
            return Err(CliError::failed("the sample fleet was not read whole"));
        }
        if let Some(ms) = awk(&fleet) {
            peer.push(ms);
        }
    }
    let mb = fleet.len() as f64 / 1e6;
    add(figures, format!("fleet read, {nodes} nodes, {mb:.1} MB: CPU"), "ms", ours);
    add(figures, "  peer: awk counts drained nodes in it", "ms", peer);
    let parsed = text::parse_nodes(&fleet, &context).map_err(|e| CliError::caused("the sample fleet", e))?;
    drop(fleet);
    watched(&parsed, rounds, figures)?;
    add(
        figures,
        format!("resident memory with {} nodes at hand, peak", parsed.len()),
        "MB",
        vec![peak_memory_mb()],
    );
    Ok(())
}

/// Looks at the nodes again and again, as the watch does after each read; what it found stands from the second look on.
fn watched(nodes: &[Node], rounds: usize, figures: &mut Vec<Figure>) -> Result<(), CliError> {
    let reasons =
        engine_playbook::knowledge::built_in().map_err(|e| CliError::caused("the watch", e))?.reasons;
    let (mut watch, mut standing, rules) = (SlurmWatch::default(), Standing::new(), SlurmRules::default());
    let mut values = Vec::new();
    for _ in 0..=rounds {
        let (ms, alerts) = timed(|| watch.look(nodes, &reasons, &rules, &standing, Timestamp::now()));
        values.push(ms);
        for a in alerts {
            standing.entry(a.node).or_default().insert(a.fault);
        }
    }
    let faulty = standing.len();
    // The first look fills its memory.
    values.remove(0);
    add(figures, format!("  watch over these nodes, {faulty} with faults: one look"), "ms", values);
    Ok(())
}

/// Has awk split each line into fields and count one of them, as an operator would.
fn awk(fleet: &str) -> Option<f64> {
    let program = "{for(i=1;i<=NF;i++) if($i ~ /^State=/ && $i ~ /DRAIN/) n++} END{print n}";
    let file = {
        let path = std::env::temp_dir().join(format!("slurmedic-bench-{}.txt", std::process::id()));
        std::fs::File::create(&path).ok()?.write_all(fleet.as_bytes()).ok()?;
        path
    };
    let (ms, out) = timed(|| Command::new("awk").arg(program).arg(&file).stdin(Stdio::null()).output());
    let _ = std::fs::remove_file(&file);
    out.ok().filter(|o| o.status.success()).map(|_| ms)
}

fn peak_memory_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

fn plan(rounds: usize, figures: &mut Vec<Figure>) -> Result<(), CliError> {
    let library = Library::embedded();
    let playbook =
        library.find("dcgm-ecc-drain-reset").map_err(|e| CliError::caused("the built-in playbook", e))?;
    let now = Timestamp::now();
    let text = sample::fleet_text(3);
    let nodes =
        text::parse_nodes(&text, &text::TextContext::utc()).map_err(|e| CliError::caused("the sample", e))?;
    let node = nodes.first().ok_or_else(|| CliError::failed("the sample is empty"))?;
    let gpu_ref = GpuRef { index: 0, uuid: "GPU-0".into(), bus_id: "00000000:1B:00.0".into() };
    let facts = facts(node, now);
    let renderer = Renderer::new();
    let mut values = Vec::new();
    for i in 0..rounds * 20 {
        let request = PlanRequest {
            run: RunId::new(&format!("bench{i}")).map_err(|e| CliError::caused("the run id", e))?,
            playbook,
            node: node.name.clone(),
            gpu: Some(gpu_ref.clone()),
            params: BTreeMap::new(),
            facts: facts.clone(),
            observed: engine_core::ownership::NodeMark::of(node, &[], now),
            jobs: Known::Known(Vec::new()),
            initiator: Actor::person("bench"),
            now,
        };
        let (ms, plan) = timed(|| make_plan(request, &renderer));
        plan.map_err(|e| CliError::caused("the plan", e))?;
        values.push(ms * 1e3);
    }
    add(figures, "plan of one playbook on known facts", "us", values);
    let scope = Scope::new(vocabulary::FACTS);
    let source = "node.state in [IDLE, COMPLETING] and active_jobs == 0 and gpu.row_remap_failure == false";
    let condition =
        compile(source, &scope).map_err(|_| CliError::failed("the sample condition does not compile"))?;
    let values = (0..rounds * 20).map(|_| timed(|| condition.evaluate(&facts)).0 * 1e3).collect();
    add(figures, "  of it: one condition of three parts, with its trace", "us", values);
    Ok(())
}

fn facts(node: &engine_core::model::Node, now: Timestamp) -> FactSet {
    let mut gpu = Gpu::unseen(0, Cause::NotReported, "");
    gpu.uuid = Known::Known("GPU-0".into());
    gpu.bus_id = Known::Known("00000000:1B:00.0".into());
    gpu.answers = Known::Known(true);
    gpu.last_xid = Known::Known(48);
    gpu.ecc_dbe_volatile = Known::Known(2);
    gpu.row_remap_pending = Known::Known(true);
    gpu.row_remap_failure = Known::Known(false);
    let all = NodeGpus { gpus: vec![gpu.clone()], ..NodeGpus::unseen(Cause::NotReported, "") };
    let mut facts = FactSet::default();
    observe::node_facts(&mut facts, node, now);
    observe::job_facts(&mut facts, Some(node), &Known::Known(&[]), now);
    observe::reservation_facts(&mut facts, node, &Known::Known(&[]), now);
    observe::gpus_facts(&mut facts, &all, Source::NodeTools, now);
    observe::gpu_facts(&mut facts, &gpu, &all, Source::NodeTools, now);
    facts.set("alert.id", Known::Known(Value::Text("bench".into())), Source::Request, now);
    facts
}

/// Removes a database that was made for a measurement, and what lies beside it.
fn remove_database(path: &Path) {
    for suffix in ["", "-wal", "-shm", ".engines"] {
        let mut name = path.to_path_buf().into_os_string();
        name.push(suffix);
        let _ = std::fs::remove_file(&name);
        let _ = std::fs::remove_dir_all(&name);
    }
}

fn help(rounds: usize, figures: &mut Vec<Figure>) -> Result<(), CliError> {
    let me = std::env::current_exe().map_err(|e| CliError::caused("this program's own path", e))?;
    let once = |program: &Path, arg: &str| {
        timed(|| {
            Command::new(program)
                .arg(arg)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
        })
        .0
    };
    let ours = (0..rounds).map(|_| once(&me, "--help")).collect();
    add(figures, "slurmedic --help, whole process", "ms", ours);
    let floor = (0..rounds).map(|_| once(Path::new("/bin/true"), "")).collect();
    add(figures, "  peer: /bin/true, whole process", "ms", floor);
    Ok(())
}

/// From a request to a drained node that was read back, on the real cluster, and the same drain by bare commands.
async fn live(
    node: &str,
    rounds: usize,
    global: &Global,
    printer: &mut Printer,
    figures: &mut Vec<Figure>,
) -> Result<(), CliError> {
    let node = super::plan::node_name(node)?;
    let site = open(global, printer, Access::Change, Some(&node)).await?;
    let playbook = engine_playbook::load(BENCH_PLAYBOOK.as_bytes(), "bench.yaml")
        .playbook
        .ok_or_else(|| CliError::failed("the playbook of the measurement does not load"))?;
    let mut walls = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        let proposal = site
            .engine
            .plan(engine_runtime::engine::ProposeRequest {
                playbook: &playbook,
                node: node.clone(),
                gpu: None,
                params: BTreeMap::new(),
                alert: engine_runtime::engine::Alert::default(),
                initiator: Actor::person(crate::identity::person()),
            })
            .await
            .map_err(|e| CliError::caused("the plan", e))?;
        if !proposal.objections.is_empty() {
            return Err(CliError::failed(proposal.objections.join("; ")));
        }
        let run = site.engine.record_plan(proposal).await?.run;
        site.engine.drive(&run).await?;
        site.engine.approve(&run, Actor::person(crate::identity::person())).await?;
        site.engine.drive(&run).await?;
        let total = start.elapsed();
        let events = site.engine.ports.journal.load(&run).await?;
        let first = events.first().map_or(Timestamp::UNIX_EPOCH, |e| e.at);
        let drained = events.iter().find(|e| {
            matches!(&e.kind, EventKind::Finished { effect: engine_core::run::Effect::Step(0), .. })
        });
        let Some(drained) = drained else { return Err(CliError::failed("the node was not drained")) };
        let planning = total.saturating_sub(Duration::from_secs_f64(
            events.last().map_or(0.0, |e| e.at.duration_since(first).as_secs_f64()),
        ));
        walls.push(planning.as_secs_f64() * 1e3 + drained.at.duration_since(first).as_secs_f64() * 1e3);
        site.engine.ports.scheduler.resume(&node).await;
        wait_until_idle(&site, &node).await?;
    }
    add(figures, "request to drained and read back, real Slurm", "ms", walls);
    Ok(())
}

async fn wait_until_idle(
    site: &crate::site::Site,
    node: &engine_core::model::NodeName,
) -> Result<(), CliError> {
    for _ in 0..200 {
        if let Ok(n) = site.engine.ports.scheduler.node(node).await
            && n.value.state == engine_core::model::NodeState::Idle
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(CliError::failed(format!("{node} did not become idle again within 20 s: look at it")))
}

const BENCH_PLAYBOOK: &str = "\
playbook: bench-drain
version: 1.0.0
summary: Drain a node, to measure the way there
owner: bench
target: node
fault: [bench]
requires: { slurm: \">=22.05\", capabilities: [slurm.drain] }
preconditions:
  - node.state in [IDLE]
  - active_jobs == 0
steps:
  - slurm.drain: { reason: \"bench\" }
approval: hitl
ends: drained
";
