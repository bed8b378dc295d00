//! The configuration: one TOML file, validated whole. A missing file that was named is an error.

use crate::exit::CliError;
pub(crate) use crate::watching::WatchConfig;
use engine_adapters::munge::MungeConfig;
use engine_adapters::node::NodeToolsConfig;
use engine_adapters::slurm::{JobConfig, SlurmConfig};
use engine_core::policy::Approvals;
use engine_core::value::parse_duration;
use engine_runtime::engine::EngineConfig;
use engine_server::ServerSettings;
use jiff::SignedDuration;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Where the configuration is looked for when none is named.
pub(crate) const DEFAULT_PATH: &str = "/etc/slurmedic/slurmedic.toml";

/// The configuration file. `slurmedic init` writes a commented one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Which cluster: `auto`, `slurm` or `simulated`.
    pub(crate) cluster: Cluster,
    /// The journal.
    pub(crate) journal: JournalConfig,
    /// Playbooks of the site.
    pub(crate) playbooks: PlaybooksConfig,
    /// What the site allows.
    pub(crate) policy: PolicyConfig,
    /// What the site knows differently.
    pub(crate) knowledge: KnowledgeConfig,
    /// Time limits.
    pub(crate) engine: Times,
    /// Slurm.
    pub(crate) slurm: SlurmConfig,
    /// This host as a node.
    pub(crate) node: NodeConfig,
    /// dcgm-exporter, read for nodes that are not this host.
    pub(crate) exporter: ExporterConfig,
    /// Faults that the engine finds by looking.
    pub(crate) watch: WatchConfig,
    /// The engine's faces.
    pub(crate) server: ServerSettings,
    /// Agents of nodes, on the engine's side.
    pub(crate) agents: AgentsConfig,
    /// This host's own agent.
    pub(crate) agent: AgentConfig,
    /// munge, by which a node can prove itself.
    pub(crate) munge: MungeConfig,
}

/// Which cluster the verbs act on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cluster {
    /// Slurm where its commands are installed, else the simulated one.
    #[default]
    Auto,
    /// The cluster that `scontrol` talks to.
    Slurm,
    /// The embedded simulated cluster; nothing real is touched.
    Simulated,
}

/// The journal.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct JournalConfig {
    /// File of the journal, on a local file system.
    pub(crate) path: Option<PathBuf>,
}

/// Playbooks of the site.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PlaybooksConfig {
    /// Directory with `<id>/<version>.yaml`, beside those that come with Slurmedic.
    pub(crate) dir: Option<PathBuf>,
}

/// What the site allows.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PolicyConfig {
    /// Policy file; the built-in one where not set.
    pub(crate) path: Option<PathBuf>,
    /// topology.conf of Slurm, for policies whose racks come from it; slurmctld is asked where not set.
    pub(crate) topology: Option<PathBuf>,
}

/// What the site knows differently.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct KnowledgeConfig {
    /// File that states the differences; only what comes with the program where not set.
    pub(crate) site: Option<PathBuf>,
}

/// This host as a node.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NodeConfig {
    /// Name of this host in slurm.conf; the host name up to its first dot where not set.
    pub(crate) name: Option<String>,
    /// How nodes without an agent are looked at.
    pub(crate) transport: Transport,
    /// How jobs are started, with `transport = "slurm-job"`.
    pub(crate) job: JobConfig,
    /// Its tools.
    pub(crate) tools: NodeToolsConfig,
}

/// How nodes without an agent are looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transport {
    /// Not at all.
    #[default]
    Agent,
    /// By Slurm jobs in the run's own reservation.
    SlurmJob,
}

/// Agents of nodes, on the engine's side.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AgentsConfig {
    /// File with the secret from which the key of each node is made.
    pub(crate) secret: Option<PathBuf>,
    /// Proofs by which a node gets its key from the engine; none by default.
    pub(crate) enrol: Vec<ProofName>,
    /// Whether a node may ask for its key again.
    pub(crate) enrol_again: bool,
    /// Directory of the records which node got its key.
    pub(crate) enrolled: Option<PathBuf>,
    /// Users whose credentials of munge count.
    pub(crate) munge_users: Option<Vec<String>>,
    /// What is made of the address in a credential.
    pub(crate) munge_hosts: MungeHosts,
}

