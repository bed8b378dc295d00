//! The judgement of one request: every rule of the policy, each with its numbers; the worst answer is the verdict.

use super::document::Policy;
use super::fleet::{Fleet, GroupKind, Member};
use super::ledger::{GpuIdentity, Ledger};
use super::quota::Quota;
use super::service::Service;
use super::share::Rate;
use super::windows::{Opening, opening};
use crate::action::EffectClass;
use crate::digest::Digest;
use crate::known::Known;
use crate::model::{NodeName, RunId};
use crate::playbook::PlaybookRef;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The run it is or would become; its own lock does not stand in its way.
    pub run: RunId,
    /// The node.
    pub node: NodeName,
    /// The GPU, for playbooks whose target is one.
    pub gpu: Option<GpuIdentity>,
    /// The playbook.
    pub playbook: PlaybookRef,
    /// The faults it is for; empty where a person asked without naming one.
    pub faults: Vec<String>,
    /// The worst effect class of its steps.
    pub worst: EffectClass,
    /// Whether it takes the node out of service.
    pub takes_out: bool,
    /// Whether it was begun already: its recovery and its way back are never held up by the policy.
    pub begun: bool,
}

/// The rules of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The run was begun before.
    Begun,
    /// The cluster and the journal could be read as a whole.
    Readable,
    /// The node is one of the cluster.
    KnownNode,
    /// The node did not ask to be left alone.
    OptOut,
    /// The same fault was not tried too often.
    Attempts,
    /// The piece of hardware was not worked on too often.
    RepeatOffender,
    /// No freeze holds.
    Freeze,
    /// A change window is open.
    Window,
    /// No other run has the node.
    NodeLock,
    /// Not too many runs go on.
    ConcurrentRuns,
    /// The budgets have room.
    Budget,
    /// Not too much was changed of late.
    Rate,
}

impl Rule {
    /// Returns the stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Readable => "readable",
            Self::KnownNode => "known_node",
            Self::OptOut => "opt_out",
            Self::Attempts => "attempts",
            Self::RepeatOffender => "repeat_offender",
            Self::Freeze => "freeze",
            Self::Window => "window",
            Self::NodeLock => "node_lock",
            Self::ConcurrentRuns => "concurrent_runs",
            Self::Budget => "budget",
            Self::Rate => "rate",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a rule, or all of them together, answer. The later, the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It may begin.
    Permit,
    /// Not now.
    Wait {
        /// When it is worth asking again, where that is known.
        until: Option<Timestamp>,
    },
    /// Only if a person who sees this finding says yes; no rule, program or canary scope may.
    NeedsPerson,
    /// No.
    Deny,
}

impl Outcome {
    fn rank(self) -> u8 {
        match self {
            Self::Permit => 0,
            Self::Wait { .. } => 1,
            Self::NeedsPerson => 2,
            Self::Deny => 3,
        }
    }

    /// Returns the worse of two; of two waits the one that is longer, or whose end is not known.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        match (self, other) {
            (Self::Wait { until: Some(a) }, Self::Wait { until: Some(b) }) => {
                Self::Wait { until: Some(a.max(b)) }
            }
            (Self::Wait { .. }, Self::Wait { .. }) => Self::Wait { until: None },
            (a, b) if a.rank() >= b.rank() => a,
            (_, b) => b,
        }
    }

    /// Returns the stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Wait { .. } => "wait",
            Self::NeedsPerson => "needs_person",
            Self::Deny => "deny",
        }
    }
}

/// What one rule found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// Its answer.
    pub outcome: Outcome,
    /// The numbers behind it, in one sentence.
    pub says: String,
}

/// What the policy says about a request, as a plan and the journal carry it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The policy it was judged by; `None` only where the policy could not be encoded.
    pub policy: Option<Digest>,
    /// When.
    pub at: Timestamp,
    /// The worst of the findings.
    pub outcome: Outcome,
    /// What each rule found, in the order of the rules.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// Says whether it may begin now.
    pub fn permits(&self) -> bool {
        self.outcome == Outcome::Permit
    }

    /// Returns the findings that stand in the way.
    pub fn obstacles(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|f| f.outcome != Outcome::Permit)
    }
}

/// Says whether a node is in the canary scope: named, in one of its partitions, or with one of its features. A node of
/// which that is not known is not.
pub fn in_canary(policy: &Policy, fleet: &Fleet, node: &NodeName) -> bool {
    let scope = &policy.canary;
    let Some(member) = fleet.node(node) else { return false };
    scope.nodes.contains(node.as_str())
        || member.features.is_known_and(|f| f.iter().any(|f| scope.features.contains(f)))
        || fleet
            .groups_of(node)
            .any(|(_, g)| g.kind == GroupKind::Partition && scope.partitions.contains(&g.name))
}

