//! What comes of an effect that was begun: its outcome, the death of its engine, and what a probe finds.

use super::{Moves, Told};
use crate::checker::effects::{class, gives_back, takes_out};
use crate::checker::situation::Situation;
use crate::checker::subject::Subject;
use crate::checker::world::{MEDDLINGS, Mark, World};
use engine_core::ownership::NodeMark;
use engine_core::run::{Effect, EventKind, Outcome, OutcomeKind, Resolution};

impl Moves<'_> {
    /// An effect is under way: it comes out, or the engine dies and the next one probes.
    pub(super) fn open(&mut self, effect: Effect, attempt: u32) {
        let step = self.s.state.step_of(effect);
        let mutates = step.is_none_or(|s| class(s).mutates());
        match self.s.took {
            None if mutates => self.outcomes(effect, attempt),
            None => self.readings(effect, attempt),
            Some(took) => self.probes(effect, attempt, took, mutates),
        }
    }

    /// What only reads: done, or not done; a wait also watches over the drain.
    fn readings(&mut self, effect: Effect, attempt: u32) {
        let waits = self.subject.step(effect).is_some_and(|s| s.action.name == "slurm.wait_idle");
        let world = self.s.world;
        let idle = World { jobs: world.jobs && world.takes_jobs(), ..world };
        let after = if waits { idle } else { world };
        let seen = waits.then(|| after.mark(false));
        self.comes(effect, attempt, OutcomeKind::Succeeded, true, after, seen);
        self.comes(effect, attempt, OutcomeKind::Transient, false, world, None);
        self.comes(effect, attempt, OutcomeKind::Permanent, false, world, None);
        if waits {
            self.meddles(effect, attempt, world, false, None);
        }
        self.dies(effect, false, world);
    }

    fn outcomes(&mut self, effect: Effect, attempt: u32) {
        let plan = &self.s.state.plan;
        let before = self.s.world;
        let after = done(self.subject, effect, before, self.s);
        let reads_back = takes_out(plan, effect) || gives_back(plan, effect);
        let seen = reads_back.then(|| after.mark(false));
        let back = gives_back(plan, effect);
        self.comes(effect, attempt, OutcomeKind::Succeeded, true, after, seen);
        self.comes(effect, attempt, OutcomeKind::Transient, false, before, None);
        self.comes(effect, attempt, OutcomeKind::Permanent, false, before, None);
        if back {
            // Given back, and the node never answers.
            self.comes(effect, attempt, OutcomeKind::Permanent, true, after, Some(after.mark(true)));
        }
        self.comes(effect, attempt, OutcomeKind::Ambiguous, true, after, None);
        self.comes(effect, attempt, OutcomeKind::Ambiguous, false, before, None);
        if reads_back {
            self.meddles(effect, attempt, after, false, Some(effect));
        }
        self.dies(effect, true, after);
        self.dies(effect, false, before);
    }

    fn comes(
        &mut self,
        effect: Effect,
        attempt: u32,
        kind: OutcomeKind,
        took: bool,
        world: World,
        seen: Option<NodeMark>,
    ) {
        let mut outcome = Outcome::new(kind, word(kind));
        outcome.after = seen;
        let m = self
            .add(Told::Comes { effect, kind, took }, vec![EventKind::Finished { effect, attempt, outcome }]);
        m.world = world;
        m.acts = took.then_some(effect);
        m.took = (kind == OutcomeKind::Ambiguous).then_some(took);
    }

    /// Somebody else's change is what the read-back, or the probe, shows.
    fn meddles(&mut self, effect: Effect, attempt: u32, world: World, probed: bool, acts: Option<Effect>) {
        for meddling in MEDDLINGS {
            let Some(world) = world.after(meddling) else { continue };
            let kind = if probed {
                resolved(effect, attempt, Resolution::Foreign, None)
            } else {
                let outcome = Outcome::foreign("somebody else changed the node");
                EventKind::Finished { effect, attempt, outcome }
            };
            let m = self.add(Told::Meddles { effect, probed }, vec![kind]);
            m.world = world;
            m.acts = acts;
            m.took = None;
            m.person = Some(meddling);
        }
    }

    /// The engine dies; another one finds the intent and nothing else.
    fn dies(&mut self, effect: Effect, took: bool, world: World) {
        let kind = EventKind::Recovered { engine: "e2".to_owned(), why: "its engine stopped".to_owned() };
        let m = self.add(Told::Dies { effect, took }, vec![kind]);
        m.world = world;
        m.acts = took.then_some(effect);
        m.took = Some(took);
    }

    fn probes(&mut self, effect: Effect, attempt: u32, took: bool, mutates: bool) {
        let world = self.s.world;
        if !mutates {
            // What only reads is simply done again.
            self.probed(effect, attempt, Resolution::NotApplied, None);
            return;
        }
        let plan = &self.s.state.plan;
        let reads_back = takes_out(plan, effect) || gives_back(plan, effect);
        if took {
            self.probed(effect, attempt, Resolution::Applied, reads_back.then(|| world.mark(false)));
        } else {
            self.probed(effect, attempt, Resolution::NotApplied, None);
        }
        self.probed(effect, attempt, Resolution::Unclear, None);
        if reads_back {
            self.meddles(effect, attempt, world, true, None);
        }
    }

    fn probed(&mut self, effect: Effect, attempt: u32, resolution: Resolution, seen: Option<NodeMark>) {
        let kind = resolved(effect, attempt, resolution, seen);
        self.add(Told::Probed { effect, resolution }, vec![kind]).took = None;
    }
}

/// The node after an effect took place.
fn done(subject: &Subject<'_>, effect: Effect, world: World, s: &Situation) -> World {
    let plan = &s.state.plan;
    if takes_out(plan, effect) {
        World { drained: true, reason: Mark::Ours(subject.reason(effect)), ..world }
    } else if gives_back(plan, effect) {
        World { drained: false, reason: Mark::None, jobs: true, ..world }
    } else {
        world
    }
}

fn resolved(effect: Effect, attempt: u32, resolution: Resolution, after: Option<NodeMark>) -> EventKind {
    let why = match resolution {
        Resolution::Applied => "it took effect",
        Resolution::NotApplied => "it did not take effect",
        Resolution::Unclear => "nobody can tell whether it took effect",
        Resolution::Foreign => "somebody else changed the node",
    };
    let why = why.to_owned();
    EventKind::Resolved { effect, attempt, resolution, why, after, data: engine_core::run::Load::default() }
}

fn word(kind: OutcomeKind) -> &'static str {
    match kind {
        OutcomeKind::Succeeded => "done",
        OutcomeKind::Transient => "it failed for now",
        OutcomeKind::Permanent => "it failed",
        OutcomeKind::Ambiguous => "nobody knows",
        OutcomeKind::Foreign => "somebody else changed the node",
    }
}
