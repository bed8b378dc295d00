//! The controller: what it applies, when it hangs, refuses or loses, and the orders that nodes carry out.

use super::events::Happening;
use super::log::Who;
use super::node::refused;
use super::script::{Hiccup, Trigger};
use super::state::{Inner, ResetRecord, SimReservation, later, to_second};
use engine_core::known::{Cause, Unknown};
use engine_core::model::{GpuProcess, JobState, NodeName, ResetOutcome};
use engine_runtime::ports::{LockReservation, RefusalKind, WorkResult, Write};
use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use std::collections::VecDeque;

/// A write of the engine.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Drain { node: NodeName, reason: String },
    Resume { node: NodeName },
    CreateLock(LockReservation),
    DeleteReservation { name: String },
}

impl Op {
    /// Names the node it is about, where it names one.
    pub(crate) fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Drain { node, .. } | Self::Resume { node } => Some(node),
            Self::CreateLock(lock) => Some(&lock.node),
            Self::DeleteReservation { .. } => None,
        }
    }
}

/// Work that was under way when nobody waited for it any more.
#[derive(Debug, Clone)]
pub(crate) enum Flight {
    /// A write that slurmctld has or has not yet.
    Write(Op, Timestamp),
    /// A reset: order, node, run and UUID.
    Reset(String, NodeName, Option<String>, String),
}

/// How the controller behaves.
#[derive(Debug, Default)]
pub(crate) struct Controller {
    /// Misbehaviours to come, each used once.
    pub(crate) once: VecDeque<Hiccup>,
    refuses: bool,
    hangs: bool,
    serial: u64,
    /// Writes that arrived while it hung.
    held: Vec<(Op, Timestamp)>,
}

/// How one call to the controller goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Course<T> {
    /// After this time it is carried out and answered.
    Answered(SignedDuration),
    /// After this time the client has only this.
    Lost(SignedDuration, T),
}

/// How an order to a node begins.
#[derive(Debug)]
pub(crate) enum Order {
    /// It was answered before, or can be answered now.
    Now(Box<WorkResult>),
    /// It takes this long; then [`Inner::finish_reset`] tells.
    Reset(SignedDuration),
    /// The tool hangs for the order's limit, and this becomes of it.
    Hangs { applied: bool },
}

impl Inner {
    pub(crate) fn controller_down(&mut self, d: SignedDuration) {
        self.controller.refuses = true;
        self.begin_outage(d, "refuses connections");
    }

    pub(crate) fn controller_hang(&mut self, d: SignedDuration) {
        self.controller.hangs = true;
        self.begin_outage(d, "hangs");
    }

    fn begin_outage(&mut self, d: SignedDuration, how: &str) {
        self.controller.serial += 1;
        let serial = self.controller.serial;
        self.push_in(d, Happening::ControllerBack(serial));
        self.note(&Who::Slurm, None, format!("slurmctld {how}"));
    }

    pub(crate) fn controller_back(&mut self, serial: u64) {
        if self.controller.serial != serial {
            return;
        }
        self.controller.refuses = false;
        self.controller.hangs = false;
        self.note(&Who::Slurm, None, "slurmctld answers again");
        for (op, sent) in std::mem::take(&mut self.controller.held) {
            self.happen(Happening::AppliedLate(op, sent));
        }
    }

    fn slow(&mut self, home: Option<usize>, usual: SignedDuration) -> SignedDuration {
        if let Some(Hiccup::Slow(d)) = self.controller.once.front().copied() {
            self.controller.once.pop_front();
            return d;
        }
        if self.chance(home, self.cfg.hiccups.slow) {
            return SignedDuration::from_millis(self.luck(home).random_range(1_000..8_000));
        }
        usual
    }

