//! `agent`: the node's own hands, and the keys by which engine and nodes know each other.

use super::Global;
use crate::config::{self, Config, MungeHosts, ProofName};
use crate::exit::{CliError, Exit};
use crate::printer::{Printer, tame};
use crate::site::local_name;
use engine_adapters::agent::{Agent, AgentConfig, EnrolConfig, EnrolError, Proof, enrol, kept_key};
use engine_adapters::munge::Munge;
use engine_adapters::node::LocalNode;
use engine_adapters::slurm::job::{FORMAT, JobAnswer, may_be_a_job};
use engine_core::model::NodeName;
use engine_runtime::orders::{EnrolRules, Enrolment, NodeKey, OrderMaster, forget};
use engine_runtime::ports::{NodeActuator as _, WorkOrder};
use engine_runtime::system::SystemClock;
use engine_server::{random_hex, read_secret};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// Where the agent writes down what it has begun, where nothing else is configured.
const DEFAULT_STATE: &str = "/var/lib/slurmedic-agent";
/// Where the key of the node is, where nothing else is configured.
const DEFAULT_KEY: &str = "/etc/slurmedic/node.key";
/// Where the secret is made, where nothing else is configured.
const DEFAULT_SECRET: &str = "/etc/slurmedic/agents.secret";
/// Where the hook leaves what it could not tell, where nothing else is configured.
const DEFAULT_SPOOL: &str = "/var/lib/slurmedic/hook/spool";
/// The kernel's log, where nothing else is configured.
const DEFAULT_KERNEL_LOG: &str = "/dev/kmsg";
/// Where it is on record which node got its key, where nothing else is configured.
const DEFAULT_ENROLLED: &str = "/var/lib/slurmedic/enrolled";
/// Bytes of a new secret.
const SECRET: usize = 32;

/// What is done.
#[derive(Debug, clap::Args)]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    verb: AgentVerb,
}

#[derive(Debug, clap::Subcommand)]
enum AgentVerb {
    /// On a node, as root: fetch orders from the engine and carry them out. Opens no port.
    Run(RunArgs),
    /// On the engine's host: print the key of one node, for /etc/slurmedic/node.key there.
    Key {
        /// The node's name in slurm.conf.
        node: String,
    },
    /// In a Slurm job on a node: carry out one order that only looks, and print its result on one line. The engine starts
    /// it where node.transport is "slurm-job".
    Perform {
        /// The order, as JSON.
        #[arg(value_name = "ORDER")]
        order: String,
    },
    /// On the engine's host: let a node ask for its key again, as after it was installed anew.
    Forget {
        /// The node's name in slurm.conf.
        node: String,
    },
    /// On the engine's host: make the secret from which the keys of nodes are made. Never overwrites one.
    Secret,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Address of the engine, such as https://engine:9345; agent.engine where not given.
    #[arg(long, value_name = "URL")]
    engine: Option<String>,
    /// File with this node's key; agent.key where not given.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Where it writes down what it has begun; agent.state where not given.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// Runs `agent`.
pub(crate) fn run(args: &AgentArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    match &args.verb {
        AgentVerb::Run(a) => super::wait(work(a, global, printer)),
        AgentVerb::Key { node } => key(node, global, printer),
        AgentVerb::Perform { order } => super::wait(perform(order, global, printer)),
        AgentVerb::Forget { node } => forget_node(node, global, printer),
        AgentVerb::Secret => secret(global, printer),
    }
}

/// Reads the secret of the site.
pub(crate) fn master(path: &Path) -> Result<OrderMaster, CliError> {
    let bytes = read_secret(path).map_err(|e| {
        CliError::caused("agents.secret", e)
            .with_exit(Exit::Usage)
            .with_hint("`slurmedic agent secret` makes one; only the engine's user may read it")
    })?;
    OrderMaster::new(bytes).map_err(|e| CliError::caused("agents.secret", e).with_exit(Exit::Usage))
}

fn key(node: &str, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let (config, _) = config::load(global.config.as_deref())?;
    let Some(path) = &config.agents.secret else {
        return Err(CliError::usage("agents.secret is not set in the configuration")
            .with_hint("`slurmedic agent secret` makes the file; then name it in [agents]"));
    };
    let node = NodeName::new(node).map_err(|e| CliError::usage(tame(&e.to_string())))?;
    let key = master(path)?.key_of(&node).map_err(|e| CliError::caused("the key", e))?;
    printer.out(key.reveal());
    printer.say(format!("the key of {node} only: {DEFAULT_KEY} there, mode 600, owner root"));
    Ok(Exit::Ok)
}

async fn perform(order: &str, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let (config, _) = config::load(global.config.as_deref())?;
    let order: WorkOrder = serde_json::from_str(order)
        .map_err(|e| CliError::usage(format!("this is no order that this release knows: {e}")))?;
    let node = local_name(&config)?;
    if !may_be_a_job(&order.verb) {
        return Err(CliError::usage(format!("an order to {} is for the agent", order.verb.word()))
            .with_hint("a Slurm job only looks: inspect, diag and collect_evidence"));
    }
    // The tools of the node look once more whether the order is for it.
    let result = LocalNode::new(node.clone(), config.node.tools.clone()).perform(&order).await;
    let answer = JobAnswer { format: FORMAT.to_owned(), order: order.id, node, result };
    printer.out(serde_json::to_string(&answer).map_err(|e| CliError::caused("the result", e))?);
    Ok(Exit::Ok)
}

fn enrolled(config: &Config) -> PathBuf {
    config.agents.enrolled.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_ENROLLED))
}

