//! What the kernel of this host says: who holds a GPU's device, which jobs still have cgroups, whether a
//! diagnostic runs. Reads only `/proc` and the cgroup tree.

use crate::dcgm::text::one_line;
use engine_core::model::GpuProcess;
use engine_core::model::gpu::normalize_bus_id;
use engine_core::{Cause, Known};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Most directories of the cgroup tree that are looked at.
const MAX_DIRECTORIES: usize = 20_000;

/// Lists the processes: pid and name of the program.
fn processes(proc_root: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(proc_root)? {
        let entry = entry?;
        if let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) {
            out.push((pid, entry.path()));
        }
    }
    Ok(out)
}

/// Returns the program name of a process: the first word of its command line, else its short name.
fn name(process: &Path) -> Option<String> {
    let line = fs::read(process.join("cmdline")).ok()?;
    let first = line.split(|b| *b == 0).next().unwrap_or_default();
    let text = if first.is_empty() { fs::read(process.join("comm")).ok()? } else { first.to_vec() };
    Some(one_line(&String::from_utf8_lossy(&text)))
}

/// Says whether an `nvidia-smi --gpu-reset` still runs, such as one whose caller died.
pub fn reset_running(proc_root: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(proc_root) else { return false };
    entries.flatten().any(|e| {
        let cmdline = std::fs::read(e.path().join("cmdline")).unwrap_or_default();
        cmdline.split(|b| *b == 0).any(|word| word == b"--gpu-reset")
    })
}

/// Says whether DCGM's diagnostic program runs on this host.
pub fn diag_running(proc_root: &Path) -> Known<bool> {
    let list = match processes(proc_root) {
        Ok(l) => l,
        Err(e) => return Known::unknown(Cause::ReadFailed, format!("{}: {e}", proc_root.display())),
    };
    if list.is_empty() {
        return Known::unknown(Cause::EmptyAnswer, format!("no process in {}", proc_root.display()));
    }
    // A process that ended meanwhile has no name, and is not running.
    let is_diag = |(_, p): &(u32, PathBuf)| name(p).is_some_and(|n| n.rsplit('/').next() == Some("nvvs"));
    Known::Known(list.iter().any(is_diag))
}

/// Returns the minor number of a GPU's device, from the driver's own list.
fn minor(proc_root: &Path, bus_id: &str) -> Option<u32> {
    let wanted = normalize_bus_id(bus_id)?;
    for entry in fs::read_dir(proc_root.join("driver/nvidia/gpus")).ok()?.flatten() {
        if normalize_bus_id(entry.file_name().to_str()?) == Some(wanted.clone()) {
            let text = fs::read_to_string(entry.path().join("information")).ok()?;
            let line = text.lines().find_map(|l| l.strip_prefix("Device Minor:"))?;
            return line.trim().parse().ok();
        }
    }
    None
}

/// Names the processes that have a GPU's device open. Unknown where the driver or other users' processes
/// cannot be looked at; NVML users show up too, not only CUDA programs.
pub fn device_holders(proc_root: &Path, bus_id: &str) -> Known<Vec<GpuProcess>> {
    let Some(minor) = minor(proc_root, bus_id) else {
        return Known::unknown(Cause::ReadFailed, "the driver does not tell the device of this GPU");
    };
    let device = PathBuf::from(format!("/dev/nvidia{minor}"));
    let list = match processes(proc_root) {
        Ok(l) => l,
        Err(e) => return Known::unknown(Cause::ReadFailed, format!("{}: {e}", proc_root.display())),
    };
    let mut out = Vec::new();
    for (pid, process) in list {
        let entries = match fs::read_dir(process.join("fd")) {
            Ok(e) => e,
            // It ended meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Known::unknown(Cause::ReadFailed, format!("open files of process {pid}: {e}")),
        };
        if entries.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == device)) {
            out.push(GpuProcess { pid, name: name(&process).unwrap_or_else(|| "?".to_owned()) });
        }
    }
    Known::Known(out)
}

