//! The daemon's parts put together: the faces on the engine, and what a reload replaces.

use crate::commands::Global;
use crate::commands::policy::in_force;
use crate::config::{self, Config};
use crate::exit::{CliError, Exit};
use crate::fleet::Fleet;
use crate::printer::tame;
use crate::prometheus;
use crate::remote::DEFAULT_SOCKET;
use crate::site::{Site, layout_of, library};
use crate::watching::{Gpus, ask_exporters, hand_over, look_at_nodes};
use engine_core::diag::Severity;
use engine_core::policy::Policy;
use engine_core::watch::slurm;
use engine_playbook::Library;
use engine_playbook::render::one_line;
use engine_runtime::engine::{Engine, Gate};
use engine_runtime::fleet::{ByFault, Watch};
use engine_runtime::system::SystemClock;
use engine_server::sources::Source;
use engine_server::{
    Authority, BindError, Bound, Current, Desk, GateNow, Happening, Health, Listen, Parts, PlaybooksNow,
    Server, SourceTable, Telemetry, TicketDesk, TlsNow, TokenStore, bind_net, bind_socket, open_files,
    read_secret,
};
use jiff::{SignedDuration, Timestamp};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What serves, and what a reload replaces.
pub(crate) struct Daemon {
    /// The faces.
    pub(crate) server: Arc<Server>,
    /// The gate in force.
    pub(crate) gate: Arc<GateNow>,
    /// The playbooks in force.
    pub(crate) playbooks: Arc<PlaybooksNow>,
    /// The fleet's parts in force.
    pub(crate) fleet: Fleet,
    /// What finds faults by looking at the cluster, unless it is off.
    pub(crate) watch: Option<Arc<Watch>>,
    /// Time between two looks at the cluster.
    pub(crate) interval: Duration,
    global: Global,
    running: Config,
    tls: Option<Arc<TlsNow>>,
}

/// What of the configuration a reload can replace, judged as a whole.
struct Fresh {
    config: Config,
    policy: Arc<Policy>,
    authority: Authority,
    tickets: Option<TicketDesk>,
    sources: SourceTable,
    library: Library,
}

impl Daemon {
    /// Puts the parts together.
    pub(crate) fn new(
        global: &Global,
        site: &Site,
        fleet: Fleet,
        proven: &Library,
        telemetry: Telemetry,
        round: SignedDuration,
    ) -> Result<Self, CliError> {
        let (config, _) = config::load(global.config.as_deref())?;
        let gate = Arc::new(GateNow::new(Arc::clone(&fleet.gate) as Arc<dyn Gate>));
        let playbooks = Arc::new(PlaybooksNow::new(Arc::new(ByFault::newest(proven.playbooks()))));
        let engine = site.engine.clone().with_gate(Arc::clone(&gate) as _);
        let turn_limit = (round * 5).max(SignedDuration::from_secs(60));
        let interval = config.watch.lower()?.interval;
        let reasons = crate::commands::knowledge::in_force(&config)?.reasons;
        let watch = config.watch.build(&fleet, Arc::clone(&engine.ports.clock), reasons)?.map(Arc::new);
        // Age of Slurm's last answer from which the engine is not ready: three looks.
        let slurm_limit =
            SignedDuration::try_from(interval * 3 + Duration::from_secs(20)).unwrap_or(SignedDuration::MAX);
        let health =
            Health::new(Arc::clone(&engine.ports.journal), Arc::new(SystemClock), turn_limit, slurm_limit);
        let tokens = match &config.server.tokens {
            None => None,
            Some(path) => {
                let store = TokenStore::open(path.clone()).map_err(|e| wrong("server.tokens", e))?;
                Some(Arc::new(store))
            }
        };
        let policy = Arc::clone(&site.policy);
        let from = config.policy.path.as_deref().map(shown);
        let parts = Parts {
            desk: Desk::with_log(engine, Arc::clone(&fleet.log)),
            intake: Arc::clone(&fleet.intake),
            health: Arc::new(health),
            telemetry,
            authority: Arc::new(Current::new(Arc::new(Authority::new(policy.roles.clone(), from)))),
            policy: Arc::new(Current::new(policy)),
            tokens,
            tickets: Arc::new(Current::new(Arc::new(tickets(&config)?))),
            playbooks: Arc::clone(&playbooks),
            orders: site.orders.clone(),
            enrolment: crate::commands::agent::enrolment(&config)?,
            node_certificates: config
                .server
                .client_ca
                .is_some()
                .then(|| config.server.client_domains.clone()),
            sources: Arc::new(Current::new(Arc::new(sources(&config)?))),
            open_metrics: config.server.open_metrics,
            limits: config.server.limits().within(open_files()),
            // The simulated cluster keeps its journal in a file only where one is named.
            journal: site.journal_path.as_deref().or(global.journal.as_deref()).map(shown),
            simulated: site.slurm.is_none(),
            look: Mutex::default(),
        };
        let server = Server::new(parts);
        let global = global.clone();
        Ok(Self { server, gate, playbooks, fleet, watch, interval, global, running: config, tls: None })
    }

