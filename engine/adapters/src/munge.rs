//! munge: seals and opens short texts by the programs `munge` and `unmunge`, which ask the munged of this host.
//!
//! munged opens a credential once; a second time, and after its life, it says so. All of a realm share one key: root on one
//! host can make a credential of any user of any host. What follows from that is in docs/decisions/009.

use crate::process::{self, Exit, Program};
use async_trait::async_trait;
use engine_core::model::NodeName;
use engine_runtime::orders::{BadSeal, Opened, Seals};
use jiff::SignedDuration;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Time for one call.
const LIMIT: Duration = Duration::from_secs(10);
/// Life of a credential, in seconds: for the way to the engine and for clocks that are apart.
const LIFE: &str = "120";
/// The largest credential that is opened, in bytes.
const MAX_CREDENTIAL: usize = 8 << 10;
/// The largest answer, in bytes.
const MAX_OUTPUT: usize = 32 << 10;

/// Where munge is. The section `[munge]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MungeConfig {
    /// Absolute path of `munge`.
    pub munge: PathBuf,
    /// Absolute path of `unmunge`.
    pub unmunge: PathBuf,
    /// Socket of munged; its usual one where not set.
    pub socket: Option<PathBuf>,
}

impl Default for MungeConfig {
    fn default() -> Self {
        Self { munge: "/usr/bin/munge".into(), unmunge: "/usr/bin/unmunge".into(), socket: None }
    }
}

/// The munge of this host.
#[derive(Debug, Clone)]
pub struct Munge {
    config: MungeConfig,
}

impl Munge {
    /// Builds it; asks nobody.
    pub fn new(config: MungeConfig) -> Self {
        Self { config }
    }

    async fn call(&self, program: Program) -> Result<(Exit, Vec<u8>, String), BadSeal> {
        let mut program = program.deadline(LIMIT).max_output(MAX_OUTPUT);
        if let Some(socket) = &self.config.socket {
            program = program.arg(format!("--socket={}", socket.display()));
        }
        let done = process::run(&program).await.map_err(|e| BadSeal(format!("{e}: is munge installed?")))?;
        if done.truncated {
            return Err(BadSeal("munge answers with very much".to_owned()));
        }
        let said: String = String::from_utf8_lossy(&done.stderr)
            .trim()
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
        Ok((done.exit, done.stdout, said))
    }
}

#[async_trait]
impl Seals for Munge {
    async fn seal(&self, payload: &str, for_uid: Option<u32>) -> Result<String, BadSeal> {
        let mut program = Program::new(&self.config.munge).arg(format!("--ttl={LIFE}")).input(payload);
        if let Some(uid) = for_uid {
            program = program.arg(format!("--restrict-uid={uid}"));
        }
        let (exit, out, said) = self.call(program).await?;
        let text = String::from_utf8(out).unwrap_or_default().trim().to_owned();
        if exit.success() && is_credential(&text) {
            Ok(text)
        } else {
            Err(BadSeal(format!("munge made no credential ({exit}): {said}")))
        }
    }

    async fn open(&self, credential: &str) -> Result<Opened, BadSeal> {
        if !is_credential(credential) {
            return Err(BadSeal("it is no credential of munge".to_owned()));
        }
        let program = Program::new(&self.config.unmunge).arg("--numeric").input(credential);
        let (exit, out, said) = self.call(program).await?;
        match exit {
            Exit::Code(0) => {}
            Exit::Code(15) => return Err(BadSeal("it has expired: are the clocks right?".to_owned())),
            Exit::Code(16) => return Err(BadSeal("it is dated ahead: are the clocks right?".to_owned())),
            Exit::Code(17) => return Err(BadSeal("it was opened before".to_owned())),
            Exit::Code(18) => return Err(BadSeal("it is for somebody else".to_owned())),
            other => return Err(BadSeal(format!("unmunge: {other}: {said}"))),
        }
        read(&out).ok_or_else(|| BadSeal("unmunge answers something else than expected".to_owned()))
    }

