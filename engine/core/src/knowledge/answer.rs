//! Lookups: what a code or a reason means, what would be done about it, and who says so.

use super::fault::Generation;
use super::provenance::{SiteChange, Source, Table};
use super::xid::{Disagreement, Drains, Status, Xid};
use super::{CataloguePlaybook, HUMAN, Knowledge, NOTHING};
use crate::incident::fault::{Strength, strength};
use crate::watch::Pattern;
use serde::Serialize;

/// The GPU and the driver that somebody asks about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GpuAsked<'a> {
    /// The model, e.g. `H100`.
    pub model: Option<&'a str>,
    /// The branch of the driver, e.g. 570.
    pub driver: Option<u32>,
}

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// This is for a playbook.
    Playbook,
    /// Nothing is to be done.
    Nothing,
    /// A person decides.
    Person,
}

/// Whether NVIDIA's catalogue lists a code for a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Listed {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// The GPU is older than the catalogue.
    Older,
    /// The model is not known here, or none was named.
    Unknown,
}

/// What is known of one XID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XidAnswer<'a> {
    /// The code.
    pub code: u32,
    /// Its entry; `None` for a code that nobody knows.
    pub xid: Option<&'a Xid>,
    /// The entry that it counts as on this GPU, where that is another.
    pub counts_as: Option<&'a Xid>,
    /// What comes of it.
    pub verdict: Verdict,
    /// The playbook.
    pub playbook: Option<&'a str>,
    /// Whether it may lead to a drain.
    pub drains: bool,
    /// Why, in sentences.
    pub why: Vec<String>,
    /// Whether the catalogue lists it for the GPU that was asked about.
    pub listed: Listed,
    /// The generation of that GPU.
    pub generation: Option<&'a Generation>,
    /// What is never done, each once.
    pub never: Vec<&'a str>,
    /// Where known tables disagree on it.
    pub disagreements: Vec<&'a Disagreement>,
    /// Who says so.
    pub sources: Vec<&'a Source>,
    /// What the site sees differently.
    pub changes: Vec<&'a SiteChange>,
}

/// What one part of a reason tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasonPart<'a> {
    /// The part.
    pub text: String,
    /// The pattern that fits; `None` for somebody's own words.
    pub pattern: Option<&'a Pattern>,
    /// What is never done about its fault.
    pub never: Vec<&'a str>,
    /// Who says so.
    pub sources: Vec<&'a Source>,
    /// What the site sees differently.
    pub changes: Vec<&'a SiteChange>,
}

/// What is known of a reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasonAnswer<'a> {
    /// Whether it has the form of a mark of ours.
    pub ours: bool,
    /// Its parts.
    pub parts: Vec<ReasonPart<'a>>,
    /// What comes of it.
    pub verdict: Verdict,
    /// The playbook, where all parts lead to one.
    pub playbook: Option<&'a str>,
    /// Why, in sentences.
    pub why: Vec<String>,
}

fn unique<'a>(all: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    let mut out: Vec<&str> = Vec::new();
    for one in all {
        if !out.contains(&one.as_str()) {
            out.push(one);
        }
    }
    out
}

fn about_154(branch: &str, driver: Option<u32>) -> String {
    let from: Option<u32> = branch.strip_prefix('R').and_then(|n| n.parse().ok());
    match (from, driver) {
        (None, _) => "XID 154 follows with what the driver wants, and counts more".to_owned(),
        (Some(from), Some(d)) if d < from => {
            format!("drivers before {from} do not say by XID 154 what they want: read the recovery action")
        }
        (Some(from), _) => {
            format!("from driver {from} on XID 154 follows with what the driver wants, and counts more")
        }
    }
}

fn weight(p: &Pattern) -> Strength {
    p.fault.as_deref().map_or(Strength::Unknown, strength)
}

