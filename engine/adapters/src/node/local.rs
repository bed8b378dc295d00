//! The actuator of this host: inspection, reset, diagnostic and evidence by the node's own tools.
//!
//! A reset is carried out at most once per order, in a task of its own, so that a caller who goes away does
//! not kill nvidia-smi in the middle. What was taken apart before it is put together again whatever came.

use super::config::NodeToolsConfig;
use super::tools::{Tools, Until, blocking, not_run};
use super::{clocks, evidence, host, kill, processes, quarantine, service};
use crate::dcgm::discovery::uuid as read_uuid;
use crate::dcgm::version::at_least;
use crate::nvidia_smi::{csv, reset};
use crate::process::{self, Finished, RunError};
use async_trait::async_trait;
use engine_core::model::gpu::normalize_bus_id;
use engine_core::model::{GpuProcess, NodeGpus, NodeName, ResetOutcome};
use engine_core::verify::before_reset_on_node;
use engine_core::{Cause, Known};
use engine_runtime::orders::MAX_ORDER_LIFE;
use engine_runtime::ports::{ActuatorStatus, NodeActuator, Verb, WorkOrder, WorkResult};
use jiff::SignedDuration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// Longest time that any order gets, whatever it asks for.
const LONGEST: Duration = Duration::from_secs(2 * 3600);
/// Longest time that a unit manager gets to stop or start a service.
const SERVICE: Duration = Duration::from_secs(90);
/// How long an order that changes something is remembered: twice as long as any order is good, and all its work.
const REMEMBERED: Duration =
    Duration::from_secs(2 * MAX_ORDER_LIFE.as_secs().unsigned_abs() + 2 * LONGEST.as_secs());
/// Orders that are remembered. None of them is forgotten early: beyond it nothing more is changed.
const MAX_REMEMBERED: usize = 10_000;
/// Pause between two looks whether the engine answers again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The actuator of one node, which is this host.
#[derive(Debug, Clone)]
pub struct LocalNode {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    node: NodeName,
    tools: Tools,
    /// Orders that change something: none is carried out twice. Held while one is under way, so a reset and a
    /// diagnostic never meet.
    done: Mutex<Done>,
}

/// Orders that were begun, by their ids, for as long as one of the same id can still come. An agent refuses a text that
/// is older than [`MAX_ORDER_LIFE`], so nothing is kept for much longer than that; time is that since the start, which
/// nobody sets back.
#[derive(Debug, Default)]
struct Done {
    ids: BTreeSet<String>,
    by_age: VecDeque<(Instant, String)>,
}

impl Done {
    /// Notes an order that is begun now; the answer to it where it must not be.
    fn begin(&mut self, id: &str, now: Instant) -> Result<(), Box<WorkResult>> {
        while let Some((at, _)) = self.by_age.front()
            && now.saturating_duration_since(*at) > REMEMBERED
            && let Some((_, old)) = self.by_age.pop_front()
        {
            self.ids.remove(&old);
        }
        if self.ids.contains(id) {
            let why = "this order was carried out before: look what came of it, do not repeat";
            return Err(Box::new(WorkResult::Ambiguous(why.to_owned())));
        }
        if self.ids.len() >= MAX_REMEMBERED {
            let why =
                format!("{MAX_REMEMBERED} orders came within hours: something gives orders without end");
            return Err(Box::new(WorkResult::Refused(why)));
        }
        self.ids.insert(id.to_owned());
        self.by_age.push_back((now, id.to_owned()));
        Ok(())
    }
}

impl LocalNode {
    /// Builds the actuator of this host, known to the cluster as `node`.
    pub fn new(node: NodeName, config: NodeToolsConfig) -> Self {
        Self { inner: Arc::new(Inner { node, tools: Tools::new(config), done: Mutex::default() }) }
    }

    /// Reads everything about the node's GPUs; waits for a reset or a diagnostic that is under way.
    pub async fn inspect(&self, limit: Duration) -> NodeGpus {
        let until = Until::after(limit);
        match timeout(limit, self.inner.done.lock()).await {
            Ok(_nothing_else_runs) => self.inner.tools.inspect(until.left(limit)).await,
            Err(_) => NodeGpus::unseen(Cause::TimedOut, "a reset or a diagnostic is under way on the node"),
        }
    }
}

fn limit_of(order: &WorkOrder) -> Duration {
    let limit = if order.limit > SignedDuration::ZERO { order.limit.unsigned_abs() } else { Duration::ZERO };
    limit.min(LONGEST)
}

