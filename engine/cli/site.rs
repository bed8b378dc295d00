//! The site: configuration, adapters, journal and playbooks put together. The only place that knows them all.

use crate::commands::Global;
use crate::config::{self, Cluster, Config};
use crate::exit::CliError;
use crate::fleet::Fleet;
use crate::identity;
use crate::printer::{Printer, Tone, paint, tame};
use engine_adapters::node::{ExporterTelemetry, LocalNode};
use engine_adapters::slurm::topology::read_topology_conf;
use engine_adapters::slurm::{SlurmBackend, SlurmJobs};
use engine_core::known::Known;
use engine_core::model::{NodeName, RunId};
use engine_core::playbook::Playbook;
use engine_core::policy::{Deed, Layout, Policy, RackSource, Role, may};
use engine_playbook::{Library, Renderer};
use engine_runtime::engine::{Engine, Observer, Ports, TimeIds};
use engine_runtime::journal::{Journal, MemoryJournal, OpenMode, SqliteJournal};
use engine_runtime::orders::{AgentNodes, Mailbox};
use engine_runtime::ports::{GpuTelemetry, NodeActuator};
use engine_runtime::system::SystemClock;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What a verb will do with the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reads the cluster; needs no journal.
    Plan,
    /// Reads the journal, and perhaps the cluster.
    Look,
    /// Writes to the journal only.
    Record,
    /// Writes to the journal and to the cluster.
    Change,
}

/// The site.
pub(crate) struct Site {
    /// The engine with its ports.
    pub(crate) engine: Engine,
    /// The real scheduler, for `doctor`.
    pub(crate) slurm: Option<Arc<SlurmBackend>>,
    /// Orders for nodes with agents, where the site has any.
    pub(crate) orders: Option<Arc<Mailbox>>,
    /// Where the journal is; `None` for one in memory.
    pub(crate) journal_path: Option<PathBuf>,
    /// This host's name as a node; `None` on the simulated cluster.
    pub(crate) local: Option<NodeName>,
    /// Where the configuration came from.
    pub(crate) config_path: Option<PathBuf>,
    /// What the site allows.
    pub(crate) policy: Arc<Policy>,
    /// Where the engine that serves would answer.
    socket: PathBuf,
    /// The file of the site's own policy.
    policy_from: Option<String>,
    /// topology.conf that the configuration names.
    topology: Option<PathBuf>,
    library: Library,
}

impl Site {
    /// Adds somebody who hears of every event.
    #[must_use]
    pub(crate) fn watched(mut self, observer: Arc<dyn Observer>) -> Self {
        self.engine = self.engine.with_observer(observer);
        self
    }

    /// Puts the fleet's gate before the engine: breakers, pauses, policy, budgets.
    pub(crate) async fn gated(mut self) -> Result<(Self, Fleet), CliError> {
        let layout = layout_of(&self.policy, self.topology.as_deref(), self.slurm.as_ref()).await;
        let fleet = Fleet::open(&self.engine.ports, Arc::clone(&self.policy), layout, &self.library).await?;
        self.engine = self.engine.with_gate(Arc::clone(&fleet.gate) as _);
        Ok((self, fleet))
    }

    /// Makes sure that somebody may do something, where the site has a policy of its own. Without one, whoever can write
    /// the journal may.
    pub(crate) fn permit(&self, person: &str, deed: Deed) -> Result<(), CliError> {
        let Some(from) = &self.policy_from else { return Ok(()) };
        if self.policy.roles.permit(person, &identity::groups(person), deed) {
            return Ok(());
        }
        let who: Vec<&str> = Role::ALL.iter().filter(|r| may(**r, deed)).map(|r| r.as_str()).collect();
        Err(CliError::usage(format!(
            "{person} may not {}: {from} gives no such role",
            deed.as_str().replace('_', " ")
        ))
        .with_hint(format!(
            "it needs one of the roles {}; `slurmedic policy show` lists who has which",
            who.join(", ")
        )))
    }

    /// Makes sure that this process can work on a node: one with an agent takes orders from the engine that serves only, and
    /// an order that nobody fetches is waited for in vain.
    pub(crate) fn within_reach(&self, node: &NodeName) -> Result<(), CliError> {
        if self.orders.is_none() || self.local.as_ref() == Some(node) {
            return Ok(());
        }
        let socket = tame(&self.socket.display().to_string());
        Err(CliError::failed(format!(
            "{node} is worked on by its agent, which takes orders from the engine that serves only, and none answers at {socket}"
        ))
        .with_hint(format!(
            "start `slurmedic serve` (systemctl start slurmedic) and run this again, or run it on {node} itself; nothing was begun"
        )))
    }

    /// Finds a playbook by `id` or `id@version`; one of the site is played in every situation first.
    pub(crate) fn playbook(&self, name: &str) -> Result<&Playbook, CliError> {
        self.library.find_for_run(name).map_err(|e| CliError::usage(crate::printer::tame(&e.to_string())))
    }

    /// Returns the playbooks.
    pub(crate) fn library(&self) -> &Library {
        &self.library
    }
}

