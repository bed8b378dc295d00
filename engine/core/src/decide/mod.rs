//! From a situation to exactly one decision: rules over the knowledge, before any model is asked. Pure.
//!
//! 1. What forbids to look at all comes first: nothing weaker is done in its place.
//! 2. All alerts of a node are one incident; each speaks for something, and the strongest evidence wins.
//! 3. Many nodes at once are an incident of the rack, the driver or the fleet, not of nodes.
//! 4. The playbook's first rung whose needs hold says what is done and who agrees; what takes something away has to pass
//!    the budgets. On doubt nothing is done, and a person is asked.

pub mod candidate;
mod crowd;
mod fabric;
mod gpu;
mod guard;
mod node;
pub mod owner;
pub mod reason;
mod rung;
pub mod situation;

pub use candidate::{Candidate, Lead};
pub use reason::ReasonCode;
pub use situation::{NoSituation, Situation, read};

use crate::knowledge::Knowledge;
use crate::playbook::ApprovalClass;
use owner::{Owner, owner};
use reason::ReasonCode::{AppFault, Informational, InsufficientEvidence, RepeatOffender, UnknownCode};
use serde::Serialize;
use situation::SeenAlert;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It may be done without a person.
    Run,
    /// It waits for an approval.
    Propose,
    /// Nothing, beyond the record.
    None,
    /// A person is asked.
    Human,
}

impl Outcome {
    /// Returns the stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Propose => "propose",
            Self::None => "none",
            Self::Human => "human",
        }
    }
}

/// The decision for one situation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The situation.
    pub id: String,
    /// The playbook.
    pub playbook: Option<String>,
    /// What is done.
    pub outcome: Outcome,
    /// Why nothing is done or a person is asked; beside a playbook, what else there is to say.
    pub reason_code: Option<ReasonCode>,
    /// Who has to agree.
    pub approval: Option<ApprovalClass>,
    /// The actions of the plan, in order.
    pub actions: Vec<String>,
    /// Why, and why each other candidate lost, in sentences.
    pub why: Vec<String>,
}

/// What an alert speaks for.
fn speaks(s: &Situation, known: &Knowledge, a: &SeenAlert) -> Candidate {
    let f = &a.facts;
    let fault = |fault: &str, says: &str| Candidate::of_fault(known, fault, says);
    let mut c = match a.name.as_str() {
        "GpuXid" => {
            let codes = gpu::named(a);
            let zero = codes.iter().all(|c| *c == 0) && !codes.is_empty();
            let each = codes.into_iter().filter(|c| *c != 0).map(|c| gpu::xid(s, known, a, c));
            match each.max_by_key(|c| c.weight) {
                Some(c) => c,
                None if zero => Candidate::nothing(Informational, "an XID gauge of 0 tells of no XID"),
                None => Candidate::person(InsufficientEvidence, "an XID without a number"),
            }
        }
        "NvSwitchSxid" => fabric::sxid(known, f.whole("sxid"), f.text("text")),
        "GpuCountMismatch" if candidate::tells_of_a_change(s) => Candidate::person(
            ReasonCode::ConfigChangeSuspected,
            "the count of GPUs changed with the configuration",
        ),
        // What says why the GPU is missing counts more.
        "GpuCountMismatch" => {
            let c = fault("gpu-count-mismatch", "the node has fewer GPUs than Slurm expects");
            Candidate { weight: c.weight - 1, ..c }
        }
        "RowRemapPending" | "RowRemapFailure" | "RetiredPagesPending" => gpu::memory_flag(s, known, a),
        "GpuHwThermal" | "GpuSwThermal" => fault("gpu-hw-thermal", "the GPU is held back by heat"),
        "GpuThrottle" => gpu::throttle(s, known, a),
        "GpuClockLow" => gpu::low_clock(s, known, a),
        "PcieLinkGen" | "PcieLinkWidth" | "PcieReplay" => gpu::pcie(s, known, a),
        "FabricManagerStatus" => fabric::manager(s, known, a),
        "IbLinkFlap" => fault("ib-link-flap", "a link of the fabric flaps, which counts for a day"),
        "IbPortDown" => fabric::port_down(known, a),
        "NcclTimeout" => fabric::nccl(s, known),
        "BmcFan" => fault("bmc-sensor", "the BMC tells of a fan"),
        "KernelLog" => node::kernel_line(s, known, a),
        "ExporterAbsent" | "NodeExporterDown" => fabric::tool(s, a),
        "SlurmNodeDown" | "SlurmNodeDrain" | "StaleDrain" => node::slurm_state(s, known, a),
        "StuckCompleting" => node::completing(s, known),
        "GhostGpuProcess" => node::ghost(s, known, a),
        "LustreChangelog" => fabric::changelog(s, known, a),
        "LustreServerLost" => fabric::storage(s, known, f.amount("count").unwrap_or(1.0)),
        "HostAnomaly" => fault("slow-node", "a score of an anomaly"),
        other => Candidate::person(UnknownCode, format!("no rule is for the alert {other}")),
    };
    c.nodes.clone_from(&a.nodes);
    c.spread = gpu::spread(a).filter(|_| a.name == "GpuXid");
    c.gpu = f.get("gpu").map(|g| g.as_str().map_or_else(|| g.to_string(), str::to_owned));
    c
}

