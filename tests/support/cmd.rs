//! Runs a program to its end or its deadline.

use std::io::Read;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How a program ended.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    /// The command line, for messages.
    pub(crate) line: String,
    /// Exit code; 128 + signal if a signal ended it, as a shell says it.
    pub(crate) code: i32,
    /// Standard output, bytes that are no UTF-8 replaced.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
    /// Whether the deadline ended it.
    pub(crate) timed_out: bool,
}

impl Done {
    /// Requires exit 0 and gives the standard output.
    pub(crate) fn ok(self) -> String {
        assert!(self.code == 0, "{self}");
        self.out
    }

    /// Requires a failure and gives both streams.
    pub(crate) fn refused(self) -> String {
        assert!(self.code != 0 && !self.timed_out, "{self}");
        self.out + &self.err
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let late = if self.timed_out { " at its deadline" } else { "" };
        write!(
            f,
            "{}\nended with {}{late}\n--- out\n{}\n--- err\n{}",
            self.line, self.code, self.out, self.err
        )
    }
}

/// A program on its way, in a process group of its own, which is killed when this is dropped.
pub(crate) struct Running {
    line: String,
    child: Child,
    ended: bool,
    streams: Vec<JoinHandle<std::io::Result<Vec<u8>>>>,
}

impl Running {
    /// Starts it with an empty standard input.
    pub(crate) fn start(command: &mut Command) -> Self {
        fn drain(mut from: impl Read + Send + 'static) -> JoinHandle<std::io::Result<Vec<u8>>> {
            thread::spawn(move || {
                let mut all = Vec::new();
                from.read_to_end(&mut all).map(|_| all)
            })
        }
        let line = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {line}: {e}"));
        let streams = vec![drain(child.stdout.take().unwrap()), drain(child.stderr.take().unwrap())];
        Self { line, child, ended: false, streams }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the program alone, as a crash does: what it started lives on.
    pub(crate) fn crash(&mut self) {
        self.child.kill().unwrap();
    }

    fn kill_group(&self) {
        let group = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    }

    /// Waits for its end; the whole group is killed when the time is up.
    pub(crate) fn finish(mut self, limit: Duration) -> Done {
        let end = Instant::now() + limit;
        let mut timed_out = false;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() >= end {
                timed_out = true;
                self.kill_group();
                break self.child.wait().unwrap();
            }
            thread::sleep(Duration::from_millis(2));
        };
        self.ended = true;
        let mut texts = std::mem::take(&mut self.streams)
            .into_iter()
            .map(|t| String::from_utf8_lossy(&t.join().unwrap().unwrap()).into_owned());
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        let (out, err) = (texts.next().unwrap(), texts.next().unwrap());
        Done { line: std::mem::take(&mut self.line), code, out, err, timed_out }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // once it is reaped its number may belong to somebody else
        if !self.ended {
            self.kill_group();
            let _ = self.child.wait();
        }
    }
}

/// Runs a command to its end; its process group is killed when the time is up.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Done {
    Running::start(command).finish(limit)
}
