//! The one way in which the product starts another program.
//!
//! Argument vector only, never a shell; own process group; standard input empty or given whole; an environment that
//! holds a named few variables and nothing else; a deadline, after which the whole group gets TERM, a
//! grace period, then KILL; bounded capture. A child that outlives the program and keeps its output
//! open cannot hang the caller, and dropping the future kills the group.

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

/// Search path that every program gets; it is not the path by which the program itself is found.
pub const SAFE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How often an exit is looked for while somebody still holds the output open.
const POLL: Duration = Duration::from_millis(20);
/// How long output may go on after the program itself has ended.
const LINGER: Duration = Duration::from_millis(250);
/// How long a killed group may take to vanish before its pipes are abandoned.
const AFTER_KILL: Duration = Duration::from_millis(500);

/// A program to start: what, with which arguments, for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Its arguments, each one word to the program whatever it holds.
    pub args: Vec<String>,
    /// Variables besides `LC_ALL=C` and `PATH`; these win over both.
    pub env: BTreeMap<String, String>,
    /// What it reads from its standard input.
    pub input: Vec<u8>,
    /// Time from the start until the group gets TERM.
    pub deadline: Duration,
    /// Time between TERM and KILL.
    pub grace: Duration,
    /// Bytes kept of each output stream; the rest is read and dropped.
    pub max_output: usize,
}

impl Program {
    /// Names a program by its absolute path: 30 s deadline, 2 s grace, 16 MiB of each stream.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            input: Vec::new(),
            deadline: Duration::from_secs(30),
            grace: Duration::from_secs(2),
            max_output: 16 << 20,
        }
    }

    /// Appends one argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Appends several arguments.
    pub fn args<I>(mut self, args: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds one variable to the environment.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Gives it something to read: what must not be an argument, which everybody on the host can see.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Sets the deadline.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the time between TERM and KILL.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets how many bytes of each stream are kept.
    pub fn max_output(mut self, bytes: usize) -> Self {
        self.max_output = bytes;
        self
    }

    /// Returns the command for people: the words, quoted where they need it. Never executed.
    pub fn display(&self) -> String {
        let mut out = self.program.display().to_string();
        for a in &self.args {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,:/@%+".contains(c);
            out.push(' ');
            if !a.is_empty() && a.chars().all(plain) {
                out.push_str(a);
            } else {
                out.push_str(&format!("{a:?}"));
            }
        }
        out
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// Says whether the program returned 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(c) => write!(f, "exit code {c}"),
            Self::Signal(s) => write!(f, "signal {s}"),
        }
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        // A status without code is a signal; a status with neither cannot come from a wait for an exit.
        status.code().map_or_else(|| Self::Signal(status.signal().unwrap_or(0)), Self::Code)
    }
}

/// A program that ended by itself before its deadline, whatever its exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub exit: Exit,
    /// Standard output, up to the limit.
    pub stdout: Vec<u8>,
    /// Standard error, up to the limit.
    pub stderr: Vec<u8>,
    /// More output came than was kept: a reader must not conclude anything from what is missing.
    pub truncated: bool,
    /// A child outlived the program and held its output open; its group was killed.
    pub left_behind: bool,
    /// From start to exit.
    pub elapsed: Duration,
}

/// Why there is no exit code.
#[derive(Debug, Error)]
pub enum RunError {
    /// The path is not absolute, so which program it names would depend on the surroundings.
    #[error("{} is not an absolute path; give the full path of the program", program.display())]
    NotAbsolute {
        /// The path.
        program: PathBuf,
    },
    /// No such program, or its interpreter does not exist.
    #[error("{} (or its interpreter) does not exist; check the configured path", program.display())]
    NotFound {
        /// The path.
        program: PathBuf,
    },
    /// It exists and may not be executed by this user.
    #[error("{} may not be executed by this user; check its mode and owner", program.display())]
    NotPermitted {
        /// The path.
        program: PathBuf,
    },
    /// It could not be started for another reason.
    #[error("could not start {}", program.display())]
    Spawn {
        /// The path.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It did not end before the deadline; the group was ended. What it did is not known.
    #[error("{} did not end within {} ms and was stopped", program.display(), elapsed.as_millis())]
    TimedOut {
        /// The path.
        program: PathBuf,
        /// From start to the end of the group.
        elapsed: Duration,
        /// Standard output so far.
        stdout: Vec<u8>,
        /// Standard error so far.
        stderr: Vec<u8>,
    },
    /// Its end or its output could not be read. What it did is not known.
    #[error("lost track of {}", program.display())]
    Io {
        /// The path.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl RunError {
    /// Says whether the program certainly did nothing: it was never started.
    pub fn never_started(&self) -> bool {
        match self {
            Self::NotAbsolute { .. }
            | Self::NotFound { .. }
            | Self::NotPermitted { .. }
            | Self::Spawn { .. } => true,
            Self::TimedOut { .. } | Self::Io { .. } => false,
        }
    }
}

/// One captured stream.
struct Capture {
    bytes: Vec<u8>,
    limit: usize,
    dropped: bool,
}

impl Capture {
    fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit, dropped: false }
    }