/// Alerts that are about Slurm's view of the node: its reason is their subject.
const ABOUT_SLURM: &[&str] = &["SlurmNodeDown", "SlurmNodeDrain", "StaleDrain"];

/// Decides.
pub fn decide(s: &Situation, known: &Knowledge) -> Decision {
    if let Some((lead, says)) = guard::before(s) {
        return settled(s, &lead, vec![says]);
    }
    let live: Vec<&SeenAlert> =
        s.alerts.iter().filter(|a| !guard::is_over(a) && !guard::is_stale(s, a)).collect();
    let all: Vec<Candidate> = live.iter().map(|a| speaks(s, known, a)).collect();
    let who = owner(s, known);
    let about_slurm = live.iter().any(|a| ABOUT_SLURM.contains(&a.name.as_str()));
    let crowd = crowd::crowd(s, &all);
    if crowd.is_none()
        && let Some((lead, says)) = guard::node(s, &who, about_slurm)
    {
        return settled(s, &lead, vec![says]);
    }
    let single = s.nodes().len() <= 1;
    let level_up = crowd.or_else(|| crowd::whole_node(s, &all).filter(|_| single));
    let mut ranked = all;
    ranked.extend(level_up);
    strengthen(s, known, &mut ranked);
    // The first of the strongest: the order of alerts decides between equals.
    ranked.sort_by_key(|c| std::cmp::Reverse(c.weight));
    let Some(winner) = ranked.first().cloned() else {
        return settled(s, &Lead::Nothing(Informational), vec!["there is no alert".to_owned()]);
    };
    let mut why = vec![winner.says.clone()];
    for lost in ranked.iter().skip(1).filter(|l| l.lead != winner.lead).take(20) {
        why.push(format!("{} lost: {} is the stronger evidence", name_of(&lost.lead), name_of(&winner.lead)));
    }
    let Lead::Playbook(id) = &winner.lead else {
        return settled(s, &winner.lead, why);
    };
    planned(s, known, &who, id, winner.code, why)
}

