//! Looks at a node by Slurm jobs, on a real Slurm: in the run's own reservation, bounded in time, never more than a look.

use crate::support::cmd::run;
use crate::support::eventually;
use crate::support::product::{Bench, LIMIT};
use async_trait::async_trait;
use engine_adapters::slurm::{JobConfig, ReadVia, SlurmBackend, SlurmConfig, SlurmJobs};
use engine_core::model::NodeName;
use engine_runtime::ports::{ActuatorStatus, NodeActuator, Verb, WorkOrder, WorkResult};
use engine_runtime::system::SystemClock;
use jiff::SignedDuration;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// No agent is there.
#[derive(Debug)]
struct Nobody;

#[async_trait]
impl NodeActuator for Nobody {
    async fn status(&self, _: &NodeName) -> ActuatorStatus {
        ActuatorStatus { by: "agent".to_owned(), ready: Err("no agent".to_owned()) }
    }

    async fn perform(&self, _: &WorkOrder) -> WorkResult {
        panic!("nobody is asked who is not there")
    }
}

fn jobs(bench: &Bench, command: &[&str]) -> SlurmJobs {
    let config = JobConfig {
        command: command.iter().map(|w| (*w).to_owned()).collect(),
        start_seconds: 10,
        spare_seconds: if command.len() == 1 { 3 } else { 60 },
        ..JobConfig::default()
    };
    let slurm = SlurmConfig {
        slurm_conf: Some(bench.lab.conf()),
        read_via: ReadVia::Text,
        scontrol: Some(bench.lab.bin().join("scontrol")),
        ..SlurmConfig::default()
    };
    let slurm = Arc::new(SlurmBackend::new(slurm).unwrap());
    SlurmJobs::new(config, Some(bench.lab.conf()), slurm, Arc::new(SystemClock), Arc::new(Nobody))
}

fn order(bench: &Bench, verb: Verb, seconds: i64) -> WorkOrder {
    WorkOrder {
        id: "r1/look/1".to_owned(),
        node: NodeName::new(bench.node()).unwrap(),
        run: None,
        verb,
        limit: SignedDuration::from_secs(seconds),
    }
}

fn reserve(bench: &Bench, flags: &str) {
    let name = format!("reservationname=slurmedic-{}", bench.node());
    let node = format!("nodes={}", bench.node());
    let words = ["create", "reservation", &name, "starttime=now", "duration=60", flags, &node, "user=root"];
    bench.lab.scontrol(&words).ok();
}

fn real(bench: &Bench) -> Vec<String> {
    let config = bench.config().display().to_string();
    let words = [env!("CARGO_BIN_EXE_slurmedic"), "--config", &config, "agent", "perform"];
    words.map(str::to_owned).to_vec()
}

/// Jobs of ours that hold the node.
fn left(bench: &Bench) -> String {
    let words = ["-h", "-o", "%j %T", "-w", bench.node()];
    bench.lab.client("squeue", &words).ok().lines().filter(|l| l.contains("slurmedic-")).collect()
}

#[tokio::test]
async fn a_job_in_the_runs_reservation_inspects_tests_and_collects() {
    let bench = Bench::faulty();
    reserve(&bench, "flags=maint,ignore_jobs");
    let command = real(&bench);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let jobs = jobs(&bench, &command);
    let node = NodeName::new(bench.node()).unwrap();
    assert!(jobs.status(&node).await.ready.is_ok());
    match jobs.perform(&order(&bench, Verb::Inspect, 60)).await {
        WorkResult::Inspected(gpus) => assert_eq!(gpus.gpus.len(), 8, "{gpus:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(left(&bench), "", "the job has left the node when its answer is there");
    match jobs.perform(&order(&bench, Verb::Diag { level: 1 }, 60)).await {
        WorkResult::Diag(report) => assert!(report.known().is_some(), "{report:?}"),
        other => panic!("{other:?}"),
    }
    match jobs.perform(&order(&bench, Verb::CollectEvidence, 60)).await {
        WorkResult::Evidence(items) => assert!(items.len() > 3, "{items:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.gpu.resets(), 0);
}

#[tokio::test]
async fn what_is_no_look_and_where_no_job_can_start_is_refused() {
    let bench = Bench::faulty();
    let jobs = jobs(&bench, &["/bin/true"]);
    let refused = async |verb: Verb, why: &str| match jobs.perform(&order(&bench, verb, 60)).await {
        WorkResult::Refused(no) => assert!(no.contains(why), "{no} is not {why:?}"),
        other => panic!("{other:?}"),
    };
    refused(Verb::Inspect, "there is no reservation").await;
    reserve(&bench, "flags=maint,ignore_jobs");
    let reset = Verb::ResetGpu { uuid: "GPU-1".into(), bus_id: "00000000:1B:00.0".into() };
    refused(reset, "only looks").await;
    refused(Verb::RestartService { unit: "nvidia-dcgm".into() }, "only looks").await;
    // A program that answers something else has answered nothing.
    let nothing = jobs.perform(&order(&bench, Verb::Inspect, 60)).await;
    assert!(matches!(nothing, WorkResult::Ambiguous(_)), "{nothing:?}");
    let name = format!("nodename={}", bench.node());
    bench.lab.scontrol(&["update", &name, "state=drain", "reason=test"]).ok();
    refused(Verb::Inspect, "drained").await;
    bench.lab.scontrol(&["update", &name, "state=resume"]).ok();
    // The command itself does no more than look, whoever starts it.
    let config = bench.config().display().to_string();
    let restore = serde_json::to_string(&order(&bench, Verb::RestoreTools, 60)).unwrap();
    let mut c = std::process::Command::new(env!("CARGO_BIN_EXE_slurmedic"));
    let done = run(c.args(["--config", &config, "agent", "perform", &restore]), LIMIT);
    assert!(done.code == 2 && done.err.contains("for the agent"), "{done}");
    assert_eq!(bench.gpu.resets(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_hangs_is_cancelled_and_leaves_the_node() {
    let bench = Bench::faulty();
    reserve(&bench, "flags=maint,ignore_jobs");
    let mark = bench.file("started").display().to_string();
    let script: PathBuf = bench.gpu.hook("hang", &format!("touch {mark}; sleep 600"));
    let jobs = jobs(&bench, &[&script.display().to_string()]);
    let began = Instant::now();
    let slow = tokio::spawn({
        let (jobs, order) = (jobs.clone(), order(&bench, Verb::Inspect, 1));
        async move { jobs.perform(&order).await }
    });
    eventually("the job runs", Duration::from_secs(30), || {
        if std::path::Path::new(&mark).exists() { Ok(()) } else { Err(left(&bench)) }
    });
    let result = slow.await.unwrap();
    assert!(matches!(result, WorkResult::Ambiguous(_)), "{result:?}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!(left(&bench), "");
}