    /// Decides how a read goes.
    pub(crate) fn course_of_read(&mut self, home: Option<usize>) -> Course<Unknown> {
        let t = &self.cfg.timings;
        let (limit, retry, usual) = (t.client_timeout, t.connect_retry, t.read);
        let timed_out = || Unknown::new(Cause::TimedOut, "slurmctld did not answer in time");
        if self.controller.refuses {
            return Course::Lost(
                retry,
                Unknown::new(Cause::ReadFailed, "Unable to contact slurm controller (connect failure)"),
            );
        }
        if self.controller.hangs {
            return Course::Lost(limit, timed_out());
        }
        match self.controller.once.front() {
            Some(Hiccup::ReadTimesOut) => {
                self.controller.once.pop_front();
                return Course::Lost(limit, timed_out());
            }
            Some(Hiccup::ReadEmpty) => {
                self.controller.once.pop_front();
                return Course::Lost(usual, Unknown::new(Cause::EmptyAnswer, "the answer was empty"));
            }
            _ => {}
        }
        let rates = self.cfg.hiccups;
        if self.chance(home, rates.read_fails) {
            return Course::Lost(
                retry,
                Unknown::new(Cause::ReadFailed, "Unable to contact slurm controller"),
            );
        }
        if self.chance(home, rates.read_empty) {
            return Course::Lost(usual, Unknown::new(Cause::EmptyAnswer, "the answer was empty"));
        }
        let took = self.slow(home, usual);
        if took >= limit { Course::Lost(limit, timed_out()) } else { Course::Answered(took) }
    }

    /// Decides what becomes of work whose engine died: it takes effect a moment later, or never.
    pub(crate) fn outlives(&mut self, flight: Flight) {
        let place = match &flight {
            Flight::Write(op, _) => op.node().and_then(|n| self.find(n)),
            Flight::Reset(_, node, ..) => self.find(node),
        };
        if self.chance(place, self.cfg.outlives_engine) {
            let delay = self.draw_ms(place, &(5..=4_000));
            self.push_in(delay, Happening::Outlives(flight));
        }
    }

    /// Decides how a write goes, and queues it where it is applied behind the client's back.
    pub(crate) fn course_of_write(&mut self, home: Option<usize>, op: &Op) -> Course<String> {
        let sent = self.now;
        self.judge_write(op);
        let t = &self.cfg.timings;
        let (limit, retry, usual) = (t.client_timeout, t.connect_retry, t.write);
        let timed_out = || "slurm_update error: Socket timed out on send/recv operation".to_owned();
        if self.controller.refuses {
            return Course::Lost(retry, "slurm_update error: Unable to contact slurm controller".to_owned());
        }
        if self.controller.hangs {
            self.controller.held.push((op.clone(), sent));
            return Course::Lost(limit, timed_out());
        }
        match self.controller.once.front().copied() {
            Some(Hiccup::WriteAppliedLater(delay)) => {
                self.controller.once.pop_front();
                self.push_in(delay, Happening::AppliedLate(op.clone(), sent));
                return Course::Lost(limit, timed_out());
            }
            Some(Hiccup::WriteLost) => {
                self.controller.once.pop_front();
                return Course::Lost(limit, timed_out());
            }
            _ => {}
        }
        let rates = self.cfg.hiccups;
        if self.chance(home, rates.write_applied_later) {
            let delay = SignedDuration::from_millis(self.luck(home).random_range(500..20_000));
            self.push_in(delay, Happening::AppliedLate(op.clone(), sent));
            return Course::Lost(limit, timed_out());
        }
        if self.chance(home, rates.write_lost) {
            return Course::Lost(limit, timed_out());
        }
        let took = self.slow(home, usual);
        if took >= limit {
            self.push_in(took, Happening::AppliedLate(op.clone(), sent));
            return Course::Lost(limit, timed_out());
        }
        Course::Answered(took)
    }

    /// Lets a write arrive a second time, where the world is made so.
    pub(crate) fn arrives_again(&mut self, op: Op, sent: Timestamp) {
        if let Some(after) = self.cfg.writes_arrive_again {
            self.push_in(after, Happening::AppliedLate(op, sent));
        }
    }

    /// Applies a write.
    pub(crate) fn apply(&mut self, who: &Who, op: &Op, sent: Timestamp) -> Write {
        let place = op.node().and_then(|n| self.find(n));
        let done = match (op, place) {
            (Op::DeleteReservation { name }, _) => self.unreserve(who, name),
            (_, None) => refused(RefusalKind::NotFound, "slurm_update error: Invalid node name specified"),
            (Op::Drain { reason, .. }, Some(n)) => self.drain(who, n, reason, sent),
            (Op::Resume { .. }, Some(n)) => self.resume(who, n, sent),
            (Op::CreateLock(lock), Some(n)) => self.reserve(who, &lock.name, n, lock.end),
        };
        if let Write::Refused(r) = &done {
            self.note(who, place, format!("is refused: {}", r.text));
        }
        done
    }