/// Facts that are known beside the alerts make a weaker candidate into a stronger one.
fn strengthen(s: &Situation, known: &Knowledge, all: &mut Vec<Candidate>) {
    let memory = ["dcgm-ecc-drain-reset", "gpu-idle-window-reset", "gpu-ecc-watch"];
    let leads =
        |c: &Candidate, ids: &[&str]| matches!(&c.lead, Lead::Playbook(p) if ids.contains(&p.as_str()));
    let failed = gpu::remap_failed(s) || gpu::codes(s).contains(&64);
    if failed && all.iter().any(|c| leads(c, &memory)) {
        let says = "row remapping failed: a reset does not repair it";
        let rma = Candidate::playbook("gpu-remap-failure-rma", "gpu-row-remap-failure", says);
        all.push(Candidate { weight: 85, ..rma });
    }
    let repaired = ["dcgm-ecc-drain-reset", "gpu-hang-drain-reset"];
    let of_gpus = [&memory[..], &["gpu-hang-drain-reset", "xid-app-annotate"]].concat();
    if let Some(w) = gpu::wish(s, known).filter(|w| w.word == "reboot")
        && all.iter().any(|c| leads(c, &of_gpus))
    {
        all.push(Candidate::playbook(&w.playbook, "gpu-off-bus", "the driver asks for a reboot"));
    }
    let asks = gpu::wish(s, known).is_some_and(|w| ["reset", "drain_and_reset"].contains(&w.word.as_str()));
    let lone = all.iter().all(|c| !leads(c, &repaired));
    if asks && lone && all.iter().any(|c| leads(c, &["gpu-ecc-watch", "xid-app-annotate"])) {
        all.push(Candidate::of_fault(known, "gpu-ecc-uncorrectable", "the driver asks for a reset"));
    }
}

fn name_of(lead: &Lead) -> &str {
    match lead {
        Lead::Playbook(id) => id,
        Lead::Nothing(code) | Lead::Person(code) => code.as_str(),
    }
}

fn settled(s: &Situation, lead: &Lead, why: Vec<String>) -> Decision {
    let (outcome, code) = match lead {
        Lead::Nothing(code) => (Outcome::None, *code),
        Lead::Person(code) => (Outcome::Human, *code),
        Lead::Playbook(_) => (Outcome::Human, InsufficientEvidence),
    };
    Decision {
        id: s.id.clone(),
        playbook: None,
        outcome,
        reason_code: Some(code),
        approval: None,
        actions: Vec::new(),
        why,
    }
}

fn planned(
    s: &Situation,
    known: &Knowledge,
    who: &Owner<'_>,
    id: &str,
    code: Option<ReasonCode>,
    mut why: Vec<String>,
) -> Decision {
    let Some(book) = known.playbooks.get(id) else {
        why.push(format!("the catalogue has no playbook {id}"));
        return settled(s, &Lead::Person(InsufficientEvidence), why);
    };
    let Some(rung) = rung::choose(book, s, known) else {
        why.push(format!("no rung of {id} fits: {}", book.before.as_deref().unwrap_or("a person decides")));
        let code = if id == "slurm-unexpected-reboot-triage" { RepeatOffender } else { InsufficientEvidence };
        return settled(s, &Lead::Person(code), why);
    };
    let actions = rung::actions(book, rung, s, who);
    if rung.mutates()
        && let Some((lead, says)) = guard::plan(s, id, rung::takes_out(&actions))
    {
        why.push(format!("{id} lost: {says}"));
        return settled(s, &lead, why);
    }
    if let Some(answer) = s.context.text("model_choice") {
        let person = ["human", "person"].iter().any(|w| answer.eq_ignore_ascii_case(w));
        if person {
            why.push("the model leaves it to a person".to_owned());
            return settled(s, &Lead::Person(InsufficientEvidence), why);
        }
        if answer != id {
            why.push("the model named none of the playbooks that are applicable, the rules chose".to_owned());
        }
    }
    why.push(format!("{id}, rung {}", rung.id));
    let (outcome, approval) = match rung.approval {
        ApprovalClass::Auto => (Outcome::Run, ApprovalClass::Auto),
        ApprovalClass::Canary if s.is_canary() => (Outcome::Run, ApprovalClass::Canary),
        ApprovalClass::Canary => (Outcome::Propose, ApprovalClass::Hitl),
        other => (Outcome::Propose, other),
    };
    let mut decision = Decision {
        id: s.id.clone(),
        playbook: Some(id.to_owned()),
        outcome,
        reason_code: code.filter(|c| *c != AppFault || id == "xid-app-annotate"),
        approval: Some(approval),
        actions,
        why,
    };
    if s.context.text("mode").is_some_and(|m| m.eq_ignore_ascii_case("shadow")) && rung.mutates() {
        decision.why.push("in shadow nothing is done: what would be is on record".to_owned());
        decision.outcome = Outcome::None;
        decision.approval = None;
        decision.actions.clear();
    }
    decision
}
