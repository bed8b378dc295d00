//! Calls of `dcgmi` and `nvidia-smi`, and the inspection of a node that is made of them.

use super::config::{ExporterCheck, NodeToolsConfig};
use super::{host, scrape};
use crate::dcgm::assemble::{Readings, assemble_node_gpus};
use crate::dcgm::diag::{self, Diag};
use crate::dcgm::fault::Fault;
use crate::dcgm::fields::dmon_ids;
use crate::dcgm::version::at_least;
use crate::dcgm::{discovery, dmon, health, nvlink, text, version};
use crate::nvidia_smi::{code_meaning, csv};
use crate::process::{self, Exit, Finished, Program, RunError};
use engine_core::model::NodeGpus;
use engine_core::{Cause, Known, Unknown};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// Most of a tool's output that is kept, in bytes.
const MAX_OUTPUT: usize = 8 << 20;

/// A failed call of `dcgmi`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DcgmiError {
    /// What it means, where dcgmi itself said so.
    pub(crate) fault: Option<Fault>,
    /// For the facts that it leaves unknown.
    pub(crate) unknown: Unknown,
}

/// The tools of one node.
#[derive(Debug, Clone)]
pub struct Tools {
    pub(crate) config: NodeToolsConfig,
}

/// A time by which a group of calls must be done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Until(Instant);

impl Until {
    pub(crate) fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    /// Returns what is left, at most `most`.
    pub(crate) fn left(self, most: Duration) -> Duration {
        self.0.saturating_duration_since(Instant::now()).min(most)
    }

    pub(crate) fn passed(self) -> bool {
        Instant::now() >= self.0
    }
}

/// Builds the unknown of a call that did not end by itself.
pub(crate) fn not_run(e: &RunError) -> Unknown {
    let cause = if matches!(e, RunError::TimedOut { .. }) { Cause::TimedOut } else { Cause::ReadFailed };
    let mut words = e.to_string();
    let mut next = std::error::Error::source(e);
    while let Some(source) = next {
        words.push_str(&format!(": {source}"));
        next = source.source();
    }
    Unknown::new(cause, words)
}

impl Tools {
    /// Builds the tools of a node.
    pub fn new(config: NodeToolsConfig) -> Self {
        Self { config }
    }

    pub(crate) fn program(&self, path: &Path, args: &[&str], limit: Duration) -> Program {
        let mut p = Program::new(path).args(args.iter().copied()).deadline(limit).max_output(MAX_OUTPUT);
        p.env = self.config.environment.clone();
        p
    }

    /// Runs a command of the configuration; `None` where there is none.
    pub(crate) async fn command(
        &self,
        words: &[String],
        limit: Duration,
    ) -> Option<Result<Finished, RunError>> {
        let (program, args) = words.split_first()?;
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Some(process::run(&self.program(program.as_ref(), &args, limit)).await)
    }

    /// Calls dcgmi and returns its output if it exits 0.
    pub(crate) async fn dcgmi(&self, args: &[&str], limit: Duration) -> Result<Vec<u8>, DcgmiError> {
        let finished = match process::run(&self.program(&self.config.dcgmi, args, limit)).await {
            Ok(f) => f,
            Err(e) => return Err(DcgmiError { fault: None, unknown: not_run(&e) }),
        };
        if let Some(fault) = Fault::of(finished.exit, &finished.stdout, &finished.stderr) {
            let unknown = fault.unknown(finished.exit, &finished.stdout, &finished.stderr);
            return Err(DcgmiError { fault: Some(fault), unknown });
        }
        whole(finished, "dcgmi").map_err(|unknown| DcgmiError { fault: None, unknown })
    }

    /// Calls nvidia-smi and returns its output if it exits 0.
    pub(crate) async fn smi(&self, args: &[&str], limit: Duration) -> Result<Vec<u8>, Unknown> {
        let finished = process::run(&self.program(&self.config.nvidia_smi, args, limit))
            .await
            .map_err(|e| not_run(&e))?;
        let code = match finished.exit {
            Exit::Code(0) => return whole(finished, "nvidia-smi"),
            Exit::Code(c) => c,
            Exit::Signal(s) => {
                return Err(Unknown::new(Cause::ReadFailed, format!("nvidia-smi: signal {s}")));
            }
        };
        let words =
            text::one_line(&format!("{} {}", text::decode(&finished.stdout), text::decode(&finished.stderr)));
        let bad_field = code == 2 && words.contains("is not a valid field");
        let cause = if bad_field { Cause::Unsupported } else { Cause::ReadFailed };
        Err(Unknown::new(cause, format!("nvidia-smi: exit code {code} ({}): {words}", code_meaning(code))))
    }

    /// Reads everything about the node's GPUs. A tool that hangs or is missing leaves its facts unknown.
    ///
    /// The health watches are set on the way: without them a check refuses, and with a part of them it would
    /// say Healthy of what it does not watch.
    pub async fn inspect(&self, limit: Duration) -> NodeGpus {
        let until = Until::after(limit);
        let (mut r, smi, exporter_up) =
            tokio::join!(self.read_dcgm(until), self.read_smi(until), self.exporter(until));
        (r.smi, r.rows, r.fabric, r.apps) = smi;
        r.exporter_up = exporter_up;
        let proc_root = self.config.proc_root.clone();
        r.diag_running =
            blocking(move || host::diag_running(&proc_root), until.left(self.config.read_deadline())).await;
        assemble_node_gpus(&r)
    }

