//! The processes of this host as the kernel tells them: whose they are, which job they belong to, whether they
//! hold a GPU.
//!
//! Only files are read that the kernel answers by itself. A process's command line and environment lie in its own
//! memory: reading them can hang on a process that hangs, and they may hold secrets.

use super::host;
use super::tools::{Tools, Until, blocking};
use crate::dcgm::text::one_line;
use crate::process::{self, Program};
use engine_core::{Cause, Known};
use engine_runtime::ports::{NodeProcess, ProcessList};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

/// Most processes that are looked at; a node with more is unknown.
const MAX_PROCESSES: usize = 65_536;
/// Most open files of one process that are looked at.
const MAX_FILES: usize = 65_536;
/// Most bytes read of one file of a process.
const MAX_FILE: u64 = 64 << 10;
/// Most processes in an answer.
const MAX_LISTED: usize = 500;
/// Most users whose names are looked up for one answer.
const MAX_NAMES: usize = 64;
/// Time for the names of users: a directory service that hangs must not hold the list back.
const NAMES: Duration = Duration::from_secs(3);
/// Clock ticks per second in `/proc`: the kernel's user-visible unit, 100 on every architecture with GPUs.
const TICKS: u64 = 100;
/// Flag of kernel threads in `stat`.
const KERNEL_THREAD: u64 = 0x0020_0000;
/// User ids that distributions and systemd give to services, `nobody` among them; people have lower or higher ones.
const DISTRIBUTIONS: RangeInclusive<u32> = 60_000..=65_535;
/// Those of them that systemd gives to services alone.
const SERVICES: RangeInclusive<u32> = 61_184..=65_519;

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) pid: u32,
    pub(super) parent: u32,
    pub(super) start_time: u64,
    /// Real, effective, saved and file-system user id.
    pub(super) uids: [u32; 4],
    pub(super) command: String,
    pub(super) state: char,
    pub(super) kernel: bool,
    /// Every control group it is in: one in version 2, one per hierarchy in version 1.
    pub(super) cgroups: Known<Vec<String>>,
    pub(super) holds_gpu: Known<bool>,
}

/// What `stat` says that must be read again right before an act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) command: String,
    pub(super) state: char,
    pub(super) parent: u32,
    pub(super) start_time: u64,
    pub(super) kernel: bool,
}

impl Seen {
    /// Returns the job whose control group it is in; an empty text for none.
    pub(super) fn job(&self) -> Known<String> {
        self.cgroups.as_ref().map(|paths| paths.iter().find_map(|p| job_of(p)).unwrap_or_default())
    }

    /// Says whether all its user ids are a person's.
    pub(super) fn is_persons(&self, first_user_id: u32) -> bool {
        self.uids.iter().all(|u| is_person(*u, first_user_id))
    }

    fn effective_uid(&self) -> u32 {
        self.uids[1]
    }
}

/// Says whether a user id is a person's for certain, so that what is theirs may be touched.
pub(super) fn is_person(uid: u32, first_user_id: u32) -> bool {
    may_be_person(uid, first_user_id) && !DISTRIBUTIONS.contains(&uid) && uid != u32::MAX
}

/// Says whether a user id may be a person's, so that nothing is done under what they run.
pub(super) fn may_be_person(uid: u32, first_user_id: u32) -> bool {
    uid >= first_user_id && !SERVICES.contains(&uid)
}

/// Returns the Slurm job that a control group belongs to.
pub(super) fn job_of(path: &str) -> Option<String> {
    let mut in_slurm = false;
    for part in path.split('/') {
        if in_slurm && let Some(job) = part.strip_prefix("job_") {
            return Some(job.to_owned());
        }
        in_slurm |= part.contains("slurm");
    }
    None
}

