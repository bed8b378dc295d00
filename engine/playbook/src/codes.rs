//! The table of diagnostic codes of playbooks, and of what all files have in common: stable code, title, explanation.
//!
//! Codes are never reused. `docs/codes/` holds one page per code, generated from this table and that of the
//! condition language; a test compares them.

use engine_core::diag::did_you_mean;

/// Code, title, explanation with an example.
pub type Code = (&'static str, &'static str, &'static str);

macro_rules! codes {
    ($( $name:ident = $code:literal, $title:literal, $text:literal; )*) => {
        $( #[doc = $title] pub const $name: &str = $code; )*

        /// Every code of this table, in order.
        pub static CODES: &[$crate::codes::Code] = &[ $( ($code, $title, $text), )* ];
    };
}

pub(crate) use codes as table;

codes! {
    TOO_LARGE = "PB0001", "The file is too large",
"A playbook or a policy may have 256 KiB. The limit holds before anything parses the file, so that a huge file costs
nothing.

Both are a page or two. If the file is one, split it; if it is not, the wrong path was given.";
    BAD_TEXT = "PB0002", "The file is not plain text",
"A playbook or a policy is UTF-8 without control characters, without the invisible characters that reorder or hide
text, and with the line ends LF or CRLF. A text that looks different from what it does cannot be reviewed.

Save the file as UTF-8 and take the named character out.";
    SYNTAX = "PB0003", "The file is not YAML",
"The YAML parser stopped at the place shown.

Bad: a value with `: ` in it, without quotes

    summary: Reset: the GPU

Good:

    summary: \"Reset: the GPU\"";
    DUPLICATE_KEY = "PB0004", "A key is given twice",
"YAML parsers differ in which of the two they take, so neither is taken.

Bad:

    - slurm.drain: { reason: \"first\", reason: \"second\" }

Good: one of them. A repeated step is another item of the list:

    - node.collect_evidence
    - slurm.wait_idle
    - node.collect_evidence";
    ALIAS = "PB0005", "Anchors, aliases and merge keys are not allowed",
"What a step does must be readable where it stands, and a chain of aliases can grow without bound.

Bad:

    - slurm.wait_idle: &limit { timeout: 4h }
    - health.verify_gpu: *limit

Good:

    - slurm.wait_idle: { timeout: 4h }
    - health.verify_gpu: { timeout: 4h }";
    TAG = "PB0006", "Tags are not allowed",
"A tag such as `!!str` changes what a value is. Write the value so that it is what it should be.

Bad:

    owner: !!str 42

Good:

    owner: \"42\"";
    TOO_DEEP = "PB0007", "The document is nested too deeply or has too many values",
"A playbook or a policy may nest 24 levels and hold 10,000 values. The reader stops at the limit, so that a hostile file
costs nothing.

A playbook is a flat list of steps and needs five levels; so does a policy.";
    DOCUMENTS = "PB0008", "The file must hold exactly one document",
"One file is one playbook version, `playbooks/<id>/<version>.yaml`, or one policy.

Bad: two documents with `---` between them. Move the second one to a file of its own.";
    AMBIGUOUS_YAML = "PB0009", "The YAML can be read in two ways",
"The text is read by two independent YAML parsers. Where they differ, or where a key is not a text, nobody can say
what was meant.

Bad:

    1: slurm.drain

Good: names as keys, and double quotes around anything unusual.";
    UNKNOWN_FIELD = "PB0010", "Unknown field",
"The field is not part of the playbook language, or of the policy. Nothing is ignored silently: a misspelt `when` would
leave a step without its guard.

Bad:

    - dcgm.reset_gpu: { bus_id: \"{{ gpu.bus_id }}\" }
      whne: active_jobs == 0

Good:

    - dcgm.reset_gpu: { bus_id: \"{{ gpu.bus_id }}\" }
      when: active_jobs == 0

`slurmedic schema` prints every field of a playbook; an editor with YAML support completes them.
docs/guide/policy.md has every key of a policy.";
    MISSING_FIELD = "PB0011", "A field is missing",
"Every playbook has `playbook`, `version`, `summary`, `owner`, `target`, `steps` and `approval`. A precondition
written as a mapping has `check`; a parameter has `type`. In a policy a window has `from` and `to`, a freeze `from`, `to`
and `why`.

Good:

    playbook: dcgm-ecc-drain-reset
    version: 1.3.0
    summary: Uncorrectable GPU memory error - drain, reset, verify, give back
    owner: gpu-oncall
    target: gpu
    steps:
      - slurm.drain: { reason: \"GPU memory error\" }
    approval: hitl";
    WRONG_TYPE = "PB0012", "A value has the wrong type",
"Bad:

    fault: gpu-ecc-uncorrectable
    version: 1.2

Good:

    fault: [gpu-ecc-uncorrectable]
    version: 1.2.0";
    BAD_NAME = "PB0013", "A name is not well formed",
"Ids, owners and fault words are lower-case letters, digits and `-`, begin with a letter and have at most 64
characters. Parameter names use `_` instead of `-`.

Bad:

    playbook: DCGM ECC

Good:

    playbook: dcgm-ecc-drain-reset";
    BAD_VERSION = "PB0014", "The version is not a semantic version",
"A version has three numbers: `MAJOR.MINOR.PATCH`. A released version never changes; a change is a new version.

Bad:

    version: 1.2

Good:

    version: 1.2.0";
    UNKNOWN_WORD = "PB0015", "Unknown word",
"The value must be one of a fixed set of words: `target` is node or gpu, `approval` is auto, canary, hitl or hitl2,
`ends` is drained, a parameter's `type` is bool, int, float, text, duration or version. In a policy, days are mon, tue,
wed, thu, fri, sat and sun, and racks come from topology.conf, map or none.

Bad:

    approval: hilt

Good:

    approval: hitl";
    BAD_RANGE = "PB0016", "The version range is not well formed",
"A range is one or more comparisons with a comma between them, in quotes.

Bad:

    requires: { slurm: 22.05+ }

Good:

    requires: { slurm: \">=22.05\", dcgm: \">=3.3, <5\" }";
    BAD_LENGTH = "PB0017", "A text is empty, too long or has more than one line",
"Texts of a playbook are single lines and have limits: a summary 200 characters, a condition 2,000, an argument 1,000.
An empty text says nothing; leave the field out where it is optional.";
    REPEATED_WORD = "PB0018", "A word stands twice in a list",
"Bad:

    fault: [gpu-ecc-uncorrectable, gpu-ecc-uncorrectable]

Keep one of them.";
    CALL_NOTATION = "PB0020", "A step is written as a call",
"Steps in early documents were written as calls. That is not YAML: a part of it is read as a key and the rest as a
broken text.

Bad:

    - slurm.drain(reason: \"DCGM ECC alert\")
    - dcgm.reset_gpu(bus_id)
    - slurm.resume()

Good:

    - slurm.drain: { reason: \"DCGM ECC alert\" }
    - dcgm.reset_gpu: { bus_id: \"{{ gpu.bus_id }}\" }
    - slurm.resume

`slurmedic lint --fix FILE` rewrites such steps and leaves the rest of the file as it is.";
    UNKNOWN_ACTION = "PB0021", "Unknown action",
"A step names an action of the catalogue; there are no shell commands and no free-form steps. `slurmedic actions` lists
the catalogue.

Bad:

    - slurm.drian: { reason: \"GPU memory error\" }

Good:

    - slurm.drain: { reason: \"GPU memory error\" }";
    BAD_STEP = "PB0022", "The step has the wrong form",
"A step is the name of an action, or a mapping with the action as key, its arguments as value, and beside it at most
`when`, `timeout` and `attempts`.

Good:

    - slurm.resume
    - dcgm.reset_gpu: { bus_id: \"{{ gpu.bus_id }}\" }
      when: active_jobs == 0
      timeout: 5m";
    UNKNOWN_ARGUMENT = "PB0023", "Unknown argument",
"The action has no argument of this name. `slurmedic actions ACTION` lists them.

Bad:

    - slurm.drain: { text: \"GPU memory error\" }

Good:

    - slurm.drain: { reason: \"GPU memory error\" }";
    MISSING_ARGUMENT = "PB0024", "An argument is missing",
"Bad:

    - slurm.drain

Good:

    - slurm.drain: { reason: \"GPU memory error\" }";
    BAD_ARGUMENT = "PB0025", "An argument has the wrong type",
"Bad:

    - health.verify_gpu: { timeout: 300, diag_level: one }

Good:

    - health.verify_gpu: { timeout: 300s, diag_level: 1 }

A duration is a number with a unit: ms, s, m, h or d.";
    BAD_TIMEOUT = "PB0026", "The time limit is out of range",
"Every action has a longest time limit, shown by `slurmedic actions ACTION`. A parameter used as time limit must keep
within it: give it a `max`.

Bad:

    - dcgm.reset_gpu: { bus_id: \"{{ gpu.bus_id }}\", timeout: 3d }

Good:

    - dcgm.reset_gpu: { bus_id: \"{{ gpu.bus_id }}\", timeout: 5m }";
    BAD_ATTEMPTS = "PB0027", "The number of attempts is not allowed",
"`attempts` is 1 to 10, the first attempt included. A disruptive action is never repeated by itself: after a failure
nobody knows what state the hardware is in.

Bad:

    - dcgm.reset_gpu: { bus_id: \"{{ gpu.bus_id }}\" }
      attempts: 3

Good: leave `attempts` out.";
    GIVEN_TWICE = "PB0028", "The time limit is given twice",
"`timeout` may be an argument of the action or a key beside it, not both.

Bad:

    - health.verify_gpu: { timeout: 300s }
      timeout: 5m

Good:

    - health.verify_gpu: { timeout: 300s }";
    TEMPLATE_SYNTAX = "PB0030", "The template is not understood",
"Texts of arguments may hold `{{ name }}` with a fact or a parameter, and the filters upper, lower, trim and join.
Statements (`{% … %}`), arithmetic and calls are not part of the language. A text that begins with `{{` must be quoted.

Bad:

    - slurm.drain: { reason: {{ alert.id }} }

Good:

    - slurm.drain: { reason: \"{{ alert.id }}\" }";
    UNKNOWN_NAME = "PB0031", "Unknown name in a template",
"A template uses declared facts (`slurmedic facts`) and the playbook's own parameters (`params.<name>`).

Bad:

    - slurm.drain: { reason: \"DCGM ECC alert {{ alert_id }}\" }

Good:

    - slurm.drain: { reason: \"DCGM ECC alert {{ alert.id }}\" }";
    UNKNOWN_FILTER = "PB0032", "The filter is not allowed",
"Four filters are allowed: upper, lower, trim, and join for lists. Others could hide an unknown value (`default`) or
cost much time.

Bad:

    reason: \"{{ alert.id | default('none') }}\"

Good:

    reason: \"{{ alert.id }}\"

A fact that is unknown when the plan is made stops the plan and is named.";
    TEMPLATE_TYPE = "PB0033", "The template gives a value of another type",
"A template that is one single expression has the type of its fact or parameter; any other template is a text.

Bad:

    - slurm.wait_idle: { timeout: \"{{ gpu.temperature }}\" }

Good:

    - slurm.wait_idle: { timeout: \"{{ params.idle_wait }}\" }";
    TEMPLATE_HERE = "PB0034", "A template stands where none is rendered",
"Only arguments of steps are rendered. A summary, an owner, the text of `otherwise` and conditions are used as they
stand.

Bad:

    when: \"{{ active_jobs }} == 0\"

Good:

    when: active_jobs == 0";
    BAD_PARAM = "PB0040", "A parameter is declared wrongly",
"`default`, `min` and `max` are of the parameter's type; `min` and `max` need a type with an order (int, float,
duration, version).

Bad:

    params:
      idle_wait: { type: duration, default: 4 }

Good:

    params:
      idle_wait: { type: duration, default: 4h, max: 24h }";
    PARAM_LIMITS = "PB0041", "The parameter's default is outside its limits",
"Bad:

    params:
      idle_wait: { type: duration, default: 48h, max: 24h }

Good:

    params:
      idle_wait: { type: duration, default: 4h, max: 24h }";
    UNUSED_PARAM = "PB0042", "The parameter is not used",
"A person who sets the parameter would expect an effect. Use it as `{{ params.<name> }}` or in a condition, or take it
out. This is a warning.";
    NO_STEPS = "PB0050", "The playbook has no steps",
"Good:

    steps:
      - node.collect_evidence";
    NO_PRECONDITIONS = "PB0051", "A playbook that changes something has no preconditions",
"Preconditions are what proves, on live facts, that the playbook may run. Without any it would run on every node.

Good:

    preconditions:
      - node.state in [IDLE, MIXED, ALLOCATED]
      - gpu.row_remap_failure == false";
    UNVERIFIED_STEP = "PB0052", "A disruptive step has no verification behind it",
"After a reset or a reboot the hardware must be proven healthy by reads that are newer than it.

Bad:

    - dcgm.reset_gpu: { bus_id: \"{{ gpu.bus_id }}\" }
    - slurm.resume

Good:

    - dcgm.reset_gpu: { bus_id: \"{{ gpu.bus_id }}\" }
    - health.verify_gpu
    - slurm.resume";
    LEFT_DRAINED = "PB0053", "The good end leaves the node drained",
"A step takes the node out of service and no later step gives it back. If that is meant, say so:

    ends: drained

Otherwise end with a verification and `slurm.resume`.";
    RETURN_UNVERIFIED = "PB0054", "The node returns to service unverified",
"No node returns to service unless a verification newer than the last disruptive step passed.

Bad:

    - dcgm.reset_gpu: { bus_id: \"{{ gpu.bus_id }}\" }
    - slurm.resume
    - health.verify_gpu

Good: verify first, then resume.";
    NOT_TAKEN_OUT = "PB0055", "A disruptive step comes before the node is out of service and idle",
"Before a reset or a reboot the node is drained and no job holds it.

Bad:

    - slurm.drain: { reason: \"GPU memory error\" }
    - dcgm.reset_gpu: { bus_id: \"{{ gpu.bus_id }}\" }

Good:

    - slurm.drain: { reason: \"GPU memory error\" }
    - slurm.wait_idle: { timeout: 4h }
    - dcgm.reset_gpu: { bus_id: \"{{ gpu.bus_id }}\" }";
    NEEDS_GPU = "PB0056", "The action is for GPUs and the playbook's target is a node",
"Bad:

    target: node
    steps:
      - dcgm.reset_gpu: { bus_id: \"00000000:1A:00.0\" }

Good:

    target: gpu";
    USELESS_ROLLBACK = "PB0057", "A step of the rollback undoes nothing",
"The rollback takes back what the steps did. An action there must be the undo of one of the steps, or change nothing.

Bad: a rollback with `slurm.resume` in a playbook that never drains.";
    DISRUPTIVE_ROLLBACK = "PB0058", "The rollback is disruptive",
"A rollback restores the scheduler's view, not the hardware. When a run fails the hardware is in doubt; to disturb it
again would make that worse. The node stays drained and a person is called.";
    AUTO_MUTATES = "PB0059", "A playbook that changes something has the approval `auto`",
"`auto` is for playbooks that only read, or write tickets, mail and comments. Use `canary`, `hitl` or `hitl2`.";
    MISSING_CAPABILITY = "PB0060", "A capability is used and not required",
"`requires.capabilities` says what the site must offer, so that a run does not start that cannot end. For an action
that only reads, and proves nothing, this is a warning.

Bad:

    requires: { capabilities: [slurm.drain] }
    steps:
      - slurm.drain: { reason: \"GPU memory error\" }
      - node.collect_evidence

Good:

    requires: { capabilities: [slurm.drain, node.collect] }";
    UNUSED_CAPABILITY = "PB0061", "A capability is required and not used",
"No step needs it; the playbook would be refused on sites without it for no reason. This is a warning. A word that is
no capability at all is an error.";
    NO_NODE_STATE = "PB0062", "A playbook that drains does not look at the node's state",
"A node may be drained by a person, down, rebooting or in maintenance already. Say in which states the playbook may
begin. This is a warning.

Good:

    preconditions:
      - node.state in [IDLE, MIXED, ALLOCATED, COMPLETING]";
    WRONG_END = "PB0063", "The playbook says `ends: drained` and does not end so",
"Either the node is given back at the end, or it was never taken out. Take `ends` out.";
    SELECT_ON_NODE = "PB0064", "`select` in a playbook whose target is a node",
"`select` chooses the GPU when the caller names none. Use `target: gpu`, or take `select` out.";
    NOT_OURS = "PB0065", "A step gives the node back that no step took out",
"A drain that is not ours is never lifted: somebody had a reason.

Bad:

    steps:
      - slurm.resume

Good: drain first, or leave it to the person who drained the node.";
    WRONG_PLACE = "PB0070", "The file is not where its id and version belong",
"A playbook lies at `<id>/<version>.yaml`, so that everybody finds exactly the version that ran.";
    CHANGED_RELEASE = "PB0071", "A released version was changed",
"`released.lock` names the digest of each released version. A released version never changes, because runs and
approvals name it. Restore the file, and put the change into a new version.";
    BAD_LOCK = "PB0072", "The list of released versions is not understood",
"Each line of `released.lock` is an id, a version and a SHA-256, with blanks between them. Lines that begin with `#`
are comments.";
    UNREADABLE = "PB0073", "The file cannot be read",
"The system's message says why. Check the path and the permissions.";
    RULE_BROKEN = "PB0080", "A rule breaks in some situation",
"The checker plays every situation of a playbook: each step succeeds, fails, runs out of time or leaves nobody able to
tell; the engine dies at each write of its journal; people drain, resume, re-label or reboot the node, or cancel; jobs
start wherever Slurm lets them. It found a way on which a rule breaks, and shows a shortest one:

       1  engine  asks one person
       2  person  ada approves the plan
       3  engine  starts the run
       ...
          here rule 5 is broken: no node returns to service unverified

Read the lines from the top; the step shown is the one that was begun when the rule broke.";
    JOB_LOST = "PB0081", "A step may disturb the hardware while a job is on the node",
"The checker found a way on which a job is on the node when a disruptive step begins. A drain keeps new jobs away but
lets those that run go on; a condition sees the jobs of now, and not the one that Slurm starts a moment later on a node
in service. The action's own guard is not counted on: it is the last line.

Bad:

    - slurm.drain: { reason: \"GPU memory error\" }
    - dcgm.reset_gpu: { bus_id: \"{{ gpu.bus_id }}\" }
      when: gpu.processes == 0

Good:

    - slurm.drain: { reason: \"GPU memory error\" }
    - slurm.wait_idle: { timeout: 4h }
    - dcgm.reset_gpu: { bus_id: \"{{ gpu.bus_id }}\" }
      when: active_jobs == 0";
    NO_GOOD_END = "PB0082", "No way leads to the good end",
"Every run of this playbook would fail, whatever happens: a step can never begin, or no node meets all preconditions.
The lines show how far a run gets.

Bad: a drained node is DRAINED, never IDLE

    - slurm.drain: { reason: \"GPU memory error\" }
    - slurm.wait_idle: { timeout: 4h }
    - dcgm.reset_gpu: { bus_id: \"{{ gpu.bus_id }}\" }
      when: node.state == IDLE

Bad: the engine gives a node back only after a verification

    - slurm.drain: { reason: \"look at the fans\" }
    - slurm.wait_idle: { timeout: 4h }
    - slurm.resume

Good: a `when` that can hold at its place, and `health.verify_gpu` before `slurm.resume`.";
    NOT_ALL_SEEN = "PB0083", "The playbook has more situations than the checker looks at",
"The checker stops at 100,000 situations, and what it has not seen it does not pass. A playbook of six steps has about
3,500; each further step and each attempt adds some.

Take steps out, lower `attempts`, or make two playbooks of one.";
    IDLE_ROLLBACK = "PB0084", "A step of the rollback is never carried out",
"The way back only takes back what was done: a step that undoes nothing is passed over. This is a warning.

Bad:

    rollback:
      - slurm.wait_idle
      - slurm.resume

Good: `slurm.resume` alone. It proves the node healthy by itself, and otherwise the node is held.";
}

/// Every code of playbooks, policies, knowledge and conditions, each table in order.
pub fn all() -> impl Iterator<Item = Code> {
    let conditions = engine_core::condition::codes::CODES;
    CODES
        .iter()
        .chain(crate::policy::codes::CODES)
        .chain(crate::knowledge::codes::CODES)
        .chain(conditions)
        .copied()
}

/// Returns the explanation of a code as a page of Markdown; case does not matter.
pub fn explain(code: &str) -> Option<String> {
    all().find(|(c, _, _)| c.eq_ignore_ascii_case(code.trim())).map(page)
}

/// Returns the code nearest to what was written.
pub fn nearest(code: &str) -> Option<&'static str> {
    did_you_mean(code, all().map(|(c, _, _)| c))
}

/// Renders the page of a code, as it lies under `docs/codes/`.
pub fn page((code, title, text): Code) -> String {
    let mut out = format!("# {code}: {title}\n\n");
    for line in text.trim().lines() {
        // The short examples of the condition language become a block of their own.
        if line.starts_with("bad: ") || line.starts_with("good: ") {
            out.push_str("    ");
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_ordered() {
        for table in [CODES, crate::policy::codes::CODES, crate::knowledge::codes::CODES] {
            let codes: Vec<_> = table.iter().map(|c| c.0).collect();
            assert!(codes.windows(2).all(|w| w[0] < w[1]), "{codes:?}");
        }
        assert!(explain("pb0020").unwrap().contains("lint --fix"));
        assert_eq!(explain("PB9999"), None);
        assert_eq!(nearest("PB020"), Some("PB0020"));
    }
}
