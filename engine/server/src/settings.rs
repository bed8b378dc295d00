//! The section `[server]` of the configuration, and the bounds of the faces.

use crate::sources::{SourceConfig, SourceSettings};
use crate::tls::TlsFiles;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Files beside connections of people and agents: those who arrive at both faces, the journal, pipes of programs.
const OTHER_FILES: usize = 2 * 512 + 1_024;
/// Agents that are let in however few files may be open.
const MIN_AGENTS: usize = 64;
/// Files that the process asks to be allowed to open.
const WANTED_FILES: u64 = 65_536;

/// The section `[server]` as it is written.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSettings {
    /// The UNIX socket; `/run/slurmedic/engine.sock` where not set.
    pub socket: Option<PathBuf>,
    /// Address and port of the HTTP listener; none where not set.
    pub listen: Option<SocketAddr>,
    /// Certificate chain of the listener, PEM.
    pub tls_certificate: Option<PathBuf>,
    /// Key of the certificate, PEM.
    pub tls_key: Option<PathBuf>,
    /// File of hashed API tokens, which `slurmedic token` writes.
    pub tokens: Option<PathBuf>,
    /// File with the key that signs approval tickets, 32 bytes or more.
    pub ticket_key: Option<PathBuf>,
    /// Whether `/metrics` is read on the listener without a token.
    pub open_metrics: bool,
    /// CAs of the certificates that agents must show, PEM. None where they show no certificate.
    pub client_ca: Option<PathBuf>,
    /// Certificates of nodes that do not count any more, PEM.
    pub client_crl: Option<PathBuf>,
    /// Domains of hosts: `gpu001.cluster.example.org` is node `gpu001` with `cluster.example.org` here.
    pub client_domains: Vec<String>,
    /// Connections of people and programs at a time, for each face.
    pub max_connections: Option<u16>,
    /// Connections of agents at a time.
    pub max_agent_connections: Option<u32>,
    /// The largest post of alerts, in MiB.
    pub max_body_mib: Option<u16>,
    /// Sources of alerts by the last part of their path.
    pub sources: BTreeMap<String, SourceConfig>,
}

/// Why the section is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("server.{0}")]
pub struct SettingsError(pub String);

/// How the listener speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Plain HTTP, on loopback only.
    Plain(SocketAddr),
    /// HTTPS.
    Tls {
        /// Where.
        at: SocketAddr,
        /// Its files.
        files: TlsFiles,
    },
}

/// Bounds of the faces. Everything has one.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Connections of people and programs at a time, for each face.
    pub connections: usize,
    /// Connections of agents at a time, for each face.
    pub agent_connections: usize,
    /// Connections at a time of one user of the socket, or one address.
    pub per_peer: usize,
    /// Header fields of a request.
    pub headers: usize,
    /// Bytes of request line and header fields together.
    pub header_bytes: usize,
    /// Time for the head of a request, and between two requests of a connection.
    pub header_time: Duration,
    /// Time for a request that reads or posts alerts.
    pub request_time: Duration,
    /// Time for a request that looks at the cluster or decides.
    pub act_time: Duration,
    /// Bytes of a post of alerts.
    pub alert_bytes: usize,
    /// Bytes of any other request's body.
    pub body_bytes: usize,
    /// Bytes of bodies that are being read at the same time, all together.
    pub body_memory: usize,
    /// Refused attempts of one sender within a minute.
    pub refusals: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            agent_connections: 20_000,
            per_peer: 64,
            headers: 64,
            header_bytes: 16 << 10,
            header_time: Duration::from_secs(10),
            request_time: Duration::from_secs(30),
            act_time: Duration::from_secs(240),
            alert_bytes: 8 << 20,
            body_bytes: 64 << 10,
            body_memory: 64 << 20,
            refusals: 10,
        }
    }
}

impl ServerSettings {
    /// Judges the whole section; every mistake at once.
    pub fn check(&self) -> Result<(), SettingsError> {
        let mut wrong: Vec<String> = Vec::new();
        if let Err(e) = self.listen() {
            wrong.push(e.0);
        }
        for (key, path) in [
            ("socket", &self.socket),
            ("tls_certificate", &self.tls_certificate),
            ("tls_key", &self.tls_key),
            ("client_ca", &self.client_ca),
            ("client_crl", &self.client_crl),
            ("tokens", &self.tokens),
            ("ticket_key", &self.ticket_key),
        ] {
            if path.as_ref().is_some_and(|p| !p.is_absolute()) {
                wrong.push(format!("{key}: give an absolute path"));
            }
        }
        if self.max_connections.is_some_and(|n| n < 8) {
            wrong.push("max_connections: at least 8".to_owned());
        }
        if self.max_agent_connections.is_some_and(|n| !(1..=100_000).contains(&n)) {
            wrong.push("max_agent_connections: 1 to 100000".to_owned());
        }
        if self.client_ca.is_some() && self.tls_certificate.is_none() {
            wrong.push("client_ca: certificates are shown over TLS only; give tls_certificate".to_owned());
        }
        if self.client_ca.is_none() && (self.client_crl.is_some() || !self.client_domains.is_empty()) {
            wrong.push("client_ca: client_crl and client_domains say nothing without it".to_owned());
        }
        if self.max_body_mib.is_some_and(|n| !(1..=32).contains(&n)) {
            wrong.push("max_body_mib: 1 to 32".to_owned());
        }
        if let Err(e) = self.sources() {
            wrong.push(e.0);
        }
        if wrong.is_empty() { Ok(()) } else { Err(SettingsError(wrong.join("; server."))) }
    }