/// Proofs that a node is the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProofName {
    /// A credential of munge.
    Munge,
    /// The certificate of the node.
    Certificate,
}

/// What is made of the address in a credential of munge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MungeHosts {
    /// It must be one of the addresses of the node's name.
    #[default]
    Resolve,
    /// Nothing.
    Any,
}

/// This host's own agent.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AgentConfig {
    /// Address of the engine.
    pub(crate) engine: Option<String>,
    /// File with this node's key.
    pub(crate) key: Option<PathBuf>,
    /// Certificates that are believed, PEM.
    pub(crate) ca: Option<PathBuf>,
    /// This node's own certificate, PEM, where the engine demands one.
    pub(crate) certificate: Option<PathBuf>,
    /// Key of that certificate, PEM.
    pub(crate) certificate_key: Option<PathBuf>,
    /// The proof by which this node asks for its key where it has none.
    pub(crate) enrol: Option<ProofName>,
    /// Users that the engine may run as: theirs must be the credential in which the key comes.
    pub(crate) engine_users: Option<Vec<String>>,
    /// Where the agent writes down what it has begun.
    pub(crate) state: Option<PathBuf>,
    /// Where the hook of this node leaves what it could not tell the engine.
    pub(crate) spool: Option<PathBuf>,
    /// The kernel's log, which is read for XIDs; `off` where another reads it.
    pub(crate) kernel_log: Option<PathBuf>,
}

/// Stands for nothing where a path is asked for.
pub(crate) const OFF: &str = "off";

/// dcgm-exporter.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ExporterConfig {
    /// URL with `{node}` in the place of the node's name, e.g. `http://{node}:9400/metrics`.
    pub(crate) url: Option<String>,
}

/// Time limits; each is a duration such as `90s` or `5m`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Times {
    read_patience: Option<String>,
    poll: Option<String>,
    confirm: Option<String>,
    fact_max_age: Option<String>,
    approval_wait: Option<String>,
    approval_ttl: Option<String>,
    health_settle: Option<String>,
    inspect_limit: Option<String>,
    lock_slack: Option<String>,
}

impl Times {
    /// Lowers the times into the engine's options; every wrong one is named at once.
    pub(crate) fn lower(&self, engine: String, approvals: &Approvals) -> Result<EngineConfig, CliError> {
        let mut config = EngineConfig {
            engine,
            approval_wait: approvals.request_expires.duration(),
            approval_ttl: approvals.approval_expires.duration(),
            ..EngineConfig::default()
        };
        let mut wrong = Vec::new();
        let mut set =
            |key: &str, text: &Option<String>, at_least: SignedDuration, to: &mut SignedDuration| {
                let Some(text) = text else { return };
                match parse_duration(text) {
                    Ok(d) if d >= at_least => *to = d,
                    Ok(_) => wrong.push(format!("engine.{key} = {text:?} is too short")),
                    Err(e) => wrong.push(format!("engine.{key}: {e}")),
                }
            };
        let (zero, tick) = (SignedDuration::ZERO, SignedDuration::from_millis(10));
        set("read_patience", &self.read_patience, zero, &mut config.read_patience);
        set("poll", &self.poll, tick, &mut config.poll);
        set("confirm", &self.confirm, tick, &mut config.confirm);
        set("fact_max_age", &self.fact_max_age, SignedDuration::from_secs(1), &mut config.fact_max_age);
        set("approval_wait", &self.approval_wait, SignedDuration::from_secs(1), &mut config.approval_wait);
        set("approval_ttl", &self.approval_ttl, SignedDuration::from_secs(1), &mut config.approval_ttl);
        set("health_settle", &self.health_settle, zero, &mut config.health_settle);
        set("inspect_limit", &self.inspect_limit, SignedDuration::from_secs(1), &mut config.inspect_limit);
        set("lock_slack", &self.lock_slack, SignedDuration::from_mins(1), &mut config.lock_slack);
        if wrong.is_empty() { Ok(config) } else { Err(CliError::usage(wrong.join("; "))) }
    }
}