    async fn read_dcgm(&self, until: Until) -> Readings {
        let each = self.config.read_deadline();
        let mut r = Readings::none(Cause::NotObserved, "not read");
        let (found, version) = tokio::join!(
            self.dcgmi(&["discovery", "-l"], until.left(each)),
            self.dcgmi(&["-v"], until.left(each))
        );
        r.version = match version {
            Ok(out) => Known::Known(version::parse(&out)),
            Err(e) => Known::Unknown(e.unknown),
        };
        match found {
            Ok(out) => r.discovery = discovery::parse(&out),
            Err(e) => {
                // Every other call would wait for the same engine, each with its own 5 or 120 seconds.
                let skipped = Unknown::new(e.unknown.cause, format!("not asked: {}", e.unknown.detail));
                let reachable = e.fault.is_some_and(Fault::engine_answered);
                r.discovery_fault = e.fault;
                r.discovery = Known::Unknown(e.unknown);
                if !reachable {
                    r.dmon = Known::Unknown(skipped.clone());
                    r.health = Known::Unknown(skipped.clone());
                    r.nvlink = Known::Unknown(skipped);
                    return r;
                }
            }
        }
        let engine = r.version.known().and_then(|v| v.engine.known().cloned());
        let (dmon, health, nvlink) = tokio::join!(
            self.values(engine.as_deref(), until),
            self.health(until),
            self.dcgmi(&["nvlink", "-s"], until.left(each)),
        );
        r.dmon = dmon;
        r.health = health;
        r.nvlink = match nvlink {
            Ok(out) => nvlink::parse(&out),
            Err(e) => Known::Unknown(e.unknown),
        };
        r
    }

    /// Reads the fields once. An engine that does not know field 1523 refuses all of them: then without it.
    async fn values(&self, engine: Option<&str>, until: Until) -> Known<dmon::Dmon> {
        let each = self.config.read_deadline();
        let newest = engine.and_then(|v| at_least(v, 4, 5)).unwrap_or(true);
        let mut failed = None;
        for recovery_action in if newest { vec![true, false] } else { vec![false] } {
            let ids: Vec<String> = dmon_ids(recovery_action).iter().map(u16::to_string).collect();
            match self.dcgmi(&["dmon", "-e", &ids.join(","), "-c", "1"], until.left(each)).await {
                Ok(out) => return dmon::parse(&out),
                Err(e) => {
                    let refused = e.fault == Some(Fault::BadParameter);
                    failed = Some(e.unknown);
                    if !refused {
                        break;
                    }
                }
            }
        }
        Known::Unknown(failed.unwrap_or_else(|| Unknown::new(Cause::NotObserved, "no fields to ask for")))
    }

    async fn health(&self, until: Until) -> Known<engine_core::model::gpu::HealthReport> {
        if let Known::Unknown(u) = self.set_watches(until).await {
            return Known::Unknown(Unknown::new(
                u.cause,
                format!("health watches could not be set: {}", u.detail),
            ));
        }
        match self.dcgmi(&["health", "-g", "0", "-c", "-j"], until.left(self.config.read_deadline())).await {
            Ok(out) => health::parse(&out),
            Err(e) => Known::Unknown(e.unknown),
        }
    }

    /// Sets all health watches; they are gone after a restart of the engine.
    pub(crate) async fn set_watches(&self, until: Until) -> Known<bool> {
        match self.dcgmi(&["health", "-g", "0", "-s", "a"], until.left(self.config.read_deadline())).await {
            Ok(out) => health::parse_set(&out),
            Err(e) => Known::Unknown(e.unknown),
        }
    }

    async fn read_smi(
        &self,
        until: Until,
    ) -> (Known<csv::SmiGpus>, Known<csv::SmiGpus>, Known<csv::SmiGpus>, Known<Vec<csv::App>>) {
        let left = || until.left(self.config.read_deadline());
        let table = |r: Result<Vec<u8>, Unknown>| match r {
            Ok(out) => csv::parse_gpus(&out),
            Err(u) => Known::Unknown(u),
        };
        let query = |what: &str, fields: &str| format!("--query-{what}={fields}");
        let mut first = self.smi(&[&query("gpu", csv::GPU_FIELDS), "--format=csv,nounits"], left()).await;
        if let Err(u) = &first {
            if u.cause == Cause::Unsupported {
                // A driver without reset_status refuses the whole query.
                let fields: Vec<&str> =
                    csv::GPU_FIELDS.split(',').filter(|f| !f.starts_with("reset_status")).collect();
                first = self.smi(&[&query("gpu", &fields.join(",")), "--format=csv,nounits"], left()).await;
            } else if u.cause == Cause::TimedOut {
                // A driver that hangs once hangs always.
                let skipped = Unknown::new(u.cause, format!("not asked: {}", u.detail));
                let gpus = Known::Unknown(u.clone());
                return (
                    gpus,
                    Known::Unknown(skipped.clone()),
                    Known::Unknown(skipped.clone()),
                    Known::Unknown(skipped),
                );
            }
        }
        let rows = query("remapped-rows", csv::ROW_FIELDS);
        let fabric = query("gpu", csv::FABRIC_FIELDS);
        let apps = query("compute-apps", csv::APP_FIELDS);
        let rows_args = [rows.as_str(), "--format=csv,nounits"];
        let fabric_args = [fabric.as_str(), "--format=csv,nounits"];
        let apps_args = [apps.as_str(), "--format=csv,nounits"];
        let (rows, fabric, apps) = tokio::join!(
            self.smi(&rows_args, left()),
            self.smi(&fabric_args, left()),
            self.smi(&apps_args, left()),
        );
        let apps = match apps {
            Ok(out) => csv::parse_apps(&out),
            Err(u) => Known::Unknown(u),
        };
        (table(first), table(rows), table(fabric), apps)
    }

