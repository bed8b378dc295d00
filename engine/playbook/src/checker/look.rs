//! The look before an effect: nobody changed the node, the conditions hold, the action's own guard agrees. It follows
//! the runtime's, with the real comparison of what was seen and the real judgement of conditions.

use super::effects::{class, gives_back};
use super::machine::Machine;
use super::moves::{JobThere, Moves, Obstacle, Told, guard};
use super::node::Looked;
use super::subject::{Before, views};
use super::world::{Jobs, MEDDLINGS, Meddling, World};
use engine_core::action::{EffectClass, ServiceEffect};
use engine_core::condition::{Outcomes, Truth};
use engine_core::ownership::{Change, NodeMark};
use engine_core::plan::PlannedStep;
use engine_core::run::{Effect, EventKind, GuardReport};

/// What one look shows.
struct Look {
    world: World,
    silent: bool,
    meddling: Option<Meddling>,
    mark: NodeMark,
    /// Whether the node differs from what the run last saw.
    differs: bool,
}

impl Moves<'_> {
    /// The look before an effect, as the runtime makes it, and the intent or the refusal that follows.
    pub(super) fn begin(&mut self, machine: &impl Machine, effect: Effect, attempt: u32) {
        let plan = &self.s.state.plan;
        let step = self.s.state.step_of(effect);
        if effect == Effect::Unlock {
            // Giving our own lock back is right whatever anybody did to the node.
            self.intent(effect, attempt, self.s.world, false, None, JobThere::No);
            return;
        }
        let takes_more = match effect {
            Effect::Lock => true,
            Effect::Step(_) => {
                step.is_some_and(|s| class(s) > EffectClass::Annotate) && !gives_back(plan, effect)
            }
            Effect::Undo(_) | Effect::Hold | Effect::Unlock => false,
        };
        self.look(machine, effect, attempt, self.s.world, false, None);
        for meddling in MEDDLINGS {
            if let Some(world) = self.s.world.after(meddling) {
                self.look(machine, effect, attempt, world, false, Some(meddling));
            }
        }
        self.look(machine, effect, attempt, self.s.world, true, None);
        self.refuse(effect, Obstacle::Unreadable, self.s.world);
        if takes_more {
            self.not_yet();
        }
    }

    /// One look at a node that is found like this, after a person was there or not.
    fn look(
        &mut self,
        machine: &impl Machine,
        effect: Effect,
        attempt: u32,
        world: World,
        silent: bool,
        meddling: Option<Meddling>,
    ) {
        let mark = world.mark(silent);
        let last = self.s.state.last_seen.as_ref();
        let differs = last.is_some_and(|last| mark.change_since(last).is_some());
        // Nobody can see that somebody was there who left the node as the run last saw it.
        let world = World { meddled: world.meddled.filter(|_| differs), ..world };
        let first = self.list.len();
        let look = Look { world, silent, meddling, mark, differs };
        self.judged(machine, effect, attempt, &look);
        for mv in self.list.iter_mut().skip(first) {
            mv.person = meddling;
        }
    }

    fn judged(&mut self, machine: &impl Machine, effect: Effect, attempt: u32, look: &Look) {
        let Look { world, silent, meddling, differs, .. } = *look;
        let state = &self.s.state;
        let change = machine.change(state, &look.mark);
        match change {
            Some(Change::Somebody(_)) => {
                let obstacle = meddling.map_or(Obstacle::Change, Obstacle::Meddled);
                self.refuse(effect, obstacle, world);
                return;
            }
            Some(Change::Node(_)) if effect != Effect::Hold => {
                self.refuse(effect, Obstacle::Node, world);
                return;
            }
            Some(Change::Node(_)) | None => {}
        }
        let mutates = match effect {
            Effect::Lock => true,
            Effect::Step(_) => state.step_of(effect).is_some_and(|s| s.effect.mutates()),
            Effect::Undo(_) | Effect::Hold | Effect::Unlock => false,
        };
        let preconditions = self.subject.verdicts(Before::Run, world, silent);
        let due = mutates && machine.preconditions_are_due(state);
        let when = self.subject.verdicts(Before::Effect(effect), world, silent);
        let looked = |preconditions, when, job| Looked { preconditions, when, job, node_changed: differs };
        let mut passes: Vec<(Looked, Jobs)> = Vec::new();
        let mut refusals: Vec<Obstacle> = Vec::new();
        for jobs in views(world) {
            let before_run = preconditions.at(*jobs);
            let before_step = when.at(*jobs);
            for pre in truths(if due { before_run } else { Outcomes::only(Truth::True) }) {
                if !machine.permits(pre) {
                    refusals.push(Obstacle::Preconditions(pre));
                    continue;
                }
                for own in truths(before_step) {
                    if !machine.permits(own) {
                        refusals.push(Obstacle::When(own));
                        continue;
                    }
                    // Where the engine did not ask, the judge takes the worst that the conditions may have come to.
                    let pre = if due { pre } else { truths(before_run).next().unwrap_or(Truth::Unknown) };
                    passes.push((looked(pre, own, *jobs != Jobs::None), *jobs));
                }
            }
        }
        refusals.sort_unstable();
        refusals.dedup();
        for obstacle in refusals {
            self.refuse(effect, obstacle, world);
        }
        let own = machine.asks_the_action(state).then(|| self.own_guard(effect, world, &look.mark)).flatten();
        match own {
            Some(no @ Obstacle::Own(_)) => {
                self.refuse(effect, no, world);
                return;
            }
            Some(maybe) => self.refuse(effect, maybe, world),
            None => {}
        }
        self.pass(effect, attempt, world, silent, &passes);
    }

    /// The intents that may follow a look: without a job on the node, with one, and with one that starts after it.
    fn pass(&mut self, effect: Effect, attempt: u32, world: World, silent: bool, passes: &[(Looked, Jobs)]) {
        let disturbs = self.s.state.step_of(effect).is_some_and(|s| class(s).needs_verification());
        // Of several looks that pass, the judge hears of the worst.
        let worst = |job: bool| {
            let of = passes.iter().filter(|(l, _)| !disturbs || l.job == job).map(|(l, _)| *l);
            of.min_by_key(|l| (l.preconditions, l.when))
        };
        // Once a look saw no job on a node that takes none, none can come.
        let idle = !world.takes_jobs() && passes.iter().all(|(_, jobs)| *jobs == Jobs::None);
        let after = World { jobs: world.jobs && !idle, ..world };
        if let Some(looked) = worst(false) {
            self.intent(effect, attempt, after, silent, Some(looked), JobThere::No);
            if disturbs && world.takes_jobs() {
                let looked = Looked { job: true, ..looked };
                self.intent(effect, attempt, world, silent, Some(looked), JobThere::Starts);
            }
        }
        if disturbs && let Some(looked) = worst(true).filter(|l| l.job) {
            self.intent(effect, attempt, world, silent, Some(looked), JobThere::Runs);
        }
    }

    /// What the action's own guard says, beyond the look. That of a disruptive action against jobs is not counted on:
    /// it is the last line, and a playbook has to be safe before it.
    fn own_guard(&self, effect: Effect, world: World, mark: &NodeMark) -> Option<Obstacle> {
        let state = &self.s.state;
        let step = state.step_of(effect);
        let service = step.and_then(PlannedStep::spec).map(|s| s.service);
        match (effect, service) {
            (Effect::Lock, _) => Some(Obstacle::Chance("another run has the node")),
            (_, Some(ServiceEffect::TakesOut)) => {
                world.refuses_drain(self.subject.reason(effect)).map(Obstacle::Own)
            }
            (_, Some(ServiceEffect::GivesBack)) => {
                let ours = state.our_drain.as_ref().is_some_and(|made| mark.is_our_drain(made));
                if !ours {
                    Some(Obstacle::Own("no drain of this run is on the node"))
                } else if state.verified {
                    None
                } else if state.disrupted {
                    Some(Obstacle::Own("no verification newer than the last disruptive step has passed"))
                } else if matches!(effect, Effect::Undo(_)) {
                    Some(Obstacle::Chance("the node is not proven healthy"))
                } else {
                    Some(Obstacle::Own("no verification has passed since the node was taken out"))
                }
            }
            _ => step
                .is_some_and(|s| class(s).needs_verification())
                .then_some(Obstacle::Chance("its own checks do not pass")),
        }
    }

    fn intent(
        &mut self,
        effect: Effect,
        attempt: u32,
        world: World,
        silent: bool,
        looked: Option<Looked>,
        job: JobThere,
    ) {
        let kind = EventKind::Intent {
            effect,
            attempt,
            action: String::new(),
            guard: guard(true),
            before: Some(world.mark(silent)),
            context: engine_core::run::Load::default(),
        };
        let m = self.add(Told::Begins { effect, attempt, job, silent }, vec![kind]);
        m.world = world;
        m.looked = looked;
        m.took = None;
    }

    fn refuse(&mut self, effect: Effect, obstacle: Obstacle, world: World) {
        let foreign = matches!(obstacle, Obstacle::Meddled(_) | Obstacle::Change);
        let transient = matches!(
            obstacle,
            Obstacle::Unreadable | Obstacle::Preconditions(Truth::Unknown) | Obstacle::When(Truth::Unknown)
        );
        let guard = GuardReport { why: super::trace::because(obstacle), ..guard(false) };
        let kind = EventKind::Refused { effect, guard, foreign, transient };
        self.add(Told::Refuses { effect, obstacle }, vec![kind]).world = world;
    }
}

pub(super) fn truths(of: Outcomes) -> impl Iterator<Item = Truth> {
    [Truth::False, Truth::Unknown, Truth::True].into_iter().filter(move |t| of.contains(*t))
}
