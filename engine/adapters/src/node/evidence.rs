//! A bundle of what a reset would wipe out: texts of the tools, each bounded, each missing one named.

use super::tools::{Tools, Until};
use crate::dcgm::fields::dmon_ids;
use crate::dcgm::text::decode;
use crate::process::{self, RunError};
use engine_runtime::ports::EvidenceItem;
use std::path::Path;
use std::time::Duration;

/// Most of one text that goes into the bundle, in bytes.
const MAX_TEXT: usize = 256 << 10;
/// Most of the kernel log, from its end, in bytes.
const MAX_LOG: usize = 64 << 10;

/// Collects the bundle within the limit; calls that no time is left for are named as missing.
pub async fn collect(tools: &Tools, limit: Duration) -> Vec<EvidenceItem> {
    let until = Until::after(limit);
    let ids: Vec<String> = dmon_ids(false).iter().map(u16::to_string).collect();
    let ids = ids.join(",");
    let dcgmi: &Path = &tools.config.dcgmi;
    let smi: &Path = &tools.config.nvidia_smi;
    let calls: [(&str, &Path, Vec<&str>); 6] = [
        ("nvidia-smi.xml", smi, vec!["-q", "-x"]),
        ("dcgm-version.txt", dcgmi, vec!["-v"]),
        ("dcgm-discovery.txt", dcgmi, vec!["discovery", "-l"]),
        ("dcgm-health.json", dcgmi, vec!["health", "-g", "0", "-c", "-j"]),
        ("dcgm-values.txt", dcgmi, vec!["dmon", "-e", &ids, "-c", "1"]),
        ("dcgm-nvlinks.txt", dcgmi, vec!["nvlink", "-s"]),
    ];
    let mut out = Vec::new();
    for (name, program, args) in calls {
        let program = tools.program(program, &args, until.left(tools.config.read_deadline()));
        let item = if until.passed() {
            missing(name, "no time was left for it")
        } else {
            item(name, &program.display(), &process::run(&program).await, MAX_TEXT, false)
        };
        out.push(item);
    }
    let log = tools.command(&tools.config.kernel_log, until.left(tools.config.read_deadline())).await;
    out.push(match log {
        Some(answer) => item("kernel-log.txt", &tools.config.kernel_log.join(" "), &answer, MAX_LOG, true),
        None => missing("kernel-log.txt", "no command for it is configured"),
    });
    out
}

fn missing(name: &str, why: &str) -> EvidenceItem {
    EvidenceItem { name: name.to_owned(), text: String::new(), note: why.to_owned() }
}

/// Makes an item of an answer; keeps its beginning, or its end.
fn item(
    name: &str,
    command: &str,
    answer: &Result<process::Finished, RunError>,
    most: usize,
    from_end: bool,
) -> EvidenceItem {
    let mut notes = Vec::new();
    let bytes = match answer {
        Ok(f) => {
            if !f.exit.success() {
                notes.push(format!("{command}: {}", f.exit));
            }
            if f.truncated {
                notes.push("more was printed than is kept".to_owned());
            }
            let mut all = f.stdout.clone();
            all.extend_from_slice(&f.stderr);
            all
        }
        Err(e) => {
            notes.push(format!("{e}"));
            match e {
                RunError::TimedOut { stdout, .. } => stdout.clone(),
                _ => Vec::new(),
            }
        }
    };
    let kept = if bytes.len() <= most {
        &bytes[..]
    } else {
        notes.push(format!("{} of {} bytes", most, bytes.len()));
        if from_end { &bytes[bytes.len() - most..] } else { &bytes[..most] }
    };
    EvidenceItem { name: name.to_owned(), text: decode(kept).into_owned(), note: notes.join("; ") }
}