    /// Starts to look at nodes that somebody tells of, and to ask the exporters, where that is wanted. Only the end of the process ends it.
    pub(crate) fn start_watching(&self) -> Result<(), CliError> {
        let (settings, url) = (&self.running.watch, self.running.exporter.url.as_deref());
        let telemetry = settings.telemetry(url, self.engine().ports.telemetry.as_ref())?;
        if let Some(watch) = self.watch.as_ref().filter(|_| settings.gpus != Gpus::Off) {
            let (fleet, server) = (self.fleet.clone(), Arc::clone(&self.server));
            tokio::spawn(look_at_nodes(fleet, server, Arc::clone(watch), self.engine().clone()));
        }
        if let Some(watch) = &self.watch {
            for asking in prometheus::lower(&settings.prometheus)? {
                let (fleet, server) = (self.fleet.clone(), Arc::clone(&self.server));
                tokio::spawn(prometheus::ask(fleet, server, Arc::clone(watch), asking));
            }
        }
        if let (Some(watch), Some(telemetry)) = (&self.watch, telemetry) {
            let interval = settings.lower()?.gpu_interval;
            let (fleet, server) = (self.fleet.clone(), Arc::clone(&self.server));
            tokio::spawn(ask_exporters(fleet, server, Arc::clone(watch), telemetry, interval));
        }
        Ok(())
    }

    /// The engine with the gate that a reload replaces.
    pub(crate) fn engine(&self) -> &Engine {
        self.server.parts().desk.engine()
    }

    /// Makes the faces. The socket is left out where another engine has it, and where nobody named one and it cannot be
    /// made; what was named must be had.
    pub(crate) async fn bind(&mut self, simulated: bool) -> Result<(Vec<Bound>, Vec<String>), CliError> {
        let settings = self.running.server.clone();
        let (mut faces, mut left_out) = (Vec::new(), Vec::new());
        let path = match &settings.socket {
            Some(path) => Some(path.clone()),
            None if simulated => None,
            None => Some(PathBuf::from(DEFAULT_SOCKET)),
        };
        if let Some(path) = path {
            match bind_socket(&path) {
                Ok(bound) => faces.push(bound),
                Err(e @ BindError::Taken { .. }) => left_out.push(e.to_string()),
                Err(e) if settings.socket.is_none() => {
                    left_out.push(CliError::caused("no socket", e).to_string());
                }
                Err(e) => return Err(wrong("server.socket", e)),
            }
        }
        if let Some(listen) = settings.listen().map_err(|e| CliError::usage(e.to_string()))? {
            let bound = bind_net(&listen).await.map_err(|e| wrong("server.listen", e))?;
            if let Bound::Net { tls: Some(tls), .. } = &bound {
                self.tls = Some(Arc::clone(tls));
            }
            faces.push(bound);
        }
        Ok((faces, left_out))
    }

    /// Reads configuration, policy, playbooks, sources, key and certificate anew. Either all of it comes into force, or, on
    /// any mistake, nothing does.
    pub(crate) async fn reload(&mut self, site: &Site) -> Result<String, CliError> {
        let global = self.global.clone();
        let read = tokio::task::spawn_blocking(move || Fresh::read(&global));
        let fresh = read.await.map_err(|e| CliError::caused("the configuration was not read", e))??;
        let layout =
            layout_of(&fresh.policy, fresh.config.policy.topology.as_deref(), site.slurm.as_ref()).await;
        if let (Some(tls), Ok(Some(Listen::Tls { mut files, .. }))) =
            (&self.tls, fresh.config.server.listen())
        {
            // Whether nodes show certificates at all is a matter of a restart.
            if self.running.server.client_ca.is_some() != files.client_ca.is_some() {
                files.client_ca.clone_from(&self.running.server.client_ca);
                files.client_crl.clone_from(&self.running.server.client_crl);
            }
            tls.reload(&files).map_err(|e| wrong("server.tls_certificate", e))?;
        }
        let parts = self.server.parts();
        let before = parts.sources.get();
        for (name, source) in &fresh.sources {
            if let Some(known) = before.get(name) {
                source.heard_as(known);
            }
        }
        let known = parts.policy.get();
        let policy_is_new = *known != *fresh.policy;
        let times = |p: &Policy| (p.approvals.request_expires, p.approvals.approval_expires);
        let times_are_new = times(&known) != times(&fresh.policy);
        self.fleet = self.fleet.anew(&site.engine.ports, Arc::clone(&fresh.policy), layout, &fresh.library);
        self.gate.set(Arc::clone(&self.fleet.gate) as Arc<dyn Gate>);
        self.playbooks.set(Arc::new(ByFault::newest(fresh.library.playbooks())));
        parts.authority.set(Arc::new(fresh.authority));
        parts.policy.set(fresh.policy);
        parts.tickets.set(Arc::new(fresh.tickets));
        parts.sources.set(Arc::new(fresh.sources));
        let mut said = if policy_is_new {
            "the policy is another one: plans that were made before are void".to_owned()
        } else {
            "the policy is the same".to_owned()
        };
        let mut needs = needs_restart(&self.running, &fresh.config);
        if times_are_new {
            needs.push("the times of approvals");
        }
        if !needs.is_empty() {
            said.push_str(&format!("; a restart is needed for {}", needs.join(", ")));
        }
        Ok(said)
    }
}