    async fn addresses(&self, node: &NodeName) -> Result<BTreeSet<IpAddr>, BadSeal> {
        let name = node.as_str().to_owned();
        let found = tokio::time::timeout(LIMIT, tokio::net::lookup_host((name, 0))).await;
        let found = found.map_err(|_| BadSeal("the name service does not answer".to_owned()))?;
        Ok(found.map_err(|e| BadSeal(e.to_string()))?.map(|a| a.ip()).collect())
    }
}

/// `MUNGE:` and base64 up to a colon, of bounded length.
fn is_credential(text: &str) -> bool {
    let inside = text.strip_prefix("MUNGE:").and_then(|t| t.strip_suffix(':'));
    text.len() <= MAX_CREDENTIAL
        && inside.is_some_and(|t| {
            !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
        })
}

/// Reads what `unmunge --numeric` prints: fields, an empty line, and so many bytes.
fn read(out: &[u8]) -> Option<Opened> {
    let end = out.windows(2).position(|w| w == b"\n\n")?;
    let head = std::str::from_utf8(&out[..end]).ok()?;
    let field = |name: &str| {
        let mut hits = head.lines().filter_map(|l| l.split_once(':')).filter(|(n, _)| *n == name);
        hits.next().map(|(_, v)| v.trim())
    };
    let number = |name: &str| field(name)?.parse::<i64>().ok();
    if number("STATUS")? != 0 {
        return None;
    }
    let length = usize::try_from(number("LENGTH")?).ok()?;
    let payload = out.get(end + 2..)?;
    if payload.len() != length {
        return None;
    }
    let from = field("ENCODE_HOST").and_then(|t| t.parse::<IpAddr>().ok()).filter(|a| !a.is_unspecified());
    Some(Opened {
        payload: std::str::from_utf8(payload).ok()?.to_owned(),
        uid: field("UID")?.parse().ok()?,
        age: SignedDuration::from_secs(number("DECODE_TIME")?.checked_sub(number("ENCODE_TIME")?)?),
        from,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "STATUS:          0\nENCODE_HOST:     10.1.2.3\nENCODE_TIME:     1795286323\n\
        DECODE_TIME:     1795286330\nTTL:             120\nCIPHER:          4\nMAC:             5\nZIP:             0\n\
        UID:             0\nGID:             0\nUID_RESTRICTION: 64030\nLENGTH:          9\n\none\n\ntwo\n";

    #[test]
    fn what_unmunge_prints_is_read_with_its_payload_whole() {
        let opened = read(GOOD.as_bytes()).unwrap();
        let age = SignedDuration::from_secs(7);
        let from = Some("10.1.2.3".parse().unwrap());
        assert_eq!(opened, Opened { payload: "one\n\ntwo\n".to_owned(), uid: 0, age, from });
        let nowhere = GOOD.replace("10.1.2.3", "0.0.0.0");
        assert_eq!(read(nowhere.as_bytes()).unwrap().from, None);
        for odd in [
            GOOD.replace("STATUS:          0", "STATUS:          17"),
            GOOD.replace("LENGTH:          9", "LENGTH:          8"),
            GOOD.replace("LENGTH:          9", "LENGTH:          -1"),
            GOOD.replace("UID:             0", "UID:             root (0)"),
            GOOD.replace("STATUS", "STATE"),
            String::new(),
            "\n\n".to_owned(),
        ] {
            assert_eq!(read(odd.as_bytes()), None, "{odd}");
        }
    }

    #[test]
    fn only_credentials_reach_the_program() {
        assert!(is_credential("MUNGE:AwQFAAD0+/=:"));
        let long = format!("MUNGE:{}:", "A".repeat(MAX_CREDENTIAL));
        for text in
            ["", "MUNGE:", "MUNGE::", "MUNGE:A b:", "munge:A:", "MUNGE:A", "--input=/etc/shadow", &long]
        {
            assert!(!is_credential(text), "{text:.40}");
        }
    }
}