#[async_trait]
impl NodeActuator for LocalNode {
    async fn status(&self, node: &NodeName) -> ActuatorStatus {
        let by = "this host".to_owned();
        if *node != self.inner.node {
            let why = format!(
                "this host is {}, and no agent is set up for {}",
                self.inner.node.as_str(),
                node.as_str()
            );
            return ActuatorStatus { by, ready: Err(why) };
        }
        let config = &self.inner.tools.config;
        let mut problems = config.problems();
        for tool in [&config.dcgmi, &config.nvidia_smi] {
            if !tool.is_file() {
                problems.push(format!("{} does not exist; set its path", tool.display()));
            }
        }
        ActuatorStatus { by, ready: if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) } }
    }

    async fn perform(&self, order: &WorkOrder) -> WorkResult {
        if order.node != self.inner.node {
            return WorkResult::Refused(format!(
                "the order is for {} and this host is {}",
                order.node.as_str(),
                self.inner.node.as_str()
            ));
        }
        let limit = limit_of(order);
        if limit.is_zero() {
            return WorkResult::Refused("the order leaves no time".to_owned());
        }
        match &order.verb {
            Verb::Inspect => WorkResult::Inspected(Box::new(self.inspect(limit).await)),
            Verb::CollectEvidence => {
                WorkResult::Evidence(evidence::collect(&self.inner.tools, &self.inner.node, limit).await)
            }
            Verb::RestoreTools => {
                let _nothing_else_runs = self.inner.done.lock().await;
                WorkResult::Restored(self.inner.restore_tools(Until::after(limit)).await)
            }
            Verb::Processes => WorkResult::Processes(processes::list(&self.inner.tools, limit).await),
            Verb::ResetClocks { .. }
            | Verb::RestartService { .. }
            | Verb::KillProcess { .. }
            | Verb::Quarantine { .. } => {
                let (inner, order) = (Arc::clone(&self.inner), order.clone());
                // A task of its own, as for a reset: a caller who goes away leaves nothing half done.
                let task = tokio::spawn(async move { inner.change(&order, Until::after(limit)).await });
                match task.await {
                    Ok(result) => result,
                    Err(e) => WorkResult::Ambiguous(format!("the order was lost on its way: {e}")),
                }
            }
            Verb::Diag { level } if !(1..=4).contains(level) => {
                WorkResult::Refused(format!("there is no diagnostic of level {level}; give 1 to 3"))
            }
            Verb::Diag { level } => {
                let _one_at_a_time = self.inner.done.lock().await;
                let level = *level;
                WorkResult::Diag(self.inner.tools.diag(level, limit).await.map(|d| d.report(level)))
            }
            Verb::ResetGpu { uuid, bus_id } => {
                let inner = Arc::clone(&self.inner);
                let (id, uuid, bus_id) = (order.id.clone(), uuid.clone(), bus_id.clone());
                let task = tokio::spawn(async move { inner.reset(&id, &uuid, &bus_id, limit).await });
                match task.await {
                    Ok(result) => result,
                    Err(e) => WorkResult::Ambiguous(format!("the reset was lost on its way: {e}")),
                }
            }
        }
    }
}

/// What a reset took apart, to be put together again.
#[derive(Default)]
struct TakenApart {
    exporter_stopped: bool,
    engine_stopped: bool,
    detached: bool,
}

impl Inner {
    /// Carries out an order that changes something other than a reset, once.
    async fn change(&self, order: &WorkOrder, until: Until) -> WorkResult {
        let mut done = self.done.lock().await;
        if let Err(answer) = done.begin(&order.id, Instant::now()) {
            return *answer;
        }
        if until.passed() {
            return WorkResult::Refused("another order took all the time".to_owned());
        }
        match &order.verb {
            Verb::ResetClocks { uuid, bus_id } => clocks::reset(&self.tools, uuid, bus_id, until).await,
            Verb::RestartService { unit } => service::restart(&self.tools, unit, until).await,
            Verb::KillProcess { pid, start_time } => kill::kill(&self.tools, *pid, *start_time, until).await,
            Verb::Quarantine { path } => quarantine::quarantine(&self.tools, &order.id, path, until).await,
            other => WorkResult::Refused(format!("{} is no change of this kind", other.word())),
        }
    }

