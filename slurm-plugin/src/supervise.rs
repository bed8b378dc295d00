//! The half of a check that never hangs: starts a worker, listens no longer than allowed, and gives up on it otherwise.
//!
//! A thread would not do: one that sits in a system call on a dead file system keeps its whole process from ending, and
//! whoever started that process waits with it.

use crate::config::{CheckLine, Config};
use crate::finding::{CHECK_FAILED, Finding};
use crate::mode::Mode;
use crate::worker;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The most that one worker may say, in bytes.
const MAX_SAID: usize = 512 * 1024;

/// What came of one check.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Name of the check.
    pub(crate) name: String,
    /// What is wrong with the node.
    pub(crate) findings: Vec<Finding>,
    /// What is wrong with the check itself.
    pub(crate) trouble: Option<Finding>,
    /// A few words for people.
    pub(crate) note: String,
    /// Where its next look begins.
    pub(crate) cursor: Option<String>,
    /// Whether it came to its end, so that what it did not find is not there.
    pub(crate) complete: bool,
    /// How long it took.
    pub(crate) took: Duration,
    /// The process that still hangs in it, as [`still_there`] names it.
    pub(crate) stuck: Option<String>,
}

impl Outcome {
    fn new(check: &CheckLine) -> Self {
        Self {
            name: check.name.clone(),
            findings: Vec::new(),
            trouble: None,
            note: String::new(),
            cursor: None,
            complete: false,
            took: Duration::ZERO,
            stuck: None,
        }
    }

    fn hung(&mut self, check: &CheckLine, why: &str) {
        match check.check.hangs() {
            Some(finding) => self.findings.push(finding),
            None => self.failed(why),
        }
    }

    fn failed(&mut self, why: impl Into<String>) {
        let text = format!("check {}: {}", self.name, why.into());
        self.trouble = Some(Finding::now(CHECK_FAILED, self.name.clone(), text));
    }
}

/// Makes the checks that belong to a mode, in their order. Ends when the deadline of the configuration does. A check in
/// which a process of an earlier look still hangs is not begun again: each look would leave one more behind.
pub(crate) fn look(
    config: &Config,
    mode: Mode,
    node: &str,
    cursors: &BTreeMap<String, String>,
    stuck: &BTreeMap<String, String>,
) -> Vec<Outcome> {
    let end = Instant::now() + config.deadline;
    let mut out = Vec::new();
    let mut rest = Vec::new();
    for check in config.checks.iter().filter(|c| c.on.contains(&mode)) {
        match stuck.get(&check.name).filter(|s| is_still_there(s)) {
            Some(process) => {
                let mut outcome = Outcome::new(check);
                outcome.hung(check, &format!("process {process} of an earlier look still hangs in it"));
                outcome.stuck = Some(process.clone());
                out.push(outcome);
            }
            None => rest.push(check),
        }
    }
    while !rest.is_empty() {
        if Instant::now() >= end {
            for check in rest {
                let mut outcome = Outcome::new(check);
                outcome.failed("the time of all checks was used up before its turn");
                out.push(outcome);
            }
            break;
        }
        let done = batch(config, mode, node, cursors, &rest, end);
        rest.drain(..done.len());
        out.extend(done);
    }
    out
}

/// Lets one worker do as much as it can. Returns at least one outcome.
fn batch(
    config: &Config,
    mode: Mode,
    node: &str,
    cursors: &BTreeMap<String, String>,
    checks: &[&CheckLine],
    end: Instant,
) -> Vec<Outcome> {
    let limit = |c: &CheckLine| c.deadline.unwrap_or(config.check_deadline);
    let orders = checks.iter().map(|c| {
        let left = end.saturating_duration_since(Instant::now());
        worker::order(limit(c).min(left), cursors.get(&c.name).map(String::as_str), &c.text)
    });
    let Some(first) = checks.first() else { return Vec::new() };
    let mut current = Outcome::new(first);
    let (mut child, lines) = match start(mode, node, orders) {
        Ok(started) => started,
        Err(e) => {
            current.failed(format!("its process does not start: {e}"));
            return vec![current];
        }
    };
    let mut lines = Lines { from: lines, held: Vec::new(), said: 0 };
    let mut out: Vec<Outcome> = Vec::new();
    let mut began = Instant::now();
    for check in checks {
        current = Outcome::new(check);
        let stop = (began + limit(check)).min(end);
        match follow(&mut lines, &mut current, stop) {
            Followed::Ended => {
                began = Instant::now();
                current.complete = current.trouble.is_none();
                out.push(current);
            }
            Followed::Late => {
                current.took = began.elapsed();
                current.hung(check, &format!("it does not end within {:?}", limit(check)));
                give_up(&mut child);
                current.stuck = still_there(child.id());
                out.push(current);
                return out;
            }
            Followed::Broken(why) => {
                current.failed(why);
                out.push(current);
                break;
            }
        }
    }
    give_up(&mut child);
    out
}