/// Reads the whole cluster; what was known stays known where it cannot be read.
pub(crate) async fn look(fleet: &Fleet, watch: Option<&Watch>, server: &Server) -> Result<usize, CliError> {
    let (read, alerts) = match watch {
        Some(watch) => fleet.look_watched(watch).await,
        None => (fleet.look().await, Vec::new()),
    };
    let nodes = match read {
        Ok(n) => n,
        Err(e) => {
            let why = e.to_string();
            server.parts().telemetry.tell(&Happening::ClusterUnread { why });
            return Err(e);
        }
    };
    server.parts().looked(fleet.view.recent(SignedDuration::from_mins(10)).await);
    hand_over(fleet, server, slurm::SOURCE, alerts).await;
    Ok(nodes)
}

impl Fresh {
    fn read(global: &Global) -> Result<Self, CliError> {
        let (config, _) = config::load(global.config.as_deref())?;
        let (policy, _) = in_force(&config)?;
        let from = config.policy.path.as_deref().map(shown);
        let library = library(&config)?.proven();
        if let Some(why) = first_broken(&library) {
            return Err(CliError::usage(format!("a playbook is not valid: {why}"))
                .with_hint("`slurmedic lint` shows every mistake"));
        }
        Ok(Self {
            authority: Authority::new(policy.roles.clone(), from),
            tickets: tickets(&config)?,
            sources: sources(&config)?,
            policy: Arc::new(policy),
            library,
            config,
        })
    }
}

fn first_broken(library: &Library) -> Option<String> {
    library.broken().iter().next().map(|item| {
        let error = item.loaded.diagnostics.iter().find(|d| d.severity == Severity::Error);
        tame(&error.map_or_else(String::new, |d| one_line(d, &item.loaded.source)))
    })
}

fn tickets(config: &Config) -> Result<Option<TicketDesk>, CliError> {
    let Some(path) = &config.server.ticket_key else { return Ok(None) };
    let key = read_secret(path).map_err(|e| wrong("server.ticket_key", e))?;
    Ok(Some(TicketDesk::new(key).map_err(|e| wrong("server.ticket_key", e))?))
}

fn sources(config: &Config) -> Result<SourceTable, CliError> {
    let all = config.server.sources().map_err(|e| CliError::usage(e.to_string()))?;
    all.into_iter()
        .map(|(name, settings)| match Source::new(&name, settings) {
            Ok(s) => Ok((name, Arc::new(s))),
            Err(e) => Err(wrong(&format!("server.sources.{name}"), e)),
        })
        .collect()
}

/// Says which parts of the configuration only a restart brings into force.
fn needs_restart(running: &Config, fresh: &Config) -> Vec<&'static str> {
    let mut faces = fresh.server.clone();
    faces.sources.clone_from(&running.server.sources);
    faces.ticket_key.clone_from(&running.server.ticket_key);
    // What is read anew where it is already in use.
    if running.server.tls_certificate.is_some() && fresh.server.tls_certificate.is_some() {
        faces.tls_certificate.clone_from(&running.server.tls_certificate);
        faces.tls_key.clone_from(&running.server.tls_key);
        if running.server.client_ca.is_some() && fresh.server.client_ca.is_some() {
            faces.client_ca.clone_from(&running.server.client_ca);
            faces.client_crl.clone_from(&running.server.client_crl);
        }
    }
    let differs = |a: &dyn std::fmt::Debug, b: &dyn std::fmt::Debug| format!("{a:?}") != format!("{b:?}");
    [
        ("cluster", differs(&running.cluster, &fresh.cluster)),
        ("[journal]", differs(&running.journal, &fresh.journal)),
        ("[engine]", differs(&running.engine, &fresh.engine)),
        ("[slurm]", differs(&running.slurm, &fresh.slurm)),
        ("[node]", differs(&running.node, &fresh.node)),
        ("[exporter]", differs(&running.exporter, &fresh.exporter)),
        ("[watch]", differs(&running.watch, &fresh.watch)),
        ("[server]", running.server != faces),
    ]
    .into_iter()
    .filter_map(|(name, is)| is.then_some(name))
    .collect()
}

fn wrong(key: &str, e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CliError {
    CliError::caused(key.to_owned(), e).with_exit(Exit::Usage).with_hint("docs/guide/server.md explains it")
}

fn shown(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// Makes a ticket without an engine that serves.
pub(crate) async fn issue_ticket(
    config: &Config,
    desk: &Desk,
    run: &engine_core::model::RunId,
    person: &str,
    life: SignedDuration,
) -> Result<engine_server::TicketIssued, CliError> {
    let Some(tickets) = tickets(config)? else {
        return Err(CliError::usage("this site has no key for tickets")
            .with_hint("set server.ticket_key to a file of 32 random bytes or more"));
    };
    Ok(tickets.issue(desk, run, person, life, Timestamp::now()).await?)
}
