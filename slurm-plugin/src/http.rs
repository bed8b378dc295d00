//! Just enough HTTP/1.1: one request on one connection, with an end and a bound. No TLS, no name service.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// The largest answer, in bytes: the metrics of 16 GPUs with every field have about 1 MiB.
const MAX_ANSWER: usize = 8 << 20;

/// A connection whose waiting can be bounded.
pub(crate) trait Line: Read + Write {
    /// Bounds the next read and the next write.
    fn bound(&self, left: Duration) -> std::io::Result<()>;
}

impl Line for TcpStream {
    fn bound(&self, left: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(left))?;
        self.set_write_timeout(Some(left))
    }
}

impl Line for UnixStream {
    fn bound(&self, left: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(left))?;
        self.set_write_timeout(Some(left))
    }
}

fn left(end: Instant) -> Result<Duration, String> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err("does not answer in time".to_owned()) } else { Ok(left) }
}

fn why(e: &std::io::Error) -> String {
    match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "does not answer in time".to_owned(),
        ErrorKind::ConnectionRefused => "refuses the connection".to_owned(),
        _ => e.to_string(),
    }
}

/// Connects to an address.
pub(crate) fn tcp(address: SocketAddr, end: Instant) -> Result<TcpStream, String> {
    TcpStream::connect_timeout(&address, left(end)?).map_err(|e| why(&e))
}

/// Sends a request and returns status and body.
pub(crate) fn exchange(mut line: impl Line, request: &[u8], end: Instant) -> Result<(u16, String), String> {
    let mut rest = request;
    while !rest.is_empty() {
        line.bound(left(end)?).map_err(|e| why(&e))?;
        match line.write(rest) {
            Ok(0) => return Err("closes the connection".to_owned()),
            Ok(n) => rest = &rest[n..],
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(why(&e)),
        }
    }
    let mut answer = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        line.bound(left(end)?).map_err(|e| why(&e))?;
        match line.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) if answer.len() + n > MAX_ANSWER => {
                return Err(format!("answers with more than {} MiB", MAX_ANSWER >> 20));
            }
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(why(&e)),
        }
        if is_whole(&answer) {
            break;
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or("closes the connection without an answer")?;
    let status = head
        .strip_prefix("HTTP/1.")
        .and_then(|h| h.get(2..5))
        .and_then(|s| s.parse().ok())
        .ok_or("does not speak HTTP")?;
    Ok((status, body.to_owned()))
}

/// Whether the length that the answer names has arrived; one without a length ends with its connection.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]);
    let length = head.lines().find_map(|l| {
        let (key, value) = l.split_once(':')?;
        if key.eq_ignore_ascii_case("content-length") { value.trim().parse::<usize>().ok() } else { None }
    });
    length.is_some_and(|n| answer.len() >= end + 4 + n)
}

/// Gets a page; anything but 200 is an error.
pub(crate) fn get(address: SocketAddr, path: &str, end: Instant) -> Result<String, String> {
    // Asked as HTTP/1.0, so that the answer is neither in chunks nor compressed.
    let request =
        format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: text/plain\r\nConnection: close\r\n\r\n");
    match exchange(tcp(address, end)?, request.as_bytes(), end)? {
        (200, body) => Ok(body),
        (status, _) => Err(format!("answers with status {status}")),
    }
}
