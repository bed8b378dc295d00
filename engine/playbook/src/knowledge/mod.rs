//! Knowledge: from the YAML files that come with the program, and a site's differences, to the checked tables of the core.

pub mod codes;
mod cross;
mod read;
mod shape;
mod site;

use crate::source::SourceText;
use crate::tree;
use engine_core::diag::{Diagnostic, Severity};
use engine_core::knowledge::{Knowledge, SiteChange};
use engine_core::watch::Reasons;
use read::{Entry, Read};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;

/// The files that come with the program: name and text.
pub static FILES: &[(&str, &str)] = &[
    ("knowledge/sources.yaml", include_str!("../../../../knowledge/sources.yaml")),
    ("knowledge/xid.yaml", include_str!("../../../../knowledge/xid.yaml")),
    ("knowledge/nvlink5.yaml", include_str!("../../../../knowledge/nvlink5.yaml")),
    ("knowledge/faults.yaml", include_str!("../../../../knowledge/faults.yaml")),
    ("knowledge/slurm-reasons.yaml", include_str!("../../../../knowledge/slurm-reasons.yaml")),
    ("knowledge/playbooks.yaml", include_str!("../../../../knowledge/playbooks.yaml")),
];

/// Most diagnostics of one file.
const MAX_DIAGNOSTICS: usize = 200;

/// What came of loading one file.
#[derive(Debug, Clone)]
pub struct LoadedKnowledge {
    /// Everything that is known with this file, where there is no error.
    pub knowledge: Option<Knowledge>,
    /// Everything that is wrong or worth a look, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
    /// The text the diagnostics point into.
    pub source: SourceText,
    /// How many entries the file has.
    pub entries: usize,
}

impl LoadedKnowledge {
    /// Says whether any diagnostic is an error.
    pub fn failed(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }
}

/// Why there is no knowledge.
#[derive(Debug, thiserror::Error)]
pub enum KnowledgeError {
    /// A file that comes with the program has an error; a test holds that none has.
    #[error("{file}: {first}")]
    BuiltIn {
        /// Which file.
        file: String,
        /// Its first mistake.
        first: String,
    },
    /// The tables do not fit the types of this release.
    #[error("the table {table} does not fit this release: {cause}")]
    Table {
        /// Which one.
        table: &'static str,
        /// Why.
        cause: String,
    },
}

/// Reads one file, without looking at any other.
fn read_one(bytes: &[u8], file: &str) -> (Read, Vec<Diagnostic>, SourceText) {
    let (source, mut found) = SourceText::read(bytes, file);
    let mut out = Read::default();
    if found.is_empty() {
        let (root, more) = tree::read(&source);
        found = more;
        if let Some(root) = root.filter(|_| found.is_empty()) {
            out = read::file(&root, &source);
            found.append(&mut out.found);
        }
    }
    (out, found, source)
}

fn built_in_entries() -> Result<Vec<Entry>, KnowledgeError> {
    let mut all = Vec::new();
    for (file, text) in FILES {
        let (mut read, found, _) = read_one(text.as_bytes(), file);
        if let Some(first) = found.first() {
            return Err(KnowledgeError::BuiltIn { file: (*file).to_owned(), first: first.message.clone() });
        }
        all.append(&mut read.entries);
    }
    let mut names = cross::Names::default();
    names.add(&all);
    let mut found = Vec::new();
    for e in &all {
        cross::references(e, &names, &mut found);
        cross::rules(e, &e.fields, &mut found);
    }
    match found.into_iter().next() {
        Some(first) => Err(KnowledgeError::BuiltIn { file: "knowledge".to_owned(), first: first.message }),
        None => Ok(all),
    }
}

/// Returns what comes with the program.
pub fn built_in() -> Result<Knowledge, KnowledgeError> {
    typed(built_in_entries()?, Vec::new())
}

/// Loads a site's file over what comes with the program, or checks one of the program's own files. `file` is only the name
/// used in messages.
pub fn load(bytes: &[u8], file: &str) -> Result<LoadedKnowledge, KnowledgeError> {
    let mut all = built_in_entries()?;
    let (read, mut found, source) = read_one(bytes, file);
    let entries = read.entries.len();
    let mut names = cross::Names::default();
    names.add(&all);
    names.add(&read.entries);
    let mut changes = Vec::new();
    for e in &read.entries {
        cross::references(e, &names, &mut found);
    }
    if read.is_site {
        let laid = site::lay_over(&mut all, read, &mut found);
        changes = laid;
    } else {
        for e in &read.entries {
            cross::rules(e, &e.fields, &mut found);
            all.retain(|old| old.shape.name != e.shape.name || old.key != e.key);
        }
        all.extend(read.entries);
    }
    found.sort_by_key(|d| d.labels.first().map_or(0, |l| l.span.start));
    found.truncate(MAX_DIAGNOSTICS);
    let mut loaded = LoadedKnowledge { knowledge: None, diagnostics: found, source, entries };
    if !loaded.failed() {
        loaded.knowledge = Some(typed(all, changes)?);
    }
    Ok(loaded)
}