    /// Says how the listener speaks. Plain HTTP is for loopback only: a token must not cross a network in the clear.
    pub fn listen(&self) -> Result<Option<Listen>, SettingsError> {
        let Some(at) = self.listen else { return Ok(None) };
        match (&self.tls_certificate, &self.tls_key) {
            (Some(certificate), Some(key)) => {
                let files = TlsFiles {
                    certificate: certificate.clone(),
                    key: key.clone(),
                    client_ca: self.client_ca.clone(),
                    client_crl: self.client_crl.clone(),
                };
                Ok(Some(Listen::Tls { at, files }))
            }
            (None, None) if is_loopback(at.ip()) => Ok(Some(Listen::Plain(at))),
            (None, None) => Err(SettingsError(format!(
                "listen: {at} is not loopback, so it needs tls_certificate and tls_key"
            ))),
            _ => Err(SettingsError("listen: give both tls_certificate and tls_key".to_owned())),
        }
    }

    /// Returns the bounds.
    pub fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        if let Some(n) = self.max_connections {
            limits.connections = n.into();
            limits.per_peer = limits.per_peer.min(limits.connections);
        }
        if let Some(n) = self.max_agent_connections {
            limits.agent_connections = n as usize;
        }
        if let Some(mib) = self.max_body_mib {
            limits.alert_bytes = usize::from(mib) << 20;
        }
        limits
    }

    /// Lowers the sources; those that need no setting are there without one.
    pub fn sources(&self) -> Result<BTreeMap<String, SourceSettings>, SettingsError> {
        let mut written = self.sources.clone();
        for (name, config) in SourceConfig::built_in() {
            written.entry(name.to_owned()).or_insert(config);
        }
        let mut out = BTreeMap::new();
        let mut wrong = Vec::new();
        for (name, config) in written {
            match config.lower(&name) {
                Ok(s) => {
                    out.insert(name, s);
                }
                Err(why) => wrong.push(format!("sources.{name}: {why}")),
            }
        }
        if wrong.is_empty() { Ok(out) } else { Err(SettingsError(wrong.join("; server."))) }
    }
}

impl Limits {
    /// Lowers the number of agents to what so many open files allow, beside everything else that the engine opens.
    #[must_use]
    pub fn within(mut self, files: u64) -> Self {
        let others = 2 * self.connections + OTHER_FILES;
        let left = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(others);
        self.agent_connections = self.agent_connections.min(left.max(MIN_AGENTS));
        self
    }
}

/// Lets this process open as many files as it may, up to what the most agents need. Returns how many it can open now.
pub fn open_files() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((now, most)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    let wanted = WANTED_FILES.min(most);
    if now < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, most).is_ok() { wanted } else { now }
}

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_only() {
        let at = |text: &str| ServerSettings { listen: Some(text.parse().unwrap()), ..Default::default() };
        assert!(matches!(at("127.0.0.1:9345").listen(), Ok(Some(Listen::Plain(_)))));
        assert!(matches!(at("[::1]:9345").listen(), Ok(Some(Listen::Plain(_)))));
        for open in ["0.0.0.0:9345", "10.0.0.1:9345", "[::]:9345"] {
            assert!(at(open).check().unwrap_err().to_string().contains("tls_certificate"), "{open}");
        }
        let half = ServerSettings { tls_key: Some("/k".into()), ..at("127.0.0.1:1") };
        assert!(half.check().is_err());
        let tls = ServerSettings {
            tls_certificate: Some("/c".into()),
            tls_key: Some("/k".into()),
            ..at("0.0.0.0:1")
        };
        assert!(matches!(tls.listen(), Ok(Some(Listen::Tls { .. }))) && tls.check().is_ok());
    }

    #[test]
    fn agents_never_take_the_files_of_everybody_else() {
        let of = |files| Limits::default().within(files).agent_connections;
        assert_eq!(of(65_536), 20_000);
        assert_eq!(of(8_192), 8_192 - 512 - OTHER_FILES);
        assert_eq!(of(1_024), MIN_AGENTS);
        assert!(open_files() > 0);
    }

    #[test]
    fn certificates_of_nodes_need_tls() {
        let on = |ca: bool, tls: bool, crl: bool| ServerSettings {
            client_ca: ca.then(|| "/ca".into()),
            client_crl: crl.then(|| "/crl".into()),
            tls_certificate: tls.then(|| "/c".into()),
            tls_key: tls.then(|| "/k".into()),
            listen: Some("127.0.0.1:1".parse().unwrap()),
            ..Default::default()
        };
        assert!(on(true, true, true).check().is_ok() && on(true, true, false).check().is_ok());
        for wrong in [on(true, false, false), on(false, true, true)] {
            assert!(wrong.check().unwrap_err().to_string().contains("server.client_ca"), "{wrong:?}");
        }
    }

    #[test]
    fn mistakes_are_told_all_at_once() {
        let bad = ServerSettings {
            socket: Some("run/x".into()),
            max_body_mib: Some(0),
            max_connections: Some(1),
            ..Default::default()
        };
        let said = bad.check().unwrap_err().to_string();
        for part in ["server.socket", "server.max_body_mib", "server.max_connections"] {
            assert!(said.contains(part), "{said}");
        }
    }
}
