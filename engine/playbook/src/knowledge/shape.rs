//! The tables of the knowledge and their fields: what may stand where.

use engine_core::knowledge::Need;

/// What a word refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Refers {
    /// A fault.
    Fault,
    /// A playbook, or `none`, or `human`.
    Playbook,
    /// A source.
    Source,
    /// A word of NVIDIA's catalogue.
    Vendor,
}

/// Form of a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// A name: lower-case letters, digits and `-`.
    Id,
    /// One line of text.
    Text,
    /// One word of a closed set.
    Word(&'static [&'static str]),
    /// A list of such words.
    Words(&'static [&'static str]),
    /// A list of lines.
    Texts,
    /// A whole number from 0.
    Number,
    /// A list of such numbers.
    Numbers,
    /// true or false.
    Flag,
    /// A day.
    Day,
    /// The name of something else.
    Ref(Refers),
    /// A list of such names.
    Refs(Refers),
    /// A list of mappings.
    Maps(&'static [Field]),
}

/// One field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) required: bool,
}

/// One table.
#[derive(Debug)]
pub(super) struct Shape {
    /// Its word in files.
    pub(super) name: &'static str,
    /// What one entry is called in messages.
    pub(super) what: &'static str,
    /// The field that names an entry; none where entries have no name.
    pub(super) key: Option<&'static str>,
    /// The fields.
    pub(super) fields: &'static [Field],
    /// Fields that a site may not change, with the reason.
    pub(super) fixed: &'static [(&'static str, &'static str)],
    /// Whether a site's file may have it.
    pub(super) site: bool,
}

const fn must(name: &'static str, form: Form) -> Field {
    Field { name, form, required: true }
}

const fn may(name: &'static str, form: Form) -> Field {
    Field { name, form, required: false }
}

const SOURCES: Field = must("sources", Form::Refs(Refers::Source));
const CLASS: Field =
    must("class", Form::Word(&["application", "driver", "hardware", "memory", "thermal", "fabric"]));
const PLAYBOOK: Field = must("playbook", Form::Ref(Refers::Playbook));
const COLUMNS: &[&str] = &["A100", "H100", "B100", "GB200"];
pub(super) const APPROVALS: &[&str] = &["auto", "canary", "hitl", "hitl2"];

static SIGNAL: &[Field] = &[
    must("kind", Form::Word(&["dcgm", "kmsg", "slurm", "node_exporter", "ib", "bmc", "job_log"])),
    may("id", Form::Number),
    may("name", Form::Text),
    may("matches", Form::Text),
    may("state", Form::Text),
    may("rule", Form::Text),
    may("note", Form::Text),
];

static RUNG: &[Field] =
    &[must("do", Form::Text), must("approval", Form::Word(APPROVALS)), may("before", Form::Text)];

static PLAYBOOK_RUNG: &[Field] = &[
    must("id", Form::Id),
    may("needs", Form::Words(Need::WORDS)),
    must("approval", Form::Word(APPROVALS)),
    must("actions", Form::Texts),
];

