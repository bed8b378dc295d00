//! Processes of users who have no job on this node any more.
//!
//! A process belongs to a job if its control group says so, or if one of its ancestors is slurmstepd. A user with one
//! such process has a job here, and none of their processes count.

use super::{MAX_FINDINGS, Said, Scene};
use crate::config::Params;
use crate::finding::Finding;
use crate::mode::Mode;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

/// The most processes that are looked at.
const MAX_PROCESSES: usize = 200_000;
/// Kernel ticks per second as /proc counts them, the same on every Linux that Slurm runs on.
const TICKS: u64 = 100;

/// Whose processes count.
#[derive(Debug, Clone)]
pub(crate) struct Leftover {
    uid_min: u64,
    allow: BTreeSet<u64>,
    age: Duration,
    proc: PathBuf,
}

struct Process {
    pid: u64,
    uid: u64,
    age: Duration,
    name: String,
    of_job: bool,
}

impl Leftover {
    /// Reads the settings.
    pub(super) fn read(p: &mut Params) -> Result<Self, String> {
        let allow = p.text("allow").unwrap_or_default();
        Ok(Self {
            uid_min: p.number("uid_min", u64::from(u32::MAX))?.unwrap_or(1000),
            allow: allow
                .split(',')
                .filter(|w| !w.is_empty())
                .map(|w| w.parse().map_err(|_| format!("allow={w} is no user id")))
                .collect::<Result<_, _>>()?,
            age: p.duration("age")?.unwrap_or(Duration::from_secs(120)),
            proc: p.path("proc")?.unwrap_or_else(|| PathBuf::from("/proc")),
        })
    }

    /// Looks.
    pub(super) fn look(&self, scene: &Scene) -> Said {
        let uptime = match std::fs::read_to_string(self.proc.join("uptime")) {
            Ok(text) => text.split(['.', ' ']).next().and_then(|s| s.parse().ok()).unwrap_or(0),
            Err(e) => return Said::trouble(format!("{}/uptime: {e}", self.proc.display())),
        };
        let dir = match std::fs::read_dir(&self.proc) {
            Ok(dir) => dir,
            Err(e) => return Said::trouble(format!("{}: {e}", self.proc.display())),
        };
        let mut processes = Vec::new();
        for entry in dir.flatten().take(MAX_PROCESSES) {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
            // A process that ends meanwhile is no process.
            let Ok(meta) = entry.metadata() else { continue };
            let uid = u64::from(meta.uid());
            if uid >= self.uid_min && !self.allow.contains(&uid) {
                processes.extend(self.process(pid, uid, uptime));
            }
        }
        let mut with_job: BTreeSet<u64> = processes.iter().filter(|p| p.of_job).map(|p| p.uid).collect();
        if scene.mode == Mode::Prolog {
            // The job whose prolog this is has no process yet.
            with_job.extend(crate::mode::from_env("SLURM_JOB_UID").and_then(|u| u.parse::<u64>().ok()));
        }
        let mut left: BTreeMap<u64, Vec<&Process>> = BTreeMap::new();
        for p in processes.iter().filter(|p| !with_job.contains(&p.uid) && p.age >= self.age) {
            left.entry(p.uid).or_default().push(p);
        }
        let mut said = Said::fine(format!("{} users with a job", with_job.len()));
        for (uid, all) in left.iter().take(MAX_FINDINGS) {
            let names: Vec<String> = all.iter().take(5).map(|p| format!("{} {}", p.pid, p.name)).collect();
            let text =
                format!("user {uid} has {} processes and no job here: {}", all.len(), names.join(", "));
            said.findings.push(Finding::now("leftover-processes", format!("uid-{uid}"), text));
        }
        said
    }

    fn process(&self, pid: u64, uid: u64, uptime: u64) -> Option<Process> {
        let stat = Stat::read(&self.proc, pid)?;
        // Zombies hold nothing; their parent must collect them.
        if stat.state == 'Z' || stat.state == 'X' {
            return None;
        }
        let groups =
            std::fs::read_to_string(self.proc.join(pid.to_string()).join("cgroup")).unwrap_or_default();
        let of_job = groups.lines().any(|l| l.contains("/job_")) || self.under_slurmstepd(stat.parent);
        let age = Duration::from_secs(uptime.saturating_sub(stat.started / TICKS));
        Some(Process { pid, uid, age, name: crate::talk::tame(&stat.name), of_job })
    }

    fn under_slurmstepd(&self, mut pid: u64) -> bool {
        for _ in 0..64 {
            if pid <= 1 {
                return false;
            }
            match Stat::read(&self.proc, pid) {
                Some(stat) if stat.name == "slurmstepd" => return true,
                Some(stat) => pid = stat.parent,
                None => return false,
            }
        }
        false
    }
}

struct Stat {
    name: String,
    state: char,
    parent: u64,
    started: u64,
}

impl Stat {
    fn read(proc: &std::path::Path, pid: u64) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?)
    }

    /// The name stands in brackets and may hold anything, brackets too.
    fn parse(text: &str) -> Option<Self> {
        let (front, back) = text.rsplit_once(')')?;
        let name = front.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = back.split_whitespace().collect();
        Some(Self {
            name,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::path::Path;
    use std::time::Instant;

    /// A process of the user who runs the test, as only root could make others.
    fn process(proc: &Path, pid: u64, parent: u64, name: &str, cgroup: &str, started: u64) {
        let dir = proc.join(pid.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        let zeros = "0 ".repeat(17);
        std::fs::write(dir.join("stat"), format!("{pid} ({name}) S {parent} {zeros}{started} 0 0")).unwrap();
        std::fs::write(dir.join("cgroup"), cgroup).unwrap();
    }

    fn look(build: impl Fn(&Path)) -> Said {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("uptime"), "10000.00 1.0\n").unwrap();
        build(dir.path());
        let check = Leftover {
            uid_min: 0,
            allow: BTreeSet::new(),
            age: Duration::from_secs(120),
            proc: dir.path().to_path_buf(),
        };
        check.look(&Scene {
            mode: Mode::Health,
            end: Instant::now(),
            cursor: None,
            node: "n".to_owned(),
            scrape: &RefCell::new(None),
        })
    }

    #[test]
    fn an_orphan_is_named_and_a_young_one_is_not() {
        let said = look(|p| process(p, 500, 1, "a (b) c", "0::/user.slice\n", 100));
        assert!(said.findings[0].text.contains("1 processes and no job here: 500 a (b) c"), "{said:?}");
        assert_eq!(look(|p| process(p, 500, 1, "python", "0::/\n", 999_000)).findings, []);
        assert_eq!(look(|_| {}).findings, []);
    }

    #[test]
    fn a_user_with_a_job_has_no_leftovers() {
        let groups = "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0\n";
        let said = look(|p| {
            process(p, 500, 1, "orphan", "0::/\n", 100);
            process(p, 501, 1, "python", groups, 100);
        });
        assert_eq!(said.findings, []);
        let said = look(|p| {
            process(p, 400, 1, "slurmstepd", "0::/\n", 100);
            process(p, 500, 400, "bash", "0::/\n", 100);
            process(p, 501, 500, "python", "0::/\n", 100);
        });
        assert_eq!(said.findings, []);
    }
}
