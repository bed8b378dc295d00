//! Making plans: parameters and their limits, arguments, requirements, and reading written values.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is a failed test")]

use engine_core::action;
use engine_core::condition::Truth;
use engine_core::digest::Digest;
use engine_core::fact::{FactSet, Source};
use engine_core::known::{Cause, Known};
use engine_core::model::{NodeName, RunId};
use engine_core::plan::{ConditionReport, MAX_ATTEMPTS, Plan, PlanRequest, Rejection, Render, make_plan};
use engine_core::playbook::{
    ApprovalClass, ArgValue, Ends, ParamDecl, Playbook, PlaybookRef, Requires, Step, TargetKind,
};
use engine_core::run::Actor;
use engine_core::value::{Type, Value};
use engine_core::vocabulary::NODE_STATE;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// Renders the name of a fact as its value, and nothing else.
struct Names;

impl Render for Names {
    fn render(&self, template: &str, facts: &FactSet) -> Result<String, String> {
        match facts.value(template) {
            Known::Known(Value::Text(t)) => Ok(t),
            Known::Known(v) => Ok(v.to_string()),
            Known::Unknown(u) => Err(format!("{template} is {u}")),
        }
    }
}

fn step(name: &str) -> Step {
    let action = action::find(name).unwrap();
    let mut args = BTreeMap::new();
    if name == "slurm.drain" {
        args.insert("reason".to_owned(), ArgValue::Literal(Value::Text("ECC".to_owned())));
    }
    if name == "dcgm.reset_gpu" {
        args.insert("bus_id".to_owned(), ArgValue::Literal(Value::Text("00000000:01:00.0".to_owned())));
    }
    Step { action, args, when: None, timeout: None, attempts: None }
}

fn param(ty: Type, default: Option<Value>, min: Option<Value>, max: Option<Value>) -> ParamDecl {
    ParamDecl { ty, default, min, max, doc: String::new() }
}

fn hours(n: i64) -> Value {
    Value::Duration(SignedDuration::from_hours(n))
}

fn playbook() -> Playbook {
    Playbook {
        reference: PlaybookRef {
            id: "p".to_owned(),
            version: "1.0.0".parse().unwrap(),
            digest: Digest::of(b"p"),
        },
        summary: String::new(),
        owner: String::new(),
        target: TargetKind::Node,
        fault: Vec::new(),
        requires: Requires::default(),
        params: BTreeMap::from([(
            "idle_wait".to_owned(),
            param(Type::Duration, Some(hours(4)), Some(hours(1)), Some(hours(24))),
        )]),
        select: None,
        preconditions: Vec::new(),
        steps: vec![step("slurm.drain"), step("slurm.wait_idle")],
        rollback: vec![step("slurm.resume")],
        approval: ApprovalClass::Hitl,
        ends: Ends::Drained,
    }
}

fn make_with(playbook: &Playbook, params: &[(&str, Value)], facts: FactSet) -> Result<Plan, Rejection> {
    make_plan(
        PlanRequest {
            run: RunId::new("r1").unwrap(),
            playbook,
            node: NodeName::new("gpu001").unwrap(),
            gpu: None,
            params: params.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect(),
            facts,
            observed: Known::unknown(Cause::ReadFailed, "slurmctld did not answer"),
            jobs: Known::unknown(Cause::ReadFailed, "slurmctld did not answer"),
            initiator: Actor::person("mara"),
            now: Timestamp::UNIX_EPOCH,
        },
        &Names,
    )
}

fn make(playbook: &Playbook, params: &[(&str, Value)]) -> Result<Plan, Rejection> {
    make_with(playbook, params, FactSet::default())
}

/// Limits of a parameter are inclusive; outside of them, of another type, or not comparable with them is refused.
#[test]
fn parameters_keep_their_limits() {
    let p = playbook();
    assert_eq!(make(&p, &[]).unwrap().params["idle_wait"], hours(4));
    for good in [hours(1), hours(24)] {
        assert_eq!(make(&p, &[("idle_wait", good.clone())]).unwrap().params["idle_wait"], good);
    }
    for (bad, says) in [
        (hours(0), "less than the 1h allowed"),
        (hours(-30), "less than the 1h allowed"),
        (hours(25), "more than the 1d allowed"),
        (Value::Int(4), "not of type duration"),
        (Value::Text("4h".to_owned()), "not of type duration"),
    ] {
        let e = make(&p, &[("idle_wait", bad)]).unwrap_err();
        assert!(matches!(e, Rejection::BadParam { .. }) && e.to_string().contains(says), "{e}");
    }
    let mut p = playbook();
    p.params.insert("ratio".into(), param(Type::Float, None, Some(Value::Int(0)), Some(Value::Int(1))));
    for good in [Value::Float(0.5), Value::Int(1)] {
        assert!(make(&p, &[("ratio", good)]).is_ok());
    }
    for bad in [Value::Float(f64::NAN), Value::Float(f64::INFINITY), Value::Float(1.01), Value::Int(-1)] {
        assert!(make(&p, &[("ratio", bad.clone())]).is_err(), "{bad}");
    }
    for (min, max) in [(Some(Value::Int(0)), None), (None, Some(Value::Int(9)))] {
        p.params.insert("ratio".into(), param(Type::Text, None, min, max));
        let e = make(&p, &[("ratio", Value::Text("x".to_owned()))]).unwrap_err();
        assert!(e.to_string().contains("cannot be compared"), "{e}");
    }
}