    /// Creates a MAINT reservation from now on; the name is the test-and-set.
    pub(crate) fn reserve(&mut self, who: &Who, name: &str, node: usize, end: Timestamp) -> Write {
        if self.reservations.contains_key(name) {
            return refused(
                RefusalKind::AlreadyExists,
                "Error creating the reservation: Duplicate reservation name",
            );
        }
        if end <= self.now {
            return refused(RefusalKind::Other, "Error creating the reservation: End time is in the past");
        }
        let user = if *who == Who::Engine { self.cfg.engine_user.clone() } else { who.to_string() };
        let serial = self.next_serial();
        let (start, made, end) = (to_second(self.now), self.now, to_second(end));
        let r = SimReservation { node, start, made, end, user, serial };
        self.push(r.end, Happening::ReservationEnds(name.to_owned(), serial));
        self.reservations.insert(name.to_owned(), r);
        self.note(who, Some(node), format!("reserves the node as {name}"));
        if *who == Who::Engine {
            self.react(node, Trigger::EngineLocked);
        }
        Write::Accepted
    }

    pub(crate) fn unreserve(&mut self, who: &Who, name: &str) -> Write {
        let Some(r) = self.reservations.remove(name) else {
            return refused(RefusalKind::NotFound, "Requested reservation is invalid");
        };
        if *who == Who::Engine && !name.starts_with("slurmedic-") {
            self.violation(4, Some(r.node), format!("deleted reservation {name}, which is not the engine's"));
        }
        self.note(who, Some(r.node), format!("deletes reservation {name}"));
        Write::Accepted
    }

    /// Lists the processes that hold a GPU: strangers, and jobs that run, are frozen or are being cleaned up.
    pub(crate) fn processes_on(&self, n: usize, gpu: u32) -> Vec<GpuProcess> {
        let stranger = self.nodes[n].gpus.iter().find(|g| g.index == gpu).and_then(|g| g.holder.clone());
        let of_jobs = self
            .jobs_of(n)
            .filter(|j| j.uses(n, gpu) && matches!(j.state, JobState::Running | JobState::Suspended))
            .map(|j| GpuProcess { pid: 20_000 + (j.id % 10_000) as u32, name: "python3".to_owned() });
        stranger.into_iter().chain(of_jobs).collect()
    }

    /// Begins a reset on a node: the node's own check first.
    pub(crate) fn begin_reset(
        &mut self,
        id: &str,
        node: &NodeName,
        run: Option<&str>,
        uuid: &str,
        bus_id: &str,
    ) -> Order {
        let Some(n) = self.find(node) else {
            return Order::Now(Box::new(WorkResult::Refused(format!("there is no node {node}"))));
        };
        match self.nodes[n].orders.get(id) {
            Some(Some(answer)) => return Order::Now(Box::new(answer.clone())),
            Some(None) => {
                return Order::Now(Box::new(WorkResult::Ambiguous(
                    "the order is being carried out".to_owned(),
                )));
            }
            None => {}
        }
        if self.nodes[n].tools.hang {
            return Order::Hangs { applied: false };
        }
        let bus = engine_core::model::gpu::normalize_bus_id(bus_id);
        let found = self.nodes[n].gpus.iter().find(|g| g.uuid == uuid && Some(&g.bus_id) == bus.as_ref());
        let Some((gpu, on_bus, hang)) = found.map(|g| (g.index, g.on_bus, g.hang)) else {
            return self.answer(
                n,
                id,
                WorkResult::Refused(format!("no GPU here is both {uuid} and {bus_id}")),
            );
        };
        let since = later(self.now, -self.cfg.race_window);
        let busy = self.jobs_of(n).find(|j| j.uses(n, gpu)).map(|j| (j.id, j.start));
        if let Some((job, start)) = busy {
            if start.is_none_or(|s| s < since) {
                self.violation(
                    9,
                    Some(n),
                    format!("a reset of GPU {gpu} was ordered while job {job} had it"),
                );
            }
            let holders = self.processes_on(n, gpu);
            let why = format!("job {job} has the GPU");
            self.note(&Who::Slurm, Some(n), format!("refuses to reset GPU {gpu}: {why}"));
            return self.answer(n, id, reset_answer(ResetOutcome::Refused { why, holders }, vec![]));
        }
        let holders = self.processes_on(n, gpu);
        if !holders.is_empty() {
            self.note(&Who::Slurm, Some(n), format!("refuses to reset GPU {gpu}: in use"));
            let why = "in use by another client".to_owned();
            return self.answer(n, id, reset_answer(ResetOutcome::Refused { why, holders }, vec![]));
        }
        if !on_bus {
            return self.answer(n, id, reset_answer(ResetOutcome::GpuLost, vec![]));
        }
        if let Some(run) = run
            && self.nodes[n].reset_by.contains(&(run.to_owned(), gpu))
        {
            self.violation(1, Some(n), format!("GPU {gpu} was reset a second time by run {run}"));
        }
        self.judge_reset(n, run);
        self.nodes[n].orders.insert(id.to_owned(), None);
        self.note(&Who::Engine, Some(n), format!("begins to reset GPU {gpu}"));
        if let Some(applied) = hang {
            return Order::Hangs { applied };
        }
        let range = self.cfg.timings.reset_ms.clone();
        Order::Reset(self.draw_ms(Some(n), &range))
    }