/// Judges whether a request may begin now. What is not known never permits.
///
/// The verdict holds for the moment of the look: take the lock with [`Quota::admit`], which counts once more.
pub fn judge(policy: &Policy, request: &Request, fleet: &Fleet, ledger: &Ledger, now: Timestamp) -> Verdict {
    let mut bench = Bench { policy, request, fleet, ledger, now, findings: Vec::new() };
    if request.begun {
        bench.find(Rule::Begun, Outcome::Permit, "the run was begun before: its recovery goes on".to_owned());
    } else {
        bench.all();
    }
    let findings = bench.findings;
    Verdict {
        policy: policy.digest().ok(),
        at: now,
        outcome: findings.iter().map(|f| f.outcome).fold(Outcome::Permit, Outcome::worse),
        findings,
    }
}

struct Bench<'a> {
    policy: &'a Policy,
    request: &'a Request,
    fleet: &'a Fleet,
    ledger: &'a Ledger,
    now: Timestamp,
    findings: Vec<Finding>,
}

const WAIT: Outcome = Outcome::Wait { until: None };

impl Bench<'_> {
    fn find(&mut self, rule: Rule, outcome: Outcome, says: String) {
        self.findings.push(Finding { rule, outcome, says });
    }

    fn all(&mut self) {
        self.readable();
        let mutates = self.request.worst >= EffectClass::Reversible || self.request.takes_out;
        match self.fleet.node(&self.request.node) {
            Some(member) if mutates => self.opt_out(member),
            Some(_) => {}
            // With the list of nodes unread, that is the finding, not the node.
            None if self.fleet.nodes().is_empty() => {}
            None => {
                let says = format!("the controller lists no node {}", self.request.node);
                self.find(Rule::KnownNode, Outcome::Deny, says);
            }
        }
        if mutates {
            self.attempts();
            self.repeat_offender();
            self.freeze();
            self.window();
        }
        self.quota(mutates);
        if mutates {
            self.rates();
        }
    }

    fn readable(&mut self) {
        let gaps: Vec<String> =
            self.fleet.gaps().iter().chain(self.ledger.gaps()).map(ToString::to_string).collect();
        match gaps.first() {
            None => {}
            Some(first) => {
                let more =
                    if gaps.len() > 1 { format!(" and {} more", gaps.len() - 1) } else { String::new() };
                self.find(Rule::Readable, WAIT, format!("not everything could be read: {first}{more}"));
            }
        }
    }

    fn opt_out(&mut self, member: &Member) {
        let out = &self.policy.opt_out;
        let (outcome, says) = match (&member.features, &member.comment) {
            (Known::Known(f), _) if !out.feature.is_empty() && f.contains(&out.feature) => {
                (Outcome::Deny, format!("the node has the feature {}: it is left alone", out.feature))
            }
            (_, Known::Known(Some(c))) if !out.comment.is_empty() && c.contains(&out.comment) => {
                (Outcome::Deny, format!("the node's comment says {:?}: it is left alone", out.comment))
            }
            (Known::Unknown(u), _) if !out.feature.is_empty() => {
                (WAIT, format!("whether the node wants to be left alone is not known: its features are {u}"))
            }
            (_, Known::Unknown(u)) if !out.comment.is_empty() => {
                (WAIT, format!("whether the node wants to be left alone is not known: its comment is {u}"))
            }
            _ => return,
        };
        self.find(Rule::OptOut, outcome, says);
    }

    fn attempts(&mut self) {
        let Rate { most, per } = self.policy.attempts;
        let (r, now) = (self.request, self.now);
        let same_gpu = |past: &Option<GpuIdentity>| match (past, &r.gpu) {
            (Some(a), Some(b)) => a.may_be(b),
            _ => true,
        };
        // Without a fault, as when a person asks, the playbook stands for it.
        let same_fault = |faults: &[String], playbook: &str| {
            if r.faults.is_empty() || faults.is_empty() {
                playbook == r.playbook.id
            } else {
                faults.iter().any(|f| r.faults.contains(f))
            }
        };
        let tried = self
            .ledger
            .runs_on(&r.node)
            .iter()
            .filter(|p| p.run != r.run && per.reaches(p.began, now))
            .filter(|p| same_gpu(&p.gpu) && same_fault(&p.faults, &p.playbook))
            .count();
        let of = if r.faults.is_empty() { r.playbook.id.clone() } else { r.faults.join(", ") };
        let says = format!("{of}: {tried} of {most} attempts in {per} are used on {}", r.node);
        let outcome = if tried < most as usize { Outcome::Permit } else { Outcome::NeedsPerson };
        self.find(Rule::Attempts, outcome, says);
    }

    fn repeat_offender(&mut self) {
        let Some(gpu) = &self.request.gpu else { return };
        let now = self.now;
        let limits = &self.policy.repeat_offenders;
        let count = |times: &[Timestamp], l: Rate| times.iter().filter(|t| l.per.reaches(**t, now)).count();
        let mut found = Vec::new();
        match gpu.unit() {
            Some(unit) => {
                found.push((count(self.ledger.of_unit(gpu), limits.gpu), limits.gpu, format!("GPU {unit}")));
            }
            None => {
                let says = "neither serial number nor UUID of the GPU is known: nobody can say how often it was worked on";
                self.find(Rule::RepeatOffender, Outcome::NeedsPerson, says.to_owned());
            }
        }
        if let Some(bus_id) = &gpu.bus_id {
            let slot = format!("slot {} {bus_id}", self.request.node);
            found.push((count(self.ledger.of_slot(&self.request.node, gpu), limits.slot), limits.slot, slot));
        }
        for (n, limit, what) in found {
            let outcome = if n < limit.most as usize { Outcome::Permit } else { Outcome::NeedsPerson };
            let says = format!("{what}: {n} of {} runs in {}", limit.most, limit.per);
            self.find(Rule::RepeatOffender, outcome, says);
        }
    }

    fn freeze(&mut self) {
        let holding: Vec<_> = self.policy.freezes.iter().filter(|f| f.holds(self.now)).cloned().collect();
        for f in holding {
            let says = format!("frozen until {}: {}", f.to, f.why);
            self.find(Rule::Freeze, Outcome::Wait { until: Some(f.to) }, says);
        }
    }

    fn window(&mut self) {
        if self.request.worst < EffectClass::Disruptive {
            return;
        }
        let zone = self.policy.windows.first().map(|w| &w.zone);
        let show = |t: Timestamp| zone.map_or_else(|| t.to_string(), |z| z.show(t));
        let (outcome, says) = match opening(&self.policy.windows, self.now) {
            Opening::Always => return,
            Opening::Open(end) => (Outcome::Permit, format!("a change window is open until {}", show(end))),
            Opening::Closed(Some(next)) => {
                (Outcome::Wait { until: Some(next) }, format!("the next change window opens {}", show(next)))
            }
            Opening::Closed(None) => (WAIT, "no change window opens within ten days".to_owned()),
        };
        self.find(Rule::Window, outcome, says);
    }

    fn quota(&mut self, mutates: bool) {
        let r = self.request;
        let others = || self.ledger.held().iter().filter(|h| h.run != r.run);
        if let Some(h) = others().find(|h| h.node == r.node) {
            let says = format!("run {} has {}", h.run, r.node);
            self.find(Rule::NodeLock, WAIT, says);
        }
        let running: BTreeSet<&RunId> = others().map(|h| &h.run).collect();
        let most = self.policy.concurrent_runs;
        let outcome = if running.len() < most as usize { Outcome::Permit } else { WAIT };
        let says = format!("{} of {most} concurrent runs go on", running.len());
        self.find(Rule::ConcurrentRuns, outcome, says);
        if !mutates || !r.takes_out {
            return;
        }
        let quota = Quota::of(self.policy, self.fleet, &r.node, r.takes_out);
        let already = match self.fleet.node(&r.node).map(|m| &m.service) {
            Some(Service::Out(why)) => Some(why.to_string()),
            _ => None,
        };
        for level in quota.levels(others()) {
            let outcome = if level.exceeded { WAIT } else { Outcome::Permit };
            let says = match &already {
                Some(why) => format!("{level}; {} is among them already: {why}", r.node),
                None => level.to_string(),
            };
            self.find(Rule::Budget, outcome, says);
        }
    }

    fn rates(&mut self) {
        for class in [EffectClass::Reversible, EffectClass::Disruptive, EffectClass::Destructive] {
            let Some(rate) = self.policy.rates.of(class).filter(|_| class <= self.request.worst) else {
                continue;
            };
            let since = self.now.saturating_sub(rate.per.duration()).unwrap_or(Timestamp::MIN);
            let (count, room) = rate.judge(self.ledger.changes_since(class, since).iter().copied(), self.now);
            let says = format!("{}: {count} of {rate}", class.as_str());
            let outcome = match room {
                None => Outcome::Permit,
                Some(t) if t == Timestamp::MAX => Outcome::NeedsPerson,
                Some(t) => Outcome::Wait { until: Some(t) },
            };
            self.find(Rule::Rate, outcome, says);
        }
    }
}
