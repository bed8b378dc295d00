//! `breaker` and `pause`: stop everything, see what stands still, let it go on.

use super::Global;
use crate::exit::{CliError, Exit};
use crate::identity;
use crate::printer::{Format, Printer, Tone, paint, tame, wrapped};
use crate::site::{Access, Site, open, run_id};
use engine_core::incident::{FleetEvent, QueuedWork, Scope, Trouble};
use engine_core::model::NodeName;
use engine_core::policy::Deed;
use engine_core::run::Actor;
use engine_runtime::fleet::FleetLog;
use std::sync::Arc;

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
    match &args.verb {
        None | Some(BreakerVerb::Show) => {
            let site = open(global, printer, Access::Look, None).await?;
            show(&log_of(&site).await?, printer).await
        }
        Some(BreakerVerb::Reset(a)) => {
            let site = open(global, printer, Access::Record, None).await?;
            site.permit(&identity::person(), Deed::BreakerReset)?;
            let log = log_of(&site).await?;
            let scope = a.scope.scope()?;
            if log.read(|f| f.switches().find(&scope).is_none()).await {
                return Err(CliError::usage(format!("{scope} does not stand still"))
                    .with_hint("`slurmedic breaker` shows what does"));
            }
            let queued = match a.queued {
                Queued::Drop => QueuedWork::Drop,
                Queued::JudgeAnew => QueuedWork::JudgeAnew,
            };
            let by = Actor::person(identity::person());
            log.note(FleetEvent::Released { scope: scope.clone(), by, why: a.reason.clone(), queued })
                .await?;
            told(printer, &scope, "goes on")
        }
        Some(BreakerVerb::Wrong(a)) => {
            let site = open(global, printer, Access::Record, None).await?;
            site.permit(&identity::person(), Deed::Pause)?;
            let run = run_id(&site, &a.run).await?;
            let playbook = site.engine.state(&run).await?.plan.playbook.id.clone();
            let scope = Scope::Playbook(playbook.clone());
            let why = format!("{} says: {}", identity::person(), a.reason);
            let log = log_of(&site).await?;
            log.note(FleetEvent::Troubled { run, playbook, trouble: Trouble::Wrongful, why: why.clone() })
                .await?;
            if log.read(|f| f.switches().find(&scope).is_none()).await {
                let nodes = Vec::new();
                log.note(FleetEvent::Tripped { scope: scope.clone(), why, nodes }).await?;
            }
            told(printer, &scope, "stands still")
        }
    }
}

/// Runs `pause`.
pub(crate) async fn pause(
    args: &PauseArgs,
    global: &Global,
    printer: &mut Printer,
) -> Result<Exit, CliError> {
    let site = open(global, printer, Access::Record, None).await?;
    site.permit(&identity::person(), Deed::Pause)?;
    let scope = args.scope.scope()?;
    let by = Actor::person(identity::person());
    let stop = FleetEvent::Stopped { scope: scope.clone(), by, why: args.reason.clone() };
    log_of(&site).await?.note(stop).await?;
    told(printer, &scope, "stands still")
}

async fn log_of(site: &Site) -> Result<FleetLog, CliError> {
    let ports = &site.engine.ports;
    Ok(FleetLog::open(Arc::clone(&ports.journal), Arc::clone(&ports.clock)).await?)
}

fn told(printer: &mut Printer, scope: &Scope, what: &str) -> Result<Exit, CliError> {
    match printer.format {
        Format::Json => printer
            .json(&serde_json::json!({ "format": "slurmedic/breaker/1", "scope": scope, "now": what }))?,
        Format::Text => printer.out(format!("{scope} {what}")),
    }
    Ok(Exit::Ok)
}

async fn show(log: &FleetLog, printer: &mut Printer) -> Result<Exit, CliError> {
    let stops: Vec<_> =
        log.read(|f| f.switches().iter().map(|(a, b)| (a.clone(), b.clone())).collect()).await;
    if printer.format == Format::Json {
        let list: Vec<_> =
            stops.iter().map(|(scope, stop)| serde_json::json!({ "scope": scope, "stop": stop })).collect();
        printer.json(&serde_json::json!({ "format": "slurmedic/breaker/1", "stops": list }))?;
    } else if stops.is_empty() {
        printer.out("nothing stands still");
    } else {
        for (scope, stop) in &stops {
            let since = stop.since.strftime("%Y-%m-%d %H:%M:%S");
            printer.out(paint(Tone::Bad, format!("{scope} stands still since {since} UTC")));
            printer.out(format!("  {}", wrapped(&tame(&stop.sentence(scope)), 2)));
        }
        printer.out("`slurmedic breaker reset --reason WHY --queued judge-anew` lets it go on");
    }
    Ok(if stops.is_empty() { Exit::Ok } else { Exit::Findings })
}