/// Finds out which nodes share a rack or a fabric, where the policy leaves that to Slurm's topology: from the file that the
/// configuration names, else from slurmctld. The simulated cluster has none.
pub(crate) async fn layout_of(
    policy: &Policy,
    topology: Option<&Path>,
    slurm: Option<&Arc<SlurmBackend>>,
) -> Layout {
    let topology = match (topology, slurm) {
        _ if policy.racks.from != RackSource::Topology => Known::Known(None),
        (Some(path), _) => read_topology_conf(path),
        (None, Some(slurm)) => slurm.topology().await,
        (None, None) => Known::Known(None),
    };
    Layout::of(&policy.racks, &topology)
}

/// Puts the site together. `node` is the node the verb is about.
pub(crate) async fn open(
    global: &Global,
    printer: &mut Printer,
    access: Access,
    node: Option<&NodeName>,
) -> Result<Site, CliError> {
    let (config, config_path) = config::load(global.config.as_deref())?;
    let library = library(&config)?;
    let slurm = match global.cluster.unwrap_or(config.cluster) {
        Cluster::Simulated => None,
        Cluster::Slurm => Some(backend(&config)?),
        Cluster::Auto => match backend(&config) {
            Ok(b) => Some(b),
            Err(e) if config_path.is_some() || access == Access::Record => return Err(e),
            Err(_) => None,
        },
    };
    let (policy, from) = crate::commands::policy::in_force(&config)?;
    let policy_from = config.policy.path.is_some().then_some(from);
    let policy = Arc::new(policy);
    let engine_config = config.engine.lower(identity::engine_name(), &policy.approvals)?;
    let Some(slurm) = slurm else {
        if let Some(path) = global.journal.as_ref().filter(|p| access == Access::Look && !p.exists()) {
            return Err(no_journal(path));
        }
        let site = crate::simulated::open(global, printer, library, engine_config, policy, node)?;
        return Ok(Site { policy_from, ..site });
    };
    let (journal, journal_path) = journal(global, &config, access)?;
    let telemetry: Option<Arc<dyn GpuTelemetry>> = match &config.exporter.url {
        Some(url) => Some(Arc::new(
            ExporterTelemetry::new(url, Duration::from_secs(15))
                .map_err(|why| CliError::usage(format!("exporter.url: {why}")))?,
        )),
        None => None,
    };
    let local = local_name(&config)?;
    let own: Arc<dyn NodeActuator> = Arc::new(LocalNode::new(local.clone(), config.node.tools.clone()));
    let orders = match &config.agents.secret {
        Some(path) => Some(Arc::new(Mailbox::new(crate::commands::agent::master(path)?))),
        None => None,
    };
    let mut actuator: Arc<dyn NodeActuator> = match &orders {
        Some(mailbox) => {
            Arc::new(AgentNodes::new(Arc::clone(mailbox), Arc::new(SystemClock), (local.clone(), own)))
        }
        None => own,
    };
    if config.node.transport == config::Transport::SlurmJob {
        let (job, conf) = (config.node.job.clone(), config.slurm.slurm_conf.clone());
        actuator = Arc::new(SlurmJobs::new(job, conf, slurm.clone(), Arc::new(SystemClock), actuator));
    }
    let ports = Ports {
        scheduler: slurm.clone(),
        actuator,
        telemetry,
        clock: Arc::new(SystemClock),
        ids: Arc::new(TimeIds),
        journal,
    };
    let engine_config = engine_runtime::engine::EngineConfig {
        exporter_expected: config.node.tools.exporter_expected(),
        ..engine_config
    };
    let engine = Engine::new(ports, engine_config, Arc::new(Renderer::new()));
    Ok(Site {
        engine,
        slurm: Some(slurm),
        orders,
        journal_path,
        local: Some(local),
        config_path,
        policy,
        socket: config.server.socket.clone().unwrap_or_else(|| crate::remote::DEFAULT_SOCKET.into()),
        policy_from,
        topology: config.policy.topology,
        library,
    })
}

/// Puts a site on the simulated cluster together.
pub(crate) fn simulated(
    ports: Ports,
    config: engine_runtime::engine::EngineConfig,
    policy: Arc<Policy>,
    library: Library,
) -> Site {
    let engine = Engine::new(ports, config, Arc::new(Renderer::new()));
    Site {
        engine,
        slurm: None,
        orders: None,
        journal_path: None,
        local: None,
        config_path: None,
        policy,
        socket: crate::remote::DEFAULT_SOCKET.into(),
        policy_from: None,
        topology: None,
        library,
    }
}

/// Opens the playbooks that come with Slurmedic and those of the site.
pub(crate) fn library(config: &Config) -> Result<Library, CliError> {
    let built_in = Library::embedded();
    match &config.playbooks.dir {
        None => Ok(built_in),
        Some(dir) => built_in.with_site(dir).map_err(|e| {
            CliError::caused(format!("the playbooks in {}", dir.display()), e)
                .with_exit(crate::exit::Exit::Usage)
                .with_hint("correct playbooks.dir in the configuration")
        }),
    }
}

