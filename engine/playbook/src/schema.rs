//! JSON Schema of the playbook language for editors, made from the action catalogue and the field model.
//!
//! The schema helps while typing; the loader is the judge. The committed copy is `docs/schema/playbook.schema.json`.

use crate::read::{ENDS, FIELDS, MAX_CONDITION, MAX_ITEMS, MAX_OTHERWISE, MAX_TEXT, REQUIRED, TARGETS};
use engine_core::action::{ACTIONS, ActionSpec};
use engine_core::playbook::APPROVAL;
use engine_core::value::Type;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeSet;

/// Returns the schema (draft 2020-12).
pub fn schema() -> Json {
    let mut properties = Map::new();
    for f in FIELDS {
        properties.insert((*f).to_owned(), field(f));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Slurmedic playbook",
        "description": "One version of a playbook, at playbooks/<id>/<version>.yaml.",
        "type": "object",
        "required": REQUIRED,
        "additionalProperties": false,
        "properties": properties,
        "$defs": {
            "condition": {
                "type": "string", "minLength": 1, "maxLength": MAX_CONDITION,
                "description": "An expression over facts and params: and, or, not, ==, !=, <, <=, >, >=, in, is known.",
                "examples": ["node.state in [IDLE, COMPLETING]", "active_jobs == 0"],
            },
            "duration": {
                "type": "string", "pattern": "^([0-9]+(ms|s|m|min|h|d))+$|\\{\\{",
                "description": "A number with a unit, such as 90s, 5m, 1h30m, or a template.",
            },
            "id": { "type": "string", "pattern": "^[a-z]([a-z0-9-]{0,62}[a-z0-9])?$" },
            "versionRange": { "type": "string", "examples": [">=22.05", ">=3.3, <5"] },
            "param": param(),
            "step": { "anyOf": steps() },
        },
    })
}

/// Returns the schema as it is committed: indented, with a line break at the end.
pub fn schema_text() -> String {
    format!("{:#}\n", schema())
}

fn field(name: &str) -> Json {
    let list = |items: Json| json!({ "type": "array", "items": items, "maxItems": MAX_ITEMS });
    let step_list = || list(json!({ "$ref": "#/$defs/step" }));
    let (schema, doc) = match name {
        "playbook" => (json!({ "$ref": "#/$defs/id" }), "Id; the name of the folder."),
        "version" => (
            json!({ "type": "string", "pattern": "^(0|[1-9][0-9]*)\\.(0|[1-9][0-9]*)\\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?$" }),
            "Semantic version; the name of the file. A released version never changes.",
        ),
        "summary" => {
            (json!({ "type": "string", "minLength": 1, "maxLength": MAX_TEXT }), "One sentence for people.")
        }
        "owner" => (json!({ "$ref": "#/$defs/id" }), "Team that answers for it."),
        "target" => (json!({ "enum": TARGETS }), "What it is run on."),
        "fault" => (
            json!({ "type": "array", "items": { "$ref": "#/$defs/id" }, "uniqueItems": true }),
            "Faults it is for.",
        ),
        "requires" => (
            json!({
                "type": "object", "additionalProperties": false,
                "properties": {
                    "slurm": { "$ref": "#/$defs/versionRange" },
                    "dcgm": { "$ref": "#/$defs/versionRange" },
                    "capabilities": { "type": "array", "uniqueItems": true, "items": { "enum": capabilities() } },
                },
            }),
            "What the site must offer.",
        ),
        "params" => (
            json!({
                "type": "object", "additionalProperties": { "$ref": "#/$defs/param" },
                "propertyNames": { "pattern": "^[a-z]([a-z0-9_]{0,62}[a-z0-9])?$" },
            }),
            "Parameters that the caller may set.",
        ),
        "select" => (json!({ "$ref": "#/$defs/condition" }), "Which GPU, when the caller names none."),
        "preconditions" => (
            list(json!({ "anyOf": [
                { "$ref": "#/$defs/condition" },
                {
                    "type": "object", "additionalProperties": false, "required": ["check"],
                    "properties": {
                        "check": { "$ref": "#/$defs/condition" },
                        "otherwise": { "type": "string", "minLength": 1, "maxLength": MAX_OTHERWISE,
                            "description": "What to do instead, for people." },
                    },
                },
            ] })),
            "What must hold before the first mutation.",
        ),
        "steps" => (step_list(), "The steps, in order."),
        "rollback" => (step_list(), "The steps of the way back, in order."),
        "approval" => {
            let words: Vec<Json> =
                APPROVAL.words.iter().map(|(w, doc)| json!({ "const": w, "description": doc })).collect();
            (json!({ "oneOf": words }), "Who has to say yes.")
        }
        _ => (json!({ "enum": ENDS }), "Says that the good end leaves the node drained, on purpose."),
    };
    described(schema, doc)
}

