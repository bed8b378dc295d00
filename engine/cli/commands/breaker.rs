//! `breaker` and `pause`: stop everything, see what stands still, let it go on.

use super::Global;
use crate::exit::{CliError, Exit};
use crate::identity;
use crate::printer::{Format, Printer, Tone, paint, tame, wrapped};
use crate::remote;
use crate::site::{Access, open};
use engine_core::incident::{QueuedWork, Scope};
use engine_core::model::NodeName;
use engine_core::policy::Deed;
use engine_core::run::Actor;
use engine_server::{Desk, StopList, StopNow, Stopped, Stops};

/// What is done with the breaker.
#[derive(Debug, clap::Args)]
pub(crate) struct BreakerArgs {
    #[command(subcommand)]
    verb: Option<BreakerVerb>,
}

#[derive(Debug, clap::Subcommand)]
enum BreakerVerb {
    /// Show what stands still, and why (the default).
    Show,
    /// Let a scope go on, after a trip or a pause.
    Reset(ResetArgs),
    /// Record that a run did what it should not have done; its playbook stops.
    Wrong(WrongArgs),
}

/// How much.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct ScopeArgs {
    /// Only this partition.
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// Only this playbook, in every version.
    #[arg(long, value_name = "ID")]
    playbook: Option<String>,
    /// Only this node.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
}

#[derive(Debug, clap::Args)]
struct ResetArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Why it may go on; goes on record.
    #[arg(long)]
    reason: String,
    /// What becomes of the work that waited: `drop` closes it, a fault that is still there is reported anew;
    /// `judge-anew` plans it on fresh facts. Nothing is carried out as it was planned before.
    #[arg(long, value_enum)]
    queued: Queued,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Queued {
    Drop,
    JudgeAnew,
}

#[derive(Debug, clap::Args)]
struct WrongArgs {
    /// The run, or the beginning of its id.
    run: String,
    /// What was wrong; goes on record.
    #[arg(long)]
    reason: String,
}

/// Stops everything that takes nodes or hardware away.
#[derive(Debug, clap::Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Why; goes on record.
    #[arg(long)]
    reason: String,
}

impl ScopeArgs {
    fn scope(&self) -> Result<Scope, CliError> {
        let plain = |text: &String| {
            let good = !text.is_empty() && text.len() <= 64 && !text.chars().any(char::is_control);
            if good { Ok(text.clone()) } else { Err(CliError::usage("a name has 1 to 64 plain characters")) }
        };
        Ok(match (&self.partition, &self.playbook, &self.node) {
            (Some(p), ..) => Scope::Partition(plain(p)?),
            (_, Some(id), _) => Scope::Playbook(plain(id)?),
            (.., Some(node)) => Scope::Node(NodeName::new(node).map_err(|e| CliError::usage(e.to_string()))?),
            _ => Scope::Fleet,
        })
    }
}

/// Runs `breaker`.
pub(crate) async fn run(
    args: &BreakerArgs,
    global: &Global,
    printer: &mut Printer,
) -> Result<Exit, CliError> {
    let me = || Actor::person(identity::person());
    let engine = remote::engine(global).await?;
    match &args.verb {
        None | Some(BreakerVerb::Show) => {
            let found: StopList = match engine {
                Some(engine) => engine.get("/api/v1/breaker", &[]).await?,
                None => {
                    let site = open(global, printer, Access::Look, None).await?;
                    Desk::new(site.engine).stops().await?
                }
            };
            show(&found, printer)
        }
        Some(BreakerVerb::Reset(a)) => {
            let scope = a.scope.scope()?;
            let queued = match a.queued {
                Queued::Drop => QueuedWork::Drop,
                Queued::JudgeAnew => QueuedWork::JudgeAnew,
            };
            let done: Stopped = match engine {
                Some(engine) => {
                    let sent = serde_json::json!({ "scope": scope, "why": a.reason, "queued": queued });
                    engine.post("/api/v1/breaker/reset", &sent).await?
                }
                None => {
                    let site = open(global, printer, Access::Record, None).await?;
                    site.permit(&identity::person(), Deed::BreakerReset)?;
                    Desk::new(site.engine).switch(&scope, Stops::Release(queued), me(), &a.reason).await?
                }
            };
            told(printer, &done)
        }
        Some(BreakerVerb::Wrong(a)) => {
            let done: Stopped = match engine {
                Some(engine) => {
                    let sent = serde_json::json!({ "run": a.run, "why": a.reason });
                    engine.post("/api/v1/breaker/wrong", &sent).await?
                }
                None => {
                    let site = open(global, printer, Access::Record, None).await?;
                    site.permit(&identity::person(), Deed::Pause)?;
                    let desk = Desk::new(site.engine);
                    desk.wrong(&desk.find(&a.run).await?, &me(), &a.reason).await?
                }
            };
            told(printer, &done)
        }
    }
}

/// Runs `pause`.
pub(crate) async fn pause(
    args: &PauseArgs,
    global: &Global,
    printer: &mut Printer,
) -> Result<Exit, CliError> {
    let scope = args.scope.scope()?;
    let done: Stopped = match remote::engine(global).await? {
        Some(engine) => {
            let sent = serde_json::json!({ "scope": scope, "why": args.reason });
            engine.post("/api/v1/breaker/pause", &sent).await?
        }
        None => {
            let site = open(global, printer, Access::Record, None).await?;
            site.permit(&identity::person(), Deed::Pause)?;
            let by = Actor::person(identity::person());
            Desk::new(site.engine).switch(&scope, Stops::Pause, by, &args.reason).await?
        }
    };
    told(printer, &done)
}

fn told(printer: &mut Printer, done: &Stopped) -> Result<Exit, CliError> {
    match printer.format {
        Format::Json => printer.json(done)?,
        Format::Text => printer.out(format!("{} {}", done.scope, tame(&done.now))),
    }
    Ok(Exit::Ok)
}

fn show(found: &StopList, printer: &mut Printer) -> Result<Exit, CliError> {
    if printer.format == Format::Json {
        printer.json(found)?;
    } else if found.stops.is_empty() {
        printer.out("nothing stands still");
    } else {
        for StopNow { scope, stop } in &found.stops {
            let since = stop.since.strftime("%Y-%m-%d %H:%M:%S");
            printer.out(paint(Tone::Bad, format!("{scope} stands still since {since} UTC")));
            printer.out(format!("  {}", wrapped(&tame(&stop.sentence(scope)), 2)));
        }
        printer.out("`slurmedic breaker reset --reason WHY --queued judge-anew` lets it go on");
    }
    Ok(if found.stops.is_empty() { Exit::Ok } else { Exit::Findings })
}