/// Reads a file of a process; `None` when the process has ended.
fn read(path: &Path) -> io::Result<Option<String>> {
    // ESRCH: it ended between the opening and the reading.
    let ended = |e: &io::Error| {
        e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32)
    };
    let mut bytes = Vec::new();
    let got = fs::File::open(path).and_then(|f| f.take(MAX_FILE).read_to_end(&mut bytes));
    match got {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if ended(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

fn unreadable(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} has an unknown form"))
}

/// Reads what tells a process from every other one; `None` when it has ended.
pub(super) fn stat(proc_root: &Path, pid: u32) -> io::Result<Option<Stat>> {
    let Some(text) = read(&proc_root.join(pid.to_string()).join("stat"))? else { return Ok(None) };
    // The name stands in brackets and may itself hold brackets and blanks.
    let parsed = (|| {
        let (head, rest) = text.rsplit_once(')')?;
        let (number, command) = head.split_once('(')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number: u32 = number.trim().parse().ok()?;
        (number == pid).then_some(())?;
        Some(Stat {
            command: one_line(command),
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            kernel: fields.get(6)?.parse::<u64>().ok()? & KERNEL_THREAD != 0,
            start_time: fields.get(19)?.parse().ok()?,
        })
    })();
    parsed.map(Some).ok_or_else(|| unreadable(&format!("stat of process {pid}")))
}

fn uids(status: &str) -> Option<[u32; 4]> {
    let line = status.lines().find_map(|l| l.strip_prefix("Uid:"))?;
    let list: Vec<u32> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    list.try_into().ok()
}

/// Says whether a process has a GPU open. The control device alone is no hold: every tool of the driver opens it.
fn holds_gpu(process: &Path) -> Known<bool> {
    let entries = match fs::read_dir(process.join("fd")) {
        Ok(e) => e,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Known::Known(false),
        Err(e) => return Known::unknown(Cause::ReadFailed, format!("its open files: {e}")),
    };
    let is_gpu = |target: &Path| {
        let name = target.to_str().and_then(|t| t.strip_prefix("/dev/nvidia"));
        name.is_some_and(|n| n.starts_with("-uvm") || n.bytes().next().is_some_and(|b| b.is_ascii_digit()))
    };
    for (count, fd) in entries.flatten().enumerate() {
        if count >= MAX_FILES {
            return Known::unknown(Cause::Unparsable, format!("more than {MAX_FILES} open files"));
        }
        if fs::read_link(fd.path()).is_ok_and(|target| is_gpu(&target)) {
            return Known::Known(true);
        }
    }
    Known::Known(false)
}

fn one(proc_root: &Path, pid: u32) -> io::Result<Option<Seen>> {
    let Some(stat) = stat(proc_root, pid)? else { return Ok(None) };
    let process = proc_root.join(pid.to_string());
    let Some(status) = read(&process.join("status"))? else { return Ok(None) };
    let uids = uids(&status).ok_or_else(|| unreadable(&format!("status of process {pid}")))?;
    let cgroups = match read(&process.join("cgroup")) {
        Ok(Some(text)) => {
            let paths: Option<Vec<String>> =
                text.lines().map(|l| l.splitn(3, ':').nth(2).map(str::to_owned)).collect();
            match paths {
                Some(p) if !p.is_empty() => Known::Known(p),
                _ => Known::unknown(Cause::Unparsable, "its control groups have an unknown form"),
            }
        }
        Ok(None) => return Ok(None),
        Err(e) => Known::unknown(Cause::ReadFailed, format!("its control groups: {e}")),
    };
    let holds_gpu = if stat.kernel { Known::Known(false) } else { holds_gpu(&process) };
    Ok(Some(Seen {
        pid,
        parent: stat.parent,
        start_time: stat.start_time,
        uids,
        command: stat.command,
        state: stat.state,
        kernel: stat.kernel,
        cgroups,
        holds_gpu,
    }))
}

/// Reads every process. One that cannot be read makes the whole unknown: it may be the one that matters.
pub(super) fn scan(proc_root: &Path) -> Known<Vec<Seen>> {
    let failed = |e: io::Error| Known::unknown(Cause::ReadFailed, format!("{}: {e}", proc_root.display()));
    let entries = match fs::read_dir(proc_root) {
        Ok(e) => e,
        Err(e) => return failed(e),
    };
    let mut out = Vec::new();
    for entry in entries {
        let entry = match entry {
            Ok(e) => e,
            Err(e) => return failed(e),
        };
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        match one(proc_root, pid) {
            Ok(Some(seen)) => out.push(seen),
            Ok(None) => {}
            Err(e) => return failed(e),
        }
        if out.len() > MAX_PROCESSES {
            return Known::unknown(Cause::Unparsable, format!("more than {MAX_PROCESSES} processes"));
        }
    }
    if out.is_empty() {
        return Known::unknown(Cause::EmptyAnswer, format!("no process in {}", proc_root.display()));
    }
    Known::Known(out)
}

/// Everything that says whether something is a job's: the processes, the jobs, and whose these are.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) processes: Vec<Seen>,
    /// Jobs with a control group on this node.
    pub(super) jobs: BTreeSet<String>,
    /// People with such a job, and one of their jobs; unknown where the owner of a job cannot be told.
    pub(super) owners: Known<BTreeMap<u32, String>>,
}

