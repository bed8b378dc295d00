//! The wrappers in front of the real Slurm clients do what their script says, to the real Slurm.

use crate::support::fake::Fake;
use crate::support::lab::Lent;
use std::time::Duration;

fn wrapped(lab: &Lent) -> Fake {
    Fake::slurm(&lab.conf(), &lab.bin())
}

#[test]
fn without_a_script_they_pass_the_call_through() {
    let lab = Lent::nodes(1);
    let fake = wrapped(&lab);
    let node = lab.name(0);
    let show = ["-o", "show", "node", node];
    assert_eq!(fake.call("scontrol", &show).ok(), lab.scontrol(&show).ok());
    assert_eq!(fake.call("scontrol", &["show", "node", "nope"]).code, 1);
    assert_eq!(fake.calls()[0], format!("scontrol {}", show.join(" ")));
    assert_eq!(fake.unexpected(), "");
}

#[test]
fn a_call_can_be_applied_and_its_answer_lost() {
    let lab = Lent::nodes(1);
    let fake = wrapped(&lab);
    let node = lab.name(0);
    let update = format!("nodename={node}");
    for (action, code) in
        [("then-hang", 137), ("then-killed", 137), ("then-empty", 0), ("then-garbage", 0), ("then-exit 1", 1)]
    {
        let reason = format!("reason=lost by {action}");
        fake.rule("scontrol", "update * state=drain *", "1", action);
        let args = ["update", &update, "state=drain", &reason];
        let done = fake.call_for("scontrol", &args, Duration::from_secs(2));
        assert_eq!(done.code, code, "{action}: {done}");
        let seen = lab.node(node);
        assert!(seen["State"] == "IDLE+DRAIN" && seen["Reason"].contains(action), "{action}: {seen:?}");
    }
}

#[test]
fn a_call_can_be_broken_before_anything_happens() {
    let lab = Lent::nodes(1);
    let fake = wrapped(&lab);
    let node = lab.name(0);
    let update = format!("nodename={node}");
    for (action, code) in
        [("hang", 137), ("killed", 137), ("empty", 0), ("garbage", 0), ("exit 1 slurm_update error: boom", 1)]
    {
        fake.rule("scontrol", "update *", "1", action);
        let done = fake.call_for(
            "scontrol",
            &["update", &update, "state=drain", "reason=x"],
            Duration::from_secs(1),
        );
        assert_eq!(done.code, code, "{action}: {done}");
        assert_eq!(lab.state(node), "IDLE", "{action}");
    }
    // each rule was used up
    fake.call("scontrol", &["update", &update, "state=drain", "reason=now"]).ok();
    assert_eq!(lab.state(node), "IDLE+DRAIN");
}

#[test]
fn somebody_can_act_between_two_steps() {
    let lab = Lent::nodes(1);
    let fake = wrapped(&lab);
    let node = lab.name(0);
    let hook = fake.hook(
        "person",
        &format!(
            "SLURM_CONF={} {} update nodename={node} state=drain reason='a person was here'",
            lab.conf().display(),
            lab.bin().join("scontrol").display()
        ),
    );
    fake.rule("scontrol", "-o show node *", "@2", &format!("hook {}", hook.display()));
    let show = ["-o", "show", "node", node];
    assert!(fake.call("scontrol", &show).ok().contains("State=IDLE "));
    assert!(fake.call("scontrol", &show).ok().contains("Reason=a person was here"));
    assert_eq!(fake.unexpected(), "");
}

#[test]
fn a_write_to_more_than_one_plain_node_is_never_passed_on() {
    let lab = Lent::nodes(2);
    let fake = wrapped(&lab);
    let both = format!("{},{}", lab.name(0), lab.name(1));
    for target in [both.as_str(), "ALL", "gpu[001-002]", "gpu001\nstate=resume", ""] {
        let done =
            fake.call("scontrol", &["update", &format!("nodename={target}"), "state=drain", "reason=x"]);
        assert_eq!(done.code, 64, "{done}");
    }
    assert_eq!(fake.unexpected().lines().count(), 5, "{}", fake.unexpected());
    for i in 0..2 {
        assert_eq!(lab.state(lab.name(i)), "IDLE");
    }
}
