//! A node and what slurmctld does to it: the state machine measured on Slurm 22.05.8.

use super::events::Happening;
use super::gpu::SimGpu;
use super::log::{LogEntry, Who};
use super::rules::Page;
use super::script::Trigger;
use super::state::{Inner, to_second};
use engine_core::model::{NodeFlag, NodeName};
use engine_runtime::ports::{Refusal, RefusalKind, WorkResult, Write};
use jiff::{SignedDuration, Timestamp};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Longest reason that slurmctld keeps.
const MAX_REASON: usize = 1_500;

/// A reason with who wrote it in truth.
#[derive(Debug, Clone)]
pub(crate) struct SimReason {
    pub(crate) text: String,
    pub(crate) user: String,
    /// To the second, as Slurm shows it.
    pub(crate) at: Timestamp,
    /// The exact time.
    pub(crate) written: Timestamp,
    pub(crate) by: Who,
}

/// The tools of a node.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) dcgm_up: bool,
    pub(crate) exporter_up: bool,
    pub(crate) hang: bool,
    pub(crate) diag_running: bool,
}

/// A node.
#[derive(Debug, Clone)]
pub(crate) struct SimNode {
    pub(crate) name: NodeName,
    pub(crate) down: bool,
    /// Flags that are stored; COMPLETING and those of reservations are derived.
    pub(crate) flags: BTreeSet<NodeFlag>,
    pub(crate) reason: Option<SimReason>,
    /// Who last took the node out of service, and when exactly.
    pub(crate) drained_by: Option<(Who, Timestamp)>,
    pub(crate) slurmd: bool,
    /// Tells answers and silences of an earlier life apart.
    pub(crate) life: u64,
    pub(crate) booted: Timestamp,
    pub(crate) slurmd_start: Timestamp,
    pub(crate) gpus: Vec<SimGpu>,
    pub(crate) tools: Tools,
    /// Reboot asked for: whether RESUME follows it, and whether the node was drained before.
    pub(crate) reboot: Option<(bool, bool)>,
    /// Jobs that are or were on the node, until slurmctld forgets them.
    pub(crate) jobs: BTreeSet<u64>,
    /// Orders to reset that the node was given, with their answers once there are any.
    pub(crate) orders: BTreeMap<String, Option<WorkResult>>,
    /// Runs that reset a GPU here.
    pub(crate) reset_by: BTreeSet<(String, u32)>,
    /// The chance of this node, once it was needed.
    pub(crate) rng: Option<Box<ChaCha8Rng>>,
    /// Its last entries in the history, where they are kept by node.
    pub(crate) log: VecDeque<LogEntry>,
    /// What the rule book remembers.
    pub(crate) page: Page,
}

impl SimNode {
    pub(crate) fn new(name: NodeName, gpus: Vec<SimGpu>, now: Timestamp) -> Self {
        Self {
            name,
            down: false,
            flags: BTreeSet::new(),
            reason: None,
            drained_by: None,
            slurmd: true,
            life: 0,
            booted: now,
            slurmd_start: now,
            gpus,
            tools: Tools { dcgm_up: true, exporter_up: true, hang: false, diag_running: false },
            reboot: None,
            jobs: BTreeSet::new(),
            orders: BTreeMap::new(),
            reset_by: BTreeSet::new(),
            rng: None,
            log: VecDeque::new(),
            page: Page { well_since: Some(now), ..Page::default() },
        }
    }

    pub(crate) fn has(&self, flag: NodeFlag) -> bool {
        self.flags.contains(&flag)
    }

    fn is_drained(&self) -> bool {
        self.has(NodeFlag::Drain) || self.has(NodeFlag::Fail)
    }
}

pub(crate) fn refused(kind: RefusalKind, text: impl Into<String>) -> Write {
    Write::Refused(Refusal { kind, text: text.into() })
}

impl Inner {
    fn user_of(&self, who: &Who) -> String {
        match who {
            Who::Engine => self.cfg.engine_user.clone(),
            Who::Slurm => "slurm".to_owned(),
            other => other.to_string(),
        }
    }

    fn write_reason(&mut self, who: &Who, n: usize, text: &str) {
        let text: String = text.chars().take(MAX_REASON).collect();
        let user = self.user_of(who);
        let (at, written) = (to_second(self.now), self.now);
        self.nodes[n].reason = Some(SimReason { text, user, at, written, by: who.clone() });
    }

