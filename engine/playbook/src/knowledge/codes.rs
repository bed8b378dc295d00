//! The table of diagnostic codes of knowledge. What is wrong with the YAML itself, and with single fields, has the codes of
//! playbooks.

crate::codes::table! {
    BAD_FORMAT = "KN0001", "The file does not say that it is knowledge",
"A file of a site begins with `format: slurmedic/knowledge-site/1`, says who says so and since when, and then only what
differs from what came with the program.

Good:

    format: slurmedic/knowledge-site/1
    source: GPU operations, after the review of the remap reports
    date: 2026-11-21
    xids:
    - code: 92
      playbook: human
      why: our L40S boards wear out";
    DUPLICATE_ENTRY = "KN0002", "An entry is given twice",
"Two entries of one table have the same name, and only one could count.

Bad:

    xids:
    - { code: 92, playbook: human }
    - { code: 92, drain: person }

Good: one entry with both fields.";
    UNKNOWN_FAULT = "KN0003", "Unknown fault",
"The word names no fault. `slurmedic knowledge list faults` lists them.

Bad:

    fault: gpu-off-the-bus

Good:

    fault: gpu-off-bus";
    UNKNOWN_PLAYBOOK = "KN0004", "Unknown playbook",
"The word names no playbook of the catalogue, and is neither `none` (nothing is to be done) nor `human` (a person
decides). `slurmedic knowledge list playbooks` lists them.

Bad:

    playbook: ecc-drain-reset

Good:

    playbook: dcgm-ecc-drain-reset";
    UNKNOWN_SOURCE = "KN0005", "Unknown source",
"An entry names a source that no file declares. `slurmedic knowledge list sources` lists them; a site declares its own
under `sources:`.

Good:

    sources:
    - { id: vendor-note-17, title: Note 17 of our vendor, read: 2026-11-21 }";
    NO_SOURCE = "KN0006", "Nobody says so",
"Every entry names at least one source, and a site's file says at its top who says so and since when. Knowledge that
nobody answers for cannot be reviewed.

Good:

    format: slurmedic/knowledge-site/1
    source: GPU operations
    date: 2026-11-21";
    BAD_DAY = "KN0007", "A day is not understood",
"A day is written as year, month and day.

Bad:

    date: 21.11.2026

Good:

    date: 2026-11-21";
    APPLICATION_DRAINS = "KN0008", "A program's own mistake may not take a node out",
"An XID of class `application` tells that a program failed. It may lead to nothing, to a word to the job's owner, or to a
person; its `drain` is `never`, `on_repeat` or `person`. Else one user's bug could empty the cluster.

Bad:

    xids:
    - { code: 13, drain: now }

Good:

    xids:
    - { code: 13, drain: person, playbook: human }";
    BAD_NUMBER = "KN0009", "A number is out of range",
"Numbers are whole, from 0 to 4294967295; an XID is from 1 to 65535.";
    BAD_PATTERN = "KN0010", "A pattern of a reason is not usable",
"A pattern has `is`, or `starts` and `contains`, and exactly one of `fault`, `planned: true` and `person: true`.

Bad:

    - { id: ours, says: x, playbook: human }

Good:

    - { id: ours, starts: \"our check: \", person: true, says: our check failed, playbook: human }";
    UNASKED = "KN0011", "Something would be taken away without anybody being asked",
"A rung with `approval: auto` may only read, and write for people. What drains, resets, resumes or ends anything needs at
least `canary`.

Bad:

    rungs:
    - { id: reset, approval: auto, actions: [slurm.drain, dcgm.reset_gpu] }

Good:

    rungs:
    - { id: reset, approval: hitl, actions: [slurm.drain, dcgm.reset_gpu] }";
    NO_DIFFERENCE = "KN0012", "The site says what is already said",
"The field has this value without the site's file. This is a warning: it would hide a later change of what comes with the
program. Take it out.";
    FIXED = "KN0013", "A site may not change this field",
"Some fields must be the same everywhere: what an XID tells is also read by the hook and the agents, which do not see the
site's file, and the order of strength is part of the record. The message says which. To act differently, change
`playbook` or `drain`.";
    UNKNOWN_VENDOR = "KN0014", "Unknown word of the catalogue",
"`vendor` and `vendor_then` hold words of NVIDIA's catalogue, as `vendor_actions` declares them.

Good:

    vendor: RESET_GPU";
    BAD_STRENGTH = "KN0015", "The strength is not the engine's",
"The engine has the order in which faults count as evidence in itself, because the record of incidents depends on it. The
`strength` of a fault has to be the same word; a fault that is new in a site's file has none in the engine, and counts
as the weakest.";
    NO_RUNG = "KN0016", "A playbook has no rung that can be taken",
"A playbook has at least one rung, and only its last one may be without `needs`: those behind it would never be taken.

Bad:

    rungs:
    - { id: a, approval: auto, actions: [ticket.write] }
    - { id: b, needs: [busy], approval: auto, actions: [node.label] }

Good: the rung with `needs` first.";
}