impl Knowledge {
    /// Looks an XID up.
    pub fn xid(&self, code: u32, asked: GpuAsked<'_>) -> XidAnswer<'_> {
        let entry = self.xids.get(&code);
        let generation = asked.model.and_then(|m| self.generation(m));
        let mut why = Vec::new();
        let listed = self.listed(entry, asked.model);
        let Some(xid) = entry else {
            return XidAnswer {
                code,
                xid: None,
                counts_as: None,
                verdict: Verdict::Person,
                playbook: None,
                drains: false,
                why: vec!["no source lists this code: collect the kernel log and ask a person".to_owned()],
                listed,
                generation,
                never: vec!["act by a machine on a code that nobody knows"],
                disagreements: vec![],
                sources: vec![],
                changes: vec![],
            };
        };
        let spreads = generation.is_some_and(|g| !g.containment);
        let counts_as = xid.without_containment.filter(|_| spreads).and_then(|c| self.xids.get(&c));
        let acts = counts_as.unwrap_or(xid);
        if let Some(other) = counts_as {
            why.push(format!("this GPU does not contain memory errors: it counts as {}", other.code));
        }
        let mut verdict = match acts.playbook.as_str() {
            HUMAN => Verdict::Person,
            NOTHING => Verdict::Nothing,
            _ => Verdict::Playbook,
        };
        match (xid.status, listed) {
            (Status::Unused, Listed::Older) => {
                why.push("GPUs of this age used the code: see its causes".to_owned());
            }
            (Status::Unused, _) => {
                why.push(
                    "the code is not in use on Ampere and newer: seeing it is itself a surprise".to_owned(),
                );
            }
            (Status::NotDatacenter, _) => why.push("the code is not one of GPUs of data centres".to_owned()),
            // Buckets of the catalogue do not hold for older GPUs, and a code that a GPU should not have is a surprise.
            (Status::Active, Listed::No)
                if verdict == Verdict::Playbook && acts.drain != Drains::Never && !xid.is_application() =>
            {
                why.push(
                    "NVIDIA's catalogue does not list the code for this GPU: a person decides".to_owned(),
                );
                verdict = Verdict::Person;
            }
            (Status::Active, Listed::Older) => {
                why.push(
                    "the catalogue is for newer GPUs: what is done is the judgement of this project"
                        .to_owned(),
                );
            }
            (Status::Active, _) => {}
        }
        if xid.needs_witness {
            why.push(
                "it counts only with a second witness: XID 154, the recovery action, or another symptom"
                    .to_owned(),
            );
        }
        if xid.follows_others {
            why.push("another XID of the same burst comes first; alone it only tells the job".to_owned());
        }
        if let Some(branch) = &xid.tells_154 {
            why.push(about_154(branch, asked.driver));
        }
        why.push(format!("drain: {}", acts.drain.says()));
        let playbook = (verdict == Verdict::Playbook).then_some(acts.playbook.as_str());
        let book = playbook.and_then(|p| self.playbooks.get(p));
        let drains = matches!(
            acts.drain,
            Drains::Now | Drains::AfterJob | Drains::See48 | Drains::SeeValue | Drains::Decode
        ) && verdict == Verdict::Playbook
            && book.is_some_and(CataloguePlaybook::mutates)
            && !xid.is_application();
        let fault = acts.fault.as_ref().and_then(|f| self.faults.get(f));
        let never = unique(fault.iter().flat_map(|f| &f.never).chain(book.iter().flat_map(|b| &b.never)));
        let entry_name = code.to_string();
        XidAnswer {
            code,
            xid: Some(xid),
            counts_as,
            verdict,
            playbook,
            drains,
            why,
            listed,
            generation,
            never,
            disagreements: self.disagreements.iter().filter(|d| d.codes.contains(&code)).collect(),
            sources: self.sources_of(&xid.sources).collect(),
            changes: self
                .changes
                .iter()
                .filter(|c| c.table == Table::Xids && c.entry == entry_name)
                .collect(),
        }
    }

    fn listed(&self, entry: Option<&Xid>, model: Option<&str>) -> Listed {
        let Some(column) = model.and_then(|m| self.column(m)) else { return Listed::Unknown };
        match entry {
            _ if column == "older" => Listed::Older,
            Some(x) if x.gpus.iter().any(|g| g == column) => Listed::Yes,
            _ => Listed::No,
        }
    }

    /// Looks a reason of a node up.
    pub fn reason(&self, text: &str) -> ReasonAnswer<'_> {
        let ours = self.reasons.looks_ours(text);
        let parts: Vec<ReasonPart<'_>> = self
            .reasons
            .parts(text)
            .map(|(part, pattern)| {
                let fault = pattern.and_then(|p| p.fault.as_ref()).and_then(|f| self.faults.get(f));
                let id = pattern.map(|p| p.id.as_str());
                ReasonPart {
                    text: part.to_owned(),
                    pattern,
                    never: unique(fault.iter().flat_map(|f| &f.never)),
                    sources: pattern.map(|p| self.sources_of(&p.sources).collect()).unwrap_or_default(),
                    changes: self
                        .changes
                        .iter()
                        .filter(|c| c.table == Table::Reasons && Some(c.entry.as_str()) == id)
                        .collect(),
                }
            })
            .collect();
        let mut answer =
            ReasonAnswer { ours, parts, verdict: Verdict::Person, playbook: None, why: Vec::new() };
        if ours {
            answer.why.push(
                "it has the form of a mark of ours; it is ours if, and only if, the journal knows its run"
                    .to_owned(),
            );
            return answer;
        }
        if answer.parts.is_empty() {
            answer.why.push("there is no reason: nobody says why".to_owned());
            return answer;
        }
        if answer.parts.iter().any(|p| p.pattern.is_none()) {
            answer
                .why
                .push("somebody's own words are in it: the node is theirs, and is left alone".to_owned());
            return answer;
        }
        let patterns = || answer.parts.iter().filter_map(|p| p.pattern);
        if patterns().any(|p| p.person) {
            answer.why.push("Slurm explains it, and a person has to look after it".to_owned());
        } else if patterns().any(|p| p.planned) {
            answer.verdict = Verdict::Nothing;
            answer.why.push("somebody asked for it: the node is left alone".to_owned());
        } else {
            // Of equals the first part counts: it was written first.
            let strongest = |a: &&Pattern, b: &&Pattern| weight(a).cmp(&weight(b));
            let all: Vec<&Pattern> = answer.parts.iter().filter_map(|p| p.pattern).collect();
            let Some(chosen) = all.iter().rev().copied().max_by(strongest) else { return answer };
            if all.iter().any(|p| p.playbook != chosen.playbook) {
                answer.why.push(format!("of its parts {} is the strongest evidence", chosen.id));
            }
            if chosen.playbook == HUMAN {
                answer.why.push("there is no playbook for it: a person decides".to_owned());
            } else {
                answer.verdict = Verdict::Playbook;
                answer.playbook = Some(&chosen.playbook);
            }
        }
        answer
    }
}