    async fn reset(&self, id: &str, uuid: &str, bus_id: &str, limit: Duration) -> WorkResult {
        let mut done = self.done.lock().await;
        if let Err(answer) = done.begin(id, Instant::now()) {
            return *answer;
        }
        let until = Until::after(limit);
        let mut steps = Vec::new();
        let (Known::Known(_), Some(address)) = (read_uuid(uuid), normalize_bus_id(bus_id)) else {
            return WorkResult::Refused(
                "the order does not name a GPU by its UUID and PCI address".to_owned(),
            );
        };
        let before = match self.check(uuid, &address, until).await {
            Ok(node) => node,
            Err(outcome) => return WorkResult::Reset { outcome, steps },
        };
        steps.push("checked on the node: nothing holds the GPU, it may be reset".to_owned());

        let mut apart = TakenApart::default();
        let outcome = match self.let_go(&before, &mut apart, &mut steps).await {
            Ok(()) => self.reset_now(&address, until, &mut steps).await,
            Err(why) => ResetOutcome::Refused { why, holders: Vec::new() },
        };
        let outcome = self.name_holders(outcome, uuid, &address).await;
        self.put_together(&apart, &outcome, &mut steps).await;
        if outcome == ResetOutcome::Done {
            self.restore_persistence(&before, uuid, &address, &mut steps).await;
        }
        WorkResult::Reset { outcome, steps }
    }

    /// Starts again what a reset takes apart, whatever of it was taken apart: the process that knew is gone.
    async fn restore_tools(&self, until: Until) -> Vec<String> {
        let mut steps = Vec::new();
        let proc_root = self.tools.config.proc_root.clone();
        while host::reset_running(&proc_root) && !until.passed() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        if host::reset_running(&proc_root) {
            steps.push("a reset is still under way: nothing was started".to_owned());
            return steps;
        }
        let apart = TakenApart { exporter_stopped: true, engine_stopped: false, detached: true };
        let outcome = ResetOutcome::Unknown { code: None, text: "its engine died".to_owned() };
        self.put_together(&apart, &outcome, &mut steps).await;
        steps
    }

    /// Looks once more, on the node itself and right before: the GPU, its holders, the jobs' cgroups.
    async fn check(&self, uuid: &str, address: &str, until: Until) -> Result<NodeGpus, ResetOutcome> {
        let refused = |why: String, holders| Err(ResetOutcome::Refused { why, holders });
        let config = &self.tools.config;
        if config.check_job_cgroups {
            let root = config.cgroup_root.clone();
            match blocking(move || host::job_cgroups(&root), until.left(config.read_deadline())).await {
                Known::Known(jobs) if jobs.is_empty() => {}
                Known::Known(jobs) => {
                    let list: Vec<&str> = jobs.iter().map(String::as_str).collect();
                    return refused(
                        format!("jobs still have cgroups on the node: {}", list.join(", ")),
                        Vec::new(),
                    );
                }
                Known::Unknown(u) => {
                    return refused(format!("whether jobs are on the node is {u}"), Vec::new());
                }
            }
        }
        let node = self.tools.inspect(until.left(LONGEST)).await;
        let list = before_reset_on_node(&node, uuid, address);
        if list.passed() {
            return Ok(node);
        }
        let holders: Vec<GpuProcess> =
            node.gpus.iter().filter_map(|g| g.processes.known()).flatten().cloned().collect();
        refused(format!("the node's own check: {}", list.summary()), holders)
    }

    /// Makes everything of ours let go of the driver: the exporter, and DCGM by detaching or by being stopped.
    async fn let_go(
        &self,
        node: &NodeGpus,
        apart: &mut TakenApart,
        steps: &mut Vec<String>,
    ) -> Result<(), String> {
        let config = &self.tools.config;
        if !config.stop_exporter.is_empty() {
            apart.exporter_stopped = true;
            let answer = self.tools.command(&config.stop_exporter, SERVICE).await;
            note(steps, "stop dcgm-exporter", answer.as_ref());
        }
        let can_detach = node.dcgm_version.known().and_then(|v| at_least(v, 4, 5)).unwrap_or(false);
        if can_detach {
            apart.detached = true;
            return match self.tools.dcgmi(&["set", "--detach-driver"], config.read_deadline()).await {
                Ok(_) => {
                    steps.push("dcgmi set --detach-driver: done".to_owned());
                    Ok(())
                }
                Err(e) => {
                    steps.push(format!("dcgmi set --detach-driver: {}", e.unknown));
                    Err("DCGM did not let go of the driver".to_owned())
                }
            };
        }
        if config.stop_engine.is_empty() {
            steps.push("nv-hostengine keeps running: no command to stop it is configured".to_owned());
            return Ok(());
        }
        apart.engine_stopped = true;
        let answer = self.tools.command(&config.stop_engine, SERVICE).await;
        note(steps, "stop nv-hostengine", answer.as_ref());
        match answer {
            Some(Ok(f)) if f.exit.success() => Ok(()),
            _ => Err("nv-hostengine could not be stopped".to_owned()),
        }
    }