fn described(mut schema: Json, doc: &str) -> Json {
    if let Json::Object(o) = &mut schema {
        o.insert("description".to_owned(), Json::String(doc.to_owned()));
    }
    schema
}

fn capabilities() -> BTreeSet<&'static str> {
    ACTIONS.iter().map(|a| a.capability).collect()
}

fn param() -> Json {
    let types: Vec<&str> = crate::read::PARAM_TYPES.iter().map(|(w, _)| *w).collect();
    json!({
        "type": "object", "additionalProperties": false, "required": ["type"],
        "properties": {
            "type": { "enum": types },
            "default": { "type": ["boolean", "number", "string"] },
            "min": { "type": ["number", "string"] },
            "max": { "type": ["number", "string"] },
            "doc": { "type": "string", "maxLength": MAX_TEXT },
        },
    })
}

fn steps() -> Vec<Json> {
    let bare: Vec<Json> = ACTIONS
        .iter()
        .filter(|a| a.args.iter().all(|x| !x.required))
        .map(|a| json!({ "const": a.name, "description": a.summary }))
        .collect();
    let mut out = vec![json!({ "oneOf": bare })];
    out.extend(ACTIONS.iter().map(step));
    out
}

fn step(a: &ActionSpec) -> Json {
    let mut args = Map::new();
    for x in a.args {
        args.insert(x.name.to_owned(), described(argument(x.ty), x.doc));
    }
    let required: Vec<&str> = a.args.iter().filter(|x| x.required).map(|x| x.name).collect();
    let kinds = if required.is_empty() { json!(["object", "null"]) } else { json!("object") };
    let mut properties = Map::new();
    properties.insert(
        a.name.to_owned(),
        json!({
            "type": kinds, "description": a.summary, "additionalProperties": false,
            "properties": args, "required": required,
        }),
    );
    properties.insert(
        "when".to_owned(),
        described(json!({ "$ref": "#/$defs/condition" }), "Guard: must be true right before the step."),
    );
    properties.insert(
        "timeout".to_owned(),
        described(json!({ "$ref": "#/$defs/duration" }), "Time limit of the step."),
    );
    let most = if a.effect.needs_verification() { 1 } else { crate::read::MAX_ATTEMPTS };
    properties.insert(
        "attempts".to_owned(),
        json!({ "type": "integer", "minimum": 1, "maximum": most,
            "description": "Attempts for transient outcomes, the first included." }),
    );
    json!({ "type": "object", "required": [a.name], "additionalProperties": false, "properties": properties })
}

fn argument(ty: Type) -> Json {
    let template = json!({ "type": "string", "pattern": "\\{\\{" });
    match ty {
        Type::Bool => json!({ "anyOf": [{ "type": "boolean" }, template] }),
        Type::Int => json!({ "anyOf": [{ "type": "integer" }, template] }),
        Type::Float => json!({ "anyOf": [{ "type": "number" }, template] }),
        Type::Text | Type::Version => json!({ "type": "string", "minLength": 1, "maxLength": 1000 }),
        Type::Duration => json!({ "$ref": "#/$defs/duration" }),
        Type::Enum(e) => {
            let words: Vec<&str> = e.words.iter().map(|(w, _)| *w).collect();
            json!({ "anyOf": [{ "enum": words }, template] })
        }
        Type::TextList | Type::EnumList(_) => json!({ "type": "array", "items": { "type": "string" } }),
    }
}
