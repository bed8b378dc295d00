//! Where an entry comes from, and what a site changed in it.

use serde::{Deserialize, Serialize};

/// A text or a program that says so, as it was read on one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its word in the `sources` of entries.
    pub id: String,
    /// What it is.
    pub title: String,
    /// Where it is found, without the scheme.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Which version of it: a commit, a release, a thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The day it was read, `2026-11-21`.
    pub read: String,
    /// What to know about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Which table an entry stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// XIDs.
    Xids,
    /// Faults.
    Faults,
    /// Slurm's reasons.
    Reasons,
    /// Playbooks.
    Playbooks,
}

impl Table {
    /// Every table that a site may change.
    pub const ALL: [Self; 4] = [Self::Xids, Self::Faults, Self::Reasons, Self::Playbooks];

    /// Returns its word in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Xids => "xids",
            Self::Faults => "faults",
            Self::Reasons => "reasons",
            Self::Playbooks => "playbooks",
        }
    }
}

/// One field that a site sees differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SiteChange {
    /// The table.
    pub table: Table,
    /// The entry: a code or an id.
    pub entry: String,
    /// The field; `None` where the whole entry is the site's.
    pub field: Option<String>,
    /// What came with the program, as it is written.
    pub before: Option<String>,
    /// What the site says.
    pub after: Option<String>,
    /// Why, in the site's words.
    pub why: String,
    /// Who says so.
    pub source: String,
    /// Since when, `2026-11-21`.
    pub date: String,
}