    fn answer(&mut self, n: usize, id: &str, result: WorkResult) -> Order {
        self.nodes[n].orders.insert(id.to_owned(), Some(result.clone()));
        Order::Now(Box::new(result))
    }

    /// Ends a reset: the GPU is reset, the DCGM engine and the exporter are started anew.
    pub(crate) fn finish_reset(
        &mut self,
        id: &str,
        node: &NodeName,
        run: Option<&str>,
        uuid: &str,
    ) -> WorkResult {
        let Some(n) = self.find(node) else {
            return WorkResult::Refused(format!("there is no node {node}"));
        };
        let Some(place) = self.nodes[n].gpus.iter().position(|g| g.uuid == uuid) else {
            return WorkResult::Refused(format!("no GPU here is {uuid}"));
        };
        let gpu = self.nodes[n].gpus[place].index;
        let began = self.jobs_of(n).find(|j| j.uses(n, gpu)).map(|j| j.id);
        if let Some(job) = began {
            self.violation(9, Some(n), format!("GPU {gpu} was reset under job {job}"));
            self.finish(job, JobState::Failed, &Who::Engine, "dies of a reset");
        }
        let g = &mut self.nodes[n].gpus[place];
        g.reset();
        let cured = g.ailment().is_none();
        self.nodes[n].page.reset_at = Some(self.now);
        self.keep_health(n);
        self.restart_tools(n);
        if let Some(run) = run {
            self.nodes[n].reset_by.insert((run.to_owned(), gpu));
        }
        self.keep_reset(ResetRecord {
            at: self.now,
            node: node.clone(),
            gpu,
            run: run.map(str::to_owned),
            cured,
        });
        self.note(
            &Who::Engine,
            Some(n),
            format!("GPU {gpu} is reset{}", if cured { "" } else { ", and still sick" }),
        );
        self.react(n, Trigger::EngineReset);
        let steps =
            ["dcgm detached", "exporter stopped", "gpu reset", "nv-hostengine restarted", "exporter started"];
        let result = reset_answer(ResetOutcome::Done, steps.map(str::to_owned).to_vec());
        self.nodes[n].orders.insert(id.to_owned(), Some(result.clone()));
        result
    }

    /// Restarts the DCGM engine and the exporter of a node.
    pub(crate) fn restart_tools(&mut self, n: usize) {
        let tools = &mut self.nodes[n].tools;
        tools.dcgm_up = true;
        tools.exporter_up = true;
        for g in &mut self.nodes[n].gpus {
            g.forget_xids();
        }
    }
}

fn reset_answer(outcome: ResetOutcome, steps: Vec<String>) -> WorkResult {
    WorkResult::Reset { outcome, steps }
}