/// A default outside the limits does not slip through, a missing value says how to give it, and a misspelt name
/// gets the nearest declared one.
#[test]
fn parameters_that_are_missing_or_misspelt_say_what_to_do() {
    let mut p = playbook();
    let e = make(&p, &[("idle_wiat", hours(2))]).unwrap_err();
    assert!(e.to_string().ends_with("no parameter `idle_wiat`; did you mean `idle_wait`?"), "{e}");
    let e = make(&p, &[("banana", hours(2))]).unwrap_err();
    assert!(matches!(&e, Rejection::UnknownParam { hint: None, .. }), "{e}");
    p.params.insert("idle_wait".into(), param(Type::Duration, None, None, None));
    assert!(make(&p, &[]).unwrap_err().to_string().contains("--param idle_wait=VALUE"));
    p.params.insert("idle_wait".into(), param(Type::Duration, Some(hours(99)), None, Some(hours(24))));
    assert!(matches!(make(&p, &[]), Err(Rejection::BadParam { .. })));
}

/// Arguments: required, of their type whether written or rendered, time limits within the action's; the place of
/// the step is named from 1.
#[test]
fn arguments_are_complete_and_of_their_type() {
    let with = |change: &dyn Fn(&mut Step)| {
        let mut p = playbook();
        change(&mut p.steps[0]);
        make(&p, &[])
    };
    let refused = |change: &dyn Fn(&mut Step), says: &str| {
        let e = with(change).unwrap_err();
        assert!(matches!(&e, Rejection::BadArgument { step: 1, .. }), "{e}");
        assert!(e.to_string().contains(says), "{e}");
    };
    refused(&|s| s.args.clear(), "`reason`: is missing");
    refused(
        &|s| drop(s.args.insert("reason".into(), ArgValue::Literal(Value::Int(3)))),
        "3 is not of type text",
    );
    let no_such_fact = ArgValue::Template("alert.id".to_owned());
    refused(&|s| drop(s.args.insert("reason".into(), no_such_fact.clone())), "alert.id is unknown");
    for bad in [hours(0), hours(-1), hours(1), Value::Int(60)] {
        refused(&|s| s.timeout = Some(ArgValue::Literal(bad.clone())), "`timeout`");
    }
    let rendered = with(&|s| s.timeout = Some(ArgValue::Template("params.idle_wait".to_owned())));
    assert!(rendered.unwrap_err().to_string().contains("4h is not a time limit between 0s and 10m"));
    let third =
        with(&|s| s.timeout = Some(ArgValue::Literal(Value::Duration(SignedDuration::from_millis(1_200)))));
    assert_eq!(third.unwrap().steps[0].timeout_s, 2, "a part of a second is rounded up");
    let mut p = playbook();
    p.steps.push(step("health.verify_gpu"));
    assert_eq!(make(&p, &[]).unwrap().steps[2].int("diag_level"), Some(1), "the default of the catalogue");
}

/// Rule 13: attempts are at least one and at most ten, and a disruptive step has one, whatever the playbook says.
#[test]
fn attempts_are_finite_and_a_disruptive_step_has_one() {
    for (wanted, planned) in [(None, 3), (Some(0), 1), (Some(7), 7), (Some(u32::MAX), MAX_ATTEMPTS)] {
        let mut p = playbook();
        p.steps[0].attempts = wanted;
        assert_eq!(make(&p, &[]).unwrap().steps[0].attempts, planned);
        p.steps[1] = Step { attempts: wanted, ..step("dcgm.reset_gpu") };
        assert_eq!(make(&p, &[]).unwrap().steps[1].attempts, 1);
    }
}

/// A playbook for one GPU is not planned without one; what could not be read is judged unknown, never as fine; jobs
/// that could not be read are not "no jobs".
#[test]
fn what_was_not_read_does_not_permit() {
    let mut p = playbook();
    let plan = make(&p, &[]).unwrap();
    assert!(!plan.blast.jobs_known);
    let node = plan.judged.iter().find(|j| j.source.contains("reason are readable")).unwrap();
    assert!(!node.permits() && node.explain.contains("slurmctld did not answer"));
    assert_eq!(plan.digest().unwrap(), make(&p, &[]).unwrap().digest().unwrap());
    assert_ne!(plan.digest().unwrap(), make(&p, &[("idle_wait", hours(5))]).unwrap().digest().unwrap());
    p.target = TargetKind::Gpu;
    assert!(matches!(make(&p, &[]), Err(Rejection::NoGpu { .. })));
}

