//! A bundle of what a reset would wipe out: texts of the tools and of the kernel, each bounded, each missing one named.
//!
//! Reads only. Secrets and users' paths are taken out here, on the node, before anything is sent or stored.

use super::redact::redact;
use super::tools::{Tools, Until};
use super::{hardware, processes};
use crate::dcgm::fields::dmon_ids;
use crate::dcgm::text::decode;
use crate::process::{self, RunError};
use engine_core::Known;
use engine_core::model::NodeName;
use engine_runtime::ports::{EvidenceItem, MAX_EVIDENCE};
use std::fs;
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

/// Most of one tool's text that goes into the bundle, in bytes.
const MAX_TEXT: usize = 1 << 20;
/// Most of the kernel log, from its end, in bytes.
const MAX_KERNEL_LOG: usize = 4 << 20;
/// Most of the kernel log that is taken in: more than the kernel's own buffer has on any node.
const MAX_KERNEL_LOG_READ: usize = 32 << 20;
/// Most of one log file, from its end, in bytes.
const MAX_LOG: usize = 512 << 10;
/// Most log files.
const MAX_LOGS: usize = 8;
/// What an item with no text left may still cost: its name and note.
const ITEM: usize = 1_024;

/// Which end of a text is kept when it is too long.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Beginning,
    End,
}

/// Collects the bundle within the limit; calls that no time is left for are named as missing.
pub async fn collect(tools: &Tools, node: &NodeName, limit: Duration) -> Vec<EvidenceItem> {
    let until = Until::after(limit);
    let config = &tools.config;
    let each = || until.left(config.read_deadline());
    let mut out = Vec::new();
    // The kernel first: it answers when the tools hang, and its log is what the next crash takes away.
    out.push(kernel_log(tools, each()).await);
    out.push(known("processes.json", listed(tools, each()).await));
    let (sys, cgroups) = (config.sys_root.clone(), config.cgroup_root.clone());
    let files = config.evidence_logs.clone();
    let from_kernel = tokio::task::spawn_blocking(move || {
        let mut out = vec![
            known("pci.txt", hardware::pci(&sys)),
            known("infiniband.txt", hardware::infiniband(&sys)),
            known(
                "job-cgroups.txt",
                super::host::job_cgroups(&cgroups)
                    .map(|jobs| jobs.iter().map(|j| format!("{j}\n")).collect::<String>()),
            ),
        ];
        out.extend(files.iter().take(MAX_LOGS).map(|path| log_file(path)));
        out
    });
    match tokio::time::timeout(each(), from_kernel).await {
        Ok(Ok(items)) => out.extend(items),
        Ok(Err(e)) => out.push(missing("pci.txt", &format!("was lost: {e}"))),
        Err(_) => {
            for name in ["pci.txt", "infiniband.txt", "job-cgroups.txt"] {
                out.push(missing(
                    name,
                    "the kernel's files did not answer in time, nor the log files behind them",
                ));
            }
        }
    }
    let ids: Vec<String> = dmon_ids(false).iter().map(u16::to_string).collect();
    let ids = ids.join(",");
    let (dcgmi, smi, scontrol): (&Path, &Path, &Path) = (&config.dcgmi, &config.nvidia_smi, &config.scontrol);
    let calls: [(&str, &Path, Vec<&str>); 10] = [
        ("nvidia-smi.xml", smi, vec!["-q", "-x"]),
        ("nvidia-smi-topology.txt", smi, vec!["topo", "-m"]),
        ("nvidia-smi-nvlinks.txt", smi, vec!["nvlink", "-s"]),
        ("nvidia-smi-nvlink-errors.txt", smi, vec!["nvlink", "-e"]),
        ("dcgm-version.txt", dcgmi, vec!["-v"]),
        ("dcgm-discovery.txt", dcgmi, vec!["discovery", "-l"]),
        ("dcgm-health.json", dcgmi, vec!["health", "-g", "0", "-c", "-j"]),
        ("dcgm-values.txt", dcgmi, vec!["dmon", "-e", &ids, "-c", "1"]),
        ("dcgm-nvlinks.txt", dcgmi, vec!["nvlink", "-s"]),
        ("slurm-node.txt", scontrol, vec!["show", "node", node.as_str()]),
    ];
    let mut hung: Vec<&Path> = Vec::new();
    for (name, path, args) in calls {
        let program = tools.program(path, &args, each());
        out.push(if until.passed() {
            missing(name, "no time was left for it")
        } else if hung.contains(&path) {
            // What hung once would take the time of all that comes after it.
            missing(name, &format!("not asked: {} did not answer before", path.display()))
        } else {
            let answer = process::run(&program).await;
            if matches!(answer, Err(RunError::TimedOut { .. })) {
                hung.push(path);
            }
            item(name, &program.display(), &answer, MAX_TEXT, Keep::Beginning)
        });
    }
    for i in &mut out {
        let (text, taken) = redact(&i.text, &config.redact);
        i.text = text;
        if taken > 0 {
            note(i, &format!("{taken} times something was taken out by the redaction list"));
        }
        // A note may hold what a tool said.
        i.note = redact(&i.note, &config.redact).0;
    }
    bound(&mut out, MAX_EVIDENCE);
    out
}

/// Reads the kernel log since the boot. All of it is taken in, for its end is what matters.
async fn kernel_log(tools: &Tools, limit: Duration) -> EvidenceItem {
    const NAME: &str = "kernel-log.txt";
    let Some((program, args)) = tools.config.kernel_log.split_first() else {
        return missing(NAME, "no command for it is configured");
    };
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let program = tools.program(program.as_ref(), &args, limit).max_output(MAX_KERNEL_LOG_READ);
    item(NAME, &program.display(), &process::run(&program).await, MAX_KERNEL_LOG, Keep::End)
}

