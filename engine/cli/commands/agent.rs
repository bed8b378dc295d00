//! `agent`: the node's own hands, and the keys by which engine and nodes know each other.

use super::Global;
use crate::config;
use crate::exit::{CliError, Exit};
use crate::printer::{Printer, tame};
use crate::site::local_name;
use engine_adapters::agent::{Agent, AgentConfig};
use engine_adapters::node::LocalNode;
use engine_core::model::NodeName;
use engine_runtime::orders::{NodeKey, OrderMaster};
use engine_runtime::system::SystemClock;
use engine_server::{random_hex, read_secret};
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
    let own = args.key.clone().or(config.agent.key.clone()).unwrap_or_else(|| PathBuf::from(DEFAULT_KEY));
    let key = read_secret(&own).map_err(|e| {
        CliError::caused("the key of this node", e)
            .with_exit(Exit::Usage)
            .with_hint("`slurmedic agent key NODE` on the engine's host prints it; --key names another file")
    })?;
    let key = NodeKey::parse(&String::from_utf8_lossy(&key))
        .map_err(|e| CliError::caused(own.display().to_string(), e).with_exit(Exit::Usage))?;
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
    let (stop, stopped) = tokio::sync::watch::channel(false);
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
