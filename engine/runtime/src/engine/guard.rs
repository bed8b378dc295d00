//! The look before each effect: nobody changed the node, and every condition still holds on fresh facts.

use super::Engine;
use crate::actions::Prepared;
use crate::gather::Situation;
use engine_core::condition::Truth;
use engine_core::fact::{FactSet, Source};
use engine_core::known::Known;
use engine_core::ownership::{Change, NodeMark};
use engine_core::plan::{ConditionReport, judge};
use engine_core::run::{Effect, GuardReport, RunState};

/// Age of a read of the node up to which a decision or a write may follow at once.
pub(super) const FRESH: jiff::SignedDuration = jiff::SignedDuration::from_millis(200);
/// Age up to which a write may follow if a fresher read is not to be had.
const USABLE: jiff::SignedDuration = jiff::SignedDuration::from_secs(2);
/// Times a fresher read is tried.
const READS_FOR_A_FRESH_ONE: u32 = 4;

/// One look before an effect, judged.
#[derive(Debug, Clone)]
pub struct Look {
    /// What was read.
    pub situation: Situation,
    /// What people can change about the node.
    pub mark: Known<NodeMark>,
    /// What changed since the run last saw the node.
    pub change: Option<Change>,
    /// The verdict common to all effects.
    pub report: GuardReport,
    /// Whether somebody else's change is what stands against it.
    pub foreign: bool,
    /// Whether looking again later may help.
    pub transient: bool,
}

impl Engine {
    /// Looks before an effect.
    pub(super) async fn look_before(&self, state: &RunState, effect: Effect) -> Look {
        let first = !state.has_mutated();
        let mutates = match effect {
            Effect::Lock => true,
            Effect::Hold | Effect::Unlock | Effect::Undo(_) => false,
            Effect::Step(_) => state.step_of(effect).is_some_and(|s| s.effect.mutates()),
        };
        // Rule 8: preconditions hold right before the first mutation; after it, each step carries its own guard.
        let when = state.step_of(effect).and_then(|s| s.when.as_ref());
        let tools_matter = when.is_some_and(|w| w.facts().iter().any(|f| comes_from_tools(f)));
        let mut look = self.look_again(state, !(first && mutates), tools_matter).await;
        if look.report.passed
            && let Some(when) = when
        {
            let report = ConditionReport::of(when, None, &look.report.facts);
            if !report.permits() {
                look.transient = report.truth == Truth::Unknown;
                look.report.passed = false;
                look.report.why = not_true(&report);
            }
            look.report.conditions.push(report);
        }
        // A node that went silent or down may still be marked as held, and its lock given back.
        let only_marks = matches!(effect, Effect::Hold | Effect::Unlock);
        if only_marks && !look.foreign && matches!(look.change, Some(Change::Node(_))) {
            look.report.passed = true;
            look.report.why = "the node itself changed, nobody touched its marks".to_owned();
        }
        look
    }

    /// Looks at the target again and judges the preconditions, unless they are behind the run already. The node's
    /// tools are asked again where a condition needs them and what they said is old, or older than our last
    /// disruptive step (rule 3).
    pub(super) async fn look_again(
        &self,
        state: &RunState,
        preconditions_behind: bool,
        tools_matter: bool,
    ) -> Look {
        let plan = &state.plan;
        let wants_gpus = tools_matter || (plan.target.gpu.is_some() && !preconditions_behind);
        let now = self.ports.clock.now();
        let asked_again = wants_gpus && !tools_facts_hold(state, now, self.config.fact_max_age);
        // The tools first, they take long: what Slurm says should be as fresh as can be.
        let gpus = if asked_again {
            Some(self.eyes().look_at_gpus(&plan.target.node, None, self.config.inspect_limit).await)
        } else {
            None
        };
        let mut situation = match self.recent.reuse(&plan.target.node, self.ports.clock.now(), FRESH) {
            Some(look) => look,
            None => self.look_patiently(&plan.target.node).await,
        };
        if let Some(gpus) = gpus {
            situation.gpus = gpus;
        }
        let mark = situation.mark();
        let now = self.ports.clock.now();
        let mut facts = situation.facts(plan.target.gpu.as_ref());
        facts.extend(carried_facts(&plan.facts, !asked_again));
        self.engine_facts(&mut facts, &situation, now, Some(state)).await;
        facts.expire(now, self.config.fact_max_age);
        if let Some(disruption) = state.last_disruption_at {
            facts.invalidate_before(disruption);
        }
        let conditions = if preconditions_behind { Vec::new() } else { judge(&plan.preconditions, &facts) };
        let mut look = Look {
            change: None,
            foreign: false,
            transient: false,
            report: GuardReport { passed: false, why: String::new(), conditions, facts: facts.clone() },
            mark,
            situation,
        };
        let verdict = verdict(state, &mut look);
        look.report.passed = verdict.is_ok();
        look.report.why =
            verdict.err().unwrap_or_else(|| "nobody changed the node, every condition holds".to_owned());
        look
    }

