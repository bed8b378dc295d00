//! From what was read to facts: the only place where a reading becomes a declared fact.

use crate::fact::{FactSet, Source};
use crate::known::{Cause, Known};
use crate::model::gpu::Health;
use crate::model::{Gpu, Job, Node, NodeFlag, NodeGpus, RecoveryAction, Reservation};
use crate::ownership::reservation_name;
use crate::value::Value;
use jiff::Timestamp;

/// Adds the facts that slurmctld gives about a node.
pub fn node_facts(facts: &mut FactSet, node: &Node, at: Timestamp) {
    let mut set = |name: &'static str, v: Known<Value>| facts.set(name, v, Source::Slurm, at);
    set("node.name", text(node.name.as_str()).into());
    set("node.state", Value::Word(state_word(node)).into());
    let reason = |f: &dyn Fn(&crate::model::Reason) -> Known<String>| match &node.reason {
        Known::Known(None) => Known::Known(Value::Text(String::new())),
        Known::Known(Some(r)) => f(r).map(Value::Text),
        Known::Unknown(u) => Known::Unknown(u.clone()),
    };
    set("node.reason", reason(&|r| Known::Known(r.text.clone())));
    set("node.reason_user", reason(&|r| r.user.clone()));
    let responding = if node.flags.unknown.is_empty() {
        Known::Known(Value::Bool(!node.flags.has(NodeFlag::NotResponding)))
    } else {
        Known::unknown(Cause::UnrecognisedWord, format!("flag {}", node.flags.unknown.join(", ")))
    };
    set("node.responding", responding);
    set("node.partitions", node.partitions.clone().map(Value::List));
    set("node.features", node.features.clone().map(Value::List));
    set("node.gpus_configured", node.gpus_configured.clone().map(|n| Value::Int(n.into())));
    set("node.gpus_allocated", node.gpus_allocated.clone().map(|n| Value::Int(n.into())));
    set("node.slurmd_version", node.slurmd_version.clone().map(Value::Version));
}

/// Adds the facts about the jobs on a node. A COMPLETING flag of the node counts as one job, since its epilog may
/// still run after the job list is empty.
pub fn job_facts(facts: &mut FactSet, node: Option<&Node>, jobs: &Known<&[Job]>, at: Timestamp) {
    let count = |f: &dyn Fn(&Job) -> bool| {
        jobs.as_ref().map(|list| i64::try_from(list.iter().filter(|j| f(j)).count()).unwrap_or(i64::MAX))
    };
    let completing = node.is_some_and(|n| n.flags.has(NodeFlag::Completing));
    let active = count(&|j| j.holds_node()).map(|n| if completing { n.max(1) } else { n });
    facts.set("active_jobs", active.map(Value::Int), Source::Slurm, at);
    facts.set("suspended_jobs", count(&Job::is_suspended).map(Value::Int), Source::Slurm, at);
}

/// Adds the facts about reservations over a node, our own lock excepted.
pub fn reservation_facts(facts: &mut FactSet, node: &Node, all: &Known<&[Reservation]>, now: Timestamp) {
    let ours = reservation_name(&node.name);
    let any = |f: &dyn Fn(&Reservation) -> bool| {
        all.as_ref().map(|list| list.iter().any(|r| r.name != ours && r.covers(&node.name, now) && f(r)))
    };
    facts.set("node.in_maintenance", any(&Reservation::is_maintenance).map(Value::Bool), Source::Slurm, now);
    facts.set("node.reserved", any(&|_| true).map(Value::Bool), Source::Slurm, now);
}

/// Adds the facts about all GPUs of a node and the tools that look at them.
pub fn gpus_facts(facts: &mut FactSet, gpus: &NodeGpus, source: Source, at: Timestamp) {
    let mut set = |name: &'static str, v: Known<Value>| facts.set(name, v, source, at);
    set("dcgm.version", gpus.dcgm_version.clone().map(Value::Version));
    set("dcgm.up", gpus.dcgm_up.clone().map(Value::Bool));
    set("dcgm.driver_attached", gpus.driver_attached.clone().map(Value::Bool));
    set("dcgm.exporter_up", gpus.exporter_up.clone().map(Value::Bool));
    set("driver.version", gpus.driver_version.clone().map(Value::Version));
    set("gpus.found", Value::Int(int(gpus.gpus.len() as u64)).into());
    let answering = gpus.gpus.iter().try_fold(0_i64, |n, g| match &g.answers {
        Known::Known(a) => Ok(n + i64::from(*a)),
        Known::Unknown(u) => Err(u.clone()),
    });
    set("gpus.answering", answering.map_or_else(Known::Unknown, |n| Known::Known(Value::Int(n))));
}