/// Looks at processes and jobs. The jobs come first: one that starts meanwhile shows in its processes.
pub(super) fn scene(proc_root: &Path, cgroup_root: &Path, first_user_id: u32) -> Known<Scene> {
    let jobs = match host::job_cgroups(cgroup_root) {
        Known::Known(jobs) => jobs,
        Known::Unknown(u) => return Known::Unknown(u),
    };
    scan(proc_root).map(|processes| {
        let mut jobs = jobs;
        let mut owners = BTreeMap::new();
        let mut owned = BTreeSet::new();
        for p in &processes {
            let Known::Known(job) = p.job() else { continue };
            if job.is_empty() {
                continue;
            }
            for uid in p.uids.iter().filter(|u| may_be_person(**u, first_user_id)) {
                owners.insert(*uid, job.clone());
                owned.insert(job.clone());
            }
            jobs.insert(job);
        }
        let owners = match jobs.difference(&owned).next() {
            None => Known::Known(owners),
            Some(job) => Known::unknown(Cause::NotReported, format!("nothing here tells whose job {job} is")),
        };
        Scene { processes, jobs, owners }
    })
}

/// Looks at processes and jobs with a deadline.
pub(super) async fn look(tools: &Tools, until: Until) -> Known<Scene> {
    let c = &tools.config;
    let (proc_root, cgroup_root, first) = (c.proc_root.clone(), c.cgroup_root.clone(), c.first_user_id);
    blocking(move || scene(&proc_root, &cgroup_root, first), until.left(c.read_deadline())).await
}

/// Lists the processes that matter first, bounded, with the names of their users where these come in time.
pub(super) async fn list(tools: &Tools, limit: Duration) -> Known<ProcessList> {
    let until = Until::after(limit);
    let root = tools.config.proc_root.clone();
    let read_all = move || {
        let uptime = match read(&root.join("uptime")) {
            Ok(Some(text)) => text.split('.').next().and_then(|s| s.trim().parse::<u64>().ok()),
            _ => None,
        };
        match uptime {
            Some(up) => scan(&root).map(|all| (up, all)),
            None => Known::unknown(Cause::ReadFailed, format!("{}/uptime cannot be read", root.display())),
        }
    };
    let (uptime, mut all) = match blocking(read_all, until.left(tools.config.read_deadline())).await {
        Known::Known(found) => found,
        Known::Unknown(u) => return Known::Unknown(u),
    };
    all.retain(|p| !p.kernel);
    let first = tools.config.first_user_id;
    let rank = |p: &Seen| match p {
        _ if p.holds_gpu == Known::Known(true) => 0,
        _ if p.state == 'D' => 1,
        _ if is_person(p.effective_uid(), first) => 2,
        _ => 3,
    };
    all.sort_by_key(|p| (rank(p), p.start_time, p.pid));
    let left_out = all.len().saturating_sub(MAX_LISTED);
    all.truncate(MAX_LISTED);
    let users = names(all.iter().map(Seen::effective_uid).collect(), until.left(NAMES)).await;
    let processes = all.into_iter().map(|p| shown(p, uptime, &users)).collect();
    Known::Known(ProcessList { processes, left_out })
}

fn shown(p: Seen, uptime: u64, users: &BTreeMap<u32, String>) -> NodeProcess {
    let uid = p.effective_uid();
    NodeProcess {
        pid: p.pid,
        start_time: p.start_time,
        uid,
        user: users.get(&uid).cloned(),
        job: p.job(),
        cgroup: p
            .cgroups
            .map(|paths| one_line(paths.iter().max_by_key(|path| path.len()).map_or("/", String::as_str))),
        command: p.command,
        holds_gpu: p.holds_gpu,
        state: p.state,
        age_s: uptime.saturating_sub(p.start_time / TICKS),
    }
}

