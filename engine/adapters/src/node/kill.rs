//! Ends one process of a person, after proof that it is the one meant and belongs to no job.
//!
//! The process is held by a descriptor where the kernel has them, taken before the checks: a number that was given to
//! another process meanwhile can then not be hit. Without it the start time is read once more right before the signal.

use super::processes::{self, Scene, Seen, stat};
use super::tools::{Tools, Until};
use engine_core::Known;
use engine_runtime::ports::{KillEnd, WorkResult};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

/// Longest wait after TERM.
const TERM_WAIT: Duration = Duration::from_secs(10);
/// Longest wait after KILL: only a process that waits for a device outlives it.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Most generations of our own ancestors.
const MAX_ANCESTORS: usize = 1_000;

/// Why no signal was sent.
#[derive(Debug, PartialEq, Eq)]
enum No {
    /// It has ended: what was wanted.
    Gone(&'static str),
    /// It may not be ended.
    Refused(String),
}

/// The process that an order names, and how it is reached.
struct Target<'a> {
    proc_root: &'a Path,
    pid: u32,
    start_time: u64,
    number: Pid,
    descriptor: Option<OwnedFd>,
}

/// Ends the process: TERM, then KILL, then a look whether it is gone.
pub(super) async fn kill(tools: &Tools, pid: u32, start_time: u64, until: Until) -> WorkResult {
    let number = i32::try_from(pid).ok().filter(|n| *n > 1).and_then(Pid::from_raw);
    let Some(number) = number else {
        return WorkResult::Refused(format!("{pid} is no process that can be ended"));
    };
    let mut steps = Vec::new();
    let descriptor = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(fd) => Some(fd),
        Err(Errno::SRCH) => {
            steps.push(format!("there is no process {pid}"));
            return WorkResult::Killed { end: KillEnd::WasGone, steps };
        }
        // A kernel before 5.3, or one that keeps them from us.
        Err(e) => {
            steps.push(format!("no descriptor of the process ({e}): its start time is compared instead"));
            None
        }
    };
    let proc_root = &tools.config.proc_root;
    let target = Target { proc_root, pid, start_time, number, descriptor };
    if let Err(no) = target.checked(tools, until).await {
        return target.not_ended(no, steps);
    }
    steps.push("checked on the node: it is the process that was named, a person's, and of no job".to_owned());
    for (signal, name, wait) in [(Signal::TERM, "TERM", TERM_WAIT), (Signal::KILL, "KILL", KILL_WAIT)] {
        if name == "KILL" {
            // Seconds have passed: it may have been taken into a job meanwhile.
            match target.checked(tools, until).await {
                Ok(()) => {}
                Err(No::Gone(_)) => return ended("TERM", steps),
                Err(No::Refused(why)) => {
                    steps.push(format!("KILL was not sent: {why}"));
                    return after_signals(target.now(), "TERM", steps);
                }
            }
        }
        match target.send(signal) {
            Ok(()) => steps.push(format!("{name} sent")),
            Err(no) if name == "TERM" => return target.not_ended(no, steps),
            // It ended by the first signal after all.
            Err(No::Gone(_)) => return ended("TERM", steps),
            Err(No::Refused(why)) => return WorkResult::Ambiguous(why),
        }
        // Half of what is left, so that KILL has its time too.
        let wait = if name == "TERM" { until.left(wait * 2) / 2 } else { until.left(wait) };
        if target.gone_within(wait).await {
            return ended(name, steps);
        }
        steps.push(format!("it did not end within {} ms", wait.as_millis()));
    }
    after_signals(target.now(), "KILL", steps)
}

/// Says what became of a process that did not end in time.
fn after_signals(now: Result<Option<char>, String>, last: &str, mut steps: Vec<String>) -> WorkResult {
    match now {
        Ok(None) => ended(last, steps),
        Ok(Some(state)) => {
            let why = match state {
                'D' => "it waits in the kernel and cannot end before that wait does",
                _ => "it is there still",
            };
            steps.push(format!("state {state}: {why}"));
            WorkResult::Killed { end: KillEnd::Remains { state }, steps }
        }
        Err(why) => {
            WorkResult::Ambiguous(format!("{last} was sent, and what became of it is unknown: {why}"))
        }
    }
}

fn ended(signal: &str, mut steps: Vec<String>) -> WorkResult {
    steps.push("it has ended".to_owned());
    WorkResult::Killed { end: KillEnd::Ended { signal: signal.to_owned() }, steps }
}

