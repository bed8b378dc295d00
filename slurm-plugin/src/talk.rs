//! The only writer of this program: stdout for people, stderr and syslog for Slurm's logs. Bounded, and never waits.

use std::io::Write as _;
use std::os::unix::net::UnixDatagram;

/// The longest line that is written, in bytes.
const MAX_LINE: usize = 600;

/// Writes to stdout.
pub(crate) fn out(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Writes a line to stderr, which slurmd puts into its log.
pub(crate) fn err(line: &str) {
    let mut line = tame(line);
    cut(&mut line, MAX_LINE);
    let _ = writeln!(std::io::stderr().lock(), "slurmedic-hook: {line}");
}

/// Writes a line to syslog as daemon.warning; a syslog that does not take it at once does not get it.
pub(crate) fn syslog(line: &str) {
    let mut text = tame(line);
    cut(&mut text, MAX_LINE);
    let Ok(socket) = UnixDatagram::unbound() else { return };
    if socket.set_nonblocking(true).is_ok() {
        let _ = socket.send_to(format!("<28>slurmedic-hook: {text}").as_bytes(), "/dev/log");
    }
}

/// Makes text from outside one line of printable characters.
pub(crate) fn tame(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Cuts a text at a character boundary.
pub(crate) fn cut(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
}