fn backend(config: &Config) -> Result<Arc<SlurmBackend>, CliError> {
    SlurmBackend::new(config.slurm.clone()).map(Arc::new).map_err(|e| {
        CliError::usage(e.to_string()).with_hint("`slurmedic demo` and `--cluster simulated` need no Slurm")
    })
}

pub(crate) fn local_name(config: &Config) -> Result<NodeName, CliError> {
    let name = match &config.node.name {
        Some(n) => n.clone(),
        None => nix::unistd::gethostname()
            .ok()
            .and_then(|h| h.into_string().ok())
            .and_then(|h| h.split('.').next().map(str::to_owned))
            .unwrap_or_default(),
    };
    NodeName::new(&name).map_err(|e| {
        CliError::usage(format!("node.name: {e}")).with_hint("set node.name in the configuration")
    })
}

fn journal(
    global: &Global,
    config: &Config,
    access: Access,
) -> Result<(Arc<dyn Journal>, Option<PathBuf>), CliError> {
    let named = global.journal.clone().or_else(|| config.journal.path.clone());
    let path = match &named {
        Some(p) => p.clone(),
        None => default_journal()?,
    };
    if let Err(e) = path.try_exists() {
        let socket = config.server.socket.clone().unwrap_or_else(|| crate::remote::DEFAULT_SOCKET.into());
        let shown = crate::printer::tame(&path.display().to_string());
        return Err(CliError::caused(format!("the journal {shown} is not for you"), e).with_hint(format!(
            "no engine serves it at {}; start `slurmedic serve` as its user, and it answers everybody",
            crate::printer::tame(&socket.display().to_string())
        )));
    }
    if access == Access::Plan && !path.exists() {
        return Ok((Arc::new(MemoryJournal::new()), None));
    }
    if named.is_none() && matches!(access, Access::Change | Access::Record) {
        make_private_dir(&path)?;
    }
    if access == Access::Look && !path.exists() {
        return Err(no_journal(&path));
    }
    let mode = if matches!(access, Access::Change | Access::Record) {
        OpenMode::ReadWrite
    } else {
        OpenMode::ReadOnly
    };
    let journal = SqliteJournal::open(&path, mode)?;
    Ok((Arc::new(journal), Some(path)))
}

/// Opens the journal's file for reading, without the rest of the site.
pub(crate) fn journal_file(global: &Global) -> Result<SqliteJournal, CliError> {
    let (config, _) = config::load(global.config.as_deref())?;
    let named = global.journal.clone().or_else(|| config.journal.path.clone());
    let path = match named {
        Some(path) => path,
        None if global.cluster.unwrap_or(config.cluster) == Cluster::Simulated => {
            return Err(CliError::usage("the simulated cluster keeps its journal in memory")
                .with_hint("name a file with --journal, here and for the runs on it"));
        }
        None => default_journal()?,
    };
    if !path.exists() {
        return Err(no_journal(&path));
    }
    Ok(SqliteJournal::open(&path, OpenMode::ReadOnly)?)
}

fn no_journal(path: &Path) -> CliError {
    CliError::usage(format!("there is no journal at {}", crate::printer::tame(&path.display().to_string())))
        .with_hint("the first `slurmedic run` makes it; name another with --journal")
}

/// The journal's place where none is named: the machine's for root, the person's otherwise.
fn default_journal() -> Result<PathBuf, CliError> {
    if nix::unistd::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/slurmedic/journal.db"));
    }
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".local/state")))
        .filter(|p| p.is_absolute())
        .ok_or_else(|| {
            CliError::usage("there is no home directory for the journal: name a file with --journal")
        })?;
    Ok(state.join("slurmedic/journal.db"))
}

fn make_private_dir(journal: &Path) -> Result<(), CliError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let Some(dir) = journal.parent() else { return Ok(()) };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| {
        CliError::caused(format!("the journal's directory {} could not be made", dir.display()), e)
    })
}

/// Finds a run by its id or the beginning of it.
pub(crate) async fn run_id(site: &Site, text: &str) -> Result<RunId, CliError> {
    let runs = site.engine.ports.journal.runs(None, false, 10_000).await?;
    let hits: Vec<&RunId> = runs.iter().map(|r| &r.run).filter(|r| r.as_str().starts_with(text)).collect();
    let shown: String = crate::printer::tame(&text.chars().take(40).collect::<String>());
    match hits.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            Err(CliError::usage(format!("there is no run {shown}")).with_hint("`slurmedic runs` lists them"))
        }
        many => match many.iter().find(|r| r.as_str() == text) {
            Some(exact) => Ok((**exact).clone()),
            None => {
                Err(CliError::usage(format!("{} runs begin with {shown}: give more of the id", many.len())))
            }
        },
    }
}

/// Says on stderr that nothing real is touched.
pub(crate) fn announce_simulation(printer: &mut Printer) {
    printer.say(format!(
        "{} this is the embedded simulated cluster; nothing real is touched",
        paint(Tone::Warn, "note:")
    ));
}