impl Target<'_> {
    /// Looks at the node and says whether the process may be ended.
    async fn checked(&self, tools: &Tools, until: Until) -> Result<(), No> {
        match processes::look(tools, until).await {
            Known::Known(scene) => {
                let first = tools.config.first_user_id;
                may_end(&scene, self.pid, self.start_time, first, std::process::id())
            }
            Known::Unknown(u) => Err(No::Refused(format!("what runs on the node is {u}"))),
        }
    }

    fn not_ended(&self, no: No, mut steps: Vec<String>) -> WorkResult {
        match no {
            No::Gone(how) => {
                steps.push(format!("process {}: {how}", self.pid));
                WorkResult::Killed { end: KillEnd::WasGone, steps }
            }
            No::Refused(why) => WorkResult::Refused(format!("{why}; nothing was sent")),
        }
    }

    fn send(&self, signal: Signal) -> Result<(), No> {
        let sent = match &self.descriptor {
            Some(fd) => pidfd_send_signal(fd, signal),
            None => match self.now() {
                Ok(Some(_)) => kill_process(self.number, signal),
                Ok(None) => return Err(No::Gone("it has ended")),
                Err(why) => return Err(No::Refused(why)),
            },
        };
        sent.map_err(|e| match e {
            Errno::SRCH => No::Gone("it has ended"),
            e => No::Refused(format!("the signal to process {} could not be sent: {e}", self.pid)),
        })
    }

    /// Returns its state, or nothing once it has ended; a zombie has.
    fn now(&self) -> Result<Option<char>, String> {
        if let Some(fd) = &self.descriptor {
            let mut list = [PollFd::new(fd, PollFlags::IN)];
            match poll(&mut list, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
                Ok(0) => {}
                Ok(_) => return Ok(None),
                Err(e) => return Err(format!("process {} could not be looked at: {e}", self.pid)),
            }
        }
        match stat(self.proc_root, self.pid) {
            Ok(Some(s)) if s.start_time == self.start_time && !matches!(s.state, 'Z' | 'X') => {
                Ok(Some(s.state))
            }
            Ok(_) => Ok(None),
            Err(e) => Err(format!("process {} could not be read: {e}", self.pid)),
        }
    }

    async fn gone_within(&self, wait: Duration) -> bool {
        let until = Until::after(wait);
        loop {
            if matches!(self.now(), Ok(None)) {
                return true;
            }
            if until.passed() {
                return false;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// Says whether the process may be ended. What cannot be proven is refused.
fn may_end(scene: &Scene, pid: u32, start_time: u64, first_user_id: u32, ours: u32) -> Result<(), No> {
    let refuse = |why: String| Err(No::Refused(format!("process {pid}: {why}")));
    let Some(p) = scene.processes.iter().find(|p| p.pid == pid) else {
        return Err(No::Gone("there is none"));
    };
    if p.start_time != start_time {
        return refuse(format!(
            "it started at {}, and the one meant started at {start_time}: the number is another's now",
            p.start_time
        ));
    }
    if matches!(p.state, 'Z' | 'X') {
        return Err(No::Gone("it has ended and waits for its parent"));
    }
    if p.kernel || !p.is_persons(first_user_id) {
        return refuse(format!("it runs as the system's user {}, not as a person", p.uids[1]));
    }
    if let Some(why) = of_a_job(p, scene) {
        return refuse(why);
    }
    match ancestors(&scene.processes, ours) {
        Some(list) if list.contains(&pid) => refuse("it is what this program runs under".to_owned()),
        Some(_) => Ok(()),
        None => refuse("what this program runs under cannot be told".to_owned()),
    }
}

/// Says why a process is, or may be, a job's.
fn of_a_job(p: &Seen, scene: &Scene) -> Option<String> {
    let paths = match &p.cgroups {
        Known::Known(paths) => paths,
        Known::Unknown(u) => return Some(format!("its control group is {u}")),
    };
    if let Known::Known(job) = p.job()
        && !job.is_empty()
    {
        return Some(format!("it belongs to job {job}"));
    }
    // Where Slurm does not put jobs into groups of their own, they run in slurmd's.
    if paths.iter().any(|path| path.contains("slurm")) {
        return Some("it is in a control group of Slurm, so it may be a job's".to_owned());
    }
    if paths.iter().all(|path| path.split('/').all(str::is_empty)) {
        return Some("its control group is the topmost, which does not show that it is no job's".to_owned());
    }
    match &scene.owners {
        Known::Unknown(u) => Some(format!("whose the jobs here are is {u}")),
        Known::Known(owners) => p
            .uids
            .iter()
            .find_map(|uid| owners.get(uid))
            .map(|job| format!("its user has job {job} on this node, and may use it there")),
    }
}

/// Returns this program and everything above it; nothing where the line breaks off.
fn ancestors(all: &[Seen], ours: u32) -> Option<Vec<u32>> {
    let mut line = vec![ours];
    let mut at = ours;
    while at > 1 {
        at = all.iter().find(|p| p.pid == at)?.parent;
        line.push(at);
        if line.len() > MAX_ANCESTORS {
            return None;
        }
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    const USER: &str = "/user.slice/user-1234.slice/session-4.scope";

    fn seen(pid: u32, parent: u32, uid: u32, cgroup: &str) -> Seen {
        Seen {
            pid,
            parent,
            start_time: u64::from(pid) * 10,
            uids: [uid; 4],
            command: "x".to_owned(),
            state: 'S',
            kernel: false,
            cgroups: Known::Known(vec![cgroup.to_owned()]),
            holds_gpu: Known::Known(false),
        }
    }

    fn scene(victim: Seen) -> Scene {
        let processes =
            vec![seen(1, 0, 0, "/init.scope"), seen(90, 1, 1234, USER), seen(91, 90, 0, "/a"), victim];
        Scene { processes, jobs: BTreeSet::new(), owners: Known::Known(BTreeMap::new()) }
    }

    fn verdict(change: impl FnOnce(&mut Seen, &mut Scene)) -> Result<(), No> {
        let mut victim = seen(700, 1, 1234, USER);
        let mut s = scene(victim.clone());
        change(&mut victim, &mut s);
        *s.processes.last_mut().unwrap() = victim;
        may_end(&s, 700, 7000, 1000, 91)
    }

    #[test]
    fn only_a_persons_process_that_is_proven_to_be_of_no_job_may_be_ended() {
        assert_eq!(verdict(|_, _| {}), Ok(()));
        let refused = |change: fn(&mut Seen, &mut Scene), words: &str| match verdict(change) {
            Err(No::Refused(why)) => assert!(why.contains(words), "{why}"),
            other => panic!("{words}: {other:?}"),
        };
        refused(|p, _| p.start_time = 7001, "another's now");
        refused(|p, _| p.uids = [0; 4], "system's user");
        refused(|p, _| p.uids = [1234, 1234, 0, 1234], "system's user");
        refused(|p, _| p.uids = [65_534; 4], "system's user");
        refused(|p, _| p.kernel = true, "system's user");
        refused(|p, _| p.cgroups = Known::unknown(engine_core::Cause::ReadFailed, "x"), "control group is");
        refused(
            |p, _| p.cgroups = Known::Known(vec!["/system.slice/slurmstepd.scope/job_9/step_0".to_owned()]),
            "job 9",
        );
        refused(|p, _| p.cgroups = Known::Known(vec!["/system.slice/slurmd.service".to_owned()]), "of Slurm");
        refused(|p, _| p.cgroups = Known::Known(vec!["/".to_owned(), String::new()]), "topmost");
        refused(|_, s| s.owners = Known::unknown(engine_core::Cause::NotReported, "x"), "whose the jobs");
        refused(|_, s| s.owners = Known::Known([(1234, "8".to_owned())].into()), "has job 8");
        refused(|_, s| s.processes[1].pid = 2, "runs under cannot be told");
        assert_eq!(verdict(|p, _| p.state = 'Z'), Err(No::Gone("it has ended and waits for its parent")));
    }

    #[test]
    fn what_this_program_runs_under_is_never_ended() {
        let s = scene(seen(700, 1, 1234, USER));
        let Err(No::Refused(why)) = may_end(&s, 90, 900, 1000, 91) else { panic!() };
        assert!(why.contains("runs under"), "{why}");
        let gone = may_end(&s, 701, 7010, 1000, 91);
        assert_eq!(gone, Err(No::Gone("there is none")));
    }

    #[tokio::test]
    async fn without_a_descriptor_the_start_time_guards_each_signal() {
        let proc_root = Path::new("/proc");
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let start_time = stat(proc_root, pid).unwrap().unwrap().start_time;
        let number = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        let mut target = Target { proc_root, pid, start_time: start_time + 1, number, descriptor: None };
        assert_eq!(target.send(Signal::KILL), Err(No::Gone("it has ended")), "the number is another's");
        assert!(child.try_wait().unwrap().is_none(), "nothing was sent");
        target.start_time = start_time;
        assert!(matches!(target.now(), Ok(Some(_))));
        assert_eq!(target.send(Signal::TERM), Ok(()));
        assert!(target.gone_within(Duration::from_secs(20)).await, "a zombie has ended");
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_cannot_end_is_said_to_remain() {
        let WorkResult::Killed { end, steps } = after_signals(Ok(Some('D')), "KILL", Vec::new()) else {
            panic!()
        };
        assert_eq!(end, KillEnd::Remains { state: 'D' });
        assert!(steps[0].contains("waits in the kernel"), "{steps:?}");
        assert!(matches!(after_signals(Err("x".to_owned()), "KILL", Vec::new()), WorkResult::Ambiguous(_)));
    }
}
