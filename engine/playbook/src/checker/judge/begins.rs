//! What must hold when an effect is begun.

use super::{Book, Judge, Verdict};
use crate::checker::effects::{class, gives_back, limit, step_of};
use crate::checker::node::{Looked, looks_right};
use crate::checker::rule::{Holds, Rule, hold};
use crate::checker::world::World;
use engine_core::action::Undo;
use engine_core::plan::Plan;
use engine_core::run::Effect;

impl Judge {
    /// What must hold before an effect is even looked at.
    pub(super) fn may_be_looked_at(&self, effect: Effect) -> Holds {
        if matches!(effect, Effect::Lock | Effect::Unlock) {
            return Ok(());
        }
        let locked = self.verdict(Effect::Lock) == Some(Verdict::Applied);
        hold(Rule::Lock, locked, "the node is not locked")?;
        let unlocking = self.books.contains_key(&Effect::Unlock);
        hold(Rule::Lock, !unlocking, "the lock is being given back already")?;
        let Effect::Step(i) = effect else { return Ok(()) };
        let before = (0..i).all(|j| self.verdict(Effect::Step(j)) == Some(Verdict::Applied));
        hold(Rule::Guard, before, "the step before it is not done")
    }

    pub(super) fn counts(&mut self, effect: Effect, attempt: Option<u32>, plan: &Plan) -> Holds {
        let limit = limit(plan, effect);
        let b = self.books.entry(effect).or_insert(Book {
            verdict: Verdict::Not,
            attempts: 0,
            intents: 0,
            retry: true,
        });
        hold(Rule::End, b.retry, "it is attempted again without a retry on record")?;
        b.retry = false;
        b.attempts += 1;
        b.intents += u32::from(attempt.is_some());
        let b = *b;
        hold(Rule::End, attempt.is_none_or(|a| a == b.attempts), "attempts are counted with a gap")?;
        hold(Rule::End, b.attempts <= limit, "it is attempted more often than allowed")
    }

    pub(super) fn begins(
        &mut self,
        effect: Effect,
        attempt: u32,
        slipped: bool,
        plan: &Plan,
        looked: Option<Looked>,
        world: World,
    ) -> Holds {
        self.one_at_a_time()?;
        hold(Rule::Approval, self.started, "something is begun before the run is started")?;
        let first = !self.mutated(plan);
        let step = step_of(plan, effect);
        let disruptive = step.is_some_and(|s| class(s).needs_verification());
        if disruptive {
            let intents = self.books.get(&effect).map_or(0, |b| b.intents);
            hold(Rule::End, intents == 0, "what disturbs the hardware is begun a second time")?;
        }
        self.counts(effect, Some(attempt), plan)?;
        let giving_back = effect == Effect::Unlock;
        hold(
            Rule::Person,
            !self.foreign || giving_back,
            "somebody else changed the node, and the run does more than give its lock back",
        )?;
        self.may_be_looked_at(effect)?;
        match effect {
            Effect::Lock => {
                hold(Rule::Promise, !self.cancelled || slipped, "a lock is taken after a cancel")?;
            }
            Effect::Unlock => {
                hold(Rule::Lock, self.may_be_done(Effect::Lock), "a lock is given back that is not ours")?;
            }
            Effect::Step(_) => {
                hold(Rule::WayBack, !self.rolling_back, "a forward step is begun on the way back")?;
                hold(Rule::Promise, !self.cancelled || slipped, "a forward step is begun after a cancel")?;
            }
            Effect::Undo(i) => {
                hold(Rule::WayBack, self.rolling_back, "something is undone and no way back was begun")?;
                hold(Rule::WayBack, self.is_due(i, plan), "something is undone that was never done")?;
            }
            Effect::Hold => {
                hold(Rule::WayBack, self.rolling_back, "the node is held and no way back was begun")?;
            }
        }
        if let Some(looked) = looked.filter(|_| !giving_back) {
            looks_right(effect, looked, first, step, world)?;
        }
        if gives_back(plan, effect) {
            hold(
                Rule::Unverified,
                !self.unproven,
                "the node is given back, and no verification passed after the last disruptive step",
            )?;
        }
        self.unproven |= disruptive;
        self.set(effect, Verdict::Open);
        Ok(())
    }

    /// Says whether a step of the way back takes back something that stands, or may stand.
    fn is_due(&self, undo: usize, plan: &Plan) -> bool {
        let Some(name) = plan.rollback.get(undo).map(|s| &s.action) else { return false };
        let mut due = false;
        for (i, s) in plan.steps.iter().enumerate() {
            let e = Effect::Step(i);
            if s.spec().is_some_and(|s| matches!(s.undo, Undo::Action(u) if u == name)) {
                due |= self.may_be_done(e);
            }
            if s.action == *name && self.verdict(e) == Some(Verdict::Applied) {
                due = false;
            }
        }
        let again = plan
            .rollback
            .iter()
            .take(undo)
            .enumerate()
            .any(|(j, r)| r.action == *name && self.verdict(Effect::Undo(j)) == Some(Verdict::Applied));
        due && !again
    }
}
