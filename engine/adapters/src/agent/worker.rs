//! The agent's loop: fetch, check, write down, carry out, write down, answer.

use super::kernel_log::{KernelLog, booted};
use super::ledger::{Begun, Entry, Ledger, LedgerError};
use super::link::{Link, LinkError, Wire};
use super::spool;
use engine_core::model::NodeName;
use engine_runtime::orders::{MAX_ORDER, NodeKey, SignedOrder};
use engine_runtime::ports::{Clock, NodeActuator, WorkResult};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// How long the engine may hold a fetch open.
const HOLD: Duration = Duration::from_secs(25);
/// Time limit of a request beyond that.
const REQUEST: Duration = Duration::from_secs(20);
/// Time limit for handing a result over.
const HAND_OVER: Duration = Duration::from_secs(60);
/// Orders that are carried out side by side.
const AT_ONCE: usize = 4;
/// The largest result, in bytes of its text.
const MAX_RESULT: usize = 32 << 20;
/// Longest pause after a failed request.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Time between two looks into the hook's spool.
const SPOOL_LOOK: Duration = Duration::from_secs(2);
/// Time between two looks into the kernel log.
const LOG_LOOK: Duration = Duration::from_secs(1);
/// How long a stop waits for what is under way.
const STOPPING: Duration = Duration::from_secs(20);

/// What an agent needs to know.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The engine, such as `https://engine:7443`.
    pub engine: String,
    /// Certificates that are believed, in PEM; those of the host where not given.
    pub ca: Option<Vec<u8>>,
    /// This node's own certificate with its chain and its key, in PEM; none where the engine demands none.
    pub identity: Option<Vec<u8>>,
    /// This node's name in slurm.conf.
    pub node: NodeName,
    /// This node's key.
    pub key: NodeKey,
    /// Where it writes down what it has begun.
    pub state: PathBuf,
    /// Where the hook of this node leaves what it could not tell the engine.
    pub spool: Option<PathBuf>,
    /// The kernel's log, for XIDs: `/dev/kmsg`, or a FIFO or file in its place. None where another reads it.
    pub kernel_log: Option<PathBuf>,
}

/// Why the agent cannot work.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The engine's address.
    #[error(transparent)]
    Link(#[from] LinkError),
}

#[derive(Serialize)]
struct Fetch<'a> {
    wait_s: u64,
    release: &'a str,
}

#[derive(Deserialize)]
struct Fetched {
    order: Option<String>,
}

/// An answer as it goes to the engine; without an order it says why a text that came was none.
#[derive(Serialize)]
struct Answer<'a> {
    order: &'a str,
    result: &'a WorkResult,
}

/// The agent of a node.
#[derive(Debug, Clone)]
pub struct Agent {
    node: NodeName,
    key: NodeKey,
    link: Link,
    ledger: Ledger,
    tools: Arc<dyn NodeActuator>,
    clock: Arc<dyn Clock>,
    places: Arc<Semaphore>,
    spools: Vec<PathBuf>,
    state: PathBuf,
    kernel_log: Option<PathBuf>,
    /// Orders that this process is at.
    under_way: Arc<Mutex<BTreeSet<String>>>,
}

