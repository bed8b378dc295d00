//! A server on loopback with an engine behind it whose time the test moves.

use async_trait::async_trait;
use engine_core::incident::{IntakeRules, Place, Shape, StormRules};
use engine_core::model::NodeName;
use engine_core::policy::{Policy, Role, Roles};
use engine_playbook::Renderer;
use engine_runtime::engine::{Engine, EngineConfig, Ports, TimeIds};
use engine_runtime::fleet::{ByFault, FleetLog, Intake};
use engine_runtime::journal::{Journal, JournalError, MemoryJournal, NewRecord, Record, StreamName};
use engine_runtime::orders::{Enrolment, Mailbox};
use engine_runtime::ports::Clock;
use engine_runtime::system::SystemClock;
use engine_server::sources::{Source, SourceConfig};
use engine_server::{
    Authority, Bound, Current, Desk, Health, Limits, Listen, NewToken, Parts, PlaybooksNow, Server,
    ServerSettings, Telemetry, TicketDesk, TokenFile, TokenScope, TokenStore, bind_net, bind_socket, serve,
};
use engine_testkit::journal::{Guarded, Porter};
use engine_testkit::ports::{SimActuator, SimScheduler};
use engine_testkit::world::{SimConfig, SimWorld};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// Nodes of the cluster, `gpu001` on.
pub(crate) const NODES: usize = 64;

/// A clock that the test moves.
#[derive(Debug, Clone)]
pub(crate) struct HandClock(Arc<Mutex<Timestamp>>);

impl HandClock {
    pub(crate) fn pass(&self, time: SignedDuration) {
        *self.0.lock().unwrap() += time;
    }
}

#[async_trait]
impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    async fn sleep(&self, _: SignedDuration) {
        tokio::task::yield_now().await;
    }
}

/// A disk that is full for a while.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flaky(Arc<AtomicBool>);

impl Flaky {
    pub(crate) fn is_full(&self, full: bool) {
        self.0.store(full, Ordering::SeqCst);
    }
}

#[async_trait]
impl Porter for Flaky {
    async fn append_records(
        &self,
        inner: &MemoryJournal,
        stream: &StreamName,
        after: Option<u64>,
        at: Timestamp,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Record>, JournalError> {
        if self.0.load(Ordering::SeqCst) {
            return Err(JournalError::Store { doing: "written", source: "no space left".into() });
        }
        inner.append_records(stream, after, at, records).await
    }
}

/// What differs from one test to another.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) sources: BTreeMap<String, SourceConfig>,
    pub(crate) limits: Option<Limits>,
    pub(crate) ticket_key: Option<Vec<u8>>,
    pub(crate) open_metrics: bool,
    pub(crate) listen: Option<Listen>,
    pub(crate) orders: Option<Arc<Mailbox>>,
    pub(crate) node_certificates: Option<Vec<String>>,
    pub(crate) enrolment: Option<Arc<Enrolment>>,
}

/// The server with everything around it.
pub(crate) struct Rig {
    pub(crate) url: String,
    pub(crate) socket: PathBuf,
    pub(crate) clock: HandClock,
    pub(crate) intake: Arc<Intake>,
    pub(crate) log: Arc<FleetLog>,
    pub(crate) journal: Arc<Guarded<Flaky>>,
    pub(crate) disk: Flaky,
    pub(crate) http: reqwest::Client,
    tokens: PathBuf,
    stop: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

impl Rig {
    pub(crate) async fn start(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = HandClock(Arc::new(Mutex::new(Timestamp::now())));
        let disk = Flaky::default();
        let journal = Arc::new(Guarded::new(MemoryJournal::new(), disk.clone()));
        let world = SimWorld::new(SimConfig::new(NODES, 1, clock.now()));
        let ports = Ports {
            scheduler: Arc::new(SimScheduler::new(&world)),
            actuator: Arc::new(SimActuator::new(&world)),
            telemetry: None,
            clock: Arc::new(clock.clone()),
            ids: Arc::new(TimeIds),
            journal: Arc::clone(&journal) as Arc<dyn Journal>,
        };
        let engine = Engine::new(ports, EngineConfig::default(), Arc::new(Renderer::new()));
        let shared: Arc<dyn Journal> = journal.clone();
        let log = Arc::new(FleetLog::open(Arc::clone(&shared), Arc::new(clock.clone())).await.unwrap());
        let intake = Arc::new(Intake::new(Arc::clone(&log), IntakeRules::default(), StormRules::default()));
        let place = || Place { partitions: vec!["main".to_owned()], rack: None };
        intake.set_shape(Arc::new(Shape::new((1..=NODES).map(|i| (node(i), place())))));
        let tokens = dir.path().join("tokens.json");
        TokenFile::default().write(&tokens).unwrap();
        let minute = SignedDuration::from_mins(1);
        let settings = ServerSettings { sources: setup.sources, ..ServerSettings::default() };
        let sources = settings.sources().unwrap();
        let sources = sources.into_iter().map(|(n, s)| (n.clone(), Arc::new(Source::new(&n, s).unwrap())));
        let roles: Roles = serde_json::from_str(
            r#"{"viewer": {"users": ["*"]}, "operator": {"users": ["olga"]}, "approver": {"users": ["ada"]}, "admin": {"users": ["root"]}}"#,
        )
        .unwrap();
        let parts = Parts {
            desk: Desk::with_log(engine, Arc::clone(&log)),
            intake: Arc::clone(&intake),
            health: Arc::new(Health::new(shared, Arc::new(SystemClock), minute, minute)),
            telemetry: Telemetry::default(),
            authority: Arc::new(Current::new(Arc::new(Authority::new(
                roles,
                Some("policy.yaml".to_owned()),
            )))),
            policy: Arc::new(Current::new(Arc::new(Policy::default()))),
            tokens: Some(Arc::new(TokenStore::open(tokens.clone()).unwrap())),
            tickets: Arc::new(Current::new(Arc::new(setup.ticket_key.map(|k| TicketDesk::new(k).unwrap())))),
            orders: setup.orders,
            node_certificates: setup.node_certificates,
            enrolment: setup.enrolment,
            playbooks: Arc::new(PlaybooksNow::new(Arc::new(ByFault::newest(
                engine_playbook::Library::embedded().playbooks(),
            )))),
            sources: Arc::new(Current::new(Arc::new(sources.collect()))),
            open_metrics: setup.open_metrics,
            limits: setup.limits.unwrap_or_default(),
            journal: None,
            simulated: true,
            look: Mutex::default(),
        };
        let server = Server::new(parts);
        let listen = setup.listen.unwrap_or_else(|| Listen::Plain("127.0.0.1:0".parse().unwrap()));
        let net = bind_net(&listen).await.unwrap();
        let socket = dir.path().join("engine.sock");
        let faces: Vec<Bound> = vec![bind_socket(&socket).unwrap(), net];
        let url = faces[1].place();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(async move { serve(&server, faces, stopped).await });
        let _ = rustls_provider();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { url, socket, clock, intake, log, journal, disk, http, tokens, stop, _dir: dir }
    }