fn required(req: &str, version: Option<Value>) -> ConditionReport {
    let mut p = playbook();
    p.requires.slurm = Some(req.parse().unwrap());
    let mut facts = FactSet::default();
    if let Some(v) = version {
        facts.set("slurm.version", Known::Known(v), Source::Slurm, Timestamp::UNIX_EPOCH);
    }
    let judged = make_with(&p, &[], facts).unwrap().judged;
    judged.into_iter().find(|j| j.source.starts_with("requires")).unwrap()
}

/// `requires` reads the versions that Slurm and DCGM print; a version that is not one, a pre-release, another type
/// or no version at all is unknown and does not permit (rule 3).
#[test]
fn requirements_read_real_versions_and_do_not_permit_unknown_ones() {
    for (req, version, truth) in [
        (">=22.5", "22.05.8", Truth::True),
        (">=22.5", "22.05", Truth::True),
        (">=22.5", "24.05.3-1", Truth::True),
        (">=22.5", "26.05.0+ubuntu2", Truth::True),
        (">=22.5", "21.08.8", Truth::False),
        (">=22.5", "22.04.99", Truth::False),
        (">=3.3", "4.6.0", Truth::True),
        (">=3.3", "3.3.9", Truth::True),
        (">=3.3", "3.1.8", Truth::False),
        (">=3.3, <5", "4.5.3.1", Truth::True),
        (">=22.5", "24.11.0-0rc1", Truth::Unknown),
        (">=22.5", "24.11.0rc1", Truth::Unknown),
        (">=22.5", "slurm 24.05", Truth::Unknown),
        (">=22.5", "v24.05", Truth::Unknown),
        (">=22.5", "24.05 or so", Truth::Unknown),
        (">=22.5", ".24.05", Truth::Unknown),
        (">=22.5", "24..05", Truth::Unknown),
        (">=22.5", "24.05.", Truth::Unknown),
        (">=22.5", "", Truth::Unknown),
        (">=22.5", "99999999999999999999.1", Truth::Unknown),
        (">=22.5", "24.05.3.99999999999999999999", Truth::Unknown),
    ] {
        let r = required(req, Some(Value::Version(version.to_owned())));
        assert_eq!(r.truth, truth, "{version} {req}: {}", r.explain);
        assert_eq!(r.permits(), truth == Truth::True);
    }
    assert_eq!(required(">=22.5", Some(Value::Version("2".repeat(100)))).truth, Truth::Unknown);
    assert_eq!(required(">=22.5", Some(Value::Int(24))).truth, Truth::Unknown);
    assert_eq!(required(">=22.5", None).truth, Truth::Unknown);
}

/// Written values: exactly the type's own spelling, bounded in what an error repeats.
#[test]
fn written_values_are_read_by_their_type() {
    let read = Value::parse;
    let good: [(Type, &str, Value); 9] = [
        (Type::Bool, "true", Value::Bool(true)),
        (Type::Int, "-3", Value::Int(-3)),
        (Type::Float, "2.5", Value::Float(2.5)),
        (Type::Float, "2", Value::Float(2.0)),
        (Type::Text, " {{ x }}\n", Value::Text(" {{ x }}\n".to_owned())),
        (Type::Duration, "1h30m", Value::Duration(SignedDuration::from_mins(90))),
        (Type::Version, "24.05.3-1", Value::Version("24.05.3-1".to_owned())),
        (Type::Enum(&NODE_STATE), "IDLE", Value::Word("IDLE".to_owned())),
        (Type::Text, "", Value::Text(String::new())),
    ];
    for (ty, text, value) in good {
        assert_eq!(read(ty, text).as_ref(), Ok(&value), "{ty} {text:?}");
        assert!(value.is_of(ty), "{ty} {text:?}");
    }
    let bad = [
        (Type::Bool, "True"),
        (Type::Bool, "1"),
        (Type::Bool, " true"),
        (Type::Int, "1.0"),
        (Type::Int, "9223372036854775808"),
        (Type::Int, "0x10"),
        (Type::Float, "NaN"),
        (Type::Float, "inf"),
        (Type::Float, "1e400"),
        (Type::Duration, "300"),
        (Type::Duration, "-5m"),
        (Type::Version, "latest"),
        (Type::Enum(&NODE_STATE), "idle"),
        (Type::Enum(&NODE_STATE), "IDLE*"),
        (Type::TextList, "a,b"),
        (Type::EnumList(&NODE_STATE), "IDLE"),
    ];
    for (ty, text) in bad {
        assert!(read(ty, text).is_err(), "{ty} {text:?}");
    }
    let e = read(Type::Int, &"é".repeat(100_000)).unwrap_err();
    assert!(e.len() < 300, "{} bytes", e.len());
}