/// Every table, in the order of the documents.
pub(super) static TABLES: &[Shape] = &[
    Shape {
        name: "sources",
        what: "a source",
        key: Some("id"),
        fields: &[
            must("id", Form::Id),
            must("title", Form::Text),
            may("where", Form::Text),
            may("at", Form::Text),
            must("read", Form::Day),
            may("note", Form::Text),
        ],
        fixed: &[],
        site: true,
    },
    Shape {
        name: "vendor_actions",
        what: "a word of the catalogue",
        key: Some("word"),
        fields: &[
            must("word", Form::Text),
            must("automatic", Form::Word(&["may", "guarded", "partly", "never"])),
            must("means", Form::Text),
        ],
        fixed: &[],
        site: false,
    },
    Shape {
        name: "recovery_actions",
        what: "a recovery action",
        key: Some("value"),
        fields: &[
            must("value", Form::Number),
            must("word", Form::Word(&["none", "reset", "reboot", "drain_p2p", "drain_and_reset"])),
            must("text", Form::Text),
            must("rank", Form::Number),
            PLAYBOOK,
            must("means", Form::Text),
            SOURCES,
        ],
        fixed: &[],
        site: false,
    },
    Shape {
        name: "disagreements",
        what: "a disagreement",
        key: None,
        fields: &[must("codes", Form::Numbers), must("says", Form::Text), must("ours", Form::Text), SOURCES],
        fixed: &[],
        site: false,
    },
    Shape {
        name: "xids",
        what: "an XID",
        key: Some("code"),
        fields: &[
            must("code", Form::Number),
            must("name", Form::Text),
            must("status", Form::Word(&["active", "unused", "not_datacenter"])),
            must("means", Form::Text),
            CLASS,
            must("severity", Form::Word(&["info", "warning", "error", "critical", "depends"])),
            must("gpus", Form::Words(COLUMNS)),
            must("vendor", Form::Ref(Refers::Vendor)),
            must("vendor_then", Form::Ref(Refers::Vendor)),
            may("tells_154", Form::Word(&["any", "R565", "R570", "R575"])),
            may(
                "legacy",
                Form::Words(&[
                    "hardware",
                    "driver",
                    "application",
                    "system_memory",
                    "bus",
                    "thermal",
                    "framebuffer",
                ]),
            ),
            must(
                "job_loss",
                Form::Word(&[
                    "none",
                    "faulting_process",
                    "all_on_gpu",
                    "possible",
                    "see_48",
                    "see_value",
                    "unknown",
                ]),
            ),
            must(
                "rest_of_node",
                Form::Word(&[
                    "usable",
                    "usable_with_caution",
                    "usable_until_reboot",
                    "fabric_peers_affected",
                    "see_value",
                ]),
            ),
            must(
                "drain",
                Form::Word(&[
                    "never",
                    "on_repeat",
                    "after_job",
                    "now",
                    "decode",
                    "person",
                    "see_48",
                    "see_value",
                ]),
            ),
            PLAYBOOK,
            may("fault", Form::Ref(Refers::Fault)),
            may("fault_nonfatal", Form::Ref(Refers::Fault)),
            may("without_containment", Form::Number),
            may("needs_witness", Form::Flag),
            may("follows_others", Form::Flag),
            may("notes", Form::Text),
            SOURCES,
        ],
        fixed: &[
            (
                "fault",
                "the hook and the agents of nodes do not see this file, and what an XID tells must not depend on who looks",
            ),
            (
                "fault_nonfatal",
                "the hook and the agents of nodes do not see this file, and what an XID tells must not depend on who looks",
            ),
        ],
        site: true,
    },
    Shape {
        name: "link_rules",
        what: "a rule for NVLink",
        key: Some("id"),
        fields: &[
            must("id", Form::Id),
            must("xid", Form::Number),
            must("units", Form::Texts),
            may("status", Form::Numbers),
            may("reason", Form::Number),
            must("vendor", Form::Ref(Refers::Vendor)),
            must("vendor_then", Form::Ref(Refers::Vendor)),
            must("severity", Form::Word(&["nonfatal", "link_fatal", "fatal"])),
            must("origin", Form::Word(&["hw", "sw", "fw", "hw_sw", "none"])),
            may("promoted", Form::Ref(Refers::Vendor)),
            SOURCES,
        ],
        fixed: &[],
        site: false,
    },
    Shape {
        name: "generations",
        what: "a generation",
        key: Some("id"),
        fields: &[
            must("id", Form::Id),
            must("gpus", Form::Texts),
            must("containment", Form::Flag),
            must("row_remap", Form::Flag),
            must("effect", Form::Text),
            SOURCES,
        ],
        fixed: &[],
        site: false,
    },
    Shape {
        name: "gpu_columns",
        what: "a column of the catalogue",
        key: Some("column"),
        fields: &[
            must("column", Form::Word(&["A100", "H100", "B100", "GB200", "older"])),
            must("pcie_replays", Form::Number),
            must("gpus", Form::Texts),
            SOURCES,
        ],
        fixed: &[],
        site: false,
    },
    Shape {
        name: "clock_reasons",
        what: "a clock event reason",
        key: Some("bit"),
        fields: &[
            must("bit", Form::Number),
            must("name", Form::Text),
            must("alarm", Form::Word(&["never", "fault", "sustained", "straggler", "peers"])),
            may("note", Form::Text),
            SOURCES,
        ],
        fixed: &[],
        site: false,
    },
    Shape {
        name: "kernel_lines",
        what: "a kernel line",
        key: Some("id"),
        fields: &[
            must("id", Form::Id),
            must("has", Form::Texts),
            must("fault", Form::Ref(Refers::Fault)),
            SOURCES,
        ],
        fixed: &[],
        site: true,
    },
    Shape {
        name: "sxids",
        what: "an SXid",
        key: Some("id"),
        fields: &[
            must("id", Form::Id),
            must("first", Form::Number),
            must("last", Form::Number),
            must("fatal", Form::Flag),
            SOURCES,
        ],
        fixed: &[],
        site: false,
    },
    Shape {
        name: "faults",
        what: "a fault",
        key: Some("id"),
        fields: &[
            must("id", Form::Id),
            CLASS,
            must(
                "strength",
                Form::Word(&[
                    "application",
                    "contained",
                    "fabric",
                    "node",
                    "hang",
                    "hardware",
                    "uncontained",
                    "lost",
                    "driver_asks",
                ]),
            ),
            PLAYBOOK,
            must("signals", Form::Maps(SIGNAL)),
            must("threshold", Form::Text),
            may("confirm", Form::Texts),
            may("ladder", Form::Maps(RUNG)),
            may("verify", Form::Texts),
            may("never", Form::Texts),
            may("note", Form::Text),
            must("confidence", Form::Word(&["high", "medium", "low"])),
            SOURCES,
        ],
        fixed: &[(
            "strength",
            "the order in which evidence counts is part of the record of incidents, and must stay the same for all of it",
        )],
        site: true,
    },
    Shape {
        name: "reasons",
        what: "a reason",
        key: Some("id"),
        fields: &[
            must("id", Form::Id),
            may("is", Form::Text),
            may("starts", Form::Text),
            may("contains", Form::Texts),
            may("fault", Form::Ref(Refers::Fault)),
            may("planned", Form::Flag),
            may("person", Form::Flag),
            must("says", Form::Text),
            PLAYBOOK,
            may("means", Form::Text),
            may("written_by", Form::Text),
            may("state", Form::Text),
            may("jobs_lost", Form::Text),
            may("returns", Form::Text),
            may("look_at", Form::Text),
            may("automatic", Form::Texts),
            may("person_for", Form::Text),
            may("versions", Form::Text),
            SOURCES,
        ],
        fixed: &[],
        site: true,
    },
    Shape {
        name: "hazards",
        what: "a hazard",
        key: Some("id"),
        fields: &[must("id", Form::Id), must("what", Form::Text), must("effect", Form::Text), SOURCES],
        fixed: &[],
        site: false,
    },
    Shape {
        name: "playbooks",
        what: "a playbook",
        key: Some("id"),
        fields: &[
            must("id", Form::Id),
            must("summary", Form::Text),
            may("faults", Form::Refs(Refers::Fault)),
            must("blast", Form::Word(&["none", "job", "node", "domain", "fleet"])),
            may("before", Form::Text),
            must("rungs", Form::Maps(PLAYBOOK_RUNG)),
            may("verify", Form::Text),
            may("rollback", Form::Text),
            may("never", Form::Texts),
            may("capabilities", Form::Texts),
            SOURCES,
        ],
        fixed: &[],
        site: true,
    },
];

/// Finds a table.
pub(super) fn table(name: &str) -> Option<&'static Shape> {
    TABLES.iter().find(|t| t.name == name)
}