    async fn reset_now(&self, address: &str, until: Until, steps: &mut Vec<String>) -> ResetOutcome {
        let config = &self.tools.config;
        let limit = until.left(Duration::from_secs(config.reset_deadline_seconds));
        if limit < Duration::from_secs(1) {
            let why = "no time is left for the reset".to_owned();
            return ResetOutcome::Refused { why, holders: Vec::new() };
        }
        // TERM in the middle of a reset may leave the GPU half reset: a long grace before KILL.
        let program = self
            .tools
            .program(&config.nvidia_smi, &["--gpu-reset", "-i", address], limit)
            .grace(Duration::from_secs(20));
        let (outcome, how) = match process::run(&program).await {
            Ok(f) => (reset::outcome(Some(f.exit), &f.stdout, &f.stderr), f.exit.to_string()),
            Err(e) if e.never_started() => {
                let why = not_run(&e).detail;
                (ResetOutcome::Refused { why, holders: Vec::new() }, "not started".to_owned())
            }
            Err(e) => {
                (ResetOutcome::Unknown { code: None, text: not_run(&e).detail }, "no exit code".to_owned())
            }
        };
        steps.push(format!("nvidia-smi --gpu-reset -i {address}: {how}: {}", outcome.describe()));
        outcome
    }

    /// Adds the names of the holders to a refusal that the tool gave without them.
    async fn name_holders(&self, outcome: ResetOutcome, uuid: &str, address: &str) -> ResetOutcome {
        let ResetOutcome::Refused { why, mut holders } = outcome else { return outcome };
        if !holders.is_empty() {
            return ResetOutcome::Refused { why, holders };
        }
        let limit = self.tools.config.read_deadline();
        let query = format!("--query-compute-apps={}", csv::APP_FIELDS);
        if let Ok(out) = self.tools.smi(&[&query, "--format=csv,nounits"], limit).await
            && let Known::Known(apps) = csv::parse_apps(&out)
        {
            holders.extend(apps.into_iter().filter(|a| a.gpu_uuid == uuid).map(|a| a.process));
        }
        let (proc_root, bus) = (self.tools.config.proc_root.clone(), address.to_owned());
        if let Known::Known(list) = blocking(move || host::device_holders(&proc_root, &bus), limit).await {
            holders.extend(list);
        }
        holders.sort_by_key(|p| p.pid);
        holders.dedup_by_key(|p| p.pid);
        ResetOutcome::Refused { why, holders }
    }

    /// Undoes [`Self::let_go`], and starts the engine anew after a reset: only that clears its memory of XIDs.
    async fn put_together(&self, apart: &TakenApart, outcome: &ResetOutcome, steps: &mut Vec<String>) {
        let config = &self.tools.config;
        if apart.detached {
            steps.push(match self.tools.dcgmi(&["set", "--attach-driver"], config.read_deadline()).await {
                Ok(_) => "dcgmi set --attach-driver: done".to_owned(),
                Err(e) => format!("dcgmi set --attach-driver: {}", e.unknown),
            });
        }
        let anew = !outcome.changed_nothing();
        if anew && !apart.engine_stopped {
            match self.tools.command(&config.stop_engine, SERVICE).await {
                Some(answer) => note(steps, "stop nv-hostengine", Some(&answer)),
                None => steps.push("nv-hostengine is not restarted: no command is configured".to_owned()),
            }
        }
        if (anew || apart.engine_stopped) && !config.start_engine.is_empty() {
            let answer = self.tools.command(&config.start_engine, SERVICE).await;
            note(steps, "start nv-hostengine", answer.as_ref());
            self.wait_for_engine(steps).await;
        }
        if anew || apart.engine_stopped || apart.detached {
            let until = Until::after(config.read_deadline());
            steps.push(match self.tools.set_watches(until).await {
                Known::Known(_) => "dcgmi health -g 0 -s a: done".to_owned(),
                Known::Unknown(u) => format!("dcgmi health -g 0 -s a: {u}"),
            });
        }
        // An exporter ends when its engine does, and its unit does not start it again.
        if !config.start_exporter.is_empty() && (anew || apart.exporter_stopped) {
            let answer = self.tools.command(&config.start_exporter, SERVICE).await;
            note(steps, "start dcgm-exporter", answer.as_ref());
        }
    }