/// Looks up names of users by a program that can be given up, unlike the library call behind it.
async fn names(ids: BTreeSet<u32>, limit: Duration) -> BTreeMap<u32, String> {
    let ids = ids.iter().take(MAX_NAMES).map(u32::to_string);
    let getent = Program::new("/usr/bin/getent").arg("passwd").args(ids).deadline(limit).max_output(64 << 10);
    let text = match process::run(&getent).await {
        Ok(f) => f.stdout,
        Err(_) => Vec::new(),
    };
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .filter_map(|l| {
            let mut cells = l.split(':');
            let name = cells.next()?;
            let uid = cells.nth(1)?.parse().ok()?;
            Some((uid, one_line(name)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(root: &Path, pid: u32, uid: u32, cgroup: &str, name: &str) {
        let dir = root.join(pid.to_string());
        fs::create_dir_all(dir.join("fd")).unwrap();
        let zeros = "0 ".repeat(11);
        fs::write(dir.join("stat"), format!("{pid} ({name}) S 1 1 1 0 -1 64 {zeros}1 {} 0 0\n", pid * 10))
            .unwrap();
        fs::write(dir.join("status"), format!("Name:\t{name}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")).unwrap();
        fs::write(dir.join("cgroup"), format!("{cgroup}\n")).unwrap();
    }

    #[test]
    fn the_processes_of_the_real_kernel_are_read() {
        let all = scan(Path::new("/proc")).into_known().unwrap();
        let me = all.iter().find(|p| p.pid == std::process::id()).unwrap();
        assert!(me.start_time > 0 && !me.kernel && me.cgroups.is_known());
        assert_eq!(me.uids[1], nix::unistd::geteuid().as_raw());
        assert_eq!(me.holds_gpu, Known::Known(false));
        assert_eq!(me.parent, std::os::unix::process::parent_id());
    }

    #[test]
    fn names_with_brackets_and_blanks_do_not_shift_the_fields() {
        let root = tempfile::tempdir().unwrap();
        process(root.path(), 7, 1000, "0::/user.slice", "a) R 1 (b");
        let s = stat(root.path(), 7).unwrap().unwrap();
        assert_eq!((s.command.as_str(), s.state, s.parent, s.start_time), ("a) R 1 (b", 'S', 1, 70));
        assert!(stat(root.path(), 8).unwrap().is_none(), "ended");
        fs::write(root.path().join("7/stat"), "7 (x) S 1").unwrap();
        assert!(stat(root.path(), 7).is_err());
        assert!(!scan(root.path()).is_known(), "one that cannot be read is not left out");
    }

    #[test]
    fn jobs_of_control_groups_in_both_versions() {
        for (path, job) in [
            ("/system.slice/gpu001_slurmstepd.scope/job_4711/step_0/user/task_0", Some("4711")),
            ("/slurm_gpu001/uid_1000/job_4712/step_batch", Some("4712")),
            ("/system.slice/slurmstepd.scope/system", None),
            ("/user.slice/user-1000.slice/job_9", None),
            ("/", None),
        ] {
            assert_eq!(job_of(path).as_deref(), job, "{path}");
        }
    }

    #[test]
    fn owners_of_jobs_are_known_or_not_but_never_left_out() {
        let root = tempfile::tempdir().unwrap();
        let (proc_root, cgroup_root) = (root.path().join("proc"), root.path().join("cg"));
        let scope = "system.slice/slurmstepd.scope";
        fs::create_dir_all(cgroup_root.join(scope).join("job_11")).unwrap();
        process(&proc_root, 1, 0, "0::/init.scope", "init");
        process(&proc_root, 50, 0, &format!("0::/{scope}/job_11/step_0"), "slurmstepd");
        let look = || scene(&proc_root, &cgroup_root, 1000).into_known().unwrap();
        assert!(!look().owners.is_known(), "only slurmstepd is in it");
        process(&proc_root, 51, 1234, &format!("0::/{scope}/job_11/step_0"), "python3");
        let s = look();
        assert_eq!(s.owners.known().unwrap().get(&1234).map(String::as_str), Some("11"));
    }

    #[test]
    fn user_ids_of_services_are_no_persons() {
        for (uid, certain, possible) in [
            (0, false, false),
            (999, false, false),
            (1000, true, true),
            (59_999, true, true),
            (60_500, false, true),
            (64_030, false, false),
            (65_534, false, true),
            (65_536, true, true),
            (u32::MAX, false, true),
        ] {
            assert_eq!((is_person(uid, 1000), may_be_person(uid, 1000)), (certain, possible), "{uid}");
        }
    }

    #[tokio::test]
    async fn the_list_is_bounded_and_names_the_holders_first() {
        let root = tempfile::tempdir().unwrap();
        let proc_root = root.path().to_owned();
        fs::write(proc_root.join("uptime"), "1000.55 3.2\n").unwrap();
        for pid in 2..(MAX_LISTED as u32 + 20) {
            process(&proc_root, pid, 0, "0::/system.slice/x.service", "daemon");
        }
        process(&proc_root, 9000, 4242, "0::/user.slice/s", "python3");
        std::os::unix::fs::symlink("/dev/nvidia3", proc_root.join("9000/fd/9")).unwrap();
        let config = super::super::NodeToolsConfig { proc_root, ..Default::default() };
        let list = list(&Tools::new(config), Duration::from_secs(20)).await.into_known().unwrap();
        assert_eq!((list.processes.len(), list.left_out), (MAX_LISTED, 19));
        let first = &list.processes[0];
        assert_eq!((first.pid, &first.holds_gpu, first.uid), (9000, &Known::Known(true), 4242));
        assert_eq!((first.age_s, first.start_time), (1000 - 900, 90_000));
        assert_eq!(list.processes[1].user.as_deref(), Some("root"));
    }
}