    /// Makes sure right before a write that the node is still as the look showed it. The look may be old by now: a read
    /// was slow, or the node's tools were asked after it. Slurm has no compare-and-set, so what remains is the time
    /// from this read to the write.
    pub(super) async fn still_so(&self, state: &RunState, look: &Look, prepared: Prepared) -> Prepared {
        let mut prepared = self.mark_is_still_so(state, look, prepared).await;
        // What the conditions were judged on may have grown old meanwhile (rule 3).
        let mut aged = prepared.report.facts.clone();
        aged.expire(self.ports.clock.now(), self.config.fact_max_age);
        let grown_old = |(name, f): (&str, &engine_core::fact::Fact)| {
            prepared.report.facts.get(name).is_some_and(|was| was.value.is_known()) && !f.value.is_known()
        };
        if prepared.report.passed && aged.iter().any(grown_old) {
            prepared.transient = true;
            return prepared.refuse("what it rests on grew too old while slurmctld was asked again");
        }
        prepared
    }

    async fn mark_is_still_so(&self, state: &RunState, look: &Look, mut prepared: Prepared) -> Prepared {
        let clock = &self.ports.clock;
        let node = &state.plan.target.node;
        let age = |at: jiff::Timestamp| clock.now().duration_since(at);
        let Known::Known(seen) = &look.mark else { return prepared };
        let mut read_at = look.situation.node.as_ref().map_or(look.situation.at, |n| n.at);
        for _ in 0..READS_FOR_A_FRESH_ONE {
            if age(read_at) <= FRESH {
                return prepared;
            }
            let (reservations, read) =
                tokio::join!(self.ports.scheduler.reservations(), self.ports.scheduler.node(node));
            let (Ok(read), Ok(reservations)) = (read, reservations) else { continue };
            let Known::Known(now) = NodeMark::of(&read.value, &reservations.value, clock.now()) else {
                continue;
            };
            match now.change_since(seen) {
                None => read_at = read.at,
                Some(Change::Somebody(what)) => {
                    prepared.foreign = true;
                    return prepared.refuse(what);
                }
                Some(Change::Node(what)) => return prepared.refuse(format!("the node changed: {what}")),
            }
        }
        if age(read_at) <= USABLE {
            return prepared;
        }
        prepared.transient = true;
        prepared.refuse("slurmctld answers too slowly to act on what it says")
    }
}

/// Brings what was looked at into the form that goes on record: the plan has the facts that have not changed since.
pub(super) fn on_record(state: &RunState, effect: Effect, mut report: GuardReport) -> GuardReport {
    let plan = &state.plan;
    let when = state.step_of(effect).and_then(|s| s.when.as_ref());
    let needed = plan
        .preconditions
        .iter()
        .map(|p| &p.condition)
        .chain(when)
        .flat_map(engine_core::condition::Condition::facts)
        .collect();
    report.facts = report.facts.since(&plan.facts, &needed);
    report
}

fn verdict(state: &RunState, look: &mut Look) -> Result<(), String> {
    if let Err(unknown) = look.situation.slurm_is_readable() {
        look.transient = true;
        return Err(format!("slurmctld could not be read: {unknown}"));
    }
    let mark = match &look.mark {
        Known::Known(mark) => mark,
        Known::Unknown(u) => {
            look.transient = true;
            return Err(format!("the node's state is {u}"));
        }
    };
    if let Some(last) = &state.last_seen {
        look.change = mark.change_since(last);
        match &look.change {
            None => {}
            Some(Change::Somebody(what)) => {
                look.foreign = true;
                return Err(what.clone());
            }
            Some(Change::Node(what)) => return Err(format!("the node changed: {what}")),
        }
    }
    match look.report.conditions.iter().find(|c| !c.permits()) {
        None => Ok(()),
        Some(c) => {
            look.transient = c.truth == Truth::Unknown;
            Err(not_true(c))
        }
    }
}

fn not_true(c: &ConditionReport) -> String {
    let verdict = if c.truth == Truth::Unknown { "is not known" } else { "does not hold" };
    format!("`{}` {verdict}: {}", c.source, c.explain)
}

fn comes_from_tools(fact: &str) -> bool {
    engine_core::vocabulary::find(fact)
        .is_some_and(|d| d.sources.iter().any(|s| matches!(s, Source::NodeTools | Source::DcgmExporter)))
}

/// Says whether what the node's tools said when the plan was made may still be used.
fn tools_facts_hold(state: &RunState, now: jiff::Timestamp, limit: jiff::SignedDuration) -> bool {
    state.plan.facts.iter().filter(|(_, f)| matches!(f.source, Source::NodeTools | Source::DcgmExporter)).all(
        |(_, f)| {
            let after_disruption = state.last_disruption_at.is_none_or(|d| f.observed_at >= d);
            after_disruption && now.duration_since(f.observed_at) <= limit
        },
    )
}

/// Takes over what does not come from Slurm: the request's facts always, those of the node's tools where wanted.
fn carried_facts(plan: &FactSet, tools_too: bool) -> FactSet {
    plan.only(|_, f| {
        let tools = matches!(f.source, Source::NodeTools | Source::DcgmExporter);
        f.source != Source::Slurm && (tools_too || !tools)
    })
}
