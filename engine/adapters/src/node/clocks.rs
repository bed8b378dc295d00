//! Sets one GPU's locked and application clocks back to their defaults, and reads them back.

use super::processes;
use super::tools::{Tools, Until, not_run};
use crate::dcgm::discovery::uuid as read_uuid;
use crate::dcgm::text::{decode, one_line};
use crate::nvidia_smi::{clocks, code_meaning};
use crate::process::{self, Exit, Finished, RunError};
use engine_core::model::gpu::normalize_bus_id;
use engine_core::{Cause, Known, Unknown};
use engine_runtime::ports::{GpuClocks, WorkResult};

/// The two commands: locked clocks, application clocks.
const COMMANDS: [&str; 2] = ["-rgc", "-rac"];

/// What came of one command.
enum Came {
    Done,
    /// Certain: it changed nothing.
    Refused,
    Unknown,
}

/// Sets the clocks back. Refused while a job is on the node: Slurm sets application clocks for jobs.
pub(super) async fn reset(tools: &Tools, uuid: &str, bus_id: &str, until: Until) -> WorkResult {
    let (Known::Known(_), Some(address)) = (read_uuid(uuid), normalize_bus_id(bus_id)) else {
        return WorkResult::Refused("the order does not name a GPU by its UUID and PCI address".to_owned());
    };
    if tools.config.check_job_cgroups {
        match processes::look(tools, until).await {
            Known::Known(scene) => {
                if let Some(job) = scene.jobs.first() {
                    return WorkResult::Refused(format!(
                        "job {job} is on the node, which may have set the clocks itself"
                    ));
                }
            }
            Known::Unknown(u) => return WorkResult::Refused(format!("whether jobs are on the node is {u}")),
        }
    }
    let before = match read(tools, uuid, &address, until).await {
        Ok(c) => c,
        Err(u) => return WorkResult::Refused(format!("the GPU cannot be read: {u}")),
    };
    let mut steps =
        vec!["checked on the node: the GPU is the one that was named, and no job is there".to_owned()];
    let mut done = false;
    let mut unknown = false;
    for command in COMMANDS {
        let limit = until.left(tools.config.read_deadline());
        let program = tools.program(&tools.config.nvidia_smi, &["-i", &address, command], limit);
        if until.passed() {
            steps.push(format!("nvidia-smi {command}: no time was left for it"));
            continue;
        }
        let (came, words) = came_of(&process::run(&program).await);
        done |= matches!(came, Came::Done);
        unknown |= matches!(came, Came::Unknown);
        steps.push(format!("nvidia-smi -i {address} {command}: {words}"));
    }
    if unknown {
        return WorkResult::Ambiguous(steps.join("; "));
    }
    if !done {
        return WorkResult::Refused(format!("nvidia-smi did neither: {}", steps[1..].join("; ")));
    }
    let after = match read(tools, uuid, &address, until).await {
        Ok(c) => c,
        Err(u) => return WorkResult::Ambiguous(format!("{}; read back: {u}", steps.join("; "))),
    };
    if let (Known::Known(now), Known::Known(default)) = (&after.application, &after.application_default)
        && now != default
    {
        steps.push(format!("the application clock is still {now} MHz; its default is {default} MHz"));
    }
    WorkResult::ClocksReset { before, after, steps }
}

/// Exit codes by which nvidia-smi says that it changed nothing: bad argument, not supported, no permission, no such
/// GPU, no driver, no library, no function, GPU off the bus.
const NOTHING_DONE: [i32; 8] = [2, 3, 4, 6, 9, 12, 13, 15];

fn came_of(answer: &Result<Finished, RunError>) -> (Came, String) {
    match answer {
        Ok(f) => {
            let words = one_line(&format!("{} {}", decode(&f.stdout), decode(&f.stderr)));
            match f.exit {
                Exit::Code(0) => (Came::Done, words),
                Exit::Code(c) if NOTHING_DONE.contains(&c) => {
                    (Came::Refused, format!("exit code {c} ({}): {words}", code_meaning(c)))
                }
                exit => (Came::Unknown, format!("{exit}: {words}")),
            }
        }
        Err(e) if e.never_started() => (Came::Refused, not_run(e).detail),
        Err(e) => (Came::Unknown, not_run(e).detail),
    }
}

/// Reads the clocks of the GPU at the address, if it is the one with the UUID.
async fn read(tools: &Tools, uuid: &str, address: &str, until: Until) -> Result<GpuClocks, Unknown> {
    let mut out = Vec::new();
    for fields in [clocks::ALL_CLOCK_FIELDS, clocks::CLOCK_FIELDS] {
        let query = format!("--query-gpu={fields}");
        let args = [query.as_str(), "--format=csv,nounits", "-i", address];
        match tools.smi(&args, until.left(tools.config.read_deadline())).await {
            Ok(text) => {
                out = text;
                break;
            }
            // A driver without application clocks refuses the whole query.
            Err(u) if u.cause == Cause::Unsupported && fields != clocks::CLOCK_FIELDS => {}
            Err(u) => return Err(u),
        }
    }
    match clocks::parse(&out) {
        Known::Known((found, at, clocks)) if found == uuid && at == address => Ok(clocks),
        Known::Known((found, at, _)) => {
            Err(Unknown::new(Cause::Conflicting, format!("at {at} is {found}, not {uuid}")))
        }
        Known::Unknown(u) => Err(u),
    }
}