enum Followed {
    Ended,
    Late,
    Broken(String),
}

/// Listens to one check until it ends.
fn follow(lines: &mut Lines, outcome: &mut Outcome, stop: Instant) -> Followed {
    loop {
        let line = match lines.next(stop) {
            Next::Line(line) => line,
            Next::Late => return Followed::Late,
            Next::Broken(why) => return Followed::Broken(why),
        };
        let (kind, rest) = line.split_once('\t').unwrap_or((&line, ""));
        match kind {
            "B" => {}
            "F" => match worker::decode(rest) {
                Some(finding) => outcome.findings.push(finding),
                None => return Followed::Broken("its process says something odd".to_owned()),
            },
            "T" => outcome.failed(rest),
            "C" => outcome.cursor = Some(rest.to_owned()),
            "N" => outcome.note = rest.to_owned(),
            "E" => {
                outcome.took = Duration::from_micros(rest.parse().unwrap_or(0));
                return Followed::Ended;
            }
            _ => return Followed::Broken("its process says something odd".to_owned()),
        }
    }
}

/// Starts this program again as a worker in a process group of its own, with nothing of ours in its hands but one end
/// of a socket.
fn start(
    mode: Mode,
    node: &str,
    orders: impl Iterator<Item = String>,
) -> std::io::Result<(Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    let child = Command::new("/proc/self/exe")
        .args(["--worker", mode.as_str()])
        .args(orders)
        .env(worker::NODE, node)
        .stdin(Stdio::null())
        .stdout(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    Ok((child, ours))
}

/// Ends the worker and what it started, and collects it if it goes within a moment. Nobody waits longer: what cannot be
/// killed is left to the system.
fn give_up(child: &mut Child) {
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    for _ in 0..40 {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_micros(50)),
            Ok(Some(_)) | Err(_) => return,
        }
    }
}

/// Names a killed process that does not die, by its number and its start, after a moment in which it could.
fn still_there(pid: u32) -> Option<String> {
    for _ in 0..10 {
        match start_of(pid) {
            None => return None,
            Some(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    start_of(pid).map(|start| format!("{pid} {start}"))
}

fn is_still_there(process: &str) -> bool {
    let Some((pid, start)) = process.split_once(' ') else { return false };
    pid.parse().ok().and_then(start_of).is_some_and(|s| s == start)
}

/// When a process started, in ticks since boot; nothing for one that is gone or only waits to be collected.
fn start_of(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18).map(str::to_owned)).flatten()
}

enum Next {
    Line(String),
    Late,
    Broken(String),
}

struct Lines {
    from: UnixStream,
    held: Vec<u8>,
    said: usize,
}

impl Lines {
    fn next(&mut self, stop: Instant) -> Next {
        let mut buffer = [0; 8192];
        loop {
            if let Some(at) = self.held.iter().position(|b| *b == b'\n') {
                let rest = self.held.split_off(at + 1);
                let line = std::mem::replace(&mut self.held, rest);
                return Next::Line(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            let left = stop.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Late;
            }
            if let Err(e) = self.from.set_read_timeout(Some(left)) {
                return Next::Broken(format!("its process cannot be listened to: {e}"));
            }
            match self.from.read(&mut buffer) {
                Ok(0) => return Next::Broken("its process ended in the middle".to_owned()),
                Ok(n) => {
                    self.said += n;
                    if self.said > MAX_SAID {
                        return Next::Broken("its process says too much".to_owned());
                    }
                    self.held.extend_from_slice(&buffer[..n]);
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Next::Late;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Next::Broken(format!("its process cannot be listened to: {e}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_in_which_a_process_still_hangs_is_not_begun_again() {
        let lines = "check mount path=/\ncheck throttle nvidia_smi=/no/such/tool\n";
        let (config, wrong) = crate::config::parse(lines);
        assert_eq!(wrong, []);
        let me = still_there(std::process::id()).unwrap();
        let stuck = |process: &str| {
            BTreeMap::from(
                [("mount:/", process), ("throttle", process)].map(|(n, p)| (n.to_owned(), p.to_owned())),
            )
        };
        let out = look(&config, Mode::Health, "gpu001", &BTreeMap::new(), &stuck(&me));
        assert_eq!(out[0].findings[0].fault, "mount-hang");
        assert!(out[1].trouble.as_ref().unwrap().text.contains("of an earlier look still hangs"), "{out:?}");
        assert!(out.iter().all(|o| o.stuck.as_deref() == Some(&*me) && !o.complete));
        // Its number alone may belong to somebody else by now.
        assert!(!is_still_there(&format!("{} 1", std::process::id())));
        assert!(!is_still_there("") && !is_still_there("999999999 1"));
    }

    #[test]
    fn a_dead_process_is_not_there() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(start_of(child.id()).is_some());
        child.kill().unwrap();
        assert_eq!(still_there(child.id()), None, "it waits to be collected");
        child.wait().unwrap();
        assert_eq!(still_there(child.id()), None);
    }
}