fn forget_node(node: &str, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let (config, _) = config::load(global.config.as_deref())?;
    let node = NodeName::new(node).map_err(|e| CliError::usage(tame(&e.to_string())))?;
    let records = enrolled(&config);
    let was = forget(&records, &node)
        .map_err(|e| CliError::caused(format!("the record of {node} in {}", records.display()), e))?;
    printer.say(if was {
        format!("{node} may ask for its key again, once; the key itself is the same as before")
    } else {
        format!("nobody got the key of {node} by a proof: there is nothing to forget")
    });
    Ok(Exit::Ok)
}

/// Finds user ids by names; the mistake names the key of the configuration.
fn uids(key: &str, names: &[String]) -> Result<BTreeSet<u32>, CliError> {
    let of = |name: &String| match nix::unistd::User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(CliError::usage(format!("{key}: this host knows no user {}", tame(name)))),
        Err(e) => Err(CliError::caused(format!("{key}: {}", tame(name)), e)),
    };
    names.iter().map(of).collect()
}

/// Puts together what hands keys to nodes that prove themselves; none where the site has none of it.
pub(crate) fn enrolment(config: &Config) -> Result<Option<Arc<Enrolment>>, CliError> {
    let agents = &config.agents;
    let Some(secret) = agents.secret.as_ref().filter(|_| !agents.enrol.is_empty()) else { return Ok(None) };
    let by_munge = agents.enrol.contains(&ProofName::Munge);
    let root = vec!["root".to_owned()];
    let users = agents.munge_users.as_ref().unwrap_or(&root);
    let rules = EnrolRules {
        by_certificate: agents.enrol.contains(&ProofName::Certificate),
        uids: if by_munge { uids("agents.munge_users", users)? } else { BTreeSet::new() },
        check_address: agents.munge_hosts == MungeHosts::Resolve,
        again: agents.enrol_again,
        records: enrolled(config),
    };
    let seals = by_munge.then(|| Arc::new(Munge::new(config.munge.clone())) as _);
    Ok(Some(Arc::new(Enrolment::new(master(secret)?, rules, seals))))
}

/// The key of this node: from its file, else what an earlier start got, else from the engine by a proof.
async fn own_key(
    args: &RunArgs,
    config: &Config,
    wanted: EnrolConfig,
    stop: tokio::sync::watch::Receiver<bool>,
) -> Result<NodeKey, CliError> {
    let path = args.key.clone().or(config.agent.key.clone()).unwrap_or_else(|| PathBuf::from(DEFAULT_KEY));
    let fail = |e: EnrolError| CliError::caused("the key of this node", e).with_exit(Exit::Usage);
    if config.agent.enrol.is_some() && !path.exists() {
        return match kept_key(&wanted.state).map_err(fail)? {
            Some(key) => Ok(key),
            None => enrol(&wanted, stop).await.map_err(fail),
        };
    }
    let text = read_secret(&path).map_err(|e| {
        CliError::caused("the key of this node", e).with_exit(Exit::Usage).with_hint(
            "`slurmedic agent key NODE` on the engine's host prints it; --key names another file, agent.enrol asks for it",
        )
    })?;
    NodeKey::parse(&String::from_utf8_lossy(&text))
        .map_err(|e| CliError::caused(path.display().to_string(), e).with_exit(Exit::Usage))
}