    /// Sets DRAIN. The same state with the same reason is a no-op that keeps user and time.
    pub(crate) fn drain(&mut self, who: &Who, n: usize, reason: &str, sent: Timestamp) -> Write {
        if reason.trim().is_empty() {
            return refused(
                RefusalKind::Other,
                "You must specify a reason when DOWNING or DRAINING a node. Request denied",
            );
        }
        let node = &self.nodes[n];
        let same_reason = node.reason.as_ref().is_some_and(|r| r.text == reason);
        if node.has(NodeFlag::Drain) && same_reason {
            self.note(who, Some(n), "drains again with the same reason: nothing changes");
            return Write::Accepted;
        }
        if *who == Who::Engine {
            let out = node.is_drained() || node.down;
            let mark = node.reason.as_ref().filter(|_| out).map(|r| (r.by.clone(), r.written));
            if out {
                self.judge_engine(n, "overwrote a reason", sent, mark);
            } else {
                self.judge_fresh_reason(n, sent);
            }
        }
        let node = &mut self.nodes[n];
        node.flags.remove(&NodeFlag::Fail);
        node.flags.insert(NodeFlag::Drain);
        node.drained_by = Some((who.clone(), self.now));
        self.write_reason(who, n, reason);
        self.note(who, Some(n), format!("drains: {reason}"));
        if *who == Who::Engine {
            self.react(n, Trigger::EngineDrained);
        }
        Write::Accepted
    }

    /// Sets the reason, the state as it is.
    pub(crate) fn set_reason(&mut self, who: &Who, n: usize, reason: &str) -> Write {
        self.write_reason(who, n, reason);
        self.note(who, Some(n), format!("sets the reason: {reason}"));
        Write::Accepted
    }

    /// Clears DRAIN, FAIL, DOWN and the reason, whoever set them; the node does not respond until it has answered.
    pub(crate) fn resume(&mut self, who: &Who, n: usize, sent: Timestamp) -> Write {
        let node = &self.nodes[n];
        let to_lift = node.is_drained() || node.down || node.has(NodeFlag::RebootRequested);
        if node.has(NodeFlag::InvalidReg) || node.has(NodeFlag::RebootIssued) || !to_lift {
            return refused(RefusalKind::InvalidState, "slurm_update error: Invalid node state specified");
        }
        if *who == Who::Engine {
            let drain = node.drained_by.clone();
            let reason = node.reason.as_ref().map(|r| (r.by.clone(), r.written));
            self.judge_engine(n, "lifted a drain", sent, drain);
            self.judge_engine(n, "cleared a reason", sent, reason);
            self.judge_return(n);
        }
        let node = &mut self.nodes[n];
        for flag in [NodeFlag::Drain, NodeFlag::Fail, NodeFlag::RebootRequested] {
            node.flags.remove(&flag);
        }
        node.down = false;
        node.reason = None;
        node.drained_by = None;
        node.page.lifted_by = Some((who.clone(), self.now));
        node.reboot = None;
        node.flags.insert(NodeFlag::NotResponding);
        node.life += 1;
        let (life, alive) = (node.life, node.slurmd);
        if alive {
            let range = self.cfg.timings.answer_ms.clone();
            let delay = self.draw_ms(Some(n), &range);
            self.push_in(delay, Happening::NodeAnswers(n, life));
        } else {
            self.push_in(self.cfg.timings.down_after, Happening::NodeDown(n, life));
        }
        self.note(who, Some(n), "resumes");
        if *who == Who::Engine {
            self.keep_free.remove(&n);
            self.react(n, Trigger::EngineResumed);
        }
        Write::Accepted
    }

    /// Sets DOWN: kills and requeues what runs there.
    pub(crate) fn set_down(&mut self, who: &Who, n: usize, reason: &str) -> Write {
        self.nodes[n].down = true;
        self.nodes[n].drained_by = Some((who.clone(), self.now));
        self.write_reason(who, n, reason);
        self.note(who, Some(n), format!("sets DOWN: {reason}"));
        self.requeue_jobs_of(who, n);
        Write::Accepted
    }

    /// Kills or revives slurmd.
    pub(crate) fn set_slurmd(&mut self, n: usize, alive: bool) {
        let node = &mut self.nodes[n];
        if node.slurmd == alive {
            return;
        }
        node.slurmd = alive;
        node.life += 1;
        let life = node.life;
        if alive {
            node.slurmd_start = self.now;
            self.push_in(SignedDuration::from_secs(1), Happening::NodeAnswers(n, life));
        } else {
            self.push_in(self.cfg.timings.silent_after, Happening::NodeSilent(n, life));
            self.push_in(self.cfg.timings.down_after, Happening::NodeDown(n, life));
        }
        self.note(&Who::Slurm, Some(n), if alive { "slurmd is back" } else { "slurmd died" });
    }