    /// Reads to the end; keeps what fits and drops the rest, so that the writer never blocks.
    async fn fill(&mut self, mut from: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut chunk = vec![0_u8; 16 << 10];
        loop {
            let n = from.read(&mut chunk).await?;
            if n == 0 {
                return Ok(());
            }
            let room = self.limit.saturating_sub(self.bytes.len()).min(n);
            self.bytes.extend_from_slice(&chunk[..room]);
            self.dropped |= room < n;
        }
    }
}

/// The group of a started program. Kills it on drop, so that a cancelled caller leaves nothing behind.
struct Group {
    id: Pid,
    armed: bool,
}

impl Group {
    fn send(&self, signal: Signal) {
        // ESRCH only: the group has already gone, which is what was wanted.
        let _ = killpg(self.id, signal);
    }

    /// Says whether the leader has ended, without reaping it: while it is not reaped its id cannot
    /// become somebody else's, so a later signal to the group cannot hit a stranger.
    fn leader_ended(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        !matches!(waitid(Id::Pid(self.id), flags), Ok(WaitStatus::StillAlive))
    }

    /// Asks the group to end, waits for `gone` or the grace, then kills what is left of it.
    async fn end(&self, grace: Duration, gone: impl Future<Output = ()>) {
        self.send(Signal::SIGTERM);
        let _ = timeout(grace, gone).await;
        self.send(Signal::SIGKILL);
    }

    async fn wait_leader(&self) {
        while !self.leader_ended() {
            sleep(POLL).await;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.armed {
            self.send(Signal::SIGKILL);
        }
    }
}

/// Runs a program to its end.
///
/// Any exit code, and an end by signal, is a [`Finished`]. After an error for which
/// [`RunError::never_started`] is false the program may have done all, part or nothing of its work.
pub async fn run(p: &Program) -> Result<Finished, RunError> {
    if !p.program.is_absolute() {
        return Err(RunError::NotAbsolute { program: p.program.clone() });
    }
    let io_error = |source| RunError::Io { program: p.program.clone(), source };
    let started = Instant::now();
    let deadline = started + p.deadline;
    let mut child = spawn(p, deadline).await?;
    let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) else {
        return Err(io_error(io::Error::other("the started program has no process id")));
    };
    // Declared after the child: dropped before it, so the group is killed while its id is still ours.
    let mut group = Group { id: Pid::from_raw(id), armed: true };
    let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io_error(io::Error::other("the started program has no output pipes")));
    };

    let stdin = child.stdin.take();
    let mut stdout = Capture::new(p.max_output);
    let mut stderr = Capture::new(p.max_output);
    let mut left_behind = false;
    let status = {
        let feed = async {
            if let Some(mut stdin) = stdin {
                // Whoever does not read all of it has its reason, and tells it by its exit.
                let _ = stdin.write_all(&p.input).await;
            }
        };
        let pumps = async {
            let (read, ()) =
                tokio::join!(async { tokio::try_join!(stdout.fill(out), stderr.fill(err)) }, feed);
            read
        };
        tokio::pin!(pumps);
        let first = tokio::select! {
            biased;
            closed = &mut pumps => Progress::OutputClosed(closed),
            () = group.wait_leader() => Progress::Ended,
            () = sleep_until(deadline) => Progress::Late,
        };
        match first {
            Progress::OutputClosed(result) => {
                result.map_err(io_error)?;
                // The program may have closed its output and still run.
                match timeout_at(deadline, child.wait()).await {
                    Ok(status) => Some(status),
                    Err(_) => {
                        group.end(p.grace, group.wait_leader()).await;
                        None
                    }
                }
            }
            Progress::Ended => {
                if timeout(LINGER, &mut pumps).await.is_err() {
                    left_behind = true;
                    group.send(Signal::SIGKILL);
                    // A holder that left the group keeps the pipe; what it says is not the program's output.
                    let _ = timeout(AFTER_KILL, &mut pumps).await;
                }
                Some(child.wait().await)
            }
            Progress::Late => {
                let gone = async {
                    let _ = tokio::join!(&mut pumps, group.wait_leader());
                };
                group.end(p.grace, gone).await;
                None
            }
        }
    };
    if let Some(status) = status {
        let status = status.map_err(io_error)?;
        group.armed = false;
        return Ok(Finished {
            exit: status.into(),
            truncated: stdout.dropped || stderr.dropped,
            stdout: stdout.bytes,
            stderr: stderr.bytes,
            left_behind,
            elapsed: started.elapsed(),
        });
    }
    // KILL cannot be refused, but a process in an uninterruptible wait (a dead GPU, a dead disk) takes it
    // late: then it is left to the runtime's reaper.
    if timeout(AFTER_KILL, child.wait()).await.is_ok() {
        group.armed = false;
    }
    Err(RunError::TimedOut {
        program: p.program.clone(),
        elapsed: started.elapsed(),
        stdout: stdout.bytes,
        stderr: stderr.bytes,
    })
}

