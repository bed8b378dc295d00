//! Restarts one service of the configured list, and reads back whether it runs.

use super::processes;
use super::tools::{Tools, Until, blocking, not_run};
use super::{NodeToolsConfig, host};
use crate::dcgm::text::{decode, one_line};
use crate::nvidia_smi::csv;
use crate::process;
use engine_core::{Cause, Known};
use engine_runtime::ports::{ServiceState, WorkResult};
use std::time::Duration;

/// Services whose restart no job notices: the rest waits until no job and no process is on a GPU.
const HARMLESS: [&str; 3] = ["nvidia-dcgm", "dcgm-exporter", "nvidia-dcgm-exporter"];
/// Longest time that the unit manager gets.
const RESTART: Duration = Duration::from_secs(90);
/// Longest time until the restarted service must run.
const SETTLE: Duration = Duration::from_secs(30);
/// Pause between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Restarts the unit if it is on the list and its users allow it.
pub(super) async fn restart(tools: &Tools, unit: &str, until: Until) -> WorkResult {
    let name = match listed(&tools.config, unit) {
        Ok(n) => n,
        Err(why) => return WorkResult::Refused(why),
    };
    let before = match state(tools, &name, until).await {
        Known::Known(s) => s,
        Known::Unknown(u) => return WorkResult::Refused(format!("the state of {name} is {u}")),
    };
    if let Err(why) = allowed(tools, &name, until).await {
        return WorkResult::Refused(format!("{name} is not restarted: {why}"));
    }
    if until.left(RESTART) < Duration::from_secs(1) {
        return WorkResult::Refused("no time is left for the restart".to_owned());
    }
    let file = format!("{name}.service");
    let program = tools.program(&tools.config.systemctl, &["restart", &file], until.left(RESTART));
    match process::run(&program).await {
        // A unit that fails to start is an answer: its state tells.
        Ok(_) => {}
        Err(e) if e.never_started() => return WorkResult::Refused(not_run(&e).detail),
        Err(e) => return WorkResult::Ambiguous(not_run(&e).detail),
    }
    let settle = Until::after(until.left(SETTLE));
    loop {
        // Its own deadline: what was done must be read back even when the order's time is over.
        let look = Until::after(tools.config.read_deadline());
        match state(tools, &name, look).await {
            Known::Known(after)
                if matches!(after.active.as_str(), "active" | "failed") || settle.passed() =>
            {
                return WorkResult::ServiceRestarted { unit: name, before, after };
            }
            Known::Unknown(u) if settle.passed() => {
                return WorkResult::Ambiguous(format!("{name} was restarted, and its state is {u}"));
            }
            _ => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// Returns the unit's name without its type, if it is on the list.
fn listed(config: &NodeToolsConfig, unit: &str) -> Result<String, String> {
    let name = unit.strip_suffix(".service").unwrap_or(unit);
    if config.services.iter().any(|s| s == name) && super::config::is_unit(name) {
        return Ok(name.to_owned());
    }
    Err(format!(
        "{:?} is not among the services that may be restarted here ({}); see node.tools.services",
        one_line(unit),
        config.services.join(", ")
    ))
}

/// Says whether the service may be restarted now.
async fn allowed(tools: &Tools, name: &str, until: Until) -> Result<(), String> {
    let each = tools.config.read_deadline();
    if name == HARMLESS[0] {
        // A diagnostic runs inside the engine.
        let root = tools.config.proc_root.clone();
        return match blocking(move || host::diag_running(&root), until.left(each)).await {
            Known::Known(false) => Ok(()),
            Known::Known(true) => Err("a diagnostic is running".to_owned()),
            Known::Unknown(u) => Err(format!("whether a diagnostic runs is {u}")),
        };
    }
    if HARMLESS.contains(&name) {
        return Ok(());
    }
    let scene = match processes::look(tools, until).await {
        Known::Known(s) => s,
        Known::Unknown(u) => return Err(format!("what runs on the node is {u}")),
    };
    if let Some(job) = scene.jobs.first() {
        return Err(format!("job {job} is on the node"));
    }
    let first = tools.config.first_user_id;
    for p in scene.processes.iter().filter(|p| !p.kernel) {
        // The driver's own services have GPUs open all the time; they are the system's.
        let persons = p.uids.iter().any(|u| processes::may_be_person(*u, first));
        match &p.holds_gpu {
            Known::Known(true) if persons => {
                return Err(format!("process {} ({}) has a GPU open", p.pid, p.command));
            }
            Known::Unknown(u) if persons => {
                return Err(format!("whether process {} has a GPU open is {u}", p.pid));
            }
            _ => {}
        }
    }
    let query = format!("--query-compute-apps={}", csv::APP_FIELDS);
    match tools.smi(&[&query, "--format=csv,nounits"], until.left(each)).await {
        Ok(out) => match csv::parse_apps(&out) {
            Known::Known(apps) => match apps.first() {
                None => Ok(()),
                Some(a) => Err(format!("process {} ({}) computes on a GPU", a.process.pid, a.process.name)),
            },
            Known::Unknown(u) => Err(format!("what computes on the GPUs is {u}")),
        },
        Err(u) => Err(format!("what computes on the GPUs is {u}")),
    }
}

/// Reads the state of a unit; one that does not exist is unknown.
async fn state(tools: &Tools, name: &str, until: Until) -> Known<ServiceState> {
    let file = format!("{name}.service");
    let args = ["show", "--property=LoadState,ActiveState,SubState,MainPID", &file];
    let program = tools.program(&tools.config.systemctl, &args, until.left(tools.config.read_deadline()));
    match process::run(&program).await {
        Ok(f) if f.exit.success() && !f.truncated => parse(&decode(&f.stdout)),
        Ok(f) => Known::unknown(
            Cause::ReadFailed,
            format!("systemctl: {}: {}", f.exit, one_line(&decode(&f.stderr))),
        ),
        Err(e) => Known::Unknown(not_run(&e)),
    }
}

fn parse(text: &str) -> Known<ServiceState> {
    let get = |key: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(key)?.strip_prefix('='))
            .filter(|v| !v.is_empty())
            .map(one_line)
    };
    match get("LoadState").as_deref() {
        Some("loaded") => {}
        Some(other) => return Known::unknown(Cause::NotReported, format!("its unit is {other}")),
        None => return Known::unknown(Cause::Unparsable, "systemctl does not say whether the unit exists"),
    }
    let parts = (get("ActiveState"), get("SubState"), get("MainPID").and_then(|p| p.parse().ok()));
    match parts {
        (Some(active), Some(sub), Some(main_pid)) => Known::Known(ServiceState { active, sub, main_pid }),
        _ => Known::unknown(Cause::Unparsable, format!("systemctl says {}", one_line(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_units_of_the_list_whatever_is_written_around_them() {
        let c = NodeToolsConfig::default();
        assert_eq!(listed(&c, "nvidia-dcgm.service"), Ok("nvidia-dcgm".to_owned()));
        assert_eq!(listed(&c, "nvidia-dcgm"), Ok("nvidia-dcgm".to_owned()));
        for bad in [
            "sshd",
            "slurmd.service",
            "",
            ".service",
            "nvidia-dcgm.service.service",
            "nvidia-dcgm sshd",
            "--now",
            "nvidia-*",
        ] {
            let why = listed(&c, bad).unwrap_err();
            assert!(why.contains("node.tools.services"), "{bad}: {why}");
        }
        let odd = NodeToolsConfig { services: vec!["--now".to_owned()], ..c };
        assert!(listed(&odd, "--now").is_err(), "not even from a bad list");
    }

    #[test]
    fn states_are_read_and_a_missing_unit_is_unknown() {
        let s = parse("LoadState=loaded\nActiveState=active\nSubState=running\nMainPID=42\n")
            .into_known()
            .unwrap();
        assert_eq!((s.active.as_str(), s.sub.as_str(), s.main_pid), ("active", "running", 42));
        for bad in [
            "",
            "LoadState=not-found\nActiveState=inactive\nSubState=dead\nMainPID=0\n",
            "LoadState=loaded\n",
            "LoadState=loaded\nActiveState=\nSubState=x\nMainPID=1\n",
        ] {
            assert!(!parse(bad).is_known(), "{bad:?}");
        }
    }
}
