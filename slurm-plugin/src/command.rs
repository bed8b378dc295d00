//! Programs of others, with fixed arguments, an end and a bound on what they say. A program that does not end is killed
//! and left alone: one in the middle of a system call cannot be waited for.

use std::io::{ErrorKind, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The most that is read of what a program says, in bytes.
const MAX_OUTPUT: usize = 64 * 1024;

/// Runs a program and returns what it wrote to stdout and stderr. Fails unless it exits with 0 in time.
pub(crate) fn run(
    program: &Path,
    args: &[&str],
    env: &[(&str, &Path)],
    end: Instant,
) -> Result<String, String> {
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (ours, theirs) = UnixStream::pair().map_err(|e| format!("{name}: {e}"))?;
    let theirs = OwnedFd::from(theirs);
    let second = theirs.try_clone().map_err(|e| format!("{name}: {e}"))?;
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::from(theirs))
        .stderr(Stdio::from(second))
        .spawn()
        .map_err(|e| format!("{}: {e}", program.display()))?;
    let mut said = Vec::new();
    if let Err(why) = read_to_end(ours, &mut said, end) {
        let _ = child.kill();
        return Err(format!("{name} {why}"));
    }
    // It has closed its output; what is left is its end, which may still take a moment or forever.
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_micros(200)),
            Ok(None) => {
                let _ = child.kill();
                return Err(format!("{name} does not come to an end"));
            }
            Err(e) => return Err(format!("{name}: {e}")),
        }
    };
    let text = String::from_utf8_lossy(&said).into_owned();
    if status.success() {
        return Ok(text);
    }
    let mut last = crate::talk::tame(text.trim());
    crate::talk::cut(&mut last, 200);
    let how = status.code().map_or_else(|| "a signal".to_owned(), |c| format!("exit code {c}"));
    Err(format!("{name} ended with {how}: {last}"))
}

fn read_to_end(mut from: UnixStream, to: &mut Vec<u8>, end: Instant) -> Result<(), String> {
    let mut buffer = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("does not answer".to_owned());
        }
        from.set_read_timeout(Some(left)).map_err(|e| e.to_string())?;
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) if to.len() + n > MAX_OUTPUT => {
                return Err(format!("says more than {} KiB", MAX_OUTPUT / 1024));
            }
            Ok(n) => to.extend_from_slice(&buffer[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err("does not answer".to_owned());
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, ms: u64) -> Result<String, String> {
        run(Path::new("/bin/sh"), &["-c", script], &[], Instant::now() + Duration::from_millis(ms))
    }

    #[test]
    fn what_it_says_comes_back_and_what_hangs_does_not() {
        assert_eq!(sh("echo hello; echo there >&2", 5_000).unwrap(), "hello\nthere\n");
        assert!(sh("echo no >&2; exit 3", 5_000).unwrap_err().contains("exit code 3: no"));
        let began = Instant::now();
        assert!(sh("sleep 30", 100).unwrap_err().contains("does not answer"));
        assert!(sh("exec >/dev/null 2>&1; sleep 30", 100).unwrap_err().contains("does not come to an end"));
        assert!(began.elapsed() < Duration::from_secs(5));
        assert!(sh("yes", 5_000).unwrap_err().contains("says more than"));
        assert!(run(Path::new("/no/such/tool"), &[], &[], began).unwrap_err().contains("/no/such/tool"));
    }
}