    /// Takes note that a node answered: NOT_RESPONDING goes, and DOWN with it where silence was the only cause.
    pub(crate) fn node_answers(&mut self, n: usize, life: u64) {
        let node = &mut self.nodes[n];
        if node.life != life || !node.slurmd {
            return;
        }
        node.flags.remove(&NodeFlag::NotResponding);
        let silence_only =
            node.reason.as_ref().is_some_and(|r| r.by == Who::Slurm && r.text == NOT_RESPONDING);
        if node.down && silence_only && !node.is_drained() {
            node.down = false;
            node.reason = None;
            node.drained_by = None;
        }
        self.note(&Who::Slurm, Some(n), "responds");
    }

    /// Marks a silent node.
    pub(crate) fn node_silent(&mut self, n: usize, life: u64) {
        if self.nodes[n].life == life && !self.nodes[n].slurmd {
            self.nodes[n].flags.insert(NodeFlag::NotResponding);
            self.nodes[n].page.silent_at = Some(self.now);
            self.note(&Who::Slurm, Some(n), "does not respond");
        }
    }

    /// Gives a silent node up.
    pub(crate) fn node_down(&mut self, n: usize, life: u64) {
        let node = &mut self.nodes[n];
        if node.life != life || node.slurmd || node.down {
            return;
        }
        node.down = true;
        node.flags.insert(NodeFlag::NotResponding);
        if node.reason.is_none() {
            node.drained_by = Some((Who::Slurm, self.now));
            self.write_reason(&Who::Slurm, n, NOT_RESPONDING);
        }
        self.note(&Who::Slurm, Some(n), "is DOWN: not responding");
        self.requeue_jobs_of(&Who::Slurm, n);
    }

    /// Asks for a reboot; it begins when nothing runs.
    pub(crate) fn ask_reboot(&mut self, who: &Who, n: usize, asap: bool, then_resume: bool) {
        let node = &mut self.nodes[n];
        let was_drained = node.is_drained();
        node.flags.insert(NodeFlag::RebootRequested);
        node.reboot = Some((then_resume, was_drained));
        if asap && !was_drained {
            node.flags.insert(NodeFlag::Drain);
            node.drained_by = Some((who.clone(), self.now));
            self.write_reason(who, n, "Reboot ASAP");
        }
        self.note(who, Some(n), if asap { "asks for a reboot, ASAP" } else { "asks for a reboot" });
        self.try_reboot(n);
    }

    /// Begins a reboot that was asked for, once no job holds the node.
    pub(crate) fn try_reboot(&mut self, n: usize) {
        if !self.nodes[n].has(NodeFlag::RebootRequested) || self.jobs_of(n).any(|j| j.holds(n)) {
            return;
        }
        let before = self.nodes[n].reason.as_ref().map(|r| r.text.clone()).unwrap_or_default();
        let node = &mut self.nodes[n];
        node.flags.remove(&NodeFlag::RebootRequested);
        node.flags.insert(NodeFlag::RebootIssued);
        node.flags.insert(NodeFlag::Drain);
        node.down = true;
        node.life += 1;
        let life = node.life;
        self.write_reason(&Who::Slurm, n, &format!("{before} : reboot issued"));
        self.note(&Who::Slurm, Some(n), "reboots");
        self.push_in(self.cfg.timings.reboot, Happening::Rebooted(n, life));
    }

    /// Brings a rebooted node back.
    pub(crate) fn rebooted(&mut self, n: usize, life: u64) {
        if self.nodes[n].life != life {
            return;
        }
        let now = self.now;
        let node = &mut self.nodes[n];
        node.flags.remove(&NodeFlag::RebootIssued);
        node.flags.remove(&NodeFlag::NotResponding);
        node.down = false;
        node.booted = now;
        node.slurmd = true;
        node.slurmd_start = now;
        node.tools.dcgm_up = true;
        node.tools.exporter_up = true;
        node.tools.hang = false;
        node.gpus.iter_mut().for_each(SimGpu::reboot);
        let (then_resume, was_drained) = node.reboot.take().unwrap_or((false, true));
        if then_resume || !was_drained {
            node.flags.remove(&NodeFlag::Drain);
            node.reason = None;
            node.drained_by = None;
            node.page.lifted_by = Some((Who::Slurm, now));
        }
        self.keep_health(n);
        self.note(&Who::Slurm, Some(n), "is back from its reboot");
    }

    /// Lists what is wrong with the GPUs in truth.
    pub(crate) fn ailments(&self, n: usize) -> Vec<(u32, String)> {
        self.nodes[n].gpus.iter().filter_map(|g| g.ailment().map(|a| (g.index, a))).collect()
    }
}

/// What slurmctld writes on a node that fell silent.
const NOT_RESPONDING: &str = "Not responding";