/// What came first of a started program.
enum Progress {
    /// Both output streams ended, or could not be read.
    OutputClosed(io::Result<((), ())>),
    /// The program ended while somebody still holds its output.
    Ended,
    /// The deadline passed.
    Late,
}

/// Starts the program. A program file that is being replaced right now is tried again until the deadline.
async fn spawn(p: &Program, deadline: Instant) -> Result<Child, RunError> {
    loop {
        let started = Command::new(&p.program)
            .args(&p.args)
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", SAFE_PATH)
            .envs(&p.env)
            .current_dir("/")
            .stdin(if p.input.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let source = match started {
            Ok(child) => return Ok(child),
            Err(e) => e,
        };
        let program = p.program.clone();
        match source.kind() {
            io::ErrorKind::ExecutableFileBusy if Instant::now() + POLL < deadline => sleep(POLL).await,
            io::ErrorKind::NotFound => return Err(RunError::NotFound { program }),
            io::ErrorKind::PermissionDenied => return Err(RunError::NotPermitted { program }),
            _ => return Err(RunError::Spawn { program, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn sh(script: &str) -> Program {
        Program::new("/bin/sh").args(["-c", script]).grace(Duration::from_millis(300))
    }

    fn alive(pid: &str) -> bool {
        // A zombie still has its directory, but no command line.
        std::fs::read(Path::new("/proc").join(pid.trim()).join("cmdline")).is_ok_and(|c| !c.is_empty())
    }

    async fn gone(pid: &str) -> bool {
        for _ in 0..100 {
            if !alive(pid) {
                return true;
            }
            sleep(POLL).await;
        }
        false
    }

    #[tokio::test]
    async fn exit_code_and_both_streams_come_back() {
        let f = run(&sh("echo out; echo err >&2; exit 7")).await.unwrap();
        assert_eq!(f.exit, Exit::Code(7));
        assert_eq!((f.stdout.as_slice(), f.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
        assert!(!f.truncated && !f.left_behind && !f.exit.success());
    }

    #[tokio::test]
    async fn a_signal_is_not_an_exit_code() {
        let f = run(&sh("kill -9 $$")).await.unwrap();
        assert_eq!(f.exit, Exit::Signal(9));
    }

    #[tokio::test]
    async fn arguments_are_single_words_and_never_shell() {
        let word = "a b; touch x $(id) `id` \"'\n*";
        let f = run(&Program::new("/usr/bin/printf").args(["%s", word])).await.unwrap();
        assert_eq!(f.stdout, word.as_bytes());
    }

    #[tokio::test]
    async fn environment_holds_the_named_few_and_stdin_is_empty() {
        let f = run(&Program::new("/usr/bin/env").env("SLURM_CONF", "/etc/slurm/slurm.conf")).await.unwrap();
        let mut lines: Vec<String> =
            String::from_utf8(f.stdout).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        let path = format!("PATH={SAFE_PATH}");
        assert_eq!(lines, ["LC_ALL=C", path.as_str(), "SLURM_CONF=/etc/slurm/slurm.conf"]);
        let f = run(&Program::new("/bin/cat").deadline(Duration::from_secs(5))).await.unwrap();
        assert!(f.exit.success() && f.stdout.is_empty());
    }

    #[tokio::test]
    async fn what_is_given_is_read_whole_and_nobody_must_read_it() {
        let much: Vec<u8> = (0..1_000_000_u32).map(|i| i as u8).collect();
        let f = run(&Program::new("/bin/cat").input(much.clone())).await.unwrap();
        assert!(f.exit.success() && f.stdout == much);
        let f = run(&sh("exec <&-; echo done").input(much.clone())).await.unwrap();
        assert_eq!((f.exit, f.stdout.as_slice()), (Exit::Code(0), &b"done\n"[..]));
        let late = Program::new("/bin/sleep").arg("60").input(much).deadline(Duration::from_millis(200));
        assert!(matches!(run(&late).await, Err(RunError::TimedOut { .. })));
    }

    #[tokio::test]
    async fn what_cannot_start_says_why() {
        let e = run(&Program::new("/no/such/program")).await.unwrap_err();
        assert!(matches!(e, RunError::NotFound { .. }) && e.never_started(), "{e}");
        let e = run(&Program::new("/etc/passwd")).await.unwrap_err();
        assert!(matches!(e, RunError::NotPermitted { .. }) && e.never_started(), "{e}");
        let e = run(&Program::new("sh")).await.unwrap_err();
        assert!(matches!(e, RunError::NotAbsolute { .. }) && e.never_started(), "{e}");
        let e = run(&Program::new("/bin/sh").arg("a\0b")).await.unwrap_err();
        assert!(matches!(e, RunError::Spawn { .. }), "{e}");
    }

    #[tokio::test]
    async fn the_deadline_ends_a_group_that_ignores_term() {
        let p = sh("trap '' TERM; sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & wait")
            .deadline(Duration::from_millis(300));
        let started = std::time::Instant::now();
        let Err(RunError::TimedOut { stdout, .. }) = run(&p).await else { panic!("must time out") };
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        let pid = String::from_utf8(stdout).unwrap();
        assert!(!pid.trim().is_empty());
        assert!(gone(&pid).await, "grandchild {pid} still runs");
    }

    #[tokio::test]
    async fn term_lets_a_program_say_its_last_words() {
        let p = sh("trap 'echo bye; exit 3' TERM; while :; do sleep 0.02; done")
            .deadline(Duration::from_millis(200))
            .grace(Duration::from_secs(5));
        let started = std::time::Instant::now();
        let Err(RunError::TimedOut { stdout, .. }) = run(&p).await else { panic!("must time out") };
        assert_eq!(stdout, b"bye\n");
        assert!(started.elapsed() < Duration::from_secs(3), "the grace was waited out");
    }

    #[tokio::test]
    async fn a_program_that_closes_its_output_still_has_a_deadline() {
        let p = sh("exec >&- 2>&-; exec sleep 60").deadline(Duration::from_millis(200));
        assert!(matches!(run(&p).await, Err(RunError::TimedOut { .. })));
    }

    #[tokio::test]
    async fn a_grandchild_that_holds_the_pipe_neither_hangs_nor_stays() {
        let started = std::time::Instant::now();
        let f = run(&sh("sleep 600 & echo $!; exit 0")).await.unwrap();
        assert!(f.exit.success() && f.left_behind);
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        assert!(gone(&String::from_utf8(f.stdout).unwrap()).await);
    }

    #[tokio::test]
    async fn a_holder_outside_the_group_cannot_hang_us() {
        let started = std::time::Instant::now();
        let f = run(&sh("setsid sleep 3 & sleep 0.1; echo done")).await.unwrap();
        assert!(f.exit.success() && f.left_behind);
        assert_eq!(f.stdout, b"done\n");
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn huge_output_is_read_to_its_end_and_mostly_dropped() {
        let p = sh("head -c 50000000 /dev/zero; echo end >&2").max_output(1000);
        let f = run(&p).await.unwrap();
        assert!(f.exit.success() && f.truncated);
        assert_eq!((f.stdout.len(), f.stderr.as_slice()), (1000, &b"end\n"[..]));
    }

    #[tokio::test]
    async fn endless_output_meets_the_deadline() {
        let p = Program::new("/usr/bin/yes").deadline(Duration::from_millis(200)).max_output(10);
        let Err(RunError::TimedOut { stdout, .. }) = run(&p).await else { panic!("must time out") };
        assert_eq!(stdout, b"y\ny\ny\ny\ny\n");
    }

    #[tokio::test]
    async fn a_dropped_future_kills_the_group() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let script = "sleep 600 & echo $! > \"$0\"; wait";
        let p = Program::new("/bin/sh").args(["-c", script, file.path().to_str().unwrap()]);
        let task = tokio::spawn(async move { run(&p).await });
        let mut pid = String::new();
        for _ in 0..100 {
            sleep(POLL).await;
            pid = std::fs::read_to_string(file.path()).unwrap();
            if pid.ends_with('\n') {
                break;
            }
        }
        assert!(alive(&pid), "not started");
        task.abort();
        assert!(gone(&pid).await, "grandchild {pid} still runs");
    }

    #[test]
    fn commands_for_people_show_where_words_end() {
        let p = Program::new("/usr/bin/scontrol").args(["update", "Reason=two words", ""]);
        assert_eq!(p.display(), r#"/usr/bin/scontrol update "Reason=two words" """#);
    }
}