/// Reads the configuration: the file that was named, else the default one if it is there, else the defaults.
///
/// `SLURM_CONF` of the environment counts where the file sets no `slurm.slurm_conf`, as it does for Slurm's own
/// commands.
pub(crate) fn load(named: Option<&Path>) -> Result<(Config, Option<PathBuf>), CliError> {
    let (mut config, path) = read(named)?;
    if config.slurm.slurm_conf.is_none() {
        config.slurm.slurm_conf =
            std::env::var_os("SLURM_CONF").map(PathBuf::from).filter(|p| p.is_absolute());
    }
    // The node's own look at Slurm, for the evidence, is at the same cluster.
    if let Some(conf) = config.slurm.slurm_conf.as_deref().and_then(Path::to_str) {
        let variables = &mut config.node.tools.environment;
        variables.entry("SLURM_CONF".to_owned()).or_insert_with(|| conf.to_owned());
    }
    Ok((config, path))
}

fn read(named: Option<&Path>) -> Result<(Config, Option<PathBuf>), CliError> {
    let (path, must_be_there) = match named {
        Some(p) => (p.to_owned(), true),
        None => (PathBuf::from(DEFAULT_PATH), false),
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(t) => t,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must_be_there => {
            return Ok((Config::default(), None));
        }
        Err(e) => {
            let shown = path.display().to_string();
            return Err(CliError::caused(format!("the configuration {shown} could not be read"), e)
                .with_exit(crate::exit::Exit::Usage)
                .with_hint("`slurmedic init` writes one with every key explained"));
        }
    };
    let config: Config = toml::from_str(&text).map_err(|e| {
        CliError::usage(format!(
            "the configuration {} is not valid:\n{}",
            path.display(),
            e.to_string().trim_end()
        ))
        .with_hint("docs/guide/configuration.md lists every key")
    })?;
    config.engine.lower(String::new(), &Approvals::default())?;
    if let Err(e) = config.server.check() {
        return Err(CliError::usage(format!("{}: {e}", path.display()))
            .with_hint("docs/guide/server.md explains each key"));
    }
    config.watch.lower()?;
    check_proofs(&config)?;
    if let Some(wrong) = config.node.job.problems().first() {
        return Err(CliError::usage(format!("{}: node.job.{wrong}", path.display())));
    }
    if config.agent.certificate.is_some() != config.agent.certificate_key.is_some() {
        return Err(CliError::usage("agent.certificate and agent.certificate_key belong together"));
    }
    if config.agent.kernel_log.as_ref().is_some_and(|p| !p.is_absolute() && p.as_os_str() != OFF) {
        return Err(CliError::usage(
            "agent.kernel_log: give an absolute path, such as /dev/kmsg, or \"off\"",
        ));
    }
    let problems = config.node.tools.problems();
    if !problems.is_empty() {
        let list: Vec<String> = problems.iter().map(|p| format!("node.tools.{p}")).collect();
        return Err(CliError::usage(format!("{}: {}", path.display(), list.join("; "))));
    }
    if config.exporter.url.as_ref().is_some_and(|u| !u.starts_with("http://") && !u.starts_with("https://")) {
        return Err(CliError::usage("exporter.url: give an http or https URL with {node} in it"));
    }
    Ok((config, Some(path)))
}

/// Judges what belongs together of the proofs of nodes.
fn check_proofs(config: &Config) -> Result<(), CliError> {
    let (agents, agent) = (&config.agents, &config.agent);
    let wrong = |why: &str| Err(CliError::usage(why).with_hint("docs/guide/agents.md explains it"));
    if agents.enrol.contains(&ProofName::Certificate) && config.server.client_ca.is_none() {
        return wrong("agents.enrol names certificate: set server.client_ca, which signs them");
    }
    if !agents.enrol.is_empty() && agents.secret.is_none() {
        return wrong("agents.enrol: set agents.secret, from which the keys are made");
    }
    if agent.enrol == Some(ProofName::Certificate) && agent.certificate.is_none() {
        return wrong("agent.enrol names certificate: set agent.certificate");
    }
    for (key, path) in [("munge", &config.munge.munge), ("unmunge", &config.munge.unmunge)] {
        if !path.is_absolute() {
            return wrong(&format!("munge.{key}: give an absolute path"));
        }
    }
    Ok(())
}