fn typed(entries: Vec<Entry>, changes: Vec<SiteChange>) -> Result<Knowledge, KnowledgeError> {
    let mut tables: BTreeMap<&'static str, Vec<Value>> = BTreeMap::new();
    for e in entries {
        tables.entry(e.shape.name).or_default().push(Value::Object(e.fields));
    }
    fn take<T: DeserializeOwned>(
        tables: &mut BTreeMap<&'static str, Vec<Value>>,
        table: &'static str,
    ) -> Result<Vec<T>, KnowledgeError> {
        let rows = Value::Array(tables.remove(table).unwrap_or_default());
        serde_path_to_error::deserialize(rows)
            .map_err(|e| KnowledgeError::Table { table, cause: e.to_string() })
    }
    let t = &mut tables;
    let patterns = take(t, "reasons")?;
    let reasons = Reasons::new(patterns)
        .map_err(|e| KnowledgeError::Table { table: "reasons", cause: e.to_string() })?;
    use engine_core::knowledge as k;
    Ok(Knowledge {
        sources: take::<k::Source>(t, "sources")?.into_iter().map(|s| (s.id.clone(), s)).collect(),
        xids: take::<k::Xid>(t, "xids")?.into_iter().map(|x| (x.code, x)).collect(),
        vendor_actions: take::<k::VendorAction>(t, "vendor_actions")?
            .into_iter()
            .map(|v| (v.word.clone(), v))
            .collect(),
        wishes: take::<k::RecoveryWish>(t, "recovery_actions")?.into_iter().map(|w| (w.value, w)).collect(),
        disagreements: take(t, "disagreements")?,
        links: take(t, "link_rules")?,
        generations: take(t, "generations")?,
        columns: take(t, "gpu_columns")?,
        clock_reasons: take(t, "clock_reasons")?,
        kernel_lines: take(t, "kernel_lines")?,
        sxids: take(t, "sxids")?,
        faults: take::<k::Fault>(t, "faults")?.into_iter().map(|f| (f.id.clone(), f)).collect(),
        reasons,
        hazards: take(t, "hazards")?,
        playbooks: take::<k::CataloguePlaybook>(t, "playbooks")?
            .into_iter()
            .map(|p| (p.id.clone(), p))
            .collect(),
        changes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_core::watch::Told;

    fn faults(reason: &str) -> Vec<String> {
        match built_in().unwrap().reasons.told(reason) {
            Told::Faults(f) => f.into_iter().map(|(word, _)| word.to_owned()).collect(),
            other => vec![format!("{other:?}")],
        }
    }

    #[test]
    fn reasons_as_slurm_writes_them_tell_their_faults() {
        for (reason, expected) in [
            ("Not responding", "node-not-responding"),
            ("Node unexpectedly rebooted", "kernel-panic-or-unexpected-boot"),
            ("Kill task failed", "slurm-kill-task-failed"),
            ("Kill task failed (JobId=17 StepId=17.batch)", "slurm-kill-task-failed"),
            ("Prolog error", "slurm-prolog-epilog-failure"),
            ("Epilog error", "slurm-prolog-epilog-failure"),
            ("gres/gpu count reported lower than configured (6 < 8)", "gpu-count-mismatch"),
            ("gres/nic count reported lower than configured (1 < 2)", "slurm-invalid-registration"),
            ("Low RealMemory (reported:1024 < 100.00% of configured:2048)", "slurm-invalid-registration"),
            ("Low socket*core*thread count, Low CPUs", "slurm-invalid-registration"),
            ("SlurmdSpoolDir is full", "disk-full"),
            ("NHC: check_gpu_ecc: Row remap pending", "gpu-row-remap-pending"),
            ("NHC: check_ps_service: sshd not running", "nhc-check-failed"),
        ] {
            assert_eq!(faults(reason), [expected], "{reason}");
        }
        assert_eq!(
            faults("Epilog error : Not responding"),
            ["slurm-prolog-epilog-failure", "node-not-responding"]
        );
    }

    #[test]
    fn words_of_people_and_marks_of_ours_tell_none() {
        for reason in [
            "bad dimm",
            "bad dimm : Not responding",
            "not responding",
            "firmware, see Prolog error of yesterday",
            "Reboot ASAP : reboot issued",
            "fw update : reboot issued",
            "POWER_DOWN_ASAP",
            "",
            " : ",
        ] {
            assert_eq!(faults(reason), ["Somebody"], "{reason}");
        }
        for reason in
            ["[slurmedic:a@1.0.0#r1] ecc", "[slurmedic:a@1.0.0#r1] ecc : Not responding", "[slurmedic] x"]
        {
            assert_eq!(faults(reason), ["Ours"], "{reason}");
        }
    }
}
