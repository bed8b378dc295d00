//! One situation of a run: the engine's state, the judge's books, the node, and what nobody has told the engine yet.

use super::effects::effect_code;
use super::judge::{Judge, Phase};
use super::machine::Machine;
use super::moves::Move;
use super::node::Looked;
use super::rule::{Broken, Rule};
use super::subject::Subject;
use super::world::{World, reason_code, seen_code};
use engine_core::run::{Effect, EffectState, End, Event, EventKind, IllegalEvent, Next, RunState, Status};
use jiff::Timestamp;
use std::rc::Rc;

/// A situation.
#[derive(Debug, Clone)]
pub(super) struct Situation {
    pub(super) state: RunState,
    pub(super) judge: Judge,
    pub(super) world: World,
    /// Whether the effect that is under way took place, once it is known to nobody but the world.
    pub(super) took: Option<bool>,
    pub(super) now: Timestamp,
    written: Rc<Written>,
}

/// An event on record and all before it.
#[derive(Debug)]
struct Written {
    event: Event,
    before: Option<Rc<Written>>,
}

impl Situation {
    /// The first one: a plan was made while the node looked like this.
    pub(super) fn first(subject: &Subject<'_>, world: World, silent: bool) -> Result<Self, String> {
        let (plan, digest) = subject.plan_on(world.mark(silent))?;
        let now = Timestamp::UNIX_EPOCH;
        let kind = EventKind::Proposed { plan: plan.into(), digest };
        let event = Event { run: subject.plan.run.clone(), seq: 1, at: now, kind };
        let state = RunState::begin(&event).map_err(|e| e.to_string())?;
        let written = Rc::new(Written { event, before: None });
        Ok(Self { state, judge: Judge::new(), world, took: None, now, written })
    }

    /// Makes a move: what takes place in the world, then the events; the judge hears of each before the engine does.
    pub(super) fn after(&self, mv: Move, machine: &impl Machine) -> Result<Self, Broken> {
        let mut next = self.clone();
        if let Some(effect) = mv.acts {
            next.judge.acts(effect, &next.state.plan, self.world)?;
        }
        next.world = mv.world;
        next.took = mv.took;
        if let Some(later) = mv.later {
            next.now = later;
        }
        let late = mv.late;
        if late {
            next.write(super::moves::cancel(), machine, true, None)?;
        }
        for kind in mv.events {
            next.write(kind, machine, false, mv.looked)?;
        }
        Ok(next)
    }

    /// The run's journal so far, oldest event first.
    pub(super) fn journal(&self) -> Vec<Event> {
        let mut out = Vec::new();
        let mut at = Some(&self.written);
        while let Some(w) = at {
            out.push(w.event.clone());
            at = w.before.as_ref();
        }
        out.reverse();
        out
    }

    fn write(
        &mut self,
        kind: EventKind,
        machine: &impl Machine,
        late: bool,
        looked: Option<Looked>,
    ) -> Result<(), Broken> {
        let event = Event { run: self.state.run.clone(), seq: self.state.seq + 1, at: self.now, kind };
        self.judge.hear(&event, &self.state.plan, &self.state.digest, late, looked, self.world)?;
        machine.apply(&mut self.state, &event).map_err(|e| illegal(&e, &event))?;
        self.written = Rc::new(Written { event, before: Some(Rc::clone(&self.written)) });
        self.judge.agrees(&self.state)
    }