/// Lists the Slurm jobs that still have a cgroup on this host, in both cgroup versions.
pub fn job_cgroups(cgroup_root: &Path) -> Known<BTreeSet<String>> {
    let mut jobs = BTreeSet::new();
    let mut seen = 0;
    let mut stack = vec![(cgroup_root.to_owned(), 0)];
    while let Some((dir, depth)) = stack.pop() {
        let entries = match fs::read_dir(&dir) {
            Ok(e) => e,
            // No cgroups at all, or a job that ended while we looked.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Known::unknown(Cause::ReadFailed, format!("{}: {e}", dir.display())),
        };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                continue;
            }
            seen += 1;
            if seen > MAX_DIRECTORIES {
                return Known::unknown(Cause::Unparsable, format!("more than {MAX_DIRECTORIES} cgroups"));
            }
            let file_name = entry.file_name();
            let Some(text) = file_name.to_str() else { continue };
            // Below the root only: the root itself may lie in a directory of any name.
            let in_slurm =
                dir.strip_prefix(cgroup_root).is_ok_and(|below| below.to_string_lossy().contains("slurm"));
            if let Some(job) = text.strip_prefix("job_").filter(|_| in_slurm) {
                jobs.insert(job.to_owned());
                continue;
            }
            // Version 2: system.slice/NODE_slurmstepd.scope/job_N; version 1: CONTROLLER/slurm_NODE/uid_N/job_N.
            if depth == 0 || text.contains("slurm") || text.starts_with("uid_") {
                stack.push((entry.path(), depth + 1));
            }
        }
    }
    Known::Known(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_diagnostic_and_holders_are_seen() {
        let root = tempfile::tempdir().unwrap();
        let proc_root = root.path();
        assert!(!diag_running(proc_root).is_known(), "nothing to look at");
        let process = |pid: &str, cmdline: &str, open: &[&str]| {
            let dir = proc_root.join(pid);
            fs::create_dir_all(dir.join("fd")).unwrap();
            fs::write(dir.join("cmdline"), cmdline).unwrap();
            for (n, target) in open.iter().enumerate() {
                std::os::unix::fs::symlink(target, dir.join("fd").join(n.to_string())).unwrap();
            }
        };
        process("41", "/usr/bin/python3\0train.py\0", &["/dev/null", "/dev/nvidia2"]);
        process("42", "/usr/bin/python3\0other.py\0", &["/dev/nvidia1", "/dev/nvidiactl"]);
        assert_eq!(diag_running(proc_root), Known::Known(false));
        assert!(!device_holders(proc_root, "00000000:52:00.0").is_known(), "no driver");
        let gpu = proc_root.join("driver/nvidia/gpus/0000:52:00.0");
        fs::create_dir_all(&gpu).unwrap();
        fs::write(gpu.join("information"), "Model: \t\t X\nDevice Minor: \t 2\n").unwrap();
        let holders = device_holders(proc_root, "00000000:52:00.0").into_known().unwrap();
        assert_eq!(holders, [GpuProcess { pid: 41, name: "/usr/bin/python3".to_owned() }]);
        process("43", "/usr/libexec/datacenter-gpu-manager-4/nvvs\0", &[]);
        assert_eq!(diag_running(proc_root), Known::Known(true));
    }

    #[test]
    fn jobs_are_seen_in_both_cgroup_versions() {
        // The name of the root says nothing about what lies below it.
        let root = tempfile::Builder::new().prefix("slurmd").tempdir().unwrap();
        assert_eq!(job_cgroups(&root.path().join("nothing")), Known::Known(BTreeSet::new()));
        let make = |p: &str| fs::create_dir_all(root.path().join(p)).unwrap();
        make("system.slice/gpu001_slurmstepd.scope/job_4711/step_0/user");
        make("freezer/slurm_gpu001/uid_1000/job_4712/step_batch");
        make("system.slice/other.service/job_1");
        make("user.slice/job_2");
        let jobs: Vec<String> = job_cgroups(root.path()).into_known().unwrap().into_iter().collect();
        assert_eq!(jobs, ["4711", "4712"]);
    }
}