    async fn wait_for_engine(&self, steps: &mut Vec<String>) {
        let config = &self.tools.config;
        let until = Until::after(Duration::from_secs(config.engine_start_seconds));
        loop {
            let last = match self.tools.dcgmi(&["discovery", "-l"], config.read_deadline()).await {
                Ok(_) => {
                    steps.push("nv-hostengine answers".to_owned());
                    return;
                }
                Err(e) => e.unknown,
            };
            if until.passed() {
                steps.push(format!("nv-hostengine does not answer: {last}"));
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// A reset can lose the persistence mode that was set without the daemon.
    async fn restore_persistence(
        &self,
        before: &NodeGpus,
        uuid: &str,
        address: &str,
        steps: &mut Vec<String>,
    ) {
        let limit = self.tools.config.read_deadline();
        let was = before.find(uuid).and_then(|g| g.persistence_mode.known());
        let now = match self
            .tools
            .smi(&["--query-gpu=uuid,persistence_mode", "--format=csv,nounits"], limit)
            .await
        {
            Ok(out) => csv::parse_gpus(&out).and_then(|t| {
                let gpu = t.gpus.into_iter().find(|g| g.uuid.is_known_and(|u| u == uuid));
                gpu.map_or_else(|| Known::unknown(Cause::EmptyAnswer, "not listed"), |g| g.persistence_mode)
            }),
            Err(u) => Known::Unknown(u),
        };
        match (was, now) {
            (Some(true), Known::Known(false)) => {
                let answer = self.tools.smi(&["-i", address, "-pm", "1"], limit).await;
                steps.push(match answer {
                    Ok(_) => "persistence mode set again".to_owned(),
                    Err(u) => format!("persistence mode could not be set again: {u}"),
                });
            }
            (_, Known::Unknown(u)) => steps.push(format!("persistence mode after the reset is {u}")),
            _ => {}
        }
    }
}

/// Records what came of a command.
fn note(steps: &mut Vec<String>, what: &str, answer: Option<&Result<Finished, RunError>>) {
    steps.push(match answer {
        None => format!("{what}: no command is configured"),
        Some(Ok(f)) if f.exit.success() => format!("{what}: done"),
        Some(Ok(f)) => format!("{what}: {}", f.exit),
        Some(Err(e)) => format!("{what}: {}", not_run(e).detail),
    });
}

/// Several nodes whose tools run on this host, each with its own; for a laboratory of simulated nodes.
#[derive(Debug, Clone, Default)]
pub struct LocalNodes {
    nodes: BTreeMap<NodeName, LocalNode>,
}

impl LocalNodes {
    /// Builds it from the tools of each node.
    pub fn new(nodes: impl IntoIterator<Item = (NodeName, NodeToolsConfig)>) -> Self {
        Self { nodes: nodes.into_iter().map(|(n, c)| (n.clone(), LocalNode::new(n, c))).collect() }
    }
}

#[async_trait]
impl NodeActuator for LocalNodes {
    async fn status(&self, node: &NodeName) -> ActuatorStatus {
        match self.nodes.get(node) {
            Some(n) => n.status(node).await,
            None => {
                let why = format!("no tools are set up for {}", node.as_str());
                ActuatorStatus { by: "this host".to_owned(), ready: Err(why) }
            }
        }
    }

    async fn perform(&self, order: &WorkOrder) -> WorkResult {
        match self.nodes.get(&order.node) {
            Some(n) => n.perform(order).await,
            None => WorkResult::Refused(format!("no tools are set up for {}", order.node.as_str())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_remembered_as_long_as_it_can_come_again_and_no_longer() {
        let mut done = Done::default();
        let start = Instant::now();
        assert_eq!(done.begin("a", start), Ok(()));
        assert!(matches!(*done.begin("a", start).unwrap_err(), WorkResult::Ambiguous(_)));
        let good = Duration::from_secs(MAX_ORDER_LIFE.as_secs().unsigned_abs());
        assert!(REMEMBERED > good + LONGEST);
        assert!(done.begin("a", start + REMEMBERED).is_err());
        assert_eq!(done.begin("b", start + REMEMBERED + Duration::from_secs(1)), Ok(()));
        assert_eq!((done.ids.len(), done.by_age.len()), (1, 1), "the first is forgotten");
    }

    #[test]
    fn a_node_that_cannot_keep_orders_apart_changes_nothing_more() {
        let mut done = Done::default();
        let start = Instant::now();
        assert!((0..MAX_REMEMBERED).all(|i| done.begin(&i.to_string(), start).is_ok()));
        assert!(matches!(*done.begin("one more", start).unwrap_err(), WorkResult::Refused(_)));
        assert_eq!(done.begin("one more", start + REMEMBERED + Duration::from_secs(1)), Ok(()));
        assert_eq!(done.ids.len(), 1);
    }
}