impl Agent {
    /// Builds it. `tools` carries orders out, with its own check right before.
    pub fn new(
        config: AgentConfig,
        tools: Arc<dyn NodeActuator>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AgentError> {
        let (ca, identity) = (config.ca.as_deref(), config.identity.as_deref());
        let wire = Wire::new(&config.engine, ca, identity)?;
        let link = Link::new(wire, config.node.clone(), config.key.clone());
        let ledger = Ledger::open(&config.state)?;
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let under_way = Arc::default();
        let mut spools: Vec<PathBuf> = config.spool.into_iter().collect();
        // What an earlier process found is carried also where the log is not read any more.
        spools.push(KernelLog::spool(&config.state));
        let (state, kernel_log) = (config.state, config.kernel_log);
        let (node, key) = (config.node, config.key);
        Ok(Self { node, key, link, ledger, tools, clock, places, spools, state, kernel_log, under_way })
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works until `stop` turns true; what is under way then gets a while to end.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) -> Result<(), AgentError> {
        self.own_up().await?;
        let mut work = JoinSet::new();
        let mut carrying = JoinSet::new();
        for dir in self.spools.clone() {
            let me = self.clone();
            carrying.spawn(async move { me.carry(dir).await });
        }
        if let Some(path) = self.kernel_log.clone() {
            let me = self.clone();
            carrying.spawn(async move { me.watch_kernel_log(path).await });
        }
        let mut pause = Duration::from_millis(500);
        let mut silent = false;
        while !*stop.borrow() {
            while work.try_join_next().is_some() {}
            // A place first: an order that is fetched is carried out at once.
            let place = tokio::select! {
                place = Arc::clone(&self.places).acquire_owned() => place,
                _ = stop.changed() => break,
            };
            let Ok(place) = place else { break };
            let fetched = tokio::select! {
                fetched = self.fetch() => fetched,
                _ = stop.changed() => break,
            };
            match fetched {
                Ok(text) => {
                    if silent {
                        tracing::info!(event = "engine_answers", "the engine answers again");
                        self.own_up().await?;
                    }
                    (silent, pause) = (false, Duration::from_millis(500));
                    if let Some(text) = text {
                        let me = self.clone();
                        work.spawn(async move {
                            me.take(&text).await;
                            drop(place);
                        });
                    }
                }
                Err(e) => {
                    if !silent {
                        tracing::warn!(event = "engine_silent", "{e}");
                    }
                    silent = true;
                    tokio::select! {
                        () = tokio::time::sleep(scattered(pause)) => {}
                        _ = stop.changed() => break,
                    }
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
        }
        let until = tokio::time::Instant::now() + STOPPING;
        while let Ok(Some(_)) = tokio::time::timeout_at(until, work.join_next()).await {}
        if !work.is_empty() {
            tracing::warn!(
                event = "stopping",
                "orders are under way: the next start says that they were cut off"
            );
            work.detach_all();
        }
        Ok(())
    }

    /// Hands over what an earlier process left: results that did not arrive, and orders that it died in.
    async fn own_up(&self) -> Result<(), AgentError> {
        for mut entry in self.ledger.open_entries(self.clock.now())? {
            if self.under_way().contains(&entry.order) {
                continue;
            }
            let died = "the agent stopped while it was carrying this out: look at the node, do not repeat";
            let result = entry.result.get_or_insert_with(|| WorkResult::Ambiguous(died.to_owned())).clone();
            if self.hand_over(&entry.order, &result).await {
                entry.delivered = true;
            }
            self.ledger.put(&entry)?;
        }
        Ok(())
    }

    /// Looks for XIDs in the kernel's log, as long as the agent works; what is found waits in the agent's own spool.
    async fn watch_kernel_log(&self, path: PathBuf) {
        let mut log = KernelLog::new(path, self.state.clone(), self.node.clone(), spool::boot());
        loop {
            let now = self.clock.now();
            // A file in the place of the device may lie on a disk that hangs.
            let looked = tokio::task::spawn_blocking(move || {
                log.look(now, booted(now));
                log
            });
            log = match looked.await {
                Ok(log) => log,
                Err(e) => {
                    tracing::error!(event = "kernel_log", "the kernel log is not read any more: {e}");
                    return;
                }
            };
            tokio::time::sleep(LOG_LOOK).await;
        }
    }

    /// Carries reports that wait to the engine, as long as the agent works.
    async fn carry(&self, dir: PathBuf) {
        let boot = spool::short(&spool::boot());
        loop {
            let (dir, boot, now) = (dir.clone(), boot.clone(), self.clock.now());
            // The directory may lie on a disk that hangs; then nothing is carried, and orders go on.
            let found = tokio::task::spawn_blocking(move || spool::waiting(&dir, &boot, now)).await;
            for report in found.unwrap_or_default() {
                let sent =
                    self.link.post("/agent/v1/alerts", report.body.clone(), self.clock.now(), REQUEST).await;
                match sent {
                    Ok(_) => spool::done(&report, false),
                    Err(LinkError::Refused { status: 400 | 413, text }) => {
                        tracing::warn!(event = "report_refused", text, "a report was refused");
                        spool::done(&report, true);
                    }
                    Err(_) => break,
                }
            }
            tokio::time::sleep(SPOOL_LOOK).await;
        }
    }

    async fn fetch(&self) -> Result<Option<String>, LinkError> {
        let fetch = Fetch { wait_s: HOLD.as_secs(), release: env!("CARGO_PKG_VERSION") };
        let body = serde_json::to_vec(&fetch).map_err(|e| LinkError::Address(e.to_string()))?;
        let reply = self.link.post("/agent/v1/fetch", body, self.clock.now(), HOLD + REQUEST).await?;
        let fetched: Fetched = serde_json::from_slice(&reply)
            .map_err(|e| LinkError::Unreachable(format!("it answers something else: {e}")))?;
        Ok(fetched.order.filter(|o| o.len() <= MAX_ORDER))
    }

    /// Takes one text that came as an order.
    async fn take(&self, text: &str) {
        let signed = match self.key.open(text, &self.node, self.clock.now()) {
            Ok(signed) => signed,
            Err(why) => return self.complain(why.to_string()).await,
        };
        let entry = Entry {
            order: signed.order.id.clone(),
            verb: signed.order.verb.word().to_owned(),
            begun_at: self.clock.now(),
            expires_at: signed.expires_at,
            result: None,
            delivered: false,
        };
        let id = entry.order.clone();
        let new = self.under_way().insert(id.clone());
        let begun = if new { self.ledger.begin(&entry) } else { Ok(Begun::Before) };
        match begun {
            Ok(Begun::Yes) => self.carry_out(signed, entry).await,
            // Nothing is said about the order itself: whoever waits for it hears from those who carried it out.
            Ok(Begun::Before) => self.complain(format!("order {id} came a second time")).await,
            Err(e) => {
                tracing::error!(event = "ledger", "{e}");
                let why = format!("the agent cannot write down that it begins: {e}");
                self.hand_over(&id, &WorkResult::Refused(why)).await;
            }
        }
        if new {
            self.under_way().remove(&id);
        }
    }

    async fn carry_out(&self, signed: SignedOrder, mut entry: Entry) {
        tracing::info!(event = "begin", order = entry.order, verb = entry.verb);
        let tools = Arc::clone(&self.tools);
        let order = signed.order;
        // In a task of its own: a tool that panics is an answer nobody has, not the end of the agent.
        let result = match tokio::spawn(async move { tools.perform(&order).await }).await {
            Ok(result) => result,
            Err(e) => WorkResult::Ambiguous(format!("the work was lost on the node: {e}")),
        };
        let result = bounded(result);
        entry.result = Some(result.clone());
        if let Err(e) = self.ledger.put(&entry) {
            tracing::error!(event = "ledger", "{e}");
        }
        if self.hand_over(&entry.order, &result).await {
            entry.delivered = true;
            // The engine has it; the ledger need not keep a bundle of evidence.
            entry.result = Some(WorkResult::Restored(Vec::new()));
            if let Err(e) = self.ledger.put(&entry) {
                tracing::error!(event = "ledger", "{e}");
            }
        }
    }

    /// Says that something came which was no order to carry out.
    async fn complain(&self, why: String) {
        tracing::warn!(event = "bad_order", why, "something that came as an order was refused");
        self.hand_over("", &WorkResult::Refused(why)).await;
    }

    /// Posts a result; says whether the engine has it.
    async fn hand_over(&self, order: &str, result: &WorkResult) -> bool {
        let Ok(body) = serde_json::to_vec(&Answer { order, result }) else { return false };
        let mut pause = Duration::from_millis(200);
        for _ in 0..5 {
            match self.link.post("/agent/v1/answer", body.clone(), self.clock.now(), HAND_OVER).await {
                Ok(_) => return true,
                // The engine has heard it and will not hear it otherwise.
                Err(LinkError::Refused { status: 400 | 404 | 413, text }) => {
                    tracing::warn!(event = "answer_refused", order, text);
                    return true;
                }
                Err(e) => tracing::debug!(event = "answer_waits", order, "{e}"),
            }
            tokio::time::sleep(pause).await;
            pause *= 3;
        }
        false
    }
}

/// Half to the whole of a pause: the agents of a cluster that lost their engine together do not come back together.
fn scattered(pause: Duration) -> Duration {
    let random = uuid::Uuid::now_v7().as_u128() as u32;
    pause.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

/// Keeps a result within what travels.
fn bounded(result: WorkResult) -> WorkResult {
    match serde_json::to_vec(&result).map(|t| t.len()) {
        Ok(n) if n <= MAX_RESULT => result,
        Ok(n) => WorkResult::Ambiguous(format!("the result has {n} bytes; at most {MAX_RESULT} travel")),
        Err(e) => WorkResult::Ambiguous(format!("the result could not be written: {e}")),
    }
}