/// The proof that the configuration names.
fn proof(config: &Config) -> Result<Proof, CliError> {
    if config.agent.enrol != Some(ProofName::Munge) {
        return Ok(Proof::Certificate);
    }
    let engine = match &config.agent.engine_users {
        Some(names) => uids("agent.engine_users", names)?,
        // Of the usual ones those that this host has.
        None => {
            ["root", "slurm"].into_iter().filter_map(|n| uids("", &[n.to_owned()]).ok()).flatten().collect()
        }
    };
    Ok(Proof::Munge { seals: Arc::new(Munge::new(config.munge.clone())), engine })
}

fn secret(global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let (config, _) = config::load(global.config.as_deref())?;
    let path = config.agents.secret.unwrap_or_else(|| PathBuf::from(DEFAULT_SECRET));
    let shown = path.display().to_string();
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let mut file = made.map_err(|e| {
        let there = e.kind() == std::io::ErrorKind::AlreadyExists;
        let error = CliError::caused(format!("{shown} could not be made"), e).with_exit(Exit::Usage);
        if there {
            error.with_hint("with another secret every node would need a new key; it stays")
        } else {
            error
        }
    })?;
    let text = random_hex(SECRET).map_err(|e| CliError::caused("the secret", e))?;
    file.write_all(format!("{text}\n").as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|e| CliError::caused(format!("{shown} could not be written"), e))?;
    printer.say(format!(
        "made {shown}; name it as agents.secret, then `slurmedic agent key NODE` for each node"
    ));
    Ok(Exit::Ok)
}

/// Reads a file of certificates or a key.
fn pem(key: &str, path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path)
        .map_err(|e| CliError::caused(format!("{key} {}", path.display()), e).with_exit(Exit::Usage))
}

async fn work(args: &RunArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let mut term = signal(SignalKind::terminate()).map_err(|e| CliError::caused("signals", e))?;
    let mut int = signal(SignalKind::interrupt()).map_err(|e| CliError::caused("signals", e))?;
    let (config, _) = config::load(global.config.as_deref())?;
    let Some(engine) = args.engine.clone().or(config.agent.engine.clone()) else {
        return Err(CliError::usage("which engine is not known")
            .with_hint("give --engine URL, or set agent.engine in the configuration"));
    };
    let ca = config.agent.ca.as_deref().map(|path| pem("agent.ca", path)).transpose()?;
    let identity = match (&config.agent.certificate, &config.agent.certificate_key) {
        (Some(certificate), Some(key)) => {
            let mut both = pem("agent.certificate", certificate)?;
            both.push(b'\n');
            both.extend(pem("agent.certificate_key", key)?);
            Some(both)
        }
        _ => None,
    };
    let node = local_name(&config)?;
    let state =
        args.state.clone().or(config.agent.state.clone()).unwrap_or_else(|| PathBuf::from(DEFAULT_STATE));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let wanted = EnrolConfig {
        engine: engine.clone(),
        ca: ca.clone(),
        identity: identity.clone(),
        node: node.clone(),
        state: state.clone(),
        proof: proof(&config)?,
    };
    let key = tokio::select! {
        key = own_key(args, &config, wanted, stopped.clone()) => key?,
        () = async { tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} } } => return Ok(Exit::Ok),
    };
    let tools = Arc::new(LocalNode::new(node.clone(), config.node.tools.clone()));
    let spool = Some(config.agent.spool.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_SPOOL)));
    let log = config.agent.kernel_log.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_KERNEL_LOG));
    let kernel_log = (log.as_os_str() != config::OFF).then_some(log);
    let settings = AgentConfig {
        engine: engine.clone(),
        ca,
        identity,
        node: node.clone(),
        key,
        state,
        spool,
        kernel_log,
    };
    let agent = Agent::new(settings, tools, Arc::new(SystemClock))
        .map_err(|e| CliError::caused("the agent cannot start", e).with_exit(Exit::Usage))?;
    printer.say(format!("agent of {node}, orders from {}; ctrl-c stops", tame(&engine)));
    let mut working = tokio::spawn(async move { agent.run(stopped).await });
    let ended = tokio::select! {
        ended = &mut working => ended,
        () = async { tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} } } => {
            printer.say("stopping: nothing more is fetched");
            let _ = stop.send(true);
            working.await
        }
    };
    ended.map_err(|e| CliError::caused("the agent", e))?.map_err(|e| CliError::caused("the agent", e))?;
    Ok(Exit::Ok)
}
