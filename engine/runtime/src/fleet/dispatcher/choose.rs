//! Which playbook an incident is given to: what is applicable is found out before somebody is asked and again after the
//! answer (rule 12).

use super::Dispatcher;
use crate::engine::{Alert, ProposeRequest};
use crate::fleet::Question;
use engine_core::condition::Truth;
use engine_core::incident::{Fingerprint, Incident, Series};
use engine_core::model::NodeName;
use engine_core::playbook::{Playbook, TargetKind};
use engine_core::policy::Stage;
use engine_core::run::Actor;
use engine_core::select::{Answer, Applicable, Candidate, MAX_CANDIDATES, Settled};
use std::collections::{BTreeMap, BTreeSet};

/// What an incident asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) incident: &'a Incident,
    pub(super) node: &'a NodeName,
    /// Its strongest series.
    pub(super) fingerprint: &'a Fingerprint,
    pub(super) series: &'a Series,
}

impl Wanted<'_> {
    /// Puts the request for a plan together.
    pub(super) fn request<'p>(&self, playbook: &'p Playbook, by: Actor) -> ProposeRequest<'p> {
        let gpu = match playbook.target {
            TargetKind::Gpu => self.series.gpu.clone(),
            TargetKind::Node => None,
        };
        let id = self.fingerprint.as_str().to_owned();
        ProposeRequest {
            playbook,
            node: self.node.clone(),
            gpu,
            params: BTreeMap::new(),
            alert: Alert { id, last_seen: Some(self.series.last_seen) },
            initiator: by,
        }
    }
}

impl Dispatcher {
    /// Chooses a playbook for an incident.
    pub(super) async fn choose(&self, wanted: Wanted<'_>) -> Settled {
        let selection = &self.shared.selection;
        let before = self.applicable(wanted).await;
        let answer = self.ask(Question { incident: wanted.incident, applicable: &before }).await;
        if answer == Answer::NoOpinion {
            // Nobody took any time over it.
            return (selection.settle)(&before, &answer, &before);
        }
        let after = self.applicable(wanted).await;
        (selection.settle)(&before, &answer, &after)
    }

    async fn ask(&self, question: Question<'_>) -> Answer {
        let selection = &self.shared.selection;
        if question.applicable.candidates.is_empty() {
            return Answer::NoOpinion;
        }
        tokio::select! {
            biased;
            answer = selection.selector.choose(question) => answer,
            () = self.shared.engine.ports.clock.sleep(selection.patience) => {
                Answer::Silent(format!("no answer within {:#}", selection.patience))
            }
        }
    }

    /// Finds out what is applicable now. Where only one playbook is for the fault, its plan will tell whether its conditions
    /// hold; several are told apart by theirs, on live facts.
    async fn applicable(&self, wanted: Wanted<'_>) -> Applicable {
        let s = &self.shared;
        let fault = wanted.series.fault.clone();
        let mut out = Applicable { fault, ..Applicable::default() };
        let mut named = Vec::new();
        let all = s.playbooks.for_fault(&out.fault);
        let gpus = match self.gpus(wanted).await {
            Ok(n) => n,
            Err(why) if all.iter().any(|p| p.target == TargetKind::Gpu) => {
                out.unclear.push(why);
                return out;
            }
            Err(_) => 0,
        };
        for playbook in all {
            match self.unfit(wanted, &playbook, gpus) {
                Some(why) => out.against.push(why),
                None => named.push(playbook),
            }
        }
        if named.len() > MAX_CANDIDATES {
            out.against = vec![format!("{} playbooks are for {}: a person chooses", named.len(), out.fault)];
            return out;
        }
        let several = named.len() > 1;
        for playbook in named {
            let reference = &playbook.reference;
            if several {
                match s.engine.plan(wanted.request(&playbook, self.me())).await {
                    Ok(proposal) if proposal.objections.is_empty() => {}
                    Ok(proposal) => {
                        let why = format!("{reference}: {}", proposal.objections.join("; "));
                        let known = proposal.plan.judged.iter().any(|c| c.truth == Truth::False);
                        let told = if known { &mut out.against } else { &mut out.unclear };
                        told.push(why);
                        continue;
                    }
                    Err(e) => {
                        out.unclear.push(format!("{reference}: {e}"));
                        continue;
                    }
                }
            }
            let summary = playbook.summary.clone();
            out.candidates.push(Candidate { playbook: reference.clone(), summary });
        }
        out
    }

    /// Counts the GPUs that the alerts are about. Sources call one GPU by its index, its UUID or its bus id, so where there
    /// is more than one name the node is asked which they mean.
    async fn gpus(&self, wanted: Wanted<'_>) -> Result<usize, String> {
        let names = wanted.incident.gpus();
        if names.len() < 2 {
            return Ok(names.len());
        }
        let engine = &self.shared.engine;
        let look = engine.eyes().look_at_gpus(wanted.node, None, engine.config.inspect_limit).await;
        let (seen, _) = look.map_err(|why| {
            format!("its alerts name GPUs in {} ways, and which they mean is {why}", names.len())
        })?;
        let mut found = BTreeSet::new();
        let mut unknown = 0;
        for name in names {
            match seen.value.find(name) {
                Some(gpu) => {
                    found.insert(gpu.index);
                }
                // Such as one that is gone: it is not taken for another one.
                None => unknown += 1,
            }
        }
        Ok(found.len() + unknown)
    }

    /// Says why a playbook may not be chosen, whatever the node looks like.
    fn unfit(&self, wanted: Wanted<'_>, playbook: &Playbook, gpus: usize) -> Option<String> {
        if playbook.target == TargetKind::Gpu && gpus > 1 {
            let node = wanted.node;
            return Some(format!("{gpus} GPUs of {node} at once: look one level up (power, fabric, driver)"));
        }
        let off = self.shared.engine.stage(&playbook.reference, &self.me()) == Some(Stage::Off);
        off.then(|| format!("the stage of {} is off: a person decides", playbook.reference))
    }
}