    pub(crate) fn clock_now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Makes a token.
    pub(crate) fn token(
        &self,
        name: &str,
        role: Role,
        person: Option<&str>,
        scopes: &[TokenScope],
    ) -> String {
        self.token_until(name, role, person, scopes, Timestamp::now() + SignedDuration::from_hours(1))
    }

    pub(crate) fn token_until(
        &self,
        name: &str,
        role: Role,
        person: Option<&str>,
        scopes: &[TokenScope],
        expires_at: Timestamp,
    ) -> String {
        let mut file = TokenFile::read(&self.tokens).unwrap();
        let new = NewToken {
            name: name.to_owned(),
            role,
            scopes: scopes.iter().copied().collect(),
            person: person.map(str::to_owned),
            expires_at,
        };
        let made = Timestamp::now().min(expires_at) - SignedDuration::from_secs(60);
        let text = file.add(new, made).unwrap();
        file.write(&self.tokens).unwrap();
        text
    }

    pub(crate) fn revoke(&self, name: &str) {
        let mut file = TokenFile::read(&self.tokens).unwrap();
        assert!(file.revoke(name));
        file.write(&self.tokens).unwrap();
    }

    /// A token that may feed alerts.
    pub(crate) fn feeder(&self) -> String {
        self.token("feeder", Role::Viewer, None, &[TokenScope::Alerts])
    }

    /// Posts a body; returns status and answer.
    pub(crate) async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> (u16, serde_json::Value) {
        let mut request = self.http.post(format!("{}{path}", self.url)).body(body);
        for (k, v) in headers {
            request = request.header(*k, *v);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let mut request = self.http.get(format!("{}{path}", self.url));
        for (k, v) in headers {
            request = request.header(*k, *v);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Counts open incidents of nodes.
    pub(crate) async fn open(&self) -> usize {
        self.log.read(|f| f.incidents().filter(|i| i.node().is_some()).count()).await
    }

    /// Counts the records of the fleet's stream.
    pub(crate) async fn records(&self) -> u64 {
        let name = StreamName::new("fleet").unwrap();
        self.journal.stream_length(&name).await.unwrap()
    }

    /// Reads one series of the metrics.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let client = reqwest::Client::builder().unix_socket(self.socket.clone()).build().unwrap();
        let text = client.get("http://e/metrics").send().await.unwrap().text().await.unwrap();
        let line =
            text.lines().find(|l| l.starts_with(series)).unwrap_or_else(|| panic!("no {series} in\n{text}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}

/// Writes a file that only its owner reads.
pub(crate) fn secret_file(path: PathBuf, text: &[u8]) -> PathBuf {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut f =
        std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path).unwrap();
    f.write_all(text).unwrap();
    path
}

fn rustls_provider() -> Result<(), Arc<rustls::crypto::CryptoProvider>> {
    rustls::crypto::ring::default_provider().install_default()
}

pub(crate) fn node(i: usize) -> NodeName {
    NodeName::new(&format!("gpu{i:03}")).unwrap()
}

pub(crate) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A post of Alertmanager with alerts as (node, status, began, extra label).
pub(crate) fn alertmanager(alerts: &[(&str, &str, Timestamp, &str)]) -> String {
    let all: Vec<serde_json::Value> = alerts
        .iter()
        .map(|(node, status, began, extra)| {
            serde_json::json!({
                "status": status,
                "labels": { "alertname": "GpuDbe", "fault": "gpu-ecc-uncorrectable", "node": node, "extra": extra },
                "annotations": { "summary": "a test" },
                "startsAt": began.to_string(),
                "endsAt": "0001-01-01T00:00:00Z",
            })
        })
        .collect();
    serde_json::json!({ "version": "4", "status": "firing", "alerts": all }).to_string()
}
