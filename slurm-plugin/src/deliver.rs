//! Delivery: one POST to the engine, over its socket or over plain HTTP with a signature.

use crate::alert::hex;
use crate::config::{Config, Engine};
use crate::http;
use hmac::{Hmac, KeyInit as _, Mac as _};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use sha2::Sha256;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

/// The largest secret, in bytes.
const MAX_SECRET: u64 = 4_096;

/// Why a report was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// There is no engine, or it is busy: the report waits.
    Away(String),
    /// This host may not report: the report waits, and a person must look.
    Denied(String),
    /// The engine does not understand it: sending it again would not help.
    Refused(String),
}

impl NotTaken {
    /// The sentence.
    pub(crate) fn why(&self) -> &str {
        match self {
            Self::Away(why) | Self::Denied(why) | Self::Refused(why) => why,
        }
    }
}

/// Sends alerts, given as lines.
pub(crate) fn post(config: &Config, lines: &str, end: Instant) -> Result<(), NotTaken> {
    let Some(engine) = &config.engine else {
        return Err(NotTaken::Away("no engine is configured".to_owned()));
    };
    let body = format!("[{}]", lines.lines().collect::<Vec<_>>().join(","));
    let mut head = format!(
        "POST {} HTTP/1.1\r\nHost: slurmedic\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n",
        config.engine_path,
        body.len()
    );
    if let Some(path) = &config.secret_file {
        let key = secret(path).map_err(NotTaken::Denied)?;
        let time = crate::time::now_ms() / 1000;
        head.push_str(&signature(&key, time, &body));
    }
    if let Some(path) = &config.token_file {
        let token = secret(path).map_err(NotTaken::Denied)?;
        let token = String::from_utf8(token).unwrap_or_default();
        if !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(NotTaken::Denied(format!("{} holds no token", path.display())));
        }
        head.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    let request = format!("{head}\r\n{body}");
    let (to, answer) = match engine {
        Engine::Unix(path) => (
            path.display().to_string(),
            unix(path).and_then(|line| http::exchange(line, request.as_bytes(), end)),
        ),
        Engine::Tcp(address) => (
            address.to_string(),
            http::tcp(*address, end).and_then(|line| http::exchange(line, request.as_bytes(), end)),
        ),
    };
    let say = |what: String| format!("the engine at {to} {what}");
    match answer {
        Ok((200..=299, _)) => Ok(()),
        Ok((status @ (400 | 404 | 413 | 415 | 422), body)) => {
            let mut body = crate::talk::tame(body.trim());
            crate::talk::cut(&mut body, 200);
            let why = say(format!("refuses the report with status {status}: {body}"));
            // A wrong path is a mistake of the configuration, not of the report.
            Err(if status == 404 { NotTaken::Denied(why) } else { NotTaken::Refused(why) })
        }
        Ok((status @ (401 | 403), _)) => {
            Err(NotTaken::Denied(say(format!("does not accept this host (status {status})"))))
        }
        Ok((status, _)) => Err(NotTaken::Away(say(format!("answers with status {status}")))),
        Err(why) => Err(NotTaken::Away(say(why))),
    }
}

/// The lines of a signed request: the time, and the HMAC-SHA256 of `TIME:BODY`.
fn signature(key: &[u8], time: u64, body: &str) -> String {
    let mut mac = match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mac) => mac,
        // HMAC takes keys of any length.
        Err(_) => return String::new(),
    };
    mac.update(format!("{time}:{body}").as_bytes());
    let code = hex(&mac.finalize().into_bytes());
    format!("X-Slurmedic-Timestamp: {time}\r\nX-Slurmedic-Signature: sha256={code}\r\n")
}

/// Reads a secret; a file that others may read is refused, as the engine does it.
fn secret(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let fail = |e: std::io::Error| format!("{shown}: {e}");
    let file = std::fs::File::open(path).map_err(fail)?;
    let meta = file.metadata().map_err(fail)?;
    if meta.mode() & 0o077 != 0 {
        return Err(format!("{shown} may be read by others: run `chmod 600 {shown}`"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_SECRET + 1).read_to_end(&mut bytes).map_err(fail)?;
    while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
        bytes.pop();
    }
    if bytes.len() < 16 || bytes.len() as u64 > MAX_SECRET {
        return Err(format!("{shown} has {} bytes; 16 to {MAX_SECRET} are taken", bytes.len()));
    }
    Ok(bytes)
}

/// Connects without waiting: a stopped engine whose queue is full would keep an ordinary connect waiting forever.
fn unix(path: &Path) -> Result<UnixStream, String> {
    let fail = |e: nix::Error| match e {
        nix::Error::EAGAIN => "does not answer".to_owned(),
        nix::Error::ENOENT | nix::Error::ECONNREFUSED => "is not there".to_owned(),
        e => format!("is not reached: {}", e.desc()),
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(fail)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path).map_err(fail)?).map_err(fail)?;
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false).map_err(|e| e.to_string())?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_standard() {
        // RFC 4231 does not cover a dated text, so the expected code was made by `openssl dgst -sha256 -hmac`.
        let lines = signature(b"0123456789abcdef", 1_795_012_345, "[]");
        assert_eq!(
            lines,
            "X-Slurmedic-Timestamp: 1795012345\r\nX-Slurmedic-Signature: sha256=26318a5be00e8440a83a3e3c733ebe0963d479140b86939b16052c9cc56dfd2e\r\n"
        );
    }
}