/// Adds the facts about one GPU.
pub fn gpu_facts(facts: &mut FactSet, gpu: &Gpu, node: &NodeGpus, source: Source, at: Timestamp) {
    let mut set = |name: &'static str, v: Known<Value>| facts.set(name, v, source, at);
    set("gpu.index", Value::Int(gpu.index.into()).into());
    set("gpu.uuid", gpu.uuid.clone().map(Value::Text));
    set("gpu.bus_id", gpu.bus_id.clone().map(Value::Text));
    set("gpu.serial", gpu.serial.clone().map(Value::Text));
    set("gpu.model", gpu.model.clone().map(Value::Text));
    set("gpu.answers", gpu.answers.clone().map(Value::Bool));
    set("gpu.xid", gpu.last_xid.clone().map(|x| Value::Int(x.into())));
    set("gpu.ecc_sbe_volatile", gpu.ecc_sbe_volatile.clone().map(|n| Value::Int(int(n))));
    set("gpu.ecc_dbe_volatile", gpu.ecc_dbe_volatile.clone().map(|n| Value::Int(int(n))));
    set("gpu.ecc_dbe_aggregate", gpu.ecc_dbe_aggregate.clone().map(|n| Value::Int(int(n))));
    set("gpu.row_remap_pending", gpu.row_remap_pending.clone().map(Value::Bool));
    set("gpu.row_remap_failure", gpu.row_remap_failure.clone().map(Value::Bool));
    set("gpu.rows_remapped", gpu.rows_remapped_uncorrectable.clone().map(|n| Value::Int(int(n))));
    set("gpu.recovery_action", gpu.recovery_action.clone().map(|a| Value::Word(recovery_word(a).to_owned())));
    let health = node.health.as_ref().map(|h| {
        let own = h.incidents.iter().filter(|i| i.gpu == Some(gpu.index)).map(|i| i.health).max();
        Value::Word(health_word(own.unwrap_or(Health::Pass)).to_owned())
    });
    set("gpu.health", health);
    set("gpu.temperature", float(&gpu.temperature_c));
    set("gpu.memory_temperature", float(&gpu.memory_temperature_c));
    set("gpu.power", float(&gpu.power_w));
    set("gpu.sm_clock", float(&gpu.sm_clock_mhz));
    set("gpu.utilization", float(&gpu.utilization_percent));
    set("gpu.processes", gpu.processes.as_ref().map(|p| Value::Int(int(p.len() as u64))));
    set("gpu.persistence_mode", gpu.persistence_mode.clone().map(Value::Bool));
    set("gpu.mig_enabled", gpu.mig_enabled.clone().map(Value::Bool));
    set("gpu.nvlinks_down", gpu.nvlinks_down.clone().map(|n| Value::Int(n.into())));
}

fn text(t: &str) -> Value {
    Value::Text(t.to_owned())
}

fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A NaN reading is no reading.
fn float(v: &Known<f64>) -> Known<Value> {
    v.clone().and_then(|x| {
        if x.is_finite() {
            Known::Known(Value::Float(x))
        } else {
            Known::unknown(Cause::Unparsable, format!("{x}"))
        }
    })
}

/// Returns the word of `node.state` for a node.
pub fn state_word(node: &Node) -> String {
    serde_json::to_value(node.state).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn recovery_word(a: RecoveryAction) -> &'static str {
    match a {
        RecoveryAction::None => "none",
        RecoveryAction::Reset => "reset",
        RecoveryAction::Reboot => "reboot",
        RecoveryAction::DrainP2p => "drain_p2p",
        RecoveryAction::DrainAndReset => "drain_and_reset",
    }
}

fn health_word(h: Health) -> &'static str {
    match h {
        Health::Pass => "pass",
        Health::Warn => "warn",
        Health::Fail => "fail",
    }
}