    async fn exporter(&self, until: Until) -> Known<bool> {
        let left = until.left(self.config.read_deadline());
        match &self.config.exporter {
            ExporterCheck::None => Known::unknown(Cause::NotObserved, "no exporter is configured"),
            ExporterCheck::Url(url) => scrape::exporter_up(url, left).await,
            ExporterCheck::Command(words) => match self.command(words, left).await {
                Some(Ok(f)) => match f.exit {
                    Exit::Code(c) => Known::Known(c == 0),
                    Exit::Signal(s) => {
                        Known::unknown(Cause::ReadFailed, format!("{}: signal {s}", words.join(" ")))
                    }
                },
                Some(Err(e)) => Known::Unknown(not_run(&e)),
                None => Known::unknown(Cause::NotObserved, "no exporter is configured"),
            },
        }
    }

    /// Runs the diagnostic and holds it against what DCGM sees: every GPU, and an exit code that agrees.
    pub async fn diag(&self, level: u8, limit: Duration) -> Known<Diag> {
        let until = Until::after(limit);
        // With the engine down dcgmi would run one of its own, which proves nothing.
        let found = match self.dcgmi(&["discovery", "-l"], until.left(self.config.read_deadline())).await {
            Ok(out) => match discovery::parse(&out) {
                Known::Known(list) if list.is_empty() => {
                    return Known::unknown(Cause::Conflicting, "DCGM finds no GPU to diagnose");
                }
                Known::Known(list) => list,
                Known::Unknown(u) => return Known::Unknown(u),
            },
            Err(e) => return Known::Unknown(e.unknown),
        };
        let level_word = level.to_string();
        let program = self.program(&self.config.dcgmi, &["diag", "-r", &level_word, "-j"], until.left(limit));
        let finished = match process::run(&program).await {
            Ok(f) => f,
            Err(e) => return Known::Unknown(not_run(&e)),
        };
        if finished.truncated {
            return Known::unknown(Cause::Unparsable, "the diagnostic printed more than is kept");
        }
        let fault = Fault::of(finished.exit, &finished.stdout, &finished.stderr);
        let report = diag::parse(&finished.stdout);
        let Known::Known(d) = report else {
            return match fault {
                // The words of the JSON say more than the code.
                Some(f) if f != Fault::Generic => report.and_then(|_| Known::unknown(f.cause(), "")),
                Some(f) => Known::Unknown(f.unknown(finished.exit, &finished.stdout, &finished.stderr)),
                None => report,
            };
        };
        let passed = d.overall == engine_core::model::gpu::Health::Pass;
        match fault {
            Some(Fault::DiagFailed | Fault::Isolate) if !passed => {}
            None if passed => {}
            _ => {
                let word = d.overall.as_str();
                return Known::unknown(
                    Cause::Conflicting,
                    format!("the diagnostic says {word}, with {}", finished.exit),
                );
            }
        }
        let ids: BTreeSet<u32> = found.iter().map(|g| g.id).collect();
        if !d.gpus.is_empty() && d.gpus != ids {
            let why = format!("the diagnostic covers GPUs {:?} of {ids:?}", d.gpus);
            return Known::unknown(Cause::Conflicting, why);
        }
        Known::Known(d)
    }
}

/// Returns the output if all of it was kept.
fn whole(f: Finished, tool: &str) -> Result<Vec<u8>, Unknown> {
    if f.truncated {
        return Err(Unknown::new(Cause::Unparsable, format!("{tool} printed more than {MAX_OUTPUT} bytes")));
    }
    Ok(f.stdout)
}

/// Runs a read of the kernel's files apart from the event loop, bounded in time.
pub(crate) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Known<T> + Send + 'static,
    limit: Duration,
) -> Known<T> {
    match tokio::time::timeout(limit, tokio::task::spawn_blocking(read)).await {
        Ok(Ok(v)) => v,
        Ok(Err(e)) => Known::unknown(Cause::ReadFailed, e.to_string()),
        Err(_) => Known::unknown(Cause::TimedOut, format!("{} ms", limit.as_millis())),
    }
}