async fn listed(tools: &Tools, limit: Duration) -> Known<String> {
    processes::list(tools, limit).await.and_then(|list| match serde_json::to_string_pretty(&list) {
        Ok(text) => Known::Known(text),
        Err(e) => Known::unknown(engine_core::Cause::Unparsable, e.to_string()),
    })
}

fn missing(name: &str, why: &str) -> EvidenceItem {
    EvidenceItem { name: name.to_owned(), text: String::new(), note: why.to_owned() }
}

fn known(name: &str, read: Known<String>) -> EvidenceItem {
    match read {
        Known::Known(text) => EvidenceItem { name: name.to_owned(), text, note: String::new() },
        Known::Unknown(u) => missing(name, &u.to_string()),
    }
}

fn note(item: &mut EvidenceItem, words: &str) {
    if !item.note.is_empty() {
        item.note.push_str("; ");
    }
    item.note.push_str(words);
}

/// Reads the end of a log file; a link, a pipe or a device is not read.
fn log_file(path: &Path) -> EvidenceItem {
    let name =
        format!("log-{}", path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()));
    let read = || -> io::Result<(Vec<u8>, u64)> {
        // Not to wait for a writer, should it be a pipe.
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC;
        let mut file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let what = file.metadata()?;
        if !what.is_file() {
            return Err(io::Error::other("is no plain file"));
        }
        let skipped = what.len().saturating_sub(MAX_LOG as u64);
        file.seek(io::SeekFrom::Start(skipped))?;
        let mut bytes = Vec::new();
        file.take(MAX_LOG as u64).read_to_end(&mut bytes)?;
        Ok((bytes, skipped))
    };
    match read() {
        Ok((bytes, skipped)) => {
            let mut found = EvidenceItem { name, text: decode(&bytes).into_owned(), note: String::new() };
            if skipped > 0 {
                note(&mut found, &format!("its first {skipped} bytes are left out"));
            }
            found
        }
        Err(e) => missing(&name, &format!("{}: {e}", path.display())),
    }
}

/// Makes an item of an answer; keeps its beginning, or its end.
fn item(
    name: &str,
    command: &str,
    answer: &Result<process::Finished, RunError>,
    most: usize,
    keep: Keep,
) -> EvidenceItem {
    let mut out = missing(name, "");
    let bytes = match answer {
        Ok(f) => {
            if !f.exit.success() {
                note(&mut out, &format!("{command}: {}", f.exit));
            }
            if f.truncated {
                note(&mut out, "more was printed than is kept");
            }
            let mut all = f.stdout.clone();
            all.extend_from_slice(&f.stderr);
            all
        }
        Err(e) => {
            note(&mut out, &e.to_string());
            match e {
                RunError::TimedOut { stdout, .. } => stdout.clone(),
                _ => Vec::new(),
            }
        }
    };
    let kept = if bytes.len() <= most {
        &bytes[..]
    } else {
        note(&mut out, &format!("{} of {} bytes", most, bytes.len()));
        if keep == Keep::End { &bytes[bytes.len() - most..] } else { &bytes[..most] }
    };
    out.text = decode(kept).into_owned();
    out
}

/// Returns what a text costs in JSON, quotes and escapes included.
fn cost(text: &str) -> usize {
    let of = |c: char| match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    };
    2 + text.chars().map(of).sum::<usize>()
}

/// Cuts the bundle to its bound: an item that does not fit any more loses the end of its text, and says so.
fn bound(items: &mut [EvidenceItem], most: usize) {
    let mut left = most.saturating_sub(items.len() * ITEM);
    for i in items {
        i.name = i.name.chars().take(100).collect();
        if cost(&i.note) > ITEM - 300 {
            i.note = i.note.chars().take((ITEM - 300) / 6).collect();
        }
        let whole = cost(&i.text);
        if whole > left {
            let mut kept = 2;
            let end = i.text.char_indices().find_map(|(at, c)| {
                kept += cost(c.encode_utf8(&mut [0; 4])) - 2;
                (kept > left).then_some(at)
            });
            i.text.truncate(end.unwrap_or(0));
            i.note = "cut: the bundle is full".to_owned();
        }
        left = left.saturating_sub(cost(&i.text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_keeps_its_bound_whatever_is_in_it() {
        for text in ["x", "\n", "\u{1}", "é", "\""] {
            let item = || EvidenceItem {
                name: "a".to_owned(),
                text: text.repeat(40_000),
                note: "\u{1}".repeat(9_000),
            };
            let mut items: Vec<_> = (0..5).map(|_| item()).collect();
            bound(&mut items, 100_000);
            let size = serde_json::to_vec(&items).unwrap().len();
            assert!(size <= 100_000, "{text:?}: {size}");
            assert!(items[4].note.contains("full") && !items[0].text.is_empty());
            assert_eq!(cost(text), serde_json::to_string(text).unwrap().len());
        }
    }

    #[test]
    fn only_the_end_of_a_plain_log_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("nvvs.log");
        fs::write(&log, format!("{}END", "x".repeat(MAX_LOG))).unwrap();
        let found = log_file(&log);
        assert!(found.text.ends_with("END") && found.text.len() == MAX_LOG, "{}", found.text.len());
        assert!(found.note.contains("first 3 bytes"), "{}", found.note);
        let link = dir.path().join("link.log");
        std::os::unix::fs::symlink(&log, &link).unwrap();
        assert!(log_file(&link).text.is_empty() && !log_file(&link).note.is_empty());
        assert!(log_file(dir.path()).note.contains("no plain file"));
        assert!(log_file(Path::new("/no/such.log")).note.contains("/no/such.log"));
    }
}