    /// Everything that decides what may follow; two situations with the same key have the same future. Behind the last
    /// mutation that is `follows`, the end that comes once the lock is given back.
    pub(super) fn key(&self, subject: &Subject<'_>, follows: Option<End>) -> Vec<u8> {
        let s = &self.state;
        let mut out = Vec::with_capacity(64);
        if let Some(end) = self.judge.end() {
            out.extend([0xee, end as u8]);
            return out;
        }
        let phase = self.judge.phase();
        let phase = if subject.merge { phase } else { phase.min(Phase::Going) };
        out.extend([phase as u8, self.took.map_or(2, u8::from), status_code(s.status)]);
        self.judge.key(&s.plan, phase, &mut out);
        for (effect, state) in &s.effects {
            let ahead = self.judge.is_ahead(*effect, phase);
            let unresolved = matches!(state, EffectState::Open { .. } | EffectState::Ambiguous { .. });
            if phase >= Phase::Holding && !ahead && !unresolved {
                continue;
            }
            let n = |n: u32| u8::try_from(n).unwrap_or(u8::MAX);
            let (word, attempt) = match state {
                EffectState::Failed { .. } | EffectState::Retry { .. } if !ahead => (0, 0),
                EffectState::Open { attempt } => (1, n(*attempt)),
                EffectState::Applied => (2, 0),
                EffectState::Retry { attempt, not_before } if *not_before > self.now => (3, n(*attempt)),
                EffectState::Retry { attempt, .. } => (4, n(*attempt)),
                EffectState::Failed { attempt, transient: true, .. } => (5, n(*attempt)),
                EffectState::Failed { attempt, transient: false, .. } => (6, n(*attempt)),
                EffectState::Ambiguous { attempt } => (7, n(*attempt)),
                EffectState::Unclear { .. } => (8, 0),
                EffectState::Foreign { begun, .. } => (9, u8::from(*begun)),
            };
            out.extend([effect_code(*effect), word, attempt]);
        }
        // What reservations make of the node matters only where a condition still asks for it.
        let blind = subject.blind && s.has_mutated();
        let world = if blind { self.world.without_reservation() } else { self.world };
        match phase {
            Phase::Closing => {
                let ours = world.is_drained_by_us() && world.meddled.is_none();
                out.extend([follows.map_or(0xff, |e| e as u8), u8::from(ours), u8::from(s.cancel.is_some())]);
            }
            Phase::Holding => {
                out.extend(world.code());
                out.extend(seen_code(s.last_seen.as_ref()));
            }
            Phase::Going | Phase::Asking => {
                let flags = [s.disrupted, s.verified, s.cancel.is_some(), s.deferred.is_some()];
                out.push(flags.iter().fold(0_u8, |bits, flag| bits << 1 | u8::from(*flag)));
                out.extend(world.code());
                out.extend(seen_code(s.last_seen.as_ref()));
                out.push(reason_code(s.our_drain.as_ref()));
            }
        }
        if phase == Phase::Asking {
            let lapsed = s.approval_expires_at.is_some_and(|t| t <= self.now);
            out.extend([s.valid_approvals(self.now), u8::from(lapsed)]);
            for name in s.approvals.keys() {
                out.extend(name.as_bytes());
            }
        }
        out
    }

    /// The end that comes once the lock is given back, for a run that has nothing else left to do.
    pub(super) fn follows(&mut self, machine: &impl Machine) -> Option<End> {
        if self.judge.phase() != Phase::Closing || self.judge.end().is_some() {
            return None;
        }
        let before = self.state.effects.insert(Effect::Unlock, EffectState::Applied);
        let next = machine.next(&self.state, self.now);
        match before {
            Some(state) => self.state.effects.insert(Effect::Unlock, state),
            None => self.state.effects.remove(&Effect::Unlock),
        };
        match next {
            Next::Finish { end, .. } => Some(end),
            _ => None,
        }
    }
}

fn status_code(status: Status) -> u8 {
    match status {
        Status::Proposed => 0,
        Status::AwaitingApproval => 1,
        Status::Approved => 2,
        // Whether a step verifies decides nothing.
        Status::Running | Status::Verifying => 3,
        Status::RollingBack => 4,
        Status::Ended(_) => 5,
    }
}

/// The engine was told to do what its own journal refuses: its decision and its fold disagree.
fn illegal(e: &IllegalEvent, event: &Event) -> Broken {
    let rule = Rule::ALL
        .into_iter()
        .find(|r| r.number() > 0 && e.why.contains(&format!("(rule {})", r.number())))
        .unwrap_or(Rule::Intent);
    let effect = match &event.kind {
        EventKind::Intent { effect, .. } | EventKind::Refused { effect, .. } => Some(*effect),
        _ => None,
    };
    Broken { rule, why: format!("the journal refuses what the engine decided: {}", e.why), effect }
}
